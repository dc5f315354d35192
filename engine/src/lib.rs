//! Gives meaning to columns and messages: settings and places, recordings and their mappings, the demo's crowd.

pub mod calendar;
pub mod check;
pub mod crowd;
pub mod day_figures;
pub mod mapping;
pub mod position;
pub mod recording;
pub mod reference;
pub mod replay;
pub mod settings;
pub mod site;
