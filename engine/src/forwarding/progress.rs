//! Progress is how far a worker has come with the partitions that all can read, kept in a file beside its log.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::envelope::LogId;
use crate::workers::Assignment;

/// The file in the data folder.
const FILE: &str = "forwarding.json";

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Of this folder's log.
    pub(super) log: LogId,
    /// The assignment that was taken up last.
    pub(super) epoch: u64,
    /// How many partitions there are.
    pub(super) of: u32,
    /// Whether all that others had put into the partitions has been taken over under that assignment.
    pub(super) is_complete: bool,
    /// The offset of our log at which taking over began.
    pub(super) taken_over_from: u64,
    /// Every step of records of our log before this offset was told by others, where all of them were taken over.
    pub(super) told: Option<u64>,
    /// Every record of our log before this offset is in its partition.
    pub(super) forwarded: u64,
    /// Of each partition, the place behind what we know to have copied there.
    pub(super) partitions: BTreeMap<u32, u64>,
    /// Of each partition, up to where it was taken over.
    pub(super) taken: BTreeMap<u32, u64>,
    /// What was taken over: from and to which offset of our log. It is not copied back.
    pub(super) others: Vec<(u64, u64)>,
}

impl Progress {
    /// Of a folder in which nothing was done yet.
    pub(super) fn fresh(assignment: &Assignment) -> Self {
        Self {
            log: rand::random(),
            epoch: assignment.epoch(),
            of: assignment.of().get(),
            is_complete: false,
            taken_over_from: 0,
            told: None,
            forwarded: 0,
            partitions: assignment
                .partitions()
                .iter()
                .map(|partition| (*partition, 0))
                .collect(),
            taken: BTreeMap::new(),
            others: Vec::new(),
        }
    }

    /// Where taking a partition over begins: behind what was taken over before, and behind what is our own.
    pub(super) fn unread(&self, partition: u32) -> u64 {
        let at = |places: &BTreeMap<u32, u64>| places.get(&partition).copied().unwrap_or(0);
        at(&self.partitions).max(at(&self.taken))
    }

    /// Whether a record of our log was taken over.
    pub(super) fn is_of_others(&self, offset: u64) -> bool {
        self.others.iter().any(|(from, to)| (*from..*to).contains(&offset))
    }

    /// Reads the file of a data folder; none when there is none.
    ///
    /// # Errors
    /// In words, when it can't be read.
    pub(super) fn load(data: &Path) -> Result<Option<Self>, String> {
        let path = data.join(FILE);
        let words = |error: &dyn std::fmt::Display| format!("{} can't be read: {error}", path.display());
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| words(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(words(&error)),
        }
    }

    /// Writes it: there whole, or as before.
    ///
    /// # Errors
    /// In words, when the disk does not take it.
    pub(super) fn save(&self, data: &Path) -> Result<(), String> {
        let path = data.join(FILE);
        self.write(data, &path)
            .map_err(|error| format!("{} can't be written: {error}", path.display()))
    }

    fn write(&self, data: &Path, path: &PathBuf) -> io::Result<()> {
        let new = path.with_extension("new");
        let mut file = std::fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(self).map_err(io::Error::other)?)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        std::fs::File::open(data)?.sync_all()
    }

    /// What is wrong with taking up an assignment in this folder, and what would be right.
    pub(super) fn refuses(&self, assignment: &Assignment, data: &Path) -> Option<String> {
        let had: Vec<u32> = self.partitions.keys().copied().collect();
        if (self.of, had.as_slice()) != (assignment.of().get(), assignment.partitions()) {
            let before = Assignment::new(had, std::num::NonZeroU32::new(self.of)?, self.epoch);
            return Some(format!(
                "{} is of the partitions {before}, and this worker has {assignment}: what it knows of other sites would \
                 go on being told. An empty folder would be right, with --data: what it needs is read from Fluvio",
                data.display()
            ));
        }
        (self.epoch > assignment.epoch()).then(|| {
            format!(
                "{} was last used under the assignment {}, and this worker has {}; a larger epoch would be right",
                data.display(),
                self.epoch,
                assignment.epoch()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn assignment(partitions: &[u32], epoch: u64) -> Assignment {
        Assignment::new(partitions.to_vec(), NonZeroU32::new(4).expect("not zero"), epoch)
    }

    #[test]
    fn progress_is_read_as_it_was_saved_and_fits_one_assignment() -> Result<(), String> {
        let data = tempfile::tempdir().map_err(|error| error.to_string())?;
        assert_eq!(Progress::load(data.path())?, None);
        let progress = Progress::fresh(&assignment(&[0, 2], 3));
        progress.save(data.path())?;
        assert_eq!(Progress::load(data.path())?, Some(progress.clone()));
        assert_eq!(progress.refuses(&assignment(&[0, 2], 3), data.path()), None);
        assert_eq!(progress.refuses(&assignment(&[0, 2], 4), data.path()), None);
        let other = progress.refuses(&assignment(&[0], 4), data.path()).unwrap_or_default();
        assert!(
            other.contains("of the partitions 0.2-of-4, and this worker has 0-of-4"),
            "{other}"
        );
        let older = progress
            .refuses(&assignment(&[0, 2], 2), data.path())
            .unwrap_or_default();
        assert!(older.contains("a larger epoch would be right"), "{older}");
        Ok(())
    }
}
