//! Planning is what a statement needs to know of a query set to become a query: it is done beside what runs.
//!
//! A statement may take seconds to plan, and what runs must not wait for it. So planning takes a copy of what there is,
//! works anywhere, and gives a change that the query set makes in no time, unless it has become another meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{QuerySet, Restored};
use crate::catalog::{Catalog, Entry, Relation};
use crate::error::QueryError;
use crate::planner::Planner;
use crate::query::Query;
use crate::statement::{Statement, StatementKind};

/// Room for planning the deepest statement that is taken; the system gives only as much as is used.
const PLANNING_STACK_BYTES: usize = 64 << 20;

/// A query set as statements see it: what they may read, and who reads what.
#[derive(Clone)]
pub struct Planning {
    catalog: Catalog,
    memory: usize,
    watched: BTreeSet<String>,
    /// What runs, each behind those it reads.
    running: Vec<Running>,
    version: u64,
}

/// A query that runs.
#[derive(Clone)]
struct Running {
    statement: Arc<Statement>,
    sources: BTreeSet<String>,
    keeps_causes: bool,
}

impl Running {
    fn name(&self) -> &str {
        &self.statement.name
    }
}

/// A change of a query set that only has to be made.
pub struct Planned {
    version: u64,
    /// The query itself, and then those that read it.
    queries: Vec<Query>,
    /// Those that an alert begins to read. They go on with what they kept, which is the same but for causes.
    feeding: Vec<Query>,
}

/// The query set has changed since it was asked for its planning: what was planned may no longer be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queries have changed meanwhile")]
pub struct Stale;

impl Planning {
    /// Plans a statement that may take the place of the query of its name, without running it.
    ///
    /// # Errors
    /// The mistake with its place.
    pub fn check(&self, statement: Statement) -> Result<Query, QueryError> {
        let feeds_alert = self.feeds_alert(&statement.name);
        let mut catalog = self.catalog.clone();
        if self.running(&statement.name).is_some() {
            catalog.remove(&statement.name);
        }
        planned(&catalog, self.memory, Arc::new(statement), feeds_alert)
    }

    /// Plans the creation of a query, or the change of the one of its name: also those are planned again that read it,
    /// and those that it reads when it is an alert.
    ///
    /// # Errors
    /// The mistake with its place, also when a query that reads it could not run any more.
    pub fn put(&self, statement: Statement) -> Result<Planned, QueryError> {
        let (name, at_name) = (statement.name.clone(), statement.name_at);
        let new = self.check(statement)?;
        let downstream = self.downstream(&name);
        if let Some(circle) = new
            .sources()
            .find(|source| downstream.contains(*source) || *source == name)
        {
            return Err(at_name.mistake(
                format!("'{name}' would read '{circle}', which reads '{name}'"),
                "a query can't wait for itself",
            ));
        }
        let mut catalog = self.catalog.clone();
        catalog.insert(&name, entry_of(&new));
        let mut queries = vec![new];
        // Those that read it are planned again, each behind those it reads.
        for running in self
            .running
            .iter()
            .filter(|running| downstream.contains(running.name()))
        {
            let reader = running.name();
            catalog.remove(reader);
            let statement = Arc::clone(&running.statement);
            let again = planned(&catalog, self.memory, statement, running.keeps_causes).map_err(|error| {
                at_name.mistake(
                    format!("'{reader}' reads '{name}' and could not run any more: {}", error.wrong),
                    "keep the columns that it reads, or change it first",
                )
            })?;
            catalog.insert(reader, entry_of(&again));
            queries.push(again);
        }
        Ok(Planned {
            version: self.version,
            feeding: self.feeding(&catalog, &queries[0])?,
            queries,
        })
    }

    /// Plans the creation of a query of a new name.
    fn create(&self, statement: Statement) -> Result<Planned, QueryError> {
        let is_alert = matches!(statement.kind, StatementKind::Alert(_));
        let new = planned(&self.catalog, self.memory, Arc::new(statement), is_alert)?;
        Ok(Planned {
            version: self.version,
            feeding: self.feeding(&self.catalog, &new)?,
            queries: vec![new],
        })
    }

    /// Those that do not keep causes yet and that this query reads, be it through others, where it keeps them.
    fn feeding(&self, catalog: &Catalog, new: &Query) -> Result<Vec<Query>, QueryError> {
        let mut feeding: Vec<Query> = Vec::new();
        if !new.keeps_causes() {
            return Ok(feeding);
        }
        let mut waiting: Vec<String> = new.sources().map(str::to_owned).collect();
        while let Some(name) = waiting.pop() {
            let is_planned = feeding.iter().any(|query| query.name().as_ref() == name);
            let Some(running) = self
                .running(&name)
                .filter(|running| !running.keeps_causes && !is_planned)
            else {
                continue;
            };
            feeding.push(created(catalog, self.memory, Arc::clone(&running.statement), true)?);
            waiting.extend(running.sources.iter().cloned());
        }
        Ok(feeding)
    }

    fn running(&self, name: &str) -> Option<&Running> {
        self.running.iter().find(|running| running.name() == name)
    }

    /// Whether an alert reads a query, be it through others, or somebody else wants to see its every change.
    fn feeds_alert(&self, name: &str) -> bool {
        let mut readers = self.running.iter().filter(|running| running.sources.contains(name));
        super::is_watched(&self.watched, name) || readers.any(|reader| reader.keeps_causes)
    }

