//! What is perceived depends on what came, and not on how it was cut into batches or where a process ended.

mod consenting;
mod engagement;
mod erasing;
mod grouping;
mod identity;

use std::sync::Arc;
use std::time::Duration;

use usher_connectors::checkpoint::{CheckpointStore, Part, Update};
use usher_connectors::log::Offset;
use usher_queries::query_set::Restored;

use super::Perception;
use crate::alert::{State, Trace};
use crate::alerts::{Action, Deed, Step};
use crate::capture::Parts;
use crate::check::load_queries;
use crate::event::Event;
use crate::fixture::{self, NINE, SECOND};
use crate::points::{self, PointsDeed};
use crate::record::Record;
use crate::site::Places;

const SITE: &str = r#"
[[site]]
id = "main"
time_zone = "Asia/Shanghai"
opening = { mon-fri = "08:00-22:00" }
[[zone]]
site = "main"
id = "room"
capacity = 10
"#;

/// With the shipped queries.
fn perception(places: &Arc<Places>, delay_ms: u64, idle_ms: u64) -> Perception {
    let (delay, idle) = (Duration::from_millis(delay_ms), Duration::from_millis(idle_ms));
    fixture::perception(places, delay, idle, |queries| {
        load_queries(queries, std::path::Path::new("")).expect("the shipped queries are right");
    })
}

fn room() -> Arc<Places> {
    fixture::places(SITE)
}

/// Events in the room, received when they happened.
fn events(rows: &[(i64, &str, &str)]) -> Vec<Event> {
    let in_room =
        |(seconds, topic, payload): &(i64, &str, &str)| (*seconds, format!("room/{topic}"), (*payload).to_owned());
    fixture::events(rows.iter().map(in_room))
}

fn no_trace(_: usize) -> Trace {
    Trace::default()
}

/// (rule, state, event time or end, id) of each turn.
fn turns(steps: &[Step]) -> Vec<(String, State, String, String)> {
    steps
        .iter()
        .filter(|step| step.is_turn)
        .map(|step| {
            let alert = &step.alert;
            let when = alert.cleared_at.clone().unwrap_or_else(|| alert.event_time.clone());
            (alert.rule.to_string(), alert.state, when, alert.id.clone())
        })
        .collect()
}

fn states(steps: &[Step], rule: &str) -> Vec<State> {
    let of_rule = steps.iter().filter(|step| step.is_turn && &*step.alert.rule == rule);
    of_rule.map(|step| step.alert.state).collect()
}

/// A morning of the demo's crowd.
fn morning(messages: usize) -> (Arc<Places>, Vec<Event>) {
    let places = Arc::new(crate::demo::places().expect("the shipped library is right"));
    let mut decoder = fixture::decoder();
    let events = crate::demo::day(7)
        .expect("people come")
        .take(messages)
        .flat_map(|message| decoder.decode(&message.topic, &message.payload, message.at_us).events)
        .collect();
    (places, events)
}

#[test]
fn batches_change_no_alert() {
    let (places, events) = morning(1_500);
    let run = |batch: usize, turn: Option<Duration>| {
        let mut perception = perception(&places, 2_000, 10_000);
        if let Some(turn) = turn {
            perception.take_turns_of(turn);
        }
        let mut all = Vec::new();
        for events in events.chunks(batch) {
            all.extend(perception.take(events, &no_trace));
        }
        while perception.has_work() {
            all.extend(perception.work());
        }
        // Alerts of different rules come in the order of rules within a batch; each by itself is the same.
        let mut turns = turns(&all);
        turns.sort_by(|a, b| (&a.0, &a.3).cmp(&(&b.0, &b.3)));
        turns
    };
    let whole = run(events.len(), None);
    assert!(
        whole
            .iter()
            .any(|(rule, state, ..)| rule == "zone_crowded" && *state == State::Active),
        "{whole:?}"
    );
    assert_eq!(whole, run(1, None), "one by one");
    assert_eq!(whole, run(64, None), "in batches");
    assert_eq!(whole, run(16, Some(Duration::ZERO)), "in turns that are over at once");
}

