//! The query set holds all running queries and steps them: rows of streams go in, rows of queries come out.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use rustc_hash::FxHashMap;

use crate::catalog::{Catalog, Entry, References, Relation};
use crate::civil_time::OpeningHours;
use crate::error::{QueryError, nearest};
use crate::flow::Flow;
use crate::operator::{Context, LateRow};
use crate::planner::Planner;
use crate::query::{DEFAULT_MEMORY, Output, Query};
use crate::row::{Row, Rows};
use crate::snapshot::QuerySnapshot;
use crate::statement::{Statement, StatementKind};
use crate::streams::{LATE, stream_schema};

/// What became of a query's snapshot at a restart.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum Restored {
    /// It goes on where it was.
    Kept,
    /// The query has changed since; it begins anew.
    Changed,
    /// The query is no longer there.
    Gone,
    /// The snapshot could not be read; the query begins anew.
    Unreadable(String),
}

/// Room for planning the deepest statement that is taken; the system gives only as much as is used.
const PLANNING_STACK_BYTES: usize = 64 << 20;

/// All running queries, in an order in which each stands behind those it reads.
pub struct QuerySet {
    catalog: Catalog,
    references: References,
    queries: Vec<Query>,
    /// For each query, how far its watermark stays behind.
    lags: Vec<i64>,
    /// Source name to the queries that read it.
    routes: FxHashMap<Arc<str>, Arc<[usize]>>,
    watermark: Option<i64>,
    /// Bytes a query may keep that does not say so itself.
    memory: usize,
}

impl Default for QuerySet {
    fn default() -> Self {
        Self {
            catalog: Catalog::new(),
            references: References::default(),
            queries: Vec::new(),
            lags: Vec::new(),
            routes: FxHashMap::default(),
            watermark: None,
            memory: DEFAULT_MEMORY,
        }
    }
}

impl QuerySet {
    /// No query yet; the built-in streams are known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says how many bytes a query may keep that does not say so itself, before queries are created.
    pub fn set_memory(&mut self, bytes: usize) {
        self.memory = bytes;
    }

    /// The queries that read a stream or a query.
    pub fn readers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Query> {
        self.queries
            .iter()
            .filter(move |query| query.sources().any(|source| source == name))
    }

    /// The watermark a query has reached, microseconds: behind that of all where it reads windows of another query.
    pub fn watermark_of(&self, name: &str) -> Option<i64> {
        let index = self.position(name)?;
        Some(self.watermark?.saturating_sub(self.lags[index]))
    }

    /// Adds or replaces a reference table; its columns must stay the same while queries read it.
    pub fn set_reference(&mut self, name: &str, rows: RecordBatch) {
        self.catalog.insert(
            name,
            Entry {
                relation: Relation::Reference,
                schema: rows.schema(),
            },
        );
        self.references.set(name, rows);
    }

    /// Adds a stream of events that is not built in, before queries are created that read it. A time column is of the
    /// type that [`crate::streams::time_type`] gives.
    pub fn set_stream(&mut self, name: &str, schema: SchemaRef) {
        let relation = Relation::Stream;
        self.catalog.insert(name, Entry { relation, schema });
    }

    /// Says when sites are open, before queries are created whose windows follow it.
    pub fn set_opening_hours(&mut self, opening_hours: Arc<dyn OpeningHours>) {
        self.catalog.set_opening_hours(opening_hours);
    }

    /// The reference tables as they stand.
    pub fn references(&self) -> &References {
        &self.references
    }

    /// What statements may read.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The running queries.
    pub fn queries(&self) -> &[Query] {
        &self.queries
    }

    /// A running query by name.
    pub fn get(&self, name: &str) -> Option<&Query> {
        self.queries.iter().find(|query| query.name().as_ref() == name)
    }

    /// The watermark the queries have reached, microseconds.
    pub fn watermark(&self) -> Option<i64> {
        self.watermark
    }

    /// Plans and checks a statement without running it.
    ///
    /// # Errors
    /// The mistake with its place.
    pub fn check(&self, statement: Statement) -> Result<Query, QueryError> {
        self.plan(statement, false)
    }

