//! A shared window is a window operator that runs once for several queries, with what is below it.
//!
//! Queries share one whose windows, keys and rows are the same, and whose state is: it holds the aggregates of all of
//! them, each once. What it says of rows that come each takes at its own turn, as if it had said it itself. When time moves
//! on, all of them take a part of what it says before it says the next: what a query says does not depend on whether it
//! shares, but the order in which windows of several queries are told does.

mod kept;
mod part;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use datafusion::common::{DataFusionError, Result};

pub(crate) use self::kept::Kept;
pub(crate) use self::part::{Part, agree, union};
use crate::aggregate::AggregatePlan;
use crate::capture::{CapturedOperator, Renewal};
use crate::flow::Flow;
use crate::operator::{Context, Footprint, LateRow, Operator, Progress};
use crate::pipeline::Pipeline;
use crate::query::words_of;
use crate::references::References;
use crate::row::Rows;

/// A window operator that queries may share.
///
/// Contract, trusted: what it keeps and says of a key or an aggregate does not depend on which others it has.
pub(crate) trait WindowOperator: Operator {
    /// What it was planned to do.
    fn plan(&self) -> &AggregatePlan;
    /// Whether another has the same windows and keeps them in the same way, whatever is aggregated in them.
    fn has_windows_of(&self, other: &dyn WindowOperator) -> bool;
    /// An operator of the same windows without state.
    fn anew(&self, plan: AggregatePlan) -> Result<Box<dyn Operator>>;
    /// Whether it is as it was made.
    fn is_untouched(&self) -> bool;
    /// What a query with these keys and aggregates would remember over a restart if it were alone.
    fn keep_part(&mut self, keys: &[usize], calls: &[usize]) -> Result<RecordBatch>;
    /// How much a query with these aggregates would keep if it were alone.
    fn footprint_of(&self, calls: &[usize]) -> Footprint;
    /// One line for `usher explain` of a query with these keys and aggregates.
    fn describe_part(&self, keys: &[usize], calls: &[usize]) -> String;
}

/// What came out of one step.
struct Said {
    late: Vec<LateRow>,
    rows: Vec<Rows>,
}

/// Why it has stopped.
enum Failure {
    Error(Arc<DataFusionError>),
    /// A fault in the engine, in its words.
    Fault(String),
}

/// The window, what is below it, and what it has said in the step that is under way.
pub(crate) struct SharedWindow {
    pipeline: Pipeline,
    said: Vec<Said>,
    failure: Option<Failure>,
    /// The queries that share it.
    readers: Vec<Arc<str>>,
}

/// What one query has of a window that it shares.
pub(crate) struct Share {
    pub(crate) window: Arc<Mutex<SharedWindow>>,
    pub(crate) part: Part,
    /// The rows it had amended when the query came to it.
    amended_before: u64,
}

