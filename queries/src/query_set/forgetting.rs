//! Forgetting a subject in all queries, at one moment: what a query keeps of it is gone, and it goes on with the rest.

use std::sync::Arc;

use datafusion::common::Result;

use super::planning::created;
use super::{QuerySet, Restored};
use crate::forgetting::{Forgotten, Names, forget};
use crate::operator::Footprint;
use crate::query::Query;
use crate::snapshot::QuerySnapshot;

/// What became of the queries that kept something of a subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForgottenIn {
    /// These go on with what they keep of others.
    pub kept: Vec<String>,
    /// These begin anew: what they kept could not be taken apart.
    pub begun_anew: Vec<String>,
}

/// A query's name, and what is left of what it kept.
type Without = (Arc<str>, Option<QuerySnapshot>);

impl QuerySet {
    /// Forgets the subject that `names` tells from others, wherever a query keeps something of it. To be called when nothing is
    /// left to say of the watermark. Takes as long as it takes to look through what is kept.
    ///
    /// # Errors
    /// When a query's state can't be made into columns; then nothing has changed.
    pub fn forget(&mut self, names: Names<'_>) -> Result<ForgottenIn> {
        let all = self.without(names, &|_| true)?;
        self.go_on_with(all)
    }

    /// The same in the queries that are wanted, but for those of which it can't be taken out: these go on with all they keep.
    ///
    /// # Errors
    /// As [`QuerySet::forget`].
    pub fn forget_where_it_can_be(
        &mut self,
        names: Names<'_>,
        is_wanted: &dyn Fn(&Query) -> bool,
    ) -> Result<ForgottenIn> {
        let mut changed = self.without(names, is_wanted)?;
        changed.retain(|(_, left)| left.is_some());
        self.go_on_with(changed)
    }

    /// What is left of queries that keep something of the subject; `None` where it can't be taken out.
    fn without(&mut self, names: Names<'_>, is_wanted: &dyn Fn(&Query) -> bool) -> Result<Vec<Without>> {
        let mut changed = Vec::new();
        let wanted = self
            .queries
            .iter_mut()
            .filter(|query| query.broken().is_none() && is_wanted(query));
        for query in wanted.filter(|query| query.footprint() != Footprint::default()) {
            match forget(&query.snapshot()?, names)? {
                Forgotten::Nothing => {}
                Forgotten::Left(left) => changed.push((Arc::clone(query.name()), Some(left))),
                Forgotten::Inseparable => changed.push((Arc::clone(query.name()), None)),
            }
        }
        Ok(changed)
    }

    fn go_on_with(&mut self, changed: Vec<Without>) -> Result<ForgottenIn> {
        let mut forgotten = ForgottenIn::default();
        if changed.is_empty() {
            return Ok(forgotten);
        }
        // A window that several share would go on with what one of them has forgotten.
        self.run_all_alone();
        for (name, left) in changed {
            let Some(index) = self.position(&name) else { continue };
            let is_kept = match self.begun_anew(index) {
                Some(mut query) => {
                    let restored = left.map(|left| self.restored(&mut query, &left));
                    self.queries[index] = query;
                    restored == Some(Restored::Kept)
                }
                None => false,
            };
            let which = if is_kept {
                &mut forgotten.kept
            } else {
                &mut forgotten.begun_anew
            };
            which.push(name.to_string());
        }
        self.rewire();
        self.share_equal_windows(|_| true);
        self.number_pushes();
        Ok(forgotten)
    }

    /// The queries that keep something of the subject.
    pub fn keeping(&mut self, names: Names<'_>) -> Vec<String> {
        let queries = self.queries.iter_mut().filter(|query| query.broken().is_none());
        let keeps = |query: &mut Query| {
            let left = query.snapshot().and_then(|snapshot| forget(&snapshot, names));
            // What can't be looked through may hold it.
            !matches!(left, Ok(Forgotten::Nothing))
        };
        queries
            .filter_map(|query| keeps(query).then(|| query.name().to_string()))
            .collect()
    }

    /// Lets all queries that keep anything begin anew; gives their names.
    pub fn begin_anew(&mut self) -> Vec<String> {
        self.run_all_alone();
        let mut names = Vec::new();
        for index in 0..self.queries.len() {
            if self.queries[index].footprint() == Footprint::default() {
                continue;
            }
            if let Some(query) = self.begun_anew(index) {
                self.queries[index] = query;
            }
            names.push(self.queries[index].name().to_string());
        }
        self.rewire();
        self.share_equal_windows(|_| true);
        names
    }

    /// A query as it was before its first row, with what it has counted. One that can't be made any more stops: it must not go
    /// on with what it is to forget.
    fn begun_anew(&mut self, index: usize) -> Option<Query> {
        let before = &self.queries[index];
        let anew = created(
            &self.catalog,
            self.memory,
            before.shared_statement(),
            before.keeps_causes(),
        );
        match anew {
            Ok(mut query) => {
                query.count_on_from(&mut self.queries[index]);
                Some(query)
            }
            Err(error) => {
                self.queries[index].stop(format!(
                    "it could not begin anew when it had to forget somebody: {error}"
                ));
                None
            }
        }
    }
}
