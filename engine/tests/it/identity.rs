//! Names of one person, as devices and the reference table say, on the real binary, over crashes.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::usher::Usher;
use crate::{TestResult, until};

const DESK: &str = "usher/in/main/desk/rfid/pad-1";
const WEB: &str = "usher/in/main/web/click/opac";
const STAFF: &str = "usher/in/main/desk/identify/staff-1";

fn table(usher: &Usher) -> PathBuf {
    usher.data().with_file_name("config").join("identities.csv")
}

async fn person(usher: &Usher, name: &str) -> Result<Value, Box<dyn std::error::Error>> {
    usher.get(&format!("/api/v1/people/{name}")).await
}

/// Who is known by that pseudonym, once the log has been gone through.
async fn settled(usher: &Usher, name: &str, also: u64) -> Result<Value, Box<dyn std::error::Error>> {
    let is_it = |view: &Value| view["also"] == also && view["is_provisional"] == false;
    until("the past", || person(usher, name), is_it).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_become_one_person_and_two_again_over_crashes() -> TestResult {
    let usher = Usher::start()?;
    for (topic, payload) in [
        (
            DESK,
            r#"{"id":"1","ts":"2026-03-02T09:00:00+08:00","tag":"T1","person":"card-1"}"#,
        ),
        (
            WEB,
            r#"{"id":"2","ts":"2026-03-03T09:00:00+08:00","action":"search","person":"web-1"}"#,
        ),
        (
            DESK,
            r#"{"id":"3","ts":"2026-03-04T09:00:00+08:00","tag":"T1","person":"card-1"}"#,
        ),
        (
            WEB,
            r#"{"id":"4","ts":"2026-03-05T09:00:00+08:00","action":"search","person":"web-1"}"#,
        ),
        (
            DESK,
            r#"{"id":"5","ts":"2026-03-06T09:00:00+08:00","tag":"T1","person":"tag-1"}"#,
        ),
    ] {
        usher.publish(topic, payload).await?;
    }
    let known = || usher.query("SELECT person FROM people ORDER BY first_seen");
    let people = until("three persons", known, |people| people.len() == 3).await?;
    let names: Vec<String> = (0..3)
        .map(|row| people[row]["person"].as_str().unwrap_or_default().to_owned())
        .collect();
    let (card, web, tag) = (&names[0], &names[1], &names[2]);

    // A device says that two are one: the days of both, and the gaps between them.
    usher
        .publish(STAFF, r#"{"id":"l1","person":"card-1","also":"web-1"}"#)
        .await?;
    let view = settled(&usher, web, 1).await?;
    assert_eq!(
        (&view["person"], &view["frequency"]),
        (&Value::from(card.as_str()), &Value::from(4)),
        "{view}"
    );
    assert_eq!(view["regularity"]["gaps"], 3, "{view}");
    let clicks = usher
        .query("SELECT count(*) AS n, count(DISTINCT person) AS persons FROM click")
        .await?;
    assert_eq!(
        (&clicks[0]["n"], &clicks[0]["persons"]),
        (&Value::from(2), &Value::from(1))
    );

    // The table says that a third is, too, and the log remembers both.
    std::fs::write(table(&usher), "person,also\ncard-1,tag-1\n")?;
    std::fs::write(
        table(&usher).with_file_name("groups.csv"),
        "person,group\ncard-1,HIS-101\ntag-1,HIS-101\nweb-1,ART-2\n",
    )?;
    let usher = usher.crash_and_start_again()?;
    let memberships = "SELECT person, group_id FROM memberships ORDER BY group_id";
    let view = settled(&usher, tag, 2).await?;
    assert_eq!(
        Value::from(usher.query(memberships).await?),
        json!([{"person": card, "group_id": "ART-2"}, {"person": card, "group_id": "HIS-101"}]),
        "a person is in the groups of all names"
    );
    assert_eq!(
        (&view["person"], &view["frequency"]),
        (&Value::from(card.as_str()), &Value::from(5)),
        "{view}"
    );
    // What is taken back was never there.
    usher
        .publish(
            STAFF,
            r#"{"id":"l2","person":"card-1","also":"web-1","action":"unlink"}"#,
        )
        .await?;
    let view = settled(&usher, web, 0).await?;
    assert_eq!(
        (&view["person"], &view["frequency"]),
        (&Value::from(web.as_str()), &Value::from(2)),
        "{view}"
    );
    assert_eq!(
        Value::from(usher.query(memberships).await?),
        json!([{"person": web, "group_id": "ART-2"}, {"person": card, "group_id": "HIS-101"}])
    );
    std::fs::remove_file(table(&usher))?;
    let usher = usher.crash_and_start_again()?;
    let frequency = |name: &str, also: u64| {
        let (usher, name) = (&usher, name.to_owned());
        async move { Ok::<_, Box<dyn std::error::Error>>(settled(usher, &name, also).await?["frequency"].clone()) }
    };
    assert_eq!(frequency(card, 0).await?, 2);
    assert_eq!(frequency(tag, 0).await?, 1);
    assert_eq!(frequency(web, 0).await?, 2);
    Ok(())
}

#[test]
fn a_mistake_in_the_table_is_told_with_its_place() -> TestResult {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("identities.csv"), "person,also\nada,\n")?;
    std::fs::write(folder.path().join("groups.csv"), "person,course\nada,HIS-101\n")?;
    let checked = std::process::Command::new(crate::usher::program())
        .args(["check", "--config"])
        .arg(folder.path())
        .output()?;
    assert_eq!(checked.status.code(), Some(2));
    let told = String::from_utf8(checked.stdout)? + &String::from_utf8(checked.stderr)?;
    assert!(told.contains("identities.csv:2:5: `also` is empty"), "{told}");
    assert!(told.contains("groups.csv:1:8: there is no such column"), "{told}");
    Ok(())
}
