//! Checkpoints as the engine uses them.

use bytes::Bytes;
use usher_connectors::checkpoint::{Change, Part, Update};
use usher_connectors::embedded_log::{self, LogOptions};
use usher_connectors::log::{Log, Offset};

use crate::TestResult;

#[test]
fn the_newest_checkpoint_is_there_after_a_restart_and_two_are_kept() -> TestResult {
    let folder = tempfile::tempdir()?;
    let engagement = |next: u64| Bytes::from(vec![u8::try_from(next).unwrap_or(0); 5_000_000]);
    let update = |next: u64| Update {
        next_offset: Offset(next),
        format: 2,
        parts: [
            Change {
                name: "engagement".to_owned(),
                begins_anew: true,
                segments: vec![engagement(next)],
            },
            Change {
                name: "outbox".to_owned(),
                begins_anew: true,
                segments: Vec::new(),
            },
        ]
        .map(Ok),
    };
    let parts = |next: u64| {
        vec![
            Part {
                name: "engagement".to_owned(),
                segments: vec![engagement(next)],
            },
            Part {
                name: "outbox".to_owned(),
                segments: Vec::new(),
            },
        ]
    };
    let (log, checkpoints) = embedded_log::open(folder.path(), LogOptions::default())?;
    assert_eq!(checkpoints.load()?.checkpoint, None);
    assert_eq!(checkpoints.keep_from(), None);
    for next in 1..=4 {
        log.append(vec![Bytes::from_static(b"event")])?.wait_durable()?;
        checkpoints.save(update(next))?;
    }
    drop((log, checkpoints));
    let (log, checkpoints) = embedded_log::open(folder.path(), LogOptions::default())?;
    let loaded = checkpoints.load()?;
    assert_eq!(loaded.checkpoint.map(|checkpoint| checkpoint.parts), Some(parts(4)));
    assert!(loaded.unreadable.is_empty(), "{:?}", loaded.unreadable);
    assert_eq!(checkpoints.keep_from(), Some(Offset(3)));
    assert_eq!(log.next(), Offset(4));
    checkpoints.save(update(5))?;
    assert_eq!(
        checkpoints.load()?.checkpoint.map(|checkpoint| checkpoint.parts),
        Some(parts(5))
    );
    Ok(())
}
