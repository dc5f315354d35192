//! A mapping is one TOML file that says how the rows of somebody's recording become our messages.
//!
//! What was written is parsed first, what it means is worked out after: every column, zone, pattern
//! and lookup it names is checked when it is read, so that a mapping that loads can only fail on a row's own data.

mod emit;
mod template;
mod time;
mod written;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;

pub(crate) use crate::mapping::emit::Emit;
pub(crate) use crate::mapping::template::{Row, Template};
pub(crate) use crate::mapping::time::{SpreadDays, TimeReader};
use crate::mapping::written::{HeaderWritten, MappingWritten};
use crate::position::{Mistake, Mistakes};

/// The mappings that come with Usher, in the order of their names.
const SHIPPED: [(&str, &str); 6] = [
    (
        "calit2-gate.toml",
        include_str!("../../config/recordings/calit2-gate.toml"),
    ),
    ("ezproxy.toml", include_str!("../../config/recordings/ezproxy.toml")),
    (
        "gate-counter-cumulative.toml",
        include_str!("../../config/recordings/gate-counter-cumulative.toml"),
    ),
    (
        "orfid-rfid.toml",
        include_str!("../../config/recordings/orfid-rfid.toml"),
    ),
    ("oulad.toml", include_str!("../../config/recordings/oulad.toml")),
    (
        "sdu-occupancy.toml",
        include_str!("../../config/recordings/sdu-occupancy.toml"),
    ),
];

/// How the rows of one kind of recording become messages.
#[derive(Debug)]
pub struct Mapping {
    /// The name by which it is chosen.
    pub name: String,
    files: Vec<String>,
    pub(crate) layout: Layout,
    pub(crate) time: TimeReader,
    pub(crate) id: Option<Template>,
    pub(crate) emits: Vec<Emit>,
}

/// How the bytes of a file are cut into rows of named columns.
#[derive(Debug)]
pub(crate) enum Layout {
    Delimited {
        delimiter: u8,
        header: Header,
        quote: bool,
        trim: Vec<char>,
        columns: Vec<String>,
        /// How many of `columns`, at the end, a file need not have.
        optional: usize,
    },
    Lines {
        pattern: regex::bytes::Regex,
        /// Group of the pattern for each column.
        groups: Vec<usize>,
    },
}

/// What the first row of a delimited file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// It names the columns, in any order.
    Names,
    /// It names them otherwise than the mapping does, and is passed over.
    Skip,
    /// There is none.
    None,
}

impl Mapping {
    /// Reads one mapping. `file` is only named in mistakes, all of which are reported at once.
    pub fn read(file: &Path, text: &str) -> Result<Mapping, Vec<Mistake>> {
        let mut mistakes = Mistakes::of(file, text);
        let written: MappingWritten = match toml::from_str(text) {
            Ok(written) => written,
            Err(error) => {
                let message = error.message().trim_end().replace('\n', ", ");
                let (wrong, right) = message.split_once(", expected ").map_or(
                    (
                        message.clone(),
                        "see config/recordings for the form of a mapping".to_owned(),
                    ),
                    |(wrong, right)| (wrong.to_owned(), format!("expected {right}")),
                );
                mistakes.add(error.span().unwrap_or(0..0), wrong, right);
                return Err(mistakes.into_sorted());
            }
        };
        let mapping = compile(written, &mut mistakes);
        let mistakes = mistakes.into_sorted();
        mapping.filter(|_| mistakes.is_empty()).ok_or(mistakes)
    }

    /// Whether the mapping says that it reads a file of this name (without `.gz`).
    pub fn is_for(&self, file_name: &str) -> bool {
        self.files.iter().any(|pattern| matches(pattern, file_name))
    }
}

/// All mappings that are known, by name.
#[derive(Debug, Clone, Default)]
pub struct Mappings {
    by_name: BTreeMap<String, Arc<Mapping>>,
}

impl Mappings {
    /// The mappings that come with Usher.
    pub fn shipped() -> Mappings {
        let mut mappings = Mappings::default();
        for (file, text) in SHIPPED {
            mappings.add(
                Mapping::read(Path::new(file), text).expect("a shipped mapping is read by a test before it ships"),
            );
        }
        mappings
    }