/// What a first checkpoint keeps.
pub(crate) fn saved(perception: &mut Perception) -> Parts {
    saved_without(perception, &[])
}

/// The same as a process would have left it that did not know these parts.
pub(crate) fn saved_without(perception: &mut Perception, unknown: &[&str]) -> Parts {
    let changes = perception.capture().expect("it can be captured").written();
    let parts = changes.expect("it can be written").into_iter().map(|change| {
        assert!(change.begins_anew, "{}", change.name);
        Part {
            name: change.name,
            segments: change.segments,
        }
    });
    Parts::new(parts.filter(|part| !unknown.contains(&part.name.as_str())).collect())
}

#[test]
fn a_restart_changes_nothing() {
    let (places, events) = morning(900);
    let run = |restarts: &[usize]| {
        let mut perception = perception(&places, 2_000, 10_000);
        let mut all = Vec::new();
        for (number, events) in events.chunks(100).enumerate() {
            all.extend(perception.take(events, &no_trace));
            if restarts.contains(&number) {
                let parts = saved(&mut perception);
                perception = self::perception(&places, 2_000, 10_000);
                let outcomes = perception.restore(&parts, NINE).expect("it can be read");
                let is_kept = |(_, outcome): &(String, Restored)| *outcome == Restored::Kept;
                assert!(outcomes.iter().all(is_kept), "{outcomes:?}");
            }
        }
        let clock = perception.clock_us();
        let people = perception.people.table(clock.unwrap_or(0));
        (
            turns(&all),
            perception.zones.all(clock, &places),
            perception.seats.all(None, &places),
            people,
        )
    };
    assert_eq!(run(&[]), run(&[0, 3, 4, 7]));
}

/// The chain of what was captured, as a checkpoint keeps it.
#[derive(Default)]
struct Chained {
    parts: std::collections::BTreeMap<String, Vec<bytes::Bytes>>,
}

impl Chained {
    fn take(&mut self, perception: &mut Perception) {
        let changes = perception.capture().expect("it can be captured").written();
        let mut before = std::mem::take(&mut self.parts);
        for change in changes.expect("it can be written") {
            let mut segments = before.remove(&change.name).unwrap_or_else(|| {
                assert!(change.begins_anew, "{} goes on behind nothing", change.name);
                Vec::new()
            });
            if change.begins_anew {
                segments.clear();
            }
            segments.extend(change.segments);
            self.parts.insert(change.name, segments);
        }
    }

    fn parts(&self) -> Parts {
        let parts = self.parts.iter().map(|(name, segments)| Part {
            name: name.clone(),
            segments: segments.clone(),
        });
        Parts::new(parts.collect())
    }
}

/// All that can be seen of what is known, by name.
fn known(perception: &mut Perception, places: &Places) -> Vec<(String, String)> {
    let clock = perception.clock_us();
    let mut all = vec![
        (
            "zones".to_owned(),
            format!("{:#?}", perception.zones.all(clock, places)),
        ),
        ("seats".to_owned(), format!("{:#?}", perception.seats.all(None, places))),
        (
            "people".to_owned(),
            format!("{:#?}", perception.people.table(clock.unwrap_or(0))),
        ),
        (
            "devices".to_owned(),
            format!(
                "{:#?}",
                perception.devices.all(perception.holder(), |_, _, _| false, places)
            ),
        ),
        ("alerts".to_owned(), format!("{:#?}", perception.alerts.open())),
    ];
    let names: Vec<String> = perception
        .queries
        .queries()
        .iter()
        .map(|query| query.name().to_string())
        .collect();
    for name in names {
        let rows = perception.queries.peek(&name).expect("it runs");
        let rows = rows.map_or_else(Vec::new, |(_, rows)| usher_queries::rows::batch_to_json(&rows));
        let mut rows: Vec<String> = rows
            .into_iter()
            .map(|row| serde_json::Value::Object(row).to_string())
            .collect();
        rows.sort();
        all.push((name, rows.join("\n")));
    }
    all
}

