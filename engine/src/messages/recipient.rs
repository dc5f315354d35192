//! A recipient is one person as far as messages go: what was found and waits to be decided, what was sent and withheld,
//! what the person declined, and whether the person came back.

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate};
use chrono_tz::Tz;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::finding::Candidate;
use super::message::{Message, MessageState, Withheld};
use super::uplift::Trial;
use crate::calendar::{Calendar, DayHours};
use crate::event::Response;
use crate::rule::Rule;
use crate::site::Places;

/// Messages kept of those that a person was sent. No day has as many, so that a day's limit is always known.
const SENT_MAX: usize = 128;
/// Messages kept of those that were withheld.
const WITHHELD_MAX: usize = 32;
/// Rows that may wait to be decided about one person in one moment; more are one too many.
const WAITING_MAX: usize = 256;
/// Two instants further apart are on different days, whatever the clocks do.
const DAY_AND_A_BIT_US: i64 = 49 * 3_600_000_000;

/// How messages are decided; durations in microseconds.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) moment_us: i64,
    pub(super) per_day: usize,
    pub(super) quiet: Vec<(u16, u16)>,
    pub(super) declines: u32,
    pub(super) stop_us: i64,
    pub(super) back_after_us: i64,
    pub(super) back_within_us: i64,
    pub(super) keep_us: i64,
}

/// What deciding needs to know beside the person.
pub(super) struct Deciding<'a> {
    pub(super) terms: &'a Terms,
    pub(super) rules: &'a FxHashMap<Arc<str>, Arc<Rule>>,
    pub(super) places: &'a Places,
    /// Whether this person is among those who are sent nothing.
    pub(super) is_held_out: bool,
    /// Whether this person may be counted to see whether rules help.
    pub(super) is_studied: bool,
}

/// A kind that was declined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Declined {
    kind: Arc<str>,
    in_row: u32,
    stopped_until_us: i64,
}

/// One person as far as messages go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recipient {
    /// In checkpoints from before there were purposes: the person does not want to be known, and nothing else is kept.
    pub(super) was_opted_out: bool,
    /// In the order in which they came.
    waiting: Vec<Candidate>,
    /// With those that would have been sent but for the holdout, the oldest first.
    sent: Vec<Message>,
    withheld: VecDeque<Message>,
    declined: Vec<Declined>,
    trials: Vec<Trial>,
    /// When something happened last.
    last_us: i64,
    /// When it is looked at next, as the clock of all recipients has it.
    #[serde(skip)]
    pub(super) due_us: Option<i64>,
}

/// What happened to a recipient.
#[derive(Debug, Default)]
pub(super) struct Happened {
    /// Messages that are in another state now.
    pub(super) turned: Vec<Message>,
    /// Trials that are over.
    pub(super) over: Vec<Trial>,
    /// Whether the recipient is another than before, also where nothing is told of it.
    pub(super) has_changed: bool,
}

impl Recipient {
    /// Takes what was found, unless it is known; true where it is new.
    pub(super) fn find(&mut self, candidate: Candidate) -> bool {
        let id = &candidate.message.id;
        // What is found again at a later moment is decided then: where time goes on in leaps, the first may still wait here.
        let is_same = |waiting: &Candidate| (waiting.met_us, &waiting.message.id) == (candidate.met_us, id);
        let is_known = self.waiting.iter().any(is_same) || self.message(id).is_some();
        if is_known || self.waiting.len() >= WAITING_MAX {
            return false;
        }
        self.last_us = self.last_us.max(candidate.message.at_us);
        let at = self.waiting.partition_point(|other| other.order() < candidate.order());
        self.waiting.insert(at, candidate);
        true
    }

    /// When something is due next, microseconds.
    pub(super) fn next_due(&self, terms: &Terms) -> Option<i64> {
        let decided = self.waiting.first().map(|first| decided_at(first, terms));
        let open = self.sent.iter().filter(|message| message.state.is_open());
        let expires = open.map(|message| message.expires_us).min();
        let trials = self.trials.iter().filter(|trial| !trial.is_over);
        let over = trials.map(|trial| trial.until_us).min();
        let forgotten = self.last_us.saturating_add(terms.keep_us);
        [decided, expires, over].into_iter().flatten().chain([forgotten]).min()
    }

