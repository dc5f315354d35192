//! `FOR SYSTEM_TIME AS OF`: by which time of a row the version of the reference table is chosen that it is joined with.
//!
//! sqlparser reads the clause in dialects only that DataFusion does not speak, and DataFusion would ignore it. So it is
//! taken out of the text and put into the join's ON as a condition of our own, which says no more than that the row has
//! a time: a bounded run, which has one version of a table, needs nothing else, and the compiler finds there which time
//! was meant.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err, plan_err};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Filter, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr as SqlExpr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    Ident, Join, JoinConstraint, JoinOperator, ObjectName, Select, TableFactor, TableWithJoins, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, TokenWithSpan};
use futures::FutureExt;

use crate::error::Position;
use crate::streams::time_type;
use crate::tokens::{is_word, mistake};

/// The condition's name; nobody writes a blank into a function's name by mistake.
const NAME: &str = "as of";
const FORM: &str = "FROM gate g JOIN zones FOR SYSTEM_TIME AS OF g.event_time z ON … was expected";

/// A clause as it was written.
pub(crate) struct Clause {
    /// What of the text it is.
    pub(crate) place: Range<Position>,
    span: Span,
    /// Where the name of the table, or its alias, stands right before it.
    behind: Location,
    time: SqlExpr,
}

impl Clause {
    /// The clause that begins at a token; `None` where none does.
    ///
    /// # Errors
    /// When it is no clause that we know.
    pub(crate) fn at(tokens: &[TokenWithSpan], at: usize) -> Result<Option<Self>> {
        if !is_word(tokens.get(at), "FOR") || !is_word(tokens.get(at + 1), "SYSTEM_TIME") {
            return Ok(None);
        }
        let span = tokens[at].span;
        if !is_word(tokens.get(at + 2), "AS") || !is_word(tokens.get(at + 3), "OF") {
            return Err(mistake(
                span,
                "FOR SYSTEM_TIME is followed by something else than AS OF",
                FORM,
            ));
        }
        let Some(before) = at.checked_sub(1).map(|index| &tokens[index]) else {
            return Err(mistake(span, "FOR SYSTEM_TIME AS OF stands behind no table", FORM));
        };
        let refused = || mistake(span, "FOR SYSTEM_TIME AS OF is followed by no time", FORM);
        if is_word(tokens.get(at + 4), "ON") {
            return Err(refused()); // the parser would take it for a column
        }
        let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(tokens[at + 4..].to_vec());
        let time = parser.parse_expr().map_err(|_| refused())?;
        let last = at + 3 + parser.index();
        let position = |at: Location| Position {
            line: at.line,
            column: at.column,
        };
        Ok(Some(Self {
            place: position(span.start)..position(tokens[last].span.end),
            span,
            behind: before.span.start,
            time,
        }))
    }
}

/// Puts clauses into the ON of the joins they belong to.
pub(crate) struct PutIn<'a> {
    pub(crate) state: &'a SessionState,
    pub(crate) clauses: Vec<Clause>,
}

