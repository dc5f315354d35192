//! Layers are the sources of settings, one above the other; a later one wins, and each is read in full.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::de::DeValue;

use super::parameters::{PARAMETERS, ParameterSettings};
use super::values::{address, count, duration, instant, mqtt, name, no_address, size, tiers, topic_level};
use super::webhooks::{WEBHOOK, WebhookSettings, read_webhooks};
use super::{BrokerLimits, Decode, Delivery, EngagementSettings, Intake, LogLimits, MqttClient, Settings, Time};
use crate::outbox::KEPT;
use crate::position::{Mistake, Mistakes, instead, kind, nearest};
use crate::workers::Assignment;

/// Settings that have no default, and so stand in [`DEFAULTS`] as a comment only.
pub(super) const WITHOUT_DEFAULT: [&str; 1] = ["mqtt_client.share_group"];

/// Environment variables that do not follow the rule USHER_<SECTION>__<KEY>.
const VARIABLES: [(&str, &str); 3] = [
    ("USHER_MQTT", "mqtt"),
    ("USHER_HTTP", "http"),
    ("USHER_DATA_DIR", "data"),
];

/// Variables of this family that are no settings: where recordings and configuration are, and what tests use.
const OTHER_VARIABLES: [&str; 7] = [
    "USHER_DATA",
    "USHER_CONFIG",
    "USHER_REQUIRE_PEERS",
    "USHER_FLUVIO",
    "USHER_FLUVIO_TLS",
    "USHER_FLUVIO_RESTART",
    "USHER_SPEED",
];

pub(super) const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A hundred mean years.
pub(super) const CENTURY: Duration = Duration::from_secs(100 * 31_557_600);
pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;

/// A value as one layer has it. Variables and flags are texts, whatever they mean.
#[derive(Debug, Clone)]
pub(super) enum Raw<'t> {
    Toml(DeValue<'t>),
    Text(&'t str),
}

impl Raw<'_> {
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("`{text}`"),
            Self::Toml(DeValue::String(text)) => format!("`{text}`"),
            Self::Toml(DeValue::Integer(number)) => format!("`{number}`"),
            Self::Toml(DeValue::Float(number)) => format!("`{number}`"),
            Self::Toml(other) => kind(other).to_owned(),
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
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
pub(super) type Refusal = (String, String);

#[derive(Default)]
pub(super) struct Layers<'t> {
    layers: Vec<Layer<'t>>,
    /// The names there are, `section.key` or `key`.
    known: Vec<String>,
}

impl<'t> Layers<'t> {
    /// Defaults, which say which names there are.
    pub(super) fn add_defaults(&mut self, file: &Path, text: &'t str) {
        if self.layers.is_empty() {
            self.known.extend(WITHOUT_DEFAULT.map(str::to_owned));
            self.known.push(WEBHOOK.to_owned());
            self.known.push(PARAMETERS.to_owned());
        }
        self.add_file(file, text, true);
    }

    /// A file of settings.
    pub(super) fn add_toml(&mut self, file: &Path, text: &'t str) {
        self.add_file(file, text, false);
    }

