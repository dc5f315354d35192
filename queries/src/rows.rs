//! Rows as JSON objects and back: how outputs are shown to people and how recorded rows are read.

use std::io::Cursor;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit,
    TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::temporal_conversions::timestamp_us_to_datetime;
use arrow::util::display::array_value_to_string;
use chrono::SecondsFormat;
use datafusion::common::{Result, internal_datafusion_err};
use serde_json::{Map, Number, Value};

/// One row as a JSON object; times are RFC 3339 in UTC, whole floats are written as whole numbers.
pub fn row_to_json(batch: &RecordBatch, row: usize) -> Map<String, Value> {
    batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| (field.name().clone(), value_to_json(column, row)))
        .collect()
}

/// All rows of a batch.
pub fn batch_to_json(batch: &RecordBatch) -> Vec<Map<String, Value>> {
    (0..batch.num_rows()).map(|row| row_to_json(batch, row)).collect()
}

/// One value as JSON.
pub fn value_to_json(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    macro_rules! integer {
        ($t:ty) => {
            Value::from(column.as_primitive::<$t>().value(row))
        };
    }
    match column.data_type() {
        DataType::Utf8 => Value::from(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Value::from(column.as_string::<i64>().value(row)),
        DataType::Utf8View => Value::from(column.as_string_view().value(row)),
        DataType::Boolean => Value::from(column.as_boolean().value(row)),
        DataType::Int8 => integer!(Int8Type),
        DataType::Int16 => integer!(Int16Type),
        DataType::Int32 => integer!(Int32Type),
        DataType::Int64 => integer!(Int64Type),
        DataType::UInt8 => integer!(UInt8Type),
        DataType::UInt16 => integer!(UInt16Type),
        DataType::UInt32 => integer!(UInt32Type),
        DataType::UInt64 => integer!(UInt64Type),
        DataType::Float32 => float_to_json(f64::from(column.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => float_to_json(column.as_primitive::<Float64Type>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, None) => Value::from(time_to_text(
            column.as_primitive::<TimestampMicrosecondType>().value(row),
        )),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            Value::Array((0..items.len()).map(|item| value_to_json(&items, item)).collect())
        }
        _ => array_value_to_string(column, row).map_or(Value::Null, Value::from),
    }
}

/// One value of a single row as JSON.
pub(crate) fn json_of(value: &crate::value::Value) -> Value {
    use crate::value::Value as Cell;
    match value {
        Cell::Null => Value::Null,
        Cell::Bool(value) => Value::from(*value),
        Cell::Int(value) => Value::from(*value),
        Cell::Float(value) => float_to_json(*value),
        Cell::Time(value) => Value::from(time_to_text(*value)),
        Cell::Text(value) => Value::from(value.as_ref()),
        Cell::Other(array) => value_to_json(array, 0),
    }
}

#[allow(clippy::cast_possible_truncation)] // the range is checked first
fn float_to_json(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// Microseconds since the Unix epoch as RFC 3339 in UTC.
pub fn time_to_text(time_us: i64) -> String {
    timestamp_us_to_datetime(time_us).map_or_else(
        || "out of range".to_owned(),
        |time| time.and_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true),
    )
}

/// Rows as NDJSON under a schema; columns that are missing become null.
///
/// # Errors
/// When a value does not fit its column or a column that can't be null is missing.
pub fn batch_from_ndjson(schema: &SchemaRef, text: &str) -> Result<RecordBatch> {
    let rows = text.lines().filter(|line| !line.trim().is_empty()).count();
    let mut reader = arrow::json::ReaderBuilder::new(std::sync::Arc::clone(schema))
        .with_batch_size(rows.max(1))
        .build(Cursor::new(text))?;
    match reader.next() {
        Some(batch) => Ok(batch?),
        None if rows == 0 => Ok(RecordBatch::new_empty(std::sync::Arc::clone(schema))),
        None => Err(internal_datafusion_err!("no rows were read")),
    }
}
