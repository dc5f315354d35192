//! What a person costs: bytes, an event among a thousand and among a million persons, and what time alone changes.
//!
//! `people [persons]`, a million where nobody says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use usher_engine::alert::Trace;
use usher_engine::allocator::keep_memory;
use usher_engine::check::load_queries;
use usher_engine::event::{Clock, Event, Kind, Reading, RfidAction, Source};
use usher_engine::people::People;
use usher_engine::perception::{Perception, PerceptionOptions};
use usher_engine::pseudonym::{Pseudonym, Secret};
use usher_engine::reference::set_references;
use usher_engine::settings::{Flags, Settings};
use usher_engine::site::Places;
use usher_queries::query_set::QuerySet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// 2026-03-02T00:00:00Z, microseconds.
const BEGIN: i64 = 1_772_409_600_000_000;
const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
/// How far the watermark is behind, as `time.delay` has it.
const DELAY: i64 = 2_000_000;
/// Between two events: a thousand a second.
const STEP: i64 = 1_000;
/// Events that are timed at once; made before.
const ROUND: usize = 100_000;
const ROUNDS: usize = 7;
/// The same with all queries: a shared machine is faster by a half at one time than at another.
const ROUNDS_OF_ALL: usize = 25;

/// Makes events of persons in no order, of readers and of the web.
struct House {
    persons: Vec<Pseudonym>,
    sources: Vec<Arc<Source>>,
    number: usize,
    now_us: i64,
}

impl House {
    fn new(persons: usize) -> Self {
        let secret = Secret::from_bytes([5; 32]);
        let source = |zone: usize, kind, device: String| {
            Arc::new(Source {
                site: "bench".into(),
                zone: format!("zone-{zone}").into(),
                kind,
                device: device.into(),
            })
        };
        let readers = (0..64).map(|device| source(device % 16, Kind::Rfid, format!("reader-{device}")));
        Self {
            persons: (0..persons).map(|person| secret.person(&person.to_string())).collect(),
            sources: readers
                .chain([source(16, Kind::Click, "catalogue".to_owned())])
                .collect(),
            number: 0,
            now_us: BEGIN,
        }
    }

    fn event(&mut self, person: usize) -> Event {
        self.number += 1;
        self.now_us += STEP;
        let number = self.number;
        let person = Some(self.persons[person].clone());
        let (source, reading) = match number % 3 {
            0 => (
                self.sources.len() - 1,
                Reading::Click {
                    person,
                    session: None,
                    action: "search".into(),
                    query: None,
                    results: Some(3),
                    item: None,
                    page: None,
                    count: 1,
                },
            ),
            kind => (
                number.wrapping_mul(2_654_435_761) % (self.sources.len() - 1),
                Reading::Rfid {
                    tag: "E280".into(),
                    antenna: Some(1),
                    rssi_dbm: None,
                    action: if kind == 1 && number.is_multiple_of(10) {
                        RfidAction::Checkout
                    } else {
                        RfidAction::Read
                    },
                    person,
                },
            ),
        };
        Event {
            id: format!("e{number:x}").into(),
            time_us: self.now_us,
            received_us: self.now_us,
            clock: Clock::Device,
            source: Arc::clone(&self.sources[source]),
            reading,
        }
    }

