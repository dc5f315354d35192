//! A process that is killed, whenever that is: nothing acknowledged is lost, and nothing happens twice.

mod effects;
pub(crate) mod home;
mod instants;
mod matrix;
pub(crate) mod play;
mod posts;
pub(crate) mod state;
pub(crate) mod stream;

use std::collections::BTreeMap;
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

/// Where steps came in another order than expected, a line for each of what they are `about`.
fn differences_of_order(told: &[String], expected: &[String], about: impl Fn(&Value) -> String) -> Vec<String> {
    let in_order = |steps: &[String]| {
        let mut orders: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for step in steps {
            let alert: Value = serde_json::from_str(step).unwrap_or(Value::Null);
            let short = format!("{} {} {}", alert["rule"], alert["state"], alert["step_id"]);
            orders.entry(about(&alert)).or_default().push(short);
        }
        orders
    };
    let (told, expected) = (in_order(told), in_order(expected));
    let differing = told.iter().filter_map(|(about, steps)| {
        let wanted = expected.get(about)?;
        (steps != wanted).then(|| format!("the steps of {about} came as {steps:?}, and in order are {wanted:?}"))
    });
    differing.collect()
}

/// What an alert is about: all its steps, of whichever rule, reach a receiver in the order in which they were told.
fn subject_of(alert: &Value) -> String {
    let subject = &alert["subject"];
    // Seats and devices have their names within a zone; the others within a site.
    let zone = match subject["kind"].as_str() {
        Some("seat" | "device") => &alert["zone"],
        _ => &Value::Null,
    };
    format!("{} {zone} {} {}", alert["site"], subject["kind"], subject["id"])
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
