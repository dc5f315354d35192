//! Day figures say how a crowd behaves: when people come, how long they stay, what they click, what antennas read.

use chrono::{Datelike, NaiveDate, Weekday};
use serde::Deserialize;

/// The figures that come with Usher. Each says there where it is from.
const SHIPPED: &str = include_str!("../../config/demo/figures.toml");

/// How far shares that should add up to 1 may be off, being written with four digits.
const SHARE_TOLERANCE: f64 = 0.005;

/// What is wrong with a file of figures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FiguresError {
    /// The text is no file of figures.
    #[error("{file}:{line}:{column}: {what}")]
    Unreadable {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong.
        what: String,
    },
    /// A figure that nothing can follow.
    #[error("{file}: `{figure}` {what}")]
    Impossible {
        /// The file.
        file: String,
        /// Which figure.
        figure: &'static str,
        /// What is wrong and what would be right.
        what: &'static str,
    },
}

/// How a crowd behaves on a day.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DayFigures {
    /// How many people come.
    pub visits: Visits,
    /// When they come.
    pub arrivals: Arrivals,
    /// How long they stay, and what for.
    pub stay: Stay,
    /// What they do in the catalogue.
    pub clicks: Clicks,
    /// What antennas read of items.
    pub rfid: Rfid,
}

/// Visits on one day, from and to.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Visits {
    /// Monday to Friday.
    pub weekday: [u32; 2],
    /// Saturday and Sunday.
    pub weekend: [u32; 2],
}

/// Share of a day's arrivals in each of 48 half-hours, from midnight.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arrivals {
    /// Monday to Friday.
    pub weekday: Vec<f64>,
    /// Saturday and Sunday.
    pub weekend: Vec<f64>,
}

/// How long people stay and what they come for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stay {
    /// Stay of someone who studies, in minutes.
    pub study_minutes: Distribution,
    /// Share who come to study.
    pub study_share: f64,
    /// Share who come to borrow.
    pub borrow_share: f64,
    /// Share who come to look around.
    pub browse_share: f64,
    /// Stay of a borrower as a part of a student's.
    pub borrow_stay: f64,
    /// Stay of someone looking around as a part of a student's.
    pub browse_stay: f64,
    /// Minutes at a seat before a break, from and to.
    pub minutes_before_break: [u32; 2],
    /// Minutes of a break, from and to.
    pub break_minutes: [u32; 2],
}

/// What people do in the catalogue.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clicks {
    /// Views of a session.
    pub views: Distribution,
    /// Seconds between two views.
    pub gap_seconds: Distribution,
    /// Share of a day's views in each of 24 hours, from midnight.
    pub by_hour: Vec<f64>,
    /// Sessions for each visit.
    pub sessions_per_visit: f64,
    /// Share of sessions that log in.
    pub login_share: f64,
    /// Share of views that are searches.
    pub search_share: f64,
    /// Share of views that request an item.
    pub request_share: f64,
    /// Share of views that ask for help.
    pub help_share: f64,
    /// Share of searches that find nothing.
    pub no_result_share: f64,
}

/// What antennas read of items.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rfid {
    /// Reads of one passage.
    pub reads: Distribution,
    /// Seconds between the reads of a passage.
    pub gap_seconds: Distribution,
    /// Items a borrower takes from the shelf, from and to.
    pub items: [u32; 2],
    /// Share of those items that are put back.
    pub put_back_share: f64,
    /// Share of borrowers who bring something back first.
    pub return_share: f64,
}

/// A distribution, as points `[share, value]`: so large a share lies at or below the value.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Distribution(Vec<[f64; 2]>);

impl Distribution {
    /// The value below which `share` (0 to 1) of all lies: straight between two points, the last one's beyond it.
    pub fn at(&self, share: f64) -> f64 {
        let above = self.0.partition_point(|point| point[0] <= share);
        match (self.0.get(above.wrapping_sub(1)), self.0.get(above)) {
            (Some(low), Some(high)) => low[1] + (high[1] - low[1]) * (share - low[0]) / (high[0] - low[0]),
            (Some(last), None) => last[1],
            (None, Some(first)) => first[1],
            (None, None) => 0.0,
        }
    }

    fn is_possible(&self) -> bool {
        let grows = |pair: &[[f64; 2]]| pair[0][0] < pair[1][0] && pair[0][1] <= pair[1][1];
        let within = |point: &[f64; 2]| (0.0..=1.0).contains(&point[0]) && point[1] >= 0.0 && point[1].is_finite();
        !self.0.is_empty() && self.0.iter().all(within) && self.0.windows(2).all(grows)
    }
}

impl DayFigures {
    /// The figures that come with Usher.
    pub fn shipped() -> DayFigures {
        DayFigures::read("figures.toml", SHIPPED).expect("the shipped figures are read by a test before they ship")
    }

