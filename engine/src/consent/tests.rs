//! Decisions, what holds after them, and what becomes of them when names are linked and parted; worked by hand.

use std::sync::Arc;

use usher_queries::purpose::{Consent, Purpose};

use super::*;
use crate::decode::{DecodeOptions, Decoder};
use crate::identity::Group;
use crate::pseudonym::Secret;
use crate::record::Record;

const ALL: Purposes = Purposes::ALL;

fn pseudonym_of(name: &str) -> Arc<str> {
    Arc::clone(Secret::from_bytes([7; 32]).person(name).shared())
}

fn event(kind: &str, payload: &str) -> Event {
    let mut decoder = Decoder::new(DecodeOptions::new(Secret::from_bytes([7; 32])));
    let topic = format!("usher/in/main/hall/{kind}/d1");
    let mut decoded = decoder.decode(&topic, payload.as_bytes(), 1_772_413_200_000_000);
    assert!(decoded.refused.is_empty(), "{:?}", decoded.refused);
    decoded.events.remove(0)
}

fn says(id: &str, person: &str, action: &str, purposes: &str) -> Event {
    let payload = format!(
        r#"{{"id":"{id}","ts":"2026-03-02T01:00:0{id}Z","person":"{person}","purpose":{purposes},"action":"{action}"}}"#
    );
    event("consent", &payload)
}

fn answers(id: &str, person: &str, response: &str) -> Event {
    let payload = format!(
        r#"{{"id":"{id}","ts":"2026-03-02T01:00:0{id}Z","person":"{person}","message":"m","response":"{response}"}}"#
    );
    event("reply", &payload)
}

fn take(consents: &mut Consents, event: &Event) -> Change {
    let deciding = Deciding::of(event).expect("it decides something");
    let change = consents.change(&deciding, event);
    consents.decide(&deciding, event);
    assert_eq!(consents.decided().of(deciding.person), change.after, "as was foreseen");
    change
}

fn holding(consents: &Consents, person: &str) -> String {
    consents.decided().of(&pseudonym_of(person)).to_string()
}

/// Two names become one person's, or are parted.
fn regroup(consents: &mut Consents, before: &[&[&str]], after: &[&[&str]]) -> Purposes {
    let groups = |all: &[&[&str]]| -> Vec<Group> {
        let group = |names: &&[&str]| Group {
            person: pseudonym_of(names[0]),
            names: names.iter().map(|name| pseudonym_of(name)).collect(),
        };
        all.iter().map(group).collect()
    };
    consents.regroup(&Regrouping {
        before: groups(before),
        after: groups(after),
    })
}

