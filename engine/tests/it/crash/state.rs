//! The state is what a running engine knows, as its API tells it: comparable between two runs over the same events.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::crash::Failure;
use crate::crash::effects::identity;
use crate::crash::home::Api;

/// Queries to be asked for their rows.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    /// All that are running, keep rows and are no alerts, as the engine lists them.
    All,
    /// These.
    These(Vec<String>),
}

/// What is known, by what was asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    known: BTreeMap<String, Vec<String>>,
    queries: Vec<String>,
}

impl State {
    /// Asks for zones, seats, alerts, messages, devices, people, what was refused, and the rows of queries. None has to be left
    /// out: all of them go by the time of events, and by no clock of ours.
    pub(crate) async fn of(api: &Api, asked: &Asked) -> Result<Self, Failure> {
        let mut known = BTreeMap::new();
        for list in ["zones", "seats", "alerts", "messages", "devices", "refused"] {
            let items = api.list(list).await?;
            let mut items: Vec<String> = items.iter().map(|item| without_clocks(list, item)).collect();
            items.sort_unstable();
            if list == "refused" {
                // What can't be read has no id, so that it is kept again when it comes again.
                items.dedup();
            }
            known.insert(list.to_owned(), items);
        }
        let mut queries = Vec::new();
        let running = running(api).await?;
        let wanted = match asked {
            Asked::All => &running,
            Asked::These(names) => names,
        };
        for query in wanted.iter().map(String::as_str).chain(["people"]) {
            match (api.rows_of(query).await?, asked) {
                (Some(rows), _) => {
                    let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
                    rows.sort_unstable();
                    known.insert(query.to_owned(), rows);
                    queries.push(query.to_owned());
                }
                (None, Asked::All) => {}
                (None, Asked::These(_)) => return Err(format!("{query} keeps no rows any more").into()),
            }
        }
        queries.retain(|query| query != "people");
        Ok(Self { known, queries })
    }

    /// The queries that it has the rows of, in the engine's order.
    pub(crate) fn queries(&self) -> &[String] {
        &self.queries
    }

    /// How many rows of a query it has.
    pub(crate) fn rows_of(&self, query: &str) -> usize {
        self.known.get(query).map_or(0, Vec::len)
    }

    /// Where this differs from what it should be, a line each; only what both were asked for is compared.
    pub(crate) fn differences(&self, expected: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (what, found) in &self.known {
            let Some(wanted) = expected.known.get(what) else {
                continue;
            };
            let only = |a: &[String], b: &[String]| -> Vec<String> {
                a.iter().filter(|row| !b.contains(row)).cloned().collect()
            };
            differences.extend(only(wanted, found).iter().map(|row| format!("{what} lacks    {row}")));
            differences.extend(only(found, wanted).iter().map(|row| format!("{what} has also {row}")));
        }
        differences
    }

    /// The persons in each zone.
    pub(crate) fn persons(&self) -> BTreeMap<String, i64> {
        let zones = self.known.get("zones").into_iter().flatten();
        let zones = zones.filter_map(|zone| serde_json::from_str::<Value>(zone).ok());
        zones
            .filter_map(|zone| Some((zone["zone"].as_str()?.to_owned(), zone["persons"].as_i64()?)))
            .collect()
    }

    /// What should be retained at the broker of alerts: topic and state.
    pub(crate) fn retained(&self) -> BTreeMap<String, String> {
        let alerts = self.known.get("alerts").into_iter().flatten();
        let alerts = alerts.filter_map(|alert| serde_json::from_str::<Value>(alert).ok());
        alerts
            .filter(|alert| !matches!(alert["state"].as_str(), Some("pending" | "cleared") | None))
            .filter_map(|alert| {
                let (site, rule) = (alert["site"].as_str()?, alert["rule"].as_str()?);
                let topic = format!("usher/out/{site}/alert/{rule}/{}", alert["subject"]["id"].as_str()?);
                Some((topic, alert["state"].as_str()?.to_owned()))
            })
            .collect()
    }
}

/// An item without what the clock of this machine says.
fn without_clocks(list: &str, item: &Value) -> String {
    match list {
        "alerts" => identity(item),
        "devices" => json!([
            item["zone"],
            item["kind"],
            item["device"],
            item["events"],
            item["last_event"]
        ])
        .to_string(),
        "refused" => json!([item["topic"], item["reason"]]).to_string(),
        _ => item.to_string(),
    }
}

/// The queries that are running and are no alerts. One that has stopped has failed.
async fn running(api: &Api) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for query in api.list("queries").await? {
        if !query["broken"].is_null() {
            return Err(format!("a query has stopped: {query}").into());
        }
        if query["kind"] == "query" {
            names.push(query["name"].as_str().ok_or("a query has a name")?.to_owned());
        }
    }
    Ok(names)
}
