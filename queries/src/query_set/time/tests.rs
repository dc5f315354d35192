//! Events between two parts of a window are answered at once, and the window is told as if it had been said at once.

use std::collections::BTreeMap;

use super::super::tests::{MINUTE_SUMS, SECOND, gate, said, set_of};
use crate::budget::Budget;
use crate::capture::tests::Chain;
use crate::query::Output;
use crate::query_set::Restored;
use crate::row::Rows;

const PASSAGES: &str = "CREATE QUERY passages AS SELECT zone, entered FROM gate";
const MINUTES: &str = "CREATE QUERY minutes AS SELECT window_start AS minute, entered FROM sums";
const BUSIEST: &str = "CREATE QUERY busiest AS SELECT window_end, max(entered) AS entered
    FROM TUMBLE(minutes, minute, INTERVAL '1 minute') GROUP BY window_start, window_end";

#[test]
fn an_event_between_two_parts_of_a_window_is_answered_at_once() {
    let mut queries = set_of(&[MINUTE_SUMS, PASSAGES]);
    let mut outputs = Vec::new();
    queries.push("gate", &gate(&[(1, "a", 1), (2, "b", 2), (3, "c", 3)]), &mut outputs);
    outputs.clear();
    queries.advance_within(60 * SECOND, Budget::one_part(1), &mut outputs);
    assert_eq!(said(&outputs, "sums").len(), 1, "one part of one row");
    assert_eq!(queries.reached(), None, "not all is said");
    assert_eq!(queries.watermark(), Some(60 * SECOND));

    queries.push("gate", &gate(&[(61, "a", 9)]), &mut outputs);
    assert_eq!(said(&outputs, "passages").len(), 1);
    assert_eq!(said(&outputs, "sums").len(), 1, "nobody waits for the rest");
    while queries.has_work() {
        queries.work(Budget::one_part(1), &mut outputs);
    }
    let rows = said(&outputs, "sums");
    assert_eq!(rows.len(), 3);
    assert!(
        rows.iter().all(|row| !row.contains("\"entered\":9")),
        "{rows:?}: the event is of the next window"
    );
    assert_eq!(queries.reached(), Some(60 * SECOND));
}

#[test]
fn a_query_over_windows_waits_until_all_of_them_are_said() {
    let mut queries = set_of(&[MINUTE_SUMS, MINUTES, BUSIEST]);
    let mut outputs = Vec::new();
    queries.push("gate", &gate(&[(1, "a", 1), (2, "b", 2), (3, "c", 3)]), &mut outputs);
    // So far that the windows over the windows are due as well.
    queries.advance_within(600 * SECOND, Budget::one_part(1), &mut outputs);
    queries.work(Budget::one_part(1), &mut outputs);
    assert_eq!(said(&outputs, "sums").len(), 2);
    assert!(said(&outputs, "busiest").is_empty());
    // Time is asked to move on before the step is done: it does when all have taken it.
    queries.advance_within(1_200 * SECOND, Budget::one_part(1), &mut outputs);
    assert_eq!(queries.watermark(), Some(600 * SECOND));
    while queries.has_work() {
        queries.work(Budget::one_part(1), &mut outputs);
    }
    let rows = said(&outputs, "busiest");
    assert_eq!(rows.len(), 1);
    assert!(rows[0].contains("\"entered\":3"), "{rows:?}");
    assert_eq!(queries.reached(), Some(1_200 * SECOND));
}

#[test]
fn a_late_row_for_a_window_that_is_half_said_counts_once() {
    let with_lateness = MINUTE_SUMS.replace("sums AS", "sums WITH (lateness = '1 minute') AS");
    for zone in ["a", "b", "c", "d"] {
        let mut queries = set_of(&[&with_lateness]);
        let mut outputs = Vec::new();
        queries.push("gate", &gate(&[(1, "a", 1), (2, "b", 2), (3, "c", 3)]), &mut outputs);
        queries.advance_within(60 * SECOND, Budget::one_part(1), &mut outputs);
        queries.push("gate", &gate(&[(4, zone, 10)]), &mut outputs);
        queries.advance(600 * SECOND, &mut outputs);
        let rows = said(&outputs, "sums");
        let of_zone = |row: &&String| row.contains(&format!("\"zone\":\"{zone}\""));
        let last = rows.iter().rfind(of_zone).expect("it was said");
        let before = ["a", "b", "c", "d"]
            .iter()
            .position(|name| *name == zone)
            .map_or(0, |at| (at as i64 + 1) % 4);
        assert!(
            last.contains(&format!("\"entered\":{}", 10 + before)),
            "{zone}: {rows:?}"
        );
        let times = if zone == "a" { 2 } else { 1 };
        assert_eq!(rows.iter().filter(of_zone).count(), times, "{zone}: {rows:?}");
    }
}

