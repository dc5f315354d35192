//! Whose names are whose: what is known of persons in the end is what would be known had their names been theirs from the
//! beginning, whenever that was said, whenever the log was gone through, and wherever a process ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use usher_queries::statement::parse_statements;

use super::{no_trace, saved};
use crate::event::{Event, dedup_key};
use crate::fixture::{self, NINE, SECOND};
use crate::identity::{Identity, IdentityTable, TableChange};
use crate::people::PersonView;
use crate::perception::Perception;
use crate::points::{Deed, PointsDeed};
use crate::record::Record;
use crate::site::Places;

const NAMES: usize = 6;

const SITE: &str = r#"
[[site]]
id = "main"
[[zone]]
site = "main"
id = "lobby"
[[zone]]
site = "main"
id = "room"
[[device]]
site = "main"
zone = "lobby"
id = "way-out"
kind = "rfid"
role = "exit"
"#;

/// Something that comes in.
#[derive(Debug, Clone)]
enum Row {
    /// What a name does: when it is received, how long before that it was, topic, and payload without the person.
    Act {
        at: i64,
        lag: i64,
        name: usize,
        topic: &'static str,
        payload: Value,
    },
    /// What is said of two names.
    Said {
        at: i64,
        /// What tells it from the same said again.
        number: usize,
        person: usize,
        also: usize,
        is_link: bool,
    },
}

fn raw(name: usize) -> String {
    format!("name-{name}")
}

fn pseudonym(name: usize) -> Arc<str> {
    Arc::from(fixture::secret().person(&raw(name)).as_str())
}

/// A morning, a month or a year of some people, with what is said of them in between.
fn draw(random: &mut ChaCha8Rng, said: &[(usize, usize, bool)]) -> Vec<Row> {
    const TOPICS: [&str; 4] = [
        "web/click/c",
        "lobby/rfid/way-out",
        "lobby/rfid/desk",
        "room/rfid/shelf",
    ];
    let count = 60;
    let mut places: Vec<usize> = said.iter().map(|_| random.random_range(0..count)).collect();
    places.sort_unstable();
    let (mut at, mut rows) = (0, Vec::new());
    let mut said = places.into_iter().zip(said).peekable();
    for number in 0..count {
        at += match random.random_range(0..10) {
            0 => random.random_range(1..30) * 86_400,
            1..=3 => random.random_range(1..90) * 60,
            _ => random.random_range(0..30),
        };
        while let Some((_, (person, also, is_link))) = said.next_if(|(place, _)| *place == number) {
            let (person, also, is_link) = (*person, *also, *is_link);
            rows.push(Row::Said {
                at,
                number: rows.len(),
                person,
                also,
                is_link,
            });
        }
        let topic = TOPICS[random.random_range(0..TOPICS.len())];
        let item = ["E1", "E2"][random.random_range(0..2)];
        let mut payload = match topic {
            "web/click/c" => match random.random_range(0..3) {
                0 => json!({"action": "search", "results": random.random_range(0..2)}),
                1 => json!({"action": "view"}),
                _ => json!({"action": "request", "item": item}),
            },
            _ => json!({"tag": item, "action": (["read", "checkout", "checkin"][random.random_range(0..3)])}),
        };
        payload["id"] = json!(format!("e{number}"));
        rows.push(Row::Act {
            at,
            lag: if random.random_bool(0.3) {
                random.random_range(0..40)
            } else {
                0
            },
            name: random.random_range(0..NAMES),
            topic,
            payload,
        });
    }
    rows
}

/// The row's event, with that name in place of its own.
fn event(row: &Row, name_of: impl Fn(usize) -> usize) -> Event {
    let mut decoder = fixture::decoder();
    let (at, topic, payload) = match row {
        Row::Act {
            at,
            lag,
            name,
            topic,
            payload,
        } => {
            let mut payload = payload.clone();
            payload["person"] = json!(raw(name_of(*name)));
            payload["ts"] = json!((NINE / 1_000) + (at - lag) * 1_000);
            (*at, *topic, payload)
        }
        Row::Said {
            at,
            number,
            person,
            also,
            is_link,
        } => {
            let action = if *is_link { "link" } else { "unlink" };
            let payload = json!({
                "id": format!("s{at}-{number}"), "person": raw(*person), "also": raw(*also), "action": action, "ts": NINE / 1_000
            });
            (*at, "lobby/identify/desk", payload)
        }
    };
    let topic = format!("usher/in/main/{topic}");
    let decoded = decoder.decode(&topic, payload.to_string().as_bytes(), NINE + at * SECOND);
    assert_eq!(decoded.refused, []);
    decoded.events.into_iter().next().expect("one event")
}

