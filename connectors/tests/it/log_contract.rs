//! What every log must do. One function makes the log; a second kind of log is a second such function.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use usher_connectors::embedded_log::{self, EmbeddedLog, LogOptions};
use usher_connectors::log::{Log, LogError, Offset};

use crate::{TestResult, soon};

fn open(folder: &Path, options: LogOptions) -> Result<EmbeddedLog, LogError> {
    embedded_log::open(folder, options).map(|(log, _)| log)
}

fn record(n: usize) -> Bytes {
    Bytes::from(format!("record {n}"))
}

fn records(range: std::ops::Range<usize>) -> Vec<Bytes> {
    range.map(record).collect()
}

fn read_all(log: &impl Log) -> Result<Vec<(Offset, Bytes)>, LogError> {
    let mut all = Vec::new();
    let mut from = log.oldest();
    loop {
        let some = log.read(from, 7, 1 << 20)?;
        match some.last() {
            Some((last, _)) => from = Offset(last.0 + 1),
            None => return Ok(all),
        }
        all.extend(some);
    }
}

#[test]
fn records_come_back_in_order_at_consecutive_offsets() -> TestResult {
    let folder = tempfile::tempdir()?;
    let log = open(folder.path(), LogOptions::default())?;
    assert_eq!(
        (log.oldest(), log.next(), log.durable()),
        (Offset(0), Offset(0), Offset(0))
    );
    assert_eq!(log.read(Offset(0), 10, 10)?, []);
    let first = log.append(records(0..3))?;
    let second = log.append(records(3..4))?;
    let nothing = log.append(Vec::new())?;
    assert_eq!(
        (first.first, first.next(), second.first, nothing.first),
        (Offset(0), Offset(3), Offset(3), Offset(4))
    );
    nothing.wait_durable()?;
    second.wait_durable()?;
    first.wait_durable()?;
    assert_eq!((log.next(), log.durable()), (Offset(4), Offset(4)));
    let all: Vec<_> = (0..4).map(|n| (Offset(n as u64), record(n))).collect();
    assert_eq!(read_all(&log)?, all);
    assert_eq!(log.read(Offset(1), 2, 1 << 20)?, all[1..3]);
    assert_eq!(log.read(Offset(4), 2, 1 << 20)?, []);
    Ok(())
}

#[test]
fn a_read_is_bounded_by_bytes_but_always_gives_one_record() -> TestResult {
    let folder = tempfile::tempdir()?;
    let log = open(folder.path(), LogOptions::default())?;
    log.append(vec![
        Bytes::from(vec![1; 100]),
        Bytes::from(vec![2; 100]),
        Bytes::from(vec![3; 100]),
    ])?
    .wait_durable()?;
    assert_eq!(log.read(Offset(0), 10, 250)?.len(), 2);
    assert_eq!(log.read(Offset(0), 10, 200)?.len(), 2);
    assert_eq!(log.read(Offset(0), 10, 1)?.len(), 1);
    assert_eq!(log.read(Offset(0), 0, 1000)?.len(), 0);
    Ok(())
}

#[test]
fn a_restart_continues_at_the_next_offset() -> TestResult {
    let folder = tempfile::tempdir()?;
    for round in 0..3 {
        let log = open(folder.path(), LogOptions::default())?;
        assert_eq!(log.next(), Offset(round * 10));
        // Not waited for: closing writes what is queued.
        let _ = log.append(records(0..10))?;
    }
    let log = open(folder.path(), LogOptions::default())?;
    assert_eq!(log.durable(), Offset(30));
    assert_eq!(read_all(&log)?.len(), 30);
    Ok(())
}

#[test]
fn what_was_durable_survives_a_crash_and_a_torn_end() -> TestResult {
    let folder = tempfile::tempdir()?;
    let crashed = tempfile::tempdir()?;
    let log = open(folder.path(), LogOptions::default())?;
    for n in 0..20 {
        log.append(vec![record(n)])?.wait_durable()?;
    }
    // A copy of the open folder is what a crash leaves behind.
    copy(folder.path(), crashed.path())?;
    drop(log);
    // And here the crash came in the middle of a write.
    let torn = tempfile::tempdir()?;
    copy(crashed.path(), torn.path())?;
    let journal = newest_journal(torn.path())?;
    let bytes = std::fs::read(&journal)?;
    let half_again = bytes.len() - bytes.len() / 20 / 2;
    std::fs::OpenOptions::new()
        .append(true)
        .open(&journal)?
        .write_all(&bytes[half_again..])?;
    for left_behind in [crashed.path(), torn.path()] {
        let log = open(left_behind, LogOptions::default())?;
        assert_eq!(read_all(&log)?.len(), 20);
        log.append(vec![record(20)])?.wait_durable()?;
        assert_eq!(read_all(&log)?.last(), Some(&(Offset(20), record(20))));
    }
    Ok(())
}

fn newest_journal(folder: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            journals.push(path);
        }
    }
    journals.sort();
    journals.pop().ok_or_else(|| "there is no journal".into())
}

