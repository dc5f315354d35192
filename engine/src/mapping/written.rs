//! What stands in a mapping file, before anyone has asked what it means.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MappingWritten {
    pub(crate) name: Spanned<String>,
    /// Names of files it is for; `*` stands for any characters.
    #[serde(default)]
    pub(crate) files: Vec<String>,
    /// The event id of a row, a template.
    pub(crate) id: Option<Spanned<String>>,
    pub(crate) delimited: Option<DelimitedWritten>,
    pub(crate) lines: Option<LinesWritten>,
    pub(crate) time: TimeWritten,
    #[serde(default)]
    pub(crate) lookup: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    pub(crate) emit: Vec<EmitWritten>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DelimitedWritten {
    pub(crate) delimiter: Spanned<char>,
    pub(crate) header: HeaderWritten,
    pub(crate) columns: Vec<Spanned<String>>,
    #[serde(default)]
    pub(crate) optional: Vec<Spanned<String>>,
    #[serde(default = "yes")]
    pub(crate) quote: bool,
    /// Characters taken off both ends of a value, besides white space.
    #[serde(default)]
    pub(crate) trim: String,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HeaderWritten {
    Names,
    Skip,
    None,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinesWritten {
    pub(crate) pattern: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimeWritten {
    /// Joined by a blank before they are read.
    #[serde(default)]
    pub(crate) columns: Vec<Spanned<String>>,
    #[serde(default)]
    pub(crate) formats: Vec<Spanned<String>>,
    pub(crate) epoch: Option<Spanned<EpochWritten>>,
    pub(crate) zone: Option<Spanned<String>>,
    pub(crate) day: Option<Spanned<DayWritten>>,
    pub(crate) invent: Option<Spanned<InventWritten>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EpochWritten {
    S,
    Ms,
    Us,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DayWritten {
    pub(crate) column: Spanned<String>,
    /// The date of day 0.
    pub(crate) zero: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InventWritten {
    /// Every row at this time of day.
    pub(crate) at: Option<Spanned<String>>,
    /// The rows of a day evenly from the one to the other, in file order.
    pub(crate) spread: Option<Spanned<[String; 2]>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmitWritten {
    #[serde(default)]
    pub(crate) when: Vec<WhenWritten>,
    pub(crate) topic: Spanned<String>,
    #[serde(default)]
    pub(crate) payload: BTreeMap<Spanned<String>, Spanned<ValueWritten>>,
    pub(crate) difference: Option<DifferenceWritten>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhenWritten {
    pub(crate) column: Spanned<String>,
    pub(crate) is: Option<String>,
    #[serde(rename = "not")]
    pub(crate) is_not: Option<String>,
    #[serde(rename = "in")]
    pub(crate) is_in: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValueWritten {
    pub(crate) column: Option<Spanned<String>>,
    #[serde(rename = "const")]
    pub(crate) constant: Option<toml::Value>,
    #[serde(default, rename = "type")]
    pub(crate) kind: ValueKind,
    pub(crate) lookup: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) otherwise: Otherwise,
    /// Texts that stand for "no value": the member is left out.
    #[serde(default)]
    pub(crate) omit: Vec<String>,
}

/// What a text is to become in JSON.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ValueKind {
    #[default]
    String,
    Int,
    Float,
    Bool,
}

/// What becomes of a text its lookup does not hold.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Otherwise {
    /// The row is bad.
    #[default]
    Refuse,
    /// It stays as it is.
    Keep,
    /// The member is left out.
    Omit,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DifferenceWritten {
    pub(crate) column: Spanned<String>,
    /// The member that takes a rise.
    pub(crate) rise: String,
    /// The member that takes a fall.
    pub(crate) fall: String,
}
