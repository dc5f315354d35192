//! What every source and publisher must do, over the embedded broker and over a mosquitto.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::task::coop::has_budget_remaining;
use tokio_util::sync::CancellationToken;
use usher_connectors::client::MqttClient;
use usher_connectors::delivery::Delivery;
use usher_connectors::embedded_broker::{BrokerOptions, EmbeddedBroker, EmbeddedSource};
use usher_connectors::message::QoS;
use usher_connectors::publisher::{Publication, Publisher};
use usher_connectors::remote_broker::{RemoteBroker, RemoteOptions, RemoteSource};
use usher_connectors::source::{Source, SourceError};

use crate::mosquitto::Mosquitto;
use crate::{TestResult, soon};

/// Bytes that may be under way in each of these sources.
const ROOM: usize = 4 << 20;

/// A broker, and what makes a source of it, as often as the process is restarted.
pub(crate) struct Peer {
    pub(crate) url: String,
    pub(crate) publisher: Arc<dyn Publisher>,
    kind: Kind,
    folder: tempfile::TempDir,
}

enum Kind {
    Embedded {
        source: Arc<EmbeddedSource>,
        _broker: EmbeddedBroker,
    },
    Remote {
        first: Option<Arc<RemoteSource>>,
        options: Box<RemoteOptions>,
        _broker: Mosquitto,
    },
}

impl Peer {
    async fn embedded() -> Result<Option<Self>, Box<dyn std::error::Error>> {
        let options = BrokerOptions {
            listen: ([127, 0, 0, 1], 0).into(),
            intake_bytes: ROOM,
            ..BrokerOptions::default()
        };
        let (mut broker, source, publisher) = EmbeddedBroker::bind(options).await?;
        soon("the broker", broker.ready()).await??;
        Ok(Some(Self {
            url: format!("mqtt://{}", broker.local_addr()),
            publisher: Arc::new(publisher),
            kind: Kind::Embedded {
                source: Arc::new(source),
                _broker: broker,
            },
            folder: tempfile::tempdir()?,
        }))
    }

    async fn mosquitto() -> Result<Option<Self>, Box<dyn std::error::Error>> {
        let Some(broker) = Mosquitto::start()? else {
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        let options = RemoteOptions {
            intake_bytes: ROOM,
            ..RemoteOptions::new(broker.url(), folder.path().join("session"))
        };
        let (source, publisher) = RemoteBroker::new(options.clone())?;
        Ok(Some(Self {
            url: broker.url(),
            publisher: Arc::new(publisher),
            kind: Kind::Remote {
                first: Some(Arc::new(source)),
                options: Box::new(options),
                _broker: broker,
            },
            folder,
        }))
    }

    /// The source, as a start of the process makes it.
    pub(crate) fn source(&mut self) -> Result<Arc<dyn Source>, SourceError> {
        Ok(match &mut self.kind {
            Kind::Embedded { source, .. } => Arc::clone(source) as Arc<dyn Source>,
            Kind::Remote { first, options, .. } => match first.take() {
                Some(source) => source,
                None => Arc::new(RemoteBroker::new((**options).clone())?.0),
            },
        })
    }

    pub(crate) fn session_file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Somebody who subscribes to what goes out.
    pub(crate) async fn subscriber(&self, name: &str, filter: &str) -> Result<Running, Box<dyn std::error::Error>> {
        let options = RemoteOptions {
            client_id: name.to_owned(),
            topic_filter: filter.to_owned(),
            ..RemoteOptions::new(self.url.clone(), self.session_file(name))
        };
        let (source, _) = RemoteBroker::new(options)?;
        Running::start(Arc::new(source), 100).await
    }
}

/// A source that runs, and what it brings.
pub(crate) struct Running {
    pub(crate) deliveries: mpsc::Receiver<Delivery>,
    pub(crate) health: tokio::sync::watch::Receiver<usher_connectors::source::Health>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), SourceError>>,
}

impl Running {
    /// Runs a source and waits until messages can arrive.
    pub(crate) async fn start(source: Arc<dyn Source>, capacity: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let mut running = Self::begin(source, capacity);
        soon("a connection", running.health.wait_for(|health| health.connected)).await??;
        Ok(running)
    }

