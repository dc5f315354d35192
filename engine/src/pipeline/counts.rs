//! Counts of the pipeline since the process started.

/// What the pipeline has counted since the process started.
#[derive(Debug, Clone, Copy, Default, serde::Serialize, utoipa::ToSchema)]
pub struct Counts {
    /// Messages taken from sources.
    pub messages: u64,
    /// Events understood, repetitions not counted.
    pub events: u64,
    /// Events that had come before.
    pub duplicates: u64,
    /// Payloads, or elements of one, that could not be read.
    pub refused: u64,
    /// Steps of alerts told.
    pub alert_steps: u64,
    /// Events whose device has a wrong clock.
    pub wrong_clocks: u64,
    /// Messages of sites that are other workers'.
    pub elsewhere: u64,
}
