//! A position is where something was written; a mistake is what is wrong there and what would be right.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// How alike a name has to be (0 to 1) before it is offered instead of the list of all names.
const ALIKE: f64 = 0.55;

/// Above this a list of all names tells nobody anything.
const NAMES_MAX: usize = 16;

/// Something in the configuration that cannot mean anything, and what would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}:{column}: {wrong}, {right}", file.display())]
pub struct Mistake {
    /// The file; `$NAME` for an environment variable, `--name` for a flag.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub right: String,
}

/// Collects the mistakes of one written text, each with its position.
#[derive(Debug)]
pub(crate) struct Mistakes<'t> {
    file: PathBuf,
    text: &'t str,
    found: Vec<Mistake>,
}

impl<'t> Mistakes<'t> {
    pub(crate) fn of(file: impl Into<PathBuf>, text: &'t str) -> Self {
        Self {
            file: file.into(),
            text,
            found: Vec::new(),
        }
    }

    /// The text as a TOML table; empty when it is none, which is then a mistake already noted.
    pub(crate) fn toml(&mut self) -> DeTable<'t> {
        let (tree, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let span = error.span().unwrap_or_default();
            let (span, wrong, right) = in_words(error.message(), self.text, span);
            self.add(span, wrong, right);
        }
        // What a broken file seems to say is no ground for further complaints.
        if errors.is_empty() {
            tree.into_inner()
        } else {
            DeTable::new()
        }
    }

    /// The file that it stands in.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    pub(crate) fn add(&mut self, span: Range<usize>, wrong: impl fmt::Display, right: impl fmt::Display) {
        let place = self.place(span);
        self.found.push(Mistake {
            wrong: wrong.to_string(),
            right: right.to_string(),
            ..place
        });
    }

    /// The place of a mistake that is not known yet, without words.
    pub(crate) fn place(&self, span: Range<usize>) -> Mistake {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before[line_start..].trim_start_matches('\u{feff}');
        Mistake {
            file: self.file.clone(),
            line: before.matches('\n').count() + 1,
            column: column.chars().count() + 1,
            wrong: String::new(),
            right: String::new(),
        }
    }

    /// Says that `name` is none of `known`, naming the nearest that is.
    pub(crate) fn unknown<'n>(
        &mut self,
        span: Range<usize>,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'n str>,
    ) {
        self.add(span, format!("there is no {what} `{name}`"), instead(name, known));
    }

    /// The line, from 1, so that one mistake can point at another place.
    pub(crate) fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        before.matches('\n').count() + 1
    }

    /// All of them, in the order of the text.
    pub(crate) fn into_sorted(mut self) -> Vec<Mistake> {
        self.found.sort_by_key(|mistake| (mistake.line, mistake.column));
        self.found
    }
}

/// One table of a file, whose members are taken out one by one.
pub(crate) struct Fields<'a, 't> {
    /// What it is, as a person writes it: `[[zone]]`.
    what: &'static str,
    table: &'a DeTable<'t>,
    span: Range<usize>,
}

impl<'a, 't> Fields<'a, 't> {
    /// Every member that is not among `known` is a mistake.
    pub(crate) fn of(
        what: &'static str,
        table: &'a DeTable<'t>,
        span: Range<usize>,
        known: &[&str],
        mistakes: &mut Mistakes<'_>,
    ) -> Self {
        for (key, _) in table {
            if !known.contains(&key.get_ref().as_ref()) {
                let wrong = format!("{what} has no `{}`", key.get_ref());
                let right = instead(key.get_ref(), known.iter().copied());
                mistakes.add(key.span(), wrong, right);
            }
        }
        Self { what, table, span }
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    /// A text that may be left out.
    pub(crate) fn text(&self, key: &str, mistakes: &mut Mistakes<'_>) -> Option<Spanned<&'a str>> {
        let value = self.value(key)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            let wrong = format!("`{key}` is {}", kind(value.get_ref()));
            mistakes.add(value.span(), wrong, "a text in quotes would be right");
        }
        Some(Spanned::new(value.span(), text?))
    }

    /// A text that must be there; `example` says how it could look.
    pub(crate) fn needed(&self, key: &str, example: &str, mistakes: &mut Mistakes<'_>) -> Option<Spanned<&'a str>> {
        if self.value(key).is_none() {
            let wrong = format!("this {} has no `{key}`", self.what);
            let right = format!("a line such as `{key} = \"{example}\"` would be right");
            mistakes.add(self.span.clone(), wrong, right);
        }
        self.text(key, mistakes)
    }
}

/// Reads a file; `None` when there is none. Fails with a mistake when it is there and cannot be read.
pub(crate) fn read_file(file: &Path) -> Result<Option<String>, Mistake> {
    let (wrong, right) = match std::fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => (
            format!("the file cannot be read: {error}"),
            "a file this user may read would be right",
        ),
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => return Ok(Some(text)),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let bytes = error.into_bytes();
                let before = String::from_utf8_lossy(&bytes[..good]);
                let mut mistakes = Mistakes::of(file, &before);
                let (wrong, right) = ("this is not UTF-8", "save the file as UTF-8");
                mistakes.add(good..good, wrong, right);
                return Err(mistakes.found.remove(0));
            }
        },
    };
    let mut mistakes = Mistakes::of(file, "");
    mistakes.add(0..0, wrong, right);
    Err(mistakes.found.remove(0))
}

