//! Checkpoints on the real binary: damaged ones, changed queries, another version.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::usher::{Usher, program};
use crate::{TestResult, until};

const OWN: &str = "CREATE QUERY passages AS SELECT zone, count(*) AS n FROM gate GROUP BY zone;";

/// The files of checkpoints, the oldest first.
fn files(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data.join("log/checkpoints"));
    let entries = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "checkpoint"))
        .collect();
    files.sort();
    files
}

/// Waits until two checkpoints have been saved since now.
async fn saved_twice(usher: &Usher) -> TestResult {
    let newest = || files(&usher.data()).last().cloned();
    for _ in 0..2 {
        let before = newest();
        // Nothing is saved where nothing is new.
        usher
            .publish("usher/in/main/reading-room/seat/rr-001", r#"{"state":"free"}"#)
            .await?;
        until("a checkpoint", || async { Ok(newest()) }, |now| *now > before).await?;
    }
    Ok(())
}

fn damage(path: &Path) -> TestResult {
    let mut bytes = std::fs::read(path)?;
    bytes[0] ^= 1;
    Ok(std::fs::write(path, bytes)?)
}

async fn recovery(usher: &Usher) -> Result<Value, Box<dyn std::error::Error>> {
    let status = usher.get("/api/v1/status").await?;
    Ok(status["recovery"].clone())
}

async fn persons(usher: &Usher) -> Result<Value, Box<dyn std::error::Error>> {
    Ok(usher.get("/api/v1/zones/reading-room").await?["persons"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_checkpoint_gives_way_to_the_one_before_and_the_last_to_the_log() -> TestResult {
    let usher = Usher::start()?;
    for number in 0..7 {
        let payload = format!(r#"{{"id":"e{number}","in":2,"out":1}}"#);
        usher.publish("usher/in/main/reading-room/gate/door", &payload).await?;
    }
    saved_twice(&usher).await?;
    let data = usher.data();
    let crashed = usher.crash()?;
    let [.., newest] = &files(&data)[..] else {
        return Err("there is a checkpoint".into());
    };
    damage(newest)?;
    let usher = crashed.start_again()?;
    let found = recovery(&usher).await?;
    assert_eq!(found["decision"], "kept", "{found}");
    let unusable = found["unusable"][0].as_str().unwrap_or_default();
    assert!(unusable.contains("does not hold at 0 what was saved"), "{found}");
    assert_eq!(found["unusable"].as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(persons(&usher).await?, 7);
    let data = usher.data();
    let crashed = usher.crash()?;
    for path in files(&data) {
        damage(&path)?;
    }
    let usher = crashed.start_again()?;
    let found = recovery(&usher).await?;
    assert_eq!(found["decision"], "rebuilt", "{found}");
    assert_eq!(found["replayed_from"], 0, "{found}");
    assert_eq!(persons(&usher).await?, 7);
    let shown = Command::new(program())
        .args(["status", "--http", &usher.http])
        .output()?;
    let shown = String::from_utf8(shown.stdout)?;
    assert!(shown.contains("state       rebuilt from the log"), "{shown}");
    assert!(shown.contains("  NOT USED  checkpoint"), "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_was_changed_is_worked_out_again_from_the_log() -> TestResult {
    let usher = Usher::start_with_queries(OWN)?;
    for number in 0..5 {
        let payload = format!(r#"{{"id":"e{number}","in":3}}"#);
        usher.publish("usher/in/main/reading-room/gate/door", &payload).await?;
    }
    saved_twice(&usher).await?;
    let own = usher.data().join("../config/queries/own.sql");
    let crashed = usher.crash()?;
    std::fs::write(&own, OWN.replace("count(*) AS n", "sum(entered) AS n"))?;
    let usher = crashed.start_again()?;
    let found = recovery(&usher).await?;
    assert_eq!(found["decision"], "kept", "{found}");
    let queries = found["queries"].as_array().cloned().unwrap_or_default();
    let own_one = serde_json::json!({"query": "passages", "decision": "rebuilt", "reason": "it was changed"});
    assert_eq!(queries, [own_one], "{found}");
    assert_eq!(usher.query("SELECT n FROM passages").await?[0]["n"], 15);
    // What was not changed went on.
    assert_eq!(persons(&usher).await?, 15);
    // One that is gone is dropped, and said to be.
    saved_twice(&usher).await?;
    let own = usher.data().join("../config/queries/own.sql");
    let crashed = usher.crash()?;
    std::fs::remove_file(&own)?;
    let usher = crashed.start_again()?;
    let found = recovery(&usher).await?;
    assert_eq!(found["queries"][0]["decision"], "dropped", "{found}");
    Ok(())
}

/// As in the trailer of a file: the usual checksum of 32 bits.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

fn contents(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, std::io::Error> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(contents(&path)?);
        } else {
            all.insert(path.clone(), std::fs::read(&path)?);
        }
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_version_saved_is_refused_and_an_older_form_rebuilt() -> TestResult {
    let usher = Usher::start()?;
    usher
        .publish("usher/in/main/reading-room/gate/door", r#"{"id":"e","in":4}"#)
        .await?;
    saved_twice(&usher).await?;
    let data = usher.data();
    let crashed = usher.crash()?;
    let set_format = |format: u8| -> TestResult {
        for path in files(&data) {
            let mut bytes = std::fs::read(&path)?;
            let trailer = bytes.len() - 40;
            bytes[trailer + 12] = format;
            let end = bytes.len() - 4;
            let crc = crc32(&bytes[trailer..end]).to_le_bytes();
            bytes[end..].copy_from_slice(&crc);
            std::fs::write(path, bytes)?;
        }
        Ok(())
    };
    set_format(9)?;
    let checkpoints = data.join("log/checkpoints");
    let before = contents(&checkpoints)?;
    let refused = Command::new(program())
        .args(["run", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--config"])
        .arg(data.join("../config"))
        .arg("--data")
        .arg(&data)
        .output()?;
    let words = String::from_utf8(refused.stderr)?;
    assert_eq!(refused.status.code(), Some(2), "{words}");
    assert!(
        words.contains("were written by a newer Usher: they have form 9, and this one reads form 8"),
        "{words}"
    );
    assert_eq!(contents(&checkpoints)?, before);
    set_format(2)?;
    let usher = crashed.start_again()?;
    let found = recovery(&usher).await?;
    assert_eq!(found["decision"], "rebuilt", "{found}");
    assert!(found["unusable"].to_string().contains("it has form 2"), "{found}");
    assert_eq!(persons(&usher).await?, 4);
    Ok(())
}
