//! Each formula of docs/ENGAGEMENT.md with the numbers that stand there, worked out by hand.

mod late;
mod order;
mod recordings;
mod relation;

use std::sync::Arc;

use serde_json::{Value, json};
use usher_queries::rows::row_to_json;

use super::{OfMessage, People, PersonView};
use crate::consent::Deciding;
use crate::event::Event;
use crate::fixture;
use crate::settings::EngagementSettings;
use crate::site::Places;

/// Monday, 2 March 2026, midnight UTC; microseconds.
const MONDAY: i64 = 1_772_409_600_000_000;
const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

const SITE: &str = r#"
[[site]]
id = "main"
[[zone]]
site = "main"
id = "lobby"
[[zone]]
site = "main"
id = "reading-room"
[[device]]
site = "main"
zone = "lobby"
id = "way-out"
kind = "rfid"
role = "exit"
"#;

/// What a person does, told as it happens.
struct Story {
    people: People,
    places: Arc<Places>,
    decoder: crate::decode::Decoder,
}

fn at(day: i64, clock: &str) -> i64 {
    let (hours, minutes) = clock.split_once(':').expect("hours and minutes");
    let whole = |text: &str| text.parse::<i64>().expect("a number");
    MONDAY + day * DAY + whole(hours) * HOUR + whole(minutes) * HOUR / 60
}

impl Story {
    fn new() -> Self {
        Self {
            people: People::new(EngagementSettings::built_in()),
            places: fixture::places(SITE),
            decoder: fixture::decoder(),
        }
    }

    fn event(&mut self, at_us: i64, topic: &str, payload: &Value) -> Event {
        let decoded = self
            .decoder
            .decode(&format!("usher/in/main/{topic}"), payload.to_string().as_bytes(), at_us);
        assert_eq!(decoded.refused, []);
        decoded.events.into_iter().next().expect("one event")
    }

    /// In the order of time; the watermark follows.
    fn on(&mut self, at_us: i64, topic: &str, payload: &Value) {
        let event = self.event(at_us, topic, payload);
        match Deciding::of(&event) {
            Some(deciding) if !deciding.holds => self.people.opt_out(deciding.person),
            _ => self.people.take(&event, at_us, &self.places),
        }
    }

    /// A click, which is a visit of one moment.
    fn clicks(&mut self, person: &str, at_us: i64) {
        self.on(at_us, "web/click/c", &json!({"person": person, "action": "view"}));
    }

    /// That became of a message to a person.
    fn message(&mut self, person: &str, what: OfMessage) {
        let person: Arc<str> = pseudonym(person).into();
        self.people.note_message(&person, &person, what);
    }

    fn view(&self, person: &str, clock_us: i64) -> PersonView {
        let person = pseudonym(person);
        self.people.get(&person, clock_us).expect("the person is known")
    }

    /// The rows of a stream that were said up to a watermark, since the last call.
    fn said(&mut self, until_us: i64) -> Vec<(&'static str, Value)> {
        self.people.advance(until_us);
        let mut said = Vec::new();
        for (stream, rows) in self.people.drain() {
            let flow = rows.flow();
            said.extend((0..flow.num_rows()).map(|row| (stream, Value::Object(row_to_json(&flow.batch, row)))));
        }
        said
    }

    fn rows(&mut self, stream: &str, until_us: i64) -> Vec<Value> {
        let said = self.said(until_us).into_iter().filter(|(of, _)| *of == stream);
        said.map(|(_, row)| row).collect()
    }

    /// Life cycle and reason of each change, with its time.
    fn changes(&mut self, until_us: i64) -> Vec<(String, String, String)> {
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or("-").to_owned();
        let rows = self.rows("engagement", until_us);
        rows.iter()
            .map(|row| {
                let steps = format!("{} → {}", text(row, "life_cycle_before"), text(row, "life_cycle"));
                (text(row, "event_time"), steps, text(row, "reason"))
            })
            .collect()
    }
}

fn pseudonym(person: &str) -> String {
    fixture::secret().person(person).as_str().to_owned()
}

fn near(found: f64, wanted: f64) -> bool {
    (found - wanted).abs() < 1e-3
}

