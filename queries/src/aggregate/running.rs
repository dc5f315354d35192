//! A running aggregate: one endless window, whose keys are forgotten when they were unseen for their time to live.

use datafusion::common::Result;
use rustc_hash::FxHashMap;

use super::{Aggregate, Columns};
use crate::flow::Flow;
use crate::keys::Group;
use crate::window::Span;

/// Whether a key touched at one watermark is forgotten at another.
pub(super) fn is_over(touched: i64, watermark: i64, ttl_us: i64) -> bool {
    touched > i64::MIN && touched <= watermark.saturating_sub(ttl_us)
}

impl Aggregate {
    /// Takes rows of a running aggregate. A key that was unseen for its time to live begins anew with its next row, at
    /// whatever moment it is forgotten.
    pub(super) fn take_running(&mut self, flow: &Flow, columns: &Columns) -> Result<()> {
        let rows = 0..flow.num_rows() as u32;
        let Some(ttl_us) = self.plan.ttl_us else {
            return self.add(Span::ENDLESS, &rows.collect::<Vec<u32>>(), flow, columns);
        };
        let mut waiting: Vec<u32> = Vec::new();
        let mut touched: FxHashMap<Group, i64> = FxHashMap::default();
        for row in rows {
            let (group, met) = (columns.groups[row as usize], flow.watermarks.value(row as usize));
            let met = self.watermark.max(met);
            let before = touched.insert(group, met).or_else(|| self.touched(group));
            if before.is_some_and(|before| is_over(before, met, ttl_us)) {
                self.add(Span::ENDLESS, &waiting, flow, columns)?;
                waiting.clear();
                self.begin_anew(group);
            }
            waiting.push(row);
        }
        self.add(Span::ENDLESS, &waiting, flow, columns)
    }

    /// The watermark at the last row of a running aggregate's group.
    pub(super) fn touched(&self, group: Group) -> Option<i64> {
        let slot = self.slots.get(&Span::ENDLESS).filter(|slot| slot.has(group))?;
        slot.touched.get(group as usize).copied()
    }

    pub(super) fn begin_anew(&mut self, group: Group) {
        if let Some(slot) = self.slots.get_mut(&Span::ENDLESS) {
            slot.reset_group(group);
        }
    }

    /// Forgets the keys of a running aggregate that were unseen for its time to live.
    pub(super) fn expire(&mut self) {
        let Some(ttl_us) = self.plan.ttl_us else { return };
        if self.plan.window.is_some() || self.watermark < self.next_expiry || self.watermark == i64::MIN {
            return;
        }
        // A quarter of the time to live: a key stays at most a quarter longer than was asked for.
        self.next_expiry = self.watermark.saturating_add(ttl_us / 4);
        let Some(slot) = self.slots.get_mut(&Span::ENDLESS) else {
            return;
        };
        let limit = self.watermark.saturating_sub(ttl_us);
        let mut kept = Vec::with_capacity(slot.members.len());
        for group in std::mem::take(&mut slot.members) {
            let touched = &mut slot.touched[group as usize];
            if *touched == i64::MIN {
                *touched = self.watermark; // seen before any watermark stood
            }
            if *touched > limit {
                kept.push(group);
            } else {
                slot.changed.retain(|changed| *changed != group);
                slot.clear_group(group);
                self.keys.release(group);
            }
        }
        slot.members = kept;
    }
}
