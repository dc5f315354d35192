//! The absences among recorded rows, all at once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::common::Result;

use super::ranks;
use crate::operator::batch_of;

/// The rows after which their key was silent for `for_us`, in the order of key and time, and `absent_at` beside them.
pub(crate) fn absences(
    rows: &RecordBatch,
    times: &ArrayRef,
    keys: &[ArrayRef],
    for_us: i64,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let encoded = ranks(keys)?;
    let ranked = ranks(rows.columns())?;
    let micros = times.as_primitive::<TimestampMicrosecondType>();
    let mut order: Vec<u32> = (0u32..)
        .take(rows.num_rows())
        .filter(|row| micros.is_valid(*row as usize))
        .collect();
    let place = |row: &u32| {
        let row = *row as usize;
        (encoded.row(row), micros.value(row), ranked.row(row))
    };
    order.sort_by(|one, other| place(one).cmp(&place(other)));
    let mut silent = Vec::new();
    for (place, row) in order.iter().enumerate() {
        let at = *row as usize;
        let ends = order.get(place + 1).map(|next| *next as usize).is_some_and(|next| {
            encoded.row(next) == encoded.row(at) && micros.value(next).saturating_sub(micros.value(at)) < for_us
        });
        if !ends {
            silent.push(*row);
        }
    }
    let absent_at = silent
        .iter()
        .map(|row| micros.value(*row as usize).saturating_add(for_us));
    let absent_at: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(absent_at));
    let rows_silent = silent.len();
    let mut columns = take_record_batch(rows, &UInt32Array::from(silent))?.columns().to_vec();
    columns.push(absent_at);
    batch_of(schema, columns, rows_silent)
}