#[test]
fn the_last_watermark_of_all_is_reached() {
    let absent =
        "CREATE QUERY absent AS SELECT zone, absent_at FROM ABSENT(gate, event_time, zone, INTERVAL '3 seconds')";
    let pairs = "CREATE QUERY pairs AS SELECT a.event_id AS a, b.event_id AS b FROM gate a LEFT JOIN gate b
        ON a.zone = b.zone AND b.event_time > a.event_time AND b.event_time < a.event_time + INTERVAL '4 seconds'";
    for statement in [absent, pairs] {
        let mut queries = set_of(&[statement]);
        let mut outputs = Vec::new();
        queries.push("gate", &gate(&[(1, "a", 1), (2, "b", 2)]), &mut outputs);
        for _ in 0..10 {
            queries.advance_within(i64::MAX, Budget::one_part(1), &mut outputs);
        }
        assert!(!queries.has_work(), "{statement}");
        assert_eq!(outputs.iter().map(|output| output.rows.len()).sum::<usize>(), 2);
    }
}

/// Overlapping windows by zone: of aggregates that are taken back where panes leave, and of such that are not.
fn hops(lateness: &str) -> [String; 2] {
    [
        "count(*) AS n, sum(entered) AS entered",
        "count(*) AS n, max(entered) AS entered",
    ]
    .map(|aggregates| {
        format!(
            "CREATE QUERY sums WITH (lateness = '{lateness}') AS SELECT zone, window_start, window_end, {aggregates}
             FROM HOP(gate, event_time, INTERVAL '10 seconds', INTERVAL '30 seconds')
             GROUP BY zone, window_start, window_end"
        )
    })
}

/// A passage in each of many zones, in each pane of a window.
fn passages(zones: &[String]) -> Rows {
    let all: Vec<(i64, &str, i64)> = [31, 41, 51]
        .iter()
        .flat_map(|second| zones.iter().map(|zone| (*second, zone.as_str(), 1)))
        .collect();
    gate(&all)
}

/// The last that was said of each zone and window.
fn last_of_each(outputs: &[Output]) -> BTreeMap<(String, String), String> {
    let key = |row: &str| {
        let row: serde_json::Value = serde_json::from_str(row).expect("it was written as JSON");
        (row["zone"].to_string(), row["window_end"].to_string())
    };
    said(outputs, "sums").into_iter().map(|row| (key(&row), row)).collect()
}

const ZONES: usize = 90;
const PART: usize = 6;

#[test]
fn a_late_row_finishes_no_overlapping_window_that_is_half_said() {
    let zones: Vec<String> = (0..ZONES).map(|zone| format!("z{zone}")).collect();
    for sql in hops("0 seconds").iter().chain(&hops("1 minute")) {
        let (mut in_parts, mut at_once) = (set_of(&[sql]), set_of(&[sql]));
        let (mut of_parts, mut of_once) = (Vec::new(), Vec::new());
        in_parts.push("gate", &passages(&zones), &mut of_parts);
        at_once.push("gate", &passages(&zones), &mut of_once);
        in_parts.advance_within(60 * SECOND, Budget::one_part(PART), &mut of_parts);
        at_once.advance(60 * SECOND, &mut of_once);
        let mut turns = 0;
        while in_parts.has_work() {
            // For zones that were said and such that were not, and for one that is new; in each pane. At last nothing comes
            // any more.
            let late = gate(&[
                (31 + turns % 29, zones[turns as usize % ZONES].as_str(), 10 + turns),
                (31 + (turns + 7) % 29, "new", 10 + turns),
            ]);
            let before = of_parts.len();
            if turns < 200 {
                in_parts.push("gate", &late, &mut of_parts);
                at_once.push("gate", &late, &mut of_once);
            }
            let in_push: usize = of_parts[before..].iter().map(|output| output.rows.len()).sum();
            // When all windows are said, each of the two amends three.
            assert!(in_push <= 6, "turn {turns}, {in_push} rows in a push\n{sql}");
            let before = of_parts.len();
            in_parts.work(Budget::one_part(PART), &mut of_parts);
            let in_turn: usize = of_parts[before..].iter().map(|output| output.rows.len()).sum();
            assert!(in_turn <= PART, "turn {turns}, {in_turn} rows\n{sql}");
            turns += 1;
        }
        assert!(turns as usize > 3 * ZONES / PART, "{turns} turns\n{sql}");
        assert_eq!(
            last_of_each(&of_parts),
            last_of_each(&of_once),
            "nothing waits for the next window\n{sql}"
        );
        in_parts.advance(600 * SECOND, &mut of_parts);
        at_once.advance(600 * SECOND, &mut of_once);
        assert_eq!(last_of_each(&of_parts), last_of_each(&of_once), "{sql}");
    }
}

