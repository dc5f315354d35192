//! The shipped queries, inside the binary: each file of `queries/sql/`.

/// One file of statements that every Usher runs.
#[derive(Debug, Clone, Copy)]
pub struct ShippedFile {
    /// The file's name.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(ShippedFile { name: $name, text: include_str!(concat!("../sql/", $name)) }),*]
    };
}

/// All shipped files; a file may read the queries of the ones before it.
pub const SHIPPED: &[ShippedFile] = shipped![
    "occupancy.sql",
    "seats.sql",
    "visits.sql",
    "items.sql",
    "search.sql",
    "channels.sql",
    "devices.sql",
    "points.sql",
    "measures.sql",
    "services.sql",
    "engagement.sql",
];
