//! An operand is what an expression of DEFINE or MEASURES takes from the rows of a match, and how it is kept up to date.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::capture::noting::Mark;
use crate::computed::ordering;
use crate::row_pattern::Variable;
use crate::row_pattern::attempt::Match;
use crate::value::Value;

/// From which end of a variable's rows one is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum End {
    /// So many behind the first.
    First(usize),
    /// So many before the last.
    Last(usize),
}

/// What is worked out over rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Aggregate {
    /// How many rows.
    Rows,
    /// How many values that are no NULL.
    Values,
    /// Their sum.
    Sum,
    /// Their mean.
    Average,
    /// The least.
    Least,
    /// The greatest.
    Greatest,
}

/// A place in an expression that looks at rows. `of` names the variable whose rows count; `None` stands for all rows
/// of the match. Arguments are numbers of expressions that were worked out for each row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Operand {
    /// Of the row that is judged, or of the one so many rows before it.
    Current { argument: usize, back: u64 },
    /// Of a row of the match, or of the one so many rows before that.
    Row {
        of: Option<Variable>,
        end: End,
        argument: usize,
        back: u64,
    },
    /// Over the rows of the match up to here.
    Over {
        of: Option<Variable>,
        aggregate: Aggregate,
        argument: usize,
    },
    /// The variable that the last row is.
    Classifier,
    /// How many matches the partition has had, this one included.
    MatchNumber,
}

/// A row as patterns see it.
#[derive(Debug, Clone)]
pub(super) struct PatternRow {
    /// Its event time, microseconds.
    pub(super) time: i64,
    /// Its columns.
    pub(super) values: Arc<[Value]>,
    /// What expressions look at, worked out once.
    pub(super) arguments: Vec<Value>,
    /// The event that made it.
    pub(super) cause: Option<Arc<str>>,
    /// For each variable whether the row can be it, where only the row decides and it was asked.
    pub(super) known: Vec<Option<bool>>,
    /// What captures know of it.
    pub(super) mark: Mark,
}

/// The rows of a partition that are still needed, numbered in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct KeptRows {
    first: u64,
    rows: VecDeque<PatternRow>,
}

impl KeptRows {
    /// Adds a row; gives its number.
    pub(super) fn push(&mut self, row: PatternRow) -> u64 {
        self.rows.push_back(row);
        self.next() - 1
    }

    /// The number of the next row.
    pub(super) fn next(&self) -> u64 {
        self.first + self.rows.len() as u64
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// A row that is still there.
    pub(super) fn get(&self, number: u64) -> Option<&PatternRow> {
        self.rows.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// As `get`, to change it.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut PatternRow> {
        self.rows
            .get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// The last row.
    pub(super) fn last(&self) -> Option<&PatternRow> {
        self.rows.back()
    }

    /// All rows with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &PatternRow)> {
        (self.first..).zip(&self.rows)
    }

    /// The numbers of those that are there from this one on.
    pub(super) fn numbers(&self, from: u64) -> impl Iterator<Item = u64> + use<> {
        from.max(self.first)..self.next()
    }

    /// Forgets the rows before `number`; gives the number and the mark of each.
    pub(super) fn forget_before(&mut self, number: u64) -> Vec<(u64, Mark)> {
        let mut forgotten = Vec::new();
        while self.first < number
            && let Some(row) = self.rows.pop_front()
        {
            forgotten.push((self.first, row.mark));
            self.first += 1;
        }
        forgotten
    }

    /// An argument of the row `back` rows before the row `number`; NULL where there is none, and where it lies further
    /// back in time than `within`: such rows are forgotten.
    pub(super) fn look(&self, number: u64, back: u64, argument: usize, within_us: Option<i64>) -> Value {
        let row = number.checked_sub(back).and_then(|number| self.get(number));
        let (Some(row), Some(from)) = (row, self.get(number)) else {
            return Value::Null;
        };
        if back > 0 && within_us.is_some_and(|within| from.time.saturating_sub(row.time) > within) {
            return Value::Null;
        }
        row.arguments[argument].clone()
    }
}

/// What an operand has seen of the rows of a match so far.
#[derive(Debug, Clone)]
pub(super) enum Memory {
    /// Numbers of rows: the first ones, or the last ones.
    Rows(Vec<u64>),
    /// How many.
    Count(i64),
    /// A sum, the least or the greatest.
    Value(Value),
    /// A sum, and of how many.
    Average(f64, i64),
    /// A variable.
    Variable(Variable),
}

impl Memory {
    /// Bytes kept, estimated.
    pub(super) fn bytes(&self) -> usize {
        let beside = match self {
            Self::Rows(rows) => rows.capacity() * size_of::<u64>(),
            Self::Value(value) => value.size(),
            Self::Count(_) | Self::Average(..) | Self::Variable(_) => 0,
        };
        size_of::<Self>() + beside
    }
}

impl PartialEq for Memory {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rows(left), Self::Rows(right)) => left == right,
            (Self::Count(left), Self::Count(right)) => left == right,
            (Self::Value(left), Self::Value(right)) => bytes(left) == bytes(right),
            (Self::Average(left, of_left), Self::Average(right, of_right)) => {
                left.to_bits() == right.to_bits() && of_left == of_right
            }
            (Self::Variable(left), Self::Variable(right)) => left == right,
            _ => false,
        }
    }
}

