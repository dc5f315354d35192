//! Rows of alerts that have to do with each other wait until all is said that is due by the watermark they met.
//!
//! Which of them was first decides what becomes of them, and that is not known before; the same holds for the rows of one
//! that reads events as well as windows. Other alerts go on meanwhile. What
//! waits is taken in the order in which it would have been had the events come one by one, so that a replay, in which nothing
//! waits, finds the same alerts and the same steps of their lives.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{Int64Type, SchemaRef, UInt64Type};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use usher_queries::carried;
use usher_queries::query::{Judgement, Output};
use usher_queries::row::Rows;

use super::{EventAt, Moment};
use crate::alert::Trace;
use crate::capture::{Capture, Parts};

/// Rows that may wait: a window of 100,000 keys of each of which an alert is raised. Beyond it all that is due is said at once.
const ROWS_MAX: usize = 131_072;
/// The part of a checkpoint; left out where nothing waits.
const WAITING: &str = "alerts/waiting";

/// Where a row stands among those of all alerts, had the events come one by one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    /// The watermark at which it was said, microseconds.
    pub(super) watermark: i64,
    /// The event of which it was said when that came; what was due by the watermark comes before.
    event: Option<usize>,
    /// Rule and subject: what is due at the same time, or said of the same event, has no order of its own.
    subject: Arc<str>,
    /// In which order it was said.
    number: u64,
}

/// A row that waits.
#[derive(Debug)]
pub(super) struct WaitingRow {
    pub(super) output: Arc<Output>,
    pub(super) row: usize,
    /// The event that it was said of, when it came.
    event: Option<EventAt>,
    /// How long the stages took until it was said, and what our clock showed then, microseconds since 1970.
    trace: Option<(Trace, i64)>,
}

impl WaitingRow {
    /// Has it taken at a moment, with what is known of its own event.
    pub(super) fn take_at(&self, moment: &Moment<'_>, take: impl FnOnce(&Moment<'_>)) {
        let waited = |(trace, said_us): (Trace, i64)| trace.waited(moment.now_us.saturating_sub(said_us));
        let trace = self.trace.map(waited).unwrap_or_default();
        take(&Moment {
            now_us: moment.now_us,
            places: moment.places,
            // It is asked for its own cause alone.
            event_of: &|_| self.event,
            trace_of: &|_| trace,
        });
    }
}

/// All rows that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// A checkpoint shares them.
    rows: BTreeMap<Order, Arc<WaitingRow>>,
    /// How many there are of each rule and subject.
    subjects: BTreeMap<Arc<str>, usize>,
    /// How many rows were numbered.
    numbered: u64,
}

/// Rows of one query as a checkpoint has them.
#[derive(Serialize, Deserialize)]
struct Kept {
    query: String,
    rows: Vec<u8>,
}

/// A row that waits, and where it stands.
type Ordered = (Order, Arc<WaitingRow>);

