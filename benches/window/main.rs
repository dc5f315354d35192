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
/// Rows a batch; the last of them is held against bounded DataFusion, whose batches are of any size.
const BATCHES: [usize; 4] = [1, 16, 256, 4_096];
/// Each is measured so often, for so long each time.
const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(300);

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

/// What has been measured of one way to evaluate the rows.
struct Measured {
    /// Rows a second, a round each.
    rates: Vec<f64>,
    /// Nanoseconds a batch.
    histogram: Histogram<u64>,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            rates: Vec::new(),
            histogram: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order"),
        }
    }
}

/// One round of a continuous query.
fn stream(batches: &[RecordBatch], measured: &mut Measured) {
    let (mut done, mut busy) = (0_usize, Duration::ZERO);
    let begun = Instant::now();
    while begun.elapsed() < ROUND {
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
            let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            measured.histogram.saturating_record(nanos);
            done += batch.num_rows();
            said.clear();
        }
        assert!(
            queries.queries().iter().all(|query| query.broken().is_none()),
            "no query stopped"
        );
    }
    measured.rates.push(done as f64 / busy.as_secs_f64());
}

/// One round of bounded DataFusion; rows a second.
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
    while begun.elapsed() < ROUND {
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

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
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
        "{:>8} {:>6} {:>14} {:>14} {:>7} {:>15} {:>12} {:>12}",
        "keys", "batch", "rows/s", "bounded", "ratio", "least to most", "median", "99 %"
    );
    for keys in [1_000, 100_000] {
        let each: Vec<(usize, Vec<RecordBatch>)> = BATCHES.map(|batch| (batch, batches(keys, batch))).into();
        let mut bounded = Vec::new();
        let mut measured: Vec<Measured> = each.iter().map(|_| Measured::default()).collect();
        // Taking turns, since a shared machine is not as fast now as it was a minute ago.
        for _ in 0..ROUNDS {
            for ((batch, batches), measured) in each.iter().zip(&mut measured) {
                if *batch == BATCHES[BATCHES.len() - 1] {
                    bounded.push(bounded_rate(batches));
                }
                stream(batches, measured);
            }
        }
        for ((batch, _), Measured { rates, histogram }) in each.iter().zip(&measured) {
            let micros = |quantile| format!("{:.2} µs", histogram.value_at_quantile(quantile) as f64 / 1e3);
            let ratios = || rates.iter().zip(&bounded).map(|(rate, bounded)| rate / bounded);
            println!(
                "{keys:>8} {batch:>6} {:>14.0} {:>14.0} {:>7.2} {:>15} {:>12} {:>12}",
                median(rates.iter().copied()),
                median(bounded.iter().copied()),
                median(ratios()),
                format!(
                    "{:.2} to {:.2}",
                    ratios().fold(f64::INFINITY, f64::min),
                    ratios().fold(0.0, f64::max)
                ),
                micros(0.5),
                micros(0.99)
            );
        }
    }
}
