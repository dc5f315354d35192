//! Queries that have stopped: which they are, and how one begins anew at a place in the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use usher_queries::query_set::planning::{Planned, Stale};

use super::Pipeline;
use crate::query_keeper::StoppedQuery;
use crate::record::Record;

impl Pipeline {
    /// The queries that have stopped.
    pub(crate) fn stopped_queries(&self) -> Vec<StoppedQuery> {
        let queries = self.perception.queries.queries().iter();
        let stopped = queries.filter_map(|query| {
            Some(StoppedQuery {
                name: Arc::clone(query.name()),
                reason: query.broken()?.to_owned(),
                statement: query.statement().clone(),
            })
        });
        stopped.collect()
    }

    /// The names of all queries.
    pub(crate) fn query_names(&self) -> BTreeSet<Arc<str>> {
        let queries = self.perception.queries.queries().iter();
        queries.map(|query| Arc::clone(query.name())).collect()
    }

    /// Starts a query again that has stopped, and logs it, so that it begins anew at the same place in a replay.
    ///
    /// # Errors
    /// [`Stale`] when the queries were changed since this was planned; nothing has happened then.
    pub(crate) fn start_again(&mut self, query: &str, planned: Planned) -> Result<(), Stale> {
        self.perception.queries.apply(planned)?;
        self.learn_rules();
        let query = query.to_owned();
        self.note(&Record::QueryRestarted { query }, Vec::new());
        Ok(())
    }
}
