//! `ABSENT` in FROM: how it is written, what it means, and the logical node that stands for it.
//!
//! `ABSENT(stream, time, key, for)` has a row for each row of the stream after which its key was silent for so long:
//! the next row of the key comes that much later, or never.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::{DFSchema, DFSchemaRef, Result, plan_err};
use datafusion::datasource::TableProvider;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, FunctionArg, FunctionArguments, TableAlias, TableFactor};

use crate::streams::time_type;
use crate::time_bound::shown_us;
use crate::window::planning::{argument, call, interval_us, plan_input};

/// The column that tells when a key had been silent for so long.
pub const ABSENT_AT: &str = "absent_at";

const FORM: &str = "ABSENT(stream, time, key, for) with one key or several, as in (site, device),";

/// The logical node: rows of its input after which their key was silent, with `absent_at` added.
#[derive(Debug, Clone)]
pub(crate) struct AbsentNode {
    /// Where its rows come from.
    pub(crate) input: Arc<LogicalPlan>,
    /// When a row was.
    pub(crate) time: Expr,
    /// Who may be silent.
    pub(crate) keys: Vec<Expr>,
    /// How long a key must be silent, microseconds.
    pub(crate) for_us: i64,
    schema: DFSchemaRef,
}

impl AbsentNode {
    fn try_new(input: LogicalPlan, time: Expr, keys: Vec<Expr>, for_us: i64) -> Result<Self> {
        let mut fields: Vec<_> = input
            .schema()
            .iter()
            .map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)))
            .collect();
        if fields.iter().any(|(_, field)| field.name() == ABSENT_AT) {
            return plan_err!("the input of ABSENT has a column '{ABSENT_AT}' already; rename it with AS");
        }
        let qualifier = fields.first().and_then(|(qualifier, _)| qualifier.clone());
        fields.push((qualifier, Arc::new(Field::new(ABSENT_AT, time_type(), false))));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(Self {
            input: Arc::new(input),
            time,
            keys,
            for_us,
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

impl PartialEq for AbsentNode {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input && self.time == other.time && self.keys == other.keys && self.for_us == other.for_us
    }
}
impl Eq for AbsentNode {}
impl Hash for AbsentNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.time.hash(state);
        self.keys.hash(state);
        self.for_us.hash(state);
    }
}
impl PartialOrd for AbsentNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.for_us.partial_cmp(&other.for_us)
    }
}

impl UserDefinedLogicalNodeCore for AbsentNode {
    fn name(&self) -> &str {
        "Absent"
    }
    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }
    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }
    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.time).chain(&self.keys).cloned().collect()
    }
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        // A condition that took rows away below would make keys silent that are not.
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        write!(
            f,
            "Absent: ({}) for {} on {}",
            keys.join(", "),
            shown_us(self.for_us),
            self.time
        )
    }
    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let keys = exprs.split_off(1);
        Self::try_new(inputs.swap_remove(0), exprs.swap_remove(0), keys, self.for_us)
    }
}

/// Reads `ABSENT(…)`, also within `TABLE(…)`, where a table may stand in FROM.
#[derive(Debug)]
pub(crate) struct AbsentPlanner {
    /// All relations by name: a name that stands only inside a call is not resolved by the session.
    pub(crate) tables: Arc<BTreeMap<String, Arc<dyn TableProvider>>>,
}

impl RelationPlanner for AbsentPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        match call(&relation) {
            Some((name, arguments, alias)) if name == "ABSENT" => plan_absent(&self.tables, &arguments, alias, context),
            _ => Ok(RelationPlanning::Original(Box::new(relation))),
        }
    }
}

fn plan_absent(
    tables: &BTreeMap<String, Arc<dyn TableProvider>>,
    arguments: &[FunctionArg],
    alias: Option<TableAlias>,
    context: &mut dyn RelationPlannerContext,
) -> Result<RelationPlanning> {
    let arguments: Vec<SqlExpr> = arguments.iter().filter_map(argument).cloned().collect();
    let [stream, time, key, length] = arguments.as_slice() else {
        return plan_err!("ABSENT has {} arguments; {FORM} was expected", arguments.len());
    };
    let input = plan_input(tables, stream, FORM, context)?;
    let times = listed(time);
    let [time] = times.as_slice() else {
        return plan_err!("ABSENT has {} times; {FORM} was expected", times.len());
    };
    let time = context.sql_to_expr(time.clone(), input.schema())?;
    if !matches!(time, Expr::Column(_)) {
        return plan_err!("'{time}' is no column; the second argument of ABSENT is the time column of the stream");
    }
    let data_type = time.get_type(input.schema().as_ref())?;
    if data_type != time_type() {
        return plan_err!("'{time}' is {data_type}, and silence is measured by a time; {FORM} was expected");
    }
    let mut keys = Vec::new();
    for key in listed(key) {
        let key = context.sql_to_expr(key, input.schema())?;
        if key.column_refs().is_empty() {
            return plan_err!(
                "'{key}' is the same for all rows; the third argument of ABSENT tells who is silent: {FORM} was expected"
            );
        }
        keys.push(key);
    }
    if keys.is_empty() {
        return plan_err!("ABSENT has no key; {FORM} was expected");
    }
    let shown = length.to_string();
    let length = context.sql_to_expr(length.clone(), &DFSchema::empty())?;
    let for_us = interval_us(length, &shown, false, FORM)?;
    let plan = LogicalPlan::Extension(Extension {
        node: Arc::new(AbsentNode::try_new(input, time, keys, for_us)?),
    });
    Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
}

/// What an argument lists: `(a, b)`, the standard's `DESCRIPTOR(a, b)`, or one by itself.
fn listed(sql: &SqlExpr) -> Vec<SqlExpr> {
    match sql {
        SqlExpr::Tuple(several) => several.clone(),
        SqlExpr::Nested(one) => listed(one),
        SqlExpr::Function(function) if function.name.to_string().eq_ignore_ascii_case("descriptor") => {
            match &function.args {
                FunctionArguments::List(list) => list.args.iter().filter_map(argument).cloned().collect(),
                _ => Vec::new(),
            }
        }
        one => vec![one.clone()],
    }
}
