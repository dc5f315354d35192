//! A running `usher` of the test's own, and what a test asks it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use usher_connectors::client::MqttClient;
use usher_connectors::message::QoS;

use crate::{TestResult, soon, until};

/// A library with one room for 50, whose clocks may come as they like.
const SITE: &str = r#"
[[site]]
id = "main"
name = { en = "Main Library", zh = "总馆" }
time_zone = "Asia/Shanghai"

[[zone]]
site = "main"
id = "reading-room"
name = { en = "Reading room", zh = "阅览室" }
capacity = 50

[[seat]]
site = "main"
zone = "reading-room"
id = "rr-001"
"#;

/// Windows and timers wait for nobody, so that tests need not either. Checkpoints come often enough for a crash to fall
/// between two, and seldom enough to leave a build without optimisation time for the rest.
const SETTINGS: &str = r#"
[time]
delay = "0s"
idle = "200ms"
[checkpoint]
every = "2s"
"#;

/// A process of `usher run`.
pub(crate) struct Usher {
    child: Child,
    pub(crate) mqtt: String,
    pub(crate) http: String,
    /// Where public answers are and nothing else, where it was told to serve them.
    pub(crate) public: Option<String>,
    folder: tempfile::TempDir,
    is_embedded: bool,
}

/// What a crash leaves.
pub(crate) struct Crashed {
    folder: tempfile::TempDir,
    mqtt: String,
    is_embedded: bool,
}

impl Crashed {
    /// Starts it again on the same folders and the same MQTT address.
    pub(crate) fn start_again(self) -> Result<Usher, Box<dyn std::error::Error>> {
        let mqtt = match self.is_embedded {
            true => self.mqtt.trim_start_matches("mqtt://").to_owned(),
            false => self.mqtt,
        };
        Usher::run(self.folder, &["--mqtt", &mqtt])
    }
}

impl Usher {
    /// Starts one on free ports, with the embedded broker.
    pub(crate) fn start() -> Result<Self, Box<dyn std::error::Error>> {
        Self::start_with(&["--mqtt", "127.0.0.1:0"])
    }

    /// Starts one on free ports, with the embedded broker, these queries, and these settings behind the usual ones.
    pub(crate) fn start_with_settings(sql: &str, settings: &str) -> Result<Self, Box<dyn std::error::Error>> {
        Self::start_as(sql, settings, &["--mqtt", "127.0.0.1:0"])
    }

    /// Starts one with these arguments beside its folders and a free HTTP port.
    pub(crate) fn start_with(arguments: &[&str]) -> Result<Self, Box<dyn std::error::Error>> {
        Self::start_as("", "", arguments)
    }

    /// Starts one on free ports, with the embedded broker and these queries beside the shipped ones.
    pub(crate) fn start_with_queries(sql: &str) -> Result<Self, Box<dyn std::error::Error>> {
        Self::start_as(sql, "", &["--mqtt", "127.0.0.1:0"])
    }

    /// Starts one on free ports, with the embedded broker and these settings, whose data is on another disk.
    pub(crate) fn start_on(data: &Path, settings: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let folder = Self::configure(SITE, "", settings)?;
        std::os::unix::fs::symlink(data, folder.path().join("data"))?;
        Self::run(folder, &["--mqtt", "127.0.0.1:0"])
    }

    /// Starts one on free ports, with the embedded broker, these queries and settings, whose outbox is on another disk.
    pub(crate) fn start_with_outbox_on(
        outbox: &Path,
        sql: &str,
        settings: &str,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let folder = Self::configure(SITE, sql, settings)?;
        std::fs::create_dir_all(folder.path().join("data"))?;
        std::os::unix::fs::symlink(outbox, folder.path().join("data/outbox"))?;
        Self::run(folder, &["--mqtt", "127.0.0.1:0"])
    }

    /// Starts one on free ports, with the embedded broker, another `site.toml` and these queries.
    pub(crate) fn start_in(site: &str, sql: &str) -> Result<Self, Box<dyn std::error::Error>> {
        Self::run(Self::configure(site, sql, "")?, &["--mqtt", "127.0.0.1:0"])
    }

    /// Starts one on free ports, with the embedded broker, another `site.toml`, and public answers at an address of their own.
    pub(crate) fn start_public(site: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let arguments = ["--mqtt", "127.0.0.1:0", "--public", "127.0.0.1:0"];
        Self::run(Self::configure(site, "", "")?, &arguments)
    }

    /// Starts one of several workers: with another `site.toml`, these queries and settings, and a broker of one's own.
    pub(crate) fn start_worker(
        site: &str,
        sql: &str,
        settings: &str,
        arguments: &[&str],
    ) -> Result<Self, Box<dyn std::error::Error>> {
        Self::run(Self::configure(site, sql, settings)?, arguments)
    }

