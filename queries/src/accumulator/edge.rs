//! The value of the first or last row: `first_value` and `last_value`, by arrival or by one column.

use std::ops::IndexMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};

use super::cell::Cell;
use crate::value::{Value, is_plain};

/// Which end of which order.
#[derive(Debug, Clone)]
pub(crate) struct EdgeCall {
    is_last: bool,
    /// With an ORDER BY: how it sorts the second argument.
    order: Option<SortOptions>,
    ignores_nulls: bool,
    data_type: DataType,
    /// The rows that have come so far, for the order of arrival and for rows of the same time.
    arrivals: Arc<AtomicI64>,
}

/// By what the SQL says, whatever has come so far.
impl PartialEq for EdgeCall {
    fn eq(&self, other: &Self) -> bool {
        self.is_last == other.is_last
            && self.order == other.order
            && self.ignores_nulls == other.ignores_nulls
            && self.data_type == other.data_type
    }
}

impl EdgeCall {
    /// For a call with the arguments value and, with an ORDER BY, time or number; `None` for what is not kept natively.
    pub(super) fn of(
        is_last: bool,
        order: Option<SortOptions>,
        ignores_nulls: bool,
        argument_types: &[DataType],
    ) -> Option<Self> {
        let is_native = match (argument_types, order) {
            ([value], None) => is_plain(value),
            ([value, key], Some(_)) => is_plain(value) && is_key(key),
            _ => false,
        };
        is_native.then(|| Self {
            is_last,
            order,
            ignores_nulls,
            data_type: argument_types[0].clone(),
            arrivals: Arc::default(),
        })
    }

    /// The rank of a row: of two, the one of the greater rank is kept.
    fn rank(&self, key: Option<i64>, arrival: i64) -> Rank {
        let Some(order) = self.order else {
            let by_arrival = if self.is_last { arrival } else { -arrival };
            return Rank(0, 0, by_arrival);
        };
        let (place, key) = match key {
            Some(key) if order.descending => (0, !key), // not negated: the smallest number has no opposite
            Some(key) => (0, key),
            None if order.nulls_first => (-1, 0),
            None => (1, 0),
        };
        // Of rows of the same time DataFusion keeps the one that came first, at either end; but for booleans it has no
        // other accumulator than the one a row, which keeps the one that came last.
        match (self.is_last, &self.data_type) {
            (true, DataType::Boolean) => Rank(place, key, arrival),
            (true, _) => Rank(place, key, -arrival),
            (false, _) => Rank(-place, !key, -arrival),
        }
    }
}

fn is_key(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int64 | DataType::Timestamp(TimeUnit::Microsecond, None)
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(i8, i64, i64);

/// The value kept so far.
#[derive(Debug, Default)]
pub(super) struct Edge(Option<(Rank, Value)>);

impl Edge {
    fn wins(&self, rank: Rank) -> bool {
        self.0.as_ref().is_none_or(|(held, _)| rank > *held)
    }
}

impl Cell for Edge {
    type Call = EdgeCall;

    fn take(&mut self, call: &EdgeCall, args: &[Value]) {
        let arrival = call.arrivals.fetch_add(1, Ordering::Relaxed);
        if call.ignores_nulls && args[0].is_null() {
            return;
        }
        let key = match args.get(1) {
            Some(Value::Int(key) | Value::Time(key)) => Some(*key),
            _ => None,
        };
        let rank = call.rank(key, arrival);
        if self.wins(rank) {
            self.0 = Some((rank, args[0].clone()));
        }
    }
    fn take_rows(
        cells: &mut (impl IndexMut<usize, Output = Self> + ?Sized),
        call: &EdgeCall,
        rows: impl Iterator<Item = (usize, usize)>,
        args: &[ArrayRef],
    ) {
        let keys = args.get(1).map(|array| match array.data_type() {
            DataType::Int64 => (array, array.as_primitive::<Int64Type>().values()),
            _ => (array, array.as_primitive::<TimestampMicrosecondType>().values()),
        });
        let mut arrival = call.arrivals.load(Ordering::Relaxed);
        for (cell, row) in rows {
            let key = keys.and_then(|(array, values)| array.is_valid(row).then(|| values[row]));
            let rank = call.rank(key, arrival);
            arrival += 1;
            if cells[cell].wins(rank) && !(call.ignores_nulls && args[0].is_null(row)) {
                cells[cell].0 = Some((rank, Value::at(&args[0], row)));
            }
        }
        call.arrivals.store(arrival, Ordering::Relaxed);
    }
    fn merge(&mut self, _call: &EdgeCall, later: &Self) {
        if let Some((rank, value)) = &later.0
            && self.wins(*rank)
        {
            self.0 = Some((*rank, value.clone()));
        }
    }
    fn value(&self, _call: &EdgeCall) -> Value {
        self.0.as_ref().map_or(Value::Null, |(_, value)| value.clone())
    }
    fn data_type(call: &EdgeCall) -> DataType {
        call.data_type.clone()
    }
    fn state(&self, _call: &EdgeCall) -> Vec<Value> {
        match &self.0 {
            Some((Rank(place, key, arrival), value)) => vec![
                Value::Int(i64::from(*place)),
                Value::Int(*key),
                Value::Int(*arrival),
                value.clone(),
            ],
            None => vec![Value::Null; 4],
        }
    }
    fn state_types(call: &EdgeCall) -> Vec<DataType> {
        vec![
            DataType::Int64,
            DataType::Int64,
            DataType::Int64,
            call.data_type.clone(),
        ]
    }
    fn restored(call: &EdgeCall, state: &[Value]) -> Option<Self> {
        if state.len() == 4 && state.iter().all(Value::is_null) {
            return Some(Self::default());
        }
        let [Value::Int(place), Value::Int(key), Value::Int(arrival), value] = state else {
            return None;
        };
        // What comes now has come after all that is restored.
        call.arrivals.fetch_max(arrival.abs() + 1, Ordering::Relaxed);
        let rank = Rank(i8::try_from(*place).ok()?, *key, *arrival);
        Some(Self(Some((rank, value.clone()))))
    }
    fn is_mergeable(_call: &EdgeCall) -> bool {
        // Panes part rows by time, so that their order of arrival is lost. With an ORDER BY of the window's own time
        // they may be merged all the same, which only the operator can tell.
        false
    }
    fn heap_bytes(&self) -> usize {
        match &self.0 {
            Some((_, Value::Text(text))) => text.len() + 16,
            _ => 0,
        }
    }
}
