//! Latencies are kept as histograms of microseconds, from which percentiles are read.

use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency told apart; what takes longer counts as this, an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// The latencies of one stage.
#[derive(Debug)]
pub struct Latency {
    histogram: Mutex<Histogram<u64>>,
}

/// What is told of a stage: microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// Half took no longer.
    pub p50_us: u64,
    /// 90 of 100 took no longer.
    pub p90_us: u64,
    /// 99 of 100 took no longer.
    pub p99_us: u64,
    /// 999 of 1,000 took no longer.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            histogram: Mutex::new(Histogram::new_with_bounds(1, LONGEST_US, 2).expect("the bounds are in order")),
        }
    }
}

impl Latency {
    /// One was measured.
    pub fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.histogram
            .lock()
            .expect("no holder of this lock panics")
            .saturating_record(micros);
    }

    /// What was measured since the start.
    pub fn percentiles(&self) -> Percentiles {
        let histogram = self.histogram.lock().expect("no holder of this lock panics");
        Percentiles {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }
}

/// The stages of an event's walk, each from the receipt of its message.
#[derive(Debug, Default)]
pub struct Latencies {
    /// Until it was understood.
    pub decoded: Latency,
    /// Until the queries and alerts had spoken.
    pub evaluated: Latency,
    /// Until it was durable and its publisher acknowledged.
    pub durable: Latency,
    /// Until an alert it caused was with the broker.
    pub alert: Latency,
    /// Of each checkpoint the longest time for which events waited while state was taken for it.
    pub checkpoint_pause: Latency,
    /// Each time for which events waited while state was taken for a checkpoint: many a checkpoint, with events in between.
    pub checkpoint_turn: Latency,
}

impl Latencies {
    /// The stages by name.
    pub fn stages(&self) -> [(&'static str, Percentiles); 4] {
        [
            ("decoded", self.decoded.percentiles()),
            ("evaluated", self.evaluated.percentiles()),
            ("durable", self.durable.percentiles()),
            ("alert", self.alert.percentiles()),
        ]
    }
}
