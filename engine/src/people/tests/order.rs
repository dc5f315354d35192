//! The order in which acts come within the delay makes no difference, nor where a process ended.

use std::time::Duration;

use serde_json::json;

use super::{DAY, HOUR, MONDAY, SITE, Story};
use crate::capture::{Entries, Since};
use crate::event::Event;
use crate::fixture;
use crate::people::figures::Figures;
use crate::people::{Known, People, Waiting};
use crate::settings::EngagementSettings;

const MINUTE: i64 = HOUR / 60;
const DELAY: i64 = 20 * MINUTE;
/// Of what waits, in a piece.
const ACTS_AT_ONCE: usize = 2;

/// Numbers that are the same for the same seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Half a year of twelve people, some of whom come rarely, in the order of time.
fn half_a_year(draw: &mut Draw) -> Vec<Event> {
    let mut story = Story::new();
    let mut rows = Vec::new();
    for person in 0..12 {
        let (mut at_us, pause) = (MONDAY + draw.below(200) as i64 * HOUR, 1 + draw.below(40));
        while at_us < MONDAY + 180 * DAY {
            for _ in 0..1 + draw.below(6) {
                rows.push((at_us, person));
                // Some at the same instant, some just within and just beyond a gap.
                at_us += [0, 1, 10, 44, 45, 46][draw.below(6) as usize] * MINUTE;
            }
            at_us += draw.below(pause * 48) as i64 * HOUR;
        }
    }
    rows.sort_unstable();
    let mut events = Vec::new();
    for (number, (at_us, person)) in rows.into_iter().enumerate() {
        let (id, person) = (format!("e{number}"), format!("p{person}"));
        let answer = ["accepted", "declined"][draw.below(2) as usize];
        let (topic, payload) = match draw.below(9) {
            0..=2 => ("lobby/rfid/gate", json!({"id": id, "tag": "E1", "person": person})),
            3 => (
                "reading-room/rfid/shelf",
                json!({"id": id, "tag": "E1", "person": person}),
            ),
            4 => ("lobby/rfid/way-out", json!({"id": id, "tag": "E1", "person": person})),
            5 => (
                "lobby/rfid/desk",
                json!({"id": id, "tag": format!("B{}", draw.below(3)), "action": "checkout", "person": person}),
            ),
            6 => (
                "web/click/c",
                json!({"id": id, "person": person, "action": "search", "count": 1 + draw.below(4), "results": draw.below(3)}),
            ),
            7 => (
                "web/click/c",
                json!({"id": id, "person": person, "action": "request", "item": format!("B{}", draw.below(3))}),
            ),
            _ => (
                "web/reply/app",
                json!({"id": id, "person": person, "message": "m", "response": answer}),
            ),
        };
        events.push(story.event(at_us, topic, &payload));
    }
    events
}

/// Each event comes up to the delay later than it happened.
fn shuffled(events: &[Event], draw: &mut Draw) -> Vec<Event> {
    let mut comes: Vec<(i64, usize)> = events
        .iter()
        .enumerate()
        .map(|(number, event)| (event.time_us + draw.below(DELAY as u64) as i64, number))
        .collect();
    comes.sort_unstable();
    comes.into_iter().map(|(_, number)| events[number].clone()).collect()
}

fn rows_of(people: &mut People, said: &mut Vec<String>) {
    for (stream, rows) in people.drain() {
        let flow = rows.flow();
        for row in 0..flow.num_rows() {
            let met = rows.watermark(row);
            let values = usher_queries::rows::row_to_json(&flow.batch, row);
            said.push(format!("{stream} at {met}: {}", serde_json::Value::Object(values)));
        }
    }
}

/// Everybody in the end, and all rows in their order. `step` may do what it likes behind each event.
fn told(events: &[Event], mut step: impl FnMut(People, i64) -> People) -> (String, Vec<String>) {
    let places = fixture::places(SITE);
    let mut people = People::new(EngagementSettings::built_in());
    let (mut said, mut newest) = (Vec::new(), i64::MIN);
    for event in events {
        let met = newest.saturating_sub(DELAY);
        people.take(event, met, &places);
        newest = newest.max(event.time_us);
        people = step(people, newest - DELAY);
        rows_of(&mut people, &mut said);
    }
    let end = MONDAY + 400 * DAY;
    people.advance(end);
    rows_of(&mut people, &mut said);
    // Of different streams, and said for the same instant: each by itself is in order.
    said.sort_by_key(|row| row.split(" at ").next().map(str::to_owned));
    (format!("{:?}", people.table(end)), said)
}

#[test]
fn in_half_a_year_loans_serve_what_was_asked_for_and_people_take_part() {
    let (events, places) = (half_a_year(&mut Draw(1)), fixture::places(SITE));
    let mut people = People::new(EngagementSettings::built_in());
    for event in &events {
        people.take(event, event.time_us, &places);
    }
    let names: Vec<String> = (0..12).map(|person| super::pseudonym(&format!("p{person}"))).collect();
    let relations = names
        .iter()
        .filter_map(|name| people.figures(name))
        .map(Figures::relation);
    let found: Vec<(u32, u32, u32)> = relations
        .map(|relation| (relation.requests, relation.served, relation.took_part))
        .collect();
    // What the tests below compare is there to be compared: some got a part of what they asked for.
    let has_some = |(requests, served, took_part): &&(u32, u32, u32)| (1..*requests).contains(served) && *took_part > 0;
    assert!(found.iter().filter(has_some).count() > 3, "{found:?}");
}

