//! What waits for a key's absence, as Arrow data over a restart.

use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use datafusion::common::{Result, internal_datafusion_err};

use super::{Absence, Spell, Waiting};
use crate::capture::named_batch;
use crate::capture::noting::{Id, KeepsRows, Mark, Noting, Rows};
use crate::value::{Value, column_of};

impl Absence {
    /// A row a spell, in the order in which they run out.
    pub(super) fn keep(&self) -> Result<RecordBatch> {
        let spells: Vec<&Spell> = self.order.keys().filter_map(|place| self.spell(*place)).collect();
        named_batch(self.columns(&spells)?, spells.len())
    }

    fn spell(&self, place: (i64, u64)) -> Option<&Spell> {
        let of_key = self.spells.get(self.order.get(&place)?)?;
        of_key.iter().find(|spell| (spell.last, spell.number) == place)
    }

    fn columns(&self, spells: &[&Spell]) -> Result<Vec<(String, ArrayRef)>> {
        let numbers = |of: fn(&Spell) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(spells.iter().map(|spell| of(spell))))
        };
        let causes = spells.iter().map(|spell| spell.row.cause.as_deref());
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("first".into(), numbers(|spell| spell.first)),
            ("last".into(), numbers(|spell| spell.last)),
            ("number".into(), numbers(|spell| Id::of_row(spell.number).number)),
            ("watermark".into(), numbers(|spell| spell.row.watermark)),
            ("cause".into(), Arc::new(causes.collect::<StringArray>())),
        ];
        for (index, field) in self.input_fields().iter().enumerate() {
            let cells = spells.iter().map(|spell| &spell.row.values[index]);
            columns.push((format!("column{index}"), column_of(field.data_type(), cells)?));
        }
        Ok(columns)
    }

    /// Takes back what `keep` gave.
    pub(super) fn take_back(&mut self, snapshot: &RecordBatch) -> Result<()> {
        if snapshot.num_rows() == 0 {
            return Ok(());
        }
        let column = |name: &str| {
            snapshot
                .column_by_name(name)
                .ok_or_else(|| internal_datafusion_err!("the snapshot has no column '{name}'"))
        };
        let firsts = column("first")?.as_primitive::<Int64Type>();
        let lasts = column("last")?.as_primitive::<Int64Type>();
        let watermarks = column("watermark")?.as_primitive::<Int64Type>();
        let causes = column("cause")?.as_string::<i32>();
        let numbers = column("number")?.as_primitive::<Int64Type>();
        // Spells that run out at one time do so in the order of their numbers.
        let mut order: Vec<usize> = (0..snapshot.num_rows()).collect();
        order.sort_by_key(|row| (lasts.value(*row), numbers.value(*row)));
        for row in order {
            let values: Arc<[Value]> = (0..self.input_fields().len())
                .map(|index| Value::at(column(&format!("column{index}"))?, row).alone())
                .collect::<Result<_>>()?;
            let key = self.plan.keys.of(&values)?.hashed;
            let waiting = Waiting {
                values,
                watermark: watermarks.value(row),
                cause: causes.is_valid(row).then(|| causes.value(row).into()),
            };
            self.insert(key, firsts.value(row), lasts.value(row), waiting)?;
        }
        Ok(())
    }

    /// The columns of the input: those of the output without the last, which tells the absence.
    fn input_fields(&self) -> &[arrow::datatypes::FieldRef] {
        let fields = self.plan.schema.fields();
        &fields[..fields.len() - 1]
    }
}

impl KeepsRows for Absence {
    type Place = (i64, u64);

    fn noting(&mut self) -> &mut Option<Noting<(i64, u64)>> {
        &mut self.noting
    }

    fn behind(&self, last: Option<&(i64, u64)>, most: usize) -> Vec<(i64, u64)> {
        let from = last.map_or(Bound::Unbounded, |last| Bound::Excluded(*last));
        let behind = self.order.range((from, Bound::Unbounded));
        behind.map(|(place, _)| *place).take(most).collect()
    }

    fn mark(&mut self, place: &(i64, u64)) -> Option<&mut Mark> {
        let of_key = self.spells.get_mut(self.order.get(place)?)?;
        let spell = of_key.iter_mut().find(|spell| (spell.last, spell.number) == *place)?;
        Some(&mut spell.mark)
    }

    fn rows_at(&self, places: &[(i64, u64)]) -> Result<Rows> {
        let spells: Vec<&Spell> = places.iter().filter_map(|place| self.spell(*place)).collect();
        let ids = spells.iter().map(|spell| Id::of_row(spell.number)).collect();
        Ok((ids, self.columns(&spells)?))
    }

    fn rows_kept(&self) -> usize {
        self.order.len()
    }
}
