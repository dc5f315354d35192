//! The HTTP API and the staff page: views of the engine for people and scripts.

mod alerts;
mod health;
mod page;
mod paging;
mod people;
mod places;
mod problem;
mod queries;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;
use usher_connectors::log::Log;
use usher_connectors::source::Health;
use usher_queries::query_set::QuerySet;
use utoipa::OpenApi;

use crate::bus::Bus;
pub use crate::http::health::Status;
pub(crate) use crate::http::health::tell_health;
pub use crate::http::problem::Problem;
use crate::latency::Latencies;
use crate::outbox::Outbox;
use crate::pipeline::Asker;

/// The largest body taken, bytes; a query has no more.
const BODY_MAX: usize = 512 * 1024;

/// What the handlers need.
pub struct Shared {
    /// Asks the engine.
    pub asker: Asker,
    /// Tells pages.
    pub bus: Arc<Bus>,
    /// Stage times.
    pub latencies: Arc<Latencies>,
    /// What waits for the broker.
    pub outbox: Arc<Outbox>,
    /// The log, for questions about what was.
    pub log: Arc<dyn Log>,
    /// How the sources are, with their names.
    pub sources: Vec<(String, watch::Receiver<Health>)>,
    /// True once the engine has caught up and takes messages.
    pub ready: Arc<AtomicBool>,
    /// Renders metrics.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Makes the configured queries anew, for trials.
    pub fresh_queries: Arc<dyn Fn() -> QuerySet + Send + Sync>,
    /// Where queries are kept that were added while running.
    pub queries_dir: std::path::PathBuf,
    /// When the process started.
    pub started: Instant,
    /// Open streams end when this does.
    pub stop: CancellationToken,
}

impl Shared {
    /// Whether the engine takes messages.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Usher",
        description = "Live occupancy, engagement and alerts of libraries and other shared spaces."
    ),
    paths(
        health::alive,
        health::ready,
        health::metrics,
        health::status,
        health::refused,
        places::zones,
        places::zone,
        places::seats,
        places::devices,
        alerts::list,
        alerts::one,
        alerts::acknowledge,
        alerts::snooze,
        alerts::clear,
        alerts::comment,
        people::person,
        queries::list,
        queries::explain,
        queries::check,
        queries::trial,
        queries::put,
        queries::delete,
        queries::ask,
        stream::stream,
    )
)]
struct Api;

/// All routes.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/api/openapi.json", get(|| async { axum::Json(Api::openapi()) }))
        .route("/api/v1/status", get(health::status))
        .route("/api/v1/refused", get(health::refused))
        .route("/api/v1/zones", get(places::zones))
        .route("/api/v1/zones/{zone}", get(places::zone))
        .route("/api/v1/seats", get(places::seats))
        .route("/api/v1/devices", get(places::devices))
        .route("/api/v1/alerts", get(alerts::list))
        .route("/api/v1/alerts/{id}", get(alerts::one))
        .route("/api/v1/alerts/{id}/acknowledge", post(alerts::acknowledge))
        .route("/api/v1/alerts/{id}/snooze", post(alerts::snooze))
        .route("/api/v1/alerts/{id}/clear", post(alerts::clear))
        .route("/api/v1/alerts/{id}/comment", post(alerts::comment))
        .route("/api/v1/people/{pseudonym}", get(people::person))
        .route("/api/v1/queries", get(queries::list))
        .route("/api/v1/queries/check", post(queries::check))
        .route("/api/v1/queries/trial", post(queries::trial))
        .route(
            "/api/v1/queries/{name}",
            put(queries::put).delete(queries::delete).get(queries::explain),
        )
        .route("/api/v1/query", post(queries::ask))
        .route("/api/v1/stream", get(stream::stream))
        .route("/", get(page::index))
        .route("/assets/{file}", get(page::asset))
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "there is nothing here")
                .right("the staff page is at /, the API is described in /api/openapi.json")
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this can't be done here")
                .right("/api/openapi.json lists what can be done where")
        })
        .layer(axum::middleware::from_fn(guard))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_MAX))
        .layer(CompressionLayer::new())
        .with_state(shared)
}

/// Refuses orders from pages of other hosts, and tells browsers to load nothing from elsewhere.
async fn guard(request: Request, next: Next) -> Response {
    let is_order = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if is_order && !is_same_origin(&request) {
        return Problem::new(StatusCode::FORBIDDEN, "the order comes from a page of another host")
            .right("orders are taken from Usher's own page and from scripts, which send no Origin")
            .into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let policy = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn is_same_origin(request: &Request) -> bool {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        (None, _) => true,
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, from)| from == host),
        (Some(_), None) => false,
    }
}
