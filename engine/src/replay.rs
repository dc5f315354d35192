//! `usher replay`: publishes a recording as its devices did, with its own spacing or as fast as the broker takes it.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustc_hash::FxHasher;
use usher_connectors::client::{ClientOptions, MqttClient};
use usher_connectors::message::QoS;

use crate::mapping::Mappings;
use crate::recording::{Recorded, Recording};

/// How fast a recording is replayed.
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
    /// The broker's URL.
    pub broker: String,
    /// How fast.
    pub speed: Speed,
    /// Connections used side by side; the messages of one topic stay on one, so that a device's order holds.
    pub connections: usize,
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

/// Replays a recording to its end. `progress` is told now and then, and each bad row as it comes.
///
/// # Errors
/// When the recording can't be opened, the broker is not there, or it refuses a message.
pub async fn replay(
    options: &ReplayOptions,
    mappings: &Mappings,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Replayed, ReplayError> {
    let recording = Recording::open(&options.file, mappings, options.mapping.as_deref())?;
    let mut clients = Vec::new();
    for number in 0..options.connections.max(1) {
        let id = format!("usher-replay-{}-{number}", std::process::id());
        clients.push(MqttClient::connect_with(ClientOptions::new(options.broker.clone(), id)).await?);
    }
    let started = Instant::now();
    let mut first_at = None;
    let mut replayed = Replayed::default();
    let mut sent = 0;
    let mut waiting = std::collections::VecDeque::new();
    let mut told = Instant::now();
    for row in recording {
        let Recorded { at_us, topic, payload } = match row {
            Ok(recorded) => recorded,
            Err(error) => {
                replayed.bad_rows += 1;
                progress(Progress::BadRow {
                    line: error.line,
                    what: &error.what,
                });
                continue;
            }
        };
        if let Speed::Times(times) = options.speed {
            let first = *first_at.get_or_insert(at_us);
            let due = Duration::from_secs_f64((at_us - first).max(0) as f64 / 1e6 / times);
            tokio::time::sleep_until((started + due).into()).await;
        }
        let hash = BuildHasherDefault::<FxHasher>::default().hash_one(&topic);
        let client = &clients[usize::try_from(hash % clients.len() as u64).unwrap_or(0)];
        sent += 1;
        let number = sent;
        let failed = |cause| ReplayError::Publish {
            number,
            topic: topic.clone(),
            cause,
        };
        let ticket = client
            .publish(topic.as_str(), payload, QoS::AtLeastOnce, false)
            .await
            .map_err(failed)?;
        waiting.push_back((number, topic, ticket));
        while waiting.len() > UNCONFIRMED_MAX {
            confirm(&mut waiting, &mut replayed).await?;
        }
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            progress(Progress::Sent {
                messages: sent,
                confirmed: replayed.confirmed,
                at_us,
            });
        }
    }
    while !waiting.is_empty() {
        confirm(&mut waiting, &mut replayed).await?;
    }
    for client in clients {
        client.disconnect().await;
    }
    Ok(replayed)
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

type Waiting = std::collections::VecDeque<(u64, String, usher_connectors::client::Ticket)>;

async fn confirm(waiting: &mut Waiting, replayed: &mut Replayed) -> Result<(), ReplayError> {
    if let Some((number, topic, ticket)) = waiting.pop_front() {
        ticket
            .await
            .map_err(|cause| ReplayError::Publish { number, topic, cause })?;
        replayed.confirmed += 1;
    }
    Ok(())
}
