//! Reads `TUMBLE`, `HOP`, `SESSION`, `DAY` and `OPENING`, plain or within `TABLE(…)`, where a table may stand in FROM.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use chrono_tz::Tz;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, DFSchema, Result, ScalarValue, plan_datafusion_err, plan_err};
use datafusion::datasource::{TableProvider, provider_as_source};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, TableAlias, TableFactor,
};

use super::{Gap, Hop, WindowNode, WindowSpec};
use crate::error::nearest;
use crate::streams::time_type;
use crate::time_bound::length_us;

/// More windows than this on one row are refused: each would be a row of its own.
const MAX_WINDOWS_PER_ROW: i64 = 10_000;
/// How long a session lasts at most where nobody says: longer is no visit but a device that never stops.
const DEFAULT_SESSION_MAX_US: i64 = 86_400_000_000;

/// Reads window calls in FROM.
#[derive(Debug)]
pub(crate) struct WindowPlanner {
    /// All relations by name: a name that stands only inside a window call is not resolved by the session.
    pub(crate) tables: Arc<BTreeMap<String, Arc<dyn TableProvider>>>,
}

impl RelationPlanner for WindowPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let Some((name, arguments, alias)) = call(&relation) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let Some(form) = Form::of(&name) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let node = form.plan(&self.tables, &arguments, context)?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// A call in FROM: its name in capitals, its arguments, its alias.
pub(crate) fn call(relation: &TableFactor) -> Option<(String, Vec<FunctionArg>, Option<TableAlias>)> {
    let (name, arguments, alias) = match relation {
        TableFactor::Table {
            name,
            args: Some(args),
            alias,
            ..
        } => (name, args.args.clone(), alias),
        TableFactor::Function { name, args, alias, .. } => (name, args.clone(), alias),
        TableFactor::TableFunction {
            expr: SqlExpr::Function(function),
            alias,
        } => {
            let FunctionArguments::List(list) = &function.args else {
                return None;
            };
            (&function.name, list.args.clone(), alias)
        }
        _ => return None,
    };
    Some((name.to_string().to_uppercase(), arguments, alias.clone()))
}

/// The expression that an argument of a call is, by place or by name.
pub(crate) fn argument(argument: &FunctionArg) -> Option<&SqlExpr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
        | FunctionArg::Named {
            arg: FunctionArgExpr::Expr(expr),
            ..
        }
        | FunctionArg::ExprNamed {
            arg: FunctionArgExpr::Expr(expr),
            ..
        } => Some(expr),
        _ => None,
    }
}

/// How a window is written: its name and its arguments in order, those that may be left out in brackets.
struct Form {
    name: &'static str,
    arguments: &'static [&'static str],
    needed: usize,
}

const FORMS: [Form; 5] = [
    Form {
        name: "TUMBLE",
        arguments: &["stream", "time", "size", "offset"],
        needed: 3,
    },
    Form {
        name: "HOP",
        arguments: &["stream", "time", "slide", "size", "offset"],
        needed: 4,
    },
    Form {
        name: "SESSION",
        arguments: &["stream", "time", "gap", "max"],
        needed: 3,
    },
    Form {
        name: "DAY",
        arguments: &["stream", "time", "zone"],
        needed: 3,
    },
    Form {
        name: "OPENING",
        arguments: &["stream", "time"],
        needed: 2,
    },
];

