//! Server-sent events: what changed, from where the page left off.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use tokio::sync::broadcast::error::RecvError;

use crate::bus::BusEvent;
use crate::http::Shared;

/// Streams `occupancy`, `alert` and `health`; `reset` means that more was missed than is known, and that everything
/// should be loaded anew. `Last-Event-ID` takes up where a stream broke off.
#[utoipa::path(get, path = "/api/v1/stream", responses((status = 200, content_type = "text/event-stream", body = String)))]
pub(super) async fn stream(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let subscription = shared.bus.subscribe(last);
    let mut first: std::collections::VecDeque<Event> = std::collections::VecDeque::new();
    if subscription.is_reset {
        let id = shared.bus.id_text(subscription.last_id);
        first.push_back(Event::default().event("reset").id(id).data("{}"));
    }
    first.extend(subscription.missed.iter().map(|event| written(&shared, event)));
    let state = (shared, first, subscription.receiver);
    let events = futures_util::stream::unfold(state, |(shared, mut first, mut receiver)| async move {
        if let Some(event) = first.pop_front() {
            return Some((Ok(event), (shared, first, receiver)));
        }
        let event = tokio::select! {
            received = receiver.recv() => match received {
                Ok(event) => written(&shared, &event),
                // Too slow for the stream: what it shows now is old, and loading anew is quicker than catching up.
                Err(RecvError::Lagged(_)) => Event::default().event("reset").data("{}"),
                Err(RecvError::Closed) => return None,
            },
            () = shared.stop.cancelled() => return None,
        };
        Some((Ok(event), (shared, first, receiver)))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

fn written(shared: &Shared, event: &BusEvent) -> Event {
    Event::default()
        .event(event.name)
        .id(shared.bus.id_text(event.id))
        .data(&*event.data)
}
