//! A course that crowds a zone is told of another, from readings to the message, under whichever names its members are read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use usher_queries::query_set::QuerySet;

use super::{no_trace, saved};
use crate::check::load_queries;
use crate::erasure::{Erasure, Mark};
use crate::fixture::{self, NINE};
use crate::groups::Groups;
use crate::messages::{MessageState, MessageView};
use crate::perception::{Perception, PerceptionOptions};
use crate::record::Record;
use crate::reference::set_references;
use crate::settings::{Flags, Settings};

const SITE: &str = r#"
[[site]]
id = "main"
time_zone = "Asia/Shanghai"
[[zone]]
site = "main"
id = "room"
name = { en = "Reading room", zh = "阅览室" }
capacity = 50
parent = "floor"
[[zone]]
site = "main"
id = "annex"
name = { en = "Annex", zh = "附楼" }
capacity = 40
[[zone]]
site = "main"
id = "floor"
capacity = 200
"#;

/// Eight of a course of nine are known by their cards, and the eighth of them by the login.
const GROUPS: &str = "person,group
card-1,HIS-101
card-2,HIS-101
card-3,HIS-101
card-4,HIS-101
card-5,HIS-101
card-6,HIS-101
card-7,HIS-101
login-8,HIS-101
card-9,HIS-101
card-10,ART-2
";

fn pseudonym(name: &str) -> Arc<str> {
    Arc::clone(fixture::secret().person(name).shared())
}

/// The shipped rules over that place; nobody is held out.
fn house() -> Perception {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("groups.csv"), GROUPS).expect("a file in it");
    let mut settings = Settings::load_with(None, [], &Flags::default()).expect("the defaults are right");
    (settings.time.delay, settings.time.idle) = (Duration::ZERO, Duration::from_micros(1));
    settings.messages.holdout = 0.0;
    let options = PerceptionOptions {
        groups: Groups::load(folder.path(), &fixture::secret()).expect("it is right"),
        ..PerceptionOptions::of(&settings)
    };
    let places = fixture::places(SITE);
    let mut queries = QuerySet::new();
    set_references(&mut queries, &places);
    load_queries(&mut queries, Path::new("")).expect("the shipped queries are right");
    Perception::new(options, places, queries)
}

fn hear(house: &mut Perception, second: i64, topic: &str, payload: &str) {
    let payload = payload.replacen('{', &format!(r#"{{"id":"e{second}","#), 1);
    house.take(&fixture::events([(second, topic, payload)]), &no_trace);
}

fn reads(house: &mut Perception, second: i64, name: &str) {
    let read = format!(r#"{{"tag":"E1","person":"{name}"}}"#);
    hear(house, second, "room/rfid/reader", &read);
}

/// So many are in the room, in the annex and on the floor; then the names are read in the room, and five minutes are over.
fn morning(house: &mut Perception, inside: [i64; 3], names: &[&str]) {
    for (second, (zone, inside)) in (10..).zip(["room", "annex", "floor"].into_iter().zip(inside)) {
        let topic = format!("{zone}/gate/door-of-{zone}");
        hear(house, second, &topic, &format!(r#"{{"in":{inside}}}"#));
    }
    for (second, name) in (60..).zip(names) {
        reads(house, second, name);
    }
    let last = "lobby/gate/door-of-lobby";
    hear(house, 310, last, r#"{"in":1}"#);
    hear(house, 320, last, r#"{"in":1}"#);
}

fn offers_to(house: &Perception, name: &str) -> Vec<MessageView> {
    let all = house.messages.of(&pseudonym(name)).into_iter();
    all.filter(|message| message.kind == "zone_offer" && message.state == MessageState::Sent)
        .collect()
}

/// Who was sent an offer.
fn offered<'n>(house: &Perception, names: &[&'n str]) -> Vec<&'n str> {
    let names = names.iter().copied();
    names.filter(|name| !offers_to(house, name).is_empty()).collect()
}

const LINK: &str = r#"{"person":"card-8","also":"login-8"}"#;
const EIGHT: [&str; 8] = [
    "card-1", "card-2", "card-3", "card-4", "card-5", "card-6", "card-7", "card-8",
];

#[test]
fn a_course_in_a_full_room_is_told_of_the_zone_that_has_room_for_it() {
    let mut house = house();
    hear(&mut house, 1, "desk/identify/desk", LINK);
    let everybody = [&EIGHT[..], &["card-10", "somebody"]].concat();
    // 46 of 50 in the room, 30 of 40 in the annex; the floor has most room, and the room is a part of it.
    morning(&mut house, [46, 30, 60], &everybody);
    assert_eq!(
        offered(&house, &everybody),
        EIGHT,
        "who is of another course, or of none, is told nothing"
    );
    let offer = offers_to(&house, "login-8").remove(0);
    assert_eq!(
        (offer.rule.as_str(), offer.zone.as_deref()),
        ("offer_other_zone", Some("annex"))
    );
    assert_eq!(
        offer.text.en,
        "8 of HIS-101 are in Reading room, which is 92 % full; Annex has room for 10 more"
    );
    assert_eq!(offer.text.zh, "HIS-101有8人在阅览室，那里已占92%；附楼还有10个空位");
    assert_eq!(offer.causes, ["e67", "e10", "e11"]);
}

#[test]
fn nothing_is_offered_where_too_few_are_there_or_nothing_is_full_or_nothing_is_free() {
    for (what, inside, is_linked) in [
        ("seven, for nobody knows whose the eighth card is", [46, 30, 60], false),
        ("88 % full", [44, 30, 60], true),
        ("room for seven in the annex", [46, 33, 60], true),
    ] {
        let mut house = house();
        if is_linked {
            hear(&mut house, 1, "desk/identify/desk", LINK);
        }
        morning(&mut house, inside, &EIGHT);
        assert_eq!(offered(&house, &EIGHT), [] as [&str; 0], "{what}");
    }
}

#[test]
fn who_refuses_to_be_recognised_is_not_counted_and_told_nothing() {
    let mut house = house();
    hear(&mut house, 1, "desk/identify/desk", LINK);
    hear(
        &mut house,
        2,
        "web/consent/app",
        r#"{"person":"card-1","purpose":"recognition","action":"refuse"}"#,
    );
    morning(&mut house, [46, 30, 60], &EIGHT);
    assert_eq!(offered(&house, &EIGHT), [] as [&str; 0], "seven are known to be there");
}

#[test]
fn who_is_erased_is_in_no_group_until_the_file_says_it_again() {
    let mut house = house();
    hear(&mut house, 1, "desk/identify/desk", LINK);
    let salt = [7; 32];
    let names = ["card-8", "login-8"].map(pseudonym);
    house.apply(&Record::Erased(Erasure {
        id: "e-1".to_owned(),
        at_us: NINE,
        by: "desk".to_owned(),
        salt,
        marks: names.iter().map(|name| Mark::of(&salt, name)).collect(),
    }));
    let mut again = self::house();
    again.restore(&saved(&mut house), NINE).expect("it can be read");
    morning(&mut house, [46, 30, 60], &[&EIGHT[..7], &["login-8"]].concat());
    assert_eq!(offered(&house, &EIGHT), [] as [&str; 0]);
    // The next start reads the file.
    morning(&mut again, [46, 30, 60], &[&EIGHT[..7], &["login-8"]].concat());
    assert_eq!(offered(&again, &[&EIGHT[..7], &["login-8"]].concat()).len(), 8);
}
