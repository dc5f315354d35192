//! A cell is what one group holds of one aggregate; `Cells` are those of all groups.

use std::any::Any;
use std::fmt::Debug;
use std::ops::IndexMut;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, TimestampMicrosecondArray, new_empty_array,
};
use arrow::compute::concat;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Result, internal_datafusion_err};

use super::{GroupAccumulator, same};
use crate::grouped::Grouped;
use crate::keys::Group;
use crate::picked::Picked;
use crate::value::Value;

/// What one group holds of one aggregate, before its first row: the default.
///
/// Contract, trusted: `take_rows` does for each row what `take` does for one, `merge` what `take` of all later rows
/// would have done, and a cell that is restored from its state is the same cell.
pub(crate) trait Cell: Default + Debug + Send + Sync + 'static {
    /// What the call in the SQL says for all groups.
    type Call: Clone + Debug + Send + Sync;

    /// Takes the row of these arguments.
    fn take(&mut self, call: &Self::Call, args: &[Value]);
    /// Takes rows of columns: each is the number of a cell and of a row.
    fn take_rows(
        cells: &mut (impl IndexMut<usize, Output = Self> + ?Sized),
        call: &Self::Call,
        rows: impl Iterator<Item = (usize, usize)>,
        args: &[ArrayRef],
    );
    /// Adds what a cell of later rows holds.
    fn merge(&mut self, call: &Self::Call, later: &Self);
    /// The answer.
    fn value(&self, call: &Self::Call) -> Value;
    /// The type of the answer.
    fn data_type(call: &Self::Call) -> DataType;
    /// All that is needed to go on later.
    fn state(&self, call: &Self::Call) -> Vec<Value>;
    /// The types of `state`.
    fn state_types(call: &Self::Call) -> Vec<DataType>;
    /// From what `state` gave; `None` for what it never gives.
    fn restored(call: &Self::Call, state: &[Value]) -> Option<Self>;
    /// Whether cells of panes, which part rows by time and not by arrival, give the right answer when merged.
    fn is_mergeable(_call: &Self::Call) -> bool {
        true
    }
    /// Bytes kept outside of the cell, estimated.
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// The cells of all groups.
pub(super) struct Cells<C: Cell> {
    call: C::Call,
    cells: Grouped<C>,
}

impl<C: Cell> Cells<C> {
    pub(super) fn boxed(call: &C::Call) -> Box<dyn GroupAccumulator> {
        Box::new(Self {
            call: call.clone(),
            cells: Grouped::default(),
        })
    }

    fn cells_of<'a>(&'a self, groups: &'a [Group]) -> impl Iterator<Item = &'a C> {
        groups.iter().map(|group| &self.cells[*group as usize])
    }
}

impl<C: Cell> GroupAccumulator for Cells<C> {
    fn update(&mut self, groups: &[Group], rows: &Picked, args: &[ArrayRef]) -> Result<()> {
        let of_row = |row: usize| (groups[row] as usize, row);
        match rows {
            Picked::Run(run) => C::take_rows(&mut self.cells, &self.call, run.clone().map(of_row), args),
            Picked::Each(rows) => {
                let rows = rows.iter().map(|row| of_row(*row as usize));
                C::take_rows(&mut self.cells, &self.call, rows, args);
            }
        }
        Ok(())
    }
    fn update_one(&mut self, group: Group, args: &[Value], _types: &[DataType]) -> Result<()> {
        self.cells[group as usize].take(&self.call, args);
        Ok(())
    }
    fn value(&mut self, group: Group) -> Result<Value> {
        Ok(self.cells[group as usize].value(&self.call))
    }
    fn merge(&mut self, other: &dyn GroupAccumulator, groups: &[Group]) -> Result<()> {
        let other = same::<Self>(other);
        self.cells
            .for_each_pair(&other.cells, groups, |into, from| into.merge(&self.call, from));
        Ok(())
    }
    fn absorb(&mut self, into: Group, from: Group) -> Result<()> {
        let later = std::mem::take(&mut self.cells[from as usize]);
        self.cells[into as usize].merge(&self.call, &later);
        Ok(())
    }
    fn evaluate(&mut self, groups: &[Group]) -> Result<ArrayRef> {
        let values = self.cells_of(groups).map(|cell| cell.value(&self.call));
        column(&C::data_type(&self.call), values)
    }
    fn state(&mut self, groups: &[Group]) -> Result<Vec<ArrayRef>> {
        let types = C::state_types(&self.call);
        let mut columns: Vec<Vec<Value>> = vec![Vec::with_capacity(groups.len()); types.len()];
        for cell in self.cells_of(groups) {
            for (column, value) in columns.iter_mut().zip(cell.state(&self.call)) {
                column.push(value);
            }
        }
        types
            .iter()
            .zip(columns)
            .map(|(data_type, values)| column(data_type, values.into_iter()))
            .collect()
    }
    fn row_bytes(&self, group: Group) -> usize {
        size_of::<Value>() + self.cells[group as usize].heap_bytes()
    }
    fn restore(&mut self, groups: &[Group], state: &[ArrayRef]) -> Result<()> {
        for (row, group) in groups.iter().enumerate() {
            let state: Vec<Value> = state.iter().map(|column| Value::at(column, row)).collect();
            self.cells[*group as usize] = C::restored(&self.call, &state).ok_or_else(|| {
                internal_datafusion_err!("the snapshot holds {state:?}, which this version never kept")
            })?;
        }
        Ok(())
    }
    fn clear(&mut self, groups: &[Group]) {
        self.cells.for_each_there(groups, |cell| *cell = C::default());
    }
    fn state_width(&self) -> usize {
        C::state_types(&self.call).len()
    }
    fn is_mergeable(&self) -> bool {
        C::is_mergeable(&self.call)
    }
    fn bytes(&self) -> usize {
        self.cells.bytes() + self.cells.places().map(|(_, cell)| cell.heap_bytes()).sum::<usize>()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The column of these values, which are of the type `data_type` or null.
fn column(data_type: &DataType, values: impl Iterator<Item = Value>) -> Result<ArrayRef> {
    macro_rules! plain {
        ($array:ty, $value:path) => {
            Arc::new(
                values
                    .map(|value| match value {
                        $value(value) => Some(value),
                        _ => None,
                    })
                    .collect::<$array>(),
            )
        };
    }
    Ok(match data_type {
        DataType::Boolean => plain!(BooleanArray, Value::Bool),
        DataType::Int64 => plain!(Int64Array, Value::Int),
        DataType::Float64 => plain!(Float64Array, Value::Float),
        DataType::Timestamp(TimeUnit::Microsecond, None) => plain!(TimestampMicrosecondArray, Value::Time),
        _ => {
            let arrays: Vec<ArrayRef> = values.map(|value| value.to_array(data_type)).collect();
            if arrays.is_empty() {
                return Ok(new_empty_array(data_type));
            }
            concat(&arrays.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())?
        }
    })
}
