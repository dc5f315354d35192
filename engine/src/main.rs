//! The binary `usher`.

mod running;
mod screen;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};
use usher_engine::allocator::keep_memory;
use usher_engine::answer::{self, Format};
use usher_engine::check::check;
use usher_engine::demo::{self, DemoOptions};
use usher_engine::dropped;
use usher_engine::engine::{Engine, EngineError, EngineOptions};
use usher_engine::mapping::Mappings;
use usher_engine::oversized;
use usher_engine::position::Mistake;
use usher_engine::replay::{Pace, Progress, ReplayOptions, Speed, replay};
use usher_engine::settings::{Flags, Settings};
use usher_engine::site::Places;

use crate::running::{interrupted, metrics_recorder, run_until};

/// Steadier latency than the system allocator gives.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Done, failed while running, wrong usage or configuration: what scripts may hold on to.
const FAILED: u8 = 1;
const WRONG_CONFIGURATION: u8 = 2;
/// How long the last messages of the demo's day may take to be confirmed.
const LAST_MESSAGES: Duration = Duration::from_secs(3);
/// The config folder when nobody names one.
const CONFIG: &str = "config";

/// Usher perceives what happens in a library and tells those who can help.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Addresses {
    /// Where devices publish: an address for the embedded broker, or the mqtt:// or mqtts:// URL of your own
    #[arg(long, value_name = "ADDR or URL")]
    mqtt: Option<String>,
    /// Where the staff page and the API are
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Where anybody may see how full it is, and nothing else; nowhere when left out
    #[arg(long, value_name = "ADDR")]
    public: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows everything at once: broker, engine, staff page, and a library's day that comes in by MQTT
    Demo {
        /// How many times faster than life, or max
        #[arg(long, default_value_t = demo::SPEED.to_string())]
        speed: String,
        /// A recording instead of the invented day
        #[arg(long, value_name = "FILE")]
        recording: Option<PathBuf>,
        /// Another number makes another crowd
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        addresses: Addresses,
    },
    /// Runs the engine
    Run {
        /// The folder with usher.toml, site.toml, identities.csv, groups.csv and queries/*.sql
        #[arg(long, value_name = "DIR")]
        config: Option<PathBuf>,
        #[command(flatten)]
        addresses: Addresses,
        /// The folder of log, checkpoints and secret
        #[arg(long, value_name = "DIR")]
        data: Option<String>,
    },
    /// Reads a config folder, plans every query in it, starts nothing, and tells all mistakes
    Check {
        /// The folder with usher.toml, site.toml, identities.csv, groups.csv and queries/*.sql
        #[arg(long, value_name = "DIR", default_value = CONFIG)]
        config: PathBuf,
    },
    /// Publishes a recording with its own spacing
    Replay {
        /// NDJSON with a line {"topic":…, "payload":…, "at":…}, or a file that a mapping knows
        file: PathBuf,
        /// How many times faster than it was, or max
        #[arg(long, default_value = "1")]
        speed: Speed,
        /// Where to publish
        #[arg(long, value_name = "URL", default_value = "mqtt://127.0.0.1:1883")]
        broker: String,
        /// The mapping to read the file with, when its name does not tell
        #[arg(long)]
        mapping: Option<String>,
        /// Connections side by side; a device stays on one
        #[arg(long, default_value_t = 8)]
        connections: usize,
    },
    /// Asks a running engine, or a recording, in SQL
    Query {
        /// The question
        sql: String,
        /// A recording to ask instead of a running engine
        #[arg(long, value_name = "FILE")]
        over: Option<PathBuf>,
        /// The mapping to read it with, when its name does not tell
        #[arg(long, requires = "over")]
        mapping: Option<String>,
        /// The folder with site.toml, for zones, seats and devices
        #[arg(long, value_name = "DIR", requires = "over")]
        config: Option<PathBuf>,
        /// How to print the rows
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
        #[command(flatten)]
        engine: EngineAddress,
    },
    /// Shows the plan, window, watermark, state and cost of a running query
    Explain {
        /// Its name
        query: String,
        #[command(flatten)]
        engine: EngineAddress,
    },
    /// Shows a running engine on one screen
    Status {
        #[command(flatten)]
        engine: EngineAddress,
    },
}

#[derive(Debug, Args)]
struct EngineAddress {
    /// Where the running engine's API is
    #[arg(long, value_name = "ADDR", env = "USHER_HTTP", default_value = "127.0.0.1:8080")]
    http: String,
}

/// Why a command did not do what it should.
enum Failure {
    /// To be put right by whoever called it.
    Usage(String),
    /// Anything else.
    Running(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Running(error.into())
    }
}

