//! Columns with a place a group, in pages: a place that nothing was put at takes no memory, and none moves when groups come.
//!
//! A window of a hundred thousand keys opens with the first of its rows, and no event may wait until there is room for all
//! of them. Where the groups of a part follow each other, a loop over them is one over memory.

use std::ops::{Index, IndexMut, Range};

use crate::keys::Group;

/// Places a page: filled within a microsecond or two, and so many that few pages are looked up among.
const PAGE: usize = 1_024;
/// Places of the first page of a column that has few groups: most queries have no more.
const FEW: usize = 16;

/// A place for each group.
pub(crate) struct Grouped<T> {
    /// The places of the first page, as many as are needed; empty where there are pages.
    few: Vec<T>,
    /// All pages, as soon as there are others than the first.
    pages: Vec<Page<T>>,
    /// What stands where nothing was put yet.
    none: T,
    /// So many places with nothing put there.
    fill: fn(usize) -> Vec<T>,
}

/// A page, where something was put.
type Page<T> = Option<Box<[T; PAGE]>>;

impl<T: Default> Default for Grouped<T> {
    fn default() -> Self {
        Self::filled(|places| {
            let mut page = Vec::with_capacity(places);
            page.resize_with(places, T::default);
            page
        })
    }
}

impl<T> Index<usize> for Grouped<T> {
    type Output = T;

    #[inline]
    fn index(&self, place: usize) -> &T {
        let held = if self.pages.is_empty() {
            self.few.get(place)
        } else {
            let page = self.pages.get(place / PAGE).and_then(Option::as_ref);
            page.map(|page| &page[place % PAGE])
        };
        held.unwrap_or(&self.none)
    }
}

impl<T> IndexMut<usize> for Grouped<T> {
    #[inline]
    fn index_mut(&mut self, place: usize) -> &mut T {
        self.have(place);
        if self.pages.is_empty() {
            return &mut self.few[place];
        }
        let page = self.pages[place / PAGE].as_mut();
        &mut page.expect("room was made")[place % PAGE]
    }
}

/// A page of the places in `fill`, which are as many.
fn page_of<T>(fill: Vec<T>) -> Box<[T; PAGE]> {
    let page = fill.into_boxed_slice().try_into().ok();
    page.expect("as many places as a page has")
}

impl<T> Grouped<T> {
    /// Without a group. `fill` gives so many places as they are before something is put there.
    ///
    /// # Panics
    /// When `fill` gives none where one is asked for.
    pub(crate) fn filled(fill: fn(usize) -> Vec<T>) -> Self {
        Self {
            few: Vec::new(),
            pages: Vec::new(),
            none: fill(1).pop().expect("one place was asked for"),
            fill,
        }
    }

    /// Whether there is memory for a place.
    #[inline]
    fn has(&self, place: usize) -> bool {
        if self.pages.is_empty() {
            place < self.few.len()
        } else {
            self.pages.get(place / PAGE).is_some_and(Option::is_some)
        }
    }

    /// Makes room for a place, if there is none.
    #[inline]
    fn have(&mut self, place: usize) {
        if !self.has(place) {
            self.make_room(place);
        }
    }

    #[cold]
    fn make_room(&mut self, place: usize) {
        self.reach(place);
        if !self.pages.is_empty() {
            self.pages[place / PAGE].get_or_insert_with(|| page_of((self.fill)(PAGE)));
        }
    }

    /// Goes as far as a place: there is memory for it where few are enough, and a page's own place else.
    fn reach(&mut self, place: usize) {
        if self.pages.is_empty() && place < PAGE {
            if self.few.len() <= place {
                // In large steps: a flood of keys must not move them with each that comes.
                let all = (place + 1).next_power_of_two().max(FEW);
                self.few.extend((self.fill)(all - self.few.len()));
            }
            return;
        }
        if self.pages.is_empty() {
            let mut first = std::mem::take(&mut self.few);
            let is_there = !first.is_empty();
            if is_there {
                first.extend((self.fill)(PAGE - first.len()));
            }
            self.pages.push(is_there.then(|| page_of(first)));
        }
        if self.pages.len() <= place / PAGE {
            self.pages.resize_with(place / PAGE + 1, || None);
        }
    }

    /// The number of the last place that may have something, plus one.
    pub(crate) fn end(&self) -> usize {
        if self.pages.is_empty() {
            self.few.len()
        } else {
            self.pages.len() * PAGE
        }
    }

