//! Mentions keep log lines few where names come from outside: the first are said by name, of the rest how many.

/// Things said by name, each in a line of its own.
const BY_NAME_MAX: u64 = 100;

/// What to say of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mention {
    /// It has a line of its own.
    ByName,
    /// One line says how many there were by now.
    Count(u64),
    /// Nothing.
    Silently,
}

/// How many there were in this process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mentions(u64);

impl Mentions {
    /// There is one more. The first hundred have their names said, and then each time that they are ten times as many a
    /// line says so: 100,000 names are 103 lines.
    pub(crate) fn one_more(&mut self) -> Mention {
        self.0 += 1;
        match self.0 {
            ..=BY_NAME_MAX => Mention::ByName,
            count if count == 10_u64.pow(count.ilog10()) => Mention::Count(count),
            _ => Mention::Silently,
        }
    }

    /// How many there were.
    pub(crate) fn count(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_names_are_a_hundred_and_three_lines() {
        let mut mentions = Mentions::default();
        let said: Vec<Mention> = (0..100_000).map(|_| mentions.one_more()).collect();
        let by_name = said.iter().filter(|mention| **mention == Mention::ByName).count();
        let counted: Vec<_> = said
            .iter()
            .filter(|mention| matches!(mention, Mention::Count(_)))
            .collect();
        assert_eq!(by_name, 100);
        assert_eq!(
            counted,
            [
                &Mention::Count(1_000),
                &Mention::Count(10_000),
                &Mention::Count(100_000)
            ]
        );
        assert_eq!(mentions.count(), 100_000);
    }
}
