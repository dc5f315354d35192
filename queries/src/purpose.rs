//! A purpose is what something is done with what is known of a person for, and what the person may refuse.

use std::fmt;

use crate::error::QueryError;
use crate::row::{Row, Rows};
use crate::statement::OptionValue;

/// What something is done for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Messages, offers and points.
    Service,
    /// Telling the person apart from others. What nobody is told apart for has no persons to leave out, so that a query that
    /// says nothing hears of everybody who may be recognised.
    #[default]
    Recognition,
    /// Measures of how a house is used.
    Research,
}

impl Purpose {
    /// All purposes.
    pub const ALL: [Purpose; 3] = [Purpose::Service, Purpose::Recognition, Purpose::Research];

    /// As it stands in statements, settings, payloads and columns.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Service => "service",
            Purpose::Recognition => "recognition",
            Purpose::Research => "research",
        }
    }

    /// The purpose of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == name)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who agrees to what.
///
/// Contract, trusted: it says the same of all names of a person, and the same whenever it is asked between two changes of
/// which the query set is told.
pub trait Consent: Send + Sync {
    /// Whether what is known of a person may be used for a purpose.
    fn holds(&self, purpose: Purpose, person: &str) -> bool;

    /// Whether it may be of everybody, so that nobody need be asked about.
    fn holds_for_all(&self, purpose: Purpose) -> bool;
}

/// The column that names whom a row is about.
pub(crate) const PERSON: &str = "person";

/// What of `rows` is about nobody or about those who agree; `None` where that is all of it.
pub(crate) fn allowed(rows: &Rows, purpose: Purpose, consent: &dyn Consent) -> Option<Vec<Row>> {
    let person = rows.schema().index_of(PERSON).ok()?;
    let is_allowed = |row: usize| rows.text(person, row).is_none_or(|name| consent.holds(purpose, name));
    if (0..rows.len()).all(is_allowed) {
        return None;
    }
    let flow = rows.flow();
    let left = (0..rows.len()).filter(|row| is_allowed(*row));
    Some(left.map(|row| Row::of(&flow, row)).collect())
}

/// Reads the option `purpose`.
///
/// # Errors
/// The mistake with its place.
pub(crate) fn purpose(value: &OptionValue) -> Result<Purpose, QueryError> {
    Purpose::from_name(&value.value.to_lowercase()).ok_or_else(|| {
        value.at.mistake(
            format!("purpose = '{}' is not known", value.value),
            "'service', 'recognition' or 'research'",
        )
    })
}
