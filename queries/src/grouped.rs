//! Columns with a place a group: where the groups of a part follow each other, a loop over them is one over memory.

use std::ops::Range;

use crate::keys::Group;

/// The places of `groups`, if each stands right behind the one before it.
fn run_of(groups: &[Group]) -> Option<Range<usize>> {
    let (first, last) = (*groups.first()?, *groups.last()?);
    if last.wrapping_sub(first) as usize != groups.len() - 1 {
        return None;
    }
    // Without an early end, so that many are looked at at once: this stands before every loop over a column.
    let differences = groups.iter().zip(0..).fold(0, |so_far, (group, at): (&Group, Group)| {
        so_far | (group ^ first.wrapping_add(at))
    });
    let is_run = differences == 0;
    is_run.then(|| first as usize..first as usize + groups.len())
}

/// Calls `each` with the place of each of `groups`, which are below the column's length.
pub(crate) fn for_each<T>(column: &mut [T], groups: &[Group], mut each: impl FnMut(&mut T)) {
    match run_of(groups) {
        Some(run) => column[run].iter_mut().for_each(each),
        None => groups.iter().for_each(|group| each(&mut column[*group as usize])),
    }
}

/// Calls `each` with the places of each of `groups` in two columns, which are below the length of both.
pub(crate) fn for_each_pair<T, U>(into: &mut [T], from: &[U], groups: &[Group], mut each: impl FnMut(&mut T, &U)) {
    match run_of(groups) {
        Some(run) => {
            for (into, from) in into[run.clone()].iter_mut().zip(&from[run]) {
                each(into, from);
            }
        }
        None => {
            for group in groups {
                each(&mut into[*group as usize], &from[*group as usize]);
            }
        }
    }
}

/// Whether `is_so` holds for the places of all `groups`, which are below the column's length.
pub(crate) fn all<T>(column: &[T], groups: &[Group], is_so: impl Fn(&T) -> bool) -> bool {
    match run_of(groups) {
        // Without an early end, so that many are looked at at once.
        Some(run) => column[run].iter().fold(true, |so_far, place| so_far & is_so(place)),
        None => groups.iter().all(|group| is_so(&column[*group as usize])),
    }
}

/// What stands at the places of `groups`, in their order; they are below the column's length.
pub(crate) fn picked<T: Copy>(column: &[T], groups: &[Group]) -> Vec<T> {
    match run_of(groups) {
        Some(run) => column[run].to_vec(),
        None => groups.iter().map(|group| column[*group as usize]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{all, for_each, for_each_pair, picked, run_of};

    #[test]
    fn a_run_has_no_gap_and_no_step_back() {
        assert_eq!(run_of(&[3, 4, 5]), Some(3..6));
        assert_eq!(run_of(&[7]), Some(7..8));
        assert_eq!(run_of(&[]), None);
        assert_eq!(run_of(&[3, 5, 4]), None, "first and last alone don't tell");
        assert_eq!(run_of(&[3, 4, 4]), None);
    }

    proptest! {
        #[test]
        fn runs_and_single_groups_come_to_the_same(first in 0..50_u32, len in 0..20_u32, turn in 0..20_usize) {
            let run: Vec<u32> = (first..first + len).collect();
            let mut turned = run.clone();
            turned.rotate_left(turn % run.len().max(1));
            let from: Vec<u64> = (0..100).collect();
            let mut columns = [vec![0_u64; 100], vec![0_u64; 100]];
            for (column, groups) in columns.iter_mut().zip([&run, &turned]) {
                for_each(column, groups, |place| *place += 1);
                for_each_pair(column, &from, groups, |into, from| *into += from);
                prop_assert!(all(column, groups, |place| *place > 0));
                prop_assert_eq!(all(column, groups, |place| *place != 1 + u64::from(first)), len == 0);
                prop_assert_eq!(
                    picked(column, groups),
                    groups.iter().map(|group| u64::from(*group) + 1).collect::<Vec<_>>()
                );
            }
            prop_assert_eq!(&columns[0], &columns[1]);
        }
    }
}
