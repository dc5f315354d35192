//! A capture is the state of the engine at one moment, taken quickly on the pipeline's task and written down elsewhere.
//!
//! What is captured is rows that are shared or copied, and how to write them; encoding, checksums and the disk are for
//! another thread.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize};
use usher_connectors::checkpoint::{Change, Part};

/// The segments of a part, each written down when it is asked for.
type Segments = Box<dyn Iterator<Item = Result<Vec<u8>, String>> + Send>;

/// The state at one moment: what is new in each part.
#[derive(Default)]
pub struct Capture {
    parts: Vec<CapturedPart>,
    /// Rows that were taken for it on the pipeline's task.
    taken_rows: usize,
}

struct CapturedPart {
    name: String,
    begins_anew: bool,
    segments: Segments,
}

/// Rows of a part of which each replaces the one of its key; one without a value takes it out.
pub type Entries<K, V> = Vec<(K, Option<V>)>;

/// Rows that were taken bit by bit. They lie in pieces: to make one long list longer would hold up events for as long as it
/// takes to copy it.
#[derive(Debug)]
pub struct Rows<K, V>(Vec<Entries<K, V>>);

/// Rows of a piece.
const PIECE: usize = 512;
/// Pieces that are written down as one segment.
const PIECES_AT_ONCE: usize = 8;

impl<K, V> Default for Rows<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K, V> Rows<K, V> {
    /// One more.
    pub fn push(&mut self, row: (K, Option<V>)) {
        match self.0.last_mut().filter(|piece| piece.len() < PIECE) {
            Some(piece) => piece.push(row),
            None => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(row);
                self.0.push(piece);
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K, V> Extend<(K, Option<V>)> for Rows<K, V> {
    fn extend<I: IntoIterator<Item = (K, Option<V>)>>(&mut self, rows: I) {
        rows.into_iter().for_each(|row| self.push(row));
    }
}

impl<K, V> FromIterator<(K, Option<V>)> for Rows<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, Option<V>)>>(rows: I) -> Self {
        let mut all = Self::default();
        all.extend(rows);
        all
    }
}

impl<K, V> IntoIterator for Rows<K, V> {
    type Item = (K, Option<V>);
    type IntoIter = std::iter::Flatten<std::vec::IntoIter<Entries<K, V>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

/// As one list.
impl<K: Serialize, V: Serialize> Serialize for Rows<K, V> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.len()))?;
        for row in self.0.iter().flatten() {
            list.serialize_element(row)?;
        }
        list.end()
    }
}

/// What is written as JSON within a part: what leaves out fields that are empty can't be read back by their places.
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

impl<T: Serialize> Serialize for Json<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = serde_json::to_vec(&self.0).map_err(serde::ser::Error::custom)?;
        serializer.serialize_bytes(&json)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Json<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Vec::<u8>::deserialize(deserializer)?;
        serde_json::from_slice(&json)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

/// What is new in a part that notes what changes.
pub struct Since<K, V> {
    /// Whether the rows are all there is.
    pub begins_anew: bool,
    /// In the order in which they were taken.
    pub rows: Rows<K, V>,
}

impl Capture {
    /// A part that is written whole.
    pub fn whole(&mut self, name: &str, write: impl FnOnce() -> Result<Vec<u8>, String> + Send + 'static) {
        self.put(name, true, std::iter::once_with(write));
    }

    /// A part that is written whole, in pieces that are made when they are asked for.
    pub fn in_pieces(&mut self, name: &str, pieces: impl Iterator<Item = Result<Vec<u8>, String>> + Send + 'static) {
        self.put(name, true, pieces);
    }

    /// A part of rows by key.
    pub fn rows<K, V>(&mut self, name: &str, since: Since<K, V>)
    where
        K: Serialize + Send + 'static,
        V: Serialize + Send + 'static,
    {
        let rows = since.rows;
        self.taken_rows += rows.len();
        let mut pieces = rows.0.into_iter();
        let segments = std::iter::from_fn(move || {
            // They are let go of as soon as they are written down.
            let some = Rows(pieces.by_ref().take(PIECES_AT_ONCE).collect());
            let written = || postcard::to_stdvec(&some).map_err(|error| error.to_string());
            (!some.is_empty()).then(written)
        });
        self.put(name, since.begins_anew, segments);
    }

    /// What the queries hold.
    pub fn queries(&mut self, captured: usher_queries::capture::Capture) {
        use usher_queries::capture::{head_to_bytes, queries_to_bytes, rows_to_bytes};
        let words = |error: usher_queries::capture::Error| error.strip_backtrace();
        let queries = captured.queries;
        self.whole(QUERIES, move || queries_to_bytes(&queries).map_err(words));
        if let Some(references) = captured.references {
            self.whole(REFERENCES, move || references.to_bytes().map_err(words));
        }
        for operator in captured.operators {
            self.taken_rows += operator.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
            let (rows, head) = (operator.rows, operator.head);
            let name = rows_name(operator.operator);
            let segments = rows_to_bytes(rows).map(move |segment| segment.map_err(words));
            self.put(&name, operator.begins_anew, segments);
            let (name, has_head) = (head_name(operator.operator), head.is_some());
            let segments = head.into_iter().map(move |head| head_to_bytes(&head).map_err(words));
            // Where all is in the rows there is no head; where nothing has changed the last one stays.
            self.put(&name, has_head || operator.begins_anew, segments);
        }
    }