    fn add_file(&mut self, file: &Path, text: &'t str, first: bool) {
        let mut layer = Layer {
            mistakes: Mistakes::of(file, text),
            values: BTreeMap::new(),
        };
        let tree = layer.mistakes.toml();
        for (key, value) in tree {
            let (name, span) = (key.get_ref().to_string(), value.span());
            let section = self.is_section(&name);
            match value.into_inner() {
                // What stands in it is for statements to know.
                DeValue::Table(members) if name == PARAMETERS => {
                    for (key, value) in members {
                        let full = format!("{PARAMETERS}.{}", key.get_ref());
                        layer.values.insert(full, (value.span(), Raw::Toml(value.into_inner())));
                    }
                }
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

    pub(super) fn add_variable(&mut self, name: &'t str, value: &'t str) {
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

    pub(super) fn add_text(&mut self, source: String, key: &str, value: &'t str) {
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
    pub(super) fn maybe<T>(&mut self, key: &str, parse: impl Fn(&Raw<'_>) -> Result<T, Refusal>) -> Option<T> {
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

    pub(super) fn one<T>(&mut self, key: &str, parse: impl Fn(&Raw<'_>) -> Result<T, Refusal>) -> T {
        let chosen = self.maybe(key, parse);
        chosen.unwrap_or_else(|| unreachable!("the built-in defaults have a right `{key}`, which a test reads"))
    }

    /// Reads `[[webhook]]` in every layer that has some; those of the last one count, as a whole.
    fn webhooks(&mut self) -> Vec<WebhookSettings> {
        let mut chosen = Vec::new();
        for layer in &mut self.layers {
            if let Some((span, raw)) = layer.values.get(WEBHOOK) {
                chosen = read_webhooks(span, raw, &mut layer.mistakes);
            }
        }
        chosen
    }

    /// Reads `[parameters]` in every layer; what a later one says of a parameter counts.
    fn parameters(&mut self) -> ParameterSettings {
        let mut parameters = ParameterSettings::default();
        for layer in &mut self.layers {
            for (key, (span, raw)) in &layer.values {
                if let (Some(PARAMETERS), name) = split(key) {
                    parameters.add(name, span, raw, &mut layer.mistakes);
                }
            }
        }
        parameters
    }

    /// Adds a mistake where the value of `key` that counts was written.
    pub(super) fn refuse(&mut self, key: &str, wrong: String, right: String) {
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

    pub(super) fn into_mistakes(self) -> impl Iterator<Item = Mistake> {
        let layers = self.layers.into_iter();
        layers.flat_map(|layer| layer.mistakes.into_sorted())
    }

    pub(super) fn read(&mut self) -> Settings {
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
                receive_maximum: self.one("mqtt_client.receive_maximum", count(1..=65_535)) as u16,
            },
            broker: BrokerLimits {
                max_clients: self.one("broker.max_clients", count(any.clone())),
                client_queue: self.one("broker.client_queue", count(any.clone())),
                session_queue: self.one("broker.session_queue", count(any.clone())),
                session_queue_bytes: self.one("broker.session_queue_size", size(KIB..=1 << 36)) as usize,
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
                queue_appends: self.one("log.queue", count(1..=1 << 20)),
                queue_bytes: self.one("log.queue_size", size(MIB..=1 << 36)) as usize,
                slow_after: self.one("log.slow_after", duration(SECOND / 10..=DAY)),
            },
            checkpoint_every: self.one("checkpoint.every", duration(SECOND / 10..=DAY)),
            intake: Intake {
                queue: self.one("intake.queue", count(1..=1 << 24)),
                queue_bytes: self.one("intake.queue_size", size(MIB..=4096 * MIB - 1)) as usize,
                batch: self.one("intake.batch", count(1..=1 << 24)),
                recent_ids: self.one("intake.recent_ids", count(0..=usize::MAX)),
            },
            query_memory: self.one("queries.memory", size(MIB..=1 << 50)) as usize,
            keep_cleared_alerts: self.one("alerts.keep_cleared", count(0..=usize::MAX)),
            engagement: EngagementSettings {
                half_life: self.one("engagement.half_life", duration(60 * SECOND..=CENTURY)),
                tiers: self.one("engagement.tiers", tiers),
                visit_gap: self.one("engagement.visit_gap", duration(60 * SECOND..=DAY)),
                usual_gap_unknown: self.one("engagement.usual_gap_unknown", duration(2 * DAY..=CENTURY)),
                usual_gap_least: self.one("engagement.usual_gap_least", duration(2 * DAY..=CENTURY)),
                usual_gap_most: self.one("engagement.usual_gap_most", duration(2 * DAY..=CENTURY)),
            },
            messages: self.messages(),
            parameters: self.parameters(),
            privacy_k: self.one("privacy.k", count(1..=1_000_000)) as u32,
            public: self.public(),
            without_consent: self.consent(),
            retention: self.retention(),
            delivery: Delivery {
                mqtt_qos: self.one("delivery.mqtt_qos", count(1..=2)) as u8,
                keep_steps: self.one("delivery.keep_steps", count(20_000..=1 << 40)) as u64,
                dead_letters: self.one("delivery.dead_letters", count(1..=1_000_000)),
                queue: self.one("delivery.queue", count(100..=1 << 24)),
                in_memory: self.one("delivery.in_memory", count(1_000..=1 << 24)),
            },
            webhooks: self.webhooks(),
            fluvio: None,
            workers: Assignment::default(),
        };
        let settings = self.read_fluvio(settings);
        if settings.engagement.usual_gap_most < settings.engagement.usual_gap_least {
            let wrong = "the longest usual gap is shorter than the shortest, `usual_gap_least`";
            let right = "one that is as long or longer would be right";
            self.refuse("engagement.usual_gap_most", wrong.to_owned(), right.to_owned());
        }
        self.refuse_retentions(&settings);
        self.refuse_queues(&settings);
        let (payload, packet) = (settings.decode.max_payload_bytes, settings.mqtt_client.max_packet_bytes);
        if payload as u64 > u64::from(packet) {
            let wrong = format!("a payload of {payload} bytes does not fit into a packet of {packet}");
            let right = "a `max_packet` in [mqtt_client] that is larger would be right";
            self.refuse("decode.max_payload", wrong, right.to_owned());
        }
        settings
    }

    /// What is to be kept has to hold what may wait.
    fn refuse_queues(&mut self, settings: &Settings) {
        let delivery = &settings.delivery;
        let least = delivery.queue as u64 + KEPT;
        if delivery.keep_steps < least {
            let wrong = format!(
                "{} steps may wait for the disk, and `keep_steps` in [delivery] keeps {} of all",
                delivery.queue, delivery.keep_steps
            );
            let right = format!("a smaller `queue`, or a `keep_steps` of {least} or more,");
            self.refuse("delivery.queue", wrong, format!("{right} would be right"));
        }
    }
}

pub(super) fn split(name: &str) -> (Option<&str>, &str) {
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
