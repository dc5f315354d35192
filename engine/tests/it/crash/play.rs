//! A play publishes a stream to a real `usher run`, does to it what the plan says, and tells what came of it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use serde_json::Value;
use usher_connectors::client::MqttClient;
use usher_connectors::crash_point::CrashPoint;
use usher_connectors::message::QoS;

use crate::crash::effects::{ASIDE, Effects, Subscriber};
use crate::crash::home::{Api, Home, Process, Started, WEBHOOK, was_aborted};
use crate::crash::posts::Posts;
use crate::crash::state::{Asked, State};
use crate::crash::stream::{END, Stream};
use crate::crash::{Failure, differences_of_order, differences_of_steps, subject_of};
use crate::listener::Listener;
use crate::own_broker::Mosquitto;
use crate::receiver::{Mood, Receiver};
use crate::{PATIENCE, soon};

/// How long a crash point is still waited for when all events are through: a checkpoint may be about to come.
const LAST_CHANCE: Duration = Duration::from_millis(400);

/// How a process ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kill {
    /// As it passes this point for the nth time.
    At(CrashPoint, u64),
    /// By `kill -9`, so long after it was ready.
    After(Duration),
}

/// What is done.
pub(crate) struct Plan<'a> {
    pub(crate) stream: &'a Stream,
    /// The end of the first process, the second, and so on.
    pub(crate) kills: Vec<Kill>,
    /// With a mosquitto of one's own, or with the embedded broker, which dies with the process.
    pub(crate) is_own_broker: bool,
    /// Before these messages the broker of one's own ends, and starts again a while later.
    pub(crate) broker_restarts: Vec<usize>,
    /// What the webhook's receiver answers, who outlives all processes.
    pub(crate) mood: Mood,
    /// Queries to ask for their rows in the end.
    pub(crate) queries: Asked,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) state: State,
    /// The steps that were told over MQTT.
    pub(crate) steps: Vec<String>,
    /// Of these, told again.
    pub(crate) repeats: u64,
    /// What the webhook was told.
    pub(crate) posts: Posts,
    /// Processes that ended at their crash point.
    pub(crate) killed_at_point: u64,
    /// Processes that were killed at their instant, or at the end, for they had not passed their point so often.
    pub(crate) killed_elsewhere: u64,
    /// The most memory it had in use when it was looked at, bytes.
    pub(crate) resident_bytes_max: u64,
}

impl Outcome {
    /// Where this differs from a run over the same stream in which nothing was killed, a line each. A subscriber whose broker
    /// was away may have missed steps; the webhook has missed none.
    pub(crate) fn differences(&self, undisturbed: &Self, has_heard_all: bool) -> Vec<String> {
        let mut differences = self.state.differences(&undisturbed.state);
        let heard = differences_of_steps(&self.steps, &undisturbed.steps, has_heard_all);
        differences.extend(heard.iter().map(|line| format!("over MQTT {line}")));
        // Everybody is told the same.
        let mut posted = differences_of_steps(&self.posts.steps, &undisturbed.steps, true);
        // Which of two rules speaks first depends on how many events are gone through at once; what one of them says does not.
        // And a step is sent while it is being written down: over a kill two receivers may hear two rules in different orders.
        let of_rule = |alert: &Value| format!("{} {}", subject_of(alert), alert["rule"]);
        posted.extend(differences_of_order(
            &self.posts.steps,
            &undisturbed.posts.steps,
            of_rule,
        ));
        differences.extend(posted.iter().map(|line| format!("at the webhook {line}")));
        differences
    }
}

struct Playing<'a> {
    plan: &'a Plan<'a>,
    home: Home,
    receiver: Receiver,
    /// From the end of a process, or from the beginning, until the next was ready.
    restarts: Vec<Range<Instant>>,
    kills: VecDeque<Kill>,
    killed_at_point: u64,
    killed_elsewhere: u64,
    resident_bytes_max: u64,
}

impl Plan<'_> {
    /// Does it.
    pub(crate) async fn play(&self) -> Result<Outcome, Failure> {
        let receiver = Receiver::start(self.mood).await?;
        let mut playing = Playing {
            plan: self,
            home: Home::with_webhook(&receiver)?,
            receiver,
            restarts: Vec::new(),
            kills: self.kills.iter().copied().collect(),
            killed_at_point: 0,
            killed_elsewhere: 0,
            resident_bytes_max: 0,
        };
        let played = playing.play().await;
        played.map_err(|error| format!("{error}\nit said last:\n{}", playing.home.last_said()).into())
    }
}

