//! Golden cases: each shipped query has a folder with input and expected output, and gives the same final rows
//! however its input is cut into batches, as it goes on after a restart, and as a bounded run finds them.

mod kept;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, TimestampMicrosecondType};
use serde_json::{Map, Value};

use crate::bounded;
use crate::budget::Budget;
use crate::catalog::{Entry, Relation};
use crate::flow::Flow;
use crate::query::Output;
use crate::query_set::{QuerySet, Restored};
use crate::row::Rows;
use crate::rows::{batch_from_ndjson, row_to_json};
use crate::shipped::SHIPPED;
use crate::snapshot::QuerySnapshot;
use crate::statement::{Statement, parse_statements};
use crate::streams::{DERIVED_STREAMS, STREAMS, stream_schema};
use crate::watermark::{WatermarkOptions, Watermarks};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn statements() -> Vec<Statement> {
    SHIPPED
        .iter()
        .flat_map(|file| parse_statements(file.text).unwrap_or_else(|error| panic!("{}:{error}", file.name)))
        .collect()
}

/// The reference tables of all cases: `tables/{name}.ndjson`.
fn tables() -> Vec<(&'static str, RecordBatch)> {
    let text = |name: &str, data_type: DataType, nullable: bool| Field::new(name, data_type, nullable);
    let schemas = [
        (
            "zones",
            vec![
                text("site", DataType::Utf8, false),
                text("zone", DataType::Utf8, false),
                text("name", DataType::Utf8, false),
                text("name_zh", DataType::Utf8, false),
                text("capacity", DataType::Float64, true),
                text("parent", DataType::Utf8, true),
                text("seats", DataType::Int64, false),
            ],
        ),
        (
            "seats",
            vec![
                text("site", DataType::Utf8, false),
                text("zone", DataType::Utf8, false),
                text("seat", DataType::Utf8, false),
            ],
        ),
        (
            "memberships",
            vec![
                text("person", DataType::Utf8, false),
                text("group_id", DataType::Utf8, false),
            ],
        ),
        (
            "devices",
            vec![
                text("site", DataType::Utf8, false),
                text("zone", DataType::Utf8, false),
                text("device", DataType::Utf8, false),
                text("kind", DataType::Utf8, false),
                text("role", DataType::Utf8, true),
            ],
        ),
    ];
    schemas
        .into_iter()
        .map(|(name, fields)| {
            let path = folder().join("tables").join(format!("{name}.ndjson"));
            let rows = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (
                name,
                batch_from_ndjson(&Arc::new(Schema::new(fields)), &rows).expect("the tables are well formed"),
            )
        })
        .collect()
}

/// All that is shipped.
fn query_set() -> QuerySet {
    query_set_of(&statements())
}

fn query_set_of(statements: &[Statement]) -> QuerySet {
    let mut queries = QuerySet::new();
    for (name, rows) in tables() {
        queries.set_reference(name, rows);
    }
    let mistakes = queries.create_all(statements.to_vec());
    let words: Vec<String> = mistakes
        .iter()
        .map(|(index, error)| format!("{}: {error}", statements[*index].name))
        .collect();
    assert!(words.is_empty(), "shipped queries have mistakes: {words:#?}");
    queries
}

/// A pattern that is no regular expression needs none, and a row by itself no batch (`computed`), whatever the case of letters.
#[test]
fn the_words_of_a_search_are_looked_for_by_ilike() {
    for name in ["offer_quiet_seat", "offer_left_seat", "measure_asked_while_taken"] {
        let queries = query_set_of(&with_sources(name));
        let plan = queries.get(name).expect("it is shipped").plan_text();
        assert!(
            plan.contains("ILIKE Utf8(\"%seat%\")") && !plan.contains("regexp"),
            "{plan}"
        );
    }
}

