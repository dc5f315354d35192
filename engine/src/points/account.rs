//! An account is the points of one person: what is left of each lot, what was spent from which, and the entries so far.

mod parted;

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use usher_queries::rows::time_to_text;

use super::{Deed, Grant, PointsDeed};

/// Entries that are shown of a person; the sum of older ones is carried.
const ENTRIES_MAX: usize = 100;
/// Spendings that can be taken back, the newest.
const SPENDINGS_MAX: usize = 100;
/// In a lot's id, behind what no other person's lot has: the id that a grant by hand was asked under. Two persons may have
/// been given something under the same, and be one person later.
const ASKED: char = ':';
/// Lots without points that are remembered, so that the act behind one does not give its points again. An act that comes
/// again comes soon: the log knows events it had, and a query says a row again only within its lateness.
const EMPTY_LOTS_MAX: usize = 200;

/// Why something is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is too little.
    #[error("{wanted} points are wanted and {balance} are there")]
    TooFew {
        /// How many were asked for.
        wanted: u32,
        /// How many there are.
        balance: u64,
    },
    /// Nothing can be given, spent or taken back of nothing.
    #[error("0 points are nothing; 1 or more would be right")]
    Nothing,
    /// What should be taken back is not there.
    #[error("there is no entry '{0}' that could be taken back")]
    NoEntry(String),
    /// It was taken back before.
    #[error("the entry '{0}' was taken back before")]
    Reversed(String),
    /// A grant of which something was spent.
    #[error(
        "{spent} of the {given} points of '{entry}' were spent; what they were spent on has to be taken back first"
    )]
    Spent {
        /// The grant.
        entry: String,
        /// Its points.
        given: u32,
        /// How many of them were spent.
        spent: u32,
    },
    /// Points that can't be spent any more.
    #[error("their time is over already; a later time would be right")]
    Expired,
    /// Who does not want to be known gets nothing.
    #[error("this person has refused service or does not want to be known; there are no points")]
    OptedOut,
    /// The id was used for something else.
    #[error("the id '{0}' was used for something else; another one would be right")]
    OtherDeed(String),
}

impl Refused {
    /// Why it can't be done for somebody who never had points.
    pub(super) fn of(deed: &PointsDeed) -> Self {
        match &deed.deed {
            Deed::Grant { .. } => Self::Nothing,
            Deed::Spend { points, .. } => Self::TooFew {
                wanted: *points,
                balance: 0,
            },
            Deed::Reverse { entry } => Self::NoEntry(entry.clone()),
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// Points were given.
    Granted,
    /// Points were spent.
    Spent,
    /// A grant or a spending was taken back.
    Reversed,
    /// A lot's time was over.
    Expired,
    /// Lots came from or went to another name of the same person, or one that is another's now.
    Moved,
}

impl EntryKind {
    /// As the API and the stream `points` say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Spent => "spent",
            Self::Reversed => "reversed",
            Self::Expired => "expired",
            Self::Moved => "moved",
        }
    }
}

/// One change of a balance. When it was told does not count: windows and patterns are said sooner or later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its id: the one it was asked under; that of a grant which a query says is made of its act.
    pub id: String,
    /// What it is.
    pub kind: EntryKind,
    /// Points that came, or went where it is negative.
    pub points: i64,
    /// For what or on what.
    pub reason: Arc<str>,
    /// Event time, microseconds.
    pub at_us: i64,
}

/// Points given at once, with one time at which they expire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lot {
    /// The id of the grant.
    pub id: String,
    /// For what.
    pub reason: Arc<str>,
    /// How many there were.
    pub given: u32,
    /// How many are left.
    pub left: u32,
    /// When they were earned, event time, microseconds.
    pub at_us: i64,
    /// When they expire, microseconds; `None` for never.
    pub expires_us: Option<i64>,
    /// Whether it was taken back.
    is_reversed: bool,
}

impl Lot {
    /// First those that expire first; those that never do last; among equals those that were earned first.
    fn rank(&self) -> (i64, i64, &str) {
        (self.expires_us.unwrap_or(i64::MAX), self.at_us, &self.id)
    }

    /// The id of the grant, as its entry has it.
    fn asked(&self) -> &str {
        self.id.split_once(ASKED).map_or(&self.id, |(_, asked)| asked)
    }

