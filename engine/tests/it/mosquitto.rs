//! With a broker of one's own: mosquitto, with `mosquitto_pub` as the device.

use serde_json::Value;

use crate::listener::Listener;
use crate::own_broker::Mosquitto;
use crate::usher::Usher;
use crate::{TestResult, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_broker_of_ones_own_the_alert_comes_out_there() -> TestResult {
    let Some(broker) = Mosquitto::start().await? else {
        return Ok(());
    };
    let usher = Usher::start_with(&["--mqtt", &broker.url()])?;
    until("readiness", || usher.get_text("/readyz"), |text| text == "ready\n").await?;
    let gate = "usher/in/main/reading-room/gate/door-1";
    let mut out = Listener::subscribe(&broker.url(), "usher/out/#").await?;
    let crowd = r#"{"id":"m1","ts":"2026-03-02T09:00:00+08:00","in":47}"#;
    broker.publish(gate, &["-m", crowd])?;
    broker.publish(gate, &["-m", r#"{"id":"m2","ts":"2026-03-02T09:00:11+08:00","out":0}"#])?;
    let topic = "usher/out/main/alert/zone_crowded/reading-room";
    let alert = out.next("the alert", |heard| heard.topic == topic).await?.json();
    assert_eq!(
        (&alert["state"], &alert["text"]),
        (&Value::from("active"), &Value::from("Reading room is 94 % full"))
    );
    let standing = usher.get("/api/v1/alerts?state=active").await?;
    assert_eq!(standing["items"][0]["id"], alert["id"], "{standing}");

    broker.publish(gate, &["-m", crowd])?;
    broker.publish(gate, &["-m", "garbage"])?;
    broker.publish(gate, &["-n"])?;
    broker.publish(gate, &["-m", r#"{"id":"m3","out":1}"#])?;
    usher.has_taken(6).await?;
    let status = usher.get("/api/v1/status").await?;
    let counts = &status["counts"];
    assert_eq!(
        (&counts["duplicates"], &counts["refused"], &counts["events"]),
        (&1.into(), &2.into(), &3.into()),
        "{status}"
    );
    let zone = usher.get("/api/v1/zones/reading-room").await?;
    assert_eq!(zone["persons"], 46, "{zone}");
    let count = out
        .next("the count", |heard| {
            heard.topic == "usher/out/main/reading-room/occupancy" && heard.json()["persons"] == 46
        })
        .await?;
    assert_eq!(count.json()["capacity"], 50);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_while_the_engine_was_away_comes_after_its_return() -> TestResult {
    let Some(broker) = Mosquitto::start().await? else {
        return Ok(());
    };
    let gate = "usher/in/main/reading-room/gate/door-1";
    let usher = Usher::start_with(&["--mqtt", &broker.url()])?;
    until("readiness", || usher.get_text("/readyz"), |text| text == "ready\n").await?;
    broker.publish(gate, &["-m", r#"{"id":"a1","in":1}"#])?;
    usher.has_taken(1).await?;
    let away = usher.crash()?;
    broker.publish(gate, &["-m", r#"{"id":"a2","in":2}"#])?;
    let usher = away.start_again()?;
    let zone = until(
        "both events",
        || usher.get("/api/v1/zones/reading-room"),
        |zone| zone["persons"] == 3,
    )
    .await?;
    assert_eq!(zone["persons"], 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broker_of_ones_own_retains_and_does_not_stand_is_cleared_there() -> TestResult {
    let Some(broker) = Mosquitto::start().await? else {
        return Ok(());
    };
    let usher = Usher::start_with(&["--mqtt", &broker.url()])?;
    until("readiness", || usher.get_text("/readyz"), |text| text == "ready\n").await?;
    let gate = "usher/in/main/reading-room/gate/door-1";
    broker.publish(gate, &["-m", r#"{"id":"m1","ts":"2026-03-02T09:00:00+08:00","in":47}"#])?;
    broker.publish(gate, &["-m", r#"{"id":"m2","ts":"2026-03-02T09:00:11+08:00","out":0}"#])?;
    let crowded = "usher/out/main/alert/zone_crowded";
    let stands = format!("{crowded}/reading-room");
    let mut out = Listener::subscribe(&broker.url(), "usher/out/+/alert/#").await?;
    out.next("the alert", |heard| heard.topic == stands).await?;
    let away = usher.crash()?;
    // As an engine on another folder left them, or one that a crash made forget what it had told.
    let (stray, other) = (
        format!("{crowded}/attic"),
        "usher/out/elsewhere/alert/zone_crowded/attic",
    );
    for topic in [stray.as_str(), other] {
        broker.publish(topic, &["-r", "-m", r#"{"state":"active"}"#])?;
        out.next("what is left", |heard| heard.topic == topic).await?;
    }
    let usher = away.start_again()?;
    out.next("its end", |heard| heard.topic == stray && heard.payload.is_empty())
        .await?;
    until("readiness", || usher.get_text("/readyz"), |text| text == "ready\n").await?;
    let mut late = Listener::subscribe(&broker.url(), "usher/out/+/alert/#").await?;
    let mut left = Vec::new();
    for _ in 0..2 {
        let heard = late.next("what is retained", |heard| heard.retain).await?;
        left.push((heard.topic.clone(), heard.json()["state"].clone()));
    }
    left.sort_by(|one, next| one.0.cmp(&next.0));
    assert_eq!(
        left,
        [(other.to_owned(), "active".into()), (stands, "active".into())],
        "another site is not its own"
    );
    Ok(())
}
