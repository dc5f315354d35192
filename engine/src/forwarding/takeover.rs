//! Taking over is reading what other workers have put into our partitions into our own log, before anything new is taken.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use usher_connectors::log::{Log, LogError, Offset};

use super::envelope::{Envelope, LogId};
use super::progress::Progress;
use crate::record::Record;

/// Records read from a partition at once.
const READ_RECORDS: usize = 4_096;
const READ_BYTES: usize = 8 << 20;
/// Records appended to our log at once.
const APPEND_RECORDS: usize = 1_024;

/// A partition that all workers can read, and its number.
pub(super) type Partition = (u32, Arc<dyn Log>);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TakenOver {
    /// Records of others that are in our log now.
    pub(super) records: u64,
    /// The first record in our log of which it is not known that every receiver has what it told.
    pub(super) unsettled: Offset,
}

/// One partition, read up to where it ended when we became its owner.
struct Stream {
    log: Arc<dyn Log>,
    at: Offset,
    end: Offset,
    read: VecDeque<Bytes>,
    head: Option<Head>,
    /// What was taken over and is not known to be settled: its log, its place there, its place in ours.
    unsettled: VecDeque<(LogId, Offset, Offset)>,
    /// Which log said last up to where it is settled; it may say so before the records come.
    settled: Option<(LogId, Offset)>,
    now_us: i64,
}

struct Head {
    envelope: Envelope,
    /// When it happened, as far as the record says.
    at_us: i64,
}

impl Stream {
    fn open(log: &Arc<dyn Log>, from: u64) -> Self {
        let (oldest, end) = (log.oldest(), log.durable());
        if oldest.0 > from {
            tracing::warn!(
                lost = oldest.0 - from,
                "a partition is no longer whole: Fluvio has let go of its oldest records"
            );
        }
        Self {
            log: Arc::clone(log),
            at: Offset(from).max(oldest),
            end,
            read: VecDeque::new(),
            head: None,
            unsettled: VecDeque::new(),
            settled: None,
            now_us: i64::MIN,
        }
    }

    /// Makes the next envelope the head, if there is one.
    fn advance(&mut self) -> Result<(), LogError> {
        while self.head.is_none() {
            let Some(bytes) = self.read.pop_front() else {
                if self.at >= self.end {
                    return Ok(());
                }
                let wanted = usize::try_from(self.end.0 - self.at.0).unwrap_or(usize::MAX);
                match self.log.read(self.at, wanted.min(READ_RECORDS), READ_BYTES) {
                    Ok(records) => {
                        let Some((last, _)) = records.last() else { return Ok(()) };
                        self.at = Offset(last.0 + 1);
                        self.read.extend(records.into_iter().map(|(_, record)| record));
                    }
                    Err(LogError::Expired(oldest)) if oldest > self.at => self.at = oldest,
                    Err(error) => return Err(error),
                }
                continue;
            };
            let Some(mut envelope) = Envelope::from_bytes(&bytes) else {
                tracing::error!("a record in a partition is none of this Usher's; it is left out");
                continue;
            };
            if let Envelope::Record { record, .. } = &mut envelope {
                if matches!(Record::from_bytes(record), Ok(Record::ErasureDone(_))) {
                    // The partition still has what was erased elsewhere, and so does our log now: it is to be erased from it.
                    *record = Record::Removed.to_bytes().into();
                }
                self.now_us = self.now_us.max(time_of(record).unwrap_or(self.now_us));
            }
            self.head = Some(Head {
                envelope,
                at_us: self.now_us,
            });
        }
        Ok(())
    }

    fn settle(&mut self, log: LogId, until: Offset) {
        self.settled = Some((log, until));
        // What lies before the first of another log was taken over by it, and is settled with what it has.
        while let Some((of, offset, _)) = self.unsettled.front()
            && (*of != log || *offset < until)
        {
            self.unsettled.pop_front();
        }
    }
}

