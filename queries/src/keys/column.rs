//! One column of the keys: what each group has in it, and how rows and single values are held against that.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Float64Array, PrimitiveArray, StringArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use datafusion::common::utils::normalize_float_zero;

use crate::keys::texts::{Head, Texts};
use crate::keys::{Group, NOBODY};
use crate::value::Value;

/// What hashes begin with: digits of pi's fraction, as good as any.
pub(super) const SEED: u64 = 0x243F_6A88_85A3_08D3;
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
/// Hashed in place of a NULL among words.
const NULL_WORD: i64 = 0x1319_8A2E_0370_7344;

/// Adds two words to a hash. The halves of the product are folded, since each alone hangs on some of the bits only.
fn mixed(hash: u64, first: u64, last: u64) -> u64 {
    let product = u128::from(hash ^ first) * u128::from(last ^ FACTOR);
    #[allow(clippy::cast_possible_truncation)] // its lower half
    let low = product as u64;
    low ^ (product >> 64) as u64
}

/// A number as it is grouped: -0.0 is 0.0, NaN is itself.
pub(super) fn as_grouped(number: f64) -> f64 {
    if number == 0.0 { 0.0 } else { number }
}

#[allow(clippy::cast_possible_wrap)] // the same bits
fn word_of(number: f64) -> i64 {
    as_grouped(number).to_bits() as i64
}

/// One column of the keys of a batch.
pub(super) enum Given {
    Words {
        words: ScalarBuffer<i64>,
        nulls: Option<NullBuffer>,
    },
    Texts {
        heads: Vec<Head>,
        offsets: OffsetBuffer<i32>,
        bytes: Buffer,
    },
}

/// One column of one key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cell<'a> {
    Word(Option<i64>),
    /// NULL is a head of its own.
    Text(Head, &'a [u8]),
}

impl Cell<'_> {
    /// Adds the cell to a hash.
    pub(super) fn hash(self, hash: u64) -> u64 {
        match self {
            Self::Word(word) => hash_word(hash, word.unwrap_or(NULL_WORD)),
            Self::Text(head, _) => mixed(hash, head.first, head.last),
        }
    }
}

#[allow(clippy::cast_sign_loss)] // the same bits
fn hash_word(hash: u64, word: i64) -> u64 {
    mixed(hash, word as u64, 0)
}

impl Given {
    /// Adds the cells of all rows to their hashes.
    pub(super) fn hash(&self, hashes: &mut [u64]) {
        match self {
            Self::Words { words, nulls: None } => {
                for (hash, word) in hashes.iter_mut().zip(words) {
                    *hash = hash_word(*hash, *word);
                }
            }
            Self::Words {
                words,
                nulls: Some(nulls),
            } => {
                for ((hash, word), is_valid) in hashes.iter_mut().zip(words).zip(nulls) {
                    *hash = hash_word(*hash, if is_valid { *word } else { NULL_WORD });
                }
            }
            Self::Texts { heads, .. } => {
                for (hash, head) in hashes.iter_mut().zip(heads) {
                    *hash = mixed(*hash, head.first, head.last);
                }
            }
        }
    }

    /// The cell of one row.
    pub(super) fn cell(&self, row: usize) -> Cell<'_> {
        match self {
            Self::Words { words, nulls } => {
                let is_valid = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
                Cell::Word(is_valid.then(|| words[row]))
            }
            Self::Texts { heads, offsets, bytes } => {
                Cell::Text(heads[row], &bytes[offsets[row] as usize..offsets[row + 1] as usize])
            }
        }
    }

    fn texts(offsets: &OffsetBuffer<i32>, bytes: &Buffer, nulls: Option<&NullBuffer>) -> Self {
        let all = bytes.as_slice();
        let ranges = offsets.windows(2).map(|range| (range[0] as usize, range[1] as usize));
        let mut heads: Vec<Head> = ranges.map(|(start, end)| Head::within(all, start, end)).collect();
        if let Some(nulls) = nulls {
            for (head, is_valid) in heads.iter_mut().zip(nulls) {
                if !is_valid {
                    *head = Head::NULL;
                }
            }
        }
        Self::Texts {
            heads,
            offsets: offsets.clone(),
            bytes: bytes.clone(),
        }
    }
}

/// What is kept of a column.
enum Kept {
    /// Whatever has at most 64 bits.
    Words(Words),
    Texts(Texts),
    /// Any other type: bytes in Arrow's row format.
    Encoded(Box<RowConverter>, Texts),
}

