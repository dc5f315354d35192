//! From a device's message to an alert that comes, is looked after, and goes, over the embedded broker.

use serde_json::{Value, json};

use crate::listener::Listener;
use crate::usher::Usher;
use crate::{TestResult, until};

const GATE: &str = "usher/in/main/reading-room/gate/door-1";
const ALERT: &str = "usher/out/main/alert/zone_crowded/reading-room";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowded_zone_is_told_acknowledged_and_cleared() -> TestResult {
    let usher = Usher::start()?;
    let mut alerts = Listener::subscribe(&usher.mqtt, "usher/out/main/alert-event/zone_crowded").await?;
    let crowd = r#"{"id":"e1","ts":"2026-03-02T09:00:00+08:00","in":46}"#;
    usher.publish(GATE, crowd).await?;
    // Ten seconds of event time later it has held long enough.
    usher
        .publish(GATE, r#"{"id":"e2","ts":"2026-03-02T09:00:11+08:00","in":0}"#)
        .await?;
    let pending = alerts.next("the pending alert", |_| true).await?.json();
    assert_eq!(pending["state"], "pending", "{pending}");
    let active = alerts
        .next("the alert", |heard| heard.json()["state"] == "active")
        .await?
        .json();
    assert_eq!(active["id"], pending["id"]);
    assert_eq!(active["text"], "Reading room is 92 % full");
    assert_eq!(active["subject"], json!({"kind": "zone", "id": "reading-room"}));
    assert_eq!(
        (&active["values"]["persons"], &active["values"]["capacity"]),
        (&json!(46), &json!(50))
    );
    assert_eq!(active["causes"], json!(["e1"]));
    assert_eq!(active["event_time"], "2026-03-02T01:00:10Z");
    assert!(
        active["raised_at"].is_string() && active["trace"]["sent_us"].is_u64(),
        "{active}"
    );

    // The same event again, by its id: nothing changes.
    usher.publish(GATE, crowd).await?;
    let status = usher.get("/api/v1/status").await?;
    assert_eq!(status["counts"]["duplicates"], 1, "{status}");
    let zone = usher.get("/api/v1/zones/reading-room").await?;
    assert_eq!(
        (&zone["persons"], &zone["word"], &zone["share"]),
        (&json!(46), &json!("very busy"), &json!(0.92))
    );

    // Whoever comes late finds it, and the count.
    let mut late = Listener::subscribe(&usher.mqtt, "usher/out/#").await?;
    let retained = late.next("the retained alert", |heard| heard.topic == ALERT).await?;
    assert!(retained.retain);
    assert_eq!(retained.json()["id"], active["id"]);

    let id = active["id"].as_str().ok_or("an alert has an id")?;
    // Who does it is who the header says, which a proxy may set, whatever the body says.
    let answer = reqwest::Client::new()
        .post(format!("http://{}/api/v1/alerts/{id}/acknowledge", usher.http))
        .header("Usher-Staff", "Li")
        .json(&json!({"by": "Wu"}))
        .send()
        .await?;
    let (code, acknowledged): (u16, Value) = (answer.status().as_u16(), answer.json().await?);
    assert_eq!(
        (code, &acknowledged["state"], &acknowledged["acknowledged_by"]),
        (200, &json!("acknowledged"), &json!("Li"))
    );
    alerts
        .next("the acknowledgement", |heard| heard.json()["state"] == "acknowledged")
        .await?;
    let open = usher.get("/api/v1/alerts?state=acknowledged").await?;
    assert_eq!(open["items"][0]["id"], active["id"], "{open}");

    // Between the thresholds it recovers, below the lower one it is over.
    usher
        .publish(GATE, r#"{"id":"e3","ts":"2026-03-02T09:01:00+08:00","out":4}"#)
        .await?;
    alerts
        .next("the recovery", |heard| heard.json()["state"] == "recovering")
        .await?;
    usher
        .publish(GATE, r#"{"id":"e4","ts":"2026-03-02T09:02:00+08:00","out":10}"#)
        .await?;
    alerts
        .next("the end", |heard| heard.json()["state"] == "cleared")
        .await?;
    late.next("the empty payload", |heard| {
        heard.topic == ALERT && heard.payload.is_empty()
    })
    .await?;
    let (code, problem) = usher
        .post(&format!("/api/v1/alerts/{id}/acknowledge"), json!({}))
        .await?;
    assert_eq!((code, &problem["status"]), (404, &json!(404)), "{problem}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_known_by_pseudonym_and_forgotten_when_they_want() -> TestResult {
    let usher = Usher::start()?;
    let web = "usher/in/main/reading-room/click/catalogue-1";
    usher
        .publish(
            web,
            r#"{"ts":"2026-03-02T09:00:00+08:00","person":"card-4711","action":"search","query":"a","results":3}"#,
        )
        .await?;
    let reader = "usher/in/main/reading-room/rfid/desk-1";
    usher
        .publish(
            reader,
            r#"{"ts":"2026-03-02T09:10:00+08:00","tag":"E2801","action":"checkout","person":"card-4711"}"#,
        )
        .await?;
    let rows = usher
        .query("SELECT person, events, breadth, tier, life_cycle FROM people")
        .await?;
    assert_eq!(rows.len(), 1, "{rows:?}");
    let person = rows[0]["person"].as_str().ok_or("a person has a pseudonym")?;
    assert!(person.starts_with("p_") && !person.contains("card-"), "{person}");
    let one = usher.get(&format!("/api/v1/people/{person}")).await?;
    assert_eq!(
        (&one["frequency"], &one["breadth"], &one["life_cycle"]),
        (&json!(1), &json!(2), &json!("new")),
        "{one}"
    );
    assert_eq!(one["channels"], json!(["rfid", "web"]));
    assert_eq!(
        (&one["services"], &one["visits"], &one["loans"], &one["searches"]),
        (&json!(["loan", "search"]), &json!(1), &json!(1), &json!(1)),
        "one visit, from the web to the desk: {one}"
    );
    let visits = usher
        .query("SELECT person, used, channels, is_first FROM visit")
        .await?;
    assert_eq!(
        visits,
        [json!({"person": person, "used": "loan search", "channels": 2, "is_first": true})]
    );
    assert!(
        one["score"].as_f64().is_some_and(|score| score > 1.2 && score < 1.4),
        "{one}"
    );
    let draft = json!({"sql": "CREATE QUERY changes AS SELECT person, reason, event_time FROM engagement"});
    // When nobody has been heard of for a while.
    let has_passed = |status: &Value| status["watermark"].as_str() > Some("2026-03-02T01:10");
    until("the watermark", || usher.get("/api/v1/status"), has_passed).await?;
    let (_, trial) = usher.post("/api/v1/queries/trial", draft.clone()).await?;
    assert_eq!(trial["rows"][0]["reason"], json!("first_visit"), "{trial}");
    usher
        .publish(
            "usher/in/main/reading-room/reply/app",
            r#"{"person":"card-4711","message":"m","response":"opted_out"}"#,
        )
        .await?;
    assert_eq!(usher.query("SELECT person FROM people").await?.len(), 0);
    assert_eq!(usher.query("SELECT person FROM visit").await?.len(), 0);
    assert_eq!(usher.query("SELECT person FROM engagement").await?.len(), 0);
    let (_, trial) = usher.post("/api/v1/queries/trial", draft).await?;
    assert_eq!(trial["rows"], json!([]), "{trial}");
    let everything = std::fs::read_dir(usher.data().join("log"))?.count();
    assert!(everything > 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_come_and_go_while_running() -> TestResult {
    let usher = Usher::start()?;
    let sql = "CREATE QUERY per_door WITH (emit = 'update') AS SELECT device, sum(entered) AS entered FROM gate GROUP BY device";
    let (code, wrong) = usher
        .post(
            "/api/v1/queries/check",
            json!({"sql": "CREATE QUERY q AS SELECT sit FROM gate"}),
        )
        .await?;
    assert_eq!(code, 422, "{wrong}");
    assert_eq!(
        (&wrong["mistakes"][0]["line"], &wrong["mistakes"][0]["column"]),
        (&json!(1), &json!(26)),
        "{wrong}"
    );
    usher.publish(GATE, r#"{"id":"e1","in":2}"#).await?;
    let (code, trial) = usher.post("/api/v1/queries/trial", json!({"sql": sql})).await?;
    assert_eq!((code, &trial["rows"][0]["entered"]), (200, &json!(2)), "{trial}");
    let put = reqwest::Client::new()
        .put(format!("http://{}/api/v1/queries/per_door", usher.http))
        .json(&json!({"sql": sql}))
        .send()
        .await?;
    assert_eq!(put.status(), 200);
    usher.publish(GATE, r#"{"id":"e2","in":3}"#).await?;
    let rows = usher.query("SELECT * FROM per_door").await?;
    assert_eq!(rows, [json!({"device": "door-1", "entered": 3})]);
    let usher = usher.crash_and_start_again()?;
    usher.publish(GATE, r#"{"id":"e3","in":4}"#).await?;
    let rows = usher.query("SELECT * FROM per_door").await?;
    assert!(
        matches!(rows[0]["entered"].as_i64(), Some(7 | 9)),
        "it is there after a restart: {rows:?}"
    );
    let delete = reqwest::Client::new()
        .delete(format!("http://{}/api/v1/queries/per_door", usher.http))
        .send()
        .await?;
    assert_eq!(delete.status(), 204);
    assert!(usher.query("SELECT * FROM per_door").await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_well_and_tells_how_it_is() -> TestResult {
    let usher = Usher::start()?;
    assert_eq!(usher.get_text("/healthz").await?, "ok\n");
    until("readiness", || usher.get_text("/readyz"), |text| text == "ready\n").await?;
    usher.publish(GATE, r#"{"in":1}"#).await?;
    let metrics = usher.get_text("/metrics").await?;
    assert!(metrics.contains("usher_events_total 1"), "{metrics}");
    assert!(
        metrics.contains("usher_stage_seconds{stage=\"durable\",quantile=\"0.99\"}"),
        "{metrics}"
    );
    let api = usher.get("/api/openapi.json").await?;
    assert!(api["paths"]["/api/v1/zones"]["get"].is_object(), "{api}");
    let page = usher.get_text("/").await?;
    assert!(page.contains("<html"), "{page}");
    assert_eq!(usher.terminate()?, Some(0));
    Ok(())
}
