//! Figures are what is known of one person: recency, frequency, depth, breadth, regularity, score, and where the person
//! stands. docs/ENGAGEMENT.md has each formula with an example.
//!
//! They move on by acts, in the order of event time, and by time that falls due, and by nothing else. What becomes of it is
//! said as rows of the streams `visit` and `engagement`.

mod merged;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::act::{Act, OfItem};
use super::mail::OfMessages;
use super::relation::{NOTHING, Relation, share};
use super::rules::{DAY_US, Gaps, LifeCycle, Rules, SETTLED, days, micros};
use super::visit::{Away, Visit};
use crate::event::Source;

/// Weeks of which is known whether the person came in them.
pub(super) const WEEKS: u32 = 52;

/// What a person did, in figures. Times are event times, microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) first_us: i64,
    pub(super) last_us: i64,
    pub(super) first_visit_us: i64,
    /// When and where the first visit was over; before that, where the person was first seen.
    first_ended_us: i64,
    first_place: Arc<Source>,
    /// When the last visit ended that is over.
    ended_us: i64,
    pub(super) dwell_us: i64,
    pub(super) events: u64,
    pub(super) clicks: u64,
    /// Whether the person came in a week, the latest one lowest.
    weeks: u64,
    /// The latest week, counted from Monday, 29 December 1969, UTC.
    week: i32,
    /// The latest day, days since 1970, UTC.
    last_day: i32,
    /// Days with at least one event.
    pub(super) days: u32,
    pub(super) visits: u32,
    pub(super) loans: u32,
    pub(super) searches: u32,
    /// Searches that tell how many results they had, and those of them that had some.
    told: u32,
    found: u32,
    pub(super) gaps: Gaps,
    /// Score and visits, both halved after each half-life, as they stood at `decayed_us`.
    score: f64,
    visits_decayed: f64,
    decayed_us: i64,
    pub(super) channels: u8,
    pub(super) services: u16,
    pub(super) tier: u8,
    /// Visits since the person came back from being dormant; no more than settle somebody count.
    settling: u8,
    pub(super) life_cycle: Option<LifeCycle>,
    /// Where the last event came from.
    source: Arc<Source>,
    pub(super) visit: Option<Box<Visit>>,
    /// What was asked for, sent and answered; nothing of who has none of it.
    relation: Option<Box<Relation>>,
}

// A million people are kept, and what is kept of each was measured (benches/people): it grows no wider unnoticed.
const _: () = assert!(size_of::<Figures>() <= 192);

/// Something that came of an act or of time.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Happening {
    /// A visit is over.
    Ended(Box<Ended>),
    /// The person stands elsewhere.
    Became(Box<Became>),
}

/// A visit that is over.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ended {
    /// The event time at which this was found, microseconds.
    pub(super) met_us: i64,
    pub(super) visit: Visit,
    pub(super) end_us: i64,
    pub(super) number: u32,
    pub(super) first_visit_us: i64,
    pub(super) first_ended_us: i64,
    pub(super) first_place: Arc<Source>,
}

/// A change of life cycle or tier.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Became {
    pub(super) at_us: i64,
    pub(super) source: Arc<Source>,
    /// Where the person had been seen last before that.
    pub(super) source_before: Option<Arc<Source>>,
    /// Before and after; nothing before somebody is known.
    pub(super) life_cycle: (Option<LifeCycle>, LifeCycle),
    pub(super) tier: (Option<u8>, u8),
    pub(super) score: f64,
    pub(super) reason: &'static str,
    pub(super) visits: u32,
    pub(super) away_us: i64,
    pub(super) usual_days: f64,
}

