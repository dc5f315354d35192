//! Who looks people up is recorded before anything is shown, and told over a crash.

use serde_json::{Value, json};

use crate::TestResult;
use crate::usher::Usher;

const WEB: &str = "usher/in/main/web/click/opac";

/// Who looked, at what and why, newest first.
fn told(page: &Value) -> Vec<Value> {
    let items = page["items"].as_array().cloned().unwrap_or_default();
    let told = items
        .iter()
        .map(|look| json!([look["by"], look["what"], look["reason"], look["persons"]]));
    told.collect()
}

async fn get_as(usher: &Usher, path: &str, by: &str, reason: &str) -> Result<Value, Box<dyn std::error::Error>> {
    let request = reqwest::Client::new()
        .get(format!("http://{}{path}", usher.http))
        .header("Usher-Staff", by)
        .header("Usher-Reason", reason);
    Ok(request.send().await?.json().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_looks_a_person_up_is_recorded_and_told_over_a_crash() -> TestResult {
    let usher = Usher::start()?;
    for person in ["card-1", "card-2"] {
        let search =
            format!(r#"{{"ts":"2026-03-02T09:00:00Z","person":"{person}","action":"search","query":"x","results":1}}"#);
        usher.publish(WEB, &search).await?;
    }
    let people = usher.query("SELECT person FROM people ORDER BY person").await?;
    let person = people[0]["person"].as_str().ok_or("no pseudonym")?.to_owned();
    let path = format!("/api/v1/people/{person}");
    let lookups = format!("{path}/lookups");
    get_as(&usher, &path, "李", "a lost card").await?;
    usher.get(&format!("{path}/points?by=desk")).await?;
    usher.get(&format!("{path}/messages")).await?;
    let expected = vec![
        json!(["desk", "points", null, 1]),
        json!(["李", "person", "a lost card", 1]),
        json!(["unknown", "query", null, 2]),
    ];
    let first = get_as(&usher, &lookups, "Wang", "audit").await?;
    assert_eq!(told(&first), expected, "of no messages nothing was shown");
    // Whoever reads this is in it, behind what was read.
    let mut expected = [vec![json!(["Wang", "lookups", "audit", 1])], expected].concat();
    let usher = usher.crash_and_start_again()?;
    assert_eq!(
        told(&usher.get(&lookups).await?),
        expected,
        "what was shown was on disk before"
    );
    expected.insert(0, json!(["unknown", "lookups", null, 1]));
    let (mut found, mut after) = (Vec::new(), String::new());
    for _ in 0..expected.len() {
        let page = usher.get(&format!("{lookups}?limit=1{after}")).await?;
        found.extend(told(&page));
        after = format!("&after={}", page["next"].as_str().unwrap_or_default());
    }
    assert_eq!(found, expected, "page by page, whatever comes meanwhile");
    let nobody = usher.get("/api/v1/people/p_nobody/lookups").await?;
    assert_eq!(nobody["status"], 404, "{nobody}");
    // Who opts out is not known any more, and neither is who looked.
    let out = r#"{"ts":"2026-03-02T10:00:00Z","message":"m","response":"opted_out","person":"#;
    for card in ["card-1", "card-2"] {
        usher
            .publish("usher/in/main/web/reply/app", &format!("{out}\"{card}\"}}"))
            .await?;
    }
    let gone = usher.get(&lookups).await?;
    assert_eq!(gone["status"], 404, "{gone}");
    Ok(())
}
