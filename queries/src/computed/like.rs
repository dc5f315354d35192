//! LIKE with a pattern that is fixed and says no more than where a text stands, of a single row.

use datafusion::common::ScalarValue;
use datafusion::physical_expr::expressions::{LikeExpr, Literal};

/// What has special meaning in a pattern.
const SPECIAL: [char; 3] = ['%', '_', '\\'];

#[derive(Debug, PartialEq, Eq)]
enum Where {
    All,
    Start,
    End,
    Anywhere,
}

/// A pattern that needs no regular expression; Arrow's kernel tells the same ones apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Like {
    text: String,
    stands: Where,
    negated: bool,
}

impl Like {
    /// `None` for any other pattern, and where case makes no difference.
    pub(super) fn of(like: &LikeExpr) -> Option<Self> {
        let pattern = like.pattern().downcast_ref::<Literal>()?;
        let ScalarValue::Utf8(Some(pattern)) = pattern.value() else {
            return None;
        };
        if like.case_insensitive() {
            return None;
        }
        let (text, stands) = Self::parts(pattern)?;
        Some(Self {
            text: text.to_owned(),
            stands,
            negated: like.negated(),
        })
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
        let found = match self.stands {
            Where::All => text == part,
            Where::Start => text.starts_with(part),
            Where::End => text.ends_with(part),
            Where::Anywhere => text.contains(part),
        };
        found != self.negated
    }
}
