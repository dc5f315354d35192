//! What a join of two streams remembers over a restart, as Arrow data.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Int64Type, Schema};
use datafusion::common::{Result, internal_datafusion_err};

use super::{IntervalJoin, Kept, Place, Side};
use crate::operator::batch_of;
use crate::value::{Value, column_of};

impl IntervalJoin {
    /// The rows of both sides, first the left one's, each in the order of time; a row has nulls in the other's columns.
    pub(super) fn keep(&self) -> Result<RecordBatch> {
        let rows: Vec<(usize, &Kept)> = (0..2).flat_map(|side| self.sides[side].in_order(side)).collect();
        let mut columns: Vec<(String, ArrayRef)> = vec![
            (
                "side".into(),
                Arc::new(StringArray::from_iter_values(rows.iter().map(|(side, _)| NAMES[*side]))),
            ),
            (
                "watermark".into(),
                Arc::new(rows.iter().map(|(_, row)| row.watermark).collect::<Int64Array>()),
            ),
            (
                "cause".into(),
                Arc::new(
                    rows.iter()
                        .map(|(_, row)| row.cause.as_deref())
                        .collect::<StringArray>(),
                ),
            ),
            (
                "is_matched".into(),
                Arc::new(
                    rows.iter()
                        .map(|(_, row)| Some(row.is_matched))
                        .collect::<BooleanArray>(),
                ),
            ),
        ];
        for (side, plan) in self.plan.sides.iter().enumerate() {
            for (index, field) in plan.schema.fields().iter().enumerate() {
                let cells = rows
                    .iter()
                    .map(|(of, row)| if *of == side { &row.values[index] } else { &Value::Null });
                columns.push((name(side, index), column_of(field.data_type(), cells)?));
            }
        }
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, column)| Field::new(name, column.data_type().clone(), true))
            .collect();
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        batch_of(&Arc::new(Schema::new(fields)), columns, rows.len())
    }

    /// Takes back what `keep` gave.
    pub(super) fn take_back(&mut self, snapshot: &RecordBatch) -> Result<()> {
        let column = |name: &str| {
            snapshot
                .column_by_name(name)
                .ok_or_else(|| internal_datafusion_err!("the snapshot has no column '{name}'"))
        };
        let sides = column("side")?.as_string::<i32>();
        let watermarks = column("watermark")?.as_primitive::<Int64Type>();
        let causes = column("cause")?.as_string::<i32>();
        let matched = column("is_matched")?.as_boolean();
        for row in 0..snapshot.num_rows() {
            let side = usize::from(sides.value(row) != NAMES[0]);
            let plan = &self.plan.sides[side];
            let values: Arc<[Value]> = (0..plan.schema.fields().len())
                .map(|index| Value::at(column(&name(side, index))?, row).alone())
                .collect::<Result<_>>()?;
            let Value::Time(time) = plan.time.value(&values)? else {
                return Err(internal_datafusion_err!("the snapshot has a row without a time"));
            };
            let key = plan.keys.of(&values)?;
            let kept = Kept {
                values,
                watermark: watermarks.value(row),
                cause: causes.is_valid(row).then(|| causes.value(row).into()),
                is_matched: matched.value(row),
            };
            let place = (time, self.next_number);
            self.next_number += 1;
            self.sides[side].insert(&key.bytes, place, kept);
        }
        Ok(())
    }
}

const NAMES: [&str; 2] = ["left", "right"];

fn name(side: usize, column: usize) -> String {
    format!("{}{column}", NAMES[side])
}

impl Side {
    fn in_order(&self, side: usize) -> impl Iterator<Item = (usize, &Kept)> {
        let row = |(place, key): (&Place, &Arc<[u8]>)| self.rows.get(key).and_then(|rows| rows.get(place));
        self.order.iter().filter_map(row).map(move |row| (side, row))
    }
}