#[test]
fn a_visit_goes_on_from_reader_to_web_and_ends_at_a_way_out() {
    let mut story = Story::new();
    let read = json!({"tag": "E1", "person": "ada"});
    story.on(at(0, "9:00"), "lobby/rfid/gate", &read);
    story.on(at(0, "9:05"), "reading-room/rfid/shelf", &read);
    story.on(at(0, "9:40"), "reading-room/rfid/shelf", &read);
    let search = json!({"person": "ada", "action": "search", "query": "rust", "results": 3});
    story.on(at(0, "10:00"), "web/click/catalogue", &search);
    let lend = json!({"tag": "B1", "action": "checkout", "person": "ada"});
    story.on(at(0, "10:30"), "lobby/rfid/desk", &lend);
    story.on(at(0, "10:31"), "lobby/rfid/way-out", &read);
    // The antenna sees who leaves once more.
    story.on(at(0, "10:32"), "lobby/rfid/way-out", &read);
    let visits = story.rows("visit", at(0, "10:33"));
    assert_eq!(visits.len(), 1, "{visits:?}");
    let visit = &visits[0];
    // 5 and 35 minutes, and 1; the 50 minutes before the loan are more than a gap.
    assert_eq!(visit["dwell_us"], json!(41 * HOUR / 60));
    let columns = [
        "zone",
        "visit_start",
        "visit_end",
        "event_time",
        "channels",
        "services",
        "used",
        "loans",
        "searches",
        "clicks",
        "events",
        "visit_number",
        "is_first",
        "days_since",
    ];
    let found: Vec<&Value> = columns.iter().map(|column| &visit[*column]).collect();
    assert_eq!(
        json!(found),
        json!([
            "reading-room",
            "2026-03-02T09:00:00Z",
            "2026-03-02T10:31:00Z",
            "2026-03-02T10:31:00Z",
            2,
            3,
            "stay loan search",
            1,
            1,
            1,
            6,
            1,
            true,
            null
        ])
    );
    let view = story.view("ada", at(0, "11:00"));
    assert_eq!(
        (view.visits, view.events, view.dwell, view.visit_since),
        (1, 7, 41 * 60, None)
    );
    assert_eq!(
        (view.breadth, view.services.len(), view.loans, view.searches),
        (2, 3, 1, 1)
    );
}

#[test]
fn who_comes_and_goes_all_day_is_looked_at_once_at_a_time() {
    let mut story = Story::new();
    for minute in 0..600 {
        let seen = |what: &str| json!({"id": format!("{what}{minute}"), "tag": "E1", "person": "ada"});
        let at_us = at(0, "8:00") + minute * HOUR / 60;
        story.on(at_us, "lobby/rfid/gate", &seen("in"));
        story.on(at_us + HOUR / 120, "lobby/rfid/way-out", &seen("out"));
        assert!(
            story.people.clocks.looks() <= 1,
            "minute {minute}: {}",
            story.people.clocks.looks()
        );
    }
    assert_eq!(story.rows("visit", at(1, "0:00")).len(), 600);
}

#[test]
fn a_visit_ends_by_itself_when_its_gap_has_passed() {
    let mut story = Story::new();
    story.clicks("ada", at(0, "9:00"));
    story.clicks("ada", at(0, "9:45"));
    assert_eq!(
        story.rows("visit", at(0, "10:30")),
        [] as [Value; 0],
        "somebody seen at the very end is still there"
    );
    let visits = story.rows("visit", at(0, "10:30") + 1);
    assert_eq!(
        (visits.len(), &visits[0]["visit_end"]),
        (1, &json!("2026-03-02T09:45:00Z"))
    );
    story.clicks("ada", at(2, "9:45"));
    let visits = story.rows("visit", at(3, "0:00"));
    assert_eq!(
        (
            &visits[0]["days_since"],
            &visits[0]["is_first"],
            &visits[0]["visit_number"]
        ),
        (&json!(2), &json!(false), &json!(2))
    );
    let first = ["first_visit", "first_visit_end", "first_site"].map(|column| &visits[0][column]);
    assert_eq!(
        json!(first),
        json!(["2026-03-02T09:00:00Z", "2026-03-02T09:45:00Z", "main"])
    );
}

