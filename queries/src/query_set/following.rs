//! Followers are the queries that read what people were sent: they go on when that is known, behind all others.
//!
//! Queries find what is written to people, and what is written is decided when all of them have reached a watermark. So there
//! are two times: followers stand still until they are told what was sent by then, and then go on to it at once. A follower
//! reads nothing but that and tables, and no rule that writes to people reads a follower, so that nothing goes round.

use super::QuerySet;
use crate::query::Output;
use crate::row::Rows;
use crate::streams::MESSAGE;

impl QuerySet {
    /// From now on followers go on by [`QuerySet::follow`] alone. Where nobody says so, what is pushed of [`MESSAGE`] is all
    /// there is, and they go on with the others.
    pub fn hold_followers(&mut self) {
        self.time.told_until = Some(i64::MIN);
    }

    /// Whether a query reads what people were sent, directly or through others.
    pub fn follows(&self, name: &str) -> bool {
        self.catalog.follows(name)
    }

    /// Tells followers all that became of messages since the last call, up to a watermark that all others have reached, and
    /// moves them on to it.
    pub fn follow(&mut self, rows: Option<&Rows>, until_us: i64, out: &mut Vec<Output>) {
        let mut late = Vec::new();
        if let Some(rows) = rows {
            self.deliver(MESSAGE, rows, &mut None, &mut late, out);
        }
        self.time.told_until = self.time.told_until.max(Some(until_us));
        for index in 0..self.queries.len() {
            // Not in turns: they are few, and so is what people are sent.
            while self.time.follows[index] && self.is_due(index) {
                if self.advance_with_sharers(index, usize::MAX, &mut late, out).is_empty() {
                    break;
                }
            }
        }
        self.deliver_late(late, out);
    }

    /// The watermark that a query may go on to, before what it stays behind.
    pub(super) fn until(&self, index: usize) -> i64 {
        let moved_to = self.time.moved_to.unwrap_or(i64::MIN);
        match self.time.told_until {
            Some(told_us) if self.time.follows[index] => moved_to.min(told_us),
            _ => moved_to,
        }
    }
}
