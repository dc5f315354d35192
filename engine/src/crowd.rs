//! A crowd is one invented day of a library: people by real figures, told as messages of its devices.
//!
//! It is worked out forward: visits, searches and stories make acts, acts become what devices report of them. Only whole numbers and plain fractions are drawn, from one seeded generator, so the
//! same seed gives the same messages on every machine.

mod act;
mod house;
mod report;
mod search;
mod story;
mod visit;

use chrono::{Datelike, Days, NaiveDate, NaiveTime};
use chrono_tz::Tz;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::crowd::act::Acts;
use crate::crowd::house::House;
pub use crate::crowd::story::{STORIES, Story};
use crate::day_figures::DayFigures;
use crate::recording::Recorded;

/// Devices report themselves so long before the doors open, in milliseconds: a counter of totals needs a first reading.
const WARM_UP_MS: i64 = 60_000;

/// A place for a crowd.
#[derive(Debug, Clone)]
pub struct Place {
    /// Id of the site.
    pub site: String,
    /// Its time zone.
    pub time_zone: Tz,
    /// When it opens and closes on each day, Monday first; none where it stays closed. Closing at or before opening
    /// means the day after.
    pub hours: [Option<(NaiveTime, NaiveTime)>; 7],
    /// Its zones; those that others name as their parent are floors, in which nobody is directly.
    pub zones: Vec<PlaceZone>,
    /// Its seats.
    pub seats: Vec<PlaceSeat>,
    /// Its gates, RFID readers and catalogue terminals.
    pub devices: Vec<PlaceDevice>,
}

/// A zone of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceZone {
    /// Its id.
    pub id: String,
    /// Persons it is made for.
    pub capacity: u32,
    /// The zone it lies in.
    pub parent: Option<String>,
    /// What it is for: `entrance`, `study`, `shelves`, `catalogue`, `cafe` or `class`. The crowd goes by it.
    pub role: Option<String>,
}

/// A seat of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceSeat {
    /// The zone it stands in.
    pub zone: String,
    /// Its id.
    pub id: String,
}

/// A device of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceDevice {
    /// The zone it belongs to.
    pub zone: String,
    /// Its id.
    pub id: String,
    /// `gate`, `rfid` or `click`; others are left alone.
    pub kind: String,
    /// For a gate of the entrance `street` or `inner`; for RFID `exit`, `self-check` or `shelf`.
    pub role: Option<String>,
}

/// Why nobody can come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrowdError {
    /// No gate to come in by.
    #[error(
        "site `{site}` has no gate to come in by: a zone with role \"entrance\" and a device of kind \"gate\" in it are needed"
    )]
    NoEntrance {
        /// The site.
        site: String,
    },
    /// No zone to go to.
    #[error("site `{site}` has nowhere to go: a zone with a device of kind \"gate\" is needed beside the entrance")]
    NoRoom {
        /// The site.
        site: String,
    },
}

/// The messages of one day, in the order of their sending.
#[derive(Debug)]
pub struct Crowd {
    messages: std::vec::IntoIter<Recorded>,
}

impl Crowd {
    /// Works out one day of a place. A day on which it stays closed has no messages.
    pub fn new(seed: u64, figures: &DayFigures, place: &Place, day: NaiveDate) -> Result<Crowd, CrowdError> {
        let house = House::of(place)?;
        let Some(hours) = Hours::on(day, place) else {
            return Ok(Crowd {
                messages: Vec::new().into_iter(),
            });
        };
        // Days of one seed differ, and each day is the same whichever days were asked for before.
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        dice.set_stream(u64::from(day.num_days_from_ce().unsigned_abs()));

        let mut acts = Acts::default();
        let stories = story::tell(&house, hours, &mut acts);
        let visits = visit::make(&house, hours, figures, day, &stories, &mut dice, &mut acts);
        search::make(&house, hours, figures, &visits, &mut dice, &mut acts);
        let messages = report::make(place, &house, hours, day, &stories, &mut dice, acts);
        Ok(Crowd {
            messages: messages.into_iter(),
        })
    }
}

impl Iterator for Crowd {
    type Item = Recorded;

    fn next(&mut self) -> Option<Recorded> {
        self.messages.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.messages.size_hint()
    }
}

/// When the doors are open, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
struct Hours {
    opens: i64,
    closes: i64,
    zone: Tz,
}

impl Hours {
    fn on(day: NaiveDate, place: &Place) -> Option<Hours> {
        let (opens, closes) = place.hours[day.weekday().num_days_from_monday() as usize]?;
        let last_day = if closes <= opens {
            day.checked_add_days(Days::new(1))?
        } else {
            day
        };
        // A door that opens within the hour a clock leaves out opens as the clock jumps, near enough for a demo.
        let instant = |day: NaiveDate, time: NaiveTime| {
            let local = day.and_time(time);
            let instant = local.and_local_timezone(place.time_zone).earliest();
            instant.map_or(local.and_utc().timestamp_millis(), |instant| instant.timestamp_millis())
        };
        Some(Hours {
            opens: instant(day, opens),
            closes: instant(last_day, closes),
            zone: place.time_zone,
        })
    }
}

#[cfg(test)]
mod tests;
