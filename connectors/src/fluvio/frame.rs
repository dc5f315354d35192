//! A frame is what one record of a Fluvio partition holds: a record of the log or a claim, with who wrote it and where it
//! belongs.
//!
//! `version, kind, epoch, writer, sequence, payload`: one byte each for the first two, eight, big-endian, for the numbers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;
const CLAIM: u8 = 0;
const RECORD: u8 = 1;
/// Bytes before the payload.
pub(super) const HEAD_BYTES: usize = 26;

/// Who writes: an assignment, and the process that took it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) epoch: u64,
    /// Drawn at random by each process, so that two of one epoch are told apart.
    pub(super) writer: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) owner: Owner,
    /// The offset in the log; of a claim, that of the record behind it.
    pub(super) sequence: u64,
    /// None of a claim.
    pub(super) record: Option<Bytes>,
}

pub(super) fn claim(owner: Owner, sequence: u64) -> Vec<u8> {
    encode(CLAIM, owner, sequence, &[])
}

pub(super) fn record(owner: Owner, sequence: u64, record: &[u8]) -> Vec<u8> {
    encode(RECORD, owner, sequence, record)
}

/// A record that counts for nobody, whoever owns the partition: its writer is drawn for it alone.
pub(super) fn probe() -> Vec<u8> {
    let owner = Owner {
        epoch: 0,
        writer: fastrand::u64(1..),
    };
    encode(RECORD, owner, u64::MAX, &[])
}

fn encode(kind: u8, owner: Owner, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
    bytes.extend_from_slice(&[VERSION, kind]);
    for number in [owner.epoch, owner.writer, sequence] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}

impl Frame {
    /// Reads what was written here; none when it is something else.
    pub(super) fn decode(bytes: Bytes) -> Option<Frame> {
        let head = bytes.get(..HEAD_BYTES)?;
        let number = |at: usize| head.get(at..at + 8)?.try_into().map(u64::from_be_bytes).ok();
        let record = match (head[0], head[1]) {
            (VERSION, CLAIM) => None,
            (VERSION, RECORD) => Some(bytes.slice(HEAD_BYTES..)),
            _ => return None,
        };
        Some(Frame {
            owner: Owner {
                epoch: number(2)?,
                writer: number(10)?,
            },
            sequence: number(18)?,
            record,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_and_nothing_else_is() {
        let owner = Owner { epoch: 3, writer: 77 };
        let written = record(owner, 5, b"hello");
        let read = Frame::decode(written.clone().into());
        let expected = Frame {
            owner,
            sequence: 5,
            record: Some(Bytes::from_static(b"hello")),
        };
        assert_eq!(read, Some(expected.clone()));
        let read = Frame::decode(claim(owner, 5).into());
        assert_eq!(
            read,
            Some(Frame {
                record: None,
                ..expected
            })
        );
        for broken in [&b""[..], b"{\"an\":\"event of somebody else\"}", &written[..20]] {
            assert_eq!(Frame::decode(Bytes::copy_from_slice(broken)), None);
        }
        let mut newer = written;
        newer[0] = 9;
        assert_eq!(Frame::decode(newer.into()), None);
    }
}
