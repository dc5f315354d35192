//! The thread that writes the journal, and what becomes of what the disk refuses or loses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Journal, State};
use crate::outbox::orders::{Order, changes_of};

/// Steps kept in memory behind the newest for receivers that are nearly there.
const RECENT: usize = 1_024;
/// After so long what was written is made durable.
const SYNC_EVERY: Duration = Duration::from_millis(100);
/// How long to wait before the disk is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

impl Journal {
    /// Begins the thread that writes it.
    pub(in crate::outbox) fn begin_writing(self: &Arc<Self>) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name("outbox-writer".to_owned()).spawn({
            let journal = Arc::clone(self);
            move || journal.write_until_closed()
        })?;
        *self.writer.lock().expect("no holder of this lock panics") = Some(thread);
        Ok(())
    }

    /// Writes what is left, makes it durable and ends the thread. Blocks on the disk.
    pub(in crate::outbox) fn close(&self) {
        self.lock().is_closing = true;
        self.work.notify_one();
        let writer = self.writer.lock().expect("no holder of this lock panics").take();
        if let Some(writer) = writer {
            // One that panicked has said so already; what it held is in the checkpoint.
            let _ = writer.join();
        }
    }

    fn write_until_closed(&self) {
        let mut synced = Instant::now();
        let mut is_failing = false;
        loop {
            let (orders, upto, is_closing) = {
                let mut state = self.lock();
                while state.orders.is_empty() && !state.is_closing {
                    if state.unsynced.is_empty() {
                        state = self.work.wait(state).expect("no holder of this lock panics");
                        continue;
                    }
                    let left = SYNC_EVERY.saturating_sub(synced.elapsed());
                    if left.is_zero() {
                        break;
                    }
                    (state, _) = self
                        .work
                        .wait_timeout(state, left)
                        .expect("no holder of this lock panics");
                }
                let (orders, upto) = state.take_orders(self.keep_max);
                (orders, upto, state.is_closing)
            };
            let changes = changes_of(&orders);
            while let Err(error) = self.spool.write(&changes) {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(%error, "steps can't be written down; they are kept in memory and tried again");
                }
                metrics::counter!("usher_outbox_write_failures_total").increment(1);
                if self.lock().is_closing {
                    return;
                }
                std::thread::sleep(TRY_AGAIN);
            }
            // Where it failed, nothing counts as written before it is durable, so that not more and more waits.
            let is_due = is_closing || is_failing || synced.elapsed() >= SYNC_EVERY;
            let is_synced = is_due.then(|| self.spool.sync());
            if is_due {
                synced = Instant::now();
            }
            let is_through = self.note_written(orders, upto, is_synced.as_ref().map(Result::is_ok));
            match is_synced {
                Some(Err(error)) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::error!(%error, "steps may not survive a loss of power; they are written down again");
                    }
                    metrics::counter!("usher_outbox_write_failures_total").increment(1);
                    if is_closing {
                        return;
                    }
                    std::thread::sleep(TRY_AGAIN);
                }
                Some(Ok(())) if std::mem::take(&mut is_failing) => tracing::info!("steps are written down again"),
                Some(Ok(())) | None => {}
            }
            if is_closing && is_through {
                return;
            }
        }
    }

    /// These orders are with the system, and so is everything before `upto`; whether they were made durable, if that was
    /// tried. True when nothing else waits.
    fn note_written(&self, orders: Vec<Order>, upto: u64, is_synced: Option<bool>) -> bool {
        let mut state = self.lock();
        state.unsynced.extend(orders);
        if is_synced == Some(false) {
            state.write_again();
        } else {
            state.written = state.written.max(upto);
        }
        if is_synced == Some(true) {
            state.durable = state.written;
            state.unsynced.clear();
        }
        state.forget_written();
        let is_through = state.orders.is_empty();
        drop(state);
        self.written.notify_waiters();
        is_through
    }

    /// What its thread does, once and by hand: a simulation says when. What the disk refuses comes first the next time.
    #[cfg(test)]
    pub(crate) fn write_once(&self, is_synced: bool) {
        let (orders, upto) = self.lock().take_orders(self.keep_max);
        match self.spool.write(&changes_of(&orders)) {
            Ok(()) => {
                let is_synced = is_synced.then(|| self.spool.sync().is_ok());
                self.note_written(orders, upto, is_synced);
            }
            Err(_) => {
                let mut state = self.lock();
                let later = std::mem::replace(&mut state.orders, orders);
                state.orders.extend(later);
            }
        }
    }
}

impl State {
    /// What is to be written now, and the number up to which steps are in it.
    fn take_orders(&mut self, keep_max: u64) -> (Vec<Order>, u64) {
        self.trim(keep_max);
        (std::mem::take(&mut self.orders), self.next)
    }

    /// What was written and not made durable may be gone, and comes first the next time.
    fn write_again(&mut self) {
        let later = std::mem::replace(&mut self.orders, std::mem::take(&mut self.unsynced));
        self.orders.extend(later);
        self.written = self.durable;
    }

    fn forget_written(&mut self) {
        while self.recent.len() > RECENT && self.recent.front().is_some_and(|step| step.number < self.durable) {
            self.recent.pop_front();
        }
    }
}
