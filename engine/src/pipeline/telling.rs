//! How the pipeline tells the world of steps: at once where they would come again after a crash, and once what they come
//! of is durable where they would not.
//!
//! An event's own steps go out at once: its publisher sends it again, and they come under the same ids. Nobody sends
//! again that time passed in silence, or what staff did. Told before it is on disk and then forgotten, a silence would
//! stand at receivers for as long as its device is heard.
//!
//! A message is decided by time, and a moment cut elsewhere may decide for another one. So all messages wait, and people
//! are not in a hurry as staff is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use usher_connectors::crash_point::CrashPoint;
use usher_connectors::delivery::Ack;
use usher_connectors::log::LogError;

use super::{Held, Pipeline, TELL_COUNTS, json};
use crate::alert::Alert;
use crate::alerts::{Action, Step};
use crate::clock::since;
use crate::lookups::Look;
use crate::messages::{MessageState, MessageStep, MessageView, Withheld};
use crate::outbox::step::SubjectKey;
use crate::points::{Entry, PointsDeed, Refused};
use crate::record::Record;
use crate::refused::{ReasonClass, Refusal};
use crate::shed::{OVER_AFTER_US, ShedReason};

/// How often it is noted that messages are shed while nothing can be logged: while that goes on the alert stands.
const SHED_AGAIN_US: i64 = OVER_AFTER_US / 3;

/// Resolves once records are durable, with an error when they won't be.
pub(super) type Durable = oneshot::Receiver<()>;

/// What waits to be told.
pub(super) enum Waiting {
    /// A step, and when the message came in that caused it.
    Step(Step, Option<Instant>),
    /// Of a message to a person.
    Message(MessageStep),
}

/// Steps in the order in which they are to be told. A subject's steps keep their order: behind one that waits, all wait.
///
/// They are few: what passes in silence is counted in subjects, and while the log can't be written no events come.
#[derive(Default)]
pub(super) struct Untold {
    batches: VecDeque<(Durable, Vec<Waiting>)>,
    /// How many steps of each subject are among them.
    subjects: FxHashMap<SubjectKey, usize>,
}

impl Untold {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// How many wait.
    fn len(&self) -> usize {
        self.batches.iter().map(|(_, steps)| steps.len()).sum()
    }

    /// The alerts of those that are steps of a life.
    pub(super) fn turns(&self) -> impl Iterator<Item = &Arc<Alert>> {
        let steps = self.batches.iter().flat_map(|(_, steps)| steps);
        steps.filter_map(|step| match step {
            Waiting::Step(step, _) => step.is_turn.then_some(&step.alert),
            Waiting::Message(_) => None,
        })
    }

    /// The messages that are to go out.
    pub(super) fn sent(&self) -> impl Iterator<Item = &Arc<MessageView>> {
        let steps = self.batches.iter().flat_map(|(_, steps)| steps);
        steps.filter_map(|step| match step {
            Waiting::Message(MessageStep::Turned(message)) => (message.state == MessageState::Sent).then_some(message),
            Waiting::Message(_) | Waiting::Step(..) => None,
        })
    }

    fn has(&self, step: &Step) -> bool {
        !self.subjects.is_empty() && self.subjects.contains_key(&SubjectKey::of(&step.alert))
    }

    fn note(&mut self, step: &Step) {
        *self.subjects.entry(SubjectKey::of(&step.alert)).or_default() += 1;
    }

    /// Adds steps that were noted and wait until then; without that as long as those before them.
    fn push(&mut self, durable: Option<Durable>, steps: Vec<Waiting>) {
        if steps.is_empty() {
            return;
        }
        match (durable, self.batches.back_mut()) {
            (Some(durable), _) => self.batches.push_back((durable, steps)),
            (None, Some((_, last))) => last.extend(steps),
            (None, None) => unreachable!("steps wait for themselves or for those before them"),
        }
    }

    /// Waits until the oldest can be told; gives none where what they come of will never be durable, for then they are
    /// told by whoever finds it in the log, or have not happened.
    pub(super) async fn next(&mut self) -> Vec<Waiting> {
        let Some((durable, _)) = self.batches.front_mut() else {
            return Vec::new();
        };
        let is_durable = durable.await.is_ok();
        self.pop(is_durable)
    }

