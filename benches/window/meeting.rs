//! How long the close of a large window keeps others waiting where events come meanwhile that meet it: in a union with the
//! window's rows, and in a join with them.

use std::time::{Duration, Instant};

use usher_queries::flow::Flow;
use usher_queries::query_set::QuerySet;
use usher_queries::row::Rows;

use crate::many::created;
use crate::rows;
use crate::turns::Longest;

const KEYS: usize = 100_000;
/// Events that come together between two turns, now and then.
const TOGETHER: usize = 64;
/// The first windows make room.
const FIRST: usize = 3;
const WINDOWS: usize = 11;
/// A cut is made of the last window behind so many turns.
const CUT_AFTER: usize = 60;

const UNION: &str = "CREATE QUERY both WITH (memory = '4 GiB') AS SELECT device, count(*) AS n, sum(entered) AS entered
    FROM (SELECT device, entered FROM w UNION ALL SELECT device, entered FROM gate) GROUP BY device";
const JOIN: &str = "CREATE QUERY pairs WITH (memory = '4 GiB') AS
    SELECT w.device, w.entered AS of_window, g.entered, g.event_time
    FROM w JOIN gate g ON w.device = g.device
    AND g.event_time BETWEEN w.window_end AND w.window_end + INTERVAL '5 seconds'";

/// An event or a batch of them comes between any two turns in which a window of 100,000 keys is closed.
pub(crate) fn closing() {
    println!(
        "\n{:>22} {:>9} {:>6} {:>13} {:>13} {:>13} {:>14} {:>13}",
        "events that meet it", "whole", "turns", "turn, 99.9 %", "longest turn", "one event", "64 events", "a cut"
    );
    for (name, sql) in [("union", UNION), ("join", JOIN)] {
        let (mut longest, cut) = close(sql);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{name:>22} {:>6.1} ms {:>6} {:>10.2} ms {:>10.2} ms {:>10.3} ms {:>11.3} ms {:>10.3} ms",
            ms(longest.whole),
            longest.turns / (WINDOWS - FIRST),
            ms(longest.turn_999()),
            ms(longest.turn),
            ms(longest.row),
            ms(longest.batch),
            ms(cut)
        );
    }
}

/// The longest of each, and of a cut.
fn close(sql: &str) -> (Longest, Duration) {
    let mut queries = created(&format!("{};\n{sql}", crate::SQL));
    let (mut longest, mut longest_cut, mut said) = (Longest::default(), Duration::ZERO, Vec::new());
    for window in 0..WINDOWS {
        let from = window * 1_000_000;
        let flow = Flow::at_watermark(rows(from, 2 * KEYS, KEYS), i64::MIN);
        queries.push("gate", &Rows::Many(flow), &mut said);
        said.clear();
        let end = (window as i64 + 1) * 10_000_000;
        if window == FIRST {
            longest = Longest::default();
        }
        longest.close(&mut queries, end, |turn, queries| {
            if turn == CUT_AFTER && window + 1 == WINDOWS {
                longest_cut = cut(queries);
            }
            rows(from + 1_000_000 + turn * TOGETHER, TOGETHER, KEYS)
        });
    }
    assert!(queries.queries().iter().all(|query| query.broken().is_none()));
    (longest, longest_cut)
}

/// How long a checkpoint's cut takes while a window is half said and rows wait, when all else was taken ahead of it.
fn cut(queries: &mut QuerySet) -> Duration {
    loop {
        let mut room = 1_024;
        queries.gather(&mut room).expect("it can be captured");
        if room > 0 {
            break;
        }
    }
    let started = Instant::now();
    let captured = queries.capture().expect("it can be captured");
    let took = started.elapsed();
    assert!(!captured.operators.is_empty());
    took
}
