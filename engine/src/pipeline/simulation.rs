//! The pipeline on a simulated clock, disk and network, with faults drawn from one seed.
//!
//! What runs is the real [`Pipeline`] with its settler, checkpoints and outbox; a step is what its loop does once. Around
//! it all is invented: devices whose messages come late, twice, in another order or only when they are sent again; a disk
//! that loses what was not synced and is full for a while; receivers that are slow, away, or lose what they confirmed; a
//! clock that jumps. Now and then the process is killed, the power goes, or it is stopped. At the end a run without
//! faults over the same events says what should have come of it.
//!
//! `USHER_SIM_SEEDS` is how many seeds are run, `USHER_SIM_SEED` the only one.

mod clock;
mod devices;
pub(crate) mod disk;
mod judge;
mod life;
mod random;
mod receivers;
mod silence;
mod starved;
mod stray;
mod world;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use usher_queries::statement::{Statement, parse_statements};

use self::world::World;
use crate::fixture;
use crate::messages::Messages;
use crate::perception::Perception;
use crate::seats::SEAT_STATE;
use crate::settings::{Flags, MessageSettings, Settings};
use crate::site::Places;
use crate::zones::OCCUPANCY;

/// Seeds of a plain `cargo test`; `.ci/run` asks for more.
const SEEDS: u64 = 100;
const SITE: &str = r#"
[[site]]
id = "main"
time_zone = "Asia/Shanghai"
opening = { mon-fri = "08:00-22:00" }
[[zone]]
site = "main"
id = "hall"
capacity = 20
[[zone]]
site = "main"
id = "cafe"
capacity = 10
"#;
/// One of each kind: a running aggregate, the last of each key, alerts with `for`, of silence, and on windows, and messages of
/// which the more important one goes out.
const SQL: &str = "
    CREATE QUERY occupancy WITH (emit = 'update') AS
    SELECT site, zone, greatest(sum(entered) - sum(exited), 0) AS persons, max(event_time) AS as_of
    FROM gate GROUP BY site, zone;
    CREATE QUERY seat_state WITH (emit = 'update') AS
    SELECT site, zone, seat, last_value(state ORDER BY event_time) AS state, max(event_time) AS as_of
    FROM seat GROUP BY site, zone, seat;
    CREATE ALERT crowded WITH (subject = 'zone', raise = 'persons >= 12', clear = 'persons < 8', for = '4 seconds') AS
    SELECT site, zone, persons, as_of FROM occupancy;
    CREATE ALERT silent WITH (subject = 'device', silent = '30 seconds') AS
    SELECT site, zone, device, event_time FROM gate;
    CREATE ALERT rush WITH (subject = 'zone', raise = 'entered > 9', clear = 'entered < 3', cooldown = '10 seconds') AS
    SELECT site, zone, sum(entered) AS entered, window_start, window_end
    FROM HOP(gate, event_time, INTERVAL '5 seconds', INTERVAL '10 seconds')
    GROUP BY site, zone, window_start, window_end;
    CREATE ALERT help WITH (subject = 'person', message = 'help_offer', per_day = 20, expires = '20 seconds',
      text = 'You were at {action}') AS
    SELECT site, person, action, event_time FROM click WHERE action <> 'view';
    CREATE ALERT tour WITH (subject = 'person', message = 'tour_offer', per_day = 20, priority = 90, expires = '20 seconds',
      text = 'You were at {action}') AS
    SELECT site, person, action, event_time FROM click WHERE action = 'view'";

fn places() -> Arc<Places> {
    static PLACES: OnceLock<Arc<Places>> = OnceLock::new();
    Arc::clone(PLACES.get_or_init(|| fixture::places(SITE)))
}

/// A perception that knows nothing yet.
fn fresh() -> Perception {
    static STATEMENTS: OnceLock<Vec<Statement>> = OnceLock::new();
    let statements = STATEMENTS.get_or_init(|| parse_statements(SQL).expect("they are right"));
    let delay = Duration::from_secs(2);
    let mut perception = fixture::perception(&places(), delay, Duration::from_secs(8), |queries| {
        queries.watch(&[OCCUPANCY, SEAT_STATE]);
        assert_eq!(queries.create_all(statements.clone()), []);
    });
    // Everybody is written to, and moments last so long that what comes late may be in them.
    static SETTINGS: OnceLock<MessageSettings> = OnceLock::new();
    let settings = SETTINGS.get_or_init(|| {
        let mut settings = Settings::load_with(None, [], &Flags::default()).expect("the defaults are right");
        (settings.messages.holdout, settings.messages.per_day) = (0.0, 100);
        settings.messages.moment = Duration::from_secs(3);
        settings.messages
    });
    let delay_us = i64::try_from(delay.as_micros()).expect("it is seconds");
    perception.messages = Messages::new(settings, delay_us);
    perception.learn_rules();
    perception
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}; a number would be right")),
    )
}

/// What is wrong at the end of a seed, in words, and how to see it again.
fn run(seed: u64) -> Result<(), String> {
    let ended = std::panic::catch_unwind(|| World::new(seed).run());
    let (wrong, story) = ended.unwrap_or_else(|panic| {
        let words = crate::supervisor::words_of(&*panic);
        (vec![format!("it panicked: {words}")], Vec::new())
    });
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "seed {seed} fails:\n  {}\nits faults:\n  {}\nrun it again: USHER_SIM_SEED={seed} cargo test --workspace --lib -- simulation",
        wrong.join("\n  "),
        story.join("\n  ")
    ))
}

#[test]
fn whatever_happens_nothing_is_lost_and_nothing_comes_twice() {
    if let Some(seed) = number("USHER_SIM_SEED") {
        return run(seed).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    let seeds = number("USHER_SIM_SEEDS").unwrap_or(SEEDS);
    let next = std::sync::atomic::AtomicU64::new(0);
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    if let Err(wrong) = run(seed) {
                        failed.lock().expect("nobody panics").push((seed, wrong));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("nobody panics");
    failed.sort();
    if let Some((_, wrong)) = failed.first() {
        let numbers: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
        panic!(
            "{} of {seeds} seeds fail: {numbers:?}. The first:\n{wrong}",
            failed.len()
        );
    }
}

#[test]
fn a_seed_is_the_same_each_time() {
    for seed in 0..5 {
        let (one, other) = (World::new(seed).told(), World::new(seed).told());
        assert!(!one.is_empty());
        assert_eq!(one, other, "seed {seed}");
    }
}
