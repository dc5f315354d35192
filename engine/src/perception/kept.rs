//! What of perception is remembered over a restart: captured in parts while events come in, and taken back.

use std::sync::Arc;

use usher_queries::query_set::Restored;
use usher_queries::snapshot::QuerySnapshot;
use usher_queries::watermark::Watermarks;

use super::Perception;
use crate::alerts::Step;
use crate::capture::{Capture, Entries, Parts};
use crate::people::Repairs;

/// Why a checkpoint's part can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the part '{part}' can't be used: {cause}")]
pub struct RestoreError {
    /// The part.
    pub part: String,
    /// What is wrong with it.
    pub cause: String,
}

/// The part of what is being made anew of people's past; checkpoints from before there were links have none.
const REPAIRS: &str = "people_repairs";
/// The part of people's acts whose time has not been passed yet.
const WAITING: &str = "people_held";
/// The same as it was once written, in one piece. Under the new name an Usher from before does not take one piece for all.
const WAITING_AT_ONCE: &str = "people_waiting";
/// Acts in a piece of it, some hundred bytes each.
const ACTS_AT_ONCE: usize = 4_096;
/// The part of the events of which rows wait in queries; left out where none do.
const AT_HAND: &str = "at hand";
/// The part of what anybody may see.
const PUBLIC: &str = "public";

/// Watermarks, that of the queries, the newest event time, our clock.
type Clock = (Watermarks, Option<i64>, Option<i64>, i64);

/// Takes what has changed in a part.
type Gather = fn(&mut Perception, &mut usize);

/// The parts that are taken ahead of a capture beside the queries.
const GATHERED: [Gather; 14] = [
    |all, room| all.identity.gather(room),
    |all, room| all.consents.gather(room),
    |all, room| all.people.gather(room),
    |all, room| all.points.gather(room),
    |all, room| all.messages.gather(room),
    |all, room| all.measures.gather(room),
    |all, room| all.lookups.gather(room),
    |all, room| all.erasures.gather(room),
    |all, room| all.alerts.gather(room),
    |all, room| all.observing.totals.gather(room),
    |all, room| all.observing.balances.gather(room),
    |all, room| all.devices.gather(room),
    |all, room| all.zones.gather(room),
    |all, room| all.seats.gather(room),
];

impl Perception {
    /// Takes what has changed since the last capture, about `room` rows of it, ahead of the next one. Where room is left,
    /// all is taken that has changed by now. It goes on where the last call ended: parts that change with every event are
    /// taken again when all others had their turn.
    ///
    /// # Errors
    /// In words, when a query's state can't be made into rows. Then [`Perception::capture_anew`].
    pub fn gather(&mut self, room: &mut usize) -> Result<(), String> {
        for _ in 0..=GATHERED.len() {
            match self.gathering.checked_sub(1) {
                None => self.queries.gather(room).map_err(|error| error.strip_backtrace())?,
                Some(part) => GATHERED[part](self, room),
            }
            if *room == 0 {
                break;
            }
            self.gathering = (self.gathering + 1) % (GATHERED.len() + 1);
        }
        Ok(())
    }

    /// Everything that has to be remembered over a restart, as it is at this moment: what has changed since the last
    /// capture.
    ///
    /// # Errors
    /// In words, when a part can't be captured. Then [`Perception::capture_anew`].
    pub fn capture(&mut self) -> Result<Capture, String> {
        let mut capture = Capture::default();
        let queries = self.queries.capture();
        let queries =
            queries.map_err(|error| format!("the part 'queries' can't be saved: {}", error.strip_backtrace()))?;
        capture.queries(queries);
        let clock: Clock = (
            self.observing.watermarks.clone(),
            self.queries.watermark(),
            self.observing.newest_us,
            self.now_us,
        );
        capture.whole("clock", move || {
            postcard::to_stdvec(&clock).map_err(|error| error.to_string())
        });
        capture.rows("totals", self.observing.totals.capture());
        capture.rows("balances", self.observing.balances.capture());
        capture.rows("devices", self.devices.capture());
        capture.rows("zones", self.zones.capture());
        capture.rows("seats", self.seats.capture());
        self.identity.capture(&mut capture);
        self.consents.capture(&mut capture);
        let repairs = self.people.capture_repairs();
        capture.whole(REPAIRS, move || {
            postcard::to_stdvec(&repairs).map_err(|error| error.to_string())
        });
        capture.rows("people", self.people.capture());
        capture.in_pieces(WAITING, self.people.capture_waiting().pieces(ACTS_AT_ONCE));
        capture.rows("points", self.points.capture());
        self.points.capture_owners(&mut capture);
        self.messages.capture(&mut capture);
        capture.rows("measures", self.measures.capture());
        capture.rows("lookups", self.lookups.capture());
        let public = self.public.capture();
        capture.whole(PUBLIC, move || {
            postcard::to_stdvec(&public).map_err(|error| error.to_string())
        });
        capture.rows("erasures", self.erasures.capture());
        self.alerts.capture(&mut capture);
        let events = self.at_hand.capture();
        if !events.is_empty() {
            capture.whole(AT_HAND, move || {
                postcard::to_stdvec(&events).map_err(|error| error.to_string())
            });
        }
        Ok(capture)
    }

