//! A house under load: devices that keep a steady rate, and a few events whose alerts are known beforehand.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::device::Device;

/// Connections that share the load.
const CONNECTIONS: u64 = 64;
/// People who click. All of them are known after some seconds.
const PEOPLE: u64 = 10_000;
/// Rooms that fill and empty, one after the other.
pub(crate) const ROOMS: u64 = 40;
/// A room is full for so long: ten seconds until the alert, and the watermark may be as late again.
const FULL: Duration = Duration::from_secs(40);
/// From one crowd to the next in the same room: longer than full and cooling down take.
const ROUND: Duration = Duration::from_secs(400);
/// Items that leave; each is back, and has cooled down, before its turn comes again.
const ITEMS: u64 = 200;
const ITEM_EVERY: Duration = Duration::from_secs(1);
const ITEM_BACK: Duration = Duration::from_secs(5);
/// A new reader who finds nothing.
const READER_EVERY: Duration = Duration::from_secs(10);
/// The latest moment before the end at which an alert is still caused.
const LAST_CAUSE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(10);

/// As it comes, but what is found of seats that were left: a join keeps what each seat says for an hour and a half, and a load
/// in which each changes sixty times a second would be kept for as long before anything goes. So it is warm in some minutes.
pub(crate) const SETTINGS: &str =
    "[parameters.left_seats]\nleft_for = \"1 minute\"\n[parameters.offer_left_seat]\nwithin = \"2 minutes\"\n";

/// The place.
pub(crate) fn site() -> String {
    let mut site = "[[site]]\nid = \"soak\"\ntime_zone = \"UTC\"\n".to_owned();
    site.push_str("[[zone]]\nsite = \"soak\"\nid = \"hall\"\n");
    for room in 0..ROOMS {
        site.push_str(&format!(
            "[[zone]]\nsite = \"soak\"\nid = \"room-{room}\"\ncapacity = 10\n"
        ));
    }
    site.push_str("[[device]]\nsite = \"soak\"\nzone = \"hall\"\nid = \"exit\"\nkind = \"rfid\"\nrole = \"exit\"\n");
    site
}

/// What the generator did.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) sent: AtomicU64,
    pub(crate) answered: AtomicU64,
    /// Alerts that have to come, by rule and how often. Of persons nobody here knows the pseudonym.
    pub(crate) expected: Mutex<BTreeMap<(String, String), u64>>,
}

impl Done {
    fn expect(&self, rule: &str, subject: String) {
        let mut expected = self.expected.lock().expect("no holder of this lock panics");
        *expected.entry((rule.to_owned(), subject)).or_default() += 1;
    }
}

/// Keeps `rate` events a second until `stop`, and waits until all are acknowledged.
pub(crate) async fn load(
    address: std::net::SocketAddr,
    rate: f64,
    stop: &Arc<AtomicBool>,
    done: &Arc<Done>,
) -> std::io::Result<()> {
    let mut devices = Vec::new();
    for number in 0..CONNECTIONS {
        let device = Device::connect(address, &format!("load-{number}")).await?;
        let (stop, done) = (Arc::clone(stop), Arc::clone(done));
        devices.push(tokio::spawn(keep_rate(
            device,
            number,
            rate / CONNECTIONS as f64,
            stop,
            done,
        )));
    }
    for device in devices {
        device.await??;
    }
    Ok(())
}

