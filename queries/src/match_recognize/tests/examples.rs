//! What a library asks with patterns.

use serde_json::json;

use super::{Event, said};

const SEARCHES_IN_VAIN: &str = "CREATE QUERY lost AS
SELECT site, person, began, asked, last_query, searches FROM click MATCH_RECOGNIZE (
  PARTITION BY site, person ORDER BY event_time
  MEASURES FIRST(S.event_time) AS began, H.event_time AS asked, LAST(S.query) AS last_query, COUNT(S.*) AS searches
  ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW
  PATTERN (S{3,} H) WITHIN INTERVAL '10 minutes'
  DEFINE S AS S.action = 'search' AND S.results = 0, H AS H.action = 'help')";

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
        said(SEARCHES_IN_VAIN, "click", &events),
        [
            r#"{"site":"-","person":"p","began":"1970-01-01T00:00:00Z","asked":"1970-01-01T00:00:50Z","last_query":"d","searches":4} by e5"#
        ]
    );
    // The limit itself is within.
    events[14].0 = 1_600;
    assert_eq!(said(SEARCHES_IN_VAIN, "click", &events).len(), 2);
}

const TAKEN_WITHOUT_CHECKOUT: &str = "CREATE QUERY taken AS
SELECT * FROM rfid MATCH_RECOGNIZE (
  PARTITION BY tag ORDER BY event_time
  MEASURES LAST(L.zone) AS shelf, E.zone AS gate, E.event_time AS passed, CLASSIFIER() AS last
  PATTERN (L+ E)
  WITHIN INTERVAL '1' HOUR
  DEFINE L AS L.action = 'read' AND L.zone <> 'exit', E AS E.action = 'read' AND E.zone = 'exit') AS m";

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
        said(TAKEN_WITHOUT_CHECKOUT, "rfid", &events),
        [r#"{"tag":"t1","shelf":"hall","gate":"exit","passed":"1970-01-01T00:00:20Z","last":"E"} by e4"#]
    );
}

const KEPT_BY_BELONGINGS: &str = "CREATE QUERY kept AS
SELECT seat, left_at, free_at, state_before FROM seat MATCH_RECOGNIZE (
  PARTITION BY seat ORDER BY event_time
  MEASURES A.event_time AS left_at, F.event_time AS free_at, PREV(F.state) AS state_before
  PATTERN (O A F)
  DEFINE O AS O.state = 'occupied', A AS A.state = 'away',
         F AS F.state = 'free' AND F.event_time - A.event_time > INTERVAL '20 minutes')";

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
        said(KEPT_BY_BELONGINGS, "seat", &events),
        [
            r#"{"seat":"a","left_at":"1970-01-01T00:01:00Z","free_at":"1970-01-01T00:21:01Z","state_before":"away"} by e4"#
        ]
    );
}

const REQUEST_NOT_ANSWERED: &str = "CREATE QUERY waiting AS
SELECT person, asked, timed_out FROM click MATCH_RECOGNIZE (
  PARTITION BY person ORDER BY event_time
  MEASURES R.event_time AS asked
  PATTERN (R N* V) WITHIN INTERVAL '30 seconds' SHOW TIMED OUT
  DEFINE R AS R.action = 'request', N AS N.action <> 'view', V AS V.action = 'view')";

#[test]
fn a_request_that_nothing_follows_in_time_is_told_when_asked_for() {
    let events = [
        click(0, "p", "request", "", 0),
        click(5, "q", "request", "", 0),
        click(10, "p", "search", "", 0),
        click(30, "p", "view", "", 0),
        click(36, "r", "search", "", 0),
        click(40, "q", "view", "", 0),
    ];
    assert_eq!(
        said(REQUEST_NOT_ANSWERED, "click", &events),
        [
            r#"{"person":"p","asked":"1970-01-01T00:00:00Z","timed_out":false} by e3"#,
            r#"{"person":"q","asked":"1970-01-01T00:00:05Z","timed_out":true} by e1"#,
        ]
    );
}
