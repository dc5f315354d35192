//! An erasure takes a person out of everything: what the engine knows at once, what lies on the disk soon after.
//!
//! Afterwards the state is that of a log in which the person was never named; only totals that name nobody still count what the
//! person did. docs/PRIVACY.md tells it step by step.

mod anonymous;
mod export;
mod naming;
mod receipts;
mod scan;
mod who;
mod worker;

pub use self::anonymous::{anonymous, is_theirs, without_person};
pub use self::export::{Export, exported};
pub use self::naming::forget_in;
pub use self::receipts::{Done, Erasure, Erasures, InState, OnDisk, Progress, Receipt, ReceiptView, Stays};
pub use self::who::{Mark, Salt, Who};
pub use self::worker::{Copies, Erasing, ErasureError, KeepFrom, Parts};
