//! Erasing a person from the outbox: steps keep their places and tell nothing, dead letters go.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use usher_connectors::spool::SpoolError;

use super::Outbox;
use super::journal::Journal;
use super::receiver::Receiver;
use super::step::Told;

/// Steps read at once.
const STEPS: usize = 1_024;
/// How often, and how long apart, it is looked whether the journal's own thread has written what stands in the place of steps.
const LOOKS: u32 = 1_000;
const PAUSE: Duration = Duration::from_millis(20);
/// How often, and how long apart, it is looked whether what is over has gone out. Behind that it is not sent to whoever is away.
const GONE_OUT_LOOKS: u32 = 100;
const GONE_OUT_PAUSE: Duration = Duration::from_millis(50);

impl Outbox {
    /// Empties what tells of somebody whom `is_named` finds in a text, once that has gone out or nobody takes it; nothing of it is
    /// left on the disk then. Gives how many steps and dead letters these were. Blocks on the disk.
    ///
    /// # Errors
    /// [`SpoolError`]; trying again later is right.
    pub fn erase(&self, is_named: &dyn Fn(&str) -> bool) -> Result<u64, SpoolError> {
        // That an alert about the person is over should still reach those who were told that it stands.
        let until = self.journal.next();
        for _ in 0..GONE_OUT_LOOKS {
            if self.receivers.iter().all(|receiver| receiver.has_all_before(until)) && self.retained.len() == 0 {
                break;
            }
            sleep(GONE_OUT_PAUSE);
        }
        let letters: usize = self.receivers.iter().map(|receiver| receiver.erase(is_named)).sum();
        let steps = self.journal.erase(is_named)?;
        self.journal.purge()?;
        Ok(letters as u64 + steps)
    }
}

impl Receiver {
    /// Throws away dead letters that name somebody; gives how many.
    pub(super) fn erase(&self, is_named: &dyn Fn(&str) -> bool) -> usize {
        self.throw_away(|letter| letter.step.names(is_named) || is_named(&letter.reason))
    }
}

impl Journal {
    /// Empties steps that name somebody, in memory and on disk; gives how many.
    pub(super) fn erase(&self, is_named: &dyn Fn(&str) -> bool) -> Result<u64, SpoolError> {
        let mut erased = self.erase_recent(is_named);
        for look in 0..LOOKS {
            let found = self.named_on_disk(is_named)?;
            if found.is_empty() {
                return Ok(erased.len() as u64);
            }
            if look == 0 {
                // Those that were emptied in memory are on their way to the disk, which may have them as they were for a moment.
                let left = found.into_iter().filter(|step| !erased.contains(&step.number));
                let left: Vec<Arc<Told>> = left.collect();
                erased.extend(left.iter().map(|step| step.number));
                self.replace(left);
            }
            // They are written in the order of all that is written.
            sleep(PAUSE);
        }
        Err(self.broken(&"what was erased from it is still to be written"))
    }

    /// Steps on disk that name somebody, each as it is to be.
    fn named_on_disk(&self, is_named: &dyn Fn(&str) -> bool) -> Result<Vec<Arc<Told>>, SpoolError> {
        let (mut from, mut found) = (0, Vec::new());
        loop {
            let read = self.read_disk(from, STEPS)?;
            let Some((last, _)) = read.last() else { return Ok(found) };
            from = last + 1;
            for (number, bytes) in &read {
                let step = Told::from_bytes(*number, bytes);
                found.extend(
                    step.ok()
                        .filter(|step| step.names(is_named))
                        .map(|step| Arc::new(step.erased(is_named))),
                );
            }
        }
    }
}
