//! What real devices send, and what nobody should: each becomes events or a reason.

use super::{DecodeOptions, Decoded, Decoder};
use crate::event::{Clock, Gate, IdentifyAction, Reading, RfidAction, SeatState};
use crate::pseudonym::Secret;
use crate::refused::ReasonClass;

/// 2026-03-02T00:00:00Z
const NOW: i64 = 1_772_409_600_000_000;

fn decoder() -> Decoder {
    Decoder::new(DecodeOptions::new(Secret::from_bytes([1; 32])))
}

fn decode(kind: &str, payload: &str) -> Decoded {
    decoder().decode(&format!("usher/in/main/hall/{kind}/d1"), payload.as_bytes(), NOW)
}

fn one(kind: &str, payload: &str) -> crate::event::Event {
    let mut decoded = decode(kind, payload);
    assert_eq!(decoded.refused, [], "{payload}");
    assert_eq!(decoded.events.len(), 1, "{payload}");
    decoded.events.remove(0)
}

fn reason(kind: &str, payload: &str) -> (ReasonClass, String) {
    let mut decoded = decode(kind, payload);
    assert_eq!(decoded.events, [], "{payload}");
    assert_eq!(decoded.refused.len(), 1, "{payload}");
    let refusal = decoded.refused.remove(0);
    (refusal.class, refusal.reason)
}

