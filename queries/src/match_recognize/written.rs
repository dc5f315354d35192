//! What sqlparser does not read, WITHIN and SHOW TIMED OUT of MATCH_RECOGNIZE and FOR SYSTEM_TIME AS OF, is taken out of
//! the text and put into what it does.

use std::ops::{ControlFlow, Range};

use datafusion::common::Result;
use datafusion::common::config::Dialect;
use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::Statement as ParsedStatement;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, Ident, SymbolDefinition, TableFactor, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{
    Location as SqlLocation, Span as SqlSpan, Token, TokenWithSpan, Tokenizer,
};

use crate::as_of;
use crate::error::Position;
use crate::misread;
use crate::statement::offset;
use crate::tokens::{is_word, mistake};

/// The symbol under which WITHIN stands among those of DEFINE. No identifier that was written has this quote.
const WITHIN: &str = "within";
/// The symbol under which SHOW TIMED OUT stands there.
const SHOW_TIMED_OUT: &str = "show timed out";
const QUOTE: char = '§';
/// sqlparser reads a pattern by recursion without a limit: beyond these its stack would end.
const MAX_DEPTH: usize = 32;
const MAX_ALTERNATIVES: usize = 100;
const MAX_WORDS: usize = 2_000;

/// Reads a statement as DataFusion does, and with it the clauses that it does not know.
pub(crate) fn sql_to_statement(state: &SessionState, text: &str) -> Result<ParsedStatement> {
    let dialect = GenericDialect {};
    let read = Tokenizer::new(&dialect, text).tokenize_with_location();
    // What can't be cut into words is DataFusion's to refuse.
    let Ok(tokens) = read else {
        return state.sql_to_statement(text, &Dialect::Generic);
    };
    let tokens: Vec<TokenWithSpan> = tokens
        .into_iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_)))
        .collect();
    let (mut clauses, mut versions) = (Vec::new(), Vec::new());
    let mut blanked = text.to_owned();
    for index in 0..tokens.len() {
        if let Some(version) = as_of::Clause::at(&tokens, index)? {
            blank(&mut blanked, &version.place);
            versions.push(version);
        }
        if !is_word(tokens.get(index), "MATCH_RECOGNIZE") {
            continue;
        }
        refuse_derived(&tokens, index)?;
        if let Some(clause) = clause(&tokens, index)? {
            blank(&mut blanked, &clause.place);
            clauses.push(clause);
        }
    }
    let mut parsed = state.sql_to_statement(&blanked, &Dialect::Generic)?;
    if let ParsedStatement::Statement(statement) = &parsed {
        misread::refuse(statement.as_ref())?;
    }
    if let ParsedStatement::Statement(statement) = &mut parsed
        && !clauses.is_empty()
    {
        let _ = statement.visit(&mut Place { clauses });
    }
    if let ParsedStatement::Statement(statement) = &mut parsed
        && !versions.is_empty()
    {
        let mut put_in = as_of::PutIn {
            state,
            clauses: versions,
        };
        if let ControlFlow::Break(error) = statement.visit(&mut put_in) {
            return Err(error);
        }
        put_in.finish()?;
    }
    Ok(parsed)
}

/// Takes WITHIN and SHOW TIMED OUT out of the symbols of DEFINE: the length of time as it was written, if it was, and
/// whether those that timed out are asked for.
pub(super) fn take(symbols: Vec<SymbolDefinition>) -> (Vec<SymbolDefinition>, Option<SqlExpr>, bool) {
    let (mut kept, mut within, mut shows) = (Vec::new(), None, false);
    for symbol in symbols {
        match (symbol.symbol.quote_style, symbol.symbol.value.as_str()) {
            (Some(QUOTE), WITHIN) => within = Some(symbol.definition),
            (Some(QUOTE), SHOW_TIMED_OUT) => shows = true,
            _ => kept.push(symbol),
        }
    }
    (kept, within, shows)
}

/// WITHIN … as it was written.
struct Clause {
    place: Range<Position>,
    within: SqlExpr,
    span: SqlSpan,
    shows_timed_out: bool,
    /// Where the first symbol of its DEFINE stands: by this it is known where it belongs.
    symbol_at: SqlLocation,
}

/// The closing parenthesis of the opening one at `open`.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth -= 1;
                if depth == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

/// sqlparser reads MATCH_RECOGNIZE behind a name only, and would say no more than that it did not expect it.
fn refuse_derived(tokens: &[TokenWithSpan], at: usize) -> Result<()> {
    let mut depth = 0;
    let open = (0..at).rev().find(|index| {
        match tokens[*index].token {
            Token::RParen => depth += 1,
            Token::LParen => depth -= 1,
            _ => {}
        }
        depth <= 0
    });
    // What stands right before is a name, or ends with the parenthesis of one that begins at `open`.
    let derived = open.is_some_and(|open| {
        tokens[open].token == Token::LParen
            && (is_word(tokens.get(open + 1), "SELECT") || is_word(tokens.get(open + 1), "WITH"))
    });
    if derived {
        return Err(mistake(
            tokens[at].span,
            "MATCH_RECOGNIZE stands behind a subquery",
            "give it a name before: WITH rows AS (SELECT …) SELECT … FROM rows MATCH_RECOGNIZE (…)",
        ));
    }
    Ok(())
}