    /// Does what is due by then; true when nothing of the person is worth remembering any more.
    pub(super) fn advance(&mut self, until_us: i64, deciding: &Deciding<'_>, happened: &mut Happened) -> bool {
        while let Some(due_us) = self.next_due(deciding.terms).filter(|due_us| *due_us <= until_us) {
            for message in self.sent.iter_mut().filter(|message| message.state.is_open()) {
                if message.expires_us <= due_us {
                    message.state = MessageState::Expired;
                    happened.has_changed = true;
                    happened.turned.push(message.clone());
                }
            }
            for trial in self.trials.iter_mut().filter(|trial| !trial.is_over) {
                if trial.until_us <= due_us {
                    trial.is_over = true;
                    happened.has_changed = true;
                    happened.over.push(trial.clone());
                }
            }
            let first = self.waiting.first();
            if first.is_some_and(|first| decided_at(first, deciding.terms) <= due_us) {
                self.decide(due_us, deciding, happened);
            }
            // Who was held out is remembered as long as who was sent it.
            let stands = |sent: &Message| is_open(sent) && sent.expires_us > due_us;
            let is_idle = self.waiting.is_empty()
                && self.trials.iter().all(|trial| trial.is_over)
                && !self.sent.iter().any(stands);
            if self.last_us.saturating_add(deciding.terms.keep_us) <= due_us {
                if is_idle && !self.is_stopped(due_us) {
                    return true;
                }
                // What still goes on is waited for.
                self.last_us = due_us;
                happened.has_changed = true;
            }
        }
        false
    }

    /// Lets one message of a moment out, if any may go.
    fn decide(&mut self, due_us: i64, deciding: &Deciding<'_>, happened: &mut Happened) {
        let in_moment = |candidate: &Candidate| candidate.met_us < due_us;
        let count = self.waiting.iter().take_while(|candidate| in_moment(candidate)).count();
        happened.has_changed |= count > 0;
        let mut found: Vec<Message> = Vec::new();
        let waiting: Vec<Candidate> = self.waiting.drain(..count).collect();
        for Candidate { message, .. } in waiting {
            if self.message(&message.id).is_some() {
                continue;
            }
            // Of what a rule found in one moment one row is the message.
            match found.iter_mut().find(|other| other.rule == message.rule) {
                None => found.push(message),
                Some(other) => {
                    let rule = deciding.rules.get(&message.rule);
                    let options = rule.and_then(|rule| rule.options.message.as_ref());
                    let prefer = options.and_then(|options| options.prefer.as_ref());
                    if prefer.is_some_and(|prefer| message.is_preferred_to(other, prefer)) {
                        *other = message;
                    }
                }
            }
        }
        found.sort_by(|a, b| {
            let rank = |message: &Message| (-message.priority, message.at_us);
            rank(a)
                .cmp(&rank(b))
                .then_with(|| (&a.rule, &a.id).cmp(&(&b.rule, &b.id)))
        });
        let mut is_taken = false;
        for mut message in found {
            // Its rule may have gone meanwhile.
            let Some(rule) = deciding.rules.get(&message.rule).map(Arc::clone) else {
                continue;
            };
            message.at_us = message.at_us.max(due_us);
            message.expires_us = message.at_us.saturating_add(rule.options.expires_us);
            self.last_us = self.last_us.max(message.at_us);
            let reason = match is_taken {
                true => Some(Withheld::LowerPriority),
                false => self.reason(&message, &rule, deciding),
            };
            is_taken |= reason.is_none();
            match reason {
                Some(reason) => {
                    withhold(&mut message, reason);
                    happened.turned.push(message.clone());
                    self.withheld.push_back(message);
                    if self.withheld.len() > WITHHELD_MAX {
                        self.withheld.pop_front();
                    }
                }
                None => self.send(message, deciding, happened),
            }
        }
    }

    /// Why a message may not go out, but for the holdout.
    fn reason(&self, message: &Message, rule: &Rule, deciding: &Deciding<'_>) -> Option<Withheld> {
        let at_us = message.at_us;
        let of_kind = self.declined.iter().find(|declined| declined.kind == message.kind);
        if of_kind.is_some_and(|declined| declined.stopped_until_us > at_us) {
            return Some(Withheld::DeclinedTwice);
        }
        let calendar = deciding.places.site(&message.site).map(|site| &site.calendar);
        let zone = calendar.map_or(Tz::UTC, Calendar::time_zone);
        let hours = rule.hours_at(&message.site, at_us, deciding.places);
        let is_quiet = match rule.options.quiet.is_empty() {
            false => hours.is_quiet,
            true => is_in(&deciding.terms.quiet, zone, at_us),
        };
        if is_quiet {
            return Some(Withheld::QuietHours);
        }
        if !hours.is_open {
            return Some(Withheld::Closed);
        }
        let mut of_kind = self.sent.iter().filter(|sent| sent.kind == message.kind);
        if of_kind.any(|sent| is_open(sent) && sent.expires_us > at_us) {
            return Some(Withheld::StillOpen);
        }
        let (mut of_all, mut of_kind) = (0, 0);
        let today = date(at_us, zone);
        for sent in self
            .sent
            .iter()
            .filter(|sent| at_us.abs_diff(sent.at_us) < DAY_AND_A_BIT_US.unsigned_abs())
        {
            if date(sent.at_us, zone) == today {
                of_all += 1;
                of_kind += usize::from(sent.kind == message.kind);
            }
        }
        let per_day = rule
            .options
            .message
            .as_ref()
            .map_or(0, |options| options.per_day as usize);
        (of_all >= deciding.terms.per_day || of_kind >= per_day).then_some(Withheld::Cap)
    }

