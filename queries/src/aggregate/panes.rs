//! Panes: a row of overlapping windows is added once, and a window is the merge of its panes.

use datafusion::common::Result;

use super::{Aggregate, Telling};
use crate::keys::Group;
use crate::operator::Progress;
use crate::row::Rows;
use crate::window::{Hop, Span};

impl Aggregate {
    /// When a pane is in no window any more that could still be amended.
    fn pane_drop(&self, pane: Span, hop: Hop) -> i64 {
        hop.span(hop.latest_start(pane.start))
            .end
            .saturating_add(self.plan.lateness_us)
    }

    /// Merges the panes of a window and says it, for `only` some groups or all.
    pub(super) fn say_merged(
        &mut self,
        span: Span,
        only: Option<&[Group]>,
        telling: Telling,
        out: &mut Vec<Rows>,
    ) -> Result<()> {
        let Some(hop) = self.panes else { return Ok(()) };
        let mut merged = self.pool.take(&self.plan);
        let (first, last) = (hop.pane(span.start), hop.pane(span.end - 1));
        for (_, pane) in self.slots.range(first..=last) {
            let filtered: Vec<Group>;
            let groups = match only {
                Some(only) => {
                    filtered = only.iter().copied().filter(|group| pane.has(*group)).collect();
                    &filtered
                }
                None => &pane.members,
            };
            merged.enter_all(groups);
            merged.merge(pane, groups, &self.plan)?;
        }
        let members = std::mem::take(&mut merged.members);
        Self::say(&self.plan, &self.keys, span, &mut merged, &members, telling, out)?;
        merged.members = members;
        merged.recycle();
        self.pool.give(merged);
        Ok(())
    }

    /// Where the first window begins that ends after `since` and by `until` and holds rows.
    fn due_start(&self, since: i64, until: i64, hop: Hop) -> Option<i64> {
        let ((first, _), (last, _)) = (self.slots.first_key_value()?, self.slots.last_key_value()?);
        let until = until.saturating_sub(hop.size_us).min(last.start);
        let mut start = hop
            .first_start_ending_behind(first.start)
            .max(hop.first_start_ending_behind(since));
        while start <= until {
            let (pane, _) = self.slots.range(hop.pane(start)..).next()?;
            if pane.start < start + hop.size_us {
                return Some(start);
            }
            // Over a gap in one step: it may be years long.
            start = hop.first_start_ending_behind(pane.start);
        }
        None
    }

    /// The open windows that hold rows, those that end first; at most so many.
    pub(super) fn open_windows(&self, most: usize, hop: Hop) -> Vec<Span> {
        let (mut open, mut since) = (Vec::new(), self.said_until);
        while open.len() < most
            && let Some(start) = self.due_start(since, i64::MAX, hop)
        {
            open.push(hop.span(start));
            since = start + hop.size_us;
        }
        open
    }

    /// Says the windows that end by `until` and were not said yet.
    fn say_panes(
        &mut self,
        before: i64,
        until: i64,
        hop: Hop,
        room: &mut usize,
        out: &mut Vec<Rows>,
    ) -> Result<Progress> {
        while let Some(start) = self.due_start(self.said_until, until, hop) {
            let span = hop.span(start);
            let telling = Telling {
                is_final: self.plan.lateness_us == 0,
                ..Telling::now(before.max(span.end), false)
            };
            if *room == 0 || self.say_window(span, telling, hop, room, out)? == Progress::Left {
                return Ok(Progress::Left);
            }
            self.said_until = span.end;
        }
        self.said_until = self.said_until.max(until);
        Ok(Progress::Done)
    }

    /// Says once more the windows that end by `until`, where rows tell whether they are final.
    fn say_final_panes(
        &mut self,
        before: i64,
        until: i64,
        hop: Hop,
        room: &mut usize,
        out: &mut Vec<Rows>,
    ) -> Result<Progress> {
        let lateness_us = self.plan.lateness_us;
        if !self.tells_final || lateness_us == 0 {
            return Ok(Progress::Done);
        }
        while let Some(start) = self.due_start(self.final_until, until, hop) {
            let span = hop.span(start);
            let telling = Telling::for_good(before.max(span.end.saturating_add(lateness_us)));
            if *room == 0 || self.say_window(span, telling, hop, room, out)? == Progress::Left {
                return Ok(Progress::Left);
            }
            self.final_until = span.end;
        }
        self.final_until = self.final_until.max(until);
        Ok(Progress::Done)
    }

    pub(super) fn close_panes(&mut self, hop: Hop, room: &mut usize, out: &mut Vec<Rows>) -> Result<Progress> {
        let (before, watermark) = (self.closing.before, self.watermark);
        let final_by = watermark.saturating_sub(self.plan.lateness_us);
        if self.say_panes(before, watermark, hop, room, out)? == Progress::Left
            || self.say_final_panes(before, final_by, hop, room, out)? == Progress::Left
        {
            return Ok(Progress::Left);
        }
        while let Some((pane, _)) = self.slots.first_key_value()
            && self.pane_drop(*pane, hop) <= watermark
        {
            let pane = *pane;
            if *room == 0 || self.slide_past(pane, room)? == Progress::Left {
                return Ok(Progress::Left);
            }
            self.changed.remove(&pane);
            if let Some(slot) = self.slots.remove(&pane) {
                self.pool.give_with_keys(slot);
            }
        }
        Ok(Progress::Done)
    }
}
