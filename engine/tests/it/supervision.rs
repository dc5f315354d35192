//! What fails stops nothing else, is told in words, and comes back by itself.

use serde_json::Value;

use crate::listener::Listener;
use crate::usher::{Usher, program};
use crate::{TestResult, until};

const GATE: &str = "usher/in/main/reading-room/gate/door-1";

fn passage(second: usize, entered: u32) -> String {
    format!(r#"{{"ts":"2026-03-02T10:00:{second:02}+08:00","in":{entered},"out":1}}"#)
}

fn part<'a>(status: &'a Value, name: &str) -> &'a Value {
    let parts = status["parts"].as_array().into_iter().flatten();
    parts
        .into_iter()
        .find(|part| part["part"] == name)
        .unwrap_or(&Value::Null)
}

async fn shares(usher: &Usher) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    usher.query("SELECT shares, share FROM shares").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_fails_stops_no_other_and_begins_anew() -> TestResult {
    let usher = Usher::start_with_queries(
        "CREATE ALERT passed WITH (subject = 'zone', raise = 'entered > 0', clear = 'entered = 0') AS
         SELECT site, zone, entered FROM gate;
         CREATE QUERY shares WITH (emit = 'update') AS
         SELECT zone, count(*) AS shares, sum(100 / entered) AS share FROM gate GROUP BY zone;",
    )?;
    let mut alerts = Listener::subscribe(&usher.mqtt, "usher/out/main/alert-event/passed").await?;
    usher.publish(GATE, &passage(1, 2)).await?;
    alerts
        .next("the alert", |heard| heard.json()["state"] == "active")
        .await?;
    // Nobody comes in, and there is no share of nobody.
    usher.publish(GATE, &passage(2, 0)).await?;
    alerts
        .next("its end", |heard| heard.json()["state"] == "cleared")
        .await?;
    let stopped = until(
        "the failure",
        || usher.get("/api/v1/status"),
        |status| part(status, "query shares")["failures"] == 1,
    )
    .await?;
    assert_eq!(part(&stopped, "query shares")["state"], "waiting");
    assert_eq!(stopped["status"], "degraded");
    assert_eq!(stopped["broken_queries"][0]["query"], "shares");
    let detail = part(&stopped, "query shares")["detail"].to_string();
    assert!(detail.contains("Divide by zero"), "{detail}");
    until(
        "a new beginning",
        || usher.get("/api/v1/status"),
        |status| part(status, "query shares")["state"] == "running",
    )
    .await?;
    usher.publish(GATE, &passage(3, 4)).await?;
    alerts
        .next("the alert", |heard| heard.json()["state"] == "active")
        .await?;
    let anew = serde_json::json!([{"shares": 1, "share": 25}]);
    assert_eq!(Value::from(shares(&usher).await?), anew, "it has begun anew");
    let going = usher.get("/api/v1/status").await?;
    assert_eq!(
        (&going["status"], &going["broken_queries"]),
        (&"ok".into(), &Value::Array(Vec::new()))
    );
    let screen = std::process::Command::new(program())
        .args(["status", "--http", &usher.http])
        .output()?;
    let screen = String::from_utf8(screen.stdout)?;
    assert!(
        screen.contains("query shares, failed 1 times, running since"),
        "{screen}"
    );
    assert!(
        usher
            .get_text("/metrics")
            .await?
            .contains(r#"usher_part_failures_total{part="query shares"} 1"#)
    );
    // A replay of the log fails at the same event, and begins anew at the same place.
    let usher = usher.crash_and_start_again()?;
    assert_eq!(Value::from(shares(&usher).await?), anew);
    Ok(())
}
