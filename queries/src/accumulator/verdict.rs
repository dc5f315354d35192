//! Whether a condition held in all rows or in any: `bool_and` and `bool_or`.

use std::ops::IndexMut;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

use super::cell::Cell;
use crate::value::Value;

/// Of which rows the condition is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VerdictCall {
    /// It held in all: `bool_and`.
    All,
    /// It held in any: `bool_or`.
    Any,
}

/// None as long as there was no value.
#[derive(Debug, Default)]
pub(super) struct Verdict(Option<bool>);

impl Verdict {
    fn add(&mut self, call: VerdictCall, value: bool) {
        self.0 = Some(match (self.0, call) {
            (None, _) => value,
            (Some(held), VerdictCall::All) => held && value,
            (Some(held), VerdictCall::Any) => held || value,
        });
    }
}

impl Cell for Verdict {
    type Call = VerdictCall;

    fn take(&mut self, call: &VerdictCall, args: &[Value]) {
        if let Value::Bool(value) = args[0] {
            self.add(*call, value);
        }
    }
    fn take_rows(
        cells: &mut (impl IndexMut<usize, Output = Self> + ?Sized),
        call: &VerdictCall,
        rows: impl Iterator<Item = (usize, usize)>,
        args: &[ArrayRef],
    ) {
        let array = args[0].as_boolean();
        for (cell, row) in rows {
            if array.is_valid(row) {
                cells[cell].add(*call, array.value(row));
            }
        }
    }
    fn merge(&mut self, call: &VerdictCall, later: &Self) {
        if let Some(value) = later.0 {
            self.add(*call, value);
        }
    }
    fn value(&self, _call: &VerdictCall) -> Value {
        self.0.map_or(Value::Null, Value::Bool)
    }
    fn data_type(_call: &VerdictCall) -> DataType {
        DataType::Boolean
    }
    fn state(&self, call: &VerdictCall) -> Vec<Value> {
        vec![self.value(call)]
    }
    fn state_types(_call: &VerdictCall) -> Vec<DataType> {
        vec![DataType::Boolean]
    }
    fn restored(_call: &VerdictCall, state: &[Value]) -> Option<Self> {
        match state {
            [Value::Bool(value)] => Some(Self(Some(*value))),
            [Value::Null] => Some(Self::default()),
            _ => None,
        }
    }
}
