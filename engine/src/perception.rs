//! Perception is all that the engine has understood so far: a function of the log and of nothing else.
//!
//! Events go in, steps of alerts come out, and beside them stand the zones, seats, devices and people as they are now.
//! It reads no clock and knows no broker; [`crate::pipeline`] hands it both.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use usher_queries::query::Output;
use usher_queries::query_set::{QuerySet, Restored};
use usher_queries::snapshot::QuerySnapshot;
use usher_queries::watermark::{WatermarkOptions, Watermarks};

use crate::alert::Trace;
use crate::alerts::{Action, Alerts, Moment, Step};
use crate::columns::{Observed, rows_of};
use crate::devices::Devices;
use crate::event::{Clock, Event, Gate, Kind, Reading};
use crate::gate_totals::GateTotals;
use crate::people::People;
use crate::seats::{SEAT_STATE, Seats};
use crate::settings::Settings;
use crate::site::Places;
use crate::zones::{OCCUPANCY, Zones};

/// What is kept, and how.
#[derive(Debug, Clone)]
pub struct PerceptionOptions {
    /// How the watermark follows the devices.
    pub watermark: WatermarkOptions,
    /// Cleared alerts kept to show.
    pub keep_cleared: usize,
    /// How engagement is scored.
    pub engagement: crate::settings::EngagementSettings,
}

impl PerceptionOptions {
    /// As the settings say.
    pub fn of(settings: &Settings) -> Self {
        let micros = |duration: std::time::Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self {
            watermark: WatermarkOptions {
                delay_us: micros(settings.time.delay),
                idle_us: micros(settings.time.idle),
            },
            keep_cleared: settings.keep_cleared_alerts,
            engagement: settings.engagement.clone(),
        }
    }
}

/// Why a checkpoint's part can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the checkpoint's part '{part}' can't be read: {cause}")]
pub struct RestoreError {
    /// The part.
    pub part: String,
    /// What is wrong with it.
    pub cause: String,
}

/// What the queries have to be told of an event beside what it says: the watermark it met, and the differences of
/// totals.
#[derive(Debug)]
pub struct Observing {
    options: WatermarkOptions,
    watermarks: Watermarks,
    totals: GateTotals,
    newest_us: Option<i64>,
}

impl Observing {
    /// Nothing observed yet.
    pub fn new(options: WatermarkOptions) -> Self {
        Self {
            options,
            watermarks: Watermarks::new(options),
            totals: GateTotals::default(),
            newest_us: None,
        }
    }

    /// The watermark now, `i64::MIN` before the first event.
    pub fn watermark(&self) -> i64 {
        self.watermarks.current()
    }

    /// Observes an event of the device with that number.
    pub fn observe<'e>(&mut self, device: u64, event: &'e Event) -> Observed<'e> {
        let watermark = match event.clock {
            Clock::Device | Clock::Missing => {
                self.newest_us = self.newest_us.max(Some(event.time_us));
                self.watermarks.observe(device, event.time_us, event.received_us)
            }
            // The time of such an event is ours; it says nothing about how far the others are.
            Clock::Ahead | Clock::Unset => self.watermarks.tick(event.received_us),
        };
        let passed = match &event.reading {
            Reading::Gate(Gate::Passed { entered, exited }) => (i64::from(*entered), i64::from(*exited)),
            Reading::Gate(Gate::Totals { entered, exited }) => {
                let passage = self.totals.passed(&event.source, event.time_us, *entered, *exited);
                (
                    i64::try_from(passage.entered).unwrap_or(i64::MAX),
                    i64::try_from(passage.exited).unwrap_or(i64::MAX),
                )
            }
            _ => (0, 0),
        };
        Observed {
            event,
            watermark,
            passed,
        }
    }
}

/// Observes events whose devices nobody has numbered: a trial.
pub fn observe_all<'e>(observing: &mut Observing, events: &'e [Event]) -> Vec<Observed<'e>> {
    use std::hash::{BuildHasher, BuildHasherDefault};
    let hasher = BuildHasherDefault::<rustc_hash::FxHasher>::default();
    events
        .iter()
        .map(|event| observing.observe(hasher.hash_one(&event.source), event))
        .collect()
}

/// All that is known.
pub struct Perception {
    places: Arc<Places>,
    /// The continuous queries.
    pub queries: QuerySet,
    observing: Observing,
    /// The devices heard of.
    pub devices: Devices,
    /// The counts of zones.
    pub zones: Zones,
    /// The states of seats.
    pub seats: Seats,
    /// Engagement.
    pub people: People,
    /// Alerts and their lives.
    pub alerts: Alerts,
    now_us: i64,
}