    /// Runs a source.
    pub(crate) fn begin(source: Arc<dyn Source>, capacity: usize) -> Self {
        let (out, deliveries) = mpsc::channel(capacity);
        let stop = CancellationToken::new();
        let health = source.health();
        let task = tokio::spawn(source.run(out, stop.clone()));
        Self {
            deliveries,
            health,
            stop,
            task,
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Delivery, Box<dyn std::error::Error>> {
        Ok(soon("a message", self.deliveries.recv())
            .await?
            .ok_or("the source ended")?)
    }

    /// The next message's payload as text, taken.
    pub(crate) async fn take(&mut self) -> Result<String, Box<dyn std::error::Error>> {
        let delivery = self.next().await?;
        let text = String::from_utf8(delivery.message.payload.to_vec())?;
        delivery.ack.done();
        Ok(text)
    }

    pub(crate) async fn stop(self) -> TestResult {
        self.stop.cancel();
        soon("the source's end", self.task).await???;
        Ok(())
    }
}

/// Runs each contract over each kind of broker.
macro_rules! contract {
    ($($name:ident),+ $(,)?) => {
        mod embedded_broker {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> crate::TestResult {
                match super::Peer::embedded().await? {
                    Some(peer) => super::$name(peer).await,
                    None => Ok(()),
                }
            })+
        }
        mod own_broker {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> crate::TestResult {
                match super::Peer::mosquitto().await? {
                    Some(peer) => super::$name(peer).await,
                    None => Ok(()),
                }
            })+
        }
    };
}

contract![
    messages_arrive_in_the_order_they_were_sent,
    a_message_that_was_not_taken_comes_again_and_one_that_was_does_not,
    a_message_whose_right_to_acknowledge_was_dropped_comes_again_by_itself,
    a_source_that_was_stopped_runs_again,
    a_megabyte_arrives_whole,
    a_retained_fact_reaches_a_late_subscriber_until_it_is_cleared,
    facts_reach_a_subscriber_in_the_order_they_were_published,
    facts_published_by_a_task_that_is_due_for_a_break_keep_their_order,
    facts_of_qos_2_are_confirmed_and_arrive_once_and_in_order,
    qos_0_arrives_and_is_shed_and_counted_when_nobody_takes_it,
    large_messages_that_are_not_taken_stay_within_their_bytes_and_each_is_taken_once,
    large_messages_of_qos_0_are_shed_and_counted_beyond_their_bytes,
    what_cannot_be_published_is_said_at_once,
];

async fn messages_arrive_in_the_order_they_were_sent(mut peer: Peer) -> TestResult {
    let mut running = Running::start(peer.source()?, 16).await?;
    let device = MqttClient::connect(&peer.url, "device").await?;
    let sending = tokio::spawn(async move {
        let mut tickets = Vec::new();
        for n in 0..500 {
            tickets.push(
                device
                    .publish("usher/in/main/hall/gate/g1", n.to_string(), QoS::AtLeastOnce, false)
                    .await?,
            );
        }
        for ticket in tickets {
            ticket.await?;
        }
        device.disconnect().await;
        Ok::<_, usher_connectors::publisher::PublishError>(())
    });
    for n in 0..500 {
        let delivery = running.next().await?;
        assert_eq!(delivery.message.payload, n.to_string());
        assert_eq!(&*delivery.message.topic, "usher/in/main/hall/gate/g1");
        assert_eq!(delivery.message.qos, QoS::AtLeastOnce);
        assert!(delivery.message.received_us > 1_600_000_000_000_000);
        delivery.ack.done();
    }
    soon("the sender", sending).await???;
    soon("the count", running.health.wait_for(|health| health.received == 500)).await??;
    running.stop().await
}