    /// Reads figures; `file` is only named in an error.
    pub fn read(file: &str, text: &str) -> Result<DayFigures, FiguresError> {
        let figures: DayFigures = toml::from_str(text).map_err(|error| {
            let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or(text);
            FiguresError::Unreadable {
                file: file.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1,
                what: error.message().trim_end().replace('\n', ", "),
            }
        })?;
        match figures.first_impossible() {
            None => Ok(figures),
            Some((figure, what)) => Err(FiguresError::Impossible {
                file: file.to_owned(),
                figure,
                what,
            }),
        }
    }

    /// Share of arrivals in each half-hour of this day, from midnight.
    pub fn arrivals_on(&self, day: NaiveDate) -> &[f64] {
        if is_weekend(day) {
            &self.arrivals.weekend
        } else {
            &self.arrivals.weekday
        }
    }

    /// Visits on this day, from and to.
    pub fn visits_on(&self, day: NaiveDate) -> [u32; 2] {
        if is_weekend(day) {
            self.visits.weekend
        } else {
            self.visits.weekday
        }
    }

    fn first_impossible(&self) -> Option<(&'static str, &'static str)> {
        let add_up = |shares: &[f64], many: usize| {
            shares.len() == many
                && shares.iter().all(|share| *share >= 0.0)
                && (shares.iter().sum::<f64>() - 1.0).abs() <= SHARE_TOLERANCE
        };
        let stay = [self.stay.study_share, self.stay.borrow_share, self.stay.browse_share];
        let clicks = &self.clicks;
        let views = [clicks.search_share, clicks.request_share, clicks.help_share];
        let shares = [
            clicks.login_share,
            clicks.no_result_share,
            self.rfid.put_back_share,
            self.rfid.return_share,
            views.iter().sum(),
        ];
        let is_share = |share: &f64| (0.0..=1.0).contains(share);
        let ranges = [
            self.visits.weekday,
            self.visits.weekend,
            self.stay.minutes_before_break,
            self.stay.break_minutes,
            self.rfid.items,
        ];
        let distributions = [
            &self.stay.study_minutes,
            &clicks.views,
            &clicks.gap_seconds,
            &self.rfid.reads,
            &self.rfid.gap_seconds,
        ];
        let half_hours = "needs 48 shares that add up to 1";
        [
            (add_up(&self.arrivals.weekday, 48), "arrivals.weekday", half_hours),
            (add_up(&self.arrivals.weekend, 48), "arrivals.weekend", half_hours),
            (
                add_up(&clicks.by_hour, 24),
                "clicks.by_hour",
                "needs 24 shares that add up to 1",
            ),
            (add_up(&stay, 3), "stay", "needs three shares that add up to 1"),
            (
                shares.iter().chain(&views).all(is_share),
                "clicks and rfid",
                "need shares between 0 and 1",
            ),
            (
                clicks.sessions_per_visit >= 0.0,
                "clicks.sessions_per_visit",
                "cannot be negative",
            ),
            (
                ranges.iter().all(|range| range[0] <= range[1]),
                "a range",
                "runs from the smaller to the larger number",
            ),
            (
                distributions.iter().all(|distribution| distribution.is_possible()),
                "a distribution",
                "needs points [share, value] that grow, with shares from 0 to 1",
            ),
        ]
        .into_iter()
        .find_map(|(possible, figure, what)| (!possible).then_some((figure, what)))
    }
}

fn is_weekend(day: NaiveDate) -> bool {
    matches!(day.weekday(), Weekday::Sat | Weekday::Sun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_figures_are_read() {
        let figures = DayFigures::shipped();
        let stay = &figures.stay.study_minutes;
        assert_eq!(
            (stay.at(0.0), stay.at(0.05), stay.at(0.5), stay.at(0.999)),
            (2.0, 12.0, 66.0, 330.0)
        );
        assert_eq!(
            figures.visits_on(NaiveDate::from_ymd_opt(2026, 3, 7).expect("a date")),
            [1200, 1500]
        );
    }

    #[test]
    fn a_figure_that_cannot_be_is_named() {
        let check = |from: &str, to: &str, expected: &str| {
            assert!(SHIPPED.contains(from), "the text to change is there");
            let error = DayFigures::read("f.toml", &SHIPPED.replacen(from, to, 1)).expect_err("an error");
            assert!(error.to_string().ends_with(expected), "{error}");
        };
        check(
            "weekday = [1500, 2000]",
            "weekday = [2000, 1500]",
            "`a range` runs from the smaller to the larger number",
        );
        check(
            "0.0545",
            "0.5545",
            "f.toml: `arrivals.weekday` needs 48 shares that add up to 1",
        );
        check(
            "[0.5, 66]",
            "[0.5, 6]",
            "needs points [share, value] that grow, with shares from 0 to 1",
        );
        check("login_share", "logon_share", "`help_share`, `no_result_share`");
    }
}
