//! Columns are made once from decoded events and shared by all queries: a flow a kind, or a row for one event alone.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, SchemaRef};
use usher_queries::flow::Flow;
use usher_queries::row::{Row, Rows};
use usher_queries::streams::stream_schema;
use usher_queries::value::Value;

use crate::consent::Purposes;
use crate::event::{Event, Kind, Reading};
use crate::pseudonym::Pseudonym;

/// An event with what the walk has found out about it before the queries see it.
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// The event.
    pub event: &'a Event,
    /// The watermark that stood when it came, microseconds.
    pub watermark: i64,
    /// For a gate: people who passed (in, out), differences of totals worked out.
    pub passed: (i64, i64),
    /// For a gate: people inside its zone before that, by all passages until then; 0 for others.
    pub inside: i64,
}

/// The events of one kind as rows of the stream of that name; `None` when there are none.
///
/// Columns as [`stream_schema`] has them, rows in the order of `observed`.
pub fn rows_of(kind: Kind, observed: &[Observed<'_>]) -> Option<Rows> {
    if let [one] = observed {
        // The usual case where nothing has to wait, and cheaper than arrays of length one.
        return (one.event.source.kind == kind).then(|| Rows::One(row_of(kind, one)));
    }
    flow_of(kind, observed).map(Rows::Many)
}

/// As [`rows_of`], always as a flow.
pub fn flow_of(kind: Kind, observed: &[Observed<'_>]) -> Option<Flow> {
    let rows: Vec<&Observed<'_>> = observed
        .iter()
        .filter(|observed| observed.event.source.kind == kind)
        .collect();
    if rows.is_empty() {
        return None;
    }
    let schema = schema_of(kind);
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(column, field)| column_of(kind, column, field.data_type(), &rows))
        .collect();
    let ids = rows.iter().map(|row| &row.event.id);
    Some(Flow {
        causes: Arc::new(StringArray::from_iter_values(ids)),
        batch: RecordBatch::try_new(schema, columns).expect("columns are built for the schema of their kind"),
        watermarks: Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.watermark))),
    })
}

fn row_of(kind: Kind, observed: &Observed<'_>) -> Row {
    let schema = schema_of(kind);
    let columns = 0..schema.fields().len();
    Row {
        values: columns.map(|column| cell(kind, column, observed).to_value()).collect(),
        schema,
        watermark: observed.watermark,
        cause: Some(Arc::clone(&observed.event.id)),
    }
}

fn schema_of(kind: Kind) -> SchemaRef {
    stream_schema(kind.as_str()).expect("each kind has a stream of its name")
}

fn column_of(kind: Kind, column: usize, data_type: &DataType, rows: &[&Observed<'_>]) -> ArrayRef {
    let cells = rows.iter().map(|row| cell(kind, column, row));
    match data_type {
        DataType::Utf8 => Arc::new(cells.map(Cell::text).collect::<StringArray>()),
        DataType::Int64 => Arc::new(cells.map(Cell::integer).collect::<Int64Array>()),
        DataType::Float64 => Arc::new(cells.map(Cell::float).collect::<Float64Array>()),
        _ => Arc::new(cells.map(Cell::integer).collect::<TimestampMicrosecondArray>()),
    }
}

/// What stands in one column of one event.
#[derive(Debug, Clone, Copy)]
enum Cell<'a> {
    Null,
    Integer(i64),
    Float(f64),
    /// Microseconds since 1970.
    Time(i64),
    Text(&'a Arc<str>),
    Word(&'static str),
    /// With spaces between.
    Names(&'a [Pseudonym]),
    /// Likewise.
    Purposes(Purposes),
}

impl<'a> Cell<'a> {
    fn of_text(text: Option<&'a Arc<str>>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }

    fn of_integer(integer: Option<i64>) -> Self {
        integer.map_or(Self::Null, Self::Integer)
    }

    fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Word(word) => Some(Cow::Borrowed(word)),
            Self::Names(names) => Some(Cow::Owned(joined(names))),
            Self::Purposes(purposes) => Some(Cow::Owned(purposes.to_string())),
            _ => None,
        }
    }

    fn integer(self) -> Option<i64> {
        match self {
            Self::Integer(value) | Self::Time(value) => Some(value),
            _ => None,
        }
    }

    fn float(self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(value),
            _ => None,
        }
    }

    fn to_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Integer(value) => Value::Int(value),
            Self::Float(value) => Value::Float(value),
            Self::Time(value) => Value::Time(value),
            Self::Text(text) => Value::Text(Arc::clone(text)),
            Self::Word(word) => Value::Text(word.into()),
            Self::Names(names) => Value::Text(joined(names).into()),
            Self::Purposes(purposes) => Value::Text(purposes.to_string().into()),
        }
    }
}

