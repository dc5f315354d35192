//! What patterns mean, a rule a test.

use serde_json::json;

use super::{Event, Feeding, queries_of, run, said, said_whole, without_cause};
use crate::statement::parse_statements;

/// A letter is an event's action, a digit behind it its results; a second apart, all of one person.
fn events(text: &str) -> Vec<Event> {
    let letters: Vec<&str> = text.split_whitespace().collect();
    (0..)
        .zip(letters)
        .map(|(time, letter)| {
            let (action, results) = letter.split_at(1);
            let results = results.parse::<i64>().ok();
            (
                time,
                json!({"action": action, "person": "p", "results": results, "event_id": format!("e{time}")}),
            )
        })
        .collect()
}

/// Where each match of a pattern over the letters begins and ends, how long it is, and what its last row is.
fn found(pattern: &str, more: &str, text: &str) -> Vec<String> {
    let define =
        ["A", "B", "C", "D"].map(|letter| format!("{letter} AS {letter}.action = '{}'", letter.to_lowercase()));
    let define: Vec<String> = define
        .into_iter()
        .filter(|condition| pattern.contains(condition.chars().next().unwrap_or(' ')))
        .collect();
    let sql = format!(
        "CREATE QUERY found AS SELECT CAST(f AS VARCHAR) || '-' || l || ' ' || n || c AS t FROM click MATCH_RECOGNIZE (
         ORDER BY event_time MEASURES FIRST(event_id) AS f, LAST(event_id) AS l, COUNT(*) AS n, CLASSIFIER() AS c
         {more} PATTERN ({pattern}) DEFINE {})",
        define.join(", ")
    );
    texts(&said_whole(&sql, "click", &events(text)))
}

/// The texts of the column `t`.
fn texts(rows: &[String]) -> Vec<String> {
    let text = |row: &String| {
        let (_, rest) = row.split_once(r#""t":"#).expect("the column t");
        let (text, _) = rest.split_once('}').expect("the last column");
        text.trim_matches('"').to_owned()
    };
    rows.iter().map(text).collect()
}

#[test]
fn quantifiers_take_as_much_as_they_can() {
    assert_eq!(found("A B+", "", "a b b c b"), ["e0-e2 3B"]);
    assert_eq!(found("A B* C", "", "a c a b c"), ["e0-e1 2C", "e2-e4 3C"]);
    assert_eq!(found("A B?", "", "a b a"), ["e0-e1 2B", "e2-e2 1A"]);
    assert_eq!(found("A{2}", "", "a a a"), ["e0-e1 2A"]);
    assert_eq!(found("A{2,3}", "", "a a a a a"), ["e0-e2 3A", "e3-e4 2A"]);
    assert_eq!(found("A{2,} B", "", "a b a a a b"), ["e2-e5 4B"]);
    assert_eq!(found("B A{,2}", "", "b a a a"), ["e0-e2 3A"]);
}

#[test]
fn alternatives_further_left_are_preferred_though_they_take_less() {
    assert_eq!(found("A | A B", "", "a b"), ["e0-e0 1A"]);
    assert_eq!(found("A B | A", "", "a b a c"), ["e0-e1 2B", "e2-e2 1A"]);
    assert_eq!(found("(A | B)+ C", "", "b a b c"), ["e0-e3 4C"]);
    assert_eq!(found("(A B)+ | C{2}", "", "a b a b c c"), ["e0-e3 4B", "e4-e5 2C"]);
}

#[test]
fn the_next_match_begins_behind_the_last_row_or_at_the_next_one() {
    assert_eq!(found("A A", "AFTER MATCH SKIP PAST LAST ROW", "a a a"), ["e0-e1 2A"]);
    assert_eq!(
        found("A A", "AFTER MATCH SKIP TO NEXT ROW", "a a a"),
        ["e0-e1 2A", "e1-e2 2A"]
    );
}

#[test]
fn a_restart_begins_nothing_at_a_row_that_is_kept_to_be_looked_back_at() {
    let sql = "CREATE QUERY pairs AS SELECT f || '-' || l || ' ' || n AS t FROM click MATCH_RECOGNIZE (
        ORDER BY event_time MEASURES FIRST(event_id) AS f, LAST(event_id) AS l, MATCH_NUMBER() AS n
        PATTERN (X X) DEFINE X AS true)";
    assert_eq!(texts(&said(sql, "click", &events("a a a a a"))), ["e0-e1 1", "e2-e3 2"]);
}

