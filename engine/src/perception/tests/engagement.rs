//! What queries and alerts read of people is the same however a log is cut, with turns, ticks and restarts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use usher_queries::query_set::Restored;
use usher_queries::rows::batch_to_json;
use usher_queries::statement::parse_statements;
use usher_queries::streams::DERIVED_STREAMS;

use super::{morning, no_trace, saved, turns};
use crate::alerts::Step;
use crate::check::load_queries;
use crate::event::Event;
use crate::fixture::{self, SECOND};
use crate::perception::Perception;
use crate::site::Places;

const QUERIES: &str = "
CREATE QUERY visits_by_zone AS
SELECT site, zone, count(*) AS visits, sum(events) AS events, sum(dwell_us) AS dwell, max(visit_end) AS last
FROM visit
GROUP BY site, zone;

CREATE QUERY visits_by_quarter WITH (emit = 'close') AS
SELECT window_start, window_end, count(*) AS visits, count(DISTINCT person) AS persons
FROM TUMBLE(visit, event_time, INTERVAL '15 minutes')
GROUP BY window_start, window_end;

CREATE QUERY quarters AS
SELECT visits, count(*) AS quarters, sum(persons) AS persons
FROM visits_by_quarter
GROUP BY visits;

CREATE QUERY changes AS
SELECT life_cycle, tier, reason, count(*) AS changes, sum(visits) AS visits, max(event_time) AS last
FROM engagement
GROUP BY life_cycle, tier, reason;

-- Clicks in the quarter of an hour from somebody's first visit on.
CREATE QUERY first_clicks WITH (lateness = '1 minute') AS
SELECT e.tier, count(*) AS clicks
FROM engagement e
JOIN click c ON c.person = e.person AND c.event_time BETWEEN e.event_time AND e.event_time + INTERVAL '15 minutes'
WHERE e.reason = 'first_visit'
GROUP BY e.tier;

CREATE ALERT arrived WITH (subject = 'person', severity = 'info', expires = '1 hour', text = '{person} is here') AS
SELECT site, person, event_time, score
FROM engagement
WHERE reason = 'first_visit';

CREATE ALERT left_soon WITH (subject = 'person', severity = 'info', expires = '1 hour', text = '{person} left soon') AS
SELECT site, person, event_time, dwell_us
FROM visit
WHERE visit_end < visit_start + INTERVAL '5 minutes';

CREATE QUERY too_late AS
SELECT query, reason, count(*) AS rows
FROM late
GROUP BY query, reason;
";

const READ: [&str; 6] = [
    "visits_by_zone",
    "quarters",
    "changes",
    "first_clicks",
    "too_late",
    "visits_by_quarter",
];

fn perception(places: &Arc<Places>) -> Perception {
    fixture::perception(places, Duration::from_secs(2), Duration::from_secs(10), |queries| {
        load_queries(queries, Path::new("")).expect("the shipped queries are right");
        let statements = parse_statements(QUERIES).expect("they are right");
        let mistakes = queries.create_all(statements);
        assert!(mistakes.is_empty(), "{mistakes:?}");
    })
}

/// All that read what is worked out of persons, and nothing else.
fn readers_of_people(perception: &Perception) -> Vec<String> {
    let queries = perception.queries.queries().iter();
    let readers = queries.filter(|query| query.sources().all(|source| DERIVED_STREAMS.contains(&source)));
    readers.map(|query| query.name().to_string()).collect()
}

/// Rows by query, and the turns of alerts, when time has gone on for two hours behind the last event.
fn end(mut perception: Perception, mut steps: Vec<Step>, last: &Event) -> (Vec<(String, Vec<String>)>, Vec<String>) {
    for hours in 1..=2 {
        steps.extend(perception.tick(last.received_us + hours * 3_600 * SECOND));
    }
    while perception.has_work() {
        steps.extend(perception.work());
    }
    let rows = READ.map(|name| {
        let rows = perception.queries.peek(name).expect("it runs");
        let rows = rows.map_or_else(Vec::new, |(_, rows)| batch_to_json(&rows));
        let mut rows: Vec<String> = rows
            .into_iter()
            .map(|row| serde_json::Value::Object(row).to_string())
            .collect();
        rows.sort();
        (name.to_owned(), rows)
    });
    let mut turns: Vec<String> = turns(&steps).into_iter().map(|turn| format!("{turn:?}")).collect();
    turns.sort();
    (rows.to_vec(), turns)
}