fn joined(names: &[Pseudonym]) -> String {
    let names: Vec<&str> = names.iter().map(Pseudonym::as_str).collect();
    names.join(" ")
}

/// The cell in the column of that number, as [`stream_schema`] counts them.
fn cell<'a>(kind: Kind, column: usize, observed: &'a Observed<'_>) -> Cell<'a> {
    let event = observed.event;
    match column {
        0 => Cell::Text(&event.id),
        1 => Cell::Time(event.time_us),
        2 => Cell::Time(event.received_us),
        3 => Cell::Text(&event.source.site),
        4 => Cell::Text(&event.source.zone),
        5 => Cell::Text(&event.source.device),
        _ => own_cell(kind, column - 6, observed),
    }
}

/// The cells that a kind has beside those of all.
fn own_cell<'a>(kind: Kind, column: usize, observed: &'a Observed<'_>) -> Cell<'a> {
    match (kind, column, &observed.event.reading) {
        (Kind::Gate, 0, _) => Cell::Integer(observed.passed.0),
        (Kind::Gate, 1, _) => Cell::Integer(observed.passed.1),
        (Kind::Gate, 2, _) => Cell::Integer(observed.inside),
        (Kind::Seat, 0, _) => Cell::Text(&observed.event.source.device),
        (Kind::Seat, 1, Reading::Seat { state }) => Cell::Word(state.as_str()),
        (Kind::Rfid, 0, Reading::Rfid { tag, .. }) => Cell::Text(tag),
        (Kind::Rfid, 1, Reading::Rfid { antenna, .. }) => Cell::of_integer(antenna.map(i64::from)),
        (Kind::Rfid, 2, Reading::Rfid { rssi_dbm, .. }) => {
            rssi_dbm.map_or(Cell::Null, |rssi_dbm| Cell::Float(f64::from(rssi_dbm)))
        }
        (Kind::Rfid, 3, Reading::Rfid { action, .. }) => Cell::Word(action.as_str()),
        (Kind::Rfid, 4, reading) | (Kind::Click | Kind::Reply, 0, reading) => Cell::of_text(pseudonym(reading)),
        (Kind::Click, 1, Reading::Click { session, .. }) => Cell::of_text(session.as_ref().map(Pseudonym::shared)),
        (Kind::Click, 2, Reading::Click { action, .. }) => Cell::Text(action),
        (Kind::Click, 3, Reading::Click { query, .. }) => Cell::of_text(query.as_ref()),
        (Kind::Click, 4, Reading::Click { results, .. }) => Cell::of_integer(*results),
        (Kind::Click, 5, Reading::Click { item, .. }) => Cell::of_text(item.as_ref()),
        (Kind::Click, 6, Reading::Click { page, .. }) => Cell::of_text(page.as_ref()),
        (Kind::Click, 7, Reading::Click { count, .. }) => Cell::Integer(i64::from(*count)),
        (Kind::Reply, 1, Reading::Reply { message, .. }) => {
            Cell::of_text(Some(message).filter(|message| !message.is_empty()))
        }
        (Kind::Reply, 2, Reading::Reply { response, .. }) => Cell::Word(response.as_str()),
        (Kind::Reply, 3, Reading::Reply { rating, .. }) => Cell::of_integer(rating.map(i64::from)),
        (Kind::Identify, 0, Reading::Identify { person, .. }) => Cell::Text(person.shared()),
        (Kind::Identify, 1, Reading::Identify { also, .. }) => Cell::Names(also),
        (Kind::Identify, 2, Reading::Identify { action, .. }) => Cell::Word(action.as_str()),
        (Kind::Consent, 0, Reading::Consent { person, .. }) => {
            Cell::of_text(person.is_somebody().then(|| person.shared()))
        }
        (Kind::Consent, 1, Reading::Consent { purposes, .. }) => Cell::Purposes(*purposes),
        (Kind::Consent, 2, Reading::Consent { action, .. }) => Cell::Word(action.as_str()),
        _ => Cell::Null,
    }
}

