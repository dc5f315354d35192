//! Public answers over HTTP: what anybody may see. They are read off the board, so that no request reaches the engine.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use futures_util::Stream;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tower_http::compression::CompressionLayer;

use super::places::OfSite;
use super::request::{Path, Query};
use super::{health, protect};
use crate::bus::BusEvent;
use crate::http::paging::{Page, Paging};
use crate::http::{Problem, Shared};
use crate::public::{Answers, PublicMeasure, PublicZone};

/// Streams open at once: some for each screen of a large library. Beyond it whoever comes asks again later.
const STREAMS_MAX: usize = 1_000;

/// The room that streams take.
pub fn public_streams() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(STREAMS_MAX))
}

/// The routes of public answers.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/api/v1/public/zones", get(zones))
        .route("/api/v1/public/zones/{zone}", get(zone))
        .route("/api/v1/public/measures", get(measures))
        .route("/api/v1/public/measures/{name}", get(measure))
        .route("/api/v1/public/stream", get(stream))
}

/// Public answers and nothing else, for an address that anybody can reach.
pub fn public_router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .merge(routes())
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing here") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "there is nothing to be done here")
        })
        .layer(axum::middleware::from_fn(open))
        .layer(CompressionLayer::new())
        .with_state(shared)
}

/// Lets pages of other hosts read what anybody may see.
async fn open(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    protect(&mut response);
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn answers(shared: &Shared) -> Result<Arc<Answers>, Problem> {
    let starting = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the engine is starting");
    shared.board.answers().ok_or_else(starting)
}

/// All zones that the library has named, as anybody may see them: counts in steps of `privacy.k`, few hidden.
#[utoipa::path(get, path = "/api/v1/public/zones", tag = "public", params(Paging, OfSite),
    responses((status = 200, body = Page<PublicZone>)))]
pub(super) async fn zones(
    State(shared): State<Arc<Shared>>,
    Query(paging): Query<Paging>,
    Query(of): Query<OfSite>,
) -> Result<Json<Page<PublicZone>>, Problem> {
    let mut zones = answers(&shared)?.zones.clone();
    zones.retain(|zone| of.site.as_ref().is_none_or(|site| *site == zone.site));
    Ok(Json(paging.cut(zones, |zone| format!("{}/{}", zone.site, zone.zone))))
}

/// One zone as anybody may see it.
#[utoipa::path(get, path = "/api/v1/public/zones/{zone}", tag = "public", params(("zone" = String, Path), OfSite),
    responses((status = 200, body = PublicZone), (status = 404, body = Problem)))]
pub(super) async fn zone(
    State(shared): State<Arc<Shared>>,
    Path(zone): Path<String>,
    Query(of): Query<OfSite>,
) -> Result<Json<PublicZone>, Problem> {
    let answers = answers(&shared)?;
    let is_it = |found: &&PublicZone| found.zone == zone && of.site.as_ref().is_none_or(|site| *site == found.site);
    let found = answers.zones.iter().find(is_it).cloned();
    found.map(Json).ok_or_else(|| Problem::not_found("zone", &zone))
}

/// The measures of which anybody may see rows.
#[utoipa::path(get, path = "/api/v1/public/measures", tag = "public", params(Paging),
    responses((status = 200, body = Page<PublicMeasure>)))]
pub(super) async fn measures(
    State(shared): State<Arc<Shared>>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<PublicMeasure>>, Problem> {
    let measures = answers(&shared)?.measures.clone();
    Ok(Json(paging.cut(measures, |measure| measure.name.clone())))
}

/// What a measure came to in windows that are over, the latest first: whole numbers in steps of `privacy.k`, null where they
/// are few. A row of few persons is left out, and so is the one that would give it away.
#[utoipa::path(get, path = "/api/v1/public/measures/{name}", tag = "public", params(("name" = String, Path), Paging),
    responses((status = 200, body = Page<Object>), (status = 404, body = Problem)))]
pub(super) async fn measure(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Map<String, Value>>>, Problem> {
    let answers = answers(&shared)?;
    if !answers.measures.iter().any(|measure| measure.name == name) {
        return Err(Problem::not_found("measure", &name));
    }
    let rows = answers.rows.get(&name).map(|rows| rows.to_vec()).unwrap_or_default();
    let rows: Vec<(usize, Map<String, Value>)> = rows.into_iter().enumerate().collect();
    let page = paging.cut(rows, |(number, _)| format!("{number:08}"));
    Ok(Json(Page {
        items: page.items.into_iter().map(|(_, row)| row).collect(),
        next: page.next,
    }))
}

/// Streams `occupancy`: each zone that shows something else than before, when it does. `reset` means that more was missed than
/// is known. `Last-Event-ID` takes up where a stream broke off.
#[utoipa::path(get, path = "/api/v1/public/stream", tag = "public",
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 503, body = Problem)))]
pub(super) async fn stream(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let room = Arc::clone(&shared.public_streams).try_acquire_owned().map_err(|_| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{STREAMS_MAX} others are being told"),
        )
        .right("the zones can be asked for meanwhile, at /api/v1/public/zones")
    })?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let subscription = shared.board.bus().subscribe(last);
    let mut first: VecDeque<Event> = VecDeque::new();
    if subscription.is_reset {
        let id = shared.board.bus().id_text(subscription.last_id, 0);
        first.push_back(Event::default().event("reset").id(id).data("{}"));
    }
    first.extend(subscription.missed.iter().map(|event| written(&shared, event)));
    let state = (shared, first, subscription.receiver, room);
    let events = futures_util::stream::unfold(state, |(shared, mut first, mut receiver, room)| async move {
        if let Some(event) = first.pop_front() {
            return Some((Ok(event), (shared, first, receiver, room)));
        }
        let event = tokio::select! {
            received = receiver.recv() => match received {
                Ok(event) => written(&shared, &event),
                Err(RecvError::Lagged(_)) => Event::default().event("reset").data("{}"),
                Err(RecvError::Closed) => return None,
            },
            () = shared.stop.cancelled() => return None,
        };
        Some((Ok(event), (shared, first, receiver, room)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

fn written(shared: &Shared, event: &BusEvent) -> Event {
    let id = shared.board.bus().id_text(event.id, event.steps);
    Event::default().event(event.name).id(id).data(&*event.data)
}
