//! The events at hand are those that rows may be said of: the ones that come, and those before them of which rows wait in
//! queries until windows are said that they meet there.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::Observed;
use crate::alert::Trace;
use crate::alerts::EventAt;

/// Events that may be kept while rows wait: time is moved on in a fraction of a second. Beyond it all that is due is said at
/// once.
const EVENTS_MAX: usize = 65_536;

/// An event of which rows may wait.
#[derive(Debug, Clone, Copy)]
struct Kept {
    at: EventAt,
    trace: Trace,
    /// Our clock when it came, microseconds since 1970.
    now_us: i64,
}

/// Events by their ids.
#[derive(Debug, Default)]
pub(super) struct AtHand {
    /// How many came so far: the index of the next one.
    came: usize,
    kept: FxHashMap<Arc<str>, Kept>,
}

/// An event as a checkpoint has it.
#[derive(Serialize, Deserialize)]
pub(super) struct KeptEvent {
    id: String,
    index: usize,
    time_us: i64,
    met_us: i64,
}

impl AtHand {
    /// Events come: the index of the first.
    pub(super) fn next(&mut self, events: usize) -> usize {
        let first = self.came;
        self.came += events;
        first
    }

    /// Keeps events of which rows wait. `first` is the index of the first; of two of the same id that one counts.
    pub(super) fn keep(
        &mut self,
        first: usize,
        observed: &[Observed<'_>],
        trace_of: &dyn Fn(usize) -> Trace,
        now_us: i64,
    ) {
        for (number, observed) in observed.iter().enumerate() {
            let kept = || Kept {
                at: EventAt {
                    index: first + number,
                    time_us: observed.event.time_us,
                    met_us: observed.watermark,
                },
                trace: trace_of(number),
                now_us,
            };
            self.kept.entry(Arc::clone(&observed.event.id)).or_insert_with(kept);
        }
    }

    /// No row waits any more.
    pub(super) fn forget(&mut self) {
        self.kept.clear();
    }

    pub(super) fn is_full(&self) -> bool {
        self.kept.len() >= EVENTS_MAX
    }

    pub(super) fn event(&self, id: &str) -> Option<EventAt> {
        self.kept.get(id).map(|kept| kept.at)
    }

    /// How long the stages took for an event, what its rows waited counted in, when our clock shows `now_us`.
    pub(super) fn trace(&self, id: &str, now_us: i64) -> Option<Trace> {
        let kept = self.kept.get(id)?;
        Some(kept.trace.waited(now_us.saturating_sub(kept.now_us)))
    }

    /// For a checkpoint.
    pub(super) fn capture(&self) -> Vec<KeptEvent> {
        let kept = self.kept.iter().map(|(id, kept)| KeptEvent {
            id: id.to_string(),
            index: kept.at.index,
            time_us: kept.at.time_us,
            met_us: kept.at.met_us,
        });
        kept.collect()
    }

    /// Takes back what was captured; `waiting` is the latest event of which rows wait elsewhere.
    pub(super) fn restore(&mut self, events: Vec<KeptEvent>, waiting: Option<usize>) {
        self.came = waiting.map_or(0, |index| index.saturating_add(1));
        for event in events {
            self.came = self.came.max(event.index.saturating_add(1));
            let kept = Kept {
                at: EventAt {
                    index: event.index,
                    time_us: event.time_us,
                    met_us: event.met_us,
                },
                trace: Trace::default(),
                now_us: i64::MAX,
            };
            self.kept.insert(event.id.into(), kept);
        }
    }
}
