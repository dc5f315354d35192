//! Plans MATCH_RECOGNIZE where a table may stand in FROM, and refuses what it can't be asked on a stream.

use std::sync::Arc;

use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, LogicalPlan};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{
    AfterMatchSkip, Expr as SqlExpr, Ident, MatchRecognizePattern, MatchRecognizeSymbol, Measure, OrderByExpr,
    RepetitionQuantifier, RowsPerMatch, Spanned, SymbolDefinition, TableFactor,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::expression::{Reader, Role, Variables};
use super::scope::{Scope, prepared};
use super::written::take;
use super::{MatchNode, Recognition, TIMED_OUT, name_of};
use crate::row_pattern::automaton::Automaton;
use crate::row_pattern::search::Skip;
use crate::row_pattern::{Pattern, Variable};
use crate::streams::time_type;
use crate::time_bound::length_us;
use crate::tokens::mistake;

/// A pattern with more variables than this is refused: each row keeps what it knows of each.
const MAX_VARIABLES: usize = 100;

/// Plans `table MATCH_RECOGNIZE (…)`.
#[derive(Debug)]
pub(crate) struct PatternPlanner;

impl RelationPlanner for PatternPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let whole = relation.span();
        let TableFactor::MatchRecognize {
            table,
            partition_by,
            order_by,
            measures,
            rows_per_match,
            after_match_skip,
            pattern,
            symbols,
            alias,
        } = relation
        else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let skip = skip(after_match_skip)?;
        if matches!(rows_per_match, Some(RowsPerMatch::AllRows(_))) {
            return Err(mistake(
                whole,
                "ALL ROWS PER MATCH is not there",
                "ONE ROW PER MATCH is; what its rows were can be told in MEASURES",
            ));
        }
        let input = context.plan(*table)?;
        let schema = Arc::clone(input.schema());
        let time = time_column(&order_by, &schema, whole, context)?;
        let partition_by = partition_by
            .into_iter()
            .map(|sql| {
                let span = sql.span();
                prepared(context.sql_to_expr(sql, &schema)?, &schema, span)
            })
            .collect::<Result<Vec<_>>>()?;

        let mut names = Names {
            variables: Variables { names: Vec::new() },
            shown: Vec::new(),
        };
        let text = pattern.to_string();
        let pattern_span = first_symbol(&pattern).map_or(whole, |ident| ident.span);
        let pattern = names.pattern(pattern, pattern_span, context)?;
        if names.shown.len() > MAX_VARIABLES {
            return Err(mistake(
                pattern_span,
                format!("PATTERN has {} variables", names.shown.len()),
                format!("at most {MAX_VARIABLES} can be told apart"),
            ));
        }
        Automaton::of(&pattern).map_err(|error| {
            mistake(
                pattern_span,
                error.to_string(),
                "ask for at least one row, and repeat parts a few times or without an upper limit",
            )
        })?;
        let (symbols, within, shows_timed_out) = take(symbols);
        let within_us = within.map(|sql| length(sql, context)).transpose()?;

        let mut taken: Vec<String> = partition_by.iter().map(name_of).collect();
        if shows_timed_out {
            taken.push(TIMED_OUT.to_owned());
        }
        for measure in &measures {
            let name = context.normalize_ident(measure.alias.clone());
            if taken.contains(&name) {
                return Err(mistake(
                    measure.alias.span,
                    format!("there is a column '{name}' already"),
                    "the columns of PARTITION BY come first in the output, then MEASURES, then timed_out where it is asked for",
                ));
            }
            taken.push(name);
        }

        let mut arguments = Vec::new();
        let define = names.define(symbols, &schema, &mut arguments, context)?;
        let (measure_names, measures) = names.measures(measures, &schema, &mut arguments, whole, context)?;
        let recognition = Recognition {
            partition_by,
            time,
            arguments,
            variables: names.shown,
            pattern,
            define,
            measures,
            measure_names,
            skip,
            within_us,
            shows_timed_out,
            text,
        };
        let plan = LogicalPlan::Extension(Extension {
            node: Arc::new(MatchNode::try_new(input, Arc::new(recognition))?),
        });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn skip(written: Option<AfterMatchSkip>) -> Result<Skip> {
    match written {
        None | Some(AfterMatchSkip::PastLastRow) => Ok(Skip::PastLastRow),
        Some(AfterMatchSkip::ToNextRow) => Ok(Skip::ToNextRow),
        Some(AfterMatchSkip::ToFirst(ident) | AfterMatchSkip::ToLast(ident)) => Err(mistake(
            ident.span,
            format!("AFTER MATCH SKIP TO '{ident}' is not there"),
            "AFTER MATCH SKIP PAST LAST ROW and AFTER MATCH SKIP TO NEXT ROW are",
        )),
    }
}

fn time_column(
    order_by: &[OrderByExpr],
    schema: &Arc<DFSchema>,
    whole: Span,
    context: &mut dyn RelationPlannerContext,
) -> Result<Expr> {
    let right =
        "ORDER BY event_time was expected: patterns go forward in event time, and the watermark is of this time";
    let [order] = order_by else {
        let span = order_by.get(1).map_or(whole, |order| order.expr.span());
        let wrong = format!("MATCH_RECOGNIZE is ordered by {} expressions", order_by.len());
        return Err(mistake(span, wrong, right));
    };
    let span = order.expr.span();
    if order.options.asc == Some(false) || order.options.nulls_first.is_some() || order.with_fill.is_some() {
        return Err(mistake(
            span,
            format!("ORDER BY {order} is no order that time goes in"),
            right,
        ));
    }
    let time = context.sql_to_expr(order.expr.clone(), schema)?;
    if !matches!(time, Expr::Column(_)) {
        return Err(mistake(span, format!("ORDER BY {} is no column", order.expr), right));
    }
    let data_type = time.get_type(schema.as_ref())?;
    if data_type != time_type() {
        return Err(mistake(
            span,
            format!("'{}' is {data_type} and no time", order.expr),
            right,
        ));
    }
    Ok(time)
}

fn first_symbol(pattern: &MatchRecognizePattern) -> Option<&Ident> {
    match pattern {
        MatchRecognizePattern::Symbol(MatchRecognizeSymbol::Named(ident))
        | MatchRecognizePattern::Exclude(MatchRecognizeSymbol::Named(ident)) => Some(ident),
        MatchRecognizePattern::Permute(symbols) => symbols.iter().find_map(|symbol| match symbol {
            MatchRecognizeSymbol::Named(ident) => Some(ident),
            _ => None,
        }),
        MatchRecognizePattern::Concat(parts) | MatchRecognizePattern::Alternation(parts) => {
            parts.iter().find_map(first_symbol)
        }
        MatchRecognizePattern::Group(part) | MatchRecognizePattern::Repetition(part, _) => first_symbol(part),
        _ => None,
    }
}

/// How long WITHIN is, microseconds.
fn length(sql: SqlExpr, context: &mut dyn RelationPlannerContext) -> Result<i64> {
    let (span, shown) = (sql.span(), sql.to_string());
    let right = "a length such as INTERVAL '10 minutes', of at most a hundred years, was expected";
    let expr = context.sql_to_expr(sql, &DFSchema::empty())?;
    let expr = ExprSimplifier::new(SimplifyContext::default()).simplify(expr)?;
    let us = match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) if interval.months != 0 => {
            let wrong = format!("WITHIN {shown} has no fixed length");
            return Err(mistake(span, wrong, "a month has none; say it in days or hours"));
        }
        Expr::Literal(literal, _) => length_us(&literal),
        _ => None,
    };
    us.filter(|us| (1..=100 * 366 * 86_400_000_000).contains(us))
        .ok_or_else(|| mistake(span, format!("WITHIN {shown} can't be"), right))
}