    fn put<S>(&mut self, name: &str, begins_anew: bool, segments: S)
    where
        S: Iterator<Item = Result<Vec<u8>, String>> + Send + 'static,
    {
        self.parts.push(CapturedPart {
            name: name.to_owned(),
            begins_anew,
            segments: Box::new(segments),
        });
    }

    /// Rows that were taken for it on the pipeline's task, at the cut and ahead of it: how much events had to wait for.
    pub fn taken_rows(&self) -> usize {
        self.taken_rows
    }

    /// Writes everything down, a piece each time that one is asked for, and lets go of what the piece was made of: a state that
    /// begins anew is never there a second time as bytes. Gives words where a part can't be written. All of it takes as long as
    /// the state that is new is large.
    pub fn pieces(self) -> impl Iterator<Item = Result<Change, String>> {
        self.parts.into_iter().flat_map(|part| {
            // A part of which nothing is new is named all the same.
            let begun = Change {
                name: part.name.clone(),
                begins_anew: part.begins_anew,
                segments: Vec::new(),
            };
            let name = part.name;
            let pieces = part.segments.map(move |segment| {
                let segment = segment.map_err(|cause| format!("the part '{name}' can't be saved: {cause}"))?;
                Ok(Change {
                    name: name.clone(),
                    begins_anew: false,
                    segments: vec![segment.into()],
                })
            });
            std::iter::once(Ok(begun)).chain(pieces)
        })
    }

    /// All that is written, a change a part.
    #[cfg(test)]
    pub(crate) fn written(self) -> Result<Vec<Change>, String> {
        let mut all: Vec<Change> = Vec::new();
        for piece in self.pieces() {
            let piece = piece?;
            match all.last_mut().filter(|last| last.name == piece.name) {
                Some(last) => last.segments.extend(piece.segments),
                None => all.push(piece),
            }
        }
        Ok(all)
    }
}

/// The part that lists the queries.
const QUERIES: &str = "queries";
/// The part of what reference tables held before.
const REFERENCES: &str = "references";

fn rows_name(operator: u64) -> String {
    format!("operator/{operator}/rows")
}

fn head_name(operator: u64) -> String {
    format!("operator/{operator}/head")
}

/// The parts of a checkpoint, by name.
pub struct Parts(BTreeMap<String, Vec<Bytes>>);

/// A query's name, and its state or why that can't be read.
pub type ReadQuery = (String, Result<usher_queries::snapshot::QuerySnapshot, String>);

impl Parts {
    /// Of a checkpoint.
    pub fn new(parts: Vec<Part>) -> Self {
        Self(parts.into_iter().map(|part| (part.name, part.segments)).collect())
    }

    /// The segments of a part; none where there is no such part.
    pub fn segments(&self, name: &str) -> &[Bytes] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// A part that is written whole.
    ///
    /// # Errors
    /// In words, when it is not there.
    pub fn whole(&self, name: &str) -> Result<&Bytes, String> {
        self.segments(name).last().ok_or_else(|| "it is not there".to_owned())
    }

    /// The same of what postcard wrote.
    ///
    /// # Errors
    /// In words, when it is not there or something else.
    pub fn value<T: DeserializeOwned>(&self, name: &str) -> Result<T, String> {
        postcard::from_bytes(self.whole(name)?).map_err(|error| error.to_string())
    }

    /// The pieces of what postcard wrote so, in their order.
    ///
    /// # Errors
    /// In words, when none is there or one is something else.
    pub fn pieces<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, String> {
        self.whole(name)?;
        let pieces = self.segments(name).iter();
        pieces
            .map(|piece| postcard::from_bytes(piece).map_err(|error| error.to_string()))
            .collect()
    }

    /// The rows of a part, in the order in which they replace each other.
    ///
    /// # Errors
    /// In words, when the bytes are something else.
    pub fn rows<K: DeserializeOwned, V: DeserializeOwned>(&self, name: &str) -> Result<Entries<K, V>, String> {
        let mut all = Vec::new();
        for segment in self.segments(name) {
            let rows: Entries<K, V> = postcard::from_bytes(segment).map_err(|error| error.to_string())?;
            all.extend(rows);
        }
        Ok(all)
    }

    /// What the queries held, each by itself.
    ///
    /// # Errors
    /// In words, when the list of them can't be read.
    pub fn queries(&self) -> Result<Vec<ReadQuery>, String> {
        use usher_queries::capture::{assembled, queries_from_bytes};
        use usher_queries::snapshot::QuerySnapshot;
        let words = |error: usher_queries::capture::Error| error.strip_backtrace();
        let listed = queries_from_bytes(self.whole(QUERIES)?).map_err(words)?;
        let mut all: Vec<ReadQuery> = Vec::with_capacity(listed.len() + 1);
        if let Ok(references) = self.whole(REFERENCES) {
            let read = QuerySnapshot::from_bytes(references).map_err(words);
            all.push((usher_queries::references::REFERENCES.to_owned(), read));
        }
        for query in listed {
            let state_of = |operator| {
                let head = self.segments(&head_name(operator)).last();
                assembled(self.segments(&rows_name(operator)), head.map(AsRef::as_ref))
            };
            all.push((query.name.clone(), query.snapshot(state_of).map_err(words)));
        }
        Ok(all)
    }
}
