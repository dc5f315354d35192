//! Joins with reference tables as they were: rows find the version of their time, however they are fed.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::bounded::{self, Recorded};
use crate::flow::Flow;
use crate::query::Output;
use crate::query_set::{QuerySet, Restored};
use crate::row::Rows;
use crate::rows::{batch_from_ndjson, batch_to_json};
use crate::snapshot::QuerySnapshot;
use crate::statement::parse_statement;
use crate::streams::time_type;

const SECOND: i64 = 1_000_000;

fn stream() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("at", time_type(), true),
        Field::new("zone", DataType::Utf8, true),
    ]))
}

/// Rows of zones and what they hold; `from` and `to` are for the bounded run alone.
fn zones(rows: &[(&str, i64)]) -> RecordBatch {
    let fields = vec![
        Field::new("zone", DataType::Utf8, false),
        Field::new("capacity", DataType::Int64, true),
    ];
    let lines: Vec<String> = rows
        .iter()
        .map(|(zone, capacity)| format!(r#"{{"zone":"{zone}","capacity":{capacity}}}"#))
        .collect();
    batch_from_ndjson(&Arc::new(Schema::new(fields)), &lines.join("\n")).expect("well formed")
}

/// (second, the second its watermark stood at, zone)
type Passage = (Option<i64>, i64, Option<&'static str>);

fn rows_of(passages: &[(usize, Passage)]) -> Rows {
    let line = |(number, (at, _, zone)): &(usize, Passage)| {
        let at = at.map(|second| format!("1970-01-01T00:{:02}:{:02}Z", second / 60, second % 60));
        serde_json::json!({"id": format!("r{number}"), "at": at, "zone": zone}).to_string()
    };
    let lines: Vec<String> = passages.iter().map(line).collect();
    let mut flow = Flow::at_watermark(
        batch_from_ndjson(&stream(), &lines.join("\n")).expect("well formed"),
        i64::MIN,
    );
    let met = passages.iter().map(|(_, (_, met, _))| met * SECOND);
    flow.watermarks = Arc::new(met.collect::<Int64Array>());
    flow.causes = Arc::new(StringArray::from_iter_values(
        passages.iter().map(|(number, _)| format!("r{number}")),
    ));
    Rows::Many(flow)
}

const PASSAGES: [Passage; 11] = [
    (Some(5), 0, Some("hall")),
    (Some(12), 5, Some("hall")),
    (Some(8), 10, Some("hall")),
    (None, 12, Some("hall")),
    (Some(20), 12, None),
    (Some(21), 15, Some("cafe")),
    (Some(30), 19, Some("cafe")),
    (Some(9), 20, Some("hall")),
    (Some(19), 28, Some("hall")),
    (Some(31), 35, Some("cafe")),
    (Some(8), 40, Some("cafe")),
];

/// What the table holds, and from which second on; it is said before the passage of that number comes.
fn versions() -> Vec<(usize, i64, RecordBatch)> {
    vec![
        (0, i64::MIN, zones(&[("hall", 1), ("hall", 2)])),
        (1, 10, zones(&[("hall", 10), ("cafe", 11)])),
        (5, 20, zones(&[("cafe", 20)])),
        (6, 30, zones(&[("hall", 30), ("cafe", 31)])),
    ]
}

fn query(join: &str, more: &str) -> String {
    format!(
        "CREATE QUERY joined WITH (lateness = '10 seconds') AS SELECT p.id, p.zone, z.capacity FROM passages p
         {join} zones FOR SYSTEM_TIME AS OF p.at z ON p.zone = z.zone {more}"
    )
}

fn fresh(sql: &str, first: &RecordBatch) -> QuerySet {
    let mut queries = QuerySet::new();
    queries.set_stream("passages", stream());
    queries.set_reference("zones", first.clone());
    let late = "CREATE QUERY too_late AS SELECT query, event_id, reason FROM late";
    for statement in [sql, late] {
        let statement = parse_statement(statement).expect("it is right");
        queries.create(statement).expect("it can run");
    }
    queries
}

fn restarted(mut queries: QuerySet, sql: &str, table: &RecordBatch) -> QuerySet {
    let snapshots: Vec<QuerySnapshot> = queries
        .snapshot()
        .expect("it can be written")
        .iter()
        .map(|snapshot| QuerySnapshot::from_bytes(&snapshot.to_bytes().expect("written")).expect("read"))
        .collect();
    let mut again = fresh(sql, table);
    let outcomes = again.restore(queries.watermark(), &snapshots);
    assert!(
        outcomes.iter().all(|(_, outcome)| *outcome == Restored::Kept),
        "{outcomes:?}"
    );
    again
}

fn said(outputs: &[Output], name: &str) -> Vec<String> {
    let of_query = outputs.iter().filter(|output| output.query.as_ref() == name);
    of_query
        .flat_map(|output| batch_to_json(&output.rows.flow().batch))
        .map(|row| serde_json::Value::Object(row).to_string())
        .collect()
}

/// What is said of all passages, fed so many at a time, by versions set in time.
fn feed(sql: &str, size: usize, restarting: bool) -> (Vec<String>, Vec<String>) {
    let mut waiting = versions().into_iter();
    let (_, _, mut table) = waiting.next().expect("there is one");
    let mut queries = fresh(sql, &table);
    let mut outputs = Vec::new();
    let mut waiting = waiting.peekable();
    let numbered: Vec<(usize, Passage)> = PASSAGES.into_iter().enumerate().collect();
    let mut fed = 0;
    while fed < numbered.len() {
        while let Some((_, from, rows)) = waiting.next_if(|(before, ..)| *before <= fed) {
            queries.set_reference_from("zones", rows.clone(), from * SECOND);
            table = rows;
        }
        let until = waiting.peek().map_or(numbered.len(), |(before, ..)| *before);
        let until = until.min(fed + size);
        let met = numbered[fed].1.1 * SECOND;
        queries.advance(met, &mut outputs);
        queries.push("passages", &rows_of(&numbered[fed..until]), &mut outputs);
        fed = until;
        if restarting {
            queries = restarted(queries, sql, &table);
        }
    }
    queries.advance(i64::MAX / 4, &mut outputs);
    assert_eq!(queries.references().versions("zones").len(), 1, "only the last is kept");
    (said(&outputs, "joined"), said(&outputs, "too_late"))
}

/// The same over recorded rows, with each version's times written out.
fn bounded_rows(sql: &str, late: &BTreeSet<usize>) -> Vec<String> {
    let numbered: Vec<(usize, Passage)> = PASSAGES.into_iter().enumerate().collect();
    let numbered: Vec<(usize, Passage)> = numbered
        .into_iter()
        .filter(|(number, _)| !late.contains(number))
        .collect();
    let all = versions();
    let ends = all.iter().skip(1).map(|(_, from, _)| *from).chain([1_000]);
    let mut lines = Vec::new();
    for ((_, from, rows), to) in all.iter().zip(ends) {
        for mut row in batch_to_json(rows) {
            row.insert("valid_from".into(), (*from).max(0).into());
            row.insert("valid_to".into(), to.into());
            lines.push(serde_json::Value::Object(row).to_string());
        }
    }
    let mut fields = zones(&[]).schema().fields().to_vec();
    for name in ["valid_from", "valid_to"] {
        fields.push(Arc::new(Field::new(name, DataType::Int64, false)));
    }
    let table = batch_from_ndjson(&Arc::new(Schema::new(fields)), &lines.join("\n")).expect("well formed");
    let recorded = Recorded::from([
        (
            "passages".to_owned(),
            (stream(), vec![rows_of(&numbered).into_flow().batch]),
        ),
        ("zones".to_owned(), (table.schema(), vec![table])),
    ]);
    let sql = sql.replace(" FOR SYSTEM_TIME AS OF p.at", "").replace(
        "ON p.zone",
        "ON to_timestamp_micros(z.valid_from * 1000000) <= p.at
         AND p.at < to_timestamp_micros(z.valid_to * 1000000) AND p.zone",
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("it starts");
    let (_, batches) = runtime
        .block_on(bounded::run(&sql, &recorded))
        .unwrap_or_else(|error| panic!("{error}"));
    let rows = batches.iter().flat_map(batch_to_json);
    rows.map(|row| serde_json::Value::Object(row).to_string()).collect()
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

#[test]
fn each_row_finds_the_version_of_its_time_however_it_is_fed() {
    for sql in [
        query("JOIN", ""),
        query("LEFT JOIN", ""),
        query("LEFT JOIN", "AND z.capacity < 20"),
        query("JOIN", "WHERE z.capacity > 1"),
    ] {
        let (rows, late) = feed(&sql, 1, false);
        // The version before 10 was over when the watermark had passed it by as long as the query waits.
        assert_eq!(
            late,
            [7, 10].map(|number| format!(
                r#"{{"query":"joined","event_id":"r{number}","reason":"the table as it was at its time is no longer kept"}}"#
            )),
            "{sql}"
        );
        assert_eq!(
            sorted(rows.clone()),
            sorted(bounded_rows(&sql, &BTreeSet::from([7, 10]))),
            "{sql}"
        );
        for (size, restarting) in [(2, false), (20, false), (1, true), (3, true)] {
            assert_eq!(
                feed(&sql, size, restarting),
                (rows.clone(), late.clone()),
                "{size} {sql}"
            );
        }
    }
}

#[test]
fn a_row_without_a_time_is_joined_with_nothing() {
    let (rows, _) = feed(&query("JOIN", ""), 4, false);
    assert!(!rows.iter().any(|row| row.contains("\"r3\"")), "{rows:?}");
    let (rows, _) = feed(&query("LEFT JOIN", ""), 4, false);
    assert!(
        rows.contains(&r#"{"id":"r3","zone":"hall","capacity":null}"#.to_owned()),
        "{rows:?}"
    );
    // A bounded run over one version says the same of it.
    let recorded = Recorded::from([
        (
            "passages".to_owned(),
            (
                stream(),
                vec![rows_of(&[(0, PASSAGES[0]), (3, PASSAGES[3])]).into_flow().batch],
            ),
        ),
        ("zones".to_owned(), (zones(&[]).schema(), vec![zones(&[("hall", 7)])])),
    ]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("it starts");
    for (join, expected) in [("JOIN", vec![Some(7)]), ("LEFT JOIN", vec![Some(7), None])] {
        let (_, batches) = runtime
            .block_on(bounded::run(&query(join, ""), &recorded))
            .unwrap_or_else(|error| panic!("{error}"));
        let capacities = batches.iter().flat_map(|batch| {
            let column = batch.column(2).as_primitive::<arrow::datatypes::Int64Type>();
            column.iter().collect::<Vec<_>>()
        });
        assert_eq!(capacities.collect::<Vec<_>>(), expected, "{join}");
    }
}

#[test]
fn a_table_that_changed_over_a_restart_holds_what_it_holds_from_then_on() {
    let sql = query("LEFT JOIN", "");
    let mut queries = fresh(&sql, &zones(&[("hall", 1)]));
    let mut outputs = Vec::new();
    queries.push("passages", &rows_of(&[(0, (Some(5), 0, Some("hall")))]), &mut outputs);
    queries.advance(10 * SECOND, &mut outputs);
    let mut queries = restarted(queries, &sql, &zones(&[("hall", 2)]));
    let late = [(1, (Some(9), 10, Some("hall"))), (2, (Some(11), 10, Some("hall")))];
    queries.push("passages", &rows_of(&late), &mut outputs);
    assert_eq!(
        said(&outputs, "joined"),
        [(0, 1), (1, 1), (2, 2)]
            .map(|(id, capacity)| format!(r#"{{"id":"r{id}","zone":"hall","capacity":{capacity}}}"#))
    );

    let others = RecordBatch::try_from_iter([("zone", Arc::new(StringArray::from(vec!["hall"])) as _)]);
    let snapshots = queries.snapshot().expect("it can be written");
    let mut again = QuerySet::new();
    again.set_reference("zones", others.expect("well formed"));
    let outcomes = again.restore(queries.watermark(), &snapshots);
    let (_, outcome) = &outcomes[0];
    assert!(
        matches!(outcome, Restored::Unreadable(reason)
            if reason.ends_with("zones has other columns than before the restart; rows of then are joined with what it holds now")),
        "{outcome:?}"
    );
}

#[test]
fn two_tables_are_joined_each_as_it_was() {
    let mut queries = QuerySet::new();
    queries.set_stream("passages", stream());
    for name in ["zones", "limits"] {
        queries.set_reference(name, zones(&[("hall", 1)]));
    }
    queries.set_reference_from("zones", zones(&[("hall", 2)]), 10 * SECOND);
    queries.set_reference_from("limits", zones(&[("hall", 3)]), 20 * SECOND);
    let sql =
        "CREATE QUERY joined AS SELECT p.id, z.capacity, l.capacity AS most, now.capacity AS now FROM passages AS p
        JOIN zones FOR SYSTEM_TIME AS OF p.at AS z ON p.zone = z.zone
        JOIN limits AS l FOR SYSTEM_TIME AS OF p.at + INTERVAL '1 second' ON p.zone = l.zone
        JOIN limits now ON now.zone = l.zone
        WHERE z.capacity <= l.capacity + 1 AND now.capacity > 0";
    queries
        .create(parse_statement(sql).expect("it is right"))
        .unwrap_or_else(|error| panic!("{error}"));
    let passages = [5, 10, 18, 19, 30].map(|second| (second, (Some(second as i64), 0, Some("hall"))));
    for size in [1, 5] {
        let mut outputs = Vec::new();
        for passages in passages.chunks(size) {
            queries.push("passages", &rows_of(passages), &mut outputs);
        }
        assert_eq!(
            said(&outputs, "joined"),
            [(5, 1, 1), (10, 2, 1), (18, 2, 1), (19, 2, 3), (30, 2, 3)]
                .map(|(id, capacity, most)| format!(r#"{{"id":"r{id}","capacity":{capacity},"most":{most},"now":3}}"#))
        );
    }
}

#[test]
fn what_is_no_version_of_a_table_is_refused_at_its_place() {
    let refused = |from: &str| {
        let mut queries = QuerySet::new();
        queries.set_stream("passages", stream());
        queries.set_reference("zones", zones(&[]));
        let sql = format!("CREATE QUERY q AS\nSELECT p.id FROM {from}");
        let error = parse_statement(&sql).and_then(|statement| queries.create(statement));
        error.expect_err("it is no version").to_string()
    };
    let form = "FROM gate g JOIN zones FOR SYSTEM_TIME AS OF g.event_time z ON … was expected";
    for (from, expected) in [
        (
            "passages p JOIN zones FOR SYSTEM_TIME BETWEEN 1 AND 2 z ON p.zone = z.zone",
            format!("2:40: FOR SYSTEM_TIME is followed by something else than AS OF, {form}"),
        ),
        (
            "passages p JOIN zones FOR SYSTEM_TIME AS OF ON p.zone = z.zone",
            format!("2:40: FOR SYSTEM_TIME AS OF is followed by no time, {form}"),
        ),
        (
            "zones FOR SYSTEM_TIME AS OF p.at z JOIN passages p ON p.zone = z.zone",
            format!(
                "2:24: FOR SYSTEM_TIME AS OF belongs to a reference table that a stream is joined with, {form}"
            ),
        ),
        (
            "passages p JOIN zones FOR SYSTEM_TIME AS OF p.at z USING (zone)",
            "2:40: FOR SYSTEM_TIME AS OF stands in a join without ON, write what is equal into ON: JOIN zones FOR \
             SYSTEM_TIME AS OF g.event_time z ON g.zone = z.zone"
                .to_owned(),
        ),
        (
            "passages p JOIN zonse FOR SYSTEM_TIME AS OF p.at z ON p.zone = z.zone",
            "2:34: there is no stream, query or table 'zonse', did you mean 'zones'?".to_owned(),
        ),
        (
            "passages p JOIN zones FOR SYSTEM_TIME AS OF p.zone z ON p.zone = z.zone",
            "2:62: FOR SYSTEM_TIME AS OF p.zone is Utf8 and no time, a TIMESTAMP of the stream such as event_time was \
             expected"
                .to_owned(),
        ),
        (
            "passages p JOIN zones FOR SYSTEM_TIME AS OF z.capacity z ON p.zone = z.zone",
            "2:62: FOR SYSTEM_TIME AS OF z.capacity is no time of the stream's rows, each row is joined with the table as \
             it was at a time of its own: FOR SYSTEM_TIME AS OF g.event_time"
                .to_owned(),
        ),
        (
            "passages p JOIN gate FOR SYSTEM_TIME AS OF p.at g ON p.zone = g.zone AND g.event_time = p.at",
            "2:61: FOR SYSTEM_TIME AS OF asks for a version of 'g', which is no reference table, two streams are joined \
             within a bound on their times, and need none"
                .to_owned(),
        ),
        (
            "passages p JOIN zones FOR SYSTEM_TIME AS OF p.when z ON p.zone = z.zone",
            "2:62: column 'when' not found in 'p'".to_owned(),
        ),
    ] {
        let error = refused(from);
        assert!(error.starts_with(&expected), "{error}\n{expected}");
    }
}

#[test]
fn a_version_counts_from_its_time_on_and_is_kept_once() {
    let mut queries = QuerySet::new();
    let froms = |queries: &QuerySet| -> Vec<i64> {
        let versions = queries.references().versions("zones");
        versions.iter().map(|version| version.from_us).collect()
    };
    queries.set_reference_from("zones", zones(&[("a", 1)]), 5);
    assert_eq!(froms(&queries), [i64::MIN], "the first counts for all before it");
    queries.set_reference_from("zones", zones(&[("a", 1)]), 10);
    assert_eq!(froms(&queries), [i64::MIN], "it holds the same");
    queries.set_reference_from("zones", zones(&[("a", 2)]), 20);
    queries.set_reference_from("zones", zones(&[("a", 3)]), 15);
    queries.set_reference_from("zones", zones(&[("a", 4)]), 20);
    assert_eq!(froms(&queries), [i64::MIN, 15, 20]);
    let now = queries.references().get("zones").expect("it is there");
    assert_eq!(now.rows, zones(&[("a", 4)]));
    queries.advance(15, &mut Vec::new());
    assert_eq!(froms(&queries), [15, 20], "nobody asks for what was before");
    queries.set_reference("zones", zones(&[("a", 5)]));
    assert_eq!(froms(&queries), [i64::MIN]);
}

/// Minus nothing is nothing, in a bounded join and in every other.
#[test]
fn minus_nothing_finds_nothing() {
    let numbers = |name: &str, numbers: &[f64]| {
        let schema = Arc::new(Schema::new(vec![
            Field::new("at", time_type(), false),
            Field::new(name, DataType::Float64, true),
            Field::new("small", DataType::Float32, true),
        ]));
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![0; numbers.len()])),
            Arc::new(arrow::array::Float64Array::from(numbers.to_vec())),
            Arc::new(
                numbers
                    .iter()
                    .map(|number| Some(*number as f32))
                    .collect::<arrow::array::Float32Array>(),
            ),
        ];
        RecordBatch::try_new(schema, columns).expect("well formed")
    };
    let (left, right) = (
        numbers("x", &[0.0, -0.0, 1.0, f64::NAN]),
        numbers("y", &[0.0, -0.0, f64::NAN]),
    );
    let recorded = Recorded::from([
        ("a".to_owned(), (left.schema(), vec![left.clone()])),
        ("b".to_owned(), (right.schema(), vec![right.clone()])),
    ]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("it starts");
    for key in ["a.x = b.y", "a.small = b.small", "a.x = b.y AND a.small = b.small"] {
        let bound = "AND a.at BETWEEN b.at - INTERVAL '1 second' AND b.at + INTERVAL '1 second'";
        let select = format!("CREATE QUERY joined AS SELECT a.x, b.y FROM a JOIN b ON {key} {bound}");
        let (_, batches) = runtime
            .block_on(bounded::run(&select, &recorded))
            .unwrap_or_else(|error| panic!("{error}"));
        let bounded = batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        for is_table in [true, false] {
            let mut queries = QuerySet::new();
            queries.set_stream("a", left.schema());
            if is_table {
                queries.set_reference("b", right.clone());
            } else {
                queries.set_stream("b", right.schema());
            }
            queries
                .create(parse_statement(&select).expect("it is right"))
                .unwrap_or_else(|error| panic!("{error}"));
            for singly in [true, false] {
                let mut outputs = Vec::new();
                for (stream, rows) in [("b", &right), ("a", &left)] {
                    let size = if singly { 1 } else { rows.num_rows() };
                    for first in (0..rows.num_rows()).step_by(size) {
                        let flow = Flow::at_watermark(rows.slice(first, size), i64::MIN);
                        queries.push(stream, &Rows::Many(flow), &mut outputs);
                    }
                }
                queries.advance(3_600 * SECOND, &mut outputs);
                assert_eq!(
                    said(&outputs, "joined").len(),
                    bounded,
                    "{key} table {is_table} singly {singly}"
                );
            }
        }
    }
}