/// Columns beside the rows' own.
const FURTHER: usize = 6;

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether so many wait that no more should.
    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= ROWS_MAX
    }

    /// Whether rows of a rule and subject wait.
    pub(super) fn has(&self, subject: &str) -> bool {
        !self.subjects.is_empty() && self.subjects.contains_key(subject)
    }

    /// The first of them.
    pub(super) fn first(&self) -> Option<&Order> {
        self.rows.first_key_value().map(|(order, _)| order)
    }

    /// The latest event of which a row waits.
    pub(super) fn last_event(&self) -> Option<usize> {
        self.rows.keys().filter_map(|order| order.event).max()
    }

    /// Where a row that was said now stands.
    pub(super) fn order(&mut self, rows: &Rows, row: usize, subject: &str, moment: &Moment<'_>) -> Order {
        self.numbered += 1;
        Order {
            watermark: rows.watermark(row),
            event: event_of(rows, row, moment).map(|event| event.index),
            subject: subject.into(),
            number: self.numbered,
        }
    }

    pub(super) fn push(&mut self, order: Order, output: Arc<Output>, row: usize, moment: &Moment<'_>) {
        let rows = &output.rows;
        let waiting = WaitingRow {
            event: event_of(rows, row, moment),
            trace: rows.cause(row).map(|cause| ((moment.trace_of)(cause), moment.now_us)),
            output,
            row,
        };
        self.insert(order, Arc::new(waiting));
    }

    fn insert(&mut self, order: Order, waiting: Arc<WaitingRow>) {
        match self.subjects.get_mut(&order.subject) {
            Some(rows) => *rows += 1,
            None => {
                self.subjects.insert(Arc::clone(&order.subject), 1);
            }
        }
        self.rows.insert(order, waiting);
    }

    pub(super) fn pop_first(&mut self) -> Option<(Order, Arc<WaitingRow>)> {
        let (order, waiting) = self.rows.pop_first()?;
        if let Some(rows) = self.subjects.get_mut(&order.subject) {
            *rows -= 1;
            if *rows == 0 {
                self.subjects.remove(&order.subject);
            }
        }
        Some((order, waiting))
    }

    /// Queries came, went or changed: rows come under the columns of now, which `columns_of` tells by the query's name. Those
    /// of which that can't be said any more are gone, as if the change had come before them.
    pub(super) fn follow(&mut self, columns_of: impl Fn(&str) -> Option<SchemaRef>) {
        self.subjects.clear();
        for (order, mut waiting) in std::mem::take(&mut self.rows) {
            let output = &waiting.output;
            let query = Arc::clone(&output.query);
            let Some(columns) = columns_of(&query) else { continue };
            if !is_same(&output.rows.schema(), &columns) {
                let found = carried::picked(&output.rows, &[waiting.row]);
                let found = found.and_then(|row| carried::under(&row, &columns));
                let rows = match found {
                    Ok(rows) => rows,
                    Err(error) => {
                        tracing::warn!(%query, %error, "a row that waited is of other columns than the rule has now");
                        continue;
                    }
                };
                let judgement = output.judgement.as_ref().map(|judgement| Judgement {
                    raise: vec![judgement.raise[waiting.row]],
                    clear: vec![judgement.clear[waiting.row]],
                });
                waiting = Arc::new(WaitingRow {
                    output: Arc::new(Output { query, rows, judgement }),
                    row: 0,
                    event: waiting.event,
                    trace: waiting.trace,
                });
            }
            self.insert(order, waiting);
        }
    }

    /// For a checkpoint, where any wait: only which they are is listed here, and what they are is written where it is encoded.
    pub(super) fn capture(&self, capture: &mut Capture) {
        if self.rows.is_empty() {
            return;
        }
        let share = |(order, waiting): (&Order, &Arc<WaitingRow>)| (order.clone(), Arc::clone(waiting));
        let rows: Vec<Ordered> = self.rows.iter().map(share).collect();
        capture.whole(WAITING, move || {
            let kept = kept(&rows)?;
            postcard::to_stdvec(&kept).map_err(|error| error.to_string())
        });
    }

    /// Takes back what was captured.
    pub(super) fn restore(&mut self, parts: &Parts) -> Result<(), String> {
        *self = Self::default();
        if parts.segments(WAITING).is_empty() {
            return Ok(());
        }
        for kept in parts.value::<Vec<Kept>>(WAITING)? {
            let batch = carried::from_bytes(&kept.rows).map_err(|error| error.to_string())?;
            self.take_back(&kept.query, &batch)?;
        }
        Ok(())
    }

    fn take_back(&mut self, query: &str, batch: &RecordBatch) -> Result<(), String> {
        let wrong = || format!("the rows of '{query}' that wait can't be read");
        let (flow, further) = carried::from_batch(batch, FURTHER).map_err(|error| error.to_string())?;
        let numbers = |at: usize| further[at].as_primitive_opt::<UInt64Type>().ok_or_else(wrong);
        let flags = |at: usize| {
            let flags = further[at].as_boolean_opt().ok_or_else(wrong)?;
            Ok::<Vec<bool>, String>(flags.values().iter().collect())
        };
        let output = Arc::new(Output {
            query: query.into(),
            rows: Rows::Many(flow),
            judgement: Some(Judgement {
                raise: flags(0)?,
                clear: flags(1)?,
            }),
        });
        let (number, event) = (numbers(2)?, numbers(3)?);
        let time = further[4].as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        let subject = further[5].as_string_opt::<i32>().ok_or_else(wrong)?;
        for row in 0..batch.num_rows() {
            let watermark = output.rows.watermark(row);
            let event = event.is_valid(row).then(|| EventAt {
                index: usize::try_from(event.value(row)).unwrap_or(usize::MAX),
                time_us: time.value(row),
                met_us: watermark,
            });
            let order = Order {
                watermark,
                event: event.map(|event| event.index),
                subject: subject.value(row).into(),
                number: number.value(row),
            };
            self.numbered = self.numbered.max(order.number);
            let waiting = WaitingRow {
                output: Arc::clone(&output),
                row,
                event,
                trace: None,
            };
            self.insert(order, Arc::new(waiting));
        }
        Ok(())
    }
}