impl Perception {
    /// Knows nothing yet but the place and the queries.
    pub fn new(options: PerceptionOptions, places: Arc<Places>, queries: QuerySet) -> Self {
        let mut perception = Self {
            observing: Observing::new(options.watermark),
            devices: Devices::new(),
            zones: Zones::new(),
            seats: Seats::new(),
            people: People::new(options.engagement),
            alerts: Alerts::new(options.keep_cleared),
            places,
            queries,
            now_us: 0,
        };
        perception.learn_rules();
        perception
    }

    /// The place as configured.
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// The event time it is now: that of the newest event, or the watermark where that has gone on. `None` before the
    /// first event.
    pub fn clock_us(&self) -> Option<i64> {
        let watermark = self.observing.watermark();
        self.observing.newest_us.map(|newest| newest.max(watermark))
    }

    /// The watermark, `i64::MIN` before the first event.
    pub fn watermark(&self) -> i64 {
        self.observing.watermark()
    }

    /// How the watermark follows the devices.
    pub fn watermark_options(&self) -> WatermarkOptions {
        self.observing.options
    }

    /// The number of the device that holds the watermark back.
    pub fn holder(&self) -> Option<u64> {
        self.observing.watermarks.holder()
    }

    /// Takes events in the order of the log. `trace_of` tells how long the stages took for the event at an index.
    pub fn take(&mut self, events: &[Event], trace_of: &dyn Fn(usize) -> Trace) -> Vec<Step> {
        let mut observed = Vec::with_capacity(events.len());
        for event in events {
            self.now_us = self.now_us.max(event.received_us);
            let device = self.devices.hear(event, &self.places);
            observed.push(self.observing.observe(device, event));
        }
        let mut outputs = Vec::new();
        for kind in Kind::ALL {
            if self.queries.reads(kind.as_str())
                && let Some(rows) = rows_of(kind, &observed)
            {
                self.queries.push(kind.as_str(), &rows, &mut outputs);
            }
        }
        self.queries.advance(self.observing.watermark(), &mut outputs);
        for event in events {
            self.people.take(event);
        }
        let index_of = |id: &str| events.iter().position(|event| event.id.as_ref() == id);
        let moment = Moment {
            now_us: self.now_us,
            places: &self.places,
            time_of: &|id| index_of(id).map(|index| events[index].time_us),
            trace_of: &|id| index_of(id).map(trace_of).unwrap_or_default(),
        };
        keep(&outputs, &mut self.zones, &mut self.seats, &self.places);
        let mut steps = Vec::new();
        self.alerts.take(&outputs, &moment, &mut steps);
        self.alerts.ring(self.observing.watermark(), &moment, &mut steps);
        steps
    }

    /// Time goes on without an event; `now_us` is our clock.
    pub fn tick(&mut self, now_us: i64) -> Vec<Step> {
        self.now_us = self.now_us.max(now_us);
        let watermark = self.observing.watermarks.tick(self.now_us);
        let mut outputs = Vec::new();
        self.queries.advance(watermark, &mut outputs);
        let moment = no_events(self.now_us, &self.places);
        keep(&outputs, &mut self.zones, &mut self.seats, &self.places);
        let mut steps = Vec::new();
        self.alerts.take(&outputs, &moment, &mut steps);
        self.alerts.ring(watermark, &moment, &mut steps);
        self.alerts.wake(&moment, &mut steps);
        steps
    }

    /// We begin to listen at `now_us`, after a pause in which nothing could be heard.
    pub fn begin_listening(&mut self, now_us: i64) {
        if let Some(event_time) = self.observing.watermarks.clock_at(now_us) {
            self.alerts.listen_from(event_time);
        }
    }

    /// Does what staff did; gives the steps, the alert's own among them, or `None` when there is no such alert.
    pub fn act(&mut self, action: &Action) -> Option<Vec<Step>> {
        self.now_us = self.now_us.max(action.at_us);
        let moment = no_events(self.now_us, &self.places);
        let mut steps = Vec::new();
        self.alerts
            .act(action, self.observing.watermark(), &moment, &mut steps)?;
        Some(steps)
    }

    /// To be called when queries came or went; tells of alerts that went with them.
    pub fn learn_rules(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        let moment = no_events(self.now_us, &self.places);
        self.alerts.set_rules(self.queries.queries(), &moment, &mut steps);
        steps
    }

