//! The bus tells the page what changed, as server-sent events that can be taken up again after a break.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::broadcast;

/// Events kept for a page that comes back. At ten updates a second of twenty zones that is ten seconds; a page that
/// was away longer is told to load everything anew.
const KEPT: usize = 2_000;
/// Events a slow page may be behind before it is told to load everything anew.
const BEHIND_MAX: usize = 1_024;

/// One event for the page.
#[derive(Debug, Clone)]
pub struct BusEvent {
    /// Consecutive, from 1.
    pub id: u64,
    /// `occupancy`, `alert` or `health`.
    pub name: &'static str,
    /// JSON.
    pub data: Arc<str>,
}

/// What to tell a page that subscribes.
pub struct Subscription {
    /// What it has missed since its last event, oldest first.
    pub missed: Vec<BusEvent>,
    /// True when it has missed more than is known, and should load everything.
    pub is_reset: bool,
    /// The newest id there was; what comes then is newer.
    pub last_id: u64,
    /// What comes.
    pub receiver: broadcast::Receiver<BusEvent>,
}

struct Kept {
    next: u64,
    events: VecDeque<BusEvent>,
}

/// Where the engine tells and pages listen.
pub struct Bus {
    kept: Mutex<Kept>,
    sender: broadcast::Sender<BusEvent>,
    /// Tells the ids of this process from those of one before it.
    epoch: u64,
}

impl Bus {
    /// A bus whose ids start with `epoch`, so that a page of a process before finds that out.
    pub fn new(epoch: u64) -> Self {
        Self {
            kept: Mutex::new(Kept {
                next: 1,
                events: VecDeque::with_capacity(KEPT),
            }),
            sender: broadcast::Sender::new(BEHIND_MAX),
            epoch,
        }
    }

    /// Tells all pages; `data` is JSON.
    pub fn tell(&self, name: &'static str, data: String) {
        let mut kept = self.kept.lock().expect("no holder of this lock panics");
        let event = BusEvent {
            id: kept.next,
            name,
            data: data.into(),
        };
        kept.next += 1;
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(event.clone());
        // Sent under the lock, so that a subscriber misses none and gets none twice. Nobody listening is no error.
        let _ = self.sender.send(event);
    }

    /// An event's id as the page gives it back.
    pub fn id_text(&self, id: u64) -> String {
        format!("{:x}-{id}", self.epoch)
    }

    /// Subscribes; `last` is the id of the last event the page has seen, where it has seen one.
    pub fn subscribe(&self, last: Option<&str>) -> Subscription {
        let kept = self.kept.lock().expect("no holder of this lock panics");
        let receiver = self.sender.subscribe();
        let last_id = kept.next - 1;
        let seen = last.map(|last| {
            let (epoch, id) = last.split_once('-')?;
            (u64::from_str_radix(epoch, 16).ok()? == self.epoch).then_some(())?;
            id.parse::<u64>().ok()
        });
        let oldest = kept.events.front().map_or(kept.next, |event| event.id);
        let (missed, is_reset) = match seen {
            None => (Vec::new(), false),
            Some(Some(id)) if id + 1 >= oldest && id <= last_id => (
                kept.events.iter().filter(|event| event.id > id).cloned().collect(),
                false,
            ),
            Some(_) => (Vec::new(), true),
        };
        Subscription {
            missed,
            is_reset,
            last_id,
            receiver,
        }
    }
}
