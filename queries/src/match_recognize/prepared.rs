//! A prepared pattern is a logical node with all expressions ready to be evaluated, and what of a plan can't stream.

use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, plan_datafusion_err};
use datafusion::logical_expr::LogicalPlan;

use super::operand::Operand;
use super::scope::computed;
use super::{MatchNode, Recognition};
use crate::catalog::{Catalog, Relation};
use crate::compile::amending_source;
use crate::computed::Computed;
use crate::error::{Position, QueryError, find_word};
use crate::row_pattern::automaton::Automaton;
use crate::row_pattern::search::Skip;
use crate::statement::{Emit, Statement};

/// Where a column of a condition comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// An argument of the row that is judged, or of one so many rows before it.
    Current { argument: usize, back: u64 },
    /// What the rows before, and this one, have come to: an operand by its number.
    Seen(usize),
}

/// What must hold for a row to be a variable.
pub(super) struct Condition {
    pub(super) inputs: Vec<Input>,
    pub(super) holds: Computed,
    /// Whether it looks at nothing but the row and those right before it: then it need be asked once.
    pub(super) is_of_row: bool,
}

/// All that is fixed when a query is created.
pub(crate) struct Prepared {
    pub(super) partition_by: Vec<Computed>,
    pub(super) time: Computed,
    pub(super) arguments: Vec<Computed>,
    pub(super) automaton: Automaton,
    pub(super) variables: Vec<Arc<str>>,
    pub(super) conditions: Vec<Option<Condition>>,
    /// What conditions look at of the rows of a match.
    pub(super) seen: Vec<Operand>,
    pub(super) measure_operands: Vec<Operand>,
    pub(super) measures: Vec<Computed>,
    pub(super) skip: Skip,
    pub(super) within_us: Option<i64>,
    pub(super) shows_timed_out: bool,
    pub(super) numbers_matches: bool,
    /// How many rows before a match may be looked at.
    pub(super) back: u64,
    /// How late a row may be, microseconds.
    pub(super) lateness_us: i64,
    /// A partition without a partial match is forgotten so long after its last row, microseconds.
    pub(super) ttl_us: Option<i64>,
    pub(super) input: SchemaRef,
    pub(super) schema: SchemaRef,
    pub(super) text: String,
}

impl Prepared {
    /// Makes a node ready to run.
    ///
    /// # Errors
    /// When DataFusion can't evaluate an expression.
    pub(crate) fn new(node: &MatchNode, lateness_us: i64, ttl_us: Option<i64>) -> Result<Self> {
        let recognition: &Recognition = &node.recognition;
        let input = node.input.schema();
        let of_input = |expressions: &[_]| {
            expressions
                .iter()
                .map(|expr| computed(expr, input))
                .collect::<Result<Vec<_>>>()
        };
        let mut seen: Vec<Operand> = Vec::new();
        let mut conditions = Vec::new();
        for scope in &recognition.define {
            let Some(scope) = scope else {
                conditions.push(None);
                continue;
            };
            let inputs: Vec<Input> = scope
                .operands
                .iter()
                .map(|operand| match operand {
                    Operand::Current { argument, back } => Input::Current {
                        argument: *argument,
                        back: *back,
                    },
                    other => Input::Seen(seen.iter().position(|found| found == other).unwrap_or_else(|| {
                        seen.push(other.clone());
                        seen.len() - 1
                    })),
                })
                .collect();
            let holds = scope.computed()?.pop();
            conditions.push(Some(Condition {
                is_of_row: inputs.iter().all(|input| matches!(input, Input::Current { .. })),
                inputs,
                holds: holds.ok_or_else(|| plan_datafusion_err!("DEFINE has no condition"))?,
            }));
        }
        let all = recognition.define.iter().flatten().chain([&recognition.measures]);
        let back = all.flat_map(|scope| &scope.operands).map(Operand::back).max();
        let measure_operands = recognition.measures.operands.clone();
        Ok(Self {
            partition_by: of_input(&recognition.partition_by)?,
            time: computed(&recognition.time, input)?,
            arguments: of_input(&recognition.arguments)?,
            automaton: Automaton::of(&recognition.pattern).map_err(|error| plan_datafusion_err!("{error}"))?,
            variables: recognition.variables.iter().map(|name| name.as_str().into()).collect(),
            conditions,
            seen,
            numbers_matches: measure_operands.contains(&Operand::MatchNumber),
            measures: recognition.measures.computed()?,
            measure_operands,
            skip: recognition.skip,
            within_us: recognition.within_us,
            shows_timed_out: recognition.shows_timed_out,
            back: back.unwrap_or(0),
            lateness_us,
            ttl_us,
            input: Arc::new(input.as_arrow().clone()),
            schema: Arc::new(node.schema.as_arrow().clone()),
            text: recognition.to_string(),
        })
    }

