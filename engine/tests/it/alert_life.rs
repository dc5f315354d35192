//! The life of alerts as staff and services meet it: every step on MQTT and at the API, and none lost to a crash.

use std::process::Command;

use serde_json::{Value, json};

use crate::listener::Listener;
use crate::usher::{Usher, program};
use crate::{TestResult, until};

const SITE: &str = r#"
[[site]]
id = "main"
time_zone = "Asia/Shanghai"
[[zone]]
site = "main"
id = "floor-1"
name = { en = "First floor" }
[[zone]]
site = "main"
id = "hall"
parent = "floor-1"
[[zone]]
site = "main"
id = "cafe"
parent = "floor-1"
"#;

const RULES: &str = "
CREATE ALERT busy WITH (subject = 'zone', raise = 'entered >= 10', clear = 'entered < 5', for = '5 seconds',
  keep = '2 minutes', escalate = 'critical after 1 minute', inhibited_by = 'dumb', group = 'parent',
  group_wait = '2 seconds', no_data = '10 minutes', text = '{zone} is busy') AS
SELECT site, zone, entered, event_time FROM gate;
CREATE ALERT dumb WITH (subject = 'device', silent = '5 minutes') AS
SELECT site, zone, device, event_time FROM seat;
CREATE ALERT at_night WITH (subject = 'zone', raise = 'exited >= 10', quiet = '08:00-10:00') AS
SELECT site, zone, exited, event_time FROM gate";

/// So many seconds after nine o'clock.
fn at(seconds: i64) -> i64 {
    1_772_413_200_000 + seconds * 1000
}

async fn pass(usher: &Usher, zone: &str, seconds: i64, entered: i64) -> TestResult {
    let payload = json!({"id": format!("{zone}-{seconds}"), "ts": at(seconds), "in": entered});
    usher
        .publish(&format!("usher/in/main/{zone}/gate/g"), &payload.to_string())
        .await
}

/// The steps that are told, to be waited for in any order: it is kept for a subject only.
struct Steps {
    heard: Listener,
    passed: Vec<Value>,
}

impl Steps {
    async fn of(usher: &Usher) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self {
            heard: Listener::subscribe(&usher.mqtt, "usher/out/main/alert-event/#").await?,
            passed: Vec::new(),
        })
    }
}

/// Waits for a step and gives the alert behind it.
async fn step(steps: &mut Steps, rule: &str, subject: &str, what: &str) -> Result<Value, String> {
    let is_it =
        |alert: &Value| alert["rule"] == rule && alert["subject"]["id"] == subject && alert["step"]["what"] == what;
    if let Some(at) = steps.passed.iter().position(is_it) {
        return Ok(steps.passed.remove(at));
    }
    let name = format!("{rule}/{subject} {what}");
    loop {
        let message = steps.heard.next(&name, |heard| !heard.retain).await?;
        let alert = message.json();
        let rule = alert["rule"].as_str().unwrap_or("");
        assert_eq!(message.topic, format!("usher/out/main/alert-event/{rule}"));
        if is_it(&alert) {
            return Ok(alert);
        }
        steps.passed.push(alert);
    }
}

async fn order(usher: &Usher, alert: &Value, deed: &str, body: Value) -> Result<Value, Box<dyn std::error::Error>> {
    let id = alert["id"].as_str().ok_or("an alert has an id")?;
    let (code, answer) = usher.post(&format!("/api/v1/alerts/{id}/{deed}"), body).await?;
    assert_eq!(code, 200, "{answer}");
    Ok(answer)
}

async fn history(usher: &Usher, alert: &Value) -> Result<Value, Box<dyn std::error::Error>> {
    let id = alert["id"].as_str().ok_or("an alert has an id")?;
    usher.get(&format!("/api/v1/alerts/{id}")).await
}

