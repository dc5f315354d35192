//! Rows that wait in front of a query while windows that they meet in it are being said.
//!
//! They may have met a later watermark, by which the rest of these windows would seem late. To say that at once would keep
//! everybody waiting, and only this query is concerned.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{SchemaRef, UInt64Type};
use datafusion::common::{Result, internal_datafusion_err};

use super::Query;
use crate::carried;
use crate::operator::Footprint;
use crate::row::{Row, Rows};

/// Beyond so many rows that wait, each that comes brings what they wait for nearer: some seconds of a thousand a second, and
/// little to go through at once at a checkpoint's cut. A window of 100,000 keys is said in a tenth of a second.
const ROWS_CROWDED: usize = 16_384;
/// The part of a query's memory that they may take: it is not to be stopped for what it has yet to take.
const MEMORY_PARTS: usize = 4;
/// What rows that came together take beside their values, bytes by estimate.
const BYTES_EACH: usize = 160;
/// The parts of a snapshot that hold them have numbers from here on: no query has so many operators.
const FIRST_PART: usize = 1 << 20;
/// What says of which stream or query a part's rows are.
const SOURCE: &str = "source";

/// Where rows stand among all that come: behind those that were pushed before, and of one push in the order in which the
/// queries that they come through are handed theirs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The number of the push.
    pub(crate) push: u64,
    /// The queries that they came through, the last of which is the one that they are for.
    pub(crate) through: Vec<u32>,
}

impl Place {
    /// The queries as a text.
    fn to_text(&self) -> String {
        let numbers: Vec<String> = self.through.iter().map(ToString::to_string).collect();
        numbers.join(".")
    }

    /// Takes back what `to_text` gave; `None` of another text.
    fn of_text(push: u64, text: &str) -> Option<Self> {
        let through: Option<Vec<u32>> = text.split('.').map(|number| number.parse().ok()).collect();
        Some(Self {
            push,
            through: through?,
        })
    }
}

/// Rows that came together, for the reader of a stream or of another query.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) place: Place,
    pub(crate) source: Arc<str>,
    pub(crate) rows: Rows,
}

/// All that wait in front of a query, those first that are to be let in first.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    held: VecDeque<(Held, usize)>,
    rows: usize,
    bytes: usize,
}

impl Waiting {
    fn push(&mut self, held: Held) {
        let bytes = BYTES_EACH + held.rows.bytes();
        self.rows += held.rows.len();
        self.bytes += bytes;
        let behind = self.held.partition_point(|(other, _)| other.place <= held.place);
        self.held.insert(behind, (held, bytes));
    }

    /// The first of them, `most` rows at most.
    fn take(&mut self, most: usize) -> Option<Held> {
        let (first, bytes) = self.held.front_mut()?;
        if let Rows::Many(flow) = &mut first.rows
            && flow.num_rows() > most
        {
            let rows = Rows::Many(flow.slice(0, most));
            *flow = flow.slice(most, flow.num_rows() - most);
            let taken = rows.bytes().min(*bytes);
            *bytes -= taken;
            self.bytes -= taken;
            self.rows -= most;
            return Some(Held {
                place: first.place.clone(),
                source: Arc::clone(&first.source),
                rows,
            });
        }
        let (held, bytes) = self.held.pop_front()?;
        self.rows -= held.rows.len();
        self.bytes -= bytes;
        Some(held)
    }

    pub(super) fn footprint(&self) -> Footprint {
        Footprint {
            bytes: self.bytes,
            ..Footprint::default()
        }
    }

