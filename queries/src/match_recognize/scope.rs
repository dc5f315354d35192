//! A scope is expressions of DEFINE or MEASURES over the columns that their operands make, ready for DataFusion.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, Result};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::planner::create_physical_expr;
use datafusion::sql::sqlparser::tokenizer::Span;

use super::operand::Operand;
use crate::computed::Computed;
use crate::tokens::mistake;

/// Expressions over the columns that their operands make.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
pub(super) struct Scope {
    /// What the columns are.
    pub(super) operands: Vec<Operand>,
    /// The columns' names and types.
    pub(super) columns: Vec<(String, DataType)>,
    /// The expressions.
    pub(super) expressions: Vec<Expr>,
}

impl Scope {
    /// The columns.
    pub(super) fn schema(&self) -> Result<DFSchema> {
        let fields = self
            .columns
            .iter()
            .map(|(name, data_type)| (None, Arc::new(Field::new(name, data_type.clone(), true))))
            .collect();
        DFSchema::new_with_metadata(fields, Default::default())
    }

    /// The expressions, ready to be evaluated.
    pub(super) fn computed(&self) -> Result<Vec<Computed>> {
        let schema = self.schema()?;
        self.expressions.iter().map(|expr| computed(expr, &schema)).collect()
    }
}

/// An expression over columns of `schema`, ready to be evaluated.
pub(super) fn computed(expr: &Expr, schema: &DFSchema) -> Result<Computed> {
    let planning = PhysicalPlanningContext::default();
    let physical = create_physical_expr(expr, schema, &ExecutionProps::new(), &planning)?;
    Computed::new(physical, schema.as_arrow())
}

/// An expression with its types made to fit, in its simplest form; refuses what can't be asked for each row.
pub(super) fn prepared(expr: Expr, schema: &DFSchemaRef, span: Span) -> Result<Expr> {
    let mut wrong = None;
    expr.apply(|inner| {
        match inner {
            Expr::AggregateFunction(call) => {
                wrong = Some((
                    format!("{} is no aggregate that MATCH_RECOGNIZE knows", call.func.name()),
                    "there are COUNT, SUM, AVG, MIN and MAX, each of one variable's rows",
                ));
            }
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
                wrong = Some((
                    "a subquery would be asked again for every row".to_owned(),
                    "join before",
                ));
            }
            Expr::ScalarFunction(call) if call.func.signature().volatility == Volatility::Volatile => {
                wrong = Some((
                    format!("{}() would give another answer in a replay", call.func.name()),
                    "use event_time or received_at",
                ));
            }
            Expr::ScalarFunction(call) if ["now", "current_date", "current_time"].contains(&call.func.name()) => {
                wrong = Some((
                    format!("{}() would give another answer in a replay", call.func.name()),
                    "use event_time or received_at",
                ));
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if let Some((wrong, right)) = wrong {
        return Err(mistake(span, wrong, right));
    }
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(Arc::clone(schema)).build());
    let expr = simplifier.coerce(expr, schema)?;
    simplifier.simplify(expr)
}