fn fresh(places: &Arc<Places>) -> Perception {
    fixture::perception(places, Duration::from_secs(5), Duration::from_secs(30), |_| {})
}

/// What went into the log, and the state that came of it.
struct House {
    make: Box<dyn Fn() -> Perception>,
    perception: Perception,
    log: Vec<Record>,
}

impl House {
    fn new() -> Self {
        let places = fixture::places(SITE);
        Self::making(move || fresh(&places))
    }

    fn making(make: impl Fn() -> Perception + 'static) -> Self {
        Self {
            perception: make(),
            make: Box::new(make),
            log: Vec::new(),
        }
    }

    fn take(&mut self, record: Record) {
        self.perception.apply(&record);
        self.log.push(record);
    }

    /// The log is gone through for whoever waits for it.
    fn repair(&mut self) {
        let Some(mut reader) = self.perception.past_reader(1_000) else {
            return;
        };
        for record in &self.log {
            let key = match record {
                Record::Event(event) => Some(dedup_key(event)),
                _ => None,
            };
            reader.take(record, key);
            if reader.is_done() {
                break;
            }
        }
        assert!(reader.is_done(), "all that is wanted is in the log");
        let pasts = reader.into_pasts();
        let at_us = self.perception.now_us();
        self.take(Record::Repaired { at_us, pasts });
    }

    fn restart(&mut self) {
        let parts = saved(&mut self.perception);
        self.perception = (self.make)();
        self.perception.restore(&parts, NINE).expect("it can be read");
    }

    fn view(&self, name: &str) -> Option<PersonView> {
        let clock = self.perception.clock_us().unwrap_or(0);
        self.perception.people.get(name, clock)
    }

    /// What is known by each name's person.
    fn views(&self) -> BTreeMap<Arc<str>, Option<PersonView>> {
        let names = (0..NAMES).map(pseudonym);
        names.map(|name| (Arc::clone(&name), self.view(&name))).collect()
    }
}

/// Runs the rows as they come, goes through the log now and then, and compares with a run in which whoever is one person in the
/// end always was.
fn check(rows: &[Row], random: &mut ChaCha8Rng, what: &str) {
    let mut house = House::new();
    let mut identity = Identity::new();
    for row in rows {
        if let Row::Said {
            person, also, is_link, ..
        } = row
        {
            let (person, also) = (pseudonym(*person), pseudonym(*also));
            match is_link {
                true => identity.link(&person, &also),
                false => identity.unlink(&person, &also),
            };
        }
        house.take(Record::Event(event(row, |name| name)));
        if random.random_bool(0.15) {
            house.repair();
        }
        if random.random_bool(0.1) {
            house.restart();
        }
    }
    house.repair();
    assert!(!house.perception.people.is_repairing(), "{what}");
    let person_of = |name: usize| {
        let person = Arc::clone(identity.aliases().person(&pseudonym(name)));
        (0..NAMES)
            .find(|other| pseudonym(*other) == person)
            .expect("it is one of them")
    };
    let mut always = House::new();
    let mut rows = rows.iter();
    for record in &house.log {
        match record {
            Record::Event(_) => match rows.next() {
                Some(row @ Row::Act { .. }) => always.take(Record::Event(event(row, person_of))),
                Some(Row::Said { at, .. }) => always.take(Record::Ticked {
                    at_us: NINE + at * SECOND,
                }),
                None => panic!("each event has its row"),
            },
            Record::Repaired { at_us, .. } => always.take(Record::Ticked { at_us: *at_us }),
            other => panic!("{other:?} was not expected"),
        }
    }
    for name in 0..NAMES {
        let (own, person) = (pseudonym(name), pseudonym(person_of(name)));
        let expected = always.view(&person).map(|view| PersonView {
            also: u32::try_from(identity.aliases().also(&person)).expect("it is small"),
            ..view
        });
        assert_eq!(house.view(&own), expected, "{what}, {name}");
    }
    // Whoever goes through this log again finds the same, and need not go through it for anybody's past.
    let mut again = House::new();
    for record in house.log.clone() {
        again.take(record);
    }
    assert!(!again.perception.people.is_repairing(), "{what}");
    assert_eq!(again.views(), house.views(), "{what}");
    let clock = house.perception.clock_us().unwrap_or(0);
    let (found, told) = (
        again.perception.people.table(clock),
        house.perception.people.table(clock),
    );
    assert_eq!(found, told, "{what}");
}

