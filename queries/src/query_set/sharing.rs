//! Which queries of a set share their windows, and whose turn it is to step one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::QuerySet;
use crate::operator::Progress;
use crate::query::{Passed, Query};
use crate::references::References;
use crate::row::Rows;
use crate::shared_window::{Kept, Part, SharedWindow, agree, locked, union};

/// The windows that several queries share, each stepped at the turn of the first of them.
#[derive(Default)]
pub(super) struct SharedWindows {
    windows: Vec<Running>,
    /// For each query, which of them it shares.
    of_query: Vec<Option<usize>>,
    /// The steps that were begun. A step may stand within another, which is over windows of other rows.
    steps: u64,
}

struct Running {
    window: Arc<Mutex<SharedWindow>>,
    due: i64,
    /// The step in which it ran last, whether it has something to tell of it, and how many rows it took.
    step: u64,
    tells: bool,
    passed: Passed,
    /// The queries that share it.
    sharers: Vec<usize>,
    /// The round of turns in which time was last moved on in it.
    round: u64,
}

/// How a query takes rows that come.
pub(super) enum Turn {
    /// By itself.
    Alone,
    /// From the window that it shares, which took so many rows and has something to tell.
    Told(Passed),
    /// Its window took so many and has nothing to tell.
    Silent(Passed),
}

impl SharedWindows {
    /// Those that `queries` share.
    pub(super) fn of(queries: &[Query]) -> Self {
        let mut found = Self::default();
        let mut readers: Vec<Vec<Arc<str>>> = Vec::new();
        let mut known: BTreeMap<usize, usize> = BTreeMap::new();
        for query in queries {
            found.of_query.push(query.shared_window().map(|window| {
                let at = *known.entry(Arc::as_ptr(window).addr()).or_insert_with(|| {
                    found.windows.push(Running {
                        due: locked(window).due(),
                        window: Arc::clone(window),
                        step: 0,
                        tells: false,
                        passed: Passed::default(),
                        sharers: Vec::new(),
                        round: 0,
                    });
                    readers.push(Vec::new());
                    readers.len() - 1
                });
                readers[at].push(Arc::clone(query.name()));
                at
            }));
        }
        for (index, at) in found.of_query.iter().enumerate() {
            if let Some(at) = at {
                found.windows[*at].sharers.push(index);
            }
        }
        for (running, readers) in found.windows.iter().zip(readers) {
            locked(&running.window).set_readers(readers);
        }
        found
    }

    /// Begins a step.
    pub(super) fn begin(&mut self) -> u64 {
        self.steps += 1;
        self.steps
    }

    /// Feeds the window of a query whose turn it is, if another that shares it has not done so in this step.
    #[allow(clippy::too_many_arguments)] // what a query is handed, and which one it is
    pub(super) fn push(
        &mut self,
        step: u64,
        index: usize,
        query: &mut Query,
        source: &str,
        rows: &[Rows],
        lag_us: i64,
        references: &References,
    ) -> Turn {
        let Some(running) = self.of_query[index].map(|at| &mut self.windows[at]) else {
            return Turn::Alone;
        };
        if running.step != step {
            if query.broken().is_some() {
                return Turn::Silent(Passed::default());
            }
            let mut window = locked(&running.window);
            running.step = step;
            running.passed = Passed::of(rows);
            // It is counted with the first that shares it.
            let started = Instant::now();
            window.push(source, rows, lag_us, references);
            query.note_shared(started.elapsed());
            running.tells = window.has_something_to_tell();
            running.due = window.due();
        }
        if running.tells {
            Turn::Told(running.passed)
        } else {
            Turn::Silent(running.passed)
        }
    }

    /// The first watermark at which the window of a query has something to do, where it shares one.
    pub(super) fn due(&self, index: usize) -> i64 {
        self.of_query[index].map_or(i64::MAX, |at| self.windows[at].due)
    }

