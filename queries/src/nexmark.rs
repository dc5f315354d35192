//! Nexmark: each query over the generator's events says at last what bounded DataFusion says, however the events were fed.

mod events;
mod loops;

use std::sync::Arc;

use ::nexmark::event::Event;
use arrow::array::{Int64Array, StringArray};
use serde_json::{Map, Value, json};

use self::events::{STREAMS, batch_of, events, side_input, stream_of, time_of};
use crate::bounded::{self, Recorded};
use crate::flow::Flow;
use crate::oracle::{last_rows, lines};
use crate::query_set::{QuerySet, Restored};
use crate::row::Rows;
use crate::rows::time_to_text;
use crate::snapshot::QuerySnapshot;
use crate::statement::{Statement, parse_statements};

/// A Nexmark query: the name of its last statement and the files' texts.
struct Case {
    name: &'static str,
    /// Its statements.
    sql: &'static str,
    /// The original over recorded rows, where its words are not those of the last statement.
    original: Option<&'static str>,
    /// How many events it is asked over, and how many of them are in a second of event time.
    events: usize,
    rate: usize,
}

/// How events are fed.
#[derive(Debug, Clone, Copy)]
enum Feeding {
    Whole,
    /// In batches of so many; the watermark is at the newest event.
    InOrder(usize),
    /// In batches of so many; events of [`GROUP`] are out of order, and the watermark stays that far behind.
    OutOfOrder(usize),
    /// In batches of so many; after each of them all state goes through bytes into a new engine.
    Restarting(usize),
}

const FEEDINGS: [Feeding; 4] = [
    Feeding::Whole,
    Feeding::InOrder(1_000),
    Feeding::OutOfOrder(7),
    Feeding::Restarting(1_700),
];

/// Events that change places with each other when they come out of order.
const GROUP: usize = 50;

