//! Fluvio, where several machines share what happens: its partitions as logs, and topics that are told.
//!
//! Fluvio repeats, loses and reorders in ways that were met one by one; what guards against each is said where it stands,
//! and all of it in docs/decisions/0008-fluvio.md.

pub mod cluster;
mod fold;
mod frame;
pub mod log;
mod reader;
mod socket;
mod state;
pub mod topic;
mod worker;
