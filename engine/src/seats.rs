//! Seats keep what each seat last said, as the query `seat_state` tells it, and since when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use usher_queries::row::Rows;
use usher_queries::rows::time_to_text;

use crate::capture::{Entries, Since};
use crate::changes::Changes;
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

/// What a seat last said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    state: String,
    since_us: i64,
    as_of_us: i64,
}

/// The states of all seats.
#[derive(Debug, Default)]
pub struct Seats {
    told: BTreeMap<(String, String, String), Told>,
    unknown: usize,
    changes: Changes<(String, String, String), Told>,
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
                self.changes.note(&key);
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
            self.changes.note(&key);
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

    /// Takes seats that said something since the last checkpoint, about `room` of them, ahead of the next one.
    pub fn gather(&mut self, room: &mut usize) {
        self.changes.gather(room, &self.told);
    }

    /// For a checkpoint: the seats that said something since the last one.
    pub fn capture(&mut self) -> Since<(String, String, String), Told> {
        self.changes.take(&self.told)
    }

    /// The next capture is to hold everything.
    pub fn capture_anew(&mut self) {
        self.changes.begin_anew();
    }

    /// Takes back what was captured.
    pub fn restore(&mut self, rows: Entries<(String, String, String), Told>, places: &Places) {
        for (seat, told) in rows {
            match told {
                Some(told) => self.told.insert(seat, told),
                None => self.told.remove(&seat),
            };
        }
        self.unknown = self
            .told
            .keys()
            .filter(|(site, _, seat)| places.seat(site, seat).is_none())
            .count();
    }
}
