//! Closing: windows that end are said, and those that take rows no more are given up, a part at a time.
//!
//! A window of a hundred thousand keys takes milliseconds to be said, in which no event may have to wait. Rows that come
//! between two parts find each window as it would be if it had been said at once: a group that was said already is
//! amended, one that was not is said with what it holds by then. Those of panes wait until the windows are said, and amend
//! them (`waiting`).

use datafusion::common::Result;

use super::{Aggregate, Telling};
use crate::aggregate::AggregatePlan;
use crate::keys::KeyStore;
use crate::operator::Progress;
use crate::row::Rows;
use crate::slot::Slot;
use crate::statement::Emit;
use crate::window::Span;

/// Empty slots kept for the next windows.
const SPARE_SLOTS: usize = 4;

/// Where the closing of windows stands between two parts of it.
pub(super) struct Closing {
    /// Whether something is left to do.
    pub(super) is_left: bool,
    /// The watermark that stood before time moved on: windows that had ended by it are told at it.
    pub(super) before: i64,
}

/// Slots between two uses: a window that opens every second should not allocate every second.
#[derive(Default)]
pub(super) struct Pool {
    /// Empty ones.
    spare: Vec<Slot>,
    /// Those that nobody finds any more, to be emptied.
    leaving: Vec<Leaving>,
}

/// A slot on its way out.
struct Leaving {
    slot: Slot,
    /// Whether its groups' keys are given back with it.
    holds_keys: bool,
}

impl Default for Closing {
    fn default() -> Self {
        Self {
            is_left: false,
            before: i64::MIN,
        }
    }
}

impl Pool {
    /// An empty slot.
    pub(super) fn take(&mut self, plan: &AggregatePlan) -> Slot {
        self.spare.pop().unwrap_or_else(|| Slot::new(plan))
    }

    /// Takes a slot back that holds no keys of its own; it is emptied when there is time.
    pub(super) fn give(&mut self, slot: Slot) {
        if slot.members.is_empty() {
            if self.spare.len() < SPARE_SLOTS {
                self.spare.push(slot);
            }
        } else if self.leaving.len() + self.spare.len() < SPARE_SLOTS {
            self.give_to_empty(slot);
        }
    }

    /// The same where many come at once: a slot of many groups with sets or texts takes long to be given up.
    pub(super) fn give_to_empty(&mut self, slot: Slot) {
        self.leaving.push(Leaving {
            slot,
            holds_keys: false,
        });
    }

    /// Takes a slot back and gives an empty one in its place.
    pub(super) fn exchange(&mut self, slot: &mut Slot, plan: &AggregatePlan) {
        let empty = self.take(plan);
        self.give(std::mem::replace(slot, empty));
    }

    /// Takes a slot back whose groups' keys are given back with it.
    pub(super) fn give_with_keys(&mut self, slot: Slot) {
        self.leaving.push(Leaving { slot, holds_keys: true });
    }

    /// Empties slots that were taken back.
    pub(super) fn empty(&mut self, keys: &mut KeyStore, room: &mut usize) -> Progress {
        while let Some(leaving) = self.leaving.last_mut() {
            if *room == 0 {
                return Progress::Left;
            }
            let groups = leaving.slot.take_members(*room);
            *room -= groups.len();
            leaving.slot.clear(&groups);
            if leaving.holds_keys {
                for group in groups {
                    keys.release(group);
                }
            }
            if leaving.slot.members.is_empty()
                && let Some(Leaving { mut slot, .. }) = self.leaving.pop()
                && self.spare.len() < SPARE_SLOTS
            {
                slot.recycle();
                self.spare.push(slot);
            }
        }
        Progress::Done
    }

    /// All slots it has.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.spare
            .iter()
            .chain(self.leaving.iter().map(|leaving| &leaving.slot))
    }
}

