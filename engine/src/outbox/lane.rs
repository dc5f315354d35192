//! A lane is how far one receiver has come: what it has, what is on its way, and what waits, in order for a subject.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::step::SubjectKey;

/// What settling a step changed, to be written down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Settled {
    /// Where everything before is settled, if that has moved.
    pub(super) cursor: Option<u64>,
    /// A number settled ahead of the cursor.
    pub(super) ahead: Option<u64>,
    /// Numbers that were ahead and no longer are.
    pub(super) caught_up: Vec<u64>,
}

/// How a step failed so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failures {
    /// Tries.
    pub(super) tries: u32,
    /// Of these, those that failed while others were taken.
    pub(super) tries_alone: u32,
    /// How long it has failed while others were taken.
    pub(super) time_alone: Duration,
    /// When the last of the tries failed.
    last: Instant,
}

/// The place of one receiver in the sequence of steps. It knows numbers only; what they stand for lies elsewhere.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Everything before it is settled.
    cursor: u64,
    /// Settled at or after the cursor.
    ahead: BTreeSet<u64>,
    /// The next number to be taken in.
    next: u64,
    /// What waits or is under way, by subject in its order; the first of each may go.
    subjects: FxHashMap<SubjectKey, VecDeque<u64>>,
    /// The first of their subjects that may go now, those with the fewest failures first.
    ready: BTreeMap<(u32, u64), SubjectKey>,
    /// The first of their subjects that wait for another try.
    due: BTreeSet<(Instant, u64, SubjectKey)>,
    under_way: HashMap<u64, SubjectKey>,
    failures: HashMap<u64, Failures>,
    waiting: usize,
}

impl Lane {
    /// A lane that goes on at `cursor`, with what was settled ahead of it.
    pub(super) fn at(cursor: u64, ahead: BTreeSet<u64>) -> Self {
        Self {
            cursor,
            ahead: ahead.into_iter().filter(|number| *number >= cursor).collect(),
            next: cursor,
            ..Self::default()
        }
    }

    /// Everything before it is settled.
    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The next number to be taken in.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Numbers that wait or are under way.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Numbers under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Numbers kept in memory, in whichever way.
    pub(super) fn kept(&self) -> usize {
        self.waiting + self.ahead.len()
    }

