//! What an aggregate remembers over a restart, as Arrow data.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Int64Type, Schema};
use datafusion::common::{Result, internal_datafusion_err};

use super::Aggregate;
use crate::keys::Group;
use crate::operator::batch_of;
use crate::slot::Slot;
use crate::window::Span;

impl Aggregate {
    /// Groups, accumulators and what was said of them, a row a slot and group; times in the schema's metadata.
    pub(super) fn keep(&mut self) -> Result<RecordBatch> {
        let mut parts = Vec::new();
        for (span, slot) in &mut self.slots {
            let members = slot.members.clone();
            let rows = members.len();
            let mut columns: Vec<(String, ArrayRef)> = vec![
                ("start".into(), Arc::new(Int64Array::from_value(span.start, rows))),
                ("end".into(), Arc::new(Int64Array::from_value(span.end, rows))),
                ("said".into(), Arc::new(BooleanArray::from(vec![slot.said; rows]))),
                (
                    "changed".into(),
                    Arc::new(
                        members
                            .iter()
                            .map(|group| Some(slot.has_changed(*group)))
                            .collect::<BooleanArray>(),
                    ),
                ),
                (
                    "told".into(),
                    Arc::new(
                        members
                            .iter()
                            .map(|group| Some(slot.was_told(*group)))
                            .collect::<BooleanArray>(),
                    ),
                ),
                (
                    "touched".into(),
                    Arc::new(Int64Array::from_iter_values(
                        members
                            .iter()
                            .map(|group| slot.touched.get(*group as usize).copied().unwrap_or(i64::MIN)),
                    )),
                ),
                (
                    "cause".into(),
                    Arc::new(
                        members
                            .iter()
                            .map(|group| slot.causes.get(*group as usize).and_then(|cause| cause.as_deref()))
                            .collect::<StringArray>(),
                    ),
                ),
            ];
            for (index, column) in self.keys.columns(&members)?.into_iter().enumerate() {
                columns.push((format!("key{index}"), column));
            }
            for (index, accumulator) in slot.accumulators.iter_mut().enumerate() {
                for (part, column) in accumulator.state(&members)?.into_iter().enumerate() {
                    columns.push((format!("aggregate{index}_{part}"), column));
                }
            }
            let fields: Vec<Field> = columns
                .iter()
                .map(|(name, column)| Field::new(name, column.data_type().clone(), true))
                .collect();
            let schema = Arc::new(Schema::new(fields));
            parts.push(batch_of(
                &schema,
                columns.into_iter().map(|(_, column)| column).collect(),
                rows,
            )?);
        }
        let times = HashMap::from([
            ("watermark".to_owned(), self.watermark.to_string()),
            ("said_until".to_owned(), self.said_until.to_string()),
            ("final_until".to_owned(), self.final_until.to_string()),
            ("next_emit".to_owned(), self.next_emit.to_string()),
        ]);
        let whole = match parts.first() {
            Some(first) => arrow::compute::concat_batches(&first.schema(), &parts)?,
            None => RecordBatch::new_empty(Arc::new(Schema::empty())),
        };
        let schema = Arc::new(whole.schema().as_ref().clone().with_metadata(times));
        Ok(whole.with_schema(schema)?)
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
        if snapshot.num_rows() == 0 {
            return Ok(());
        }
        let column = |name: &str| {
            snapshot
                .column_by_name(name)
                .ok_or_else(|| internal_datafusion_err!("the snapshot has no column '{name}'"))
        };
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
            self.restore_slot(span(from), &part, &groups[from..to])?;
            from = to;
        }
        Ok(())
    }

    fn restore_slot(&mut self, span: Span, part: &RecordBatch, groups: &[Group]) -> Result<()> {
        let column = |name: &str| {
            part.column_by_name(name)
                .ok_or_else(|| internal_datafusion_err!("the snapshot has no column '{name}'"))
        };
        let mut slot = Slot::new(&self.plan);
        slot.resize(self.keys.capacity(), &self.plan);
        slot.said = column("said")?.as_boolean().value(0);
        let changed = column("changed")?.as_boolean();
        let told = column("told")?.as_boolean();
        let touched = column("touched")?.as_primitive::<Int64Type>();
        let causes = column("cause")?.as_string::<i32>();
        for (row, group) in groups.iter().enumerate() {
            slot.enter(*group);
            self.keys.hold(*group);
            if changed.value(row) {
                slot.note_change(*group);
                self.changed.insert(span);
            }
            if told.value(row) {
                slot.note_told(*group);
            }
            if self.plan.ttl_us.is_some() {
                slot.touched[*group as usize] = touched.value(row);
            }
            if self.plan.keeps_causes && causes.is_valid(row) {
                slot.causes[*group as usize] = Some(causes.value(row).into());
            }
        }
        for (index, accumulator) in slot.accumulators.iter_mut().enumerate() {
            let state = (0..accumulator.state_width())
                .map(|of| column(&format!("aggregate{index}_{of}")).cloned())
                .collect::<Result<Vec<_>>>()?;
            accumulator.restore(groups, &state)?;
        }
        self.slots.insert(span, slot);
        Ok(())
    }
}
