//! Settings are what an operator chose: built-in defaults, the config folder, environment variables, flags.
//!
//! Each of these is a layer, and a later layer wins. A value is read in every layer that has it, so that a mistake is
//! said even where another layer hides it. The defaults are the commented `usher.toml` itself, which is also the list
//! of names there are; so the two cannot drift.

mod consent;
mod fluvio;
mod layers;
mod messages;
mod parameters;
mod public;
mod retention;
#[cfg(test)]
mod tests;
mod values;
mod webhooks;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};

pub use self::fluvio::FluvioSettings;
use self::layers::Layers;
pub use self::messages::MessageSettings;
pub use self::parameters::ParameterSettings;
pub use self::public::PublicSettings;
pub use self::retention::RetentionSettings;
pub use self::webhooks::{WebhookSecret, WebhookSettings};
use crate::consent::Purposes;
use crate::groups::check_groups;
use crate::identity::check_table;
use crate::position::{Mistake, read_file};
use crate::site::Places;
use crate::workers::Assignment;

/// The defaults, with a comment on each.
pub const DEFAULTS: &str = include_str!("../../config/usher.toml");
/// Those of Fluvio and of several workers, which have a file of their own.
pub const FLUVIO_DEFAULTS: &str = include_str!("../../config/fluvio.toml");

/// What flags said. `None` is a flag that was not given. Not printable, for a URL may hold a password.
#[derive(Clone, Default)]
pub struct Flags {
    /// `--mqtt`
    pub mqtt: Option<String>,
    /// `--http`
    pub http: Option<String>,
    /// `--public`
    pub public: Option<String>,
    /// `--data`
    pub data: Option<String>,
}

/// Everything an operator can choose, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where devices publish.
    pub mqtt: Mqtt,
    /// Where the staff page and the API listen; port 0 is any free one.
    pub http: SocketAddr,
    /// The folder of log, checkpoints and secret.
    pub data: PathBuf,
    /// How we behave at a broker.
    pub mqtt_client: MqttClient,
    /// Limits of the embedded broker.
    pub broker: BrokerLimits,
    /// What is read and what is refused.
    pub decode: Decode,
    /// When the watermark passes.
    pub time: Time,
    /// How long events are kept.
    pub log: LogLimits,
    /// How often the state is saved.
    pub checkpoint_every: Duration,
    /// From decoded events to queries.
    pub intake: Intake,
    /// Bytes that one query may keep.
    pub query_memory: usize,
    /// How many cleared alerts stay visible.
    pub keep_cleared_alerts: usize,
    /// What people make of the place.
    pub engagement: EngagementSettings,
    /// How people are written to.
    pub messages: MessageSettings,
    /// Values of the parameters of statements.
    pub parameters: ParameterSettings,
    /// A figure about people needs at least so many behind it.
    pub privacy_k: u32,
    /// What anybody may see, and where.
    pub public: PublicSettings,
    /// How long streams are kept that go before the log does.
    pub retention: RetentionSettings,
    /// What holds of persons who decided nothing.
    pub without_consent: Purposes,
    /// How facts go out.
    pub delivery: Delivery,
    /// Who is told by HTTP.
    pub webhooks: Vec<WebhookSettings>,
    /// Where events are copied to, and alerts told.
    pub fluvio: Option<FluvioSettings>,
    /// Which sites are this worker's.
    pub workers: Assignment,
}

/// How facts go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// 1 or 2.
    pub mqtt_qos: u8,
    /// Steps of alerts kept for receivers that are away.
    pub keep_steps: u64,
    /// Dead letters kept of a receiver.
    pub dead_letters: usize,
    /// Steps that may wait for the disk.
    pub queue: usize,
    /// Numbers of waiting steps that a receiver keeps in memory.
    pub in_memory: usize,
}

/// Where devices publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mqtt {
    /// The embedded broker listens here; port 0 is any free one.
    Embedded(SocketAddr),
    /// A broker of one's own.
    Own(BrokerUrl),
}

/// The checked URL of a broker, `mqtt://` or `mqtts://`. It may hold a password, so what is printed leaves that out.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl(String);

impl BrokerUrl {
    /// The whole URL as it was written, with the password.
    pub fn with_password(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&without_password(&self.0))
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "BrokerUrl({self})")
    }
}

/// How we behave at a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttClient {
    /// The name of our session.
    pub client_id: String,
    /// Engines of one group share the events.
    pub share_group: Option<String>,
    /// 1 second to 18 hours; MQTT counts it in 16 bits of whole seconds.
    pub keep_alive: Duration,
    /// The largest MQTT packet taken, in bytes.
    pub max_packet_bytes: u32,
    /// Messages that a broker of one's own may send ahead of our acknowledgements.
    pub receive_maximum: u16,
}

/// Limits of the embedded broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerLimits {
    /// Connected at once.
    pub max_clients: usize,
    /// Messages that wait for one slow client.
    pub client_queue: usize,
    /// Messages that wait for one client that is away or further behind.
    pub session_queue: usize,
    /// Bytes of these.
    pub session_queue_bytes: usize,
}

/// What is read and what is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decode {
    /// The largest payload read.
    pub max_payload_bytes: usize,
    /// How far ahead of ours a device's clock may be.
    pub max_future_skew: Duration,
    /// Events from before are refused.
    pub earliest: DateTime<Utc>,
}

/// When the watermark passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Time {
    /// How far the events of one device may come out of order.
    pub delay: Duration,
    /// A source silent for so long holds nothing back.
    pub idle: Duration,
}