#[test]
fn each_purpose_is_refused_and_allowed_by_itself_and_nothing_holds_of_who_is_not_recognised() {
    let mut consents = Consents::new(ALL);
    assert_eq!(holding(&consents, "ada"), "service recognition research");
    take(&mut consents, &says("1", "ada", "refuse", r#""research""#));
    assert_eq!(holding(&consents, "ada"), "service recognition");
    take(&mut consents, &says("2", "ada", "refuse", r#"["service"]"#));
    assert_eq!(holding(&consents, "ada"), "recognition");
    let change = take(&mut consents, &says("3", "ada", "refuse", r#""recognition""#));
    assert_eq!(
        (change.before.to_string(), change.after),
        ("recognition".to_owned(), Purposes::NONE)
    );
    assert_eq!(holding(&consents, "ada"), "");
    take(&mut consents, &says("4", "ada", "allow", r#"["service","research"]"#));
    assert_eq!(holding(&consents, "ada"), "", "nobody is told apart for it");
    take(&mut consents, &says("5", "ada", "allow", r#""recognition""#));
    assert_eq!(holding(&consents, "ada"), "service recognition research");
    assert_eq!(holding(&consents, "ben"), "service recognition research");
    let decided = consents.decided();
    assert!(Purpose::ALL.into_iter().all(|purpose| decided.holds_for_all(purpose)));
}

#[test]
fn an_answer_that_opts_out_refuses_service_and_recognition_and_says_nothing_of_research() {
    let mut consents = Consents::new(ALL);
    take(&mut consents, &answers("1", "ada", "opted_out"));
    assert_eq!(holding(&consents, "ada"), "");
    assert!(!consents.decided().is_refused(&pseudonym_of("ada"), Purpose::Research));
    take(&mut consents, &says("2", "ada", "refuse", r#""research""#));
    take(&mut consents, &answers("3", "ada", "opted_in"));
    assert_eq!(holding(&consents, "ada"), "service recognition");
}

#[test]
fn what_is_decided_is_told_since_when_and_by_which_event() {
    let mut consents = Consents::new(ALL);
    take(&mut consents, &says("1", "ada", "refuse", r#""research""#));
    // Once more changes nothing.
    take(&mut consents, &says("2", "ada", "refuse", r#"["research","service"]"#));
    let view = consents.decided().view(&pseudonym_of("ada"));
    let told: Vec<_> = view
        .purposes
        .iter()
        .map(|of| {
            (
                of.purpose,
                of.holds,
                of.decision,
                of.since.as_deref(),
                of.event.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (
                "service",
                false,
                Some("refuse"),
                Some("2026-03-02T01:00:02Z"),
                Some("2")
            ),
            ("recognition", true, None, None, None),
            (
                "research",
                false,
                Some("refuse"),
                Some("2026-03-02T01:00:01Z"),
                Some("1")
            ),
        ]
    );
}

#[test]
fn where_nothing_holds_without_consent_a_person_has_to_say_so_first() {
    let mut consents = Consents::new(Purposes::NONE);
    let click = r#"{"id":"7","person":"ada","session":"s","action":"search","query":"grief"}"#;
    let mut first = event("click", click);
    assert!(consents.decided().refuses(&first));
    consents.decided().screen(&mut first);
    let bytes = String::from_utf8_lossy(&Record::event_to_bytes(&first)).into_owned();
    assert_eq!(
        Record::event_to_bytes(&first),
        Record::Event(first.clone()).to_bytes(),
        "an event is written as its record"
    );
    for gone in ["p_", "s_", "grief"] {
        assert!(!bytes.contains(gone), "{gone} is still in it");
    }
    take(&mut consents, &says("1", "ada", "allow", r#""service""#));
    assert_eq!(holding(&consents, "ada"), "");
    take(&mut consents, &says("2", "ada", "allow", r#""recognition""#));
    assert_eq!(holding(&consents, "ada"), "service recognition");
    assert!(!consents.decided().refuses(&event("click", click)));
}

#[test]
fn a_refusal_under_one_name_holds_for_all_and_stays_when_they_are_parted() {
    let mut consents = Consents::new(ALL);
    take(&mut consents, &says("2", "login", "refuse", r#""research""#));
    take(&mut consents, &says("1", "card", "allow", r#""research""#));
    let after = regroup(&mut consents, &[&["card"], &["login"]], &[&["card", "login"]]);
    assert_eq!(after.to_string(), "service recognition");
    assert_eq!(holding(&consents, "login"), "service recognition");
    regroup(&mut consents, &[&["card", "login"]], &[&["card"], &["login"]]);
    assert_eq!(
        [holding(&consents, "card"), holding(&consents, "login")],
        ["service recognition"; 2]
    );
    // Each for itself from then on.
    take(&mut consents, &says("3", "card", "allow", r#""research""#));
    assert_eq!(holding(&consents, "card"), "service recognition research");
    assert_eq!(holding(&consents, "login"), "service recognition");
}

#[test]
fn which_name_is_asked_first_makes_no_difference() {
    let of = |first: &[&str], second: &[&str]| {
        let mut consents = Consents::new(ALL);
        take(&mut consents, &says("1", "card", "allow", r#"["service","research"]"#));
        take(&mut consents, &says("2", "tag", "refuse", r#""service""#));
        take(
            &mut consents,
            &says("3", "login", "refuse", r#"["service","recognition"]"#),
        );
        regroup(&mut consents, &[&first[..1], &first[1..]], &[first]);
        regroup(&mut consents, &[first, &second[2..]], &[second]);
        let mut view = consents.decided().view(&pseudonym_of(second[0]));
        view.person.clear();
        view
    };
    let one = of(&["card", "tag"], &["card", "tag", "login"]);
    assert_eq!(one, of(&["login", "card"], &["login", "card", "tag"]));
    assert_eq!(one, of(&["tag", "login"], &["tag", "login", "card"]));
    let events: Vec<_> = one.purposes.iter().map(|of| of.event.as_deref()).collect();
    assert_eq!(events, [Some("2"), Some("3"), Some("1")]);
}

#[test]
fn whoever_is_erased_has_decided_nothing() {
    let mut consents = Consents::new(ALL);
    take(&mut consents, &answers("1", "ada", "opted_out"));
    take(&mut consents, &answers("2", "ben", "opted_out"));
    assert_eq!(consents.erase(&Who::known(&[pseudonym_of("ada")])), 1);
    assert_eq!(holding(&consents, "ada"), "service recognition research");
    assert_eq!(holding(&consents, "ben"), "");
    assert!(!consents.decided().recognises_all(), "of ben it is still asked");
    assert_eq!(consents.erase(&Who::known(&[pseudonym_of("ben")])), 1);
    assert!(consents.for_queries().is_none(), "of nobody it is asked");
}

/// What was captured, as a checkpoint has it.
fn kept(consents: &mut Consents) -> Parts {
    let mut capture = Capture::default();
    consents.capture(&mut capture);
    let parts = capture.written().expect("it can be written").into_iter();
    let parts = parts.map(|change| usher_connectors::checkpoint::Part {
        name: change.name,
        segments: change.segments,
    });
    Parts::new(parts.collect())
}

#[test]
fn decisions_are_kept_over_a_restart_and_a_stricter_house_begins_anew() {
    let mut consents = Consents::new(ALL);
    take(&mut consents, &says("1", "ada", "refuse", r#""research""#));
    let parts = kept(&mut consents);
    let restored = |without: Purposes| {
        let mut again = Consents::new(without);
        again.restore(Aliases::default(), &parts).map(|()| again)
    };
    let again = restored(ALL).expect("it can be read");
    let ada = pseudonym_of("ada");
    assert_eq!(again.decided().view(&ada), consents.decided().view(&ada));
    let stricter = restored(ALL.without(Purpose::Research)).map(|_| ());
    assert_eq!(
        stricter,
        Err("research held without consent when it was saved, and does not any more".to_owned())
    );
    // One that has no such part is from when all held.
    let none = Consents::new(Purposes::NONE).restore(Aliases::default(), &Parts::new(Vec::new()));
    assert!(none.is_err());
}

#[test]
fn answers_leave_out_who_refuses_by_now_and_by_what_came_since() {
    let mut consents = Consents::new(ALL);
    take(&mut consents, &answers("1", "ada", "opted_out"));
    let click = |person: &str| {
        event(
            "click",
            &format!(r#"{{"id":"{person}","person":"{person}","action":"view"}}"#),
        )
    };
    let mut events = vec![
        click("ada"),
        click("ben"),
        click("cat"),
        answers("2", "ben", "opted_out"),
        answers("3", "ada", "opted_in"),
    ];
    let left_out = consents.decided().leave_out(&mut events);
    assert_eq!(left_out, [pseudonym_of("ben")].into_iter().collect::<FxHashSet<_>>());
    let named: Vec<bool> = events.iter().map(|event| pseudonym(&event.reading).is_some()).collect();
    assert_eq!(named, [true, false, true, false, true]);
}
