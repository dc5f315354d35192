//! How far numbers lie apart: `var`, `var_pop`, `stddev` and `stddev_pop`, by Welford's method.

use std::ops::IndexMut;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type};

use super::cell::Cell;
use crate::value::Value;

/// Which of the four it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpreadCall {
    /// Of a sample, so divided by the count less one.
    is_sample: bool,
    /// The deviation, and not its square.
    is_root: bool,
}

impl SpreadCall {
    /// By the name of DataFusion's function.
    pub(super) fn named(name: &str) -> Option<Self> {
        let (is_sample, is_root) = match name {
            "var" => (true, false),
            "var_pop" => (false, false),
            "stddev" => (true, true),
            "stddev_pop" => (false, true),
            _ => return None,
        };
        Some(Self { is_sample, is_root })
    }
}

/// Count, mean and the sum of squares of what lies beside the mean.
#[derive(Debug, Default)]
pub(super) struct Spread {
    count: i64,
    mean: f64,
    squares: f64,
}

impl Spread {
    // The operations are DataFusion's, in its order, so that not even the last digit differs.
    #[allow(clippy::cast_precision_loss)] // as DataFusion does: counts stay far below 2^53
    fn add(&mut self, value: f64) {
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }
}

impl Cell for Spread {
    type Call = SpreadCall;

    fn take(&mut self, _call: &SpreadCall, args: &[Value]) {
        if let Value::Float(value) = args[0] {
            self.add(value);
        }
    }
    fn take_rows(
        cells: &mut (impl IndexMut<usize, Output = Self> + ?Sized),
        _call: &SpreadCall,
        rows: impl Iterator<Item = (usize, usize)>,
        args: &[ArrayRef],
    ) {
        let array = args[0].as_primitive::<Float64Type>();
        for (cell, row) in rows {
            if array.is_valid(row) {
                cells[cell].add(array.value(row));
            }
        }
    }
    #[allow(clippy::cast_precision_loss)] // as above
    fn merge(&mut self, _call: &SpreadCall, later: &Self) {
        if later.count == 0 {
            return;
        }
        if self.count == 0 {
            (self.count, self.mean, self.squares) = (later.count, later.mean, later.squares);
            return;
        }
        let (ours, theirs) = (self.count as f64, later.count as f64);
        let both = ours + theirs;
        let apart = self.mean - later.mean;
        self.mean = self.mean * ours / both + later.mean * theirs / both;
        self.squares = self.squares + later.squares + apart * apart * ours * theirs / both;
        self.count += later.count;
    }
    #[allow(clippy::cast_precision_loss)] // as above
    fn value(&self, call: &SpreadCall) -> Value {
        let variance = match (self.count, call.is_sample) {
            (0, _) | (1, true) => return Value::Null,
            (count, true) => self.squares / (count - 1) as f64,
            (count, false) => self.squares / count as f64,
        };
        Value::Float(if call.is_root { variance.sqrt() } else { variance })
    }
    fn data_type(_call: &SpreadCall) -> DataType {
        DataType::Float64
    }
    fn state(&self, _call: &SpreadCall) -> Vec<Value> {
        vec![
            Value::Int(self.count),
            Value::Float(self.mean),
            Value::Float(self.squares),
        ]
    }
    fn state_types(_call: &SpreadCall) -> Vec<DataType> {
        vec![DataType::Int64, DataType::Float64, DataType::Float64]
    }
    fn restored(_call: &SpreadCall, state: &[Value]) -> Option<Self> {
        match state {
            [Value::Int(count), Value::Float(mean), Value::Float(squares)] => Some(Self {
                count: *count,
                mean: *mean,
                squares: *squares,
            }),
            _ => None,
        }
    }
}