fn whats(alert: &Value) -> Vec<&str> {
    let turns = alert["history"].as_array().map(Vec::as_slice).unwrap_or_default();
    turns.iter().filter_map(|turn| turn["what"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_lives_its_life_through_crashes() -> TestResult {
    let usher = Usher::start_in(SITE, RULES)?;
    let mut heard = Steps::of(&usher).await?;
    pass(&usher, "hall", 0, 12).await?;
    let pending = step(&mut heard, "busy", "hall", "pending").await?;
    pass(&usher, "hall", 6, 12).await?;
    let raised = step(&mut heard, "busy", "hall", "raised").await?;
    assert_eq!((&raised["id"], &raised["state"]), (&pending["id"], &json!("active")));
    assert_eq!(
        (&raised["step"]["number"], &raised["step"]["why"]),
        (&json!(2), &json!("clock"))
    );
    assert_eq!(raised["group"], "floor-1");
    let group = step(&mut heard, "busy.group", "floor-1", "raised").await?;
    assert_eq!(
        (&group["values"]["count"], &group["text"]),
        (&json!(1), &json!("First floor: Hall is busy"))
    );

    // What follows happens within two minutes by the clock on the wall, restarts and all, or time itself would clear it.
    order(&usher, &raised, "acknowledge", json!({"by": "Li"})).await?;
    let assigned = order(&usher, &raised, "assign", json!({"to": "Wang", "by": "Li"})).await?;
    assert_eq!(
        (&assigned["state"], &assigned["assignee"]),
        (&json!("acknowledged"), &json!("Wang"))
    );
    let told = step(&mut heard, "busy", "hall", "assigned").await?;
    assert_eq!(
        (&told["step"]["by"], &told["step"]["note"]),
        (&json!("Li"), &json!("Wang"))
    );
    let snoozed = order(&usher, &raised, "snooze", json!({"minutes": 60, "by": "Li"})).await?;
    assert_eq!(snoozed["snoozed"], true);
    drop(heard);

    let usher = usher.crash_and_start_again()?;
    let mut heard = Steps::of(&usher).await?;
    let known = history(&usher, &raised).await?;
    assert_eq!(
        whats(&known),
        ["pending", "raised", "acknowledged", "assigned", "snoozed"],
        "{known}"
    );
    assert_eq!((&known["assignee"], &known["snoozed"]), (&json!("Wang"), &json!(true)));
    let awake = order(&usher, &raised, "unsnooze", json!({"by": "Wang"})).await?;
    assert_eq!(awake["snoozed"], false);
    pass(&usher, "hall", 20, 3).await?;
    step(&mut heard, "busy", "hall", "recovering").await?;
    drop(heard);

    let usher = usher.crash_and_start_again()?;
    let mut heard = Steps::of(&usher).await?;
    pass(&usher, "hall", 25, 12).await?;
    let relapsed = step(&mut heard, "busy", "hall", "relapsed").await?;
    assert_eq!(
        (&relapsed["id"], &relapsed["state"]),
        (&raised["id"], &json!("acknowledged"))
    );

    // Another room, where nobody looks: it becomes graver, and so does what the floor says.
    pass(&usher, "cafe", 26, 12).await?;
    pass(&usher, "cafe", 32, 12).await?;
    let cafe = step(&mut heard, "busy", "cafe", "raised").await?;
    pass(&usher, "cafe", 100, 12).await?;
    let graver = step(&mut heard, "busy", "cafe", "escalated").await?;
    assert_eq!((&graver["severity"], &graver["id"]), (&json!("critical"), &cafe["id"]));
    pass(&usher, "cafe", 110, 12).await?;
    let is_graver =
        |group: &Value| group["items"][0]["severity"] == "critical" && group["items"][0]["values"]["count"] == 2;
    let listed = until("the floor", || usher.get("/api/v1/alerts?rule=busy.group"), is_graver).await?;
    assert_eq!(listed["items"][0]["id"], group["id"]);

    // A seat of the cafe falls silent, and what the cafe says is held back; the hall sends no data at all.
    usher
        .publish(
            "usher/in/main/cafe/seat/s",
            &json!({"id": "s", "ts": at(120), "state": "free"}).to_string(),
        )
        .await?;
    pass(&usher, "cafe", 900, 12).await?;
    let inhibited = step(&mut heard, "busy", "cafe", "suppressed").await?;
    assert_eq!(
        (
            &inhibited["suppressed"],
            &inhibited["suppressed_by"],
            &inhibited["step"]["why"]
        ),
        (&json!(true), &json!(["dumb"]), &json!("inhibition"))
    );
    let no_data = step(&mut heard, "busy.no_data", "hall", "raised").await?;
    assert_eq!(no_data["values"]["finding"], "no_data");
    let unknown = step(&mut heard, "busy", "hall", "suppressed").await?;
    assert_eq!(unknown["suppressed_by"], json!(["no_data"]));
    step(&mut heard, "busy.group", "floor-1", "cleared").await?;
    drop(heard);

    let usher = usher.crash_and_start_again()?;
    let mut heard = Steps::of(&usher).await?;
    let open = usher.get("/api/v1/alerts?state=open&rule=busy").await?;
    let ids: Vec<&Value> = open["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|alert| &alert["id"])
        .collect();
    for alert in [&raised, &cafe, &no_data] {
        assert!(ids.contains(&&alert["id"]), "{alert} is not among {open}");
    }
    assert!(open["items"][0].get("history").is_none(), "{open}");
    pass(&usher, "hall", 910, 3).await?;
    step(&mut heard, "busy", "hall", "recovering").await?;
    step(&mut heard, "busy.no_data", "hall", "cleared").await?;
    let again = step(&mut heard, "busy", "hall", "unsuppressed").await?;
    assert_eq!(
        (&again["suppressed"], &again["state"]),
        (&json!(false), &json!("recovering"))
    );
    pass(&usher, "hall", 1035, 3).await?;
    let cleared = step(&mut heard, "busy", "hall", "cleared").await?;
    assert_eq!(cleared["step"]["why"], "clock");
    let known = history(&usher, &raised).await?;
    assert_eq!(
        whats(&known),
        [
            "pending",
            "raised",
            "acknowledged",
            "assigned",
            "snoozed",
            "unsnoozed",
            "recovering",
            "relapsed",
            "suppressed",
            "recovering",
            "unsuppressed",
            "cleared"
        ],
        "{known}"
    );
    let numbers: Vec<Option<u64>> = known["history"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|turn| turn["number"].as_u64())
        .collect();
    assert_eq!(
        numbers,
        (1..=12).map(Some).collect::<Vec<_>>(),
        "no step is missing, none is twice"
    );
    Ok(())
}

/// After a restart Usher listens anew, and silence before that counts for nothing. What was told before is another matter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_time_alone_raised_is_there_after_a_crash() -> TestResult {
    let mute = "CREATE ALERT mute WITH (subject = 'device', silent = '2 seconds') AS
        SELECT site, zone, device, event_time FROM seat";
    let usher = Usher::start_in(SITE, mute)?;
    let mut heard = Steps::of(&usher).await?;
    usher
        .publish("usher/in/main/hall/seat/s", r#"{"id":"s","state":"free"}"#)
        .await?;
    let raised = step(&mut heard, "mute", "s", "raised").await?;
    // What is logged behind it is durable, and so it is as well.
    usher
        .publish("usher/in/main/hall/gate/g", r#"{"id":"g","in":1}"#)
        .await?;
    let usher = usher.crash_and_start_again()?;
    let known = history(&usher, &raised).await?;
    assert_eq!(whats(&known), ["raised"], "{known}");
    assert_eq!(
        (&known["state"], &known["raised_at"]),
        (&json!("active"), &raised["raised_at"])
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_hours_hold_back_and_staff_is_told_what_is_wrong() -> TestResult {
    let usher = Usher::start_in(SITE, RULES)?;
    let mut heard = Steps::of(&usher).await?;
    let leave = json!({"id": "out", "ts": at(0), "out": 12}).to_string();
    usher.publish("usher/in/main/hall/gate/g", &leave).await?;
    let raised = step(&mut heard, "at_night", "hall", "raised").await?;
    assert_eq!(
        (&raised["state"], &raised["suppressed_by"]),
        (&json!("active"), &json!(["quiet"]))
    );
    pass(&usher, "cafe", 3600, 1).await?;
    let told = step(&mut heard, "at_night", "hall", "unsuppressed").await?;
    assert_eq!(told["step"]["at"], "2026-03-02T02:00:00Z", "at ten o'clock");

    let id = raised["id"].as_str().ok_or("an alert has an id")?;
    for (deed, body, wrong) in [
        (
            "snooze",
            json!({"minutes": 0}),
            "0 minutes can't be snoozed; 1 to 10080 would be right",
        ),
        (
            "snooze",
            json!({"minutes": 5, "until": "2026-03-02T09:00:00Z"}),
            "'minutes' and 'until' stand together",
        ),
        ("snooze", json!({"until": "noon"}), "'noon' is no time"),
        (
            "snooze",
            json!({"until": "2026-03-02T09:00:00Z"}),
            "'2026-03-02T09:00:00Z' can't be waited for",
        ),
        ("assign", json!({"to": " "}), "'to' has 0 bytes"),
    ] {
        let (code, problem) = usher.post(&format!("/api/v1/alerts/{id}/{deed}"), body).await?;
        assert_eq!(code, 400, "{problem}");
        assert!(
            problem["detail"].as_str().is_some_and(|detail| detail.contains(wrong)),
            "{problem}"
        );
    }
    let until = (chrono::Utc::now() + chrono::TimeDelta::seconds(2)).to_rfc3339();
    let snoozed = order(&usher, &raised, "snooze", json!({"until": until})).await?;
    assert_eq!(snoozed["snoozed"], true);
    let awake = step(&mut heard, "at_night", "hall", "unsnoozed").await?;
    assert_eq!(awake["step"]["why"], "clock");

    let put = reqwest::Client::new()
        .put(format!("http://{}/api/v1/queries/more", usher.http))
        .json(&json!({"sql": "CREATE ALERT more WITH (subject = 'zone', inhibited_by = 'dum') AS SELECT site, zone FROM gate"}))
        .send()
        .await?;
    assert_eq!(put.status(), 422);
    let problem: Value = put.json().await?;
    let mistake = &problem["mistakes"][0];
    assert_eq!(
        (&mistake["column"], &mistake["wrong"], &mistake["right"]),
        (
            &json!(59),
            &json!("there is no alert 'dum'"),
            &json!("did you mean 'dumb'?")
        )
    );
    Ok(())
}

#[test]
fn usher_check_tells_what_is_wrong_with_an_alerts_options() -> TestResult {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("queries"))?;
    let check = |sql: &str| -> Result<(Option<i32>, String), Box<dyn std::error::Error>> {
        std::fs::write(folder.path().join("queries/mine.sql"), sql)?;
        let output = Command::new(program())
            .arg("check")
            .arg("--config")
            .arg(folder.path())
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
    };
    let (code, said) = check(RULES)?;
    assert_eq!(code, Some(0), "{said}");
    for (option, expected) in [
        ("quiet = '22 to 7'", "mine.sql:1:49: '22 to 7' is no quiet hours"),
        (
            "escalate = 'critical soon'",
            "mine.sql:1:52: 'critical soon' is no rise of the severity",
        ),
        (
            "inhibited_by = 'zone_crowde'",
            "mine.sql:1:56: there is no alert 'zone_crowde', did you mean 'zone_crowded'?",
        ),
        (
            "group = 'parent'",
            "mine.sql:1:61: the SELECT has no column 'zone', which group = 'parent' reads",
        ),
    ] {
        let (code, said) = check(&format!(
            "CREATE ALERT a WITH (subject = 'site', {option}) AS SELECT site FROM gate"
        ))?;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    Ok(())
}
