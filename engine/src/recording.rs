//! A recording is a file of messages that were once sent, or rows of somebody else's data that become messages.
//!
//! Our own form is NDJSON, a line `{"topic":…, "payload":…, "at":…}`. Any other file goes through a mapping.
//! It is read as a stream: however long the file is, one row of it is held. A bad row is told with its line, counted,
//! and the next one is read; it may be told just before the good row ahead of it, which is still held then.

mod lines;
mod mapped;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use chrono::DateTime;
use flate2::bufread::MultiGzDecoder;
use serde_json::Value;

use crate::mapping::{Mappings, SpreadDays};
use crate::recording::lines::Lines;
use crate::recording::mapped::MappedRows;

/// A row farther than this from both its neighbours has a wrong clock: the 2066 of a real reader must not stop a
/// replay for 45 years. Its payload keeps its `ts`; it is sent when the row before it was.
const LEAP_US: u64 = 30 * 24 * 3600 * 1_000_000;

/// A step back of up to this much is disorder within a file and not a new beginning: the row is sent at once.
const DISORDER_US: u64 = 3600 * 1_000_000;

/// A message and when it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// When it was sent, in microseconds since the Unix epoch. It may lie apart from the `ts` in the payload.
    pub at_us: i64,
    /// MQTT topic.
    pub topic: String,
    /// Payload as it goes over the wire.
    pub payload: Vec<u8>,
}

impl Recorded {
    /// The message as a line of a recording in our own form, without a line end. A payload that is no JSON, or a JSON
    /// text, becomes a JSON text; bytes that are no UTF-8 are replaced.
    pub fn to_line(&self) -> String {
        let payload = match serde_json::from_slice(&self.payload) {
            Ok(Value::String(_)) | Err(_) => Value::from(String::from_utf8_lossy(&self.payload)),
            Ok(value) => value,
        };
        let at = match DateTime::from_timestamp_micros(self.at_us) {
            Some(at) => at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true).into(),
            None => Value::from(self.at_us / 1000),
        };
        format!(
            r#"{{"topic":{},"payload":{payload},"at":{at}}}"#,
            Value::from(self.topic.as_str())
        )
    }
}

/// Why a recording cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// The file is not in our own form and no mapping is for it.
    #[error(
        "{} is no NDJSON of messages and no mapping is for a file of its name; choose one of: {known}",
        path.display()
    )]
    NoMapping {
        /// The file.
        path: PathBuf,
        /// Names of the mappings there are.
        known: String,
    },
    /// There is no mapping of the name asked for.
    #[error("there is no mapping `{chosen}`; choose one of: {known}")]
    UnknownMapping {
        /// The name asked for.
        chosen: String,
        /// Names of the mappings there are.
        known: String,
    },
    /// The header of the file is not the one the mapping speaks of.
    #[error("{}:1:1: {wrong}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        wrong: String,
    },
}

/// A row that could not become a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct RowError {
    /// Line of the file, from 1, on which the row begins.
    pub line: u64,
    /// What is wrong and what was expected.
    pub what: String,
}

/// A recording being read: an iterator over its messages and its bad rows, in file order.
pub struct Recording {
    rows: Rows,
    ready: VecDeque<Result<Recorded, RowError>>,
    /// A row waits for the one after it, which tells whether its clock leapt.
    held: Option<Timed>,
    at_us: Option<i64>,
    good: u64,
    bad: u64,
    ended: bool,
}

enum Rows {
    Native(Lines),
    Mapped(Box<MappedRows>),
}

/// The messages of one row.
struct Timed {
    time: Time,
    messages: Vec<(String, Vec<u8>)>,
}

enum Time {
    /// The recording says when it was sent.
    Sent(i64),
    /// The reading says when it happened, by a clock that may be wrong.
    Read(i64),
    Unknown,
}

