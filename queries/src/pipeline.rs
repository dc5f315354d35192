//! A pipeline is the operators of one query in the order in which rows meet them.

mod window;

use datafusion::common::Result;

use crate::capture::{CapturedOperator, Renewal, next_operator};
use crate::operator::{Context, Footprint, Operator, Progress};
use crate::row::Rows;

struct Node {
    operator: Box<dyn Operator>,
    /// Where its output goes, and the how manieth input it is there; `None` for the last operator of the pipeline.
    parent: Option<(usize, usize)>,
    /// How far its watermark stays behind the pipeline's, microseconds: as far as times of the rows it reads may.
    behind_us: i64,
    /// Whether it may hold something else than at the last capture.
    is_touched: bool,
    /// Its number in captures, once there was one.
    captured: Option<u64>,
}

impl Node {
    /// How far times of the rows it says may lie behind the pipeline's watermark.
    fn lag_us(&self) -> i64 {
        self.behind_us.saturating_add(self.operator.lag_us())
    }

    /// By how much rows that go in must be set back.
    fn set_back_us(&self) -> i64 {
        if self.operator.reads_watermarks() {
            self.behind_us
        } else {
            0
        }
    }
}

/// The operators; each stands before the one that reads it.
#[derive(Default)]
pub(crate) struct Pipeline {
    nodes: Vec<Node>,
    /// Where rows come in: the name of a stream, query or table, and the operator that reads it.
    leaves: Vec<(String, usize)>,
    /// How many operators were taken out, those that rows meet first: they run elsewhere, for several queries at once.
    taken_out: usize,
    /// The operator at which taking ahead of the next capture goes on.
    gathering: usize,
    /// Rows between two operators; empty between two steps.
    spare: Vec<Rows>,
    spare_next: Vec<Rows>,
}

