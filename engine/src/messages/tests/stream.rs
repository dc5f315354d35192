//! What queries are told of messages: a row for each change of state, when it is known, the same in bounded questions.

use std::sync::Arc;

use rustc_hash::FxHashSet;
use serde_json::{Map, Value as Json, json};
use usher_queries::bounded;
use usher_queries::query_set::QuerySet;
use usher_queries::row::Row;
use usher_queries::rows::batch_to_json;
use usher_queries::shipped::SHIPPED;
use usher_queries::statement::parse_statements;
use usher_queries::streams::MESSAGE;
use usher_queries::value::Value;

use super::{House, RULES, SITE, perception, pseudonym, settings};
use crate::fixture::{NINE, SECOND};
use crate::measures::shown_rows;
use crate::tables::{message_stream, messages_of};

/// When a row's change was, microseconds.
fn at(row: &Row) -> i64 {
    match row.values[1] {
        Value::Time(at_us) => at_us,
        _ => panic!("a row has a time"),
    }
}

/// Seconds after nine, kind, state, and why it was withheld.
fn line(row: &Row) -> String {
    let text = |column: usize| match &row.values[column] {
        Value::Text(text) => text.to_string(),
        _ => "-".to_owned(),
    };
    format!("{} {} {} {}", (at(row) - NINE) / SECOND, text(7), text(8), text(9))
}

fn day() -> House {
    day_in(House::new())
}

fn day_in(mut house: House) -> House {
    house.perception.keep_message_rows();
    house.ask(0, "ann");
    house.reply(60, "ann", "opened");
    house.reply(120, "ann", "accepted");
    house.ask(1_000, "bob");
    house.wait(1_700);
    house.ask(2_000, "cat");
    house.reply(2_100, "cat", "opted_out");
    house.ask(3_000, "dan");
    house.reply(3_060, "dan", "declined");
    house
}

const BEFORE_CAT: [&str; 7] = [
    "1 seat_offer sent -",
    "1 help_offer withheld lower_priority",
    "60 seat_offer opened -",
    "120 seat_offer accepted -",
    "1001 seat_offer sent -",
    "1001 help_offer withheld lower_priority",
    "1601 seat_offer expired -",
];
const OF_CAT: [&str; 3] = [
    "2001 seat_offer sent -",
    "2001 help_offer withheld lower_priority",
    "2100 seat_offer withdrawn -",
];
const BEHIND_CAT: [&str; 3] = [
    "3001 seat_offer sent -",
    "3001 help_offer withheld lower_priority",
    "3060 seat_offer declined -",
];

fn sorted(rows: &[Row]) -> Vec<String> {
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    lines.sort();
    lines
}