/// One expression over the match of `A B B C` among the letters `x9 a1 b2 b5 c3 x7`.
fn measured(expression: &str) -> String {
    let sql = format!(
        "CREATE QUERY measured AS SELECT COALESCE(CAST(m AS VARCHAR), 'NULL') AS t FROM click MATCH_RECOGNIZE (
         ORDER BY event_time MEASURES {expression} AS m PATTERN (A B B C)
         DEFINE A AS A.action = 'a', B AS B.action = 'b', C AS C.action = 'c')"
    );
    let rows = texts(&said_whole(&sql, "click", &events("x9 a1 b2 b5 c3 x7")));
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0].clone()
}

#[test]
fn measures_look_at_the_rows_of_a_variable_or_at_all() {
    for (expression, value) in [
        ("A.results", "1"),
        ("B.results", "5"),
        ("results", "3"),
        ("FIRST(B.results)", "2"),
        ("FIRST(B.results, 1)", "5"),
        ("FIRST(B.results, 2)", "NULL"),
        ("LAST(B.results, 1)", "2"),
        ("LAST(results, 3)", "1"),
        ("LAST(results, 4)", "NULL"),
        ("PREV(A.results)", "9"),
        ("PREV(A.results, 2)", "NULL"),
        ("PREV(results, 2)", "2"),
        ("PREV(FIRST(B.results))", "1"),
        ("PREV(LAST(B.results, 1), 2)", "9"),
        ("COUNT(*)", "4"),
        ("COUNT(B.*)", "2"),
        ("COUNT(B.query)", "0"),
        ("SUM(B.results)", "7"),
        ("SUM(results) + A.results", "12"),
        ("AVG(B.results)", "3.5"),
        ("MIN(results) * 10 + MAX(results)", "15"),
        ("MAX(B.event_id)", "e3"),
        ("SUM(B.results * 2)", "14"),
        ("CLASSIFIER()", "C"),
        ("MATCH_NUMBER()", "1"),
        ("upper(A.action) || lower('X')", "Ax"),
        ("click.results", "3"),
        ("C.event_time - A.event_time > INTERVAL '2 seconds'", "true"),
    ] {
        assert_eq!(measured(expression), value, "{expression}");
    }
}

/// How long the one match of `A+` is over the letters `a1 a2 a3 a4 a5 a6` when A is defined so.
fn length(condition: &str) -> String {
    let sql = format!(
        "CREATE QUERY length AS SELECT CAST(n AS VARCHAR) AS t FROM click MATCH_RECOGNIZE (
         ORDER BY event_time MEASURES COUNT(*) AS n PATTERN (X A+) DEFINE A AS {condition})"
    );
    texts(&said_whole(&sql, "click", &events("a1 a2 a3 a4 a5 a6")))
        .first()
        .cloned()
        .unwrap_or_default()
}

#[test]
fn conditions_see_the_match_up_to_the_row_they_judge() {
    for (condition, rows) in [
        // X is the first row, and undefined, so that it matches any.
        ("true", "6"),
        ("results <= 3", "3"),
        ("A.results <= 3", "3"),
        ("COUNT(A.*) <= 2", "3"),
        ("COUNT(*) <= 2", "2"),
        ("SUM(A.results) < 10", "4"),
        ("SUM(results) < 11", "4"),
        ("AVG(A.results) <= 3", "4"),
        ("MAX(A.results) < 5 AND MIN(A.results) = 2", "4"),
        ("results - FIRST(results) < 3", "3"),
        ("results - FIRST(A.results) < 3", "4"),
        ("results - LAST(A.results, 2) = 2 OR COUNT(A.*) < 3", "6"),
        ("LAST(X.results) + 4 > results", "4"),
        ("PREV(results) < 4", "4"),
        ("PREV(X.results) IS NULL", "6"),
        ("A.results IN (2, 3, 5) AND A.action LIKE 'a%'", "3"),
        ("A.results BETWEEN X.results AND 4", "4"),
        ("EXTRACT(second FROM A.event_time) < 5", "5"),
        ("CLASSIFIER() = 'A' AND results < 5", "4"),
        ("CASE WHEN results = 4 THEN false ELSE true END", "3"),
    ] {
        assert_eq!(length(condition), rows, "{condition}");
    }
}

#[test]
fn ways_that_look_alike_are_kept_apart_by_what_conditions_see_of_them() {
    // Each is true of the less preferred of two ways on which the second row is the same variable.
    for condition in [
        "FIRST(A.results) = 2",
        "SUM(A.results) = 2",
        "AVG(A.results) = 2",
        "COUNT(B.*) = 2",
        "MIN(A.results) = 2",
    ] {
        let sql = format!(
            "CREATE QUERY apart AS SELECT CAST(n AS VARCHAR) AS t FROM click MATCH_RECOGNIZE (
             ORDER BY event_time MEASURES COUNT(*) AS n PATTERN ((A | B) (A | B) C)
             DEFINE A AS true, B AS true, C AS {condition})"
        );
        assert_eq!(
            texts(&said_whole(&sql, "click", &events("x1 x2 x9"))),
            ["3"],
            "{condition}"
        );
    }
}

