//! What many queries over one stream, long windows and the close of a large one cost.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use hdrhistogram::Histogram;
use usher_queries::flow::Flow;
use usher_queries::query_set::QuerySet;
use usher_queries::row::{Row, Rows};
use usher_queries::statement::parse_statements;

use crate::{STEP_US, rows};

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

fn created(sql: &str) -> QuerySet {
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
    for count in [50, 1_000] {
        let before = resident();
        let mut queries = created(&statements(count));
        let events = spread(&rows(0, if count == 50 { 50_000 } else { 5_000 }, 100), 100);
        let took = singly(&mut queries, &events);
        let each = resident().saturating_sub(before) / count / 1_024;
        println!(
            "{count:>8} {:>9.1} µs {:>9.1} µs {each:>10} KiB",
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

/// What an event costs in windows of a minute and of a day, a minute apart, 1,000 keys, closes counted in.
pub(crate) fn long() {
    println!("\n{:>10} {:>14}", "window", "an event");
    let mut costs = Vec::new();
    for (name, size) in [("1 minute", "1 minute"), ("1 hour", "1 hour"), ("1 day", "1 day")] {
        let mut queries = created(&format!(
            "CREATE QUERY w WITH (memory = '8 GiB') AS SELECT device, window_start, window_end, count(*) AS events, sum(entered) AS entered
             FROM HOP(gate, event_time, INTERVAL '1 minute', INTERVAL '{size}') GROUP BY device, window_start, window_end"
        ));
        // A hundred events a second of event time: a day and a half has thirteen million of them.
        let (mut busy, mut done, mut said) = (Duration::ZERO, 0, Vec::new());
        let mut from = 0;
        while from < 13_000_000 {
            let batch = spread(&rows(from, 4_096, 1_000), 1_000);
            let watermark = (from as i64 + 4_095) * STEP_US * 1_000 - 1_000_000;
            // They met the watermark that stood before them.
            let flow = Flow::at_watermark(batch, watermark - 4_096 * STEP_US * 1_000);
            let started = Instant::now();
            queries.push("gate", &Rows::Many(flow), &mut said);
            queries.advance(watermark, &mut said);
            // The first day fills the window; what is asked is what an event costs when it is full.
            if from > 9_000_000 {
                busy += started.elapsed();
                done += 4_096;
            }
            said.clear();
            from += 4_096;
        }
        assert_eq!(queries.queries()[0].broken(), None);
        let each = busy.as_nanos() as f64 / f64::from(done);
        costs.push(each);
        println!("{name:>10} {each:>11.0} ns");
    }
    println!("{:>10} {:>14.2}", "day/minute", costs[2] / costs[0]);
}

/// How long the close of a window of 100,000 keys keeps everything else waiting.
pub(crate) fn closing() {
    let mut queries = created(crate::SQL);
    let mut said = Vec::new();
    let mut longest = Duration::ZERO;
    for window in 0..20 {
        let from = window * 1_000_000;
        let flow = Flow::at_watermark(rows(from, 200_000, 100_000), i64::MIN);
        queries.push("gate", &Rows::Many(flow), &mut said);
        let started = Instant::now();
        queries.advance((window as i64 + 1) * 10_000_000, &mut said);
        // The first ones make room.
        if window > 3 {
            longest = longest.max(started.elapsed());
        }
        said.clear();
    }
    println!(
        "\nclosing a window of 100,000 keys: {:.1} ms at most",
        longest.as_secs_f64() * 1e3
    );
}
