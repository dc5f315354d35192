//! Dead letters are steps that a receiver will not take, kept for people to look at and to send again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::step::{StepId, Told};

/// A step that a receiver did not take.
#[derive(Debug, Clone)]
pub(super) struct DeadLetter {
    pub(super) step: Arc<Told>,
    /// Why, in words.
    pub(super) reason: String,
    /// How often it was tried.
    pub(super) tries: u32,
    /// Since when it is dead, our clock, microseconds since 1970.
    pub(super) dead_us: i64,
    /// Whether it is to be sent again.
    pub(super) is_resent: bool,
}

impl DeadLetter {
    pub(super) fn to_bytes(&self) -> Bytes {
        let kept = (
            self.step.to_bytes().to_vec(),
            &self.reason,
            self.tries,
            self.dead_us,
            self.is_resent,
        );
        postcard::to_stdvec(&kept)
            .expect("a letter in memory can always be written to memory")
            .into()
    }

    fn from_bytes(number: u64, bytes: &[u8]) -> Result<Self, String> {
        let (step, reason, tries, dead_us, is_resent): (Vec<u8>, String, u32, i64, bool) =
            postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        Ok(Self {
            step: Arc::new(Told::from_bytes(number, &step)?),
            reason,
            tries,
            dead_us,
            is_resent,
        })
    }
}

/// The dead letters of one receiver, by the numbers of their steps.
#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    letters: BTreeMap<u64, DeadLetter>,
    max: usize,
}

impl DeadLetters {
    /// Takes back what was written down.
    pub(super) fn restore(letters: &[(u64, Bytes)], max: usize) -> Self {
        let mut restored = Self {
            letters: BTreeMap::new(),
            max,
        };
        for (number, bytes) in letters {
            match DeadLetter::from_bytes(*number, bytes) {
                Ok(letter) => {
                    restored.letters.insert(*number, letter);
                }
                Err(reason) => tracing::error!(number, reason, "a dead letter can't be read; it is left out"),
            }
        }
        restored
    }

    /// Whether one more can be kept.
    pub(super) fn has_room(&self) -> bool {
        self.letters.len() < self.max
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.letters.len()
    }

    /// Those that are to be sent again.
    pub(super) fn resent(&self) -> impl Iterator<Item = &DeadLetter> {
        self.letters.values().filter(|letter| letter.is_resent)
    }

    /// All, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &DeadLetter> {
        self.letters.values()
    }

    pub(super) fn get(&self, number: u64) -> Option<&DeadLetter> {
        self.letters.get(&number)
    }

    pub(super) fn insert(&mut self, letter: DeadLetter) {
        self.letters.insert(letter.step.number, letter);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<DeadLetter> {
        self.letters.remove(&number)
    }

    /// The numbers of one step, or of all when none is named.
    pub(super) fn numbers_of(&self, id: Option<StepId>) -> Vec<u64> {
        let is_wanted = |letter: &&DeadLetter| id.is_none_or(|id| letter.step.id == id);
        self.letters
            .values()
            .filter(is_wanted)
            .map(|letter| letter.step.number)
            .collect()
    }

    /// Marks one as to be sent again.
    pub(super) fn resend(&mut self, number: u64) -> Option<&DeadLetter> {
        let letter = self.letters.get_mut(&number)?;
        letter.is_resent = true;
        Some(letter)
    }
}
