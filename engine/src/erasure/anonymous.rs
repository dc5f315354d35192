//! What is left of a record when a person is erased: of an event what is counted of it, of everything else its place.

use std::sync::Arc;

use super::who::Who;
use crate::columns::pseudonym;
use crate::event::{Event, Reading};
use crate::identity::TableChange;
use crate::lookups::Look;
use crate::pseudonym::Pseudonym;
use crate::record::Record;

/// What stands in a record's place when a person is erased; `None` where it has nothing to do with the person.
///
/// The id of an event stays, so that a publisher that sends it again does not count twice, and so does where and when it was.
pub fn anonymous(record: &Record, who: &Who) -> Option<Record> {
    match record {
        Record::Event(event) => anonymous_event(event, who).map(Record::Event),
        Record::Refused(refusal) => {
            let is_named = who.is_in(&refusal.sample) || who.is_in(&refusal.topic) || who.is_in(&refusal.reason);
            is_named.then_some(Record::Removed)
        }
        // Time went on by what staff did, whomever it was about.
        Record::Points(deed) => who.is(&deed.person).then_some(Record::Ticked { at_us: deed.at_us }),
        Record::ActedOnPerson { person, action } => who.is(person).then_some(Record::Ticked { at_us: action.at_us }),
        Record::Identities { at_us, change } => {
            let change = without(change, who)?;
            Some(Record::Identities { at_us: *at_us, change })
        }
        Record::Repaired { at_us, pasts } => {
            let others: Vec<_> = pasts.iter().filter(|past| !who.is(&past.person)).cloned().collect();
            let (at_us, is_named) = (*at_us, others.len() < pasts.len());
            is_named.then_some(Record::Repaired { at_us, pasts: others })
        }
        Record::Looked(look) => {
            let others: Vec<_> = look.persons.iter().filter(|person| !who.is(person)).cloned().collect();
            let is_named = others.len() < look.persons.len();
            is_named.then(|| {
                Record::Looked(Look {
                    persons: others,
                    ..look.clone()
                })
            })
        }
        Record::Acted(_)
        | Record::Started { .. }
        | Record::Ticked { .. }
        | Record::QueryRestarted { .. }
        | Record::Shed { .. }
        | Record::Removed
        | Record::Expired { .. }
        | Record::Erased(_)
        | Record::ErasureDone(_) => None,
    }
}

/// The links of others; `None` where none is of somebody who is meant.
fn without(change: &TableChange, who: &Who) -> Option<TableChange> {
    let of_others = |links: &[(Arc<str>, Arc<str>)]| -> Vec<(Arc<str>, Arc<str>)> {
        let links = links.iter().filter(|(person, also)| !who.is(person) && !who.is(also));
        links.cloned().collect()
    };
    let left = TableChange {
        link: of_others(&change.link),
        unlink: of_others(&change.unlink),
    };
    (left != *change).then_some(left)
}

/// Whether an event is a person's: by name, in a session of theirs, or one that says whose such a name is.
pub fn is_theirs(event: &Event, who: &Who) -> bool {
    if let Reading::Identify { person, also, .. } = &event.reading {
        return who.is(person.as_str()) || also.iter().any(|name| who.is(name.as_str()));
    }
    if let Reading::Consent { person, .. } = &event.reading {
        return who.is(person.as_str());
    }
    let session = match &event.reading {
        Reading::Click { session, .. } => session.as_ref(),
        _ => None,
    };
    pseudonym(&event.reading).is_some_and(|person| who.is(person))
        || session.is_some_and(|session| who.is(session.as_str()))
}

/// Takes whoever did something out of an event, and what would tell who it was: session, words that were searched for, and the
/// message that was answered. What is counted of it stays, and so does by what it is known again.
pub fn without_person(event: &mut Event) {
    match &mut event.reading {
        Reading::Rfid { person, .. } => *person = None,
        Reading::Click {
            person, session, query, ..
        } => (*person, *session, *query) = (None, None, None),
        Reading::Reply { person, message, .. } => {
            *person = Pseudonym::nobody();
            *message = "".into();
        }
        Reading::Consent { person, .. } => *person = Pseudonym::nobody(),
        // Of whom something is said is not who did something.
        Reading::Identify { .. } | Reading::Gate(_) | Reading::Seat { .. } => {}
    }
}

