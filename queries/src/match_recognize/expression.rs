//! An expression of DEFINE or MEASURES becomes one over columns: each place that looks at rows of the match is one.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{DFSchemaRef, DataFusionError, Result};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, ExprSchemable, cast};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Spanned, Value as SqlValue,
    VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::operand::{Aggregate, End, Operand};
use super::scope::{Scope, prepared};
use crate::error::nearest;
use crate::row_pattern::Variable;
use crate::tokens::mistake;
use crate::value::is_plain;

/// PREV, FIRST and LAST count at most so far: as many rows are kept for them.
const MAX_OFFSET: u64 = 1_000;

/// The pattern variables by number, with their names as SQL compares them.
pub(super) struct Variables {
    pub(super) names: Vec<String>,
}

impl Variables {
    pub(super) fn find(&self, name: &str) -> Option<Variable> {
        self.names
            .iter()
            .position(|found| found == name)
            .map(|index| index as Variable)
    }

    /// What was meant by a name that is none of them.
    pub(super) fn advice(&self, name: &str) -> String {
        match nearest(name, self.names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("PATTERN has: {}", self.names.join(", ")),
        }
    }
}

/// Where an expression stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// In DEFINE, for this variable: rows are judged one by one.
    Define(Variable),
    /// In MEASURES: the match is whole.
    Measures,
}

/// Reads expressions of one DEFINE or of MEASURES.
pub(super) struct Reader<'a, 'b> {
    pub(super) context: &'a mut (dyn RelationPlannerContext + 'b),
    pub(super) input: &'a DFSchemaRef,
    pub(super) variables: &'a Variables,
    /// The names of the variables as written, for CLASSIFIER().
    pub(super) shown: &'a [String],
    /// What is worked out for each row; shared by all expressions.
    pub(super) arguments: &'a mut Vec<Expr>,
    pub(super) role: Role,
    pub(super) scope: Scope,
}

impl<'a, 'b> Reader<'a, 'b> {
    /// Adds an expression; gives its type.
    pub(super) fn add(&mut self, mut sql: SqlExpr) -> Result<DataType> {
        let span = sql.span();
        if let ControlFlow::Break(error) = VisitMut::visit(&mut sql, self) {
            return Err(*error);
        }
        let schema = Arc::new(self.scope.schema()?);
        let expr = self.context.sql_to_expr(sql, &schema)?;
        let expr = prepared(expr, &schema, span)?;
        let data_type = expr.get_type(schema.as_ref())?;
        self.scope.expressions.push(expr);
        Ok(data_type)
    }

    /// The column that stands for an operand, written as `text`.
    fn column(&mut self, text: String, operand: Operand, data_type: DataType, span: Span) -> SqlExpr {
        if !self.scope.columns.iter().any(|(name, _)| *name == text) {
            self.scope.operands.push(operand);
            self.scope.columns.push((text.clone(), data_type));
        }
        SqlExpr::Identifier(Ident::with_quote_and_span('"', span, text))
    }

    /// The number of an expression over the row, the variable it names, and its type.
    fn argument(&mut self, sql: &SqlExpr) -> Result<(Option<Variable>, usize, DataType)> {
        let mut sql = sql.clone();
        let mut stripped = Stripped {
            reader: self,
            named: None,
        };
        if let ControlFlow::Break(error) = VisitMut::visit(&mut sql, &mut stripped) {
            return Err(*error);
        }
        let of = stripped.named.flatten();
        let span = sql.span();
        let expr = self.context.sql_to_expr(sql, self.input)?;
        let expr = prepared(expr, self.input, span)?;
        let data_type = expr.get_type(self.input.as_ref())?;
        Ok((of, self.argument_number(expr), data_type))
    }

    fn argument_number(&mut self, expr: Expr) -> usize {
        match self.arguments.iter().position(|found| *found == expr) {
            Some(index) => index,
            None => {
                self.arguments.push(expr);
                self.arguments.len() - 1
            }
        }
    }

    /// A row counted from the end, in the form that the role allows.
    fn row(&self, of: Option<Variable>, end: End, argument: usize, back: u64) -> Operand {
        match self.role {
            // The row that is judged is the last one, and is this variable.
            Role::Define(own) if end == End::Last(0) && of.is_none_or(|of| of == own) => {
                Operand::Current { argument, back }
            }
            _ => Operand::Row {
                of,
                end,
                argument,
                back,
            },
        }
    }

