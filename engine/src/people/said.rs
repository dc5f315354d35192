//! What is said of people: rows of the streams `visit` and `engagement`, which queries and alerts read as those of events.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;
use usher_queries::row::{Row, Rows};
use usher_queries::rows::time_to_text;
use usher_queries::streams::{ENGAGEMENT, VISIT, stream_schema};
use usher_queries::value::Value;

use super::act::{SERVICES, names};
use super::figures::{Became, Ended, Happening};
use super::rules::{Rules, days};
use crate::derived_id::derived_id;

/// Something that happened to a person.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) person: Arc<str>,
    pub(super) happening: Happening,
}

/// Rows of both streams, each with the watermark it met: the event time that made it. So it is never late, however far time
/// went on at once.
pub(super) fn rows(said: &[Said], rules: &Rules) -> Vec<(&'static str, Rows)> {
    let (mut visits, mut changes) = (Vec::new(), Vec::new());
    for Said { person, happening } in said {
        match happening {
            Happening::Ended(ended) => visits.push(visit_row(person, ended)),
            Happening::Became(became) => changes.push(engagement_row(person, became, rules)),
        }
    }
    let streams = [(VISIT, visits), (ENGAGEMENT, changes)].into_iter();
    streams
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(stream, rows)| {
            let rows = Rows::of(&schema(stream), rows).expect("a row has the columns of its stream");
            (stream, rows)
        })
        .collect()
}

fn schema(stream: &'static str) -> SchemaRef {
    static SCHEMAS: LazyLock<[SchemaRef; 2]> =
        LazyLock::new(|| [VISIT, ENGAGEMENT].map(|name| stream_schema(name).expect("the stream is built in")));
    Arc::clone(&SCHEMAS[usize::from(stream == ENGAGEMENT)])
}

fn visit_row(person: &Arc<str>, ended: &Ended) -> Row {
    let visit = &ended.visit;
    let id: Arc<str> = derived_id('v', [&**person, time_to_text(visit.start_us).as_str()]).into();
    let values = [
        Value::Text(Arc::clone(&id)),
        Value::Time(ended.end_us),
        Value::Text(Arc::clone(&visit.place.site)),
        Value::Text(Arc::clone(&visit.place.zone)),
        Value::Text(Arc::clone(person)),
        Value::Time(visit.start_us),
        Value::Time(ended.end_us),
        Value::Int(visit.dwell_us),
        Value::Int(i64::from(visit.channels.count_ones())),
        Value::Int(i64::from(visit.services.count_ones())),
        Value::Text(names(visit.services, SERVICES).join(" ").into()),
        Value::Int(i64::from(visit.loans)),
        Value::Int(i64::from(visit.searches)),
        Value::Int(i64::from(visit.told)),
        Value::Int(i64::from(visit.found)),
        Value::Int(i64::from(visit.clicks)),
        Value::Int(i64::from(visit.events)),
        Value::Int(i64::from(ended.number)),
        Value::Bool(ended.number == 1),
        Value::Time(ended.first_visit_us),
        Value::Time(ended.first_ended_us),
        Value::Text(Arc::clone(&ended.first_place.site)),
        visit.away.map_or(Value::Null, |away| Value::Float(away.days)),
        visit.away.map_or(Value::Null, |away| Value::Float(away.usual_days)),
    ];
    Row {
        schema: schema(VISIT),
        values: values.into(),
        watermark: ended.met_us,
        cause: Some(id),
    }
}

fn engagement_row(person: &Arc<str>, became: &Became, rules: &Rules) -> Row {
    let at = time_to_text(became.at_us);
    let id: Arc<str> = derived_id('g', [&**person, at.as_str(), became.reason]).into();
    let text = |text: &str| Value::Text(text.into());
    let (before, after) = became.life_cycle;
    let (tier_before, tier) = became.tier;
    let values = [
        Value::Text(Arc::clone(&id)),
        Value::Time(became.at_us),
        Value::Text(Arc::clone(&became.source.site)),
        Value::Text(Arc::clone(person)),
        became
            .source_before
            .as_ref()
            .map_or(Value::Null, |from| Value::Text(Arc::clone(&from.site))),
        before.map_or(Value::Null, |before| text(before.as_str())),
        text(after.as_str()),
        tier_before.map_or(Value::Null, |before| text(rules.tier(before))),
        text(rules.tier(tier)),
        Value::Float(became.score),
        text(became.reason),
        Value::Int(i64::from(became.visits)),
        Value::Float(days(became.away_us)),
        Value::Float(became.usual_days),
    ];
    Row {
        schema: schema(ENGAGEMENT),
        values: values.into(),
        watermark: became.at_us,
        cause: Some(id),
    }
}
