//! A checkpoint is where processing stood: an offset and named parts of state, saved and loaded as one.
//!
//! A part is a chain of segments: what it was once, and what has changed since. A save writes what is new into one file,
//! with a manifest of all that belongs to the checkpoint, in this file and in earlier ones. The file gets its name when
//! all of it is on disk, so that a crash while saving leaves the checkpoints before. Older ones go when the new one has
//! been read back and found whole, and a file stays as long as a manifest that is kept refers to it.

mod file;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;
use tracing::warn;

use self::file::{Damage, Entry, Manifest, PartEntry};
use crate::crash_point::CrashPoint;
use crate::log::{LogError, Offset};

/// Checkpoints kept: the newest, and one to fall back to.
const KEPT: usize = 2;
/// Bytes of segments written earlier that are read again at each save. A state that is no larger is proven whole each
/// time, a larger one in turns.
const PROVEN_AGAIN: u64 = 8 << 20;
/// Files that checkpoints may lie in; beyond it those that hold the least are copied into the newest.
const FILES_MAX: usize = 64;
/// Of so many, that is.
const FILES_WANTED: usize = 32;

/// Where processing stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its number; later ones have larger ones.
    pub sequence: u64,
    /// The first offset not yet in it; processing goes on here.
    pub next_offset: Offset,
    /// Version of what the parts mean, for the engine to judge.
    pub format: u32,
    /// Named state, unread here.
    pub parts: Vec<Part>,
}

/// One part of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// What it was, and what has changed since, in this order.
    pub segments: Vec<Bytes>,
}

/// What is to be saved: for each part of the state what is new in it. A part that is not named is no longer there.
///
/// `P` gives the changes one after the other, or why one can't be had. Each is asked for when the one before is written, and let
/// go of then: of a large state no more than one piece has to be in memory as bytes. A part that is named again goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update<P> {
    /// The first offset not yet in it.
    pub next_offset: Offset,
    /// Version of what the parts mean.
    pub format: u32,
    /// The parts.
    pub parts: P,
}

/// What is new in one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The part's name.
    pub name: String,
    /// Whether the segments are the whole part; otherwise they follow those saved before.
    pub begins_anew: bool,
    /// None where nothing has changed.
    pub segments: Vec<Bytes>,
}

/// What a save came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// Its number.
    pub sequence: u64,
    /// Bytes written, the manifest among them.
    pub written_bytes: u64,
    /// Bytes of the whole state.
    pub state_bytes: u64,
    /// Files that the checkpoints which are kept lie in.
    pub files: usize,
}

/// What was found when loading.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The newest checkpoint that is whole; none on a first start.
    pub checkpoint: Option<Checkpoint>,
    /// Newer ones that could not be read, each with the reason, newest first. Worth a warning.
    pub unreadable: Vec<String>,
}

/// Where checkpoints are kept: a folder of files beside the log's.
pub struct CheckpointStore {
    dir: PathBuf,
    /// Whether there was a checkpoint of the first form, which lay in the log's database.
    is_of_first_form: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_sequence: u64,
    /// Of each part, where the segments lie that the last save named. Empty until one has worked, and after one that
    /// did not: then all parts have to begin anew.
    chains: BTreeMap<String, Vec<Entry>>,
    /// The manifests that are kept, the oldest first.
    kept: Vec<(u64, Manifest)>,
    /// Files whose manifest can't be read, each with the reason.
    damaged: BTreeMap<u64, String>,
    /// Where proving went on to among what was written earlier.
    proven_to: u64,
}

