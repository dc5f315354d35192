//! The query keeper starts queries again that have stopped: each after a pause of its own, planned beside what runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use usher_connectors::back_off::BackOff;
use usher_queries::query_set::planning::Planning;
use usher_queries::statement::Statement;

use crate::pipeline::{Asker, Stopping};
use crate::supervisor::Supervisor;

/// How often it is looked whether one has stopped.
const LOOK: Duration = Duration::from_millis(250);
/// The first pause before a query is started again. It loses what it kept, so a fault that comes with each row should
/// not be met at once again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A query that ran so long was well; its next failure is met with a short pause again.
const STEADY: Duration = Duration::from_secs(900);

/// A query that has stopped.
#[derive(Debug, Clone)]
pub(crate) struct StoppedQuery {
    pub(crate) name: Arc<str>,
    pub(crate) reason: String,
    pub(crate) statement: Statement,
}

/// A query that has failed at least once.
struct Kept {
    back_off: BackOff,
    /// When it is started again; none while it runs.
    due: Option<Instant>,
    started: Instant,
}

impl Kept {
    fn new(now: Instant) -> Self {
        Self {
            back_off: BackOff::new(FIRST_PAUSE, LONGEST_PAUSE),
            due: None,
            started: now,
        }
    }

    /// It was found stopped. The pause, where it was not known to be.
    fn note_stopped(&mut self, now: Instant) -> Option<Duration> {
        if self.due.is_some() {
            return None;
        }
        if now - self.started > STEADY {
            self.back_off.reset();
        }
        let pause = self.back_off.wait();
        self.due = Some(now + pause);
        Some(pause)
    }
}

/// Keeps queries running until `stop`.
///
/// # Errors
/// [`Stopping`] when the engine is gone.
pub(crate) async fn keep_running(
    asker: Asker,
    planning: Arc<Semaphore>,
    supervisor: Supervisor,
    stop: CancellationToken,
) -> Result<(), Stopping> {
    let mut kept: BTreeMap<Arc<str>, Kept> = BTreeMap::new();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = stop.cancelled() => return Ok(()),
        }
        let (stopped, names) = asker
            .ask(|pipeline| (pipeline.stopped_queries(), pipeline.query_names()))
            .await?;
        let now = Instant::now();
        kept.retain(|name, _| {
            let is_there = names.contains(name);
            if !is_there {
                supervisor.forget(&part_of(name));
            }
            is_there
        });
        for query in &stopped {
            let entry = kept.entry(Arc::clone(&query.name)).or_insert_with(|| Kept::new(now));
            if let Some(pause) = entry.note_stopped(now) {
                supervisor.note_failure(&part_of(&query.name), &query.reason, pause);
            }
        }
        for (name, entry) in &mut kept {
            match stopped.iter().find(|query| query.name == *name) {
                Some(query) if entry.due.is_some_and(|due| due <= now) => {
                    start_again(&asker, &planning, query.clone()).await?;
                    entry.started = Instant::now();
                    entry.due = None;
                    supervisor.note_running(&part_of(name));
                }
                Some(_) => {}
                // Somebody else has changed it meanwhile.
                None if entry.due.take().is_some() => supervisor.note_running(&part_of(name)),
                None => {}
            }
        }
    }
}

fn part_of(query: &str) -> String {
    format!("query {query}")
}

/// Plans a query anew and puts it in the place of the one that stopped. Where others change the queries meanwhile, it
/// is left for the next look.
async fn start_again(asker: &Asker, turns: &Arc<Semaphore>, query: StoppedQuery) -> Result<(), Stopping> {
    let turn = Arc::clone(turns).acquire_owned().await.map_err(|_| Stopping)?;
    let planning: Planning = asker.ask(|pipeline| pipeline.perception.queries.planning()).await?;
    let statement = query.statement;
    let planned = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        planning.put(statement)
    });
    match planned.await {
        Ok(Ok(planned)) => {
            // One that is stale stays stopped and is found again.
            let name = query.name;
            let _ = asker.ask(move |pipeline| pipeline.start_again(&name, planned)).await?;
        }
        Ok(Err(error)) => tracing::error!(query = %query.name, %error, "can't be planned again"),
        Err(error) => tracing::error!(query = %query.name, %error, "can't be planned again"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_keeps_stopping_is_started_again_ever_later() {
        let begun = Instant::now();
        let mut kept = Kept::new(begun);
        let mut now = begun;
        for longest in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let pause = kept.note_stopped(now).expect("it was not known to have stopped");
            assert!(pause <= Duration::from_secs(longest) && pause >= Duration::from_secs(longest) / 2);
            assert_eq!(kept.note_stopped(now), None, "known, and waiting");
            now += pause;
            (kept.due, kept.started) = (None, now);
        }
        let pause = kept.note_stopped(now + STEADY + LOOK);
        assert!(
            pause.expect("it was not known to have stopped") <= FIRST_PAUSE,
            "short after it was well"
        );
    }
}
