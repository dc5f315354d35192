//! A time bound says how far apart in time two rows may be that are joined; it is read off the conditions of a join.

use std::collections::BTreeMap;

use datafusion::common::{Column, DFSchema, NullEquality, Result, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, Join, Operator};

use crate::streams::time_type;

/// A day, microseconds: event times have no time zone, so that none is longer.
const DAY_US: i64 = 86_400_000_000;

/// `low_us ≤ right time − left time ≤ high_us`, and what else a join asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TimeBound {
    /// The time column of the left side.
    pub(crate) left: Column,
    /// The time column of the right side.
    pub(crate) right: Column,
    /// The least difference, microseconds.
    pub(crate) low_us: i64,
    /// The greatest difference, microseconds.
    pub(crate) high_us: i64,
    /// The conditions of the join's filter that the bound does not say.
    pub(crate) rest: Vec<Expr>,
}

/// A pair of columns by their numbers, and the least and greatest difference right − left that was said, microseconds.
type Said = ((usize, usize), Option<i64>, Option<i64>);

/// What the conditions say of the difference between one pair of time columns.
#[derive(Default)]
struct Limits {
    low_us: Option<i64>,
    high_us: Option<i64>,
    /// The conditions that say it and nothing else, by their number.
    said_by: Vec<usize>,
}

impl TimeBound {
    /// The bound of a join, where its conditions bound the difference of a time of each side from below and above; of
    /// several pairs of columns the one that is bound most narrowly, and of those alike the last: a window's end is nearer
    /// to the watermark than its beginning.
    ///
    /// # Errors
    /// When the type of a column can't be told.
    pub(crate) fn of(join: &Join) -> Result<Option<Self>> {
        let (left, right) = (join.left.schema().as_ref(), join.right.schema().as_ref());
        let filter: Vec<&Expr> = join.filter.iter().flat_map(split_conjunction).collect();
        // NULL would be equal to NULL in the keys of such a join, and a row without a time has no place in a bound.
        let keys = match join.null_equality {
            NullEquality::NullEqualsNothing => join.on.as_slice(),
            NullEquality::NullEqualsNull => &[],
        };
        let equal = keys
            .iter()
            .map(|(left, right)| vec![(left.clone(), Operator::Eq, right.clone())]);
        let asked = filter.iter().map(|condition| comparisons(condition));
        let mut pairs: BTreeMap<(usize, usize), Limits> = BTreeMap::new();
        for (number, comparisons) in asked.chain(equal).enumerate() {
            let mut said = Vec::with_capacity(comparisons.len());
            for (one, operator, other) in &comparisons {
                let both = linear(one, left, right)?.zip(linear(other, left, right)?);
                said.extend(both.and_then(|(one, other)| one.minus(other).limits(*operator)));
            }
            let says_all = said.len() == comparisons.len() && said.windows(2).all(|two| two[0].0 == two[1].0);
            for (pair, low_us, high_us) in said {
                let limits = pairs.entry(pair).or_default();
                limits.low_us = limits.low_us.max(low_us);
                limits.high_us = match (limits.high_us, high_us) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
                if says_all {
                    limits.said_by.push(number);
                }
            }
        }
        let bounds = pairs.into_iter().rev().filter_map(|((of_left, of_right), limits)| {
            Some(Self {
                left: Column::from(left.qualified_field(of_left)),
                right: Column::from(right.qualified_field(of_right)),
                low_us: limits.low_us?,
                high_us: limits.high_us?,
                rest: (0..filter.len())
                    .filter(|number| !limits.said_by.contains(number))
                    .map(|number| filter[number].clone())
                    .collect(),
            })
        });
        Ok(bounds.min_by_key(|bound| bound.high_us.saturating_sub(bound.low_us)))
    }
}

/// A condition as comparisons that all hold where it holds.
fn comparisons(condition: &Expr) -> Vec<(Expr, Operator, Expr)> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => vec![(left.as_ref().clone(), *op, right.as_ref().clone())],
        Expr::Between(Between {
            expr,
            negated: false,
            low,
            high,
        }) => vec![
            (expr.as_ref().clone(), Operator::GtEq, low.as_ref().clone()),
            (expr.as_ref().clone(), Operator::LtEq, high.as_ref().clone()),
        ],
        _ => Vec::new(),
    }
}

/// A sum of time columns, each so many times, and a length of time.
#[derive(Debug, Default, PartialEq)]
struct Linear {
    left: BTreeMap<usize, i64>,
    right: BTreeMap<usize, i64>,
    constant_us: i64,
}

