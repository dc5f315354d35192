//! Queries over HTTP: what runs, what a new one would say, adding and removing while running, and bounded questions.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use usher_queries::bounded;
use usher_queries::cost::Counters;
use usher_queries::error::QueryError;
use usher_queries::query::Query as RunningQuery;
use usher_queries::query_set::planning::{Planned as PlannedChange, Planning, Stale};
use usher_queries::query_set::{QuerySet, Restored};
use usher_queries::rows::{batch_to_json, time_to_text};
use usher_queries::statement::{Parameter, Statement, StatementKind};
use usher_queries::streams::MESSAGE;

use super::lookups::{Asking, Reader, persons_in, record};
use super::request::{Body, Path, Query, Written};
use crate::event::Event;
use crate::http::paging::{Page, Paging};
use crate::http::{Problem, Shared};
use crate::identity::Aliases;
use crate::perception::all_resolved;
use crate::pipeline::Pipeline;
use crate::rule::check_inhibition;
use crate::tables::{
    RECENT_EVENTS, mentions, mentions_streams, message_stream, messages_of, recent_events, standing, streams_of,
};

/// Rows answered at most.
pub(super) const ROWS_MAX: usize = 10_000;
/// How often a statement is planned to be put in, where others change the queries meanwhile.
const PLANNED_MAX: usize = 3;

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
    /// What it is for: `service`, `recognition` or `research`. Rows of persons who refuse that do not reach it.
    pub purpose: &'static str,
    /// What can be changed of it in the settings.
    pub parameters: Vec<ParameterView>,
}

/// A parameter of a query.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct ParameterView {
    /// Its name, as in `[parameters]` of `usher.toml`.
    pub name: String,
    /// `integer`, `number`, `text`, `interval` or `boolean`.
    pub kind: &'static str,
    /// What it is.
    pub value: Option<String>,
    /// What it is where nobody says otherwise.
    pub default: Option<String>,
}

impl ParameterView {
    fn of(parameter: &Parameter) -> Self {
        Self {
            name: parameter.name.clone(),
            kind: parameter.kind.as_str(),
            value: parameter.value.as_ref().map(ToString::to_string),
            default: parameter.default.as_ref().map(ToString::to_string),
        }
    }
}

/// SQL to look at.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
pub(super) struct Sql {
    /// The SQL.
    pub sql: String,
    /// Rows at most.
    #[serde(default)]
    pub limit: Option<usize>,
    /// For a trial: how many hours of event time back from the newest event.
    #[serde(default)]
    pub hours: Option<f64>,
}

impl Written for Sql {
    const RIGHT: &str = r#"{"sql": "SELECT zone, persons FROM zones", "limit": 100}"#;
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
                purpose: query.purpose().as_str(),
                parameters: query.statement().parameters.iter().map(ParameterView::of).collect(),
            })
        })
        .await?;
    explained.map(Json).ok_or_else(|| Problem::not_found("query", &name))
}

/// Plans SQL without running it.
#[utoipa::path(post, path = "/api/v1/queries/check", request_body = Sql,
    responses((status = 200, body = Checked), (status = 422, body = Problem)))]
pub(super) async fn check(State(shared): State<Arc<Shared>>, Body(body): Body<Sql>) -> Result<Json<Checked>, Problem> {
    let statements = shared.statements_of(&body.sql)?;
    if statements.is_empty() {
        return Err(nothing());
    }
    let turn = shared.planning_turn().await?;
    let planning = planning_of(&shared, &statements).await?;
    blocking(move || {
        let _turn = turn;
        let planned = statements.into_iter().map(|statement| {
            let query = planning.check(statement)?;
            Ok(Planned {
                name: query.name().to_string(),
                kind: kind_of(query.statement()),
                columns: columns_of(&query),
                operators: query.operators(),
                warnings: query.warnings().to_vec(),
            })
        });
        Ok(Checked {
            statements: planned.collect::<Result<_, QueryError>>()?,
        })
    })
    .await
}

/// What plans statements beside what runs, once it is sure that the alerts which hold them back are there.
async fn planning_of(shared: &Shared, statements: &[Statement]) -> Result<Planning, Problem> {
    let statements = statements.to_vec();
    let planning = shared.asker.ask(move |pipeline| {
        let queries = &pipeline.perception.queries;
        for statement in &statements {
            check_inhibition(queries, &statements, statement)?;
        }
        Ok::<_, QueryError>(queries.planning())
    });
    Ok(planning.await??)
}

fn nothing() -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "there is no statement")
        .right("CREATE QUERY name AS SELECT … or CREATE ALERT name WITH (…) AS SELECT … would be right")
}

/// The events that the log had last, each of the person whose names are known by now.
pub(super) fn recent(shared: &Shared, aliases: &Aliases) -> Result<Vec<Event>, Problem> {
    recent_events(shared.log.as_ref(), RECENT_EVENTS)
        .map(|events| all_resolved(events, aliases))
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// Runs what takes long where it holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<Json<T>, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map(Json),
        Err(error) => Err(unfinished(error)),
    }
}

