//! An act is what an event means for the person who did it: by which way, how much it weighs, which services it used.

use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use crate::event::{Event, Kind, Reading, Response, RfidAction, Source};
use crate::site::Places;

/// The ways by which a person can be in touch, a bit each.
pub(super) const CHANNELS: [&str; 3] = ["rfid", "web", "reply"];
/// What a person can use, a bit each: being there, what is done with items, what is done on the web, and answers.
pub(super) const SERVICES: [&str; 12] = [
    "stay", "loan", "return", "search", "view", "request", "reserve", "help", "login", "other", "reply", "rating",
];
/// Those of them by which a person takes part, as `taking_part` of `measure_participation` has them where nobody set it.
const TAKING_PART: [&str; 5] = ["request", "reserve", "help", "reply", "rating"];
/// Where the services of the web stand among them: what a click can be of.
const OF_THE_WEB: std::ops::Range<usize> = 3..10;
/// What stands in `site.toml` as the role of a device or zone through which people leave.
const EXIT: &str = "exit";

/// What a person replied to a message, which is told by a hash of its id: whether it was sent to the person nobody has asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// That it was opened.
    Opened(u64),
    /// Yes or no.
    Answered(u64),
}

/// What a person did with an item, which is told by a hash of it and its site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum OfItem {
    /// Asked for it.
    Asked(u64),
    /// Borrowed it.
    Lent(u64),
}

/// What one event means for its person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Act {
    pub(super) person: Arc<str>,
    pub(super) source: Arc<Source>,
    /// Which of [`CHANNELS`].
    pub(super) channel: u8,
    /// Which of [`SERVICES`], as a bit.
    pub(super) services: u16,
    /// What it adds to the score.
    pub(super) weight: f64,
    pub(super) loans: u32,
    pub(super) searches: u32,
    /// Searches that tell how many results they had, and those of them that had some.
    pub(super) told: u32,
    pub(super) found: u32,
    pub(super) clicks: u32,
    /// Seen by a reader at a way out.
    pub(super) leaves: bool,
    pub(super) reply: Option<Reply>,
    /// The item that was asked for or borrowed.
    pub(super) item: Option<OfItem>,
}

impl Act {
    /// What `event` means for `person`.
    pub(super) fn of(person: &Arc<str>, event: &Event, places: &Places) -> Self {
        let (source, reading) = (&event.source, &event.reading);
        let (clicks, searches) = match reading {
            Reading::Click { action, count, .. } if action.as_ref() == "search" => (*count, *count),
            Reading::Click { count, .. } => (*count, 0),
            _ => (0, 0),
        };
        let (told, found) = match reading {
            Reading::Click {
                results: Some(results), ..
            } => (searches, if *results > 0 { searches } else { 0 }),
            _ => (0, 0),
        };
        let action = |wanted| matches!(reading, Reading::Rfid { action, .. } if *action == wanted);
        Self {
            person: Arc::clone(person),
            source: Arc::clone(source),
            channel: match source.kind {
                Kind::Click => 1,
                Kind::Reply => 2,
                _ => 0,
            },
            services: services(reading),
            weight: weight(reading),
            loans: u32::from(action(RfidAction::Checkout)),
            searches,
            told,
            found,
            clicks,
            leaves: action(RfidAction::Read) && is_exit(source, places),
            reply: reply(reading),
            item: of_item(&source.site, reading),
        }
    }
}

/// The hash of what these parts name.
fn hashed(parts: &[&str]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part.as_bytes());
    }
    let hash = hasher.finalize();
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
}

fn reply(reading: &Reading) -> Option<Reply> {
    let Reading::Reply { message, response, .. } = reading else {
        return None;
    };
    match response {
        Response::Opened => Some(Reply::Opened(hashed(&[message]))),
        Response::Accepted | Response::Declined => Some(Reply::Answered(hashed(&[message]))),
        Response::OptedOut | Response::OptedIn => None,
    }
}

fn of_item(site: &str, reading: &Reading) -> Option<OfItem> {
    // A site has no such letter in its name: "a" and "b/c" are not "a/b" and "c".
    let hashed = |item: &str| hashed(&[site, "\u{0}", item]);
    match reading {
        Reading::Click {
            action,
            item: Some(item),
            ..
        } if matches!(action.as_ref(), "request" | "reserve") => Some(OfItem::Asked(hashed(item))),
        Reading::Rfid {
            action: RfidAction::Checkout,
            tag,
            ..
        } => Some(OfItem::Lent(hashed(tag))),
        _ => None,
    }
}

fn is_exit(source: &Source, places: &Places) -> bool {
    let device = places.device(&source.site, &source.device);
    let zone = || places.zone(&source.site, &source.zone)?.role.as_deref();
    let role = device.and_then(|device| device.role.as_deref()).or_else(zone);
    role == Some(EXIT)
}

/// The bit of a service.
fn bit(service: &str) -> u16 {
    let place = SERVICES.iter().position(|name| *name == service);
    place.map_or(0, |place| 1 << place)
}

fn services(reading: &Reading) -> u16 {
    let of_the_web = |action: &str| {
        let mut names = SERVICES[OF_THE_WEB].iter();
        names.any(|name| *name == action)
    };
    match reading {
        Reading::Rfid { action, .. } => bit(match action {
            RfidAction::Read => "stay",
            RfidAction::Checkout => "loan",
            RfidAction::Checkin => "return",
        }),
        // Clicks are named by whoever sends them: one that is called `loan` is none.
        Reading::Click { action, .. } if of_the_web(action) => bit(action),
        Reading::Click { .. } => bit("other"),
        Reading::Reply { rating: Some(_), .. } => bit("reply") | bit("rating"),
        Reading::Reply {
            response: Response::Accepted | Response::Declined,
            ..
        } => bit("reply"),
        // Programs open messages by themselves.
        Reading::Reply { .. } => 0,
        Reading::Gate(_) | Reading::Seat { .. } | Reading::Identify { .. } | Reading::Consent { .. } => 0,
    }
}

/// What an act weighs: to borrow or to answer is more than to be seen by an antenna.
fn weight(reading: &Reading) -> f64 {
    match reading {
        Reading::Rfid { action, .. } => match action {
            RfidAction::Checkout => 1.0,
            RfidAction::Checkin => 0.5,
            RfidAction::Read => 0.1,
        },
        Reading::Click { action, count, .. } => {
            let one = match action.as_ref() {
                "request" | "reserve" => 1.0,
                "search" | "help" => 0.3,
                _ => 0.1,
            };
            one * f64::from(*count)
        }
        Reading::Reply { response, .. } => match response {
            Response::Accepted => 1.0,
            Response::Opened => 0.3,
            _ => 0.1,
        },
        Reading::Gate(_) | Reading::Seat { .. } | Reading::Identify { .. } | Reading::Consent { .. } => 0.0,
    }
}

/// Whether somebody who used these takes part.
pub(super) fn takes_part(services: u16) -> bool {
    static BITS: LazyLock<u16> = LazyLock::new(|| TAKING_PART.into_iter().map(bit).sum());
    services & *BITS != 0
}

/// The names of the bits that are set.
pub(super) fn names<const N: usize>(bits: u16, names: [&'static str; N]) -> Vec<&'static str> {
    let named = names.into_iter().enumerate();
    named
        .filter(|(place, _)| bits & (1 << place) != 0)
        .map(|(_, name)| name)
        .collect()
}
