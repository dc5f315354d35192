//! A replay of a log gives the same steps, however it is cut into batches and turns, and wherever a process ended.

use std::time::Duration;

use serde_json::Value;

use super::{Action, Deed, NINE, SECOND, Step, events, perception};
use crate::alert::Trace;
use crate::event::Event;
use crate::perception::Perception;
use crate::perception::tests::saved;

/// Rules that have to do with each other in every way.
const RULES: &str = "
    CREATE ALERT dumb WITH (subject = 'device', silent = '40 seconds') AS
    SELECT site, zone, device, event_time FROM seat;
    CREATE ALERT busy WITH (subject = 'zone', severity = 'info', raise = 'entered >= 10', clear = 'entered < 5',
        for = '3 seconds', keep = '8 seconds', cooldown = '5 seconds', no_data = '30 seconds', inhibited_by = 'dumb',
        escalate = 'warning after 10 seconds, critical after 20 seconds even if acknowledged', group = 'parent',
        group_wait = '4 seconds', quiet = '09:03-09:04') AS
    SELECT site, zone, entered, event_time FROM gate;
    CREATE ALERT crowded WITH (subject = 'zone', raise = 'entered > 25', inhibited_by = 'busy, taken', group = 'site',
        group_wait = '0s') AS
    SELECT site, zone, sum(entered) AS entered
    FROM HOP(gate, event_time, INTERVAL '5 seconds', INTERVAL '10 seconds')
    GROUP BY site, zone, window_start, window_end;
    CREATE ALERT taken WITH (subject = 'seat', raise = 'state = ''occupied''', cooldown = '10 seconds',
        quiet = '09:01-09:02', group = 'site') AS
    SELECT site, zone, seat, state, event_time FROM seat;
    CREATE QUERY sums AS
    SELECT site, zone, sum(entered) AS entered
    FROM TUMBLE(gate, event_time, INTERVAL '5 seconds')
    GROUP BY site, zone, window_start, window_end;
    CREATE ALERT rushed WITH (subject = 'zone', raise = 'entered > 16', inhibited_by = 'taken') AS
    SELECT site, zone, entered FROM sums UNION ALL SELECT site, zone, entered FROM gate;
    CREATE ALERT found WITH (subject = 'zone', expires = '12 seconds', inhibited_by = 'taken') AS
    SELECT site, zone, exited, event_time FROM gate WHERE exited > 2";

const DELAY_US: u64 = 2_000_000;
const IDLE_US: u64 = 5_000_000;

/// What the log keeps.
#[derive(Debug, Clone)]
enum Logged {
    Event(Event),
    Acted(Action),
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn of<'t>(&mut self, words: &[&'t str]) -> &'t str {
        words[usize::try_from(self.below(words.len() as u64)).expect("it is small")]
    }
}