fn lines(parts: &[&[&str]]) -> Vec<String> {
    let mut lines: Vec<String> = parts.concat().into_iter().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn each_change_of_a_message_is_a_row_when_it_is_known() {
    let mut house = day();
    let rows = house.perception.message_rows();
    assert_eq!(sorted(&rows), lines(&[&BEFORE_CAT, &OF_CAT, &BEHIND_CAT]));
    let ids: FxHashSet<String> = rows.iter().map(|row| format!("{:?}", row.values[0])).collect();
    assert_eq!(ids.len(), rows.len(), "each has an id of its own");
    for row in &rows {
        assert!(at(row) >= row.watermark, "never late: {row:?}");
    }
}

#[test]
fn a_bounded_question_finds_the_same_of_all_who_want_to_be_known() {
    let house = day();
    let fresh = || perception(SITE, RULES, &settings(|_| {}));
    let all = messages_of(&house.heard, fresh(), &FxHashSet::default(), None);
    assert_eq!(sorted(&all), lines(&[&BEFORE_CAT, &OF_CAT, &BEHIND_CAT]));
    let cat: FxHashSet<Arc<str>> = [pseudonym("cat").into()].into_iter().collect();
    let some = messages_of(&house.heard, fresh(), &cat, None);
    assert_eq!(sorted(&some), lines(&[&BEFORE_CAT, &BEHIND_CAT]));
}

#[test]
fn a_rule_that_writes_reads_nothing_that_was_written() {
    let mistake = |sql: &str| {
        let mut queries = QuerySet::new();
        let mistakes = queries.create_all(parse_statements(sql).expect("it can be read"));
        let words: Vec<String> = mistakes.into_iter().map(|(_, error)| error.to_string()).collect();
        words.join("; ")
    };
    let told = mistake(
        "CREATE QUERY declined AS SELECT site, person, event_time FROM message WHERE state = 'declined';
        CREATE ALERT again WITH (subject = 'person', message = 'again', text = 'And now?') AS
        SELECT site, person, event_time FROM declined",
    );
    assert!(
        told.contains("would go round for ever, let it read what people do"),
        "{told}"
    );
    let told = mistake(
        "CREATE QUERY both AS SELECT person, event_time FROM reply UNION ALL SELECT person, event_time FROM message",
    );
    assert!(told.contains("'message' is known later than 'reply'"), "{told}");
    let counts = |window: &str| {
        format!(
            "WITH both AS (SELECT person, event_time FROM reply UNION ALL SELECT person, event_time FROM message)
            SELECT person, window_start, window_end, count(*) AS times FROM {window}
            GROUP BY person, window_start, window_end"
        )
    };
    let day = counts("TUMBLE(both, event_time, INTERVAL '1 day')");
    assert_eq!(
        mistake(&format!("CREATE QUERY counted AS {day}")),
        "",
        "each row has its window"
    );
    for wrong in [
        format!(
            "CREATE QUERY counted AS {}",
            counts("SESSION(both, event_time, INTERVAL '1 day')")
        ),
        format!("CREATE ALERT many WITH (subject = 'person', raise = 'times > 3', clear = 'times < 2') AS {day}"),
        "CREATE QUERY near AS SELECT r.person, r.event_time FROM reply r JOIN message m ON r.message = m.message
            AND m.event_time BETWEEN r.event_time - INTERVAL '1 hour' AND r.event_time"
            .to_owned(),
        "CREATE QUERY often AS SELECT person, count(*) AS times FROM (SELECT person, event_time FROM reply
            UNION ALL SELECT person, event_time FROM message) GROUP BY person"
            .to_owned(),
    ] {
        let told = mistake(&wrong);
        assert!(told.contains("is known later than"), "{wrong}: {told}");
    }
    let told = mistake(
        "CREATE ALERT much WITH (subject = 'person', raise = 'state = ''declined''') AS
        SELECT site, person, state, event_time FROM message",
    );
    assert_eq!(told, "", "staff may be told");
}

/// The shipped measure.
fn offers() -> String {
    let shipped = SHIPPED
        .iter()
        .flat_map(|file| parse_statements(file.text).expect("it is right"));
    let mut offers = shipped.filter(|statement| statement.name == "measure_offers");
    offers.next().expect("it is shipped").sql
}

/// Kind, counts, acceptance, minutes, persons.
fn figures(rows: impl IntoIterator<Item = Map<String, Json>>) -> Vec<Json> {
    let columns = [
        "kind",
        "sent",
        "opened",
        "accepted",
        "declined",
        "ignored",
        "withdrawn",
        "withheld",
        "acceptance",
        "mean_minutes_to_answer",
        "persons",
    ];
    let figures = |row: Map<String, Json>| columns.iter().map(|column| row[*column].clone()).collect();
    let mut figures: Vec<Json> = rows.into_iter().map(figures).collect();
    figures.sort_by_key(ToString::to_string);
    figures
}

#[test]
fn offers_are_measured_the_same_as_they_happen_and_of_a_recording() {
    let sql = format!("{RULES}{};", offers());
    let house = day_in(House::making(move || perception(SITE, &sql, &settings(|_| {}))));
    // Answered after 119 and 59 seconds: 89 seconds are 1.48 minutes. One of four that were decided was accepted.
    let expected = vec![
        json!(["help_offer", 0, 0, 0, 0, 0, 0, 4, null, null, 4]),
        json!(["seat_offer", 4, 1, 1, 1, 1, 1, 0, 0.25, 1.48, 4]),
    ];
    let measured = shown_rows(&house.perception.measures.kept("measure_offers"), 1);
    assert_eq!(figures(measured), expected);
    let fresh = perception(SITE, RULES, &settings(|_| {}));
    let rows = messages_of(&house.heard, fresh, &FxHashSet::default(), None);
    let recorded = bounded::Recorded::from([(MESSAGE.to_owned(), message_stream(rows))]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime can be made");
    let said = runtime.block_on(bounded::run(&offers(), &recorded));
    let (_, batches) = said.expect("it can be run");
    assert_eq!(figures(batches.iter().flat_map(batch_to_json)), expected);
}
