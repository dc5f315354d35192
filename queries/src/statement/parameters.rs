//! Parameters are the values of a statement that people change without touching its SQL: declared with a type and
//! mostly a default, written `$name` where they count.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};

use super::values::parts;
use super::{OptionValue, offset};
use crate::error::{Position, QueryError, nearest};

/// The option that declares them.
pub(super) const PARAMETERS: &str = "parameters";

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// A text.
    Text,
    /// A duration.
    Interval,
    /// True or false.
    Boolean,
}

impl ParameterKind {
    const ALL: [Self; 5] = [Self::Integer, Self::Number, Self::Text, Self::Interval, Self::Boolean];

    /// As it is declared.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Text => "text",
            Self::Interval => "interval",
            Self::Boolean => "boolean",
        }
    }

    /// What a value of it looks like.
    fn example(self) -> &'static str {
        match self {
            Self::Integer => "a whole number such as 3",
            Self::Number => "a number such as 0.9",
            Self::Text => "a text in one line such as quiet-study",
            Self::Interval => "a duration such as 10 minutes",
            Self::Boolean => "true or false",
        }
    }

    /// Reads a value as it stands behind `=` in the declaration.
    fn read(self, text: &str) -> Option<ParameterValue> {
        let text = text.trim();
        match self {
            Self::Integer => text.parse().ok().map(ParameterValue::Integer),
            Self::Number => {
                let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
                number.map(ParameterValue::Number)
            }
            // A line feed among them would move all places behind it.
            Self::Text if text.chars().any(char::is_control) => None,
            Self::Text => Some(ParameterValue::Text(text.to_owned())),
            Self::Interval => humantime::parse_duration(text).ok().map(ParameterValue::Interval),
            Self::Boolean => text.parse().ok().map(ParameterValue::Boolean),
        }
    }

    /// The value where it is of this kind; in words what would be one where it is not.
    ///
    /// # Errors
    /// What would be right.
    pub fn accept(self, given: &Given) -> Result<ParameterValue, String> {
        let value = match (self, given) {
            (Self::Integer, Given::Integer(number)) => Some(ParameterValue::Integer(*number)),
            #[allow(clippy::cast_precision_loss)] // people write no numbers that large
            (Self::Number, Given::Integer(number)) => Some(ParameterValue::Number(*number as f64)),
            (Self::Number, Given::Number(number)) => Some(ParameterValue::Number(*number)),
            (Self::Boolean, Given::Boolean(word)) => Some(ParameterValue::Boolean(*word)),
            (Self::Text | Self::Interval, Given::Text(text)) => self.read(text),
            _ => None,
        };
        value.ok_or_else(|| format!("it is {}: {} would be right", article(self), self.example()))
    }
}

fn article(kind: ParameterKind) -> String {
    let article = if matches!(kind, ParameterKind::Integer | ParameterKind::Interval) {
        "an"
    } else {
        "a"
    };
    format!("{article} {}", kind.as_str())
}

/// A value as the settings have it.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// A whole number.
    Integer(i64),
    /// A number with a point.
    Number(f64),
    /// A text, or a duration.
    Text(String),
    /// True or false.
    Boolean(bool),
}

impl fmt::Display for Given {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => write!(out, "{number}"),
            Self::Number(number) => write!(out, "{number}"),
            Self::Text(text) => out.write_str(text),
            Self::Boolean(word) => write!(out, "{word}"),
        }
    }
}

/// The value of a parameter, of the kind that was declared.
#[derive(Debug, Clone, PartialEq)]
pub enum ParameterValue {
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Number(f64),
    /// A text.
    Text(String),
    /// A duration.
    Interval(Duration),
    /// True or false.
    Boolean(bool),
}

impl ParameterValue {
    /// As SQL says it, so that it stands for itself wherever it is put.
    fn literal(&self) -> String {
        match self {
            Self::Integer(number) if *number < 0 => format!("({number})"),
            Self::Integer(number) => number.to_string(),
            Self::Number(number) if *number < 0.0 => format!("({number:?})"),
            Self::Number(number) => format!("{number:?}"),
            Self::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Self::Interval(duration) => {
                let micros = duration.subsec_micros();
                let seconds = duration.as_secs();
                match micros {
                    0 => format!("INTERVAL '{seconds} seconds'"),
                    _ => format!("INTERVAL '{seconds}.{micros:06} seconds'"),
                }
            }
            Self::Boolean(word) => word.to_string(),
        }
    }

    /// As an option says it.
    fn option(&self) -> String {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            Self::Interval(duration) => humantime::format_duration(*duration).to_string(),
            Self::Boolean(word) => word.to_string(),
        }
    }
}

impl fmt::Display for ParameterValue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.option())
    }
}

