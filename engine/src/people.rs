//! People keep the engagement of each person, known by a pseudonym only: how recently, how often, by how many ways.
//!
//! All times are event times in microseconds, so that a replay finds the same figures.

use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use usher_queries::rows::time_to_text;
use usher_queries::streams::time_type;

use crate::columns::person;
use crate::event::{Event, Kind, Reading, Response, RfidAction};
use crate::settings::EngagementSettings;

/// People remembered at a time; beyond it the one seen longest ago makes room.
const PEOPLE_MAX: usize = 1_000_000;
/// When there are too many, so many go at once, because finding the oldest costs a walk over all.
const PEOPLE_SHED: usize = PEOPLE_MAX / 16;
/// Two sightings within this time are one stay; a longer gap means that the person was away.
const STAY_GAP_US: i64 = 45 * 60 * 1_000_000;
const DAY_US: i64 = 24 * 3600 * 1_000_000;
/// Someone seen for the first time within this is new.
const NEW_DAYS: i64 = 30;
/// Someone not seen for this long may be drifting away.
const AT_RISK_DAYS: i64 = 60;
/// Someone not seen for this long has gone.
const LAPSED_DAYS: i64 = 180;

/// The ways by which a person can be in touch.
const CHANNELS: [&str; 3] = ["rfid", "web", "reply"];

/// What a person did, in figures. 64 bytes and some.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Figures {
    first_us: i64,
    last_us: i64,
    /// Day of the last event, days since 1970, UTC.
    last_day: i32,
    /// Days with at least one event.
    days: u32,
    events: u64,
    /// Events by channel, as [`CHANNELS`] has them.
    channels: [u32; 3],
    dwell_us: i64,
    last_sighting_us: i64,
    /// The score at `score_us`.
    score: f64,
    score_us: i64,
    /// The gap before the last visit day, in days: someone who came back after long has returned.
    gap_days: i32,
}

/// A person as the API shows it. Durations in seconds, times RFC 3339.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct PersonView {
    /// The pseudonym.
    pub person: String,
    /// The tier the score reaches, in the library's own word.
    pub tier: String,
    /// `new`, `active`, `returned`, `at_risk` or `lapsed`.
    pub life_cycle: &'static str,
    /// What the person did, each act weighted, halved after each half-life.
    pub score: f64,
    /// Seconds since the person was last seen.
    pub recency: i64,
    /// Days on which the person was seen.
    pub frequency: u32,
    /// Events a day seen.
    pub depth: f64,
    /// Ways by which the person was in touch.
    pub breadth: u32,
    /// Their names.
    pub channels: Vec<&'static str>,
    /// Seconds the person was seen to stay, over all visits.
    pub dwell: i64,
    /// Events seen.
    pub events: u64,
    /// When first seen.
    pub first_seen: String,
    /// When last seen.
    pub last_seen: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Kept {
    people: Vec<(Arc<str>, Figures)>,
    opted_out: Vec<Arc<str>>,
}

/// The engagement of all people.
#[derive(Debug)]
pub struct People {
    settings: EngagementSettings,
    people: FxHashMap<Arc<str>, Figures>,
    /// People who do not want to be known; nothing is kept of them but that.
    opted_out: FxHashSet<Arc<str>>,
}

impl People {
    /// Nobody yet.
    pub fn new(settings: EngagementSettings) -> Self {
        Self {
            settings,
            people: FxHashMap::default(),
            opted_out: FxHashSet::default(),
        }
    }

    /// A person did something.
    pub fn take(&mut self, event: &Event) {
        let Some(person) = person(&event.reading) else { return };
        if let Reading::Reply { response, .. } = &event.reading {
            match response {
                Response::OptedOut => {
                    self.people.remove(person);
                    self.opted_out.insert(Arc::from(person));
                    return;
                }
                Response::OptedIn => {
                    self.opted_out.remove(person);
                }
                _ => {}
            }
        }
        if self.opted_out.contains(person) {
            return;
        }
        if !self.people.contains_key(person) {
            self.make_room();
            self.people.insert(Arc::from(person), Figures::first(event.time_us));
        }
        let half_life_us = self.settings.half_life.as_secs_f64() * 1e6;
        if let Some(figures) = self.people.get_mut(person) {
            figures.take(event, half_life_us);
        }
    }

