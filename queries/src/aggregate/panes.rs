//! Panes: a row of overlapping windows is added once, and a window is the merge of its panes.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::Result;

use super::{Aggregate, Telling};
use crate::keys::Group;
use crate::row::Rows;
use crate::slot::Slot;
use crate::window::{Hop, Span};

impl Aggregate {
    /// When a pane is in no window any more that could still be amended.
    fn pane_drop(&self, pane: Span, hop: Hop) -> i64 {
        hop.span(hop.latest_start(pane.start))
            .end
            .saturating_add(self.plan.lateness_us)
    }

    /// Says again the windows that were said and whose panes late rows have changed, where they are not final at the
    /// watermark `judged`. The last of the rows met `met`.
    pub(super) fn amend_panes(&mut self, hop: Hop, met: i64, judged: i64, out: &mut Vec<Rows>) -> Result<()> {
        let mut amended: BTreeMap<i64, BTreeSet<Group>> = BTreeMap::new();
        for pane in std::mem::take(&mut self.changed) {
            let Some(slot) = self.slots.get_mut(&pane) else {
                continue;
            };
            let changed = slot.take_changed();
            for start in hop.starts(pane.start) {
                let span = hop.span(start);
                if span.end <= self.said_until && !self.is_final(span, judged) {
                    amended.entry(start).or_default().extend(&changed);
                }
            }
        }
        for (start, groups) in amended {
            let groups: Vec<Group> = groups.into_iter().collect();
            self.amended += groups.len() as u64;
            let telling = Telling::now(met.max(self.watermark), true);
            self.say_merged(hop.span(start), Some(&groups), telling, out)?;
        }
        Ok(())
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
        let mut merged = self.spare.pop().unwrap_or_else(|| Slot::new(&self.plan));
        merged.resize(self.keys.capacity(), &self.plan);
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
            for group in groups {
                merged.enter(*group);
            }
            for (into, from) in merged.accumulators.iter_mut().zip(&pane.accumulators) {
                into.merge(from.as_ref(), groups)?;
            }
            if self.plan.keeps_causes {
                // Panes come in the order of time, so that the newest event stays.
                for group in groups {
                    if let Some(cause) = &pane.causes[*group as usize] {
                        merged.causes[*group as usize] = Some(cause.clone());
                    }
                }
            }
        }
        let members = std::mem::take(&mut merged.members);
        Self::say(&self.plan, &self.keys, span, &mut merged, &members, telling, out)?;
        merged.members = members;
        merged.recycle();
        self.spare.push(merged);
        Ok(())
    }

    /// Where the windows begin that end after `since` and by `until` and hold rows.
    pub(super) fn due_starts(&self, since: i64, until: i64, hop: Hop) -> Vec<i64> {
        let (Some((first, _)), Some((last, _))) = (self.slots.first_key_value(), self.slots.last_key_value()) else {
            return Vec::new();
        };
        let from = hop
            .first_start_ending_behind(first.start)
            .max(hop.first_start_ending_behind(since));
        let until = until.saturating_sub(hop.size_us).min(last.start);
        let (mut start, mut due) = (from, Vec::new());
        while start <= until
            && let Some((pane, _)) = self.slots.range(hop.pane(start)..).next()
        {
            if pane.start < start + hop.size_us {
                due.push(start);
                start += hop.slide_us;
            } else {
                // Over a gap in one step: it may be years long.
                start = hop.first_start_ending_behind(pane.start);
            }
        }
        due
    }

    /// Says the windows that end by `until` and were not said yet.
    pub(super) fn say_panes(&mut self, before: i64, until: i64, hop: Hop, out: &mut Vec<Rows>) -> Result<()> {
        for start in self.due_starts(self.said_until, until, hop) {
            let span = hop.span(start);
            let telling = Telling {
                is_final: self.plan.lateness_us == 0,
                ..Telling::now(before.max(span.end), false)
            };
            match self.slide_to(span, hop)? {
                Some((mut sliding, members)) => {
                    Self::say(&self.plan, &self.keys, span, sliding.merged(), &members, telling, out)?;
                    self.keep_sliding(sliding);
                }
                None => self.say_merged(span, None, telling, out)?,
            }
        }
        self.said_until = self.said_until.max(until);
        Ok(())
    }

    /// Whether a row comes too late for one of the windows that its pane is in. Such a window has to be said before the
    /// row is put into the pane.
    pub(super) fn is_late_for_some(&self, hop: Hop, time: i64, met: i64) -> bool {
        let first = hop.span(hop.first_start_ending_behind(time));
        self.is_final(first, met)
    }

    /// Says the windows that are final at the watermark that a row met, though time has not moved on to it yet.
    pub(super) fn say_what_is_final(&mut self, hop: Hop, met: i64, out: &mut Vec<Rows>) -> Result<()> {
        self.say_changes(met, out)?;
        let until = met.saturating_sub(self.plan.lateness_us);
        self.say_panes(self.watermark, until, hop, out)?;
        self.say_final_panes(self.watermark, until, hop, out)
    }

    /// Says once more the windows that end by `until`, where rows tell whether they are final.
    fn say_final_panes(&mut self, before: i64, until: i64, hop: Hop, out: &mut Vec<Rows>) -> Result<()> {
        let lateness_us = self.plan.lateness_us;
        if !self.tells_final || lateness_us == 0 {
            return Ok(());
        }
        for start in self.due_starts(self.final_until, until, hop) {
            let span = hop.span(start);
            let telling = Telling::for_good(before.max(span.end.saturating_add(lateness_us)));
            self.say_merged(span, None, telling, out)?;
        }
        self.final_until = self.final_until.max(until);
        Ok(())
    }

    pub(super) fn close_panes(&mut self, before: i64, watermark: i64, hop: Hop, out: &mut Vec<Rows>) -> Result<()> {
        let lateness_us = self.plan.lateness_us;
        self.say_panes(before, watermark, hop, out)?;
        self.say_final_panes(before, watermark.saturating_sub(lateness_us), hop, out)?;
        while let Some((pane, _)) = self.slots.first_key_value() {
            if self.pane_drop(*pane, hop) > watermark {
                break;
            }
            let pane = *pane;
            self.slide_past(pane)?;
            if let Some((pane, slot)) = self.slots.pop_first() {
                self.changed.remove(&pane);
                self.retire(slot);
            }
        }
        Ok(())
    }
}