#[test]
fn a_match_is_said_when_no_further_row_can_change_it() {
    let at = |pattern: &str, within: &str| {
        let sql = format!(
            "CREATE QUERY found WITH (lateness = '1 second') AS SELECT * FROM click MATCH_RECOGNIZE (
             ORDER BY event_time MEASURES COUNT(*) AS n PATTERN ({pattern}) {within}
             DEFINE A AS A.action = 'a', B AS B.action = 'b')"
        );
        let events = events("a b b x x x x x x x");
        run(&sql, "click", &events, 0, &Feeding::Batches(vec![1])).watermarks_by_query["found"].clone()
    };
    // With the last row, once nothing can come before it any more: after the lateness and the least time.
    assert_eq!(at("A B B", ""), [2_000_000 + 1_000_001]);
    // With the row that does not belong to it.
    assert_eq!(at("A B+", ""), [3_000_000 + 1_000_001]);
    // When its time is over.
    assert_eq!(
        at("A B+ A? X{0,9}", "WITHIN INTERVAL '5 seconds'"),
        [5_000_000 + 1_000_001]
    );
}

#[test]
fn prev_does_not_look_further_back_than_within_and_without_it_as_far_as_there_is_a_row() {
    let sql = |within: &str| {
        format!(
            "CREATE QUERY jumps AS SELECT CAST(before AS VARCHAR) AS t FROM click MATCH_RECOGNIZE (
             PARTITION BY person ORDER BY event_time MEASURES PREV(A.results) AS before PATTERN (A) {within}
             DEFINE A AS A.results > PREV(A.results))"
        )
    };
    let mut events = events("a1 a2 a3");
    events[2].0 = 12;
    assert_eq!(texts(&said(&sql(""), "click", &events)), ["1", "2"]);
    assert_eq!(
        texts(&said(&sql("WITHIN INTERVAL '11 seconds'"), "click", &events)),
        ["1", "2"]
    );
    assert_eq!(
        texts(&said(&sql("WITHIN INTERVAL '10 seconds'"), "click", &events)),
        ["1"]
    );
}

#[test]
fn rows_of_one_time_are_taken_in_the_order_of_their_columns() {
    let mut rows = events("b2 a1");
    rows[1].0 = 0;
    let sql = "CREATE QUERY tie AS WITH short AS (SELECT event_time, action, results FROM click)
        SELECT CAST(COUNT AS VARCHAR) AS t FROM short MATCH_RECOGNIZE (
        ORDER BY event_time MEASURES COUNT(*) AS count PATTERN (A B)
        DEFINE A AS A.action = 'a', B AS B.action = 'b')";
    assert_eq!(texts(&said(sql, "click", &rows)), ["2"]);
}

#[test]
fn each_pattern_of_a_statement_has_its_own_limit() {
    let part = |pattern: &str, within: &str| {
        let define = if pattern.contains('B') {
            ", B AS B.action = 'b'"
        } else {
            ""
        };
        format!(
            "SELECT '{pattern} ' || n AS t FROM named MATCH_RECOGNIZE (
             ORDER BY event_time MEASURES A.pattern AS pattern, COUNT(*) AS n -- how many
             PATTERN ({pattern}) {within} DEFINE A AS A.action = 'a'{define})"
        )
    };
    let sql = format!(
        "CREATE QUERY several AS WITH named AS (SELECT event_time, action, query AS pattern FROM click) {} UNION ALL {} UNION ALL {}",
        part("A A A A", ""),
        part("A A+", "WITHIN\nINTERVAL '2' SECOND"),
        part("A B", "WITHIN INTERVAL '1 second'")
    );
    let run = run(&sql, "click", &events("a a a a x b"), 0, &Feeding::Batches(vec![1]));
    // Branches speak each for itself, so that their order is none.
    let mut found = texts(&without_cause(&run.said["several"]));
    found.sort();
    assert_eq!(found, ["A A A A 4", "A A+ 3"]);
}

/// Statements whose state is looked at while they run.
fn kept(sql: &str, events: &[Event]) -> (usize, Vec<(String, String, String)>, Option<String>) {
    let statements = parse_statements(&format!(
        "{sql}; CREATE QUERY told_late AS SELECT query, event_id, reason FROM late"
    ));
    let mut queries = queries_of(&statements.expect("it can be read"));
    let (mut out, mut late) = (Vec::new(), Vec::new());
    for chunk in events.chunks(500) {
        let numbered: Vec<(usize, Event)> = chunk.iter().cloned().enumerate().collect();
        let batch = super::batch_of("click", &numbered);
        let mut flow = crate::flow::Flow::at_watermark(batch, i64::MIN);
        let ids = arrow::array::AsArray::as_string::<i32>(flow.batch.column(0)).clone();
        flow.causes = std::sync::Arc::new(ids);
        queries.push("click", &crate::row::Rows::Many(flow), &mut out);
        let newest = chunk.iter().map(|event| event.0).max().unwrap_or_default();
        queries.advance((newest + 1) * super::SECOND, &mut out);
    }
    for output in out.iter().filter(|output| output.query.as_ref() == "told_late") {
        for row in crate::rows::batch_to_json(&output.rows.flow().batch) {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            late.push((text("query"), text("event_id"), text("reason")));
        }
    }
    let query = &queries.queries()[0];
    (query.footprint().keys, late, query.broken().map(str::to_owned))
}

