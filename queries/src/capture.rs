//! A capture is what the running queries hold at one moment, taken in little time and written down elsewhere.
//!
//! Most of what is large changes little from one capture to the next. So an operator notes which of its groups change,
//! and hands over these alone: behind what was handed over before they make its state. It can do so ahead of the moment,
//! part by part, while rows come in: what changes after it was taken is noted, and taken again.

mod large;
pub(crate) mod noting;
mod renewal;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Field, FieldRef, Int64Type, Schema};
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use self::large::Large;
use self::renewal::Chain;
pub(crate) use self::renewal::Renewal;
use crate::keys::Group;
use crate::operator::batch_of;
use crate::snapshot::{QuerySnapshot, from_stream, to_stream};
use crate::window::Span;

/// Why something could not be captured or read.
pub type Error = DataFusionError;

/// Bytes of rows that are written down as one, at most, where they were not taken at once. A few of them fit into what a
/// processor keeps at hand, and a state of gigabytes has some thousands.
const SEGMENT_BYTES: usize = 1 << 20;

/// Rows that are taken few at a time are put together when there are so many. A batch of sixteen rows of a join takes
/// seven times what is in it, for each of its columns has what is to be known of it and room for 64 bytes.
const TOGETHER: usize = 512;
/// But not where each is as large as this, bytes: a sketch of 16 KiB is what a row of it takes anyway.
const LARGE_ROW: usize = 4 << 10;

/// The column of the number of what a row belongs to: rows of the same one replace earlier ones.
pub(crate) const ENTITY: &str = "entity";
/// The column of the turn in which a row was taken.
pub(crate) const TURN: &str = "turn";
/// The column that says that nothing is kept of an entity any more.
pub(crate) const GONE: &str = "gone";

/// What all queries hold at one moment.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    /// The queries, and which operators they consist of.
    pub queries: Vec<CapturedQuery>,
    /// What reference tables held before.
    pub references: Option<QuerySnapshot>,
    /// What is new in each operator.
    pub operators: Vec<CapturedOperator>,
}

/// A query in a capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedQuery {
    /// Its name.
    pub name: String,
    /// What the state of its operators means.
    pub fingerprint: String,
    operators: Vec<Member>,
}

/// An operator of a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Where it stands in the query.
    pub(crate) number: usize,
    /// Which of those captured it is.
    pub(crate) operator: u64,
    /// Where it is a window that several queries share: which keys and aggregates of it are this query's.
    pub(crate) part: Option<(Vec<usize>, Vec<usize>)>,
}

/// What is new in an operator since the last capture.
#[derive(Debug, Clone)]
pub struct CapturedOperator {
    /// Its number; no other of the process has it.
    pub operator: u64,
    /// Whether `rows` are all it holds.
    pub begins_anew: bool,
    /// Rows of its state; none where nothing has changed.
    pub rows: Vec<RecordBatch>,
    /// What there is little of, whole: times, and which windows there are. `None` where all is in `rows`, or where nothing
    /// has changed.
    pub head: Option<CapturedHead>,
    /// How long the chain is by now; `None` where nothing has changed, or there is none.
    pub(crate) chain: Option<Chain>,
}

/// What of an operator there is little of, as it is handed over: made into columns where it is written down, since of a large
/// window that is half said it is all groups that were.
#[derive(Debug, Clone)]
pub struct CapturedHead {
    head: Head,
    /// What else is to be remembered, by name.
    texts: HashMap<String, String>,
}

impl CapturedQuery {
    pub(crate) fn new(name: &str, fingerprint: String, operators: Vec<Member>) -> Self {
        Self {
            name: name.to_owned(),
            fingerprint,
            operators,
        }
    }

    /// The query's snapshot, given what each of its operators held, as [`assembled`] gives it.
    ///
    /// # Errors
    /// When an operator's state can't be read.
    pub fn snapshot(&self, mut state_of: impl FnMut(u64) -> Result<RecordBatch>) -> Result<QuerySnapshot> {
        let parts = self.operators.iter().map(|member| {
            let state = state_of(member.operator)?;
            let state = match &member.part {
                Some((keys, calls)) => part_of(&state, keys, calls)?,
                None => state,
            };
            Ok((member.number, state))
        });
        Ok(QuerySnapshot {
            name: self.name.clone(),
            fingerprint: self.fingerprint.clone(),
            parts: parts.collect::<Result<_>>()?,
        })
    }
}

