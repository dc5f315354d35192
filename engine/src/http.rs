//! The HTTP API and the staff page: views of the engine for people and scripts.

mod alerts;
mod erasure;
mod health;
mod lookups;
mod measures;
mod messages;
mod page;
mod paging;
mod people;
mod places;
mod points;
mod problem;
mod public;
mod queries;
mod receivers;
mod refused;
mod request;
mod stream;
mod trial;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;
use usher_connectors::log::Log;
use usher_connectors::source::Health;
use usher_queries::error::QueryError;
use usher_queries::query_set::QuerySet;
use usher_queries::statement::{Statement, parse_statements_with};
use utoipa::OpenApi;

use crate::bus::Bus;
use crate::erasure::Erasing;
pub use crate::http::health::Status;
pub(crate) use crate::http::health::tell_health;
pub use crate::http::problem::Problem;
pub use crate::http::public::{public_router, public_streams};
use crate::intake::Intake;
use crate::latency::Latencies;
use crate::outbox::Outbox;
use crate::perception::Perception;
use crate::pipeline::{Asker, Stopping};
use crate::public::Board;
use crate::settings::ParameterSettings;
use crate::shed::Shedding;
use crate::supervisor::Supervisor;

/// The largest body taken, bytes; a query has no more.
const BODY_MAX: usize = 512 * 1024;

/// Statements planned at once: one can take a core for seconds, and the others are for events.
const PLANNINGS_AT_ONCE: usize = 1;

/// The turns of those who plan statements.
pub fn planning_turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(PLANNINGS_AT_ONCE))
}

/// What the handlers need.
pub struct Shared {
    /// Asks the engine.
    pub asker: Asker,
    /// Tells pages.
    pub bus: Arc<Bus>,
    /// What anybody may see.
    pub board: Arc<Board>,
    /// Who wants to be told of it waits here for room; made by [`public_streams`].
    pub public_streams: Arc<Semaphore>,
    /// Stage times.
    pub latencies: Arc<Latencies>,
    /// What waits for the receivers.
    pub outbox: Arc<Outbox>,
    /// The log, for questions about what was.
    pub log: Arc<dyn Log>,
    /// A record that waits longer for the disk means that the disk is slow.
    pub log_slow_after: std::time::Duration,
    /// How the sources are, with their names.
    pub sources: Vec<(String, watch::Receiver<Health>)>,
    /// True once the engine has caught up and takes messages.
    pub ready: Arc<AtomicBool>,
    /// What messages were dropped lately.
    pub shedding: Arc<Shedding>,
    /// How long messages wait.
    pub intake: Arc<Intake>,
    /// Renders metrics.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Makes the configured queries anew, for trials.
    pub fresh_queries: Arc<dyn Fn() -> QuerySet + Send + Sync>,
    /// Makes them know nothing yet, to work out what people would have been written.
    pub fresh_perception: Arc<dyn Fn() -> Perception + Send + Sync>,
    /// Who plans a statement waits here for a turn; made by [`planning_turns`].
    pub planning: Arc<Semaphore>,
    /// Knows how the parts are that can fail.
    pub supervisor: Supervisor,
    /// Where queries are kept that were added while running.
    pub queries_dir: std::path::PathBuf,
    /// The values of parameters, for statements that come while running.
    pub parameters: Arc<ParameterSettings>,
    /// Takes off the disk who was erased.
    pub erasing: Arc<Erasing>,
    /// When the process started.
    pub started: Instant,
    /// A figure about people is shown when at least so many stand behind it.
    pub privacy_k: u32,
    /// Open streams end when this does.
    pub stop: CancellationToken,
}

impl Shared {
    /// Whether the engine takes messages.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Reads statements, whose parameters have the values of the settings.
    pub(crate) fn statements_of(&self, sql: &str) -> Result<Vec<Statement>, QueryError> {
        parse_statements_with(sql, Some(&self.parameters.values))
    }

