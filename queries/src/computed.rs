//! A computed expression gives a column of a batch through DataFusion, or one value of a single row without it.
//!
//! A kernel call costs the same for one row as for a hundred, and touches code and memory that a core at rest has long
//! lost. So what a row by itself needs most is evaluated here, on plain values; the rest goes through DataFusion. Both
//! ways give the same values and fail alike, which the tests below hold against each other.

mod like;
mod stock;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::error::ArrowError;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::{Result, ScalarValue, exec_err, internal_datafusion_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{ColumnarValue, Operator, ScalarFunctionArgs, ScalarUDF};
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NotExpr,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use self::like::{Like, patterns_made_ready};
use self::stock::Stock;
use crate::typed::typed;
use crate::value::{Value, is_plain};

/// An expression over rows of one schema.
#[derive(Debug, Clone)]
pub(crate) struct Computed {
    stock: Arc<dyn PhysicalExpr>,
    single: Single,
}

impl Computed {
    /// Prepares an expression of DataFusion's for rows of `schema`.
    ///
    /// # Errors
    /// When a type can't be told.
    pub(crate) fn new(expression: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Self> {
        Ok(Self {
            single: Single::of(&expression, schema)?,
            stock: typed(patterns_made_ready(expression)?, schema)?,
        })
    }

    /// The column it gives for a batch.
    pub(crate) fn column(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let rows = batch.num_rows();
        let column = self.stock.evaluate(batch).and_then(|given| given.into_array(rows));
        match column {
            // Among others a row may be evaluated behind a condition that spares it when it is alone: `b <> 0 AND
            // a / b > 1`. What an expression gives must not depend on how rows were put into batches, so only a row
            // that fails by itself makes it fail.
            Err(_) if rows > 1 => self.column_of_single_rows(batch),
            column => column,
        }
    }

    fn column_of_single_rows(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let data_type = self.data_type(batch.schema_ref())?;
        let mut cells = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let values: Vec<Value> = batch.columns().iter().map(|column| Value::at(column, row)).collect();
            cells.push(self.value(&values)?.to_array(&data_type));
        }
        let cells: Vec<&dyn Array> = cells.iter().map(AsRef::as_ref).collect();
        Ok(arrow::compute::concat(&cells)?)
    }

    /// Where it holds, for a condition; a null counts as false, as in WHERE.
    pub(crate) fn mask(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let array = self.column(batch)?;
        let mask = as_boolean_array(&array)?;
        Ok(match mask.nulls() {
            Some(_) => arrow::compute::prep_null_mask_filter(mask),
            None => mask.clone(),
        })
    }

    /// The value it gives for one row.
    pub(crate) fn value(&self, row: &[Value]) -> Result<Value> {
        self.single.value(row)
    }

    /// Whether it holds, for a condition; a null counts as false.
    pub(crate) fn holds(&self, row: &[Value]) -> Result<bool> {
        let mut made = Value::Null;
        Ok(matches!(self.single.see(row, &mut made)?, Value::Bool(true)))
    }

    /// Whether some row could make it fail, as far as is known.
    pub(crate) fn can_fail(&self) -> bool {
        self.single.can_fail()
    }

    /// The type it gives for rows of `schema`.
    pub(crate) fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.stock.data_type(schema)
    }
}

impl PartialEq for Computed {
    fn eq(&self, other: &Self) -> bool {
        *self.stock == *other.stock
    }
}

impl fmt::Display for Computed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stock.fmt(formatter)
    }
}

/// The columns `expressions` give for a batch.
pub(crate) fn columns(expressions: &[Computed], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    expressions.iter().map(|expression| expression.column(batch)).collect()
}

/// The values `expressions` give for one row.
pub(crate) fn values<C: FromIterator<Value>>(expressions: &[Computed], row: &[Value]) -> Result<C> {
    expressions.iter().map(|expression| expression.value(row)).collect()
}

