//! What late rows cost that amend very many windows: of a day, a minute apart, with an hour's lateness.

use std::time::{Duration, Instant};

use usher_queries::budget::Budget;
use usher_queries::flow::Flow;
use usher_queries::row::{Row, Rows};

use crate::many::{TURN, created};
use crate::rows;

/// Minutes that were fed before, a row of each key in each.
const MINUTES: usize = 1_500;
const MINUTE_US: i64 = 60_000_000;
/// The newest rows are so old: most windows that hold them were said.
const LATE_MINUTES: usize = 59;

/// One late row, some that come together, and thousands.
pub(crate) fn amending() {
    println!(
        "\n{:>34} {:>6} {:>9} {:>12} {:>13} {:>9}",
        "late rows", "keys", "rows", "the push", "longest turn", "said"
    );
    for aggregates in [
        "count(*) AS events, sum(entered) AS entered",
        "avg(entered) AS entered, max(exited) AS exited",
    ] {
        for (keys, late) in [(1_000, 1), (1_000, 64), (1_000, 1_000), (10, 4_096)] {
            amend(aggregates, keys, late);
        }
    }
}

fn amend(aggregates: &str, keys: usize, late: usize) {
    let mut queries = created(&format!(
        "CREATE QUERY w WITH (lateness = '1 hour', memory = '8 GiB') AS
         SELECT device, window_start, window_end, {aggregates}
         FROM HOP(gate, event_time, INTERVAL '1 minute', INTERVAL '1 day') GROUP BY device, window_start, window_end"
    ));
    let mut said = Vec::new();
    let at = |minute: usize, count: usize| {
        use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
        let batch = rows(minute * 7, count, keys);
        let mut columns = batch.columns().to_vec();
        let times = TimestampMicrosecondArray::from_value(minute as i64 * MINUTE_US, count);
        columns[1] = std::sync::Arc::new(times) as ArrayRef;
        RecordBatch::try_new(batch.schema(), columns).expect("the columns fit")
    };
    for minute in 0..MINUTES {
        let watermark = minute as i64 * MINUTE_US;
        queries.push(
            "gate",
            &Rows::Many(Flow::at_watermark(at(minute, keys), watermark)),
            &mut said,
        );
        queries.advance(watermark, &mut said);
        said.clear();
    }
    let end = (MINUTES as i64 - 1) * MINUTE_US;
    let flow = Flow::at_watermark(at(MINUTES - 1 - LATE_MINUTES, late), end);
    let rows = match late {
        1 => Rows::One(Row::of(&flow, 0)),
        _ => Rows::Many(flow),
    };
    let started = Instant::now();
    queries.push("gate", &rows, &mut said);
    let push = started.elapsed();
    let mut longest = Duration::ZERO;
    while queries.has_work() {
        let started = Instant::now();
        queries.work(Budget::lasting(TURN), &mut said);
        longest = longest.max(started.elapsed());
    }
    let rows_said: usize = said.iter().map(|output| output.rows.len()).sum();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let name = aggregates
        .replace(" AS entered", "")
        .replace(" AS events", "")
        .replace(" AS exited", "");
    println!(
        "{name:>34} {keys:>6} {late:>9} {:>9.2} ms {:>10.2} ms {rows_said:>9}",
        ms(push),
        ms(longest)
    );
}
