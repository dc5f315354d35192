//! Points for helpful acts, as events earn them and staff spends them, over a crash.

use serde_json::{Value, json};

use crate::usher::Usher;
use crate::{TestResult, until};

const DESK: &str = "usher/in/main/desk/rfid/pad-1";
const APP: &str = "usher/in/main/web/reply/app";
const WEB: &str = "usher/in/main/web/click/opac";

/// Who searches is written to at once, and nobody is held out.
const RULES: &str = "
CREATE ALERT help WITH (subject = 'person', message = 'help', text = 'May we help?') AS
SELECT site, zone, person, event_time FROM click WHERE action = 'search' AND person IS NOT NULL;
";
const SETTINGS: &str = "[messages]\nholdout = 0\nquiet = \"\"\nmoment = \"10ms\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_are_given_once_spent_once_and_kept_over_a_crash() -> TestResult {
    let usher = Usher::start_own(RULES, SETTINGS, &[])?;
    for payload in [
        r#"{"id":"o1","ts":"2026-03-02T09:00:00+08:00","tag":"T1","action":"checkout","person":"card-1"}"#,
        r#"{"id":"b1","ts":"2026-03-06T09:00:00+08:00","tag":"T1","action":"checkin"}"#,
        r#"{"id":"b1","ts":"2026-03-06T09:00:00+08:00","tag":"T1","action":"checkin"}"#,
    ] {
        usher.publish(DESK, payload).await?;
    }
    let search = r#"{"id":"s1","ts":"2026-03-06T09:00:00+08:00","person":"card-1","action":"search","query":"cats"}"#;
    usher.publish(WEB, search).await?;
    let is_there = |page: &Value| page["items"].as_array().is_some_and(|items| !items.is_empty());
    let sent = until("a message", || usher.get("/api/v1/messages?state=sent"), is_there).await?;
    let message = sent["items"][0]["id"].as_str().ok_or("no id")?.to_owned();
    // Nobody sent a-1, and of what was sent the first rating counts.
    for (id, of, rating) in [
        ("r0", "a-1", 4),
        ("r1", message.as_str(), 5),
        ("r2", message.as_str(), 4),
    ] {
        let rated = format!(
            r#"{{"id":"{id}","ts":"2026-03-06T09:00:01+08:00","person":"card-1","message":"{of}","response":"accepted","rating":{rating}}}"#
        );
        usher.publish(APP, &rated).await?;
    }
    // Patterns are found when time has passed them.
    usher
        .publish(
            DESK,
            r#"{"id":"x1","ts":"2026-03-06T09:05:00+08:00","tag":"T9","action":"read"}"#,
        )
        .await?;
    let people = usher.query("SELECT person FROM people").await?;
    let path = format!(
        "/api/v1/people/{}/points",
        people[0]["person"].as_str().ok_or("no pseudonym")?
    );
    let view = until("the points", || usher.get(&path), |view| view["balance"] == 12).await?;
    let reasons: Vec<&Value> = view["entries"]
        .as_array()
        .ok_or("no entries")?
        .iter()
        .map(|entry| &entry["reason"])
        .collect();
    assert!(
        reasons.contains(&&json!("returned_on_time")) && reasons.contains(&&json!("feedback")),
        "{view}"
    );

    let coffee = json!({"spend": 5, "reason": "coffee", "id": "receipt-1", "by": "desk"});
    let (status, spent) = usher.post(&path, coffee.clone()).await?;
    assert_eq!(
        (status, &spent["points"], &spent["balance"]),
        (200, &json!(-5), &json!(7))
    );
    let (status, again) = usher.post(&path, coffee.clone()).await?;
    assert_eq!((status, &again), (200, &spent), "a receipt is charged once");
    let (status, problem) = usher
        .post(&path, json!({"spend": 8, "reason": "tea", "id": "receipt-2"}))
        .await?;
    assert_eq!(status, 409);
    let detail = problem["detail"].to_string();
    assert!(detail.contains("8 points are wanted and 7 are there"), "{detail}");
    for (wrong, word) in [
        (
            json!({"spend": 1, "grant": 1, "reason": "x", "id": "i"}),
            "one of the two",
        ),
        (json!({"grant": 1, "reason": " ", "id": "i"}), "reason"),
        (
            json!({"grant": -5, "reason": "x", "id": "i"}),
            "'grant' is -5; 1 to 1000000 would be right",
        ),
        (
            json!({"spend": 0, "reason": "x", "id": "i"}),
            "'spend' is 0; 1 to 1000000 would be right",
        ),
        (
            json!({"grant": 1, "reason": "x", "id": "i", "expires_at": "soon"}),
            "no time",
        ),
    ] {
        let (status, problem) = usher.post(&path, wrong).await?;
        assert!(
            status == 400 && problem["detail"].to_string().contains(word),
            "{problem}"
        );
    }
    let nobody = usher.post(
        "/api/v1/people/p_nobody/points",
        json!({"grant": 1, "reason": "x", "id": "i"}),
    );
    assert_eq!(nobody.await?.0, 404);

    let before = usher.get(&path).await?;
    let usher = usher.crash_and_start_again()?;
    assert_eq!(usher.get(&path).await?, before);
    assert_eq!(usher.post(&path, coffee).await?, (200, spent), "nor after a crash");
    let (status, back) = usher
        .post(&format!("{path}/receipt-1/reverse"), json!({"by": "desk"}))
        .await?;
    assert_eq!((status, &back["balance"]), (200, &json!(12)));

    // Who opts out keeps nothing and gets nothing.
    let out =
        r#"{"id":"r3","ts":"2026-03-06T09:06:00+08:00","person":"card-1","message":"a-1","response":"opted_out"}"#;
    usher.publish(APP, out).await?;
    let rated = r#"{"id":"r4","ts":"2026-03-06T09:07:00+08:00","person":"card-1","message":"a-2","response":"accepted","rating":5}"#;
    usher.publish(APP, rated).await?;
    until(
        "nothing left",
        || usher.get_text(&path),
        |text| text.contains("there is no person"),
    )
    .await?;
    let (status, _) = usher.post(&path, json!({"grant": 1, "reason": "x", "id": "i"})).await?;
    assert_eq!(status, 404);
    Ok(())
}
