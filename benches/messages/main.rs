//! From a person's reply to what it changes of the next message, inside the engine: the reply is taken, the person does
//! something that a rule finds, the moment passes, and the message is not what it would have been.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use usher_engine::alert::Trace;
use usher_engine::check::load_queries;
use usher_engine::decode::{DecodeOptions, Decoder};
use usher_engine::event::Event;
use usher_engine::messages::{MessageState, MessageStep, Withheld};
use usher_engine::perception::{Perception, PerceptionOptions};
use usher_engine::pseudonym::Secret;
use usher_engine::reference::set_references;
use usher_engine::settings::{Flags, Settings};
use usher_engine::site::Places;
use usher_queries::query_set::QuerySet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// 2026-03-02T09:00:00+08:00, microseconds.
const NINE: i64 = 1_772_413_200_000_000;
const SECOND: i64 = 1_000_000;
const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];
const SITE: &str =
    "[[site]]\nid = \"bench\"\ntime_zone = \"Asia/Shanghai\"\n[[zone]]\nsite = \"bench\"\nid = \"hall\"\n";
const SETTINGS: &str =
    "[messages]\nholdout = 0\nquiet = \"\"\nper_day = 50\ndeclines = 1\n[time]\ndelay = \"0s\"\nidle = \"100ms\"\n";
const SQL: &str = "
CREATE ALERT bench_offer WITH (subject = 'person', message = 'bench_offer', per_day = 20, points = 1, expires = '2 hours',
  text = 'An offer for {query}', text_zh = '{query}') AS
SELECT site, zone, person, query, event_time FROM click WHERE action = 'search' AND person IS NOT NULL;
";

struct House {
    perception: Perception,
    decoder: Decoder,
    now_us: i64,
    number: u64,
}

impl House {
    fn event(&mut self, topic: &str, payload: &str) -> Vec<Event> {
        self.number += 1;
        self.now_us += 1_000;
        let payload = format!(r#"{{"id":"e{}",{payload}}}"#, self.number);
        let topic = format!("usher/in/bench/hall/{topic}");
        self.decoder.decode(&topic, payload.as_bytes(), self.now_us).events
    }

    fn take(&mut self, events: &[Event]) -> Vec<MessageStep> {
        self.perception.take(events, &|_| Trace::default());
        self.perception.take_messages()
    }

    /// The steps that come when somebody searches and the moment is over.
    fn search(&mut self, person: u64) -> Vec<MessageStep> {
        let search = self.event(
            "click/opac",
            &format!(r#""action":"search","person":"card-{person}","query":"silk""#),
        );
        let mut steps = self.take(&search);
        self.now_us += 2 * SECOND;
        let passing = self.event("click/opac", r#""action":"view""#);
        steps.extend(self.take(&passing));
        steps
    }
}

fn main() {
    let persons: u64 = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next()
        .unwrap_or(20_000);
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config");
    std::fs::create_dir_all(config.join("queries")).expect("a folder");
    std::fs::write(config.join("queries/bench.sql"), SQL).expect("written");
    std::fs::write(config.join("usher.toml"), SETTINGS).expect("written");
    let settings = Settings::load(Some(&config), &Flags::default()).expect("right");
    let places = Arc::new(Places::read(std::path::Path::new("site.toml"), SITE).expect("right"));
    let mut queries = QuerySet::new();
    set_references(&mut queries, &places);
    load_queries(&mut queries, &config).expect("right");
    let count = queries.queries().len();
    let secret = || Secret::from_bytes([7; 32]);
    let mut house = House {
        perception: Perception::new(PerceptionOptions::of(&settings), places, queries),
        decoder: Decoder::new(DecodeOptions::new(secret())),
        now_us: NINE,
        number: 0,
    };
    // All of them within the time in which an answer counts.
    for person in 0..persons {
        let payload = format!(r#""action":"search","person":"card-{person}","query":"silk""#);
        let search = house.event("click/opac", &payload);
        house.take(&search);
    }
    house.now_us += 2 * SECOND;
    let passing = house.event("click/opac", r#""action":"view""#);
    house.take(&passing);
    println!("{count} queries, {} people who were each sent a message", persons);

    let histogram = || Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order");
    let (mut replies, mut changes) = (histogram(), histogram());
    let measured = persons.min(2_000);
    for person in 0..measured {
        let pseudonym = secret().person(&format!("card-{person}"));
        let sent = house.perception.messages.of(pseudonym.as_str());
        let id = sent[0].id.clone();
        assert_eq!(sent[0].state, MessageState::Sent);
        let response = ["accepted", "declined", "opted_out"][usize::try_from(person % 3).expect("small")];
        let reply = house.event(
            "reply/app",
            &format!(r#""person":"card-{person}","message":"{id}","response":"{response}""#),
        );
        let begun = Instant::now();
        house.take(&reply);
        let taken = begun.elapsed();
        let steps = house.search(person);
        let changed = begun.elapsed();
        let nanos = |took: Duration| u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        replies.saturating_record(nanos(taken));
        changes.saturating_record(nanos(changed));
        // Of who opted out nobody knows who asks, so that nothing is found.
        let is_as_it_should = steps.is_empty() && response == "opted_out"
            || steps.iter().any(|step| match (response, step) {
                ("declined", MessageStep::Turned(message)) => message.withheld == Some(Withheld::DeclinedTwice),
                ("accepted", MessageStep::Turned(message)) => message.state == MessageState::Sent,
                _ => false,
            });
        assert!(is_as_it_should, "{response}: {steps:?}");
        if response == "accepted" {
            assert_eq!(house.perception.points.balance(pseudonym.as_str()), 1);
        }
    }
    println!("{:<58}{:>12}{:>12}{:>12}", "", "median", "99 %", "99.9 %");
    for (name, times) in [
        ("a reply is taken", &replies),
        ("a reply, the next finding, and its changed decision", &changes),
    ] {
        print!("{name:<58}");
        for quantile in QUANTILES {
            print!("{:>9.1} µs", times.value_at_quantile(quantile) as f64 / 1_000.0);
        }
        println!();
    }
    let slowest = changes.value_at_quantile(0.99) as f64 / 1e6;
    println!("99 % within {slowest:.3} ms; 1 ms is the bound");
}
