//! A supervisor runs the parts of the engine that can fail: it says in words how each is, and starts it again.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use usher_connectors::back_off::BackOff;
use usher_queries::rows::time_to_text;

use crate::pipeline::wall_clock_us;

/// A part that ran so long was well; its next failure is met with a short pause again.
const STEADY: Duration = Duration::from_secs(60);

/// How a part of the engine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PartStatus {
    /// Which: `source embedded broker 127.0.0.1:1883`, `query zone_flow`, …
    pub part: String,
    /// `running`, `waiting` before it is started again, or `stopped` with the engine.
    pub state: String,
    /// What is going on, in words: why it failed last, and when it starts again.
    pub detail: String,
    /// How often it has failed since the engine started.
    pub failures: u64,
    /// Since when it is in this state, RFC 3339.
    pub since: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartState {
    Running,
    Waiting,
    Stopped,
}

#[derive(Debug)]
struct Part {
    state: PartState,
    since_us: i64,
    failures: u64,
    /// Why it failed last.
    reason: String,
}

impl Part {
    fn words(&self) -> String {
        match (self.state, self.failures) {
            (PartState::Running, 0) => String::new(),
            (PartState::Running, _) => format!("started again after: {}", self.reason),
            (PartState::Waiting, _) => format!("{}; it is started again in a moment", self.reason),
            (PartState::Stopped, _) => "stopped with the engine".to_owned(),
        }
    }
}

/// Runs parts and keeps how they are. Clones are the same supervisor.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    parts: Arc<Mutex<BTreeMap<String, Part>>>,
}

impl Supervisor {
    /// No part yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs what `make` makes as a task until `stop`. Where it ends before, by an error, a panic or by itself, that is
    /// said, and it is made anew after a pause that doubles from a tenth of a second to half a minute.
    pub fn run<F, T, E>(&self, part: &str, stop: CancellationToken, mut make: F) -> JoinHandle<()>
    where
        F: FnMut() -> T + Send + 'static,
        T: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let (supervisor, part) = (self.clone(), part.to_owned());
        tokio::spawn(async move {
            let mut back_off = BackOff::default();
            loop {
                supervisor.note_running(&part);
                let started = Instant::now();
                // A task of its own, so that a panic in it ends there.
                let ended = tokio::spawn(make()).await;
                if stop.is_cancelled() {
                    supervisor.note(&part, PartState::Stopped);
                    return;
                }
                let reason = match ended {
                    Ok(Ok(())) => "it ended by itself".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => format!("a fault in the engine: {}", words_of(&*panic)),
                        Err(error) => error.to_string(),
                    },
                };
                if started.elapsed() > STEADY {
                    back_off.reset();
                }
                let pause = back_off.wait();
                supervisor.note_failure(&part, &reason, pause);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => {
                        supervisor.note(&part, PartState::Stopped);
                        return;
                    }
                }
            }
        })
    }

    /// A part runs from now on.
    pub(crate) fn note_running(&self, part: &str) {
        self.note(part, PartState::Running);
    }

    /// A part has failed and is started again after a pause.
    pub(crate) fn note_failure(&self, part: &str, reason: &str, pause: Duration) {
        tracing::error!(
            part,
            reason,
            pause_ms = pause.as_millis(),
            "failed; it is started again"
        );
        metrics::counter!("usher_part_failures_total", "part" => part.to_owned()).increment(1);
        self.note(part, PartState::Waiting);
        if let Some(part) = self.lock().get_mut(part) {
            part.failures += 1;
            part.reason = reason.to_owned();
        }
    }

    fn note(&self, name: &str, state: PartState) {
        let mut parts = self.lock();
        let part = parts.entry(name.to_owned()).or_insert_with(|| Part {
            state,
            since_us: 0,
            failures: 0,
            reason: String::new(),
        });
        (part.state, part.since_us) = (state, wall_clock_us());
    }

    /// A part is no more, and nothing is to be said of it.
    pub(crate) fn forget(&self, part: &str) {
        self.lock().remove(part);
    }

    /// How all parts are, by name.
    pub fn parts(&self) -> Vec<PartStatus> {
        let parts = self.lock();
        let shown = parts.iter().map(|(name, part)| PartStatus {
            part: name.clone(),
            state: match part.state {
                PartState::Running => "running",
                PartState::Waiting => "waiting",
                PartState::Stopped => "stopped",
            }
            .to_owned(),
            detail: part.words(),
            failures: part.failures,
            since: time_to_text(part.since_us),
        });
        shown.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Part>> {
        self.parts.lock().expect("no holder of this lock panics")
    }
}

/// What a panic said.
pub(crate) fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(ToString::to_string);
    words
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    async fn until(supervisor: &Supervisor, is_so: impl Fn(&PartStatus) -> bool) -> PartStatus {
        loop {
            if let Some(part) = supervisor.parts().into_iter().find(&is_so) {
                return part;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_part_that_fails_in_any_way_is_started_again_and_that_is_said() {
        let supervisor = Supervisor::new();
        let stop = CancellationToken::new();
        let runs = Arc::new(AtomicUsize::new(0));
        let running = supervisor.run("source x", stop.clone(), {
            let (runs, stop) = (Arc::clone(&runs), stop.clone());
            move || {
                let (run, stop) = (runs.fetch_add(1, Ordering::SeqCst), stop.clone());
                async move {
                    match run {
                        0 => Err("the cable was cut".to_owned()),
                        1 => panic!("no such index: {run}"),
                        2 => Ok(()),
                        _ => {
                            stop.cancelled().await;
                            Ok(())
                        }
                    }
                }
            }
        });
        let waiting = until(&supervisor, |part| part.failures == 1).await;
        assert_eq!(waiting.detail, "the cable was cut; it is started again in a moment");
        assert_eq!(waiting.state, "waiting");
        let waiting = until(&supervisor, |part| part.failures == 2).await;
        assert!(
            waiting.detail.contains("a fault in the engine: no such index: 1"),
            "{}",
            waiting.detail
        );
        let going = until(&supervisor, |part| part.failures == 3 && part.state == "running").await;
        assert_eq!(going.detail, "started again after: it ended by itself");
        stop.cancel();
        running.await.expect("no panic");
        assert_eq!(supervisor.parts()[0].state, "stopped");
        assert_eq!(runs.load(Ordering::SeqCst), 4);
    }
}
