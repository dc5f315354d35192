//! Windows: which there are, which of them a time lies in, and when the next one ends.

mod node;
pub(crate) mod planning;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use chrono_tz::Tz;
use rustc_hash::FxHashMap;

pub(crate) use self::node::WindowNode;
pub(crate) use self::planning::WindowPlanner;
use crate::civil_time::{LONGEST_DAY_US, OpeningHours, day_around};

/// The column that tells a window's beginning.
pub const WINDOW_START: &str = "window_start";
/// The column that tells a window's end, which is not part of it.
pub const WINDOW_END: &str = "window_end";
/// The column that tells whether a window's row is the last that will be said of it.
pub const FINAL: &str = "final";
/// The column that tells whether a window's row takes the place of one said before.
pub const AMENDED: &str = "amended";
/// The columns that a window adds to its input.
pub(crate) const WINDOW_COLUMNS: [&str; 4] = [WINDOW_START, WINDOW_END, FINAL, AMENDED];

/// Windows of one size, a slide apart; a tumbling window's slide is its size. Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop {
    /// How long a window is.
    pub size_us: i64,
    /// How far apart windows begin.
    pub slide_us: i64,
    /// How far their grid is moved from 1970, less than a slide.
    pub offset_us: i64,
}

impl Hop {
    /// The beginning of the latest window that begins at `time` or before.
    pub fn latest_start(self, time: i64) -> i64 {
        self.on_grid(time, self.slide_us)
    }

    /// The beginnings of the windows that hold `time`, latest first.
    pub fn starts(self, time: i64) -> impl Iterator<Item = i64> {
        let latest = self.latest_start(time);
        (0..)
            .map(move |back| latest - back * self.slide_us)
            .take_while(move |start| *start > time - self.size_us)
    }

    /// The beginning of the first window that ends behind `time`.
    pub fn first_start_ending_behind(self, time: i64) -> i64 {
        self.latest_start(time.saturating_sub(self.size_us))
            .saturating_add(self.slide_us)
    }

    /// Whether windows lie side by side, each row in exactly one.
    pub fn is_tumbling(self) -> bool {
        self.size_us == self.slide_us
    }

    /// The width of a pane: every window is a whole number of them.
    pub fn pane_us(self) -> i64 {
        let (mut a, mut b) = (self.size_us, self.slide_us);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    }

    /// The pane that holds `time`.
    pub(crate) fn pane(self, time: i64) -> Span {
        let pane_us = self.pane_us();
        Span::from(self.on_grid(time, pane_us), pane_us)
    }

    /// The window that begins at `start`.
    pub(crate) fn span(self, start: i64) -> Span {
        Span::from(start, self.size_us)
    }

    fn on_grid(self, time: i64, width_us: i64) -> i64 {
        time.saturating_sub(self.offset_us)
            .div_euclid(width_us)
            .saturating_mul(width_us)
            .saturating_add(self.offset_us)
    }
}

/// Sessions: rows of one key less than `gap_us` apart. Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gap {
    /// How long without a row ends a session.
    pub gap_us: i64,
    /// A session that lasts so long is cut, at multiples of this since 1970.
    pub max_us: i64,
}

/// What windows a query has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowSpec {
    /// `TUMBLE` and `HOP`.
    Hop(Hop),
    /// `SESSION`.
    Session(Gap),
    /// `DAY`: the civil days of a time zone.
    Day(Tz),
    /// `OPENING`: from opening to closing of each row's site.
    Opening,
}

impl PartialOrd for WindowSpec {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.to_string().partial_cmp(&other.to_string())
    }
}

fn shown(us: i64) -> impl fmt::Display {
    humantime::format_duration(std::time::Duration::from_micros(us.unsigned_abs()))
}

