//! Replaying publishes messages as devices did, with their own spacing or as fast as the broker takes them.

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustc_hash::FxHasher;
use tokio_util::sync::CancellationToken;
use usher_connectors::client::{ClientOptions, MqttClient, Ticket};
use usher_connectors::message::QoS;

use crate::mapping::Mappings;
use crate::recording::{Recorded, Recording, RowError};

/// How fast messages are replayed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// So many times the speed of the recording; 1 is as it was.
    Times(f64),
    /// As fast as the broker confirms.
    Max,
}

impl std::str::FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.trim_end_matches('x').parse::<f64>() {
            Ok(times) if times.is_finite() && times > 0.0 => Ok(Self::Times(times)),
            _ => Err(format!(
                "'{text}' is no speed; a number above 0 such as 60, or max, was expected"
            )),
        }
    }
}

/// What to replay, where to, and how fast.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// The recording.
    pub file: PathBuf,
    /// The mapping to read it with; by the file's name when `None`.
    pub mapping: Option<String>,
    /// Where to, and how fast.
    pub pace: Pace,
}

/// Where messages are published, and how fast.
#[derive(Debug, Clone)]
pub struct Pace {
    /// The broker's URL.
    pub broker: String,
    /// How fast.
    pub speed: Speed,
    /// Connections used side by side; the messages of one topic stay on one, so that a device's order holds.
    pub connections: usize,
    /// A longer pause is cut to this, by our clock: nobody wants to watch a night.
    pub longest_pause: Option<Duration>,
}

/// What was replayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Messages the broker confirmed.
    pub confirmed: u64,
    /// Rows that could not be read.
    pub bad_rows: u64,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The recording can't be read.
    #[error(transparent)]
    Recording(#[from] crate::recording::RecordingError),
    /// The broker can't be reached.
    #[error(transparent)]
    Connect(#[from] usher_connectors::client::ConnectError),
    /// A message did not go out.
    #[error("message {number} on {topic}: {cause}")]
    Publish {
        /// Which message, from 1.
        number: u64,
        /// Its topic.
        topic: String,
        /// What went wrong.
        #[source]
        cause: usher_connectors::publisher::PublishError,
    },
}

/// How many messages may wait for their confirmation over all connections; beyond it reading waits.
const UNCONFIRMED_MAX: usize = 1024;
/// How often progress is told.
const TELL: Duration = Duration::from_secs(1);

/// Replays a recording to its end, or until `stop`. `progress` is told now and then, and each bad row as it comes.
///
/// # Errors
/// When the recording can't be opened, the broker is not there, or it refuses a message.
pub async fn replay(
    options: &ReplayOptions,
    mappings: &Mappings,
    stop: &CancellationToken,
    progress: impl FnMut(Progress<'_>),
) -> Result<Replayed, ReplayError> {
    let recording = Recording::open(&options.file, mappings, options.mapping.as_deref())?;
    play(recording, &options.pace, stop, progress).await
}

/// Publishes messages in their order with their own spacing, to the end or until `stop`.
///
/// # Errors
/// When the broker is not there, or it refuses a message.
pub async fn play(
    messages: impl Iterator<Item = Result<Recorded, RowError>>,
    pace: &Pace,
    stop: &CancellationToken,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Replayed, ReplayError> {
    let mut player = Player::connect(pace).await?;
    let mut spacing = Spacing::new(pace);
    let mut told = Instant::now();
    for message in messages {
        let Recorded { at_us, topic, payload } = match message {
            Ok(recorded) => recorded,
            Err(error) => {
                player.replayed.bad_rows += 1;
                progress(Progress::BadRow {
                    line: error.line,
                    what: &error.what,
                });
                continue;
            }
        };
        if let Some(due) = spacing.due(at_us) {
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = stop.cancelled() => {}
            }
        }
        if stop.is_cancelled() {
            break;
        }
        player.publish(topic, payload).await?;
        if told.elapsed() > TELL {
            told = Instant::now();
            progress(Progress::Sent {
                messages: player.sent,
                confirmed: player.replayed.confirmed,
                at_us,
            });
        }
    }
    player.finish().await
}

/// When each message is due by our clock.
struct Spacing {
    speed: Speed,
    longest_pause: Option<Duration>,
    /// The last message: when it was due, and its own time.
    last: Option<(Instant, i64)>,
}

impl Spacing {
    fn new(pace: &Pace) -> Self {
        Self {
            speed: pace.speed,
            longest_pause: pace.longest_pause,
            last: None,
        }
    }

    fn due(&mut self, at_us: i64) -> Option<Instant> {
        let Speed::Times(times) = self.speed else { return None };
        let (before, before_us) = *self.last.get_or_insert_with(|| (Instant::now(), at_us));
        let pause = Duration::from_secs_f64((at_us - before_us).max(0) as f64 / 1e6 / times);
        let pause = self.longest_pause.map_or(pause, |longest| pause.min(longest));
        let due = before + pause;
        self.last = Some((due, at_us.max(before_us)));
        Some(due)
    }
}

/// Connections, and what is under way on them.
struct Player {
    clients: Vec<MqttClient>,
    waiting: VecDeque<(u64, String, Ticket)>,
    sent: u64,
    replayed: Replayed,
}

impl Player {
    async fn connect(pace: &Pace) -> Result<Self, ReplayError> {
        let mut clients = Vec::new();
        for number in 0..pace.connections.max(1) {
            let id = format!("usher-replay-{}-{number}", std::process::id());
            clients.push(MqttClient::connect_with(ClientOptions::new(pace.broker.clone(), id)).await?);
        }
        Ok(Self {
            clients,
            waiting: VecDeque::new(),
            sent: 0,
            replayed: Replayed::default(),
        })
    }

    async fn publish(&mut self, topic: String, payload: Vec<u8>) -> Result<(), ReplayError> {
        let hash = BuildHasherDefault::<FxHasher>::default().hash_one(&topic);
        let client = &self.clients[usize::try_from(hash % self.clients.len() as u64).unwrap_or(0)];
        self.sent += 1;
        let number = self.sent;
        match client.publish(topic.as_str(), payload, QoS::AtLeastOnce, false).await {
            Ok(ticket) => self.waiting.push_back((number, topic, ticket)),
            Err(cause) => return Err(ReplayError::Publish { number, topic, cause }),
        }
        while self.waiting.len() > UNCONFIRMED_MAX {
            self.confirm().await?;
        }
        Ok(())
    }

    async fn confirm(&mut self) -> Result<(), ReplayError> {
        if let Some((number, topic, ticket)) = self.waiting.pop_front() {
            ticket
                .await
                .map_err(|cause| ReplayError::Publish { number, topic, cause })?;
            self.replayed.confirmed += 1;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Replayed, ReplayError> {
        while !self.waiting.is_empty() {
            self.confirm().await?;
        }
        for client in self.clients {
            client.disconnect().await;
        }
        Ok(self.replayed)
    }
}

/// What a replay tells while it runs.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// A row could not be read; the rest goes on.
    BadRow {
        /// Its line in the file, from 1.
        line: u64,
        /// What is wrong with it.
        what: &'a str,
    },
    /// How far it is.
    Sent {
        /// Messages sent.
        messages: u64,
        /// Messages confirmed.
        confirmed: u64,
        /// The recording's own time, epoch microseconds.
        at_us: i64,
    },
}
