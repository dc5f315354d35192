//! Random events, in random batches, out of order, restarted: patterns say the same, and what a bounded run says of the
//! rows that were not late.

use proptest::prelude::*;
use serde_json::json;

use super::{Event, Feeding, Run, bounded_rows, run, without_cause};

/// Each with its name; together they use all that there is.
const STATEMENTS: [(&str, &str); 7] = [
    (
        "vain",
        "CREATE QUERY vain WITH (lateness = '1 second') AS
SELECT person, began, searches, results FROM click MATCH_RECOGNIZE (
  PARTITION BY person ORDER BY event_time
  MEASURES FIRST(S.event_time) AS began, COUNT(*) AS searches, SUM(S.results) AS results
  PATTERN (S{2,} H?) WITHIN INTERVAL '8 seconds'
  DEFINE S AS S.action = 'search', H AS H.action = 'help')",
    ),
    (
        "timed_out",
        "CREATE QUERY timed_out AS
SELECT * FROM click MATCH_RECOGNIZE (
  PARTITION BY person ORDER BY event_time
  MEASURES A.event_time AS began, LAST(B.results) AS last_b, CLASSIFIER() AS last, C.event_id AS id
  AFTER MATCH SKIP TO NEXT ROW
  PATTERN (A B* C) WITHIN INTERVAL '5 seconds' SHOW TIMED OUT
  DEFINE A AS A.action = 'search', B AS B.action <> 'help', C AS C.action = 'help')",
    ),
    (
        "rising",
        "CREATE QUERY rising AS
SELECT * FROM click MATCH_RECOGNIZE (
  ORDER BY event_time
  MEASURES FIRST(U.results) AS least, LAST(U.results) AS most, AVG(U.results) AS mean, PREV(FIRST(U.results)) AS before
  PATTERN (U U+) WITHIN INTERVAL '20 seconds'
  DEFINE U AS U.results > PREV(U.results))",
    ),
    (
        "numbered",
        "CREATE QUERY numbered AS
SELECT * FROM click MATCH_RECOGNIZE (
  PARTITION BY person ORDER BY event_time
  MEASURES MATCH_NUMBER() AS number, MIN(event_time) AS began, MAX(event_time) AS ended
  AFTER MATCH SKIP TO NEXT ROW
  PATTERN ((A | B) C{0,2} (A B | B A))
  DEFINE A AS A.action = 'search', B AS B.action = 'help')",
    ),
    (
        "sums",
        "CREATE QUERY sums WITH (lateness = '2 seconds') AS
SELECT * FROM click MATCH_RECOGNIZE (
  PARTITION BY person ORDER BY event_time
  MEASURES COUNT(A.*) AS a, COUNT(B.*) AS b, SUM(results) AS results, LAST(A.event_id, 1) AS id
  PATTERN ((A | B)+ C) WITHIN INTERVAL '12 seconds'
  DEFINE A AS SUM(A.results) <= 6, B AS COUNT(B.*) <= 1 + COUNT(A.*), C AS C.results > LAST(B.results))",
    ),
    (
        "open",
        "CREATE QUERY open AS
SELECT person, n, first_id FROM click MATCH_RECOGNIZE (
  PARTITION BY person ORDER BY event_time
  MEASURES COUNT(*) AS n, FIRST(event_id) AS first_id
  PATTERN (A+ (B A+)*)
  DEFINE A AS action = 'search', B AS B.action = 'view' AND results > FIRST(A.results, 1))",
    ),
    (
        "filtered",
        "CREATE QUERY filtered AS
WITH helped AS (SELECT event_time, upper(person) AS who, action FROM click WHERE results > 0)
SELECT who, n + 1 AS n FROM helped MATCH_RECOGNIZE (
  PARTITION BY who ORDER BY event_time
  MEASURES COUNT(X.action) AS n
  PATTERN (X Y Z?) WITHIN INTERVAL '9 seconds'
  DEFINE Y AS Y.action = X.action, Z AS Z.action = FIRST(action))
WHERE n > 0",
    ),
];

/// (pause, how far it is out of order, person, action, results).
type Step = (i64, i64, u8, u8, i64);

/// How far behind the newest the watermark stays, seconds.
const DELAY: i64 = 2;