impl Eq for Memory {}

impl Hash for Memory {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Rows(rows) => rows.hash(state),
            Self::Count(count) => count.hash(state),
            Self::Value(value) => bytes(value).hash(state),
            Self::Average(sum, count) => (sum.to_bits(), count).hash(state),
            Self::Variable(variable) => variable.hash(state),
        }
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Aggregates are planned over plain values only, and those always have this form.
    value.encode(&mut bytes);
    bytes
}

impl Operand {
    /// What it has seen before the first row.
    pub(super) fn nothing(&self) -> Memory {
        match self {
            Self::Over {
                aggregate: Aggregate::Rows | Aggregate::Values,
                ..
            } => Memory::Count(0),
            Self::Over {
                aggregate: Aggregate::Average,
                ..
            } => Memory::Average(0.0, 0),
            Self::Over { .. } => Memory::Value(Value::Null),
            Self::Classifier => Memory::Variable(0),
            _ => Memory::Rows(Vec::new()),
        }
    }

    /// Sees the row `number` as `variable`.
    pub(super) fn see(&self, memory: &mut Memory, number: u64, variable: Variable, arguments: &[Value]) {
        let counts = |of: &Option<Variable>| of.is_none_or(|of| of == variable);
        match (self, memory) {
            (Self::Row { of, end, .. }, Memory::Rows(rows)) if counts(of) => match end {
                End::First(offset) => {
                    if rows.len() <= *offset {
                        rows.push(number);
                    }
                }
                End::Last(offset) => {
                    if rows.len() > *offset {
                        rows.remove(0);
                    }
                    rows.push(number);
                }
            },
            (
                Self::Over {
                    of,
                    aggregate,
                    argument,
                },
                memory,
            ) if counts(of) => add(*aggregate, memory, arguments.get(*argument).unwrap_or(&Value::Null)),
            (Self::Classifier, Memory::Variable(last)) => *last = variable,
            _ => {}
        }
    }

    /// Its value.
    pub(super) fn value(&self, memory: &Memory, rows: &KeptRows, within_us: Option<i64>, names: &[Arc<str>]) -> Value {
        match (self, memory) {
            (
                Self::Row {
                    end, argument, back, ..
                },
                Memory::Rows(numbers),
            ) => {
                let number = match end {
                    End::First(offset) => numbers.get(*offset),
                    // The oldest of the last ones, once there are enough.
                    End::Last(offset) if numbers.len() > *offset => numbers.first(),
                    End::Last(_) => None,
                };
                number.map_or(Value::Null, |number| rows.look(*number, *back, *argument, within_us))
            }
            (Self::Over { .. }, Memory::Count(count)) => Value::Int(*count),
            (Self::Over { .. }, Memory::Value(value)) => value.clone(),
            #[allow(clippy::cast_precision_loss)] // a count of rows that are in memory
            (Self::Over { .. }, Memory::Average(sum, count)) if *count > 0 => Value::Float(sum / *count as f64),
            (Self::Classifier, Memory::Variable(variable)) => Value::Text(Arc::clone(&names[*variable as usize])),
            _ => Value::Null,
        }
    }

    /// How many rows before the match it looks at.
    pub(super) fn back(&self) -> u64 {
        match self {
            Self::Current { back, .. } | Self::Row { back, .. } => *back,
            _ => 0,
        }
    }

    /// What it has seen of a whole match.
    pub(super) fn seen_of(&self, matched: &Match, rows: &KeptRows) -> Memory {
        let mut memory = self.nothing();
        for (number, variable) in matched.rows() {
            if let Some(row) = rows.get(number) {
                self.see(&mut memory, number, variable, &row.arguments);
            }
        }
        memory
    }
}

fn add(aggregate: Aggregate, memory: &mut Memory, value: &Value) {
    match (aggregate, memory) {
        (Aggregate::Rows, Memory::Count(count)) => *count += 1,
        (Aggregate::Values, Memory::Count(count)) => *count += i64::from(!value.is_null()),
        (_, _) if value.is_null() => {}
        (Aggregate::Sum, Memory::Value(sum)) => {
            *sum = match (&*sum, value) {
                // As DataFusion's: sums of integers wrap.
                (Value::Int(sum), Value::Int(value)) => Value::Int(sum.wrapping_add(*value)),
                (Value::Float(sum), Value::Float(value)) => Value::Float(sum + value),
                _ => value.clone(),
            };
        }
        (Aggregate::Average, Memory::Average(sum, count)) => {
            if let Value::Float(value) = value {
                *sum += value;
                *count += 1;
            }
        }
        (Aggregate::Least | Aggregate::Greatest, Memory::Value(best)) => {
            let wins = if aggregate == Aggregate::Least {
                std::cmp::Ordering::Less
            } else {
                std::cmp::Ordering::Greater
            };
            if best.is_null() || ordering(value, best) == Some(wins) {
                *best = value.clone();
            }
        }
        _ => {}
    }
}
