//! Sequences worked out by hand.

use super::{House, SITE, perception, pseudonym, settings};
use crate::fixture::NINE;
use crate::messages::{MessageState, Withheld};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

const BERLIN: &str = "[[site]]\nid = \"main\"\ntime_zone = \"Europe/Berlin\"\n";

/// Seconds from the Monday at nine of the tests to an instant.
fn until(instant: &str) -> i64 {
    let at = chrono::DateTime::parse_from_rfc3339(instant).expect("an instant");
    (at.timestamp_micros() - NINE) / 1_000_000
}

#[test]
fn of_several_messages_in_a_moment_the_most_important_one_goes_out() {
    let mut house = House::new();
    assert_eq!(house.search(0, "ann", "seat"), [""; 0]);
    // It may still be that something more important comes.
    assert_eq!(house.wait(0), [""; 0]);
    assert_eq!(
        house.wait(1),
        ["seat_offer sent", "help_offer withheld: lower_priority"]
    );
    let [offer, help] = house.messages("ann").try_into().expect("two messages");
    assert_eq!(
        (offer.text.en.as_str(), offer.text.zh.as_str()),
        ("A seat in Quiet study, asked for by seat", "静音区有空座")
    );
    assert_eq!(
        (help.text.en.as_str(), help.text.zh.as_str()),
        ("May we help?", "May we help?")
    );
    assert_eq!(
        (offer.at.as_str(), offer.expires_at.as_str()),
        ("2026-03-02T01:00:01Z", "2026-03-02T01:10:01Z")
    );
    assert_eq!(
        (offer.causes.as_slice(), offer.zone.as_deref()),
        (&["e1".to_owned()][..], Some("quiet"))
    );
    assert_eq!(offer.topic(), format!("usher/out/main/message/{}", pseudonym("ann")));
    // Only those that are eligible.
    assert_eq!(house.search(20, "bob", "cats"), [""; 0]);
    assert_eq!(house.wait(21), ["help_offer sent"]);
}

#[test]
fn a_message_is_opened_accepted_and_gives_points_and_engagement() {
    let mut house = House::new();
    house.ask(0, "ann");
    let score = |house: &House| {
        let person = house.perception.people.get(&pseudonym("ann"), NINE);
        person.map_or(0.0, |person| person.score)
    };
    let before = score(&house);
    assert_eq!(house.reply(20, "ann", "opened"), ["seat_offer opened"]);
    assert_eq!(house.reply(25, "ann", "opened"), [""; 0], "once");
    assert_eq!(house.reply(30, "ann", "accepted"), ["seat_offer accepted"]);
    assert_eq!(house.reply(31, "ann", "declined"), [""; 0], "the first answer counts");
    assert_eq!(house.reply(32, "ann", "accepted"), [""; 0]);
    assert_eq!(house.perception.points.balance(&pseudonym("ann")), 5);
    assert!(score(&house) > before + 1.0);
    assert_eq!(house.wait(HOUR), [""; 0], "what was answered does not expire");
    let offer = &house.messages("ann")[0];
    assert_eq!(offer.opened_at.as_deref(), Some("2026-03-02T01:00:20Z"));
    assert_eq!(offer.answered_at.as_deref(), Some("2026-03-02T01:00:30Z"));
}