    fn make_room(&mut self) {
        if self.people.len() < PEOPLE_MAX {
            return;
        }
        let mut last_seen: Vec<i64> = self.people.values().map(|figures| figures.last_us).collect();
        let (_, oldest_kept, _) = last_seen.select_nth_unstable(PEOPLE_SHED);
        let oldest_kept = *oldest_kept;
        self.people.retain(|_, figures| figures.last_us >= oldest_kept);
        tracing::warn!("more than {PEOPLE_MAX} people; those seen longest ago are forgotten");
    }

    /// How many people there are.
    pub fn len(&self) -> usize {
        self.people.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.people.is_empty()
    }

    /// One person at the event time `clock_us`; `None` for someone never seen, or who does not want to be known.
    pub fn get(&self, person: &str, clock_us: i64) -> Option<PersonView> {
        let (person, figures) = self.people.get_key_value(person)?;
        Some(self.view(person, figures, clock_us))
    }

    fn view(&self, person: &str, figures: &Figures, clock_us: i64) -> PersonView {
        let clock_us = clock_us.max(figures.last_us);
        let score = figures.score_at(clock_us, self.settings.half_life.as_secs_f64() * 1e6);
        let channels: Vec<&str> = CHANNELS
            .into_iter()
            .zip(figures.channels)
            .filter(|(_, events)| *events > 0)
            .map(|(channel, _)| channel)
            .collect();
        PersonView {
            person: person.to_owned(),
            tier: self.settings.tier(score).to_owned(),
            life_cycle: figures.life_cycle(clock_us),
            score: (score * 1e3).round() / 1e3,
            recency: (clock_us - figures.last_us) / 1_000_000,
            frequency: figures.days,
            depth: (figures.events as f64 / f64::from(figures.days.max(1)) * 1e2).round() / 1e2,
            breadth: u32::try_from(channels.len()).unwrap_or(0),
            channels,
            dwell: figures.dwell_us / 1_000_000,
            events: figures.events,
            first_seen: time_to_text(figures.first_us),
            last_seen: time_to_text(figures.last_us),
        }
    }

    /// Everybody as the table `people`, by pseudonym: person, tier, life_cycle, score, recency (seconds), frequency,
    /// depth, breadth, dwell (seconds), events, first_seen, last_seen.
    pub fn table(&self, clock_us: i64) -> RecordBatch {
        let mut all: Vec<PersonView> = self
            .people
            .iter()
            .map(|(person, figures)| self.view(person, figures, clock_us))
            .collect();
        all.sort_by(|a, b| a.person.cmp(&b.person));
        let times = |of: fn(&Figures) -> i64| {
            TimestampMicrosecondArray::from_iter_values(
                all.iter()
                    .filter_map(|view| self.people.get(view.person.as_str()))
                    .map(of),
            )
        };
        let whole = |of: fn(&PersonView) -> i64| Int64Array::from_iter_values(all.iter().map(of));
        RecordBatch::try_new(
            people_schema(),
            vec![
                Arc::new(StringArray::from_iter_values(
                    all.iter().map(|view| view.person.as_str()),
                )),
                Arc::new(StringArray::from_iter_values(all.iter().map(|view| view.tier.as_str()))),
                Arc::new(StringArray::from_iter_values(all.iter().map(|view| view.life_cycle))),
                Arc::new(Float64Array::from_iter_values(all.iter().map(|view| view.score))),
                Arc::new(whole(|view| view.recency)),
                Arc::new(whole(|view| i64::from(view.frequency))),
                Arc::new(Float64Array::from_iter_values(all.iter().map(|view| view.depth))),
                Arc::new(whole(|view| i64::from(view.breadth))),
                Arc::new(whole(|view| view.dwell)),
                Arc::new(whole(|view| i64::try_from(view.events).unwrap_or(i64::MAX))),
                Arc::new(times(|figures| figures.first_us)),
                Arc::new(times(|figures| figures.last_us)),
            ],
        )
        .expect("each column has one value a person")
    }

