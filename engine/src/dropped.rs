//! What waits for a subscriber of the embedded broker and finds no room is dropped inside the broker, which tells of it in its log
//! lines alone. They are read here, so that it is counted.

use std::fmt::Debug;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Where the broker's lines come from, and how the one begins that is looked for.
const QUEUE: &str = "mqtt5::broker::storage::client_queue";
const DROPPED: &str = "Dropped oldest queued messages";

/// Reads the lines; to stand beside what writes them.
pub fn reader<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    Reader.with_filter(Targets::new().with_target(QUEUE, LevelFilter::WARN))
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
