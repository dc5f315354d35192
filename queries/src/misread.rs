//! Refuses what sqlparser reads otherwise than SQL means it: `a IS DISTINCT FROM b AND c` would compare with `b AND c`.

use std::ops::ControlFlow;

use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr as SqlExpr, Spanned, Visit, visit_expressions};

use crate::tokens::mistake;

/// Looks at each expression of what was read.
///
/// # Errors
/// The first one that would mean something else than it says.
pub(crate) fn refuse(read: &impl Visit) -> Result<()> {
    let looked = visit_expressions(read, |expr| match expr {
        SqlExpr::IsDistinctFrom(_, right) => looked_at("IS DISTINCT FROM", right),
        SqlExpr::IsNotDistinctFrom(_, right) => looked_at("IS NOT DISTINCT FROM", right),
        _ => ControlFlow::Continue(()),
    });
    match looked {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// What stands in parentheses is another kind of expression, and meant as it is read.
fn looked_at(comparison: &str, right: &SqlExpr) -> ControlFlow<Box<DataFusionError>> {
    match right {
        SqlExpr::BinaryOp {
            op: op @ (BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Xor),
            ..
        } => ControlFlow::Break(Box::new(mistake(
            right.span(),
            format!("{comparison} would compare with all of '{right}'"),
            format!("put parentheses around the comparison: (a {comparison} b) {op} …"),
        ))),
        _ => ControlFlow::Continue(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::feeding::{mistake, queries};

    fn of(condition: &str) -> String {
        format!("CREATE QUERY q AS SELECT zone FROM gate WHERE {condition};")
    }

    #[test]
    fn a_comparison_that_would_reach_too_far_is_refused() {
        for (condition, wrong) in [
            (
                "zone IS DISTINCT FROM 'hall' AND entered > 0",
                "1:69: IS DISTINCT FROM would compare with all of ''hall' AND entered > 0', put parentheses around the \
                 comparison: (a IS DISTINCT FROM b) AND …",
            ),
            (
                "exited = 0 AND (zone IS NOT DISTINCT FROM device OR inside > 0)",
                "1:89: IS NOT DISTINCT FROM would compare with all of 'device OR inside > 0', put parentheses around the \
                 comparison: (a IS NOT DISTINCT FROM b) OR …",
            ),
        ] {
            assert_eq!(mistake("", &of(condition)), wrong);
        }
    }

    #[test]
    fn one_that_says_what_it_means_is_taken() {
        queries(&of("entered > 0 AND zone IS DISTINCT FROM 'hall'"));
        queries(&of("(zone IS DISTINCT FROM 'hall') AND entered > 0"));
        queries(&of("(entered > 0) IS NOT DISTINCT FROM (exited > 0 AND inside > 0)"));
    }

    #[test]
    fn conditions_of_alerts_are_looked_at_too() {
        let alert = "CREATE ALERT a WITH (subject = 'zone', raise = 'n > 0 IS DISTINCT FROM n > 1 AND n > 2') AS \
                     SELECT site, zone, entered AS n FROM gate;";
        let wrong = mistake("", alert);
        assert!(wrong.contains("would compare with all of 'n > 1 AND n > 2'"), "{wrong}");
        assert!(wrong.starts_with("1:"), "{wrong}");
    }
}