/// The pseudonym behind a reading, shared, where there is one: of whoever did something, and not of whom something is said.
pub(crate) fn pseudonym(reading: &Reading) -> Option<&Arc<str>> {
    match reading {
        Reading::Rfid { person, .. } | Reading::Click { person, .. } => person.as_ref().map(Pseudonym::shared),
        Reading::Reply { person, .. } => person.is_somebody().then(|| person.shared()),
        Reading::Gate(_) | Reading::Seat { .. } | Reading::Identify { .. } | Reading::Consent { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use usher_queries::row::Row;

    use super::{Observed, flow_of, row_of};
    use crate::decode::{DecodeOptions, Decoder};
    use crate::event::Kind;
    use crate::pseudonym::Secret;

    #[test]
    fn an_event_alone_has_the_columns_that_it_has_among_others() {
        let payloads = [
            (
                "gate",
                r#"[{"id":"1","in":2,"out":1},{"id":"2","total_in":5,"total_out":4}]"#,
            ),
            ("seat", r#"[{"id":"1","state":"away"},{"id":"2","state":"free"}]"#),
            (
                "rfid",
                r#"[{"id":"1","tag":"E280","antenna":1,"rssi_dbm":-51.5,"action":"checkout","person":"p"},{"id":"2","tag":"E281"}]"#,
            ),
            (
                "click",
                r#"[{"id":"1","person":"p","session":"s","action":"search","query":"rust","results":0,"item":"i","page":"/a","count":3},
                    {"id":"2","action":"view"}]"#,
            ),
            (
                "reply",
                r#"[{"id":"1","person":"p","message":"m","response":"accepted","rating":4},
                    {"id":"2","person":"p","message":"m","response":"opened"}]"#,
            ),
            (
                "identify",
                r#"[{"id":"1","person":"p","also":["q","r"],"action":"unlink"},{"id":"2","person":"p","also":"q"}]"#,
            ),
        ];
        let mut decoder = Decoder::new(DecodeOptions::new(Secret::from_bytes([7; 32])));
        for (name, payload) in payloads {
            let kind = Kind::ALL
                .into_iter()
                .find(|kind| kind.as_str() == name)
                .expect("a kind");
            let decoded = decoder.decode(
                &format!("usher/in/main/hall/{name}/d1"),
                payload.as_bytes(),
                1_772_413_200_000_000,
            );
            assert_eq!(
                (decoded.events.len(), decoded.refused.len()),
                (2, 0),
                "{name}: {:?}",
                decoded.refused
            );
            let observed: Vec<Observed<'_>> = decoded
                .events
                .iter()
                .map(|event| Observed {
                    event,
                    watermark: 9,
                    passed: (2, 1),
                    inside: 4,
                })
                .collect();
            let flow = flow_of(kind, &observed).expect("there are two");
            for (index, observed) in observed.iter().enumerate() {
                let alone = row_of(kind, observed).to_flow();
                let among = Row::of(&flow, index).to_flow();
                assert_eq!(alone.batch, among.batch, "{name}");
                assert_eq!(
                    (alone.watermarks, alone.causes),
                    (among.watermarks, among.causes),
                    "{name}"
                );
                // What is not there is a null in both; what is there is a null in neither.
                let nulls: usize = alone.batch.columns().iter().map(|column| column.null_count()).sum();
                assert_eq!(
                    nulls > 0,
                    index == 1 && !matches!(kind, Kind::Gate | Kind::Seat | Kind::Identify | Kind::Consent),
                    "{name}"
                );
            }
        }
    }
}
