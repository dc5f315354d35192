//! DataFusion's row accumulators, one a group, for every aggregate without a native one.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use datafusion::common::hash_utils::{HLL_RANDOM_STATE, create_hashes};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use rustc_hash::FxHashSet;

use super::{GroupAccumulator, same};
use crate::grouped::Grouped;
use crate::keys::Group;
use crate::picked::Picked;

/// Aggregates whose state holds all that their answer depends on, whatever came first: panes of them may be merged.
///
/// Not here are those that approximate as they merge (`approx_percentile_cont`) and those that hang on the order in
/// which rows came (`array_agg`, `string_agg`, `first_value`), which panes do not keep.
const MERGEABLE: [&str; 29] = [
    "approx_distinct",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "max",
    "median",
    "min",
    "percentile_cont",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];

fn is_same_in_any_order(expr: &AggregateFunctionExpr) -> bool {
    MERGEABLE.contains(&expr.fun().name())
}

type Held = Option<Box<dyn Accumulator>>;

/// Aggregates whose accumulators keep what they hold when their state is read, as DataFusion writes them.
///
/// Of all others a new accumulator takes over what was read, for reading may empty them.
const READ_AND_KEPT: [&str; 1] = ["approx_distinct"];

/// Of a sketch so many values are remembered that it has taken already.
const SEEN_MAX: usize = 1_024;

/// What a sketch of different values has taken, by the hash that it takes itself, and what it gave last. Mostly the same values
/// come again and again, as the tags of a shelf do: then nothing changes, and to ask it anew is to go through all of it.
#[derive(Default)]
struct Seen {
    hashes: FxHashSet<u64>,
    /// There were more than are remembered: none is from then on, for most that come are new.
    is_over: bool,
    given: Option<ScalarValue>,
}

impl Seen {
    fn bytes(&self) -> usize {
        // A hash, and a byte of the table's own.
        size_of::<Self>() + self.hashes.capacity() * 9
    }
}

/// DataFusion's row accumulators, one a group.
pub(super) struct RowAccumulators {
    expr: Arc<AggregateFunctionExpr>,
    /// In a cell, since DataFusion gives the state of an accumulator only to who may change it, and `merge` reads.
    groups: RefCell<Grouped<Held>>,
    /// How many columns it looks at. Those of an ORDER BY are kept from functions that are the same in any order: some
    /// count them as arguments of their own.
    args: usize,
    /// How many values a state really has.
    width: usize,
    /// Bytes of an accumulator that holds nothing: of a sketch that is all it ever has.
    empty_bytes: usize,
    is_read_and_kept: bool,
    /// Of each group where these are sketches of different values, which take a value a second time without a change.
    seen: Option<Grouped<Seen>>,
}

impl RowAccumulators {
    pub(super) fn new(expr: Arc<AggregateFunctionExpr>) -> Self {
        let empty = expr.create_accumulator();
        let empty_bytes = empty.as_ref().map_or(0, |empty| empty.size());
        let state = empty.and_then(|mut empty| empty.state());
        let orders = if is_same_in_any_order(&expr) {
            0
        } else {
            expr.order_bys().len()
        };
        Self {
            args: expr.expressions().len() + orders,
            empty_bytes,
            seen: (expr.fun().name() == "approx_distinct").then(Grouped::default),
            is_read_and_kept: READ_AND_KEPT.contains(&expr.fun().name()),
            expr,
            groups: RefCell::default(),
            width: state.map_or(0, |state| state.len()),
        }
    }

    fn accumulator(&mut self, group: Group) -> Result<&mut Box<dyn Accumulator>> {
        let held = &mut self.groups.get_mut()[group as usize];
        if held.is_none() {
            *held = Some(self.expr.create_accumulator()?);
        }
        match held {
            Some(accumulator) => Ok(accumulator),
            None => internal_err!("an accumulator was just put there"),
        }
    }

    /// Whether a group's sketch has taken all of these already; remembers them, as far as there is room.
    fn has_seen(&mut self, group: Group, taken: &[ArrayRef], hashes: &mut Vec<u64>) -> Result<bool> {
        let Some(seen) = &mut self.seen else {
            return Ok(false);
        };
        let seen = &mut seen[group as usize];
        let rows = taken.first().map_or(0, |array| array.len());
        if seen.is_over || rows > SEEN_MAX {
            *seen = Seen {
                is_over: true,
                ..Seen::default()
            };
            return Ok(false);
        }
        hashes.clear();
        hashes.resize(rows, 0);
        create_hashes(taken, &HLL_RANDOM_STATE, hashes)?;
        if hashes.iter().all(|hash| seen.hashes.contains(hash)) {
            return Ok(true);
        }
        seen.given = None;
        seen.hashes.extend(hashes.iter());
        if seen.hashes.len() > SEEN_MAX {
            seen.is_over = true;
            seen.hashes = FxHashSet::default();
        }
        Ok(false)
    }

    /// Nothing is known any more of what a group's sketch has taken.
    fn unsee(&mut self, group: Group) {
        if let Some(seen) = &mut self.seen {
            seen[group as usize] = Seen::default();
        }
    }

