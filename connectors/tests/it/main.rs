//! What holds for every source and every log, and what holds for one of them only.

#[macro_use]
mod log_contract;

mod checkpoints;
mod embedded;
mod embedded_log;
mod fluvio;
mod mosquitto;
mod remote;
mod small_disk;
mod source_contract;

/// Tests fail with whatever went wrong.
type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Longer than anything here takes on a busy machine; reaching it is a failure, never a way of waiting.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Waits for a future, and fails when it takes too long.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(PATIENCE, future)
        .await
        .map_err(|_| format!("waited {PATIENCE:?} for {what}"))
}
