//! The same SQL, run once over recorded rows by stock DataFusion: the oracle of continuous answers, and `usher query`.

mod sessions;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::{MemTable, TableProvider, provider_as_source};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as ParsedStatement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;

use crate::absence::absences;
use crate::absent::AbsentNode;
use crate::assign_windows::in_windows;
use crate::below::window_of;
use crate::civil_time::{AlwaysOpen, OpeningHours};
use crate::error::{Position, QueryError, from_datafusion};
use crate::match_recognize::{MatchNode, matches, sql_to_statement};
use crate::operator::batch_of;
use crate::planner::{Tables, session};
use crate::statement::{parse_statements, refuse_excess};
use crate::window::Assigner;

/// Rows a relation holds, by name.
pub type Recorded = BTreeMap<String, (SchemaRef, Vec<RecordBatch>)>;

/// Runs a SELECT, or the SELECT of a `CREATE QUERY` or `CREATE ALERT`, over recorded rows.
///
/// # Errors
/// A mistake in the SQL with its place, or what went wrong while running.
pub async fn run(sql: &str, recorded: &Recorded) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
    let opening: Arc<dyn OpeningHours> = Arc::new(AlwaysOpen);
    run_with(sql, recorded, &opening).await
}

/// As [`run`], where sites are open as `opening` says.
///
/// # Errors
/// A mistake in the SQL with its place, or what went wrong while running.
pub async fn run_with(
    sql: &str,
    recorded: &Recorded,
    opening: &Arc<dyn OpeningHours>,
) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
    refuse_excess(sql)?;
    let start = Position { line: 1, column: 1 };
    let is_create = sql
        .trim_start()
        .get(..6)
        .is_some_and(|word| word.eq_ignore_ascii_case("create"));
    let text = if is_create || sql.trim_start().starts_with("--") {
        match parse_statements(sql) {
            Ok(mut statements) if statements.len() == 1 => statements.remove(0).placed_select(),
            Ok(_) => return Err(start.mistake("there is more than one statement", "one at a time")),
            Err(error) if is_create => return Err(error),
            Err(_) => sql.to_owned(),
        }
    } else {
        sql.to_owned()
    };
    let wrap = |error| from_datafusion(&error, start, &text);
    let state = session(tables(recorded).map_err(wrap)?, false).map_err(wrap)?;
    let parsed = sql_to_statement(&state, &text).map_err(wrap)?;
    if !matches!(&parsed, ParsedStatement::Statement(sql) if matches!(**sql, SqlStatement::Query(_))) {
        return Err(start.mistake(
            "this is not a question",
            "SELECT … was expected: nothing can be changed from here",
        ));
    }
    execute(state, parsed, opening).await.map_err(wrap)
}

async fn execute(
    state: SessionState,
    parsed: ParsedStatement,
    opening: &Arc<dyn OpeningHours>,
) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let plan = state.statement_to_plan(parsed).await?;
    let plan = Box::pin(materialise(plan, &state, opening)).await?;
    let frame = SessionContext::new_with_state(state);
    let frame = DataFrame::new(frame.state(), plan);
    let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
    Ok((schema, frame.collect().await?))
}

fn tables(recorded: &Recorded) -> Result<Tables> {
    recorded
        .iter()
        .map(|(name, (schema, batches))| {
            let table = MemTable::try_new(Arc::clone(schema), vec![batches.clone()])?;
            Ok((name.clone(), Arc::new(table) as Arc<dyn TableProvider>))
        })
        .collect()
}

/// Replaces each window in a plan by its rows, which stock DataFusion can then read as a table.
async fn materialise(plan: LogicalPlan, state: &SessionState, opening: &Arc<dyn OpeningHours>) -> Result<LogicalPlan> {
    if let LogicalPlan::Aggregate(aggregate) = &plan
        && let Some(grouped) = Box::pin(sessions::materialise(aggregate, state, opening)).await?
    {
        return plan.with_new_exprs(plan.expressions(), vec![grouped]);
    }
    let mut inputs = Vec::new();
    for input in plan.inputs() {
        inputs.push(Box::pin(materialise(input.clone(), state, opening)).await?);
    }
    if let Some(node) = MatchNode::of(&plan) {
        let input = inputs.swap_remove(0);
        let batches = DataFrame::new(state.clone(), input.clone()).collect().await?;
        let rows = concat_batches(&Arc::new(input.schema().as_arrow().clone()), &batches)?;
        return as_table(plan.schema(), matches(node, rows)?);
    }
    if let (Some(node), [input]) = (AbsentNode::of(&plan), inputs.as_slice()) {
        return absences_of(node, &plan, input.clone(), state).await;
    }
    let Some(window) = window_of(&plan) else {
        if inputs.is_empty() {
            return Ok(plan);
        }
        return plan.with_new_exprs(plan.expressions(), inputs);
    };
    let Some(windows) = Assigner::of(window.spec, opening) else {
        return plan_err!("sessions belong to keys, and there is no GROUP BY");
    };
    let input = inputs.swap_remove(0);
    let rows = rows_of(&input, state).await?;
    let times = column_of(&window.time, &input, &rows, state)?;
    let sites = match window.keys.first() {
        Some(site) => Some(column_of(site, &input, &rows, state)?),
        None => None,
    };
    let (indices, columns) = in_windows(&times, sites.as_ref(), &windows);
    let taken = take_record_batch(&rows, &indices)?;
    let schema = Arc::new(plan.schema().as_arrow().clone());
    let batch = batch_of(&schema, [taken.columns(), &columns].concat(), indices.len())?;
    as_table(plan.schema(), batch)
}

/// The rows of ABSENT.
async fn absences_of(
    node: &AbsentNode,
    plan: &LogicalPlan,
    input: LogicalPlan,
    state: &SessionState,
) -> Result<LogicalPlan> {
    let rows = rows_of(&input, state).await?;
    let times = column_of(&node.time, &input, &rows, state)?;
    let keys = node
        .keys
        .iter()
        .map(|key| column_of(key, &input, &rows, state))
        .collect::<Result<Vec<_>>>()?;
    let said = Arc::new(plan.schema().as_arrow().clone());
    as_table(plan.schema(), absences(&rows, &times, &keys, node.for_us, &said)?)
}

/// What a plan gives.
async fn rows_of(plan: &LogicalPlan, state: &SessionState) -> Result<RecordBatch> {
    let batches = DataFrame::new(state.clone(), plan.clone()).collect().await?;
    let rows = concat_batches(&Arc::new(plan.schema().as_arrow().clone()), &batches)?;
    Ok(rows)
}

/// What an expression gives for the rows of a plan.
fn column_of(expr: &Expr, plan: &LogicalPlan, rows: &RecordBatch, state: &SessionState) -> Result<ArrayRef> {
    let physical = state.create_physical_expr(expr.clone(), plan.schema())?;
    physical.evaluate(rows)?.into_array(rows.num_rows())
}

/// A plan that reads `batch` under the names and qualifiers of `schema`.
fn as_table(schema: &DFSchema, batch: RecordBatch) -> Result<LogicalPlan> {
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
    let scan = LogicalPlanBuilder::scan("windowed", provider_as_source(Arc::new(table)), None)?;
    let columns: Vec<Expr> = scan
        .schema()
        .iter()
        .map(Expr::from)
        .zip(schema.iter())
        .map(|(column, (qualifier, field))| match qualifier {
            Some(qualifier) => column.alias_qualified(Some(qualifier.clone()), field.name()),
            None => column.alias(field.name()),
        })
        .collect();
    scan.project(columns)?.build()
}