    /// As [`QuerySet::check`] for a statement that may take the place of the query of its name.
    ///
    /// # Errors
    /// The mistake with its place.
    pub fn check_replacing(&mut self, statement: Statement) -> Result<Query, QueryError> {
        let feeds_alert = self.feeds_alert(&statement.name);
        let is_query = self.get(&statement.name).is_some();
        let before = self.catalog.get(&statement.name).filter(|_| is_query).cloned();
        let name = statement.name.clone();
        if before.is_some() {
            self.catalog.remove(&name);
        }
        let planned = self.plan(statement, feeds_alert);
        if let Some(before) = before {
            self.catalog.insert(&name, before);
        }
        planned
    }

    /// Whether an alert reads a query, be it through others.
    fn feeds_alert(&self, name: &str) -> bool {
        self.readers(name).any(|reader| reader.keeps_causes())
    }

    /// Creates a query, or changes the one of its name; queries that read it go on. The answer says what became of what
    /// each of them kept.
    ///
    /// # Errors
    /// The mistake with its place, also when a query that reads it could not run any more; nothing has changed then.
    pub fn put(&mut self, statement: Statement) -> Result<Vec<(String, Restored)>, QueryError> {
        let name = statement.name.clone();
        let Some(at) = self.position(&name) else {
            self.create(statement)?;
            return Ok(Vec::new());
        };
        let at_name = statement.name_at;
        let new = self.check_replacing(statement)?;
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
        let before = self.catalog.clone();
        self.catalog.insert(&name, entry_of(&new));
        let mut planned = vec![(at, new)];
        // Those that read it are planned again, each behind those it reads.
        for index in 0..self.queries.len() {
            if !downstream.contains(self.queries[index].name().as_ref()) {
                continue;
            }
            let (statement, keeps_causes) = (
                self.queries[index].statement().clone(),
                self.queries[index].keeps_causes(),
            );
            let reader = statement.name.clone();
            self.catalog.remove(&reader);
            match self.plan(statement, keeps_causes) {
                Ok(again) => {
                    self.catalog.insert(&reader, entry_of(&again));
                    planned.push((index, again));
                }
                Err(error) => {
                    self.catalog = before;
                    return Err(at_name.mistake(
                        format!("'{reader}' reads '{name}' and could not run any more: {}", error.wrong),
                        "keep the columns that it reads, or change it first",
                    ));
                }
            }
        }
        let mut outcomes = Vec::new();
        for (index, mut again) in planned {
            let outcome = match self.queries[index].snapshot() {
                Ok(snapshot) if snapshot.fingerprint == again.fingerprint() => match again.restore(&snapshot) {
                    Ok(()) => Restored::Kept,
                    Err(error) => Restored::Unreadable(error.strip_backtrace()),
                },
                Ok(_) => Restored::Changed,
                Err(error) => Restored::Unreadable(error.strip_backtrace()),
            };
            outcomes.push((again.name().to_string(), outcome));
            again.count_on_from(&mut self.queries[index]);
            self.queries[index] = again;
        }
        let sources: Vec<String> = self.queries[at].sources().map(str::to_owned).collect();
        let keeps_causes = self.queries[at].keeps_causes();
        self.put_in_order();
        self.rewire();
        if keeps_causes {
            self.make_feed_alert(&sources)?;
        }
        Ok(outcomes)
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.queries.iter().position(|query| query.name().as_ref() == name)
    }

    /// The names of all queries that read `name`, be it through others.
    fn downstream(&self, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut waiting = vec![name.to_owned()];
        while let Some(next) = waiting.pop() {
            for reader in self.readers(&next) {
                if found.insert(reader.name().to_string()) {
                    waiting.push(reader.name().to_string());
                }
            }
        }
        found
    }

    /// Puts each query behind those it reads, else leaves them where they are: a changed one may read others than before.
    fn put_in_order(&mut self) {
        let mut waiting = std::mem::take(&mut self.queries);
        while !waiting.is_empty() {
            let is_ready = |query: &Query| {
                !query
                    .sources()
                    .any(|source| waiting.iter().any(|other| other.name().as_ref() == source))
            };
            let next = waiting.iter().position(is_ready).unwrap_or(0);
            self.queries.push(waiting.remove(next));
        }
    }

