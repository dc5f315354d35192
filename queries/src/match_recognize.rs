//! `MATCH_RECOGNIZE`: rows of a stream that follow each other in a pattern become one row.
//!
//! How it is written is read by [`written`] and [`plan`], expressions by [`expression`]. The logical node here stands in
//! the plan; [`prepared`] makes it ready to run, [`operator`] runs it on a stream, and [`bounded`] over recorded rows.
//! Which rows match is for [`crate::row_pattern`] to say.

mod bounded;
mod expression;
mod kept;
mod operand;
mod operator;
mod partition;
mod plan;
mod prepared;
mod scope;
#[cfg(test)]
mod tests;
mod written;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, DFSchemaRef, Result, plan_err};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, UserDefinedLogicalNodeCore};

pub(crate) use bounded::matches;
pub(crate) use operator::MatchRecognize;
pub(crate) use plan::PatternPlanner;
pub(crate) use prepared::{Prepared, refuse_what_cannot_stream};
use scope::Scope;
pub(crate) use written::sql_to_statement;

use crate::row_pattern::Pattern;
use crate::row_pattern::search::Skip;

/// The column that tells a partial match whose time was over from a match.
const TIMED_OUT: &str = "timed_out";

/// What stands in the parentheses of MATCH_RECOGNIZE, planned.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
pub(crate) struct Recognition {
    /// Rows match each other only where these are the same.
    partition_by: Vec<Expr>,
    /// The column of the event time.
    time: Expr,
    /// What operands look at, over the input.
    arguments: Vec<Expr>,
    /// The names of the variables, as written.
    variables: Vec<String>,
    pattern: Pattern,
    /// The condition of each variable; one without always matches.
    define: Vec<Option<Scope>>,
    measures: Scope,
    measure_names: Vec<String>,
    skip: Skip,
    /// How far the last row of a match may lie behind the first, microseconds.
    within_us: Option<i64>,
    shows_timed_out: bool,
    /// The pattern as written, for reading.
    text: String,
}

/// The logical node.
#[derive(Debug, Clone)]
pub(crate) struct MatchNode {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) recognition: Arc<Recognition>,
    schema: DFSchemaRef,
}

impl MatchNode {
    fn try_new(input: LogicalPlan, recognition: Arc<Recognition>) -> Result<Self> {
        let of_input = input.schema().as_ref();
        let mut fields = Vec::new();
        for expr in &recognition.partition_by {
            let (_, field) = expr.to_field(of_input)?;
            fields.push(Field::new(
                name_of(expr),
                field.data_type().clone(),
                field.is_nullable(),
            ));
        }
        let measures = recognition.measures.schema()?;
        for (name, expr) in recognition.measure_names.iter().zip(&recognition.measures.expressions) {
            fields.push(Field::new(name, expr.get_type(&measures)?, true));
        }
        if recognition.shows_timed_out {
            fields.push(Field::new(TIMED_OUT, DataType::Boolean, false));
        }
        let fields = fields.into_iter().map(|field| (None, Arc::new(field))).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(Self {
            input: Arc::new(input),
            recognition,
            schema,
        })
    }

    /// The node that a plan is, if it is one.
    pub(crate) fn of(plan: &LogicalPlan) -> Option<&Self> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref::<Self>(),
            _ => None,
        }
    }
}

/// The name of an expression of PARTITION BY in the output.
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Column(column) => column.name.clone(),
        other => other.schema_name().to_string(),
    }
}

impl PartialEq for MatchNode {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input && self.recognition == other.recognition
    }
}
impl Eq for MatchNode {}
impl Hash for MatchNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.recognition.hash(state);
    }
}
impl PartialOrd for MatchNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.recognition.partial_cmp(&other.recognition)
    }
}

impl UserDefinedLogicalNodeCore for MatchNode {
    fn name(&self) -> &str {
        "MatchRecognize"
    }
    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }
    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }
    fn expressions(&self) -> Vec<Expr> {
        // None to be rewritten: those of DEFINE and MEASURES are over columns that the input does not have, and all of
        // them were prepared when they were planned.
        Vec::new()
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MatchRecognize: {}", self.recognition)
    }
    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let input = inputs.swap_remove(0);
        let is_same = |(left, right): (&Arc<Field>, &Arc<Field>)| left.data_type() == right.data_type();
        let (before, after) = (self.input.schema().fields(), input.schema().fields());
        if before.len() != after.len() || !before.iter().zip(after).all(is_same) {
            return plan_err!(
                "the columns that MATCH_RECOGNIZE reads change their types while the query is planned; CAST them in its input"
            );
        }
        Self::try_new(input, Arc::clone(&self.recognition))
    }
}

impl fmt::Display for Recognition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PATTERN ({})", self.text)?;
        if let Some(within) = self.within_us {
            let within = std::time::Duration::from_micros(within.unsigned_abs());
            write!(f, " WITHIN {}", humantime::format_duration(within))?;
        }
        if self.shows_timed_out {
            write!(f, " SHOW TIMED OUT")?;
        }
        let list = |expressions: &[Expr]| {
            let shown: Vec<String> = expressions.iter().map(ToString::to_string).collect();
            shown.join(", ")
        };
        if !self.partition_by.is_empty() {
            write!(f, " PARTITION BY {}", list(&self.partition_by))?;
        }
        write!(f, " ORDER BY {}", self.time)?;
        for (name, scope) in self.variables.iter().zip(&self.define) {
            if let Some(scope) = scope {
                write!(f, " DEFINE {name} AS {}", list(&scope.expressions))?;
            }
        }
        for (name, expr) in self.measure_names.iter().zip(&self.measures.expressions) {
            write!(f, " MEASURE {expr} AS {name}")?;
        }
        match self.skip {
            Skip::PastLastRow => write!(f, " SKIP PAST LAST ROW"),
            Skip::ToNextRow => write!(f, " SKIP TO NEXT ROW"),
        }
    }
}
