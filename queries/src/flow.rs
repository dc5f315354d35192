//! A flow is a batch on its way through a query, with what the query itself does not see: watermark and cause.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{filter, filter_record_batch, take, take_record_batch};
use datafusion::common::Result;

/// Rows of one stream or query with two columns beside them that SQL does not name.
#[derive(Debug, Clone)]
pub struct Flow {
    /// The rows.
    pub batch: RecordBatch,
    /// For each row the watermark that stood when it came, microseconds: lateness is judged by the row and not by
    /// the batch, so that the size of a batch changes no result.
    pub watermarks: Arc<Int64Array>,
    /// For each row the id of the event that made it, where there is one.
    pub causes: Arc<StringArray>,
}

impl Flow {
    /// Rows that all meet the same watermark and have no cause.
    pub fn at_watermark(batch: RecordBatch, watermark: i64) -> Self {
        let rows = batch.num_rows();
        Self {
            batch,
            watermarks: Arc::new(Int64Array::from_value(watermark, rows)),
            causes: Arc::new(StringArray::new_null(rows)),
        }
    }

    /// How many rows there are.
    pub fn num_rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// One row as a flow of its own; shares the columns.
    pub fn row(&self, index: usize) -> Self {
        self.slice(index, 1)
    }

    /// So many rows from one on; shares the columns.
    pub(crate) fn slice(&self, from: usize, rows: usize) -> Self {
        Self {
            batch: self.batch.slice(from, rows),
            watermarks: Arc::new(self.watermarks.slice(from, rows)),
            causes: Arc::new(self.causes.slice(from, rows)),
        }
    }

    /// The same rows under other columns.
    pub(crate) fn with_batch(&self, batch: RecordBatch) -> Self {
        Self {
            batch,
            watermarks: Arc::clone(&self.watermarks),
            causes: Arc::clone(&self.causes),
        }
    }

    /// The rows for which `mask` is true.
    pub(crate) fn filtered(&self, mask: &BooleanArray) -> Result<Self> {
        Ok(Self {
            batch: filter_record_batch(&self.batch, mask)?,
            watermarks: same_type(filter(self.watermarks.as_ref(), mask)?),
            causes: same_type(filter(self.causes.as_ref(), mask)?),
        })
    }

    /// The rows at `indices`, in that order, repeats allowed.
    pub(crate) fn taken(&self, indices: &UInt32Array) -> Result<Self> {
        Ok(Self {
            batch: take_record_batch(&self.batch, indices)?,
            watermarks: same_type(take(self.watermarks.as_ref(), indices, None)?),
            causes: same_type(take(self.causes.as_ref(), indices, None)?),
        })
    }
}

/// Arrow's kernels keep the type of their input but return it without its type.
fn same_type<A: Array + Clone + 'static>(array: ArrayRef) -> Arc<A> {
    Arc::new(
        array
            .as_any()
            .downcast_ref::<A>()
            .expect("filter and take keep the type of a column")
            .clone(),
    )
}