    /// Adds every `*.toml` of a folder; one of a name that is already there takes its place. A folder that does not
    /// exist adds nothing. Reports the mistakes of all files at once.
    pub fn add_folder(&mut self, folder: &Path) -> Result<(), Vec<Mistake>> {
        let unreadable = |file: &Path, error: std::io::Error| Mistake {
            file: file.to_owned(),
            line: 1,
            column: 1,
            wrong: format!("cannot be read: {error}"),
            right: "a readable file was expected".to_owned(),
        };
        let mut files = match std::fs::read_dir(folder) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(vec![unreadable(folder, error)]),
        };
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        let mut mistakes = Vec::new();
        for file in files {
            match std::fs::read_to_string(&file) {
                Err(error) => mistakes.push(unreadable(&file, error)),
                Ok(text) => match Mapping::read(&file, &text) {
                    Ok(mapping) => self.add(mapping),
                    Err(found) => mistakes.extend(found),
                },
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    /// Adds a mapping; one of the same name gives way.
    pub fn add(&mut self, mapping: Mapping) {
        self.by_name.insert(mapping.name.clone(), Arc::new(mapping));
    }

    /// The mapping of this name.
    pub fn named(&self, name: &str) -> Option<Arc<Mapping>> {
        self.by_name.get(name).cloned()
    }

    /// The mapping for a file of this name (without `.gz`); of several the first by name.
    pub fn for_file(&self, file_name: &str) -> Option<Arc<Mapping>> {
        self.by_name.values().find(|mapping| mapping.is_for(file_name)).cloned()
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

/// The names a mapping may use for values of a row.
pub(crate) struct Names<'a> {
    pub(crate) columns: &'a [String],
    pub(crate) lookups: &'a [(String, BTreeMap<String, String>)],
}

fn compile(written: MappingWritten, mistakes: &mut Mistakes<'_>) -> Option<Mapping> {
    if written.name.as_ref().is_empty() {
        mistakes.add(
            written.name.span(),
            "the name is empty",
            "a name to choose the mapping by was expected",
        );
    }
    let (layout, columns) = layout(&written, mistakes)?;
    for (place, column) in columns.iter().enumerate() {
        let span = column.span();
        if ["file", "stem", "row"].contains(&column.as_ref().as_str()) {
            let wrong = format!("`{}` is the name of something every row has", column.as_ref());
            mistakes.add(span, wrong, "another name for the column would do");
        } else if columns[..place].iter().any(|other| other.as_ref() == column.as_ref()) {
            mistakes.add(
                span,
                format!("column `{}` is there twice", column.as_ref()),
                "each needs a name of its own",
            );
        }
    }
    let columns: Vec<String> = columns.into_iter().map(Spanned::into_inner).collect();
    let lookups: Vec<_> = written.lookup.into_iter().collect();
    let names = Names {
        columns: &columns,
        lookups: &lookups,
    };

    let time = TimeReader::compile(written.time, &names, mistakes);
    let id = written.id.and_then(|id| Template::compile(&id, &names, mistakes));
    if written.emit.is_empty() {
        mistakes.add(
            written.name.span(),
            "the mapping emits nothing",
            "at least one [[emit]] was expected",
        );
    }
    let emits = written
        .emit
        .into_iter()
        .filter_map(|emit| Emit::compile(emit, &names, mistakes))
        .collect();
    Some(Mapping {
        name: written.name.into_inner(),
        files: written.files,
        layout,
        time: time?,
        id,
        emits,
    })
}

fn layout(written: &MappingWritten, mistakes: &mut Mistakes<'_>) -> Option<(Layout, Vec<Spanned<String>>)> {
    match (&written.delimited, &written.lines) {
        (Some(delimited), None) => {
            let character = *delimited.delimiter.as_ref();
            if !character.is_ascii() || character == '\n' || character == '\r' || character == '"' {
                let wrong = format!("{character:?} cannot part columns");
                mistakes.add(
                    delimited.delimiter.span(),
                    wrong,
                    r#"one ASCII character such as ",", ";" or "\t" was expected"#,
                );
                return None;
            }
            let header = match delimited.header {
                HeaderWritten::Names => Header::Names,
                HeaderWritten::Skip => Header::Skip,
                HeaderWritten::None => Header::None,
            };
            if let (Some(first), true) = (delimited.optional.first(), header != Header::Names) {
                mistakes.add(
                    first.span(),
                    "a column can be optional only where the header names the columns",
                    r#"header = "names" would be right"#,
                );
            }
            let columns: Vec<_> = delimited.columns.iter().chain(&delimited.optional).cloned().collect();
            let layout = Layout::Delimited {
                delimiter: character as u8,
                header,
                quote: delimited.quote,
                trim: delimited.trim.chars().collect(),
                columns: columns.iter().map(|column| column.as_ref().clone()).collect(),
                optional: delimited.optional.len(),
            };
            Some((layout, columns))
        }
        (None, Some(lines)) => {
            let span = lines.pattern.span();
            // Bytes and ASCII classes: log files hold whatever clients sent, which need not be UTF-8.
            match regex::bytes::RegexBuilder::new(lines.pattern.as_ref())
                .unicode(false)
                .build()
            {
                Err(error) => {
                    let reason = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
                    mistakes.add(
                        span,
                        format!("the pattern cannot be read ({reason})"),
                        "a regular expression was expected",
                    );
                    None
                }
                Ok(pattern) => {
                    let named: Vec<(usize, String)> = pattern
                        .capture_names()
                        .enumerate()
                        .filter_map(|(group, name)| Some((group, name?.to_owned())))
                        .collect();
                    let columns = named
                        .iter()
                        .map(|(_, name)| Spanned::new(span.clone(), name.clone()))
                        .collect();
                    let groups = named.iter().map(|(group, _)| *group).collect();
                    Some((Layout::Lines { pattern, groups }, columns))
                }
            }
        }
        _ => {
            mistakes.add(
                written.name.span(),
                "the form of the file is not told, or told twice",
                "either [delimited] or [lines] was expected",
            );
            None
        }
    }
}

/// Whether a file's name fits a pattern, in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            name.char_indices()
                .map(|(at, _)| at)
                .chain([name.len()])
                .any(|at| matches(rest, &name[at..]))
        }),
    }
}

#[cfg(test)]
mod tests;