    /// Creates many queries, in whatever order they were written; each may read the others.
    ///
    /// # Errors
    /// All mistakes, each with the index of its statement; the statements without one are created.
    pub fn create_all(&mut self, statements: Vec<Statement>) -> Vec<(usize, QueryError)> {
        let names: Vec<String> = statements.iter().map(|statement| statement.name.clone()).collect();
        let reads: Vec<BTreeSet<usize>> = statements
            .iter()
            .map(|statement| mentioned(statement, &names))
            .collect();
        let mut feeds_alert: Vec<bool> = statements
            .iter()
            .map(|statement| matches!(statement.kind, StatementKind::Alert(_)))
            .collect();
        // What an alert reads, and what that reads, until nothing is new.
        while let Some(next) = (0..reads.len())
            .filter(|index| feeds_alert[*index])
            .flat_map(|index| &reads[index])
            .find(|read| !feeds_alert[**read])
        {
            feeds_alert[*next] = true;
        }
        let mut mistakes = Vec::new();
        let mut waiting: Vec<(usize, Statement)> = statements.into_iter().enumerate().collect();
        let mut done = BTreeSet::new();
        while !waiting.is_empty() {
            let ready = waiting
                .iter()
                .position(|(index, _)| reads[*index].iter().all(|read| done.contains(read) || read == index));
            // A circle has no beginning: take its first, whose error will name what is not there yet.
            let (index, statement) = waiting.remove(ready.unwrap_or(0));
            if let Err(error) = self.create_feeding(statement, feeds_alert[index]) {
                mistakes.push((index, error));
            }
            done.insert(index);
        }
        mistakes
    }

    /// Creates one query and runs it from now on.
    ///
    /// # Errors
    /// The mistake with its place; nothing has changed then.
    pub fn create(&mut self, statement: Statement) -> Result<(), QueryError> {
        let is_alert = matches!(statement.kind, StatementKind::Alert(_));
        self.create_feeding(statement, is_alert)?;
        if is_alert && let Some(last) = self.queries.last() {
            let sources: Vec<String> = last.sources().map(str::to_owned).collect();
            self.make_feed_alert(&sources)?;
        }
        Ok(())
    }

    /// Stops and forgets a query.
    ///
    /// # Errors
    /// In words: there is none of that name, or others read it.
    pub fn remove(&mut self, name: &str) -> Result<(), String> {
        let Some(index) = self.position(name) else {
            let near = nearest(name, self.queries.iter().map(|query| query.name().as_ref()));
            return Err(match near {
                Some(near) => format!("there is no query '{name}'; did you mean '{near}'?"),
                None => format!("there is no query '{name}'"),
            });
        };
        let readers: Vec<&str> = self.readers(name).map(|query| query.name().as_ref()).collect();
        if !readers.is_empty() {
            return Err(format!(
                "'{name}' is read by {}; remove those first",
                readers.join(", ")
            ));
        }
        self.queries.remove(index);
        self.catalog.remove(name);
        self.rewire();
        Ok(())
    }

    fn plan(&self, statement: Statement, feeds_alert: bool) -> Result<Query, QueryError> {
        if let Some(entry) = self.catalog.get(&statement.name) {
            let what = match entry.relation {
                Relation::Stream => "a stream",
                Relation::Output { .. } => "a query",
                Relation::Reference => "a reference table",
            };
            return Err(statement.name_at.mistake(
                format!("there is {what} '{}' already", statement.name),
                "take another name",
            ));
        }
        self.created(statement, feeds_alert)
    }

