//! Forgetting is as if the subject had never been there, in all that queries keep of it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value as Json;

use crate::feeding::{Event, SECOND, event, events, push, queries};
use crate::query::Output;
use crate::query_set::QuerySet;
use crate::query_set::forgetting::ForgottenIn;
use crate::rows::row_to_json;

/// Queries that keep persons in every way there is, and totals in which nobody is.
const SQL: &str = "
CREATE QUERY totals WITH (lateness = '3 seconds') AS
SELECT zone, window_start, window_end, count(*) AS clicks FROM HOP(click, event_time, INTERVAL '5 seconds', INTERVAL '20 seconds')
GROUP BY zone, window_start, window_end;

CREATE QUERY different WITH (lateness = '3 seconds') AS
SELECT zone, window_start, window_end, count(DISTINCT person) AS persons
FROM HOP(click, event_time, INTERVAL '5 seconds', INTERVAL '20 seconds') GROUP BY zone, window_start, window_end;

CREATE QUERY of_person WITH (emit = 'update', lateness = '3 seconds') AS
SELECT person, window_start, window_end, count(*) AS clicks, sum(results) AS results
FROM TUMBLE(click, event_time, INTERVAL '20 seconds') WHERE person IS NOT NULL GROUP BY person, window_start, window_end;

CREATE QUERY of_person_on_close AS
SELECT person, zone, window_start, window_end, count(*) AS clicks
FROM HOP(click, event_time, INTERVAL '5 seconds', INTERVAL '20 seconds') WHERE person IS NOT NULL
GROUP BY person, zone, window_start, window_end;

CREATE QUERY running WITH (emit = 'update') AS
SELECT person, count(*) AS clicks FROM click WHERE person IS NOT NULL GROUP BY person;

CREATE QUERY sessions AS
SELECT person, window_start, window_end, count(*) AS clicks FROM SESSION(click, event_time, INTERVAL '4 seconds')
WHERE person IS NOT NULL GROUP BY person, window_start, window_end;

CREATE QUERY pairs AS
SELECT c.person, c.event_id AS click, r.event_id AS read FROM click c
JOIN rfid r ON c.person = r.person AND r.event_time BETWEEN c.event_time AND c.event_time + INTERVAL '15 seconds'
WHERE c.person IS NOT NULL;

CREATE QUERY silent AS
SELECT person, event_id, absent_at FROM ABSENT(rfid, event_time, (zone, person), INTERVAL '8 seconds') WHERE person IS NOT NULL;

CREATE QUERY twice AS
SELECT person, first_id, second_id FROM click MATCH_RECOGNIZE (
  PARTITION BY person ORDER BY event_time
  MEASURES A.event_id AS first_id, B.event_id AS second_id
  ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW
  PATTERN (A B) DEFINE B AS B.zone <> A.zone
) WHERE person IS NOT NULL;
";

/// What is said of events from `from` on, by query, sorted.
fn said(outputs: &[Output]) -> BTreeMap<String, Vec<String>> {
    let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for output in outputs {
        let flow = output.rows.flow();
        for row in 0..flow.num_rows() {
            let text = Json::Object(row_to_json(&flow.batch, row)).to_string();
            said.entry(output.query.to_string()).or_default().push(text);
        }
    }
    said.values_mut().for_each(|rows| rows.sort());
    said
}

fn feed(set: &mut QuerySet, numbered: &[(usize, &Event)], outputs: &mut Vec<Output>) {
    for (number, event) in numbered {
        push(set, &[(*number, event)], outputs);
        set.advance(event.left, outputs);
    }
}

/// The person whom it is about.
const WHO: u8 = 1;

fn is_who(text: &str) -> bool {
    text == "p1"
}