fn anonymous_event(event: &Event, who: &Who) -> Option<Event> {
    if !is_theirs(event, who) {
        return None;
    }
    let mut left = event.clone();
    match &mut left.reading {
        // In a session of theirs somebody else may have been there, who is not to be erased.
        Reading::Click {
            person: Some(person),
            session,
            ..
        } if !who.is(person.as_str()) => *session = None,
        Reading::Identify { person, also, .. } => {
            also.retain(|name| !who.is(name.as_str()));
            if who.is(person.as_str()) || also.is_empty() {
                // What it says of others it says of them and the person together.
                *person = Pseudonym::nobody();
                also.clear();
            }
        }
        _ => without_person(&mut left),
    }
    Some(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{DecodeOptions, Decoder};
    use crate::event::dedup_key;
    use crate::pseudonym::Secret;

    fn events(kind: &str, payload: &str) -> Vec<Event> {
        let mut decoder = Decoder::new(DecodeOptions::new(Secret::from_bytes([7; 32])));
        let decoded = decoder.decode(
            &format!("usher/in/main/hall/{kind}/d1"),
            payload.as_bytes(),
            1_772_413_200_000_000,
        );
        assert!(decoded.refused.is_empty(), "{:?}", decoded.refused);
        decoded.events
    }

    fn ada() -> (Pseudonym, Who) {
        let ada = Secret::from_bytes([7; 32]).person("ada");
        let who = Who::known(&[Arc::clone(ada.shared())]);
        (ada, who)
    }

    #[test]
    fn of_an_event_stays_what_is_counted_and_by_what_it_is_known_again() {
        let (ada, who) = ada();
        let cases = [
            ("rfid", r#"{"id":"1","tag":"E280","action":"checkout","person":"ada"}"#),
            (
                "click",
                r#"{"id":"2","person":"ada","session":"s","action":"search","query":"grief","results":3,"item":"i"}"#,
            ),
            (
                "reply",
                r#"{"id":"3","person":"ada","message":"m-1","response":"accepted","rating":4}"#,
            ),
            ("rfid", r#"{"tag":"E281","person":"ada"}"#),
        ];
        for (kind, payload) in cases {
            let event = events(kind, payload).remove(0);
            let record = Record::Event(event.clone());
            let Some(Record::Event(left)) = anonymous(&record, &who) else {
                panic!("{payload} is theirs");
            };
            assert_eq!(dedup_key(&left), dedup_key(&event));
            assert_eq!((left.time_us, &left.source), (event.time_us, &event.source));
            assert_eq!(pseudonym(&left.reading), None);
            let bytes = Record::Event(left.clone()).to_bytes();
            let text = String::from_utf8_lossy(&bytes);
            for gone in [ada.as_str(), "s_", "grief", "m-1"] {
                assert!(!text.contains(gone), "{gone} is still in what is left of {payload}");
            }
            assert_eq!(Record::from_bytes(&bytes), Ok(Record::Event(left.clone())));
            // Once more nothing changes.
            assert_eq!(anonymous(&Record::Event(left), &who), None);
        }
        let others = events(
            "click",
            r#"{"id":"9","person":"ben","session":"s","action":"search","query":"rust"}"#,
        );
        assert_eq!(anonymous(&Record::Event(others[0].clone()), &who), None);
    }

    #[test]
    fn of_links_those_of_others_stay() {
        let (ada, who) = ada();
        let cases = [
            (r#"{"id":"1","person":"ada","also":["tag-1","tag-2"]}"#, vec![]),
            (r#"{"id":"2","person":"tag-1","also":"ada","action":"unlink"}"#, vec![]),
            (
                r#"{"id":"3","person":"tag-1","also":["ada","tag-2"]}"#,
                vec!["tag-1", "tag-2"],
            ),
        ];
        let named = |names: &[&str]| -> Vec<Arc<str>> {
            let secret = Secret::from_bytes([7; 32]);
            names
                .iter()
                .map(|name| Arc::clone(secret.person(name).shared()))
                .collect()
        };
        for (payload, expected) in cases {
            let event = events("identify", payload).remove(0);
            let Some(Record::Event(left)) = anonymous(&Record::Event(event.clone()), &who) else {
                panic!("{payload} is theirs");
            };
            assert_eq!(dedup_key(&left), dedup_key(&event));
            let Reading::Identify { person, also, .. } = &left.reading else {
                panic!("it was a link");
            };
            let names = [person].into_iter().chain(also).filter(|name| name.is_somebody());
            let names: Vec<Arc<str>> = names.map(|name| Arc::clone(name.shared())).collect();
            assert_eq!(names, named(&expected), "{payload}");
            assert_eq!(anonymous(&Record::Event(left), &who), None);
        }
        let [one, other] = [0, 1].map(|at| Arc::clone(&named(&["tag-1", "tag-2"])[at]));
        let own = Arc::clone(ada.shared());
        let change = TableChange {
            link: vec![
                (Arc::clone(&own), Arc::clone(&one)),
                (Arc::clone(&one), Arc::clone(&other)),
            ],
            unlink: vec![(Arc::clone(&other), Arc::clone(&own))],
        };
        let left = TableChange {
            link: vec![(Arc::clone(&one), other)],
            unlink: Vec::new(),
        };
        let record = |change| Record::Identities { at_us: 7, change };
        assert_eq!(anonymous(&record(change), &who), Some(record(left.clone())));
        assert_eq!(anonymous(&record(left), &who), None);
        let looked = |persons| {
            Record::Looked(Look {
                persons,
                by: "Li".to_owned(),
                at_us: 7,
                what: "person".to_owned(),
                reason: None,
            })
        };
        let left = anonymous(&looked(vec![Arc::clone(&own), Arc::clone(&one)]), &who);
        assert_eq!(left, Some(looked(vec![one])));
        assert_eq!(anonymous(&looked(vec![own]), &who), Some(looked(Vec::new())));
        assert_eq!(anonymous(&looked(Vec::new()), &who), None);
    }

    #[test]
    fn a_session_of_theirs_is_theirs_before_they_logged_in_too() {
        let secret = Secret::from_bytes([7; 32]);
        let who = Who::known(&[Arc::clone(secret.session("s").shared())]);
        let event = events("click", r#"{"id":"2","session":"s","action":"search","query":"grief"}"#).remove(0);
        let Some(Record::Event(left)) = anonymous(&Record::Event(event), &who) else {
            panic!("it is theirs");
        };
        let Reading::Click {
            session, query, action, ..
        } = left.reading
        else {
            panic!("it was a click");
        };
        assert_eq!((session, query, action.as_ref()), (None, None, "search"));
    }
}
