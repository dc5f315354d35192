//! A checkpoint file: the segments that are new in a checkpoint, then the manifest, then a trailer of fixed form.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::log::Offset;

const EXTENSION: &str = "checkpoint";
/// Of a file that is being written. What a crash left of one is removed with the next checkpoint.
const UNFINISHED: &str = "unfinished";
const MAGIC: &[u8; 8] = b"usherckp";
/// Version of the files themselves; what their parts mean has a version of its own.
const LAYOUT: u32 = 1;
/// Magic, layout, format, bytes of segments, length of the manifest, its checksum, checksum of the trailer up to here.
/// Every version ends its files in this way, so that each can tell what is too new for it.
const TRAILER: usize = 8 + 4 + 4 + 8 + 8 + 4 + 4;

/// What belongs to a checkpoint, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) next_offset: Offset,
    pub(super) parts: Vec<PartEntry>,
    /// Of what the parts mean; it stands in the trailer.
    #[serde(skip)]
    pub(super) format: u32,
    /// Bytes of segments in this file; it stands in the trailer.
    #[serde(skip)]
    pub(super) segments_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartEntry {
    pub(super) name: String,
    pub(super) segments: Vec<Entry>,
}

/// Where a segment lies.
#[derive(Debug, Clone, Eq, Serialize, Deserialize)]
#[serde(from = "Placed", into = "Placed")]
pub(super) struct Entry {
    /// The number of the file.
    pub(super) file: u64,
    at: u64,
    /// As it lies there.
    pub(super) bytes: u64,
    crc32: u32,
    /// Bytes of the segment itself; where these are more, it was compressed.
    whole: u64,
    /// A hash of what this process has written, by which it knows it again.
    hash: Option<u128>,
}

/// File, place, bytes there, their checksum, bytes of the segment.
type Placed = (u64, u64, u64, u32, u64);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        Placed::from(self.clone()) == Placed::from(other.clone())
    }
}

impl From<Placed> for Entry {
    fn from((file, at, bytes, crc32, whole): Placed) -> Self {
        Self {
            file,
            at,
            bytes,
            crc32,
            whole,
            hash: None,
        }
    }
}

impl From<Entry> for Placed {
    fn from(entry: Entry) -> Self {
        (entry.file, entry.at, entry.bytes, entry.crc32, entry.whole)
    }
}

impl Entry {
    /// Whether it holds these bytes.
    pub(super) fn is_of(&self, segment: &[u8]) -> bool {
        self.whole == segment.len() as u64 && self.hash == Some(hash(segment))
    }
}

/// So long that no two segments will ever have the same.
fn hash(segment: &[u8]) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(salt);
        hasher.write(segment);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

impl Manifest {
    /// All segments.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.parts.iter().flat_map(|part| &part.segments)
    }
}

/// Why a file can't be used.
#[derive(Debug)]
pub(super) enum Damage {
    /// A later version has written it.
    OfNewerVersion(String),
    /// It is not what was written.
    Reason(String),
}

impl From<io::Error> for Damage {
    fn from(error: io::Error) -> Self {
        Self::Reason(error.to_string())
    }
}

pub(super) fn path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:020}.{EXTENSION}"))
}

/// Numbers of the files that are there, the oldest first.
pub(super) fn sequences(dir: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut sequences = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(EXTENSION)?.strip_suffix('.'));
        sequences.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    sequences.sort_unstable();
    Ok(sequences)
}

