//! What anybody may see of the place: counts in steps, each of so many people that nobody can be singled out.
//!
//! docs/PRIVACY.md says what is promised, and why it holds. What is put up is a function of the counts at steps of event
//! time and of what was put up before; who reads it changes nothing.

mod board;
mod figures;
mod hiding;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use usher_queries::query_set::QuerySet;
use usher_queries::row::Rows;
use usher_queries::rows::time_to_text;

pub use self::board::{Answers, Board, PublicMeasure, PublicRows, PublicZone};
use self::figures::{Figures, KeptFigures};
use self::hiding::{Node, Shown, shown};
use crate::measures::{MEASURES, Measures};
use crate::site::{Places, Zone, humanised};
use crate::zones::{Name, Zones, word_of};

/// What may be seen, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicOptions {
    /// So many persons stand behind whatever is shown, and behind each change of it.
    pub k: u32,
    /// From one step to the next, microseconds of event time.
    pub step_us: i64,
    /// The measures that may be seen, without `measure_`.
    pub measures: Vec<String>,
}

/// A site and a zone.
type Place = (String, String);

/// What is put up.
#[derive(Debug)]
pub struct Public {
    options: PublicOptions,
    /// The step of which counts are put up, microseconds of event time; `i64::MIN` before the first.
    at_us: i64,
    /// The step of which rows of measures are. Behind the other while queries still have to say what is due.
    settled_us: i64,
    /// What each zone's own count was when what is shown of it last moved.
    anchors: BTreeMap<Place, i64>,
    figures: Figures,
    /// Whether something is to be put on the board.
    is_new: bool,
}

/// As a checkpoint has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptPublic {
    at_us: i64,
    settled_us: i64,
    anchors: BTreeMap<Place, i64>,
    figures: KeptFigures,
}

impl Public {
    /// Nothing is put up yet, so that all are few.
    pub fn new(options: PublicOptions) -> Self {
        Self {
            options,
            at_us: i64::MIN,
            settled_us: i64::MIN,
            anchors: BTreeMap::new(),
            figures: Figures::default(),
            is_new: true,
        }
    }

    /// The step that a watermark has reached.
    fn step_of(&self, watermark_us: i64) -> i64 {
        let step_us = self.options.step_us.max(1);
        watermark_us.div_euclid(step_us).saturating_mul(step_us)
    }

    /// Whether a watermark has reached a step that is not put up yet.
    pub fn is_due(&self, watermark_us: i64) -> bool {
        watermark_us > i64::MIN && self.step_of(watermark_us) > self.at_us
    }

    /// Puts up the counts that are known at the step that a watermark has reached. Of several steps in which nothing came each
    /// would put up the same.
    pub fn put_up(&mut self, watermark_us: i64, zones: &Zones, places: &Places) {
        self.at_us = self.step_of(watermark_us);
        // Names come from outside, and what is public the library has named itself.
        let named = zones
            .own_counts()
            .filter(|((site, zone), _)| places.zone(site, zone).is_some());
        self.count(named);
        self.is_new = true;
    }

    /// Puts up the rows of measures that are due at the step up to which queries have said everything.
    pub fn settle(&mut self, reached_us: i64, measures: &Measures, queries: &QuerySet) {
        if reached_us == i64::MIN || self.step_of(reached_us) <= self.settled_us {
            return;
        }
        self.settled_us = self.step_of(reached_us);
        self.is_new |= self.figures.put_up(self.settled_us, measures, queries, self.options.k);
    }

