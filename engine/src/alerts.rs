//! Alerts keep the life of every alert: raised by rows and by clocks, held by staff, over when the cause is.
//!
//! All here is a function of rows, watermarks and what staff did, in the order of the log, so that a replay finds the
//! same alerts under the same ids, and the same steps of their lives.

mod cleared;
mod deed;
mod erasing;
mod found;
mod group;
mod kept;
mod life;
mod own;
mod relations;
mod silence;
mod suppression;
#[cfg(test)]
mod tests;
mod waiting;
mod watch;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use usher_queries::budget::Budget;
use usher_queries::query::{Output, Query};
use usher_queries::statement::{SEVERITIES, StatementKind};

use self::cleared::Cleared;
pub use self::deed::{Action, Deed};
use self::found::{Found, own_zone};
use self::group::group_key;
use self::life::Happened;
use self::relations::Relations;
use self::waiting::{Order, Waiting};
use self::watch::{Bell, History, Phase, Place, Watch};
use self::watches::Watches;
use crate::alert::{Alert, AlertHistory, Trace, What, Why};
use crate::rule::Rule;
use crate::shed::{OVER_AFTER_US, SHED};
use crate::site::Places;

/// Subjects watched at a time over all rules. Ids come from outside, so there has to be an end to them; beyond it new
/// subjects are not watched, which is said.
const SUBJECTS_MAX: usize = 1_000_000;

/// The kind of a subject that is a person.
pub(crate) const PERSON: &str = "person";

/// A step in an alert's life, to be told.
#[derive(Debug, Clone)]
pub struct Step {
    /// The alert as it is now.
    pub alert: Arc<Alert>,
    /// Whether something happened to it; otherwise only its measurements did.
    pub is_turn: bool,
    /// Whether it has to be on disk what it comes of before it is told: it would not come again out of a log that lost its
    /// end. Where a silence was found, we listen anew after a restart, and no publisher sends the passing of time again.
    pub waits_for_disk: bool,
}

/// An event at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventAt {
    /// Where it stands among them, in the order of the log.
    pub index: usize,
    /// Its event time, microseconds.
    pub time_us: i64,
    /// The watermark that it met, microseconds.
    pub met_us: i64,
}

/// What the alerts need to know of the moment.
pub struct Moment<'a> {
    /// Our clock, microseconds since 1970.
    pub now_us: i64,
    /// The sites, for names and opening times.
    pub places: &'a Places,
    /// The events at hand by id.
    pub event_of: &'a dyn Fn(&str) -> Option<EventAt>,
    /// How long the stages took so far, for the event that caused it.
    pub trace_of: &'a dyn Fn(&str) -> Trace,
}

/// All alerts of all rules.
#[derive(Debug, Default)]
pub struct Alerts {
    rules: FxHashMap<Arc<str>, Arc<Rule>>,
    watches: Watches,
    /// Clocks by when they ring.
    clocks: BTreeSet<(i64, Arc<str>, Bell)>,
    /// Ids of what is pending or standing, to its watch.
    by_id: BTreeMap<String, Arc<str>>,
    relations: Relations,
    /// Rules whose rows may come out of order while time is being moved on.
    mixed: FxHashSet<Arc<str>>,
    waiting: Waiting,
    cleared: Cleared,
    keep_cleared: usize,
    /// Nothing counts as silent before this event time, because we did not listen then.
    listening_since_us: i64,
    overflow_told: bool,
    key: String,
    no_data_key: String,
}

/// How far queries have come in time.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    /// All is said that is due by this watermark, microseconds.
    pub reached_us: i64,
    /// Whether nothing is left to say of what has come so far.
    pub is_all: bool,
}

impl Alerts {
    /// No alert yet; keeps that many cleared ones to show.
    pub fn new(keep_cleared: usize) -> Self {
        Self {
            keep_cleared,
            listening_since_us: i64::MIN,
            ..Self::default()
        }
    }

