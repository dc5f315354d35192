//! A checkpoint is where processing stood: an offset and named parts of state, saved and loaded as one.
//!
//! Each lies in a keyspace of its own: chunks first, then a manifest. Without its manifest it does not exist,
//! so a crash while saving leaves the one before.

use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use fjall::{Keyspace, KeyspaceCreateOptions, PersistMode};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::log::{LogError, Offset};
use crate::log_store::{LogStore, OpenStore, words};

/// Prefix of a checkpoint's keyspace; its sequence number follows.
const PREFIX: &str = "checkpoint-";
/// Key of the manifest. Chunk keys are eight bytes, so they never meet it.
const MANIFEST_KEY: &[u8] = b"manifest";
/// Checkpoints kept: the newest, and one to fall back to.
const KEPT: usize = 2;
/// Parts are cut to this; one value should not fill a memtable.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks written in one go, so that the log's writer gets its turn between.
const CHUNKS_A_BATCH: usize = 8;

/// Where processing stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The first offset not yet in it; processing goes on here.
    pub next_offset: Offset,
    /// Version of what the parts mean, for the engine to judge.
    pub format: u32,
    /// Named state, unread here.
    pub parts: Vec<(String, Bytes)>,
}

/// What was found when loading.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The newest checkpoint that is whole; none on a first start.
    pub checkpoint: Option<Checkpoint>,
    /// Newer ones that could not be read, each with the reason, newest first. Worth a warning.
    pub unreadable: Vec<String>,
}

/// Where checkpoints are kept, in the log's own database.
pub struct CheckpointStore {
    store: Arc<LogStore>,
    /// Saves one at a time; holds the next sequence number.
    next_sequence: Mutex<u64>,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    next_offset: Offset,
    format: u32,
    parts: Vec<PartEntry>,
}

#[derive(Serialize, Deserialize)]
struct PartEntry {
    name: String,
    bytes: u64,
    crc32: u32,
}

impl CheckpointStore {
    pub(crate) fn new(store: Arc<LogStore>) -> Result<Self, LogError> {
        let sequences = store.with(|open| Ok(sequences(open)))?;
        let next_sequence = Mutex::new(sequences.last().map_or(0, |last| last + 1));
        Ok(Self { store, next_sequence })
    }

    /// Saves a checkpoint: durable when this returns, and all of it or nothing. Drops all but the last two.
    /// Blocks on the disk for as long as the parts take to write.
    ///
    /// # Errors
    /// [`LogError::Unwritable`]; the checkpoints before stay as they were.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<(), LogError> {
        let mut next_sequence = self.next_sequence.lock().expect("no holder of this lock panics");
        let sequence = *next_sequence;
        // A failed save leaves a keyspace without a manifest, so its number is not used again.
        *next_sequence += 1;
        let generation = self.store.generation();
        let name = keyspace_name(sequence);
        let mut chunks = Vec::with_capacity(CHUNKS_A_BATCH);
        let mut parts = Vec::with_capacity(checkpoint.parts.len());
        for (part, (part_name, bytes)) in checkpoint.parts.iter().enumerate() {
            parts.push(PartEntry {
                name: part_name.clone(),
                bytes: bytes.len() as u64,
                crc32: crc32fast::hash(bytes),
            });
            for (chunk, start) in (0..bytes.len()).step_by(CHUNK_BYTES).enumerate() {
                let end = bytes.len().min(start + CHUNK_BYTES);
                chunks.push((chunk_key(part, chunk), bytes.slice(start..end)));
                if chunks.len() == CHUNKS_A_BATCH {
                    self.write(&name, chunks.drain(..), None)?;
                }
            }
        }
        self.write(&name, chunks.drain(..), None)?;
        if self.store.generation() != generation {
            return Err(LogError::Unwritable {
                path: self.store.path().to_owned(),
                cause: "the disk failed while a checkpoint was being saved".to_owned(),
            });
        }
        let manifest = Manifest {
            next_offset: checkpoint.next_offset,
            format: checkpoint.format,
            parts,
        };
        let sealed = Bytes::from(seal(&manifest));
        // Everything before it in the journal becomes durable with it.
        self.write(
            &name,
            [(MANIFEST_KEY.to_vec(), sealed)].into_iter(),
            Some(PersistMode::SyncAll),
        )?;
        self.drop_old()
    }

    /// Loads the newest checkpoint that is whole, and says which newer ones are not. Blocks on the disk.
    ///
    /// # Errors
    /// [`LogError::Unreadable`] when the database itself cannot be read.
    pub fn load(&self) -> Result<Loaded, LogError> {
        self.store.with(|open| {
            let mut loaded = Loaded::default();
            for sequence in sequences(open).into_iter().rev() {
                match read(&self.keyspace(open, sequence)?) {
                    Ok(Some(checkpoint)) => {
                        loaded.checkpoint = Some(checkpoint);
                        break;
                    }
                    Ok(None) => {}
                    Err(reason) => {
                        warn!(sequence, %reason, "checkpoint cannot be read; trying the one before");
                        loaded.unreadable.push(format!("checkpoint {sequence}: {reason}"));
                    }
                }
            }
            Ok(loaded)
        })
    }

    /// The first offset that a kept checkpoint continues from: what retention has to keep. None without any.
    ///
    /// # Errors
    /// [`LogError::Unreadable`] when the database cannot be read.
    pub fn keep_from(&self) -> Result<Option<Offset>, LogError> {
        self.store.with(|open| {
            let mut keep_from = None;
            for sequence in sequences(open) {
                let manifest = self
                    .keyspace(open, sequence)?
                    .get(MANIFEST_KEY)
                    .map_err(|error| self.unreadable(&error))?
                    .and_then(|sealed| unseal(&sealed).ok());
                if let Some(manifest) = manifest {
                    keep_from = Some(keep_from.map_or(manifest.next_offset, |kept| manifest.next_offset.min(kept)));
                }
            }
            Ok(keep_from)
        })
    }

    fn write(
        &self,
        name: &str,
        values: impl Iterator<Item = (Vec<u8>, Bytes)>,
        durability: Option<PersistMode>,
    ) -> Result<(), LogError> {
        self.store.with(|open| {
            // Taken by name each time: a handle kept across calls would hold the database open when it must close.
            let keyspace = open
                .database
                .keyspace(name, KeyspaceCreateOptions::default)
                .map_err(|error| self.store.failure(&error))?;
            let mut batch = open.database.batch().durability(durability);
            for (key, value) in values {
                batch.insert(&keyspace, key, value.as_ref());
            }
            batch.commit().map_err(|error| self.store.failure(&error))
        })
    }

    fn drop_old(&self) -> Result<(), LogError> {
        self.store.with(|open| {
            let mut whole = 0;
            for sequence in sequences(open).into_iter().rev() {
                let keyspace = self.keyspace(open, sequence)?;
                let complete = keyspace
                    .contains_key(MANIFEST_KEY)
                    .map_err(|error| self.unreadable(&error))?;
                if complete && whole < KEPT {
                    whole += 1;
                } else {
                    open.database
                        .delete_keyspace(keyspace)
                        .map_err(|error| self.store.failure(&error))?;
                }
            }
            Ok(())
        })
    }

    fn keyspace(&self, open: &OpenStore, sequence: u64) -> Result<Keyspace, LogError> {
        open.database
            .keyspace(&keyspace_name(sequence), KeyspaceCreateOptions::default)
            .map_err(|error| self.unreadable(&error))
    }

    fn unreadable(&self, error: &fjall::Error) -> LogError {
        LogError::Unreadable {
            path: self.store.path().to_owned(),
            cause: words(error),
        }
    }
}

