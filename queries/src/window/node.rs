//! The logical node that stands for windows in a plan.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, DFSchemaRef, Result, plan_err};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

use super::{AMENDED, FINAL, WINDOW_COLUMNS, WINDOW_END, WINDOW_START, WindowSpec};
use crate::streams::time_type;

/// Its input with `window_start`, `window_end`, `final` and `amended` added, a row for each window it lies in.
#[derive(Debug, Clone)]
pub(crate) struct WindowNode {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) time: Expr,
    /// What rows have to have in common: for `OPENING` the site, for `SESSION` the keys that were written.
    pub(crate) keys: Vec<Expr>,
    pub(crate) spec: WindowSpec,
    schema: DFSchemaRef,
}

impl WindowNode {
    pub(crate) fn try_new(input: LogicalPlan, time: Expr, keys: Vec<Expr>, spec: WindowSpec) -> Result<Self> {
        let mut fields: Vec<_> = input
            .schema()
            .iter()
            .map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)))
            .collect();
        let qualifier = fields.first().and_then(|(qualifier, _)| qualifier.clone());
        for name in WINDOW_COLUMNS {
            if fields.iter().any(|(_, field)| field.name() == name) {
                return plan_err!("the input of a window has a column '{name}' already; rename it with AS");
            }
            let data_type = match name {
                WINDOW_START | WINDOW_END => time_type(),
                FINAL | AMENDED => DataType::Boolean,
                _ => continue,
            };
            fields.push((qualifier.clone(), Arc::new(Field::new(name, data_type, false))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(Self {
            input: Arc::new(input),
            time,
            keys,
            spec,
            schema,
        })
    }
}

impl PartialEq for WindowNode {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input && self.time == other.time && self.keys == other.keys && self.spec == other.spec
    }
}
impl Eq for WindowNode {}
impl Hash for WindowNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.time.hash(state);
        self.keys.hash(state);
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
        [std::slice::from_ref(&self.time), &self.keys].concat()
    }
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        // Everything but the window's own columns may be filtered before rows are put into windows. What a session is
        // depends on the rows that are there; it is made of those that the WHERE above it lets through.
        WINDOW_COLUMNS.into_iter().map(str::to_owned).collect()
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Window: {} on {}", self.spec, self.time)
    }
    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let keys = exprs.split_off(1);
        Self::try_new(inputs.swap_remove(0), exprs.swap_remove(0), keys, self.spec)
    }
}
