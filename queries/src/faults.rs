//! What a fault in the engine stops: a function that panics, which only tests know, and who goes on beside it.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

use crate::query::Output;
use crate::query_set::QuerySet;
use crate::query_set::tests::{MINUTE_SUMS, SECOND, gate, said, set_of};

/// `unlucky(n)` is `n`, and panics where that is 13.
pub(crate) fn unlucky() -> ScalarUDF {
    let numbers = vec![DataType::Int64];
    create_udf(
        "unlucky",
        numbers,
        DataType::Int64,
        Volatility::Volatile,
        Arc::new(|arguments: &[ColumnarValue]| {
            let numbers = ColumnarValue::values_to_arrays(arguments)?;
            let has_thirteen = numbers[0].as_primitive::<Int64Type>().iter().any(|n| n == Some(13));
            assert!(!has_thirteen, "thirteen is here");
            Ok(arguments[0].clone())
        }),
    )
}

fn reason<'a>(queries: &'a QuerySet, name: &str) -> Option<&'a str> {
    queries.get(name).expect("it was created").broken()
}

#[test]
fn a_panic_stops_its_query_and_whoever_shares_its_window_and_no_other() {
    let sums = |name: &str, of: &str| {
        let like = MINUTE_SUMS.replace("QUERY sums", &format!("QUERY {name}"));
        like.replace(" GROUP BY", &format!(" WHERE unlucky({of}) > 0 GROUP BY"))
    };
    let mut queries = set_of(&[
        "CREATE QUERY passages AS SELECT zone, unlucky(entered) AS entered FROM gate",
        MINUTE_SUMS,
        &sums("shared", "entered"),
        &sums("shared_too", "entered"),
        "CREATE QUERY all_passages AS SELECT zone, entered FROM gate",
    ]);
    let mut outputs: Vec<Output> = Vec::new();
    queries.push("gate", &gate(&[(1, "a", 4)]), &mut outputs);
    for name in ["passages", "shared", "shared_too"] {
        assert_eq!(reason(&queries, name), None);
    }
    outputs.clear();
    queries.push("gate", &gate(&[(2, "a", 13), (3, "b", 1)]), &mut outputs);
    assert_eq!(said(&outputs, "passages"), Vec::<String>::new());
    assert_eq!(said(&outputs, "all_passages").len(), 2);
    for name in ["passages", "shared", "shared_too"] {
        assert_eq!(
            reason(&queries, name),
            Some("a fault in the engine: thirteen is here"),
            "{name}"
        );
    }
    outputs.clear();
    queries.push("gate", &gate(&[(4, "a", 1)]), &mut outputs);
    queries.advance(60 * SECOND, &mut outputs);
    assert_eq!(said(&outputs, "passages"), Vec::<String>::new(), "it has stopped");
    assert_eq!(said(&outputs, "all_passages").len(), 1);
    let sums = said(&outputs, "sums");
    assert!(sums.len() == 2 && sums[0].contains("\"entered\":18"), "{sums:?}");
    assert_eq!(
        (reason(&queries, "sums"), reason(&queries, "all_passages")),
        (None, None)
    );
}
