//! Merged figures are those of several who turn out to be one person, until the log tells what is.

use std::sync::Arc;

use super::{Figures, Happening, weeks_by};
use crate::people::rules::{LifeCycle, Rules};

impl Figures {
    /// What there is to say where the person stands elsewhere than was said last, since the past turned out to be another.
    pub(in crate::people) fn stands_elsewhere(
        &self,
        at_us: i64,
        said: (Option<LifeCycle>, Option<u8>),
        rules: &Rules,
    ) -> Option<Happening> {
        let from = Some(Arc::clone(&self.source));
        let away_us = at_us.saturating_sub(self.last_us).max(0);
        (self.standing() != said).then(|| self.became(at_us, said, from, "repaired", away_us, rules))
    }

    /// Of two who turn out to be one person, until the log tells what is: sums, the first and the last of both, and what is
    /// usual by the gaps of both.
    pub(in crate::people) fn merged(self, other: &Self, rules: &Rules) -> Self {
        let (mut later, mut earlier) = match (self.last_us, self.first_us) >= (other.last_us, other.first_us) {
            true => (self, other.clone()),
            false => (other.clone(), self),
        };
        let decayed_us = later.decayed_us.max(earlier.decayed_us);
        later.decay_to(decayed_us, rules);
        earlier.decay_to(decayed_us, rules);
        let week = later.week.max(earlier.week);
        if earlier.first_visit_us < later.first_visit_us && earlier.visits > 0 || later.visits == 0 {
            later.first_visit_us = earlier.first_visit_us;
            later.first_ended_us = earlier.first_ended_us;
            later.first_place = Arc::clone(&earlier.first_place);
        }
        later.first_us = later.first_us.min(earlier.first_us);
        later.ended_us = later.ended_us.max(earlier.ended_us);
        later.dwell_us = later.dwell_us.saturating_add(earlier.dwell_us);
        later.events = later.events.saturating_add(earlier.events);
        later.clicks = later.clicks.saturating_add(earlier.clicks);
        later.weeks = weeks_by(later.weeks, later.week, week) | weeks_by(earlier.weeks, earlier.week, week);
        later.week = week;
        // On how many days both came is not known; nobody came on fewer than either did.
        later.days = later.days.max(earlier.days);
        later.last_day = later.last_day.max(earlier.last_day);
        for (sum, more) in [
            (&mut later.visits, earlier.visits),
            (&mut later.loans, earlier.loans),
            (&mut later.searches, earlier.searches),
            (&mut later.told, earlier.told),
            (&mut later.found, earlier.found),
        ] {
            *sum = sum.saturating_add(more);
        }
        later.settling = later.settling.saturating_add(earlier.settling);
        later.relation = match (later.relation.take(), earlier.relation) {
            (Some(own), Some(other)) => Some(Box::new(own.merged(&other))),
            (own, other) => own.or(other),
        };
        later.gaps = later.gaps.merged(&earlier.gaps);
        later.score += earlier.score;
        later.visits_decayed += earlier.visits_decayed;
        later.channels |= earlier.channels;
        later.services |= earlier.services;
        later.tier = later.tier.max(earlier.tier);
        later.visit = later.visit.or(earlier.visit);
        later
    }
}