/// One query and all that it reads, directly or through others: to plan all that is shipped after each row takes minutes.
fn with_sources(name: &str) -> Vec<Statement> {
    static SOURCES: OnceLock<BTreeMap<String, Vec<String>>> = OnceLock::new();
    let sources = SOURCES.get_or_init(|| {
        let queries = query_set();
        let queries = queries.queries().iter();
        let sources = queries.map(|query| (query.name().to_string(), query.sources().map(str::to_owned).collect()));
        sources.collect()
    });
    let mut wanted = BTreeSet::from([name]);
    let mut left = vec![name];
    while let Some(name) = left.pop() {
        let of_one = sources.get(name).into_iter().flatten().map(String::as_str);
        left.extend(of_one.filter(|source| wanted.insert(source)));
    }
    let mut all = statements();
    all.retain(|statement| wanted.contains(statement.name.as_str()));
    all
}

/// One input line: its stream and its row.
struct Line {
    stream: &'static str,
    row: RecordBatch,
}

fn read_input(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            let object: Map<String, Value> = serde_json::from_str(line).expect("an input line is a JSON object");
            line_of(index, object)
        })
        .collect()
}

/// The line `index` of an input.
fn line_of(index: usize, mut object: Map<String, Value>) -> Line {
    let stream = object.remove("stream").expect("an input line names its stream");
    let stream = STREAMS
        .into_iter()
        .find(|name| stream == **name)
        .expect("the stream is built in");
    object
        .entry("event_id")
        .or_insert_with(|| Value::from(format!("e{}", index + 1)));
    let time = object["event_time"].clone();
    object.entry("received_at").or_insert(time);
    let schema = stream_schema(stream).expect("the stream is built in");
    fill_derived(stream, &schema, &mut object);
    let text = serde_json::to_string(&object).expect("it came from JSON");
    let row = batch_from_ndjson(&schema, &text).unwrap_or_else(|error| panic!("line {}: {error}", index + 1));
    Line { stream, row }
}

/// A row of a derived stream has many columns of which a case is about a few: the others are 0, false or "-".
fn fill_derived(stream: &str, schema: &Schema, object: &mut Map<String, Value>) {
    if !DERIVED_STREAMS.contains(&stream) {
        return;
    }
    for field in schema.fields().iter().filter(|field| !field.is_nullable()) {
        object
            .entry(field.name().as_str())
            .or_insert_with(|| match field.data_type() {
                DataType::Utf8 => Value::from("-"),
                DataType::Boolean => Value::from(false),
                DataType::Timestamp(..) => Value::from("1970-01-01T00:00:00Z"),
                _ => Value::from(0),
            });
    }
}

fn column_us(row: &RecordBatch, name: &str) -> i64 {
    row.column_by_name(name)
        .expect("each stream has it")
        .as_primitive::<TimestampMicrosecondType>()
        .value(0)
}

/// When a row came: one of a derived stream comes as its time is passed.
fn received_column(stream: &str) -> &'static str {
    if DERIVED_STREAMS.contains(&stream) {
        "event_time"
    } else {
        "received_at"
    }
}

/// How the input is fed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Feeding {
    Whole,
    RowByRow,
    Batches(usize),
    /// Row by row; after each row all state goes through bytes into a new engine.
    Restarting,
    /// In batches of so many; time moves on a row at a time, as many rows, before the next batch and a new engine.
    InParts(usize),
}