impl Playing<'_> {
    async fn play(&mut self) -> Result<Outcome, Failure> {
        let mut broker = match self.plan.is_own_broker {
            true => Some(Mosquitto::start_keeping().await?.ok_or("there is no mosquitto")?),
            false => None,
        };
        let mqtt = broker.as_ref().map_or_else(|| "127.0.0.1:0".to_owned(), Mosquitto::url);
        let process = self.start(&mqtt).await?;
        let url = process.mqtt.clone();
        let effects = Effects::default();
        let plan = self.plan;
        // Already while they connect: it may end as it takes its first checkpoint.
        let others = async {
            let subscriber = Subscriber::subscribe(&url, effects.clone()).await?;
            let publisher = MqttClient::connect(&url, "the-devices").await?;
            publish(plan, &publisher, &mut broker).await?;
            Ok((subscriber, publisher))
        };
        let ((subscriber, publisher), process) = tokio::try_join!(others, self.see_to_it(process, &url))?;
        // Everything that was published has been acknowledged, and is processed. Now what is told has to arrive.
        drained(&process.api).await?;
        while !subscriber.has_heard_aside() {
            // A subscriber who lost the embedded broker may be on the way back.
            publisher
                .publish(ASIDE, "all told", QoS::AtLeastOnce, false)
                .await?
                .await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let posts = Posts::of(&self.receiver, &self.restarts, &process.api).await?;
        let state = State::of(&process.api, &self.plan.queries).await?;
        shown_at_broker(&url, &state).await?;
        logged_once(plan.stream, &process.api).await?;
        self.look_at(&process)?;
        publisher.disconnect().await;
        process.kill().await?;
        Ok(Outcome {
            state,
            steps: effects.steps(),
            repeats: effects.repeats(),
            posts,
            killed_at_point: self.killed_at_point,
            killed_elsewhere: self.killed_elsewhere,
            resident_bytes_max: self.resident_bytes_max,
        })
    }

    /// Starts processes until one becomes ready: a crash point may lie on the way there.
    async fn start(&mut self, mqtt: &str) -> Result<Process, Failure> {
        let begun = Instant::now();
        loop {
            let at = match self.kills.front() {
                Some(Kill::At(point, nth)) => Some((*point, *nth)),
                Some(Kill::After(_)) | None => None,
            };
            match self.home.start(mqtt, at).await? {
                Started::Ready(process) => {
                    self.restarts.push(begun..Instant::now());
                    return Ok(*process);
                }
                Started::Ended(status) if at.is_some() && was_aborted(status) => {
                    self.killed_at_point += 1;
                    self.kills.pop_front();
                }
                Started::Ended(status) => return Err(format!("it ended with {status} before it was ready").into()),
            }
        }
    }

    /// Lets processes end as planned and starts others, until one has processed everything and is to live.
    async fn see_to_it(&mut self, mut process: Process, url: &str) -> Result<Process, Failure> {
        let mqtt = match self.plan.is_own_broker {
            true => url,
            false => url.trim_start_matches("mqtt://"),
        };
        loop {
            let instant = match self.kills.front() {
                Some(Kill::After(wait)) => *wait,
                Some(Kill::At(..)) | None => PATIENCE * 2,
            };
            let (api, wait) = (
                process.api.clone(),
                if self.kills.is_empty() {
                    Duration::ZERO
                } else {
                    LAST_CHANCE
                },
            );
            let through = async {
                finished(&api).await;
                tokio::time::sleep(wait).await;
            };
            tokio::select! {
                () = through => {
                    if self.kills.pop_front().is_none() {
                        return Ok(process);
                    }
                    self.look_at(&process)?;
                    process.kill().await?;
                    self.killed_elsewhere += 1;
                }
                () = tokio::time::sleep(instant) => {
                    if !matches!(self.kills.pop_front(), Some(Kill::After(_))) {
                        return Err("it is not through with the events".into());
                    }
                    self.look_at(&process)?;
                    process.kill().await?;
                    self.killed_elsewhere += 1;
                }
                was_aborted = process.ended() => {
                    if !was_aborted? || !matches!(self.kills.pop_front(), Some(Kill::At(..))) {
                        return Err("it ended, and nobody had wanted that".into());
                    }
                    self.killed_at_point += 1;
                }
            }
            process = self.start(mqtt).await?;
        }
    }

    fn look_at(&mut self, process: &Process) -> Result<(), Failure> {
        self.resident_bytes_max = self.resident_bytes_max.max(process.resident_bytes()?);
        Ok(())
    }
}

