//! What is put up says of nobody that he is there, whatever else is known: the proof of docs/PRIVACY.md, run.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use usher_queries::query_set::QuerySet;

use super::{Answers, Place, Public, PublicOptions};
use crate::alert::Trace;
use crate::event::Event;
use crate::fixture::{self, NINE};
use crate::perception::Perception;
use crate::perception::tests::saved;
use crate::seats::SEAT_STATE;
use crate::site::Places;
use crate::zones::OCCUPANCY;

const STEPS: usize = 60;

/// Numbers that a seed gives.
struct Random(u64);

impl Random {
    fn below(&mut self, end: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        i64::try_from(self.0 >> 33).expect("it has 31 bits") % end.max(1)
    }
}

/// A house of zones within zones, some of which nothing counts.
struct House {
    places: Arc<Places>,
    parents: Vec<Option<usize>>,
    is_counted: Vec<bool>,
}

impl House {
    fn draw(random: &mut Random) -> Self {
        let zones = 2 + random.below(9) as usize;
        let parents: Vec<Option<usize>> = (0..zones)
            .map(|zone| (zone > 0 && random.below(6) > 0).then(|| random.below(zone as i64) as usize))
            .collect();
        let mut text = "[[site]]\nid = \"main\"\n".to_owned();
        for (zone, parent) in parents.iter().enumerate() {
            let parent = parent.map_or(String::new(), |parent| format!("parent = \"z{parent:02}\"\n"));
            text += &format!("[[zone]]\nsite = \"main\"\nid = \"z{zone:02}\"\ncapacity = 40\n{parent}");
        }
        Self {
            places: fixture::places(&text),
            is_counted: (0..zones).map(|_| random.below(4) > 0).collect(),
            parents,
        }
    }

    fn ancestors(&self, zone: usize) -> Vec<usize> {
        std::iter::successors(self.parents[zone], |above| self.parents[*above]).collect()
    }

    /// The nearest counted zone around another.
    fn counted_around(&self, zone: usize) -> Option<usize> {
        self.ancestors(zone).into_iter().find(|above| self.is_counted[*above])
    }

    /// The counted zones nearest within another.
    fn parts(&self, zone: usize) -> Vec<usize> {
        let counted = (0..self.parents.len()).filter(|part| self.is_counted[*part]);
        counted
            .filter(|part| self.counted_around(*part) == Some(zone))
            .collect()
    }

    /// Counts of every zone at every step, as people come and go, and counters err.
    fn history(&self, random: &mut Random) -> Vec<Vec<i64>> {
        let mut standing: Vec<i64> = self.parents.iter().map(|_| random.below(25)).collect();
        let mut lost: Vec<i64> = self.parents.iter().map(|_| 0).collect();
        let mut history = Vec::new();
        for _ in 0..STEPS {
            for persons in &mut standing {
                let most = if random.below(8) == 0 { 25 } else { 4 };
                *persons = (*persons + random.below(2 * most + 1) - most).max(0);
            }
            for lost in &mut lost {
                *lost += i64::from(random.below(20) == 0);
            }
            let mut counts = standing.clone();
            for (zone, persons) in standing.iter().enumerate() {
                self.ancestors(zone)
                    .into_iter()
                    .for_each(|above| counts[above] += persons);
            }
            let counts = counts.iter().zip(&lost).map(|(count, lost)| (count - lost).max(0));
            history.push(counts.collect());
        }
        history
    }

    /// What is put up at every step.
    fn told(&self, k: u32, history: &[Vec<i64>]) -> Vec<Answers> {
        let mut public = Public::new(PublicOptions {
            k,
            step_us: 1,
            measures: Vec::new(),
        });
        let places: Vec<Place> = self
            .places
            .zones()
            .map(|zone| (zone.site.clone(), zone.id.clone()))
            .collect();
        let queries = QuerySet::new();
        let told = history.iter().map(|counts| {
            let counted = places.iter().zip(counts).zip(&self.is_counted);
            let counted = counted.filter(|(_, is_counted)| **is_counted);
            public.count(counted.map(|((place, persons), _)| (place, *persons)));
            public.answers(&self.places, &queries)
        });
        told.collect()
    }
}

