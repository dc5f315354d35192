//! The texts of one key column, a text a group: a short one lies in two words, a long one in bytes shared by all.

use std::hash::Hasher;

use arrow::array::BinaryArray;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::common::{Result, exec_datafusion_err};
use rustc_hash::FxHasher;

use crate::keys::Group;

/// A text of so many bytes lies in its head. Ids of devices mostly do.
const SHORT: usize = 12;
/// Bytes of long texts that are kept together.
const CHUNK: usize = 4_096;

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

    pub(super) fn is_long(self) -> bool {
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
#[derive(Default)]
pub(super) struct Texts {
    heads: Vec<Head>,
    long: LongTexts,
}

/// Long texts, some thousand bytes of them together: those are given up or put together again while an event waits.
#[derive(Default)]
struct LongTexts {
    chunks: Vec<Chunk>,
    /// The chunk that texts are put in.
    filling: usize,
    /// Chunks without a text.
    empty: Vec<usize>,
}

/// Texts one behind the other, each behind its group and its length.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// How many of the bytes are of texts that nobody has forgotten.
    kept: usize,
}

/// A text's group and its length, as they stand before it.
const LABEL: usize = 8;

impl Chunk {
    fn is_mostly_forgotten(&self) -> bool {
        self.kept < self.bytes.len() / 2
    }

    /// Lets go of all texts, and of the room for one that was very long.
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(CHUNK);
        self.kept = 0;
    }

    /// The groups and lengths of all that was put in, with the places of the texts.
    fn labels(&self) -> impl Iterator<Item = (Group, usize, usize)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let label: [u8; LABEL] = *self.bytes.get(at..)?.first_chunk()?;
            let [a, b, c, d, length @ ..] = label;
            let length = u32::from_le_bytes(length) as usize;
            let start = at + LABEL;
            at = start + length;
            Some((Group::from_le_bytes([a, b, c, d]), start, length))
        })
    }
}

/// Where a long text is: its chunk and its place there.
fn place_of(held: Head) -> (usize, usize) {
    ((held.last >> 32) as usize, (held.last & u64::from(u32::MAX)) as usize)
}

impl LongTexts {
    fn get(&self, held: Head) -> &[u8] {
        let (chunk, start) = place_of(held);
        &self.chunks[chunk].bytes[start..start + held.length()]
    }

    /// Keeps a text; gives its place as it stands in a head.
    fn push(&mut self, group: Group, text: &[u8]) -> u64 {
        let all = LABEL + text.len();
        let has_room = |chunk: &Chunk| chunk.bytes.is_empty() || chunk.bytes.len() + all <= CHUNK;
        if !self.chunks.get(self.filling).is_some_and(has_room) {
            self.filling = self.empty.pop().unwrap_or_else(|| {
                self.chunks.push(Chunk::default());
                self.chunks.len() - 1
            });
        }
        let chunk = &mut self.chunks[self.filling];
        chunk.bytes.extend_from_slice(&group.to_le_bytes());
        #[allow(clippy::cast_possible_truncation)] // Arrow counts the bytes of a text in an i32
        chunk.bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        let start = chunk.bytes.len();
        chunk.bytes.extend_from_slice(text);
        chunk.kept += all;
        (self.filling as u64) << 32 | start as u64
    }

    /// One text of a chunk has been forgotten; gives those that are left there to be kept elsewhere, where they are few.
    fn forget(&mut self, held: Head) -> Option<Chunk> {
        let (number, _) = place_of(held);
        let chunk = &mut self.chunks[number];
        chunk.kept -= LABEL + held.length();
        if number == self.filling {
            if chunk.kept == 0 {
                chunk.clear();
            }
            return None;
        }
        if !chunk.is_mostly_forgotten() {
            return None;
        }
        if chunk.kept > 0 {
            return Some(std::mem::take(chunk));
        }
        self.give_up(number);
        None
    }

    /// A chunk has no text any more.
    fn give_up(&mut self, number: usize) {
        self.chunks[number].clear();
        self.empty.push(number);
    }

    fn bytes(&self) -> usize {
        let bytes: usize = self.chunks.iter().map(|chunk| chunk.bytes.capacity()).sum();
        bytes + self.chunks.capacity() * size_of::<Chunk>() + self.empty.capacity() * size_of::<usize>()
    }
}

impl Texts {
    /// Makes room for groups below `groups`.
    pub(super) fn resize(&mut self, groups: usize) {
        self.heads.resize(groups.max(self.heads.len()), Head::default());
    }

    /// Whether the text of a group, which need not be there, is the short one of this head.
    pub(super) fn has_head(&self, group: Group, head: Head) -> bool {
        !head.is_long() && self.heads.get(group as usize) == Some(&head)
    }

    /// Whether the text of a group, which need not be there, is this one.
    pub(super) fn is(&self, group: Group, head: Head, text: &[u8]) -> bool {
        let Some(held) = self.heads.get(group as usize) else {
            return false;
        };
        if head.is_long() {
            held.first == head.first && self.long.get(*held) == text
        } else {
            *held == head
        }
    }

    /// What `Head::of` gives for the text of a group.
    pub(super) fn head(&self, group: Group) -> Head {
        let held = self.heads[group as usize];
        if held.is_long() {
            Head::of(self.long.get(held))
        } else {
            held
        }
    }

    /// The text of a group that had none is this one from now on.
    pub(super) fn set(&mut self, group: Group, mut head: Head, text: &[u8]) {
        if head.is_long() {
            head.last = self.long.push(group, text);
        }
        self.heads[group as usize] = head;
    }

    /// The group has no text any more.
    pub(super) fn clear(&mut self, group: Group) {
        let held = std::mem::take(&mut self.heads[group as usize]);
        if !held.is_long() {
            return;
        }
        let (number, _) = place_of(held);
        let Some(left) = self.long.forget(held) else {
            return;
        };
        for (group, start, length) in left.labels() {
            // One that was forgotten is no more where it was.
            let head = &mut self.heads[group as usize];
            if head.is_long() && place_of(*head) == (number, start) {
                head.last = self.long.push(group, &left.bytes[start..start + length]);
            }
        }
        self.long.give_up(number);
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
                bytes.extend_from_slice(self.long.get(held));
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
        self.heads.capacity() * size_of::<Head>() + self.long.bytes()
    }
}