/// Waits until the last event of all has been processed, and all is said that came due by it: that is done in turns, in
/// between which the API answers.
async fn finished(api: &Api) {
    // Whoever is being killed does not answer.
    while !matches!(api.get(&format!("/api/v1/zones/{END}")).await, Ok(zone) if zone["persons"] == 1)
        || !matches!(api.get("/api/v1/status").await, Ok(status) if status["up_to_date"] == true)
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until nothing is left to be told, and nobody has refused or lost anything.
async fn drained(api: &Api) -> Result<(), Failure> {
    let empty = async {
        while api.get("/api/v1/status").await?["outbox"] != 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        loop {
            let receivers = api.list("receivers").await?;
            let of = |name: &str| receivers.iter().find(|receiver| receiver["name"] == name);
            let hook = of(WEBHOOK).ok_or("the webhook is no receiver")?;
            if let Some(wrong) = receivers.iter().find(|one| one["dead"] != 0 || one["lost"] != 0) {
                return Err(format!("steps were given up: {wrong}").into());
            }
            if hook["waiting"] == 0 {
                return Ok::<_, Failure>(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the outbox", empty).await?
}

/// Each event that was acknowledged is in the log, once.
async fn logged_once(stream: &Stream, api: &Api) -> Result<(), Failure> {
    let count =
        |kind| format!("SELECT '{kind}' AS kind, count(*) AS n, count(DISTINCT event_id) AS ids FROM \"{kind}\"");
    let sql: Vec<String> = stream.events.keys().map(count).collect();
    for row in api.query(&sql.join(" UNION ALL ")).await? {
        let kind = row["kind"].as_str().unwrap_or("");
        let expected = stream.events.get(kind).copied().unwrap_or(0);
        if row["n"] != expected || row["ids"] != expected {
            return Err(format!("{expected} events of kind {kind} were published, and the log has {row}").into());
        }
    }
    Ok(())
}

/// Publishes everything, as devices behind one gateway do: what was not acknowledged is sent again, in order.
async fn publish(plan: &Plan<'_>, publisher: &MqttClient, broker: &mut Option<Mosquitto>) -> Result<(), Failure> {
    let mut tickets = Vec::with_capacity(plan.stream.messages.len());
    for (number, message) in plan.stream.messages.iter().enumerate() {
        if plan.broker_restarts.contains(&number)
            && let Some(broker) = broker
        {
            broker.stop().await?;
            tokio::time::sleep(Duration::from_millis(700)).await;
            broker.start_again().await?;
        }
        let (topic, payload) = (message.topic.clone(), message.payload.clone());
        let ticket = soon(
            "room to publish",
            publisher.publish(topic, payload, QoS::AtLeastOnce, false),
        )
        .await??;
        tickets.push(ticket);
        tokio::time::sleep(message.pause).await;
    }
    for ticket in tickets {
        soon("an acknowledgement", ticket).await??;
    }
    Ok(())
}

/// What is retained at the broker is what stands, and nothing else.
async fn shown_at_broker(url: &str, state: &State) -> Result<(), Failure> {
    let expected = state.retained();
    let mut listener = Listener::subscribe(url, "usher/out/#").await?;
    let mut shown = BTreeMap::new();
    let mut persons = BTreeMap::new();
    let wanted = state.persons();
    let is_it = |shown: &BTreeMap<String, String>, persons: &BTreeMap<String, i64>| {
        *shown == expected && wanted.iter().all(|(zone, count)| persons.get(zone) == Some(count))
    };
    while !is_it(&shown, &persons) {
        let heard = listener
            .next("what is retained", |_| true)
            .await
            .map_err(|error| format!("{error}: alerts {shown:?} of {expected:?}, persons {persons:?} of {wanted:?}"))?;
        let payload = heard.json();
        if let Some(zone) = heard
            .topic
            .strip_suffix("/occupancy")
            .and_then(|topic| topic.rsplit('/').next())
        {
            persons.insert(zone.to_owned(), payload["persons"].as_i64().unwrap_or(-1));
        } else if heard.topic.contains("/alert/") {
            match payload {
                Value::Null => shown.remove(&heard.topic),
                alert => shown.insert(heard.topic, alert["state"].as_str().unwrap_or("").to_owned()),
            };
        }
    }
    Ok(())
}