impl CapturedOperator {
    pub(crate) fn unchanged(operator: u64) -> Self {
        Self {
            operator,
            begins_anew: false,
            rows: Vec::new(),
            head: None,
            chain: None,
        }
    }

    /// Of an operator that hands over all it keeps at once.
    pub(crate) fn whole(operator: u64, rows: RecordBatch) -> Self {
        Self {
            operator,
            begins_anew: true,
            rows: vec![rows],
            head: None,
            chain: None,
        }
    }
}

/// A number for an operator.
pub(crate) fn next_operator() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What an operator that notes its changes has taken since the last capture.
pub(crate) struct Taken {
    operator: u64,
    begins_anew: bool,
    turn: i64,
    rows: Vec<RecordBatch>,
    /// The last of them while they are few, which are to be put together.
    few: Vec<RecordBatch>,
    few_rows: usize,
    large: Large,
    /// Rows of the chain so far.
    rows_in_chain: usize,
    captures: usize,
}

impl Taken {
    /// Begins anew.
    pub(crate) fn new() -> Self {
        Self {
            operator: next_operator(),
            begins_anew: true,
            turn: 0,
            rows: Vec::new(),
            few: Vec::new(),
            few_rows: 0,
            large: Large::default(),
            rows_in_chain: 0,
            captures: 0,
        }
    }

    /// A turn that follows all that were; rows of it replace theirs.
    pub(crate) fn next_turn(&mut self) -> i64 {
        self.turn += 1;
        self.turn
    }

    /// Puts rows behind those that were taken before.
    ///
    /// # Errors
    /// When they have other columns.
    pub(crate) fn push(&mut self, rows: RecordBatch) -> Result<()> {
        let are_large = are_large(&rows);
        self.put(rows, are_large)
    }

    fn put(&mut self, rows: RecordBatch, are_large: bool) -> Result<()> {
        self.rows_in_chain += rows.num_rows();
        if rows.num_rows() >= TOGETHER || are_large {
            // Copying them would take longer than it is worth: 512 sketches of 16 KiB are five milliseconds.
            self.end_few();
            self.rows.push(rows);
            return Ok(());
        }
        self.few_rows += rows.num_rows();
        self.few.push(rows);
        if self.few_rows >= TOGETHER
            && let Some(first) = self.few.first()
        {
            let together = concat_batches(&first.schema(), &self.few)?;
            self.few.clear();
            self.few_rows = 0;
            self.rows.push(together);
        }
        Ok(())
    }

    /// The same with rows that are these entities' whole state. Where they are large, those that were taken of the same ones
    /// since the last capture are let go of: what changes with every event is taken many times for a capture.
    ///
    /// # Errors
    /// When they have other columns.
    pub(crate) fn push_whole(&mut self, rows: RecordBatch, of: impl Iterator<Item = (Span, Group)>) -> Result<()> {
        let are_large = are_large(&rows);
        self.put(rows, are_large)?;
        if are_large {
            let newest = self.rows.len() - 1;
            for replaced in self.large.note(newest, of) {
                let rows = &mut self.rows[replaced];
                self.rows_in_chain -= rows.num_rows();
                *rows = RecordBatch::new_empty(rows.schema());
            }
        }
        Ok(())
    }

    /// What is few stays as it is.
    fn end_few(&mut self) {
        self.rows.append(&mut self.few);
        self.few_rows = 0;
    }

    /// The capture, of an operator that keeps so many rows.
    pub(crate) fn capture(&mut self, head: CapturedHead, kept: usize) -> CapturedOperator {
        self.captures += 1;
        self.end_few();
        self.rows.retain(|rows| rows.num_rows() > 0);
        self.large = Large::default();
        CapturedOperator {
            operator: self.operator,
            begins_anew: std::mem::take(&mut self.begins_anew),
            rows: std::mem::take(&mut self.rows),
            head: Some(head),
            chain: Some(Chain {
                captures: self.captures,
                rows: self.rows_in_chain,
                kept,
            }),
        }
    }
}

/// Whether each of the rows is large, in the mean.
fn are_large(rows: &RecordBatch) -> bool {
    let large = LARGE_ROW * rows.num_rows();
    // What each of a few small rows takes beside itself may be as much: a second look, which is dearer, is at themselves.
    rows.get_array_memory_size() >= large && bytes_of(rows) >= large
}