/// A parameter that a statement declares.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name, in lower case.
    pub name: String,
    /// What it may be.
    pub kind: ParameterKind,
    /// What it is where nobody says otherwise.
    pub default: Option<ParameterValue>,
    /// What it is.
    pub value: Option<ParameterValue>,
    /// Where it is declared.
    pub at: Position,
}

/// What the settings say of parameters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ParameterValues {
    /// By name, for every statement that declares it.
    pub general: BTreeMap<String, Given>,
    /// By statement and name, which counts before.
    pub of: BTreeMap<String, BTreeMap<String, Given>>,
}

impl ParameterValues {
    fn get(&self, statement: &str, parameter: &str) -> Option<&Given> {
        let own = self.of.get(statement).and_then(|values| values.get(parameter));
        own.or_else(|| self.general.get(parameter))
    }
}

/// Reads `name type = value, …`, where the value may be left out.
pub(super) fn declared(option: &OptionValue) -> Result<Vec<Parameter>, QueryError> {
    let mut parameters: Vec<Parameter> = Vec::new();
    for part in parts(option) {
        let (head, default) = match part.value.split_once('=') {
            Some((head, default)) => (head.trim(), Some(default.trim())),
            None => (part.value.as_str(), None),
        };
        let form = "a name, a type and a value, such as 'searches integer = 3, within interval = 10 minutes'";
        let Some((name, kind)) = head.split_once(char::is_whitespace) else {
            return Err(part.at.mistake(format!("'{}' declares no parameter", part.value), form));
        };
        let is_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        if !is_name {
            return Err(part.at.mistake(format!("'{name}' is no name of a parameter"), form));
        }
        let (name, kind) = (name.to_lowercase(), kind.trim().to_lowercase());
        let kinds = ParameterKind::ALL.map(ParameterKind::as_str);
        let Some(kind) = ParameterKind::ALL.into_iter().find(|known| known.as_str() == kind) else {
            let right = match nearest(&kind, kinds.into_iter()) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("one of {}", kinds.join(", ")),
            };
            return Err(part.at.mistake(format!("'{kind}' is no type of a parameter"), right));
        };
        if parameters.iter().any(|other| other.name == name) {
            return Err(part.at.mistake(format!("'{name}' is declared twice"), "once is enough"));
        }
        let default = match default {
            Some(text) => Some(kind.read(text).ok_or_else(|| {
                part.at
                    .mistake(format!("'{text}' is no {}", kind.as_str()), kind.example())
            })?),
            None => None,
        };
        parameters.push(Parameter {
            name,
            kind,
            value: default.clone(),
            default,
            at: part.at,
        });
    }
    Ok(parameters)
}

/// Gives each parameter of a statement its value.
pub(super) fn settle(
    statement: &str,
    parameters: &mut [Parameter],
    values: &ParameterValues,
) -> Result<(), QueryError> {
    for parameter in parameters {
        if let Some(given) = values.get(statement, &parameter.name) {
            let accepted = parameter.kind.accept(given).map_err(|right| {
                let wrong = format!("the settings give '{}' the value '{given}'", parameter.name);
                parameter.at.mistake(wrong, right)
            })?;
            parameter.value = Some(accepted);
        }
        if parameter.value.is_none() {
            let name = &parameter.name;
            return Err(parameter.at.mistake(
                format!("the parameter '{name}' of '{statement}' has no value"),
                format!("a value here, or `{name} = …` under [parameters.{statement}] or [parameters] in usher.toml"),
            ));
        }
    }
    Ok(())
}

/// The parameter behind `$name`, written at `at`.
fn named<'p>(parameters: &'p [Parameter], name: &str, at: Position) -> Result<&'p ParameterValue, QueryError> {
    let lower = name.to_lowercase();
    let found = parameters.iter().find(|parameter| parameter.name == lower);
    if let Some(value) = found.and_then(|parameter| parameter.value.as_ref()) {
        return Ok(value);
    }
    let known = parameters.iter().map(|parameter| parameter.name.as_str());
    let right = match nearest(&lower, known.clone()) {
        Some(near) => format!("did you mean '${near}'?"),
        None if parameters.is_empty() => {
            format!("parameters are declared in the options: parameters = '{name} integer = 3'")
        }
        None => format!("there are: ${}", known.collect::<Vec<_>>().join(", $")),
    };
    Err(at.mistake(format!("there is no parameter '${name}'"), right))
}

/// The value of an option that is a parameter itself, as in `expires = $stands`.
pub(super) fn option_of(parameters: &[Parameter], written: &str, at: Position) -> Result<String, QueryError> {
    named(parameters, written.trim_start_matches('$'), at).map(ParameterValue::option)
}

/// A part of a text that a value was put into: what stands behind it on its line lies further to the right than it was
/// written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shift {
    /// Where the value begins, in the text as it is now.
    at: Position,
    /// Characters of the value.
    now: u64,
    /// Characters of `$name`.
    written: u64,
}

