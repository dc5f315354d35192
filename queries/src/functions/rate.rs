//! `rate(value, time)` and `rate(value, time, unit)`: how much a second, or a unit, between the first row and the last.

use std::ops::IndexMut;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;

use super::own::{Own, TIME, constant_us, interval, number, time};
use crate::accumulator::cell::Cell;
use crate::value::Value;

/// Σ value / (latest − earliest), with the times among the group's rows: a mean rate over the time that was seen, which
/// is not the window's whole length.
///
/// In the value's unit a second, or a `unit` (an INTERVAL), DOUBLE. A row whose value or time is NULL counts for
/// nothing; NULL with fewer than two different times, where nothing can be said of a rate.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    sum: f64,
    /// The earliest and latest time.
    span: Option<(i64, i64)>,
}

/// The unit of time, in microseconds.
type Unit = f64;

const SECOND: Unit = 1e6;

impl Rate {
    fn add(&mut self, sum: f64, (earliest, latest): (i64, i64)) {
        self.sum += sum;
        self.span = Some(match self.span {
            Some((first, last)) => (first.min(earliest), last.max(latest)),
            None => (earliest, latest),
        });
    }
}

impl Cell for Rate {
    type Call = Unit;

    fn take(&mut self, _unit: &Unit, args: &[Value]) {
        if let (Value::Float(value), Value::Time(time)) = (&args[0], &args[1]) {
            self.add(*value, (*time, *time));
        }
    }
    fn take_rows(
        cells: &mut (impl IndexMut<usize, Output = Self> + ?Sized),
        _unit: &Unit,
        rows: impl Iterator<Item = (usize, usize)>,
        args: &[ArrayRef],
    ) {
        let values = args[0].as_primitive::<Float64Type>();
        let times = args[1].as_primitive::<TimestampMicrosecondType>();
        for (cell, row) in rows {
            if values.is_valid(row) && times.is_valid(row) {
                cells[cell].add(values.value(row), (times.value(row), times.value(row)));
            }
        }
    }
    fn merge(&mut self, _unit: &Unit, later: &Self) {
        if let Some(span) = later.span {
            self.add(later.sum, span);
        }
    }
    #[allow(clippy::cast_precision_loss)] // times of more than 285 years apart are not told to the microsecond
    fn value(&self, unit: &Unit) -> Value {
        match self.span {
            Some((earliest, latest)) if earliest < latest => {
                Value::Float(self.sum / (latest.saturating_sub(earliest) as f64 / unit))
            }
            _ => Value::Null,
        }
    }
    fn data_type(_unit: &Unit) -> DataType {
        Self::ANSWER
    }
    fn state(&self, _unit: &Unit) -> Vec<Value> {
        let time = |of: fn((i64, i64)) -> i64| self.span.map_or(Value::Null, |span| Value::Time(of(span)));
        vec![Value::Float(self.sum), time(|span| span.0), time(|span| span.1)]
    }
    fn state_types(_unit: &Unit) -> Vec<DataType> {
        Self::STATE.to_vec()
    }
    fn restored(_unit: &Unit, state: &[Value]) -> Option<Self> {
        match state {
            [Value::Float(sum), Value::Time(earliest), Value::Time(latest)] => Some(Self {
                sum: *sum,
                span: Some((*earliest, *latest)),
            }),
            [_, Value::Null, Value::Null] => Some(Self::default()),
            _ => None,
        }
    }
}

impl Own for Rate {
    const NAME: &'static str = "rate";
    const USAGE: &'static str = "rate(value, time) or rate(value, time, unit) was expected, \
                                 as rate(entered, event_time, INTERVAL '1 minute')";
    const ANSWER: DataType = DataType::Float64;
    const STATE: &'static [DataType] = &[DataType::Float64, TIME, TIME];

    fn coerced(given: &[DataType]) -> Option<Vec<DataType>> {
        match given {
            [value, at] => Some(vec![number(value)?, time(at)?]),
            [value, at, unit] => Some(vec![number(value)?, time(at)?, interval(unit)?]),
            _ => None,
        }
    }
    fn call(args: &[Arc<dyn PhysicalExpr>]) -> Result<Unit> {
        args.get(2)
            .map_or(Ok(SECOND), |unit| constant_us(unit, "unit", Self::NAME))
    }
}