#[derive(Default)]
struct Words {
    words: Vec<i64>,
    /// Whether a group has NULL; empty until the first has.
    nulls: Vec<bool>,
}

impl Words {
    fn is(&self, group: Group, word: Option<i64>) -> bool {
        let is_null = self.nulls.get(group as usize).copied().unwrap_or_default();
        match word {
            Some(word) => !is_null && self.words.get(group as usize) == Some(&word),
            None => is_null,
        }
    }

    fn get(&self, group: Group) -> Option<i64> {
        let is_null = self.nulls.get(group as usize).copied().unwrap_or_default();
        (!is_null).then(|| self.words[group as usize])
    }

    fn set(&mut self, group: Group, word: Option<i64>) {
        self.words[group as usize] = word.unwrap_or_default();
        if word.is_none() {
            self.nulls.resize(self.words.len(), false);
        }
        if let Some(is_null) = self.nulls.get_mut(group as usize) {
            *is_null = word.is_none();
        }
    }

    fn column<T: ArrowPrimitiveType<Native = i64>>(&self, groups: &[Group]) -> ArrayRef {
        let words: PrimitiveArray<T> = if self.nulls.is_empty() {
            PrimitiveArray::from_iter_values(groups.iter().map(|group| self.words[*group as usize]))
        } else {
            groups.iter().map(|group| self.get(*group)).collect()
        };
        Arc::new(words)
    }
}

/// A column of the keys of all groups.
pub(super) struct KeyColumn {
    data_type: DataType,
    kept: Kept,
}

impl KeyColumn {
    pub(super) fn new(data_type: &DataType) -> Result<Self> {
        let kept = match data_type {
            DataType::Boolean
            | DataType::Int64
            | DataType::Float64
            | DataType::Timestamp(TimeUnit::Microsecond, None) => Kept::Words(Words::default()),
            DataType::Utf8 => Kept::Texts(Texts::default()),
            other => {
                let converter = RowConverter::new(vec![SortField::new(other.clone())])?;
                Kept::Encoded(Box::new(converter), Texts::default())
            }
        };
        Ok(Self {
            data_type: data_type.clone(),
            kept,
        })
    }

    pub(super) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// A column of a batch, which is of this column's type, made ready.
    pub(super) fn given(&self, array: &ArrayRef) -> Result<Given> {
        let words = |words| Given::Words {
            words,
            nulls: array.nulls().cloned(),
        };
        Ok(match (&self.kept, &self.data_type) {
            (Kept::Encoded(converter, _), _) => {
                let encoded = converter
                    .convert_columns(&[normalize_float_zero(array)])?
                    .try_into_binary()?;
                Given::texts(encoded.offsets(), encoded.values(), None)
            }
            (Kept::Texts(_), _) => {
                let texts = array.as_string::<i32>();
                Given::texts(texts.offsets(), texts.values(), texts.nulls())
            }
            (Kept::Words(_), DataType::Boolean) => words(array.as_boolean().values().iter().map(i64::from).collect()),
            (Kept::Words(_), DataType::Float64) => words(
                array
                    .as_primitive::<Float64Type>()
                    .values()
                    .iter()
                    .map(|number| word_of(*number))
                    .collect(),
            ),
            (Kept::Words(_), DataType::Int64) => words(array.as_primitive::<Int64Type>().values().clone()),
            (Kept::Words(_), _) => words(array.as_primitive::<TimestampMicrosecondType>().values().clone()),
        })
    }

