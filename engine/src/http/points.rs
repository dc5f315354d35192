//! A person's points over HTTP: the balance, giving, spending, and taking back.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use super::alerts::{BY_MAX, DURABLE_WITHIN};
use super::lookups::{Asking, Reader, record};
use super::request::{Body, Path, Written};
use crate::http::{Problem, Shared};
use crate::pipeline::wall_clock_us;
use crate::points::{Deed, EntryView, PointsDeed, PointsView, Refused};

/// Bytes of a reason at most.
const REASON_MAX: usize = 200;
/// Points given or spent at once, at most.
const POINTS_MAX: i64 = 1_000_000;

/// Points to give or to spend.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// How many are given, 1 to 1000000; either this or `spend`.
    grant: Option<i64>,
    /// How many are spent, 1 to 1000000.
    spend: Option<i64>,
    /// For what, or on what.
    reason: String,
    /// The id under which this is done once, however often it is asked for: a receipt's number, say.
    id: String,
    /// Until when points that are given can be spent, RFC 3339; for ever when left out.
    expires_at: Option<String>,
    /// Who does it.
    by: Option<String>,
}

/// Under which id an entry is taken back.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reversal {
    /// The id under which this is done once; `reversed:` and the entry's when left out.
    id: Option<String>,
    /// Who does it.
    by: Option<String>,
}

impl Written for Change {
    const RIGHT: &str = r#"{"grant": 5, "reason": "helped a reader", "id": "receipt-1", "by": "desk"}"#;
}

impl Written for Reversal {
    const RIGHT: &str = r#"{"id": "receipt-2", "by": "desk"}"#;
}

/// A person's points: balance, lots in the order in which they will be spent, and the last entries. It is recorded
/// who sees it.
#[utoipa::path(get, path = "/api/v1/people/{pseudonym}/points",
    params(("pseudonym" = String, Path), Asking, ("Usher-Staff" = Option<String>, Header, description = "Who asks"),
        ("Usher-Reason" = Option<String>, Header, description = "What for")),
    responses((status = 200, body = PointsView), (status = 404, body = Problem)))]
pub(super) async fn points(
    State(shared): State<Arc<Shared>>,
    Path(pseudonym): Path<String>,
    reader: Reader,
) -> Result<Json<PointsView>, Problem> {
    let wanted = pseudonym.clone();
    let view = shared
        .asker
        .ask(move |pipeline| {
            let perception = &pipeline.perception;
            let is_known = perception.people.knows(&wanted);
            let points = perception.points.get(&wanted);
            points.or_else(|| is_known.then(|| PointsView::nothing(&wanted)))
        })
        .await?;
    let view = view.ok_or_else(|| Problem::not_found("person", &pseudonym))?;
    record(&shared, reader, "points", [Arc::from(pseudonym)]).await?;
    Ok(Json(view))
}

/// Gives or spends points.
#[utoipa::path(post, path = "/api/v1/people/{pseudonym}/points",
    params(("pseudonym" = String, Path), ("Usher-Staff" = Option<String>, Header, description = "Who does it; counts before `by`")),
    request_body = Change, responses((status = 200, body = EntryView), (status = 400, body = Problem),
    (status = 409, body = Problem)))]
pub(super) async fn change(
    State(shared): State<Arc<Shared>>,
    Path(pseudonym): Path<String>,
    reader: Reader,
    Body(change): Body<Change>,
) -> Result<Json<EntryView>, Problem> {
    let wrong = |what: String, right: &str| Err(Problem::new(StatusCode::BAD_REQUEST, what).right(right));
    let reason = change.reason.trim().to_owned();
    if reason.is_empty() || reason.len() > REASON_MAX {
        return wrong(
            format!("the reason has {} bytes", reason.len()),
            "1 to 200 would be right",
        );
    }
    let expires_us = match &change.expires_at {
        None => None,
        Some(at) => match chrono::DateTime::parse_from_rfc3339(at) {
            Ok(at) => Some(at.timestamp_micros()),
            Err(_) => {
                return wrong(
                    format!("'{at}' is no time"),
                    "a time with its zone such as 2027-01-31T00:00:00+08:00 would be right",
                );
            }
        },
    };
    let deed = match (change.grant, change.spend) {
        (Some(points), None) => Deed::Grant {
            points: number_of("grant", points)?,
            reason,
            expires_us,
        },
        (None, Some(_)) if expires_us.is_some() => {
            return wrong(
                "'expires_at' stands with 'spend'".to_owned(),
                "it belongs to 'grant' only",
            );
        }
        (None, Some(points)) => Deed::Spend {
            points: number_of("spend", points)?,
            reason,
        },
        (None, None) => {
            return wrong(
                "there is neither 'grant' nor 'spend'".to_owned(),
                "one of the two would be right",
            );
        }
        (Some(_), Some(_)) => {
            return wrong(
                "'grant' and 'spend' stand together".to_owned(),
                "one of the two would be right",
            );
        }
    };
    act(&shared, pseudonym, change.id, &reader, change.by, deed).await
}

