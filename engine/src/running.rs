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

/// Resolves at Ctrl-C or SIGTERM.
pub(crate) async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// Installs the recorder of the process and gives what renders it.
pub(crate) fn metrics_recorder() -> anyhow::Result<Arc<dyn Fn() -> String + Send + Sync>> {
    let handle = PrometheusBuilder::new()
        .install_recorder()
        .context("metrics can't be recorded")?;
    Ok(Arc::new(move || handle.render()))
}
