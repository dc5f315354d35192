//! `[[webhook]]`: who is told by HTTP, of what, and how patiently.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use usher_connectors::webhook::WebhookUrl;
use usher_connectors::webhook::signature::Secret;

use super::layers::{DAY, Raw, Refusal, SECOND};
use super::values::{count, duration};
use crate::alert::State;
use crate::position::{Fields, Mistakes, instead, kind};

/// The heading.
pub(super) const WEBHOOK: &str = "webhook";

const MEMBERS: [&str; 10] = [
    "name",
    "url",
    "secret",
    "secret_file",
    "secret_variable",
    "rules",
    "events",
    "timeout",
    "max_in_flight",
    "give_up_after",
];
const SECRETS: [&str; 3] = ["secret", "secret_file", "secret_variable"];
const STATES: [State; 5] = [
    State::Pending,
    State::Active,
    State::Acknowledged,
    State::Recovering,
    State::Cleared,
];
/// The longest name; it is part of paths and of metrics.
const NAME_MAX: usize = 64;

/// A receiver that is told by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// Where it is.
    pub url: WebhookUrl,
    /// What requests are signed with.
    pub secret: WebhookSecret,
    /// Only of these rules; `None` is all.
    pub rules: Option<BTreeSet<String>>,
    /// Only steps that lead to these states; `None` is all.
    pub events: Option<Vec<State>>,
    /// For one request with its answer.
    pub timeout: Duration,
    /// Requests under way at a time.
    pub max_in_flight: usize,
    /// A step that fails for so long while others are taken becomes a dead letter.
    pub give_up_after: Duration,
}

/// Where the secret of a webhook is. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum WebhookSecret {
    /// It was read, and is right.
    Read(String),
    /// An environment variable has it.
    Variable(String),
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(_) => out.write_str("Read(…)"),
            Self::Variable(name) => write!(out, "Variable({name})"),
        }
    }
}

/// Reads all webhooks of one layer, and says every mistake where it stands.
pub(super) fn read_webhooks(span: &Range<usize>, raw: &Raw<'_>, mistakes: &mut Mistakes<'_>) -> Vec<WebhookSettings> {
    let right = "a heading [[webhook]] in usher.toml for each would be right";
    let Raw::Toml(DeValue::Array(list)) = raw else {
        let wrong = match raw {
            Raw::Toml(other) => format!("`webhook` is {}", kind(other)),
            Raw::Text(_) => "webhooks can't be said in a variable".to_owned(),
        };
        mistakes.add(span.clone(), wrong, right);
        return Vec::new();
    };
    let mut webhooks: Vec<WebhookSettings> = Vec::new();
    for item in list {
        let Some(table) = item.get_ref().as_table() else {
            mistakes.add(item.span(), format!("a webhook is {}", kind(item.get_ref())), right);
            continue;
        };
        let Some((webhook, name_at)) = read_webhook(table, item.span(), mistakes) else {
            continue;
        };
        if webhooks.iter().any(|other| other.name == webhook.name) {
            let wrong = format!("there are two webhooks `{}`", webhook.name);
            mistakes.add(name_at, wrong, "a name for each would be right");
            continue;
        }
        webhooks.push(webhook);
    }
    webhooks
}

fn read_webhook(
    table: &DeTable<'_>,
    span: Range<usize>,
    mistakes: &mut Mistakes<'_>,
) -> Option<(WebhookSettings, Range<usize>)> {
    let fields = Fields::of("[[webhook]]", table, span.clone(), &MEMBERS, mistakes);
    let name = fields.needed("name", "on-call", mistakes);
    let name = name.filter(|name| is_right_name(name, mistakes));
    let url = fields.needed("url", "https://hooks.example/usher", mistakes);
    let url = url.and_then(|url| match url.get_ref().parse::<WebhookUrl>() {
        Ok(url) => Some(url),
        Err(error) => {
            let right = "an address such as \"https://hooks.example/usher\" would be right";
            mistakes.add(url.span(), format!("this is no address of a receiver: {error}"), right);
            None
        }
    });
    let secret = read_secret(&fields, span, mistakes);
    let rules = names(&fields, "rules", mistakes).map(|rules| rules.into_iter().map(Spanned::into_inner).collect());
    let events = names(&fields, "events", mistakes).map(|events| {
        let state = |event: Spanned<String>| {
            let found = STATES.into_iter().find(|state| state.as_str() == event.get_ref());
            if found.is_none() {
                let wrong = format!("`{}` is no state of an alert", event.get_ref());
                mistakes.add(event.span(), wrong, instead(event.get_ref(), STATES.map(State::as_str)));
            }
            found
        };
        events.into_iter().filter_map(state).collect()
    });
    let timeout = or(
        &fields,
        "timeout",
        duration(SECOND / 10..=300 * SECOND),
        10 * SECOND,
        mistakes,
    );
    let max_in_flight = or(&fields, "max_in_flight", count(1..=256), 8, mistakes);
    let give_up_after = or(
        &fields,
        "give_up_after",
        duration(SECOND..=365 * DAY),
        DAY / 24,
        mistakes,
    );
    let name = name?;
    let settings = WebhookSettings {
        name: (*name.get_ref()).to_owned(),
        url: url?,
        secret: secret?,
        rules,
        events,
        timeout,
        max_in_flight,
        give_up_after,
    };
    Some((settings, name.span()))
}

