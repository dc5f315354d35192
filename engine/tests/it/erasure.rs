//! A person is given everything and then erased, and is found in no file afterwards.

use std::path::{Path, PathBuf};

use reqwest::Client;
use serde_json::Value;

use crate::usher::Usher;
use crate::{TestResult, until};

const DESK: &str = "usher/in/main/reading-room/rfid/pad-1";
const WEB: &str = "usher/in/main/web/click/catalogue";

/// The files below a folder that have one of these texts in them. What is compressed hides whole texts; nobody who erases
/// should count on it, so this test writes too little at a time for anything to be worth compressing.
pub(crate) fn files_with(folder: &Path, texts: &[String]) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, texts)?);
            continue;
        }
        let bytes = std::fs::read(&path)?;
        // Reserved space is large and empty.
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let is_in = |text: &String| bytes[..end].windows(text.len()).any(|window| window == text.as_bytes());
        if texts.iter().any(is_in) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Who asked for an erasure, as its receipt has it.
async fn asked_by(usher: &Usher, query: &str, staff: Option<&str>) -> Result<Value, Box<dyn std::error::Error>> {
    // Of somebody whom nobody knows; the log may have had such a person all the same.
    let url = format!("http://{}/api/v1/people/p_{}{query}", usher.http, "a".repeat(26));
    let request = staff.iter().fold(Client::new().delete(url), |request, staff| {
        request.header("Usher-Staff", *staff)
    });
    let answer = request.send().await?;
    assert_eq!(answer.status().as_u16(), 202);
    let receipt: Value = answer.json().await?;
    Ok(receipt["by"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_erases_is_who_the_header_says_and_then_the_query_string() -> TestResult {
    let usher = Usher::start()?;
    assert_eq!(asked_by(&usher, "?by=fake", Some("real")).await?, "real");
    assert_eq!(asked_by(&usher, "", Some("real")).await?, "real");
    assert_eq!(asked_by(&usher, "?by=desk", None).await?, "desk");
    assert_eq!(asked_by(&usher, "", None).await?, "staff");
    Ok(())
}

async fn erased(usher: &Usher, person: &str) -> Result<(u16, Value), Box<dyn std::error::Error>> {
    let url = format!("http://{}/api/v1/people/{person}?by=desk", usher.http);
    let response = Client::new().delete(url).send().await?;
    Ok((response.status().as_u16(), response.json().await?))
}

/// The events that an export has of the log.
fn events_of(export: &Value) -> Vec<&Value> {
    let log = export["log"].as_array().into_iter().flatten();
    log.filter(|record| record["record"] == "event").collect()
}

async fn publish_all(usher: &Usher) -> TestResult {
    for (card, hour) in [("card-1", 1), ("card-2", 2)] {
        for (number, payload) in [
            (
                WEB,
                r#""session":"s-CARD","action":"search","query":"grief","results":0"#,
            ),
            (
                WEB,
                r#""person":"CARD","session":"s-CARD","action":"search","query":"grief","results":0"#,
            ),
            (
                WEB,
                r#""person":"CARD","session":"s-CARD","action":"search","query":"loss","results":0"#,
            ),
            (
                WEB,
                r#""person":"CARD","session":"s-CARD","action":"search","query":"death","results":0"#,
            ),
            (DESK, r#""tag":"T1","action":"checkout","person":"CARD""#),
            (DESK, r#""tag":"T1","action":"checkin","person":"CARD""#),
        ]
        .iter()
        .enumerate()
        {
            let (topic, payload) = payload;
            let payload = payload.replace("CARD", card);
            let at = format!("2026-03-02T{:02}:{:02}:00+08:00", 9 + hour, number);
            usher
                .publish(topic, &format!(r#"{{"id":"{card}-{number}","ts":"{at}",{payload}}}"#))
                .await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_erased_is_found_nowhere() -> TestResult {
    let usher = Usher::start()?;
    publish_all(&usher).await?;
    let people = usher
        .query("SELECT person, loans FROM people ORDER BY last_seen")
        .await?;
    assert_eq!(people.len(), 2, "{people:?}");
    let [ann, bob] = [0, 1].map(|at| people[at]["person"].as_str().unwrap_or_default().to_owned());

    let export = usher.get(&format!("/api/v1/people/{ann}/export")).await?;
    assert_eq!(export["person"], ann.as_str());
    assert_eq!(export["engagement"]["loans"], 1, "{export}");
    let log = events_of(&export);
    assert_eq!(log.len(), 6, "the search before the login was theirs, too: {export}");
    let looked = export["log"].as_array().and_then(|log| log.last()).ok_or("no log")?;
    assert_eq!(
        (&looked["record"], &looked["what"]),
        (&Value::from("looked"), &Value::from("export")),
        "{looked}"
    );
    let session = log[1]["event"]["session"].as_str().ok_or("no session")?.to_owned();
    assert_eq!(log[1]["event"]["query"], "grief");
    assert!(
        export["queries"].as_array().is_some_and(|queries| !queries.is_empty()),
        "{export}"
    );
    // What is on disk by now is in checkpoints as well.
    let checkpoints = usher.data().join("log/checkpoints");
    let has_one = || async { Ok(std::fs::read_dir(&checkpoints).is_ok_and(|mut files| files.next().is_some())) };
    until("a checkpoint", has_one, |has_one| *has_one).await?;
    let names = [ann.clone(), session];
    assert!(!files_with(&usher.data(), &names)?.is_empty(), "it is there at first");

    let (status, receipt) = erased(&usher, &ann).await?;
    assert_eq!((status, &receipt["by"]), (202, &Value::from("desk")), "{receipt}");
    assert_eq!(receipt["forgotten"]["people"], 1, "{receipt}");
    assert!(!receipt.to_string().contains(&ann), "it names nobody");
    let gone = usher.get(&format!("/api/v1/people/{ann}")).await?;
    assert_eq!(gone["status"], 404, "{gone}");
    let path = format!("/api/v1/erasures/{}", receipt["id"].as_str().ok_or("no id")?);
    let receipt = until("the end", || usher.get(&path), |receipt| receipt["state"] == "complete").await?;
    assert_eq!(receipt["erased"]["events"], 6, "{receipt}");

    let export = usher.get(&format!("/api/v1/people/{ann}/export")).await?;
    assert_eq!(export["log"], serde_json::json!([]), "{export}");
    assert_eq!(files_with(&usher.data(), &names)?, Vec::<PathBuf>::new());
    // The other lost nothing, nor did the totals.
    let other = usher.get(&format!("/api/v1/people/{bob}/export")).await?;
    assert_eq!(events_of(&other).len(), 6, "{other}");
    let clicks = usher.query("SELECT sum(clicks) AS clicks FROM click_totals").await?;
    assert_eq!(clicks[0]["clicks"], 8, "{clicks:?}");
    // A publisher that sends again what was erased is known by its id.
    publish_all(&usher).await?;
    let again = usher.get(&format!("/api/v1/people/{ann}")).await?;
    assert_eq!(again["status"], 404, "{again}");
    assert_eq!(
        usher.query("SELECT sum(clicks) AS clicks FROM click_totals").await?,
        clicks
    );

    let (code, left) = usher.stop()?;
    assert_eq!(code, Some(0));
    let usher = left.start_again()?;
    assert_eq!(
        files_with(&usher.data(), &names)?,
        Vec::<PathBuf>::new(),
        "nor after a restart"
    );
    assert_eq!(usher.get(&path).await?["state"], "complete", "the receipt is kept");
    // Who comes again is somebody new.
    let new = r#"{"id":"new","ts":"2026-03-03T09:00:00+08:00","tag":"T2","action":"checkout","person":"card-1"}"#;
    usher.publish(DESK, new).await?;
    let again = usher.get(&format!("/api/v1/people/{ann}")).await?;
    assert_eq!(
        (&again["loans"], &again["events"]),
        (&Value::from(1), &Value::from(1)),
        "{again}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_two_names_is_given_and_erased_by_either() -> TestResult {
    let usher = Usher::start()?;
    publish_all(&usher).await?;
    let known = || usher.query("SELECT person FROM people ORDER BY last_seen");
    let people = until("two persons", known, |people| people.len() == 2).await?;
    let names = [0, 1].map(|at| people[at]["person"].as_str().unwrap_or_default().to_owned());
    let [card, web] = &names;
    let link = r#"{"id":"l1","ts":"2026-03-02T12:00:00+08:00","person":"card-1","also":"card-2"}"#;
    usher.publish("usher/in/main/desk/identify/staff-1", link).await?;
    let of_both = format!("/api/v1/people/{web}");
    let person = || usher.get(&of_both);
    until("the past", person, |person| {
        person["also"] == 1 && person["is_provisional"] == false
    })
    .await?;

    let export = usher.get(&format!("/api/v1/people/{web}/export?by=Li")).await?;
    assert_eq!(
        (&export["person"], &export["links"]),
        (&Value::from(card.as_str()), &serde_json::json!([web])),
        "{export}"
    );
    assert_eq!(
        events_of(&export).len(),
        13,
        "those of both names, and the link: {export}"
    );
    let looks = usher.get(&format!("/api/v1/people/{card}/lookups")).await?;
    assert_eq!(
        (&looks["items"][0]["what"], &looks["items"][0]["by"]),
        (&Value::from("export"), &Value::from("Li")),
        "it is told under any name: {looks}"
    );

    let (status, receipt) = erased(&usher, web).await?;
    assert_eq!(
        (status, &receipt["forgotten"]["people"]),
        (202, &Value::from(1)),
        "{receipt}"
    );
    assert_eq!(receipt["forgotten"]["links"], 1, "{receipt}");
    let path = format!("/api/v1/erasures/{}", receipt["id"].as_str().ok_or("no id")?);
    let usher = usher.crash_and_start_again()?;
    let receipt = until("the end", || usher.get(&path), |receipt| receipt["state"] == "complete").await?;
    assert_eq!(receipt["erased"]["events"], 13, "{receipt}");
    for name in &names {
        let gone = usher.get(&format!("/api/v1/people/{name}")).await?;
        assert_eq!(gone["status"], 404, "{gone}");
        let export = usher.get(&format!("/api/v1/people/{name}/export")).await?;
        assert_eq!(events_of(&export), Vec::<&Value>::new(), "{export}");
    }
    assert_eq!(files_with(&usher.data(), &names)?, Vec::<PathBuf>::new());
    assert_eq!(usher.get("/api/v1/status").await?["links"], 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_that_a_crash_broke_off_is_brought_to_its_end() -> TestResult {
    let usher = Usher::start()?;
    publish_all(&usher).await?;
    let people = usher.query("SELECT person FROM people ORDER BY last_seen").await?;
    let ann = people[0]["person"].as_str().ok_or("no person")?.to_owned();
    let (status, receipt) = erased(&usher, &ann).await?;
    assert_eq!(status, 202, "{receipt}");
    let path = format!("/api/v1/erasures/{}", receipt["id"].as_str().ok_or("no id")?);
    let usher = usher.crash_and_start_again()?;
    let gone = usher.get(&format!("/api/v1/people/{ann}")).await?;
    assert_eq!(gone["status"], 404, "{gone}");
    until("the end", || usher.get(&path), |receipt| receipt["state"] == "complete").await?;
    assert_eq!(files_with(&usher.data(), &[ann])?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_nobody_is_refused_in_words() -> TestResult {
    let usher = Usher::start()?;
    let (status, problem) = erased(&usher, "card-1").await?;
    assert_eq!(status, 400);
    assert!(
        problem["detail"].as_str().is_some_and(|detail| detail.contains("p_")),
        "{problem}"
    );
    let nothing = usher.get("/api/v1/erasures/e-0").await?;
    assert_eq!(nothing["status"], 404);
    Ok(())
}
