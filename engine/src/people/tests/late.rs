//! What comes when the watermark has passed its time already.

use std::sync::Arc;

use serde_json::json;

use super::{Story, at};
use crate::event::{Event, Source};

/// A click that comes when the watermark is at `met_us` already.
fn clicks_late(story: &mut Story, person: &str, zone: &str, at_us: i64, met_us: i64) {
    let click = json!({"person": person, "action": "view"});
    let event = story.event(at_us, &format!("{zone}/click/c"), &click);
    story.people.take(&event, met_us, &story.places);
}

#[test]
fn who_is_known_only_by_what_comes_too_late_was_seen_then() {
    let mut story = Story::new();
    story.clicks("ada", at(0, "9:00"));
    // Each day's clicks are uploaded in the night.
    for day in 1..100 {
        clicks_late(&mut story, "ada", "web", at(day, "9:00"), at(day, "23:00"));
    }
    let view = story.view("ada", at(100, "9:00"));
    assert_eq!(
        (view.life_cycle, view.visits, view.recency, view.frequency),
        ("new", 1, 86_400, 100)
    );
    assert_eq!(view.last_seen, "2026-06-09T09:00:00Z");
    let reasons: Vec<String> = story
        .changes(at(100, "9:00"))
        .into_iter()
        .map(|(.., reason)| reason)
        .collect();
    assert_eq!(reasons, ["first_visit"], "she is there every day");
}

#[test]
fn what_comes_too_late_ends_a_long_time_away_if_it_is_news() {
    let mut story = Story::new();
    for day in 0..4 {
        story.clicks("ada", at(day, "9:00"));
    }
    // Dormant after 21 days.
    story.said(at(30, "0:00"));
    clicks_late(&mut story, "ada", "elsewhere", at(2, "12:00"), at(30, "0:00"));
    assert_eq!(story.changes(at(30, "0:01")), [], "that was before");
    clicks_late(&mut story, "ada", "web", at(29, "12:00"), at(30, "1:00"));
    assert_eq!(
        story.changes(at(30, "1:01")),
        [(
            "2026-04-01T01:00:00Z".to_owned(),
            "dormant → returning".to_owned(),
            "came_back".to_owned()
        )]
    );
    for day in 31..34 {
        story.clicks("ada", at(day, "9:00"));
    }
    let changes = story.changes(at(34, "0:00"));
    let found: Vec<(&str, &str)> = changes
        .iter()
        .map(|(time, steps, _)| (&time[..10], steps.as_str()))
        .collect();
    assert_eq!(
        found,
        [("2026-04-04", "returning → active")],
        "with the third visit since"
    );
}

#[test]
fn where_somebody_was_last_is_not_what_came_last() {
    let mut story = Story::new();
    story.clicks("ada", at(5, "9:00"));
    let late = story.event(
        at(1, "9:00"),
        "web/click/c",
        &json!({"person": "ada", "action": "view"}),
    );
    let elsewhere = Source {
        site: "branch".into(),
        ..(*late.source).clone()
    };
    let late = Event {
        source: Arc::new(elsewhere),
        ..late
    };
    story.people.take(&late, at(6, "0:00"), &story.places);
    let rows = story.rows("engagement", at(60, "0:00"));
    let last = rows.last().expect("she drifts");
    assert_eq!((&last["reason"], &last["site"]), (&json!("drifting"), &json!("main")));
}

#[test]
fn the_first_visit_is_told_also_of_whoever_was_known_before() {
    let mut story = Story::new();
    story.people.advance(at(2, "0:00"));
    for person in ["ada", "ben", "cleo"] {
        clicks_late(&mut story, person, "web", at(1, "9:00"), at(2, "0:00"));
    }
    // One is new still, one drifts, one has gone.
    for (person, day) in [("ada", 3), ("ben", 40), ("cleo", 300)] {
        story.clicks(person, at(day, "9:00"));
    }
    let changes = story.changes(at(300, "12:00"));
    let first: Vec<(&str, &str)> = changes
        .iter()
        .filter(|(.., reason)| reason == "first_visit")
        .map(|(time, steps, _)| (&time[..10], steps.as_str()))
        .collect();
    assert_eq!(
        first,
        [
            ("2026-03-05", "new → new"),
            ("2026-04-11", "drifting → new"),
            ("2026-12-27", "gone → new"),
        ]
    );
}
