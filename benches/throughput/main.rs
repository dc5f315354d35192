//! Events a second from MQTT QoS 1 through the durable log to the shipped queries, with 64 publishing connections and
//! with one.
//!
//! The publishers speak just enough MQTT by themselves to cost little beside the engine, which shares the cores with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use usher_engine::allocator::keep_memory;
use usher_engine::engine::{Engine, EngineOptions};
use usher_engine::settings::{Flags, Settings};
use usher_engine::site::Places;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Publications one connection has under way; devices behind a gateway have as many.
const WINDOW: u16 = 100;

fn string(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).expect("short").to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// A packet: first byte, remaining length below 16,384, body.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes = vec![first];
    if length < 128 {
        bytes.push(length as u8);
    } else {
        bytes.extend([(length % 128) as u8 | 128, (length / 128) as u8]);
    }
    bytes.extend(body);
    bytes
}

/// Publishes as fast as the window lets it, until `stop`, then waits for the last acknowledgement.
async fn device(address: std::net::SocketAddr, number: usize, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicU64>) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    let mut connect = string("MQTT");
    // Version 5, clean start, keep alive 60 s, no properties.
    connect.extend([5, 2, 0, 60, 0]);
    connect.extend(string(&format!("device-{number}")));
    stream.write_all(&packet(0x10, &connect)).await.expect("sent");
    let mut buffer = vec![0_u8; 16 * 1024];
    let connected = stream.read(&mut buffer).await.expect("answered");
    assert!(
        connected >= 4 && buffer[0] == 0x20 && buffer[3] == 0,
        "the broker takes the connection"
    );
    let topic = string(&format!("usher/in/bench/zone-{}/gate/gate-{number}", number % 16));
    let (mut sent, mut answered) = (0_u64, 0_u64);
    let mut out = Vec::with_capacity(64 * 1024);
    let mut held = 0;
    loop {
        out.clear();
        while !stop.load(Ordering::Relaxed) && sent - answered < u64::from(WINDOW) {
            sent += 1;
            let id = u16::try_from(sent % 65_000 + 1).expect("small");
            let mut body = topic.clone();
            body.extend(id.to_be_bytes());
            body.push(0);
            body.extend(format!(r#"{{"id":"{number}-{sent}","in":1,"out":1}}"#).as_bytes());
            out.extend(packet(0x32, &body));
        }
        if !out.is_empty() {
            stream.write_all(&out).await.expect("sent");
        }
        if sent == answered {
            return;
        }
        let read = stream.read(&mut buffer[held..]).await.expect("answered");
        assert!(read > 0, "the broker stays");
        held += read;
        let mut at = 0;
        while held - at >= 2 && held - at >= 2 + usize::from(buffer[at + 1]) {
            assert_eq!(buffer[at], 0x40, "nothing but acknowledgements comes");
            let length = usize::from(buffer[at + 1]);
            assert!(length == 2 || buffer[at + 4] < 0x80, "the broker took it");
            at += 2 + length;
            answered += 1;
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        buffer.copy_within(at..held, 0);
        held -= at;
    }
}

async fn measure(connections: usize, seconds: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = Flags {
        mqtt: Some("127.0.0.1:0".to_owned()),
        http: Some("127.0.0.1:0".to_owned()),
        public: None,
        data: Some(folder.path().join("data").display().to_string()),
    };
    let engine = Engine::start(EngineOptions {
        settings: Settings::load(None, &flags).expect("right"),
        places: Places::default(),
        config: None,
        metrics: Arc::new(String::new),
    })
    .await
    .expect("it runs");
    let address = engine.mqtt_address.expect("an embedded broker");
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let devices: Vec<_> = (0..connections)
        .map(|number| tokio::spawn(device(address, number, Arc::clone(&stop), Arc::clone(&acknowledged))))
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (begun, before) = (Instant::now(), acknowledged.load(Ordering::Relaxed));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (took, after) = (begun.elapsed(), acknowledged.load(Ordering::Relaxed));
    stop.store(true, Ordering::Relaxed);
    for device in devices {
        device.await.expect("it ends well");
    }
    let all = acknowledged.load(Ordering::Relaxed);
    let (events, entered) = engine
        .asker
        .ask(|pipeline| {
            let counted = pipeline.perception.zones.all(None, pipeline.perception.places());
            let entered = counted.iter().filter_map(|zone| zone.persons).sum::<i64>();
            (pipeline.counts.events, entered)
        })
        .await
        .expect("it answers");
    assert_eq!(events, all, "every acknowledged event went through the queries");
    assert_eq!(entered, 0, "as many came as went");
    println!(
        "{connections:>4} connections: {:>8.0} events/s acknowledged, durable and counted ({all} in all)",
        (after - before) as f64 / took.as_secs_f64()
    );
    engine.stop().await.expect("it ends well");
}

fn main() {
    keep_memory();
    usher_connectors::install_crypto_provider();
    let runtime = usher_engine::runtime::runtime().expect("a runtime");
    let seconds = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next()
        .unwrap_or(10);
    for connections in [64, 1] {
        runtime.block_on(measure(connections, seconds));
    }
}
