//! The absence of a key is found by waiting: each row starts the wait anew, and what it runs out on is said.
//!
//! Which rows are said is a function of the rows alone: those after which no row of the same key comes for so long,
//! late ones left out, each judged by the watermark it met itself.

mod bounded;
mod kept;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::row::{OwnedRow, RowConverter, Rows as Ranks, SortField};
use datafusion::common::Result;

pub(crate) use bounded::absences;

use crate::capture::CapturedOperator;
use crate::capture::noting::{Id, KeepsRows, Mark, Noting};
use crate::computed::Computed;
use crate::key_bytes::{HashedKey, KeyBytes};
use crate::operator::{Context, Footprint, LateRow, Operator, Progress};
use crate::row::{Row, Rows};
use crate::time_bound::shown_us;
use crate::value::{Value, row_bytes, shared_bytes};

/// Why a row takes no part.
pub(crate) const ABSENCE_WAS_FINAL: &str = "the absence it would have ended was final";
/// What a waiting row takes beside its values and its key, bytes by estimate: its places in two maps.
const BYTES_PER_ROW: usize = 200;

/// All that is fixed when the query is created.
pub(crate) struct AbsencePlan {
    /// Who may be silent.
    pub(crate) keys: KeyBytes,
    /// When a row was.
    pub(crate) time: Computed,
    /// How long a key must be silent, microseconds.
    pub(crate) for_us: i64,
    /// How late a row may come, microseconds.
    pub(crate) lateness_us: i64,
    /// The columns of the input, and `absent_at`.
    pub(crate) schema: SchemaRef,
}

/// The operator.
pub(crate) struct Absence {
    plan: AbsencePlan,
    /// The spells of a key in the order of time, in nearly every case one.
    spells: BTreeMap<HashedKey, Vec<Spell>>,
    /// The same by the times of their last rows: the order in which they run out.
    order: BTreeMap<(i64, u64), HashedKey>,
    /// Numbers rows in the order in which they came.
    next_number: u64,
    bytes: usize,
    /// What has changed since the last capture.
    noting: Option<Noting<(i64, u64)>>,
}

/// Rows of one key each of which comes before the key would have been silent for so long. Of all but the last it need
/// only be known that they lie between.
struct Spell {
    first: i64,
    last: i64,
    number: u64,
    row: Waiting,
    mark: Mark,
}

/// The last row of a spell.
struct Waiting {
    values: Arc<[Value]>,
    watermark: i64,
    cause: Option<Arc<str>>,
}

impl Waiting {
    fn size(&self, key: &[u8]) -> usize {
        let cause = self.cause.as_ref().map_or(0, |cause| shared_bytes(cause.len()));
        BYTES_PER_ROW + shared_bytes(key.len()) + cause + row_bytes(&self.values)
    }
}

impl Absence {
    /// Nothing waits yet.
    pub(crate) fn new(plan: AbsencePlan) -> Self {
        Self {
            plan,
            spells: BTreeMap::new(),
            order: BTreeMap::new(),
            next_number: 0,
            bytes: 0,
            noting: None,
        }
    }

    fn push_row(&mut self, row: &Row, context: &mut Context<'_>) -> Result<()> {
        let Value::Time(time) = self.plan.time.value(&row.values)? else {
            // A row without a time ends no silence and begins none, as in a bounded run.
            return Ok(());
        };
        if time < row.watermark.saturating_sub(self.plan.lateness_us) {
            context.late.push(LateRow {
                event_id: row.cause.as_deref().map(str::to_owned),
                event_time: time,
                watermark: row.watermark,
                reason: ABSENCE_WAS_FINAL,
            });
            return Ok(());
        }
        let key = self.plan.keys.of(&row.values)?.hashed;
        let waiting = Waiting {
            values: row.values.iter().cloned().map(Value::alone).collect::<Result<_>>()?,
            watermark: row.watermark,
            cause: row.cause.clone(),
        };
        self.insert(key, time, time, waiting)
    }

