//! Continuous SQL: columns and time go in, rows of standing queries come out; nothing here has heard of MQTT.
//!
//! A statement is read by [`statement`], planned by [`planner`] on stock DataFusion, accepted or refused as a
//! whole, and compiled by [`compile`] into operators that [`query_set`] steps with a batch and a watermark.

mod accumulator;
mod aggregate;
pub mod bounded;
pub mod catalog;
mod compile;
pub mod error;
pub mod flow;
mod join;
mod keys;
pub mod operator;
mod planner;
pub mod query;
pub mod query_set;
pub mod rows;
pub mod shipped;
pub mod snapshot;
pub mod statement;
pub mod streams;
mod typed;
pub mod watermark;
pub mod window;

#[cfg(test)]
mod golden;
