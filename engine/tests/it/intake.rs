//! Messages that wait: whoever asks is told what for and since when, and nothing of it is lost.

use serde_json::json;
use usher_connectors::client::MqttClient;
use usher_connectors::message::QoS;

use crate::small_disk::SmallDisk;
use crate::usher::Usher;
use crate::{TestResult, soon, until};

type Publishing = tokio::task::JoinHandle<Result<(), String>>;

/// Publishes so many events, each of a door of its own and once the one before is acknowledged, of `persons` in and out.
async fn door(mqtt: &str, name: String, events: usize, persons: u32) -> Result<Publishing, Box<dyn std::error::Error>> {
    let client = MqttClient::connect(mqtt, &name).await?;
    Ok(tokio::spawn(async move {
        for number in 0..events {
            let payload = json!({"id": format!("{name}-{number}"), "in": persons, "out": persons}).to_string();
            let topic = format!("usher/in/main/reading-room/gate/{name}-{number}");
            let ticket = client.publish(topic, payload, QoS::AtLeastOnce, false).await;
            let ticket = ticket.map_err(|error| error.to_string())?;
            ticket.await.map_err(|error| error.to_string())?;
        }
        client.disconnect().await;
        Ok(())
    }))
}

async fn readiness(usher: &Usher) -> Result<(u16, String), Box<dyn std::error::Error>> {
    let answer = reqwest::get(format!("http://{}/readyz", usher.http)).await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_wait_for_a_slow_query_are_told_with_its_name_and_all_are_taken_in_the_end() -> TestResult {
    const DOORS: usize = 4;
    const EVENTS: usize = 4;
    // What it costs grows with the square of how many came in.
    let usher = Usher::start_with_queries(
        "CREATE QUERY pairs WITH (emit = 'update') AS
         SELECT zone, count(*) AS n, max(levenshtein(repeat('ab', entered), repeat('ba', entered))) AS distance
         FROM gate GROUP BY zone;",
    )?;
    assert_eq!(readiness(&usher).await?, (200, "ready\n".to_owned()));
    let mut rounds = 0;
    let told = loop {
        let persons = 1_000 << rounds;
        let mut doors = Vec::new();
        for number in 0..DOORS {
            doors.push(door(&usher.mqtt, format!("door-{rounds}-{number}"), EVENTS, persons).await?);
        }
        rounds += 1;
        let mut told = Vec::new();
        while !doors.iter().all(Publishing::is_finished) {
            told.extend(Some(readiness(&usher).await?).filter(|(_, words)| words != "ready\n"));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        for door in doors {
            soon("the last acknowledgement", door).await???;
        }
        if told.iter().any(|(_, words)| words.contains("the query pairs took")) {
            break told;
        }
        assert!(
            rounds < 6,
            "no query was slow enough; the last that was told is {told:?}"
        );
    };
    for (code, words) in told {
        let (waits, comes) = (
            " for queries that have been at work since ",
            "messages come faster than queries take them since ",
        );
        assert!(words.contains(waits) || words.contains(comes), "{words}");
        assert!(words.contains("`usher explain` says what each one costs"), "{words}");
        assert!(
            code == 503 || code == 200 && words.starts_with("ready, but behind: "),
            "{code} {words}"
        );
    }
    until("readiness", || readiness(&usher), |(_, words)| words == "ready\n").await?;
    let rows = usher.query("SELECT n FROM pairs").await?;
    assert_eq!(rows, [json!({"n": rounds * DOORS * EVENTS})]);
    let metrics = usher.get_text("/metrics").await?;
    for line in ["usher_intake_queued 0", "usher_intake_waiting_seconds 0"] {
        assert!(metrics.lines().any(|metric| metric == line), "no {line} in {metrics}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_without_room_makes_publishers_wait_and_says_so_and_goes_on_when_there_is_room() -> TestResult {
    const EVENTS: usize = 400;
    let Some(disk) = SmallDisk::mount(48)? else {
        return Ok(());
    };
    let usher = Usher::start_with_outbox_on(
        disk.path(),
        "CREATE ALERT passed WITH (subject = 'device') AS SELECT site, zone, device, entered FROM gate;",
        "[delivery]\nqueue = 100\n",
    )?;
    assert_eq!(readiness(&usher).await?, (200, "ready\n".to_owned()));
    disk.fill()?;
    let door = door(&usher.mqtt, "door-1".to_owned(), EVENTS, 1).await?;
    let (code, words) = until(
        "the outbox to be full",
        || async {
            // Tidying up makes a little room again.
            disk.fill()?;
            readiness(&usher).await
        },
        |(code, _)| *code == 503,
    )
    .await?;
    assert!(words.contains("no messages are taken since "), "{code} {words}");
    assert!(
        words.contains("too many steps of alerts wait for the disk of the outbox"),
        "{words}"
    );
    assert!(
        words.contains("room on that disk or a faster one would be right"),
        "{words}"
    );
    assert!(!door.is_finished(), "all were acknowledged");
    let status = usher.get("/api/v1/status").await?;
    assert_eq!(status["status"], "degraded", "{status}");
    assert!(status["log_trouble"].is_null(), "{status}");
    disk.make_room()?;
    soon("the last acknowledgement", door).await???;
    until("readiness", || readiness(&usher), |(_, words)| words == "ready\n").await?;
    let events = usher.query("SELECT count(*) AS n FROM gate").await?;
    assert_eq!(events, [json!({"n": EVENTS})]);
    Ok(())
}
