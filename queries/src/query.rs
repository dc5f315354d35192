//! A query that runs: its statement, its pipeline, its conditions as an alert, and what it has cost so far.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, Result};

use crate::catalog::{Catalog, Relation};
use crate::compile::{Compiled, compile, output_relation};
use crate::computed::Computed;
use crate::cost::{Cost, Counters};
use crate::error::QueryError;
use crate::operator::{Context, Footprint};
use crate::pipeline::brought_forward;
use crate::planner::Planner;
use crate::row::Rows;
use crate::snapshot::QuerySnapshot;
use crate::statement::{Emit, Statement, StatementKind};

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

/// A compiled, running query.
pub struct Query {
    name: Arc<str>,
    statement: Statement,
    compiled: Compiled,
    raise: Option<Computed>,
    clear: Option<Computed>,
    /// Rows are taken one by one, so that each event's effect is seen by itself: what an alert says must not depend
    /// on how many events happened to come in one batch.
    one_by_one: bool,
    keeps_causes: bool,
    plan_text: String,
    cost: Cost,
    /// The first watermark at which it has something to do.
    due: i64,
    /// Bytes it may keep.
    memory: usize,
    /// Rows until what it keeps is measured again.
    measure_in: u64,
    broken: Option<String>,
}

/// What a query keeps is measured after so many rows at least, and after an eighth as many as it has keys.
const MEASURED_ROWS: u64 = 4_096;
/// Bytes a query may keep where nobody says: a quarter of a GiB.
pub const DEFAULT_MEMORY: usize = 256 << 20;

impl Query {
    /// Plans, checks and compiles a statement.
    pub(crate) fn create(
        statement: Statement,
        catalog: &Catalog,
        planner: &Planner,
        feeds_alert: bool,
        memory: usize,
    ) -> Result<Self, QueryError> {
        let plan = planner.plan(&statement)?;
        let keeps_causes = feeds_alert || matches!(statement.kind, StatementKind::Alert(_));
        let compiled = compile(&plan, &statement, catalog, keeps_causes)?;
        let (mut raise, mut clear) = (None, None);
        if let StatementKind::Alert(options) = &statement.kind {
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
            plan_text: plan.display_indent().to_string(),
            memory: statement.memory.unwrap_or(memory),
            statement,
            due: if compiled.has_state { i64::MIN } else { i64::MAX },
            compiled,
            raise,
            clear,
            cost: Cost::default(),
            measure_in: MEASURED_ROWS,
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

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        self.cost.counters(self.compiled.pipeline.amended())
    }

    /// How much it keeps.
    pub fn footprint(&self) -> Footprint {
        self.compiled.pipeline.footprint()
    }

    /// Bytes it may keep.
    pub fn memory(&self) -> usize {
        self.memory
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

    /// Why it has stopped, if it has.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Its operators, the last one first, a line each.
    pub fn operators(&self) -> Vec<String> {
        self.compiled.pipeline.describe()
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
        format!(
            "{}\nemit {}\nlateness {}\nttl {:?}\ncauses {}",
            self.plan_text, self.compiled.emit, self.statement.lateness_us, self.statement.ttl_us, self.keeps_causes
        )
    }

    /// Whether each row keeps the event that made it, because an alert reads it.
    pub(crate) fn keeps_causes(&self) -> bool {
        self.keeps_causes
    }

    /// How far this query's watermark stays behind, because it reads windows of another query.
    pub(crate) fn source_lag_us(&self, catalog: &Catalog) -> i64 {
        self.sources()
            .filter_map(|source| match catalog.get(source).map(|entry| &entry.relation) {
                Some(Relation::Output { lag_us, .. }) => Some(*lag_us),
                _ => None,
            })
            .max()
            .unwrap_or(0)
    }

    /// Whether it takes rows one by one.
    pub(crate) fn is_one_by_one(&self) -> bool {
        self.one_by_one
    }

    /// Feeds rows of `source`, which it takes as they are handed over: one by one, or many at a time.
    pub(crate) fn push(&mut self, source: &str, rows: &[Rows], lag_us: i64, context: &mut Context<'_>) -> Vec<Output> {
        let rows_in = rows.iter().map(|rows| rows.len() as u64).sum::<u64>();
        self.cost.rows_in += rows_in;
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
        if self.compiled.has_state {
            // What was said tells how many windows a row opened.
            let rows_out = outputs.iter().map(|output| output.rows.len() as u64).sum::<u64>();
            self.measure_in = self.measure_in.saturating_sub(rows_in + rows_out);
            if self.measure_in == 0 {
                self.keep_to_budget();
            }
        }
        outputs
    }

    /// Stops the query when it keeps more than it may, and gives up what it kept.
    fn keep_to_budget(&mut self) {
        let footprint = self.footprint();
        self.measure_in = MEASURED_ROWS.max(footprint.keys as u64 / 8);
        if footprint.bytes <= self.memory {
            return;
        }
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        self.stop(format!(
            "it keeps {} MiB for {} keys and {} windows, more than its {} MiB; a shorter window, fewer keys, a ttl or \
             WITH (memory = '…') would be right",
            mib(footprint.bytes),
            footprint.keys,
            footprint.windows,
            mib(self.memory)
        ));
        self.compiled.pipeline.give_up();
    }

    /// Moves its time on.
    pub(crate) fn advance(&mut self, watermark: i64, lag_us: i64, context: &mut Context<'_>) -> Vec<Output> {
        self.guarded(context, |query, context, out| {
            query
                .compiled
                .pipeline
                .advance(watermark.saturating_sub(lag_us), context, out)?;
            brought_forward(out, lag_us);
            Ok(())
        })
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
                let words = panic.downcast_ref::<&str>().map(ToString::to_string);
                let words = words
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_default();
                self.stop(format!("a fault in the engine: {words}"));
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

    fn stop(&mut self, reason: String) {
        tracing::error!(query = %self.name, %reason, "query stopped");
        self.broken = Some(reason);
        self.due = i64::MAX;
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
        self.compiled.pipeline.peek(context)
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
                Some(reason) => format!("it had stopped: {reason}"),
                None => self.fingerprint(),
            },
            parts: match self.broken {
                Some(_) => Vec::new(),
                None => self.compiled.pipeline.snapshot()?,
            },
        })
    }

    pub(crate) fn restore(&mut self, snapshot: &QuerySnapshot) -> Result<()> {
        self.due = i64::MIN;
        self.compiled.pipeline.restore(&snapshot.parts)
    }
}

/// For each row, whether a condition holds.
fn holds(condition: &Computed, rows: &Rows) -> Result<Vec<bool>> {
    Ok(match rows {
        Rows::One(row) => vec![condition.holds(&row.values)?],
        Rows::Many(flow) => condition.mask(&flow.batch)?.values().iter().collect(),
    })
}
