//! What must not depend on how events were cut into batches, on restarts, or on what is kept.

use std::time::Duration;

use super::{House, RULES, SITE, perception, perception_behind, pseudonym, settings};
use crate::fixture::{NINE, SECOND};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const REPLY: &str = "web/reply/app";

#[test]
fn who_opted_out_before_there_were_messages_is_not_written_to() {
    let mut house = House::new();
    house.search(0, "ann", "cats");
    house.reply(10, "ann", "opted_out");
    house.restart_without(&["messages", "uplift"]);
    assert_eq!(house.ask(20, "ann"), [""; 0]);
    assert!(house.messages("ann").is_empty());
    house.reply(30, "ann", "opted_in");
    house.restart();
    assert!(house.ask(40, "ann").contains(&"seat_offer sent".to_owned()));
}

#[test]
fn nothing_of_what_was_forgotten_comes_to_who_opts_in_at_once() {
    for in_one in [true, false] {
        let mut house = House::new();
        house.ask(0, "ann");
        let responses = ["accepted", "opted_out", "opted_in"];
        let answers = responses.map(|response| (20, REPLY, house.answer("ann", response)));
        match in_one {
            true => drop(house.hear_all(&answers)),
            false => answers
                .iter()
                .for_each(|answer| drop(house.hear_all(std::slice::from_ref(answer)))),
        }
        assert_eq!(
            house.perception.points.balance(&pseudonym("ann")),
            0,
            "in one batch: {in_one}"
        );
    }
}

#[test]
fn who_opts_out_is_counted_as_far_as_it_is_known_whether_they_came_back() {
    let mut house = House::new();
    for (seconds, person) in [(0, "ann"), (10, "bob")] {
        house.ask(seconds, person);
    }
    house.search(2 * HOUR, "bob", "cats");
    house.reply(3 * HOUR, "ann", "opted_out");
    house.reply(3 * HOUR, "bob", "opted_out");
    let sides = |house: &House| {
        let sent = house.perception.messages.sides["seat_free"].sent;
        (sent.persons, sent.back)
    };
    assert_eq!(sides(&house), (2, 1));
    house.restart();
    house.wait(8 * DAY);
    assert_eq!(sides(&house), (2, 1), "once");
}

const VISITED: &str = "
CREATE ALERT visited WITH (subject = 'person', message = 'visit', text = 'Welcome') AS
SELECT site, person, window_start, window_end, count(*) AS times FROM TUMBLE(click, event_time, INTERVAL '1 minute')
WHERE person IS NOT NULL GROUP BY site, person, window_start, window_end;
";

#[test]
fn who_comes_back_before_it_is_said_what_was_found_has_come_back_all_the_same() {
    for turn in [None, Some(Duration::ZERO)] {
        let mut house = House::making(|| perception(SITE, VISITED, &settings(|_| {})));
        if let Some(turn) = turn {
            house.perception.take_turns_of(turn);
        }
        let visit = r#"{"action":"view","person":"ann"}"#.to_owned();
        house.hear_all(&[(0, "web/click/opac", visit.clone())]);
        house.hear_all(&[
            (3 * HOUR, "hall/gate/g", r#"{"in":1}"#.to_owned()),
            (3 * HOUR, "web/click/opac", visit),
        ]);
        while house.perception.has_work() {
            house.perception.work();
        }
        house.wait(9 * DAY);
        while house.perception.has_work() {
            house.perception.work();
        }
        let sent = house.perception.messages.sides["visited"].sent;
        assert_eq!((sent.persons, sent.back), (1, 1), "{turn:?}");
    }
}

#[test]
fn only_who_may_come_back_by_it_is_waited_for() {
    let mut house = House::new();
    house.ask(0, "ann");
    let waits = |house: &mut House, seconds: i64| {
        let search = r#"{"id":"x","action":"view","person":"ann"}"#;
        let events = crate::fixture::events([(seconds, "web/click/opac", search)]);
        house.perception.messages.hear(&events[0], NINE + seconds * SECOND, 0);
        let waits = house.perception.messages.waits_for_all();
        house.perception.messages.acts.clear();
        waits
    };
    assert!(!waits(&mut house, 30), "it is the same visit");
    house.wait(2 * HOUR);
    assert!(waits(&mut house, 2 * HOUR), "she is back");
    house.search(2 * HOUR, "ann", "cats");
    house.wait(3 * HOUR);
    assert!(!waits(&mut house, 3 * HOUR), "that is known");
}

#[test]
fn a_recipient_has_one_place_in_the_clock() {
    let mut house = House::new();
    for day in 0..5 {
        house.ask(day * DAY, "ann");
        house.reply(day * DAY + 10, "ann", "accepted");
    }
    house.ask(5 * DAY, "bob");
    assert_eq!(house.perception.messages.due.len(), 2);
    house.reply(6 * DAY, "ann", "opted_out");
    assert_eq!(house.perception.messages.due.len(), 1);
    house.restart();
    assert_eq!(house.perception.messages.due.len(), 1);
}

#[test]
fn an_answer_that_was_given_too_late_does_not_count_though_the_watermark_is_behind() {
    let delay = Duration::from_secs(60);
    let mut house = House::making(move || perception_behind(delay, SITE, RULES, &settings(|_| {})));
    house.search(0, "ann", "seat");
    assert!(house.wait(70).contains(&"seat_offer sent".to_owned()));
    assert_eq!(house.reply(601, "ann", "accepted"), [""; 0]);
    assert_eq!(house.perception.points.balance(&pseudonym("ann")), 0);
    assert_eq!(house.wait(661), ["seat_offer expired"]);
}

#[test]
fn nobody_is_forgotten_who_may_still_answer() {
    let brief = settings(|messages| {
        (messages.keep, messages.back_after) = (Duration::from_secs(60), Duration::ZERO);
        messages.back_within = Duration::from_secs(30);
    });
    let mut house = House::of(SITE, brief);
    house.ask(0, "ann");
    house.wait(500);
    assert_eq!(house.reply(510, "ann", "accepted"), ["seat_offer accepted"]);
    house.wait(600);
    assert!(house.perception.messages.is_empty(), "and is then");
}

#[test]
fn an_offer_that_there_is_no_room_for_any_more_is_over() {
    let rule = |number: usize| {
        format!(
            "CREATE ALERT rule_{number} WITH (subject = 'person', message = 'kind_{number}', expires = '10 hours', \
             eligible = 'query = ''{number}''', text = 'It is {{query}}') AS \
             SELECT site, person, query, event_time FROM click WHERE action = 'search';"
        )
    };
    let rules: String = (0..129).map(rule).collect();
    let many = settings(|messages| messages.per_day = 1_000);
    let mut house = House::making(move || perception(SITE, &rules, &many));
    let mut told = Vec::new();
    for number in 0..129 {
        told = house.search(2 * number, "ann", &number.to_string());
        told.extend(house.wait(2 * number + 1));
    }
    assert_eq!(told, ["kind_128 sent", "kind_0 expired"]);
    let all = house.perception.messages.newest(|_, _, _| true, 1_000);
    assert_eq!((all.len(), house.perception.messages.listed.len()), (128, 128));
}

#[test]
fn what_waited_in_vain_is_no_longer_in_the_checkpoint() {
    let mut house = House::new();
    house.search(0, "ann", "seat");
    for rule in ["seat_free", "offer_help"] {
        house.perception.queries.remove(rule).expect("nobody reads it");
    }
    house.perception.learn_rules();
    house.perception.tick(NINE + SECOND);
    assert!(house.perception.messages.has_changed());
}
