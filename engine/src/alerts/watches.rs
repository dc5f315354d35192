//! Watches keep a watch for each subject of each rule, and note which of them change.
//!
//! A checkpoint shares them: one that changes afterwards is copied then, and no other.

use std::collections::BTreeMap;
use std::ops::Bound::Included;
use std::sync::Arc;

use super::watch::Watch;
use crate::capture::{Json, Since};
use crate::changes::Changes;

/// A watch as a checkpoint has it.
pub(super) type KeptWatch = Json<Arc<Watch>>;

/// All watches, by the key of rule and subject. In a tree: a hash table of a hundred thousand that grows moves all of them at
/// once, and events wait for that.
#[derive(Debug, Default)]
pub(super) struct Watches {
    by_key: BTreeMap<Arc<str>, KeptWatch>,
    changes: Changes<Arc<str>, KeptWatch>,
}

impl Watches {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn contains_key(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Watch> {
        self.by_key.get(key).map(|Json(watch)| &**watch)
    }

    /// To change it, which is noted.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Watch> {
        // The key as it is kept, and the watch, in one search.
        let (key, Json(watch)) = self.by_key.range_mut::<str, _>((Included(key), Included(key))).next()?;
        self.changes.note(key);
        Some(Arc::make_mut(watch))
    }

    /// The key as it is kept.
    pub(super) fn key(&self, key: &str) -> Option<&Arc<str>> {
        self.by_key.get_key_value(key).map(|(key, _)| key)
    }

    pub(super) fn insert(&mut self, key: Arc<str>, watch: Watch) {
        self.changes.note(&key);
        self.by_key.insert(key, Json(Arc::new(watch)));
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Some((key, _)) = self.by_key.remove_entry(key) {
            self.changes.note(&key);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Watch)> {
        self.by_key.iter().map(|(key, Json(watch))| (key, &**watch))
    }

    /// Takes watches that changed since the last checkpoint, about `room` of them, ahead of the next one.
    pub(super) fn gather(&mut self, room: &mut usize) {
        self.changes.gather(room, &self.by_key);
    }

    /// For a checkpoint: the watches that changed since the last one.
    pub(super) fn capture(&mut self) -> Since<Arc<str>, KeptWatch> {
        self.changes.take(&self.by_key)
    }

    /// The next capture is to hold everything.
    pub(super) fn capture_anew(&mut self) {
        self.changes.begin_anew();
    }
}
