//! A back-off says how long to wait before the next try: doubling, with jitter, up to a cap.

use std::time::Duration;

/// Waits that double from `first` to `cap`, each shortened by up to a half at random.
#[derive(Debug, Clone)]
pub struct BackOff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl BackOff {
    /// Starts at `first` and never waits longer than `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
            next: first,
        }
    }

    /// The wait before the next try. Between a half and the whole of the current step.
    pub fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.cap);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// After a success: the next failure waits briefly again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

impl Default for BackOff {
    /// 100 ms to 30 s: a broker that restarts is met quickly, one that stays away is not hammered.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(30))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_cap_and_start_again_after_a_success() {
        let mut back_off = BackOff::new(Duration::from_millis(100), Duration::from_secs(1));
        for step_ms in [100, 200, 400, 800, 1000, 1000] {
            let wait = back_off.wait();
            assert!(wait >= Duration::from_millis(step_ms / 2), "{wait:?} of {step_ms} ms");
            assert!(wait <= Duration::from_millis(step_ms), "{wait:?} of {step_ms} ms");
        }
        back_off.reset();
        assert!(back_off.wait() <= Duration::from_millis(100));
    }
}
