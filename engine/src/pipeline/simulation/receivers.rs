//! The receivers of a simulation: a broker and one who is told by requests. They are slow, away, lose what they
//! confirmed, and remember all they took.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use usher_connectors::BoxFuture;
use usher_connectors::publisher::{Publication, PublishError, Publisher};

use super::clock::SimClock;
use super::random::Random;
use crate::clock::Clock;
use crate::outbox::news::News;
use crate::outbox::receiver::{Sender, Sent};
use crate::outbox::step::Told;

/// Something a receiver took: in which life of the engine, and what.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) life: usize,
    pub(super) id: String,
    pub(super) alert: Value,
}

impl Taken {
    /// Whether it is a message to a person, and no alert.
    pub(super) fn is_message(&self) -> bool {
        self.alert.get("kind").is_some()
    }

    fn of(life: usize, json: &[u8]) -> Self {
        let mut alert: Value = serde_json::from_slice(json).expect("steps are JSON");
        let members = alert.as_object_mut().expect("an alert is an object");
        members.remove("trace");
        let id = members.remove("step_id").expect("steps have an id");
        Self {
            life,
            id: id.as_str().expect("an id is a text").to_owned(),
            alert,
        }
    }
}

/// The other end of the network.
pub(super) struct Far {
    clock: Arc<SimClock>,
    state: Mutex<State>,
}

struct State {
    random: Random,
    life: usize,
    taken: Vec<Taken>,
    retained: BTreeMap<String, Bytes>,
    /// Topics of alerts that it retained when the newest life began, as far as they are not told.
    listed: VecDeque<Arc<str>>,
    /// Which connection it is; what was under way on an earlier one is not confirmed.
    connection: u64,
    away_until: Instant,
    is_slow: bool,
    is_kind: bool,
    last_taken: Instant,
    last_done: Instant,
}

impl Far {
    pub(super) fn new(clock: &Arc<SimClock>, random: Random) -> Arc<Self> {
        let now = clock.now();
        Arc::new(Self {
            clock: Arc::clone(clock),
            state: Mutex::new(State {
                random,
                life: 0,
                taken: Vec::new(),
                retained: BTreeMap::new(),
                listed: VecDeque::new(),
                connection: 0,
                away_until: now,
                is_slow: false,
                is_kind: false,
                last_taken: now,
                last_done: now,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Another life of the engine begins, on another connection.
    pub(super) fn live(&self, life: usize) {
        let mut state = self.lock();
        state.life = life;
        let topics = state.retained.keys().filter(|topic| topic.contains("/alert/"));
        state.listed = topics.map(|topic| Arc::from(topic.as_str())).collect();
        state.connection += 1;
        let now = self.clock.now();
        (state.last_taken, state.last_done) = (now, now);
    }

    /// The connection is lost, and there is none until then.
    pub(super) fn go_away(&self, until: Instant) {
        let mut state = self.lock();
        state.connection += 1;
        state.away_until = state.away_until.max(until);
    }

    pub(super) fn set_slow(&self, is_slow: bool) {
        self.lock().is_slow = is_slow;
    }

    /// From now on it takes everything.
    pub(super) fn be_kind(&self) {
        let mut state = self.lock();
        (state.is_kind, state.is_slow) = (true, false);
        state.away_until = self.clock.now();
    }

    pub(super) fn taken(&self) -> Vec<Taken> {
        self.lock().taken.clone()
    }

    pub(super) fn retained(&self) -> BTreeMap<String, Bytes> {
        self.lock().retained.clone()
    }
}

impl State {
    fn latency(&mut self) -> Duration {
        match self.is_slow {
            true => self.random.millis(9_000),
            false => self.random.millis(40),
        }
    }
}

/// The broker: one connection, on which all is answered in its order.
pub(super) struct SimBroker(pub(super) Arc<Far>);

impl Publisher for SimBroker {
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<(), PublishError>> {
        let far = &self.0;
        Box::pin(async move {
            let now = far.clock.now();
            let (connection, taken_at, done_at) = {
                let mut state = far.lock();
                let (there, back) = (state.latency(), state.latency());
                // What was sent first arrives first, and is confirmed first.
                let taken_at = (now.max(state.away_until) + there).max(state.last_taken);
                let done_at = (taken_at + back).max(state.last_done);
                (state.last_taken, state.last_done) = (taken_at, done_at);
                (state.connection, taken_at, done_at)
            };
            let lost = || PublishError::Unconfirmed {
                topic: publication.topic.to_string(),
                reason: "the connection was lost".to_owned(),
            };
            far.clock.sleep_until(taken_at).await;
            {
                let mut state = far.lock();
                if state.connection != connection {
                    return Err(lost());
                }
                if publication.retain {
                    let (topic, payload) = (publication.topic.to_string(), publication.payload.clone());
                    match payload.is_empty() {
                        true => state.retained.remove(&topic),
                        false => state.retained.insert(topic, payload),
                    };
                } else {
                    let taken = Taken::of(state.life, &publication.payload);
                    state.taken.push(taken);
                }
            }
            far.clock.sleep_until(done_at).await;
            match far.lock().connection == connection {
                true => Ok(()),
                false => Err(lost()),
            }
        })
    }

    fn next_retained(&self) -> BoxFuture<'_, Arc<str>> {
        let far = &self.0;
        Box::pin(async move {
            loop {
                let away_until = far.lock().away_until;
                if away_until <= far.clock.now() {
                    break;
                }
                far.clock.sleep_until(away_until).await;
            }
            let listed = far.lock().listed.pop_front();
            match listed {
                Some(topic) => topic,
                None => std::future::pending().await,
            }
        })
    }
}

/// One who is told by requests: each has its own fate.
pub(super) struct SimHook(pub(super) Arc<Far>);

impl Sender for SimHook {
    fn kind(&self) -> &'static str {
        "hook"
    }

    fn address(&self) -> String {
        "simulated".to_owned()
    }

    fn wants(&self, _: &News) -> bool {
        true
    }

    fn send(&self, step: Arc<Told>) -> BoxFuture<'_, Sent> {
        let far = &self.0;
        Box::pin(async move {
            let now = far.clock.now();
            let (there, back, fate, is_away) = {
                let mut state = far.lock();
                let fate = if state.is_kind { 9 } else { state.random.below(10) };
                let is_away = state.away_until > now;
                (state.latency(), state.latency(), fate, is_away)
            };
            let later = |reason: &str, peace| Sent::Later {
                reason: reason.to_owned(),
                peace,
            };
            far.clock.sleep_until(now + there).await;
            match fate {
                _ if is_away => return later("nobody answers", None),
                0 => return later("it answered 500", None),
                1 => return later("it answered 429", Some(Duration::from_secs(2))),
                _ => {}
            }
            {
                let mut state = far.lock();
                let taken = Taken::of(state.life, &step.to_json());
                state.taken.push(taken);
            }
            far.clock.sleep_until(now + there + back).await;
            match fate {
                2 => later("no answer came in time", None),
                _ => Sent::Done,
            }
        })
    }
}