/// Rows of a captured operator as Arrow streams, each about 1 MiB, or one row set that was taken at once where that is larger;
/// none of none. A stream is made when it is asked for, and its rows are let go of: that of a large operator which begins anew
/// takes no more memory than a piece of it beside the rows. An item is an error where Arrow can't write a column.
pub fn rows_to_bytes(rows: Vec<RecordBatch>) -> impl Iterator<Item = Result<Vec<u8>>> {
    let mut rows = rows.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut some: Vec<RecordBatch> = Vec::new();
        let mut bytes = 0;
        while let Some(next) = rows.next_if(|next| some.is_empty() || bytes + bytes_of(next) <= SEGMENT_BYTES) {
            bytes += bytes_of(&next);
            some.push(next);
        }
        let first = some.first()?;
        let all = concat_batches(&first.schema(), &some);
        drop(some);
        Some(all.map_err(Into::into).and_then(|all| to_stream(&all)))
    })
}

/// Bytes of the rows themselves, whatever they were cut from.
fn bytes_of(rows: &RecordBatch) -> usize {
    let of_column = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_default();
    rows.columns().iter().map(of_column).sum()
}

/// The state of an operator from the chain of what was captured of it: each of `rows` as [`rows_to_bytes`] gave it, however
/// many it gave of a capture, the earliest first, and the last head.
///
/// # Errors
/// When the bytes are no Arrow data, or lack what a capture has.
pub fn assembled(rows: &[impl AsRef<[u8]>], head: Option<&[u8]>) -> Result<RecordBatch> {
    let rows: Vec<RecordBatch> = rows
        .iter()
        .map(|rows| from_stream(rows.as_ref()))
        .collect::<Result<_>>()?;
    match head {
        Some(head) => merged(&rows, &from_stream(head)?),
        None => rows
            .into_iter()
            .next_back()
            .ok_or_else(|| internal_datafusion_err!("an operator's state is not there")),
    }
}

/// What a head says.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// Start, end, whether it was said: a row a window.
    pub(crate) windows: Vec<(i64, i64, bool)>,
    /// Of windows that are being said the groups that were: start, end, groups.
    pub(crate) said: Vec<(i64, i64, Vec<Group>)>,
    /// Whether the rows belong to windows; of others all count.
    pub(crate) has_windows: bool,
}

impl Head {
    /// With what else is to be remembered, by name.
    pub(crate) fn with(self, texts: HashMap<String, String>) -> CapturedHead {
        CapturedHead { head: self, texts }
    }

    fn to_batch(&self, mut texts: HashMap<String, String>) -> Result<RecordBatch> {
        texts.insert("has_windows".to_owned(), self.has_windows.to_string());
        let windows = self
            .windows
            .iter()
            .map(|(start, end, said)| (*start, *end, None, *said));
        let said = self.said.iter().flat_map(|(start, end, groups)| {
            let of_group = move |group: &Group| (*start, *end, Some(i64::from(*group)), true);
            groups.iter().map(of_group)
        });
        let rows: Vec<(i64, i64, Option<i64>, bool)> = windows.chain(said).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))),
            Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()),
            Arc::new(BooleanArray::from(rows.iter().map(|row| row.3).collect::<Vec<_>>())),
        ];
        let names = ["start", "end", ENTITY, "said"];
        let fields: Vec<Field> = names
            .iter()
            .zip(&columns)
            .map(|(name, column)| Field::new(*name, column.data_type().clone(), true))
            .collect();
        batch_of(&Arc::new(Schema::new(fields).with_metadata(texts)), columns, rows.len())
    }

    fn from_batch(batch: &RecordBatch) -> Result<Self> {
        let (starts, ends) = (numbers(batch, "start")?, numbers(batch, "end")?);
        let entities = numbers(batch, ENTITY)?;
        let said = flags(batch, "said")?;
        let schema = batch.schema();
        let mut head = Self {
            windows: Vec::new(),
            said: Vec::new(),
            has_windows: schema.metadata().get("has_windows").is_some_and(|text| text == "true"),
        };
        for row in 0..batch.num_rows() {
            let (start, end) = (starts.value(row), ends.value(row));
            if entities.is_valid(row) {
                let group = Group::try_from(entities.value(row));
                let group = group.map_err(|_| internal_datafusion_err!("there is no such group"))?;
                head.said.push((start, end, vec![group]));
            } else {
                head.windows.push((start, end, said.value(row)));
            }
        }
        Ok(head)
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch
        .column_by_name(name)
        .ok_or_else(|| internal_datafusion_err!("what was captured has no column '{name}'"))
}

