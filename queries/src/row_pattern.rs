//! A row pattern says which sequences of rows match: variables one after another, repeated, or in alternatives.
//!
//! Nothing here knows columns, SQL or time. A pattern becomes an [`automaton`]; an [`attempt`] runs it from one row
//! on; a [`search`] keeps the attempts of one partition and says what they found, in the standard's order of preference.

pub(crate) mod attempt;
pub(crate) mod automaton;
#[cfg(test)]
mod reference;
pub(crate) mod search;

/// A pattern variable by its number.
pub(crate) type Variable = u16;

/// A pattern as written. Alternatives further left are preferred, and repetitions take as much as they can.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Pattern {
    /// One row that is this variable.
    Variable(Variable),
    /// One after another.
    Sequence(Vec<Pattern>),
    /// The first that leads to a match.
    Alternatives(Vec<Pattern>),
    /// So many times at least, and at most.
    Repeat(Box<Pattern>, u32, Option<u32>),
}

/// Why a pattern can't be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    /// Its repetitions make it too long.
    #[error(
        "the pattern stands for more than {} rows once its repetitions are written out",
        automaton::MAX_POSITIONS
    )]
    TooLong,
    /// Too many ways lead from one row to the next.
    #[error("the pattern has too many optional parts within each other")]
    TooIntricate,
    /// It would match no rows at all.
    #[error("the pattern can match no rows at all, and would do so everywhere")]
    MatchesNothing,
    /// A repetition such as {3,2}.
    #[error("a repetition of at least {0} and at most {1} times can't be")]
    Range(u32, u32),
}
