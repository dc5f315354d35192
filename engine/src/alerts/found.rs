//! What a rule found in a row, and the alert that it makes of it.

use std::sync::Arc;

use usher_queries::row::Rows;
use usher_queries::rows::time_to_text;

use super::Moment;
use super::watch::Place;
use crate::alert::{Alert, State, Subject, Trace};
use crate::derived_id::derived_id;
use crate::rule::Rule;

/// Causes told with an alert; a crowd of thousands behind one alert helps nobody.
const CAUSES_MAX: usize = 100;

/// A row that a rule found, and how to read it.
pub(super) struct Found<'a> {
    pub(super) rule: &'a Arc<Rule>,
    pub(super) rows: &'a Rows,
    pub(super) row: usize,
    pub(super) subject: &'a str,
    pub(super) cause: Option<&'a str>,
    pub(super) watermark: i64,
}

impl Found<'_> {
    pub(super) fn site(&self) -> &str {
        self.rule.site(self.rows, self.row)
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place {
            site: self.site(),
            zone: own_zone(self.rule, self.rows, self.row),
            subject: self.subject,
        }
    }

    /// When it became so: what the row says, or the event behind it, or the watermark. An event counts only if the row was
    /// said when it came: that of a window which ends much later is at hand by chance.
    pub(super) fn time(&self, moment: &Moment<'_>) -> i64 {
        let event = || {
            let event = (moment.event_of)(self.cause?)?;
            (event.met_us == self.watermark).then_some(event.time_us)
        };
        self.rule
            .time(self.rows, self.row)
            .or_else(event)
            .unwrap_or(match self.watermark {
                i64::MIN => moment.now_us,
                watermark => watermark,
            })
    }

    /// As of when it was known: a row may be said long after what it is about, as that of a visit is, and is to stand for as long
    /// as another.
    pub(super) fn heard(&self, moment: &Moment<'_>) -> i64 {
        self.time(moment).max(self.watermark)
    }

    pub(super) fn alert(&self, at: i64, moment: &Moment<'_>) -> Alert {
        let (rule, rows, row) = (self.rule, self.rows, self.row);
        let mut causes = rule
            .causes(rows, row)
            .unwrap_or_else(|| self.cause.map(str::to_owned).into_iter().collect());
        causes.truncate(CAUSES_MAX);
        let place = self.place();
        let of_place = format!("{}\u{1f}{}\u{1f}{}", place.site, place.zone, place.subject);
        // A window that closes by itself has no event at hand: then its time tells one finding from the next.
        let when = if causes.is_empty() {
            time_to_text(at)
        } else {
            String::new()
        };
        Alert {
            id: alert_id(&rule.name, &of_place, &causes, &when),
            zone: rule.zone(rows, row).map(str::to_owned),
            text: rule.text(rows, row, moment.places),
            values: rule.values(rows, row),
            window: rule.window(rows, row),
            causes,
            trace: self.cause.map(|cause| (moment.trace_of)(cause)).unwrap_or_default(),
            ..blank_alert(rule, place, at)
        }
    }

    /// Brings an alert's measurements up to date; true when people would read something else now.
    pub(super) fn measure(&self, alert: &mut Alert, moment: &Moment<'_>) -> bool {
        alert.values = self.rule.values(self.rows, self.row);
        alert.window = self.rule.window(self.rows, self.row);
        let text = self.rule.text(self.rows, self.row, moment.places);
        let changed = text != alert.text;
        alert.text = text;
        changed
    }
}

/// An alert of which nothing is known but the rule, the place, and since when.
pub(super) fn blank_alert(rule: &Rule, place: Place<'_>, at: i64) -> Alert {
    Alert {
        id: String::new(),
        rule: Arc::clone(&rule.name),
        site: place.site.to_owned(),
        zone: place.zone_of(rule).map(str::to_owned),
        subject: Subject {
            kind: rule.options.subject.clone(),
            id: place.subject.to_owned(),
        },
        severity: rule.options.severity.clone(),
        state: State::Pending,
        snoozed: false,
        snoozed_until: None,
        suppressed: false,
        suppressed_by: Vec::new(),
        group: None,
        text: String::new(),
        values: serde_json::Map::new(),
        window: None,
        event_time: time_to_text(at),
        raised_at: None,
        cleared_at: None,
        acknowledged_by: None,
        assignee: None,
        comments: Vec::new(),
        causes: Vec::new(),
        step: None,
        trace: Trace::default(),
    }
}

/// Seats and devices have their names within a zone; the others within a site.
pub(super) fn own_zone<'a>(rule: &Rule, rows: &'a Rows, row: usize) -> &'a str {
    match rule.options.subject.as_str() {
        "seat" | "device" => rule.zone(rows, row).unwrap_or(""),
        _ => "",
    }
}

/// The same for the same rule, subject and causes, whenever and wherever it is worked out.
pub(super) fn alert_id(rule: &str, place: &str, causes: &[String], when: &str) -> String {
    derived_id(
        'a',
        [rule, place, when].into_iter().chain(causes.iter().map(String::as_str)),
    )
}
