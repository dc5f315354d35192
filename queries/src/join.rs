//! The join of a stream with reference tables: looked up row by row, the table as it stands when the row comes.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, plan_datafusion_err};
use datafusion::physical_expr::PhysicalExpr;
use rustc_hash::FxHashMap;

use crate::catalog::References;
use crate::compile::Pipeline;
use crate::flow::Flow;
use crate::operator::{Context, Footprint, Operator, batch_of, evaluate_all, evaluate_mask};

/// All that is fixed when the query is created.
pub(crate) struct JoinPlan {
    /// What is done to the tables before they are joined: filters and projections of their own.
    pub(crate) table_side: Pipeline,
    pub(crate) table_schema: SchemaRef,
    pub(crate) stream_keys: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) table_keys: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) key_types: Vec<DataType>,
    /// A further condition over the joined columns.
    pub(crate) filter: Option<Arc<dyn PhysicalExpr>>,
    /// LEFT JOIN: rows of the stream without a match stay, with nulls.
    pub(crate) keeps_unmatched: bool,
    pub(crate) stream_is_left: bool,
    pub(crate) schema: SchemaRef,
}

/// The operator; its index of the table is made anew when the table has changed.
pub(crate) struct ReferenceJoin {
    plan: JoinPlan,
    converter: RowConverter,
    versions: Vec<Option<u64>>,
    table: RecordBatch,
    index: FxHashMap<Box<[u8]>, Vec<u32>>,
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
            versions: Vec::new(),
            table,
            index: FxHashMap::default(),
            plan,
        })
    }

    fn refresh(&mut self, references: &References) -> Result<()> {
        let names: Vec<String> = self.plan.table_side.sources().map(str::to_owned).collect();
        let versions: Vec<Option<u64>> = names
            .iter()
            .map(|name| references.get(name).map(|(version, _)| version))
            .collect();
        if versions == self.versions {
            return Ok(());
        }
        let mut late = Vec::new();
        let mut context = Context {
            references,
            late: &mut late,
        };
        let mut flows = Vec::new();
        for name in &names {
            let (_, rows) = references
                .get(name)
                .ok_or_else(|| plan_datafusion_err!("the table '{name}' is not there"))?;
            self.plan.table_side.push(
                name,
                Flow::at_watermark(rows.clone(), i64::MIN),
                &mut context,
                &mut flows,
            )?;
        }
        self.table = concat_batches(&self.plan.table_schema, flows.iter().map(|flow| &flow.batch))?;
        self.index.clear();
        let keys = evaluate_all(&self.plan.table_keys, &self.table)?;
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
}

impl Operator for ReferenceJoin {
    fn push(&mut self, flow: Flow, context: &mut Context<'_>, out: &mut Vec<Flow>) -> Result<()> {
        self.refresh(context.references)?;
        let keys = evaluate_all(&self.plan.stream_keys, &flow.batch)?;
        let mut pairs: Vec<(u32, Option<u32>)> = Vec::with_capacity(flow.num_rows());
        for (row, key) in (0u32..).zip(self.encode(&keys, flow.num_rows())?) {
            let matches = key.and_then(|key| self.index.get(&key)).map_or(&[][..], Vec::as_slice);
            pairs.extend(matches.iter().map(|found| (row, Some(*found))));
        }
        if let (Some(filter), false) = (&self.plan.filter, pairs.is_empty()) {
            let candidates = self.joined(
                &flow,
                &UInt32Array::from_iter_values(pairs.iter().map(|(row, _)| *row)),
                &pairs.iter().map(|(_, found)| *found).collect(),
            )?;
            let mask = evaluate_mask(filter, &candidates.batch)?;
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
            out.push(self.joined(&flow, &stream_rows, &pairs.iter().map(|(_, found)| *found).collect())?);
        }
        Ok(())
    }

    fn footprint(&self) -> Footprint {
        Footprint {
            keys: 0,
            windows: 0,
            bytes: self.table.get_array_memory_size() + self.index.len() * 64,
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
