//! The clock of a simulation stands still until it is moved, but for a moment at each look.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use usher_connectors::BoxFuture;

use super::random::Random;
use crate::clock::Clock;

/// A clock, and the wall clock beside it that jumps.
pub(super) struct SimClock(Mutex<State>);

struct State {
    now: Instant,
    wall_us: i64,
    /// How far each look moves it: what takes time takes it by looking.
    look: Duration,
    sleepers: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
    number: u64,
    random: Random,
}

impl State {
    fn go_to(&mut self, to: Instant) {
        let by = to.saturating_duration_since(self.now);
        self.now += by;
        self.wall_us += i64::try_from(by.as_micros()).expect("a simulation lasts minutes");
    }
}

impl SimClock {
    pub(super) fn new(wall_us: i64, random: Random) -> Self {
        Self(Mutex::new(State {
            now: Instant::now(),
            wall_us,
            look: Duration::ZERO,
            sleepers: BTreeMap::new(),
            number: 0,
            random,
        }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Goes on to the next sleeper that wakes before `end`, or to `end`; false when it is there.
    pub(super) fn go_on(&self, end: Instant) -> bool {
        let mut state = self.lock();
        state.sleepers.retain(|_, sleeper| !sleeper.is_closed());
        if let Some(entry) = state.sleepers.first_entry()
            && entry.key().0 <= end
        {
            let ((at, _), sleeper) = entry.remove_entry();
            state.go_to(at);
            let _ = sleeper.send(());
            return true;
        }
        state.go_to(end);
        false
    }

    /// The wall clock is put forward or back.
    pub(super) fn jump(&self, by_us: i64) {
        self.lock().wall_us += by_us;
    }

    /// From now on each look takes so long.
    pub(super) fn set_look(&self, look: Duration) {
        self.lock().look = look;
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        let mut state = self.lock();
        let to = state.now + state.look;
        state.go_to(to);
        state.now
    }

    fn wall_us(&self) -> i64 {
        self.lock().wall_us
    }

    fn sleep_until(&self, until: Instant) -> BoxFuture<'static, ()> {
        let mut state = self.lock();
        if until <= state.now {
            return Box::pin(std::future::ready(()));
        }
        let (sender, receiver) = oneshot::channel();
        let number = state.number;
        state.number += 1;
        state.sleepers.insert((until, number), sender);
        Box::pin(async move {
            let _ = receiver.await;
        })
    }

    fn spread(&self) -> f64 {
        self.lock().random.below(1_000) as f64 / 1_000.0
    }
}
