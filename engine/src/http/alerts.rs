//! Alerts over HTTP: what stands, and what staff does to it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use super::lookups::Reader;
use super::request::{Body, Path, Query, Written};
use crate::alert::{Alert, AlertHistory};
use crate::alerts::{Action, Deed};
use crate::http::paging::{Page, Paging};
use crate::http::{Problem, Shared};
use crate::pipeline::wall_clock_us;

/// Longest text kept beside an alert, bytes.
const COMMENT_MAX: usize = 2_000;
/// How long an alert is snoozed when nobody says, minutes.
const SNOOZE: i64 = 30;
/// Longest an alert can be snoozed, minutes: a week.
const SNOOZE_MAX: i64 = 7 * 24 * 60;
const MINUTE_US: i64 = 60_000_000;
/// How long somebody waits to hear that what they did is on disk; a healthy one takes milliseconds.
pub(super) const DURABLE_WITHIN: Duration = Duration::from_secs(10);
/// Longest name of whoever does something, bytes.
pub(super) const BY_MAX: usize = 100;

/// Which alerts.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
pub(super) struct Which {
    /// `pending`, `active`, `acknowledged`, `recovering`, `cleared`, or `open` for all but cleared ones. All when
    /// left out.
    state: Option<String>,
    /// Only of this rule, its groups and missing data among them; `rule.group` and `rule.no_data` are those alone.
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

/// For how long: `minutes` or `until`, and half an hour when both are left out.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
pub(super) struct Snooze {
    /// 1 to 10080.
    #[serde(default)]
    minutes: Option<i64>,
    /// RFC 3339, within the next week.
    #[serde(default)]
    until: Option<String>,
    /// A name or role.
    #[serde(default)]
    by: Option<String>,
}

/// Who is to look after it.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
pub(super) struct Assignment {
    /// A name or role of at most 100 bytes; null for nobody.
    to: Option<String>,
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

impl Written for By {
    const RIGHT: &str = r#"{"by": "Li"}"#;
}

impl Written for Snooze {
    const RIGHT: &str = r#"{"minutes": 60, "by": "Li"}"#;
}

impl Written for Assignment {
    const RIGHT: &str = r#"{"to": "Wu", "by": "Li"}"#;
}

impl Written for Words {
    const RIGHT: &str = r#"{"text": "on my way", "by": "Li"}"#;
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
                let is_of = |rule: &String| {
                    let behind = alert.rule.strip_prefix(rule.as_str());
                    behind.is_some_and(|behind| behind.is_empty() || behind.starts_with('.'))
                };
                let rule = which.rule.as_ref().is_none_or(is_of);
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

/// One alert, with the steps of its life.
#[utoipa::path(get, path = "/api/v1/alerts/{id}", params(("id" = String, Path)),
    responses((status = 200, body = AlertHistory), (status = 404, body = Problem)))]
pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Json<AlertHistory>, Problem> {
    let wanted = id.clone();
    let alert = shared
        .asker
        .ask(move |pipeline| pipeline.perception.alerts.with_history(&wanted))
        .await?;
    alert.map(Json).ok_or_else(|| Problem::not_found("alert", &id))
}

/// Somebody looks after it.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/acknowledge",
    params(("id" = String, Path), ("Usher-Staff" = Option<String>, Header, description = "Who does it; counts before `by`")),
    request_body = Option<By>,
    responses((status = 200, body = Alert), (status = 404, body = Problem)))]
pub(super) async fn acknowledge(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    reader: Reader,
    body: Option<Body<By>>,
) -> Result<Json<Alert>, Problem> {
    act(
        &shared,
        id,
        &reader,
        body.and_then(|Body(body)| body.by),
        Deed::Acknowledge,
    )
    .await
}

