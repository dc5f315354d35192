//! Measures keep what queries whose names begin with `measure_` said last of each cohort, zone, service or site.
//!
//! A row's texts and the beginning of its window say what it is about, the rest is measured. A figure about people is
//! shown only when enough of them stand behind it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use serde_json::{Map, Value};
use usher_queries::query::Query;
use usher_queries::row::Rows;

use crate::capture::{Entries, Since};
use crate::changes::Changes;
use crate::erasure::Who;

/// How the names of queries begin whose rows are measures.
pub const MEASURES: &str = "measure_";
/// Rows kept of a measure; beyond it those of the earliest windows go, and where there are none the first by name.
const ROWS_MAX: usize = 10_000;
/// The column that says how many persons stand behind a row.
pub(crate) const PERSONS: &str = "persons";
/// The column by which rows come and go with time.
pub(crate) const WINDOW_START: &str = "window_start";

/// A measure's name, and what a row of it is about: the beginning of its window, then its texts, as JSON.
pub type Key = (String, String);

/// What all measures said last.
#[derive(Debug, Default)]
pub struct Measures {
    rows: BTreeMap<Key, String>,
    changes: Changes<Key, String>,
}

impl Measures {
    /// Nothing was measured yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes rows of a measure.
    pub fn take(&mut self, name: &str, rows: &Rows) {
        let schema = rows.schema();
        let about = about(&schema);
        for row in 0..rows.len() {
            let value = |column: &usize| rows.json(*column, row);
            let key = key_of(name, rows, row, &about);
            let all: Map<String, Value> = (0..schema.fields().len())
                .map(|column| (schema.field(column).name().clone(), value(&column)))
                .collect();
            self.changes.note(&key);
            self.rows.insert(key, Value::from(all).to_string());
        }
        self.make_room(name);
    }

    fn make_room(&mut self, name: &str) {
        let all = self.of(name).count();
        let surplus: Vec<Key> = self
            .of(name)
            .take(all.saturating_sub(ROWS_MAX))
            .map(|(key, _)| key.clone())
            .collect();
        for key in surplus {
            self.changes.note(&key);
            self.rows.remove(&key);
        }
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a Key, &'a String)> {
        let from = (name.to_owned(), String::new());
        self.rows.range(from..).take_while(move |((of, _), _)| of == name)
    }

    /// How many rows there are of a measure.
    pub fn len(&self, name: &str) -> usize {
        self.of(name).count()
    }

    /// Whether a measure has said nothing yet.
    pub fn is_empty(&self, name: &str) -> bool {
        self.of(name).next().is_none()
    }

    /// The rows of a measure as they are kept, those of the earliest window first; for [`shown_rows`].
    pub fn kept(&self, name: &str) -> Vec<String> {
        self.of(name).map(|(_, row)| row.clone()).collect()
    }

    /// A row as JSON.
    pub(crate) fn row(&self, key: &Key) -> Option<&str> {
        self.rows.get(key).map(String::as_str)
    }

