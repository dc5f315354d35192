//! The key store of an operator: each distinct key has a small dense number as long as something holds it.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::Result;
use hashbrown::HashTable;
use rustc_hash::FxHasher;
use std::hash::Hasher;

use crate::value::Value;

/// A key's dense number.
pub(crate) type Group = u32;

/// Keys of any Arrow types, encoded as rows. Numbers of keys that nothing holds are given out again.
pub(crate) struct KeyStore {
    converter: RowConverter,
    table: HashTable<(u32, Group)>,
    rows: Vec<Option<OwnedRow>>,
    /// How many windows hold a key; at none the key is forgotten.
    holders: Vec<u32>,
    free: Vec<Group>,
    singles: Singles,
    types: Vec<DataType>,
    bytes: usize,
    /// The single group of a query without keys.
    keyless: bool,
}

/// Keys that came in single rows once more, as values encode them, to be found again without Arrow arrays.
#[derive(Default)]
struct Singles {
    table: HashTable<(u32, Group)>,
    keys: Vec<Option<Box<[u8]>>>,
    /// The key that is looked for.
    wanted: Vec<u8>,
    bytes: usize,
}

impl Singles {
    fn find(&self, hash: u64) -> Option<Group> {
        let tag = tag_of(hash);
        let is_it = |(found, group): &(u32, Group)| {
            *found == tag && self.keys[*group as usize].as_deref() == Some(self.wanted.as_slice())
        };
        self.table.find(hash, is_it).map(|(_, group)| *group)
    }

    /// Remembers what was looked for as the key of `group`.
    fn remember(&mut self, hash: u64, group: Group) {
        self.forget(group);
        if self.keys.len() <= group as usize {
            self.keys.resize(group as usize + 1, None);
        }
        self.bytes += self.wanted.len();
        self.keys[group as usize] = Some(self.wanted.as_slice().into());
        let keys = &self.keys;
        self.table.insert_unique(hash, (tag_of(hash), group), |(_, group)| {
            keys[*group as usize].as_deref().map_or(0, hash_bytes)
        });
    }

    fn forget(&mut self, group: Group) {
        let Some(key) = self.keys.get_mut(group as usize).and_then(Option::take) else {
            return;
        };
        self.bytes -= key.len();
        if let Ok(entry) = self.table.find_entry(hash_bytes(&key), |(_, found)| *found == group) {
            entry.remove();
        }
    }
}

impl KeyStore {
    pub(crate) fn new(types: &[DataType]) -> Result<Self> {
        let fields = types
            .iter()
            .map(|data_type| SortField::new(data_type.clone()))
            .collect();
        Ok(Self {
            converter: RowConverter::new(fields)?,
            table: HashTable::new(),
            rows: Vec::new(),
            holders: Vec::new(),
            free: Vec::new(),
            singles: Singles::default(),
            types: types.to_vec(),
            bytes: 0,
            keyless: types.is_empty(),
        })
    }

    /// The numbers of the keys in `columns`, one a row; new keys get a number that nothing holds yet.
    pub(crate) fn intern(&mut self, columns: &[ArrayRef], rows: usize, groups: &mut Vec<Group>) -> Result<()> {
        groups.clear();
        if self.keyless {
            if self.rows.is_empty() {
                self.rows.push(None);
                self.holders.push(0);
            }
            groups.resize(rows, 0);
            return Ok(());
        }
        let encoded = self.converter.convert_columns(columns)?;
        groups.reserve(rows);
        for row in &encoded {
            let bytes = row.as_ref();
            let hash = hash_bytes(bytes);
            let tag = tag_of(hash);
            let known = self.table.find(hash, |(found, group)| {
                *found == tag
                    && self.rows[*group as usize]
                        .as_ref()
                        .is_some_and(|row| row.as_ref() == bytes)
            });
            let group = match known {
                Some((_, group)) => *group,
                None => {
                    self.bytes += bytes.len();
                    let group = match self.free.pop() {
                        Some(group) => {
                            self.rows[group as usize] = Some(row.owned());
                            group
                        }
                        None => {
                            let group =
                                Group::try_from(self.rows.len()).expect("fewer than 4 billion keys fit into memory");
                            self.rows.push(Some(row.owned()));
                            self.holders.push(0);
                            group
                        }
                    };
                    let rows = &self.rows;
                    self.table.insert_unique(hash, (tag, group), |(_, group)| {
                        rows[*group as usize].as_ref().map_or(0, |row| hash_bytes(row.as_ref()))
                    });
                    group
                }
            };
            groups.push(group);
        }
        Ok(())
    }

