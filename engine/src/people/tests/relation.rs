//! What a person wanted and got, whether the person takes what is offered and comes again, and takes part, worked out by hand.

use serde_json::json;

use super::{Story, at, pseudonym};
use crate::people::OfMessage;
use crate::people::relation::OPEN_MAX;

fn searches(story: &mut Story, person: &str, at_us: i64, results: Option<u32>) {
    let mut search = json!({"id": format!("s{at_us}{person}"), "person": person, "action": "search"});
    if let Some(results) = results {
        search["results"] = json!(results);
    }
    story.on(at_us, "web/click/catalogue", &search);
}

fn requests(story: &mut Story, person: &str, at_us: i64, item: &str) {
    let request = json!({"id": format!("r{at_us}{item}{person}"), "person": person, "action": "request", "item": item});
    story.on(at_us, "web/click/catalogue", &request);
}

fn borrows(story: &mut Story, person: &str, at_us: i64, item: &str) {
    let lend = json!({"tag": item, "action": "checkout", "person": person});
    story.on(at_us, "lobby/rfid/desk", &lend);
}

fn answers(story: &mut Story, person: &str, at_us: i64, response: &str) {
    let reply = json!({"id": format!("a{at_us}"), "person": person, "message": "m", "response": response});
    story.on(at_us, "web/reply/app", &reply);
}

#[test]
fn benefit_is_what_was_got_of_what_was_wanted() {
    let mut story = Story::new();
    for (minute, results) in [("9:00", Some(3)), ("9:01", Some(0)), ("9:02", Some(1)), ("9:03", None)] {
        searches(&mut story, "ada", at(0, minute), results);
    }
    // Two of three searches that tell their results found something; nothing is known of the fourth.
    let view = story.view("ada", at(0, "9:04"));
    assert_eq!((view.demands, view.served, view.benefit), (3, 2, Some(0.667)));
    let visit = &story.rows("visit", at(0, "9:50"))[0];
    let columns = ["searches", "searches_told", "searches_found"].map(|column| visit[column].clone());
    assert_eq!(columns, [json!(4), json!(3), json!(2)]);
    requests(&mut story, "ada", at(0, "10:00"), "B1");
    requests(&mut story, "ada", at(1, "10:00"), "B1");
    requests(&mut story, "ada", at(1, "10:01"), "B2");
    // Somebody else's loan, and one of what nobody asked for.
    borrows(&mut story, "ben", at(2, "9:00"), "B1");
    borrows(&mut story, "ada", at(2, "9:01"), "B3");
    let view = story.view("ada", at(2, "9:02"));
    assert_eq!((view.demands, view.served, view.benefit), (6, 2, Some(0.333)));
    // Both requests of B1 are served by one loan of it, and by no second one: 4 of 6.
    borrows(&mut story, "ada", at(3, "9:00"), "B1");
    borrows(&mut story, "ada", at(4, "9:00"), "B1");
    let view = story.view("ada", at(4, "9:01"));
    assert_eq!((view.demands, view.served, view.benefit), (6, 4, Some(0.667)));
    let ben = story.view("ben", at(4, "9:01"));
    assert_eq!((ben.demands, ben.served, ben.benefit), (0, 0, None));
}

#[test]
fn a_request_is_served_within_28_days() {
    let mut story = Story::new();
    for person in ["ada", "ben"] {
        requests(&mut story, person, at(0, "9:00"), "B1");
    }
    borrows(&mut story, "ada", at(28, "9:00"), "B1");
    borrows(&mut story, "ben", at(28, "9:01"), "B1");
    let served = ["ada", "ben"].map(|person| story.view(person, at(29, "0:00")).benefit);
    assert_eq!(served, [Some(1.0), Some(0.0)]);
}

#[test]
fn a_loan_that_comes_too_late_serves_what_was_asked_for_before_it() {
    let mut story = Story::new();
    requests(&mut story, "ada", at(0, "9:00"), "B1");
    requests(&mut story, "ada", at(2, "9:00"), "B1");
    story.people.advance(at(3, "0:00"));
    let lend = json!({"tag": "B1", "action": "checkout", "person": "ada"});
    let late = story.event(at(1, "9:00"), "lobby/rfid/desk", &lend);
    story.people.take(&late, at(3, "0:00"), &story.places);
    let view = story.view("ada", at(3, "0:01"));
    assert_eq!((view.demands, view.served), (2, 1));
}

