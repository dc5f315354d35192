//! A statement is `CREATE QUERY` or `CREATE ALERT` as written: name, options with their places, and the SELECT.

mod alert;
mod excess;
mod message;
mod parameters;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace};

pub(crate) use self::alert::refuse_missing_columns;
use self::alert::{ALERT_OPTIONS, alert_options};
pub use self::alert::{AlertOptions, Group, Rise, SEVERITIES, SUBJECTS, When};
pub(crate) use self::excess::refuse_excess;
use self::excess::{refuse_depth, refuse_length};
use self::message::MESSAGE_OPTIONS;
pub use self::message::{MessageOptions, Prefer};
pub use self::parameters::{Given, Parameter, ParameterKind, ParameterValue, ParameterValues};
use self::parameters::{PARAMETERS, Shifts, declared, names_parameter, option_of, put_in, settle};
use self::values::{duration, emit, size};
use crate::error::{Position, QueryError, nearest};
use crate::purpose::{Purpose, purpose};

/// When a query speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// Once a window, when the watermark has passed its end.
    Close,
    /// Each change at once, changed keys only.
    Update,
    /// Changed keys only, each time so many microseconds of event time have passed.
    Every(i64),
}

impl fmt::Display for Emit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close => f.write_str("close"),
            Self::Update => f.write_str("update"),
            Self::Every(us) => {
                let every = Duration::from_micros(us.unsigned_abs());
                write!(f, "every {}", humantime::format_duration(every))
            }
        }
    }
}

/// What a statement creates.
#[derive(Debug, Clone, PartialEq)]
pub enum StatementKind {
    /// `CREATE QUERY`: its output is a stream under its name.
    Query,
    /// `CREATE ALERT`: its rows are measurements or findings about a subject.
    Alert(Box<AlertOptions>),
}

/// The value of an option with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionValue {
    /// The value as text.
    pub value: String,
    /// Where the value's text begins (behind the quote).
    pub at: Position,
    /// Whether a parameter was written for it.
    pub is_parameter: bool,
    /// Where values of parameters stand in it.
    pub(crate) shifts: Shifts,
}

/// A statement as written, its options understood; the SELECT is planned later.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// The name of the query or alert.
    pub name: String,
    /// Query or alert, with an alert's options.
    pub kind: StatementKind,
    /// When it speaks, where the statement says so.
    pub emit: Option<Emit>,
    /// Where `emit` stands, or the name where it does not.
    pub emit_at: Position,
    /// How late a row may be and still amend what was said, microseconds.
    pub lateness_us: i64,
    /// A running aggregate forgets keys unseen for so long, microseconds of event time.
    pub ttl_us: Option<i64>,
    /// How many bytes the query may keep, where the statement says so.
    pub memory: Option<usize>,
    /// What it is for: rows of persons who refuse that do not reach it.
    pub purpose: Purpose,
    /// Where the statement begins.
    pub at: Position,
    /// Where the name stands.
    pub name_at: Position,
    /// The statement's own text.
    pub sql: String,
    /// The comment above the statement, without its dashes.
    pub comment: String,
    /// The SELECT's own text, with the values of parameters in it.
    pub select: String,
    /// Where the SELECT begins.
    pub select_at: Position,
    /// What people may change without touching the SQL, each with its value.
    pub parameters: Vec<Parameter>,
    /// Where values of them stand in the SELECT.
    pub(crate) shifts: Shifts,
}

impl Statement {
    /// The SELECT behind as many blank lines and columns as stand before it: places in it are places in the text. It is
    /// made anew where it is asked for, since it is as long as all statements before it have lines.
    pub fn placed_select(&self) -> String {
        let before = |count: u64| usize::try_from(count.saturating_sub(1)).unwrap_or(0);
        let mut text = "\n".repeat(before(self.select_at.line));
        text.extend(std::iter::repeat_n(' ', before(self.select_at.column)));
        text.push_str(&self.select);
        text
    }

