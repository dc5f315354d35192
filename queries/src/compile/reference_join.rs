//! How a join with a reference table is compiled, or why it is refused.

use std::sync::Arc;

use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Join, JoinType, LogicalPlan};

use super::Compiler;
use crate::as_of::time_of;
use crate::error::{Position, QueryError};
use crate::join::{AsOf, JoinPlan, ReferenceJoin};
use crate::pipeline::Pipeline;

impl Compiler<'_> {
    fn only_references(&self, plan: &LogicalPlan) -> bool {
        match plan {
            LogicalPlan::TableScan(scan) => self.is_reference(scan.table_name.table()),
            LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) | LogicalPlan::Projection(_) => {
                plan.inputs().into_iter().all(|input| self.only_references(input))
            }
            _ => false,
        }
    }

    /// Adds the operator of a join.
    pub(super) fn join(&mut self, join: &Join) -> Result<usize, QueryError> {
        let stream_is_left = match (self.only_references(&join.left), self.only_references(&join.right)) {
            (false, true) => true,
            (true, false) => false,
            (false, false) => {
                self.refuse_as_of(join)?;
                return self.join_streams(join);
            }
            (true, true) => return self.node(&join.left),
        };
        let keeps_unmatched = match (join.join_type, stream_is_left) {
            (JoinType::Inner, _) => false,
            (JoinType::Left, true) | (JoinType::Right, false) => true,
            (other, _) => {
                return Err(self.at("JOIN").mistake(
                    format!(
                        "{} JOIN would have to say rows of the table that nothing matches",
                        other.to_string().to_uppercase()
                    ),
                    "JOIN, or LEFT JOIN with the stream on the left",
                ));
            }
        };
        let (stream, table) = if stream_is_left {
            (&join.left, &join.right)
        } else {
            (&join.right, &join.left)
        };
        let child = self.node(stream)?;
        let (table_side, references) = self.table_side(table)?;
        self.references.extend(references);
        let (conditions, as_of) = self.as_of(join, stream)?;
        if as_of.is_some() {
            self.versions_of.extend(table_side.sources().map(str::to_owned));
        }
        let mut plan = JoinPlan {
            table_side,
            table_schema: Arc::new(table.schema().as_arrow().clone()),
            stream_keys: Vec::new(),
            table_keys: Vec::new(),
            key_types: Vec::new(),
            as_of,
            filter: None,
            keeps_unmatched,
            stream_is_left,
            schema: Arc::new(join.schema.as_arrow().clone()),
        };
        for (left, right) in &join.on {
            let (of_stream, of_table) = if stream_is_left { (left, right) } else { (right, left) };
            let (key, key_type) = self.join_key(of_table, table.schema())?;
            plan.key_types.push(key_type);
            plan.table_keys.push(key);
            plan.stream_keys.push(self.join_key(of_stream, stream.schema())?.0);
        }
        if let Some(filter) = conjunction(conditions) {
            plan.filter = Some(self.physical(&filter, &join.schema)?);
        }
        let operator = self.wrap(ReferenceJoin::new(plan))?;
        Ok(self.pipeline.add(Box::new(operator), &[child]))
    }

    /// Divides the conditions of a join from the time by which a version of its table is chosen.
    fn as_of(&self, join: &Join, stream: &LogicalPlan) -> Result<(Vec<Expr>, Option<AsOf>), QueryError> {
        let conditions = join.filter.clone().map_or_else(Vec::new, split_conjunction_owned);
        let (versions, conditions): (Vec<Expr>, Vec<Expr>) = conditions
            .into_iter()
            .partition(|condition| time_of(condition).is_some());
        let Some((time, _)) = versions.first().and_then(time_of) else {
            return Ok((conditions, None));
        };
        let as_of = AsOf {
            time: self.physical(time, stream.schema())?,
            lateness_us: self.statement.lateness_us,
        };
        Ok((conditions, Some(as_of)))
    }

    /// A version of what is no reference table was asked for.
    fn refuse_as_of(&self, join: &Join) -> Result<(), QueryError> {
        let conditions = join.filter.clone().map_or_else(Vec::new, split_conjunction_owned);
        let Some((time, column)) = conditions.iter().find_map(time_of) else {
            return Ok(());
        };
        let name = match column {
            Expr::Column(column) => column.relation.as_ref().map(|table| table.table().to_owned()),
            _ => None,
        };
        Err(self.at_time(time).mistake(
            format!(
                "FOR SYSTEM_TIME AS OF asks for a version of '{}', which is no reference table",
                name.unwrap_or_default()
            ),
            "two streams are joined within a bound on their times, and need none",
        ))
    }

    /// Where the time of FOR SYSTEM_TIME AS OF stands.
    fn at_time(&self, time: &Expr) -> Position {
        let span = time.spans().and_then(|spans| spans.first());
        match span {
            Some(span) if span.start.line > 0 => Position {
                line: span.start.line,
                column: span.start.column,
            },
            _ => self.at("SYSTEM_TIME"),
        }
    }

    /// Compiles what is done to a reference table before it is joined.
    fn table_side(&mut self, plan: &LogicalPlan) -> Result<(Pipeline, Vec<String>), QueryError> {
        let outer = std::mem::take(&mut self.pipeline);
        let compiled = self.table_node(plan);
        let table_side = std::mem::replace(&mut self.pipeline, outer);
        compiled?;
        let names = table_side.sources().map(str::to_owned).collect();
        Ok((table_side, names))
    }

    fn table_node(&mut self, plan: &LogicalPlan) -> Result<usize, QueryError> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let name = scan.table_name.table().to_owned();
                self.scan(scan, &name)
            }
            LogicalPlan::SubqueryAlias(alias) => self.table_node(&alias.input),
            LogicalPlan::Filter(filter) => {
                let child = self.table_node(&filter.input)?;
                self.filter_over(child, filter)
            }
            LogicalPlan::Projection(projection) => {
                let child = self.table_node(&projection.input)?;
                self.projection_over(child, projection)
            }
            other => Err(self
                .statement
                .at
                .wrong(format!("{} can't be done to a reference table", other.display()))),
        }
    }
}
