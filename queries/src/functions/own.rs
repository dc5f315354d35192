//! An own function as DataFusion knows it: the cell that runs natively, wrapped for a bounded run.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, Schema, TimeUnit};
use datafusion::common::{Result, ScalarValue, internal_datafusion_err, plan_datafusion_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, ColumnarValue, Signature, Volatility};
use datafusion::physical_expr::PhysicalExpr;

use crate::accumulator::cell::Cell;
use crate::value::Value;

/// A cell that is a function of SQL. Its answer and state do not hang on the call's constants, nor on the order of
/// rows but for the last digits.
pub(crate) trait Own: Cell {
    /// Its name in SQL.
    const NAME: &'static str;
    /// How it is called, for those who called it otherwise.
    const USAGE: &'static str;
    /// The type of its answer.
    const ANSWER: DataType;
    /// The types of its state.
    const STATE: &'static [DataType];

    /// The arguments' types, as near to those given as it takes them; `None` when it does not.
    fn coerced(given: &[DataType]) -> Option<Vec<DataType>>;
    /// What the arguments say for all groups.
    fn call(args: &[Arc<dyn PhysicalExpr>]) -> Result<Self::Call>;
}

/// An own function as DataFusion plans it.
pub(crate) struct OwnFunction<C> {
    signature: Signature,
    cell: PhantomData<fn() -> C>,
}

impl<C> Default for OwnFunction<C> {
    fn default() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
            cell: PhantomData,
        }
    }
}

impl<C: Own> fmt::Debug for OwnFunction<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(C::NAME)
    }
}

impl<C> PartialEq for OwnFunction<C> {
    fn eq(&self, _other: &Self) -> bool {
        true // of one cell there is one function
    }
}

impl<C> Eq for OwnFunction<C> {}

impl<C: Own> Hash for OwnFunction<C> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        C::NAME.hash(state);
    }
}

impl<C: Own> AggregateUDFImpl for OwnFunction<C> {
    fn name(&self) -> &str {
        C::NAME
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        C::coerced(given).ok_or_else(|| {
            let given: Vec<String> = given.iter().map(ToString::to_string).collect();
            plan_datafusion_err!("{} does not take ({}); {}", C::NAME, given.join(", "), C::USAGE)
        })
    }
    fn return_type(&self, _args: &[DataType]) -> Result<DataType> {
        Ok(C::ANSWER)
    }
    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return plan_err!("{} adds up rows, equal or not: leave DISTINCT out", C::NAME);
        }
        Ok(Box::new(OneCell {
            call: C::call(args.exprs)?,
            cell: C::default(),
        }))
    }
    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let named = |(index, data_type): (usize, &DataType)| {
            let name = format_state_name(args.name, &format!("{}_{index}", C::NAME));
            Arc::new(Field::new(name, data_type.clone(), true))
        };
        Ok(C::STATE.iter().enumerate().map(named).collect())
    }
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// One group, as a bounded run accumulates it.
#[derive(Debug)]
struct OneCell<C: Own> {
    call: C::Call,
    cell: C,
}

impl<C: Own> Accumulator for OneCell<C> {
    fn update_batch(&mut self, args: &[ArrayRef]) -> Result<()> {
        let rows = (0..args[0].len()).map(|row| (0, row));
        C::take_rows(std::slice::from_mut(&mut self.cell), &self.call, rows, args);
        Ok(())
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.cell.value(&self.call).to_scalar(&C::ANSWER)
    }
    fn size(&self) -> usize {
        size_of_val(self) + self.cell.heap_bytes()
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.cell
            .state(&self.call)
            .iter()
            .zip(C::STATE)
            .map(|(value, data_type)| value.to_scalar(data_type))
            .collect()
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for row in 0..states[0].len() {
            let state: Vec<Value> = states.iter().map(|column| Value::at(column, row)).collect();
            let later = C::restored(&self.call, &state)
                .ok_or_else(|| internal_datafusion_err!("{} never keeps {state:?}", C::NAME))?;
            self.cell.merge(&self.call, &later);
        }
        Ok(())
    }
}

/// The type a time is taken as.
pub(super) const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// The type an interval is taken as.
pub(super) const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// DOUBLE, for a number.
pub(super) fn number(given: &DataType) -> Option<DataType> {
    (given.is_numeric() || *given == DataType::Null).then_some(DataType::Float64)
}

/// TIMESTAMP in microseconds, for a time.
pub(super) fn time(given: &DataType) -> Option<DataType> {
    matches!(
        given,
        DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64 | DataType::Null
    )
    .then_some(TIME)
}

/// INTERVAL, for an interval.
pub(super) fn interval(given: &DataType) -> Option<DataType> {
    matches!(given, DataType::Interval(_) | DataType::Null).then_some(INTERVAL)
}

/// The microseconds of an interval that is the same for all rows and longer than none; `what` it is called, of `whose`.
#[allow(clippy::cast_precision_loss)] // an interval of more than 285 years is not told to the microsecond
pub(super) fn constant_us(arg: &Arc<dyn PhysicalExpr>, what: &str, whose: &str) -> Result<f64> {
    let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
    let constant = match arg.evaluate(&nothing) {
        Ok(ColumnarValue::Scalar(constant)) => constant,
        _ => {
            return plan_err!(
                "the {what} of {whose} is another for each row ({arg}); write it out, as INTERVAL '30 minutes'"
            );
        }
    };
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = constant else {
        return plan_err!("the {what} of {whose} is {constant}; an interval was expected, as INTERVAL '30 minutes'");
    };
    if interval.months != 0 {
        return plan_err!("the {what} of {whose} has months, which are not all of one length; say it in days or less");
    }
    let us = f64::from(interval.days) * 86_400e6 + interval.nanoseconds as f64 / 1e3;
    if us <= 0.0 {
        return plan_err!("the {what} of {whose} is not longer than none; say one such as INTERVAL '30 minutes'");
    }
    Ok(us)
}
