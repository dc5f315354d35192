//! Views of people: one as the API shows it, and all of them as the table `people`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::Serialize;
use usher_queries::rows::time_to_text;
use usher_queries::streams::time_type;

use super::act::{CHANNELS, SERVICES, names};
use super::figures::Figures;
use super::rules::{LifeCycle, Rules};

/// A person as the API shows it. Durations in seconds where no other unit is named, times RFC 3339.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct PersonView {
    /// The pseudonym by which the person is called.
    pub person: String,
    /// Other pseudonyms that are the same person.
    pub also: u32,
    /// Whether the figures are the sums of several persons' who turned out to be one, until the log has been gone through.
    pub is_provisional: bool,
    /// The tier the score has reached and not left since, in the library's own word.
    pub tier: String,
    /// `new`, `active`, `returning`, `drifting`, `dormant` or `gone`.
    pub life_cycle: &'static str,
    /// What the person did, each act weighted, halved after each half-life.
    pub score: f64,
    /// Seconds since the person was last seen.
    pub recency: i64,
    /// Days on which the person was seen.
    pub frequency: u32,
    /// Events a day seen.
    pub depth: f64,
    /// Ways by which the person was in touch.
    pub breadth: u32,
    /// Their names.
    pub channels: Vec<&'static str>,
    /// What the person used.
    pub services: Vec<&'static str>,
    /// Seconds the person was seen to stay, over all visits.
    pub dwell: i64,
    /// Events seen.
    pub events: u64,
    /// Clicks they stand for.
    pub clicks: u64,
    /// Items lent.
    pub loans: u32,
    /// Searches.
    pub searches: u32,
    /// Visits, that of this moment among them.
    pub visits: u32,
    /// Visits, each halved after each half-life.
    pub recent_visits: f64,
    /// When the visit of this moment began; `null` when the person is away.
    pub visit_since: Option<String>,
    /// How regularly the person comes.
    pub regularity: Regularity,
    /// Share of the weeks in which the person came, of the last 52, or of as many as there were since the first.
    pub active_weeks: f64,
    /// Share of messages that the person accepted or declined; `null` where none was sent.
    pub answer_rate: Option<f64>,
    /// What the person wanted: searches that tell their results, and requests of items.
    pub demands: u64,
    /// What of it the person got: searches that found something, and requests that a loan served within 28 days.
    pub served: u64,
    /// `served` of `demands`, 0 to 1; `null` where nothing was wanted.
    pub benefit: Option<f64>,
    /// The mean of the share of answers that accept, and of the share of visits that followed another, 0 to 1; where one of them is
    /// not known the other, `null` where neither is.
    pub trust: Option<f64>,
    /// The share of visits in which the person asked for something, asked for help, answered or rated, 0 to 1; `null` of who never
    /// came.
    pub participation: Option<f64>,
    /// When the life cycle or tier changes next, if nothing is heard of the person until then.
    pub changes_at: Option<String>,
    /// When first seen.
    pub first_seen: String,
    /// When last seen.
    pub last_seen: String,
}

/// The gaps between a person's visits, in days.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Regularity {
    /// How many there were.
    pub gaps: u32,
    /// Their mean; `null` before the first.
    pub mean_days: Option<f64>,
    /// The deviation of the sample; `null` before the second.
    pub deviation_days: Option<f64>,
    /// A time away that is longer is not usual any more.
    pub usual_gap_days: f64,
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