#[test]
fn a_partition_is_forgotten_when_nothing_in_it_is_needed() {
    let many: Vec<Event> = (0..50)
        .map(|time| {
            (
                time,
                json!({"action": "a", "person": format!("p{time}"), "results": 1, "event_id": "-"}),
            )
        })
        .collect();
    let sql = |options: &str, measure: &str, within: &str| {
        format!(
            "CREATE QUERY counted {options} AS SELECT * FROM click MATCH_RECOGNIZE (
             PARTITION BY person ORDER BY event_time MEASURES {measure} AS m
             PATTERN (A B) {within} DEFINE A AS A.action = 'a', B AS B.action = 'b')"
        )
    };
    let keys = |sql: &str| kept(sql, &many).0;
    // The last row lies at 49, and the watermark at 50: partial matches from 40 on are within 10 seconds.
    assert_eq!(keys(&sql("", "COUNT(*)", "WITHIN INTERVAL '10 seconds'")), 10);
    assert_eq!(keys(&sql("", "COUNT(*)", "")), 50);
    // What looks back keeps rows as long as they can be seen.
    let ended = |measure: &str, options: &str, within: &str| {
        keys(&sql(options, measure, within).replace("PATTERN (A B)", "PATTERN (B A)"))
    };
    assert_eq!(ended("COUNT(*)", "", ""), 0);
    assert_eq!(ended("PREV(B.results)", "", "WITHIN INTERVAL '10 seconds'"), 10);
    // A number is remembered where there is one to remember.
    assert_eq!(ended("MATCH_NUMBER()", "", ""), 0);
    let numbered = |options: &str| {
        let sql = sql(options, "MATCH_NUMBER()", "WITHIN INTERVAL '10 seconds'");
        keys(&sql.replace("PATTERN (A B)", "PATTERN (A | B)"))
    };
    assert_eq!(numbered(""), 50);
    assert_eq!(numbered("WITH (ttl = '20 seconds')"), 20);
}

#[test]
fn a_partial_match_without_an_end_is_given_up_and_told() {
    let sql = "CREATE QUERY endless AS SELECT * FROM click MATCH_RECOGNIZE (
        ORDER BY event_time MEASURES COUNT(*) AS n PATTERN (A B* C)
        DEFINE A AS A.action = 'a', B AS B.action = 'b', C AS C.action = 'c')";
    let mut endless: Vec<Event> = vec![(0, json!({"action": "a", "person": "p", "event_id": "first"}))];
    let b = |time: i64| (time, json!({"action": "b", "person": "p", "event_id": "-"}));
    endless.extend((1..10_000).map(b));
    assert_eq!(kept(sql, &endless), (1, vec![], None));
    endless.push(b(10_000));
    let (keys, late, broken) = kept(sql, &endless);
    let reason = "the partial match it began was given up: too many rows or ways were open";
    assert_eq!((keys, broken), (0, None));
    assert_eq!(late, [("endless".to_owned(), "first".to_owned(), reason.to_owned())]);
}

#[test]
fn conditions_that_leave_open_what_is_what_stop_the_query_with_words() {
    let sql = "CREATE QUERY vague AS SELECT * FROM click MATCH_RECOGNIZE (
        PARTITION BY site, person ORDER BY event_time MEASURES COUNT(*) AS n PATTERN ((A | B)+ C)
        DEFINE A AS SUM(A.results) > 0, B AS SUM(B.results) > 0, C AS SUM(A.results) < SUM(B.results) - 1000000000)";
    let vague: Vec<Event> = (0..40)
        .map(|time| {
            (
                time,
                json!({"action": "a", "results": 1_i64 << time, "person": "p", "event_id": "-"}),
            )
        })
        .collect();
    let (_, _, broken) = kept(sql, &vague);
    let words = "Execution error: a partial match may go on in more than 1000 ways: DEFINE leaves open which row is \
                 which variable; make its conditions exclude each other (at the row of 1970-01-01T00:00:09Z, PARTITION BY \
                 is \"-\", \"p\")";
    assert_eq!(broken.as_deref(), Some(words));
}
