//! Measures as the API tells them, over a crash, and none of too few people.

use serde_json::json;

use crate::usher::Usher;
use crate::{TestResult, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measures_are_told_of_enough_people_and_kept_over_a_crash() -> TestResult {
    let usher = Usher::start()?;
    let search = |person: usize, day: usize, results: usize| {
        format!(
            r#"{{"ts":"2026-03-0{day}T09:00:0{person}Z","person":"card-{person}","action":"search","query":"x","results":{results}}}"#
        )
    };
    let web = "usher/in/main/web/click/opac";
    for person in 0..6 {
        usher.publish(web, &search(person, 2, person % 2)).await?;
    }
    usher.publish(web, &search(1, 3, 0)).await?;
    let measures = usher.get("/api/v1/measures").await?;
    let items = measures["items"].as_array().ok_or("no list")?;
    let searches = items
        .iter()
        .find(|measure| measure["name"] == "searches")
        .ok_or("not listed")?;
    assert!(searches["comment"].to_string().contains("Unmet demand"), "{searches}");
    let path = "/api/v1/measures/searches";
    let told = until(
        "two days",
        || usher.get(path),
        |told| {
            told["items"]
                .as_array()
                .is_some_and(|items| items.len() == 2 && items[1]["searches"] == 6)
        },
    )
    .await?;
    let [few, enough] = [&told["items"][0], &told["items"][1]];
    assert_eq!(
        (&few["few"], &few["searches"], &few["persons"]),
        (&json!(true), &json!(null), &json!(null))
    );
    assert_eq!(
        (
            &enough["few"],
            &enough["without_result"],
            &enough["percent_without_result"],
            &enough["persons"]
        ),
        (&json!(false), &json!(3), &json!(50), &json!(6))
    );
    // Beside the list, rows of all measures: those of this place in windows that begin then.
    let rows = usher
        .get("/api/v1/measures?site=main&zone=web&window_from=2026-03-02&window_to=2026-03-03")
        .await?;
    let rows = rows["items"].as_array().ok_or("no rows")?.clone();
    let searches: Vec<_> = rows.iter().filter(|row| row["measure"] == "searches").collect();
    assert_eq!((searches.len(), &searches[0]["searches"]), (1, &json!(6)), "{rows:?}");
    let paged = usher.get("/api/v1/measures?measure=searches&limit=1").await?;
    assert_eq!(paged["items"][0]["window_start"], "2026-03-03T00:00:00Z");
    let after = paged["next"].as_str().ok_or("there is another page")?;
    let path_behind = format!(
        "/api/v1/measures?measure=searches&limit=1&after={}",
        after.replace(' ', "%20")
    );
    let behind = usher.get(&path_behind).await?;
    assert_eq!(
        (&behind["items"][0]["searches"], &behind["next"]),
        (&json!(6), &json!(null))
    );
    let none = usher.get("/api/v1/measures/searches?zone=attic").await?;
    assert_eq!(none["items"], json!([]));
    let wrong = usher.get("/api/v1/measures?window_from=soon").await?;
    assert!(wrong["detail"].to_string().contains("window_from"), "{wrong}");
    let usher = usher.crash_and_start_again()?;
    assert_eq!(usher.get(path).await?, told);
    let unknown = usher.get("/api/v1/measures/serches").await?;
    assert!(unknown["detail"].to_string().contains("serches"), "{unknown}");
    Ok(())
}
