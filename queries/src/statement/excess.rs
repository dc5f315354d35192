//! Excess: SQL that is longer or deeper than any person writes.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::position;
use crate::error::{Position, QueryError};

/// A statement longer than this is refused: no person wrote it.
const MAX_TEXT_BYTES: usize = 256 * 1024;
/// How many relations a statement may put together: planning takes more than twice as long for twice as many.
const MAX_RELATIONS: usize = 128;
/// The words that bring one more into a statement.
const RELATIONS: [&str; 3] = ["FROM", "JOIN", "UNION"];
/// How deep an expression may be: planning and evaluating go down its whole depth, on a stack that has an end.
const MAX_DEPTH: usize = 128;

/// Refuses SQL that is too long or too deep to be planned, before anything goes down into it.
///
/// # Errors
/// What is too long or too deep, with its place.
pub(crate) fn refuse_excess(text: &str) -> Result<(), QueryError> {
    refuse_length(text)?;
    // What can't be cut into words is for the parser to word.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location() else {
        return Ok(());
    };
    refuse_depth(&tokens)
}

pub(super) fn refuse_length(text: &str) -> Result<(), QueryError> {
    if text.len() <= MAX_TEXT_BYTES {
        return Ok(());
    }
    Err(Position { line: 1, column: 1 }.mistake(
        format!("the text is {} bytes long", text.len()),
        format!("at most {MAX_TEXT_BYTES} bytes are read"),
    ))
}

/// `a + b + c` is as deep as it has operators, and brackets go deeper still.
pub(super) fn refuse_depth(tokens: &[TokenWithSpan]) -> Result<(), QueryError> {
    let mut relations = 0;
    let mut depths: Vec<usize> = vec![0];
    for token in tokens {
        match &token.token {
            Token::SemiColon => relations = 0,
            Token::Word(word)
                if RELATIONS
                    .iter()
                    .any(|relation| word.value.eq_ignore_ascii_case(relation)) =>
            {
                relations += 1;
            }
            _ => {}
        }
        if relations > MAX_RELATIONS {
            return Err(position(token).mistake(
                format!("the statement puts more than {MAX_RELATIONS} relations together"),
                "split it over several queries",
            ));
        }
        match &token.token {
            Token::LParen | Token::LBracket => depths.push(1),
            Token::RParen | Token::RBracket => {
                depths.pop();
                if depths.is_empty() {
                    depths.push(0);
                }
            }
            Token::Comma | Token::SemiColon => depths.last_mut().into_iter().for_each(|depth| *depth = 0),
            Token::Word(word) if word.quote_style.is_none() => {
                if let Some(depth) = depths.last_mut() {
                    match word.value.to_uppercase().as_str() {
                        "SELECT" | "FROM" | "WHERE" | "GROUP" | "HAVING" | "ON" | "AS" => *depth = 0,
                        "AND" | "OR" | "NOT" | "LIKE" | "IS" | "JOIN" | "UNION" | "CASE" => *depth += 1,
                        _ => {}
                    }
                }
            }
            Token::Whitespace(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::Period => {}
            _ => depths.last_mut().into_iter().for_each(|depth| *depth += 1),
        }
        if depths.iter().sum::<usize>() > MAX_DEPTH {
            return Err(position(token).mistake(
                format!("the expression is more than {MAX_DEPTH} operators deep"),
                "split it over several queries, or compare with IN (…)",
            ));
        }
    }
    Ok(())
}