    /// Waits for a turn to plan statements; whoever plans holds it to the end, also when nobody waits for the answer
    /// any more.
    pub(crate) async fn planning_turn(&self) -> Result<OwnedSemaphorePermit, Stopping> {
        let turn = Arc::clone(&self.planning).acquire_owned().await;
        turn.map_err(|_| Stopping)
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
        refused::refused,
        places::zones,
        places::zone,
        places::seats,
        places::devices,
        erasure::export,
        erasure::erase,
        erasure::receipt,
        alerts::list,
        alerts::one,
        alerts::acknowledge,
        alerts::snooze,
        alerts::unsnooze,
        alerts::assign,
        alerts::clear,
        alerts::comment,
        measures::list,
        measures::one,
        messages::list,
        messages::of_person,
        messages::uplift,
        people::person,
        people::consent,
        lookups::list,
        points::points,
        points::change,
        points::reverse,
        queries::list,
        queries::explain,
        queries::check,
        trial::trial,
        queries::put,
        queries::delete,
        queries::ask,
        receivers::list,
        receivers::one,
        receivers::dead_letters,
        receivers::resend,
        receivers::resend_all,
        receivers::discard,
        stream::stream,
        public::zones,
        public::zone,
        public::measures,
        public::measure,
        public::stream,
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
        .route("/api/v1/refused", get(refused::refused))
        .route("/api/v1/zones", get(places::zones))
        .route("/api/v1/zones/{zone}", get(places::zone))
        .route("/api/v1/seats", get(places::seats))
        .route("/api/v1/devices", get(places::devices))
        .route("/api/v1/alerts", get(alerts::list))
        .route("/api/v1/alerts/{id}", get(alerts::one))
        .route("/api/v1/alerts/{id}/acknowledge", post(alerts::acknowledge))
        .route("/api/v1/alerts/{id}/snooze", post(alerts::snooze))
        .route("/api/v1/alerts/{id}/unsnooze", post(alerts::unsnooze))
        .route("/api/v1/alerts/{id}/assign", post(alerts::assign))
        .route("/api/v1/alerts/{id}/clear", post(alerts::clear))
        .route("/api/v1/alerts/{id}/comment", post(alerts::comment))
        .route("/api/v1/measures", get(measures::list))
        .route("/api/v1/measures/uplift", get(messages::uplift))
        .route("/api/v1/messages", get(messages::list))
        .route("/api/v1/people/{pseudonym}/messages", get(messages::of_person))
        .route("/api/v1/measures/{name}", get(measures::one))
        .route("/api/v1/people/{pseudonym}", get(people::person).delete(erasure::erase))
        .route("/api/v1/people/{pseudonym}/consent", get(people::consent))
        .route("/api/v1/people/{pseudonym}/lookups", get(lookups::list))
        .route("/api/v1/people/{pseudonym}/export", get(erasure::export))
        .route("/api/v1/erasures/{id}", get(erasure::receipt))
        .route(
            "/api/v1/people/{pseudonym}/points",
            get(points::points).post(points::change),
        )
        .route(
            "/api/v1/people/{pseudonym}/points/{entry}/reverse",
            post(points::reverse),
        )
        .route("/api/v1/queries", get(queries::list))
        .route("/api/v1/queries/check", post(queries::check))
        .route("/api/v1/queries/trial", post(trial::trial))
        .route(
            "/api/v1/queries/{name}",
            put(queries::put).delete(queries::delete).get(queries::explain),
        )
        .route("/api/v1/query", post(queries::ask))
        .route("/api/v1/receivers", get(receivers::list))
        .route("/api/v1/receivers/{name}", get(receivers::one))
        .route("/api/v1/receivers/{name}/dead-letters", get(receivers::dead_letters))
        .route(
            "/api/v1/receivers/{name}/dead-letters/resend",
            post(receivers::resend_all),
        )
        .route(
            "/api/v1/receivers/{name}/dead-letters/{id}",
            axum::routing::delete(receivers::discard),
        )
        .route(
            "/api/v1/receivers/{name}/dead-letters/{id}/resend",
            post(receivers::resend),
        )
        .route("/api/v1/stream", get(stream::stream))
        .route("/", get(page::index))
        .route("/assets/{file}", get(page::asset))
        .merge(public::routes())
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
    protect(&mut response);
    response
}

/// Tells browsers to load nothing from elsewhere, and to guess nothing.
fn protect(response: &mut Response) {
    let headers = response.headers_mut();
    let policy = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

fn is_same_origin(request: &Request) -> bool {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        (None, _) => true,
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, from)| from == host),
        (Some(_), None) => false,
    }
}