#[test]
fn the_score_halves_after_each_half_life() {
    let mut story = Story::new();
    let lend = json!({"tag": "B1", "action": "checkout", "person": "ada"});
    story.on(at(0, "9:00"), "lobby/rfid/desk", &lend);
    let search = json!({"person": "ada", "action": "search"});
    story.on(at(7, "9:00"), "web/click/catalogue", &search);
    // 1 × 2^(−14 / 14) + 0.3 × 2^(−7 / 14) = 0.5 + 0.2121
    let view = story.view("ada", at(14, "9:00"));
    assert!(near(view.score, 0.712), "{}", view.score);
    // Visits alike: 2^(−14 / 14) + 2^(−7 / 14) = 0.5 + 0.7071
    assert!(near(view.recent_visits, 1.207), "{}", view.recent_visits);
    assert_eq!((view.recency, view.frequency, view.depth), (7 * 86_400, 2, 1.0));
}

#[test]
fn what_is_usual_is_two_deviations_above_the_mean_gap() {
    let mut story = Story::new();
    for day in [0, 2, 5] {
        story.clicks("ada", at(day, "9:00"));
    }
    let view = story.view("ada", at(5, "9:00"));
    assert_eq!((view.regularity.gaps, view.regularity.mean_days), (2, Some(2.5)));
    assert_eq!(view.regularity.usual_gap_days, 30.0, "two gaps say nothing yet");
    story.clicks("ada", at(12, "9:00"));
    // Gaps of 2, 3 and 7 days: mean 4, deviation √((4 + 1 + 9) / 2) = √7 = 2.646, usual 4 + 2 × 2.646 = 9.292.
    let view = story.view("ada", at(12, "9:00"));
    assert_eq!((view.regularity.gaps, view.regularity.mean_days), (3, Some(4.0)));
    assert!(near(view.regularity.deviation_days.expect("there are three"), 2.646));
    assert!(near(view.regularity.usual_gap_days, 9.292), "{:?}", view.regularity);
    story.said(at(12, "9:00"));
    // 9.2915 days after the 14th at 9:00; three times as long; nine times.
    let changes = story.changes(at(400, "0:00"));
    let found: Vec<(&str, &str)> = changes
        .iter()
        .map(|(time, steps, _)| (&time[..16], steps.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("2026-03-23T15:59", "active → drifting"),
            ("2026-04-11T05:59", "drifting → dormant"),
            ("2026-06-05T23:57", "dormant → gone"),
        ]
    );
}

#[test]
fn what_is_usual_stays_within_its_limits() {
    let mut story = Story::new();
    for day in 0..6 {
        story.clicks("daily", at(day, "9:00"));
    }
    for number in 1..=5 {
        story.clicks("rare", at(100 * number, "9:00"));
    }
    let usual = |person: &str| story.view(person, at(501, "0:00")).regularity.usual_gap_days;
    assert_eq!((usual("daily"), usual("rare")), (7.0, 60.0));
}

#[test]
fn a_life_from_new_to_gone_and_back() {
    let mut story = Story::new();
    for day in [0, 1, 2, 3] {
        story.clicks("ada", at(day, "9:00"));
    }
    // Drifts after 7 days, is dormant after 21, and comes back after 25.
    for day in [28, 29, 30, 38] {
        story.clicks("ada", at(day, "9:00"));
    }
    let changes = story.changes(at(39, "0:00"));
    let found: Vec<(&str, &str, &str)> = changes
        .iter()
        .map(|(time, steps, reason)| (&time[..10], steps.as_str(), reason.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("2026-03-02", "- → new", "first_visit"),
            ("2026-03-04", "new → active", "settled"),
            ("2026-03-12", "active → drifting", "drifting"),
            ("2026-03-26", "drifting → dormant", "dormant"),
            ("2026-03-30", "dormant → returning", "came_back"),
            ("2026-04-01", "returning → active", "settled"),
        ],
        "eight days are not unusual any more for somebody who stayed away for 25"
    );
    let view = story.view("ada", at(39, "0:00"));
    // Gaps of 1, 1, 1, 25, 1, 1, 8 days: mean 38 / 7 = 5.429, deviation √(487.7 / 6) = 9.016.
    assert!(near(view.regularity.usual_gap_days, 23.460), "{:?}", view.regularity);
    assert_eq!(view.life_cycle, "active");
    // 23.460 days after 9 April at 9:00.
    assert_eq!(view.changes_at.as_deref().map(|at| &at[..13]), Some("2026-05-02T20"));
}