impl CheckpointStore {
    /// Opens the checkpoints in `dir`, which need not be there. Writes nothing.
    ///
    /// # Errors
    /// [`LogError::OfNewerVersion`] where a later Usher has saved; [`LogError::Unreadable`] when the folder can't be read.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        let mut state = State::default();
        for sequence in file::sequences(dir).map_err(|error| unreadable(dir, &error))? {
            state.next_sequence = sequence + 1;
            match file::read_manifest(dir, sequence) {
                Ok(manifest) => state.kept.push((sequence, manifest)),
                Err(Damage::OfNewerVersion(cause)) => {
                    return Err(LogError::OfNewerVersion {
                        path: file::path(dir, sequence),
                        cause,
                    });
                }
                Err(Damage::Reason(reason)) => {
                    state.damaged.insert(sequence, reason);
                }
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            is_of_first_form: false,
            state: Mutex::new(state),
        })
    }

    /// There is a checkpoint of the first form, which is not read any more.
    pub(crate) fn with_first_form(self, is_of_first_form: bool) -> Self {
        Self {
            is_of_first_form,
            ..self
        }
    }

    /// Whether all that was found is a checkpoint of the first form, which is not read any more.
    pub fn is_of_first_form(&self) -> bool {
        self.is_of_first_form && self.newest_format().is_none()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Each holder leaves it whole at every step.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Saves a checkpoint: durable, read back and found whole when this returns, and all of it or nothing. Then drops what
    /// neither it nor the one before refers to. Blocks on the disk.
    ///
    /// # Errors
    /// [`LogError::Unwritable`], also where a change can't be had; the checkpoints before stay as they were, and the next one
    /// must begin anew in every part, for what this one knew to be new is in none.
    pub fn save<P>(&self, update: Update<P>) -> Result<Saved, LogError>
    where
        P: IntoIterator<Item = Result<Change, String>>,
    {
        let state = &mut *self.lock();
        let sequence = state.next_sequence;
        // The name of a file that failed is not used again.
        state.next_sequence += 1;
        let saved = self.save_as(sequence, update, state);
        if saved.is_err() {
            state.chains.clear();
            let _ = std::fs::remove_file(file::path(&self.dir, sequence));
        }
        saved
    }

    fn save_as<P>(&self, sequence: u64, update: Update<P>, state: &mut State) -> Result<Saved, LogError>
    where
        P: IntoIterator<Item = Result<Change, String>>,
    {
        let unwritable = |cause: String| LogError::Unwritable {
            path: self.dir.clone(),
            cause: format!("the checkpoint {sequence}: {cause}"),
        };
        std::fs::create_dir_all(&self.dir).map_err(|error| unwritable(error.to_string()))?;
        let mut writing = file::Writing::begin(&self.dir, sequence).map_err(|error| unwritable(error.to_string()))?;
        let mut chains: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for change in update.parts {
            let change = change.map_err(unwritable)?;
            let before = state.chains.get(&change.name);
            let mut chain = match (chains.remove(&change.name), before) {
                _ if change.begins_anew => Vec::new(),
                (Some(begun), _) => begun,
                (None, Some(before)) => before.clone(),
                (None, None) => {
                    return Err(unwritable(format!(
                        "of the part '{}' there are changes, and nothing that they change",
                        change.name
                    )));
                }
            };
            for segment in change.segments {
                // Behind what was saved before there is none.
                let known = before.and_then(|before| before.get(chain.len()));
                chain.push(match known.filter(|known| known.is_of(&segment)) {
                    Some(known) => known.clone(),
                    None => writing.write(&segment).map_err(|error| unwritable(error.to_string()))?,
                });
            }
            chains.insert(change.name, chain);
        }
        self.gather(&mut chains, &mut writing, state)
            .map_err(|cause| unwritable(cause.to_string()))?;
        let manifest = Manifest {
            next_offset: update.next_offset,
            segments_bytes: writing.bytes(),
            parts: chains
                .iter()
                .map(|(name, segments)| PartEntry {
                    name: name.clone(),
                    segments: segments.clone(),
                })
                .collect(),
            format: update.format,
        };
        CrashPoint::CheckpointHalfWritten.pass();
        let written_bytes = writing.end(&manifest).map_err(|error| unwritable(error.to_string()))?;
        self.prove(sequence, &manifest, state)
            .map_err(|reason| unwritable(format!("it was written and can't be read back: {reason}")))?;
        let state_bytes = manifest.entries().map(|entry| entry.bytes).sum();
        state.chains = chains;
        state.kept.push((sequence, manifest));
        let files = self.drop_old(state);
        Ok(Saved {
            sequence,
            written_bytes,
            state_bytes,
            files,
        })
    }

    /// Copies segments out of files that hold little else that is still needed, so that these can go.
    fn gather(
        &self,
        chains: &mut BTreeMap<String, Vec<Entry>>,
        writing: &mut file::Writing,
        state: &State,
    ) -> io::Result<()> {
        let mut held: BTreeMap<u64, u64> = BTreeMap::new();
        for entry in chains
            .values()
            .flatten()
            .filter(|entry| entry.file != writing.sequence())
        {
            *held.entry(entry.file).or_default() += entry.bytes;
        }
        let bytes_of = |file: u64| {
            let manifest = state.kept.iter().find(|(sequence, _)| *sequence == file);
            manifest.map_or_else(
                || file::segments_bytes(&self.dir, file),
                |(_, manifest)| manifest.segments_bytes,
            )
        };
        let mut leaving: BTreeSet<u64> = BTreeSet::new();
        let is_mostly_unneeded = |(file, needed): &(&u64, &u64)| **needed * 2 < bytes_of(**file);
        leaving.extend(held.iter().filter(is_mostly_unneeded).map(|(file, _)| *file));
        if held.len() - leaving.len() > FILES_MAX {
            let mut by_bytes: Vec<(u64, u64)> = held.iter().map(|(file, needed)| (*needed, *file)).collect();
            by_bytes.sort_unstable();
            leaving.extend(by_bytes.iter().map(|(_, file)| *file).take(held.len() - FILES_WANTED));
        }
        for entry in chains.values_mut().flatten() {
            if leaving.contains(&entry.file) {
                let segment = file::read_segment(&self.dir, entry).map_err(io::Error::other)?;
                *entry = writing.write(&segment)?;
            }
        }
        Ok(())
    }

    /// Reads back what was written, and some of what was written before and belongs to it.
    fn prove(&self, sequence: u64, manifest: &Manifest, state: &mut State) -> Result<(), String> {
        let Ok(read) = file::read_manifest(&self.dir, sequence) else {
            return Err("its manifest is not what was written".to_owned());
        };
        if read != *manifest {
            return Err("its manifest is not what was written".to_owned());
        }
        let (new, before): (Vec<&Entry>, Vec<&Entry>) = manifest.entries().partition(|entry| entry.file == sequence);
        for entry in new {
            file::read_segment(&self.dir, entry)?;
        }
        let all: u64 = before.iter().map(|entry| entry.bytes).sum();
        let (mut at, mut read, from) = (0, 0, state.proven_to);
        for entry in &before {
            let begins_at = at;
            at += entry.bytes;
            if (begins_at >= from && read < PROVEN_AGAIN) || all <= PROVEN_AGAIN {
                file::read_segment(&self.dir, entry)?;
                read += entry.bytes;
                state.proven_to = at;
            }
        }
        if state.proven_to >= all {
            state.proven_to = 0;
        }
        Ok(())
    }

    /// Drops all checkpoints but the last two, and files that these do not refer to. What can't be removed is tried
    /// again after the next one.
    fn drop_old(&self, state: &mut State) -> usize {
        let from = state.kept.len().saturating_sub(KEPT);
        state.kept.drain(..from);
        let needed = needed_by(&state.kept);
        state.damaged.retain(|file, _| needed.contains(file));
        if let Err(error) = file::keep_only(&self.dir, &needed) {
            warn!(dir = %self.dir.display(), %error, "an old checkpoint can't be removed");
        }
        needed.len()
    }

    /// Drops all checkpoints but the last one that was saved, and files that it does not refer to. Gives how many files went.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// [`LogError::Unwritable`] when a file can't be removed.
    pub fn keep_last(&self) -> Result<usize, LogError> {
        let state = &mut *self.lock();
        let unwritable = |error: io::Error| LogError::Unwritable {
            path: self.dir.clone(),
            cause: error.to_string(),
        };
        let before = file::sequences(&self.dir).map_err(unwritable)?.len();
        let from = state.kept.len().saturating_sub(1);
        state.kept.drain(..from);
        state.damaged.clear();
        let needed = needed_by(&state.kept);
        file::keep_only(&self.dir, &needed).map_err(unwritable)?;
        Ok(before.saturating_sub(needed.len()))
    }

    /// Loads the newest checkpoint that is whole, and says which newer ones are not. Blocks on the disk.
    ///
    /// # Errors
    /// [`LogError::Unreadable`] when the folder itself cannot be read.
    pub fn load(&self) -> Result<Loaded, LogError> {
        self.load_before(u64::MAX)
    }

    /// The same among those with a smaller number: for whoever can't use what is whole.
    ///
    /// # Errors
    /// As [`CheckpointStore::load`].
    pub fn load_before(&self, sequence: u64) -> Result<Loaded, LogError> {
        let state = self.lock();
        let mut loaded = Loaded::default();
        let damaged = state.damaged.iter().map(|(sequence, reason)| (*sequence, Err(reason)));
        let kept = state.kept.iter().map(|(sequence, manifest)| (*sequence, Ok(manifest)));
        let mut all: Vec<_> = damaged.chain(kept).filter(|(found, _)| *found < sequence).collect();
        all.sort_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
        for (sequence, found) in all {
            let read = found
                .map_err(Clone::clone)
                .and_then(|manifest| self.read(sequence, manifest));
            match read {
                Ok(checkpoint) => {
                    loaded.checkpoint = Some(checkpoint);
                    break;
                }
                Err(reason) => {
                    warn!(sequence, %reason, "checkpoint cannot be read; trying the one before");
                    loaded.unreadable.push(format!("checkpoint {sequence}: {reason}"));
                }
            }
        }
        Ok(loaded)
    }

    fn read(&self, sequence: u64, manifest: &Manifest) -> Result<Checkpoint, String> {
        let parts = manifest.parts.iter().map(|part| {
            let segments = part.segments.iter().map(|entry| file::read_segment(&self.dir, entry));
            let segments: Result<Vec<Bytes>, String> = segments.collect();
            let segments = segments.map_err(|reason| format!("part {}: {reason}", part.name))?;
            Ok(Part {
                name: part.name.clone(),
                segments,
            })
        });
        Ok(Checkpoint {
            sequence,
            next_offset: manifest.next_offset,
            format: manifest.format,
            parts: parts.collect::<Result<_, String>>()?,
        })
    }

    /// The next checkpoint has to hold every part whole: one that was to be saved never came to be.
    pub fn begin_anew(&self) {
        self.lock().chains.clear();
    }

    /// The largest format among the checkpoints that are there; none without any.
    pub fn newest_format(&self) -> Option<u32> {
        self.lock().kept.iter().map(|(_, manifest)| manifest.format).max()
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The first offset that a kept checkpoint continues from: what retention has to keep. None without any.
    pub fn keep_from(&self) -> Option<Offset> {
        self.lock().kept.iter().map(|(_, manifest)| manifest.next_offset).min()
    }
}

/// The files that these checkpoints lie in.
fn needed_by(kept: &[(u64, Manifest)]) -> BTreeSet<u64> {
    let entries = kept.iter().flat_map(|(_, manifest)| manifest.entries());
    let files = entries.map(|entry| entry.file);
    files.chain(kept.iter().map(|(sequence, _)| *sequence)).collect()
}

fn unreadable(dir: &Path, error: &io::Error) -> LogError {
    LogError::Unreadable {
        path: dir.to_owned(),
        cause: error.to_string(),
    }
}
