//! The owner of a log is the latest epoch that was claimed, kept in the log's own database.

use fjall::{Database, KeyspaceCreateOptions, PersistMode};

use crate::log::Epoch;

/// The keyspace, which a log that was never claimed does not have.
const KEYSPACE: &str = "owner";
const KEY: &[u8] = b"epoch";

/// The latest epoch claimed; 0 when none was.
pub(crate) fn read(database: &Database) -> Result<Epoch, fjall::Error> {
    if !database.keyspace_exists(KEYSPACE) {
        return Ok(Epoch(0));
    }
    let kept = database.keyspace(KEYSPACE, KeyspaceCreateOptions::default)?.get(KEY)?;
    let epoch = kept.and_then(|bytes| Some(u64::from_be_bytes(bytes.as_ref().try_into().ok()?)));
    Ok(Epoch(epoch.unwrap_or(0)))
}

/// Keeps an epoch: durable when this returns.
pub(crate) fn write(database: &Database, epoch: Epoch) -> Result<(), fjall::Error> {
    let keyspace = database.keyspace(KEYSPACE, KeyspaceCreateOptions::default)?;
    let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
    batch.insert(&keyspace, KEY, epoch.0.to_be_bytes());
    batch.commit()
}
