//! The join of two streams whose times lie within a bound of each other.
//!
//! Which rows find each other is a function of the rows alone: those of equal keys whose times lie within the bound,
//! neither of them late by the watermark it met itself. A row is kept until no row that is not late can find it.

mod kept;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};

use crate::capture::CapturedOperator;
use crate::capture::noting::{Id, KeepsRows, Mark, Noting};
use crate::computed::Computed;
use crate::key_bytes::{HashedKey, KeyBytes};
use crate::operator::{Context, Footprint, LateRow, Operator, Progress};
use crate::row::{Row, Rows};
use crate::time_bound::shown_us;
use crate::value::{Value, row_bytes, shared_bytes};

/// Why a row takes no part in a join.
pub(crate) const PARTNERS_WERE_FINAL: &str = "the rows it could be joined with were final";
/// Bytes of joined rows that may be said at once, by estimate. Where each row finds a hundred others in each of forty
/// streams, what one row says is without end.
const SAID_AT_ONCE_MAX: usize = 256 << 20;
/// What a kept row takes beside its values, bytes by estimate: its places in the order of time and among those of its key.
const BYTES_PER_ROW: usize = 136;
/// What a key takes beside its bytes and its rows, bytes by estimate.
const BYTES_PER_KEY: usize = 144;

/// All that is fixed when the query is created.
pub(crate) struct IntervalJoinPlan {
    /// The left side and the right side.
    pub(crate) sides: [SidePlan; 2],
    /// The least right time − left time, microseconds.
    pub(crate) low_us: i64,
    /// The greatest right time − left time, microseconds.
    pub(crate) high_us: i64,
    /// How late a row may come, microseconds.
    pub(crate) lateness_us: i64,
    /// How far the times of each side's rows may lie behind the watermark by what the side itself waits for.
    pub(crate) behind_us: [i64; 2],
    /// Whether NULL is a key like others; in most joins it is equal to nothing.
    pub(crate) null_equals_null: bool,
    /// A further condition over the joined columns.
    pub(crate) filter: Option<Computed>,
    /// The side whose rows are said with nulls when nothing matched them: 0 for LEFT JOIN, 1 for RIGHT JOIN.
    pub(crate) outer: Option<usize>,
    /// The columns of the left side and the right side.
    pub(crate) schema: SchemaRef,
}

/// One side of the join.
pub(crate) struct SidePlan {
    /// What must be equal on both sides.
    pub(crate) keys: KeyBytes,
    /// The time that is bound.
    pub(crate) time: Computed,
    /// Its columns.
    pub(crate) schema: SchemaRef,
}

/// The operator.
pub(crate) struct IntervalJoin {
    plan: IntervalJoinPlan,
    rows: Waiting,
    /// Numbers rows in the order in which they came: rows of one time keep it.
    next_number: u64,
    /// What has changed since the last capture.
    noting: Option<Noting<KeptAt>>,
}

/// A row's place in time.
type Place = (i64, u64);

/// The rows that may still find others.
#[derive(Default)]
struct Waiting {
    /// By key, those of both sides together: where a row looks for others it is kept itself. In a tree: a hash table that grows
    /// moves all keys at once. In boxes, since a tree moves entries with each that comes.
    keys: BTreeMap<HashedKey, Box<OfKey>>,
    /// The rows of each side by time, which is the order in which they are forgotten, with their keys.
    order: [BTreeMap<Place, HashedKey>; 2],
    bytes: usize,
}

/// The rows of one key, those of the left side and those of the right.
type OfKey = [OfSide; 2];

/// The rows of one key and side; of most keys there is one at most.
#[derive(Default)]
enum OfSide {
    #[default]
    None,
    One(Place, Kept),
    Many(BTreeMap<Place, Kept>),
}

/// A row that waits for others.
struct Kept {
    values: Arc<[Value]>,
    watermark: i64,
    cause: Option<Arc<str>>,
    is_matched: bool,
    mark: Mark,
}

/// A side, and a row's place on it.
type KeptAt = (usize, Place);

impl Kept {
    fn size(&self) -> usize {
        let cause = self.cause.as_ref().map_or(0, |cause| shared_bytes(cause.len()));
        BYTES_PER_ROW + cause + row_bytes(&self.values)
    }
}

