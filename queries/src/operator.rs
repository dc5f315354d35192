//! An operator is one step of a compiled query: rows go in, rows come out, time moves on.

use std::any::Any;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;

use crate::capture::CapturedOperator;
use crate::computed::{Computed, columns, values};
use crate::flow::Flow;
use crate::references::References;
use crate::row::Rows;
use crate::shared_window::WindowOperator;

/// A row that came too late for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateRow {
    /// The event it came from, where it came from one.
    pub event_id: Option<String>,
    /// Its event time, microseconds.
    pub event_time: i64,
    /// The watermark it met, microseconds.
    pub watermark: i64,
    /// Why nothing could take it.
    pub reason: &'static str,
}

/// What an operator is handed beside its rows.
pub(crate) struct Context<'a> {
    /// The reference tables as they stand now.
    pub(crate) references: &'a References,
    /// Where rows go that came too late.
    pub(crate) late: &'a mut Vec<LateRow>,
}

/// Whether an operator, a pipeline or a query has come to the watermark it was moved on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All that was due is said.
    Done,
    /// A part is said; the rest is for the next call.
    Left,
}

/// One step of a compiled query.
///
/// Contract: `push` and `advance` append what they say to `out` and nothing else (trusted); one row by itself gives
/// the same rows as a flow of that row (golden cases); a watermark never goes back (checked by the query set);
/// `restore` takes what `snapshot` of an operator of the same plan gave (checked by the fingerprint).
pub(crate) trait Operator: Any + Send {
    /// Takes rows.
    fn push(&mut self, rows: Rows, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()>;

    /// Takes rows of the `input`th of the operators it reads; to most it makes no difference which.
    fn push_input(&mut self, _input: usize, rows: Rows, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        self.push(rows, context, out)
    }

    /// Whether it judges rows by the watermarks they met; one that does not hands them on as they are.
    fn reads_watermarks(&self) -> bool {
        true
    }

    /// How far times of the rows it says may lie behind the watermark, microseconds, where its input's do not: what
    /// reads it must be as far behind, or it would find these rows late.
    fn lag_us(&self) -> i64 {
        0
    }

    /// Time has moved on to `watermark`, microseconds: says what is due, about `part` rows of it, and tells whether
    /// something is left for the next call. Rows may be pushed in between; what was said of them must come to the same.
    fn advance(
        &mut self,
        _watermark: i64,
        _part: usize,
        _context: &mut Context<'_>,
        _out: &mut Vec<Rows>,
    ) -> Result<Progress> {
        Ok(Progress::Done)
    }

    /// The first watermark at which `advance` has something to do. By default each one may be; what keeps no state has
    /// nothing ever; what has something left has it at once.
    fn next_due(&self) -> i64 {
        i64::MIN
    }

    /// How many rows it has said in place of ones it had said before.
    fn amended(&self) -> u64 {
        0
    }

    /// The rows this operator stands for now, without changing it; `None` where it keeps none.
    fn peek(&mut self) -> Result<Option<Flow>> {
        Ok(None)
    }

    /// What it must remember over a restart; `None` where there is nothing.
    fn snapshot(&mut self) -> Result<Option<RecordBatch>> {
        Ok(None)
    }

    /// Takes what has changed since the last capture, about `room` rows of it, ahead of the next one. What is changed
    /// after it was taken is taken again.
    fn gather(&mut self, _room: &mut usize) -> Result<()> {
        Ok(())
    }

    /// What has changed since the last capture; `None` where that is not noted, and `snapshot` has all.
    fn capture(&mut self) -> Result<Option<CapturedOperator>> {
        Ok(None)
    }

    /// The next capture is to hold everything.
    fn capture_anew(&mut self) {}

    /// Takes back what `snapshot` gave.
    fn restore(&mut self, _snapshot: &RecordBatch) -> Result<()> {
        Ok(())
    }

    /// How much it keeps: keys, and bytes by estimate.
    fn footprint(&self) -> Footprint {
        Footprint::default()
    }

    /// One line for `usher explain`.
    fn describe(&self) -> String;

    /// Itself as a window that several queries may share, if it is one.
    fn as_window(&self) -> Option<&dyn WindowOperator> {
        None
    }

    /// The same to change it.
    fn as_window_mut(&mut self) -> Option<&mut dyn WindowOperator> {
        None
    }

    /// A copy of it; `None` of what keeps anything. What has one may stand below a window that is shared.
    fn copied(&self) -> Option<Box<dyn Operator>> {
        None
    }

    /// Whether another does the same to the same rows. What has no copy need not tell.
    fn is_like(&self, _other: &dyn Operator) -> bool {
        false
    }
}

/// Whether `other` is of the type of `one` and equal to it.
fn is_equal<O: Operator + PartialEq>(one: &O, other: &dyn Operator) -> bool {
    (other as &dyn Any)
        .downcast_ref::<O>()
        .is_some_and(|other| other == one)
}

/// How much state an operator or query keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Footprint {
    /// Keys that are alive.
    pub keys: usize,
    /// Windows that are open.
    pub windows: usize,
    /// Bytes, estimated from above.
    pub bytes: usize,
}

