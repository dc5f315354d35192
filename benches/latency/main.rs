//! From a device's publish to the alert at a subscriber, beside the bare round trip of the same broker in the same run.
//!
//! Every event goes through a window and a join with a reference table and changes an alert's state, so that each is
//! answered by exactly one message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS as WireQoS};
use usher_connectors::client::MqttClient;
use usher_connectors::message::QoS;
use usher_engine::alert::Trace;
use usher_engine::allocator::keep_memory;
use usher_engine::check::load_queries;
use usher_engine::decode::{DecodeOptions, Decoder};
use usher_engine::engine::{Engine, EngineOptions};
use usher_engine::perception::{Perception, PerceptionOptions};
use usher_engine::pseudonym::Secret;
use usher_engine::reference::set_references;
use usher_engine::settings::{Flags, Settings};
use usher_engine::site::Places;
use usher_queries::query_set::QuerySet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RATE: u64 = 1_000;
const DEVICES: u64 = 100;
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];
/// Each device has its own.
const CONNECTIONS: usize = DEVICES as usize;
const SITE: &str = r#"
[[site]]
id = "bench"
[[zone]]
site = "bench"
id = "hall"
capacity = 1000
"#;
const SQL: &str = "
CREATE QUERY inside WITH (emit = 'update') AS
SELECT site, zone, device, window_start, window_end, sum(entered) - sum(exited) AS persons
FROM TUMBLE(gate, event_time, INTERVAL '1 hour')
GROUP BY site, zone, device, window_start, window_end;

CREATE ALERT taken WITH (subject = 'device', raise = 'persons >= 1', clear = 'persons < 1', text = '{device} is taken') AS
SELECT i.site, i.zone, i.device, i.persons, z.capacity
FROM inside i JOIN zones z ON i.site = z.site AND i.zone = z.zone;
";

type Sent = Arc<Mutex<HashMap<String, Instant>>>;
type Times = Arc<Mutex<Histogram<u64>>>;

/// Subscribes, and notes for each message how long ago what `name` finds in it was sent.
async fn listen(
    address: std::net::SocketAddr,
    what: &str,
    filter: &str,
    sent: Sent,
    times: Times,
    name: fn(&str, &[u8]) -> Option<String>,
) {
    let mut options = MqttOptions::new(
        format!("listener-of-{what}"),
        (address.ip().to_string(), address.port()),
    );
    options.set_keep_alive(60);
    // It publishes nothing; the client looks through the whole of this window at each acknowledgement.
    options.set_outgoing_inflight_upper_limit(1);
    let (client, mut events) = AsyncClient::builder(options).capacity(64).build();
    client
        .subscribe(filter, WireQoS::AtLeastOnce)
        .await
        .expect("subscribed");
    let (ready_in, ready) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let _client = client;
        let mut ready_in = Some(ready_in);
        loop {
            let Ok(event) = events.poll().await else { return };
            match event {
                Event::Incoming(Packet::SubAck(_)) => {
                    ready_in.take().map(|ready| ready.send(()));
                }
                Event::Incoming(Packet::Publish(publish)) => {
                    let now = Instant::now();
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    let begun =
                        name(&topic, &publish.payload).and_then(|name| sent.lock().expect("sound").remove(&name));
                    if let Some(begun) = begun {
                        let micros = u64::try_from((now - begun).as_micros()).unwrap_or(u64::MAX);
                        times.lock().expect("sound").saturating_record(micros);
                    }
                }
                _ => {}
            }
        }
    });
    ready.await.expect("subscribed");
}

