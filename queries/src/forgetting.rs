//! Forgetting takes out of what a query keeps all that is of some subject: groups that are keyed by it, rows that name it, and
//! what aggregates hold of it.
//!
//! It is done on a snapshot, which has all that a query keeps as columns whose names say what they hold. So what a query goes
//! on with is what it could have been restored from, had the subject never been there.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, StringArray, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{filter_record_batch, interleave};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;

use crate::snapshot::QuerySnapshot;

/// Whether a text names what is to be forgotten.
pub type Names<'a> = &'a dyn Fn(&str) -> bool;

/// What became of what a query kept.
#[derive(Debug)]
pub enum Forgotten {
    /// There was nothing of the subject in it.
    Nothing,
    /// What is left of it.
    Left(QuerySnapshot),
    /// An aggregate holds the subject in a form out of which it can't be taken.
    Inseparable,
}

/// What is left of one operator's state.
enum Left {
    All,
    Some(RecordBatch),
    Inseparable,
}

/// Takes out of a query's snapshot all that is of the subject.
///
/// # Errors
/// When Arrow can't take a column apart.
pub fn forget(snapshot: &QuerySnapshot, names: Names<'_>) -> Result<Forgotten> {
    let mut parts = Vec::with_capacity(snapshot.parts.len());
    let mut has_changed = false;
    for (operator, state) in &snapshot.parts {
        parts.push((
            *operator,
            match forget_in(state, names)? {
                Left::All => state.clone(),
                Left::Some(state) => {
                    has_changed = true;
                    state
                }
                Left::Inseparable => return Ok(Forgotten::Inseparable),
            },
        ));
    }
    if !has_changed {
        return Ok(Forgotten::Nothing);
    }
    Ok(Forgotten::Left(QuerySnapshot {
        parts,
        ..snapshot.clone()
    }))
}

fn forget_in(state: &RecordBatch, names: Names<'_>) -> Result<Left> {
    let mut kept = vec![true; state.num_rows()];
    let mut aggregates: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let schema = state.schema();
    for (index, field) in schema.fields().iter().enumerate() {
        match aggregate_of(field.name()) {
            Some(aggregate) => aggregates.entry(aggregate).or_default().push(index),
            None => {
                for (row, kept) in kept.iter_mut().enumerate() {
                    *kept &= !is_named(state.column(index), row, names);
                }
            }
        }
    }
    let mut left = state.clone();
    let mut has_changed = false;
    if kept.contains(&false) {
        left = filter_record_batch(state, &BooleanArray::from(kept))?;
        has_changed = true;
    }
    for columns in aggregates.values() {
        match forget_in_aggregate(&left, columns, names)? {
            Left::All => {}
            Left::Some(changed) => {
                left = changed;
                has_changed = true;
            }
            Left::Inseparable => return Ok(Left::Inseparable),
        }
    }
    Ok(if has_changed { Left::Some(left) } else { Left::All })
}

/// The aggregate whose state stands in a column, as operators name these: `aggregate0_1` is the second column of the first.
fn aggregate_of(column: &str) -> Option<&str> {
    let (aggregate, part) = column.rsplit_once('_')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_aggregate = aggregate.strip_prefix("aggregate").is_some_and(is_number) && is_number(part);
    is_aggregate.then_some(aggregate)
}

/// Whether what stands in a row is the subject, or has it somewhere within.
fn is_named(column: &ArrayRef, row: usize, names: Names<'_>) -> bool {
    if column.is_null(row) {
        return false;
    }
    if let Some(text) = text_at(column, row) {
        return names(text);
    }
    match column.data_type() {
        DataType::List(_) => any_named(&column.as_list::<i32>().value(row), names),
        DataType::LargeList(_) => any_named(&column.as_list::<i64>().value(row), names),
        DataType::FixedSizeList(..) => any_named(&column.as_fixed_size_list().value(row), names),
        DataType::Struct(_) => {
            let members = column.as_struct().columns();
            members.iter().any(|member| is_named(member, row, names))
        }
        _ => false,
    }
}

