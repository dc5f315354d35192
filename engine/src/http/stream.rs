//! Server-sent events: what changed, from where the page left off.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use tokio::sync::broadcast::error::RecvError;

use crate::alert::Alert;
use crate::bus::{Bus, BusEvent};
use crate::http::Shared;

/// Steps of alerts that a page is told after a break; one that has missed more loads everything anew in any case.
const MISSED_MAX: u64 = 1_000;

/// Streams `occupancy`, `alert` and `health`; `reset` means that more was missed than is known, and that everything
/// should be loaded anew. `Last-Event-ID` takes up where a stream broke off; also after a restart, for then the steps of
/// alerts that were missed come first, as far as they are kept, and `reset` after them.
#[utoipa::path(get, path = "/api/v1/stream", responses((status = 200, content_type = "text/event-stream", body = String)))]
pub(super) async fn stream(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let subscription = shared.bus.subscribe(last);
    let mut first: std::collections::VecDeque<Event> = std::collections::VecDeque::new();
    if let Some(steps) = subscription.missed_steps {
        first.extend(missed_steps(&shared, steps).await);
    }
    if subscription.is_reset {
        let id = shared.bus.id_text(subscription.last_id, subscription.steps);
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
        .id(shared.bus.id_text(event.id, event.steps))
        .data(&*event.data)
}

/// The steps of alerts that a page has missed; none when they are too many or no longer kept.
async fn missed_steps(shared: &Shared, steps: Range<u64>) -> Vec<Event> {
    if steps.is_empty() || steps.end - steps.start > MISSED_MAX {
        return Vec::new();
    }
    let told = shared.outbox.steps(steps).await;
    let written = |(number, alert): (u64, Arc<Alert>)| {
        let data = serde_json::to_string(&*alert).expect("an alert is always JSON");
        let id = Bus::step_id_text(number + 1);
        Event::default().event("alert").id(id).data(data)
    };
    told.into_iter().map(written).collect()
}
