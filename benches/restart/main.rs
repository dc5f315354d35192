//! Events a second from the log through the shipped queries until live, when an engine starts again with no checkpoint to
//! go on from; and what of it is reading, what is decoding, what is knowing repetitions.
//!
//! `restart [events] [gates|house] [folder]`: the log is written first, and stays in the folder where one is named.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use usher_connectors::embedded_log::{self, LogOptions};
use usher_connectors::log::{Log, Offset};
use usher_engine::allocator::keep_memory;
use usher_engine::clock::{Clock, SystemClock};
use usher_engine::decode::{DecodeOptions, Decoder};
use usher_engine::engine::{Engine, EngineOptions};
use usher_engine::event::dedup_key;
use usher_engine::pseudonym::Secret;
use usher_engine::recent_ids::RecentIds;
use usher_engine::record::Record;
use usher_engine::settings::{Flags, Settings};
use usher_engine::site::Places;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Events a second of event time: a large house in a busy hour, or several.
const RATE: usize = 1_000;
/// Events in the log that were committed together.
const TOGETHER: usize = 256;
const PERSONS: usize = 20_000;

/// What the devices of a house send: `gates` as in `throughput`, or of every kind.
fn message(number: usize, is_house: bool, ts_ms: i64) -> (String, String) {
    let place = number.wrapping_mul(2_654_435_761) >> 7;
    let (zone, person) = (place % 16, place % PERSONS);
    match number % 10 {
        0..=2 if is_house => (
            format!("usher/in/bench/zone-{zone}/rfid/reader-{}", place % 64),
            format!(
                r#"{{"ts":{ts_ms},"id":"r{number}","tag":"E280{person:08}","antenna":1,"rssi_dbm":-51.5,"action":"read","person":"p{person}"}}"#
            ),
        ),
        3..=4 if is_house => (
            format!("usher/in/bench/zone-{zone}/seat/seat-{}", place % 500),
            format!(
                r#"{{"ts":{ts_ms},"id":"s{number}","state":"{}"}}"#,
                ["occupied", "free"][place / 500 % 2]
            ),
        ),
        5..=6 if is_house => (
            "usher/in/bench/web/click/catalogue".to_owned(),
            format!(
                r#"{{"ts":{ts_ms},"id":"c{number}","person":"p{person}","session":"s{person}","action":"view","item":"b{}","page":"/item"}}"#,
                place % 5_000
            ),
        ),
        _ => (
            format!("usher/in/bench/zone-{zone}/gate/gate-{}", place % 64),
            format!(r#"{{"ts":{ts_ms},"id":"g{number}","in":1,"out":1}}"#),
        ),
    }
}

fn write(dir: &Path, events: usize, is_house: bool) {
    let (log, _) = embedded_log::open(&dir.join("log"), LogOptions::default()).expect("the log opens");
    let mut decoder = Decoder::new(DecodeOptions::new(Secret::load_or_create(dir).expect("a secret")));
    let begun_us = SystemClock.wall_us() - (events * 1_000_000 / RATE) as i64;
    let (mut together, mut last) = (Vec::with_capacity(TOGETHER), None);
    for number in 0..events {
        let at_us = begun_us + (number * 1_000_000 / RATE) as i64;
        let (topic, payload) = message(number, is_house, at_us / 1_000);
        let decoded = decoder.decode(&topic, payload.as_bytes(), at_us);
        assert!(
            decoded.refused.is_empty(),
            "the message is right: {:?}",
            decoded.refused
        );
        together.extend(
            decoded
                .events
                .into_iter()
                .map(|event| Record::Event(event).to_bytes().into()),
        );
        if together.len() >= TOGETHER || number + 1 == events {
            last = Some(loop {
                match log.append(together.clone()) {
                    Ok(append) => break append,
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            });
            together.clear();
        }
    }
    last.expect("there are events")
        .wait_durable()
        .expect("the disk takes it");
}

/// What each part of a start takes by itself, one after the other.
fn parts(dir: &Path, events: usize) {
    let settings = Settings::load_with(None, [], &Flags::default()).expect("the defaults are right");
    let (log, _) = embedded_log::open(&dir.join("log"), LogOptions::default()).expect("the log opens");
    let mut ids = RecentIds::with_capacity(settings.intake.recent_ids);
    let (mut reading, mut decoding, mut knowing) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut at = Offset(0);
    while at < log.durable() {
        let begun = Instant::now();
        let rows = log.read(at, 4_096, 8 << 20).expect("the disk gives it back");
        reading += begun.elapsed();
        at = rows.last().map_or(log.durable(), |(last, _)| Offset(last.0 + 1));
        let begun = Instant::now();
        let records: Vec<Record> = rows
            .iter()
            .map(|(_, bytes)| Record::from_bytes(bytes).expect("it was written here"))
            .collect();
        decoding += begun.elapsed();
        let begun = Instant::now();
        for record in &records {
            if let Record::Event(event) = record {
                ids.insert(dedup_key(event));
            }
        }
        knowing += begun.elapsed();
    }
    for (what, took) in [
        ("reading the log", reading),
        ("decoding its records", decoding),
        ("knowing repetitions", knowing),
    ] {
        println!(
            "  {what}, by itself: {:>10.0} events/s",
            events as f64 / took.as_secs_f64()
        );
    }
}

async fn start(dir: &Path, events: usize) {
    let flags = Flags {
        mqtt: Some("127.0.0.1:0".to_owned()),
        http: Some("127.0.0.1:0".to_owned()),
        public: None,
        data: Some(dir.display().to_string()),
    };
    let begun = Instant::now();
    let engine = Engine::start(EngineOptions {
        settings: Settings::load(None, &flags).expect("right"),
        places: Places::default(),
        config: None,
        metrics: Arc::new(String::new),
    })
    .await
    .expect("it runs");
    let took = begun.elapsed();
    let (decision, replayed, empty) = engine
        .asker
        .ask(|pipeline| {
            let recovery = &pipeline.recovery;
            let replayed = recovery.replayed_to - recovery.replayed_from;
            let heard = pipeline.perception.zones.all(None, pipeline.perception.places());
            (recovery.decision, replayed, heard.is_empty())
        })
        .await
        .expect("it answers");
    assert_eq!(replayed, events as u64, "all of the log was gone through");
    assert!(!empty, "the zones are known");
    println!(
        "{:>9.0} events/s from the log through the shipped queries until live: {replayed} in {:.2} s ({decision:?})",
        events as f64 / took.as_secs_f64(),
        took.as_secs_f64()
    );
    engine.stop().await.expect("it ends well");
}

fn main() {
    keep_memory();
    usher_connectors::install_crypto_provider();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let events = arguments.iter().find_map(|text| text.parse().ok()).unwrap_or(2_000_000);
    let kinds: Vec<&str> = ["gates", "house"]
        .into_iter()
        .filter(|kind| {
            !arguments.iter().any(|text| text == "gates" || text == "house")
                || arguments.iter().any(|text| text == kind)
        })
        .collect();
    let kept = arguments
        .iter()
        .find(|text| text.parse::<usize>().is_err() && *text != "gates" && *text != "house");
    for kind in kinds {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = kept.map_or_else(|| folder.path().join("data"), |kept| PathBuf::from(kept).join(kind));
        std::fs::create_dir_all(&dir).expect("a folder");
        println!("{kind}, {events} events:");
        write(&dir, events, kind == "house");
        if kept.is_some() {
            println!("  the log is in {}", dir.display());
            continue;
        }
        parts(&dir, events);
        let runtime = usher_engine::runtime::runtime().expect("a runtime");
        runtime.block_on(start(&dir, events));
    }
}
