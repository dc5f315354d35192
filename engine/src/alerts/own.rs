//! What Usher finds about itself: alerts that no query raises, with a life like any other.

use serde_json::{Map, Value};

use super::found::{alert_id, blank_alert};
use super::watch::{Open, Phase, Place, Watch};
use super::{Alerts, Moment, Step};
use crate::alert::Alert;
use crate::shed::{SHED, ShedReason};

impl Alerts {
    /// So many messages were shed by the watermark `reached`; found again, the alert of each site stands longer.
    pub fn shed(
        &mut self,
        reason: ShedReason,
        messages: u64,
        reached: i64,
        moment: &Moment<'_>,
        steps: &mut Vec<Step>,
    ) {
        let Some(rule) = self.rules.get(SHED).cloned() else {
            return;
        };
        let at = if reached == i64::MIN { moment.now_us } else { reached };
        let before = steps.len();
        let sites: Vec<&str> = match moment.places.sites().map(|site| site.id.as_str()).collect::<Vec<_>>() {
            // Nobody has said what the house is called.
            none if none.is_empty() => vec![""],
            sites => sites,
        };
        for site in sites {
            let place = Place {
                site,
                zone: "",
                subject: reason.as_str(),
            };
            let key = place.key(&rule.name);
            let is_new = !self.watches.contains_key(key.as_str());
            if is_new && self.add_watch(&key, Watch::new(&rule.name, at, "")).is_none() {
                continue;
            }
            let key = self.key_of(&key);
            let Some(watch) = self.watches.get_mut(&key) else {
                continue;
            };
            watch.heard_us = watch.heard_us.max(at);
            if watch.phase == Phase::Standing
                && let Some(open) = &mut watch.open
            {
                let so_far = open.alert.values.get("messages").and_then(Value::as_u64).unwrap_or(0);
                measure(&mut open.alert, reason, so_far.saturating_add(messages));
                self.remeasured(&key, steps);
                continue;
            }
            let when = usher_queries::rows::time_to_text(at);
            let mut alert = Alert {
                id: alert_id(&rule.name, &key, &[], &when),
                severity: reason.severity().to_owned(),
                ..blank_alert(&rule, place, at)
            };
            measure(&mut alert, reason, messages);
            self.put_forward(&key, Open::new(alert, at), at, i64::MIN, moment, steps);
        }
        // Nobody counts again what was shed before a crash.
        for step in &mut steps[before..] {
            step.waits_for_disk = true;
        }
    }
}

fn measure(alert: &mut Alert, reason: ShedReason, messages: u64) {
    alert.values = Map::from_iter([
        ("reason".to_owned(), reason.as_str().into()),
        ("messages".to_owned(), messages.into()),
    ]);
    alert.text = reason.text(messages);
}
