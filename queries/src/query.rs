//! A query that runs: its statement, its pipeline, its conditions as an alert, and what it has cost so far.

mod sharing;
mod waiting;

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, Result, exec_datafusion_err};
use datafusion::logical_expr::LogicalPlan;

use self::waiting::Waiting;
pub(crate) use self::waiting::{Held, Place};
use crate::catalog::{Catalog, Relation};
use crate::compile::{Compiled, compile, output_relation};
use crate::computed::Computed;
use crate::cost::{Cost, Counters};
use crate::error::{QueryError, find_word};
use crate::memory_budget::MemoryBudget;
use crate::operator::{Context, Footprint, Progress};
use crate::pipeline::brought_forward;
use crate::planner::Planner;
use crate::purpose::Purpose;
use crate::row::Rows;
use crate::shared_window::{Share, locked};
use crate::snapshot::QuerySnapshot;
use crate::statement::{Emit, Statement, StatementKind, refuse_missing_columns};

/// What an alert's conditions say of each row.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// Where `raise` holds; without a condition, every row.
    pub raise: Vec<bool>,
    /// Where `clear` holds; without one, where `raise` does not.
    pub clear: Vec<bool>,
}

/// Rows that a query said, with the judgement on them when it is an alert.
#[derive(Debug, Clone)]
pub struct Output {
    /// The query's name.
    pub query: Arc<str>,
    /// The rows.
    pub rows: Rows,
    /// For an alert: what its conditions say.
    pub judgement: Option<Judgement>,
}

/// How much went in, or came out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Passed {
    pub(crate) rows: u64,
    pub(crate) bytes: usize,
}

impl Passed {
    /// So much as these rows.
    pub(crate) fn of<'a>(rows: impl IntoIterator<Item = &'a Rows>) -> Self {
        rows.into_iter().fold(Self::default(), |passed, rows| Self {
            rows: passed.rows + rows.len() as u64,
            bytes: passed.bytes + rows.bytes(),
        })
    }
}

/// A compiled, running query.
pub struct Query {
    name: Arc<str>,
    statement: Arc<Statement>,
    compiled: Compiled,
    /// The window that its pipeline begins with, where others have the same: then it is not in the pipeline.
    share: Option<Share>,
    raise: Option<Computed>,
    clear: Option<Computed>,
    /// Rows are taken one by one, so that each event's effect is seen by itself: what an alert says must not depend
    /// on how many events happened to come in one batch.
    one_by_one: bool,
    keeps_causes: bool,
    plan_text: Arc<str>,
    cost: Cost,
    /// The first watermark at which it has something to do.
    due: i64,
    /// What it may keep.
    budget: MemoryBudget,
    /// Rows that came while windows that they meet here were being said.
    waiting: Waiting,
    broken: Option<String>,
}

/// How the fingerprint of a query begins that has stopped.
pub(crate) const STOPPED: &str = "it had stopped: ";

/// Bytes a query may keep where nobody says: a quarter of a GiB.
pub const DEFAULT_MEMORY: usize = 256 << 20;

impl Query {
    /// Plans, checks and compiles a statement.
    pub(crate) fn create(
        statement: Arc<Statement>,
        planner: &Planner<'_>,
        feeds_alert: bool,
        memory: usize,
    ) -> Result<Self, QueryError> {
        let plan = planner.plan(&statement)?;
        refuse_same_names(&plan.root, &statement)?;
        let keeps_causes = feeds_alert || matches!(statement.kind, StatementKind::Alert(_));
        let mut compiled = compile(&plan.root, &statement, planner.catalog(), keeps_causes)?;
        let warnings = std::mem::take(&mut compiled.warnings).into_iter();
        compiled.warnings = warnings.map(|warning| statement.as_written(warning)).collect();
        let (mut raise, mut clear) = (None, None);
        if let StatementKind::Alert(options) = &statement.kind {
            refuse_missing_columns(&statement, &compiled.schema)?;
            let schema = DFSchema::try_from(compiled.schema.as_ref().clone())
                .map_err(|error| statement.at.wrong(error.strip_backtrace()))?;
            raise = options
                .raise
                .as_ref()
                .map(|condition| planner.condition(condition, &schema))
                .transpose()?;
            clear = options
                .clear
                .as_ref()
                .map(|condition| planner.condition(condition, &schema))
                .transpose()?;
        }
        Ok(Self {
            name: Arc::from(statement.name.as_str()),
            one_by_one: keeps_causes && compiled.has_state,
            keeps_causes,
            plan_text: Arc::clone(&plan.text),
            budget: MemoryBudget::new(statement.memory.unwrap_or(memory)),
            statement,
            due: if compiled.has_state { i64::MIN } else { i64::MAX },
            compiled,
            share: None,
            raise,
            clear,
            cost: Cost::default(),
            waiting: Waiting::default(),
            broken: None,
        })
    }

