//! The intake is where messages wait for the pipeline. How long they do, and what for, is seen here from outside, also while
//! the pipeline itself can't be asked because it is at work.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::WeakSender;
use usher_connectors::delivery::Delivery;
use usher_queries::query::Query;
use usher_queries::query_set::QuerySet;
use usher_queries::rows::time_to_text;

/// Messages that wait for less are nobody's business: a burst, or a checkpoint.
const LASTS: Duration = Duration::from_secs(1);
/// When no message was taken for so long, messages are not taken. As long as until nobody counts as silent.
const STOPPED_AFTER: Duration = Duration::from_secs(5);
/// Of work that took longer it is worth knowing which query that was.
const SLOW_WORK: Duration = Duration::from_millis(250);

/// What keeps the pipeline from taking messages, other than work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hindrance {
    /// The log's queue has no room for what was taken before.
    Log,
    /// So many steps wait for the disk of the outbox that no more may come.
    Outbox,
}

#[derive(Debug, Default)]
struct State {
    /// When messages could be taken, last.
    free: Option<Instant>,
    hindrance: Option<Hindrance>,
    /// How long the oldest of those taken last had waited.
    waited: Duration,
    /// Since when those that are taken have waited too long.
    behind: Option<Instant>,
    /// The query that took most of the last work that was slow, and how much of it, percent.
    slow_query: Option<(String, u64)>,
}

/// How the intake is, in words and figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What waits, since when and why.
    pub words: String,
    /// What would help.
    pub right: &'static str,
    /// Whether no message was taken for so long that none are taken, as far as anybody can tell.
    pub is_stopped: bool,
}

/// Knows how long messages wait. The pipeline writes it, a few times for each batch.
#[derive(Debug, Default)]
pub struct Intake {
    queue: Option<WeakSender<Delivery>>,
    state: Mutex<State>,
}

impl Intake {
    /// The intake whose messages wait in the channel of this sender.
    pub fn of(queue: WeakSender<Delivery>) -> Self {
        Self {
            queue: Some(queue),
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Messages that wait.
    pub fn queued(&self) -> usize {
        let queue = self.queue.as_ref().and_then(WeakSender::upgrade);
        queue.map_or(0, |queue| queue.max_capacity() - queue.capacity())
    }

    /// Messages were taken, of which the oldest had waited for so long.
    pub(crate) fn take(&self, now: Instant, waited: Duration) {
        let mut state = self.lock();
        (state.free, state.hindrance, state.waited) = (Some(now), None, waited);
        state.note_behind(now, waited);
    }

    /// Whether messages can be taken now, and what keeps them from it.
    pub(crate) fn look(&self, now: Instant, hindrance: Option<Hindrance>) {
        let is_empty = self.queued() == 0;
        let mut state = self.lock();
        state.hindrance = hindrance;
        if hindrance.is_some() {
            state.free.get_or_insert(now);
            return;
        }
        state.free = Some(now);
        if is_empty {
            // Those that were taken last were the last there were.
            state.waited = Duration::ZERO;
            state.note_behind(now, Duration::ZERO);
        }
    }

    /// Work was slow, most of it in this query where there is one to name.
    fn note_slow(&self, query: Option<(String, u64)>) {
        self.lock().slow_query = query;
    }

    /// How long messages wait, as far as is known.
    pub fn waits(&self) -> Duration {
        self.waits_at(Instant::now(), self.queued())
    }

    fn waits_at(&self, now: Instant, queued: usize) -> Duration {
        let state = self.lock();
        match queued > 0 || state.hindrance.is_some() {
            true => state.waited.max(state.stood(now)),
            false => Duration::ZERO,
        }
    }

    /// What waits for longer than a moment; `None` while nothing does.
    pub fn waiting(&self) -> Option<Waiting> {
        self.waiting_at(Instant::now(), crate::pipeline::wall_clock_us(), self.queued())
    }

    fn waiting_at(&self, now: Instant, wall_us: i64, queued: usize) -> Option<Waiting> {
        let state = self.lock();
        let stood = state.stood(now);
        let ago = |since: Duration| {
            let since_us = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
            time_to_text(wall_us.saturating_sub(since_us))
        };
        let messages = match queued {
            1 => "1 message waits".to_owned(),
            queued => format!("{queued} messages wait"),
        };
        let is_stopped = stood >= STOPPED_AFTER;
        match state.hindrance {
            Some(hindrance) if stood >= LASTS => {
                let (why, right) = hindrance.words();
                let since = ago(stood);
                return Some(Waiting {
                    words: format!("no messages are taken since {since}, and {messages}: {why}"),
                    right,
                    is_stopped,
                });
            }
            _ => {}
        }
        let most_in = match &state.slow_query {
            Some((query, percent)) => {
                format!("; the last time that was slow, the query {query} took {percent} % of it")
            }
            None => String::new(),
        };
        let right = "a faster query would be right: `usher explain` says what each one costs, and one that is too slow can be \
                     changed or removed";
        if queued > 0 && stood >= LASTS {
            let since = ago(stood);
            return Some(Waiting {
                words: format!("{messages} for queries that have been at work since {since} without a pause{most_in}"),
                right,
                is_stopped,
            });
        }
        let behind = now.saturating_duration_since(state.behind?);
        (behind >= LASTS).then(|| Waiting {
            words: format!(
                "messages come faster than queries take them since {}: {messages}, and the last ones had waited for {:.1} s{most_in}",
                ago(behind),
                state.waited.as_secs_f64()
            ),
            right,
            is_stopped: false,
        })
    }
}

impl State {
    /// How long no messages could be taken.
    fn stood(&self, now: Instant) -> Duration {
        self.free
            .map_or(Duration::ZERO, |free| now.saturating_duration_since(free))
    }

    fn note_behind(&mut self, now: Instant, waited: Duration) {
        if waited < LASTS {
            self.behind = None;
        } else {
            self.behind.get_or_insert(now.checked_sub(waited).unwrap_or(now));
        }
    }
}

impl Hindrance {
    /// Why, and what would help.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Log => (
                "the queue of the log is full",
                "a faster disk would be right, or a larger `queue` or `queue_size` in [log] where it is slow in passing",
            ),
            Self::Outbox => (
                "too many steps of alerts wait for the disk of the outbox",
                "room on that disk or a faster one would be right, or a larger `queue` in [delivery] where it is slow in passing",
            ),
        }
    }
}

