//! Alerts over HTTP: what stands, and what staff does to it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use crate::alert::Alert;
use crate::alerts::{Action, Deed};
use crate::http::paging::{Page, Paging};
use crate::http::{Problem, Shared};
use crate::pipeline::wall_clock_us;

/// Longest text kept beside an alert, bytes.
const COMMENT_MAX: usize = 2_000;
/// Longest an alert can be snoozed, minutes: a week.
const SNOOZE_MAX: u32 = 7 * 24 * 60;
/// Longest name of whoever does something, bytes.
const BY_MAX: usize = 100;

/// Which alerts.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
pub(super) struct Which {
    /// `pending`, `active`, `acknowledged`, `recovering`, `cleared`, or `open` for all but cleared ones. All when
    /// left out.
    state: Option<String>,
    /// Only of this rule.
    rule: Option<String>,
    /// Only of this site.
    site: Option<String>,
}

/// Who does something.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
pub(super) struct By {
    /// A name or role, as staff wants to be known to staff.
    #[serde(default)]
    by: Option<String>,
}

/// For how long.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
pub(super) struct Snooze {
    /// 1 to 10080; 30 when left out.
    #[serde(default)]
    minutes: Option<u32>,
    /// A name or role.
    #[serde(default)]
    by: Option<String>,
}

/// Words to keep.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
pub(super) struct Words {
    /// At most 2000 bytes.
    text: String,
    /// A name or role.
    #[serde(default)]
    by: Option<String>,
}

/// Alerts, newest first: those that stand, then cleared ones.
#[utoipa::path(get, path = "/api/v1/alerts", params(Paging, Which),
    responses((status = 200, body = Page<Alert>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(paging): Query<Paging>,
    Query(which): Query<Which>,
) -> Result<Json<Page<Alert>>, Problem> {
    const STATES: [&str; 6] = ["open", "pending", "active", "acknowledged", "recovering", "cleared"];
    if let Some(state) = which.state.as_deref().filter(|state| !STATES.contains(state)) {
        return Err(
            Problem::new(StatusCode::BAD_REQUEST, format!("'{state}' is no state of an alert"))
                .right(&format!("one of {} would be right", STATES.join(", "))),
        );
    }
    let alerts = shared
        .asker
        .ask(move |pipeline| {
            let alerts = &pipeline.perception.alerts;
            let is_wanted = |alert: &Alert| {
                let state = match which.state.as_deref() {
                    None => true,
                    Some("open") => alert.state != crate::alert::State::Cleared,
                    Some(state) => alert.state.as_str() == state,
                };
                let rule = which.rule.as_ref().is_none_or(|rule| **rule == *alert.rule);
                state && rule && which.site.as_ref().is_none_or(|site| *site == alert.site)
            };
            let open = alerts.open().into_iter();
            let cleared = alerts.cleared().map(AsRef::as_ref);
            open.chain(cleared)
                .filter(|alert| is_wanted(alert))
                .cloned()
                .collect::<Vec<Alert>>()
        })
        .await?;
    Ok(Json(paging.cut(alerts, |alert| alert.id.clone())))
}

/// One alert.
#[utoipa::path(get, path = "/api/v1/alerts/{id}", params(("id" = String, Path)),
    responses((status = 200, body = Alert), (status = 404, body = Problem)))]
pub(super) async fn one(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<Json<Alert>, Problem> {
    let wanted = id.clone();
    let alert = shared
        .asker
        .ask(move |pipeline| pipeline.perception.alerts.get(&wanted).cloned())
        .await?;
    alert.map(Json).ok_or_else(|| Problem::not_found("alert", &id))
}

/// Somebody looks after it.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/acknowledge", params(("id" = String, Path)), request_body = Option<By>,
    responses((status = 200, body = Alert), (status = 404, body = Problem)))]
pub(super) async fn acknowledge(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    body: Option<Json<By>>,
) -> Result<Json<Alert>, Problem> {
    act(&shared, id, body.and_then(|Json(body)| body.by), Deed::Acknowledge).await
}

/// Not to be told of for a while.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/snooze", params(("id" = String, Path)), request_body = Option<Snooze>,
    responses((status = 200, body = Alert), (status = 404, body = Problem)))]
pub(super) async fn snooze(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    body: Option<Json<Snooze>>,
) -> Result<Json<Alert>, Problem> {
    let (minutes, by) = body.map_or((None, None), |Json(body)| (body.minutes, body.by));
    let minutes = minutes.unwrap_or(30);
    if !(1..=SNOOZE_MAX).contains(&minutes) {
        return Err(
            Problem::new(StatusCode::BAD_REQUEST, format!("{minutes} minutes can't be snoozed"))
                .right("1 to 10080 would be right"),
        );
    }
    let until = wall_clock_us() + i64::from(minutes) * 60_000_000;
    act(&shared, id, by, Deed::SnoozeUntil(until)).await
}

/// It is over.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/clear", params(("id" = String, Path)), request_body = Option<By>,
    responses((status = 200, body = Alert), (status = 404, body = Problem)))]
pub(super) async fn clear(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    body: Option<Json<By>>,
) -> Result<Json<Alert>, Problem> {
    act(&shared, id, body.and_then(|Json(body)| body.by), Deed::Clear).await
}

/// Words to keep beside it.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/comment", params(("id" = String, Path)), request_body = Words,
    responses((status = 200, body = Alert), (status = 404, body = Problem)))]
pub(super) async fn comment(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Json(words): Json<Words>,
) -> Result<Json<Alert>, Problem> {
    let text = words.text.trim();
    if text.is_empty() || text.len() > COMMENT_MAX {
        return Err(
            Problem::new(StatusCode::BAD_REQUEST, format!("the comment has {} bytes", text.len()))
                .right("1 to 2000 would be right"),
        );
    }
    act(&shared, id, words.by, Deed::Comment(text.to_owned())).await
}

async fn act(shared: &Shared, id: String, by: Option<String>, deed: Deed) -> Result<Json<Alert>, Problem> {
    let mut by = by
        .filter(|by| !by.trim().is_empty())
        .unwrap_or_else(|| "staff".to_owned());
    if by.len() > BY_MAX {
        by = by.chars().take(BY_MAX / 4).collect();
    }
    let action = Action {
        alert: id.clone(),
        by,
        at_us: wall_clock_us(),
        deed,
    };
    let alert = shared.asker.ask(move |pipeline| pipeline.act(action)).await?;
    match alert {
        Some(alert) => Ok(Json((*alert).clone())),
        None => Err(Problem::new(StatusCode::NOT_FOUND, format!("no alert '{id}' stands"))
            .right("/api/v1/alerts?state=open lists those that do")),
    }
}
