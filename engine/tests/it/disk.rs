//! A disk that is full, read-only or gone for a while: nothing is acknowledged that is not kept, and everybody is told.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use usher_connectors::client::MqttClient;
use usher_connectors::message::QoS;

use crate::listener::Listener;
use crate::small_disk::SmallDisk;
use crate::usher::{Usher, program};
use crate::{TestResult, soon, until};

/// Doors that publish side by side, each one event after the other.
const DOORS: usize = 4;
/// What each of them publishes.
const EVENTS: usize = 400;

/// Devices that publish until they have had all acknowledgements, and how many they have.
struct Doors {
    acknowledged: Arc<AtomicUsize>,
    publishing: Vec<tokio::task::JoinHandle<Result<(), String>>>,
}

impl Doors {
    /// Begins to publish: one person a message, whose padding fills a small disk soon.
    async fn open(mqtt: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let mut publishing = Vec::new();
        for door in 0..DOORS {
            let client = MqttClient::connect(mqtt, &format!("door-{door}")).await?;
            let acknowledged = Arc::clone(&acknowledged);
            publishing.push(tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(door as u64);
                for number in 0..EVENTS {
                    // What an event is called is kept with it; letters at random do not get smaller.
                    let padding: String = std::iter::repeat_with(|| random.alphanumeric()).take(100).collect();
                    let payload = json!({"id": format!("{door}-{number}-{padding}"), "in": 1, "out": 0}).to_string();
                    let topic = format!("usher/in/main/reading-room/gate/door-{door}");
                    let ticket = client.publish(topic, payload, QoS::AtLeastOnce, false).await;
                    let ticket = ticket.map_err(|error| error.to_string())?;
                    ticket.await.map_err(|error| error.to_string())?;
                    acknowledged.fetch_add(1, Ordering::AcqRel);
                }
                client.disconnect().await;
                Ok(())
            }));
        }
        Ok(Self {
            acknowledged,
            publishing,
        })
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Acquire)
    }

    async fn reach(&self, count: usize) -> TestResult {
        let now = || async { Ok(self.acknowledged()) };
        until("acknowledgements", now, |&acknowledged| acknowledged >= count).await?;
        Ok(())
    }

    async fn finish(self) -> TestResult {
        for door in self.publishing {
            soon("the last acknowledgement", door).await???;
        }
        Ok(())
    }
}