#[test]
fn k_worlds_can_not_be_told_apart_and_in_each_step_are_k_persons() {
    let (mut shown, mut hidden) = (0, 0);
    for seed in 0..400 {
        let random = &mut Random(seed);
        let house = House::draw(random);
        let k = 1 + random.below(6) as u32;
        let (least, history) = (i64::from(k), house.history(random));
        let told = house.told(k, &history);
        let zones = house.parents.len();
        // What each count was when it last moved by k, seen or not.
        let mut moved = vec![0; zones];
        for (counts, answers) in history.iter().zip(&told) {
            for zone in (0..zones).filter(|zone| house.is_counted[*zone]) {
                if (counts[zone] - moved[zone]).abs() >= least {
                    moved[zone] = counts[zone];
                }
                let Some(persons) = answers.zones[zone].persons else {
                    hidden += 1;
                    continue;
                };
                shown += 1;
                assert_eq!(
                    persons,
                    moved[zone] - moved[zone] % least,
                    "seed {seed}: a step of fewer than k"
                );
                assert!(
                    counts[zone] >= least && persons >= least && persons % least == 0,
                    "seed {seed}: {persons}"
                );
                let parts = house.parts(zone);
                let of_parts = parts.iter().map(|part| answers.zones[*part].persons);
                let sum: i64 = of_parts.clone().flatten().sum();
                assert!(sum <= persons, "seed {seed}: parts show {sum} of {persons}");
                let alone = of_parts.filter(Option::is_none).count() == 1 && parts.len() > 1;
                assert!(!alone, "seed {seed}: one is hidden alone");
            }
        }
        for target in (0..zones).filter(|zone| house.is_counted[*zone]) {
            let around = house.ancestors(target);
            for more in 0..least {
                let offset = |zone: usize| match zone {
                    zone if zone == target => more,
                    zone if around.contains(&zone) => least - 1,
                    _ => 0,
                };
                let other: Vec<Vec<i64>> = told
                    .iter()
                    .map(|answers| {
                        let zones = answers.zones.iter().enumerate();
                        zones
                            .map(|(zone, said)| said.persons.unwrap_or(0) + offset(zone))
                            .collect()
                    })
                    .collect();
                for counts in &other {
                    for zone in (0..zones).filter(|zone| house.is_counted[*zone]) {
                        let within: i64 = house.parts(zone).iter().map(|part| counts[*part]).sum();
                        assert!(
                            counts[zone] >= within,
                            "seed {seed}: no such world, zone {zone}: {counts:?}"
                        );
                    }
                }
                assert_eq!(house.told(k, &other), told, "seed {seed}, zone {target}, {more} more");
            }
        }
    }
    assert!(
        shown > 20_000 && hidden > 20_000,
        "{shown} shown and {hidden} hidden say something"
    );
}

#[test]
fn a_count_is_shown_from_twice_k_moves_by_k_and_is_few_below() {
    let places = fixture::places("[[site]]\nid = \"main\"\n[[zone]]\nsite = \"main\"\nid = \"room\"\ncapacity = 20\n");
    let mut public = Public::new(PublicOptions {
        k: 5,
        step_us: 1,
        measures: Vec::new(),
    });
    let room = ("main".to_owned(), "room".to_owned());
    let mut said = Vec::new();
    for persons in [4, 9, 10, 14, 15, 11, 10, 6, 5, 9, 10, 0] {
        public.count([(&room, persons)].into_iter());
        let zone = &public.answers(&places, &QuerySet::new()).zones[0];
        said.push((persons, zone.persons, zone.word));
    }
    let few = |persons| (persons, None, "few");
    let ten = |persons| (persons, Some(10), "busy");
    let expected = [
        few(4),
        // Five more than none, and not twice five yet.
        few(9),
        few(10),
        // Five more than nine.
        ten(14),
        ten(15),
        ten(11),
        ten(10),
        // Eight fewer than 14.
        few(6),
        few(5),
        few(9),
        few(10),
        few(0),
    ];
    assert_eq!(said, expected);
}

const SITES: &str = r#"
[[site]]
id = "main"
[[site]]
id = "north"
[[site]]
id = "west"
[[zone]]
site = "main"
id = "house"
[[zone]]
site = "main"
id = "room"
parent = "house"
[[zone]]
site = "main"
id = "stacks"
parent = "house"
"#;

fn perception(places: &Arc<Places>) -> Perception {
    fixture::perception(places, Duration::ZERO, Duration::from_secs(600), |queries| {
        queries.watch(&[OCCUPANCY, SEAT_STATE, "grant_*", "challenge_*"]);
        crate::check::load_queries(queries, std::path::Path::new("")).expect("the shipped queries are right");
    })
}

fn take(perception: &mut Perception, events: &[Event]) {
    perception.take(events, &|_| Trace::default());
}

