//! A typed expression knows its result's field, so that evaluating a function over one row costs no more than the function.
//!
//! DataFusion asks a function's arguments for their fields at every evaluation, and a nested argument answers by writing
//! out its whole text as the field's name: more work than the arithmetic.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

/// An expression over rows of one schema, with the field that it always gives.
#[derive(Debug, Clone, Eq)]
struct Typed {
    inner: Arc<dyn PhysicalExpr>,
    field: FieldRef,
}

impl PartialEq for Typed {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner) && self.field == other.field
    }
}

impl Hash for Typed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
        self.field.hash(state);
    }
}

impl fmt::Display for Typed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(formatter)
    }
}

impl PhysicalExpr for Typed {
    fn data_type(&self, _input_schema: &Schema) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn nullable(&self, _input_schema: &Schema) -> Result<bool> {
        Ok(self.field.is_nullable())
    }

    fn return_field(&self, _input_schema: &Schema) -> Result<FieldRef> {
        Ok(Arc::clone(&self.field))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self {
            inner: Arc::clone(&children[0]),
            field: Arc::clone(&self.field),
        }))
    }

    fn fmt_sql(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(formatter)
    }
}

/// The same expression, the arguments of its functions typed for rows of `schema`.
///
/// # Errors
/// When an argument's type can't be told.
pub(crate) fn typed(expression: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let typed = expression.transform_up(|node| {
        if node.downcast_ref::<ScalarFunctionExpr>().is_none() {
            return Ok(Transformed::no(node));
        }
        let mut arguments = Vec::new();
        for argument in node.children() {
            // These two look their field up and write nothing.
            let is_cheap = argument.downcast_ref::<Column>().is_some() || argument.downcast_ref::<Literal>().is_some();
            arguments.push(if is_cheap {
                Arc::clone(argument)
            } else {
                let field = argument.return_field(schema)?;
                Arc::new(Typed {
                    inner: Arc::clone(argument),
                    field,
                })
            });
        }
        Ok(Transformed::yes(node.with_new_children(arguments)?))
    })?;
    Ok(typed.data)
}
