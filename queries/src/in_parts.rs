//! A list that grows a part at a time: one that doubles moves all that it has, and events wait for that.

use std::mem;

/// Values of a part.
const PART: usize = 4_096;

/// Values that are taken out again in any order, the latest first.
#[derive(Debug)]
pub struct InParts<T> {
    full: Vec<Vec<T>>,
    last: Vec<T>,
}

impl<T> Default for InParts<T> {
    fn default() -> Self {
        Self {
            full: Vec::new(),
            last: Vec::new(),
        }
    }
}

impl<T> InParts<T> {
    /// Puts one behind the others.
    pub fn push(&mut self, value: T) {
        if self.last.len() == PART {
            let full = mem::replace(&mut self.last, Vec::with_capacity(PART));
            self.full.push(full);
        }
        self.last.push(value);
    }

    /// Takes the last one out.
    pub fn pop(&mut self) -> Option<T> {
        self.reach_back();
        self.last.pop()
    }

    /// Takes some of the last ones out, `most` at most; none where there are none.
    pub fn take(&mut self, most: usize) -> Vec<T> {
        self.reach_back();
        if self.last.len() <= most {
            return mem::take(&mut self.last);
        }
        self.last.split_off(self.last.len() - most)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty() && self.full.is_empty()
    }

    /// Makes the part before the last one the last where that has nothing left.
    fn reach_back(&mut self) {
        if self.last.is_empty()
            && let Some(full) = self.full.pop()
        {
            self.last = full;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{InParts, PART};

    #[test]
    fn what_is_put_in_comes_out_once_the_latest_first() {
        let mut list = InParts::default();
        assert!(list.is_empty() && list.pop().is_none() && list.take(3).is_empty());
        let all = 3 * PART + 7;
        (0..all).for_each(|value| list.push(value));
        assert_eq!(list.pop(), Some(all - 1));
        let mut out = vec![all - 1];
        for most in [1, 3, PART, 2 * PART, 5].into_iter().cycle() {
            let taken = list.take(most);
            assert!(taken.len() <= most);
            if taken.is_empty() {
                break;
            }
            out.extend(taken.into_iter().rev());
        }
        assert!(list.is_empty());
        assert!(
            out.iter().copied().eq((0..all).rev()),
            "each of them once, the latest first"
        );
    }
}
