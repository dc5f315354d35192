//! Places is where reading a partition can begin: marks in memory, and a file by which a start reads only what came since.
//!
//! The file says up to where the partition was read, what had been learnt there, and what the last record read there was.
//! That record tells whether the partition is still the same; where it isn't, or there is no file, all of it is read.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::super::fold::Fold;
use super::super::reader::Physical;
use super::{Mark, Shared, State};

/// Records between two places that are remembered, at first; twice as many each time there are too many places.
pub(super) const STEP: u64 = 512;
/// Places remembered, about a megabyte and a half.
const PLACES_MAX: usize = 32_768;
/// Places that are kept in the file, about 40 KB.
const KEPT_MAX: u64 = 256;
const VERSION: u32 = 1;

/// What is kept of a partition. A form that is not this one counts as none: then all is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Known {
    version: u32,
    /// Of which partition of which topic where.
    log: String,
    place: i64,
    /// The checksum of the record before `place`.
    last: u32,
    fold: Fold,
    told: u64,
    oldest: u64,
    marks: Vec<(u64, Mark)>,
}

impl Known {
    /// Reads the file; none where there is none that can be used.
    pub(in super::super) fn load(path: &Path) -> Option<Self> {
        let read = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            read => read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other)),
        };
        read.inspect_err(|error| {
            warn!(path = %path.display(), %error, "how far a partition was read is not known; it is read whole");
        })
        .ok()
    }

    /// Writes the file: there whole, or as before. Not synced, since an older one or none only means to read more.
    pub(in super::super) fn save(&self, path: &Path) {
        let write = || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let new = path.with_extension("new");
            std::fs::write(&new, serde_json::to_vec(self).map_err(io::Error::other)?)?;
            std::fs::rename(&new, path)
        };
        if let Err(error) = write() {
            warn!(path = %path.display(), %error, "how far a partition was read can't be noted; the next start reads more");
        }
    }
}

/// The checksum of the last of some records.
pub(super) fn last_of(records: &[Physical]) -> Option<u32> {
    records.last().map(checksum)
}

fn checksum((_, value): &Physical) -> u32 {
    crc32fast::hash(value)
}

impl Shared {
    /// Up to where the partition was read.
    pub(in super::super) fn place(&self) -> i64 {
        self.lock().place
    }

    /// What is known, when it is more than was kept last; it counts as kept from here on.
    pub(in super::super) fn to_keep(&self) -> Option<Known> {
        let mut state = self.lock();
        let last = state.last.filter(|_| state.is_proven && state.kept != state.place)?;
        state.kept = state.place;
        Some(Known {
            version: VERSION,
            log: self.name.display().to_string(),
            place: state.place,
            last,
            fold: state.fold,
            told: state.told,
            oldest: state.oldest,
            marks: thinned(&state.marks),
        })
    }

    /// Goes on from what was kept of this partition. It has to be proven that the partition is the same.
    pub(in super::super) fn restore(&self, known: Known) {
        if known.version != VERSION || known.log != self.name.display().to_string() || known.place <= 0 {
            return;
        }
        let mut state = self.lock();
        (state.place, state.kept) = (known.place, known.place);
        (state.last, state.is_proven) = (Some(known.last), false);
        (state.fold, state.told, state.oldest) = (known.fold, known.told, known.oldest);
        state.marks = known.marks;
        let next = state.durable();
        drop(state);
        self.end.send_modify(|end| end.durable = next);
    }

    /// Whether the partition is the one of which something is known.
    pub(in super::super) fn is_proven(&self) -> bool {
        self.lock().is_proven
    }

    /// Looks whether this record is the last one that had been read; then what was kept holds.
    pub(in super::super) fn prove(&self, records: &[Physical]) -> bool {
        let mut state = self.lock();
        let (place, last) = (state.place - 1, state.last);
        state.is_proven = records
            .first()
            .is_some_and(|record| record.0 == place && Some(checksum(record)) == last);
        state.is_proven
    }

    /// The partition is another: it is read from its beginning.
    pub(in super::super) fn forget(&self) {
        let mut state = self.lock();
        (state.place, state.kept, state.last, state.is_proven) = (0, 0, None, true);
        (state.fold, state.told, state.oldest, state.step) = (Fold::whole(), 0, 0, STEP);
        state.marks.clear();
        drop(state);
        self.end.send_modify(|end| end.durable = 0);
    }

    /// The partition begins in the middle: what is read from there on has its offsets of itself.
    pub(in super::super) fn begin_at(&self, place: i64) {
        let mut state = self.lock();
        if state.place < place {
            state.place = place;
            state.fold = Fold::middle();
            state.marks.clear();
        }
    }

    /// What lies before a place of the partition is gone; gives the first offset that is left.
    pub(in super::super) fn expire(&self, begin: i64) -> u64 {
        let mut state = self.lock();
        state.marks.retain(|(_, mark)| mark.place >= begin);
        let first = state
            .marks
            .first()
            .map_or_else(|| state.durable(), |(offset, _)| *offset);
        state.oldest = state.oldest.max(first);
        state.oldest
    }

    /// Where to begin so as to come by an offset.
    pub(in super::super) fn mark_before(&self, offset: u64) -> Mark {
        let state = self.lock();
        let at = state.marks.partition_point(|(first, _)| *first <= offset);
        let found = at.checked_sub(1).and_then(|at| state.marks.get(at));
        found.map_or(
            Mark {
                place: 0,
                fold: Fold::whole(),
            },
            |(_, mark)| *mark,
        )
    }
}