impl fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hop(hop) => {
                if hop.is_tumbling() {
                    write!(f, "TUMBLE {}", shown(hop.size_us))?;
                } else {
                    write!(f, "HOP every {} over {}", shown(hop.slide_us), shown(hop.size_us))?;
                }
                match hop.offset_us {
                    0 => Ok(()),
                    offset => write!(f, " from {}", shown(offset)),
                }
            }
            Self::Session(gap) => write!(f, "SESSION gap {}, at most {}", shown(gap.gap_us), shown(gap.max_us)),
            Self::Day(zone) => write!(f, "DAY in {zone}"),
            Self::Opening => write!(f, "OPENING hours of the site"),
        }
    }
}

/// A window as it lies in time, microseconds. The end is not part of it and is compared first: a map of spans stands in
/// the order in which windows end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) end: i64,
    pub(crate) start: i64,
}

impl Span {
    /// The endless window of a running aggregate.
    pub(crate) const ENDLESS: Self = Self {
        end: i64::MAX,
        start: 0,
    };

    /// From `start` on, so long.
    pub(crate) fn from(start: i64, length_us: i64) -> Self {
        Self {
            end: start.saturating_add(length_us),
            start,
        }
    }

    /// Whether a time lies in it.
    pub(crate) fn holds(self, time: i64) -> bool {
        self.start <= time && time < self.end
    }
}

/// Tells in which windows a time lies, where they do not depend on other rows.
#[derive(Clone)]
pub(crate) enum Assigner {
    /// `TUMBLE` and `HOP`.
    Hop(Hop),
    /// `DAY`, with the day that was looked at last: most rows are of the same.
    Day(Tz, Cell<Span>),
    /// `OPENING`, with the interval that was looked at last for each site.
    Opening(Arc<dyn OpeningHours>, RefCell<FxHashMap<Box<str>, Span>>),
}