/// Finds which query it is that takes the time.
#[derive(Debug, Default)]
pub(crate) struct Slowest {
    /// What each had spent when the work began, nanoseconds.
    before: Vec<u64>,
}

impl Slowest {
    /// Work begins.
    pub(crate) fn begin(&mut self, queries: &QuerySet) {
        self.before.clear();
        self.before.extend(queries.queries().iter().map(Query::busy_ns));
    }

    /// Work has ended that took so long; if that was long, it is noted what took most of it.
    pub(crate) fn end(&self, took: Duration, queries: &QuerySet, intake: &Intake) {
        if took < SLOW_WORK {
            return;
        }
        let spent = queries
            .queries()
            .iter()
            .map(|query| (query.name().to_string(), query.busy_ns()));
        intake.note_slow(self.most(spent, took));
    }

    /// Who has spent most since the work began, if that was a fair part of so long, and how much of it, percent.
    fn most(&self, spent: impl Iterator<Item = (String, u64)>, took: Duration) -> Option<(String, u64)> {
        let since = |(before, (name, spent)): (&u64, (String, u64))| (spent.saturating_sub(*before), name);
        let (most, name) = self.before.iter().zip(spent).map(since).max()?;
        let percent = u128::from(most) * 100 / took.as_nanos().max(1);
        let percent = u64::try_from(percent).unwrap_or(u64::MAX).min(100);
        (percent >= 20).then_some((name, percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL_US: i64 = 100_000_000;

    fn words(intake: &Intake, now: Instant, queued: usize) -> Option<(String, bool)> {
        let waiting = intake.waiting_at(now, WALL_US, queued);
        waiting.map(|waiting| (waiting.words, waiting.is_stopped))
    }

    #[test]
    fn a_batch_that_does_not_end_is_said_after_a_second_while_messages_wait_and_stops_the_intake_after_five() {
        let (intake, begun) = (Intake::default(), Instant::now());
        let at = |millis: u64| begun + Duration::from_millis(millis);
        assert_eq!(words(&intake, at(9_000), 5), None, "it has not begun");
        intake.take(at(0), Duration::from_millis(3));
        assert_eq!(words(&intake, at(900), 5), None, "a blink");
        assert_eq!(words(&intake, at(60_000), 0), None, "nothing waits for it");
        let said = words(&intake, at(2_000), 5);
        let right = "5 messages wait for queries that have been at work since 1970-01-01T00:01:38Z without a pause";
        assert_eq!(said, Some((right.to_owned(), false)));
        intake.note_slow(Some(("pairs".to_owned(), 97)));
        let (said, is_stopped) = words(&intake, at(5_000), 1).expect("it waits");
        assert!(said.starts_with("1 message waits for queries"), "{said}");
        assert!(said.ends_with("the query pairs took 97 % of it"), "{said}");
        assert!(is_stopped);
        assert_eq!(intake.waits_at(at(5_000), 1), Duration::from_secs(5));
        intake.look(at(5_001), None);
        assert_eq!(words(&intake, at(5_100), 1), None, "it goes on");
    }

    #[test]
    fn messages_that_had_waited_too_long_are_said_until_one_has_not() {
        let (intake, begun) = (Intake::default(), Instant::now() + Duration::from_secs(60));
        let at = |millis: u64| begun + Duration::from_millis(millis);
        let late = Duration::from_millis(1_500);
        intake.take(at(0), late);
        let right = "messages come faster than queries take them since 1970-01-01T00:01:38.500Z: 7 messages wait, and the last \
                     ones had waited for 1.5 s";
        assert_eq!(words(&intake, at(0), 7), Some((right.to_owned(), false)));
        intake.take(at(900), late);
        let (said, _) = words(&intake, at(900), 7).expect("it lasts");
        assert!(
            said.contains(" since 1970-01-01T00:01:37.600Z"),
            "since the first of them: {said}"
        );
        assert_eq!(intake.waits_at(at(900), 7), late);
        intake.take(at(1_000), Duration::from_millis(20));
        assert_eq!(words(&intake, at(1_000), 7), None);
        // The same once none is left, though none came that had not waited.
        intake.take(at(1_100), late);
        intake.look(at(1_150), None);
        assert_eq!(words(&intake, at(1_200), 0), None);
        assert_eq!(intake.waits_at(at(1_200), 0), Duration::ZERO);
    }

    #[test]
    fn an_intake_that_waits_for_a_disk_says_which_whether_or_not_messages_wait() {
        let (intake, begun) = (Intake::default(), Instant::now());
        let at = |millis: u64| begun + Duration::from_millis(millis);
        intake.look(at(0), None);
        intake.look(at(50), Some(Hindrance::Outbox));
        assert_eq!(words(&intake, at(900), 0), None, "a blink");
        intake.look(at(5_950), Some(Hindrance::Outbox));
        let waiting = intake.waiting_at(at(6_000), WALL_US, 0).expect("it lasts");
        assert_eq!(
            waiting.words,
            "no messages are taken since 1970-01-01T00:01:34Z, and 0 messages wait: too many steps of alerts wait for the disk \
             of the outbox"
        );
        assert!(
            waiting.is_stopped && waiting.right.contains("[delivery]"),
            "{waiting:?}"
        );
        intake.look(at(6_050), Some(Hindrance::Log));
        let waiting = intake.waiting_at(at(6_100), WALL_US, 2).expect("it lasts");
        assert!(
            waiting.words.ends_with("2 messages wait: the queue of the log is full"),
            "{waiting:?}"
        );
        intake.look(at(6_150), None);
        assert_eq!(words(&intake, at(6_200), 2), None);
    }

    #[test]
    fn of_slow_work_the_query_is_named_that_took_most_of_it() {
        let (begun, took) = (vec![10_000_000, 310_000_000], Duration::from_millis(400));
        let slowest = Slowest { before: begun };
        let most = |a: u64, b: u64| {
            let spent = [("a".to_owned(), a * 1_000_000), ("b".to_owned(), b * 1_000_000)];
            slowest.most(spent.into_iter(), took)
        };
        assert_eq!(most(20, 610), Some(("b".to_owned(), 75)));
        assert_eq!(most(210, 320), Some(("a".to_owned(), 50)));
        assert_eq!(most(11, 311), None, "it was none of them");
    }
}
