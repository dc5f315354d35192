//! What a library asks with patterns: the statements of the documentation.

use serde_json::json;

use super::{Event, said};
use crate::statement::parse_statements;

const DOCUMENTATION: &str = include_str!("../../../../docs/sql/match_recognize.md");

/// The statement of a name as the documentation has it.
fn documented(name: &str) -> String {
    let blocks = DOCUMENTATION.split("```sql\n").skip(1);
    let statements = blocks.filter_map(|block| block.split("```").next());
    let mut found = statements.filter(|sql| sql.starts_with(&format!("CREATE QUERY {name} AS")));
    let statement = found
        .next()
        .unwrap_or_else(|| panic!("the documentation has no {name}"));
    parse_statements(statement).expect("it can be read").remove(0).sql
}

fn click(time: i64, person: &str, action: &str, query: &str, results: i64) -> Event {
    let columns = json!({"person": person, "action": action, "query": query, "results": results});
    (time, columns)
}

#[test]
fn a_reader_searches_in_vain_three_times_and_asks_for_help() {
    let mut events = vec![
        click(0, "p", "search", "a", 0),
        click(10, "q", "search", "x", 0),
        click(20, "p", "search", "b", 0),
        click(30, "p", "search", "c", 0),
        click(40, "p", "search", "d", 0),
        click(50, "p", "help", "", 0),
        click(60, "q", "help", "", 0),
        // One search found something.
        click(100, "r", "search", "a", 0),
        click(110, "r", "search", "b", 7),
        click(120, "r", "search", "c", 0),
        click(130, "r", "help", "", 0),
        // The first search is too long ago.
        click(1_000, "s", "search", "a", 0),
        click(1_100, "s", "search", "b", 0),
        click(1_200, "s", "search", "c", 0),
        click(1_601, "s", "help", "", 0),
    ];
    assert_eq!(
        said(&documented("searched_in_vain"), "click", &events),
        [
            r#"{"site":"-","person":"p","began":"1970-01-01T00:00:00Z","asked":"1970-01-01T00:00:50Z","last_query":"d","searches":4} by e5"#
        ]
    );
    // The limit itself is within.
    events[14].0 = 1_600;
    assert_eq!(said(&documented("searched_in_vain"), "click", &events).len(), 2);
}

#[test]
fn an_item_passes_the_exit_gate_without_a_checkout() {
    let read = |time: i64, tag: &str, zone: &str, action: &str| -> Event {
        (time, json!({"tag": tag, "zone": zone, "action": action}))
    };
    let events = [
        read(0, "t1", "shelf", "read"),
        read(5, "t2", "shelf", "read"),
        read(10, "t1", "hall", "read"),
        read(15, "t2", "desk", "checkout"),
        read(20, "t1", "exit", "read"),
        read(25, "t2", "exit", "read"),
    ];
    assert_eq!(
        said(&documented("taken_without_checkout"), "rfid", &events),
        [r#"{"tag":"t1","shelf":"hall","gate":"exit","passed":"1970-01-01T00:00:20Z"} by e4"#]
    );
}

#[test]
fn a_seat_is_kept_by_belongings_for_more_than_twenty_minutes() {
    let seat = |time: i64, seat: &str, state: &str| -> Event { (time, json!({"seat": seat, "state": state})) };
    let events = [
        seat(0, "a", "occupied"),
        seat(10, "b", "occupied"),
        seat(60, "a", "away"),
        seat(70, "b", "away"),
        seat(1_261, "a", "free"),
        seat(1_270, "b", "free"),
        seat(1_280, "b", "occupied"),
    ];
    assert_eq!(
        said(&documented("kept_by_belongings"), "seat", &events),
        [
            r#"{"seat":"a","left_at":"1970-01-01T00:01:00Z","free_at":"1970-01-01T00:21:01Z","state_before":"away"} by e4"#
        ]
    );
}

#[test]
fn a_request_that_nothing_follows_in_time_is_told_when_asked_for() {
    let events = [
        click(0, "p", "request", "", 0),
        click(5, "q", "request", "", 0),
        click(10, "p", "search", "", 0),
        click(1_800, "p", "view", "", 0),
        click(1_806, "r", "search", "", 0),
        click(1_810, "q", "view", "", 0),
    ];
    assert_eq!(
        said(&documented("request_and_view"), "click", &events),
        [
            r#"{"person":"p","asked":"1970-01-01T00:00:00Z","timed_out":false} by e3"#,
            r#"{"person":"q","asked":"1970-01-01T00:00:05Z","timed_out":true} by e1"#,
        ]
    );
}
