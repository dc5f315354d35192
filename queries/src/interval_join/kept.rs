//! What a join of two streams remembers over a restart, as Arrow data.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use datafusion::common::{Result, internal_datafusion_err};

use super::{IntervalJoin, Kept, KeptAt, Place, Waiting};
use crate::capture::named_batch;
use crate::capture::noting::{Id, KeepsRows, Mark, Noting, Rows};
use crate::value::{Value, column_of};

impl IntervalJoin {
    /// The rows of both sides, first the left one's, each in the order of time.
    pub(super) fn keep(&self) -> Result<RecordBatch> {
        let rows: Vec<Line<'_>> = (0..2).flat_map(|side| self.rows.in_order(side)).collect();
        named_batch(self.columns(&rows)?, rows.len())
    }

    /// Rows as columns; a row has nulls in those of the other side.
    fn columns(&self, rows: &[Line<'_>]) -> Result<Vec<(String, ArrayRef)>> {
        let names = rows.iter().map(|line| NAMES[line.side]);
        let numbers = rows.iter().map(|line| Id::of_row(line.place.1).number);
        let watermarks = rows.iter().map(|line| line.row.watermark);
        let causes = rows.iter().map(|line| line.row.cause.as_deref());
        let matched = rows.iter().map(|line| Some(line.row.is_matched));
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("side".into(), Arc::new(StringArray::from_iter_values(names))),
            ("number".into(), Arc::new(Int64Array::from_iter_values(numbers))),
            ("watermark".into(), Arc::new(Int64Array::from_iter_values(watermarks))),
            ("cause".into(), Arc::new(causes.collect::<StringArray>())),
            ("is_matched".into(), Arc::new(matched.collect::<BooleanArray>())),
        ];
        for (side, plan) in self.plan.sides.iter().enumerate() {
            for (index, field) in plan.schema.fields().iter().enumerate() {
                let cells = rows.iter().map(|line| match line.side == side {
                    true => &line.row.values[index],
                    false => &Value::Null,
                });
                columns.push((name(side, index), column_of(field.data_type(), cells)?));
            }
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
        let sides = column("side")?.as_string::<i32>();
        let watermarks = column("watermark")?.as_primitive::<Int64Type>();
        let causes = column("cause")?.as_string::<i32>();
        let matched = column("is_matched")?.as_boolean();
        let numbers = column("number")?.as_primitive::<Int64Type>();
        // In the order in which they came, which rows of one time keep.
        let mut order: Vec<usize> = (0..snapshot.num_rows()).collect();
        order.sort_by_key(|row| numbers.value(*row));
        for row in order {
            let side = usize::from(sides.value(row) != NAMES[0]);
            let plan = &self.plan.sides[side];
            let values: Arc<[Value]> = (0..plan.schema.fields().len())
                .map(|index| Value::at(column(&name(side, index))?, row).alone())
                .collect::<Result<_>>()?;
            let Value::Time(time) = plan.time.value(&values)? else {
                return Err(internal_datafusion_err!("the snapshot has a row without a time"));
            };
            let key = plan.keys.of(&values)?.hashed;
            let kept = Kept {
                values,
                watermark: watermarks.value(row),
                cause: causes.is_valid(row).then(|| causes.value(row).into()),
                is_matched: matched.value(row),
                mark: Mark::New,
            };
            let place = (time, self.next_number);
            self.next_number += 1;
            self.rows.bytes += kept.size();
            self.rows.place(side, place, key)[side].insert(place, kept);
        }
        Ok(())
    }
}

const NAMES: [&str; 2] = ["left", "right"];

fn name(side: usize, column: usize) -> String {
    format!("{}{column}", NAMES[side])
}

/// A kept row, and where it is.
#[derive(Clone, Copy)]
struct Line<'a> {
    side: usize,
    place: Place,
    row: &'a Kept,
}

impl Waiting {
    fn in_order(&self, side: usize) -> impl Iterator<Item = Line<'_>> {
        self.order[side].keys().filter_map(move |place| self.line(side, *place))
    }

    fn line(&self, side: usize, place: Place) -> Option<Line<'_>> {
        let row = self.keys.get(self.order[side].get(&place)?)?[side].get(place)?;
        Some(Line { side, place, row })
    }
}

impl KeepsRows for IntervalJoin {
    type Place = KeptAt;

    fn noting(&mut self) -> &mut Option<Noting<KeptAt>> {
        &mut self.noting
    }

    fn behind(&self, last: Option<&KeptAt>, most: usize) -> Vec<KeptAt> {
        let (from, place) = last.map_or((0, None), |(side, place)| (*side, Some(*place)));
        let of_side = |side: usize| {
            let begin = match place.filter(|_| side == from) {
                Some(place) => Bound::Excluded(place),
                None => Bound::Unbounded,
            };
            let places = self.rows.order[side].range((begin, Bound::Unbounded));
            places.map(move |(place, _)| (side, *place))
        };
        (from..2).flat_map(of_side).take(most).collect()
    }

    fn mark(&mut self, (side, place): &KeptAt) -> Option<&mut Mark> {
        let of_key = self.rows.keys.get_mut(self.rows.order[*side].get(place)?)?;
        Some(&mut of_key[*side].get_mut(*place)?.mark)
    }

    fn rows_at(&self, places: &[KeptAt]) -> Result<Rows> {
        let line = |(side, place): &KeptAt| self.rows.line(*side, *place);
        let rows: Vec<Line<'_>> = places.iter().filter_map(line).collect();
        let ids = rows.iter().map(|line| Id::of_row(line.place.1)).collect();
        Ok((ids, self.columns(&rows)?))
    }

    fn rows_kept(&self) -> usize {
        self.rows.order.iter().map(BTreeMap::len).sum()
    }
}
