//! A search is a session at the catalogue: someone in the house looks for something, view by view.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::crowd::Hours;
use crate::crowd::act::{Acts, Click, MINUTE, SECOND, What, pick, whole};
use crate::crowd::house::House;
use crate::crowd::visit::Visit;
use crate::day_figures::{Clicks, DayFigures};

/// What people look for and find.
const QUERIES: [&str; 20] = [
    "linear algebra",
    "organic chemistry solutions",
    "machine learning",
    "红楼梦",
    "history of the silk road",
    "constitutional law",
    "宏观经济学",
    "statistics with r",
    "urban planning asia",
    "molecular biology of the cell",
    "操作系统",
    "academic writing",
    "renaissance art",
    "database systems",
    "三体",
    "9787111213826",
    "climate policy",
    "signals and systems",
    "modern chinese poetry",
    "graph theory",
];
/// What people look for and do not find.
const LOST_QUERIES: [&str; 6] = [
    "linaer algebra",
    "orgnic chemistry",
    "红搂梦",
    "thesis template 2031",
    "9780000000000",
    "silkroad histroy",
];

/// Records of the catalogue.
const RECORDS: u32 = 250_000;

/// Sessions below this number belong to stories.
const FIRST_SESSION: u32 = 100;

/// Someone must be found who is there at the time; so many are asked.
const TRIES: u32 = 60;

/// Adds the clicks of a day.
pub(super) fn make(
    house: &House,
    hours: Hours,
    figures: &DayFigures,
    visits: &[Visit],
    dice: &mut ChaCha8Rng,
    acts: &mut Acts,
) {
    if visits.is_empty() || house.terminals.is_empty() {
        return;
    }
    let sessions = whole(visits.len() as f64 * figures.clicks.sessions_per_visit);
    for number in 0..sessions as u32 {
        let begins = session_time(hours, &figures.clicks, dice);
        let someone = (0..TRIES).find_map(|_| {
            let visit = visits[dice.random_range(0..visits.len())];
            (visit.from + 3 * MINUTE <= begins && begins + MINUTE < visit.until).then_some(visit)
        });
        if let (Some(visit), Some(terminal)) = (someone, pick(&house.terminals, dice)) {
            session(
                FIRST_SESSION + number,
                terminal,
                visit,
                begins,
                &figures.clicks,
                dice,
                acts,
            );
        }
    }
}

/// When a session begins: by the figures' hours, within the opening hours.
fn session_time(hours: Hours, clicks: &Clicks, dice: &mut ChaCha8Rng) -> i64 {
    let hour_of = |at: i64| {
        use chrono::Timelike;
        let local = chrono::DateTime::from_timestamp_millis(at).map(|at| at.with_timezone(&hours.zone));
        local.map_or(0, |local| local.hour() as usize)
    };
    let highest = clicks.by_hour.iter().copied().fold(0.0, f64::max);
    // A time is kept as often as its hour is busy; should every hour be idle, the last one drawn will do.
    let mut at = hours.opens;
    for _ in 0..1_000 {
        at = dice.random_range(hours.opens..hours.closes);
        if dice.random::<f64>() * highest < clicks.by_hour[hour_of(at)] {
            break;
        }
    }
    at
}

fn session(
    session: u32,
    terminal: usize,
    visit: Visit,
    begins: i64,
    figures: &Clicks,
    dice: &mut ChaCha8Rng,
    acts: &mut Acts,
) {
    let mut now = begins;
    let card = dice.random_bool(figures.login_share).then_some(visit.card);
    let mut add = |now, action, search, item| {
        let click = Click {
            card,
            session,
            action,
            search,
            item,
        };
        acts.add(now, What::Click { terminal, click });
    };
    if card.is_some() {
        add(now, "login", None, None);
        now += 5 * SECOND;
    }
    let views = whole(figures.views.at(dice.random())).max(1);
    for view in 0..views {
        if now >= visit.until {
            break;
        }
        let what: f64 = dice.random();
        let upto_request = figures.search_share + figures.request_share;
        // A session begins with a search: there is nothing to look at before it.
        if view == 0 || what < figures.search_share {
            let search = if dice.random_bool(figures.no_result_share) {
                (LOST_QUERIES[dice.random_range(0..LOST_QUERIES.len())], 0)
            } else {
                (QUERIES[dice.random_range(0..QUERIES.len())], dice.random_range(1..900))
            };
            add(now, "search", Some(search), None);
        } else if what < upto_request {
            let action = if dice.random_bool(0.5) { "request" } else { "reserve" };
            add(now, action, None, Some(dice.random_range(0..RECORDS)));
        } else if what < upto_request + figures.help_share {
            add(now, "help", None, None);
        } else {
            add(now, "view", None, Some(dice.random_range(0..RECORDS)));
        }
        now += (figures.gap_seconds.at(dice.random()) * SECOND as f64) as i64;
    }
}
