//! The join of a stream with reference tables: looked up row by row, the table as it stands when the row comes.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, plan_datafusion_err};
use rustc_hash::FxHashMap;

use crate::catalog::References;
use crate::computed::{Computed, columns, values};
use crate::flow::Flow;
use crate::operator::{Context, Footprint, Operator, batch_of};
use crate::pipeline::Pipeline;
use crate::row::{Row, Rows};
use crate::value::{Value, is_plain};

/// All that is fixed when the query is created.
pub(crate) struct JoinPlan {
    /// What is done to the tables before they are joined: filters and projections of their own.
    pub(crate) table_side: Pipeline,
    pub(crate) table_schema: SchemaRef,
    pub(crate) stream_keys: Vec<Computed>,
    pub(crate) table_keys: Vec<Computed>,
    pub(crate) key_types: Vec<DataType>,
    /// A further condition over the joined columns.
    pub(crate) filter: Option<Computed>,
    /// LEFT JOIN: rows of the stream without a match stay, with nulls.
    pub(crate) keeps_unmatched: bool,
    pub(crate) stream_is_left: bool,
    pub(crate) schema: SchemaRef,
}

/// The operator; its index of the table is made anew when the table has changed.
pub(crate) struct ReferenceJoin {
    plan: JoinPlan,
    converter: RowConverter,
    /// Whether keys of single rows can be looked up without Arrow.
    keys_are_plain: bool,
    versions: Vec<Option<u64>>,
    table: RecordBatch,
    index: FxHashMap<Box<[u8]>, Vec<u32>>,
    /// The same for rows that come by themselves: values of the table's rows, by key as values encode it.
    singles: FxHashMap<Box<[u8]>, Vec<Arc<[Value]>>>,
}

impl ReferenceJoin {
    pub(crate) fn new(plan: JoinPlan) -> Result<Self> {
        let fields = plan
            .key_types
            .iter()
            .map(|data_type| SortField::new(data_type.clone()))
            .collect();
        let table = RecordBatch::new_empty(Arc::clone(&plan.table_schema));
        Ok(Self {
            converter: RowConverter::new(fields)?,
            keys_are_plain: plan.key_types.iter().all(is_plain),
            versions: Vec::new(),
            table,
            index: FxHashMap::default(),
            singles: FxHashMap::default(),
            plan,
        })
    }

    fn refresh(&mut self, references: &References) -> Result<()> {
        let sources = || self.plan.table_side.sources();
        let version = |name: &str| references.get(name).map(|(version, _)| version);
        if sources().map(version).eq(self.versions.iter().copied()) && !self.versions.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = sources().map(str::to_owned).collect();
        let versions = names.iter().map(|name| version(name)).collect();
        let mut late = Vec::new();
        let mut context = Context {
            references,
            late: &mut late,
        };
        let mut said = Vec::new();
        for name in &names {
            let (_, rows) = references
                .get(name)
                .ok_or_else(|| plan_datafusion_err!("the table '{name}' is not there"))?;
            let rows = Rows::Many(Flow::at_watermark(rows.clone(), i64::MIN));
            self.plan.table_side.push(name, &rows, &mut context, &mut said)?;
        }
        let flows: Vec<Flow> = said.into_iter().map(Rows::into_flow).collect();
        self.table = concat_batches(&self.plan.table_schema, flows.iter().map(|flow| &flow.batch))?;
        self.index.clear();
        self.singles.clear();
        let keys = columns(&self.plan.table_keys, &self.table)?;
        let single_rows = if self.keys_are_plain { self.table.num_rows() } else { 0 };
        for row in 0..single_rows {
            let key: Vec<Value> = keys.iter().map(|column| Value::at(column, row)).collect();
            if let Some(key) = encode_one(&key) {
                let values = self.table.columns().iter().map(|column| Value::at(column, row));
                self.singles.entry(key.into()).or_default().push(values.collect());
            }
        }
        for (row, key) in (0u32..).zip(self.encode(&keys, self.table.num_rows())?) {
            if let Some(key) = key {
                self.index.entry(key).or_default().push(row);
            }
        }
        self.versions = versions;
        Ok(())
    }

    /// The keys as bytes; `None` for a key with a null, which matches nothing.
    fn encode(&self, keys: &[ArrayRef], rows: usize) -> Result<Vec<Option<Box<[u8]>>>> {
        if keys.is_empty() {
            return Ok(vec![Some(Box::default()); rows]);
        }
        let encoded = self.converter.convert_columns(keys)?;
        let has_null = |row: usize| keys.iter().any(|key| key.is_null(row));
        Ok((0..rows)
            .map(|row| (!has_null(row)).then(|| encoded.row(row).as_ref().into()))
            .collect())
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
            .table
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

    fn push_flow(&mut self, flow: &Flow, out: &mut Vec<Rows>) -> Result<()> {
        let keys = columns(&self.plan.stream_keys, &flow.batch)?;
        let mut pairs: Vec<(u32, Option<u32>)> = Vec::with_capacity(flow.num_rows());
        for (row, key) in (0u32..).zip(self.encode(&keys, flow.num_rows())?) {
            let matches = key.and_then(|key| self.index.get(&key)).map_or(&[][..], Vec::as_slice);
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
            let mut matched = vec![false; flow.num_rows()];
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
    fn push_row(&self, row: &Row, out: &mut Vec<Rows>) -> Result<()> {
        let key: Vec<Value> = values(&self.plan.stream_keys, &row.values)?;
        let found = encode_one(&key).and_then(|key| self.singles.get(key.as_slice()));
        let mut is_matched = false;
        for table in found.into_iter().flatten() {
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

/// A key as values encode it; `None` where it has no such form, or a null, which matches nothing.
fn encode_one(key: &[Value]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(32);
    let is_encoded = key.iter().all(|value| !value.is_null() && value.encode(&mut bytes));
    is_encoded.then_some(bytes)
}

impl Operator for ReferenceJoin {
    fn push(&mut self, rows: Rows, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        self.refresh(context.references)?;
        match &rows {
            Rows::One(row) if self.keys_are_plain => self.push_row(row, out),
            _ => self.push_flow(&rows.flow(), out),
        }
    }

    fn reads_watermarks(&self) -> bool {
        false
    }

    fn next_due(&self) -> i64 {
        i64::MAX
    }

    fn footprint(&self) -> Footprint {
        Footprint {
            keys: 0,
            windows: 0,
            // Values are kept beside the columns: some words a cell, and the texts once more.
            bytes: self.table.get_array_memory_size() * 2
                + self.index.len() * 64
                + self.singles.len() * (64 + self.table.num_columns() * size_of::<Value>()),
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
        format!("{kind} with {}: {}", names.join(", "), keys.join(" AND "))
    }
}
