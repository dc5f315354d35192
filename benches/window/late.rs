//! How long the close of a large overlapping window keeps others waiting where late rows come for it meanwhile.

use std::time::Duration;

use usher_queries::flow::Flow;
use usher_queries::row::Rows;

use crate::many::created;
use crate::rows;
use crate::turns::Longest;

/// Rows a second of event time, and a slide of the windows, seconds.
const ROWS_A_SECOND: usize = 100_000;
const SLIDE: usize = 5;
/// Late rows that come together, as a gateway sends what it held back.
const HELD_BACK: usize = 64;
/// The first windows make room.
const FIRST: usize = 8;
const WINDOWS: usize = 24;

/// A late row or a batch of them comes between any two turns in which a window of 100,000 keys is closed.
pub(crate) fn closing() {
    println!(
        "\n{:>22} {:>9} {:>6} {:>13} {:>13} {:>14}",
        "late rows, HOP", "whole", "turns", "longest turn", "one late row", "64 late rows"
    );
    for aggregates in [
        "count(*) AS events, sum(entered) AS entered",
        "avg(entered) AS entered, max(exited) AS exited",
    ] {
        let longest = close(aggregates);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{:>22} {:>6.1} ms {:>6} {:>10.2} ms {:>10.3} ms {:>11.3} ms",
            aggregates
                .replace(" AS entered", "")
                .replace(" AS events", "")
                .replace(" AS exited", ""),
            ms(longest.whole),
            longest.turns / (WINDOWS - FIRST),
            ms(longest.turn),
            ms(longest.row),
            ms(longest.batch)
        );
    }
}

fn close(aggregates: &str) -> Longest {
    let mut queries = created(&format!(
        "CREATE QUERY w WITH (lateness = '10 seconds', memory = '4 GiB') AS
         SELECT device, window_start, window_end, {aggregates}
         FROM HOP(gate, event_time, INTERVAL '{SLIDE} seconds', INTERVAL '30 seconds')
         GROUP BY device, window_start, window_end"
    ));
    let (mut longest, mut said) = (Longest::default(), Vec::new());
    let slide = SLIDE * ROWS_A_SECOND;
    for window in 0..WINDOWS {
        // Each pane holds all keys.
        let from = window * slide;
        let flow = Flow::at_watermark(rows(from, 2 * 100_000, 100_000), i64::MIN);
        queries.push("gate", &Rows::Many(flow), &mut said);
        said.clear();
        let end = ((window + 1) * SLIDE) as i64 * 1_000_000;
        if window == FIRST {
            longest = Longest::default();
        }
        longest.close(&mut queries, end, |turn, _| {
            // By turns of the latest pane and of the one before it.
            let back = (turn % 2) * slide.min(from);
            rows(from - back + 200_000 + turn * HELD_BACK, HELD_BACK, 100_000)
        });
    }
    assert_eq!(queries.queries()[0].broken(), None);
    longest
}
