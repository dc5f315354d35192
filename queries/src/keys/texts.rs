//! The texts of one key column, a text a group: a short one lies in two words, a long one in bytes shared by all.

use std::hash::Hasher;

use arrow::array::BinaryArray;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::common::{Result, exec_datafusion_err};
use rustc_hash::FxHasher;

use crate::keys::Group;

/// A text of so many bytes lies in its head. Ids of devices mostly do.
const SHORT: usize = 12;
/// Bytes of forgotten texts below which they are not worth being given back.
const LITTLE_WASTE: usize = 4_096;

/// A text at a glance: its length, its first four bytes and, where it is short, the other eight. Of a long text that is
/// looked for the last word is a hash, of a long one that is kept its place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Head {
    /// No text is so long: Arrow counts its bytes in an `i32`.
    pub(super) const NULL: Self = Self {
        first: u64::MAX,
        last: 0,
    };

    /// Of a text that is looked for.
    pub(super) fn of(text: &[u8]) -> Self {
        Self::within(text, 0, text.len())
    }

    /// Of the text that lies from `start` to `end` in `bytes`.
    pub(super) fn within(bytes: &[u8], start: usize, end: usize) -> Self {
        let length = end - start;
        if length > SHORT {
            let text = &bytes[start..end];
            let mut hasher = FxHasher::default();
            hasher.write(text);
            let begin = u32::from_le_bytes([text[0], text[1], text[2], text[3]]);
            return Self {
                first: first_word(length, begin),
                last: hasher.finish(),
            };
        }
        // Mostly other texts follow, so that a read of fixed width stays within the bytes.
        let word = match bytes.get(start..start + 16).and_then(<[u8]>::first_chunk) {
            Some(chunk) => u128::from_le_bytes(*chunk) & ((1 << (8 * length)) - 1),
            None => {
                let mut chunk = [0; 16];
                chunk[..length].copy_from_slice(&bytes[start..end]);
                u128::from_le_bytes(chunk)
            }
        };
        #[allow(clippy::cast_possible_truncation)] // into its parts
        Self {
            first: first_word(length, word as u32),
            last: (word >> 32) as u64,
        }
    }

    fn is_long(self) -> bool {
        self.length() > SHORT && self != Self::NULL
    }

    fn length(self) -> usize {
        (self.first & u64::from(u32::MAX)) as usize
    }
}

fn first_word(length: usize, begin: u32) -> u64 {
    length as u64 | u64::from(begin) << 32
}

/// The texts of the groups.
#[derive(Debug, Default)]
pub(super) struct Texts {
    heads: Vec<Head>,
    /// Long texts, one behind the other.
    bytes: Vec<u8>,
    /// How many of the bytes belong to texts that were forgotten.
    waste: usize,
}

impl Texts {
    /// Makes room for groups below `groups`.
    pub(super) fn resize(&mut self, groups: usize) {
        self.heads.resize(groups.max(self.heads.len()), Head::default());
    }

    /// Whether the text of a group, which need not be there, is this one.
    pub(super) fn is(&self, group: Group, head: Head, text: &[u8]) -> bool {
        let Some(held) = self.heads.get(group as usize) else {
            return false;
        };
        if head.is_long() {
            held.first == head.first && self.long(*held) == text
        } else {
            *held == head
        }
    }

    fn long(&self, held: Head) -> &[u8] {
        let start = held.last as usize;
        &self.bytes[start..start + held.length()]
    }

    /// What `Head::of` gives for the text of a group.
    pub(super) fn head(&self, group: Group) -> Head {
        let held = self.heads[group as usize];
        if held.is_long() {
            Head::of(self.long(held))
        } else {
            held
        }
    }

    /// The group's text is this one from now on.
    pub(super) fn set(&mut self, group: Group, mut head: Head, text: &[u8]) {
        if head.is_long() {
            head.last = self.bytes.len() as u64;
            self.bytes.extend_from_slice(text);
        }
        self.heads[group as usize] = head;
    }

    /// The group has no text any more.
    pub(super) fn clear(&mut self, group: Group) {
        let held = std::mem::take(&mut self.heads[group as usize]);
        if held.is_long() {
            self.waste += held.length();
            if self.waste > LITTLE_WASTE && self.waste > self.bytes.len() / 2 {
                self.give_back();
            }
        }
    }

    /// Gives back the bytes of forgotten texts.
    fn give_back(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.waste);
        for held in &mut self.heads {
            if held.is_long() {
                let start = held.last as usize;
                held.last = bytes.len() as u64;
                bytes.extend_from_slice(&self.bytes[start..start + held.length()]);
            }
        }
        (self.bytes, self.waste) = (bytes, 0);
    }

    /// The texts of `groups` in their order.
    pub(super) fn column(&self, groups: &[Group]) -> Result<BinaryArray> {
        let mut offsets: Vec<i32> = Vec::with_capacity(groups.len() + 1);
        let mut bytes = Vec::with_capacity(groups.len() * SHORT);
        let mut has_null = false;
        offsets.push(0);
        for group in groups {
            let held = self.heads[*group as usize];
            if held.is_long() {
                bytes.extend_from_slice(self.long(held));
            } else if held == Head::NULL {
                has_null = true;
            } else {
                let word = u128::from(held.first >> 32) | u128::from(held.last) << 32;
                bytes.extend_from_slice(&word.to_le_bytes()[..held.length()]);
            }
            let offset = i32::try_from(bytes.len()).map_err(|_| {
                exec_datafusion_err!(
                    "the keys that are said at once are longer together than 2 GiB, which a column can't hold"
                )
            })?;
            offsets.push(offset);
        }
        let valid = |group: &Group| self.heads[*group as usize] != Head::NULL;
        let nulls = has_null.then(|| groups.iter().map(valid).collect::<NullBuffer>());
        Ok(BinaryArray::try_new(
            OffsetBuffer::new(offsets.into()),
            bytes.into(),
            nulls,
        )?)
    }

    /// Bytes kept.
    pub(super) fn size(&self) -> usize {
        self.heads.capacity() * size_of::<Head>() + self.bytes.capacity()
    }
}
