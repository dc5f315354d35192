//! Running an engine until somebody or something ends it, and ending it well.

use std::sync::Arc;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusBuilder;
use usher_engine::engine::{Engine, EngineError};

/// Runs an engine until `ended`; then lets `before` come to its end, drains, saves and ends the engine.
///
/// # Errors
/// Why it ended by itself, or could not end well.
pub(crate) async fn run_until(
    mut engine: Engine,
    ended: impl Future<Output = ()>,
    before: impl Future<Output = ()>,
) -> Result<(), EngineError> {
    let failure = tokio::select! {
        () = ended => None,
        failure = engine.failed() => Some(failure),
    };
    tracing::info!("stopping: finishing what came in, then saving");
    let stopping = async {
        before.await;
        engine.stop().await
    };
    // Whoever asks twice does not want to wait.
    let stopped = tokio::select! {
        stopped = stopping => stopped,
        () = interrupted() => {
            tracing::warn!("stopped at once; the log has everything that was acknowledged");
            Ok(())
        }
    };
    failure.map_or(stopped, Err)
}

/// Resolves at Ctrl-C or SIGTERM, from the call on: whoever was told that it is ready may end it at once, and well.
#[cfg(unix)]
pub(crate) fn interrupted() -> impl Future<Output = ()> {
    use tokio::signal::unix::{Signal, SignalKind, signal};
    async fn heard(signal: Option<Signal>) {
        match signal {
            Some(mut signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    }
    let listen = |kind| signal(kind).ok();
    let (terminate, interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    async {
        tokio::select! {
            () = heard(terminate) => {}
            () = heard(interrupt) => {}
        }
    }
}

/// Resolves at Ctrl-C.
#[cfg(not(unix))]
pub(crate) async fn interrupted() {
    drop(tokio::signal::ctrl_c().await);
}

/// Installs the recorder of the process and gives what renders it.
pub(crate) fn metrics_recorder() -> anyhow::Result<Arc<dyn Fn() -> String + Send + Sync>> {
    let handle = PrometheusBuilder::new()
        .install_recorder()
        .context("metrics can't be recorded")?;
    Ok(Arc::new(move || handle.render()))
}