/// A device's event: its name, topic and payload. Each device tells in turn of one who comes and one who goes.
fn gate(number: u64) -> (String, String, String) {
    let device = format!("g{}", number % DEVICES);
    let (entered, exited) = if (number / DEVICES).is_multiple_of(2) {
        (1, 0)
    } else {
        (0, 1)
    };
    let payload = format!(r#"{{"id":"{number:08}","in":{entered},"out":{exited}}}"#);
    (device.clone(), format!("usher/in/bench/hall/gate/{device}"), payload)
}

/// Publishes at the rate for so long; `what` gives the name to find the answer by, the topic and the payload.
async fn publish(clients: &[MqttClient], sent: &Sent, seconds: u64, what: impl Fn(u64) -> (String, String, String)) {
    let begun = Instant::now();
    let mut tickets = Vec::new();
    for number in 0..RATE * seconds {
        let due = begun + Duration::from_micros(number * 1_000_000 / RATE);
        tokio::time::sleep_until(due.into()).await;
        let (name, topic, payload) = what(number);
        sent.lock().expect("sound").insert(name, Instant::now());
        tickets.push(
            clients[number as usize % clients.len()]
                .publish(topic, payload, QoS::AtLeastOnce, false)
                .await
                .expect("published"),
        );
    }
    for ticket in tickets {
        ticket.await.expect("confirmed");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
}

fn main() {
    keep_memory();
    usher_connectors::install_crypto_provider();
    let runtime = usher_engine::runtime::runtime().expect("a runtime");
    let seconds = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next()
        .unwrap_or(10);
    runtime.block_on(measure(seconds));
}

/// From a decoded event to the decision about alerts, one event at a time, without a broker or a log; with a pause
/// before each, in which a core goes to rest, and without.
fn inside(places: &Arc<Places>, config: &std::path::Path, events: u64, pause: Duration) {
    let settings = Settings::load(Some(config), &Flags::default()).expect("right");
    let mut queries = QuerySet::new();
    set_references(&mut queries, places);
    load_queries(&mut queries, config).expect("right");
    let count = queries.queries().len();
    let mut perception = Perception::new(PerceptionOptions::of(&settings), Arc::clone(places), queries);
    let mut decoder = Decoder::new(DecodeOptions::new(Secret::from_bytes([7; 32])));
    let mut times = histogram();
    for number in 0..events {
        let (_, topic, payload) = gate(number);
        let received_us = 1_772_413_200_000_000 + i64::try_from(number).expect("small") * 1_000;
        let events = decoder.decode(&topic, payload.as_bytes(), received_us).events;
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        let begun = Instant::now();
        let steps = perception.take(&events, &|_| Trace::default());
        if number >= 1_000 {
            times.saturating_record(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        assert_eq!(steps.len(), 1, "each event is answered by one step");
    }
    let name = if pause.is_zero() {
        "at a run"
    } else {
        "one a millisecond"
    };
    print!("{:<43}", format!("inside the engine, {count} queries, {name}"));
    let quantiles = QUANTILES.map(|quantile| times.value_at_quantile(quantile) as f64 / 1_000.0);
    quantiles.iter().for_each(|micros| print!("{micros:>7.1} µs"));
    println!();
}

/// Up to a minute, in whatever unit is finer than that.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

async fn measure(seconds: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config");
    std::fs::create_dir_all(config.join("queries")).expect("a folder");
    std::fs::write(config.join("queries/bench.sql"), SQL).expect("written");
    let places = Places::read(std::path::Path::new("site.toml"), SITE).expect("right");
    let shared = Arc::new(places.clone());
    inside(&shared, &config, 50_000, Duration::ZERO);
    inside(&shared, &config, 5_000, Duration::from_millis(1));
    let flags = Flags {
        mqtt: Some("127.0.0.1:0".to_owned()),
        http: Some("127.0.0.1:0".to_owned()),
        public: None,
        data: Some(folder.path().join("data").display().to_string()),
    };
    let engine = Engine::start(EngineOptions {
        settings: Settings::load(Some(&config), &flags).expect("right"),
        places,
        config: Some(config),
        metrics: Arc::new(String::new),
    })
    .await
    .expect("it runs");
    let address = engine.mqtt_address.expect("an embedded broker");
    let mut clients = Vec::new();
    for number in 0..CONNECTIONS {
        let client = MqttClient::connect(&format!("mqtt://{address}"), &format!("device-{number}")).await;
        clients.push(client.expect("connected"));
    }
    let times = || Arc::new(Mutex::new(histogram()));
    let (bare, alert): (Times, Times) = (times(), times());
    let (bare_sent, alert_sent) = (Sent::default(), Sent::default());
    listen(
        address,
        "echoes",
        "bench/echo/#",
        Arc::clone(&bare_sent),
        Arc::clone(&bare),
        |topic, _| Some(topic.to_owned()),
    )
    .await;
    listen(
        address,
        "alerts",
        "usher/out/bench/alert-event/taken",
        Arc::clone(&alert_sent),
        Arc::clone(&alert),
        |_, payload| {
            let alert: serde_json::Value = serde_json::from_slice(payload).ok()?;
            Some(alert["subject"]["id"].as_str()?.to_owned())
        },
    )
    .await;
    let echo = |number: u64| {
        let topic = format!("bench/echo/g{}", number % DEVICES);
        (topic.clone(), topic, r#"{"id":"00000000","in":1,"out":0}"#.to_owned())
    };
    // Once to warm up, which nobody measures. No number comes twice, or its event would count as known.
    publish(&clients, &bare_sent, 1, echo).await;
    publish(&clients, &alert_sent, 2, |number| gate(1_000_000 + number)).await;
    for times in [&bare, &alert] {
        times.lock().expect("sound").reset();
    }
    publish(&clients, &bare_sent, seconds, echo).await;
    publish(&clients, &alert_sent, 2 * seconds, gate).await;
    publish(&clients, &bare_sent, seconds, echo).await;

    println!("{RATE} messages a second, {} of each kind", 2 * seconds * RATE);
    println!(
        "{:<34}{:>9}{:>10}{:>10}{:>10}{:>11}",
        "", "count", "median", "90 %", "99 %", "99.9 %"
    );
    let line = |name: &str, times: &Times| {
        let times = times.lock().expect("sound");
        print!("{name:<34}{:>9}", times.len());
        let values = QUANTILES.map(|quantile| times.value_at_quantile(quantile));
        values.iter().for_each(|value| print!("{value:>7} µs"));
        println!();
        values
    };
    let bare = line("bare round trip of the broker", &bare);
    let alert = line("publish to alert, window and join", &alert);
    print!("{:<43}", "ratio");
    for (alert, bare) in alert.iter().zip(bare) {
        print!("{:>10.2}", *alert as f64 / bare as f64);
    }
    println!();
    for (stage, taken) in engine.latencies.stages() {
        println!(
            "{:<43}{:>7} µs{:>7} µs{:>7} µs{:>7} µs",
            format!("from receipt until {stage}"),
            taken.p50_us,
            taken.p90_us,
            taken.p99_us,
            taken.p999_us
        );
    }
    let left = alert_sent.lock().expect("sound").len();
    assert_eq!(left, 0, "{left} events were not answered");
    for client in clients {
        client.disconnect().await;
    }
    engine.stop().await.expect("it ends well");
}