/// Checkpoints at random moments, some of them taken ahead in parts, a crash at a random one of them, and the log from its
/// offset on: as if nothing had been.
#[test]
fn a_chain_of_checkpoints_and_the_log_behind_them_are_what_was_there() {
    let (places, events) = morning(900);
    for seed in 1..=12_u64 {
        let mut random = seed;
        let mut draw = |below: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        // The same batches each time: when an alert was raised by our clock shows where they end.
        let mut batches: Vec<&[Event]> = Vec::new();
        let mut rest = events.as_slice();
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(rest.len().min(1 + draw(12)));
            batches.push(batch);
            rest = behind;
        }
        let crash_at = draw(batches.len());
        let run =
            |perception: &mut Perception, from: usize, to: usize, step: &mut dyn FnMut(&mut Perception, usize)| {
                for (number, batch) in (from..).zip(&batches[from..to]) {
                    perception.take(batch, &no_trace);
                    // A tick that is not in the log.
                    perception.tick(batch[batch.len() - 1].received_us);
                    step(perception, number + 1);
                }
            };
        let mut whole = perception(&places, 2_000, 10_000);
        run(&mut whole, 0, batches.len(), &mut |_, _| {});

        let mut broken_off = perception(&places, 2_000, 10_000);
        let (mut chain, mut saved_at, mut saves) = (Chained::default(), 0, 0);
        run(&mut broken_off, 0, crash_at, &mut |perception, at| match draw(4) {
            0 => {
                let mut room = draw(200);
                perception.gather(&mut room).expect("it can be captured");
            }
            1 => {
                chain.take(perception);
                (saved_at, saves) = (at, saves + 1);
            }
            2 if draw(20) == 0 => perception.capture_anew(),
            _ => {}
        });
        let mut again = perception(&places, 2_000, 10_000);
        if saves > 0 {
            let outcomes = again.restore(&chain.parts(), NINE).expect("it can be read");
            let is_kept = |(_, outcome): &(String, Restored)| *outcome == Restored::Kept;
            assert!(outcomes.iter().all(is_kept), "seed {seed}: {outcomes:?}");
        }
        run(&mut again, saved_at, batches.len(), &mut |_, _| {});
        for (again, whole) in known(&mut again, &places).iter().zip(known(&mut whole, &places)) {
            let words = format!("seed {seed}, {saves} checkpoints, crash at {crash_at}, the last at {saved_at}");
            assert_eq!(*again, whole, "{words}");
        }
    }
}

#[test]
fn where_nothing_came_next_to_nothing_is_written() {
    let (places, events) = morning(900);
    let folder = tempfile::tempdir().expect("a folder");
    let store = CheckpointStore::open(folder.path()).expect("an empty folder");
    let mut perception = perception(&places, 2_000, 10_000);
    let save = |perception: &mut Perception| {
        let update = Update {
            next_offset: Offset(0),
            format: 2,
            parts: perception.capture().expect("it can be captured").pieces(),
        };
        store.save(update).expect("the folder can be written")
    };
    perception.take(&events, &no_trace);
    let whole = save(&mut perception);
    for _ in 0..3 {
        let idle = save(&mut perception);
        // What is left is the list of what there is.
        assert!(
            idle.written_bytes < whole.written_bytes / 20,
            "{idle:?} after {whole:?}"
        );
        assert!(idle.written_bytes < 16_384, "{idle:?}");
    }
    perception.take(&events[..1], &no_trace);
    let one = save(&mut perception);
    assert!(one.written_bytes < whole.written_bytes / 2, "{one:?} after {whole:?}");
}

