//! Receipts say of each erasure what it has reached so far: part of what is known, and so a function of the log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::who::{Mark, Salt, Who, hex};
use crate::capture::{Entries, Since};
use crate::changes::Changes;
use usher_queries::rows::time_to_text;

/// Receipts kept; beyond it the oldest of those that are complete go.
const RECEIPTS_MAX: usize = 10_000;

/// What the log keeps of an erasure: nothing by which the person could be found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// The receipt's id.
    pub id: String,
    /// By our clock, microseconds since 1970.
    pub at_us: i64,
    /// Who asked for it.
    pub by: String,
    /// What the marks are made with.
    pub salt: Salt,
    /// The person, by all names, that asked for first; in a second record of the same id the sessions that turned out to be theirs.
    pub marks: Vec<Mark>,
}

impl Erasure {
    /// Whom it is about, where nobody knows the name any more.
    pub fn who(&self) -> Who {
        Who::marked(self.salt, self.marks.iter().copied())
    }
}

/// What was found and forgotten in what the engine knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InState {
    /// Persons with figures, a visit, acts that waited, or an opt-out: one, or none.
    pub people: u64,
    /// Links of the person's names.
    pub links: u64,
    /// Ledgers of points.
    pub ledgers: u64,
    /// Messages that were sent, withheld or not decided.
    pub messages: u64,
    /// Alerts about the person that stood, were pending or are over, and those that mentioned the person.
    pub alerts: u64,
    /// Rows of measures.
    pub measures: u64,
    /// Lookups of which it is not kept any more that they were of the person.
    pub lookups: u64,
    /// Queries that kept something of the person, and go on without it.
    pub queries: Vec<String>,
    /// Queries that could not be taken apart, and began anew.
    pub queries_begun_anew: Vec<String>,
}

impl InState {
    fn add(&mut self, more: Self) {
        self.people += more.people;
        self.links += more.links;
        self.ledgers += more.ledgers;
        self.messages += more.messages;
        self.alerts += more.alerts;
        self.measures += more.measures;
        self.lookups += more.lookups;
        for (into, from) in [
            (&mut self.queries, more.queries),
            (&mut self.queries_begun_anew, more.queries_begun_anew),
        ] {
            into.extend(from);
            into.sort();
            into.dedup();
        }
    }
}

/// What was found on the disk and is there no more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OnDisk {
    /// Records of the log that were looked at.
    pub log_records: u64,
    /// Events that are anonymous now.
    pub events: u64,
    /// Other records that say nothing of the person any more: what staff did, refused payloads, links, lookups.
    pub records: u64,
    /// Records that can't be read, and so were not looked at.
    pub unreadable: u64,
    /// Steps of the outbox that are empty now, dead letters among them.
    pub outbox: u64,
    /// Files of earlier checkpoints that were removed.
    pub checkpoint_files: u64,
    /// Where it stays, and until when at most.
    pub stays: Vec<Stays>,
}

/// A place out of which nothing can be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Stays {
    /// The place, in words.
    pub place: String,
    /// When it is gone at the latest, RFC 3339; null where whoever keeps it decides.
    pub until: Option<String>,
}

/// That an erasure is through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Which.
    pub id: String,
    /// By our clock, microseconds since 1970.
    pub at_us: i64,
    /// What it came to.
    pub on_disk: OnDisk,
}

/// What is kept of an erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    erasure: Erasure,
    in_state: InState,
    done: Option<(i64, OnDisk)>,
}

/// A receipt as it is shown. It names nobody.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct ReceiptView {
    /// The receipt's id.
    pub id: String,
    /// `under_way` or `complete`.
    pub state: &'static str,
    /// When it was asked for, RFC 3339.
    pub asked_at: String,
    /// Who asked for it.
    pub by: String,
    /// A keyed BLAKE3 hash of the pseudonym that was asked for, in lower case, hexadecimal.
    pub person_hash: String,
    /// Its key, hexadecimal: whoever has the pseudonym can work out the hash.
    pub salt: String,
    /// What was forgotten at once.
    pub forgotten: InState,
    /// What was taken off the disk, once it is complete.
    pub erased: Option<OnDisk>,
    /// When it was complete, RFC 3339.
    pub completed_at: Option<String>,
    /// How far the log was gone through, while it is; filled in by whoever does it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// How far an erasure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, utoipa::ToSchema)]
