//! A soak: the real binary under a steady load for a long time. Does memory grow, do files stay open, is an alert missed?
//!
//! `soak [--minutes 30] [--rate 20000] [--warm-up MINUTES] [--usher PATH]`; the binary is taken from beside this one.

mod device;
mod house;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

use crate::house::Done;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SAMPLE: Duration = Duration::from_secs(5);
/// A line is printed after so many samples.
const SAMPLES_A_LINE: usize = 12;
/// How long the last alerts may take: the watermark waits for silent devices.
const LAST_ALERTS: Duration = Duration::from_secs(30);
/// Open files may grow by so many, the least of the last third after the warm-up against the least of the first: what a
/// checkpoint or a flush of the log opens for a while does not count, but the log has more segments.
const FILES_SLACK: u64 = 8;
/// Memory may grow by so much, the mean of the last third after the warm-up against that of the first.
const MEMORY_SLACK: f64 = 0.03;
/// What is kept for an hour or for a million events is not there sooner, and memory grows until then.
const WARM_UP_MIN: Duration = Duration::from_mins(6);
/// Of the rate that was asked for so much has to be reached.
const RATE_MIN: f64 = 0.97;
/// Where the threads of the generator stand, of 0 to 99: nine steps of niceness behind the engine, which is started with that of
/// this process. Its devices are elsewhere in truth, and do not interrupt it for some milliseconds each.
const PRIORITY: u8 = 25;
const MIB: f64 = 1024.0 * 1024.0;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Arguments {
    length: Duration,
    warm_up: Duration,
    rate: f64,
    usher: PathBuf,
}

impl Arguments {
    fn read() -> Result<Self, Failure> {
        let beside = std::env::current_exe()?.with_file_name("usher");
        let (mut minutes, mut rate, mut warm_up, mut usher) = (30.0, 20_000.0, None, beside);
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--minutes" => minutes = value.parse()?,
                "--rate" => rate = value.parse()?,
                "--warm-up" => warm_up = Some(value.parse()?),
                "--usher" => usher = value.into(),
                _ => return Err(format!("there is no {name}: --minutes, --rate, --warm-up, --usher").into()),
            }
        }
        if !usher.is_file() {
            return Err(format!("there is no {}: cargo build --release makes it", usher.display()).into());
        }
        let of_minutes = |minutes: f64| Duration::from_secs_f64(minutes * 60.0);
        Ok(Self {
            length: of_minutes(minutes),
            // A million event ids fill in the first minute; what follows is what stays.
            warm_up: of_minutes(warm_up.unwrap_or(minutes / 5.0)),
            rate,
            usher,
        })
    }
}

/// The running binary; dropping it ends it.
struct Usher {
    child: Child,
    mqtt: SocketAddr,
    http: SocketAddr,
}

impl Usher {
    fn start(program: &Path, folder: &Path) -> Result<Self, Failure> {
        let config = folder.join("config");
        std::fs::create_dir_all(&config)?;
        std::fs::write(config.join("site.toml"), house::site())?;
        std::fs::write(config.join("usher.toml"), house::SETTINGS)?;
        let mut child = Command::new(program)
            .arg("run")
            .arg("--config")
            .arg(&config)
            .arg("--data")
            .arg(folder.join("data"))
            .args(["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("it has an output")?).read_line(&mut line)?;
        let word = |name: &str| {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            word.ok_or_else(|| format!("no {name} in the line {line:?}"))
        };
        Ok(Self {
            mqtt: word("mqtt=")?.parse()?,
            http: word("http=")?.parse()?,
            child,
        })
    }

    fn sample(&self, at: Duration) -> Result<Sample, Failure> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = std::fs::read_to_string(process.join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes: f64 = line
            .and_then(|line| line.split_whitespace().next())
            .ok_or("no VmRSS")?
            .parse()?;
        Ok(Sample {
            at,
            resident: kibibytes * 1024.0,
            files: std::fs::read_dir(process.join("fd"))?.count() as u64,
        })
    }

    /// What it says of itself.
    fn status(&self) -> Result<Value, Failure> {
        let mut stream = TcpStream::connect(self.http)?;
        stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("an answer has a body")?;
        Ok(serde_json::from_str(body)?)
    }
}

impl Drop for Usher {
    fn drop(&mut self) {
        // One that has ended already can't be killed, and need not be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Copy)]
struct Sample {
    at: Duration,
    resident: f64,
    files: u64,
}

/// Alerts that were raised, by rule and subject: their ids.
type Raised = Arc<Mutex<BTreeMap<(String, String), BTreeSet<String>>>>;

async fn listen(mqtt: SocketAddr, raised: Raised) -> Result<(), Failure> {
    let mut options = MqttOptions::new("soak-listener", (mqtt.ip().to_string(), mqtt.port()));
    options.set_keep_alive(30);
    let (client, mut events) = AsyncClient::builder(options).capacity(16).build();
    client.subscribe("usher/out/+/alert-event/+", QoS::AtLeastOnce).await?;
    let (ready_in, ready) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let _client = client;
        let mut ready_in = Some(ready_in);
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::SubAck(_))) => {
                    let _ = ready_in.take().map(|ready| ready.send(()));
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let alert: Value = serde_json::from_slice(&publish.payload).unwrap_or_default();
                    if alert["state"] == "active" {
                        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                        let subject = match alert["subject"]["kind"].as_str() {
                            Some("person") => String::new(),
                            _ => text(&alert["subject"]["id"]),
                        };
                        let mut raised = raised.lock().expect("no holder of this lock panics");
                        raised
                            .entry((text(&alert["rule"]), subject))
                            .or_default()
                            .insert(text(&alert["id"]));
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    eprintln!("the listener lost the broker: {error}");
                    return;
                }
            }
        }
    });
    ready.await?;
    Ok(())
}

