//! Purposes are some of all there are.

use std::fmt;

use serde::{Deserialize, Serialize};
use usher_queries::purpose::Purpose;

/// Some purposes, a bit each in the order of [`Purpose::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purposes(u8);

impl Purposes {
    /// None.
    pub const NONE: Self = Self(0);
    /// All there are.
    pub const ALL: Self = Self(0b111);

    /// Whether one is among them.
    pub fn has(self, purpose: Purpose) -> bool {
        self.0 & bit(purpose) != 0
    }

    /// These and one more.
    #[must_use]
    pub const fn with(self, purpose: Purpose) -> Self {
        Self(self.0 | bit(purpose))
    }

    /// These without one.
    #[must_use]
    pub const fn without(self, purpose: Purpose) -> Self {
        Self(self.0 & !bit(purpose))
    }

    /// Those that are among them.
    pub fn iter(self) -> impl Iterator<Item = Purpose> {
        Purpose::ALL.into_iter().filter(move |purpose| self.has(*purpose))
    }
}

impl FromIterator<Purpose> for Purposes {
    fn from_iter<I: IntoIterator<Item = Purpose>>(purposes: I) -> Self {
        purposes.into_iter().fold(Self::NONE, Self::with)
    }
}

/// Their names with spaces between, as in the column `purposes`.
impl fmt::Display for Purposes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Purpose::as_str).collect();
        f.write_str(&names.join(" "))
    }
}

impl fmt::Debug for Purposes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

const fn bit(purpose: Purpose) -> u8 {
    match purpose {
        Purpose::Service => 0b001,
        Purpose::Recognition => 0b010,
        Purpose::Research => 0b100,
    }
}