impl Case {
    fn statements(&self) -> Vec<Statement> {
        parse_statements(self.sql).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    fn query_set(&self) -> QuerySet {
        let mut queries = QuerySet::new();
        for stream in STREAMS {
            queries.set_stream(stream, batch_of(stream, &[]).schema());
        }
        queries.set_reference("side_input", side_input());
        let mistakes = queries.create_all(self.statements());
        let words: Vec<String> = mistakes.iter().map(|(_, error)| error.to_string()).collect();
        assert!(words.is_empty(), "{}: {words:#?}", self.name);
        queries
    }

    fn restarted(&self, mut queries: QuerySet) -> QuerySet {
        let snapshots: Vec<QuerySnapshot> = queries
            .snapshot()
            .expect("state can be written")
            .iter()
            .map(|snapshot| snapshot.to_bytes().expect("it is written"))
            .map(|bytes| QuerySnapshot::from_bytes(&bytes).expect("it is read"))
            .collect();
        let mut again = self.query_set();
        let outcome = again.restore(queries.watermark(), &snapshots);
        let all_kept = outcome.iter().all(|(_, outcome)| *outcome == Restored::Kept);
        assert!(all_kept, "{}: {outcome:?}", self.name);
        again
    }

    /// What the query says at last when it runs.
    fn continuous(&self, events: &[Event], feeding: Feeding) -> Vec<String> {
        let mut events: Vec<&Event> = events.iter().collect();
        let (size, delay) = match feeding {
            Feeding::Whole => (events.len(), 0),
            Feeding::InOrder(size) | Feeding::Restarting(size) => (size, 0),
            Feeding::OutOfOrder(size) => {
                let span = events
                    .chunks(GROUP)
                    .map(|group| time_of(group[group.len() - 1]) - time_of(group[0]));
                let delay = span.max().unwrap_or(0);
                events.chunks_mut(GROUP).for_each(shuffle);
                (size, delay)
            }
        };
        let mut queries = self.query_set();
        let (mut watermark, mut outputs) = (i64::MIN, Vec::new());
        for batch in events.chunks(size) {
            // A row meets the watermark that stood before it, and not the one behind its batch.
            let met: Vec<i64> = batch
                .iter()
                .map(|event| {
                    let met = watermark;
                    watermark = watermark.max(time_of(event) - delay);
                    met
                })
                .collect();
            for stream in STREAMS {
                let of_stream = |index: &usize| stream_of(batch[*index]) == stream;
                let indices: Vec<usize> = (0..batch.len()).filter(of_stream).collect();
                if indices.is_empty() || !queries.reads(stream) {
                    continue;
                }
                let rows = Flow {
                    batch: batch_of(stream, indices.iter().map(|index| batch[*index])),
                    watermarks: Arc::new(indices.iter().map(|index| met[*index]).collect::<Int64Array>()),
                    causes: Arc::new(StringArray::new_null(indices.len())),
                };
                queries.push(stream, &Rows::Many(rows), &mut outputs);
            }
            queries.advance(watermark, &mut outputs);
            if let Feeding::Restarting(_) = feeding {
                queries = self.restarted(queries);
            }
        }
        queries.advance(i64::MAX / 4, &mut outputs);
        for query in queries.queries() {
            assert_eq!(query.broken(), None, "{} has stopped, {feeding:?}", query.name());
            assert_eq!(query.counters().late_rows, 0, "late for {}, {feeding:?}", query.name());
        }
        let query = queries.get(self.name).expect("it was created");
        last_rows(&outputs, self.name, query.keys())
    }

    /// What each statement says over recorded rows, those before it being recorded too, and what the original says.
    fn bounded(&self, events: &[Event]) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime can be made");
        let run = |name: &str, sql: &str, recorded: &Recorded| {
            let said = runtime.block_on(bounded::run(sql, recorded));
            said.unwrap_or_else(|error| panic!("{name}, bounded: {error}"))
        };
        let mut recorded = Recorded::new();
        for stream in STREAMS {
            let rows = batch_of(stream, events);
            recorded.insert(stream.to_owned(), (rows.schema(), vec![rows]));
        }
        recorded.insert("side_input".to_owned(), (side_input().schema(), vec![side_input()]));
        let original = self.original.map(|sql| lines(&run(self.name, sql, &recorded).1));
        for statement in self.statements() {
            let said = run(&statement.name, &statement.sql, &recorded);
            recorded.insert(statement.name, said);
        }
        let rows = lines(&recorded[self.name].1);
        if let Some(original) = original {
            assert_same(
                &rows,
                &original,
                &format!("{}, bounded against the original", self.name),
            );
        }
        rows
    }

    /// Holds what the query says in every way of feeding against its bounded run; gives its rows.
    fn check(&self, events: &[Event]) -> Vec<String> {
        let expected = self.bounded(events);
        assert!(!expected.is_empty(), "{} says nothing of so few events", self.name);
        for feeding in FEEDINGS {
            let said = self.continuous(events, feeding);
            assert_same(&said, &expected, &format!("{}, {feeding:?} against bounded", self.name));
        }
        expected
    }
}

/// Puts a group out of order, the same way each time.
fn shuffle(group: &mut [&Event]) {
    group.reverse();
    let third = group.len() / 3;
    group.rotate_left(third);
}

fn assert_same(said: &[String], expected: &[String], what: &str) {
    if said == expected {
        return;
    }
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        let is_there = |row: &&String| those.binary_search(row).is_err();
        these.iter().filter(is_there).take(5).cloned().collect()
    };
    panic!(
        "{what}: {} rows against {}\nonly the first {:#?}\nonly the second {:#?}",
        said.len(),
        expected.len(),
        only(said, expected),
        only(expected, said)
    );
}

/// What loops say of each auction and bidder, as the lines of a query with these columns; those at `times` are times.
fn looped<const N: usize>(
    events: &[Event],
    columns: [&str; N],
    times: usize,
    said: impl Fn(&[(i64, i64)]) -> Vec<[i64; N]>,
) -> Vec<String> {
    let mut rows = Vec::new();
    for ((auction, bidder), bids) in loops::partitions(events) {
        for values in said(&bids) {
            let mut row = Map::new();
            row.insert("auction".to_owned(), json!(auction));
            row.insert("bidder".to_owned(), json!(bidder));
            for (index, (column, value)) in columns.iter().zip(values).enumerate() {
                let value = if index < times {
                    json!(time_to_text(value))
                } else {
                    json!(value)
                };
                row.insert((*column).to_owned(), value);
            }
            rows.push(Value::Object(row).to_string());
        }
    }
    rows.sort();
    rows
}

