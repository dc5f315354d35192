//! How a join of two streams is compiled, or why it is refused.

use std::sync::Arc;

use datafusion::common::NullEquality;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Join, JoinType, LogicalPlan};

use super::{Compiler, amending_source};
use crate::error::{Position, QueryError, find_word};
use crate::interval_join::{IntervalJoin, IntervalJoinPlan, SidePlan};
use crate::key_bytes::KeyBytes;
use crate::match_recognize::MatchNode;
use crate::time_bound::{TimeBound, shown_us};

/// Bounds are at most this far from zero: it keeps arithmetic on times in range.
const LONGEST_BOUND_US: i64 = 100 * 366 * 86_400_000_000;

impl Compiler<'_> {
    /// Where the word stands that makes this join: those of its left side stand before it.
    fn at_join(&self, join: &Join) -> Position {
        let mut place = self.at("JOIN");
        for _ in 0..joins_in(&join.left) {
            let behind = Position {
                column: place.column + 1,
                ..place
            };
            match find_word(&self.text, "JOIN", behind) {
                Some(next) => place = next,
                None => break,
            }
        }
        place
    }

    /// Adds the operator of a join neither of whose sides is a reference table.
    pub(super) fn join_streams(&mut self, join: &Join) -> Result<usize, QueryError> {
        let outer = match join.join_type {
            JoinType::Inner => None,
            JoinType::Left => Some(0),
            JoinType::Right => Some(1),
            other => {
                return Err(self.at_join(join).mistake(
                    format!("{other} JOIN of two streams is not there"),
                    "JOIN, LEFT JOIN and RIGHT JOIN are",
                ));
            }
        };
        for side in [&join.left, &join.right] {
            if let Some(name) = amending_source(self.catalog, side) {
                return Err(self.at(&name).mistake(
                    format!("'{name}' says rows again when they change, so that each would be joined more than once"),
                    "read its rows WHERE final, create it WITH (emit = 'close') and without lateness, or join the stream itself",
                ));
            }
        }
        let Some(bound) = self.wrap(TimeBound::of(join))? else {
            let (left, right) = (time_of(&join.left, "a"), time_of(&join.right, "b"));
            return Err(self.at_join(join).mistake(
                "two streams are joined without a bound on time, and each row would wait for the other for ever",
                format!(
                    "add AND {right} BETWEEN {left} - INTERVAL '1 minute' AND {left} + INTERVAL '1 minute', or join with a reference table"
                ),
            ));
        };
        if bound.low_us > bound.high_us {
            return Err(self.at_join(join).mistake(
                format!(
                    "two streams are joined where {} - {} is at least {} and at most {}, which nothing is",
                    bound.right,
                    bound.left,
                    shown_us(bound.low_us),
                    shown_us(bound.high_us)
                ),
                "BETWEEN asks for the earlier time first",
            ));
        }
        if bound.low_us < -LONGEST_BOUND_US || bound.high_us > LONGEST_BOUND_US {
            return Err(self.at_join(join).mistake(
                "two streams are joined with a bound of more than a hundred years",
                "make it shorter: each row is kept for so long",
            ));
        }
        let grouped = (self.windowed, self.running);
        (self.windowed, self.running) = (false, false);
        let children = [self.node(&join.left)?, self.node(&join.right)?];
        if holds_pattern(&join.left) || holds_pattern(&join.right) {
            return Err(self.at("MATCH_RECOGNIZE").mistake(
                "one side of the join is a MATCH_RECOGNIZE, which waits by rules of its own",
                "create it as a query, and join with that query by its name",
            ));
        }
        if self.windowed || self.running {
            return Err(self.at_join(join).mistake(
                "one side of the join is a GROUP BY of its own",
                "create it as a query WITH (emit = 'close') and join with that",
            ));
        }
        (self.windowed, self.running) = grouped;
        let mut keys = [Vec::new(), Vec::new()];
        let mut types = [Vec::new(), Vec::new()];
        for (left, right) in &join.on {
            for (side, (expr, input)) in [(left, &join.left), (right, &join.right)].into_iter().enumerate() {
                let (key, data_type) = self.join_key(expr, input.schema())?;
                types[side].push(data_type);
                keys[side].push(key);
            }
        }
        let [left_keys, right_keys] = keys;
        let [left_types, right_types] = types;
        let left_keys = self.wrap(KeyBytes::new(left_keys, left_types))?;
        let right_keys = self.wrap(KeyBytes::new(right_keys, right_types))?;
        let plan = IntervalJoinPlan {
            sides: [
                SidePlan {
                    keys: left_keys,
                    time: self.physical(&Expr::Column(bound.left), join.left.schema())?,
                    schema: Arc::new(join.left.schema().as_arrow().clone()),
                },
                SidePlan {
                    keys: right_keys,
                    time: self.physical(&Expr::Column(bound.right), join.right.schema())?,
                    schema: Arc::new(join.right.schema().as_arrow().clone()),
                },
            ],
            low_us: bound.low_us,
            high_us: bound.high_us,
            lateness_us: self.statement.lateness_us,
            behind_us: children.map(|child| self.pipeline.lag_of(child)),
            null_equals_null: join.null_equality == NullEquality::NullEqualsNull,
            filter: match conjunction(bound.rest) {
                Some(rest) => Some(self.physical(&rest, &join.schema)?),
                None => None,
            },
            outer,
            schema: Arc::new(join.schema.as_arrow().clone()),
        };
        self.has_state = true;
        Ok(self.pipeline.add(Box::new(IntervalJoin::new(plan)), &children))
    }
}

/// Whether there is a pattern in a plan.
fn holds_pattern(plan: &LogicalPlan) -> bool {
    MatchNode::of(plan).is_some() || plan.inputs().into_iter().any(holds_pattern)
}

/// The name of a side's first time column, as one would write it, or of one that is likely.
fn time_of(side: &LogicalPlan, likely: &str) -> String {
    let time_type = crate::streams::time_type();
    let found = side.schema().iter().find(|(_, field)| *field.data_type() == time_type);
    match found {
        Some((Some(qualifier), field)) => format!("{qualifier}.{}", field.name()),
        Some((None, field)) => field.name().clone(),
        None => format!("{likely}.event_time"),
    }
}

/// How many joins there are in a plan.
fn joins_in(plan: &LogicalPlan) -> usize {
    let within: usize = plan.inputs().into_iter().map(joins_in).sum();
    within + usize::from(matches!(plan, LogicalPlan::Join(_)))
}