    /// The cell of a value; `None` where that takes an array, or where the value is of another type.
    pub(super) fn cell_of<'a>(&self, value: &'a Value) -> Option<Cell<'a>> {
        Some(match (&self.kept, &self.data_type, value) {
            (Kept::Texts(_), _, Value::Text(text)) => Cell::Text(Head::of(text.as_bytes()), text.as_bytes()),
            (Kept::Texts(_), _, Value::Null) => Cell::Text(Head::NULL, &[]),
            (Kept::Words(_), _, Value::Null) => Cell::Word(None),
            (Kept::Words(_), DataType::Boolean, Value::Bool(value)) => Cell::Word(Some(i64::from(*value))),
            (Kept::Words(_), DataType::Float64, Value::Float(value)) => Cell::Word(Some(word_of(*value))),
            (Kept::Words(_), DataType::Int64, Value::Int(value))
            | (Kept::Words(_), DataType::Timestamp(..), Value::Time(value)) => Cell::Word(Some(*value)),
            _ => return None,
        })
    }

    /// Makes room for groups below `groups`.
    pub(super) fn resize(&mut self, groups: usize) {
        match &mut self.kept {
            Kept::Words(words) => words.words.resize(groups.max(words.words.len()), 0),
            Kept::Texts(texts) | Kept::Encoded(_, texts) => texts.resize(groups),
        }
    }

    /// Whether a group, which need not be there, has this cell.
    pub(super) fn is(&self, group: Group, cell: Cell<'_>) -> bool {
        match (&self.kept, cell) {
            (Kept::Words(words), Cell::Word(word)) => words.is(group, word),
            (Kept::Texts(texts) | Kept::Encoded(_, texts), Cell::Text(head, text)) => texts.is(group, head, text),
            _ => false,
        }
    }

    /// Puts nobody in place of each group that does not have the cell of its row.
    pub(super) fn hold_against(&self, given: &Given, groups: &mut [Group]) {
        match (&self.kept, given) {
            (Kept::Words(kept), Given::Words { words, nulls: None }) if kept.nulls.is_empty() => {
                for (group, word) in groups.iter_mut().zip(words) {
                    if kept.words.get(*group as usize) != Some(word) {
                        *group = NOBODY;
                    }
                }
            }
            (Kept::Texts(kept) | Kept::Encoded(_, kept), Given::Texts { heads, .. }) => {
                for ((row, group), head) in groups.iter_mut().enumerate().zip(heads) {
                    // The heads of short texts are all of them.
                    let is_it = kept.has_head(*group, *head) || head.is_long() && self.is(*group, given.cell(row));
                    if !is_it {
                        *group = NOBODY;
                    }
                }
            }
            _ => {
                for (row, group) in groups.iter_mut().enumerate() {
                    if !self.is(*group, given.cell(row)) {
                        *group = NOBODY;
                    }
                }
            }
        }
    }

    /// The group has this cell from now on.
    pub(super) fn set(&mut self, group: Group, cell: Cell<'_>) {
        match (&mut self.kept, cell) {
            (Kept::Words(words), Cell::Word(word)) => words.set(group, word),
            (Kept::Texts(texts) | Kept::Encoded(_, texts), Cell::Text(head, text)) => texts.set(group, head, text),
            _ => debug_assert!(false, "a cell is of its column's type"),
        }
    }

    /// The group has no cell any more.
    pub(super) fn clear(&mut self, group: Group) {
        match &mut self.kept {
            Kept::Words(words) => words.set(group, Some(0)),
            Kept::Texts(texts) | Kept::Encoded(_, texts) => texts.clear(group),
        }
    }

    /// Adds the cell of a group to a hash.
    pub(super) fn hash(&self, hash: u64, group: Group) -> u64 {
        match &self.kept {
            Kept::Words(words) => Cell::Word(words.get(group)).hash(hash),
            Kept::Texts(texts) | Kept::Encoded(_, texts) => Cell::Text(texts.head(group), &[]).hash(hash),
        }
    }

    /// The cells of `groups` as a column again.
    pub(super) fn column(&self, groups: &[Group]) -> Result<ArrayRef> {
        Ok(match (&self.kept, &self.data_type) {
            (Kept::Encoded(converter, texts), _) => {
                let rows = converter.from_binary(texts.column(groups)?);
                converter.convert_rows(rows.iter())?.remove(0)
            }
            (Kept::Texts(texts), _) => {
                let (offsets, bytes, nulls) = texts.column(groups)?.into_parts();
                Arc::new(StringArray::try_new(offsets, bytes, nulls)?)
            }
            (Kept::Words(words), DataType::Boolean) => {
                let cells = groups.iter().map(|group| words.get(*group));
                Arc::new(cells.map(|cell| cell.map(|word| word != 0)).collect::<BooleanArray>())
            }
            #[allow(clippy::cast_sign_loss)] // the same bits
            (Kept::Words(words), DataType::Float64) => {
                let cells = groups.iter().map(|group| words.get(*group));
                let numbers = cells.map(|cell| cell.map(|word| f64::from_bits(word as u64)));
                Arc::new(numbers.collect::<Float64Array>())
            }
            (Kept::Words(words), DataType::Int64) => words.column::<Int64Type>(groups),
            (Kept::Words(words), _) => words.column::<TimestampMicrosecondType>(groups),
        })
    }

    /// Bytes kept.
    pub(super) fn size(&self) -> usize {
        match &self.kept {
            Kept::Words(words) => words.words.capacity() * 8 + words.nulls.capacity(),
            Kept::Texts(texts) | Kept::Encoded(_, texts) => texts.size(),
        }
    }
}
