//! Zones keep the live count of each zone as the query `occupancy` tells it, with a short history for the page.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use usher_queries::row::Rows;
use usher_queries::rows::time_to_text;

use crate::capture::{Entries, Since};
use crate::changes::Changes;
use crate::mentions::{Mention, Mentions};
use crate::site::{LocalName, Places, humanised};

/// The query that tells the count.
pub const OCCUPANCY: &str = "occupancy";
/// Zones taken in that no `site.toml` names. Names come from outside, so there has to be an end to them.
const UNKNOWN_MAX: usize = 10_000;
/// One point of history stands for so long, microseconds of event time.
const HISTORY_STEP_US: i64 = 5 * 60 * 1_000_000;
/// Points of history kept: eight hours.
const HISTORY_MAX: usize = 96;
/// A count that no passage has renewed for so long while the site is open is called stale.
const STALE_US: i64 = 15 * 60 * 1_000_000;
/// From this share of the capacity a zone is busy.
const BUSY: f64 = 0.5;
/// From this share it is very busy.
const VERY_BUSY: f64 = 0.8;

/// A zone as the page, the API and MQTT show it.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ZoneView {
    /// The site.
    pub site: String,
    /// What people call the site.
    pub site_name: Name,
    /// The zone's id.
    pub zone: String,
    /// What people call it.
    pub name: Name,
    /// Persons it is made for; null where nobody said.
    pub capacity: Option<u32>,
    /// Persons in it; null until something was counted.
    pub persons: Option<i64>,
    /// Persons over capacity.
    pub share: Option<f64>,
    /// The least it may be, for counters err.
    pub low: Option<i64>,
    /// The most it may be.
    pub high: Option<i64>,
    /// `quiet`, `busy`, `very busy` or `unknown`.
    pub word: &'static str,
    /// The event time of the last passage, RFC 3339.
    pub as_of: Option<String>,
    /// True when nothing has renewed the count for a quarter of an hour while the site is open.
    pub stale: bool,
    /// The zone it lies in.
    pub parent: Option<String>,
    /// Whether `site.toml` names it.
    pub known: bool,
    /// Points (epoch milliseconds, persons), oldest first, every five minutes at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<(i64, i64)>,
}

/// What people call something, by language.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Name {
    /// In English.
    pub en: String,
    /// In Chinese.
    pub zh: String,
}

impl Name {
    /// As it is written.
    pub(crate) fn of(name: &LocalName) -> Self {
        Self {
            en: name.en.clone(),
            zh: name.zh.clone(),
        }
    }

    /// The same in every language.
    pub(crate) fn same(name: &str) -> Self {
        Self::of(&LocalName::same(name))
    }
}

/// How full it is, in a word.
pub(crate) fn word_of(share: Option<f64>) -> &'static str {
    match share {
        None => "unknown",
        Some(share) if share >= VERY_BUSY => "very busy",
        Some(share) if share >= BUSY => "busy",
        Some(_) => "quiet",
    }
}

/// What is known of the persons in a zone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    persons: i64,
    low: i64,
    high: i64,
    as_of_us: i64,
    history: VecDeque<(i64, i64)>,
}

impl Count {
    fn note(&mut self) {
        let bucket = self.as_of_us.div_euclid(HISTORY_STEP_US) * HISTORY_STEP_US / 1000;
        match self.history.back_mut() {
            Some((at, persons)) if *at >= bucket => *persons = self.persons,
            _ => self.history.push_back((bucket, self.persons)),
        }
        if self.history.len() > HISTORY_MAX {
            self.history.pop_front();
        }
    }
}

/// The counts of all zones.
#[derive(Debug, Default)]
pub struct Zones {
    counts: BTreeMap<(String, String), Count>,
    changed: BTreeSet<(String, String)>,
    unknown: usize,
    mentions: Mentions,
    /// For checkpoints, where `changed` is for the page.
    changes: Changes<(String, String), Count>,
}

impl Zones {
    /// No count yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The persons that each zone's own counter has, where it has one.
    pub(crate) fn own_counts(&self) -> impl Iterator<Item = (&(String, String), i64)> {
        self.counts.iter().map(|(zone, count)| (zone, count.persons))
    }