fn events_of(steps: &[Step]) -> Vec<Event> {
    let mut newest = 1_000;
    let events = steps
        .iter()
        .enumerate()
        .map(|(index, (pause, back, person, action, results))| {
            newest += pause;
            let action = ["search", "help", "view"][*action as usize];
            let columns = json!({
                "event_id": format!("e{index}"), "person": format!("p{person}"), "action": action, "results": results,
            });
            (newest - back, columns)
        });
    events.collect()
}

fn all() -> String {
    let statements: Vec<&str> = STATEMENTS.iter().map(|(_, sql)| *sql).collect();
    statements.join(";\n")
}

fn steps(back: i64, at_most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = (0..4_i64, 0..=back, 0..2_u8, 0..3_u8, 0..5_i64);
    prop::collection::vec(step, 1..at_most)
}

fn differs(left: &Run, right: &Run) -> Option<String> {
    let mut late = (left.late.clone(), right.late.clone());
    late.0.sort();
    late.1.sort();
    if late.0 != late.1 {
        return Some(format!("late: {late:?}"));
    }
    STATEMENTS
        .iter()
        .map(|(name, _)| (left.said.get(*name), right.said.get(*name)))
        .find(|(left, right)| left != right)
        .map(|differ| format!("{differ:#?}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn patterns_say_the_same_in_any_batches_and_bounded(
        steps in steps(DELAY + 3, 120),
        sizes in prop::collection::vec(1..12_usize, 1..5),
    ) {
        let (sql, events) = (all(), events_of(&steps));
        let singly = run(&sql, "click", &events, DELAY, &Feeding::Batches(vec![1]));
        for sizes in [sizes, vec![events.len()]] {
            let batched = run(&sql, "click", &events, DELAY, &Feeding::Batches(sizes.clone()));
            let differs = differs(&singly, &batched);
            prop_assert!(differs.is_none(), "{events:?} in batches of {sizes:?}: {}", differs.unwrap_or_default());
            prop_assert_eq!(&singly.watermarks_by_query, &batched.watermarks_by_query);
        }
        for (name, sql) in STATEMENTS {
            let is_late = |event: &Event| singly.late.iter().any(|(query, id, _)| query == name && event.1["event_id"] == *id);
            let in_time: Vec<Event> = events.iter().filter(|event| !is_late(event)).cloned().collect();
            let said = without_cause(singly.said.get(name).map_or(&[], Vec::as_slice));
            prop_assert_eq!(said, bounded_rows(sql, "click", &in_time), "{} over {:?}", name, in_time);
        }
    }

    #[test]
    fn patterns_say_the_same_of_rows_that_come_out_of_order_within_the_delay(steps in steps(DELAY, 120)) {
        let (sql, events) = (all(), events_of(&steps));
        let mut sorted = events.clone();
        sorted.sort_by_key(|event| event.0);
        let shuffled = run(&sql, "click", &events, DELAY, &Feeding::Batches(vec![3]));
        let in_order = run(&sql, "click", &sorted, DELAY, &Feeding::Batches(vec![1]));
        prop_assert!(shuffled.late.is_empty());
        let differs = differs(&shuffled, &in_order);
        prop_assert!(differs.is_none(), "{events:?}: {}", differs.unwrap_or_default());
    }
}

proptest! {
    // Each restart plans all statements again.
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn patterns_go_on_after_a_restart(steps in steps(DELAY + 3, 50), every in 1..9_usize) {
        let (sql, events) = (all(), events_of(&steps));
        let singly = run(&sql, "click", &events, DELAY, &Feeding::Batches(vec![1]));
        let restarted = run(&sql, "click", &events, DELAY, &Feeding::Restarting(every));
        let differs = differs(&singly, &restarted);
        prop_assert!(differs.is_none(), "{events:?} every {every}: {}", differs.unwrap_or_default());
    }
}

#[test]
fn the_random_events_make_each_pattern_speak() {
    let steps: Vec<Step> = (0..400_i64)
        .map(|index| {
            let noise = (index * 7919 + index * index * 31) % 1009;
            (noise % 3, 0, (noise % 2) as u8, (noise / 3 % 3) as u8, noise / 7 % 5)
        })
        .collect();
    let run = run(&all(), "click", &events_of(&steps), DELAY, &Feeding::Batches(vec![5]));
    for (name, _) in STATEMENTS {
        let rows = run.said.get(name).map_or(0, Vec::len);
        assert!(rows >= 3, "{name} says {rows} rows");
    }
}