#[test]
fn gates_count_or_stand() {
    let passed = |entered, exited| Reading::Gate(Gate::Passed { entered, exited });
    assert_eq!(one("gate", r#"{"in":1,"out":0}"#).reading, passed(1, 0));
    assert_eq!(one("gate", r#"{"out":"2"}"#).reading, passed(0, 2));
    assert_eq!(
        one("gate", r#"{"in":3.0,"out":null,"battery":5}"#).reading,
        passed(3, 0)
    );
    assert_eq!(
        one("gate", r#"{"in":1,"total_in":1204,"total_out":1180}"#).reading,
        Reading::Gate(Gate::Totals {
            entered: Some(1204),
            exited: Some(1180)
        })
    );
    for (payload, part) in [
        (r#"{"in":-1}"#, "`in` is -1: a whole number of people, 0 or more"),
        (r#"{"in":1.5}"#, "`in` is 1.5"),
        (r#"{"in":"many"}"#, "`in` is \"many\""),
        (r#"{"in":true}"#, "`in` is true"),
        (r#"{"battery":1}"#, "none of `in`, `out`"),
        (r#"{"in":99999999999}"#, "more than 4294967295 people"),
    ] {
        let (_, reason) = reason("gate", payload);
        assert!(reason.contains(part), "{payload}: {reason}");
    }
}

#[test]
fn seats_tags_clicks_and_replies_are_read() {
    assert_eq!(
        one("seat", r#"{"state":"Away"}"#).reading,
        Reading::Seat { state: SeatState::Away }
    );
    let Reading::Rfid {
        tag,
        antenna,
        action,
        person,
        ..
    } = one(
        "rfid",
        r#"{"tag":" e280aa ","antenna":"1","rssi_dbm":-51.5,"person":4711}"#,
    )
    .reading
    else {
        panic!("an rfid reading was expected");
    };
    assert_eq!((&*tag, antenna, action), ("E280AA", Some(1), RfidAction::Read));
    assert!(person.is_some_and(|person| person.as_str().starts_with("p_")));
    let Reading::Click {
        action,
        query,
        results,
        page,
        count,
        session,
        ..
    } = one(
        "click",
        r#"{"session":"abc","action":"search","query":"mail ada@b.de 9780131103627","results":"0","page":"/r?u=1"}"#,
    )
    .reading
    else {
        panic!("a click was expected");
    };
    assert_eq!(
        (&*action, query.as_deref(), results),
        ("search", Some("mail … 9780131103627"), Some(0))
    );
    assert_eq!((page.as_deref(), count), (Some("/r"), 1));
    assert!(session.is_some_and(|session| session.as_str().starts_with("s_")));
    assert!(matches!(
        one(
            "reply",
            r#"{"person":"a","message":"m","response":"accepted","rating":4}"#
        )
        .reading,
        Reading::Reply { rating: Some(4), .. }
    ));
    for (kind, payload, part) in [
        ("seat", r#"{"state":"ocupied"}"#, "did you mean 'occupied'?"),
        ("seat", r#"{"state":1}"#, "one of occupied, free, away"),
        ("rfid", r#"{"antenna":1}"#, "`tag` is missing"),
        (
            "rfid",
            r#"{"tag":"A","action":"steal"}"#,
            "one of read, checkout, checkin",
        ),
        ("click", r#"{"action":"DROP TABLE;"}"#, "a word such as search"),
        (
            "click",
            r#"{"action":"search","results":-5}"#,
            "`results` is -5: a whole number, 0 or more, was expected",
        ),
        (
            "reply",
            r#"{"person":"a","message":"m","response":"accepted","rating":0}"#,
            "`rating` is 0: a whole number from 1 to 5 was expected",
        ),
        (
            "reply",
            r#"{"person":"a","message":"m","response":"accepted","rating":6}"#,
            "`rating` is 6: a whole number from 1 to 5 was expected",
        ),
        ("reply", r#"{"person":"a","message":"m"}"#, "`response` is missing"),
        (
            "reply",
            r#"{"message":"m","response":"accepted"}"#,
            "`person` is missing",
        ),
    ] {
        let (_, reason) = reason(kind, payload);
        assert!(reason.contains(part), "{payload}: {reason}");
    }
}

#[test]
fn clocks_are_trusted_as_far_as_they_go() {
    let clock = |ts: &str| {
        let event = one("gate", &format!(r#"{{"ts":{ts},"in":1}}"#));
        (event.time_us - NOW, event.clock)
    };
    assert_eq!(
        clock("\"2026-03-02T00:00:05Z\""),
        (5_000_000, Clock::Device),
        "a little ahead is right"
    );
    assert_eq!(clock("\"2066-01-01T00:00:00Z\""), (0, Clock::Ahead));
    assert_eq!(clock("\"1970-01-01T00:00:12Z\""), (0, Clock::Unset));
    assert_eq!(
        clock("1772409600"),
        (0, Clock::Unset),
        "seconds read as milliseconds are 1970"
    );
    assert_eq!(clock("1000000000000000000000"), (0, Clock::Ahead));
    assert_eq!(clock("null"), (0, Clock::Missing));
    assert_eq!(
        clock("\"2005-07-24T07:00:00Z\"").1,
        Clock::Device,
        "a recording may be old"
    );
    assert_eq!(reason("gate", r#"{"ts":"soon","in":1}"#).0, ReasonClass::Time);
}

#[test]
fn of_an_array_the_good_is_kept() {
    let decoded = decode("gate", r#"[{"in":1},{"in":"x"},7,{"out":2}]"#);
    assert_eq!(decoded.events.len(), 2);
    let reasons: Vec<&str> = decoded.refused.iter().map(|refusal| refusal.reason.as_str()).collect();
    assert!(reasons[0].starts_with("element 2: `in` is \"x\""), "{reasons:?}");
    assert!(reasons[1].starts_with("element 3: 7 was found"), "{reasons:?}");
    assert_eq!(
        decode("gate", "{\"in\":1}\n{\"in\":2} {\"in\":3}").events.len(),
        3,
        "one behind the other"
    );
}

#[test]
fn garbage_is_refused_with_its_reason() {
    use ReasonClass::{Empty, Json, Shape};
    for (payload, class, part) in [
        ("", Empty, "the payload is empty"),
        (" \n", Empty, "the payload is empty"),
        ("[]", Empty, "there is no event"),
        ("{\"in\":", Json, "line 1 column 6: EOF"),
        ("on", Json, "JSON would be right"),
        ("7", Shape, "7 was found; a JSON object was expected"),
        ("\"in\"", Shape, "a JSON object was expected"),
        ("null", Shape, "a JSON object was expected"),
    ] {
        let (found, reason) = reason("gate", payload);
        assert_eq!(found, class, "{payload}: {reason}");
        assert!(reason.contains(part), "{payload}: {reason}");
    }
    let nested = "[".repeat(100_000);
    assert_eq!(reason("gate", &nested).0, Json, "depth has an end");
    let large = format!("{{\"in\":1,\"x\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(reason("gate", &large).0, ReasonClass::TooLarge);
    let mut decoder = decoder();
    assert_eq!(
        decoder.decode("usher/in/a/b/gate/c", b"{\"in\":\xff}", NOW).refused[0].class,
        ReasonClass::Encoding
    );
    assert_eq!(
        decoder.decode("usher/in/a", b"{}", NOW).refused[0].class,
        ReasonClass::Topic
    );
    assert_eq!(
        decoder
            .decode("usher/in/a/b/gate/c", b"\xef\xbb\xbf{\"in\":1}", NOW)
            .events
            .len(),
        1,
        "a BOM"
    );
}

#[test]
fn the_same_event_has_the_same_id() {
    assert_eq!(&*one("gate", r#"{"id":"e1","in":1}"#).id, "e1");
    assert_eq!(&*one("gate", r#"{"id":7,"in":1}"#).id, "7");
    let at = |payload: &str| one("gate", payload).id;
    let first = at(r#"{"ts":"2026-03-02T00:00:00Z","in":1,"out":0}"#);
    assert_eq!(
        first,
        at(r#"{"out":0,"in":1,"ts":1772409600000}"#),
        "order and spelling of the time do not matter"
    );
    assert_ne!(first, at(r#"{"ts":"2026-03-02T00:00:00Z","in":2,"out":0}"#));
    assert_ne!(first, at(r#"{"ts":"2026-03-02T00:00:01Z","in":1,"out":0}"#));
    let topic = "usher/in/main/hall/gate/d1";
    let mut decoder = decoder();
    let ids: Vec<_> = [NOW, NOW + 1]
        .into_iter()
        .flat_map(|now| decoder.decode(topic, br#"{"in":1}"#, now).events)
        .map(|event| event.id)
        .collect();
    assert_ne!(ids[0], ids[1], "without a time two passages are two");
}

#[test]
fn nobody_can_try_out_whose_event_an_id_is_of_without_the_secret() {
    let id_with = |secret: u8| {
        let options = DecodeOptions::new(Secret::from_bytes([secret; 32]));
        let payload = br#"{"ts":"2026-03-02T00:00:00Z","person":"Ada-4711","action":"login"}"#;
        Decoder::new(options)
            .decode("usher/in/main/web/click/opac", payload, NOW)
            .events[0]
            .id
            .clone()
    };
    assert_eq!(id_with(1), id_with(1));
    assert_ne!(id_with(1), id_with(2));
}

#[test]
fn no_raw_person_is_left_anywhere() {
    let payloads = [
        ("rfid", r#"{"tag":"A","person":"Ada-4711"}"#),
        (
            "click",
            r#"{"person":"Ada-4711","session":"Ada-4711","action":"view","page":"/x?card=Ada-4711"}"#,
        ),
        ("reply", r#"{"person":"Ada-4711","message":"m","response":"opened"}"#),
        ("identify", r#"{"person":"Ada-4711","also":["tag-4711"]}"#),
    ];
    for (kind, payload) in payloads {
        let decoded = decode(kind, payload);
        assert_eq!(decoded.events.len(), 1);
        assert!(!format!("{decoded:?}").contains("4711"), "{decoded:?}");
    }
    for (kind, payload) in [
        ("click", r#"{"person":"Ada-4711","action":7}"#),
        ("identify", r#"{"also":["Ada-4711"]}"#),
    ] {
        let refused = decode(kind, payload);
        assert_eq!(refused.refused.len(), 1);
        assert!(!format!("{refused:?}").contains("4711"), "{refused:?}");
    }
}

#[test]
fn who_is_who_is_read_and_named_by_pseudonyms_only() {
    let secret = Secret::from_bytes([1; 32]);
    let card = decode("rfid", r#"{"tag":"A","person":"card-1"}"#).events.remove(0);
    let Reading::Rfid { person: Some(card), .. } = card.reading else {
        panic!("a person was expected");
    };
    let named = secret.person("web-1");
    let payload = format!(
        r#"{{"person":"card-1","also":["tag-7"," ",4711,"{}"]}}"#,
        named.as_str()
    );
    let Reading::Identify { person, also, action } = one("identify", &payload).reading else {
        panic!("an identify event was expected");
    };
    assert_eq!((&person, action), (&card, IdentifyAction::Link));
    assert_eq!(also.len(), 3);
    assert_eq!(also[2], named, "a pseudonym is taken as it is");
    let unlink = one("identify", r#"{"person":"card-1","also":"tag-7","action":"Unlink"}"#).reading;
    let Reading::Identify { also: only, action, .. } = unlink else {
        panic!("an identify event was expected");
    };
    assert_eq!((&only[..], action), (&also[..1], IdentifyAction::Unlink));
    let many = format!(
        r#"{{"person":"a","also":{:?}}}"#,
        (0..40).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    for (payload, part) in [
        (r#"{"person":"a"}"#, "`also` has 0 names: 1 to 31 were expected"),
        (many.as_str(), "`also` has 40 names"),
        (r#"{"also":"a"}"#, "`person` is missing"),
        (
            r#"{"person":"a","also":[{"x":1}]}"#,
            "`also` is an object: a text was expected",
        ),
        (r#"{"person":"a","also":"b","action":"merge"}"#, "one of link, unlink"),
    ] {
        let (_, reason) = reason("identify", payload);
        assert!(reason.contains(part), "{payload}: {reason}");
    }
}
