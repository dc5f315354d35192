//! What is wrong with a statement, where, and what would be right.

use datafusion::common::{DataFusionError, SchemaError};
use serde::Serialize;

/// A mistake in a statement, with its place in the text that was handed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{line}:{column}: {wrong}{}", .right.as_ref().map(|r| format!(", {r}")).unwrap_or_default())]
pub struct QueryError {
    /// Line in the text, from 1.
    pub line: u64,
    /// Column in the line in characters, from 1.
    pub column: u64,
    /// What is wrong.
    pub wrong: String,
    /// What would be right, where it is known.
    pub right: Option<String>,
}

/// A place in a text: line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

impl Position {
    /// The mistake `wrong` at this place, without advice.
    pub fn wrong(self, wrong: impl Into<String>) -> QueryError {
        QueryError {
            line: self.line,
            column: self.column,
            wrong: wrong.into(),
            right: None,
        }
    }

    /// The mistake `wrong` at this place, and what would be right.
    pub fn mistake(self, wrong: impl Into<String>, right: impl Into<String>) -> QueryError {
        QueryError {
            line: self.line,
            column: self.column,
            wrong: wrong.into(),
            right: Some(right.into()),
        }
    }
}

/// Turns DataFusion's error into ours; `start` is where the statement begins, `text` the whole text.
pub(crate) fn from_datafusion(error: &DataFusionError, start: Position, text: &str) -> QueryError {
    if let Some(diagnostic) = error.diagnostic()
        && let Some(span) = diagnostic.span
        && span.start.line > 0
    {
        let at = Position {
            line: span.start.line,
            column: span.start.column,
        };
        let right = schema_advice(error).or_else(|| diagnostic.notes.first().map(|note| note.message.clone()));
        return QueryError {
            line: at.line,
            column: at.column,
            wrong: diagnostic.message.clone(),
            right,
        };
    }
    let root = error.find_root();
    let message = root.strip_backtrace();
    if let Some((message, at)) = parser_position(&message) {
        return at.wrong(message);
    }
    if let Some(name) = missing_name(root) {
        let at = find_word(text, &name, start).unwrap_or(start);
        return QueryError {
            line: at.line,
            column: at.column,
            wrong: format!("there is no column '{name}'"),
            right: schema_advice(error),
        };
    }
    let message = message
        .trim_start_matches("Error during planning: ")
        .trim_start_matches("This feature is not implemented: ");
    if let Some(name) = message
        .strip_prefix("Invalid function '")
        .and_then(|rest| rest.split('\'').next())
    {
        let at = find_word(text, name, start).unwrap_or(start);
        let right = message
            .split_once("Did you mean ")
            .map(|(_, hint)| format!("did you mean {}", hint.trim()));
        return QueryError {
            line: at.line,
            column: at.column,
            wrong: format!("there is no function '{name}'"),
            right,
        };
    }
    if let Some((name, words)) = coercion_refused(message) {
        let at = find_word(text, name, start).unwrap_or(start);
        return match words.split_once("; ") {
            Some((wrong, right)) => at.mistake(wrong, right),
            None => at.wrong(words.to_owned()),
        };
    }
    start_of(message, text, start).wrong(message.to_owned())
}

/// Where in a text a message without a place belongs: at the first word in it that is written in the text in capitals
/// (a window, a clause) or that it quotes.
fn start_of(message: &str, text: &str, start: Position) -> Position {
    let capitals = message
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| word.len() > 2 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
    let quoted = message
        .split('\'')
        .skip(1)
        .step_by(2)
        .flat_map(|quote| quote.split('.').next_back());
    capitals
        .chain(quoted)
        .filter(|word| !word.is_empty())
        .find_map(|word| find_word(text, word, start))
        .unwrap_or(start)
}

/// The name of a function that took none of the types it was given, and its own words, out of what DataFusion puts
/// around them.
fn coercion_refused(message: &str) -> Option<(&str, &str)> {
    let (name, words) = message
        .strip_prefix("Execution error: Function '")?
        .split_once("' user-defined coercion failed with: Error during planning: ")?;
    let words = words.split(". No function matches").next().unwrap_or(words);
    Some((name, words))
}

fn schema_advice(error: &DataFusionError) -> Option<String> {
    let DataFusionError::SchemaError(schema_error, _) = error.find_root() else {
        return None;
    };
    let SchemaError::FieldNotFound { field, valid_fields } = schema_error.as_ref() else {
        return None;
    };
    let names: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
    Some(match nearest(&field.name, names.iter().copied()) {
        Some(near) => format!("did you mean '{near}'? There are: {}", names.join(", ")),
        None => format!("there are: {}", names.join(", ")),
    })
}

fn missing_name(root: &DataFusionError) -> Option<String> {
    let DataFusionError::SchemaError(schema_error, _) = root else {
        return None;
    };
    match schema_error.as_ref() {
        SchemaError::FieldNotFound { field, .. } => Some(field.name.clone()),
        _ => None,
    }
}

/// The nearest of `names` to `name`, when it is near enough to be a slip of the finger.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(name.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Splits "… at Line: 3, Column: 8" off a parser's message.
fn parser_position(message: &str) -> Option<(String, Position)> {
    let (before, after) = message.rsplit_once(" at Line: ")?;
    let (line, column) = after.split_once(", Column: ")?;
    let digits: String = column.chars().take_while(char::is_ascii_digit).collect();
    let at = Position {
        line: line.trim().parse().ok()?,
        column: digits.parse().ok()?,
    };
    let words = before.rsplit_once("ParserError(\"").map_or(before, |(_, words)| words);
    Some((words.trim_start_matches("SQL error: ").to_owned(), at))
}

/// Where `word` stands for the first time as a whole word at or after `start`.
pub(crate) fn find_word(text: &str, word: &str, start: Position) -> Option<Position> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    for (number, line) in (1u64..).zip(text.lines()) {
        if number < start.line {
            continue;
        }
        let lower = line.to_lowercase();
        let wanted = word.to_lowercase();
        for (index, found) in lower.match_indices(&wanted) {
            let before = lower[..index].chars().next_back();
            let after = lower[index + found.len()..].chars().next();
            let column = lower[..index].chars().count() as u64 + 1;
            let whole = !before.is_some_and(is_part) && !after.is_some_and(is_part);
            if whole && (number > start.line || column >= start.column) {
                return Some(Position { line: number, column });
            }
        }
    }
    None
}
