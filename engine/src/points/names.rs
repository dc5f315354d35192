//! Points of several names: whose lots are whose when names turn out to be one person's, or not.

use std::sync::Arc;

use super::rows::Grant;
use super::{Account, Ledger};
use crate::capture::{Capture, Parts};
use crate::derived_id::derived_id;
use crate::identity::{Aliases, Regrouping};

/// The part of the names under which lots came.
const OWNERS: &str = "points_owners";

impl Ledger {
    /// Names are other persons' from now on, as the record `key` of the log says: each takes along the lots that came under it,
    /// with what is left of them and what was spent of them. `now_us` is the event time it is.
    pub fn regroup(&mut self, regrouping: &Regrouping, key: u128, now_us: i64) {
        self.aliases.apply(regrouping);
        for (name, from, to) in regrouping.moves().filter(|(_, from, to)| from != to) {
            let (Some(account), owners) = (self.accounts.get_mut(from), &self.owners) else {
                continue;
            };
            let id = derived_id('q', [format!("{key:x}").as_str(), &**name, &**from, &**to]);
            let parted = account.part(|lot| owners.name(from, lot) == name, &id, now_us);
            if parted.is_empty() {
                continue;
            }
            for lot in parted.lots() {
                self.owners.drop_of(from, lot);
                self.owners.note(to, lot, name);
            }
            let account: &mut Account = self.accounts.entry(Arc::clone(to)).or_default();
            account.join(parted, &id, now_us);
            let due = account.expiries().map(|expires_us| (expires_us, Arc::clone(to)));
            self.due.extend(due);
            self.owners.keep(to, |lot| account.has_lot(lot));
            self.changes.note(from);
            self.changes.note(to);
        }
    }

    /// The ids that a grant's lot has or would have, had the act been seen under another of the person's names: it gives its
    /// points once all the same.
    pub(super) fn ids_of(&self, grant: &Grant, person: &Arc<str>) -> Vec<String> {
        match self.aliases.names(person) {
            [_] => vec![grant.id()],
            names => names.iter().map(|name| grant.id_under(name)).collect(),
        }
    }

    /// For a checkpoint: under which names lots came, as far as that has changed since the last one.
    pub(crate) fn capture_owners(&mut self, capture: &mut Capture) {
        self.owners.capture(OWNERS, capture);
    }

    /// Takes back who is whose, and what [`Ledger::capture_owners`] gave.
    ///
    /// # Errors
    /// In words, when the bytes are something else.
    pub(crate) fn restore_owners(&mut self, aliases: Aliases, parts: &Parts) -> Result<(), String> {
        self.aliases = aliases;
        self.owners.restore(OWNERS, parts)
    }
}
