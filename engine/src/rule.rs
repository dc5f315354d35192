//! A rule is a `CREATE ALERT` that runs: where its columns stand, and how a row becomes a subject, values and a sentence.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use serde_json::{Map, Value};
use usher_queries::row::Rows;
use usher_queries::rows::time_to_text;
use usher_queries::statement::AlertOptions;

use crate::alert::Span;
use crate::site::{Places, humanised};

/// Columns that say where and when and are not measurements.
const NO_VALUES: [&str; 6] = ["site", "window_start", "window_end", "causes", "event_time", "as_of"];

/// A running rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name.
    pub name: Arc<str>,
    /// Its options, as written.
    pub options: AlertOptions,
    site: Option<usize>,
    zone: Option<usize>,
    subject: Option<usize>,
    time: Option<usize>,
    causes: Option<usize>,
    window: Option<(usize, usize)>,
    values: Vec<usize>,
}

impl Rule {
    /// The rule of an alert query whose output has `schema`. A subject `zone` is found in the column `zone`, an item
    /// in `item`, and so on.
    pub fn new(name: Arc<str>, options: AlertOptions, schema: &Schema) -> Self {
        let column = |name: &str| schema.index_of(name).ok();
        let is_time = |index: &usize| {
            matches!(
                schema.field(*index).data_type(),
                DataType::Timestamp(TimeUnit::Microsecond, None)
            )
        };
        let time = ["event_time", "as_of", "last_seen"]
            .into_iter()
            .filter_map(column)
            .find(is_time);
        let window = column("window_start")
            .zip(column("window_end"))
            .filter(|(start, end)| is_time(start) && is_time(end));
        let values = (0..schema.fields().len())
            .filter(|index| {
                let name = schema.field(*index).name().as_str();
                !NO_VALUES.contains(&name) && name != options.subject && name != "zone"
            })
            .collect();
        Self {
            site: column("site"),
            zone: column("zone"),
            subject: column(&options.subject),
            time,
            causes: column("causes"),
            window,
            values,
            name,
            options,
        }
    }

    /// The site a row is about, empty where the rule names none.
    pub fn site<'a>(&self, rows: &'a Rows, row: usize) -> &'a str {
        self.site.and_then(|site| rows.text(site, row)).unwrap_or("")
    }

    /// The zone a row is about.
    pub fn zone<'a>(&self, rows: &'a Rows, row: usize) -> Option<&'a str> {
        self.zone.and_then(|zone| rows.text(zone, row))
    }

    /// The id of the subject; `None` where the column is null, which is about nobody.
    pub fn subject(&self, rows: &Rows, row: usize) -> Option<String> {
        let subject = self.subject?;
        match rows.text(subject, row) {
            Some(text) => Some(text.to_owned()),
            None if rows.is_null(subject, row) => None,
            None => Some(plain(&rows.json(subject, row))),
        }
    }

    /// The event time a row itself tells, microseconds.
    pub fn time(&self, rows: &Rows, row: usize) -> Option<i64> {
        rows.time(self.time?, row)
    }

    /// The window of a row.
    pub fn window(&self, rows: &Rows, row: usize) -> Option<Span> {
        let (start, end) = self.window?;
        let text = |column: usize| rows.time(column, row).map(time_to_text);
        Some(Span {
            start: text(start)?,
            end: text(end)?,
        })
    }

    /// The ids of the events behind a row, where the rule collects them in a column `causes`.
    pub fn causes(&self, rows: &Rows, row: usize) -> Option<Vec<String>> {
        match rows.json(self.causes?, row) {
            Value::Array(ids) => Some(ids.iter().map(plain).collect()),
            _ => None,
        }
    }

    /// The measurements of a row by name.
    pub fn values(&self, rows: &Rows, row: usize) -> Map<String, Value> {
        let schema = rows.schema();
        self.values
            .iter()
            .map(|index| (schema.field(*index).name().clone(), rows.json(*index, row)))
            .collect()
    }

    /// The sentence for people: `{column}` becomes the value, `{zone}` the zone's name.
    pub fn text(&self, rows: &Rows, row: usize, places: &Places) -> String {
        let mut sentence = String::with_capacity(self.options.text.len() + 16);
        let mut rest = self.options.text.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            sentence.push_str(before);
            let Some((name, behind)) = after.split_once('}') else {
                sentence.push('{');
                rest = after;
                continue;
            };
            rest = behind;
            match self.word(name, rows, row, places) {
                Some(word) => sentence.push_str(&word),
                None => sentence.push_str(&format!("{{{name}}}")),
            }
        }
        sentence.push_str(rest);
        sentence
    }

    fn word(&self, name: &str, rows: &Rows, row: usize, places: &Places) -> Option<String> {
        if name == "zone"
            && let Some(zone) = self.zone(rows, row)
        {
            let known = places.zone(self.site(rows, row), zone);
            return Some(known.map_or_else(|| humanised(zone), |zone| zone.name.in_language("en").to_owned()));
        }
        let column = rows.schema().index_of(name).ok()?;
        Some(plain(&rows.json(column, row)))
    }
}

/// A value as people write it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".to_owned(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.as_i64().is_none() => {
                let text = format!("{float:.2}");
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}
