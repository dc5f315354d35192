//! An engine that is given little of a core: a turn is over before much was done in it, and all comes to its end all the same.

use std::ops::Range;
use std::time::Duration;

use usher_connectors::delivery::Delivery;

use super::life::BATCH;
use super::silence::House;

/// As long as a turn of a checkpoint may last at first, and more.
const LOOK: Duration = Duration::from_micros(500);
/// Turns after which a checkpoint that does not come to its end would never do.
const TURNS: usize = 300;

/// Until the next checkpoint is due, and the one that the start brought about is written.
fn wait_for_the_first(house: &mut House) {
    house.wait(40);
    while house.life().pipeline.settler.is_saving() {
        house.wait(1);
    }
}

/// What 500 people look at.
fn clicks(house: &House, numbers: Range<usize>) -> Vec<Delivery> {
    let click = |number: usize| {
        let person = format!(r#""id":"{number}","person":"p{}","action":"view""#, number % 500);
        house.delivery("web/click/opac", &person)
    };
    numbers.map(click).collect()
}

#[test]
fn between_two_turns_of_a_checkpoint_messages_that_wait_are_taken() {
    let mut house = House::open();
    wait_for_the_first(&mut house);
    house.ground.log.set_instant(true);
    let mut messages = clicks(&house, 0..500);
    house.take(&mut messages);
    house.ground.clock.set_look(LOOK);
    while !house.life().pipeline.saving.is_gathering() {
        house.wait(1);
    }
    let messages = clicks(&house, 500..500 + 50 * BATCH);
    let seen = house.run(messages);
    let turns = seen[seen.len() - 1].1 - seen[0].1;
    assert!(turns > 10, "there were {turns} turns");
    for moments in seen.windows(3) {
        let (before, after) = (moments[0], moments[2]);
        assert!(before.0 > after.0, "{} messages waited for two turns in a row", after.0);
    }
}

#[test]
fn a_checkpoint_ends_though_more_changes_between_two_turns_than_there_is_time_to_take() {
    let mut house = House::open();
    let checkpoints = |house: &mut House| house.life().pipeline.latencies.checkpoint_pause.percentiles().count;
    wait_for_the_first(&mut house);
    let before = checkpoints(&mut house);
    house.ground.clock.set_look(LOOK);
    let waited = |house: &mut House| house.life().pipeline.latencies.checkpoint_turn.percentiles().count;
    let (mut number, mut turns, waited_before) = (0, 0, waited(&mut house));
    for turn in 0.. {
        assert!(turn < TURNS, "{number} messages, and no checkpoint in {turn} turns");
        let most = house.life().pipeline.saving.messages_max(BATCH);
        let mut messages = clicks(&house, number..number + most);
        number += most;
        house.take(&mut messages);
        turns += u64::from(house.life().pipeline.saving.is_gathering());
        house.turn();
        if checkpoints(&mut house) > before {
            break;
        }
    }
    // Each turn is a time for which events waited, and counts as one.
    let counted = waited(&mut house) - waited_before;
    assert!(turns > 1 && counted >= turns, "{counted} of {turns} turns were counted");
}
