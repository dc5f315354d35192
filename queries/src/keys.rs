//! The key store of an operator: each distinct key has a small dense number as long as something holds it.

mod column;
#[cfg(test)]
mod tests;
mod texts;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use datafusion::common::utils::normalize_float_zero;
use datafusion::common::{Result, internal_err};

use self::column::{Cell, Given, KeyColumn, SEED, as_grouped};
use crate::tagged::{Tag, Tagged, tag_of};
use crate::value::Value;

/// A key's dense number.
pub(crate) type Group = u32;

/// No key's number.
const NOBODY: Group = Group::MAX;

/// Keys of any Arrow types, kept as columns. Numbers of keys that nothing holds are given out again.
pub(crate) struct KeyStore {
    columns: Vec<KeyColumn>,
    /// The numbers of the keys, by the tags of their hashes.
    numbers: Tagged,
    /// How many windows hold a key; at none the key is forgotten.
    holders: Vec<u32>,
    free: Vec<Group>,
}

impl KeyStore {
    pub(crate) fn new(types: &[DataType]) -> Result<Self> {
        Ok(Self {
            columns: types.iter().map(KeyColumn::new).collect::<Result<_>>()?,
            numbers: Tagged::default(),
            holders: Vec::new(),
            free: Vec::new(),
        })
    }

    /// Whether it is of a query without keys, which has a single group.
    fn is_keyless(&self) -> bool {
        self.columns.is_empty()
    }

    /// The group of a query without keys.
    fn only_group(&mut self) -> Group {
        if self.holders.is_empty() {
            self.holders.push(0);
        }
        0
    }

    /// The numbers of the keys in `columns`, one a row; new keys get a number that nothing holds yet.
    ///
    /// # Errors
    /// When a column is of another type than the store's.
    pub(crate) fn intern(&mut self, columns: &[ArrayRef], rows: usize, groups: &mut Vec<Group>) -> Result<()> {
        groups.clear();
        if self.is_keyless() {
            groups.resize(rows, self.only_group());
            return Ok(());
        }
        let given = self.given(columns)?;
        let mut hashes = vec![SEED; rows];
        for given in &given {
            given.hash(&mut hashes);
        }
        // One thing at a time for all rows: where the table and the columns do not fit into the cache, a core waits for
        // many of them at once. The tag finds the key with next to no mistake, and those are mended below.
        let numbers = &self.numbers;
        groups.extend(
            hashes
                .iter()
                .map(|hash| numbers.find(tag_of(*hash), |_| true).unwrap_or(NOBODY)),
        );
        for (column, given) in self.columns.iter().zip(&given) {
            column.hold_against(given, groups);
        }
        for (row, group) in groups.iter_mut().enumerate() {
            if *group == NOBODY {
                *group = self.group_of(tag_of(hashes[row]), |column| given[column].cell(row));
            }
        }
        Ok(())
    }

    fn given(&self, columns: &[ArrayRef]) -> Result<Vec<Given>> {
        if columns.len() != self.columns.len() {
            return internal_err!("keys of {} columns, not of {}", self.columns.len(), columns.len());
        }
        let each = self.columns.iter().zip(columns).map(|(column, array)| {
            if array.data_type() != column.data_type() {
                return internal_err!("a key column of {}, not of {}", column.data_type(), array.data_type());
            }
            column.given(array)
        });
        each.collect()
    }

    /// The number of one row's key; a new key gets a number that nothing holds yet.
    ///
    /// # Errors
    /// When a value is of another type than the store's column.
    pub(crate) fn intern_one(&mut self, key: &[Value]) -> Result<Group> {
        if self.is_keyless() {
            return Ok(self.only_group());
        }
        let cells: Option<Vec<Cell<'_>>> = key
            .iter()
            .zip(&self.columns)
            .map(|(value, column)| column.cell_of(value))
            .collect();
        match cells {
            Some(cells) => {
                let hash = cells.iter().fold(SEED, |hash, cell| cell.hash(hash));
                Ok(self.group_of(tag_of(hash), |column| cells[column]))
            }
            None => self.intern_as_columns(key),
        }
    }

