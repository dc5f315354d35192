//! The state is what a running engine knows, as its API tells it: comparable between two runs over the same events.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::crash::Failure;
use crate::crash::effects::identity;
use crate::crash::home::Api;

/// The queries whose rows are looked at: all shipped ones that are no alerts.
pub(crate) const QUERIES: [&str; 10] = [
    "occupancy",
    "zone_flow",
    "seat_state",
    "seat_turnover",
    "search_trouble",
    "visits",
    "channel_activity",
    "click_totals",
    "reader_totals",
    "item_custody",
];

/// What is known, by what was asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State(BTreeMap<String, Vec<String>>);

impl State {
    /// Asks for zones, seats, alerts, devices, people, what was refused, and the rows of these queries.
    pub(crate) async fn of(api: &Api, queries: &[&str]) -> Result<Self, Failure> {
        let mut state = BTreeMap::new();
        for list in ["zones", "seats", "alerts", "devices", "refused"] {
            let answer = api.get(&format!("/api/v1/{list}?limit=1000")).await?;
            let items = answer["items"].as_array().ok_or("a list has items")?;
            let mut items: Vec<String> = items.iter().map(|item| without_clocks(list, item)).collect();
            items.sort_unstable();
            if list == "refused" {
                // What can't be read has no id, so that it is kept again when it comes again.
                items.dedup();
            }
            state.insert(list.to_owned(), items);
        }
        for table in queries.iter().chain(&["people"]) {
            let rows = api.query(&format!("SELECT * FROM {table}")).await?;
            let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
            rows.sort_unstable();
            state.insert((*table).to_owned(), rows);
        }
        Ok(Self(state))
    }

    /// Where this differs from what it should be, a line each; only what both were asked for is compared.
    pub(crate) fn differences(&self, expected: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (what, found) in &self.0 {
            let Some(wanted) = expected.0.get(what) else { continue };
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
        let zones = self.0.get("zones").into_iter().flatten();
        let zones = zones.filter_map(|zone| serde_json::from_str::<Value>(zone).ok());
        zones
            .filter_map(|zone| Some((zone["zone"].as_str()?.to_owned(), zone["persons"].as_i64()?)))
            .collect()
    }

    /// What should be retained at the broker of alerts: topic and state.
    pub(crate) fn retained(&self) -> BTreeMap<String, String> {
        let alerts = self.0.get("alerts").into_iter().flatten();
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