    /// Plans and compiles on a stack of its own: both go down an expression to its depth, in steps that are large.
    fn created(&self, statement: Statement, feeds_alert: bool) -> Result<Query, QueryError> {
        let at = statement.at;
        let (catalog, memory) = (&self.catalog, self.memory);
        let create = || {
            let planner = Planner::new(catalog)?;
            Query::create(statement, catalog, &planner, feeds_alert, memory)
        };
        std::thread::scope(|scope| {
            let planning = std::thread::Builder::new()
                .name("planning".to_owned())
                .stack_size(PLANNING_STACK_BYTES)
                .spawn_scoped(scope, create);
            match planning.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(planned)) => planned,
                Ok(Err(_)) => Err(at.wrong("the statement can't be planned: a fault in the engine")),
                Err(error) => Err(at.wrong(format!("the statement can't be planned: {error}"))),
            }
        })
    }

    fn create_feeding(&mut self, statement: Statement, feeds_alert: bool) -> Result<(), QueryError> {
        let query = self.plan(statement, feeds_alert)?;
        self.catalog.insert(query.name(), entry_of(&query));
        self.queries.push(query);
        self.rewire();
        Ok(())
    }

    /// Queries that a new alert reads keep causes from now on; their state goes on.
    fn make_feed_alert(&mut self, sources: &[String]) -> Result<(), QueryError> {
        let mut waiting: Vec<String> = sources.to_vec();
        while let Some(name) = waiting.pop() {
            let Some(index) = self.position(&name) else {
                continue;
            };
            if self.queries[index].keeps_causes() {
                continue;
            }
            let statement = self.queries[index].statement().clone();
            let failed = |error: datafusion::common::DataFusionError| statement.at.wrong(error.strip_backtrace());
            let snapshot = self.queries[index].snapshot().map_err(failed)?;
            let mut again = self.created(statement.clone(), true)?;
            again.restore(&snapshot).map_err(failed)?;
            waiting.extend(again.sources().map(str::to_owned));
            again.count_on_from(&mut self.queries[index]);
            self.queries[index] = again;
        }
        self.rewire();
        Ok(())
    }

    fn rewire(&mut self) {
        let mut routes: FxHashMap<Arc<str>, Vec<usize>> = FxHashMap::default();
        self.lags.clear();
        for (index, query) in self.queries.iter().enumerate() {
            for source in query.sources().collect::<BTreeSet<_>>() {
                routes.entry(source.into()).or_default().push(index);
            }
            self.lags.push(query.source_lag_us(&self.catalog));
        }
        self.routes = routes
            .into_iter()
            .map(|(source, readers)| (source, readers.into()))
            .collect();
    }

    /// Whether any query reads `stream`; what nobody reads need not be made.
    pub fn reads(&self, stream: &str) -> bool {
        self.routes.contains_key(stream)
    }

    /// Feeds rows of a stream; what the queries say is appended to `out`, in the order in which it was said.
    pub fn push(&mut self, stream: &str, rows: &Rows, out: &mut Vec<Output>) {
        let mut late = Vec::new();
        self.deliver(stream, rows, &mut late, out);
        self.deliver_late(late, out);
    }

    fn deliver(&mut self, source: &str, rows: &Rows, late: &mut Vec<(Arc<str>, LateRow)>, out: &mut Vec<Output>) {
        let Some(readers) = self.routes.get(source).map(Arc::clone) else {
            return;
        };
        // The rows one by one, made when the first query wants them so.
        let mut singly: Option<Vec<Rows>> = None;
        for index in readers.iter().copied() {
            let query = &mut self.queries[index];
            let taken = match rows {
                Rows::Many(flow) if flow.num_rows() == 1 || query.is_one_by_one() => singly
                    .get_or_insert_with(|| (0..flow.num_rows()).map(|row| Rows::One(Row::of(flow, row))).collect()),
                _ => std::slice::from_ref(rows),
            };
            let mut rows = Vec::new();
            let mut context = Context {
                references: &self.references,
                late: &mut rows,
            };
            let said = query.push(source, taken, self.lags[index], &mut context);
            if said.is_empty() && rows.is_empty() {
                continue;
            }
            let name = Arc::clone(query.name());
            late.extend(rows.into_iter().map(|row| (Arc::clone(&name), row)));
            self.pass_on(&name, said, late, out);
        }
    }

    fn pass_on(
        &mut self,
        name: &Arc<str>,
        said: Vec<Output>,
        late: &mut Vec<(Arc<str>, LateRow)>,
        out: &mut Vec<Output>,
    ) {
        let is_read = self.routes.contains_key(name);
        for output in said {
            let rows = is_read.then(|| output.rows.clone());
            out.push(output);
            if let Some(rows) = rows {
                self.deliver(name, &rows, late, out);
            }
        }
    }

    /// Moves time on to `watermark`: windows close, keys are forgotten. A watermark never goes back; an earlier one
    /// changes nothing.
    pub fn advance(&mut self, watermark: i64, out: &mut Vec<Output>) {
        if self.watermark.is_some_and(|current| watermark <= current) || watermark == i64::MIN {
            return;
        }
        self.watermark = Some(watermark);
        let mut late = Vec::new();
        for index in 0..self.queries.len() {
            if self.queries[index].due() > watermark.saturating_sub(self.lags[index]) {
                continue;
            }
            let mut rows = Vec::new();
            let mut context = Context {
                references: &self.references,
                late: &mut rows,
            };
            let said = self.queries[index].advance(watermark, self.lags[index], &mut context);
            if said.is_empty() && rows.is_empty() {
                continue;
            }
            let name = Arc::clone(self.queries[index].name());
            late.extend(rows.into_iter().map(|row| (Arc::clone(&name), row)));
            self.pass_on(&name, said, &mut late, out);
        }
        self.deliver_late(late, out);
    }

    /// Rows that came too late are a stream of their own. What comes too late there is not told again.
    fn deliver_late(&mut self, late: Vec<(Arc<str>, LateRow)>, out: &mut Vec<Output>) {
        if late.is_empty() || !self.reads(LATE) {
            return;
        }
        let Some(schema) = stream_schema(LATE) else { return };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(
                late.iter().map(|(query, _)| query.as_ref()),
            )),
            Arc::new(
                late.iter()
                    .map(|(_, row)| row.event_id.as_deref())
                    .collect::<StringArray>(),
            ),
            Arc::new(TimestampMicrosecondArray::from_iter_values(
                late.iter().map(|(_, row)| row.event_time),
            )),
            Arc::new(TimestampMicrosecondArray::from_iter_values(
                late.iter().map(|(_, row)| row.watermark),
            )),
            Arc::new(StringArray::from_iter_values(late.iter().map(|(_, row)| row.reason))),
        ];
        if let Ok(batch) = RecordBatch::try_new(schema, columns) {
            let mut flow = Flow::at_watermark(batch, self.watermark.unwrap_or(i64::MIN));
            // Each by the watermark it met: how many came late at once must make no difference.
            flow.watermarks = Arc::new(late.iter().map(|(_, row)| row.watermark).collect());
            flow.causes = Arc::new(late.iter().map(|(_, row)| row.event_id.as_deref()).collect());
            let mut dropped = Vec::new();
            self.deliver(LATE, &Rows::Many(flow), &mut dropped, out);
        }
    }

    /// The rows a query stands for now: its keys and open windows, as it would say them.
    ///
    /// # Errors
    /// When evaluating fails. `None` when there is no such query or it keeps no rows.
    pub fn peek(&mut self, name: &str) -> Result<Option<(SchemaRef, RecordBatch)>> {
        let Some(query) = self.queries.iter_mut().find(|query| query.name().as_ref() == name) else {
            return Ok(None);
        };
        let mut late = Vec::new();
        let mut context = Context {
            references: &self.references,
            late: &mut late,
        };
        let schema = Arc::clone(query.schema());
        let Some(said) = query.peek(&mut context)? else {
            return Ok(None);
        };
        let flows: Vec<Flow> = said.into_iter().map(Rows::into_flow).collect();
        let batch = concat_batches(&schema, flows.iter().map(|flow| &flow.batch))?;
        Ok(Some((schema, batch)))
    }

    /// What all queries must remember over a restart.
    ///
    /// # Errors
    /// When an operator's state can't be written as Arrow data.
    pub fn snapshot(&mut self) -> Result<Vec<QuerySnapshot>> {
        self.queries.iter_mut().map(Query::snapshot).collect()
    }

    /// Takes back snapshots; a query that has changed since begins anew, and the answer says so for each.
    pub fn restore(&mut self, watermark: Option<i64>, snapshots: &[QuerySnapshot]) -> Vec<(String, Restored)> {
        self.watermark = watermark;
        snapshots
            .iter()
            .map(|snapshot| {
                let query = self
                    .queries
                    .iter_mut()
                    .find(|query| query.name().as_ref() == snapshot.name);
                let outcome = match query {
                    None => Restored::Gone,
                    Some(query) if query.fingerprint() != snapshot.fingerprint => Restored::Changed,
                    Some(query) => match query.restore(snapshot) {
                        Ok(()) => Restored::Kept,
                        Err(error) => Restored::Unreadable(error.strip_backtrace()),
                    },
                };
                (snapshot.name.clone(), outcome)
            })
            .collect()
    }
}

fn entry_of(query: &Query) -> Entry {
    Entry {
        relation: query.relation(),
        schema: Arc::clone(query.schema()),
    }
}

/// Which of `names` a statement's SELECT mentions as a word; more than it reads does no harm, less would.
fn mentioned(statement: &Statement, names: &[String]) -> BTreeSet<usize> {
    let text = statement.select.to_lowercase();
    let words: BTreeSet<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    names
        .iter()
        .enumerate()
        .filter(|(_, name)| **name != statement.name && words.contains(name.as_str()))
        .map(|(index, _)| index)
        .collect()
}
