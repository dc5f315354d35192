//! The same matches over recorded rows: all of them at once, then the end of time.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::common::Result;

use super::MatchNode;
use super::operator::MatchRecognize;
use super::prepared::Prepared;
use crate::flow::Flow;
use crate::operator::{Context, Operator};
use crate::references::References;
use crate::row::Rows;

/// The rows that `node` gives for all rows of its input.
pub(crate) fn matches(node: &MatchNode, input: RecordBatch) -> Result<RecordBatch> {
    let prepared = Prepared::new(node, 0, None)?;
    let schema = prepared.schema.clone();
    let mut operator = MatchRecognize::new(prepared);
    let (mut late, mut out) = (Vec::new(), Vec::new());
    let references = References::default();
    let mut context = Context {
        references: &references,
        late: &mut late,
    };
    let rows = Rows::Many(Flow::at_watermark(input, i64::MIN));
    operator.push(rows, &mut context, &mut out)?;
    let _ = operator.advance(i64::MAX / 4, usize::MAX, &mut context, &mut out)?;
    let flows: Vec<Flow> = out.into_iter().map(Rows::into_flow).collect();
    Ok(concat_batches(&schema, flows.iter().map(|flow| &flow.batch))?)
}