    /// It goes out, or would but for the holdout; which of the two changes nothing else, so that they can be compared.
    fn send(&mut self, mut message: Message, deciding: &Deciding<'_>, happened: &mut Happened) {
        if deciding.is_held_out {
            withhold(&mut message, Withheld::Holdout);
        }
        if deciding.is_studied && !self.trials.iter().any(|trial| trial.rule == message.rule) {
            self.trials.push(Trial {
                rule: Arc::clone(&message.rule),
                is_sent: !deciding.is_held_out,
                from_us: message.at_us.saturating_add(deciding.terms.back_after_us),
                until_us: message.at_us.saturating_add(deciding.terms.back_within_us),
                is_back: false,
                is_over: false,
            });
        }
        happened.turned.push(message.clone());
        self.sent.push(message);
        if self.sent.len() > SENT_MAX {
            let mut oldest = self.sent.remove(0);
            if oldest.state.is_open() {
                // No answer would find it.
                oldest.state = MessageState::Expired;
                happened.turned.push(oldest);
            }
        }
    }

    /// The person answers; the message as it is then, where that changes it.
    pub(super) fn answer(&mut self, answer: &super::Answer, terms: &Terms) -> Option<Message> {
        let found = self.sent.iter_mut().find(|message| *message.id == *answer.message);
        let message = found.filter(|message| message.state != MessageState::Withheld)?;
        let at_us = answer.at_us.max(message.at_us);
        // The watermark, by which it expires, may be far behind.
        let is_in_time = answer.at_us <= message.expires_us;
        let was = message.clone();
        message.rating = answer.rating.or(message.rating);
        match answer.response {
            Response::Opened if message.state == MessageState::Sent => {
                message.state = MessageState::Opened;
                message.opened_us = Some(at_us);
            }
            Response::Accepted if is_in_time && message.state.is_open() => {
                message.state = MessageState::Accepted;
                message.answered_us = Some(at_us);
            }
            Response::Declined if is_in_time && message.state.is_open() => {
                message.state = MessageState::Declined;
                message.answered_us = Some(at_us);
            }
            _ => {}
        }
        if *message == was {
            return None;
        }
        self.last_us = self.last_us.max(at_us);
        let now = message.clone();
        if now.state != was.state {
            self.learn(&now, at_us, terms);
        }
        Some(now)
    }

    /// What an answer means for the messages that follow.
    fn learn(&mut self, message: &Message, at_us: i64, terms: &Terms) {
        let place = self.declined.iter().position(|declined| declined.kind == message.kind);
        match (message.state, place) {
            (MessageState::Accepted, Some(place)) => self.declined[place].in_row = 0,
            (MessageState::Declined, place) => {
                let place = place.unwrap_or_else(|| {
                    self.declined.push(Declined {
                        kind: Arc::clone(&message.kind),
                        in_row: 0,
                        stopped_until_us: i64::MIN,
                    });
                    self.declined.len() - 1
                });
                let declined = &mut self.declined[place];
                declined.in_row += 1;
                if declined.in_row >= terms.declines {
                    declined.in_row = 0;
                    declined.stopped_until_us = at_us.saturating_add(terms.stop_us);
                }
            }
            _ => {}
        }
    }

    fn is_stopped(&self, at_us: i64) -> bool {
        self.declined.iter().any(|declined| declined.stopped_until_us > at_us)
    }

    /// The person did something; true where that was coming back.
    pub(super) fn see(&mut self, at_us: i64) -> bool {
        let mut is_new = false;
        for trial in &mut self.trials {
            is_new |= trial.see(at_us);
        }
        is_new
    }

    /// Whether [`Recipient::see`] would be true.
    pub(super) fn would_be_back(&self, at_us: i64) -> bool {
        self.trials.iter().any(|trial| trial.is_back_at(at_us))
    }

    /// Forgets what is to be counted of rules; whether there was anything.
    pub(super) fn forget_trials(&mut self) -> bool {
        let running = self.trials.len();
        self.trials.retain(|trial| trial.is_over);
        self.trials.len() < running
    }

