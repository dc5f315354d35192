//! Hiding decides which counts of zones are shown: a function of what each would show, and of nothing else.
//!
//! Who knows what is shown could work it out by himself. So what is hidden beside a small count says nothing more of it.

/// A zone as hiding looks at it. Zones are named by their places in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    /// The zone it lies in.
    pub(super) parent: Option<usize>,
    /// What it would show by itself, 0 for few; `None` where nothing of its own counts.
    pub(super) own: Option<i64>,
}

/// What is shown of a zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// At least so many; `None` is few.
    pub(super) persons: Option<i64>,
    /// Whether that is made of the zones in it, of which some are hidden.
    pub(super) is_partial: bool,
}

struct Tree<'a> {
    nodes: &'a [Node],
    children: Vec<Vec<usize>>,
    hidden: Vec<bool>,
}

/// What is shown of each zone.
///
/// 1. Few are hidden.
/// 2. Nothing is shown of what lies in a hidden zone.
/// 3. What is shown within a zone adds up to no more than the zone shows; the smallest are hidden until it does.
/// 4. Within a zone that is shown none is hidden alone: the smallest shown beside it is hidden too.
///
/// A zone that nothing counts but what lies in it shows the sum of what is shown there, which says nothing new: it needs
/// neither 3 nor 4.
pub(super) fn shown(nodes: &[Node]) -> Vec<Shown> {
    let mut children = vec![Vec::new(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        if let Some(parent) = node.parent {
            children[parent].push(index);
        }
    }
    let hidden = nodes.iter().map(|node| node.own.is_none_or(|own| own == 0)).collect();
    let mut tree = Tree {
        nodes,
        children,
        hidden,
    };
    for root in (0..nodes.len()).filter(|index| nodes[*index].parent.is_none()) {
        tree.hide_in(root, false);
    }
    (0..nodes.len()).map(|index| tree.shown(index)).collect()
}

impl Tree<'_> {
    /// Hides what has to be hidden within a zone, from the outside in.
    fn hide_in(&mut self, zone: usize, is_within_hidden: bool) {
        self.hidden[zone] |= is_within_hidden;
        let is_counted = self.nodes[zone].own.is_some();
        if is_counted && !self.hidden[zone] {
            self.hide_beside(zone);
        }
        let is_hidden = is_within_hidden || is_counted && self.hidden[zone];
        for child in self.children[zone].clone() {
            self.hide_in(child, is_hidden);
        }
    }

    /// Hides parts of a zone that is shown with a count of its own, where what is shown of them would give away others.
    fn hide_beside(&mut self, zone: usize) {
        let own = self.nodes[zone].own.unwrap_or(0);
        let mut shown: Vec<usize> = self.parts(zone);
        let parts = shown.len();
        shown.retain(|part| !self.hidden[*part]);
        // The largest first, so that the smallest is taken from the end; of equal ones the last of the place.
        shown.sort_by_key(|part| std::cmp::Reverse(self.own(*part)));
        while shown.iter().map(|part| self.own(*part)).sum::<i64>() > own {
            shown.pop().into_iter().for_each(|part| self.hidden[part] = true);
        }
        if parts - shown.len() == 1 {
            shown.pop().into_iter().for_each(|part| self.hidden[part] = true);
        }
    }

    fn own(&self, zone: usize) -> i64 {
        self.nodes[zone].own.unwrap_or(0)
    }

    /// The nearest zones within a zone that something counts.
    fn parts(&self, zone: usize) -> Vec<usize> {
        let mut parts = Vec::new();
        for child in &self.children[zone] {
            match self.nodes[*child].own {
                Some(_) => parts.push(*child),
                None => parts.extend(self.parts(*child)),
            }
        }
        parts
    }

    fn shown(&self, zone: usize) -> Shown {
        if let Some(own) = self.nodes[zone].own {
            return Shown {
                persons: (!self.hidden[zone]).then_some(own),
                is_partial: false,
            };
        }
        let parts = self.parts(zone);
        let shown = parts.iter().filter(|part| !self.hidden[**part]);
        let persons = shown.clone().map(|part| self.own(*part)).reduce(|sum, part| sum + part);
        Shown {
            persons,
            is_partial: persons.is_some() && shown.count() < parts.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Node, Shown, shown};

    fn check(zones: &[(Option<usize>, Option<i64>)], expected: &[Option<i64>]) -> Vec<Shown> {
        let nodes: Vec<Node> = zones.iter().map(|&(parent, own)| Node { parent, own }).collect();
        let found = shown(&nodes);
        let persons: Vec<Option<i64>> = found.iter().map(|shown| shown.persons).collect();
        assert_eq!(persons, expected, "{zones:?}");
        found
    }

    #[test]
    fn none_is_hidden_alone_where_a_total_is_counted() {
        // The total less two of three would be the third.
        check(
            &[
                (None, Some(60)),
                (Some(0), Some(30)),
                (Some(0), Some(0)),
                (Some(0), Some(20)),
            ],
            &[Some(60), Some(30), None, None],
        );
        // Two that are few hide each other.
        check(
            &[
                (None, Some(60)),
                (Some(0), Some(30)),
                (Some(0), Some(0)),
                (Some(0), Some(0)),
            ],
            &[Some(60), Some(30), None, None],
        );
        // One by itself, of which nobody else can be hidden.
        check(&[(None, Some(60)), (Some(0), Some(0))], &[Some(60), None]);
    }

    #[test]
    fn parts_add_up_to_no_more_than_the_whole() {
        check(
            &[
                (None, Some(30)),
                (Some(0), Some(20)),
                (Some(0), Some(15)),
                (Some(0), Some(10)),
            ],
            // 45 are too many, without the smallest 35 still are.
            &[Some(30), Some(20), None, None],
        );
        check(
            &[(None, Some(30)), (Some(0), Some(20)), (Some(0), Some(10))],
            &[Some(30), Some(20), Some(10)],
        );
    }

    #[test]
    fn nothing_is_shown_within_what_is_hidden() {
        check(
            &[
                (None, Some(50)),
                (Some(0), Some(0)),
                (Some(0), Some(20)),
                (Some(2), Some(10)),
                (Some(0), Some(25)),
                // Within the one that is few.
                (Some(1), Some(10)),
            ],
            &[Some(50), None, None, None, Some(25), None],
        );
    }

    #[test]
    fn a_zone_without_a_count_shows_the_sum_of_what_is_shown_in_it() {
        let found = check(
            &[
                (None, None),
                (Some(0), Some(30)),
                (Some(0), Some(0)),
                (Some(0), Some(20)),
                (None, None),
            ],
            &[Some(50), Some(30), None, Some(20), None],
        );
        let is_partial: Vec<bool> = found.iter().map(|shown| shown.is_partial).collect();
        assert_eq!(is_partial, [true, false, false, false, false]);
        // A total further out counts what lies within it all the same.
        check(
            &[
                (None, Some(60)),
                (Some(0), None),
                (Some(1), Some(30)),
                (Some(1), Some(0)),
                (Some(1), Some(20)),
            ],
            &[Some(60), Some(30), Some(30), None, None],
        );
    }
}
