//! Whoever was erased has never been seen, in everything but totals that name nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use usher_queries::rows::batch_to_json;
use usher_queries::statement::parse_statements;

use super::{no_trace, saved};
use crate::check::load_queries;
use crate::erasure::{Erasure, Export, Mark, Who, anonymous};
use crate::event::{Event, dedup_key};
use crate::fixture::{self, NINE, SECOND};
use crate::identity::TableChange;
use crate::lookups::Look;
use crate::perception::Perception;
use crate::points::{Deed, PointsDeed};
use crate::record::Record;

const SITE: &str = r#"
[[site]]
id = "main"
time_zone = "Asia/Shanghai"
[[zone]]
site = "main"
id = "room"
capacity = 10
[[zone]]
site = "main"
id = "hall"
"#;

const QUERIES: &str = "
CREATE QUERY clicks_by_zone AS
SELECT site, zone, count(*) AS clicks, sum(results) AS results FROM click GROUP BY site, zone;

CREATE QUERY reads_by_quarter WITH (emit = 'update', lateness = '1 minute') AS
SELECT site, zone, window_start, window_end, count(*) AS reads, count(DISTINCT person) AS persons
FROM TUMBLE(rfid, event_time, INTERVAL '15 minutes') GROUP BY site, zone, window_start, window_end;

CREATE QUERY by_person WITH (emit = 'update') AS
SELECT person, count(*) AS clicks, last_value(query ORDER BY event_time) AS query FROM click WHERE person IS NOT NULL GROUP BY person;

CREATE QUERY met AS
SELECT c.person, r.tag, c.event_time FROM click c
JOIN rfid r ON c.person = r.person AND r.event_time BETWEEN c.event_time AND c.event_time + INTERVAL '20 minutes'
WHERE c.person IS NOT NULL;

CREATE QUERY met_how_often AS
SELECT person, count(*) AS times FROM met GROUP BY person;

CREATE ALERT lingers WITH (subject = 'person', severity = 'info', raise = 'reads >= 3', clear = 'reads < 3', text = '{person} lingers in {zone}') AS
SELECT site, zone, person, window_start, window_end, count(*) AS reads
FROM HOP(rfid, event_time, INTERVAL '5 minutes', INTERVAL '30 minutes') WHERE person IS NOT NULL
GROUP BY site, zone, person, window_start, window_end;
";

/// What is to be the same: rows that name persons, and totals in which persons are counted and not named.
const READ: [&str; 5] = [
    "clicks_by_zone",
    "reads_by_quarter",
    "by_person",
    "met_how_often",
    "occupancy",
];
pub(super) const PEOPLE: [&str; 4] = ["ann", "bob", "cat", "dan"];
/// Who is erased.
const WHO: &str = "ann";
const SALT: [u8; 32] = [9; 32];

pub(super) fn fresh() -> Perception {
    let places = fixture::places(SITE);
    fixture::perception(&places, Duration::from_secs(2), Duration::from_secs(3_600), |queries| {
        load_queries(queries, std::path::Path::new("")).expect("the shipped queries are right");
        let mistakes = queries.create_all(parse_statements(QUERIES).expect("they are right"));
        assert!(mistakes.is_empty(), "{mistakes:?}");
    })
}

pub(super) fn pseudonym(person: &str) -> Arc<str> {
    Arc::clone(fixture::secret().person(person).shared())
}

/// Names of persons with their sessions.
pub(super) fn with_sessions(persons: &[&str]) -> Vec<Arc<str>> {
    let secret = fixture::secret();
    let both = |person: &&str| {
        let session = secret.session(&format!("s-{person}"));
        [pseudonym(person), Arc::clone(session.shared())]
    };
    persons.iter().flat_map(both).collect()
}

fn erasure(names: &[Arc<str>]) -> Erasure {
    Erasure {
        id: "e-1".to_owned(),
        at_us: NINE,
        by: "desk".to_owned(),
        salt: SALT,
        marks: names.iter().map(|name| Mark::of(&SALT, name)).collect(),
    }
}

/// The name by which somebody is known on the web.
pub(super) fn on_the_web(person: &str) -> String {
    format!("{person}-web")
}

/// (pause, what, who, a number).
type Step = (i64, usize, usize, i64);

