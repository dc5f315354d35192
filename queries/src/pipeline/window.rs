//! The window that a pipeline begins with, taken out of it and put back: what several queries may share.

use datafusion::common::Result;

use super::{Node, Pipeline};
use crate::operator::{Context, Operator};
use crate::row::Rows;
use crate::shared_window::WindowOperator;

impl Pipeline {
    /// How many operators there are up to the window that rows meet first, that one counted in; `None` where something
    /// below it keeps state, or where rows come in at several places.
    pub(crate) fn up_to_window(&self) -> Option<usize> {
        let [(_, 0)] = self.leaves.as_slice() else {
            return None;
        };
        if self.taken_out > 0 {
            return None;
        }
        let window = self.nodes.iter().position(|node| node.operator.as_window().is_some())?;
        let is_plain = |node: &Node| node.operator.is_like(node.operator.as_ref());
        self.nodes[..window].iter().all(is_plain).then_some(window + 1)
    }

    /// The window that rows meet first.
    pub(crate) fn window(&self) -> Option<&dyn WindowOperator> {
        let count = self.up_to_window()?;
        self.nodes[count - 1].operator.as_window()
    }

    /// The same to change it.
    pub(crate) fn window_mut(&mut self) -> Option<&mut dyn WindowOperator> {
        let count = self.up_to_window()?;
        self.nodes[count - 1].operator.as_window_mut()
    }

    /// Whether the same rows come to the windows of both, and these windows are the same, whatever is aggregated.
    pub(crate) fn begins_like(&self, other: &Self) -> bool {
        let (Some(count), Some(of_other)) = (self.up_to_window(), other.up_to_window()) else {
            return false;
        };
        let (Some(window), Some(other_window)) = (self.window(), other.window()) else {
            return false;
        };
        count == of_other
            && self.leaves[0].0 == other.leaves[0].0
            && self.nodes[..count - 1]
                .iter()
                .zip(&other.nodes)
                .all(|(node, other)| node.operator.is_like(other.operator.as_ref()))
            && window.has_windows_of(other_window)
    }

    /// Takes the window out with what is below it, as a pipeline of its own: what is left takes what that says.
    pub(crate) fn take_out(&mut self) -> Option<Self> {
        let count = self.up_to_window()?;
        let above = self.nodes.split_off(count);
        let mut nodes = std::mem::replace(&mut self.nodes, above);
        nodes[count - 1].parent = None;
        for (parent, _) in self.nodes.iter_mut().filter_map(|node| node.parent.as_mut()) {
            *parent -= count;
        }
        self.taken_out = count;
        Some(Self {
            nodes,
            leaves: self.leaves.clone(),
            ..Self::default()
        })
    }

    /// Puts a window below what is left, in the place of the one that was taken out.
    pub(crate) fn put_back(&mut self, window: Self) {
        let count = window.nodes.len();
        for (parent, _) in self.nodes.iter_mut().filter_map(|node| node.parent.as_mut()) {
            *parent += count;
        }
        let above = std::mem::replace(&mut self.nodes, window.nodes);
        if !above.is_empty() {
            self.nodes[count - 1].parent = Some((count, 0));
        }
        self.nodes.extend(above);
        self.taken_out = 0;
    }

    /// A pipeline that ends in another window, over copies of what is below the window of this one.
    pub(crate) fn with_window(&self, window: Box<dyn Operator>) -> Option<Self> {
        let count = self.up_to_window()?;
        let mut copied = Self::default();
        for node in &self.nodes[..count - 1] {
            copied.add_above(node.operator.copied()?);
        }
        copied.add_above(window);
        copied.leaves.clone_from(&self.leaves);
        Some(copied)
    }

    fn add_above(&mut self, operator: Box<dyn Operator>) {
        let below: Vec<usize> = self.nodes.len().checked_sub(1).into_iter().collect();
        self.add(operator, &below);
    }

    /// Takes what the window says that was taken out.
    pub(crate) fn take(&mut self, rows: Rows, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        if self.nodes.is_empty() {
            out.push(rows);
            return Ok(());
        }
        self.spare.push(rows);
        self.climb((0, 0), context, out)
    }

    /// The number of the window that was taken out.
    pub(crate) fn taken_out(&self) -> Option<usize> {
        self.taken_out.checked_sub(1)
    }
}
