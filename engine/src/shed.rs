//! Shedding: messages that nobody waits for are dropped when there is no room for them, and staff is told.
//!
//! Only QoS 0 is shed. Sources count it; here it becomes records of the log, and of these an alert about each site.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use usher_connectors::source::Health;
use usher_queries::rows::time_to_text;

use crate::pipeline::{Asker, Stopping, wall_clock_us};

/// The rule of the alert; no query can have such a name.
pub const SHED: &str = "usher.shed";
/// The alert is over when nothing was shed for so long, microseconds of event time.
pub const OVER_AFTER_US: i64 = 60_000_000;
/// What was shed by then counts as shed now.
const LATELY: Duration = Duration::from_secs(60);
/// How often what sources count is looked at. They tell twice as often.
const LOOK: Duration = Duration::from_secs(1);

/// Why messages were shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShedReason {
    /// The engine had no room for them.
    IntakeFull,
    /// The engine was starting or stopping.
    NotReceiving,
}

impl ShedReason {
    /// All reasons.
    pub const ALL: [Self; 2] = [Self::IntakeFull, Self::NotReceiving];

    /// As in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IntakeFull => "intake_full",
            Self::NotReceiving => "not_receiving",
        }
    }

    /// Whether what is shed goes on being shed, or was lost in passing.
    pub fn severity(self) -> &'static str {
        match self {
            Self::IntakeFull => "warning",
            Self::NotReceiving => "info",
        }
    }

    /// In words, behind "because".
    fn words(self) -> &'static str {
        match self {
            Self::IntakeFull => "the engine had no room for them",
            Self::NotReceiving => "the engine was starting or stopping",
        }
    }

    /// The sentence of an alert.
    pub fn text(self, messages: u64) -> String {
        let (noun, verb) = match messages {
            1 => ("message", "was"),
            _ => ("messages", "were"),
        };
        format!("{messages} {noun} of QoS 0 {verb} dropped because {}", self.words())
    }

    fn counted(self, health: &Health) -> u64 {
        match self {
            Self::IntakeFull => health.shed,
            Self::NotReceiving => health.shed_not_receiving,
        }
    }
}

/// What was shed for one reason since the process started.
#[derive(Debug, Clone, Copy, Default)]
struct Shed {
    counted: u64,
    /// Of these, in the log.
    noted: u64,
    /// When the last was.
    last: Option<Instant>,
    /// When it began without a pause up to that, microseconds since 1970, and how many there were before.
    begun: (i64, u64),
}

/// How much was shed, for those who look at the engine from outside.
#[derive(Debug, Default)]
pub struct Shedding(Mutex<[Shed; ShedReason::ALL.len()]>);

impl Shedding {
    fn lock(&self) -> MutexGuard<'_, [Shed; ShedReason::ALL.len()]> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Takes what sources have counted by now.
    fn count(&self, reason: ShedReason, counted: u64, now: Instant, wall_us: i64) {
        let shed = &mut self.lock()[reason as usize];
        if counted <= shed.counted {
            return;
        }
        if shed
            .last
            .is_none_or(|last| now.saturating_duration_since(last) > LATELY)
        {
            shed.begun = (wall_us, shed.counted);
        }
        (shed.last, shed.counted) = (Some(now), counted);
    }

    /// What is not in the log yet.
    fn not_noted(&self, reason: ShedReason) -> u64 {
        let shed = self.lock()[reason as usize];
        shed.counted - shed.noted
    }

    fn note(&self, reason: ShedReason, messages: u64) {
        self.lock()[reason as usize].noted += messages;
    }

    /// What was shed lately, in words; `None` when nothing was.
    pub fn words(&self) -> Option<String> {
        self.words_at(Instant::now())
    }

    fn words_at(&self, now: Instant) -> Option<String> {
        let shed = *self.lock();
        let lately = ShedReason::ALL.into_iter().zip(shed).filter(|(_, shed)| {
            let age = shed.last.map(|last| now.saturating_duration_since(last));
            age.is_some_and(|age| age <= LATELY)
        });
        let words: Vec<String> = lately
            .map(|(reason, shed)| {
                let (since_us, before) = shed.begun;
                format!(
                    "{} since {}",
                    reason.text(shed.counted - before),
                    time_to_text(since_us)
                )
            })
            .collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

/// Looks at what sources count and has the pipeline note it, until `stop`.
///
/// # Errors
/// [`Stopping`] when the engine is gone.
pub(crate) async fn watch(
    asker: Asker,
    sources: Vec<watch::Receiver<Health>>,
    shedding: Arc<Shedding>,
    stop: CancellationToken,
) -> Result<(), Stopping> {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => return Ok(()),
        }
        for reason in ShedReason::ALL {
            let counted = sources.iter().map(|source| reason.counted(&source.borrow())).sum();
            shedding.count(reason, counted, Instant::now(), wall_clock_us());
            let messages = shedding.not_noted(reason);
            if messages > 0 && asker.ask(move |pipeline| pipeline.shed(reason, messages)).await? {
                shedding.note(reason, messages);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shed_is_said_for_a_minute_with_its_reason_and_since_when() {
        let (shedding, begun) = (Shedding::default(), Instant::now());
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        assert_eq!(shedding.words_at(begun), None);
        shedding.count(ShedReason::IntakeFull, 3, at(1), 1_000_000);
        shedding.count(ShedReason::IntakeFull, 5, at(50), 50_000_000);
        let words =
            "5 messages of QoS 0 were dropped because the engine had no room for them since 1970-01-01T00:00:01Z";
        assert_eq!(shedding.words_at(at(110)).as_deref(), Some(words));
        assert_eq!(shedding.words_at(at(111)), None);
        // After a pause it begins anew, and counts from there.
        shedding.count(ShedReason::IntakeFull, 6, at(200), 200_000_000);
        let words = "1 message of QoS 0 was dropped because the engine had no room for them since 1970-01-01T00:03:20Z";
        assert_eq!(shedding.words_at(at(200)).as_deref(), Some(words));
        assert_eq!(shedding.not_noted(ShedReason::IntakeFull), 6);
        shedding.note(ShedReason::IntakeFull, 6);
        assert_eq!(shedding.not_noted(ShedReason::IntakeFull), 0);
    }
}