#[test]
fn queries_and_alerts_see_the_same_of_people_however_a_log_is_cut() {
    let (places, events) = morning(1_500);
    let last = events.last().expect("people come");
    let run = |batch: usize, turn: Option<Duration>, ticks: bool, restarts: bool| {
        let mut perception = perception(&places);
        let mut steps = Vec::new();
        for (number, events) in events.chunks(batch).enumerate() {
            if let Some(turn) = turn {
                perception.take_turns_of(turn);
            }
            steps.extend(perception.take(events, &no_trace));
            if ticks {
                steps.extend(perception.tick(events[events.len() - 1].received_us));
            }
            if restarts && number % 3 == 1 {
                let parts = saved(&mut perception);
                perception = self::perception(&places);
                let outcomes = perception.restore(&parts, last.received_us).expect("it can be read");
                let is_kept = |(_, outcome): &(String, Restored)| *outcome == Restored::Kept;
                assert!(outcomes.iter().all(is_kept), "{outcomes:?}");
            }
        }
        end(perception, steps, last)
    };
    let whole = run(events.len(), None, false, false);
    let rows = |name: &str| {
        whole
            .0
            .iter()
            .find(|(of, _)| of == name)
            .map_or(0, |(_, rows)| rows.len())
    };
    assert!(
        rows("visits_by_zone") > 1 && rows("changes") > 0 && rows("first_clicks") > 0,
        "{:#?}",
        whole.0
    );
    assert_eq!(rows("visits_by_quarter"), 0, "all have been said");
    assert!(rows("quarters") > 0, "{:#?}", whole.0);
    assert!(whole.1.iter().any(|turn| turn.contains("arrived")), "{:#?}", whole.1);
    assert!(whole.1.iter().any(|turn| turn.contains("left_soon")), "{:#?}", whole.1);
    let late = &whole
        .0
        .iter()
        .find(|(name, _)| name == "too_late")
        .expect("it is read")
        .1;
    let readers = readers_of_people(&perception(&places));
    assert!(
        readers.len() > 6 && readers.iter().any(|name| name == "changes"),
        "{readers:?}"
    );
    for reader in readers {
        let of_it = format!("\"query\":\"{reader}\"");
        assert!(!late.iter().any(|row| row.contains(&of_it)), "{reader}: {late:?}");
    }
    assert_eq!(run(1, None, false, false), whole, "one by one");
    assert_eq!(run(64, None, true, false), whole, "in batches, with ticks");
    assert_eq!(
        run(16, Some(Duration::ZERO), true, false),
        whole,
        "in turns that are over at once"
    );
    assert_eq!(run(100, None, false, true), whole, "with restarts");
}

