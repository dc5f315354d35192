//! Opening is becoming the owner of all partitions of an assignment, side by side.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use usher_connectors::log::{Epoch, LogError};

use super::OpenPartition;
use super::takeover::Partition;
use crate::workers::Assignment;

/// Partitions that are being opened and claimed.
pub(super) type Opening = mpsc::Receiver<Result<Vec<Partition>, LogError>>;

/// Begins to open all partitions of an assignment and to become their owner.
pub(super) fn opening(open: &OpenPartition, assignment: &Assignment) -> Opening {
    let (sender, opening) = mpsc::channel();
    let (open, assignment) = (Arc::clone(open), assignment.clone());
    std::thread::spawn(move || {
        // Whoever no longer waits has ended.
        let _ = sender.send(claimed(&open, &assignment));
    });
    opening
}

/// Opens all partitions of an assignment and becomes their owner. Blocks.
pub(super) fn claimed(open: &OpenPartition, assignment: &Assignment) -> Result<Vec<Partition>, LogError> {
    let opening: Vec<_> = assignment
        .partitions()
        .iter()
        .map(|number| {
            let (open, number, epoch) = (Arc::clone(open), *number, Epoch(assignment.epoch()));
            // Side by side: each takes as long as it has records.
            std::thread::spawn(move || {
                let log = open(number)?;
                log.claim(epoch)?;
                Ok((number, log))
            })
        })
        .collect();
    let opened = opening.into_iter().map(|thread| {
        let failed = |_| LogError::Unreadable {
            path: PathBuf::from("a partition"),
            cause: "a fault in the engine while opening it".to_owned(),
        };
        thread.join().map_err(failed)?
    });
    opened.collect()
}
