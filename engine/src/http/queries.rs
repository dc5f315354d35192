//! Queries over HTTP: what runs, what a new one would say, adding and removing while running, and bounded questions.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use usher_queries::bounded;
use usher_queries::cost::Counters;
use usher_queries::error::QueryError;
use usher_queries::query::{Output, Query as RunningQuery};
use usher_queries::query_set::{QuerySet, Restored};
use usher_queries::rows::{batch_to_json, time_to_text};
use usher_queries::statement::{Statement, StatementKind, parse_statements};
use usher_queries::watermark::WatermarkOptions;

use crate::event::{Event, Kind};
use crate::http::paging::{Page, Paging};
use crate::http::{Problem, Shared};
use crate::perception::observe_all;
use crate::tables::{RECENT_EVENTS, mentions_streams, recent_events, standing, streams_of};

/// Rows answered at most.
const ROWS_MAX: usize = 10_000;
/// Rows of a trial answered when nobody says.
const TRIAL_ROWS: usize = 100;
/// Hours of event time that a trial goes back when nobody says.
const TRIAL_HOURS: f64 = 24.0;
/// Different rows of a trial that are compared at most.
const COMPARED_ROWS_MAX: usize = 1_000_000;

/// A running query.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct QueryView {
    /// Its name.
    pub name: String,
    /// `query` or `alert`.
    pub kind: &'static str,
    /// What it is for, as its author wrote above it.
    pub comment: String,
    /// What it reads.
    pub reads: Vec<String>,
    /// The columns it says, `name type`.
    pub columns: Vec<String>,
    /// Keys it keeps.
    pub keys: usize,
    /// Windows that are open.
    pub windows: usize,
    /// Bytes it keeps, estimated from above.
    pub bytes: usize,
    /// Bytes it may keep; beyond them it is stopped.
    pub memory: usize,
    /// Queries and alerts that read it.
    pub read_by: Vec<String>,
    /// The watermark it has reached, RFC 3339.
    pub watermark: Option<String>,
    /// How far its watermark is behind the newest event, seconds of event time.
    pub lag_s: Option<f64>,
    /// What it has done.
    #[schema(value_type = Object)]
    pub counters: Counters,
    /// Microseconds an evaluation took on average.
    pub cost_us: Option<f64>,
    /// Why it may never speak, or keep more and more.
    #[schema(value_type = Vec<Object>)]
    pub warnings: Vec<QueryError>,
    /// Why it has stopped, if it has.
    pub broken: Option<String>,
}

/// A running query with its plan.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct Explained {
    /// The query.
    #[serde(flatten)]
    pub query: QueryView,
    /// The statement as written.
    pub sql: String,
    /// DataFusion's plan.
    pub plan: String,
    /// The operators that run, the last one first.
    pub operators: Vec<String>,
    /// When it speaks: `close`, `update`, or every so often.
    pub emit: String,
    /// How late a row may be and still count, seconds.
    pub lateness_s: f64,
}

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

/// SQL to look at.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
pub(super) struct Sql {
    /// The SQL.
    sql: String,
    /// Rows at most.
    #[serde(default)]
    limit: Option<usize>,
    /// For a trial: how many hours of event time back from the newest event.
    #[serde(default)]
    hours: Option<f64>,
}

/// What a statement would be.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct Checked {
    /// The statements, planned.
    pub statements: Vec<Planned>,
}

/// One planned statement.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct Planned {
    /// Its name.
    pub name: String,
    /// `query` or `alert`.
    pub kind: &'static str,
    /// The columns it would say, `name type`.
    pub columns: Vec<String>,
    /// The operators it would run.
    pub operators: Vec<String>,
    /// Why it may never speak, or keep more and more.
    #[schema(value_type = Vec<Object>)]
    pub warnings: Vec<QueryError>,
}

