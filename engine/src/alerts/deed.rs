//! A deed is what staff does to an alert.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use usher_queries::rows::time_to_text;

use super::life::Happened;
use super::watch::{Bell, Phase, Place};
use super::{Alerts, Moment, Step};
use crate::alert::{Alert, Comment, State, What, Why};

/// Comments kept beside an alert; beyond it the second oldest goes.
const COMMENTS_MAX: usize = 100;

/// What staff does to an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// Somebody looks after it.
    Acknowledge,
    /// Not to be told of until then, microseconds since 1970 by our clock.
    SnoozeUntil(i64),
    /// It is over.
    Clear,
    /// Words to keep beside it.
    Comment(String),
    /// Who is to look after it; `None` for nobody.
    Assign(Option<String>),
    /// To be told of again.
    Unsnooze,
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

impl Alerts {
    /// Does what staff did, when all that is due by the watermark `reached` has rung. Gives the alert as it is then;
    /// `None` when no pending or standing alert has that id.
    pub fn act(
        &mut self,
        action: &Action,
        reached: i64,
        moment: &Moment<'_>,
        steps: &mut Vec<Step>,
    ) -> Option<Arc<Alert>> {
        let key = self.by_id.get(&action.alert).map(Arc::clone)?;
        let event_us = if reached == i64::MIN { action.at_us } else { reached };
        let happened = |what: What, note: Option<String>| Happened {
            at_us: action.at_us,
            what,
            why: Why::Staff,
            by: &action.by,
            note,
        };
        let open = self.watches.get_mut(&key)?.open.as_mut()?;
        let alert = &mut open.alert;
        match &action.deed {
            Deed::Acknowledge => {
                open.acknowledged = true;
                alert.acknowledged_by = Some(action.by.clone());
                if alert.state == State::Active {
                    alert.state = State::Acknowledged;
                }
                self.turn(&key, happened(What::Acknowledged, None), steps);
            }
            Deed::Assign(to) => {
                alert.assignee.clone_from(to);
                self.turn(&key, happened(What::Assigned, to.clone()), steps);
            }
            Deed::SnoozeUntil(until) => {
                // Staff thinks of the clock on the wall. All else runs on event time, and so does this, from now on for as
                // long as they said: then a replay wakes it where it woke.
                let due = event_us.saturating_add(until.saturating_sub(action.at_us));
                let until = time_to_text(*until);
                alert.snoozed = true;
                alert.snoozed_until = Some(until.clone());
                self.set_clock(&key, Bell::Snooze, Some(due));
                self.turn(&key, happened(What::Snoozed, Some(until)), steps);
            }
            Deed::Unsnooze if alert.snoozed => {
                alert.snoozed = false;
                alert.snoozed_until = None;
                self.set_clock(&key, Bell::Snooze, None);
                self.turn(&key, happened(What::Unsnoozed, None), steps);
            }
            Deed::Unsnooze => self.remeasured(&key, steps),
            Deed::Comment(text) => {
                if alert.comments.len() >= COMMENTS_MAX {
                    alert.comments.remove(1);
                }
                alert.comments.push(Comment {
                    at: time_to_text(action.at_us),
                    by: action.by.clone(),
                    text: text.clone(),
                });
                self.turn(&key, happened(What::Commented, Some(text.clone())), steps);
            }
            Deed::Clear => {
                alert.acknowledged_by.get_or_insert_with(|| action.by.clone());
                let rule = self.watches.get(&key).map(|watch| Arc::clone(&watch.rule))?;
                let rule = self.rules.get(&rule).map(Arc::clone)?;
                self.end(&key, event_us, happened(What::Cleared, None), moment, steps);
                let cleared = steps.iter().rev().find(|step| step.alert.id == action.alert);
                let cleared = cleared.map(|step| Arc::clone(&step.alert));
                match rule.options.silent_us {
                    Some(silent_us) => {
                        if let Some(watch) = self.watches.get_mut(&key) {
                            watch.phase = Phase::Listening;
                            watch.heard_us = event_us;
                        }
                        self.listen(&key, silent_us, Place::of(&key).site, moment);
                    }
                    None => self.cool(&key, event_us.saturating_add(rule.options.cooldown_us), event_us),
                }
                return cleared;
            }
        }
        let done = steps.iter().rev().find(|step| step.alert.id == action.alert);
        done.map(|step| Arc::clone(&step.alert))
    }
}
