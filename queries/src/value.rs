//! A value is one cell of a single row: what one event is worked out with, where an Arrow array of length one would
//! cost more than the work.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
    UInt32Array, new_empty_array, new_null_array,
};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue};

/// One cell. The types that streams have are plain; any other is an array of length one.
#[derive(Debug, Clone)]
pub enum Value {
    /// SQL's NULL, of whatever type the column has.
    Null,
    /// BOOLEAN.
    Bool(bool),
    /// BIGINT.
    Int(i64),
    /// DOUBLE.
    Float(f64),
    /// TIMESTAMP, microseconds since 1970.
    Time(i64),
    /// VARCHAR as Arrow's `Utf8`.
    Text(Arc<str>),
    /// Any other type: an array of length one.
    Other(ArrayRef),
}

impl Value {
    /// The cell of an array at `row`.
    pub fn at(array: &ArrayRef, row: usize) -> Self {
        // An array of the type NULL says of none of its values that it is null.
        if array.is_null(row) || *array.data_type() == DataType::Null {
            return Self::Null;
        }
        match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean().value(row)),
            DataType::Int64 => Self::Int(array.as_primitive::<Int64Type>().value(row)),
            DataType::Float64 => Self::Float(array.as_primitive::<Float64Type>().value(row)),
            DataType::Timestamp(TimeUnit::Microsecond, None) => {
                Self::Time(array.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            DataType::Utf8 => Self::Text(array.as_string::<i32>().value(row).into()),
            _ => Self::Other(array.slice(row, 1)),
        }
    }

    /// An array of length one of this value; `data_type` is the column's, and the value's own unless it is null.
    pub fn to_array(&self, data_type: &DataType) -> ArrayRef {
        match self {
            Self::Null => new_null_array(data_type, 1),
            Self::Bool(value) => Arc::new(BooleanArray::from(vec![*value])),
            Self::Int(value) => Arc::new(Int64Array::from_value(*value, 1)),
            Self::Float(value) => Arc::new(Float64Array::from_value(*value, 1)),
            Self::Time(value) => Arc::new(TimestampMicrosecondArray::from_value(*value, 1)),
            Self::Text(value) => Arc::new(StringArray::from_iter_values([value])),
            Self::Other(array) => Arc::clone(array),
        }
    }

    /// As DataFusion's functions take it.
    ///
    /// # Errors
    /// When DataFusion knows no scalar of `data_type`.
    pub(crate) fn to_scalar(&self, data_type: &DataType) -> Result<ScalarValue> {
        Ok(match self {
            Self::Null => ScalarValue::try_from(data_type)?,
            Self::Bool(value) => ScalarValue::Boolean(Some(*value)),
            Self::Int(value) => ScalarValue::Int64(Some(*value)),
            Self::Float(value) => ScalarValue::Float64(Some(*value)),
            Self::Time(value) => ScalarValue::TimestampMicrosecond(Some(*value), None),
            Self::Text(value) => ScalarValue::Utf8(Some(value.to_string())),
            Self::Other(array) => ScalarValue::try_from_array(array, 0)?,
        })
    }

    /// From what DataFusion's functions give.
    ///
    /// # Errors
    /// When the scalar is of a type of which there are no arrays.
    pub(crate) fn from_scalar(scalar: &ScalarValue) -> Result<Self> {
        Ok(match scalar {
            ScalarValue::Boolean(Some(value)) => Self::Bool(*value),
            ScalarValue::Int64(Some(value)) => Self::Int(*value),
            ScalarValue::Float64(Some(value)) => Self::Float(*value),
            ScalarValue::TimestampMicrosecond(Some(value), None) => Self::Time(*value),
            ScalarValue::Utf8(Some(value)) => Self::Text(value.as_str().into()),
            other if other.is_null() => Self::Null,
            other => Self::Other(other.to_array()?),
        })
    }

    /// The same value holding no more than itself: a cell of a batch that is kept would keep the batch.
    pub(crate) fn alone(self) -> Result<Self> {
        Ok(match self {
            Self::Other(array) => Self::Other(take(&array, &UInt32Array::from(vec![0]), None)?),
            plain => plain,
        })
    }

    /// How many bytes it takes, by estimate: the cell, and what an allocator takes for what lies elsewhere.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Text(text) => shared_bytes(text.len()),
                // The array itself is shared as well, and its buffers are.
                Self::Other(array) => shared_bytes(0) + array.get_array_memory_size(),
                _ => 0,
            }
    }

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text, where it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Appends bytes that only an equal value has; false where the type has no such form here.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) -> bool {
        match self {
            Self::Null => bytes.push(0),
            Self::Bool(value) => bytes.extend([1, u8::from(*value)]),
            Self::Int(value) | Self::Time(value) => {
                bytes.push(2);
                bytes.extend(value.to_le_bytes());
            }
            Self::Float(value) => {
                bytes.push(3);
                bytes.extend(value.to_bits().to_le_bytes());
            }
            Self::Text(value) => {
                bytes.push(4);
                bytes.extend((value.len() as u64).to_le_bytes());
                bytes.extend(value.as_bytes());
            }
            Self::Other(_) => return false,
        }
        true
    }
}