/// By the windows, whichever were looked at last.
impl PartialEq for Assigner {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Hop(one), Self::Hop(other)) => one == other,
            (Self::Day(one, _), Self::Day(other, _)) => one == other,
            (Self::Opening(one, _), Self::Opening(other, _)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Assigner {
    /// Of a kind of window; `None` for sessions, which depend on the rows.
    pub(crate) fn of(spec: WindowSpec, opening: &Arc<dyn OpeningHours>) -> Option<Self> {
        Some(match spec {
            WindowSpec::Hop(hop) => Self::Hop(hop),
            WindowSpec::Day(zone) => Self::Day(zone, Cell::new(Span { end: 0, start: 0 })),
            WindowSpec::Opening => Self::Opening(Arc::clone(opening), RefCell::default()),
            WindowSpec::Session(_) => return None,
        })
    }

    /// The hopping windows, where they are those.
    pub(crate) fn hop(&self) -> Option<Hop> {
        match self {
            Self::Hop(hop) => Some(*hop),
            _ => None,
        }
    }

    /// Calls `each` with the windows that hold `time`, the earliest first. `site` is looked at by `OPENING` alone.
    pub(crate) fn each(&self, time: i64, site: Option<&str>, mut each: impl FnMut(Span)) {
        match self {
            Self::Hop(hop) => {
                let latest = hop.latest_start(time);
                // As many slides back as still hold the time; none where the slide leaves gaps.
                let reach = hop.size_us - 1 - (time - latest);
                if reach >= 0 {
                    for back in (0..=reach / hop.slide_us).rev() {
                        each(hop.span(latest - back * hop.slide_us));
                    }
                }
            }
            Self::Day(zone, last) => {
                if !last.get().holds(time) {
                    let (start, end) = day_around(*zone, time);
                    last.set(Span { end, start });
                }
                each(last.get());
            }
            Self::Opening(hours, last) => {
                let Some(site) = site else { return };
                let known = last.borrow().get(site).copied().filter(|span| span.holds(time));
                let span = known.or_else(|| {
                    let (start, end) = hours.interval(site, time)?;
                    let span = Span { end, start };
                    last.borrow_mut().insert(site.into(), span);
                    Some(span)
                });
                if let Some(span) = span {
                    each(span);
                }
            }
        }
    }

    /// Times around `time` that lie in the same windows; `None` where that hangs on more than the time.
    pub(crate) fn alike(&self, time: i64) -> Option<Span> {
        let span = match self {
            Self::Hop(hop) => hop.pane(time),
            Self::Day(_, last) => {
                self.each(time, None, |_| {});
                last.get()
            }
            Self::Opening(..) => return None,
        };
        span.holds(time).then_some(span)
    }

    /// The first end of any window, there or not, behind a time.
    pub(crate) fn next_end(&self, after: i64) -> i64 {
        match self {
            Self::Hop(hop) => hop.first_start_ending_behind(after).saturating_add(hop.size_us),
            Self::Day(zone, _) => day_around(*zone, after).1,
            Self::Opening(hours, _) => hours.next_end(after),
        }
    }

    /// How long the longest window is, microseconds.
    pub(crate) fn longest_us(&self) -> i64 {
        match self {
            Self::Hop(hop) => hop.size_us,
            Self::Day(..) => LONGEST_DAY_US,
            Self::Opening(hours, _) => hours.longest_us(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Assigner, Hop, Span};

    fn hop(size_us: i64, slide_us: i64, offset_us: i64) -> Hop {
        Hop {
            size_us,
            slide_us,
            offset_us,
        }
    }

    #[test]
    fn a_time_lies_in_each_window_that_covers_it_and_in_no_other() {
        let hop = hop(60, 10, 0);
        assert_eq!(hop.starts(59).collect::<Vec<_>>(), vec![50, 40, 30, 20, 10, 0]);
        assert_eq!(hop.starts(60).collect::<Vec<_>>(), vec![60, 50, 40, 30, 20, 10]);
        assert_eq!(hop.starts(-1).collect::<Vec<_>>(), vec![-10, -20, -30, -40, -50, -60]);
    }

    #[test]
    fn a_slide_longer_than_the_size_leaves_gaps() {
        let hop = hop(10, 60, 0);
        assert_eq!(hop.starts(5).collect::<Vec<_>>(), vec![0]);
        assert_eq!(hop.starts(10).collect::<Vec<_>>(), Vec::<i64>::new());
    }

    #[test]
    fn a_size_need_not_be_a_multiple_of_the_slide() {
        let hop = hop(25, 10, 0);
        assert_eq!(hop.starts(24).collect::<Vec<_>>(), vec![20, 10, 0]);
        assert_eq!(hop.starts(25).collect::<Vec<_>>(), vec![20, 10]);
        assert_eq!(hop.pane_us(), 5);
    }

    #[test]
    fn an_offset_moves_windows_and_panes() {
        let hop = hop(25, 10, 3);
        assert_eq!(hop.starts(24).collect::<Vec<_>>(), vec![23, 13, 3]);
        assert_eq!(hop.pane(24), Span { end: 28, start: 23 });
        assert_eq!(hop.first_start_ending_behind(27), 3);
        assert_eq!(hop.first_start_ending_behind(28), 13);
    }

    #[test]
    fn windows_are_assigned_as_they_begin_and_each_end_is_known_before() {
        for hop in [hop(60, 10, 0), hop(25, 10, 3), hop(10, 60, 7), hop(10, 10, 9)] {
            let assigner = Assigner::Hop(hop);
            for time in -200..200 {
                let mut spans = Vec::new();
                assigner.each(time, None, |span| spans.push(span));
                let mut starts: Vec<i64> = hop.starts(time).collect();
                starts.reverse();
                assert_eq!(
                    spans,
                    starts.into_iter().map(|start| hop.span(start)).collect::<Vec<_>>()
                );
                let alike = assigner.alike(time).expect("it hangs on the time alone");
                for other in alike.start..alike.end {
                    assert_eq!(
                        hop.starts(other).collect::<Vec<_>>(),
                        hop.starts(time).collect::<Vec<_>>()
                    );
                }
                let next = assigner.next_end(time);
                let ends: Vec<i64> = (-400..400)
                    .map(|index| hop.offset_us + index * hop.slide_us + hop.size_us)
                    .collect();
                assert_eq!(ends.into_iter().find(|end| *end > time), Some(next));
            }
        }
    }
}
