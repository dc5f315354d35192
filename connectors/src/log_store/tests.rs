//! What only shows from inside: damage, failing disks, and how many commits there were.

use std::sync::Arc;

use fjall::KeyspaceCreateOptions;

use super::*;
use crate::checkpoint::{Checkpoint, CheckpointStore};
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
fn a_full_disk_fails_the_append_and_a_later_one_gets_its_offset() -> TestResult {
    let folder = tempfile::tempdir()?;
    let (log, store) = log(&folder)?;
    log.push(vec![record("kept")], &store)?.wait_durable()?;
    store.fault.store(true, Ordering::Release);
    let failed = log.push(vec![record("lost")], &store)?;
    assert_eq!(failed.first, Offset(1));
    let error = failed.wait_durable().expect_err("the disk is full");
    assert!(matches!(error, LogError::Unwritable { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("nothing is acknowledged until this works again"),
        "{error}"
    );
    let again = log.push(vec![record("again")], &store)?;
    assert_eq!(again.first, Offset(1));
    again.wait_durable()?;
    let records = store.read(Offset(0), 100, 1 << 20)?;
    assert_eq!(records, [(Offset(0), record("kept")), (Offset(1), record("again"))]);
    assert_eq!(store.generation(), 1, "the database was opened anew");
    log.close();
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

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before_and_says_so() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = Arc::new(store(&folder)?);
    let checkpoints = CheckpointStore::new(Arc::clone(&store))?;
    let checkpoint = |next: u64| Checkpoint {
        next_offset: Offset(next),
        format: 3,
        parts: vec![
            ("windows".to_owned(), Bytes::from(vec![7; 3 << 20])),
            ("none".to_owned(), Bytes::new()),
        ],
    };
    for next in [10, 20] {
        checkpoints.save(&checkpoint(next))?;
    }
    assert_eq!(checkpoints.load()?.checkpoint, Some(checkpoint(20)));
    assert_eq!(checkpoints.keep_from()?, Some(Offset(10)));
    store.with(|open| {
        let name = format!("checkpoint-{:020}", 1);
        let keyspace = open
            .database
            .keyspace(&name, KeyspaceCreateOptions::default)
            .map_err(|error| store.failure(&error))?;
        // The second piece of the first part.
        keyspace
            .insert([0, 0, 0, 0, 0, 0, 0, 1], vec![8; 1 << 20])
            .map_err(|error| store.failure(&error))
    })?;
    let loaded = checkpoints.load()?;
    assert_eq!(loaded.checkpoint, Some(checkpoint(10)));
    assert_eq!(loaded.unreadable, ["checkpoint 1: part windows is not what was saved"]);
    Ok(())
}

#[test]
fn a_save_that_was_cut_off_never_happened() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = Arc::new(store(&folder)?);
    let checkpoints = CheckpointStore::new(Arc::clone(&store))?;
    let whole = Checkpoint {
        next_offset: Offset(5),
        format: 1,
        parts: vec![("a".to_owned(), record("state"))],
    };
    checkpoints.save(&whole)?;
    store.with(|open| {
        let name = format!("checkpoint-{:020}", 1);
        let keyspace = open
            .database
            .keyspace(&name, KeyspaceCreateOptions::default)
            .map_err(|error| store.failure(&error))?;
        keyspace
            .insert([0; 8], "half a part")
            .map_err(|error| store.failure(&error))
    })?;
    let again = CheckpointStore::new(Arc::clone(&store))?;
    let loaded = again.load()?;
    assert_eq!((loaded.checkpoint, loaded.unreadable.len()), (Some(whole.clone()), 0));
    again.save(&whole)?;
    assert_eq!(
        store.with(|open| Ok(open.database.keyspace_count()))?,
        3,
        "one segment and two checkpoints"
    );
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
