//! Zones keep the live count of each zone as the query `occupancy` tells it, with a short history for the page.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use usher_queries::row::Rows;
use usher_queries::rows::time_to_text;

use crate::site::{Places, humanised};

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

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Count {
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
}

impl Zones {
    /// No count yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes rows of the query `occupancy`. Rows of a query of that name that lacks the columns are left alone.
    pub fn take(&mut self, rows: &Rows, places: &Places) {
        let schema = rows.schema();
        let column = |name: &str| schema.index_of(name).ok();
        let (Some(site), Some(zone), Some(persons)) = (column("site"), column("zone"), column("persons")) else {
            return;
        };
        let (low, high, as_of) = (column("low"), column("high"), column("as_of"));
        for row in 0..rows.len() {
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
                tracing::warn!(
                    site = key.0,
                    zone = key.1,
                    "a zone that site.toml does not name; taken in as unknown"
                );
            }
            let count = self.counts.entry(key.clone()).or_default();
            count.persons = persons;
            count.low = low.and_then(|low| rows.integer(low, row)).unwrap_or(persons);
            count.high = high.and_then(|high| rows.integer(high, row)).unwrap_or(persons);
            if let Some(as_of_us) = as_of.and_then(|as_of| rows.time(as_of, row)) {
                count.as_of_us = as_of_us;
            }
            count.note();
            self.changed.insert(key);
        }
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
            word: match share {
                None => "unknown",
                Some(share) if share >= VERY_BUSY => "very busy",
                Some(share) if share >= BUSY => "busy",
                Some(_) => "quiet",
            },
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

    /// For a checkpoint.
    ///
    /// # Errors
    /// When a value can't be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&self.counts)
    }

    /// Takes back what [`Zones::to_bytes`] gave.
    ///
    /// # Errors
    /// When the bytes are of another version.
    pub fn restore(&mut self, bytes: &[u8], places: &Places) -> Result<(), postcard::Error> {
        self.counts = postcard::from_bytes(bytes)?;
        self.unknown = self
            .counts
            .keys()
            .filter(|(site, zone)| places.zone(site, zone).is_none())
            .count();
        Ok(())
    }
}
