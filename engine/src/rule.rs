//! A rule is a `CREATE ALERT` that runs: where its columns stand, and how a row becomes a subject, values and a sentence.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use serde_json::{Map, Value};
use usher_queries::error::{QueryError, nearest};
use usher_queries::query_set::QuerySet;
use usher_queries::row::Rows;
use usher_queries::rows::time_to_text;
use usher_queries::statement::{AlertOptions, Group, Statement, StatementKind, When};

use crate::alert::Span;
use crate::calendar::{Calendar, DayHours};
use crate::site::{Places, humanised};

/// Columns that say where and when and are not measurements.
const NO_VALUES: [&str; 6] = ["site", "window_start", "window_end", "causes", "event_time", "as_of"];

/// What stands behind the name of a rule where its measurements stopped coming.
const NO_DATA: &str = ".no_data";
/// What stands behind the name of a rule where one notice speaks for several alerts.
const GROUP: &str = ".group";

/// What a rule finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finds {
    /// What its rows say.
    Rows,
    /// That no rows come any more.
    NoData,
    /// That alerts of another rule stand at one place.
    Group,
}

/// A running rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name.
    pub name: Arc<str>,
    /// Its options, as written.
    pub options: AlertOptions,
    /// What it finds.
    pub finds: Finds,
    /// The rule as it was created; the same as the name unless it finds something beside the rows.
    pub of: Arc<str>,
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
            finds: Finds::Rows,
            of: Arc::clone(&name),
            name,
            options,
        }
    }

    /// A rule of Usher's own about sites, which no query has: what it finds is over when it is not found again for so long,
    /// microseconds.
    pub fn of_usher(name: &str, expires_us: i64) -> Self {
        let options = AlertOptions {
            subject: "usher".to_owned(),
            severity: "warning".to_owned(),
            raise: None,
            clear: None,
            for_us: 0,
            keep_us: 0,
            cooldown_us: 0,
            escalate: Vec::new(),
            silent_us: None,
            no_data_us: None,
            expires_us,
            inhibited_by: Vec::new(),
            quiet: Vec::new(),
            when: When::Always,
            group: None,
            group_wait_us: 0,
            text: String::new(),
            message: None,
        };
        Self::new(Arc::from(name), options, &Schema::empty())
    }

    /// The finding that measurements of a subject stopped coming, where the rule wants it.
    pub fn no_data(&self) -> Option<Self> {
        let silent_us = self.options.no_data_us?;
        let silence = humantime::format_duration(std::time::Duration::from_micros(silent_us.unsigned_abs()));
        Some(Self {
            name: self.no_data_name(),
            finds: Finds::NoData,
            options: AlertOptions {
                raise: None,
                clear: None,
                for_us: 0,
                keep_us: 0,
                cooldown_us: 0,
                escalate: Vec::new(),
                silent_us: Some(silent_us),
                no_data_us: None,
                group: None,
                text: format!("No data of {{subject}} for {silence}, for {}", self.name),
                ..self.options.clone()
            },
            ..self.clone()
        })
    }

    /// The name of [`Rule::no_data`].
    pub fn no_data_name(&self) -> Arc<str> {
        format!("{}{NO_DATA}", self.of).into()
    }

    /// The notice that speaks for the rule's alerts at one place, where the rule wants it.
    pub fn grouped(&self) -> Option<Self> {
        let group = self.options.group?;
        let subject = match group {
            Group::Parent => "zone",
            Group::Site => "site",
        };
        Some(Self {
            name: self.group_name(),
            finds: Finds::Group,
            options: AlertOptions {
                subject: subject.to_owned(),
                for_us: 0,
                keep_us: 0,
                cooldown_us: 0,
                escalate: Vec::new(),
                silent_us: None,
                no_data_us: None,
                inhibited_by: Vec::new(),
                // Its members are held back, and it speaks only for those that are told.
                quiet: Vec::new(),
                when: When::Always,
                group: None,
                ..self.options.clone()
            },
            ..self.clone()
        })
    }

    /// The name of [`Rule::grouped`].
    pub fn group_name(&self) -> Arc<str> {
        format!("{}{GROUP}", self.of).into()
    }

    /// What the rule's calendars say of an event time, microseconds: whether it is quiet there, whether the site is
    /// open, and when either changes next.
    pub fn hours_at(&self, site: &str, at_us: i64, places: &Places) -> Hours {
        let calendar = places.site(site).map(|site| &site.calendar);
        let zone = calendar.map_or(chrono_tz::Tz::UTC, Calendar::time_zone);
        let always = Calendar::always_open(zone);
        let mut hours = Hours::default();
        let mut note = |calendar: &Calendar| {
            let interval = calendar.opening_interval(at_us);
            let next = match interval {
                Some((_, end)) => Some(end).filter(|end| *end < i64::MAX),
                None => calendar.next_opening(at_us),
            };
            hours.until = [hours.until, next].into_iter().flatten().min();
            interval.is_some()
        };
        let is_quiet = !self.options.quiet.is_empty() && {
            let day = DayHours::of_ranges(&self.options.quiet);
            note(&Calendar::weekly(zone, std::array::from_fn(|_| day.clone())))
        };
        let is_open = self.options.when == When::Always || note(calendar.unwrap_or(&always));
        hours.is_quiet = is_quiet;
        hours.is_open = is_open;
        hours
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
        self.sentence(&self.options.text, "en", rows, row, places)
    }

    /// A sentence in a language, for the template `text`.
    pub fn sentence(&self, text: &str, language: &str, rows: &Rows, row: usize, places: &Places) -> String {
        let mut sentence = String::with_capacity(text.len() + 16);
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            sentence.push_str(before);
            let Some((name, behind)) = after.split_once('}') else {
                sentence.push('{');
                rest = after;
                continue;
            };
            rest = behind;
            match self.word(name, language, rows, row, places) {
                Some(word) => sentence.push_str(&word),
                None => sentence.push_str(&format!("{{{name}}}")),
            }
        }
        sentence.push_str(rest);
        sentence
    }

    fn word(&self, name: &str, language: &str, rows: &Rows, row: usize, places: &Places) -> Option<String> {
        if name == "zone"
            && let Some(zone) = self.zone(rows, row)
        {
            let known = places.zone(self.site(rows, row), zone);
            return Some(known.map_or_else(|| humanised(zone), |zone| zone.name.in_language(language).to_owned()));
        }
        match rows.schema().index_of(name) {
            Ok(column) => Some(plain(&rows.json(column, row))),
            Err(_) if name == "subject" => Some(subject_name(
                &self.options.subject,
                self.site(rows, row),
                &self.subject(rows, row)?,
                places,
            )),
            Err(_) => None,
        }
    }

    /// The sentence for people where there is no row to tell of: `{subject}`, the subject's own kind and `{zone}` are
    /// names.
    pub fn text_without_rows(&self, site: &str, zone: &str, subject: &str, places: &Places) -> String {
        let kind = self.options.subject.as_str();
        let name = subject_name(kind, site, subject, places);
        let text = self
            .options
            .text
            .replace("{subject}", &name)
            .replace(&format!("{{{kind}}}"), &name);
        text.replace("{zone}", &subject_name("zone", site, zone, places))
    }
}