#[test]
fn a_row_behind_a_jump_of_time_finishes_no_window_that_it_came_too_late_for() {
    let zones: Vec<String> = (0..ZONES).map(|zone| format!("z{zone}")).collect();
    for sql in hops("0 seconds").iter().chain(&hops("5 seconds")) {
        let (mut in_parts, mut singly) = (set_of(&[sql]), set_of(&[sql]));
        let (mut of_parts, mut of_single) = (Vec::new(), Vec::new());
        in_parts.push("gate", &passages(&zones), &mut of_parts);
        singly.push("gate", &passages(&zones), &mut of_single);
        // Time has come to a minute and to more before, in the same batch.
        for (met, second, zone) in [
            (62, 57, "z1"),
            (62, 45, "z2"),
            (72, 55, "z1"),
            (72, 66, "new"),
            (72, 64, "z3"),
        ] {
            let rows = gate(&[(second, zone, 50)]).meeting(|_| met * SECOND);
            in_parts.push("gate", &rows, &mut of_parts);
            singly.advance(met * SECOND, &mut of_single);
            singly.push("gate", &rows, &mut of_single);
        }
        assert!(of_parts.is_empty(), "{} outputs in a push\n{sql}", of_parts.len());
        in_parts.advance_within(72 * SECOND, Budget::one_part(PART), &mut of_parts);
        while in_parts.has_work() {
            let before = of_parts.len();
            in_parts.work(Budget::one_part(PART), &mut of_parts);
            let in_turn: usize = of_parts[before..].iter().map(|output| output.rows.len()).sum();
            assert!(in_turn <= PART, "{in_turn} rows in a turn\n{sql}");
        }
        in_parts.advance(600 * SECOND, &mut of_parts);
        singly.advance(600 * SECOND, &mut of_single);
        assert_eq!(last_of_each(&of_parts), last_of_each(&of_single), "{sql}");
    }
}

#[test]
fn rows_that_wait_for_a_window_come_through_a_restart_at_any_turn() {
    let zones: Vec<String> = (0..5).map(|zone| format!("z{zone}")).collect();
    for sql in hops("0 seconds").iter().chain(&hops("1 minute")) {
        let (mut queries, mut outputs, mut chain) = (set_of(&[sql]), Vec::new(), Chain::default());
        queries.push("gate", &passages(&zones), &mut outputs);
        queries.advance_within(60 * SECOND, Budget::one_part(1), &mut outputs);
        for zone in &zones {
            queries.push("gate", &gate(&[(47, zone, 7), (58, zone, 9)]), &mut outputs);
        }
        let mut at_turns = Vec::new();
        while queries.has_work() {
            chain.take(&mut queries);
            chain.hold_against(&mut queries, sql);
            at_turns.push((outputs.len(), chain.snapshots()));
            queries.work(Budget::one_part(1), &mut outputs);
        }
        queries.advance(600 * SECOND, &mut outputs);
        for (said, snapshots) in at_turns {
            let mut again = set_of(&[sql]);
            for (name, outcome) in again.restore(Some(60 * SECOND), &snapshots) {
                assert_eq!(outcome, Restored::Kept, "{name}");
            }
            let mut both: Vec<Output> = outputs[..said].to_vec();
            again.advance(600 * SECOND, &mut both);
            assert_eq!(last_of_each(&both), last_of_each(&outputs), "{sql}");
        }
    }
}