impl Waiting {
    /// Gives a row its place in the order, and the rows of its key, among which it is to be kept.
    fn place(&mut self, side: usize, place: Place, key: HashedKey) -> &mut OfKey {
        match self.keys.entry(key) {
            Entry::Occupied(of_key) => {
                self.order[side].insert(place, of_key.key().clone());
                of_key.into_mut()
            }
            Entry::Vacant(new) => {
                self.order[side].insert(place, new.key().clone());
                self.bytes += key_size(new.key());
                new.insert(Box::default())
            }
        }
    }

    /// Takes the earliest row of a side out, if its time is before `time`.
    fn take_before(&mut self, side: usize, time: i64) -> Option<(Place, Kept)> {
        let first = self.order[side].first_entry().filter(|entry| entry.key().0 < time)?;
        let (place, key) = first.remove_entry();
        let Entry::Occupied(mut of_key) = self.keys.entry(key) else {
            return None;
        };
        let row = of_key.get_mut()[side].remove(place)?;
        self.bytes -= row.size();
        if of_key.get().iter().all(OfSide::is_empty) {
            self.bytes -= key_size(of_key.key());
            of_key.remove();
        }
        Some((place, row))
    }
}

impl OfSide {
    fn is_empty(&self) -> bool {
        match self {
            OfSide::None => true,
            OfSide::One(..) => false,
            OfSide::Many(rows) => rows.is_empty(),
        }
    }

    fn insert(&mut self, place: Place, row: Kept) {
        *self = match std::mem::take(self) {
            OfSide::None => OfSide::One(place, row),
            OfSide::One(first, of_first) => OfSide::Many(BTreeMap::from([(first, of_first), (place, row)])),
            OfSide::Many(mut rows) => {
                rows.insert(place, row);
                OfSide::Many(rows)
            }
        };
    }

    fn remove(&mut self, place: Place) -> Option<Kept> {
        match std::mem::take(self) {
            OfSide::One(only, row) if only == place => Some(row),
            OfSide::Many(mut rows) => {
                let row = rows.remove(&place);
                if !rows.is_empty() {
                    *self = OfSide::Many(rows);
                }
                row
            }
            other => {
                *self = other;
                None
            }
        }
    }

    fn get(&self, place: Place) -> Option<&Kept> {
        match self {
            OfSide::One(only, row) if *only == place => Some(row),
            OfSide::Many(rows) => rows.get(&place),
            _ => None,
        }
    }

    fn get_mut(&mut self, place: Place) -> Option<&mut Kept> {
        match self {
            OfSide::One(only, row) if *only == place => Some(row),
            OfSide::Many(rows) => rows.get_mut(&place),
            _ => None,
        }
    }

    /// The rows whose times lie between two.
    fn between(&mut self, from: i64, to: i64) -> impl Iterator<Item = (Place, &mut Kept)> {
        // No row has the last number.
        let behind = if from <= to { (to, u64::MAX) } else { (from, 0) };
        let (one, many) = match self {
            OfSide::None => (None, None),
            OfSide::One(only, row) => (((from, 0)..behind).contains(only).then_some((*only, row)), None),
            OfSide::Many(rows) => (None, Some(rows.range_mut((from, 0)..behind))),
        };
        let many = many.into_iter().flatten().map(|(place, row)| (*place, row));
        one.into_iter().chain(many)
    }
}

impl IntervalJoinPlan {
    /// How far after its own time the last time lies that a row of `side` may find on the other side.
    fn reach_us(&self, side: usize) -> i64 {
        if side == 0 { self.high_us } else { -self.low_us }
    }

    /// The times that a row of `side` may find on the other side.
    fn partners(&self, side: usize, time: i64) -> (i64, i64) {
        let (from, to) = if side == 0 {
            (self.low_us, self.high_us)
        } else {
            (-self.high_us, -self.low_us)
        };
        (time.saturating_add(from), time.saturating_add(to))
    }

    /// Joined rows that may be said at once.
    fn said_at_once_max(&self) -> usize {
        SAID_AT_ONCE_MAX / (size_of::<Row>() + self.schema.fields().len().max(1) * size_of::<Value>())
    }