    /// How far a match's first row may lie behind the watermark at which the match is said, microseconds. Without
    /// WITHIN there is no limit, and only the last row's time is near.
    pub(crate) fn lag_us(&self) -> i64 {
        self.within_us
            .unwrap_or(0)
            .saturating_add(self.lateness_us)
            .saturating_add(1)
    }

    /// The column of the input that is `index`.
    pub(super) fn field(&self, index: usize) -> &Field {
        self.input.field(index)
    }

    /// Whether the number of matches must be remembered when there were so many.
    fn counts(&self, matches: i64) -> bool {
        self.numbers_matches && matches > 0
    }

    /// How many rows of a partition with so many matches are kept though none has begun.
    pub(super) fn kept_back(&self, matches: i64) -> u64 {
        // The last row also tells whose matches are counted.
        self.back.max(u64::from(self.counts(matches)))
    }

    /// How long after its last row such a partition is forgotten; `None` for never.
    pub(super) fn forgotten_after_us(&self, matches: i64) -> Option<i64> {
        if self.kept_back(matches) == 0 {
            return Some(0);
        }
        match (self.counts(matches), self.within_us, self.ttl_us) {
            (false, Some(within), Some(ttl)) => Some(within.min(ttl)),
            (false, Some(within), None) => Some(within),
            (_, _, ttl) => ttl,
        }
    }
}

/// Refuses, with its place, what MATCH_RECOGNIZE can't read or be read by in one statement.
///
/// # Errors
/// The mistake.
pub(crate) fn refuse_what_cannot_stream(
    plan: &LogicalPlan,
    statement: &Statement,
    catalog: &Catalog,
) -> Result<(), QueryError> {
    let mut wrong = None;
    if !contains(plan, |inner| MatchNode::of(inner).is_some()) {
        return Ok(());
    }
    let text = statement.placed_select();
    let at = |word: &str| find_word(&text, word, statement.at).unwrap_or(statement.at);
    // The walk itself never fails.
    let _ = plan.apply(|inner| {
        // Also beside it: one of them says its rows once and the other again, and a query does either.
        if let LogicalPlan::Aggregate(_) = inner {
            wrong = Some(at("GROUP").mistake(
                "GROUP BY and MATCH_RECOGNIZE stand in one statement",
                "make the matches a query of their own, CREATE QUERY … AS SELECT … MATCH_RECOGNIZE (…), and group its rows",
            ));
        }
        if let Some(node) = MatchNode::of(inner) {
            if let Some(error) = of_input(node, catalog, &at) {
                wrong = Some(error);
            } else if statement.emit.is_some_and(|emit| emit != Emit::Close) {
                wrong = Some(statement.emit_at.mistake(
                    "a match is said once, when no further row can change it, and emit asks for more",
                    "leave emit out",
                ));
            }
        }
        Ok(if wrong.is_some() {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    });
    wrong.map_or(Ok(()), Err)
}

fn of_input(node: &MatchNode, catalog: &Catalog, at: &dyn Fn(&str) -> Position) -> Option<QueryError> {
    let is_other = |plan: &LogicalPlan| {
        // Windows, absences, other matches: nodes of ours, all of them.
        matches!(plan, LogicalPlan::Aggregate(_) | LogicalPlan::Extension(_))
    };
    let reads_stream = |plan: &LogicalPlan| {
        contains(plan, |inner| match inner {
            LogicalPlan::TableScan(scan) => {
                let relation = catalog.get(scan.table_name.table()).map(|entry| &entry.relation);
                !matches!(relation, Some(Relation::Reference))
            }
            _ => false,
        })
    };
    let joins_streams = |plan: &LogicalPlan| match plan {
        LogicalPlan::Join(join) => reads_stream(&join.left) && reads_stream(&join.right),
        _ => false,
    };
    if contains(&node.input, |plan| is_other(plan) || joins_streams(plan)) {
        return Some(at("MATCH_RECOGNIZE").mistake(
            "MATCH_RECOGNIZE reads windows, groups, joined streams, absences or other matches made in the same statement",
            "make those a query of their own, and read it by its name",
        ));
    }
    let name = amending_source(catalog, &node.input)?;
    Some(at(&name).mistake(
        format!("'{name}' says rows again when they change, and a pattern would take each for a new one"),
        "read its rows WHERE final, create it WITH (emit = 'close') and without lateness, or look for the pattern in the stream itself",
    ))
}

fn contains(plan: &LogicalPlan, is: impl Fn(&LogicalPlan) -> bool) -> bool {
    plan.exists(|inner| Ok(is(inner))).unwrap_or(false)
}
