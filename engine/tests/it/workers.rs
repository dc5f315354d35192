//! Several workers with Fluvio between them: each event counts once and each step goes out once, whoever is killed,
//! comes too late, or takes over.
//!
//! `USHER_FLUVIO` names the SC of a cluster, as in `127.0.0.1:9003`; without it the tests are skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::Value;
use usher_connectors::client::MqttClient;
use usher_connectors::embedded_log::LogOptions;
use usher_connectors::fluvio::cluster::{Cluster, FluvioOptions, TopicOptions};
use usher_connectors::fluvio::log as fluvio_log;
use usher_connectors::log::{Log, Offset};
use usher_connectors::message::QoS;
use usher_connectors::partition::partition_of;

use crate::listener::Listener;
use crate::own_broker::Mosquitto;
use crate::usher::{Usher, program};
use crate::{PATIENCE, TestResult, soon, until};

/// An alert of two steps for each time ten people come and go.
const SQL: &str = "
CREATE ALERT busy WITH (subject = 'zone', severity = 'info', raise = 'persons >= 10', clear = 'persons < 10',
  text = '{zone} is busy') AS
SELECT site, zone, persons, as_of FROM occupancy;
";

/// Topics of the test's own in the cluster, removed at the end.
struct Topics {
    endpoint: String,
    cluster: Arc<Cluster>,
    events: String,
    alerts: String,
    partitions: u32,
}

impl Topics {
    fn of(partitions: u32) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        let Ok(endpoint) = std::env::var("USHER_FLUVIO") else {
            eprintln!("skipped: USHER_FLUVIO names no cluster");
            return Ok(None);
        };
        let name = format!("usher-test-{:016x}", fastrand::u64(..));
        Ok(Some(Self {
            cluster: Cluster::new(FluvioOptions::new(&endpoint))?,
            endpoint,
            events: format!("{name}-events"),
            alerts: format!("{name}-alerts"),
            partitions,
        }))
    }

    /// The settings of a worker.
    fn settings(&self, partitions: &str, epoch: u64) -> String {
        format!(
            "[fluvio]\ncluster = \"{}\"\nevents = \"{}\"\nalerts = \"{}\"\n\
             [workers]\nof = {}\npartitions = {partitions}\nepoch = {epoch}\n",
            self.endpoint, self.events, self.alerts, self.partitions
        )
    }

    /// What lies in a partition of the events, in order: the log each record is from, and its place there.
    fn records(&self, partition: u32) -> Result<Vec<(u64, u64)>, Box<dyn std::error::Error>> {
        let topic = TopicOptions::new(&self.events, self.partitions);
        let log = fluvio_log::open(&self.cluster, &topic, partition, LogOptions::default(), None)?;
        let (mut at, mut found) = (Offset(0), Vec::new());
        while at < log.durable() {
            for (offset, bytes) in log.read(at, 4_096, 8 << 20)? {
                at = Offset(offset.0 + 1);
                let number = |at: usize| bytes[at..at + 8].try_into().map(u64::from_be_bytes);
                if bytes[1] == 0 {
                    found.push((number(2)?, number(10)?));
                }
            }
        }
        Ok(found)
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let (cluster, names) = (Arc::clone(&self.cluster), [self.events.clone(), self.alerts.clone()]);
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            for name in names {
                // What can't be removed is left to whoever has the cluster.
                let _ = runtime.block_on(cluster.remove_topic(&name));
            }
            Ok::<(), std::io::Error>(())
        });
        let _ = removing.join();
    }
}

