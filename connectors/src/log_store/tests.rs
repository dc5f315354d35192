//! What only shows from inside: damage, failing disks, and how many commits there were.

use std::sync::Arc;

use super::*;
use crate::embedded_log::LogOptions;
use crate::log_writer::{self, WriteQueue};

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn record(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn store(folder: &tempfile::TempDir) -> Result<LogStore, LogError> {
    LogStore::open(folder.path(), LogOptions::default())
}

/// Replaces what lies at `first` with what `change` makes of it.
fn rewrite(store: &LogStore, first: u64, change: impl FnOnce(&mut Vec<u8>)) -> TestResult {
    store.with(|open| {
        let keyspace = &open.active().keyspace;
        let mut value = keyspace
            .get(first.to_be_bytes())
            .map_err(|error| store.failure(&error))?
            .expect("the batch was written")
            .to_vec();
        change(&mut value);
        keyspace
            .insert(first.to_be_bytes(), value)
            .map_err(|error| store.failure(&error))
    })?;
    Ok(())
}

#[test]
fn a_torn_batch_is_reported_after_what_lies_before_it_and_reading_goes_on_behind() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = store(&folder)?;
    for batch in ["a b", "c d", "e"] {
        let records: Vec<Bytes> = batch.split(' ').map(record).collect();
        store.commit(store.committed(), &records, 1)?;
    }
    rewrite(&store, 2, |value| value.truncate(value.len() - 1))?;
    let before = store.read(Offset(0), 100, 1 << 20)?;
    assert_eq!(before, [(Offset(0), record("a")), (Offset(1), record("b"))]);
    match store.read(Offset(2), 100, 1 << 20) {
        Err(LogError::Damaged { offset, resume, reason }) => {
            assert_eq!((offset, resume), (Offset(2), Offset(4)));
            assert!(reason.contains("checksum"), "{reason}");
        }
        other => return Err(format!("the damage went unnoticed: {other:?}").into()),
    }
    assert_eq!(store.read(Offset(4), 100, 1 << 20)?, [(Offset(4), record("e"))]);
    Ok(())
}

#[test]
fn a_missing_batch_is_damage_too() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = store(&folder)?;
    for text in ["a", "b", "c"] {
        store.commit(store.committed(), &[record(text)], 1)?;
    }
    store.with(|open| {
        open.active()
            .keyspace
            .remove(1_u64.to_be_bytes())
            .map_err(|error| store.failure(&error))
    })?;
    assert_eq!(store.read(Offset(0), 100, 1 << 20)?.len(), 1);
    assert!(matches!(
        store.read(Offset(1), 100, 1 << 20),
        Err(LogError::Damaged {
            offset: Offset(1),
            resume: Offset(2),
            ..
        })
    ));
    Ok(())
}

#[test]
fn a_disk_that_fails_once_delays_an_append_and_changes_nothing_else() -> TestResult {
    let folder = tempfile::tempdir()?;
    let (log, store) = log(&folder)?;
    log.push(vec![record("kept")], &store)?.wait_durable()?;
    store.faults.store(1, Ordering::Release);
    let append = log.push(vec![record("late")], &store)?;
    assert_eq!(append.first, Offset(1));
    append.wait_durable()?;
    log.push(vec![record("next")], &store)?.wait_durable()?;
    let records = store.read(Offset(0), 100, 1 << 20)?;
    let expected = ["kept", "late", "next"].map(record);
    assert_eq!(records, [0, 1, 2].map(|at| (Offset(at), expected[at as usize].clone())));
    assert_eq!(store.generation(), 1, "the database was opened anew");
    assert_eq!(store.trouble(), (None, 1));
    log.close();
    Ok(())
}

#[test]
fn a_disk_that_goes_on_failing_is_said_and_a_log_that_is_closed_gives_up() -> TestResult {
    let folder = tempfile::tempdir()?;
    let (log, store) = log(&folder)?;
    store.faults.store(u64::MAX, Ordering::Release);
    let appends = [
        log.push(vec![record("a")], &store)?,
        log.push(vec![record("b")], &store)?,
    ];
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let trouble = loop {
        if let (Some(trouble), 2..) = store.trouble() {
            break trouble;
        }
        assert!(std::time::Instant::now() < deadline, "nobody tried again");
        std::thread::yield_now();
    };
    let words = "nothing is acknowledged until this works again";
    assert!(trouble.reason.contains(words), "{}", trouble.reason);
    let health = log.health(store.committed());
    assert_eq!((health.waiting_records, health.waiting_bytes), (2, 2));
    log.close();
    for append in appends {
        let error = append.wait_durable().expect_err("nothing was written");
        assert!(matches!(error, LogError::Unwritable { .. }), "{error}");
    }
    assert_eq!((store.committed(), log.next()), (0, 0));
    Ok(())
}

#[test]
fn a_write_that_failed_and_is_there_all_the_same_is_there_once() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = store(&folder)?;
    let records = [record("a"), record("b")];
    store.commit(0, &[record("before")], 1)?;
    // As if the disk had taken it, and then said that it had not.
    store.commit(1, &records, 2)?;
    store.commit(1, &records, 3)?;
    store.commit(3, &[record("after")], 4)?;
    let read = store.read(Offset(0), 100, 1 << 20)?;
    let texts: Vec<_> = read.iter().map(|(_, record)| record.clone()).collect();
    assert_eq!(texts, ["before", "a", "b", "after"].map(record));
    let moved = store.commit(2, &[record("x"), record("y")], 5);
    let error = moved.expect_err("what is there is something else");
    assert!(
        error.to_string().contains("its end was offset 2 and is now offset 4"),
        "{error}"
    );
    Ok(())
}

#[test]
fn what_is_queued_while_the_disk_works_becomes_one_commit() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = Arc::new(store(&folder)?);
    let queue = Arc::new(WriteQueue::new(0));
    let appends: Result<Vec<_>, _> = (0..100)
        .map(|n| queue.push(vec![record(&n.to_string())], &store))
        .collect();
    // The writer starts only now, as one coming back from a slow sync would find things.
    queue.close();
    log_writer::run(&queue, &store);
    for append in appends? {
        append.wait_durable()?;
    }
    let commits = store.with(|open| open.active().keyspace.len().map_err(|error| store.failure(&error)))?;
    assert_eq!((commits, store.committed()), (1, 100));
    Ok(())
}

/// A log with its writer on a thread, as `open` makes one, but with the store in reach.
fn log(folder: &tempfile::TempDir) -> Result<(Arc<WriteQueue>, Arc<LogStore>), LogError> {
    let store = Arc::new(store(folder)?);
    let queue = Arc::new(WriteQueue::new(store.committed()));
    std::thread::spawn({
        let (queue, store) = (Arc::clone(&queue), Arc::clone(&store));
        move || log_writer::run(&queue, &store)
    });
    Ok((queue, store))
}