/// Points that can be given or spent at once.
fn number_of(field: &str, points: i64) -> Result<u32, Problem> {
    let right = match field {
        "grant" => "1 to 1000000 would be right; what was given is taken back by 'spend', or by reversing its entry",
        _ => "1 to 1000000 would be right",
    };
    let possible = u32::try_from(points)
        .ok()
        .filter(|_| (1..=POINTS_MAX).contains(&points));
    possible.ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, format!("'{field}' is {points}")).right(right))
}

/// Takes back a grant or a spending, exactly.
#[utoipa::path(post, path = "/api/v1/people/{pseudonym}/points/{entry}/reverse",
    params(("pseudonym" = String, Path), ("entry" = String, Path),
        ("Usher-Staff" = Option<String>, Header, description = "Who does it; counts before `by`")), request_body = Option<Reversal>,
    responses((status = 200, body = EntryView), (status = 409, body = Problem)))]
pub(super) async fn reverse(
    State(shared): State<Arc<Shared>>,
    Path((pseudonym, entry)): Path<(String, String)>,
    reader: Reader,
    body: Option<Body<Reversal>>,
) -> Result<Json<EntryView>, Problem> {
    let Reversal { id, by } = body.map(|Body(body)| body).unwrap_or_default();
    let id = id.unwrap_or_else(|| format!("reversed:{entry}"));
    act(&shared, pseudonym, id, &reader, by, Deed::Reverse { entry }).await
}

async fn act(
    shared: &Shared,
    person: String,
    id: String,
    reader: &Reader,
    by: Option<String>,
    deed: Deed,
) -> Result<Json<EntryView>, Problem> {
    let id = id.trim().to_owned();
    let by = by.filter(|by| !by.trim().is_empty());
    for (what, text) in [("id", Some(&id)), ("by", by.as_ref())] {
        if let Some(text) = text.filter(|text| text.is_empty() || text.len() > BY_MAX) {
            return Err(
                Problem::new(StatusCode::BAD_REQUEST, format!("'{what}' has {} bytes", text.len()))
                    .right("1 to 100 would be right"),
            );
        }
    }
    let deed = PointsDeed {
        person,
        id,
        by: reader.doer(by.as_deref()),
        at_us: wall_clock_us(),
        deed,
    };
    let done = shared
        .asker
        .ask(move |pipeline| {
            // Points are for people who came: a slip in a pseudonym would give them to nobody.
            if !pipeline.perception.people.knows(&deed.person) && pipeline.perception.points.get(&deed.person).is_none()
            {
                return Err(None);
            }
            let person = deed.person.clone();
            let (entry, durable) = pipeline.act_on_points(deed).map_err(Some)?;
            let balance = pipeline.perception.points.balance(&person);
            Ok((EntryView::of(&entry, balance), durable))
        })
        .await?;
    let (entry, durable) = done.map_err(|refused: Option<Refused>| match refused {
        None => Problem::new(StatusCode::NOT_FOUND, "there is no such person")
            .right("a pseudonym that events have named would be right"),
        Some(refused) => Problem::new(StatusCode::CONFLICT, refused.to_string()),
    })?;
    match tokio::time::timeout(DURABLE_WITHIN, durable).await {
        Ok(Ok(())) => Ok(Json(entry)),
        _ => Err(
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "it is done, and not on disk yet")
                .right("asked again under the same id it is not done twice"),
        ),
    }
}