/// Bytes of the two counts before what an [`Arc`] holds.
const COUNTS: usize = 2 * size_of::<usize>();

/// What an allocator takes for so many bytes behind an [`Arc`].
pub(crate) fn shared_bytes(bytes: usize) -> usize {
    allocated_bytes(COUNTS + bytes)
}

/// What an allocator takes for so many bytes: mimalloc, whose blocks are of 16, 32, 48 and 64 bytes and then of four sizes each
/// time that they double. Others are alike.
pub(crate) fn allocated_bytes(bytes: usize) -> usize {
    let step = match bytes {
        0 => return 0,
        1..=64 => 16,
        _ => (bytes - 1).ilog2().checked_sub(2).map_or(16, |log| 1 << log),
    };
    bytes.next_multiple_of(step)
}

/// What so many cells take that lie behind an [`Arc`], with all that lies behind them.
pub(crate) fn row_bytes(values: &[Value]) -> usize {
    let beside = |value: &Value| value.size() - size_of::<Value>();
    shared_bytes(size_of_val(values)) + values.iter().map(beside).sum::<usize>()
}

/// The column of these values; `data_type` is the column's.
///
/// # Errors
/// When a value is of another type, which a row of the column's schema never has.
pub(crate) fn column_of<'a>(data_type: &DataType, values: impl Iterator<Item = &'a Value>) -> Result<ArrayRef> {
    Ok(match data_type {
        DataType::Boolean => Arc::new(
            values
                .map(|value| {
                    if let Value::Bool(value) = value {
                        Some(*value)
                    } else {
                        None
                    }
                })
                .collect::<BooleanArray>(),
        ),
        DataType::Int64 => Arc::new(
            values
                .map(|value| {
                    if let Value::Int(value) = value {
                        Some(*value)
                    } else {
                        None
                    }
                })
                .collect::<Int64Array>(),
        ),
        DataType::Float64 => Arc::new(
            values
                .map(|value| {
                    if let Value::Float(value) = value {
                        Some(*value)
                    } else {
                        None
                    }
                })
                .collect::<Float64Array>(),
        ),
        DataType::Timestamp(TimeUnit::Microsecond, None) => Arc::new(
            values
                .map(|value| {
                    if let Value::Time(value) = value {
                        Some(*value)
                    } else {
                        None
                    }
                })
                .collect::<TimestampMicrosecondArray>(),
        ),
        DataType::Utf8 => Arc::new(values.map(Value::text).collect::<StringArray>()),
        other => {
            let cells: Vec<ArrayRef> = values.map(|value| value.to_array(other)).collect();
            let cells: Vec<&dyn Array> = cells.iter().map(AsRef::as_ref).collect();
            if cells.is_empty() {
                new_empty_array(other)
            } else {
                concat(&cells)?
            }
        }
    })
}

/// Whether values of this type are plain.
pub(crate) fn is_plain(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Boolean
            | DataType::Int64
            | DataType::Float64
            | DataType::Utf8
            | DataType::Timestamp(TimeUnit::Microsecond, None)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_takes_its_counts_and_what_its_block_has_over() {
        let of_text = |length: usize| Value::Text("x".repeat(length).into()).size() - size_of::<Value>();
        // Of a short one the text is the least.
        assert_eq!((of_text(0), of_text(1), of_text(16)), (16, 32, 32));
        assert_eq!((of_text(17), of_text(48)), (48, 64));
        // 64 bytes of text are 80 with the counts, and the next block beyond 80 is of 96.
        assert_eq!(
            (of_text(64), of_text(65), of_text(112), of_text(113)),
            (80, 96, 128, 160)
        );
        assert_eq!(of_text(1_000), 1_024);
        assert_eq!(of_text(1_009), 1_280);
        assert_eq!(Value::Int(1).size(), size_of::<Value>());
    }

    #[test]
    fn a_row_takes_its_cells_in_one_block_and_the_texts_of_each() {
        let row = [Value::Int(1), Value::Null, Value::Text("hall".into())];
        assert_eq!(row_bytes(&row), allocated_bytes(16 + 3 * size_of::<Value>()) + 32);
        assert_eq!(row_bytes(&[]), 16);
        assert_eq!(allocated_bytes(0), 0);
    }
}
