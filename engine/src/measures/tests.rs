//! What is kept of a measure, and what of it is shown.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::{Value, json};
use usher_queries::flow::Flow;
use usher_queries::row::Rows;
use usher_queries::streams::time_type;

use super::{Measures, ROWS_MAX, shown_rows};

const DAY: i64 = 86_400_000_000;

fn rows(of: &[(&str, i64, i64, i64)]) -> Rows {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let schema = Schema::new(vec![
        field("site", DataType::Utf8),
        field("window_start", time_type()),
        field("searches", DataType::Int64),
        field("persons", DataType::Int64),
    ]);
    let batch = RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(StringArray::from_iter_values(of.iter().map(|row| row.0))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(
                of.iter().map(|row| row.1 * DAY),
            )),
            Arc::new(Int64Array::from_iter_values(of.iter().map(|row| row.2))),
            Arc::new(Int64Array::from_iter_values(of.iter().map(|row| row.3))),
        ],
    );
    Rows::Many(Flow::at_watermark(batch.expect("the columns fit"), 0))
}

fn figures(measures: &Measures, k: u32) -> Value {
    let rows = shown_rows(&measures.kept("measure_x"), k);
    let figures = rows
        .iter()
        .map(|row| json!([row["site"], row["searches"], row["persons"], row["few"]]));
    figures.collect()
}

#[test]
fn the_last_word_on_each_window_counts_and_few_people_are_not_counted() {
    let mut measures = Measures::new();
    measures.take(
        "measure_x",
        &rows(&[
            ("main", 2, 4, 5),
            ("main", 1, 9, 4),
            ("north", 1, 1, 7),
            ("west", 1, 3, 8),
        ]),
    );
    measures.take("measure_x", &rows(&[("main", 2, 6, 5)]));
    measures.take("measure_y", &rows(&[("main", 2, 8, 8)]));
    assert_eq!(
        figures(&measures, 5),
        json!([
            ["main", null, null, true],
            // All three may be known, so that two of them would tell the first.
            ["north", null, null, true],
            ["west", 3, 8, false],
            ["main", 6, 5, false]
        ])
    );
    assert_eq!(figures(&measures, 1)[0], json!(["main", 9, 4, false]));
    assert_eq!((measures.len("measure_x"), measures.len("measure_y")), (4, 1));

    let mut restored = Measures::new();
    restored.restore(measures.capture().rows.into_iter().collect());
    measures.take("measure_x", &rows(&[("south", 3, 1, 1)]));
    restored.restore(measures.capture().rows.into_iter().collect());
    assert_eq!(figures(&restored, 1), figures(&measures, 1));

    measures.keep_those_of(&[]);
    assert!(measures.is_empty("measure_x") && measures.is_empty("measure_y"));
}

#[test]
fn the_earliest_windows_make_room() {
    let mut measures = Measures::new();
    let last = i64::try_from(ROWS_MAX).expect("it is few") + 9;
    for day in 0..=last {
        measures.take("measure_x", &rows(&[("main", day, day, 9)]));
    }
    let kept = shown_rows(&measures.kept("measure_x"), 5);
    assert_eq!(kept.len(), ROWS_MAX);
    assert_eq!(
        (&kept[0]["searches"], &kept[ROWS_MAX - 1]["searches"]),
        (&json!(10), &json!(last))
    );
}
