//! Picked rows: which rows of a batch are meant, in their order.

use std::ops::Range;

use arrow::array::BooleanArray;

/// Some rows of a batch. Mostly they follow one another, and then nothing is looked up to find them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Picked {
    /// Rows one behind the other.
    Run(Range<usize>),
    /// Any rows, ascending.
    Each(Vec<u32>),
}

impl Picked {
    /// No row.
    pub(crate) fn none() -> Self {
        Self::Run(0..0)
    }

    /// The first `rows` rows.
    pub(crate) fn first(rows: usize) -> Self {
        Self::Run(0..rows)
    }

    /// Takes in further rows, which stand behind all that are here.
    pub(crate) fn extend(&mut self, further: Range<usize>) {
        match self {
            Self::Run(run) if run.start == run.end => *run = further,
            Self::Run(run) if run.end == further.start => run.end = further.end,
            Self::Run(run) => {
                let rows = run.clone().chain(further);
                *self = Self::Each(rows.map(|row| row as u32).collect());
            }
            Self::Each(rows) => rows.extend(further.map(|row| row as u32)),
        }
    }

    /// The greatest of what stands at the rows; `None` where there is none.
    pub(crate) fn greatest<T: Ord + Copy>(&self, of_rows: &[T]) -> Option<T> {
        match self {
            Self::Run(run) => of_rows[run.clone()].iter().max().copied(),
            Self::Each(rows) => rows.iter().map(|row| of_rows[*row as usize]).max(),
        }
    }

    /// Those of the rows for which `mask` is true.
    pub(crate) fn filtered(&self, mask: &BooleanArray) -> Self {
        let mut rows = Vec::new();
        self.for_each(|row| {
            if mask.value(row) {
                rows.push(row as u32);
            }
        });
        Self::Each(rows)
    }

    /// Calls `each` with the rows in their order.
    pub(crate) fn for_each(&self, mut each: impl FnMut(usize)) {
        match self {
            Self::Run(run) => run.clone().for_each(each),
            Self::Each(rows) => {
                for row in rows {
                    each(*row as usize);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Picked;

    #[test]
    fn rows_that_follow_one_another_stay_a_run() {
        let mut picked = Picked::none();
        for further in [3..4, 4..9, 9..9] {
            picked.extend(further);
        }
        assert_eq!(picked, Picked::Run(3..9));
        picked.extend(11..13);
        picked.extend(20..21);
        assert_eq!(picked, Picked::Each(vec![3, 4, 5, 6, 7, 8, 11, 12, 20]));
    }
}
