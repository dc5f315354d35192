//! The reference: the standard's backtracking, tried way by way over all rows, and the search held against it.

use std::collections::BTreeSet;
use std::convert::Infallible;

use proptest::prelude::*;

use super::attempt::{Attempt, Failure, Judge, Match};
use super::automaton::Automaton;
use super::search::{Found, Search, Skip};
use super::{Pattern, PatternError, Variable};

/// A condition of the tests: of the row by itself, or with what a variable was before.
#[derive(Debug, Clone, Copy)]
enum Condition {
    Always,
    /// The row is at most so large.
    AtMost(u8),
    /// The row is at least so large.
    AtLeast(u8),
    /// The row is larger than the last row of a variable, if there was one.
    AboveLast(Variable),
    /// Fewer than so many rows of a variable came before.
    Fewer(Variable, usize),
}

impl Condition {
    fn holds(self, rows: &[u8], taken: &[(usize, Variable)], row: usize) -> bool {
        match self {
            Self::Always => true,
            Self::AtMost(limit) => rows[row] <= limit,
            Self::AtLeast(limit) => rows[row] >= limit,
            Self::AboveLast(variable) => taken
                .iter()
                .rev()
                .find(|(_, of)| *of == variable)
                .is_none_or(|(last, _)| rows[row] > rows[*last]),
            Self::Fewer(variable, limit) => taken.iter().filter(|(_, of)| *of == variable).count() < limit,
        }
    }
}

/// All rows at once, judged by looking at the whole way that led to them.
struct Backtracking<'a> {
    rows: &'a [u8],
    conditions: &'a [Condition],
    /// No row at this or behind it may be taken.
    end: usize,
}

type Way = Vec<(usize, Variable)>;

impl Backtracking<'_> {
    /// Tries `pattern` at `row` and then `rest`; the first way on which the rest succeeds.
    fn run(
        &self,
        pattern: &Pattern,
        row: usize,
        taken: &mut Way,
        rest: &mut dyn FnMut(usize, &mut Way) -> bool,
    ) -> bool {
        match pattern {
            Pattern::Variable(variable) => {
                if row >= self.end || !self.conditions[*variable as usize].holds(self.rows, taken, row) {
                    return false;
                }
                taken.push((row, *variable));
                if rest(row + 1, taken) {
                    return true;
                }
                taken.pop();
                false
            }
            Pattern::Sequence(parts) => match parts.split_first() {
                None => rest(row, taken),
                Some((first, others)) => {
                    let others = Pattern::Sequence(others.to_vec());
                    self.run(first, row, taken, &mut |row, taken| self.run(&others, row, taken, rest))
                }
            },
            Pattern::Alternatives(parts) => parts.iter().any(|part| self.run(part, row, taken, rest)),
            Pattern::Repeat(part, least, most) => {
                if *most == Some(0) {
                    return rest(row, taken);
                }
                let less = most.map(|most| most - 1);
                if *least > 0 {
                    let again = Pattern::Repeat(part.clone(), least - 1, less);
                    return self.run(part, row, taken, &mut |row, taken| self.run(&again, row, taken, rest));
                }
                let again = Pattern::Repeat(part.clone(), 0, less);
                let once_more = self.run(part, row, taken, &mut |after, taken| {
                    // A round without a row would go on for ever: it is the last.
                    if after == row && most.is_none() {
                        return rest(after, taken);
                    }
                    self.run(&again, after, taken, rest)
                });
                once_more || rest(row, taken)
            }
        }
    }

    fn from(&self, pattern: &Pattern, row: usize) -> Option<Way> {
        let mut taken = Vec::new();
        self.run(pattern, row, &mut taken, &mut |_, taken| !taken.is_empty())
            .then_some(taken)
    }
}

/// All matches by backtracking; `within` limits how many rows apart the first and the last may be.
fn expected(pattern: &Pattern, conditions: &[Condition], rows: &[u8], within: Option<usize>, skip: Skip) -> Vec<Way> {
    let (mut found, mut row) = (Vec::new(), 0);
    while row < rows.len() {
        let end = within.map_or(rows.len(), |within| rows.len().min(row + within + 1));
        let way = Backtracking { rows, conditions, end }.from(pattern, row);
        row = match (&way, skip) {
            (Some(way), Skip::PastLastRow) => row + way.len(),
            _ => row + 1,
        };
        found.extend(way);
    }
    found
}

/// Conditions as the search asks them: by what has been seen, without the way itself.
struct Seeing<'a> {
    rows: &'a [u8],
    conditions: &'a [Condition],
}