#[test]
fn a_tier_is_entered_at_one_score_and_left_at_a_lower_one() {
    let mut story = Story::new();
    for item in 0..5 {
        let lend = json!({"tag": format!("B{item}"), "action": "checkout", "person": "ada", "id": format!("l{item}")});
        story.on(at(0, "9:00"), "lobby/rfid/desk", &lend);
    }
    let tiers = |rows: &[Value]| -> Vec<(String, Value, Value)> {
        let of_tier = rows
            .iter()
            .filter(|row| row["reason"].as_str().is_some_and(|reason| reason.starts_with("score")));
        of_tier
            .map(|row| {
                let time = row["event_time"].as_str().unwrap_or_default()[..16].to_owned();
                (time, row["tier_before"].clone(), row["tier"].clone())
            })
            .collect()
    };
    let rows = story.rows("engagement", at(1, "9:00"));
    assert_eq!(
        tiers(&rows),
        [("2026-03-02T09:00".to_owned(), json!("occasional"), json!("regular"))]
    );
    // Below 5, and still in it.
    assert_eq!(story.view("ada", at(4, "9:00")).tier, "regular");
    // 14 × log2(5 / 4) = 4.507 days.
    let rows = story.rows("engagement", at(10, "9:00"));
    assert_eq!(
        tiers(&rows),
        [("2026-03-06T21:10".to_owned(), json!("regular"), json!("occasional"))]
    );
}

#[test]
fn active_weeks_are_those_of_the_last_year_or_of_all_that_are_known() {
    let mut story = Story::new();
    // Weeks begin on Monday: of the weeks 0, 1 and 3.
    for day in [0, 7, 13, 21] {
        story.clicks("ada", at(day, "9:00"));
    }
    // In the fifth week: three of five.
    assert_eq!(story.view("ada", at(28, "9:00")).active_weeks, 0.6);
    // In the 53rd the first has left: two of 52.
    assert_eq!(story.view("ada", at(52 * 7, "9:00")).active_weeks, 0.038);
}

#[test]
fn the_answer_rate_is_of_the_messages_that_went_out() {
    let mut story = Story::new();
    let reply = |response: &str, message: &str| json!({"person": "ada", "message": message, "response": response});
    story.on(at(0, "9:00"), "web/reply/app", &reply("accepted", "a-1"));
    // What she did waits for the watermark, and a message was faster.
    story.message("ada", OfMessage::Sent);
    assert_eq!(
        story.view("ada", at(0, "9:01")).answer_rate,
        Some(0.0),
        "nobody was sent a-1"
    );
    story.people.advance(at(0, "9:01"));
    assert_eq!(story.view("ada", at(0, "9:01")).answer_rate, Some(0.0));
    for _ in 0..3 {
        story.message("ada", OfMessage::Sent);
    }
    for (minute, response) in [("9:02", "opened"), ("9:03", "declined"), ("9:04", "declined")] {
        story.on(at(0, minute), "web/reply/app", &reply(response, "a-2"));
    }
    assert_eq!(
        story.view("ada", at(0, "9:05")).answer_rate,
        Some(0.0),
        "that is for messages to say"
    );
    story.message("ada", OfMessage::Accepted);
    story.message("ada", OfMessage::Declined);
    // One accepted and one declined, of four.
    assert_eq!(story.view("ada", at(0, "9:05")).answer_rate, Some(0.5));
    story.people.opt_out(&pseudonym("ada").into());
    story.clicks("ada", at(1, "9:00"));
    assert_eq!(
        story.view("ada", at(1, "9:01")).answer_rate,
        None,
        "who opted out is new"
    );
}

#[test]
fn what_is_said_again_of_the_same_message_adds_nothing_to_the_score() {
    let mut story = Story::new();
    let reply = |message: &str, response: &str| json!({"person": "ada", "message": message, "response": response});
    let mut score = |minute: i64, message: &str, response: &str| {
        let at_us = at(0, "9:00") + minute * HOUR / 60;
        story.on(at_us, "web/reply/app", &reply(message, response));
        story.view("ada", at_us).score
    };
    // Opened 0.3, and again nothing; accepted 1; what is said behind that nothing, till it is of another message.
    for (minute, message, response, sum) in [
        (0, "a", "opened", 0.3),
        (1, "a", "opened", 0.3),
        (2, "a", "accepted", 1.3),
        (3, "a", "accepted", 1.3),
        (4, "a", "declined", 1.3),
        (5, "a", "opened", 1.3),
        (6, "b", "declined", 1.4),
        (7, "b", "accepted", 1.4),
        (8, "a", "accepted", 2.4),
    ] {
        let found = score(minute, message, response);
        assert!(near(found, sum), "{minute}: {found}");
    }
}

