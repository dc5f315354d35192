//! What is refused, with its place and what would be right.

use crate::query_set::QuerySet;
use crate::statement::parse_statements;

/// The mistake in a statement that follows one with a running sum, an amending one and one that speaks on close.
fn mistake(sql: &str) -> String {
    let mut queries = QuerySet::new();
    let before = "CREATE QUERY running AS SELECT zone, max(event_time) AS newest FROM gate GROUP BY zone;
        CREATE QUERY closed AS SELECT zone, window_end, count(*) AS n
        FROM TUMBLE(gate, event_time, INTERVAL '1 minute') GROUP BY zone, window_start, window_end";
    assert_eq!(
        queries.create_all(parse_statements(before).expect("it can be read")),
        vec![]
    );
    let table = arrow::array::RecordBatch::new_empty(crate::streams::stream_schema("gate").expect("a stream"));
    queries.set_reference("rooms", table);
    let statement = parse_statements(sql).expect("it can be read").remove(0);
    queries
        .create(statement)
        .err()
        .map_or("none".to_owned(), |error| error.to_string())
}

/// The mistake when these stand in the parentheses, each on a line of its own from the third on.
fn within(lines: &[&str]) -> String {
    mistake(&format!(
        "CREATE QUERY q AS\nSELECT * FROM click MATCH_RECOGNIZE (\n{})",
        lines.join("\n")
    ))
}