async fn a_message_that_was_not_taken_comes_again_and_one_that_was_does_not(mut peer: Peer) -> TestResult {
    let device = Arc::new(MqttClient::connect(&peer.url, "device").await?);
    let mut running = Running::start(peer.source()?, 16).await?;
    let mut tickets = Vec::new();
    for text in ["first", "second"] {
        tickets.push(
            device
                .publish("usher/in/main/hall/gate/g1", text, QoS::AtLeastOnce, false)
                .await?,
        );
    }
    assert_eq!(running.take().await?, "first");
    let held = running.next().await?;
    assert_eq!(held.message.payload, "second");
    // The process ends with the message in its hands.
    running.stop().await?;
    drop(held);
    let mut running = Running::start(peer.source()?, 16).await?;
    assert_eq!(running.take().await?, "second");
    for ticket in tickets {
        soon("a confirmation", ticket).await??;
    }
    running.stop().await?;
    let mut running = Running::start(peer.source()?, 16).await?;
    let marker = device
        .publish("usher/in/main/hall/gate/g1", "marker", QoS::AtLeastOnce, false)
        .await?;
    assert_eq!(running.take().await?, "marker");
    soon("a confirmation", marker).await??;
    running.stop().await
}

async fn a_message_whose_right_to_acknowledge_was_dropped_comes_again_by_itself(mut peer: Peer) -> TestResult {
    let device = MqttClient::connect(&peer.url, "device").await?;
    let mut running = Running::start(peer.source()?, 16).await?;
    let ticket = device
        .publish("usher/in/main/hall/gate/g1", "again", QoS::AtLeastOnce, false)
        .await?;
    drop(running.next().await?);
    assert_eq!(running.take().await?, "again");
    soon("a confirmation", ticket).await??;
    running.stop().await
}

async fn a_source_that_was_stopped_runs_again(mut peer: Peer) -> TestResult {
    let device = MqttClient::connect(&peer.url, "device").await?;
    let source = peer.source()?;
    for text in ["before", "after"] {
        let mut running = Running::start(Arc::clone(&source), 16).await?;
        let ticket = device
            .publish("usher/in/main/hall/gate/g1", text, QoS::AtLeastOnce, false)
            .await?;
        assert_eq!(running.take().await?, text);
        soon("a confirmation", ticket).await??;
        running.stop().await?;
    }
    Ok(())
}

async fn a_megabyte_arrives_whole(mut peer: Peer) -> TestResult {
    let mut running = Running::start(peer.source()?, 16).await?;
    let device = MqttClient::connect(&peer.url, "device").await?;
    let payload: Bytes = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let ticket = device
        .publish("usher/in/main/hall/click/web", payload.clone(), QoS::AtLeastOnce, false)
        .await?;
    let delivery = running.next().await?;
    assert!(
        delivery.message.payload == payload,
        "{} bytes arrived",
        delivery.message.payload.len()
    );
    delivery.ack.done();
    soon("a confirmation", ticket).await??;
    running.stop().await
}

fn fact(topic: &str, payload: &str, retain: bool) -> Publication {
    Publication {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: QoS::AtLeastOnce,
        retain,
    }
}

async fn a_retained_fact_reaches_a_late_subscriber_until_it_is_cleared(peer: Peer) -> TestResult {
    soon(
        "the publication",
        peer.publisher
            .publish(fact("usher/out/main/hall/occupancy", "46", true)),
    )
    .await??;
    let mut early = peer.subscriber("early", "usher/out/#").await?;
    let delivery = early.next().await?;
    assert_eq!(
        (&*delivery.message.payload, delivery.message.retain),
        (b"46".as_slice(), true)
    );
    delivery.ack.done();
    soon(
        "the publication",
        peer.publisher.publish(fact("usher/out/main/hall/occupancy", "", true)),
    )
    .await??;
    assert_eq!(early.take().await?, "", "those who listen hear that it was cleared");
    soon(
        "the publication",
        peer.publisher.publish(fact("usher/out/main/yard/occupancy", "7", true)),
    )
    .await??;
    let mut late = peer.subscriber("late", "usher/out/#").await?;
    assert_eq!(late.take().await?, "7", "the cleared fact is gone");
    early.stop().await?;
    late.stop().await
}

