//! A view is what people see of a receiver and of its dead letters.

use serde::Serialize;

use crate::alert::Alert;
use crate::messages::MessageView;

/// A receiver in figures and words.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct ReceiverView {
    /// Its name in the settings.
    pub name: String,
    /// `mqtt`, `webhook` or `fluvio`.
    pub kind: &'static str,
    /// Where it is, without passwords.
    pub address: String,
    /// Its breaker: `closed` when it is sent to, `open` after failures in a row, `half-open` while one step is tried.
    pub state: &'static str,
    /// The same in words.
    pub words: String,
    /// Steps it does not have yet; those it does not want are counted until they are looked at.
    pub waiting: u64,
    /// Of these, under way.
    pub under_way: usize,
    /// Since when the oldest of them waits, RFC 3339.
    pub waiting_since: Option<String>,
    /// Steps it took since the start.
    pub sent: u64,
    /// Tries that failed since the start.
    pub failed: u64,
    /// Dead letters.
    pub dead: usize,
    /// Steps that were dropped because too many waited, since the start.
    pub lost: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// A step that a receiver will not take.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct DeadLetterView {
    /// The id of the step.
    pub id: String,
    /// Why it was not taken.
    pub reason: String,
    /// How often it was tried.
    pub tries: u32,
    /// Since when it is dead, RFC 3339.
    pub dead_at: String,
    /// When the step was told, RFC 3339.
    pub told_at: String,
    /// Whether it is on its way again.
    pub resent: bool,
    /// The alert as it was told, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert: Option<Alert>,
    /// The message, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageView>,
}
