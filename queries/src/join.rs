//! The join of a stream with a reference table: looked up row by row, the table as it stands when the row comes, or as
//! it was at a time of the row.

mod lookup;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use datafusion::common::{Result, plan_datafusion_err};

use self::lookup::{Chosen, Lookup};
use crate::computed::{Computed, columns, values};
use crate::flow::Flow;
use crate::operator::{Context, Footprint, LateRow, Operator, batch_of};
use crate::pipeline::Pipeline;
use crate::references::{References, Version};
use crate::row::{Row, Rows};
use crate::value::Value;

/// Why a row takes no part in a join with a table as it was.
pub(crate) const VERSION_WAS_PAST: &str = "the table as it was at its time is no longer kept";

/// All that is fixed when the query is created.
pub(crate) struct JoinPlan {
    /// What is done to the table before it is joined: filters and projections of its own.
    pub(crate) table_side: Pipeline,
    pub(crate) table_schema: SchemaRef,
    pub(crate) stream_keys: Vec<Computed>,
    pub(crate) table_keys: Vec<Computed>,
    pub(crate) key_types: Vec<DataType>,
    /// By which time of a row the version of the table is chosen; without it the one that holds when the row comes.
    pub(crate) as_of: Option<AsOf>,
    /// A further condition over the joined columns.
    pub(crate) filter: Option<Computed>,
    /// LEFT JOIN: rows of the stream without a match stay, with nulls.
    pub(crate) keeps_unmatched: bool,
    pub(crate) stream_is_left: bool,
    pub(crate) schema: SchemaRef,
}

/// How a version of the table is chosen for a row.
pub(crate) struct AsOf {
    /// The time of the row.
    pub(crate) time: Computed,
    /// For how long after it was over a version may be asked for, microseconds.
    pub(crate) lateness_us: i64,
}

impl AsOf {
    /// The version for a row at `time` that met `watermark`. It depends on nothing else: a version that is over is not
    /// given either while some other query still needs it.
    fn choose(&self, lookup: &Lookup, time: i64, watermark: i64) -> Chosen {
        lookup.at(time, watermark.saturating_sub(self.lateness_us))
    }
}

/// The operator; its lookup is made anew when the table has changed.
pub(crate) struct ReferenceJoin {
    plan: JoinPlan,
    lookup: Lookup,
}

impl ReferenceJoin {
    pub(crate) fn new(plan: JoinPlan) -> Result<Self> {
        Ok(Self {
            lookup: Lookup::new(&plan.key_types, &plan.table_schema)?,
            plan,
        })
    }

