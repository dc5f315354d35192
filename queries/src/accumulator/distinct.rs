//! How many different values there were: `count(DISTINCT x)` of texts, whole numbers and times.

use std::fmt::Debug;
use std::hash::BuildHasher;
use std::ops::IndexMut;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, PrimitiveArray, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Int64Type, TimeUnit, TimestampMicrosecondType};
use hashbrown::hash_table::Entry;
use hashbrown::{HashSet, HashTable};
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

/// A set of values of a type.
pub(super) trait Set: Debug + Default + Send + Sync + 'static {
    /// The type in which they are kept.
    const KEPT_AS: DataType;

    /// Puts in a value, where it is one of the type.
    fn insert(&mut self, value: &Value);
    /// Puts the values at `rows` in the sets of their cells.
    fn insert_all(
        sets: &mut (impl IndexMut<usize, Output = Distinct<Self>> + ?Sized),
        rows: impl Iterator<Item = (usize, usize)>,
        array: &ArrayRef,
    );
    /// Puts in all of another one.
    fn extend(&mut self, other: &Self);
    fn len(&self) -> usize;
    fn to_array(&self) -> ArrayRef;
    /// From what `to_array` gave; `None` for what it never gives.
    fn of_array(array: &ArrayRef) -> Option<Self>;
    /// Bytes it keeps, at once.
    fn heap_bytes(&self) -> usize;
}

/// Whole numbers, and times by their microseconds.
#[derive(Debug, Default)]
pub(super) struct Numbers(HashSet<i64, FxBuildHasher>);

fn insert_numbers<T: ArrowPrimitiveType<Native = i64>>(
    sets: &mut (impl IndexMut<usize, Output = Distinct<Numbers>> + ?Sized),
    rows: impl Iterator<Item = (usize, usize)>,
    array: &PrimitiveArray<T>,
) {
    for (cell, row) in rows {
        if array.is_valid(row) {
            sets[cell].0.0.insert(array.value(row));
        }
    }
}

impl Set for Numbers {
    const KEPT_AS: DataType = DataType::Int64;

    fn insert(&mut self, value: &Value) {
        if let Value::Int(value) | Value::Time(value) = value {
            self.0.insert(*value);
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
    fn extend(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn to_array(&self) -> ArrayRef {
        Arc::new(PrimitiveArray::<Int64Type>::from_iter_values(self.0.iter().copied()))
    }
    fn of_array(array: &ArrayRef) -> Option<Self> {
        let values = array.as_primitive_opt::<Int64Type>()?;
        Some(Self(values.iter().flatten().collect()))
    }
    fn heap_bytes(&self) -> usize {
        // A byte of the table's own for each.
        self.0.capacity() * (size_of::<i64>() + 1)
    }
}

/// Texts one behind the other in the order in which they came, as a column has them: a set of ten thousand is kept by copying
/// two pieces of memory, where as many texts of their own had to be looked up one by one while events waited.
#[derive(Debug, Default)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<i32>,
    /// Their numbers, by their hashes.
    numbers: HashTable<u32>,
}

fn text_at<'a>(bytes: &'a [u8], ends: &[i32], number: u32) -> &'a [u8] {
    let number = number as usize;
    let start = number.checked_sub(1).map_or(0, |before| ends[before]);
    &bytes[start as usize..ends[number] as usize]
}

impl Texts {
    fn insert_bytes(&mut self, text: &[u8]) {
        let Self { bytes, ends, numbers } = self;
        let is_it = |number: &u32| text_at(bytes, ends, *number) == text;
        let hash_of = |number: &u32| FxBuildHasher.hash_one(text_at(bytes, ends, *number));
        if let Entry::Vacant(place) = numbers.entry(FxBuildHasher.hash_one(text), is_it, hash_of) {
            let end = i32::try_from(bytes.len() + text.len());
            let end = end.expect("the different texts of a group are no longer than a column can be, 2 GiB together");
            #[allow(clippy::cast_possible_truncation)] // there are fewer than bytes, or one that is empty
            place.insert(ends.len() as u32);
            bytes.extend_from_slice(text);
            ends.push(end);
        }
    }

    fn all(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        let texts = starts.zip(&self.ends);
        texts.map(|(start, end)| &self.bytes[*start as usize..*end as usize])
    }
}

impl Set for Texts {
    const KEPT_AS: DataType = DataType::Utf8;

    fn insert(&mut self, value: &Value) {
        if let Value::Text(text) = value {
            self.insert_bytes(text.as_bytes());
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
                sets[cell].0.insert_bytes(array.value(row).as_bytes());
            }
        }
    }
    fn extend(&mut self, other: &Self) {
        other.all().for_each(|text| self.insert_bytes(text));
    }
    fn len(&self) -> usize {
        self.ends.len()
    }
    fn to_array(&self) -> ArrayRef {
        let mut offsets = Vec::with_capacity(self.ends.len() + 1);
        offsets.push(0);
        offsets.extend_from_slice(&self.ends);
        let offsets = OffsetBuffer::new(offsets.into());
        Arc::new(StringArray::new(offsets, Buffer::from(self.bytes.as_slice()), None))
    }
    fn of_array(array: &ArrayRef) -> Option<Self> {
        let mut texts = Self::default();
        let values = array.as_string_opt::<i32>()?.iter().flatten();
        values.for_each(|text| texts.insert_bytes(text.as_bytes()));
        Some(texts)
    }
    fn heap_bytes(&self) -> usize {
        let ends = self.ends.capacity() * size_of::<i32>();
        self.bytes.capacity() + ends + self.numbers.capacity() * (size_of::<u32>() + 1)
    }
}

/// The different values of a group.
#[derive(Debug, Default)]
pub(super) struct Distinct<S: Set>(S);

impl<S: Set> Cell for Distinct<S> {
    type Call = ();

    fn take(&mut self, (): &(), args: &[Value]) {
        self.0.insert(&args[0]);
    }
    fn take_rows(
        cells: &mut (impl IndexMut<usize, Output = Self> + ?Sized),
        (): &(),
        rows: impl Iterator<Item = (usize, usize)>,
        args: &[ArrayRef],
    ) {
        S::insert_all(cells, rows, &args[0]);
    }
    fn merge(&mut self, (): &(), later: &Self) {
        self.0.extend(&later.0);
    }
    #[allow(clippy::cast_possible_wrap)] // a set of so many values does not fit in memory
    fn value(&self, (): &()) -> Value {
        Value::Int(self.0.len() as i64)
    }
    fn data_type((): &()) -> DataType {
        DataType::Int64
    }
    fn state(&self, (): &()) -> Vec<Value> {
        let values = self.0.to_array();
        let field = Arc::new(Field::new_list_field(S::KEPT_AS, true));
        let list = ListArray::new(field, OffsetBuffer::from_lengths([values.len()]), values, None);
        vec![Value::Other(Arc::new(list))]
    }
    fn state_types((): &()) -> Vec<DataType> {
        vec![DataType::List(Arc::new(Field::new_list_field(S::KEPT_AS, true)))]
    }
    fn restored((): &(), state: &[Value]) -> Option<Self> {
        let [Value::Other(list)] = state else { return None };
        let values = list.as_list_opt::<i32>()?.value(0);
        (values.null_count() == 0).then(|| S::of_array(&values).map(Self))?
    }
    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}
