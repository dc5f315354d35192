//! The life of one alert, from pending to cleared.

use usher_connectors::checkpoint::Part;

use super::{Deed, House, NINE, SECOND};
use crate::alert::{State, Trace, What, Why};
use crate::capture::Parts;

const KEPT: &str = "CREATE ALERT busy WITH (subject = 'zone', severity = 'info', raise = 'entered >= 10',
    clear = 'entered < 5', keep = '20 seconds', cooldown = '1 minute',
    escalate = 'warning after 1 minute, critical after 2 minutes even if acknowledged', text = '{subject} is busy') AS
    SELECT site, zone, entered, event_time FROM gate";

#[test]
fn an_alert_is_kept_until_it_is_clear_for_long_enough() {
    let mut house = House::of(KEPT);
    assert_eq!(house.pass(0, "hall", 12), ["busy/hall raised by rule: active"]);
    let id = house.open("busy").id;
    assert_eq!(house.open("busy").text, "Hall is busy");
    assert_eq!(house.pass(10, "hall", 3), ["busy/hall recovering by rule: recovering"]);
    assert_eq!(house.pass(15, "hall", 20), ["busy/hall relapsed by rule: active"]);
    assert_eq!(house.open("busy").id, id, "it is the same alert");
    assert_eq!(house.wait(35), [""; 0], "its clock was stopped");
    assert_eq!(house.pass(36, "hall", 3), ["busy/hall recovering by rule: recovering"]);
    assert_eq!(
        house.pass(40, "hall", 7),
        [""; 0],
        "between the thresholds it is not clear"
    );
    assert_eq!(house.pass(45, "hall", 4), [""; 0]);
    assert_eq!(house.pass(50, "hall", 2), [""; 0], "it is clear since five seconds ago");
    house.restart();
    assert_eq!(house.wait(64), [""; 0]);
    assert_eq!(house.wait(65), ["busy/hall cleared by clock: cleared"]);
    let kept = house.perception.alerts.with_history(&id).expect("it is kept");
    let whats: Vec<What> = kept.history.iter().map(|turn| turn.what).collect();
    use What::{Cleared, Raised, Recovering, Relapsed};
    assert_eq!(whats, [Raised, Recovering, Relapsed, Recovering, Cleared]);
    let numbers: Vec<u32> = kept.history.iter().map(|turn| turn.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    assert_eq!(kept.alert.cleared_at.as_deref(), Some("2026-03-02T01:01:05Z"));
    assert_eq!(kept.history[4].at, "2026-03-02T01:01:05Z");
}

#[test]
fn who_looked_after_it_still_does_when_it_relapses() {
    let mut house = House::of(KEPT);
    house.pass(0, "hall", 12);
    let told = house.act(1, "busy", Deed::Acknowledge);
    assert_eq!(told, ["busy/hall acknowledged by staff: acknowledged"]);
    house.pass(2, "hall", 3);
    assert_eq!(house.pass(3, "hall", 12), ["busy/hall relapsed by rule: acknowledged"]);
}

#[test]
fn a_severity_rises_with_time_unless_somebody_looks_or_it_recovers() {
    let mut house = House::of(KEPT);
    house.pass(0, "hall", 12);
    assert_eq!(house.wait(59), [""; 0]);
    assert_eq!(house.wait(60), ["busy/hall escalated by clock: active"]);
    assert_eq!(house.open("busy").severity, "warning");
    assert_eq!(house.wait(120), ["busy/hall escalated by clock: active"]);
    assert_eq!(house.open("busy").severity, "critical");

    let mut acknowledged = House::of(KEPT);
    acknowledged.pass(0, "hall", 12);
    acknowledged.act(1, "busy", Deed::Acknowledge);
    acknowledged.restart();
    assert_eq!(acknowledged.wait(119), [""; 0]);
    assert_eq!(acknowledged.wait(120), ["busy/hall escalated by clock: acknowledged"]);
    assert_eq!(acknowledged.open("busy").severity, "critical", "that one rises even so");

    let mut recovering = House::of(KEPT);
    recovering.pass(0, "hall", 12);
    recovering.pass(50, "hall", 6);
    assert_eq!(recovering.wait(70), [""; 0], "it is nearly over");
    assert_eq!(
        recovering.pass(80, "hall", 12),
        [
            "busy/hall relapsed by rule: active",
            "busy/hall escalated by clock: active"
        ]
    );
}

#[test]
fn a_subject_has_one_alert_of_a_rule_and_cools_down() {
    let sql =
        "CREATE ALERT busy WITH (subject = 'zone', raise = 'entered >= 10', clear = 'entered < 5', for = '10 seconds',
        cooldown = '1 minute') AS SELECT site, zone, entered, event_time FROM gate";
    let mut house = House::of(sql);
    assert_eq!(house.pass(0, "hall", 12), ["busy/hall pending by rule: pending"]);
    assert_eq!(house.pass(1, "hall", 15), [""; 0], "it is pending already");
    assert_eq!(house.open("busy").values["entered"], 15);
    assert_eq!(house.wait(10), ["busy/hall raised by clock: active"]);
    assert_eq!(house.pass(20, "hall", 1), ["busy/hall cleared by rule: cleared"]);
    // While it cools down, nothing that holds for a while makes it forget that it does.
    assert_eq!(house.pass(30, "hall", 12), ["busy/hall pending by rule: pending"]);
    assert_eq!(house.pass(35, "hall", 1), ["busy/hall withdrawn by rule: cleared"]);
    assert_eq!(house.pass(40, "hall", 12), ["busy/hall pending by rule: pending"]);
    assert_eq!(house.wait(79), [""; 0]);
    assert_eq!(house.wait(80), ["busy/hall raised by clock: active"]);
}

