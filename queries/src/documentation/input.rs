//! What an example of the manual is fed: rows of streams, and of tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use chrono::{DateTime, Days, TimeZone};
use chrono_tz::Tz;
use serde_json::{Map, Value, json};

use super::TIME;
use crate::civil_time::OpeningHours;
use crate::rows::{batch_from_ndjson, time_to_text};
use crate::streams::{STREAMS, stream_schema};
use crate::watermark::Watermarks;

/// The reference tables with the columns that the engine gives them.
fn tables() -> BTreeMap<&'static str, SchemaRef> {
    let table = |columns: &[(&str, DataType)]| -> SchemaRef {
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, data_type)| Field::new(*name, data_type.clone(), true))
            .collect();
        Arc::new(Schema::new(fields))
    };
    let text = |name| (name, DataType::Utf8);
    BTreeMap::from([
        (
            "zones",
            table(&[
                text("site"),
                text("zone"),
                text("name"),
                text("name_zh"),
                ("capacity", DataType::Float64),
                text("parent"),
                text("role"),
                ("seats", DataType::Int64),
            ]),
        ),
        ("seats", table(&["site", "zone", "seat"].map(text))),
        ("devices", table(&["site", "zone", "device", "kind", "role"].map(text))),
        ("memberships", table(&["person", "group_id"].map(text))),
    ])
}

/// Every site is open from nine to nine, as the clocks of Copenhagen show it.
#[derive(Debug)]
pub(super) struct NineToNine;

impl NineToNine {
    /// From when to when it is open on the day of an instant and so many later.
    fn day(at_us: i64, later: u64) -> (i64, i64) {
        let date = DateTime::from_timestamp_micros(at_us)
            .and_then(|at| {
                at.with_timezone(&Tz::Europe__Copenhagen)
                    .date_naive()
                    .checked_add_days(Days::new(later))
            })
            .expect("examples are of our time");
        let at = |hour| {
            let local = date.and_hms_opt(hour, 0, 0).expect("there is such an hour");
            let at = Tz::Europe__Copenhagen.from_local_datetime(&local).earliest();
            at.expect("clocks change at night").timestamp_micros()
        };
        (at(9), at(21))
    }
}

impl OpeningHours for NineToNine {
    fn interval(&self, _site: &str, at_us: i64) -> Option<(i64, i64)> {
        let (start, end) = Self::day(at_us, 0);
        (start <= at_us && at_us < end).then_some((start, end))
    }

    fn next_end(&self, after_us: i64) -> i64 {
        // Beyond all calendars at the end of a test, when everything is over.
        if after_us > i64::MAX / 8 {
            return i64::MAX;
        }
        let ends = [0, 1].map(|later| Self::day(after_us, later).1);
        ends.into_iter().find(|end| *end > after_us).unwrap_or(i64::MAX)
    }

    fn longest_us(&self) -> i64 {
        12 * 3_600_000_000
    }
}

/// An event of an example.
pub(super) struct Event {
    pub(super) stream: &'static str,
    pub(super) id: String,
    /// The watermark it met, and the one behind it.
    pub(super) met: i64,
    pub(super) left: i64,
    pub(super) row: RecordBatch,
}

/// What an example is fed.
#[derive(Default)]
pub(super) struct Input {
    pub(super) events: Vec<Event>,
    /// What each table holds, and from which time on: a line of a table may say so by `from`.
    pub(super) tables: BTreeMap<&'static str, Vec<(i64, RecordBatch)>>,
}

impl Input {
    /// Reads a line a row. What a row leaves out: `event_id` is its number, `received_at` the latest time so far, `site`
    /// "main", any other text "-", any other number 0, unless it may be null.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut input = Self::default();
        let mut rows: BTreeMap<&'static str, BTreeMap<i64, Vec<String>>> = BTreeMap::new();
        let mut watermarks = Watermarks::new(TIME);
        let mut devices: Vec<String> = Vec::new();
        let mut received = i64::MIN;
        for line in text.lines() {
            let wrong = |what: &dyn std::fmt::Display| format!("{line}\n{what}");
            let mut object: Map<String, Value> = serde_json::from_str(line).map_err(|error| wrong(&error))?;
            let name = object.remove("stream").ok_or_else(|| wrong(&"it names no stream"))?;
            if let Some((table, _)) = tables().into_iter().find(|(table, _)| name == *table) {
                let from = match object.remove("from") {
                    Some(from) => DateTime::parse_from_rfc3339(from.as_str().unwrap_or_default())
                        .map_err(|error| wrong(&error))?
                        .timestamp_micros(),
                    None => i64::MIN,
                };
                let versions = rows.entry(table).or_default();
                versions
                    .entry(from)
                    .or_default()
                    .push(Value::Object(object).to_string());
                continue;
            }
            let stream = STREAMS.into_iter().find(|stream| name == **stream);
            let stream = stream.ok_or_else(|| wrong(&"there is no such stream"))?;
            let schema = stream_schema(stream).ok_or_else(|| wrong(&"there is no such stream"))?;
            if let Some(column) = object.keys().find(|column| schema.index_of(column).is_err()) {
                return Err(wrong(&format!("{stream} has no column {column}")));
            }
            let id = object
                .entry("event_id")
                .or_insert_with(|| json!(format!("e{}", input.events.len() + 1)));
            let id = id.as_str().unwrap_or_default().to_owned();
            let time = object["event_time"].as_str().unwrap_or_default();
            let time = DateTime::parse_from_rfc3339(time).map_err(|error| wrong(&error))?;
            received = received.max(time.timestamp_micros());
            for field in schema.fields().iter().filter(|field| !field.is_nullable()) {
                object
                    .entry(field.name().as_str())
                    .or_insert_with(|| match field.name().as_str() {
                        "received_at" => json!(time_to_text(received)),
                        "site" => json!("main"),
                        "count" => json!(1),
                        _ if *field.data_type() == DataType::Boolean => json!(false),
                        _ if *field.data_type() == DataType::Float64 => json!(0.0),
                        _ if *field.data_type() == DataType::Int64 => json!(0),
                        _ => json!("-"),
                    });
            }
            let device = ["site", "zone", "device"]
                .map(|column| object.get(column).map(Value::to_string).unwrap_or_default())
                .concat()
                + stream;
            let device = devices.iter().position(|known| *known == device).unwrap_or_else(|| {
                devices.push(device);
                devices.len() - 1
            });
            let row = batch_from_ndjson(&schema, &Value::Object(object).to_string()).map_err(|error| wrong(&error))?;
            let at = |column: &str| {
                let column = row
                    .column_by_name(column)
                    .map(|column| column.as_primitive::<TimestampMicrosecondType>());
                // A row of a derived stream is not received.
                column.map_or(received, |column| column.value(0))
            };
            let met = watermarks.observe(device as u64, at("event_time"), at("received_at"));
            input.events.push(Event {
                stream,
                id,
                met,
                left: watermarks.current(),
                row,
            });
        }
        for (table, schema) in tables() {
            let versions = rows
                .remove(table)
                .unwrap_or_else(|| BTreeMap::from([(i64::MIN, Vec::new())]));
            let versions = versions.into_iter().map(|(from, lines)| {
                let batch = batch_from_ndjson(&schema, &lines.join("\n"));
                Ok((from, batch.map_err(|error| format!("{table}: {error}"))?))
            });
            input.tables.insert(table, versions.collect::<Result<_, String>>()?);
        }
        Ok(input)
    }
}
