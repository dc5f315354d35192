//! Settings are what an operator chose: built-in defaults, the config folder, environment variables, flags.
//!
//! Each of these is a layer, and a later layer wins. A value is read in every layer that has it, so that a mistake is
//! said even where another layer hides it. The defaults are the commented `usher.toml` itself, which is also the list
//! of names there are; so the two cannot drift.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use toml::de::{DeTable, DeValue};

use crate::position::{Mistake, Mistakes, instead, kind, nearest, read_file};
use crate::site::Places;

/// The defaults, with a comment on each.
pub const DEFAULTS: &str = include_str!("../../config/usher.toml");

/// Settings that have no default, and so stand in [`DEFAULTS`] as a comment only.
const WITHOUT_DEFAULT: [&str; 1] = ["mqtt_client.share_group"];

/// Environment variables that do not follow the rule USHER_<SECTION>__<KEY>.
const VARIABLES: [(&str, &str); 3] = [
    ("USHER_MQTT", "mqtt"),
    ("USHER_HTTP", "http"),
    ("USHER_DATA_DIR", "data"),
];

/// Variables of this family that are no settings: where recordings and configuration are, and what tests use.
const OTHER_VARIABLES: [&str; 5] = [
    "USHER_DATA",
    "USHER_CONFIG",
    "USHER_REQUIRE_PEERS",
    "USHER_FLUVIO",
    "USHER_SPEED",
];

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A hundred mean years.
const CENTURY: Duration = Duration::from_secs(100 * 31_557_600);
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What flags said. `None` is a flag that was not given. Not printable, for a URL may hold a password.
#[derive(Clone, Default)]
pub struct Flags {
    /// `--mqtt`
    pub mqtt: Option<String>,
    /// `--http`
    pub http: Option<String>,
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
    /// How many cleared alerts stay visible.
    pub keep_cleared_alerts: usize,
    /// What people make of the place.
    pub engagement: EngagementSettings,
    /// A figure about people needs at least so many behind it.
    pub privacy_k: u32,
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
}

/// Limits of the embedded broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerLimits {
    /// Connected at once.
    pub max_clients: usize,
    /// Messages that wait for one slow client.
    pub client_queue: usize,
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

/// How long events are kept; the first limit reached counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLimits {
    /// The oldest event kept.
    pub retention_age: Duration,
    /// Disk taken.
    pub retention_bytes: u64,
}

/// From decoded events to queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intake {
    /// Events that wait.
    pub queue: usize,
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
}

/// A group of people by how much they use the place.
#[derive(Debug, Clone, PartialEq)]
pub struct Tier {
    /// The operator's word for it.
    pub name: String,
    /// The score from which a person is in it.
    pub from: f64,
}

impl EngagementSettings {
    /// The tier of a score; a score below 0 or no number is in the lowest.
    pub fn tier(&self, score: f64) -> &str {
        let reached = self.tiers.iter().rev().find(|tier| score >= tier.from);
        reached.or(self.tiers.first()).map_or("", |tier| tier.name.as_str())
    }
}

impl Settings {
    /// Reads the defaults, `usher.toml` in `dir`, this process's environment and the flags. Without `dir` there is no
    /// file; a folder without `usher.toml` is right too. Fails with all mistakes of all layers.
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
        let file = dir.filter(|_| missing.is_none()).map(|dir| dir.join("usher.toml"));
        let text = file.as_deref().map_or(Ok(None), read_file);
        let text = text.unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            None
        });
        let variables: BTreeMap<String, String> = environment
            .into_iter()
            // A variable that is empty is as good as none: that is how container tools pass one nobody set.
            .filter(|(name, value)| name.starts_with("USHER_") && !value.trim().is_empty())
            .collect();

        let mut layers = Layers::default();
        layers.add_toml(Path::new("built-in usher.toml"), DEFAULTS);
        if let (Some(file), Some(text)) = (&file, &text) {
            layers.add_toml(file, text);
        }
        for (name, value) in &variables {
            layers.add_variable(name, value);
        }
        let said = [("mqtt", &flags.mqtt), ("http", &flags.http), ("data", &flags.data)];
        for (key, value) in said {
            if let Some(value) = value {
                layers.add_text(format!("--{key}"), key, value);
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
    mistakes
}

fn no_folder(dir: &Path) -> Mistake {
    Mistake {
        file: dir.to_owned(),
        line: 1,
        column: 1,
        wrong: "there is no such folder".to_owned(),
        right: "a folder with usher.toml, site.toml and queries/ would be right, each of which may be missing"
            .to_owned(),
    }
}

/// A value as one layer has it. Variables and flags are texts, whatever they mean.
#[derive(Debug, Clone)]
enum Raw<'t> {
    Toml(DeValue<'t>),
    Text(&'t str),
}

impl Raw<'_> {
    fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("`{text}`"),
            Self::Toml(DeValue::String(text)) => format!("`{text}`"),
            Self::Toml(DeValue::Integer(number)) => format!("`{number}`"),
            Self::Toml(DeValue::Float(number)) => format!("`{number}`"),
            Self::Toml(other) => kind(other).to_owned(),
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Toml(value) => value.as_str(),
        }
    }
}

