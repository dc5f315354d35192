//! A watch is all about one subject of one rule: what is raised, when it was last heard of, and which clocks run.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::alert::{Alert, Turn, Why};
use crate::rule::Rule;

/// Steps kept of an alert's life: the first, and the latest. A day of one that flaps all day has fewer.
const HISTORY_MAX: usize = 100;

/// What parts of a key stand between.
const BETWEEN: char = '\u{1f}';

/// Where a subject stands in the eyes of its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Nothing is raised; a clock runs since it was last heard of.
    Listening,
    /// Raised once it has held until its clock rings; before `not_before` it cools down from the last time.
    Pending {
        /// Event time, microseconds.
        not_before: i64,
    },
    /// Out there.
    Standing,
    /// Over, and not to be raised again before then.
    Cooling {
        /// Event time, microseconds.
        until: i64,
    },
}

/// What the clocks of a watch ring for, in the order in which those ring that are due at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Bell {
    /// Quiet or opening hours begin or end.
    Hours,
    /// The next phase: it has held, was kept, has expired, has cooled down, fell silent.
    Phase,
    /// The severity rises.
    Severity,
    /// Staff wants to hear of it again.
    Snooze,
}

/// All bells.
pub(super) const BELLS: [Bell; 4] = [Bell::Hours, Bell::Phase, Bell::Severity, Bell::Snooze];

/// Why an alert is held back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Reason {
    /// An alert of that rule stands.
    Inhibited(String),
    /// The rule's quiet hours.
    Quiet,
    /// The site is closed, and the rule is for when it is open.
    Closed,
    /// The site is open, and the rule is for when it is closed.
    Open,
    /// Its measurements stopped coming.
    NoData,
}

impl Reason {
    pub(super) fn word(&self) -> &str {
        match self {
            Self::Inhibited(rule) => rule,
            Self::Quiet => "quiet",
            Self::Closed => "closed",
            Self::Open => "open",
            Self::NoData => "no_data",
        }
    }

    pub(super) fn why(&self) -> Why {
        match self {
            Self::Inhibited(_) => Why::Inhibition,
            Self::Quiet => Why::Quiet,
            Self::Closed | Self::Open => Why::Calendar,
            Self::NoData => Why::NoData,
        }
    }
}

/// The steps of an alert's life.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct History {
    /// The earliest first.
    pub(super) turns: Vec<Turn>,
    /// How many are no longer kept, between the first and the second.
    pub(super) left_out: u32,
}

impl History {
    pub(super) fn next_number(&self) -> u32 {
        self.turns.last().map_or(1, |turn| turn.number + 1)
    }

    /// Keeps of no step what belongs to it: words of comments among that.
    pub(super) fn forget_notes(&mut self) {
        for turn in &mut self.turns {
            turn.note = None;
        }
    }

    /// Keeps no note that names somebody; true where one did.
    pub(super) fn forget_names(&mut self, is_named: &dyn Fn(&str) -> bool) -> bool {
        let mut has_changed = false;
        for turn in &mut self.turns {
            if turn.note.as_deref().is_some_and(is_named) {
                turn.note = None;
                has_changed = true;
            }
        }
        has_changed
    }

    pub(super) fn push(&mut self, turn: Turn) {
        if self.turns.len() >= HISTORY_MAX {
            self.turns.remove(1);
            self.left_out += 1;
        }
        self.turns.push(turn);
    }
}

/// An alert that is pending or standing, with what is known beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Open {
    pub(super) alert: Alert,
    pub(super) history: History,
    /// Since when it stands, or is pending; event time in microseconds.
    pub(super) since_us: i64,
    pub(super) acknowledged: bool,
    /// What holds it back, and as of which event time that was looked at.
    pub(super) reasons: BTreeSet<Reason>,
    pub(super) reviewed_us: i64,
}

impl Open {
    pub(super) fn new(alert: Alert, since_us: i64) -> Self {
        Self {
            alert,
            history: History::default(),
            since_us,
            acknowledged: false,
            reasons: BTreeSet::new(),
            reviewed_us: since_us,
        }
    }
}

/// All about one subject of one rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Watch {
    pub(super) rule: Arc<str>,
    pub(super) phase: Phase,
    pub(super) open: Option<Open>,
    /// When it was last heard of or found again, event time in microseconds.
    pub(super) heard_us: i64,
    /// The event it was last heard by.
    pub(super) heard_by: String,
    /// When its clocks ring, event time in microseconds, by [`Bell`].
    pub(super) rings_us: [Option<i64>; BELLS.len()],
}

impl Watch {
    pub(super) fn new(rule: &Arc<str>, heard_us: i64, heard_by: &str) -> Self {
        Self {
            rule: Arc::clone(rule),
            phase: Phase::Listening,
            open: None,
            heard_us,
            heard_by: heard_by.to_owned(),
            rings_us: [None; BELLS.len()],
        }
    }

    /// The alert, while it stands.
    pub(super) fn standing(&self) -> Option<&Open> {
        self.open.as_ref().filter(|_| self.phase == Phase::Standing)
    }

    /// The first of its clocks.
    pub(super) fn next_bell(&self) -> Option<(i64, Bell)> {
        let of_bell = |bell: &Bell| self.rings_us[*bell as usize].map(|due| (due, *bell));
        BELLS.iter().filter_map(of_bell).min()
    }
}

/// What a key names: site, zone where the subject has its name within one, and subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) site: &'a str,
    pub(super) zone: &'a str,
    pub(super) subject: &'a str,
}

impl<'a> Place<'a> {
    /// Reads a key.
    pub(super) fn of(key: &'a str) -> Self {
        let mut parts = key.split(BETWEEN).skip(1);
        let mut next = || parts.next().unwrap_or("");
        Self {
            site: next(),
            zone: next(),
            subject: next(),
        }
    }

    /// Writes the key of a rule's watch.
    pub(super) fn write(self, rule: &str, key: &mut String) {
        key.clear();
        for part in [rule, self.site, self.zone, self.subject] {
            key.push_str(part);
            key.push(BETWEEN);
        }
    }

    /// The key of a rule's watch.
    pub(super) fn key(self, rule: &str) -> String {
        let mut key = String::new();
        self.write(rule, &mut key);
        key
    }

    /// What the keys of a rule at a site begin with.
    pub(super) fn prefix(rule: &str, site: &str) -> String {
        format!("{rule}{BETWEEN}{site}{BETWEEN}")
    }

    /// The zone that a subject of this place is in, where the place tells.
    pub(super) fn zone_of(self, rule: &Rule) -> Option<&'a str> {
        let zone = if rule.options.subject == "zone" {
            self.subject
        } else {
            self.zone
        };
        (!zone.is_empty()).then_some(zone)
    }
}