#[test]
fn a_message_that_nobody_answers_expires_and_later_answers_do_not_count() {
    let mut house = House::new();
    house.ask(0, "ann");
    assert_eq!(house.wait(600), [""; 0]);
    assert_eq!(house.wait(601), ["seat_offer expired"]);
    assert_eq!(house.reply(602, "ann", "accepted"), [""; 0]);
    assert_eq!(house.perception.points.balance(&pseudonym("ann")), 0);
    // Nor do those of others.
    house.ask(HOUR, "ann");
    let id = house.messages("ann")[0].id.clone();
    let of_bob = format!(r#"{{"person":"bob","message":"{id}","response":"accepted"}}"#);
    assert_eq!(house.hear(HOUR + 10, "web/reply/app", &of_bob), [""; 0]);
    // Who knows no more than the topic answers under the pseudonym.
    let of_ann = format!(
        r#"{{"person":"{}","message":"{id}","response":"accepted"}}"#,
        pseudonym("ann")
    );
    assert_eq!(house.hear(HOUR + 11, "web/reply/app", &of_ann), ["seat_offer accepted"]);
}

#[test]
fn a_day_has_no_more_of_a_kind_and_of_all_kinds_than_it_may() {
    let mut house = House::new();
    let mut told = Vec::new();
    for number in 0..5 {
        told.extend(house.ask(number * HOUR, "ann"));
    }
    let lower = "help_offer withheld: lower_priority";
    let cap = "seat_offer withheld: cap";
    let expired = "seat_offer expired";
    // Two seats; then help, which has one a day; then nothing, for three a day are enough.
    let expected = [
        "seat_offer sent",
        lower,
        expired,
        "seat_offer sent",
        lower,
        expired,
        cap,
        "help_offer sent",
        "help_offer expired",
        cap,
        "help_offer withheld: cap",
        cap,
        "help_offer withheld: cap",
    ];
    assert_eq!(told, expected);
    assert_eq!(house.ask(DAY, "ann"), ["seat_offer sent", lower], "another day");
}

#[test]
fn while_one_of_a_kind_may_be_answered_there_is_no_other() {
    let mut house = House::new();
    house.ask(0, "ann");
    assert_eq!(
        house.ask(20, "ann"),
        ["seat_offer withheld: still_open", "help_offer sent"]
    );
    house.reply(30, "ann", "declined");
    let seat = house
        .messages("ann")
        .into_iter()
        .find(|message| message.kind == "seat_offer" && message.withheld.is_none());
    let payload = format!(
        r#"{{"person":"ann","message":"{}","response":"accepted"}}"#,
        seat.map_or_else(String::new, |seat| seat.id)
    );
    assert_eq!(house.hear(40, "web/reply/app", &payload), ["seat_offer accepted"]);
    assert_eq!(
        house.ask(50, "ann"),
        ["seat_offer sent", "help_offer withheld: lower_priority"]
    );
}

#[test]
fn a_day_is_the_calendars_also_when_the_clocks_change() {
    let mut house = House::of(BERLIN, settings(|messages| messages.per_day = 1));
    let sent =
        |house: &mut House, instant: &str| house.ask(until(instant), "ann").contains(&"seat_offer sent".to_owned());
    // The 29th of March has 23 hours.
    assert!(sent(&mut house, "2026-03-28T22:45:00Z"));
    assert!(sent(&mut house, "2026-03-28T23:01:00Z"), "it is past midnight");
    assert!(
        !sent(&mut house, "2026-03-29T21:58:00Z"),
        "it is summer, and two minutes before midnight"
    );
    assert!(sent(&mut house, "2026-03-29T22:01:00Z"));
    // The 25th of October has 25.
    assert!(sent(&mut house, "2026-10-24T22:01:00Z"));
    assert!(
        !sent(&mut house, "2026-10-25T22:01:00Z"),
        "24 hours later it is the same day"
    );
    assert!(sent(&mut house, "2026-10-25T23:01:00Z"));
}

#[test]
fn at_night_nobody_is_written_to() {
    let mut house = House::of(SITE, settings(|messages| messages.quiet = vec![(22 * 60, 31 * 60)]));
    let quiet = ["seat_offer withheld: quiet_hours", "help_offer withheld: quiet_hours"];
    let sent = ["seat_offer sent", "help_offer withheld: lower_priority"];
    // Nine in Shanghai, so 22:00 is thirteen hours later, and 07:00 is 22.
    assert_eq!(house.ask(13 * HOUR - 2, "ann"), sent);
    assert_eq!(house.wait(13 * HOUR - 1 + 600), ["seat_offer expired"]);
    assert_eq!(house.ask(13 * HOUR + 700, "bob"), quiet);
    assert_eq!(house.ask(22 * HOUR - 2, "bob"), quiet);
    assert_eq!(house.ask(22 * HOUR, "bob"), sent);
}

#[test]
fn a_kind_that_was_declined_twice_in_a_row_is_stopped_for_a_while() {
    let mut house = House::of(SITE, settings(|messages| messages.declines = 2));
    let lower = "help_offer withheld: lower_priority";
    for day in [0, 1] {
        assert_eq!(house.ask(day * DAY, "ann"), ["seat_offer sent", lower]);
        let answer = if day == 0 { "declined" } else { "accepted" };
        house.reply(day * DAY + 10, "ann", answer);
    }
    for day in [2, 3] {
        assert_eq!(
            house.ask(day * DAY, "ann"),
            ["seat_offer sent", lower],
            "a yes in between counts"
        );
        assert_eq!(house.reply(day * DAY + 10, "ann", "declined"), ["seat_offer declined"]);
    }
    // From the second no on, of this kind alone.
    assert_eq!(
        house.ask(3 * DAY + 20, "ann"),
        ["seat_offer withheld: declined_twice", "help_offer sent"]
    );
    house.restart();
    assert_eq!(
        house.ask(33 * DAY, "ann"),
        [
            "help_offer expired",
            "seat_offer withheld: declined_twice",
            "help_offer sent"
        ]
    );
    assert_eq!(
        house.ask(33 * DAY + 20, "ann"),
        ["seat_offer sent", lower],
        "thirty days and ten seconds after it"
    );
}

#[test]
fn nothing_more_goes_to_somebody_who_opted_out_at_once() {
    let mut house = House::new();
    house.ask(0, "ann");
    assert_eq!(house.search(10, "ann", "seat"), [""; 0]);
    assert_eq!(house.reply(10, "ann", "opted_out"), ["withdrawn: 1"]);
    assert_eq!(house.wait(DAY), [""; 0], "what waited to be decided is gone as well");
    assert!(house.messages("ann").is_empty());
    assert!(house.perception.messages.newest(|_, _, _| true, 10).is_empty());
    assert_eq!(house.ask(DAY + 10, "ann"), [""; 0], "who it is nobody knows");
    house.restart();
    assert_eq!(house.ask(DAY + 20, "ann"), [""; 0]);
    assert_eq!(house.reply(DAY + 30, "ann", "opted_in"), [""; 0]);
    assert_eq!(
        house.ask(DAY + 40, "ann"),
        ["seat_offer sent", "help_offer withheld: lower_priority"]
    );
}

#[test]
fn who_refuses_service_alone_is_known_and_sent_nothing() {
    let mut house = House::new();
    house.ask(0, "ann");
    assert_eq!(house.search(10, "ann", "seat"), [""; 0]);
    let says = |action: &str| format!(r#"{{"person":"ann","purpose":"service","action":"{action}"}}"#);
    let told = house.hear(10, "web/consent/app", &says("refuse"));
    assert_eq!(told, ["withdrawn: 1"]);
    assert_eq!(house.wait(DAY), [""; 0], "what waited to be decided is gone as well");
    assert!(house.messages("ann").is_empty());
    assert_eq!(house.ask(DAY + 10, "ann"), ["seat_free refused", "offer_help refused"]);
    house.restart();
    assert_eq!(house.ask(DAY + 20, "ann"), ["seat_free refused", "offer_help refused"]);
    assert!(house.perception.people.knows(&pseudonym("ann")));
    assert_eq!(house.hear(DAY + 30, "web/consent/app", &says("allow")), [""; 0]);
    assert_eq!(
        house.ask(DAY + 40, "ann"),
        ["seat_offer sent", "help_offer withheld: lower_priority"]
    );
}

/// Ann and bob are sent the same; ann refuses research, and is counted for no rule, be it before or after.
#[test]
fn who_refuses_research_is_sent_messages_and_counted_nowhere() {
    let mut house = House::new();
    house.ask(0, "ann");
    house.ask(10, "bob");
    let refuses = r#"{"person":"ann","purpose":"research","action":"refuse"}"#;
    house.hear(20, "web/consent/app", refuses);
    house.restart();
    house.wait(8 * DAY);
    assert!(house.ask(9 * DAY, "ann").contains(&"seat_offer sent".to_owned()));
    house.wait(18 * DAY);
    assert_eq!(house.perception.messages.sides["seat_free"].sent.persons, 1);
}

#[test]
fn a_share_of_people_is_held_out_and_everything_else_is_the_same_for_them() {
    let mut house = House::of(SITE, settings(|messages| messages.holdout = 0.5));
    let people: Vec<String> = (0..200).map(|number| format!("person-{number}")).collect();
    let held_out = people
        .iter()
        .filter(|person| house.perception.messages.is_held_out(&pseudonym(person)));
    let held_out: Vec<&String> = held_out.collect();
    assert!((80..=120).contains(&held_out.len()), "{}", held_out.len());
    let person = held_out[0].clone();
    assert_eq!(
        house.ask(0, &person),
        ["seat_offer withheld: holdout", "help_offer withheld: lower_priority"]
    );
    house.ask(HOUR, &person);
    assert_eq!(
        house.ask(2 * HOUR, &person),
        ["seat_offer withheld: cap", "help_offer withheld: holdout"],
        "what they would have been sent counts"
    );
    let withheld = house
        .messages(&person)
        .into_iter()
        .filter(|message| message.withheld == Some(Withheld::Holdout));
    assert!(
        withheld.clone().count() == 3
            && withheld
                .into_iter()
                .all(|message| message.state == MessageState::Withheld)
    );
    let all = House::of(SITE, settings(|messages| messages.holdout_key = "other".to_owned()));
    assert!(
        !all.perception.messages.is_held_out(&pseudonym(&person)),
        "a share of 0 is nobody"
    );
}

#[test]
fn who_comes_back_is_counted_once_the_time_is_over() {
    let mut house = House::new();
    // Of each the first message of a rule counts. The visit that it came in does not, nor does an answer.
    house.ask(0, "ann");
    house.ask(10, "bob");
    house.ask(20, "cat");
    house.search(HOUR, "ann", "cats");
    house.search(HOUR + 12, "bob", "cats");
    house.reply(2 * HOUR, "ann", "opened");
    let sides = |house: &House| house.perception.messages.sides["seat_free"].sent;
    house.wait(7 * DAY + 11);
    assert_eq!(
        (sides(&house).persons, sides(&house).back),
        (2, 1),
        "of ann and bob it is bob who came back"
    );
    house.restart();
    house.search(7 * DAY + 22, "cat", "cats");
    assert_eq!(
        (sides(&house).persons, sides(&house).back),
        (3, 1),
        "cat came too late, by a second"
    );
    house.ask(9 * DAY, "ann");
    house.wait(20 * DAY);
    assert_eq!(sides(&house).persons, 3, "a person counts once");
}

#[test]
fn who_was_sent_nothing_for_long_is_forgotten() {
    let mut house = House::new();
    house.ask(0, "ann");
    house.wait(89 * DAY);
    assert_eq!(house.perception.messages.len(), 1);
    house.wait(91 * DAY);
    assert_eq!(house.perception.messages.len(), 0);
}

#[test]
fn the_messages_of_a_rule_that_is_gone_are_not_sent() {
    let mut house = House::new();
    house.search(0, "ann", "seat");
    house.perception.queries.remove("seat_free").expect("nobody reads it");
    house.perception.learn_rules();
    assert_eq!(house.wait(1), ["help_offer sent"]);
}

/// Views of a page by a person within ten minutes, every five; and those of pages, of which there are so many that others have turns
/// between.
const HOPPING: &str =
    "CREATE ALERT seen WITH (subject = 'person', message = 'seen', text = 'Seen {times} times', per_day = 3,
  expires = '4 minutes') AS
SELECT site, person, page, window_start, window_end, count(*) AS times, array_agg(event_id ORDER BY event_time) AS causes
FROM HOP(click, event_time, INTERVAL '5 minutes', INTERVAL '10 minutes') WHERE person IS NOT NULL
GROUP BY site, person, page, window_start, window_end;
CREATE QUERY pages AS SELECT page, window_start, window_end, count(*) AS times
FROM HOP(click, event_time, INTERVAL '5 minutes', INTERVAL '10 minutes') GROUP BY page, window_start, window_end;";

#[test]
fn what_is_found_again_at_a_later_moment_is_decided_then_however_time_goes_on() {
    type Decided = (String, MessageState, Option<Withheld>);
    let decided = |house: &House| -> Vec<Decided> {
        let all = ["ann", "bob", "cem"]
            .into_iter()
            .flat_map(|person| house.messages(person));
        all.map(|message| (message.at, message.state, message.withheld))
            .collect()
    };
    let made = || House::making(|| perception(SITE, HOPPING, &settings(|_| {})));
    let mut house = made();
    let pages: Vec<(i64, &str, String)> = (0..1_000)
        .map(|page| {
            (
                360,
                "web/click/opac",
                format!(r#"{{"action":"view","session":"s","page":"{page}"}}"#),
            )
        })
        .collect();
    house.hear_all(&pages);
    for (second, person) in (360..).zip(["ann", "bob", "cem"]) {
        for page in ["one", "other"] {
            let payload = format!(r#"{{"action":"view","person":"{person}","page":"{page}"}}"#);
            house.hear(second, "web/click/opac", &payload);
        }
    }
    let heard = house.heard.clone();
    // An event ends both windows at once, and time is moved on in turns of one part.
    house.perception.take_turns_of(std::time::Duration::ZERO);
    house.hear(960, "web/click/opac", r#"{"action":"view","session":"s"}"#);
    let mut turns = 0;
    while house.perception.has_work() {
        house.perception.work();
        turns += 1;
    }
    assert!(turns > 6, "time was moved on in {turns} turns");
    let mut calm = made();
    calm.perception.take(&heard, &|_| crate::alert::Trace::default());
    for seconds in [600, 660, 900, 960] {
        calm.wait(seconds);
    }
    assert_eq!(decided(&house), decided(&calm));
    // Of two pages one is the message of the first window, and the other that of the second.
    let (first, second) = ("2026-03-02T01:10:01Z".to_owned(), "2026-03-02T01:15:01Z".to_owned());
    let each = [(second, MessageState::Sent, None), (first, MessageState::Expired, None)];
    assert_eq!(decided(&calm), [each.clone(), each.clone(), each].concat());
}

#[test]
fn of_several_rows_of_a_rule_in_a_moment_the_one_that_is_preferred_goes_out() {
    let told = |prefer: &str| {
        let sql = format!(
            "CREATE ALERT room WITH (subject = 'person', message = 'room', text = '{{zone}} has {{room}}'{prefer}) AS
             SELECT site, page AS zone, person, count AS room, event_time FROM click WHERE action = 'view'"
        );
        let mut house = House::making(move || perception(SITE, &sql, &settings(|_| {})));
        for (zone, room) in [("west", 5), ("annex", 7), ("east", 7), ("north", 2)] {
            for person in ["ann", "bob", "cem", "dora"] {
                let payload = format!(r#"{{"action":"view","person":"{person}","page":"{zone}","count":{room}}}"#);
                house.hear(0, "web/click/opac", &payload);
            }
        }
        house.wait(2);
        let people = ["ann", "bob", "cem", "dora"].into_iter();
        let messages = people.flat_map(|person| house.messages(person));
        let mut texts: Vec<String> = messages.map(|message| message.text.en).collect();
        assert_eq!(texts.len(), 4, "one each: {texts:?}");
        texts.dedup();
        texts
    };
    assert_eq!(told(", prefer = 'room DESC'"), ["Annex has 7"]);
    assert_eq!(told(", prefer = 'room'"), ["North has 2"]);
    assert!(told("").len() > 1, "without it each has the one of the least id");
}