    /// As [`Untold::next`] without waiting.
    #[cfg(test)]
    pub(super) fn try_next(&mut self) -> Option<Vec<Waiting>> {
        let (durable, _) = self.batches.front_mut()?;
        match durable.try_recv() {
            Ok(()) => Some(self.pop(true)),
            Err(oneshot::error::TryRecvError::Closed) => Some(self.pop(false)),
            Err(oneshot::error::TryRecvError::Empty) => None,
        }
    }

    fn pop(&mut self, is_durable: bool) -> Vec<Waiting> {
        let Some((_, steps)) = self.batches.pop_front() else {
            return Vec::new();
        };
        for step in &steps {
            let Waiting::Step(step, _) = step else { continue };
            let subject = SubjectKey::of(&step.alert);
            if let Some(left) = self.subjects.get_mut(&subject) {
                *left -= 1;
                if *left == 0 {
                    self.subjects.remove(&subject);
                }
            }
        }
        if is_durable { steps } else { Vec::new() }
    }
}

impl Pipeline {
    /// How many steps are not told yet, since what they come of is not durable.
    pub(crate) fn untold(&self) -> usize {
        self.untold.len()
    }

    /// Tells the world of steps in alerts' lives, and people of what was found for them. Messages, and steps of a silence,
    /// wait until what they come of is `durable`, and so do those behind them.
    pub(super) fn tell(&mut self, steps: Vec<Step>, received: Option<Instant>, durable: Option<Durable>) {
        let mut waiting = self.take_messages(durable.is_some());
        for step in steps {
            let is_unsure = step.waits_for_disk && durable.is_some();
            if is_unsure || self.untold.has(&step) {
                self.untold.note(&step);
                waiting.push(Waiting::Step(step, received));
            } else {
                self.tell_step(&step, received);
            }
        }
        self.untold.push(durable, waiting);
    }

    /// Tells what waited and need not wait any more.
    pub(super) fn tell_all(&mut self, steps: Vec<Waiting>) {
        for step in steps {
            match step {
                Waiting::Step(step, received) => self.tell_step(&step, received),
                Waiting::Message(step) => self.tell_message(&step),
            }
        }
    }

    fn tell_step(&mut self, step: &Step, received: Option<Instant>) {
        if step.is_turn {
            self.counts.alert_steps += 1;
            metrics::counter!(
                "usher_alerts_total", "rule" => step.alert.rule.to_string(), "state" => step.alert.state.as_str()
            )
            .increment(1);
            self.outbox.tell_alert(&step.alert, received);
            self.bus.note_steps(self.outbox.told());
        } else {
            self.outbox.show_alert(&step.alert, None);
        }
        self.bus.tell("alert", json(&step.alert));
        CrashPoint::OutboxWritten.pass();
    }

    /// What there is to tell of messages, as far as it has to wait: all of it where what it comes of is not durable, or where
    /// others wait. What does not stand any more is taken back at once.
    fn take_messages(&mut self, is_unsure: bool) -> Vec<Waiting> {
        let steps = self.perception.take_messages();
        if is_unsure || !self.untold.is_empty() {
            steps.iter().for_each(|step| self.withdraw_message(step));
            return steps.into_iter().map(Waiting::Message).collect();
        }
        steps.iter().for_each(|step| self.tell_message(step));
        Vec::new()
    }

    /// Sends a person what was found, or takes back what does not stand any more and is not out yet.
    fn tell_message(&self, step: &MessageStep) {
        match step {
            MessageStep::Turned(message) => {
                let (rule, state) = (message.rule.clone(), message.state.as_str());
                metrics::counter!("usher_person_messages_total", "rule" => rule, "state" => state).increment(1);
                match message.withheld {
                    Some(reason) => count_withheld(&message.rule, reason),
                    None => self.bus.tell_message(message),
                }
            }
            MessageStep::Withdrawn { .. } => {}
            MessageStep::Refused { rule } => count_withheld(rule, Withheld::OptedOut),
        }
        self.send_message(step);
    }