    /// Learns the rules among the running queries; what stands of rules that are gone is cleared.
    pub fn set_rules(&mut self, queries: &[Query], moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let mut rules: FxHashMap<Arc<str>, Arc<Rule>> = FxHashMap::default();
        let own = Rule::of_usher(SHED, OVER_AFTER_US);
        rules.insert(Arc::clone(&own.name), Arc::new(own));
        for query in queries {
            // What goes out to persons is told to nobody else.
            if let StatementKind::Alert(options) = &query.statement().kind
                && options.message.is_none()
            {
                let rule = Rule::new(Arc::clone(query.name()), (**options).clone(), query.schema());
                for rule in [rule.no_data(), rule.grouped(), Some(rule)].into_iter().flatten() {
                    rules.insert(Arc::clone(&rule.name), Arc::new(rule));
                }
            }
        }
        let mut gone: Vec<Arc<str>> = self
            .watches
            .iter()
            .filter(|(_, watch)| !rules.contains_key(&watch.rule))
            .map(|(key, _)| Arc::clone(key))
            .collect();
        gone.sort();
        for key in gone {
            let at = moment.now_us;
            let happened = Happened::by_usher(at, What::Cleared, Why::Configuration);
            self.end(&key, at, happened, moment, steps);
            self.forget(&key);
        }
        self.relations = Relations::of(rules.values());
        self.rules = rules;
        if !self.waiting.is_empty() {
            let query = |name: &str| queries.iter().find(|query| query.name().as_ref() == name);
            self.waiting
                .follow(|name| query(name).map(|query| Arc::clone(query.schema())));
        }
        let mut keys: Vec<Arc<str>> = self.watches.iter().map(|(key, _)| Arc::clone(key)).collect();
        keys.sort();
        for key in &keys {
            let Some(watch) = self.watches.get(key) else { continue };
            if let (Some(rule), Some(open)) = (self.rules.get(&watch.rule), watch.standing()) {
                self.relations.note_standing(key, rule, Some(open));
                let group = open.alert.group.as_deref().filter(|_| !open.alert.suppressed);
                if let Some(group) = group.filter(|_| rule.options.group.is_some()) {
                    let group: Arc<str> = group_key(rule, key, group).into();
                    self.relations
                        .note_group(key, Some((&group, rank(&open.alert.severity))));
                }
            }
        }
        self.review_all(moment);
    }

