//! `TUMBLE` and `HOP` in FROM: how they are written, what they mean, and the logical node that stands for them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::Field;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, DFSchemaRef, Result, ScalarValue, plan_err};
use datafusion::datasource::{TableProvider, provider_as_source};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, TableAlias, TableFactor,
};

use crate::streams::time_type;

/// The column that tells a window's beginning.
pub const WINDOW_START: &str = "window_start";
/// The column that tells a window's end, which is not part of it.
pub const WINDOW_END: &str = "window_end";
/// More windows than this on one row are refused: each would be a row of its own.
const MAX_WINDOWS_PER_ROW: i64 = 10_000;

/// Windows of one size, a slide apart; a tumbling window's slide is its size. Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowSpec {
    /// How long a window is.
    pub size_us: i64,
    /// How far apart windows begin.
    pub slide_us: i64,
}

impl WindowSpec {
    /// The beginnings of the windows that hold `time`, latest first.
    pub fn starts(self, time: i64) -> impl Iterator<Item = i64> {
        let latest = time.div_euclid(self.slide_us).saturating_mul(self.slide_us);
        (0..)
            .map(move |back| latest - back * self.slide_us)
            .take_while(move |start| *start > time - self.size_us)
    }

    /// Whether windows lie side by side, each row in exactly one.
    pub fn is_tumbling(self) -> bool {
        self.size_us == self.slide_us
    }

    /// The width of a pane: every window is a whole number of them.
    pub fn pane_us(self) -> i64 {
        let (mut a, mut b) = (self.size_us, self.slide_us);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    }
}

impl fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |us: i64| humantime::format_duration(std::time::Duration::from_micros(us.unsigned_abs()));
        if self.is_tumbling() {
            write!(f, "TUMBLE {}", shown(self.size_us))
        } else {
            write!(f, "HOP every {} over {}", shown(self.slide_us), shown(self.size_us))
        }
    }
}

/// The logical node: its input with `window_start` and `window_end` added, a row for each window it lies in.
#[derive(Debug, Clone)]
pub(crate) struct WindowNode {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) time: Expr,
    pub(crate) spec: WindowSpec,
    schema: DFSchemaRef,
}

impl WindowNode {
    pub(crate) fn try_new(input: LogicalPlan, time: Expr, spec: WindowSpec) -> Result<Self> {
        let mut fields: Vec<_> = input
            .schema()
            .iter()
            .map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)))
            .collect();
        let qualifier = fields.first().and_then(|(qualifier, _)| qualifier.clone());
        for name in [WINDOW_START, WINDOW_END] {
            if fields.iter().any(|(_, field)| field.name() == name) {
                return plan_err!("the input of a window has a column '{name}' already; rename it with AS");
            }
            fields.push((qualifier.clone(), Arc::new(Field::new(name, time_type(), false))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(Self {
            input: Arc::new(input),
            time,
            spec,
            schema,
        })
    }
}

impl PartialEq for WindowNode {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input && self.time == other.time && self.spec == other.spec
    }
}
impl Eq for WindowNode {}
impl Hash for WindowNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.time.hash(state);
        self.spec.hash(state);
    }
}
impl PartialOrd for WindowNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.spec.partial_cmp(&other.spec)
    }
}

impl UserDefinedLogicalNodeCore for WindowNode {
    fn name(&self) -> &str {
        "Window"
    }
    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }
    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }
    fn expressions(&self) -> Vec<Expr> {
        vec![self.time.clone()]
    }
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        // Everything but the window's own columns may be filtered before rows are put into windows.
        HashSet::from([WINDOW_START.to_owned(), WINDOW_END.to_owned()])
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Window: {} on {}", self.spec, self.time)
    }
    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        Self::try_new(inputs.swap_remove(0), exprs.swap_remove(0), self.spec)
    }
}

/// Which row goes into which window: indices of rows (repeated), and the windows' beginnings and ends beside them.
pub(crate) fn expand(times: &[i64], spec: WindowSpec) -> (UInt32Array, ArrayRef, ArrayRef) {
    let (mut rows, mut starts) = (Vec::with_capacity(times.len()), Vec::with_capacity(times.len()));
    for (row, time) in (0u32..).zip(times) {
        for start in spec.starts(*time) {
            rows.push(row);
            starts.push(start);
        }
    }
    let ends: Vec<i64> = starts.iter().map(|start| start + spec.size_us).collect();
    (
        UInt32Array::from(rows),
        Arc::new(TimestampMicrosecondArray::from(starts)),
        Arc::new(TimestampMicrosecondArray::from(ends)),
    )
}

/// Reads `TUMBLE(…)` and `HOP(…)`, and both within `TABLE(…)`, where a table may stand in FROM.
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
        match call(&relation, &["TUMBLE", "HOP", "SESSION"]) {
            Some((name, arguments, alias)) => plan_window(&self.tables, &name, arguments, alias, context),
            None => Ok(RelationPlanning::Original(Box::new(relation))),
        }
    }
}