impl Figures {
    /// Of somebody who is about to do something for the first time.
    pub(super) fn first(at_us: i64, source: &Arc<Source>) -> Self {
        Self {
            first_us: at_us,
            last_us: at_us,
            first_visit_us: at_us,
            first_ended_us: at_us,
            first_place: Arc::clone(source),
            ended_us: at_us,
            dwell_us: 0,
            events: 0,
            clicks: 0,
            weeks: 0,
            week: week_of(at_us),
            last_day: i32::MIN,
            days: 0,
            visits: 0,
            loans: 0,
            searches: 0,
            told: 0,
            found: 0,
            gaps: Gaps::default(),
            score: 0.0,
            visits_decayed: 0.0,
            decayed_us: at_us,
            channels: 0,
            services: 0,
            tier: 0,
            settling: 0,
            life_cycle: None,
            source: Arc::clone(source),
            visit: None,
            relation: None,
        }
    }

    /// The person did something at an event time, before which all has happened that was due. Tells whether something may
    /// fall due earlier than before.
    pub(super) fn take(&mut self, at_us: i64, act: &Act, rules: &Rules, said: &mut Vec<Happening>) -> bool {
        // Who leaves has not come by that; and antennas at a way out see somebody several times.
        let begins = self.visit.is_none() && !act.leaves;
        let away_us = at_us - self.last_us;
        let before = self.standing();
        let reason = match self.visit {
            None if begins => self.begin(at_us, act, rules),
            None => self.show_up(),
            Some(_) => None,
        };
        let from = reason.map(|_| Arc::clone(&self.source));
        self.last_us = at_us;
        self.come_from(act);
        self.count(at_us, at_us, act, rules);
        let gap_us = rules.visit_gap_us;
        if let Some(visit) = &mut self.visit {
            let takes_part = visit.takes_part();
            self.dwell_us += visit.take(at_us, act, gap_us);
            if visit.takes_part() && !takes_part {
                let took_part = &mut self.relation.get_or_insert_default().took_part;
                *took_part = took_part.saturating_add(1);
            }
        }
        if let Some(reason) = reason {
            said.push(self.became(at_us, before, from, reason, away_us, rules));
        }
        let rises = self.rise(at_us, rules, said);
        let leaves = act.leaves && self.visit.is_some();
        if leaves {
            self.end(at_us, at_us, said);
        }
        begins || rises || leaves || reason.is_some()
    }

    /// The person did something long ago, as it turns out at `now_us`: when that time had been passed. It counts, and the
    /// person was seen then; but it makes no visit, for what lay about it has been said. Tells whether something may fall due
    /// earlier than before.
    pub(super) fn take_late(
        &mut self,
        at_us: i64,
        now_us: i64,
        act: &Act,
        rules: &Rules,
        said: &mut Vec<Happening>,
    ) -> bool {
        let before = self.standing();
        let away_us = before.0.map_or(0, |_| now_us - self.last_us);
        let from = Arc::clone(&self.source);
        let is_news = at_us > self.last_us || before.0.is_none();
        self.first_us = self.first_us.min(at_us);
        if is_news {
            self.last_us = at_us;
            self.come_from(act);
        }
        self.count(at_us, now_us, act, rules);
        let reason = if is_news { self.show_up() } else { None };
        if let Some(reason) = reason {
            said.push(self.became(now_us, before, Some(from), reason, away_us, rules));
        }
        self.rise(now_us, rules, said) || reason.is_some()
    }