/// Feeds the lines and lets the last windows close; gives what each query said, in order.
fn feed(lines: &[Line], feeding: Feeding, statements: &[Statement]) -> Vec<Output> {
    let mut queries = query_set_of(statements);
    let mut watermarks = Watermarks::new(WatermarkOptions {
        delay_us: 2_000_000,
        idle_us: 3_600_000_000,
    });
    let mut out = Vec::new();
    let size = match feeding {
        Feeding::Whole => lines.len().max(1),
        Feeding::RowByRow | Feeding::Restarting => 1,
        Feeding::Batches(size) | Feeding::InParts(size) => size,
    };
    for batch in lines.chunks(size) {
        let judged: Vec<i64> = batch
            .iter()
            .map(|line| {
                watermarks.observe(
                    1,
                    column_us(&line.row, "event_time"),
                    column_us(&line.row, received_column(line.stream)),
                )
            })
            .collect();
        for stream in STREAMS {
            let of_stream: Vec<usize> = (0..batch.len())
                .filter(|index| batch[*index].stream == stream)
                .collect();
            if of_stream.is_empty() {
                continue;
            }
            let schema = stream_schema(stream).expect("the stream is built in");
            let rows = arrow::compute::concat_batches(&schema, of_stream.iter().map(|index| &batch[*index].row))
                .expect("rows of one stream have one schema");
            let causes: StringArray = rows.column(0).as_string::<i32>().clone();
            let flow = Flow {
                batch: rows,
                watermarks: Arc::new(of_stream.iter().map(|index| judged[*index]).collect::<Int64Array>()),
                causes: Arc::new(causes),
            };
            queries.push(stream, &Rows::Many(flow), &mut out);
        }
        match feeding {
            Feeding::InParts(rows) => {
                queries.advance_within(watermarks.current(), Budget::one_part(1), &mut out);
                for _ in 1..rows {
                    queries.work(Budget::one_part(1), &mut out);
                }
            }
            _ => queries.advance(watermarks.current(), &mut out),
        }
        if matches!(feeding, Feeding::Restarting | Feeding::InParts(_)) {
            let snapshots: Vec<QuerySnapshot> = queries
                .snapshot()
                .expect("state can be written")
                .iter()
                .map(|snapshot| {
                    QuerySnapshot::from_bytes(&snapshot.to_bytes().expect("it can be written")).expect("it can be read")
                })
                .collect();
            let watermark = queries.watermark();
            queries = query_set_of(statements);
            let outcome = queries.restore(watermark, &snapshots);
            assert!(
                outcome.iter().all(|(_, outcome)| *outcome == Restored::Kept),
                "{outcome:?}"
            );
        }
    }
    queries.advance(i64::MAX / 4, &mut out);
    for query in queries.queries() {
        assert_eq!(query.broken(), None, "{} has stopped", query.name());
    }
    out
}

/// The final rows of one query: the last row for each key, or every row where rows stand for themselves.
fn final_rows(outputs: &[Output], name: &str) -> Vec<String> {
    let queries = query_set_of(&with_sources(name));
    let keys: Option<Vec<usize>> = queries
        .get(name)
        .expect("the query is shipped")
        .keys()
        .map(<[usize]>::to_vec);
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    for output in outputs.iter().filter(|output| output.query.as_ref() == name) {
        let flow = output.rows.flow();
        for row in 0..flow.num_rows() {
            let object = row_to_json(&flow.batch, row);
            let key = match &keys {
                Some(keys) => keys.iter().fold(String::new(), |mut text, key| {
                    let _ = write!(text, "{}|", output.rows.json(*key, row));
                    text
                }),
                None => rows.len().to_string(),
            };
            rows.insert(key, Value::Object(object).to_string());
        }
    }
    let mut rows: Vec<String> = rows.into_values().collect();
    rows.sort();
    rows
}