#[test]
fn what_comes_too_late_counts_and_makes_no_visit() {
    let mut story = Story::new();
    story.clicks("ada", at(5, "9:00"));
    story.people.advance(at(6, "0:00"));
    story.said(at(6, "0:00"));
    for person in ["ada", "ben"] {
        let late = story.event(
            at(1, "9:00"),
            "web/click/c",
            &json!({"person": person, "action": "view"}),
        );
        story.people.take(&late, at(6, "0:00"), &story.places);
    }
    let said = story.said(at(6, "1:00"));
    let found: Vec<(&str, &Value, &Value)> = said
        .iter()
        .map(|(stream, row)| (*stream, &row["reason"], &row["event_time"]))
        .collect();
    assert_eq!(
        found,
        [("engagement", &json!("first_seen"), &json!("2026-03-08T00:00:00Z"))],
        "ben, when it was found out"
    );
    let (ada, ben) = (story.view("ada", at(6, "1:00")), story.view("ben", at(6, "1:00")));
    assert_eq!(
        (ada.visits, ada.events, ada.first_seen.as_str()),
        (1, 2, "2026-03-03T09:00:00Z")
    );
    assert_eq!((ben.visits, ben.events, ben.life_cycle), (0, 1, "new"));
}

#[test]
fn nothing_is_worked_out_again_of_whoever_does_not_want_to_be_known_by_now() {
    let mut story = Story::new();
    let mut events = Vec::new();
    let answers = |story: &mut Story, day: i64, response: &str| {
        let reply = json!({"person": "ada", "message": "m", "response": response});
        story.event(at(day, "8:00"), "web/reply/app", &reply)
    };
    for person in ["ada", "ben"] {
        let click = json!({"person": person, "action": "view"});
        events.push(story.event(at(0, "9:00"), "web/click/c", &click));
        events.push(story.event(at(2, "9:00"), "web/click/c", &click));
    }
    // Wanted again, and no more, which is too long ago to be among the events at hand.
    events.insert(1, answers(&mut story, 1, "opted_in"));
    let persons = |events: &[Event], opted_out: &[&str]| -> Vec<String> {
        let opted_out = opted_out.iter().map(|person| pseudonym(person).into()).collect();
        let streams = crate::tables::streams_of(events, &EngagementSettings::built_in(), opted_out, &story.places);
        let rows = ["visit", "engagement"]
            .into_iter()
            .flat_map(|stream| &streams[stream].1);
        let rows = rows.flat_map(usher_queries::rows::batch_to_json);
        let persons: std::collections::BTreeSet<String> = rows
            .filter_map(|row| Some(row["person"].as_str()?.to_owned()))
            .collect();
        persons.into_iter().collect()
    };
    let mut both = [pseudonym("ada"), pseudonym("ben")];
    both.sort();
    assert_eq!(persons(&events, &[]), both);
    assert_eq!(persons(&events, &["ada"]), [pseudonym("ben")]);
    let mut out = events.clone();
    let mut again = Story::new();
    out.push(answers(&mut again, 3, "opted_out"));
    assert_eq!(persons(&out, &[]), [pseudonym("ben")], "also of a recording");
    out.push(answers(&mut again, 4, "opted_in"));
    assert_eq!(persons(&out, &[]), both);
}

#[test]
fn who_is_seen_at_a_way_out_has_not_come_by_that() {
    let mut story = Story::new();
    let read = json!({"tag": "E1", "person": "ada"});
    story.on(at(0, "9:00"), "lobby/rfid/way-out", &read);
    for day in [1, 2, 3] {
        story.clicks("ada", at(day, "9:00"));
    }
    // Long after the gap, and once more when she drifts, from day 33 on.
    story.on(at(3, "18:00"), "lobby/rfid/way-out", &read);
    story.on(at(40, "9:00"), "lobby/rfid/way-out", &read);
    let said = story.said(at(41, "0:00"));
    let of = |stream: &str| {
        said.iter()
            .filter(|(of, _)| *of == stream)
            .map(|(_, row)| row)
            .collect::<Vec<_>>()
    };
    assert_eq!(of("visit").len(), 3, "{said:?}");
    let changes: Vec<(&Value, &Value)> = of("engagement")
        .into_iter()
        .map(|row| (&row["reason"], &row["life_cycle"]))
        .collect();
    assert_eq!(
        json!(changes),
        json!([
            ["first_seen", "new"],
            ["first_visit", "new"],
            ["settled", "active"],
            ["drifting", "drifting"],
            ["came_back", "active"]
        ])
    );
    let view = story.view("ada", at(41, "0:00"));
    assert_eq!((view.visits, view.last_seen.as_str()), (3, "2026-04-11T09:00:00Z"));
}

