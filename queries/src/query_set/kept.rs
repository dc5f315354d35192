//! What the query set remembers over a restart: the state of each query, and what reference tables held before.

use std::collections::BTreeSet;

use datafusion::common::Result;

use super::planning::created;
use super::{QuerySet, Restored};
use crate::capture::Capture;
use crate::query::Query;
use crate::references::REFERENCES;
use crate::snapshot::QuerySnapshot;

impl QuerySet {
    /// What all queries must remember over a restart.
    ///
    /// # Errors
    /// When an operator's state can't be written as Arrow data.
    pub fn snapshot(&mut self) -> Result<Vec<QuerySnapshot>> {
        let references = self.kept_references()?;
        let queries = self.queries.iter_mut().map(Query::snapshot);
        references.into_iter().map(Ok).chain(queries).collect()
    }

    /// Takes what has changed in the queries since the last capture, about `room` rows, ahead of the next one. Where room is
    /// left there is nothing more to take. It goes on where the last call ended: what changes with every event is taken again
    /// when all others had their turn, and not before each of them.
    ///
    /// # Errors
    /// As for [`QuerySet::capture`].
    pub fn gather(&mut self, room: &mut usize) -> Result<()> {
        for _ in 0..self.queries.len() {
            // There may be fewer than when the last call ended.
            self.gathering %= self.queries.len();
            self.queries[self.gathering].gather(room)?;
            if *room == 0 {
                break;
            }
            self.gathering += 1;
        }
        Ok(())
    }

    /// What all queries hold at this moment: what has changed since the last capture, and what of it stays. Put behind the
    /// captures before it, it is what [`QuerySet::snapshot`] gives.
    ///
    /// # Errors
    /// When an operator's state can't be made into Arrow data. Then the next capture has to begin anew.
    pub fn capture(&mut self) -> Result<Capture> {
        let (mut windows, mut operators) = (Vec::new(), Vec::new());
        let (queries, renewal) = (self.queries.iter_mut(), &mut self.renewal);
        renewal.begin();
        let queries = queries.map(|query| query.capture(renewal, &mut windows, &mut operators));
        let queries = queries.collect::<Result<_>>()?;
        Ok(Capture {
            queries,
            references: self.kept_references()?,
            operators,
        })
    }

    /// The next capture is to hold everything: the last one came to nothing.
    pub fn capture_anew(&mut self) {
        self.queries.iter_mut().for_each(Query::capture_anew);
    }

    fn kept_references(&self) -> Result<Option<QuerySnapshot>> {
        let tables: BTreeSet<&str> = self
            .queries
            .iter()
            .flat_map(|query| query.versions_of().0)
            .map(String::as_str)
            .collect();
        self.references.snapshot(&tables)
    }

    /// Takes back snapshots; a query that has changed since begins anew, and the answer says so for each. A reference
    /// table that has changed since holds what it holds now from the watermark on.
    pub fn restore(&mut self, watermark: Option<i64>, snapshots: &[QuerySnapshot]) -> Vec<(String, Restored)> {
        self.restore_since(watermark, snapshots, watermark.unwrap_or(i64::MIN))
    }

    /// As [`QuerySet::restore`], where reference tables that have changed hold what they hold now from another event time
    /// on, microseconds: the one it is by the clock.
    pub fn restore_since(
        &mut self,
        watermark: Option<i64>,
        snapshots: &[QuerySnapshot],
        changed_us: i64,
    ) -> Vec<(String, Restored)> {
        self.time.restored(watermark);
        self.run_all_alone();
        let mut outcomes = Vec::new();
        for snapshot in snapshots {
            let outcome = match self.position(&snapshot.name) {
                _ if snapshot.name == REFERENCES => match self.references.restore(snapshot, changed_us) {
                    Ok(()) => Restored::Kept,
                    Err(error) => Restored::Unreadable(error.strip_backtrace()),
                },
                None => Restored::Gone,
                Some(index) if self.queries[index].fingerprint() != snapshot.fingerprint => Restored::Changed,
                Some(index) => {
                    let mut query = self.queries.remove(index);
                    let outcome = self.restored(&mut query, snapshot);
                    self.queries.insert(index, query);
                    outcome
                }
            };
            outcomes.push((snapshot.name.clone(), outcome));
        }
        self.share_equal_windows(|_| true);
        self.number_pushes();
        outcomes
    }

    /// Gives a query back what it kept, all of it or nothing.
    pub(super) fn restored(&self, query: &mut Query, snapshot: &QuerySnapshot) -> Restored {
        let Err(error) = query.restore(snapshot, &self.catalog) else {
            return Restored::Kept;
        };
        // What it took before it failed is half of something.
        match created(
            &self.catalog,
            self.memory,
            query.shared_statement(),
            query.keeps_causes(),
        ) {
            Ok(anew) => *query = anew,
            Err(error) => query.stop(error.to_string()),
        }
        Restored::Unreadable(error.strip_backtrace())
    }
}