fn time_of(record: &[u8]) -> Option<i64> {
    match Record::from_bytes(record).ok()? {
        Record::Event(event) => Some(event.received_us),
        Record::Refused(refusal) => Some(refusal.received_us),
        Record::Acted(action) | Record::ActedOnPerson { action, .. } => Some(action.at_us),
        Record::Started { at_us }
        | Record::Ticked { at_us }
        | Record::Shed { at_us, .. }
        | Record::Identities { at_us, .. }
        | Record::Repaired { at_us, .. } => Some(at_us),
        Record::Points(deed) => Some(deed.at_us),
        Record::Looked(look) => Some(look.at_us),
        Record::Erased(erasure) => Some(erasure.at_us),
        Record::ErasureDone(done) => Some(done.at_us),
        Record::QueryRestarted { .. } | Record::Removed | Record::Expired { .. } => None,
    }
}

/// Whether `a` comes before `b`: of one log by their places there, which is how its worker saw them; otherwise by time.
fn is_before(a: &Head, b: &Head) -> bool {
    match (&a.envelope, &b.envelope) {
        (
            Envelope::Record { log, offset, .. },
            Envelope::Record {
                log: other,
                offset: behind,
                ..
            },
        ) if log == other => offset < behind,
        _ => a.at_us < b.at_us,
    }
}

/// Reads what the partitions have behind `progress` into our log, but what is our own. Blocks.
///
/// Going on after a crash in the middle, it finds in our log what it had put there: the order is the same each time.
///
/// # Errors
/// When one of the logs can't be read or written.
pub(super) fn take_over(local: &dyn Log, partitions: &[Partition], progress: &Progress) -> Result<TakenOver, LogError> {
    let mut streams: Vec<Stream> = partitions
        .iter()
        .map(|(number, log)| Stream::open(log, progress.unread(*number)))
        .collect();
    let mut there = local.next().0.saturating_sub(progress.taken_over_from);
    let mut at = Offset(progress.taken_over_from);
    let mut taken = TakenOver::default();
    let mut waiting: Vec<Bytes> = Vec::new();
    // What is no site's is in each partition of its worker, and comes once.
    let mut last: Option<(LogId, Offset)> = None;
    loop {
        for stream in &mut streams {
            stream.advance()?;
        }
        let mut first: Option<usize> = None;
        for (index, stream) in streams.iter().enumerate() {
            let Some(head) = &stream.head else { continue };
            let is_first = first
                .and_then(|first| streams[first].head.as_ref())
                .is_none_or(|best| is_before(head, best));
            if is_first {
                first = Some(index);
            }
        }
        let Some(stream) = first.and_then(|first| streams.get_mut(first)) else {
            break;
        };
        let Some(head) = stream.head.take() else { break };
        match head.envelope {
            Envelope::Settled { log, until } => stream.settle(log, until),
            Envelope::Record { log, .. } if log == progress.log => {}
            Envelope::Record { log, offset, record } => {
                if last == Some((log, offset)) {
                    continue;
                }
                last = Some((log, offset));
                if stream.settled.is_none_or(|(of, until)| of != log || offset >= until) {
                    stream.unsettled.push_back((log, offset, at));
                }
                at = Offset(at.0 + 1);
                taken.records += 1;
                if there > 0 {
                    there -= 1;
                    continue;
                }
                waiting.push(record);
                if waiting.len() >= APPEND_RECORDS {
                    append(local, &mut waiting)?;
                }
            }
        }
    }
    append(local, &mut waiting)?;
    let unsettled = streams.iter().filter_map(|stream| stream.unsettled.front());
    taken.unsettled = unsettled.map(|(_, _, at)| *at).min().unwrap_or(at);
    Ok(taken)
}

fn append(local: &dyn Log, records: &mut Vec<Bytes>) -> Result<(), LogError> {
    if records.is_empty() {
        return Ok(());
    }
    // One at a time is under way, so that its queue never is full.
    local.append(std::mem::take(records))?.wait_durable()
}
