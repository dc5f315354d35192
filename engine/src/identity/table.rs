//! The reference table is the file `identities.csv` of the config folder: who is known by which other names.
//!
//! Its names are those that devices send, so they become pseudonyms as soon as they are read, and no mistake repeats them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::name_table::{NameTable, Row, check_name, pseudonym};
use crate::position::{Mistake, read_file};
use crate::pseudonym::Secret;

/// The file's name.
pub const IDENTITIES: &str = "identities.csv";
/// What it looks like.
const TABLE: NameTable = NameTable {
    columns: ["person", "also"],
    right: ["a card, a tag or a login as devices send it"; 2],
};

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
        let rows = rows(file, text)?;
        let two = |row: &Row| (pseudonym(&row.values[0], secret), pseudonym(&row.values[1], secret));
        Ok(Self(rows.iter().map(two).collect()))
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

/// `person` and `also` of each row, as they were written.
fn rows(file: &Path, text: &str) -> Result<Vec<Row>, Vec<Mistake>> {
    // Whose name each is, and in which line that was said.
    let mut whose: HashMap<String, (String, usize)> = HashMap::new();
    TABLE.rows(file, text, |row| {
        let [person, also] = &row.values;
        check_name(0, person)?;
        check_name(1, also)?;
        if person == also {
            let wrong = "`also` is the same as `person`".to_owned();
            return Err((1, wrong, "another name of the same person would be right"));
        }
        if let Some((_, said)) = whose.get(also).filter(|(other, _)| other != person) {
            let wrong = format!("this name is another person's by line {said}");
            let right = "a name in one row only, or both rows with the same `person`, would be right";
            return Err((1, wrong, right));
        }
        whose.insert(also.clone(), (person.clone(), row.line));
        Ok(())
    })
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
                "3:4: the row has 1 value, one for each of the 2 columns would be right".to_owned(),
            ),
            (
                "person,also\n\"A, B\", \n",
                "2:8: `also` is empty, a card, a tag or a login as devices send it would be right".to_owned(),
            ),
            (
                "person,also\nAda,p_SECRET\n",
                "2:5: what begins with p_ is no pseudonym, p_ and 26 letters a to z and digits 2 to 7, as messages have it, or \
                 a name as devices send it would be right"
                    .to_owned(),
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
