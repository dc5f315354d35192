//! What could not be read, over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use usher_queries::rows::time_to_text;

use super::request::Query;
use crate::http::paging::{Page, Paging};
use crate::http::{Problem, Shared};
use crate::refused::Refusal;

/// A payload that could not be read.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct RefusedView {
    /// Where it was published; nothing where a packet was too large to be read.
    pub topic: String,
    /// When it came, RFC 3339.
    pub received_at: String,
    /// Why, and what would be right.
    pub reason: String,
    /// The kind of reason, as in the metrics.
    pub class: &'static str,
    /// Bytes of the payload.
    pub size: usize,
    /// How it began, with what could name a person hidden.
    pub sample: String,
}

/// Which refusals.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
pub(super) struct OfTopic {
    /// Only topics that begin so.
    topic: Option<String>,
}

/// Payloads that could not be read, newest first; the last 1,000 are kept to look at.
#[utoipa::path(get, path = "/api/v1/refused", params(Paging, OfTopic),
    responses((status = 200, body = Page<RefusedView>)))]
pub(super) async fn refused(
    State(shared): State<Arc<Shared>>,
    Query(paging): Query<Paging>,
    Query(of): Query<OfTopic>,
) -> Result<Json<Page<RefusedView>>, Problem> {
    let refused: Vec<Refusal> = shared
        .asker
        .ask(move |pipeline| {
            let is_wanted = |refusal: &&Refusal| {
                of.topic
                    .as_ref()
                    .is_none_or(|topic| refusal.topic.starts_with(topic.as_str()))
            };
            pipeline.refused.newest_first().filter(is_wanted).cloned().collect()
        })
        .await?;
    let mut number = refused.len();
    let views: Vec<(usize, RefusedView)> = refused
        .into_iter()
        .map(|refusal| {
            number -= 1;
            let view = RefusedView {
                topic: refusal.topic.to_string(),
                received_at: time_to_text(refusal.received_us),
                class: refusal.class.as_str(),
                reason: refusal.reason,
                size: refusal.size,
                sample: refusal.sample,
            };
            (number, view)
        })
        .collect();
    let page = paging.cut(views, |(number, _)| format!("{:08}", 100_000_000 - number));
    Ok(Json(Page {
        items: page.items.into_iter().map(|(_, view)| view).collect(),
        next: page.next,
    }))
}
