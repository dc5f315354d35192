//! The same SQL, run once over recorded rows by stock DataFusion: the oracle of continuous answers, and `usher query`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{concat_batches, is_not_null, take_record_batch};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::common::config::Dialect;
use datafusion::common::{DFSchema, Result};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::{MemTable, TableProvider, provider_as_source};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as ParsedStatement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;

use crate::absence::absences;
use crate::absent::AbsentNode;
use crate::error::{Position, QueryError, from_datafusion};
use crate::operator::batch_of;
use crate::planner::{Tables, session};
use crate::statement::parse_statements;
use crate::window::{WindowNode, expand};

/// Rows a relation holds, by name.
pub type Recorded = BTreeMap<String, (SchemaRef, Vec<RecordBatch>)>;

/// Runs a SELECT, or the SELECT of a `CREATE QUERY` or `CREATE ALERT`, over recorded rows.
///
/// # Errors
/// A mistake in the SQL with its place, or what went wrong while running.
pub async fn run(sql: &str, recorded: &Recorded) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
    let start = Position { line: 1, column: 1 };
    let is_create = sql
        .trim_start()
        .get(..6)
        .is_some_and(|word| word.eq_ignore_ascii_case("create"));
    let text = if is_create || sql.trim_start().starts_with("--") {
        match parse_statements(sql) {
            Ok(mut statements) if statements.len() == 1 => statements.remove(0).select,
            Ok(_) => return Err(start.mistake("there is more than one statement", "one at a time")),
            Err(error) if is_create => return Err(error),
            Err(_) => sql.to_owned(),
        }
    } else {
        sql.to_owned()
    };
    let wrap = |error| from_datafusion(&error, start, &text);
    let state = session(tables(recorded).map_err(wrap)?, false).map_err(wrap)?;
    let parsed = state.sql_to_statement(&text, &Dialect::Generic).map_err(wrap)?;
    if !matches!(&parsed, ParsedStatement::Statement(sql) if matches!(**sql, SqlStatement::Query(_))) {
        return Err(start.mistake(
            "this is not a question",
            "SELECT … was expected: nothing can be changed from here",
        ));
    }
    execute(state, parsed).await.map_err(wrap)
}

async fn execute(state: SessionState, parsed: ParsedStatement) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let plan = state.statement_to_plan(parsed).await?;
    let plan = Box::pin(materialise(plan, &state)).await?;
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
async fn materialise(plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
    let mut inputs = Vec::new();
    for input in plan.inputs() {
        inputs.push(Box::pin(materialise(input.clone(), state)).await?);
    }
    if let (Some(node), [input]) = (AbsentNode::of(&plan), inputs.as_slice()) {
        return absences_of(node, &plan, input.clone(), state).await;
    }
    let window = match &plan {
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref::<WindowNode>().cloned(),
        _ => None,
    };
    let Some(window) = window else {
        if inputs.is_empty() {
            return Ok(plan);
        }
        return plan.with_new_exprs(plan.expressions(), inputs);
    };
    let input = inputs.swap_remove(0);
    let time = state.create_physical_expr(window.time.clone(), input.schema())?;
    let batches = DataFrame::new(state.clone(), input.clone()).collect().await?;
    let rows = concat_batches(&Arc::new(input.schema().as_arrow().clone()), &batches)?;
    let times = time.evaluate(&rows)?.into_array(rows.num_rows())?;
    let mask = is_not_null(&times)?;
    let times = arrow::compute::filter(&times, &mask)?;
    let rows = arrow::compute::filter_record_batch(&rows, &mask)?;
    let (indices, starts, ends) = expand(times.as_primitive::<TimestampMicrosecondType>().values(), window.spec);
    let mut columns = take_record_batch(&rows, &indices)?.columns().to_vec();
    columns.push(starts);
    columns.push(ends);
    let schema = Arc::new(plan.schema().as_arrow().clone());
    let batch = batch_of(&schema, columns, indices.len())?;
    as_table(plan.schema(), batch)
}

/// The rows of ABSENT.
async fn absences_of(
    node: &AbsentNode,
    plan: &LogicalPlan,
    input: LogicalPlan,
    state: &SessionState,
) -> Result<LogicalPlan> {
    let schema = Arc::clone(input.schema());
    let column = |expr: &Expr, rows: &RecordBatch| {
        let physical = state.create_physical_expr(expr.clone(), &schema)?;
        physical.evaluate(rows)?.into_array(rows.num_rows())
    };
    let batches = DataFrame::new(state.clone(), input).collect().await?;
    let rows = concat_batches(&Arc::new(schema.as_arrow().clone()), &batches)?;
    let times = column(&node.time, &rows)?;
    let keys = node
        .keys
        .iter()
        .map(|key| column(key, &rows))
        .collect::<Result<Vec<_>>>()?;
    let said = Arc::new(plan.schema().as_arrow().clone());
    as_table(plan.schema(), absences(&rows, &times, &keys, node.for_us, &said)?)
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