async fn soak(arguments: &Arguments) -> Result<bool, Failure> {
    let folder = tempfile::tempdir()?;
    let usher = Usher::start(&arguments.usher, folder.path())?;
    let raised = Raised::default();
    listen(usher.mqtt, Arc::clone(&raised)).await?;
    let (done, stop) = (Arc::new(Done::default()), Arc::new(AtomicBool::new(false)));
    let begun = Instant::now();
    let loading = tokio::spawn({
        let (mqtt, rate, stop, done) = (usher.mqtt, arguments.rate, Arc::clone(&stop), Arc::clone(&done));
        async move { house::load(mqtt, rate, &stop, &done).await }
    });
    let causing = tokio::spawn({
        let (mqtt, length, done) = (usher.mqtt, arguments.length, Arc::clone(&done));
        async move { house::cause_alerts(mqtt, length, &done).await }
    });
    println!("   time  events/s   memory MiB  open files  alerts raised of expected");
    let mut samples = vec![usher.sample(Duration::ZERO)?];
    let mut before = (begun.elapsed(), 0);
    while begun.elapsed() < arguments.length {
        tokio::time::sleep(SAMPLE.min(arguments.length.saturating_sub(begun.elapsed()))).await;
        let sample = usher.sample(begun.elapsed())?;
        samples.push(sample);
        if samples.len() % SAMPLES_A_LINE == 1 {
            let answered = done.answered.load(Ordering::Relaxed);
            let rate = (answered - before.1) as f64 / (sample.at - before.0).as_secs_f64();
            before = (sample.at, answered);
            println!(
                "{:>5.0} s  {rate:>8.0}  {:>11.1}  {:>10}  {} of {}",
                sample.at.as_secs_f64(),
                sample.resident / MIB,
                sample.files,
                counted(&raised),
                done.expected
                    .lock()
                    .expect("no holder of this lock panics")
                    .values()
                    .sum::<u64>()
            );
        }
    }
    stop.store(true, Ordering::Relaxed);
    loading.await??;
    causing.await??;
    let took = begun.elapsed();
    let deadline = Instant::now() + LAST_ALERTS;
    let expected = done.expected.lock().expect("no holder of this lock panics").clone();
    while Instant::now() < deadline && difference(&expected, &raised).0 > 0 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (missed, unexpected) = difference(&expected, &raised);
    let (sent, answered) = (done.sent.load(Ordering::Relaxed), done.answered.load(Ordering::Relaxed));
    let status = usher.status()?;
    let events = status["counts"]["events"].as_u64().ok_or("it counts events")?;
    let rate = answered as f64 / took.as_secs_f64();
    let grown = report(&samples, arguments.warm_up);
    println!("events: {sent} sent, {answered} acknowledged, {events} counted; {rate:.0} a second");
    println!(
        "alerts: {} expected, {} raised, {missed} missed, {unexpected} not expected",
        expected.values().sum::<u64>(),
        counted(&raised)
    );
    let counted_waits = [
        ("checkpoint_turn", "times that events waited for a checkpoint"),
        ("checkpoint_pause", "checkpoints, the longest time of each"),
    ];
    for (field, what) in counted_waits {
        let waits = &status[field];
        let millis = |at: &str| waits[at].as_f64().unwrap_or(f64::NAN) / 1e3;
        println!(
            "{} {what}: {:.1} ms at the median, {:.1} ms at 99 %, {:.1} ms at most",
            waits["count"],
            millis("p50_us"),
            millis("p99_us"),
            millis("max_us")
        );
    }
    let is_warm = arguments.warm_up >= WARM_UP_MIN;
    let wrongs = [
        (
            rate < RATE_MIN * arguments.rate,
            "the rate that was asked for was not reached",
        ),
        (is_warm && grown.memory > MEMORY_SLACK, "memory grows"),
        (missed > 0, "alerts were missed"),
        (unexpected > 0, "alerts were raised that nobody expected"),
        (answered != sent || events != sent, "events were lost, or counted twice"),
        (grown.files > FILES_SLACK, "files stay open"),
    ];
    for (_, wrong) in wrongs.iter().filter(|(is_so, _)| *is_so) {
        println!("wrong: {wrong}");
    }
    Ok(wrongs.iter().all(|(is_so, _)| !is_so))
}