/// Refuses what would be too much for the parser, from PATTERN to its last parenthesis.
fn refuse_unreadable(pattern: &[TokenWithSpan]) -> Result<()> {
    let (mut depth, mut deepest, mut alternatives) = (0_usize, 0, 0);
    for token in pattern {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Pipe => alternatives += 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > MAX_DEPTH || alternatives > MAX_ALTERNATIVES || pattern.len() > MAX_WORDS {
        return Err(mistake(
            pattern[0].span,
            "the pattern is nested or long beyond reading",
            format!(
                "at most {MAX_DEPTH} parentheses within each other, {MAX_ALTERNATIVES} alternatives and {MAX_WORDS} words \
                 are read"
            ),
        ));
    }
    Ok(())
}

fn clause(tokens: &[TokenWithSpan], at: usize) -> Result<Option<Clause>> {
    let opens = |index: usize| tokens.get(index).is_some_and(|token| token.token == Token::LParen);
    let Some(end) = closing(tokens, at + 1).filter(|_| opens(at + 1)) else {
        return Ok(None);
    };
    let mut index = at + 2;
    // A column may have the name, but opens no parenthesis.
    while index < end && !(is_word(tokens.get(index), "PATTERN") && opens(index + 1)) {
        // Over what stands in parentheses: a function may have the name.
        index = match tokens[index].token {
            Token::LParen => closing(tokens, index).unwrap_or(end),
            _ => index + 1,
        };
    }
    let Some(behind) = closing(tokens, index + 1)
        .map(|close| close + 1)
        .filter(|behind| *behind < end)
    else {
        return Ok(None);
    };
    refuse_unreadable(&tokens[index..behind])?;
    let form = "WITHIN INTERVAL '10 minutes' or WITHIN INTERVAL '10 minutes' SHOW TIMED OUT was expected";
    if is_word(tokens.get(behind), "SHOW") {
        return Err(mistake(
            tokens[behind].span,
            "SHOW TIMED OUT stands without WITHIN",
            form,
        ));
    }
    if !is_word(tokens.get(behind), "WITHIN") {
        return Ok(None);
    }
    let mut shows = (behind + 1..end).find(|index| {
        is_word(tokens.get(*index), "SHOW")
            || is_word(tokens.get(*index), "DEFINE")
            || tokens[*index].token == Token::RParen
    });
    let length_end = shows.unwrap_or(end);
    shows = shows.filter(|index| is_word(tokens.get(*index), "SHOW"));
    let words: Vec<TokenWithSpan> = tokens[behind + 1..length_end].to_vec();
    let refused = || mistake(tokens[behind].span, "WITHIN is followed by no length of time", form);
    if !is_word(words.first(), "INTERVAL") {
        return Err(refused());
    }
    let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(words);
    let within = parser.parse_expr().map_err(|_| refused())?;
    if parser.peek_token().token != Token::EOF || !matches!(within, SqlExpr::Interval(_)) {
        return Err(refused());
    }
    let mut last = length_end - 1;
    if let Some(show) = shows {
        if !is_word(tokens.get(show + 1), "TIMED") || !is_word(tokens.get(show + 2), "OUT") {
            return Err(mistake(
                tokens[show].span,
                "SHOW is followed by something else than TIMED OUT",
                form,
            ));
        }
        last = show + 2;
    }
    let position = |at: SqlLocation| Position {
        line: at.line,
        column: at.column,
    };
    Ok(Some(Clause {
        place: position(tokens[behind].span.start)..position(tokens[last].span.end),
        within,
        span: tokens[behind].span,
        shows_timed_out: shows.is_some(),
        symbol_at: tokens
            .get(last + 2)
            .map_or(tokens[last].span.end, |token| token.span.start),
    }))
}

/// Puts blanks where a clause stood, so that places in the text stay what they were.
fn blank(text: &mut String, place: &Range<Position>) {
    let (from, to) = (offset(text, place.start), offset(text, place.end));
    let blanks: String = text[from..to]
        .chars()
        .map(|letter| if letter == '\n' { '\n' } else { ' ' })
        .collect();
    text.replace_range(from..to, &blanks);
}

/// Puts the clauses among the symbols of the MATCH_RECOGNIZE they stood in.
struct Place {
    clauses: Vec<Clause>,
}

impl VisitorMut for Place {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::MatchRecognize { symbols, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let first = symbols.first().map(|symbol| symbol.symbol.span.start);
        let Some(index) = self.clauses.iter().position(|clause| Some(clause.symbol_at) == first) else {
            return ControlFlow::Continue(());
        };
        let clause = self.clauses.remove(index);
        let ident = |name: &str| Ident {
            value: name.to_owned(),
            quote_style: Some(QUOTE),
            span: clause.span,
        };
        if clause.shows_timed_out {
            symbols.push(SymbolDefinition {
                symbol: ident(SHOW_TIMED_OUT),
                definition: SqlExpr::Value(Value::Boolean(true).with_span(clause.span)),
            });
        }
        symbols.push(SymbolDefinition {
            symbol: ident(WITHIN),
            definition: clause.within,
        });
        ControlFlow::Continue(())
    }
}