    /// The oldest number that is not settled.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.subjects
            .values()
            .filter_map(|numbers| numbers.front())
            .min()
            .copied()
    }

    /// Takes in the next number. What was settled before is passed over.
    pub(super) fn add(&mut self, number: u64, subject: SubjectKey) {
        self.next = number + 1;
        if number >= self.cursor && !self.ahead.contains(&number) {
            self.put_behind(number, subject);
        }
    }

    /// Whether the number needs nothing any more.
    pub(super) fn is_settled(&self, number: u64) -> bool {
        number < self.cursor || self.ahead.contains(&number)
    }

    /// Takes in the next number as one that this receiver does not want.
    pub(super) fn pass_over(&mut self, number: u64) -> Settled {
        self.next = number + 1;
        self.settle(number)
    }

    /// What lies before `oldest` is no longer there. Gives how many were waiting that are lost.
    pub(super) fn lose_before(&mut self, oldest: u64) -> u64 {
        if self.cursor >= oldest {
            return 0;
        }
        let had = self.ahead.range(..oldest).count() as u64;
        // What is under way is in the hands of its sender and ends by itself.
        let under_way = self
            .under_way
            .keys()
            // A dead letter that is sent again was settled before.
            .filter(|number| (self.cursor..oldest).contains(*number) && !self.ahead.contains(*number))
            .count();
        let lost = oldest - self.cursor - had - under_way as u64;
        self.cursor = oldest;
        self.ahead = self.ahead.split_off(&oldest);
        self.next = self.next.max(oldest);
        let under = &self.under_way;
        let mut gone = 0;
        for numbers in self.subjects.values_mut() {
            numbers.retain(|number| {
                let stays = *number >= oldest || under.contains_key(number);
                gone += usize::from(!stays);
                stays
            });
        }
        self.waiting -= gone;
        self.ready.retain(|(_, number), _| *number >= oldest);
        self.due.retain(|(_, number, _)| *number >= oldest);
        self.failures.retain(|number, _| *number >= oldest);
        self.subjects.retain(|_, numbers| !numbers.is_empty());
        let fronts: Vec<(u64, SubjectKey)> = self
            .subjects
            .iter()
            .filter_map(|(subject, numbers)| Some((*numbers.front()?, *subject)))
            .collect();
        for (number, subject) in fronts {
            let waits = self.due.iter().any(|(_, due, _)| *due == number);
            if !waits && !self.under_way.contains_key(&number) {
                self.make_ready(number, subject);
            }
        }
        lost
    }

    /// Queues a number that was settled before, behind what waits of its subject.
    pub(super) fn queue(&mut self, number: u64, subject: SubjectKey) {
        let is_there = |numbers: &VecDeque<u64>| numbers.contains(&number);
        if !self.subjects.get(&subject).is_some_and(is_there) {
            self.put_behind(number, subject);
        }
    }

    fn put_behind(&mut self, number: u64, subject: SubjectKey) {
        let numbers = self.subjects.entry(subject).or_default();
        numbers.push_back(number);
        self.waiting += 1;
        if numbers.len() == 1 {
            self.make_ready(number, subject);
        }
    }

    fn make_ready(&mut self, number: u64, subject: SubjectKey) {
        let tries = self.failures.get(&number).map_or(0, |failures| failures.tries);
        self.ready.insert((tries, number), subject);
    }

    /// The next number to send; it is under way then.
    pub(super) fn take(&mut self, now: Instant) -> Option<u64> {
        while let Some((due, number, subject)) = self.due.first().copied()
            && due <= now
        {
            self.due.pop_first();
            self.make_ready(number, subject);
        }
        let ((_, number), subject) = self.ready.pop_first()?;
        self.under_way.insert(number, subject);
        Some(number)
    }

    /// What waits for another try may go now, but for what failed so often while others were taken.
    pub(super) fn hasten(&mut self, tries_alone: u32) {
        let fails_alone = |number: &u64| {
            let failures = self.failures.get(number);
            failures.is_some_and(|failures| failures.tries_alone >= tries_alone)
        };
        let due = std::mem::take(&mut self.due).into_iter();
        let (stay, go): (BTreeSet<_>, BTreeSet<_>) = due.partition(|(_, number, _)| fails_alone(number));
        self.due = stay;
        for (_, number, subject) in go {
            self.make_ready(number, subject);
        }
    }

    /// What is under way is in nobody's hands any more: it may go again.
    pub(super) fn give_back(&mut self) {
        for (number, subject) in std::mem::take(&mut self.under_way) {
            self.make_ready(number, subject);
        }
    }

    /// When the next number may go; `None` where none waits.
    pub(super) fn next_free(&self, now: Instant) -> Option<Instant> {
        match self.ready.is_empty() {
            true => self.next_due(),
            false => Some(now),
        }
    }

    /// When the next number may go that waits for another try.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, ..)| *due)
    }

    /// A number that is under way has failed at `now`, and others are taken since then, if they are. It is to
    /// [`Lane::wait`] or [`Lane::done`].
    pub(super) fn fail(&mut self, number: u64, now: Instant, taking_since: Option<Instant>) -> Failures {
        let failures = self.failures.entry(number).or_insert(Failures {
            tries: 0,
            tries_alone: 0,
            time_alone: Duration::ZERO,
            last: now,
        });
        failures.tries += 1;
        if let Some(since) = taking_since {
            failures.tries_alone += 1;
            failures.time_alone += now.saturating_duration_since(failures.last.max(since));
        }
        failures.last = now;
        *failures
    }

    /// A number that was under way waits until `due` for another try.
    pub(super) fn wait(&mut self, number: u64, due: Instant) {
        if let Some(subject) = self.under_way.remove(&number) {
            self.due.insert((due, number, subject));
        }
    }

    /// How a number has failed so far.
    pub(super) fn failures(&self, number: u64) -> Option<Failures> {
        self.failures.get(&number).copied()
    }

    /// A number that was under way is through; the next of its subject may go.
    pub(super) fn done(&mut self, number: u64) -> Settled {
        self.failures.remove(&number);
        if let Some(subject) = self.under_way.remove(&number)
            && let Some(numbers) = self.subjects.get_mut(&subject)
        {
            if let Some(at) = numbers.iter().position(|waiting| *waiting == number) {
                numbers.remove(at);
                self.waiting -= 1;
            }
            match numbers.front().copied() {
                Some(next) => self.make_ready(next, subject),
                None => {
                    self.subjects.remove(&subject);
                }
            }
        }
        self.settle(number)
    }

    fn settle(&mut self, number: u64) -> Settled {
        let mut settled = Settled::default();
        if number < self.cursor {
            return settled;
        }
        if number > self.cursor {
            self.ahead.insert(number);
            settled.ahead = Some(number);
            return settled;
        }
        self.cursor += 1;
        while self.ahead.first() == Some(&self.cursor) {
            self.ahead.pop_first();
            settled.caught_up.push(self.cursor);
            self.cursor += 1;
        }
        settled.cursor = Some(self.cursor);
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const A: SubjectKey = SubjectKey(1);
    const B: SubjectKey = SubjectKey(2);

    fn lane(subjects: &[SubjectKey]) -> Lane {
        let mut lane = Lane::default();
        for (number, subject) in (0..).zip(subjects) {
            lane.add(number, *subject);
        }
        lane
    }

    #[test]
    fn a_subject_waits_for_its_own_steps_and_for_no_others() {
        let now = Instant::now();
        let mut lane = lane(&[A, A, B, B]);
        assert_eq!(
            (lane.take(now), lane.take(now), lane.take(now)),
            (Some(0), Some(2), None)
        );
        let due = now + Duration::from_secs(5);
        assert_eq!(lane.fail(0, now, None).tries, 1);
        lane.wait(0, due);
        assert_eq!(lane.done(2).ahead, Some(2));
        assert_eq!((lane.take(now), lane.take(now)), (Some(3), None), "A waits, B goes on");
        assert_eq!(lane.done(3).ahead, Some(3));
        assert_eq!((lane.next_due(), lane.waiting()), (Some(due), 2));
        assert_eq!((lane.take(due), lane.take(due)), (Some(0), None));
        let settled = lane.done(0);
        assert_eq!((settled.cursor, settled.caught_up), (Some(1), vec![]));
        assert_eq!(lane.take(due), Some(1));
        let settled = lane.done(1);
        assert_eq!((settled.cursor, settled.caught_up), (Some(4), vec![2, 3]));
        assert_eq!((lane.waiting(), lane.kept(), lane.oldest()), (0, 0, None));
    }

    #[test]
    fn a_lane_goes_on_where_it_was_and_sends_nothing_twice() {
        let mut lane = Lane::at(5, BTreeSet::from([3, 6, 8]));
        for number in 4..10 {
            lane.add(number, SubjectKey(number));
        }
        let now = Instant::now();
        let taken: Vec<u64> = std::iter::from_fn(|| lane.take(now)).collect();
        assert_eq!(taken, [5, 7, 9]);
        assert_eq!(lane.done(5).caught_up, [6]);
        assert_eq!(lane.done(7).cursor, Some(9));
        assert_eq!(lane.done(9).cursor, Some(10));
    }

    #[test]
    fn what_was_under_way_when_its_sender_failed_goes_again_in_its_place() {
        let now = Instant::now();
        let mut lane = lane(&[A, A, B]);
        assert_eq!((lane.take(now), lane.take(now)), (Some(0), Some(2)));
        lane.give_back();
        assert_eq!(lane.under_way(), 0);
        assert_eq!(
            (lane.take(now), lane.take(now), lane.take(now)),
            (Some(0), Some(2), None)
        );
        lane.done(0);
        assert_eq!(lane.take(now), Some(1));
    }

    #[test]
    fn a_step_that_failed_lets_those_go_first_that_did_not() {
        let now = Instant::now();
        let mut lane = lane(&[A, B]);
        assert_eq!(lane.take(now), Some(0));
        lane.fail(0, now, None);
        lane.wait(0, now);
        assert_eq!((lane.take(now), lane.take(now)), (Some(1), Some(0)));
        assert_eq!(lane.failures(0).map(|failures| failures.tries), Some(1));
    }

    #[test]
    fn what_waits_is_hastened_but_for_what_fails_alone() {
        let now = Instant::now();
        let due = now + Duration::from_secs(9);
        let mut lane = lane(&[A, B]);
        assert_eq!(lane.next_free(now), Some(now));
        for (number, taking_since) in [(0, None), (1, Some(now))] {
            assert_eq!(lane.take(now), Some(number));
            lane.fail(number, now, taking_since);
            lane.wait(number, due);
        }
        assert_eq!((lane.take(now), lane.next_free(now)), (None, Some(due)));
        lane.hasten(1);
        assert_eq!((lane.take(now), lane.take(now)), (Some(0), None));
        assert_eq!(lane.next_free(now), Some(due));
    }

    #[test]
    fn only_failures_while_others_are_taken_tell_against_a_step() {
        let begun = Instant::now();
        let at = |minute: u64| begun + Duration::from_secs(60 * minute);
        let mut lane = lane(&[A]);
        let mut fail = |minute: u64, taking_since: Option<u64>| {
            let failures = lane.fail(0, at(minute), taking_since.map(at));
            (failures.tries, failures.tries_alone, failures.time_alone.as_secs() / 60)
        };
        assert_eq!(fail(10, Some(0)), (1, 1, 0), "it begins with its first try");
        assert_eq!(fail(14, Some(0)), (2, 2, 4));
        assert_eq!(fail(20, None), (3, 2, 4));
        assert_eq!(fail(90, Some(88)), (4, 3, 6), "since they are taken again");
        assert_eq!(fail(95, Some(88)), (5, 4, 11));
    }

    #[test]
    fn a_dead_letter_under_way_again_is_not_counted_twice_when_the_oldest_go() {
        let now = Instant::now();
        let mut lane = lane(&[A, B]);
        assert_eq!((lane.take(now), lane.take(now)), (Some(0), Some(1)));
        lane.done(1);
        lane.queue(1, B);
        assert_eq!(lane.take(now), Some(1));
        assert_eq!(lane.lose_before(2), 0, "0 is under way, and 1 was settled");
    }

    #[test]
    fn what_is_no_longer_there_is_counted_and_let_go() {
        let now = Instant::now();
        let mut lane = lane(&[A, A, B, A, B]);
        assert_eq!((lane.take(now), lane.take(now)), (Some(0), Some(2)));
        lane.done(2);
        assert_eq!(
            lane.lose_before(4),
            2,
            "1 and 3 were waiting; 0 is under way and 2 is through"
        );
        assert_eq!((lane.cursor(), lane.waiting()), (4, 2));
        lane.done(0);
        assert_eq!((lane.take(now), lane.take(now)), (Some(4), None));
        assert_eq!(lane.done(4).cursor, Some(5));
        assert_eq!((lane.waiting(), lane.kept(), lane.lose_before(4)), (0, 0, 0));
    }
}