fn counted(raised: &Raised) -> usize {
    let raised = raised.lock().expect("no holder of this lock panics");
    raised.values().map(BTreeSet::len).sum()
}

/// Alerts missed, and alerts that nobody expected.
fn difference(expected: &BTreeMap<(String, String), u64>, raised: &Raised) -> (u64, u64) {
    let raised = raised.lock().expect("no holder of this lock panics");
    let there = |key: &(String, String)| raised.get(key).map_or(0, |ids| ids.len() as u64);
    let missed = expected
        .iter()
        .map(|(key, wanted)| wanted.saturating_sub(there(key)))
        .sum();
    let wanted = |key: &(String, String)| expected.get(key).copied().unwrap_or(0);
    let unexpected = raised.keys().map(|key| there(key).saturating_sub(wanted(key))).sum();
    (missed, unexpected)
}

/// By how much the last third of a run has more than the first.
#[derive(Default)]
struct Grown {
    /// A share of what the first has.
    memory: f64,
    files: u64,
}

/// Prints how memory and files went after the warm-up.
fn report(samples: &[Sample], warm_up: Duration) -> Grown {
    let warm: Vec<Sample> = samples.iter().filter(|sample| sample.at >= warm_up).copied().collect();
    let (Some(first), Some(last)) = (warm.first(), warm.last()) else {
        println!("memory: nothing was measured after the warm-up");
        return Grown::default();
    };
    // The line through all samples: a single one may fall into a flush of the log.
    let count = warm.len() as f64;
    let hours = |sample: &Sample| sample.at.as_secs_f64() / 3600.0;
    let (mean_h, mean_b) = (
        warm.iter().map(hours).sum::<f64>() / count,
        warm.iter().map(|sample| sample.resident).sum::<f64>() / count,
    );
    let spread: f64 = warm.iter().map(|sample| (hours(sample) - mean_h).powi(2)).sum();
    let together: f64 = warm
        .iter()
        .map(|sample| (hours(sample) - mean_h) * (sample.resident - mean_b))
        .sum();
    let most = warm.iter().map(|sample| sample.resident).fold(0.0, f64::max);
    println!(
        "memory: {:.1} MiB at {:.0} s after the warm-up, {:.1} MiB at the end, {:.1} MiB at most, {:+.1} MiB an hour",
        first.resident / MIB,
        first.at.as_secs_f64(),
        last.resident / MIB,
        most / MIB,
        if spread > 0.0 { together / spread / MIB } else { 0.0 }
    );
    let third = warm.len().div_ceil(3);
    let (early, late) = (&warm[..third], &warm[warm.len() - third..]);
    let mean = |samples: &[Sample]| samples.iter().map(|sample| sample.resident).sum::<f64>() / samples.len() as f64;
    let fewest = |samples: &[Sample]| samples.iter().map(|sample| sample.files).min().unwrap_or(0);
    let grown = Grown {
        memory: mean(late) / mean(early) - 1.0,
        files: fewest(late).saturating_sub(fewest(early)),
    };
    println!(
        "the last third after the warm-up against the first: memory {:+.1} %, at least {} open files and {}",
        grown.memory * 100.0,
        fewest(late),
        fewest(early)
    );
    grown
}

/// Lets the engine go first on this thread's core.
fn stand_behind() {
    let priority = ThreadPriorityValue::try_from(PRIORITY).map(ThreadPriority::Crossplatform);
    if !priority.is_ok_and(|priority| set_current_thread_priority(priority).is_ok()) {
        eprintln!("the generator has the priority of the engine, and pauses are longer for it");
    }
}

fn main() -> ExitCode {
    let soaked = Arguments::read().and_then(|arguments| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .on_thread_start(stand_behind)
            .enable_all()
            .build()?;
        runtime.block_on(soak(&arguments))
    });
    match soaked {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
