//! A partition is a part of a log that is a log itself; the site decides which part its records belong to.

use std::fmt;
use std::num::NonZeroU32;

/// The partition that holds the records of a site.
///
/// FNV-1a of 64 bits over the bytes of the site's id, its upper half xor its lower half, modulo the number of partitions.
/// The same on every machine and in every release: where a site's records are depends on it, so it may never change.
pub fn partition_of(site: &str, partitions: NonZeroU32) -> u32 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = site
        .bytes()
        .fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    // The low bits of FNV alone hardly mix: the lowest is the parity of the bytes.
    let folded = (hash >> 32) ^ (hash & 0xffff_ffff);
    u32::try_from(folded % u64::from(partitions.get())).expect("a remainder is less than what divided")
}

/// One partition of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Partition {
    index: u32,
    of: NonZeroU32,
}

impl Partition {
    /// The whole of a log that has one partition.
    pub const WHOLE: Partition = Partition {
        index: 0,
        of: NonZeroU32::MIN,
    };

    /// Partition `index`, from 0 on; none when there are not so many.
    pub fn new(index: u32, of: NonZeroU32) -> Option<Partition> {
        (index < of.get()).then_some(Partition { index, of })
    }

    /// Which one, from 0 on.
    pub fn index(self) -> u32 {
        self.index
    }

    /// How many the log has.
    pub fn of(self) -> NonZeroU32 {
        self.of
    }

    /// The partition of this text, as it is printed.
    pub(crate) fn parse(text: &str) -> Option<Partition> {
        let (index, of) = text.split_once("-of-")?;
        Partition::new(index.parse().ok()?, of.parse().ok()?)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-of-{}", self.index, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A site, its partition of 8 and of 1000.
    const KNOWN: [(&str, u32, u32); 6] = [
        ("", 1, 641),
        ("main", 2, 530),
        ("branch-1", 3, 931),
        ("branch-2", 6, 398),
        ("总馆", 6, 822),
        ("Ünter den Linden", 5, 773),
    ];

    fn partitions(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).expect("not zero")
    }

    #[test]
    fn a_site_is_where_it_always_was() {
        // Worked out apart from this program; a change here would lose every site's records.
        for (site, of_8, of_1000) in KNOWN {
            let found = (partition_of(site, partitions(8)), partition_of(site, partitions(1000)));
            assert_eq!(found, (of_8, of_1000), "{site}");
        }
    }

    #[test]
    fn one_partition_takes_everything_and_many_share_evenly() {
        let mut counts = [0_u32; 8];
        for number in 0..8_000 {
            let site = format!("branch-{number}");
            assert_eq!(partition_of(&site, NonZeroU32::MIN), 0);
            counts[partition_of(&site, partitions(8)) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_partition_is_printed_and_read_the_same_and_none_lies_outside() {
        let second = Partition::new(1, partitions(3)).expect("there are three");
        assert_eq!(Partition::parse(&second.to_string()), Some(second));
        assert_eq!(Partition::new(3, partitions(3)), None);
        for text in ["3-of-3", "1-of-0", "x-of-2", "1"] {
            assert_eq!(Partition::parse(text), None, "{text}");
        }
    }
}