/// People who come to the house and go on to a room, one passage every twenty seconds or so.
fn passages() -> Vec<Event> {
    let mut random = Random(11);
    let mut at = 0;
    let rows = (0..900).map(|number| {
        at += random.below(40);
        let zone = ["house", "house", "house", "room", "stacks"][random.below(5) as usize];
        let way = if random.below(100) < 60 { "in" } else { "out" };
        let payload = format!(r#"{{"id":"e{number}","{way}":{}}}"#, 1 + random.below(3));
        (at, format!("{zone}/gate/{zone}-door"), payload)
    });
    fixture::events(rows)
}

#[test]
fn batches_and_restarts_change_nothing_that_anybody_sees() {
    let places = fixture::places(SITES);
    let events = passages();
    // What is seen behind each event, when it is seen.
    let run = |batch: usize, restart_each: usize| {
        let mut perception = perception(&places);
        let mut seen: Vec<(usize, Answers)> = Vec::new();
        for (number, events) in events.chunks(batch).enumerate() {
            take(&mut perception, events);
            if restart_each > 0 && number % restart_each == restart_each - 1 {
                let parts = saved(&mut perception);
                perception = self::perception(&places);
                perception.restore(&parts, NINE).expect("it can be read");
            }
            seen.push(((number + 1) * batch, perception.public_answers()));
        }
        seen
    };
    let single = run(1, 0);
    let shown = single.iter().filter(|(_, answers)| answers.zones[1].persons.is_some());
    assert!(shown.count() > 100, "something is shown");
    for (batch, restart_each) in [(1, 40), (7, 0), (7, 5), (100, 0), (900, 0)] {
        for (behind, answers) in run(batch, restart_each) {
            let expected = &single[behind.min(single.len()) - 1].1;
            assert_eq!(&answers, expected, "behind event {behind}, in batches of {batch}");
        }
    }
}

#[test]
fn rows_of_measures_are_put_up_once_their_windows_are_over_without_few_and_who_stands_beside_them() {
    let places = fixture::places(SITES);
    let mut perception = perception(&places);
    let mut decoder = fixture::decoder();
    let mut search = |site: &str, person: i64, seconds: i64, results: i64| {
        let payload = format!(
            r#"{{"id":"{site}-{person}-{seconds}","person":"{site}-{person}","action":"search","query":"x","results":{results}}}"#
        );
        let at_us = NINE + seconds * fixture::SECOND;
        let topic = format!("usher/in/{site}/web/click/opac");
        decoder.decode(&topic, payload.as_bytes(), at_us).events
    };
    let mut events = Vec::new();
    for person in 0..17 {
        events.extend(search("main", person, person, person % 2));
        events.extend(search("main", person, 60 + person, 1));
    }
    (0..3).for_each(|person| events.extend(search("north", person, 120 + person, 0)));
    (0..8).for_each(|person| events.extend(search("west", person, 180 + person, 0)));
    take(&mut perception, &events);
    let rows = |perception: &Perception| -> Vec<Value> {
        let answers = perception.public_answers();
        assert!(answers.measures.iter().any(|measure| measure.name == "searches"));
        let rows = answers
            .rows
            .get("searches")
            .map(|rows| rows.to_vec())
            .unwrap_or_default();
        let figures = |row: &serde_json::Map<String, Value>| {
            assert!(
                !row.contains_key("percent_without_result"),
                "a share of what is hidden: {row:?}"
            );
            json!([row["site"], row["persons"], row["searches"], row["without_result"]])
        };
        rows.iter().map(figures).collect()
    };
    // The day ends at midnight UTC, 23 hours later; what is late may come for a minute.
    take(&mut perception, &search("main", 99, 23 * 3_600, 1));
    assert_eq!(
        rows(&perception),
        Vec::<Value>::new(),
        "the window is over, and may still change"
    );
    take(&mut perception, &search("main", 99, 25 * 3_600, 1));
    // 17 persons, 34 searches, 9 without a result: rounded down to fives. Of north there are three, and west stands beside it.
    let expected = [json!(["main", 15, 30, 5])];
    assert_eq!(rows(&perception), expected);
    let parts = saved(&mut perception);
    perception = self::perception(&places);
    perception.restore(&parts, NINE).expect("it can be read");
    assert_eq!(rows(&perception), expected, "after a restart");
    // The day behind it has one person, of whom nothing is said, not even that there is one.
    take(&mut perception, &search("main", 99, 49 * 3_600, 1));
    assert_eq!(rows(&perception), expected);
}
