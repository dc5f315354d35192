//! The outbox keeps what has to go out until those it is for have it: every step for each receiver, and of every
//! retained topic the newest state.
//!
//! A step is told once and kept in the journal, on disk; each receiver has its own place in it. After a crash the same
//! steps come again under the same ids, and those that are known are not told anew.

mod breaker;
mod dead_letters;
mod erasing;
mod fluvio;
pub(crate) mod journal;
mod known;
mod lane;
mod mqtt;
pub(crate) mod news;
mod orders;
pub(crate) mod receiver;
mod retained;
pub(crate) mod shelf;
pub(crate) mod step;
mod view;
mod webhook;

use std::convert::Infallible;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use usher_connectors::fluvio::topic::TopicWriter;
use usher_connectors::message::QoS;
use usher_connectors::publisher::Publisher;
use usher_connectors::spool::SpoolError;
use usher_connectors::webhook::Webhook;

use self::fluvio::FluvioSender;
use self::journal::Journal;
pub(crate) use self::journal::KEPT;
use self::mqtt::MqttSender;
use self::news::News;
pub use self::receiver::ReceiverOptions;
use self::receiver::{Receiver, Sender};
use self::retained::Retained;
pub use self::step::StepId;
use self::step::{KeptNames, StepNames, Told};
pub use self::view::{DeadLetterView, ReceiverView};
pub use self::webhook::Wanted;
use self::webhook::WebhookSender;
use crate::alert::{Alert, State};
use crate::clock::{Clock, SystemClock};
use crate::fence::{Fence, FencedPublisher, FencedSender};
use crate::latency::Latencies;
use crate::messages::MessageView;
use crate::supervisor::Supervisor;
use crate::zones::ZoneView;

/// The name of the broker among the receivers.
pub const MQTT: &str = "mqtt";
/// The name of the topic of alerts among the receivers.
pub const FLUVIO: &str = "fluvio";
/// Steps on their way to the topic at a time.
const FLUVIO_IN_FLIGHT: usize = 32;
/// Steps on their way to the broker at a time; its window is wider.
const MQTT_IN_FLIGHT: usize = 32;

/// The broker as a receiver.
pub struct MqttReceiver {
    /// The way to it.
    pub publisher: Arc<dyn Publisher>,
    /// Where it is, without its password.
    pub address: String,
    /// With which quality of service facts go out.
    pub qos: QoS,
    /// Where it is measured how long an alert took.
    pub latencies: Arc<Latencies>,
}

/// A webhook as a receiver.
pub struct WebhookReceiver {
    /// Its name, one level of a path.
    pub name: String,
    /// The way to it.
    pub webhook: Webhook,
    /// What it wants to be told.
    pub wanted: Wanted,
    /// How it is treated.
    pub options: ReceiverOptions,
}

/// A way to a receiver, and how it is treated.
pub(crate) struct Way {
    pub(crate) name: String,
    pub(crate) sender: Box<dyn Sender>,
    pub(crate) options: ReceiverOptions,
}

/// What an outbox is made of.
pub struct OutboxOptions {
    /// Steps kept at most, whoever still waits for them; beyond it the oldest are dropped, which is counted.
    pub keep_steps: u64,
    /// Steps that may wait for the disk; beyond it no more messages should be taken.
    pub unwritten_max: usize,
    /// Numbers of waiting steps that the broker and the topic keep in memory.
    pub in_memory_max: usize,
    /// Dead letters kept of the broker.
    pub dead_letters_max: usize,
    /// The broker.
    pub mqtt: MqttReceiver,
    /// Whoever wants to be told by HTTP.
    pub webhooks: Vec<WebhookReceiver>,
    /// The topic of alerts.
    pub fluvio: Option<Arc<TopicWriter>>,
    /// Behind which nothing goes out.
    pub fence: Fence,
}

/// Everything that has to go out.
pub struct Outbox {
    journal: Arc<Journal>,
    names: Mutex<StepNames>,
    retained: Retained,
    receivers: Vec<Arc<Receiver>>,
    publisher: Arc<dyn Publisher>,
    qos: QoS,
    latencies: Arc<Latencies>,
    clock: Arc<dyn Clock>,
    /// The offset of the log before which all was told, as it was noted last.
    told_until: AtomicU64,
}

/// What a checkpoint keeps of the outbox: what the journal may lose with the power, and what it does not have.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    /// Steps that are not told yet and have no ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<Alert>,
    /// Messages that are not told yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    messages: Vec<MessageView>,
    /// (topic, payload; empty clears it).
    retained: Vec<(String, String)>,
    #[serde(default)]
    next: u64,
    #[serde(default)]
    steps: Vec<KeptStep>,
    #[serde(default)]
    names: KeptNames,
}