/// The text that stands in a row, in a column of texts.
fn text_at(column: &ArrayRef, row: usize) -> Option<&str> {
    match column.data_type() {
        _ if column.is_null(row) => None,
        DataType::Utf8 => Some(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(column.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(column.as_string_view().value(row)),
        _ => None,
    }
}

fn any_named(column: &ArrayRef, names: Names<'_>) -> bool {
    (0..column.len()).any(|row| is_named(column, row, names))
}

/// What stands in texts among others, as `string_agg` puts them together.
fn is_mentioned(text: &str, names: Names<'_>) -> bool {
    let is_of_a_name = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '-';
    text.split(|letter| !is_of_a_name(letter)).any(names)
}

/// Takes the subject out of what an aggregate holds: out of a set of values, or the one value that it holds.
fn forget_in_aggregate(state: &RecordBatch, columns: &[usize], names: Names<'_>) -> Result<Left> {
    let rows = state.num_rows();
    let is_held = |row: usize| {
        columns.iter().any(|index| {
            let column = state.column(*index);
            is_named(column, row, names) || text_at(column, row).is_some_and(|text| is_mentioned(text, names))
        })
    };
    let held: Vec<bool> = (0..rows).map(is_held).collect();
    if !held.contains(&true) {
        return Ok(Left::All);
    }
    let types: Vec<&DataType> = columns.iter().map(|index| state.column(*index).data_type()).collect();
    let changed: Vec<ArrayRef> = match types[..] {
        // A set of texts, or a list of them: `count(DISTINCT x)`, `array_agg(x)`.
        [DataType::List(item)] if item.data_type() == &DataType::Utf8 => {
            vec![without(state.column(columns[0]).as_list::<i32>(), names)]
        }
        // A text that was the least, the greatest, the first or the last: which was before it nobody knows.
        [DataType::Utf8] | [DataType::Int64, DataType::Int64, DataType::Int64, DataType::Utf8]
            if (0..rows).all(|row| !held[row] || columns.iter().any(|at| is_named(state.column(*at), row, names))) =>
        {
            columns
                .iter()
                .map(|index| nulled(state.column(*index), &held))
                .collect::<Result<_>>()?
        }
        _ => return Ok(Left::Inseparable),
    };
    let mut all = state.columns().to_vec();
    let mut fields: Vec<Field> = state
        .schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone())
        .collect();
    for (index, column) in columns.iter().zip(changed) {
        fields[*index] = fields[*index].clone().with_nullable(true);
        all[*index] = column;
    }
    let schema = arrow::datatypes::Schema::new(fields).with_metadata(state.schema().metadata().clone());
    Ok(Left::Some(RecordBatch::try_new(Arc::new(schema), all)?))
}

/// Lists without the values that name the subject.
fn without(lists: &ListArray, names: Names<'_>) -> ArrayRef {
    let mut values: Vec<Option<String>> = Vec::new();
    let mut lengths = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let before = values.len();
        if lists.is_valid(row) {
            let list = lists.value(row);
            let texts = list.as_string::<i32>().iter();
            let others = texts.filter(|text| !text.is_some_and(names));
            values.extend(others.map(|text| text.map(str::to_owned)));
        }
        lengths.push(values.len() - before);
    }
    let field = match lists.data_type() {
        DataType::List(field) => Arc::clone(field),
        _ => Arc::new(Field::new_list_field(DataType::Utf8, true)),
    };
    let values: ArrayRef = Arc::new(StringArray::from(values));
    Arc::new(ListArray::new(
        field,
        OffsetBuffer::from_lengths(lengths),
        values,
        lists.nulls().cloned(),
    ))
}

/// A column with nulls in some rows.
fn nulled(column: &ArrayRef, rows: &[bool]) -> Result<ArrayRef> {
    let nothing = new_null_array(column.data_type(), 1);
    let picked: Vec<(usize, usize)> = rows
        .iter()
        .enumerate()
        .map(|(row, is_null)| if *is_null { (1, 0) } else { (0, row) })
        .collect();
    Ok(interleave(&[column.as_ref(), nothing.as_ref()], &picked)?)
}

#[cfg(test)]
mod tests;
