//! Uplift says whether a rule's messages help: of those who were sent one and of those who would have been, how many
//! came back.
//!
//! A person counts once for a rule, by the first of its messages, so that the persons on either side are independent.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Below so many on either side nothing is said of a difference.
pub const SIDE_MIN: u64 = 30;
/// The quantile of a 95 % interval.
const Z: f64 = 1.959_963_984_540_054;

/// Whether one person comes back after the first message of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trial {
    pub(super) rule: Arc<str>,
    /// Whether the message went out; otherwise it would have.
    pub(super) is_sent: bool,
    /// Behind this event time being seen is coming back, microseconds.
    pub(super) from_us: i64,
    /// Up to this one.
    pub(super) until_us: i64,
    pub(super) is_back: bool,
    pub(super) is_over: bool,
}

impl Trial {
    /// The person did something at that event time.
    pub(super) fn see(&mut self, at_us: i64) -> bool {
        let is_new = self.is_back_at(at_us);
        self.is_back |= is_new;
        is_new
    }

    /// Whether doing something at that event time would be coming back, for the first time.
    pub(super) fn is_back_at(&self, at_us: i64) -> bool {
        !self.is_over && !self.is_back && at_us > self.from_us && at_us <= self.until_us
    }
}

/// Persons on one side, whose time is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// How many.
    pub persons: u64,
    /// How many of them came back.
    pub back: u64,
}

impl Side {
    fn add(&mut self, is_back: bool) {
        self.persons += 1;
        self.back += u64::from(is_back);
    }

    fn share(self) -> f64 {
        self.back as f64 / self.persons as f64
    }

    /// The interval of Wilson's score for the share.
    fn wilson(self) -> (f64, f64) {
        let (n, share) = (self.persons as f64, self.share());
        let middle = share + Z * Z / (2.0 * n);
        let reach = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        let over = 1.0 + Z * Z / n;
        ((middle - reach) / over, (middle + reach) / over)
    }

    /// Whether a count here or what is left over says something of fewer than `k`.
    fn gives_away(self, k: u64) -> bool {
        [self.persons, self.back, self.persons - self.back]
            .into_iter()
            .any(|count| count > 0 && count < k)
    }
}

/// Both sides of a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sides {
    /// Those who were sent a message.
    pub sent: Side,
    /// Those who would have been.
    pub held_out: Side,
}

impl Sides {
    pub(super) fn add(&mut self, trial: &Trial) {
        match trial.is_sent {
            true => self.sent.add(trial.is_back),
            false => self.held_out.add(trial.is_back),
        }
    }

    /// The difference of the shares with Newcombe's interval of 95 %, by Wilson's scores of both; `None` where somebody is
    /// missing on a side.
    pub fn difference(self) -> Option<(f64, f64, f64)> {
        if self.sent.persons == 0 || self.held_out.persons == 0 {
            return None;
        }
        let (sent, held_out) = (self.sent.share(), self.held_out.share());
        let ((sent_low, sent_high), (held_low, held_high)) = (self.sent.wilson(), self.held_out.wilson());
        let difference = sent - held_out;
        let low = difference - (sent - sent_low).hypot(held_high - held_out);
        let high = difference + (sent_high - sent).hypot(held_out - held_low);
        Some((difference, low, high))
    }
}

/// One side as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct SideView {
    /// Persons whose time is over; null where so few stand behind a figure that it would give them away.
    pub persons: Option<u64>,
    /// How many of them came back.
    pub back: Option<u64>,
    /// Their share.
    pub share: Option<f64>,
}

/// A rule's uplift as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct UpliftView {
    /// The rule.
    pub rule: String,
    /// The kind of its messages.
    pub kind: String,
    /// Those who were sent its message.
    pub sent: SideView,
    /// Those who would have been, had they not been drawn to be sent nothing.
    pub held_out: SideView,
    /// The share of the former less that of the latter; null where there is too little to say it.
    pub difference: Option<f64>,
    /// The lower end of its interval of 95 %.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
    /// Whether at least 30 persons are on each side.
    pub enough: bool,
    /// Whether figures are hidden because fewer persons stand behind one than may be told.
    pub few: bool,
    /// What it comes to, in a sentence.
    pub words: String,
}

