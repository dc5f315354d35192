//! What many queries over one stream, long windows and the close of a large one cost.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use hdrhistogram::Histogram;
use usher_queries::budget::Budget;
use usher_queries::flow::Flow;
use usher_queries::query_set::QuerySet;
use usher_queries::row::{Row, Rows};
use usher_queries::statement::parse_statements;

use crate::{STEP_US, rows};

/// How long time is moved on at once, as the engine has it.
pub(crate) const TURN: Duration = Duration::from_micros(300);

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

pub(crate) fn created(sql: &str) -> QuerySet {
    let mut queries = QuerySet::new();
    let mistakes = queries.create_all(parse_statements(sql).expect("the statements are right"));
    assert!(mistakes.is_empty(), "{mistakes:?}");
    queries
}

/// As many queries over gates, of the kinds that people write: filters, windows of several lengths, running sums.
fn statements(count: usize) -> String {
    let one = |number: usize| {
        let select = match number % 5 {
            0 => format!("SELECT site, zone, device, entered FROM gate WHERE entered > {}", number % 7),
            1 => "SELECT zone, sum(entered) AS entered, sum(exited) AS exited FROM gate GROUP BY zone".to_owned(),
            2 => format!(
                "SELECT device, window_start, window_end, count(*) AS n FROM TUMBLE(gate, event_time, INTERVAL '{} seconds')
                 WHERE exited < {} GROUP BY device, window_start, window_end",
                10 + number % 50,
                1 + number % 3
            ),
            3 => format!(
                "SELECT zone, window_start, window_end, sum(entered) AS entered, max(event_time) AS newest
                 FROM HOP(gate, event_time, INTERVAL '10 seconds', INTERVAL '{} seconds') GROUP BY zone, window_start, window_end",
                30 + 10 * (number % 6)
            ),
            _ => format!(
                "SELECT device, window_start, window_end, count(*) AS passages FROM SESSION(gate, event_time, INTERVAL '{} seconds')
                 GROUP BY device, window_start, window_end",
                30 + number % 90
            ),
        };
        format!("CREATE QUERY q{number} AS {select};\n")
    };
    (0..count).map(one).collect()
}

