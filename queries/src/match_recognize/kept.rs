//! What the operator remembers over a restart, as Arrow data: rows. What has begun in them is found again from them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use datafusion::common::{Result, internal_datafusion_err};

use super::operand::PatternRow;
use super::operator::{MatchRecognize, Waiting, key_of};
use super::partition::Partition;
use crate::capture::named_batch;
use crate::capture::noting::{Id, KeepsRows, Mark, Noting, Rows};
use crate::value::{Value, column_of};

/// A row that the watermark has not passed.
const WAITS: i64 = 0;
/// A row of a partition.
const IS_SETTLED: i64 = 1;
/// How far a partition is: its matches, and as its number the row from which on matches may begin.
const IS_PARTITION: i64 = 2;

/// Where something is that a capture takes.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A row that waits.
    Waits(Waiting),
    /// How far a partition is.
    Partition(Arc<[u8]>),
    /// A row of it, by its number.
    Row(Arc<[u8]>, u64),
}

impl Partition {
    /// What is captured of it beside its rows.
    pub(super) fn kept_id(&self) -> Id {
        Id {
            of: (Id::of_row(self.id).number, IS_PARTITION),
            number: 0,
        }
    }

    /// A row of it.
    pub(super) fn row_id(&self, number: u64) -> Id {
        Id {
            of: (Id::of_row(self.id).number, IS_SETTLED),
            number: Id::of_row(number).number,
        }
    }
}

/// The row as it is written.
struct Line<'a> {
    id: Id,
    role: i64,
    partition: i64,
    number: i64,
    matches: i64,
    values: &'a [Value],
    cause: Option<&'a str>,
    time: i64,
}

impl<'a> Line<'a> {
    fn waits(row: &'a Waiting) -> Self {
        Self {
            id: Id::of_row(row.number),
            role: WAITS,
            partition: 0,
            number: 0,
            matches: 0,
            values: &row.values,
            cause: row.cause.as_deref(),
            time: row.time,
        }
    }

    fn partition(partition: &Partition) -> Self {
        let id = partition.kept_id();
        Self {
            id,
            role: IS_PARTITION,
            partition: id.of.0,
            number: Id::of_row(partition.open_from()).number,
            matches: partition.matches,
            values: &[],
            cause: None,
            time: 0,
        }
    }

    fn settled(partition: &Partition, number: u64, row: &'a PatternRow) -> Self {
        let id = partition.row_id(number);
        Self {
            id,
            role: IS_SETTLED,
            partition: id.of.0,
            number: id.number,
            matches: 0,
            values: &row.values,
            cause: row.cause.as_deref(),
            time: row.time,
        }
    }
}

impl MatchRecognize {
    /// Waiting rows, and of each partition how far it is and its rows.
    pub(super) fn keep(&self) -> Result<RecordBatch> {
        let mut lines: Vec<Line<'_>> = self.waiting.keys().map(Line::waits).collect();
        for partition in self.partitions.values() {
            lines.push(Line::partition(partition));
            let rows = partition.rows.iter();
            lines.extend(rows.map(|(number, row)| Line::settled(partition, number, row)));
        }
        let batch = named_batch(self.columns(&lines)?, lines.len())?;
        let schema = batch.schema().as_ref().clone().with_metadata(self.texts());
        Ok(batch.with_schema(Arc::new(schema))?)
    }

