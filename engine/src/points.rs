//! Points keep what people were given for helpful acts: lots that expire, spent first-expiring first, never below nothing.
//!
//! Every change is an entry, and the balance is the sum of the entries. An act gives its points once, however often its
//! row is said; a spending and a reversal have ids, so that whoever asks twice gets the same answer. All times are event
//! times in microseconds, so that a replay finds the same ledger.

mod account;
mod names;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

use self::account::{Account, Done};
pub use self::account::{Entry, EntryKind, EntryView, Lot, PointsView, Refused};
pub use self::rows::{Grant, challenges_of, grants_of};
use crate::capture::{Entries, Since};
use crate::changes::Changes;
use crate::erasure::Who;
use crate::identity::{Aliases, Owners, Regrouping};

/// How the names of queries begin whose rows give points, each once.
pub const GRANTS: &str = "grant_";
/// How the names of queries begin whose rows say how far people have come in a challenge.
pub const CHALLENGES: &str = "challenge_";

/// Something staff or another service does to a person's points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointsDeed {
    /// The pseudonym.
    pub person: String,
    /// The id under which it is done once, whoever asks how often.
    pub id: String,
    /// Who does it.
    pub by: String,
    /// By our clock, microseconds since 1970.
    pub at_us: i64,
    /// What.
    pub deed: Deed,
}

/// What can be done to points by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// Points are given for something that no rule saw.
    Grant {
        /// How many.
        points: u32,
        /// For what.
        reason: String,
        /// Until when they can be spent, microseconds since 1970; `None` for ever.
        expires_us: Option<i64>,
    },
    /// Points are spent.
    Spend {
        /// How many.
        points: u32,
        /// On what.
        reason: String,
    },
    /// An entry is taken back, exactly.
    Reverse {
        /// The id of a grant or of a spending.
        entry: String,
    },
}

/// The points of everybody.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: IndexMap<Arc<str>, Account, FxBuildHasher>,
    /// When lots expire, and whose they are; a lot that was spent meanwhile is found to be so then.
    due: BTreeSet<(i64, Arc<str>)>,
    changes: Changes<Arc<str>, Account>,
    /// Which names are whose.
    aliases: Aliases,
    /// Under which name of a person a lot came.
    owners: Owners,
}

impl Ledger {
    /// Nobody has points yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives points for an act, once. `now_us` is the event time it is: points that would have expired by then are not
    /// given. False where nothing was given.
    pub fn grant(&mut self, grant: &Grant, now_us: i64) -> bool {
        let person = Arc::clone(self.aliases.person(&grant.person));
        let ids = self.ids_of(grant, &person);
        let account = self.accounts.entry(Arc::clone(&person)).or_default();
        let expired = account.expire(now_us);
        let is_known = ids.iter().any(|id| account.has_lot(id));
        let granted = if is_known {
            None
        } else {
            account.grant(grant.id(), grant, now_us)
        };
        let is_granted = granted.is_some();
        if let Some(expires_us) = grant.expires_us.filter(|_| is_granted) {
            self.due.insert((expires_us, Arc::clone(&person)));
        }
        if is_granted && person != grant.person {
            self.owners.note(&person, &grant.id(), &grant.person);
        }
        self.note(&person, is_granted || !expired.is_empty());
        is_granted
    }

    /// Does what staff does at the event time `now_us`, once; asked again under the same id it answers the same.
    ///
    /// # Errors
    /// [`Refused`] in words; then nothing has changed.
    pub fn act(&mut self, deed: &PointsDeed, now_us: i64) -> Result<Entry, Refused> {
        let person: Arc<str> = Arc::from(self.aliases.resolve(&deed.person));
        let done = match &deed.deed {
            Deed::Grant {
                points,
                reason,
                expires_us,
            } => {
                let grant = Grant {
                    person: Arc::clone(&person),
                    points: *points,
                    reason: Arc::from(reason.as_str()),
                    cause: deed.id.clone(),
                    at_us: now_us,
                    expires_us: *expires_us,
                };
                return self.grant_by_hand(&grant, now_us);
            }
            deed_of_account => {
                let account = self.accounts.get_mut(&person).ok_or_else(|| Refused::of(deed))?;
                let expired = account.expire(now_us);
                let done = match deed_of_account {
                    Deed::Reverse { entry } => account.reverse(entry, &deed.id, now_us),
                    Deed::Spend { points, reason } => account.spend(*points, reason, &deed.id, now_us),
                    Deed::Grant { .. } => unreachable!("it has a branch of its own"),
                };
                // A lot that had been spent may have points again.
                let due = account.expiries().map(|expires_us| (expires_us, Arc::clone(&person)));
                self.due.extend(due);
                self.note(&person, !expired.is_empty());
                done
            }
        };
        let Done { entry, all } = done?;
        self.note(&person, !all.is_empty());
        Ok(entry)
    }