/// Clicks of a person at a second after nine.
fn click(second: i64, person: &str) -> (i64, &'static str, String) {
    let payload = format!(r#"{{"id":"c{second}{person}","person":"{person}","action":"view"}}"#);
    (second, "web/click/c", payload)
}

fn answer(second: i64, person: &str, response: &str) -> (i64, &'static str, String) {
    let payload = format!(r#"{{"id":"r{second}","person":"{person}","message":"m","response":"{response}"}}"#);
    (second, "web/reply/app", payload)
}

#[test]
fn alerts_of_whoever_opts_out_are_over_and_nothing_is_kept_with_them() {
    let places = Arc::new(crate::demo::places().expect("the shipped library is right"));
    let mut rows = vec![click(0, "ada"), click(1, "ben"), click(2, "cleo")];
    // Of ada one is over by the time she opts out; of ben one stands; of dana none has been found yet.
    rows.extend((1..=62).map(|minute| click(minute * 60 + 3, "emil")));
    rows.extend([click(3_780, "ada"), click(3_781, "ben"), click(3_782, "dana")]);
    rows.extend([answer(3_783, "ada", "opted_out"), answer(3_784, "dana", "opted_out")]);
    rows.extend([
        click(3_790, "finn"),
        answer(3_791, "finn", "opted_out"),
        click(3_800, "emil"),
    ]);
    let events = fixture::events(rows);
    let last = events.last().expect("people come").clone();
    let person = |name: &str| fixture::secret().person(name).as_str().to_owned();
    let run = |batch: usize, turn: Option<Duration>| {
        let mut perception = perception(&places);
        let mut steps = Vec::new();
        for events in events.chunks(batch) {
            if let Some(turn) = turn {
                perception.take_turns_of(turn);
            }
            steps.extend(perception.take(events, &no_trace));
        }
        steps.extend(perception.tick(last.received_us + 20 * SECOND));
        while perception.has_work() {
            steps.extend(perception.work());
        }
        let told: Vec<String> = steps
            .iter()
            .filter(|step| step.is_turn)
            .filter_map(|step| step.alert.step.as_ref().map(|turn| (&step.alert, turn)))
            .map(|(alert, turn)| {
                format!(
                    "{} {} {:?} {:?} {}",
                    alert.rule, alert.subject.id, turn.what, turn.why, turn.at
                )
            })
            .collect();
        (perception, told)
    };
    let (whole, mut told) = run(events.len(), None);
    let by_opting_out: Vec<&String> = told.iter().filter(|turn| turn.contains("OptedOut")).collect();
    assert!(!by_opting_out.is_empty(), "{told:#?}");
    for name in ["ada", "dana", "finn"] {
        let person = person(name);
        let open = whole.alerts.open();
        assert!(open.iter().all(|alert| alert.subject.id != person), "{name}: {open:#?}");
        let over: Vec<_> = whole
            .alerts
            .cleared()
            .filter(|alert| alert.subject.id == person)
            .collect();
        let is_bare = |alert: &Arc<crate::alert::Alert>| alert.values.is_empty() && !alert.text.contains(&person);
        assert!(over.into_iter().all(is_bare), "{name}");
    }
    assert!(
        whole
            .alerts
            .open()
            .iter()
            .any(|alert| alert.subject.id == person("emil") || alert.subject.id == person("ben"))
    );
    told.sort();
    for (batch, turn) in [(1, None), (3, None), (7, Some(Duration::ZERO))] {
        let mut again = run(batch, turn).1;
        again.sort();
        assert_eq!(again, told, "in batches of {batch}");
    }
}

#[test]
fn what_is_found_in_a_visit_stands_for_as_long_as_what_is_found_elsewhere() {
    let places = Arc::new(crate::demo::places().expect("the shipped library is right"));
    let mut perception = fixture::perception(&places, Duration::from_secs(2), Duration::from_secs(10), |queries| {
        let sql =
            "CREATE ALERT brief WITH (subject = 'person', severity = 'info', expires = '10 minutes', text = 'soon') AS
            SELECT site, person, event_time FROM visit";
        let mistakes = queries.create_all(parse_statements(sql).expect("it is right"));
        assert!(mistakes.is_empty(), "{mistakes:?}");
    });
    let events = fixture::events([
        click(0, "ada"),
        click(2_800, "ben"),
        click(3_200, "ben"),
        click(3_500, "ben"),
    ]);
    let mut standing = Vec::new();
    for event in &events {
        perception.take(std::slice::from_ref(event), &no_trace);
        standing.push(perception.alerts.open().len());
    }
    // Her visit ends at nine, which is known 2,700 seconds later, and said for ten minutes from then.
    assert_eq!(standing, [0, 1, 1, 0]);
}