/// Where in a statement's SELECT values were put in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shifts(Vec<Shift>);

impl Shifts {
    /// The place as it was written of one in the text as it is now.
    pub(crate) fn written(&self, at: Position) -> Position {
        let mut written = at;
        for shift in self
            .0
            .iter()
            .filter(|shift| shift.at.line == at.line && shift.at.column <= at.column)
        {
            if at.column < shift.at.column + shift.now {
                // Within the value: that is the parameter.
                written.column -= at.column - shift.at.column;
                return written;
            }
            written.column = written.column + shift.written - shift.now;
        }
        written
    }
}

/// Puts the values in the place of `$name` in a text that begins at `from`; `places` are where a parameter stands, with
/// its name, in the order of the text.
pub(super) fn put_in(
    text: &str,
    from: Position,
    places: &[(Position, String)],
    parameters: &[Parameter],
) -> Result<(String, Shifts), QueryError> {
    let mut out = String::with_capacity(text.len());
    let (mut copied, mut shifts) = (0, Shifts::default());
    let (mut line, mut moved) = (0, 0_i64);
    for (at, written) in places {
        let literal = named(parameters, written.trim_start_matches('$'), *at)?.literal();
        // Places are those of the whole text; this one begins at `from`.
        let within = Position {
            line: at.line - from.line + 1,
            column: if at.line == from.line {
                at.column - from.column + 1
            } else {
                at.column
            },
        };
        let start = offset(text, within);
        out.push_str(&text[copied..start]);
        out.push_str(&literal);
        copied = start + written.len();
        if at.line != line {
            (line, moved) = (at.line, 0);
        }
        let (now, before) = (literal.chars().count() as u64, written.chars().count() as u64);
        shifts.0.push(Shift {
            at: Position {
                line: at.line,
                column: at.column.saturating_add_signed(moved),
            },
            now,
            written: before,
        });
        moved += now.cast_signed() - before.cast_signed();
    }
    out.push_str(&text[copied..]);
    Ok((out, shifts))
}

/// Whether a placeholder is a parameter's: a `$` by itself is of a row pattern.
pub(super) fn names_parameter(placeholder: &str) -> bool {
    placeholder.strip_prefix('$').is_some_and(|name| !name.is_empty())
}

