//! A statement that takes long to plan holds up nobody but those who plan.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::TestResult;
use crate::listener::Listener;
use crate::usher::Usher;

const GATE: &str = "usher/in/main/reading-room/gate/door-1";

/// Many relations and a deep expression: seconds of planning. No row comes through, for the pairs would be too many.
fn hostile() -> String {
    let joins: String = (1..60)
        .map(|number| {
            format!(
                " JOIN gate g{number} ON g{number}.zone = g0.zone AND g{number}.event_time BETWEEN g0.event_time \
                 - INTERVAL '1 second' AND g0.event_time + INTERVAL '1 second'"
            )
        })
        .collect();
    let deep = format!("{}g0.entered{}", "abs(".repeat(40), ")".repeat(40));
    format!("CREATE QUERY hostile AS SELECT g0.zone, {deep} AS n FROM gate g0{joins} WHERE g0.entered < 0")
}

/// A busy machine or a slow disk holds up one attempt or another; what waits for planning is held up in all of them.
const ATTEMPTS: u64 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_do_not_wait_while_a_statement_is_planned() -> TestResult {
    let usher = Usher::start_with_queries(
        "CREATE ALERT passed WITH (subject = 'zone', raise = 'entered > 0', clear = 'entered = 0') AS
         SELECT site, zone, entered FROM gate;",
    )?;
    let mut alerts = Listener::subscribe(&usher.mqtt, "usher/out/main/alert-event/passed").await?;
    let mut rounds = 0;
    let mut attempts = Vec::new();
    for _ in 0..ATTEMPTS {
        let planning = tokio::spawn(planned(usher.http.clone()));
        let mut slowest = Duration::ZERO;
        while !planning.is_finished() {
            slowest = slowest.max(round(&usher, &mut alerts, rounds).await?);
            rounds += 1;
        }
        let took = planning.await??;
        // Each of the two that are planned would have held an event up by about half of it all.
        if slowest < took / 3 {
            return Ok(());
        }
        attempts.push(format!("an alert took {slowest:?} while planning took {took:?}"));
    }
    Err(format!("of {rounds} rounds: {}", attempts.join("; ")).into())
}

/// Has the statement checked and added at once, and gives how long that took.
async fn planned(http: String) -> Result<Duration, String> {
    let client = reqwest::Client::new();
    let address = format!("http://{http}/api/v1/queries");
    let body = json!({ "sql": hostile() });
    let started = Instant::now();
    let check = client.post(format!("{address}/check")).json(&body).send();
    let put = client.put(format!("{address}/hostile")).json(&body).send();
    let answers = tokio::try_join!(check, put).map_err(|error| error.to_string())?;
    let took = started.elapsed();
    for answer in [answers.0, answers.1] {
        let status = answer.status();
        if status != 200 {
            let text = answer.text().await.unwrap_or_default();
            return Err(format!("{status}: {text}"));
        }
    }
    Ok(took)
}

/// Has the alert raised and cleared once, and gives how long the slower of the two took.
async fn round(usher: &Usher, alerts: &mut Listener, round: u64) -> Result<Duration, Box<dyn std::error::Error>> {
    let mut slowest = Duration::ZERO;
    for (later, payload, state) in [(0, r#""in":1"#, "active"), (1, r#""out":1"#, "cleared")] {
        let started = Instant::now();
        let second = round * 2 + later;
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let event = format!(r#"{{"ts":"2026-03-02T{hour:02}:{minute:02}:{second:02}+08:00",{payload}}}"#);
        usher.publish(GATE, &event).await?;
        alerts.next("the alert", |heard| heard.json()["state"] == state).await?;
        slowest = slowest.max(started.elapsed());
    }
    Ok(slowest)
}