/// A step of a window fails inside of it, where the failure is remembered: a lock that was held by it is none the worse.
pub(crate) fn locked(window: &Mutex<SharedWindow>) -> MutexGuard<'_, SharedWindow> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedWindow {
    /// Of a pipeline that ends in the window.
    pub(crate) fn new(pipeline: Pipeline) -> Self {
        Self {
            pipeline,
            said: Vec::new(),
            failure: None,
            readers: Vec::new(),
        }
    }

    /// The window and what is below it.
    pub(crate) fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// The same to change it.
    pub(crate) fn pipeline_mut(&mut self) -> &mut Pipeline {
        &mut self.pipeline
    }

    /// Says who shares it.
    pub(crate) fn set_readers(&mut self, readers: Vec<Arc<str>>) {
        self.readers = readers;
    }

    /// One of those that share it takes nothing more; with the last of them goes what it keeps.
    pub(crate) fn leave(&mut self, reader: &Arc<str>) {
        self.readers.retain(|other| other != reader);
        if self.readers.is_empty() {
            self.pipeline.give_up();
        }
    }

    /// The first watermark at which it has something to do.
    pub(crate) fn due(&self) -> i64 {
        self.pipeline.next_due()
    }

    /// Feeds rows of `source`, which it takes as they are handed over.
    pub(crate) fn push(&mut self, source: &str, rows: &[Rows], lag_us: i64, references: &References) {
        for rows in rows {
            self.step(references, |pipeline, context, out| {
                if lag_us > 0 {
                    let rows = rows.clone().meeting(|met| met.saturating_sub(lag_us));
                    pipeline.push(source, &rows, context, out)
                } else {
                    pipeline.push(source, rows, context, out)
                }
            });
        }
    }

    /// Moves its time on; it says about `part` rows, and what is left is for the next call.
    pub(crate) fn advance(&mut self, watermark: i64, part: usize, references: &References) -> Progress {
        let mut progress = Progress::Done;
        self.step(references, |pipeline, context, out| {
            progress = pipeline.advance(watermark, part, context, out)?;
            Ok(())
        });
        // One that has failed has nothing left.
        match self.failure {
            Some(_) => Progress::Done,
            None => progress,
        }
    }

    /// Whether something was said in this step, or it has failed.
    pub(crate) fn has_something_to_tell(&self) -> bool {
        !self.said.is_empty() || self.failure.is_some()
    }

    fn step(
        &mut self,
        references: &References,
        step: impl FnOnce(&mut Pipeline, &mut Context<'_>, &mut Vec<Rows>) -> Result<()>,
    ) {
        if self.failure.is_some() {
            return;
        }
        let (mut late, mut rows) = (Vec::new(), Vec::new());
        let mut context = Context {
            references,
            late: &mut late,
        };
        let pipeline = &mut self.pipeline;
        let stepped = catch_unwind(AssertUnwindSafe(|| step(pipeline, &mut context, &mut rows)));
        match stepped {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failure = Some(Failure::Error(Arc::new(error))),
            Err(panic) => self.failure = Some(Failure::Fault(words_of(&*panic))),
        }
        if !late.is_empty() || !rows.is_empty() {
            self.said.push(Said { late, rows });
        }
    }

    /// What has changed in the window since the last capture. `renewal` says whether it begins anew in the next one.
    pub(crate) fn capture(&mut self, renewal: &mut Renewal) -> Result<Option<CapturedOperator>> {
        // What is below it keeps nothing.
        Ok(self.pipeline.capture(renewal)?.pop().map(|(_, captured)| captured))
    }

    /// Each of those that share it has had its turn.
    pub(crate) fn forget_said(&mut self) {
        self.said.clear();
    }

    /// Gives what was said in this step to `above`, which has a part of it.
    ///
    /// # Errors
    /// When the window itself has failed; it panics where that did.
    pub(crate) fn tell(
        &self,
        part: &Part,
        above: &mut Pipeline,
        context: &mut Context<'_>,
        out: &mut Vec<Rows>,
    ) -> Result<()> {
        for said in &self.said {
            context.late.extend(said.late.iter().cloned());
            for rows in &said.rows {
                above.take(part.of_rows(rows)?, context, out)?;
            }
        }
        match &self.failure {
            None => Ok(()),
            Some(Failure::Error(error)) => Err(DataFusionError::Shared(Arc::clone(error))),
            Some(Failure::Fault(words)) => resume_unwind(Box::new(words.clone())),
        }
    }
}

impl Share {
    /// A part of a window that holds its aggregates.
    pub(crate) fn new(window: &Arc<Mutex<SharedWindow>>, part: Part) -> Self {
        Self {
            amended_before: locked(window).pipeline.amended(),
            window: Arc::clone(window),
            part,
        }
    }

    /// How many rows it has said in place of ones it had said before, since the query came to it.
    pub(crate) fn amended(&self) -> u64 {
        locked(&self.window).pipeline.amended() - self.amended_before
    }

    /// How much the query would keep of it if it were alone.
    pub(crate) fn footprint(&self) -> Footprint {
        let window = locked(&self.window);
        let operator = window.pipeline.window();
        operator.map_or_else(Footprint::default, |window| window.footprint_of(self.part.calls()))
    }

    /// What the query would remember of it over a restart if it were alone.
    pub(crate) fn snapshot(&self) -> Result<Option<RecordBatch>> {
        let mut window = locked(&self.window);
        let operator = window.pipeline.window_mut();
        operator
            .map(|window| window.keep_part(self.part.keys(), self.part.calls()))
            .transpose()
    }

    /// The rows that the query's part of it stands for now.
    pub(crate) fn peek(&self) -> Result<Option<Flow>> {
        let mut window = locked(&self.window);
        let Some(operator) = window.pipeline.window_mut() else {
            return Ok(None);
        };
        let Some(flow) = operator.peek()? else {
            return Ok(None);
        };
        Ok(Some(self.part.of_rows(&Rows::Many(flow))?.into_flow()))
    }

    /// A line for the window and for each operator below it, for the query `name`.
    pub(crate) fn describe(&self, name: &str) -> Vec<String> {
        /// So many others are named.
        const NAMED: usize = 8;
        let window = locked(&self.window);
        let mut lines = window.pipeline.describe();
        let others: Vec<&str> = window.readers.iter().map(AsRef::as_ref).collect();
        let others: Vec<&str> = others.into_iter().filter(|other| *other != name).collect();
        if let (Some(line), Some(operator)) = (lines.first_mut(), window.pipeline.window()) {
            *line = operator.describe_part(self.part.keys(), self.part.calls());
            if !others.is_empty() {
                let named = &others[..others.len().min(NAMED)];
                *line += &format!("; shares its window with {}", named.join(", "));
                if others.len() > NAMED {
                    *line += &format!(" and {} more", others.len() - NAMED);
                }
            }
        }
        lines
    }
}