fn numbers(batch: &RecordBatch, name: &str) -> Result<Int64Array> {
    let column = column(batch, name)?.as_primitive_opt::<Int64Type>();
    column
        .cloned()
        .ok_or_else(|| internal_datafusion_err!("the column '{name}' holds no numbers"))
}

fn flags(batch: &RecordBatch, name: &str) -> Result<BooleanArray> {
    let column = column(batch, name)?.as_boolean_opt();
    column
        .cloned()
        .ok_or_else(|| internal_datafusion_err!("the column '{name}' is not of true and false"))
}

/// Puts together what was captured one behind the other: of each entity the rows that were taken last, in windows that
/// are still there. A snapshot as the operator itself makes it.
fn merged(rows: &[RecordBatch], head: &RecordBatch) -> Result<RecordBatch> {
    let texts = head.schema().metadata().clone();
    let head = Head::from_batch(head)?;
    let empty = || {
        Ok(RecordBatch::new_empty(Arc::new(
            Schema::empty().with_metadata(texts.clone()),
        )))
    };
    let Some(first) = rows.first() else { return empty() };
    let all = concat_batches(&first.schema(), rows)?;
    let (starts, ends) = (numbers(&all, "start")?, numbers(&all, "end")?);
    let (entities, turns) = (numbers(&all, ENTITY)?, numbers(&all, TURN)?);
    let gone = flags(&all, GONE)?;
    let entity = |row: usize| (starts.value(row), ends.value(row), entities.value(row));
    let mut last: FxHashMap<(i64, i64, i64), i64> = FxHashMap::default();
    for row in 0..all.num_rows() {
        last.insert(entity(row), turns.value(row));
    }
    let windows: FxHashMap<(i64, i64), (usize, bool)> = head
        .windows
        .iter()
        .enumerate()
        .map(|(number, (start, end, said))| ((*start, *end), (number, *said)))
        .collect();
    let said = head.said.iter().flat_map(|(start, end, groups)| {
        let of_group = move |group: &Group| (*start, *end, i64::from(*group));
        groups.iter().map(of_group)
    });
    let said: FxHashSet<(i64, i64, i64)> = said.collect();
    // Of panes, whose windows are others, the window that is being said is named by no times of its own.
    let was_said =
        |row: usize| said.contains(&entity(row)) || said.contains(&(i64::MIN, i64::MIN, entities.value(row)));
    // By window, in it those first that were said, as they were taken.
    let mut order: Vec<(usize, bool, usize)> = Vec::new();
    for row in 0..all.num_rows() {
        let number = match windows.get(&(starts.value(row), ends.value(row))) {
            Some((number, _)) => *number,
            None if head.has_windows => continue,
            None => 0,
        };
        if !gone.value(row) && last.get(&entity(row)) == Some(&turns.value(row)) {
            order.push((number, !said.contains(&entity(row)), row));
        }
    }
    order.sort_unstable();
    if order.is_empty() {
        return empty();
    }
    let mut cursors: FxHashMap<usize, i64> = FxHashMap::default();
    for (number, is_unsaid, _) in &order {
        *cursors.entry(*number).or_default() += i64::from(!is_unsaid);
    }
    let indices = UInt64Array::from_iter_values(order.iter().map(|(.., row)| *row as u64));
    let taken = take_record_batch(&all, &indices)?;
    let mut columns: Vec<(FieldRef, ArrayRef)> = Vec::new();
    for (field, column) in all.schema().fields().iter().zip(taken.columns()) {
        let column = match field.name().as_str() {
            ENTITY | TURN | GONE => continue,
            "start" | "end" if !head.has_windows => continue,
            "told" => {
                let told = column.as_boolean();
                let told = (0..)
                    .zip(&order)
                    .map(|(at, (.., row))| Some(told.value(at) || was_said(*row)));
                Arc::new(told.collect::<BooleanArray>())
            }
            _ => Arc::clone(column),
        };
        columns.push((Arc::clone(field), column));
    }
    if head.has_windows {
        let of_window = |number: &usize| head.windows.get(*number).is_some_and(|window| window.2);
        let said: BooleanArray = order.iter().map(|(number, ..)| Some(of_window(number))).collect();
        let cursor = Int64Array::from_iter_values(order.iter().map(|(number, ..)| cursors[number]));
        for (name, column) in [("said", Arc::new(said) as ArrayRef), ("cursor", Arc::new(cursor))] {
            columns.push((Arc::new(Field::new(name, column.data_type().clone(), true)), column));
        }
    }
    let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) = columns.into_iter().unzip();
    batch_of(
        &Arc::new(Schema::new(fields).with_metadata(texts)),
        columns,
        order.len(),
    )
}

