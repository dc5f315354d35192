//! Groups are who belongs together: the file `groups.csv` of the config folder, and the reference table `memberships` that
//! queries join; docs/IDENTITY.md.
//!
//! The file says it of names. The table says it of persons, who may have several, so it changes when names turn out to be one
//! person's, or not.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use crate::erasure::Who;
use crate::identity::{Aliases, Regrouping};
use crate::name_table::{NameTable, Row, check_name, pseudonym};
use crate::position::{Mistake, read_file};
use crate::pseudonym::Secret;

/// The file's name.
const GROUPS: &str = "groups.csv";
/// What it looks like.
const TABLE: NameTable = NameTable {
    columns: ["person", "group"],
    right: [
        "a card, a tag or a login as devices send it",
        "the id of a course or another group",
    ],
};
/// The name of the reference table.
pub const MEMBERSHIPS: &str = "memberships";

/// Which names are in which groups. A name may be in several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    /// Name and group of each row.
    of_names: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Whether names that are in groups have become other persons' since [`Groups::is_stale`] was asked last.
    is_stale: bool,
}

impl Groups {
    /// Reads the file of a config folder, whose names become pseudonyms; a folder without one has no groups.
    ///
    /// # Errors
    /// All mistakes, each with its place.
    pub fn load(dir: &Path, secret: &Secret) -> Result<Self, Vec<Mistake>> {
        let file = dir.join(GROUPS);
        match read_file(&file).map_err(|mistake| vec![mistake])? {
            None => Ok(Self::default()),
            Some(text) => Self::read(&file, &text, secret),
        }
    }

    fn read(file: &Path, text: &str, secret: &Secret) -> Result<Self, Vec<Mistake>> {
        let rows = rows(file, text)?.into_iter();
        let member = |Row {
                          values: [name, group], ..
                      }| (pseudonym(&name, secret), Arc::from(group));
        Ok(Self {
            of_names: rows.map(member).collect(),
            is_stale: false,
        })
    }

    /// The rows of `memberships`: `person`, as queries see persons by these names, and `group_id`. Who is in a group under several
    /// names is in it once.
    pub fn memberships(&self, aliases: &Aliases) -> RecordBatch {
        let of_persons: BTreeSet<(&str, &str)> = self
            .of_names
            .iter()
            .map(|(name, group)| (aliases.resolve(name), group.as_ref()))
            .collect();
        let text = |name| Field::new(name, DataType::Utf8, false);
        let persons = of_persons.iter().map(|(person, _)| *person);
        let groups = of_persons.iter().map(|(_, group)| *group);
        RecordBatch::try_new(
            Arc::new(Schema::new(vec![text("person"), text("group_id")])),
            vec![
                Arc::new(StringArray::from_iter_values(persons)),
                Arc::new(StringArray::from_iter_values(groups)),
            ],
        )
        .expect("each row has both")
    }

    /// The groups that a person is in under any of these names, in their order.
    pub fn of(&self, names: &[Arc<str>]) -> Vec<String> {
        let theirs = self.of_names.iter().filter(|(name, _)| names.contains(name));
        let groups: BTreeSet<&str> = theirs.map(|(_, group)| group.as_ref()).collect();
        groups.into_iter().map(str::to_owned).collect()
    }

    /// Names are other persons' from now on.
    pub fn regroup(&mut self, regrouping: &Regrouping) {
        let mut names = regrouping.before.iter().flat_map(|group| &group.names);
        self.is_stale |= names.any(|name| self.has(name));
    }

    /// Whether other persons are in groups than when this was asked last.
    pub fn is_stale(&mut self) -> bool {
        std::mem::take(&mut self.is_stale)
    }

    fn has(&self, name: &Arc<str>) -> bool {
        let from = (Arc::clone(name), Arc::from(""));
        self.of_names
            .range(from..)
            .next()
            .is_some_and(|(first, _)| first == name)
    }

    /// Forgets whoever is to be erased, until the file says it again.
    pub fn erase(&mut self, who: &Who) {
        self.of_names.retain(|(name, _)| !who.is(name));
    }
}

/// The mistakes in the file of a config folder.
pub fn check_groups(dir: &Path) -> Vec<Mistake> {
    let file = dir.join(GROUPS);
    let read = read_file(&file).map_err(|mistake| vec![mistake]);
    let checked = read.and_then(|text| text.map_or(Ok(()), |text| rows(&file, &text).map(drop)));
    checked.err().unwrap_or_default()
}

/// Name and group of each row, as they were written.
fn rows(file: &Path, text: &str) -> Result<Vec<Row>, Vec<Mistake>> {
    TABLE.rows(file, text, |row| check_name(0, &row.values[0]))
}
