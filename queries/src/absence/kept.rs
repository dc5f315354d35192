//! What waits for a key's absence, as Arrow data over a restart.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Int64Type, Schema};
use datafusion::common::{Result, internal_datafusion_err};

use super::{Absence, Spell, Waiting};
use crate::operator::batch_of;
use crate::value::{Value, column_of};

impl Absence {
    /// A row a spell, in the order in which they run out.
    pub(super) fn keep(&self) -> Result<RecordBatch> {
        let spells: Vec<&Spell> = self
            .order
            .iter()
            .filter_map(|(place, key)| {
                let of_key = self.spells.get(key)?;
                of_key.iter().find(|spell| (spell.last, spell.number) == *place)
            })
            .collect();
        let mut columns: Vec<(String, ArrayRef)> = vec![
            (
                "first".into(),
                Arc::new(spells.iter().map(|spell| spell.first).collect::<Int64Array>()),
            ),
            (
                "last".into(),
                Arc::new(spells.iter().map(|spell| spell.last).collect::<Int64Array>()),
            ),
            (
                "watermark".into(),
                Arc::new(spells.iter().map(|spell| spell.row.watermark).collect::<Int64Array>()),
            ),
            (
                "cause".into(),
                Arc::new(
                    spells
                        .iter()
                        .map(|spell| spell.row.cause.as_deref())
                        .collect::<StringArray>(),
                ),
            ),
        ];
        for (index, field) in self.input_fields().iter().enumerate() {
            let cells = spells.iter().map(|spell| &spell.row.values[index]);
            columns.push((format!("column{index}"), column_of(field.data_type(), cells)?));
        }
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, column)| Field::new(name, column.data_type().clone(), true))
            .collect();
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        batch_of(&Arc::new(Schema::new(fields)), columns, spells.len())
    }

    /// Takes back what `keep` gave.
    pub(super) fn take_back(&mut self, snapshot: &RecordBatch) -> Result<()> {
        let column = |name: &str| {
            snapshot
                .column_by_name(name)
                .ok_or_else(|| internal_datafusion_err!("the snapshot has no column '{name}'"))
        };
        let firsts = column("first")?.as_primitive::<Int64Type>();
        let lasts = column("last")?.as_primitive::<Int64Type>();
        let watermarks = column("watermark")?.as_primitive::<Int64Type>();
        let causes = column("cause")?.as_string::<i32>();
        for row in 0..snapshot.num_rows() {
            let values: Arc<[Value]> = (0..self.input_fields().len())
                .map(|index| Value::at(column(&format!("column{index}"))?, row).alone())
                .collect::<Result<_>>()?;
            let key = self.plan.keys.of(&values)?.bytes;
            let waiting = Waiting {
                values,
                watermark: watermarks.value(row),
                cause: causes.is_valid(row).then(|| causes.value(row).into()),
            };
            self.insert(&key, firsts.value(row), lasts.value(row), waiting)?;
        }
        Ok(())
    }

    /// The columns of the input: those of the output without the last, which tells the absence.
    fn input_fields(&self) -> &[arrow::datatypes::FieldRef] {
        let fields = self.plan.schema.fields();
        &fields[..fields.len() - 1]
    }
}
