//! The operator: rows wait until time has passed them, go through their partition in order, and matches come out.
//!
//! Everything happens in the order of event time, whatever the batches: a row is taken when the watermark has passed
//! it, and what expires between two rows expires between them. So a match, its place among the others and the
//! watermark it is said at depend on the rows alone.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;

use super::kept::Place;
use super::operand::Memory;
use super::operand::PatternRow;
use super::partition::Partition;
use super::prepared::Prepared;
use crate::capture::CapturedOperator;
use crate::capture::noting::{Id, KeepsRows, Mark, Noting};
use crate::computed::ordering;
use crate::computed::values;
use crate::operator::{Context, Footprint, LateRow, Operator, Progress};
use crate::row::{Row, Rows};
use crate::row_pattern::attempt::Match;
use crate::row_pattern::search::Found;
use crate::value::Value;

/// Why a row is late.
const WAS_LOOKED_FOR: &str = "the patterns it could be part of were looked for already";
/// Why a partial match is given up; it is told by its first row.
const GIVEN_UP: &str = "the partial match it began was given up: too many rows or ways were open";
/// A watermark behind this is the end of everything: nothing waits for more rows then.
const END: i64 = i64::MAX / 8;

/// A row that waits for the watermark to pass it.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(super) time: i64,
    pub(super) values: Arc<[Value]>,
    pub(super) cause: Option<Arc<str>>,
    /// No other row that waits has it.
    pub(super) number: u64,
}

impl Ord for Waiting {
    /// By time; rows of one time by their columns from left to right, so that the order in which they came is nothing but
    /// to those that are alike.
    fn cmp(&self, other: &Self) -> Ordering {
        let columns = || {
            let mut pairs = self.values.iter().zip(other.values.iter());
            pairs.find_map(|(left, right)| Some(compare(left, right)).filter(|ordering| ordering.is_ne()))
        };
        self.time
            .cmp(&other.time)
            .then_with(|| columns().unwrap_or(Ordering::Equal))
            .then_with(|| self.cause.cmp(&other.cause))
            .then_with(|| self.number.cmp(&other.number))
    }
}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Waiting {}

fn compare(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::Other(left), Value::Other(right)) => encoded(left).cmp(&encoded(right)),
        _ => ordering(left, right).unwrap_or(Ordering::Equal),
    }
}

/// A value of a type that is not plain in Arrow's row format; empty for what has none.
fn encoded(value: &ArrayRef) -> Vec<u8> {
    RowConverter::new(vec![SortField::new(value.data_type().clone())])
        .and_then(|converter| converter.convert_columns(std::slice::from_ref(value)))
        .map(|rows| rows.row(0).as_ref().to_vec())
        .unwrap_or_default()
}

/// Bytes that only rows of one partition have.
pub(super) fn key_of(values: &[Value]) -> Arc<[u8]> {
    let mut key = Vec::new();
    for value in values {
        if let Value::Other(array) = value {
            let bytes = encoded(array);
            key.push(5);
            key.extend((bytes.len() as u64).to_le_bytes());
            key.extend(bytes);
        } else {
            value.encode(&mut key);
        }
    }
    key.into()
}

/// The operator.
pub(crate) struct MatchRecognize {
    pub(super) prepared: Prepared,
    /// Rows that wait, and what captures know of them.
    pub(super) waiting: BTreeMap<Waiting, Mark>,
    pub(super) partitions: BTreeMap<Arc<[u8]>, Partition>,
    /// Partitions by the time at which something happens in them that no row brings.
    due: BTreeSet<(i64, Arc<[u8]>)>,
    pub(super) watermark: i64,
    /// Numbers rows that wait, and partitions.
    pub(super) next_number: u64,
    /// How many rows all partitions have.
    pub(super) settled: usize,
    /// What has changed since the last capture.
    pub(super) noting: Option<Noting<Place>>,
}

/// Where matches go, and the watermark they are said at.
struct Said<'a, 'b, 'c> {
    context: &'a mut Context<'b>,
    out: &'c mut Vec<Rows>,
    watermark: i64,
}

impl MatchRecognize {
    /// No row yet.
    pub(crate) fn new(prepared: Prepared) -> Self {
        Self {
            prepared,
            waiting: BTreeMap::new(),
            partitions: BTreeMap::new(),
            due: BTreeSet::new(),
            watermark: i64::MIN,
            next_number: 0,
            settled: 0,
            noting: None,
        }
    }

