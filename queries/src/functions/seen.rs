//! `first_seen(time)` and `last_seen(time)`: the earliest and latest time, by names that say what is meant.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, plan_datafusion_err};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::own::{TIME, time};

/// The name of `min` of a time.
pub(crate) const FIRST_SEEN: &str = "first_seen";
/// The name of `max` of a time.
pub(crate) const LAST_SEEN: &str = "last_seen";

/// DataFusion's `min` or `max` of a TIMESTAMP, under another name. NULL times are passed over; NULL when there is no
/// other.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    name: &'static str,
    extreme: Arc<AggregateUDF>,
    signature: Signature,
}

impl Seen {
    fn new(name: &'static str, extreme: Arc<AggregateUDF>) -> Self {
        Self {
            name,
            extreme,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }

    /// `first_seen(time)`.
    pub(super) fn first() -> Self {
        Self::new(FIRST_SEEN, min_udaf())
    }

    /// `last_seen(time)`.
    pub(super) fn last() -> Self {
        Self::new(LAST_SEEN, max_udaf())
    }
}

impl AggregateUDFImpl for Seen {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let coerced = match given {
            [at] => time(at).map(|coerced| vec![coerced]),
            _ => None,
        };
        coerced.ok_or_else(|| {
            let given: Vec<String> = given.iter().map(ToString::to_string).collect();
            let (name, given) = (self.name, given.join(", "));
            plan_datafusion_err!("{name} does not take ({given}); {name}(time) was expected, as {name}(event_time)")
        })
    }
    fn return_type(&self, _args: &[DataType]) -> Result<DataType> {
        Ok(TIME)
    }
    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.extreme.accumulator(args)
    }
    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.extreme.state_fields(args)
    }
    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.extreme.groups_accumulator_supported(args)
    }
    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.extreme.create_groups_accumulator(args)
    }
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}
