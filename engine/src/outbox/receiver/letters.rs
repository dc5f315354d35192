//! What a receiver did not take is put aside, looked at, and sent again or thrown away.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use usher_queries::rows::time_to_text;

use super::{Inner, Receiver, WAIT_MAX};
use crate::outbox::dead_letters::DeadLetter;
use crate::outbox::lane::Settled;
use crate::outbox::step::{StepId, Told};
use crate::outbox::view::DeadLetterView;

impl Receiver {
    /// Makes a dead letter of a step, or lets it wait when there is no room for one.
    pub(super) fn bury(&self, inner: &mut Inner, step: Arc<Told>, reason: String, now: Instant) {
        let number = step.number;
        inner.last_error = Some(reason.clone());
        if !self.journal.messages.has(&step.news) {
            // Nobody is to have it any more, and nobody is to read it here.
            inner.letters.remove(number);
            let settled = inner.lane.done(number);
            self.journal.settle(&self.name, &settled, Some((number, None)));
            return;
        }
        let failures = inner.lane.failures(number);
        if inner.letters.get(number).is_none() && !inner.letters.has_room() {
            tracing::error!(
                receiver = self.name,
                step = %step.id,
                reason,
                "there is no room for another dead letter; the step waits until somebody has looked at them"
            );
            inner.lane.wait(number, now + WAIT_MAX);
            return;
        }
        tracing::warn!(receiver = self.name, step = %step.id, reason, "a step is not taken; it is kept as a dead letter");
        let before = inner.letters.get(number).map_or(0, |letter| letter.tries);
        let letter = DeadLetter {
            step,
            reason,
            tries: before + failures.map_or(0, |failures| failures.tries),
            dead_us: self.clock.wall_us(),
            is_resent: false,
        };
        let bytes = letter.to_bytes();
        inner.letters.insert(letter);
        let settled = inner.lane.done(number);
        self.journal.settle(&self.name, &settled, Some((number, Some(bytes))));
    }

    /// Sends a dead letter again, or all; gives how many.
    pub(in crate::outbox) fn resend(&self, id: Option<StepId>) -> usize {
        let mut inner = self.lock();
        let numbers = inner.letters.numbers_of(id);
        for number in &numbers {
            let Some(letter) = inner.letters.resend(*number) else {
                continue;
            };
            let (subject, bytes): (_, Bytes) = (letter.step.subject, letter.to_bytes());
            inner.lane.queue(*number, subject);
            self.journal
                .settle(&self.name, &Settled::default(), Some((*number, Some(bytes))));
        }
        inner.breaker.try_now(self.clock.now());
        drop(inner);
        self.wake.notify_one();
        numbers.len()
    }

    /// Throws a dead letter away; false when there is none, or when it is on its way again.
    pub(in crate::outbox) fn discard(&self, id: StepId) -> bool {
        let mut inner = self.lock();
        let mut is_gone = false;
        for number in inner.letters.numbers_of(Some(id)) {
            if inner.letters.get(number).is_some_and(|letter| !letter.is_resent) {
                inner.letters.remove(number);
                self.journal
                    .settle(&self.name, &Settled::default(), Some((number, None)));
                is_gone = true;
            }
        }
        is_gone
    }

    /// Throws away what it did not take of messages to a person, also where it is on its way again: that is not sent.
    pub(in crate::outbox) fn forget_person(&self, person: &str) {
        self.throw_away(|letter| letter.step.news.message().is_some_and(|news| news.person == person));
    }

    /// Throws away dead letters, also where they are on their way again; gives how many.
    pub(in crate::outbox) fn throw_away(&self, which: impl Fn(&DeadLetter) -> bool) -> usize {
        let mut inner = self.lock();
        let letters = inner.letters.iter().filter(|letter| which(letter));
        let numbers: Vec<u64> = letters.map(|letter| letter.step.number).collect();
        for number in &numbers {
            inner.letters.remove(*number);
            self.journal
                .settle(&self.name, &Settled::default(), Some((*number, None)));
        }
        numbers.len()
    }

    /// The dead letters, the oldest first.
    pub(in crate::outbox) fn dead_letters(&self) -> Vec<DeadLetterView> {
        let inner = self.lock();
        let view = |letter: &DeadLetter| DeadLetterView {
            id: letter.step.id.to_string(),
            reason: letter.reason.clone(),
            tries: letter.tries,
            dead_at: time_to_text(letter.dead_us),
            told_at: time_to_text(letter.step.told_us),
            resent: letter.is_resent,
            alert: letter.step.news.alert().map(|alert| (**alert).clone()),
            message: letter.step.news.message().map(|message| (**message).clone()),
        };
        inner.letters.iter().map(view).collect()
    }
}
