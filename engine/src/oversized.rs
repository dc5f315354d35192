//! A packet that is larger than the embedded broker takes ends its connection inside the broker, which tells of it in its log
//! lines alone. They are read here, so that it is counted and listed like any other payload that can't be read.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::Id;
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;
use usher_connectors::embedded_broker::LEFT;

use crate::pipeline::{Asker, Stopping, wall_clock_us};
use crate::refused::{ReasonClass, Refusal};

/// Where the broker's lines come from, and how the one begins that is looked for.
const BROKER: &str = "mqtt5::broker";
const TOO_LARGE: &str = "Client handler error: Packet too large: size ";
/// Clients whose connection has just ended; the line that tells why comes at once.
const LEFT_MAX: usize = 256;
/// Packets that wait to be listed; of more between two looks only the number is kept.
const WAITING_MAX: usize = 100;
/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);

/// What was read off the lines and not listed yet. Log lines are the process's, and so is this.
static SEEN: Mutex<Seen> = Mutex::new(Seen {
    left: VecDeque::new(),
    waiting: VecDeque::new(),
    more: 0,
});

struct Seen {
    /// By the task that served the connection.
    left: VecDeque<(Id, String)>,
    waiting: VecDeque<Refusal>,
    more: u64,
}

fn seen() -> MutexGuard<'static, Seen> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the lines; to stand beside what writes them.
pub fn reader<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    let lines = Targets::new()
        .with_target(BROKER, LevelFilter::WARN)
        .with_target(LEFT, LevelFilter::DEBUG);
    Reader.with_filter(lines)
}

struct Reader;

impl<S: Subscriber> Layer<S> for Reader {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let task = tokio::task::try_id();
        if let (LEFT, Some(client), Some(task)) = (event.metadata().target(), line.client, task) {
            let mut seen = seen();
            if seen.left.len() == LEFT_MAX {
                seen.left.pop_front();
            }
            seen.left.push_back((task, client));
            return;
        }
        let Some(told) = line.message.strip_prefix(TOO_LARGE) else {
            return;
        };
        let mut seen = seen();
        let client = task.and_then(|task| {
            let at = seen.left.iter().position(|(left, _)| *left == task)?;
            seen.left.remove(at).map(|(_, client)| client)
        });
        if seen.waiting.len() == WAITING_MAX {
            seen.more += 1;
        } else {
            let refusal = refusal(told, client.as_deref(), wall_clock_us());
            seen.waiting.push_back(refusal);
        }
    }
}

/// What a line has that is looked at.
#[derive(Default)]
struct Line {
    message: String,
    client: Option<String>,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "client" {
            self.client = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

/// Of what the broker says behind [`TOO_LARGE`].
fn refusal(told: &str, client: Option<&str>, received_us: i64) -> Refusal {
    let mut numbers = told
        .split(" exceeds maximum ")
        .map(|number| number.trim().parse::<usize>().ok());
    let (size, most) = (numbers.next().flatten(), numbers.next().flatten());
    let whose = client.map_or_else(|| "a client".to_owned(), |client| format!("the client '{client}'"));
    let words = |bytes: Option<usize>| bytes.map_or_else(|| "too many".to_owned(), |bytes| bytes.to_string());
    let reason = format!(
        "a packet of {} bytes from {whose} ended its connection and was not read, so its topic is not known; at most {} bytes \
         are taken (mqtt_client.max_packet in usher.toml)",
        words(size),
        words(most)
    );
    Refusal {
        size: size.unwrap_or_default(),
        ..Refusal::new("", received_us, ReasonClass::TooLarge, reason, &[])
    }
}

/// Lists what was read, until `stop`.
///
/// # Errors
/// [`Stopping`] when the engine is gone.
pub(crate) async fn watch(asker: Asker, stop: CancellationToken) -> Result<(), Stopping> {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => return Ok(()),
        }
        let (waiting, more) = {
            let mut seen = seen();
            (std::mem::take(&mut seen.waiting), std::mem::take(&mut seen.more))
        };
        if !waiting.is_empty() {
            asker.ask(move |pipeline| pipeline.refuse(waiting, more)).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_says_becomes_a_reason() {
        let refused = refusal("17825820 exceeds maximum 16908288", Some("door-1"), 7);
        assert_eq!(
            (refused.size, refused.received_us, refused.class),
            (17_825_820, 7, ReasonClass::TooLarge)
        );
        assert_eq!(
            refused.reason,
            "a packet of 17825820 bytes from the client 'door-1' ended its connection and was not read, so its topic is not \
             known; at most 16908288 bytes are taken (mqtt_client.max_packet in usher.toml)"
        );
        let unknown = refusal("much", None, 7);
        assert!(
            unknown
                .reason
                .starts_with("a packet of too many bytes from a client ended"),
            "{}",
            unknown.reason
        );
    }
}
