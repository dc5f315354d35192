//! One oracle for all: random queries over random events say at last what bounded DataFusion says over the same events,
//! however the events were fed.
//!
//! A failing case prints its seed; `USHER_SEED` runs that one again, `USHER_CASES` says how many there are.

mod draw;
mod late;
mod sharing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use serde_json::Value;

use self::draw::{Dice, Event, Question};
use crate::bounded;
use crate::budget::Budget;
use crate::capture::tests::Chain;
use crate::civil_time::OpeningHours;
use crate::flow::Flow;
use crate::query::Output;
use crate::query_set::{QuerySet, Restored};
use crate::row::Rows;
use crate::rows::row_to_json;
use crate::snapshot::QuerySnapshot;
use crate::statement::parse_statement;
use crate::streams::stream_schema;

/// Event sequences a query is asked over: the bounded run, which costs most, answers for all of them at once.
const SEQUENCES: usize = 25;
/// Cases where nobody says: a query over one sequence each. The CI asks for 10,000.
const CASES: usize = 1_000;

/// Sites are open for eight of every ten minutes, the second for a part of them.
#[derive(Debug)]
struct TenMinutes;

const MINUTE: i64 = 60_000_000;

impl OpeningHours for TenMinutes {
    fn interval(&self, site: &str, at_us: i64) -> Option<(i64, i64)> {
        let start = at_us.div_euclid(10 * MINUTE) * 10 * MINUTE;
        let open = if site.ends_with('1') { 5 } else { 8 };
        (at_us < start + open * MINUTE).then_some((start, start + open * MINUTE))
    }

    fn next_end(&self, after_us: i64) -> i64 {
        let start = after_us.div_euclid(10 * MINUTE) * 10 * MINUTE;
        [start + 5 * MINUTE, start + 8 * MINUTE, start + 15 * MINUTE]
            .into_iter()
            .find(|end| *end > after_us)
            .expect("the last is more than ten minutes away")
    }

    fn longest_us(&self) -> i64 {
        8 * MINUTE
    }
}

fn opening() -> Arc<dyn OpeningHours> {
    Arc::new(TenMinutes)
}

/// How events are fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feeding {
    Whole,
    Singly,
    Batches,
    /// In batches; after some of them, all state goes through bytes into a new engine.
    Restarting,
    /// In batches; time moves on a row or a few at a time, with events in between and sometimes a new engine.
    InParts,
}

fn flow_of(events: &[Event]) -> Flow {
    let texts = |of: &dyn Fn(&Event) -> Option<String>| -> ArrayRef {
        Arc::new(events.iter().map(of).collect::<StringArray>())
    };
    let times = || -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(
            events.iter().map(|event| event.time),
        ))
    };
    let columns = vec![
        texts(&|event| Some(event.id.clone())),
        times(),
        times(),
        texts(&|event| Some(event.site.clone())),
        texts(&|event| Some(format!("z{}", event.zone))),
        texts(&|_| Some("d".to_owned())),
        texts(&|event| Some(format!("t{}", event.tag))),
        Arc::new(events.iter().map(|event| event.antenna).collect::<Int64Array>()) as ArrayRef,
        // Halves add up without rounding, in whatever order.
        Arc::new(
            events
                .iter()
                .map(|event| event.antenna.map(|antenna| (antenna * 7 % 11) as f64 / 2.0 - 2.0))
                .collect::<Float64Array>(),
        ),
        texts(&|event| Some(if event.tag % 2 == 0 { "read" } else { "checkout" }.to_owned())),
        texts(&|event| (event.zone > 0).then(|| format!("p{}", event.zone))),
    ];
    let batch = RecordBatch::try_new(stream_schema("rfid").expect("a stream"), columns).expect("its columns");
    Flow {
        causes: Arc::new(batch.column(0).as_string::<i32>().clone()),
        batch,
        watermarks: Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.met))),
    }
}

