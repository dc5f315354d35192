//! Alerts keep the life of every alert: raised by rows and by clocks, held by staff, over when the cause is.
//!
//! All here is a function of rows, watermarks and what staff did, in the order of the log, so that a replay finds the
//! same alerts under the same ids.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use usher_queries::query::{Output, Query};
use usher_queries::row::Rows;
use usher_queries::rows::time_to_text;
use usher_queries::statement::StatementKind;

use crate::alert::{Alert, Comment, State, Subject, Trace};
use crate::rule::Rule;
use crate::site::Places;

/// Subjects watched at a time over all rules. Ids come from outside, so there has to be an end to them; beyond it new
/// subjects are not watched, which is said.
const SUBJECTS_MAX: usize = 1_000_000;
/// Causes told with an alert; a crowd of thousands behind one alert helps nobody.
const CAUSES_MAX: usize = 100;

/// A step in an alert's life, to be told.
#[derive(Debug, Clone)]
pub struct Step {
    /// The alert as it is now.
    pub alert: Arc<Alert>,
    /// Whether its state or a flag changed; otherwise only its measurements did.
    pub is_turn: bool,
}

/// What the alerts need to know of the moment.
pub struct Moment<'a> {
    /// Our clock, microseconds since 1970.
    pub now_us: i64,
    /// The sites, for names and opening times.
    pub places: &'a Places,
    /// Event times of the events at hand by id, microseconds.
    pub time_of: &'a dyn Fn(&str) -> Option<i64>,
    /// How long the stages took so far, for the event that caused it.
    pub trace_of: &'a dyn Fn(&str) -> Trace,
}

/// What staff does to an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// Somebody looks after it.
    Acknowledge,
    /// Not to be told of until then, microseconds since 1970.
    SnoozeUntil(i64),
    /// It is over.
    Clear,
    /// Words to keep beside it.
    Comment(String),
}

/// What staff did, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// The alert.
    pub alert: String,
    /// Who, as they call themselves.
    pub by: String,
    /// When, microseconds since 1970.
    pub at_us: i64,
    /// What.
    pub deed: Deed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// Nothing is raised; a clock runs since it was last heard of.
    Listening,
    /// Raised once it has held until then.
    Pending { due: i64 },
    /// Out there.
    Standing,
    /// Over, and not to be raised again before then.
    Cooling { until: i64 },
}

/// All about one subject of one rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Watch {
    rule: Arc<str>,
    phase: Phase,
    alert: Option<Alert>,
    /// When it was last heard of or found again, event time in microseconds.
    heard_us: i64,
    /// The event it was last heard by.
    heard_by: String,
    /// When its clock rings, event time in microseconds.
    rings_us: Option<i64>,
    acknowledged: bool,
    snoozed_until_us: Option<i64>,
}

/// What a checkpoint keeps.
#[derive(Serialize, Deserialize)]
struct Kept {
    watches: Vec<(Arc<str>, Watch)>,
    cleared: VecDeque<Arc<Alert>>,
    listening_since_us: i64,
}