#[test]
fn of_very_many_open_requests_the_earliest_stay_unserved() {
    let mut story = Story::new();
    for number in 0..=OPEN_MAX {
        let at_us = at(0, "9:00") + i64::try_from(number).expect("it is small");
        requests(&mut story, "ada", at_us, &format!("B{number}"));
    }
    borrows(&mut story, "ada", at(1, "9:00"), "B0");
    borrows(&mut story, "ada", at(1, "9:01"), "B1");
    assert_eq!(story.view("ada", at(1, "9:02")).served, 1, "B1, and not B0");
}

#[test]
fn trust_is_taking_what_is_offered_and_coming_again() {
    let mut story = Story::new();
    // Seen at a way out alone she never came.
    let read = json!({"tag": "E1", "person": "ada"});
    story.on(at(0, "8:00"), "lobby/rfid/way-out", &read);
    let view = story.view("ada", at(0, "8:01"));
    assert_eq!((view.visits, view.trust, view.participation), (0, None, None));
    story.clicks("ada", at(0, "9:00"));
    assert_eq!(
        story.view("ada", at(0, "9:01")).trust,
        Some(0.0),
        "the first visit followed none"
    );
    story.clicks("ada", at(1, "9:00"));
    story.clicks("ada", at(2, "9:00"));
    // Two visits of three followed another.
    assert_eq!(story.view("ada", at(2, "9:01")).trust, Some(0.667));
    // Replies say nothing by themselves; messages say which were answers.
    for minute in ["9:10", "9:11", "9:12"] {
        answers(&mut story, "ada", at(2, minute), "declined");
    }
    assert_eq!(story.view("ada", at(2, "9:13")).trust, Some(0.667));
    for what in [
        OfMessage::Accepted,
        OfMessage::Accepted,
        OfMessage::Declined,
        OfMessage::Accepted,
    ] {
        story.message("ada", OfMessage::Sent);
        story.message("ada", what);
    }
    story.clicks("ada", at(3, "9:00"));
    story.clicks("ada", at(4, "9:00"));
    // Three of four answers say yes, four of five visits followed another: ½ × 0.75 + ½ × 0.8 = 0.775.
    assert_eq!(story.view("ada", at(4, "9:01")).trust, Some(0.775));
}

#[test]
fn participation_is_the_share_of_visits_with_something_of_ones_own() {
    let mut story = Story::new();
    for day in 0..4 {
        story.clicks("ada", at(day, "9:00"));
    }
    assert_eq!(story.view("ada", at(3, "9:01")).participation, Some(0.0));
    // A visit in which she asks twice, and one in which she answers: two of six.
    requests(&mut story, "ada", at(4, "9:00"), "B1");
    requests(&mut story, "ada", at(4, "9:01"), "B2");
    answers(&mut story, "ada", at(5, "9:00"), "accepted");
    assert_eq!(story.view("ada", at(5, "9:01")).participation, Some(0.333));
    // In one more a message is opened and no more, and in another one it is also rated: three of eight.
    answers(&mut story, "ada", at(6, "9:00"), "opened");
    let view = story.view("ada", at(6, "9:01"));
    assert_eq!(view.participation, Some(0.286), "two of seven");
    story.on(
        at(7, "9:00"),
        "web/reply/app",
        &json!({"person": "ada", "message": "m", "response": "opened", "rating": 4}),
    );
    assert_eq!(story.view("ada", at(7, "9:01")).participation, Some(0.375));
    let used: Vec<String> = story.rows("visit", at(9, "0:00"))[5..]
        .iter()
        .map(|visit| visit["used"].to_string())
        .collect();
    assert_eq!(used, [r#""reply""#, r#""""#, r#""reply rating""#]);
}

#[test]
fn whoever_opts_out_wanted_nothing() {
    let mut story = Story::new();
    requests(&mut story, "ada", at(0, "9:00"), "B1");
    story.people.advance(at(0, "9:01"));
    answers(&mut story, "ada", at(0, "9:02"), "opted_out");
    assert_eq!(story.people.get(&pseudonym("ada"), at(0, "9:03")), None);
    borrows(&mut story, "ada", at(1, "9:00"), "B1");
    let view = story.view("ada", at(1, "9:01"));
    assert_eq!(
        (view.demands, view.benefit, view.trust, view.participation),
        (0, None, Some(0.0), Some(0.0))
    );
}