#[test]
fn links_make_figures_those_of_one_person_whenever_they_were_said() {
    for seed in 0..150 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut said = Vec::new();
        for _ in 0..random.random_range(1..6) {
            said.push((random.random_range(0..NAMES), random.random_range(0..NAMES), true));
        }
        let rows = draw(&mut random, &said);
        check(&rows, &mut random, &format!("seed {seed}"));
    }
}

#[test]
fn what_is_unlinked_is_as_if_it_had_never_been_linked() {
    for seed in 0..150 {
        let mut random = ChaCha8Rng::seed_from_u64(1_000 + seed);
        let mut said = Vec::new();
        for _ in 0..random.random_range(1..5) {
            let two = (random.random_range(0..NAMES), random.random_range(0..NAMES));
            said.push((two.0, two.1, true));
            if random.random_bool(0.7) {
                said.push((two.0, two.1, false));
            }
        }
        let rows = draw(&mut random, &said);
        check(&rows, &mut random, &format!("seed {seed}"));
    }
}

#[test]
fn in_which_order_names_were_linked_makes_no_difference() {
    for seed in 0..60 {
        let mut random = ChaCha8Rng::seed_from_u64(2_000 + seed);
        let mut said = vec![(0, 1, true), (1, 2, true), (3, 2, true), (4, 3, true)];
        let mut seen = None;
        for _ in 0..3 {
            said.shuffle(&mut random);
            let rows = draw(&mut ChaCha8Rng::seed_from_u64(seed), &said);
            let mut house = House::new();
            for row in &rows {
                house.take(Record::Event(event(row, |name| name)));
                if random.random_bool(0.1) {
                    house.repair();
                }
            }
            house.repair();
            let last = rows.iter().map(|row| match row {
                Row::Act { at, .. } | Row::Said { at, .. } => NINE + at * SECOND,
            });
            house.take(Record::Ticked {
                at_us: last.max().expect("something came") + 3_600 * SECOND,
            });
            let view = |name: usize| {
                let view = house.view(&pseudonym(name));
                view.map(|view| PersonView {
                    person: String::new(),
                    ..view
                })
            };
            let views: Vec<Option<PersonView>> = (0..NAMES).map(view).collect();
            assert!(
                views[..5].windows(2).all(|two| two[0] == two[1]),
                "seed {seed}: five are one"
            );
            let seen = seen.get_or_insert_with(|| views.clone());
            assert_eq!(*seen, views, "seed {seed}: {said:?}");
        }
    }
}

fn click(second: i64, name: usize) -> Row {
    Row::Act {
        at: second,
        lag: 0,
        name,
        topic: "web/click/c",
        payload: json!({"id": format!("c{second}-{name}"), "action": "view"}),
    }
}

fn answer(second: i64, name: usize, response: &str) -> Row {
    Row::Act {
        at: second,
        lag: 0,
        name,
        topic: "web/reply/app",
        payload: json!({"id": format!("r{second}-{name}"), "message": "m", "response": response}),
    }
}

fn said(second: i64, person: usize, also: usize, is_link: bool) -> Row {
    Row::Said {
        at: second,
        number: 0,
        person,
        also,
        is_link,
    }
}