#[test]
fn what_stands_in_the_parentheses_is_refused_with_its_place() {
    let order = "ORDER BY event_time";
    let measures = "MEASURES A.results AS r";
    let pattern = "PATTERN (A B+)";
    let define = "DEFINE A AS A.results = 0, B AS B.results > 0";
    assert_eq!(within(&[order, measures, pattern, define]), "none");
    for (lines, expected) in [
        (
            ["ORDER BY received_at DESC", measures, pattern, define],
            "3:10: ORDER BY received_at DESC is no order that time goes in, ORDER BY event_time was expected: patterns go \
             forward in event time, and the watermark is of this time",
        ),
        (
            ["ORDER BY results", measures, pattern, define],
            "3:10: 'results' is Int64 and no time, ORDER BY event_time was expected: patterns go forward in event time, \
             and the watermark is of this time",
        ),
        (
            ["ORDER BY event_time, zone", measures, pattern, define],
            "3:22: MATCH_RECOGNIZE is ordered by 2 expressions, ORDER BY event_time was expected: patterns go forward in \
             event time, and the watermark is of this time",
        ),
        (
            ["", measures, pattern, define],
            "2:15: MATCH_RECOGNIZE is ordered by 0 expressions, ORDER BY event_time was expected: patterns go forward in \
             event time, and the watermark is of this time",
        ),
        (
            [order, "MEASURES X.results AS r", pattern, define],
            "4:10: there is no pattern variable 'x', did you mean 'a'?",
        ),
        (
            [order, "MEASURES A.result AS r", pattern, define],
            "4:12: column 'result' not found, did you mean 'results'? There are: event_id, event_time, received_at, \
             site, zone, device, person, session, action, query, results, item, page, count",
        ),
        (
            [order, "MEASURES NEXT(A.results) AS r", pattern, define],
            "4:10: NEXT looks at a row that may not have come yet, define a variable for that row and look back from it \
             with PREV or LAST",
        ),
        (
            [order, "MEASURES SUM(A.results + B.results) AS r", pattern, define],
            "4:26: columns of different variables stand in one argument, each of FIRST, LAST, PREV and the aggregates \
             looks at the rows of one variable",
        ),
        (
            [order, "MEASURES SUM(LAST(A.results)) AS r", pattern, define],
            "4:14: LAST stands inside another that looks at rows, PREV(FIRST(…)) and PREV(LAST(…)) can be; write the \
             others beside each other",
        ),
        (
            [order, "MEASURES SUM(A.action) AS r", pattern, define],
            "4:10: SUM of Utf8 is not there, numbers can be added, and numbers, texts, booleans and times compared: CAST \
             what is none of them",
        ),
        (
            [order, "MEASURES stddev(A.results) AS r", pattern, define],
            "4:10: stddev is no aggregate that MATCH_RECOGNIZE knows, there are COUNT, SUM, AVG, MIN and MAX, each of one \
             variable's rows",
        ),
        (
            [order, "MEASURES COUNT(DISTINCT A.results) AS r", pattern, define],
            "4:10: COUNT(DISTINCT A.results) has more to it than arguments, DISTINCT, FILTER, OVER and ORDER BY are not \
             there inside MATCH_RECOGNIZE",
        ),
        (
            [order, "MEASURES LAST(A.results, 2000) AS r", pattern, define],
            "4:10: LAST(A.results, 2000) can't be read, LAST(A.column) or LAST(A.column, n) with n of at most 1000 was \
             expected",
        ),
        (
            [order, "MEASURES now() AS r", pattern, define],
            "4:10: now() would give another answer in a replay, use event_time or received_at",
        ),
        (
            [order, "", pattern, define],
            "2:15: MATCH_RECOGNIZE has no MEASURES, say what is to be known of a match: MEASURES FIRST(A.event_time) AS \
             began, …",
        ),
        (
            [order, "MEASURES A.results AS r ALL ROWS PER MATCH", pattern, define],
            "2:15: ALL ROWS PER MATCH is not there, ONE ROW PER MATCH is; what its rows were can be told in MEASURES",
        ),
        (
            [
                order,
                "MEASURES A.results AS r AFTER MATCH SKIP TO FIRST B",
                pattern,
                define,
            ],
            "4:51: AFTER MATCH SKIP TO 'B' is not there, AFTER MATCH SKIP PAST LAST ROW and AFTER MATCH SKIP TO NEXT ROW \
             are",
        ),
        (
            [order, measures, "PATTERN (A*)", define],
            "5:10: the pattern can match no rows at all, and would do so everywhere, ask for at least one row, and repeat \
             parts a few times or without an upper limit",
        ),
        (
            [order, measures, "PATTERN (A{1,100000} B)", define],
            "5:10: the pattern stands for more than 1000 rows once its repetitions are written out, ask for at least one \
             row, and repeat parts a few times or without an upper limit",
        ),
        (
            [order, measures, "PATTERN (A+? B)", define],
            "5:10: A+? has two quantifiers; quantifiers that take little are not there, write one, or put parentheses \
             around what is repeated again",
        ),
        (
            [order, measures, "PATTERN (^ A B)", define],
            "5:12: ^ stands in PATTERN, and a stream has no beginning and no end to stand for, leave it out",
        ),
        (
            [order, measures, "PATTERN (A B $)", define],
            "5:10: $ stands in PATTERN, and a stream has no beginning and no end to stand for, leave it out",
        ),
        (
            [order, measures, "PATTERN ({- A -} B)", define],
            "5:13: {- A -} leaves rows out of ALL ROWS PER MATCH, which is not there, A by itself matches the same rows",
        ),
        (
            [order, measures, "PATTERN (PERMUTE(A, B))", define],
            "5:18: PERMUTE is not there, write the orders as alternatives: (A B | B A)",
        ),
        (
            [order, measures, pattern, "DEFINE A AS A.results = 0, C AS true"],
            "6:28: DEFINE says what 'c' is, and PATTERN has none, did you mean 'a'?",
        ),
        (
            [order, measures, pattern, "DEFINE A AS true, a AS true"],
            "6:19: DEFINE says twice what 'a' is, put AND between the conditions",
        ),
        (
            [order, measures, pattern, "DEFINE A AS A.results + 1"],
            "6:13: 'A.results + 1' is Int64 and no condition, DEFINE A AS A.results = 0 is one",
        ),
        (
            [order, measures, pattern, "DEFINE A AS MATCH_NUMBER() = 1"],
            "6:13: MATCH_NUMBER() in DEFINE: which number a match gets is known when it is found, name it in MEASURES",
        ),
        (
            [order, measures, "PATTERN (A B) WITHIN 10", define],
            "5:15: WITHIN is followed by no length of time, WITHIN INTERVAL '10 minutes' or WITHIN INTERVAL '10 minutes' \
             SHOW TIMED OUT was expected",
        ),
        (
            [order, measures, "PATTERN (A B) WITHIN INTERVAL '1 month'", define],
            "5:31: WITHIN INTERVAL '1 month' has no fixed length, a month has none; say it in days or hours",
        ),
        (
            [order, measures, "PATTERN (A B) WITHIN INTERVAL '0 seconds'", define],
            "5:31: WITHIN INTERVAL '0 seconds' can't be, a length such as INTERVAL '10 minutes', of at most a hundred \
             years, was expected",
        ),
        (
            [order, measures, "PATTERN (A B) SHOW TIMED OUT", define],
            "5:15: SHOW TIMED OUT stands without WITHIN, WITHIN INTERVAL '10 minutes' or WITHIN INTERVAL '10 minutes' SHOW \
             TIMED OUT was expected",
        ),
        (
            [
                order,
                measures,
                "PATTERN (A B) WITHIN INTERVAL '1' MINUTE SHOW ALL",
                define,
            ],
            "5:42: SHOW is followed by something else than TIMED OUT, WITHIN INTERVAL '10 minutes' or WITHIN INTERVAL '10 \
             minutes' SHOW TIMED OUT was expected",
        ),
    ] {
        assert_eq!(within(&lines), expected);
    }
}