impl Recording {
    /// Opens a file; `.gz` is unpacked whatever its name says, and `-` is the standard input. `chosen` names a mapping;
    /// without it the name of the file chooses, and a file no mapping is for must be in our own form.
    pub fn open(path: &Path, mappings: &Mappings, chosen: Option<&str>) -> Result<Recording, RecordingError> {
        let known = || mappings.names().collect::<Vec<_>>().join(", ");
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let name = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
        let mapping = match chosen {
            Some(chosen) => Some(mappings.named(chosen).ok_or_else(|| RecordingError::UnknownMapping {
                chosen: chosen.to_owned(),
                known: known(),
            })?),
            None => mappings.for_file(&name),
        };
        let mut input = open_unpacked(path)?;
        let rows = match mapping {
            Some(mapping) => {
                let mut days = SpreadDays::default();
                if mapping.time.needs_counting() {
                    if path == Path::new("-") {
                        let once = "this mapping reads a file twice, which the standard input cannot; name a file";
                        return Err(unreadable(path, io::Error::other(once)));
                    }
                    let mut counting = MappedRows::new(
                        path,
                        &name,
                        open_unpacked(path)?,
                        mapping.clone(),
                        SpreadDays::default(),
                    )?;
                    while let Some(read) = counting.next_row() {
                        if read.is_ok() {
                            mapping.time.count(counting.row(), &mut days);
                        }
                    }
                }
                Rows::Mapped(Box::new(MappedRows::new(path, &name, input, mapping, days)?))
            }
            None => {
                let start = input.fill_buf().map_err(|cause| unreadable(path, cause))?;
                let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
                let first = start.iter().find(|byte| !byte.is_ascii_whitespace());
                if first.is_some_and(|byte| *byte != b'{') {
                    return Err(RecordingError::NoMapping {
                        path: path.to_owned(),
                        known: known(),
                    });
                }
                Rows::Native(Lines::new(input))
            }
        };
        Ok(Recording {
            rows,
            ready: VecDeque::new(),
            held: None,
            at_us: None,
            good: 0,
            bad: 0,
            ended: false,
        })
    }

    /// Rows that were read well so far, whether or not they made a message.
    pub fn rows(&self) -> u64 {
        self.good
    }

    /// Rows that were refused so far.
    pub fn bad(&self) -> u64 {
        self.bad
    }

    /// The mapping in use; none for a recording in our own form.
    pub fn mapping(&self) -> Option<&str> {
        match &self.rows {
            Rows::Native(_) => None,
            Rows::Mapped(rows) => Some(rows.mapping_name()),
        }
    }

    /// Gives the held row its time of sending, knowing the row after it.
    fn release(&mut self, next: Option<&Time>) {
        let Some(held) = self.held.take() else { return };
        let next_us = match next {
            Some(Time::Sent(us) | Time::Read(us)) => Some(*us),
            Some(Time::Unknown) | None => None,
        };
        let at_us = match (held.time, self.at_us) {
            (Time::Sent(us), _) => us,
            (Time::Unknown, before) => before.or(next_us).unwrap_or(0),
            (Time::Read(us), before) => {
                let is_far = |other: i64| us.abs_diff(other) > LEAP_US;
                let leaps = before.is_none_or(is_far) && next_us.is_none_or(is_far) && before.or(next_us).is_some();
                match before {
                    _ if leaps => before.or(next_us).unwrap_or(us),
                    Some(before) if us < before && before.abs_diff(us) <= DISORDER_US => before,
                    _ => us,
                }
            }
        };
        self.at_us = Some(at_us);
        self.ready.extend(
            held.messages
                .into_iter()
                .map(|(topic, payload)| Ok(Recorded { at_us, topic, payload })),
        );
    }
}

impl Iterator for Recording {
    type Item = Result<Recorded, RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            if self.ended {
                return None;
            }
            let read = match &mut self.rows {
                Rows::Native(lines) => lines.next_message(),
                Rows::Mapped(rows) => rows.next_timed(),
            };
            match read {
                None => {
                    self.ended = true;
                    self.release(None);
                }
                Some(Err(error)) => {
                    self.bad += 1;
                    self.ready.push_back(Err(error));
                }
                Some(Ok(timed)) => {
                    self.good += 1;
                    if !timed.messages.is_empty() {
                        self.release(Some(&timed.time));
                        self.held = Some(timed);
                    }
                }
            }
        }
    }
}

fn unreadable(path: &Path, cause: io::Error) -> RecordingError {
    RecordingError::Unreadable {
        path: path.to_owned(),
        cause,
    }
}

fn open_unpacked(path: &Path) -> Result<Box<dyn BufRead + Send>, RecordingError> {
    let file: Box<dyn Read + Send> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(|cause| unreadable(path, cause))?)
    };
    let mut file = BufReader::with_capacity(64 * 1024, file);
    let packed = file
        .fill_buf()
        .map_err(|cause| unreadable(path, cause))?
        .starts_with(&[0x1f, 0x8b]);
    if packed {
        Ok(Box::new(BufReader::new(MultiGzDecoder::new(file))))
    } else {
        Ok(Box::new(file))
    }
}

#[cfg(test)]
mod tests;
