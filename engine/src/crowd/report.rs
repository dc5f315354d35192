//! A report is what a device makes of the acts it notices: messages, each device in its own dialect.

use chrono::{DateTime, NaiveDate, SecondsFormat};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use crate::crowd::act::{Acts, Click, MINUTE, SECOND, SeatState, TagAction, What};
use crate::crowd::house::House;
use crate::crowd::story::Told;
use crate::crowd::{Hours, Place, PlaceDevice, WARM_UP_MS};
use crate::recording::Recorded;

/// How often a gate reports when nobody passes.
const GATE_REPORT_MS: i64 = 5 * MINUTE;

/// How often a seat says its state again.
const SEAT_REPORT_MS: i64 = 10 * MINUTE;

/// How long a gate that sends arrays gathers readings. Real ones gather for minutes; then their readings would come
/// after the others' watermark and miss their windows.
const GATHER_MS: i64 = 1_500;

/// Share of messages with an id that come twice, as QoS 1 may deliver them, and how much later.
const REPEATED_SHARE: f64 = 0.002;
const REPEATED_AFTER_MS: i64 = 2 * SECOND;

/// How a gate puts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Persons, with an id of its own making.
    WithId,
    /// Totals since midnight, when they start from zero.
    Totals,
    /// An array of what passed in a short while.
    Array,
    /// Totals since midnight, and the time as epoch milliseconds.
    TotalsEpoch,
    /// Persons, and the time as epoch milliseconds.
    Epoch,
}

const DIALECTS: [Dialect; 5] = [
    Dialect::WithId,
    Dialect::Totals,
    Dialect::Array,
    Dialect::TotalsEpoch,
    Dialect::Epoch,
];

#[derive(Debug)]
struct Gate {
    dialect: Dialect,
    entered: u64,
    exited: u64,
    sent: u32,
    gathered: Vec<Value>,
    gathered_since: i64,
}

/// A device's clock and line: its times grow, and its messages stay in order.
#[derive(Debug, Clone)]
struct Line {
    topic: String,
    last_ts: i64,
    last_at: i64,
}

/// Makes the messages of a day, in the order of their sending.
pub(super) fn make(
    place: &Place,
    house: &House,
    hours: Hours,
    day: NaiveDate,
    told: &Told,
    dice: &mut ChaCha8Rng,
    mut acts: Acts,
) -> Vec<Recorded> {
    let mut gates_so_far = 0;
    let gates: Vec<Option<Gate>> = place
        .devices
        .iter()
        .enumerate()
        .map(|(at, device)| {
            let is_silent = told.silent.as_ref().is_some_and(|(gate, _)| *gate == at);
            (device.kind == "gate").then(|| {
                gates_so_far += 1;
                // What a silent gate counted meanwhile can only come out in its totals.
                let dialect = if is_silent {
                    Dialect::Totals
                } else {
                    DIALECTS[(gates_so_far - 1) % DIALECTS.len()]
                };
                Gate {
                    dialect,
                    entered: 0,
                    exited: 0,
                    sent: 0,
                    gathered: Vec::new(),
                    gathered_since: 0,
                }
            })
        })
        .collect();
    let begins = hours.opens - WARM_UP_MS;
    let walked =
        |gate: usize| gate == house.street || gate == house.inner || house.rooms.iter().any(|room| room.gate == gate);
    for (number, _) in gates
        .iter()
        .enumerate()
        .filter(|(at, gate)| gate.is_some() && walked(*at))
    {
        // Each at its own second, as devices that were switched on one after the other.
        let mut at = begins + number as i64 * SECOND % WARM_UP_MS;
        while at < hours.closes {
            acts.add(at, What::GateReport { gate: number });
            at += GATE_REPORT_MS;
        }
    }
    for seat in 0..place.seats.len() {
        let mut at = begins + seat as i64 * SECOND / 2 % WARM_UP_MS;
        while at < hours.closes {
            acts.add(at, What::SeatReport { seat });
            at += SEAT_REPORT_MS;
        }
    }

    let line = |zone: &str, kind: &str, device: &str| Line {
        topic: format!("usher/in/{}/{zone}/{kind}/{device}", place.site),
        last_ts: i64::MIN,
        last_at: i64::MIN,
    };
    let mut reporter = Reporter {
        devices: &place.devices,
        hours,
        day,
        told,
        dice,
        gates,
        lines: place
            .devices
            .iter()
            .map(|device| line(&device.zone, &device.kind, &device.id))
            .collect(),
        seat_lines: place
            .seats
            .iter()
            .map(|seat| line(&seat.zone, "seat", &seat.id))
            .collect(),
        seats: vec![SeatState::Free; place.seats.len()],
        messages: Vec::new(),
    };
    for (at, what) in acts.sorted() {
        reporter.report(at, what);
    }
    for gate in 0..place.devices.len() {
        reporter.send_gathered(gate, i64::MAX);
    }
    let mut messages = reporter.messages;
    messages.sort_by_key(|message| message.at_us);
    messages
}

