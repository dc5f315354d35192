//! A statement is `CREATE QUERY` or `CREATE ALERT` as written: name, options with their places, and the SELECT.

mod excess;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace};

pub(crate) use self::excess::refuse_excess;
use self::excess::{refuse_depth, refuse_length};
use crate::error::{Position, QueryError, nearest};

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

/// The options of `CREATE ALERT`; durations in microseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertOptions {
    /// What the rows are about: `zone`, `seat`, `person`, `item` or `device`; a column of the SELECT holds its id.
    pub subject: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// The condition on the SELECT's columns that raises; without it every row is a finding.
    pub raise: Option<OptionValue>,
    /// The condition that clears; without it the alert clears when `raise` no longer holds.
    pub clear: Option<OptionValue>,
    /// How long `raise` must hold.
    pub for_us: i64,
    /// How long after clearing nothing is raised again for the same subject.
    pub cooldown_us: i64,
    /// Raises when no row has come for the subject for so long, counted while the site is open.
    pub silent_us: Option<i64>,
    /// A finding without a clearing condition clears itself after so long without another.
    pub expires_us: i64,
    /// The sentence people read, with `{column}` in it.
    pub text: String,
}

/// The value of an option with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionValue {
    /// The value as text.
    pub value: String,
    /// Where the value's text begins (behind the quote).
    pub at: Position,
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
    /// Where the statement begins.
    pub at: Position,
    /// Where the name stands.
    pub name_at: Position,
    /// The statement's own text.
    pub sql: String,
    /// The comment above the statement, without its dashes.
    pub comment: String,
    /// The whole text up to the statement's end in which all but the SELECT is blank: places in it are places in
    /// the text.
    pub select: String,
}

const QUERY_OPTIONS: [&str; 4] = ["emit", "lateness", "ttl", "memory"];
const ALERT_OPTIONS: [&str; 13] = [
    "subject", "severity", "raise", "clear", "for", "cooldown", "silent", "expires", "text", "emit", "lateness", "ttl",
    "memory",
];
/// What an alert may be about.
pub const SUBJECTS: [&str; 5] = ["zone", "seat", "person", "item", "device"];
/// How grave an alert may be.
pub const SEVERITIES: [&str; 3] = ["info", "warning", "critical"];
/// How long a finding without a clearing condition stands, when the statement does not say: an hour.
const DEFAULT_EXPIRES_US: i64 = 3_600_000_000;