    /// The entry of the grant.
    fn entry(&self) -> Entry {
        Entry {
            id: self.asked().to_owned(),
            kind: EntryKind::Granted,
            points: i64::from(self.given),
            reason: Arc::clone(&self.reason),
            at_us: self.at_us,
        }
    }

    fn is_over(&self, now_us: i64) -> bool {
        self.expires_us.is_some_and(|expires_us| expires_us <= now_us)
    }
}

/// What was spent, and from which lots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Spending {
    entry: Entry,
    taken: Vec<(String, u32)>,
    is_reversed: bool,
}

/// The points of one person.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// In the order in which they will be spent.
    lots: Vec<Lot>,
    spendings: VecDeque<Spending>,
    /// In the order of event time.
    entries: VecDeque<Entry>,
    /// The sum of the entries that are not kept.
    carried: i64,
}

/// What came of a deed.
pub(super) struct Done {
    /// Its entry.
    pub(super) entry: Entry,
    /// It and what followed of it; nothing where it had been done before.
    pub(super) all: Vec<Entry>,
}

impl Done {
    fn before(entry: &Entry) -> Self {
        Self {
            entry: entry.clone(),
            all: Vec::new(),
        }
    }

    fn now(entry: Entry, behind: Vec<Entry>) -> Self {
        Self {
            all: std::iter::once(entry.clone()).chain(behind).collect(),
            entry,
        }
    }
}

/// A person's points as the API shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct PointsView {
    /// The pseudonym.
    pub person: String,
    /// Points that can be spent.
    pub balance: u64,
    /// What they consist of, in the order in which they will be spent.
    pub lots: Vec<LotView>,
    /// The sum of the entries before those that are listed.
    pub carried: i64,
    /// The last 100 changes, oldest first; `carried` and these make the balance.
    pub entries: Vec<EntryView>,
}

impl PointsView {
    /// Of somebody who was never given any.
    pub(crate) fn nothing(person: &str) -> Self {
        Account::default().view(person)
    }
}

/// A lot as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct LotView {
    /// The id of the grant.
    pub id: String,
    /// For what it was given.
    pub reason: String,
    /// Points that are left of it.
    pub left: u32,
    /// When they expire, RFC 3339; null for never.
    pub expires_at: Option<String>,
}

/// An entry as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct EntryView {
    /// Its id, by which it can be taken back.
    pub id: String,
    /// `granted`, `spent`, `reversed`, `expired` or `moved`.
    pub kind: &'static str,
    /// Points that came, or went where it is negative.
    pub points: i64,
    /// For what or on what.
    pub reason: String,
    /// When, RFC 3339.
    pub at: String,
    /// The balance behind it.
    pub balance: u64,
}

impl EntryView {
    /// An entry, and the balance behind it.
    pub(crate) fn of(entry: &Entry, balance: u64) -> Self {
        Self {
            id: entry.id.clone(),
            kind: entry.kind.as_str(),
            points: entry.points,
            reason: entry.reason.to_string(),
            at: time_to_text(entry.at_us),
            balance,
        }
    }
}

impl Account {
    pub(super) fn balance(&self) -> u64 {
        self.lots.iter().map(|lot| u64::from(lot.left)).sum()
    }

    /// When lots with points expire, microseconds.
    pub(super) fn expiries(&self) -> impl Iterator<Item = i64> {
        let with_points = self.lots.iter().filter(|lot| lot.left > 0);
        with_points.filter_map(|lot| lot.expires_us)
    }

    pub(super) fn view(&self, person: &str) -> PointsView {
        let with_points = self.lots.iter().filter(|lot| lot.left > 0);
        let lots = with_points.map(|lot| LotView {
            id: lot.asked().to_owned(),
            reason: lot.reason.to_string(),
            left: lot.left,
            expires_at: lot.expires_us.map(time_to_text),
        });
        let entries = self.entries.iter().scan(self.carried, |sum, entry| {
            *sum += entry.points;
            Some(EntryView::of(entry, u64::try_from(*sum).unwrap_or(0)))
        });
        PointsView {
            person: person.to_owned(),
            balance: self.balance(),
            lots: lots.collect(),
            carried: self.carried,
            entries: entries.collect(),
        }
    }