/// A card and a login ask for a seat and are each sent an offer, and are one person for a while. Whatever name answers by then, the
/// answer stays with the name that was written to.
#[test]
fn what_was_sent_and_answered_goes_with_the_names_that_were_written_to() {
    // At nine of its clocks nobody sleeps.
    let site = SITE.replacen("id = \"main\"", "id = \"main\"\ntime_zone = \"Asia/Shanghai\"", 1);
    let places = fixture::places(&site);
    let mut house = House::making(move || {
        fixture::perception(&places, Duration::from_secs(5), Duration::from_secs(30), |queries| {
            let rule = "CREATE ALERT seat_free WITH (subject = 'person', message = 'seat_offer', text = 'A seat', expires = '1 hour') AS
                SELECT site, person, event_time FROM click WHERE action = 'search'";
            assert_eq!(queries.create_all(parse_statements(rule).expect("it is right")), []);
        })
    });
    let held_out = |name: &usize| !house.perception.messages.is_held_out(&pseudonym(*name));
    let written: Vec<usize> = (0..NAMES).filter(held_out).collect();
    let (card, login, other) = (written[0], written[1], written[2]);
    let act = |at: i64, name: usize, topic: &'static str, mut payload: Value| {
        payload["id"] = json!(format!("a{at}-{name}"));
        let lag = 0;
        Row::Act {
            at,
            lag,
            name,
            topic,
            payload,
        }
    };
    let search = |at: i64, name: usize| act(at, name, "web/click/c", json!({"action": "search"}));
    let take = |house: &mut House, row: &Row| house.take(Record::Event(event(row, |name| name)));
    for row in [search(0, card), search(1, login), click(4, other)] {
        take(&mut house, &row);
    }
    let id = |house: &House, name: usize| house.perception.messages.of(&pseudonym(name))[0].id.clone();
    let (to_card, to_login) = (id(&house, card), id(&house, login));
    let answer = |at: i64, name: usize, message: &str, response: &str| {
        act(
            at,
            name,
            "web/reply/app",
            json!({"message": message, "response": response}),
        )
    };
    let rate = |house: &House, name: usize| house.view(&pseudonym(name)).expect("it is known").answer_rate;
    // What they did waits for the watermark, and the offers were faster.
    assert_eq!(house.perception.people.len(), 0);
    assert_eq!((rate(&house, card), rate(&house, login)), (Some(0.0), Some(0.0)));
    take(&mut house, &answer(20, card, &to_card, "accepted"));
    take(&mut house, &answer(21, card, &to_login, "accepted"));
    assert_eq!((rate(&house, card), rate(&house, login)), (Some(1.0), Some(0.0)));
    take(&mut house, &said(30, card, login, true));
    assert_eq!(
        (rate(&house, card), rate(&house, login)),
        (Some(0.5), Some(0.5)),
        "one of two"
    );
    house.restart();
    house.repair();
    assert_eq!(rate(&house, login), Some(0.5));
    take(&mut house, &answer(40, card, &to_login, "declined"));
    assert_eq!(rate(&house, login), Some(1.0));
    take(&mut house, &said(50, card, login, false));
    house.restart();
    house.repair();
    let found = [card, login].map(|name| {
        let view = house.view(&pseudonym(name)).expect("it is known");
        (view.answer_rate, view.visits, view.trust)
    });
    // Each has been there once; the card accepted one of one, and the login declined one of one.
    assert_eq!(found, [(Some(1.0), 1, Some(0.5)), (Some(1.0), 1, Some(0.0))]);
}

/// Three clicks of a card and two of a login, a day apart each: five days, five visits of one person.
#[test]
fn a_card_and_a_login_are_one_person_from_the_link_on() {
    let day = 86_400;
    let mut house = House::new();
    let rows = [0, 1, 2, 3, 4].map(|number| click(number * day, usize::try_from(number % 2).expect("0 or 1")));
    for row in &rows {
        house.take(Record::Event(event(row, |name| name)));
    }
    house.take(Record::Event(event(&said(4 * day + 1, 0, 1, true), |name| name)));
    let (card, login) = (pseudonym(0), pseudonym(1));
    let provisional = house.view(&login).expect("they are known");
    assert_eq!((provisional.person.as_str(), provisional.also), (&*card, 1));
    assert_eq!(
        (provisional.is_provisional, provisional.events, provisional.visits),
        (true, 5, 5)
    );
    assert_eq!(provisional.frequency, 3, "the days of both are not known yet");
    house.repair();
    let view = house.view(&login).expect("they are known");
    assert_eq!(
        (view.is_provisional, view.frequency, view.visits, view.regularity.gaps),
        (false, 5, 5, 4)
    );
    assert_eq!(view.regularity.mean_days, Some(1.0));
    assert_eq!(view, house.view(&card).expect("it is the same person"));
    // From now on what comes under either name is one person's.
    house.take(Record::Event(event(&click(5 * day, 1), |name| name)));
    assert_eq!(house.view(&card).expect("they are known").visits, 6);
    house.take(Record::Event(event(&said(5 * day + 1, 1, 0, false), |name| name)));
    house.repair();
    let visits = |name: &str| house.view(name).map(|view| (view.visits, view.also));
    assert_eq!((visits(&card), visits(&login)), (Some((3, 0)), Some((3, 0))));
}