/// Rows of an answer.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct Rows {
    /// The columns in order.
    pub columns: Vec<String>,
    /// Each row by column.
    #[schema(value_type = Vec<Object>)]
    pub rows: Vec<Map<String, Value>>,
    /// Rows there were, shown or not.
    pub total: usize,
    /// Events gone through for it.
    pub events: usize,
}

fn view(queries: &QuerySet, clock_us: Option<i64>, query: &RunningQuery) -> QueryView {
    let footprint = query.footprint();
    let counters = query.counters();
    let watermark = queries.watermark_of(query.name());
    QueryView {
        name: query.name().to_string(),
        kind: kind_of(query.statement()),
        comment: query.statement().comment.clone(),
        reads: query
            .sources()
            .chain(query.references().iter().map(String::as_str))
            .map(str::to_owned)
            .collect(),
        columns: columns_of(query),
        keys: footprint.keys,
        windows: footprint.windows,
        bytes: footprint.bytes,
        memory: query.memory(),
        read_by: queries
            .readers(query.name())
            .map(|reader| reader.name().to_string())
            .collect(),
        watermark: watermark.map(time_to_text),
        lag_s: clock_us
            .zip(watermark)
            .map(|(clock, watermark)| clock.saturating_sub(watermark) as f64 / 1e6),
        cost_us: (counters.evaluations > 0)
            .then(|| (counters.busy_ns as f64 / counters.evaluations as f64 / 10.0).round() / 100.0),
        counters,
        warnings: query.warnings().to_vec(),
        broken: query.broken().map(str::to_owned),
    }
}

fn kind_of(statement: &Statement) -> &'static str {
    match statement.kind {
        StatementKind::Query => "query",
        StatementKind::Alert(_) => "alert",
    }
}

fn columns_of(query: &RunningQuery) -> Vec<String> {
    let fields = query.schema().fields();
    fields
        .iter()
        .map(|field| format!("{} {}", field.name(), field.data_type()))
        .collect()
}

/// The running queries.
#[utoipa::path(get, path = "/api/v1/queries", params(Paging), responses((status = 200, body = Page<QueryView>)))]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<QueryView>>, Problem> {
    let queries = shared
        .asker
        .ask(|pipeline| {
            let (queries, clock_us) = (&pipeline.perception.queries, pipeline.perception.clock_us());
            let views = queries.queries().iter().map(|query| view(queries, clock_us, query));
            views.collect::<Vec<_>>()
        })
        .await?;
    Ok(Json(paging.cut(queries, |query| query.name.clone())))
}

/// One running query with its plan, window, watermark, state and cost.
#[utoipa::path(get, path = "/api/v1/queries/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Explained), (status = 404, body = Problem)))]
pub(super) async fn explain(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Json<Explained>, Problem> {
    let wanted = name.clone();
    let explained = shared
        .asker
        .ask(move |pipeline| {
            let (queries, clock_us) = (&pipeline.perception.queries, pipeline.perception.clock_us());
            queries.get(&wanted).map(|query| Explained {
                query: view(queries, clock_us, query),
                sql: query.statement().sql.clone(),
                plan: query.plan_text().to_owned(),
                operators: query.operators(),
                emit: query.emit().to_string(),
                lateness_s: query.lateness_us() as f64 / 1e6,
            })
        })
        .await?;
    explained.map(Json).ok_or_else(|| Problem::not_found("query", &name))
}

/// Plans SQL without running it.
#[utoipa::path(post, path = "/api/v1/queries/check", request_body = Sql,
    responses((status = 200, body = Checked), (status = 422, body = Problem)))]
pub(super) async fn check(State(shared): State<Arc<Shared>>, Json(body): Json<Sql>) -> Result<Json<Checked>, Problem> {
    let statements = parse_statements(&body.sql)?;
    if statements.is_empty() {
        return Err(nothing());
    }
    let planned = shared
        .asker
        .ask(move |pipeline| {
            statements
                .into_iter()
                .map(|statement| {
                    let query = pipeline.perception.queries.check_replacing(statement)?;
                    Ok(Planned {
                        name: query.name().to_string(),
                        kind: kind_of(query.statement()),
                        columns: columns_of(&query),
                        operators: query.operators(),
                        warnings: query.warnings().to_vec(),
                    })
                })
                .collect::<Result<Vec<_>, QueryError>>()
        })
        .await??;
    Ok(Json(Checked { statements: planned }))
}

