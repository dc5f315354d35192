//! An event is one decoded reading of one device: what everything behind `decode` knows of the world.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::consent::Purposes;
use crate::pseudonym::Pseudonym;

/// What kind of device speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Counts people who pass.
    Gate,
    /// Knows whether somebody sits.
    Seat,
    /// Reads tags of items and cards.
    Rfid,
    /// The web catalogue, a site or an app.
    Click,
    /// A person's answer to a message.
    Reply,
    /// Says which names are one person.
    Identify,
    /// What a person agrees to, and what not.
    Consent,
}

impl Kind {
    /// All kinds, in the order in which a step feeds them to the queries.
    pub const ALL: [Kind; 7] = [
        Kind::Gate,
        Kind::Seat,
        Kind::Rfid,
        Kind::Click,
        Kind::Reply,
        Kind::Identify,
        Kind::Consent,
    ];

    /// As it stands in topics, and the name of its stream.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Gate => "gate",
            Kind::Seat => "seat",
            Kind::Rfid => "rfid",
            Kind::Click => "click",
            Kind::Reply => "reply",
            Kind::Identify => "identify",
            Kind::Consent => "consent",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Where an event comes from: the levels of its topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// The site.
    pub site: Arc<str>,
    /// The zone.
    pub zone: Arc<str>,
    /// The kind.
    pub kind: Kind,
    /// The device; for a seat the seat itself.
    pub device: Arc<str>,
}

/// Whose time the event time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clock {
    /// The device's.
    Device,
    /// The device sends none: ours at receipt.
    Missing,
    /// The device's is ahead of ours by more than the skew allowed: ours at receipt.
    Ahead,
    /// The device has lost its clock and tells a time before any that is plausible: ours at receipt.
    Unset,
}

/// One decoded reading. Times are microseconds since 1970, UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The publisher's id, or one derived from device, time and content.
    pub id: Arc<str>,
    /// When it happened.
    pub time_us: i64,
    /// When it reached us.
    pub received_us: i64,
    /// Whose time `time_us` is.
    pub clock: Clock,
    /// Where it comes from; shared between the events of a device.
    pub source: Arc<Source>,
    /// What was read.
    pub reading: Reading,
}

/// What a device read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reading {
    /// People passed.
    Gate(Gate),
    /// A seat's state.
    Seat {
        /// The state.
        state: SeatState,
    },
    /// A tag was read, lent or returned.
    Rfid {
        /// The tag; hexadecimal digits in capitals, anything else as it came.
        tag: Arc<str>,
        /// Number of the antenna.
        antenna: Option<i32>,
        /// Signal strength, dBm.
        rssi_dbm: Option<f32>,
        /// What happened.
        action: RfidAction,
        /// Who, where it is known.
        person: Option<Pseudonym>,
    },
    /// Something on the web.
    Click {
        /// Who, where it is known.
        person: Option<Pseudonym>,
        /// The visit to the web site.
        session: Option<Pseudonym>,
        /// `search`, `view`, `request`, …
        action: Arc<str>,
        /// What was searched for, without what looks like a person.
        query: Option<Arc<str>>,
        /// How many results there were.
        results: Option<i64>,
        /// Which item.
        item: Option<Arc<str>>,
        /// Which page, without its parameters.
        page: Option<Arc<str>>,
        /// How many such clicks this stands for.
        count: u32,
    },
    /// An answer.
    Reply {
        /// Whose.
        person: Pseudonym,
        /// To which message.
        message: Arc<str>,
        /// The answer.
        response: Response,
        /// How much it was liked.
        rating: Option<i32>,
    },
    /// Which names are one person, or are not any more.
    Identify {
        /// The name that stays.
        person: Pseudonym,
        /// Other names of the same person.
        also: Vec<Pseudonym>,
        /// Whether they are.
        action: IdentifyAction,
    },
    /// What a person agrees to, or does not.
    Consent {
        /// Who.
        person: Pseudonym,
        /// What is said of.
        purposes: Purposes,
        /// What is said.
        action: ConsentAction,
    },
}