    /// Takes rows of the query `occupancy`, those of these numbers. Rows of a query of that name that lacks the columns are
    /// left alone.
    pub fn take(&mut self, rows: &Rows, numbers: Range<usize>, places: &Places) {
        let schema = rows.schema();
        let column = |name: &str| schema.index_of(name).ok();
        let (Some(site), Some(zone), Some(persons)) = (column("site"), column("zone"), column("persons")) else {
            return;
        };
        let (low, high, as_of) = (column("low"), column("high"), column("as_of"));
        for row in numbers {
            let (Some(site), Some(zone), Some(persons)) =
                (rows.text(site, row), rows.text(zone, row), rows.integer(persons, row))
            else {
                continue;
            };
            let key = (site.to_owned(), zone.to_owned());
            if !self.counts.contains_key(&key) && places.zone(&key.0, &key.1).is_none() {
                if self.unknown >= UNKNOWN_MAX {
                    continue;
                }
                self.unknown += 1;
                match self.mentions.one_more() {
                    Mention::ByName => tracing::warn!(
                        site = key.0,
                        zone = key.1,
                        "a zone that site.toml does not name; taken in as unknown"
                    ),
                    Mention::Count(zones) => tracing::warn!(
                        zones,
                        "zones that site.toml does not name were taken in as unknown; /api/v1/zones lists them"
                    ),
                    Mention::Silently => {}
                }
            }
            let count = self.counts.entry(key.clone()).or_default();
            count.persons = persons;
            count.low = low.and_then(|low| rows.integer(low, row)).unwrap_or(persons);
            count.high = high.and_then(|high| rows.integer(high, row)).unwrap_or(persons);
            if let Some(as_of_us) = as_of.and_then(|as_of| rows.time(as_of, row)) {
                count.as_of_us = as_of_us;
            }
            count.note();
            self.changes.note(&key);
            self.changed.insert(key);
        }
    }

    /// How many were met in this process that `site.toml` does not name.
    pub fn unknown(&self) -> u64 {
        self.mentions.count()
    }

    /// The zones that changed since the last call, and those they lie in.
    pub fn drain_changed(&mut self, clock_us: Option<i64>, places: &Places) -> Vec<ZoneView> {
        let mut keys = std::mem::take(&mut self.changed);
        for (site, zone) in keys.clone() {
            let mut at = places.zone(&site, &zone).and_then(|zone| zone.parent.clone());
            while let Some(parent) = at.take() {
                at = places.zone(&site, &parent).and_then(|zone| zone.parent.clone());
                if !keys.insert((site.clone(), parent)) {
                    break;
                }
            }
        }
        keys.iter()
            .map(|(site, zone)| self.view(site, zone, clock_us, places))
            .collect()
    }

    /// Marks every zone as changed, so that all are told again.
    pub fn touch_all(&mut self, places: &Places) {
        let known = places.zones().map(|zone| (zone.site.clone(), zone.id.clone()));
        self.changed = self.counts.keys().cloned().chain(known).collect();
    }

    /// All zones, those of `site.toml` first and in its order. `clock_us` is the event time it is now.
    pub fn all(&self, clock_us: Option<i64>, places: &Places) -> Vec<ZoneView> {
        let known = places.zones().map(|zone| (zone.site.as_str(), zone.id.as_str()));
        let unknown = self
            .counts
            .keys()
            .map(|(site, zone)| (site.as_str(), zone.as_str()))
            .filter(|(site, zone)| places.zone(site, zone).is_none());
        known
            .chain(unknown)
            .map(|(site, zone)| self.view_with_history(site, zone, clock_us, places))
            .collect()
    }

    /// One zone; `None` when it is neither named nor was ever counted.
    pub fn get(&self, site: Option<&str>, zone: &str, clock_us: Option<i64>, places: &Places) -> Option<ZoneView> {
        let is_it = |s: &str, z: &str| z == zone && site.is_none_or(|site| site == s);
        let named = places.zones().find(|zone| is_it(&zone.site, &zone.id));
        let site = match named {
            Some(zone) => zone.site.clone(),
            None => self.counts.keys().find(|(s, z)| is_it(s, z))?.0.clone(),
        };
        Some(self.view_with_history(&site, zone, clock_us, places))
    }