/// What happens, in the order of time. Names of one person are linked, and parted again where that is not who is erased: what
/// came under both goes by halves then.
fn records(steps: &[Step]) -> Vec<Record> {
    let mut seconds = 0;
    let mut others = BTreeMap::new();
    let rows: Vec<(i64, String, String)> = steps
        .iter()
        .enumerate()
        .map(|(id, (pause, what, who, number))| {
            seconds += pause;
            let at_us = NINE + seconds * SECOND;
            let (card, web) = (PEOPLE[*who], on_the_web(PEOPLE[*who]));
            let person = if pause % 4 == 3 { web.as_str() } else { card };
            match what {
                11 => {
                    let persons = vec![pseudonym(person), pseudonym(PEOPLE[1])];
                    let look = Look { persons, by: "Li".to_owned(), at_us, what: "person".to_owned(), reason: None };
                    others.insert(id, Record::Looked(look));
                }
                12 => {
                    let link = vec![(pseudonym(card), pseudonym(&web))];
                    let change = TableChange { link, unlink: Vec::new() };
                    others.insert(id, Record::Identities { at_us, change });
                }
                _ => {}
            }
            let action = if *what == 10 && *who > 0 { "unlink" } else { "link" };
            // Who has an item is the only one to lend and return it; anybody may ask for it.
            let owner = (who + 1) % PEOPLE.len();
            let zone = if number % 2 == 0 { "room" } else { "hall" };
            let (kind, payload) = match what {
                0 => ("gate", format!(r#""in":{number},"out":1"#)),
                1 => ("rfid", format!(r#""tag":"E28{number}{who}","action":"read","person":"{person}""#)),
                2 => ("rfid", format!(r#""tag":"E28{number}{who}","action":"checkout","person":"{person}""#)),
                3 => ("rfid", format!(r#""tag":"E28{number}{who}","action":"checkin","person":"{person}""#)),
                4 => ("click", format!(r#""person":"{person}","session":"s-{person}","action":"search","query":"of {person}","results":0"#)),
                5 => ("click", format!(r#""session":"s-{person}","action":"search","query":"of {person}","results":0"#)),
                6 => ("click", format!(r#""person":"{person}","session":"s-{person}","action":"request","item":"E28{number}{owner}""#)),
                // What somebody has is asked for once more, and the next loan of it serves that.
                13 => ("click", format!(r#""person":"{person}","action":"request","item":"E28{number}{who}""#)),
                7 => ("reply", format!(r#""person":"{person}","message":"m-{number}","response":"accepted","rating":4"#)),
                9 | 10 => ("identify", format!(r#""person":"{card}","also":"{web}","action":"{action}""#)),
                _ => ("seat", format!(r#""state":"{}""#, if number % 2 == 0 { "free" } else { "occupied" })),
            };
            (seconds, format!("{zone}/{kind}/d1"), format!(r#"{{"id":"e{id}",{payload}}}"#))
        })
        .collect();
    let events = fixture::events(rows).into_iter().map(Record::Event).enumerate();
    events.map(|(id, event)| others.remove(&id).unwrap_or(event)).collect()
}

pub(super) fn take(perception: &mut Perception, records: &[Record]) {
    let mut events: Vec<Event> = Vec::new();
    for record in records {
        match record {
            Record::Event(event) => events.push(event.clone()),
            other => {
                perception.take(&events, &no_trace);
                events.clear();
                perception.apply(other);
            }
        }
    }
    perception.take(&events, &no_trace);
    perception.take_messages();
}

/// What is known of persons, and the totals.
pub(super) fn known(perception: &mut Perception) -> BTreeMap<String, Vec<Value>> {
    let clock_us = perception.clock_us().unwrap_or(0);
    let rows = |batch| -> Vec<Value> {
        let mut rows: Vec<Value> = batch_to_json(&batch).into_iter().map(Value::Object).collect();
        rows.sort_by_key(ToString::to_string);
        rows
    };
    let mut known = BTreeMap::from([("people".to_owned(), rows(perception.people.table(clock_us)))]);
    for name in READ {
        let peeked = perception.queries.peek(name).expect("it runs");
        known.insert(name.to_owned(), peeked.map_or_else(Vec::new, |(_, batch)| rows(batch)));
    }
    for person in PEOPLE
        .iter()
        .flat_map(|person| [pseudonym(person), pseudonym(&on_the_web(person))])
    {
        known.insert(
            format!("who looked at {person}"),
            vec![serde_json::to_value(perception.lookups.of(&person)).expect("JSON")],
        );
        let messages = perception.messages.of(&person);
        let points = perception.points.get(&person);
        known.insert(
            format!("messages of {person}"),
            vec![serde_json::to_value(messages).expect("JSON")],
        );
        known.insert(
            format!("points of {person}"),
            vec![serde_json::to_value(points).expect("JSON")],
        );
    }
    let open = perception.alerts.open().into_iter();
    let alerts = open.chain(perception.alerts.cleared().map(AsRef::as_ref));
    let mut alerts: Vec<Value> = alerts
        .map(|alert| {
            serde_json::json!([
                alert.id,
                alert.rule,
                alert.subject,
                alert.state,
                alert.values,
                alert.cleared_at
            ])
        })
        .collect();
    alerts.sort_by_key(ToString::to_string);
    known.insert("alerts".to_owned(), alerts);
    known
}

/// Every byte that a checkpoint would have.
pub(super) fn is_named_in_checkpoint(perception: &mut Perception, names: &[Arc<str>]) -> Vec<String> {
    perception.capture_anew();
    let changes = perception
        .capture()
        .expect("it can be captured")
        .written()
        .expect("it can be written");
    let named = changes.into_iter().filter(|change| {
        change.segments.iter().any(|segment| {
            names
                .iter()
                .any(|name| segment.windows(name.len()).any(|window| window == name.as_bytes()))
        })
    });
    named.map(|change| change.name).collect()
}

/// The log is gone through for those whose past is wanted.
fn walk(perception: &mut Perception, log: &[Record]) {
    let Some(mut reader) = perception.past_reader(1_000) else {
        return;
    };
    for record in log {
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
    let (at_us, pasts) = (perception.now_us(), reader.into_pasts());
    perception.apply(&Record::Repaired { at_us, pasts });
    assert_eq!(perception.people.repairs(), 0);
    perception.take_messages();
}

/// Erases `asked` at `cut`, with all names that are the same person's by then; gives how many these are.
fn check(seed: u64, steps: &[Step], cut: usize, asked: &str) -> usize {
    let records = records(steps);
    let cut = cut.min(records.len());
    let (mut with, mut without, mut replayed) = (fresh(), fresh(), fresh());
    take(&mut with, &records[..cut]);
    let web = on_the_web(WHO);
    let theirs = with.identity.names_of(&pseudonym(asked));
    let theirs: Vec<&str> = [WHO, web.as_str()]
        .into_iter()
        .filter(|name| theirs.contains(&pseudonym(name)))
        .collect();
    let names = with_sessions(&theirs);
    let (who, erasure) = (Who::known(&names), erasure(&names));
    let anonymous: Vec<Record> = records[..cut]
        .iter()
        .map(|record| anonymous(record, &who).unwrap_or_else(|| record.clone()))
        .collect();
    with.erase(&erasure, &who);
    with.take_messages();
    take(&mut without, &anonymous);
    // A process that finds the log before it is rewritten knows marks and no names.
    take(&mut replayed, &records[..cut]);
    for perception in [&mut without, &mut replayed] {
        perception.apply(&Record::Erased(erasure.clone()));
        perception.take_messages();
    }
    for perception in [&mut with, &mut replayed] {
        assert_eq!(
            is_named_in_checkpoint(perception, &names),
            Vec::<String>::new(),
            "seed {seed}"
        );
        for name in &theirs {
            assert!(Export::of(perception, &pseudonym(name), NINE).is_empty());
        }
    }
    let erased = [Record::Erased(erasure)];
    let (as_said, rewritten) = (
        [&records[..cut], &erased[..], &records[cut..]].concat(),
        [&anonymous[..], &erased, &records[cut..]].concat(),
    );
    for (rest, is_over) in [(&[][..], false), (&records[cut..], false), (&[], true)] {
        // Who comes again is somebody new.
        for perception in [&mut with, &mut without, &mut replayed] {
            take(perception, rest);
        }
        if is_over {
            // With the log as it was, and as it is once the person is taken out of it.
            walk(&mut with, &as_said);
            walk(&mut without, &rewritten);
            walk(&mut replayed, &rewritten);
        }
        let expected = known(&mut without);
        for found in [known(&mut with), known(&mut replayed)] {
            for (what, expected) in &expected {
                assert_eq!(&found[what], expected, "{what} of seed {seed}: {steps:?}");
            }
        }
    }
    theirs.len()
}

/// Numbers that a seed says.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[test]
fn whoever_was_erased_has_never_been_seen() {
    let mut of_both_names = 0;
    for seed in 0..12 {
        let mut random = Random(seed);
        let steps: Vec<Step> = (0..1 + random.below(50))
            .map(|_| {
                let who = usize::try_from(random.below(4)).expect("an index");
                let what = usize::try_from(random.below(14)).expect("an index");
                (
                    1 + random.below(400).cast_signed(),
                    what,
                    who,
                    random.below(4).cast_signed(),
                )
            })
            .collect();
        let cut = usize::try_from(random.below(steps.len() as u64 + 1)).expect("an index");
        let asked = if seed % 2 == 0 { WHO.to_owned() } else { on_the_web(WHO) };
        of_both_names += usize::from(check(seed, &steps, cut, &asked) == 2);
    }
    assert!(
        (3..12).contains(&of_both_names),
        "some have two names by then: {of_both_names}"
    );
}

#[test]
fn a_receipt_says_what_was_forgotten_and_is_kept_over_a_restart() {
    let steps = [
        (1, 4, 0, 0),
        (20, 4, 0, 0),
        (20, 4, 0, 0),
        (60, 2, 0, 2),
        (60, 1, 1, 2),
        (60, 6, 1, 2),
    ];
    let mut perception = fresh();
    take(&mut perception, &records(&steps));
    let points = PointsDeed {
        person: pseudonym(WHO).to_string(),
        id: "r-1".to_owned(),
        by: "desk".to_owned(),
        at_us: NINE + 400 * SECOND,
        deed: Deed::Grant {
            points: 5,
            reason: "feedback".to_owned(),
            expires_us: None,
        },
    };
    perception.apply(&Record::Points(points));
    let export = Export::of(&mut perception, &pseudonym(WHO), NINE);
    assert_eq!(export.points.as_ref().map(|points| points.balance), Some(5));
    assert!(
        export.engagement.is_some() && export.queries.contains(&"by_person".to_owned()),
        "{export:?}"
    );
    assert!(
        export.alerts.iter().any(|alert| &*alert.rule == "search_needs_help"),
        "{export:?}"
    );

    let names = with_sessions(&[WHO]);
    let steps = perception.erase(&erasure(&names), &Who::known(&names));
    let ended: Vec<_> = steps
        .iter()
        .map(|step| (step.alert.rule.to_string(), step.alert.cleared_at.is_some()))
        .collect();
    assert!(
        ended.contains(&("search_needs_help".to_owned(), true)),
        "who was told that it stands is told that it is over: {ended:?}"
    );
    let receipt = perception.erasures.get("e-1").expect("there is one");
    assert_eq!((receipt.state, receipt.by.as_str()), ("under_way", "desk"));
    assert_eq!((receipt.forgotten.people, receipt.forgotten.ledgers), (1, 1));
    assert!(
        receipt.forgotten.alerts >= 1 && receipt.forgotten.queries_begun_anew.is_empty(),
        "{receipt:?}"
    );
    assert!(
        receipt.forgotten.queries.contains(&"by_person".to_owned()),
        "{receipt:?}"
    );
    let text = serde_json::to_string(&receipt).expect("JSON");
    assert!(!text.contains(&*pseudonym(WHO)), "it names nobody");
    assert_eq!(receipt.person_hash, Mark::of(&SALT, &pseudonym(WHO)).to_text());

    perception.capture_anew();
    let parts = saved(&mut perception);
    let mut restored = fresh();
    restored.restore(&parts, NINE).expect("it can be read");
    assert_eq!(restored.erasures.under_way().len(), 1);
    let done = crate::erasure::Done {
        id: "e-1".to_owned(),
        at_us: NINE + 500 * SECOND,
        on_disk: crate::erasure::OnDisk::default(),
    };
    restored.apply(&Record::ErasureDone(done));
    assert_eq!(restored.erasures.under_way(), []);
    assert_eq!(
        restored.erasures.get("e-1").map(|receipt| receipt.state),
        Some("complete")
    );
    assert_eq!(export_of(&mut restored), (true, 0));
}

fn export_of(perception: &mut Perception) -> (bool, usize) {
    let export = Export::of(perception, &pseudonym(WHO), NINE);
    (export.is_empty(), export.messages.len())
}

/// Who is erased and comes again has, linked or not, what was done since, also where the log still has all of it.
#[test]
fn a_past_that_is_read_from_the_log_leaves_out_who_was_erased() {
    let web = on_the_web(WHO);
    // A pause of 23 has the name on the web, one of 20 the other. Three acts, the erasure, two acts, one of somebody else, the link.
    let before = records(&[(20, 4, 0, 0), (23, 4, 0, 0), (20, 4, 0, 0)]);
    let all = records(&[
        (20, 4, 0, 0),
        (23, 4, 0, 0),
        (20, 4, 0, 0),
        (20, 4, 0, 0),
        (23, 4, 0, 0),
        (20, 4, 1, 0),
        (20, 9, 0, 0),
    ]);
    for (erased, expected) in [(vec![WHO, web.as_str()], 2), (vec![WHO], 3)] {
        let mut perception = fresh();
        take(&mut perception, &before);
        let record = Record::Erased(erasure(&with_sessions(&erased)));
        let log = [&all[..3], &[record], &all[3..]].concat();
        take(&mut perception, &log[3..]);
        assert_eq!(perception.people.repairs(), 1, "both were seen");
        walk(&mut perception, &log);
        let clock_us = perception.clock_us().expect("there were events");
        let person = perception.people.get(&pseudonym(&web), clock_us).expect("it is known");
        assert_eq!((person.events, person.is_provisional), (expected, false), "{erased:?}");
    }
}
