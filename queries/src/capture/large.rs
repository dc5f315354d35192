//! Large rows that are taken again for the same capture replace those that were taken before.

use rustc_hash::FxHashMap;

use crate::keys::Group;
use crate::window::Span;

/// In which batches the large rows are that were taken since the last capture.
#[derive(Default)]
pub(super) struct Large {
    batch_of: FxHashMap<(Span, Group), usize>,
    /// Of each batch the entities whose newest rows it has.
    entities: FxHashMap<usize, usize>,
}

impl Large {
    /// A batch has the newest rows of these entities. Gives the batches that have no newest ones any more.
    pub(super) fn note(&mut self, batch: usize, of: impl Iterator<Item = (Span, Group)>) -> Vec<usize> {
        let mut replaced = Vec::new();
        for entity in of {
            let before = self.batch_of.insert(entity, batch);
            if before == Some(batch) {
                continue;
            }
            *self.entities.entry(batch).or_default() += 1;
            let Some(before) = before else { continue };
            if let Some(entities) = self.entities.get_mut(&before) {
                *entities -= 1;
                if *entities == 0 {
                    self.entities.remove(&before);
                    replaced.push(before);
                }
            }
        }
        replaced
    }
}