    /// Learns whose rows may come out of order while time is being moved on: those of alerts that read events as well as
    /// windows.
    pub fn set_mixed<'q>(&mut self, queries: impl Iterator<Item = &'q Query>) {
        self.mixed = queries.map(|query| Arc::clone(query.name())).collect();
    }

    /// Whether rows wait until all is said that is due by then, or until it is their turn.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether so many wait that all that is due had better be said at once.
    pub fn has_no_room(&self) -> bool {
        self.waiting.is_full()
    }

    /// The latest event, by its index, of which a row waits.
    pub fn last_event_waiting(&self) -> Option<usize> {
        self.waiting.last_event()
    }

    /// Takes the rows that the queries of alerts said. Those of alerts that hold back others, are held back, or are told
    /// together wait until all is said that is due by their watermark: what becomes of these depends on which was first. So do
    /// those that may come out of order. Of what waited as much is taken as the budget lasts for, one row at least.
    pub fn take(&mut self, outputs: &[Output], said: Said, budget: Budget, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        if self.relations.has_links() || !self.mixed.is_empty() || !self.waiting.is_empty() {
            self.take_in_order(outputs, said, budget, moment, steps);
        } else {
            let mut rows: Vec<(i64, usize, usize)> = Vec::new();
            for (index, output) in outputs.iter().enumerate() {
                if output.judgement.is_some() && self.rules.contains_key(&output.query) {
                    rows.extend((0..output.rows.len()).map(|row| (output.rows.watermark(row), index, row)));
                }
            }
            // Each stream's rows of a batch come by themselves. A clock must ring between the rows between which it would
            // have rung had they come one by one, whichever streams they are of. Only the row's own may ring before other
            // queries have said what is due by then: of the others' subjects a row may still be to come.
            rows.sort_by_key(|(watermark, ..)| *watermark);
            for (watermark, index, row) in rows {
                self.ring(watermark.min(said.reached_us), moment, steps);
                self.take_row(&outputs[index], row, moment, steps);
            }
        }
        self.ring(self.may_ring_until(said), moment, steps);
    }

    /// The same where alerts have to do with each other: in the order in which rows would have been taken had the events come
    /// one by one.
    fn take_in_order(
        &mut self,
        outputs: &[Output],
        said: Said,
        budget: Budget,
        moment: &Moment<'_>,
        steps: &mut Vec<Step>,
    ) {
        let mut rows: Vec<(Order, usize, usize)> = Vec::new();
        // Some of what comes before these rows may still have to be said, or waits itself.
        let may_wait = !said.is_all || !self.waiting.is_empty();
        let mut key = std::mem::take(&mut self.key);
        for (index, output) in outputs.iter().enumerate() {
            let Some(rule) = self.rules.get(&output.query).map(Arc::clone) else {
                continue;
            };
            if output.judgement.is_none() {
                continue;
            }
            let is_linked = self.relations.is_linked(&output.query);
            let is_mixed = self.mixed.contains(&output.query);
            let mut shared: Option<Arc<Output>> = None;
            for row in 0..output.rows.len() {
                let Some(subject) = rule.subject(&output.rows, row) else {
                    continue;
                };
                let place = Place {
                    site: rule.site(&output.rows, row),
                    zone: own_zone(&rule, &output.rows, row),
                    subject: &subject,
                };
                place.write(&rule.name, &mut key);
                // Before one that comes out of order another of its subject may come, so that it may change something then.
                let waits = is_mixed || is_linked && self.changes_anything(&rule, place, &key, output, row);
                let order = self.waiting.order(&output.rows, row, &key, moment);
                if may_wait && waits {
                    let output = shared.get_or_insert_with(|| Arc::new(output.clone()));
                    self.waiting.push(order, Arc::clone(output), row, moment);
                } else {
                    rows.push((order, index, row));
                }
            }
        }
        self.key = key;
        rows.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
        let mut rows = rows.into_iter().peekable();
        let mut has_taken = false;
        loop {
            let is_ready = |order: &&Order| said.is_all || order.watermark <= said.reached_us;
            let may_take = !has_taken || !budget.is_spent();
            let waiting = self.waiting.first().filter(|_| may_take).filter(is_ready);
            let is_first = |waiting: &Order| rows.peek().is_none_or(|(order, ..)| waiting < order);
            if waiting.is_some_and(is_first) {
                let Some((order, waiting)) = self.waiting.pop_first() else {
                    return;
                };
                self.ring(order.watermark.min(said.reached_us), moment, steps);
                waiting.take_at(moment, |moment| {
                    self.take_row(&waiting.output, waiting.row, moment, steps)
                });
                has_taken = true;
            } else if let Some((order, index, row)) = rows.next() {
                self.ring(order.watermark.min(self.may_ring_until(said)), moment, steps);
                self.take_row(&outputs[index], row, moment, steps);
            } else {
                return;
            }
        }
    }

    /// The watermark until which clocks may ring: what waits has to be taken before those that are due behind it.
    fn may_ring_until(&self, said: Said) -> i64 {
        let waiting = self.waiting.first().map(|order| order.watermark);
        waiting.map_or(said.reached_us, |watermark| watermark.min(said.reached_us))
    }

    /// Whether it may change anything when a row of an alert is taken, whose rule and subject make this key; of most rows nothing
    /// comes.
    fn changes_anything(&self, rule: &Rule, place: Place<'_>, key: &str, output: &Output, row: usize) -> bool {
        let watermark = output.rows.watermark(row);
        // A silence that is heard of ends; one whose clock would have rung before began.
        let changes = |watch: &Watch| {
            let is_due = watch.next_bell().is_some_and(|(due, _)| due <= watermark);
            watch.phase == Phase::Standing || is_due
        };
        // What waits may change what this one does.
        if self.waiting.has(key) {
            return true;
        }
        let raises = || output.judgement.as_ref().is_some_and(|judgement| judgement.raise[row]);
        let matters = match (self.watches.get(key), rule.options.silent_us) {
            (Some(watch), Some(_)) => changes(watch),
            (None, Some(_)) => false,
            (Some(_), None) => true,
            (None, None) => raises(),
        };
        let silence = || self.watches.get(place.key(&rule.no_data_name()).as_str());
        matters || rule.options.no_data_us.is_some() && silence().is_some_and(changes)
    }

    fn take_row(&mut self, output: &Output, row: usize, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let (Some(judgement), Some(rule)) = (&output.judgement, self.rules.get(&output.query).map(Arc::clone)) else {
            return;
        };
        let rows = &output.rows;
        let judged = (judgement.raise[row], judgement.clear[row]);
        let Some(subject) = rule.subject(rows, row) else {
            return;
        };
        let found = Found {
            rule: &rule,
            rows,
            row,
            subject: &subject,
            cause: rows.cause(row),
            watermark: rows.watermark(row),
        };
        let mut key = std::mem::take(&mut self.key);
        found.place().write(&rule.name, &mut key);
        let silence = rule
            .options
            .no_data_us
            .and_then(|_| self.rules.get(&rule.no_data_name()));
        match silence.map(Arc::clone) {
            None => {
                self.ring_those(&[&key], found.watermark, moment, steps);
                self.judge(&key, &found, judged, moment, steps);
            }
            Some(silence) => {
                let mut silence_key = std::mem::take(&mut self.no_data_key);
                found.place().write(&silence.name, &mut silence_key);
                self.ring_those(&[&key, &silence_key], found.watermark, moment, steps);
                let heard = Found {
                    rule: &silence,
                    ..found
                };
                // An alert that stands learns what its measurements are before it is told again.
                let stands = self.watches.get(key.as_str()).is_some_and(|watch| watch.open.is_some());
                if !stands {
                    self.judge(&silence_key, &heard, (true, false), moment, steps);
                }
                self.judge(&key, &found, judged, moment, steps);
                if stands {
                    self.judge(&silence_key, &heard, (true, false), moment, steps);
                }
                self.no_data_key = silence_key;
            }
        }
        self.key = key;
    }

    /// A person does not want to be known: what is pending or standing of which the person is the subject is over, and nothing is
    /// kept of it but that it was; `at` is the event time that was reached.
    pub fn forget_person(&mut self, person: &str, at: i64, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        for key in self.watches_of(|subject| subject == person) {
            if let Some(open) = self.watches.get_mut(&key).and_then(|watch| watch.open.as_mut()) {
                open.alert.forget_measurements();
                open.history.forget_notes();
            }
            self.end_of_person(&key, at, Why::OptedOut, moment, steps);
        }
        self.cleared.forget_measurements(|alert| {
            let subject = &alert.subject;
            subject.kind == PERSON && subject.id == person
        });
    }

    /// Persons are called otherwise from now on: what is pending or standing of which they are the subject is over under these
    /// names; `at` is the event time that was reached.
    pub fn rename_persons(
        &mut self,
        persons: &FxHashSet<Arc<str>>,
        at: i64,
        moment: &Moment<'_>,
        steps: &mut Vec<Step>,
    ) {
        if persons.is_empty() {
            return;
        }
        for key in self.watches_of(|subject| persons.contains(subject)) {
            self.end_of_person(&key, at, Why::Identified, moment, steps);
        }
    }

    /// The keys of what is watched of persons, in their order.
    fn watches_of(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let rules = &self.rules;
        let is_of_persons = |watch: &Watch| {
            let rule = rules.get(&watch.rule);
            rule.is_some_and(|rule| rule.options.subject == PERSON)
        };
        let watches = self.watches.iter();
        let theirs = watches.filter(|(key, watch)| is_wanted(Place::of(key).subject) && is_of_persons(watch));
        let mut theirs: Vec<Arc<str>> = theirs.map(|(key, _)| Arc::clone(key)).collect();
        theirs.sort();
        theirs
    }

    fn end_of_person(&mut self, key: &Arc<str>, at: i64, why: Why, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let open = self.watches.get(key).and_then(|watch| watch.open.as_ref());
        if let Some(open) = open {
            let stands = open.alert.state.is_standing();
            let what = if stands { What::Cleared } else { What::Withdrawn };
            self.end(key, at, Happened::by_usher(at, what, why), moment, steps);
        }
        self.forget(key);
    }

    fn add_watch(&mut self, key: &str, watch: Watch) -> Option<Arc<str>> {
        if self.watches.len() >= SUBJECTS_MAX {
            metrics::counter!("usher_subjects_not_watched_total").increment(1);
            if !std::mem::replace(&mut self.overflow_told, true) {
                tracing::warn!(rule = %watch.rule, "{SUBJECTS_MAX} subjects are watched; new ones are not");
            }
            return None;
        }
        let key: Arc<str> = Arc::from(key);
        self.watches.insert(Arc::clone(&key), watch);
        Some(key)
    }

    fn key_of(&self, key: &str) -> Arc<str> {
        self.watches.key(key).map_or_else(|| Arc::from(key), Arc::clone)
    }

    /// Lets all clocks ring that are due at `watermark`, event time in microseconds.
    fn ring(&mut self, watermark: i64, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        while self.clocks.first().is_some_and(|(due, ..)| *due <= watermark) {
            let Some((due, key, bell)) = self.clocks.pop_first() else {
                return;
            };
            self.rings(&key, due, bell, moment, steps);
        }
    }

    /// The same for the clocks of these subjects.
    fn ring_those(&mut self, keys: &[&str], watermark: i64, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        loop {
            let next = keys
                .iter()
                .filter_map(|key| self.watches.get(key)?.next_bell().map(|(due, bell)| (due, *key, bell)))
                .filter(|(due, ..)| *due <= watermark)
                .min();
            let Some((due, key, bell)) = next else { return };
            let key = self.key_of(key);
            self.clocks.remove(&(due, Arc::clone(&key), bell));
            self.rings(&key, due, bell, moment, steps);
        }
    }

    /// All that is pending or standing, newest first.
    pub fn open(&self) -> Vec<&Alert> {
        let open = self.watches.iter().filter_map(|(_, watch)| watch.open.as_ref());
        let mut open: Vec<&Alert> = open.map(|open| &open.alert).collect();
        open.sort_by(|a, b| b.event_time.cmp(&a.event_time).then_with(|| a.id.cmp(&b.id)));
        open
    }

    /// What was cleared, newest first.
    pub fn cleared(&self) -> impl Iterator<Item = &Arc<Alert>> {
        self.cleared.iter().map(|over| &over.alert)
    }

    /// An alert by its id, standing or among the cleared ones that are kept.
    pub fn get(&self, id: &str) -> Option<&Alert> {
        self.find(id).map(|(alert, _)| alert)
    }

    /// An alert by its id, with the steps of its life.
    pub fn with_history(&self, id: &str) -> Option<AlertHistory> {
        self.find(id).map(|(alert, history)| AlertHistory {
            alert: alert.clone(),
            history: history.turns.clone(),
            history_left_out: history.left_out,
        })
    }

    fn find(&self, id: &str) -> Option<(&Alert, &History)> {
        match self.by_id.get(id) {
            Some(key) => {
                let open = self.watches.get(key)?.open.as_ref()?;
                Some((&open.alert, &open.history))
            }
            None => {
                let over = self.cleared.iter().find(|over| over.alert.id == id)?;
                Some((&over.alert, &over.history))
            }
        }
    }
}

/// How grave a severity is, from 0.
fn rank(severity: &str) -> usize {
    SEVERITIES.iter().position(|known| *known == severity).unwrap_or(0)
}