/// Feeds events one by one; how long each took.
fn singly(queries: &mut QuerySet, batch: &RecordBatch) -> Histogram<u64> {
    let mut took = histogram();
    let mut said = Vec::new();
    let flow = Flow::at_watermark(batch.clone(), 0);
    for row in 0..batch.num_rows() {
        let mut row = Row::of(&flow, row);
        let watermark = match row.values[1] {
            usher_queries::value::Value::Time(time) => time - 1_000_000,
            _ => continue,
        };
        row.watermark = watermark;
        let started = Instant::now();
        queries.push("gate", &Rows::One(row), &mut said);
        queries.advance(watermark, &mut said);
        took.saturating_record(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        said.clear();
    }
    took
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4_096
}

fn micros(took: &Histogram<u64>, quantile: f64) -> f64 {
    took.value_at_quantile(quantile) as f64 / 1e3
}

/// One event at a time through many queries, a hundred devices, a thousand events a second of event time.
pub(crate) fn many() {
    println!(
        "\n{:>8} {:>12} {:>12} {:>14}",
        "queries", "median", "99 %", "memory a query"
    );
    // What is made once for all queries is made before.
    drop(created(&statements(5)));
    // The thousand first: who comes later takes up the memory that was left.
    for count in [1_000, 50] {
        let events = spread(&rows(0, if count == 50 { 50_000 } else { 5_000 }, 100), 100);
        let before = resident();
        let mut queries = created(&statements(count));
        let took = singly(&mut queries, &events);
        let each = resident().saturating_sub(before) / count / 1_024;
        println!(
            "{count:>8} {:>9.1} µs {:>9.1} µs {each:>10} KiB",
            micros(&took, 0.5),
            micros(&took, 0.99)
        );
    }
}

/// What an event costs in a hundred queries that share one window, and in a hundred that can't: their windows begin a
/// millisecond apart.
pub(crate) fn sharing() {
    println!("\n{:>24} {:>12} {:>12}", "100 queries", "median", "99 %");
    for (name, apart_ms) in [("one window", 0), ("a window each", 1)] {
        let one = |number: usize| {
            format!(
                "CREATE QUERY q{number} AS SELECT device, window_start, window_end, count(*) AS n, sum(entered) + {number} AS entered
                 FROM TUMBLE(gate, event_time, INTERVAL '10 seconds', offset => INTERVAL '{} milliseconds')
                 GROUP BY device, window_start, window_end HAVING count(*) > {};\n",
                number * apart_ms,
                number % 20
            )
        };
        let mut queries = created(&(0..100).map(one).collect::<String>());
        let took = singly(&mut queries, &spread(&rows(0, 50_000, 1_000), 100));
        println!(
            "{name:>24} {:>9.1} µs {:>9.1} µs",
            micros(&took, 0.5),
            micros(&took, 0.99)
        );
    }
}

/// The same rows further apart in time.
fn spread(batch: &RecordBatch, times: i64) -> RecordBatch {
    use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
    use arrow::datatypes::TimestampMicrosecondType;
    let mut columns = batch.columns().to_vec();
    for column in &mut columns[1..3] {
        let at = column.as_primitive::<TimestampMicrosecondType>();
        let apart = TimestampMicrosecondArray::from_iter_values(at.values().iter().map(|at| at * times));
        *column = std::sync::Arc::new(apart) as ArrayRef;
    }
    RecordBatch::try_new(batch.schema(), columns).expect("the columns fit")
}

/// How often each is measured.
const LONG_ROUNDS: usize = 7;

/// What an event costs in windows of a minute and of a day, a minute apart, 1,000 keys, closes counted in: the least of
/// some rounds.
pub(crate) fn long() {
    println!("\n{:>10} {:>18} {:>18}", "window", "count, sum", "avg, max");
    let sizes = ["1 minute", "1 hour", "1 day"];
    let mut costs = [[f64::INFINITY; 2]; 3];
    // One after the other and again: whatever else the machine does meets all of them, and the least is what they cost.
    for _ in 0..LONG_ROUNDS {
        for (costs, size) in costs.iter_mut().zip(sizes) {
            let aggregates = [
                "count(*) AS events, sum(entered) AS entered",
                "avg(entered) AS entered, max(exited) AS exited",
            ];
            for (cost, aggregates) in costs.iter_mut().zip(aggregates) {
                *cost = cost.min(cost_of_an_event(size, aggregates));
            }
        }
    }
    for (size, [taken_back, stacked]) in sizes.iter().zip(costs) {
        println!("{size:>10} {taken_back:>15.0} ns {stacked:>15.0} ns");
    }
    let ratio = |of: usize| costs[2][of] / costs[0][of];
    println!("{:>10} {:>18.2} {:>18.2}", "day/minute", ratio(0), ratio(1));
}

/// Nanoseconds.
fn cost_of_an_event(size: &str, aggregates: &str) -> f64 {
    let mut queries = created(&format!(
        "CREATE QUERY w WITH (memory = '8 GiB') AS SELECT device, window_start, window_end, {aggregates}
         FROM HOP(gate, event_time, INTERVAL '1 minute', INTERVAL '{size}') GROUP BY device, window_start, window_end"
    ));
    // A hundred events a second of event time: two days and a half have twenty-two million of them.
    let (mut busy, mut done, mut said) = (Duration::ZERO, 0, Vec::new());
    let mut from = 0;
    while from < 22_000_000 {
        let batch = spread(&rows(from, 4_096, 1_000), 1_000);
        let watermark = (from as i64 + 4_095) * STEP_US * 1_000 - 1_000_000;
        // They met the watermark that stood before them.
        let flow = Flow::at_watermark(batch, watermark - 4_096 * STEP_US * 1_000);
        let started = Instant::now();
        queries.push("gate", &Rows::Many(flow), &mut said);
        queries.advance(watermark, &mut said);
        // The first day fills the window; what is asked is what an event costs when it is full, over a day and a half.
        if from > 9_000_000 {
            busy += started.elapsed();
            done += 4_096;
        }
        said.clear();
        from += 4_096;
    }
    assert_eq!(queries.queries()[0].broken(), None);
    busy.as_nanos() as f64 / f64::from(done)
}

/// How long the close of a window of 100,000 keys keeps events waiting that come meanwhile: it is said in turns, and an
/// event comes between any two of them.
pub(crate) fn closing() {
    let sql = format!(
        "{};\nCREATE QUERY passages AS SELECT zone, sum(entered) AS entered FROM gate GROUP BY zone",
        crate::SQL
    );
    let mut queries = created(&sql);
    let mut said = Vec::new();
    let (mut longest, mut longest_event, mut whole) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut turns = 0;
    for window in 0..20 {
        let from = window * 1_000_000;
        let flow = Flow::at_watermark(rows(from, 200_000, 100_000), i64::MIN);
        queries.push("gate", &Rows::Many(flow), &mut said);
        said.clear();
        let end = (window as i64 + 1) * 10_000_000;
        let event = Row::of(&Flow::at_watermark(rows(from + 1_000_000, 1, 1), end), 0);
        let began = Instant::now();
        queries.advance_within(end, Budget::lasting(TURN), &mut said);
        let mut turn = began.elapsed();
        // The first windows make room.
        let is_counted = window > 3;
        loop {
            if is_counted {
                longest = longest.max(turn);
                turns += 1;
            }
            said.clear();
            if !queries.has_work() {
                break;
            }
            let started = Instant::now();
            queries.push("gate", &Rows::One(event.clone()), &mut said);
            if is_counted {
                longest_event = longest_event.max(started.elapsed());
            }
            let started = Instant::now();
            queries.work(Budget::lasting(TURN), &mut said);
            turn = started.elapsed();
        }
        if is_counted {
            whole = whole.max(began.elapsed());
        }
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "\nclosing a window of 100,000 keys: {:.1} ms in {} turns; {:.2} ms the longest turn, {:.3} ms the longest event between two",
        ms(whole),
        turns / 16,
        ms(longest),
        ms(longest_event)
    );
}