    /// What is to be remembered of them over a restart, a part for each stream or query that they are of.
    pub(super) fn parts(&self) -> Result<Vec<(usize, RecordBatch)>> {
        let mut of_sources: BTreeMap<&str, Vec<(u64, &Held)>> = BTreeMap::new();
        for (number, (held, _)) in (0..).zip(&self.held) {
            of_sources.entry(&held.source).or_default().push((number, held));
        }
        let mut parts = Vec::new();
        for (part, (source, held)) in (FIRST_PART..).zip(of_sources) {
            let rows: Vec<&Rows> = held.iter().map(|(_, held)| &held.rows).collect();
            let each = || held.iter().flat_map(|of| std::iter::repeat_n(of, of.1.rows.len()));
            let numbers = UInt64Array::from_iter_values(each().map(|(number, _)| *number));
            let pushes = UInt64Array::from_iter_values(each().map(|(_, held)| held.place.push));
            let through: Vec<String> = each().map(|(_, held)| held.place.to_text()).collect();
            let further: [(&str, ArrayRef); 3] = [
                ("number", Arc::new(numbers)),
                ("push", Arc::new(pushes)),
                ("through", Arc::new(StringArray::from(through))),
            ];
            let batch = carried::to_batch(&carried::gathered(&rows)?, &further)?;
            let texts = HashMap::from([(SOURCE.to_owned(), source.to_owned())]);
            let schema = batch.schema().as_ref().clone().with_metadata(texts);
            parts.push((part, batch.with_schema(Arc::new(schema))?));
        }
        Ok(parts)
    }

    /// Takes back what `parts` gave, among the parts of a snapshot.
    pub(super) fn restored(
        parts: &[(usize, RecordBatch)],
        columns_of: impl Fn(&str) -> Option<SchemaRef>,
    ) -> Result<Self> {
        let mut all: Vec<(u64, Held)> = Vec::new();
        for (_, part) in parts.iter().filter(|(number, _)| *number >= FIRST_PART) {
            let wrong = || internal_datafusion_err!("the rows that wait can't be read");
            let schema = part.schema();
            let source = schema.metadata().get(SOURCE).ok_or_else(wrong)?;
            let columns = columns_of(source).ok_or_else(wrong)?;
            let (flow, further) = carried::from_batch(part, 3)?;
            let flow = carried::under(&Rows::Many(flow), &columns)?.into_flow();
            let numbers = further[0].as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?;
            let pushes = further[1].as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?;
            let through = further[2].as_string_opt::<i32>().ok_or_else(wrong)?;
            let source: Arc<str> = source.as_str().into();
            let mut from = 0;
            for together in numbers.values().chunk_by(|one, other| one == other) {
                let rows = match together.len() {
                    1 => Rows::One(Row::of(&flow, from)),
                    rows => Rows::Many(flow.slice(from, rows)),
                };
                let place = Place::of_text(pushes.value(from), through.value(from)).ok_or_else(wrong)?;
                let source = Arc::clone(&source);
                all.push((together[0], Held { place, source, rows }));
                from += together.len();
            }
        }
        all.sort_by_key(|(number, _)| *number);
        let mut waiting = Self::default();
        all.into_iter().for_each(|(_, held)| waiting.push(held));
        Ok(waiting)
    }
}

impl Query {
    /// Lets rows wait in front of it.
    pub(crate) fn hold(&mut self, held: Held) {
        if self.broken.is_some() {
            return;
        }
        let (rows, bytes) = (held.rows.len() as u64, held.rows.bytes());
        self.waiting.push(held);
        if self.budget.pass(rows, bytes) {
            self.keep_to_budget();
        }
    }

    /// Whether any wait.
    pub(crate) fn holds_rows(&self) -> bool {
        !self.waiting.held.is_empty()
    }

    /// Whether those that wait take so much that no more should.
    pub(crate) fn has_no_room(&self) -> bool {
        self.waiting.bytes >= self.memory() / MEMORY_PARTS
    }

    /// Whether so many wait that what they wait for should come nearer with each that comes.
    pub(crate) fn is_crowded(&self) -> bool {
        self.waiting.rows >= ROWS_CROWDED
    }

    /// Takes out the first of those that wait, `most` rows at most.
    pub(crate) fn take_held(&mut self, most: usize) -> Option<Held> {
        self.waiting.take(most)
    }

    /// The number of the last push of which rows wait.
    pub(crate) fn last_push_held(&self) -> Option<u64> {
        self.waiting.held.back().map(|(held, _)| held.place.push)
    }
}
