//! A row by itself is how a single event goes through a query; rows are either one of those or a flow of many.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::Result;

use crate::flow::Flow;
use crate::rows::{json_of, value_to_json};
use crate::value::{Value, column_of, row_bytes};

/// One row with what SQL does not see of it, as a [`Flow`] has it for many. Clones share the values.
#[derive(Debug, Clone)]
pub struct Row {
    /// The columns it has.
    pub schema: SchemaRef,
    /// A value for each of them.
    pub values: Arc<[Value]>,
    /// The watermark that stood when it came, microseconds.
    pub watermark: i64,
    /// The id of the event that made it, where there is one.
    pub cause: Option<Arc<str>>,
}

impl Row {
    /// A row of a flow.
    pub fn of(flow: &Flow, row: usize) -> Self {
        Self {
            schema: flow.batch.schema(),
            values: flow
                .batch
                .columns()
                .iter()
                .map(|column| Value::at(column, row))
                .collect(),
            watermark: flow.watermarks.value(row),
            cause: flow.causes.is_valid(row).then(|| flow.causes.value(row).into()),
        }
    }

    /// The same row under other columns.
    pub(crate) fn with(&self, schema: &SchemaRef, values: Arc<[Value]>) -> Self {
        Self {
            schema: Arc::clone(schema),
            values,
            watermark: self.watermark,
            cause: self.cause.clone(),
        }
    }

    /// A flow of this row alone.
    pub fn to_flow(&self) -> Flow {
        let columns = self
            .values
            .iter()
            .zip(self.schema.fields())
            .map(|(value, field)| value.to_array(field.data_type()))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        Flow {
            batch: RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
                .expect("a row's values are of its columns' types"),
            watermarks: Arc::new(Int64Array::from_value(self.watermark, 1)),
            causes: Arc::new(StringArray::from_iter([self.cause.as_deref()])),
        }
    }
}

/// Rows on their way through a query, or said by it.
#[derive(Debug, Clone)]
pub enum Rows {
    /// One by itself.
    One(Row),
    /// As many as a batch has.
    Many(Flow),
}

