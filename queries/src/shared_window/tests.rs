//! Queries that share their windows say last what they say at once, though they are changed, restarted, come and go
//! while windows are half said.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::budget::Budget;
use crate::feeding::{Event, events, push};
use crate::query::Output;
use crate::query_set::{QuerySet, Restored};
use crate::statement::{parse_statement, parse_statements};

/// Pairs and threes of queries over the same windows, each with columns, conditions and aggregates of its own.
const SHARING: &[&str] = &[
    "CREATE QUERY over_tumble_count WITH (lateness = '3 seconds') AS SELECT zone, window_start, window_end, count(*) AS n
     FROM TUMBLE(gate, event_time, INTERVAL '10 seconds') GROUP BY zone, window_start, window_end",
    "CREATE QUERY over_tumble_sum WITH (lateness = '3 seconds') AS SELECT window_start, zone, sum(entered) AS entered
     FROM TUMBLE(gate, event_time, INTERVAL '10 seconds') GROUP BY window_start, zone HAVING count(*) > 1",
    "CREATE QUERY over_tumble_ends WITH (lateness = '3 seconds') AS
     SELECT max(entered) AS most, first_value(entered ORDER BY event_time) AS first, window_end AS until, zone AS place
     FROM TUMBLE(gate, event_time, INTERVAL '10 seconds') GROUP BY zone, window_end",
    "CREATE QUERY over_hop_count AS SELECT zone, window_end, count(*) AS n
     FROM HOP(gate, event_time, INTERVAL '5 seconds', INTERVAL '20 seconds') GROUP BY zone, window_end",
    "CREATE QUERY over_hop_sum AS SELECT zone, window_start, sum(entered) + 1 AS entered
     FROM HOP(gate, event_time, INTERVAL '5 seconds', INTERVAL '20 seconds') GROUP BY zone, window_start",
    "CREATE QUERY over_session_count AS SELECT zone, window_start, window_end, count(*) AS n
     FROM SESSION(gate, event_time, INTERVAL '4 seconds') WHERE entered > 0 GROUP BY zone, window_start, window_end",
    "CREATE QUERY over_session_least AS SELECT zone, window_end, min(entered) AS least
     FROM SESSION(gate, event_time, INTERVAL '4 seconds') WHERE entered > 0 GROUP BY zone, window_end",
    "CREATE QUERY over_running_count WITH (emit = 'update') AS SELECT zone, device, count(*) AS n FROM gate GROUP BY zone, device",
    "CREATE QUERY over_running_sum WITH (emit = 'update') AS SELECT device, sum(entered) AS entered, zone FROM gate
     GROUP BY device, zone",
    "CREATE ALERT over_running_crowd WITH (subject = 'zone', raise = 'entered > 2') AS SELECT site, zone, sum(entered) AS entered
     FROM gate GROUP BY site, zone",
    "CREATE ALERT over_running_busy WITH (subject = 'zone', raise = 'n > 2') AS SELECT zone, site, count(*) AS n FROM gate
     GROUP BY site, zone",
];

fn set_of(statements: &[&str]) -> QuerySet {
    let mut queries = QuerySet::new();
    let mistakes = queries.create_all(parse_statements(&statements.join(";\n")).expect("they are right"));
    assert!(mistakes.is_empty(), "{mistakes:?}");
    queries
}

/// The last row for each window and key, by query.
fn last_rows(outputs: &[Output]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut last: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for output in outputs {
        for row in crate::rows::batch_to_json(&output.rows.flow().batch) {
            let key: Vec<String> = ["zone", "place", "window_start", "window_end", "until", "device"]
                .iter()
                .filter_map(|name| row.get(*name).map(ToString::to_string))
                .collect();
            let of_query = last.entry(output.query.to_string()).or_default();
            of_query.insert(key.join("|"), serde_json::Value::Object(row).to_string());
        }
    }
    last
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn what_is_said_does_not_depend_on_changes_between_two_parts(
        events in events(&["gate"], 40),
        steps in prop::collection::vec((1..4_usize, 1..4_usize, 0..4_usize, 0..8_usize, 0..11_usize), 1..12),
    ) {
        let run = |in_parts: bool| {
            let mut queries = set_of(SHARING);
            let mut outputs = Vec::new();
            let (mut from, mut steps) = (0, steps.iter().copied().cycle());
            while from < events.len() {
                let (size, part, works, deed, which) = steps.next().expect("over and over");
                let to = if in_parts { (from + size).min(events.len()) } else { from + 1 };
                let batch: Vec<(usize, &Event)> = (from..to).map(|number| (number, &events[number])).collect();
                push(&mut queries, &batch, &mut outputs);
                let budget = match in_parts {
                    true => Budget::one_part(part),
                    false => Budget::unlimited(),
                };
                queries.advance_within(events[to - 1].left, budget, &mut outputs);
                for _ in 0..works {
                    queries.work(budget, &mut outputs);
                }
                if in_parts {
                    match deed {
                        0 | 1 => {
                            let again = parse_statement(SHARING[which]).expect("it is right");
                            let outcomes = queries.put(again).expect("it can run");
                            prop_assert!(outcomes.iter().all(|(_, outcome)| *outcome == Restored::Kept));
                        }
                        2 => {
                            let other = SHARING[which].replacen("over_", "other_", 1);
                            queries.put(parse_statement(&other).expect("it is right")).expect("it can run");
                        }
                        3 => {
                            let _ = queries.remove("other_hop_count");
                        }
                        4 => {
                            let snapshots = queries.snapshot().expect("it can be written");
                            let watermark = queries.watermark();
                            queries = set_of(SHARING);
                            queries.restore(watermark, &snapshots);
                        }
                        _ => {}
                    }
                }
                from = to;
            }
            queries.advance(i64::MAX / 4, &mut outputs);
            for query in queries.queries() {
                prop_assert_eq!(query.broken(), None);
            }
            let mut last = last_rows(&outputs);
            last.retain(|name, _| name.starts_with("over_"));
            Ok(last)
        };
        let (in_parts, at_once) = (run(true)?, run(false)?);
        for (name, rows) in &at_once {
            prop_assert_eq!(in_parts.get(name), Some(rows), "{} of {:#?}", name, events);
        }
    }
}
