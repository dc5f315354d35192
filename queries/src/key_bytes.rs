//! A row's key as bytes that only an equal key has.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;

use crate::computed::{Computed, values};
use crate::value::{Value, is_plain};

/// Works out keys of single rows: plain values are written down as they are, others by Arrow's row format.
pub(crate) struct KeyBytes {
    keys: Vec<Computed>,
    types: Vec<DataType>,
    /// Where a type is not plain.
    converter: Option<RowConverter>,
}

/// The key of a row.
pub(crate) struct Key {
    /// Bytes that only an equal key has; NULL is equal to NULL.
    pub(crate) bytes: Vec<u8>,
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
        Ok(Key { bytes, has_null })
    }

    /// The key's columns as they are computed.
    pub(crate) fn columns(&self) -> &[Computed] {
        &self.keys
    }
}
