//! Whose rows reach which query: those of persons who refuse what it is for do not.

use std::sync::Arc;

use super::QuerySet;
use crate::purpose::{Consent, Purpose, allowed};
use crate::row::Rows;

impl QuerySet {
    /// Says who agrees to what queries are for, from now on; `None` is everybody. What queries hold by then stays.
    pub fn set_consent(&mut self, consent: Option<Arc<dyn Consent>>) {
        self.consent = consent;
    }

    /// Of rows on their way to `readers` those that may reach them, by what these are for; nothing of purposes for which all may.
    pub(super) fn allowed(&self, readers: &[usize], rows: &Rows) -> Vec<(Purpose, Rows)> {
        let Some(consent) = &self.consent else {
            return Vec::new();
        };
        let mut of_purpose: Vec<(Purpose, Rows)> = Vec::new();
        for purpose in Purpose::ALL {
            let is_asked = || readers.iter().any(|index| self.queries[*index].purpose() == purpose);
            if consent.holds_for_all(purpose) || !is_asked() {
                continue;
            }
            if let Some(left) = allowed(rows, purpose, consent.as_ref()) {
                let left = Rows::of(&rows.schema(), left).expect("rows keep the types of their columns");
                of_purpose.push((purpose, left));
            }
        }
        of_purpose
    }
}
