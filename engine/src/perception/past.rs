//! The past is read from the log as perception takes it, of some persons only and of nothing but what they did: what they would
//! be known by, had their names been theirs from the beginning.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Observing, Perception, number_of};
use crate::columns::pseudonym;
use crate::erasure::Erasure;
use crate::event::Event;
use crate::identity::{Aliases, Group, Regrouping};
use crate::people::{Beginning, Past, People, Wanted};
use crate::recent_ids::RecentIds;
use crate::record::Record;
use crate::site::Places;

/// Goes through the log for the past of those who are wanted, all of them at once.
pub struct PastReader {
    observing: Observing,
    places: Arc<Places>,
    people: People,
    ids: RecentIds,
    /// Everybody's names.
    names: FxHashSet<Arc<str>>,
    /// Of names whose past does not count from the beginning.
    beginnings: FxHashMap<Arc<str>, Beginning>,
    /// By the record behind which their past ends.
    wanted: FxHashMap<u128, Vec<Wanted>>,
    /// Whether the log does not begin with its first record.
    is_cut: bool,
    is_at_first: bool,
    now_us: i64,
    found: Vec<Past>,
}

impl Perception {
    /// What goes through the log for those whose past has to be made anew; `None` where nobody is.
    pub fn past_reader(&self, recent_ids: usize) -> Option<PastReader> {
        let all = self.people.wanted();
        if all.is_empty() {
            return None;
        }
        let mut aliases = Aliases::default();
        let mut wanted: FxHashMap<u128, Vec<Wanted>> = FxHashMap::default();
        let (mut names, mut beginnings) = (FxHashSet::default(), FxHashMap::default());
        for one in all {
            let own: Vec<Arc<str>> = one.names.iter().map(|(name, _)| Arc::clone(name)).collect();
            let begins = one.names.iter().cloned();
            beginnings.extend(begins.filter_map(|(name, beginning)| Some((name, beginning?))));
            names.extend(own.iter().cloned());
            let person = Arc::clone(&one.person);
            aliases.apply(&Regrouping {
                before: Vec::new(),
                after: vec![Group { person, names: own }],
            });
            wanted.entry(one.since).or_default().push(one);
        }
        Some(PastReader {
            observing: Observing::new(self.observing.options),
            places: Arc::clone(&self.places),
            people: People::new(self.people.settings().clone()).with_aliases(aliases),
            ids: RecentIds::with_capacity(recent_ids),
            names,
            beginnings,
            wanted,
            is_cut: false,
            is_at_first: true,
            now_us: 0,
            found: Vec::new(),
        })
    }
}

impl PastReader {
    /// The log's first records are gone.
    pub fn begin_cut(&mut self) {
        self.is_cut = true;
    }

    /// Whether everything is found.
    pub fn is_done(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Takes a record of the log; `key` is that by which a repetition of an event is known.
    pub fn take(&mut self, record: &Record, key: Option<u128>) {
        match record {
            Record::Event(event) => {
                if let Some(key) = key.filter(|key| self.ids.insert(*key)) {
                    self.take_event(event, key);
                    self.find(key);
                }
            }
            Record::Acted(action) | Record::ActedOnPerson { action, .. } => self.tick(action.at_us),
            Record::Erased(erasure) => self.forget(erasure),
            Record::Points(deed) => self.tick(deed.at_us),
            Record::Ticked { at_us } | Record::Shed { at_us, .. } | Record::Repaired { at_us, .. } => self.tick(*at_us),
            Record::Identities { at_us, .. } => {
                self.tick(*at_us);
                self.find(Record::identities_key(*at_us));
            }
            Record::Started { .. }
            | Record::QueryRestarted { .. }
            | Record::Refused(_)
            | Record::Looked(_)
            | Record::ErasureDone(_)
            | Record::Removed
            | Record::Expired { .. } => {}
        }
        self.people.leave_unsaid();
    }

    fn take_event(&mut self, event: &Event, key: u128) {
        self.now_us = self.now_us.max(event.received_us);
        let watermark = self.observing.observe(number_of(event), event).watermark;
        self.people.advance(watermark);
        if std::mem::take(&mut self.is_at_first) && self.is_cut {
            // What began in a part of the log that is gone has begun.
            self.beginnings
                .retain(|_, begins| begins.received_us >= event.received_us);
        }
        // It may have been said under a name that was the same person's then and is not any more, or that was erased.
        self.beginnings.retain(|_, begins| begins.event != key);
        let Some(name) = pseudonym(&event.reading).filter(|name| self.names.contains(*name)) else {
            return;
        };
        if self.beginnings.contains_key(name) {
            return;
        }
        self.people.take(event, watermark, &self.places);
    }

    /// Somebody was erased, and what the log still has of them does not count. Where only some of the names that are one person's
    /// by now were that person's then, nobody can tell any more what was whose: the log can't tell of these.
    fn forget(&mut self, erasure: &Erasure) {
        self.tick(erasure.at_us);
        let who = erasure.who();
        self.people.erase(&who);
        self.beginnings.retain(|name, _| !who.is(name));
        let (found, mut lost) = (&mut self.found, Vec::new());
        for wanted in self.wanted.values_mut() {
            let is_mixed = |one: &Wanted| {
                let erased = one.names.iter().filter(|(name, _)| who.is(name)).count();
                0 < erased && erased < one.names.len()
            };
            let (mixed, others): (Vec<Wanted>, Vec<Wanted>) = std::mem::take(wanted).into_iter().partition(is_mixed);
            *wanted = others;
            lost.extend(mixed.iter().map(Past::lost));
        }
        found.extend(lost);
        self.wanted.retain(|_, wanted| !wanted.is_empty());
    }

    fn tick(&mut self, at_us: i64) {
        self.now_us = self.now_us.max(at_us);
        let watermark = self.observing.watermarks.tick(self.now_us);
        self.people.advance(watermark);
    }

    /// A record is taken behind which somebody's past may end.
    fn find(&mut self, key: u128) {
        for wanted in self.wanted.remove(&key).into_iter().flatten() {
            self.found.push(self.people.past(&wanted, self.is_cut));
        }
    }

    /// What was found, by person. Of those whose records the log does not have any more, that.
    pub fn into_pasts(self) -> Vec<Past> {
        let mut pasts = self.found;
        pasts.extend(self.wanted.values().flatten().map(Past::lost));
        pasts.sort_by(|a, b| a.person.cmp(&b.person));
        pasts
    }
}