/// Reads all statements of a text.
///
/// # Errors
/// The first mistake with its place.
pub fn parse_statements(text: &str) -> Result<Vec<Statement>, QueryError> {
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
}

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
        let blank: String = self.text[..select_from]
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        let select = blank + &self.text[select_from..end];
        self.finish(is_alert, name, name_at, at, options, sql, comment, select)
    }

    #[allow(clippy::too_many_arguments)] // the parts of one statement, gathered in one place
    fn finish(
        &self,
        is_alert: bool,
        name: String,
        name_at: Position,
        at: Position,
        mut options: BTreeMap<String, (Position, OptionValue)>,
        sql: String,
        comment: String,
        select: String,
    ) -> Result<Statement, QueryError> {
        let known: &[&str] = if is_alert { &ALERT_OPTIONS } else { &QUERY_OPTIONS };
        for (option, (option_at, _)) in &options {
            if !known.contains(&option.as_str()) {
                let right = match nearest(option, known.iter().copied()) {
                    Some(near) => format!("did you mean '{near}'?"),
                    None => format!("there are: {}", known.join(", ")),
                };
                return Err(option_at.mistake(format!("there is no option '{option}'"), right));
            }
        }
        let emit_at = options.get("emit").map_or(name_at, |(option_at, _)| *option_at);
        let mut take = |option: &str| options.remove(option).map(|(_, value)| value);
        let emit = take("emit").map(|value| emit(&value)).transpose()?;
        let lateness_us = take("lateness").map(|value| duration(&value)).transpose()?.unwrap_or(0);
        let ttl_us = take("ttl").map(|value| duration(&value)).transpose()?;
        let memory = take("memory").map(|value| size(&value)).transpose()?;
        let kind = if is_alert {
            let subject = one_of(take("subject"), "subject", &SUBJECTS, name_at)?.ok_or_else(|| {
                name_at.mistake(
                    "an alert needs to say what it is about",
                    format!("WITH (subject = …), one of {}", SUBJECTS.join(", ")),
                )
            })?;
            let severity =
                one_of(take("severity"), "severity", &SEVERITIES, name_at)?.unwrap_or_else(|| "warning".to_owned());
            let raise = take("raise");
            let clear = take("clear");
            let silent_us = take("silent").map(|value| duration(&value)).transpose()?;
            if let (Some(raise), Some(_)) = (&raise, silent_us) {
                return Err(raise.at.mistake(
                    "'raise' and 'silent' stand together",
                    "an alert raises on a condition or on silence, not on both",
                ));
            }
            if let (Some(clear), None) = (&clear, &raise) {
                return Err(clear.at.mistake(
                    "'clear' stands without 'raise'",
                    "add raise = '…', or leave 'clear' out",
                ));
            }
            StatementKind::Alert(Box::new(AlertOptions {
                subject,
                severity,
                raise,
                clear,
                for_us: take("for").map(|value| duration(&value)).transpose()?.unwrap_or(0),
                cooldown_us: take("cooldown").map(|value| duration(&value)).transpose()?.unwrap_or(0),
                silent_us,
                expires_us: take("expires")
                    .map(|value| duration(&value))
                    .transpose()?
                    .unwrap_or(DEFAULT_EXPIRES_US),
                text: take("text").map_or_else(|| format!("{name}: {{subject}}"), |value| value.value),
            }))
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
            at,
            name_at,
            sql,
            comment,
            select,
        })
    }

    fn options(&mut self, options: &mut BTreeMap<String, (Position, OptionValue)>) -> Result<(), QueryError> {
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
                },
                Some(Token::Number(value, _)) => OptionValue {
                    value: value.clone(),
                    at: value_at,
                },
                Some(Token::Word(word)) => OptionValue {
                    value: word.value.clone(),
                    at: value_at,
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

fn emit(value: &OptionValue) -> Result<Emit, QueryError> {
    match value.value.to_lowercase().as_str() {
        "close" => Ok(Emit::Close),
        "update" => Ok(Emit::Update),
        other => match humantime::parse_duration(other) {
            Ok(interval) if !interval.is_zero() => Ok(Emit::Every(micros(interval))),
            _ => Err(value.at.mistake(
                format!("emit = '{}' is not known", value.value),
                "'close', 'update' or an interval such as '10 seconds'",
            )),
        },
    }
}

fn duration(value: &OptionValue) -> Result<i64, QueryError> {
    humantime::parse_duration(&value.value).map(micros).map_err(|_| {
        value.at.mistake(
            format!("'{}' is no duration", value.value),
            "a duration such as '500ms', '5 seconds' or '2 hours'",
        )
    })
}

/// Sizes as people write them.
const SIZES: [(&str, usize); 6] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
];

fn size(value: &OptionValue) -> Result<usize, QueryError> {
    let text = value.value.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_lowercase();
    let factor = SIZES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let bytes = number
        .parse::<usize>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
        value.at.mistake(
            format!("'{}' is no size", value.value),
            "a size such as '64 MiB' or '2 GB'",
        )
    })
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

fn one_of(
    value: Option<OptionValue>,
    option: &str,
    allowed: &[&str],
    _at: Position,
) -> Result<Option<String>, QueryError> {
    let Some(value) = value else { return Ok(None) };
    if allowed.contains(&value.value.as_str()) {
        return Ok(Some(value.value));
    }
    Err(value.at.mistake(
        format!("{option} = '{}' is not known", value.value),
        format!("one of {}", allowed.join(", ")),
    ))
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
        assert_eq!(statement.select.lines().last(), Some("SELECT 1"));
        assert_eq!(statement.select.lines().count(), 3);
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
                "1:14: an alert needs to say what it is about, WITH (subject = …), one of zone, seat, person, item, device",
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
