//! Accumulators of an aggregate, one value a group: they can be read at any time without being emptied.
//!
//! DataFusion's group accumulators empty what they return, so a running answer needs our own for the common
//! aggregates; every other one of DataFusion's runs through its row accumulators, which can be read again.

pub(crate) mod cell;
mod distinct;
mod edge;
mod extreme;
pub(crate) mod kind;
mod spread;
mod stock;
#[cfg(test)]
mod tests;
mod verdict;

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, UInt64Array};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use datafusion::common::{Result, internal_err};

use crate::grouped::Grouped;
use crate::keys::Group;
use crate::picked::Picked;
use crate::value::Value;

/// Values of one aggregate for many groups.
///
/// Contract: `groups` holds a group for each row of `args`; `rows` are the rows to take. A group that was never heard of
/// holds nothing. `evaluate` and `state` change nothing that can be seen.
pub(crate) trait GroupAccumulator: Send {
    /// Takes the rows `rows` of `args`.
    fn update(&mut self, groups: &[Group], rows: &Picked, args: &[ArrayRef]) -> Result<()>;
    /// Takes one row: `args` are its values, of the types `types`.
    fn update_one(&mut self, group: Group, args: &[Value], types: &[DataType]) -> Result<()> {
        let args: Vec<ArrayRef> = args
            .iter()
            .zip(types)
            .map(|(value, data_type)| value.to_array(data_type))
            .collect();
        self.update(&[group], &Picked::first(1), &args)
    }
    /// The value of one group.
    fn value(&mut self, group: Group) -> Result<Value> {
        Ok(Value::at(&self.evaluate(&[group])?, 0))
    }
    /// Adds what another accumulator of the same aggregate holds for `groups`.
    fn merge(&mut self, other: &dyn GroupAccumulator, groups: &[Group]) -> Result<()>;
    /// Adds what the group `from` holds to the group `into`, whose rows came earlier; the caller then clears `from`.
    fn absorb(&mut self, into: Group, from: Group) -> Result<()>;
    /// Takes back what another accumulator of the same aggregate holds for `groups` and was merged before; exactly, as
    /// if it had never been.
    fn take_back(&mut self, _other: &dyn GroupAccumulator, _groups: &[Group]) -> Result<()> {
        internal_err!("what this aggregate has taken in can't be taken back")
    }
    /// Whether `take_back` works.
    fn is_invertible(&self) -> bool {
        false
    }
    /// The values of `groups`, in their order.
    fn evaluate(&mut self, groups: &[Group]) -> Result<ArrayRef>;
    /// What a snapshot keeps of `groups`, one or more columns.
    fn state(&mut self, groups: &[Group]) -> Result<Vec<ArrayRef>>;
    /// How long what `state` gives of a group is, bytes by estimate.
    fn row_bytes(&self, _group: Group) -> usize {
        16
    }
    /// Takes back what `state` gave: row i belongs to `groups[i]`.
    fn restore(&mut self, groups: &[Group], state: &[ArrayRef]) -> Result<()>;
    /// Sets groups back to nothing, for the next keys that get their numbers.
    fn clear(&mut self, groups: &[Group]);
    /// How many state columns there are.
    fn state_width(&self) -> usize;
    /// Whether `merge` works.
    fn is_mergeable(&self) -> bool;
    /// Bytes kept, estimated.
    fn bytes(&self) -> usize;
    /// For `merge`.
    fn as_any(&self) -> &dyn Any;
}

/// Calls `each` with the group's place in a column for the rows at which `array` is not null.
fn for_each_valid<T>(
    column: &mut Grouped<T>,
    array: &dyn Array,
    groups: &[Group],
    rows: &Picked,
    each: impl FnMut(&mut T, usize),
) {
    // Of the rows that are meant and not of all: of a batch over many windows each takes a few.
    let Some(greatest) = rows.greatest(groups) else { return };
    match (array.nulls(), rows) {
        (None, _) if *array.data_type() == DataType::Null => {}
        (None, Picked::Run(run)) => column.at_rows(groups, greatest, run.clone(), each),
        (None, Picked::Each(rows)) => column.at_rows(groups, greatest, rows.iter().map(|row| *row as usize), each),
        (Some(nulls), Picked::Run(run)) => {
            column.at_rows(groups, greatest, run.clone().filter(|row| nulls.is_valid(*row)), each);
        }
        (Some(nulls), Picked::Each(rows)) => {
            let rows = rows.iter().map(|row| *row as usize);
            column.at_rows(groups, greatest, rows.filter(|row| nulls.is_valid(*row)), each);
        }
    }
}

fn same<T: 'static>(other: &dyn GroupAccumulator) -> &T {
    other
        .as_any()
        .downcast_ref::<T>()
        .expect("panes of one query hold the same accumulators")
}

/// Nulls where there is no value, if there are any such places: arrays without are gone through faster.
fn nulls_where_not(is_value: Vec<bool>) -> Option<NullBuffer> {
    let all = is_value.iter().fold(true, |all, is_value| all & is_value);
    (!all).then(|| NullBuffer::from(is_value))
}

