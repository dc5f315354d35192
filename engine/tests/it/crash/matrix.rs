//! The crash matrix: at each boundary between two stages the process is killed, for each of some seeds.
//!
//! A seed draws what devices publish, when exactly the process ends, and sometimes a second end soon after the restart.
//! Three seeds of four have a broker of one's own. With the embedded one, which dies with the process, nobody can hear what
//! is said while it is away, so that there the steps that were heard have to be right. A webhook, whose receiver outlives all
//! processes, has to be told everything, in order for a subject; with one seed of three it loses some confirmations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use usher_connectors::crash_point::CrashPoint;

use crate::crash::Failure;
use crate::crash::play::{Kill, Outcome, Plan};
use crate::crash::state::{Asked, State};
use crate::crash::stream::Stream;
use crate::receiver::Mood;
use crate::{TestResult, peer};

/// Seeds when nobody says how many; `.ci/run` says 20, a long run 1,000.
const SEEDS: u64 = 2;
/// Messages of a stream: enough for some alerts to be raised and cleared, few enough for many streams.
const MESSAGES: usize = 90;
const PAUSE_MAX: Duration = Duration::from_millis(8);
/// Queries whose rows are compared in one case; over the cases each has its turn.
const QUERIES_A_CASE: usize = 4;
/// Cases at a time. Much of a case is waiting for a disk, a socket or a pause.
const AT_A_TIME: usize = 4;

/// What a seed draws, and what comes of it when nothing is killed.
struct Undisturbed {
    stream: Stream,
    outcome: Outcome,
}

#[derive(Default)]
struct Row {
    cases: u64,
    at_point: u64,
    elsewhere: u64,
    repeats: u64,
    posts_again: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_boundary_nothing_is_lost_and_nothing_happens_twice() -> TestResult {
    let has_own_broker = peer("mosquitto")?.is_some();
    let (points, seeds) = chosen()?;
    let undisturbed: Vec<(u64, Result<Undisturbed, Failure>)> = futures_util::stream::iter(seeds.clone())
        .map(|seed| async move { (seed, Undisturbed::of(seed, has_own_broker).await) })
        .buffer_unordered(AT_A_TIME)
        .collect()
        .await;
    let mut expected = BTreeMap::new();
    for (seed, undisturbed) in undisturbed {
        expected.insert(
            seed,
            undisturbed.map_err(|error| format!("seed {seed} without a crash: {error}"))?,
        );
    }
    let expected = &expected;
    let cases = points
        .iter()
        .flat_map(|point| seeds.iter().map(move |seed| (*point, *seed)));
    let mut cases = futures_util::stream::iter(cases)
        .map(|(point, seed)| async move {
            let outcome = expected[&seed].with_a_crash(point, seed, has_own_broker).await;
            (point, seed, outcome)
        })
        .buffer_unordered(AT_A_TIME);
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let mut failed = 0_u32;
    while let Some((point, seed, outcome)) = cases.next().await {
        let row = rows.entry(point.name()).or_default();
        row.cases += 1;
        match outcome {
            Ok(outcome) => {
                row.at_point += outcome.killed_at_point;
                row.elsewhere += outcome.killed_elsewhere;
                row.repeats += outcome.repeats;
                row.posts_again += outcome.posts.repeats;
            }
            Err(error) => {
                failed += 1;
                eprintln!(
                    "{point} with seed {seed}: {error}\nagain: USHER_CRASH_CASE={point}:{seed} cargo test --workspace \
                     --test it -- crash::matrix\n"
                );
            }
        }
    }
    println!("crash point              cases  killed there   elsewhere  steps told again  posts told again");
    for (point, row) in &rows {
        println!(
            "{point:<24} {:>5}  {:>12}  {:>10}  {:>16}  {:>16}",
            row.cases, row.at_point, row.elsewhere, row.repeats, row.posts_again
        );
    }
    let states: Vec<&State> = expected.values().map(|one| &one.outcome.state).collect();
    let queries: BTreeSet<&String> = states.iter().flat_map(|state| state.queries()).collect();
    let with_rows = queries
        .iter()
        .filter(|query| states.iter().any(|state| state.rows_of(query) > 0));
    println!(
        "{} queries were compared, {} had rows",
        queries.len(),
        with_rows.count()
    );
    if failed > 0 {
        return Err(format!("{failed} cases went wrong; each is printed above").into());
    }
    for (point, row) in rows {
        assert!(
            row.at_point * 2 >= row.cases,
            "{point} is seldom passed: {} of {} cases were killed there",
            row.at_point,
            row.cases
        );
    }
    Ok(())
}

/// `USHER_CRASH_CASE=synced:17` is one case, `USHER_CRASH_SEEDS=20` says how many seeds, and `USHER_CRASH_SEEDS=250..500` which: a
/// long run may be done in parts.
fn chosen() -> Result<(Vec<CrashPoint>, Vec<u64>), Failure> {
    if let Ok(case) = std::env::var("USHER_CRASH_CASE") {
        let (point, seed) = case
            .split_once(':')
            .ok_or("USHER_CRASH_CASE is a point and a seed, as synced:17")?;
        return Ok((vec![point.parse()?], vec![seed.parse()?]));
    }
    let seeds = match std::env::var("USHER_CRASH_SEEDS") {
        Ok(seeds) => match seeds.split_once("..") {
            Some((from, to)) => from.parse()?..to.parse()?,
            None => 0..seeds.parse()?,
        },
        Err(_) => 0..SEEDS,
    };
    Ok((CrashPoint::ALL.to_vec(), seeds.collect()))
}

impl Undisturbed {
    async fn of(seed: u64, is_own_broker: bool) -> Result<Self, Failure> {
        let stream = Stream::draw(seed, MESSAGES, PAUSE_MAX);
        let plan = Plan {
            stream: &stream,
            kills: Vec::new(),
            is_own_broker,
            broker_restarts: Vec::new(),
            mood: Mood::Takes,
            queries: Asked::All,
        };
        let outcome = plan.play().await?;
        let persons = outcome.state.persons();
        for (zone, persons_there) in &stream.persons {
            if persons.get(*zone) != Some(persons_there) {
                return Err(format!("{persons_there} persons are in {zone}, and it says {persons:?}").into());
            }
        }
        Ok(Self { stream, outcome })
    }