    /// Everything that has to be remembered over a restart, by name.
    ///
    /// # Errors
    /// In words, when a part can't be written.
    pub fn snapshot(&mut self) -> Result<Vec<(String, Bytes)>, String> {
        let words = |part: &str, cause: &dyn std::fmt::Display| format!("the part '{part}' can't be saved: {cause}");
        let queries = self.queries.snapshot().map_err(|error| words("queries", &error))?;
        let queries: Vec<Vec<u8>> = queries
            .iter()
            .map(QuerySnapshot::to_bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| words("queries", &error))?;
        let clock = (
            &self.observing.watermarks,
            self.queries.watermark(),
            self.observing.newest_us,
            self.now_us,
        );
        let postcard = |part: &str, bytes: Result<Vec<u8>, postcard::Error>| match bytes {
            Ok(bytes) => Ok((part.to_owned(), Bytes::from(bytes))),
            Err(error) => Err(words(part, &error)),
        };
        Ok(vec![
            postcard("clock", postcard::to_stdvec(&clock))?,
            postcard("queries", postcard::to_stdvec(&queries))?,
            postcard("totals", postcard::to_stdvec(&self.observing.totals))?,
            postcard("devices", self.devices.to_bytes())?,
            postcard("zones", self.zones.to_bytes())?,
            postcard("seats", self.seats.to_bytes())?,
            postcard("people", self.people.to_bytes())?,
            (
                "alerts".to_owned(),
                Bytes::from(self.alerts.to_bytes().map_err(|error| words("alerts", &error))?),
            ),
        ])
    }

    /// Takes back what [`Perception::snapshot`] gave; says of each query that could not go on why.
    ///
    /// # Errors
    /// [`RestoreError`]; then nothing of this perception should be used.
    pub fn restore(&mut self, parts: &[(String, Bytes)]) -> Result<Vec<(String, Restored)>, RestoreError> {
        let mut outcomes = Vec::new();
        let mut query_parts: Vec<Vec<u8>> = Vec::new();
        let mut query_watermark = None;
        for (part, bytes) in parts {
            let failed = |cause: String| RestoreError {
                part: part.clone(),
                cause,
            };
            let postcard = |result: Result<(), postcard::Error>| result.map_err(|error| failed(error.to_string()));
            match part.as_str() {
                "clock" => {
                    let clock: (Watermarks, Option<i64>, Option<i64>, i64) =
                        postcard::from_bytes(bytes).map_err(|error| failed(error.to_string()))?;
                    (
                        self.observing.watermarks,
                        query_watermark,
                        self.observing.newest_us,
                        self.now_us,
                    ) = clock;
                }
                "queries" => query_parts = postcard::from_bytes(bytes).map_err(|error| failed(error.to_string()))?,
                "totals" => {
                    self.observing.totals = postcard::from_bytes(bytes).map_err(|error| failed(error.to_string()))?
                }
                "devices" => postcard(self.devices.restore(bytes))?,
                "zones" => postcard(self.zones.restore(bytes, &self.places))?,
                "seats" => postcard(self.seats.restore(bytes, &self.places))?,
                "people" => postcard(self.people.restore(bytes))?,
                "alerts" => self.alerts.restore(bytes).map_err(|error| failed(error.to_string()))?,
                _ => {}
            }
        }
        let mut snapshots = Vec::new();
        for bytes in &query_parts {
            match QuerySnapshot::from_bytes(bytes) {
                Ok(snapshot) => snapshots.push(snapshot),
                Err(error) => outcomes.push(("?".to_owned(), Restored::Unreadable(error.strip_backtrace()))),
            }
        }
        outcomes.extend(self.queries.restore(query_watermark, &snapshots));
        self.learn_rules();
        Ok(outcomes)
    }
}

fn no_events(now_us: i64, places: &Places) -> Moment<'_> {
    Moment {
        now_us,
        places,
        time_of: &|_| None,
        trace_of: &|_| Trace::default(),
    }
}

/// What the queries said of zones and seats goes to those who keep it.
fn keep(outputs: &[Output], zones: &mut Zones, seats: &mut Seats, places: &Places) {
    for output in outputs {
        match output.query.as_ref() {
            OCCUPANCY => zones.take(&output.rows, places),
            SEAT_STATE => seats.take(&output.rows, places),
            _ => {}
        }
    }
}
