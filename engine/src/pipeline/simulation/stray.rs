//! An alert that was told of events which a crash took from the log, and which never come again.

use std::collections::BTreeMap;

use super::judge::retained;
use super::silence::House;

#[test]
fn what_was_raised_by_events_that_are_lost_does_not_stay_at_the_broker() {
    let mut house = House::open();
    let shown = |house: &House| {
        let mut shown = retained(&house.ground.broker.retained());
        shown.retain(|topic, _| topic.contains("/crowded/"));
        shown
    };
    let of = |topics: &[(&str, &str)]| {
        let topics = topics
            .iter()
            .map(|(topic, state)| (format!("usher/out/main/alert/{topic}"), (*state).to_owned()));
        topics.collect::<BTreeMap<String, String>>()
    };
    house.pass("hall", 12);
    house.wait(10);
    assert_eq!(shown(&house), of(&[("crowded/hall", "active")]));
    house.ground.log.set_full(true);
    house.pass("cafe", 12);
    house.wait(10);
    assert_eq!(
        shown(&house),
        of(&[("crowded/cafe", "active"), ("crowded/hall", "active")]),
        "it does not wait for the disk"
    );
    house.kill();
    house.wait(12);
    assert_eq!(shown(&house), of(&[("crowded/hall", "active")]));
}