    /// The same for a key with a type of which there are no plain values.
    fn intern_as_columns(&mut self, key: &[Value]) -> Result<Group> {
        let columns = key.iter().zip(&self.columns);
        let columns: Vec<ArrayRef> = columns
            .map(|(value, column)| value.to_array(column.data_type()))
            .collect();
        let mut groups = Vec::with_capacity(1);
        self.intern(&columns, 1, &mut groups)?;
        Ok(groups[0])
    }

    /// The number of the key of these cells, by the tag of its hash.
    fn group_of<'a>(&mut self, tag: Tag, cell: impl Fn(usize) -> Cell<'a>) -> Group {
        let columns = &self.columns;
        let is_it = |group| {
            columns
                .iter()
                .enumerate()
                .all(|(at, column)| column.is(group, cell(at)))
        };
        if let Some(group) = self.numbers.find(tag, is_it) {
            return group;
        }
        let group = self.free.pop().unwrap_or_else(|| {
            let group = Group::try_from(self.holders.len()).expect("fewer than 4 billion keys fit into memory");
            self.holders.push(0);
            group
        });
        for (at, column) in self.columns.iter_mut().enumerate() {
            column.resize(self.holders.len());
            column.set(group, cell(at));
        }
        self.numbers.insert(tag, group);
        group
    }

    /// Values as they come back from `columns`: of 0.0 and -0.0, which are one key, the former.
    pub(crate) fn as_kept(key: &mut [Value]) {
        for value in key {
            match value {
                Value::Float(number) => *number = as_grouped(*number),
                Value::Other(array) => *array = normalize_float_zero(array),
                _ => {}
            }
        }
    }

    /// One more window holds the key.
    pub(crate) fn hold(&mut self, group: Group) {
        self.holders[group as usize] += 1;
    }

    /// One window fewer holds the key; the last one makes it forgotten.
    pub(crate) fn release(&mut self, group: Group) {
        let holders = &mut self.holders[group as usize];
        *holders -= 1;
        if *holders == 0 && !self.is_keyless() {
            self.forget(group);
        }
    }

    fn forget(&mut self, group: Group) {
        let hash = self.columns.iter().fold(SEED, |hash, column| column.hash(hash, group));
        // One that was forgotten before is not there, whatever its columns hold.
        if self.numbers.remove(tag_of(hash), group) {
            for column in &mut self.columns {
                column.clear(group);
            }
            self.free.push(group);
        }
    }

    /// Numbers that no key has, for what is to stand beside the groups of a slot for a moment.
    pub(crate) fn lend(&mut self, count: usize) -> Vec<Group> {
        if self.is_keyless() {
            self.only_group();
        }
        let next = |_| {
            self.free.pop().unwrap_or_else(|| {
                self.holders.push(0);
                (self.holders.len() - 1) as Group
            })
        };
        (0..count).map(next).collect()
    }

    /// Takes numbers back that were lent.
    pub(crate) fn take_back(&mut self, lent: Vec<Group>) {
        self.free.extend(lent);
    }

    /// Forgets interned keys among `groups` that no window took up.
    pub(crate) fn forget_unheld(&mut self, groups: &[Group]) {
        if self.is_keyless() {
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
        self.columns.iter().map(|column| column.column(groups)).collect()
    }

    /// How many keys are alive.
    pub(crate) fn len(&self) -> usize {
        if self.is_keyless() {
            self.holders.len().min(1)
        } else {
            self.numbers.len()
        }
    }

    /// Bytes kept, estimated from above: columns, table entries, bookkeeping.
    pub(crate) fn bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(KeyColumn::size).sum();
        columns + self.numbers.bytes() + (self.holders.capacity() + self.free.capacity()) * 4
    }
}
