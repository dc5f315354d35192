//! Fields are the members of a payload's object, read with the patience real devices need.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::refused::ReasonClass;
use crate::topic::instead;

/// Longest text read, bytes: a person, a tag, an item.
const TEXT_MAX: usize = 1_024;
/// Longest id of an event, bytes.
const ID_MAX: usize = 128;

/// What is wrong with an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) class: ReasonClass,
    pub(super) reason: String,
}

impl Wrong {
    pub(super) fn shape(reason: String) -> Self {
        Self {
            class: ReasonClass::Shape,
            reason,
        }
    }

    pub(super) fn value(reason: String) -> Self {
        Self {
            class: ReasonClass::Value,
            reason,
        }
    }
}

/// The members of an object. A member that is null is as good as missing.
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A whole number, also in quotes and with a fraction of zero.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, Wrong> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = || Wrong::shape(format!("`{name}` is {}: a whole number was expected", short(value)));
        match value {
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Ok(Some(whole)),
                #[allow(clippy::cast_possible_truncation)] // the range is checked
                (None, Some(float)) if float.fract() == 0.0 && float.abs() < 9e15 => Ok(Some(float as i64)),
                _ => Err(wrong()),
            },
            Value::String(text) => text.trim().parse().map(Some).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }

    /// A whole number within a range, which `expected` says in words.
    pub(super) fn within(&self, name: &str, range: RangeInclusive<i64>, expected: &str) -> Result<Option<i64>, Wrong> {
        match self.integer(name)? {
            Some(found) if !range.contains(&found) => {
                Err(Wrong::value(format!("`{name}` is {found}: {expected} was expected")))
            }
            found => Ok(found),
        }
    }

    /// A count: a whole number, 0 or more.
    pub(super) fn count(&self, name: &str) -> Result<Option<u64>, Wrong> {
        let expected = |found: String| {
            Wrong::shape(format!(
                "`{name}` is {found}: a whole number of people, 0 or more, was expected"
            ))
        };
        match self.integer(name) {
            Ok(None) => Ok(None),
            Ok(Some(count)) => u64::try_from(count).map(Some).map_err(|_| expected(count.to_string())),
            Err(_) => Err(expected(self.get(name).map(short).unwrap_or_default())),
        }
    }

    /// A whole number of 32 bits.
    pub(super) fn small_integer(&self, name: &str) -> Result<Option<i32>, Wrong> {
        match self.integer(name)? {
            None => Ok(None),
            Some(whole) => i32::try_from(whole)
                .map(Some)
                .map_err(|_| Wrong::value(format!("`{name}` is {whole}: a smaller number was expected"))),
        }
    }

    /// A number, also in quotes.
    pub(super) fn float(&self, name: &str) -> Result<Option<f64>, Wrong> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let float = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match float.filter(|float| float.is_finite()) {
            Some(float) => Ok(Some(float)),
            None => Err(Wrong::shape(format!(
                "`{name}` is {}: a number was expected",
                short(value)
            ))),
        }
    }

    /// A text, or a number that stands for one; an empty text is as good as missing.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Wrong> {
        let text = match self.get(name) {
            None => return Ok(None),
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(Value::Number(number)) => number.to_string(),
            Some(value) => {
                return Err(Wrong::shape(format!(
                    "`{name}` is {}: a text was expected",
                    short(value)
                )));
            }
        };
        if text.len() > TEXT_MAX {
            return Err(Wrong::value(format!(
                "`{name}` has {} bytes: at most {TEXT_MAX} were expected",
                text.len()
            )));
        }
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// One text or an array of them, those that are empty left out; none where it is missing.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Wrong> {
        let Some(Value::Array(values)) = self.get(name) else {
            return Ok(self.text(name)?.into_iter().collect());
        };
        let mut texts = Vec::with_capacity(values.len());
        for value in values {
            let one = Map::from_iter([(name.to_owned(), value.clone())]);
            texts.extend(Fields(&one).text(name)?);
        }
        Ok(texts)
    }

    pub(super) fn needed_text(&self, name: &str) -> Result<String, Wrong> {
        self.text(name)?
            .ok_or_else(|| Wrong::shape(format!("`{name}` is missing: a text was expected")))
    }

    /// One of several words, whatever its case.
    pub(super) fn one_of<T: Copy>(&self, name: &str, all: &[T], word: fn(T) -> &'static str) -> Result<T, Wrong> {
        let words: Vec<&str> = all.iter().map(|one| word(*one)).collect();
        let found = match self.get(name) {
            None => {
                return Err(Wrong::shape(format!(
                    "`{name}` is missing: one of {} was expected",
                    words.join(", ")
                )));
            }
            Some(Value::String(text)) => text.trim().to_lowercase(),
            Some(value) => {
                let expected = words.join(", ");
                return Err(Wrong::shape(format!(
                    "`{name}` is {}: one of {expected} was expected",
                    short(value)
                )));
            }
        };
        all.iter().copied().find(|one| word(*one) == found).ok_or_else(|| {
            Wrong::value(format!(
                "`{name}` is {}{}",
                short(&Value::from(found.as_str())),
                instead(&found, &words)
            ))
        })
    }

    /// The publisher's id of the event.
    pub(super) fn id(&self) -> Result<Option<String>, Wrong> {
        let id = match self.get("id") {
            Some(Value::String(text)) if text.is_empty() => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            None => return Ok(None),
            Some(value) => {
                return Err(Wrong::shape(format!(
                    "`id` is {}: a text or a number was expected",
                    short(value)
                )));
            }
        };
        if id.len() > ID_MAX {
            return Err(Wrong::value(format!(
                "`id` has {} bytes: at most {ID_MAX} were expected",
                id.len()
            )));
        }
        Ok(Some(id))
    }
}

/// A value as it is shown in a reason: short, and without what an object or array may hold.
pub(super) fn short(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::String(text) if text.chars().count() > 40 => {
            format!("\"{}…\"", text.chars().take(40).collect::<String>())
        }
        plain => plain.to_string(),
    }
}
