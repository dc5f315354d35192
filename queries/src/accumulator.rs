//! Accumulators of an aggregate, one value a group: they can be read at any time without being emptied.
//!
//! DataFusion's group accumulators empty what they return, so a running answer needs our own for the common
//! aggregates; every other one of DataFusion's runs through its row accumulators, which can be read again.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Float64Array, Int64Array, PrimitiveArray, StringArray, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use crate::keys::Group;

/// Values of one aggregate for many groups.
///
/// Contract: `groups` holds a group for each row of `args`; `rows` are indices of the rows to take; groups are below
/// the last `resize` (trusted). `evaluate` and `state` change nothing that can be seen.
pub(crate) trait GroupAccumulator: Send {
    /// Makes room for groups below `groups`.
    fn resize(&mut self, groups: usize);
    /// Takes the rows `rows` of `args`.
    fn update(&mut self, groups: &[Group], rows: &[u32], args: &[ArrayRef]) -> Result<()>;
    /// Adds what another accumulator of the same aggregate holds for `groups`.
    fn merge(&mut self, other: &dyn GroupAccumulator, groups: &[Group]) -> Result<()>;
    /// The values of `groups`, in their order.
    fn evaluate(&mut self, groups: &[Group]) -> Result<ArrayRef>;
    /// What a snapshot keeps of `groups`, one or more columns.
    fn state(&mut self, groups: &[Group]) -> Result<Vec<ArrayRef>>;
    /// Takes back what `state` gave: row i belongs to `groups[i]`.
    fn restore(&mut self, groups: &[Group], state: &[ArrayRef]) -> Result<()>;
    /// Sets a group back to nothing, for the next key that gets its number.
    fn clear(&mut self, group: Group);
    /// How many state columns there are.
    fn state_width(&self) -> usize;
    /// Whether `merge` works.
    fn is_mergeable(&self) -> bool;
    /// Bytes kept, estimated.
    fn bytes(&self) -> usize;
    /// For `merge`.
    fn as_any(&self) -> &dyn Any;
}

/// Which accumulator an aggregate runs on; decided once when the query is created.
#[derive(Debug, Clone)]
pub(crate) enum AggregateKind {
    /// `count(x)` without DISTINCT.
    Count,
    /// `sum` of integers, wrapping as DataFusion's does.
    SumInt,
    /// `sum` of floats.
    SumFloat,
    /// `avg` of floats.
    Avg,
    /// `min` or `max` of a type with a native accumulator.
    Extreme { greatest: bool, data_type: DataType },
    /// Any other aggregate of DataFusion.
    Row(Arc<AggregateFunctionExpr>),
}

impl AggregateKind {
    pub(crate) fn of(expr: &Arc<AggregateFunctionExpr>, argument_types: &[DataType]) -> Self {
        let plain = !expr.is_distinct() && expr.order_bys().is_empty();
        let native = match (expr.fun().name(), argument_types) {
            ("count", [_]) if plain => Some(Self::Count),
            ("sum", [DataType::Int64]) if plain => Some(Self::SumInt),
            ("sum", [DataType::Float64]) if plain => Some(Self::SumFloat),
            ("avg", [DataType::Float64]) if plain => Some(Self::Avg),
            (name @ ("min" | "max"), [data_type]) if has_native_extreme(data_type) => Some(Self::Extreme {
                greatest: name == "max",
                data_type: data_type.clone(),
            }),
            _ => None,
        };
        native.unwrap_or_else(|| Self::Row(Arc::clone(expr)))
    }

    pub(crate) fn create(&self) -> Box<dyn GroupAccumulator> {
        match self {
            Self::Count => Box::new(Count::default()),
            Self::SumInt => Box::new(SumInt::default()),
            Self::SumFloat => Box::new(SumFloat::default()),
            Self::Avg => Box::new(Avg::default()),
            Self::Extreme { greatest, data_type } => extreme(*greatest, data_type),
            Self::Row(expr) => Box::new(RowAccumulators {
                expr: Arc::clone(expr),
                groups: Vec::new(),
            }),
        }
    }
}

fn has_native_extreme(data_type: &DataType) -> bool {
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

fn extreme(greatest: bool, data_type: &DataType) -> Box<dyn GroupAccumulator> {
    macro_rules! of {
        ($t:ty) => {
            Box::new(Extreme::<$t> {
                greatest,
                values: Vec::new(),
            })
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
            values: Vec::new(),
        }),
        _ => of!(Int64Type),
    }
}

