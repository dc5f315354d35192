//! Posts are what a webhook was told in a play: each step once by its id, signed, and in order for its subject.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use serde_json::Value;

use crate::crash::Failure;
use crate::crash::effects::identity;
use crate::crash::home::Api;
use crate::receiver::{Got, Receiver};

/// Steps that may be told again over one restart although their confirmation had been sent: those under way, 8 as a webhook
/// is configured, and those whose confirmation was not written down yet, which takes a few milliseconds, or more on a machine
/// that is busy.
const AGAIN_MAX: usize = 32;

/// What it was told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Posts {
    /// The steps of alerts in the order in which each came first.
    pub(crate) steps: Vec<String>,
    /// Steps and messages that came again after a confirmation that was lost, or that nobody had written down.
    pub(crate) repeats: u64,
}

impl Posts {
    /// Looks at all requests that came: who forged or changed one, sent one again without a reason, or told a person what is
    /// not so, has failed. A restart is the time from the end of a process until the next was ready.
    pub(crate) async fn of(receiver: &Receiver, restarts: &[Range<Instant>], api: &Api) -> Result<Self, Failure> {
        if let Some(forged) = receiver.forged().first() {
            return Err(format!("a request is not signed as it should be: {forged}").into());
        }
        let mut posts = Self::default();
        let mut messages = Vec::new();
        let mut first: BTreeMap<String, (String, Option<Instant>)> = BTreeMap::new();
        let mut again = vec![0; restarts.len()];
        for got in receiver.got() {
            let said = without_clocks(&got);
            let confirmed = got.is_confirmed().then_some(got.at);
            match first.get_mut(&got.id) {
                None => {
                    let (kind, data) = (got.body["type"].as_str().unwrap_or(""), &got.body["data"]);
                    match kind.split_once('.') {
                        Some(("alert", state)) if data["state"] == state => posts.steps.push(said.clone()),
                        Some(("message", state)) if data["state"] == state => messages.push(data.clone()),
                        _ => return Err(format!("a request tells neither an alert nor a message: {}", got.body).into()),
                    }
                    first.insert(got.id, (said, confirmed));
                }
                Some((earlier, _)) if *earlier != said => {
                    return Err(format!("two different steps came as {}: {earlier} and {said}", got.id).into());
                }
                Some((_, earlier)) => {
                    posts.repeats += 1;
                    if let Some(before) = earlier {
                        let over = restarts
                            .iter()
                            .position(|restart| *before < restart.end && restart.start < got.at);
                        let over = over.ok_or_else(|| {
                            format!(
                                "{} was confirmed and came again, and nothing had ended in between",
                                got.id
                            )
                        })?;
                        again[over] += 1;
                    }
                    *earlier = confirmed.or(*earlier);
                }
            }
        }
        if let Some(many) = again.iter().find(|many| **many > AGAIN_MAX) {
            return Err(format!("{many} steps were confirmed and came again over one restart").into());
        }
        let standing = api.list("messages").await?;
        let wrong = wrong_messages(&messages, &standing);
        match wrong.is_empty() {
            true => Ok(posts),
            false => Err(wrong.join("\n  ").into()),
        }
    }
}

/// What a request tells as it is told over MQTT, without what the clock of this machine says.
fn without_clocks(got: &Got) -> String {
    let mut told = got.body["data"].clone();
    if let Some(members) = told.as_object_mut() {
        members.insert("step_id".to_owned(), got.id.clone().into());
    }
    identity(&told)
}

/// Which messages to people were told twice, or otherwise than they stand, or not at all, a line each. One that is over by the
/// time that the webhook can be told is told to nobody, so that only those that may still be answered have to be there.
fn wrong_messages(told: &[Value], standing: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut by_id: BTreeMap<&str, &Value> = BTreeMap::new();
    for message in told {
        if by_id.insert(message["id"].as_str().unwrap_or(""), message).is_some() {
            wrong.push(format!("a message was told under two ids: {message}"));
        }
        let as_told = standing.iter().find(|one| one["id"] == message["id"]).map(|one| {
            let mut one = one.clone();
            one["state"] = "sent".into();
            one
        });
        if as_told.as_ref() != Some(message) {
            wrong.push(format!("a message was told that stands as {as_told:?}: {message}"));
        }
    }
    for message in standing.iter().filter(|message| message["state"] == "sent") {
        if !by_id.contains_key(message["id"].as_str().unwrap_or("")) {
            wrong.push(format!("a message was never told: {message}"));
        }
    }
    wrong
}