fn is_right_name(name: &Spanned<&str>, mistakes: &mut Mistakes<'_>) -> bool {
    let text = *name.get_ref();
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let wrong = if text == crate::outbox::MQTT {
        format!("`{text}` is the broker")
    } else if text == crate::outbox::FLUVIO {
        format!("`{text}` is the topic of alerts")
    } else if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(is_letter) {
        format!("`{text}` can't be a name")
    } else {
        return true;
    };
    let right = format!("another name of letters, digits, - and _, at most {NAME_MAX}, would be right");
    mistakes.add(name.span(), wrong, right);
    false
}

/// The secret, from one of the places where it can be.
fn read_secret(fields: &Fields<'_, '_>, span: Range<usize>, mistakes: &mut Mistakes<'_>) -> Option<WebhookSecret> {
    let said: Vec<&str> = SECRETS.into_iter().filter(|key| fields.value(key).is_some()).collect();
    let [key] = said.as_slice() else {
        let wrong = match said.as_slice() {
            [] => "this [[webhook]] has no secret, so that nobody could tell its requests from forged ones".to_owned(),
            more => format!("this [[webhook]] has `{}`", more.join("` and `")),
        };
        let right = "one of `secret`, `secret_file` and `secret_variable` would be right";
        mistakes.add(span, wrong, right);
        return None;
    };
    let value = fields.text(key, mistakes)?;
    let text = match *key {
        "secret_variable" => return Some(WebhookSecret::Variable((*value.get_ref()).to_owned())),
        "secret_file" => {
            // From the folder in which the file stands that names it.
            let folder = mistakes.file().parent().unwrap_or(Path::new("")).to_owned();
            let path = folder.join(value.get_ref());
            match std::fs::read_to_string(&path) {
                Ok(text) => text.trim().to_owned(),
                Err(error) => {
                    let wrong = format!("the secret in {} can't be read: {error}", path.display());
                    mistakes.add(value.span(), wrong, "a file this user may read would be right");
                    return None;
                }
            }
        }
        _ => (*value.get_ref()).to_owned(),
    };
    match Secret::read(&text) {
        Ok(_) => Some(WebhookSecret::Read(text)),
        Err(error) => {
            mistakes.add(value.span(), "this secret can't be used", error);
            None
        }
    }
}

/// A list of texts; `None` when it is left out.
fn names(fields: &Fields<'_, '_>, key: &str, mistakes: &mut Mistakes<'_>) -> Option<Vec<Spanned<String>>> {
    let value = fields.value(key)?;
    let right = "a list of names in quotes, such as [\"zone_crowded\"], would be right";
    let DeValue::Array(list) = value.get_ref() else {
        mistakes.add(value.span(), format!("`{key}` is {}", kind(value.get_ref())), right);
        return None;
    };
    let mut found = Vec::new();
    for item in list {
        match item.get_ref().as_str() {
            Some(text) => found.push(Spanned::new(item.span(), text.to_owned())),
            None => mistakes.add(item.span(), format!("{} is no name", kind(item.get_ref())), right),
        }
    }
    if found.is_empty() && list.is_empty() {
        mistakes.add(
            value.span(),
            format!("`{key}` names nothing, so that nothing would be told"),
            right,
        );
    }
    Some(found)
}