    async fn with_a_crash(&self, point: CrashPoint, seed: u64, has_own_broker: bool) -> Result<Outcome, Failure> {
        let at = CrashPoint::ALL.iter().position(|other| *other == point).unwrap_or(0);
        let mut dice = ChaCha8Rng::seed_from_u64(seed * 1_000 + at as u64);
        let (messages, steps) = (self.stream.messages.len() as u64, self.outcome.steps.len() as u64);
        let passings = match point {
            CrashPoint::Received => messages * 3 / 4,
            // Batches are mostly of one message, and in a moment without breath of several.
            CrashPoint::Decoded
            | CrashPoint::Evaluated
            | CrashPoint::Appended
            | CrashPoint::Synced
            | CrashPoint::Acknowledged => messages / 3,
            CrashPoint::OutboxWritten => steps * 2 / 3,
            // By each step on its way to the broker, and on its way to the webhook.
            CrashPoint::Sent | CrashPoint::Confirmed => steps * 4 / 3,
            CrashPoint::CheckpointBegun | CrashPoint::CheckpointHalfWritten | CrashPoint::CheckpointDone => 3,
        };
        let mut passing = dice.random_range(1..=passings.max(1));
        let second = (dice.random_range(0..4) == 0)
            .then(|| Kill::After(dice.random_range(Duration::ZERO..Duration::from_millis(200))));
        let all = self.outcome.state.queries();
        let turn = all
            .iter()
            .cycle()
            .skip((at * QUERIES_A_CASE + seed as usize) % all.len().max(1));
        let queries = Asked::These(turn.take(QUERIES_A_CASE).cloned().collect());
        let mood = match seed % 3 {
            1 => Mood::LosesConfirmations(seed),
            _ => Mood::Takes,
        };
        // Where a disk is slow, more is done at once, and a point is passed less often than was thought: then earlier.
        loop {
            let kills: Vec<Kill> = [Some(Kill::At(point, passing)), second].into_iter().flatten().collect();
            let plan = Plan {
                stream: &self.stream,
                kills,
                is_own_broker: has_own_broker && seed % 4 != 3,
                broker_restarts: Vec::new(),
                mood,
                queries: queries.clone(),
            };
            let outcome = self.killed(&plan).await?;
            if outcome.killed_at_point > 0 || passing == 1 {
                return Ok(outcome);
            }
            passing = passing.div_ceil(4);
        }
    }

    async fn killed(&self, plan: &Plan<'_>) -> Result<Outcome, Failure> {
        let kills = &plan.kills;
        let outcome = plan.play().await.map_err(|error| format!("{kills:?}: {error}"))?;
        let differences = outcome.differences(&self.outcome, plan.is_own_broker);
        match differences.is_empty() {
            true => Ok(outcome),
            false => Err(format!("{kills:?}:\n  {}", differences.join("\n  ")).into()),
        }
    }
}