#[derive(Serialize, Deserialize)]
struct KeptStep {
    number: u64,
    id: StepId,
    told_us: i64,
    alert: News,
}

impl Outbox {
    /// Goes on where the process before this one ended. Blocks on the disk.
    ///
    /// # Errors
    /// [`SpoolError`] when the folder can't be used.
    pub fn open(dir: &Path, options: OutboxOptions) -> Result<Self, SpoolError> {
        let OutboxOptions {
            keep_steps,
            unwritten_max,
            in_memory_max,
            dead_letters_max,
            mut mqtt,
            webhooks,
            fluvio,
            fence,
        } = options;
        let journal = Journal::open(dir, keep_steps, unwritten_max)?;
        mqtt.publisher = Arc::new(FencedPublisher {
            publisher: Arc::clone(&mqtt.publisher),
            fence: fence.clone(),
        });
        let ways = webhooks.into_iter().map(|webhook| Way {
            name: webhook.name,
            sender: Box::new(WebhookSender {
                webhook: webhook.webhook,
                wanted: webhook.wanted,
            }),
            options: webhook.options,
        });
        let topic = fluvio.map(|writer| Way {
            name: FLUVIO.to_owned(),
            sender: Box::new(FluvioSender { writer }),
            options: ReceiverOptions {
                in_memory_max,
                ..ReceiverOptions::new(FLUVIO_IN_FLIGHT, dead_letters_max)
            },
        });
        let fenced = ways.chain(topic).map(|way| Way {
            sender: Box::new(FencedSender {
                sender: way.sender,
                fence: fence.clone(),
            }),
            ..way
        });
        // Of a broker no step is ever given up for taking long.
        let broker = ReceiverOptions {
            in_memory_max,
            ..ReceiverOptions::new(MQTT_IN_FLIGHT, dead_letters_max)
        };
        Self::over(journal, broker, mqtt, fenced.collect(), Arc::new(SystemClock))
    }

