//! What a person agrees to holds at once, over a crash, at the API and in every file; and what is old goes.

use std::path::PathBuf;

use serde_json::{Value, json};
use usher_engine::pseudonym::Secret;

use crate::erasure::files_with;
use crate::usher::Usher;
use crate::{TestResult, until};

const DESK: &str = "usher/in/main/reading-room/rfid/pad-1";
const DOOR: &str = "usher/in/main/reading-room/gate/door-1";
const WEB: &str = "usher/in/main/web/click/catalogue";
const SAYS: &str = "usher/in/main/web/consent/app";

/// An hour of somebody: three searches in a session, a loan, and a passage of the door.
async fn publish_hour(usher: &Usher, card: &str, hour: u32) -> TestResult {
    let search = r#""person":"CARD","session":"s-CARD","action":"search","query":"of CARD","results":3"#;
    let events = [
        (WEB, search),
        (WEB, search),
        (WEB, search),
        (DESK, r#""tag":"T1","action":"checkout","person":"CARD""#),
        (DOOR, r#""in":1"#),
    ];
    for (number, (topic, payload)) in events.into_iter().enumerate() {
        let payload = payload.replace("CARD", card);
        let at = format!("2026-03-02T{hour:02}:{number:02}:00+08:00");
        let event = format!(r#"{{"id":"{card}-{hour}-{number}","ts":"{at}",{payload}}}"#);
        usher.publish(topic, &event).await?;
    }
    Ok(())
}

async fn decide(usher: &Usher, id: &str, card: &str, purpose: Value, action: &str) -> TestResult {
    let decision =
        json!({"id": id, "ts": "2026-03-02T12:00:00+08:00", "person": card, "purpose": purpose, "action": action});
    usher.publish(SAYS, &decision.to_string()).await
}

/// All events that the log has of a person, by their ids.
async fn events_of(usher: &Usher, person: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let export = usher.get(&format!("/api/v1/people/{person}/export")).await?;
    let log = export["log"].as_array().into_iter().flatten();
    let events = log.filter(|record| record["record"] == "event");
    Ok(events
        .map(|record| record["event"]["event_id"].as_str().unwrap_or_default().to_owned())
        .collect())
}

async fn totals(usher: &Usher) -> Result<(Value, Value), Box<dyn std::error::Error>> {
    let clicks = usher.query("SELECT sum(clicks) AS clicks FROM click_totals").await?;
    let zone = usher.get("/api/v1/zones/reading-room").await?;
    Ok((clicks[0]["clicks"].clone(), zone["persons"].clone()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_house_that_asks_first_keeps_no_name_of_who_was_not_asked() -> TestResult {
    let usher = Usher::start_with_settings("", "[consent]\nwithout_consent = []\n")?;
    decide(
        &usher,
        "c1",
        "card-1",
        json!(["service", "recognition", "research"]),
        "allow",
    )
    .await?;
    publish_hour(&usher, "card-1", 13).await?;
    publish_hour(&usher, "card-2", 14).await?;
    let secret = Secret::load_or_create(&usher.data())?;
    let [ann, bob] = ["card-1", "card-2"].map(|card| secret.person(card).as_str().to_owned());
    let names = [
        bob.clone(),
        secret.session("s-card-2").as_str().to_owned(),
        "card-2\"".to_owned(),
    ];
    let people = usher.query("SELECT person, searches FROM people").await?;
    assert_eq!(people, [json!({"person": ann, "searches": 3})]);
    assert_eq!(totals(&usher).await?, (json!(6), json!(2)), "everybody is counted");
    let checkpoints = usher.data().join("log/checkpoints");
    let has_one = || async { Ok(std::fs::read_dir(&checkpoints).is_ok_and(|mut files| files.next().is_some())) };
    until("a checkpoint", has_one, |has_one| *has_one).await?;
    assert!(
        !files_with(&usher.data(), std::slice::from_ref(&ann))?.is_empty(),
        "who agreed is there"
    );
    assert_eq!(files_with(&usher.data(), &names)?, Vec::<PathBuf>::new());
    let usher = usher.crash_and_start_again()?;
    publish_hour(&usher, "card-2", 15).await?;
    assert_eq!(totals(&usher).await?, (json!(9), json!(3)));
    for path in [format!("/api/v1/people/{bob}"), format!("/api/v1/people/{bob}/consent")] {
        assert_eq!(usher.get(&path).await?["status"], 404);
    }
    assert_eq!(events_of(&usher, &bob).await?, Vec::<String>::new());
    let (code, left) = usher.stop()?;
    assert_eq!(code, Some(0));
    let usher = left.start_again()?;
    assert_eq!(
        files_with(&usher.data(), &names)?,
        Vec::<PathBuf>::new(),
        "nor after all is saved"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_holds_at_once_and_over_a_crash_and_can_be_read() -> TestResult {
    let usher = Usher::start()?;
    publish_hour(&usher, "card-1", 9).await?;
    let people = usher.query("SELECT person FROM people").await?;
    let ann = people[0]["person"].as_str().ok_or("no person")?.to_owned();
    let path = format!("/api/v1/people/{ann}/consent");
    let open = usher.get(&path).await?;
    assert_eq!(
        open["purposes"][1],
        json!({"purpose": "recognition", "holds": true, "decision": null, "since": null, "event": null}),
        "{open}"
    );
    let looks = usher.get(&format!("/api/v1/people/{ann}/lookups")).await?;
    assert_eq!(looks["items"][0]["what"], "consent", "{looks}");
    let api = usher.get("/api/openapi.json").await?;
    assert!(api["paths"]["/api/v1/people/{pseudonym}/consent"]["get"].is_object());

    decide(&usher, "c1", "card-1", json!("research"), "refuse").await?;
    decide(&usher, "c2", "card-1", json!("recognition"), "refuse").await?;
    publish_hour(&usher, "card-1", 13).await?;
    let told = usher.get(&path).await?;
    let of = |purpose: &str, decision: Option<&str>, event: Option<&str>| {
        let since = event.map(|_| "2026-03-02T04:00:00Z");
        json!({"purpose": purpose, "holds": false, "decision": decision, "since": since, "event": event})
    };
    let expected = json!([
        of("service", None, None),
        of("recognition", Some("refuse"), Some("c2")),
        of("research", Some("refuse"), Some("c1")),
    ]);
    assert_eq!(told["purposes"], expected);
    assert_eq!(usher.get(&format!("/api/v1/people/{ann}")).await?["status"], 404);
    assert_eq!(usher.query("SELECT person FROM people").await?, Vec::<Value>::new());
    assert_eq!(
        usher.query("SELECT person FROM click WHERE person IS NOT NULL").await?,
        Vec::<Value>::new(),
        "nor of before"
    );
    assert_eq!(totals(&usher).await?, (json!(6), json!(2)));
    let before = ["card-1-9-0", "card-1-9-1", "card-1-9-2", "card-1-9-3", "c1", "c2"];
    assert_eq!(
        events_of(&usher, &ann).await?,
        before,
        "the log has what was before, and what was said"
    );
    let usher = usher.crash_and_start_again()?;
    assert_eq!(usher.get(&path).await?["purposes"][2]["event"], "c1");
    assert_eq!(usher.get(&format!("/api/v1/people/{ann}")).await?["status"], 404);
    publish_hour(&usher, "card-1", 15).await?;
    assert_eq!(events_of(&usher, &ann).await?.len(), 6);
    // Who says yes again begins anew.
    decide(&usher, "c3", "card-1", json!("recognition"), "allow").await?;
    publish_hour(&usher, "card-1", 17).await?;
    let again = usher.get(&format!("/api/v1/people/{ann}")).await?;
    assert_eq!((&again["searches"], &again["loans"]), (&json!(3), &json!(1)), "{again}");
    let export = usher.get(&format!("/api/v1/people/{ann}/export")).await?;
    assert_eq!(export["consent"]["purposes"][1]["event"], "c3", "{export}");
    assert_eq!(totals(&usher).await?, (json!(12), json!(4)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_older_than_its_stream_is_kept_goes_and_what_came_of_it_stays() -> TestResult {
    let usher = Usher::start_with_settings("", "[retention]\nclick = \"1s\"\n")?;
    publish_hour(&usher, "card-1", 9).await?;
    decide(&usher, "c1", "card-1", json!("research"), "refuse").await?;
    let people = usher.query("SELECT person FROM people").await?;
    let ann = people[0]["person"].as_str().ok_or("no person")?.to_owned();
    let left = || events_of(&usher, &ann);
    // Each export is a record, so that the state is saved again and again.
    until("the clicks to go", left, |left| *left == ["card-1-9-3", "c1"]).await?;
    let person = usher.get(&format!("/api/v1/people/{ann}")).await?;
    assert_eq!(
        (&person["searches"], &person["loans"]),
        (&json!(3), &json!(1)),
        "{person}"
    );
    // She refuses research: what is tried out for it has no row of hers, and what is for nothing of the kind has.
    for (purpose, rows) in [("research", 0), ("recognition", 1)] {
        let sql = format!("CREATE QUERY q WITH (purpose = '{purpose}') AS SELECT person, tag FROM rfid");
        let (status, trial) = usher
            .post("/api/v1/queries/trial", json!({"sql": sql, "hours": 100_000}))
            .await?;
        assert_eq!(status, 200, "{trial}");
        assert_eq!(trial["rows"].as_array().map(Vec::len), Some(rows), "{purpose}: {trial}");
    }
    let usher = usher.crash_and_start_again()?;
    let again = usher.get(&format!("/api/v1/people/{ann}")).await?;
    assert_eq!((&again["searches"], &again["loans"]), (&json!(3), &json!(1)), "{again}");
    // What is gone is known when it comes again.
    publish_hour(&usher, "card-1", 9).await?;
    assert_eq!(totals(&usher).await?, (json!(3), json!(1)));
    assert_eq!(
        usher.get(&format!("/api/v1/people/{ann}/consent")).await?["purposes"][2]["event"],
        "c1"
    );
    Ok(())
}
