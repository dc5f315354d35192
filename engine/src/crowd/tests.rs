//! A day of the demo's library, looked at from outside: by its messages only.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Timelike};
use serde_json::Value;

use super::*;

const MINUTE_US: i64 = 60_000_000;

/// The demo's library as its file describes it.
fn place() -> Place {
    let file: toml::Table = toml::from_str(include_str!("../../../config/demo/site.toml")).expect("TOML");
    let list = |name: &str| file[name].as_array().expect("a list").clone();
    let text = |of: &toml::Value, key: &str| of.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    let id = |of: &toml::Value, key: &str| text(of, key).expect("a text");
    let time = |hour| NaiveTime::from_hms_opt(hour, 0, 0).expect("a time");
    let late = NaiveTime::from_hms_opt(22, 30, 0).expect("a time");
    let mut hours = [Some((time(8), late)); 7];
    hours[5] = Some((time(9), time(21)));
    hours[6] = None;
    let zone = |zone: &toml::Value| PlaceZone {
        id: id(zone, "id"),
        capacity: zone["capacity"].as_integer().expect("a number") as u32,
        parent: text(zone, "parent"),
        role: text(zone, "role"),
    };
    let device = |device: &toml::Value| PlaceDevice {
        zone: id(device, "zone"),
        id: id(device, "id"),
        kind: id(device, "kind"),
        role: text(device, "role"),
    };
    Place {
        site: "main".to_owned(),
        time_zone: Tz::Asia__Shanghai,
        hours,
        zones: list("zone").iter().map(zone).collect(),
        seats: list("seat")
            .iter()
            .map(|seat| PlaceSeat {
                zone: id(seat, "zone"),
                id: id(seat, "id"),
            })
            .collect(),
        devices: list("device").iter().map(device).collect(),
    }
}

fn day(day: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 3, day).expect("a date")
}

fn messages(seed: u64, day: NaiveDate) -> Vec<Recorded> {
    Crowd::new(seed, &DayFigures::shipped(), &place(), day)
        .expect("a crowd")
        .collect()
}

/// One reading as a receiver sees it.
struct Reading {
    us: i64,
    zone: String,
    kind: String,
    device: String,
    payload: Value,
}

/// The readings of a day, each once.
fn readings(messages: &[Recorded]) -> Vec<Reading> {
    let mut seen = HashSet::new();
    let mut readings = Vec::new();
    for message in messages {
        let levels: Vec<&str> = message.topic.split('/').collect();
        assert_eq!((levels.len(), levels[..3].join("/")), (6, "usher/in/main".to_owned()));
        let payload: Value = serde_json::from_slice(&message.payload).expect("JSON");
        for payload in payload.as_array().cloned().unwrap_or_else(|| vec![payload.clone()]) {
            let us = match &payload["ts"] {
                Value::String(ts) => DateTime::parse_from_rfc3339(ts).expect("RFC 3339").timestamp_micros(),
                ts => ts.as_i64().expect("epoch milliseconds") * 1_000,
            };
            assert!(
                us <= message.at_us && message.at_us - us <= 4_000_000,
                "sent soon after it happened"
            );
            let identity = payload.get("id").map_or_else(|| payload.to_string(), Value::to_string);
            if seen.insert((message.topic.clone(), identity)) {
                let [zone, kind, device] = [3, 4, 5].map(|level: usize| levels[level].to_owned());
                readings.push(Reading {
                    us,
                    zone,
                    kind,
                    device,
                    payload,
                });
            }
        }
    }
    readings
}

fn of_kind<'r>(readings: &'r [Reading], kind: &'r str) -> impl Iterator<Item = &'r Reading> {
    readings.iter().filter(move |reading| reading.kind == kind)
}

/// Persons passing a gate with each of its readings; totals are told apart from the reading before.
fn passages(readings: &[Reading]) -> Vec<(&Reading, i64, i64)> {
    let mut totals: HashMap<&str, (i64, i64)> = HashMap::new();
    of_kind(readings, "gate")
        .map(|reading| {
            let number = |member: &str| reading.payload[member].as_i64().expect("a number of persons");
            if reading.payload.get("total_in").is_none() {
                return (reading, number("in"), number("out"));
            }
            let now = (number("total_in"), number("total_out"));
            let before = totals.insert(&reading.device, now).unwrap_or(now);
            assert!(now.0 >= before.0 && now.1 >= before.1, "totals never fall within a day");
            (reading, now.0 - before.0, now.1 - before.1)
        })
        .collect()
}

fn text<'r>(reading: &'r Reading, member: &str) -> &'r str {
    reading.payload[member].as_str().unwrap_or_default()
}

