//! A home is the config and data of an `usher run`, which outlive its processes: each can be killed, and another started.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use usher_connectors::crash_point::{self, CrashPoint};

use crate::crash::Failure;
use crate::receiver::Receiver;
use crate::soon;
use crate::usher::program;

/// A library with three rooms that a few people fill.
const SITE: &str = r#"
[[site]]
id = "main"
time_zone = "Asia/Shanghai"

[[zone]]
site = "main"
id = "hall"
capacity = 10

[[zone]]
site = "main"
id = "reading-room"
capacity = 8

[[zone]]
site = "main"
id = "stacks"
capacity = 12

[[seat]]
site = "main"
zone = "reading-room"
id = "rr-001"

[[seat]]
site = "main"
zone = "reading-room"
id = "rr-002"

[[device]]
site = "main"
zone = "hall"
id = "exit-1"
kind = "rfid"
role = "exit"
"#;

/// Time is moved by events and by nothing else, so that two runs over the same events can be compared. Checkpoints come
/// as often as they can, so that kills fall before, into and after them.
const SETTINGS: &str = r#"
[time]
delay = "5s"
idle = "12 hours"
[checkpoint]
every = "100ms"
"#;

/// Beside the shipped ones: an alert that rings by the clock and one that a window's end raises.
const QUERIES: &str = r#"
CREATE ALERT seat_blocked WITH (subject = 'seat', severity = 'info', raise = 'state = ''away''',
  clear = 'state <> ''away''', for = '20 seconds', cooldown = '1 minute', text = 'Seat {seat} in {zone} is blocked') AS
SELECT site, zone, seat, state, event_time FROM seat;

CREATE ALERT rush WITH (subject = 'zone', severity = 'info', raise = 'entered >= 5', clear = 'entered < 3',
  text = '{entered} came into {zone} within a minute') AS
SELECT site, zone, window_start, window_end, entered FROM zone_flow;
"#;

/// The name of the webhook, where there is one.
pub(crate) const WEBHOOK: &str = "hook";

/// Pseudonyms are the same in all homes, so that what is said of people can be compared.
const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";

/// The folders.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

/// What came of a start.
pub(crate) enum Started {
    /// It takes messages.
    Ready(Box<Process>),
    /// It ended before.
    Ended(ExitStatus),
}

/// A running `usher run`; dropping it ends it.
pub(crate) struct Process {
    child: Child,
    /// Where devices publish.
    pub(crate) mqtt: String,
    /// What to ask it.
    pub(crate) api: Api,
}

/// The HTTP API of a process, which may be gone by the time it is asked.
#[derive(Clone)]
pub(crate) struct Api {
    address: String,
    client: reqwest::Client,
}

impl Home {
    /// A home nobody has lived in, whose checkpoints come as often as they can.
    pub(crate) fn new() -> Result<Self, Failure> {
        Self::with(SETTINGS)
    }

    /// The same with a webhook that is told everything.
    pub(crate) fn with_webhook(receiver: &Receiver) -> Result<Self, Failure> {
        Self::with(&format!("{SETTINGS}{}", receiver.settings(WEBHOOK, "")))
    }

    /// A home with the default settings: for loads under which a checkpoint takes its time.
    pub(crate) fn with_defaults() -> Result<Self, Failure> {
        Self::with("")
    }