fn query_set(statements: &[String]) -> QuerySet {
    let mut queries = QuerySet::new();
    queries.set_opening_hours(opening());
    for sql in statements {
        let statement = parse_statement(sql).unwrap_or_else(|error| panic!("{sql}\n{error}"));
        queries
            .create(statement)
            .unwrap_or_else(|error| panic!("{sql}\n{error}"));
    }
    queries
}

fn snapshots(queries: &mut QuerySet) -> Vec<QuerySnapshot> {
    queries
        .snapshot()
        .expect("state can be written")
        .iter()
        .map(|snapshot| QuerySnapshot::from_bytes(&snapshot.to_bytes().expect("it is written")).expect("it is read"))
        .collect()
}

fn restarted(queries: &QuerySet, snapshots: &[QuerySnapshot], statements: &[String]) -> QuerySet {
    let watermark = queries.watermark();
    let mut again = query_set(statements);
    let outcome = again.restore(watermark, snapshots);
    assert!(
        outcome.iter().all(|(_, outcome)| *outcome == Restored::Kept),
        "{statements:?}: {outcome:?}"
    );
    again
}

/// Feeds one sequence of events; what the query says of it is appended.
fn feed(
    statements: &[String],
    mut running: QuerySet,
    events: &[Event],
    feeding: Feeding,
    dice: &mut Dice,
    outputs: &mut Vec<Output>,
) -> QuerySet {
    let mut from = 0;
    let mut chain = Chain::default();
    running.capture_anew();
    while from < events.len() {
        let size = match feeding {
            Feeding::Whole => events.len(),
            Feeding::Singly => 1,
            Feeding::Batches | Feeding::Restarting | Feeding::InParts => 1 + dice.below(9),
        };
        let to = (from + size).min(events.len());
        running.push("rfid", &Rows::Many(flow_of(&events[from..to])), outputs);
        match feeding {
            Feeding::InParts => {
                let part = Budget::one_part(1 + dice.below(3));
                running.advance_within(events[to - 1].watermark, part, outputs);
                for _ in 0..dice.below(4) {
                    running.work(part, outputs);
                }
            }
            _ => running.advance(events[to - 1].watermark, outputs),
        }
        if matches!(feeding, Feeding::Restarting | Feeding::InParts) {
            // As checkpoints are: some of it taken ahead, and not after each batch.
            if dice.below(2) == 0 {
                let mut room = dice.below(4);
                running.gather(&mut room).expect("it can be captured");
            }
            if dice.below(2) == 0 {
                chain.take(&mut running);
                chain.hold_against(&mut running, &statements.join(";\n"));
            }
            if dice.below(3) == 0 {
                let snapshots = match dice.below(2) {
                    0 => snapshots(&mut running),
                    _ => {
                        chain.take(&mut running);
                        chain.snapshots()
                    }
                };
                running = restarted(&running, &snapshots, statements);
                chain = Chain::default();
            }
        }
        from = to;
    }
    running
}

/// Floats are rounded to nine digits: in another order they may differ in the last of sixteen.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().expect("it is one");
            Value::from(format!("{float:.9e}"))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(rounded).collect()),
        other => other,
    }
}

/// One row as JSON, floats rounded.
fn line(batch: &RecordBatch, row: usize) -> String {
    let object = row_to_json(batch, row)
        .into_iter()
        .map(|(name, value)| (name, rounded(value)));
    Value::Object(object.collect()).to_string()
}

/// The last row that a query said for each key, or every row where rows stand for themselves; sorted.
pub(crate) fn last_rows(outputs: &[Output], name: &str, keys: Option<&[usize]>) -> Vec<String> {
    let mut last = BTreeMap::new();
    for output in outputs.iter().filter(|output| output.query.as_ref() == name) {
        let flow = output.rows.flow();
        for row in 0..flow.num_rows() {
            let key = match keys {
                Some(keys) => keys
                    .iter()
                    .map(|key| output.rows.json(*key, row).to_string() + "|")
                    .collect(),
                None => last.len().to_string(),
            };
            last.insert(key, line(&flow.batch, row));
        }
    }
    let mut rows: Vec<String> = last.into_values().collect();
    rows.sort();
    rows
}

