//! Every kind of continuous query as its users meet it: a file in the config folder, events over MQTT, an alert.

use serde_json::json;

use crate::listener::Listener;
use crate::usher::Usher;
use crate::{TestResult, until};

const QUERIES: &str = "
-- An item is read in a shelf's zone and then at the exit, and nobody checked it out.
CREATE ALERT taken WITH (subject = 'item', text = '{item} went from {shelf} through {gate}') AS
SELECT site, tag AS item, shelf, gate, passed
FROM rfid MATCH_RECOGNIZE (
  PARTITION BY site, tag
  ORDER BY event_time
  MEASURES LAST(L.zone) AS shelf, E.zone AS gate, E.event_time AS passed
  PATTERN (L+ E) WITHIN INTERVAL '1 hour'
  DEFINE L AS L.action = 'read' AND L.zone <> 'exit', E AS E.action = 'read' AND E.zone = 'exit'
);
-- Somebody goes out within ten seconds of an item being read there.
CREATE ALERT carried WITH (subject = 'item', text = '{item} at the exit as somebody went out') AS
SELECT r.site, r.tag AS item, g.event_time
FROM rfid r JOIN gate g ON r.site = g.site AND r.zone = g.zone
  AND g.event_time BETWEEN r.event_time - INTERVAL '10 seconds' AND r.event_time + INTERVAL '10 seconds'
WHERE g.exited > 0;
-- A seat that was used is not heard of any more.
CREATE ALERT seat_gone WITH (subject = 'seat', text = '{seat} is silent since {since}') AS
SELECT site, zone, seat, event_time AS since, absent_at
FROM ABSENT(seat, event_time, (site, seat), INTERVAL '4 seconds');
-- A visit to the catalogue with many searches.
CREATE ALERT long_search WITH (subject = 'person', raise = 'searches >= 3', text = '{searches} searches in one visit') AS
SELECT site, person, window_start, window_end, count(*) AS searches
FROM SESSION(click, event_time, INTERVAL '5 seconds') WHERE action = 'search'
GROUP BY site, person, window_start, window_end;
-- Passages of a day, as the library's clocks have it.
CREATE QUERY by_day WITH (emit = 'update', lateness = '1 hour') AS
SELECT site, window_start, window_end, final, sum(entered) AS entered
FROM DAY(gate, event_time, 'Asia/Shanghai') GROUP BY site, window_start, window_end, final;
";