/// Rows as a checkpoint has them, those of each query together.
fn kept(rows: &[Ordered]) -> Result<Vec<Kept>, String> {
    // Those that were said together are picked together.
    let mut outputs: Vec<(&Arc<Output>, Vec<&Ordered>)> = Vec::new();
    let mut known: FxHashMap<*const Output, usize> = FxHashMap::default();
    for ordered in rows {
        let output = &ordered.1.output;
        let at = *known.entry(Arc::as_ptr(output)).or_insert_with(|| {
            outputs.push((output, Vec::new()));
            outputs.len() - 1
        });
        outputs[at].1.push(ordered);
    }
    let mut of_queries: BTreeMap<&str, (Vec<Rows>, Vec<&Ordered>)> = BTreeMap::new();
    for (output, rows) in outputs {
        let picked: Vec<usize> = rows.iter().map(|(_, waiting)| waiting.row).collect();
        let picked = carried::picked(&output.rows, &picked).map_err(|error| error.to_string())?;
        let of_query = of_queries.entry(&output.query).or_default();
        of_query.0.push(picked);
        of_query.1.extend(rows);
    }
    let of_query = |(query, (rows, waiting)): (&str, (Vec<Rows>, Vec<&Ordered>))| {
        let rows: Vec<&Rows> = rows.iter().collect();
        let batch = carried::gathered(&rows).and_then(|flow| carried::to_batch(&flow, &further(&waiting)));
        let rows = batch.and_then(|batch| carried::to_bytes(&batch));
        let (query, rows) = (query.to_owned(), rows.map_err(|error| error.to_string())?);
        Ok(Kept { query, rows })
    };
    of_queries.into_iter().map(of_query).collect()
}

/// Whether columns are of the same names and types.
fn is_same(one: &SchemaRef, other: &SchemaRef) -> bool {
    let (one, other) = (one.fields(), other.fields());
    let mut both = one.iter().zip(other);
    one.len() == other.len()
        && both.all(|(one, other)| (one.name(), one.data_type()) == (other.name(), other.data_type()))
}

/// The columns beside the rows' own.
fn further(waiting: &[&Ordered]) -> [(&'static str, ArrayRef); FURTHER] {
    let judged = |of: fn(&Judgement) -> &Vec<bool>| -> ArrayRef {
        let judged = waiting.iter().map(|(_, waiting)| {
            let judgement = waiting.output.judgement.as_ref();
            judgement.is_some_and(|judgement| of(judgement)[waiting.row])
        });
        Arc::new(BooleanArray::from(judged.collect::<Vec<bool>>()))
    };
    let orders = || waiting.iter().map(|(order, _)| order);
    let events = orders().map(|order| order.event.map(|event| event as u64));
    let times = waiting.iter().map(|(_, waiting)| Some(waiting.event?.time_us));
    [
        ("raise", judged(|judgement| &judgement.raise)),
        ("clear", judged(|judgement| &judgement.clear)),
        (
            "number",
            Arc::new(UInt64Array::from_iter_values(orders().map(|order| order.number))),
        ),
        ("event", Arc::new(events.collect::<UInt64Array>())),
        ("event_time", Arc::new(times.collect::<Int64Array>())),
        (
            "subject",
            Arc::new(StringArray::from_iter_values(
                orders().map(|order| order.subject.as_ref()),
            )),
        ),
    ]
}

/// The event that a row was said of, if it was said when that came: that of a window which ends much later is at hand by
/// chance.
fn event_of(rows: &Rows, row: usize, moment: &Moment<'_>) -> Option<EventAt> {
    let event = (moment.event_of)(rows.cause(row)?)?;
    (event.met_us == rows.watermark(row)).then_some(event)
}
