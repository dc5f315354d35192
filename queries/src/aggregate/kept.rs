//! What an aggregate remembers over a restart, as Arrow data.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Int64Type, Schema};
use datafusion::common::{Result, internal_datafusion_err};
use rustc_hash::FxHashSet;

use super::Aggregate;
use super::waiting::is_of_waiting;
use crate::capture::named_batch;
use crate::keys::{Group, KeyStore};
use crate::slot::Slot;
use crate::window::Span;

const TOLD: &str = "told";
/// The watermark at a group's last row; of rows that wait, the one they met.
const TOUCHED: &str = "touched";

impl Aggregate {
    /// Groups, accumulators and what was said of them, a row a slot and group; times in the schema's metadata. Of some of
    /// the keys and aggregates, numbered as they are handed in.
    pub(super) fn keep(&mut self, keys: &[usize], calls: &[usize]) -> Result<RecordBatch> {
        let mut parts = Vec::new();
        // Of a window of panes that is being said, its panes tell which groups were.
        let being_said: FxHashSet<Group> = match &self.merging {
            Some(merging) => merging.said().iter().chain(&self.already_said).copied().collect(),
            None => self.already_said.clone(),
        };
        for (span, slot) in &mut self.slots {
            let members = slot.members.clone();
            let rows = members.len();
            let mut columns: Vec<(String, ArrayRef)> = vec![
                ("start".into(), Arc::new(Int64Array::from_value(span.start, rows))),
                ("end".into(), Arc::new(Int64Array::from_value(span.end, rows))),
                ("said".into(), Arc::new(BooleanArray::from(vec![slot.said; rows]))),
                (
                    "cursor".into(),
                    Arc::new(Int64Array::from_value(slot.cursor() as i64, rows)),
                ),
            ];
            columns.extend(Self::group_columns(
                &self.keys,
                (slot, &members),
                &members,
                keys,
                calls,
            )?);
            if !being_said.is_empty()
                && let Some((_, told)) = columns.iter_mut().find(|(name, _)| name == TOLD)
            {
                let was_told = members
                    .iter()
                    .map(|group| Some(slot.was_told(*group) || being_said.contains(group)));
                *told = Arc::new(was_told.collect::<BooleanArray>());
            }
            parts.push(named_batch(columns, rows)?);
        }
        parts.extend(self.each_party(|store, met, entries, (groups, places), sums| {
            let rows = entries.len();
            let kept_at = |of: fn(Span) -> i64| -> ArrayRef {
                Arc::new(Int64Array::from_iter_values(
                    entries.iter().map(|entry| of(entry.kept_as().0)),
                ))
            };
            let mut columns: Vec<(String, ArrayRef)> = vec![
                ("start".into(), kept_at(|span| span.start)),
                ("end".into(), kept_at(|span| span.end)),
                ("said".into(), Arc::new(BooleanArray::from(vec![false; rows]))),
                ("cursor".into(), Arc::new(Int64Array::from_value(0, rows))),
            ];
            columns.extend(Self::waiting_columns(store, met, (groups, places), sums, keys, calls)?);
            named_batch(columns, rows)
        })?);
        let times = self.times();
        let whole = match parts.first() {
            Some(first) => arrow::compute::concat_batches(&first.schema(), &parts)?,
            None => RecordBatch::new_empty(Arc::new(Schema::empty())),
        };
        let schema = Arc::new(whole.schema().as_ref().clone().with_metadata(times));
        Ok(whole.with_schema(schema)?)
    }

    /// What an aggregate has to remember of time.
    pub(super) fn times(&self) -> HashMap<String, String> {
        HashMap::from([
            ("watermark".to_owned(), self.watermark.to_string()),
            ("said_until".to_owned(), self.said_until.to_string()),
            ("final_until".to_owned(), self.final_until.to_string()),
            ("next_emit".to_owned(), self.next_emit.to_string()),
            ("before".to_owned(), self.closing.before.to_string()),
            ("is_closing".to_owned(), self.closing.is_left.to_string()),
        ])
    }

    /// What is kept of rows that wait, which met `met`.
    pub(super) fn waiting_columns(
        store: &KeyStore,
        met: i64,
        (groups, places): (&[Group], &[Group]),
        sums: &mut Slot,
        keys: &[usize],
        calls: &[usize],
    ) -> Result<Vec<(String, ArrayRef)>> {
        let mut columns = Self::group_columns(store, (sums, places), groups, keys, calls)?;
        if let Some((_, touched)) = columns.iter_mut().find(|(name, _)| name == TOUCHED) {
            *touched = Arc::new(Int64Array::from_value(met, groups.len()));
        }
        Ok(columns)
    }