/// As after a crash between the link and what the log says of it.
#[test]
fn a_link_of_which_the_log_has_not_told_yet_is_gone_through_after_the_start() {
    let mut house = House::new();
    for row in [
        click(0, 0),
        click(100, 1),
        click(5_000, 0),
        click(9_000, 1),
        said(9_100, 0, 1, true),
    ] {
        house.take(Record::Event(event(&row, |name| name)));
    }
    house.take(Record::Event(event(&click(13_000, 1), |name| name)));
    let mut again = House::new();
    for record in house.log.clone() {
        again.take(record);
    }
    again.restart();
    assert!(again.perception.people.is_repairing());
    assert_eq!(again.views(), house.views());
    for house in [&mut house, &mut again] {
        house.repair();
        assert!(!house.perception.people.is_repairing());
    }
    assert_eq!(again.views(), house.views());
    let view = again.view(&pseudonym(0)).expect("they are known");
    assert_eq!(
        (view.visits, view.events),
        (4, 5),
        "the second click is of the first visit"
    );
}

#[test]
fn who_does_not_want_to_be_known_takes_all_names_along() {
    let mut house = House::new();
    let rows = [
        click(0, 0),
        click(10, 1),
        click(20, 2),
        answer(30, 1, "opted_out"),
        // Nothing is kept of the card any more, nor of what the tag does later.
        said(40, 0, 1, true),
        click(50, 0),
        said(60, 0, 2, true),
        click(70, 2),
    ];
    for row in &rows {
        house.take(Record::Event(event(row, |name| name)));
    }
    house.restart();
    let is_out =
        |house: &House| [0, 1, 2].map(|name| !house.perception.consents.decided().recognises(&pseudonym(name)));
    assert_eq!(is_out(&house), [true; 3]);
    assert!([0, 1, 2].iter().all(|name| house.view(&pseudonym(*name)).is_none()));
    // Whoever is parted from them has not said otherwise.
    house.take(Record::Event(event(&said(80, 0, 2, false), |name| name)));
    house.take(Record::Event(event(&click(90, 2), |name| name)));
    assert_eq!(is_out(&house), [true; 3]);
    // What was forgotten stays so, also where the log is gone through.
    for row in [
        answer(100, 2, "opted_in"),
        answer(101, 1, "opted_in"),
        click(110, 2),
        click(111, 0),
    ] {
        house.take(Record::Event(event(&row, |name| name)));
    }
    house.take(Record::Ticked {
        at_us: NINE + 200 * SECOND,
    });
    house.take(Record::Event(event(&said(210, 0, 2, true), |name| name)));
    assert!(house.perception.people.is_repairing());
    house.repair();
    assert_eq!(is_out(&house), [false; 3]);
    let view = house.view(&pseudonym(1)).expect("they are known again");
    assert_eq!((view.events, view.clicks), (4, 2), "two answers and two clicks since");
}