/// Not to be told of for a while.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/snooze",
    params(("id" = String, Path), ("Usher-Staff" = Option<String>, Header, description = "Who does it; counts before `by`")),
    request_body = Option<Snooze>,
    responses((status = 200, body = Alert), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn snooze(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    reader: Reader,
    body: Option<Body<Snooze>>,
) -> Result<Json<Alert>, Problem> {
    let Snooze { minutes, until, by } = body.map(|Body(body)| body).unwrap_or_default();
    let now = wall_clock_us();
    let wrong = |what: String| Problem::new(StatusCode::BAD_REQUEST, what);
    let until = match (minutes, until) {
        (Some(_), Some(_)) => {
            return Err(wrong("'minutes' and 'until' stand together".to_owned()).right("one of the two would be right"));
        }
        (None, Some(until)) => {
            let right = "a time with its zone within the next week, such as 2026-03-02T18:00:00+08:00, would be right";
            let at = chrono::DateTime::parse_from_rfc3339(&until)
                .map_err(|_| wrong(format!("'{until}' is no time")).right(right))?
                .timestamp_micros();
            if !(1..=SNOOZE_MAX * MINUTE_US).contains(&(at - now)) {
                return Err(wrong(format!("'{until}' can't be waited for")).right(right));
            }
            at
        }
        (minutes, None) => {
            let minutes = minutes.unwrap_or(SNOOZE);
            if !(1..=SNOOZE_MAX).contains(&minutes) {
                return Err(wrong(format!("{minutes} minutes can't be snoozed")).right("1 to 10080 would be right"));
            }
            now + minutes * MINUTE_US
        }
    };
    act(&shared, id, &reader, by, Deed::SnoozeUntil(until)).await
}

/// To be told of again.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/unsnooze",
    params(("id" = String, Path), ("Usher-Staff" = Option<String>, Header, description = "Who does it; counts before `by`")),
    request_body = Option<By>,
    responses((status = 200, body = Alert), (status = 404, body = Problem)))]
pub(super) async fn unsnooze(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    reader: Reader,
    body: Option<Body<By>>,
) -> Result<Json<Alert>, Problem> {
    act(
        &shared,
        id,
        &reader,
        body.and_then(|Body(body)| body.by),
        Deed::Unsnooze,
    )
    .await
}

/// Somebody is to look after it, or nobody any more.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/assign",
    params(("id" = String, Path), ("Usher-Staff" = Option<String>, Header, description = "Who does it; counts before `by`")),
    request_body = Assignment,
    responses((status = 200, body = Alert), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn assign(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    reader: Reader,
    Body(assignment): Body<Assignment>,
) -> Result<Json<Alert>, Problem> {
    let to = assignment.to.map(|to| to.trim().to_owned());
    if let Some(to) = to.as_ref().filter(|to| to.is_empty() || to.len() > BY_MAX) {
        return Err(
            Problem::new(StatusCode::BAD_REQUEST, format!("'to' has {} bytes", to.len()))
                .right("a name of 1 to 100 bytes would be right, or null for nobody"),
        );
    }
    act(&shared, id, &reader, assignment.by, Deed::Assign(to)).await
}

/// It is over.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/clear",
    params(("id" = String, Path), ("Usher-Staff" = Option<String>, Header, description = "Who does it; counts before `by`")),
    request_body = Option<By>,
    responses((status = 200, body = Alert), (status = 404, body = Problem)))]
pub(super) async fn clear(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    reader: Reader,
    body: Option<Body<By>>,
) -> Result<Json<Alert>, Problem> {
    act(&shared, id, &reader, body.and_then(|Body(body)| body.by), Deed::Clear).await
}

/// Words to keep beside it.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/comment",
    params(("id" = String, Path), ("Usher-Staff" = Option<String>, Header, description = "Who does it; counts before `by`")),
    request_body = Words,
    responses((status = 200, body = Alert), (status = 404, body = Problem)))]
pub(super) async fn comment(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    reader: Reader,
    Body(words): Body<Words>,
) -> Result<Json<Alert>, Problem> {
    let text = words.text.trim();
    if text.is_empty() || text.len() > COMMENT_MAX {
        return Err(
            Problem::new(StatusCode::BAD_REQUEST, format!("the comment has {} bytes", text.len()))
                .right("1 to 2000 would be right"),
        );
    }
    act(&shared, id, &reader, words.by, Deed::Comment(text.to_owned())).await
}

async fn act(
    shared: &Shared,
    id: String,
    reader: &Reader,
    by: Option<String>,
    deed: Deed,
) -> Result<Json<Alert>, Problem> {
    let action = Action {
        alert: id.clone(),
        by: reader.doer(by.as_deref()),
        at_us: wall_clock_us(),
        deed,
    };
    let alert = shared.asker.ask(move |pipeline| pipeline.act(action)).await?;
    let Some((alert, durable)) = alert else {
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("no alert '{id}' stands"))
            .right("/api/v1/alerts?state=open lists those that do"));
    };
    // Who is told that it is done need not do it again after a crash.
    match tokio::time::timeout(DURABLE_WITHIN, durable).await {
        Ok(Ok(())) => Ok(Json((*alert).clone())),
        _ => Err(
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "it is done, and not on disk yet")
                .right("once the disk takes it, it lasts; before that a crash would undo it"),
        ),
    }
}