/// What a query alone would have kept of a window that it shares: some of the keys and aggregates, numbered anew.
fn part_of(state: &RecordBatch, keys: &[usize], calls: &[usize]) -> Result<RecordBatch> {
    if state.num_rows() == 0 {
        return Ok(state.clone());
    }
    let schema = state.schema();
    let mut columns: Vec<(FieldRef, ArrayRef)> = Vec::new();
    let mut put = |name: String, field: &FieldRef, column: &ArrayRef| {
        let field = field.as_ref().clone().with_name(name);
        columns.push((Arc::new(field), Arc::clone(column)));
    };
    let named: Vec<(&FieldRef, &ArrayRef)> = schema.fields().iter().zip(state.columns()).collect();
    for (field, column) in &named {
        if !field.name().starts_with("key") && !field.name().starts_with("aggregate") {
            put(field.name().clone(), field, column);
        }
    }
    for (number, key) in keys.iter().enumerate() {
        let wanted = format!("key{key}");
        let found = named.iter().find(|(field, _)| *field.name() == wanted);
        let (field, column) = found.ok_or_else(|| internal_datafusion_err!("there is no key {key}"))?;
        put(format!("key{number}"), field, column);
    }
    for (number, call) in calls.iter().enumerate() {
        let wanted = format!("aggregate{call}_");
        for (field, column) in &named {
            if let Some(behind) = field.name().strip_prefix(&wanted) {
                put(format!("aggregate{number}_{behind}"), field, column);
            }
        }
    }
    let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let schema = Schema::new(fields).with_metadata(schema.metadata().clone());
    batch_of(&Arc::new(schema), columns, state.num_rows())
}

/// The queries of a capture as bytes.
///
/// # Errors
/// Never for what a query set has captured.
pub fn queries_to_bytes(queries: &[CapturedQuery]) -> Result<Vec<u8>> {
    serde_json::to_vec(queries).map_err(|error| DataFusionError::External(Box::new(error)))
}

/// Takes back what [`queries_to_bytes`] gave.
///
/// # Errors
/// When the bytes are something else.
pub fn queries_from_bytes(bytes: &[u8]) -> Result<Vec<CapturedQuery>> {
    serde_json::from_slice(bytes).map_err(|error| internal_datafusion_err!("the list of queries: {error}"))
}

/// A head as an Arrow stream.
///
/// # Errors
/// When Arrow can't write a column.
pub fn head_to_bytes(head: &CapturedHead) -> Result<Vec<u8>> {
    to_stream(&head.head.to_batch(head.texts.clone())?)
}

/// The columns that tell whose a row of a window is, what turn it was captured in, and whether it is gone.
pub(crate) fn placed<N: Into<i64>>(
    entities: impl ExactSizeIterator<Item = (Span, N)> + Clone,
    turn: i64,
    are_gone: bool,
) -> Vec<(String, ArrayRef)> {
    let rows = entities.len();
    let column =
        |of: fn((Span, N)) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(entities.clone().map(of))) };
    vec![
        ("start".into(), column(|(span, _)| span.start)),
        ("end".into(), column(|(span, _)| span.end)),
        (ENTITY.into(), column(|(_, number)| number.into())),
        (TURN.into(), Arc::new(Int64Array::from_value(turn, rows))),
        (GONE.into(), Arc::new(BooleanArray::from(vec![are_gone; rows]))),
    ]
}

/// The batch of these named columns of so many rows.
///
/// # Errors
/// When the columns are not all of that length.
pub(crate) fn named_batch(columns: Vec<(String, ArrayRef)>, rows: usize) -> Result<RecordBatch> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column)| Field::new(name, column.data_type().clone(), true))
        .collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    batch_of(&Arc::new(Schema::new(fields)), columns, rows)
}