    fn take(&mut self, row: Row, context: &mut Context<'_>) -> Result<()> {
        // A row without a time is nowhere in the order, as a row without one is in no window.
        let Value::Time(time) = self.prepared.time.value(&row.values)? else {
            return Ok(());
        };
        let watermark = self.watermark.max(row.watermark);
        if time < watermark.saturating_sub(self.prepared.lateness_us) {
            context.late.push(LateRow {
                event_id: row.cause.as_deref().map(str::to_owned),
                event_time: time,
                watermark,
                reason: WAS_LOOKED_FOR,
            });
            return Ok(());
        }
        let waiting = Waiting {
            time,
            // A cell of a large batch must not keep the batch.
            values: row.values.iter().cloned().map(Value::alone).collect::<Result<_>>()?,
            cause: row.cause,
            number: self.number(),
        };
        if let Some(noting) = &mut self.noting {
            noting.note_new(Place::Waits(waiting.clone()));
        }
        self.waiting.insert(waiting, Mark::New);
        Ok(())
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// The row as its partition keeps it, and the values of PARTITION BY.
    pub(super) fn read(&self, row: Waiting) -> Result<(PatternRow, Vec<Value>)> {
        let of_partition = values(&self.prepared.partition_by, &row.values)?;
        let arguments = values(&self.prepared.arguments, &row.values)?;
        let read = PatternRow {
            time: row.time,
            values: row.values,
            arguments,
            cause: row.cause,
            known: vec![None; self.prepared.variables.len()],
            mark: Mark::New,
        };
        Ok((read, of_partition))
    }

    /// The watermark at which it can first be known what happened up to `time`.
    fn known_at(&self, time: i64) -> i64 {
        let at = time.saturating_add(self.prepared.lateness_us).saturating_add(1);
        at.min(self.watermark)
    }

    /// A row that time has passed goes into its partition.
    fn settle(&mut self, row: Waiting, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        let time = row.time;
        let (row, of_partition) = self.read(row)?;
        let key = key_of(&of_partition);
        let mut partition = match self.partitions.remove(&key) {
            Some(partition) => partition,
            None => {
                let id = self.number();
                let partition = Partition::new(&self.prepared, of_partition, id);
                if let Some(noting) = &mut self.noting {
                    noting.note_new(Place::Partition(Arc::clone(&key)));
                }
                partition
            }
        };
        if let Some(noting) = &mut self.noting {
            noting.note_new(Place::Row(Arc::clone(&key), partition.rows.next()));
        }
        self.settled += 1;
        let mut found = Vec::new();
        partition.push(&self.prepared, row, &mut found)?;
        let watermark = self.known_at(time);
        self.tell(
            &mut partition,
            found,
            &mut Said {
                context,
                out,
                watermark,
            },
        )?;
        self.put_back(key, partition, time.saturating_sub(1));
        Ok(())
    }

    /// Time has passed the first that is due.
    fn expire(&mut self, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        let Some((due, key)) = self.due.pop_first() else {
            return Ok(());
        };
        let Some(mut partition) = self.partitions.remove(&key) else {
            return Ok(());
        };
        partition.due = None;
        let mut found = Vec::new();
        partition.expire(&self.prepared, due, &mut found);
        let watermark = self.known_at(due);
        self.tell(
            &mut partition,
            found,
            &mut Said {
                context,
                out,
                watermark,
            },
        )?;
        self.put_back(key, partition, due);
        Ok(())
    }

    /// Keeps a partition that is still needed when time has passed `time`.
    pub(super) fn put_back(&mut self, key: Arc<[u8]>, mut partition: Partition, time: i64) {
        let mut forgotten = partition.tidy(&self.prepared);
        let is_forgotten = partition.is_forgotten(&self.prepared, time);
        if is_forgotten {
            forgotten.extend(partition.rows.iter().map(|(number, row)| (number, row.mark)));
        }
        self.settled -= forgotten.len();
        if let Some(noting) = &mut self.noting {
            if is_forgotten {
                noting.note_gone(partition.mark, partition.kept_id());
            } else {
                noting.note(&mut partition.mark, Place::Partition(Arc::clone(&key)));
            }
            for (number, mark) in forgotten {
                noting.note_gone(mark, partition.row_id(number));
            }
        }
        let due = if is_forgotten {
            None
        } else {
            partition.next_due(&self.prepared)
        };
        if due != partition.due {
            if let Some(before) = partition.due {
                self.due.remove(&(before, Arc::clone(&key)));
            }
            if let Some(due) = due {
                self.due.insert((due, Arc::clone(&key)));
            }
            partition.due = due;
        }
        if !is_forgotten {
            self.partitions.insert(key, partition);
        }
    }

    /// There is no further row.
    fn end(&mut self, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        let partitions = std::mem::take(&mut self.partitions);
        self.due.clear();
        self.settled = 0;
        // Nothing is left of what was captured.
        self.noting = None;
        let watermark = self.watermark;
        for (_, mut partition) in partitions {
            let mut found = Vec::new();
            partition.search.end(&mut found);
            self.tell(
                &mut partition,
                found,
                &mut Said {
                    context,
                    out,
                    watermark,
                },
            )?;
        }
        Ok(())
    }

    fn tell(&self, partition: &mut Partition, found: Vec<Found>, said: &mut Said<'_, '_, '_>) -> Result<()> {
        for found in found {
            match found {
                Found::Match(matched) => {
                    partition.matches += 1;
                    let number = Value::Int(partition.matches);
                    said.out
                        .push(self.row(partition, &matched, &number, false, said.watermark)?);
                }
                Found::TimedOut(matched) if self.prepared.shows_timed_out => {
                    said.out
                        .push(self.row(partition, &matched, &Value::Null, true, said.watermark)?);
                }
                Found::TimedOut(_) => {}
                Found::GivenUp(first) => said.context.late.push(LateRow {
                    event_id: partition.cause(first).map(|cause| cause.to_string()),
                    event_time: partition.rows.get(first).map_or(said.watermark, |row| row.time),
                    watermark: said.watermark,
                    reason: GIVEN_UP,
                }),
            }
        }
        Ok(())
    }

    fn row(&self, partition: &Partition, matched: &Match, number: &Value, timed_out: bool, at: i64) -> Result<Rows> {
        let mut values = partition.values.clone();
        values.extend(partition.measure(&self.prepared, matched, number)?);
        if self.prepared.shows_timed_out {
            values.push(Value::Bool(timed_out));
        }
        Ok(Rows::One(Row {
            schema: Arc::clone(&self.prepared.schema),
            values: values.into(),
            watermark: at,
            cause: partition.cause(matched.last),
        }))
    }
}

impl Operator for MatchRecognize {
    fn push(&mut self, rows: Rows, context: &mut Context<'_>, _out: &mut Vec<Rows>) -> Result<()> {
        match rows {
            Rows::One(row) => self.take(row, context),
            Rows::Many(flow) => (0..flow.num_rows()).try_for_each(|row| self.take(Row::of(&flow, row), context)),
        }
    }