async fn readiness(usher: &Usher) -> Result<(u16, String), Box<dyn std::error::Error>> {
    let answer = reqwest::get(format!("http://{}/readyz", usher.http)).await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// Everything is there, once: in the log, and in what was made of it.
async fn all_are_there_once(usher: &Usher) -> TestResult {
    let events = usher
        .query("SELECT count(*) AS n, count(DISTINCT event_id) AS ids FROM gate")
        .await?;
    let all = DOORS * EVENTS;
    assert_eq!(events[0], json!({"n": all, "ids": all}));
    let zones = usher.query("SELECT entered, exited FROM occupancy").await?;
    assert_eq!(zones, [json!({"entered": all, "exited": 0})]);
    Ok(())
}

/// Fills the disk until nothing moves any more, and gives the status and the acknowledgements of that time: the log is opened
/// anew at each try, and tidying up then makes a little room again.
async fn fill_up(disk: &SmallDisk, usher: &Usher, doors: &Doors) -> Result<(Value, usize), Box<dyn std::error::Error>> {
    let failures = |status: &Value| status["log_failures"].as_u64();
    loop {
        disk.fill()?;
        let status = usher.get("/api/v1/status").await?;
        let (tried, acknowledged) = (failures(&status), doors.acknowledged());
        let enough = |status: &Value| failures(status) >= tried.map(|tried| tried + 3);
        let status = until("more tries", || usher.get("/api/v1/status"), enough).await?;
        if doors.acknowledged() == acknowledged && status["log_trouble"].is_string() {
            assert!(
                acknowledged < DOORS * EVENTS,
                "all were acknowledged before the disk was full"
            );
            return Ok((status, acknowledged));
        }
    }
}

/// What `usher status` prints.
fn screen(usher: &Usher) -> Result<String, Box<dyn std::error::Error>> {
    let output = Command::new(program())
        .args(["status", "--http", &usher.http])
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_makes_publishers_wait_tells_everybody_and_loses_and_doubles_nothing() -> TestResult {
    let Some(disk) = SmallDisk::mount(48)? else {
        return Ok(());
    };
    let usher = Usher::start_on(disk.path(), "")?;
    let doors = Doors::open(&usher.mqtt).await?;
    doors.reach(100).await?;
    assert_eq!(readiness(&usher).await?, (200, "ready\n".to_owned()));
    let (status, stopped_at) = fill_up(&disk, &usher, &doors).await?;
    let (code, why) = readiness(&usher).await?;
    assert_eq!(code, 503, "{why}");
    assert!(why.contains("the log can't be written since "), "{why}");
    assert!(why.contains("No space left on device"), "{why}");
    assert!(why.contains("nothing is acknowledged until this works again"), "{why}");
    assert_eq!(status["status"], "degraded");
    assert!(status["log_not_durable"].as_u64() >= Some(1), "{status}");
    let screen = screen(&usher)?;
    assert!(screen.contains("STOPPED   the log can't be written since "), "{screen}");
    let metrics = usher.get_text("/metrics").await?;
    for line in [
        "usher_log_writable 0",
        "usher_log_failures_total ",
        "usher_log_waiting_seconds ",
    ] {
        assert!(
            metrics.lines().any(|metric| metric.starts_with(line)),
            "no {line} in {metrics}"
        );
    }
    assert_eq!(doors.acknowledged(), stopped_at);
    // Room comes, and nobody has to do anything else.
    disk.make_room()?;
    doors.finish().await?;
    until("readiness", || readiness(&usher), |(code, _)| *code == 200).await?;
    let metrics = usher.get_text("/metrics").await?;
    assert!(metrics.lines().any(|line| line == "usher_log_writable 1"), "{metrics}");
    all_are_there_once(&usher).await?;
    // And once more from the disk alone.
    all_are_there_once(&usher.crash_and_start_again()?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_on_a_full_disk_it_goes_on_with_all_that_was_acknowledged() -> TestResult {
    let Some(disk) = SmallDisk::mount(48)? else {
        return Ok(());
    };
    let usher = Usher::start_on(disk.path(), "")?;
    let doors = Doors::open(&usher.mqtt).await?;
    doors.reach(100).await?;
    fill_up(&disk, &usher, &doors).await?;
    let crashed = usher.crash()?;
    disk.make_room()?;
    let usher = crashed.start_again()?;
    doors.finish().await?;
    all_are_there_once(&usher).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_on_a_full_disk_it_ends_and_says_that_not_all_was_kept() -> TestResult {
    let Some(disk) = SmallDisk::mount(48)? else {
        return Ok(());
    };
    let usher = Usher::start_on(disk.path(), "")?;
    let doors = Doors::open(&usher.mqtt).await?;
    doors.reach(100).await?;
    fill_up(&disk, &usher, &doors).await?;
    let stopping = tokio::task::spawn_blocking(move || usher.stop().map_err(|error| error.to_string()));
    let (code, stopped) = soon("the end", stopping).await???;
    assert_eq!(code, Some(1));
    disk.make_room()?;
    let usher = stopped.start_again()?;
    doors.finish().await?;
    all_are_there_once(&usher).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_makes_publishers_wait_and_is_said() -> TestResult {
    let Some(disk) = SmallDisk::mount_freezable(128)? else {
        return Ok(());
    };
    let usher = Usher::start_on(disk.path(), "[log]\nslow_after = '300ms'\n")?;
    let doors = Doors::open(&usher.mqtt).await?;
    doors.reach(50).await?;
    let frozen = disk.freeze()?;
    let (_, why) = until("the slow disk", || readiness(&usher), |(code, _)| *code == 503).await?;
    assert!(why.contains("the disk is slow: the oldest of "), "{why}");
    assert!(why.contains("acknowledgements wait as long"), "{why}");
    let stopped_at = doors.acknowledged();
    let waited = |status: &Value| status["log_waiting_s"].as_f64() > Some(1.0);
    let status = until("a longer wait", || usher.get("/api/v1/status"), waited).await?;
    assert_eq!(doors.acknowledged(), stopped_at);
    assert_eq!(status["status"], "degraded");
    assert!(screen(&usher)?.contains("STOPPED   the disk is slow"));
    drop(frozen);
    doors.finish().await?;
    until("readiness", || readiness(&usher), |(code, _)| *code == 200).await?;
    all_are_there_once(&usher).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_the_middle_of_the_log_costs_what_was_hit_and_is_counted() -> TestResult {
    let usher = Usher::start()?;
    for number in 0..20 {
        let payload = json!({"id": format!("person-{number}-"), "in": 1, "out": 0}).to_string();
        usher
            .publish("usher/in/main/reading-room/gate/door-0", &payload)
            .await?;
    }
    let journal = usher.data().join("log/0.jnl");
    let crashed = usher.crash()?;
    let bytes = std::fs::read(&journal)?;
    let hit = bytes.windows(10).position(|bytes| bytes == b"person-11-");
    let hit = hit.ok_or("the event is in the journal")?;
    OpenOptions::new()
        .write(true)
        .open(&journal)?
        .write_all_at(b"PERSON", hit as u64)?;
    let usher = crashed.start_again()?;
    let events = usher.query("SELECT count(*) AS n FROM gate").await?;
    assert_eq!(events, [json!({"n": 19})], "the others are all there");
    let metrics = usher.get_text("/metrics").await?;
    assert!(
        metrics.lines().any(|line| line == "usher_log_lost_records_total 1"),
        "{metrics}"
    );
    let is_kept = |name: &str| name.starts_with("0.jnl.") && name.ends_with(".damaged");
    let names = std::fs::read_dir(usher.data().join("log"))?.map(|entry| Ok(entry?.file_name()));
    let names: std::io::Result<Vec<_>> = names.collect();
    assert_eq!(names?.iter().filter(|name| is_kept(&name.to_string_lossy())).count(), 1);
    Ok(())
}

#[test]
fn a_read_only_data_folder_is_refused_at_the_start_in_words() -> TestResult {
    let Some(disk) = SmallDisk::mount(48)? else {
        return Ok(());
    };
    let usher = Usher::start_on(disk.path(), "")?;
    assert_eq!(usher.terminate()?, Some(0));
    disk.set_read_only(true)?;
    let output = Command::new(program())
        .args(["run", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"])
        .arg(disk.path())
        .output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("Read-only file system"), "{words}");
    assert!(
        words.contains(&disk.path().join("log").display().to_string()),
        "{words}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_flood_of_qos_0_loses_is_counted_with_a_reason() -> TestResult {
    let Some(disk) = SmallDisk::mount(48)? else {
        return Ok(());
    };
    let usher = Usher::start_on(disk.path(), "[log]\nqueue_size = '1MiB'\n[intake]\nqueue = 64\n")?;
    usher
        .publish("usher/in/main/reading-room/gate/door-0", r#"{"id":"first","in":1}"#)
        .await?;
    let mut heard = Listener::subscribe(&usher.mqtt, "usher/out/main/alert-event/usher.shed").await?;
    // The log's queue and the intake fill up behind a full disk.
    disk.fill()?;
    let client = MqttClient::connect(&usher.mqtt, "flood").await?;
    let shed = |status: &Value| status["sources"][0]["shed"].as_u64();
    let mut sent = 0_u64;
    let deadline = std::time::Instant::now() + crate::PATIENCE;
    let status = loop {
        for _ in 0..2_000 {
            let payload = json!({"id": format!("flood-{sent}-{}", "x".repeat(100)), "in": 1}).to_string();
            // Nobody is told whether a message of QoS 0 arrived.
            drop(
                client
                    .publish(
                        "usher/in/main/reading-room/gate/door-1",
                        payload,
                        QoS::AtMostOnce,
                        false,
                    )
                    .await?,
            );
            sent += 1;
        }
        let status = usher.get("/api/v1/status").await?;
        if shed(&status) > Some(0) {
            break status;
        }
        assert!(std::time::Instant::now() < deadline, "nothing was shed: {status}");
    };
    let shed_line = |line: &str| line.starts_with("usher_source_shed_total") && line.contains("reason=\"intake_full\"");
    let metrics = usher.get_text("/metrics").await?;
    let line = metrics
        .lines()
        .find(|line| shed_line(line))
        .ok_or("no metric for what was shed")?;
    let counted: f64 = line.rsplit_once(' ').ok_or("a metric has a value")?.1.parse()?;
    assert!(counted >= 1.0, "{line}");
    assert!(screen(&usher)?.contains("shed (intake full)"));
    let says_so = |status: &Value| {
        status["shedding"]
            .as_str()
            .is_some_and(|words| words.contains("no room"))
    };
    until("the words", || usher.get("/api/v1/status"), says_so).await?;
    assert!(status["sources"][0]["received"].as_u64() >= shed(&status), "{status}");
    disk.make_room()?;
    // Nobody would tell it again: it waits for the disk.
    let raised = heard.next("the alert", |heard| !heard.retain).await?.json();
    assert_eq!(raised["subject"]["id"], "intake_full", "{raised}");
    tokio::time::timeout(Duration::from_secs(60), client.disconnect()).await?;
    let (_, words) = until("readiness", || readiness(&usher), |(code, _)| *code == 200).await?;
    assert!(words.starts_with("ready, but shedding: "), "{words}");
    Ok(())
}
