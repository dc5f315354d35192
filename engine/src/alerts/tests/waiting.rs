//! While a large window is said in turns, rows of alerts that have to do with each other wait, and others are taken at once.

use std::time::Duration;

use super::{NINE, Step, events, line, perception};
use crate::alert::Trace;
use crate::perception::Perception;
use crate::perception::tests::saved;

/// Of each device: whether many came in a minute, told together; whether many came at once, held back by that; and whether
/// more than that came at once, which has to do with nothing.
const RULES: &str = "
    CREATE ALERT full WITH (subject = 'device', raise = 'entered > 5', group = 'site', group_wait = '0s') AS
    SELECT site, zone, device, sum(entered) AS entered
    FROM TUMBLE(gate, event_time, INTERVAL '1 minute') GROUP BY site, zone, device, window_start, window_end;
    CREATE ALERT held WITH (subject = 'device', raise = 'entered > 40', inhibited_by = 'full') AS
    SELECT site, zone, device, entered FROM gate;
    CREATE ALERT passed WITH (subject = 'device', raise = 'entered > 50') AS
    SELECT site, zone, device, entered FROM gate";
const DEVICES: usize = 600;

fn fresh() -> Perception {
    perception(RULES, 0, 1_000_000)
}

fn pass(perception: &mut Perception, second: i64, device: usize, entered: i64) -> Vec<Step> {
    let payload = format!(r#"{{"id":"e{second}-{device}","in":{entered}}}"#);
    let events = events(&[(second, format!("hall/gate/g{device}"), payload)]);
    perception.take(&events, &|_| Trace::default())
}

/// In the first minute more than five come by each device; then one of them comes by, which ends it.
fn minute(perception: &mut Perception) -> Vec<Step> {
    let all = (0..DEVICES).map(|device| {
        let payload = format!(r#"{{"id":"e1-{device}","in":9}}"#);
        (1, format!("hall/gate/g{device}"), payload)
    });
    let all = events(&all.collect::<Vec<_>>());
    let mut steps = perception.take(&all, &|_| Trace::default());
    steps.extend(pass(perception, 61, 0, 1));
    steps
}

/// Each step in a line, those of alerts that have to do with others and the rest.
fn lines(steps: &[Step]) -> (Vec<String>, Vec<String>) {
    let turns = steps.iter().filter(|step| step.is_turn);
    let lines = turns.map(|step| format!("{} {} {}", step.alert.id, step.alert.event_time, line(&step.alert)));
    lines.partition(|line| !line.contains(" passed/"))
}

fn finish(perception: &mut Perception, steps: &mut Vec<Step>) {
    while perception.has_work() {
        steps.extend(perception.work());
    }
}

#[test]
fn those_that_have_to_do_with_each_other_wait_and_others_do_not() {
    let mut at_once = fresh();
    let mut expected = minute(&mut at_once);
    for (second, device) in [(62, 599), (63, 7), (64, 0)] {
        expected.extend(pass(&mut at_once, second, device, 99));
    }
    let expected = lines(&expected);
    assert_eq!(expected.1.len(), 3);
    assert!(
        expected
            .0
            .iter()
            .any(|line| line.contains("held/g599 suppressed by inhibition")),
        "{:?}",
        expected.0.last()
    );

    let mut in_turns = fresh();
    in_turns.take_turns_of(Duration::ZERO);
    let mut steps = minute(&mut in_turns);
    for (second, device) in [(62, 599), (63, 7)] {
        let told = pass(&mut in_turns, second, device, 99);
        let (linked, others) = lines(&told);
        assert_eq!(linked, [""; 0], "they wait for the window");
        assert_eq!(others.len(), 1, "it has to do with nothing: {others:?}");
        steps.extend(told);
    }
    assert!(in_turns.alerts.has_waiting());
    let told = pass(&mut in_turns, 64, 0, 99);
    steps.extend(told);
    let mut turns = 0;
    while in_turns.has_work() {
        let told = in_turns.work();
        assert!(lines(&told).0.len() <= 4, "one row at a time: {:?}", lines(&told));
        steps.extend(told);
        turns += 1;
    }
    assert!(turns > DEVICES, "{turns}");
    assert_eq!(lines(&steps), expected);
}

#[test]
fn what_waits_comes_through_a_restart() {
    let mut at_once = fresh();
    let mut expected = minute(&mut at_once);
    expected.extend(pass(&mut at_once, 62, 599, 99));
    let expected = lines(&expected);
    // While the window is said, and while what waited is taken.
    for restart_at in [0, 1, 2, 10, 400] {
        let mut perception = fresh();
        perception.take_turns_of(Duration::ZERO);
        let mut steps = minute(&mut perception);
        steps.extend(pass(&mut perception, 62, 599, 99));
        for _ in 0..restart_at {
            steps.extend(perception.work());
        }
        assert!(perception.alerts.has_waiting(), "{restart_at}");
        let parts = saved(&mut perception);
        perception = fresh();
        perception.restore(&parts, NINE).expect("it can be read");
        perception.take_turns_of(Duration::ZERO);
        assert!(perception.alerts.has_waiting(), "{restart_at}");
        finish(&mut perception, &mut steps);
        assert_eq!(lines(&steps), expected, "{restart_at}");
    }
}

#[test]
fn a_rule_that_is_changed_or_goes_takes_what_waits_for_it_along() {
    let mut perception = fresh();
    perception.take_turns_of(Duration::ZERO);
    let mut steps = minute(&mut perception);
    steps.extend(pass(&mut perception, 62, 599, 99));
    assert!(perception.alerts.has_waiting());
    let changed = "CREATE ALERT held WITH (subject = 'device', raise = 'entered > 40', inhibited_by = 'full') AS
        SELECT entered, exited, device, zone, site FROM gate";
    let statement = usher_queries::statement::parse_statement(changed).expect("it is right");
    perception.queries.put(statement).expect("it can run");
    perception.queries.remove("full").expect("nobody reads it");
    steps.extend(perception.learn_rules());
    finish(&mut perception, &mut steps);
    let (linked, _) = lines(&steps);
    assert_eq!(linked.len(), 1, "{linked:?}");
    assert!(linked[0].contains("held/g599 raised"), "{linked:?}");
}