    /// The places that there is memory for, with their groups, in ascending order.
    pub(crate) fn places(&self) -> impl Iterator<Item = (Group, &T)> {
        let groups_of = |page: usize| (page * PAGE) as Group..;
        let pages = self.pages.iter().enumerate();
        let pages =
            pages.flat_map(move |(number, page)| groups_of(number).zip(page.iter().flat_map(|page| page.iter())));
        (0..).zip(&self.few).chain(pages)
    }

    /// Bytes of the places.
    pub(crate) fn bytes(&self) -> usize {
        let places = self.few.capacity() + self.pages.iter().flatten().count() * PAGE;
        places * size_of::<T>() + self.pages.capacity() * size_of::<Page<T>>()
    }

    /// The places of a run that lies in one page, where there is memory for all of them.
    fn piece(&self, run: &Range<usize>) -> Option<&[T]> {
        if self.pages.is_empty() {
            return self.few.get(run.clone());
        }
        let (page, at) = (run.start / PAGE, run.start % PAGE);
        self.pages.get(page)?.as_ref()?.get(at..at + run.len())
    }

    /// The same of those that there is memory for, to be changed.
    fn piece_there(&mut self, run: &Range<usize>) -> &mut [T] {
        if self.pages.is_empty() {
            let end = run.end.min(self.few.len());
            return &mut self.few[run.start.min(end)..end];
        }
        let (page, at) = (run.start / PAGE, run.start % PAGE);
        match self.pages.get_mut(page) {
            Some(Some(page)) => &mut page[at..at + run.len()],
            _ => &mut [],
        }
    }

    /// Calls `each` with the place of each of `groups`.
    pub(crate) fn for_each(&mut self, groups: &[Group], mut each: impl FnMut(&mut T)) {
        let Some(run) = run_of(groups) else {
            groups.iter().for_each(|group| each(&mut self[*group as usize]));
            return;
        };
        for piece in pieces(run) {
            self.have(piece.end - 1);
            self.piece_there(&piece).iter_mut().for_each(&mut each);
        }
    }

    /// The same with those of the places that there is memory for: in others stands nothing.
    pub(crate) fn for_each_there(&mut self, groups: &[Group], mut each: impl FnMut(&mut T)) {
        let Some(run) = run_of(groups) else {
            for group in groups {
                let place = *group as usize;
                self.piece_there(&(place..place + 1)).iter_mut().for_each(&mut each);
            }
            return;
        };
        for piece in pieces(run) {
            self.piece_there(&piece).iter_mut().for_each(&mut each);
        }
    }

    /// Calls `each` with the place of the group of each of `rows`, and the row. `groups` has a group for each row, and none that is
    /// meant is above `greatest`.
    #[inline]
    pub(crate) fn at_rows(
        &mut self,
        groups: &[Group],
        greatest: Group,
        rows: impl Iterator<Item = usize>,
        mut each: impl FnMut(&mut T, usize),
    ) {
        self.reach(greatest as usize);
        let (few, pages, fill) = (self.few.as_mut_slice(), self.pages.as_mut_slice(), self.fill);
        if pages.is_empty() {
            rows.for_each(|row| each(&mut few[groups[row] as usize], row));
            return;
        }
        for row in rows {
            let place = groups[row] as usize;
            let page = pages[place / PAGE].get_or_insert_with(|| page_of(fill(PAGE)));
            each(&mut page[place % PAGE], row);
        }
    }

    /// Calls `each` with the places of each of `groups` here and in `from`.
    pub(crate) fn for_each_pair<U>(&mut self, from: &Grouped<U>, groups: &[Group], mut each: impl FnMut(&mut T, &U)) {
        // A late row is merged by itself, and that with each of very many panes.
        let run = if groups.len() > 1 { run_of(groups) } else { None };
        let Some(run) = run else {
            for group in groups {
                each(&mut self[*group as usize], &from[*group as usize]);
            }
            return;
        };
        for piece in pieces(run) {
            self.have(piece.end - 1);
            let into = self.piece_there(&piece).iter_mut();
            match from.piece(&piece) {
                Some(from) => into.zip(from).for_each(|(into, from)| each(into, from)),
                None => into.zip(piece).for_each(|(into, place)| each(into, &from[place])),
            }
        }
    }

    /// Whether `is_so` holds for the places of all `groups`.
    pub(crate) fn all(&self, groups: &[Group], is_so: impl Fn(&T) -> bool) -> bool {
        let Some(run) = run_of(groups) else {
            return groups.iter().all(|group| is_so(&self[*group as usize]));
        };
        pieces(run).all(|piece| match self.piece(&piece) {
            // Without an early end, so that many are looked at at once.
            Some(places) => places.iter().fold(true, |so_far, place| so_far & is_so(place)),
            None => piece.into_iter().all(|place| is_so(&self[place])),
        })
    }

