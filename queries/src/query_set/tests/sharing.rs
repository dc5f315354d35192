//! Queries that share a window: which do, what becomes of it when they come, change, fail and go.

use std::sync::{Arc, Weak};

use super::{SECOND, gate, put, said, set_of};
use crate::query_set::{QuerySet, Restored};
use crate::statement::parse_statement;

/// A query over minutes of zones.
fn minutes(name: &str, asks: &str) -> String {
    format!(
        "CREATE QUERY {name} AS SELECT zone, window_start, window_end, {asks}
         FROM TUMBLE(gate, event_time, INTERVAL '1 minute') GROUP BY zone, window_start, window_end"
    )
}

fn created(statements: &[String]) -> QuerySet {
    set_of(&statements.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The queries that share a window with `name`, as `usher explain` tells.
fn shares(queries: &QuerySet, name: &str) -> String {
    let lines = queries.get(name).expect("it runs").operators();
    let line = lines
        .iter()
        .find_map(|line| line.split_once("; shares its window with "));
    line.map_or_else(String::new, |(_, others)| others.to_owned())
}

fn is_running(queries: &QuerySet, name: &str) -> bool {
    queries.get(name).expect("it was created").broken().is_none()
}

#[test]
fn queries_share_a_window_where_rows_windows_and_keys_are_the_same() {
    let like = "CREATE QUERY like_a AS SELECT zone, sum(g.exited) AS exited, max(g.entered) AS most, window_end
                FROM TUMBLE(gate, event_time, INTERVAL '60 seconds') AS g GROUP BY window_end, window_start, zone
                HAVING max(g.entered) > 1";
    let other = |name: &str, from: &str, to: &str| minutes(name, "sum(entered) AS n").replace(from, to);
    let queries = created(&[
        minutes("a", "sum(entered) AS entered, count(*) AS n"),
        like.to_owned(),
        minutes("b", "count(*) FILTER (WHERE entered > 2) AS n"),
        other("longer", "1 minute", "2 minutes"),
        other("of_devices", "zone", "device"),
        other("of_some", "GROUP BY", "WHERE entered > 1 GROUP BY"),
        other("amending", "AS SELECT", "WITH (emit = 'update') AS SELECT"),
        other("in_no_hurry", "AS SELECT", "WITH (lateness = '1 minute') AS SELECT"),
        other("that_divides", "sum(entered)", "sum(10 / entered)"),
    ]);
    assert_eq!(shares(&queries, "a"), "like_a, b");
    assert_eq!(shares(&queries, "like_a"), "a, b");
    for name in [
        "longer",
        "of_devices",
        "of_some",
        "amending",
        "in_no_hurry",
        "that_divides",
    ] {
        assert_eq!(shares(&queries, name), "", "{name}");
    }
    let lines = queries.get("like_a").expect("it runs").operators();
    let aggregate = lines.iter().find(|line| line.starts_with("Aggregate")).expect("a line");
    assert!(aggregate.contains("sum(g.exited), max(g.entered);"), "{aggregate}");
    assert_eq!(lines.last().map(String::as_str), Some("Read gate"));
}

#[test]
fn those_that_share_speak_one_behind_the_other_when_time_moves_on() {
    let mut queries = created(&[
        minutes("a", "count(*) AS n"),
        minutes("b", "count(*) AS n").replace("1 minute", "30 seconds"),
        minutes("c", "sum(entered) AS n"),
    ]);
    assert_eq!(shares(&queries, "a"), "c");
    let mut outputs = Vec::new();
    queries.push("gate", &gate(&[(1, "x", 4)]), &mut outputs);
    queries.advance(60 * SECOND, &mut outputs);
    let names: Vec<&str> = outputs.iter().map(|output| output.query.as_ref()).collect();
    assert_eq!(names, ["a", "c", "b"]);
}

#[test]
fn one_that_fails_by_itself_leaves_the_others_their_window() {
    let mut queries = created(&[
        minutes("a", "10 / (sum(entered) - 4) AS n"),
        minutes("b", "sum(entered) AS n"),
        minutes("c", "sum(entered) AS n"),
    ]);
    assert_eq!(shares(&queries, "a"), "b, c");
    let mut outputs = Vec::new();
    queries.push("gate", &gate(&[(1, "x", 4)]), &mut outputs);
    queries.advance(60 * SECOND, &mut outputs);
    queries.push("gate", &gate(&[(61, "x", 5)]), &mut outputs);
    queries.advance(120 * SECOND, &mut outputs);
    assert!(!is_running(&queries, "a"));
    assert_eq!(said(&outputs, "a"), Vec::<String>::new());
    for name in ["b", "c"] {
        assert_eq!(said(&outputs, name).len(), 2, "{name}");
    }
}

#[test]
fn a_window_that_fails_stops_those_that_share_it_with_the_reason() {
    let mut queries = created(&[
        minutes("a", "sum(10 / entered) AS n"),
        minutes("b", "sum(10 / entered) AS n, count(*) AS passages"),
        minutes("c", "count(*) AS n"),
    ]);
    assert_eq!(shares(&queries, "a"), "b");
    let mut outputs = Vec::new();
    queries.push("gate", &gate(&[(1, "x", 0)]), &mut outputs);
    queries.advance(60 * SECOND, &mut outputs);
    let mut alone = created(&[minutes("a", "sum(10 / entered) AS n")]);
    alone.push("gate", &gate(&[(1, "x", 0)]), &mut outputs);
    let reason = alone.get("a").expect("it was created").broken();
    assert!(reason.is_some());
    for name in ["a", "b"] {
        assert_eq!(queries.get(name).expect("it was created").broken(), reason, "{name}");
    }
    assert_eq!(said(&outputs, "c").len(), 1);
}

#[test]
fn one_that_keeps_too_much_stops_and_is_measured_as_if_it_were_alone() {
    let keeping = |name: &str, memory: &str| {
        minutes(name, "count(DISTINCT event_id) AS n").replacen(
            "AS SELECT",
            &format!("WITH (memory = '{memory}') AS SELECT"),
            1,
        )
    };
    let statements = [
        keeping("a", "10 KiB"),
        keeping("b", "64 MiB"),
        minutes("c", "count(*) AS n"),
    ];
    let mut queries = created(&statements);
    assert_eq!(shares(&queries, "a"), "b, c");
    let mut outputs = Vec::new();
    let events: Vec<(i64, &str, i64)> = (0..10_000).map(|number| (number % 59, "x", number)).collect();
    queries.push("gate", &gate(&events), &mut outputs);
    let bytes = |queries: &QuerySet, name: &str| queries.get(name).expect("it was created").footprint().bytes;
    for (name, sql) in [("b", &statements[1]), ("c", &statements[2])] {
        let mut alone = created(std::slice::from_ref(sql));
        alone.push("gate", &gate(&events), &mut outputs);
        assert_eq!(bytes(&queries, name), bytes(&alone, name), "{name}");
    }
    assert!(!is_running(&queries, "a"));
    assert_eq!(bytes(&queries, "a"), 0);
    outputs.clear();
    queries.advance(60 * SECOND, &mut outputs);
    assert_eq!(said(&outputs, "b").len(), 1);
}

#[test]
fn one_that_comes_later_has_not_seen_what_came_before() {
    let mut queries = created(&[minutes("a", "sum(entered) AS n"), minutes("b", "count(*) AS n")]);
    let mut outputs = Vec::new();
    queries.push("gate", &gate(&[(1, "x", 4)]), &mut outputs);
    put(&mut queries, &minutes("c", "sum(entered) AS n")).expect("it is right");
    put(&mut queries, &minutes("d", "sum(entered) AS n")).expect("it is right");
    assert_eq!(shares(&queries, "a"), "b");
    // No row has come yet to those two.
    assert_eq!(shares(&queries, "c"), "d");
    queries.push("gate", &gate(&[(2, "x", 1)]), &mut outputs);
    queries.advance(60 * SECOND, &mut outputs);
    assert!(said(&outputs, "a")[0].contains("\"n\":5"));
    assert!(said(&outputs, "c")[0].contains("\"n\":1"));
}

#[test]
fn a_changed_query_leaves_the_others_and_the_last_one_frees_the_window() {
    let alert = |threshold: i64| {
        minutes("busy", "'main' AS site, sum(entered) AS entered").replace(
            "CREATE QUERY busy",
            &format!("CREATE ALERT busy WITH (subject = 'zone', raise = 'entered > {threshold}')"),
        )
    };
    let calm = alert(9).replace("busy", "calm");
    let mut queries = created(&[alert(5), calm, minutes("c", "sum(entered) AS n")]);
    assert_eq!(shares(&queries, "busy"), "calm");
    let window = Arc::downgrade(
        queries
            .get("busy")
            .and_then(|query| query.shared_window())
            .expect("a window"),
    );
    let mut outputs = Vec::new();
    queries.push("gate", &gate(&[(1, "x", 4)]), &mut outputs);
    let outcome = put(&mut queries, &alert(3)).expect("it is right");
    assert_eq!(outcome, [("busy".to_owned(), Restored::Kept)]);
    assert_eq!(shares(&queries, "calm"), "busy", "its windows mean what they did");
    let longer = alert(3).replace("1 minute", "2 minutes");
    let outcome = put(&mut queries, &longer).expect("it is right");
    assert_eq!(outcome, [("busy".to_owned(), Restored::Changed)]);
    assert_eq!(shares(&queries, "calm"), "");
    queries.advance(60 * SECOND, &mut outputs);
    assert!(said(&outputs, "calm")[0].contains("\"entered\":4"));
    assert!(Weak::upgrade(&window).is_some());
    queries.remove("calm").expect("nobody reads it");
    assert!(Weak::upgrade(&window).is_none());
}

#[test]
fn a_restart_keeps_what_each_has_though_others_come_and_go() {
    let (a, b) = (
        minutes("a", "sum(entered) AS n"),
        minutes("b", "max(entered) AS n, count(*) AS c"),
    );
    let (c, d) = (
        minutes("c", "count(*) AS n"),
        minutes("d", "sum(entered) AS n, min(entered) AS least"),
    );
    let mut queries = created(&[a.clone(), b.clone(), c.clone()]);
    let mut outputs = Vec::new();
    queries.push("gate", &gate(&[(1, "x", 4), (2, "y", 2)]), &mut outputs);
    let snapshots = queries.snapshot().expect("it can be written");
    let changed = c.replace("count(*)", "sum(exited)");
    let mut again = created(&[d, changed, b, a]);
    assert_eq!(shares(&again, "a"), "d, c, b");
    let outcomes = again.restore(queries.watermark(), &snapshots);
    let expected = [("a", Restored::Kept), ("b", Restored::Kept), ("c", Restored::Changed)];
    assert_eq!(outcomes, expected.map(|(name, outcome)| (name.to_owned(), outcome)));
    assert_eq!(shares(&again, "a"), "b", "whose windows hold the same rows");
    assert_eq!(shares(&again, "c"), "d", "which begin anew");
    again.push("gate", &gate(&[(3, "x", 1)]), &mut outputs);
    again.advance(60 * SECOND, &mut outputs);
    assert!(said(&outputs, "a")[0].contains("\"n\":5"));
    assert!(said(&outputs, "b")[0].contains("\"n\":4,\"c\":2"));
    assert!(said(&outputs, "d")[0].contains("\"n\":1,\"least\":1"));
    assert_eq!(said(&outputs, "c").len(), 1);

    // One whose state can't be read takes no other with it.
    let mut broken = snapshots.clone();
    let (_, part) = &mut broken[1].parts[0];
    *part = part.project(&[0, 1]).expect("two columns");
    let mut again = created(&[
        minutes("a", "sum(entered) AS n"),
        minutes("b", "max(entered) AS n, count(*) AS c"),
    ]);
    let outcomes = again.restore(queries.watermark(), &broken);
    assert_eq!(outcomes[0].1, Restored::Kept);
    assert!(matches!(outcomes[1].1, Restored::Unreadable(_)), "{outcomes:?}");
}

#[test]
fn a_reader_shares_again_when_what_it_reads_was_changed() {
    let below = minutes("a", "sum(entered) AS n").replace(
        "zone, window_start, window_end, sum",
        "zone, window_start AS begins, sum",
    );
    let over = |name: &str, asks: &str| minutes(name, asks).replace("gate, event_time", "a, begins");
    let mut queries = created(&[below.clone(), over("b", "sum(n) AS n"), over("c", "max(n) AS n")]);
    assert_eq!(shares(&queries, "b"), "c");
    let mut outputs = Vec::new();
    queries.push("gate", &gate(&[(1, "x", 4)]), &mut outputs);
    queries.advance(60 * SECOND, &mut outputs);
    put(&mut queries, &below.replace("1 minute", "30 seconds")).expect("its readers can run on");
    assert_eq!(shares(&queries, "b"), "c");
    queries.push("gate", &gate(&[(61, "x", 1)]), &mut outputs);
    queries.advance(300 * SECOND, &mut outputs);
    assert_eq!(said(&outputs, "b").len(), 2);
    assert_eq!(said(&outputs, "c").len(), 2);
}

#[test]
fn what_was_planned_beside_the_running_ones_shares_with_none() {
    let queries = created(&[minutes("a", "sum(entered) AS n")]);
    let checked = queries.check(parse_statement(&minutes("b", "count(*) AS n")).expect("it is right"));
    assert!(checked.expect("it is right").shared_window().is_none());
}