    fn view_with_history(&self, site: &str, zone: &str, clock_us: Option<i64>, places: &Places) -> ZoneView {
        let mut view = self.view(site, zone, clock_us, places);
        if let Some(count) = self.counts.get(&(site.to_owned(), zone.to_owned())) {
            view.history = count.history.iter().copied().collect();
        }
        view
    }

    fn view(&self, site: &str, zone: &str, clock_us: Option<i64>, places: &Places) -> ZoneView {
        let known = places.zone(site, zone);
        let count = self.count(site, zone, places, 0);
        let capacity = known.and_then(|zone| zone.capacity).filter(|capacity| *capacity > 0);
        let share = count
            .as_ref()
            .zip(capacity)
            .map(|(count, capacity)| count.persons as f64 / f64::from(capacity));
        let is_open = |at| places.site(site).is_none_or(|site| site.calendar.is_open(at));
        let stale = match (&count, clock_us) {
            (Some(count), Some(clock)) => clock - count.as_of_us > STALE_US && is_open(clock),
            (None, _) => false,
            _ => true,
        };
        let named = |language| match known {
            Some(zone) => zone.name.in_language(language).to_owned(),
            None => humanised(zone),
        };
        let site_named = |language| match places.site(site) {
            Some(site) => site.name.in_language(language).to_owned(),
            None => humanised(site),
        };
        ZoneView {
            site: site.to_owned(),
            site_name: Name {
                en: site_named("en"),
                zh: site_named("zh"),
            },
            zone: zone.to_owned(),
            name: Name {
                en: named("en"),
                zh: named("zh"),
            },
            capacity,
            persons: count.as_ref().map(|count| count.persons),
            share: share.map(|share| (share * 1e4).round() / 1e4),
            low: count.as_ref().map(|count| count.low),
            high: count.as_ref().map(|count| count.high),
            word: word_of(share),
            as_of: count.as_ref().map(|count| time_to_text(count.as_of_us)),
            stale,
            parent: known.and_then(|zone| zone.parent.clone()),
            known: known.is_some(),
            history: Vec::new(),
        }
    }

    /// The count of a zone: its own, or that of the zones in it where it has no counter of its own.
    fn count(&self, site: &str, zone: &str, places: &Places, depth: usize) -> Option<Count> {
        if let Some(count) = self.counts.get(&(site.to_owned(), zone.to_owned())) {
            return Some(Count {
                history: VecDeque::new(),
                ..count.clone()
            });
        }
        // Places refuses circles; this is for the day it does not.
        if depth > 16 {
            return None;
        }
        places
            .zones()
            .filter(|child| child.site == site && child.parent.as_deref() == Some(zone))
            .filter_map(|child| self.count(site, &child.id, places, depth + 1))
            .reduce(|sum, child| Count {
                persons: sum.persons + child.persons,
                low: sum.low + child.low,
                high: sum.high + child.high,
                as_of_us: sum.as_of_us.max(child.as_of_us),
                history: VecDeque::new(),
            })
    }

    /// Takes counts that were told since the last checkpoint, about `room` of them, ahead of the next one.
    pub fn gather(&mut self, room: &mut usize) {
        self.changes.gather(room, &self.counts);
    }

    /// For a checkpoint: the counts that were told since the last one.
    pub fn capture(&mut self) -> Since<(String, String), Count> {
        self.changes.take(&self.counts)
    }

    /// The next capture is to hold everything.
    pub fn capture_anew(&mut self) {
        self.changes.begin_anew();
    }

    /// Takes back what was captured.
    pub fn restore(&mut self, rows: Entries<(String, String), Count>, places: &Places) {
        for (zone, count) in rows {
            match count {
                Some(count) => self.counts.insert(zone, count),
                None => self.counts.remove(&zone),
            };
        }
        self.unknown = self
            .counts
            .keys()
            .filter(|(site, zone)| places.zone(site, zone).is_none())
            .count();
    }
}
