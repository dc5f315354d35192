//! An answer is what `usher query` prints: rows as a table for people, or as CSV or JSON for scripts.

use std::path::Path;
use std::sync::Arc;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use rustc_hash::FxHashSet;
use serde::Deserialize;
use serde_json::{Map, Value};
use usher_queries::bounded::{self, Recorded};
use usher_queries::error::QueryError;
use usher_queries::query_set::QuerySet;
use usher_queries::rows::batch_to_json;
use usher_queries::streams::{MESSAGE, VISIT};

use crate::check::load_queries_with;
use crate::consent::opted_out_by;
use crate::decode::{DecodeOptions, Decoder};
use crate::event::dedup_key;
use crate::mapping::Mappings;
use crate::perception::{Perception, PerceptionOptions};
use crate::pseudonym::{Secret, SecretError};
use crate::recent_ids::RecentIds;
use crate::recording::{Recording, RecordingError};
use crate::reference::set_references;
use crate::settings::{EngagementSettings, Settings};
use crate::site::Places;
use crate::tables::{mentions, message_stream, messages_of, references_of, streams_of};

/// Ids known while a recording is read; a repetition within half of that is left out.
const RECENT_IDS: usize = 1_000_000;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// With a header.
    Csv,
    /// An array of objects.
    Json,
}

/// The rows of an answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Rows {
    /// The columns in order.
    pub columns: Vec<String>,
    /// Each row by column.
    pub rows: Vec<Map<String, Value>>,
    /// Rows there were, shown or not.
    pub total: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The recording can't be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The question is wrong.
    #[error("{0}")]
    Question(QueryError),
    /// No pseudonyms can be made.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// The queries of a folder over these places, that know nothing yet: they find what people would be written. Nobody is held
/// out, for who that would be depends on pseudonyms. What is wrong in the folder is told to `bad`.
pub fn rules(settings: &Settings, places: &Arc<Places>, dir: Option<&Path>, mut bad: impl FnMut(String)) -> Perception {
    let mut queries = QuerySet::new();
    let gap_us = i64::try_from(settings.engagement.visit_gap.as_micros()).unwrap_or(i64::MAX);
    queries.set_lag(VISIT, gap_us);
    set_references(&mut queries, places);
    let dir = dir.unwrap_or(Path::new(""));
    if let Err(mistakes) = load_queries_with(&mut queries, dir, None, &settings.parameters) {
        mistakes.iter().for_each(|mistake| bad(mistake.to_string()));
    }
    let mut options = PerceptionOptions::of(settings);
    options.messages.holdout = 0.0;
    Perception::new(options, Arc::clone(places), queries)
}

/// Runs a bounded question over a recording. Persons become pseudonyms of this run only. `rules` find what people would be
/// written, where that is asked for.
///
/// # Errors
/// [`AnswerError`] in words; bad rows of the recording are told to `bad` and left out.
pub async fn over(
    sql: &str,
    file: &Path,
    mapping: Option<&str>,
    places: &Places,
    engagement: &EngagementSettings,
    rules: impl FnOnce() -> Perception,
    mut bad: impl FnMut(String),
) -> Result<Rows, AnswerError> {
    let mut decoder = Decoder::new(DecodeOptions::new(Secret::random()?));
    let mut ids = RecentIds::with_capacity(RECENT_IDS);
    let mut events = Vec::new();
    for row in Recording::open(file, &Mappings::shipped(), mapping)? {
        match row {
            Ok(recorded) => {
                let decoded = decoder.decode(&recorded.topic, &recorded.payload, recorded.at_us);
                for refusal in decoded.refused {
                    bad(format!("{}: {}", refusal.topic, refusal.reason));
                }
                events.extend(decoded.events.into_iter().filter(|event| ids.insert(dedup_key(event))));
            }
            Err(error) => bad(error.to_string()),
        }
    }
    let mut tables: Recorded = streams_of(&events, engagement, FxHashSet::default(), places);
    if mentions(sql, MESSAGE) {
        let rows = messages_of(&events, rules(), &opted_out_by(FxHashSet::default(), &events), None);
        tables.insert(MESSAGE.to_owned(), message_stream(rows));
    }
    let mut queries = QuerySet::new();
    set_references(&mut queries, places);
    references_of(&queries, &mut tables);
    let (schema, batches) = bounded::run_with(sql, &tables, queries.catalog().opening_hours())
        .await
        .map_err(AnswerError::Question)?;
    let rows: Vec<Map<String, Value>> = batches.iter().flat_map(batch_to_json).collect();
    Ok(Rows {
        columns: schema.fields().iter().map(|field| field.name().clone()).collect(),
        total: rows.len(),
        rows,
    })
}

impl Rows {
    /// The rows as text, with a line end.
    ///
    /// # Errors
    /// When a value can't be written, which no row of Arrow data has.
    pub fn print(&self, format: Format) -> anyhow::Result<String> {
        match format {
            Format::Table => Ok(self.table()),
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(Vec::new());
                writer.write_record(&self.columns)?;
                for row in &self.rows {
                    writer.write_record(self.columns.iter().map(|column| plain(row.get(column))))?;
                }
                Ok(String::from_utf8(
                    writer.into_inner().map_err(|error| error.into_error())?,
                )?)
            }
            Format::Json => {
                let rows: Vec<String> = self.rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
                Ok(format!("[{}]\n", rows.join(",\n ")))
            }
        }
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED).set_header(&self.columns);
        for row in &self.rows {
            table.add_row(self.columns.iter().map(|column| plain(row.get(column))));
        }
        for (index, name) in self.columns.iter().enumerate() {
            let is_number = self
                .rows
                .iter()
                .all(|row| row.get(name).is_none_or(|value| value.is_number() || value.is_null()));
            if is_number && let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let shown = match self.rows.len() {
            1 => "1 row".to_owned(),
            count if count < self.total => format!("{count} of {} rows", self.total),
            count => format!("{count} rows"),
        };
        format!("{table}\n{shown}\n")
    }
}

fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}