    /// Forgets the rows of measures that are not there any more, or that say other columns now.
    pub fn keep_those_of(&mut self, queries: &[Query]) {
        let there: BTreeMap<&str, BTreeSet<&str>> = queries
            .iter()
            .filter(|query| query.name().starts_with(MEASURES))
            .map(|query| {
                let columns = query.schema().fields().iter().map(|field| field.name().as_str());
                (query.name().as_ref(), columns.collect())
            })
            .collect();
        let is_there = |(name, _): &Key, row: &String| {
            let row: Option<Map<String, Value>> = serde_json::from_str(row).ok();
            there.get(name.as_str()).is_some_and(|columns| {
                row.is_some_and(|row| row.keys().map(String::as_str).collect::<BTreeSet<_>>() == *columns)
            })
        };
        let gone: Vec<Key> = self
            .rows
            .iter()
            .filter(|(key, row)| !is_there(key, row))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.changes.note(&key);
            self.rows.remove(&key);
        }
    }

    /// The rows that `is_named` finds somebody in.
    pub fn naming(&self, is_named: &dyn Fn(&str) -> bool) -> Vec<Value> {
        let rows = self.rows.iter().filter(|(_, row)| is_named(row));
        rows.filter_map(|(_, row)| serde_json::from_str(row).ok()).collect()
    }

    /// Forgets the rows that name whoever is to be erased; gives how many there were.
    pub fn erase(&mut self, who: &Who) -> u64 {
        let rows = self.rows.iter().filter(|(_, row)| who.is_in(row));
        let theirs: Vec<Key> = rows.map(|(key, _)| key.clone()).collect();
        for key in &theirs {
            self.changes.note(key);
            self.rows.remove(key);
        }
        theirs.len() as u64
    }

    /// Takes rows that changed since the last checkpoint, about `room` of them, ahead of the next one.
    pub fn gather(&mut self, room: &mut usize) {
        self.changes.gather(room, &self.rows);
    }

    /// For a checkpoint: the rows that changed since the last one.
    pub fn capture(&mut self) -> Since<Key, String> {
        self.changes.take(&self.rows)
    }

    /// The next capture is to hold everything.
    pub fn capture_anew(&mut self) {
        self.changes.begin_anew();
    }

    /// Takes back what was captured.
    pub fn restore(&mut self, rows: Entries<Key, String>) {
        for (key, row) in rows {
            match row {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
    }
}

/// The columns that say what a row is about: the beginning of its window first, so that rows stand in the order of time.
pub(crate) fn about(schema: &Arc<Schema>) -> Vec<usize> {
    let fields = schema.fields();
    let is_text = |index: &usize| fields[*index].data_type() == &DataType::Utf8;
    let window = schema.index_of(WINDOW_START).ok().into_iter();
    window.chain((0..fields.len()).filter(is_text)).collect()
}

/// Rows of [`Measures::kept`] as they may be shown: all of a measure, for one may give another away. A row behind which stand
/// fewer than `k` persons says no figures, and neither does one beside it that would give it away: each is null, and `few` is true.
pub fn shown_rows(kept: &[String], k: u32) -> Vec<Map<String, Value>> {
    let rows = kept.iter().filter_map(|row| serde_json::from_str(row).ok());
    let rows: Vec<Map<String, Value>> = rows.collect();
    let few = few_rows(&rows, k);
    let all = rows.into_iter().zip(few);
    all.map(|(row, is_few)| shown(row, is_few)).collect()
}

/// What a row is about, in the columns that [`about`] gives.
pub(crate) fn key_of(name: &str, rows: &Rows, row: usize, about: &[usize]) -> Key {
    let texts: Vec<Value> = about.iter().map(|column| rows.json(*column, row)).collect();
    (name.to_owned(), Value::from(texts).to_string())
}

/// Of rows of a measure, which are not to say their figures: those behind which stand fewer than `k` persons, and where that
/// is one alone of its window, the one beside it with the fewest persons, for what all of them come to may be known.
pub(crate) fn few_rows(rows: &[Map<String, Value>], k: u32) -> Vec<bool> {
    let persons = |row: &Map<String, Value>| row.get(PERSONS).and_then(Value::as_i64);
    let is_few = |row: &Map<String, Value>| persons(row).is_some_and(|persons| persons < i64::from(k));
    let mut few: Vec<bool> = rows.iter().map(is_few).collect();
    let mut windows: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, row) in rows.iter().enumerate() {
        let window = row.get(WINDOW_START).and_then(Value::as_str).unwrap_or_default();
        windows.entry(window).or_default().push(number);
    }
    for beside in windows.into_values() {
        if beside.iter().filter(|number| few[**number]).count() != 1 {
            continue;
        }
        let others = beside.into_iter().filter(|number| !few[*number]);
        // Of equal ones the first, whichever way round the rows are: by what they say.
        let smallest = others.min_by_key(|number| {
            let about = Value::from(rows[*number].clone()).to_string();
            (persons(&rows[*number]).unwrap_or(i64::MAX), about)
        });
        smallest.into_iter().for_each(|number| few[number] = true);
    }
    few
}

fn shown(mut row: Map<String, Value>, is_few: bool) -> Map<String, Value> {
    if is_few {
        row.values_mut()
            .filter(|value| value.is_number())
            .for_each(|value| *value = Value::Null);
    }
    row.insert("few".to_owned(), is_few.into());
    row
}
