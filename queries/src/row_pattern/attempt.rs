//! An attempt is the pattern begun at one row: the ways it may still go, the preferred first, and the best end so far.

use std::hash::Hash;

use rustc_hash::FxHashSet;

use super::Variable;
use super::automaton::{Automaton, Follow};

/// More ways than this at once and the attempt fails: the conditions leave open what is what.
pub(crate) const MAX_WAYS: usize = 1_000;

/// Says which row may be which variable. Rows are numbered in their order, without gaps.
pub(crate) trait Judge {
    /// What the conditions look at of the rows before; ways that have seen the same go on alike.
    type Seen: Clone + Eq + Hash;
    /// Why a condition can't be evaluated.
    type Error;

    /// What has been seen before the first row.
    fn nothing(&self) -> Self::Seen;

    /// What has been seen with `row` as `variable` behind `seen`; `None` when the variable's condition does not hold.
    fn take(&mut self, seen: &Self::Seen, row: u64, variable: Variable) -> Result<Option<Self::Seen>, Self::Error>;
}

/// Why an attempt can't go on.
#[derive(Debug)]
pub(crate) enum Failure<E> {
    /// A condition can't be evaluated.
    Condition(E),
    /// There are more than [`MAX_WAYS`].
    TooManyWays,
}

/// Rows that follow each other as one variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// The variable.
    pub(crate) variable: Variable,
    /// The first of its rows; the last is the one before the next run.
    pub(crate) from: u64,
}

/// Which rows matched, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match {
    /// What the rows are, in their order.
    pub(crate) runs: Vec<Run>,
    /// The last row.
    pub(crate) last: u64,
}

impl Match {
    /// Each row with its variable.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (u64, Variable)> {
        self.runs.iter().enumerate().flat_map(|(index, run)| {
            let end = self.runs.get(index + 1).map_or(self.last + 1, |next| next.from);
            (run.from..end).map(|row| (row, run.variable))
        })
    }
}

const NONE: u32 = u32::MAX;
/// Runs are tidied up when there are so many, and then at twice as many as were left. Soon in tests, whose rows are few.
const TIDY_AT: usize = if cfg!(test) { 2 } else { 256 };

/// A run in the tree of all ways; those of several ways share what they have in common.
#[derive(Debug, Clone, Copy)]
struct Link {
    run: Run,
    before: u32,
}

/// Where a way ends: its present run and those before it.
#[derive(Debug, Clone, Copy)]
struct Tip {
    run: Run,
    before: u32,
}

#[derive(Debug, Clone)]
struct Way<S> {
    position: u16,
    tip: Tip,
    seen: S,
}

/// The pattern from one row on.
#[derive(Debug, Clone)]
pub(crate) struct Attempt<S> {
    first: u64,
    ways: Vec<Way<S>>,
    links: Vec<Link>,
    tidy_at: usize,
    /// The preferred of the ends that were reached, and its last row.
    best: Option<(Tip, u64)>,
    /// What it had come to when its time was over.
    partial: Option<Match>,
}

impl<S: Clone + Eq + Hash> Attempt<S> {
    /// Begins at `row`; `None` when nothing begins there.
    pub(crate) fn begin<J: Judge<Seen = S>>(
        automaton: &Automaton,
        judge: &mut J,
        row: u64,
    ) -> Result<Option<Self>, Failure<J::Error>> {
        let mut attempt = Self {
            first: row,
            ways: Vec::new(),
            links: Vec::new(),
            tidy_at: TIDY_AT,
            best: None,
            partial: None,
        };
        let nothing = judge.nothing();
        let mut step = Step::new(1);
        step.go(automaton, judge, row, &automaton.first, &nothing, None, &mut attempt)?;
        attempt.ways = step.ways;
        Ok((!attempt.is_settled() || attempt.best.is_some()).then_some(attempt))
    }

    /// Takes the next row.
    pub(crate) fn push<J: Judge<Seen = S>>(
        &mut self,
        automaton: &Automaton,
        judge: &mut J,
        row: u64,
    ) -> Result<(), Failure<J::Error>> {
        let ways = std::mem::take(&mut self.ways);
        let mut step = Step::new(ways.len());
        for way in &ways {
            let follow = &automaton.follow[way.position as usize];
            let is_over = step.go(automaton, judge, row, follow, &way.seen, Some(way.tip), self)?;
            if is_over {
                break;
            }
        }
        self.ways = step.ways;
        if self.links.len() >= self.tidy_at {
            self.tidy();
        }
        Ok(())
    }

    /// The row it began at.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// How many ways it may still go.
    pub(crate) fn ways(&self) -> usize {
        self.ways.len()
    }

    /// Whether no further row can change it.
    pub(crate) fn is_settled(&self) -> bool {
        self.ways.is_empty()
    }