    /// The queries that share the window of one, that one among them; none where it has its own.
    pub(super) fn sharers(&self, index: usize) -> Vec<usize> {
        self.of_query[index].map_or_else(Vec::new, |at| self.windows[at].sharers.clone())
    }

    /// Whether the window of a query has had its turn in this round, with all that share it; it has now.
    pub(super) fn take_turn(&mut self, index: usize, round: u64) -> bool {
        let Some(at) = self.of_query[index] else {
            return false;
        };
        std::mem::replace(&mut self.windows[at].round, round) == round
    }

    /// Moves on the time of the window of a query. What it says is to be told to all that share it, and then forgotten.
    pub(super) fn advance(&mut self, index: usize, watermark: i64, part: usize, references: &References) -> Progress {
        let Some(running) = self.of_query[index].map(|at| &mut self.windows[at]) else {
            return Progress::Done;
        };
        let mut window = locked(&running.window);
        let progress = window.advance(watermark, part, references);
        running.due = window.due();
        progress
    }

    /// All that share the window of a query have taken what it said.
    pub(super) fn forget_said(&mut self, index: usize) {
        if let Some(at) = self.of_query[index] {
            locked(&self.windows[at].window).forget_said();
        }
    }

    /// All queries have had their turn.
    pub(super) fn end(&mut self, step: u64) {
        for running in &mut self.windows {
            if running.step == step && running.tells {
                locked(&running.window).forget_said();
                running.tells = false;
            }
        }
    }
}

impl QuerySet {
    /// Lets queries share their windows that have seen no row yet: those that are created together at the start.
    pub(super) fn share_new_windows(&mut self) {
        self.share_where(|query| match query.shared_window() {
            Some(window) => is_untouched(locked(window).pipeline()),
            None => is_untouched(query.pipeline()),
        });
    }

    /// Lets some of the queries share their windows that hold the same rows, as those do that shared them before a
    /// restart, or before what they read was changed.
    pub(super) fn share_equal_windows(&mut self, may_share: impl Fn(&Query) -> bool) {
        self.share_where(may_share);
    }

    /// Gives each query a window of its own.
    pub(super) fn run_all_alone(&mut self) {
        for query in &mut self.queries {
            if let Err(error) = query.run_alone() {
                tracing::error!(query = %query.name(), %error, "the query still shares its window");
            }
        }
        self.rewire();
    }