#[test]
fn appends_of_many_threads_are_all_there_once_and_in_each_threads_order() -> TestResult {
    const THREADS: usize = 8;
    const APPENDS: usize = 200;
    let folder = tempfile::tempdir()?;
    let log = Arc::new(open(folder.path(), LogOptions::default())?);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || -> Result<(), LogError> {
                for n in 0..APPENDS {
                    let pair = vec![
                        Bytes::from(format!("{thread}/{n}/a")),
                        Bytes::from(format!("{thread}/{n}/b")),
                    ];
                    let append = log.append(pair.clone())?;
                    let first = append.first;
                    append.wait_durable()?;
                    let there = log.read(first, 2, 1 << 20)?;
                    assert_eq!(there.iter().map(|(_, record)| record.clone()).collect::<Vec<_>>(), pair);
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a thread failed")??;
    }
    let all = read_all(&*log)?;
    assert_eq!(all.len(), THREADS * APPENDS * 2);
    for (at, (offset, _)) in all.iter().enumerate() {
        assert_eq!(offset.0, at as u64);
    }
    for thread in 0..THREADS {
        let prefix = format!("{thread}/");
        let own: Vec<_> = all
            .iter()
            .filter(|(_, record)| record.starts_with(prefix.as_bytes()))
            .collect();
        for (at, (_, record)) in own.iter().enumerate() {
            let half = if at % 2 == 0 { "a" } else { "b" };
            assert_eq!(record, format!("{thread}/{}/{half}", at / 2).as_bytes());
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_full_queue_says_so_and_room_comes() -> TestResult {
    let folder = tempfile::tempdir()?;
    let options = LogOptions {
        queue_appends: 4,
        queue_bytes: 4 << 20,
        append_bytes_max: 1 << 20,
        ..LogOptions::default()
    };
    let log = open(folder.path(), options)?;
    let too_large = log.append(vec![Bytes::from(vec![0; (1 << 20) + 1])]);
    assert!(matches!(too_large, Err(LogError::TooLarge { .. })), "{too_large:?}");
    let mut busy = 0;
    let mut appends = Vec::new();
    while appends.len() < 200 {
        match log.append(vec![Bytes::from(vec![appends.len() as u8; 100_000])]) {
            Ok(append) => appends.push(append),
            Err(LogError::Busy) => {
                busy += 1;
                soon("room", log.room()).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    assert!(busy > 0, "a queue of four never filled up");
    for (at, append) in appends.into_iter().enumerate() {
        assert_eq!(append.first, Offset(at as u64));
        soon("the disk", append.durable()).await??;
    }
    Ok(())
}

/// Segments of a few records each.
fn small_segments() -> LogOptions {
    LogOptions {
        segment_bytes: 1_000,
        retention_age: None,
        retention_bytes: None,
        ..LogOptions::default()
    }
}

fn fill(log: &impl Log, count: usize) -> Result<(), LogError> {
    for _ in 0..count {
        log.append(vec![Bytes::from(vec![5; 200])])?.wait_durable()?;
    }
    Ok(())
}

#[test]
fn retention_by_size_drops_the_oldest_and_never_what_is_still_needed() -> TestResult {
    let folder = tempfile::tempdir()?;
    let options = LogOptions {
        retention_bytes: Some(8_000),
        ..small_segments()
    };
    let log = open(folder.path(), options.clone())?;
    fill(&log, 100)?;
    assert_eq!(
        log.retain(Offset(0), 0)?.dropped_records,
        0,
        "all of it is still needed"
    );
    let retained = log.retain(Offset(30), 0)?;
    assert!(
        retained.oldest > Offset(20) && retained.oldest <= Offset(30),
        "{retained:?}"
    );
    assert_eq!(
        (retained.dropped_records, log.oldest()),
        (retained.oldest.0, retained.oldest)
    );
    let retained = log.retain(log.next(), 0)?;
    assert!(
        retained.oldest >= Offset(60) && retained.oldest < Offset(75),
        "{retained:?}"
    );
    assert!(matches!(log.read(Offset(0), 1, 1), Err(LogError::Expired(oldest)) if oldest == retained.oldest));
    assert_eq!(log.read(retained.oldest, 1, 1)?.len(), 1);
    drop(log);
    let log = open(folder.path(), options)?;
    assert_eq!((log.oldest(), log.next()), (retained.oldest, Offset(100)));
    assert_eq!(read_all(&log)?.len() as u64, 100 - retained.oldest.0);
    Ok(())
}

#[test]
fn retention_by_age_reaches_even_a_site_gone_quiet() -> TestResult {
    let folder = tempfile::tempdir()?;
    let options = LogOptions {
        retention_age: Some(Duration::from_secs(3600)),
        ..small_segments()
    };
    let log = open(folder.path(), options.clone())?;
    fill(&log, 20)?;
    let now_us = i64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_micros(),
    )?;
    assert_eq!(log.retain(log.next(), now_us)?.dropped_records, 0, "all of it is young");
    let later_us = now_us + 2 * 3600 * 1_000_000;
    let oldest = log.retain(Offset(10), later_us)?.oldest;
    assert!(oldest > Offset(0) && oldest <= Offset(10), "{oldest}");
    assert_eq!(log.retain(log.next(), later_us)?.oldest, Offset(20));
    assert_eq!(log.read(Offset(20), 1, 1)?, []);
    assert!(matches!(log.read(Offset(19), 1, 1), Err(LogError::Expired(Offset(20)))));
    drop(log);
    let log = open(folder.path(), options)?;
    assert_eq!((log.oldest(), log.next()), (Offset(20), Offset(20)));
    fill(&log, 1)?;
    assert_eq!(log.read(Offset(20), 9, 9)?.len(), 1);
    Ok(())
}

#[test]
fn a_folder_in_use_is_refused_in_words() -> TestResult {
    let folder = tempfile::tempdir()?;
    let _log = open(folder.path(), LogOptions::default())?;
    let second = open(folder.path(), LogOptions::default())
        .err()
        .ok_or("it was opened twice")?;
    assert!(matches!(second, LogError::InUse { .. }), "{second}");
    assert!(second.to_string().contains("open in another process"), "{second}");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