    /// Goes on in this journal, for the broker and those who are told in other ways.
    pub(crate) fn over(
        journal: Arc<Journal>,
        broker: ReceiverOptions,
        mqtt: MqttReceiver,
        ways: Vec<Way>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SpoolError> {
        let mut names: Vec<&str> = ways.iter().map(|way| way.name.as_str()).collect();
        names.push(MQTT);
        for (name, waiting) in journal.forget_others(&names)? {
            tracing::warn!(
                receiver = name,
                waiting,
                "it is no longer in the settings; what waited for it is dropped"
            );
        }
        let sender = MqttSender {
            publisher: Arc::clone(&mqtt.publisher),
            address: mqtt.address,
            qos: mqtt.qos,
            latencies: Arc::clone(&mqtt.latencies),
        };
        let mut receivers = vec![Arc::new(Receiver::join(
            MQTT,
            Box::new(sender),
            broker,
            &journal,
            Arc::clone(&clock),
        )?)];
        for Way { name, sender, options } in ways {
            receivers.push(Arc::new(Receiver::join(
                &name,
                sender,
                options,
                &journal,
                Arc::clone(&clock),
            )?));
        }
        Ok(Self {
            journal,
            names: Mutex::new(StepNames::default()),
            retained: Retained::default(),
            receivers,
            publisher: mqtt.publisher,
            qos: mqtt.qos,
            latencies: mqtt.latencies,
            clock,
            told_until: AtomicU64::new(0),
        })
    }

    fn name(&self, alert: &Alert) -> StepId {
        self.names.lock().expect("no holder of this lock panics").name(alert)
    }

    /// Tells a step of an alert's life. `received` is when the message that caused it came in.
    pub fn tell_alert(&self, alert: &Arc<Alert>, received: Option<Instant>) {
        let id = self.name(alert);
        self.journal.tell(id, News::from(alert), self.clock.wall_us(), received);
        if alert.state != State::Pending {
            self.retained.show_alert(alert, received);
        }
    }

    /// Sends a message to its person, for as long as it stands.
    pub fn tell_message(&self, message: &Arc<MessageView>) {
        self.journal.messages.begin(&message.id);
        let id = StepNames::name_message(message);
        self.journal.tell(id, News::from(message), self.clock.wall_us(), None);
    }

    /// A message stands that was told before.
    pub fn recall_message(&self, id: &str) {
        self.journal.messages.begin(id);
    }

    /// A message does not stand any more: whoever does not have it yet is not sent it.
    pub fn withdraw_message(&self, id: &str) {
        self.journal.messages.end(id);
    }

    /// A person opted out: these messages do not stand any more, and what a receiver did not take of others is thrown away.
    pub fn forget_person(&self, person: &str, open: &[String]) {
        open.iter().for_each(|id| self.withdraw_message(id));
        self.receivers
            .iter()
            .for_each(|receiver| receiver.forget_person(person));
    }

    /// A step that was told before, as the journal has it: it only keeps its place in the count.
    pub fn recall_alert(&self, alert: &Arc<Alert>) {
        self.name(alert);
        if alert.state != State::Pending {
            self.retained.show_alert(alert, None);
        }
    }

    /// Shows what stands now under the alert's own topic, without telling of a step.
    pub fn show_alert(&self, alert: &Arc<Alert>, received: Option<Instant>) {
        self.retained.show_alert(alert, received);
    }

    /// Shows a zone's count.
    pub fn show_zone(&self, zone: &ZoneView) {
        self.retained.show_zone(zone);
    }

    /// Waits while too many steps wait for the disk. Whoever tells should wait here now and then.
    pub async fn room(&self) {
        self.journal.room().await;
    }

    /// Whether [`Outbox::room`] would not wait.
    pub fn has_room(&self) -> bool {
        self.journal.has_room()
    }

    /// Notes that every step that comes of the log before this offset has been told.
    pub fn mark_told_until(&self, offset: u64) {
        self.journal.mark_told_until(offset);
        self.told_until.store(offset, Ordering::Release);
    }

    /// The offset of the log before which every step was told and every receiver has what it wants; none while that is
    /// not known.
    pub fn settled_until(&self) -> Option<u64> {
        // In this order: what was told before it was read is settled when nothing waits afterwards. What is retained is
        // shown anew by whoever takes over.
        let told = self.told_until.load(Ordering::Acquire);
        let is_settled = self.receivers.iter().all(|receiver| receiver.waiting() == 0);
        (told > 0 && is_settled).then_some(told)
    }

    /// The offset of the log before which every step was told by a process before this one, if that was noted. Blocks
    /// on the disk.
    pub fn told_until(&self) -> Option<u64> {
        let noted = self.told_until.load(Ordering::Acquire);
        if noted > 0 {
            return Some(noted);
        }
        self.journal.told_until().unwrap_or_else(|error| {
            tracing::error!(%error, "it can't be read what was told; steps may come twice, under the same ids");
            None
        })
    }

    /// How many steps have been told, in this process and those before it.
    pub fn told(&self) -> u64 {
        self.journal.next()
    }

    /// The alerts of these steps as they were told, each with its number; none when some are no longer kept.
    pub async fn steps(&self, steps: Range<u64>) -> Vec<(u64, Arc<Alert>)> {
        let max = usize::try_from(steps.end.saturating_sub(steps.start)).unwrap_or(usize::MAX);
        if steps.start < self.journal.oldest() {
            return Vec::new();
        }
        match self.journal.read(steps.start, max).await {
            Ok((told, _)) => {
                let alert_of = |step: &Arc<Told>| Some((step.number, Arc::clone(step.news.alert()?)));
                told.iter().filter_map(alert_of).collect()
            }
            Err(error) => {
                tracing::error!(%error, "steps that a page has missed can't be read");
                Vec::new()
            }
        }
    }

    /// How much waits for the broker or is on its way.
    pub fn len(&self) -> usize {
        let steps = self.receivers.first().map_or(0, |mqtt| mqtt.waiting());
        usize::try_from(steps)
            .unwrap_or(usize::MAX)
            .saturating_add(self.retained.len())
    }

    /// Whether all has gone out that can go out now: a receiver that is away is not waited for.
    pub fn is_empty(&self) -> bool {
        let has_all = |receiver: &Arc<Receiver>| receiver.waiting() == 0 || !receiver.is_open_to();
        self.retained.len() == 0 && self.receivers.iter().all(has_all)
    }

    /// Numbers of steps that a receiver keeps in memory.
    #[cfg(test)]
    pub(crate) fn in_memory(&self, name: &str) -> usize {
        self.receiver(name).map_or(0, |receiver| receiver.in_memory())
    }

    /// What has to be kept beside the journal, for a checkpoint, with the steps that are to be told next. It is taken now,
    /// which copies no alert; what it gives writes it down, in words where a value can't be written as JSON.
    pub fn capture(
        &self,
        untold: Vec<Arc<Alert>>,
        messages: Vec<Arc<MessageView>>,
    ) -> impl FnOnce() -> Result<Vec<u8>, String> + Send + use<> {
        let (next, steps) = self.journal.not_durable();
        let retained = self.retained.shown();
        let names = self.names.lock().expect("no holder of this lock panics").kept();
        move || {
            let kept_step = |step: &Arc<Told>| KeptStep {
                number: step.number,
                id: step.id,
                told_us: step.told_us,
                alert: step.news.clone(),
            };
            let words = |error: serde_json::Error| error.to_string();
            let kept = Kept {
                events: untold.iter().map(|alert| (**alert).clone()).collect(),
                messages: messages.iter().map(|message| (**message).clone()).collect(),
                retained: retained::kept(&retained).map_err(words)?,
                next,
                steps: steps.iter().map(kept_step).collect(),
                names,
            };
            serde_json::to_vec(&kept).map_err(words)
        }
    }

    /// Takes back what [`Outbox::capture`] wrote.
    ///
    /// # Errors
    /// When the bytes are of another version.
    pub fn restore(&self, bytes: &[u8]) -> Result<(), serde_json::Error> {
        let kept: Kept = serde_json::from_slice(bytes)?;
        let told = |step: KeptStep| Told::new(step.number, step.id, step.alert, step.told_us, None);
        self.journal
            .take_up(kept.next, kept.steps.into_iter().map(told).collect());
        self.names
            .lock()
            .expect("no holder of this lock panics")
            .restore(kept.names);
        self.retained.restore(kept.retained);
        for alert in kept.events {
            self.tell_alert(&Arc::new(alert), None);
        }
        for message in kept.messages {
            self.tell_message(&Arc::new(message));
        }
        Ok(())
    }

    /// Sends until `stop`. Each receiver has a task of its own.
    pub async fn send(self: Arc<Self>, supervisor: Supervisor, stop: CancellationToken) {
        let mut running = Vec::new();
        for receiver in &self.receivers {
            let name = format!("receiver {}", receiver.name());
            let (receiver, until) = (Arc::clone(receiver), stop.clone());
            running.push(supervisor.run(&name, stop.clone(), move || {
                let (receiver, until) = (Arc::clone(&receiver), until.clone());
                async move {
                    receiver.run(until).await;
                    Ok::<(), Infallible>(())
                }
            }));
        }
        let (outbox, until) = (Arc::clone(&self), stop.clone());
        running.push(supervisor.run("retained topics", stop, move || {
            let (outbox, until) = (Arc::clone(&outbox), until.clone());
            async move {
                let retained = &outbox.retained;
                retained
                    .send(
                        outbox.publisher.as_ref(),
                        outbox.qos,
                        &outbox.latencies,
                        outbox.clock.as_ref(),
                        until,
                    )
                    .await;
                Ok::<(), Infallible>(())
            }
        }));
        for part in running {
            // Supervised: it has said what there was to say.
            let _ = part.await;
        }
    }

    /// Writes down what was told and confirmed, for good. Blocks on the disk.
    pub fn close(&self) {
        self.journal.close();
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.journal.disk_bytes()
    }

    /// Where all receivers stand, the broker first.
    pub fn receivers(&self) -> Vec<ReceiverView> {
        self.receivers.iter().map(|receiver| receiver.view()).collect()
    }

    fn receiver(&self, name: &str) -> Option<&Arc<Receiver>> {
        self.receivers.iter().find(|receiver| receiver.name() == name)
    }

    /// Where one receiver stands; `None` when there is none of that name.
    pub fn receiver_view(&self, name: &str) -> Option<ReceiverView> {
        self.receiver(name).map(|receiver| receiver.view())
    }

    /// The dead letters of a receiver, the oldest first; `None` when there is none of that name.
    pub fn dead_letters(&self, name: &str) -> Option<Vec<DeadLetterView>> {
        self.receiver(name).map(|receiver| receiver.dead_letters())
    }

    /// Sends a dead letter of a receiver again, or all; gives how many. `None` when there is no such receiver.
    pub fn resend(&self, name: &str, id: Option<StepId>) -> Option<usize> {
        self.receiver(name).map(|receiver| receiver.resend(id))
    }

    /// Throws a dead letter away; `Some(false)` when there is none or it is on its way again, `None` when there is no
    /// such receiver.
    pub fn discard(&self, name: &str, id: StepId) -> Option<bool> {
        self.receiver(name).map(|receiver| receiver.discard(id))
    }
}

#[cfg(test)]
mod tests;
