//! A crash point lies between two stages of an event's walk: tests have the process killed there, and look what a
//! restart finds.
//!
//! Passing one does nothing, and compiles to nothing, unless the feature `crash-points` is on, which only tests turn on.
//! Then `USHER_CRASH_AT=synced:3` ends the process as it passes `synced` for the third time. It ends by abort, so
//! nothing is unwound, flushed or said goodbye to. The crate `fail` was looked at: its actions panic, which a task
//! survives, and to count and abort behind its back would leave nothing of it but the macro.

use std::fmt;
use std::str::FromStr;

/// The environment variable that says where to end: `point` or `point:nth`.
pub const VARIABLE: &str = "USHER_CRASH_AT";

/// A boundary between two stages, in the order of the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CrashPoint {
    /// A message has come from the broker.
    Received,
    /// A batch has been read.
    Decoded,
    /// The queries and the alerts have had their say.
    Evaluated,
    /// What there is to tell is in the outbox.
    OutboxWritten,
    /// Records are on their way to the disk.
    Appended,
    /// They are on the disk.
    Synced,
    /// Their publishers have been acknowledged.
    Acknowledged,
    /// A checkpoint is about to be written.
    CheckpointBegun,
    /// Its parts are written; what makes it whole is not.
    CheckpointHalfWritten,
    /// It is whole; those before it are still there.
    CheckpointDone,
    /// A receiver has a message; the outbox does not know it yet.
    Sent,
    /// The outbox knows it.
    Confirmed,
}

impl CrashPoint {
    /// All of them.
    pub const ALL: [CrashPoint; 12] = [
        CrashPoint::Received,
        CrashPoint::Decoded,
        CrashPoint::Evaluated,
        CrashPoint::OutboxWritten,
        CrashPoint::Appended,
        CrashPoint::Synced,
        CrashPoint::Acknowledged,
        CrashPoint::CheckpointBegun,
        CrashPoint::CheckpointHalfWritten,
        CrashPoint::CheckpointDone,
        CrashPoint::Sent,
        CrashPoint::Confirmed,
    ];

    /// As it stands in [`VARIABLE`].
    pub fn name(self) -> &'static str {
        match self {
            CrashPoint::Received => "received",
            CrashPoint::Decoded => "decoded",
            CrashPoint::Evaluated => "evaluated",
            CrashPoint::OutboxWritten => "outbox_written",
            CrashPoint::Appended => "appended",
            CrashPoint::Synced => "synced",
            CrashPoint::Acknowledged => "acknowledged",
            CrashPoint::CheckpointBegun => "checkpoint_begun",
            CrashPoint::CheckpointHalfWritten => "checkpoint_half_written",
            CrashPoint::CheckpointDone => "checkpoint_done",
            CrashPoint::Sent => "sent",
            CrashPoint::Confirmed => "confirmed",
        }
    }

    /// Passes the point: nothing, unless this process is a test's and to be killed here.
    #[inline(always)]
    pub fn pass(self) {
        #[cfg(feature = "crash-points")]
        armed::pass(self);
    }
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no crash point of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no crash point '{0}'")]
pub struct UnknownCrashPoint(String);

impl FromStr for CrashPoint {
    type Err = UnknownCrashPoint;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|point| point.name() == name);
        found.ok_or_else(|| UnknownCrashPoint(name.to_owned()))
    }
}

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{CrashPoint, VARIABLE};

    /// Where to end, and at which passing; `None` for a process that is to live.
    static ARMED: OnceLock<Option<(CrashPoint, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    pub(super) fn pass(point: CrashPoint) {
        let armed = ARMED.get_or_init(|| std::env::var(VARIABLE).ok().map(|value| read(&value)));
        if let Some((at, nth)) = armed
            && *at == point
            && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *nth
        {
            std::process::abort();
        }
    }

    fn read(value: &str) -> (CrashPoint, u64) {
        let (name, nth) = value.split_once(':').unwrap_or((value, "1"));
        match (name.parse(), nth.parse()) {
            (Ok(point), Ok(nth)) => (point, nth),
            // A test that names no point would kill nothing and believe that all is well.
            (Err(error), _) => refuse(&error.to_string()),
            (_, Err(_)) => refuse(&format!("'{nth}' is no number of passings")),
        }
    }

    fn refuse(reason: &str) -> ! {
        eprintln!("{VARIABLE}: {reason}");
        std::process::exit(2)
    }
}

#[cfg(test)]
mod tests {
    use super::CrashPoint;

    #[test]
    fn every_point_is_found_by_its_name() {
        for point in CrashPoint::ALL {
            assert_eq!(point.name().parse(), Ok(point));
        }
        let error = "nowhere".parse::<CrashPoint>().expect_err("there is none");
        assert_eq!(error.to_string(), "there is no crash point 'nowhere'");
    }
}
