//! What holds alerts back: other rules, quiet hours, opening times, and staff.

use usher_queries::query_set::QuerySet;
use usher_queries::statement::parse_statements;

use super::{Deed, House, NINE};
use crate::rule::check_inhibition;

/// The 22nd hour of the day is 13 hours after nine.
const HOUR: i64 = 3600;

fn busy(options: &str) -> String {
    format!(
        "CREATE ALERT busy WITH (subject = 'zone', raise = 'entered >= 10', clear = 'entered < 5', {options}) AS
         SELECT site, zone, entered, event_time FROM gate"
    )
}

#[test]
fn in_quiet_hours_an_alert_waits_and_is_told_when_they_end() {
    let mut house = House::of(&busy("quiet = '22:00-07:00'"));
    assert_eq!(
        house.pass(13 * HOUR + 1, "hall", 12),
        [
            "busy/hall raised by rule: active suppressed",
            "busy/hall suppressed by quiet: active suppressed"
        ]
    );
    assert_eq!(house.open("busy").suppressed_by, ["quiet"]);
    house.restart();
    assert_eq!(house.wait(22 * HOUR - 1), [""; 0]);
    assert_eq!(house.wait(22 * HOUR), ["busy/hall unsuppressed by quiet: active"]);
    // One that stands when they begin is held back from then on, and its life goes on all the same.
    assert_eq!(
        house.wait(37 * HOUR),
        ["busy/hall suppressed by quiet: active suppressed"]
    );
    assert_eq!(
        house.pass(37 * HOUR + 5, "hall", 7),
        ["busy/hall recovering by rule: recovering suppressed"]
    );
    assert_eq!(
        house.pass(37 * HOUR + 6, "hall", 1),
        ["busy/hall cleared by rule: cleared"]
    );
    assert_eq!(house.wait(60 * HOUR), [""; 0], "what is over is not told later");
}

#[test]
fn a_rule_may_be_for_open_or_for_closed_doors() {
    let mut open = House::of(&busy("when = 'open'"));
    assert_eq!(open.pass(0, "hall", 12), ["busy/hall raised by rule: active"]);
    assert_eq!(
        open.wait(13 * HOUR),
        ["busy/hall suppressed by calendar: active suppressed"]
    );
    assert_eq!(open.open("busy").suppressed_by, ["closed"]);
    assert_eq!(open.wait(23 * HOUR), ["busy/hall unsuppressed by calendar: active"]);
    let mut closed = House::of(&busy("when = 'closed'"));
    assert_eq!(closed.pass(0, "hall", 12).len(), 2);
    assert_eq!(closed.wait(13 * HOUR), ["busy/hall unsuppressed by calendar: active"]);
}

const SILENT: &str = "CREATE ALERT dumb WITH (subject = 'device', silent = '10 minutes') AS
    SELECT site, zone, device, event_time FROM seat";

#[test]
fn a_silent_device_holds_back_what_its_zone_says() {
    let sql = format!("{SILENT}; {}", busy("inhibited_by = 'dumb', severity = 'critical'"));
    let mut house = House::of(&sql);
    let sit = r#"{"state":"free"}"#;
    house.hear(0, "hall/seat/s", sit);
    house.hear(1, "attic/seat/s", sit);
    assert_eq!(house.pass(2, "hall", 12), ["busy/hall raised by rule: active"]);
    assert_eq!(
        house.wait(600),
        [
            "dumb/s raised by clock: active",
            "busy/hall suppressed by inhibition: active suppressed"
        ]
    );
    assert_eq!(house.open("busy").suppressed_by, ["dumb"]);
    assert_eq!(
        house.pass(601, "cafe", 12),
        ["dumb/s raised by clock: active", "busy/cafe raised by rule: active"]
    );
    assert_eq!(
        house.pass(602, "attic", 12),
        [
            "busy/attic raised by rule: active suppressed",
            "busy/attic suppressed by inhibition: active suppressed"
        ]
    );
    house.restart();
    // The device speaks again: what still stands is told then.
    assert_eq!(
        house.hear(700, "hall/seat/s", sit),
        [
            "dumb/s cleared by rule: cleared",
            "busy/hall unsuppressed by inhibition: active"
        ]
    );
    assert_eq!(house.pass(701, "attic", 1), ["busy/attic cleared by rule: cleared"]);
    assert_eq!(
        house.hear(702, "attic/seat/s", sit),
        ["dumb/s cleared by rule: cleared"]
    );
}