    /// The id of the lot of a grant by hand.
    pub(super) fn lot_by_hand(grant: &Grant) -> String {
        format!("{}{ASKED}{}", grant.id(), grant.cause)
    }

    /// `None` where the act has given its points before, or has none to give.
    pub(super) fn grant(&mut self, id: String, grant: &Grant, now_us: i64) -> Option<Entry> {
        let is_over = grant.expires_us.is_some_and(|expires_us| expires_us <= now_us);
        if grant.points == 0 || is_over || self.lots.iter().any(|lot| lot.id == id) {
            return None;
        }
        let lot = Lot {
            id,
            reason: Arc::clone(&grant.reason),
            given: grant.points,
            left: grant.points,
            at_us: grant.at_us,
            expires_us: grant.expires_us,
            is_reversed: false,
        };
        let entry = lot.entry();
        let at = self.lots.partition_point(|other| other.rank() < lot.rank());
        self.lots.insert(at, lot);
        self.forget_empty_lots();
        Some(self.enter(entry.id, entry.kind, entry.points, entry.reason, entry.at_us))
    }

    /// Whether there is or was a lot of that id.
    pub(super) fn has_lot(&self, id: &str) -> bool {
        self.lots.iter().any(|lot| lot.id == id)
    }

    /// What was done before under the id of a grant by hand, whose entry may have one of the ids `before` where an earlier
    /// version gave it: the same grant, or something else. `None` where nothing was.
    pub(super) fn granted(&self, before: &[String], grant: &Grant) -> Option<Result<Entry, Refused>> {
        let is_it = |id: &str| id == grant.cause || before.iter().any(|before| before == id);
        let entries = self.entries.iter().find(|entry| is_it(&entry.id)).cloned();
        let spent = || self.spendings.iter().map(|spending| &spending.entry);
        let done = entries
            .or_else(|| spent().find(|entry| is_it(&entry.id)).cloned())
            .or_else(|| self.lots.iter().find(|lot| is_it(lot.asked())).map(Lot::entry))?;
        let is_same = done.kind == EntryKind::Granted && done.points == i64::from(grant.points);
        Some(
            is_same
                .then_some(done)
                .ok_or_else(|| Refused::OtherDeed(grant.cause.clone())),
        )
    }

    pub(super) fn spend(&mut self, points: u32, reason: &str, id: &str, at_us: i64) -> Result<Done, Refused> {
        if points == 0 {
            return Err(Refused::Nothing);
        }
        if let Some(before) = self.spendings.iter().find(|spending| spending.entry.id == id) {
            return match before.entry.points == -i64::from(points) {
                true => Ok(Done::before(&before.entry)),
                false => Err(Refused::OtherDeed(id.to_owned())),
            };
        }
        if let Some(before) = self.entries.iter().find(|entry| entry.id == id) {
            // Of a spending that went to another name with the lots that it took from, the entry stays.
            let is_same = before.kind == EntryKind::Spent && before.points == -i64::from(points);
            let other = || Refused::OtherDeed(id.to_owned());
            return is_same.then(|| Done::before(before)).ok_or_else(other);
        }
        let balance = self.balance();
        if u64::from(points) > balance {
            return Err(Refused::TooFew {
                wanted: points,
                balance,
            });
        }
        let (mut wanted, mut taken) = (points, Vec::new());
        for lot in &mut self.lots {
            let part = wanted.min(lot.left);
            if part > 0 {
                lot.left -= part;
                taken.push((lot.id.clone(), part));
                wanted -= part;
            }
        }
        let entry = self.enter(
            id.to_owned(),
            EntryKind::Spent,
            -i64::from(points),
            Arc::from(reason),
            at_us,
        );
        self.spendings.push_back(Spending {
            entry: entry.clone(),
            taken,
            is_reversed: false,
        });
        if self.spendings.len() > SPENDINGS_MAX {
            self.spendings.pop_front();
        }
        Ok(Done::now(entry, Vec::new()))
    }