fn check(events: &[Event], cut: usize) -> Result<(), TestCaseError> {
    let cut = cut.min(events.len());
    let numbered: Vec<(usize, &Event)> = events.iter().enumerate().collect();
    let anonymous: Vec<Event> = events[..cut]
        .iter()
        .map(|event| Event {
            person: event.person.filter(|person| *person != WHO),
            ..event.clone()
        })
        .collect();
    let anonymous: Vec<(usize, &Event)> = anonymous.iter().enumerate().collect();
    let (mut with, mut without) = (queries(SQL), queries(SQL));
    feed(&mut with, &numbered[..cut], &mut Vec::new());
    let forgotten = with
        .forget(&is_who)
        .map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert!(forgotten.begun_anew.is_empty(), "{:?}", forgotten);
    feed(&mut without, &anonymous, &mut Vec::new());
    // Nothing of the person is left in what would be written down.
    for snapshot in with
        .snapshot()
        .map_err(|error| TestCaseError::fail(error.to_string()))?
    {
        let left = super::forget(&snapshot, &is_who).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(matches!(left, super::Forgotten::Nothing), "{}", snapshot.name);
    }
    let (mut of_with, mut of_without) = (Vec::new(), Vec::new());
    for (set, outputs) in [(&mut with, &mut of_with), (&mut without, &mut of_without)] {
        // Who comes again is somebody new.
        feed(set, &numbered[cut..], outputs);
        set.advance(i64::MAX / 4, outputs);
        for query in set.queries() {
            prop_assert_eq!(query.broken(), None);
        }
    }
    let (of_with, of_without) = (said(&of_with), said(&of_without));
    for name in of_with.keys().chain(of_without.keys()) {
        prop_assert_eq!(of_with.get(name), of_without.get(name), "{} of {:#?}", name, events);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_was_forgotten_has_never_been_there(
        events in events(&["click", "rfid"], 40),
        cut in 0..40_usize,
    ) {
        check(&events, cut)?;
    }
}

fn click(time: i64, person: u8) -> Event {
    Event {
        person: Some(person),
        left: (time - 1) * SECOND,
        ..event("click", time, time - 2)
    }
}

#[test]
fn what_holds_a_person_within_an_aggregate_is_told_nothing_of_it_any_more() {
    let sql = "
        CREATE QUERY held AS SELECT zone, window_start, window_end, min(person) AS least, last_value(person ORDER BY event_time) AS last,
          array_agg(person) AS everyone, count(*) AS clicks FROM TUMBLE(click, event_time, INTERVAL '1 minute')
        GROUP BY zone, window_start, window_end;
        CREATE QUERY texts AS SELECT zone, window_start, window_end, string_agg(person, ', ') AS persons
        FROM TUMBLE(click, event_time, INTERVAL '1 minute') GROUP BY zone, window_start, window_end;";
    let mut set = queries(sql);
    let before = [click(61, 2), click(62, 1), click(63, 3), click(64, 1)];
    let numbered: Vec<(usize, &Event)> = before.iter().enumerate().collect();
    feed(&mut set, &numbered, &mut Vec::new());
    let forgotten = set.forget(&is_who).expect("it can be forgotten");
    assert_eq!(forgotten.kept, ["held"]);
    assert_eq!(
        forgotten.begun_anew,
        ["texts"],
        "texts that were put together can't be taken apart"
    );
    let mut outputs = Vec::new();
    set.advance(i64::MAX / 4, &mut outputs);
    let said = said(&outputs);
    assert_eq!(said.get("texts"), None);
    let row: Json = serde_json::from_str(&said["held"][0]).expect("a row");
    assert_eq!(
        (&row["least"], &row["last"], &row["everyone"], &row["clicks"]),
        (
            &Json::Null,
            &Json::Null,
            &serde_json::json!(["p2", "p3"]),
            &serde_json::json!(4)
        ),
        "which was before it nobody knows; the total stays"
    );
    assert_eq!(
        set.forget(&is_who).expect("it can be looked for"),
        ForgottenIn::default()
    );
}

#[test]
fn a_window_that_others_share_goes_on_for_them() {
    let sql = "
        CREATE QUERY one AS SELECT person, window_start, window_end, count(*) AS clicks
        FROM TUMBLE(click, event_time, INTERVAL '1 minute') GROUP BY person, window_start, window_end;
        CREATE QUERY other AS SELECT person, window_start, window_end, sum(results) AS results
        FROM TUMBLE(click, event_time, INTERVAL '1 minute') GROUP BY person, window_start, window_end;";
    let mut set = queries(sql);
    let before = [click(61, 2), click(62, 1)];
    let numbered: Vec<(usize, &Event)> = before.iter().enumerate().collect();
    feed(&mut set, &numbered, &mut Vec::new());
    assert_eq!(set.forget(&is_who).expect("it can be forgotten").kept, ["one", "other"]);
    let (again, mut outputs) = (click(63, 2), Vec::new());
    feed(&mut set, &[(2, &again)], &mut outputs);
    set.advance(i64::MAX / 4, &mut outputs);
    let said = said(&outputs);
    let persons = |name: &str| -> Vec<Json> {
        let rows = said[name].iter();
        rows.map(|row| serde_json::from_str::<Json>(row).expect("a row")["person"].clone())
            .collect()
    };
    assert_eq!(
        (persons("one"), persons("other")),
        (vec![Json::from("p2")], vec![Json::from("p2")])
    );
    assert!(said["one"][0].contains("\"clicks\":2"), "{said:?}");
}
