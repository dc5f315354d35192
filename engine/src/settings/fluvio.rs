//! `[fluvio]` and `[workers]`: where events are copied to, and which sites are whose.

use std::num::NonZeroU32;
use std::path::PathBuf;

use toml::de::DeValue;
use usher_connectors::fluvio::cluster::{FluvioOptions, TlsOptions, TopicOptions};

use super::layers::{CENTURY, Layers, MIB, Raw, Refusal, SECOND};
use super::values::{count, duration, name, size};
use super::{Mqtt, Settings};
use crate::workers::Assignment;

/// Partitions there may be; more would only cost files.
const PARTITIONS_MAX: usize = 1_024;
/// The largest payload of which every record fits into Fluvio.
const PAYLOAD_MAX: u64 = MIB;

/// Where events are copied to, and alerts told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FluvioSettings {
    /// How the cluster is reached.
    pub cluster: FluvioOptions,
    /// The topic of events.
    pub events: TopicOptions,
    /// The topic of alerts.
    pub alerts: Option<TopicOptions>,
}

impl Layers<'_> {
    /// Reads both sections, and what they mean for the others.
    pub(super) fn read_fluvio(&mut self, settings: Settings) -> Settings {
        let of = self.one("workers.of", count(1..=PARTITIONS_MAX)) as u32;
        let of = NonZeroU32::new(of).unwrap_or(NonZeroU32::MIN);
        let chosen = self.one("workers.partitions", partitions);
        let epoch = self.one("workers.epoch", count(0..=usize::MAX)) as u64;
        let beyond = chosen
            .iter()
            .flatten()
            .find(|partition| **partition >= of.get())
            .copied();
        if let Some(partition) = beyond {
            let wrong = format!("there is no partition {partition}, for there are {of} and the first is 0");
            let right = format!("numbers from 0 to {} would be right", of.get() - 1);
            self.refuse("workers.partitions", wrong, right);
        }
        let workers = Assignment::new(chosen.unwrap_or_else(|| (0..of.get()).collect()), of, epoch);
        let mut settings = Settings {
            fluvio: self.read_cluster(of),
            workers,
            ..settings
        };
        self.check_workers(&mut settings);
        if settings.fluvio.is_some() && settings.decode.max_payload_bytes as u64 > PAYLOAD_MAX {
            let wrong = "with Fluvio a payload may have 1 MiB at most, for its records have a limit";
            let right = "\"1MiB\" or less would be right";
            self.refuse("decode.max_payload", wrong.to_owned(), right.to_owned());
        }
        settings
    }

    fn check_workers(&mut self, settings: &mut Settings) {
        let workers = &settings.workers;
        if workers.has_all() {
            return;
        }
        if workers.epoch() == 0 {
            let wrong = "one of several workers has no epoch, so that nobody could tell it from the next one";
            let right = "a number from 1 on would be right, larger each time partitions change hands";
            self.refuse("workers.epoch", wrong.to_owned(), right.to_owned());
        }
        if let Mqtt::Embedded(_) = settings.mqtt {
            let wrong =
                "one of several workers has a broker of its own, in which events of the others' sites would end";
            let right = "the mqtt:// URL of a broker that all of them share would be right";
            self.refuse("mqtt", wrong.to_owned(), right.to_owned());
        }
        if settings.mqtt_client.share_group.is_some() {
            let wrong = "a share group gives each event to any one worker, and not to the one that has its site";
            let right = "none would be right: each worker gets all and keeps its own";
            self.refuse("mqtt_client.share_group", wrong.to_owned(), right.to_owned());
        }
        // Whoever takes over the same partitions takes over what the broker has queued for them.
        let client_id = &mut settings.mqtt_client.client_id;
        *client_id = format!("{client_id}-{workers}");
    }

    fn read_cluster(&mut self, of: NonZeroU32) -> Option<FluvioSettings> {
        let endpoint = self.one("fluvio.cluster", endpoint);
        let request_timeout = self.one("fluvio.request_timeout", duration(SECOND..=300 * SECOND));
        let retention_age = self.one("fluvio.retention_age", duration(60 * SECOND..=CENTURY));
        let retention_bytes = self.one("fluvio.retention_size", size(64 * MIB..=u64::MAX / 2));
        let replication = self.one("fluvio.replication", count(1..=100)) as u32;
        let events = self.one("fluvio.events", topic);
        let alerts = self.one("fluvio.alerts", |raw| {
            optional(raw).map_or(Ok(None), |_| topic(raw).map(Some))
        });
        let tls = self.read_tls();
        let topic = |name: String| TopicOptions {
            replication,
            retention_age: Some(retention_age),
            retention_bytes: Some(retention_bytes),
            ..TopicOptions::new(name, of.get())
        };
        Some(FluvioSettings {
            cluster: FluvioOptions {
                tls,
                request_timeout,
                ..FluvioOptions::new(endpoint?)
            },
            events: topic(events),
            alerts: alerts.map(topic),
        })
    }

    fn read_tls(&mut self) -> Option<TlsOptions> {
        let text = |layers: &mut Self, key: &str| layers.one(key, |raw| Ok(optional(raw)));
        let domain = text(self, "fluvio.tls_domain")?;
        let ca_cert = text(self, "fluvio.tls_ca");
        let (cert, key) = (text(self, "fluvio.tls_cert"), text(self, "fluvio.tls_key"));
        if cert.is_some() != key.is_some() {
            let wrong = "a certificate and its key belong together".to_owned();
            self.refuse("fluvio.tls_cert", wrong, "both or neither would be right".to_owned());
        }
        let Some(ca_cert) = ca_cert else {
            let right = "the PEM file with the certificates of who signed theirs would be right";
            self.refuse(
                "fluvio.tls_ca",
                "whom to trust is not said".to_owned(),
                right.to_owned(),
            );
            return None;
        };
        Some(TlsOptions {
            domain,
            ca_cert: PathBuf::from(ca_cert),
            identity: cert.map(PathBuf::from).zip(key.map(PathBuf::from)),
        })
    }
}