    fn says_too_much(&self) -> DataFusionError {
        exec_datafusion_err!(
            "rows that came at once are joined with so many others that they would say more than {} rows of {} columns; a \
             shorter interval between the two times, or a further column that has to be equal, would be right",
            self.said_at_once_max(),
            self.schema.fields().len()
        )
    }

    /// A row of `side` beside one of the other side, in the order of the output.
    fn beside(side: usize, row: &[Value], other: &[Value]) -> Arc<[Value]> {
        let (first, second) = if side == 0 { (row, other) } else { (other, row) };
        first.iter().chain(second).cloned().collect()
    }

    /// A row of the outer side that nothing matched.
    fn unmatched(&self, side: usize, row: &[Value], watermark: i64, cause: Option<Arc<str>>) -> Row {
        let nothing = vec![Value::Null; self.sides[1 - side].schema.fields().len()];
        Row {
            schema: Arc::clone(&self.schema),
            values: Self::beside(side, row, &nothing),
            watermark,
            cause,
        }
    }
}

fn key_size(key: &HashedKey) -> usize {
    BYTES_PER_KEY + shared_bytes(key.bytes().len())
}

impl IntervalJoin {
    /// A join in which nothing waits yet.
    pub(crate) fn new(plan: IntervalJoinPlan) -> Self {
        Self {
            plan,
            rows: Waiting::default(),
            next_number: 0,
            noting: None,
        }
    }

    fn push_row(&mut self, side: usize, row: &Row, context: &mut Context<'_>, said: &mut Vec<Row>) -> Result<()> {
        let plan = &self.plan;
        let Value::Time(time) = plan.sides[side].time.value(&row.values)? else {
            // Without a time nothing lies within a bound of it: there is nothing to wait for.
            if plan.outer == Some(side) {
                said.push(plan.unmatched(side, &row.values, row.watermark, row.cause.clone()));
            }
            return Ok(());
        };
        let allowed_us = plan.lateness_us.saturating_add(plan.behind_us[side]);
        if time < row.watermark.saturating_sub(allowed_us) {
            context.late.push(LateRow {
                event_id: row.cause.as_deref().map(str::to_owned),
                event_time: time,
                watermark: row.watermark,
                reason: PARTNERS_WERE_FINAL,
            });
            return Ok(());
        }
        let key = plan.sides[side].keys.of(&row.values)?;
        let finds_nothing = key.has_null && !plan.null_equals_null;
        if finds_nothing && plan.outer != Some(side) {
            return Ok(());
        }
        let place = (time, self.next_number);
        self.next_number += 1;
        let mut is_matched = false;
        let (from, to) = plan.partners(side, time);
        let of_key = self.rows.place(side, place, key.hashed);
        // A key with a null is kept under its bytes like others, and no row looks there.
        let partners = (!finds_nothing).then(|| of_key[1 - side].between(from, to));
        for (found_at, found) in partners.into_iter().flatten() {
            let values = IntervalJoinPlan::beside(side, &row.values, &found.values);
            if let Some(filter) = &plan.filter
                && !filter.holds(&values)?
            {
                continue;
            }
            is_matched = true;
            if !std::mem::replace(&mut found.is_matched, true)
                && let Some(noting) = &mut self.noting
            {
                noting.note(&mut found.mark, (1 - side, found_at));
            }
            if said.len() >= plan.said_at_once_max() {
                return Err(plan.says_too_much());
            }
            // The row that came later made the pair. Of rows that met the same watermark nobody knows that, however
            // they were batched: there it is the one of the later time, and the right one of the same time.
            let is_later = (row.watermark, time, side) > (found.watermark, found_at.0, 1 - side);
            said.push(Row {
                schema: Arc::clone(&plan.schema),
                values,
                watermark: row.watermark.max(found.watermark),
                cause: if is_later {
                    row.cause.clone()
                } else {
                    found.cause.clone()
                },
            });
        }
        let kept = Kept {
            values: row.values.iter().cloned().map(Value::alone).collect::<Result<_>>()?,
            watermark: row.watermark,
            cause: row.cause.clone(),
            is_matched,
            mark: Mark::New,
        };
        if let Some(noting) = &mut self.noting {
            noting.note_new((side, place));
        }
        let size = kept.size();
        of_key[side].insert(place, kept);
        self.rows.bytes += size;
        Ok(())
    }
}

