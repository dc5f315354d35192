//! A trial over HTTP: what a draft would have said of the recent log, beside what the running query of its name says.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rustc_hash::FxHashSet;
use serde::Serialize;
use usher_queries::purpose::Consent;
use usher_queries::query::Output;
use usher_queries::query_set::QuerySet;
use usher_queries::row::{Row, Rows as StreamRows};
use usher_queries::rows::{batch_to_json, time_to_text};
use usher_queries::statement::Statement;
use usher_queries::streams::MESSAGE;
use usher_queries::watermark::WatermarkOptions;

use super::lookups::{Asking, Reader, persons_in, record};
use super::queries::{ROWS_MAX, Rows, Sql, blocking, recent};
use super::request::Body;
use crate::consent::Decided;
use crate::event::{Event, Kind};
use crate::groups::MEMBERSHIPS;
use crate::http::{Problem, Shared};
use crate::people::People;
use crate::perception::observe_all;
use crate::site::Places;
use crate::tables::messages_of;

/// Rows of a trial answered when nobody says.
const TRIAL_ROWS: usize = 100;
/// Hours of event time that a trial goes back when nobody says.
const TRIAL_HOURS: f64 = 24.0;
/// Different rows of a trial that are compared at most.
const COMPARED_ROWS_MAX: usize = 1_000_000;

/// What a draft says of the recent log, beside what the running query of its name says of it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct Trial {
    /// The draft's rows; for an alert each tells whether it would `raise`.
    #[serde(flatten)]
    pub draft: Rows,
    /// The running query's rows over the same events; nothing when none of that name runs.
    pub live: Option<Rows>,
    /// How the two differ.
    pub difference: Option<Difference>,
    /// From which event time on, RFC 3339.
    pub from: Option<String>,
    /// Up to which.
    pub to: Option<String>,
}

/// How many rows two queries have in common, each counted as often as it was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(super) struct Difference {
    /// Said by both.
    pub same: usize,
    /// Said by the draft alone.
    pub only_draft: usize,
    /// Said by the running query alone.
    pub only_live: usize,
}

/// Runs a draft over the recent log and answers with what it would have said, beside what the running query of its name
/// says of the same events. It is recorded who sees what rows say of persons.
#[utoipa::path(post, path = "/api/v1/queries/trial", request_body = Sql,
    params(Asking, ("Usher-Staff" = Option<String>, Header, description = "Who asks"),
        ("Usher-Reason" = Option<String>, Header, description = "What for")),
    responses((status = 200, body = Trial), (status = 422, body = Problem)))]
pub(super) async fn trial(
    State(shared): State<Arc<Shared>>,
    reader: Reader,
    Body(body): Body<Sql>,
) -> Result<Json<Trial>, Problem> {
    let mut statements = shared.statements_of(&body.sql)?;
    let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
        return Err(
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "a trial is of one statement")
                .right("one CREATE QUERY or CREATE ALERT would be right"),
        );
    };
    let limit = body.limit.unwrap_or(TRIAL_ROWS).min(ROWS_MAX);
    let hours = body.hours.unwrap_or(TRIAL_HOURS);
    if hours.is_nan() || hours <= 0.0 {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("{hours} hours are no time to look back"),
        )
        .right("a number of hours such as 24 would be right"));
    }
    let name = statement.name.clone();
    let (options, reached, live, engagement, decided, places, (aliases, memberships)) = shared
        .asker
        .ask(move |pipeline| {
            let perception = &pipeline.perception;
            let live = perception.queries.get(&name).map(|query| query.statement().clone());
            (
                perception.watermark_options(),
                perception.watermark(),
                live,
                perception.people.settings().clone(),
                Arc::clone(perception.consents.decided()),
                Arc::clone(perception.places()),
                (
                    perception.identity.aliases().clone(),
                    perception.groups.memberships(perception.identity.aliases()),
                ),
            )
        })
        .await?;
    let of_trial = Arc::clone(&shared);
    let trial: Result<Json<Trial>, Problem> = blocking(move || {
        let shared = of_trial;
        let mut events = recent(&shared, &aliases)?;
        let opted_out = decided.leave_out(&mut events);
        let newest = events.iter().map(|event| event.time_us).max();
        if let Some(newest) = newest {
            #[allow(clippy::cast_possible_truncation)] // saturates, which is meant
            let from = newest.saturating_sub((hours * 3.6e9) as i64);
            events.retain(|event| event.time_us >= from);
        }
        let oldest = events.iter().map(|event| event.time_us).min();
        let time = (options, reached);
        let people = || {
            (
                People::leaving_out(engagement.clone(), opted_out.clone()),
                &opted_out,
                &*places,
            )
        };
        let known = (&decided, &memberships);
        let draft = said_over(&shared, statement, &events, time, people(), known, limit)?;
        let live = match live {
            Some(statement) => Some(said_over(&shared, statement, &events, time, people(), known, limit)?),
            None => None,
        };
        Ok(Trial {
            difference: live.as_ref().and_then(|live| difference(&draft, live)),
            draft: draft.rows,
            live: live.map(|live| live.rows),
            from: oldest.map(time_to_text),
            to: newest.map(time_to_text),
        })
    })
    .await;
    let trial = trial?;
    let mut persons = persons_in(&trial.draft.rows);
    persons.extend(trial.live.iter().flat_map(|live| persons_in(&live.rows)));
    record(&shared, reader, "trial", persons).await?;
    Ok(trial)
}

