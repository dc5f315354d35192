//! An emit makes one message of a row: its topic and its payload.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::mapping::Names;
use crate::mapping::template::{Field, Row, Template, lookup};
use crate::mapping::time::RowTime;
use crate::mapping::written::{EmitWritten, Otherwise, ValueKind, ValueWritten, WhenWritten};
use crate::position::Mistakes;

/// One message for each row that fits.
#[derive(Debug)]
pub(crate) struct Emit {
    when: Vec<Condition>,
    topic: Template,
    members: Vec<(String, Member)>,
    difference: Option<Difference>,
}

#[derive(Debug)]
struct Condition {
    field: Field,
    one_of: Vec<String>,
    wanted: bool,
}

#[derive(Debug)]
enum Member {
    Constant(Value),
    Value {
        field: Field,
        name: String,
        kind: ValueKind,
        lookup: Option<BTreeMap<String, String>>,
        otherwise: Otherwise,
        omit: Vec<String>,
    },
}

/// A level turned into its changes.
#[derive(Debug)]
struct Difference {
    field: Field,
    name: String,
    rise: String,
    fall: String,
}

impl Emit {
    pub(crate) fn compile(written: EmitWritten, names: &Names<'_>, mistakes: &mut Mistakes<'_>) -> Option<Emit> {
        let topic = written.topic.as_ref();
        let levels = topic.split('/').count();
        let mut whole = true;
        if topic.contains(['+', '#']) {
            mistakes.add(
                written.topic.span(),
                "the topic holds a wildcard",
                "levels are names and not `+` or `#`",
            );
            whole = false;
        } else if levels != 6 || !topic.starts_with("usher/in/") {
            let wrong = if levels == 6 {
                "the topic is not under usher/in".to_owned()
            } else {
                format!("the topic has {levels} levels")
            };
            mistakes.add(
                written.topic.span(),
                wrong,
                "usher/in/{site}/{zone}/{kind}/{device} was expected",
            );
            whole = false;
        }
        let when = written
            .when
            .into_iter()
            .filter_map(|when| Condition::compile(when, names, mistakes))
            .collect();
        let members: Vec<(String, Member)> = written
            .payload
            .into_iter()
            .filter_map(|(name, value)| {
                if ["ts", "id", "time_invented"].contains(&name.as_ref().as_str()) {
                    let wrong = format!("`{}` is set by [time] and `id`", name.as_ref());
                    mistakes.add(name.span(), wrong, "leave it out here");
                }
                let span = value.span();
                Some((
                    name.into_inner(),
                    Member::compile(value.into_inner(), span, names, mistakes)?,
                ))
            })
            .collect();
        let topic = Template::compile(&written.topic, names, mistakes);
        let difference = match written.difference {
            None => None,
            Some(difference) => Some(Difference {
                field: Field::compile(&difference.column, names, mistakes)?,
                name: difference.column.into_inner(),
                rise: difference.rise,
                fall: difference.fall,
            }),
        };
        (whole).then_some(())?;
        Some(Emit {
            when,
            topic: topic?,
            members,
            difference,
        })
    }

    /// The message for a row, or none where the row does not fit or its level did not change. `level` is the level
    /// before this row, 0 at first, and takes the row's. The error says which value does not fit.
    pub(crate) fn message(
        &self,
        row: &Row,
        time: &RowTime,
        id: Option<&str>,
        level: &mut i64,
    ) -> Result<Option<(String, Vec<u8>)>, String> {
        if !self.when.iter().all(|condition| condition.holds(row)) {
            return Ok(None);
        }
        let mut payload = Map::new();
        if let Some(difference) = &self.difference {
            let now = whole_number(&difference.name, &difference.field.of(row))?;
            let change = now
                .checked_sub(*level)
                .filter(|change| *change != i64::MIN)
                .ok_or_else(|| format!("{} is {now}: too far from the row before", difference.name))?;
            if change == 0 {
                return Ok(None);
            }
            *level = now;
            payload.insert(difference.rise.clone(), change.max(0).into());
            payload.insert(difference.fall.clone(), (-change).max(0).into());
        }
        for (name, member) in &self.members {
            if let Some(value) = member.value(row)? {
                payload.insert(name.clone(), value);
            }
        }
        payload.insert("ts".to_owned(), time.text.as_str().into());
        if time.invented {
            payload.insert("time_invented".to_owned(), true.into());
        }
        if let Some(id) = id {
            payload.insert("id".to_owned(), id.into());
        }
        let payload = serde_json::to_vec(&payload).expect("a map of plain values is always JSON");
        Ok(Some((self.topic.fill(row)?, payload)))
    }
}