/// The variables as they are met in PATTERN.
struct Names {
    variables: Variables,
    shown: Vec<String>,
}

impl Names {
    fn number(&mut self, ident: Ident, context: &dyn RelationPlannerContext) -> Variable {
        let shown = ident.value.clone();
        let name = context.normalize_ident(ident);
        self.variables.find(&name).unwrap_or_else(|| {
            self.variables.names.push(name);
            self.shown.push(shown);
            (self.shown.len() - 1) as Variable
        })
    }

    fn pattern(
        &mut self,
        written: MatchRecognizePattern,
        span: Span,
        context: &dyn RelationPlannerContext,
    ) -> Result<Pattern> {
        let mut all = |parts: Vec<MatchRecognizePattern>| {
            parts
                .into_iter()
                .map(|part| self.pattern(part, span, context))
                .collect::<Result<Vec<_>>>()
        };
        Ok(match written {
            MatchRecognizePattern::Symbol(MatchRecognizeSymbol::Named(ident)) => {
                Pattern::Variable(self.number(ident, context))
            }
            MatchRecognizePattern::Symbol(anchor) => {
                return Err(mistake(
                    span,
                    format!("{anchor} stands in PATTERN, and a stream has no beginning and no end to stand for"),
                    "leave it out",
                ));
            }
            MatchRecognizePattern::Exclude(symbol) => {
                return Err(mistake(
                    span,
                    format!("{{- {symbol} -}} leaves rows out of ALL ROWS PER MATCH, which is not there"),
                    format!("{symbol} by itself matches the same rows"),
                ));
            }
            MatchRecognizePattern::Permute(_) => {
                return Err(mistake(
                    span,
                    "PERMUTE is not there",
                    "write the orders as alternatives: (A B | B A)",
                ));
            }
            MatchRecognizePattern::Concat(parts) => Pattern::Sequence(all(parts)?),
            MatchRecognizePattern::Alternation(parts) => Pattern::Alternatives(all(parts)?),
            MatchRecognizePattern::Group(part) => self.pattern(*part, span, context)?,
            MatchRecognizePattern::Repetition(part, quantifier) => {
                if matches!(*part, MatchRecognizePattern::Repetition(..)) {
                    return Err(mistake(
                        span,
                        format!("{part}{quantifier} has two quantifiers; quantifiers that take little are not there"),
                        "write one, or put parentheses around what is repeated again",
                    ));
                }
                let (least, most) = match quantifier {
                    RepetitionQuantifier::ZeroOrMore => (0, None),
                    RepetitionQuantifier::OneOrMore => (1, None),
                    RepetitionQuantifier::AtMostOne => (0, Some(1)),
                    RepetitionQuantifier::Exactly(count) => (count, Some(count)),
                    RepetitionQuantifier::AtLeast(least) => (least, None),
                    RepetitionQuantifier::AtMost(most) => (0, Some(most)),
                    RepetitionQuantifier::Range(least, most) => (least, Some(most)),
                };
                Pattern::Repeat(Box::new(self.pattern(*part, span, context)?), least, most)
            }
        })
    }

