//! Seats keep what each seat last said, as the query `seat_state` tells it, and since when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use usher_queries::row::Rows;
use usher_queries::rows::time_to_text;

use crate::site::Places;

/// The query that tells the state.
pub const SEAT_STATE: &str = "seat_state";
/// Seats taken in that no `site.toml` names. Names come from outside, so there has to be an end to them.
const UNKNOWN_MAX: usize = 100_000;

/// A seat as the page and the API show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct SeatView {
    /// The site.
    pub site: String,
    /// The zone.
    pub zone: String,
    /// The seat's id.
    pub seat: String,
    /// `occupied`, `free`, `away`, or `unknown` until it said something.
    pub state: String,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// When it was last heard of, RFC 3339.
    pub as_of: Option<String>,
    /// Whether `site.toml` names it.
    pub known: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Told {
    state: String,
    since_us: i64,
    as_of_us: i64,
}

/// The states of all seats.
#[derive(Debug, Default)]
pub struct Seats {
    told: BTreeMap<(String, String, String), Told>,
    unknown: usize,
}

impl Seats {
    /// No seat has said anything yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes rows of the query `seat_state`.
    pub fn take(&mut self, rows: &Rows, places: &Places) {
        let schema = rows.schema();
        let column = |name: &str| schema.index_of(name).ok();
        let (Some(site), Some(zone), Some(seat), Some(state), Some(as_of)) = (
            column("site"),
            column("zone"),
            column("seat"),
            column("state"),
            column("as_of"),
        ) else {
            return;
        };
        for row in 0..rows.len() {
            let text = |column: usize| rows.text(column, row);
            let (Some(site), Some(zone), Some(seat), Some(state), Some(as_of_us)) =
                (text(site), text(zone), text(seat), text(state), rows.time(as_of, row))
            else {
                continue;
            };
            let key = (site.to_owned(), zone.to_owned(), seat.to_owned());
            if let Some(told) = self.told.get_mut(&key) {
                if told.state != state {
                    state.clone_into(&mut told.state);
                    told.since_us = as_of_us;
                }
                told.as_of_us = as_of_us;
                continue;
            }
            if places.seat(&key.0, &key.2).is_none() {
                if self.unknown >= UNKNOWN_MAX {
                    continue;
                }
                self.unknown += 1;
            }
            let told = Told {
                state: state.to_owned(),
                since_us: as_of_us,
                as_of_us,
            };
            self.told.insert(key, told);
        }
    }

    /// All seats, or those of one zone, by site, zone and id.
    pub fn all(&self, zone: Option<&str>, places: &Places) -> Vec<SeatView> {
        let wanted = |z: &str| zone.is_none_or(|zone| zone == z);
        let mut all: BTreeMap<(&str, &str, &str), (Option<&Told>, bool)> = places
            .seats()
            .filter(|seat| wanted(&seat.zone))
            .map(|seat| ((seat.site.as_str(), seat.zone.as_str(), seat.id.as_str()), (None, true)))
            .collect();
        for ((site, zone, seat), told) in self.told.iter().filter(|((_, zone, _), _)| wanted(zone)) {
            all.entry((site, zone, seat)).or_insert((None, false)).0 = Some(told);
        }
        all.into_iter()
            .map(|((site, zone, seat), (told, known))| SeatView {
                site: site.to_owned(),
                zone: zone.to_owned(),
                seat: seat.to_owned(),
                state: told.map_or("unknown", |told| told.state.as_str()).to_owned(),
                since: told.map(|told| time_to_text(told.since_us)),
                as_of: told.map(|told| time_to_text(told.as_of_us)),
                known,
            })
            .collect()
    }

    /// For a checkpoint.
    ///
    /// # Errors
    /// When a value can't be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&self.told)
    }

    /// Takes back what [`Seats::to_bytes`] gave.
    ///
    /// # Errors
    /// When the bytes are of another version.
    pub fn restore(&mut self, bytes: &[u8], places: &Places) -> Result<(), postcard::Error> {
        self.told = postcard::from_bytes(bytes)?;
        self.unknown = self
            .told
            .keys()
            .filter(|(site, _, seat)| places.seat(site, seat).is_none())
            .count();
        Ok(())
    }
}