    /// The last row of what matches so far.
    pub(crate) fn best_end(&self) -> Option<u64> {
        self.best.map(|(_, last)| last)
    }

    /// No row may come to it any more; remembers how far it had come if it matched nothing.
    pub(crate) fn stop(&mut self, last_row: u64) {
        if self.best.is_none()
            && let Some(way) = self.ways.first()
        {
            self.partial = Some(self.matched(way.tip, last_row));
        }
        self.ways.clear();
    }

    /// The match; for one that matched nothing, what it had come to when it was stopped.
    pub(crate) fn into_result(mut self) -> (Option<Match>, Option<Match>) {
        let best = self.best.map(|(tip, last)| self.matched(tip, last));
        (best, self.partial.take())
    }

    /// Bytes kept, estimated.
    pub(crate) fn bytes(&self, of_seen: impl Fn(&S) -> usize) -> usize {
        let seen: usize = self.ways.iter().map(|way| of_seen(&way.seen)).sum();
        seen + size_of::<Self>()
            + self.ways.capacity() * size_of::<Way<S>>()
            + self.links.capacity() * size_of::<Link>()
    }

    fn matched(&self, tip: Tip, last: u64) -> Match {
        let mut runs = vec![tip.run];
        let mut before = tip.before;
        while before != NONE {
            let link = self.links[before as usize];
            runs.push(link.run);
            before = link.before;
        }
        runs.reverse();
        Match { runs, last }
    }

    /// Forgets runs that lead to no way any more.
    fn tidy(&mut self) {
        let mut moved = vec![NONE; self.links.len()];
        let tips = self.ways.iter().map(|way| way.tip).chain(self.best.map(|(tip, _)| tip));
        for tip in tips {
            let mut at = tip.before;
            while at != NONE && moved[at as usize] == NONE {
                moved[at as usize] = 0;
                at = self.links[at as usize].before;
            }
        }
        let place = |at: u32, moved: &[u32]| if at == NONE { NONE } else { moved[at as usize] };
        let mut kept = Vec::new();
        // A run stands behind those before it, so that these have moved already.
        for (index, link) in self.links.iter().enumerate() {
            if moved[index] != NONE {
                moved[index] = kept.len() as u32;
                kept.push(Link {
                    run: link.run,
                    before: place(link.before, &moved),
                });
            }
        }
        for way in &mut self.ways {
            way.tip.before = place(way.tip.before, &moved);
        }
        if let Some((tip, _)) = &mut self.best {
            tip.before = place(tip.before, &moved);
        }
        self.links = kept;
        self.tidy_at = TIDY_AT.max(self.links.len() * 2);
    }
}

/// The ways behind one row, as they are found.
struct Step<S> {
    ways: Vec<Way<S>>,
    found: FxHashSet<(u16, S)>,
    /// Whether two ways can come to the same: there is more than one.
    can_meet: bool,
}

impl<S: Clone + Eq + Hash> Step<S> {
    fn new(ways: usize) -> Self {
        Self {
            ways: Vec::new(),
            found: FxHashSet::default(),
            can_meet: ways > 1,
        }
    }

    /// Goes on from one way with `row`; true when an end was reached to which all that is left would yield.
    #[allow(clippy::too_many_arguments)] // one step of the loop above, which owns them all
    fn go<J: Judge<Seen = S>>(
        &mut self,
        automaton: &Automaton,
        judge: &mut J,
        row: u64,
        follow: &Follow,
        seen: &S,
        tip: Option<Tip>,
        attempt: &mut Attempt<S>,
    ) -> Result<bool, Failure<J::Error>> {
        // The run that ends here; written down once however many ways go on from it.
        let mut closed = None;
        for position in &follow.next {
            let variable = automaton.variables[*position as usize];
            let taken = judge.take(seen, row, variable).map_err(Failure::Condition)?;
            let Some(seen) = taken else { continue };
            if self.can_meet && !self.found.insert((*position, seen.clone())) {
                continue;
            }
            let tip = match tip {
                Some(tip) if tip.run.variable == variable => tip,
                Some(tip) => Tip {
                    run: Run { variable, from: row },
                    before: *closed.get_or_insert_with(|| {
                        attempt.links.push(Link {
                            run: tip.run,
                            before: tip.before,
                        });
                        attempt.links.len() as u32 - 1
                    }),
                },
                None => Tip {
                    run: Run { variable, from: row },
                    before: NONE,
                },
            };
            let behind = &automaton.follow[*position as usize];
            if !behind.next.is_empty() {
                if self.ways.len() >= MAX_WAYS {
                    return Err(Failure::TooManyWays);
                }
                self.ways.push(Way {
                    position: *position,
                    tip,
                    seen,
                });
            }
            if behind.accepts {
                attempt.best = Some((tip, row));
                return Ok(true);
            }
        }
        Ok(false)
    }
}