#[derive(Default)]
struct Count {
    counts: Grouped<i64>,
}

impl GroupAccumulator for Count {
    fn update(&mut self, groups: &[Group], rows: &Picked, args: &[ArrayRef]) -> Result<()> {
        for_each_valid(&mut self.counts, &args[0], groups, rows, |count, _| *count += 1);
        Ok(())
    }
    fn update_one(&mut self, group: Group, args: &[Value], _types: &[DataType]) -> Result<()> {
        self.counts[group as usize] += i64::from(!args[0].is_null());
        Ok(())
    }
    fn value(&mut self, group: Group) -> Result<Value> {
        Ok(Value::Int(self.counts[group as usize]))
    }
    fn merge(&mut self, other: &dyn GroupAccumulator, groups: &[Group]) -> Result<()> {
        let other = same::<Self>(other);
        self.counts
            .for_each_pair(&other.counts, groups, |into, from| *into += from);
        Ok(())
    }
    fn absorb(&mut self, into: Group, from: Group) -> Result<()> {
        self.counts[into as usize] += self.counts[from as usize];
        Ok(())
    }
    fn take_back(&mut self, other: &dyn GroupAccumulator, groups: &[Group]) -> Result<()> {
        let other = same::<Self>(other);
        self.counts
            .for_each_pair(&other.counts, groups, |into, from| *into -= from);
        Ok(())
    }
    fn is_invertible(&self) -> bool {
        true
    }
    fn evaluate(&mut self, groups: &[Group]) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from(self.counts.picked(groups))))
    }
    fn state(&mut self, groups: &[Group]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(groups)?])
    }
    fn restore(&mut self, groups: &[Group], state: &[ArrayRef]) -> Result<()> {
        let counts = state[0].as_primitive::<Int64Type>();
        for (row, group) in groups.iter().enumerate() {
            self.counts[*group as usize] = counts.value(row);
        }
        Ok(())
    }
    fn clear(&mut self, groups: &[Group]) {
        self.counts.for_each_there(groups, |count| *count = 0);
    }
    fn state_width(&self) -> usize {
        1
    }
    fn is_mergeable(&self) -> bool {
        true
    }
    fn bytes(&self) -> usize {
        self.counts.bytes()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

macro_rules! sum_accumulator {
    ($name:ident, $arrow:ty, $array:ty, $native:ty, $value:path, $add:expr, $subtract:expr, $is_exact:literal) => {
        #[derive(Default)]
        struct $name {
            sums: Grouped<$native>,
            /// Above 0 where there is a value: a sum over none is null, and not 0. Of merged sums, how many had one.
            seen: Grouped<u32>,
        }

        impl GroupAccumulator for $name {
            fn update(&mut self, groups: &[Group], rows: &Picked, args: &[ArrayRef]) -> Result<()> {
                let array = args[0].as_primitive::<$arrow>();
                let values = array.values();
                for_each_valid(&mut self.sums, array, groups, rows, |sum, row| {
                    *sum = $add(*sum, values[row]);
                });
                for_each_valid(&mut self.seen, array, groups, rows, |seen, _| *seen = 1);
                Ok(())
            }
            fn update_one(&mut self, group: Group, args: &[Value], _types: &[DataType]) -> Result<()> {
                if let $value(value) = args[0] {
                    let group = group as usize;
                    self.sums[group] = $add(self.sums[group], value);
                    self.seen[group] = 1;
                }
                Ok(())
            }
            fn value(&mut self, group: Group) -> Result<Value> {
                let group = group as usize;
                Ok(if self.seen[group] > 0 {
                    $value(self.sums[group])
                } else {
                    Value::Null
                })
            }
            fn merge(&mut self, other: &dyn GroupAccumulator, groups: &[Group]) -> Result<()> {
                let other = same::<Self>(other);
                self.sums
                    .for_each_pair(&other.sums, groups, |into, from| *into = $add(*into, *from));
                self.seen
                    .for_each_pair(&other.seen, groups, |into, from| *into += from);
                Ok(())
            }
            fn absorb(&mut self, into: Group, from: Group) -> Result<()> {
                let (into, from) = (into as usize, from as usize);
                self.sums[into] = $add(self.sums[into], self.sums[from]);
                self.seen[into] += self.seen[from];
                Ok(())
            }
            fn take_back(&mut self, other: &dyn GroupAccumulator, groups: &[Group]) -> Result<()> {
                let other = same::<Self>(other);
                self.sums.for_each_pair(&other.sums, groups, |into, from| {
                    *into = $subtract(*into, *from);
                });
                self.seen
                    .for_each_pair(&other.seen, groups, |into, from| *into -= from);
                Ok(())
            }
            fn is_invertible(&self) -> bool {
                $is_exact
            }
            fn evaluate(&mut self, groups: &[Group]) -> Result<ArrayRef> {
                let seen = self
                    .seen
                    .picked(groups)
                    .into_iter()
                    .map(|seen| seen > 0)
                    .collect();
                let sums = ScalarBuffer::from(self.sums.picked(groups));
                Ok(Arc::new(<$array>::new(sums, nulls_where_not(seen))))
            }
            fn state(&mut self, groups: &[Group]) -> Result<Vec<ArrayRef>> {
                Ok(vec![self.evaluate(groups)?])
            }
            fn restore(&mut self, groups: &[Group], state: &[ArrayRef]) -> Result<()> {
                let sums = state[0].as_primitive::<$arrow>();
                for (row, group) in groups.iter().enumerate() {
                    self.seen[*group as usize] = u32::from(sums.is_valid(row));
                    self.sums[*group as usize] = if sums.is_valid(row) {
                        sums.value(row)
                    } else {
                        <$native>::default()
                    };
                }
                Ok(())
            }
            fn clear(&mut self, groups: &[Group]) {
                self.sums
                    .for_each_there(groups, |sum| *sum = <$native>::default());
                self.seen.for_each_there(groups, |seen| *seen = 0);
            }
            fn state_width(&self) -> usize {
                1
            }
            fn is_mergeable(&self) -> bool {
                true
            }
            fn bytes(&self) -> usize {
                self.sums.bytes() + self.seen.bytes()
            }
            fn as_any(&self) -> &dyn Any {
                self
            }
        }
    };
}

sum_accumulator!(
    SumInt,
    Int64Type,
    Int64Array,
    i64,
    Value::Int,
    i64::wrapping_add,
    i64::wrapping_sub,
    true
);
sum_accumulator!(
    SumFloat,
    Float64Type,
    Float64Array,
    f64,
    Value::Float,
    |a: f64, b: f64| a + b,
    |a: f64, b: f64| a - b,
    // Rounding stays when a value is gone.
    false
);

#[derive(Default)]
struct Avg {
    sums: Grouped<f64>,
    counts: Grouped<u64>,
}

#[allow(clippy::cast_precision_loss)] // as DataFusion does: counts stay far below 2^53
impl GroupAccumulator for Avg {
    fn update(&mut self, groups: &[Group], rows: &Picked, args: &[ArrayRef]) -> Result<()> {
        let array = args[0].as_primitive::<Float64Type>();
        let values = array.values();
        for_each_valid(&mut self.sums, array, groups, rows, |sum, row| *sum += values[row]);
        for_each_valid(&mut self.counts, array, groups, rows, |count, _| *count += 1);
        Ok(())
    }
    fn update_one(&mut self, group: Group, args: &[Value], _types: &[DataType]) -> Result<()> {
        if let Value::Float(value) = args[0] {
            self.sums[group as usize] += value;
            self.counts[group as usize] += 1;
        }
        Ok(())
    }
    fn value(&mut self, group: Group) -> Result<Value> {
        let (sum, count) = (self.sums[group as usize], self.counts[group as usize]);
        Ok(if count > 0 {
            Value::Float(sum / count as f64)
        } else {
            Value::Null
        })
    }
    fn merge(&mut self, other: &dyn GroupAccumulator, groups: &[Group]) -> Result<()> {
        let other = same::<Self>(other);
        self.sums.for_each_pair(&other.sums, groups, |into, from| *into += from);
        self.counts
            .for_each_pair(&other.counts, groups, |into, from| *into += from);
        Ok(())
    }
    fn absorb(&mut self, into: Group, from: Group) -> Result<()> {
        let (into, from) = (into as usize, from as usize);
        self.sums[into] += self.sums[from];
        self.counts[into] += self.counts[from];
        Ok(())
    }
    fn evaluate(&mut self, groups: &[Group]) -> Result<ArrayRef> {
        let (mut averages, counts) = (self.sums.picked(groups), self.counts.picked(groups));
        for (average, count) in averages.iter_mut().zip(&counts) {
            *average /= *count as f64;
        }
        let nulls = nulls_where_not(counts.into_iter().map(|count| count > 0).collect());
        Ok(Arc::new(Float64Array::new(averages.into(), nulls)))
    }
    fn state(&mut self, groups: &[Group]) -> Result<Vec<ArrayRef>> {
        let sums = Float64Array::from(self.sums.picked(groups));
        let counts = UInt64Array::from(self.counts.picked(groups));
        Ok(vec![Arc::new(sums), Arc::new(counts)])
    }
    fn restore(&mut self, groups: &[Group], state: &[ArrayRef]) -> Result<()> {
        let sums = state[0].as_primitive::<Float64Type>();
        let counts = state[1].as_primitive::<UInt64Type>();
        for (row, group) in groups.iter().enumerate() {
            self.sums[*group as usize] = sums.value(row);
            self.counts[*group as usize] = counts.value(row);
        }
        Ok(())
    }
    fn clear(&mut self, groups: &[Group]) {
        self.sums.for_each_there(groups, |sum| *sum = 0.0);
        self.counts.for_each_there(groups, |count| *count = 0);
    }
    fn state_width(&self) -> usize {
        2
    }
    fn is_mergeable(&self) -> bool {
        true
    }
    fn bytes(&self) -> usize {
        self.sums.bytes() + self.counts.bytes()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
