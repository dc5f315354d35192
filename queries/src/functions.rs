//! Aggregate functions of our own, beside all of DataFusion's: what streams are asked and SQL has no word for.

pub(crate) mod decayed;
pub(crate) mod own;
pub(crate) mod rate;
pub(crate) mod seen;
#[cfg(test)]
mod tests;

use datafusion::logical_expr::AggregateUDF;

use crate::functions::decayed::Decayed;
use crate::functions::own::OwnFunction;
use crate::functions::rate::Rate;
use crate::functions::seen::Seen;

/// All of them, as a session registers them.
pub(crate) fn own_functions() -> Vec<AggregateUDF> {
    vec![
        OwnFunction::<Decayed>::default().into(),
        OwnFunction::<Rate>::default().into(),
        Seen::first().into(),
        Seen::last().into(),
    ]
}
