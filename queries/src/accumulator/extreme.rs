//! `min` and `max`, natively for the types that are ordered by one comparison.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, PrimitiveArray, StringArray};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::common::Result;

use super::{GroupAccumulator, for_each_valid, nulls_where_not, same};
use crate::grouped::Grouped;
use crate::keys::Group;
use crate::picked::Picked;
use crate::value::Value;

/// Whether a type has a native `min` and `max`.
pub(super) fn has_native_extreme(data_type: &DataType) -> bool {
    use DataType::{
        Date32, Float32, Float64, Int8, Int16, Int32, Int64, Timestamp, UInt8, UInt16, UInt32, UInt64, Utf8,
    };
    matches!(
        data_type,
        Int8 | Int16
            | Int32
            | Int64
            | UInt8
            | UInt16
            | UInt32
            | UInt64
            | Float32
            | Float64
            | Date32
            | Utf8
            | Timestamp(TimeUnit::Microsecond, None)
    )
}

/// The accumulator of `max` (or `min`) for a type that has one.
pub(super) fn extreme(greatest: bool, data_type: &DataType) -> Box<dyn GroupAccumulator> {
    macro_rules! of {
        ($t:ty) => {
            Box::new(Extreme::<$t>::new(greatest))
        };
    }
    match data_type {
        DataType::Int8 => of!(Int8Type),
        DataType::Int16 => of!(Int16Type),
        DataType::Int32 => of!(Int32Type),
        DataType::UInt8 => of!(UInt8Type),
        DataType::UInt16 => of!(UInt16Type),
        DataType::UInt32 => of!(UInt32Type),
        DataType::UInt64 => of!(UInt64Type),
        DataType::Float32 => of!(Float32Type),
        DataType::Float64 => of!(Float64Type),
        DataType::Date32 => of!(Date32Type),
        DataType::Timestamp(TimeUnit::Microsecond, None) => of!(TimestampMicrosecondType),
        DataType::Utf8 => Box::new(ExtremeText {
            greatest,
            values: Grouped::default(),
        }),
        _ => of!(Int64Type),
    }
}

struct Extreme<T: ArrowPrimitiveType> {
    greatest: bool,
    /// Where no value was seen yet, one that every other wins against.
    values: Grouped<T::Native>,
    seen: Grouped<bool>,
}

impl<T: ArrowPrimitiveType> Extreme<T> {
    fn new(greatest: bool) -> Self {
        Self {
            greatest,
            values: Grouped::filled(if greatest {
                |places| vec![T::Native::MIN_TOTAL_ORDER; places]
            } else {
                |places| vec![T::Native::MAX_TOTAL_ORDER; places]
            }),
            seen: Grouped::default(),
        }
    }

    fn none(greatest: bool) -> T::Native {
        if greatest {
            T::Native::MIN_TOTAL_ORDER
        } else {
            T::Native::MAX_TOTAL_ORDER
        }
    }

    fn choose(greatest: bool, held: &mut T::Native, value: T::Native) {
        // The total order puts NaN above all numbers, as DataFusion's min and max do.
        let wins = if greatest {
            value.is_gt(*held)
        } else {
            value.is_lt(*held)
        };
        if wins {
            *held = value;
        }
    }

    fn offer(&mut self, group: usize, value: T::Native) {
        Self::choose(self.greatest, &mut self.values[group], value);
        self.seen[group] = true;
    }
}

