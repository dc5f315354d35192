//! The catalog knows what a statement may read: streams, outputs of other queries, and reference tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::civil_time::{AlwaysOpen, OpeningHours};
use crate::streams::{LATE, MESSAGE, STREAMS, stream_lag_us, stream_schema};

/// What a name in FROM stands for.
#[derive(Debug, Clone)]
pub enum Relation {
    /// A built-in stream.
    Stream {
        /// How far its rows' times may lie behind the watermark at which they come, microseconds; 0 for events.
        lag_us: i64,
    },
    /// The output of a query: rows as it says them.
    Output {
        /// When the query speaks; rows of an amending query must not be aggregated again.
        amends: bool,
        /// How far its rows' times may lie behind the watermark, microseconds: the longest window.
        lag_us: i64,
        /// Whether it comes of [`MESSAGE`], so that it is said behind all that does not.
        follows: bool,
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

/// All that a statement may read, by name. Clones share it until one changes.
#[derive(Debug, Clone)]
pub struct Catalog {
    entries: Arc<BTreeMap<String, Entry>>,
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
        let entries = STREAMS
            .iter()
            .chain([&LATE])
            .map(|name| {
                let schema = stream_schema(name).expect("each built-in stream has columns");
                (
                    (*name).to_owned(),
                    Entry {
                        relation: Relation::Stream {
                            lag_us: stream_lag_us(name),
                        },
                        schema,
                    },
                )
            })
            .collect();
        Self {
            entries: Arc::new(entries),
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

    /// Whether a name stands for [`MESSAGE`] or a query that comes of it.
    pub(crate) fn follows(&self, name: &str) -> bool {
        let comes_of_it = |entry: &Entry| matches!(entry.relation, Relation::Output { follows: true, .. });
        name == MESSAGE || self.get(name).is_some_and(comes_of_it)
    }

    /// Adds or replaces a name.
    pub fn insert(&mut self, name: &str, entry: Entry) {
        Arc::make_mut(&mut self.entries).insert(name.to_owned(), entry);
    }

    /// Takes a name away.
    pub fn remove(&mut self, name: &str) {
        Arc::make_mut(&mut self.entries).remove(name);
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

/// A table without rows, for planning.
pub(crate) fn empty_table(schema: &SchemaRef) -> Arc<datafusion::datasource::empty::EmptyTable> {
    Arc::new(datafusion::datasource::empty::EmptyTable::new(Arc::clone(schema)))
}
