//! Rows a second through one windowed GROUP BY, by keys and batch size, beside bounded DataFusion over the same rows;
//! and what many queries, long windows and the close of a large one cost.

mod amending;
mod late;
mod linked;
mod many;
mod meeting;
mod turns;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use hdrhistogram::Histogram;
use usher_engine::allocator::keep_memory;
use usher_queries::bounded::{self, Recorded};
use usher_queries::flow::Flow;
use usher_queries::query_set::QuerySet;
use usher_queries::row::Rows;
use usher_queries::statement::parse_statements;
use usher_queries::streams::stream_schema;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SQL: &str = "CREATE QUERY w WITH (emit = 'close') AS
SELECT device, window_start, window_end, count(*) AS events, sum(entered) AS entered
FROM TUMBLE(gate, event_time, INTERVAL '10 seconds')
GROUP BY device, window_start, window_end";
/// Events of one window lie this close, so that a window of ten seconds holds a million of them.
const STEP_US: i64 = 10;
/// Each measurement goes on for so long.
const MEASURE: Duration = Duration::from_secs(3);

fn rows(from: usize, count: usize, keys: usize) -> RecordBatch {
    // Keys come in no order, as devices do.
    let key = |row: usize| row.wrapping_mul(2_654_435_761) % keys;
    let rows = || from..from + count;
    let times = || TimestampMicrosecondArray::from_iter_values(rows().map(|row| row as i64 * STEP_US));
    let text = |value: &str| StringArray::from_iter_values(rows().map(|_| value));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(text("e")),
        Arc::new(times()),
        Arc::new(times()),
        Arc::new(text("main")),
        Arc::new(text("hall")),
        Arc::new(StringArray::from_iter_values(
            rows().map(|row| format!("device-{}", key(row))),
        )),
        Arc::new(Int64Array::from_iter_values(rows().map(|row| (row % 3) as i64))),
        Arc::new(Int64Array::from_iter_values(rows().map(|row| (row % 2) as i64))),
        Arc::new(Int64Array::new_null(count)),
    ];
    RecordBatch::try_new(stream_schema("gate").expect("a stream"), columns).expect("the columns fit")
}

/// Batches of a window and more, made before anything is measured.
fn batches(keys: usize, batch: usize) -> Vec<RecordBatch> {
    let total = if batch == 1 { 200_000 } else { 2_000_000 };
    (0..total / batch)
        .map(|number| rows(number * batch, batch, keys))
        .collect()
}

/// Rows a second, and nanoseconds a batch.
fn stream(batches: &[RecordBatch]) -> (f64, Histogram<u64>) {
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order");
    let (mut done, mut busy) = (0_usize, Duration::ZERO);
    let begun = Instant::now();
    while begun.elapsed() < MEASURE {
        let mut queries = QuerySet::new();
        let statements = parse_statements(SQL).expect("the statement is right");
        assert!(queries.create_all(statements).is_empty(), "the query runs");
        let mut said = Vec::new();
        for batch in batches {
            let times = batch
                .column(1)
                .as_any()
                .downcast_ref::<TimestampMicrosecondArray>()
                .expect("times");
            let watermark = times.value(times.len() - 1);
            let flow = Flow::at_watermark(batch.clone(), watermark - 1_000_000);
            let started = Instant::now();
            queries.push("gate", &Rows::Many(flow), &mut said);
            queries.advance(watermark - 1_000_000, &mut said);
            let took = started.elapsed();
            busy += took;
            histogram.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            done += batch.num_rows();
            said.clear();
        }
        assert!(
            queries.queries().iter().all(|query| query.broken().is_none()),
            "no query stopped"
        );
    }
    (done as f64 / busy.as_secs_f64(), histogram)
}

fn bounded_rate(batches: &[RecordBatch]) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let schema = stream_schema("gate").expect("a stream");
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    // The window as a column, which is what bounded SQL would write.
    let sql =
        "SELECT device, date_bin(INTERVAL '10 seconds', event_time) AS w, count(*) AS events, sum(entered) AS entered
        FROM gate GROUP BY device, w";
    let recorded: Recorded = [("gate".to_owned(), (schema, batches.to_vec()))].into();
    let (mut done, mut busy) = (0, Duration::ZERO);
    let begun = Instant::now();
    while begun.elapsed() < MEASURE {
        let started = Instant::now();
        let (_, answer) = runtime
            .block_on(bounded::run(sql, &recorded))
            .expect("the question is right");
        busy += started.elapsed();
        assert!(!answer.is_empty());
        done += rows;
    }
    done as f64 / busy.as_secs_f64()
}

fn main() {
    // As the engine does.
    keep_memory();
    let wanted = std::env::args().nth(1);
    let is_wanted = |part: &str| wanted.as_deref().is_none_or(|wanted| wanted == part);
    if is_wanted("rows") {
        by_keys_and_batch();
    }
    if is_wanted("many") {
        many::many();
    }
    if is_wanted("sharing") {
        many::sharing();
    }
    if is_wanted("closing") {
        many::closing();
        late::closing();
        meeting::closing();
        linked::closing();
        turns::machine();
    }
    if is_wanted("amending") {
        amending::amending();
    }
    if is_wanted("long") {
        many::long();
    }
}

fn by_keys_and_batch() {
    println!(
        "{:>8} {:>6} {:>14} {:>14} {:>7} {:>12} {:>12}",
        "keys", "batch", "rows/s", "bounded", "ratio", "median", "99 %"
    );
    for keys in [1_000, 100_000] {
        let bounded = bounded_rate(&batches(keys, 4_096));
        for batch in [1, 16, 256, 4_096] {
            let (rate, histogram) = stream(&batches(keys, batch));
            let micros = |quantile| format!("{:.2} µs", histogram.value_at_quantile(quantile) as f64 / 1e3);
            println!(
                "{keys:>8} {batch:>6} {rate:>14.0} {bounded:>14.0} {:>7.2} {:>12} {:>12}",
                rate / bounded,
                micros(0.5),
                micros(0.99)
            );
        }
    }
}
