//! The reference table is the file `identities.csv` of the config folder: who is known by which other names.
//!
//! Its names are those that devices send, so they become pseudonyms as soon as they are read, and no mistake repeats them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::position::{Mistake, read_file};
use crate::pseudonym::{Pseudonym, Secret};

/// The file's name.
pub const IDENTITIES: &str = "identities.csv";
/// Its columns.
const COLUMNS: [&str; 2] = ["person", "also"];

/// The table, in pseudonyms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentityTable(pub(super) Vec<(Arc<str>, Arc<str>)>);

impl IdentityTable {
    /// Reads the table of a config folder; a folder without one has an empty table.
    ///
    /// # Errors
    /// All mistakes, each with its place.
    pub fn load(dir: &Path, secret: &Secret) -> Result<Self, Vec<Mistake>> {
        let file = dir.join(IDENTITIES);
        match read_file(&file).map_err(|mistake| vec![mistake])? {
            None => Ok(Self::default()),
            Some(text) => Self::read(&file, &text, secret),
        }
    }

    fn read(file: &Path, text: &str, secret: &Secret) -> Result<Self, Vec<Mistake>> {
        let name = |raw: &str| {
            let read = Pseudonym::read(raw).unwrap_or_else(|| secret.person(raw));
            Arc::clone(read.shared())
        };
        let rows = rows(file, text)?;
        Ok(Self(
            rows.iter().map(|row| (name(&row.person), name(&row.also))).collect(),
        ))
    }

    /// `person` and `also` of each row.
    pub fn links(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.0
    }
}

/// The mistakes in the table of a config folder.
pub fn check_table(dir: &Path) -> Vec<Mistake> {
    let file = dir.join(IDENTITIES);
    let read = read_file(&file).map_err(|mistake| vec![mistake]);
    let checked = read.and_then(|text| text.map_or(Ok(()), |text| rows(&file, &text).map(drop)));
    checked.err().unwrap_or_default()
}

/// A row as it was written.
struct RawRow {
    person: String,
    also: String,
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

fn rows(file: &Path, text: &str) -> Result<Vec<RawRow>, Vec<Mistake>> {
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
    let mut found: Vec<RawRow> = Vec::new();
    // Whose name each is, and in which line that was said.
    let mut whose: HashMap<String, (String, usize)> = HashMap::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                mistakes.push(lines.mistake(
                    0,
                    0,
                    format!("the file is no table: {error}"),
                    "person,also would be right",
                ));
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
        let Some([person, also]) = places else {
            match header(&lines, line, &record) {
                Ok(found) => places = Some(found),
                Err(mistake) => return Err(vec![mistake]),
            }
            continue;
        };
        match row(&lines, line, &record, [person, also], &mut whose) {
            Ok(row) => found.push(row),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if mistakes.is_empty() { Ok(found) } else { Err(mistakes) }
}

/// Where the columns stand.
fn header(lines: &Lines<'_>, line: usize, record: &csv::StringRecord) -> Result<[usize; 2], Mistake> {
    const RIGHT: &str = "the header person,also would be right";
    if let Some(field) = record.iter().position(|name| !COLUMNS.contains(&name)) {
        return Err(lines.mistake(line, field, "there is no such column".to_owned(), RIGHT));
    }
    let mut places = [0; COLUMNS.len()];
    for (place, name) in places.iter_mut().zip(COLUMNS) {
        let mut named = record.iter().enumerate().filter(|(_, found)| *found == name);
        *place = match (named.next(), named.next()) {
            (Some((at, _)), None) => at,
            (None, _) => return Err(lines.mistake(line, 0, format!("the column {name} is missing"), RIGHT)),
            (_, Some((again, _))) => {
                return Err(lines.mistake(line, again, format!("the column {name} is there twice"), RIGHT));
            }
        };
    }
    Ok(places)
}

fn row(
    lines: &Lines<'_>,
    line: usize,
    record: &csv::StringRecord,
    [person, also]: [usize; 2],
    whose: &mut HashMap<String, (String, usize)>,
) -> Result<RawRow, Mistake> {
    if record.len() != COLUMNS.len() {
        let wrong = format!("the row has {} values", record.len());
        return Err(lines.mistake(
            line,
            record.len().min(COLUMNS.len()),
            wrong,
            "one for each of the 2 columns would be right",
        ));
    }
    for (field, name) in [(person, COLUMNS[0]), (also, COLUMNS[1])] {
        if record[field].is_empty() {
            let wrong = format!("`{name}` is empty");
            return Err(lines.mistake(
                line,
                field,
                wrong,
                "a card, a tag or a login as devices send it would be right",
            ));
        }
    }
    let row = RawRow {
        person: record[person].to_owned(),
        also: record[also].to_owned(),
    };
    if row.person == row.also {
        let wrong = "`also` is the same as `person`".to_owned();
        return Err(lines.mistake(line, also, wrong, "another name of the same person would be right"));
    }
    if let Some((_, said)) = whose.get(&row.also).filter(|(other, _)| *other != row.person) {
        let wrong = format!("this name is another person's by line {}", said + 1);
        let right = "a name in one row only, or both rows with the same `person`, would be right";
        return Err(lines.mistake(line, also, wrong, right));
    }
    whose.insert(row.also.clone(), (row.person.clone(), line));
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<IdentityTable, Vec<String>> {
        let secret = Secret::from_bytes([3; 32]);
        let table = IdentityTable::read(Path::new("identities.csv"), text, &secret);
        table.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_become_pseudonyms_as_devices_names_do() {
        let secret = Secret::from_bytes([3; 32]);
        let name = |raw: &str| Arc::clone(secret.person(raw).shared());
        let written = format!(
            "\u{feff}also, person\r\ntag-7,card-1\r\n\r\n{},\"card-1\"\r\n",
            name("web-ada")
        );
        let expected = vec![(name("card-1"), name("tag-7")), (name("card-1"), name("web-ada"))];
        assert_eq!(read(&written), Ok(IdentityTable(expected)));
        assert_eq!(read(""), Ok(IdentityTable::default()));
    }

    #[test]
    fn each_mistake_has_its_place_and_names_nobody() {
        let header = "the header person,also would be right";
        for (text, expected) in [
            ("person,tag\na,b\n", format!("1:8: there is no such column, {header}")),
            ("person\na\n", format!("1:1: the column also is missing, {header}")),
            ("person,also,also\n", format!("1:13: the column also is there twice, {header}")),
            (
                "person,also\nAda,ada\nBen\n",
                "3:4: the row has 1 values, one for each of the 2 columns would be right".to_owned(),
            ),
            (
                "person,also\n\"A, B\", \n",
                "2:8: `also` is empty, a card, a tag or a login as devices send it would be right".to_owned(),
            ),
            (
                "person,also\nAda,Ada\n",
                "2:5: `also` is the same as `person`, another name of the same person would be right".to_owned(),
            ),
            (
                "person,also\nAda,tag\nAda,tag\nBen,tag\n",
                "4:5: this name is another person's by line 3, a name in one row only, or both rows with the same `person`, \
                 would be right"
                    .to_owned(),
            ),
        ] {
            assert_eq!(read(text), Err(vec![format!("identities.csv:{expected}")]), "{text}");
        }
    }
}