    /// The names of all queries that read `name`, be it through others.
    fn downstream(&self, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut waiting = vec![name.to_owned()];
        while let Some(next) = waiting.pop() {
            for reader in self.running.iter().filter(|running| running.sources.contains(&next)) {
                if found.insert(reader.name().to_owned()) {
                    waiting.push(reader.name().to_owned());
                }
            }
        }
        found
    }
}

impl QuerySet {
    /// What statements are planned by, as it is now; it costs little to ask for.
    pub fn planning(&self) -> Planning {
        let running = self.queries.iter().map(|query| Running {
            statement: query.shared_statement(),
            sources: query.sources().map(str::to_owned).collect(),
            keeps_causes: query.keeps_causes(),
        });
        Planning {
            catalog: self.catalog.clone(),
            memory: self.memory,
            watched: self.watched.clone(),
            running: running.collect(),
            version: self.version,
        }
    }

    /// Makes a planned change; queries that read a changed one go on. The answer says what became of what each query
    /// kept that was there before.
    ///
    /// # Errors
    /// [`Stale`] when it was planned for another state of the query set; nothing has changed then.
    pub fn apply(&mut self, planned: Planned) -> Result<Vec<(String, Restored)>, Stale> {
        if planned.version != self.version {
            return Err(Stale);
        }
        let mut outcomes = Vec::new();
        let mut changed = BTreeSet::new();
        let is_feeding = planned.feeding.iter().map(|_| true);
        let is_feeding: Vec<bool> = planned.queries.iter().map(|_| false).chain(is_feeding).collect();
        for (mut query, is_feeding) in planned.queries.into_iter().chain(planned.feeding).zip(is_feeding) {
            self.catalog.insert(query.name(), entry_of(&query));
            let Some(index) = self.position(query.name()) else {
                self.queries.push(query);
                continue;
            };
            let outcome = match self.queries[index].snapshot() {
                Ok(snapshot) if is_feeding || snapshot.fingerprint == query.fingerprint() => {
                    self.restored(&mut query, &snapshot)
                }
                Ok(_) => Restored::Changed,
                Err(error) => Restored::Unreadable(error.strip_backtrace()),
            };
            if !is_feeding || outcome != Restored::Kept {
                outcomes.push((query.name().to_string(), outcome));
            }
            if changed.is_empty() {
                // What the changed one reads is as it was, so that its window may be, too.
                query.share_in_place_of(&self.queries[index]);
            }
            changed.insert(Arc::clone(query.name()));
            query.count_on_from(&mut self.queries[index]);
            self.queries[index] = query;
        }
        self.put_in_order();
        self.rewire();
        self.share_equal_windows(|query| changed.contains(query.name()));
        self.share_new_windows();
        Ok(outcomes)
    }

    /// Creates a query, or changes the one of its name, as [`Planning::put`] and [`QuerySet::apply`] do.
    ///
    /// # Errors
    /// The mistake with its place, also when a query that reads it could not run any more; nothing has changed then.
    pub fn put(&mut self, statement: Statement) -> Result<Vec<(String, Restored)>, QueryError> {
        let at = statement.at;
        let planned = self.planning().put(statement)?;
        self.apply(planned).map_err(|stale| at.wrong(stale.to_string()))
    }

    /// Creates one query and runs it from now on.
    ///
    /// # Errors
    /// The mistake with its place; nothing has changed then.
    pub fn create(&mut self, statement: Statement) -> Result<(), QueryError> {
        let at = statement.at;
        let planned = self.planning().create(statement)?;
        self.apply(planned).map_err(|stale| at.wrong(stale.to_string()))?;
        Ok(())
    }

    /// Plans and checks a statement of a new name without running it.
    ///
    /// # Errors
    /// The mistake with its place.
    pub fn check(&self, statement: Statement) -> Result<Query, QueryError> {
        planned(&self.catalog, self.memory, Arc::new(statement), false)
    }
}

/// What others read of a query.
pub(super) fn entry_of(query: &Query) -> Entry {
    Entry {
        relation: query.relation(),
        schema: Arc::clone(query.schema()),
    }
}

/// Plans a statement whose name nothing else has.
pub(super) fn planned(
    catalog: &Catalog,
    memory: usize,
    statement: Arc<Statement>,
    feeds_alert: bool,
) -> Result<Query, QueryError> {
    if let Some(entry) = catalog.get(&statement.name) {
        let what = match entry.relation {
            Relation::Stream { .. } => "a stream",
            Relation::Output { .. } => "a query",
            Relation::Reference => "a reference table",
        };
        return Err(statement.name_at.mistake(
            format!("there is {what} '{}' already", statement.name),
            "take another name",
        ));
    }
    created(catalog, memory, statement, feeds_alert)
}

/// Plans and compiles on a stack of its own: both go down an expression to its depth, in steps that are large.
pub(super) fn created(
    catalog: &Catalog,
    memory: usize,
    statement: Arc<Statement>,
    feeds_alert: bool,
) -> Result<Query, QueryError> {
    let (at, written) = (statement.at, Arc::clone(&statement));
    let create = || Query::create(statement, &Planner::new(catalog), feeds_alert, memory);
    std::thread::scope(|scope| {
        let planning = std::thread::Builder::new()
            .name("planning".to_owned())
            .stack_size(PLANNING_STACK_BYTES)
            .spawn_scoped(scope, create);
        match planning.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(planned)) => planned.map_err(|error| written.as_written(error)),
            Ok(Err(_)) => Err(at.wrong("the statement can't be planned: a fault in the engine")),
            Err(error) => Err(at.wrong(format!("the statement can't be planned: {error}"))),
        }
    })
}