    fn line(&self, place: &Place) -> Option<Line<'_>> {
        match place {
            Place::Waits(row) => self.waiting.get_key_value(row).map(|(row, _)| Line::waits(row)),
            Place::Partition(key) => self.partitions.get(key).map(Line::partition),
            Place::Row(key, number) => {
                let partition = self.partitions.get(key)?;
                Some(Line::settled(partition, *number, partition.rows.get(*number)?))
            }
        }
    }

    fn columns(&self, lines: &[Line<'_>]) -> Result<Vec<(String, ArrayRef)>> {
        let numbers = |of: fn(&Line<'_>) -> i64| -> ArrayRef {
            Arc::new(lines.iter().map(|line| Some(of(line))).collect::<Int64Array>())
        };
        let mut columns = vec![
            ("role".to_owned(), numbers(|line| line.role)),
            ("partition".to_owned(), numbers(|line| line.partition)),
            ("number".to_owned(), numbers(|line| line.number)),
            ("matches".to_owned(), numbers(|line| line.matches)),
            ("time".to_owned(), numbers(|line| line.time)),
            (
                "cause".to_owned(),
                Arc::new(lines.iter().map(|line| line.cause).collect::<StringArray>()) as ArrayRef,
            ),
        ];
        for index in 0..self.prepared.input.fields().len() {
            let data_type = self.prepared.field(index).data_type();
            let cells = lines.iter().map(|line| line.values.get(index).unwrap_or(&Value::Null));
            columns.push((format!("column{index}"), column_of(data_type, cells)?));
        }
        Ok(columns)
    }

    /// Takes back what `keep` gave.
    pub(super) fn take_back(&mut self, snapshot: &RecordBatch) -> Result<()> {
        let schema = snapshot.schema();
        let watermark = schema.metadata().get("watermark").and_then(|text| text.parse().ok());
        self.watermark = watermark.ok_or_else(|| internal_datafusion_err!("the snapshot has no watermark"))?;
        if snapshot.num_rows() == 0 {
            return Ok(());
        }
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
        let places = numbers("number")?;
        let causes = column("cause")?.as_string::<i32>();
        let columns = (0..self.prepared.input.fields().len())
            .map(|index| column(&format!("column{index}")))
            .collect::<Result<Vec<_>>>()?;
        // How far each partition is, first of all; its rows in their order.
        let mut order: Vec<usize> = (0..snapshot.num_rows()).collect();
        order.sort_by_key(|row| {
            (
                roles.value(*row) != IS_PARTITION,
                partitions.value(*row),
                places.value(*row),
            )
        });
        let mut far: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        let mut restored: BTreeMap<i64, Partition> = BTreeMap::new();
        for row in order {
            let of = partitions.value(row);
            if roles.value(row) == IS_PARTITION {
                far.insert(of, (matches.value(row), places.value(row)));
                continue;
            }
            let waiting = Waiting {
                time: times.value(row),
                values: columns.iter().map(|column| Value::at(column, row)).collect(),
                cause: causes.is_valid(row).then(|| causes.value(row).into()),
                number: self.number(),
            };
            if roles.value(row) == WAITS {
                self.waiting.insert(waiting, Mark::New);
                continue;
            }
            let Some((matches, open)) = far.get(&of) else {
                return Err(internal_datafusion_err!("the snapshot has a row of no partition"));
            };
            let (read, of_partition) = self.read(waiting)?;
            let id = self.number();
            let partition = restored
                .entry(of)
                .or_insert_with(|| Partition::new(&self.prepared, of_partition, id));
            partition.matches = *matches;
            if places.value(row) < *open {
                partition.rows.push(read);
            } else {
                // What is found again was said before the snapshot, since it depends on these rows alone.
                partition.push(&self.prepared, read, &mut Vec::new())?;
            }
        }
        for partition in restored.into_values() {
            let key = key_of(&partition.values);
            self.settled += partition.rows.len();
            self.put_back(key, partition, i64::MIN);
        }
        Ok(())
    }
}

impl KeepsRows for MatchRecognize {
    type Place = Place;

    fn noting(&mut self) -> &mut Option<Noting<Place>> {
        &mut self.noting
    }

    fn behind(&self, last: Option<&Place>, most: usize) -> Vec<Place> {
        let mut places = Vec::new();
        if matches!(last, None | Some(Place::Waits(_))) {
            let from = match last {
                Some(Place::Waits(row)) => Bound::Excluded(row),
                _ => Bound::Unbounded,
            };
            let waiting = self.waiting.range::<Waiting, _>((from, Bound::Unbounded)).take(most);
            places.extend(waiting.map(|(row, _)| Place::Waits(row.clone())));
        }
        // In the middle of a partition it goes on there.
        let (from, next) = match last {
            Some(Place::Partition(key)) => (Bound::Included(key), Some((key, 0))),
            Some(Place::Row(key, number)) => (Bound::Included(key), Some((key, number + 1))),
            _ => (Bound::Unbounded, None),
        };
        for (key, partition) in self.partitions.range::<Arc<[u8]>, _>((from, Bound::Unbounded)) {
            let next = next.and_then(|(of, next)| (of == key).then_some(next));
            if places.len() < most && next.is_none() {
                places.push(Place::Partition(Arc::clone(key)));
            }
            let rows = partition.rows.numbers(next.unwrap_or(0)).take(most - places.len());
            places.extend(rows.map(|number| Place::Row(Arc::clone(key), number)));
            if places.len() >= most {
                break;
            }
        }
        places
    }

    fn mark(&mut self, place: &Place) -> Option<&mut Mark> {
        match place {
            Place::Waits(row) => self.waiting.get_mut(row),
            Place::Partition(key) => Some(&mut self.partitions.get_mut(key)?.mark),
            Place::Row(key, number) => Some(&mut self.partitions.get_mut(key)?.rows.get_mut(*number)?.mark),
        }
    }

    fn rows_at(&self, places: &[Place]) -> Result<Rows> {
        let lines: Vec<Line<'_>> = places.iter().filter_map(|place| self.line(place)).collect();
        Ok((lines.iter().map(|line| line.id).collect(), self.columns(&lines)?))
    }

    fn rows_kept(&self) -> usize {
        self.waiting.len() + self.partitions.len() + self.settled
    }

    fn texts(&self) -> HashMap<String, String> {
        HashMap::from([("watermark".to_owned(), self.watermark.to_string())])
    }
}
