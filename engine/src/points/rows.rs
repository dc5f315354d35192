//! What queries say is worth points: a row a helpful act, or how far somebody has come in a challenge.

use std::sync::Arc;

use usher_queries::row::Rows;

use crate::derived_id::derived_id;

const DAY_US: i64 = 86_400_000_000;

/// Points for an act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The pseudonym.
    pub person: Arc<str>,
    /// How many.
    pub points: u32,
    /// For what.
    pub reason: Arc<str>,
    /// The act: an event's id, or a challenge's period. It gives its points once.
    pub cause: String,
    /// Event time, microseconds.
    pub at_us: i64,
    /// When they expire, microseconds; `None` for never.
    pub expires_us: Option<i64>,
}

impl Grant {
    /// The id of its entry, the same however often the act is seen.
    pub fn id(&self) -> String {
        self.id_under(&self.person)
    }

    /// The same had the act been seen under another name of the person.
    pub(super) fn id_under(&self, name: &str) -> String {
        derived_id('p', [name, &*self.reason, &*self.cause])
    }
}

/// The grants in rows with the columns `person`, `points`, `reason`, `cause` (the event's id), `event_time`, and maybe
/// `expires_days`. Rows that lack one of them, or whose points are not positive, give nothing.
pub fn grants_of(rows: &Rows) -> Vec<Grant> {
    let schema = rows.schema();
    let column = |name: &str| schema.index_of(name).ok();
    let columns = ["person", "points", "reason", "cause", "event_time"].map(column);
    let [Some(person), Some(points), Some(reason), Some(cause), Some(time)] = columns else {
        return Vec::new();
    };
    let expires = column("expires_days");
    let grant = |row| {
        Some(Grant {
            person: Arc::from(rows.text(person, row)?),
            points: u32::try_from(rows.integer(points, row)?).ok()?,
            reason: Arc::from(rows.text(reason, row)?),
            cause: rows.text(cause, row)?.to_owned(),
            at_us: rows.time(time, row)?,
            expires_us: expires_of(rows, expires, row, rows.time(time, row)?),
        })
    };
    (0..rows.len())
        .filter_map(grant)
        .filter(|grant| grant.points > 0)
        .collect()
}

/// The grants of challenges that are reached, in rows with the columns `person`, `challenge`, `progress`, `goal`, `points`,
/// `period_start`, `event_time`, and maybe `expires_days`: each gives its points once a period.
pub fn challenges_of(rows: &Rows) -> Vec<Grant> {
    let schema = rows.schema();
    let column = |name: &str| schema.index_of(name).ok();
    let columns = [
        "person",
        "challenge",
        "progress",
        "goal",
        "points",
        "period_start",
        "event_time",
    ]
    .map(column);
    let [
        Some(person),
        Some(challenge),
        Some(progress),
        Some(goal),
        Some(points),
        Some(start),
        Some(time),
    ] = columns
    else {
        return Vec::new();
    };
    let expires = column("expires_days");
    let grant = |row| {
        if rows.integer(progress, row)? < rows.integer(goal, row)? {
            return None;
        }
        let at_us = rows.time(time, row)?;
        Some(Grant {
            person: Arc::from(rows.text(person, row)?),
            points: u32::try_from(rows.integer(points, row)?).ok()?,
            reason: Arc::from(rows.text(challenge, row)?),
            cause: usher_queries::rows::time_to_text(rows.time(start, row)?),
            at_us,
            expires_us: expires_of(rows, expires, row, at_us),
        })
    };
    (0..rows.len())
        .filter_map(grant)
        .filter(|grant| grant.points > 0)
        .collect()
}

fn expires_of(rows: &Rows, column: Option<usize>, row: usize, at_us: i64) -> Option<i64> {
    let days = rows.integer(column?, row).filter(|days| *days > 0)?;
    Some(at_us.saturating_add(days.saturating_mul(DAY_US)))
}
