//! The demo: within three minutes somebody is offered a seat, answers, earns points and changes tier, seen on MQTT and at the
//! API.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::TestResult;
use crate::listener::Listener;
use crate::usher::program;

/// In which it has to be seen.
const THREE_MINUTES: Duration = Duration::from_secs(180);

/// A demo; dropping it ends it.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        // One that has ended already can't be killed, and need not be.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_is_offered_a_seat_answers_earns_points_and_changes_tier() -> TestResult {
    let mut child = Command::new(program())
        .args(["demo", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let lines = child.stdout.take().ok_or("the process has an output")?;
    let demo = Demo(child);
    let mut line = String::new();
    BufReader::new(lines).read_line(&mut line)?;
    let word = |name: &str| {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix(name));
        word.map(str::to_owned)
            .ok_or_else(|| format!("no {name} in the line {line:?}"))
    };
    let (mqtt, http) = (word("mqtt=")?, word("http=")?);
    let seen = async {
        let mut listener = Listener::subscribe(&format!("mqtt://{mqtt}"), "usher/out/main/message/#").await?;
        let is_seat = |message: &Value| message["kind"] == "seat_offer" && message["state"] == "sent";
        let message = loop {
            let heard = listener.next("an offer of a seat", |_| true).await?.json();
            if is_seat(&heard) {
                break heard;
            }
        };
        let person = message["person"].as_str().ok_or("no person")?;
        let get = async |path: String| -> Result<Value, Box<dyn std::error::Error>> {
            Ok(reqwest::get(format!("http://{http}{path}")).await?.json().await?)
        };
        let tier = async || -> Result<String, Box<dyn std::error::Error>> {
            let person = get(format!("/api/v1/people/{person}")).await?;
            Ok(person["tier"].as_str().ok_or("a person has a tier")?.to_owned())
        };
        let before = tier().await?;
        loop {
            let messages = get(format!("/api/v1/people/{person}/messages?state=accepted")).await?;
            let points = get(format!("/api/v1/people/{person}/points")).await?;
            let is_accepted = messages["items"]
                .as_array()
                .is_some_and(|all| all.iter().any(|of| of["id"] == message["id"]));
            if is_accepted && points["balance"].as_u64() > Some(0) && tier().await? != before {
                return Ok::<Value, Box<dyn std::error::Error>>(message);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let message = tokio::time::timeout(THREE_MINUTES, seen)
        .await
        .map_err(|_| "it took three minutes")??;
    assert!(
        message["text"]["zh"].as_str().is_some_and(|text| text.contains("座位")),
        "{message}"
    );
    drop(demo);
    Ok(())
}
