//! Webhooks: whatever a receiver does and whenever we are killed, each step arrives once by its id and in order.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::{Value, json};
use usher_connectors::client::MqttClient;
use usher_connectors::message::QoS;

use crate::listener::Listener;
use crate::receiver::{Got, Mood, Receiver};
use crate::usher::{Usher, program};
use crate::{TestResult, soon, until};

const ZONES: usize = 5;
/// An alert of two steps for each time ten people come and go.
pub(crate) const SQL: &str = "
CREATE ALERT busy WITH (subject = 'zone', severity = 'info', raise = 'persons >= 10', clear = 'persons < 10',
  text = '{zone} is busy') AS
SELECT site, zone, persons, as_of FROM occupancy;
";

/// The doors of all zones: so often ten people come and go.
struct Doors {
    client: MqttClient,
    rounds: usize,
}

impl Doors {
    async fn open(usher: &Usher) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self {
            client: MqttClient::connect(&usher.mqtt, "doors").await?,
            rounds: 0,
        })
    }

    /// One round in every zone: each comes to two steps.
    async fn go_round(&mut self) -> TestResult {
        let mut tickets = Vec::new();
        for (way, passed) in [("in", r#""in":10"#), ("out", r#""out":10"#)] {
            for zone in 0..ZONES {
                let payload = format!(r#"{{"id":"{way}-{}",{passed}}}"#, self.rounds);
                let topic = format!("usher/in/main/z{zone}/gate/door");
                tickets.push(self.client.publish(topic, payload, QoS::AtLeastOnce, false).await?);
            }
        }
        self.rounds += 1;
        for ticket in tickets {
            soon("an acknowledgement", ticket).await??;
        }
        Ok(())
    }

    /// The steps that all rounds come to.
    fn steps(&self) -> usize {
        self.rounds * ZONES * 2
    }
}

fn assert_once_and_in_order(taken: &[Got], rounds: usize) {
    let mut seen = HashSet::new();
    let mut states: HashMap<String, Vec<&str>> = HashMap::new();
    for got in taken.iter().filter(|got| seen.insert(&got.id)) {
        let state = got.body["data"]["state"].as_str().unwrap_or("");
        assert_eq!(got.body["type"], format!("alert.{state}"));
        states.entry(got.subject()).or_default().push(state);
    }
    assert_eq!(states.len(), ZONES);
    for (zone, states) in states {
        assert_eq!(states, ["active", "cleared"].repeat(rounds), "{zone}");
    }
}

async fn receivers(usher: &Usher) -> Result<HashMap<String, Value>, Box<dyn std::error::Error>> {
    let list = usher.get("/api/v1/receivers").await?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let name = |item: &Value| item["name"].as_str().unwrap_or("").to_owned();
    Ok(items.into_iter().map(|item| (name(&item), item)).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_receiver_does_each_step_arrives_once_and_holds_up_nobody() -> TestResult {
    let (moody, steady, silent) = (
        Receiver::start(Mood::Takes).await?,
        Receiver::start(Mood::Takes).await?,
        Receiver::start(Mood::Never).await?,
    );
    let settings = [
        "[delivery]\nmqtt_qos = 2\n".to_owned(),
        moody.settings("moody", "timeout = \"500ms\""),
        steady.settings("steady", "events = [\"cleared\"]\nrules = [\"busy\"]"),
        silent.settings("silent", "timeout = \"300ms\"\nmax_in_flight = 2"),
    ]
    .concat();
    let usher = Usher::start_with_settings(SQL, &settings)?;
    let mut mqtt = Listener::subscribe(&usher.mqtt, "usher/out/main/alert-event/busy").await?;
    let mut doors = Doors::open(&usher).await?;

    for mood in [
        Mood::Takes,
        Mood::Slowly(Duration::from_millis(300)),
        Mood::AsksForPeace(2),
        Mood::Fails,
        Mood::Never,
        Mood::Forgetful,
    ] {
        moody.set(mood);
        doors.go_round().await?;
        doors.go_round().await?;
        if let Mood::Slowly(_) = mood {
            let waits = |all: &HashMap<String, Value>, name: &str| all[name]["waiting"] != 0;
            let one_alone = |all: &HashMap<String, Value>| waits(all, "moody") && !waits(all, "steady");
            let all = until("what waits for it alone", || receivers(&usher), one_alone).await?;
            assert_eq!(all["moody"]["state"], "closed", "slow is not broken");
        }
        if let Mood::AsksForPeace(_) = mood {
            let has_asked = |got: &Vec<Got>| got.iter().any(|got| got.status == Some(429));
            until("the question", || async { Ok(moody.got()) }, has_asked).await?;
        }
        if mood == Mood::Fails {
            let open = |all: &HashMap<String, Value>| all["moody"]["state"] == "open";
            let all = until("the breaker", || receivers(&usher), open).await?;
            assert!(
                all["moody"]["words"]
                    .as_str()
                    .is_some_and(|words| words.contains("failed")),
                "{all:?}"
            );
            let error = all["moody"]["last_error"].as_str().unwrap_or("").to_owned();
            assert_eq!(error, "it answered 500: as the test wants it");
        }
        if mood == Mood::Never {
            let is_out = |all: &HashMap<String, Value>| all["moody"]["last_error"] == "no answer within 500 ms";
            until("the time-out", || receivers(&usher), is_out).await?;
        }
    }
    // It is switched off and comes back.
    moody.go_down();
    doors.go_round().await?;
    let is_gone = |all: &HashMap<String, Value>| all["moody"]["last_error"] == "connection refused";
    until("the loss", || receivers(&usher), is_gone).await?;
    let moody = moody.come_back().await?;
    moody.set(Mood::Takes);

    // Nobody else waited for any of that.
    let mut told = HashSet::new();
    for _ in 0..doors.steps() {
        let step = mqtt.next("a step", |_| true).await?.json();
        told.insert(step["step_id"].as_str().ok_or("a step has an id")?.to_owned());
    }
    assert_eq!(told.len(), doors.steps());
    until(
        "the steady one",
        || async { Ok(steady.has()) },
        |has| *has == doors.steps() / 2,
    )
    .await?;
    until(
        "the moody one",
        || async { Ok(moody.has()) },
        |has| *has == doors.steps(),
    )
    .await?;
    let all = until(
        "nothing to wait",
        || receivers(&usher),
        |all| all["moody"]["waiting"] == 0,
    )
    .await?;

    let taken = moody.taken();
    assert_once_and_in_order(&taken, doors.rounds);
    let ids: HashSet<String> = taken.iter().map(|got| got.id.clone()).collect();
    assert_eq!(ids, told, "a step has the same id for everybody");
    assert!(steady.taken().iter().all(|got| got.body["type"] == "alert.cleared"));
    let got = moody.got();
    let asked = got
        .iter()
        .position(|got| got.status == Some(429))
        .ok_or("it asked for peace")?;
    let after = got[asked + 1..]
        .iter()
        .find(|later| later.at > got[asked].at + Duration::from_millis(400));
    assert!(
        after.is_some_and(|after| after.at - got[asked].at >= Duration::from_millis(1_900)),
        "it was left alone: {after:?}"
    );
    for receiver in [&moody, &steady, &silent] {
        assert_eq!(receiver.forged(), Vec::<String>::new());
    }

    assert_eq!(all["silent"]["waiting"], doors.steps(), "{all:?}");
    assert_eq!((&all["silent"]["sent"], &all["silent"]["dead"]), (&json!(0), &json!(0)));
    assert_eq!(all["mqtt"]["sent"], doors.steps(), "{all:?}");
    assert_eq!(all["steady"]["sent"], doors.steps() / 2);
    let metrics = usher.get_text("/metrics").await?;
    assert!(metrics.contains(&format!(
        "usher_receiver_waiting{{receiver=\"silent\"}} {}",
        doors.steps()
    )));
    assert!(metrics.contains("usher_receiver_breaker_closed{receiver=\"moody\"} 1"));
    let status = std::process::Command::new(program())
        .args(["status", "--http", &usher.http])
        .output()?;
    let screen = String::from_utf8(status.stdout)?;
    assert!(
        screen.contains("receiver    moody: it takes what it is sent, 0 waiting"),
        "{screen}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_it_sends_what_was_not_confirmed_and_nothing_else() -> TestResult {
    let receiver = Receiver::start(Mood::Forgetful).await?;
    let mut usher = Usher::start_with_settings(SQL, &receiver.settings("hook", "max_in_flight = 4"))?;
    let mut doors = Doors::open(&usher).await?;
    const KILLS: usize = 4;
    for kill in 0..KILLS {
        for _ in 0..8 {
            doors.go_round().await?;
        }
        // At another moment each time: with much still to send, with half, with nearly nothing.
        let wanted = doors.steps() * (kill + 1) / (KILLS + 1);
        until("a part of it", || async { Ok(receiver.has()) }, |has| *has >= wanted).await?;
        usher = usher.crash_and_start_again()?;
    }
    doors.go_round().await?;
    let has_all = |has: &usize| *has == doors.steps();
    until("all of it", || async { Ok(receiver.has()) }, has_all).await?;
    until(
        "nothing to wait",
        || receivers(&usher),
        |all| all["hook"]["waiting"] == 0,
    )
    .await?;
    let taken = receiver.taken();
    assert_once_and_in_order(&taken, doors.rounds);
    // What was on its way at a kill may come twice, and what was confirmed in the moment before it.
    let doubled = taken.len() - receiver.has();
    assert!(doubled <= KILLS * 8, "{doubled} of {} came twice", taken.len());
    assert_eq!(receiver.forged(), Vec::<String>::new());

    // A clean end and a start send nothing again.
    let before = receiver.got().len();
    let usher = usher.terminate_and_start_again()?;
    doors = Doors {
        client: MqttClient::connect(&usher.mqtt, "doors").await?,
        ..doors
    };
    doors.go_round().await?;
    let has_all = |has: &usize| *has == doors.steps();
    until("the last round", || async { Ok(receiver.has()) }, has_all).await?;
    let after: HashSet<String> = receiver.got()[before..].iter().map(|got| got.id.clone()).collect();
    assert_eq!(after.len(), ZONES * 2, "only what is new came");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_can_be_looked_at_and_sent_again_after_a_crash() -> TestResult {
    let receiver = Receiver::start(Mood::Refuses(3)).await?;
    let usher = Usher::start_with_settings(SQL, &receiver.settings("hook", ""))?;
    let mut doors = Doors::open(&usher).await?;
    doors.go_round().await?;
    doors.go_round().await?;
    let path = "/api/v1/receivers/hook/dead-letters";
    let are_dead = |all: &HashMap<String, Value>| all["hook"]["dead"] == 4 && all["hook"]["waiting"] == 0;
    until("the letters", || receivers(&usher), are_dead).await?;
    assert_eq!(usher.get("/api/v1/status").await?["status"], "degraded");
    let letters = usher.get(path).await?;
    assert_eq!(letters["items"][0]["reason"], "it answered 422: as the test wants it");
    assert_eq!(letters["items"][0]["alert"]["subject"]["id"], "z3", "{letters}");
    let page = usher.get(&format!("{path}?limit=3")).await?;
    assert_eq!(page["items"].as_array().map(Vec::len), Some(3));
    assert!(page["next"].is_string());

    let usher = usher.crash_and_start_again()?;
    let again = usher.get(path).await?;
    assert_eq!(again, letters, "they are the same after a crash");
    receiver.set(Mood::Takes);
    let id = letters["items"][0]["id"].as_str().ok_or("a letter has an id")?;
    let (code, answer) = usher.post(&format!("{path}/{id}/resend"), json!({})).await?;
    assert_eq!((code, &answer["resent"]), (200, &json!(1)), "{answer}");
    until("the first", || receivers(&usher), |all| all["hook"]["dead"] == 3).await?;
    assert_eq!(receiver.taken().last().map(|got| got.id.clone()).as_deref(), Some(id));
    let url = format!(
        "http://{}{path}/{}",
        usher.http,
        letters["items"][1]["id"].as_str().unwrap_or("")
    );
    assert_eq!(reqwest::Client::new().delete(&url).send().await?.status(), 204);
    assert_eq!(reqwest::Client::new().delete(&url).send().await?.status(), 404);
    let (code, answer) = usher.post(&format!("{path}/resend"), json!({})).await?;
    assert_eq!((code, &answer["resent"]), (200, &json!(2)), "{answer}");
    until("the rest", || receivers(&usher), |all| all["hook"]["dead"] == 0).await?;
    assert_eq!(
        receiver.has(),
        doors.steps() - 1,
        "all but the one that was thrown away"
    );

    let (code, problem) = usher
        .post("/api/v1/receivers/hoop/dead-letters/resend", json!({}))
        .await?;
    assert_eq!(
        (code, &problem["detail"]),
        (404, &json!("there is no receiver 'hoop'; /api/v1/receivers lists them"))
    );
    let (code, _) = usher.post(&format!("{path}/{id}/resend"), json!({})).await?;
    assert_eq!(code, 404, "it was taken");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_taken_up_after_a_crash_brings_the_steps_in_between() -> TestResult {
    let usher = Usher::start_with_queries(SQL)?;
    let mut doors = Doors::open(&usher).await?;
    doors.go_round().await?;
    let (seen, mut last) = alerts_of_stream(&usher, None, |name, seen| name == "health" && seen.is_empty()).await?;
    assert_eq!(seen, Vec::<String>::new(), "a page that begins is told of nothing old");
    doors.go_round().await?;
    let all_told = |all: &HashMap<String, Value>| all["mqtt"]["sent"] == doors.steps();
    until("the second round", || receivers(&usher), all_told).await?;
    let usher = usher.crash_and_start_again()?;
    let (seen, _) = alerts_of_stream(&usher, last.take(), |name, _| name == "reset").await?;
    assert_eq!(seen.len(), ZONES * 2, "{seen:?}");
    for zone in 0..ZONES {
        let of_zone: Vec<&String> = seen
            .iter()
            .filter(|step| step.starts_with(&format!("z{zone} ")))
            .collect();
        assert_eq!(of_zone, [&format!("z{zone} active"), &format!("z{zone} cleared")]);
    }
    Ok(())
}

/// Listens to the page's stream until `is_over` at an event's name; gives the alerts it told and the last event's id.
async fn alerts_of_stream(
    usher: &Usher,
    last: Option<String>,
    is_over: impl Fn(&str, &[String]) -> bool,
) -> Result<(Vec<String>, Option<String>), Box<dyn std::error::Error>> {
    let mut request = reqwest::Client::new().get(format!("http://{}/api/v1/stream", usher.http));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let mut response = request.send().await?;
    let (mut text, mut seen) = (String::new(), Vec::new());
    loop {
        let chunk = soon("the stream", response.chunk()).await??.ok_or("the stream ended")?;
        text += &String::from_utf8_lossy(&chunk);
        while let Some((event, rest)) = text
            .split_once("\n\n")
            .map(|(event, rest)| (event.to_owned(), rest.to_owned()))
        {
            text = rest;
            let line = |name: &str| {
                event
                    .lines()
                    .find_map(|line| line.strip_prefix(name))
                    .unwrap_or("")
                    .trim()
                    .to_owned()
            };
            if line("event:") == "alert" {
                let alert: Value = serde_json::from_str(&line("data:"))?;
                let part = |value: &Value| value.as_str().unwrap_or("").to_owned();
                seen.push(format!("{} {}", part(&alert["subject"]["id"]), part(&alert["state"])));
            }
            if is_over(&line("event:"), &seen) {
                return Ok((seen, Some(line("id:"))));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_in_a_webhook_is_said_where_it_stands() -> TestResult {
    let folder = tempfile::tempdir()?;
    let text = "[[webhook]]\nname = \"a b\"\nurl = \"ftp://x\"\nsecret = \"short\"\nevents = [\"activ\"]\nurll = 1\n";
    std::fs::write(folder.path().join("usher.toml"), text)?;
    let checked = std::process::Command::new(program())
        .arg("check")
        .arg("--config")
        .arg(folder.path())
        .output()?;
    let said = String::from_utf8(checked.stderr)? + &String::from_utf8(checked.stdout)?;
    for (place, wrong) in [
        ("usher.toml:2:8", "`a b` can't be a name"),
        ("usher.toml:3:7", "it does not begin with http:// or https://"),
        ("usher.toml:4:10", "it has 5 bytes; 24 or more would be right"),
        (
            "usher.toml:5:11",
            "`activ` is no state of an alert, did you mean `active`?",
        ),
        ("usher.toml:6:1", "[[webhook]] has no `urll`, did you mean `url`?"),
    ] {
        let is_said = said.lines().any(|line| line.contains(place) && line.contains(wrong));
        assert!(is_said, "{place} {wrong}:\n{said}");
    }
    assert_eq!(checked.status.code(), Some(2));
    assert!(!said.contains("short"), "a secret is never shown");
    Ok(())
}