    /// What is kept of groups that stand at these places of a slot: a column each for what was said of them, their keys and
    /// their aggregates.
    pub(super) fn group_columns(
        store: &KeyStore,
        (slot, places): (&mut Slot, &[Group]),
        groups: &[Group],
        keys: &[usize],
        calls: &[usize],
    ) -> Result<Vec<(String, ArrayRef)>> {
        let flags = |of: &dyn Fn(Group) -> bool| -> ArrayRef {
            Arc::new(BooleanArray::from(
                places.iter().map(|place| of(*place)).collect::<Vec<_>>(),
            ))
        };
        let touched = |place: &Group| slot.touched[*place as usize];
        let cause = |place: &Group| slot.causes[*place as usize].as_deref();
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("changed".into(), flags(&|place| slot.has_changed(place))),
            (TOLD.into(), flags(&|place| slot.was_told(place))),
            (
                TOUCHED.into(),
                Arc::new(Int64Array::from_iter_values(places.iter().map(touched))),
            ),
            (
                "cause".into(),
                Arc::new(places.iter().map(cause).collect::<StringArray>()),
            ),
        ];
        let key_columns = store.columns(groups)?;
        for (index, key) in keys.iter().enumerate() {
            columns.push((format!("key{index}"), Arc::clone(&key_columns[*key])));
        }
        for (index, call) in calls.iter().enumerate() {
            let state = slot.accumulators[*call].state(places)?;
            for (part, column) in state.into_iter().enumerate() {
                columns.push((format!("aggregate{index}_{part}"), column));
            }
        }
        Ok(columns)
    }

    /// Takes back what `keep` gave.
    pub(super) fn take_back(&mut self, snapshot: &RecordBatch) -> Result<()> {
        let schema = snapshot.schema();
        let time = |name: &str| {
            schema
                .metadata()
                .get(name)
                .and_then(|text| text.parse().ok())
                .unwrap_or(i64::MIN)
        };
        self.watermark = time("watermark");
        self.turn = self.turn_after(self.watermark);
        self.said_until = time("said_until");
        self.final_until = time("final_until");
        self.next_emit = time("next_emit");
        self.closing.before = time("before");
        self.closing.is_left = schema.metadata().get("is_closing").is_some_and(|text| text == "true");
        if snapshot.num_rows() == 0 {
            return Ok(());
        }
        let column = |name: &str| column(snapshot, name);
        let starts = column("start")?.as_primitive::<Int64Type>().clone();
        let ends = column("end")?.as_primitive::<Int64Type>().clone();
        let span = |row: usize| Span {
            end: ends.value(row),
            start: starts.value(row),
        };
        let keys = (0..self.plan.keys.len())
            .map(|index| column(&format!("key{index}")).cloned())
            .collect::<Result<Vec<_>>>()?;
        let mut groups = Vec::new();
        self.keys.intern(&keys, snapshot.num_rows(), &mut groups)?;
        let mut from = 0;
        while from < snapshot.num_rows() {
            let to = (from..snapshot.num_rows())
                .find(|row| span(*row) != span(from))
                .unwrap_or(snapshot.num_rows());
            let part = snapshot.slice(from, to - from);
            if is_of_waiting(span(from)) {
                self.restore_party(span(from), &part, &groups[from..to])?;
            } else {
                self.restore_slot(span(from), &part, &groups[from..to])?;
            }
            from = to;
        }
        Ok(())
    }

    /// Rows that wait, of one pane.
    fn restore_party(&mut self, kept_at: Span, part: &RecordBatch, groups: &[Group]) -> Result<()> {
        let met = column(part, TOUCHED)?.as_primitive::<Int64Type>();
        let causes = column(part, "cause")?.as_string::<i32>();
        let keeps_causes = self.plan.keeps_causes;
        for (row, group) in groups.iter().enumerate() {
            let Some((sums, place)) = self.restore_waiting(kept_at, *group, met.value(row)) else {
                continue;
            };
            if keeps_causes && causes.is_valid(row) {
                sums.causes[place as usize] = Some(causes.value(row).into());
            }
            restore_accumulators(sums, &[place], &part.slice(row, 1))?;
        }
        Ok(())
    }

    fn restore_slot(&mut self, span: Span, part: &RecordBatch, groups: &[Group]) -> Result<()> {
        let column = |name: &str| column(part, name);
        let mut slot = Slot::new(&self.plan);
        slot.said = column("said")?.as_boolean().value(0);
        let changed = column("changed")?.as_boolean();
        let told = column("told")?.as_boolean();
        let touched = column(TOUCHED)?.as_primitive::<Int64Type>();
        let causes = column("cause")?.as_string::<i32>();
        for (row, group) in groups.iter().enumerate() {
            slot.enter(*group);
            self.keys.hold(*group);
            if changed.value(row) {
                slot.note_change(*group);
                self.changed.insert(span);
            }
            if told.value(row) && self.panes.is_some() {
                self.already_said.insert(*group);
            } else if told.value(row) {
                slot.note_told(*group);
            }
            if self.plan.ttl_us.is_some() {
                slot.touched[*group as usize] = touched.value(row);
            }
            if self.plan.keeps_causes && causes.is_valid(row) {
                slot.causes[*group as usize] = Some(causes.value(row).into());
            }
        }
        // Earlier versions said windows at once.
        if let Ok(cursor) = column("cursor") {
            slot.set_cursor(usize::try_from(cursor.as_primitive::<Int64Type>().value(0)).unwrap_or(0));
        }
        restore_accumulators(&mut slot, groups, part)?;
        self.slots.insert(span, slot);
        Ok(())
    }
}

fn column<'a>(snapshot: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    snapshot
        .column_by_name(name)
        .ok_or_else(|| internal_datafusion_err!("the snapshot has no column '{name}'"))
}

/// Takes back the state of each aggregate: row i belongs to `places[i]` of the slot.
fn restore_accumulators(slot: &mut Slot, places: &[Group], part: &RecordBatch) -> Result<()> {
    for (index, accumulator) in slot.accumulators.iter_mut().enumerate() {
        let state = (0..accumulator.state_width())
            .map(|of| column(part, &format!("aggregate{index}_{of}")).cloned())
            .collect::<Result<Vec<_>>>()?;
        accumulator.restore(places, &state)?;
    }
    Ok(())
}