/// All alerts of all rules.
#[derive(Debug, Default)]
pub struct Alerts {
    rules: FxHashMap<Arc<str>, Arc<Rule>>,
    watches: FxHashMap<Arc<str>, Watch>,
    /// Clocks by when they ring.
    clocks: BTreeSet<(i64, Arc<str>)>,
    /// Ids of what is pending or standing, to its watch.
    by_id: FxHashMap<String, Arc<str>>,
    snoozed: BTreeSet<(i64, Arc<str>)>,
    cleared: VecDeque<Arc<Alert>>,
    keep_cleared: usize,
    /// Nothing counts as silent before this event time, because we did not listen then.
    listening_since_us: i64,
    overflow_told: bool,
    key: String,
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
        self.rules = queries
            .iter()
            .filter_map(|query| match &query.statement().kind {
                StatementKind::Alert(options) => {
                    let rule = Rule::new(Arc::clone(query.name()), (**options).clone(), query.schema());
                    Some((Arc::clone(query.name()), Arc::new(rule)))
                }
                StatementKind::Query => None,
            })
            .collect();
        let gone: Vec<Arc<str>> = self
            .watches
            .iter()
            .filter(|(_, watch)| !self.rules.contains_key(&watch.rule))
            .map(|(key, _)| Arc::clone(key))
            .collect();
        for key in gone {
            self.clear(&key, moment.now_us, None, moment, steps);
            self.forget(&key);
        }
    }

    /// Takes the rows that the queries of alerts said for a batch of events.
    pub fn take(&mut self, outputs: &[Output], moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let mut rows: Vec<(i64, usize, usize)> = Vec::new();
        for (index, output) in outputs.iter().enumerate() {
            if output.judgement.is_some() && self.rules.contains_key(&output.query) {
                rows.extend((0..output.rows.len()).map(|row| (output.rows.watermark(row), index, row)));
            }
        }
        // Each stream's rows of a batch come by themselves. A clock must ring between the rows between which it would
        // have rung had they come one by one, whichever streams they are of.
        rows.sort_by_key(|(watermark, ..)| *watermark);
        for (watermark, index, row) in rows {
            self.ring(watermark, moment, steps);
            self.take_row(&outputs[index], row, moment, steps);
        }
    }

    fn take_row(&mut self, output: &Output, row: usize, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let (Some(judgement), Some(rule)) = (&output.judgement, self.rules.get(&output.query).map(Arc::clone)) else {
            return;
        };
        let rows = &output.rows;
        let (raise, clear) = (judgement.raise[row], judgement.clear[row]);
        let Some(subject) = rule.subject(rows, row) else {
            return;
        };
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        for part in [&rule.name, rule.site(rows, row), own_zone(&rule, rows, row), &subject] {
            key.push_str(part);
            key.push('\u{1f}');
        }
        let found = Found {
            rule: &rule,
            rows,
            row,
            subject: &subject,
            cause: rows.cause(row),
            watermark: rows.watermark(row),
        };
        self.judge(&key, &found, raise, clear, moment, steps);
        self.key = key;
    }

    fn judge(
        &mut self,
        key: &str,
        found: &Found<'_>,
        raise: bool,
        clear: bool,
        moment: &Moment<'_>,
        steps: &mut Vec<Step>,
    ) {
        let rule = found.rule;
        let Some(watch) = self.watches.get_mut(key) else {
            if raise && let Some(key) = self.watch(key, found, moment) {
                match rule.options.silent_us {
                    Some(silent_us) => self.listen(&key, silent_us, found.site(), moment),
                    None => self.begin(&key, found, i64::MIN, moment, steps),
                }
            }
            return;
        };
        if rule.options.silent_us.is_some() {
            let at = found.time(moment);
            if at >= watch.heard_us {
                watch.heard_us = at;
                watch.heard_by.clear();
                watch.heard_by.push_str(found.cause.unwrap_or(""));
            }
            if watch.phase == Phase::Standing {
                let key = self.key_of(key);
                self.clear(&key, at, None, moment, steps);
                if let Some(watch) = self.watches.get_mut(&key) {
                    watch.phase = Phase::Listening;
                }
                self.listen(&key, rule.options.silent_us.unwrap_or(0), found.site(), moment);
            }
            return;
        }
        match watch.phase {
            Phase::Listening => {}
            Phase::Pending { .. } if raise => {
                if let Some(alert) = &mut watch.alert {
                    found.measure(alert, moment);
                }
            }
            Phase::Pending { .. } => {
                let key = self.key_of(key);
                self.clear(&key, found.time(moment), None, moment, steps);
                // It was never raised, so nothing has to cool down.
                self.forget(&key);
            }
            Phase::Standing if rule.options.raise.is_none() => {
                // Found again: it stands longer.
                let at = found.time(moment);
                watch.heard_us = watch.heard_us.max(at);
                if let Some(alert) = &mut watch.alert {
                    let changed = found.measure(alert, moment);
                    if changed {
                        steps.push(Step {
                            alert: Arc::new(alert.clone()),
                            is_turn: false,
                        });
                    }
                }
            }
            Phase::Standing if clear => {
                let key = self.key_of(key);
                let at = found.time(moment);
                if let Some(alert) = self.watches.get_mut(&key).and_then(|watch| watch.alert.as_mut()) {
                    found.measure(alert, moment);
                }
                self.clear(&key, at, Some(rule.options.cooldown_us), moment, steps);
            }
            Phase::Standing => {
                let Some(alert) = &mut watch.alert else { return };
                let changed = found.measure(alert, moment);
                let state = match (raise, watch.acknowledged) {
                    (false, _) => State::Recovering,
                    (true, true) => State::Acknowledged,
                    (true, false) => State::Active,
                };
                let is_turn = alert.state != state;
                alert.state = state;
                if is_turn || changed {
                    steps.push(Step {
                        alert: Arc::new(alert.clone()),
                        is_turn,
                    });
                }
            }
            Phase::Cooling { until } => {
                if raise && (rule.options.raise.is_some() || found.time(moment) >= until) {
                    let key = self.key_of(key);
                    self.begin(&key, found, until, moment, steps);
                }
            }
        }
    }

    /// A subject not seen before. `None` when there are too many already.
    fn watch(&mut self, key: &str, found: &Found<'_>, moment: &Moment<'_>) -> Option<Arc<str>> {
        if self.watches.len() >= SUBJECTS_MAX {
            if !std::mem::replace(&mut self.overflow_told, true) {
                tracing::warn!(rule = %found.rule.name, "{SUBJECTS_MAX} subjects are watched; new ones are not");
            }
            return None;
        }
        let key: Arc<str> = Arc::from(key);
        let watch = Watch {
            rule: Arc::clone(&found.rule.name),
            phase: Phase::Listening,
            alert: None,
            heard_us: found.time(moment),
            heard_by: found.cause.unwrap_or("").to_owned(),
            rings_us: None,
            acknowledged: false,
            snoozed_until_us: None,
        };
        self.watches.insert(Arc::clone(&key), watch);
        Some(key)
    }

    fn key_of(&self, key: &str) -> Arc<str> {
        self.watches
            .get_key_value(key)
            .map_or_else(|| Arc::from(key), |(key, _)| Arc::clone(key))
    }

    /// The condition has begun to hold.
    fn begin(
        &mut self,
        key: &Arc<str>,
        found: &Found<'_>,
        not_before: i64,
        moment: &Moment<'_>,
        steps: &mut Vec<Step>,
    ) {
        let at = found.time(moment);
        let rule = found.rule;
        let due = at.saturating_add(rule.options.for_us).max(not_before);
        let mut alert = found.alert(at, moment);
        let Some(watch) = self.watches.get_mut(key) else { return };
        watch.heard_us = at;
        watch.acknowledged = false;
        watch.snoozed_until_us = None;
        self.by_id.insert(alert.id.clone(), Arc::clone(key));
        if due > at {
            alert.state = State::Pending;
            watch.phase = Phase::Pending { due };
            steps.push(Step {
                alert: Arc::new(alert.clone()),
                is_turn: true,
            });
            watch.alert = Some(alert);
            self.set_clock(key, Some(due));
        } else {
            watch.alert = Some(alert);
            self.raise(key, at, moment, steps);
        }
    }

    /// It is out there from now on.
    fn raise(&mut self, key: &Arc<str>, at: i64, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        watch.phase = Phase::Standing;
        let Some(alert) = &mut watch.alert else { return };
        alert.state = State::Active;
        alert.event_time = time_to_text(at);
        alert.raised_at = Some(time_to_text(moment.now_us));
        steps.push(Step {
            alert: Arc::new(alert.clone()),
            is_turn: true,
        });
        let expires = self
            .rules
            .get(&watch.rule)
            .filter(|rule| rule.options.raise.is_none() && rule.options.silent_us.is_none())
            .map(|rule| watch.heard_us.saturating_add(rule.options.expires_us));
        self.set_clock(key, expires);
    }

    /// It is over. With a cool-down the subject is remembered until that has passed.
    fn clear(&mut self, key: &Arc<str>, at: i64, cooldown_us: Option<i64>, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        watch.snoozed_until_us.take().inspect(|until| {
            self.snoozed.remove(&(*until, Arc::clone(key)));
        });
        if let Some(mut alert) = watch.alert.take() {
            let was_standing = alert.state.is_standing();
            alert.state = State::Cleared;
            alert.snoozed = false;
            alert.cleared_at = Some(time_to_text(at));
            self.by_id.remove(&alert.id);
            if alert.raised_at.is_none() {
                alert.trace = Trace::default();
            }
            let alert = Arc::new(alert);
            steps.push(Step {
                alert: Arc::clone(&alert),
                is_turn: true,
            });
            if was_standing {
                self.cleared.push_front(alert);
                self.cleared.truncate(self.keep_cleared);
            }
        }
        let _ = moment;
        match cooldown_us {
            Some(cooldown_us) if cooldown_us > 0 => {
                let until = at.saturating_add(cooldown_us);
                if let Some(watch) = self.watches.get_mut(key) {
                    watch.phase = Phase::Cooling { until };
                }
                self.set_clock(key, Some(until));
            }
            Some(_) => self.forget(key),
            None => self.set_clock(key, None),
        }
    }

    fn forget(&mut self, key: &Arc<str>) {
        self.set_clock(key, None);
        self.watches.remove(key);
    }

    fn set_clock(&mut self, key: &Arc<str>, rings_us: Option<i64>) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        if let Some(before) = watch.rings_us {
            self.clocks.remove(&(before, Arc::clone(key)));
        }
        watch.rings_us = rings_us;
        if let Some(rings) = rings_us {
            self.clocks.insert((rings, Arc::clone(key)));
        }
    }

    /// Winds the clock of a subject that should be heard of within `silent_us` of opening time.
    fn listen(&mut self, key: &Arc<str>, silent_us: i64, site: &str, moment: &Moment<'_>) {
        let Some(watch) = self.watches.get(key) else { return };
        let since = watch.heard_us.max(self.listening_since_us);
        let due = silent_at(since, silent_us, site, moment.places);
        self.set_clock(key, due);
    }

    /// Lets all clocks ring that are due at `watermark`, event time in microseconds.
    pub fn ring(&mut self, watermark: i64, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        while self.clocks.first().is_some_and(|(due, _)| *due <= watermark) {
            let Some((due, key)) = self.clocks.pop_first() else {
                return;
            };
            let Some(watch) = self.watches.get_mut(&key) else {
                continue;
            };
            watch.rings_us = None;
            let Some(rule) = self.rules.get(&watch.rule).map(Arc::clone) else {
                continue;
            };
            match watch.phase {
                Phase::Pending { .. } => self.raise(&key, due, moment, steps),
                Phase::Cooling { .. } => self.forget(&key),
                Phase::Listening => self.fall_silent(&key, &rule, due, moment, steps),
                Phase::Standing => {
                    let expires = watch.heard_us.saturating_add(rule.options.expires_us);
                    if expires > due {
                        self.set_clock(&key, Some(expires));
                    } else {
                        self.clear(&key, due, Some(rule.options.cooldown_us), moment, steps);
                    }
                }
            }
        }
    }

    fn fall_silent(&mut self, key: &Arc<str>, rule: &Rule, rang: i64, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let Some(silent_us) = rule.options.silent_us else {
            return;
        };
        let mut parts = key.split('\u{1f}').skip(1);
        let (Some(site), Some(zone), Some(subject)) = (parts.next(), parts.next(), parts.next()) else {
            return;
        };
        let Some(watch) = self.watches.get_mut(key) else { return };
        let since = watch.heard_us.max(self.listening_since_us);
        let Some(due) = silent_at(since, silent_us, site, moment.places) else {
            return;
        };
        if due > rang {
            self.set_clock(key, Some(due));
            return;
        }
        let cause = watch.heard_by.clone();
        let mut values = serde_json::Map::new();
        values.insert("last_heard".to_owned(), time_to_text(watch.heard_us).into());
        let zone_name = moment.places.zone(site, zone).map_or_else(
            || crate::site::humanised(zone),
            |zone| zone.name.in_language("en").to_owned(),
        );
        let text = rule
            .options
            .text
            .replace(&format!("{{{}}}", rule.options.subject), subject)
            .replace("{zone}", &zone_name);
        let causes = vec![cause];
        let alert = Alert {
            id: alert_id(&rule.name, key, &causes, ""),
            rule: Arc::clone(&rule.name),
            site: site.to_owned(),
            zone: (!zone.is_empty()).then(|| zone.to_owned()),
            subject: Subject {
                kind: rule.options.subject.clone(),
                id: subject.to_owned(),
            },
            severity: rule.options.severity.clone(),
            state: State::Pending,
            snoozed: false,
            suppressed: false,
            text,
            values,
            window: None,
            event_time: time_to_text(due),
            raised_at: None,
            cleared_at: None,
            acknowledged_by: None,
            comments: Vec::new(),
            causes,
            trace: Trace::default(),
        };
        self.by_id.insert(alert.id.clone(), Arc::clone(key));
        watch.alert = Some(alert);
        watch.acknowledged = false;
        self.raise(key, due, moment, steps);
    }

    /// We begin to listen at this event time: silence before it was ours and nobody else's.
    pub fn listen_from(&mut self, event_time_us: i64) {
        self.listening_since_us = self.listening_since_us.max(event_time_us);
    }

    /// Our clock stands at `moment.now_us`: what was snoozed until then comes back.
    pub fn wake(&mut self, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        while self.snoozed.first().is_some_and(|(until, _)| *until <= moment.now_us) {
            let Some((_, key)) = self.snoozed.pop_first() else {
                return;
            };
            if let Some(watch) = self.watches.get_mut(&key) {
                watch.snoozed_until_us = None;
                if let Some(alert) = &mut watch.alert {
                    alert.snoozed = false;
                    steps.push(Step {
                        alert: Arc::new(alert.clone()),
                        is_turn: true,
                    });
                }
            }
        }
    }

    /// Does what staff did. Gives the alert as it is then; `None` when no pending or standing alert has that id.
    pub fn act(
        &mut self,
        action: &Action,
        watermark: i64,
        moment: &Moment<'_>,
        steps: &mut Vec<Step>,
    ) -> Option<Arc<Alert>> {
        let key = self.by_id.get(&action.alert).map(Arc::clone)?;
        if action.deed == Deed::Clear {
            let rule = self.watches.get(&key).map(|watch| Arc::clone(&watch.rule))?;
            let rule = self.rules.get(&rule).map(Arc::clone)?;
            let by = action.by.clone();
            if let Some(alert) = self.watches.get_mut(&key).and_then(|watch| watch.alert.as_mut()) {
                alert.acknowledged_by.get_or_insert(by);
            }
            let at = if watermark == i64::MIN { action.at_us } else { watermark };
            if let Some(silent_us) = rule.options.silent_us {
                let site = key.split('\u{1f}').nth(1).unwrap_or("").to_owned();
                self.clear(&key, at, None, moment, steps);
                if let Some(watch) = self.watches.get_mut(&key) {
                    watch.phase = Phase::Listening;
                    watch.heard_us = at;
                }
                self.listen(&key, silent_us, &site, moment);
            } else {
                self.clear(&key, at, Some(rule.options.cooldown_us), moment, steps);
            }
            return steps.last().map(|step| Arc::clone(&step.alert));
        }
        let watch = self.watches.get_mut(&key)?;
        let alert = watch.alert.as_mut()?;
        match &action.deed {
            Deed::Acknowledge => {
                watch.acknowledged = true;
                alert.acknowledged_by = Some(action.by.clone());
                if alert.state == State::Active {
                    alert.state = State::Acknowledged;
                }
            }
            Deed::SnoozeUntil(until) => {
                if let Some(before) = watch.snoozed_until_us.replace(*until) {
                    self.snoozed.remove(&(before, Arc::clone(&key)));
                }
                self.snoozed.insert((*until, Arc::clone(&key)));
                alert.snoozed = true;
            }
            Deed::Comment(text) => alert.comments.push(Comment {
                at: time_to_text(action.at_us),
                by: action.by.clone(),
                text: text.clone(),
            }),
            Deed::Clear => {}
        }
        let alert = Arc::new(alert.clone());
        steps.push(Step {
            alert: Arc::clone(&alert),
            is_turn: true,
        });
        Some(alert)
    }

    /// All that is pending or standing, newest first.
    pub fn open(&self) -> Vec<&Alert> {
        let mut open: Vec<&Alert> = self.watches.values().filter_map(|watch| watch.alert.as_ref()).collect();
        open.sort_by(|a, b| b.event_time.cmp(&a.event_time).then_with(|| a.id.cmp(&b.id)));
        open
    }

    /// What was cleared, newest first.
    pub fn cleared(&self) -> impl Iterator<Item = &Arc<Alert>> {
        self.cleared.iter()
    }

    /// An alert by its id, standing or among the cleared ones that are kept.
    pub fn get(&self, id: &str) -> Option<&Alert> {
        match self.by_id.get(id) {
            Some(key) => self.watches.get(key)?.alert.as_ref(),
            None => self.cleared.iter().find(|alert| alert.id == id).map(AsRef::as_ref),
        }
    }

    /// For a checkpoint.
    ///
    /// # Errors
    /// When a value can't be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Kept {
            watches: self
                .watches
                .iter()
                .map(|(key, watch)| (Arc::clone(key), watch.clone()))
                .collect(),
            cleared: self.cleared.clone(),
            listening_since_us: self.listening_since_us,
        })
    }

    /// Takes back what [`Alerts::to_bytes`] gave. The rules have to be set again after it.
    ///
    /// # Errors
    /// When the bytes are of another version.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), serde_json::Error> {
        let kept: Kept = serde_json::from_slice(bytes)?;
        self.cleared = kept.cleared;
        self.listening_since_us = kept.listening_since_us;
        for (key, watch) in kept.watches {
            if let Some(rings) = watch.rings_us {
                self.clocks.insert((rings, Arc::clone(&key)));
            }
            if let Some(until) = watch.snoozed_until_us {
                self.snoozed.insert((until, Arc::clone(&key)));
            }
            if let Some(alert) = &watch.alert {
                self.by_id.insert(alert.id.clone(), Arc::clone(&key));
            }
            self.watches.insert(key, watch);
        }
        Ok(())
    }
}