/// Calls `each(group, row)` for the rows at which `array` is not null.
fn for_each_valid(array: &dyn Array, groups: &[Group], rows: &[u32], mut each: impl FnMut(usize, usize)) {
    match array.nulls() {
        None => {
            for row in rows {
                each(groups[*row as usize] as usize, *row as usize);
            }
        }
        Some(nulls) => {
            for row in rows {
                if nulls.is_valid(*row as usize) {
                    each(groups[*row as usize] as usize, *row as usize);
                }
            }
        }
    }
}

fn same<T: 'static>(other: &dyn GroupAccumulator) -> &T {
    other
        .as_any()
        .downcast_ref::<T>()
        .expect("panes of one query hold the same accumulators")
}

#[derive(Default)]
struct Count {
    counts: Vec<i64>,
}

impl GroupAccumulator for Count {
    fn resize(&mut self, groups: usize) {
        self.counts.resize(groups.max(self.counts.len()), 0);
    }
    fn update(&mut self, groups: &[Group], rows: &[u32], args: &[ArrayRef]) -> Result<()> {
        for_each_valid(&args[0], groups, rows, |group, _| self.counts[group] += 1);
        Ok(())
    }
    fn merge(&mut self, other: &dyn GroupAccumulator, groups: &[Group]) -> Result<()> {
        let other = same::<Self>(other);
        for group in groups {
            self.counts[*group as usize] += other.counts[*group as usize];
        }
        Ok(())
    }
    fn evaluate(&mut self, groups: &[Group]) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(
            groups.iter().map(|group| self.counts[*group as usize]),
        )))
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
    fn clear(&mut self, group: Group) {
        self.counts[group as usize] = 0;
    }
    fn state_width(&self) -> usize {
        1
    }
    fn is_mergeable(&self) -> bool {
        true
    }
    fn bytes(&self) -> usize {
        self.counts.capacity() * 8
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

macro_rules! sum_accumulator {
    ($name:ident, $arrow:ty, $array:ty, $native:ty, $add:expr) => {
        #[derive(Default)]
        struct $name {
            sums: Vec<$native>,
            /// A sum over no value is null, and not 0.
            seen: Vec<bool>,
        }

        impl GroupAccumulator for $name {
            fn resize(&mut self, groups: usize) {
                self.sums
                    .resize(groups.max(self.sums.len()), <$native>::default());
                self.seen.resize(groups.max(self.seen.len()), false);
            }
            fn update(&mut self, groups: &[Group], rows: &[u32], args: &[ArrayRef]) -> Result<()> {
                let array = args[0].as_primitive::<$arrow>();
                let values = array.values();
                let (sums, seen) = (&mut self.sums, &mut self.seen);
                for_each_valid(array, groups, rows, |group, row| {
                    sums[group] = $add(sums[group], values[row]);
                    seen[group] = true;
                });
                Ok(())
            }
            fn merge(&mut self, other: &dyn GroupAccumulator, groups: &[Group]) -> Result<()> {
                let other = same::<Self>(other);
                for group in groups {
                    let group = *group as usize;
                    self.sums[group] = $add(self.sums[group], other.sums[group]);
                    self.seen[group] |= other.seen[group];
                }
                Ok(())
            }
            fn evaluate(&mut self, groups: &[Group]) -> Result<ArrayRef> {
                let values = groups
                    .iter()
                    .map(|group| self.seen[*group as usize].then(|| self.sums[*group as usize]));
                Ok(Arc::new(values.collect::<$array>()))
            }
            fn state(&mut self, groups: &[Group]) -> Result<Vec<ArrayRef>> {
                Ok(vec![self.evaluate(groups)?])
            }
            fn restore(&mut self, groups: &[Group], state: &[ArrayRef]) -> Result<()> {
                let sums = state[0].as_primitive::<$arrow>();
                for (row, group) in groups.iter().enumerate() {
                    self.seen[*group as usize] = sums.is_valid(row);
                    self.sums[*group as usize] = if sums.is_valid(row) {
                        sums.value(row)
                    } else {
                        <$native>::default()
                    };
                }
                Ok(())
            }
            fn clear(&mut self, group: Group) {
                self.sums[group as usize] = <$native>::default();
                self.seen[group as usize] = false;
            }
            fn state_width(&self) -> usize {
                1
            }
            fn is_mergeable(&self) -> bool {
                true
            }
            fn bytes(&self) -> usize {
                self.sums.capacity() * 9
            }
            fn as_any(&self) -> &dyn Any {
                self
            }
        }
    };
}

sum_accumulator!(SumInt, Int64Type, Int64Array, i64, i64::wrapping_add);
sum_accumulator!(SumFloat, Float64Type, Float64Array, f64, |a: f64, b: f64| a + b);

#[derive(Default)]
struct Avg {
    sums: Vec<f64>,
    counts: Vec<u64>,
}

impl GroupAccumulator for Avg {
    fn resize(&mut self, groups: usize) {
        self.sums.resize(groups.max(self.sums.len()), 0.0);
        self.counts.resize(groups.max(self.counts.len()), 0);
    }
    fn update(&mut self, groups: &[Group], rows: &[u32], args: &[ArrayRef]) -> Result<()> {
        let array = args[0].as_primitive::<Float64Type>();
        let values = array.values();
        let (sums, counts) = (&mut self.sums, &mut self.counts);
        for_each_valid(array, groups, rows, |group, row| {
            sums[group] += values[row];
            counts[group] += 1;
        });
        Ok(())
    }
    fn merge(&mut self, other: &dyn GroupAccumulator, groups: &[Group]) -> Result<()> {
        let other = same::<Self>(other);
        for group in groups {
            let group = *group as usize;
            self.sums[group] += other.sums[group];
            self.counts[group] += other.counts[group];
        }
        Ok(())
    }
    #[allow(clippy::cast_precision_loss)] // as DataFusion does: counts stay far below 2^53
    fn evaluate(&mut self, groups: &[Group]) -> Result<ArrayRef> {
        let values = groups.iter().map(|group| {
            let group = *group as usize;
            (self.counts[group] > 0).then(|| self.sums[group] / self.counts[group] as f64)
        });
        Ok(Arc::new(values.collect::<Float64Array>()))
    }
    fn state(&mut self, groups: &[Group]) -> Result<Vec<ArrayRef>> {
        let sums = Float64Array::from_iter_values(groups.iter().map(|group| self.sums[*group as usize]));
        let counts =
            PrimitiveArray::<UInt64Type>::from_iter_values(groups.iter().map(|group| self.counts[*group as usize]));
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
    fn clear(&mut self, group: Group) {
        self.sums[group as usize] = 0.0;
        self.counts[group as usize] = 0;
    }
    fn state_width(&self) -> usize {
        2
    }
    fn is_mergeable(&self) -> bool {
        true
    }
    fn bytes(&self) -> usize {
        self.sums.capacity() * 16
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Extreme<T: ArrowPrimitiveType> {
    greatest: bool,
    values: Vec<Option<T::Native>>,
}

impl<T: ArrowPrimitiveType> Extreme<T> {
    fn offer(&mut self, group: usize, value: T::Native) {
        use arrow::array::ArrowNativeTypeOp;
        let held = &mut self.values[group];
        // The total order puts NaN above all numbers, as DataFusion's min and max do.
        let wins = held.is_none_or(|held| {
            if self.greatest {
                value.is_gt(held)
            } else {
                value.is_lt(held)
            }
        });
        if wins {
            *held = Some(value);
        }
    }
}

impl<T: ArrowPrimitiveType> GroupAccumulator for Extreme<T> {
    fn resize(&mut self, groups: usize) {
        self.values.resize(groups.max(self.values.len()), None);
    }
    fn update(&mut self, groups: &[Group], rows: &[u32], args: &[ArrayRef]) -> Result<()> {
        let array = args[0].as_primitive::<T>();
        for_each_valid(array, groups, rows, |group, row| self.offer(group, array.value(row)));
        Ok(())
    }
    fn merge(&mut self, other: &dyn GroupAccumulator, groups: &[Group]) -> Result<()> {
        let other = same::<Self>(other);
        for group in groups {
            if let Some(value) = other.values[*group as usize] {
                self.offer(*group as usize, value);
            }
        }
        Ok(())
    }
    fn evaluate(&mut self, groups: &[Group]) -> Result<ArrayRef> {
        let values: PrimitiveArray<T> = groups.iter().map(|group| self.values[*group as usize]).collect();
        Ok(Arc::new(values))
    }
    fn state(&mut self, groups: &[Group]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(groups)?])
    }
    fn restore(&mut self, groups: &[Group], state: &[ArrayRef]) -> Result<()> {
        let values = state[0].as_primitive::<T>();
        for (row, group) in groups.iter().enumerate() {
            self.values[*group as usize] = values.is_valid(row).then(|| values.value(row));
        }
        Ok(())
    }
    fn clear(&mut self, group: Group) {
        self.values[group as usize] = None;
    }
    fn state_width(&self) -> usize {
        1
    }
    fn is_mergeable(&self) -> bool {
        true
    }
    fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<Option<T::Native>>()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct ExtremeText {
    greatest: bool,
    values: Vec<Option<Box<str>>>,
}

impl ExtremeText {
    fn offer(&mut self, group: usize, value: &str) {
        let held = &mut self.values[group];
        let wins = held
            .as_deref()
            .is_none_or(|held| if self.greatest { value > held } else { value < held });
        if wins {
            *held = Some(value.into());
        }
    }
}

impl GroupAccumulator for ExtremeText {
    fn resize(&mut self, groups: usize) {
        self.values.resize(groups.max(self.values.len()), None);
    }
    fn update(&mut self, groups: &[Group], rows: &[u32], args: &[ArrayRef]) -> Result<()> {
        let array = args[0].as_string::<i32>();
        for_each_valid(array, groups, rows, |group, row| self.offer(group, array.value(row)));
        Ok(())
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
    fn clear(&mut self, group: Group) {
        self.values[group as usize] = None;
    }
    fn state_width(&self) -> usize {
        1
    }
    fn is_mergeable(&self) -> bool {
        true
    }
    fn bytes(&self) -> usize {
        self.values.capacity() * 16 + self.values.iter().flatten().map(|value| value.len()).sum::<usize>()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// DataFusion's row accumulators, one a group, for every aggregate without a native one.
struct RowAccumulators {
    expr: Arc<AggregateFunctionExpr>,
    groups: Vec<Option<Box<dyn Accumulator>>>,
}

impl RowAccumulators {
    fn accumulator(&mut self, group: Group) -> Result<&mut Box<dyn Accumulator>> {
        let slot = &mut self.groups[group as usize];
        if slot.is_none() {
            *slot = Some(self.expr.create_accumulator()?);
        }
        match slot {
            Some(accumulator) => Ok(accumulator),
            None => internal_err!("an accumulator was just put there"),
        }
    }
}

impl GroupAccumulator for RowAccumulators {
    fn resize(&mut self, groups: usize) {
        if self.groups.len() < groups {
            self.groups.resize_with(groups, || None);
        }
    }
    fn update(&mut self, groups: &[Group], rows: &[u32], args: &[ArrayRef]) -> Result<()> {
        let mut order: Vec<u32> = rows.to_vec();
        order.sort_by_key(|row| groups[*row as usize]); // stable: the rows of a group stay in their order
        for run in order.chunk_by(|a, b| groups[*a as usize] == groups[*b as usize]) {
            let indices = UInt32Array::from_iter_values(run.iter().copied());
            let taken = args
                .iter()
                .map(|array| Ok(take(array, &indices, None)?))
                .collect::<Result<Vec<_>>>()?;
            self.accumulator(groups[run[0] as usize])?.update_batch(&taken)?;
        }
        Ok(())
    }
    fn merge(&mut self, _other: &dyn GroupAccumulator, _groups: &[Group]) -> Result<()> {
        internal_err!("row accumulators are kept a window and never merged")
    }
    fn evaluate(&mut self, groups: &[Group]) -> Result<ArrayRef> {
        let values = groups
            .iter()
            .map(|group| self.accumulator(*group)?.evaluate())
            .collect::<Result<Vec<_>>>()?;
        if values.is_empty() {
            return Ok(arrow::array::new_empty_array(self.expr.field().data_type()));
        }
        ScalarValue::iter_to_array(values)
    }
    fn state(&mut self, groups: &[Group]) -> Result<Vec<ArrayRef>> {
        let fields = self.expr.state_fields()?;
        let mut columns: Vec<Vec<ScalarValue>> = vec![Vec::with_capacity(groups.len()); fields.len()];
        for group in groups {
            // Taking the state may empty an accumulator, so a new one takes it over.
            let state = self.accumulator(*group)?.state()?;
            let arrays = state.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
            let mut fresh = self.expr.create_accumulator()?;
            fresh.merge_batch(&arrays)?;
            self.groups[*group as usize] = Some(fresh);
            for (column, value) in columns.iter_mut().zip(state) {
                column.push(value);
            }
        }
        columns
            .into_iter()
            .zip(&fields)
            .map(|(column, field)| {
                if column.is_empty() {
                    Ok(arrow::array::new_empty_array(field.data_type()))
                } else {
                    ScalarValue::iter_to_array(column)
                }
            })
            .collect()
    }
    fn restore(&mut self, groups: &[Group], state: &[ArrayRef]) -> Result<()> {
        for (row, group) in groups.iter().enumerate() {
            let slices: Vec<ArrayRef> = state.iter().map(|column| column.slice(row, 1)).collect();
            self.accumulator(*group)?.merge_batch(&slices)?;
        }
        Ok(())
    }
    fn clear(&mut self, group: Group) {
        self.groups[group as usize] = None;
    }
    fn state_width(&self) -> usize {
        self.expr.state_fields().map_or(0, |fields| fields.len())
    }
    fn is_mergeable(&self) -> bool {
        false
    }
    fn bytes(&self) -> usize {
        self.groups
            .iter()
            .flatten()
            .map(|accumulator| accumulator.size())
            .sum::<usize>()
            + self.groups.capacity() * 16
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