/// One source of settings: a file, a variable or a flag.
struct Layer<'t> {
    mistakes: Mistakes<'t>,
    values: BTreeMap<String, (Range<usize>, Raw<'t>)>,
}

/// What is wrong with a value, and what would be right.
type Refusal = (String, String);

#[derive(Default)]
struct Layers<'t> {
    layers: Vec<Layer<'t>>,
    /// The names there are, `section.key` or `key`.
    known: Vec<String>,
}

impl<'t> Layers<'t> {
    /// The first file is the defaults, and says which names there are.
    fn add_toml(&mut self, file: &Path, text: &'t str) {
        let mut layer = Layer {
            mistakes: Mistakes::of(file, text),
            values: BTreeMap::new(),
        };
        let first = self.layers.is_empty();
        let tree = layer.mistakes.toml();
        for (key, value) in tree {
            let (name, span) = (key.get_ref().to_string(), value.span());
            let section = self.is_section(&name);
            match value.into_inner() {
                DeValue::Table(members) if first || section => {
                    for (key, value) in members {
                        let (at, span) = (key.span(), value.span());
                        let full = format!("{name}.{}", key.get_ref());
                        let value = (span, Raw::Toml(value.into_inner()));
                        self.add_value(&mut layer, full, at, value, first);
                    }
                }
                DeValue::Table(_) if !self.is_known(&name) => {
                    let wrong = format!("there is no section [{name}]");
                    let right = self.instead_of_section(&name);
                    layer.mistakes.add(key.span(), wrong, right);
                }
                value if section => {
                    let wrong = format!("`{name}` is {}", kind(&value));
                    let right = format!("a section [{name}] would be right");
                    layer.mistakes.add(key.span(), wrong, right);
                }
                value => {
                    let value = (span, Raw::Toml(value));
                    self.add_value(&mut layer, name, key.span(), value, first);
                }
            }
        }
        if first {
            self.known.extend(WITHOUT_DEFAULT.map(str::to_owned));
        }
        self.layers.push(layer);
    }