/// How long events are kept, the first limit reached counts; and how many may wait for the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLimits {
    /// The oldest event kept.
    pub retention_age: Duration,
    /// Disk taken.
    pub retention_bytes: u64,
    /// Batches that may wait for the disk.
    pub queue_appends: usize,
    /// Bytes that may wait for the disk.
    pub queue_bytes: usize,
    /// A record that waits longer means that the disk is slow.
    pub slow_after: Duration,
}

/// From decoded events to queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intake {
    /// Messages that wait.
    pub queue: usize,
    /// Bytes of messages that were received and are not acknowledged yet.
    pub queue_bytes: usize,
    /// Events taken at once, at most.
    pub batch: usize,
    /// Event ids remembered.
    pub recent_ids: usize,
}

/// What people make of the place.
#[derive(Debug, Clone, PartialEq)]
pub struct EngagementSettings {
    /// After so long something counts half.
    pub half_life: Duration,
    /// From the lowest; the first begins at 0.
    pub tiers: Vec<Tier>,
    /// Somebody unseen for longer has left.
    pub visit_gap: Duration,
    /// The usual time away of somebody whose own is not known yet.
    pub usual_gap_unknown: Duration,
    /// Nobody's usual time away counts as shorter.
    pub usual_gap_least: Duration,
    /// Nor as longer.
    pub usual_gap_most: Duration,
}

/// A group of people by how much they use the place.
#[derive(Debug, Clone, PartialEq)]
pub struct Tier {
    /// The operator's word for it.
    pub name: String,
    /// The score from which a person is in it.
    pub from: f64,
    /// The score below which a person leaves it; at most `from`.
    pub until: f64,
}

impl EngagementSettings {
    /// The tier that a score reaches; a score below 0 or no number is in the lowest.
    pub fn tier(&self, score: f64) -> &str {
        let reached = self.tiers.iter().rev().find(|tier| score >= tier.from);
        reached.or(self.tiers.first()).map_or("", |tier| tier.name.as_str())
    }

    /// What holds where nobody chose anything.
    pub fn built_in() -> Self {
        let settings = Settings::load_with(None, [], &Flags::default());
        settings
            .expect("the built-in defaults are right, which a test reads")
            .engagement
    }
}

impl Settings {
    /// Reads the defaults, `usher.toml` and `fluvio.toml` in `dir`, this process's environment and the flags. Without `dir` there is no
    /// file; a folder without them is right too. Fails with all mistakes of all layers.
    pub fn load(dir: Option<&Path>, flags: &Flags) -> Result<Self, Vec<Mistake>> {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        Self::load_with(dir, environment, flags)
    }

    /// The same with an environment that is handed in.
    pub fn load_with(
        dir: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let missing = dir.filter(|dir| !dir.is_dir());
        mistakes.extend(missing.map(no_folder));
        let mut files = Vec::new();
        for name in ["usher.toml", "fluvio.toml"] {
            let Some(file) = dir.filter(|_| missing.is_none()).map(|dir| dir.join(name)) else {
                continue;
            };
            match read_file(&file) {
                Ok(text) => files.extend(text.map(|text| (file, text))),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        let variables: BTreeMap<String, String> = environment
            .into_iter()
            // A variable that is empty is as good as none: that is how container tools pass one nobody set.
            .filter(|(name, value)| name.starts_with("USHER_") && !value.trim().is_empty())
            .collect();

        let mut layers = Layers::default();
        layers.add_defaults(Path::new("built-in usher.toml"), DEFAULTS);
        layers.add_defaults(Path::new("built-in fluvio.toml"), FLUVIO_DEFAULTS);
        for (file, text) in &files {
            layers.add_toml(file, text);
        }
        for (name, value) in &variables {
            layers.add_variable(name, value);
        }
        let said = [
            ("mqtt", "mqtt", &flags.mqtt),
            ("http", "http", &flags.http),
            ("public", "public_http", &flags.public),
            ("data", "data", &flags.data),
        ];
        for (flag, key, value) in said {
            if let Some(value) = value {
                layers.add_text(format!("--{flag}"), key, value);
            }
        }
        let settings = layers.read();
        mistakes.extend(layers.into_mistakes());
        if mistakes.is_empty() {
            Ok(settings)
        } else {
            Err(mistakes)
        }
    }
}

/// The mistakes in `usher.toml` and `site.toml` of a folder, without a look at the environment. Its queries are
/// checked elsewhere.
pub fn check_dir(dir: &Path) -> Vec<Mistake> {
    if !dir.is_dir() {
        return vec![no_folder(dir)];
    }
    let mut mistakes = Vec::new();
    if let Err(found) = Settings::load_with(Some(dir), [], &Flags::default()) {
        mistakes.extend(found);
    }
    if let Err(found) = Places::load(dir) {
        mistakes.extend(found);
    }
    mistakes.extend(check_table(dir));
    mistakes.extend(check_groups(dir));
    mistakes
}

fn no_folder(dir: &Path) -> Mistake {
    Mistake {
        file: dir.to_owned(),
        line: 1,
        column: 1,
        wrong: "there is no such folder".to_owned(),
        right: "a folder with usher.toml, site.toml, identities.csv and queries/ would be right, each of which may be missing"
            .to_owned(),
    }
}

fn without_password(url: &str) -> String {
    match url
        .split_once("://")
        .map(|(scheme, rest)| (scheme, rest.rsplit_once('@')))
    {
        Some((scheme, Some((login, place)))) => match login.split_once(':') {
            Some((user, _)) => format!("{scheme}://{user}:***@{place}"),
            None => url.to_owned(),
        },
        _ => url.to_owned(),
    }
}