    /// Takes back a spending or a grant, exactly: each lot is as if it had not been. What a lot gets back whose time is
    /// over expires at once.
    pub(super) fn reverse(&mut self, of: &str, id: &str, at_us: i64) -> Result<Done, Refused> {
        if let Some(before) = self.entries.iter().find(|entry| entry.id == id) {
            return match before.kind {
                EntryKind::Reversed => Ok(Done::before(before)),
                _ => Err(Refused::OtherDeed(id.to_owned())),
            };
        }
        if let Some(spending) = self.spendings.iter_mut().find(|spending| spending.entry.id == of) {
            if std::mem::replace(&mut spending.is_reversed, true) {
                return Err(Refused::Reversed(of.to_owned()));
            }
            let (taken, reason) = (spending.taken.clone(), Arc::clone(&spending.entry.reason));
            // A part may have gone to another name, with the lots that it took from.
            let points = taken.iter().map(|(_, points)| i64::from(*points)).sum();
            for (of, points) in taken {
                if let Some(lot) = self.lots.iter_mut().find(|lot| lot.id == of) {
                    lot.left += points;
                }
            }
            let entry = self.enter(id.to_owned(), EntryKind::Reversed, points, reason, at_us);
            return Ok(Done::now(entry, self.expire(at_us)));
        }
        let no_entry = || Refused::NoEntry(of.to_owned());
        // Of two that were given under the same id, the one that can still be taken back.
        let at = self.lots.iter().position(|lot| lot.asked() == of && !lot.is_reversed);
        let lot = match at {
            Some(at) => &mut self.lots[at],
            None => {
                let mut lots = self.lots.iter_mut();
                lots.find(|lot| lot.asked() == of).ok_or_else(no_entry)?
            }
        };
        if lot.is_reversed {
            return Err(Refused::Reversed(of.to_owned()));
        }
        if lot.is_over(at_us) {
            return Err(Refused::Expired);
        }
        if lot.left < lot.given {
            return Err(Refused::Spent {
                entry: of.to_owned(),
                given: lot.given,
                spent: lot.given - lot.left,
            });
        }
        let (points, reason) = (i64::from(lot.left), Arc::clone(&lot.reason));
        (lot.left, lot.is_reversed) = (0, true);
        let entry = self.enter(id.to_owned(), EntryKind::Reversed, -points, reason, at_us);
        Ok(Done::now(entry, Vec::new()))
    }

    /// Takes away what is over by `now_us`.
    pub(super) fn expire(&mut self, now_us: i64) -> Vec<Entry> {
        let over: Vec<usize> = (0..self.lots.len())
            .filter(|at| self.lots[*at].left > 0 && self.lots[*at].is_over(now_us))
            .collect();
        let mut entries = Vec::with_capacity(over.len());
        for at in over {
            let lot = &mut self.lots[at];
            let points = i64::from(std::mem::take(&mut lot.left));
            let (id, reason) = (format!("{}.expired", lot.asked()), Arc::clone(&lot.reason));
            let at_us = lot.expires_us.unwrap_or(now_us);
            entries.push(self.enter(id, EntryKind::Expired, -points, reason, at_us));
        }
        entries
    }

    fn enter(&mut self, id: String, kind: EntryKind, points: i64, reason: Arc<str>, at_us: i64) -> Entry {
        let entry = Entry {
            id,
            kind,
            points,
            reason,
            at_us,
        };
        let at = self
            .entries
            .partition_point(|other| (other.at_us, &other.id) <= (entry.at_us, &entry.id));
        self.entries.insert(at, entry.clone());
        if self.entries.len() > ENTRIES_MAX
            && let Some(oldest) = self.entries.pop_front()
        {
            self.carried += oldest.points;
        }
        entry
    }

    fn forget_empty_lots(&mut self) {
        let held: Vec<&str> = self
            .spendings
            .iter()
            .filter(|spending| !spending.is_reversed)
            .flat_map(|spending| &spending.taken)
            .map(|(lot, _)| lot.as_str())
            .collect();
        let is_needed = |lot: &Lot| lot.left > 0 || held.contains(&lot.id.as_str());
        let empty = self.lots.iter().filter(|lot| !is_needed(lot)).count();
        if empty <= EMPTY_LOTS_MAX {
            return;
        }
        let mut surplus = empty - EMPTY_LOTS_MAX / 2;
        let needed: Vec<bool> = self.lots.iter().map(is_needed).collect();
        let mut needed = needed.into_iter();
        self.lots.retain(|_| {
            let is_kept = needed.next().unwrap_or(true) || surplus == 0;
            surplus -= usize::from(!is_kept);
            is_kept
        });
    }
}