    fn advance(
        &mut self,
        watermark: i64,
        part: usize,
        context: &mut Context<'_>,
        out: &mut Vec<Rows>,
    ) -> Result<Progress> {
        if watermark < self.watermark {
            return Ok(Progress::Done);
        }
        self.watermark = watermark;
        // Rows before this have all come: a later one would be late.
        let settled = watermark.saturating_sub(self.prepared.lateness_us);
        for done in 0.. {
            if done == part {
                return Ok(Progress::Left);
            }
            let row = self.waiting.first_key_value().map(|(row, _)| row.time);
            let row = row.filter(|time| *time < settled);
            let due = self.due.first().map(|(time, _)| *time);
            let due = due.filter(|time| *time < settled);
            match (row, due) {
                (row, Some(due)) if row.is_none_or(|row| due < row) => self.expire(context, out)?,
                (Some(_), _) => match self.waiting.pop_first() {
                    Some((row, mark)) => {
                        if let Some(noting) = &mut self.noting {
                            noting.note_gone(mark, Id::of_row(row.number));
                        }
                        self.settle(row, context, out)?;
                    }
                    None => break,
                },
                _ => break,
            }
        }
        if watermark >= END {
            self.end(context, out)?;
        }
        Ok(Progress::Done)
    }

    fn lag_us(&self) -> i64 {
        self.prepared.lag_us()
    }

    fn next_due(&self) -> i64 {
        let row = self.waiting.first_key_value().map(|(row, _)| row.time);
        let due = self.due.first().map(|(time, _)| *time);
        match row.into_iter().chain(due).min() {
            Some(time) => time.saturating_add(self.prepared.lateness_us).saturating_add(1),
            None if self.partitions.is_empty() => i64::MAX,
            None => END,
        }
    }

    fn gather(&mut self, room: &mut usize) -> Result<()> {
        self.gather_rows(room)
    }

    fn capture(&mut self) -> Result<Option<CapturedOperator>> {
        self.capture_rows().map(Some)
    }

    fn capture_anew(&mut self) {
        self.noting = None;
    }

    fn snapshot(&mut self) -> Result<Option<RecordBatch>> {
        self.keep().map(Some)
    }

    fn restore(&mut self, snapshot: &RecordBatch) -> Result<()> {
        self.take_back(snapshot)
    }

    fn footprint(&self) -> Footprint {
        let cell = size_of::<Value>() * (self.prepared.input.fields().len() + self.prepared.arguments.len());
        let rows: usize = self.partitions.values().map(|partition| partition.rows.len()).sum();
        let of_seen = |seen: &Vec<Memory>| seen.iter().map(Memory::bytes).sum();
        let searches: usize = self
            .partitions
            .values()
            .map(|partition| partition.search.bytes(of_seen))
            .sum();
        Footprint {
            keys: self.partitions.len(),
            windows: 0,
            // Texts are shared with the event they came with, and are guessed at a cell's size.
            bytes: (rows + self.waiting.len()) * (size_of::<PatternRow>() + 2 * cell)
                + searches
                + self.partitions.len() * size_of::<Partition>(),
        }
    }

    fn describe(&self) -> String {
        format!("MatchRecognize: {}", self.prepared.text)
    }
}
