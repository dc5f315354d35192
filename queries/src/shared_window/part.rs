//! A part is what one query reads of a shared window: which of its keys, aggregates and columns.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::Result;

use crate::aggregate::{AggregateCall, AggregatePlan, GroupColumn};
use crate::operator::batch_of;
use crate::row::Rows;
use crate::streams::time_type;
use crate::window::{AMENDED, FINAL, WINDOW_END, WINDOW_START};

/// Which of a shared window's keys, aggregates and columns a query has, in its own order.
#[derive(Clone)]
pub(crate) struct Part {
    keys: Vec<usize>,
    calls: Vec<usize>,
    columns: Vec<GroupColumn>,
    schema: SchemaRef,
    /// Where the columns of `schema` stand in what the window says.
    picked: Vec<usize>,
}

/// Whether plans that stand over the same windows group the same rows by the same keys and say them at the same times.
///
/// What can fail must be in both: an error stops a query, and would else stop one that does not compute it.
pub(crate) fn agree(one: &AggregatePlan, other: &AggregatePlan) -> bool {
    let has = |plan: &AggregatePlan, wanted: &AggregateCall| plan.aggregates.iter().any(|call| call.is_like(wanted));
    let has_what_can_fail = |plan: &AggregatePlan, of: &AggregatePlan| {
        let mut can_fail = of.aggregates.iter().filter(|call| call.can_fail());
        can_fail.all(|call| has(plan, call))
    };
    one.filters == other.filters
        && keys_of(one, other).is_some()
        && one.window.is_some() == other.window.is_some()
        && one.emit == other.emit
        && one.lateness_us == other.lateness_us
        && one.ttl_us == other.ttl_us
        && one.keeps_causes == other.keeps_causes
        && one.tells_final() == other.tells_final()
        && has_what_can_fail(one, other)
        && has_what_can_fail(other, one)
}

/// Where the keys of a plan stand among those of another that has the same, in whatever order.
fn keys_of(plan: &AggregatePlan, of: &AggregatePlan) -> Option<Vec<usize>> {
    let find = |key: usize| {
        let is_it = |other: &usize| of.keys[*other] == plan.keys[key] && of.key_types[*other] == plan.key_types[key];
        (0..of.keys.len()).find(is_it)
    };
    let found: Vec<usize> = (0..plan.keys.len()).map(find).collect::<Option<_>>()?;
    let is_there = |key: usize| found.contains(&key);
    (found.len() == of.keys.len() && (0..of.keys.len()).all(is_there)).then_some(found)
}

/// A plan with the aggregates of all of `plans`, each once; they agree. It says every column that one of them could.
pub(crate) fn union(plans: &[&AggregatePlan]) -> Option<AggregatePlan> {
    let first = *plans.first()?;
    let mut union = first.clone();
    let mut fields: Vec<Field> = Vec::new();
    union.columns.clear();
    union.aggregates.clear();
    for (key, data_type) in first.key_types.iter().enumerate() {
        union.columns.push(GroupColumn::Key(key));
        fields.push(Field::new(format!("key{key}"), data_type.clone(), true));
    }
    let is_windowed = first
        .columns
        .iter()
        .any(|column| !matches!(column, GroupColumn::Key(_)));
    if is_windowed {
        union.columns.extend([GroupColumn::WindowStart, GroupColumn::WindowEnd]);
        fields.extend([WINDOW_START, WINDOW_END].map(|name| Field::new(name, time_type(), true)));
    }
    if first.tells_final() {
        union.columns.extend([GroupColumn::Final, GroupColumn::Amended]);
        fields.extend([FINAL, AMENDED].map(|name| Field::new(name, arrow::datatypes::DataType::Boolean, true)));
    }
    for plan in plans {
        for (index, call) in plan.aggregates.iter().enumerate() {
            if !union.aggregates.iter().any(|known| known.is_like(call)) {
                let said = plan.schema.field(plan.columns.len() + index);
                fields.push(said.clone().with_nullable(true));
                union.aggregates.push(call.clone());
            }
        }
    }
    union.schema = Arc::new(Schema::new(fields));
    Some(union)
}

impl Part {
    /// What a query of this plan has of a window of the plan `shared`; `None` where something of it is not there.
    pub(crate) fn of(plan: &AggregatePlan, shared: &AggregatePlan) -> Option<Self> {
        let keys = keys_of(plan, shared)?;
        let find = |call: &AggregateCall| shared.aggregates.iter().position(|known| known.is_like(call));
        let calls: Vec<usize> = plan.aggregates.iter().map(find).collect::<Option<_>>()?;
        let said = |column: &GroupColumn| {
            let column = match column {
                GroupColumn::Key(key) => GroupColumn::Key(keys[*key]),
                other => *other,
            };
            shared.columns.iter().position(|known| *known == column)
        };
        let mut picked: Vec<usize> = plan.columns.iter().map(said).collect::<Option<_>>()?;
        picked.extend(calls.iter().map(|call| shared.columns.len() + call));
        Some(Self {
            keys,
            calls,
            columns: plan.columns.clone(),
            schema: Arc::clone(&plan.schema),
            picked,
        })
    }

    /// The plan that the query had when it was alone.
    pub(crate) fn plan(&self, shared: &AggregatePlan) -> AggregatePlan {
        AggregatePlan {
            keys: self.keys.iter().map(|key| shared.keys[*key].clone()).collect(),
            key_types: self.keys.iter().map(|key| shared.key_types[*key].clone()).collect(),
            aggregates: self.calls.iter().map(|call| shared.aggregates[*call].clone()).collect(),
            columns: self.columns.clone(),
            schema: Arc::clone(&self.schema),
            ..shared.clone()
        }
    }

    /// The query's keys among those of the window.
    pub(crate) fn keys(&self) -> &[usize] {
        &self.keys
    }

    /// The query's aggregates among those of the window.
    pub(crate) fn calls(&self) -> &[usize] {
        &self.calls
    }

    /// Rows that the window says, as the query would have said them.
    pub(super) fn of_rows(&self, rows: &Rows) -> Result<Rows> {
        Ok(match rows {
            Rows::One(row) => {
                let values = self.picked.iter().map(|column| row.values[*column].clone()).collect();
                Rows::One(row.with(&self.schema, values))
            }
            Rows::Many(flow) => {
                let columns = self.picked.iter().map(|column| Arc::clone(flow.batch.column(*column)));
                let batch = batch_of(&self.schema, columns.collect(), flow.num_rows())?;
                Rows::Many(flow.with_batch(batch))
            }
        })
    }
}
