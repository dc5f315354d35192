//! The query set holds all running queries and steps them: rows of streams go in, rows of queries come out.

mod consenting;
mod following;
pub mod forgetting;
mod kept;
pub mod planning;
mod sharing;
#[cfg(test)]
pub(crate) mod tests;
mod time;
mod waiting;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use rustc_hash::FxHashMap;

use self::planning::{entry_of, planned};
use self::sharing::{SharedWindows, Turn};
use self::time::Time;
use crate::capture::Renewal;
use crate::catalog::{Catalog, Entry, Relation};
use crate::civil_time::OpeningHours;
use crate::error::{QueryError, nearest};
use crate::flow::Flow;
use crate::operator::{Context, LateRow};
use crate::purpose::Consent;
use crate::query::{DEFAULT_MEMORY, Output, Place, Query};
use crate::references::References;
use crate::row::{Row, Rows};
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

/// All running queries, in an order in which each stands behind those it reads.
pub struct QuerySet {
    catalog: Catalog,
    references: References,
    queries: Vec<Query>,
    /// For each query, how far its watermark stays behind.
    lags: Vec<i64>,
    /// Source name to the queries that read it.
    routes: FxHashMap<Arc<str>, Arc<[usize]>>,
    /// The windows that several of them share.
    windows: SharedWindows,
    time: Time,
    /// Bytes a query may keep that does not say so itself.
    memory: usize,
    /// Queries whose every change somebody wants to see, as alerts do.
    watched: BTreeSet<String>,
    /// Who agrees to what queries are for; `None` where everybody does.
    consent: Option<Arc<dyn Consent>>,
    /// The query at which taking ahead of the next capture goes on.
    gathering: usize,
    /// Which operators begin anew in the next capture.
    renewal: Renewal,
    /// Grows with each change of what statements may read or what runs.
    version: u64,
}