impl Form {
    fn of(name: &str) -> Option<&'static Self> {
        FORMS.iter().find(|form| form.name == name)
    }

    /// As people write it.
    fn shown(&self) -> String {
        let (needed, free) = self.arguments.split_at(self.needed);
        let free: String = free.iter().map(|argument| format!("[, {argument}]")).collect();
        format!("{}({}{free})", self.name, needed.join(", "))
    }

    /// The arguments in the order of the form, those with a name put where they belong.
    fn in_order(&self, written: &[FunctionArg]) -> Result<Vec<Option<SqlExpr>>> {
        let form = self.shown();
        let mut found: Vec<Option<SqlExpr>> = vec![None; self.arguments.len()];
        for (position, argument) in written.iter().enumerate() {
            let (name, value) = match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (None, value),
                FunctionArg::Named {
                    name,
                    arg: FunctionArgExpr::Expr(value),
                    ..
                } => (Some(name.value.to_lowercase()), value),
                FunctionArg::ExprNamed {
                    name,
                    arg: FunctionArgExpr::Expr(value),
                    ..
                } => (Some(name.to_string().to_lowercase()), value),
                other => return plan_err!("'{other}' is no argument here; {form} was expected"),
            };
            let at = match name {
                None => position,
                Some(name) => {
                    // The standard calls the stream DATA and the time column TIMECOL.
                    let known = match name.as_str() {
                        "data" => "stream",
                        "timecol" => "time",
                        name => name,
                    };
                    let at = self.arguments.iter().position(|argument| *argument == known);
                    at.ok_or_else(|| plan_datafusion_err!("there is no argument '{name}'; {form} was expected"))?
                }
            };
            match found.get_mut(at) {
                Some(place @ None) => *place = Some(value.clone()),
                Some(Some(_)) => return plan_err!("'{}' is there twice; {form} was expected", self.arguments[at]),
                None => {
                    return plan_err!("{} has {} arguments; {form} was expected", self.name, written.len());
                }
            }
        }
        if found.iter().take(self.needed).any(Option::is_none) {
            return plan_err!("{} has {} arguments; {form} was expected", self.name, written.len());
        }
        Ok(found)
    }

    fn plan(
        &self,
        tables: &BTreeMap<String, Arc<dyn TableProvider>>,
        written: &[FunctionArg],
        context: &mut dyn RelationPlannerContext,
    ) -> Result<WindowNode> {
        let form = self.shown();
        let (written, key) = self.without_key(written);
        let arguments = self.in_order(&written)?;
        let argument = |name: &str| {
            let at = self.arguments.iter().position(|argument| *argument == name)?;
            arguments[at].clone()
        };
        let needed = |name: &str| argument(name).ok_or_else(|| plan_datafusion_err!("{form} was expected"));
        let input = plan_input(tables, &needed("stream")?, &form, context)?;
        let time = plan_time(needed("time")?, self.name, &input, &form, context)?;
        let length = |name: &str, context: &mut dyn RelationPlannerContext| -> Result<Option<i64>> {
            let Some(sql) = argument(name) else { return Ok(None) };
            let shown = sql.to_string();
            let expr = context.sql_to_expr(sql, &DFSchema::empty())?;
            Ok(Some(interval_us(expr, &shown, name == "offset", &form)?))
        };
        let keys = match key {
            Some(key) => plan_keys(key, &input, context)?,
            None => Vec::new(),
        };
        let (size, slide) = (length("size", context)?, length("slide", context)?);
        let (offset, gap) = (length("offset", context)?, length("gap", context)?);
        let max = length("max", context)?;
        let (spec, keys) = match self.name {
            "SESSION" => {
                let gap_us = gap.ok_or_else(|| plan_datafusion_err!("{form} was expected"))?;
                let max_us = max.unwrap_or(DEFAULT_SESSION_MAX_US.max(gap_us));
                if max_us < gap_us {
                    return plan_err!("a session of SESSION would be cut before its gap is over; make max longer");
                }
                (WindowSpec::Session(Gap { gap_us, max_us }), keys)
            }
            "DAY" => (WindowSpec::Day(time_zone(&needed("zone")?)?), Vec::new()),
            "OPENING" => (WindowSpec::Opening, vec![site_of(&input)?]),
            _ => {
                let size_us = size.ok_or_else(|| plan_datafusion_err!("{form} was expected"))?;
                let slide_us = slide.unwrap_or(size_us);
                let windows = size_us / slide_us;
                if windows > MAX_WINDOWS_PER_ROW {
                    return plan_err!(
                        "each row would lie in {windows} windows; at most {MAX_WINDOWS_PER_ROW} are kept: make the slide longer"
                    );
                }
                let hop = Hop {
                    size_us,
                    slide_us,
                    offset_us: offset.unwrap_or(0).rem_euclid(slide_us),
                };
                (WindowSpec::Hop(hop), Vec::new())
            }
        };
        WindowNode::try_new(input, time, keys, spec)
    }

    /// `SESSION(stream, time, key, gap)` names the key before the gap: taken out, so that the rest has its order.
    fn without_key(&self, written: &[FunctionArg]) -> (Vec<FunctionArg>, Option<SqlExpr>) {
        let mut rest = written.to_vec();
        let is_key = |argument: &FunctionArg| match argument {
            FunctionArg::Named { name, .. } => name.value.eq_ignore_ascii_case("key"),
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => {
                let value = match value {
                    SqlExpr::Nested(inner) => inner,
                    value => value,
                };
                matches!(
                    value,
                    SqlExpr::Identifier(_) | SqlExpr::CompoundIdentifier(_) | SqlExpr::Tuple(_)
                )
            }
            _ => false,
        };
        if self.name != "SESSION" {
            return (rest, None);
        }
        match (2..rest.len()).find(|at| is_key(&rest[*at])) {
            Some(at) => match rest.remove(at) {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(key))
                | FunctionArg::Named {
                    arg: FunctionArgExpr::Expr(key),
                    ..
                } => (rest, Some(key)),
                _ => (rest, None),
            },
            None => (rest, None),
        }
    }
}

