//! What a broker of one's own does to us, and how we take it.

use std::sync::Arc;
use std::time::Duration;

use usher_connectors::client::{ClientOptions, MqttClient};
use usher_connectors::message::QoS;
use usher_connectors::publisher::{Publication, Publisher};
use usher_connectors::remote_broker::{RemoteBroker, RemoteOptions};

use crate::mosquitto::Mosquitto;
use crate::source_contract::Running;
use crate::{TestResult, soon};

const TOPIC: &str = "usher/in/main/hall/gate/g1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_is_found_again_and_subscribed_to_again() -> TestResult {
    let Some(mut broker) = Mosquitto::start()? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let (source, _publisher) = RemoteBroker::new(RemoteOptions::new(broker.url(), folder.path().join("session")))?;
    let mut running = Running::start(Arc::new(source), 16).await?;
    for round in 1..=2 {
        broker.kill();
        let lost = soon("the loss", running.health.wait_for(|health| !health.connected))
            .await??
            .clone();
        assert!(
            lost.detail.starts_with(&format!("cannot reach {}: ", broker.url())),
            "{}",
            lost.detail
        );
        assert!(lost.detail.contains("; trying again in "), "{}", lost.detail);
        // It keeps nothing, so the subscription is gone with it.
        broker.resume()?;
        soon(
            "the return",
            running
                .health
                .wait_for(|health| health.connected && health.reconnects == round),
        )
        .await??;
        let device = MqttClient::connect(&broker.url(), "device").await?;
        let ticket = device
            .publish(TOPIC, format!("round {round}"), QoS::AtLeastOnce, false)
            .await?;
        assert_eq!(running.take().await?, format!("round {round}"));
        soon("the confirmation", ticket).await??;
    }
    running.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_not_there_yet_is_waited_for() -> TestResult {
    let Some(mut broker) = Mosquitto::prepare()? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let (source, _publisher) = RemoteBroker::new(RemoteOptions::new(broker.url(), folder.path().join("session")))?;
    let mut running = Running::begin(Arc::new(source), 16);
    let away = |detail: &str| detail.contains("connection refused; trying again in ");
    soon(
        "the first failure",
        running.health.wait_for(|health| away(&health.detail)),
    )
    .await??;
    broker.resume()?;
    soon("the connection", running.health.wait_for(|health| health.connected)).await??;
    running.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_session_file_does_not_lose_what_the_broker_kept() -> TestResult {
    let Some(broker) = Mosquitto::start()? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let options = RemoteOptions::new(broker.url(), folder.path().join("session"));
    let (source, _publisher) = RemoteBroker::new(options.clone())?;
    Running::start(Arc::new(source), 16).await?.stop().await?;
    let device = MqttClient::connect(&broker.url(), "device").await?;
    soon(
        "the confirmation",
        device.publish(TOPIC, "kept", QoS::AtLeastOnce, false).await?,
    )
    .await??;
    std::fs::remove_file(&options.session_file)?;
    let (source, _publisher) = RemoteBroker::new(options)?;
    let mut running = Running::start(Arc::new(source), 16).await?;
    assert_eq!(running.take().await?, "kept");
    running.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_given_out_of_order_go_out_in_order() -> TestResult {
    let Some(broker) = Mosquitto::start()? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let options = RemoteOptions::new(broker.url(), folder.path().join("session"));
    let (source, _publisher) = RemoteBroker::new(options.clone())?;
    let mut running = Running::start(Arc::new(source), 16).await?;
    let device = MqttClient::connect(&broker.url(), "device").await?;
    for n in 0..10 {
        soon(
            "the confirmation",
            device.publish(TOPIC, n.to_string(), QoS::AtLeastOnce, false).await?,
        )
        .await??;
    }
    let mut deliveries = Vec::new();
    for _ in 0..10 {
        deliveries.push(running.next().await?);
    }
    // All but the fourth, last first: only the three before it may be acknowledged.
    let fourth = deliveries.remove(3);
    for delivery in deliveries.into_iter().rev() {
        delivery.ack.done();
    }
    running.stop().await?;
    drop(fourth);
    let (source, _publisher) = RemoteBroker::new(options)?;
    let mut running = Running::start(Arc::new(source), 16).await?;
    for n in 3..10 {
        assert_eq!(running.take().await?, n.to_string());
    }
    running.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_group_divides_the_messages() -> TestResult {
    let Some(broker) = Mosquitto::start()? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let mut members = Vec::new();
    for name in ["a", "b"] {
        let options = RemoteOptions {
            client_id: name.to_owned(),
            share_group: Some("usher".to_owned()),
            ..RemoteOptions::new(broker.url(), folder.path().join(name))
        };
        let (source, _publisher) = RemoteBroker::new(options)?;
        members.push(Running::start(Arc::new(source), 200).await?);
    }
    let device = MqttClient::connect(&broker.url(), "device").await?;
    for n in 0..100 {
        soon(
            "the confirmation",
            device.publish(TOPIC, n.to_string(), QoS::AtLeastOnce, false).await?,
        )
        .await??;
    }
    let (first, second) = members.split_at_mut(1);
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 100 {
        let delivery = tokio::select! {
            delivery = first[0].next() => delivery?,
            delivery = second[0].next() => delivery?,
        };
        let n: u32 = std::str::from_utf8(&delivery.message.payload)?.parse()?;
        assert!(seen.insert(n), "{n} came twice");
        delivery.ack.done();
    }
    for member in members {
        member.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_sends_again_in_order_what_a_lost_broker_did_not_confirm() -> TestResult {
    let Some(mut broker) = Mosquitto::start()? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let device = MqttClient::connect(&broker.url(), "device").await?;
    broker.kill();
    let mut tickets = Vec::new();
    for n in 0..50 {
        tickets.push(device.publish(TOPIC, n.to_string(), QoS::AtLeastOnce, true).await?);
    }
    broker.resume()?;
    for ticket in tickets {
        soon("a confirmation", ticket).await??;
    }
    // Retained, the last one stays: had the order changed, it would not be 49.
    let (source, _publisher) = RemoteBroker::new(RemoteOptions::new(broker.url(), folder.path().join("session")))?;
    let mut running = Running::start(Arc::new(source), 16).await?;
    assert_eq!(running.take().await?, "49");
    soon("the goodbye", device.disconnect()).await?;
    running.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_each_connection_it_is_told_what_the_broker_retains_and_nothing_else() -> TestResult {
    let Some(broker) = Mosquitto::start()? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let other = MqttClient::connect(&broker.url(), "other").await?;
    for topic in [
        "usher/out/main/alert/crowded/hall",
        "usher/out/annex/alert/crowded/hall",
    ] {
        other.publish(topic, "{}", QoS::AtLeastOnce, true).await?.await?;
    }
    let options = RemoteOptions {
        retained: vec![
            "usher/out/main/alert/+/+".to_owned(),
            "usher/out/main/+/occupancy".to_owned(),
        ],
        ..RemoteOptions::new(broker.url(), folder.path().join("session"))
    };
    let (_source, publisher) = RemoteBroker::new(options)?;
    let stray = soon("the one that is there", publisher.next_retained()).await?;
    assert_eq!(&*stray, "usher/out/main/alert/crowded/hall");
    let publish = |topic: &str, payload: &'static str| {
        publisher.publish(Publication {
            topic: topic.into(),
            payload: payload.into(),
            qos: QoS::AtLeastOnce,
            retain: true,
        })
    };
    publish("usher/out/main/hall/occupancy", "{}").await?;
    publish(&stray, "").await?;
    let late = "usher/out/main/alert/crowded/yard";
    other.publish(late, "{}", QoS::AtLeastOnce, true).await?.await?;
    // Who connects by the same name has the connection; it is found again.
    soon(
        "the goodbye",
        MqttClient::connect(&broker.url(), "usher-out").await?.disconnect(),
    )
    .await?;
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(
            soon("what is there by now", publisher.next_retained())
                .await?
                .to_string(),
        );
    }
    told.sort();
    assert_eq!(told, [late, "usher/out/main/hall/occupancy"]);
    let more = tokio::time::timeout(Duration::from_millis(500), publisher.next_retained()).await;
    assert!(more.is_err(), "{more:?} was told as it changed");
    Ok(())
}

#[tokio::test]
async fn a_client_says_why_it_cannot_connect() -> TestResult {
    let Some(broker) = Mosquitto::prepare()? else {
        return Ok(());
    };
    let options = ClientOptions {
        patience: Duration::from_millis(500),
        ..ClientOptions::new(broker.url(), "device")
    };
    let error = MqttClient::connect_with(options)
        .await
        .err()
        .ok_or("it connected to nothing")?;
    assert_eq!(
        error.to_string(),
        format!("cannot reach {}: connection refused", broker.url())
    );
    let error = MqttClient::connect("broker:1883", "device")
        .await
        .err()
        .ok_or("it connected to nothing")?;
    assert!(error.to_string().contains("write mqtt://host:1883"), "{error}");
    Ok(())
}

/// So many messages of QoS 0, each with its number.
async fn publish_numbers(url: &str, name: &str, count: u64) -> TestResult {
    let device = MqttClient::connect(url, name).await?;
    for n in 0..count {
        device
            .publish(TOPIC, n.to_string(), QoS::AtMostOnce, false)
            .await?
            .await?;
    }
    device.disconnect().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_0_that_had_come_in_outlives_its_connection_and_what_a_stop_drops_of_it_is_counted() -> TestResult {
    const SENT: u64 = 100;
    let Some(mut broker) = Mosquitto::start()? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let (source, _publisher) = RemoteBroker::new(RemoteOptions::new(broker.url(), folder.path().join("session")))?;
    let source = Arc::new(source);
    let mut running = Running::start(Arc::clone(&source) as Arc<_>, 4).await?;
    publish_numbers(&broker.url(), "device", SENT).await?;
    soon("all of them", running.health.wait_for(|health| health.received == SENT)).await??;
    broker.kill();
    soon("the loss", running.health.wait_for(|health| !health.connected)).await??;
    broker.resume()?;
    for n in 0..SENT {
        assert_eq!(running.take().await?, n.to_string());
    }
    soon("the return", running.health.wait_for(|health| health.connected)).await??;

    publish_numbers(&broker.url(), "another", SENT).await?;
    soon(
        "all of them",
        running.health.wait_for(|health| health.received == 2 * SENT),
    )
    .await??;
    let health = running.health.clone();
    assert_eq!(health.borrow().shed_not_receiving, 0);
    running.stop().await?;
    // Four were handed over and lay in the channel.
    assert_eq!(health.borrow().shed_not_receiving, SENT - 4);
    assert_eq!(health.borrow().shed, 0);
    Ok(())
}