impl Aggregate {
    /// Moves the watermark: says windows that end, drops those that can't change any more.
    pub(super) fn move_watermark(&mut self, watermark: i64, part: usize, out: &mut Vec<Rows>) -> Result<Progress> {
        let mut room = part;
        loop {
            if self.close(&mut room, out)? == Progress::Left || self.let_in(&mut room, out)? == Progress::Left {
                return Ok(Progress::Left);
            }
            if watermark <= self.watermark {
                return Ok(Progress::Done);
            }
            if watermark < self.turn {
                self.watermark = watermark;
                return Ok(Progress::Done);
            }
            // What changed before time moved is said before it.
            if self.say_changes(self.watermark, &mut room, out)? == Progress::Left {
                return Ok(Progress::Left);
            }
            self.closing.before = self.watermark;
            self.closing.is_left = true;
            self.watermark = self.on_the_way_to(watermark);
            self.turn = self.turn_after(self.watermark);
        }
    }

    /// Says and gives up what is left of the windows that ended when time last moved.
    fn close(&mut self, room: &mut usize, out: &mut Vec<Rows>) -> Result<Progress> {
        if !self.closing.is_left {
            return Ok(Progress::Done);
        }
        let mut progress = match self.panes {
            Some(hop) => self.close_panes(hop, room, out)?,
            None => self.close_slots(room, out)?,
        };
        if progress == Progress::Done {
            progress = self.pool.empty(&mut self.keys, room);
        }
        self.closing.is_left = progress == Progress::Left;
        Ok(progress)
    }

    fn close_slots(&mut self, room: &mut usize, out: &mut Vec<Rows>) -> Result<Progress> {
        let (watermark, before, lateness_us) = (self.watermark, self.closing.before, self.plan.lateness_us);
        while self.plan.emit == Emit::Close
            && let Some(span) = self.first_unsaid()
        {
            let telling = Telling {
                is_final: lateness_us == 0,
                ..Telling::now(before.max(span.end), false)
            };
            match self.say_part(span, telling, room, out)? {
                Progress::Done => self.note_said(span),
                Progress::Left => return Ok(Progress::Left),
            }
        }
        let is_said_final = self.plan.emit == Emit::Close && lateness_us == 0;
        while let Some((span, _)) = self.slots.first_key_value()
            && span.end.saturating_add(lateness_us) <= watermark
        {
            let span = *span;
            if self.tells_final && !is_said_final {
                let telling = Telling::for_good(before.max(span.end.saturating_add(lateness_us)));
                if self.say_part(span, telling, room, out)? == Progress::Left {
                    return Ok(Progress::Left);
                }
            }
            self.changed.remove(&span);
            if let Some(slot) = self.slots.remove(&span) {
                self.pool.give_with_keys(slot);
            }
        }
        Ok(Progress::Done)
    }

    fn first_unsaid(&self) -> Option<Span> {
        let ended = self.slots.iter().take_while(|(span, _)| span.end <= self.watermark);
        ended.filter(|(_, slot)| !slot.said).map(|(span, _)| *span).next()
    }

    fn note_said(&mut self, span: Span) {
        if let Some(slot) = self.slots.get_mut(&span) {
            slot.said = true;
        }
    }

    /// Says as many groups of a window as there is room for, behind those said before.
    fn say_part(&mut self, span: Span, telling: Telling, room: &mut usize, out: &mut Vec<Rows>) -> Result<Progress> {
        let Some(slot) = self.slots.get_mut(&span) else {
            return Ok(Progress::Done);
        };
        if *room == 0 {
            return Ok(Progress::Left);
        }
        let groups = slot.next_members(*room);
        Self::say(&self.plan, &self.keys, span, slot, &groups, telling, out)?;
        *room -= groups.len();
        if slot.is_at_end() {
            slot.begin_again();
            return Ok(Progress::Done);
        }
        // Late rows may come before the rest is said.
        if let Some(noting) = &mut self.noting {
            noting.note_span(span, slot);
        }
        for group in groups {
            slot.note_told(group);
        }
        Ok(Progress::Left)
    }
}
