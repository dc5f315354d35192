//! A day in a library: who goes where and when, with one person whose timetable is known, and four who keep them company.

use std::ops::RangeInclusive;

/// The default of `privacy.k`.
pub(super) const K: i64 = 5;
/// The default of `privacy.public_step`, seconds.
pub(super) const STEP: i64 = 300;
/// 2026-03-02T01:00:00Z, when the day begins; seconds since 1970.
pub(super) const MORNING: i64 = 1_772_413_200;
/// The person whose timetable is known.
pub(super) const TARGET: usize = 0;
/// Those who come and go with the person, within the same steps.
pub(super) const COMPANIONS: RangeInclusive<usize> = 1..=4;
const PEOPLE: usize = 170;
/// Minutes of the day in which anybody comes.
pub(super) const MINUTES: i64 = 180;

/// `house` has gates and contains all; `floor-2` is known by its rooms only.
pub(super) const SITE: &str = r#"
[[site]]
id = "main"
[[site]]
id = "north"
[[site]]
id = "west"
[[zone]]
site = "main"
id = "house"
capacity = 400
[[zone]]
site = "main"
id = "reading-room"
capacity = 60
parent = "house"
[[zone]]
site = "main"
id = "stacks"
capacity = 30
parent = "house"
[[zone]]
site = "main"
id = "lab"
capacity = 50
parent = "house"
[[zone]]
site = "main"
id = "floor-2"
capacity = 120
parent = "house"
[[zone]]
site = "main"
id = "quiet"
capacity = 60
parent = "floor-2"
[[zone]]
site = "main"
id = "group"
capacity = 60
parent = "floor-2"
[[zone]]
site = "west"
id = "hall"
capacity = 20
[[seat]]
site = "main"
zone = "reading-room"
id = "seat-7"
"#;
/// The zones with gates, the house first.
pub(super) const GATES: [&str; 6] = ["house", "reading-room", "stacks", "lab", "quiet", "group"];

/// Something that somebody does.
#[derive(Debug, Clone)]
pub(super) struct Act {
    /// Seconds after the morning.
    pub(super) at: i64,
    pub(super) person: usize,
    pub(super) topic: String,
    pub(super) payload: String,
    /// How a zone's count changes.
    pub(super) passage: Option<(&'static str, i64)>,
}

/// What happens, in the order of time.
pub(super) struct Day {
    pub(super) acts: Vec<Act>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        i64::try_from(self.0 >> 33).expect("it has 31 bits") % end
    }
}

impl Day {
    /// The same day, but for one who stays at home.
    pub(super) fn without(absent: Option<usize>) -> Self {
        let mut acts = Vec::new();
        for person in 0..PEOPLE {
            // Each has numbers of their own, so that who stays at home changes nothing for the others.
            let mut random = Random(person as u64 * 7_919 + 3);
            match person == TARGET || COMPANIONS.contains(&person) {
                true => known(person, &mut acts),
                false => others(person, &mut random, &mut acts),
            }
        }
        for person in 0..11 {
            let site = if person < 3 { "north" } else { "west" };
            acts.push(search(site, 600 + person as i64, 1_000 + person, 0));
        }
        acts.retain(|act| Some(act.person) != absent);
        acts.sort_by_key(|act| act.at);
        Self { acts }
    }

    /// When the person does something whose timetable is known, seconds after the morning; whether they stay at home or not.
    pub(super) fn known_times() -> Vec<i64> {
        let mut acts = Vec::new();
        known(TARGET, &mut acts);
        acts.iter().map(|act| act.at).collect()
    }

    /// How many are in a zone at a step, seconds after the morning.
    pub(super) fn count(&self, zone: &str, step: i64) -> i64 {
        let before = self.acts.iter().filter(|act| act.at < step);
        let passages = before.filter_map(|act| act.passage).filter(|(of, _)| *of == zone);
        passages.map(|(_, change)| change).sum()
    }
}

/// The timetable: the reading room, the lab, a break, the reading room again.
fn known(person: usize, acts: &mut Vec<Act>) {
    let at = |minute: i64| minute * 60 + 20 * person as i64;
    pass(person, at(12), "reading-room", 1, true, acts);
    acts.push(act(
        at(13),
        person,
        "main/reading-room/seat/seat-7",
        r#""state":"occupied""#,
    ));
    acts.push(search("main", at(17), person, 1));
    let item = format!(r#""person":"card-{person}","action":"request","item":"tag-{person}""#);
    acts.push(act(at(18), person, "main/web/click/opac", &item));
    pass(person, at(37), "reading-room", -1, false, acts);
    pass(person, at(38) - 20, "lab", 1, false, acts);
    let loan = format!(r#""person":"card-{person}","tag":"tag-{person}","action":"checkout""#);
    acts.push(act(at(47), person, "main/desk/rfid/pad", &loan));
    pass(person, at(62), "lab", -1, true, acts);
    pass(person, at(92), "reading-room", 1, true, acts);
    pass(person, at(117), "reading-room", -1, true, acts);
}

fn others(person: usize, random: &mut Random, acts: &mut Vec<Act>) {
    let zone = match random.below(100) {
        0..=36 => "reading-room",
        37..=57 => "lab",
        58..=77 => "quiet",
        78..=97 => "group",
        _ => "stacks",
    };
    let comes = random.below(110 * 60);
    let goes = comes + 1_800 + random.below(4_000);
    pass(person, comes, zone, 1, true, acts);
    if goes < MINUTES * 60 {
        pass(person, goes, zone, -1, true, acts);
    }
    if person.is_multiple_of(6) {
        acts.push(search("main", comes + 200, person, random.below(2)));
    }
}

/// Goes into or out of a zone, and where `is_house` into or out of the house with it.
fn pass(person: usize, at: i64, zone: &'static str, change: i64, is_house: bool, acts: &mut Vec<Act>) {
    let way = if change > 0 { "in" } else { "out" };
    let mut through = |at: i64, zone: &'static str| {
        let topic = format!("main/{zone}/gate/{zone}-door");
        let mut passage = act(at, person, &topic, &format!(r#""{way}":1"#));
        passage.passage = Some((zone, change));
        acts.push(passage);
    };
    // Nobody is in a room and not in the house.
    through(at, if is_house && change > 0 { "house" } else { zone });
    if is_house {
        through(at + 2, if change > 0 { zone } else { "house" });
    }
}

fn search(site: &str, at: i64, person: usize, results: i64) -> Act {
    let payload = format!(r#""person":"card-{person}","action":"search","query":"q","results":{results}"#);
    act(at, person, &format!("{site}/web/click/opac"), &payload)
}

fn act(at: i64, person: usize, topic: &str, payload: &str) -> Act {
    let (id, ts) = (format!("evt-{person}-{at}-{}", topic.len()), (MORNING + at) * 1_000);
    Act {
        at,
        person,
        topic: format!("usher/in/{topic}"),
        payload: format!(r#"{{"id":"{id}","ts":{ts},{payload}}}"#),
        passage: None,
    }
}