pub struct Progress {
    /// Records gone through.
    pub records: u64,
    /// Of so many.
    pub of: u64,
}

/// All receipts, by id.
#[derive(Debug, Default)]
pub struct Erasures {
    receipts: BTreeMap<String, Receipt>,
    changes: Changes<String, Receipt>,
}

impl Erasures {
    /// Nobody was erased.
    pub fn new() -> Self {
        Self::default()
    }

    /// Something was forgotten for an erasure, which is under way again.
    pub fn note(&mut self, erasure: &Erasure, in_state: InState) {
        self.changes.note(&erasure.id);
        let receipt = self.receipts.entry(erasure.id.clone()).or_insert_with(|| Receipt {
            erasure: Erasure {
                marks: Vec::new(),
                ..erasure.clone()
            },
            in_state: InState::default(),
            done: None,
        });
        receipt.in_state.add(in_state);
        for mark in &erasure.marks {
            if !receipt.erasure.marks.contains(mark) {
                receipt.erasure.marks.push(*mark);
            }
        }
        self.make_room();
    }

    fn make_room(&mut self) {
        if self.receipts.len() <= RECEIPTS_MAX {
            return;
        }
        let complete = self.receipts.iter().filter(|(_, receipt)| receipt.done.is_some());
        let oldest = complete.min_by_key(|(id, receipt)| (receipt.erasure.at_us, (*id).clone()));
        if let Some(id) = oldest.map(|(id, _)| id.clone()) {
            self.receipts.remove(&id);
            self.changes.note(&id);
        }
    }

    /// An erasure is through.
    pub fn complete(&mut self, done: &Done) {
        if let Some(receipt) = self.receipts.get_mut(&done.id) {
            receipt.done = Some((done.at_us, done.on_disk.clone()));
            self.changes.note(&done.id);
        }
    }

    /// Those that are not through, with all that is known of them, the oldest first.
    pub fn under_way(&self) -> Vec<Erasure> {
        let open = self.receipts.values().filter(|receipt| receipt.done.is_none());
        let mut open: Vec<Erasure> = open.map(|receipt| receipt.erasure.clone()).collect();
        open.sort_by(|one, other| (one.at_us, &one.id).cmp(&(other.at_us, &other.id)));
        open
    }

    /// A receipt by its id.
    pub fn get(&self, id: &str) -> Option<ReceiptView> {
        let Receipt {
            erasure,
            in_state,
            done,
        } = self.receipts.get(id)?;
        Some(ReceiptView {
            id: erasure.id.clone(),
            state: if done.is_some() { "complete" } else { "under_way" },
            asked_at: time_to_text(erasure.at_us),
            by: erasure.by.clone(),
            person_hash: erasure.marks.first().map(|mark| mark.to_text()).unwrap_or_default(),
            salt: hex(&erasure.salt),
            forgotten: in_state.clone(),
            erased: done.as_ref().map(|(_, on_disk)| on_disk.clone()),
            completed_at: done.as_ref().map(|(at_us, _)| time_to_text(*at_us)),
            progress: None,
        })
    }

    /// Takes receipts that changed since the last checkpoint, about `room` of them, ahead of the next one.
    pub fn gather(&mut self, room: &mut usize) {
        self.changes.gather(room, &self.receipts);
    }

    /// For a checkpoint: the receipts that changed since the last one.
    pub fn capture(&mut self) -> Since<String, Receipt> {
        self.changes.take(&self.receipts)
    }

    /// The next capture is to hold everything.
    pub fn capture_anew(&mut self) {
        self.changes.begin_anew();
    }

    /// Takes back what was captured.
    pub fn restore(&mut self, rows: Entries<String, Receipt>) {
        for (id, receipt) in rows {
            match receipt {
                Some(receipt) => self.receipts.insert(id, receipt),
                None => self.receipts.remove(&id),
            };
        }
    }
}