    /// Adds a spell, which becomes one with those that it lies within the time of.
    fn insert(&mut self, key: HashedKey, first: i64, last: i64, row: Waiting) -> Result<()> {
        let key = match self.spells.get_key_value(&key) {
            Some((key, _)) => key.clone(),
            None => key,
        };
        let number = self.next_number;
        self.next_number += 1;
        self.bytes += row.size(key.bytes());
        let mut spell = Spell {
            first,
            last,
            number,
            row,
            mark: Mark::New,
        };
        let spells = self.spells.entry(key.clone()).or_default();
        let for_us = self.plan.for_us;
        let from = spells.partition_point(|other| spell.first.saturating_sub(other.last) >= for_us);
        let to = spells.partition_point(|other| other.first.saturating_sub(spell.last) < for_us);
        for other in spells.drain(from..to) {
            self.order.remove(&(other.last, other.number));
            spell.first = spell.first.min(other.first);
            let is_last = match other.last.cmp(&spell.last) {
                Ordering::Equal => {
                    let (theirs, ours) = (&other.row, &spell.row);
                    let ranks = rank(&self.plan.schema, &theirs.values)?.cmp(&rank(&self.plan.schema, &ours.values)?);
                    // Of rows that are equal in all columns the event that made them still tells which.
                    ranks.then_with(|| theirs.cause.cmp(&ours.cause)) == Ordering::Greater
                }
                order => order == Ordering::Greater,
            };
            // It goes on under the number of either.
            if let Some(noting) = &mut self.noting {
                let (mark, number) = match is_last {
                    true => (spell.mark, spell.number),
                    false => (other.mark, other.number),
                };
                noting.note_gone(mark, Id::of_row(number));
            }
            let gone = if is_last {
                (spell.last, spell.number, spell.mark) = (other.last, other.number, other.mark);
                std::mem::replace(&mut spell.row, other.row)
            } else {
                other.row
            };
            self.bytes -= gone.size(key.bytes());
        }
        let place = (spell.last, spell.number);
        if let Some(noting) = &mut self.noting {
            match spell.mark {
                // Of one that was taken over it may not be known by now where it began.
                Mark::Taken => noting.note(&mut spell.mark, place),
                Mark::New | Mark::Changed => noting.note_new(place),
            }
        }
        self.order.insert(place, key);
        spells.insert(from, spell);
        Ok(())
    }

    /// Takes out the spell that has run out first, if its last row is at or before `time`.
    fn take_until(&mut self, time: i64) -> Option<Spell> {
        let first = self.order.first_entry().filter(|entry| entry.key().0 <= time)?;
        let (place, key) = first.remove_entry();
        let spells = self.spells.get_mut(&key)?;
        let at = spells.iter().position(|spell| (spell.last, spell.number) == place)?;
        let spell = spells.remove(at);
        if spells.is_empty() {
            self.spells.remove(&key);
        }
        self.bytes -= spell.row.size(key.bytes());
        if let Some(noting) = &mut self.noting {
            noting.note_gone(spell.mark, Id::of_row(spell.number));
        }
        Some(spell)
    }

    fn wait_us(&self) -> i64 {
        self.plan.for_us.saturating_add(self.plan.lateness_us)
    }
}

/// Tells which of several rows of one key and one time is the last: in which order they came is not known of rows of
/// several streams, and must make no difference. The greatest is, compared column by column.
fn rank(schema: &SchemaRef, row: &[Value]) -> Result<OwnedRow> {
    let fields = schema.fields().iter().take(row.len());
    let columns: Vec<ArrayRef> = row
        .iter()
        .zip(fields)
        .map(|(value, field)| value.to_array(field.data_type()))
        .collect();
    Ok(ranks(&columns)?.row(0).owned())
}

/// The same for many rows.
fn ranks(columns: &[ArrayRef]) -> Result<Ranks> {
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone()));
    Ok(RowConverter::new(fields.collect())?.convert_columns(columns)?)
}

impl Operator for Absence {
    fn push(&mut self, rows: Rows, context: &mut Context<'_>, _out: &mut Vec<Rows>) -> Result<()> {
        match rows {
            Rows::One(row) => self.push_row(&row, context),
            Rows::Many(flow) => (0..flow.num_rows()).try_for_each(|row| self.push_row(&Row::of(&flow, row), context)),
        }
    }

    fn advance(
        &mut self,
        watermark: i64,
        part: usize,
        _context: &mut Context<'_>,
        out: &mut Vec<Rows>,
    ) -> Result<Progress> {
        let mut said = Vec::new();
        let mut progress = Progress::Left;
        let wait_us = self.wait_us();
        while said.len() < part {
            let Some(spell) = self.take_until(watermark.saturating_sub(wait_us)) else {
                progress = Progress::Done;
                break;
            };
            let absent_at = Value::Time(spell.last.saturating_add(self.plan.for_us));
            said.push(Row {
                schema: Arc::clone(&self.plan.schema),
                values: spell.row.values.iter().cloned().chain([absent_at]).collect(),
                // As if it had been said the moment it was certain, however far the watermark has jumped.
                watermark: spell.last.saturating_add(wait_us).max(spell.row.watermark),
                cause: spell.row.cause,
            });
        }
        if !said.is_empty() {
            out.push(Rows::of(&self.plan.schema, said)?);
        }
        Ok(progress)
    }

    fn next_due(&self) -> i64 {
        let first = self.order.first_key_value();
        first.map_or(i64::MAX, |((last, _), _)| last.saturating_add(self.wait_us()))
    }

    fn lag_us(&self) -> i64 {
        self.wait_us()
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
        Footprint {
            keys: self.spells.len(),
            windows: 0,
            bytes: self.bytes,
        }
    }

    fn describe(&self) -> String {
        let keys: Vec<String> = self.plan.keys.columns().iter().map(ToString::to_string).collect();
        let length = shown_us(self.plan.for_us);
        format!("Absent: ({}) for {length} on {}", keys.join(", "), self.plan.time)
    }
}
