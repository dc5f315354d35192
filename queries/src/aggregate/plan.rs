//! What an aggregate or its sessions were planned to do, and what every way of doing it begins with.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::Result;

use crate::accumulator::GroupAccumulator;
use crate::accumulator::kind::AggregateKind;
use crate::computed::{Computed, columns, values};
use crate::flow::Flow;
use crate::keys::Group;
use crate::picked::Picked;
use crate::row::Row;
use crate::statement::Emit;
use crate::value::Value;
use crate::window::{Assigner, WindowSpec};

/// One aggregate of the SELECT list.
#[derive(Clone)]
pub(crate) struct AggregateCall {
    pub(crate) kind: AggregateKind,
    pub(crate) args: Vec<Computed>,
    pub(crate) arg_types: Vec<DataType>,
    pub(crate) filter: Option<Computed>,
    pub(crate) name: String,
}

impl AggregateCall {
    /// Whether another call gives the same for the same rows, whatever it is named.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.args == other.args
            && self.arg_types == other.arg_types
            && self.filter == other.filter
    }

    /// Whether some row could make it fail, as far as is known.
    pub(crate) fn can_fail(&self) -> bool {
        let is_decimal = |data_type: &DataType| {
            matches!(
                data_type,
                DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..)
            )
        };
        let mut computed = self.args.iter().chain(&self.filter);
        // DataFusion's own may overflow where they add up decimals.
        computed.any(Computed::can_fail) || self.arg_types.iter().any(is_decimal)
    }

    /// Whether panes of windows on `time` may be merged to a window.
    pub(super) fn is_mergeable(&self, time: &Computed) -> bool {
        // Rows of the same time lie in the same pane, where they are told apart by arrival.
        let is_ordered_by_time = || matches!(&self.args[..], [_, order] if order.to_string() == time.to_string());
        self.kind.create().is_mergeable() || matches!(self.kind, AggregateKind::Edge(_)) && is_ordered_by_time()
    }
}

/// What a GROUP BY column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupColumn {
    Key(usize),
    WindowStart,
    WindowEnd,
    /// Whether nothing more will be said of the window.
    Final,
    /// Whether the row takes the place of one that was said before.
    Amended,
}

/// The windows of a query.
#[derive(Clone, PartialEq)]
pub(crate) struct WindowPlan {
    pub(crate) time: Computed,
    /// Which site's hours count, for windows that follow them.
    pub(crate) site: Option<Computed>,
    pub(crate) windows: Assigner,
    pub(crate) spec: WindowSpec,
}

/// All that is fixed when the query is created.
#[derive(Clone)]
pub(crate) struct AggregatePlan {
    pub(crate) window: Option<WindowPlan>,
    pub(crate) filters: Vec<Computed>,
    pub(crate) keys: Vec<Computed>,
    pub(crate) key_types: Vec<DataType>,
    pub(crate) aggregates: Vec<AggregateCall>,
    pub(crate) columns: Vec<GroupColumn>,
    pub(crate) schema: SchemaRef,
    pub(crate) emit: Emit,
    pub(crate) lateness_us: i64,
    pub(crate) ttl_us: Option<i64>,
    /// Whether the last event of each group is kept, for queries that alerts read.
    pub(crate) keeps_causes: bool,
}

/// The arguments of each aggregate for one row; `None` for one whose FILTER does not let the row through.
pub(crate) type Arguments = Vec<Option<Vec<Value>>>;

/// The arguments of each aggregate for many rows, and where its FILTER lets them through.
pub(crate) struct Calls(Vec<(Vec<ArrayRef>, Option<BooleanArray>)>);

impl AggregatePlan {
    /// Whether rows tell if they are final: windows are said once more then.
    pub(crate) fn tells_final(&self) -> bool {
        let tells = |column: &GroupColumn| matches!(column, GroupColumn::Final | GroupColumn::Amended);
        self.columns.iter().any(tells)
    }

    /// The numbers of all aggregates.
    pub(crate) fn all_calls(&self) -> Vec<usize> {
        (0..self.aggregates.len()).collect()
    }

    /// The numbers of all keys.
    pub(crate) fn all_keys(&self) -> Vec<usize> {
        (0..self.keys.len()).collect()
    }

    /// Some of the keys and aggregates in words.
    pub(crate) fn describe(&self, keys: &[usize], calls: &[usize]) -> String {
        let keys: Vec<String> = keys.iter().map(|key| self.keys[*key].to_string()).collect();
        let calls: Vec<&str> = calls.iter().map(|call| self.aggregates[*call].name.as_str()).collect();
        format!("by [{}]; {}", keys.join(", "), calls.join(", "))
    }

    /// Whether the WHERE lets a row through.
    pub(crate) fn lets_through(&self, row: &Row) -> Result<bool> {
        for predicate in &self.filters {
            if !predicate.holds(&row.values)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The rows that the WHERE lets through.
    pub(crate) fn let_through(&self, mut flow: Flow) -> Result<Flow> {
        for predicate in &self.filters {
            let mask = predicate.mask(&flow.batch)?;
            if mask.true_count() < flow.num_rows() {
                flow = flow.filtered(&mask)?;
            }
        }
        Ok(flow)
    }

    /// The arguments of a row.
    pub(crate) fn arguments(&self, row: &Row) -> Result<Arguments> {
        let mut arguments = Vec::with_capacity(self.aggregates.len());
        for call in &self.aggregates {
            // Evaluated before the FILTER is asked, as DataFusion does and as the columns of a flow are.
            let values = values(&call.args, &row.values)?;
            let is_taken = match &call.filter {
                Some(filter) => filter.holds(&row.values)?,
                None => true,
            };
            arguments.push(is_taken.then_some(values));
        }
        Ok(arguments)
    }

    /// The arguments of many rows.
    pub(crate) fn calls(&self, batch: &RecordBatch) -> Result<Calls> {
        let mut calls = Vec::with_capacity(self.aggregates.len());
        for call in &self.aggregates {
            let args = columns(&call.args, batch)?;
            let filter = call.filter.as_ref().map(|filter| filter.mask(batch)).transpose()?;
            calls.push((args, filter));
        }
        Ok(Calls(calls))
    }

    /// Adds a row to `group`.
    pub(crate) fn update_one(
        &self,
        accumulators: &mut [Box<dyn GroupAccumulator>],
        group: Group,
        arguments: &Arguments,
    ) -> Result<()> {
        for ((accumulator, call), arguments) in accumulators.iter_mut().zip(&self.aggregates).zip(arguments) {
            if let Some(arguments) = arguments {
                accumulator.update_one(group, arguments, &call.arg_types)?;
            }
        }
        Ok(())
    }
}

impl Calls {
    /// Adds the rows `rows`, each to its group in `groups`.
    pub(crate) fn update(
        &self,
        accumulators: &mut [Box<dyn GroupAccumulator>],
        groups: &[Group],
        rows: &Picked,
    ) -> Result<()> {
        for (accumulator, (args, mask)) in accumulators.iter_mut().zip(&self.0) {
            match mask {
                None => accumulator.update(groups, rows, args)?,
                Some(mask) => accumulator.update(groups, &rows.filtered(mask), args)?,
            }
        }
        Ok(())
    }
}
