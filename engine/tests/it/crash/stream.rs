//! A stream is what the devices of a small library publish, drawn from a seed, and what it must come to.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// The first moment, epoch milliseconds: 2026-03-02T09:00 in Shanghai.
const BEGINS_MS: i64 = 1_772_413_200_000;
/// How far a message may come out of order; the watermark waits two seconds longer.
const LATE_MS: i64 = 3_000;
/// From the last event to the closing round: windows end, and what is pending is raised.
const CLOSING_MS: i64 = 150_000;

/// One message on its way in, and how long its device pauses after it.
pub(crate) struct Published {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) pause: Duration,
}

/// What devices publish, in order.
pub(crate) struct Stream {
    pub(crate) messages: Vec<Published>,
    /// Different events among them, by kind.
    pub(crate) events: BTreeMap<&'static str, u64>,
    /// How many people are in each zone at the end.
    pub(crate) persons: BTreeMap<&'static str, i64>,
}

/// A zone that is entered once, by the last event of all.
pub(crate) const END: &str = "end";

#[derive(Clone, Copy)]
enum Device {
    /// Says how many passed.
    Door(&'static str, &'static str),
    /// Says how many have passed since it was mounted.
    Counter(&'static str, &'static str),
    Seat(&'static str),
    Web,
    Desk,
    Exit,
}

const DEVICES: [Device; 8] = [
    Device::Door("hall", "door-1"),
    Device::Door("reading-room", "door-2"),
    Device::Counter("stacks", "counter-1"),
    Device::Seat("rr-001"),
    Device::Seat("rr-002"),
    Device::Web,
    Device::Desk,
    Device::Exit,
];

impl Device {
    fn topic(self) -> String {
        match self {
            Device::Door(zone, device) | Device::Counter(zone, device) => format!("usher/in/main/{zone}/gate/{device}"),
            Device::Seat(seat) => format!("usher/in/main/reading-room/seat/{seat}"),
            Device::Web => "usher/in/main/hall/click/web-1".to_owned(),
            Device::Desk => "usher/in/main/hall/rfid/desk-1".to_owned(),
            Device::Exit => "usher/in/main/hall/rfid/exit-1".to_owned(),
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Device::Door(..) | Device::Counter(..) => "gate",
            Device::Seat(_) => "seat",
            Device::Web => "click",
            Device::Desk | Device::Exit => "rfid",
        }
    }
}

struct Drawing {
    dice: ChaCha8Rng,
    stream: Stream,
    totals: (i64, i64),
    is_counting: bool,
    /// The time of the counter's last reading.
    counted_ms: i64,
    ids: u64,
}

impl Stream {
    /// Draws one of about so many messages. Devices pause up to `pause_max` after each.
    pub(crate) fn draw(seed: u64, messages: usize, pause_max: Duration) -> Self {
        let mut drawing = Drawing {
            dice: ChaCha8Rng::seed_from_u64(seed),
            stream: Stream {
                messages: Vec::new(),
                events: BTreeMap::new(),
                persons: BTreeMap::new(),
            },
            totals: (1_200, 1_100),
            is_counting: false,
            counted_ms: 0,
            ids: 0,
        };
        drawing.draw(messages, pause_max);
        drawing.stream
    }
}

impl Drawing {
    fn draw(&mut self, messages: usize, pause_max: Duration) {
        let mut now = BEGINS_MS;
        for number in 0..messages {
            now += self.dice.random_range(500..7_000);
            // First each once, so that all of them have a say in the watermark; then as it comes.
            let device = match DEVICES.get(number) {
                Some(device) => *device,
                None => DEVICES[self.dice.random_range(0..DEVICES.len())],
            };
            let pause = self.dice.random_range(Duration::ZERO..=pause_max);
            match self.dice.random_range(0..100) {
                0..8 => self.garbage(device, pause),
                8..18 if number > 0 => self.again(pause),
                18..24 => self.several(device, now, pause),
                _ => {
                    let event = self.event(device, now, LATE_MS);
                    self.publish(device.topic(), event.to_string(), pause);
                }
            }
        }
        now += CLOSING_MS;
        for device in DEVICES {
            let event = self.event(device, now, 0);
            self.publish(device.topic(), event.to_string(), Duration::ZERO);
        }
        self.count("gate");
        self.stream.persons.insert(END, 1);
        let end = json!({"id": "the end", "ts": now, "in": 1}).to_string();
        self.publish(format!("usher/in/main/{END}/gate/last"), end, Duration::ZERO);
    }

