//! The product as its users meet it: the binary, MQTT from outside, HTTP, the page in a browser.

mod alert_life;
mod checkpoints;
mod consent;
mod crash;
mod demo;
mod dialect;
mod disk;
mod end_to_end;
mod erasure;
mod flood;
mod garbage;
mod hard_peers;
mod identity;
mod intake;
mod listener;
mod lookups;
mod measures;
mod messages;
mod mosquitto;
mod own_broker;
mod page;
mod planning;
mod points;
mod problems;
mod receiver;
mod recordings;
mod shed;
#[path = "../../../connectors/tests/it/small_disk.rs"]
mod small_disk;
mod supervision;
mod timetable;
mod usher;
mod webhook;
mod workers;

use std::time::Duration;

/// Tests fail with whatever went wrong.
type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Longer than anything here takes on a busy machine; reaching it is a failure, never a way of waiting.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a future, and fails when it takes too long.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(PATIENCE, future)
        .await
        .map_err(|_| format!("waited {PATIENCE:?} for {what}"))
}

/// Asks again and again until the answer is the one waited for, and fails with the last answer when it takes too long.
async fn until<T: std::fmt::Debug, F: Future<Output = Result<T, Box<dyn std::error::Error>>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
    is_it: impl Fn(&T) -> bool,
) -> Result<T, Box<dyn std::error::Error>> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let answer = ask().await?;
        if is_it(&answer) {
            return Ok(answer);
        }
        if std::time::Instant::now() > deadline {
            return Err(format!("waited {PATIENCE:?} for {what}; the last answer was {answer:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A peer that tests need: its path, or `None` with a printed reason. With `USHER_REQUIRE_PEERS=1` a missing one is a
/// failure.
fn peer(name: &str) -> Result<Option<std::path::PathBuf>, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(Into::into))
        .map(|folder: std::path::PathBuf| folder.join(name))
        .find(|program| program.is_file());
    if found.is_none() {
        if std::env::var("USHER_REQUIRE_PEERS").is_ok_and(|value| value == "1") {
            return Err(format!("USHER_REQUIRE_PEERS=1, but there is no {name}"));
        }
        eprintln!("skipped: there is no {name}");
    }
    Ok(found)
}
