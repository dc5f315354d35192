//! A running aggregate: one endless window, whose keys are forgotten when they were unseen for their time to live.

use datafusion::common::Result;
use rustc_hash::FxHashMap;

use super::{Aggregate, Columns};
use crate::flow::Flow;
use crate::keys::Group;
use crate::operator::Progress;
use crate::picked::Picked;
use crate::window::Span;

/// Whether a key touched at one watermark is forgotten at another.
pub(super) fn is_over(touched: i64, watermark: i64, ttl_us: i64) -> bool {
    touched > i64::MIN && touched <= watermark.saturating_sub(ttl_us)
}

impl Aggregate {
    /// Takes rows of a running aggregate. A key that was unseen for its time to live begins anew with its next row, at
    /// whatever moment it is forgotten.
    pub(super) fn take_running(&mut self, flow: &Flow, columns: &Columns) -> Result<()> {
        let Some(ttl_us) = self.plan.ttl_us else {
            return self.add(Span::ENDLESS, &Picked::first(flow.num_rows()), flow, columns);
        };
        let mut waiting = Picked::none();
        let mut touched: FxHashMap<Group, i64> = FxHashMap::default();
        for row in 0..flow.num_rows() {
            let (group, met) = (columns.groups[row], flow.watermarks.value(row));
            let met = self.watermark.max(met);
            let before = touched.insert(group, met).or_else(|| self.touched(group));
            if before.is_some_and(|before| is_over(before, met, ttl_us)) {
                self.add(Span::ENDLESS, &waiting, flow, columns)?;
                waiting = Picked::none();
                self.begin_anew(group);
            }
            waiting.extend(row..row + 1);
        }
        self.add(Span::ENDLESS, &waiting, flow, columns)
    }

    /// The watermark at the last row of a running aggregate's group.
    pub(super) fn touched(&self, group: Group) -> Option<i64> {
        let slot = self.slots.get(&Span::ENDLESS).filter(|slot| slot.has(group))?;
        Some(slot.touched[group as usize])
    }

    pub(super) fn begin_anew(&mut self, group: Group) {
        if let Some(slot) = self.slots.get_mut(&Span::ENDLESS) {
            slot.reset(&[group]);
        }
    }

    /// Forgets the keys of a running aggregate that were unseen for its time to live; looks at about `part` of them.
    pub(super) fn expire(&mut self, part: usize) -> Progress {
        let Some(ttl_us) = self.plan.ttl_us else {
            return Progress::Done;
        };
        if self.plan.window.is_some() || self.watermark < self.next_expiry || self.watermark == i64::MIN {
            return Progress::Done;
        }
        // A quarter of the time to live: a key stays at most a quarter longer than was asked for.
        let next_expiry = self.watermark.saturating_add(ttl_us / 4);
        let Some(slot) = self.slots.get_mut(&Span::ENDLESS) else {
            self.next_expiry = next_expiry;
            return Progress::Done;
        };
        let limit = self.watermark.saturating_sub(ttl_us);
        if let Some(noting) = &mut self.noting {
            noting.note_span(Span::ENDLESS, slot);
        }
        // From the last on, so that what takes the place of a key that is taken out was looked at before.
        let to = self.to_expire.unwrap_or(slot.members.len()).min(slot.members.len());
        let from = to.saturating_sub(part);
        for at in (from..to).rev() {
            let group = slot.members[at];
            if slot.touched[group as usize] == i64::MIN {
                slot.touched[group as usize] = self.watermark; // seen before any watermark stood
                slot.note(group);
            }
            if slot.touched[group as usize] <= limit {
                slot.members.swap_remove(at);
                slot.clear(&[group]);
                self.keys.release(group);
                if let Some(noting) = &mut self.noting {
                    noting.note_gone(Span::ENDLESS, group);
                }
            }
        }
        if from > 0 {
            self.to_expire = Some(from);
            return Progress::Left;
        }
        self.to_expire = None;
        self.next_expiry = next_expiry;
        Progress::Done
    }
}
