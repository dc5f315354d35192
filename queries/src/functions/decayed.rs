//! `decayed_sum(value, time, half_life)`: a sum in which a row counts half for each half-life it is older than the
//! latest.

use std::ops::IndexMut;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;

use super::own::{Own, TIME, constant_us, interval, number, time};
use crate::accumulator::cell::Cell;
use crate::value::Value;

/// Σ value · 2^(−(latest − time) / half_life), with `latest` the latest time among the group's rows: exponential decay
/// with the decay constant ln 2 / half_life, as of the latest row and not of now.
///
/// In the unit of the value, DOUBLE. A row whose value or time is NULL counts for nothing, and moves `latest` neither;
/// NULL when there is no other.
#[derive(Debug, Default)]
pub(crate) struct Decayed {
    sum: f64,
    latest: Option<i64>,
}

/// The half-life, in microseconds.
type HalfLife = f64;

/// What is left after a time of so many microseconds.
#[allow(clippy::cast_precision_loss)] // ages of more than 285 years are not told to the microsecond
fn left_after(age_us: i64, half_life: HalfLife) -> f64 {
    (-(age_us as f64) / half_life).exp2()
}

impl Decayed {
    fn add(&mut self, half_life: HalfLife, value: f64, time: i64) {
        match self.latest {
            Some(latest) if time <= latest => self.sum += value * left_after(latest.saturating_sub(time), half_life),
            Some(latest) => {
                self.sum = self.sum * left_after(time.saturating_sub(latest), half_life) + value;
                self.latest = Some(time);
            }
            None => (self.sum, self.latest) = (value, Some(time)),
        }
    }
}

impl Cell for Decayed {
    type Call = HalfLife;

    fn take(&mut self, half_life: &HalfLife, args: &[Value]) {
        if let (Value::Float(value), Value::Time(time)) = (&args[0], &args[1]) {
            self.add(*half_life, *value, *time);
        }
    }
    fn take_rows(
        cells: &mut (impl IndexMut<usize, Output = Self> + ?Sized),
        half_life: &HalfLife,
        rows: impl Iterator<Item = (usize, usize)>,
        args: &[ArrayRef],
    ) {
        let values = args[0].as_primitive::<Float64Type>();
        let times = args[1].as_primitive::<TimestampMicrosecondType>();
        for (cell, row) in rows {
            if values.is_valid(row) && times.is_valid(row) {
                cells[cell].add(*half_life, values.value(row), times.value(row));
            }
        }
    }
    fn merge(&mut self, half_life: &HalfLife, later: &Self) {
        if let Some(latest) = later.latest {
            // A sum is as good as one row of its latest time.
            self.add(*half_life, later.sum, latest);
        }
    }
    fn value(&self, _half_life: &HalfLife) -> Value {
        self.latest.map_or(Value::Null, |_| Value::Float(self.sum))
    }
    fn data_type(_half_life: &HalfLife) -> DataType {
        Self::ANSWER
    }
    fn state(&self, _half_life: &HalfLife) -> Vec<Value> {
        vec![Value::Float(self.sum), self.latest.map_or(Value::Null, Value::Time)]
    }
    fn state_types(_half_life: &HalfLife) -> Vec<DataType> {
        Self::STATE.to_vec()
    }
    fn restored(_half_life: &HalfLife, state: &[Value]) -> Option<Self> {
        match state {
            [Value::Float(sum), Value::Time(latest)] => Some(Self {
                sum: *sum,
                latest: Some(*latest),
            }),
            [_, Value::Null] => Some(Self::default()),
            _ => None,
        }
    }
}

impl Own for Decayed {
    const NAME: &'static str = "decayed_sum";
    const USAGE: &'static str =
        "decayed_sum(value, time, half-life) was expected, as decayed_sum(rating, event_time, INTERVAL '30 minutes')";
    const ANSWER: DataType = DataType::Float64;
    const STATE: &'static [DataType] = &[DataType::Float64, TIME];

    fn coerced(given: &[DataType]) -> Option<Vec<DataType>> {
        match given {
            [value, at, half_life] => Some(vec![number(value)?, time(at)?, interval(half_life)?]),
            _ => None,
        }
    }
    fn call(args: &[Arc<dyn PhysicalExpr>]) -> Result<HalfLife> {
        constant_us(&args[2], "half-life", Self::NAME)
    }
}
