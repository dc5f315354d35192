//! The key store of an operator: each distinct key has a small dense number as long as something holds it.

use arrow::array::ArrayRef;
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::Result;
use hashbrown::HashTable;
use rustc_hash::FxHasher;
use std::hash::Hasher;

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
    bytes: usize,
    /// The single group of a query without keys.
    keyless: bool,
}

impl KeyStore {
    pub(crate) fn new(types: &[arrow::datatypes::DataType]) -> Result<Self> {
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
            #[allow(clippy::cast_possible_truncation)] // the upper half is compared, the lower half picks the bucket
            let tag = (hash >> 32) as u32;
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
        self.bytes + self.rows.len() * (size_of::<Option<OwnedRow>>() + 4) + self.table.capacity() * 9
    }
}

/// Fx mixes its last word weakly into the upper bits, which the table uses; one multiplication more repairs that.
fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(bytes);
    let hash = hasher.finish();
    (hash ^ (hash >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