fn usher() -> Result<Usher, Box<dyn std::error::Error>> {
    Usher::start_with_queries(QUERIES)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_and_a_join_of_streams_raise_alerts() -> TestResult {
    let usher = usher()?;
    let mut alerts = Listener::subscribe(&usher.mqtt, "usher/out/main/alert-event/#").await?;
    let at = |second: u32| format!("2026-03-02T10:00:{second:02}+08:00");
    let read = |id: &str, second: u32| format!(r#"{{"id":"{id}","ts":"{}","tag":"E280","action":"read"}}"#, at(second));
    usher
        .publish("usher/in/main/stacks/rfid/shelf-1", &read("r1", 1))
        .await?;
    usher.publish("usher/in/main/exit/rfid/exit-1", &read("r2", 20)).await?;
    usher
        .publish(
            "usher/in/main/exit/gate/door-1",
            &format!(r#"{{"id":"g1","ts":"{}","in":0,"out":1}}"#, at(23)),
        )
        .await?;
    let carried = alerts
        .next("the join's alert", |heard| heard.json()["rule"] == "carried")
        .await?
        .json();
    assert_eq!(carried["subject"], json!({"kind": "item", "id": "E280"}), "{carried}");
    assert_eq!(carried["causes"], json!(["g1"]), "the later of the two made it so");
    // Nothing more is published: the clock takes over, and the match is certain.
    let taken = alerts
        .next("the pattern's alert", |heard| heard.json()["rule"] == "taken")
        .await?
        .json();
    assert_eq!(taken["text"], "E280 went from stacks through exit", "{taken}");
    assert_eq!(taken["causes"], json!(["r2"]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absence_is_said_across_a_crash_with_no_further_event() -> TestResult {
    let usher = usher()?;
    usher
        .publish(
            "usher/in/main/reading-room/seat/rr-001",
            r#"{"id":"s1","state":"occupied"}"#,
        )
        .await?;
    let usher = usher.crash_and_start_again()?;
    let gone = |alerts: &serde_json::Value| alerts["items"][0]["rule"] == "seat_gone";
    let alerts = until("the absence", || usher.get("/api/v1/alerts?rule=seat_gone"), gone).await?;
    assert_eq!(alerts["items"][0]["causes"], json!(["s1"]), "{alerts}");
    assert_eq!(alerts["items"].as_array().map(Vec::len), Some(1), "once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_by_the_clock_and_late_rows_are_counted() -> TestResult {
    let usher = usher()?;
    let search = |id: u32, second: u32| {
        format!(r#"{{"id":"c{id}","ts":"2026-03-02T10:00:{second:02}+08:00","person":"4711","action":"search"}}"#)
    };
    for (id, second) in [(1, 0), (2, 3), (3, 1)] {
        usher
            .publish("usher/in/main/web/click/catalogue", &search(id, second))
            .await?;
    }
    let explained = usher.get("/api/v1/queries/long_search").await?;
    assert_eq!(
        (&explained["counters"]["rows_in"], &explained["counters"]["late_rows"]),
        (&json!(3), &json!(1)),
        "two seconds behind a device's newest, with no delay and no lateness: {explained}"
    );
    let metrics = usher.get_text("/metrics").await?;
    assert!(
        metrics.contains("usher_query_rows_late_total{query=\"long_search\"} 1"),
        "{metrics}"
    );
    usher
        .publish("usher/in/main/web/click/catalogue", &search(4, 5))
        .await?;
    let ended = |alerts: &serde_json::Value| alerts["items"][0]["text"] == "3 searches in one visit";
    // Its last search was at five seconds; five more by the clock, and it is over.
    until(
        "the session's end",
        || usher.get("/api/v1/alerts?rule=long_search"),
        ended,
    )
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_stands_beside_the_running_query_and_a_change_leaves_others_running() -> TestResult {
    let usher = usher()?;
    for (id, second) in [("a", 1), ("b", 2)] {
        let payload = format!(r#"{{"id":"{id}","ts":"2026-03-02T10:00:0{second}+08:00","in":2}}"#);
        usher
            .publish("usher/in/main/reading-room/gate/door-1", &payload)
            .await?;
    }
    // Later than the windows of a minute that the first two are in.
    let later = r#"{"id":"c","ts":"2026-03-02T10:05:00+08:00","in":0}"#;
    usher.publish("usher/in/main/reading-room/gate/door-1", later).await?;
    let day = usher
        .query("SELECT window_start, window_end, final, entered FROM by_day")
        .await?;
    let expected = json!([{"window_start": "2026-03-01T16:00:00Z", "window_end": "2026-03-02T16:00:00Z",
        "final": false, "entered": 4}]);
    assert_eq!(json!(day), expected);
    let draft = "CREATE QUERY zone_flow WITH (emit = 'update') AS
        SELECT site, zone, window_start, window_end, sum(entered) AS entered, sum(exited) AS exited
        FROM HOP(gate, event_time, INTERVAL '10 seconds', INTERVAL '1 minute')
        WHERE entered > 5 GROUP BY site, zone, window_start, window_end";
    let (code, trial) = usher
        .post("/api/v1/queries/trial", json!({"sql": draft, "hours": 1}))
        .await?;
    assert_eq!((code, &trial["total"]), (200, &json!(0)), "{trial}");
    assert!(trial["live"]["total"].as_u64() > Some(0), "{trial}");
    assert_eq!(trial["difference"]["only_live"], trial["live"]["total"]);
    assert_eq!(trial["difference"]["same"], json!(0));
    // `zone_crowded` reads `occupancy`: what it reads may change below it, as long as its columns stay.
    let running = usher.get("/api/v1/queries/occupancy").await?;
    assert_eq!(running["read_by"], json!(["zone_crowded"]), "{running}");
    let sql = running["sql"].as_str().ok_or("it has a text")?.to_owned();
    let put = |sql: String| {
        let url = format!("http://{}/api/v1/queries/occupancy", usher.http);
        reqwest::Client::new().put(url).json(&json!({ "sql": sql })).send()
    };
    let changed = put(sql.clone()).await?;
    assert_eq!(changed.status(), 200);
    let changed: serde_json::Value = changed.json().await?;
    assert_eq!(
        changed["state"],
        json!({"occupancy": "kept", "zone_crowded": "kept"}),
        "{changed}"
    );
    let broken = put(sql.replace("AS persons", "AS people")).await?;
    assert_eq!(broken.status(), 422);
    let why = broken.text().await?;
    assert!(
        why.contains("'zone_crowded' reads 'occupancy' and could not run any more"),
        "{why}"
    );
    assert_eq!(
        usher.query("SELECT persons FROM occupancy").await?,
        [json!({"persons": 4})]
    );
    Ok(())
}