    /// What stands at the places of `groups`, in their order.
    pub(crate) fn picked(&self, groups: &[Group]) -> Vec<T>
    where
        T: Copy,
    {
        let Some(run) = run_of(groups) else {
            return groups.iter().map(|group| self[*group as usize]).collect();
        };
        let mut picked = Vec::with_capacity(groups.len());
        for piece in pieces(run) {
            match self.piece(&piece) {
                Some(places) => picked.extend_from_slice(places),
                None => picked.extend(piece.map(|place| self[place])),
            }
        }
        picked
    }
}

/// A run of places, a piece a page.
fn pieces(run: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let pages = run.start / PAGE..run.end.div_ceil(PAGE);
    pages.map(move |page| run.start.max(page * PAGE)..run.end.min((page + 1) * PAGE))
}

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Grouped, PAGE, run_of};

    #[test]
    fn a_run_has_no_gap_and_no_step_back() {
        assert_eq!(run_of(&[3, 4, 5]), Some(3..6));
        assert_eq!(run_of(&[7]), Some(7..8));
        assert_eq!(run_of(&[]), None);
        assert_eq!(run_of(&[3, 5, 4]), None, "first and last alone don't tell");
        assert_eq!(run_of(&[3, 4, 4]), None);
    }

    #[test]
    fn a_group_of_many_takes_a_page_and_no_more() {
        let mut column = Grouped::filled(|places| vec![i64::MIN; places]);
        assert_eq!((column.end(), column[70_000]), (0, i64::MIN));
        column[70_000] = 5;
        assert_eq!((column[69_999], column[70_000], column[3]), (i64::MIN, 5, i64::MIN));
        assert!(column.bytes() < 3 * PAGE * 8, "{} bytes", column.bytes());
        assert!((70_001..71_000 + PAGE).contains(&column.end()));
        // Those of few groups are as few as they are.
        let mut few: Grouped<i64> = Grouped::default();
        few[3] = 4;
        few[20] = 1;
        assert_eq!((few[3], few[20], few[19], few.end()), (4, 1, 0, 32));
        assert_eq!(
            few.places()
                .filter(|(_, value)| **value > 0)
                .map(|(group, _)| group)
                .collect::<Vec<_>>(),
            [3, 20]
        );
    }

    proptest! {
        #[test]
        fn runs_and_single_groups_come_to_the_same(
            first in 0..3 * PAGE as u32, len in 0..2 * PAGE as u32, turn in 0..20_usize, known in 0..4 * PAGE as u32,
        ) {
            let run: Vec<u32> = (first..first + len).collect();
            let mut turned = run.clone();
            turned.rotate_left(turn % run.len().max(1));
            let mut from: Grouped<u64> = Grouped::default();
            (0..known).for_each(|group| from[group as usize] = u64::from(group));
            let of_from = |group: u32| if group < known { u64::from(group) } else { 0 };
            let mut by_rows: Grouped<u64> = Grouped::default();
            let greatest = turned.iter().max().copied().unwrap_or_default();
            by_rows.at_rows(&turned, greatest, (0..turned.len()).filter(|row| row % 3 > 0), |place, row| *place += 1 + row as u64);
            for (row, group) in turned.iter().enumerate() {
                prop_assert_eq!(by_rows[*group as usize], if row % 3 > 0 { 1 + row as u64 } else { 0 });
            }
            for groups in [&run, &turned] {
                let mut column: Grouped<u64> = Grouped::default();
                prop_assert!(column.all(groups, |place| *place == 0));
                prop_assert_eq!(column.picked(groups), vec![0; groups.len()]);
                column.for_each(groups, |place| *place += 1);
                column.for_each_pair(&from, groups, |into, from| *into += from);
                prop_assert!(column.all(groups, |place| *place > 0));
                prop_assert_eq!(column.all(groups, |place| *place != 1 + of_from(first)), len == 0);
                let expected: Vec<u64> = groups.iter().map(|group| of_from(*group) + 1).collect();
                prop_assert_eq!(column.picked(groups), expected);
                let elsewhere = column.places().filter(|(group, _)| !run.contains(group));
                prop_assert!(elsewhere.into_iter().all(|(_, value)| *value == 0));
            }
        }
    }
}