macro_rules! sql {
    ($name:ident $kind:literal) => {
        include_str!(concat!("../nexmark/", stringify!($name), $kind, ".sql"))
    };
}

macro_rules! case {
    ($name:ident, $original:expr, $events:literal events at $rate:literal) => {
        Case {
            name: stringify!($name),
            sql: sql!($name ""),
            original: $original,
            events: $events,
            rate: $rate,
        }
    };
}

macro_rules! original {
    () => {
        None
    };
    ($name:ident) => {
        Some(sql!($name ".bounded"))
    };
}

macro_rules! tests {
    ($($name:ident $(against $original:ident)?: $events:literal events at $rate:literal),* $(,)?) => {
        $(#[test]
        fn $name() {
            let case = case!($name, original!($($original)?), $events events at $rate);
            case.check(&events(case.events, case.rate));
        })*
    };
}

tests![
    q0: 5_000 events at 1_000,
    q1: 5_000 events at 1_000,
    q2: 20_000 events at 1_000,
    q3 against q3: 20_000 events at 1_000,
    q4 against q4: 8_000 events at 1_000,
    q5 against q5: 15_000 events at 1_000,
    q6 against q6: 8_000 events at 1_000,
    q7 against q7: 12_000 events at 1_000,
    q8 against q8: 25_000 events at 1_000,
    q9 against q9: 6_000 events at 1_000,
    q10: 5_000 events at 1_000,
    q11 against q11: 20_000 events at 100,
    q12: 25_000 events at 1_000,
    q13: 5_000 events at 1_000,
    q14: 10_000 events at 1_000,
    q15: 5_000 events at 1_000,
    q16: 5_000 events at 1_000,
    q17: 10_000 events at 1_000,
    q18 against q18: 10_000 events at 1_000,
    q19 against q19: 4_000 events at 1_000,
    q20 against q20: 6_000 events at 1_000,
    q21: 2_000 events at 1_000,
    q22: 5_000 events at 1_000,
    q23 against q23: 1_500 events at 1_000,
];

#[test]
fn cep_1() {
    let case = case!(cep_1, None, 8_000 events at 1_000);
    let events = events(case.events, case.rate);
    let said = case.check(&events);
    let expected = looped(
        &events,
        ["start_tstamp", "bottom_tstamp", "end_tstamp"],
        3,
        loops::falling,
    );
    assert_same(&said, &expected, "cep_1 against loops");
}

#[test]
fn cep_2() {
    let case = case!(cep_2, None, 8_000 events at 1_000);
    let events = events(case.events, case.rate);
    let said = case.check(&events);
    let expected = looped(&events, ["start_tstamp", "end_tstamp", "avg_price"], 2, |bids| {
        loops::below_average(bids, true)
    });
    assert_same(&said, &expected, "cep_2 against loops");
}

#[test]
fn cep_3() {
    let case = case!(cep_3, None, 8_000 events at 1_000);
    let events = events(case.events, case.rate);
    let said = case.check(&events);
    let expected = looped(&events, ["start_tstamp", "end_tstamp", "avg_price"], 2, |bids| {
        loops::below_average(bids, false)
    });
    assert_same(&said, &expected, "cep_3 against loops");
}

#[test]
fn cep_4() {
    const WITHIN: i64 = 5_000_000;
    let case = case!(cep_4, None, 10_000 events at 25);
    let events = events(case.events, case.rate);
    let said = case.check(&events);
    let expected = |within| {
        looped(&events, ["drop_time", "drop_diff"], 1, move |bids: &[(i64, i64)]| {
            loops::drops(bids, within)
        })
    };
    let (within, ever) = (expected(WITHIN), expected(i64::MAX / 2));
    assert_same(&said, &within, "cep_4 against loops");
    assert_ne!(within, ever, "no drop takes so long that WITHIN would matter");
}
