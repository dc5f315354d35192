//! LIKE with a pattern that is fixed and says no more than where a text stands, made ready once.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
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

/// A pattern in which case makes no difference, for columns: Arrow's kernel makes a regular expression of it for each batch,
/// which takes longer than to look for it in most.
#[derive(Debug, Clone)]
struct AnyCase {
    stock: Arc<dyn PhysicalExpr>,
    like: Arc<Like>,
}

impl AnyCase {
    fn of(expression: &Arc<dyn PhysicalExpr>) -> Option<Self> {
        let like = Like::of(expression.downcast_ref::<LikeExpr>()?)?;
        like.any_case.is_some().then(|| Self {
            stock: Arc::clone(expression),
            like: Arc::new(like),
        })
    }
}

impl PartialEq for AnyCase {
    fn eq(&self, other: &Self) -> bool {
        self.stock.eq(&other.stock)
    }
}

impl Eq for AnyCase {}

impl Hash for AnyCase {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.stock.hash(state);
    }
}

impl fmt::Display for AnyCase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stock.fmt(formatter)
    }
}

impl PhysicalExpr for AnyCase {
    fn data_type(&self, input_schema: &Schema) -> Result<DataType> {
        self.stock.data_type(input_schema)
    }

    fn nullable(&self, input_schema: &Schema) -> Result<bool> {
        self.stock.nullable(input_schema)
    }

    fn return_field(&self, input_schema: &Schema) -> Result<FieldRef> {
        self.stock.return_field(input_schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let text = self.stock.children()[0].evaluate(batch)?;
        let ColumnarValue::Array(array) = &text else {
            return self.stock.evaluate(batch);
        };
        let Some(texts) = array.as_string_opt::<i32>() else {
            return self.stock.evaluate(batch);
        };
        let holds = |row| texts.is_valid(row) && self.like.holds(texts.value(row));
        let values = BooleanBuffer::collect_bool(texts.len(), holds);
        let found = BooleanArray::new(values, texts.nulls().cloned());
        Ok(ColumnarValue::Array(Arc::new(found)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.stock.children()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let stock = Arc::clone(&self.stock).with_new_children(children)?;
        Ok(made_ready(&stock).unwrap_or(stock))
    }

    fn fmt_sql(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stock.fmt_sql(formatter)
    }
}

fn made_ready(expression: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
    AnyCase::of(expression).map(|any_case| Arc::new(any_case) as Arc<dyn PhysicalExpr>)
}

/// The same expression, its patterns made ready where Arrow's kernel would make them ready for each batch.
pub(super) fn patterns_made_ready(expression: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let ready = expression.transform_up(|node| {
        Ok(match made_ready(&node) {
            Some(ready) => Transformed::yes(ready),
            None => Transformed::no(node),
        })
    })?;
    Ok(ready.data)
}
