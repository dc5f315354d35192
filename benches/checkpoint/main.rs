//! How long events wait while a checkpoint is taken, and how much is written for one: the real pipeline, log and store,
//! fed at a steady rate while 100,000 persons are known and stand in windows, with 1,000 zones, gates and seats.
//!
//! `checkpoint [seconds] [events a second] [persons]`

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use usher_connectors::BoxFuture;
use usher_connectors::checkpoint::CheckpointStore;
use usher_connectors::delivery::{Ack, Delivery};
use usher_connectors::embedded_log::{self, LogOptions};
use usher_connectors::log::Log;
use usher_connectors::message::{Message, QoS};
use usher_connectors::publisher::{Publication, PublishError, Publisher};
use usher_engine::allocator::keep_memory;
use usher_engine::bus::Bus;
use usher_engine::check::load_queries;
use usher_engine::clock::SystemClock;
use usher_engine::decode::DecodeOptions;
use usher_engine::latency::Latencies;
use usher_engine::outbox::{MqttReceiver, Outbox, OutboxOptions};
use usher_engine::perception::{Perception, PerceptionOptions};
use usher_engine::pipeline::{Parts, Pipeline, asking};
use usher_engine::pseudonym::Secret;
use usher_engine::public::Board;
use usher_engine::reference::set_references;
use usher_engine::settings::{Flags, Settings};
use usher_engine::settler::settling;
use usher_engine::site::Places;
use usher_engine::supervisor::Supervisor;
use usher_queries::query_set::QuerySet;
use usher_queries::statement::parse_statements;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PLACES: usize = 1_000;
/// Beside the shipped queries: a key a person, in a window that stays open, in panes, and in sessions.
const SQL: &str = "
CREATE QUERY seen_today WITH (emit = 'update') AS
SELECT person, window_start, count(*) AS reads, max(rssi_dbm) AS nearest, last_seen(event_time) AS last
FROM TUMBLE(rfid, event_time, INTERVAL '1 day') GROUP BY person, window_start, window_end;

CREATE QUERY seen_lately WITH (emit = 'close') AS
SELECT person, window_start, count(*) AS reads
FROM HOP(rfid, event_time, INTERVAL '10 minutes', INTERVAL '1 hour') GROUP BY person, window_start, window_end;

CREATE QUERY stays AS
SELECT person, window_start, window_end, count(*) AS reads
FROM SESSION(rfid, event_time, INTERVAL '1 hour') GROUP BY person, window_start, window_end;
";

fn places() -> Places {
    let mut text = String::from("[[site]]\nid = \"bench\"\n");
    for place in 0..PLACES {
        text += &format!("[[zone]]\nsite = \"bench\"\nid = \"zone-{place}\"\ncapacity = 50\n");
        text += &format!("[[seat]]\nsite = \"bench\"\nzone = \"zone-{place}\"\nid = \"seat-{place}\"\n");
    }
    Places::read(Path::new("site.toml"), &text).expect("the site is right")
}

