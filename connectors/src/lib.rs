//! Carries bytes and offsets: MQTT in and out, webhooks out, the durable log, and Fluvio. It never reads what it carries.

use std::future::Future;
use std::pin::Pin;

pub mod back_off;
mod batch_frame;
pub mod broker_url;
pub mod checkpoint;
pub mod client;
pub mod crash_point;
pub mod delivery;
mod device_access;
pub mod embedded_broker;
pub mod embedded_log;
mod entrance;
pub mod fluvio;
mod journal;
mod link;
pub mod log;
mod log_store;
mod log_writer;
pub mod message;
mod owner;
pub mod partition;
mod publish_gate;
pub mod publisher;
mod purge;
pub mod remote_broker;
mod room;
mod segment;
mod session_file;
pub mod source;
pub mod spool;
pub mod webhook;

/// A future that is boxed, because a trait object has to return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes `ring` the crypto provider of this process.
///
/// Call it first in `main`: with two providers linked and none chosen, the first TLS connection panics.
/// Calling it again, or after somebody else chose, changes nothing.
pub fn install_crypto_provider() {
    // An error means that one is installed already, which is all that is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
