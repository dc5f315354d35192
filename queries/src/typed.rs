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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::DFSchema;
    use datafusion::physical_expr::ScalarFunctionExpr;
    use datafusion::prelude::SessionContext;

    use super::typed;

    #[test]
    fn an_argument_gives_its_field_without_making_it_and_the_result_stays() -> datafusion::common::Result<()> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("entered", DataType::Int64, false),
            Field::new("exited", DataType::Int64, false),
        ]));
        let columns = DFSchema::try_from(Arc::clone(&schema))?;
        let context = SessionContext::new();
        let written = context.parse_sql_expr("greatest(entered - exited, 0)", &columns)?;
        let stock = context.create_physical_expr(written, &columns)?;
        let ours = typed(Arc::clone(&stock), &schema)?;
        let call = ours
            .downcast_ref::<ScalarFunctionExpr>()
            .expect("the call stays a call");
        let argument = &call.args()[0];
        let (first, second) = (argument.return_field(&schema)?, argument.return_field(&schema)?);
        assert!(Arc::ptr_eq(&first, &second), "made once");
        assert_eq!(first, stock.children()[0].return_field(&schema)?);

        let batch = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                Arc::new(Int64Array::from(vec![3, 1])),
                Arc::new(Int64Array::from(vec![1, 3])),
            ],
        )?;
        let value = |expression: &dyn datafusion::physical_expr::PhysicalExpr| {
            expression.evaluate(&batch)?.into_array(batch.num_rows())
        };
        assert_eq!(&value(ours.as_ref())?, &value(stock.as_ref())?);
        assert_eq!(ours.to_string(), stock.to_string());
        Ok(())
    }
}