/// A value, or what it is when it is left out.
fn or<T>(
    fields: &Fields<'_, '_>,
    key: &str,
    parse: impl Fn(&Raw<'_>) -> Result<T, Refusal>,
    usual: T,
    mistakes: &mut Mistakes<'_>,
) -> T {
    let Some(value) = fields.value(key) else { return usual };
    match parse(&Raw::Toml(value.get_ref().clone())) {
        Ok(value) => value,
        Err((wrong, right)) => {
            mistakes.add(value.span(), wrong, right);
            usual
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Flags, Settings};

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn load(text: &str) -> Result<Vec<WebhookSettings>, Vec<String>> {
        let dir = tempfile::tempdir().expect("a folder can be made");
        std::fs::write(dir.path().join("usher.toml"), text).expect("a file can be written");
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n";
        std::fs::write(dir.path().join("hook.secret"), secret).expect("a file can be written");
        let settings = Settings::load_with(Some(dir.path()), [], &Flags::default());
        let said = |mistakes: Vec<crate::position::Mistake>| {
            let folder = format!("{}/", dir.path().display());
            let words = mistakes.iter().map(|mistake| mistake.to_string().replace(&folder, ""));
            words.collect()
        };
        settings.map(|settings| settings.webhooks).map_err(said)
    }

    #[test]
    fn webhooks_are_read_with_what_is_usual_where_nothing_is_said() -> Outcome {
        let text = "
            [[webhook]]
            name = 'a'
            url = 'https://hooks.example/usher'
            secret_file = 'hook.secret'
            [[webhook]]
            name = 'b-2'
            url = 'http://me:it@127.0.0.1:9/'
            secret_variable = 'HOOK_SECRET'
            rules = ['zone_crowded', 'seat_left']
            events = ['active', 'cleared']
            timeout = '2s'
            max_in_flight = 1
            give_up_after = '1d'
        ";
        let webhooks = load(text).map_err(|said| said.join("\n"))?;
        let [usual, own] = webhooks.as_slice() else {
            return Err(format!("{webhooks:?}").into());
        };
        assert_eq!(
            usual.secret,
            WebhookSecret::Read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned())
        );
        assert_eq!((&usual.rules, &usual.events), (&None, &None));
        assert_eq!(
            (usual.timeout, usual.max_in_flight, usual.give_up_after),
            (10 * SECOND, 8, DAY / 24)
        );
        assert_eq!(own.secret, WebhookSecret::Variable("HOOK_SECRET".to_owned()));
        assert_eq!(own.rules.as_ref().map(BTreeSet::len), Some(2));
        assert_eq!(own.events, Some(vec![State::Active, State::Cleared]));
        assert_eq!(
            (own.timeout, own.max_in_flight, own.give_up_after),
            (2 * SECOND, 1, DAY)
        );
        let shown = format!("{webhooks:?}");
        assert!(!shown.contains("MfKQ") && !shown.contains("me:it"), "{shown}");
        assert_eq!(load("").map_err(|said| said.join("\n"))?, []);
        Ok(())
    }

    #[test]
    fn what_is_wrong_or_missing_is_said() {
        let said = |text: &str| load(text).expect_err("the text has mistakes").join("\n");
        let none = said("[[webhook]]\nname = 'a'\nurl = 'http://x/'\n");
        assert!(
            none.starts_with("usher.toml:1:1: this [[webhook]] has no secret"),
            "{none}"
        );
        let two = said("[[webhook]]\nname = 'a'\nurl = 'http://x/'\nsecret = 'x'\nsecret_file = 'y'\n");
        assert!(two.contains("has `secret` and `secret_file`"), "{two}");
        let gone = said("[[webhook]]\nname = 'a'\nurl = 'http://x/'\nsecret_file = 'none'\n");
        assert!(
            gone.starts_with("usher.toml:4:15: the secret in none can't be read"),
            "{gone}"
        );
        let one = "[[webhook]]\nname = 'a'\nurl = 'http://x/'\nsecret_file = 'hook.secret'\n";
        let twice = said(&format!("{one}{one}"));
        assert_eq!(
            twice,
            "usher.toml:6:8: there are two webhooks `a`, a name for each would be right"
        );
        let broker = said(&one.replace("'a'", "'mqtt'"));
        assert!(broker.starts_with("usher.toml:2:8: `mqtt` is the broker"), "{broker}");
        let nothing = said(&format!("{one}events = []\n"));
        assert!(nothing.contains("`events` names nothing"), "{nothing}");
        let single = said("[webhook]\nname = 'a'\n");
        assert!(
            single.contains("`webhook` is a table, a heading [[webhook]]"),
            "{single}"
        );
    }
}