/// A text that may be empty, which is none.
fn optional(raw: &Raw<'_>) -> Option<String> {
    raw.text()
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

fn endpoint(raw: &Raw<'_>) -> Result<Option<String>, Refusal> {
    let Some(text) = optional(raw) else {
        return Ok(None);
    };
    let port = text.rsplit_once(':').and_then(|(host, port)| {
        let is_host = !host.is_empty() && !host.contains(['/', '@']);
        port.parse::<u16>().ok().filter(|port| is_host && *port > 0)
    });
    match port {
        Some(_) => Ok(Some(text)),
        None => Err((
            format!("`{text}` names no host and port"),
            "the SC of a cluster, such as \"127.0.0.1:9003\", would be right".to_owned(),
        )),
    }
}

/// The name of a topic, as Fluvio allows them.
fn topic(raw: &Raw<'_>) -> Result<String, Refusal> {
    let text = name(raw)?;
    let is_right = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    if text.chars().all(is_right) && !text.starts_with('-') && !text.ends_with('-') && text.len() <= 63 {
        return Ok(text);
    }
    let right = "small letters, digits and dashes, at most 63, would be right";
    Err((format!("`{text}` cannot be a topic"), right.to_owned()))
}

/// Numbers of partitions; none is all of them.
fn partitions(raw: &Raw<'_>) -> Result<Option<Vec<u32>>, Refusal> {
    let refuse = || {
        let right = "a list such as [0, 1], or \"all\", would be right";
        Err((format!("{} are no partitions", raw.shown()), right.to_owned()))
    };
    let numbers: Option<Vec<u32>> = match raw {
        Raw::Toml(DeValue::Array(list)) => list
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
                _ => None,
            })
            .collect(),
        other => match other.text().map(str::trim) {
            Some("all") => return Ok(None),
            // A variable holds the list with or without its brackets.
            Some(text) => {
                let text = text.trim_start_matches('[').trim_end_matches(']');
                text.split(',').map(|number| number.trim().parse().ok()).collect()
            }
            None => None,
        },
    };
    match numbers {
        Some(numbers) if !numbers.is_empty() => Ok(Some(numbers)),
        _ => refuse(),
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::{Flags, Settings};

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
        let dir = tempfile::tempdir().expect("a folder can be made");
        std::fs::write(dir.path().join("fluvio.toml"), text).expect("a file can be written");
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::load_with(Some(dir.path()), variables, &Flags::default()).map_err(|mistakes| {
            let folder = format!("{}/", dir.path().display());
            let words: Vec<String> = mistakes
                .iter()
                .map(|mistake| mistake.to_string().replace(&folder, ""))
                .collect();
            words.join("\n")
        })
    }

    #[test]
    fn without_a_word_there_is_no_fluvio_and_one_worker_with_everything() -> Result<(), String> {
        let settings = load("", &[])?;
        assert_eq!(settings.fluvio, None);
        assert!(settings.workers.has_all() && settings.workers.owns("main"));
        assert_eq!(settings.mqtt_client.client_id, "usher");
        Ok(())
    }

    #[test]
    fn a_worker_of_several_has_its_partitions_an_epoch_and_a_session_of_their_own() -> Result<(), String> {
        let variables = [
            ("USHER_FLUVIO__CLUSTER", "127.0.0.1:9003"),
            ("USHER_WORKERS__PARTITIONS", "3,1"),
            ("USHER_MQTT", "mqtt://broker:1883"),
        ];
        let settings = load("[workers]\nof = 4\nepoch = 3\npartitions = [0]\n", &variables)?;
        assert_eq!(settings.workers.partitions(), [1, 3]);
        assert_eq!((settings.workers.of().get(), settings.workers.epoch()), (4, 3));
        assert_eq!(settings.mqtt_client.client_id, "usher-1.3-of-4");
        let fluvio = settings.fluvio.ok_or("it is set")?;
        assert_eq!(
            (fluvio.cluster.endpoint.as_str(), fluvio.events.partitions),
            ("127.0.0.1:9003", 4)
        );
        assert_eq!(fluvio.alerts, None);
        Ok(())
    }

    #[test]
    fn what_can_not_work_is_said() {
        let said = |text: &str| load(text, &[("USHER_MQTT", "mqtt://b")]).expect_err("it has mistakes");
        let beyond = said("[workers]\nof = 2\nepoch = 1\npartitions = [0, 2]\n");
        assert!(beyond.contains("there is no partition 2, for there are 2"), "{beyond}");
        let unnamed = said("[workers]\nof = 2\npartitions = [0]\n");
        assert!(unnamed.contains("has no epoch"), "{unnamed}");
        let embedded = load("[workers]\nof = 2\nepoch = 1\npartitions = [0]\n", &[]).expect_err("it has mistakes");
        assert!(embedded.contains("has a broker of its own"), "{embedded}");
        let shared = "[workers]\nof = 2\nepoch = 1\npartitions = [0]\n[mqtt_client]\nshare_group = 'g'\n";
        assert!(said(shared).contains("a share group gives each event to any one worker"));
        assert!(said("[fluvio]\ncluster = 'here'\n").contains("names no host and port"));
        assert!(said("[fluvio]\ntls_domain = 'x'\n").contains("whom to trust is not said"));
        assert!(said("[workers]\npartitions = []\n").contains("are no partitions"));
    }
}
