//! What waits for a subscriber of the embedded broker and finds no room is dropped inside the broker, which tells of it in its log
//! lines alone. They are read here, so that it is counted.

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{DynFilterFn, Targets};
use tracing_subscriber::layer::{Context, Filter, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Where the broker's lines come from, and how the one begins that is looked for.
const QUEUE: &str = "mqtt5::broker::storage::client_queue";
const DROPPED: &str = "Dropped oldest queued messages";
/// One of the queue's lines is written in so long.
const SELDOM: Duration = Duration::from_secs(10);

/// Reads the lines; to stand beside what writes them.
pub fn reader<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    Reader.with_filter(Targets::new().with_target(QUEUE, LevelFilter::WARN))
}

/// Lets one line of the queue through in ten seconds, for whatever writes lines: for a subscriber that is away the broker has one
/// for each message. How many were dropped is counted all the same.
pub fn seldom<S: Subscriber>() -> impl Filter<S> {
    let last = Mutex::new(None);
    DynFilterFn::new(move |metadata, _| {
        metadata.target() != QUEUE || is_due(&mut last.lock().unwrap_or_else(PoisonError::into_inner), Instant::now())
    })
    // Lines of others, and those that nobody reads, are to cost no more than they did.
    .with_callsite_filter(|metadata| match metadata.target() {
        QUEUE => Interest::sometimes(),
        _ => Interest::always(),
    })
    .with_max_level_hint(LevelFilter::TRACE)
}

/// Whether it is so long since the `last` line; this one is the last then.
fn is_due(last: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= SELDOM);
    if is_due {
        *last = Some(now);
    }
    is_due
}

struct Reader;

impl<S: Subscriber> Layer<S> for Reader {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        if line.is_it {
            metrics::counter!("usher_subscriber_dropped_total", "reason" => "queue_full").increment(line.dropped);
        }
    }
}

/// What a line has that is looked at.
#[derive(Default)]
struct Line {
    is_it: bool,
    dropped: u64,
}

impl Visit for Line {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "dropped" {
            self.dropped = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.is_it = format!("{value:?}").starts_with(DROPPED);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    struct Written(Arc<AtomicU32>);

    impl<S: Subscriber> Layer<S> for Written {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_flood_of_lines_is_one_and_others_are_all_written() {
        let written = Arc::new(AtomicU32::new(0));
        let lines = tracing_subscriber::registry().with(Written(Arc::clone(&written)).with_filter(seldom()));
        tracing::subscriber::with_default(lines, || {
            for dropped in 0..100_u64 {
                tracing::warn!(target: QUEUE, dropped, "Dropped oldest queued messages");
            }
            assert_eq!(written.load(Ordering::Relaxed), 1);
            for _ in 0..100 {
                tracing::warn!("something else");
            }
        });
        assert_eq!(written.load(Ordering::Relaxed), 101);
    }

    #[test]
    fn another_line_is_due_after_a_while() {
        let (mut last, first) = (None, Instant::now());
        assert!(is_due(&mut last, first));
        assert!(!is_due(&mut last, first + SELDOM / 2));
        assert!(is_due(&mut last, first + SELDOM));
        assert!(!is_due(&mut last, first + SELDOM + SELDOM / 2));
    }
}