/// What a statement said: the first rows, and of all of them how often each was said, by its hash.
struct Said {
    rows: Rows,
    counts: HashMap<u64, usize>,
}

/// What a statement says of events, put into a fresh set of the configured queries, up to the watermark that the engine
/// has reached by now, without persons who refuse what it is for; at most `limit` rows are kept.
fn said_over(
    shared: &Shared,
    statement: Statement,
    events: &[Event],
    (options, reached): (WatermarkOptions, i64),
    (mut people, opted_out, places): (People, &FxHashSet<Arc<str>>, &Places),
    (decided, memberships): (&Arc<Decided>, &RecordBatch),
    limit: usize,
) -> Result<Said, Problem> {
    let name = statement.name.clone();
    let mut queries = {
        let _turn = tokio::runtime::Handle::current().block_on(shared.planning_turn())?;
        let mut queries = (shared.fresh_queries)();
        queries.set_reference(MEMBERSHIPS, memberships.clone());
        queries.put(statement)?;
        queries.set_consent(Some(Arc::clone(decided) as Arc<dyn Consent>));
        queries
    };
    let (mut rows, mut total, mut counts) = (Vec::new(), 0, HashMap::new());
    // What these events alone would have had people written, where it is read.
    let mut written = match queries.follows(&name) {
        true => {
            let turn = tokio::runtime::Handle::current().block_on(shared.planning_turn())?;
            let mut perception = (shared.fresh_perception)();
            drop(turn);
            perception.know_decisions(decided);
            perception.know_memberships(memberships.clone());
            messages_of(events, perception, opted_out, Some(reached))
        }
        false => Vec::new(),
    };
    let mut observing = crate::perception::Observing::new(options);
    let mut outputs = Vec::new();
    let mut take = |outputs: &mut Vec<Output>| {
        for output in outputs.drain(..).filter(|output| *output.query == *name) {
            for (row, mut values) in batch_to_json(&output.rows.flow().batch).into_iter().enumerate() {
                if let Some(judgement) = &output.judgement {
                    values.insert("raise".to_owned(), judgement.raise[row].into());
                }
                total += 1;
                let mut hasher = rustc_hash::FxHasher::default();
                serde_json::to_string(&values).unwrap_or_default().hash(&mut hasher);
                if counts.len() < COMPARED_ROWS_MAX {
                    *counts.entry(hasher.finish()).or_default() += 1;
                }
                if rows.len() < limit {
                    rows.push(values);
                }
            }
        }
    };
    // Few at a time: a row may be said once for each of many windows.
    for batch in events.chunks(256) {
        let observed = observe_all(&mut observing, batch);
        for kind in Kind::ALL {
            if queries.reads(kind.as_str())
                && let Some(rows) = crate::columns::rows_of(kind, &observed)
            {
                queries.push(kind.as_str(), &rows, &mut outputs);
            }
        }
        for observed in &observed {
            people.take(observed.event, observed.watermark, places);
        }
        move_on(
            &mut people,
            &mut written,
            &mut queries,
            observing.watermark(),
            &mut outputs,
        );
        take(&mut outputs);
    }
    move_on(&mut people, &mut written, &mut queries, reached, &mut outputs);
    take(&mut outputs);
    let query = queries.get(&name).ok_or_else(|| Problem::not_found("query", &name))?;
    if let Some(reason) = query.broken() {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("it stopped: {reason}"),
        ));
    }
    let fields = query.schema().fields();
    Ok(Said {
        rows: Rows {
            columns: fields.iter().map(|field| field.name().clone()).collect(),
            total,
            rows,
            events: events.len(),
        },
        counts,
    })
}

/// Moves people and then queries on to a watermark; as if nobody had been known before the first of the events. Of what people
/// were written, in the order in which it was known, that is told which is known by then.
fn move_on(
    people: &mut People,
    written: &mut Vec<Row>,
    queries: &mut QuerySet,
    watermark: i64,
    outputs: &mut Vec<Output>,
) {
    let known = written.partition_point(|row| row.watermark <= watermark);
    if known > 0 {
        let schema = Arc::clone(&written[0].schema);
        let rows =
            StreamRows::of(&schema, written.drain(..known).collect()).expect("a row has the columns of its stream");
        queries.push(MESSAGE, &rows, outputs);
    }
    people.advance(watermark);
    for (stream, rows) in people.drain() {
        if queries.reads(stream) {
            queries.push(stream, &rows, outputs);
        }
    }
    queries.advance(watermark, outputs);
}

/// Rows of two queries compared as they would be read; `None` where there are too many to compare.
fn difference(draft: &Said, live: &Said) -> Option<Difference> {
    if draft.counts.len().max(live.counts.len()) >= COMPARED_ROWS_MAX {
        return None;
    }
    let in_live = |hash: &u64| live.counts.get(hash).copied().unwrap_or(0);
    let same: usize = draft
        .counts
        .iter()
        .map(|(hash, count)| (*count).min(in_live(hash)))
        .sum();
    Some(Difference {
        same,
        only_draft: draft.rows.total - same,
        only_live: live.rows.total - same,
    })
}
