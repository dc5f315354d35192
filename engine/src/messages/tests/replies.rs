//! Replies that answer nothing come to nothing: invented ids, messages to somebody else, answers that come late or again, and
//! messages that were never sent.

use std::collections::BTreeSet;
use std::time::Duration;

use rustc_hash::FxHashSet;
use serde_json::{Map, Value as Json, json};
use usher_queries::bounded;
use usher_queries::rows::batch_to_json;
use usher_queries::shipped::SHIPPED;
use usher_queries::statement::parse_statements;
use usher_queries::streams::MESSAGE;

use super::{House, RULES, SITE, perception, pseudonym, settings};
use crate::alert::Trace;
use crate::event::Event;
use crate::fixture;
use crate::measures::shown_rows;
use crate::people::PersonView;
use crate::perception::Perception;
use crate::settings::EngagementSettings;
use crate::tables::{message_stream, messages_of, streams_of};

const DAY: i64 = 86_400;

/// A shipped query.
fn shipped(name: &str) -> String {
    let mut all = SHIPPED
        .iter()
        .flat_map(|file| parse_statements(file.text).expect("it is right"));
    let found = all.find(|statement| statement.name == name);
    found.expect("it is shipped").sql
}

fn sql() -> String {
    format!("{RULES}{};{};", shipped("grant_feedback"), shipped("measure_trust"))
}

fn house() -> House {
    House::making(|| perception(SITE, &sql(), &settings(|_| {})))
}