#[derive(Debug, Clone, Copy)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Arithmetic {
    fn of(operator: Operator) -> Option<Self> {
        Some(match operator {
            Operator::Plus => Self::Add,
            Operator::Minus => Self::Subtract,
            Operator::Multiply => Self::Multiply,
            Operator::Divide => Self::Divide,
            Operator::Modulo => Self::Remainder,
            _ => return None,
        })
    }

    /// As DataFusion's kernels: integers wrap, and only a division can fail; floats follow IEEE 754.
    fn apply(self, left: &Value, right: &Value) -> Result<Value> {
        Ok(match (left, right) {
            (Value::Int(left), Value::Int(right)) => Value::Int(match self {
                Self::Add => left.wrapping_add(*right),
                Self::Subtract => left.wrapping_sub(*right),
                Self::Multiply => left.wrapping_mul(*right),
                Self::Divide => left.div_checked(*right)?,
                Self::Remainder if *right == 0 => return Err(ArrowError::DivideByZero.into()),
                Self::Remainder => left.mod_wrapping(*right),
            }),
            (Value::Float(left), Value::Float(right)) => Value::Float(match self {
                Self::Add => left + right,
                Self::Subtract => left - right,
                Self::Multiply => left * right,
                Self::Divide => left / right,
                Self::Remainder => left % right,
            }),
            _ => Value::Null,
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Distinct,
    NotDistinct,
}

impl Comparison {
    fn of(operator: Operator) -> Option<Self> {
        Some(match operator {
            Operator::Eq => Self::Equal,
            Operator::NotEq => Self::NotEqual,
            Operator::Lt => Self::Less,
            Operator::LtEq => Self::LessOrEqual,
            Operator::Gt => Self::Greater,
            Operator::GtEq => Self::GreaterOrEqual,
            Operator::IsDistinctFrom => Self::Distinct,
            Operator::IsNotDistinctFrom => Self::NotDistinct,
            _ => return None,
        })
    }

    fn apply(self, left: &Value, right: &Value) -> Value {
        let ordering = match (left, right) {
            (Value::Null, Value::Null) => return self.of_nulls(true),
            (Value::Null, _) | (_, Value::Null) => return self.of_nulls(false),
            // DataFusion's comparisons know one zero; adding it turns the negative one into it.
            (Value::Float(left), Value::Float(right)) => (left + 0.0).total_cmp(&(right + 0.0)),
            _ => match ordering(left, right) {
                Some(ordering) => ordering,
                None => return Value::Null,
            },
        };
        Value::Bool(match self {
            Self::Equal | Self::NotDistinct => ordering == Ordering::Equal,
            Self::NotEqual | Self::Distinct => ordering != Ordering::Equal,
            Self::Less => ordering == Ordering::Less,
            Self::LessOrEqual => ordering != Ordering::Greater,
            Self::Greater => ordering == Ordering::Greater,
            Self::GreaterOrEqual => ordering != Ordering::Less,
        })
    }

    fn of_nulls(self, both: bool) -> Value {
        match self {
            Self::Distinct => Value::Bool(!both),
            Self::NotDistinct => Value::Bool(both),
            _ => Value::Null,
        }
    }
}

/// The order of two values of one type that are no nulls; floats by their total order, as Arrow has it.
pub(crate) fn ordering(left: &Value, right: &Value) -> Option<Ordering> {
    Some(match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Int(left), Value::Int(right)) | (Value::Time(left), Value::Time(right)) => left.cmp(right),
        (Value::Float(left), Value::Float(right)) => left.total_cmp(right),
        (Value::Text(left), Value::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
        _ => return None,
    })
}

/// A square root; of a negative number it is an error, as in DataFusion's.
fn square_root(value: f64) -> Result<f64> {
    if value < 0.0 {
        return exec_err!("cannot take square root of a negative number");
    }
    Ok(value.sqrt())
}

/// An expression as it is evaluated for one row.
#[derive(Debug, Clone)]
enum Single {
    Column(usize),
    Literal(Value),
    Arithmetic(Arithmetic, Box<(Single, Single)>),
    Comparison(Comparison, Box<(Single, Single)>),
    And(Box<(Single, Single)>),
    Or(Box<(Single, Single)>),
    Not(Box<Single>),
    IsNull(Box<Single>),
    IsNotNull(Box<Single>),
    IntToFloat(Box<Single>),
    FloatToInt(Box<Single>),
    /// The greatest or the least of those that are no null.
    Extreme(Ordering, Vec<Single>),
    OfFloat(fn(f64) -> Result<f64>, Box<Single>),
    /// Conditions with their values, then what else.
    Case(Vec<(Single, Single)>, Option<Box<Single>>),
    Like(Arc<Like>, Box<Single>),
    Call(Arc<Call>),
    Stock(Arc<Stock>),
}

impl Single {
    fn of(expression: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Self> {
        match Self::plain(expression, schema)? {
            Some(single) => Ok(single),
            None => Ok(Self::Stock(Arc::new(Stock::new(expression, schema)?))),
        }
    }

    /// `None` for what only DataFusion can.
    fn plain(expression: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Option<Self>> {
        let of = |child: &Arc<dyn PhysicalExpr>| Self::of(child, schema).map(Box::new);
        if let Some(column) = expression.downcast_ref::<Column>() {
            return Ok(Some(Self::Column(column.index())));
        }
        if let Some(literal) = expression.downcast_ref::<Literal>() {
            return Ok(Some(Self::Literal(Value::from_scalar(literal.value())?)));
        }
        if let Some(binary) = expression.downcast_ref::<BinaryExpr>() {
            return Self::binary(binary, schema);
        }
        if let Some(not) = expression.downcast_ref::<NotExpr>() {
            let is_boolean = not.arg().data_type(schema)? == DataType::Boolean;
            return Ok(if is_boolean {
                Some(Self::Not(of(not.arg())?))
            } else {
                None
            });
        }
        if let Some(is_null) = expression.downcast_ref::<IsNullExpr>() {
            return Ok(Some(Self::IsNull(of(is_null.arg())?)));
        }
        if let Some(is_not_null) = expression.downcast_ref::<IsNotNullExpr>() {
            return Ok(Some(Self::IsNotNull(of(is_not_null.arg())?)));
        }
        if let Some(cast) = expression.downcast_ref::<CastExpr>() {
            let from = cast.expr().data_type(schema)?;
            return Ok(match (&from, cast.cast_type()) {
                (DataType::Int64, DataType::Float64) => Some(Self::IntToFloat(of(cast.expr())?)),
                (DataType::Float64, DataType::Int64) if !cast.cast_options().safe => {
                    Some(Self::FloatToInt(of(cast.expr())?))
                }
                (from, to) if from == to => Some(Self::of(cast.expr(), schema)?),
                _ => None,
            });
        }
        if let Some(like) = expression.downcast_ref::<LikeExpr>() {
            let is_text = like.expr().data_type(schema)? == DataType::Utf8;
            return match Like::of(like).filter(|_| is_text) {
                Some(plain) => Ok(Some(Self::Like(Arc::new(plain), of(like.expr())?))),
                None => Ok(None),
            };
        }
        if let Some(case) = expression.downcast_ref::<CaseExpr>() {
            if case.expr().is_some() {
                return Ok(None);
            }
            let branches = case
                .when_then_expr()
                .iter()
                .map(|(when, then)| Ok((Self::of(when, schema)?, Self::of(then, schema)?)))
                .collect::<Result<_>>()?;
            let otherwise = case.else_expr().map(of).transpose()?;
            return Ok(Some(Self::Case(branches, otherwise)));
        }
        if let Some(function) = expression.downcast_ref::<ScalarFunctionExpr>() {
            return Self::function(function, schema);
        }
        Ok(None)
    }

    fn binary(binary: &BinaryExpr, schema: &Schema) -> Result<Option<Self>> {
        let (left, right) = (binary.left().data_type(schema)?, binary.right().data_type(schema)?);
        if left != right || !is_plain(&left) {
            return Ok(None);
        }
        let sides = || {
            Ok::<_, datafusion::common::DataFusionError>(Box::new((
                Self::of(binary.left(), schema)?,
                Self::of(binary.right(), schema)?,
            )))
        };
        let is_number = matches!(left, DataType::Int64 | DataType::Float64);
        Ok(match binary.op() {
            Operator::And => Some(Self::And(sides()?)),
            Operator::Or => Some(Self::Or(sides()?)),
            operator => match (Arithmetic::of(*operator), Comparison::of(*operator)) {
                (Some(arithmetic), _) if is_number => Some(Self::Arithmetic(arithmetic, sides()?)),
                (_, Some(comparison)) => Some(Self::Comparison(comparison, sides()?)),
                _ => None,
            },
        })
    }

    fn function(function: &ScalarFunctionExpr, schema: &Schema) -> Result<Option<Self>> {
        let types = function
            .args()
            .iter()
            .map(|argument| argument.data_type(schema))
            .collect::<Result<Vec<_>>>()?;
        if let ([DataType::Float64], [argument]) = (types.as_slice(), function.args()) {
            let of_float: Option<fn(f64) -> Result<f64>> = match function.name() {
                "ceil" => Some(|value| Ok(value.ceil())),
                "floor" => Some(|value| Ok(value.floor())),
                "sqrt" => Some(square_root),
                _ => None,
            };
            if let Some(of_float) = of_float {
                return Ok(Some(Self::OfFloat(of_float, Box::new(Self::of(argument, schema)?))));
            }
        }
        if !is_plain(function.return_type()) {
            return Ok(None);
        }
        let extreme = match function.name() {
            "greatest" => Some(Ordering::Greater),
            "least" => Some(Ordering::Less),
            _ => None,
        };
        if let Some(wins) = extreme
            && types.iter().all(|data_type| data_type == function.return_type())
        {
            let of = function.args().iter().map(|argument| Self::of(argument, schema));
            return Ok(Some(Self::Extreme(wins, of.collect::<Result<_>>()?)));
        }
        let mut arguments = Vec::with_capacity(types.len());
        for (argument, data_type) in function.args().iter().zip(types) {
            arguments.push(match argument.downcast_ref::<Literal>() {
                Some(literal) => Argument::Fixed(literal.value().clone()),
                None if is_plain(&data_type) => Argument::Computed(Self::of(argument, schema)?, data_type),
                None => return Ok(None),
            });
        }
        if arguments.is_empty() {
            return Ok(None);
        }
        let arg_fields = function
            .args()
            .iter()
            .map(|argument| argument.return_field(schema))
            .collect::<Result<Vec<_>>>()?;
        Ok(Some(Self::Call(Arc::new(Call {
            function: Arc::new(function.fun().clone()),
            arguments,
            arg_fields,
            return_field: function.return_field(schema)?,
            config: Arc::new(function.config_options().clone()),
        }))))
    }

    /// The value, made in `made` where it does not stand somewhere already.
    fn see<'a>(&'a self, row: &'a [Value], made: &'a mut Value) -> Result<&'a Value> {
        match self {
            Self::Column(index) => Ok(&row[*index]),
            Self::Literal(value) => Ok(value),
            _ => {
                *made = self.value(row)?;
                Ok(made)
            }
        }
    }

    fn can_fail(&self) -> bool {
        match self {
            Self::Column(_) | Self::Literal(_) => false,
            Self::Arithmetic(Arithmetic::Divide | Arithmetic::Remainder, _) => true,
            Self::Arithmetic(_, sides) | Self::Comparison(_, sides) | Self::And(sides) | Self::Or(sides) => {
                sides.0.can_fail() || sides.1.can_fail()
            }
            Self::Not(of) | Self::IsNull(of) | Self::IsNotNull(of) | Self::IntToFloat(of) | Self::Like(_, of) => {
                of.can_fail()
            }
            Self::Extreme(_, of) => of.iter().any(Self::can_fail),
            Self::Case(branches, otherwise) => {
                let mut all = branches.iter().flat_map(|(when, then)| [when, then]);
                all.any(Self::can_fail) || otherwise.as_ref().is_some_and(|otherwise| otherwise.can_fail())
            }
            Self::FloatToInt(_) | Self::OfFloat(..) | Self::Call(_) | Self::Stock(_) => true,
        }
    }

    fn value(&self, row: &[Value]) -> Result<Value> {
        let (mut a, mut b) = (Value::Null, Value::Null);
        Ok(match self {
            Self::Column(index) => row[*index].clone(),
            Self::Literal(value) => value.clone(),
            Self::Arithmetic(arithmetic, sides) => {
                arithmetic.apply(sides.0.see(row, &mut a)?, sides.1.see(row, &mut b)?)?
            }
            Self::Comparison(comparison, sides) => {
                comparison.apply(sides.0.see(row, &mut a)?, sides.1.see(row, &mut b)?)
            }
            // The right side is not looked at when the left decides: it may guard a division.
            Self::And(sides) => match (sides.0.see(row, &mut a)?, &sides.1) {
                (Value::Bool(false), _) => Value::Bool(false),
                (Value::Bool(true), right) => right.value(row)?,
                (_, right) => match right.see(row, &mut b)? {
                    Value::Bool(false) => Value::Bool(false),
                    _ => Value::Null,
                },
            },
            Self::Or(sides) => match (sides.0.see(row, &mut a)?, &sides.1) {
                (Value::Bool(true), _) => Value::Bool(true),
                (Value::Bool(false), right) => right.value(row)?,
                (_, right) => match right.see(row, &mut b)? {
                    Value::Bool(true) => Value::Bool(true),
                    _ => Value::Null,
                },
            },
            Self::Not(of) => match of.see(row, &mut a)? {
                Value::Bool(value) => Value::Bool(!value),
                _ => Value::Null,
            },
            Self::IsNull(of) => Value::Bool(of.see(row, &mut a)?.is_null()),
            Self::IsNotNull(of) => Value::Bool(!of.see(row, &mut a)?.is_null()),
            #[allow(clippy::cast_precision_loss)] // as the cast of DataFusion does
            Self::IntToFloat(of) => match of.see(row, &mut a)? {
                Value::Int(value) => Value::Float(*value as f64),
                _ => Value::Null,
            },
            Self::FloatToInt(of) => match of.see(row, &mut a)? {
                Value::Float(value) => Value::Int(whole(*value)?),
                _ => Value::Null,
            },
            Self::Extreme(wins, of) => {
                let mut best = Value::Null;
                for single in of {
                    let value = single.see(row, &mut a)?;
                    if best.is_null() || ordering(value, &best) == Some(*wins) {
                        best = value.clone();
                    }
                }
                best
            }
            Self::OfFloat(function, of) => match of.see(row, &mut a)? {
                Value::Float(value) => Value::Float(function(*value)?),
                _ => Value::Null,
            },
            Self::Case(branches, otherwise) => {
                for (when, then) in branches {
                    if matches!(when.see(row, &mut a)?, Value::Bool(true)) {
                        return then.value(row);
                    }
                }
                match otherwise {
                    Some(otherwise) => otherwise.value(row)?,
                    None => Value::Null,
                }
            }
            Self::Like(like, of) => match of.see(row, &mut a)? {
                Value::Text(text) => Value::Bool(like.holds(text)),
                _ => Value::Null,
            },
            Self::Call(call) => call.value(row)?,
            Self::Stock(stock) => stock.value(row)?,
        })
    }
}

/// The whole part; what does not fit is an error, as in DataFusion's cast.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // the range is checked first
fn whole(value: f64) -> Result<i64> {
    // The least is a power of two and so a float; the greatest plus one is the next.
    if value >= i64::MIN as f64 && value < -(i64::MIN as f64) {
        return Ok(value as i64);
    }
    exec_err!("{value} is no BIGINT")
}

#[derive(Debug)]
enum Argument {
    Fixed(ScalarValue),
    Computed(Single, DataType),
}

/// A call of one of DataFusion's functions with scalars.
#[derive(Debug)]
struct Call {
    function: Arc<ScalarUDF>,
    arguments: Vec<Argument>,
    arg_fields: Vec<FieldRef>,
    return_field: FieldRef,
    config: Arc<ConfigOptions>,
}

impl Call {
    fn value(&self, row: &[Value]) -> Result<Value> {
        let mut args = Vec::with_capacity(self.arguments.len());
        for argument in &self.arguments {
            args.push(ColumnarValue::Scalar(match argument {
                Argument::Fixed(scalar) => scalar.clone(),
                Argument::Computed(single, data_type) => {
                    let mut made = Value::Null;
                    single.see(row, &mut made)?.to_scalar(data_type)?
                }
            }));
        }
        let given = self.function.invoke_with_args(ScalarFunctionArgs {
            args,
            arg_fields: self.arg_fields.clone(),
            number_rows: 1,
            return_field: Arc::clone(&self.return_field),
            config_options: Arc::clone(&self.config),
        })?;
        match given {
            ColumnarValue::Scalar(scalar) => Value::from_scalar(&scalar),
            ColumnarValue::Array(array) if array.len() == 1 => Ok(Value::at(&array, 0)),
            ColumnarValue::Array(array) => Err(internal_datafusion_err!(
                "{} gave {} values for one row",
                self.function.name(),
                array.len()
            )),
        }
    }
}