/// Minutes after opening, at 08:00 on a weekday.
fn minute(reading: &Reading) -> i64 {
    let opens = day(2)
        .and_hms_opt(0, 0, 0)
        .expect("a time")
        .and_utc()
        .timestamp_micros();
    (reading.us - opens).div_euclid(MINUTE_US)
}

#[test]
fn the_same_seed_gives_the_same_messages() {
    let one = messages(7, day(2));
    assert_eq!(one, messages(7, day(2)));
    assert_ne!(one, messages(8, day(2)));
    assert_ne!(one.len(), messages(7, day(3)).len());
    assert!((20_000..=60_000).contains(&one.len()), "{} messages", one.len());
    assert!(one.windows(2).all(|pair| pair[0].at_us <= pair[1].at_us));
}

#[test]
fn a_closed_day_is_silent() {
    assert!(messages(7, day(8)).is_empty());
}

#[test]
fn a_place_without_a_way_in_says_so() {
    let mut shut = place();
    shut.devices.clear();
    let error = Crowd::new(7, &DayFigures::shipped(), &shut, day(2)).expect_err("no way in");
    assert_eq!(
        error,
        CrowdError::NoEntrance {
            site: "main".to_owned()
        }
    );
}

#[test]
fn nobody_is_fewer_than_none_and_everyone_has_left_by_closing() {
    for (seed, day) in [(1, day(2)), (2, day(5)), (3, day(7))] {
        let messages = messages(seed, day);
        let readings = readings(&messages);
        let mut persons: BTreeMap<&str, i64> = BTreeMap::new();
        let mut peak = 0;
        for (reading, entered, exited) in passages(&readings) {
            let zone = persons.entry(&reading.zone).or_default();
            *zone += entered - exited;
            assert!(*zone >= 0, "{} in {}", *zone, reading.zone);
            peak = peak.max(persons.values().sum());
        }
        assert!(persons.values().all(|persons| *persons == 0), "{persons:?}");
        assert!((100..400).contains(&peak), "{peak} persons at most");
        let last = DateTime::from_timestamp_micros(messages.last().expect("messages").at_us).expect("a time");
        let closes = if day == self::day(7) { (20, 59) } else { (22, 29) };
        let local = last.with_timezone(&Tz::Asia__Shanghai);
        assert_eq!((local.hour(), local.minute()), closes);
        let mut seats = HashMap::new();
        seats.extend(of_kind(&readings, "seat").map(|seat| (&seat.device, text(seat, "state"))));
        assert_eq!(seats.len(), 60);
        assert!(seats.values().all(|state| *state == "free"));
    }
}

#[test]
fn every_message_is_one_of_the_contract() {
    let known: HashSet<String> = {
        let place = place();
        let devices = place
            .devices
            .iter()
            .map(|device| format!("{}/{}/{}", device.zone, device.kind, device.id));
        devices
            .chain(place.seats.iter().map(|seat| format!("{}/seat/{}", seat.zone, seat.id)))
            .collect()
    };
    let readings = readings(&messages(7, day(2)));
    let mut heard = HashSet::new();
    for reading in &readings {
        heard.insert(format!("{}/{}/{}", reading.zone, reading.kind, reading.device));
        let payload = &reading.payload;
        let is_whole = |member: &str| payload[member].is_u64();
        let is_valid = match reading.kind.as_str() {
            "gate" => (is_whole("in") && is_whole("out")) || (is_whole("total_in") && is_whole("total_out")),
            "seat" => ["occupied", "free", "away"].contains(&text(reading, "state")),
            "rfid" => {
                ["read", "checkout", "checkin"].contains(&text(reading, "action"))
                    && text(reading, "tag").len() == 24
                    && is_whole("antenna")
                    && payload["rssi_dbm"].is_f64()
                    && (text(reading, "action") == "checkout") == text(reading, "person").starts_with("card-22")
            }
            "click" => {
                ["search", "view", "request", "reserve", "login", "help"].contains(&text(reading, "action"))
                    && !text(reading, "session").is_empty()
                    && (text(reading, "action") != "search"
                        || (is_whole("results") && !text(reading, "query").is_empty()))
            }
            _ => false,
        };
        assert!(is_valid, "{} {payload}", reading.kind);
    }
    assert_eq!(heard, known, "every device of the place speaks, and no other");
}

#[test]
fn a_class_fills_its_room_and_half_of_it_leaves() {
    let readings = readings(&messages(7, day(2)));
    let mut persons = 0;
    let mut levels = Vec::new();
    for (reading, entered, exited) in passages(&readings)
        .into_iter()
        .filter(|(reading, ..)| reading.zone == "training-room")
    {
        persons += entered - exited;
        levels.push((minute(reading), persons));
    }
    let crowded: Vec<i64> = levels
        .iter()
        .filter(|(_, persons)| *persons >= 27)
        .map(|(minute, _)| *minute)
        .collect();
    assert!(
        crowded.first().is_some_and(|minute| (40..45).contains(minute)),
        "{crowded:?}"
    );
    assert!(
        crowded.last().is_some_and(|minute| (85..90).contains(minute)),
        "{crowded:?}"
    );
    let half = levels.iter().rev().find(|(minute, _)| *minute < 120).expect("a level");
    assert!(half.1 > 10 && half.1 < 24, "{half:?}");
}

