//! What a window keeps, taken apart: groups and what was said of them, and beside that the state of each aggregate.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{FieldRef, Schema};
use datafusion::common::{Result, internal_datafusion_err};

use super::Part;
use crate::operator::batch_of;

const KEY: &str = "key";
const AGGREGATE: &str = "aggregate";

/// A window's state as a query of its own keeps it, the keys numbered as in the window that is to be shared.
pub(crate) struct Kept {
    /// Everything but the aggregates. Where this is equal, so are the windows, the keys and what was said of them.
    base: RecordBatch,
    /// The state of each aggregate: its columns with the number of each.
    aggregates: Vec<Vec<(String, FieldRef, ArrayRef)>>,
}

/// The number behind `what` and what follows behind it: `aggregate3_0` is the third aggregate's `0`.
fn numbered<'a>(name: &'a str, what: &str) -> Option<(usize, &'a str)> {
    let rest = name.strip_prefix(what)?;
    let (number, behind) = rest.split_once('_').unwrap_or((rest, ""));
    Some((number.parse().ok()?, behind))
}

impl Kept {
    /// Takes apart what a query that has `part` of the shared window keeps.
    pub(crate) fn of(kept: &RecordBatch, part: &Part) -> Result<Self> {
        let mut base: Vec<(FieldRef, ArrayRef)> = Vec::new();
        let mut keys: Vec<(usize, FieldRef, ArrayRef)> = Vec::new();
        let mut aggregates = vec![Vec::new(); part.calls().len()];
        let schema = kept.schema();
        for (field, column) in schema.fields().iter().zip(kept.columns()) {
            let (field, column) = (Arc::clone(field), Arc::clone(column));
            if let Some((number, behind)) = numbered(field.name(), AGGREGATE) {
                let state: Option<&mut Vec<_>> = aggregates.get_mut(number);
                let state = state.ok_or_else(|| internal_datafusion_err!("there is no aggregate {number}"))?;
                state.push((behind.to_owned(), Arc::clone(&field), column));
            } else if let Some((number, _)) = numbered(field.name(), KEY) {
                let key = part.keys().get(number).copied();
                let key = key.ok_or_else(|| internal_datafusion_err!("there is no key {number}"))?;
                let renamed = field.as_ref().clone().with_name(format!("{KEY}{key}"));
                keys.push((key, Arc::new(renamed), column));
            } else {
                base.push((field, column));
            }
        }
        keys.sort_by_key(|(number, ..)| *number);
        base.extend(keys.into_iter().map(|(_, field, column)| (field, column)));
        Ok(Self {
            base: batch(base, schema.metadata().clone(), kept.num_rows())?,
            aggregates,
        })
    }

    /// Whether another query's windows hold the same rows, of which the same was said.
    pub(crate) fn is_of_the_same_rows(&self, other: &Self) -> bool {
        self.base == other.base
    }

    /// The state of a window that holds the aggregates of all of them, whose rows are the same.
    pub(crate) fn union(all: &[(&Self, &Part)]) -> Result<RecordBatch> {
        let Some((first, _)) = all.first() else {
            return Err(internal_datafusion_err!("nobody shares the window"));
        };
        let base = &first.base;
        let mut columns: Vec<(FieldRef, ArrayRef)> = Vec::new();
        columns.extend(
            base.schema()
                .fields()
                .iter()
                .cloned()
                .zip(base.columns().iter().cloned()),
        );
        let mut done = Vec::new();
        for (kept, part) in all {
            for (call, state) in part.calls().iter().zip(&kept.aggregates) {
                if done.contains(call) {
                    continue;
                }
                done.push(*call);
                columns.extend(state.iter().map(|(behind, field, column)| {
                    let renamed = field.as_ref().clone().with_name(format!("{AGGREGATE}{call}_{behind}"));
                    (Arc::new(renamed), Arc::clone(column))
                }));
            }
        }
        batch(columns, base.schema().metadata().clone(), base.num_rows())
    }
}

fn batch(
    columns: Vec<(FieldRef, ArrayRef)>,
    metadata: std::collections::HashMap<String, String>,
    rows: usize,
) -> Result<RecordBatch> {
    let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) = columns.into_iter().unzip();
    batch_of(&Arc::new(Schema::new(fields).with_metadata(metadata)), columns, rows)
}
