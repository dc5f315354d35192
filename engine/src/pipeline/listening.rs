//! Whether the pipeline listens. While what it has can't be handed on it takes no messages, and whoever is not heard then is
//! not silent.

use std::time::{Duration, Instant};

use usher_connectors::delivery::Delivery;

use super::Pipeline;
use crate::intake::Hindrance;
use crate::record::Record;

/// For so long nothing may be taken without that being noted. Devices are expected to speak within minutes.
const DEAF_AFTER: Duration = Duration::from_secs(5);

/// Since when no messages are taken.
#[derive(Debug, Default)]
pub(super) struct Listening {
    stopped: Option<Instant>,
    /// Until when we did not listen, by our clock, microseconds, where the log does not know it.
    deaf_until_us: Option<i64>,
}

impl Pipeline {
    /// To be called at each look at the clock, before time moves on: no silence is found in a time in which no messages were
    /// taken.
    pub(super) fn look_whether_deaf(&mut self) {
        let now = self.clock.now();
        let hindrance = match (self.held.is_empty(), self.outbox.has_room()) {
            (false, _) => Some(Hindrance::Log),
            (true, false) => Some(Hindrance::Outbox),
            (true, true) => None,
        };
        self.intake.look(now, hindrance);
        if hindrance.is_none() {
            self.listening.stopped = None;
            return;
        }
        let stopped = *self.listening.stopped.get_or_insert(now);
        if now.saturating_duration_since(stopped) >= DEAF_AFTER {
            let at_us = self.now_us.max(self.perception.now_us());
            let due_before = self.perception.begin_listening(at_us);
            // Logged before it is noted that we did not listen, as it came.
            self.tell_in_time(due_before);
            self.listening.deaf_until_us = Some(at_us);
        }
    }

    /// To be called with messages that were just taken.
    pub(super) fn note_taken(&self, deliveries: &[Delivery]) {
        if let Some(oldest) = deliveries.first() {
            let now = self.clock.now();
            let waited = now.saturating_duration_since(oldest.message.received);
            self.intake.take(now, waited);
        }
    }

    /// To be called before queries are put to work; gives when.
    pub(super) fn begin_work(&mut self) -> Instant {
        self.slowest.begin(&self.perception.queries);
        self.clock.now()
    }

    /// To be called when they are done that were put to work then.
    pub(super) fn end_work(&self, begun: Instant) {
        let took = self.clock.now().saturating_duration_since(begun);
        self.slowest.end(took, &self.perception.queries, &self.intake);
    }

    /// To be called before anything is logged that moves time on: a replay has to find there that we did not listen.
    pub(super) fn log_deafness(&mut self) {
        if let Some(at_us) = self.listening.deaf_until_us.take() {
            self.note(&Record::Started { at_us }, Vec::new());
        }
    }
}