/// Removes the files whose numbers are not among `needed`, and what was never finished.
pub(super) fn keep_only(dir: &Path, needed: &BTreeSet<u64>) -> io::Result<()> {
    for sequence in sequences(dir)? {
        if !needed.contains(&sequence) {
            fs::remove_file(path(dir, sequence))?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// What the trailer says.
struct Trailer {
    format: u32,
    segments_bytes: u64,
    manifest_bytes: u64,
    manifest_crc32: u32,
}

impl Trailer {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(LAYOUT.to_le_bytes());
        bytes.extend(self.format.to_le_bytes());
        bytes.extend(self.segments_bytes.to_le_bytes());
        bytes.extend(self.manifest_bytes.to_le_bytes());
        bytes.extend(self.manifest_crc32.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    fn read(file: &mut File) -> Result<Self, Damage> {
        let cut = || Damage::Reason("it is cut off".to_owned());
        let end = file.seek(SeekFrom::End(0))?;
        let start = end.checked_sub(TRAILER as u64).ok_or_else(cut)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = [0; TRAILER];
        file.read_exact(&mut bytes)?;
        let small = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        let large = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        if bytes[..8] != *MAGIC || crc32fast::hash(&bytes[..TRAILER - 4]) != small(TRAILER - 4) {
            return Err(Damage::Reason("its end is not what was written".to_owned()));
        }
        if small(8) > LAYOUT {
            return Err(Damage::OfNewerVersion(format!(
                "its files are of form {}, and this Usher reads form {LAYOUT}",
                small(8)
            )));
        }
        let trailer = Self {
            format: small(12),
            segments_bytes: large(16),
            manifest_bytes: large(24),
            manifest_crc32: small(32),
        };
        let bytes = trailer.segments_bytes.checked_add(trailer.manifest_bytes);
        if bytes != Some(start) {
            return Err(cut());
        }
        Ok(trailer)
    }
}

/// The manifest of a file.
pub(super) fn read_manifest(dir: &Path, sequence: u64) -> Result<Manifest, Damage> {
    let mut file = File::open(path(dir, sequence))?;
    let trailer = Trailer::read(&mut file)?;
    file.seek(SeekFrom::Start(trailer.segments_bytes))?;
    let mut json = Vec::new();
    file.take(trailer.manifest_bytes).read_to_end(&mut json)?;
    if crc32fast::hash(&json) != trailer.manifest_crc32 {
        return Err(Damage::Reason("its manifest is not what was saved".to_owned()));
    }
    let json = lz4_flex::block::decompress_size_prepended(&json)
        .map_err(|error| Damage::Reason(format!("its manifest can't be read: {error}")))?;
    let mut manifest: Manifest = serde_json::from_slice(&json)
        .map_err(|error| Damage::Reason(format!("its manifest can't be read: {error}")))?;
    (manifest.format, manifest.segments_bytes) = (trailer.format, trailer.segments_bytes);
    Ok(manifest)
}

/// Bytes of segments in a file; 0 where that can't be told.
pub(super) fn segments_bytes(dir: &Path, sequence: u64) -> u64 {
    let trailer = File::open(path(dir, sequence))
        .ok()
        .and_then(|mut file| Trailer::read(&mut file).ok());
    trailer.map_or(0, |trailer| trailer.segments_bytes)
}

/// A segment, if it is what was written.
pub(super) fn read_segment(dir: &Path, entry: &Entry) -> Result<Bytes, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path(dir, entry.file))?;
        file.seek(SeekFrom::Start(entry.at))?;
        let mut bytes = Vec::new();
        file.take(entry.bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| format!("file {}: {error}", entry.file))?;
    if bytes.len() as u64 != entry.bytes || crc32fast::hash(&bytes) != entry.crc32 {
        return Err(format!(
            "file {} does not hold at {} what was saved",
            entry.file, entry.at
        ));
    }
    if entry.bytes == entry.whole {
        return Ok(bytes.into());
    }
    let whole = usize::try_from(entry.whole).map_err(|_| "a segment does not fit into memory".to_owned())?;
    let segment = lz4_flex::block::decompress(&bytes, whole);
    let segment = segment.map_err(|error| format!("file {} at {}: {error}", entry.file, entry.at))?;
    Ok(segment.into())
}

/// A file that is being written.
pub(super) struct Writing {
    dir: PathBuf,
    unfinished: PathBuf,
    sequence: u64,
    file: BufWriter<File>,
    bytes: u64,
}

impl Writing {
    pub(super) fn begin(dir: &Path, sequence: u64) -> io::Result<Self> {
        let unfinished = dir.join(format!("{sequence:020}.{UNFINISHED}"));
        Ok(Self {
            file: BufWriter::with_capacity(1 << 18, File::create(&unfinished)?),
            dir: dir.to_owned(),
            unfinished,
            sequence,
            bytes: 0,
        })
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes of the segments so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn write(&mut self, segment: &[u8]) -> io::Result<Entry> {
        let compressed = lz4_flex::block::compress(segment);
        let stored = if compressed.len() < segment.len() {
            &compressed
        } else {
            segment
        };
        self.file.write_all(stored)?;
        let at = self.bytes;
        self.bytes += stored.len() as u64;
        Ok(Entry {
            file: self.sequence,
            at,
            bytes: stored.len() as u64,
            crc32: crc32fast::hash(stored),
            whole: segment.len() as u64,
            hash: Some(hash(segment)),
        })
    }

    /// Writes the manifest and gives the file its name, once all of it is on disk; gives its length.
    pub(super) fn end(mut self, manifest: &Manifest) -> io::Result<u64> {
        let json = serde_json::to_vec(manifest).map_err(io::Error::other)?;
        let json = lz4_flex::block::compress_prepend_size(&json);
        let trailer = Trailer {
            format: manifest.format,
            segments_bytes: self.bytes,
            manifest_bytes: json.len() as u64,
            manifest_crc32: crc32fast::hash(&json),
        };
        self.file.write_all(&json)?;
        self.file.write_all(&trailer.to_bytes())?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        fs::rename(&self.unfinished, path(&self.dir, self.sequence))?;
        // The name is in the folder, which is a file of its own.
        File::open(&self.dir)?.sync_all()?;
        Ok(self.bytes + (json.len() + TRAILER) as u64)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // After a rename it is not there; a failed one gives its room back.
        let _ = fs::remove_file(&self.unfinished);
    }
}