    /// What a step means for what goes out.
    pub(super) fn send_message(&self, step: &MessageStep) {
        match step {
            // It may have been taken back while it waited here.
            MessageStep::Turned(message) if message.state == MessageState::Sent => {
                if self.perception.messages.is_open(&message.person, &message.id) {
                    self.outbox.tell_message(message);
                }
            }
            step => self.withdraw_message(step),
        }
    }

    /// Takes back what does not stand any more.
    fn withdraw_message(&self, step: &MessageStep) {
        match step {
            MessageStep::Turned(message) => match message.state {
                MessageState::Sent | MessageState::Opened | MessageState::Withheld => {}
                MessageState::Accepted | MessageState::Declined | MessageState::Expired => {
                    self.outbox.withdraw_message(&message.id);
                }
            },
            MessageStep::Withdrawn { person, open } => self.outbox.forget_person(person, open),
            MessageStep::Refused { .. } => {}
        }
    }

    /// Puts public answers on the board, when there are new ones.
    pub(super) fn put_up(&mut self) {
        if self.perception.public.take_new() {
            self.board.put(self.perception.public_answers());
        }
    }

    pub(super) fn tell_counts(&mut self) {
        self.put_up();
        if since(self.clock.as_ref(), self.counts_told) < TELL_COUNTS {
            return;
        }
        self.counts_told = self.clock.now();
        let places = Arc::clone(self.perception.places());
        let clock = self.perception.clock_us();
        for zone in self.perception.zones.drain_changed(clock, &places) {
            self.outbox.show_zone(&zone);
            self.bus.tell("occupancy", json(&zone));
        }
    }

    /// Tells what time alone brought about, and logs that it was told: after a restart we listen anew, and a clock of
    /// silence that had rung before would not ring again.
    pub(super) fn tell_in_time(&mut self, steps: Vec<Step>) {
        // What was found by then is decided by the time it was found at, which a replay would not know.
        if steps.iter().any(|step| step.is_turn) || self.perception.messages.has_changed() {
            self.log_time(steps);
        } else {
            self.tell(steps, None, None);
        }
    }

    /// Logs that time has moved on, and tells what that brought about.
    pub(super) fn log_time(&mut self, steps: Vec<Step>) {
        self.log_deafness();
        let at_us = self.perception.now_us();
        let (ack, durable) = Ack::pair();
        self.note(&Record::Ticked { at_us }, vec![ack]);
        self.is_ahead = false;
        self.tell(steps, None, Some(durable));
    }

    /// Does what staff did to an alert, and logs it. `None` when no alert that is pending or stands has that id; otherwise
    /// the alert as it is then, and what resolves once that is durable, with an error when it won't be. Then it is told.
    pub fn act(&mut self, mut action: Action) -> Option<(Arc<Alert>, Durable)> {
        self.log_deafness();
        // It was done behind all that is known, and a replay has to find it there.
        action.at_us = action.at_us.max(self.perception.now_us());
        let (steps, alert) = self.perception.act(&action);
        let Some(alert) = alert else {
            // Time has moved on all the same.
            self.tell_in_time(steps);
            return None;
        };
        let (answer, durable) = Ack::pair();
        let (told, is_durable) = Ack::pair();
        let record = match alert.subject.kind.as_str() {
            // Their words are the person's, too, and go when the person is erased.
            "person" => Record::ActedOnPerson {
                person: alert.subject.id.clone(),
                action,
            },
            _ => Record::Acted(action),
        };
        self.note(&record, vec![told, answer]);
        let mut waiting = self.take_messages(true);
        steps.iter().for_each(|step| self.untold.note(step));
        waiting.extend(steps.into_iter().map(|step| Waiting::Step(step, None)));
        self.untold.push(Some(is_durable), waiting);
        Some((alert, durable))
    }

    /// Does something to a person's points, and logs it. Gives the entry, and what resolves once that is durable.
    ///
    /// # Errors
    /// Why it is not done, in words.
    pub fn act_on_points(&mut self, mut deed: PointsDeed) -> Result<(Entry, Durable), Refused> {
        self.log_deafness();
        // As with alerts: a replay has to find it behind all that is known.
        deed.at_us = deed.at_us.max(self.perception.now_us());
        let (steps, done) = self.perception.act_on_points(&deed);
        let entry = match done {
            Ok(entry) => entry,
            Err(refused) => {
                // Time has moved on all the same.
                self.tell_in_time(steps);
                return Err(refused);
            }
        };
        let (answer, durable) = Ack::pair();
        let (told, is_durable) = Ack::pair();
        self.note(&Record::Points(deed), vec![told, answer]);
        self.tell(steps, None, Some(is_durable));
        Ok((entry, durable))
    }

