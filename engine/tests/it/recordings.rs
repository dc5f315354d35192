//! Real recordings over MQTT come to the totals that their descriptions state. They are not part of the project: where
//! they are absent, the test says so and is skipped.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::TestResult;
use crate::usher::{Usher, program};

fn data(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("USHER_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let found = Some(root.join(folder)).filter(|folder| folder.is_dir());
    if found.is_none() {
        eprintln!("skipped: there is no {folder} in {} (USHER_DATA)", root.display());
    }
    found
}

/// Replays files as fast as the broker confirms; gives how many messages that were.
fn replay(usher: &Usher, files: &[PathBuf]) -> Result<u64, Box<dyn std::error::Error>> {
    let mut messages = 0;
    for file in files {
        let output = Command::new(program())
            .arg("replay")
            .arg(file)
            .args(["--speed", "max", "--broker", &usher.mqtt])
            .output()?;
        let words = String::from_utf8(output.stdout)?;
        assert!(
            output.status.success(),
            "{}: {}",
            file.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        messages += words.split_whitespace().next().ok_or("a count")?.parse::<u64>()?;
    }
    Ok(messages)
}

async fn one(usher: &Usher, sql: &str) -> Result<Value, Box<dyn std::error::Error>> {
    Ok(usher.query(sql).await?.into_iter().next().unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_of_2005_comes_to_its_totals() -> TestResult {
    let Some(folder) = data("calit2-gate") else {
        return Ok(());
    };
    let usher = Usher::start()?;
    replay(
        &usher,
        &["cal-inflow.csv", "cal-outflow.csv"].map(|file| folder.join(file)),
    )?;
    let door = one(&usher, "SELECT entered, exited FROM occupancy WHERE site = 'calit2'").await?;
    assert_eq!(door, json!({"entered": 19_625, "exited": 18_806}));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_of_2017_come_to_their_levels() -> TestResult {
    let Some(folder) = data("sdu-occupancy") else {
        return Ok(());
    };
    let usher = Usher::start()?;
    let files: Vec<PathBuf> = (1..=4)
        .map(|room| folder.join(format!("occ_data_room_{room}.csv")))
        .collect();
    let mut last_levels = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file)?;
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).ok_or("a row")?;
        last_levels.push(last.rsplit(',').next().ok_or("a column")?.trim().parse::<f64>()?);
    }
    replay(&usher, &files)?;
    let rooms = usher
        .query("SELECT zone, entered - exited AS persons FROM occupancy WHERE site = 'sdu' ORDER BY zone")
        .await?;
    let levels: Vec<f64> = rooms.iter().filter_map(|room| room["persons"].as_f64()).collect();
    assert_eq!(levels, last_levels, "{rooms:?}");
    // The same question over the same events, bounded: the highest level each room ever had.
    let peaks = usher
        .query("SELECT max(level) AS peak FROM (SELECT zone, sum(entered - exited) OVER (PARTITION BY zone ORDER BY event_time) AS level FROM gate WHERE site = 'sdu') GROUP BY zone ORDER BY zone")
        .await?;
    let peaks: Vec<i64> = peaks.iter().filter_map(|room| room["peak"].as_i64()).collect();
    assert_eq!(peaks, [67, 28, 35, 39], "rooms 1 to 4, as their description states");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_with_wrong_clocks_and_steps_back_lose_nothing() -> TestResult {
    let Some(folder) = data("orfid-rfid") else {
        return Ok(());
    };
    let usher = Usher::start()?;
    let files =
        ["reader_1", "reader_2", "reader_3", "reader_us", "reader_ds"].map(|file| folder.join(format!("{file}.txt")));
    let messages = replay(&usher, &files)?;
    assert_eq!(messages, 11_682);
    let status = usher.get("/api/v1/status").await?;
    let counts = &status["counts"];
    assert_eq!(counts["wrong_clocks"], 1, "the one row of 2066: {status}");
    assert_eq!(counts["refused"], 0, "{status}");
    let taken = counts["events"].as_u64().unwrap_or(0) + counts["duplicates"].as_u64().unwrap_or(0);
    assert_eq!(taken, 11_682, "{status}");
    let reads = one(
        &usher,
        "SELECT sum(events) AS reads FROM reader_totals WHERE site = 'orfid'",
    )
    .await?;
    assert_eq!(reads["reads"], counts["events"], "{status}");
    let back = one(
        &usher,
        "SELECT count(*) AS steps FROM (SELECT event_time, lag(event_time) OVER (ORDER BY received_at, event_id) AS before FROM rfid WHERE device = 'reader_2') WHERE event_time < before",
    )
    .await?;
    assert!(
        back["steps"].as_i64() >= Some(101),
        "the 101 steps back are in the log as they came: {back}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clicks_of_a_proxy_and_of_students_are_all_counted() -> TestResult {
    let (Some(proxy), Some(students)) = (data("ezproxy-sciencedirect-2012"), data("oulad-vle-slice")) else {
        return Ok(());
    };
    let usher = Usher::start()?;
    let lines = replay(&usher, &[proxy.join("ezproxy-sciencedirect-2012-11-30.log.gz")])?;
    assert_eq!(lines, 32_530);
    let rows = replay(&usher, &[students.join("studentVle.csv")])?;
    assert_eq!(rows, 13_905);
    let proxy = one(
        &usher,
        "SELECT sum(clicks) AS clicks FROM click_totals WHERE site = 'ezproxy'",
    )
    .await?;
    assert_eq!(proxy["clicks"], 32_530);
    let students = one(
        &usher,
        "SELECT sum(clicks) AS clicks FROM click_totals WHERE site = 'oulad'",
    )
    .await?;
    assert_eq!(students["clicks"], 61_980);
    let people = one(&usher, "SELECT count(*) AS people FROM people").await?;
    assert_eq!(
        people["people"],
        278 + 364,
        "users of the proxy and students, by pseudonym"
    );
    Ok(())
}
