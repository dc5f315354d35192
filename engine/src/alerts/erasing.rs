//! Erasing a person: alerts that are about the person end and leave nothing, others keep no words in which the person is named.

use std::sync::Arc;

use super::life::Happened;
use super::watch::Watch;
use super::{Alerts, Moment, Step};
use crate::alert::{What, Why};
use crate::erasure::Who;

impl Alerts {
    /// Forgets what is about somebody; `at` is the event time that was reached. What stands is over, which is told. Gives how
    /// many alerts there were.
    pub fn erase(&mut self, who: &Who, at: i64, moment: &Moment<'_>, steps: &mut Vec<Step>) -> u64 {
        let mut theirs: Vec<Arc<str>> = self
            .watches
            .iter()
            .map(|(key, _)| key)
            .filter(|key| who.is_in(key))
            .cloned()
            .collect();
        theirs.sort();
        let mut erased = 0;
        for key in theirs {
            if let Some(open) = self.watches.get_mut(&key).and_then(|watch| watch.open.as_mut()) {
                let stands = open.alert.state.is_standing();
                let what = if stands { What::Cleared } else { What::Withdrawn };
                open.alert.forget_measurements();
                open.history.forget_notes();
                erased += u64::from(!stands);
                // Of what stood the count is made where it is taken out of what is over.
                self.end(&key, at, Happened::by_usher(at, what, Why::Erased), moment, steps);
            }
            self.forget(&key);
        }
        let is_named = |text: &str| who.is_in(text);
        erased += self.cleared.erase(&is_named);
        erased + self.forget_names(&is_named, steps)
    }

    /// Takes names out of what stands about others.
    fn forget_names(&mut self, is_named: &dyn Fn(&str) -> bool, steps: &mut Vec<Step>) -> u64 {
        let has_name = |watch: &Watch| {
            let open = watch.open.as_ref();
            open.is_some_and(|open| {
                let mut left = (open.alert.clone(), open.history.clone());
                left.0.forget_names(is_named) | left.1.forget_names(is_named)
            })
        };
        let named = self.watches.iter().filter(|(_, watch)| has_name(watch));
        let mut named: Vec<Arc<str>> = named.map(|(key, _)| Arc::clone(key)).collect();
        named.sort();
        for key in &named {
            let Some(open) = self.watches.get_mut(key).and_then(|watch| watch.open.as_mut()) else {
                continue;
            };
            open.alert.forget_names(is_named);
            open.history.forget_names(is_named);
            steps.push(Step {
                alert: Arc::new(open.alert.clone()),
                is_turn: false,
                waits_for_disk: false,
            });
        }
        named.len() as u64
    }
}