impl Judge for Seeing<'_> {
    /// Of each variable its last row's value and how many there were.
    type Seen = Vec<(Option<u8>, usize)>;
    type Error = Infallible;

    fn nothing(&self) -> Self::Seen {
        vec![(None, 0); self.conditions.len()]
    }

    fn take(&mut self, seen: &Self::Seen, row: u64, variable: Variable) -> Result<Option<Self::Seen>, Infallible> {
        let value = self.rows[usize::try_from(row).expect("few rows")];
        let holds = match self.conditions[variable as usize] {
            Condition::Always => true,
            Condition::AtMost(limit) => value <= limit,
            Condition::AtLeast(limit) => value >= limit,
            Condition::AboveLast(of) => seen[of as usize].0.is_none_or(|last| value > last),
            Condition::Fewer(of, limit) => seen[of as usize].1 < limit,
        };
        Ok(holds.then(|| {
            let mut seen = seen.clone();
            seen[variable as usize] = (Some(value), seen[variable as usize].1 + 1);
            seen
        }))
    }
}

fn as_way(matched: &Match) -> Way {
    matched
        .rows()
        .map(|(row, variable)| (usize::try_from(row).expect("few rows"), variable))
        .collect()
}

/// All matches by the search, row by row, each with the number of rows that had come when it was said.
fn found(
    automaton: &Automaton,
    conditions: &[Condition],
    rows: &[u8],
    within: Option<usize>,
    skip: Skip,
    in_order: bool,
) -> Vec<(usize, Found)> {
    let mut judge = Seeing { rows, conditions };
    let mut search = Search::new(skip, in_order, 10_000);
    let mut said = Vec::new();
    for row in 0..rows.len() {
        let mut found = Vec::new();
        if let Some(over) = within.and_then(|within| row.checked_sub(within + 1)) {
            search.expire(over as u64, &mut found);
        }
        let pushed = search.push(automaton, &mut judge, row as u64, &mut found);
        assert!(pushed.is_ok(), "few ways");
        said.extend(found.into_iter().map(|found| (row + 1, found)));
    }
    let mut found = Vec::new();
    search.end(&mut found);
    said.extend(found.into_iter().map(|found| (rows.len() + 1, found)));
    assert_eq!(search.len(), 0, "nothing is left");
    said
}

fn ways(found: &[(usize, Found)]) -> Vec<Way> {
    found
        .iter()
        .filter_map(|(_, found)| match found {
            Found::Match(matched) => Some(as_way(matched)),
            _ => None,
        })
        .collect()
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let leaf = (0..4_u16).prop_map(Pattern::Variable);
    leaf.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 2..4).prop_map(Pattern::Sequence),
            2 => prop::collection::vec(inner.clone(), 2..4).prop_map(Pattern::Alternatives),
            3 => (inner, 0..3_u32, prop::option::of(0..3_u32)).prop_map(|(part, least, more)| {
                Pattern::Repeat(Box::new(part), least, more.map(|more| least + more))
            }),
        ]
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::Always),
        (0..5_u8).prop_map(Condition::AtMost),
        (0..5_u8).prop_map(Condition::AtLeast),
        (0..4_u16).prop_map(Condition::AboveLast),
        (0..4_u16, 1..4_usize).prop_map(|(variable, limit)| Condition::Fewer(variable, limit)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    #[test]
    fn the_search_finds_what_backtracking_finds(
        pattern in pattern(),
        conditions in prop::collection::vec(condition(), 4),
        rows in prop::collection::vec(0..6_u8, 0..11),
        within in prop::option::of(0..6_usize),
        to_next in any::<bool>(),
    ) {
        let automaton = match Automaton::of(&pattern) {
            Ok(automaton) => automaton,
            Err(PatternError::MatchesNothing) => return Ok(()),
            Err(error) => panic!("{error}"),
        };
        let skip = if to_next { Skip::ToNextRow } else { Skip::PastLastRow };
        let wanted = expected(&pattern, &conditions, &rows, within, skip);
        let in_order = found(&automaton, &conditions, &rows, within, skip, true);
        prop_assert_eq!(&ways(&in_order), &wanted);
        let at_once = found(&automaton, &conditions, &rows, within, skip, false);
        let sorted: BTreeSet<Way> = ways(&at_once).into_iter().collect();
        prop_assert_eq!(sorted, wanted.iter().cloned().collect::<BTreeSet<Way>>());

        // Said as soon as no further row can change it: what is said behind `rows` is in every continuation of them.
        for (came, found) in &in_order {
            let Found::Match(matched) = found else { continue };
            let way = as_way(matched);
            let more: Vec<u8> = rows[..(*came).min(rows.len())].to_vec();
            for next in 0..6_u8 {
                let mut longer = more.clone();
                if *came <= rows.len() {
                    longer.extend([next, 5 - next]);
                    let again = expected(&pattern, &conditions, &longer, within, skip);
                    prop_assert!(again.contains(&way), "{way:?} was said behind {more:?}, and {longer:?} gives {again:?}");
                }
            }
        }
    }
}

