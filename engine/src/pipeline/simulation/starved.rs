//! An engine that is given little of a core: a turn is over before much was done in it, and all comes to its end all the same.

use std::time::Duration;

use usher_connectors::delivery::Delivery;

use super::life::BATCH;
use super::silence::House;

/// As long as a turn of a checkpoint may last at first, and more.
const LOOK: Duration = Duration::from_micros(500);
/// Turns after which a checkpoint that does not come to its end would never do.
const TURNS: usize = 300;

#[test]
fn a_checkpoint_ends_though_more_changes_between_two_turns_than_there_is_time_to_take() {
    let mut house = House::open();
    let checkpoints = |house: &mut House| house.life().pipeline.latencies.checkpoint_pause.percentiles().count;
    // Until one is due, and the one that the start brought about is written.
    house.wait(40);
    while house.life().pipeline.settler.is_saving() {
        house.wait(1);
    }
    let before = checkpoints(&mut house);
    house.ground.clock.set_look(LOOK);
    let mut number = 0;
    for turn in 0.. {
        assert!(turn < TURNS, "{number} messages, and no checkpoint in {turn} turns");
        let most = house.life().pipeline.saving.messages_max(BATCH);
        let messages = (0..most).map(|_| {
            number += 1;
            let person = format!(r#""id":"{number}","person":"p{}","action":"view""#, number % 500);
            house.delivery("web/click/opac", &person)
        });
        let mut messages: Vec<Delivery> = messages.collect();
        house.take(&mut messages);
        house.turn();
        if checkpoints(&mut house) > before {
            break;
        }
    }
}