    fn share_where(&mut self, may_share: impl Fn(&Query) -> bool) {
        let mut alike: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, query) in self.queries.iter().enumerate() {
            if query.broken().is_some() || !may_share(query) {
                continue;
            }
            let look = match query.shared_window() {
                Some(window) => look_of(locked(window).pipeline()),
                None => look_of(query.pipeline()),
            };
            if let Some(look) = look {
                // Whose rows reach one must reach the other.
                alike
                    .entry(format!("{look} {}", query.purpose()))
                    .or_default()
                    .push(index);
            }
        }
        let is_new = |index: &usize| self.queries[*index].shared_window().is_none();
        alike.retain(|_, queries| queries.len() > 1 && queries.iter().any(is_new));
        let mut is_any_shared = false;
        for queries in alike.into_values() {
            if let Err(error) = self.share_among(&queries) {
                // They go on as they are.
                tracing::error!(%error, "queries do not share their windows");
            }
            is_any_shared = true;
        }
        if is_any_shared {
            self.rewire();
        }
    }

    /// Lets those of `queries` share windows that are the same.
    fn share_among(&mut self, queries: &[usize]) -> datafusion::common::Result<()> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for index in queries {
            self.queries[*index].run_alone()?;
            let own = self.queries[*index].pipeline();
            let is_same = |group: &&mut Vec<usize>| {
                let first = self.queries[group[0]].pipeline();
                let plans = own.window().zip(first.window());
                own.begins_like(first) && plans.is_some_and(|(own, first)| agree(own.plan(), first.plan()))
            };
            match groups.iter_mut().find(is_same) {
                Some(group) => group.push(*index),
                None => groups.push(vec![*index]),
            }
        }
        for group in groups.into_iter().filter(|group| group.len() > 1) {
            self.share_one(group)?;
        }
        Ok(())
    }

    /// Lets queries whose windows and keys are the same share windows, where these hold the same rows.
    fn share_one(&mut self, mut group: Vec<usize>) -> datafusion::common::Result<()> {
        while group.len() > 1 {
            let plans: Vec<_> = group
                .iter()
                .filter_map(|index| self.queries[*index].pipeline().window())
                .map(|window| window.plan())
                .collect();
            let Some(plan) = union(&plans) else { return Ok(()) };
            let mut members: Vec<(usize, Part, Option<Kept>)> = Vec::new();
            let mut others = Vec::new();
            for index in group {
                let Some(window) = self.queries[index].pipeline_mut().window_mut() else {
                    continue;
                };
                let Some(part) = Part::of(window.plan(), &plan) else {
                    continue;
                };
                let kept = if window.is_untouched() {
                    None
                } else {
                    let own = window.plan();
                    let (keys, calls) = (own.all_keys(), own.all_calls());
                    Some(Kept::of(&window.keep_part(&keys, &calls)?, &part)?)
                };
                let is_same = match (members.first(), &kept) {
                    (Some((_, _, Some(first))), Some(kept)) => first.is_of_the_same_rows(kept),
                    (Some((_, _, first)), kept) => first.is_none() && kept.is_none(),
                    (None, _) => true,
                };
                if is_same {
                    members.push((index, part, kept));
                } else {
                    others.push(index);
                }
            }
            group = others;
            if members.len() > 1 {
                self.put_together(members)?;
            }
        }
        Ok(())
    }

    fn put_together(&mut self, members: Vec<(usize, Part, Option<Kept>)>) -> datafusion::common::Result<()> {
        // Without the aggregates of those whose windows hold other rows.
        let own = |index: &usize| self.queries[*index].pipeline().window();
        let plans: Vec<_> = members
            .iter()
            .filter_map(|(index, ..)| own(index))
            .map(|window| window.plan())
            .collect();
        let (Some(plan), Some(first)) = (union(&plans), own(&members[0].0)) else {
            return Ok(());
        };
        let mut parts = Vec::new();
        for (index, _, kept) in &members {
            let part = own(index).and_then(|window| Part::of(window.plan(), &plan));
            let Some(part) = part else { return Ok(()) };
            parts.push((*index, part, kept.as_ref()));
        }
        let mut operator = first.anew(plan)?;
        let kept: Vec<(&Kept, &Part)> = parts
            .iter()
            .filter_map(|(_, part, kept)| kept.map(|kept| (kept, part)))
            .collect();
        if !kept.is_empty() {
            operator.restore(&Kept::union(&kept)?)?;
        }
        let Some(pipeline) = self.queries[members[0].0].pipeline().with_window(operator) else {
            return Ok(());
        };
        let window = Arc::new(Mutex::new(SharedWindow::new(pipeline)));
        let parts: Vec<(usize, Part)> = parts.into_iter().map(|(index, part, _)| (index, part)).collect();
        for (index, part) in parts {
            self.queries[index].share(&window, part);
        }
        Ok(())
    }
}

fn is_untouched(pipeline: &crate::pipeline::Pipeline) -> bool {
    pipeline.window().is_some_and(|window| window.is_untouched())
}

/// What windows that may be shared have in common, as a text: most are told apart by it.
fn look_of(pipeline: &crate::pipeline::Pipeline) -> Option<String> {
    let plan = pipeline.window()?.plan();
    let mut keys: Vec<String> = plan.keys.iter().map(ToString::to_string).collect();
    keys.sort();
    let window = plan.window.as_ref().map(|window| window.spec.to_string());
    Some(format!(
        "{:?} {window:?} {keys:?} {} {} {}",
        pipeline.sources().next(),
        plan.emit,
        plan.lateness_us,
        plan.filters.len()
    ))
}