    /// The versions that rows may be joined with.
    fn wanted<'a>(&self, references: &'a References) -> Result<&'a [Version]> {
        let name = self.plan.table_side.sources().next().unwrap_or_default();
        let versions = references.versions(name);
        match (versions, &self.plan.as_of) {
            ([], _) => Err(plan_datafusion_err!("the table '{name}' is not there")),
            (all, Some(_)) => Ok(all),
            (all, None) => Ok(&all[all.len() - 1..]),
        }
    }

    fn refresh(&mut self, references: &References) -> Result<()> {
        let wanted = self.wanted(references)?;
        if self.lookup.holds(wanted.iter().map(|version| version.number)) {
            return Ok(());
        }
        let name = self.plan.table_side.sources().next().unwrap_or_default().to_owned();
        let mut late = Vec::new();
        let mut context = Context {
            references,
            late: &mut late,
        };
        let mut versions = Vec::with_capacity(wanted.len());
        for version in wanted {
            let rows = Rows::Many(Flow::at_watermark(version.rows.clone(), i64::MIN));
            let mut said = Vec::new();
            self.plan.table_side.push(&name, &rows, &mut context, &mut said)?;
            let flows: Vec<Flow> = said.into_iter().map(Rows::into_flow).collect();
            let rows = concat_batches(&self.plan.table_schema, flows.iter().map(|flow| &flow.batch))?;
            versions.push((version.number, version.from_us, rows));
        }
        self.lookup.hold(&versions, &self.plan.table_keys)
    }

    fn joined(&self, flow: &Flow, stream_rows: &UInt32Array, table_rows: &UInt32Array) -> Result<Flow> {
        let in_place = (0..).zip(stream_rows.values()).all(|(row, taken)| row == *taken);
        let taken = if in_place && stream_rows.len() == flow.num_rows() {
            // Each row matched once: nothing moves.
            flow.clone()
        } else {
            flow.taken(stream_rows)?
        };
        let table: Vec<ArrayRef> = self
            .lookup
            .columns()
            .iter()
            .map(|column| Ok(take(column, table_rows, None)?))
            .collect::<Result<_>>()?;
        let stream = taken.batch.columns().to_vec();
        let columns = if self.plan.stream_is_left {
            [stream, table].concat()
        } else {
            [table, stream].concat()
        };
        let batch = batch_of(&self.plan.schema, columns, taken.num_rows())?;
        Ok(taken.with_batch(batch))
    }

    /// The version for each row of a flow; those that come too late for theirs are told.
    fn chosen(&self, flow: &Flow, context: &mut Context<'_>) -> Result<Vec<Chosen>> {
        let Some(as_of) = &self.plan.as_of else {
            return Ok(vec![self.lookup.now(); flow.num_rows()]);
        };
        let times = as_of.time.column(&flow.batch)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let mut chosen = Vec::with_capacity(flow.num_rows());
        for row in 0..flow.num_rows() {
            if times.is_null(row) {
                chosen.push(Chosen::Nothing);
                continue;
            }
            let (event_time, watermark) = (times.value(row), flow.watermarks.value(row));
            let version = as_of.choose(&self.lookup, event_time, watermark);
            if version == Chosen::Past {
                let event_id = flow.causes.is_valid(row).then(|| flow.causes.value(row).to_owned());
                context.late.push(past(event_id, event_time, watermark));
            }
            chosen.push(version);
        }
        Ok(chosen)
    }

    fn push_flow(&mut self, flow: &Flow, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        let chosen = self.chosen(flow, context)?;
        let keys = columns(&self.plan.stream_keys, &flow.batch)?;
        let mut pairs: Vec<(u32, Option<u32>)> = Vec::with_capacity(flow.num_rows());
        let keys = self.lookup.encode(&keys, flow.num_rows())?;
        for ((row, key), version) in (0u32..).zip(keys).zip(&chosen) {
            let matches = self.lookup.rows(*version, key.as_deref());
            pairs.extend(matches.iter().map(|found| (row, Some(*found))));
        }
        if let (Some(filter), false) = (&self.plan.filter, pairs.is_empty()) {
            let candidates = self.joined(
                flow,
                &UInt32Array::from_iter_values(pairs.iter().map(|(row, _)| *row)),
                &pairs.iter().map(|(_, found)| *found).collect(),
            )?;
            let mask = filter.mask(&candidates.batch)?;
            let mut index = 0;
            pairs.retain(|_| {
                index += 1;
                mask.value(index - 1)
            });
        }
        if self.plan.keeps_unmatched {
            let mut matched: Vec<bool> = chosen.iter().map(|version| *version == Chosen::Past).collect();
            for (row, _) in &pairs {
                matched[*row as usize] = true;
            }
            pairs.extend(
                (0u32..)
                    .zip(matched)
                    .filter(|(_, matched)| !matched)
                    .map(|(row, _)| (row, None)),
            );
            pairs.sort_by_key(|(row, _)| *row); // stable: the stream keeps its order
        }
        if !pairs.is_empty() {
            let stream_rows = UInt32Array::from_iter_values(pairs.iter().map(|(row, _)| *row));
            let table_rows = pairs.iter().map(|(_, found)| *found).collect();
            out.push(Rows::Many(self.joined(flow, &stream_rows, &table_rows)?));
        }
        Ok(())
    }

    /// Joins one row, as `push_flow` joins a flow of it.
    fn push_row(&self, row: &Row, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        let version = match &self.plan.as_of {
            None => self.lookup.now(),
            Some(as_of) => match as_of.time.value(&row.values)? {
                Value::Time(time) => {
                    let version = as_of.choose(&self.lookup, time, row.watermark);
                    if version == Chosen::Past {
                        let event_id = row.cause.as_deref().map(str::to_owned);
                        context.late.push(past(event_id, time, row.watermark));
                        return Ok(());
                    }
                    version
                }
                _ => Chosen::Nothing,
            },
        };
        let key: Vec<Value> = values(&self.plan.stream_keys, &row.values)?;
        let mut is_matched = false;
        for table in self.lookup.singles(version, &key) {
            let joined = self.beside(row, table);
            if let Some(filter) = &self.plan.filter
                && !filter.holds(&joined)?
            {
                continue;
            }
            is_matched = true;
            out.push(Rows::One(row.with(&self.plan.schema, joined)));
        }
        if !is_matched && self.plan.keeps_unmatched {
            let nothing = vec![Value::Null; self.plan.table_schema.fields().len()];
            out.push(Rows::One(row.with(&self.plan.schema, self.beside(row, &nothing))));
        }
        Ok(())
    }

    /// The values of a row of the stream and one of the table, in the order of the output.
    fn beside(&self, row: &Row, table: &[Value]) -> Arc<[Value]> {
        let (first, second) = if self.plan.stream_is_left {
            (&*row.values, table)
        } else {
            (table, &*row.values)
        };
        first.iter().chain(second).cloned().collect()
    }
}

fn past(event_id: Option<String>, event_time: i64, watermark: i64) -> LateRow {
    LateRow {
        event_id,
        event_time,
        watermark,
        reason: VERSION_WAS_PAST,
    }
}

impl Operator for ReferenceJoin {
    fn push(&mut self, rows: Rows, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        self.refresh(context.references)?;
        match &rows {
            Rows::One(row) if self.lookup.takes_singles() => self.push_row(row, context, out),
            _ => self.push_flow(&rows.flow(), context, out),
        }
    }

    fn reads_watermarks(&self) -> bool {
        self.plan.as_of.is_some()
    }

    fn next_due(&self) -> i64 {
        i64::MAX
    }

    fn footprint(&self) -> Footprint {
        Footprint {
            keys: 0,
            windows: 0,
            bytes: self.lookup.bytes(),
        }
    }

    fn describe(&self) -> String {
        let kind = if self.plan.keeps_unmatched { "Left join" } else { "Join" };
        let names: Vec<&str> = self.plan.table_side.sources().collect();
        let keys: Vec<String> = self
            .plan
            .stream_keys
            .iter()
            .zip(&self.plan.table_keys)
            .map(|(a, b)| format!("{a} = {b}"))
            .collect();
        let as_of = self.plan.as_of.as_ref();
        let as_of = as_of.map_or_else(String::new, |as_of| format!(" as of {}", as_of.time));
        format!("{kind} with {}{as_of}: {}", names.join(", "), keys.join(" AND "))
    }
}
