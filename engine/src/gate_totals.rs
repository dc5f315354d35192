//! Gate totals turn the standing of a counter into people who passed, through resets, wraps and disorder.

use std::sync::Arc;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

use crate::capture::{Entries, Since};
use crate::changes::Changes;
use crate::event::Source;

/// Where the registers of counters end: 16 bits, six decimal digits, 32 bits.
const REGISTER_ENDS: [u64; 3] = [65_535, 999_999, 4_294_967_295];
/// A counter has wrapped when it stood this near before its end, and this near behind its beginning, as a share of
/// the register.
const WRAP_SHARE: u64 = 100;
/// More people than this between two readings did not pass: the counter was exchanged or set. Real recordings have
/// jumps of hundreds of thousands.
const JUMP_MAX: u64 = 10_000;

/// Who passed between two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passage {
    /// Into the zone.
    pub entered: u64,
    /// Out of it.
    pub exited: u64,
    /// What was special, if anything was.
    pub note: Option<TotalsNote>,
}

/// What was special about a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TotalsNote {
    /// The first of this counter: from here it counts.
    Baseline,
    /// Older than the last one: left out.
    OutOfOrder,
    /// The counter began again at zero.
    Reset,
    /// The counter went through its end.
    Wrapped,
    /// More than can have passed: from here it counts anew.
    Implausible,
}

/// Where a counter stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stood {
    time_us: i64,
    entered: Option<u64>,
    exited: Option<u64>,
}

/// Where each counter stands.
#[derive(Debug, Default)]
pub struct GateTotals {
    counters: IndexMap<Arc<Source>, Stood, FxBuildHasher>,
    changes: Changes<Arc<Source>, Stood>,
}

impl GateTotals {
    /// A counter of `source` stood there at `time_us`; gives who passed since its last reading.
    pub fn passed(&mut self, source: &Arc<Source>, time_us: i64, entered: Option<u64>, exited: Option<u64>) -> Passage {
        self.changes.note(source);
        let Some(stood) = self.counters.get_mut(source) else {
            let stood = Stood {
                time_us,
                entered,
                exited,
            };
            self.counters.insert(Arc::clone(source), stood);
            return Passage {
                note: Some(TotalsNote::Baseline),
                ..Passage::default()
            };
        };
        if time_us < stood.time_us {
            return Passage {
                note: Some(TotalsNote::OutOfOrder),
                ..Passage::default()
            };
        }
        stood.time_us = time_us;
        let (entered, first) = step(&mut stood.entered, entered);
        let (exited, second) = step(&mut stood.exited, exited);
        Passage {
            entered,
            exited,
            note: first.or(second),
        }
    }
}

impl GateTotals {
    /// Takes counters that were read since the last checkpoint, about `room` of them, ahead of the next one.
    pub fn gather(&mut self, room: &mut usize) {
        self.changes.gather(room, &self.counters);
    }

    /// For a checkpoint: the counters that were read since the last one.
    pub fn capture(&mut self) -> Since<Arc<Source>, Stood> {
        self.changes.take(&self.counters)
    }

    /// The next capture is to hold everything.
    pub fn capture_anew(&mut self) {
        self.changes.begin_anew();
    }

    /// Takes back what was captured.
    pub fn restore(&mut self, rows: Entries<Arc<Source>, Stood>) {
        for (source, stood) in rows {
            match stood {
                Some(stood) => self.counters.insert(source, stood),
                None => self.counters.swap_remove(&source),
            };
        }
    }
}

/// One direction of a counter goes on to `now`.
fn step(stood: &mut Option<u64>, now: Option<u64>) -> (u64, Option<TotalsNote>) {
    let Some(now) = now else { return (0, None) };
    let Some(before) = stood.replace(now) else {
        return (0, Some(TotalsNote::Baseline));
    };
    let (passed, note) = match now.checked_sub(before) {
        Some(passed) => (passed, None),
        None => {
            let wrapped = REGISTER_ENDS.into_iter().find(|end| {
                let near = end / WRAP_SHARE;
                before <= *end && before >= end - near && now <= near
            });
            match wrapped {
                Some(end) => (end - before + 1 + now, Some(TotalsNote::Wrapped)),
                // It began again at zero, and counted up to here since.
                None => (now, Some(TotalsNote::Reset)),
            }
        }
    };
    if passed > JUMP_MAX {
        return (0, Some(TotalsNote::Implausible));
    }
    (passed, note)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{GateTotals, Passage, TotalsNote};
    use crate::event::{Kind, Source};

    fn source() -> Arc<Source> {
        Arc::new(Source {
            site: "s".into(),
            zone: "z".into(),
            kind: Kind::Gate,
            device: "d".into(),
        })
    }

    #[test]
    fn totals_become_passages() {
        let (source, mut totals) = (source(), GateTotals::default());
        let mut at = 0;
        let mut read = |entered: u64, exited: u64| {
            at += 1;
            totals.passed(&source, at, Some(entered), Some(exited))
        };
        let plain = |entered, exited| Passage {
            entered,
            exited,
            note: None,
        };
        assert_eq!(read(1204, 1180).note, Some(TotalsNote::Baseline));
        assert_eq!(read(1206, 1181), plain(2, 1));
        assert_eq!(read(1206, 1181), plain(0, 0), "a heartbeat");
        let reset = read(3, 1);
        assert_eq!(
            (reset.entered, reset.exited, reset.note),
            (3, 1, Some(TotalsNote::Reset))
        );
        let jump = read(387_623, 2);
        assert_eq!(
            (jump.entered, jump.exited, jump.note),
            (0, 1, Some(TotalsNote::Implausible))
        );
        assert_eq!(read(387_624, 2), plain(1, 0), "it counts from there");
    }

    #[test]
    fn a_register_goes_through_its_end() {
        let (source, mut totals) = (source(), GateTotals::default());
        totals.passed(&source, 0, Some(65_530), None);
        let wrapped = totals.passed(&source, 1, Some(4), None);
        assert_eq!((wrapped.entered, wrapped.note), (10, Some(TotalsNote::Wrapped)));
    }

    #[test]
    fn an_older_reading_is_left_out() {
        let (source, mut totals) = (source(), GateTotals::default());
        totals.passed(&source, 10, Some(5), Some(5));
        assert_eq!(
            totals.passed(&source, 9, Some(4), Some(4)).note,
            Some(TotalsNote::OutOfOrder)
        );
        assert_eq!(totals.passed(&source, 11, Some(6), Some(5)).entered, 1);
    }
}
