//! A fold is what a partition says, read in its order: which records count, and who may write.
//!
//! Fluvio keeps whatever reaches it: records sent twice, records of an owner that was cut off, records behind a gap. All
//! readers come to the same by the same rules, so that a repeated send changes nothing and a late owner writes nothing.

use serde::{Deserialize, Serialize};

use super::frame::{Frame, Owner};

/// Where reading a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fold {
    /// The offset of the next record that counts; not known where a partition is read from the middle.
    pub(super) next: Option<u64>,
    /// Who claimed last.
    pub(super) owner: Option<Owner>,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folded {
    /// The owner is this one now.
    Claimed,
    /// A record of the log, at this offset.
    Accepted(u64),
    /// Nothing, for it was there before, or its writer is the owner no longer.
    Dropped,
    /// Nothing, for one before it is missing. Its writer has to send both again.
    Ahead,
}

impl Fold {
    /// Of a partition that is read from its first record on.
    pub(super) fn whole() -> Self {
        Self {
            next: Some(0),
            owner: None,
        }
    }

    /// Of a partition that has lost its beginning.
    pub(super) fn middle() -> Self {
        Self {
            next: None,
            owner: None,
        }
    }

    /// The latest epoch claimed.
    pub(super) fn epoch(&self) -> u64 {
        self.owner.map_or(0, |owner| owner.epoch)
    }

    /// Takes the next frame.
    pub(super) fn take(&mut self, frame: &Frame) -> Folded {
        if frame.record.is_none() {
            // An owner that comes back claims the epoch it had; so does one that should not, and the later one has it.
            if frame.owner.epoch < self.epoch() {
                return Folded::Dropped;
            }
            self.owner = Some(frame.owner);
            return Folded::Claimed;
        }
        if self.owner != Some(frame.owner) {
            return Folded::Dropped;
        }
        let next = self.next.unwrap_or(frame.sequence);
        match frame.sequence.cmp(&next) {
            std::cmp::Ordering::Less => Folded::Dropped,
            std::cmp::Ordering::Greater => Folded::Ahead,
            std::cmp::Ordering::Equal => {
                self.next = Some(next + 1);
                Folded::Accepted(next)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const OLD: Owner = Owner { epoch: 3, writer: 1 };
    const NEW: Owner = Owner { epoch: 4, writer: 2 };

    fn frame(owner: Owner, sequence: u64, record: Option<&'static str>) -> Frame {
        Frame {
            owner,
            sequence,
            record: record.map(|record| Bytes::from_static(record.as_bytes())),
        }
    }

    /// What counts, each with its offset.
    fn accepted(fold: &mut Fold, frames: &[Frame]) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        for frame in frames {
            if let (Folded::Accepted(offset), Some(record)) = (fold.take(frame), &frame.record) {
                found.push((offset, String::from_utf8_lossy(record).into_owned()));
            }
        }
        found
    }

    fn numbered(records: &[(u64, &str)]) -> Vec<(u64, String)> {
        records
            .iter()
            .map(|(offset, record)| (*offset, (*record).to_owned()))
            .collect()
    }

    #[test]
    fn a_record_counts_once_and_only_of_the_owner() {
        let mut fold = Fold::whole();
        let before = [
            frame(OLD, 0, Some("of nobody: no claim yet")),
            frame(OLD, 0, None),
            frame(OLD, 0, Some("a")),
            frame(OLD, 0, Some("a")),
            frame(OLD, 1, Some("b")),
        ];
        assert_eq!(accepted(&mut fold, &before), numbered(&[(0, "a"), (1, "b")]));
        let after = [
            frame(NEW, 2, None),
            frame(OLD, 2, Some("too late")),
            frame(OLD, 2, None),
            frame(OLD, 2, Some("too late")),
            frame(NEW, 2, Some("c")),
            frame(NEW, 1, Some("b")),
        ];
        assert_eq!(accepted(&mut fold, &after), numbered(&[(2, "c")]));
        assert_eq!((fold.next, fold.epoch()), (Some(3), 4));
    }

    #[test]
    fn behind_a_gap_nothing_counts_until_it_is_filled() {
        let mut fold = Fold::whole();
        fold.take(&frame(OLD, 0, None));
        assert_eq!(fold.take(&frame(OLD, 1, Some("b"))), Folded::Ahead);
        let again = [frame(OLD, 0, Some("a")), frame(OLD, 1, Some("b"))];
        assert_eq!(accepted(&mut fold, &again), numbered(&[(0, "a"), (1, "b")]));
    }

    #[test]
    fn two_of_one_epoch_are_told_apart_and_the_later_one_has_it() {
        let twin = Owner { writer: 9, ..OLD };
        let mut fold = Fold::whole();
        let frames = [
            frame(OLD, 0, None),
            frame(OLD, 0, Some("a")),
            frame(twin, 1, None),
            frame(OLD, 1, Some("mine")),
            frame(twin, 1, Some("its")),
        ];
        assert_eq!(accepted(&mut fold, &frames), numbered(&[(0, "a"), (1, "its")]));
        assert_eq!(fold.owner, Some(twin));
    }

    #[test]
    fn a_probe_is_no_record_of_anybody() {
        for mut fold in [
            Fold::whole(),
            Fold::middle(),
            Fold {
                next: Some(u64::MAX),
                owner: Some(Owner { epoch: 0, writer: 0 }),
            },
        ] {
            let before = fold;
            let probe = Frame::decode(crate::fluvio::frame::probe().into());
            assert_eq!(probe.map(|probe| fold.take(&probe)), Some(Folded::Dropped));
            assert_eq!(fold, before);
        }
    }

    #[test]
    fn read_from_the_middle_it_begins_behind_a_claim() {
        let mut fold = Fold::middle();
        let frames = [
            frame(OLD, 70, Some("whose?")),
            frame(NEW, 71, None),
            frame(OLD, 71, Some("too late")),
            frame(NEW, 71, Some("a")),
            frame(NEW, 72, Some("b")),
        ];
        assert_eq!(accepted(&mut fold, &frames), numbered(&[(71, "a"), (72, "b")]));
    }
}
