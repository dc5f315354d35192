//! The bus tells the page what changed, as server-sent events that can be taken up again after a break.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use tokio::sync::broadcast;

use crate::messages::MessageView;

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
    /// How many steps of alerts had been told by then, in this process and those before it.
    pub steps: u64,
}

/// What to tell a page that subscribes.
pub struct Subscription {
    /// What it has missed since its last event, oldest first.
    pub missed: Vec<BusEvent>,
    /// True when it has missed more than is known, and should load everything.
    pub is_reset: bool,
    /// Then, where it said so: the steps of alerts it has missed, which the outbox may still have.
    pub missed_steps: Option<Range<u64>>,
    /// The newest id there was; what comes then is newer.
    pub last_id: u64,
    /// How many steps of alerts had been told.
    pub steps: u64,
    /// What comes.
    pub receiver: broadcast::Receiver<BusEvent>,
}

struct Kept {
    next: u64,
    events: VecDeque<BusEvent>,
    steps: u64,
}

/// Where the engine tells and pages listen.
pub struct Bus {
    kept: Mutex<Kept>,
    sender: broadcast::Sender<BusEvent>,
    /// Messages to people, for the process itself: pages are not told whom they go to.
    messages: broadcast::Sender<Arc<MessageView>>,
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
                steps: 0,
            }),
            sender: broadcast::Sender::new(BEHIND_MAX),
            messages: broadcast::Sender::new(BEHIND_MAX),
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
            steps: kept.steps,
        };
        kept.next += 1;
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(event.clone());
        // Sent under the lock, so that a subscriber misses none and gets none twice. Nobody listening is no error.
        let _ = self.sender.send(event);
    }

    /// Empties what was told and is kept for pages that come back, where it `is_gone`; their ids stay.
    pub fn forget(&self, is_gone: impl Fn(&str) -> bool) {
        let mut kept = self.kept.lock().expect("no holder of this lock panics");
        for event in kept.events.iter_mut().filter(|event| is_gone(&event.data)) {
            // What a page does with what it does not know is to load everything anew.
            event.name = "reset";
            event.data = "{}".into();
        }
    }

    /// Tells whoever listens within the process of a message that is in another state now.
    pub fn tell_message(&self, message: &Arc<MessageView>) {
        // Nobody listening is no error.
        let _ = self.messages.send(Arc::clone(message));
    }

    /// The messages that come.
    pub fn messages(&self) -> broadcast::Receiver<Arc<MessageView>> {
        self.messages.subscribe()
    }

    /// Notes how many steps of alerts have been told, before what tells pages of the last of them.
    pub fn note_steps(&self, steps: u64) {
        self.kept.lock().expect("no holder of this lock panics").steps = steps;
    }

    /// An event's id as the page gives it back, with the steps of alerts that had been told by then.
    pub fn id_text(&self, id: u64, steps: u64) -> String {
        format!("{:x}-{id}-{steps}", self.epoch)
    }

    /// The same for a step out of the outbox, which no process has told its pages under an id of its own.
    pub fn step_id_text(steps: u64) -> String {
        format!("0-0-{steps}")
    }

    /// Subscribes; `last` is the id of the last event the page has seen, where it has seen one.
    pub fn subscribe(&self, last: Option<&str>) -> Subscription {
        let kept = self.kept.lock().expect("no holder of this lock panics");
        let receiver = self.sender.subscribe();
        let last_id = kept.next - 1;
        let seen = last.map(|last| {
            let mut parts = last.split('-');
            let epoch = u64::from_str_radix(parts.next()?, 16).ok()?;
            let id = parts.next()?.parse::<u64>().ok()?;
            let steps = parts.next().and_then(|steps| steps.parse::<u64>().ok());
            Some(((epoch == self.epoch).then_some(id), steps))
        });
        let oldest = kept.events.front().map_or(kept.next, |event| event.id);
        let steps_seen = seen.flatten().and_then(|(_, steps)| steps);
        let missed_steps = steps_seen
            .filter(|steps| *steps <= kept.steps)
            .map(|steps| steps..kept.steps);
        let (missed, is_reset) = match seen {
            None => (Vec::new(), false),
            Some(Some((Some(id), _))) if id.saturating_add(1) >= oldest && id <= last_id => (
                kept.events.iter().filter(|event| event.id > id).cloned().collect(),
                false,
            ),
            Some(_) => (Vec::new(), true),
        };
        Subscription {
            missed,
            is_reset,
            missed_steps: missed_steps.filter(|_| is_reset),
            steps: kept.steps,
            last_id,
            receiver,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_takes_up_where_it_was_and_hears_of_the_steps_of_another_process() {
        let before = Bus::new(7);
        before.note_steps(41);
        before.tell("occupancy", "1".to_owned());
        before.note_steps(42);
        before.tell("alert", "2".to_owned());
        let first = before.subscribe(None);
        assert_eq!((first.missed.len(), first.is_reset, first.last_id), (0, false, 2));
        let seen = before.id_text(1, 41);
        let again = before.subscribe(Some(&seen));
        assert_eq!(
            (again.missed.len(), again.is_reset, again.missed_steps),
            (1, false, None)
        );
        assert_eq!(&*again.missed[0].data, "2");

        let after = Bus::new(8);
        after.note_steps(45);
        let other = after.subscribe(Some(&seen));
        assert_eq!(
            (other.missed.len(), other.is_reset, other.missed_steps),
            (0, true, Some(41..45))
        );
        let between = after.subscribe(Some(&Bus::step_id_text(44)));
        assert_eq!((between.is_reset, between.missed_steps), (true, Some(44..45)));
        for nonsense in ["", "7-1", "x-1-2", "7-1-99", "8-18446744073709551615"] {
            let other = after.subscribe(Some(nonsense));
            assert_eq!((other.is_reset, other.missed_steps), (true, None), "{nonsense}");
        }
    }

    #[test]
    fn who_missed_more_than_is_kept_loads_everything() {
        let bus = Bus::new(7);
        for number in 0..KEPT + 10 {
            bus.tell("health", number.to_string());
        }
        assert!(bus.subscribe(Some(&bus.id_text(5, 0))).is_reset);
        assert_eq!(bus.subscribe(Some(&bus.id_text(10, 0))).missed.len(), KEPT);
    }
}