    /// Waits until it has ended by itself, and gives its exit code.
    pub(crate) async fn ended(mut self) -> Result<Option<i32>, Box<dyn std::error::Error>> {
        soon("the process to end", async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    return Ok(status.code());
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await?
    }

    /// Starts one with these queries and settings, and these arguments beside its folders and a free HTTP port.
    pub(crate) fn start_own(sql: &str, settings: &str, arguments: &[&str]) -> Result<Self, Box<dyn std::error::Error>> {
        Self::start_as(sql, settings, arguments)
    }

    fn start_as(sql: &str, settings: &str, arguments: &[&str]) -> Result<Self, Box<dyn std::error::Error>> {
        Self::run(Self::configure(SITE, sql, settings)?, arguments)
    }

    fn configure(site: &str, sql: &str, settings: &str) -> Result<tempfile::TempDir, Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("config");
        std::fs::create_dir_all(config.join("queries"))?;
        std::fs::write(config.join("site.toml"), site)?;
        std::fs::write(config.join("usher.toml"), format!("{SETTINGS}{settings}"))?;
        if !sql.is_empty() {
            std::fs::write(config.join("queries/own.sql"), sql)?;
        }
        Ok(folder)
    }

    fn run(folder: tempfile::TempDir, arguments: &[&str]) -> Result<Self, Box<dyn std::error::Error>> {
        let mut child = Command::new(program())
            .arg("run")
            .arg("--config")
            .arg(folder.path().join("config"))
            .arg("--data")
            .arg(folder.path().join("data"))
            .args(["--http", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = child.stdout.take().ok_or("the process has an output")?;
        let mut line = String::new();
        BufReader::new(lines).read_line(&mut line)?;
        let word = |name: &str| {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            word.map(str::to_owned)
                .ok_or_else(|| format!("no {name} in the line {line:?}"))
        };
        let mqtt = word("mqtt=")?;
        let is_embedded = !mqtt.contains("://");
        let mqtt = if is_embedded { format!("mqtt://{mqtt}") } else { mqtt };
        Ok(Self {
            is_embedded,
            mqtt,
            http: word("http=")?,
            public: word("public=").ok(),
            child,
            folder,
        })
    }

    /// Ends it as a crash would; its folders stay.
    pub(crate) fn crash(mut self) -> Result<Crashed, Box<dyn std::error::Error>> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(Crashed {
            // The folder moves on to the next process; this one's last act is over.
            folder: std::mem::replace(&mut self.folder, tempfile::tempdir()?),
            mqtt: self.mqtt.clone(),
            is_embedded: self.is_embedded,
        })
    }

    /// Ends it as a crash would, and starts it again on the same folders and the same MQTT address.
    pub(crate) fn crash_and_start_again(self) -> Result<Self, Box<dyn std::error::Error>> {
        self.crash()?.start_again()
    }

    /// Ends it with SIGTERM, and starts it again on the same folders and the same MQTT address.
    pub(crate) fn terminate_and_start_again(mut self) -> Result<Self, Box<dyn std::error::Error>> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status()?;
        assert!(status.success());
        self.child.wait()?;
        // It has ended, so that nothing is left to be killed.
        self.crash()?.start_again()
    }

    /// Ends it with SIGTERM and gives its exit code.
    pub(crate) fn terminate(mut self) -> Result<Option<i32>, Box<dyn std::error::Error>> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status()?;
        assert!(status.success());
        Ok(self.child.wait()?.code())
    }

    /// Ends it with SIGTERM, and gives its exit code and what it leaves.
    pub(crate) fn stop(mut self) -> Result<(Option<i32>, Crashed), Box<dyn std::error::Error>> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status()?;
        assert!(status.success());
        let code = self.child.wait()?.code();
        Ok((code, self.crash()?))
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Publishes and waits for the acknowledgement.
    pub(crate) async fn publish(&self, topic: &str, payload: &str) -> TestResult {
        let client = MqttClient::connect(&self.mqtt, "a-device").await?;
        let ticket = client
            .publish(topic, payload.to_owned(), QoS::AtLeastOnce, false)
            .await?;
        soon("the acknowledgement", ticket).await??;
        client.disconnect().await;
        Ok(())
    }

    /// What the API answers.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Box<dyn std::error::Error>> {
        Ok(reqwest::get(format!("http://{}{path}", self.http))
            .await?
            .json()
            .await?)
    }

    /// What the API answers as text.
    pub(crate) async fn get_text(&self, path: &str) -> Result<String, Box<dyn std::error::Error>> {
        Ok(reqwest::get(format!("http://{}{path}", self.http))
            .await?
            .text()
            .await?)
    }

    /// Posts JSON.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Result<(u16, Value), Box<dyn std::error::Error>> {
        let url = format!("http://{}{path}", self.http);
        let response = reqwest::Client::new().post(url).json(&body).send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    /// Rows of a question.
    pub(crate) async fn query(&self, sql: &str) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
        let (status, answer) = self.post("/api/v1/query", serde_json::json!({ "sql": sql })).await?;
        if status != 200 {
            return Err(format!("{sql}: {answer}").into());
        }
        Ok(answer["rows"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until so many messages have been taken.
    pub(crate) async fn has_taken(&self, messages: u64) -> TestResult {
        let taken = |status: &Value| status["counts"]["messages"].as_u64() >= Some(messages);
        until("the messages", || self.get("/api/v1/status"), taken).await?;
        Ok(())
    }
}

impl Drop for Usher {
    fn drop(&mut self) {
        // One that has ended already can't be killed, and need not be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_usher"))
}