    /// A mistake that was found in [`Statement::placed_select`], at the place where it was written.
    pub(crate) fn as_written(&self, error: QueryError) -> QueryError {
        let at = Position {
            line: error.line,
            column: error.column,
        };
        if at < self.select_at {
            return error;
        }
        let Position { line, column } = self.shifts.written(at);
        QueryError { line, column, ..error }
    }
}

const QUERY_OPTIONS: [&str; 6] = ["emit", "lateness", "ttl", "memory", "purpose", PARAMETERS];

/// Reads all statements of a text; their parameters have the values that they declare.
///
/// # Errors
/// The first mistake with its place.
pub fn parse_statements(text: &str) -> Result<Vec<Statement>, QueryError> {
    parse_statements_with(text, Some(&ParameterValues::default()))
}

/// The same with the values that the settings give to parameters. Without any, what is written stays as it is, for
/// whoever wants to know what is declared.
///
/// # Errors
/// The first mistake with its place; a parameter without a value and a value of another kind are among them.
pub fn parse_statements_with(text: &str, values: Option<&ParameterValues>) -> Result<Vec<Statement>, QueryError> {
    refuse_length(text)?;
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, text)
        .tokenize_with_location()
        .map_err(|error| {
            let at = Position {
                line: error.location.line.max(1),
                column: error.location.column.max(1),
            };
            at.wrong(error.message)
        })?;
    refuse_depth(&tokens)?;
    let mut statements = Vec::new();
    for range in tokens.split(|token| token.token == Token::SemiColon) {
        if range.iter().any(|token| !matches!(token.token, Token::Whitespace(_))) {
            statements.push(
                Reader {
                    text,
                    tokens: range,
                    next: 0,
                    values,
                }
                .statement()?,
            );
        }
    }
    Ok(statements)
}

/// Reads one statement, for places where exactly one is expected.
///
/// # Errors
/// When there is none, more than one, or a mistake in it.
pub fn parse_statement(text: &str) -> Result<Statement, QueryError> {
    let mut statements = parse_statements(text)?;
    let start = Position { line: 1, column: 1 };
    match statements.len() {
        1 => Ok(statements.remove(0)),
        0 => Err(start.mistake("there is no statement", "CREATE QUERY name AS SELECT … was expected")),
        _ => Err(statements[1]
            .at
            .wrong("there is a second statement where one was expected")),
    }
}

struct Reader<'a> {
    text: &'a str,
    tokens: &'a [TokenWithSpan],
    next: usize,
    /// The values of parameters; none where they are not wanted.
    values: Option<&'a ParameterValues>,
}

/// An option as written: where its name stands, and its value; of a parameter that is one, the name.
type Written = (Position, OptionValue);