    /// For a checkpoint.
    ///
    /// # Errors
    /// When a value can't be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&Kept {
            people: self
                .people
                .iter()
                .map(|(person, figures)| (Arc::clone(person), *figures))
                .collect(),
            opted_out: self.opted_out.iter().map(Arc::clone).collect(),
        })
    }

    /// Takes back what [`People::to_bytes`] gave.
    ///
    /// # Errors
    /// When the bytes are of another version.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        let kept: Kept = postcard::from_bytes(bytes)?;
        self.people = kept.people.into_iter().collect();
        self.opted_out = kept.opted_out.into_iter().collect();
        Ok(())
    }
}

/// The columns of the table `people`.
pub fn people_schema() -> SchemaRef {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, false);
    Arc::new(Schema::new(vec![
        field("person", DataType::Utf8),
        field("tier", DataType::Utf8),
        field("life_cycle", DataType::Utf8),
        field("score", DataType::Float64),
        field("recency", DataType::Int64),
        field("frequency", DataType::Int64),
        field("depth", DataType::Float64),
        field("breadth", DataType::Int64),
        field("dwell", DataType::Int64),
        field("events", DataType::Int64),
        field("first_seen", time_type()),
        field("last_seen", time_type()),
    ]))
}

impl Figures {
    fn first(at_us: i64) -> Self {
        Self {
            first_us: at_us,
            last_us: at_us,
            last_day: i32::MIN,
            days: 0,
            events: 0,
            channels: [0; 3],
            dwell_us: 0,
            last_sighting_us: i64::MIN,
            score: 0.0,
            score_us: at_us,
            gap_days: 0,
        }
    }

    fn take(&mut self, event: &Event, half_life_us: f64) {
        let at = event.time_us;
        self.events += 1;
        self.first_us = self.first_us.min(at);
        self.last_us = self.last_us.max(at);
        let day = i32::try_from(at.div_euclid(DAY_US)).unwrap_or(i32::MAX);
        if day > self.last_day {
            if self.days > 0 {
                self.gap_days = day.saturating_sub(self.last_day);
            }
            self.days += 1;
            self.last_day = day;
        }
        let channel = match event.source.kind {
            Kind::Click => 1,
            Kind::Reply => 2,
            _ => 0,
        };
        self.channels[channel] = self.channels[channel].saturating_add(1);
        if event.source.kind == Kind::Rfid {
            let gap = at.saturating_sub(self.last_sighting_us);
            if self.last_sighting_us != i64::MIN && (0..=STAY_GAP_US).contains(&gap) {
                self.dwell_us += gap;
            }
            self.last_sighting_us = self.last_sighting_us.max(at);
        }
        let weight = weight(&event.reading);
        // An event that comes late counts as much as if it had come in time.
        if at >= self.score_us {
            self.score = self.score_at(at, half_life_us) + weight;
            self.score_us = at;
        } else {
            self.score += weight * decay(self.score_us - at, half_life_us);
        }
    }

    fn score_at(&self, clock_us: i64, half_life_us: f64) -> f64 {
        self.score * decay(clock_us - self.score_us, half_life_us)
    }

    fn life_cycle(&self, clock_us: i64) -> &'static str {
        let unseen_days = (clock_us - self.last_us) / DAY_US;
        let known_days = (clock_us - self.first_us) / DAY_US;
        if unseen_days >= LAPSED_DAYS {
            "lapsed"
        } else if unseen_days >= AT_RISK_DAYS {
            "at_risk"
        } else if i64::from(self.gap_days) >= AT_RISK_DAYS {
            "returned"
        } else if known_days < NEW_DAYS {
            "new"
        } else {
            "active"
        }
    }
}

fn decay(age_us: i64, half_life_us: f64) -> f64 {
    (-(age_us as f64) / half_life_us).exp2()
}

/// What an act weighs: to borrow or to answer is more than to be seen by an antenna.
fn weight(reading: &Reading) -> f64 {
    match reading {
        Reading::Rfid { action, .. } => match action {
            RfidAction::Checkout => 1.0,
            RfidAction::Checkin => 0.5,
            RfidAction::Read => 0.1,
        },
        Reading::Click { action, count, .. } => {
            let one = match action.as_ref() {
                "request" | "reserve" => 1.0,
                "search" | "help" => 0.3,
                _ => 0.1,
            };
            one * f64::from(*count)
        }
        Reading::Reply { response, .. } => match response {
            Response::Accepted => 1.0,
            Response::Opened => 0.3,
            _ => 0.1,
        },
        Reading::Gate(_) | Reading::Seat { .. } => 0.0,
    }
}
