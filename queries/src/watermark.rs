//! The watermark tells up to which event time everything has been seen, as far as anyone can know.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

/// How the watermark follows its sources. All in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkOptions {
    /// How far events of one source may come out of order.
    pub delay_us: i64,
    /// A source silent so long on the clock no longer holds the watermark back; when all are, the clock takes over.
    pub idle_us: i64,
}

/// What one source has shown. All in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Progress {
    latest_event: i64,
    last_received: i64,
}

/// The watermark over all sources: the least of their latest event times, less the delay.
///
/// A source is whatever keeps its own order, here a device. The result depends on the events and the times at which
/// they were received, and on nothing else, so that a replay of the log finds the same watermarks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub struct Watermarks {
    options: WatermarkOptions,
    sources: FxHashMap<u64, Progress>,
    /// Sources that are not known to be idle by (latest event, source): the first holds the watermark.
    order: BTreeSet<(i64, u64)>,
    watermark: i64,
    /// The newest event over all sources: (event time, when it was received).
    newest: Option<(i64, i64)>,
}

/// In a checkpoint, when a source was last heard of that had stepped aside. That is not read again before it speaks, and
/// long enough ago for everybody who does read it.
const ASIDE: i64 = i64::MIN / 2;

/// What a checkpoint keeps.
#[derive(Serialize, Deserialize)]
struct Kept {
    options: WatermarkOptions,
    /// Those that have stepped aside were last heard of at [`ASIDE`].
    sources: FxHashMap<u64, Progress>,
    watermark: i64,
    /// Worked out anew when it is read.
    holder: Option<u64>,
    newest: Option<(i64, i64)>,
}

impl From<Kept> for Watermarks {
    fn from(kept: Kept) -> Self {
        Self {
            // Who has stepped aside stays there: the next look may be by a clock that was put back.
            order: kept
                .sources
                .iter()
                .filter(|(_, progress)| progress.last_received != ASIDE)
                .map(|(source, progress)| (progress.latest_event, *source))
                .collect(),
            options: kept.options,
            sources: kept.sources,
            watermark: kept.watermark,
            newest: kept.newest,
        }
    }
}

impl From<Watermarks> for Kept {
    fn from(watermarks: Watermarks) -> Self {
        let mut sources = watermarks.sources.clone();
        for (source, progress) in &mut sources {
            if !watermarks.order.contains(&(progress.latest_event, *source)) {
                progress.last_received = ASIDE;
            }
        }
        Self {
            holder: watermarks.holder(),
            options: watermarks.options,
            sources,
            watermark: watermarks.watermark,
            newest: watermarks.newest,
        }
    }
}

impl Watermarks {
    /// No source yet; the watermark stands at the beginning of time.
    pub fn new(options: WatermarkOptions) -> Self {
        Self {
            options,
            sources: FxHashMap::default(),
            order: BTreeSet::new(),
            watermark: i64::MIN,
            newest: None,
        }
    }

    /// The watermark now.
    pub fn current(&self) -> i64 {
        self.watermark
    }

    /// An event of `source` came; gives the watermark that stood when it came, by which its lateness is judged.
    pub fn observe(&mut self, source: u64, event_time: i64, received: i64) -> i64 {
        let before = self.tick(received);
        let progress = self.sources.entry(source).or_insert(Progress {
            latest_event: event_time,
            last_received: received,
        });
        self.order.remove(&(progress.latest_event, source));
        progress.last_received = received;
        progress.latest_event = progress.latest_event.max(event_time);
        self.order.insert((progress.latest_event, source));
        if self.newest.is_none_or(|(newest, _)| event_time >= newest) {
            self.newest = Some((event_time, received));
        }
        self.step_aside(received);
        self.follow_slowest();
        before
    }

    /// The clock moved on to `now` without an event; gives the watermark after it.
    pub fn tick(&mut self, now: i64) -> i64 {
        self.step_aside(now);
        self.follow_slowest();
        if self.order.is_empty()
            && let Some((event_time, received)) = self.newest
        {
            // Every source is idle: time goes on from the newest event at the pace of the clock, so that a quiet
            // room's last window closes, also when the events are a recording from another year.
            self.raise(event_time + (now - received) - self.options.delay_us);
        }
        self.watermark
    }

    /// The event time it is when our clock shows `now`: that of the newest event, gone on since at the pace of the
    /// clock. `None` before the first event.
    pub fn clock_at(&self, now: i64) -> Option<i64> {
        self.newest
            .map(|(event_time, received)| event_time + (now - received).max(0))
    }

    /// Which source holds the watermark back, if one does.
    pub fn holder(&self) -> Option<u64> {
        self.order.first().map(|(_, source)| *source)
    }

    /// Sources that are idle hold nothing back until they speak again.
    fn step_aside(&mut self, now: i64) {
        while let Some((_, slowest)) = self.order.first()
            && now - self.sources[slowest].last_received > self.options.idle_us
        {
            self.order.pop_first();
        }
    }

    fn follow_slowest(&mut self) {
        if let Some((latest_event, _)) = self.order.first() {
            self.raise(latest_event - self.options.delay_us);
        }
    }

