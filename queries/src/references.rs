//! References are the tables that are looked up and not read on: what each holds, and held before.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use datafusion::common::{DataFusionError, Result, exec_err, internal_datafusion_err};

use crate::snapshot::QuerySnapshot;

/// The name of their snapshot among those of queries, none of which has a blank in its name.
pub const REFERENCES: &str = "reference tables";

/// What a reference table holds from some time on.
#[derive(Debug, Clone)]
pub struct Version {
    /// No other version of any table has this number; of what was set later it is greater.
    pub number: u64,
    /// From which event time on it holds, microseconds; `i64::MIN` for the first version, which counts for everything
    /// before the second.
    pub from_us: i64,
    /// Its rows.
    pub rows: RecordBatch,
}

/// The reference tables: what each holds, and what it held before while somebody may still ask.
#[derive(Debug, Clone, Default)]
pub struct References {
    /// The versions of each table in the order of the times they hold from; none without one.
    tables: BTreeMap<String, Vec<Version>>,
    version: u64,
}

impl References {
    /// Replaces a table's rows, for all times.
    pub fn set(&mut self, name: &str, rows: RecordBatch) {
        let version = self.numbered(i64::MIN, rows);
        self.tables.insert(name.to_owned(), vec![version]);
    }

    /// A table holds these rows from an event time on, microseconds; before, what it held until now. With other columns
    /// than until now it holds them for all times.
    pub fn set_from(&mut self, name: &str, rows: RecordBatch, from_us: i64) {
        let before = self.tables.get(name).and_then(|versions| versions.first());
        if before.is_none_or(|before| before.rows.schema() != rows.schema()) {
            self.set(name, rows);
            return;
        }
        let version = self.numbered(from_us, rows);
        let versions = self.tables.entry(name.to_owned()).or_default();
        let at = versions.partition_point(|other| other.from_us < from_us);
        let holds_already = at > 0 && versions[at - 1].rows == version.rows;
        match versions.get_mut(at).filter(|other| other.from_us == from_us) {
            Some(same_time) => *same_time = version,
            None if holds_already => {}
            None => versions.insert(at, version),
        }
    }

    fn numbered(&mut self, from_us: i64, rows: RecordBatch) -> Version {
        self.version += 1;
        Version {
            number: self.version,
            from_us,
            rows,
        }
    }

    /// What a table holds now: its version that holds from the latest time on.
    pub fn get(&self, name: &str) -> Option<&Version> {
        self.versions(name).last()
    }

    /// All versions of a table in the order of time; the first counts for everything before, unless earlier ones were
    /// forgotten.
    pub fn versions(&self, name: &str) -> &[Version] {
        self.tables.get(name).map_or(&[], Vec::as_slice)
    }

    /// All tables as they are now.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RecordBatch)> {
        self.tables
            .iter()
            .filter_map(|(name, versions)| Some((name.as_str(), &versions.last()?.rows)))
    }

    /// Whether any table has a version beside the one that holds.
    pub(crate) fn has_history(&self) -> bool {
        self.tables.values().any(|versions| versions.len() > 1)
    }

    /// Forgets the versions that hold for no time from `time_us` on.
    pub(crate) fn forget_before(&mut self, time_us: i64) {
        for versions in self.tables.values_mut() {
            let past = versions.iter().skip(1).take_while(|next| next.from_us <= time_us);
            let past = past.count();
            versions.drain(..past);
        }
    }

    /// What these tables held, for a restart; `None` for no table.
    pub(crate) fn snapshot(&self, names: &BTreeSet<&str>) -> Result<Option<QuerySnapshot>> {
        let (mut places, mut parts) = (Vec::new(), Vec::new());
        for name in names {
            for version in self.versions(name) {
                places.push((*name, version.from_us));
                parts.push((parts.len(), version.rows.clone()));
            }
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let places = serde_json::to_string(&places).map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(Some(QuerySnapshot {
            name: REFERENCES.to_owned(),
            fingerprint: places,
            parts,
        }))
    }

    /// Takes back what tables held before a restart. What they were said to hold since holds from `changed_us` on, where
    /// it is something else.
    ///
    /// # Errors
    /// When a table has other columns than before: it has no past then. The others have theirs.
    pub(crate) fn restore(&mut self, snapshot: &QuerySnapshot, changed_us: i64) -> Result<()> {
        let places: Vec<(String, i64)> = serde_json::from_str(&snapshot.fingerprint)
            .map_err(|error| internal_datafusion_err!("the snapshot of the reference tables: {error}"))?;
        let mut kept: BTreeMap<String, Vec<(i64, RecordBatch)>> = BTreeMap::new();
        for ((name, from_us), (_, rows)) in places.into_iter().zip(&snapshot.parts) {
            kept.entry(name).or_default().push((from_us, rows.clone()));
        }
        let mut changed = Vec::new();
        for (name, versions) in kept {
            if !self.take_back(&name, versions, changed_us) {
                changed.push(name);
            }
        }
        if !changed.is_empty() {
            return exec_err!(
                "{} has other columns than before the restart; rows of then are joined with what it holds now",
                changed.join(", ")
            );
        }
        Ok(())
    }

    /// Takes back the versions that a table had before a restart. What it was said to hold since for all times holds
    /// from `since_us` on, where it is something else; false when its columns are others than before, and it has no
    /// past.
    fn take_back(&mut self, name: &str, kept: Vec<(i64, RecordBatch)>, since_us: i64) -> bool {
        let Some(now) = self.tables.get(name).cloned() else {
            return true; // nobody reads it any more
        };
        let schema = now.first().map(|version| version.rows.schema());
        if kept.is_empty() || kept.iter().any(|(_, rows)| Some(rows.schema()) != schema) {
            return false;
        }
        let since_us = kept.last().map_or(since_us, |(from_us, _)| since_us.max(*from_us));
        let kept: Vec<Version> = kept
            .into_iter()
            .map(|(from_us, rows)| self.numbered(from_us, rows))
            .collect();
        self.tables.insert(name.to_owned(), kept);
        for version in now {
            let from_us = if version.from_us == i64::MIN {
                since_us
            } else {
                version.from_us
            };
            self.set_from(name, version.rows, from_us);
        }
        true
    }
}