#[test]
fn one_that_was_acknowledged_while_pending_is_so_when_it_is_raised() {
    let sql = "CREATE ALERT busy WITH (subject = 'zone', raise = 'entered >= 10', for = '10 seconds') AS
        SELECT site, zone, entered, event_time FROM gate";
    let mut house = House::of(sql);
    house.pass(0, "hall", 12);
    house.act(1, "busy", Deed::Acknowledge);
    assert_eq!(house.wait(10), ["busy/hall raised by clock: acknowledged"]);
}

#[test]
fn staff_assigns_snoozes_and_clears() {
    let mut house = House::of(KEPT);
    house.pass(0, "hall", 12);
    let id = house.open("busy").id;
    assert_eq!(
        house.act(5, "busy", Deed::Assign(Some("Wang".to_owned()))),
        ["busy/hall assigned by staff: active"]
    );
    assert_eq!(house.open("busy").assignee.as_deref(), Some("Wang"));
    let until = NINE + 30 * SECOND;
    assert_eq!(
        house.act(10, "busy", Deed::SnoozeUntil(until)),
        ["busy/hall snoozed by staff: active snoozed"]
    );
    assert_eq!(
        house.open("busy").snoozed_until.as_deref(),
        Some("2026-03-02T01:00:30Z")
    );
    house.restart();
    assert_eq!(house.wait(29), [""; 0]);
    assert_eq!(house.wait(30), ["busy/hall unsnoozed by clock: active"]);
    house.act(31, "busy", Deed::SnoozeUntil(NINE + 900 * SECOND));
    assert_eq!(
        house.act(32, "busy", Deed::Unsnooze),
        ["busy/hall unsnoozed by staff: active"]
    );
    assert_eq!(house.act(33, "busy", Deed::Unsnooze), [""; 0], "it was not");
    assert_eq!(
        house.act(40, "busy", Deed::Clear),
        ["busy/hall cleared by staff: cleared"]
    );
    let kept = house.perception.alerts.with_history(&id).expect("it is kept");
    assert_eq!(kept.alert.cleared_at.as_deref(), Some("2026-03-02T01:00:40Z"));
    let last = kept.history.last().expect("there are steps");
    assert_eq!(
        (last.by.as_str(), last.why, last.state),
        ("Li", Why::Staff, State::Cleared)
    );
    let assigned = &kept.history[1];
    assert_eq!(
        (assigned.what, assigned.note.as_deref()),
        (What::Assigned, Some("Wang"))
    );
    assert_eq!(
        house.pass(50, "hall", 12),
        ["busy/hall pending by rule: pending"],
        "it cools down"
    );
}

/// The watermark that was observed is ahead of what has been said, and staff acts in between.
#[test]
fn staff_acts_behind_all_that_is_due() {
    let sql = "CREATE ALERT quick WITH (subject = 'zone', raise = 'entered > 5') AS
        SELECT site, zone, window_end AS event_time, sum(entered) AS entered
        FROM TUMBLE(gate, event_time, INTERVAL '1 minute') GROUP BY site, zone, window_start, window_end";
    let mut house = House::of(sql);
    let mut pass = |seconds: i64, entered: i64| {
        let rows: Vec<_> = (0..600)
            .map(|zone| (seconds, format!("z{zone}/gate/g"), format!(r#"{{"in":{entered}}}"#)))
            .collect();
        house.perception.take(&super::events(&rows), &|_| Trace::default());
    };
    pass(10, 9);
    pass(70, 1);
    house.wait(71);
    house.perception.take_turns_of(std::time::Duration::ZERO);
    // The next minute ends, which clears all of them, but not all of that has been said yet.
    house.wait(120);
    assert!(house.perception.has_work());
    let open = house.perception.alerts.open();
    assert!(!open.is_empty(), "in turns that are over at once");
    let action = super::Action {
        alert: open[0].id.clone(),
        by: "Li".to_owned(),
        at_us: NINE + 121 * SECOND,
        deed: Deed::Clear,
    };
    let (steps, alert) = house.perception.act(&action);
    let of_it: Vec<_> = steps.iter().filter(|step| step.alert.id == action.alert).collect();
    assert_eq!(of_it.len(), 1);
    let step = of_it[0].alert.step.as_ref().expect("it is a step");
    assert_eq!((step.what, step.why), (What::Cleared, Why::Rule), "{step:?}");
    assert!(alert.is_none(), "it was over before");
}

#[test]
fn a_history_keeps_its_first_and_its_latest_steps() {
    let mut house = House::of(KEPT);
    house.pass(0, "hall", 12);
    for number in 0..120 {
        house.act(1, "busy", Deed::Comment(format!("{number}")));
    }
    let kept = house
        .perception
        .alerts
        .with_history(&house.open("busy").id)
        .expect("it is open");
    assert_eq!((kept.history.len(), kept.history_left_out), (100, 21));
    assert_eq!((kept.history[0].what, kept.history[0].number), (What::Raised, 1));
    assert_eq!(kept.history[99].number, 121);
    assert_eq!(kept.alert.comments.len(), 100);
    let json = serde_json::to_value(&kept).expect("it is JSON");
    assert_eq!(json["history_left_out"], 21);
    assert!(
        serde_json::to_value(&kept.alert)
            .expect("it is JSON")
            .get("history")
            .is_none()
    );
}

#[test]
fn a_checkpoint_of_an_older_form_is_told_apart() {
    let mut house = House::of(KEPT);
    let older = Part {
        name: "alerts".to_owned(),
        segments: vec![br#"{"watches":[],"cleared":[],"listening_since_us":0}"#.as_slice().into()],
    };
    let parts = Parts::new(vec![older]);
    let error = house.perception.alerts.restore(&parts).expect_err("it is older");
    assert_eq!(error, "the alerts have form 1, and this Usher reads form 3");
}
