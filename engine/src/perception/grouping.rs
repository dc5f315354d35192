//! Grouping is telling queries who is in which group, by how persons are called now.

use arrow::array::RecordBatch;

use super::Perception;
use crate::groups::MEMBERSHIPS;

impl Perception {
    /// Takes the groups as the config folder has them, also of persons who were erased since it was read.
    pub fn begin_groups(&mut self) {
        self.groups = self.options.groups.clone();
        self.tell_groups();
    }

    /// To be called behind what is said of names.
    pub(super) fn tell_changed_groups(&mut self) {
        if self.groups.is_stale() {
            self.tell_groups();
        }
    }

    /// To be called when groups have changed.
    pub(super) fn tell_groups(&mut self) {
        let memberships = self.groups.memberships(self.identity.aliases());
        self.know_memberships(memberships);
    }

    /// Queries join these rows from now on.
    pub(crate) fn know_memberships(&mut self, memberships: RecordBatch) {
        self.queries.set_reference(MEMBERSHIPS, memberships);
    }
}