async fn keep_rate(
    mut device: Device,
    number: u64,
    rate: f64,
    stop: Arc<AtomicBool>,
    done: Arc<Done>,
) -> std::io::Result<()> {
    let begun = Instant::now();
    let mut tick = tokio::time::interval(TICK);
    let topics = [
        format!("usher/in/soak/zone-{}/gate/gate-{number}", number % 16),
        format!("usher/in/soak/zone-{}/seat/seat-{number}", number % 16),
        format!("usher/in/soak/hall/click/web-{number}"),
        format!("usher/in/soak/hall/rfid/shelf-{number}"),
    ];
    let (mut counted, mut told) = (0, 0);
    let mut is_stopping = false;
    loop {
        tick.tick().await;
        if !is_stopping {
            let due = (begun.elapsed().as_secs_f64() * rate) as u64;
            let now = epoch_ms();
            for _ in 0..due.saturating_sub(device.sent()).min(device.room()) {
                let n = device.sent();
                let (topic, rest) = match n % 20 {
                    0..12 => (0, r#""in":1,"out":1"#.to_owned()),
                    12..15 => (
                        1,
                        format!(r#""state":"{}""#, if n % 40 < 20 { "occupied" } else { "free" }),
                    ),
                    15..19 => {
                        let person = (n * 64 + number).wrapping_mul(2_654_435_761) % PEOPLE;
                        (
                            2,
                            format!(r#""person":"reader {person}","action":"search","query":"tea","results":7"#),
                        )
                    }
                    _ => (3, format!(r#""action":"read","tag":"E28-{}""#, n % 2_000)),
                };
                device.put(&topics[topic], &format!(r#"{{"id":"{n}","ts":{now},{rest}}}"#));
            }
            device.flush().await?;
        }
        done.sent.fetch_add(device.sent() - told, Ordering::Relaxed);
        told = device.sent();
        // Asked once: what is acknowledged between two questions would be counted by none.
        let answered = device.answered();
        done.answered.fetch_add(answered - counted, Ordering::Relaxed);
        counted = answered;
        is_stopping = stop.load(Ordering::Relaxed);
        if is_stopping && counted == told {
            return Ok(());
        }
    }
}

/// Causes alerts that are known beforehand, until so long has passed.
pub(crate) async fn cause_alerts(
    address: std::net::SocketAddr,
    length: Duration,
    done: &Arc<Done>,
) -> std::io::Result<()> {
    let mut device = Device::connect(address, "causes").await?;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let begun = Instant::now();
    let last = length.saturating_sub(LAST_CAUSE);
    let mut empty_at: BTreeMap<u64, Duration> = BTreeMap::new();
    let mut back_at: BTreeMap<u64, Duration> = BTreeMap::new();
    let mut next_room: Vec<Duration> = (0..ROOMS).map(|room| ROUND * room as u32 / ROOMS as u32).collect();
    let (mut items, mut readers, mut id) = (0, 0, 0_u64);
    while begun.elapsed() < length {
        tick.tick().await;
        let (passed, now) = (begun.elapsed(), epoch_ms());
        let mut say = |topic: &str, rest: &str| {
            id += 1;
            device.put(
                &format!("usher/in/soak/{topic}"),
                &format!(r#"{{"id":"c{id}","ts":{now},{rest}}}"#),
            );
        };
        for room in 0..ROOMS {
            if passed >= next_room[room as usize] && passed < last {
                next_room[room as usize] += ROUND;
                empty_at.insert(room, passed + FULL);
                say(&format!("room-{room}/gate/door-{room}"), r#""in":10"#);
                done.expect("zone_crowded", format!("room-{room}"));
            }
            if empty_at.get(&room).is_some_and(|at| passed >= *at) {
                empty_at.remove(&room);
                say(&format!("room-{room}/gate/door-{room}"), r#""out":10"#);
            }
        }
        if passed >= ITEM_EVERY * items as u32 && passed < last {
            let item = items % ITEMS;
            items += 1;
            say("hall/rfid/exit", &format!(r#""action":"read","tag":"LEFT-{item}""#));
            back_at.insert(item, passed + ITEM_BACK);
            done.expect("item_left_unborrowed", format!("LEFT-{item}"));
        }
        let back: Vec<u64> = back_at
            .iter()
            .filter(|(_, at)| passed >= **at)
            .map(|(item, _)| *item)
            .collect();
        for item in back {
            back_at.remove(&item);
            say("hall/rfid/desk", &format!(r#""action":"checkin","tag":"LEFT-{item}""#));
        }
        if passed >= READER_EVERY * readers as u32 && passed < last {
            for _ in 0..3 {
                let search = r#""action":"search","query":"nothing","results":0"#;
                say("hall/click/opac", &format!(r#""person":"lost {readers}",{search}"#));
            }
            readers += 1;
            done.expect("search_needs_help", String::new());
        }
        device.flush().await?;
    }
    while device.answered() < device.sent() {
        tick.tick().await;
    }
    done.sent.fetch_add(device.sent(), Ordering::Relaxed);
    done.answered.fetch_add(device.answered(), Ordering::Relaxed);
    Ok(())
}

fn epoch_ms() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis()
}