async fn facts_reach_a_subscriber_in_the_order_they_were_published(peer: Peer) -> TestResult {
    let mut subscriber = peer.subscriber("reader", "usher/out/main/#").await?;
    let publisher = Arc::clone(&peer.publisher);
    let publishing = tokio::spawn(async move {
        for n in 0..300 {
            publisher
                .publish(fact("usher/out/main/alert-event/crowded", &n.to_string(), false))
                .await?;
        }
        Ok::<_, usher_connectors::publisher::PublishError>(())
    });
    for n in 0..300 {
        assert_eq!(subscriber.take().await?, n.to_string());
    }
    soon("the publisher", publishing).await???;
    subscriber.stop().await
}

/// Takes as much as a task may do at a time, so that from here on the runtime interrupts whatever asks it for something.
async fn work_until_a_break_is_due() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    while has_budget_remaining() {
        let _ = sender.send(());
        receiver.recv().await;
    }
}

async fn facts_published_by_a_task_that_is_due_for_a_break_keep_their_order(peer: Peer) -> TestResult {
    const AT_ONCE: i32 = 8;
    let mut subscriber = peer.subscriber("reader", "usher/out/main/#").await?;
    let publisher = Arc::clone(&peer.publisher);
    let publishing = tokio::spawn(async move {
        for round in 0..20 {
            work_until_a_break_is_due().await;
            let publications = (0..AT_ONCE).map(|n| {
                let number = (round * AT_ONCE + n).to_string();
                publisher.publish(fact("usher/out/main/alert-event/crowded", &number, false))
            });
            let mut under_way: FuturesUnordered<_> = publications.collect();
            while let Some(published) = under_way.next().await {
                published?;
            }
        }
        Ok::<_, usher_connectors::publisher::PublishError>(())
    });
    for n in 0..20 * AT_ONCE {
        assert_eq!(subscriber.take().await?, n.to_string());
    }
    soon("the publisher", publishing).await???;
    subscriber.stop().await
}

async fn facts_of_qos_2_are_confirmed_and_arrive_once_and_in_order(peer: Peer) -> TestResult {
    let mut subscriber = peer.subscriber("reader", "usher/out/main/#").await?;
    let publisher = Arc::clone(&peer.publisher);
    let publishing = tokio::spawn(async move {
        let twice = |n: i32| Publication {
            qos: QoS::ExactlyOnce,
            ..fact("usher/out/main/alert-event/crowded", &n.to_string(), false)
        };
        // Side by side, as an outbox does it.
        let (odd, even) = tokio::join!(publisher.publish(twice(0)), publisher.publish(twice(1)));
        odd?;
        even?;
        for n in 2..200 {
            publisher.publish(twice(n)).await?;
        }
        let kept = Publication {
            qos: QoS::ExactlyOnce,
            ..fact("usher/out/main/alert/crowded/hall", "stands", true)
        };
        publisher.publish(kept).await?;
        Ok::<_, usher_connectors::publisher::PublishError>(())
    });
    for n in 0..200 {
        assert_eq!(subscriber.take().await?, n.to_string());
    }
    assert_eq!(subscriber.take().await?, "stands", "nothing came twice");
    soon("the publisher", publishing).await???;
    let mut late = peer.subscriber("late", "usher/out/#").await?;
    assert_eq!(late.take().await?, "stands");
    subscriber.stop().await?;
    late.stop().await
}

async fn qos_0_arrives_and_is_shed_and_counted_when_nobody_takes_it(mut peer: Peer) -> TestResult {
    let mut running = Running::start(peer.source()?, 4).await?;
    let device = MqttClient::connect(&peer.url, "device").await?;
    const SENT: u64 = 3_000;
    for n in 0..SENT {
        device
            .publish("usher/in/main/hall/rfid/r1", n.to_string(), QoS::AtMostOnce, false)
            .await?
            .await?;
    }
    soon(
        "all to be counted",
        running.health.wait_for(|health| health.received == SENT),
    )
    .await??;
    let shed = running.health.borrow().shed;
    assert!(shed > 0 && shed < SENT, "{shed} of {SENT} were shed");
    for n in 0..SENT - shed {
        assert_eq!(running.take().await?, n.to_string(), "the first ones are kept");
    }
    let ticket = device
        .publish("usher/in/main/hall/rfid/r1", "marker", QoS::AtLeastOnce, false)
        .await?;
    assert_eq!(running.take().await?, "marker");
    soon("a confirmation", ticket).await??;
    running.stop().await
}

