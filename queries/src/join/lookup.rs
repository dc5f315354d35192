//! A lookup holds the rows of a reference table by key, version by version.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use rustc_hash::FxHashMap;

use crate::computed::{Computed, columns};
use crate::value::{Value, is_plain};

/// The rows of all versions of one table that may be asked for.
pub(super) struct Lookup {
    converter: RowConverter,
    /// Whether keys of single rows can be looked up without Arrow.
    keys_are_plain: bool,
    /// The rows of all versions behind each other.
    table: RecordBatch,
    versions: Vec<Held>,
}

/// A version of the table by key.
struct Held {
    number: u64,
    from_us: i64,
    /// Numbers of rows among those of all versions.
    rows: FxHashMap<Box<[u8]>, Vec<u32>>,
    /// The same for rows that come by themselves: values of the table's rows, by key as values encode it.
    singles: FxHashMap<Box<[u8]>, Vec<Arc<[Value]>>>,
}

/// Which version of the table a row is joined with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chosen {
    /// The one at this place.
    Version(usize),
    /// None: the row has no time.
    Nothing,
    /// One that nobody keeps any more, or need not.
    Past,
}

impl Lookup {
    /// Nothing to be looked up yet, by keys of these types.
    ///
    /// # Errors
    /// When Arrow's row format can't hold a type.
    pub(super) fn new(key_types: &[DataType], schema: &SchemaRef) -> Result<Self> {
        let fields = key_types.iter().map(|data_type| SortField::new(data_type.clone()));
        Ok(Self {
            converter: RowConverter::new(fields.collect())?,
            keys_are_plain: key_types.iter().all(is_plain),
            table: RecordBatch::new_empty(Arc::clone(schema)),
            versions: Vec::new(),
        })
    }

    /// Whether keys of single rows can be looked up without Arrow.
    pub(super) fn takes_singles(&self) -> bool {
        self.keys_are_plain
    }

    /// Whether it holds these versions.
    pub(super) fn holds(&self, numbers: impl Iterator<Item = u64>) -> bool {
        !self.versions.is_empty() && numbers.eq(self.versions.iter().map(|version| version.number))
    }

    /// Holds these versions from now on: number, from when, rows.
    pub(super) fn hold(&mut self, versions: &[(u64, i64, RecordBatch)], keys: &[Computed]) -> Result<()> {
        self.versions.clear();
        self.table = concat_batches(self.table.schema_ref(), versions.iter().map(|(_, _, rows)| rows))?;
        let mut first = 0;
        for (number, from_us, rows) in versions {
            let held = self.held(*number, *from_us, rows, first, keys)?;
            self.versions.push(held);
            first += rows.num_rows() as u32;
        }
        Ok(())
    }

    fn held(&self, number: u64, from_us: i64, table: &RecordBatch, first: u32, keys: &[Computed]) -> Result<Held> {
        let keys = columns(keys, table)?;
        let (mut rows, mut singles) = (FxHashMap::default(), FxHashMap::default());
        let single_rows = if self.keys_are_plain { table.num_rows() } else { 0 };
        for row in 0..single_rows {
            let key: Vec<Value> = keys.iter().map(|column| Value::at(column, row)).collect();
            if let Some(key) = encode_one(&key) {
                let values = table.columns().iter().map(|column| Value::at(column, row));
                let of_key: &mut Vec<Arc<[Value]>> = singles.entry(key.into()).or_default();
                of_key.push(values.collect());
            }
        }
        for (row, key) in (first..).zip(self.encode(&keys, table.num_rows())?) {
            if let Some(key) = key {
                let of_key: &mut Vec<u32> = rows.entry(key).or_default();
                of_key.push(row);
            }
        }
        Ok(Held {
            number,
            from_us,
            rows,
            singles,
        })
    }

    /// The version that holds now.
    pub(super) fn now(&self) -> Chosen {
        self.versions
            .len()
            .checked_sub(1)
            .map_or(Chosen::Nothing, Chosen::Version)
    }

    /// The version of a time. One that was over by `over_us` is not given, whether it is still there or not.
    pub(super) fn at(&self, time: i64, over_us: i64) -> Chosen {
        let behind = self.versions.partition_point(|version| version.from_us <= time);
        match self.versions.get(behind) {
            Some(next) if next.from_us <= over_us => Chosen::Past,
            // Only the first version of all holds from the beginning of time; what was before others is forgotten.
            _ => behind.checked_sub(1).map_or(Chosen::Past, Chosen::Version),
        }
    }

    /// The rows of a version that have a key.
    pub(super) fn rows(&self, chosen: Chosen, key: Option<&[u8]>) -> &[u32] {
        let found = match (chosen, key) {
            (Chosen::Version(version), Some(key)) => self.versions[version].rows.get(key),
            _ => None,
        };
        found.map_or(&[], Vec::as_slice)
    }

    /// The same for the key of a row by itself.
    pub(super) fn singles(&self, chosen: Chosen, key: &[Value]) -> &[Arc<[Value]>] {
        let found = match (chosen, encode_one(key)) {
            (Chosen::Version(version), Some(key)) => self.versions[version].singles.get(key.as_slice()),
            _ => None,
        };
        found.map_or(&[], Vec::as_slice)
    }

    /// The columns of all rows.
    pub(super) fn columns(&self) -> &[ArrayRef] {
        self.table.columns()
    }

    /// The keys as bytes; `None` for a key with a null, which matches nothing.
    pub(super) fn encode(&self, keys: &[ArrayRef], rows: usize) -> Result<Vec<Option<Box<[u8]>>>> {
        if keys.is_empty() {
            return Ok(vec![Some(Box::default()); rows]);
        }
        let encoded = self.converter.convert_columns(keys)?;
        let has_null = |row: usize| keys.iter().any(|key| key.is_null(row));
        Ok((0..rows)
            .map(|row| (!has_null(row)).then(|| encoded.row(row).as_ref().into()))
            .collect())
    }

    /// Bytes it takes, by estimate.
    pub(super) fn bytes(&self) -> usize {
        // Values are kept beside the columns: some words a cell, and the texts once more.
        let of_keys = |version: &Held| {
            version.rows.len() * 64 + version.singles.len() * (64 + self.table.num_columns() * size_of::<Value>())
        };
        self.table.get_array_memory_size() * 2 + self.versions.iter().map(of_keys).sum::<usize>()
    }
}

/// A key as values encode it; `None` where it has no such form, or a null, which matches nothing.
fn encode_one(key: &[Value]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(32);
    let is_encoded = key.iter().all(|value| !value.is_null() && value.encode(&mut bytes));
    is_encoded.then_some(bytes)
}
