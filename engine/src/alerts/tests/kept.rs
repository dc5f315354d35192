//! What a checkpoint takes of alerts: those that changed, and no others.

use std::sync::Arc;

use super::House;
use crate::capture::Parts;
use usher_connectors::checkpoint::Part;

const BUSY: &str = "CREATE ALERT busy WITH (subject = 'zone', severity = 'info', raise = 'entered >= 10',
    clear = 'entered < 5', text = '{subject} is busy') AS
    SELECT site, zone, entered, event_time FROM gate";

/// Zones with an alert that stands, and as many with one that is over.
const ZONES: usize = 300;

fn full() -> House {
    let mut house = House::of(BUSY);
    for zone in 0..2 * ZONES {
        house.pass(1, &format!("z{zone}"), 12);
    }
    for zone in ZONES..2 * ZONES {
        house.pass(2, &format!("z{zone}"), 1);
    }
    assert_eq!(house.perception.alerts.open().len(), ZONES);
    house
}

/// Rows that a checkpoint takes on the pipeline's task.
fn taken(house: &mut House) -> usize {
    house.perception.capture().expect("it can be captured").taken_rows()
}

#[test]
fn of_many_alerts_those_alone_are_captured_that_changed() {
    let mut house = full();
    // Ahead of the first one, bit by bit.
    for _ in 0..10 {
        let mut room = 20;
        house.perception.gather(&mut room).expect("it can be captured");
        assert_eq!(room, 0, "a turn takes what there is room for and no more");
    }
    let all = taken(&mut house);
    assert!(all >= 2 * ZONES, "{all} rows");
    assert_eq!(taken(&mut house), 0, "nothing has changed");
    house.pass(3, "z7", 20);
    let few = taken(&mut house);
    assert!((1..10).contains(&few), "of one that changed {few} rows were captured");
    house.pass(4, "z7", 1);
    let few = taken(&mut house);
    assert!((1..10).contains(&few), "of one that is over {few} rows were captured");
}

#[test]
fn what_changes_between_all_turns_is_not_taken_in_each_of_them() {
    let at_once = taken(&mut full());
    let mut house = full();
    // An alert comes and goes; devices and zones, of which there are many, are taken behind alerts.
    let mut turns = 0;
    loop {
        turns += 1;
        let entered = if turns % 2 == 0 { 12 } else { 1 };
        house.pass(10 + turns as i64, "z7", entered);
        let mut room = 20;
        house.perception.gather(&mut room).expect("it can be captured");
        if room > 0 {
            break;
        }
    }
    let all = taken(&mut house);
    assert!(turns > 4 * ZONES / 20, "{turns} turns");
    // In each two rows change: the alert that stands, or one more that is over.
    assert!(
        all < at_once + turns * 3 / 2,
        "{all} rows in {turns} turns, and {at_once} at once"
    );
}

#[test]
fn alerts_that_were_captured_bit_by_bit_are_those_that_there_were() {
    let mut house = full();
    let mut chain: std::collections::BTreeMap<String, Vec<bytes::Bytes>> = std::collections::BTreeMap::new();
    for number in 0..40 {
        let mut room = number % 7;
        house.perception.gather(&mut room).expect("it can be captured");
        house.pass(
            10 + number as i64,
            &format!("z{}", 17 * number),
            if number % 3 == 0 { 1 } else { 30 },
        );
        if number % 4 > 0 {
            continue;
        }
        let changes = house.perception.capture().expect("it can be captured").written();
        for change in changes.expect("it can be written") {
            let segments = chain.entry(change.name).or_default();
            if change.begins_anew {
                segments.clear();
            }
            segments.extend(change.segments);
        }
    }
    let parts = chain.iter().map(|(name, segments)| Part {
        name: name.clone(),
        segments: segments.clone(),
    });
    let mut again = House::of(BUSY);
    again
        .perception
        .restore(&Parts::new(parts.collect()), super::NINE)
        .expect("it can be read");
    // The last three events came behind the last checkpoint.
    for number in 37..40 {
        again.events = house.events - (40 - number);
        let entered = if number % 3 == 0 { 1 } else { 30 };
        again.pass(10 + number as i64, &format!("z{}", 17 * number), entered);
    }
    let seen = |house: &House| {
        let open = house.perception.alerts.open().into_iter().cloned().collect::<Vec<_>>();
        let cleared = house.perception.alerts.cleared().map(Arc::clone).collect::<Vec<_>>();
        format!("{open:#?} {cleared:#?}")
    };
    assert_eq!(seen(&again), seen(&house));
}
