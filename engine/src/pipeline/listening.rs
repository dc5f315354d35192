//! Whether the pipeline listens. While what it has can't be handed on it takes no messages, and whoever is not heard then is
//! not silent.

use std::time::{Duration, Instant};

use super::Pipeline;
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
        if self.held.is_empty() && self.outbox.has_room() {
            self.listening.stopped = None;
            return;
        }
        let now = self.clock.now();
        let stopped = *self.listening.stopped.get_or_insert(now);
        if now.saturating_duration_since(stopped) >= DEAF_AFTER {
            let at_us = self.now_us.max(self.perception.now_us());
            let due_before = self.perception.begin_listening(at_us);
            // Logged before it is noted that we did not listen, as it came.
            self.tell_in_time(due_before);
            self.listening.deaf_until_us = Some(at_us);
        }
    }

    /// To be called before anything is logged that moves time on: a replay has to find there that we did not listen.
    pub(super) fn log_deafness(&mut self) {
        if let Some(at_us) = self.listening.deaf_until_us.take() {
            self.note(&Record::Started { at_us }, Vec::new());
        }
    }
}