/// A row that a rule found, and how to read it.
struct Found<'a> {
    rule: &'a Arc<Rule>,
    rows: &'a Rows,
    row: usize,
    subject: &'a str,
    cause: Option<&'a str>,
    watermark: i64,
}

impl Found<'_> {
    fn site(&self) -> &str {
        self.rule.site(self.rows, self.row)
    }

    /// When it became so: what the row says, or the event behind it, or the watermark.
    fn time(&self, moment: &Moment<'_>) -> i64 {
        self.rule
            .time(self.rows, self.row)
            .or_else(|| self.cause.and_then(|cause| (moment.time_of)(cause)))
            .unwrap_or(if self.watermark == i64::MIN {
                moment.now_us
            } else {
                self.watermark
            })
    }

    fn alert(&self, at: i64, moment: &Moment<'_>) -> Alert {
        let (rule, rows, row) = (self.rule, self.rows, self.row);
        let window = rule.window(rows, row);
        let mut causes = rule
            .causes(rows, row)
            .unwrap_or_else(|| self.cause.map(str::to_owned).into_iter().collect());
        causes.truncate(CAUSES_MAX);
        let zone = rule.zone(rows, row).map(str::to_owned);
        let site = self.site().to_owned();
        let place = format!("{site}\u{1f}{}\u{1f}{}", own_zone(rule, rows, row), self.subject);
        // A window that closes by itself has no event at hand: then its time tells one finding from the next.
        let when = if causes.is_empty() {
            time_to_text(at)
        } else {
            String::new()
        };
        Alert {
            id: alert_id(&rule.name, &place, &causes, &when),
            rule: Arc::clone(&rule.name),
            site,
            zone,
            subject: Subject {
                kind: rule.options.subject.clone(),
                id: self.subject.to_owned(),
            },
            severity: rule.options.severity.clone(),
            state: State::Pending,
            snoozed: false,
            suppressed: false,
            text: rule.text(rows, row, moment.places),
            values: rule.values(rows, row),
            window,
            event_time: time_to_text(at),
            raised_at: None,
            cleared_at: None,
            acknowledged_by: None,
            comments: Vec::new(),
            causes,
            trace: self.cause.map(|cause| (moment.trace_of)(cause)).unwrap_or_default(),
        }
    }

    /// Brings an alert's measurements up to date; true when people would read something else now.
    fn measure(&self, alert: &mut Alert, moment: &Moment<'_>) -> bool {
        alert.values = self.rule.values(self.rows, self.row);
        alert.window = self.rule.window(self.rows, self.row);
        let text = self.rule.text(self.rows, self.row, moment.places);
        let changed = text != alert.text;
        alert.text = text;
        changed
    }
}

/// Seats and devices have their names within a zone; the others within a site.
fn own_zone<'a>(rule: &Rule, rows: &'a Rows, row: usize) -> &'a str {
    match rule.options.subject.as_str() {
        "seat" | "device" => rule.zone(rows, row).unwrap_or(""),
        _ => "",
    }
}

/// When a subject last heard of at `since` counts as silent.
fn silent_at(since: i64, silent_us: i64, site: &str, places: &Places) -> Option<i64> {
    match places.site(site) {
        Some(site) => site.calendar.add_open_time(since, silent_us),
        None => since.checked_add(silent_us),
    }
}

/// The same for the same rule, subject and causes, whenever and wherever it is worked out.
fn alert_id(rule: &str, place: &str, causes: &[String], when: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [rule, place, when].into_iter().chain(causes.iter().map(String::as_str)) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    format!("a-{}", &hasher.finalize().to_hex()[..24])
}