impl UpliftView {
    pub(super) fn of(rule: &str, kind: &str, sides: Sides, k: u32) -> Self {
        let k = u64::from(k);
        let few = sides.sent.gives_away(k) || sides.held_out.gives_away(k);
        let enough = sides.sent.persons >= SIDE_MIN && sides.held_out.persons >= SIDE_MIN;
        let round = |share: f64| (share * 1e4).round() / 1e4;
        let side = |side: Side| SideView {
            persons: (!few).then_some(side.persons),
            back: (!few).then_some(side.back),
            share: (!few && side.persons > 0).then(|| round(side.share())),
        };
        let said = sides.difference().filter(|_| enough && !few);
        let words = match said {
            _ if few => format!("too little data: fewer than {k} persons stand behind one of its figures"),
            None => format!(
                "too little data: {} were sent its message and {} were held out, and {SIDE_MIN} on each side are needed",
                sides.sent.persons, sides.held_out.persons
            ),
            Some((_, low, _)) if low > 0.0 => "those who were sent it came back more often".to_owned(),
            Some((_, _, high)) if high < 0.0 => "those who were sent it came back less often".to_owned(),
            Some(_) => "no difference can be told from chance".to_owned(),
        };
        Self {
            rule: rule.to_owned(),
            kind: kind.to_owned(),
            sent: side(sides.sent),
            held_out: side(sides.held_out),
            difference: said.map(|(difference, ..)| round(difference)),
            low: said.map(|(_, low, _)| round(low)),
            high: said.map(|(.., high)| round(high)),
            enough,
            few,
            words,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Side, Sides, UpliftView};

    fn sides(sent: (u64, u64), held_out: (u64, u64)) -> Sides {
        let side = |(back, persons)| Side { persons, back };
        Sides {
            sent: side(sent),
            held_out: side(held_out),
        }
    }

    /// The examples (a), (d) and (h) of R. G. Newcombe, Interval estimation for the difference between independent
    /// proportions, Statistics in Medicine 17 (1998), method 10.
    #[test]
    fn the_interval_is_newcombes() {
        for (sent, held_out, low, high) in [
            ((56, 70), (48, 80), 0.0524, 0.3339),
            ((5, 56), (0, 29), -0.0381, 0.1926),
            ((10, 10), (0, 10), 0.6075, 1.0),
        ] {
            let (_, found_low, found_high) = sides(sent, held_out).difference().expect("both are there");
            let near = |a: f64, b: f64| (a - b).abs() < 5e-5;
            assert!(
                near(found_low, low) && near(found_high, high),
                "{found_low} {found_high}"
            );
        }
    }

    #[test]
    fn too_little_data_is_said_and_small_counts_are_hidden() {
        let view = |sent, held_out| UpliftView::of("help", "help_offer", sides(sent, held_out), 5);
        let enough = view((56, 70), (48, 80));
        assert_eq!(
            (enough.difference, enough.low, enough.high),
            (Some(0.2), Some(0.0524), Some(0.3339))
        );
        assert_eq!(enough.words, "those who were sent it came back more often");
        let short = view((20, 40), (10, 29));
        assert_eq!((short.enough, short.few, short.difference), (false, false, None));
        assert_eq!(
            short.words,
            "too little data: 40 were sent its message and 29 were held out, and 30 on each side are needed"
        );
        // Four who did not come back would be known.
        let few = view((36, 40), (20, 40));
        assert!(few.few && few.sent.persons.is_none() && few.held_out.back.is_none() && few.difference.is_none());
        assert_eq!(view((0, 0), (0, 0)).words.split(':').next(), Some("too little data"));
    }
}
