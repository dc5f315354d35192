//! The clock is handed to whoever runs on time, so that tests of an hour need none and a simulation has its own.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use usher_connectors::BoxFuture;

/// Tells the time and waits.
pub trait Clock: Send + Sync + 'static {
    /// Now. It never goes back.
    fn now(&self) -> Instant;

    /// What time it is, microseconds since 1970. People and daemons put it forward and back.
    fn wall_us(&self) -> i64;

    /// Waits until then.
    fn sleep_until(&self, until: Instant) -> BoxFuture<'static, ()>;

    /// From 0 to 1, by chance: by it pauses are spread, so that several do not end at once.
    fn spread(&self) -> f64;
}

/// How long it is since then by this clock.
pub(crate) fn since(clock: &dyn Clock, then: Instant) -> Duration {
    clock.now().saturating_duration_since(then)
}

/// The clock of the system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall_us(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    fn sleep_until(&self, until: Instant) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(until.into()))
    }

    fn spread(&self) -> f64 {
        rand::random()
    }
}