    /// Moves what is shown of zones where their counts have moved far enough.
    fn count<'z>(&mut self, counts: impl Iterator<Item = (&'z Place, i64)>) {
        for (place, persons) in counts {
            let anchor = self.anchors.entry(place.clone()).or_insert(0);
            if persons.abs_diff(*anchor) >= u64::from(self.options.k) {
                *anchor = persons;
            }
        }
    }

    /// Notes what a measure said; a row of it is put up when its window is over and it can't change any more.
    pub fn note(&mut self, name: &str, rows: &Rows, queries: &QuerySet) {
        let is_public = name
            .strip_prefix(MEASURES)
            .is_some_and(|name| self.options.measures.iter().any(|public| public == name));
        let (true, Some(query)) = (is_public, queries.get(name)) else {
            return;
        };
        let lag_us = queries.lag_of(name).unwrap_or(0);
        let settles_us = lag_us.saturating_add(query.lateness_us());
        self.figures.note(name, rows, settles_us, self.settled_us);
    }

    /// Queries came or went.
    pub fn learn_queries(&mut self) {
        self.is_new = true;
    }

    /// Whether there is something to be put on the board since the last call.
    pub fn take_new(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    /// Everything that anybody may see.
    pub fn answers(&self, places: &Places, queries: &QuerySet) -> Answers {
        let zones: Vec<&Zone> = places.zones().collect();
        let numbers = zones.iter().enumerate();
        let numbers: BTreeMap<(&str, &str), usize> = numbers
            .map(|(number, zone)| ((zone.site.as_str(), zone.id.as_str()), number))
            .collect();
        let node = |zone: &&Zone| Node {
            parent: zone
                .parent
                .as_deref()
                .and_then(|parent| numbers.get(&(zone.site.as_str(), parent)).copied()),
            own: self.own(zone),
        };
        let shown = shown(&zones.iter().map(node).collect::<Vec<Node>>());
        let measures = queries.queries().iter().filter_map(|query| {
            let name = query.name().strip_prefix(MEASURES)?;
            let is_public = self.options.measures.iter().any(|public| public == name);
            is_public.then(|| PublicMeasure {
                name: name.to_owned(),
                comment: query.statement().comment.clone(),
            })
        });
        let mut measures: Vec<PublicMeasure> = measures.collect();
        measures.sort_by(|a, b| a.name.cmp(&b.name));
        Answers {
            zones: zones
                .iter()
                .zip(shown)
                .map(|(zone, shown)| self.view(zone, shown, places))
                .collect(),
            measures,
            rows: self.figures.shown().clone(),
        }
    }

    /// What a zone's own counter would have it show; 0 for few, `None` where there is no counter.
    fn own(&self, zone: &Zone) -> Option<i64> {
        let anchor = *self.anchors.get(&(zone.site.clone(), zone.id.clone()))?;
        let k = i64::from(self.options.k);
        // While an anchor of 2 k - 1 stands there are k persons or more. The first multiple of k from there on.
        let least = (3 * k - 2) / k * k;
        Some(if anchor < least { 0 } else { anchor - anchor % k })
    }

    fn view(&self, zone: &Zone, shown: Shown, places: &Places) -> PublicZone {
        let site = places.site(&zone.site);
        let site_name = match site {
            Some(site) => Name::of(&site.name),
            None => Name::same(&humanised(&zone.site)),
        };
        let capacity = zone.capacity.filter(|capacity| *capacity > 0);
        let share = shown
            .persons
            .zip(capacity)
            .map(|(persons, capacity)| persons as f64 / f64::from(capacity));
        PublicZone {
            site: zone.site.clone(),
            site_name,
            zone: zone.id.clone(),
            name: Name::of(&zone.name),
            parent: zone.parent.clone(),
            capacity,
            persons: shown.persons,
            few: shown.persons.is_none(),
            partial: shown.is_partial,
            share: share.map(|share| (share * 1e4).round() / 1e4),
            word: if shown.persons.is_none() { "few" } else { word_of(share) },
            as_of: (self.at_us > i64::MIN).then(|| time_to_text(self.at_us)),
        }
    }

    /// For a checkpoint.
    pub fn capture(&self) -> KeptPublic {
        KeptPublic {
            at_us: self.at_us,
            settled_us: self.settled_us,
            anchors: self.anchors.clone(),
            figures: self.figures.capture(),
        }
    }

    /// Takes back what was captured.
    pub fn restore(&mut self, kept: KeptPublic) {
        (self.at_us, self.settled_us, self.anchors) = (kept.at_us, kept.settled_us, kept.anchors);
        self.figures.restore(kept.figures, self.options.k);
        self.is_new = true;
    }
}
