//! Numbers found by the tags of what they stand for: what that is lies elsewhere, and is looked at only where a tag is right.

use hashbrown::HashTable;

/// Tables by some bits of the tags: one that grows moves all that is in it, while an event waits.
const TABLES: usize = 32;

/// The upper half of a hash, which mistakes one thing for another hardly ever.
pub type Tag = u32;

/// Numbers, each under a tag; 9 bytes a number and what tables have to spare.
#[derive(Debug, Default)]
pub struct Tagged {
    tables: [HashTable<(Tag, u32)>; TABLES],
}

/// What is kept of a hash.
#[inline]
pub fn tag_of(hash: u64) -> Tag {
    #[allow(clippy::cast_possible_truncation)] // half of it is what is wanted
    let tag = (hash >> 32) as Tag;
    tag
}

/// In which table a tag is, by bits that a table looks at last.
#[inline]
fn table_of(tag: Tag) -> usize {
    (tag >> 20) as usize % TABLES
}

/// A tag as the table's hash, which is taken from both ends: from the tag alone, so that a table that grows need not look
/// at what the numbers stand for.
#[inline]
fn spread(tag: Tag) -> u64 {
    u64::from(tag) | u64::from(tag) << 32
}

impl Tagged {
    /// The number under a tag for which `is_it` holds.
    #[inline]
    pub fn find(&self, tag: Tag, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let found = self.tables[table_of(tag)].find(spread(tag), |(found, number)| *found == tag && is_it(*number));
        found.map(|(_, number)| *number)
    }

    /// Puts a number, which is not there, under a tag.
    pub fn insert(&mut self, tag: Tag, number: u32) {
        self.tables[table_of(tag)].insert_unique(spread(tag), (tag, number), |(tag, _)| spread(*tag));
    }

    /// Takes a number away; tells whether it was there under the tag.
    pub fn remove(&mut self, tag: Tag, number: u32) -> bool {
        let entry = self.tables[table_of(tag)].find_entry(spread(tag), |held| *held == (tag, number));
        entry.map(|entry| entry.remove()).is_ok()
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.tables.iter().map(HashTable::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(HashTable::is_empty)
    }

    /// Bytes of the tables.
    pub fn bytes(&self) -> usize {
        let entries: usize = self.tables.iter().map(HashTable::capacity).sum();
        entries * 9
    }
}

#[cfg(test)]
impl Tagged {
    /// The tags of all numbers.
    pub(crate) fn tags(&self) -> impl Iterator<Item = Tag> {
        self.tables.iter().flatten().map(|(tag, _)| *tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_one_tag_are_told_apart() {
        let mut tagged = Tagged::default();
        assert!(tagged.is_empty());
        for (tag, number) in [(7, 1), (7, 2), (8, 3)] {
            tagged.insert(tag, number);
        }
        assert_eq!(tagged.find(7, |number| number == 2), Some(2));
        assert_eq!(tagged.find(7, |number| number == 3), None, "it is under another tag");
        assert!(!tagged.remove(8, 1), "it is under another tag");
        assert!(tagged.remove(7, 1));
        assert_eq!(tagged.find(7, |_| true), Some(2));
        assert_eq!(tagged.len(), 2);
    }

    #[test]
    fn tables_that_grow_lose_nothing() {
        let mut tagged = Tagged::default();
        let tag = |number: u32| tag_of(u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for number in 0..100_000 {
            tagged.insert(tag(number), number);
        }
        for number in 0..100_000 {
            assert_eq!(tagged.find(tag(number), |found| found == number), Some(number));
        }
        assert!(tagged.bytes() >= 9 * tagged.len());
    }
}
