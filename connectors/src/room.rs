//! Room is what messages on their way in may take of memory, in bytes: a channel bounds only how many they are.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What messages under way may be, together. Whoever waits for room gets it in the order of asking.
#[derive(Debug)]
pub(crate) struct Room {
    free: Arc<Semaphore>,
    /// All there is, bytes.
    whole: u32,
}

/// Room for one message; dropped, it is free again.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Room for so many bytes, at most 4 GiB less one.
    pub(crate) fn of(bytes: usize) -> Self {
        let whole = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        let free = usize::try_from(whole).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(free)),
            whole,
        }
    }

    /// What a message takes; one that is larger than all there is takes all, so that it comes through alone.
    fn cost(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.whole)
    }

    /// Takes room for so many bytes if it is free.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Taken> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(self.cost(bytes));
        permit.ok().map(|permit| Taken { _permit: Some(permit) })
    }

    /// Takes room for so many bytes, once it is free.
    pub(crate) async fn take(&self, bytes: usize) -> Taken {
        let permit = Arc::clone(&self.free).acquire_many_owned(self.cost(bytes)).await;
        // Nobody closes it, so there is always one.
        Taken { _permit: permit.ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_taken_is_not_free_until_it_is_dropped_and_a_message_larger_than_all_passes_alone() {
        let room = Room::of(100);
        let first = room.try_take(60).expect("there is room");
        assert!(room.try_take(41).is_none());
        let second = room.try_take(40).expect("there is room");
        assert!(room.try_take(1).is_none());
        drop(first);
        let mut large = Box::pin(room.take(1_000_000));
        let early = tokio::time::timeout(std::time::Duration::from_millis(10), &mut large).await;
        assert!(early.is_err(), "it passed beside another");
        assert!(room.try_take(1).is_none(), "who came later does not go first");
        drop(second);
        let large = large.await;
        assert!(room.try_take(1).is_none());
        drop(large);
        assert!(room.try_take(100).is_some());
    }
}
