//! Rows that come late, also too late, for windows that overlap: each window holds those of its rows that came in time,
//! however they were fed, and says what it says in order.

use std::collections::{BTreeMap, BTreeSet};

use super::draw::{Dice, Event};
use super::{Feeding, feed, query_set};
use crate::query::Output;

const SECOND: i64 = 1_000_000;

/// Size and slide, seconds: panes as long as the slide, shorter ones, and many to a window.
const WINDOWS: &[(i64, i64)] = &[(20, 10), (30, 10), (25, 10), (7, 3), (30, 2)];
/// Those that are taken back where panes leave, and those that are not.
const AGGREGATES: &[&str] = &[
    "count(*) AS n, sum(antenna) AS total",
    "count(*) AS n, sum(antenna) AS total, max(antenna) AS most",
    "count(*) AS n, sum(antenna) AS total, count(DISTINCT tag) AS tags, max(rssi_dbm) AS power",
];

struct Case {
    size: i64,
    slide: i64,
    lateness: i64,
    statements: Vec<String>,
    tells_final: bool,
    events: Vec<Event>,
}

/// Zone and beginning of a window.
type Place = (String, i64);
/// Of each window how many events it holds and the sum of theirs; and the events that came too late for all.
type Found = (BTreeMap<Place, (i64, i64)>, BTreeSet<String>);

impl Case {
    fn draw(dice: &mut Dice) -> Self {
        let (size, slide) = dice.one_of(WINDOWS);
        let lateness = dice.one_of(&[0, 0, 4, 12]);
        let tells_final = dice.below(2) == 0;
        let told = if tells_final { ", final, amended" } else { "" };
        // What an alert reads keeps the last event of each group.
        let is_alert = dice.below(4) == 0;
        let (kind, subject) = match is_alert {
            true => ("ALERT", "subject = 'zone', "),
            false => ("QUERY", ""),
        };
        let statement = format!(
            "CREATE {kind} q WITH ({subject}lateness = '{lateness} seconds') AS \
             SELECT site, zone, window_start, window_end{told}, {} \
             FROM HOP(rfid, event_time, INTERVAL '{slide} seconds', INTERVAL '{size} seconds') \
             GROUP BY site, zone, window_start, window_end{told}",
            dice.one_of(AGGREGATES)
        );
        let too_late = "CREATE QUERY too_late AS SELECT event_id FROM late".to_owned();
        Self {
            size,
            slide,
            lateness,
            statements: vec![statement, too_late],
            tells_final,
            events: events(dice),
        }
    }

    /// Whether the window that begins at a second takes an event in.
    fn takes(&self, event: &Event, start: i64) -> bool {
        let end = (start + self.size) * SECOND;
        (start * SECOND..end).contains(&event.time) && event.met < end + self.lateness * SECOND
    }

    /// What each window says at last.
    fn expected(&self) -> Found {
        let (mut windows, mut late) = (BTreeMap::new(), BTreeSet::new());
        for event in &self.events {
            let last = event.time.div_euclid(SECOND).div_euclid(self.slide);
            let starts = (last - self.size / self.slide - 1..=last).map(|at| at * self.slide);
            let mut is_taken = false;
            for start in starts.filter(|start| self.takes(event, *start)) {
                let window: &mut (i64, i64) = windows.entry((format!("z{}", event.zone), start)).or_default();
                window.0 += 1;
                window.1 += event.antenna.unwrap_or(0);
                is_taken = true;
            }
            if !is_taken {
                late.insert(event.id.clone());
            }
        }
        (windows, late)
    }