    /// The trials whose time is not over.
    pub(super) fn running(&self) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(|trial| !trial.is_over)
    }

    /// What goes with other names of the person: what is theirs, and what was declined, which holds for all; the rest of what is
    /// known goes with the name by which the person was called.
    pub(super) fn part(&mut self, is_theirs: impl Fn(&str) -> bool, is_heir: bool) -> Self {
        let mut waiting = Vec::new();
        self.waiting.retain(|candidate| {
            let goes = is_theirs(&candidate.message.id);
            waiting.extend(goes.then(|| candidate.clone()));
            !goes
        });
        let (sent, kept) = std::mem::take(&mut self.sent)
            .into_iter()
            .partition(|sent| is_theirs(&sent.id));
        self.sent = kept;
        let (withheld, kept) = (std::mem::take(&mut self.withheld).into_iter()).partition(|held| is_theirs(&held.id));
        self.withheld = kept;
        Self {
            was_opted_out: false,
            waiting,
            sent,
            withheld,
            declined: self.declined.clone(),
            trials: if is_heir {
                std::mem::take(&mut self.trials)
            } else {
                Vec::new()
            },
            last_us: self.last_us,
            due_us: None,
        }
    }

    /// Adds what is known of another name of the same person.
    pub(super) fn join(&mut self, other: Self) {
        self.waiting.extend(other.waiting);
        self.waiting.sort_by(|a, b| a.order().cmp(&b.order()));
        self.waiting.truncate(WAITING_MAX);
        self.sent.extend(other.sent);
        self.sent.sort_by(|a, b| (a.at_us, &a.id).cmp(&(b.at_us, &b.id)));
        let surplus = self.sent.len().saturating_sub(SENT_MAX);
        self.sent.drain(..surplus);
        self.withheld.extend(other.withheld);
        let order = |message: &Message| (message.at_us, message.id.clone());
        self.withheld.make_contiguous().sort_by_cached_key(order);
        let surplus = self.withheld.len().saturating_sub(WITHHELD_MAX);
        self.withheld.drain(..surplus);
        for declined in other.declined {
            match self.declined.iter_mut().find(|own| own.kind == declined.kind) {
                Some(own) => {
                    own.in_row = own.in_row.max(declined.in_row);
                    own.stopped_until_us = own.stopped_until_us.max(declined.stopped_until_us);
                }
                None => self.declined.push(declined),
            }
        }
        self.declined.sort_by(|a, b| a.kind.cmp(&b.kind));
        for trial in other.trials {
            match self.trials.iter_mut().find(|own| own.rule == trial.rule) {
                // A person counts once for a rule, by the first of its messages.
                Some(own) if trial.from_us < own.from_us => *own = trial,
                Some(_) => {}
                None => self.trials.push(trial),
            }
        }
        self.trials.sort_by(|a, b| a.rule.cmp(&b.rule));
        self.last_us = self.last_us.max(other.last_us);
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_nothing(&self) -> bool {
        self.waiting.is_empty()
            && self.sent.is_empty()
            && self.withheld.is_empty()
            && self.declined.is_empty()
            && self.trials.is_empty()
    }

    /// The ids of all that was found and is kept, be it decided or not.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        let waiting = self.waiting.iter().map(|candidate| &candidate.message);
        waiting.chain(self.messages()).map(|message| message.id.as_str())
    }

    /// A message that was decided, by its id.
    pub(super) fn message(&self, id: &str) -> Option<&Message> {
        self.messages().find(|message| message.id == id)
    }

    /// How many messages are kept, those that are not decided yet among them.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.sent.len() + self.withheld.len()
    }

    /// Takes names out of messages that go to this one; gives out of how many.
    pub(super) fn forget_names(&mut self, is_named: &dyn Fn(&str) -> bool) -> u64 {
        let waiting = self.waiting.iter_mut().map(|candidate| &mut candidate.message);
        let all = waiting.chain(&mut self.sent).chain(&mut self.withheld);
        all.filter_map(|message| message.forget_names(is_named).then_some(()))
            .count() as u64
    }

    /// All that are kept, those that were sent first.
    pub(super) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.sent.iter().chain(&self.withheld)
    }
}

/// When the moment of a candidate is over. It lasts something, so that all that is said at one watermark is in it.
fn decided_at(candidate: &Candidate, terms: &Terms) -> i64 {
    candidate.met_us.saturating_add(terms.moment_us.max(1))
}

/// Whether a message of those that were sent stands while its time is not over. One that was only held back may be answered by
/// nobody, and yet stands as long as it would have.
fn is_open(sent: &Message) -> bool {
    sent.state.is_open() || sent.state == MessageState::Withheld
}

fn withhold(message: &mut Message, reason: Withheld) {
    message.state = MessageState::Withheld;
    message.withheld = Some(reason);
}

fn date(at_us: i64, zone: Tz) -> Option<NaiveDate> {
    DateTime::from_timestamp_micros(at_us).map(|at| at.with_timezone(&zone).date_naive())
}

fn is_in(hours: &[(u16, u16)], zone: Tz, at_us: i64) -> bool {
    if hours.is_empty() {
        return false;
    }
    let day = DayHours::of_ranges(hours);
    Calendar::weekly(zone, std::array::from_fn(|_| day.clone())).is_open(at_us)
}