    fn add_value(
        &mut self,
        layer: &mut Layer<'t>,
        name: String,
        at: Range<usize>,
        value: (Range<usize>, Raw<'t>),
        first: bool,
    ) {
        if first {
            self.known.push(name.clone());
        }
        if self.is_known(&name) {
            layer.values.insert(name, value);
            return;
        }
        let (section, key) = split(&name);
        let place = section.map_or(String::new(), |section| format!(" in [{section}]"));
        let wrong = format!("there is no setting `{key}`{place}");
        layer.mistakes.add(at, wrong, self.instead_of(section, key));
    }

    fn add_variable(&mut self, name: &'t str, value: &'t str) {
        let known = || self.known.iter().map(|key| (variable_of(key), key.as_str()));
        if let Some(key) = known().find(|(known, _)| known == name).map(|(_, key)| key.to_owned()) {
            self.add_text(format!("${name}"), &key, value);
            return;
        }
        if OTHER_VARIABLES.contains(&name) {
            return;
        }
        // Other programs put variables of their own beside ours (Kubernetes has USHER_SERVICE_HOST for a service of
        // this name). Ours is what has two underscores, or is a slip of the pen away from a name we know.
        let names: Vec<String> = known().map(|(name, _)| name).collect();
        let slip = |known: &String| {
            let allowed = known.len() / 10;
            strsim::osa_distance(known, name) <= allowed
        };
        if name.contains("__") || names.iter().any(slip) {
            let mut mistakes = Mistakes::of(format!("${name}"), value);
            let right = instead(name, names.iter().map(String::as_str));
            mistakes.add(0..0, "there is no such setting", right);
            self.layers.push(Layer {
                mistakes,
                values: BTreeMap::new(),
            });
        }
    }

    fn add_text(&mut self, source: String, key: &str, value: &'t str) {
        self.layers.push(Layer {
            mistakes: Mistakes::of(source, value),
            values: BTreeMap::from([(key.to_owned(), (0..0, Raw::Text(value)))]),
        });
    }

    fn is_known(&self, name: &str) -> bool {
        self.known.iter().any(|known| known == name)
    }

    /// Each as often as it has settings.
    fn sections(&self) -> impl Iterator<Item = &str> {
        self.known.iter().filter_map(|known| split(known).0)
    }

    fn is_section(&self, name: &str) -> bool {
        self.sections().any(|section| section == name)
    }

    fn instead_of_section(&self, name: &str) -> String {
        match nearest(name, self.sections()) {
            Some(section) => format!("the nearest is [{section}]"),
            None => {
                let mut sections: Vec<&str> = self.sections().collect();
                sections.sort_unstable();
                sections.dedup();
                format!("there is [{}]", sections.join("], ["))
            }
        }
    }

    /// Somebody who writes a key of another section has most often forgotten or misplaced a heading.
    fn instead_of(&self, section: Option<&str>, key: &str) -> String {
        match self.known.iter().map(|known| split(known)).find(|known| known.1 == key) {
            Some((Some(home), _)) => return format!("it belongs in section [{home}]"),
            Some((None, _)) => return "it belongs at the top, before the first section".to_owned(),
            None => {}
        }
        let siblings = self.known.iter().map(|known| split(known));
        instead(key, siblings.filter(|known| known.0 == section).map(|known| known.1))
    }

    /// Reads a value in every layer that has it; the last one counts.
    fn maybe<T>(&mut self, key: &str, parse: impl Fn(&Raw<'_>) -> Result<T, Refusal>) -> Option<T> {
        let mut chosen = None;
        for layer in &mut self.layers {
            let Some((span, raw)) = layer.values.get(key) else {
                continue;
            };
            match parse(raw) {
                Ok(value) => chosen = Some(value),
                Err((wrong, right)) => layer.mistakes.add(span.clone(), wrong, right),
            }
        }
        chosen
    }

    fn one<T>(&mut self, key: &str, parse: impl Fn(&Raw<'_>) -> Result<T, Refusal>) -> T {
        let chosen = self.maybe(key, parse);
        chosen.unwrap_or_else(|| unreachable!("the built-in defaults have a right `{key}`, which a test reads"))
    }

    /// Adds a mistake where the value of `key` that counts was written.
    fn refuse(&mut self, key: &str, wrong: String, right: String) {
        let layer = self
            .layers
            .iter_mut()
            .rev()
            .find(|layer| layer.values.contains_key(key));
        if let Some(layer) = layer {
            let span = layer.values[key].0.clone();
            layer.mistakes.add(span, wrong, right);
        }
    }

    fn into_mistakes(self) -> impl Iterator<Item = Mistake> {
        let layers = self.layers.into_iter();
        layers.flat_map(|layer| layer.mistakes.into_sorted())
    }

    fn read(&mut self) -> Settings {
        let any = 1..=usize::MAX;
        let settings = Settings {
            mqtt: self.one("mqtt", mqtt),
            http: self.one("http", |raw| {
                let text = raw.text().unwrap_or_default();
                address(text).ok_or_else(|| no_address(raw, "an address such as \"127.0.0.1:8080\" would be right"))
            }),
            data: self.one("data", name).into(),
            mqtt_client: MqttClient {
                client_id: self.one("mqtt_client.client_id", name),
                share_group: self.maybe("mqtt_client.share_group", topic_level),
                keep_alive: self.one("mqtt_client.keep_alive", duration(SECOND..=18 * HOUR)),
                // MQTT cannot say a larger one.
                max_packet_bytes: self.one("mqtt_client.max_packet", size(KIB..=256 * MIB - 1)) as u32,
            },
            broker: BrokerLimits {
                max_clients: self.one("broker.max_clients", count(any.clone())),
                client_queue: self.one("broker.client_queue", count(any.clone())),
            },
            decode: Decode {
                max_payload_bytes: self.one("decode.max_payload", size(KIB..=256 * MIB - 1)) as usize,
                max_future_skew: self.one("decode.max_future_skew", duration(Duration::ZERO..=DAY)),
                earliest: self.one("decode.earliest", instant),
            },
            time: Time {
                delay: self.one("time.delay", duration(Duration::ZERO..=DAY)),
                idle: self.one("time.idle", duration(SECOND / 10..=30 * DAY)),
            },
            log: LogLimits {
                retention_age: self.one("log.retention_age", duration(60 * SECOND..=CENTURY)),
                retention_bytes: self.one("log.retention_size", size(MIB..=u64::MAX)),
            },
            checkpoint_every: self.one("checkpoint.every", duration(SECOND / 10..=DAY)),
            intake: Intake {
                queue: self.one("intake.queue", count(1..=1 << 24)),
                batch: self.one("intake.batch", count(1..=1 << 24)),
                recent_ids: self.one("intake.recent_ids", count(0..=usize::MAX)),
            },
            keep_cleared_alerts: self.one("alerts.keep_cleared", count(0..=usize::MAX)),
            engagement: EngagementSettings {
                half_life: self.one("engagement.half_life", duration(60 * SECOND..=CENTURY)),
                tiers: self.one("engagement.tiers", tiers),
            },
            privacy_k: self.one("privacy.k", count(1..=1_000_000)) as u32,
        };
        let (payload, packet) = (settings.decode.max_payload_bytes, settings.mqtt_client.max_packet_bytes);
        if payload as u64 > u64::from(packet) {
            let wrong = format!("a payload of {payload} bytes does not fit into a packet of {packet}");
            let right = "a `max_packet` in [mqtt_client] that is larger would be right";
            self.refuse("decode.max_payload", wrong, right.to_owned());
        }
        settings
    }
}

fn split(name: &str) -> (Option<&str>, &str) {
    match name.split_once('.') {
        Some((section, key)) => (Some(section), key),
        None => (None, name),
    }
}

fn variable_of(key: &str) -> String {
    match VARIABLES.iter().find(|(_, known)| *known == key) {
        Some((variable, _)) => (*variable).to_owned(),
        None => format!("USHER_{}", key.replace('.', "__").to_uppercase()),
    }
}

fn name(raw: &Raw<'_>) -> Result<String, Refusal> {
    match raw.text() {
        Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
        Some(_) => Err(("it is empty".to_owned(), "a name would be right".to_owned())),
        None => Err((
            format!("{} is no text", raw.shown()),
            "a text in quotes would be right".to_owned(),
        )),
    }
}

fn topic_level(raw: &Raw<'_>) -> Result<String, Refusal> {
    let group = name(raw)?;
    if group.contains(['/', '+', '#']) {
        let right = "one level of an MQTT topic, without `/`, `+` and `#`, would be right";
        return Err((format!("`{group}` cannot be a group"), right.to_owned()));
    }
    Ok(group)
}

fn mqtt(raw: &Raw<'_>) -> Result<Mqtt, Refusal> {
    let text = raw.text().unwrap_or_default();
    let Some((scheme, rest)) = text.split_once("://") else {
        let right = "\"127.0.0.1:1883\" for the embedded broker or \"mqtt://broker:1883\" for your own would be right";
        return address(text).map(Mqtt::Embedded).ok_or_else(|| no_address(raw, right));
    };
    if scheme != "mqtt" && scheme != "mqtts" {
        let wrong = format!("`{scheme}://` is no way to a broker");
        return Err((wrong, "mqtt:// or mqtts:// would be right".to_owned()));
    }
    // The password comes before the last @, and may not be shown.
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let place = place.strip_suffix('/').unwrap_or(place);
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse::<u16>().ok().filter(|port| *port > 0)),
        _ => (place, Some(1883)),
    };
    let bad_host = |letter: char| letter.is_whitespace() || matches!(letter, '/' | '?' | '#');
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || host.contains(bad_host) || bare_v6 || port.is_none() {
        let wrong = format!("`{scheme}://{place}` names no host and port");
        let right = format!("a URL such as \"{scheme}://user:password@broker.example:1883\" would be right");
        return Err((wrong, right));
    }
    Ok(Mqtt::Own(BrokerUrl(text.to_owned())))
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

/// An address to listen on. `localhost` is said so often that it is taken as what it stands for.
fn address(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    let port = text.strip_prefix("localhost:");
    port.map_or_else(|| text.parse().ok(), |port| format!("127.0.0.1:{port}").parse().ok())
}

fn no_address(raw: &Raw<'_>, right: &str) -> Refusal {
    let shown = match raw.text().and_then(|text| text.rsplit_once('@')) {
        // What stands before an @ may be a password, even where no scheme says so.
        Some((_, place)) => format!("`***@{place}`"),
        None => raw.shown(),
    };
    (format!("{shown} is no address with a port"), right.to_owned())
}

/// A duration within limits. The units are those of SQL options such as `lateness`.
fn duration(limits: RangeInclusive<Duration>) -> impl Fn(&Raw<'_>) -> Result<Duration, Refusal> {
    move |raw| {
        let right = "a duration such as \"500ms\", \"10 seconds\", \"5 minutes\", \"1h\" or \"14d\" would be right";
        let refuse = |wrong: String| Err((wrong, right.to_owned()));
        let shown = raw.shown();
        let Some(text) = raw.text() else {
            return refuse(format!("{shown} has no unit of time"));
        };
        let duration = match humantime::parse_duration(text.trim()) {
            Ok(duration) => duration,
            Err(humantime::DurationError::UnknownUnit { unit, .. }) if unit.is_empty() => {
                return refuse(format!("{shown} has no unit of time"));
            }
            Err(humantime::DurationError::UnknownUnit { unit, .. }) => {
                return refuse(format!("`{unit}` is no unit of time"));
            }
            Err(_) => return refuse(format!("{shown} is no duration")),
        };
        if limits.contains(&duration) {
            return Ok(duration);
        }
        let shown_limit = |limit: &Duration| humantime::format_duration(*limit).to_string();
        let (low, high) = (shown_limit(limits.start()), shown_limit(limits.end()));
        Err((
            format!("{shown} is out of range"),
            format!("\"{low}\" to \"{high}\" would be right"),
        ))
    }
}

/// Steps of 1024 and of 1000, with the names people give them.
const SIZES: [(&str, u64); 10] = [
    ("B", 1),
    ("bytes", 1),
    ("KiB", KIB),
    ("MiB", MIB),
    ("GiB", 1024 * MIB),
    ("TiB", 1024 * 1024 * MIB),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A size in bytes within limits.
fn size(limits: RangeInclusive<u64>) -> impl Fn(&Raw<'_>) -> Result<u64, Refusal> {
    move |raw| {
        let shown = raw.shown();
        let form = "a size such as \"256KiB\", \"16MiB\" or \"20GiB\" would be right";
        let Some(text) = raw.text() else {
            return Err((format!("{shown} has no unit of size"), form.to_owned()));
        };
        let digits = text.trim().trim_end_matches(|letter: char| !letter.is_ascii_digit());
        let unit = text.trim()[digits.len()..].trim();
        let Ok(number) = digits.parse::<u64>() else {
            return Err((format!("{shown} is no size"), form.to_owned()));
        };
        let Some((_, bytes)) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) else {
            let wrong = match unit {
                "" => format!("{shown} has no unit of size"),
                unit => format!("`{unit}` is no unit of size"),
            };
            return Err((wrong, form.to_owned()));
        };
        let size = number.checked_mul(*bytes).filter(|size| limits.contains(size));
        size.ok_or_else(|| {
            let (low, high) = (limits.start(), limits.end());
            (
                format!("{shown} is out of range"),
                format!("{low} to {high} bytes would be right"),
            )
        })
    }
}

/// A whole number within limits.
fn count(limits: RangeInclusive<usize>) -> impl Fn(&Raw<'_>) -> Result<usize, Refusal> {
    move |raw| {
        let number = match raw {
            Raw::Text(text) => text.trim().parse().ok(),
            Raw::Toml(DeValue::Integer(number)) => usize::from_str_radix(number.as_str(), number.radix()).ok(),
            Raw::Toml(_) => None,
        };
        number.filter(|number| limits.contains(number)).ok_or_else(|| {
            let right = match *limits.end() {
                usize::MAX => format!("a whole number from {} would be right", limits.start()),
                high => format!("a whole number from {} to {high} would be right", limits.start()),
            };
            (format!("{} is no such number", raw.shown()), right)
        })
    }
}

fn instant(raw: &Raw<'_>) -> Result<DateTime<Utc>, Refusal> {
    let written = match raw {
        Raw::Toml(DeValue::Datetime(time)) => time.to_string(),
        other => other.text().unwrap_or_default().to_owned(),
    };
    match DateTime::parse_from_rfc3339(written.trim()) {
        Ok(instant) => Ok(instant.to_utc()),
        Err(_) => Err((
            format!(
                "{} is no instant",
                if written.is_empty() {
                    raw.shown()
                } else {
                    format!("`{written}`")
                }
            ),
            "date, time and offset such as \"2001-01-01T00:00:00Z\" would be right".to_owned(),
        )),
    }
}

fn tiers(raw: &Raw<'_>) -> Result<Vec<Tier>, Refusal> {
    let right = || "a score for each, one of them 0, such as { occasional = 0, regular = 5 } would be right".to_owned();
    let refuse = |wrong: String| Err((wrong, right()));
    // A variable holds the same table, as a text.
    let mut named: Vec<Tier> = match raw {
        Raw::Toml(DeValue::Table(table)) => tiers_of(table),
        Raw::Text(text) => match DeTable::parse(&format!("tiers = {text}")) {
            Ok(tree) => tree
                .get_ref()
                .get("tiers")
                .and_then(|tiers| tiers.get_ref().as_table())
                .and_then(tiers_of),
            Err(_) => None,
        },
        Raw::Toml(_) => None,
    }
    .ok_or_else(|| ("tiers are names, each with the score it begins at".to_owned(), right()))?;
    named.sort_by(|a, b| a.from.total_cmp(&b.from));
    if named.first().is_none_or(|lowest| lowest.from != 0.0) {
        return refuse("no tier begins at 0, so that somebody would be in none".to_owned());
    }
    match named.windows(2).find(|pair| pair[0].from == pair[1].from) {
        Some(pair) => refuse(format!(
            "`{}` and `{}` begin at the same score",
            pair[0].name, pair[1].name
        )),
        None => Ok(named),
    }
}

fn tiers_of(table: &DeTable<'_>) -> Option<Vec<Tier>> {
    let tier = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let written = match value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            _ => return None,
        };
        let from = written.parse().ok().filter(|from: &f64| from.is_finite())?;
        let name: &std::borrow::Cow<'_, str> = key.get_ref();
        Some(Tier {
            name: name.to_string(),
            from,
        })
    };
    table.iter().map(tier).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    /// Settings of a folder with this `usher.toml`, these variables and flags; or what is said, without the folder.
    fn load(text: &str, variables: &[(&str, &str)], flags: Flags) -> Result<Settings, Vec<String>> {
        let dir = tempfile::tempdir().expect("a folder can be made");
        std::fs::write(dir.path().join("usher.toml"), text).expect("a file can be written");
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::load_with(Some(dir.path()), variables, &flags).map_err(|mistakes| {
            let folder = format!("{}/", dir.path().display());
            mistakes
                .iter()
                .map(|mistake| mistake.to_string().replace(&folder, ""))
                .collect()
        })
    }

