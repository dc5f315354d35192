//! The devices of a simulation, and the network between them and the engine: messages come late, twice, in another
//! order, or only when they are sent again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use usher_connectors::delivery::{Ack, Delivery};
use usher_connectors::message::{Message, QoS};

use super::judge::event_of;
use super::random::Random;
use crate::event::dedup_key;
use crate::fixture::NINE;

/// A message of a device, which sends it until it is acknowledged.
pub(super) struct Letter {
    pub(super) topic: Arc<str>,
    pub(super) payload: String,
    /// When it is published, since the start.
    at: Duration,
    arrivals: Vec<Duration>,
    answers: Vec<oneshot::Receiver<()>>,
    pub(super) is_acknowledged: bool,
    pub(super) is_garbage: bool,
    /// The key of its event, if it can be read.
    pub(super) key: Option<u128>,
}

/// All messages of a seed, the earliest first, and how far they are.
pub(super) struct Devices {
    pub(super) letters: Vec<Letter>,
    random: Random,
    begun: Instant,
}

/// How long people come and go.
pub(super) const DAY: Duration = Duration::from_secs(240);

fn letter(random: &mut Random, number: usize, at: Duration) -> Letter {
    let ts = NINE / 1_000 + i64::try_from(at.as_millis()).expect("it is minutes");
    // Some devices give their events ids; of the others time and content tell.
    let id = match random.below(3) {
        0 => String::new(),
        _ => format!(r#""id":"e{number}","#),
    };
    let zone = ["hall", "cafe"][random.index(2)];
    let mut is_garbage = false;
    let (topic, payload) = match random.below(20) {
        0 => {
            is_garbage = true;
            (
                format!("{zone}/gate/{zone}-1"),
                format!(r#"{{{id}"ts":{ts},"in":"many {number}"}}"#),
            )
        }
        1..5 => {
            let (seat, state) = (random.below(3), ["occupied", "free", "away"][random.index(3)]);
            (
                format!("hall/seat/s{seat}"),
                format!(r#"{{{id}"ts":{ts},"state":"{state}"}}"#),
            )
        }
        5..8 => {
            let (person, action) = (random.below(4), ["search", "view", "request"][random.index(3)]);
            (
                "hall/click/web".to_owned(),
                format!(r#"{{{id}"ts":{ts},"person":"p{person}","session":"s{person}","action":"{action}"}}"#),
            )
        }
        _ => {
            let gate = random.below(2);
            // By turns more come and more go.
            let (most_in, most_out) = if (at.as_secs() / 40).is_multiple_of(2) {
                (7, 3)
            } else {
                (3, 7)
            };
            let (entered, exited) = (random.below(most_in), random.below(most_out));
            (
                // An alert's own topic names the device and not its zone.
                format!("{zone}/gate/{zone}-{gate}"),
                format!(r#"{{{id}"ts":{ts},"in":{entered},"out":{exited}}}"#),
            )
        }
    };
    let topic = format!("usher/in/main/{topic}");
    let key = event_of(&topic, &payload, NINE).map(|event| dedup_key(&event));
    Letter {
        topic: topic.into(),
        payload,
        key,
        at,
        arrivals: Vec::new(),
        answers: Vec::new(),
        is_acknowledged: false,
        is_garbage,
    }
}

impl Devices {
    /// Draws a day. Millisecond apart, so that no two events are the same.
    pub(super) fn draw(mut random: Random, begun: Instant) -> Self {
        let count = 40 + random.index(60);
        let most = u64::try_from(DAY.as_millis()).expect("it is minutes");
        let mut times: Vec<u64> = (0..count).map(|_| random.below(most)).collect();
        times.sort_unstable();
        times.dedup();
        let letters = times.into_iter().enumerate();
        let mut letters: Vec<Letter> = letters
            .map(|(number, at)| letter(&mut random, number, Duration::from_millis(at)))
            .collect();
        for letter in &mut letters {
            let first = match random.below(100) {
                0..10 => random.millis(8_000),
                // Lost on the way, and sent again some time after.
                10..18 => Duration::from_secs(3) + random.millis(12_000),
                _ => random.millis(300),
            };
            letter.arrivals.push(letter.at + first);
            if random.below(10) == 0 {
                letter.arrivals.push(letter.at + random.millis(15_000));
            }
        }
        Self { letters, random, begun }
    }

    /// What has arrived by now, at most so much; the rest waits.
    pub(super) fn arrived(&mut self, now: Instant, wall_us: i64, most: usize) -> Vec<Delivery> {
        let since = now.saturating_duration_since(self.begun);
        let mut due: Vec<(Duration, usize)> = Vec::new();
        for (number, letter) in self.letters.iter_mut().enumerate() {
            due.extend(
                letter
                    .arrivals
                    .iter()
                    .filter(|at| **at <= since)
                    .map(|at| (*at, number)),
            );
        }
        due.sort_unstable();
        due.truncate(most);
        let mut deliveries = Vec::new();
        for (at, number) in due {
            let letter = &mut self.letters[number];
            let place = letter.arrivals.iter().position(|arrival| *arrival == at);
            letter.arrivals.remove(place.expect("it was just found"));
            let (ack, answer) = Ack::pair();
            letter.answers.push(answer);
            let message = Message {
                topic: Arc::clone(&letter.topic),
                payload: letter.payload.clone().into(),
                qos: QoS::AtLeastOnce,
                retain: false,
                received_us: wall_us,
                received: now,
            };
            deliveries.push(Delivery { message, ack });
        }
        deliveries
    }

    /// Looks which messages were acknowledged; gives those that now are for the first time. What was not taken is sent
    /// again.
    pub(super) fn hear(&mut self, now: Instant) -> Vec<usize> {
        let since = now.saturating_duration_since(self.begun);
        let mut acknowledged = Vec::new();
        for (number, letter) in self.letters.iter_mut().enumerate() {
            let (mut is_new, mut is_lost) = (false, false);
            letter.answers.retain_mut(|answer| match answer.try_recv() {
                Ok(()) => {
                    is_new = true;
                    false
                }
                Err(TryRecvError::Closed) => {
                    is_lost = true;
                    false
                }
                Err(TryRecvError::Empty) => true,
            });
            if is_new && !letter.is_acknowledged {
                letter.is_acknowledged = true;
                acknowledged.push(number);
            }
            if is_lost && !letter.is_acknowledged && letter.arrivals.is_empty() {
                letter.arrivals.push(since + self.random.millis(5_000));
            }
        }
        acknowledged
    }

    /// The connections were lost: what was not acknowledged comes again.
    pub(super) fn reconnect(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.begun);
        for letter in &mut self.letters {
            letter.answers.clear();
            let is_out = letter.at <= since && !letter.is_acknowledged;
            if is_out && letter.arrivals.is_empty() {
                letter.arrivals.push(since + self.random.millis(4_000));
            }
        }
    }

    pub(super) fn are_all_acknowledged(&self) -> bool {
        self.letters.iter().all(|letter| letter.is_acknowledged)
    }
}
