//! `kill -9` on the real binary at random instants, with a broker of one's own, a webhook that loses confirmations, and traffic
//! running.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::crash::Failure;
use crate::crash::play::{Kill, Outcome, Plan};
use crate::crash::state::Asked;
use crate::crash::stream::Stream;
use crate::receiver::Mood;
use crate::{TestResult, peer};

/// Rounds when nobody says how many, each with [`KILLS`] kills.
const ROUNDS: u64 = 2;
const KILLS: usize = 4;
const MESSAGES: usize = 700;
const PAUSE_MAX: Duration = Duration::from_millis(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_instants_nothing_is_lost_and_nothing_happens_twice() -> TestResult {
    if peer("mosquitto")?.is_none() {
        return Ok(());
    }
    let rounds = match std::env::var("USHER_CRASH_ROUNDS") {
        Ok(rounds) => rounds.parse()?,
        Err(_) => ROUNDS,
    };
    let first = match std::env::var("USHER_CRASH_ROUND") {
        Ok(seed) => seed.parse()?,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    for seed in first..first + rounds {
        let outcome = round(seed).await.map_err(|error| {
            format!(
                "seed {seed}: {error}\nagain, as near as instants can be: USHER_CRASH_ROUND={seed} cargo test \
                 --workspace --test it -- crash::instants"
            )
        })?;
        println!(
            "seed {seed}: {} kills, {} steps, {} told again over MQTT and {} at the webhook",
            outcome.killed_at_point + outcome.killed_elsewhere,
            outcome.steps.len(),
            outcome.repeats,
            outcome.posts.repeats
        );
    }
    Ok(())
}

async fn round(seed: u64) -> Result<Outcome, Failure> {
    let stream = Stream::draw(seed, MESSAGES, PAUSE_MAX);
    let mut plan = Plan {
        stream: &stream,
        kills: Vec::new(),
        is_own_broker: true,
        broker_restarts: Vec::new(),
        mood: Mood::Takes,
        queries: Asked::All,
    };
    let expected = plan.play().await.map_err(|error| format!("without a kill: {error}"))?;
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let instant = |_| Kill::After(dice.random_range(Duration::from_millis(5)..Duration::from_millis(700)));
    plan.kills = (0..KILLS).map(instant).collect();
    plan.mood = Mood::LosesConfirmations(seed);
    let outcome = plan
        .play()
        .await
        .map_err(|error| format!("{:?}: {error}", plan.kills))?;
    let differences = outcome.differences(&expected, true);
    match differences.is_empty() {
        true => Ok(outcome),
        false => Err(format!("{:?}:\n  {}", plan.kills, differences.join("\n  ")).into()),
    }
}
