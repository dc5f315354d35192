//! What is perceived depends on what came, and not on how it was cut into batches or where a process ended.

use std::sync::Arc;

use usher_queries::query_set::QuerySet;

use super::{Perception, PerceptionOptions};
use crate::alert::{State, Trace};
use crate::alerts::{Action, Deed, Step};
use crate::check::load_queries;
use crate::decode::{DecodeOptions, Decoder};
use crate::event::Event;
use crate::pseudonym::Secret;
use crate::reference::set_references;
use crate::settings::{Flags, Settings};
use crate::site::Places;

const SECOND: i64 = 1_000_000;
/// 2026-03-02T09:00:00+08:00, a Monday.
const NINE: i64 = 1_772_413_200_000_000;
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

fn perception(places: &Arc<Places>, delay_ms: u64, idle_ms: u64) -> Perception {
    let mut settings = Settings::load_with(None, [], &Flags::default()).expect("the defaults are right");
    settings.time.delay = std::time::Duration::from_millis(delay_ms);
    settings.time.idle = std::time::Duration::from_millis(idle_ms);
    let mut queries = QuerySet::new();
    set_references(&mut queries, places);
    load_queries(&mut queries, std::path::Path::new("")).expect("the shipped queries are right");
    Perception::new(PerceptionOptions::of(&settings), Arc::clone(places), queries)
}

fn room() -> Arc<Places> {
    Arc::new(Places::read(std::path::Path::new("site.toml"), SITE).expect("right"))
}

/// Events received when they happened.
fn events(rows: &[(i64, &str, &str)]) -> Vec<Event> {
    let mut decoder = Decoder::new(DecodeOptions::new(Secret::from_bytes([3; 32])));
    rows.iter()
        .flat_map(|(seconds, topic, payload)| {
            let decoded = decoder.decode(
                &format!("usher/in/main/room/{topic}"),
                payload.as_bytes(),
                NINE + seconds * SECOND,
            );
            assert_eq!(decoded.refused, []);
            decoded.events
        })
        .collect()
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
    let mut decoder = Decoder::new(DecodeOptions::new(Secret::from_bytes([3; 32])));
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
    let run = |batch: usize| {
        let mut perception = perception(&places, 2_000, 10_000);
        let mut all = Vec::new();
        for events in events.chunks(batch) {
            all.extend(perception.take(events, &no_trace));
        }
        // Alerts of different rules come in the order of rules within a batch; each by itself is the same.
        let mut turns = turns(&all);
        turns.sort_by(|a, b| (&a.0, &a.3).cmp(&(&b.0, &b.3)));
        turns
    };
    let whole = run(events.len());
    assert!(
        whole
            .iter()
            .any(|(rule, state, ..)| rule == "zone_crowded" && *state == State::Active),
        "{whole:?}"
    );
    assert_eq!(whole, run(1), "one by one");
    assert_eq!(whole, run(64), "in batches");
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
                let parts = perception.snapshot().expect("it can be saved");
                perception = self::perception(&places, 2_000, 10_000);
                let outcomes = perception.restore(&parts).expect("it can be read");
                let is_kept =
                    |outcome: &usher_queries::query_set::Restored| *outcome == usher_queries::query_set::Restored::Kept;
                assert!(outcomes.iter().all(|(_, outcome)| is_kept(outcome)), "{outcomes:?}");
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
    perception.begin_listening(noon);
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
        perception.act(&action).map(|steps| Arc::clone(&steps[0].alert))
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
    let awake = perception.tick(NINE + 200 * SECOND);
    assert!(
        awake
            .iter()
            .any(|step| step.alert.id == alert.id && !step.alert.snoozed),
        "{awake:?}"
    );
    let of_another = r#"{"person":"q","action":"login"}"#;
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
