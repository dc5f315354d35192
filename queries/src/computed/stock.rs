//! An expression that DataFusion evaluates for a single row.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;

use crate::typed::typed;
use crate::value::Value;

/// What DataFusion evaluates, over the columns that it needs and no others.
#[derive(Debug)]
pub(super) struct Stock {
    expression: Arc<dyn PhysicalExpr>,
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl Stock {
    /// Of rows with that schema.
    pub(super) fn new(expression: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Self> {
        let columns: BTreeSet<usize> = collect_columns(expression).iter().map(Column::index).collect();
        let columns: Vec<usize> = columns.into_iter().collect();
        let narrow = Arc::new(schema.project(&columns)?);
        let narrowed = Arc::clone(expression).transform_up(|node| {
            Ok(match node.downcast_ref::<Column>() {
                Some(column) => {
                    let at = columns
                        .binary_search(&column.index())
                        .map_err(|_| internal_datafusion_err!("the column '{}' was not collected", column.name()))?;
                    Transformed::yes(Arc::new(Column::new(column.name(), at)) as Arc<dyn PhysicalExpr>)
                }
                None => Transformed::no(node),
            })
        })?;
        Ok(Self {
            expression: typed(narrowed.data, &narrow)?,
            columns,
            schema: narrow,
        })
    }

    /// Its value for one row.
    pub(super) fn value(&self, row: &[Value]) -> Result<Value> {
        let columns = self
            .columns
            .iter()
            .zip(self.schema.fields())
            .map(|(index, field)| row[*index].to_array(field.data_type()))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let array = self.expression.evaluate(&batch)?.into_array(1)?;
        Ok(Value::at(&array, 0))
    }
}
