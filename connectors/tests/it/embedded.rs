//! What only the embedded broker does.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use usher_connectors::client::{ClientOptions, MqttClient};
use usher_connectors::embedded_broker::{BrokerError, BrokerOptions, EmbeddedBroker};
use usher_connectors::message::QoS;
use usher_connectors::publisher::{Publication, PublishError, Publisher};

use crate::source_contract::Running;
use crate::{TestResult, soon};

fn options() -> BrokerOptions {
    BrokerOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        ..BrokerOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_is_confirmed_only_after_it_was_taken() -> TestResult {
    let (broker, source, _publisher) = EmbeddedBroker::bind(options()).await?;
    let url = format!("mqtt://{}", broker.local_addr());
    let mut running = Running::start(Arc::new(source), 16).await?;
    let device = MqttClient::connect(&url, "device").await?;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut ticket = Box::pin(device.publish("usher/in/main/hall/gate/g1", "1", qos, false).await?);
        let delivery = running.next().await?;
        // The message is here; give a confirmation sent too early ample time to arrive.
        let early = tokio::time::timeout(Duration::from_millis(300), &mut ticket).await;
        assert!(early.is_err(), "QoS {qos} was confirmed before it was taken");
        delivery.ack.done();
        soon("the confirmation", ticket).await??;
    }
    // What is not for us is none of our business.
    soon(
        "the confirmation",
        device.publish("other/topic", "1", QoS::AtLeastOnce, false).await?,
    )
    .await??;
    running.stop().await?;
    soon("the shutdown", broker.shutdown()).await??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_source_runs_and_at_the_shutdown_nothing_is_confirmed() -> TestResult {
    let (broker, _source, _publisher) = EmbeddedBroker::bind(options()).await?;
    let device = MqttClient::connect(&format!("mqtt://{}", broker.local_addr()), "device").await?;
    let mut ticket = Box::pin(
        device
            .publish("usher/in/main/hall/gate/g1", "1", QoS::AtLeastOnce, false)
            .await?,
    );
    let early = tokio::time::timeout(Duration::from_millis(300), &mut ticket).await;
    assert!(early.is_err(), "it was confirmed with nobody there to take it");
    soon("the shutdown", broker.shutdown()).await??;
    let late = tokio::time::timeout(Duration::from_millis(300), &mut ticket).await;
    assert!(late.is_err(), "the shutdown confirmed it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_cannot_publish_what_only_usher_says() -> TestResult {
    let (broker, _source, publisher) = EmbeddedBroker::bind(options()).await?;
    let device = MqttClient::connect(&format!("mqtt://{}", broker.local_addr()), "device").await?;
    let ticket = device
        .publish("usher/out/main/hall/occupancy", "0", QoS::AtLeastOnce, true)
        .await?;
    let refused = soon("the answer", ticket).await?;
    assert!(matches!(refused, Err(PublishError::Refused { .. })), "{refused:?}");
    let own = Publication {
        topic: "usher/out/main/hall/occupancy".into(),
        payload: Bytes::from_static(b"1"),
        qos: QoS::AtLeastOnce,
        retain: true,
    };
    soon("the publication", publisher.publish(own)).await??;
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_with_the_way_out() -> TestResult {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let options = BrokerOptions {
        listen: taken.local_addr()?,
        ..options()
    };
    let error = EmbeddedBroker::bind(options).await.err().ok_or("it listened twice")?;
    assert!(matches!(error, BrokerError::Listen { .. }), "{error}");
    assert!(error.to_string().contains("port 0 takes a free one"), "{error}");
    Ok(())
}

#[tokio::test]
async fn beyond_loopback_nobody_gets_in_without_a_password_unless_so_configured() -> TestResult {
    let open = BrokerOptions {
        listen: ([0, 0, 0, 0], 0).into(),
        ..options()
    };
    let error = EmbeddedBroker::bind(open)
        .await
        .err()
        .ok_or("it was open to the network")?;
    assert!(error.to_string().contains("name a password file"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_password_file_only_those_named_get_in() -> TestResult {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("passwords");
    std::fs::write(&file, "# devices\nno password here\n")?;
    let secured = BrokerOptions {
        password_file: Some(file.clone()),
        ..options()
    };
    let error = EmbeddedBroker::bind(secured.clone())
        .await
        .err()
        .ok_or("a broken line was accepted")?;
    assert!(
        error.to_string().contains(":2: this is no name with a password hash"),
        "{error}"
    );
    let hash = mqtt5::broker::PasswordAuthProvider::hash_password("open sesame")?;
    std::fs::write(&file, format!("gate1:{hash}\n"))?;
    let (broker, _source, _publisher) = EmbeddedBroker::bind(secured).await?;
    let address = broker.local_addr();
    let named = MqttClient::connect(&format!("mqtt://gate1:open%20sesame@{address}"), "gate1").await?;
    assert!(named.is_connected());
    let patience = Duration::from_millis(800);
    let nobody = ClientOptions {
        patience,
        ..ClientOptions::new(format!("mqtt://{address}"), "nobody")
    };
    let error = MqttClient::connect_with(nobody)
        .await
        .err()
        .ok_or("an unknown client got in")?;
    assert!(error.to_string().starts_with("cannot reach mqtt://"), "{error}");
    Ok(())
}
