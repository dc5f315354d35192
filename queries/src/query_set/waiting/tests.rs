//! Rows that meet windows which are half said wait for these, and nobody else does; what is said is what is said at once.

use std::collections::BTreeMap;

use super::super::tests::{SECOND, gate, said, set_of};
use crate::budget::Budget;
use crate::capture::tests::Chain;
use crate::query::Output;
use crate::query_set::{QuerySet, Restored};
use crate::row::Rows;
use crate::snapshot::QuerySnapshot;
use crate::statement::parse_statement;

const SUMS: &str = "CREATE QUERY sums AS SELECT site, zone, window_start, window_end, sum(entered) AS entered
    FROM TUMBLE(gate, event_time, INTERVAL '10 seconds') GROUP BY site, zone, window_start, window_end";
const PASSAGES: &str = "CREATE QUERY passages AS SELECT site, zone, event_time, entered FROM gate";
/// Counts on, row by row: of each event's row it says how many windows were said before it.
const BOTH: &str = "CREATE QUERY both AS SELECT site, zone, count(*) AS n, sum(entered) AS entered
    FROM (SELECT site, zone, entered FROM sums UNION ALL SELECT site, zone, entered FROM gate) GROUP BY site, zone";
const PAIRS: &str = "CREATE ALERT pairs WITH (subject = 'zone') AS
    SELECT s.site, s.zone, s.window_end, s.entered AS of_window, p.entered, p.event_time
    FROM sums s JOIN passages p ON s.zone = p.zone
    AND p.event_time BETWEEN s.window_end - INTERVAL '10 seconds' AND s.window_end + INTERVAL '5 seconds'";
/// Reads one in front of which rows wait, and what that reads.
const AGAIN: &str = "CREATE ALERT again WITH (subject = 'zone') AS
    SELECT site, zone, 'both' AS of, n, entered FROM both
    UNION ALL SELECT site, zone, 'passages' AS of, 0 AS n, entered FROM passages
    UNION ALL SELECT site, zone, 'sums' AS of, 0 AS n, entered FROM sums";
const ALL: [&str; 5] = [SUMS, PASSAGES, BOTH, PAIRS, AGAIN];

/// Passages that met a watermark, seconds.
fn met(seconds: i64, events: &[(i64, &str, i64)]) -> Rows {
    gate(events).meeting(|_| seconds * SECOND)
}

/// All that a query said, in order, with watermarks and causes.
fn traced(outputs: &[Output], name: &str) -> Vec<String> {
    let of_query = outputs.iter().filter(|output| output.query.as_ref() == name);
    let lines = of_query.flat_map(|output| {
        let lines = said(std::slice::from_ref(output), name);
        let at = |(row, line)| {
            format!(
                "{line} at {} by {:?}",
                output.rows.watermark(row),
                output.rows.cause(row)
            )
        };
        lines.into_iter().enumerate().map(at).collect::<Vec<_>>()
    });
    lines.collect()
}

fn finish(queries: &mut QuerySet, part: usize, outputs: &mut Vec<Output>) {
    while queries.has_work() {
        queries.work(Budget::one_part(part), outputs);
    }
}

/// Zones whose windows are said before any of them waits for the next.
const ZONES: [&str; 4] = ["a", "b", "c", "d"];

/// A passage in each zone, and time on its way to the end of their window: one part of it is said.
fn half_said(statements: &[&str], outputs: &mut Vec<Output>) -> QuerySet {
    let mut queries = set_of(statements);
    queries.push("gate", &met(0, &ZONES.map(|zone| (1, zone, 1))), outputs);
    queries.advance_within(10 * SECOND, Budget::one_part(1), outputs);
    queries
}