impl Reader<'_> {
    fn statement(mut self) -> Result<Statement, QueryError> {
        let comment = self.comment();
        let (first, at) = self.significant();
        if !self.is_word(&first, "CREATE") {
            return Err(at.mistake(
                format!("a statement begins with {}", shown(&first)),
                "CREATE QUERY name AS SELECT … or CREATE ALERT name AS SELECT … was expected",
            ));
        }
        let (what, what_at) = self.significant();
        let is_alert = self.is_word(&what, "ALERT");
        if !is_alert && !self.is_word(&what, "QUERY") {
            return Err(what_at.mistake(
                format!("CREATE {} is not known here", shown(&what)),
                "CREATE QUERY or CREATE ALERT was expected",
            ));
        }
        let (name_token, name_at) = self.significant();
        let Some(Token::Word(word)) = &name_token else {
            return Err(name_at.mistake(
                format!("{} is no name", shown(&name_token)),
                "a name such as zone_flow was expected",
            ));
        };
        let name = if word.quote_style.is_some() {
            word.value.clone()
        } else {
            word.value.to_lowercase()
        };
        if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            return Err(name_at.mistake(format!("'{name}' is no name"), "letters, digits and _ make a name"));
        }
        let mut options = BTreeMap::new();
        let (mut token, mut token_at) = self.significant();
        if self.is_word(&token, "WITH") {
            self.options(&mut options)?;
            (token, token_at) = self.significant();
        }
        if !self.is_word(&token, "AS") {
            return Err(token_at.mistake(
                format!("{} stands where AS was expected", shown(&token)),
                "AS SELECT … follows the name and its options",
            ));
        }
        let (select_token, select_at) = self.peek();
        if !self.is_word(&select_token, "SELECT") && !self.is_word(&select_token, "WITH") {
            return Err(select_at.mistake(
                format!("{} stands where SELECT was expected", shown(&select_token)),
                "AS is followed by a SELECT",
            ));
        }
        let end = self.end();
        let from = offset(self.text, at);
        let select_from = offset(self.text, select_at);
        let sql = self.text[from..end].trim_end().to_owned();
        let mut parameters = match options.remove(PARAMETERS) {
            Some((_, value)) => declared(&value)?,
            None => Vec::new(),
        };
        let mut select = self.text[select_from..end].to_owned();
        let mut shifts = Shifts::default();
        if let Some(values) = self.values {
            settle(&name, &mut parameters, values)?;
            (select, shifts) = put_in(&select, select_at, &self.placeholders(select_at), &parameters)?;
            for (_, value) in options.values_mut().filter(|(_, value)| value.is_parameter) {
                value.value = option_of(&parameters, &value.value, value.at)?;
            }
        }
        let select = (select, select_at, shifts);
        let parameters = (parameters, self.values.is_some());
        self.finish(is_alert, name, name_at, at, options, sql, comment, select, parameters)
    }

    /// The parameters that the SELECT mentions, each where it stands.
    fn placeholders(&self, select_at: Position) -> Vec<(Position, String)> {
        let tokens = self.tokens.iter().filter(|token| position(token) >= select_at);
        tokens
            .filter_map(|token| match &token.token {
                Token::Placeholder(name) if names_parameter(name) => Some((position(token), name.clone())),
                _ => None,
            })
            .collect()
    }

    #[allow(clippy::too_many_arguments)] // the parts of one statement, gathered in one place
    fn finish(
        &self,
        is_alert: bool,
        name: String,
        name_at: Position,
        at: Position,
        mut options: BTreeMap<String, Written>,
        sql: String,
        comment: String,
        (select, select_at, shifts): (String, Position, Shifts),
        (parameters, are_settled): (Vec<Parameter>, bool),
    ) -> Result<Statement, QueryError> {
        let mut known = QUERY_OPTIONS.to_vec();
        if is_alert {
            known.splice(0..0, ALERT_OPTIONS.into_iter().chain(MESSAGE_OPTIONS));
        }
        for (option, (option_at, _)) in &options {
            if !known.contains(&option.as_str()) {
                let right = match nearest(option, known.iter().copied()) {
                    Some(near) => format!("did you mean '{near}'?"),
                    None => format!("there are: {}", known.join(", ")),
                };
                return Err(option_at.mistake(format!("there is no option '{option}'"), right));
            }
        }
        if !are_settled {
            // What an option is worth that is a parameter, nobody knows yet.
            options.retain(|_, (_, value)| !value.is_parameter);
        }
        let emit_at = options.get("emit").map_or(name_at, |(option_at, _)| *option_at);
        let mut take = |option: &str| options.remove(option).map(|(_, value)| value);
        let emit = take("emit").map(|value| emit(&value)).transpose()?;
        let lateness_us = take("lateness").map(|value| duration(&value)).transpose()?.unwrap_or(0);
        let ttl_us = take("ttl").map(|value| duration(&value)).transpose()?;
        let memory = take("memory").map(|value| size(&value)).transpose()?;
        let purpose = take("purpose")
            .map(|value| purpose(&value))
            .transpose()?
            .unwrap_or_default();
        let kind = if is_alert {
            let values = are_settled.then_some(parameters.as_slice());
            StatementKind::Alert(Box::new(alert_options(&mut options, &name, name_at, values)?))
        } else {
            StatementKind::Query
        };
        Ok(Statement {
            name,
            kind,
            emit,
            emit_at,
            lateness_us,
            ttl_us,
            memory,
            purpose,
            at,
            name_at,
            sql,
            comment,
            select,
            select_at,
            parameters,
            shifts,
        })
    }

    fn options(&mut self, options: &mut BTreeMap<String, Written>) -> Result<(), QueryError> {
        let (open, open_at) = self.significant();
        if open != Some(Token::LParen) {
            return Err(open_at.mistake(
                format!("{} stands where ( was expected", shown(&open)),
                "options are written WITH (name = 'value', …)",
            ));
        }
        loop {
            let (key, key_at) = self.significant();
            if key == Some(Token::RParen) {
                return Ok(());
            }
            let Some(Token::Word(word)) = &key else {
                return Err(key_at.mistake(format!("{} is no option", shown(&key)), "name = 'value' was expected"));
            };
            let key = word.value.to_lowercase();
            let (equals, equals_at) = self.significant();
            if equals != Some(Token::Eq) {
                return Err(equals_at.mistake(
                    format!("{} stands where = was expected", shown(&equals)),
                    format!("{key} = 'value'"),
                ));
            }
            let (value, value_at) = self.significant();
            let value = match value {
                Some(Token::SingleQuotedString(value)) => OptionValue {
                    value: value.clone(),
                    at: Position {
                        column: value_at.column + 1,
                        ..value_at
                    },
                    is_parameter: false,
                    shifts: Shifts::default(),
                },
                Some(Token::Number(value, _)) => OptionValue {
                    value: value.clone(),
                    at: value_at,
                    is_parameter: false,
                    shifts: Shifts::default(),
                },
                Some(Token::Placeholder(name)) if names_parameter(&name) => OptionValue {
                    value: name,
                    at: value_at,
                    is_parameter: true,
                    shifts: Shifts::default(),
                },
                Some(Token::Word(word)) => OptionValue {
                    value: word.value.clone(),
                    at: value_at,
                    is_parameter: false,
                    shifts: Shifts::default(),
                },
                other => {
                    return Err(value_at.mistake(
                        format!("{} is no value", shown(&other)),
                        format!("{key} = 'value' was expected"),
                    ));
                }
            };
            if options.insert(key.clone(), (key_at, value)).is_some() {
                return Err(key_at.wrong(format!("'{key}' stands twice")));
            }
            match self.significant() {
                (Some(Token::Comma), _) => {}
                (Some(Token::RParen), _) => return Ok(()),
                (other, other_at) => {
                    return Err(other_at.mistake(
                        format!("{} stands where , or ) was expected", shown(&other)),
                        "options are separated by commas",
                    ));
                }
            }
        }
    }

    /// The comment lines right above the statement.
    fn comment(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        for token in self.tokens {
            match &token.token {
                Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) => {
                    lines.push(comment.trim().to_owned())
                }
                Token::Whitespace(Whitespace::MultiLineComment(comment)) => lines.push(comment.trim().to_owned()),
                Token::Whitespace(_) => {}
                _ => break,
            }
        }
        lines.join(" ").trim().to_owned()
    }

    fn peek(&self) -> (Option<Token>, Position) {
        let found = self.tokens[self.next..]
            .iter()
            .find(|token| !matches!(token.token, Token::Whitespace(_)));
        match found {
            Some(token) => (Some(token.token.clone()), position(token)),
            None => (
                None,
                self.tokens.last().map_or(Position { line: 1, column: 1 }, position),
            ),
        }
    }

    /// The next token that is neither blank nor comment; statements are short, so a copy is cheap.
    fn significant(&mut self) -> (Option<Token>, Position) {
        while self
            .tokens
            .get(self.next)
            .is_some_and(|token| matches!(token.token, Token::Whitespace(_)))
        {
            self.next += 1;
        }
        let at = self.next;
        self.next += 1;
        match self.tokens.get(at) {
            Some(token) => (Some(token.token.clone()), position(token)),
            None => (
                None,
                self.tokens.last().map_or(Position { line: 1, column: 1 }, position),
            ),
        }
    }

    fn is_word(&self, token: &Option<Token>, word: &str) -> bool {
        matches!(token, Some(Token::Word(found)) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
    }

    /// The byte offset behind the statement's last token.
    fn end(&self) -> usize {
        self.tokens.last().map_or(self.text.len(), |token| {
            offset(
                self.text,
                Position {
                    line: token.span.end.line,
                    column: token.span.end.column,
                },
            )
        })
    }
}

