//! Receivers over HTTP: who is told, what waits for each, and what one would not take.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::request::{Path, Query};
use crate::http::paging::{Page, Paging};
use crate::http::{Problem, Shared};
use crate::outbox::{DeadLetterView, ReceiverView, StepId};

/// How many steps go out again.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct Resent {
    /// Dead letters that were put back.
    resent: usize,
}

fn no_receiver(name: &str) -> Problem {
    Problem::not_found("receiver", name).right("/api/v1/receivers lists them")
}

fn no_letter(id: &str) -> Problem {
    Problem::not_found("dead letter", id).right("the receiver's dead-letters lists them")
}

fn step_id(id: &str) -> Result<StepId, Problem> {
    id.parse().map_err(|_| no_letter(id))
}

/// Everybody who is told of alerts, the broker first.
#[utoipa::path(get, path = "/api/v1/receivers", params(Paging), responses((status = 200, body = Page<ReceiverView>)))]
pub(super) async fn list(State(shared): State<Arc<Shared>>, Query(paging): Query<Paging>) -> Json<Page<ReceiverView>> {
    Json(paging.cut(shared.outbox.receivers(), |receiver| receiver.name.clone()))
}

/// One of them.
#[utoipa::path(get, path = "/api/v1/receivers/{name}", params(("name" = String, Path)),
    responses((status = 200, body = ReceiverView), (status = 404, body = Problem)))]
pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Json<ReceiverView>, Problem> {
    let view = shared.outbox.receiver_view(&name);
    view.map(Json).ok_or_else(|| no_receiver(&name))
}

/// The steps that it would not take, the oldest first.
#[utoipa::path(get, path = "/api/v1/receivers/{name}/dead-letters", params(("name" = String, Path), Paging),
    responses((status = 200, body = Page<DeadLetterView>), (status = 404, body = Problem)))]
pub(super) async fn dead_letters(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<DeadLetterView>>, Problem> {
    let letters = shared.outbox.dead_letters(&name).ok_or_else(|| no_receiver(&name))?;
    Ok(Json(paging.cut(letters, |letter| letter.id.clone())))
}

/// Sends one of them again, behind what waits of its subject.
#[utoipa::path(post, path = "/api/v1/receivers/{name}/dead-letters/{id}/resend",
    params(("name" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = Resent), (status = 404, body = Problem)))]
pub(super) async fn resend(
    State(shared): State<Arc<Shared>>,
    Path((name, id)): Path<(String, String)>,
) -> Result<Json<Resent>, Problem> {
    match shared.outbox.resend(&name, Some(step_id(&id)?)) {
        None => Err(no_receiver(&name)),
        Some(0) => Err(no_letter(&id)),
        Some(resent) => Ok(Json(Resent { resent })),
    }
}

/// Sends all of them again.
#[utoipa::path(post, path = "/api/v1/receivers/{name}/dead-letters/resend", params(("name" = String, Path)),
    responses((status = 200, body = Resent), (status = 404, body = Problem)))]
pub(super) async fn resend_all(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Json<Resent>, Problem> {
    let resent = shared.outbox.resend(&name, None).ok_or_else(|| no_receiver(&name))?;
    Ok(Json(Resent { resent }))
}

/// Throws one of them away.
#[utoipa::path(delete, path = "/api/v1/receivers/{name}/dead-letters/{id}",
    params(("name" = String, Path), ("id" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn discard(
    State(shared): State<Arc<Shared>>,
    Path((name, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    match shared.outbox.discard(&name, step_id(&id)?) {
        None => Err(no_receiver(&name)),
        Some(false) => Err(no_letter(&id)),
        Some(true) => Ok(StatusCode::NO_CONTENT),
    }
}