/// What a gate counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gate {
    /// People who passed since the last reading.
    Passed {
        /// Into the zone.
        entered: u32,
        /// Out of it.
        exited: u32,
    },
    /// What the counter stands at; either may be missing.
    Totals {
        /// Into the zone.
        entered: Option<u64>,
        /// Out of it.
        exited: Option<u64>,
    },
}

/// A seat's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeatState {
    /// Somebody sits.
    Occupied,
    /// Nobody and nothing.
    Free,
    /// Belongings only.
    Away,
}

impl SeatState {
    /// All states.
    pub const ALL: [SeatState; 3] = [SeatState::Occupied, SeatState::Free, SeatState::Away];

    /// As it stands in payloads and columns.
    pub fn as_str(self) -> &'static str {
        match self {
            SeatState::Occupied => "occupied",
            SeatState::Free => "free",
            SeatState::Away => "away",
        }
    }
}

/// What happened to a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RfidAction {
    /// It was seen.
    Read,
    /// It was lent.
    Checkout,
    /// It was returned.
    Checkin,
}

impl RfidAction {
    /// All actions.
    pub const ALL: [RfidAction; 3] = [RfidAction::Read, RfidAction::Checkout, RfidAction::Checkin];

    /// As it stands in payloads and columns.
    pub fn as_str(self) -> &'static str {
        match self {
            RfidAction::Read => "read",
            RfidAction::Checkout => "checkout",
            RfidAction::Checkin => "checkin",
        }
    }
}

/// What a person answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The message was opened.
    Opened,
    /// Yes.
    Accepted,
    /// No.
    Declined,
    /// No more of this, and nothing kept.
    OptedOut,
    /// Again, please.
    OptedIn,
}

impl Response {
    /// All responses.
    pub const ALL: [Response; 5] = [
        Response::Opened,
        Response::Accepted,
        Response::Declined,
        Response::OptedOut,
        Response::OptedIn,
    ];

    /// As it stands in payloads and columns.
    pub fn as_str(self) -> &'static str {
        match self {
            Response::Opened => "opened",
            Response::Accepted => "accepted",
            Response::Declined => "declined",
            Response::OptedOut => "opted_out",
            Response::OptedIn => "opted_in",
        }
    }
}

/// What is said of two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdentifyAction {
    /// They are one person.
    Link,
    /// They are not.
    Unlink,
}

impl IdentifyAction {
    /// All actions.
    pub const ALL: [IdentifyAction; 2] = [IdentifyAction::Link, IdentifyAction::Unlink];

    /// As it stands in payloads and columns.
    pub fn as_str(self) -> &'static str {
        match self {
            IdentifyAction::Link => "link",
            IdentifyAction::Unlink => "unlink",
        }
    }
}

/// What a person says of a purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsentAction {
    /// Yes.
    Allow,
    /// No.
    Refuse,
}

impl ConsentAction {
    /// All actions.
    pub const ALL: [ConsentAction; 2] = [ConsentAction::Allow, ConsentAction::Refuse];

    /// As it stands in payloads and columns.
    pub fn as_str(self) -> &'static str {
        match self {
            ConsentAction::Allow => "allow",
            ConsentAction::Refuse => "refuse",
        }
    }
}

/// By what a repeated event is known: site, zone, kind, device and id. 128 bits, so that two events share one by
/// chance never.
pub fn dedup_key(event: &Event) -> u128 {
    let source = &event.source;
    let mut hasher = blake3::Hasher::new();
    for part in [&source.site, &source.zone, &source.device, &event.id] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&[source.kind as u8]);
    let (key, _) = hasher
        .finalize()
        .as_bytes()
        .split_first_chunk::<16>()
        .map(|(key, rest)| (u128::from_le_bytes(*key), rest))
        .expect("a hash has 32 bytes");
    key
}