struct Reporter<'a> {
    devices: &'a [PlaceDevice],
    hours: Hours,
    day: NaiveDate,
    told: &'a Told,
    dice: &'a mut ChaCha8Rng,
    gates: Vec<Option<Gate>>,
    lines: Vec<Line>,
    seat_lines: Vec<Line>,
    seats: Vec<SeatState>,
    messages: Vec<Recorded>,
}

impl Reporter<'_> {
    fn report(&mut self, at: i64, what: What) {
        match what {
            What::Entered { gate } => self.gate(gate, at, 1, 0),
            What::Exited { gate } => self.gate(gate, at, 0, 1),
            What::GateReport { gate } => self.gate(gate, at, 0, 0),
            What::Seat { seat, state } => {
                self.seats[seat] = state;
                self.seat(seat, at);
            }
            What::SeatReport { seat } => self.seat(seat, at),
            What::Tag {
                reader,
                tag,
                antenna,
                action,
            } => {
                let mut payload = Map::new();
                payload.insert("tag".to_owned(), format!("E280116060{:014X}", tag.0).into());
                payload.insert("antenna".to_owned(), antenna.into());
                payload.insert(
                    "rssi_dbm".to_owned(),
                    (f64::from(self.dice.random_range(-680..-440)) / 10.0).into(),
                );
                let action = match action {
                    TagAction::Read => "read",
                    TagAction::Checkin => "checkin",
                    TagAction::Checkout(card) => {
                        payload.insert("person".to_owned(), card_name(card.0).into());
                        "checkout"
                    }
                };
                payload.insert("action".to_owned(), action.into());
                self.device(reader, at, reader % 2 == 1, payload);
            }
            What::Click { terminal, click } => {
                let payload = self.click(click);
                self.device(terminal, at, false, payload);
            }
        }
    }

    fn gate(&mut self, number: usize, at: i64, entered: u64, exited: u64) {
        let ts = self.lines[number].tick(at);
        let Some(gate) = &mut self.gates[number] else {
            return;
        };
        gate.entered += entered;
        gate.exited += exited;
        if let Some((silent, when)) = &self.told.silent
            && *silent == number
            && when.contains(&at)
        {
            return;
        }
        gate.sent += 1;
        let mut payload = Map::new();
        match gate.dialect {
            Dialect::Totals | Dialect::TotalsEpoch => {
                payload.insert("total_in".to_owned(), gate.entered.into());
                payload.insert("total_out".to_owned(), gate.exited.into());
            }
            Dialect::WithId | Dialect::Array | Dialect::Epoch => {
                payload.insert("in".to_owned(), entered.into());
                payload.insert("out".to_owned(), exited.into());
            }
        }
        let is_epoch = matches!(gate.dialect, Dialect::TotalsEpoch | Dialect::Epoch);
        match gate.dialect {
            Dialect::Array => {
                payload.insert("ts".to_owned(), stamp(ts, self.hours, is_epoch));
                self.send_gathered(number, ts);
                if let Some(gate) = &mut self.gates[number] {
                    if gate.gathered.is_empty() {
                        gate.gathered_since = ts;
                    }
                    gate.gathered.push(Value::Object(payload));
                }
            }
            Dialect::WithId => {
                let id = format!(
                    "{}-{}-{:05}",
                    self.devices[number].id,
                    self.day.format("%Y%m%d"),
                    gate.sent
                );
                payload.insert("id".to_owned(), id.into());
                payload.insert("ts".to_owned(), stamp(ts, self.hours, is_epoch));
                let delay = self.dice.random_range(20..300);
                let repeated = self.dice.random_bool(REPEATED_SHARE);
                let line = &mut self.lines[number];
                line.send(ts + delay, &payload.into(), &mut self.messages);
                if repeated {
                    // Out of the line's order: that is what a repetition is.
                    let mut again = self.messages.last().expect("just sent").clone();
                    again.at_us += REPEATED_AFTER_MS * 1_000;
                    self.messages.push(again);
                }
            }
            Dialect::Totals | Dialect::TotalsEpoch | Dialect::Epoch => {
                payload.insert("ts".to_owned(), stamp(ts, self.hours, is_epoch));
                let delay = self.dice.random_range(20..300);
                self.lines[number].send(ts + delay, &payload.into(), &mut self.messages);
            }
        }
    }

    /// Sends what a gate has gathered, if it began to long enough before `now`.
    fn send_gathered(&mut self, number: usize, now: i64) {
        if let Some(gate) = &mut self.gates[number]
            && !gate.gathered.is_empty()
            && now.saturating_sub(gate.gathered_since) >= GATHER_MS
        {
            let readings = std::mem::take(&mut gate.gathered);
            self.lines[number].send(gate.gathered_since + GATHER_MS, &readings.into(), &mut self.messages);
        }
    }

    fn seat(&mut self, seat: usize, at: i64) {
        let state = match self.seats[seat] {
            SeatState::Occupied => "occupied",
            SeatState::Free => "free",
            SeatState::Away => "away",
        };
        let line = &mut self.seat_lines[seat];
        let ts = line.tick(at);
        let payload = json!({ "ts": stamp(ts, self.hours, seat % 3 == 2), "state": state });
        line.send(ts + self.dice.random_range(50..600), &payload, &mut self.messages);
    }

    fn click(&mut self, click: Click) -> Map<String, Value> {
        let mut payload = Map::new();
        payload.insert("action".to_owned(), click.action.into());
        payload.insert(
            "session".to_owned(),
            format!("s-{}-{}", self.day.format("%Y%m%d"), click.session).into(),
        );
        if let Some(card) = click.card {
            payload.insert("person".to_owned(), card_name(card.0).into());
        }
        if let Some((query, results)) = click.search {
            payload.insert("query".to_owned(), query.into());
            payload.insert("results".to_owned(), results.into());
            payload.insert("page".to_owned(), "/search".into());
        }
        if let Some(item) = click.item {
            payload.insert("item".to_owned(), format!("b{item:07}").into());
            payload.insert("page".to_owned(), format!("/record/b{item:07}").into());
        }
        payload
    }

    fn device(&mut self, number: usize, at: i64, is_epoch: bool, mut payload: Map<String, Value>) {
        let line = &mut self.lines[number];
        let ts = line.tick(at);
        payload.insert("ts".to_owned(), stamp(ts, self.hours, is_epoch));
        line.send(
            ts + self.dice.random_range(10..120),
            &payload.into(),
            &mut self.messages,
        );
    }
}

impl Line {
    /// The device's time of an act: later than that of the one before, as two readings of one device at one time with
    /// one content would be the same event.
    fn tick(&mut self, at: i64) -> i64 {
        self.last_ts = at.max(self.last_ts.saturating_add(1));
        self.last_ts
    }

    fn send(&mut self, at: i64, payload: &Value, messages: &mut Vec<Recorded>) {
        self.last_at = at.max(self.last_at.saturating_add(1));
        messages.push(Recorded {
            at_us: self.last_at * 1_000,
            topic: self.topic.clone(),
            payload: payload.to_string().into_bytes(),
        });
    }
}

fn stamp(ts: i64, hours: Hours, is_epoch: bool) -> Value {
    match DateTime::from_timestamp_millis(ts) {
        Some(instant) if !is_epoch => instant
            .with_timezone(&hours.zone)
            .to_rfc3339_opts(SecondsFormat::Millis, true)
            .into(),
        _ => ts.into(),
    }
}

fn card_name(number: u32) -> String {
    format!("card-{number}")
}