fn replies(house: &mut House, seconds: i64, person: &str, message: &str, rest: &str) {
    let payload = format!(r#"{{"person":"{person}","message":"{message}","response":{rest}}}"#);
    house.hear(seconds, "web/reply/app", &payload);
}

/// The message that a person was sent last.
fn sent(house: &House, person: &str) -> String {
    let messages = house.messages(person);
    messages.into_iter().next().expect("one was sent").id
}

fn view(house: &House, person: &str) -> PersonView {
    let clock = house.perception.clock_us().expect("something came");
    let view = house.perception.people.get(&pseudonym(person), clock);
    view.expect("the person is known")
}

/// Answer rate, trust and points.
fn found(house: &House, person: &str) -> (Option<f64>, Option<f64>, u64) {
    let view = view(house, person);
    let points = house.perception.points.balance(&pseudonym(person));
    (view.answer_rate, view.trust, points)
}

/// Site and counts of `measure_trust`, window by window.
fn trust(rows: impl IntoIterator<Item = Map<String, Json>>) -> Vec<Json> {
    let columns = [
        "window_start",
        "accepted",
        "declined",
        "opted_out",
        "came_again",
        "came",
        "trust",
    ];
    let figures = |row: Map<String, Json>| columns.iter().map(|column| row[*column].clone()).collect();
    let mut rows: Vec<Json> = rows.into_iter().map(figures).collect();
    rows.sort_by_key(ToString::to_string);
    rows
}

fn measured(perception: &Perception) -> Vec<Json> {
    trust(shown_rows(&perception.measures.kept("measure_trust"), 1))
}

/// Ann accepts and rates what she was sent, cat answers too late and rates, dan declines, bob makes it up, eve opts out.
fn some_days() -> House {
    let mut house = house();
    house.ask(0, "ann");
    let to_ann = sent(&house, "ann");
    for number in 0..5 {
        replies(
            &mut house,
            10 + number,
            "bob",
            &format!("made-up-{number}"),
            r#""accepted","rating":5"#,
        );
    }
    replies(&mut house, 20, "bob", &to_ann, r#""declined","rating":1"#);
    replies(&mut house, 30, "ann", &to_ann, r#""opened""#);
    replies(&mut house, 60, "ann", &to_ann, r#""accepted","rating":4"#);
    for (seconds, rest) in [(70, r#""accepted","rating":5"#), (80, r#""declined","rating":1"#)] {
        replies(&mut house, seconds, "ann", &to_ann, rest);
    }
    house.ask(1_000, "cat");
    let to_cat = sent(&house, "cat");
    house.wait(1_700);
    // It stood until ten minutes behind 1,001 seconds.
    replies(&mut house, 2_000, "cat", &to_cat, r#""accepted""#);
    replies(&mut house, 2_010, "cat", &to_cat, r#""accepted","rating":3"#);
    replies(&mut house, 2_020, "cat", &to_cat, r#""opened","rating":5"#);
    house.ask(3_000, "dan");
    let to_dan = sent(&house, "dan");
    replies(&mut house, 3_060, "dan", &to_dan, r#""declined""#);
    house.ask(4_000, "eve");
    let to_eve = sent(&house, "eve");
    replies(&mut house, 4_060, "eve", &to_eve, r#""opted_out","rating":5"#);
    // In the next four weeks, which begin on 16 March, dan comes again and accepts.
    house.ask(20 * DAY, "dan");
    let to_dan = sent(&house, "dan");
    replies(&mut house, 20 * DAY + 60, "dan", &to_dan, r#""accepted""#);
    replies(&mut house, 20 * DAY + 61, "bob", &to_dan, r#""accepted","rating":5"#);
    house.search(21 * DAY, "ann", "cats");
    house
}

fn expected() -> Vec<Json> {
    // One of three answers says yes, and opting out is the strongest no; of ann, bob, cat and dan nobody had come before, and eve is
    // forgotten: ½ × 1/3 + ½ × 0/4. Then the one answer says yes, and dan and bob had come before: ½ + ½ × 2/2.
    vec![
        json!(["2026-02-16T00:00:00Z", 1, 1, 1, 0, 4, 0.167]),
        json!(["2026-03-16T00:00:00Z", 1, 0, 0, 2, 2, 1]),
    ]
}

#[test]
fn what_answers_no_message_of_ones_own_in_time_says_nothing() {
    let house = some_days();
    // The rule's 5 points and 2 for the first rating; one of one was accepted, and of two visits one followed another.
    assert_eq!(found(&house, "ann"), (Some(1.0), Some(0.75), 7));
    // Nobody wrote to bob, whose two visits are of replies alone.
    assert_eq!(found(&house, "bob"), (None, Some(0.5), 0));
    // No points for what was too late, and 2 for the rating; no answer in time.
    assert_eq!(found(&house, "cat"), (Some(0.0), Some(0.0), 2));
    // One declined, then one accepted; of two visits one followed another.
    assert_eq!(found(&house, "dan"), (Some(1.0), Some(0.5), 5));
    assert_eq!(measured(&house.perception), expected());
}

#[test]
fn what_was_withheld_can_be_neither_answered_nor_rated() {
    let mut house = House::making(|| perception(SITE, &sql(), &settings(|messages| messages.holdout = 1.0)));
    house.ask(0, "ann");
    for message in house.messages("ann") {
        assert_eq!(message.state.as_str(), "withheld");
        replies(&mut house, 10, "ann", &message.id, r#""accepted","rating":5"#);
    }
    assert_eq!(found(&house, "ann"), (None, Some(0.0), 0));
    house.search(DAY, "ann", "cats");
    assert_eq!(
        measured(&house.perception),
        [json!(["2026-02-16T00:00:00Z", 0, 0, 0, 0, 1, 0])]
    );
}

#[test]
fn a_message_is_rated_once_whenever_that_is() {
    let mut house = some_days();
    let rows = messages_of(
        &house.heard,
        perception(SITE, RULES, &settings(|_| {})),
        &FxHashSet::default(),
        None,
    );
    let (_, batches) = message_stream(rows);
    let rated: Vec<Json> = batches
        .iter()
        .flat_map(batch_to_json)
        .filter(|row| row["state"] == "rated")
        .map(|row| json!([row["person"], row["rating"], row["event_time"]]))
        .collect();
    assert_eq!(
        rated,
        [
            json!([pseudonym("ann"), 4, "2026-03-02T01:01:00Z"]),
            json!([pseudonym("cat"), 3, "2026-03-02T01:33:30Z"]),
        ]
    );
    house.restart();
    let offers = house.messages("ann").into_iter();
    let mut to_ann = offers
        .filter(|message| message.kind == "seat_offer")
        .map(|message| message.id);
    let to_ann = to_ann.next_back().expect("one was sent");
    replies(&mut house, 21 * DAY + 60, "ann", &to_ann, r#""opened","rating":5"#);
    assert_eq!(found(&house, "ann").2, 7, "it has a rating");
}

#[test]
fn answers_are_counted_beside_visits_the_same_in_any_batches_and_of_a_recording() {
    let house = some_days();
    let told = |batch: usize, turn: Option<Duration>| {
        let mut perception = perception(SITE, &sql(), &settings(|_| {}));
        for events in house.heard.chunks(batch) {
            if let Some(turn) = turn {
                perception.take_turns_of(turn);
            }
            perception.take(events, &|_| Trace::default());
            perception.take_messages();
        }
        while perception.has_work() {
            perception.work();
        }
        let people: BTreeSet<String> = ["ann", "bob", "cat", "dan"]
            .map(|person| {
                let clock = perception.clock_us().expect("something came");
                let view = perception.people.get(&pseudonym(person), clock);
                let points = perception.points.balance(&pseudonym(person));
                format!("{view:?} {points}")
            })
            .into();
        (measured(&perception), people)
    };
    let singly = told(1, None);
    assert_eq!(singly.0, expected());
    for (batch, turn) in [
        (3, None),
        (house.heard.len(), None),
        (1, Some(Duration::ZERO)),
        (4, Some(Duration::ZERO)),
        (house.heard.len(), Some(Duration::ZERO)),
    ] {
        assert_eq!(told(batch, turn), singly, "{batch}, {turn:?}");
    }
    let events: &[Event] = &house.heard;
    let places = fixture::places(SITE);
    let mut recorded = streams_of(events, &EngagementSettings::built_in(), FxHashSet::default(), &places);
    let fresh = perception(SITE, RULES, &settings(|_| {}));
    let rows = messages_of(events, fresh, &FxHashSet::default(), None);
    recorded.insert(MESSAGE.to_owned(), message_stream(rows));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime can be made");
    let said = runtime.block_on(bounded::run(&shipped("measure_trust"), &recorded));
    let (_, batches) = said.expect("it can be run");
    // A recording goes on until its last visits are over, that of ann among them.
    let counted = |row: &Json| json!([row[0], row[1], row[2], row[3]]);
    let of_recording = trust(batches.iter().flat_map(batch_to_json));
    assert_eq!(
        of_recording.iter().map(counted).collect::<Vec<_>>(),
        expected().iter().map(counted).collect::<Vec<_>>()
    );
}