    fn replace(&mut self, expr: &mut SqlExpr) -> Result<()> {
        let span = expr.span();
        match expr {
            SqlExpr::Identifier(_) | SqlExpr::CompoundIdentifier(_) => {
                let (of, argument, data_type) = self.argument(expr)?;
                let operand = self.row(of, End::Last(0), argument, 0);
                *expr = self.column(expr.to_string(), operand, data_type, span);
            }
            SqlExpr::Function(function) => {
                if let Some(made) = self.function(function, span)? {
                    *expr = made;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn function(&mut self, function: &Function, span: Span) -> Result<Option<SqlExpr>> {
        let name = function.name.to_string().to_uppercase();
        let aggregate = match name.as_str() {
            "COUNT" => Aggregate::Values,
            "SUM" => Aggregate::Sum,
            "AVG" => Aggregate::Average,
            "MIN" => Aggregate::Least,
            "MAX" => Aggregate::Greatest,
            "FIRST" | "LAST" | "PREV" => return self.navigation(&name, function, span).map(Some),
            "NEXT" => {
                return Err(mistake(
                    span,
                    "NEXT looks at a row that may not have come yet",
                    "define a variable for that row and look back from it with PREV or LAST",
                ));
            }
            "CLASSIFIER" | "MATCH_NUMBER" => return self.of_match(&name, function, span).map(Some),
            _ => return Ok(None),
        };
        let arguments = plain_arguments(function, span)?;
        let [argument] = arguments.as_slice() else {
            return Err(mistake(
                span,
                format!("{name} has {} arguments", arguments.len()),
                format!("{name}(A.column) was expected"),
            ));
        };
        let text = function.to_string();
        let (of, aggregate, number, data_type) = match argument {
            FunctionArgExpr::Wildcard if name == "COUNT" => (None, Aggregate::Rows, 0, DataType::Int64),
            FunctionArgExpr::QualifiedWildcard(of) if name == "COUNT" => {
                let ident = of.0.first().and_then(|part| part.as_ident()).cloned();
                let of = ident.map(|ident| self.variable(&ident)).transpose()?;
                (of, Aggregate::Rows, 0, DataType::Int64)
            }
            FunctionArgExpr::Expr(sql) => {
                let (of, number, data_type) = self.argument(sql)?;
                let (number, data_type) = self.typed(aggregate, &name, number, &data_type, span)?;
                (of, aggregate, number, data_type)
            }
            _ => {
                return Err(mistake(
                    span,
                    format!("{name}(*) means nothing"),
                    format!("{name}(A.column) was expected"),
                ));
            }
        };
        let operand = Operand::Over {
            of,
            aggregate,
            argument: number,
        };
        Ok(Some(self.column(text, operand, data_type, span)))
    }

    /// The argument in a type that the aggregate takes, and the type of what it gives.
    fn typed(
        &mut self,
        aggregate: Aggregate,
        name: &str,
        number: usize,
        data_type: &DataType,
        span: Span,
    ) -> Result<(usize, DataType)> {
        let wanted = match aggregate {
            Aggregate::Rows | Aggregate::Values => return Ok((number, DataType::Int64)),
            Aggregate::Average if data_type.is_numeric() => DataType::Float64,
            _ if data_type.is_integer() => DataType::Int64,
            _ if data_type.is_numeric() => DataType::Float64,
            Aggregate::Least | Aggregate::Greatest if data_type.is_string() => DataType::Utf8,
            Aggregate::Least | Aggregate::Greatest if is_plain(data_type) => data_type.clone(),
            _ => {
                return Err(mistake(
                    span,
                    format!("{name} of {data_type} is not there"),
                    "numbers can be added, and numbers, texts, booleans and times compared: CAST what is none of them",
                ));
            }
        };
        if wanted == *data_type {
            return Ok((number, wanted));
        }
        let expr = cast(self.arguments[number].clone(), wanted.clone());
        Ok((self.argument_number(expr), wanted))
    }

    /// FIRST, LAST and PREV: each with how far, and FIRST and LAST also within PREV.
    fn navigation(&mut self, name: &str, function: &Function, span: Span) -> Result<SqlExpr> {
        let (argument, offset) = navigated(name, function, span)?;
        let offset = offset.unwrap_or(u64::from(name == "PREV"));
        let count = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let mut back = 0;
        let (mut end, mut inner) = match name {
            "FIRST" => (End::First(count(offset)), argument),
            "LAST" => (End::Last(count(offset)), argument),
            _ => {
                back = offset;
                (End::Last(0), argument)
            }
        };
        if name == "PREV"
            && let SqlExpr::Function(within) = &inner
        {
            let name = within.name.to_string().to_uppercase();
            if name == "FIRST" || name == "LAST" {
                let (argument, offset) = navigated(&name, within, span)?;
                let offset = count(offset.unwrap_or(0));
                end = if name == "FIRST" {
                    End::First(offset)
                } else {
                    End::Last(offset)
                };
                inner = argument;
            }
        }
        let (of, number, data_type) = self.argument(&inner)?;
        let operand = self.row(of, end, number, back);
        Ok(self.column(function.to_string(), operand, data_type, span))
    }

    fn of_match(&mut self, name: &str, function: &Function, span: Span) -> Result<SqlExpr> {
        if !plain_arguments(function, span)?.is_empty() {
            return Err(mistake(
                span,
                format!("{name} has an argument"),
                format!("{name}() was expected"),
            ));
        }
        let text = function.to_string();
        match (name, self.role) {
            ("CLASSIFIER", Role::Define(own)) => {
                let name = self.shown[own as usize].clone();
                Ok(SqlExpr::Value(SqlValue::SingleQuotedString(name).with_span(span)))
            }
            ("CLASSIFIER", Role::Measures) => Ok(self.column(text, Operand::Classifier, DataType::Utf8, span)),
            (_, Role::Measures) => Ok(self.column(text, Operand::MatchNumber, DataType::Int64, span)),
            _ => Err(mistake(
                span,
                "MATCH_NUMBER() in DEFINE: which number a match gets is known when it is found",
                "name it in MEASURES",
            )),
        }
    }

    fn variable(&self, ident: &Ident) -> Result<Variable> {
        let name = self.context.normalize_ident(ident.clone());
        self.variables.find(&name).ok_or_else(|| {
            let wrong = format!("there is no pattern variable '{name}'");
            mistake(ident.span, wrong, self.variables.advice(&name))
        })
    }
}

impl VisitorMut for Reader<'_, '_> {
    type Break = Box<DataFusionError>;

    fn pre_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<Self::Break> {
        match self.replace(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

/// Takes the variable off the columns of an argument: all of them must name the same, or none.
struct Stripped<'s, 'a, 'b> {
    reader: &'s Reader<'a, 'b>,
    /// What the first column named.
    named: Option<Option<Variable>>,
}

impl Stripped<'_, '_, '_> {
    fn strip(&mut self, expr: &mut SqlExpr) -> Result<()> {
        let (of, span) = match expr {
            SqlExpr::Identifier(ident) => (None, ident.span),
            SqlExpr::CompoundIdentifier(parts) => {
                let Some((first, column)) = parts.split_first() else {
                    return Ok(());
                };
                let name = self.reader.context.normalize_ident(first.clone());
                let is_table = self
                    .reader
                    .input
                    .iter()
                    .any(|(qualifier, _)| qualifier.is_some_and(|table| table.table() == name));
                if is_table && self.reader.variables.find(&name).is_none() {
                    (None, first.span)
                } else {
                    let (of, span) = (self.reader.variable(first)?, first.span);
                    *expr = match column {
                        [column] => SqlExpr::Identifier(column.clone()),
                        more => SqlExpr::CompoundIdentifier(more.to_vec()),
                    };
                    (Some(of), span)
                }
            }
            SqlExpr::Function(function) => {
                let name = function.name.to_string().to_uppercase();
                let looks = [
                    "FIRST",
                    "LAST",
                    "PREV",
                    "NEXT",
                    "CLASSIFIER",
                    "MATCH_NUMBER",
                    "COUNT",
                    "SUM",
                    "AVG",
                    "MIN",
                    "MAX",
                ];
                if looks.contains(&name.as_str()) {
                    return Err(mistake(
                        function.span(),
                        format!("{name} stands inside another that looks at rows"),
                        "PREV(FIRST(…)) and PREV(LAST(…)) can be; write the others beside each other",
                    ));
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        match self.named {
            None => self.named = Some(of),
            Some(named) if named == of => {}
            Some(_) => {
                return Err(mistake(
                    span,
                    "columns of different variables stand in one argument",
                    "each of FIRST, LAST, PREV and the aggregates looks at the rows of one variable",
                ));
            }
        }
        Ok(())
    }
}

impl VisitorMut for Stripped<'_, '_, '_> {
    type Break = Box<DataFusionError>;

    fn pre_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<Self::Break> {
        match self.strip(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

/// The arguments of a function that has nothing else about it.
fn plain_arguments(function: &Function, span: Span) -> Result<Vec<FunctionArgExpr>> {
    let FunctionArguments::List(list) = &function.args else {
        return Ok(Vec::new());
    };
    let is_plain = function.filter.is_none()
        && function.over.is_none()
        && function.within_group.is_empty()
        && function.null_treatment.is_none()
        && list.duplicate_treatment.is_none()
        && list.clauses.is_empty();
    let plain = list.args.iter().map(|argument| match argument {
        FunctionArg::Unnamed(argument) => Some(argument.clone()),
        _ => None,
    });
    match plain.collect::<Option<Vec<_>>>() {
        Some(arguments) if is_plain => Ok(arguments),
        _ => Err(mistake(
            span,
            format!("{function} has more to it than arguments"),
            "DISTINCT, FILTER, OVER and ORDER BY are not there inside MATCH_RECOGNIZE",
        )),
    }
}

/// The argument of FIRST, LAST or PREV, and how far where that is said.
fn navigated(name: &str, function: &Function, span: Span) -> Result<(SqlExpr, Option<u64>)> {
    let arguments = plain_arguments(function, span)?;
    let number = |sql: &SqlExpr| match sql {
        SqlExpr::Value(value) => match &value.value {
            SqlValue::Number(digits, _) => digits.to_string().parse::<u64>().ok(),
            _ => None,
        },
        _ => None,
    };
    match arguments.as_slice() {
        [FunctionArgExpr::Expr(sql)] => return Ok((sql.clone(), None)),
        [FunctionArgExpr::Expr(sql), FunctionArgExpr::Expr(offset)] => {
            if let Some(offset) = number(offset).filter(|offset| *offset <= MAX_OFFSET) {
                return Ok((sql.clone(), Some(offset)));
            }
        }
        _ => {}
    }
    Err(mistake(
        span,
        format!("{function} can't be read"),
        format!("{name}(A.column) or {name}(A.column, n) with n of at most {MAX_OFFSET} was expected"),
    ))
}