fn position(token: &TokenWithSpan) -> Position {
    Position {
        line: token.span.start.line,
        column: token.span.start.column,
    }
}

/// The byte offset of a place in a text; the end of the text for a place behind it.
pub(crate) fn offset(text: &str, at: Position) -> usize {
    let mut line_start = 0;
    for _ in 1..at.line {
        match text[line_start..].find('\n') {
            Some(index) => line_start += index + 1,
            None => return text.len(),
        }
    }
    let column = usize::try_from(at.column.saturating_sub(1)).unwrap_or(usize::MAX);
    text[line_start..]
        .char_indices()
        .nth(column)
        .map_or(text.len(), |(index, _)| line_start + index)
}

fn shown(token: &Option<Token>) -> String {
    token
        .as_ref()
        .map_or_else(|| "the end of the statement".to_owned(), |token| format!("'{token}'"))
}

#[cfg(test)]
mod tests {
    use super::{Emit, StatementKind, parse_statement, parse_statements};

    #[test]
    fn a_query_is_read_with_its_options() {
        let statement = parse_statement(
            "-- How many.\nCREATE QUERY Flow WITH (emit = 'update', lateness = '5 seconds') AS\nSELECT 1",
        )
        .expect("it is right");
        assert_eq!(statement.name, "flow");
        assert_eq!(statement.emit, Some(Emit::Update));
        assert_eq!(statement.lateness_us, 5_000_000);
        assert_eq!(statement.comment, "How many.");
        assert_eq!(statement.select, "SELECT 1");
        assert_eq!(statement.placed_select(), "\n\nSELECT 1");
    }