    /// The next capture is to hold everything: the last one came to nothing.
    pub fn capture_anew(&mut self) {
        self.queries.capture_anew();
        self.observing.totals.capture_anew();
        self.observing.balances.capture_anew();
        self.devices.capture_anew();
        self.zones.capture_anew();
        self.seats.capture_anew();
        self.identity.capture_anew();
        self.consents.capture_anew();
        self.people.capture_anew();
        self.points.capture_anew();
        self.messages.capture_anew();
        self.measures.capture_anew();
        self.lookups.capture_anew();
        self.erasures.capture_anew();
        self.alerts.capture_anew();
    }

    /// Takes back what was captured; says of each query that could not go on why. Where the place has changed meanwhile,
    /// it is as it is now from the event time on that our clock, `now_us`, shows.
    ///
    /// # Errors
    /// [`RestoreError`]; then nothing of this perception should be used.
    pub fn restore(&mut self, parts: &Parts, now_us: i64) -> Result<Vec<(String, Restored)>, RestoreError> {
        let failed = |part: &str| {
            let part = part.to_owned();
            move |cause: String| RestoreError { part, cause }
        };
        let clock: Clock = parts.value("clock").map_err(failed("clock"))?;
        let query_watermark = clock.1;
        (self.observing.watermarks, _, self.observing.newest_us, self.now_us) = clock;
        self.observing
            .totals
            .restore(parts.rows("totals").map_err(failed("totals"))?);
        let balances = parts.rows("balances").map_err(failed("balances"))?;
        self.observing.balances.restore(balances);
        let devices = parts.rows("devices").and_then(|rows| self.devices.restore(rows));
        devices.map_err(failed("devices"))?;
        let zones = parts.rows("zones").map_err(failed("zones"))?;
        self.zones.restore(zones, &self.places);
        let seats = parts.rows("seats").map_err(failed("seats"))?;
        self.seats.restore(seats, &self.places);
        let held = match parts.segments(WAITING) {
            [] => WAITING_AT_ONCE,
            _ => WAITING,
        };
        let waiting = parts.pieces(held).map_err(failed(held))?;
        let people: Entries<Arc<str>, _> = parts.rows("people").map_err(failed("people"))?;
        self.identity.restore(parts).map_err(failed("links"))?;
        let repairs: Repairs = match parts.segments(REPAIRS) {
            [] => Repairs::default(),
            _ => parts.value(REPAIRS).map_err(failed(REPAIRS))?,
        };
        let aliases = self.identity.aliases().clone();
        self.people.restore_repairs(aliases.clone(), repairs);
        self.people.restore(people, waiting);
        let restored = self.change_consents(|consents| consents.restore(aliases, parts));
        restored.map_err(failed("consents"))?;
        let aliases = self.identity.aliases();
        self.points.restore(parts.rows("points").map_err(failed("points"))?);
        let owners = self.points.restore_owners(aliases.clone(), parts);
        owners.map_err(failed("points_owners"))?;
        self.messages.restore_aliases(aliases.clone());
        self.messages.restore(parts).map_err(failed("messages"))?;
        self.measures
            .restore(parts.rows("measures").map_err(failed("measures"))?);
        self.lookups.restore(parts.rows("lookups").map_err(failed("lookups"))?);
        self.public.restore(parts.value(PUBLIC).map_err(failed(PUBLIC))?);
        self.erasures
            .restore(parts.rows("erasures").map_err(failed("erasures"))?);
        self.alerts.restore(parts).map_err(failed("alerts"))?;
        let events = match parts.segments(AT_HAND) {
            [] => Vec::new(),
            _ => parts.value(AT_HAND).map_err(failed(AT_HAND))?,
        };
        self.at_hand.restore(events, self.alerts.last_event_waiting());
        let mut outcomes = Vec::new();
        let mut snapshots = Vec::new();
        for (name, read) in parts.queries().map_err(failed("queries"))? {
            match read {
                Ok(snapshot) => snapshots.push(snapshot),
                Err(reason) => outcomes.push((name, Restored::Unreadable(reason))),
            }
        }
        outcomes.extend(self.restore_queries(query_watermark, &snapshots, now_us));
        self.tell_groups();
        Ok(outcomes)
    }

    /// What restoring ended: alerts of rules that are gone.
    pub(crate) fn take_unsaid(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.unsaid)
    }

    /// Gives queries back what they kept, by snapshots of the watermark at which they stood.
    pub fn restore_queries(
        &mut self,
        watermark: Option<i64>,
        snapshots: &[QuerySnapshot],
        now_us: i64,
    ) -> Vec<(String, Restored)> {
        let changed_us = self.observing.watermarks.clock_at(now_us).unwrap_or(now_us);
        let outcomes = self.queries.restore_since(watermark, snapshots, changed_us);
        let steps = self.learn_rules();
        self.unsaid.extend(steps);
        outcomes
    }
}
