//! Continuous SQL: columns and time go in, rows of standing queries come out; nothing here has heard of MQTT.
//!
//! A statement is read by [`statement`], planned by [`planner`] on stock DataFusion, accepted or refused as a
//! whole, and compiled by [`compile`] into operators that [`query_set`] steps with a batch and a watermark.

mod absence;
pub mod absent;
mod accumulator;
mod aggregate;
mod as_of;
mod assign_windows;
mod below;
pub mod bounded;
pub mod budget;
pub mod capture;
pub mod carried;
pub mod catalog;
pub mod civil_time;
mod compile;
mod computed;
pub mod cost;
pub mod error;
#[cfg(test)]
mod faults;
pub mod flow;
pub mod forgetting;
mod functions;
mod grouped;
pub mod in_parts;
mod interval_join;
mod join;
mod key_bytes;
mod keys;
mod match_recognize;
mod memory_budget;
mod misread;
mod narrowing;
pub mod operator;
mod picked;
mod pipeline;
mod planner;
mod plans;
pub mod purpose;
pub mod query;
pub mod query_set;
pub mod references;
pub mod row;
mod row_pattern;
pub mod rows;
mod session;
mod shared_window;
pub mod shipped;
mod slot;
pub mod snapshot;
pub mod statement;
pub mod streams;
pub mod tagged;
mod time_bound;
mod tokens;
mod typed;
pub mod value;
pub mod watermark;
pub mod window;

#[cfg(test)]
mod batches;
#[cfg(test)]
mod behind;
#[cfg(test)]
mod documentation;
#[cfg(test)]
mod feeding;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod nexmark;
#[cfg(test)]
mod oracle;