    /// The query's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The statement as written.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The same, for whoever keeps it.
    pub(crate) fn shared_statement(&self) -> Arc<Statement> {
        Arc::clone(&self.statement)
    }

    /// The columns of its output.
    pub fn schema(&self) -> &SchemaRef {
        &self.compiled.schema
    }

    /// The columns by which a later row amends an earlier one; `None` where each row stands for itself.
    pub fn keys(&self) -> Option<&[usize]> {
        self.compiled.keys.as_deref()
    }

    /// What it reads: streams and queries.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.compiled.pipeline.sources()
    }

    /// The reference tables it looks up.
    pub fn references(&self) -> &[String] {
        &self.compiled.references
    }

    /// The reference tables that it looks up as they were at some time, and how far before the watermark that may lie,
    /// microseconds.
    pub(crate) fn versions_of(&self) -> (&[String], i64) {
        let back_us = self.compiled.lag_us.saturating_add(self.statement.lateness_us);
        (&self.compiled.versions_of, back_us)
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        let shared = self.share.as_ref().map_or(0, Share::amended);
        self.cost.counters(self.compiled.pipeline.amended() + shared)
    }

    /// Time spent evaluating, nanoseconds: of the counters what is cheap to ask for.
    pub fn busy_ns(&self) -> u64 {
        self.cost.busy_ns()
    }

    /// How much it keeps; of a window that it shares, what it would keep alone.
    pub fn footprint(&self) -> Footprint {
        let mut footprint = self.compiled.pipeline.footprint();
        footprint += self.share.as_ref().map_or_else(Footprint::default, Share::footprint);
        footprint += self.waiting.footprint();
        footprint
    }

    /// Bytes it may keep.
    pub fn memory(&self) -> usize {
        self.budget.memory()
    }

    /// What its author should know before it runs: why it may never speak, or keep more and more.
    pub fn warnings(&self) -> &[QueryError] {
        &self.compiled.warnings
    }

    /// When it speaks.
    pub fn emit(&self) -> Emit {
        self.compiled.emit
    }

    /// How long a row may be late and still count, microseconds.
    pub fn lateness_us(&self) -> i64 {
        self.statement.lateness_us
    }

    /// The first watermark at which it has something to do.
    pub(crate) fn due(&self) -> i64 {
        self.due
    }

    /// What it is for: rows of persons who refuse that do not reach it.
    pub fn purpose(&self) -> Purpose {
        self.statement.purpose
    }

    /// Why it has stopped, if it has.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Its operators, the last one first, a line each.
    pub fn operators(&self) -> Vec<String> {
        let mut lines = self.compiled.pipeline.describe();
        lines.extend(self.share.iter().flat_map(|share| share.describe(&self.name)));
        lines
    }

    /// DataFusion's plan.
    pub fn plan_text(&self) -> &str {
        &self.plan_text
    }

    pub(crate) fn relation(&self) -> Relation {
        output_relation(&self.compiled)
    }

    /// A fingerprint of what its snapshots mean: its plan and when it speaks. An alert's thresholds and words are not in
    /// it, so that its windows go on when those are changed.
    pub fn fingerprint(&self) -> String {
        let mut fingerprint = format!(
            "{}\nemit {}\nlateness {}\nttl {:?}\ncauses {}",
            self.plan_text, self.compiled.emit, self.statement.lateness_us, self.statement.ttl_us, self.keeps_causes
        );
        // What it holds may be of persons who refuse another purpose. Snapshots from before there were purposes have none.
        if self.purpose() != Purpose::default() {
            fingerprint.push_str("\npurpose ");
            fingerprint.push_str(self.purpose().as_str());
        }
        fingerprint
    }

    /// Whether each row keeps the event that made it, because an alert reads it.
    pub(crate) fn keeps_causes(&self) -> bool {
        self.keeps_causes
    }

    /// How far this query's watermark stays behind, because it reads windows of another query, or a stream that is behind.
    pub(crate) fn source_lag_us(&self, catalog: &Catalog) -> i64 {
        self.sources()
            .filter_map(|source| match catalog.get(source).map(|entry| &entry.relation) {
                Some(Relation::Output { lag_us, .. } | Relation::Stream { lag_us }) => Some(*lag_us),
                _ => None,
            })
            .max()
            .unwrap_or(0)
    }

    /// Whether rows of a stream meet in it with rows that are said when time moves on. `lag_us` is how far it is behind.
    pub(crate) fn has_meetings(&self, lag_us: i64) -> bool {
        let pipeline = &self.compiled.pipeline;
        pipeline.sources().count() > 1 && (lag_us > 0 || pipeline.has_lagging_inputs())
    }

    /// Whether it takes rows one by one.
    pub(crate) fn is_one_by_one(&self) -> bool {
        self.one_by_one
    }

    /// Feeds rows of `source`, which it takes as they are handed over: one by one, or many at a time.
    pub(crate) fn push(&mut self, source: &str, rows: &[Rows], lag_us: i64, context: &mut Context<'_>) -> Vec<Output> {
        let passed = Passed::of(rows);
        self.cost.rows_in += passed.rows;
        let outputs = self.guarded(context, |query, context, out| {
            for rows in rows {
                if lag_us > 0 {
                    let rows = rows.clone().meeting(|met| met.saturating_sub(lag_us));
                    query.compiled.pipeline.push(source, &rows, context, out)?;
                } else {
                    query.compiled.pipeline.push(source, rows, context, out)?;
                }
            }
            // What reads this query sets its rows back itself, by as much as it is behind the watermark of all.
            brought_forward(out, lag_us);
            Ok(())
        });
        self.measure(passed, &outputs);
        outputs
    }

    /// A window that it shares took so long.
    pub(crate) fn note_shared(&mut self, took: std::time::Duration) {
        self.cost.note(took);
    }

    /// Sees from time to time how much it keeps.
    fn measure(&mut self, passed: Passed, outputs: &[Output]) {
        if !self.compiled.has_state || self.broken.is_some() {
            return;
        }
        // What was said tells how many windows a row opened.
        let said = Passed::of(outputs.iter().map(|output| &output.rows));
        if self.budget.pass(passed.rows + said.rows, passed.bytes + said.bytes) {
            self.keep_to_budget();
        }
    }

    /// Stops the query when it keeps more than it may, and gives up what it kept.
    fn keep_to_budget(&mut self) {
        let footprint = self.footprint();
        if self.budget.keeps_to(&footprint) {
            return;
        }
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        self.stop(format!(
            "it keeps {} MiB for {} keys and {} windows, more than its {} MiB; a shorter window, fewer keys, a ttl or \
             WITH (memory = '…') would be right",
            mib(footprint.bytes),
            footprint.keys,
            footprint.windows,
            mib(self.memory())
        ));
        self.compiled.pipeline.give_up();
        if let Some(share) = self.share.take() {
            locked(&share.window).leave(&self.name);
        }
    }

    /// Moves its time on; it says about `part` rows. What is left is for the next call.
    pub(crate) fn advance(
        &mut self,
        watermark: i64,
        lag_us: i64,
        part: usize,
        context: &mut Context<'_>,
    ) -> (Vec<Output>, Progress) {
        let watermark = watermark.saturating_sub(lag_us);
        let mut progress = Progress::Done;
        let said = self.guarded(context, |query, context, out| {
            query.take_shared(context, out)?;
            progress = query.compiled.pipeline.advance(watermark, part, context, out)?;
            brought_forward(out, lag_us);
            Ok(())
        });
        // One that has stopped has nothing left.
        let has_left = progress == Progress::Left && self.broken.is_none();
        (said, if has_left { Progress::Left } else { Progress::Done })
    }

    /// Runs a step; an error or a panic stops this query and no other.
    fn guarded(
        &mut self,
        context: &mut Context<'_>,
        step: impl FnOnce(&mut Self, &mut Context<'_>, &mut Vec<Rows>) -> Result<()>,
    ) -> Vec<Output> {
        if self.broken.is_some() {
            return Vec::new();
        }
        let started = Instant::now();
        let late_before = context.late.len();
        let mut said = Vec::new();
        let result = catch_unwind(AssertUnwindSafe(|| {
            step(self, context, &mut said)?;
            said.into_iter()
                .map(|rows| self.judged(rows))
                .collect::<Result<Vec<_>>>()
        }));
        let outputs = match result {
            Ok(Ok(outputs)) => outputs,
            Ok(Err(error)) => {
                self.stop(error.strip_backtrace());
                Vec::new()
            }
            Err(panic) => {
                self.stop(format!("a fault in the engine: {}", words_of(&*panic)));
                Vec::new()
            }
        };
        self.cost.late_rows += (context.late.len() - late_before) as u64;
        self.cost.rows_out += outputs.iter().map(|output| output.rows.len() as u64).sum::<u64>();
        self.cost.note(started.elapsed());
        if self.compiled.has_state {
            self.due = self.compiled.pipeline.next_due();
        }
        outputs
    }

    fn judged(&self, rows: Rows) -> Result<Output> {
        let judgement = match &self.statement.kind {
            StatementKind::Query => None,
            StatementKind::Alert(_) => {
                let raise = match &self.raise {
                    Some(condition) => holds(condition, &rows)?,
                    None => vec![true; rows.len()],
                };
                let clear = match (&self.clear, &self.raise) {
                    (Some(condition), _) => holds(condition, &rows)?,
                    (None, Some(_)) => raise.iter().map(|raise| !raise).collect(),
                    (None, None) => vec![false; rows.len()],
                };
                Some(Judgement { raise, clear })
            }
        };
        Ok(Output {
            query: Arc::clone(&self.name),
            rows,
            judgement,
        })
    }

    /// The rows it stands for now, without changing it; `None` when it keeps none.
    pub(crate) fn peek(&mut self, context: &mut Context<'_>) -> Result<Option<Vec<Rows>>> {
        if let Some(rows) = self.compiled.pipeline.peek(context)? {
            return Ok(Some(rows));
        }
        self.peek_shared(context)
    }

    /// Takes over what the query in whose place it comes has counted.
    pub(crate) fn count_on_from(&mut self, before: &mut Self) {
        let amended_rows = before.counters().amended_rows;
        self.cost = std::mem::take(&mut before.cost);
        self.cost.amended_before = amended_rows;
    }

    pub(crate) fn snapshot(&mut self) -> Result<QuerySnapshot> {
        Ok(QuerySnapshot {
            name: self.name.to_string(),
            // What a query kept that has stopped is of no use: it begins anew.
            fingerprint: match &self.broken {
                Some(reason) => Self::fingerprint_of_stopped(reason),
                None => self.fingerprint(),
            },
            parts: match self.broken {
                Some(_) => Vec::new(),
                None => self.parts()?,
            },
        })
    }

    /// Of a query that has stopped: no running one has it.
    fn fingerprint_of_stopped(reason: &str) -> String {
        format!("{STOPPED}{reason}")
    }

    /// Takes back what `snapshot` gave; `catalog` knows what columns rows have by now. After an error it is not to be used:
    /// it has taken half.
    pub(crate) fn restore(&mut self, snapshot: &QuerySnapshot, catalog: &Catalog) -> Result<()> {
        self.due = i64::MIN;
        let columns_of = |source: &str| catalog.get(source).map(|entry| Arc::clone(&entry.schema));
        self.waiting = Waiting::restored(&snapshot.parts, columns_of)?;
        // What was written by another version, or by nobody, may be of other types than its columns' names promise.
        catch_unwind(AssertUnwindSafe(|| self.compiled.pipeline.restore(&snapshot.parts)))
            .unwrap_or_else(|panic| Err(exec_datafusion_err!("a fault in the engine: {}", words_of(&*panic))))
    }

    /// Stops it: it can't go on.
    pub(crate) fn stop(&mut self, reason: String) {
        tracing::error!(query = %self.name, %reason, "query stopped");
        self.broken = Some(reason);
        self.due = i64::MAX;
        self.waiting = Waiting::default();
    }
}

/// What a panic said.
pub(crate) fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(ToString::to_string);
    words
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

/// Refuses columns of one name: whoever reads the query could not tell them apart.
fn refuse_same_names(plan: &LogicalPlan, statement: &Statement) -> Result<(), QueryError> {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for field in plan.schema().fields() {
        if !seen.insert(field.name().as_str()) {
            twice.insert(field.name().as_str());
        }
    }
    let Some(first) = twice.first() else { return Ok(()) };
    let names: Vec<&str> = twice.iter().copied().collect();
    let at = find_word(&statement.placed_select(), "SELECT", statement.at).unwrap_or(statement.at);
    Err(at.mistake(
        format!("more than one column is named {}", names.join(", ")),
        format!("name the columns one by one, and these apart: SELECT a.{first}, b.{first} AS other_{first}"),
    ))
}

/// For each row, whether a condition holds.
fn holds(condition: &Computed, rows: &Rows) -> Result<Vec<bool>> {
    Ok(match rows {
        Rows::One(row) => vec![condition.holds(&row.values)?],
        Rows::Many(flow) => condition.mask(&flow.batch)?.values().iter().collect(),
    })
}
