//! Rows of a file read through a mapping.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use crate::mapping::{Header, Layout, Mapping, Row, SpreadDays};
use crate::recording::lines::Lines;
use crate::recording::{RecordingError, RowError, Time, Timed};

/// A file, cut into rows as its mapping says.
pub(super) struct MappedRows {
    mapping: Arc<Mapping>,
    cut: Cut,
    row: Row,
    line: u64,
    days: SpreadDays,
    /// The level before this row, for each emit.
    levels: Vec<i64>,
}

enum Cut {
    Delimited {
        reader: csv::Reader<Box<dyn BufRead + Send>>,
        record: csv::ByteRecord,
        /// Where in the file each column of the mapping stands; none where the file lacks an optional one.
        places: Vec<Option<usize>>,
        width: usize,
    },
    Lines(Lines),
}

impl MappedRows {
    pub(super) fn new(
        path: &Path,
        name: &str,
        input: Box<dyn BufRead + Send>,
        mapping: Arc<Mapping>,
        days: SpreadDays,
    ) -> Result<MappedRows, RecordingError> {
        let cut = match &mapping.layout {
            Layout::Lines { .. } => Cut::Lines(Lines::new(input)),
            Layout::Delimited {
                delimiter,
                header,
                quote,
                columns,
                optional,
                ..
            } => {
                let mut reader = csv::ReaderBuilder::new()
                    .delimiter(*delimiter)
                    .quoting(*quote)
                    .flexible(true)
                    // A row ends at the line feed and a carriage return before it is trimmed: told to end rows at
                    // both, the reader counts lines one short.
                    .terminator(csv::Terminator::Any(b'\n'))
                    .has_headers(*header != Header::None)
                    .from_reader(input);
                let wrong = |wrong| RecordingError::Header {
                    path: path.to_owned(),
                    wrong,
                };
                let mut places: Vec<Option<usize>> = (0..columns.len()).map(Some).collect();
                let mut width = columns.len();
                if *header != Header::None {
                    let found = reader.byte_headers().map_err(|error| wrong(error.to_string()))?;
                    let found: Vec<String> = found
                        .iter()
                        .map(|name| {
                            String::from_utf8_lossy(name)
                                .trim_matches(|c: char| c == '\u{feff}' || c.is_whitespace())
                                .to_owned()
                        })
                        .collect();
                    width = found.len();
                    if *header == Header::Names {
                        places = columns
                            .iter()
                            .map(|column| found.iter().position(|name| name == column))
                            .collect();
                        let needed = columns.len() - optional;
                        if let Some(at) = places[..needed].iter().position(Option::is_none) {
                            let found = found.join("`, `");
                            return Err(wrong(format!(
                                "column `{}` is missing, the header has `{found}`",
                                columns[at]
                            )));
                        }
                    } else if width != columns.len() {
                        let expected = columns.len();
                        return Err(wrong(format!(
                            "the header has {width} columns, the mapping expects {expected}"
                        )));
                    }
                }
                Cut::Delimited {
                    reader,
                    record: csv::ByteRecord::new(),
                    places,
                    width,
                }
            }
        };
        let row = Row {
            file: name.to_owned(),
            stem: name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned(),
            ..Row::default()
        };
        let levels = vec![0; mapping.emits.len()];
        Ok(MappedRows {
            mapping,
            cut,
            row,
            line: 0,
            days,
            levels,
        })
    }

    pub(super) fn mapping_name(&self) -> &str {
        &self.mapping.name
    }

    /// The row read last.
    pub(super) fn row(&self) -> &Row {
        &self.row
    }

    /// Reads the next row into `self.row`; `None` at the end.
    pub(super) fn next_row(&mut self) -> Option<Result<(), RowError>> {
        let read = match (&mut self.cut, &self.mapping.layout) {
            (
                Cut::Delimited {
                    reader,
                    record,
                    places,
                    width,
                },
                Layout::Delimited { trim, .. },
            ) => {
                loop {
                    match reader.read_byte_record(record) {
                        Ok(false) => return None,
                        Err(error) => {
                            let line = self.line + 1;
                            return Some(Err(RowError {
                                line,
                                what: format!("the file cannot be read from here: {error}"),
                            }));
                        }
                        Ok(true) if (record.len() == 1 && record[0].trim_ascii().is_empty()) => {}
                        Ok(true) => break,
                    }
                }
                self.line = record.position().map_or(self.line + 1, csv::Position::line);
                if record.len() == *width {
                    let values = places
                        .iter()
                        .map(|place| place.map_or(&b""[..], |place| &record[place]));
                    take_values(values, trim, &mut self.row.values)
                } else {
                    let noun = if record.len() == 1 { "column" } else { "columns" };
                    Err(format!("the row has {} {noun}, {width} were expected", record.len()))
                }
            }
            (Cut::Lines(lines), Layout::Lines { pattern, groups }) => {
                let advanced = lines.advance()?;
                self.line = lines.number;
                if let Err(error) = advanced {
                    return Some(Err(error));
                }
                match pattern.captures(&lines.line) {
                    None => Err("the line does not fit the mapping's pattern".to_owned()),
                    Some(found) => {
                        let values = groups
                            .iter()
                            .map(|group| found.get(*group).map_or(&b""[..], |part| part.as_bytes()));
                        take_values(values, &[], &mut self.row.values)
                    }
                }
            }
            _ => unreachable!("a mapping's rows are cut by its own layout"),
        };
        self.row.number += 1;
        Some(read.map_err(|what| RowError { line: self.line, what }))
    }

    pub(super) fn next_timed(&mut self) -> Option<Result<Timed, RowError>> {
        if let Err(error) = self.next_row()? {
            return Some(Err(error));
        }
        Some(self.timed().map_err(|what| RowError { line: self.line, what }))
    }

    fn timed(&mut self) -> Result<Timed, String> {
        let time = self.mapping.time.read(&self.row, &mut self.days)?;
        let id = self.mapping.id.as_ref().map(|id| id.fill(&self.row)).transpose()?;
        let mut messages = Vec::new();
        for (emit, level) in self.mapping.emits.iter().zip(&mut self.levels) {
            messages.extend(emit.message(&self.row, &time, id.as_deref(), level)?);
        }
        Ok(Timed {
            time: Time::Read(time.us),
            messages,
        })
    }
}

fn take_values<'v>(
    values: impl Iterator<Item = &'v [u8]>,
    trim: &[char],
    into: &mut Vec<String>,
) -> Result<(), String> {
    into.clear();
    for value in values {
        let text =
            std::str::from_utf8(value).map_err(|_| format!("{:?} is not UTF-8", String::from_utf8_lossy(value)))?;
        into.push(
            text.trim_matches(|c: char| c.is_whitespace() || trim.contains(&c))
                .to_owned(),
        );
    }
    Ok(())
}
