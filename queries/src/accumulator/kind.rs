//! Which accumulator an aggregate runs on, decided once when its query is created.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::cell::{Cell, Cells};
use super::distinct::{Distinct, Numbers, Texts, has_native_distinct};
use super::edge::{Edge, EdgeCall};
use super::extreme::{extreme, has_native_extreme};
use super::spread::{Spread, SpreadCall};
use super::stock::RowAccumulators;
use super::verdict::{Verdict, VerdictCall};
use super::{Avg, Count, GroupAccumulator, SumFloat, SumInt};
use crate::functions::decayed::Decayed;
use crate::functions::own::Own;
use crate::functions::rate::Rate;
use crate::functions::seen::{FIRST_SEEN, LAST_SEEN};

/// Which accumulator an aggregate runs on; decided once when the query is created.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AggregateKind {
    /// `count(x)` without DISTINCT.
    Count,
    /// `sum` of integers, wrapping as DataFusion's does.
    SumInt,
    /// `sum` of floats.
    SumFloat,
    /// `avg` of floats.
    Avg,
    /// `min` or `max` of a type with a native accumulator.
    Extreme { greatest: bool, data_type: DataType },
    /// `first_value` or `last_value` of a plain type.
    Edge(EdgeCall),
    /// `bool_and` or `bool_or`.
    Verdict(VerdictCall),
    /// `var`, `stddev` and those of a population.
    Spread(SpreadCall),
    /// `count(DISTINCT x)` of whole numbers or times.
    DistinctNumbers,
    /// `count(DISTINCT x)` of texts.
    DistinctTexts,
    /// `decayed_sum`.
    Decayed(<Decayed as Cell>::Call),
    /// `rate`.
    Rate(<Rate as Cell>::Call),
    /// Any other aggregate of DataFusion.
    Row(Arc<AggregateFunctionExpr>),
}

impl AggregateKind {
    /// The kind of a call with arguments of these types, behind them those of its ORDER BY.
    ///
    /// # Errors
    /// When DataFusion has no accumulator for it, such as of `stddev(DISTINCT x)`, or when a constant is none.
    pub(crate) fn of(expr: &Arc<AggregateFunctionExpr>, argument_types: &[DataType]) -> Result<Self> {
        // Those of an ORDER BY, which stand behind, say something to first_value and last_value alone.
        let own_types = &argument_types[..expr.expressions().len()];
        let native = if expr.is_distinct() {
            Self::distinct(expr, own_types)
        } else {
            Self::plain(expr, own_types)?.or_else(|| Self::edge(expr, argument_types))
        };
        match native {
            Some(kind) => Ok(kind),
            None => {
                // Made once now, so that what DataFusion refuses is refused before the first row.
                expr.create_accumulator()?;
                Ok(Self::Row(Arc::clone(expr)))
            }
        }
    }

    /// Of a call without DISTINCT.
    fn plain(expr: &AggregateFunctionExpr, argument_types: &[DataType]) -> Result<Option<Self>> {
        Ok(match (expr.fun().name(), argument_types) {
            ("count", [_]) => Some(Self::Count),
            ("sum", [DataType::Int64]) => Some(Self::SumInt),
            ("sum", [DataType::Float64]) => Some(Self::SumFloat),
            ("avg", [DataType::Float64]) => Some(Self::Avg),
            ("bool_and", [DataType::Boolean]) => Some(Self::Verdict(VerdictCall::All)),
            ("bool_or", [DataType::Boolean]) => Some(Self::Verdict(VerdictCall::Any)),
            (Decayed::NAME, _) => Some(Self::Decayed(Decayed::call(&expr.expressions())?)),
            (Rate::NAME, _) => Some(Self::Rate(Rate::call(&expr.expressions())?)),
            (name, [data_type]) => match SpreadCall::named(name) {
                Some(call) => Some(Self::Spread(call)),
                None => Self::extreme(name, data_type),
            },
            _ => None,
        })
    }

    /// Of a call with DISTINCT, which changes nothing for an extreme.
    fn distinct(expr: &AggregateFunctionExpr, argument_types: &[DataType]) -> Option<Self> {
        match (expr.fun().name(), argument_types) {
            ("count", [DataType::Utf8]) => Some(Self::DistinctTexts),
            ("count", [data_type]) if has_native_distinct(data_type) => Some(Self::DistinctNumbers),
            (name, [data_type]) => Self::extreme(name, data_type),
            _ => None,
        }
    }

    fn extreme(name: &str, data_type: &DataType) -> Option<Self> {
        let greatest = match name {
            "max" | LAST_SEEN => true,
            "min" | FIRST_SEEN => false,
            _ => return None,
        };
        has_native_extreme(data_type).then(|| Self::Extreme {
            greatest,
            data_type: data_type.clone(),
        })
    }

    /// Of `first_value` or `last_value`.
    fn edge(expr: &AggregateFunctionExpr, argument_types: &[DataType]) -> Option<Self> {
        let is_last = match expr.fun().name() {
            "first_value" => false,
            "last_value" => true,
            _ => return None,
        };
        let order = expr.order_bys().first().map(|order| order.options);
        EdgeCall::of(is_last, order, expr.ignore_nulls(), argument_types).map(Self::Edge)
    }

    /// An accumulator without groups.
    pub(crate) fn create(&self) -> Box<dyn GroupAccumulator> {
        match self {
            Self::Count => Box::new(Count::default()),
            Self::SumInt => Box::new(SumInt::default()),
            Self::SumFloat => Box::new(SumFloat::default()),
            Self::Avg => Box::new(Avg::default()),
            Self::Extreme { greatest, data_type } => extreme(*greatest, data_type),
            Self::Edge(call) => Cells::<Edge>::boxed(call),
            Self::Verdict(call) => Cells::<Verdict>::boxed(call),
            Self::Spread(call) => Cells::<Spread>::boxed(call),
            Self::DistinctNumbers => Cells::<Distinct<Numbers>>::boxed(&()),
            Self::DistinctTexts => Cells::<Distinct<Texts>>::boxed(&()),
            Self::Decayed(half_life) => Cells::<Decayed>::boxed(half_life),
            Self::Rate(unit) => Cells::<Rate>::boxed(unit),
            Self::Row(expr) => Box::new(RowAccumulators::new(Arc::clone(expr))),
        }
    }
}