    fn raise(&mut self, candidate: i64) {
        self.watermark = self.watermark.max(candidate);
    }
}

#[cfg(test)]
mod tests {
    use super::{WatermarkOptions, Watermarks};

    const SECOND: i64 = 1_000_000;

    fn watermarks() -> Watermarks {
        Watermarks::new(WatermarkOptions {
            delay_us: 2 * SECOND,
            idle_us: 10 * SECOND,
        })
    }

    #[test]
    fn the_slowest_source_holds_the_watermark() {
        let mut watermarks = watermarks();
        watermarks.observe(1, 100 * SECOND, 0);
        watermarks.observe(2, 50 * SECOND, 0);
        assert_eq!(watermarks.current(), 98 * SECOND, "it never goes back for a newcomer");
        watermarks.observe(1, 200 * SECOND, SECOND);
        assert_eq!(watermarks.current(), 98 * SECOND);
        watermarks.observe(2, 150 * SECOND, SECOND);
        assert_eq!(watermarks.current(), 148 * SECOND);
    }

    #[test]
    fn an_idle_source_steps_aside() {
        let mut watermarks = watermarks();
        watermarks.observe(1, 100 * SECOND, 0);
        watermarks.observe(2, 100 * SECOND, 0);
        for second in 1..=11 {
            watermarks.observe(1, (100 + second) * SECOND, second * SECOND);
        }
        assert_eq!(watermarks.current(), 109 * SECOND);
    }

    #[test]
    fn an_idle_source_that_speaks_again_holds_the_watermark_again() {
        let mut watermarks = watermarks();
        watermarks.observe(1, 100 * SECOND, 0);
        watermarks.observe(2, 100 * SECOND, 0);
        watermarks.observe(1, 120 * SECOND, 20 * SECOND);
        watermarks.tick(20 * SECOND);
        assert_eq!((watermarks.holder(), watermarks.current()), (Some(1), 118 * SECOND));
        watermarks.observe(2, 90 * SECOND, 21 * SECOND);
        watermarks.observe(1, 140 * SECOND, 22 * SECOND);
        assert_eq!((watermarks.holder(), watermarks.current()), (Some(2), 118 * SECOND));
    }

    #[test]
    fn an_idle_source_behind_the_slowest_steps_aside_with_it() {
        let mut watermarks = watermarks();
        watermarks.observe(2, 101 * SECOND, 0);
        watermarks.observe(1, 100 * SECOND, 9 * SECOND);
        watermarks.observe(3, 200 * SECOND, 11 * SECOND);
        watermarks.observe(1, 150 * SECOND, 12 * SECOND);
        assert_eq!((watermarks.holder(), watermarks.current()), (Some(1), 148 * SECOND));
    }

    #[test]
    fn a_checkpoint_brings_back_what_stood() {
        let mut watermarks = watermarks();
        watermarks.observe(1, 100 * SECOND, 0);
        watermarks.observe(2, 110 * SECOND, 0);
        let bytes = serde_json::to_vec(&watermarks).expect("it can be written");
        let mut again: Watermarks = serde_json::from_slice(&bytes).expect("it can be read");
        assert_eq!((again.holder(), again.current()), (Some(1), 98 * SECOND));
        for watermarks in [&mut watermarks, &mut again] {
            watermarks.observe(1, 130 * SECOND, SECOND);
            assert_eq!((watermarks.holder(), watermarks.current()), (Some(2), 108 * SECOND));
        }
    }

    #[test]
    fn who_stepped_aside_before_a_checkpoint_holds_nothing_back_after_it_though_the_clock_was_put_back() {
        let mut watermarks = watermarks();
        watermarks.observe(1, 100 * SECOND, 0);
        watermarks.observe(2, 110 * SECOND, 0);
        watermarks.tick(40 * SECOND);
        assert_eq!((watermarks.holder(), watermarks.current()), (None, 148 * SECOND));
        let bytes = serde_json::to_vec(&watermarks).expect("it can be written");
        let mut again: Watermarks = serde_json::from_slice(&bytes).expect("it can be read");
        for watermarks in [&mut watermarks, &mut again] {
            watermarks.observe(2, 160 * SECOND, 5 * SECOND);
            assert_eq!((watermarks.holder(), watermarks.current()), (Some(2), 158 * SECOND));
        }
    }

    #[test]
    fn when_all_are_idle_the_clock_takes_over_at_its_own_pace() {
        let mut watermarks = watermarks();
        watermarks.observe(1, 100 * SECOND, 1_000 * SECOND);
        assert_eq!(watermarks.tick(1_010 * SECOND), 98 * SECOND);
        assert_eq!(watermarks.tick(1_060 * SECOND), 158 * SECOND);
    }

    #[test]
    fn lateness_is_judged_by_the_watermark_before_the_event() {
        let mut watermarks = watermarks();
        assert_eq!(watermarks.observe(1, 100 * SECOND, 0), i64::MIN);
        assert_eq!(watermarks.observe(1, 300 * SECOND, 0), 98 * SECOND);
    }
}
