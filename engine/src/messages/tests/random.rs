//! Whatever happens in whatever order: nobody gets more than a day may have or anything they do not want, and a replay, cut
//! anywhere, finds the same messages.

use std::collections::{BTreeMap, BTreeSet};

use usher_queries::rows::batch_to_json;

use super::{RULES, perception, pseudonym, settings};

use crate::alert::Trace;
use crate::event::Event;
use crate::fixture::{self, NINE, SECOND};
use crate::messages::{MessageState, MessageStep, MessageView};
use crate::perception::Perception;
use crate::perception::tests::saved;
use crate::record::Record;
use crate::settings::MessageSettings;

const SITE: &str = "[[site]]\nid = \"main\"\ntime_zone = \"Europe/Berlin\"\n";
const PEOPLE: [&str; 5] = ["ann", "bob", "cat", "dan", "eve"];
const EVENTS: usize = 250;
/// Said when a window has ended, in turns.
const BUSY: &str = "
CREATE ALERT busy WITH (subject = 'person', message = 'tour_offer', priority = 40, expires = '1 hour', text = 'A tour?') AS
SELECT site, person, window_start, window_end, count(*) AS times FROM TUMBLE(click, event_time, INTERVAL '10 minutes')
WHERE person IS NOT NULL GROUP BY site, person, window_start, window_end;
";

/// What reads what was written: at once, when windows end, beside what else comes, and with a clock of its own.
const READERS: &str = "
CREATE QUERY became AS
SELECT kind, state, reason, count(*) AS times, min(event_time) AS first, max(event_time) AS last
FROM message GROUP BY kind, state, reason;
CREATE QUERY by_hour WITH (emit = 'close') AS
SELECT kind, window_start, window_end, count(*) AS times, count(DISTINCT person) AS persons
FROM TUMBLE(message, event_time, INTERVAL '1 hour') GROUP BY kind, window_start, window_end;
CREATE QUERY hours AS
SELECT kind, sum(times) AS times, sum(persons) AS persons, count(*) AS hours FROM by_hour GROUP BY kind;
CREATE QUERY beside WITH (emit = 'close') AS
WITH both AS (
  SELECT concat(kind, state) AS what, person, event_time FROM message
  UNION ALL SELECT response AS what, person, event_time FROM reply
  UNION ALL SELECT 'visit' AS what, person, event_time FROM visit
)
SELECT what, window_start, window_end, count(*) AS times, count(DISTINCT person) AS persons
FROM TUMBLE(both, event_time, INTERVAL '1 hour') GROUP BY what, window_start, window_end;
CREATE QUERY besides AS
SELECT what, sum(times) AS times, sum(persons) AS persons, count(*) AS hours FROM beside GROUP BY what;
CREATE QUERY too_late AS SELECT query, count(*) AS rows FROM late
WHERE query IN ('by_hour', 'hours', 'beside', 'besides') GROUP BY query;
CREATE QUERY grant_rating AS
SELECT person, CAST(2 AS BIGINT) AS points, 'rated' AS reason, message AS cause, event_time
FROM message WHERE state = 'rated' AND person IS NOT NULL;
CREATE ALERT unheard WITH (subject = 'person', severity = 'info', raise = 'state = ''sent''', clear = 'state <> ''sent''',
  for = '7 minutes', text = '{person} has not looked') AS
SELECT site, person, state, event_time FROM message WHERE state NOT IN ('withheld', 'expired');
";

fn fresh() -> Perception {
    perception(SITE, &format!("{RULES}{BUSY}{READERS}"), &terms())
}

/// What readers have of what was written, when time has gone on for two hours behind the last record.
fn read(perception: &mut Perception) -> Vec<String> {
    let now_us = perception.now_us();
    for hours in 1..=2 {
        perception.tick(now_us + hours * 3_600 * SECOND);
    }
    while perception.has_work() {
        perception.work();
    }
    let mut rows = Vec::new();
    for name in ["became", "hours", "besides", "too_late"] {
        let kept = perception.queries.peek(name).expect("it runs").expect("it keeps rows");
        let of_it = batch_to_json(&kept.1).into_iter();
        rows.extend(of_it.map(|row| format!("{name} {}", serde_json::Value::Object(row))));
    }
    let open = perception.alerts.open().into_iter();
    let cleared = perception.alerts.cleared().map(AsRef::as_ref);
    let alerts = open.chain(cleared).filter(|alert| &*alert.rule == "unheard");
    rows.extend(alerts.map(|alert| format!("unheard {} {} {:?}", alert.subject.id, alert.id, alert.state)));
    rows.sort();
    rows
}