fn nothing() -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "there is no statement")
        .right("CREATE QUERY name AS SELECT … or CREATE ALERT name WITH (…) AS SELECT … would be right")
}

/// Runs a draft over the recent log and answers with what it would have said, beside what the running query of its name
/// says of the same events.
#[utoipa::path(post, path = "/api/v1/queries/trial", request_body = Sql,
    responses((status = 200, body = Trial), (status = 422, body = Problem)))]
pub(super) async fn trial(State(shared): State<Arc<Shared>>, Json(body): Json<Sql>) -> Result<Json<Trial>, Problem> {
    let mut statements = parse_statements(&body.sql)?;
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
    let (options, reached, live) = shared
        .asker
        .ask(move |pipeline| {
            let perception = &pipeline.perception;
            let live = perception.queries.get(&name).map(|query| query.statement().clone());
            (perception.watermark_options(), perception.watermark(), live)
        })
        .await?;
    blocking(move || {
        let mut events = recent(&shared)?;
        let newest = events.iter().map(|event| event.time_us).max();
        if let Some(newest) = newest {
            #[allow(clippy::cast_possible_truncation)] // saturates, which is meant
            let from = newest.saturating_sub((hours * 3.6e9) as i64);
            events.retain(|event| event.time_us >= from);
        }
        let oldest = events.iter().map(|event| event.time_us).min();
        let time = (options, reached);
        let draft = said_over(&shared, statement, &events, time, limit)?;
        let live = match live {
            Some(statement) => Some(said_over(&shared, statement, &events, time, limit)?),
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
    .await
}

/// What a statement said: the first rows, and of all of them how often each was said, by its hash.
struct Said {
    rows: Rows,
    counts: HashMap<u64, usize>,
}

/// What a statement says of events, put into a fresh set of the configured queries, up to the watermark that the engine
/// has reached by now; at most `limit` rows are kept.
fn said_over(
    shared: &Shared,
    statement: Statement,
    events: &[Event],
    (options, reached): (WatermarkOptions, i64),
    limit: usize,
) -> Result<Said, Problem> {
    let name = statement.name.clone();
    let mut queries = (shared.fresh_queries)();
    queries.put(statement)?;
    let (mut rows, mut total, mut counts) = (Vec::new(), 0, HashMap::new());
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
        queries.advance(observing.watermark(), &mut outputs);
        take(&mut outputs);
    }
    queries.advance(reached, &mut outputs);
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

fn recent(shared: &Shared) -> Result<Vec<Event>, Problem> {
    recent_events(shared.log.as_ref(), RECENT_EVENTS)
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<Json<T>, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map(Json),
        Err(error) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the work was not finished: {error}"),
        )),
    }
}

/// A query that was added or changed.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct Put {
    /// The query.
    #[serde(flatten)]
    pub query: QueryView,
    /// What became of what it kept before, and of what those keep that read it: `kept` or `reset`, by name.
    #[schema(value_type = Object)]
    pub state: BTreeMap<String, &'static str>,
}

/// Adds a query, or changes the one of that name, while everything runs; queries that read it go on. It is kept over
/// restarts.
#[utoipa::path(put, path = "/api/v1/queries/{name}", params(("name" = String, Path)), request_body = Sql,
    responses((status = 200, body = Put), (status = 422, body = Problem)))]
