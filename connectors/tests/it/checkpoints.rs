//! Checkpoints as the engine uses them.

use bytes::Bytes;
use usher_connectors::checkpoint::Checkpoint;
use usher_connectors::embedded_log::{self, LogOptions};
use usher_connectors::log::{Log, Offset};

use crate::TestResult;

#[test]
fn the_newest_checkpoint_is_there_after_a_restart_and_two_are_kept() -> TestResult {
    let folder = tempfile::tempdir()?;
    let checkpoint = |next: u64| Checkpoint {
        next_offset: Offset(next),
        format: 2,
        parts: vec![
            (
                "engagement".to_owned(),
                Bytes::from(vec![u8::try_from(next).unwrap_or(0); 5_000_000]),
            ),
            ("outbox".to_owned(), Bytes::from_static(b"")),
        ],
    };
    let (log, checkpoints) = embedded_log::open(folder.path(), LogOptions::default())?;
    assert_eq!(checkpoints.load()?.checkpoint, None);
    assert_eq!(checkpoints.keep_from()?, None);
    for next in 1..=4 {
        log.append(vec![Bytes::from_static(b"event")])?.wait_durable()?;
        checkpoints.save(&checkpoint(next))?;
    }
    drop((log, checkpoints));
    let (log, checkpoints) = embedded_log::open(folder.path(), LogOptions::default())?;
    let loaded = checkpoints.load()?;
    assert_eq!(loaded.checkpoint, Some(checkpoint(4)));
    assert!(loaded.unreadable.is_empty(), "{:?}", loaded.unreadable);
    assert_eq!(checkpoints.keep_from()?, Some(Offset(3)));
    assert_eq!(log.next(), Offset(4));
    checkpoints.save(&checkpoint(5))?;
    assert_eq!(checkpoints.load()?.checkpoint, Some(checkpoint(5)));
    Ok(())
}
