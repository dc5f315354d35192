//! The catalog knows what a statement may read: streams, outputs of other queries, and reference tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::civil_time::{AlwaysOpen, OpeningHours};
use crate::streams::{EVENT_STREAMS, LATE, stream_schema};

/// What a name in FROM stands for.
#[derive(Debug, Clone)]
pub enum Relation {
    /// A built-in stream of events.
    Stream,
    /// The output of a query: rows as it says them.
    Output {
        /// When the query speaks; rows of an amending query must not be aggregated again.
        amends: bool,
        /// How far its rows' times may lie behind the watermark, microseconds: the longest window.
        lag_us: i64,
    },
    /// A table that is looked up, not read on.
    Reference,
}

/// A relation and its columns.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is.
    pub relation: Relation,
    /// Its columns.
    pub schema: SchemaRef,
}

/// All that a statement may read, by name.
#[derive(Debug, Clone)]
pub struct Catalog {
    entries: BTreeMap<String, Entry>,
    opening_hours: Arc<dyn OpeningHours>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new()
    }
}

impl Catalog {
    /// The catalog of the built-in streams.
    pub fn new() -> Self {
        let entries = EVENT_STREAMS
            .iter()
            .chain([&LATE])
            .map(|name| {
                let schema = stream_schema(name).expect("each built-in stream has columns");
                (
                    (*name).to_owned(),
                    Entry {
                        relation: Relation::Stream,
                        schema,
                    },
                )
            })
            .collect();
        Self {
            entries,
            opening_hours: Arc::new(AlwaysOpen),
        }
    }

    /// When sites are open, for windows that follow it.
    pub fn opening_hours(&self) -> &Arc<dyn OpeningHours> {
        &self.opening_hours
    }

    /// Sites are open like this from now on; queries that run already keep what they were created with.
    pub fn set_opening_hours(&mut self, opening_hours: Arc<dyn OpeningHours>) {
        self.opening_hours = opening_hours;
    }

    /// Adds or replaces a name.
    pub fn insert(&mut self, name: &str, entry: Entry) {
        self.entries.insert(name.to_owned(), entry);
    }

    /// Takes a name away.
    pub fn remove(&mut self, name: &str) {
        self.entries.remove(name);
    }

    /// What a name stands for.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// All names with what they stand for, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }
}

/// The reference tables as they stand: rows, and a version that grows with each change.
#[derive(Debug, Default)]
pub struct References {
    tables: BTreeMap<String, (u64, RecordBatch)>,
    version: u64,
}

impl References {
    /// Replaces a table's rows.
    pub fn set(&mut self, name: &str, rows: RecordBatch) {
        self.version += 1;
        self.tables.insert(name.to_owned(), (self.version, rows));
    }

    /// A table's version and rows.
    pub fn get(&self, name: &str) -> Option<(u64, &RecordBatch)> {
        self.tables.get(name).map(|(version, rows)| (*version, rows))
    }

    /// All tables.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RecordBatch)> {
        self.tables.iter().map(|(name, (_, rows))| (name.as_str(), rows))
    }
}

/// A table without rows, for planning.
pub(crate) fn empty_table(schema: &SchemaRef) -> Arc<datafusion::datasource::empty::EmptyTable> {
    Arc::new(datafusion::datasource::empty::EmptyTable::new(Arc::clone(schema)))
}
