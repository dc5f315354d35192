//! Erasing a person: the links that name one of theirs, whether they stand or only the reference table has them.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::{Group, Identity, Link, Pair, Regrouping};
use crate::erasure::Who;

impl Identity {
    /// Forgets the links of whoever is to be erased; gives how many there were, and who is who without them. Where names that
    /// are not to be erased were linked with some that are, they are persons of their own by the links that are left.
    pub fn erase(&mut self, who: &Who) -> (u64, Option<Regrouping>) {
        let theirs: Vec<(Pair, Link)> = self.links_of(who);
        if theirs.is_empty() {
            return (0, None);
        }
        let mut before: Vec<Group> = Vec::new();
        for name in theirs.iter().flat_map(|((one, other), _)| [one, other]) {
            let group = self.group(name);
            if group.names.len() > 1 && !before.contains(&group) {
                before.push(group);
            }
        }
        for (key, link) in &theirs {
            let gone = Link {
                since: None,
                in_table: false,
                ..*link
            };
            self.put(key.clone(), gone);
        }
        let (mut after, mut seen) = (Vec::new(), FxHashSet::default());
        for name in before
            .iter()
            .flat_map(|group| &group.names)
            .filter(|name| !who.is(name))
        {
            if !seen.contains(name) {
                let group = self.connected(name);
                seen.extend(group.names.iter().map(Arc::clone));
                after.push(group);
            }
        }
        (theirs.len() as u64, Some(self.regroup(before, after)))
    }

    fn links_of(&self, who: &Who) -> Vec<(Pair, Link)> {
        let links = self.links.iter();
        let theirs = links.filter(|((one, other), _)| who.is(one) || who.is(other));
        theirs.map(|(key, link)| (key.clone(), *link)).collect()
    }
}
