//! Figures are the rows of measures that anybody may see: each put up once, when nothing of its window can change any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};
use usher_queries::query_set::QuerySet;
use usher_queries::row::Rows;

use super::board::PublicRows;
use crate::measures::{Key, MEASURES, Measures, PERSONS, about, few_rows, key_of};

/// Rows put up of a measure; beyond it those of the earliest windows go.
const ROWS_MAX: usize = 1_000;
/// Rows that wait for the end of their windows; beyond it further ones are not put up.
const PENDING_MAX: usize = 10_000;
/// The column that says when a row's window is over.
const WINDOW_END: &str = "window_end";
/// So long after a window can't change any more its rows are put up, microseconds: what was still being said is said by
/// then, in whatever batches events came.
const SETTLED_US: i64 = 3_600_000_000;
/// Columns of rows that are about single persons or things, which are nobody's business.
const SINGLE: [&str; 8] = [
    "person", "session", "device", "seat", "item", "tag", "event_id", "message",
];

/// Rows of measures, those that are put up and those whose time has not come.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    /// When each is due, microseconds of event time.
    pending: BTreeSet<(i64, Key)>,
    /// Texts, times and whole numbers of those that are put up, as JSON, exact. Shared with a checkpoint that is being
    /// written.
    put_up: Arc<BTreeMap<Key, String>>,
    /// What is shown of them, by measure.
    shown: BTreeMap<String, PublicRows>,
}

/// As a checkpoint has them.
pub(super) type KeptFigures = (BTreeSet<(i64, Key)>, Arc<BTreeMap<Key, String>>);

impl Figures {
    /// Notes rows that a measure said, which can change for `settles_us` microseconds after their window. What comes later
    /// than `step_us`, the step of which all rows are put up, is nobody's to see: it would be one person's.
    pub(super) fn note(&mut self, name: &str, rows: &Rows, settles_us: i64, step_us: i64) {
        let schema = rows.schema();
        let is_single = SINGLE.iter().any(|column| schema.index_of(column).is_ok());
        let (Ok(end), true) = (schema.index_of(WINDOW_END), schema.index_of(PERSONS).is_ok()) else {
            return;
        };
        if is_single {
            return;
        }
        let about = about(&schema);
        for row in 0..rows.len() {
            let Some(end_us) = rows.time(end, row) else { continue };
            let due_us = end_us.saturating_add(settles_us).saturating_add(SETTLED_US);
            if due_us > step_us && self.pending.len() < PENDING_MAX {
                self.pending.insert((due_us, key_of(name, rows, row, &about)));
            }
        }
    }

    /// Puts up what is due by a step; tells whether there is something.
    pub(super) fn put_up(&mut self, step_us: i64, measures: &Measures, queries: &QuerySet, k: u32) -> bool {
        let mut touched = BTreeSet::new();
        while let Some((due_us, key)) = self.pending.pop_first() {
            if due_us > step_us {
                self.pending.insert((due_us, key));
                break;
            }
            if let Some(row) = measures.row(&key).and_then(|row| public_columns(row, &key.0, queries)) {
                touched.insert(key.0.clone());
                Arc::make_mut(&mut self.put_up).insert(key, row);
            }
        }
        let is_something = !touched.is_empty();
        for name in touched {
            let surplus = of(&self.put_up, &name).count().saturating_sub(ROWS_MAX);
            let gone: Vec<Key> = of(&self.put_up, &name)
                .take(surplus)
                .map(|(key, _)| key.clone())
                .collect();
            for key in gone {
                Arc::make_mut(&mut self.put_up).remove(&key);
            }
            self.show(&name, k);
        }
        is_something
    }

    fn show(&mut self, name: &str, k: u32) {
        let read = |(_, row): (&Key, &String)| serde_json::from_str(row).ok();
        let rows: Vec<Map<String, Value>> = of(&self.put_up, name).rev().filter_map(read).collect();
        let few = few_rows(&rows, k);
        // A row that says no figures would still say that somebody stands behind it.
        let told = rows.into_iter().zip(few).filter(|(_, is_few)| !is_few);
        let rows = told.map(|(row, _)| rounded(row, k));
        let name = name.strip_prefix(MEASURES).unwrap_or(name);
        self.shown.insert(name.to_owned(), Arc::new(rows.collect()));
    }

    /// What is shown, by measure.
    pub(super) fn shown(&self) -> &BTreeMap<String, PublicRows> {
        &self.shown
    }

    pub(super) fn capture(&self) -> KeptFigures {
        (self.pending.clone(), Arc::clone(&self.put_up))
    }

    pub(super) fn restore(&mut self, (pending, put_up): KeptFigures, k: u32) {
        (self.pending, self.put_up) = (pending, put_up);
        let names: BTreeSet<String> = self.put_up.keys().map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.show(name, k));
    }
}

fn of<'a>(rows: &'a BTreeMap<Key, String>, name: &'a str) -> impl DoubleEndedIterator<Item = (&'a Key, &'a String)> {
    // The end of those that begin with the name: no text of a key is behind the highest letter.
    let from = (name.to_owned(), String::new());
    let to = (name.to_owned(), char::MAX.to_string());
    rows.range(from..to)
}

/// Of a row its texts, times and whole numbers. A share or a mean may be worked out of figures that are hidden, and the
/// longest or the least is one person's.
fn public_columns(row: &str, name: &str, queries: &QuerySet) -> Option<String> {
    let mut row: Map<String, Value> = serde_json::from_str(row).ok()?;
    let schema = queries.get(name)?.schema().clone();
    row.retain(|column, _| {
        let field = schema.field_with_name(column);
        field.is_ok_and(|field| !field.data_type().is_floating() && !field.data_type().is_decimal())
    });
    Some(Value::from(row).to_string())
}

/// Whole numbers rounded down to multiples of `k`; null where they are less than that.
fn rounded(mut row: Map<String, Value>, k: u32) -> Map<String, Value> {
    let k = i64::from(k);
    for value in row.values_mut().filter(|value| value.is_number()) {
        let number = value.as_i64().filter(|number| *number >= k);
        *value = number.map_or(Value::Null, |number| Value::from(number - number % k));
    }
    row
}