    fn said(text: &str) -> Vec<String> {
        load(text, &[], Flags::default()).expect_err("the text has mistakes")
    }

    fn said_of(name: &str, value: &str) -> Vec<String> {
        load("", &[(name, value)], Flags::default()).expect_err("the variable is a mistake")
    }

    #[test]
    fn the_commented_file_is_the_default() -> Outcome {
        let settings = Settings::load_with(None, [], &Flags::default()).expect("the defaults are right");
        assert_eq!(settings.mqtt, Mqtt::Embedded("127.0.0.1:1883".parse()?));
        assert_eq!(settings.http, "127.0.0.1:8080".parse()?);
        assert_eq!(settings.data, Path::new("data"));
        assert_eq!(settings.mqtt_client.share_group, None);
        assert_eq!(settings.mqtt_client.max_packet_bytes, 16 * 1024 * 1024);
        assert_eq!(settings.decode.max_payload_bytes, 256 * 1024);
        assert_eq!(
            settings.decode.earliest,
            "2001-01-01T00:00:00Z".parse::<DateTime<Utc>>()?
        );
        assert_eq!(
            settings.time,
            Time {
                delay: 2 * SECOND,
                idle: 10 * SECOND
            }
        );
        assert_eq!(settings.log.retention_age, 90 * DAY);
        assert_eq!(settings.log.retention_bytes, 20 << 30);
        assert_eq!(
            settings.intake,
            Intake {
                queue: 4096,
                batch: 4096,
                recent_ids: 1_000_000
            }
        );
        assert_eq!((settings.privacy_k, settings.keep_cleared_alerts), (5, 1000));
        let tier = |score| settings.engagement.tier(score);
        assert_eq!(
            [tier(-1.0), tier(4.9), tier(5.0), tier(99.0)],
            ["occasional", "occasional", "regular", "devoted"]
        );
        Ok(())
    }

