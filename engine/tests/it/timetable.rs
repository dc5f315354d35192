//! A script that knows one person's timetable and asks everything that anybody may ask can't single them out.
//!
//! It asks before and after each act of the person and at every step, and looks for what would give them away: an id, a
//! small count, one that can be found by subtraction, a change behind which stand few, and any difference from a world in
//! which somebody else of those around the person had stayed at home.

mod day;
mod spy;

use self::day::{COMPANIONS, Day, K, TARGET};
use self::spy::{Seen, Spy};
use crate::TestResult;

/// What a spy sees of a day on which one person stays at home, or none.
async fn seen(absent: Option<usize>) -> Result<Seen, Box<dyn std::error::Error>> {
    Spy::watch(&Day::without(absent)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_singled_out_by_who_knows_their_timetable() -> TestResult {
    // They mostly wait, for devices to count as silent.
    let (whole, without) = tokio::try_join!(seen(None), seen(Some(TARGET)))?;
    whole.names_nobody();
    whole.counts_nobody_few();
    whole.hides_none_alone();
    whole.moves_by_enough();
    whole.says_something();
    assert!(COMPANIONS.count() as i64 >= K - 1);
    for pair in COMPANIONS.collect::<Vec<usize>>().chunks(2) {
        let [first, second] = [pair[0], pair[pair.len() - 1]];
        let (first_seen, second_seen) = tokio::try_join!(seen(Some(first)), seen(Some(second)))?;
        for (companion, others) in [(first, first_seen), (second, second_seen)] {
            without.is_as(
                &others,
                &format!("without {companion} it would look as without the person"),
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_else_is_served_where_anybody_can_ask() -> TestResult {
    Spy::finds_nothing_else().await
}