impl PersonView {
    /// Somebody as of `clock_us`, up to which time has moved on.
    pub(super) fn of(person: &str, figures: &Figures, clock_us: i64, rules: &Rules) -> Self {
        let clock_us = clock_us.max(figures.last_us);
        let channels = names(u16::from(figures.channels), CHANNELS);
        let (active, known) = figures.active_weeks(clock_us);
        let changes_us = figures.changes_at(rules);
        let (demands, served) = figures.demands();
        Self {
            person: person.to_owned(),
            also: 0,
            is_provisional: false,
            tier: rules.tier(figures.tier).to_owned(),
            life_cycle: figures.life_cycle.unwrap_or(LifeCycle::New).as_str(),
            score: rounded(figures.score_at(clock_us, rules)),
            recency: (clock_us - figures.last_us) / 1_000_000,
            frequency: figures.days,
            depth: (figures.events as f64 / f64::from(figures.days.max(1)) * 1e2).round() / 1e2,
            breadth: u32::try_from(channels.len()).unwrap_or(0),
            channels,
            services: names(figures.services, SERVICES),
            dwell: figures.dwell_us / 1_000_000,
            events: figures.events,
            clicks: figures.clicks,
            loans: figures.loans,
            searches: figures.searches,
            visits: figures.visits,
            recent_visits: rounded(figures.visits_at(clock_us, rules)),
            visit_since: figures.visit.as_ref().map(|visit| time_to_text(visit.start_us)),
            regularity: Regularity {
                gaps: figures.gaps.count,
                mean_days: figures.gaps.mean().map(rounded),
                deviation_days: figures.gaps.deviation().map(rounded),
                usual_gap_days: rounded(figures.gaps.usual_days(rules)),
            },
            active_weeks: rounded(f64::from(active) / f64::from(known)),
            answer_rate: figures.answer_rate().map(rounded),
            demands,
            served,
            benefit: figures.benefit().map(rounded),
            trust: figures.trust().map(rounded),
            participation: figures.participation().map(rounded),
            changes_at: (changes_us < i64::MAX).then(|| time_to_text(changes_us)),
            first_seen: time_to_text(figures.first_us),
            last_seen: time_to_text(figures.last_us),
        }
    }
}

/// The columns of the table `people`.
pub fn people_schema() -> SchemaRef {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, false);
    Arc::new(Schema::new(vec![
        field("person", DataType::Utf8),
        field("tier", DataType::Utf8),
        field("life_cycle", DataType::Utf8),
        field("score", DataType::Float64),
        field("recency", DataType::Int64),
        field("frequency", DataType::Int64),
        field("depth", DataType::Float64),
        field("breadth", DataType::Int64),
        field("dwell", DataType::Int64),
        field("events", DataType::Int64),
        field("first_seen", time_type()),
        field("last_seen", time_type()),
        field("visits", DataType::Int64),
        field("recent_visits", DataType::Float64),
        field("clicks", DataType::Int64),
        field("loans", DataType::Int64),
        field("searches", DataType::Int64),
        field("services", DataType::Int64),
        field("usual_gap_days", DataType::Float64),
        field("active_weeks", DataType::Float64),
        field("demands", DataType::Int64),
        field("served", DataType::Int64),
        Field::new("benefit", DataType::Float64, true),
        Field::new("trust", DataType::Float64, true),
        Field::new("participation", DataType::Float64, true),
    ]))
}

/// People as rows of that table: each with when it was first and last seen, microseconds.
pub(super) fn table(all: &[(PersonView, i64, i64)]) -> RecordBatch {
    fn text(all: &[(PersonView, i64, i64)], of: impl Fn(&PersonView) -> &str) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(all.iter().map(|(view, ..)| of(view))))
    }
    let whole = |of: fn(&PersonView) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(all.iter().map(|(view, ..)| of(view))))
    };
    let float = |of: fn(&PersonView) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(all.iter().map(|(view, ..)| of(view))))
    };
    let known = |of: fn(&PersonView) -> Option<f64>| -> ArrayRef {
        Arc::new(all.iter().map(|(view, ..)| of(view)).collect::<Float64Array>())
    };
    let time = |of: fn(&(PersonView, i64, i64)) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(all.iter().map(of)))
    };
    fn large(count: u64) -> i64 {
        i64::try_from(count).unwrap_or(i64::MAX)
    }
    RecordBatch::try_new(
        people_schema(),
        vec![
            text(all, |view| &view.person),
            text(all, |view| &view.tier),
            text(all, |view| view.life_cycle),
            float(|view| view.score),
            whole(|view| view.recency),
            whole(|view| i64::from(view.frequency)),
            float(|view| view.depth),
            whole(|view| i64::from(view.breadth)),
            whole(|view| view.dwell),
            whole(|view| large(view.events)),
            time(|(_, first_us, _)| *first_us),
            time(|(.., last_us)| *last_us),
            whole(|view| i64::from(view.visits)),
            float(|view| view.recent_visits),
            whole(|view| large(view.clicks)),
            whole(|view| i64::from(view.loans)),
            whole(|view| i64::from(view.searches)),
            whole(|view| large(view.services.len() as u64)),
            float(|view| view.regularity.usual_gap_days),
            float(|view| view.active_weeks),
            whole(|view| large(view.demands)),
            whole(|view| large(view.served)),
            known(|view| view.benefit),
            known(|view| view.trust),
            known(|view| view.participation),
        ],
    )
    .expect("each column has one value a person")
}
