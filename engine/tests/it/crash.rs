//! A process that is killed, whenever that is: nothing acknowledged is lost, and nothing happens twice.

mod effects;
pub(crate) mod home;
mod instants;
mod matrix;
pub(crate) mod play;
pub(crate) mod state;
pub(crate) mod stream;

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::usher::{Usher, program};
use crate::{TestResult, until};

/// What went wrong.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Where the steps that a receiver was told differ from those of a run without a fault. A receiver whose broker was away
/// may have missed some.
pub(crate) fn differences_of_steps(told: &[String], expected: &[String], is_complete: bool) -> Vec<String> {
    let never = expected.iter().filter(|step| is_complete && !told.contains(step));
    let never = never.map(|step| format!("a step was never told: {step}"));
    let only = told.iter().filter(|step| !expected.contains(step));
    never
        .chain(only.map(|step| format!("a step was told that never happens without a fault: {step}")))
        .collect()
}

const ZONES: usize = 7;
const EVENTS: usize = 30_000;

/// A recording of gates of some zones, of counters that stand and counters that pass, and what it comes to.
fn recording(path: &std::path::Path) -> Result<Vec<i64>, Box<dyn std::error::Error>> {
    let mut persons = vec![0_i64; ZONES];
    let mut totals = [(1_000_i64, 900_i64); ZONES];
    let mut text = String::new();
    for number in 0..EVENTS {
        let zone = number * 31 % ZONES;
        let (entered, exited) = (i64::from(number % 3 != 0), i64::from(number % 4 == 0));
        let ts = 1_772_409_600_000_i64 + i64::try_from(number)? * 50;
        let payload = if zone == 0 {
            // A counter that stands: its first reading is where it counts from.
            if totals[zone] != (1_000, 900) || number >= ZONES {
                persons[zone] += entered - exited;
                totals[zone].0 += entered;
                totals[zone].1 += exited;
            }
            json!({"ts": ts, "total_in": totals[zone].0, "total_out": totals[zone].1})
        } else {
            persons[zone] += entered - exited;
            json!({"id": format!("e{number}"), "ts": ts, "in": entered, "out": exited})
        };
        let line = json!({"topic": format!("usher/in/main/z{zone}/gate/g"), "payload": payload, "at": ts});
        writeln!(text, "{line}")?;
    }
    std::fs::write(path, text)?;
    Ok(persons)
}

async fn persons(usher: &Usher) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let zones = usher
        .query("SELECT zone, entered - exited AS persons FROM occupancy ORDER BY zone")
        .await?;
    Ok(zones.into_iter().map(|zone| zone["persons"].clone()).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_through_crashes_comes_to_what_it_comes_to_without() -> TestResult {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("doors.ndjson");
    let expected = recording(&file)?;
    let mut usher = Usher::start()?;
    let mut replay = Command::new(program())
        .arg("replay")
        .arg(&file)
        .args(["--speed", "max", "--broker", &usher.mqtt])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    for share in [4, 2] {
        let wanted = EVENTS as u64 / share;
        let is_there = |status: &Value| status["log_next"].as_u64() >= Some(wanted);
        until("a part of the replay", || usher.get("/api/v1/status"), is_there).await?;
        usher = usher.crash_and_start_again()?;
    }
    let ended = tokio::task::spawn_blocking(move || replay.wait()).await??;
    assert!(ended.success(), "the replay ended with {ended}");
    let events = usher
        .query("SELECT count(*) AS n, count(DISTINCT event_id) AS ids FROM gate")
        .await?;
    assert_eq!(
        events[0]["n"], EVENTS,
        "every event that was acknowledged is in the log: {events:?}"
    );
    let expected: Vec<Value> = expected.into_iter().map(Value::from).collect();
    assert_eq!(persons(&usher).await?, expected);
    // And once more from the disk alone.
    let usher = usher.crash_and_start_again()?;
    assert_eq!(persons(&usher).await?, expected);
    Ok(())
}