/// What a query says of all lines, and before it what those say that it reads.
fn bounded_batches(recorded: &mut bounded::Recorded, name: &str) -> Vec<RecordBatch> {
    let queries = query_set_of(&with_sources(name));
    let query = queries.get(name).expect("the query is shipped");
    for source in query.sources().filter(|source| !STREAMS.contains(source)) {
        if !recorded.contains_key(source) {
            let rows = bounded_batches(recorded, source);
            let schema = queries.get(source).expect("it is shipped").schema();
            recorded.insert(source.to_owned(), (Arc::clone(schema), rows));
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime can be made");
    let (_, batches) = runtime
        .block_on(bounded::run(&query.statement().sql, recorded))
        .unwrap_or_else(|error| panic!("{name}, bounded: {error}"));
    batches
}

/// Whether a query can be run bounded: it reads nothing that says rows again, of which a bounded run has the last alone.
fn is_bounded(queries: &QuerySet, name: &str) -> bool {
    let query = queries.get(name).expect("it is shipped");
    query.sources().all(|source| {
        let amends = |entry: &Entry| matches!(entry.relation, Relation::Output { amends: true, .. });
        STREAMS.contains(&source) || !queries.catalog().get(source).is_none_or(amends) && is_bounded(queries, source)
    })
}

fn bounded_rows(lines: &[Line], name: &str) -> Vec<String> {
    let mut recorded = bounded::Recorded::new();
    for stream in STREAMS {
        let schema = stream_schema(stream).expect("the stream is built in");
        let rows = lines
            .iter()
            .filter(|line| line.stream == stream)
            .map(|line| line.row.clone())
            .collect();
        recorded.insert(stream.to_owned(), (schema, rows));
    }
    for (table, rows) in tables() {
        recorded.insert(table.to_owned(), (rows.schema(), vec![rows]));
    }
    let batches = bounded_batches(&mut recorded, name);
    let mut rows: Vec<String> = batches
        .iter()
        .flat_map(|batch| (0..batch.num_rows()).map(|row| Value::Object(row_to_json(batch, row)).to_string()))
        .collect();
    rows.sort();
    rows
}

/// One case: a folder named after its query with `input.ndjson` and `expected.ndjson`.
fn check(name: &str) {
    let folder = folder().join(name);
    let lines = read_input(&folder.join("input.ndjson"));
    let expected_path = folder.join("expected.ndjson");
    let (all, own) = (statements(), with_sources(name));
    let whole = final_rows(&feed(&lines, Feeding::Whole, &all), name);
    if std::env::var_os("USHER_BLESS").is_some() {
        std::fs::write(&expected_path, whole.join("\n") + "\n").expect("the folder can be written");
    }
    let expected =
        std::fs::read_to_string(&expected_path).unwrap_or_else(|error| panic!("{}: {error}", expected_path.display()));
    let mut expected: Vec<String> = expected
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line)
                .expect("an expected line is JSON")
                .to_string()
        })
        .collect();
    expected.sort();
    assert_eq!(whole, expected, "{name}, whole");
    for feeding in [
        Feeding::RowByRow,
        Feeding::Batches(3),
        Feeding::Batches(7),
        Feeding::Restarting,
        Feeding::InParts(1),
        Feeding::InParts(3),
    ] {
        let statements = match feeding {
            Feeding::Restarting | Feeding::InParts(_) => &own,
            _ => &all,
        };
        let rows = final_rows(&feed(&lines, feeding, statements), name);
        assert_eq!(rows, expected, "{name}, {feeding:?}");
    }
    // What reads rows that are said again has no bounded form of its own: its source's is compared.
    if is_bounded(&query_set_of(&own), name) {
        assert_eq!(bounded_rows(&lines, name), expected, "{name}, bounded");
    }
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_shipped_query_has_a_case() {
            let cases = [$(stringify!($name)),*];
            for statement in statements() {
                assert!(cases.contains(&statement.name.as_str()), "{} has no golden case", statement.name);
            }
        }
    };
}

cases![
    occupancy,
    zone_flow,
    zone_crowded,
    seat_state,
    seat_turnover,
    seat_left_behind,
    seat_stretches,
    all_seats_taken,
    visits,
    item_custody,
    item_left_unborrowed,
    search_trouble,
    search_needs_help,
    channel_activity,
    click_totals,
    reader_totals,
    grant_returned_on_time,
    grant_feedback,
    challenge_three_loans,
    measure_searches,
    measure_arrivals_while_full,
    measure_seats_all_taken,
    measure_asked_while_taken,
    requests_served,
    items_ready,
    searches_served,
    measure_time_to_service,
    measure_requests_not_served,
    measure_offers,
    demands,
    measure_benefit,
    measure_benefit_by_cohort,
    measure_trust,
    measure_participation,
    measure_retention,
    measure_stability,
    newcomer_visits,
    regular_drifts,
    device_silent,
    offer_quiet_seat,
    offer_returned_item,
    offer_search_help,
    left_seats,
    seats_back,
    offer_left_seat,
    zone_fill,
    group_reads,
    group_crowds,
    offer_other_zone,
];

