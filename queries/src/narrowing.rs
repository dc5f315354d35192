//! A join of two streams keeps its rows for as long as others may find them: no more columns of them than something looks at.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::{Expr, Filter, Join, JoinType, LogicalPlan, Projection, SubqueryAlias};

use crate::purpose::PERSON;
use crate::time_bound::TimeBound;

/// Columns by their numbers.
type Columns = BTreeSet<usize>;

/// The same plan, in which both sides of a join of two streams have no columns but those that are looked at. `is_table` tells
/// which names are of reference tables.
///
/// # Errors
/// When DataFusion can't put the plan together again.
pub(crate) fn narrowed(plan: &LogicalPlan, is_table: impl Fn(&str) -> bool) -> Result<LogicalPlan> {
    Narrowing { is_table }.node(plan, &all(plan))
}

struct Narrowing<F> {
    is_table: F,
}

impl<F: Fn(&str) -> bool> Narrowing<F> {
    /// A plan of which the columns `wanted` are looked at. It may have fewer than before, and has these under their names.
    fn node(&self, plan: &LogicalPlan, wanted: &Columns) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::Projection(projection) => {
                let input = self.node(
                    &projection.input,
                    &looked_at(&projection.expr, projection.input.schema()),
                )?;
                let schema = Arc::clone(&projection.schema);
                let expressions = projection.expr.clone();
                Projection::try_new_with_schema(expressions, Arc::new(input), schema).map(LogicalPlan::Projection)
            }
            LogicalPlan::Filter(filter) => {
                let mut wanted = wanted.clone();
                wanted.extend(looked_at([&filter.predicate], filter.input.schema()));
                let input = self.node(&filter.input, &wanted)?;
                Filter::try_new(filter.predicate.clone(), Arc::new(input)).map(LogicalPlan::Filter)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.node(&alias.input, wanted)?;
                SubqueryAlias::try_new(Arc::new(input), alias.alias.clone()).map(LogicalPlan::SubqueryAlias)
            }
            LogicalPlan::Join(join) if self.is_narrowed(join)? => self.join(join, wanted),
            other => {
                let narrowed = other.inputs().into_iter().map(|input| self.node(input, &all(input)));
                let inputs = narrowed.collect::<Result<Vec<_>>>()?;
                if inputs.iter().eq(other.inputs()) {
                    return Ok(other.clone());
                }
                other.with_new_exprs(other.expressions(), inputs)
            }
        }
    }

    /// Whether it is a join of two streams that can be run; of others the mistake is told with all there is.
    fn is_narrowed(&self, join: &Join) -> Result<bool> {
        let is_known = matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::Right);
        let reads_streams = self.reads_stream(&join.left) && self.reads_stream(&join.right);
        Ok(is_known && reads_streams && TimeBound::of(join)?.is_some())
    }

    fn reads_stream(&self, plan: &LogicalPlan) -> bool {
        match plan {
            LogicalPlan::TableScan(scan) => !(self.is_table)(scan.table_name.table()),
            other => other.inputs().into_iter().any(|input| self.reads_stream(input)),
        }
    }

    fn join(&self, join: &Join, wanted: &Columns) -> Result<LogicalPlan> {
        let (left, right) = (join.left.schema(), join.right.schema());
        let of_left = left.fields().len();
        let mut wanted = wanted.clone();
        wanted.extend(looked_at(&join.filter, &join.schema));
        let (mut on_left, mut on_right): (Columns, Columns) = wanted.into_iter().partition(|column| *column < of_left);
        on_right = on_right.into_iter().map(|column| column - of_left).collect();
        on_left.extend(looked_at(join.on.iter().map(|(left, _)| left), left));
        on_right.extend(looked_at(join.on.iter().map(|(_, right)| right), right));
        let inputs = vec![self.side(&join.left, on_left)?, self.side(&join.right, on_right)?];
        let join = LogicalPlan::Join(join.clone());
        join.with_new_exprs(join.expressions(), inputs)
    }

    /// A side of a join with these columns, and whose each row is: who is to be forgotten is found by that.
    fn side(&self, plan: &LogicalPlan, mut wanted: Columns) -> Result<LogicalPlan> {
        let schema = plan.schema();
        wanted.extend((0..schema.fields().len()).filter(|column| schema.field(*column).name() == PERSON));
        let input = self.node(plan, &wanted)?;
        if input.schema().fields().len() == wanted.len() {
            return Ok(input);
        }
        let picked = wanted
            .into_iter()
            .map(|column| Expr::Column(Column::from(schema.qualified_field(column))));
        Projection::try_new(picked.collect(), Arc::new(input)).map(LogicalPlan::Projection)
    }
}

fn all(plan: &LogicalPlan) -> Columns {
    (0..plan.schema().fields().len()).collect()
}

/// The columns of a schema that expressions look at.
fn looked_at<'a>(expressions: impl IntoIterator<Item = &'a Expr>, schema: &DFSchema) -> Columns {
    let columns = expressions.into_iter().flat_map(Expr::column_refs);
    columns
        .filter_map(|column| schema.maybe_index_of_column(column))
        .collect()
}