pub(super) async fn put(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Json(body): Json<Sql>,
) -> Result<Json<Put>, Problem> {
    let mut statements = parse_statements(&body.sql)?;
    let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
        return Err(nothing());
    };
    if statement.name != name {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!(
                "the statement creates '{}' and the address says '{name}'",
                statement.name
            ),
        )
        .right("the same name twice would be right"));
    }
    let put = shared
        .asker
        .ask(move |pipeline| {
            let name = statement.name.clone();
            let outcomes = pipeline.perception.queries.put(statement)?;
            pipeline.learn_rules();
            let (queries, clock_us) = (&pipeline.perception.queries, pipeline.perception.clock_us());
            let view = queries.get(&name).map(|query| view(queries, clock_us, query));
            let word = |outcome: &Restored| if *outcome == Restored::Kept { "kept" } else { "reset" };
            let state = outcomes.iter().map(|(name, outcome)| (name.clone(), word(outcome)));
            Ok::<_, Problem>(Put {
                query: view.ok_or_else(|| Problem::not_found("query", &name))?,
                state: state.collect(),
            })
        })
        .await??;
    keep(&shared, &name, Some(&body.sql)).await?;
    Ok(Json(put))
}

/// Removes a query while everything runs.
#[utoipa::path(delete, path = "/api/v1/queries/{name}", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn delete(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    let wanted = name.clone();
    shared
        .asker
        .ask(move |pipeline| {
            let queries = &mut pipeline.perception.queries;
            if queries.get(&wanted).is_none() {
                return Err(Problem::not_found("query", &wanted));
            }
            queries
                .remove(&wanted)
                .map_err(|reason| Problem::new(StatusCode::CONFLICT, reason))?;
            pipeline.learn_rules();
            Ok(())
        })
        .await??;
    keep(&shared, &name, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Keeps a query over restarts. A removed one leaves a file without a statement, so that a shipped query of its name
/// stays away as well.
async fn keep(shared: &Shared, name: &str, sql: Option<&str>) -> Result<(), Problem> {
    let text = sql.map_or_else(crate::added_queries::removed, str::to_owned);
    let path = shared.queries_dir.join(format!("{name}.sql"));
    let written = tokio::task::spawn_blocking(move || crate::added_queries::write(&path, &text)).await;
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("it holds now, but could not be kept for the next start: {error}"),
        )),
        Err(error) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// Runs a bounded question over what stands now: `zones`, `seats`, `devices`, `people`, each query by its name; and
/// over the newest events of the log as `gate`, `seat`, `rfid`, `click` and `reply`.
#[utoipa::path(post, path = "/api/v1/query", request_body = Sql,
    responses((status = 200, body = Rows), (status = 422, body = Problem)))]
pub(super) async fn ask(State(shared): State<Arc<Shared>>, Json(body): Json<Sql>) -> Result<Json<Rows>, Problem> {
    let sql = body.sql.clone();
    let (mut tables, opening) = shared
        .asker
        .ask(move |pipeline| {
            let opening = Arc::clone(pipeline.perception.queries.catalog().opening_hours());
            (standing(&mut pipeline.perception, &sql), opening)
        })
        .await?;
    let mut gone_through = 0;
    if mentions_streams(&body.sql) {
        let (events, streams) = tokio::task::spawn_blocking({
            let shared = Arc::clone(&shared);
            move || {
                let events = recent(&shared)?;
                Ok::<_, Problem>((events.len(), streams_of(&events)))
            }
        })
        .await
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))??;
        gone_through = events;
        tables.extend(streams);
    } else {
        tables.extend(streams_of(&[]));
    }
    let (schema, batches) = bounded::run_with(&body.sql, &tables, &opening).await?;
    let total = batches.iter().map(|batch| batch.num_rows()).sum();
    let limit = body.limit.unwrap_or(ROWS_MAX).min(ROWS_MAX);
    Ok(Json(Rows {
        columns: schema.fields().iter().map(|field| field.name().clone()).collect(),
        rows: batches.iter().flat_map(batch_to_json).take(limit).collect(),
        total,
        events: gone_through,
    }))
}