fn unfinished(error: tokio::task::JoinError) -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("the work was not finished: {error}"),
    )
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
    Body(body): Body<Sql>,
) -> Result<Json<Put>, Problem> {
    let mut statements = shared.statements_of(&body.sql)?;
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
    // Those who put wait for each other, so that what was planned still fits when it comes to be put in; a removal in
    // between makes it planned again.
    let turn = Arc::new(shared.planning_turn().await?);
    for _ in 0..PLANNED_MAX {
        let planning = planning_of(&shared, std::slice::from_ref(&statement)).await?;
        let (statement, turn) = (statement.clone(), Arc::clone(&turn));
        let planned = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            planning.put(statement)
        });
        let planned = planned.await.map_err(unfinished)??;
        let wanted = name.clone();
        let put = shared
            .asker
            .ask(move |pipeline| put_in(pipeline, &wanted, planned))
            .await?;
        if let Ok(put) = put {
            keep(&shared, &name, Some(&body.sql)).await?;
            return put.map(Json).ok_or_else(|| Problem::not_found("query", &name));
        }
    }
    Err(Problem::new(
        StatusCode::CONFLICT,
        format!("the queries were changed by others {PLANNED_MAX} times while this one was planned"),
    )
    .right("the same once more, when they are done"))
}

/// Makes a planned change, and shows the query of that name.
fn put_in(pipeline: &mut Pipeline, name: &str, planned: PlannedChange) -> Result<Option<Put>, Stale> {
    let outcomes = pipeline.perception.queries.apply(planned)?;
    pipeline.learn_rules();
    let (queries, clock_us) = (&pipeline.perception.queries, pipeline.perception.clock_us());
    let word = |outcome: &Restored| if *outcome == Restored::Kept { "kept" } else { "reset" };
    let state = outcomes.iter().map(|(name, outcome)| (name.clone(), word(outcome)));
    Ok(queries.get(name).map(|query| Put {
        query: view(queries, clock_us, query),
        state: state.collect(),
    }))
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

/// Runs a bounded question over what stands now: `zones`, `seats`, `devices`, `memberships`, `people`, each query by its name; and
/// over the newest events of the log as `gate`, `seat`, `rfid`, `click`, `reply` and `identify`, and `visit`, `engagement` and
/// `message` as these events alone make them. It is recorded who sees what rows say of persons.
#[utoipa::path(post, path = "/api/v1/query", request_body = Sql,
    params(Asking, ("Usher-Staff" = Option<String>, Header, description = "Who asks"),
        ("Usher-Reason" = Option<String>, Header, description = "What for")),
    responses((status = 200, body = Rows), (status = 422, body = Problem)))]
pub(super) async fn ask(
    State(shared): State<Arc<Shared>>,
    reader: Reader,
    Body(body): Body<Sql>,
) -> Result<Json<Rows>, Problem> {
    let sql = body.sql.clone();
    let (mut tables, opening, engagement, decided, places, reached_us, (aliases, memberships)) = shared
        .asker
        .ask(move |pipeline| {
            let opening = Arc::clone(pipeline.perception.queries.catalog().opening_hours());
            let people = &pipeline.perception.people;
            let engagement = people.settings().clone();
            let decided = Arc::clone(pipeline.perception.consents.decided());
            let places = Arc::clone(pipeline.perception.places());
            let tables = standing(&mut pipeline.perception, &sql);
            let reached_us = pipeline.perception.watermark();
            let aliases = pipeline.perception.identity.aliases().clone();
            let memberships = pipeline.perception.groups.memberships(&aliases);
            let names = (aliases, memberships);
            (tables, opening, engagement, decided, places, reached_us, names)
        })
        .await?;
    let mut gone_through = 0;
    if mentions_streams(&body.sql) {
        let (events, streams) = tokio::task::spawn_blocking({
            let (shared, asked) = (Arc::clone(&shared), body.sql.clone());
            move || {
                let mut events = recent(&shared, &aliases)?;
                let opted_out = decided.leave_out(&mut events);
                let mut streams = streams_of(&events, &engagement, opted_out.clone(), &places);
                if mentions(&asked, MESSAGE) {
                    let turn = tokio::runtime::Handle::current().block_on(shared.planning_turn())?;
                    let mut perception = (shared.fresh_perception)();
                    drop(turn);
                    perception.know_decisions(&decided);
                    perception.know_memberships(memberships);
                    let rows = messages_of(&events, perception, &opted_out, Some(reached_us));
                    streams.insert(MESSAGE.to_owned(), message_stream(rows));
                }
                Ok::<_, Problem>((events.len(), streams))
            }
        })
        .await
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))??;
        gone_through = events;
        tables.extend(streams);
    } else {
        tables.extend(streams_of(&[], &engagement, FxHashSet::default(), &places));
    }
    let (schema, batches) = bounded::run_with(&body.sql, &tables, &opening).await?;
    let total = batches.iter().map(|batch| batch.num_rows()).sum();
    let limit = body.limit.unwrap_or(ROWS_MAX).min(ROWS_MAX);
    let rows: Vec<Map<String, Value>> = batches.iter().flat_map(batch_to_json).take(limit).collect();
    record(&shared, reader, "query", persons_in(&rows)).await?;
    Ok(Json(Rows {
        columns: schema.fields().iter().map(|field| field.name().clone()).collect(),
        rows,
        total,
        events: gone_through,
    }))
}