    /// The number of one row's key; a new key gets a number that nothing holds yet.
    pub(crate) fn intern_one(&mut self, key: &[Value]) -> Result<Group> {
        self.singles.wanted.clear();
        let is_encoded = key.iter().all(|value| value.encode(&mut self.singles.wanted));
        let hash = hash_bytes(&self.singles.wanted);
        if is_encoded && let Some(group) = self.singles.find(hash) {
            return Ok(group);
        }
        let columns: Vec<ArrayRef> = key
            .iter()
            .zip(&self.types)
            .map(|(value, data_type)| value.to_array(data_type))
            .collect();
        let mut groups = Vec::with_capacity(1);
        self.intern(&columns, 1, &mut groups)?;
        if is_encoded && !self.keyless {
            self.singles.remember(hash, groups[0]);
        }
        Ok(groups[0])
    }

    /// One more window holds the key.
    pub(crate) fn hold(&mut self, group: Group) {
        self.holders[group as usize] += 1;
    }

    /// One window fewer holds the key; the last one makes it forgotten.
    pub(crate) fn release(&mut self, group: Group) {
        let holders = &mut self.holders[group as usize];
        *holders -= 1;
        if *holders == 0 && !self.keyless {
            self.forget(group);
        }
    }

    fn forget(&mut self, group: Group) {
        let Some(row) = self.rows[group as usize].take() else {
            return;
        };
        self.singles.forget(group);
        self.bytes -= row.as_ref().len();
        let hash = hash_bytes(row.as_ref());
        if let Ok(entry) = self.table.find_entry(hash, |(_, found)| *found == group) {
            entry.remove();
        }
        self.free.push(group);
    }

    /// Forgets interned keys among `groups` that no window took up.
    pub(crate) fn forget_unheld(&mut self, groups: &[Group]) {
        if self.keyless {
            return;
        }
        for group in groups {
            if self.holders[*group as usize] == 0 {
                self.forget(*group);
            }
        }
    }

    /// The keys of `groups` as columns again.
    pub(crate) fn columns(&self, groups: &[Group]) -> Result<Vec<ArrayRef>> {
        if self.keyless {
            return Ok(Vec::new());
        }
        let rows = groups
            .iter()
            .map(|group| self.rows[*group as usize].as_ref().expect("a held key is kept").row());
        Ok(self.converter.convert_rows(rows)?)
    }

    /// How many keys are alive.
    pub(crate) fn len(&self) -> usize {
        if self.keyless {
            self.rows.len()
        } else {
            self.table.len()
        }
    }

    /// The greatest number given out so far, plus one.
    pub(crate) fn capacity(&self) -> usize {
        self.rows.len()
    }

    /// Bytes kept, estimated from above: rows, table entries, bookkeeping.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
            + self.rows.len() * (size_of::<Option<OwnedRow>>() + 4)
            + self.table.capacity() * 9
            + self.singles.bytes
            + self.singles.keys.capacity() * 16
            + self.singles.table.capacity() * 9
    }
}

/// The upper half of a hash is compared; the lower half picks the bucket.
#[allow(clippy::cast_possible_truncation)] // half of it is what is wanted
fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Fx mixes its last word weakly into the upper bits, which the table uses; one multiplication more repairs that.
fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(bytes);
    let hash = hasher.finish();
    (hash ^ (hash >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