impl PutIn<'_> {
    /// The clauses are all put in, or the first that belongs to no join is refused.
    ///
    /// # Errors
    /// Where such a clause stands.
    pub(crate) fn finish(self) -> Result<()> {
        match self.clauses.first() {
            None => Ok(()),
            Some(clause) => Err(mistake(
                clause.span,
                "FOR SYSTEM_TIME AS OF belongs to a reference table that a stream is joined with",
                FORM,
            )),
        }
    }

    /// Takes out the clause that stands behind a table or its alias.
    fn take(&mut self, relation: &TableFactor) -> Option<Clause> {
        let TableFactor::Table { name, alias, .. } = relation else {
            return None;
        };
        let name = name
            .0
            .last()
            .and_then(|part| part.as_ident())
            .map(|ident| ident.span.start);
        let alias = alias.as_ref().map(|alias| alias.name.span.start);
        let of_it = |clause: &Clause| [name, alias].contains(&Some(clause.behind));
        self.clauses
            .iter()
            .position(of_it)
            .map(|index| self.clauses.remove(index))
    }

    fn put_into_from(&mut self, from: &mut TableWithJoins) -> Result<()> {
        if let TableFactor::NestedJoin { table_with_joins, .. } = &mut from.relation {
            self.put_into_from(table_with_joins)?;
        }
        for join in &mut from.joins {
            if let TableFactor::NestedJoin { table_with_joins, .. } = &mut join.relation {
                self.put_into_from(table_with_joins)?;
            }
            if let Some(clause) = self.take(&join.relation) {
                self.put_into_join(join, clause)?;
            }
        }
        Ok(())
    }

    fn put_into_join(&self, join: &mut Join, clause: Clause) -> Result<()> {
        let TableFactor::Table { name, alias, .. } = &join.relation else {
            return Ok(());
        };
        let Some(table) = name.0.last().and_then(|part| part.as_ident()) else {
            return Ok(());
        };
        let qualifier = alias.as_ref().map_or(table, |alias| &alias.name);
        let constraint = match &mut join.join_operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::Left(constraint)
            | JoinOperator::LeftOuter(constraint)
            | JoinOperator::Right(constraint)
            | JoinOperator::RightOuter(constraint)
            | JoinOperator::FullOuter(constraint) => constraint,
            _ => return Err(without_on(clause.span)),
        };
        let JoinConstraint::On(before) = std::mem::replace(constraint, JoinConstraint::None) else {
            return Err(without_on(clause.span));
        };
        let written = if table.quote_style.is_some() {
            table.value.clone()
        } else {
            table.value.to_lowercase()
        };
        let provider = self.state.schema_for_ref("any")?.table(&written).now_or_never();
        let Some(Ok(Some(provider))) = provider else {
            // The planner's own words, which the name that was meant is added to.
            return Err(mistake(table.span, format!("table '{written}' not found"), FORM));
        };
        let schema = provider.schema();
        let Some(column) = schema.fields().first() else {
            return internal_err!("a reference table without columns");
        };
        let column = SqlExpr::CompoundIdentifier(vec![
            qualifier.clone(),
            Ident::with_quote_and_span('"', clause.span, column.name()),
        ]);
        let condition = SqlExpr::Function(Function {
            name: ObjectName::from(vec![Ident::with_quote_and_span('"', clause.span, NAME)]),
            uses_odbc_syntax: false,
            parameters: FunctionArguments::None,
            args: FunctionArguments::List(FunctionArgumentList {
                duplicate_treatment: None,
                args: [clause.time, column]
                    .map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)))
                    .into(),
                clauses: Vec::new(),
            }),
            filter: None,
            null_treatment: None,
            over: None,
            within_group: Vec::new(),
        });
        *constraint = JoinConstraint::On(SqlExpr::BinaryOp {
            left: Box::new(SqlExpr::Nested(Box::new(before))),
            op: BinaryOperator::And,
            right: Box::new(condition),
        });
        Ok(())
    }
}

fn without_on(span: Span) -> datafusion::common::DataFusionError {
    mistake(
        span,
        "FOR SYSTEM_TIME AS OF stands in a join without ON",
        "write what is equal into ON: JOIN zones FOR SYSTEM_TIME AS OF g.event_time z ON g.zone = z.zone",
    )
}

impl VisitorMut for PutIn<'_> {
    type Break = datafusion::common::DataFusionError;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        for from in &mut select.from {
            if let Err(error) = self.put_into_from(from) {
                return ControlFlow::Break(error);
            }
        }
        ControlFlow::Continue(())
    }
}

/// The condition as DataFusion knows it: true wherever there is a time.
#[derive(Debug, PartialEq, Eq, Hash)]
struct HasTime {
    signature: Signature,
}

impl ScalarUDFImpl for HasTime {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(time) = args.args.into_iter().next() else {
            return internal_err!("a condition without a time");
        };
        let time = time.into_array(args.number_rows)?;
        Ok(ColumnarValue::Array(Arc::new(arrow::compute::is_not_null(&time)?)))
    }
}