/// A call of one of `names` in FROM: its name in capitals, its arguments, its alias.
pub(crate) fn call(relation: &TableFactor, names: &[&str]) -> Option<(String, Vec<FunctionArg>, Option<TableAlias>)> {
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
    let name = name.to_string().to_uppercase();
    names.contains(&name.as_str()).then(|| (name, arguments, alias.clone()))
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

fn plan_window(
    tables: &BTreeMap<String, Arc<dyn TableProvider>>,
    name: &str,
    arguments: Vec<FunctionArg>,
    alias: Option<TableAlias>,
    context: &mut dyn RelationPlannerContext,
) -> Result<RelationPlanning> {
    let form = match name {
        "TUMBLE" => "TUMBLE(stream, time, size)",
        "HOP" => "HOP(stream, time, slide, size)",
        _ => return plan_err!("SESSION windows are not there yet; TUMBLE and HOP are"),
    };
    let arguments: Vec<SqlExpr> = arguments.iter().filter_map(argument).cloned().collect();
    let wanted = if name == "TUMBLE" { 3 } else { 4 };
    if arguments.len() != wanted {
        return plan_err!("{name} has {} arguments; {form} was expected", arguments.len());
    }
    let input = plan_input(tables, &arguments[0], form, context)?;
    let time_sql = match &arguments[1] {
        // DESCRIPTOR(time) is the standard's way to name the column.
        SqlExpr::Function(function) if function.name.to_string().eq_ignore_ascii_case("descriptor") => {
            match &function.args {
                FunctionArguments::List(list) => list.args.first().and_then(argument).cloned(),
                _ => None,
            }
        }
        other => Some(other.clone()),
    };
    let Some(time_sql) = time_sql else {
        return plan_err!("DESCRIPTOR names one column; {form} was expected");
    };
    let time = context.sql_to_expr(time_sql, input.schema())?;
    if !matches!(time, Expr::Column(_)) {
        return plan_err!("'{time}' is no column; the second argument of {name} is the time column of the stream");
    }
    let data_type = time.get_type(input.schema().as_ref())?;
    if data_type != time_type() {
        return plan_err!("'{time}' is {data_type}, and windows need a time; {form} was expected");
    }
    let mut lengths = Vec::new();
    for sql in &arguments[2..] {
        let expr = context.sql_to_expr(sql.clone(), &DFSchema::empty())?;
        lengths.push(interval_us(expr, form)?);
    }
    let spec = match lengths.as_slice() {
        [size] => WindowSpec {
            size_us: *size,
            slide_us: *size,
        },
        [slide, size] => WindowSpec {
            size_us: *size,
            slide_us: *slide,
        },
        _ => return plan_err!("{form} was expected"),
    };
    if spec.size_us / spec.slide_us > MAX_WINDOWS_PER_ROW {
        return plan_err!(
            "each row would lie in {} windows; at most {MAX_WINDOWS_PER_ROW} are kept: make the slide longer",
            spec.size_us / spec.slide_us
        );
    }
    let plan = LogicalPlan::Extension(Extension {
        node: Arc::new(WindowNode::try_new(input, time, spec)?),
    });
    Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
}

/// The stream, table or subquery that a call in FROM reads; `form` is how the call is written.
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
        other => plan_err!("'{other}' is no stream; {form} was expected"),
    }
}

/// A length of time in microseconds; `form` is how the call is written in which it stands.
pub(crate) fn interval_us(expr: Expr, form: &str) -> Result<i64> {
    let shown = expr.to_string();
    let literal = if matches!(expr, Expr::Literal(..)) || expr.exists(|e| Ok(matches!(e, Expr::Column(_))))? {
        expr
    } else {
        ExprSimplifier::new(SimplifyContext::default()).simplify(expr)?
    };
    let us = match literal {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => {
            if interval.months != 0 {
                return plan_err!("{shown}: a month has no fixed length; say it in days or hours");
            }
            i64::from(interval.days) * 86_400_000_000 + interval.nanoseconds / 1_000
        }
        Expr::Literal(ScalarValue::IntervalDayTime(Some(interval)), _) => {
            i64::from(interval.days) * 86_400_000_000 + i64::from(interval.milliseconds) * 1_000
        }
        _ => return plan_err!("{shown} is no length of time such as INTERVAL '10 seconds'; {form} was expected"),
    };
    // A century bounds what arithmetic on event times may meet.
    if us <= 0 || us > 100 * 366 * 86_400_000_000 {
        return plan_err!("{shown}: a length of time here is more than nothing and at most a hundred years");
    }
    Ok(us)
}

#[cfg(test)]
mod tests {
    use super::WindowSpec;

    #[test]
    fn a_time_lies_in_each_window_that_covers_it_and_in_no_other() {
        let spec = WindowSpec {
            size_us: 60,
            slide_us: 10,
        };
        assert_eq!(spec.starts(59).collect::<Vec<_>>(), vec![50, 40, 30, 20, 10, 0]);
        assert_eq!(spec.starts(60).collect::<Vec<_>>(), vec![60, 50, 40, 30, 20, 10]);
        assert_eq!(spec.starts(-1).collect::<Vec<_>>(), vec![-10, -20, -30, -40, -50, -60]);
    }

    #[test]
    fn a_slide_longer_than_the_size_leaves_gaps() {
        let spec = WindowSpec {
            size_us: 10,
            slide_us: 60,
        };
        assert_eq!(spec.starts(5).collect::<Vec<_>>(), vec![0]);
        assert_eq!(spec.starts(10).collect::<Vec<_>>(), Vec::<i64>::new());
    }

    #[test]
    fn a_size_need_not_be_a_multiple_of_the_slide() {
        let spec = WindowSpec {
            size_us: 25,
            slide_us: 10,
        };
        assert_eq!(spec.starts(24).collect::<Vec<_>>(), vec![20, 10, 0]);
        assert_eq!(spec.starts(25).collect::<Vec<_>>(), vec![20, 10]);
        assert_eq!(spec.pane_us(), 5);
    }
}
