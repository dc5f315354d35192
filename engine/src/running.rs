//! Running an engine until somebody or something ends it, and ending it well.

use std::sync::Arc;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio_util::sync::CancellationToken;
use usher_engine::engine::{Engine, EngineError};

/// An engine that runs, and what has to end before it.
pub(crate) struct Running {
    engine: Engine,
    before: Option<CancellationToken>,
}

impl Running {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, before: None }
    }

    /// Cancelled before the engine is drained.
    pub(crate) fn with(mut self, before: CancellationToken) -> Self {
        self.before = Some(before);
        self
    }

    /// Runs until `ended`, then drains, saves and ends.
    ///
    /// # Errors
    /// Why it ended by itself, or could not end well.
    pub(crate) async fn until(mut self, ended: impl Future<Output = ()>) -> Result<(), EngineError> {
        let failure = tokio::select! {
            () = ended => None,
            failure = self.engine.failed() => Some(failure),
        };
        if let Some(before) = self.before {
            before.cancel();
        }
        match failure {
            None => {
                tracing::info!("stopping: finishing what came in, then saving");
                // Whoever asks twice does not want to wait.
                tokio::select! {
                    stopped = self.engine.stop() => stopped,
                    () = interrupted() => {
                        tracing::warn!("stopped at once; the log has everything that was acknowledged");
                        Ok(())
                    }
                }
            }
            Some(failure) => {
                let _ = self.engine.stop().await;
                Err(failure)
            }
        }
    }
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