#[test]
fn a_click_is_of_the_services_of_the_web() {
    let mut story = Story::new();
    for action in ["loan", "stay", "return", "rating", "reply", "help"] {
        story.on(
            at(0, "9:00"),
            "web/click/c",
            &json!({"id": action, "person": "ada", "action": action}),
        );
    }
    story.people.advance(at(0, "9:01"));
    assert_eq!(story.view("ada", at(0, "9:01")).services, ["help", "other"]);
}

#[test]
fn of_those_seen_longest_ago_so_many_go_also_where_all_were_seen_at_once() {
    let mut story = Story::new();
    story.clicks("finn", at(0, "9:00"));
    for person in ["ada", "ben", "cleo", "dana", "emil"] {
        story.clicks(person, at(1, "9:00"));
    }
    story.people.advance(at(1, "9:01"));
    let mut names: Vec<String> = ["ada", "ben", "cleo", "dana", "emil"].map(pseudonym).into();
    names.sort();
    names.insert(0, pseudonym("finn"));
    let found: std::collections::BTreeSet<String> = story
        .people
        .seen_longest_ago(3)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(found, names.into_iter().take(3).collect());
    assert_eq!(story.people.seen_longest_ago(9).len(), 6);
}

#[test]
fn a_long_time_at_once_is_told_in_parts() {
    let story = || {
        let mut story = Story::new();
        for number in 0..200 {
            story.clicks(&format!("p{number}"), at(0, "9:00") + number);
        }
        story
    };
    let (mut whole, mut parts) = (story(), story());
    let whole = whole.said(at(400, "0:00"));
    // What was done then has been found out already.
    let (mut said, mut most) = (parts.said(i64::MIN), 0);
    while !parts.people.advance_within(at(400, "0:00"), 7) {
        let part = parts.said(i64::MIN);
        most = most.max(part.len());
        said.extend(part);
    }
    said.extend(parts.said(at(400, "0:00")));
    assert!((7..10).contains(&most), "{most}");
    let sorted = |mut rows: Vec<(&'static str, Value)>| {
        rows.sort_by_key(|(stream, row)| (*stream, row["event_id"].to_string()));
        rows
    };
    assert_eq!(said.len(), 200 * 5, "a visit, and four changes each");
    assert_eq!(sorted(said), sorted(whole));
}

#[test]
fn whoever_opts_out_was_never_here() {
    let mut story = Story::new();
    for day in 0..5 {
        story.clicks("ada", at(day, "9:00"));
        story.clicks("ben", at(day, "10:00"));
    }
    story.said(at(4, "8:00"));
    // One act of hers has been taken, and one waits.
    story.on(
        at(4, "12:00"),
        "web/reply/app",
        &json!({"person": "ada", "message": "m", "response": "opted_out"}),
    );
    let rest = story.said(at(400, "0:00"));
    let of_her = |row: &Value| row["person"] == json!(pseudonym("ada"));
    assert!(!rest.iter().any(|(_, row)| of_her(row)), "{rest:?}");
    assert_eq!(story.people.get(&pseudonym("ada"), at(5, "0:00")), None);
    assert!(!story.people.knows(&pseudonym("ada")));
    assert_eq!(
        (story.people.len(), story.people.table(at(5, "0:00")).num_rows()),
        (1, 1)
    );
    let kept = postcard::to_stdvec(&story.people.capture().rows).expect("it can be written");
    let held = story.people.capture_waiting().pieces(usize::MAX).next();
    let held = held.expect("there is one").expect("it can be written");
    let there = |bytes: &[u8]| {
        bytes
            .windows(28)
            .filter(|name| *name == pseudonym("ada").as_bytes())
            .count()
    };
    assert_eq!(
        (there(&kept), there(&held)),
        (0, 0),
        "what she decided is kept elsewhere"
    );
}