    #[test]
    fn an_alert_is_read_with_its_options() {
        let statement = parse_statement(
            "CREATE ALERT a WITH (subject = 'zone', raise = 'share >= 0.9', for = '10 seconds') AS SELECT 1;",
        )
        .expect("it is right");
        let StatementKind::Alert(options) = statement.kind else {
            panic!("an alert was written")
        };
        assert_eq!(options.for_us, 10_000_000);
        assert_eq!(options.severity, "warning");
    }

    #[test]
    fn mistakes_tell_their_place_and_what_would_be_right() {
        let cases = [
            (
                "CREATE VIEW a AS SELECT 1",
                "1:8: CREATE 'VIEW' is not known here, CREATE QUERY or CREATE ALERT was expected",
            ),
            (
                "CREATE QUERY a WITH (emitt = 'close') AS SELECT 1",
                "1:22: there is no option 'emitt', did you mean 'emit'?",
            ),
            (
                "CREATE QUERY a\nWITH (emit = 'sometimes') AS SELECT 1",
                "2:15: emit = 'sometimes' is not known, 'close', 'update' or an interval such as '10 seconds'",
            ),
            (
                "CREATE QUERY a SELECT 1",
                "1:16: 'SELECT' stands where AS was expected, AS SELECT … follows the name and its options",
            ),
            (
                "CREATE ALERT a AS SELECT 1",
                "1:14: an alert needs to say what it is about, WITH (subject = …), one of zone, seat, person, item, device, site",
            ),
        ];
        for (sql, expected) in cases {
            assert_eq!(parse_statement(sql).expect_err("it is wrong").to_string(), expected);
        }
    }

    #[test]
    fn a_text_holds_several_statements() {
        let statements = parse_statements("CREATE QUERY a AS SELECT 1; -- b\nCREATE QUERY b AS SELECT ';';\n")
            .expect("they are right");
        assert_eq!(statements.len(), 2);
        assert!(statements[1].sql.ends_with("';'"));
    }
}
