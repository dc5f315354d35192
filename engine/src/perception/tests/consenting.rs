//! Who refuses is left out from then on, whatever the events were cut into, wherever a process ended, and under any name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use usher_queries::purpose::Purpose;

use super::erasing::{
    PEOPLE, Random, fresh, is_named_in_checkpoint, known, on_the_web, pseudonym, take, with_sessions,
};
use super::{no_trace, saved};
use crate::consent::{Consents, Deciding, Purposes};
use crate::erasure::without_person;
use crate::event::{Event, Reading};
use crate::fixture::{self, NINE, SECOND};
use crate::perception::Perception;
use crate::record::Record;

/// A house in which only these purposes hold of who decided nothing.
fn house(without: Purposes) -> Perception {
    let mut perception = fresh();
    perception.change_consents(|consents| *consents = Consents::new(without));
    perception
}

/// (pause, what, who, a number).
type Step = (i64, u64, usize, u64);

fn steps(random: &mut Random, most: u64) -> Vec<Step> {
    (0..1 + random.below(most))
        .map(|_| {
            let who = usize::try_from(random.below(4)).expect("an index");
            (
                1 + random.below(400).cast_signed(),
                random.below(14),
                who,
                random.below(8),
            )
        })
        .collect()
}

/// What happens, in the order of time; decisions and links among it where they are wanted.
fn events(steps: &[Step], decides: bool) -> Vec<Event> {
    let mut seconds = 0;
    let rows = steps.iter().enumerate().map(|(id, (pause, what, who, number))| {
        seconds += pause;
        let (card, web) = (PEOPLE[*who], on_the_web(PEOPLE[*who]));
        let person = if pause % 4 == 3 { web.as_str() } else { card };
        let purpose = ["service", "recognition", "research"][usize::try_from(number % 3).expect("small")];
        let action = if number % 2 == 0 { "refuse" } else { "allow" };
        let opts = if number % 2 == 0 { "opted_out" } else { "opted_in" };
        let link = if number % 3 == 0 { "unlink" } else { "link" };
        let owner = (who + 1) % PEOPLE.len();
        let (kind, payload) = match what {
            0 => ("gate", format!(r#""in":{number},"out":1"#)),
            1 => (
                "rfid",
                format!(r#""tag":"E28{number}{who}","action":"read","person":"{person}""#),
            ),
            2 => (
                "rfid",
                format!(r#""tag":"E28{number}{who}","action":"checkout","person":"{person}""#),
            ),
            3 => (
                "rfid",
                format!(r#""tag":"E28{number}{who}","action":"checkin","person":"{person}""#),
            ),
            4 | 5 => (
                "click",
                format!(
                    r#""person":"{person}","session":"s-{person}","action":"search","query":"of {person}","results":0"#
                ),
            ),
            6 => (
                "click",
                format!(r#""person":"{person}","session":"s-{person}","action":"request","item":"E28{number}{owner}""#),
            ),
            7 => (
                "reply",
                format!(r#""person":"{person}","message":"m-{number}","response":"accepted","rating":4"#),
            ),
            8 if decides => (
                "reply",
                format!(r#""person":"{person}","message":"m","response":"{opts}""#),
            ),
            9 | 10 if decides => (
                "consent",
                format!(r#""person":"{person}","purpose":"{purpose}","action":"{action}""#),
            ),
            11 if decides => (
                "identify",
                format!(r#""person":"{card}","also":"{web}","action":"{link}""#),
            ),
            _ => (
                "seat",
                format!(r#""state":"{}""#, if number % 2 == 0 { "free" } else { "occupied" }),
            ),
        };
        (
            seconds,
            format!("room/{kind}/d1"),
            format!(r#"{{"id":"e{id}",{payload}}}"#),
        )
    });
    fixture::events(rows.collect::<Vec<_>>())
}

/// What is logged of these events, as records.
fn logged(perception: &mut Perception, events: &[Event]) -> Vec<Record> {
    let mut events = events.to_vec();
    // As the pipeline does it: before they are logged where that is the same, and else while they are taken.
    if !perception.may_turn(&events) {
        perception.screen(&mut events);
        let screened = events.clone();
        perception.take_screening(&mut events, &no_trace);
        assert_eq!(events, screened, "there was nothing left to take out");
    } else {
        perception.take_screening(&mut events, &no_trace);
    }
    perception.take_messages();
    events.into_iter().map(Record::Event).collect()
}

fn decides(record: &Record) -> bool {
    matches!(record, Record::Event(event) if Deciding::of(event).is_some() || matches!(event.reading, Reading::Identify { .. }))
}

fn is_named(record: &Record, names: &[Arc<str>]) -> bool {
    let bytes = record.to_bytes();
    let has = |name: &Arc<str>| bytes.windows(name.len()).any(|window| window == name.as_bytes());
    names.iter().any(has)
}

#[test]
fn who_refuses_to_be_recognised_is_counted_and_named_nowhere() {
    for seed in 0..10 {
        let mut random = Random(seed);
        let events = events(&steps(&mut random, 60), false);
        let ann = ["ann".to_owned(), on_the_web("ann")];
        let names = with_sessions(&[&ann[0], &ann[1]]);
        // By a decision under each name, or because nobody was asked yet; the others are asked then.
        let is_asked = seed % 2 == 0;
        let (without, others) = match is_asked {
            true => (Purposes::ALL, &[][..]),
            false => (Purposes::NONE, &PEOPLE[1..]),
        };
        let says = |(number, person): (usize, String)| {
            let action = if is_asked { "refuse" } else { "allow" };
            let purpose = if is_asked {
                r#""recognition""#
            } else {
                r#"["service","recognition","research"]"#
            };
            let payload =
                format!(r#"{{"id":"c{number}","person":"{person}","purpose":{purpose},"action":"{action}"}}"#);
            (-10, "hall/consent/desk".to_owned(), payload)
        };
        let who: Vec<String> = match is_asked {
            true => ann.to_vec(),
            false => others
                .iter()
                .flat_map(|name| [(*name).to_owned(), on_the_web(name)])
                .collect(),
        };
        let decisions = fixture::events(who.into_iter().enumerate().map(says).collect::<Vec<_>>());
        let mut with = house(without);
        let mut log = logged(&mut with, &decisions);
        for some in events.chunks(1 + usize::try_from(random.below(9)).expect("small")) {
            log.extend(logged(&mut with, some));
        }
        let named: Vec<&Record> = log.iter().filter(|record| is_named(record, &names)).collect();
        assert!(named.iter().all(|record| decides(record)), "seed {seed}: {named:?}");
        assert_eq!(named.len(), if is_asked { 2 } else { 0 }, "seed {seed}");
        let parts = is_named_in_checkpoint(&mut with, &names);
        assert_eq!(
            parts,
            if is_asked { vec!["consents"] } else { Vec::new() },
            "seed {seed}"
        );

        // The same if nobody had ever known who it was.
        let anonymous = events.iter().cloned().map(|mut event| {
            let person = crate::columns::pseudonym(&event.reading);
            if person.is_some_and(|person| names.contains(person)) {
                without_person(&mut event);
            }
            event
        });
        let mut never = house(without);
        logged(&mut never, &decisions);
        logged(&mut never, &anonymous.collect::<Vec<_>>());
        let (found, expected) = (known(&mut with), known(&mut never));
        for (what, expected) in &expected {
            assert_eq!(&found[what], expected, "{what} of seed {seed}");
        }
        let clicks = |known: &BTreeMap<String, Vec<Value>>| known["clicks_by_zone"].clone();
        let mut open = fresh();
        take(
            &mut open,
            &events.iter().cloned().map(Record::Event).collect::<Vec<_>>(),
        );
        assert_eq!(
            clicks(&found),
            clicks(&known(&mut open)),
            "totals are those of everybody"
        );
    }
}

/// What everybody decided, and what holds.
fn consents(perception: &Perception) -> Vec<Value> {
    let names = PEOPLE
        .iter()
        .flat_map(|name| [pseudonym(name), pseudonym(&on_the_web(name))]);
    let views = names.map(|name| perception.consents.decided().view(&name));
    views.map(|view| serde_json::to_value(view).expect("JSON")).collect()
}

#[test]
fn however_events_are_cut_and_wherever_a_process_ends_the_same_is_kept() {
    let mut refused = 0;
    for seed in 0..16 {
        let mut random = Random(seed + 100);
        let without = [Purposes::ALL, Purposes::NONE][usize::from(seed % 4 == 3)];
        let events = events(&steps(&mut random, 80), true);
        let mut singly = house(without);
        let log: Vec<Record> = events
            .iter()
            .flat_map(|event| logged(&mut singly, std::slice::from_ref(event)))
            .collect();
        refused += usize::from(!singly.consents.decided().recognises_all());
        let (expected, decided) = (known(&mut singly), consents(&singly));
        for way in 0..4 {
            let mut perception = house(without);
            let (mut again, mut from) = (Vec::new(), 0);
            if way == 1 {
                perception.take_turns_of(Duration::ZERO);
            }
            while from < events.len() {
                let to = (from + 1 + usize::try_from(random.below(20)).expect("small")).min(events.len());
                match way {
                    // The log of another process, as one that begins anew reads it.
                    3 => take(&mut perception, &log[from..to]),
                    _ => again.extend(logged(&mut perception, &events[from..to])),
                }
                if way == 2 {
                    let parts = saved(&mut perception);
                    perception = house(without);
                    perception.restore(&parts, NINE).expect("it can be read");
                }
                from = to;
            }
            while perception.has_work() {
                perception.work();
            }
            perception.take_messages();
            if way != 3 {
                assert_eq!(again, log, "what is logged, way {way} of seed {seed}");
            }
            assert_eq!(consents(&perception), decided, "way {way} of seed {seed}");
            let found = known(&mut perception);
            for (what, expected) in &expected {
                assert_eq!(&found[what], expected, "{what}, way {way} of seed {seed}");
            }
        }
        // Nobody who may not be told apart is kept anything of.
        for person in PEOPLE
            .iter()
            .flat_map(|name| [pseudonym(name), pseudonym(&on_the_web(name))])
        {
            let holding = singly.consents.decided().of(&person);
            if !holding.has(Purpose::Recognition) {
                assert!(!singly.people.knows(&person), "seed {seed}");
            }
            if !holding.has(Purpose::Service) {
                assert!(singly.messages.of(&person).is_empty(), "seed {seed}");
                assert_eq!(singly.points.balance(&person), 0, "seed {seed}");
            }
            for also in singly.identity.names_of(&person) {
                assert_eq!(singly.consents.decided().of(&also), holding, "one person, seed {seed}");
            }
        }
    }
    assert!(refused >= 8, "in {refused} somebody refuses");
}

/// Ada clicks once an hour, three times, and refuses research after the first. Of what is measured in that day her first search
/// stays; of what is counted for the house all three.
#[test]
fn of_who_refuses_research_no_later_row_is_measured() {
    let search = |hour: i64, who: &str| {
        let payload = format!(r#"{{"id":"{who}{hour}","person":"{who}","action":"search","query":"x","results":1}}"#);
        (hour * 3_600, "room/click/d1".to_owned(), payload)
    };
    let refuses = r#"{"id":"c","person":"ada","purpose":"research","action":"refuse"}"#;
    let rows = vec![
        search(0, "ada"),
        search(0, "ben"),
        (60, "room/consent/desk".to_owned(), refuses.to_owned()),
        search(1, "ada"),
        search(1, "ben"),
        search(2, "ada"),
    ];
    let mut perception = fresh();
    perception.take(&fixture::events(rows), &no_trace);
    perception.tick(NINE + 3 * 3_600 * SECOND);
    let of = |perception: &mut Perception, query: &str, column: &str| {
        let peeked = perception.queries.peek(query).expect("it runs");
        let (_, batch) = peeked.expect("it keeps rows");
        let rows = usher_queries::rows::batch_to_json(&batch);
        rows.iter()
            .map(|row| row[column].as_i64().unwrap_or_default())
            .sum::<i64>()
    };
    assert_eq!(of(&mut perception, "measure_searches", "searches"), 3);
    assert_eq!(of(&mut perception, "measure_searches", "persons"), 2);
    assert_eq!(of(&mut perception, "clicks_by_zone", "clicks"), 5);
    let ada = perception.people.get(&pseudonym("ada"), NINE + 3 * 3_600 * SECOND);
    assert_eq!(ada.map(|ada| ada.searches), Some(3), "she is still known");
}

/// Four ask for a seat and borrow. Ann opts out, Ben refuses service and Cem recognition, and agree again; Dora does neither. Then a
/// seat is freed and all items come back.
#[test]
fn what_was_done_before_a_refusal_comes_to_nothing_when_the_person_agrees_again() {
    let people = ["ann", "ben", "cem", "dora"];
    let minute = |minute: i64| 60 * minute;
    let mut rows: Vec<(i64, String, String)> = Vec::new();
    let mut say = |seconds: i64, topic: &str, payload: &str| {
        let payload = payload.replacen('{', &format!(r#"{{"id":"e{}","#, rows.len()), 1);
        rows.push((seconds, topic.to_owned(), payload));
    };
    for who in people {
        let search = format!(r#"{{"person":"{who}","action":"search","query":"seat","results":1}}"#);
        say(minute(1), "room/click/web", &search);
        let loan = format!(r#"{{"person":"{who}","tag":"t-{who}","action":"checkout"}}"#);
        say(minute(2), "room/rfid/desk", &loan);
    }
    let decide = |action: &str, opts: &str| {
        [
            (
                "reply",
                format!(r#"{{"person":"ann","message":"any","response":"{opts}"}}"#),
            ),
            (
                "consent",
                format!(r#"{{"person":"ben","purpose":"service","action":"{action}"}}"#),
            ),
            (
                "consent",
                format!(r#"{{"person":"cem","purpose":"recognition","action":"{action}"}}"#),
            ),
        ]
    };
    for (at, action, opts) in [(5, "refuse", "opted_out"), (10, "allow", "opted_in")] {
        for (kind, payload) in decide(action, opts) {
            say(minute(at), &format!("room/{kind}/app"), &payload);
        }
    }
    say(minute(11), "quiet-study/seat/qs-1", r#"{"state":"occupied"}"#);
    say(minute(12), "quiet-study/seat/qs-1", r#"{"state":"free"}"#);
    for who in people {
        let back = format!(r#"{{"tag":"t-{who}","action":"checkin"}}"#);
        say(minute(13), "room/rfid/desk", &back);
    }
    let mut perception = fresh();
    perception.take(&fixture::events(rows), &no_trace);
    // Behind the readers and pages that have fallen silent.
    perception.tick(NINE + minute(120) * SECOND);
    let offered = |who: &str| {
        let messages = perception.messages.of(&pseudonym(who));
        messages
            .iter()
            .filter(|message| message.rule == "offer_quiet_seat")
            .count()
    };
    assert_eq!(people.map(offered), [0, 0, 0, 1]);
    let points = people.map(|who| perception.points.balance(&pseudonym(who)));
    assert_eq!(points, [0, 0, 0, 10], "for what was returned on time");
    // Who refuses to be written to is known all the same.
    assert_eq!(
        perception
            .people
            .get(&pseudonym("ben"), NINE + minute(15) * SECOND)
            .map(|ben| ben.loans),
        Some(1)
    );
}
