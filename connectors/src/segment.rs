//! A segment is a stretch of the log in a keyspace of its own; retention drops whole ones.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use fjall::config::FilterPolicy;
use fjall::{Keyspace, KeyspaceCreateOptions};
use tracing::warn;

use crate::batch_frame;
use crate::embedded_log::LogOptions;

/// Prefix of a segment's name; its first offset follows, padded so that names sort as offsets do.
const SEGMENT_PREFIX: &str = "log-";
/// A memtable is flushed at this size; it bounds what a restart has to read again.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// A segment covers at most this part of the retention age, so that what is kept exceeds it by no more.
const SEGMENTS_IN_AGE: i64 = 8;
/// The same for the retention by size.
const SEGMENTS_IN_BYTES: u64 = 8;
/// Stands for "no append yet".
const NEVER: i64 = i64::MIN;

/// One stretch of the log.
pub(crate) struct Segment {
    pub(crate) keyspace: Keyspace,
    pub(crate) first: u64,
    bytes: AtomicU64,
    first_append_us: AtomicI64,
    last_append_us: AtomicI64,
}

impl Segment {
    pub(crate) fn new(keyspace: Keyspace, first: u64) -> Self {
        Self {
            keyspace,
            first,
            bytes: AtomicU64::new(0),
            first_append_us: AtomicI64::new(NEVER),
            last_append_us: AtomicI64::new(NEVER),
        }
    }

    /// A segment as it lies on disk, and the offset after its last record. Where another follows, that is its first;
    /// what of this one can't be read is then left for whoever reads it to meet.
    pub(crate) fn recover(keyspace: Keyspace, first: u64, following: Option<u64>) -> Result<(Self, u64), fjall::Error> {
        let segment = Self::new(keyspace, first);
        let mut end = first;
        match segment.keyspace.last_key_value().map(fjall::Guard::into_inner) {
            Some(Ok((key, value))) => match batch_frame::decode_header(&value) {
                Ok(header) => {
                    end = offset_of(&key) + u64::from(header.count);
                    segment.last_append_us.store(header.appended_us, Ordering::Relaxed);
                    segment
                        .bytes
                        .store(header.bytes_before + value.len() as u64, Ordering::Relaxed);
                }
                Err(reason) => {
                    // Its length is unknown; the next record goes right behind, and reading reports the damage.
                    end = offset_of(&key) + 1;
                    warn!(offset = offset_of(&key), %reason, "the last batch of a log segment is damaged");
                }
            },
            Some(Err(error)) if following.is_none() || !is_damage(&error) => return Err(error),
            Some(Err(error)) => warn!(first, %error, "the end of a log segment can't be read"),
            None => {}
        }
        match segment.keyspace.first_key_value().map(fjall::Guard::into_inner) {
            Some(Ok((_, value))) => {
                if let Ok(header) = batch_frame::decode_header(&value) {
                    segment.first_append_us.store(header.appended_us, Ordering::Relaxed);
                }
            }
            Some(Err(error)) if !is_damage(&error) => return Err(error),
            Some(Err(error)) => warn!(first, %error, "the beginning of a log segment can't be read"),
            None => {}
        }
        Ok((segment, following.unwrap_or(end)))
    }

    /// The first offset from `from` on where a batch begins that the disk gives back; `end` when there is none before it.
    ///
    /// What is broken is a block of the storage engine with several batches in it; behind the block all is well, as a rule.
    /// So a key behind it is looked for in growing steps, and the first such key then by halving.
    pub(crate) fn first_readable(&self, from: u64, end: u64) -> u64 {
        let batch_behind = |offset: u64| {
            let entry = self.keyspace.range(offset.to_be_bytes()..).next();
            entry.map_or(Some(end), |entry| entry.key().ok().map(|key| offset_of(&key).min(end)))
        };
        let (mut broken, mut step) = (from, 1);
        let mut whole = loop {
            if broken >= end {
                return end;
            }
            match batch_behind(broken) {
                Some(_) => break broken,
                None => {
                    broken = broken.saturating_add(step);
                    step *= 2;
                }
            }
        };
        let mut broken = from.max(whole.saturating_sub(step));
        while broken < whole {
            let middle = broken + (whole - broken) / 2;
            if batch_behind(middle).is_some() {
                whole = middle;
            } else {
                broken = middle + 1;
            }
        }
        batch_behind(whole).unwrap_or(end)
    }

    pub(crate) fn is_full(&self, options: &LogOptions, now_us: i64) -> bool {
        let max = options
            .retention_bytes
            .map_or(u64::MAX, |max| max / SEGMENTS_IN_BYTES)
            .min(options.segment_bytes);
        let first_us = self.first_append_us.load(Ordering::Relaxed);
        let too_long = options
            .retention_age
            .is_some_and(|age| first_us != NEVER && now_us.saturating_sub(first_us) > micros(age) / SEGMENTS_IN_AGE);
        too_long || self.bytes.load(Ordering::Relaxed) >= max.max(1)
    }

    pub(crate) fn is_older_than(&self, oldest_us: i64) -> bool {
        let last_us = self.last_append_us.load(Ordering::Relaxed);
        last_us != NEVER && last_us < oldest_us
    }

    /// Bytes of its frames, before compression.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Notes that a frame of so many bytes was written. Only the log's one writer calls this.
    pub(crate) fn grew(&self, bytes: u64, now_us: i64) {
        if self.first_append_us.load(Ordering::Relaxed) == NEVER {
            self.first_append_us.store(now_us, Ordering::Relaxed);
        }
        self.last_append_us.store(now_us, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Whether an error says that what lies on the disk is not what was written, and not that the disk can't be read now.
pub(crate) fn is_damage(error: &fjall::Error) -> bool {
    use fjall::Error::Storage;
    matches!(error, Storage(cause) if !matches!(cause, fjall::LsmError::Io(_)))
}

/// The first offset of the segment of this name; none for another keyspace.
pub(crate) fn first_of(name: &str) -> Option<u64> {
    name.strip_prefix(SEGMENT_PREFIX)?.parse().ok()
}

/// The name of the segment that begins there.
pub(crate) fn name_of(first: u64) -> String {
    format!("{SEGMENT_PREFIX}{first:020}")
}

/// How a segment's keyspace is made. It is read in its order, so that a filter of the keys that are there would be in memory for
/// nothing, and for each segment that is kept.
pub(crate) fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .filter_policy(FilterPolicy::disabled())
}

/// The offset a key stands for.
pub(crate) fn offset_of(key: &[u8]) -> u64 {
    key.try_into().map_or(u64::MAX, u64::from_be_bytes)
}

/// A duration in microseconds, as times in the log are.
pub(crate) fn micros(age: Duration) -> i64 {
    i64::try_from(age.as_micros()).unwrap_or(i64::MAX)
}