impl Operator for IntervalJoin {
    fn push(&mut self, rows: Rows, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        self.push_input(0, rows, context, out)
    }

    fn push_input(&mut self, input: usize, rows: Rows, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        let mut said = Vec::new();
        match rows {
            Rows::One(row) => {
                self.push_row(input, &row, context, &mut said)?;
                out.extend(said.into_iter().map(Rows::One));
            }
            Rows::Many(flow) => {
                for row in 0..flow.num_rows() {
                    self.push_row(input, &Row::of(&flow, row), context, &mut said)?;
                }
                if !said.is_empty() {
                    out.push(Rows::of(&self.plan.schema, said)?);
                }
            }
        }
        Ok(())
    }

    /// Forgets the rows that nothing can find any more. This is done here and not when rows come: those of two streams
    /// come one stream after the other, and the second may bring partners that met earlier watermarks.
    ///
    /// The watermark is that of the slower side; what is said meets the watermark of all.
    fn advance(
        &mut self,
        watermark: i64,
        part: usize,
        _context: &mut Context<'_>,
        out: &mut Vec<Rows>,
    ) -> Result<Progress> {
        let mut room = part;
        let behind_us = self.plan.behind_us[0].max(self.plan.behind_us[1]);
        for side in 0..2 {
            let wait_us = self.plan.reach_us(side).saturating_add(self.plan.lateness_us);
            let mut said = Vec::new();
            while room > 0
                && let Some(((time, number), row)) = self.rows.take_before(side, watermark.saturating_sub(wait_us))
            {
                room -= 1;
                if let Some(noting) = &mut self.noting {
                    noting.note_gone(row.mark, Id::of_row(number));
                }
                if self.plan.outer == Some(side) && !row.is_matched {
                    // As if it had been said the moment it was certain, however far the watermark has jumped.
                    let certain = time.saturating_add(wait_us).saturating_add(1).saturating_add(behind_us);
                    let certain = certain.max(row.watermark);
                    said.push(self.plan.unmatched(side, &row.values, certain, row.cause));
                }
            }
            if !said.is_empty() {
                out.push(Rows::of(&self.plan.schema, said)?);
            }
        }
        // With room to spare nothing is left.
        Ok(if room == 0 { Progress::Left } else { Progress::Done })
    }

    fn next_due(&self) -> i64 {
        let due = (0..2).filter_map(|side| {
            let ((time, _), _) = self.rows.order[side].first_key_value()?;
            let wait_us = self.plan.reach_us(side).saturating_add(self.plan.lateness_us);
            Some(time.saturating_add(wait_us).saturating_add(1))
        });
        due.min().unwrap_or(i64::MAX)
    }

    fn lag_us(&self) -> i64 {
        let apart = self.plan.high_us.max(-self.plan.low_us).max(0);
        // A row that nothing matched is certain a microsecond after the last that could have matched it.
        apart.saturating_add(self.plan.lateness_us).saturating_add(1)
    }

    /// Each side is behind by what it waits for itself, and rows are judged by that.
    fn reads_watermarks(&self) -> bool {
        false
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

    fn snapshot(&mut self) -> Result<Option<arrow::array::RecordBatch>> {
        self.keep().map(Some)
    }

    fn restore(&mut self, snapshot: &arrow::array::RecordBatch) -> Result<()> {
        self.take_back(snapshot)
    }

    fn footprint(&self) -> Footprint {
        Footprint {
            keys: self.rows.keys.len(),
            windows: 0,
            bytes: self.rows.bytes,
        }
    }

    fn describe(&self) -> String {
        let kind = match self.plan.outer {
            None => "Join",
            Some(0) => "Left join",
            Some(_) => "Right join",
        };
        let [left, right] = &self.plan.sides;
        let mut conditions: Vec<String> = left
            .keys
            .columns()
            .iter()
            .zip(right.keys.columns())
            .map(|(left, right)| format!("{left} = {right}"))
            .collect();
        conditions.push(format!(
            "{} - {} from {} to {}",
            right.time,
            left.time,
            shown_us(self.plan.low_us),
            shown_us(self.plan.high_us)
        ));
        conditions.extend(self.plan.filter.as_ref().map(ToString::to_string));
        format!("{kind} of two streams: {}", conditions.join(" AND "))
    }
}
