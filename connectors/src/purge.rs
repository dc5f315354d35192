//! A purge makes what was overwritten or removed in a database unfindable on the disk.
//!
//! The storage engine keeps what was overwritten until it happens to merge the tables it lies in, and for as long in its
//! journal, which it begins anew after 64 MB. Here both are brought about: the journal is ended while the database is closed,
//! and then the tables are merged.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use fjall::{Database, Keyspace, KeyspaceCreateOptions};

/// A keyspace of its own, in which something is written so that the engine looks what it need not keep any more.
const MARKS: &str = "purged";
/// The engine writes memtables in threads of its own and says of none when it is done, so it is asked so often, so long apart.
const FLUSH_TRIES: u32 = 3_000;
const FLUSH_PAUSE: Duration = Duration::from_millis(10);
/// How often the engine is made to look for journals that it need not keep.
const LOOKS: u32 = 100;
/// How often for tables that were merged: the first time it drops versions before them, the second time the tables.
const LOOKS_MERGED: u32 = 2;

/// Ends the journals of a database that is closed: it begins a new one when it is opened. Gives those that were ended, which
/// are gone after [`merge`]. What was put aside because it was damaged is removed, for it may hold anything.
pub(crate) fn end_journals(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut ended: Vec<(u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_suffix(".jnl").and_then(|number| number.parse().ok()) {
            ended.push((number, path));
        } else if name.contains(".jnl.") && name.ends_with(".damaged") {
            std::fs::remove_file(&path)?;
        }
    }
    ended.sort_unstable();
    if let Some((last, _)) = ended.last() {
        // The one with the greatest number is written to, all others are waited for until their contents lie in tables.
        let next = dir.join(format!("{}.jnl", last + 1));
        OpenOptions::new().write(true).create_new(true).open(next)?.sync_all()?;
        File::open(dir)?.sync_all()?;
    }
    Ok(ended.into_iter().map(|(_, path)| path).collect())
}

/// Has what lies in memory written to tables, and waits for it.
pub(crate) fn flush<'k>(keyspaces: impl IntoIterator<Item = &'k Keyspace>) -> Result<(), fjall::Error> {
    let keyspaces: Vec<&Keyspace> = keyspaces.into_iter().collect();
    for keyspace in &keyspaces {
        keyspace.rotate_memtable()?;
    }
    keyspaces.into_iter().try_for_each(wait_until_flushed)
}

fn wait_until_flushed(keyspace: &Keyspace) -> Result<(), fjall::Error> {
    for _ in 0..FLUSH_TRIES {
        if keyspace.sealed_memtable_count() == 0 {
            return Ok(());
        }
        sleep(FLUSH_PAUSE);
    }
    Err(waited_in_vain("what lies in memory is not written to tables"))
}

/// Waits until the journals that [`end_journals`] has ended are gone, and merges the tables of keyspaces, so that what was
/// overwritten or removed in them is gone as well. All keyspaces that are written to have to be among `all`.
pub(crate) fn merge(
    database: &Database,
    all: &[Keyspace],
    merged: &[Keyspace],
    ended: &[PathBuf],
) -> Result<(), fjall::Error> {
    let marks = database.keyspace(MARKS, KeyspaceCreateOptions::default)?;
    flush(all)?;
    // Before anything is merged: that a journal is not needed any more is seen by what the tables have, and merging takes out
    // what says that something was removed.
    let mut looks = 0;
    while ended.iter().any(|journal| journal.exists()) {
        if looks == LOOKS {
            return Err(waited_in_vain("the journals that were ended are still there"));
        }
        look(&marks)?;
        // Whatever was written meanwhile, also to keyspaces that are none of these: the engine is about to flush those.
        flush(all)?;
        sleep(FLUSH_PAUSE);
        looks += 1;
    }
    for keyspace in merged {
        keyspace.major_compact()?;
    }
    (0..LOOKS_MERGED).try_for_each(|_| look(&marks))
}

/// Makes the engine look what it need not keep any more, which it does when something was written to a table.
fn look(marks: &Keyspace) -> Result<(), fjall::Error> {
    marks.insert("look", [])?;
    flush([marks])
}

fn waited_in_vain(what: &str) -> fjall::Error {
    fjall::Error::Io(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("{what}; it is tried again"),
    ))
}
