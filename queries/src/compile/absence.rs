//! How ABSENT is compiled.

use std::sync::Arc;

use datafusion::logical_expr::{ExprSchemable, LogicalPlan};

use super::{Compiler, amending_source};
use crate::absence::{Absence, AbsencePlan};
use crate::absent::AbsentNode;
use crate::error::QueryError;
use crate::key_bytes::KeyBytes;

impl Compiler<'_> {
    /// Adds the operator of `node`, which is `plan`.
    pub(super) fn absence(&mut self, node: &AbsentNode, plan: &LogicalPlan) -> Result<usize, QueryError> {
        if let Some(name) = amending_source(self.catalog, &node.input) {
            return Err(self.at(&name).mistake(
                format!("'{name}' says rows again when they change, which is no sign of life"),
                "read its rows WHERE final, create it WITH (emit = 'close') and without lateness, or ask for the absence in the stream itself",
            ));
        }
        let grouped = (self.windowed, self.running);
        (self.windowed, self.running) = (false, false);
        let child = self.node(&node.input)?;
        if self.windowed || self.running {
            return Err(self.at("ABSENT").mistake(
                "the input of ABSENT is a GROUP BY of its own",
                "create it as a query WITH (emit = 'close') and read that",
            ));
        }
        (self.windowed, self.running) = grouped;
        let input = node.input.schema();
        let mut keys = Vec::with_capacity(node.keys.len());
        let mut types = Vec::with_capacity(node.keys.len());
        for key in &node.keys {
            types.push(self.wrap(key.get_type(input))?);
            keys.push(self.physical(key, input)?);
        }
        let operator = Absence::new(AbsencePlan {
            keys: self.wrap(KeyBytes::new(keys, types))?,
            time: self.physical(&node.time, input)?,
            for_us: node.for_us,
            lateness_us: self.statement.lateness_us,
            schema: Arc::new(plan.schema().as_arrow().clone()),
        });
        self.has_state = true;
        Ok(self.pipeline.add(Box::new(operator), &[child]))
    }
}
