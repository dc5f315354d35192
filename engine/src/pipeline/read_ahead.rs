//! Reading ahead: the log is read and its records are made out in a thread of their own, while the ones before them are
//! gone through.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use usher_connectors::log::{Log, LogError, Offset};

use crate::event::dedup_key;
use crate::record::Record;

/// Records taken from the log at once.
const RECORDS: usize = 4_096;
/// Bytes taken at once.
const BYTES: usize = 8 << 20;
/// Batches that wait; more would only take memory.
const AHEAD: usize = 2;

/// Records that were read at once.
pub(super) struct Batch {
    /// Where the first of them was looked for.
    pub(super) from: Offset,
    /// The place behind the last of them.
    pub(super) next: Offset,
    /// The records, those of events, also of such that are gone, with the key by which a repetition is known.
    pub(super) records: Vec<(Record, Option<u128>)>,
}

/// Batches of the log, in order. After an error none comes.
pub(super) struct ReadAhead {
    batches: Option<Receiver<Result<Batch, LogError>>>,
    reading: Option<JoinHandle<()>>,
}

impl ReadAhead {
    /// Reads from `from` to the last of `stops`; no batch has records from before and from behind one of them.
    pub(super) fn new(log: &Arc<dyn Log>, from: Offset, stops: Vec<Offset>) -> Self {
        let (sender, batches) = sync_channel(AHEAD);
        let log = Arc::clone(log);
        let reading = std::thread::spawn(move || {
            let mut at = from;
            for stop in stops {
                while at < stop {
                    let batch = read(log.as_ref(), at, stop);
                    let next = batch.as_ref().map(|batch| batch.next).ok();
                    if next == Some(at) {
                        // There is nothing more.
                        return;
                    }
                    at = next.unwrap_or(at);
                    // Whoever no longer takes them has met an error, or enough.
                    if sender.send(batch).is_err() || next.is_none() {
                        return;
                    }
                }
            }
        });
        Self {
            batches: Some(batches),
            reading: Some(reading),
        }
    }
}

impl Iterator for ReadAhead {
    type Item = Result<Batch, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.batches.as_ref().and_then(|batches| batches.recv().ok());
        if next.is_none()
            && let Some(Err(panic)) = self.reading.take().map(JoinHandle::join)
        {
            // What was not read must not count as the end.
            std::panic::resume_unwind(panic);
        }
        next
    }
}

impl Drop for ReadAhead {
    /// Waits until the log is held by nobody here.
    fn drop(&mut self) {
        self.batches = None;
        if let Some(reading) = self.reading.take() {
            // A panic of a thread whose batches nobody wants any more is nobody's.
            let _ = reading.join();
        }
    }
}

/// Reads records from `from` on, none at or behind `until`. What is damaged is said and stepped over, which may lead beyond
/// `until`.
fn read(log: &dyn Log, from: Offset, until: Offset) -> Result<Batch, LogError> {
    let mut at = from;
    let rows = loop {
        if at >= until {
            break Vec::new();
        }
        let wanted = usize::try_from(until.0 - at.0).unwrap_or(usize::MAX);
        match log.read(at, wanted.min(RECORDS), BYTES) {
            Ok(rows) => break rows,
            Err(LogError::Damaged { offset, resume, reason }) => {
                tracing::error!(%offset, %resume, reason, "the log is damaged; what lies there is lost");
                metrics::counter!("usher_log_lost_records_total").increment(resume.0 - offset.0);
                at = resume;
            }
            Err(LogError::Expired(oldest)) => at = oldest,
            Err(error) => return Err(error),
        }
    };
    let next = rows.last().map_or(at, |(last, _)| Offset(last.0 + 1));
    let mut records = Vec::with_capacity(rows.len());
    for (offset, bytes) in rows {
        match Record::from_bytes(&bytes) {
            Ok(record) => {
                let key = match &record {
                    Record::Event(event) => Some(dedup_key(event)),
                    Record::Expired { key } => Some(*key),
                    _ => None,
                };
                records.push((record, key));
            }
            Err(error) => tracing::error!(%offset, %error, "a record of the log is left out"),
        }
    }
    Ok(Batch { from, next, records })
}

#[cfg(test)]
mod tests {
    use usher_connectors::embedded_log::{self, LogOptions};

    use super::*;

    #[test]
    fn batches_are_the_log_and_end_at_each_stop() -> Result<(), Box<dyn std::error::Error>> {
        const COUNT: u64 = 10_000;
        let folder = tempfile::tempdir()?;
        let (log, _) = embedded_log::open(folder.path(), LogOptions::default())?;
        let records = (0..COUNT).map(|at_us| match at_us {
            // Nothing that can be read.
            77 => bytes::Bytes::from_static(b"?"),
            _ => Record::Ticked { at_us: at_us as i64 }.to_bytes().into(),
        });
        log.append(records.collect())?.wait_durable()?;
        let log: Arc<dyn Log> = Arc::new(log);
        for (from, stops) in [
            (0, vec![COUNT]),
            (5, vec![5_000, 9_999]),
            (70, vec![80, 80]),
            (9, vec![3, 9]),
        ] {
            let (mut at, mut found) = (Offset(from), Vec::new());
            for batch in ReadAhead::new(&log, Offset(from), stops.iter().copied().map(Offset).collect()) {
                let batch = batch?;
                assert_eq!(batch.from, at);
                assert!(batch.next > at);
                for stop in &stops {
                    assert!(
                        *stop <= batch.from.0 || *stop >= batch.next.0,
                        "{stop} is within a batch"
                    );
                }
                at = batch.next;
                found.extend(batch.records.into_iter().map(|(record, _)| record));
            }
            let end = stops.iter().copied().max().unwrap_or(0);
            let expected: Vec<Record> = (from..end)
                .filter(|at| *at != 77)
                .map(|at| Record::Ticked { at_us: at as i64 })
                .collect();
            assert!(found == expected, "{} from {from} to {end}", found.len());
        }
        // Left in the middle, it lets go of the log.
        let mut ahead = ReadAhead::new(&log, Offset(0), vec![Offset(COUNT)]);
        assert!(ahead.next().is_some());
        drop(ahead);
        assert_eq!(Arc::strong_count(&log), 1);
        // Behind what is there nothing is waited for.
        assert!(
            ReadAhead::new(&log, Offset(COUNT), vec![Offset(COUNT + 5)])
                .next()
                .is_none()
        );
        Ok(())
    }
}