impl Pipeline {
    /// The names of what it reads.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &str> {
        self.leaves.iter().map(|(name, _)| name.as_str())
    }

    /// Feeds rows of `source`; what comes out at the end is appended to `out`.
    pub(crate) fn push(
        &mut self,
        source: &str,
        rows: &Rows,
        context: &mut Context<'_>,
        out: &mut Vec<Rows>,
    ) -> Result<()> {
        for index in 0..self.leaves.len() {
            let (name, leaf) = &self.leaves[index];
            if name == source {
                let leaf = *leaf;
                self.spare.push(rows.clone());
                self.climb((leaf, 0), context, out)?;
            }
        }
        Ok(())
    }

    /// Takes the rows in `spare` from the operator `from` on to the end.
    fn climb(&mut self, from: (usize, usize), context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        // Two lists that change places at each operator and keep their memory: most steps carry a single row.
        let mut current = std::mem::take(&mut self.spare);
        let mut next = std::mem::take(&mut self.spare_next);
        let mut at = Some(from);
        while let Some((index, input)) = at
            && !current.is_empty()
        {
            let node = &mut self.nodes[index];
            node.is_touched = true;
            let back_us = node.set_back_us();
            for mut rows in current.drain(..) {
                if back_us > 0 {
                    rows = rows.meeting(|met| met.saturating_sub(back_us));
                }
                node.operator.push_input(input, rows, context, &mut next)?;
            }
            brought_forward(&mut next, back_us);
            std::mem::swap(&mut current, &mut next);
            at = node.parent;
        }
        out.append(&mut current);
        (self.spare, self.spare_next) = (current, next);
        Ok(())
    }

    /// Moves time on in every operator, the ones nearest to the streams first; about `part` rows are said. An operator
    /// follows when those it reads have said all that was due.
    pub(crate) fn advance(
        &mut self,
        watermark: i64,
        part: usize,
        context: &mut Context<'_>,
        out: &mut Vec<Rows>,
    ) -> Result<Progress> {
        for index in 0..self.nodes.len() {
            let mut said = std::mem::take(&mut self.spare);
            let node = &mut self.nodes[index];
            let behind = watermark.saturating_sub(node.behind_us);
            node.is_touched |= node.operator.next_due() <= behind;
            let progress = node.operator.advance(behind, part, context, &mut said)?;
            brought_forward(&mut said, node.set_back_us());
            self.spare = said;
            if !self.spare.is_empty() {
                match self.nodes[index].parent {
                    Some(parent) => self.climb(parent, context, out)?,
                    None => out.append(&mut self.spare),
                }
            }
            if progress == Progress::Left {
                return Ok(Progress::Left);
            }
        }
        Ok(Progress::Done)
    }

    /// Whether any of its operators reads rows that are said when time moves on.
    pub(crate) fn has_lagging_inputs(&self) -> bool {
        self.nodes.iter().any(|node| node.behind_us > 0)
    }

    /// How far times of the rows it says may lie behind the watermark because of what its operators wait for.
    pub(crate) fn lag_us(&self) -> i64 {
        self.nodes.last().map_or(0, Node::lag_us)
    }

    /// The same of the rows that one of its operators says.
    pub(crate) fn lag_of(&self, node: usize) -> i64 {
        self.nodes[node].lag_us()
    }

    /// The first watermark at which `advance` has something to do.
    pub(crate) fn next_due(&self) -> i64 {
        let due = self
            .nodes
            .iter()
            .map(|node| node.operator.next_due().saturating_add(node.behind_us));
        due.min().unwrap_or(i64::MAX)
    }

    /// How many rows were said in place of ones said before.
    pub(crate) fn amended(&self) -> u64 {
        self.nodes.iter().map(|node| node.operator.amended()).sum()
    }

    /// Gives up all that is kept; nothing can be pushed any more.
    pub(crate) fn give_up(&mut self) {
        self.nodes.clear();
    }

    /// The rows that the last keeping operator stands for now, as they would be said; `None` without such an operator.
    pub(crate) fn peek(&mut self, context: &mut Context<'_>) -> Result<Option<Vec<Rows>>> {
        for index in (0..self.nodes.len()).rev() {
            if let Some(flow) = self.nodes[index].operator.peek()? {
                let mut out = Vec::new();
                match self.nodes[index].parent {
                    _ if flow.num_rows() == 0 => {}
                    Some(parent) => {
                        self.spare.push(Rows::Many(flow));
                        self.climb(parent, context, &mut out)?;
                    }
                    None => out.push(Rows::Many(flow)),
                }
                return Ok(Some(out));
            }
        }
        Ok(None)
    }

    /// What each operator must remember, with its number.
    pub(crate) fn snapshot(&mut self) -> Result<Vec<(usize, arrow::array::RecordBatch)>> {
        let mut parts = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if let Some(part) = node.operator.snapshot()? {
                parts.push((self.taken_out + index, part));
            }
        }
        Ok(parts)
    }

    /// Takes what has changed in its operators since the last capture, about `room` rows, ahead of the next one; it goes on
    /// where the last call ended.
    pub(crate) fn gather(&mut self, room: &mut usize) -> Result<()> {
        for _ in 0..self.nodes.len() {
            self.gathering %= self.nodes.len();
            let node = &mut self.nodes[self.gathering];
            if node.is_touched {
                node.operator.gather(room)?;
            }
            if *room == 0 {
                break;
            }
            self.gathering += 1;
        }
        Ok(())
    }

    /// What has changed in each operator since the last capture, with its number in the pipeline. `renewal` says which of them
    /// begin anew in the next one.
    pub(crate) fn capture(&mut self, renewal: &mut Renewal) -> Result<Vec<(usize, CapturedOperator)>> {
        let mut all = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let number = self.taken_out + index;
            if let Some(operator) = node.captured.filter(|_| !node.is_touched) {
                all.push((number, CapturedOperator::unchanged(operator)));
                continue;
            }
            let captured = match node.operator.capture()? {
                Some(captured) => captured,
                None => match node.operator.snapshot()? {
                    Some(rows) => CapturedOperator::whole(node.captured.unwrap_or_else(next_operator), rows),
                    None => continue,
                },
            };
            if captured.chain.is_some_and(|chain| renewal.is_for(chain)) {
                node.operator.capture_anew();
            }
            node.captured = Some(captured.operator);
            node.is_touched = false;
            all.push((number, captured));
        }
        Ok(all)
    }

    /// The next capture is to hold everything.
    pub(crate) fn capture_anew(&mut self) {
        for node in &mut self.nodes {
            (node.captured, node.is_touched) = (None, true);
            node.operator.capture_anew();
        }
    }

    /// Takes back what `snapshot` gave.
    pub(crate) fn restore(&mut self, parts: &[(usize, arrow::array::RecordBatch)]) -> Result<()> {
        for (index, part) in parts {
            let index = index.checked_sub(self.taken_out);
            if let Some(node) = index.and_then(|index| self.nodes.get_mut(index)) {
                node.operator.restore(part)?;
            }
        }
        Ok(())
    }

    /// How much all of them keep.
    pub(crate) fn footprint(&self) -> Footprint {
        let mut sum = Footprint::default();
        for node in &self.nodes {
            sum += node.operator.footprint();
        }
        sum
    }

    /// One line an operator, the last one first.
    pub(crate) fn describe(&self) -> Vec<String> {
        self.nodes.iter().rev().map(|node| node.operator.describe()).collect()
    }

    /// Adds an operator that reads rows of `source`; gives its number.
    pub(crate) fn add_leaf(&mut self, source: &str, operator: Box<dyn Operator>) -> usize {
        let index = self.add(operator, &[]);
        self.leaves.push((source.to_owned(), index));
        index
    }

    /// Adds an operator that reads the operators `children`; gives its number.
    pub(crate) fn add(&mut self, operator: Box<dyn Operator>, children: &[usize]) -> usize {
        let index = self.nodes.len();
        let mut behind_us = 0;
        for (input, child) in children.iter().enumerate() {
            let child = &mut self.nodes[*child];
            child.parent = Some((index, input));
            behind_us = behind_us.max(child.lag_us());
        }
        self.nodes.push(Node {
            operator,
            parent: None,
            behind_us,
            is_touched: true,
            captured: None,
        });
        index
    }
}

/// Gives rows of what is set back, an operator or a whole query, the watermarks of what it stands in.
pub(crate) fn brought_forward(said: &mut Vec<Rows>, back_us: i64) {
    if back_us > 0 {
        // What was said before there was a watermark stays so.
        let forward = |met: i64| {
            if met == i64::MIN {
                met
            } else {
                met.saturating_add(back_us)
            }
        };
        let rows = std::mem::take(said).into_iter();
        said.extend(rows.map(|rows| rows.meeting(forward)));
    }
}