#[test]
fn an_alert_sees_each_event_by_itself_however_they_are_batched() {
    let lines = read_input(&folder().join("zone_crowded").join("input.ndjson"));
    let raised = |feeding| {
        let outputs = feed(&lines, feeding, &statements());
        let mut causes = Vec::new();
        for output in outputs.iter().filter(|output| output.query.as_ref() == "zone_crowded") {
            let judgement = output.judgement.as_ref().expect("an alert is judged");
            for row in 0..output.rows.len() {
                if judgement.raise[row] {
                    causes.push(output.rows.cause(row).expect("an event made it").to_owned());
                }
            }
        }
        causes
    };
    assert!(!raised(Feeding::Whole).is_empty());
    assert_eq!(raised(Feeding::Whole), raised(Feeding::RowByRow));
    assert_eq!(raised(Feeding::Batches(4)), raised(Feeding::RowByRow));
}

/// The mistakes people make, each with the message they get.
#[test]
fn unsupported_sql_is_an_error_with_its_position() {
    let queries = query_set();
    let cases = [
        (
            "CREATE QUERY q AS\nSELECT site FROM gate ORDER BY site",
            "2:32: ORDER BY needs the last row, and a stream has none, leave it out; readers sort what they show",
        ),
        (
            "CREATE QUERY q AS\nSELECT site FROM gate\nLIMIT 3",
            "3:7: LIMIT would end the stream, leave it out",
        ),
        (
            "CREATE QUERY q AS SELECT sit FROM gate",
            "1:26: column 'sit' not found, did you mean 'site'? There are: event_id, event_time, received_at, site, zone, device, entered, exited",
        ),
        (
            "CREATE QUERY q AS SELECT site FROM gates",
            "1:36: there is no stream, query or table 'gates', did you mean 'gate'?",
        ),
        (
            "CREATE QUERY q AS\n  SELECT a.site, count(*) FROM gate a JOIN seat b ON a.site = b.site GROUP BY a.site",
            "2:39: two streams are joined",
        ),
        (
            "CREATE QUERY q AS SELECT now() AS n FROM gate",
            "1:26: now() would give another answer in a replay, use event_time",
        ),
        (
            "CREATE QUERY q AS SELECT site, row_number() OVER (PARTITION BY site) FROM gate",
            "1:32: row_number OVER (…) ranks rows of a whole table",
        ),
        (
            "CREATE QUERY q AS SELECT site, sum(persons) FROM occupancy GROUP BY site",
            "1:50: 'occupancy' says rows again when they change",
        ),
        (
            "CREATE QUERY q WITH (emit = 'close') AS SELECT site, count(*) FROM gate GROUP BY site",
            "1:22: emit = 'close' waits for the end of a window, and there is none",
        ),
        (
            "CREATE QUERY q AS SELECT site, count(*) FROM TUMBLE(gate, event_time, INTERVAL '1 minute') GROUP BY site",
            "1:92: the rows are put into windows, but not grouped by them",
        ),
        (
            "CREATE QUERY q AS SELECT * FROM zones",
            "1:33: 'zones' is a reference table and never speaks by itself",
        ),
        (
            "CREATE QUERY q AS SELECT * FROM TUMBLE(gate, event_time)",
            "1:33: TUMBLE has 2 arguments; TUMBLE(stream, time, size[, offset]) was expected",
        ),
        (
            "CREATE QUERY q AS SELECT site FROM SESION(gate, event_time, INTERVAL '1 hour')",
            "1:36: there is no window 'SESION', did you mean 'SESSION'?",
        ),
        (
            "CREATE QUERY q AS SELECT site FROM gate WHERE",
            "Expected: an expression",
        ),
        (
            "CREATE ALERT q WITH (subject = 'zone', raise = 'shar > 1') AS SELECT site, zone, entered AS share FROM gate",
            "1:49: column 'shar' not found, did you mean 'share'?",
        ),
        (
            "CREATE QUERY gate AS SELECT 1",
            "1:14: there is a stream 'gate' already, take another name",
        ),
    ];
    for (sql, expected) in cases {
        let error = parse_statements(sql)
            .and_then(|mut statements| queries.check(statements.remove(0)).map(|_| ()))
            .expect_err(sql)
            .to_string();
        assert!(
            error.contains(expected),
            "{sql}\n  said:     {error}\n  expected: {expected}"
        );
    }
}