    /// The state of one group, which keeps what it holds.
    fn read(&self, held: &mut Held) -> Result<Vec<ScalarValue>> {
        let mut accumulator = match held.take() {
            Some(accumulator) => accumulator,
            None => self.expr.create_accumulator()?,
        };
        let state = accumulator.state()?;
        if self.is_read_and_kept {
            *held = Some(accumulator);
            return Ok(state);
        }
        // Taking the state may have emptied it, so a new one takes it over.
        let mut fresh = self.expr.create_accumulator()?;
        fresh.merge_batch(&to_arrays(&state)?)?;
        *held = Some(fresh);
        Ok(state)
    }
}

fn to_arrays(state: &[ScalarValue]) -> Result<Vec<ArrayRef>> {
    state.iter().map(ScalarValue::to_array).collect()
}

impl GroupAccumulator for RowAccumulators {
    fn update(&mut self, groups: &[Group], rows: &Picked, args: &[ArrayRef]) -> Result<()> {
        let mut order: Vec<u32> = Vec::new();
        let mut hashes = Vec::new();
        rows.for_each(|row| order.push(row as u32));
        order.sort_by_key(|row| groups[*row as usize]); // stable: the rows of a group stay in their order
        for run in order.chunk_by(|a, b| groups[*a as usize] == groups[*b as usize]) {
            let indices = UInt32Array::from_iter_values(run.iter().copied());
            let taken = args[..self.args.min(args.len())]
                .iter()
                .map(|array| Ok(take(array, &indices, None)?))
                .collect::<Result<Vec<_>>>()?;
            let group = groups[run[0] as usize];
            if !self.has_seen(group, &taken, &mut hashes)? {
                self.accumulator(group)?.update_batch(&taken)?;
            }
        }
        Ok(())
    }
    fn merge(&mut self, other: &dyn GroupAccumulator, groups: &[Group]) -> Result<()> {
        let other = same::<Self>(other);
        let mut theirs = other.groups.borrow_mut();
        for group in groups {
            let held = &mut theirs[*group as usize];
            // Where a FILTER let no row through there is nothing to merge.
            if held.is_some() {
                let state = other.read(held)?;
                self.unsee(*group);
                self.accumulator(*group)?.merge_batch(&to_arrays(&state)?)?;
            }
        }
        Ok(())
    }
    fn absorb(&mut self, into: Group, from: Group) -> Result<()> {
        self.unsee(into);
        self.unsee(from);
        let groups = self.groups.get_mut();
        let Some(mut later) = groups[from as usize].take() else {
            return Ok(());
        };
        match &mut groups[into as usize] {
            Some(earlier) => earlier.merge_batch(&to_arrays(&later.state()?)?),
            empty => {
                *empty = Some(later);
                Ok(())
            }
        }
    }
    fn evaluate(&mut self, groups: &[Group]) -> Result<ArrayRef> {
        let values = groups
            .iter()
            .map(|group| {
                let given = |seen: &Grouped<Seen>| seen[*group as usize].given.clone();
                if let Some(given) = self.seen.as_ref().and_then(given) {
                    return Ok(given);
                }
                let value = self.accumulator(*group)?.evaluate()?;
                if let Some(seen) = &mut self.seen {
                    seen[*group as usize].given = Some(value.clone());
                }
                Ok(value)
            })
            .collect::<Result<Vec<_>>>()?;
        if values.is_empty() {
            return Ok(arrow::array::new_empty_array(self.expr.field().data_type()));
        }
        ScalarValue::iter_to_array(values)
    }
    fn state(&mut self, groups: &[Group]) -> Result<Vec<ArrayRef>> {
        // With an ORDER BY there are fields of it too, behind those of functions that do not even look at it.
        let fields: Vec<_> = self.expr.state_fields()?.into_iter().take(self.width).collect();
        let mut columns: Vec<Vec<ScalarValue>> = vec![Vec::with_capacity(groups.len()); fields.len()];
        let mut held = self.groups.borrow_mut();
        for group in groups {
            let state = self.read(&mut held[*group as usize])?;
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
    fn row_bytes(&self, group: Group) -> usize {
        let held = &self.groups.borrow()[group as usize];
        held.as_ref().map_or(0, |held| held.size()).max(self.empty_bytes)
    }
    fn restore(&mut self, groups: &[Group], state: &[ArrayRef]) -> Result<()> {
        for (row, group) in groups.iter().enumerate() {
            let slices: Vec<ArrayRef> = state.iter().map(|column| column.slice(row, 1)).collect();
            self.unsee(*group);
            self.accumulator(*group)?.merge_batch(&slices)?;
        }
        Ok(())
    }
    fn clear(&mut self, groups: &[Group]) {
        self.groups.get_mut().for_each_there(groups, |held| *held = None);
        if let Some(seen) = &mut self.seen {
            seen.for_each_there(groups, |seen| *seen = Seen::default());
        }
    }
    fn state_width(&self) -> usize {
        self.width
    }
    fn is_mergeable(&self) -> bool {
        is_same_in_any_order(&self.expr)
    }
    fn bytes(&self) -> usize {
        let groups = self.groups.borrow();
        let accumulators = groups.places().filter_map(|(_, held)| held.as_ref());
        let seen = self.seen.iter().flat_map(Grouped::places);
        accumulators.map(|accumulator| accumulator.size()).sum::<usize>()
            + groups.bytes()
            + seen.map(|(_, seen)| seen.bytes()).sum::<usize>()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