/// 10 of the card's and 5 of the login's; 12 are spent, first those that expire first, which are the login's 5.
#[test]
fn lots_go_with_the_names_under_which_they_came() {
    let mut house = House::new();
    for row in [click(0, 0), click(0, 1)] {
        house.take(Record::Event(event(&row, |name| name)));
    }
    let deed = |house: &mut House, name: usize, id: &str, deed: Deed| {
        let at_us = house.perception.now_us();
        let deed = PointsDeed {
            person: pseudonym(name).to_string(),
            id: id.to_owned(),
            by: "desk".to_owned(),
            at_us,
            deed,
        };
        house.log.push(Record::Points(deed.clone()));
        house.perception.act_on_points(&deed).1
    };
    let grant = |points: u32, days: Option<i64>| Deed::Grant {
        points,
        reason: "help".to_owned(),
        expires_us: days.map(|days| NINE + days * 86_400 * SECOND),
    };
    let spend = |points: u32| Deed::Spend {
        points,
        reason: "coffee".to_owned(),
    };
    deed(&mut house, 0, "g1", grant(10, None)).expect("it is given");
    deed(&mut house, 1, "g2", grant(5, Some(30))).expect("it is given");
    house.take(Record::Event(event(&said(10, 0, 1, true), |name| name)));
    let balances = |house: &House| [0, 1].map(|name| house.perception.points.balance(&pseudonym(name)));
    assert_eq!(balances(&house), [15, 15], "it is one account");
    assert!(
        deed(&mut house, 1, "g1", grant(10, None)).is_ok(),
        "asked again, under another name"
    );
    assert_eq!(balances(&house), [15, 15], "it gives nothing again");
    deed(&mut house, 1, "s1", spend(12)).expect("there is enough");
    assert_eq!(balances(&house), [3, 3]);
    house.restart();
    house.take(Record::Event(event(&said(20, 0, 1, false), |name| name)));
    assert_eq!(balances(&house), [3, 0], "what is left goes back where it came from");
    // Each gets back what was taken of its own.
    let reverse = || Deed::Reverse { entry: "s1".to_owned() };
    assert_eq!(
        deed(&mut house, 0, "r1", reverse()).expect("it is taken back").points,
        7
    );
    assert_eq!(
        deed(&mut house, 1, "r1", reverse()).expect("it is taken back").points,
        5
    );
    assert_eq!(balances(&house), [10, 5]);
    for name in [0, 1] {
        let view = house.perception.points.get(&pseudonym(name)).expect("they have points");
        let sum: i64 = view.entries.iter().map(|entry| entry.points).sum();
        assert_eq!(u64::try_from(sum), Ok(view.balance), "the entries make the balance");
    }
    let mut again = House::new();
    for record in house.log.clone() {
        again.take(record);
    }
    for name in [0, 1] {
        let name = pseudonym(name);
        assert_eq!(again.perception.points.get(&name), house.perception.points.get(&name));
    }
}

#[test]
fn the_table_says_who_is_who_as_events_do() {
    let mut house = House::new();
    for row in [click(0, 0), click(5_000, 1)] {
        house.take(Record::Event(event(&row, |name| name)));
    }
    let change = TableChange {
        link: vec![(pseudonym(0), pseudonym(1))],
        unlink: Vec::new(),
    };
    let at_us = house.perception.now_us();
    house.take(Record::Identities { at_us, change });
    house.repair();
    let view = house.view(&pseudonym(1)).expect("they are known");
    assert_eq!((view.visits, view.is_provisional, view.also), (2, false, 1));
    let back = house.perception.identity.differences(&IdentityTable::default());
    house.take(Record::Identities {
        at_us: at_us + 1,
        change: back,
    });
    house.repair();
    assert_eq!(
        house.view(&pseudonym(1)).map(|view| (view.visits, view.also)),
        Some((1, 0))
    );
}

/// A log that was cut can't tell: what is known stays, as the sums of both.
#[test]
fn where_the_log_does_not_go_back_so_far_sums_stay() {
    let mut house = House::new();
    for row in [click(0, 0), click(10, 1), click(100_000, 0), click(100_010, 1)] {
        house.take(Record::Event(event(&row, |name| name)));
    }
    house.take(Record::Event(event(&said(100_020, 0, 1, true), |name| name)));
    house.log.drain(..2);
    let mut reader = house.perception.past_reader(10).expect("somebody waits for it");
    reader.begin_cut();
    for record in &house.log {
        let Record::Event(event) = record else { continue };
        reader.take(record, Some(dedup_key(event)));
    }
    let pasts = reader.into_pasts();
    let at_us = house.perception.now_us();
    house.take(Record::Repaired { at_us, pasts });
    let view = house.view(&pseudonym(0)).expect("they are known");
    assert_eq!((view.is_provisional, view.events, view.visits), (false, 4, 3));
}

#[test]
fn names_in_a_batch_behind_a_link_are_resolved_as_one_by_one() {
    let rows = [
        click(0, 0),
        click(1, 1),
        said(2, 0, 1, true),
        said(3, 0, 1, true),
        click(3, 1),
        said(4, 0, 1, false),
        said(5, 1, 0, false),
        click(5, 1),
    ];
    let events: Vec<Event> = rows.iter().map(|row| event(row, |name| name)).collect();
    let mut whole = House::new();
    whole.perception.take(&events, &no_trace);
    let mut single = House::new();
    for event in events {
        single.take(Record::Event(event));
    }
    whole.log.clone_from(&single.log);
    for house in [&mut whole, &mut single] {
        house.repair();
    }
    assert_eq!(whole.views(), single.views());
    let events_of = |name: usize| single.view(&pseudonym(name)).map(|view| view.events);
    assert_eq!((events_of(0), events_of(1)), (Some(1), Some(3)));
}