    fn with(settings: &str) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let (config, data) = (folder.path().join("config"), folder.path().join("data"));
        std::fs::create_dir_all(config.join("queries"))?;
        std::fs::create_dir_all(&data)?;
        std::fs::write(config.join("site.toml"), SITE)?;
        std::fs::write(config.join("usher.toml"), settings)?;
        std::fs::write(config.join("queries/own.sql"), QUERIES)?;
        std::fs::write(data.join("secret"), SECRET)?;
        Ok(Self { folder })
    }

    /// Starts a process with this `--mqtt`, to be killed as it passes a crash point for the nth time.
    pub(crate) async fn start(&self, mqtt: &str, kill: Option<(CrashPoint, u64)>) -> Result<Started, Failure> {
        let said = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.said())?;
        let mut command = Command::new(program());
        command
            .arg("run")
            .arg("--config")
            .arg(self.folder.path().join("config"))
            .arg("--data")
            .arg(self.folder.path().join("data"))
            .args(["--http", "127.0.0.1:0", "--mqtt", mqtt])
            .env_remove(crash_point::VARIABLE)
            .stdout(Stdio::piped())
            .stderr(said)
            .kill_on_drop(true);
        if let Some((point, nth)) = kill {
            command.env(crash_point::VARIABLE, format!("{point}:{nth}"));
        }
        let mut child = command.spawn()?;
        let lines = child.stdout.take().ok_or("the process has an output")?;
        let mut line = String::new();
        soon("the ready line", BufReader::new(lines).read_line(&mut line)).await??;
        if !line.starts_with("ready") {
            return Ok(Started::Ended(soon("its end", child.wait()).await??));
        }
        let word = |name: &str| {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            word.map(str::to_owned)
                .ok_or_else(|| format!("no {name} in the line {line:?}"))
        };
        let mqtt = word("mqtt=")?;
        let mut process = Process {
            mqtt: if mqtt.contains("://") {
                mqtt
            } else {
                format!("mqtt://{mqtt}")
            },
            api: Api {
                address: word("http=")?,
                client: reqwest::Client::new(),
            },
            child,
        };
        let deadline = std::time::Instant::now() + crate::PATIENCE;
        loop {
            if let Some(status) = process.child.try_wait()? {
                return Ok(Started::Ended(status));
            }
            match process.api.get_text("/readyz").await {
                Ok(text) if text.starts_with("ready") => return Ok(Started::Ready(Box::new(process))),
                answer if std::time::Instant::now() > deadline => {
                    return Err(format!("it does not become ready: {answer:?}").into());
                }
                _ => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        }
    }

    /// The last warnings that its processes wrote to standard error, and whatever else is no plain information.
    pub(crate) fn last_said(&self) -> String {
        let said = std::fs::read_to_string(self.said()).unwrap_or_default();
        let lines: Vec<&str> = said
            .lines()
            .filter(|line| !line.contains(r#""level":"INFO""#))
            .collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn said(&self) -> std::path::PathBuf {
        self.folder.path().join("said.log")
    }
}

impl Process {
    /// Waits for its end; true when a crash point was the reason.
    pub(crate) async fn ended(&mut self) -> Result<bool, Failure> {
        Ok(was_aborted(self.child.wait().await?))
    }

    /// Ends it as `kill -9` does.
    pub(crate) async fn kill(mut self) -> Result<(), Failure> {
        self.child.kill().await?;
        Ok(())
    }

    /// Memory it has in use now, bytes; 0 where it has ended, as one does that is killed while it is asked.
    pub(crate) fn resident_bytes(&self) -> Result<u64, Failure> {
        let id = self.child.id();
        id.map_or(Ok(0), |id| {
            resident_bytes(Path::new("/proc").join(id.to_string()).as_path())
        })
    }
}

impl Api {
    /// What the API answers.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        let url = format!("http://{}{path}", self.address);
        Ok(self.client.get(url).send().await?.error_for_status()?.json().await?)
    }

    /// What the API answers as text, whatever the code.
    pub(crate) async fn get_text(&self, path: &str) -> Result<String, Failure> {
        let url = format!("http://{}{path}", self.address);
        Ok(self.client.get(url).send().await?.text().await?)
    }

    /// What a list of the API has, all in one page.
    pub(crate) async fn list(&self, name: &str) -> Result<Vec<Value>, Failure> {
        let mut answer = self.get(&format!("/api/v1/{name}?limit=1000")).await?;
        match (answer["items"].take(), &answer["next"]) {
            (Value::Array(items), Value::Null) => Ok(items),
            (items, next) => Err(format!("{name} are not all on a page: {next} comes behind {items}").into()),
        }
    }

    /// The rows that a running query keeps; `None` where it keeps none, so that there is nothing to be asked for.
    pub(crate) async fn rows_of(&self, query: &str) -> Result<Option<Vec<Value>>, Failure> {
        let answer = self.answer(&format!("SELECT * FROM {query}")).await?;
        let none = format!("table '{query}' not found");
        match answer["rows"].as_array() {
            Some(rows) => Ok(Some(rows.clone())),
            None if answer["detail"].as_str().is_some_and(|detail| detail.contains(&none)) => Ok(None),
            None => Err(format!("{query}: {answer}").into()),
        }
    }

    async fn answer(&self, sql: &str) -> Result<Value, Failure> {
        let url = format!("http://{}/api/v1/query", self.address);
        let body = serde_json::json!({ "sql": sql, "limit": 10_000 });
        Ok(self.client.post(url).json(&body).send().await?.json().await?)
    }

    /// Rows of a question.
    pub(crate) async fn query(&self, sql: &str) -> Result<Vec<Value>, Failure> {
        let answer = self.answer(sql).await?;
        match answer["rows"].as_array() {
            Some(rows) => Ok(rows.clone()),
            None => Err(format!("{sql}: {answer}").into()),
        }
    }
}

/// Whether a crash point ended it.
pub(crate) fn was_aborted(status: ExitStatus) -> bool {
    // SIGABRT has this number on every Unix.
    status.signal() == Some(6)
}

fn resident_bytes(process: &Path) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(process.join("status"))?;
    // A process that has ended and was not waited for yet is still listed, without its memory.
    let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmRSS:")) else {
        return Ok(0);
    };
    let kibibytes = line.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    Ok(kibibytes.ok_or_else(|| format!("no memory in {line:?}"))? * 1024)
}

#[test]
fn a_process_that_has_ended_has_no_memory() -> crate::TestResult {
    let mut child = std::process::Command::new("true").spawn()?;
    let process = Path::new("/proc").join(child.id().to_string());
    let deadline = std::time::Instant::now() + crate::PATIENCE;
    // Until it is waited for it is listed.
    while !std::fs::read_to_string(process.join("status"))?.contains("State:\tZ") {
        assert!(std::time::Instant::now() < deadline, "it does not end");
        std::thread::yield_now();
    }
    assert_eq!(resident_bytes(&process)?, 0);
    child.wait()?;
    assert!(resident_bytes(Path::new("/proc/self"))? > 0);
    Ok(())
}