impl<T: ArrowPrimitiveType> GroupAccumulator for Extreme<T> {
    fn update(&mut self, groups: &[Group], rows: &Picked, args: &[ArrayRef]) -> Result<()> {
        let array = args[0].as_primitive::<T>();
        let greatest = self.greatest;
        for_each_valid(&mut self.values, array, groups, rows, |held, row| {
            Self::choose(greatest, held, array.value(row));
        });
        for_each_valid(&mut self.seen, array, groups, rows, |seen, _| *seen = true);
        Ok(())
    }
    fn update_one(&mut self, group: Group, args: &[Value], _types: &[DataType]) -> Result<()> {
        if let Some(value) = native::<T>(&args[0]) {
            self.offer(group as usize, value);
        }
        Ok(())
    }
    fn value(&mut self, group: Group) -> Result<Value> {
        Ok(if self.seen[group as usize] {
            of_native::<T>(self.values[group as usize])
        } else {
            Value::Null
        })
    }
    fn merge(&mut self, other: &dyn GroupAccumulator, groups: &[Group]) -> Result<()> {
        let other = same::<Self>(other);
        // A choice and no branch, so that many are compared at once.
        if self.greatest {
            self.values.for_each_pair(&other.values, groups, |held, value| {
                *held = if value.is_gt(*held) { *value } else { *held };
            });
        } else {
            self.values.for_each_pair(&other.values, groups, |held, value| {
                *held = if value.is_lt(*held) { *value } else { *held };
            });
        }
        self.seen
            .for_each_pair(&other.seen, groups, |seen, other| *seen |= other);
        Ok(())
    }
    fn absorb(&mut self, into: Group, from: Group) -> Result<()> {
        if self.seen[from as usize] {
            self.offer(into as usize, self.values[from as usize]);
        }
        Ok(())
    }
    fn evaluate(&mut self, groups: &[Group]) -> Result<ArrayRef> {
        let values = PrimitiveArray::<T>::new(
            self.values.picked(groups).into(),
            nulls_where_not(self.seen.picked(groups)),
        );
        Ok(Arc::new(values))
    }
    fn state(&mut self, groups: &[Group]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(groups)?])
    }
    fn restore(&mut self, groups: &[Group], state: &[ArrayRef]) -> Result<()> {
        let values = state[0].as_primitive::<T>();
        self.clear(groups);
        for (row, group) in groups.iter().enumerate() {
            if values.is_valid(row) {
                self.offer(*group as usize, values.value(row));
            }
        }
        Ok(())
    }
    fn clear(&mut self, groups: &[Group]) {
        let none = Self::none(self.greatest);
        self.values.for_each_there(groups, |held| *held = none);
        self.seen.for_each_there(groups, |seen| *seen = false);
    }
    fn state_width(&self) -> usize {
        1
    }
    fn is_mergeable(&self) -> bool {
        true
    }
    fn bytes(&self) -> usize {
        self.values.bytes() + self.seen.bytes()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A value as the native type of a column; `None` for a null.
fn native<T: ArrowPrimitiveType>(value: &Value) -> Option<T::Native> {
    let plain: &dyn Any = match value {
        Value::Int(value) | Value::Time(value) => value,
        Value::Float(value) => value,
        Value::Other(array) => return Some(array.as_primitive::<T>().value(0)),
        _ => return None,
    };
    plain.downcast_ref().copied()
}

fn of_native<T: ArrowPrimitiveType>(value: T::Native) -> Value {
    let plain: &dyn Any = &value;
    match (&T::DATA_TYPE, plain.downcast_ref::<i64>(), plain.downcast_ref::<f64>()) {
        (DataType::Int64, Some(value), _) => Value::Int(*value),
        (DataType::Timestamp(TimeUnit::Microsecond, None), Some(value), _) => Value::Time(*value),
        (DataType::Float64, _, Some(value)) => Value::Float(*value),
        _ => Value::Other(Arc::new(PrimitiveArray::<T>::from_value(value, 1))),
    }
}

struct ExtremeText {
    greatest: bool,
    values: Grouped<Option<Arc<str>>>,
}

impl ExtremeText {
    fn offer(&mut self, group: usize, value: &str) {
        Self::choose(self.greatest, &mut self.values[group], value);
    }

    fn choose(greatest: bool, held: &mut Option<Arc<str>>, value: &str) {
        let wins = held
            .as_deref()
            .is_none_or(|held| if greatest { value > held } else { value < held });
        if wins {
            *held = Some(value.into());
        }
    }
}

impl GroupAccumulator for ExtremeText {
    fn update(&mut self, groups: &[Group], rows: &Picked, args: &[ArrayRef]) -> Result<()> {
        let (array, greatest) = (args[0].as_string::<i32>(), self.greatest);
        for_each_valid(&mut self.values, array, groups, rows, |held, row| {
            Self::choose(greatest, held, array.value(row));
        });
        Ok(())
    }
    fn update_one(&mut self, group: Group, args: &[Value], _types: &[DataType]) -> Result<()> {
        if let Value::Text(value) = &args[0] {
            self.offer(group as usize, value);
        }
        Ok(())
    }
    fn value(&mut self, group: Group) -> Result<Value> {
        let held = &self.values[group as usize];
        Ok(held
            .as_ref()
            .map_or(Value::Null, |value| Value::Text(Arc::clone(value))))
    }
    fn merge(&mut self, other: &dyn GroupAccumulator, groups: &[Group]) -> Result<()> {
        let other = same::<Self>(other);
        for group in groups {
            if let Some(value) = &other.values[*group as usize] {
                self.offer(*group as usize, value);
            }
        }
        Ok(())
    }
    fn absorb(&mut self, into: Group, from: Group) -> Result<()> {
        if let Some(value) = self.values[from as usize].take() {
            self.offer(into as usize, &value);
        }
        Ok(())
    }
    fn evaluate(&mut self, groups: &[Group]) -> Result<ArrayRef> {
        let values: StringArray = groups
            .iter()
            .map(|group| self.values[*group as usize].as_deref())
            .collect();
        Ok(Arc::new(values))
    }
    fn state(&mut self, groups: &[Group]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(groups)?])
    }
    fn restore(&mut self, groups: &[Group], state: &[ArrayRef]) -> Result<()> {
        let values = state[0].as_string::<i32>();
        for (row, group) in groups.iter().enumerate() {
            self.values[*group as usize] = values.is_valid(row).then(|| values.value(row).into());
        }
        Ok(())
    }
    fn clear(&mut self, groups: &[Group]) {
        self.values.for_each_there(groups, |held| *held = None);
    }
    fn state_width(&self) -> usize {
        1
    }
    fn is_mergeable(&self) -> bool {
        true
    }
    fn bytes(&self) -> usize {
        let texts = self.values.places().filter_map(|(_, value)| value.as_ref());
        self.values.bytes() + texts.map(|value| value.len()).sum::<usize>()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
