//! Erasing a person out of all that is known, at one moment.

use std::sync::Arc;

use usher_queries::query_set::forgetting::ForgottenIn;

use super::{Perception, no_events};
use crate::alerts::Step;
use crate::erasure::{Erasure, InState, Who};

impl Perception {
    /// Forgets whoever is to be erased when all is said that comes of what was before, so that a replay, in which it has been
    /// said too, forgets the same. Gives the steps of alerts that are over by that.
    pub fn erase(&mut self, erasure: &Erasure, who: &Who) -> Vec<Step> {
        let (mut steps, reached) = self.catch_up(erasure.at_us);
        let places = Arc::clone(&self.places);
        let moment = no_events(self.now_us, &places);
        let queries = self.forget_in_queries(who);
        let (people, ledgers, messages) = (self.people.erase(who), self.points.erase(who), self.messages.erase(who));
        let decided = self.change_consents(|consents| consents.erase(who));
        // Behind these, which have to know till then which names are whose.
        let (links, regrouping) = self.identity.erase(who);
        self.groups.erase(who);
        self.tell_groups();
        if let Some(regrouping) = &regrouping {
            self.change_consents(|consents| consents.rename(regrouping));
            self.people.rename(regrouping);
            self.points.rename(regrouping);
            self.messages.rename(regrouping);
        }
        let in_state = InState {
            // Of one person, either or both are kept.
            people: people.max(decided),
            links,
            ledgers,
            messages,
            lookups: self.lookups.erase(who),
            measures: self.measures.erase(who),
            alerts: self.alerts.erase(who, reached, &moment, &mut steps),
            queries: queries.kept,
            queries_begun_anew: queries.begun_anew,
        };
        self.erasures.note(erasure, in_state);
        steps
    }

    /// What names somebody in queries goes. Where that can't be told apart from the rest, those queries begin anew.
    fn forget_in_queries(&mut self, who: &Who) -> ForgottenIn {
        self.queries.forget(&|text| who.is_in(text)).unwrap_or_else(|error| {
            tracing::error!(%error, "what queries keep can't be looked through; all of them begin anew");
            ForgottenIn {
                kept: Vec::new(),
                begun_anew: self.queries.begin_anew(),
            }
        })
    }
}