#[test]
fn a_device_whose_clock_is_behind_is_not_silent_again_at_once() {
    let mut house = House::of(SILENT);
    house.hear(0, "hall/seat/s", r#"{"state":"free"}"#);
    house.hear(1, "attic/seat/other", r#"{"state":"free"}"#);
    assert_eq!(house.wait(600), ["dumb/s raised by clock: active"]);
    house.hear(650, "attic/seat/other", r#"{"state":"free"}"#);
    let behind = format!(r#"{{"state":"free","ts":{}}}"#, NINE / 1000 - 3_600_000);
    assert_eq!(
        house.hear(700, "hall/seat/s", &behind),
        ["dumb/s cleared by rule: cleared"]
    );
    assert_eq!(house.hear(701, "hall/seat/s", &behind), [""; 0]);
    assert_eq!(house.wait(1200), [""; 0]);
    house.restart();
    assert!(house.wait(1301).contains(&"dumb/s raised by clock: active".to_owned()));
}

#[test]
fn a_rule_that_found_silence_finds_what_holds_once_it_is_changed() {
    let mut house = House::of(
        "CREATE ALERT busy WITH (subject = 'zone', silent = '10 minutes') AS
         SELECT site, zone, entered, event_time FROM gate",
    );
    assert_eq!(house.pass(0, "hall", 12), [""; 0]);
    house.sql = busy("severity = 'info'");
    house.restart();
    assert_eq!(house.pass(1, "hall", 12), ["busy/hall raised by rule: active"]);
}

#[test]
fn a_zone_holds_back_all_in_it_and_one_of_the_same_kind_only_itself() {
    let shut = "CREATE ALERT shut WITH (subject = 'zone', raise = 'exited > 0', clear = 'exited = 0') AS
        SELECT site, zone, exited, event_time FROM gate WHERE entered = 0";
    let seats = "CREATE ALERT taken WITH (subject = 'seat', raise = 'state = ''occupied''', inhibited_by = 'broken') AS
        SELECT site, zone, seat, state, event_time FROM seat;
        CREATE ALERT broken WITH (subject = 'seat', raise = 'state = ''away''') AS
        SELECT site, zone, seat, state, event_time FROM seat WHERE state <> 'occupied'";
    let mut house = House::of(&format!("{shut}; {seats}; {}", busy("inhibited_by = 'shut'")));
    house.pass(0, "hall", 12);
    house.pass(1, "attic", 12);
    let shuts = house.hear(2, "floor-1/gate/g", r#"{"out":1}"#);
    assert_eq!(
        shuts,
        [
            "shut/floor-1 raised by rule: active",
            "busy/hall suppressed by inhibition: active suppressed"
        ]
    );
    let opens = house.hear(3, "floor-1/gate/g", r#"{"out":0}"#);
    assert_eq!(
        opens,
        [
            "shut/floor-1 cleared by rule: cleared",
            "busy/hall unsuppressed by inhibition: active"
        ]
    );
    house.hear(4, "hall/seat/a", r#"{"state":"away"}"#);
    assert_eq!(
        house.hear(5, "hall/seat/b", r#"{"state":"occupied"}"#),
        ["taken/b raised by rule: active"],
        "another seat of the same zone"
    );
    assert_eq!(
        house.hear(6, "hall/seat/a", r#"{"state":"occupied"}"#)[1..],
        ["taken/a suppressed by inhibition: active suppressed"]
    );
}

#[test]
fn who_holds_back_has_to_be_there_and_not_to_be_held_back_in_turn() {
    let rule = |name: &str, by: &str| {
        format!("CREATE ALERT {name} WITH (subject = 'zone', inhibited_by = '{by}') AS SELECT site, zone FROM gate")
    };
    let check = |sql: &str| {
        let statements = parse_statements(sql).expect("they are right");
        let mut queries = QuerySet::new();
        assert_eq!(queries.create_all(statements.clone()), []);
        let errors = statements
            .iter()
            .filter_map(|statement| check_inhibition(&queries, &[], statement).err());
        errors.map(|error| error.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        check(&rule("one", "one")),
        ["1:58: 'one' can't hold itself back, another alert, or leave it out"]
    );
    let plain = "CREATE ALERT other WITH (subject = 'zone') AS SELECT site, zone FROM gate";
    assert_eq!(
        check(&format!("{plain};\n{}", rule("one", "othr"))),
        ["2:58: there is no alert 'othr', did you mean 'other'?"]
    );
    assert_eq!(check(&format!("{plain};\n{}", rule("one", "other"))), [""; 0]);
    let circle = [rule("one", "two"), rule("two", "three"), rule("three", "one")].join(";\n");
    assert_eq!(
        check(&circle)[0],
        "1:58: 'two' and 'one' hold each other back, one of the two holds back the other"
    );
}

const MEASURED: &str = "CREATE ALERT busy WITH (subject = 'zone', raise = 'entered >= 10', clear = 'entered < 5',
    keep = '30 minutes', no_data = '15 minutes', severity = 'critical') AS
    SELECT site, zone, entered, event_time FROM gate";
const QUARTER: i64 = 900;

#[test]
fn the_lack_of_data_is_a_finding_of_its_own() {
    let mut house = House::of(MEASURED);
    house.pass(0, "hall", 12);
    house.pass(1, "cafe", 1);
    assert_eq!(house.wait(QUARTER - 1), [""; 0]);
    assert_eq!(
        house.wait(QUARTER),
        [
            "busy.no_data/hall raised by clock: active",
            "busy/hall suppressed by no_data: active suppressed"
        ]
    );
    let finding = house.open("busy.no_data");
    assert_eq!(finding.values["finding"], "no_data");
    assert_eq!(finding.text, "No data of Hall for 15m, for busy");
    assert_ne!(finding.id, house.open("busy").id);
    assert_ne!(finding.topic(), house.open("busy").topic());
    assert_eq!(house.wait(QUARTER + 1), ["busy.no_data/cafe raised by clock: active"]);
    house.restart();
    // Measurements come again, and say that it is as it was.
    assert_eq!(
        house.pass(1000, "hall", 11),
        [
            "busy.no_data/hall cleared by rule: cleared",
            "busy/hall unsuppressed by no_data: active"
        ]
    );
    // What had begun to recover does not end in silence.
    assert_eq!(
        house.pass(1010, "hall", 1),
        ["busy/hall recovering by rule: recovering"]
    );
    let silent = 1010 + QUARTER;
    assert_eq!(
        house.wait(silent),
        [
            "busy.no_data/hall raised by clock: active",
            "busy/hall suppressed by no_data: recovering suppressed"
        ]
    );
    assert_eq!(house.wait(silent + 7200), [""; 0]);
    house.pass(silent + 7201, "hall", 1);
    assert_eq!(
        house.pass(silent + 7201 + 600, "hall", 1),
        [""; 0],
        "half an hour counts from when that is known again"
    );
    // At night nobody has to measure: at 21:50 ten minutes are left until the doors close.
    let night = 13 * HOUR - 600;
    house.pass(night, "hall", 12);
    assert_eq!(house.wait(23 * HOUR + 299), [""; 0]);
    assert_eq!(
        house.wait(23 * HOUR + 300)[0],
        "busy.no_data/hall raised by clock: active",
        "five minutes after they open"
    );
}

#[test]
fn one_that_was_pending_is_withdrawn_when_its_data_stops() {
    let sql =
        "CREATE ALERT busy WITH (subject = 'zone', raise = 'entered >= 10', for = '1 hour', no_data = '15 minutes') AS
        SELECT site, zone, entered, event_time FROM gate";
    let mut house = House::of(sql);
    house.pass(0, "hall", 12);
    assert_eq!(
        house.wait(QUARTER),
        [
            "busy.no_data/hall raised by clock: active",
            "busy/hall withdrawn by no_data: cleared"
        ]
    );
    assert_eq!(
        house.act(QUARTER + 1, "busy.no_data", Deed::Clear),
        ["busy.no_data/hall cleared by staff: cleared"]
    );
    assert_eq!(
        house.wait(2 * QUARTER + 1),
        ["busy.no_data/hall raised by clock: active"],
        "it is still silent"
    );
}
