//! An automaton is a pattern with its repetitions written out: which rows may follow each row, the preferred first.

use std::collections::HashSet;

use super::{Pattern, PatternError, Variable};

/// A pattern that stands for more rows than this when written out is refused: `{1,100000}` would keep as many states.
pub(crate) const MAX_POSITIONS: usize = 1_000;
/// Nodes between rows: optional parts of optional parts.
const MAX_NODES: usize = 20_000;
/// Steps from one row to the next, over all positions.
const MAX_STEPS: usize = 5_000;

/// What may come behind a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Follow {
    /// Positions for the next row, all preferred to ending here.
    pub(crate) next: Vec<u16>,
    /// Whether the match may end here.
    pub(crate) accepts: bool,
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(crate) struct Automaton {
    /// The variable of each position.
    pub(crate) variables: Vec<Variable>,
    /// What a match begins with.
    pub(crate) first: Follow,
    /// What comes behind each position.
    pub(crate) follow: Vec<Follow>,
}

impl Automaton {
    /// Writes a pattern out.
    ///
    /// # Errors
    /// When it is too large, or would match no rows at all.
    pub(crate) fn of(pattern: &Pattern) -> Result<Self, PatternError> {
        let mut builder = Builder {
            nodes: vec![Node::Accept],
            variables: Vec::new(),
            behind: Vec::new(),
            steps: 0,
        };
        let start = builder.build(pattern, 0)?;
        let first = builder.follow(start)?;
        if first.accepts {
            return Err(PatternError::MatchesNothing);
        }
        let follow = (0..builder.behind.len())
            .map(|position| builder.follow(builder.behind[position]))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            variables: builder.variables,
            first,
            follow,
        })
    }
}

enum Node {
    Accept,
    /// A row at this position.
    Row(u16),
    /// Either, the left one preferred.
    Split(Vec<usize>),
    /// Once more, or on.
    Loop {
        body: usize,
        exit: usize,
    },
}

struct Builder {
    nodes: Vec<Node>,
    variables: Vec<Variable>,
    /// The node behind each position.
    behind: Vec<usize>,
    steps: usize,
}

impl Builder {
    fn add(&mut self, node: Node) -> Result<usize, PatternError> {
        if self.nodes.len() >= MAX_NODES {
            return Err(PatternError::TooLong);
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// The node at which `pattern` begins when `next` comes behind it.
    fn build(&mut self, pattern: &Pattern, next: usize) -> Result<usize, PatternError> {
        match pattern {
            Pattern::Variable(variable) => {
                if self.variables.len() >= MAX_POSITIONS {
                    return Err(PatternError::TooLong);
                }
                let position = self.variables.len() as u16;
                self.variables.push(*variable);
                self.behind.push(next);
                self.add(Node::Row(position))
            }
            Pattern::Sequence(parts) => parts.iter().rev().try_fold(next, |next, part| self.build(part, next)),
            Pattern::Alternatives(parts) => {
                let begins = parts
                    .iter()
                    .map(|part| self.build(part, next))
                    .collect::<Result<Vec<_>, _>>()?;
                self.add(Node::Split(begins))
            }
            Pattern::Repeat(part, least, most) => self.repeat(part, *least, *most, next),
        }
    }

    fn repeat(&mut self, part: &Pattern, least: u32, most: Option<u32>, next: usize) -> Result<usize, PatternError> {
        let (mut at, copies) = match most {
            Some(most) if most < least => return Err(PatternError::Range(least, most)),
            Some(most) => {
                let mut at = next;
                for _ in least..most {
                    let once = self.build(part, at)?;
                    at = self.add(Node::Split(vec![once, next]))?;
                }
                (at, least)
            }
            None => {
                let around = self.add(Node::Loop { body: 0, exit: next })?;
                let body = self.build(part, around)?;
                self.nodes[around] = Node::Loop { body, exit: next };
                // The loop's body is also its first round where one is needed.
                if least == 0 { (around, 0) } else { (body, least - 1) }
            }
        };
        for _ in 0..copies {
            at = self.build(part, at)?;
        }
        Ok(at)
    }

    /// The positions that `from` leads to without taking a row, in the order in which they are preferred.
    fn follow(&mut self, from: usize) -> Result<Follow, PatternError> {
        let mut follow = Follow::default();
        let mut seen = HashSet::new();
        let mut positions = HashSet::new();
        // With each node the loops whose present round has taken no row: such a round is the last, or it would never end.
        let mut open: Vec<(usize, Vec<usize>)> = vec![(from, Vec::new())];
        while let Some((node, idle)) = open.pop() {
            if !seen.insert((node, idle.clone())) {
                continue;
            }
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(PatternError::TooIntricate);
            }
            match &self.nodes[node] {
                Node::Accept => {
                    // What is less preferred than ending here is never tried.
                    follow.accepts = true;
                    break;
                }
                Node::Row(position) => {
                    if positions.insert(*position) {
                        follow.next.push(*position);
                    }
                }
                Node::Split(ways) => open.extend(ways.iter().rev().map(|way| (*way, idle.clone()))),
                Node::Loop { body, exit } => {
                    let mut out = idle.clone();
                    if let Some(index) = out.iter().position(|around| *around == node) {
                        out.remove(index);
                        open.push((*exit, out));
                    } else {
                        let mut within = idle;
                        within.push(node);
                        open.push((*exit, out));
                        open.push((*body, within));
                    }
                }
            }
        }
        Ok(follow)
    }
}

#[cfg(test)]
mod tests {
    use super::{Automaton, Follow};
    use crate::row_pattern::{Pattern, PatternError};

