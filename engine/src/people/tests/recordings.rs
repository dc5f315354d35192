//! Recordings of real clicks: what is known of everybody in the end is what SQL finds over the same file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use usher_queries::bounded;
use usher_queries::rows::batch_to_json;

use super::DAY;
use crate::event::{Event, Reading};
use crate::fixture;
use crate::mapping::Mappings;
use crate::people::People;
use crate::recording::Recording;
use crate::settings::EngagementSettings;
use crate::site::Places;
use crate::tables::streams_of;

/// Life cycles at an instant by the formulas of docs/ENGAGEMENT.md, where nobody was away for three usual gaps and came back:
/// how many persons, visits, events and clicks.
const LIFE_CYCLES: &str = "
WITH seen AS (
  SELECT person, event_time, count,
    lag(event_time) OVER (PARTITION BY person ORDER BY event_time, event_id) AS earlier
  FROM click
  WHERE person IS NOT NULL
), begun AS (
  SELECT *,
    earlier IS NULL OR event_time > earlier + INTERVAL '45 minutes' AS begins,
    date_part('epoch', event_time - earlier) / 86400.0 AS days
  FROM seen
), known AS (
  SELECT person, max(event_time) AS last_seen, count(*) AS events, sum(count) AS clicks,
    count(*) FILTER (WHERE begins) AS visits,
    count(days) FILTER (WHERE begins) AS gaps,
    avg(days) FILTER (WHERE begins) AS mean,
    stddev_samp(days) FILTER (WHERE begins) AS deviation
  FROM begun
  GROUP BY person
), usual AS (
  SELECT *,
    CASE WHEN gaps >= 3 THEN least(60.0, greatest(7.0, mean + 2 * deviation)) ELSE 30.0 END AS usual_gap,
    date_part('epoch', TIMESTAMP '{now}' - last_seen) / 86400.0 AS away
  FROM known
)
SELECT
  CASE
    WHEN away >= 9 * usual_gap THEN 'gone'
    WHEN away >= 3 * usual_gap THEN 'dormant'
    WHEN away >= usual_gap THEN 'drifting'
    WHEN visits < 3 THEN 'new'
    ELSE 'active'
  END AS life_cycle,
  count(*) AS persons, sum(visits) AS visits, sum(events) AS events, sum(clicks) AS clicks
FROM usual
GROUP BY 1";

type Counts = BTreeMap<String, [i64; 4]>;

fn real(file: &str) -> Option<PathBuf> {
    let folder = std::env::var("USHER_DATA").unwrap_or_else(|_| "../shared/data".to_owned());
    let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let path = workspace.join(folder).join(file);
    if !path.exists() {
        println!(
            "skipped: {} is not there; USHER_DATA names the folder of recordings",
            path.display()
        );
        return None;
    }
    Some(path)
}

fn events_of(file: &Path) -> Vec<Event> {
    let mut decoder = fixture::decoder();
    let recording = Recording::open(file, &Mappings::shipped(), None).expect("it can be read");
    let mut events = Vec::new();
    for row in recording {
        let row = row.expect("each row is right");
        let decoded = decoder.decode(&row.topic, &row.payload, row.at_us);
        assert_eq!(decoded.refused, []);
        events.extend(decoded.events);
    }
    events
}

fn by_sql(events: &[Event], now_us: i64) -> Counts {
    let places = Places::default();
    let streams = streams_of(
        events,
        &EngagementSettings::built_in(),
        rustc_hash::FxHashSet::default(),
        &places,
    );
    let now = usher_queries::rows::time_to_text(now_us);
    let sql = LIFE_CYCLES.replace("{now}", now.trim_end_matches('Z'));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime can be made");
    let (_, batches) = runtime.block_on(bounded::run(&sql, &streams)).expect("it runs");
    let rows = batches.iter().flat_map(batch_to_json);
    let whole = |value: &Value| value.as_i64().expect("a whole number");
    rows.map(|row| {
        let life_cycle = row["life_cycle"].as_str().expect("a word").to_owned();
        let figures = ["persons", "visits", "events", "clicks"].map(|name| whole(&row[name]));
        (life_cycle, figures)
    })
    .collect()
}

fn by_people(people: &People, now_us: i64) -> Counts {
    let mut counts = Counts::new();
    for row in batch_to_json(&people.table(now_us)) {
        let of = counts
            .entry(row["life_cycle"].as_str().expect("a word").to_owned())
            .or_default();
        of[0] += 1;
        for (sum, name) in of[1..].iter_mut().zip(["visits", "events", "clicks"]) {
            *sum += row[name].as_i64().expect("a whole number");
        }
    }
    counts
}

/// Persons, events and clicks of persons in all.
fn check(file: &str, wanted: [i64; 3]) {
    let Some(path) = real(file) else { return };
    let events = events_of(&path);
    let places = Places::default();
    let mut people = People::new(EngagementSettings::built_in());
    // By a watermark five minutes behind, as of one device.
    let mut newest = i64::MIN;
    for event in &events {
        people.take(event, newest.saturating_sub(300_000_000), &places);
        newest = newest.max(event.time_us);
    }
    let mut seen = std::collections::BTreeSet::new();
    for days in [0, 3, 8, 25, 40, 95, 200, 300] {
        let now_us = newest + days * DAY + 1;
        // Also where time has moved on by itself.
        let ahead = by_people(&people, now_us);
        people.advance(now_us);
        let found = by_people(&people, now_us);
        assert_eq!(found, ahead, "{file}, {days} days later, looked ahead");
        assert_eq!(found, by_sql(&events, now_us), "{file}, {days} days later");
        let sum = |column: usize| found.values().map(|of| of[column]).sum::<i64>();
        assert_eq!([sum(0), sum(2), sum(3)], wanted, "{file}");
        seen.extend(found.into_keys());
    }
    println!("{file}: {seen:?}");
    assert!(seen.len() >= 5, "{file}: {seen:?}");
}

#[test]
fn students_of_a_learning_platform() {
    check("oulad-vle-slice/studentVle.csv", [364, 13_905, 61_980]);
}

#[test]
fn readers_behind_a_proxy() {
    // 32,530 requests, 1,364 of nobody.
    check(
        "ezproxy-sciencedirect-2012/ezproxy-sciencedirect-2012-11-30.log.gz",
        [278, 31_166, 31_166],
    );
}

#[test]
fn requests_of_nobody_are_no_acts() {
    let Some(path) = real("ezproxy-sciencedirect-2012/ezproxy-sciencedirect-2012-11-30.log.gz") else {
        return;
    };
    let events = events_of(&path);
    let nobody = |event: &&Event| matches!(&event.reading, Reading::Click { person: None, .. });
    assert_eq!((events.len(), events.iter().filter(nobody).count()), (32_530, 1_364));
}