fn delivery(number: usize, persons: usize, begun_ms: u128) -> Delivery {
    // In no order, as people come.
    let person = number.wrapping_mul(2_654_435_761) % persons;
    let place = number % PLACES;
    let ts = begun_ms + number as u128 / 20;
    let (topic, payload) = match number % 10 {
        0 => (
            format!("usher/in/bench/zone-{place}/gate/gate-{place}"),
            format!(r#"{{"ts":{ts},"id":"g{number}","in":1,"out":1}}"#),
        ),
        1 => (
            format!("usher/in/bench/zone-{place}/seat/seat-{place}"),
            format!(
                r#"{{"ts":{ts},"id":"s{number}","state":"{}"}}"#,
                ["occupied", "free"][number / 10 % 2]
            ),
        ),
        _ => (
            format!("usher/in/bench/zone-{place}/rfid/reader-{place}"),
            format!(
                r#"{{"ts":{ts},"id":"r{number}","tag":"t{person}","antenna":1,"rssi_dbm":-50.5,"action":"read","person":"p{person}"}}"#
            ),
        ),
    };
    Delivery {
        message: Message::received_now(topic.into(), payload.into(), QoS::AtLeastOnce, false),
        ack: Ack::none(),
    }
}

/// A broker that takes everything at once.
struct TakesAll;

impl Publisher for TakesAll {
    fn publish(&self, _publication: Publication) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Bytes of each checkpoint's file, as long as it is there.
fn sizes(store: &CheckpointStore, seen: &mut BTreeMap<String, u64>) {
    let Ok(entries) = std::fs::read_dir(store.dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".checkpoint")
            && let Ok(metadata) = entry.metadata()
        {
            seen.insert(name, metadata.len());
        }
    }
}

fn main() {
    keep_memory();
    let runtime = usher_engine::runtime::runtime().expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let argument = |at: usize, default: usize| {
        let given = std::env::args().nth(at).and_then(|text| text.parse().ok());
        given.unwrap_or(default)
    };
    let (seconds, rate, persons) = (argument(1, 60), argument(2, 10_000), argument(3, 100_000));
    let folder = tempfile::tempdir().expect("a folder");
    let (log, store) = embedded_log::open(&folder.path().join("log"), LogOptions::default()).expect("the log opens");
    let (log, store): (Arc<dyn Log>, _) = (Arc::new(log), Arc::new(store));
    let settings = Settings::load_with(None, [], &Flags::default()).expect("the defaults are right");
    let places = Arc::new(places());
    let (options, of_site) = (PerceptionOptions::of(&settings), Arc::clone(&places));
    let fresh = move || {
        let mut queries = QuerySet::new();
        set_references(&mut queries, &of_site);
        load_queries(&mut queries, Path::new("")).expect("the shipped queries are right");
        let statements = parse_statements(SQL).expect("the statements are right");
        let refused = queries.create_all(statements);
        assert!(refused.is_empty(), "{refused:?}");
        Perception::new(options.clone(), Arc::clone(&of_site), queries)
    };
    let (asker, asks) = asking();
    let (settler, waiting) = settling();
    let latencies = Arc::new(Latencies::default());
    let options = OutboxOptions {
        fluvio: None,
        fence: usher_engine::fence::Fence::default(),
        keep_steps: 1_000_000,
        unwritten_max: settings.delivery.queue,
        in_memory_max: settings.delivery.in_memory,
        dead_letters_max: 1_000,
        mqtt: MqttReceiver {
            publisher: Arc::new(TakesAll),
            address: "nowhere".to_owned(),
            qos: QoS::AtLeastOnce,
            latencies: Arc::clone(&latencies),
        },
        webhooks: Vec::new(),
    };
    let outbox = Outbox::open(&folder.path().join("outbox"), options).expect("the outbox opens");
    let (outbox, stop_sending) = (Arc::new(outbox), CancellationToken::new());
    let sending = tokio::spawn(Arc::clone(&outbox).send(Supervisor::new(), stop_sending.clone()));
    let parts = Parts {
        assignment: usher_engine::workers::Assignment::default(),
        perception: fresh(),
        decode: DecodeOptions::new(Secret::load_or_create(folder.path()).expect("a secret")),
        recent_ids: 100_000,
        batch: settings.intake.batch,
        intake: Arc::default(),
        checkpoint_every: Duration::from_secs(1),
        log: Arc::clone(&log),
        settler,
        outbox,
        bus: Arc::new(Bus::new(0)),
        board: Arc::new(Board::new(0)),
        latencies: Arc::clone(&latencies),
        clock: Arc::new(SystemClock),
    };
    let settling = tokio::spawn(waiting.run(
        Arc::clone(&log),
        Arc::clone(&store),
        Arc::clone(&latencies),
        asker.clone(),
    ));
    let (store_of_pipeline, stop) = (Arc::clone(&store), CancellationToken::new());
    let mut pipeline = tokio::task::spawn_blocking(move || {
        let mut pipeline = Pipeline::new(parts);
        pipeline.recover(&store_of_pipeline, fresh).expect("an empty folder");
        pipeline
    })
    .await
    .expect("it starts");
    let (sender, deliveries) = mpsc::channel(4_096);
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { pipeline.run(deliveries, asks, stop).await }
    });
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let begun_ms = now.as_millis() - 60_000;

    let filling = Instant::now();
    let mut number = 0;
    while number < persons * 5 / 2 {
        sender
            .send(delivery(number, persons, begun_ms))
            .await
            .expect("the pipeline runs");
        number += 1;
    }
    let known = asker
        .ask(|pipeline| {
            let keys = pipeline
                .perception
                .queries
                .queries()
                .iter()
                .map(|query| query.footprint().keys);
            (pipeline.perception.people.len(), keys.sum::<usize>())
        })
        .await
        .expect("the pipeline runs");
    println!(
        "{} persons, {} keys in windows, {PLACES} zones, gates and seats after {:.1} s; then {rate} events/s",
        known.0,
        known.1,
        filling.elapsed().as_secs_f64()
    );
    let (steady, mut written) = (Instant::now(), BTreeMap::new());
    let before = latencies.checkpoint_pause.percentiles().count;
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let mut sent = 0;
    while steady.elapsed() < Duration::from_secs(seconds as u64) {
        ticks.tick().await;
        let due = (steady.elapsed().as_secs_f64() * rate as f64) as usize;
        while sent < due {
            sender
                .send(delivery(number, persons, begun_ms))
                .await
                .expect("the pipeline runs");
            (number, sent) = (number + 1, sent + 1);
        }
        if sent % 100 == 0 {
            sizes(&store, &mut written);
        }
    }
    sizes(&store, &mut written);
    let waits = [
        ("times that events waited", latencies.checkpoint_turn.percentiles()),
        ("the longest of each", latencies.checkpoint_pause.percentiles()),
    ];
    let evaluated = latencies.evaluated.percentiles();
    println!(
        "{} checkpoints in {seconds} s, {before} before",
        waits[1].1.count - before
    );
    for (what, wait) in waits {
        println!(
            "{} {what}: median {} µs, 99 % {} µs, most {} µs",
            wait.count, wait.p50_us, wait.p99_us, wait.max_us
        );
    }
    println!(
        "received to evaluated: median {} µs, 99 % {} µs, 99.9 % {} µs, most {} µs",
        evaluated.p50_us, evaluated.p99_us, evaluated.p999_us, evaluated.max_us
    );
    let mut bytes: Vec<u64> = written.values().copied().collect();
    bytes.sort_unstable();
    if let (Some(least), Some(most)) = (bytes.first(), bytes.last()) {
        println!(
            "bytes of a checkpoint: least {least}, median {}, most {most}, mean {}",
            bytes[bytes.len() / 2],
            bytes.iter().sum::<u64>() / bytes.len() as u64
        );
    }
    stop.cancel();
    drop((sender, asker));
    running.await.expect("it ends").expect("the log works");
    settling.await.expect("it ends");
    stop_sending.cancel();
    sending.await.expect("it ends");
}