    /// What a run came to; says where a window was told in another order than it may be.
    fn found(&self, outputs: &[Output]) -> Result<Found, String> {
        let (mut windows, mut late) = (BTreeMap::new(), BTreeSet::new());
        let mut told: BTreeMap<Place, Vec<(i64, bool, bool)>> = BTreeMap::new();
        for output in outputs {
            for row in crate::rows::batch_to_json(&output.rows.flow().batch) {
                if output.query.as_ref() == "too_late" {
                    late.insert(row["event_id"].as_str().unwrap_or_default().to_owned());
                    continue;
                }
                let start = row["window_start"].as_str().unwrap_or_default();
                let start: chrono::DateTime<chrono::Utc> =
                    start.parse().map_err(|error| format!("{row:?}: {error}"))?;
                let place = (row["zone"].as_str().unwrap_or_default().to_owned(), start.timestamp());
                let (n, total) = (row["n"].as_i64().unwrap_or(-1), row["total"].as_i64().unwrap_or(0));
                let flag = |name: &str| row.get(name).and_then(serde_json::Value::as_bool).unwrap_or(false);
                told.entry(place.clone())
                    .or_default()
                    .push((n, flag("final"), flag("amended")));
                windows.insert(place, (n, total));
            }
        }
        for (place, told) in told {
            let is_final_last = told.iter().rposition(|(_, is_final, _)| *is_final) == Some(told.len() - 1);
            let finals = told.iter().filter(|(_, is_final, _)| *is_final).count();
            let first_times = told[1..]
                .iter()
                .filter(|(_, is_final, is_amended)| !is_final && !is_amended);
            let grows = told.windows(2).all(|two| two[0].0 < two[1].0 || two[1].1);
            if self.tells_final && (!is_final_last || finals != 1 || first_times.count() > 0) || !grows {
                return Err(format!("{place:?} was told so: {told:?}"));
            }
        }
        Ok((windows, late))
    }
}

/// Events of which a third comes late, some by more than any lateness; now and then time jumps.
fn events(dice: &mut Dice) -> Vec<Event> {
    let mut newest = 1_772_930_000 * SECOND;
    let mut watermark = i64::MIN;
    let count = 5 + dice.below(40);
    (0..count)
        .map(|index| {
            newest += match dice.below(8) {
                0 => 0,
                1 => 25,
                _ => dice.below(4) as i64,
            } * SECOND;
            let back = if dice.below(3) == 0 { dice.below(40) as i64 } else { 0 };
            let met = watermark;
            watermark = watermark.max(newest - SECOND);
            Event {
                id: format!("e{index}"),
                time: newest - back * SECOND,
                met,
                watermark,
                site: "s0".to_owned(),
                zone: dice.below(4) as u8,
                tag: dice.below(5) as u8,
                antenna: (dice.below(5) > 0).then(|| dice.below(4) as i64),
            }
        })
        .collect()
}

fn check(seed: u64) {
    let mut dice = Dice::new(seed);
    let case = Case::draw(&mut dice);
    let expected = case.expected();
    let feedings = [
        Feeding::Singly,
        Feeding::Whole,
        Feeding::Batches,
        Feeding::Restarting,
        Feeding::InParts,
        Feeding::InParts,
    ];
    for feeding in feedings {
        let mut outputs = Vec::new();
        let running = query_set(&case.statements);
        let mut running = feed(
            &case.statements,
            running,
            &case.events,
            feeding,
            &mut dice,
            &mut outputs,
        );
        running.advance(i64::MAX / 4, &mut outputs);
        let words = format!(
            "USHER_SEED={seed} {feeding:?}\n{}\n{:#?}",
            case.statements[0], case.events
        );
        for query in running.queries() {
            assert_eq!(query.broken(), None, "{words}");
        }
        match case.found(&outputs) {
            Err(mistake) => panic!("{words}\n{mistake}"),
            Ok(found) => {
                let other: Vec<_> = found
                    .0
                    .iter()
                    .filter(|(place, of)| expected.0.get(*place) != Some(*of))
                    .collect();
                let missing: Vec<_> = expected
                    .0
                    .iter()
                    .filter(|(place, _)| !found.0.contains_key(*place))
                    .collect();
                assert!(
                    other.is_empty() && missing.is_empty(),
                    "{words}\nsaid {other:#?}\nnever {missing:#?}"
                );
                assert_eq!(found.1, expected.1, "{words}");
            }
        }
    }
}

#[test]
fn each_window_holds_the_late_rows_that_came_in_time_for_it() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("USHER_SEED") {
        check(seed);
        return;
    }
    let cases = number("USHER_CASES").unwrap_or(super::CASES as u64);
    (1..=cases / 10).for_each(check);
}