    fn repeat(part: Pattern, least: u32, most: Option<u32>) -> Pattern {
        Pattern::Repeat(Box::new(part), least, most)
    }

    #[test]
    fn what_follows_a_row_is_in_the_order_in_which_it_is_preferred() {
        // A (B | C)* D
        let either = Pattern::Alternatives(vec![Pattern::Variable(1), Pattern::Variable(2)]);
        let whole = Pattern::Sequence(vec![
            Pattern::Variable(0),
            repeat(either, 0, None),
            Pattern::Variable(3),
        ]);
        let automaton = Automaton::of(&whole).expect("small");
        let names = |follow: &Follow| -> Vec<u16> {
            follow
                .next
                .iter()
                .map(|position| automaton.variables[*position as usize])
                .collect()
        };
        assert_eq!(names(&automaton.first), vec![0]);
        for (variable, follow) in automaton.variables.iter().zip(&automaton.follow) {
            let expected = if *variable == 3 { vec![] } else { vec![1, 2, 3] };
            assert_eq!((names(follow), follow.accepts), (expected, *variable == 3));
        }
    }

    #[test]
    fn what_would_be_too_large_or_match_nothing_is_refused() {
        let a = || Pattern::Variable(0);
        let error = |pattern: &Pattern| Automaton::of(pattern).err();
        assert_eq!(error(&repeat(a(), 1, Some(1_000))), None);
        assert_eq!(error(&repeat(a(), 1, Some(1_001))), Some(PatternError::TooLong));
        assert_eq!(error(&repeat(a(), 1, Some(u32::MAX))), Some(PatternError::TooLong));
        assert_eq!(
            error(&repeat(repeat(repeat(a(), 0, Some(30)), 0, Some(30)), 1, Some(30))),
            Some(PatternError::TooLong)
        );
        assert_eq!(
            error(&repeat(repeat(a(), 0, Some(0)), 0, Some(u32::MAX))),
            Some(PatternError::TooLong)
        );
        assert_eq!(error(&repeat(a(), 0, None)), Some(PatternError::MatchesNothing));
        assert_eq!(error(&repeat(a(), 0, Some(0))), Some(PatternError::MatchesNothing));
        assert_eq!(error(&repeat(a(), 3, Some(2))), Some(PatternError::Range(3, 2)));
        let optional = Pattern::Sequence(vec![repeat(repeat(a(), 0, Some(1)), 999, Some(999)), a()]);
        assert_eq!(error(&optional), Some(PatternError::TooIntricate));
    }
}