/// A whole checkpoint, or none where a save was cut off.
fn read(keyspace: &Keyspace) -> Result<Option<Checkpoint>, String> {
    let Some(sealed) = keyspace.get(MANIFEST_KEY).map_err(|error| words(&error))? else {
        return Ok(None);
    };
    let manifest = unseal(&sealed)?;
    let mut parts = Vec::with_capacity(manifest.parts.len());
    for (part, entry) in manifest.parts.into_iter().enumerate() {
        let length = usize::try_from(entry.bytes).map_err(|_| format!("part {} does not fit in memory", entry.name))?;
        let mut bytes = BytesMut::with_capacity(length.min(64 * CHUNK_BYTES));
        for chunk in 0..length.div_ceil(CHUNK_BYTES) {
            let value = keyspace
                .get(chunk_key(part, chunk))
                .map_err(|error| words(&error))?
                .ok_or_else(|| format!("part {} lacks its piece {chunk}", entry.name))?;
            bytes.extend_from_slice(&value);
        }
        if bytes.len() != length || crc32fast::hash(&bytes) != entry.crc32 {
            return Err(format!("part {} is not what was saved", entry.name));
        }
        parts.push((entry.name, bytes.freeze()));
    }
    Ok(Some(Checkpoint {
        next_offset: manifest.next_offset,
        format: manifest.format,
        parts,
    }))
}

fn seal(manifest: &Manifest) -> Vec<u8> {
    let json = serde_json::to_vec(manifest).expect("names and numbers are always JSON");
    let mut sealed = crc32fast::hash(&json).to_le_bytes().to_vec();
    sealed.extend_from_slice(&json);
    sealed
}

fn unseal(sealed: &[u8]) -> Result<Manifest, String> {
    let (crc, json) = sealed.split_first_chunk::<4>().ok_or("its manifest is cut off")?;
    if crc32fast::hash(json) != u32::from_le_bytes(*crc) {
        return Err("its manifest is not what was saved".to_owned());
    }
    serde_json::from_slice(json).map_err(|error| format!("its manifest is of another version: {error}"))
}

/// Sequence numbers of what is there, oldest first.
fn sequences(open: &OpenStore) -> Vec<u64> {
    let names = open.database.list_keyspace_names();
    let mut sequences: Vec<u64> = names
        .iter()
        .filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok())
        .collect();
    sequences.sort_unstable();
    sequences
}

fn keyspace_name(sequence: u64) -> String {
    format!("{PREFIX}{sequence:020}")
}

fn chunk_key(part: usize, chunk: usize) -> Vec<u8> {
    let part = u32::try_from(part).expect("a checkpoint has a handful of parts");
    let chunk = u32::try_from(chunk).expect("four billion chunks do not fit in memory");
    [part.to_be_bytes(), chunk.to_be_bytes()].concat()
}