/// What could have been meant by a name that is not among `known`.
pub(crate) fn instead<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(name, known.iter().copied()) {
        Some(other) => format!("did you mean `{other}`?"),
        None if known.is_empty() => "there is none here".to_owned(),
        None if known.len() > NAMES_MAX => format!("none of the {} is like it", known.len()),
        None => format!("there is `{}`", known.join("`, `")),
    }
}

/// The name most like this one, if any is alike at all.
pub(crate) fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|other| {
            let alike = strsim::normalized_damerau_levenshtein(&lower, &other.to_lowercase());
            (alike, other)
        })
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other)
}

/// What kind of value it is, for people.
pub(crate) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The parser's "unclosed table, expected `]`", in two parts that fit a mistake.
fn in_words(message: &str, text: &str, span: Range<usize>) -> (Range<usize>, String, String) {
    let (wrong, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let no_value = ["string values must be quoted", "invalid float", "invalid datetime"];
    if no_value.contains(&wrong) {
        // The parser gives up in the middle of 127.0.0.1:1883; people look at where the value begins.
        let ends = [' ', '\t', '=', ',', '[', '{', '\n'];
        let start = match text.get(..span.start) {
            Some(before) => before.rfind(ends).map_or(0, |at| at + 1),
            None => span.start,
        };
        let value = text.get(start..span.end).unwrap_or_default();
        let (wrong, right) = if value.is_empty() {
            let right = "a number or a text in quotes would be right";
            ("there is no value".to_owned(), right.to_owned())
        } else {
            let right = format!("a text goes in quotes: \"{value}\"");
            (format!("`{value}` is no value"), right)
        };
        return (start..span.end, wrong, right);
    }
    let (wrong, right) = match (wrong, expected) {
        ("duplicate key", _) => {
            let key = text.get(span.clone()).unwrap_or_default();
            (format!("`{key}` is written twice"), "once would be right".to_owned())
        }
        (wrong, "nothing") => (wrong.to_owned(), "it has no place here".to_owned()),
        (wrong, "") => (wrong.to_owned(), "valid TOML would be right".to_owned()),
        (wrong, expected) => (wrong.to_owned(), format!("{expected} would be right")),
    };
    (span, wrong, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<String> {
        let mut mistakes = Mistakes::of("site.toml", text);
        mistakes.toml();
        mistakes.into_sorted().iter().map(Mistake::to_string).collect()
    }

    #[test]
    fn a_mistake_reads_file_line_column_wrong_right() {
        let mut mistakes = Mistakes::of("config/site.toml", "a = 1\n总馆 = 2\n");
        mistakes.add(13..14, "`总馆` is two", "one would be right");
        assert_eq!(
            mistakes.into_sorted()[0].to_string(),
            "config/site.toml:2:4: `总馆` is two, one would be right",
            "columns count characters, not bytes"
        );
    }

    #[test]
    fn every_error_of_the_toml_is_said_in_words() {
        assert_eq!(
            said("a = 12h\nb = \n[[zone\n"),
            [
                "site.toml:1:5: `12h` is no value, a text goes in quotes: \"12h\"",
                "site.toml:2:5: there is no value, a number or a text in quotes would be right",
                "site.toml:3:7: unclosed array table, `]]` would be right",
            ]
        );
        assert_eq!(
            said("a = [30d, 25.12.2026]\nb = 08:00-22:30\nc = 2026-13-45\n"),
            [
                "site.toml:1:6: `30d` is no value, a text goes in quotes: \"30d\"",
                "site.toml:1:11: `25.12.2026` is no value, a text goes in quotes: \"25.12.2026\"",
                "site.toml:2:5: `08:00-22:30` is no value, a text goes in quotes: \"08:00-22:30\"",
                "site.toml:3:5: invalid date, month between 01 and 12 would be right",
            ]
        );
        assert_eq!(
            said("\u{feff}a = 1\r\na = 2\r\n"),
            ["site.toml:2:1: `a` is written twice, once would be right"]
        );
        assert_eq!(
            said("\u{feff}a = = 2\n"),
            [
                "site.toml:1:5: extra `=`, it has no place here",
                "site.toml:1:7: unexpected key or value, newline, `#` would be right",
            ],
            "a byte order mark takes no column"
        );
    }

    #[test]
    fn a_near_name_is_offered_and_far_ones_are_listed() {
        let known = ["capacity", "parent", "role"];
        assert_eq!(instead("capcity", known), "did you mean `capacity`?");
        assert_eq!(instead("PARENT", known), "did you mean `parent`?");
        assert_eq!(instead("x", known), "there is `capacity`, `parent`, `role`");
        assert_eq!(instead("x", []), "there is none here");
    }

    #[test]
    fn a_missing_file_is_none_and_an_unreadable_one_is_a_mistake() -> Result<(), io::Error> {
        let dir = tempfile::tempdir()?;
        assert_eq!(read_file(&dir.path().join("none.toml")), Ok(None));
        let file = dir.path().join("latin.toml");
        std::fs::write(&file, b"a = 1\nb = \"\xe9\"\n")?;
        let mistake = read_file(&file).expect_err("it is not UTF-8");
        assert_eq!((mistake.line, mistake.column), (2, 6));
        assert_eq!(mistake.wrong, "this is not UTF-8");
        assert!(read_file(dir.path()).is_err(), "a folder is no file");
        Ok(())
    }
}