/// The condition, for a session. The column of the table among its arguments keeps it in the join: a condition over one
/// side alone would be moved there.
pub(crate) fn condition() -> ScalarUDF {
    ScalarUDF::from(HasTime {
        signature: Signature::any(2, Volatility::Immutable),
    })
}

/// The time that a condition of a join chooses a version by, and a column of the table whose version that is.
pub(crate) fn time_of(condition: &Expr) -> Option<(&Expr, &Expr)> {
    match condition {
        Expr::ScalarFunction(function) if function.func.name() == NAME => match function.args.as_slice() {
            [time, column] => Some((time, column)),
            _ => None,
        },
        _ => None,
    }
}

/// Looks at the conditions of a plan as it was written, and gives how many there are.
///
/// # Errors
/// When one has no time of the other side of its join.
pub(crate) fn check(plan: &LogicalPlan) -> Result<usize> {
    let mut found = 0;
    plan.apply_with_subqueries(|node| {
        let LogicalPlan::Join(join) = node else {
            return Ok(TreeNodeRecursion::Continue);
        };
        let conditions = join.filter.iter().flat_map(split_conjunction);
        for (time, column) in conditions.filter_map(time_of) {
            found += 1;
            let stream = if column.column_refs().iter().all(|column| join.left.schema().has_column(column)) {
                join.right.schema()
            } else {
                join.left.schema()
            };
            let columns = time.column_refs();
            if columns.is_empty() || columns.iter().any(|column| !stream.has_column(column)) {
                return Err(mistake(
                    span_of(time),
                    format!("FOR SYSTEM_TIME AS OF {time} is no time of the stream's rows"),
                    "each row is joined with the table as it was at a time of its own: FOR SYSTEM_TIME AS OF g.event_time",
                ));
            }
            let data_type = time.get_type(stream)?;
            if data_type != time_type() {
                return Err(mistake(
                    span_of(time),
                    format!("FOR SYSTEM_TIME AS OF {time} is {data_type} and no time"),
                    "a TIMESTAMP of the stream such as event_time was expected",
                ));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn span_of(time: &Expr) -> Span {
    let mut first = Span::empty();
    let columns = time.column_refs();
    let spans = columns.iter().filter_map(|column| column.spans().first());
    if let Some(span) = spans.min_by_key(|span| (span.start.line, span.start.column)) {
        first.start = Location::new(span.start.line, span.start.column);
        first.end = Location::new(span.end.line, span.end.column);
    }
    first
}

/// Takes the conditions out of filters, of an optimised plan of so many clauses: where a column of the table is equal to
/// one of the stream, the optimiser concludes that the condition holds of that one too, and asks for it twice.
///
/// # Errors
/// When one of the clauses is no longer to be found in its join.
pub(crate) fn in_joins_alone(plan: LogicalPlan, clauses: usize) -> Result<LogicalPlan> {
    let plan = plan.transform_down(|node| match node {
        LogicalPlan::Filter(filter) => {
            let conditions = split_conjunction(&filter.predicate);
            let kept: Vec<Expr> = conditions
                .iter()
                .filter(|condition| time_of(condition).is_none())
                .map(|condition| (*condition).clone())
                .collect();
            if kept.len() == conditions.len() {
                return Ok(Transformed::no(LogicalPlan::Filter(filter)));
            }
            match conjunction(kept) {
                Some(predicate) => {
                    let filter = Filter::try_new(predicate, filter.input)?;
                    Ok(Transformed::yes(LogicalPlan::Filter(filter)))
                }
                None => Ok(Transformed::yes(Arc::unwrap_or_clone(filter.input))),
            }
        }
        other => Ok(Transformed::no(other)),
    })?;
    let mut found = 0;
    plan.data.apply(|node| {
        if let LogicalPlan::Join(join) = node {
            let conditions = join.filter.iter().flat_map(split_conjunction);
            found += conditions.filter_map(time_of).count();
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if found < clauses {
        return plan_err!("FOR SYSTEM_TIME AS OF can't be followed through these joins; create a query of each");
    }
    Ok(plan.data)
}
