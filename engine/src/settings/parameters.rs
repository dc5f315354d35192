//! `[parameters]`: values that staff give to the parameters of statements, without touching the SQL.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::DeValue;
use usher_queries::statement::{Given, ParameterValues, Statement};

use super::layers::{Raw, Refusal};
use crate::position::{Mistake, Mistakes, instead};

/// The heading.
pub(super) const PARAMETERS: &str = "parameters";

/// What the settings say of parameters, each with the place where it is said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ParameterSettings {
    /// The values, as statements take them.
    pub values: ParameterValues,
    /// By statement (empty for all) and name: where the name stands, so that a mistake is told there.
    places: BTreeMap<(String, String), Mistake>,
}

impl ParameterSettings {
    /// Takes what one layer has: `name = value`, or a table of them under the name of a statement.
    pub(super) fn add(&mut self, name: &str, span: &Range<usize>, raw: &Raw<'_>, mistakes: &mut Mistakes<'_>) {
        match raw {
            Raw::Toml(DeValue::Table(table)) => {
                for (key, value) in table {
                    let (parameter, raw) = (key.get_ref().to_string(), Raw::Toml(value.get_ref().clone()));
                    self.put(name, &parameter, &value.span(), &raw, mistakes);
                }
            }
            raw => self.put("", name, span, raw, mistakes),
        }
    }

    fn put(&mut self, of: &str, name: &str, span: &Range<usize>, raw: &Raw<'_>, mistakes: &mut Mistakes<'_>) {
        let given = match given(raw) {
            Ok(given) => given,
            Err((wrong, right)) => {
                mistakes.add(span.clone(), wrong, right);
                return;
            }
        };
        let name = name.to_lowercase();
        let place = mistakes.place(span.clone());
        self.places.insert((of.to_owned(), name.clone()), place);
        let values = match of {
            "" => &mut self.values.general,
            of => self.values.of.entry(of.to_owned()).or_default(),
        };
        values.insert(name, given);
    }

    /// What of them no statement takes: a statement or a parameter that is not there, a value of another type.
    pub fn mistakes(&self, statements: &[Statement]) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let mut add = |of: &str, name: &str, wrong: String, right: String| {
            if let Some(place) = self.places.get(&(of.to_owned(), name.to_owned())) {
                mistakes.push(Mistake {
                    wrong,
                    right,
                    ..place.clone()
                });
            }
        };
        for (of, values) in &self.values.of {
            let statement = statements.iter().find(|statement| statement.name == *of);
            for (name, given) in values {
                let Some(statement) = statement else {
                    let with_parameters = statements.iter().filter(|statement| !statement.parameters.is_empty());
                    let right = instead(of, with_parameters.map(|statement| statement.name.as_str()));
                    add(of, name, format!("no query or alert `{of}` has parameters"), right);
                    break;
                };
                let declared = &statement.parameters;
                match declared.iter().find(|parameter| parameter.name == *name) {
                    None => {
                        let right = instead(name, declared.iter().map(|parameter| parameter.name.as_str()));
                        add(of, name, format!("`{of}` has no parameter `{name}`"), right);
                    }
                    Some(parameter) => {
                        if let Err(right) = parameter.kind.accept(given) {
                            add(of, name, format!("`{given}` is no value of `{name}`"), right);
                        }
                    }
                }
            }
        }
        for (name, given) in &self.values.general {
            let all = || statements.iter().flat_map(|statement| &statement.parameters);
            let mut declared = all().filter(|parameter| parameter.name == *name).peekable();
            if declared.peek().is_none() {
                let mut names: Vec<&str> = all().map(|parameter| parameter.name.as_str()).collect();
                names.sort_unstable();
                names.dedup();
                add(
                    "",
                    name,
                    format!("no query or alert has a parameter `{name}`"),
                    instead(name, names),
                );
                continue;
            }
            // Where a statement has a value of its own, this one is not its.
            if let Some(right) = declared.find_map(|parameter| parameter.kind.accept(given).err()) {
                add("", name, format!("`{given}` is no value of `{name}`"), right);
            }
        }
        mistakes.sort_by_key(|mistake| (mistake.file.clone(), mistake.line, mistake.column));
        mistakes
    }
}

fn given(raw: &Raw<'_>) -> Result<Given, Refusal> {
    let right =
        || "a number, a text in quotes, a duration such as \"10 minutes\", true or false would be right".to_owned();
    let Raw::Toml(value) = raw else {
        return Err((format!("{} stands where no value can", raw.shown()), right()));
    };
    let given = match value {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(Given::Integer),
        DeValue::Float(number) => {
            let number = number.as_str().parse::<f64>().ok();
            number.filter(|number| number.is_finite()).map(Given::Number)
        }
        DeValue::String(text) => Some(Given::Text(text.to_string())),
        DeValue::Boolean(word) => Some(Given::Boolean(*word)),
        _ => None,
    };
    given.ok_or_else(|| (format!("{} is no value of a parameter", raw.shown()), right()))
}