fn run_all(pattern: &Pattern, conditions: &[Condition], rows: &[u8], within: Option<usize>) -> Vec<(usize, Found)> {
    let automaton = Automaton::of(pattern).expect("small");
    found(&automaton, conditions, rows, within, Skip::PastLastRow, true)
}

#[test]
fn a_match_is_said_with_its_last_row_unless_more_rows_could_belong_to_it() {
    // A B C, then A B+: the second waits for the first row that is no B.
    let conditions = [Condition::AtMost(1), Condition::AtLeast(2), Condition::AtLeast(3)];
    let sequence = |parts: &[Pattern]| Pattern::Sequence(parts.to_vec());
    let [a, b, c] = [0, 1, 2].map(Pattern::Variable);
    let abc = run_all(&sequence(&[a.clone(), b.clone(), c]), &conditions, &[1, 2, 3, 3], None);
    assert_eq!(abc.iter().map(|(came, _)| *came).collect::<Vec<_>>(), vec![3]);
    let open = sequence(&[a, Pattern::Repeat(Box::new(b), 1, None)]);
    let greedy = run_all(&open, &conditions, &[1, 2, 3, 3, 1], None);
    assert_eq!(greedy.iter().map(|(came, _)| *came).collect::<Vec<_>>(), vec![5]);
    assert_eq!(ways(&greedy)[0].len(), 4);
}

#[test]
fn what_had_begun_when_its_time_was_over_is_told() {
    let conditions = [Condition::AtMost(0), Condition::AtMost(1), Condition::AtLeast(5)];
    let parts = [
        Pattern::Variable(0),
        Pattern::Repeat(Box::new(Pattern::Variable(1)), 0, None),
        Pattern::Variable(2),
    ];
    let said = run_all(
        &Pattern::Sequence(parts.to_vec()),
        &conditions,
        &[0, 1, 1, 1, 1],
        Some(2),
    );
    let [(4, Found::TimedOut(partial))] = said.as_slice() else {
        panic!("{said:?}");
    };
    assert_eq!(as_way(partial), vec![(0, 0), (1, 1), (2, 1)]);
}

/// Never merges two ways, so that they multiply.
struct Forgetful;

impl Judge for Forgetful {
    type Seen = Vec<Variable>;
    type Error = Infallible;

    fn nothing(&self) -> Self::Seen {
        Vec::new()
    }

    fn take(&mut self, seen: &Self::Seen, _row: u64, variable: Variable) -> Result<Option<Self::Seen>, Infallible> {
        let mut seen = seen.clone();
        seen.push(variable);
        Ok((variable < 2).then_some(seen))
    }
}

#[test]
fn too_many_ways_are_a_failure_and_many_attempts_give_up_the_oldest() {
    // (A | B)* C
    let either = Pattern::Alternatives(vec![Pattern::Variable(0), Pattern::Variable(1)]);
    let parts = vec![Pattern::Repeat(Box::new(either), 0, None), Pattern::Variable(2)];
    let automaton = Automaton::of(&Pattern::Sequence(parts)).expect("small");
    let mut attempt = Attempt::begin(&automaton, &mut Forgetful, 0)
        .ok()
        .flatten()
        .expect("it begins");
    // Two to the tenth is more than a thousand.
    for row in 1..9 {
        assert!(attempt.push(&automaton, &mut Forgetful, row).is_ok(), "row {row}");
    }
    let failure = attempt.push(&automaton, &mut Forgetful, 9).err();
    assert!(matches!(failure, Some(Failure::TooManyWays)), "{failure:?}");

    let rows = vec![1; 120];
    let conditions = [Condition::Always, Condition::Always, Condition::AtLeast(9)];
    let parts = vec![
        Pattern::Variable(0),
        Pattern::Repeat(Box::new(Pattern::Variable(1)), 0, None),
        Pattern::Variable(2),
    ];
    let automaton = Automaton::of(&Pattern::Sequence(parts)).expect("small");
    let mut judge = Seeing {
        rows: &rows,
        conditions: &conditions,
    };
    let mut search = Search::new(Skip::PastLastRow, false, 100);
    let mut said = Vec::new();
    for row in 0..105 {
        assert!(search.push(&automaton, &mut judge, row, &mut said).is_ok());
    }
    assert_eq!(search.len(), 100);
    assert_eq!(said.len(), 5);
    assert_eq!(said[0], Found::GivenUp(0));
}
