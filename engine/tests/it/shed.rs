//! What can't wait and finds no room is shed: staff is told by an alert, and so is whoever asks.

use std::process::Command;

use serde_json::{Value, json};

use crate::flood::{self, Wave};
use crate::listener::Listener;
use crate::usher::{Usher, program};
use crate::{TestResult, until};

/// Messages of a wave; as many follow until something was shed.
const WAVE: u64 = 20_000;

fn at(seconds: i64) -> i64 {
    1_772_413_200_000 + seconds * 1_000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shed_raises_an_alert_that_outlives_a_crash_and_ends_a_minute_after() -> TestResult {
    let usher = Usher::start_with_settings("", "[intake]\nqueue = 16\n")?;
    let mut heard = Listener::subscribe(&usher.mqtt, "usher/out/main/alert-event/usher.shed").await?;
    let gate = "usher/in/main/reading-room/gate/door-1";
    let first = json!({"id": "first", "ts": at(0), "in": 1, "out": 1});
    usher.publish(gate, &first.to_string()).await?;
    assert_eq!(usher.get_text("/readyz").await?, "ready\n");

    let broker = usher.mqtt.trim_start_matches("mqtt://").parse()?;
    let shed = |status: &Value| status["sources"][0]["shed"].as_u64().unwrap_or(0);
    let mut waves = 0;
    let status = loop {
        let payload = |number: u64| {
            let id = format!("flood-{waves}-{number}");
            (
                gate.to_owned(),
                json!({"id": id, "ts": at(1), "in": 1, "out": 1}).to_string(),
            )
        };
        flood::publish(broker, "flood", WAVE, Wave::Forgotten, payload).await?;
        waves += 1;
        let status = usher.get("/api/v1/status").await?;
        if shed(&status) > 0 {
            break status;
        }
        assert!(
            waves < 20,
            "{} messages found room in a queue of 16: {status}",
            waves * WAVE
        );
    };
    assert!(
        status["sources"][0]["received"].as_u64() > Some(shed(&status)),
        "{status}"
    );

    let raised = heard.next("the alert", |heard| !heard.retain).await?.json();
    assert_eq!(raised["step"]["what"], "raised", "{raised}");
    assert_eq!(raised["subject"], json!({"kind": "usher", "id": "intake_full"}));
    assert_eq!(
        (&raised["state"], &raised["severity"]),
        (&json!("active"), &json!("warning"))
    );
    assert!(raised["values"]["messages"].as_u64() > Some(0), "{raised}");
    let text = raised["text"].as_str().unwrap_or("");
    assert!(text.contains("of QoS 0") && text.contains("no room"), "{text}");
    let ready = usher.get_text("/readyz").await?;
    assert!(ready.starts_with("ready, but shedding: "), "{ready}");
    let status = usher.get("/api/v1/status").await?;
    assert_eq!(status["status"], "degraded");
    let screen = Command::new(program())
        .args(["status", "--http", &usher.http])
        .output()?;
    assert!(String::from_utf8(screen.stdout)?.contains("  SHEDDING  "));

    // Every message is counted in it in the end, once.
    let counts = async || {
        let status = usher.get("/api/v1/status").await?;
        let alerts = usher.get("/api/v1/alerts?rule=usher.shed&state=open").await?;
        Ok((alerts["items"][0]["values"]["messages"].as_u64(), shed(&status)))
    };
    let (_, all) = until("the count", counts, |(told, counted)| *told == Some(*counted)).await?;
    let id = raised["id"].as_str().ok_or("an alert has an id")?;
    let by = json!({"by": "Li"});
    let (code, answer) = usher.post(&format!("/api/v1/alerts/{id}/acknowledge"), by).await?;
    assert_eq!(code, 200, "{answer}");

    let usher = usher.crash_and_start_again()?;
    let alert = usher.get(&format!("/api/v1/alerts/{id}")).await?;
    assert_eq!(
        (&alert["state"], &alert["acknowledged_by"]),
        (&json!("acknowledged"), &json!("Li")),
        "{alert}"
    );
    assert_eq!(alert["values"]["messages"], all, "{alert}");
    assert_eq!(usher.get_text("/readyz").await?, "ready\n");

    // Time goes on, and nothing is shed any more.
    let mut heard = Listener::subscribe(&usher.mqtt, "usher/out/main/alert-event/usher.shed").await?;
    let later = json!({"id": "later", "ts": at(600), "in": 1, "out": 1});
    usher.publish(gate, &later.to_string()).await?;
    let cleared = heard.next("the end", |heard| !heard.retain).await?.json();
    assert_eq!(
        (&cleared["id"], &cleared["step"]["what"]),
        (&json!(id), &json!("cleared"))
    );
    let alert = usher.get(&format!("/api/v1/alerts/{id}")).await?;
    let steps = alert["history"].as_array().ok_or("a history")?;
    let whats: Vec<&str> = steps.iter().filter_map(|step| step["what"].as_str()).collect();
    assert_eq!(whats, ["raised", "acknowledged", "cleared"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_for_a_subscriber_that_is_away_is_counted() -> TestResult {
    /// Kept for one that is away.
    const KEPT: u64 = 10_000;
    let usher = Usher::start()?;
    let broker = usher.mqtt.trim_start_matches("mqtt://").parse()?;
    flood::subscribe_and_leave(broker, "away", "notes/#").await?;
    let note = |number: u64| ("notes/all".to_owned(), format!("note {number}"));
    let metric = "usher_subscriber_dropped_total";
    flood::publish(broker, "writer", KEPT, Wave::Acknowledged, note).await?;
    let metrics = usher.get_text("/metrics").await?;
    assert!(!metrics.contains(metric), "there was room for all: {metrics}");
    flood::publish(broker, "writer", 250, Wave::Acknowledged, note).await?;
    until(
        "the count",
        || usher.get_text("/metrics"),
        |metrics| {
            metrics
                .lines()
                .any(|line| line == format!("{metric}{{reason=\"queue_full\"}} 250"))
        },
    )
    .await?;
    Ok(())
}