    fn grant_by_hand(&mut self, grant: &Grant, now_us: i64) -> Result<Entry, Refused> {
        if grant.points == 0 {
            return Err(Refused::Nothing);
        }
        if grant.expires_us.is_some_and(|expires_us| expires_us <= now_us) {
            return Err(Refused::Expired);
        }
        let before = self.ids_of(grant, &grant.person);
        let account = self.accounts.entry(Arc::clone(&grant.person)).or_default();
        let expired = account.expire(now_us);
        if let Some(done) = account.granted(&before, grant) {
            self.note(&grant.person, !expired.is_empty());
            return done;
        }
        let given = account.grant(Account::lot_by_hand(grant), grant, now_us);
        if let Some(expires_us) = grant.expires_us {
            self.due.insert((expires_us, Arc::clone(&grant.person)));
        }
        self.note(&grant.person, true);
        given.ok_or_else(|| Refused::OtherDeed(grant.cause.clone()))
    }

    fn note(&mut self, person: &Arc<str>, has_changed: bool) {
        if has_changed {
            self.changes.note(person);
        }
    }

    /// Lets expire what is due by the event time `now_us`.
    pub fn advance(&mut self, now_us: i64) {
        while let Some((due_us, _)) = self.due.first()
            && *due_us <= now_us
        {
            let Some((due_us, person)) = self.due.pop_first() else {
                break;
            };
            if let Some(account) = self.accounts.get_mut(&person) {
                let expired = account.expire(due_us);
                self.note(&person, !expired.is_empty());
            }
        }
    }

    /// When the next lot may expire, microseconds.
    pub fn next_due(&self) -> Option<i64> {
        self.due.first().map(|(due_us, _)| *due_us)
    }

    /// A person's points; `None` for somebody who never had any.
    pub fn get(&self, person: &str) -> Option<PointsView> {
        let person = self.aliases.resolve(person);
        self.accounts.get(person).map(|account| account.view(person))
    }

    /// A person's balance.
    pub fn balance(&self, person: &str) -> u64 {
        self.accounts
            .get(self.aliases.resolve(person))
            .map_or(0, Account::balance)
    }

    /// How many people have or had points.
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether nobody has or had points.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Forgets all about a person, who does not want to be known, under all names.
    pub fn forget(&mut self, person: &str) -> bool {
        let person: Arc<str> = Arc::from(self.aliases.resolve(person));
        let names = self.aliases.names(&person).to_vec();
        let forgotten = names.iter().map(|name| self.forget_account(name));
        forgotten.fold(false, |any, is_forgotten| any | is_forgotten)
    }

    fn forget_account(&mut self, person: &str) -> bool {
        let Some((place, person, _)) = self.accounts.swap_remove_full(person) else {
            return false;
        };
        // Whoever was last has this place now.
        if let Some((moved, _)) = self.accounts.get_index(place) {
            self.changes.note(moved);
        }
        // Also where a lot was spent or forgotten since.
        self.due.retain(|(_, whose)| *whose != person);
        self.owners.keep(&person, |_| false);
        self.changes.note(&person);
        true
    }

    /// Forgets the ledgers of whoever is to be erased; gives how many there were.
    pub fn erase(&mut self, who: &Who) -> u64 {
        let named = match who.names() {
            Some(names) => names.to_vec(),
            None => who.among(self.accounts.keys()),
        };
        let erased = named.iter().filter(|name| self.forget_account(name)).count();
        self.owners.erase(who);
        erased as u64
    }

    /// Names are other persons' now that somebody was erased.
    pub fn rename(&mut self, regrouping: &Regrouping) {
        self.aliases.apply(regrouping);
    }

    /// Takes people whose points changed since the last checkpoint, about `room` of them, ahead of the next one.
    pub fn gather(&mut self, room: &mut usize) {
        self.changes.gather(room, &self.accounts);
        self.owners.gather(room);
    }

    /// For a checkpoint: whose points changed since the last one.
    pub fn capture(&mut self) -> Since<Arc<str>, Account> {
        self.changes.take(&self.accounts)
    }

    /// The next capture is to hold everybody.
    pub fn capture_anew(&mut self) {
        self.changes.begin_anew();
        self.owners.capture_anew();
    }

    /// Takes back what was captured.
    pub fn restore(&mut self, rows: Entries<Arc<str>, Account>) {
        for (person, account) in rows {
            match account {
                Some(account) => self.accounts.insert(person, account),
                None => self.accounts.swap_remove(&person),
            };
        }
        let accounts = self.accounts.iter();
        self.due = accounts
            .flat_map(|(person, account)| {
                let expiries = account.expiries().collect::<Vec<_>>().into_iter();
                expiries.map(|expires_us| (expires_us, Arc::clone(person)))
            })
            .collect();
    }
}