fn mistakes(mistakes: &[Mistake]) -> Failure {
    Failure::Usage(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

fn engine_failure(error: EngineError) -> Failure {
    match error {
        EngineError::Configuration(found) => mistakes(&found),
        EngineError::OfNewerVersion(words) | EngineError::Unfit(words) => Failure::Usage(words),
        EngineError::Failed(_) => Failure::Running(error.into()),
    }
}

fn main() -> ExitCode {
    usher_connectors::install_crypto_provider();
    let arguments = Arguments::parse();
    if matches!(arguments.command, Command::Demo { .. } | Command::Run { .. }) {
        keep_memory();
    }
    write_log_lines();
    match perform(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(words)) => {
            eprintln!("{words}");
            ExitCode::from(WRONG_CONFIGURATION)
        }
        Err(Failure::Running(error)) => {
            eprintln!("usher: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Log lines go to standard error: for people on a terminal, as JSON when not. `USHER_LOG_LEVEL` says how many.
fn write_log_lines() {
    let filter = std::env::var("USHER_LOG_LEVEL")
        .ok()
        .filter(|text| !text.is_empty())
        .and_then(|text| EnvFilter::try_new(text).ok())
        // Other libraries' notes are for their developers.
        .unwrap_or_else(|| {
            // Fluvio's call each attempt an error; what became of it is said by ours.
            EnvFilter::new(
                "warn,usher=info,usher_engine=info,usher_connectors=info,usher_queries=info,fluvio=off,fluvio_socket=off",
            )
        })
        .and(dropped::seldom());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let read = tracing_subscriber::registry()
        .with(oversized::reader())
        .with(dropped::reader());
    if std::io::stderr().is_terminal() {
        read.with(lines.with_target(false).compact().with_filter(filter)).init();
    } else {
        read.with(lines.json().with_filter(filter)).init();
    }
}

fn perform(command: Command) -> Result<(), Failure> {
    match command {
        Command::Check { config } => run_check(&config),
        Command::Demo {
            speed,
            recording,
            seed,
            addresses,
        } => {
            let speed = speed.parse().map_err(Failure::Usage)?;
            let options = DemoOptions { speed, recording, seed };
            runtime()?.block_on(run_demo(options, addresses))
        }
        Command::Run {
            config,
            addresses,
            data,
        } => runtime()?.block_on(run(config, addresses, data)),
        Command::Replay {
            file,
            speed,
            broker,
            mapping,
            connections,
        } => {
            let pace = Pace {
                broker,
                speed,
                connections,
                longest_pause: None,
            };
            runtime()?.block_on(run_replay(ReplayOptions { file, mapping, pace }))
        }
        Command::Query {
            sql,
            over,
            mapping,
            config,
            format,
            engine,
        } => {
            let runtime = runtime()?;
            let rows = match over {
                Some(file) => {
                    let dir = config.unwrap_or_else(|| CONFIG.into());
                    let places = Arc::new(Places::load(&dir).unwrap_or_default());
                    let folder = dir.is_dir().then_some(dir.as_path());
                    let settings = Settings::load(folder, &Flags::default())
                        .or_else(|_| Settings::load_with(None, [], &Flags::default()))
                        .map_err(|found| mistakes(&found))?;
                    let rules = || answer::rules(&settings, &places, folder, |mistake| eprintln!("{mistake}"));
                    let mut bad = 0_u64;
                    let tell = |what: String| {
                        bad += 1;
                        if bad <= 10 {
                            eprintln!("{what}");
                        }
                    };
                    let rows = runtime.block_on(answer::over(
                        &sql,
                        &file,
                        mapping.as_deref(),
                        &places,
                        &settings.engagement,
                        rules,
                        tell,
                    ));
                    if bad > 10 {
                        eprintln!("{} more could not be read", bad - 10);
                    }
                    match rows {
                        Err(answer::AnswerError::Question(error)) => return Err(Failure::Usage(error.to_string())),
                        rows => rows?,
                    }
                }
                None => runtime.block_on(screen::ask(&engine.http, &sql))?,
            };
            print!("{}", rows.print(format)?);
            Ok(())
        }
        Command::Explain { query, engine } => {
            print!("{}", runtime()?.block_on(screen::explain(&engine.http, &query))?);
            Ok(())
        }
        Command::Status { engine } => {
            print!("{}", runtime()?.block_on(screen::status(&engine.http))?);
            Ok(())
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    usher_engine::runtime::runtime().context("the async runtime could not be started")
}

fn run_check(config: &Path) -> Result<(), Failure> {
    let checked = check(config).map_err(|found| mistakes(&found))?;
    for warning in &checked.warnings {
        eprintln!("warning: {warning}");
    }
    println!(
        "{} is right: {} shipped statements and {} of its own",
        config.display(),
        checked.shipped,
        checked.own
    );
    Ok(())
}

async fn run(config: Option<PathBuf>, addresses: Addresses, data: Option<String>) -> Result<(), Failure> {
    // A folder that was named has to be there; the usual one may be missing.
    let config = config.or_else(|| Some(PathBuf::from(CONFIG)).filter(|dir| dir.is_dir()));
    let flags = Flags {
        mqtt: addresses.mqtt,
        http: addresses.http,
        public: addresses.public,
        data,
    };
    let settings = Settings::load(config.as_deref(), &flags).map_err(|found| mistakes(&found))?;
    let places = match &config {
        Some(dir) => Places::load(dir).map_err(|found| mistakes(&found))?,
        None => Places::default(),
    };
    let engine = Engine::start(EngineOptions {
        settings,
        places,
        config,
        metrics: metrics_recorder()?,
    })
    .await
    .map_err(engine_failure)?;
    let interrupted = interrupted();
    println!("{}", engine.ready_line());
    run_until(engine, interrupted, async {}).await.map_err(engine_failure)
}

async fn run_demo(options: DemoOptions, addresses: Addresses) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("usher-demo-").tempdir()?;
    let flags = Flags {
        mqtt: addresses.mqtt,
        http: addresses.http,
        public: addresses.public,
        data: None,
    };
    let demo_failure = |error| match error {
        demo::DemoError::Configuration(found) => mistakes(&found),
        error => Failure::Running(error.into()),
    };
    let settings = demo::settings(flags, folder.path()).map_err(demo_failure)?;
    let places = demo::places().map_err(demo_failure)?;
    let zone = places
        .sites()
        .next()
        .map_or(chrono_tz::UTC, |site| site.calendar.time_zone());
    let engine = Engine::start(EngineOptions {
        settings,
        places,
        config: None,
        metrics: metrics_recorder()?,
    })
    .await
    .map_err(engine_failure)?;
    let broker = engine
        .mqtt_address
        .map_or_else(|| engine.mqtt.clone(), |address| format!("mqtt://{address}"));
    let interrupted = interrupted();
    println!("{}", engine.ready_line());
    screen::welcome(&engine, &options);
    let stop = CancellationToken::new();
    let alerts = tokio::spawn(screen::tell_alerts(
        engine.bus().subscribe(None).receiver,
        engine.bus().messages(),
        zone,
        stop.clone(),
    ));
    let answers = tokio::spawn({
        let (messages, broker) = (engine.bus().messages(), broker.clone());
        let (speed, stop) = (options.speed, stop.clone());
        async move {
            if let Err(error) = demo::answer(messages, &broker, speed, &stop).await {
                tracing::warn!(%error, "nobody answers messages");
            }
        }
    });
    let (failed_in, failed) = tokio::sync::oneshot::channel::<()>();
    let day = tokio::spawn({
        let stop = stop.clone();
        async move {
            let performed = demo::perform(&options, broker, &stop).await;
            match &performed {
                Ok(replayed) if !stop.is_cancelled() => {
                    eprintln!(
                        "  {} messages were published; the page stays until Ctrl-C",
                        replayed.confirmed
                    );
                    // Held until the end: a day that is over is no failure.
                    stop.cancelled().await;
                }
                Ok(_) => {}
                Err(_) => drop(failed_in),
            }
            performed
        }
    });
    let ended = async {
        tokio::select! {
            () = interrupted => {}
            _ = failed => {}
        }
    };
    let mut performed = None;
    let last_messages = async {
        stop.cancel();
        alerts.abort();
        answers.abort();
        let abort = day.abort_handle();
        match tokio::time::timeout(LAST_MESSAGES, day).await {
            Ok(ended) => performed = ended.ok(),
            Err(_) => abort.abort(),
        }
    };
    run_until(engine, ended, last_messages).await.map_err(engine_failure)?;
    match performed {
        Some(Err(error)) => Err(demo_failure(error)),
        Some(Ok(_)) | None => Ok(()),
    }
}

async fn run_replay(options: ReplayOptions) -> Result<(), Failure> {
    let mappings = Mappings::shipped();
    let stop = CancellationToken::new();
    let tell = |progress: Progress<'_>| match progress {
        Progress::BadRow { line, what } => eprintln!("line {line}: {what}"),
        Progress::Sent {
            messages,
            confirmed,
            at_us,
        } => {
            let at = usher_queries::rows::time_to_text(at_us);
            eprintln!("{messages} sent, {confirmed} confirmed, at {at}");
        }
    };
    let replayed = tokio::select! {
        replayed = replay(&options, &mappings, &stop, tell) => replayed?,
        () = interrupted() => {
            eprintln!("interrupted; what was confirmed is with the broker");
            return Ok(());
        }
    };
    println!(
        "{} messages confirmed, {} rows could not be read",
        replayed.confirmed, replayed.bad_rows
    );
    Ok(())
}