/// Numbers that a seed says.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).expect("an index")]
    }
}

fn terms() -> MessageSettings {
    settings(|messages| {
        messages.holdout = 0.2;
        messages.per_day = 2;
        messages.quiet = vec![(23 * 60, 29 * 60)];
        messages.stop = std::time::Duration::from_secs(2 * 86_400);
        messages.back_within = std::time::Duration::from_secs(86_400);
    })
}

/// What came of a run: each person's messages, who came back, and the points.
#[derive(Debug, PartialEq)]
struct Outcome {
    messages: BTreeMap<String, Vec<MessageView>>,
    sides: String,
    points: Vec<u64>,
    /// Which share of what was sent they answered.
    rates: Vec<Option<f64>>,
    sent: BTreeSet<String>,
    read: Vec<String>,
}

fn outcome(perception: &mut Perception, sent: BTreeSet<String>) -> Outcome {
    let people = || PEOPLE.map(pseudonym).into_iter();
    let clock = perception.clock_us().unwrap_or(0);
    let rates: Vec<Option<f64>> = people()
        .map(|person| perception.people.get(&person, clock)?.answer_rate)
        .collect();
    assert!(
        rates.iter().flatten().all(|rate| *rate <= 1.0),
        "of what was sent: {rates:?}"
    );
    Outcome {
        rates,
        messages: people()
            .map(|person| (person.clone(), perception.messages.of(&person)))
            .collect(),
        sides: format!("{:?}", perception.messages.sides),
        points: people().map(|person| perception.points.balance(&person)).collect(),
        sent,
        read: read(perception),
    }
}

/// Goes through records, those events in one batch that come behind one another.
fn take(perception: &mut Perception, records: &[Record], sent: &mut BTreeSet<String>) -> Vec<MessageStep> {
    let is_event = |record: &Record| matches!(record, Record::Event(_));
    for run in records.chunk_by(|a, b| is_event(a) && is_event(b)) {
        let event_of = |record: &Record| match record {
            Record::Event(event) => Some(event.clone()),
            _ => None,
        };
        let events: Vec<Event> = run.iter().filter_map(event_of).collect();
        match events.is_empty() {
            true => run.iter().for_each(|record| drop(perception.apply(record))),
            false => drop(perception.take(&events, &|_| Trace::default())),
        }
    }
    told(perception, sent)
}

fn told(perception: &mut Perception, sent: &mut BTreeSet<String>) -> Vec<MessageStep> {
    let steps = perception.take_messages();
    for step in &steps {
        if let MessageStep::Turned(message) = step
            && message.state == MessageState::Sent
        {
            assert!(sent.insert(message.id.clone()), "sent once: {message:?}");
        }
    }
    steps
}

