//! Rewriting puts other records in the place of some, at the same offsets, and makes what they were unfindable.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fjall::{Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{LogStore, words};
use crate::batch_frame;
use crate::log::{LogError, Offset, Rewritten};
use crate::purge;
use crate::segment::{self, Segment, offset_of};

/// The keyspace that has the segments in which records were replaced and what was there is still to be found.
const REWRITTEN: &str = "rewritten";

/// What is to stand in a record's place; `None` where it stays.
pub(crate) type Replace<'a> = &'a mut dyn FnMut(Offset, &Bytes) -> Option<Bytes>;

/// A turn of rewriting.
struct Turn<'a> {
    from: u64,
    until: u64,
    room: usize,
    replace: Replace<'a>,
    done: Rewritten,
}

impl LogStore {
    /// Gives records from `from` to `until` to `replace`, about `max_records` of them, and writes what it gives in their place.
    /// What is damaged stays as it is and is counted.
    pub(crate) fn rewrite(
        &self,
        from: Offset,
        until: Offset,
        max_records: usize,
        replace: Replace<'_>,
    ) -> Result<Rewritten, LogError> {
        self.with(|open| {
            let (oldest, committed) = (open.oldest(), open.committed.load(Ordering::Acquire));
            let mut turn = Turn {
                from: from.0.max(oldest),
                until: until.0.min(committed),
                room: max_records.max(1),
                replace,
                done: Rewritten::default(),
            };
            turn.done.next = Offset(turn.from);
            let start = open
                .segments
                .partition_point(|segment| segment.first <= turn.from)
                .saturating_sub(1);
            for (at, segment) in open.segments.iter().enumerate().skip(start) {
                if turn.is_over() {
                    break;
                }
                let end = open.segments.get(at + 1).map_or(committed, |next| next.first);
                self.rewrite_segment(open, segment, end, &mut turn)?;
            }
            if turn.done.replaced > 0 {
                let synced = open.database.persist(PersistMode::SyncData);
                synced.map_err(|error| self.failure(&error))?;
            }
            Ok(turn.done)
        })
    }

    /// Rewrites whole batches of a segment, which is noted beside the first that changes: what was there has to be unfindable,
    /// also when somebody else opens the log by then.
    fn rewrite_segment(
        &self,
        open: &super::OpenStore,
        segment: &Segment,
        end: u64,
        turn: &mut Turn<'_>,
    ) -> Result<(), LogError> {
        // The batch that holds the next record begins at the last key not after it.
        let before = segment.keyspace.range(..=turn.done.next.0.to_be_bytes()).next_back();
        let start = before.and_then(|entry| entry.key().ok()).map(|key| offset_of(&key));
        let mut from = start.unwrap_or(turn.done.next.0);
        'again: loop {
            for entry in segment.keyspace.range(from.to_be_bytes()..) {
                if turn.is_over() {
                    return Ok(());
                }
                let (key, value) = match entry.into_inner() {
                    Ok(entry) => entry,
                    Err(error) if segment::is_damage(&error) => {
                        // A block of the storage engine, behind which all is well as a rule.
                        from = segment.first_readable(turn.done.next.0 + 1, end);
                        turn.skip_damaged(from);
                        continue 'again;
                    }
                    Err(error) => return Err(self.unreadable(&error)),
                };
                let first = offset_of(&key);
                let Ok(frame) = batch_frame::decode(Bytes::copy_from_slice(&value)) else {
                    turn.skip_damaged(first + 1);
                    continue;
                };
                let behind = first + frame.records.len() as u64;
                if behind <= turn.done.next.0 {
                    continue;
                }
                if let Some(records) = turn.replaced(first, &frame.records) {
                    let frame = batch_frame::encode(frame.appended_us, frame.bytes_before, records.iter());
                    let mut batch = open.database.batch().durability(Some(PersistMode::Buffer));
                    batch.insert(&segment.keyspace, first.to_be_bytes(), frame);
                    let noted = open.rewritten().map_err(|error| self.failure(&error))?;
                    batch.insert(&noted, segment.first.to_be_bytes(), []);
                    batch.commit().map_err(|error| self.failure(&error))?;
                }
                turn.done.next = Offset(behind);
            }
            break;
        }
        if !turn.is_over() {
            turn.done.next = turn.done.next.max(Offset(end));
        }
        Ok(())
    }

    /// Makes what was rewritten since the last purge unfindable on the disk.
    pub(crate) fn purge(&self) -> Result<(), LogError> {
        // What lies in tables need not be read out of the journal when the database is opened again.
        let keyspaces = self.keyspaces(|_| true)?;
        purge::flush(&keyspaces).map_err(|error| self.unwritable(&words(&error)))?;
        drop(keyspaces);
        let mut ended: Vec<PathBuf> = Vec::new();
        self.open_anew(|dir| {
            ended = purge::end_journals(dir)?;
            Ok(())
        })?;
        // Held outside of the lock, so that whoever has to have the database for itself need not wait for the merging.
        let noted = self.with(|open| open.rewritten().map_err(|error| self.failure(&error)))?;
        let database = self.with(|open| Ok(open.database.clone()))?;
        let merged_firsts = noted_in(&noted).map_err(|error| self.unreadable(&error))?;
        let mut all = self.keyspaces(|_| true)?;
        let merged = self.keyspaces(|segment| merged_firsts.contains(&segment.first))?;
        all.push(noted.clone());
        purge::merge(&database, &all, &merged, &ended).map_err(|error| self.unwritable(&words(&error)))?;
        let mut batch = database.batch().durability(Some(PersistMode::SyncData));
        for first in merged_firsts {
            batch.remove(&noted, first.to_be_bytes());
        }
        batch.commit().map_err(|error| self.failure(&error))
    }

    fn keyspaces(&self, which: impl Fn(&Segment) -> bool) -> Result<Vec<Keyspace>, LogError> {
        self.with(|open| {
            let wanted = open.segments.iter().filter(|segment| which(segment));
            Ok(wanted.map(|segment| segment.keyspace.clone()).collect())
        })
    }
}

impl super::OpenStore {
    /// The segments in which records were replaced since the last purge.
    fn rewritten(&self) -> Result<Keyspace, fjall::Error> {
        self.database.keyspace(REWRITTEN, KeyspaceCreateOptions::default)
    }
}

fn noted_in(noted: &Keyspace) -> Result<BTreeSet<u64>, fjall::Error> {
    noted
        .iter()
        .map(|entry| entry.key().map(|key| offset_of(&key)))
        .collect()
}

impl Turn<'_> {
    fn is_over(&self) -> bool {
        self.room == 0 || self.done.next.0 >= self.until
    }

    fn skip_damaged(&mut self, to: u64) {
        self.done.damaged += to.saturating_sub(self.done.next.0);
        self.done.next = self.done.next.max(Offset(to));
    }

    /// The records of a batch with others in the place of some; none where all stay.
    fn replaced(&mut self, first: u64, records: &[Bytes]) -> Option<Vec<Bytes>> {
        self.room = self.room.saturating_sub(records.len());
        let mut changed: Option<Vec<Bytes>> = None;
        for (offset, record) in (first..).zip(records) {
            if !(self.from..self.until).contains(&offset) {
                continue;
            }
            if let Some(other) = (self.replace)(Offset(offset), record) {
                let changed = changed.get_or_insert_with(|| records.to_vec());
                changed[usize::try_from(offset - first).expect("a batch's length fits in memory")] = other;
                self.done.replaced += 1;
            }
        }
        changed
    }
}
