//! Alerts that are told together, and data that does not come.

use std::time::{Duration, Instant};

use super::{Deed, House};

fn busy(options: &str) -> String {
    format!(
        "CREATE ALERT busy WITH (subject = 'zone', severity = 'info', raise = 'entered >= 10', clear = 'entered < 5',
         text = '{{zone}} is busy', {options}) AS SELECT site, zone, entered, event_time FROM gate"
    )
}

#[test]
fn one_notice_speaks_for_a_floor() {
    let mut house = House::of(&busy("group = 'parent', group_wait = '30 seconds'"));
    assert_eq!(
        house.pass(0, "hall", 12),
        [
            "busy/hall raised by rule: active",
            "busy.group/floor-1 pending by rule: pending"
        ]
    );
    assert_eq!(house.open("busy").group.as_deref(), Some("floor-1"));
    assert_eq!(house.pass(10, "cafe", 12), ["busy/cafe raised by rule: active"]);
    assert_eq!(
        house.pass(11, "attic", 12),
        ["busy/attic raised by rule: active"],
        "it has no parent"
    );
    house.restart();
    assert_eq!(house.wait(30), ["busy.group/floor-1 raised by clock: active"]);
    let notice = house.open("busy.group");
    assert_eq!(notice.values["count"], 2);
    assert_eq!(notice.values["members"][0]["subject"], "cafe");
    assert_eq!(notice.values["finding"], "group");
    assert_eq!(notice.text, "Floor 1: 2 alerts, such as: Cafe is busy");
    assert_eq!(
        (notice.subject.kind.as_str(), notice.topic().as_str()),
        ("zone", "usher/out/main/alert/busy.group/floor-1")
    );
    // One goes: that is told when others had time to follow.
    assert_eq!(house.pass(40, "cafe", 1), ["busy/cafe cleared by rule: cleared"]);
    assert_eq!(house.open("busy.group").values["count"], 1);
    assert_eq!(house.wait(69), [""; 0]);
    assert_eq!(house.wait(70), ["busy.group/floor-1 regrouped by group: active"]);
    assert_eq!(
        house.pass(80, "hall", 1),
        [
            "busy/hall cleared by rule: cleared",
            "busy.group/floor-1 cleared by group: cleared"
        ]
    );
    let before = notice.id;
    house.pass(90, "hall", 12);
    assert_ne!(house.open("busy.group").id, before, "another notice");
}

#[test]
fn a_notice_is_as_grave_as_its_gravest_and_silent_where_its_members_are() {
    let options = "group = 'site', group_wait = '0s', escalate = 'critical after 1 minute', quiet = '09:10-09:20'";
    let mut house = House::of(&busy(options));
    assert_eq!(
        house.pass(0, "attic", 12),
        [
            "busy/attic raised by rule: active",
            "busy.group/main raised by rule: active"
        ]
    );
    assert_eq!(house.open("busy.group").severity, "info");
    assert_eq!(
        house.pass(30, "hall", 12),
        [
            "busy/hall raised by rule: active",
            "busy.group/main regrouped by group: active"
        ]
    );
    assert_eq!(
        house.wait(60),
        [
            "busy/attic escalated by clock: active",
            "busy.group/main regrouped by group: active"
        ]
    );
    assert_eq!(house.open("busy.group").severity, "critical");
    house.wait(90);
    let quiet = house.wait(600);
    assert_eq!(quiet.len(), 4, "{quiet:?}");
    assert_eq!(quiet[3], "busy.group/main cleared by group: cleared");
    let loud = house.wait(1200);
    assert_eq!(loud[1], "busy.group/main raised by rule: active", "{loud:?}");
}

/// A house in which so many alerts of one group were raised one by one, and how long a hundred of the last took at best.
fn crowd(members: usize) -> (House, Duration) {
    let mut house = House::of(
        "CREATE ALERT busy WITH (subject = 'device', severity = 'info', raise = 'entered >= 10', clear = 'entered < 5',
         text = '{device} is busy', group = 'site', group_wait = '1 minute', escalate = 'critical after 1 hour') AS
         SELECT site, zone, device, entered, event_time FROM gate",
    );
    let mut best = Duration::MAX;
    for hundred in 0..members / 100 {
        let begun = Instant::now();
        for member in hundred * 100..(hundred + 1) * 100 {
            house.hear(0, &format!("hall/gate/g{member:05}"), r#"{"in":12}"#);
        }
        if hundred * 100 >= members * 3 / 4 {
            best = best.min(begun.elapsed());
        }
    }
    (house, best)
}

#[test]
fn a_group_of_ten_thousand_costs_each_of_them_no_more_than_one_of_a_thousand() {
    let (_, thousand) = crowd(1_000);
    let (mut house, ten_thousand) = crowd(10_000);
    let grown = ten_thousand.as_secs_f64() / thousand.as_secs_f64();
    assert!(
        grown < 3.0,
        "a member of 10,000 costs {grown:.1} times as much as one of 1,000"
    );
    let notice = house.open("busy.group");
    let members = notice.values["members"].as_array().expect("a list");
    assert_eq!((&notice.values["count"], members.len()), (&10_000.into(), 100));
    assert_eq!(members[99]["subject"], "g00099");
    assert_eq!(notice.text, "Main: 10000 alerts, such as: g00000 is busy");
    // One of those that are named goes, and the next is named.
    house.hear(1, "hall/gate/g00007", r#"{"in":1}"#);
    let notice = house.open("busy.group");
    assert_eq!(notice.values["count"], 9_999);
    assert_eq!(notice.values["members"][99]["subject"], "g00100");
}

#[test]
fn a_notice_is_less_grave_when_its_gravest_goes() {
    let (mut house, _) = crowd(100);
    house.hear(1, "hall/gate/late", r#"{"in":12}"#);
    house.wait(3_600);
    assert_eq!(house.open("busy.group").severity, "critical");
    for member in 0..100 {
        house.hear(3_600, &format!("hall/gate/g{member:05}"), r#"{"in":1}"#);
    }
    assert_eq!(house.open("busy.group").severity, "info");
    house.wait(3_601);
    let notice = house.open("busy.group");
    assert_eq!(
        (&notice.values["count"], notice.severity.as_str()),
        (&1.into(), "critical")
    );
    assert_eq!(notice.values["members"][0]["subject"], "late");
    assert_eq!(notice.text, "Main: late is busy");
}

#[test]
fn staff_acts_on_a_notice_and_on_its_members_apart() {
    let mut house = House::of(&busy("group = 'parent', group_wait = '0s'"));
    house.pass(0, "hall", 12);
    assert_eq!(
        house.act(1, "busy.group", Deed::Acknowledge),
        ["busy.group/floor-1 acknowledged by staff: acknowledged"]
    );
    assert_eq!(
        house.act(2, "busy.group", Deed::Clear),
        ["busy.group/floor-1 cleared by staff: cleared"]
    );
    assert_eq!(house.open("busy").state, crate::alert::State::Active);
    assert_eq!(
        house.pass(3, "cafe", 12),
        [
            "busy/cafe raised by rule: active",
            "busy.group/floor-1 raised by rule: active"
        ],
        "another member, another notice"
    );
    assert_eq!(house.open("busy.group").values["count"], 2);
}
