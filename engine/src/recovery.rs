//! Recovery is what was decided at the start about what a checkpoint has: kept, rebuilt from the log, reset, dropped.
//!
//! It is decided by the tables here, which docs/decisions/0007-checkpoints.md has in words, and told in the log, on
//! `/api/v1/status` and by `usher status`.

use serde::Serialize;
use usher_connectors::log::Offset;
use usher_queries::query_set::Restored;

/// What the parts of a checkpoint mean. Another number is not read: a smaller one is rebuilt from the log, a larger one
/// was written by a newer Usher, which alone may go on with it.
///
/// 1: parts written whole, in the log's database. 2: chains of changes, in files. 3: so of alerts, and of rows that wait in
/// joins, for an absence and for a pattern. 4: of people their visits, what is usual of each, and what waits for the watermark.
/// 5: who is inside each zone, what anybody may see, and who looked people up. 6: of people what they wanted
/// and got, and in how many visits they took part. 7: of people which messages they accepted and declined in time, as messages tell it.
/// 8: of visits the searches that told their results.
pub const FORMAT: u32 = 8;

/// What is done with a checkpoint because of its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfFormat {
    /// It is read.
    Read,
    /// It is older: the state is rebuilt from the log.
    Rebuilt,
    /// It is newer: nothing is started, nothing written.
    Refused,
}

/// The table for formats.
pub fn of_format(format: u32) -> OfFormat {
    match format.cmp(&FORMAT) {
        std::cmp::Ordering::Less => OfFormat::Rebuilt,
        std::cmp::Ordering::Equal => OfFormat::Read,
        std::cmp::Ordering::Greater => OfFormat::Refused,
    }
}

/// What was done with a query's state, or all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It goes on where it was.
    Kept,
    /// It was worked out again from the log, from its first record on.
    Rebuilt,
    /// It begins anew, with the first event after the checkpoint.
    Reset,
    /// Nobody wants it any more.
    Dropped,
}

/// The table for queries. Only a log that was never cut has all that a query may have kept.
pub fn of_query(found: &Restored, log_oldest: Offset) -> Decision {
    match (found, log_oldest) {
        (Restored::Kept, _) => Decision::Kept,
        (Restored::Gone, _) => Decision::Dropped,
        (Restored::Changed | Restored::Unreadable(_), Offset(0)) => Decision::Rebuilt,
        (Restored::Changed | Restored::Unreadable(_), _) => Decision::Reset,
    }
}

/// A query whose state did not simply go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct RecoveredQuery {
    /// Its name.
    pub query: String,
    /// What was done.
    pub decision: Decision,
    /// Why, in words.
    pub reason: String,
}

/// How the state came to be at the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Recovery {
    /// What was done with the state as a whole: `kept` of a checkpoint, or `rebuilt` from the log; `reset` where that does
    /// not begin at its first record.
    pub decision: Decision,
    /// The number of the checkpoint that was read.
    pub checkpoint: Option<u64>,
    /// The first record that was gone through again.
    pub replayed_from: u64,
    /// The record behind the last of them.
    pub replayed_to: u64,
    /// Checkpoints that could not be used, each with the reason, the newest first.
    pub unusable: Vec<String>,
    /// Queries that were kept.
    pub queries_kept: usize,
    /// The others that a checkpoint had.
    pub queries: Vec<RecoveredQuery>,
    /// All of it in a sentence.
    pub text: String,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            decision: Decision::Rebuilt,
            checkpoint: None,
            replayed_from: 0,
            replayed_to: 0,
            unusable: Vec::new(),
            queries_kept: 0,
            queries: Vec::new(),
            text: "not yet".to_owned(),
        }
    }
}

impl Recovery {
    /// Of a checkpoint that was read.
    pub fn continued(&mut self, checkpoint: u64, found: &[(String, Restored)], log_oldest: Offset) {
        (self.decision, self.checkpoint) = (Decision::Kept, Some(checkpoint));
        for (query, restored) in found {
            let decision = of_query(restored, log_oldest);
            let cut = format!("the log begins at record {log_oldest} and has not all that it would take");
            let reason = match (restored, decision) {
                (Restored::Kept, _) => {
                    self.queries_kept += 1;
                    continue;
                }
                (Restored::Gone, _) => "there is no such query any more".to_owned(),
                (Restored::Changed, Decision::Reset) => format!("it was changed; {cut}"),
                (Restored::Changed, _) => "it was changed".to_owned(),
                (Restored::Unreadable(reason), Decision::Reset) => format!("its state can't be read: {reason}; {cut}"),
                (Restored::Unreadable(reason), _) => format!("its state can't be read: {reason}"),
            };
            self.queries.push(RecoveredQuery {
                query: query.clone(),
                decision,
                reason,
            });
        }
    }

    /// Queries whose state is to be worked out from the log.
    pub fn to_rebuild(&self) -> Vec<String> {
        let rebuilt = self.queries.iter().filter(|query| query.decision == Decision::Rebuilt);
        rebuilt.map(|query| query.query.clone()).collect()
    }

    /// A query could not be rebuilt after all.
    pub fn reset(&mut self, query: &str, why: &str) {
        if let Some(found) = self.queries.iter_mut().find(|found| found.query == query) {
            found.decision = Decision::Reset;
            found.reason = format!("{}; it could not be rebuilt from the log: {why}", found.reason);
        }
    }

    /// Says what was decided, once all of it is done.
    pub fn tell(&mut self) {
        let records = self.replayed_to.saturating_sub(self.replayed_from);
        self.text = match (self.checkpoint, self.decision) {
            (Some(checkpoint), _) => {
                format!("kept from checkpoint {checkpoint}, and {records} records of the log behind it")
            }
            (None, Decision::Rebuilt) => format!("rebuilt from the log, {records} records"),
            (None, _) => format!(
                "rebuilt from what is left of the log, {records} records; what lay before record {} is gone",
                self.replayed_from
            ),
        };
        for reason in &self.unusable {
            tracing::error!(%reason, "a checkpoint was not used");
        }
        for RecoveredQuery {
            query,
            decision,
            reason,
        } in &self.queries
        {
            match decision {
                Decision::Kept => {}
                Decision::Rebuilt => tracing::warn!(query, reason, "worked out again from the log"),
                Decision::Reset => tracing::warn!(query, reason, "it begins anew"),
                Decision::Dropped => tracing::info!(query, reason, "its state is dropped"),
            }
        }
        tracing::info!(state = self.text, "recovered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_decides_what_is_done() {
        let unreadable = Restored::Unreadable("it is cut off".to_owned());
        for (found, oldest, decision) in [
            (&Restored::Kept, 0, Decision::Kept),
            (&Restored::Kept, 9, Decision::Kept),
            (&Restored::Changed, 0, Decision::Rebuilt),
            (&Restored::Changed, 9, Decision::Reset),
            (&unreadable, 0, Decision::Rebuilt),
            (&unreadable, 9, Decision::Reset),
            (&Restored::Gone, 0, Decision::Dropped),
            (&Restored::Gone, 9, Decision::Dropped),
        ] {
            assert_eq!(
                of_query(found, Offset(oldest)),
                decision,
                "{found:?} and a log from {oldest} on"
            );
        }
        assert_eq!(
            [FORMAT - 1, FORMAT, FORMAT + 1].map(of_format),
            [OfFormat::Rebuilt, OfFormat::Read, OfFormat::Refused]
        );
    }
}