    #[test]
    fn every_default_has_a_comment_and_every_setting_stands_in_the_file() {
        for key in WITHOUT_DEFAULT {
            assert!(DEFAULTS.contains(&format!("\n# {} = ", split(key).1)), "{key}");
        }
        let lines: Vec<&str> = DEFAULTS.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[1].contains(" = ")) {
            assert!(pair[0].starts_with('#'), "{} has no comment", pair[1]);
        }
        assert_eq!(
            load(DEFAULTS, &[], Flags::default()),
            Settings::load_with(None, [], &Flags::default()).map_err(|_| vec![])
        );
    }

    #[test]
    fn later_layers_win_and_leave_the_rest() -> Outcome {
        let file = "http = \"127.0.0.1:1\"\nmqtt = \"127.0.0.1:1\"\ndata = \"file\"\n[time]\ndelay = \"10 seconds\"\n";
        let variables = [
            ("USHER_MQTT", "127.0.0.1:2"),
            ("USHER_HTTP", "localhost:2"),
            ("USHER_PRIVACY__K", "7"),
            ("USHER_LOG__RETENTION_SIZE", ""),
            ("USHER_ENGAGEMENT__TIERS", "{ a = 0, b = 1.5 }"),
            ("USHER_MQTT_CLIENT__SHARE_GROUP", "engines"),
        ];
        let flags = Flags {
            http: Some("0.0.0.0:0".to_owned()),
            ..Flags::default()
        };
        let settings = load(file, &variables, flags).map_err(|said| said.join("\n"))?;
        assert_eq!(settings.http, "0.0.0.0:0".parse()?);
        assert_eq!(settings.mqtt, Mqtt::Embedded("127.0.0.1:2".parse()?));
        assert_eq!(settings.data, Path::new("file"));
        assert_eq!(
            settings.time,
            Time {
                delay: 10 * SECOND,
                idle: 10 * SECOND
            }
        );
        assert_eq!((settings.privacy_k, settings.log.retention_bytes), (7, 20 << 30));
        assert_eq!(settings.engagement.tier(2.0), "b");
        assert_eq!(settings.mqtt_client.share_group.as_deref(), Some("engines"));
        Ok(())
    }

    #[test]
    fn all_mistakes_of_all_layers_are_said() {
        let text = "mqtt = \"127.0.0.1\"
htpt = \"127.0.0.1:8080\"
retention_age = \"30d\"

[log]
retention_age = 90
retention_sise = \"1GiB\"
data = \"here\"
retention_size = \"20 gigs\"

[tiem]
delay = \"2s\"

[time]
delay = \"2 fortnights\"
idle = \"2\"

[intake]
queue = 0
batch = \"many\"
";
        let flags = Flags {
            http: Some("8080".to_owned()),
            ..Flags::default()
        };
        let said = load(text, &[("USHER_PRIVACY__K", "none")], flags).expect_err("there are mistakes");
        let duration = "a duration such as \"500ms\", \"10 seconds\", \"5 minutes\", \"1h\" or \"14d\" would be right";
        assert_eq!(
            said,
            [
                "usher.toml:1:8: `127.0.0.1` is no address with a port, \"127.0.0.1:1883\" for the embedded broker or \
                 \"mqtt://broker:1883\" for your own would be right",
                "usher.toml:2:1: there is no setting `htpt`, the nearest is `http`",
                "usher.toml:3:1: there is no setting `retention_age`, it belongs in section [log]",
                &format!("usher.toml:6:17: `90` has no unit of time, {duration}"),
                "usher.toml:7:1: there is no setting `retention_sise` in [log], the nearest is `retention_size`",
                "usher.toml:8:1: there is no setting `data` in [log], it belongs at the top, before the first section",
                "usher.toml:9:18: `gigs` is no unit of size, a size such as \"256KiB\", \"16MiB\" or \"20GiB\" would be \
                 right",
                "usher.toml:11:2: there is no section [tiem], the nearest is [time]",
                &format!("usher.toml:15:9: `fortnights` is no unit of time, {duration}"),
                &format!("usher.toml:16:8: `2` has no unit of time, {duration}"),
                "usher.toml:19:9: `0` is no such number, a whole number from 1 to 16777216 would be right",
                "usher.toml:20:9: `many` is no such number, a whole number from 1 to 16777216 would be right",
                "$USHER_PRIVACY__K:1:1: `none` is no such number, a whole number from 1 to 1000000 would be right",
                "--http:1:1: `8080` is no address with a port, an address such as \"127.0.0.1:8080\" would be right",
            ]
        );
    }

    #[test]
    fn values_of_the_wrong_shape_say_the_right_one() {
        assert_eq!(
            said("log = 3\n[mqtt]\nurl = \"x\"\n[[time]]\n[attic]\n"),
            [
                "usher.toml:1:1: `log` is a number, a section [log] would be right",
                "usher.toml:2:1: a table is no address with a port, \"127.0.0.1:1883\" for the embedded broker or \
                 \"mqtt://broker:1883\" for your own would be right",
                "usher.toml:4:3: `time` is a list, a section [time] would be right",
                "usher.toml:5:2: there is no section [attic], there is [alerts], [broker], [checkpoint], [decode], \
                 [engagement], [intake], [log], [mqtt_client], [privacy], [time]",
            ]
        );
        assert_eq!(
            said(
                "[decode]\nearliest = \"2001\"\n[engagement]\ntiers = { a = 1, b = 1 }\n[checkpoint]\nevery = \"0s\"\n"
            ),
            [
                "usher.toml:2:12: `2001` is no instant, date, time and offset such as \"2001-01-01T00:00:00Z\" would be \
                 right",
                "usher.toml:4:9: no tier begins at 0, so that somebody would be in none, a score for each, one of them 0, \
                 such as { occasional = 0, regular = 5 } would be right",
                "usher.toml:6:9: `0s` is out of range, \"100ms\" to \"1day\" would be right",
            ]
        );
        assert_eq!(
            said("[decode]\nmax_payload = \"32MiB\"\n"),
            [
                "usher.toml:2:15: a payload of 33554432 bytes does not fit into a packet of 16777216, a `max_packet` in \
                 [mqtt_client] that is larger would be right"
            ]
        );
        assert_eq!(
            said("mqtt = 127.0.0.1:1883\n[privacy\n")[0],
            "usher.toml:1:8: `127.0.0.1:1883` is no value, a text goes in quotes: \"127.0.0.1:1883\""
        );
    }

    #[test]
    fn a_variable_near_ours_is_a_mistake_and_others_are_left_alone() {
        assert_eq!(
            said_of("USHER_LOG__RETENTION_AGES", "1d"),
            ["$USHER_LOG__RETENTION_AGES:1:1: there is no such setting, the nearest is `USHER_LOG__RETENTION_AGE`"]
        );
        assert_eq!(
            said_of("USHER_TIME_IDLE", "1s"),
            ["$USHER_TIME_IDLE:1:1: there is no such setting, the nearest is `USHER_TIME__IDLE`"]
        );
        assert_eq!(
            said_of("USHER_DATADIR", "x"),
            ["$USHER_DATADIR:1:1: there is no such setting, the nearest is `USHER_DATA_DIR`"]
        );
        let others = [
            "USHER_DATA",
            "USHER_CONFIG",
            "USHER_REQUIRE_PEERS",
            "USHER_FLUVIO",
            "USHER_SPEED",
        ];
        let kubernetes = ["USHER_PORT", "USHER_SERVICE_HOST", "USHER_PORT_1883_TCP_ADDR", "MQTT"];
        let variables: Vec<_> = others
            .iter()
            .chain(&kubernetes)
            .map(|name| (*name, "nonsense"))
            .collect();
        let settings = load("", &variables, Flags::default());
        assert_eq!(settings.map(|settings| settings.data), Ok(PathBuf::from("data")));
    }

    #[test]
    fn a_url_is_a_broker_of_ones_own_and_hides_its_password() -> Outcome {
        for url in [
            "mqtt://broker",
            "mqtts://u:p%40ss@broker.example:8883/",
            "mqtt://[::1]:1883",
            "mqtt://[fe80::1]",
        ] {
            let settings = load("", &[("USHER_MQTT", url)], Flags::default()).map_err(|said| said.join("\n"))?;
            let Mqtt::Own(broker) = &settings.mqtt else {
                panic!("{url} is a URL")
            };
            assert_eq!(broker.with_password(), url);
            assert!(!format!("{broker} {settings:?}").contains("p%40ss"));
        }
        assert_eq!(
            BrokerUrl("mqtts://u:p@q@host:1".to_owned()).to_string(),
            "mqtts://u:***@host:1"
        );
        assert_eq!(
            said_of("USHER_MQTT", "tcp://u:secret@broker:1883"),
            ["$USHER_MQTT:1:1: `tcp://` is no way to a broker, mqtt:// or mqtts:// would be right"]
        );
        for wrong in [
            "mqtt://u:secret@:1883",
            "mqtt://u:secret@b:99999",
            "mqtt://u:secret@b:0",
            "mqtt://u:secret@b/t",
            "u:secret@b:1883",
            "mqtt://fe80::1",
        ] {
            let said = said_of("USHER_MQTT", wrong).concat();
            assert!(said.contains("would be right") && !said.contains("secret"), "{said}");
        }
        Ok(())
    }

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        let time = duration(Duration::ZERO..=CENTURY);
        for (text, micros) in [
            ("500ms", 500_000),
            ("10 seconds", 10_000_000),
            ("5 minutes", 300_000_000),
            ("1h", 3_600_000_000),
            ("1h 30m", 5_400_000_000),
            ("14d", 1_209_600_000_000_u128),
            ("0s", 0),
        ] {
            assert_eq!(
                time(&Raw::Text(text)).map(|time| time.as_micros()),
                Ok(micros),
                "{text}"
            );
        }
        for text in ["", "s", "-5s", "5 5", "99999999999999999999s", "200years"] {
            assert!(time(&Raw::Text(text)).is_err(), "{text}");
        }
        let bytes = size(0..=u64::MAX);
        for (text, size) in [
            ("256KiB", 262_144),
            ("16 MiB", 16 << 20),
            ("20gib", 20 << 30),
            ("1TB", 1_000_000_000_000),
            ("512 bytes", 512),
        ] {
            assert_eq!(bytes(&Raw::Text(text)), Ok(size), "{text}");
        }
        for text in ["", "KiB", "12", "1.5GiB", "16M", "99999999TiB"] {
            assert!(bytes(&Raw::Text(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_folder_is_checked_with_its_place() -> Outcome {
        let dir = tempfile::tempdir()?;
        assert_eq!(check_dir(dir.path()), [], "all of it may be missing");
        std::fs::write(dir.path().join("usher.toml"), "dta = \"x\"\n")?;
        std::fs::write(dir.path().join("site.toml"), "[[site]]\n")?;
        let files: Vec<_> = check_dir(dir.path())
            .iter()
            .map(|mistake| mistake.file.file_name().map(ToOwned::to_owned))
            .collect();
        assert_eq!(files, [Some("usher.toml".into()), Some("site.toml".into())]);
        let missing = check_dir(&dir.path().join("none"));
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].wrong, "there is no such folder");
        Ok(())
    }
}