#[test]
fn the_order_within_the_delay_makes_no_difference() {
    for seed in 1..=20 {
        let mut draw = Draw(seed);
        let events = half_a_year(&mut draw);
        let in_order = told(&events, |people, _| people);
        assert!(in_order.1.len() > 200, "seed {seed}: {}", in_order.1.len());
        let late = shuffled(&events, &mut draw);
        assert_ne!(events, late);
        assert_eq!(told(&late, |people, _| people), in_order, "seed {seed}");
        // And with a clock that ticks between them, as it likes.
        let ticking = told(&late, |mut people, watermark| {
            people.advance(watermark);
            people
        });
        assert_eq!(ticking, in_order, "seed {seed}, ticking");
    }
}

/// The chain of what was captured.
#[derive(Default)]
struct Chained {
    rows: Entries<std::sync::Arc<str>, Known>,
    waiting: Vec<Waiting>,
}

impl Chained {
    fn take(&mut self, people: &mut People) {
        let Since { begins_anew, rows } = people.capture();
        if begins_anew {
            self.rows.clear();
        }
        let bytes = postcard::to_stdvec(&rows).expect("it can be written");
        let rows: Entries<std::sync::Arc<str>, Known> = postcard::from_bytes(&bytes).expect("it can be read");
        self.rows.extend(rows);
        let pieces = people.capture_waiting().pieces(ACTS_AT_ONCE);
        let read = |piece: Result<Vec<u8>, String>| {
            let bytes = piece.expect("it can be written");
            postcard::from_bytes(&bytes).expect("it can be read")
        };
        self.waiting = pieces.map(read).collect();
    }
}

/// Now and then somebody is forgotten, mostly in the middle of a visit, whose place the next newcomer gets.
#[derive(Default)]
struct Forgetting {
    events: u64,
    forgotten: usize,
}

impl Forgetting {
    fn step(&mut self, people: &mut People) {
        self.events += 1;
        let mut draw = Draw(self.events);
        if draw.below(25) == 0 {
            let person = super::pseudonym(&format!("p{}", draw.below(12)));
            self.forgotten += usize::from(people.knows(&person));
            people.opt_out(&person.into());
        }
    }
}

#[test]
fn a_restart_at_any_record_makes_no_difference() {
    for seed in 1..=12 {
        let mut draw = Draw(seed);
        let events = half_a_year(&mut draw);
        let events = shuffled(&events, &mut draw);
        let mut forgetting = Forgetting::default();
        let whole = told(&events, |mut people, _| {
            forgetting.step(&mut people);
            people
        });
        assert!(forgetting.forgotten > 10, "seed {seed}: {}", forgetting.forgotten);
        let mut chain = Chained::default();
        let (mut restarts, mut pieces_max, mut forgetting) = (0, 0, Forgetting::default());
        let restarting = told(&events, |mut people, _| {
            forgetting.step(&mut people);
            match draw.below(40) {
                0..=3 => {
                    let mut room = draw.below(9) as usize;
                    people.gather(&mut room);
                }
                4 => chain.take(&mut people),
                5 => {
                    chain.take(&mut people);
                    // What has been found out and not said yet is said before a capture in the engine.
                    let mut again = People::new(EngagementSettings::built_in());
                    pieces_max = pieces_max.max(chain.waiting.len());
                    again.restore(std::mem::take(&mut chain.rows), std::mem::take(&mut chain.waiting));
                    again.said = std::mem::take(&mut people.said);
                    people = again;
                    restarts += 1;
                }
                _ => {}
            }
            people
        });
        assert!(restarts > 3, "seed {seed}: {restarts}");
        assert!(pieces_max > 1, "seed {seed}: what waits was never more than a piece");
        assert_eq!(restarting, whole, "seed {seed}, {restarts} restarts");
    }
}

#[test]
fn settings_with_fewer_tiers_take_what_others_kept() {
    let mut story = Story::new();
    for number in 0..30 {
        let lend = json!({"id": format!("l{number}"), "tag": "B1", "action": "checkout", "person": "ada"});
        story.on(MONDAY + number, "lobby/rfid/desk", &lend);
    }
    story.people.advance(MONDAY + DAY);
    let mut chain = Chained::default();
    chain.take(&mut story.people);
    let mut settings = EngagementSettings::built_in();
    settings.tiers.truncate(1);
    settings.visit_gap = Duration::from_secs(60);
    let mut people = People::new(settings);
    people.restore(chain.rows, chain.waiting);
    people.advance(MONDAY + 90 * DAY);
    let view = people
        .get(&super::pseudonym("ada"), MONDAY + 90 * DAY)
        .expect("she is known");
    assert_eq!((view.tier.as_str(), view.life_cycle), ("occasional", "drifting"));
}