#[test]
fn one_seat_is_left_behind_and_no_other() {
    let readings = readings(&messages(7, day(2)));
    let mut away: HashMap<&str, i64> = HashMap::new();
    let mut longest: BTreeMap<&str, i64> = BTreeMap::new();
    for seat in of_kind(&readings, "seat") {
        if text(seat, "state") == "away" {
            let since = *away.entry(&seat.device).or_insert(seat.us);
            let longest = longest.entry(&seat.device).or_default();
            *longest = (seat.us - since).max(*longest);
        } else {
            away.remove(seat.device.as_str());
        }
    }
    let left: Vec<(&str, i64)> = longest.into_iter().filter(|(_, us)| *us > 30 * MINUTE_US).collect();
    assert!(matches!(left[..], [("rr-001", us)] if us < 51 * MINUTE_US), "{left:?}");
}

#[test]
fn one_item_leaves_unborrowed_and_comes_back() {
    let readings = readings(&messages(7, day(2)));
    let mut borrowed = HashSet::new();
    let mut left = Vec::new();
    for read in of_kind(&readings, "rfid") {
        let tag = text(read, "tag");
        match text(read, "action") {
            "checkout" => drop(borrowed.insert(tag)),
            "checkin" => left.retain(|(left, _)| *left != tag),
            _ if read.device.starts_with("exit") && !borrowed.contains(tag) => left.push((tag, minute(read))),
            _ => {}
        }
    }
    assert!(left.is_empty(), "brought back: {left:?}");
    let exits = of_kind(&readings, "rfid").filter(|read| read.device.starts_with("exit"));
    let unborrowed: Vec<i64> = exits
        .filter(|read| !borrowed.contains(text(read, "tag")))
        .map(minute)
        .collect();
    assert_eq!(unborrowed, [62, 62]);
}

#[test]
fn a_reader_searches_three_times_and_finds_nothing() {
    let readings = readings(&messages(7, day(2)));
    let clicks: Vec<_> = of_kind(&readings, "click")
        .filter(|click| text(click, "person") == "card-2299001")
        .collect();
    let lost: Vec<i64> = clicks
        .iter()
        .filter(|click| click.payload["results"] == 0)
        .map(|click| click.us)
        .collect();
    assert_eq!(lost.len(), 3);
    assert!(lost[2] - lost[0] < 5 * MINUTE_US);
    assert!(
        clicks
            .iter()
            .any(|click| text(click, "action") == "help" && minute(click) == 31)
    );
}

#[test]
fn one_gate_is_silent_for_longer_than_half_an_hour_and_no_other() {
    let readings = readings(&messages(7, day(2)));
    let mut last: HashMap<&str, i64> = HashMap::new();
    let mut silent = Vec::new();
    for gate in of_kind(&readings, "gate") {
        if let Some(before) = last.insert(&gate.device, gate.us)
            && gate.us - before > 5 * MINUTE_US + 1_000
        {
            silent.push((gate.device.as_str(), (gate.us - before) / MINUTE_US));
        }
    }
    assert!(
        matches!(silent[..], [("special-gate", minutes)] if (40..=50).contains(&minutes)),
        "{silent:?}"
    );
}

#[test]
fn people_come_when_the_figures_say() {
    let figures = DayFigures::shipped();
    let readings = readings(&messages(7, day(2)));
    let mut arrived = [0_i64; 48];
    for (reading, entered, _) in passages(&readings)
        .into_iter()
        .filter(|(reading, ..)| reading.device == "street-door")
    {
        arrived[(minute(reading) / 30 + 16).clamp(0, 47) as usize] += entered;
    }
    let all: i64 = arrived.iter().sum();
    assert!((1_500..=2_100).contains(&all), "{all} arrivals");
    let curve = figures.arrivals_on(day(2));
    let open: f64 = curve[16..44].iter().sum();
    for half_hour in 16..44 {
        let (seen, meant) = (arrived[half_hour] as f64 / all as f64, curve[half_hour] / open);
        // 30 persons of a class come at once in the second half-hour.
        let tolerance = if half_hour == 17 { 0.03 } else { 0.02 };
        assert!(
            (seen - meant).abs() < tolerance,
            "half-hour {half_hour}: {seen:.3}, {meant:.3} was meant"
        );
    }
}
