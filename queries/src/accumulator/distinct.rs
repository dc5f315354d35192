//! How many different values there were: `count(DISTINCT x)` of texts, whole numbers and times.

use std::hash::Hash;
use std::ops::IndexMut;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, PrimitiveArray, StringArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Int64Type, TimeUnit, TimestampMicrosecondType};
use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;

use super::cell::Cell;
use crate::value::Value;

/// Whether different values of a type are counted natively.
pub(super) fn has_native_distinct(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int64 | DataType::Utf8 | DataType::Timestamp(TimeUnit::Microsecond, None)
    )
}

/// A type of which a group's different values are kept.
pub(super) trait Kept: std::fmt::Debug + Clone + Eq + Hash + Send + Sync + 'static {
    fn of(value: &Value) -> Option<Self>;
    /// Puts the values at `rows` in the sets of their cells.
    fn insert_all(
        sets: &mut (impl IndexMut<usize, Output = Distinct<Self>> + ?Sized),
        rows: impl Iterator<Item = (usize, usize)>,
        array: &ArrayRef,
    );
    fn to_array(values: &HashSet<Self, FxBuildHasher>) -> ArrayRef;
    fn heap_bytes(&self) -> usize {
        0
    }
}

fn insert_numbers<T: ArrowPrimitiveType<Native = i64>>(
    sets: &mut (impl IndexMut<usize, Output = Distinct<i64>> + ?Sized),
    rows: impl Iterator<Item = (usize, usize)>,
    array: &PrimitiveArray<T>,
) {
    for (cell, row) in rows {
        if array.is_valid(row) {
            sets[cell].0.insert(array.value(row));
        }
    }
}

/// Whole numbers, and times by their microseconds.
impl Kept for i64 {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Int(value) | Value::Time(value) => Some(*value),
            _ => None,
        }
    }
    fn insert_all(
        sets: &mut (impl IndexMut<usize, Output = Distinct<Self>> + ?Sized),
        rows: impl Iterator<Item = (usize, usize)>,
        array: &ArrayRef,
    ) {
        match array.data_type() {
            DataType::Int64 => insert_numbers(sets, rows, array.as_primitive::<Int64Type>()),
            _ => insert_numbers(sets, rows, array.as_primitive::<TimestampMicrosecondType>()),
        }
    }
    fn to_array(values: &HashSet<Self, FxBuildHasher>) -> ArrayRef {
        Arc::new(PrimitiveArray::<Int64Type>::from_iter_values(values.iter().copied()))
    }
}

impl Kept for Arc<str> {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Text(value) => Some(Arc::clone(value)),
            _ => None,
        }
    }
    fn insert_all(
        sets: &mut (impl IndexMut<usize, Output = Distinct<Self>> + ?Sized),
        rows: impl Iterator<Item = (usize, usize)>,
        array: &ArrayRef,
    ) {
        let array = array.as_string::<i32>();
        for (cell, row) in rows {
            if array.is_valid(row) {
                // Allocates only for a text that is new.
                sets[cell]
                    .0
                    .get_or_insert_with(array.value(row), |text: &str| text.into());
            }
        }
    }
    fn to_array(values: &HashSet<Self, FxBuildHasher>) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(values))
    }
    fn heap_bytes(&self) -> usize {
        self.len() + 16
    }
}

/// The different values of a group.
#[derive(Debug)]
pub(super) struct Distinct<K: Kept>(HashSet<K, FxBuildHasher>);

impl<K: Kept> Default for Distinct<K> {
    fn default() -> Self {
        Self(HashSet::default())
    }
}

impl<K: Kept> Cell for Distinct<K> {
    type Call = ();

    fn take(&mut self, (): &(), args: &[Value]) {
        self.0.extend(K::of(&args[0]));
    }
    fn take_rows(
        cells: &mut (impl IndexMut<usize, Output = Self> + ?Sized),
        (): &(),
        rows: impl Iterator<Item = (usize, usize)>,
        args: &[ArrayRef],
    ) {
        K::insert_all(cells, rows, &args[0]);
    }
    fn merge(&mut self, (): &(), later: &Self) {
        self.0.extend(later.0.iter().cloned());
    }
    #[allow(clippy::cast_possible_wrap)] // a set of so many values does not fit in memory
    fn value(&self, (): &()) -> Value {
        Value::Int(self.0.len() as i64)
    }
    fn data_type((): &()) -> DataType {
        DataType::Int64
    }
    fn state(&self, (): &()) -> Vec<Value> {
        let values = K::to_array(&self.0);
        let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let list = ListArray::new(field, OffsetBuffer::from_lengths([values.len()]), values, None);
        vec![Value::Other(Arc::new(list))]
    }
    fn state_types((): &()) -> Vec<DataType> {
        let item = K::to_array(&HashSet::default()).data_type().clone();
        vec![DataType::List(Arc::new(Field::new_list_field(item, true)))]
    }
    fn restored((): &(), state: &[Value]) -> Option<Self> {
        let [Value::Other(list)] = state else { return None };
        let values = list.as_list_opt::<i32>()?.value(0);
        let values = (0..values.len()).map(|row| K::of(&Value::at(&values, row)));
        values.collect::<Option<_>>().map(Self)
    }
    fn heap_bytes(&self) -> usize {
        self.0.capacity() * (size_of::<K>() + 1) + self.0.iter().map(K::heap_bytes).sum::<usize>()
    }
}
