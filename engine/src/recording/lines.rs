//! Lines of a recording, and what they mean in our own form.

use std::io::{self, BufRead, Read};

use chrono::DateTime;
use serde::Deserialize;
use serde_json::Value;

use crate::recording::{RowError, Time, Timed};

/// Longest line or row of a recording. A message cannot be longer by default, and memory must have a bound.
const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// Lines of a file, each no longer than [`MAX_LINE_BYTES`].
pub(super) struct Lines {
    input: Box<dyn BufRead + Send>,
    pub(super) number: u64,
    pub(super) line: Vec<u8>,
}

#[derive(Deserialize)]
struct NativeLine {
    topic: String,
    payload: Value,
    at: Option<Value>,
}

impl Lines {
    pub(super) fn new(input: Box<dyn BufRead + Send>) -> Lines {
        Lines {
            input,
            number: 0,
            line: Vec::new(),
        }
    }

    /// Reads the next line that is not blank into `self.line`; `None` at the end.
    pub(super) fn advance(&mut self) -> Option<Result<(), RowError>> {
        loop {
            self.line.clear();
            self.number += 1;
            let error = |what| {
                Some(Err(RowError {
                    line: self.number,
                    what,
                }))
            };
            match self
                .input
                .by_ref()
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut self.line)
            {
                Ok(0) => return None,
                Err(cause) => {
                    // The rest of a damaged file cannot be read either.
                    self.input = Box::new(io::empty());
                    return error(format!("the file cannot be read from here: {cause}"));
                }
                Ok(read) if read as u64 == MAX_LINE_BYTES && self.line.last() != Some(&b'\n') => {
                    if let Err(cause) = skip_line(&mut self.input) {
                        return error(format!("the file cannot be read from here: {cause}"));
                    }
                    return error(format!("the line is longer than {} MiB", MAX_LINE_BYTES >> 20));
                }
                Ok(_) => {}
            }
            if self.number == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
                self.line.drain(..3);
            }
            while self.line.last().is_some_and(u8::is_ascii_whitespace) {
                self.line.pop();
            }
            if !self.line.is_empty() {
                return Some(Ok(()));
            }
        }
    }

    pub(super) fn next_message(&mut self) -> Option<Result<Timed, RowError>> {
        if let Err(error) = self.advance()? {
            return Some(Err(error));
        }
        Some(self.message().map_err(|what| RowError {
            line: self.number,
            what,
        }))
    }

    fn message(&self) -> Result<Timed, String> {
        let line: NativeLine = serde_json::from_slice(&self.line)
            .map_err(|error| format!(r#"{error}; {{"topic":…, "payload":…, "at":…}} was expected"#))?;
        if line.topic.is_empty() || line.topic.contains(['+', '#', '\0']) {
            return Err(format!(
                "`topic` is {:?}: a topic without wildcards was expected",
                line.topic
            ));
        }
        let time = match &line.at {
            None | Some(Value::Null) => {
                let reading = if let Value::Array(readings) = &line.payload {
                    readings.first()
                } else {
                    Some(&line.payload)
                };
                reading
                    .and_then(|reading| reading.get("ts"))
                    .and_then(instant_us)
                    .map_or(Time::Unknown, Time::Read)
            }
            Some(at) => Time::Sent(
                instant_us(at).ok_or_else(|| format!("`at` is {at}: RFC 3339 or epoch milliseconds were expected"))?,
            ),
        };
        let payload = match line.payload {
            Value::String(text) => text.into_bytes(),
            value => serde_json::to_vec(&value).expect("what was JSON is JSON"),
        };
        Ok(Timed {
            time,
            messages: vec![(line.topic, payload)],
        })
    }
}

/// RFC 3339, or epoch milliseconds as a number or a text.
pub(super) fn instant_us(value: &Value) -> Option<i64> {
    match value {
        Value::Number(ms) => match ms.as_i64() {
            Some(ms) => ms.checked_mul(1000),
            None => ms.as_f64().filter(|ms| ms.abs() < 1e15).map(|ms| (ms * 1000.0) as i64),
        },
        Value::String(text) => match text.parse::<i64>() {
            Ok(ms) => ms.checked_mul(1000),
            Err(_) => DateTime::parse_from_rfc3339(text)
                .ok()
                .map(|instant| instant.timestamp_micros()),
        },
        _ => None,
    }
}

fn skip_line(input: &mut dyn BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let (used, found) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), false),
        };
        input.consume(used);
        if found {
            return Ok(());
        }
    }
}
