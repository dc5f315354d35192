//! What lies between an aggregate and the window it reads, expressed over the window's input.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::window::WindowNode;

/// What lies between an aggregate and the window it reads: filters and projections, to be expressed over the
/// window's input.
pub(crate) struct Below {
    pub(crate) window: Option<WindowNode>,
    pub(crate) filters: Vec<Expr>,
    projections: Vec<(Arc<DFSchema>, Vec<Expr>)>,
}

impl Below {
    /// Looks from an aggregate's input downwards.
    ///
    /// # Errors
    /// When a filter can't be expressed over the window's input.
    pub(crate) fn of(input: &Arc<LogicalPlan>) -> Result<Self> {
        let mut below = Self {
            window: None,
            filters: Vec::new(),
            projections: Vec::new(),
        };
        let mut filters: Vec<(usize, Expr)> = Vec::new();
        let mut plan: &LogicalPlan = input;
        loop {
            match plan {
                LogicalPlan::SubqueryAlias(alias) => {
                    // Another qualifier, the same columns in the same order.
                    let inner = alias.input.schema();
                    let columns = inner.iter().map(Expr::from).collect();
                    below.projections.push((Arc::clone(&alias.schema), columns));
                    plan = &alias.input;
                }
                LogicalPlan::Projection(projection) => {
                    below
                        .projections
                        .push((Arc::clone(&projection.schema), projection.expr.clone()));
                    plan = &projection.input;
                }
                LogicalPlan::Filter(filter) => {
                    filters.push((below.projections.len(), filter.predicate.clone()));
                    plan = &filter.input;
                }
                other => {
                    below.window = window_of(other).cloned();
                    break;
                }
            }
        }
        if below.window.is_none() {
            below.projections.clear();
            return Ok(below);
        }
        below.filters = filters
            .into_iter()
            .map(|(depth, expr)| below.resolve_from(&expr, depth))
            .collect::<Result<_>>()?;
        Ok(below)
    }

    /// `expr`, which stands above all projections, over the window's output.
    pub(crate) fn resolve(&self, expr: &Expr) -> Result<Expr> {
        self.resolve_from(expr, 0)
    }

    fn resolve_from(&self, expr: &Expr, depth: usize) -> Result<Expr> {
        let mut expr = expr.clone();
        for (schema, columns) in self.projections.iter().skip(depth) {
            expr = expr
                .transform(|inner| match &inner {
                    Expr::Column(column) => match schema.maybe_index_of_column(column) {
                        Some(index) => Ok(Transformed::yes(unaliased(&columns[index]).clone())),
                        None => Ok(Transformed::no(inner)),
                    },
                    _ => Ok(Transformed::no(inner)),
                })?
                .data;
        }
        Ok(expr)
    }
}

/// An expression without the names it was given.
pub(crate) fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

/// The window that a plan is, if it is one.
pub(crate) fn window_of(plan: &LogicalPlan) -> Option<&WindowNode> {
    match plan {
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref::<WindowNode>(),
        _ => None,
    }
}