/// The same in the text of a condition, which learns where.
pub(super) fn put_in_condition(option: &mut OptionValue, parameters: &[Parameter]) -> Result<(), QueryError> {
    // As in a SELECT: what is no parameter there is none here. A text that can't be taken apart is told when it is planned.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, &option.value).tokenize_with_location() else {
        return Ok(());
    };
    let from = option.at;
    let within = |start: Location| Position {
        line: from.line + start.line - 1,
        column: match start.line {
            1 => from.column + start.column - 1,
            _ => start.column,
        },
    };
    let places: Vec<(Position, String)> = tokens
        .into_iter()
        .filter_map(|token| match token.token {
            Token::Placeholder(name) if names_parameter(&name) => Some((within(token.span.start), name)),
            _ => None,
        })
        .collect();
    if !places.is_empty() {
        (option.value, option.shifts) = put_in(&option.value, from, &places, parameters)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Given, ParameterValues};
    use crate::statement::{StatementKind, parse_statements, parse_statements_with};

    const HELP: &str = "CREATE ALERT help WITH (subject = 'person', parameters = 'searches integer = 3, \
                        within interval = 10 minutes, word text = it''s, share number = 0.5, all boolean = false', \
                        raise = 'failed >= $searches', expires = $within) AS\n\
                        SELECT person, failed FROM HOP(x, t, $within, $within) WHERE a = $word AND b > $share AND c = $all";

    fn values(of: &[(&str, Given)], general: &[(&str, Given)]) -> ParameterValues {
        let named = |list: &[(&str, Given)]| {
            list.iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect()
        };
        ParameterValues {
            general: named(general),
            of: [("help".to_owned(), named(of))].into_iter().collect(),
        }
    }

    #[test]
    fn values_stand_where_the_parameters_were_written() {
        let statement = parse_statements(HELP).expect("it is right").remove(0);
        assert_eq!(
            statement.select,
            "SELECT person, failed FROM HOP(x, t, INTERVAL '600 seconds', INTERVAL '600 seconds') WHERE a = 'it''s' \
             AND b > 0.5 AND c = false"
        );
        let StatementKind::Alert(options) = statement.kind else {
            panic!("an alert was written")
        };
        assert_eq!(options.raise.expect("it has one").value, "failed >= 3");
        assert_eq!(options.expires_us, 600_000_000);
    }

    #[test]
    fn what_the_settings_say_of_a_statement_counts_before_what_they_say_of_all() {
        let given = values(
            &[("searches", Given::Integer(5))],
            &[
                ("searches", Given::Integer(9)),
                ("share", Given::Integer(1)),
                ("within", Given::Text("1h".to_owned())),
            ],
        );
        let statement = parse_statements_with(HELP, Some(&given))
            .expect("it is right")
            .remove(0);
        assert!(statement.select.contains("INTERVAL '3600 seconds'") && statement.select.contains("b > 1.0"));
        let shown: Vec<String> = statement
            .parameters
            .iter()
            .filter_map(|parameter| parameter.value.as_ref().map(ToString::to_string))
            .collect();
        assert_eq!(shown, ["5", "1h", "it's", "1", "false"]);
    }

    #[test]
    fn mistakes_tell_their_place_and_what_would_be_right() {
        let query = |parameters: &str, rest: &str| {
            format!("CREATE QUERY q WITH (parameters = '{parameters}') AS\nSELECT {rest} FROM x")
        };
        let cases = [
            (
                query("searches integer = 3", "1, $serches"),
                "2:11: there is no parameter '$serches', did you mean '$searches'?",
            ),
            (
                query("searches integer", "1"),
                "1:36: the parameter 'searches' of 'q' has no value, a value here, or `searches = …` under \
                 [parameters.q] or [parameters] in usher.toml",
            ),
            (
                query("searches integer = three", "1"),
                "1:36: 'three' is no integer, a whole number such as 3",
            ),
            (
                query("searches intger = 3", "1"),
                "1:36: 'intger' is no type of a parameter, did you mean 'integer'?",
            ),
            (
                query("a text = x,  a text = y", "1"),
                "1:49: 'a' is declared twice, once is enough",
            ),
            (
                query("searches = 3", "1"),
                "1:36: 'searches = 3' declares no parameter, a name, a type and a value, such as 'searches integer = 3, \
                 within interval = 10 minutes'",
            ),
            (
                "CREATE QUERY q AS SELECT $a FROM x".to_owned(),
                "1:26: there is no parameter '$a', parameters are declared in the options: parameters = 'a integer = 3'",
            ),
        ];
        for (sql, expected) in cases {
            assert_eq!(parse_statements(&sql).expect_err(&sql).to_string(), expected);
        }
        let wrong = values(&[("searches", Given::Text("three".to_owned()))], &[]);
        assert_eq!(
            parse_statements_with(HELP, Some(&wrong))
                .expect_err("no number")
                .to_string(),
            "1:59: the settings give 'searches' the value 'three', it is an integer: a whole number such as 3 would be right"
        );
    }

    #[test]
    fn a_condition_has_parameters_where_a_select_would_have_them() {
        let raise = |condition: &str| {
            let sql = format!(
                "CREATE ALERT a WITH (subject = 'zone', parameters = 'cost integer = 7', raise = '{condition}') AS SELECT 1 AS n"
            );
            match parse_statements(&sql).expect(condition).remove(0).kind {
                StatementKind::Alert(options) => options.raise.expect("it has one").value,
                StatementKind::Query => panic!("an alert was written"),
            }
        };
        assert_eq!(raise(r#""cost$" > $cost"#), r#""cost$" > 7"#);
        assert_eq!(raise(r#""o''clock" > $cost"#), r#""o'clock" > 7"#);
        assert_eq!(raise("n > /* it''s */ $cost"), "n > /* it's */ 7");
        assert_eq!(raise("m = ''$cost'' AND n > $cost"), "m = '$cost' AND n > 7");
    }

    #[test]
    fn a_text_is_one_line() {
        let given = values(&[("word", Given::Text("quiet\nstudy".to_owned()))], &[]);
        assert_eq!(
            parse_statements_with(HELP, Some(&given))
                .expect_err("two lines")
                .to_string(),
            "1:111: the settings give 'word' the value 'quiet\nstudy', it is a text: a text in one line such as quiet-study \
             would be right"
        );
        let sql = "CREATE QUERY q WITH (parameters = 'word text = quiet\tstudy') AS SELECT $word";
        assert_eq!(
            parse_statements(sql).expect_err("a tab").to_string(),
            "1:36: 'quiet\tstudy' is no text, a text in one line such as quiet-study"
        );
    }

    #[test]
    fn a_place_behind_a_value_is_told_as_it_was_written() {
        let sql = "CREATE QUERY q WITH (parameters = 'a interval = 1h, b integer = 7') AS\nSELECT $a, $b, x.no FROM x";
        let statement = parse_statements(sql).expect("it is right").remove(0);
        let at = |column| {
            let now = crate::error::Position { line: 2, column };
            statement.shifts.written(now).column
        };
        // SELECT INTERVAL '3600 seconds', 7, x.no FROM x
        assert_eq!([at(1), at(8), at(20), at(33), at(36)], [1, 8, 8, 12, 16]);
    }
}