    /// Keeps that somebody was shown what is known of people, and logs it; gives what resolves once that is durable. Of people
    /// who do not want to be known nothing is kept, and so neither is this.
    pub fn note_look(&mut self, mut look: Look) -> Option<Durable> {
        let decided = self.perception.consents.decided();
        look.persons.retain(|person| decided.recognises(person));
        if look.persons.is_empty() {
            return None;
        }
        let (answer, durable) = Ack::pair();
        self.note(&Record::Looked(look.clone()), vec![answer]);
        self.perception.lookups.take(look);
        Some(durable)
    }

    /// Takes refusals of what never became a message, and counts `more` that are not listed. They are durable with the next
    /// commit, as those of messages are.
    pub(crate) fn refuse(&mut self, refusals: impl IntoIterator<Item = Refusal>, more: u64) {
        let mut count = more;
        for refusal in refusals {
            count += 1;
            let record = Record::Refused(refusal);
            self.note(&record, Vec::new());
            if let Record::Refused(refusal) = record {
                self.refused.push(refusal);
            }
        }
        self.counts.refused += count;
        metrics::counter!("usher_refused_total", "reason" => ReasonClass::TooLarge.as_str()).increment(count);
    }

    /// Notes that messages were shed; false when that is to be tried again: before anything was heard there is no event time
    /// to find it at, and while the log takes nothing, once in a while is enough.
    pub(crate) fn shed(&mut self, reason: ShedReason, messages: u64) -> bool {
        let at_us = self.clock.wall_us().max(self.perception.now_us());
        let is_soon = at_us.saturating_sub(self.shed_us[reason as usize]) < SHED_AGAIN_US;
        if self.perception.watermark() == i64::MIN || !self.held.is_empty() && is_soon {
            return false;
        }
        self.shed_us[reason as usize] = at_us;
        self.log_deafness();
        let steps = self.perception.shed(at_us, reason, messages);
        let (ack, durable) = Ack::pair();
        let record = Record::Shed {
            at_us,
            reason,
            messages,
        };
        self.note(&record, vec![ack]);
        self.tell(steps, None, Some(durable));
        true
    }

    /// Logs what is neither an event nor a refusal, in its place among them. It is durable with the next commit, like an
    /// event, which `acks` tell; a checkpoint waits for it.
    pub(super) fn note(&mut self, record: &Record, acks: Vec<Ack>) {
        let record: Bytes = record.to_bytes().into();
        let appended = match self.held.is_empty() && self.settler.has_room() {
            true => self.append(std::slice::from_ref(&record)),
            // Behind the events that came before it.
            false => Err(LogError::Busy),
        };
        match appended {
            Ok(Some(append)) => self.settler.try_send(append, acks),
            Ok(None) => {}
            Err(LogError::Busy) => self.held.push_back(Held {
                bytes: record.len(),
                records: vec![record],
                acks,
                ..Held::default()
            }),
            Err(error) => tracing::error!(%error, "what was done could not be logged; it holds until a restart"),
        }
    }
}

fn count_withheld(rule: &str, reason: Withheld) {
    metrics::counter!(
        "usher_person_messages_withheld_total", "rule" => rule.to_owned(), "reason" => reason.as_str()
    )
    .increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_the_disk_is_counted_until_it_can_be_told() {
        let step = || Waiting::Message(MessageStep::Refused { rule: "help".into() });
        let mut untold = Untold::default();
        let (ack, durable) = Ack::pair();
        untold.push(Some(durable), vec![step(), step()]);
        untold.push(None, vec![step()]);
        assert!(untold.try_next().is_none());
        assert_eq!(untold.len(), 3);
        ack.done();
        assert_eq!(untold.try_next().map(|steps| steps.len()), Some(3));
        assert_eq!((untold.len(), untold.is_empty()), (0, true));
    }
}