/// A message of a quarter of a megabyte that says which it is.
fn large(number: usize) -> Vec<u8> {
    let mut payload = vec![b' '; 256 << 10];
    payload[..8].copy_from_slice(format!("{number:8}").as_bytes());
    payload
}

fn number_in(delivery: &Delivery) -> Result<usize, Box<dyn std::error::Error>> {
    Ok(std::str::from_utf8(&delivery.message.payload[..8])?.trim().parse()?)
}

fn bytes_of(delivery: &Delivery) -> usize {
    delivery.message.topic.len() + delivery.message.payload.len()
}

async fn large_messages_that_are_not_taken_stay_within_their_bytes_and_each_is_taken_once(
    mut peer: Peer,
) -> TestResult {
    const SENT: usize = 40;
    let mut running = Running::start(peer.source()?, 4_096).await?;
    let mut sending = Vec::new();
    for number in 0..SENT {
        // The embedded broker takes one at a time from a connection, so each has its own.
        let device = MqttClient::connect(&peer.url, &format!("device-{number}")).await?;
        sending.push(tokio::spawn(async move {
            let ticket = device
                .publish("usher/in/main/hall/rfid/r1", large(number), QoS::AtLeastOnce, false)
                .await?;
            ticket.await
        }));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut most = 0;
    while seen.len() < SENT {
        let mut held = vec![running.next().await?];
        // As many as come while none is taken.
        while let Ok(Some(more)) =
            tokio::time::timeout(std::time::Duration::from_millis(300), running.deliveries.recv()).await
        {
            held.push(more);
        }
        most = most.max(held.iter().map(bytes_of).sum());
        for delivery in held {
            assert!(seen.insert(number_in(&delivery)?), "one came twice");
            delivery.ack.done();
        }
    }
    assert!(
        most > ROOM / 2,
        "only {most} bytes were ever under way, so nothing is shown"
    );
    assert!(most <= ROOM, "{most} bytes were under way");
    for sent in sending {
        soon("a confirmation", sent).await???;
    }
    assert_eq!(running.health.borrow().shed, 0);
    running.stop().await
}

async fn large_messages_of_qos_0_are_shed_and_counted_beyond_their_bytes(mut peer: Peer) -> TestResult {
    const SENT: usize = 40;
    let mut running = Running::start(peer.source()?, 4_096).await?;
    let device = MqttClient::connect(&peer.url, "device").await?;
    for number in 0..SENT {
        device
            .publish("usher/in/main/hall/rfid/r1", large(number), QoS::AtMostOnce, false)
            .await?
            .await?;
    }
    soon(
        "all to be counted",
        running.health.wait_for(|health| health.received == SENT as u64),
    )
    .await??;
    let fit = ROOM / ("usher/in/main/hall/rfid/r1".len() + large(0).len());
    assert_eq!(running.health.borrow().shed, (SENT - fit) as u64);
    for number in 0..fit {
        let delivery = running.next().await?;
        assert_eq!(number_in(&delivery)?, number, "the first ones are kept");
        delivery.ack.done();
    }
    let ticket = device
        .publish("usher/in/main/hall/rfid/r1", large(SENT), QoS::AtLeastOnce, false)
        .await?;
    let marker = running.next().await?;
    assert_eq!(number_in(&marker)?, SENT, "there is room again");
    marker.ack.done();
    soon("a confirmation", ticket).await??;
    running.stop().await
}

async fn what_cannot_be_published_is_said_at_once(peer: Peer) -> TestResult {
    let wildcard = peer
        .publisher
        .publish(fact("usher/out/#", "x", false))
        .await
        .expect_err("a wildcard");
    assert!(wildcard.to_string().contains("subscriptions only"), "{wildcard}");
    let large = Publication {
        payload: Bytes::from(vec![0; (16 << 20) + 1]),
        ..fact("usher/out/a", "", false)
    };
    let large = peer.publisher.publish(large).await.expect_err("17 MB");
    assert!(large.to_string().contains("raise max_packet_bytes"), "{large}");
    Ok(())
}