/// The zone's capacity is in the query's rows as it was when people passed, also where the message comes later.
#[test]
fn a_site_that_changed_over_a_restart_is_as_it_is_now_from_then_on() {
    let create = |perception: &mut Perception| {
        let sql = "CREATE QUERY passed WITH (emit = '1 second', lateness = '1 minute', ttl = '1 hour') AS
            SELECT z.capacity, count(*) AS passages
            FROM gate g JOIN zones FOR SYSTEM_TIME AS OF g.event_time z ON g.site = z.site AND g.zone = z.zone
            GROUP BY z.capacity";
        let statement = usher_queries::statement::parse_statement(sql).expect("it is right");
        perception.queries.put(statement).expect("it can run");
    };
    let mut before = perception(&room(), 0, 1_000_000);
    create(&mut before);
    before.take(&events(&[(0, "gate/g", r#"{"in":1}"#)]), &no_trace);
    let parts = saved(&mut before);

    let larger = SITE.replace("capacity = 10", "capacity = 20");
    let larger = Arc::new(Places::read(std::path::Path::new("site.toml"), &larger).expect("right"));
    let mut after = perception(&larger, 0, 1_000_000);
    create(&mut after);
    after.restore(&parts, NINE + 10 * SECOND).expect("it can be read");
    for seconds in [5, 15] {
        after.take(&events(&[(seconds, "gate/g", r#"{"in":1}"#)]), &no_trace);
    }
    let (_, rows) = after.queries.peek("passed").expect("it runs").expect("it keeps rows");
    let mut rows: Vec<String> = usher_queries::rows::batch_to_json(&rows)
        .into_iter()
        .map(|row| serde_json::Value::Object(row).to_string())
        .collect();
    rows.sort();
    assert_eq!(
        rows,
        [r#"{"capacity":10,"passages":2}"#, r#"{"capacity":20,"passages":1}"#]
    );
}

#[test]
fn a_rule_holds_recovers_clears_and_cools_down() {
    let places = room();
    let mut perception = perception(&places, 0, 1_000_000);
    let mut at = |seconds: i64, payload: &str| perception.take(&events(&[(seconds, "gate/g", payload)]), &no_trace);
    use State::{Active, Cleared, Pending, Recovering};
    assert_eq!(states(&at(0, r#"{"in":9}"#), "zone_crowded"), [Pending]);
    assert_eq!(
        states(&at(5, r#"{"out":1}"#), "zone_crowded"),
        [Cleared],
        "it did not hold for ten seconds"
    );
    assert_eq!(states(&at(6, r#"{"in":1}"#), "zone_crowded"), [Pending]);
    let raised = at(20, r#"{"in":0}"#);
    assert_eq!(states(&raised, "zone_crowded"), [Active]);
    assert_eq!(
        raised[0].alert.event_time, "2026-03-02T01:00:16Z",
        "when it had held long enough"
    );
    assert_eq!(
        states(&at(30, r#"{"out":1}"#), "zone_crowded"),
        [Recovering],
        "between the thresholds"
    );
    assert_eq!(states(&at(40, r#"{"in":1}"#), "zone_crowded"), [Active], "and back");
    assert_eq!(states(&at(50, r#"{"out":2}"#), "zone_crowded"), [Cleared]);
    assert_eq!(states(&at(60, r#"{"in":2}"#), "zone_crowded"), [Pending]);
    assert_eq!(
        states(&at(300, r#"{"in":0}"#), "zone_crowded"),
        [],
        "it cools down for five minutes"
    );
    assert_eq!(states(&at(351, r#"{"in":0}"#), "zone_crowded"), [Active]);
}

#[test]
fn silence_counts_while_the_house_is_open_and_not_while_we_are_away() {
    let places = room();
    let mut perception = perception(&places, 0, 1_000);
    let mut steps = perception.take(&events(&[(0, "gate/g", r#"{"in":0}"#)]), &no_trace);
    steps.extend(perception.tick(NINE + 14 * 60 * SECOND));
    assert_eq!(states(&steps, "device_silent"), []);
    let raised = perception.tick(NINE + 15 * 60 * SECOND + 1);
    assert_eq!(states(&raised, "device_silent"), [State::Active]);
    assert_eq!(raised[0].alert.text, "Sensor g in Room has been silent for 15 minutes");
    // At 21:50 it speaks for the last time; ten minutes of silence are left until it closes.
    let last = 12 * 3600 + 50 * 60;
    let heard = perception.take(&events(&[(last, "gate/g", r#"{"in":0}"#)]), &no_trace);
    assert_eq!(states(&heard, "device_silent"), [State::Cleared]);
    let night = perception.tick(NINE + 22 * 3600 * SECOND);
    assert_eq!(states(&night, "device_silent"), [], "at seven nobody has to speak");
    // We were away from then on, and begin to listen at noon.
    let noon = NINE + 27 * 3600 * SECOND;
    let due_before = perception.begin_listening(noon);
    assert_eq!(states(&due_before, "device_silent"), []);
    assert_eq!(states(&perception.tick(noon + 14 * 60 * SECOND), "device_silent"), []);
    assert_eq!(
        states(&perception.tick(noon + 16 * 60 * SECOND), "device_silent"),
        [State::Active]
    );
}

#[test]
fn a_finding_stands_and_expires_and_staff_can_act_on_it() {
    let places = room();
    let mut perception = perception(&places, 0, 1_000_000);
    let search = r#"{"person":"p","action":"search","query":"x","results":0}"#;
    let mut steps = Vec::new();
    for seconds in [0, 60, 120] {
        steps.extend(perception.take(&events(&[(seconds, "click/c", search)]), &no_trace));
    }
    assert_eq!(states(&steps, "search_needs_help"), [State::Active]);
    let alert = Arc::clone(&steps[0].alert);
    assert_eq!((alert.causes.len(), alert.subject.kind.as_str()), (3, "person"));
    assert!(alert.subject.id.starts_with("p_"));
    let mut act = |deed: Deed| {
        let action = Action {
            alert: alert.id.clone(),
            by: "Li".to_owned(),
            at_us: NINE + 121 * SECOND,
            deed,
        };
        perception.act(&action).1
    };
    let commented = act(Deed::Comment("on my way".to_owned())).expect("it stands");
    assert_eq!(
        (commented.state, commented.comments[0].text.as_str()),
        (State::Active, "on my way")
    );
    assert_eq!(
        act(Deed::Acknowledge).map(|alert| alert.state),
        Some(State::Acknowledged)
    );
    assert!(act(Deed::SnoozeUntil(NINE + 200 * SECOND)).is_some_and(|alert| alert.snoozed));
    let of_another = r#"{"person":"q","action":"login"}"#;
    let awake = perception.take(&events(&[(200, "click/c", of_another)]), &no_trace);
    assert!(
        awake
            .iter()
            .any(|step| step.alert.id == alert.id && !step.alert.snoozed),
        "{awake:?}"
    );
    let later = perception.take(&events(&[(120 + 16 * 60, "click/c", of_another)]), &no_trace);
    assert_eq!(
        states(&later, "search_needs_help"),
        [State::Cleared],
        "after a quarter of an hour"
    );
    assert!(
        perception
            .alerts
            .get(&alert.id)
            .is_some_and(|alert| alert.state == State::Cleared)
    );
}

/// By each device more than five come in the first minute and fewer in the second, which is said in several turns. An event
/// that another alert is about comes in between, at a watermark at which the first minute's alerts would be due.
#[test]
fn an_alert_does_not_ring_before_all_that_is_due_by_then_is_said() {
    let full = "CREATE ALERT full WITH (subject = 'device', raise = 'entered > 5', for = '65 seconds') AS
        SELECT site, zone, device, window_end AS event_time, sum(entered) AS entered
        FROM TUMBLE(gate, event_time, INTERVAL '1 minute') GROUP BY site, zone, device, window_start, window_end";
    let passed = "CREATE ALERT passed WITH (subject = 'device', raise = 'entered > 50') AS
        SELECT site, zone, device, event_time, entered FROM gate";
    let run = |turn: Option<Duration>| {
        let places = room();
        let mut perception = perception(&places, 0, 1_000);
        for sql in [full, passed] {
            let statement = usher_queries::statement::parse_statement(sql).expect("it is right");
            perception.queries.put(statement).expect("it can run");
        }
        perception.learn_rules();
        if let Some(turn) = turn {
            perception.take_turns_of(turn);
        }
        let devices: Vec<String> = (0..600).map(|number| format!("gate/g{number}")).collect();
        let all = |second: i64, payload: &'static str| -> Vec<(i64, &str, &str)> {
            devices
                .iter()
                .map(|device| (second, device.as_str(), payload))
                .collect()
        };
        let settled = |perception: &mut Perception| {
            let mut steps = Vec::new();
            while perception.has_work() {
                steps.extend(perception.work());
            }
            steps
        };
        let mut steps = perception.take(&events(&all(1, r#"{"in":9}"#)), &no_trace);
        steps.extend(perception.take(&events(&all(61, r#"{"in":1}"#)), &no_trace));
        steps.extend(settled(&mut perception));
        for (second, payload) in [(121, r#"{"in":1}"#), (130, r#"{"in":99}"#), (131, r#"{"in":99}"#)] {
            steps.extend(perception.take(&events(&[(second, "gate/g0", payload)]), &no_trace));
        }
        steps.extend(settled(&mut perception));
        let full = states(&steps, "full");
        let count = |state: State| full.iter().filter(|other| **other == state).count();
        (count(State::Pending), count(State::Active), count(State::Cleared))
    };
    assert_eq!(run(None), (600, 0, 600), "none held for so long");
    assert_eq!(
        run(Some(Duration::ZERO)),
        (600, 0, 600),
        "in turns that are over at once"
    );
}

/// So many devices speak that their minute is said in several turns, and then they are silent for longer than they may be. Before
/// that is found out, we do not listen for a while.
#[test]
fn a_silence_that_was_due_is_found_before_we_listen_anew() {
    let counted = "CREATE QUERY counted WITH (emit = 'close') AS
        SELECT site, zone, device, sum(entered) AS entered
        FROM TUMBLE(gate, event_time, INTERVAL '1 minute') GROUP BY site, zone, device, window_start, window_end";
    let run = |turn: Option<Duration>| {
        let mut perception = perception(&room(), 0, 1_000);
        let statement = usher_queries::statement::parse_statement(counted).expect("it is right");
        perception.queries.put(statement).expect("it can run");
        perception.learn_rules();
        if let Some(turn) = turn {
            perception.take_turns_of(turn);
        }
        let devices: Vec<String> = (0..600).map(|number| format!("gate/g{number}")).collect();
        let all: Vec<(i64, &str, &str)> = devices
            .iter()
            .map(|device| (0, device.as_str(), r#"{"in":1}"#))
            .collect();
        let mut steps = perception.take(&events(&all), &no_trace);
        steps.extend(perception.tick(NINE + 16 * 60 * SECOND));
        let found_at_once = states(&steps, "device_silent").len();
        steps.extend(perception.begin_listening(NINE + 17 * 60 * SECOND));
        while perception.has_work() {
            steps.extend(perception.work());
        }
        (found_at_once, states(&steps, "device_silent").len())
    };
    assert_eq!(run(None), (600, 600));
    assert_eq!(run(Some(Duration::ZERO)), (0, 600), "in turns that are over at once");
}

#[test]
fn points_are_spent_of_what_is_due_by_then_in_a_replay_as_well() {
    let lent = events(&[
        (0, "rfid/pad", r#"{"tag":"T1","action":"checkout","person":"card-1"}"#),
        (9, "rfid/pad", r#"{"tag":"T1","action":"checkin"}"#),
    ]);
    let person = crate::columns::pseudonym(&lent[0].reading)
        .expect("it names one")
        .to_string();
    let at_us = NINE + 60 * SECOND;
    let spend = Record::Points(PointsDeed {
        person: person.clone(),
        id: "receipt-1".to_owned(),
        by: "desk".to_owned(),
        at_us,
        deed: points::Deed::Spend {
            points: 8,
            reason: "coffee".to_owned(),
        },
    });
    let places = room();
    // In the first run the clock lets the pattern be found before; nothing of that is in the log.
    let balances = [true, false].map(|ticks| {
        let mut perception = perception(&places, 2_000, 10_000);
        perception.take(&lent, &no_trace);
        if ticks {
            perception.tick(NINE + 30 * SECOND);
            assert_eq!(perception.points.balance(&person), 10);
        }
        perception.apply(&spend);
        perception.points.get(&person)
    });
    assert_eq!(balances[0].as_ref().map(|view| view.balance), Some(2));
    assert_eq!(balances[0], balances[1]);
}
