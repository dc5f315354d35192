//! A candidate is a row that a rule found about a person, before it is decided whether it goes out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use usher_queries::row::Rows;
use usher_queries::rows::time_to_text;
use usher_queries::statement::MessageOptions;

use super::message::{Message, MessageState, Texts};
use crate::alerts::Moment;
use crate::derived_id::derived_id;
use crate::rule::Rule;

/// Causes told with a message.
const CAUSES_MAX: usize = 20;

/// What may become a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Candidate {
    /// What makes a moment of several, in watermark, microseconds: the one that its row met, or the one that its event comes
    /// to stand for, whichever is later. After a silence the former may be of long ago.
    pub(super) met_us: i64,
    pub(super) message: Message,
}

impl Candidate {
    /// Those that came first, first.
    pub(super) fn order(&self) -> (i64, i64, &str, &str) {
        (self.met_us, self.message.at_us, &self.message.rule, &self.message.id)
    }
}

/// Whom a row is about, and what it found; `None` for a row about nobody. The watermark follows events `delay_us` behind.
pub(super) fn candidate(
    rule: &Rule,
    options: &MessageOptions,
    (rows, row): (&Rows, usize),
    moment: &Moment<'_>,
    delay_us: i64,
) -> Option<(String, Candidate)> {
    let person = rule.subject(rows, row)?;
    let met_us = rows.watermark(row);
    let cause = rows.cause(row);
    // An event counts only if the row was said when it came, as for alerts.
    let event_time = || {
        let event = (moment.event_of)(cause?)?;
        (event.met_us == met_us).then_some(event.time_us)
    };
    let at_us = rule.time(rows, row).or_else(event_time).unwrap_or(match met_us {
        i64::MIN => moment.now_us,
        met_us => met_us,
    });
    let mut causes = rule
        .causes(rows, row)
        .unwrap_or_else(|| cause.map(str::to_owned).into_iter().collect());
    causes.truncate(CAUSES_MAX);
    let when = if causes.is_empty() {
        time_to_text(at_us)
    } else {
        String::new()
    };
    let site = rule.site(rows, row);
    let parts = [&*rule.name, site, &person, &when];
    let id = derived_id('m', parts.into_iter().chain(causes.iter().map(String::as_str)));
    let in_chinese = options.text_zh.as_deref().unwrap_or(&rule.options.text);
    let message = Message {
        id,
        rule: Arc::clone(&rule.name),
        kind: Arc::from(options.kind.as_str()),
        site: Arc::from(site),
        zone: rule.zone(rows, row).map(Arc::from),
        text: Texts {
            en: rule.text(rows, row, moment.places),
            zh: rule.sentence(in_chinese, "zh", rows, row, moment.places),
        },
        priority: options.priority,
        values: Value::from(rule.values(rows, row)).to_string(),
        causes,
        state: MessageState::Sent,
        withheld: None,
        at_us,
        expires_us: rule.options.expires_us,
        opened_us: None,
        answered_us: None,
        rating: None,
        points: options.points,
    };
    let met_us = met_us.max(at_us.saturating_sub(delay_us));
    Some((person, Candidate { met_us, message }))
}
