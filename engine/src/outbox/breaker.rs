//! A breaker spares a receiver that does not answer: after some failures in a row it lets only a probe through.

use std::time::{Duration, Instant};

/// Failures in a row after which it opens.
const FAILURES: u32 = 5;
/// The first pause of an open one; it doubles with every probe that fails.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Whether a receiver is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

/// A circuit breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    position: Position,
    failures: u32,
    pause: Duration,
    /// The receiver asked for peace until then, which is no failure.
    held_until: Option<Instant>,
}

/// What a breaker lets through now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lets {
    /// As much as there is.
    All,
    /// One to see whether it is taken.
    Probe,
    /// Nothing until then.
    NothingUntil(Instant),
    /// Nothing while a probe is under way.
    Nothing,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self {
            position: Position::Closed,
            failures: 0,
            pause: PAUSE_FIRST,
            held_until: None,
        }
    }

    /// What may be sent now, with so many under way.
    pub(super) fn lets(&self, now: Instant, under_way: usize) -> Lets {
        if let Some(until) = self.held_until.filter(|until| *until > now) {
            return Lets::NothingUntil(until);
        }
        match self.position {
            Position::Closed => Lets::All,
            Position::Open { until } if until > now => Lets::NothingUntil(until),
            // Those of before it opened may still be under way; a probe is told from them by being alone.
            Position::Open { .. } if under_way == 0 => Lets::Probe,
            Position::Open { .. } | Position::HalfOpen => Lets::Nothing,
        }
    }

    /// A probe goes out.
    pub(super) fn probe(&mut self) {
        self.position = Position::HalfOpen;
    }

    /// A step was taken, or refused with a reason: the receiver is there.
    pub(super) fn answered(&mut self) {
        *self = Self {
            held_until: self.held_until,
            ..Self::new()
        };
    }

    /// The receiver failed; `spread` is a number from 0 to 1, by chance.
    pub(super) fn failed(&mut self, now: Instant, spread: f64) {
        self.failures += 1;
        let opens =
            self.position == Position::HalfOpen || (self.position == Position::Closed && self.failures >= FAILURES);
        if opens {
            // Spread by up to a half, so that several engines do not come back at once.
            let pause = self.pause.mul_f64(0.5 + spread / 2.0);
            self.position = Position::Open { until: now + pause };
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
    }

    /// What was under way is in nobody's hands any more; a probe among it is to go out again.
    pub(super) fn give_back(&mut self, now: Instant) {
        if self.position == Position::HalfOpen {
            self.position = Position::Open { until: now };
        }
    }

    /// The receiver asked for peace.
    pub(super) fn hold(&mut self, until: Instant) {
        self.held_until = self.held_until.max(Some(until));
        if self.position == Position::HalfOpen {
            // The probe is over; another one goes out when there has been peace.
            self.position = Position::Open { until };
        }
    }

    /// Somebody wants it to be tried at once.
    pub(super) fn try_now(&mut self, now: Instant) {
        self.held_until = None;
        if let Position::Open { until } = &mut self.position {
            *until = now;
        }
    }

    /// `closed`, `open` or `half-open`.
    pub(super) fn state(&self) -> &'static str {
        match self.position {
            Position::Closed => "closed",
            Position::Open { .. } => "open",
            Position::HalfOpen => "half-open",
        }
    }

    /// Whether steps go out.
    pub(super) fn is_closed(&self) -> bool {
        self.position == Position::Closed
    }

    /// In words, for people; `free` is when there is a step that may go.
    pub(super) fn words(&self, now: Instant, free: Option<Instant>) -> String {
        let until = |until: Instant| Some(until).max(free).unwrap_or(until);
        let seconds = |next: Instant| until(next).saturating_duration_since(now).as_secs() + 1;
        match (self.position, self.held_until.filter(|until| *until > now)) {
            (_, Some(until)) => format!("it asked to be left alone; next try in {} s", seconds(until)),
            (Position::Closed, None) if self.failures == 0 => "it takes what it is sent".to_owned(),
            (Position::Closed, None) => format!("the last {} tries failed", self.failures),
            (Position::Open { until }, None) => {
                format!(
                    "{} tries in a row failed; next try in {} s",
                    self.failures,
                    seconds(until)
                )
            }
            (Position::HalfOpen, None) => format!("{} tries in a row failed; trying one", self.failures),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_a_probe_that_is_taken() {
        let mut breaker = Breaker::new();
        let now = Instant::now();
        for _ in 0..FAILURES - 1 {
            breaker.failed(now, 0.5);
        }
        breaker.answered();
        for _ in 0..FAILURES - 1 {
            breaker.failed(now, 0.5);
        }
        assert_eq!(
            breaker.lets(now, 3),
            Lets::All,
            "a success in between starts the count anew"
        );
        breaker.failed(now, 0.5);
        let Lets::NothingUntil(until) = breaker.lets(now, 3) else {
            panic!("it is {}", breaker.state());
        };
        assert!(until > now && until <= now + PAUSE_FIRST);
        assert!(
            breaker
                .words(now, None)
                .contains("5 tries in a row failed; next try in 1 s")
        );
        let later = now + Duration::from_secs(30);
        assert!(breaker.words(now, Some(later)).contains("next try in 31 s"));
        assert_eq!(
            breaker.lets(until, 1),
            Lets::Nothing,
            "one of before is still under way"
        );
        assert_eq!(breaker.lets(until, 0), Lets::Probe);
        breaker.probe();
        assert_eq!((breaker.lets(until, 1), breaker.state()), (Lets::Nothing, "half-open"));
        breaker.failed(until, 0.5);
        let Lets::NothingUntil(later) = breaker.lets(until, 0) else {
            panic!("it is {}", breaker.state());
        };
        assert!(later > until && later <= until + 2 * PAUSE_FIRST);
        breaker.probe();
        breaker.answered();
        assert_eq!((breaker.lets(later, 0), breaker.is_closed()), (Lets::All, true));
    }

    #[test]
    fn a_probe_whose_sender_failed_goes_out_again() {
        let mut breaker = Breaker::new();
        let now = Instant::now();
        for _ in 0..FAILURES {
            breaker.failed(now, 1.0);
        }
        breaker.probe();
        breaker.give_back(now);
        assert_eq!((breaker.lets(now, 0), breaker.state()), (Lets::Probe, "open"));
    }

    #[test]
    fn the_pause_has_an_end_and_a_receiver_that_asks_for_peace_gets_it() {
        let mut breaker = Breaker::new();
        let mut now = Instant::now();
        for _ in 0..FAILURES + 20 {
            breaker.failed(now, 0.5);
            if let Lets::NothingUntil(until) = breaker.lets(now, 0) {
                assert!(until - now <= PAUSE_MAX);
                now = until;
                breaker.probe();
            }
        }
        breaker.answered();
        breaker.hold(now + Duration::from_secs(7));
        assert_eq!(breaker.lets(now, 0), Lets::NothingUntil(now + Duration::from_secs(7)));
        breaker.answered();
        assert_eq!(breaker.lets(now, 0), Lets::NothingUntil(now + Duration::from_secs(7)));
        breaker.try_now(now);
        assert_eq!(breaker.lets(now, 0), Lets::All);
        for _ in 0..FAILURES {
            breaker.failed(now, 0.5);
        }
        breaker.probe();
        breaker.hold(now + Duration::from_secs(9));
        assert_eq!(breaker.lets(now, 0), Lets::NothingUntil(now + Duration::from_secs(9)));
        assert_eq!(
            breaker.lets(now + Duration::from_secs(9), 0),
            Lets::Probe,
            "a probe that was held is over"
        );
    }
}