impl std::ops::AddAssign for Footprint {
    fn add_assign(&mut self, other: Self) {
        self.keys += other.keys;
        self.windows += other.windows;
        self.bytes += other.bytes;
    }
}

/// Keeps the rows for which a condition holds, at once: stock DataFusion's filter would wait for a full batch.
#[derive(Clone, PartialEq)]
pub(crate) struct Filter {
    predicate: Computed,
}

impl Filter {
    pub(crate) fn new(predicate: Computed) -> Self {
        Self { predicate }
    }
}

impl Operator for Filter {
    fn push(&mut self, rows: Rows, _context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        match rows {
            Rows::One(row) => {
                if self.predicate.holds(&row.values)? {
                    out.push(Rows::One(row));
                }
            }
            Rows::Many(flow) => {
                let mask = self.predicate.mask(&flow.batch)?;
                match mask.true_count() {
                    0 => {}
                    all if all == flow.num_rows() => out.push(Rows::Many(flow)),
                    _ => out.push(Rows::Many(flow.filtered(&mask)?)),
                }
            }
        }
        Ok(())
    }

    fn reads_watermarks(&self) -> bool {
        false
    }

    fn next_due(&self) -> i64 {
        i64::MAX
    }

    fn describe(&self) -> String {
        format!("Filter: {}", self.predicate)
    }

    fn copied(&self) -> Option<Box<dyn Operator>> {
        Some(Box::new(self.clone()))
    }

    fn is_like(&self, other: &dyn Operator) -> bool {
        is_equal(self, other)
    }
}

/// Evaluates the SELECT list.
#[derive(Clone, PartialEq)]
pub(crate) struct Project {
    expressions: Vec<Computed>,
    schema: SchemaRef,
}

impl Project {
    pub(crate) fn new(expressions: Vec<Computed>, schema: SchemaRef) -> Self {
        Self { expressions, schema }
    }
}

/// A batch of `columns` under `schema`; also right for no columns at all.
pub(crate) fn batch_of(schema: &SchemaRef, columns: Vec<arrow::array::ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}

impl Operator for Project {
    fn push(&mut self, rows: Rows, _context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        out.push(match rows {
            Rows::One(row) => Rows::One(row.with(&self.schema, values(&self.expressions, &row.values)?)),
            Rows::Many(flow) => {
                let columns = columns(&self.expressions, &flow.batch)?;
                let batch = batch_of(&self.schema, columns, flow.num_rows())?;
                Rows::Many(flow.with_batch(batch))
            }
        });
        Ok(())
    }

    fn reads_watermarks(&self) -> bool {
        false
    }

    fn next_due(&self) -> i64 {
        i64::MAX
    }

    fn describe(&self) -> String {
        let list: Vec<String> = self
            .expressions
            .iter()
            .zip(self.schema.fields())
            .map(|(expression, field)| format!("{expression} AS {}", field.name()))
            .collect();
        format!("Project: {}", list.join(", "))
    }

    fn copied(&self) -> Option<Box<dyn Operator>> {
        Some(Box::new(self.clone()))
    }

    fn is_like(&self, other: &dyn Operator) -> bool {
        is_equal(self, other)
    }
}

/// Where rows of a stream or of another query come in, or where branches meet: gives the rows the columns of here.
#[derive(Clone, PartialEq)]
pub(crate) struct Relabel {
    columns: Option<Vec<usize>>,
    schema: SchemaRef,
    label: String,
}

impl Relabel {
    /// Picks `columns` (all of them for `None`) and gives them the names and types of `schema`.
    pub(crate) fn new(columns: Option<Vec<usize>>, schema: SchemaRef, label: String) -> Self {
        Self { columns, schema, label }
    }
}

impl Operator for Relabel {
    fn push(&mut self, rows: Rows, _context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        out.push(match rows {
            Rows::One(row) => {
                let values = match &self.columns {
                    Some(picked) => picked.iter().map(|index| row.values[*index].clone()).collect(),
                    None => Arc::clone(&row.values),
                };
                Rows::One(row.with(&self.schema, values))
            }
            Rows::Many(flow) => {
                let columns = match &self.columns {
                    Some(picked) => picked
                        .iter()
                        .map(|index| Arc::clone(flow.batch.column(*index)))
                        .collect(),
                    None => flow.batch.columns().to_vec(),
                };
                let batch = batch_of(&self.schema, columns, flow.num_rows())?;
                Rows::Many(flow.with_batch(batch))
            }
        });
        Ok(())
    }

    fn reads_watermarks(&self) -> bool {
        false
    }

    fn next_due(&self) -> i64 {
        i64::MAX
    }

    fn describe(&self) -> String {
        self.label.clone()
    }

    fn copied(&self) -> Option<Box<dyn Operator>> {
        Some(Box::new(self.clone()))
    }

    fn is_like(&self, other: &dyn Operator) -> bool {
        is_equal(self, other)
    }
}
