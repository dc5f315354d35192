//! A row's key as bytes that only an equal key has.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use rustc_hash::FxBuildHasher;

use crate::computed::{Computed, values};
use crate::value::{Value, is_plain};

/// Works out keys of single rows: plain values are written down as they are, others by Arrow's row format.
pub(crate) struct KeyBytes {
    keys: Vec<Computed>,
    types: Vec<DataType>,
    /// Where a type is not plain.
    converter: Option<RowConverter>,
}

/// A key's bytes, in an order by their hash, so that hardly ever two keys' bytes are compared.
///
/// For trees of keys: these grow a little with each key, while a hash table of a hundred thousand that grows moves all of them at
/// once, and events wait for that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HashedKey {
    hash: u64,
    bytes: Arc<[u8]>,
}

impl HashedKey {
    fn new(bytes: &[u8]) -> Self {
        Self {
            hash: FxBuildHasher.hash_one(bytes),
            bytes: bytes.into(),
        }
    }

    /// Bytes that only an equal key has; NULL is equal to NULL.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The key of a row.
pub(crate) struct Key {
    /// Equal for equal keys alone; NULL is equal to NULL.
    pub(crate) hashed: HashedKey,
    /// Whether NULL is among its values.
    pub(crate) has_null: bool,
}

impl KeyBytes {
    /// Keys of these columns, which are of these types; without a column all rows have the same key.
    ///
    /// # Errors
    /// When Arrow's row format can't hold a type.
    pub(crate) fn new(keys: Vec<Computed>, types: Vec<DataType>) -> Result<Self> {
        let converter = if types.iter().all(is_plain) {
            None
        } else {
            let fields = types.iter().map(|data_type| SortField::new(data_type.clone()));
            Some(RowConverter::new(fields.collect())?)
        };
        Ok(Self { keys, types, converter })
    }

    /// The key of a row.
    ///
    /// # Errors
    /// When a key can't be computed.
    pub(crate) fn of(&self, row: &[Value]) -> Result<Key> {
        let key: Vec<Value> = values(&self.keys, row)?;
        let has_null = key.iter().any(Value::is_null);
        let bytes = match &self.converter {
            None => {
                let mut bytes = Vec::with_capacity(32);
                for value in &key {
                    value.encode(&mut bytes);
                }
                bytes
            }
            Some(converter) => {
                let columns: Vec<ArrayRef> = key
                    .iter()
                    .zip(&self.types)
                    .map(|(value, data_type)| value.to_array(data_type))
                    .collect();
                converter.convert_columns(&columns)?.row(0).as_ref().to_vec()
            }
        };
        Ok(Key {
            hashed: HashedKey::new(&bytes),
            has_null,
        })
    }

    /// The key's columns as they are computed.
    pub(crate) fn columns(&self) -> &[Computed] {
        &self.keys
    }
}
