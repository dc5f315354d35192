//! What the operator remembers over a restart, as Arrow data: rows. What has begun in them is found again from them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::common::{Result, internal_datafusion_err};

use super::operator::{MatchRecognize, Waiting, key_of};
use super::partition::Partition;
use crate::operator::batch_of;
use crate::value::Value;

/// A row that the watermark has not passed.
const WAITS: i64 = 0;
/// A row of a partition that is looked back at, and at which nothing begins any more.
const IS_BEHIND: i64 = 1;
/// A row of a partition from which on matches may begin.
const IS_OPEN: i64 = 2;

/// The row as it is written.
struct Line<'a> {
    role: i64,
    partition: i64,
    matches: i64,
    values: &'a [Value],
    cause: Option<&'a str>,
    time: i64,
}

impl MatchRecognize {
    /// Waiting rows, and those of each partition in their order.
    pub(super) fn keep(&self) -> Result<RecordBatch> {
        let mut lines: Vec<Line<'_>> = self
            .waiting
            .iter()
            .map(|Reverse(row)| Line {
                role: WAITS,
                partition: 0,
                matches: 0,
                values: &row.values,
                cause: row.cause.as_deref(),
                time: row.time,
            })
            .collect();
        for (index, partition) in (0..).zip(self.partitions.values()) {
            let open = partition.search.earliest().unwrap_or_else(|| partition.rows.next());
            lines.extend(partition.rows.iter().map(|(number, row)| Line {
                role: if number < open { IS_BEHIND } else { IS_OPEN },
                partition: index,
                matches: partition.matches,
                values: &row.values,
                cause: row.cause.as_deref(),
                time: row.time,
            }));
        }
        let numbers = |of: fn(&Line<'_>) -> i64| -> ArrayRef {
            Arc::new(lines.iter().map(|line| Some(of(line))).collect::<Int64Array>())
        };
        let mut columns = vec![
            ("role".to_owned(), numbers(|line| line.role)),
            ("partition".to_owned(), numbers(|line| line.partition)),
            ("matches".to_owned(), numbers(|line| line.matches)),
            ("time".to_owned(), numbers(|line| line.time)),
            (
                "cause".to_owned(),
                Arc::new(lines.iter().map(|line| line.cause).collect::<StringArray>()) as ArrayRef,
            ),
        ];
        for index in 0..self.prepared.input.fields().len() {
            let data_type = self.prepared.field(index).data_type();
            let column = column_of(lines.iter().map(|line| &line.values[index]), data_type)?;
            columns.push((format!("column{index}"), column));
        }
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, column)| Field::new(name, column.data_type().clone(), true))
            .collect();
        let watermark = HashMap::from([("watermark".to_owned(), self.watermark.to_string())]);
        let schema = Arc::new(Schema::new(fields).with_metadata(watermark));
        batch_of(
            &schema,
            columns.into_iter().map(|(_, column)| column).collect(),
            lines.len(),
        )
    }

    /// Takes back what `keep` gave.
    pub(super) fn take_back(&mut self, snapshot: &RecordBatch) -> Result<()> {
        let schema = snapshot.schema();
        let watermark = schema.metadata().get("watermark").and_then(|text| text.parse().ok());
        self.watermark = watermark.ok_or_else(|| internal_datafusion_err!("the snapshot has no watermark"))?;
        let column = |name: &str| {
            snapshot
                .column_by_name(name)
                .ok_or_else(|| internal_datafusion_err!("the snapshot has no column '{name}'"))
        };
        let numbers =
            |name: &str| Ok::<_, datafusion::common::DataFusionError>(column(name)?.as_primitive::<Int64Type>());
        let (roles, partitions, matches, times) = (
            numbers("role")?,
            numbers("partition")?,
            numbers("matches")?,
            numbers("time")?,
        );
        let causes = column("cause")?.as_string::<i32>();
        let columns = (0..self.prepared.input.fields().len())
            .map(|index| column(&format!("column{index}")))
            .collect::<Result<Vec<_>>>()?;
        let mut restored: BTreeMap<i64, Partition> = BTreeMap::new();
        for row in 0..snapshot.num_rows() {
            let waiting = Waiting {
                time: times.value(row),
                values: columns.iter().map(|column| Value::at(column, row)).collect(),
                cause: causes.is_valid(row).then(|| causes.value(row).into()),
            };
            if roles.value(row) == WAITS {
                self.waiting.push(Reverse(waiting));
                continue;
            }
            let (read, of_partition) = self.read(waiting)?;
            let partition = restored
                .entry(partitions.value(row))
                .or_insert_with(|| Partition::new(&self.prepared, of_partition));
            partition.matches = matches.value(row);
            if roles.value(row) == IS_BEHIND {
                partition.rows.push(read);
            } else {
                // What is found again was said before the snapshot, since it depends on these rows alone.
                partition.push(&self.prepared, read, &mut Vec::new())?;
            }
        }
        for partition in restored.into_values() {
            let key = key_of(&partition.values);
            self.put_back(key, partition, i64::MIN);
        }
        Ok(())
    }
}

/// A column of values of one type.
fn column_of<'a>(values: impl Iterator<Item = &'a Value>, data_type: &DataType) -> Result<ArrayRef> {
    match data_type {
        DataType::Utf8 => Ok(Arc::new(values.map(Value::text).collect::<StringArray>())),
        DataType::Int64 => {
            let numbers = values.map(|value| match value {
                Value::Int(number) => Some(*number),
                _ => None,
            });
            Ok(Arc::new(numbers.collect::<Int64Array>()))
        }
        other => {
            let cells: Vec<ArrayRef> = values.map(|value| value.to_array(other)).collect();
            if cells.is_empty() {
                return Ok(new_empty_array(other));
            }
            let cells: Vec<&dyn Array> = cells.iter().map(AsRef::as_ref).collect();
            Ok(concat(&cells)?)
        }
    }
}