impl State {
    pub(super) fn remember(&mut self, offset: u64, mark: Mark) {
        self.marks.push((offset, mark));
        if self.marks.len() > PLACES_MAX {
            self.step *= 2;
            let step = self.step;
            let mut at = 0;
            self.marks.retain(|(offset, _)| {
                at += 1;
                at == 1 || offset % step == 0
            });
        }
    }
}

/// The first mark of each stretch of offsets, all as long as it takes; so thinning again takes no more away.
fn thinned(marks: &[(u64, Mark)]) -> Vec<(u64, Mark)> {
    let (first, last) = (
        marks.first().map_or(0, |mark| mark.0),
        marks.last().map_or(0, |mark| mark.0),
    );
    let stretch = ((last - first) / (KEPT_MAX - 1) + 1).next_power_of_two();
    let mut kept: Vec<(u64, Mark)> = marks.to_vec();
    kept.dedup_by_key(|(offset, _)| *offset / stretch);
    kept
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bytes::Bytes;

    use super::super::super::frame::{self, Owner};
    use super::*;
    use crate::embedded_log::LogOptions;

    /// A partition with a claim, then records, with a claim every hundred.
    fn partition(owner: Owner, records: u64) -> Vec<Physical> {
        let mut values = Vec::new();
        for n in 0..records {
            if n % 100 == 0 {
                values.push(frame::claim(owner, n));
            }
            values.push(frame::record(owner, n, format!("record {n}").as_bytes()));
        }
        (0..).zip(values.into_iter().map(Bytes::from)).collect()
    }

    fn shared() -> Shared {
        Shared::new(PathBuf::from("fluvio://here/topic/0"), LogOptions::default(), None)
    }

    const OWNER: Owner = Owner { epoch: 2, writer: 77 };

    #[test]
    fn what_was_kept_and_the_rest_are_the_whole() -> Result<(), Box<dyn std::error::Error>> {
        let all = partition(OWNER, 300_000);
        let whole = shared();
        whole.take(all.clone())?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("fluvio").join("known.json");
        let before = shared();
        before.take(all[..200_000].to_vec())?;
        before.to_keep().ok_or("nothing is known")?.save(&path);
        assert_eq!(before.to_keep(), None, "nothing is new");
        assert!(std::fs::metadata(&path)?.len() < 64 << 10);
        let after = shared();
        after.restore(Known::load(&path).ok_or("it can't be read")?);
        assert!(!after.is_proven() && after.to_keep().is_none());
        assert!(after.prove(&all[199_999..200_000]));
        assert_eq!(after.place(), 200_000);
        after.take(all[200_000..].to_vec())?;
        assert_eq!((after.next(), after.place()), (whole.next(), whole.place()));
        assert_eq!(after.lock().fold, whole.lock().fold);
        // Where reading begins is never far before what is asked for, and what is read from there on is that.
        for offset in [0, 1, 5_000, 123_456, 199_000, 250_000, 299_999] {
            let mark = after.mark_before(offset);
            let mut fold = mark.fold;
            let from = usize::try_from(mark.place)?;
            let behind = all[from..].iter().position(|(_, value)| {
                let frame = frame::Frame::decode(value.clone());
                frame.is_some_and(|frame| fold.take(&frame) == super::super::Folded::Accepted(offset))
            });
            assert!(
                behind.is_some_and(|behind| behind < 1_200),
                "{offset}: {behind:?} behind {from}"
            );
        }
        Ok(())
    }

    #[test]
    fn another_partition_and_a_broken_file_are_read_whole() -> Result<(), Box<dyn std::error::Error>> {
        let all = partition(OWNER, 1_000);
        let before = shared();
        before.take(all.clone())?;
        let known = before.to_keep().ok_or("nothing is known")?;
        let others = partition(Owner { epoch: 2, writer: 78 }, 1_000);
        let last = all.len() - 1;
        for (other, is_same) in [
            (&others[last..], false),
            (&all[..1], false),
            (&[], false),
            (&all[last..], true),
        ] {
            let after = shared();
            after.restore(known.clone());
            assert_eq!(after.prove(other), is_same);
        }
        let after = shared();
        after.restore(known.clone());
        assert_eq!(after.next(), 1_000);
        after.forget();
        assert_eq!((after.place(), after.next(), after.is_proven()), (0, 0, true));
        after.take(others)?;
        assert_eq!(after.next(), 1_000);
        let elsewhere = Shared::new(PathBuf::from("fluvio://here/topic/1"), LogOptions::default(), None);
        elsewhere.restore(known.clone());
        assert_eq!(elsewhere.place(), 0);
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("known.json");
        assert_eq!(Known::load(&path), None);
        known.save(&path);
        assert_eq!(Known::load(&path), Some(known));
        let bytes = std::fs::read(&path)?;
        std::fs::write(&path, &bytes[..bytes.len() / 2])?;
        assert_eq!(Known::load(&path), None);
        Ok(())
    }

    #[test]
    fn thinning_again_takes_no_more_away() {
        let mark = Mark {
            place: 0,
            fold: Fold::whole(),
        };
        let marks: Vec<_> = (0..30_000).map(|n| (70 + n * 512, mark)).collect();
        let once = thinned(&marks);
        assert!(once.len() <= 257 && once.len() > 100, "{}", once.len());
        assert_eq!(thinned(&once), once);
        assert_eq!(thinned(&[]), []);
    }
}