/// Draws what happens while it happens, since answers name messages; and looks at what may not be.
fn drawn(seed: u64) -> (Vec<Record>, Outcome) {
    let mut random = Random(seed);
    let mut perception = fresh();
    let (mut events, mut sent) = (Vec::new(), BTreeSet::new());
    let mut out: BTreeSet<String> = BTreeSet::new();
    let mut of_day: BTreeMap<(String, String, Option<String>), usize> = BTreeMap::new();
    let mut seconds = 0;
    for number in 0..EVENTS {
        seconds += match random.below(10) {
            0..=3 => 0,
            4..=6 => i64::try_from(random.below(3)).expect("small"),
            7 | 8 => i64::try_from(random.below(1_500)).expect("small"),
            _ => i64::try_from(random.below(40_000)).expect("small"),
        };
        // Time alone goes on; as in the engine, the log knows of it where something came of it.
        let is_tick = random.below(5) == 0;
        let person = *random.of(&PEOPLE);
        let known: Vec<String> = perception
            .messages
            .of(&pseudonym(person))
            .into_iter()
            .map(|message| message.id)
            .collect();
        let (topic, payload) = match random.below(10) {
            0..=5 => {
                let query = random.of(&["seat", "cats"]);
                (
                    "web/click/opac",
                    format!(r#""action":"search","person":"{person}","query":"{query}","results":1"#),
                )
            }
            6..=8 if !known.is_empty() => {
                let (id, response) = (random.of(&known), random.of(&["opened", "accepted", "declined"]));
                let rating = [r#","rating":4"#, ""][usize::from(random.below(2) == 0)];
                (
                    "web/reply/app",
                    format!(r#""person":"{person}","message":"{id}","response":"{response}"{rating}"#),
                )
            }
            _ if random.below(3) == 0 => {
                let response = random.of(&["opted_out", "opted_in"]);
                (
                    "web/reply/app",
                    format!(r#""person":"{person}","message":"-","response":"{response}""#),
                )
            }
            _ => ("hall/gate/g", r#""in":1"#.to_owned()),
        };
        let event = fixture::events([(seconds, topic, format!(r#"{{"id":"e{number}",{payload}}}"#))]);
        let mut record = Some(Record::Event(event[0].clone()));
        let steps = if is_tick {
            let at_us = NINE + seconds * SECOND;
            perception.tick(at_us);
            record = perception.messages.has_changed().then_some(Record::Ticked { at_us });
            told(&mut perception, &mut sent)
        } else {
            take(&mut perception, record.as_slice(), &mut sent)
        };
        let mut moments = BTreeSet::new();
        for step in &steps {
            let MessageStep::Turned(message) = step else { continue };
            if message.state != MessageState::Sent {
                continue;
            }
            assert!(!out.contains(&message.person), "seed {seed}: opted out: {message:?}");
            assert!(
                !perception.messages.is_held_out(&message.person),
                "seed {seed}: held out"
            );
            assert!(
                moments.insert((message.person.clone(), message.at.clone())),
                "seed {seed}: one of several: {message:?}"
            );
            let at = chrono::DateTime::parse_from_rfc3339(&message.at).expect("a time");
            let local = at.with_timezone(&chrono_tz::Europe::Berlin);
            let hour = local.format("%H").to_string();
            assert!(
                !["23", "00", "01", "02", "03", "04"].contains(&hour.as_str()),
                "seed {seed}: at night: {message:?}"
            );
            let day = local.date_naive().to_string();
            for (kind, most) in [
                (
                    Some(message.kind.clone()),
                    if message.kind == "seat_offer" { 2 } else { 1 },
                ),
                (None, 2),
            ] {
                let count = of_day.entry((message.person.clone(), day.clone(), kind)).or_default();
                *count += 1;
                assert!(*count <= most, "seed {seed}: too many that day: {message:?}");
            }
        }
        if let crate::event::Reading::Reply { person, response, .. } = &event[0].reading
            && !is_tick
        {
            match response {
                crate::event::Response::OptedOut => {
                    out.insert(person.as_str().to_owned());
                    // Who comes back is nobody that is known: the count begins anew.
                    of_day.retain(|(whose, ..), _| whose != person.as_str());
                    assert!(perception.messages.of(person.as_str()).is_empty(), "seed {seed}");
                }
                crate::event::Response::OptedIn => {
                    out.remove(person.as_str());
                }
                _ => {}
            }
        }
        events.extend(record);
    }
    let outcome = outcome(&mut perception, sent);
    (events, outcome)
}

#[test]
fn nobody_gets_too_much_and_a_replay_finds_the_same() {
    let mut sent = 0;
    for seed in 1..=12 {
        let (events, whole) = drawn(seed);
        sent += whole.sent.len();
        let mut random = Random(seed + 1_000);
        for most in [1, 2, 7, EVENTS] {
            // In batches of any size, in turns that are over at once, and restarted at any record.
            let mut perception = fresh();
            if random.below(2) == 0 {
                perception.take_turns_of(std::time::Duration::ZERO);
            }
            let (mut at, mut told) = (0, BTreeSet::new());
            while at < events.len() {
                let size = 1 + usize::try_from(random.below(most as u64)).expect("small");
                let to = (at + size).min(events.len());
                take(&mut perception, &events[at..to], &mut told);
                at = to;
                if random.below(10) == 0 {
                    let parts = saved(&mut perception);
                    perception = fresh();
                    perception.restore(&parts, NINE).expect("it can be read");
                }
            }
            while perception.has_work() {
                perception.work();
            }
            let again = outcome(&mut perception, told);
            assert_eq!(again, whole, "seed {seed}, batches of up to {most}");
        }
        let has = |what: &str| whole.read.iter().any(|row| row.starts_with(what));
        assert!(
            has("became") && has("hours") && has("unheard") && !has("too_late"),
            "{:#?}",
            whole.read
        );
    }
    assert!(sent > 100, "{sent} messages are enough to say something");
}
