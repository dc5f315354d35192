//! What should not come is counted, kept and explained, and the engine lives.

use serde_json::{Value, json};

use crate::TestResult;
use crate::usher::Usher;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_counted_kept_and_explained() -> TestResult {
    let usher = Usher::start()?;
    let gate = "usher/in/main/reading-room/gate/door-1";
    let large = format!(r#"{{"in":1,"note":"{}"}}"#, "x".repeat(1 << 20));
    let bad = [
        (gate, "not JSON", "JSON would be right"),
        (
            gate,
            r#"{"in":"many"}"#,
            "`in` is \"many\": a whole number of people, 0 or more, was expected",
        ),
        (gate, "", "the payload is empty"),
        (gate, large.as_str(), "at most 262144 are read"),
        (
            "usher/in/main/reading-room/gaet/door-1",
            r#"{"in":1}"#,
            "did you mean 'gate'?",
        ),
        (
            "usher/in/main/reading-room/seat/rr-001",
            r#"{"state":"gone"}"#,
            "one of occupied, free, away",
        ),
    ];
    for (topic, payload, _) in bad {
        usher.publish(topic, payload).await?;
    }
    // Wrong clocks count where they are, at the time they came.
    usher.publish(gate, r#"{"ts":"1970-01-01T00:00:09Z","in":2}"#).await?;
    usher.publish(gate, r#"{"ts":"2066-12-22T00:08:09Z","in":3}"#).await?;
    usher.has_taken(8).await?;

    let refused = usher.get("/api/v1/refused").await?;
    let items = refused["items"].as_array().ok_or("a list")?;
    assert_eq!(items.len(), bad.len(), "{refused}");
    for ((topic, payload, reason), item) in bad.iter().rev().zip(items) {
        assert_eq!(item["topic"], *topic);
        assert_eq!(item["size"], payload.len());
        assert!(item["received_at"].is_string());
        assert!(
            item["reason"].as_str().is_some_and(|told| told.contains(reason)),
            "{item} should say {reason}"
        );
    }
    let status = usher.get("/api/v1/status").await?;
    let counts = &status["counts"];
    assert_eq!(
        (&counts["refused"], &counts["wrong_clocks"], &counts["events"]),
        (&json!(6), &json!(2), &json!(2)),
        "{status}"
    );
    let zone = usher.get("/api/v1/zones/reading-room").await?;
    assert_eq!(zone["persons"], 5, "{zone}");
    let devices = usher.get("/api/v1/devices").await?;
    let is_ahead = |device: &Value| device["device"] == "door-1" && device["clock"] == "ahead";
    assert!(
        devices["items"].as_array().is_some_and(|all| all.iter().any(is_ahead)),
        "{devices}"
    );

    // What was refused is still there after a restart, and nobody's name is.
    usher
        .publish(
            "usher/in/main/reading-room/click/web",
            r#"{"person":"Ada-Lovelace","action":7}"#,
        )
        .await?;
    let usher = usher.crash_and_start_again()?;
    let refused = usher.get("/api/v1/refused").await?;
    assert_eq!(refused["items"].as_array().map(Vec::len), Some(7), "{refused}");
    // A name that no time, size or offset can look like.
    assert!(!refused.to_string().contains("Lovelace"), "{refused}");
    let page = usher.get("/api/v1/refused?limit=3").await?;
    let next = page["next"].as_str().ok_or("there is more")?;
    let rest = usher.get(&format!("/api/v1/refused?limit=10&after={next}")).await?;
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(4), "{rest}");
    Ok(())
}