impl Condition {
    fn compile(written: WhenWritten, names: &Names<'_>, mistakes: &mut Mistakes<'_>) -> Option<Condition> {
        let field = Field::compile(&written.column, names, mistakes)?;
        let (one_of, wanted) = match (written.is, written.is_not, written.is_in) {
            (Some(text), None, None) => (vec![text], true),
            (None, Some(text), None) => (vec![text], false),
            (None, None, Some(texts)) => (texts, true),
            _ => {
                let right = r#"one of is = "…", not = "…" and in = ["…"] was expected"#;
                mistakes.add(
                    written.column.span(),
                    "the condition compares with nothing, or twice",
                    right,
                );
                return None;
            }
        };
        Some(Condition { field, one_of, wanted })
    }

    fn holds(&self, row: &Row) -> bool {
        let value = self.field.of(row);
        self.one_of.iter().any(|text| *text == value) == self.wanted
    }
}

impl Member {
    fn compile(
        written: ValueWritten,
        span: std::ops::Range<usize>,
        names: &Names<'_>,
        mistakes: &mut Mistakes<'_>,
    ) -> Option<Member> {
        match (written.column, written.constant) {
            (None, Some(constant)) => Some(Member::Constant(match constant {
                toml::Value::String(text) => text.into(),
                toml::Value::Integer(number) => number.into(),
                toml::Value::Float(number) => number.into(),
                toml::Value::Boolean(truth) => truth.into(),
                _ => {
                    mistakes.add(
                        span,
                        "the constant is not a plain value",
                        "a text, a number or true or false was expected",
                    );
                    return None;
                }
            })),
            (Some(column), None) => {
                let lookup = match &written.lookup {
                    None => None,
                    Some(written) => Some(lookup(written, names, mistakes)?),
                };
                Some(Member::Value {
                    field: Field::compile(&column, names, mistakes)?,
                    name: column.into_inner(),
                    kind: written.kind,
                    lookup,
                    otherwise: written.otherwise,
                    omit: written.omit,
                })
            }
            _ => {
                mistakes.add(
                    span,
                    "the member comes from nowhere, or from two places",
                    "either `column` or `const` was expected",
                );
                None
            }
        }
    }

    fn value(&self, row: &Row) -> Result<Option<Value>, String> {
        let (field, name, kind, lookup, otherwise, omit) = match self {
            Member::Constant(value) => return Ok(Some(value.clone())),
            Member::Value {
                field,
                name,
                kind,
                lookup,
                otherwise,
                omit,
            } => (field, name, kind, lookup, otherwise, omit),
        };
        let raw = field.of(row);
        if omit.iter().any(|text| *text == raw) {
            return Ok(None);
        }
        let text = match lookup.as_ref().map(|table| table.get(raw.as_ref())) {
            None => raw.as_ref(),
            Some(Some(renamed)) => renamed.as_str(),
            Some(None) => match otherwise {
                Otherwise::Keep => raw.as_ref(),
                Otherwise::Omit => return Ok(None),
                Otherwise::Refuse => {
                    return Err(format!("{name} is {raw:?}: the lookup has no such entry"));
                }
            },
        };
        let value = match kind {
            ValueKind::String => text.into(),
            ValueKind::Int => whole_number(name, text)?.into(),
            ValueKind::Float => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => number.into(),
                _ => return Err(format!("{name} is {text:?}: a number was expected")),
            },
            ValueKind::Bool => match text {
                "true" | "1" => true.into(),
                "false" | "0" => false.into(),
                _ => {
                    return Err(format!("{name} is {text:?}: true, false, 1 or 0 was expected"));
                }
            },
        };
        Ok(Some(value))
    }
}

/// A whole number; `3.0` is one, as some tools write every number with a point.
fn whole_number(name: &str, text: &str) -> Result<i64, String> {
    let digits = match text.split_once('.') {
        Some((whole, rest)) if rest.bytes().all(|digit| digit == b'0') => whole,
        _ => text,
    };
    digits
        .parse()
        .map_err(|_| format!("{name} is {text:?}: a whole number was expected"))
}
