//! A segment is a stretch of the log in a keyspace of its own; retention drops whole ones.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

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

    /// A segment as it lies on disk, and the offset after its last record.
    pub(crate) fn recover(keyspace: Keyspace, first: u64) -> Result<(Self, u64), fjall::Error> {
        let segment = Self::new(keyspace, first);
        let mut end = first;
        if let Some(entry) = segment.keyspace.last_key_value() {
            let (key, value) = entry.into_inner()?;
            match batch_frame::decode_header(&value) {
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
            }
        }
        if let Some(entry) = segment.keyspace.first_key_value()
            && let Ok(header) = batch_frame::decode_header(&entry.into_inner()?.1)
        {
            segment.first_append_us.store(header.appended_us, Ordering::Relaxed);
        }
        Ok((segment, end))
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

/// The first offset of the segment of this name; none for another keyspace.
pub(crate) fn first_of(name: &str) -> Option<u64> {
    name.strip_prefix(SEGMENT_PREFIX)?.parse().ok()
}

/// The name of the segment that begins there.
pub(crate) fn name_of(first: u64) -> String {
    format!("{SEGMENT_PREFIX}{first:020}")
}

/// How a segment's keyspace is made.
pub(crate) fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
}

/// The offset a key stands for.
pub(crate) fn offset_of(key: &[u8]) -> u64 {
    key.try_into().map_or(u64::MAX, u64::from_be_bytes)
}

/// A duration in microseconds, as times in the log are.
pub(crate) fn micros(age: Duration) -> i64 {
    i64::try_from(age.as_micros()).unwrap_or(i64::MAX)
}
