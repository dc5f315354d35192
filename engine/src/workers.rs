//! A worker is one of several engines that share the sites: which of them are its own, and since which assignment.

use std::fmt;
use std::num::NonZeroU32;

use usher_connectors::partition::partition_of;

use crate::topic::PREFIX;

/// Which partitions are whose, as an operator said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    partitions: Vec<u32>,
    of: NonZeroU32,
    epoch: u64,
}

impl Default for Assignment {
    /// One worker that has everything.
    fn default() -> Self {
        Self::new(vec![0], NonZeroU32::MIN, 0)
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.partitions.iter().map(u32::to_string).collect();
        write!(out, "{}-of-{}", numbers.join("."), self.of)
    }
}

impl Assignment {
    /// These partitions of so many, under this epoch.
    pub fn new(mut partitions: Vec<u32>, of: NonZeroU32, epoch: u64) -> Self {
        partitions.sort_unstable();
        partitions.dedup();
        Self { partitions, of, epoch }
    }

    /// Its partitions, in order.
    pub fn partitions(&self) -> &[u32] {
        &self.partitions
    }

    /// How many there are.
    pub fn of(&self) -> NonZeroU32 {
        self.of
    }

    /// The number of the assignment; 0 where nobody is assigned anything.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether there is no other worker.
    pub fn has_all(&self) -> bool {
        self.partitions.len() == self.of.get() as usize
    }

    /// The partition of a site.
    pub fn partition_of(&self, site: &str) -> u32 {
        partition_of(site, self.of)
    }

    /// Whether a site is this worker's.
    pub fn owns(&self, site: &str) -> bool {
        self.has_all() || self.partitions.binary_search(&self.partition_of(site)).is_ok()
    }

    /// Whether messages of a topic are this worker's. The site decides; where there is none, anybody may say so.
    pub fn takes(&self, topic: &str) -> bool {
        self.has_all() || site_in(topic).is_none_or(|site| self.owns(site))
    }
}

/// The site in an input topic.
pub(crate) fn site_in(topic: &str) -> Option<&str> {
    topic.strip_prefix(PREFIX)?.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_site_is_exactly_one_workers() {
        let of = NonZeroU32::new(4).expect("not zero");
        let workers = [vec![2, 0, 2], vec![1], vec![3]].map(|partitions| Assignment::new(partitions, of, 1));
        assert_eq!(workers[0].to_string(), "0.2-of-4");
        for number in 0..1_000 {
            let topic = format!("usher/in/branch-{number}/hall/gate/door");
            assert_eq!(
                workers.iter().filter(|worker| worker.takes(&topic)).count(),
                1,
                "{topic}"
            );
        }
        assert!(Assignment::default().takes("usher/in/main/hall/gate/door"));
        assert!(workers.iter().all(|worker| worker.takes("something/else")));
    }
}
