//! A visit is a person's session across channels: from the first sighting to a way out, or to a gap.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::act::{self, Act};
use crate::event::{Kind, Source};

/// A visit that is not over yet. Times are event times, microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Visit {
    pub(super) start_us: i64,
    /// How long readers saw the person stay.
    pub(super) dwell_us: i64,
    pub(super) events: u32,
    pub(super) clicks: u32,
    pub(super) loans: u32,
    pub(super) searches: u32,
    /// Searches that told how many results they had, and those of them that had some.
    pub(super) told: u32,
    pub(super) found: u32,
    pub(super) channels: u8,
    pub(super) services: u16,
    /// Days since the visit before ended, and what was usual until then; `None` of the first.
    pub(super) away: Option<Away>,
    /// Where the longest unbroken stay was; before any, where the visit began.
    pub(super) place: Arc<Source>,
    longest_us: i64,
    stay: Option<Stay>,
}

/// How long somebody was away before a visit, and how long was usual, days.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Away {
    pub(super) days: f64,
    pub(super) usual_days: f64,
}

/// Being in one zone, as readers see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stay {
    at: Arc<Source>,
    since_us: i64,
    seen_us: i64,
}

impl Visit {
    /// It begins with an act, which is not counted yet.
    pub(super) fn new(start_us: i64, act: &Act, away: Option<Away>) -> Self {
        Self {
            start_us,
            dwell_us: 0,
            events: 0,
            clicks: 0,
            loans: 0,
            searches: 0,
            told: 0,
            found: 0,
            channels: 0,
            services: 0,
            away,
            place: Arc::clone(&act.source),
            longest_us: 0,
            stay: None,
        }
    }

    /// The person did something; tells for how long the person has stayed since the last reading, microseconds.
    pub(super) fn take(&mut self, at_us: i64, act: &Act, gap_us: i64) -> i64 {
        self.events += 1;
        self.clicks = self.clicks.saturating_add(act.clicks);
        self.loans = self.loans.saturating_add(act.loans);
        self.searches = self.searches.saturating_add(act.searches);
        self.told = self.told.saturating_add(act.told);
        self.found = self.found.saturating_add(act.found);
        self.channels |= 1 << act.channel;
        self.services |= act.services;
        if act.source.kind != Kind::Rfid {
            return 0;
        }
        // Between two readings that lie far apart the person was on the web, and nobody knows where.
        let stayed = self.stay.as_ref().map(|stay| at_us - stay.seen_us);
        let stayed = stayed.filter(|stayed| *stayed <= gap_us);
        match &mut self.stay {
            Some(stay) if stayed.is_some() && is_same_zone(&stay.at, &act.source) => {
                stay.seen_us = at_us;
                if at_us - stay.since_us > self.longest_us {
                    self.longest_us = at_us - stay.since_us;
                    self.place = Arc::clone(&stay.at);
                }
            }
            _ => {
                self.stay = Some(Stay {
                    at: Arc::clone(&act.source),
                    since_us: at_us,
                    seen_us: at_us,
                });
            }
        }
        let stayed = stayed.unwrap_or(0);
        self.dwell_us += stayed;
        stayed
    }

    /// Whether the person took part in something by now.
    pub(super) fn takes_part(&self) -> bool {
        act::takes_part(self.services)
    }

    /// The sources that it holds, to be shared with others that are the same.
    pub(super) fn sources(&mut self) -> impl Iterator<Item = &mut Arc<Source>> {
        let stay = self.stay.as_mut().map(|stay| &mut stay.at);
        std::iter::once(&mut self.place).chain(stay)
    }
}

fn is_same_zone(a: &Arc<Source>, b: &Arc<Source>) -> bool {
    Arc::ptr_eq(a, b) || a.zone == b.zone && a.site == b.site
}