fn event(random: &mut Random, second: i64, number: usize) -> Event {
    let zone = random.of(&["hall", "cafe", "attic", "floor-1"]);
    // Whole seconds, so that much is due at the same time.
    let ts = NINE / 1000 + (second - i64::try_from(random.below(3)).expect("it is small")) * 1000;
    let (topic, payload) = match random.below(3) {
        0 => {
            let state = random.of(&["occupied", "free", "away"]);
            let seat = random.of(&["a", "b"]);
            (
                format!("{zone}/seat/{seat}"),
                format!(r#"{{"id":"e{number}","ts":{ts},"state":"{state}"}}"#),
            )
        }
        _ => {
            let (entered, exited) = (random.below(20), random.below(4));
            (
                format!("{zone}/gate/g"),
                format!(r#"{{"id":"e{number}","ts":{ts},"in":{entered},"out":{exited}}}"#),
            )
        }
    };
    events(&[(second, topic, payload)]).remove(0)
}

fn deed(random: &mut Random, at_us: i64) -> Deed {
    match random.below(6) {
        0 => Deed::Acknowledge,
        1 => Deed::SnoozeUntil(at_us + i64::try_from(random.below(30)).expect("it is small") * SECOND),
        2 => Deed::Unsnooze,
        3 => Deed::Clear,
        4 => Deed::Assign(Some("Wang".to_owned())),
        _ => Deed::Comment("seen".to_owned()),
    }
}

/// All of a step but what our own clock measured.
fn essence(steps: &[Step]) -> Vec<Value> {
    let turns = steps.iter().filter(|step| step.is_turn);
    turns
        .map(|step| {
            let mut alert = serde_json::to_value(&*step.alert).expect("it is JSON");
            let object = alert.as_object_mut().expect("it is an object");
            object.remove("trace");
            let raised_at = object.remove("raised_at");
            object.insert(
                "was_raised".to_owned(),
                raised_at.is_some_and(|at| !at.is_null()).into(),
            );
            alert
        })
        .collect()
}

fn fresh() -> Perception {
    perception(RULES, DELAY_US, IDLE_US)
}

fn end(perception: &mut Perception, seconds: i64, steps: &mut Vec<Step>) {
    steps.extend(perception.tick(NINE + seconds * SECOND));
    while perception.has_work() {
        steps.extend(perception.work());
    }
}

const SECONDS: i64 = 400;

/// A day as it went: event by event, with looks at the clock and staff in between.
fn live(random: &mut Random) -> (Vec<Logged>, Vec<Value>) {
    let mut perception = fresh();
    let (mut log, mut steps) = (Vec::new(), Vec::new());
    let mut second = 10;
    while second < SECONDS - 60 {
        second += match random.below(12) {
            0 => i64::try_from(random.below(45)).expect("it is small"),
            number => i64::from(number > 6),
        };
        if random.below(3) == 0 {
            steps.extend(perception.tick(NINE + second * SECOND));
        }
        if random.below(5) == 0 {
            let open: Vec<String> = perception.alerts.open().iter().map(|alert| alert.id.clone()).collect();
            if !open.is_empty() {
                let at_us = NINE + second * SECOND;
                let action = Action {
                    alert: open[usize::try_from(random.below(open.len() as u64)).expect("it is small")].clone(),
                    by: "Li".to_owned(),
                    at_us,
                    deed: deed(random, at_us),
                };
                let (told, alert) = perception.act(&action);
                steps.extend(told);
                if alert.is_some() {
                    log.push(Logged::Acted(action));
                }
            }
        }
        let event = event(random, second, log.len());
        steps.extend(perception.take(std::slice::from_ref(&event), &|_| Trace::default()));
        log.push(Logged::Event(event));
    }
    end(&mut perception, SECONDS, &mut steps);
    (log, essence(&steps))
}

/// The log once more, in batches of as many as `size` says, each with restarts where `restarts` says.
fn replayed(
    log: &[Logged],
    turn: Option<Duration>,
    mut size: impl FnMut() -> u64,
    mut restarts: impl FnMut() -> bool,
) -> Vec<Value> {
    let mut perception = fresh();
    let mut steps = Vec::new();
    let mut batch: Vec<Event> = Vec::new();
    let mut left = size();
    for logged in log {
        if let Some(turn) = turn {
            perception.take_turns_of(turn);
        }
        match logged {
            Logged::Event(event) => batch.push(event.clone()),
            Logged::Acted(action) => {
                steps.extend(perception.take(&std::mem::take(&mut batch), &|_| Trace::default()));
                steps.extend(perception.act(action).0);
            }
        }
        left = left.saturating_sub(1);
        if left == 0 {
            left = size();
            steps.extend(perception.take(&std::mem::take(&mut batch), &|_| Trace::default()));
            if restarts() {
                let parts = saved(&mut perception);
                perception = fresh();
                perception.restore(&parts, NINE).expect("it can be read");
            }
        }
    }
    steps.extend(perception.take(&batch, &|_| Trace::default()));
    end(&mut perception, SECONDS, &mut steps);
    essence(&steps)
}

fn same(seed: u64, how: &str, expected: &[Value], found: &[Value]) {
    let first = expected
        .iter()
        .zip(found)
        .position(|(expected, found)| expected != found);
    if let Some(at) = first.or((expected.len() != found.len()).then_some(expected.len().min(found.len()))) {
        let around = |steps: &[Value]| -> String {
            let told = steps.iter().enumerate().skip(at.saturating_sub(2)).take(6);
            told.map(|(number, step)| {
                format!(
                    "\n  {number} {} {} {} {}",
                    step["rule"], step["subject"]["id"], step["step"], step["suppressed_by"]
                )
            })
            .collect()
        };
        panic!(
            "seed {seed}, {how}: step {at} of {} and {} differs\nas it went:{}\nagain:{}\n{}\n{}",
            expected.len(),
            found.len(),
            around(expected),
            around(found),
            expected.get(at).unwrap_or(&Value::Null),
            found.get(at).unwrap_or(&Value::Null)
        );
    }
}

#[test]
fn a_replay_of_a_random_log_gives_the_same_steps() {
    let seeds = std::env::var("USHER_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(12);
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for seed in 1..=seeds {
        let (log, expected) = live(&mut Random(seed));
        for step in &expected {
            let what = format!("{} {}", step["step"]["what"], step["step"]["why"]);
            *seen.entry(what).or_default() += 1;
        }
        let mut random = Random(seed ^ 0xabcd);
        same(seed, "one by one", &expected, &replayed(&log, None, || 1, || false));
        same(
            seed,
            "in one batch",
            &expected,
            &replayed(&log, None, || u64::MAX, || false),
        );
        let mut sizes = Random(seed ^ 0x1234);
        let size = || 1 + sizes.below(30);
        same(
            seed,
            "in batches, restarted",
            &expected,
            &replayed(&log, None, size, || random.below(3) == 0),
        );
        let mut sizes = Random(seed ^ 0x4321);
        let size = || 1 + sizes.below(10);
        let turn = Some(Duration::ZERO);
        same(
            seed,
            "in turns that are over at once",
            &expected,
            &replayed(&log, turn, size, || false),
        );
        let mut sizes = Random(seed ^ 0x5678);
        let size = || 1 + sizes.below(4);
        same(
            seed,
            "in such turns, restarted",
            &expected,
            &replayed(&log, turn, size, || random.below(3) == 0),
        );
    }
    // Everything that can happen in a life did.
    for what in [
        "pending",
        "raised",
        "relapsed",
        "recovering",
        "cleared",
        "withdrawn",
        "acknowledged",
        "assigned",
        "commented",
        "snoozed",
        "unsnoozed",
        "suppressed",
        "unsuppressed",
        "escalated",
        "regrouped",
    ] {
        assert!(
            seen.keys().any(|seen| seen.starts_with(&format!("\"{what}\""))),
            "{what}: {seen:?}"
        );
    }
    for why in ["rule", "clock", "staff", "inhibition", "quiet", "no_data", "group"] {
        assert!(
            seen.keys().any(|seen| seen.ends_with(&format!("\"{why}\""))),
            "{why}: {seen:?}"
        );
    }
}
