//! LIKE with a pattern that is fixed and says no more than where a text stands, of a single row.

use datafusion::common::ScalarValue;
use datafusion::physical_expr::expressions::{LikeExpr, Literal};
use regex::{Regex, RegexBuilder};

/// What has special meaning in a pattern.
const SPECIAL: [char; 3] = ['%', '_', '\\'];

#[derive(Debug, PartialEq, Eq)]
enum Where {
    All,
    Start,
    End,
    Anywhere,
}

/// A pattern that needs no regular expression where case makes a difference; Arrow's kernel tells the same ones apart.
#[derive(Debug)]
pub(super) struct Like {
    text: String,
    stands: Where,
    negated: bool,
    /// Where case makes no difference, what Arrow's kernel looks for: so letters that differ in case alone are the same here.
    any_case: Option<Regex>,
}

impl Like {
    /// `None` for any other pattern.
    pub(super) fn of(like: &LikeExpr) -> Option<Self> {
        let pattern = like.pattern().downcast_ref::<Literal>()?;
        let ScalarValue::Utf8(Some(pattern)) = pattern.value() else {
            return None;
        };
        let (text, stands) = Self::parts(pattern)?;
        let any_case = match like.case_insensitive() {
            true => Some(Self::any_case(text, &stands)?),
            false => None,
        };
        Some(Self {
            text: text.to_owned(),
            stands,
            negated: like.negated(),
            any_case,
        })
    }

    fn any_case(text: &str, stands: &Where) -> Option<Regex> {
        let start = if matches!(stands, Where::All | Where::Start) {
            "^"
        } else {
            ""
        };
        let end = if matches!(stands, Where::All | Where::End) {
            "$"
        } else {
            ""
        };
        let pattern = format!("{start}{}{end}", regex::escape(text));
        RegexBuilder::new(&pattern).case_insensitive(true).build().ok()
    }

    fn parts(pattern: &str) -> Option<(&str, Where)> {
        let (text, has_start) = match pattern.strip_prefix('%') {
            Some(text) => (text, false),
            None => (pattern, true),
        };
        let (text, has_end) = match text.strip_suffix('%') {
            Some(text) => (text, false),
            None => (text, true),
        };
        let stands = match (has_start, has_end) {
            (true, true) => Where::All,
            (true, false) => Where::Start,
            (false, true) => Where::End,
            (false, false) => Where::Anywhere,
        };
        (!text.contains(SPECIAL)).then_some((text, stands))
    }

    pub(super) fn holds(&self, text: &str) -> bool {
        let part = self.text.as_str();
        let found = match (&self.any_case, &self.stands) {
            (Some(any_case), _) => any_case.is_match(text),
            (None, Where::All) => text == part,
            (None, Where::Start) => text.starts_with(part),
            (None, Where::End) => text.ends_with(part),
            (None, Where::Anywhere) => text.contains(part),
        };
        found != self.negated
    }
}
