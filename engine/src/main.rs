//! The binary `usher`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use usher_engine::check::check;
use usher_engine::mapping::Mappings;
use usher_engine::replay::{Progress, ReplayOptions, Speed, replay};

/// Steadier latency than the system allocator gives.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Done, failed while running, wrong usage or configuration: what scripts may hold on to.
const FAILED: u8 = 1;
const WRONG_CONFIGURATION: u8 = 2;

/// Usher perceives what happens in a library and tells those who can help.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reads a config folder, plans every query in it, starts nothing, and tells all mistakes
    Check {
        /// The folder with usher.toml, site.toml and queries/*.sql
        #[arg(long, default_value = "config")]
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
        #[arg(long, default_value = "mqtt://127.0.0.1:1883")]
        broker: String,
        /// The mapping to read the file with, when its name does not tell
        #[arg(long)]
        mapping: Option<String>,
        /// Connections side by side; a device stays on one
        #[arg(long, default_value_t = 8)]
        connections: usize,
    },
}

fn main() -> ExitCode {
    usher_connectors::install_crypto_provider();
    let result = match Arguments::parse().command {
        Command::Check { config } => return run_check(&config),
        Command::Replay {
            file,
            speed,
            broker,
            mapping,
            connections,
        } => run_replay(ReplayOptions {
            file,
            mapping,
            broker,
            speed,
            connections,
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("usher: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn run_check(config: &std::path::Path) -> ExitCode {
    match check(config) {
        Ok(checked) => {
            println!(
                "{} is right: {} shipped statements and {} of its own",
                config.display(),
                checked.shipped,
                checked.own
            );
            ExitCode::SUCCESS
        }
        Err(mistakes) => {
            for mistake in &mistakes {
                eprintln!("{mistake}");
            }
            ExitCode::from(WRONG_CONFIGURATION)
        }
    }
}

fn run_replay(options: ReplayOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("the async runtime could not be started")?;
    let mappings = Mappings::shipped();
    let tell = |progress: Progress<'_>| match progress {
        Progress::BadRow { line, what } => eprintln!("line {line}: {what}"),
        Progress::Sent {
            messages, confirmed, ..
        } => eprintln!("{messages} sent, {confirmed} confirmed"),
    };
    let replayed = runtime.block_on(replay(&options, &mappings, tell))?;
    println!(
        "{} messages confirmed, {} rows could not be read",
        replayed.confirmed, replayed.bad_rows
    );
    Ok(())
}
