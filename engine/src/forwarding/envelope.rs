//! An envelope is a record of a worker's own log in a partition that all workers can read: with which log it is from, and
//! its place there.

use bytes::Bytes;
use usher_connectors::log::Offset;

const VERSION: u8 = 1;
const RECORD: u8 = 0;
const SETTLED: u8 = 1;
const HEAD_BYTES: usize = 18;

/// The identity of a worker's own log, drawn when its folder was made.
pub(super) type LogId = u64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Envelope {
    /// A record.
    Record { log: LogId, offset: Offset, record: Bytes },
    /// Every step that comes of the records of this log before `until` has been told, and its receivers have it.
    Settled { log: LogId, until: Offset },
}

impl Envelope {
    pub(super) fn to_bytes(&self) -> Bytes {
        let (kind, log, number, record) = match self {
            Self::Record { log, offset, record } => (RECORD, log, offset, record.as_ref()),
            Self::Settled { log, until } => (SETTLED, log, until, &[][..]),
        };
        let mut bytes = Vec::with_capacity(HEAD_BYTES + record.len());
        bytes.extend_from_slice(&[VERSION, kind]);
        bytes.extend_from_slice(&log.to_be_bytes());
        bytes.extend_from_slice(&number.0.to_be_bytes());
        bytes.extend_from_slice(record);
        bytes.into()
    }

    /// Reads what was written here; none when it is something else.
    pub(super) fn from_bytes(bytes: &Bytes) -> Option<Self> {
        let number = |at: usize| bytes.get(at..at + 8)?.try_into().map(u64::from_be_bytes).ok();
        let (log, number) = (number(2)?, Offset(number(10)?));
        match (bytes[0], bytes[1]) {
            (VERSION, RECORD) => Some(Self::Record {
                log,
                offset: number,
                record: bytes.slice(HEAD_BYTES..),
            }),
            (VERSION, SETTLED) => Some(Self::Settled { log, until: number }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_read_as_it_was_written() {
        let envelopes = [
            Envelope::Record {
                log: 7,
                offset: Offset(9),
                record: Bytes::from_static(b"something"),
            },
            Envelope::Settled {
                log: 7,
                until: Offset(10),
            },
        ];
        for envelope in envelopes {
            assert_eq!(Envelope::from_bytes(&envelope.to_bytes()), Some(envelope));
        }
        assert_eq!(Envelope::from_bytes(&Bytes::from_static(b"{}")), None);
    }
}