impl Default for QuerySet {
    fn default() -> Self {
        Self {
            catalog: Catalog::new(),
            references: References::default(),
            queries: Vec::new(),
            lags: Vec::new(),
            routes: FxHashMap::default(),
            windows: SharedWindows::default(),
            time: Time::default(),
            memory: DEFAULT_MEMORY,
            watched: BTreeSet::new(),
            consent: None,
            gathering: 0,
            renewal: Renewal::default(),
            version: 0,
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
        self.version += 1;
    }

    /// Says, before queries are created, whose every change is wanted, also where several come in one batch. Otherwise
    /// only what alerts read is said so, and of the rest the last change of each batch. A name that ends in `*` stands for
    /// all that begin so.
    pub fn watch(&mut self, names: &[&str]) {
        self.watched = names.iter().map(|name| (*name).to_owned()).collect();
        self.version += 1;
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
        let reached = match self.time.told_until {
            Some(told_us) if self.time.follows[index] => self.reached()?.min(told_us),
            _ => self.reached()?,
        };
        Some(reached.saturating_sub(self.lags[index]))
    }

    /// How far a query's watermark is behind that of all, microseconds; the same whenever it is asked.
    pub fn lag_of(&self, name: &str) -> Option<i64> {
        self.position(name).map(|index| self.lags[index])
    }

    /// Adds or replaces a reference table; its columns must stay the same while queries read it. Its rows hold for all
    /// times, also for queries that look it up as it was.
    pub fn set_reference(&mut self, name: &str, rows: RecordBatch) {
        self.know_reference(name, &rows);
        self.references.set(name, rows);
    }

    /// A reference table holds these rows from an event time on, microseconds; before, what it held until now. Queries
    /// that look it up as it stands see them at once.
    pub fn set_reference_from(&mut self, name: &str, rows: RecordBatch, from_us: i64) {
        self.know_reference(name, &rows);
        self.references.set_from(name, rows, from_us);
    }

    fn know_reference(&mut self, name: &str, rows: &RecordBatch) {
        let is_known = self
            .catalog
            .get(name)
            .is_some_and(|entry| entry.schema == rows.schema());
        if is_known {
            return;
        }
        self.version += 1;
        self.catalog.insert(
            name,
            Entry {
                relation: Relation::Reference,
                schema: rows.schema(),
            },
        );
    }

    /// Adds a stream of events that is not built in, before queries are created that read it. A time column is of the
    /// type that [`crate::streams::time_type`] gives.
    pub fn set_stream(&mut self, name: &str, schema: SchemaRef) {
        let relation = Relation::Stream { lag_us: 0 };
        self.version += 1;
        self.catalog.insert(name, Entry { relation, schema });
    }

    /// Says, before queries are created that read it, how far a built-in stream's rows may lie behind the watermark at which
    /// they come, microseconds. What reads it stays as far behind.
    pub fn set_lag(&mut self, name: &str, lag_us: i64) {
        let Some(schema) = stream_schema(name) else { return };
        let relation = Relation::Stream { lag_us };
        self.version += 1;
        self.catalog.insert(name, Entry { relation, schema });
    }

    /// Says when sites are open, before queries are created whose windows follow it.
    pub fn set_opening_hours(&mut self, opening_hours: Arc<dyn OpeningHours>) {
        self.catalog.set_opening_hours(opening_hours);
        self.version += 1;
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

    /// The watermark the queries have been moved on to, microseconds; what they say of it may not all be said yet.
    pub fn watermark(&self) -> Option<i64> {
        self.time.moved_to
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.queries.iter().position(|query| query.name().as_ref() == name)
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
            .map(|statement| {
                matches!(statement.kind, StatementKind::Alert(_)) || is_watched(&self.watched, &statement.name)
            })
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
        // Once for all of them: what reads what is looked up among all queries.
        self.rewire();
        self.share_new_windows();
        mistakes
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

    fn create_feeding(&mut self, statement: Statement, feeds_alert: bool) -> Result<(), QueryError> {
        let query = planned(&self.catalog, self.memory, Arc::new(statement), feeds_alert)?;
        self.catalog.insert(query.name(), entry_of(&query));
        self.queries.push(query);
        Ok(())
    }

    fn rewire(&mut self) {
        self.version += 1;
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
        self.learn_sources();
        self.windows = SharedWindows::of(&self.queries);
    }

    /// Whether any query reads `stream`; what nobody reads need not be made.
    pub fn reads(&self, stream: &str) -> bool {
        self.routes.contains_key(stream)
    }

    /// Feeds rows of a stream; what the queries say is appended to `out`, in the order in which it was said. Where time is
    /// being moved on, some of it is said only when that is done.
    pub fn push(&mut self, stream: &str, rows: &Rows, out: &mut Vec<Output>) {
        let mut late = Vec::new();
        let mut place = self.begin_push(stream, rows.len(), &mut late, out);
        self.deliver(stream, rows, &mut place, &mut late, out);
        self.deliver_late(late, out);
    }

    /// Hands rows to those that read their source. `place` is where they stand among what events bring while time is being
    /// moved on; what time brings has none, and waits nowhere.
    fn deliver(
        &mut self,
        source: &str,
        rows: &Rows,
        place: &mut Option<Place>,
        late: &mut Vec<(Arc<str>, LateRow)>,
        out: &mut Vec<Output>,
    ) {
        let Some(readers) = self.routes.get(source).map(Arc::clone) else {
            return;
        };
        let step = self.windows.begin();
        let allowed = self.allowed(&readers, rows);
        let mut of_purpose: Vec<Handed<'_>> = (allowed.iter()).map(|(_, rows)| Handed::new(source, rows)).collect();
        let mut handed = Handed::new(source, rows);
        for index in readers.iter().copied() {
            let purpose = self.queries[index].purpose();
            let handed = match allowed.iter().position(|(of, _)| *of == purpose) {
                Some(at) => &mut of_purpose[at],
                None => &mut handed,
            };
            if handed.rows.is_empty() {
                continue;
            }
            if let Some(place) = place {
                place.through.push(index as u32);
            }
            match place {
                Some(place) if self.has_to_wait(index) => self.hold(index, handed, place.clone(), late, out),
                _ => self.hand_over(step, index, handed, place, late, out),
            }
            if let Some(place) = place {
                place.through.pop();
            }
        }
        self.windows.end(step);
    }

    /// Hands rows to one of those that read their source, and what it says of them to those that read it.
    fn hand_over(
        &mut self,
        step: u64,
        index: usize,
        handed: &mut Handed<'_>,
        place: &mut Option<Place>,
        late: &mut Vec<(Arc<str>, LateRow)>,
        out: &mut Vec<Output>,
    ) {
        let query = &mut self.queries[index];
        let source = handed.source;
        let taken = handed.as_wanted(query.is_one_by_one());
        let mut rows = Vec::new();
        let mut context = Context {
            references: &self.references,
            late: &mut rows,
        };
        let lag_us = self.lags[index];
        let said = match self
            .windows
            .push(step, index, query, source, taken, lag_us, &self.references)
        {
            Turn::Alone => query.push(source, taken, lag_us, &mut context),
            Turn::Told(passed) => query.push_shared(passed, lag_us, &mut context),
            Turn::Silent(passed) => {
                query.push_silently(passed);
                return;
            }
        };
        if said.is_empty() && rows.is_empty() {
            return;
        }
        let name = Arc::clone(query.name());
        late.extend(rows.into_iter().map(|row| (Arc::clone(&name), row)));
        self.pass_on(&name, said, place, late, out);
    }

    fn pass_on(
        &mut self,
        name: &Arc<str>,
        said: Vec<Output>,
        place: &mut Option<Place>,
        late: &mut Vec<(Arc<str>, LateRow)>,
        out: &mut Vec<Output>,
    ) {
        let is_read = self.routes.contains_key(name);
        for output in said {
            let rows = is_read.then(|| output.rows.clone());
            out.push(output);
            if let Some(rows) = rows {
                self.deliver(name, &rows, place, late, out);
            }
        }
    }

    /// Forgets what reference tables held before any time that a row may still ask for: one that is over by as much is
    /// given to no row, so that nobody sees when it goes.
    fn forget_versions(&mut self, watermark: i64) {
        if self.references.has_history() {
            let back_us = self.queries.iter().map(Query::versions_of);
            let back_us = back_us
                .filter(|(tables, _)| !tables.is_empty())
                .map(|(_, back_us)| back_us);
            let back_us = back_us.max().unwrap_or(0);
            self.references.forget_before(watermark.saturating_sub(back_us));
        }
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
            let mut flow = Flow::at_watermark(batch, self.watermark().unwrap_or(i64::MIN));
            // Each by the watermark it met: how many came late at once must make no difference.
            flow.watermarks = Arc::new(late.iter().map(|(_, row)| row.watermark).collect());
            flow.causes = Arc::new(late.iter().map(|(_, row)| row.event_id.as_deref()).collect());
            let mut dropped = Vec::new();
            let rows = Rows::Many(flow);
            let mut place = self.begin_push(LATE, rows.len(), &mut dropped, out);
            self.deliver(LATE, &rows, &mut place, &mut dropped, out);
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
}

/// Rows on their way to those that read their source.
struct Handed<'a> {
    source: &'a str,
    rows: &'a Rows,
    /// The rows one by one, made when the first query wants them so.
    singly: Option<Vec<Rows>>,
}

impl<'a> Handed<'a> {
    fn new(source: &'a str, rows: &'a Rows) -> Self {
        Self {
            source,
            rows,
            singly: None,
        }
    }

    fn as_wanted(&mut self, one_by_one: bool) -> &[Rows] {
        match self.rows {
            Rows::Many(flow) if flow.num_rows() == 1 || one_by_one => self
                .singly
                .get_or_insert_with(|| (0..flow.num_rows()).map(|row| Rows::One(Row::of(flow, row))).collect()),
            _ => std::slice::from_ref(self.rows),
        }
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

/// Whether a query of that name is among those whose every change is wanted.
fn is_watched(watched: &BTreeSet<String>, name: &str) -> bool {
    let begins = |pattern: &String| pattern.strip_suffix('*').is_some_and(|begin| name.starts_with(begin));
    watched.contains(name) || watched.iter().any(begins)
}