#[test]
fn a_pattern_that_would_be_too_deep_to_read_is_refused_before_it_is_read() {
    let of = |pattern: &str| {
        let pattern = format!("PATTERN ({pattern})");
        within(&[
            "ORDER BY event_time",
            "MEASURES COUNT(*) AS n",
            &pattern,
            "DEFINE A AS true",
        ])
    };
    assert_eq!(of(&format!("{}A{}", "(".repeat(31), ")".repeat(31))), "none");
    let refused = "5:1: the pattern is nested or long beyond reading, at most 32 parentheses within each other, 100 \
                   alternatives and 2000 words are read";
    assert_eq!(of(&format!("{}A{}", "(".repeat(32), ")".repeat(32))), refused);
    assert_eq!(of(&format!("{}A", "A | ".repeat(101))), refused);
    assert_eq!(of(&"A ".repeat(2_000)), refused);
}

/// A pattern in `from`, and `behind` the parentheses.
fn reading(from: &str, order: &str, behind: &str) -> String {
    mistake(&format!(
        "CREATE QUERY q AS {from} MATCH_RECOGNIZE (ORDER BY {order} MEASURES COUNT(*) AS n PATTERN (A B) DEFINE A AS true) \
         {behind}"
    ))
}

#[test]
fn what_a_pattern_cannot_read_or_be_read_by_is_refused() {
    assert_eq!(reading("SELECT * FROM closed", "window_end", ""), "none");
    assert_eq!(reading("SELECT * FROM click AS c", "event_time", "AS m"), "none");
    assert_eq!(
        reading(
            "SELECT n, r.zone FROM click",
            "event_time",
            "AS m JOIN rooms r ON r.entered = m.n"
        ),
        "none"
    );
    for ((from, order, behind), expected) in [
        (
            ("SELECT * FROM running", "newest", ""),
            "1:33: 'running' says rows again when they change, and a pattern would take each for a new one, read its rows WHERE final, create it WITH (emit = 'close') and without lateness, or look for the pattern in the stream itself",
        ),
        (
            ("SELECT * FROM rooms", "event_time", ""),
            "1:33: 'rooms' is a reference table and never speaks by itself, join it with a stream or a query",
        ),
        (
            ("SELECT * FROM nowhere", "event_time", ""),
            "1:33: there is no stream, query or table 'nowhere', there are: click, closed, consent, engagement, gate, identify, late, message, reply, rfid, \
             rooms, running, seat, visit",
        ),
        (
            (
                "SELECT * FROM (SELECT * FROM click WHERE results = 0)",
                "event_time",
                "",
            ),
            "1:73: MATCH_RECOGNIZE stands behind a subquery, give it a name before: WITH rows AS (SELECT …) SELECT … FROM \
             rows MATCH_RECOGNIZE (…)",
        ),
        (
            (
                "SELECT * FROM TUMBLE(click, event_time, INTERVAL '1 hour')",
                "event_time",
                "",
            ),
            "1:78: MATCH_RECOGNIZE reads windows, groups, joined streams, absences or other matches made in the same \
             statement, make those a query of their own, and read it by its name",
        ),
        (
            ("SELECT n, count(*) FROM click", "event_time", "GROUP BY n"),
            "1:141: GROUP BY and MATCH_RECOGNIZE stand in one statement, make the matches a query of their own, CREATE \
             QUERY … AS SELECT … MATCH_RECOGNIZE (…), and group its rows",
        ),
        (
            (
                "SELECT n FROM click",
                "event_time",
                "UNION ALL SELECT count(*) FROM gate GROUP BY zone",
            ),
            "1:167: GROUP BY and MATCH_RECOGNIZE stand in one statement, make the matches a query of their own, CREATE \
             QUERY … AS SELECT … MATCH_RECOGNIZE (…), and group its rows",
        ),
    ] {
        assert_eq!(reading(from, order, behind), expected);
    }
    assert_eq!(
        mistake(
            "CREATE QUERY q WITH (emit = 'update') AS SELECT * FROM click MATCH_RECOGNIZE (ORDER BY event_time \
             MEASURES COUNT(*) AS n PATTERN (A B) DEFINE A AS true)"
        ),
        "1:22: a match is said once, when no further row can change it, and emit asks for more, leave emit out"
    );
    assert_eq!(
        mistake(
            "CREATE QUERY q AS SELECT * FROM click MATCH_RECOGNIZE (PARTITION BY zone ORDER BY event_time \
             MEASURES LAST(zone) AS zone PATTERN (A B) DEFINE A AS true)"
        ),
        "1:117: there is a column 'zone' already, the columns of PARTITION BY come first in the output, then MEASURES, \
         then timed_out where it is asked for"
    );
}