/// The column that is named as time, or within `DESCRIPTOR(…)`, the standard's way to name it.
pub(crate) fn plan_time(
    sql: SqlExpr,
    name: &str,
    input: &LogicalPlan,
    form: &str,
    context: &mut dyn RelationPlannerContext,
) -> Result<Expr> {
    let column = match &sql {
        SqlExpr::Function(function) if function.name.to_string().eq_ignore_ascii_case("descriptor") => {
            match &function.args {
                FunctionArguments::List(list) => match list.args.as_slice() {
                    [FunctionArg::Unnamed(FunctionArgExpr::Expr(column))] => column.clone(),
                    _ => return plan_err!("DESCRIPTOR names one column; {form} was expected"),
                },
                _ => return plan_err!("DESCRIPTOR names one column; {form} was expected"),
            }
        }
        _ => sql,
    };
    let time = context.sql_to_expr(column, input.schema())?;
    if !matches!(time, Expr::Column(_)) {
        return plan_err!("'{time}' is no column; the second argument of {name} is the time column of the stream");
    }
    let data_type = time.get_type(input.schema().as_ref())?;
    if data_type != time_type() {
        return plan_err!("'{time}' is {data_type}, and windows need a time; {form} was expected");
    }
    Ok(time)
}

/// One key, or several in brackets.
pub(crate) fn plan_keys(
    key: SqlExpr,
    input: &LogicalPlan,
    context: &mut dyn RelationPlannerContext,
) -> Result<Vec<Expr>> {
    let written = match key {
        SqlExpr::Tuple(keys) => keys,
        SqlExpr::Nested(key) => vec![*key],
        key => vec![key],
    };
    written
        .into_iter()
        .map(|key| context.sql_to_expr(key, input.schema()))
        .collect()
}

/// `OPENING` asks each row for its site.
fn site_of(input: &LogicalPlan) -> Result<Expr> {
    let schema = input.schema();
    let site = schema
        .iter()
        .find(|(_, field)| field.name() == "site" && *field.data_type() == DataType::Utf8);
    match site {
        Some((qualifier, field)) => Ok(Expr::Column(Column::new(qualifier.cloned(), field.name()))),
        None => plan_err!("OPENING follows the hours of each row's site, and the stream has no column 'site'"),
    }
}

fn time_zone(sql: &SqlExpr) -> Result<Tz> {
    let text = match sql {
        SqlExpr::Value(value) => value.value.clone().into_string(),
        _ => None,
    };
    let Some(text) = text else {
        return plan_err!("{sql} is no time zone; a name such as 'Europe/Copenhagen' was expected");
    };
    text.parse().map_err(|_| {
        let names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
        match nearest(&text, names) {
            Some(near) => plan_datafusion_err!("there is no time zone '{text}'; did you mean '{near}'?"),
            None => {
                plan_datafusion_err!("there is no time zone '{text}'; a name such as 'Europe/Copenhagen' was expected")
            }
        }
    })
}

/// The relation a window reads: a name, or a query in brackets.
pub(crate) fn plan_input(
    tables: &BTreeMap<String, Arc<dyn TableProvider>>,
    sql: &SqlExpr,
    form: &str,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let table = |name: ObjectName| TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    };
    match sql {
        SqlExpr::Identifier(ident) => {
            let name = context.normalize_ident(ident.clone());
            match tables.get(&name) {
                Some(provider) => {
                    LogicalPlanBuilder::scan(name, provider_as_source(Arc::clone(provider)), None)?.build()
                }
                // Not a relation: the name of a WITH clause, or a mistake that the session words well.
                None => context.plan(table(ObjectName::from(vec![ident.clone()]))),
            }
        }
        SqlExpr::CompoundIdentifier(parts) => context.plan(table(ObjectName::from(parts.clone()))),
        SqlExpr::Subquery(query) => context.plan(TableFactor::Derived {
            lateral: false,
            subquery: query.clone(),
            alias: None,
            sample: None,
        }),
        SqlExpr::Nested(inner) => plan_input(tables, inner, form, context),
        other => plan_err!("'{other}' is no stream; {form} was expected"),
    }
}

/// A length of time in microseconds; more than nothing, but for an offset. `shown` is how it is written.
pub(crate) fn interval_us(expr: Expr, shown: &str, is_offset: bool, form: &str) -> Result<i64> {
    let literal = if matches!(expr, Expr::Literal(..)) || expr.exists(|e| Ok(matches!(e, Expr::Column(_))))? {
        expr
    } else {
        ExprSimplifier::new(SimplifyContext::default()).simplify(expr)?
    };
    let us = match literal {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) if interval.months != 0 => {
            return plan_err!("{shown}: a month has no fixed length; say it in days or hours");
        }
        Expr::Literal(interval @ (ScalarValue::IntervalMonthDayNano(_) | ScalarValue::IntervalDayTime(_)), _) => {
            // More than an i64 holds is more than a hundred years, and less than a microsecond is nothing.
            length_us(&interval).unwrap_or(0)
        }
        _ => return plan_err!("{shown} is no length of time such as INTERVAL '10 seconds'; {form} was expected"),
    };
    // A century bounds what arithmetic on event times may meet.
    if (us <= 0 && !is_offset) || us.abs() > 100 * 366 * 86_400_000_000 {
        return plan_err!("{shown}: a length of time here is more than nothing and at most a hundred years");
    }
    Ok(us)
}