    fn publish(&mut self, topic: String, payload: String, pause: Duration) {
        self.stream.messages.push(Published { topic, payload, pause });
    }

    fn count(&mut self, kind: &'static str) {
        *self.stream.events.entry(kind).or_default() += 1;
    }

    /// What can't be read.
    fn garbage(&mut self, device: Device, pause: Duration) {
        let payload = match self.dice.random_range(0..5) {
            0 => "not JSON".to_owned(),
            1 => String::new(),
            2 => r#"{"in":"many","state":7,"action":[]}"#.to_owned(),
            3 => r#"{"ts":"yesterday","in":1,"state":"free","action":"read","tag":"E1"}"#.to_owned(),
            _ => "[[1,2],3]".to_owned(),
        };
        self.publish(device.topic(), payload, pause);
    }

    /// A message that came before comes again, as after a lost acknowledgement.
    fn again(&mut self, pause: Duration) {
        let earlier = self.stream.messages.len();
        if earlier == 0 {
            return;
        }
        let one = &self.stream.messages[self.dice.random_range(earlier.saturating_sub(20)..earlier)];
        let (topic, payload) = (one.topic.clone(), one.payload.clone());
        self.publish(topic, payload, pause);
    }

    /// Several events in one message, as a gateway sends them; now and then one of them can't be read.
    fn several(&mut self, device: Device, now: i64, pause: Duration) {
        let mut events = Vec::new();
        for _ in 0..self.dice.random_range(2..4) {
            events.push(self.event(device, now, LATE_MS));
        }
        if self.dice.random_range(0..4) == 0 {
            events.push(json!({"ts": now, "in": -1, "state": "gone", "action": 7}));
        }
        self.publish(device.topic(), Value::from(events).to_string(), pause);
    }

    /// Something that happens at a device, up to `late` milliseconds before `now`.
    fn event(&mut self, device: Device, now: i64, late: i64) -> Value {
        self.count(device.kind());
        self.ids += 1;
        let is_late = late > 0 && self.dice.random_range(0..6) == 0;
        let ts = if is_late {
            now - self.dice.random_range(0..late)
        } else {
            now
        };
        let id = format!("e{}", self.ids);
        match device {
            Device::Door(zone, _) => {
                let (entered, exited) = self.passage(zone);
                json!({"id": id, "ts": ts, "in": entered, "out": exited})
            }
            Device::Counter(zone, _) => {
                if self.is_counting {
                    let (entered, exited) = self.passage(zone);
                    self.totals = (self.totals.0 + entered, self.totals.1 + exited);
                }
                // Its first reading is where it counts from. It keeps its order, and has no ids: its time tells its
                // readings apart, also within one message.
                self.is_counting = true;
                self.stream.persons.entry(zone).or_default();
                self.counted_ms = now.max(self.counted_ms + 1);
                json!({"ts": self.counted_ms, "total_in": self.totals.0, "total_out": self.totals.1})
            }
            Device::Seat(_) => {
                let state = ["occupied", "free", "away", "away"][self.dice.random_range(0..4)];
                json!({"id": id, "ts": ts, "state": state})
            }
            Device::Web => {
                let person = ["Ada", "Bo", "Chen"][self.dice.random_range(0..3)];
                let results = [0, 0, 0, 12][self.dice.random_range(0..4)];
                json!({"id": id, "ts": ts, "person": person, "action": "search", "query": "tea", "results": results})
            }
            Device::Desk => {
                let action = ["checkout", "checkin", "read"][self.dice.random_range(0..3)];
                json!({"id": id, "ts": ts, "tag": self.tag(), "action": action, "person": "Ada"})
            }
            Device::Exit => json!({"id": id, "ts": ts, "tag": self.tag(), "action": "read"}),
        }
    }

    fn tag(&mut self) -> String {
        format!("E28{}", self.dice.random_range(0..4))
    }

    /// Some come, and never more go than are there.
    fn passage(&mut self, zone: &'static str) -> (i64, i64) {
        let persons = self.stream.persons.entry(zone).or_default();
        let entered = self.dice.random_range(0..=4);
        let exited = self.dice.random_range(0..=3).min(*persons + entered);
        *persons += entered - exited;
        (entered, exited)
    }
}