    fn reader<'a, 'b>(
        &'a self,
        role: Role,
        input: &'a Arc<DFSchema>,
        arguments: &'a mut Vec<Expr>,
        context: &'a mut (dyn RelationPlannerContext + 'b),
    ) -> Reader<'a, 'b> {
        Reader {
            context,
            input,
            variables: &self.variables,
            shown: &self.shown,
            arguments,
            role,
            scope: Scope {
                operands: Vec::new(),
                columns: Vec::new(),
                expressions: Vec::new(),
            },
        }
    }

    fn define(
        &self,
        symbols: Vec<SymbolDefinition>,
        input: &Arc<DFSchema>,
        arguments: &mut Vec<Expr>,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Vec<Option<Scope>>> {
        let mut define = vec![None; self.shown.len()];
        for SymbolDefinition { symbol, definition } in symbols {
            let name = context.normalize_ident(symbol.clone());
            let Some(variable) = self.variables.find(&name) else {
                let wrong = format!("DEFINE says what '{name}' is, and PATTERN has none");
                return Err(mistake(symbol.span, wrong, self.variables.advice(&name)));
            };
            if define[variable as usize].is_some() {
                let wrong = format!("DEFINE says twice what '{name}' is");
                return Err(mistake(symbol.span, wrong, "put AND between the conditions"));
            }
            let span = definition.span();
            let shown = definition.to_string();
            let mut reader = self.reader(Role::Define(variable), input, arguments, context);
            let data_type = reader.add(definition)?;
            if data_type != arrow::datatypes::DataType::Boolean {
                return Err(mistake(
                    span,
                    format!("'{shown}' is {data_type} and no condition"),
                    "DEFINE A AS A.results = 0 is one",
                ));
            }
            define[variable as usize] = Some(reader.scope);
        }
        Ok(define)
    }

    fn measures(
        &self,
        measures: Vec<Measure>,
        input: &Arc<DFSchema>,
        arguments: &mut Vec<Expr>,
        whole: Span,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<(Vec<String>, Scope)> {
        if measures.is_empty() {
            return Err(mistake(
                whole,
                "MATCH_RECOGNIZE has no MEASURES",
                "say what is to be known of a match: MEASURES FIRST(A.event_time) AS began, …",
            ));
        }
        let mut names = Vec::new();
        for measure in &measures {
            names.push(context.normalize_ident(measure.alias.clone()));
        }
        let mut reader = self.reader(Role::Measures, input, arguments, context);
        for measure in measures {
            reader.add(measure.expr)?;
        }
        Ok((names, reader.scope))
    }
}
