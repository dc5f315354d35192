//! A broker of one's own: mosquitto, with `mosquitto_pub` as the device.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::listener::Listener;
use crate::usher::Usher;
use crate::{PATIENCE, TestResult, peer, until};

/// A mosquitto on a free loopback port; dropping it ends it.
struct Mosquitto {
    child: Child,
    port: u16,
    publish: PathBuf,
    _folder: tempfile::TempDir,
}

impl Mosquitto {
    fn start() -> Result<Option<Self>, Box<dyn std::error::Error>> {
        let (Some(program), Some(publish)) = (peer("mosquitto")?, peer("mosquitto_pub")?) else {
            return Ok(None);
        };
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("mosquitto.conf");
        std::fs::write(
            &config,
            format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"),
        )?;
        let child = spawn(&program, &config)?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(Instant::now() < deadline, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(Self {
            child,
            port,
            publish,
            _folder: folder,
        }))
    }

    fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// As a device would: QoS 1, and done when the broker has it.
    fn publish(&self, topic: &str, payload: &[&str]) -> TestResult {
        let status = Command::new(&self.publish)
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1", "-t", topic])
            .args(payload)
            .status()?;
        assert!(status.success());
        Ok(())
    }
}

fn spawn(program: &Path, config: &Path) -> std::io::Result<Child> {
    Command::new(program)
        .arg("-c")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_broker_of_ones_own_the_alert_comes_out_there() -> TestResult {
    let Some(broker) = Mosquitto::start()? else {
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
    let Some(broker) = Mosquitto::start()? else {
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