#[test]
fn rows_wait_in_front_of_the_query_alone_in_which_they_meet_windows() {
    let mut outputs = Vec::new();
    let mut queries = half_said(&ALL, &mut outputs);
    assert_eq!(said(&outputs, "sums").len(), 1, "one part of one row");
    let before = (said(&outputs, "both").len(), said(&outputs, "passages").len());
    queries.push("gate", &met(10, &[(11, "a", 9)]), &mut outputs);
    assert_eq!(said(&outputs, "passages").len(), before.1 + 1, "it is answered at once");
    assert_eq!(said(&outputs, "sums").len(), 1, "nobody waits for the rest");
    assert_eq!(said(&outputs, "both").len(), before.0, "here it waits");
    assert!(queries.holds_rows());
    let kept = |queries: &QuerySet| queries.get("again").expect("it runs").footprint().bytes;
    let waiting = kept(&queries);
    finish(&mut queries, 1, &mut outputs);
    assert!(!queries.holds_rows());
    assert!(waiting > 0, "what waits is counted with what is kept");
    assert_eq!(kept(&queries), 0, "it keeps nothing else");
    let both = said(&outputs, "both");
    assert!(
        both.last().is_some_and(|last| last.contains(r#""n":3,"entered":11"#)),
        "behind the window of its zone: {both:?}"
    );
}

#[test]
fn rows_that_waited_are_let_in_in_the_order_in_which_they_came() {
    let run = |part: Option<usize>| {
        let (mut queries, mut outputs) = (set_of(&ALL), Vec::new());
        for window in 0..4 {
            let start = window * 10;
            let all = ZONES.map(|zone| (start + 1, zone, 1));
            queries.push("gate", &met(start, &all), &mut outputs);
            let end = start + 10;
            match part {
                Some(part) => queries.advance_within(end * SECOND, Budget::one_part(part), &mut outputs),
                None => queries.advance(end * SECOND, &mut outputs),
            }
            for number in 0..12 {
                let (zone, other) = (ZONES[number % 4], ZONES[(number * 3 + 1) % 4]);
                let number = number as i64;
                let events = [
                    (end + number % 3, zone, 10 + number),
                    (end + number % 2, other, 30 + number),
                ];
                queries.push("gate", &met(end, &events[..1 + number as usize % 2]), &mut outputs);
                if let Some(part) = part
                    && number % 3 == 0
                {
                    queries.work(Budget::one_part(part), &mut outputs);
                }
            }
            finish(&mut queries, part.unwrap_or(usize::MAX), &mut outputs);
        }
        ["both", "pairs", "again", "passages"].map(|name| (name, traced(&outputs, name)))
    };
    let at_once = run(None);
    for part in [1, 2, 3, 7] {
        for ((name, in_parts), (_, at_once)) in run(Some(part)).iter().zip(&at_once) {
            // Windows are said in other batches; what is said of events keeps its order.
            let but_windows = |lines: &[String]| -> Vec<String> {
                let lines = lines.iter().filter(|line| !line.contains(r#""of":"sums""#));
                lines.cloned().collect()
            };
            assert_eq!(but_windows(in_parts), but_windows(at_once), "{name} in parts of {part}");
        }
    }
}

/// Nobody waits for all of a window then: each row that comes has one of it said.
#[test]
fn where_many_rows_wait_each_that_comes_brings_what_they_wait_for_nearer() {
    let zones: Vec<String> = (0..40).map(|number| format!("z{number}")).collect();
    let passages = |seconds: i64, rows: usize| -> Vec<(i64, &str, i64)> {
        let zones = zones.iter().cycle().take(rows);
        zones.map(|zone| (seconds, zone.as_str(), 1)).collect()
    };
    let run = |part: Option<usize>| {
        let (mut queries, mut outputs) = (set_of(&[SUMS, BOTH]), Vec::new());
        queries.push("gate", &met(0, &passages(1, zones.len())), &mut outputs);
        match part {
            Some(part) => queries.advance_within(10 * SECOND, Budget::one_part(part), &mut outputs),
            None => queries.advance(10 * SECOND, &mut outputs),
        }
        queries.push("gate", &met(10, &passages(11, 16_384)), &mut outputs);
        let mut at_each = Vec::new();
        for rows in [1, 3, 1] {
            let before = said(&outputs, "sums").len();
            queries.push("gate", &met(10, &passages(12, rows)), &mut outputs);
            at_each.push(said(&outputs, "sums").len() - before);
        }
        finish(&mut queries, part.unwrap_or(usize::MAX), &mut outputs);
        // Of each zone what was said last: those that came together are let in in parts, and said as often.
        let zone_of = |line: &String| line.split_once(r#","n""#).map(|(zone, _)| zone.to_owned());
        let lines = traced(&outputs, "both").into_iter();
        let last: BTreeMap<_, _> = lines.map(|line| (zone_of(&line), line)).collect();
        (at_each, last)
    };
    let (in_parts, at_once) = (run(Some(4)), run(None));
    assert_eq!(in_parts.0, [1, 3, 1]);
    assert_eq!(at_once.1.len(), zones.len());
    assert!(in_parts.1 == at_once.1, "each zone's last row is the same");
}

#[test]
fn a_part_of_many_rows_that_came_together_is_let_in_at_a_time() {
    let mut outputs = Vec::new();
    let mut queries = half_said(&[SUMS, BOTH], &mut outputs);
    let many: Vec<(i64, &str, i64)> = (0..20).map(|number| (11, ZONES[number % 4], 1)).collect();
    queries.push("gate", &met(10, &many), &mut outputs);
    let mut let_in = Vec::new();
    while queries.has_work() {
        let before = queries.get("both").expect("it runs").counters().rows_in;
        queries.work(Budget::one_part(3), &mut outputs);
        let_in.push(queries.get("both").expect("it runs").counters().rows_in - before);
    }
    assert!(let_in.iter().all(|rows| *rows <= 3), "{let_in:?}");
    // The zone's passage, its window, and five more.
    let last = last_of_zones(&outputs);
    assert!(
        last.values().all(|row| row.contains(r#""n":7,"entered":7"#)),
        "{last:?}"
    );
}

/// The last that was said of each zone.
fn last_of_zones(outputs: &[Output]) -> BTreeMap<String, String> {
    let zone = |row: &str| {
        let row: serde_json::Value = serde_json::from_str(row).expect("it was written as JSON");
        row["zone"].to_string()
    };
    said(outputs, "both").into_iter().map(|row| (zone(&row), row)).collect()
}

#[test]
fn when_too_many_wait_what_they_wait_for_is_said_at_once() {
    for memory in ["256 MiB", "1 MiB"] {
        let mut outputs = Vec::new();
        let both = BOTH.replace("both AS", &format!("both WITH (memory = '{memory}') AS"));
        let mut queries = half_said(&[SUMS, PASSAGES, &both], &mut outputs);
        let mut waited = 0;
        let many: Vec<(i64, &str, i64)> = (0..100).map(|number| (11, ZONES[number % 4], 1)).collect();
        while said(&outputs, "sums").len() < ZONES.len() {
            queries.push("gate", &met(10, &many), &mut outputs);
            waited += many.len();
            assert!(waited < 20_000, "there is an end to it");
        }
        assert_eq!(waited > 10_000, memory == "256 MiB", "{waited} of {memory}");
        let both = queries.get("both").expect("it runs");
        assert_eq!(both.broken(), None);
        finish(&mut queries, 1_000, &mut outputs);
        let both = queries.get("both").expect("it runs");
        assert_eq!(both.counters().rows_in as usize, 2 * ZONES.len() + waited);
    }
}

#[test]
fn what_waits_comes_to_an_end_however_much_comes() {
    let mut outputs = Vec::new();
    let mut queries = half_said(&[SUMS, BOTH], &mut outputs);
    for number in 0..500 {
        queries.push("gate", &met(10, &[(11, ZONES[number % 4], 1); 40]), &mut outputs);
        queries.work(Budget::one_part(1), &mut outputs);
        if !queries.has_work() {
            return;
        }
    }
    panic!("time stands still");
}

fn through_bytes(queries: &mut QuerySet) -> Vec<QuerySnapshot> {
    let snapshots = queries.snapshot().expect("it can be written");
    let bytes = snapshots
        .iter()
        .map(|snapshot| snapshot.to_bytes().expect("it can be written"));
    bytes
        .map(|bytes| QuerySnapshot::from_bytes(&bytes).expect("it can be read"))
        .collect()
}

fn put(queries: &mut QuerySet, sql: &str) {
    let statement = parse_statement(sql).expect("it is right");
    for (name, outcome) in queries.put(statement).expect("it can run") {
        assert_eq!(outcome, Restored::Kept, "{name}");
    }
}

/// Random passages, turns, restarts and changes: pairs are those that are found at once, and counts come to the same.
#[test]
fn rows_that_wait_come_through_restarts_and_changes() {
    let (mut held, mut held_over) = (0, 0);
    for seed in 1..=3_u64 {
        let mut random = seed;
        let mut draw = |below: i64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as i64 % below
        };
        let (mut in_parts, mut at_once) = (set_of(&ALL), set_of(&ALL));
        let (mut of_parts, mut of_once, mut chain) = (Vec::new(), Vec::new(), Chain::default());
        let (mut newest, mut watermark) = (100, 90);
        for _ in 0..80 {
            newest += draw(4);
            let events: Vec<(i64, &str, i64)> = (0..1 + draw(3))
                .map(|_| ((newest - draw(3)).max(watermark), ZONES[draw(4) as usize], draw(50)))
                .collect();
            let rows = met(watermark, &events);
            watermark = watermark.max(newest - 2);
            in_parts.push("gate", &rows, &mut of_parts);
            at_once.push("gate", &rows, &mut of_once);
            at_once.advance(watermark * SECOND, &mut of_once);
            let part = Budget::one_part(1 + draw(2) as usize);
            in_parts.advance_within(watermark * SECOND, part, &mut of_parts);
            for _ in 0..draw(3) {
                in_parts.work(part, &mut of_parts);
            }
            held += usize::from(in_parts.holds_rows());
            let mut room = draw(4) as usize;
            in_parts.gather(&mut room).expect("it can be captured");
            let kept = match draw(12) {
                0 => Some(through_bytes(&mut in_parts)),
                1 | 2 => {
                    chain.take(&mut in_parts);
                    chain.hold_against(&mut in_parts, &format!("seed {seed}"));
                    (draw(2) == 0).then(|| chain.snapshots())
                }
                3 => {
                    // One that is read meanwhile, one in front of which rows wait, or one more.
                    let one_more = BOTH.replace("both AS", "more AS");
                    let which = draw(3) as usize;
                    put(&mut in_parts, [SUMS, PAIRS, &one_more][which]);
                    if which == 2 {
                        in_parts.remove("more").expect("nobody reads it");
                    }
                    None
                }
                _ => None,
            };
            if let Some(kept) = kept {
                held_over += usize::from(in_parts.holds_rows());
                let stood = in_parts.watermark();
                in_parts = set_of(&ALL);
                for (name, outcome) in in_parts.restore(stood, &kept) {
                    assert_eq!(outcome, Restored::Kept, "{name}");
                }
                chain = Chain::default();
            }
        }
        in_parts.advance(i64::MAX / 4, &mut of_parts);
        at_once.advance(i64::MAX / 4, &mut of_once);
        let sorted = |mut lines: Vec<String>| {
            lines.sort();
            lines
        };
        for name in ["sums", "pairs"] {
            let (in_parts, at_once) = (said(&of_parts, name), said(&of_once, name));
            assert_eq!(sorted(in_parts), sorted(at_once), "seed {seed}: {name}");
        }
        let passages = |outputs: &[Output]| sorted(traced(outputs, "passages"));
        assert_eq!(passages(&of_parts), passages(&of_once), "seed {seed}");
        assert_eq!(last_of_zones(&of_parts), last_of_zones(&of_once), "seed {seed}");
        // A row of each event by each way, and of each window.
        let count = |outputs: &[Output]| said(outputs, "again").len();
        assert_eq!(count(&of_parts), count(&of_once), "seed {seed}");
        for query in in_parts.queries() {
            assert_eq!(
                (query.broken(), query.counters().late_rows),
                (None, 0),
                "{}",
                query.name()
            );
        }
    }
    assert!(
        held > 10 && held_over > 2,
        "rows waited {held} times, and over {held_over} restarts"
    );
}

#[test]
fn rows_that_wait_are_found_by_name_under_the_columns_of_now() {
    let mut outputs = Vec::new();
    let read = "CREATE QUERY both AS SELECT zone, entered FROM sums UNION ALL SELECT zone, entered FROM passages";
    let mut queries = half_said(&[SUMS, PASSAGES, read], &mut outputs);
    queries.push("gate", &met(10, &[(11, "a", 9)]), &mut outputs);
    assert!(queries.holds_rows());
    let changed = "CREATE QUERY passages AS SELECT exited, zone, entered FROM gate";
    queries
        .put(parse_statement(changed).expect("it is right"))
        .expect("what reads it can run on");
    assert!(queries.holds_rows(), "they wait on");
    outputs.clear();
    queries.push("gate", &met(10, &[(11, "b", 7)]), &mut outputs);
    finish(&mut queries, 1, &mut outputs);
    let rows = said(&outputs, "both");
    for row in [r#"{"zone":"a","entered":9}"#, r#"{"zone":"b","entered":7}"#] {
        assert!(rows.iter().any(|said| said == row), "{row} of {rows:?}");
    }
}
