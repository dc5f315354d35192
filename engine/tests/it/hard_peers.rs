//! Peers that make it hard: a broker that restarts, one with a million retained messages, a client that sends garbage.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::crash::Failure;
use crate::crash::home::{Home, Process, Started};
use crate::crash::play::Plan;
use crate::crash::state::Asked;
use crate::crash::stream::Stream;
use crate::flood::Wave;
use crate::own_broker::Mosquitto;
use crate::receiver::Mood;
use crate::{TestResult, flood, peer};

/// Longer than a million messages take a build without optimisation.
const LONG: Duration = Duration::from_secs(1_800);
const MIB: u64 = 1 << 20;

async fn start(home: &Home, mqtt: &str) -> Result<Process, Failure> {
    match home.start(mqtt, None).await? {
        Started::Ready(process) => Ok(*process),
        Started::Ended(status) => Err(format!("it ended with {status}: {}", home.last_said()).into()),
    }
}

fn address(url: &str) -> Result<SocketAddr, Failure> {
    Ok(url.trim_start_matches("mqtt://").parse()?)
}

/// Asks until `is_it`, and notes the most memory in use meanwhile.
async fn grown_until(
    process: &Process,
    path: &str,
    wait: Duration,
    is_it: impl Fn(&Value) -> bool,
) -> Result<u64, Failure> {
    let deadline = std::time::Instant::now() + wait;
    let mut most = 0;
    loop {
        most = most.max(process.resident_bytes()?);
        let answer = process.api.get(path).await?;
        if is_it(&answer) {
            return Ok(most);
        }
        if std::time::Instant::now() > deadline {
            return Err(format!("waited {wait:?}; the last answer was {answer}").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_loses_nothing() -> TestResult {
    if peer("mosquitto")?.is_none() {
        return Ok(());
    }
    let stream = Stream::draw(7, 300, Duration::from_millis(8));
    let mut plan = Plan {
        stream: &stream,
        kills: Vec::new(),
        is_own_broker: true,
        broker_restarts: Vec::new(),
        mood: Mood::Takes,
        queries: Asked::All,
    };
    let expected = plan.play().await?;
    plan.broker_restarts = vec![80, 200];
    let outcome = plan.play().await?;
    let differences = outcome.differences(&expected, true);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let grown = outcome.resident_bytes_max.saturating_sub(expected.resident_bytes_max);
    assert!(
        grown < 64 * MIB,
        "it took {} MiB more than without restarts",
        grown / MIB
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_come_back_to_an_embedded_broker_that_was_killed() -> TestResult {
    const DEVICES: u64 = 20;
    const EACH: u64 = 150;
    let home = Home::new()?;
    let mut process = start(&home, "127.0.0.1:0").await?;
    let url = process.mqtt.clone();
    let devices: Vec<_> = (0..DEVICES)
        .map(|device| {
            let url = url.clone();
            tokio::spawn(async move {
                let client = usher_connectors::client::MqttClient::connect(&url, &format!("device-{device}"))
                    .await
                    .map_err(|error| error.to_string())?;
                let topic = format!("usher/in/main/hall/gate/door-{device}");
                let mut tickets = Vec::new();
                for number in 0..EACH {
                    let payload = format!(r#"{{"id":"{number}","in":1}}"#);
                    let qos = usher_connectors::message::QoS::AtLeastOnce;
                    let ticket = client.publish(topic.clone(), payload, qos, false).await;
                    tickets.push(ticket.map_err(|error| error.to_string())?);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                for ticket in tickets {
                    ticket.await.map_err(|error| error.to_string())?;
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        process.kill().await?;
        process = start(&home, url.trim_start_matches("mqtt://")).await?;
    }
    for device in devices {
        device.await??;
    }
    let zone = process.api.get("/api/v1/zones/hall").await?;
    assert_eq!(zone["persons"], DEVICES * EACH, "{zone}");
    Ok(())
}

/// A long run has a million; a quick one is bounded by a build without optimisation.
fn retained_topics() -> u64 {
    match std::env::var("USHER_LONG") {
        Ok(long) if long == "1" => 1_000_000,
        _ => 50_000,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_of_retained_messages_comes_in_whole_and_in_bounded_memory() -> TestResult {
    const ZONES: u64 = 100;
    let Some(broker) = Mosquitto::start().await? else {
        return Ok(());
    };
    let topics = retained_topics();
    let message = |number: u64| {
        let topic = format!("usher/in/main/z{}/gate/g{number}", number % ZONES);
        (topic, format!(r#"{{"id":"{number}","ts":1772413200000,"in":1}}"#))
    };
    flood::publish(address(&broker.url())?, "a-gateway", topics, Wave::Retained, message).await?;
    let home = Home::with_defaults()?;
    let process = start(&home, &broker.url()).await?;
    let before = process.resident_bytes()?;
    // What happens now comes in all the same.
    broker.publish("usher/in/main/hall/gate/door-1", &["-m", r#"{"id":"now","in":1}"#])?;
    let all = topics + 1;
    let is_in = |status: &Value| status["counts"]["events"].as_u64() >= Some(all);
    let most = grown_until(&process, "/api/v1/status", LONG, is_in).await?;
    let zones = process.api.get("/api/v1/zones?limit=1000").await?;
    let zones = zones["items"].as_array().ok_or("a list has items")?;
    let persons: BTreeMap<&str, i64> = zones
        .iter()
        .filter_map(|zone| Some((zone["zone"].as_str()?, zone["persons"].as_i64()?)))
        .collect();
    assert_eq!(persons.values().sum::<i64>(), i64::try_from(all)?, "{persons:?}");
    let status = process.api.get("/api/v1/status").await?;
    assert_eq!(status["sources"][0]["shed"], 0, "{status}");
    assert_eq!(status["counts"]["refused"], 0, "{status}");
    assert_eq!(status["sources"][0]["reconnects"], 0, "{status}\n{}", home.last_said());
    let grown = most.saturating_sub(before);
    println!(
        "{topics} retained topics: {} MiB more at most, {} bytes a topic",
        grown / MIB,
        grown / topics
    );
    // The write buffers of the log, and what is kept of a device that says nothing any more.
    let bound = 192 * MIB + topics * 2_048;
    assert!(
        grown < bound,
        "it took {} MiB more; at most {} MiB is right",
        grown / MIB,
        bound / MIB
    );
    Ok(())
}

/// A broken device sends 100,000 messages that can't be read, and a good one beside it goes on.
async fn garbage_is_counted_and_forgotten(mqtt: &str, wave: Wave) -> TestResult {
    const GARBAGE: u64 = 100_000;
    const GOOD: u64 = 200;
    let home = Home::with_defaults()?;
    let process = start(&home, mqtt).await?;
    let before = process.resident_bytes()?;
    let broker = address(&process.mqtt)?;
    let garbage = |number: u64| {
        let topic = match number % 3 {
            0 => "usher/in/main/hall/gate/door-1".to_owned(),
            1 => format!("usher/in/main/hall/gaet/door-{number}"),
            _ => format!("usher/in/main/z{number}/seat/s{number}"),
        };
        let filler = "x".repeat(usize::try_from(number % 400).unwrap_or(0));
        (topic, format!(r#"{{"state":"garbage {number}",{filler}"#))
    };
    let good = |number: u64| {
        let topic = "usher/in/main/reading-room/gate/door-2".to_owned();
        (topic, format!(r#"{{"id":"{number}","in":1}}"#))
    };
    // At QoS 0 what the engine has no room for is shed, and counted.
    let unread = |status: &Value| {
        let shed = status["sources"][0]["shed"].as_u64().unwrap_or(0);
        shed + status["counts"]["refused"].as_u64().unwrap_or(0)
    };
    let is_in = |status: &Value| unread(status) >= GARBAGE && status["counts"]["events"].as_u64() >= Some(GOOD);
    let (bad, well, most) = tokio::join!(
        flood::publish(broker, "a-broken-device", GARBAGE, wave, garbage),
        flood::publish(broker, "a-device", GOOD, Wave::Acknowledged, good),
        grown_until(&process, "/api/v1/status", LONG, is_in)
    );
    bad?;
    well?;
    let status = process.api.get("/api/v1/status").await?;
    assert_eq!(
        (unread(&status), &status["counts"]["events"]),
        (GARBAGE, &GOOD.into()),
        "{status}"
    );
    let zone = process.api.get("/api/v1/zones/reading-room").await?;
    assert_eq!(zone["persons"], GOOD, "{zone}");
    let refused = process.api.get("/api/v1/refused?limit=1000").await?;
    assert_eq!(refused["items"].as_array().map(Vec::len), Some(1_000));
    let grown = most?.saturating_sub(before);
    println!(
        "{GARBAGE} messages of garbage: {} MiB more at most; {}",
        grown / MIB,
        status["counts"]
    );
    assert!(
        grown < 192 * MIB,
        "it took {} MiB more; at most 192 MiB is right",
        grown / MIB
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_messages_of_garbage_are_counted_and_forgotten() -> TestResult {
    garbage_is_counted_and_forgotten("127.0.0.1:0", Wave::Forgotten).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_messages_of_garbage_from_a_broker_are_counted_and_forgotten() -> TestResult {
    match Mosquitto::start().await? {
        Some(broker) => garbage_is_counted_and_forgotten(&broker.url(), Wave::Acknowledged).await,
        None => Ok(()),
    }
}