impl Rows {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(flow) => flow.num_rows(),
        }
    }

    /// How many bytes the values take, by estimate. Of one, those of its texts and their counts count as well.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::One(row) => row_bytes(&row.values),
            Self::Many(flow) => {
                let columns = flow.batch.columns().iter();
                columns
                    .map(|column| column.to_data().get_slice_memory_size().unwrap_or_default())
                    .sum()
            }
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The columns they have.
    pub fn schema(&self) -> SchemaRef {
        match self {
            Self::One(row) => Arc::clone(&row.schema),
            Self::Many(flow) => flow.batch.schema(),
        }
    }

    /// The rows as a flow.
    pub fn flow(&self) -> Cow<'_, Flow> {
        match self {
            Self::One(row) => Cow::Owned(row.to_flow()),
            Self::Many(flow) => Cow::Borrowed(flow),
        }
    }

    /// `rows` under `schema`: by itself where it is one.
    ///
    /// # Errors
    /// When a value is not of its column's type.
    pub fn of(schema: &SchemaRef, mut rows: Vec<Row>) -> Result<Self> {
        if rows.len() == 1
            && let Some(row) = rows.pop()
        {
            return Ok(Self::One(row));
        }
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(index, field)| column_of(field.data_type(), rows.iter().map(|row| &row.values[index])))
            .collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(Self::Many(Flow {
            batch: RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?,
            watermarks: Arc::new(rows.iter().map(|row| row.watermark).collect::<Int64Array>()),
            causes: Arc::new(rows.iter().map(|row| row.cause.as_deref()).collect::<StringArray>()),
        }))
    }

    /// The same rows, as if each had met another watermark.
    pub(crate) fn meeting(self, other: impl Fn(i64) -> i64) -> Self {
        match self {
            Self::One(row) => Self::One(Row {
                watermark: other(row.watermark),
                ..row
            }),
            Self::Many(flow) => Self::Many(Flow {
                watermarks: Arc::new(
                    flow.watermarks
                        .values()
                        .iter()
                        .map(|met| other(*met))
                        .collect::<Int64Array>(),
                ),
                ..flow
            }),
        }
    }

    /// The rows as a flow, for good.
    pub(crate) fn into_flow(self) -> Flow {
        match self {
            Self::One(row) => row.to_flow(),
            Self::Many(flow) => flow,
        }
    }

    /// The watermark a row met, microseconds.
    pub fn watermark(&self, row: usize) -> i64 {
        match self {
            Self::One(one) => one.watermark,
            Self::Many(flow) => flow.watermarks.value(row),
        }
    }

    /// The id of the event that made a row.
    pub fn cause(&self, row: usize) -> Option<&str> {
        match self {
            Self::One(one) => one.cause.as_deref(),
            Self::Many(flow) => flow.causes.is_valid(row).then(|| flow.causes.value(row)),
        }
    }

    /// Whether a cell is NULL.
    pub fn is_null(&self, column: usize, row: usize) -> bool {
        match self {
            Self::One(one) => one.values[column].is_null(),
            Self::Many(flow) => flow.batch.column(column).is_null(row),
        }
    }

    /// A cell's text; `None` for a null and for what is no text.
    pub fn text(&self, column: usize, row: usize) -> Option<&str> {
        let (array, row) = match self {
            Self::One(one) => match &one.values[column] {
                Value::Text(text) => return Some(text),
                Value::Other(array) => (array, 0),
                _ => return None,
            },
            Self::Many(flow) => (flow.batch.column(column), row),
        };
        if array.is_null(row) {
            return None;
        }
        match array.data_type() {
            DataType::Utf8 => Some(array.as_string::<i32>().value(row)),
            DataType::Utf8View => Some(array.as_string_view().value(row)),
            DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row)),
            _ => None,
        }
    }

    /// A cell's time, microseconds since 1970; `None` for a null and for what is no time.
    pub fn time(&self, column: usize, row: usize) -> Option<i64> {
        match self {
            Self::One(one) => match &one.values[column] {
                Value::Time(time) => Some(*time),
                _ => None,
            },
            Self::Many(flow) => {
                let array = flow.batch.column(column);
                let is_time = *array.data_type() == DataType::Timestamp(TimeUnit::Microsecond, None);
                (is_time && array.is_valid(row)).then(|| array.as_primitive::<TimestampMicrosecondType>().value(row))
            }
        }
    }

    /// A cell's whole number; `None` for a null and for what is no BIGINT.
    pub fn integer(&self, column: usize, row: usize) -> Option<i64> {
        match self {
            Self::One(one) => match &one.values[column] {
                Value::Int(value) => Some(*value),
                _ => None,
            },
            Self::Many(flow) => match Value::at(flow.batch.column(column), row) {
                Value::Int(value) => Some(value),
                _ => None,
            },
        }
    }

    /// A cell as JSON.
    pub fn json(&self, column: usize, row: usize) -> serde_json::Value {
        match self {
            Self::One(one) => json_of(&one.values[column]),
            Self::Many(flow) => value_to_json(flow.batch.column(column), row),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    };
    use arrow::datatypes::{Field, Schema};

    use super::{Row, Rows};
    use crate::flow::Flow;

    fn flow() -> Flow {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("a"), None])),
            Arc::new(Int64Array::from(vec![Some(7), None])),
            Arc::new(Float64Array::from(vec![Some(0.5), None])),
            Arc::new(BooleanArray::from(vec![Some(true), None])),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_000_000), None])),
            Arc::new(Int32Array::from(vec![Some(3), None])),
        ];
        let fields: Vec<Field> = columns
            .iter()
            .enumerate()
            .map(|(index, column)| Field::new(format!("c{index}"), column.data_type().clone(), true))
            .collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("well formed");
        let mut flow = Flow::at_watermark(batch, 5);
        flow.causes = Arc::new(StringArray::from(vec![Some("e1"), None]));
        flow
    }

    #[test]
    fn a_row_is_the_same_by_itself_and_in_its_flow() {
        let many = Rows::Many(flow());
        for row in 0..2 {
            let one = Rows::One(Row::of(&flow(), row));
            assert_eq!(one.watermark(0), many.watermark(row));
            assert_eq!(one.cause(0), many.cause(row));
            for column in 0..6 {
                assert_eq!(one.is_null(column, 0), many.is_null(column, row));
                assert_eq!(one.text(column, 0), many.text(column, row));
                assert_eq!(one.time(column, 0), many.time(column, row));
                assert_eq!(one.integer(column, 0), many.integer(column, row));
                assert_eq!(one.json(column, 0), many.json(column, row));
            }
            let again = one.into_flow();
            assert_eq!(again.batch, flow().batch.slice(row, 1));
            assert_eq!(again.causes.as_ref(), &flow().causes.slice(row, 1));
        }
    }
}
