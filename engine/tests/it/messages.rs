//! Messages to people over a broker of one's own: sent, answered, withheld, and stopped at once where somebody opts out.

use serde_json::{Value, json};

use crate::listener::{Heard, Listener};
use crate::own_broker::Mosquitto;
use crate::receiver::{Mood, Receiver};
use crate::usher::Usher;
use crate::{TestResult, until};

const WEB: &str = "usher/in/main/web/click/opac";
const APP: &str = "usher/in/main/web/reply/app";

/// A search is a wish for a seat; nobody is held out, and it is never night.
const RULES: &str = "
CREATE ALERT seat_free WITH (subject = 'person', message = 'seat_offer', per_day = 5, points = $thanks, expires = $stands,
  parameters = 'thanks integer = 1, stands interval = 1 hour, word text',
  eligible = 'query = $word', text = 'A seat for {query}', text_zh = '有空座') AS
SELECT site, zone, person, query, event_time FROM click WHERE action = 'search' AND person IS NOT NULL;
";
const SETTINGS: &str = r#"
[messages]
holdout = 0
quiet = ""
per_day = 10
moment = "10ms"
[parameters]
word = "seat"
[parameters.seat_free]
thanks = 7
"#;

fn search(id: &str, ts: &str, person: &str) -> String {
    format!(r#"{{"id":"{id}","ts":"{ts}","action":"search","query":"seat","person":"{person}"}}"#)
}

async fn states(usher: &Usher, path: &str) -> Result<Vec<(String, String)>, Box<dyn std::error::Error>> {
    let page = usher.get(path).await?;
    let items = page["items"].as_array().ok_or_else(|| format!("no list: {page}"))?;
    let text = |item: &Value, name: &str| item[name].as_str().unwrap_or("").to_owned();
    Ok(items
        .iter()
        .map(|item| (text(item, "kind"), text(item, "state")))
        .collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_heard_answered_and_counted_and_an_opt_out_ends_it() -> TestResult {
    let Some(broker) = Mosquitto::start().await? else {
        return Ok(());
    };
    let usher = Usher::start_own(RULES, SETTINGS, &["--mqtt", &broker.url()])?;
    let mut listener = Listener::subscribe(&broker.url(), "usher/out/main/message/#").await?;
    broker.publish(WEB, &["-m", &search("s1", "2026-03-02T09:00:00+08:00", "card-1")])?;
    let sent = listener.next("the message", |_| true).await?;
    let message = sent.json();
    let (id, person) = (
        message["id"].as_str().ok_or("no id")?.to_owned(),
        message["person"].as_str().ok_or("no person")?.to_owned(),
    );
    assert_eq!(sent.topic, format!("usher/out/main/message/{person}"));
    assert!(!sent.retain);
    assert!(!person.contains("card-1"));
    assert_eq!(message["text"], json!({"en": "A seat for seat", "zh": "有空座"}));
    assert_eq!((&message["state"], &message["points"]), (&json!("sent"), &json!(7)));

    // Who only took it off the topic answers under the pseudonym.
    let of_person = format!("/api/v1/people/{person}/messages");
    let reply = |id: &str, ts: &str, who: &str, message: &str, response: &str| {
        format!(r#"{{"id":"{id}","ts":"{ts}","person":"{who}","message":"{message}","response":"{response}"}}"#)
    };
    broker.publish(
        APP,
        &["-m", &reply("r1", "2026-03-02T09:00:20+08:00", &person, &id, "opened")],
    )?;
    let is =
        |state: &'static str| move |found: &Vec<(String, String)>| found.first().is_some_and(|(_, is)| is == state);
    until("the message to be opened", || states(&usher, &of_person), is("opened")).await?;
    broker.publish(
        APP,
        &[
            "-m",
            &reply("r2", "2026-03-02T09:00:30+08:00", "card-1", &id, "accepted"),
        ],
    )?;
    until(
        "the message to be accepted",
        || states(&usher, "/api/v1/messages?state=accepted"),
        is("accepted"),
    )
    .await?;
    let points = usher.get(&format!("/api/v1/people/{person}/points")).await?;
    assert_eq!(points["balance"], 7);
    let metrics = usher.get_text("/metrics").await?;
    assert!(
        metrics.contains(r#"usher_person_messages_total{rule="seat_free",state="accepted"} 1"#),
        "{metrics}"
    );

    // Another one goes out, and whoever opts out hears of no third one.
    broker.publish(WEB, &["-m", &search("s2", "2026-03-02T10:00:00+08:00", "card-1")])?;
    listener.next("the second message", |_| true).await?;
    broker.publish(
        APP,
        &[
            "-m",
            &reply("r3", "2026-03-02T10:00:10+08:00", "card-1", "-", "opted_out"),
        ],
    )?;
    until(
        "the opt-out",
        || states(&usher, &of_person),
        |found: &Vec<_>| found.is_empty(),
    )
    .await?;
    broker.publish(WEB, &["-m", &search("s3", "2026-03-02T11:00:00+08:00", "card-1")])?;
    broker.publish(WEB, &["-m", &search("s4", "2026-03-02T11:10:00+08:00", "card-2")])?;
    let next = listener.next("somebody else's message", |_| true).await?.json();
    assert_ne!(next["person"], json!(person));
    assert!(states(&usher, &of_person).await?.is_empty());
    assert_eq!(
        states(&usher, "/api/v1/messages").await?,
        [("seat_offer".to_owned(), "sent".to_owned())]
    );

    // It is the same after a crash, and nothing is sent twice.
    let usher = usher.crash_and_start_again()?;
    let other = format!(
        "/api/v1/people/{}/messages",
        next["person"].as_str().ok_or("no person")?
    );
    until("the message after the crash", || states(&usher, &other), is("sent")).await?;
    broker.publish(WEB, &["-m", &search("s5", "2026-03-02T11:20:00+08:00", "card-3")])?;
    // One that was on its way when it crashed may come again, under its own id.
    let is_new = |heard: &Heard| heard.json()["id"] != next["id"];
    let last = listener.next("a new message", is_new).await?.json();
    assert!(
        last["person"] != next["person"] && last["person"] != json!(person),
        "{last}"
    );
    let uplift = usher.get("/api/v1/measures/uplift").await?;
    let of_rule = uplift["items"]
        .as_array()
        .and_then(|items| items.iter().find(|item| item["rule"] == "seat_free").cloned());
    let words = of_rule.ok_or("no uplift of the rule")?["words"].clone();
    assert!(
        words.as_str().is_some_and(|words| words.starts_with("too little data")),
        "{words}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_waits_in_the_outbox_is_not_sent_once_its_person_has_opted_out() -> TestResult {
    let receiver = Receiver::start(Mood::Fails).await?;
    let settings = format!("{SETTINGS}{}", receiver.settings("app", ""));
    let usher = Usher::start_own(RULES, &settings, &["--mqtt", "127.0.0.1:0"])?;
    usher
        .publish(WEB, &search("s1", "2026-03-02T09:00:00+08:00", "card-1"))
        .await?;
    usher
        .publish(WEB, &search("s2", "2026-03-02T09:00:01+08:00", "card-2"))
        .await?;
    // It was tried, so it waits.
    until("a try", || async { Ok(receiver.asked()) }, |asked| *asked > 0).await?;
    let opted_out =
        r#"{"id":"r1","ts":"2026-03-02T09:00:10+08:00","person":"card-1","message":"-","response":"opted_out"}"#;
    usher.publish(APP, opted_out).await?;
    let all = "/api/v1/messages?state=open";
    until("the opt-out", || states(&usher, all), |found: &Vec<_>| found.len() == 1).await?;
    receiver.set(Mood::Takes);
    let bodies = until(
        "the other one's message",
        || async { Ok(receiver.bodies()) },
        |bodies| !bodies.is_empty(),
    )
    .await?;
    let left = usher.get("/api/v1/messages").await?["items"][0].clone();
    assert_eq!(
        (bodies.len(), &bodies[0]["type"]),
        (1, &json!("message.sent")),
        "{bodies:?}"
    );
    assert_eq!(bodies[0]["data"]["id"], left["id"]);
    let waits = |view: &Value| view["waiting"] == 0;
    until("nothing to wait", || usher.get("/api/v1/receivers/app"), waits).await?;
    assert_eq!(receiver.bodies().len(), 1, "nothing of who opted out");
    Ok(())
}
