//! What the tokens of a clause are that sqlparser does not read, and what is wrong with them.

use datafusion::common::{DataFusionError, Diagnostic, Location, Span, plan_datafusion_err};
use datafusion::sql::sqlparser::tokenizer::{Location as SqlLocation, Span as SqlSpan, Token, TokenWithSpan};

/// A mistake in a clause: what is wrong, and what would be right.
pub(crate) fn mistake(span: SqlSpan, wrong: impl Into<String>, right: impl Into<String>) -> DataFusionError {
    let (wrong, right) = (wrong.into(), right.into());
    let place = |at: SqlLocation| Location {
        line: at.line,
        column: at.column,
    };
    let span = (span.start.line > 0).then(|| Span::new(place(span.start), place(span.end)));
    let error = plan_datafusion_err!("{wrong}; {right}");
    if span.is_none() {
        return error;
    }
    let mut diagnostic = Diagnostic::new_error(wrong, span);
    diagnostic.add_note(right, None);
    error.with_diagnostic(diagnostic)
}

/// Whether that token is that word, in any case and without quotes.
pub(crate) fn is_word(token: Option<&TokenWithSpan>, word: &str) -> bool {
    matches!(token.map(|token| &token.token),
        Some(Token::Word(found)) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}
