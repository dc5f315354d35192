//! Steps to a webhook: which it wants, what a request says, and what an answer means.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use usher_connectors::BoxFuture;
use usher_connectors::webhook::{Post, PostError, Webhook};
use usher_queries::rows::time_to_text;

use super::news::News;
use super::receiver::{Sender, Sent};
use super::step::Told;
use crate::alert::State;
use crate::pipeline::wall_clock_us;

/// The longest peace that a receiver can ask for at once.
const PEACE_MAX: Duration = Duration::from_secs(3600);

/// Which steps a webhook wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Names of rules, each with its groups and missing data; `None` is all.
    pub rules: Option<BTreeSet<String>>,
    /// States that a step leads to; `None` is all.
    pub states: Option<Vec<State>>,
}

impl Wanted {
    fn has(&self, news: &News) -> bool {
        let alert = match news {
            News::Alert(alert) => alert,
            News::Message(message) => {
                let is_named = |rules: &BTreeSet<String>| rules.contains(&message.rule);
                // States are those of alerts: who names some wants these alone.
                return self.rules.as_ref().is_none_or(is_named) && self.states.is_none();
            }
            News::Erased(_) => return false,
        };
        // A rule's groups and missing data are told under names of their own, and belong to it.
        let of = alert
            .rule
            .strip_suffix(".group")
            .or(alert.rule.strip_suffix(".no_data"));
        let names = [Some(&*alert.rule), of];
        let is_named = |rules: &BTreeSet<String>| names.into_iter().flatten().any(|name| rules.contains(name));
        let rule = self.rules.as_ref().is_none_or(is_named);
        let state = self.states.as_ref().is_none_or(|states| states.contains(&alert.state));
        rule && state
    }
}

/// Sends to a webhook.
pub(super) struct WebhookSender {
    pub(super) webhook: Webhook,
    pub(super) wanted: Wanted,
}

/// The body of a request, the same for every try.
#[derive(Serialize)]
struct Body<'a> {
    /// Of the step, as in `webhook-id`.
    id: String,
    /// `alert.` or `message.`, and the state.
    r#type: String,
    /// When it was told, RFC 3339.
    timestamp: String,
    data: &'a News,
}

impl Sender for WebhookSender {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    fn address(&self) -> String {
        self.webhook.url().to_string()
    }

    fn wants(&self, news: &News) -> bool {
        self.wanted.has(news)
    }

    fn send(&self, step: Arc<Told>) -> BoxFuture<'_, Sent> {
        Box::pin(async move {
            let id = step.id.to_string();
            let body = Body {
                id: id.clone(),
                r#type: step.news.happening(),
                timestamp: time_to_text(step.told_us),
                data: &step.news,
            };
            let now_us = wall_clock_us();
            let post = Post {
                id,
                timestamp_s: now_us.div_euclid(1_000_000),
                body: serde_json::to_vec(&body).expect("an alert is always JSON").into(),
            };
            meaning(self.webhook.post(post).await, now_us)
        })
    }
}

/// What an answer means for the step.
///
/// - 2xx: taken.
/// - No answer, 5xx, 408, 423, 425, 429: the receiver can't now. 3xx, 401, 403, 407: somebody has to mend the address
///   or the secret. All of these wait, and everything arrives once it is mended.
/// - Any other 4xx: it will never take this step.
fn meaning(answer: Result<(), PostError>, now_us: i64) -> Sent {
    let Err(error) = answer else { return Sent::Done };
    let reason = error.to_string();
    match error {
        PostError::NoAnswer(_) => Sent::Later { reason, peace: None },
        PostError::Answered {
            status, retry_after, ..
        } => {
            let waits = !(400..500).contains(&status) || matches!(status, 401 | 403 | 407 | 408 | 423 | 425 | 429);
            if !waits {
                return Sent::Refused(reason);
            }
            let peace = retry_after.and_then(|text| peace(&text, now_us));
            Sent::Later { reason, peace }
        }
    }
}

/// What `Retry-After` says: seconds, or a date.
fn peace(text: &str, now_us: i64) -> Option<Duration> {
    let text = text.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let until: DateTime<Utc> = DateTime::parse_from_rfc2822(text).ok()?.to_utc();
            let left_us = until.timestamp_micros().saturating_sub(now_us);
            u64::try_from(left_us).ok()?.div_ceil(1_000_000)
        }
    };
    Some(Duration::from_secs(seconds).min(PEACE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Alert;
    use crate::outbox::step::tests::alert;

    fn answered(status: u16, retry_after: Option<&str>) -> Sent {
        let answer = PostError::Answered {
            status,
            retry_after: retry_after.map(str::to_owned),
            said: "no".to_owned(),
        };
        meaning(Err(answer), 1_772_409_600_000_000)
    }

    #[test]
    fn what_can_be_mended_waits_and_what_can_not_does_not() {
        assert_eq!(meaning(Ok(()), 0), Sent::Done);
        for status in [500, 502, 503, 504, 301, 302, 401, 403, 407, 408, 423, 425, 429] {
            assert!(
                matches!(answered(status, None), Sent::Later { peace: None, .. }),
                "{status}"
            );
        }
        for status in [400, 404, 405, 410, 413, 415, 422] {
            assert_eq!(
                answered(status, None),
                Sent::Refused(format!("it answered {status}: no"))
            );
        }
        let no_answer = meaning(Err(PostError::NoAnswer("connection refused".to_owned())), 0);
        assert_eq!(
            no_answer,
            Sent::Later {
                reason: "connection refused".to_owned(),
                peace: None
            }
        );
    }

    #[test]
    fn a_receiver_gets_the_peace_it_asks_for_within_reason() {
        let peace_of = |text| match answered(429, Some(text)) {
            Sent::Later { peace, .. } => peace,
            other => panic!("{other:?}"),
        };
        assert_eq!(peace_of("7"), Some(Duration::from_secs(7)));
        assert_eq!(peace_of("86400"), Some(PEACE_MAX));
        assert_eq!(peace_of("Mon, 02 Mar 2026 00:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(peace_of("Mon, 02 Mar 2020 00:00:30 GMT"), None, "it is over");
        assert_eq!(peace_of("soon"), None);
    }

    #[test]
    fn a_webhook_is_told_what_it_wants() {
        let step = alert("a", "hall", State::Active);
        let has = |wanted: Wanted, alert: &Arc<Alert>| wanted.has(&News::from(alert));
        assert!(has(Wanted::default(), &step));
        let wanted = |rule: &str, state| Wanted {
            rules: Some(BTreeSet::from([rule.to_owned()])),
            states: Some(vec![state]),
        };
        assert!(has(wanted("crowded", State::Active), &step));
        assert!(!has(wanted("silent", State::Active), &step));
        let of = |rule: &str| {
            Arc::new(Alert {
                rule: rule.into(),
                ..(*step).clone()
            })
        };
        assert!(has(wanted("crowded", State::Active), &of("crowded.group")));
        assert!(has(wanted("crowded", State::Active), &of("crowded.no_data")));
        assert!(has(wanted("crowded.group", State::Active), &of("crowded.group")));
        assert!(!has(wanted("crowded.group", State::Active), &step));
        assert!(!has(wanted("crowd", State::Active), &of("crowded.group")));
        assert!(!has(wanted("crowded", State::Cleared), &step));
    }
}
