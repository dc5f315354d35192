//! Sessions over recorded rows: sorted by time and cut where a gap is, as the words of the definition say.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder};

use super::{as_table, column_of, rows_of};
use crate::assign_windows::window_columns;
use crate::below::{Below, unaliased, window_of};
use crate::civil_time::OpeningHours;
use crate::operator::batch_of;
use crate::window::{Gap, Span, WINDOW_COLUMNS, WindowSpec};

/// The input of a GROUP BY over sessions with the sessions in place; `None` where there are none below it.
pub(super) async fn materialise(
    aggregate: &Aggregate,
    state: &SessionState,
    opening: &Arc<dyn OpeningHours>,
) -> Result<Option<LogicalPlan>> {
    let below = Below::of(&aggregate.input)?;
    let Some(window) = &below.window else { return Ok(None) };
    let WindowSpec::Session(gap) = window.spec else {
        return Ok(None);
    };
    let of_window = |expr: &Expr| {
        let columns = expr.column_refs();
        columns
            .iter()
            .any(|column| WINDOW_COLUMNS.contains(&column.name.as_str()))
    };
    let mut input = Box::pin(super::materialise(window.input.as_ref().clone(), state, opening)).await?;
    // Sessions are made of the rows that the WHERE lets through.
    for predicate in below.filters.iter().filter(|predicate| !of_window(predicate)) {
        input = LogicalPlanBuilder::from(input).filter(predicate.clone())?.build()?;
    }
    let rows = rows_of(&input, state).await?;
    let mut keys = Vec::new();
    for expr in &aggregate.group_expr {
        let resolved = below.resolve(expr)?;
        if !of_window(&resolved) {
            keys.push(column_of(unaliased(&resolved), &input, &rows, state)?);
        }
    }
    let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
    let encoded = RowConverter::new(fields)?.convert_columns(&keys)?;
    let times = column_of(&window.time, &input, &rows, state)?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let mut by_key: BTreeMap<Option<OwnedRow>, Vec<(i64, u32)>> = BTreeMap::new();
    for row in (0..rows.num_rows()).filter(|row| times.is_valid(*row)) {
        let key = (!keys.is_empty()).then(|| encoded.row(row).owned());
        by_key.entry(key).or_default().push((times.value(row), row as u32));
    }
    let mut placed: Vec<(u32, Span)> = Vec::with_capacity(rows.num_rows());
    for (_, mut of_key) in by_key {
        of_key.sort_unstable();
        for run in of_key.chunk_by(|(before, _), (after, _)| after - before < gap.gap_us) {
            for (time, row) in run {
                placed.push((*row, session_of(*time, run, gap)));
            }
        }
    }
    // As they were recorded: an aggregate may depend on the order in which rows came.
    placed.sort_unstable_by_key(|(row, _)| *row);
    let (indices, spans): (Vec<u32>, Vec<Span>) = placed.into_iter().unzip();
    let schema = Arc::new(window_schema(&aggregate.input)?);
    let taken: RecordBatch = take_record_batch(&rows, &UInt32Array::from(indices))?;
    let batch = batch_of(
        &Arc::new(schema.as_arrow().clone()),
        [taken.columns(), &window_columns(&spans)].concat(),
        spans.len(),
    )?;
    let table = as_table(&schema, batch)?;
    let replaced = aggregate.input.as_ref().clone().transform_down(|node| {
        Ok(match window_of(&node) {
            Some(_) => Transformed::yes(table.clone()),
            None => Transformed::no(node),
        })
    })?;
    Ok(Some(replaced.data))
}

/// The session of a row at `time` in a run of rows that no gap divides.
fn session_of(time: i64, run: &[(i64, u32)], gap: Gap) -> Span {
    let (first, last) = (run[0].0, run[run.len() - 1].0);
    let whole = Span {
        end: last + gap.gap_us,
        start: first,
    };
    if last - first < gap.max_us {
        return whole;
    }
    let cell = Span::from(time.div_euclid(gap.max_us) * gap.max_us, gap.max_us);
    Span {
        end: if last < cell.end { whole.end } else { cell.end },
        start: cell.start.max(first),
    }
}

fn window_schema(plan: &LogicalPlan) -> Result<datafusion::common::DFSchema> {
    match window_of(plan) {
        Some(_) => Ok(plan.schema().as_ref().clone()),
        None => match plan.inputs().first() {
            Some(input) => window_schema(input),
            None => datafusion::common::plan_err!("there is no window below the GROUP BY"),
        },
    }
}
