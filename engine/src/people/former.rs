//! Former forms of what checkpoints have of people: of these is still read who does not want to be known, and nothing else.

use std::sync::Arc;

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

use super::rules::{Gaps, LifeCycle};
use super::visit::Visit;
use crate::capture::Entries;
use crate::event::Source;

/// What checkpoints of form 3 have of a person; `None` of someone who does not want to be known.
#[derive(Debug, Serialize, Deserialize)]
pub struct KnownOfForm3(Option<FiguresOfForm3>);

/// First and last seen, last day, days, events, events by channel, dwell, last sighting, score, since when, gap.
type FiguresOfForm3 = (i64, i64, i32, u32, u64, [u32; 3], i64, i64, f64, i64, i32);

/// What checkpoints of the forms 4 and 5 have of a person; `None`, from before there were purposes, of someone who does not want to
/// be known.
#[derive(Debug, Serialize, Deserialize)]
pub struct KnownOfForm5(Option<FiguresOfForm5>);

/// When first and last seen, when the first visit began and ended, and where; when the last visit ended, dwell, events, clicks, weeks,
/// the latest week and day; days, visits, visits since coming back, loans, searches, accepted, declined, messages; gaps; score,
/// visits that fade, since when; channels, services, tier, life cycle; where last seen, and the visit that is going on.
type FiguresOfForm5 = (
    (i64, i64, i64, i64, Arc<Source>),
    (i64, i64, u64, u64, u64, i32, i32),
    [u32; 8],
    Gaps,
    (f64, f64, i64),
    (u8, u16, u8, Option<LifeCycle>),
    (Arc<Source>, Option<Box<Visit>>),
);

/// Who did not want to be known by a checkpoint of form 3.
pub fn opted_out_of_form_3(rows: Entries<Arc<str>, KnownOfForm3>) -> FxHashSet<Arc<str>> {
    opted_out(rows, |KnownOfForm3(figures)| figures.is_none())
}

/// The same by one of form 4 or 5.
pub fn opted_out_of_form_5(rows: Entries<Arc<str>, KnownOfForm5>) -> FxHashSet<Arc<str>> {
    opted_out(rows, |KnownOfForm5(figures)| figures.is_none())
}

fn opted_out<K>(rows: Entries<Arc<str>, K>, is_out: impl Fn(&K) -> bool) -> FxHashSet<Arc<str>> {
    let mut opted_out = FxHashSet::default();
    for (person, known) in rows {
        match known.is_some_and(|known| is_out(&known)) {
            true => opted_out.insert(person),
            false => opted_out.remove(&person),
        };
    }
    opted_out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As form 3 had them.
    #[derive(Serialize)]
    struct Known3(Option<Figures3>);

    #[derive(Serialize)]
    struct Figures3 {
        first_us: i64,
        last_us: i64,
        last_day: i32,
        days: u32,
        events: u64,
        channels: [u32; 3],
        dwell_us: i64,
        last_sighting_us: i64,
        score: f64,
        score_us: i64,
        gap_days: i32,
    }

    #[test]
    fn who_opted_out_is_known_from_a_checkpoint_of_form_3() {
        let figures = || Figures3 {
            first_us: 1_772_409_600_000_000,
            last_us: 1_772_409_600_000_001,
            last_day: 20_514,
            days: 1,
            events: 2,
            channels: [1, 1, 0],
            dwell_us: 3,
            last_sighting_us: 4,
            score: 0.5,
            score_us: 5,
            gap_days: -1,
        };
        let rows = [
            ("ada", Some(Known3(Some(figures())))),
            ("ben", Some(Known3(None))),
            ("cleo", Some(Known3(None))),
            ("ada", Some(Known3(None))),
            // Wanted to be known again.
            ("cleo", None),
            ("dana", Some(Known3(Some(figures())))),
        ];
        let bytes = postcard::to_stdvec(&rows.into_iter().collect::<Vec<_>>()).expect("it can be written");
        let rows: Entries<Arc<str>, KnownOfForm3> = postcard::from_bytes(&bytes).expect("it can be read");
        let opted_out = opted_out_of_form_3(rows);
        let is_out = ["ada", "ben", "cleo", "dana"].map(|person| opted_out.contains(person));
        assert_eq!(is_out, [true, true, false, false]);
    }

    #[test]
    fn and_from_one_of_form_5() {
        let source = || {
            Arc::new(Source {
                site: "main".into(),
                zone: "web".into(),
                kind: crate::event::Kind::Click,
                device: "c".into(),
            })
        };
        let known = || {
            KnownOfForm5(Some((
                (1, 2, 3, 4, source()),
                (5, 6, 7, 8, 9, 10, 11),
                [1, 2, 3, 4, 5, 6, 7, 300],
                Gaps::default(),
                (0.5, 1.5, 12),
                (1, 600, 2, Some(LifeCycle::Active)),
                (source(), None),
            )))
        };
        let rows = [
            ("ada", Some(known())),
            ("ben", Some(KnownOfForm5(None))),
            ("cleo", Some(KnownOfForm5(None))),
            ("cleo", Some(known())),
            ("dana", None),
        ];
        let bytes = postcard::to_stdvec(&rows.into_iter().collect::<Vec<_>>()).expect("it can be written");
        let rows: Entries<Arc<str>, KnownOfForm5> = postcard::from_bytes(&bytes).expect("it can be read");
        let opted_out: Vec<Arc<str>> = opted_out_of_form_5(rows).into_iter().collect();
        assert_eq!(opted_out, [Arc::from("ben")]);
    }
}
