//! What should not come is counted, kept and explained, and the engine lives.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::usher::Usher;
use crate::{TestResult, soon, until};

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

/// A packet that the broker does not even read ends its connection. It is told all the same, with whose it was, also after a
/// restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_that_is_too_large_for_the_broker_is_counted_and_explained() -> TestResult {
    let usher = Usher::start()?;
    let mut device = TcpStream::connect(usher.mqtt.trim_start_matches("mqtt://")).await?;
    // CONNECT of MQTT 3.1.1, which is told no largest size, and the begin of a PUBLISH of 17 MiB.
    device
        .write_all(b"\x10\x12\x00\x04MQTT\x04\x02\x00\x3c\x00\x06door-1")
        .await?;
    let mut answer = [0; 4];
    device.read_exact(&mut answer).await?;
    assert_eq!(answer, [0x20, 2, 0, 0], "connected");
    device.write_all(b"\x32\x80\x80\xc0\x08\x00\x0ausher/in/a").await?;
    // It ends, with a word before or without.
    let mut rest = Vec::new();
    let _ = soon("the end of the connection", device.read_to_end(&mut rest)).await?;

    let is_there = |refused: &Value| !refused["items"][0].is_null();
    let refused = until("the refusal", || usher.get("/api/v1/refused"), is_there).await?;
    let item = &refused["items"][0];
    assert_eq!(
        (&item["class"], &item["size"]),
        (&json!("too_large"), &json!((17 << 20) + 5)),
        "{item}"
    );
    let reason = item["reason"].as_str().unwrap_or_default();
    assert!(
        reason.starts_with("a packet of 17825797 bytes from the client 'door-1' ended its connection and was not read"),
        "{item}"
    );
    let metrics = usher.get_text("/metrics").await?;
    assert!(
        metrics.contains(r#"usher_refused_total{reason="too_large"} 1"#),
        "{metrics}"
    );
    assert_eq!(usher.get("/api/v1/status").await?["counts"]["refused"], 1);
    let usher = usher.terminate_and_start_again()?;
    assert_eq!(usher.get("/api/v1/refused").await?["items"], refused["items"]);
    Ok(())
}