    /// As many, of persons in no order.
    fn round(&mut self, events: usize) -> Vec<Event> {
        let all = self.persons.len();
        (0..events)
            .map(|_| {
                let place = (self.number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
                self.event(place as usize % all)
            })
            .collect()
    }
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * 4_096
}

fn settings() -> Settings {
    Settings::load_with(None, [], &Flags::default()).expect("the defaults are right")
}

fn median(mut took: Vec<f64>) -> f64 {
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

/// Two days pass, second by second until all have left.
fn pass(house: &mut House, people: &mut People) {
    let all_left = house.now_us + HOUR;
    let first_leaves = house.now_us - house.persons.len() as i64 * STEP;
    let mut now_us = first_leaves;
    while now_us < all_left {
        now_us += 1_000_000;
        people.advance(now_us.max(house.now_us - DELAY));
        let _ = people.drain();
    }
    house.now_us += 2 * DAY;
}

/// Everybody comes `visits` times.
fn filled(house: &mut House, visits: usize) -> People {
    let mut people = People::new(settings().engagement);
    let places = Places::default();
    for visit in 0..visits {
        for person in 0..house.persons.len() {
            let event = house.event(person);
            people.take(&event, event.time_us - DELAY, &places);
            if person % 1_000 == 0 {
                // An engine says it at once.
                let _ = people.drain();
            }
        }
        if visit + 1 < visits {
            pass(house, &mut people);
        }
    }
    people.advance(house.now_us);
    let _ = people.drain();
    people
}

/// Bytes a person, while all of them are visiting and when all have left; and these persons.
fn bytes(persons: usize) -> (usize, usize, (House, People)) {
    // An engine has one allocation for a name, which the house here has for it.
    let names = 48;
    let mut house = House::new(persons);
    let before = resident();
    let mut people = filled(&mut house, 3);
    let here = resident().saturating_sub(before) / persons + names;
    pass(&mut house, &mut people);
    let away = resident().saturating_sub(before) / persons + names;
    (here, away, (house, people))
}

/// Nanoseconds an event of people alone, in rounds that take turns.
fn of_people(sizes: &mut [(House, People)]) -> Vec<f64> {
    let places = Places::default();
    let mut took: Vec<Vec<f64>> = vec![Vec::new(); sizes.len()];
    for _ in 0..ROUNDS {
        for (index, (house, people)) in sizes.iter_mut().enumerate() {
            let events = house.round(ROUND);
            let begun = Instant::now();
            for event in &events {
                people.take(event, event.time_us - DELAY, &places);
            }
            took[index].push(begun.elapsed().as_nanos() as f64 / ROUND as f64);
            let _ = people.drain();
        }
    }
    took.into_iter().map(median).collect()
}

/// The queries that are slower among many persons, and by how many nanoseconds an event, the slowest first.
type Slower = Vec<(String, f64)>;

/// Queries that are told of.
const TOLD: usize = 8;

/// Nanoseconds that each query has taken so far.
fn of_queries(perception: &Perception) -> Vec<(String, u64)> {
    let queries = perception.queries.queries().iter();
    queries
        .map(|query| (query.name().to_string(), query.counters().busy_ns))
        .collect()
}

/// Nanoseconds an event of a round, by house.
type Rounds = Vec<Vec<f64>>;

/// Nanoseconds an event through all shipped queries and people, in rounds that take turns; and what queries make of the
/// difference between the first house and the last.
fn of_all(persons: &[usize]) -> (Rounds, Slower) {
    let places = Arc::new(Places::default());
    let mut sizes: Vec<(House, Perception)> = persons
        .iter()
        .map(|persons| {
            let mut queries = QuerySet::new();
            set_references(&mut queries, &places);
            load_queries(&mut queries, std::path::Path::new("")).expect("the shipped queries are right");
            let options = PerceptionOptions::of(&settings());
            let mut perception = Perception::new(options, Arc::clone(&places), queries);
            let mut house = House::new(*persons);
            // Everybody has been here, days ago; windows of then are closed.
            for person in 0..*persons {
                let event = house.event(person);
                perception.take(std::slice::from_ref(&event), &|_| Trace::default());
            }
            house.now_us += 2 * DAY;
            // With the next event all their visits end.
            perception.take(&[house.event(0)], &|_| Trace::default());
            (house, perception)
        })
        .collect();
    let mut took: Rounds = vec![Vec::new(); sizes.len()];
    let before: Vec<_> = sizes.iter().map(|(_, perception)| of_queries(perception)).collect();
    for _ in 0..ROUNDS_OF_ALL {
        for (index, (house, perception)) in sizes.iter_mut().enumerate() {
            let events = house.round(ROUND / 5);
            let begun = Instant::now();
            for event in &events {
                perception.take(std::slice::from_ref(event), &|_| Trace::default());
            }
            took[index].push(begun.elapsed().as_nanos() as f64 / events.len() as f64);
        }
    }
    let since = |house: usize| {
        let now = of_queries(&sizes[house].1).into_iter().zip(&before[house]);
        let events = (ROUNDS_OF_ALL * (ROUND / 5)) as f64;
        now.map(move |((name, now), (_, before))| (name, (now - before) as f64 / events))
    };
    let both = since(0).zip(since(sizes.len() - 1));
    let mut slower: Slower = both.map(|((name, few), (_, many))| (name, many - few)).collect();
    slower.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    (took, slower)
}

fn time_alone(mut house: House, mut people: People) {
    let per = |took: Duration, count: usize| took.as_nanos() as f64 / count.max(1) as f64;
    house.now_us += HOUR;
    let begun = Instant::now();
    people.advance(house.now_us);
    let took = begun.elapsed();
    let rows: usize = people.drain().iter().map(|(_, rows)| rows.len()).sum();
    println!("{rows} visits that end: {:.0} ns each", per(took, rows));
    // Nothing is due for a week; in steps of a second.
    let begun = Instant::now();
    for _ in 0..100_000 {
        house.now_us += 1_000_000;
        people.advance(house.now_us);
    }
    let took = begun.elapsed();
    let rows: usize = people.drain().iter().map(|(_, rows)| rows.len()).sum();
    println!(
        "100000 steps of a second in which {rows} things fall due: {:.0} ns each",
        per(took, 100_000)
    );
    for (word, days) in [("drifting", 60), ("dormant", 180), ("gone", 540)] {
        let until = BEGIN + days * DAY;
        let begun = Instant::now();
        people.advance(until.max(house.now_us));
        let took = begun.elapsed();
        let rows: usize = people.drain().iter().map(|(_, rows)| rows.len()).sum();
        println!(
            "{rows} changes by day {days}, {word} among them: {:.0} ns each",
            per(took, rows)
        );
    }
}

fn main() {
    keep_memory();
    let given = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let persons: usize = given.unwrap_or(1_000_000);
    let small = {
        let mut house = House::new(1_000);
        let people = filled(&mut house, 3);
        (house, people)
    };
    let (here, away, large) = bytes(persons);
    println!("{persons} persons: {here} bytes each while all of them are here, {away} when all are away again");
    let mut sizes = [small, large];
    let found = of_people(&mut sizes);
    println!(
        "an event, people alone: {:.0} ns among 1000, {:.0} ns among {persons}: {:.2} times",
        found[0],
        found[1],
        found[1] / found[0]
    );
    let [_, (house, people)] = sizes;
    time_alone(house, people);
    let (found, slower) = of_all(&[1_000, persons]);
    let mut times: Vec<f64> = found[1].iter().zip(&found[0]).map(|(many, few)| many / few).collect();
    times.sort_by(f64::total_cmp);
    let [few, many] = [0, 1].map(|house| median(found[house].clone()));
    println!(
        "an event through the shipped queries and people: {few:.0} ns among 1000, {many:.0} ns among {persons}: {:.2} times \
         at the median of {ROUNDS_OF_ALL} rounds, half of them {:.2} to {:.2}",
        times[times.len() / 2],
        times[times.len() / 4],
        times[times.len() * 3 / 4]
    );
    for (query, by) in slower.iter().take(TOLD) {
        println!("    {query}: {by:.0} ns more");
    }
}
