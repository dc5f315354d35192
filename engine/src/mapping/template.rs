//! A template is a text with places for values of a row: `usher/in/lib/{room|names}/gate/{stem}`.

use std::collections::BTreeMap;

use toml::Spanned;

use crate::mapping::Names;
use crate::position::Mistakes;

/// A row of a recording, cut into the columns of its mapping.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// The file's name without folder and `.gz`.
    pub(crate) file: String,
    /// The file's name without its extension.
    pub(crate) stem: String,
    /// Counted from 1, without the header.
    pub(crate) number: u64,
    pub(crate) values: Vec<String>,
}

/// Something every row has a text for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Field {
    Column(usize),
    File,
    Stem,
    Number,
}

impl Field {
    pub(crate) fn compile(written: &Spanned<String>, names: &Names<'_>, mistakes: &mut Mistakes<'_>) -> Option<Field> {
        let field = match written.as_ref().as_str() {
            "file" => Some(Field::File),
            "stem" => Some(Field::Stem),
            "row" => Some(Field::Number),
            name => names
                .columns
                .iter()
                .position(|column| column == name)
                .map(Field::Column),
        };
        if field.is_none() {
            let known = names.columns.iter().map(String::as_str).chain(["file", "stem", "row"]);
            mistakes.unknown(written.span(), "column", written.as_ref(), known);
        }
        field
    }

    pub(crate) fn of(self, row: &Row) -> std::borrow::Cow<'_, str> {
        match self {
            Field::Column(place) => row.values[place].as_str().into(),
            Field::File => row.file.as_str().into(),
            Field::Stem => row.stem.as_str().into(),
            Field::Number => row.number.to_string().into(),
        }
    }
}

/// A lookup by its name, checked.
pub(crate) fn lookup(
    written: &Spanned<String>,
    names: &Names<'_>,
    mistakes: &mut Mistakes<'_>,
) -> Option<BTreeMap<String, String>> {
    let found = names.lookups.iter().find(|(name, _)| name == written.as_ref());
    if found.is_none() {
        let known = names.lookups.iter().map(|(name, _)| name.as_str());
        mistakes.unknown(written.span(), "lookup", written.as_ref(), known);
    }
    found.map(|(_, table)| table.clone())
}

#[derive(Debug)]
enum Part {
    Text(String),
    Value {
        field: Field,
        name: String,
        lookup: Option<BTreeMap<String, String>>,
    },
}

/// A text with places for values of a row.
#[derive(Debug)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

impl Template {
    pub(crate) fn compile(
        written: &Spanned<String>,
        names: &Names<'_>,
        mistakes: &mut Mistakes<'_>,
    ) -> Option<Template> {
        let mut parts = Vec::new();
        let mut rest = written.as_ref().as_str();
        while let Some((text, after)) = rest.split_once('{') {
            let Some((place, after)) = after.split_once('}') else {
                mistakes.add(
                    written.span(),
                    "a `{` is never closed",
                    "a name and a `}` were expected after it",
                );
                return None;
            };
            parts.push(Part::Text(text.to_owned()));
            let (name, table) = place
                .split_once('|')
                .map_or((place, None), |(name, table)| (name, Some(table)));
            let name = Spanned::new(written.span(), name.to_owned());
            let lookup = match table {
                Some(table) => Some(lookup(
                    &Spanned::new(written.span(), table.to_owned()),
                    names,
                    mistakes,
                )?),
                None => None,
            };
            parts.push(Part::Value {
                field: Field::compile(&name, names, mistakes)?,
                name: name.into_inner(),
                lookup,
            });
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Some(Template { parts })
    }

    /// The text for a row. The error says which value does not fit: one that is empty, that its lookup does not hold,
    /// or that would change the levels of a topic.
    pub(crate) fn fill(&self, row: &Row) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Value { field, name, lookup } => {
                    let value = field.of(row);
                    let value = match lookup {
                        None => value.as_ref(),
                        Some(table) => table
                            .get(value.as_ref())
                            .ok_or_else(|| format!("{name} is {:?}: the lookup has no such entry", value.as_ref()))?,
                    };
                    if value.is_empty() || value.contains(['/', '+', '#', '\0']) {
                        return Err(format!("{name} is {value:?}: a name without /, + and # was expected"));
                    }
                    text.push_str(value);
                }
            }
        }
        Ok(text)
    }
}