/// What the calendars say of an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hours {
    /// Whether it lies in the rule's quiet hours.
    pub is_quiet: bool,
    /// Whether the site is open.
    pub is_open: bool,
    /// The next instant at which that may be different, microseconds; `None` if it stays so.
    pub until: Option<i64>,
}

/// A subject as people name it: a zone or site by its name, others by their id.
pub fn subject_name(kind: &str, site: &str, id: &str, places: &Places) -> String {
    let known = match kind {
        "zone" => places.zone(site, id).map(|zone| &zone.name),
        "site" => places.site(id).map(|site| &site.name),
        _ => return id.to_owned(),
    };
    known.map_or_else(|| humanised(id), |name| name.in_language("en").to_owned())
}

/// Checks that the alerts which a statement says hold it back are there, and are not held back by it in turn. `others`
/// are statements that will be there as well.
///
/// # Errors
/// The first mistake with its place in the statement.
pub fn check_inhibition(queries: &QuerySet, others: &[Statement], statement: &Statement) -> Result<(), QueryError> {
    let StatementKind::Alert(options) = &statement.kind else {
        return Ok(());
    };
    let running = queries.queries().iter().map(usher_queries::query::Query::statement);
    let alerts = || {
        // What is there anew stands before what it takes the place of.
        let all = others.iter().chain(running.clone());
        all.filter_map(|statement| match &statement.kind {
            StatementKind::Alert(options) => Some((statement.name.as_str(), &options.inhibited_by)),
            StatementKind::Query => None,
        })
    };
    for name in &options.inhibited_by {
        if name.value == statement.name {
            let right = "another alert, or leave it out";
            return Err(name
                .at
                .mistake(format!("'{}' can't hold itself back", name.value), right));
        }
        if !alerts().any(|(alert, _)| alert == name.value) {
            let known = alerts()
                .map(|(alert, _)| alert)
                .filter(|alert| *alert != statement.name);
            let right = match nearest(&name.value, known.clone()) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("there are: {}", known.collect::<Vec<_>>().join(", ")),
            };
            return Err(name.at.mistake(format!("there is no alert '{}'", name.value), right));
        }
        let mut seen: Vec<&str> = vec![&name.value];
        let mut next = 0;
        while next < seen.len() {
            let behind = alerts().find(|(alert, _)| *alert == seen[next]);
            for behind in behind.into_iter().flat_map(|(_, behind)| behind) {
                if behind.value == statement.name {
                    return Err(name.at.mistake(
                        format!("'{}' and '{}' hold each other back", name.value, statement.name),
                        "one of the two holds back the other",
                    ));
                }
                if !seen.contains(&behind.value.as_str()) {
                    seen.push(&behind.value);
                }
            }
            next += 1;
        }
    }
    Ok(())
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