fn bounded_rows(sql: &str, events: &[Event], runtime: &tokio::runtime::Runtime) -> Vec<String> {
    let flow = flow_of(events);
    let recorded = bounded::Recorded::from([("rfid".to_owned(), (flow.batch.schema(), vec![flow.batch]))]);
    let (_, batches) = runtime
        .block_on(bounded::run_with(sql, &recorded, &opening()))
        .unwrap_or_else(|error| panic!("{sql}, bounded: {error}"));
    lines(&batches)
}

/// All rows, sorted.
pub(crate) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows: Vec<String> = batches
        .iter()
        .flat_map(|batch| (0..batch.num_rows()).map(move |row| line(batch, row)))
        .collect();
    rows.sort();
    rows
}

/// One query over as many sequences, one after another; the number of cases it was.
fn check(seed: u64, runtime: &tokio::runtime::Runtime) -> usize {
    let mut dice = Dice::new(seed);
    let question = Question::draw(&mut dice);
    let statements = question.statements();
    let sql = statements.join(";\n");
    let sequences: Vec<Vec<Event>> = (0..SEQUENCES).map(|index| question.events(&mut dice, index)).collect();
    let mut running = query_set(&statements);
    let keys = running.get("q").expect("it was created").keys().map(<[usize]>::to_vec);
    let (mut outputs, mut fed) = (Vec::new(), Vec::new());
    for (index, events) in sequences.iter().enumerate() {
        let feeding = match index % 8 {
            0 => Feeding::Whole,
            1..=3 => Feeding::Singly,
            4 => Feeding::Restarting,
            5 | 6 => Feeding::InParts,
            _ => Feeding::Batches,
        };
        fed.push(feeding);
        running = feed(&statements, running, events, feeding, &mut dice, &mut outputs);
    }
    running.advance(i64::MAX / 4, &mut outputs);
    for query in running.queries() {
        assert_eq!(query.broken(), None, "USHER_SEED={seed}\n{sql}");
        assert_eq!(
            query.counters().late_rows,
            0,
            "USHER_SEED={seed}\n{sql}: nothing is later than the lateness"
        );
    }
    let said = last_rows(&outputs, "q", keys.as_deref());
    let expected = bounded_rows(&question.bounded(), &sequences.concat(), runtime);
    if said != expected {
        let missing: Vec<&String> = expected.iter().filter(|row| !said.contains(row)).take(5).collect();
        let extra: Vec<&String> = said.iter().filter(|row| !expected.contains(row)).take(5).collect();
        let site = |row: &&String| {
            let index = row
                .split("\"s")
                .nth(1)
                .and_then(|rest| rest.split('"').next()?.parse::<usize>().ok());
            index.unwrap_or(0)
        };
        let of = missing.first().or(extra.first()).map(site).unwrap_or(0);
        panic!(
            "USHER_SEED={seed}\n{sql}\n{:?}: {:#?}\nbounded has {missing:#?}\ncontinuous has {extra:#?}",
            fed[of], sequences[of]
        );
    }
    SEQUENCES
}

#[test]
fn random_queries_say_at_last_what_bounded_datafusion_says() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime can be made")
    };
    if let Some(seed) = number("USHER_SEED") {
        check(seed, &runtime());
        return;
    }
    let cases = number("USHER_CASES").map_or(CASES, |cases| cases as usize);
    let seeds = cases.div_ceil(SEQUENCES) as u64;
    let next = AtomicU64::new(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let runtime = runtime();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed > seeds {
                            break;
                        }
                        check(seed, &runtime);
                    }
                })
            })
            .collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    println!("{} cases: seeds 1 to {seeds}", seeds as usize * SEQUENCES);
}
