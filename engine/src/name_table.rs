//! A name table is a file of the config folder with two columns, in which people have the names that devices send.
//!
//! No mistake repeats a name: what tells of mistakes is read by others than the file.

use std::path::Path;
use std::sync::Arc;

use crate::position::Mistake;
use crate::pseudonym::{Pseudonym, Secret};

/// What a file of this kind looks like.
#[derive(Debug)]
pub(crate) struct NameTable {
    /// Its columns.
    pub(crate) columns: [&'static str; 2],
    /// What would be right in each.
    pub(crate) right: [&'static str; 2],
}

/// A row as it was written.
#[derive(Debug)]
pub(crate) struct Row {
    /// The line it stands in, from 1.
    pub(crate) line: usize,
    /// What the columns have, in the order of [`NameTable::columns`].
    pub(crate) values: [String; 2],
}

/// What is wrong with a row that is otherwise as it should be: which column, what, and what would be right.
pub(crate) type Wrong = (usize, String, &'static str);

/// The pseudonym of a name as it was written; one that was written as such is taken as it is.
pub(crate) fn pseudonym(raw: &str, secret: &Secret) -> Arc<str> {
    let read = Pseudonym::read(raw).unwrap_or_else(|| secret.person(raw));
    Arc::clone(read.shared())
}

/// Refuses what was meant to be a pseudonym and is none: as a card of that name it would be nobody.
pub(crate) fn check_name(column: usize, name: &str) -> Result<(), Wrong> {
    match name.starts_with("p_") && Pseudonym::read(name).is_none() {
        true => Err((
            column,
            "what begins with p_ is no pseudonym".to_owned(),
            "p_ and 26 letters a to z and digits 2 to 7, as messages have it, or a name as devices send it would be right",
        )),
        false => Ok(()),
    }
}

/// A file's text with where its lines begin.
struct Lines<'t> {
    file: &'t Path,
    lines: Vec<&'t str>,
}

impl Lines<'_> {
    /// A mistake in that field of that line, both from 0.
    fn mistake(&self, line: usize, field: usize, wrong: String, right: &str) -> Mistake {
        let mut is_quoted = false;
        let mut fields = 0;
        let text = self.lines.get(line).copied().unwrap_or_default();
        let at = text.chars().position(|letter| {
            let is_there = fields == field;
            is_quoted ^= letter == '"';
            fields += usize::from(letter == ',' && !is_quoted);
            is_there
        });
        Mistake {
            file: self.file.to_owned(),
            line: line + 1,
            column: at.unwrap_or_else(|| text.chars().count()) + 1,
            wrong,
            right: right.to_owned(),
        }
    }
}

impl NameTable {
    /// The rows of a file's text, each of which `check` has looked at, in their order.
    ///
    /// # Errors
    /// All mistakes, each with its place.
    pub(crate) fn rows(
        &self,
        file: &Path,
        text: &str,
        mut check: impl FnMut(&Row) -> Result<(), Wrong>,
    ) -> Result<Vec<Row>, Vec<Mistake>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = Lines {
            file,
            lines: text.lines().collect(),
        };
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .has_headers(false)
            .trim(csv::Trim::All)
            .terminator(csv::Terminator::Any(b'\n'))
            .from_reader(text.as_bytes());
        let mut mistakes = Vec::new();
        let mut places: Option<[usize; 2]> = None;
        let mut found: Vec<Row> = Vec::new();
        for record in reader.records() {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    let wrong = format!("the file is no table: {error}");
                    let right = format!("{} would be right", self.columns.join(","));
                    mistakes.push(lines.mistake(0, 0, wrong, &right));
                    break;
                }
            };
            let line = record
                .position()
                .map_or(0, |at| usize::try_from(at.line()).unwrap_or(0))
                .saturating_sub(1);
            if record.len() == 1 && record[0].is_empty() {
                continue;
            }
            let Some(columns) = places else {
                match self.header(&lines, line, &record) {
                    Ok(found) => places = Some(found),
                    Err(mistake) => return Err(vec![mistake]),
                }
                continue;
            };
            let row = self.row(&lines, line, &record, columns).and_then(|row| {
                let told = |(column, wrong, right): Wrong| lines.mistake(line, columns[column], wrong, right);
                check(&row).map(|()| row).map_err(told)
            });
            match row {
                Ok(row) => found.push(row),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if mistakes.is_empty() { Ok(found) } else { Err(mistakes) }
    }

    /// Where the columns stand.
    fn header(&self, lines: &Lines<'_>, line: usize, record: &csv::StringRecord) -> Result<[usize; 2], Mistake> {
        let right = format!("the header {} would be right", self.columns.join(","));
        if let Some(field) = record.iter().position(|name| !self.columns.contains(&name)) {
            return Err(lines.mistake(line, field, "there is no such column".to_owned(), &right));
        }
        let mut places = [0; 2];
        for (place, name) in places.iter_mut().zip(self.columns) {
            let mut named = record.iter().enumerate().filter(|(_, found)| *found == name);
            *place = match (named.next(), named.next()) {
                (Some((at, _)), None) => at,
                (None, _) => return Err(lines.mistake(line, 0, format!("the column {name} is missing"), &right)),
                (_, Some((again, _))) => {
                    return Err(lines.mistake(line, again, format!("the column {name} is there twice"), &right));
                }
            };
        }
        Ok(places)
    }

    fn row(
        &self,
        lines: &Lines<'_>,
        line: usize,
        record: &csv::StringRecord,
        columns: [usize; 2],
    ) -> Result<Row, Mistake> {
        if record.len() != columns.len() {
            let noun = if record.len() == 1 { "value" } else { "values" };
            let wrong = format!("the row has {} {noun}", record.len());
            let right = "one for each of the 2 columns would be right";
            return Err(lines.mistake(line, record.len().min(columns.len()), wrong, right));
        }
        for (which, field) in columns.into_iter().enumerate() {
            if record[field].is_empty() {
                let wrong = format!("`{}` is empty", self.columns[which]);
                let right = format!("{} would be right", self.right[which]);
                return Err(lines.mistake(line, field, wrong, &right));
            }
        }
        Ok(Row {
            line: line + 1,
            values: columns.map(|field| record[field].to_owned()),
        })
    }
}