/// Publishes people who come into the room of a site, each an event of its own.
async fn come(url: &str, site: &str, numbers: std::ops::Range<u32>) -> TestResult {
    let client = MqttClient::connect(url, &format!("door-{}", fastrand::u64(..))).await?;
    let mut tickets = Vec::new();
    for number in numbers {
        let topic = format!("usher/in/{site}/reading-room/gate/door-1");
        let payload = format!(r#"{{"id":"e{number}","in":1,"out":0}}"#);
        tickets.push(client.publish(topic.as_str(), payload, QoS::AtLeastOnce, false).await?);
    }
    for ticket in tickets {
        soon("an acknowledgement", ticket).await??;
    }
    client.disconnect().await;
    Ok(())
}

/// Waits until Fluvio has all that the log has.
async fn has_forwarded(usher: &Usher) -> TestResult {
    let waiting = |text: &String| {
        let lines = text.lines();
        let mut values = lines.filter_map(|line| line.strip_prefix("usher_fluvio_waiting_records "));
        values.next() == Some("0")
    };
    until("Fluvio to have everything", || usher.get_text("/metrics"), waiting).await?;
    Ok(())
}

async fn has_persons(usher: &Usher, path: &str, persons: u32) -> TestResult {
    until("the count", || usher.get(path), |zone| zone["persons"] == persons).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_once_in_fluvio_though_its_worker_is_killed_again_and_again() -> TestResult {
    let Some(topics) = Topics::of(1)? else { return Ok(()) };
    let mut usher = Usher::start_with_settings(SQL, &topics.settings("\"all\"", 1))?;
    for round in 0..4 {
        come(&usher.mqtt, "main", round * 100..round * 100 + 100).await?;
        // In the middle of forwarding, and of whatever else it does.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..80))).await;
        usher = usher.crash_and_start_again()?;
    }
    has_persons(&usher, "/api/v1/zones/reading-room", 400).await?;
    has_forwarded(&usher).await?;
    let found = topics.records(0)?;
    let places: Vec<u64> = found.iter().map(|(_, place)| *place).collect();
    let expected: Vec<u64> = (0..places.len() as u64).collect();
    assert_eq!(places, expected, "each record of the log, once, in order");
    assert!(places.len() >= 400, "{}", places.len());
    // Another machine takes over, with an empty folder: it knows what the first one knew, and tells nothing again.
    let (code, old) = usher.stop()?;
    assert_eq!(code, Some(0));
    let new = Usher::start_with_settings(SQL, &topics.settings("\"all\"", 2))?;
    has_persons(&new, "/api/v1/zones/reading-room", 400).await?;
    let standing = new.get("/api/v1/alerts?rule=busy").await?;
    assert_eq!(standing["items"][0]["state"], "active", "{standing}");
    let receivers = new.get("/api/v1/receivers").await?;
    assert_eq!(receivers["items"][0]["sent"], 0, "{receivers}");
    // The older one can't come back.
    assert!(old.start_again().is_err(), "a worker of an earlier epoch runs");
    Ok(())
}

#[test]
fn a_worker_that_has_to_take_over_says_that_its_cluster_is_away() -> TestResult {
    let folder = tempfile::tempdir()?;
    // A port where nothing listens; so this needs no cluster.
    std::fs::write(
        folder.path().join("fluvio.toml"),
        "[fluvio]\ncluster = \"127.0.0.1:9\"\n",
    )?;
    let ended = std::process::Command::new(program())
        .args(["run", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--config"])
        .arg(folder.path())
        .arg("--data")
        .arg(folder.path().join("data"))
        .output()?;
    let words = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{words}");
    let last = words.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("usher: the assignment 0-of-1 can't be taken up"),
        "{words}"
    );
    assert!(
        last.contains("the Fluvio cluster at 127.0.0.1:9 can't be reached"),
        "{words}"
    );
    Ok(())
}

/// A site of each of two partitions, with a room for 50 in each.
fn two_sites() -> ([String; 2], String) {
    let of = NonZeroU32::new(2).expect("not zero");
    let sites = [0, 1].map(|wanted| {
        let mut names = (1..).map(|number| format!("branch-{number}"));
        names
            .find(|name| partition_of(name, of) == wanted)
            .expect("there are many")
    });
    let places = sites.iter().map(|site| {
        format!("[[site]]\nid = \"{site}\"\n[[zone]]\nsite = \"{site}\"\nid = \"reading-room\"\ncapacity = 50\n")
    });
    let text = places.collect();
    (sites, text)
}

/// What went out: of each step id how often, and of each site which steps.
#[derive(Default)]
struct Told {
    ids: BTreeMap<String, u32>,
    by_site: BTreeMap<String, Vec<String>>,
}

impl Told {
    fn note(&mut self, step: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        *self.ids.entry(text(&step["step_id"])).or_insert(0) += 1;
        let words = format!("{} {}", text(&step["rule"]), text(&step["state"]));
        self.by_site.entry(text(&step["site"])).or_default().push(words);
    }

    fn busy(&self, site: &str) -> usize {
        let steps = self.by_site.get(site);
        steps.map_or(0, |steps| steps.iter().filter(|step| *step == "busy active").count())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_share_the_sites_and_one_that_takes_over_tells_nothing_twice() -> TestResult {
    let Some(topics) = Topics::of(2)? else { return Ok(()) };
    let Some(broker) = Mosquitto::start().await? else {
        return Ok(());
    };
    let (sites, places) = two_sites();
    let url = broker.url();
    let start = |partition: &str, epoch: u64| {
        Usher::start_worker(&places, SQL, &topics.settings(partition, epoch), &["--mqtt", &url])
    };
    let mut heard = Listener::subscribe(&url, "usher/out/+/alert-event/busy").await?;
    let mut told = Told::default();
    let (first, second) = (start("[0]", 1)?, start("[1]", 1)?);
    for worker in [&first, &second] {
        until("readiness", || worker.get_text("/readyz"), |text| text == "ready\n").await?;
    }
    for site in &sites {
        come(&url, site, 0..12).await?;
    }
    for _ in &sites {
        told.note(&heard.next("a step", |_| true).await?.json());
    }
    // Each has its own, and has left the other's alone.
    for (worker, site) in [&first, &second].into_iter().zip(&sites) {
        has_persons(worker, &format!("/api/v1/zones/reading-room?site={site}"), 12).await?;
        let status = worker.get("/api/v1/status").await?;
        assert_eq!(
            (&status["counts"]["events"], &status["counts"]["elsewhere"]),
            (&12.into(), &12.into()),
            "{status}"
        );
        let zones = worker.get("/api/v1/zones").await?;
        assert_eq!(zones["items"].as_array().map(Vec::len), Some(1), "{zones}");
    }
    has_forwarded(&second).await?;
    // Where receivers have everything is said twice a second; without it they would hear of steps twice, under their ids.
    tokio::time::sleep(Duration::from_secs(4)).await;
    // The machine of the second is gone; a third takes over its partition. People come meanwhile.
    let gone = second.crash()?;
    come(&url, &sites[1], 12..20).await?;
    let third = start("[1]", 2)?;
    until("readiness", || third.get_text("/readyz"), |text| text == "ready\n").await?;
    has_persons(&third, "/api/v1/zones/reading-room", 20).await?;
    // What the second sent late, or sends now, nobody hears: it is refused.
    assert!(gone.start_again().is_err(), "a worker of an earlier epoch runs");
    // A worker that runs hears of its successor and ends by itself.
    let fourth = start("[0]", 2)?;
    let code = first.ended().await?;
    assert_eq!(code, Some(1));
    until("readiness", || fourth.get_text("/readyz"), |text| text == "ready\n").await?;
    has_persons(&fourth, "/api/v1/zones/reading-room", 12).await?;
    // All go, and come back: a new step of each.
    for site in &sites {
        let topic = format!("usher/in/{site}/reading-room/gate/door-1");
        broker.publish(&topic, &["-m", r#"{"id":"out","in":0,"out":12}"#])?;
    }
    let is_last = |told: &Told| {
        sites
            .iter()
            .all(|site| told.by_site[site].iter().any(|step| step == "busy cleared"))
    };
    let deadline = Instant::now() + PATIENCE;
    broker.publish(
        &format!("usher/in/{}/reading-room/gate/door-1", sites[1]),
        &["-m", r#"{"id":"out-2","in":0,"out":8}"#],
    )?;
    while !is_last(&told) {
        assert!(Instant::now() < deadline, "{:?}", told.by_site);
        told.note(&heard.next("a step", |_| true).await?.json());
    }
    assert!(told.ids.values().all(|count| *count == 1), "{:?}", told.ids);
    for site in &sites {
        assert_eq!(told.busy(site), 1, "{site}: {:?}", told.by_site);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topic_of_alerts_gets_each_step_once_by_its_id_also_over_kills() -> TestResult {
    const ROUNDS: u32 = 6;
    let Some(topics) = Topics::of(1)? else { return Ok(()) };
    let mut usher = Usher::start_with_settings(SQL, &topics.settings("\"all\"", 1))?;
    for round in 0..ROUNDS {
        come(&usher.mqtt, "main", round * 10..round * 10 + 10).await?;
        let out = format!(r#"{{"id":"o{round}","in":0,"out":10}}"#);
        usher.publish("usher/in/main/reading-room/gate/door-1", &out).await?;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..60))).await;
        usher = usher.crash_and_start_again()?;
    }
    let steps = |receivers: &Value| {
        let items = receivers["items"].as_array().cloned().unwrap_or_default();
        let fluvio = items.into_iter().find(|receiver| receiver["name"] == "fluvio");
        fluvio.is_some_and(|fluvio| fluvio["waiting"] == 0)
    };
    until("the topic to have everything", || usher.get("/api/v1/receivers"), steps).await?;
    let client = fluvio::Fluvio::connect_with_config(&fluvio::FluvioClusterConfig::new(&topics.endpoint)).await?;
    let config = fluvio::consumer::ConsumerConfigExt::builder()
        .topic(topics.alerts.clone())
        .partition(0)
        .offset_start(fluvio::Offset::beginning())
        .disable_continuous(true)
        .build()?;
    let mut records = client.consumer_with_config(config).await?;
    let (mut ids, mut turns) = (BTreeSet::new(), Vec::new());
    while let Some(record) = soon("a record", records.next()).await? {
        let record = record.map_err(|code| code.to_string())?;
        let step: Value = serde_json::from_slice(record.value())?;
        if step["rule"] != "busy" {
            continue;
        }
        assert_eq!(record.key(), Some(&b"main/zone/reading-room"[..]));
        // A step whose confirmation was not heard comes again, under its id.
        if ids.insert(step["step_id"].as_str().ok_or("a step has an id")?.to_owned()) {
            turns.push(step["state"].as_str().unwrap_or_default().to_owned());
        }
    }
    let expected: Vec<&str> = (0..ROUNDS).flat_map(|_| ["active", "cleared"]).collect();
    assert_eq!(turns, expected, "each step, once by its id, in order");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_fast_what_a_worker_takes_is_in_fluvio() -> TestResult {
    const EVENTS: u32 = 20_000;
    let Some(topics) = Topics::of(4)? else { return Ok(()) };
    let usher = Usher::start_with_settings("", &topics.settings("\"all\"", 1))?;
    let begun = Instant::now();
    let coming: Vec<_> = (0..8)
        .map(|n| {
            let (url, site) = (usher.mqtt.clone(), format!("branch-{n}"));
            tokio::spawn(async move {
                come(&url, &site, 0..EVENTS / 8)
                    .await
                    .map_err(|error| error.to_string())
            })
        })
        .collect();
    for coming in coming {
        coming.await??;
    }
    let taken = begun.elapsed();
    has_forwarded(&usher).await?;
    let forwarded = begun.elapsed();
    let rate = |took: Duration| f64::from(EVENTS) / took.as_secs_f64();
    eprintln!(
        "{EVENTS} events: acknowledged {:.0}/s, in Fluvio {:.0}/s, the last {:.0} ms after its acknowledgement",
        rate(taken),
        rate(forwarded),
        (forwarded - taken).as_secs_f64() * 1e3
    );
    drop(usher);
    let begun = Instant::now();
    let new = Usher::start_with_settings("", &topics.settings("\"all\"", 2))?;
    until("readiness", || new.get_text("/readyz"), |text| text == "ready\n").await?;
    eprintln!(
        "another took over, {:.0} events a second, the start among it",
        rate(begun.elapsed())
    );
    Ok(())
}
