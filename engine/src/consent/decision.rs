//! A decision is what a person said of a purpose, when, and by which event.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use usher_queries::purpose::Purpose;

use super::Purposes;
use crate::event::{ConsentAction, Event, Reading, Response};

/// What a person said of a purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Yes or no.
    pub holds: bool,
    /// Event time, microseconds.
    pub at_us: i64,
    /// The id of the event; empty where it is known from a checkpoint from before there were purposes.
    pub event: Arc<str>,
}

impl Decision {
    /// Whether it stands where another name of the same person said otherwise, or the same at another time, whichever is asked
    /// first: a refusal before an agreement, the first refusal, the last agreement.
    fn stands_before(&self, other: &Self) -> bool {
        match (self.holds, other.holds) {
            (false, true) => true,
            (true, false) => false,
            (false, false) => (self.at_us, &self.event) <= (other.at_us, &other.event),
            (true, true) => (self.at_us, &self.event) >= (other.at_us, &other.event),
        }
    }
}

/// What a person said of each purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decisions {
    service: Option<Decision>,
    recognition: Option<Decision>,
    research: Option<Decision>,
}

impl Decisions {
    /// Of somebody who does not want to be known, since nobody knows when.
    pub(crate) fn opted_out() -> Self {
        let mut decisions = Self::default();
        let decision = Decision {
            holds: false,
            at_us: i64::MIN,
            event: "".into(),
        };
        decisions.decide(OPTING, &decision);
        decisions
    }

    /// What was said of one.
    pub fn of(&self, purpose: Purpose) -> Option<&Decision> {
        match purpose {
            Purpose::Service => self.service.as_ref(),
            Purpose::Recognition => self.recognition.as_ref(),
            Purpose::Research => self.research.as_ref(),
        }
    }

    fn slot(&mut self, purpose: Purpose) -> &mut Option<Decision> {
        match purpose {
            Purpose::Service => &mut self.service,
            Purpose::Recognition => &mut self.recognition,
            Purpose::Research => &mut self.research,
        }
    }

    /// Takes what is said of these. Who says once more what was said has said it since then.
    pub(super) fn decide(&mut self, purposes: Purposes, decision: &Decision) {
        for purpose in purposes.iter() {
            let slot = self.slot(purpose);
            if slot.as_ref().is_none_or(|said| said.holds != decision.holds) {
                *slot = Some(decision.clone());
            }
        }
    }

    /// Takes in what another name of the same person said.
    pub(super) fn join(&mut self, other: &Self) {
        for purpose in Purpose::ALL {
            let (slot, said) = (self.slot(purpose), other.of(purpose));
            if let Some(said) = said
                && slot.as_ref().is_none_or(|own| said.stands_before(own))
            {
                *slot = Some(said.clone());
            }
        }
    }

    /// What is said to hold, where `without` does of what nothing was said of.
    pub(super) fn over(&self, without: Purposes) -> Purposes {
        Purpose::ALL
            .into_iter()
            .fold(without, |all, purpose| match self.of(purpose) {
                Some(Decision { holds: true, .. }) => all.with(purpose),
                Some(Decision { holds: false, .. }) => all.without(purpose),
                None => all,
            })
    }
}

/// What an answer that opts out refuses, and one that opts in allows: to be told apart and to be written to. Whoever is not told
/// apart is in no measure either; what was counted by then stays, and nothing was said against it.
const OPTING: Purposes = Purposes::NONE.with(Purpose::Service).with(Purpose::Recognition);

/// What an event decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deciding<'e> {
    /// The name under which it is said.
    pub person: &'e Arc<str>,
    /// Of what.
    pub purposes: Purposes,
    /// Yes or no.
    pub holds: bool,
}

impl<'e> Deciding<'e> {
    /// What an event decides; `None` where nothing, or where its person was erased.
    pub fn of(event: &'e Event) -> Option<Self> {
        let (person, purposes, holds) = match &event.reading {
            Reading::Reply { person, response, .. } => match response {
                Response::OptedOut => (person, OPTING, false),
                Response::OptedIn => (person, OPTING, true),
                Response::Opened | Response::Accepted | Response::Declined => return None,
            },
            Reading::Consent {
                person,
                purposes,
                action,
            } => (person, *purposes, *action == ConsentAction::Allow),
            _ => return None,
        };
        person.is_somebody().then(|| Self {
            person: person.shared(),
            purposes,
            holds,
        })
    }

    /// As it is kept of the event that says it.
    pub(super) fn decision(&self, event: &Event) -> Decision {
        Decision {
            holds: self.holds,
            at_us: event.time_us,
            event: Arc::clone(&event.id),
        }
    }
}