impl Linear {
    fn plus(mut self, other: Self, times: i64) -> Self {
        for (into, from) in [(&mut self.left, other.left), (&mut self.right, other.right)] {
            for (column, count) in from {
                *into.entry(column).or_default() += count * times;
            }
            into.retain(|_, count| *count != 0);
        }
        self.constant_us = self.constant_us.saturating_add(other.constant_us.saturating_mul(times));
        self
    }

    fn minus(self, other: Self) -> Self {
        self.plus(other, -1)
    }

    /// Whether it is a length of time and no time.
    fn is_length(&self) -> bool {
        self.left.values().chain(self.right.values()).sum::<i64>() == 0
    }

    /// What `self <operator> 0` says: the pair of columns, and the least and greatest difference right − left.
    fn limits(&self, operator: Operator) -> Option<Said> {
        let mut left = self.left.iter();
        let mut right = self.right.iter();
        let ((of_left, left_count), (of_right, right_count)) = (left.next()?, right.next()?);
        if left.next().is_some() || right.next().is_some() {
            return None;
        }
        // right − left + constant <operator> 0, or the same with both sides of the sign negated.
        let (operator, constant_us) = match (left_count, right_count) {
            (-1, 1) => (operator, self.constant_us),
            (1, -1) => (operator.swap()?, -self.constant_us),
            _ => return None,
        };
        let at = -constant_us;
        let (low_us, high_us) = match operator {
            Operator::Eq => (Some(at), Some(at)),
            Operator::GtEq => (Some(at), None),
            Operator::Gt => (Some(at.saturating_add(1)), None),
            Operator::LtEq => (None, Some(at)),
            Operator::Lt => (None, Some(at.saturating_sub(1))),
            _ => return None,
        };
        Some(((*of_left, *of_right), low_us, high_us))
    }
}

/// An expression as a sum of time columns of both sides and a length of time, where it is one.
fn linear(expr: &Expr, left: &DFSchema, right: &DFSchema) -> Result<Option<Linear>> {
    Ok(match expr {
        Expr::Alias(alias) => linear(&alias.expr, left, right)?,
        Expr::Column(column) => {
            let mut sum = Linear::default();
            let side = match (left.maybe_index_of_column(column), right.maybe_index_of_column(column)) {
                (Some(index), None) => (left, index, &mut sum.left),
                (None, Some(index)) => (right, index, &mut sum.right),
                _ => return Ok(None),
            };
            side.2.insert(side.1, 1);
            (expr.get_type(side.0)? == time_type()).then_some(sum)
        }
        Expr::BinaryExpr(BinaryExpr {
            left: one,
            op: op @ (Operator::Plus | Operator::Minus),
            right: other,
        }) => {
            let times = if *op == Operator::Plus { 1 } else { -1 };
            let both = linear(one, left, right)?.zip(linear(other, left, right)?);
            both.map(|(one, other)| one.plus(other, times))
        }
        Expr::Negative(inner) => linear(inner, left, right)?.map(|inner| Linear::default().minus(inner)),
        // A difference of two times is a duration, and is cast to be compared with an interval.
        Expr::Cast(cast) => linear(&cast.expr, left, right)?.filter(|inner| {
            use arrow::datatypes::DataType::{Duration, Interval};
            inner.is_length() && matches!(cast.field.data_type(), Duration(_) | Interval(_))
        }),
        Expr::Literal(scalar, _) => length_us(scalar).map(|constant_us| Linear {
            constant_us,
            ..Linear::default()
        }),
        _ => None,
    })
}

/// A length of time in whole microseconds; `None` for what has none, as a month, or for more than an `i64` holds.
pub(crate) fn length_us(scalar: &ScalarValue) -> Option<i64> {
    let whole = |nanoseconds: i64| (nanoseconds % 1_000 == 0).then_some(nanoseconds / 1_000);
    match scalar {
        ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 => {
            whole(interval.nanoseconds)?.checked_add(i64::from(interval.days).checked_mul(DAY_US)?)
        }
        ScalarValue::IntervalDayTime(Some(interval)) => {
            let days_us = i64::from(interval.days).checked_mul(DAY_US)?;
            days_us.checked_add(i64::from(interval.milliseconds) * 1_000)
        }
        ScalarValue::DurationSecond(Some(seconds)) => seconds.checked_mul(1_000_000),
        ScalarValue::DurationMillisecond(Some(milliseconds)) => milliseconds.checked_mul(1_000),
        ScalarValue::DurationMicrosecond(Some(microseconds)) => Some(*microseconds),
        ScalarValue::DurationNanosecond(Some(nanoseconds)) => whole(*nanoseconds),
        _ => None,
    }
}

/// A length of time as people write it, with its sign.
pub(crate) fn shown_us(us: i64) -> String {
    let length = humantime::format_duration(std::time::Duration::from_micros(us.unsigned_abs()));
    format!("{}{length}", if us < 0 { "-" } else { "" })
}