    /// The person was seen, and it is no visit; gives the reason where the life cycle changes by that.
    fn show_up(&mut self) -> Option<&'static str> {
        let (after, reason) = match (self.life_cycle, self.comes_back()) {
            (None, _) => (LifeCycle::New, "first_seen"),
            (_, Some(back)) => {
                // The visits that settle somebody again are still to come.
                self.settling = 0;
                (back, "came_back")
            }
            _ => return None,
        };
        self.life_cycle = Some(after);
        Some(reason)
    }

    /// Where somebody stands who is seen after having stayed away for too long; `None` for who has not.
    fn comes_back(&self) -> Option<LifeCycle> {
        match self.life_cycle? {
            LifeCycle::Dormant | LifeCycle::Gone => Some(LifeCycle::Returning),
            LifeCycle::Drifting if self.visits < SETTLED => Some(LifeCycle::New),
            LifeCycle::Drifting => Some(LifeCycle::Active),
            LifeCycle::New | LifeCycle::Active | LifeCycle::Returning => None,
        }
    }

    /// A visit begins; gives the reason where the life cycle changes by that.
    fn begin(&mut self, at_us: i64, act: &Act, rules: &Rules) -> Option<&'static str> {
        let away = (self.visits > 0).then(|| Away {
            days: days(at_us - self.ended_us),
            usual_days: self.gaps.usual_days(rules),
        });
        match away {
            Some(away) => self.gaps.take(away.days),
            None => self.first_visit_us = at_us,
        }
        self.visits = self.visits.saturating_add(1);
        self.settling = self.settling.saturating_add(1);
        self.decay_to(at_us, rules);
        self.visits_decayed += 1.0;
        self.visit = Some(Box::new(Visit::new(at_us, act, away)));
        let (after, reason) = match (self.life_cycle, self.comes_back()) {
            // Also of somebody who was known before, by what came too late to make a visit.
            _ if self.visits == 1 => (LifeCycle::New, "first_visit"),
            (_, Some(back)) => {
                if back == LifeCycle::Returning {
                    self.settling = 1;
                }
                (back, "came_back")
            }
            (Some(LifeCycle::New), _) if self.visits >= SETTLED => (LifeCycle::Active, "settled"),
            (Some(LifeCycle::Returning), _) if u32::from(self.settling) >= SETTLED => (LifeCycle::Active, "settled"),
            _ => return None,
        };
        self.life_cycle = Some(after);
        Some(reason)
    }

    fn end(&mut self, end_us: i64, met_us: i64, said: &mut Vec<Happening>) {
        if let Some(visit) = self.visit.take() {
            self.ended_us = end_us;
            if self.visits == 1 {
                self.first_ended_us = end_us;
                self.first_place = Arc::clone(&visit.place);
            }
            said.push(Happening::Ended(Box::new(Ended {
                met_us,
                visit: *visit,
                end_us,
                number: self.visits,
                first_visit_us: self.first_visit_us,
                first_ended_us: self.first_ended_us,
                first_place: Arc::clone(&self.first_place),
            })));
        }
    }

    /// Counts an act of the event time `at_us`; the score then stands at `now_us`.
    fn count(&mut self, at_us: i64, now_us: i64, act: &Act, rules: &Rules) {
        self.events += 1;
        self.clicks += u64::from(act.clicks);
        self.loans = self.loans.saturating_add(act.loans);
        self.searches = self.searches.saturating_add(act.searches);
        self.channels |= 1 << act.channel;
        self.services |= act.services;
        self.told = self.told.saturating_add(act.told);
        self.found = self.found.saturating_add(act.found);
        match (act.item, &mut self.relation) {
            (Some(OfItem::Lent(_)), None) | (None, _) => {}
            (Some(of), relation) => relation.get_or_insert_default().deal(at_us, of),
        }
        let day = i32::try_from(at_us.div_euclid(DAY_US)).unwrap_or(i32::MAX);
        if day > self.last_day {
            self.days = self.days.saturating_add(1);
            self.last_day = day;
        }
        let week = week_of(at_us);
        self.weeks = weeks_by(self.weeks, self.week, week.max(self.week));
        self.week = self.week.max(week);
        self.weeks |= 1_u64.checked_shl(self.week.abs_diff(week)).unwrap_or(0);
        // An act that comes late counts as much as if it had come in time.
        self.decay_to(now_us, rules);
        let says_more = |reply| self.relation.get_or_insert_default().reply(reply);
        if act.reply.is_none_or(says_more) {
            self.score += act.weight * rules.decay(self.decayed_us - at_us);
        }
    }

    fn come_from(&mut self, act: &Act) {
        if !Arc::ptr_eq(&self.source, &act.source) {
            self.source = Arc::clone(&act.source);
        }
    }

    /// Life cycle and tier; nothing before somebody is known.
    pub(super) fn standing(&self) -> (Option<LifeCycle>, Option<u8>) {
        (self.life_cycle, self.life_cycle.map(|_| self.tier))
    }

    fn decay_to(&mut self, at_us: i64, rules: &Rules) {
        if at_us > self.decayed_us {
            let left = rules.decay(at_us - self.decayed_us);
            self.score *= left;
            self.visits_decayed *= left;
            self.decayed_us = at_us;
        }
    }

    /// Into the highest tier that the score, as it stands at `at_us`, reaches.
    fn rise(&mut self, at_us: i64, rules: &Rules, said: &mut Vec<Happening>) -> bool {
        let before = self.tier;
        while self.tier < rules.highest() && self.score >= rules.tier_from(self.tier + 1) {
            self.tier += 1;
        }
        if self.tier > before {
            said.push(self.became_here(at_us, (self.life_cycle, Some(before)), "score_rose", 0, rules));
        }
        self.tier > before
    }

    /// Something became of the person who was seen nowhere else since.
    fn became_here(
        &self,
        at_us: i64,
        before: (Option<LifeCycle>, Option<u8>),
        reason: &'static str,
        away_us: i64,
        rules: &Rules,
    ) -> Happening {
        self.became(at_us, before, Some(Arc::clone(&self.source)), reason, away_us, rules)
    }

    fn became(
        &self,
        at_us: i64,
        (life_cycle, tier): (Option<LifeCycle>, Option<u8>),
        from: Option<Arc<Source>>,
        reason: &'static str,
        away_us: i64,
        rules: &Rules,
    ) -> Happening {
        Happening::Became(Box::new(Became {
            at_us,
            source: Arc::clone(&self.source),
            source_before: from.filter(|_| life_cycle.is_some()),
            life_cycle: (life_cycle, self.life_cycle.unwrap_or(LifeCycle::New)),
            tier: (tier, self.tier),
            score: self.score_at(at_us, rules),
            reason,
            visits: self.visits,
            away_us,
            usual_days: self.gaps.usual_days(rules),
        }))
    }

    /// When time alone will change something next, microseconds.
    pub(super) fn next_due(&self, rules: &Rules) -> i64 {
        self.visit_over(rules).min(self.changes_at(rules))
    }

    /// When life cycle or tier change next, if the person does nothing until then, microseconds.
    pub(super) fn changes_at(&self, rules: &Rules) -> i64 {
        self.away_too_long(rules).min(self.tier_left(rules))
    }

    fn visit_over(&self, rules: &Rules) -> i64 {
        match self.visit {
            Some(_) => self.last_us.saturating_add(rules.visit_gap_us),
            None => i64::MAX,
        }
    }

    fn away_too_long(&self, rules: &Rules) -> i64 {
        let Some((_, gaps)) = self.life_cycle.and_then(LifeCycle::next) else {
            return i64::MAX;
        };
        let usual_us = micros(self.gaps.usual_days(rules));
        self.last_us.saturating_add(usual_us.saturating_mul(gaps))
    }

    fn tier_left(&self, rules: &Rules) -> i64 {
        rules.tier_left(self.tier, self.score, self.decayed_us)
    }

    /// Does what falls due next, at `now_us`: when it was due, or when that was found out.
    pub(super) fn fall_due(&mut self, now_us: i64, rules: &Rules, said: &mut Vec<Happening>) {
        let due = self.next_due(rules);
        if self.visit_over(rules) == due {
            self.end(self.last_us, now_us, said);
        } else if self.away_too_long(rules) == due {
            let before = self.life_cycle;
            self.life_cycle = before.and_then(LifeCycle::next).map(|(next, _)| next);
            let reason = self.life_cycle.map_or("", LifeCycle::as_str);
            let away_us = now_us - self.last_us;
            said.push(self.became_here(now_us, (before, Some(self.tier)), reason, away_us, rules));
        } else if self.tier_left(rules) == due && self.tier > 0 {
            self.tier -= 1;
            let before = Some(self.tier + 1);
            let away_us = now_us - self.last_us;
            said.push(self.became_here(now_us, (self.life_cycle, before), "score_fell", away_us, rules));
        }
    }

    /// Does all that falls due before `to_us`.
    pub(super) fn advance(&mut self, to_us: i64, rules: &Rules, said: &mut Vec<Happening>) {
        loop {
            let due = self.next_due(rules);
            if due >= to_us {
                break;
            }
            self.fall_due(due, rules, said);
        }
    }

    /// The score, microseconds.
    pub(super) fn score_at(&self, clock_us: i64, rules: &Rules) -> f64 {
        self.score * rules.decay((clock_us - self.decayed_us).max(0))
    }

    /// Visits, each halved after each half-life.
    pub(super) fn visits_at(&self, clock_us: i64, rules: &Rules) -> f64 {
        self.visits_decayed * rules.decay((clock_us - self.decayed_us).max(0))
    }

    /// Of the last 52 weeks, or as many as the person has been known for, in how many the person came, and how many those are.
    pub(super) fn active_weeks(&self, clock_us: i64) -> (u32, u32) {
        let now = week_of(clock_us).max(self.week);
        let known = now.abs_diff(week_of(self.first_us)).saturating_add(1).min(WEEKS);
        let within = weeks_by(self.weeks, self.week, now) & ((1 << known) - 1);
        (within.count_ones(), known)
    }

    /// What the person answered, of what was sent; `None` where nothing was.
    pub(super) fn answer_rate(&self) -> Option<f64> {
        self.relation().answer_rate()
    }

    /// What was asked for, sent and answered.
    pub(super) fn relation(&self) -> &Relation {
        self.relation.as_deref().unwrap_or(&NOTHING)
    }

    /// What became of messages to the person.
    pub(super) fn messages(&self) -> OfMessages {
        self.relation().messages
    }

    /// That became of messages to the person.
    pub(super) fn set_messages(&mut self, messages: OfMessages) {
        if messages != self.relation().messages {
            self.relation.get_or_insert_default().messages = messages;
        }
    }

    /// What the person wanted of the catalogue and of items, and what of it the person got.
    pub(super) fn demands(&self) -> (u64, u64) {
        let of_items = self.relation();
        (
            u64::from(self.told) + u64::from(of_items.requests),
            u64::from(self.found) + u64::from(of_items.served),
        )
    }

    /// The share of what the person wanted that the person got; `None` where nothing was wanted.
    pub(super) fn benefit(&self) -> Option<f64> {
        let (demands, served) = self.demands();
        share(served as f64, demands as f64)
    }

    /// Whether the person takes what is offered, and comes again: the mean of the share of answers that say yes and of the share
    /// of visits that followed another, or the one that is known.
    pub(super) fn trust(&self) -> Option<f64> {
        let again = share(f64::from(self.visits.saturating_sub(1)), f64::from(self.visits));
        match (self.relation().says_yes(), again) {
            (Some(yes), Some(again)) => Some(0.5 * yes + 0.5 * again),
            (yes, again) => yes.or(again),
        }
    }

    /// The share of visits in which the person took part; `None` of who never came.
    pub(super) fn participation(&self) -> Option<f64> {
        share(f64::from(self.relation().took_part), f64::from(self.visits))
    }

    /// Figures of other settings: there may be fewer tiers now.
    pub(super) fn fit(&mut self, rules: &Rules) {
        self.tier = self.tier.min(rules.highest());
    }

    /// The sources that are held, to be shared with others that are the same.
    pub(super) fn sources(&mut self) -> impl Iterator<Item = &mut Arc<Source>> {
        let of_visit = self.visit.as_mut().into_iter().flat_map(|visit| visit.sources());
        [&mut self.source, &mut self.first_place].into_iter().chain(of_visit)
    }
}

/// Weeks from Monday to Sunday, UTC: the same for all, so that one bit is one week.
fn week_of(at_us: i64) -> i32 {
    // 1970 began on a Thursday.
    let week = (at_us.div_euclid(DAY_US) + 3).div_euclid(7);
    i32::try_from(week).unwrap_or(i32::MAX)
}

/// The weeks as they look from a later one.
fn weeks_by(weeks: u64, from: i32, to: i32) -> u64 {
    weeks.checked_shl(to.abs_diff(from)).unwrap_or(0)
}
