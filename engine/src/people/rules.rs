//! Rules are the settings of engagement in the units that state is kept in, and the figures nobody has to set.

use std::time::Duration;

use crate::settings::EngagementSettings;

/// A day, microseconds.
pub(super) const DAY_US: i64 = 24 * 3_600 * 1_000_000;
/// So many visits make somebody who is new, or who came back, an active person.
pub(super) const SETTLED: u32 = 3;
/// So many gaps between visits make a person's own usual gap.
pub(super) const GAPS_MIN: u32 = 3;
/// The usual gap is so many deviations above the mean.
const DEVIATIONS: f64 = 2.0;
/// Somebody away for so many usual gaps is dormant.
const DORMANT: i64 = 3;
/// Somebody away for so many has gone.
const GONE: i64 = 9;

/// How engagement is worked out.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) settings: EngagementSettings,
    pub(super) visit_gap_us: i64,
    pub(super) half_life_us: f64,
    unknown_days: f64,
    least_days: f64,
    most_days: f64,
}

impl Rules {
    pub(super) fn new(settings: EngagementSettings) -> Self {
        let days = |duration: Duration| duration.as_secs_f64() / 86_400.0;
        Self {
            visit_gap_us: i64::try_from(settings.visit_gap.as_micros()).unwrap_or(i64::MAX),
            half_life_us: settings.half_life.as_secs_f64() * 1e6,
            unknown_days: days(settings.usual_gap_unknown),
            least_days: days(settings.usual_gap_least),
            most_days: days(settings.usual_gap_most),
            settings,
        }
    }

    /// How much is left of something after so long, microseconds.
    pub(super) fn decay(&self, age_us: i64) -> f64 {
        (-(age_us as f64) / self.half_life_us).exp2()
    }

    /// The name of a tier by its number.
    pub(super) fn tier(&self, number: u8) -> &str {
        let tiers = &self.settings.tiers;
        tiers.get(usize::from(number)).map_or("", |tier| tier.name.as_str())
    }

    /// The number of the highest tier.
    pub(super) fn highest(&self) -> u8 {
        u8::try_from(self.settings.tiers.len().saturating_sub(1)).unwrap_or(u8::MAX)
    }

    /// The score from which a person is in a tier.
    pub(super) fn tier_from(&self, number: u8) -> f64 {
        self.settings.tiers[usize::from(number)].from
    }

    /// When a score, which stood at `at_us`, is no longer enough for a tier: the end of time for the lowest.
    #[allow(clippy::cast_possible_truncation)] // saturates, which is meant
    pub(super) fn tier_left(&self, number: u8, score: f64, at_us: i64) -> i64 {
        let Some(tier) = self.settings.tiers.get(usize::from(number)).filter(|_| number > 0) else {
            return i64::MAX;
        };
        let half_lives = (score / tier.until).log2().max(0.0);
        at_us.saturating_add((half_lives * self.half_life_us).ceil() as i64)
    }
}

/// How long somebody stayed away between visits, in days, by Welford's method: mean and deviation without keeping each.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Gaps {
    pub(super) count: u32,
    mean: f64,
    /// Sum of squares of what they differ from the mean.
    squares: f64,
}

impl Gaps {
    /// One more.
    pub(super) fn take(&mut self, days: f64) {
        self.count = self.count.saturating_add(1);
        let off = days - self.mean;
        self.mean += off / f64::from(self.count);
        self.squares += off * (days - self.mean);
    }

    /// The gaps of both, by the method of Chan, Golub and LeVeque.
    pub(super) fn merged(&self, other: &Self) -> Self {
        let (count, own, others) = (
            self.count.saturating_add(other.count),
            f64::from(self.count),
            f64::from(other.count),
        );
        if count == 0 {
            return *self;
        }
        let off = other.mean - self.mean;
        let all = f64::from(count);
        Self {
            count,
            mean: self.mean + off * others / all,
            squares: self.squares + other.squares + off * off * own * others / all,
        }
    }

    /// The mean, days; `None` before the first.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// The deviation of the sample, days; `None` before the second.
    pub(super) fn deviation(&self) -> Option<f64> {
        (self.count > 1).then(|| (self.squares / f64::from(self.count - 1)).sqrt())
    }

    /// The longest time away that is usual, days: two deviations above the mean, within the limits that are set.
    pub(super) fn usual_days(&self, rules: &Rules) -> f64 {
        let own = match (self.mean(), self.deviation()) {
            (Some(mean), Some(deviation)) if self.count >= GAPS_MIN => mean + DEVIATIONS * deviation,
            _ => rules.unknown_days,
        };
        own.clamp(rules.least_days, rules.most_days)
    }
}

/// Where a person stands with the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum LifeCycle {
    /// Has not come often enough yet.
    New,
    /// Comes as usual.
    Active,
    /// Came back after a long time, and not often enough yet since.
    Returning,
    /// Stays away for longer than is usual for this person.
    Drifting,
    /// For three times as long.
    Dormant,
    /// For nine times as long.
    Gone,
}

impl LifeCycle {
    pub(super) fn as_str(self) -> &'static str {
        ["new", "active", "returning", "drifting", "dormant", "gone"][self as usize]
    }

    /// What comes of staying away, and after how many usual gaps.
    pub(super) fn next(self) -> Option<(Self, i64)> {
        match self {
            Self::New | Self::Active | Self::Returning => Some((Self::Drifting, 1)),
            Self::Drifting => Some((Self::Dormant, DORMANT)),
            Self::Dormant => Some((Self::Gone, GONE)),
            Self::Gone => None,
        }
    }
}

/// Days of so many microseconds.
pub(super) fn days(us: i64) -> f64 {
    us as f64 / DAY_US as f64
}

/// Microseconds of so many days.
#[allow(clippy::cast_possible_truncation)] // saturates, which is meant
pub(super) fn micros(days: f64) -> i64 {
    (days * DAY_US as f64).round() as i64
}

#[cfg(test)]
mod tests {
    use super::Gaps;

    /// Gaps of 2, 3 and 7 days, as in docs/ENGAGEMENT.md: the one of the card, the other two of the login.
    #[test]
    fn gaps_of_two_names_are_those_of_one() {
        let of = |days: &[f64]| {
            let mut gaps = Gaps::default();
            days.iter().for_each(|days| gaps.take(*days));
            gaps
        };
        let cases: [(&[f64], &[f64]); 3] = [(&[2.0], &[3.0, 7.0]), (&[7.0, 2.0], &[3.0]), (&[], &[2.0, 3.0, 7.0])];
        for (own, others) in cases {
            let merged = of(own).merged(&of(others));
            assert_eq!((merged.count, merged.mean()), (3, Some(4.0)));
            let deviation = merged.deviation().expect("there are three");
            assert!((deviation - 2.645_751_311).abs() < 1e-9, "{deviation}");
        }
    }
}
