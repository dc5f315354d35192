//! The life of alerts over real queries, on event time alone.

mod holding_back;
mod kept;
mod life;
mod replay;
mod together;
mod waiting;

use std::time::Duration;

use usher_queries::statement::parse_statements;

use super::{Action, Deed, Step};
use crate::alert::{Alert, Trace};
use crate::event::Event;
use crate::fixture::{self, NINE, SECOND};
use crate::perception::Perception;
use crate::perception::tests::saved;

const SITE: &str = r#"
[[site]]
id = "main"
time_zone = "Asia/Shanghai"
opening = { mon-fri = "08:00-22:00" }
[[zone]]
site = "main"
id = "floor-1"
[[zone]]
site = "main"
id = "hall"
parent = "floor-1"
[[zone]]
site = "main"
id = "cafe"
parent = "floor-1"
[[zone]]
site = "main"
id = "attic"
"#;

/// A perception of a place where some rules run, without any of the shipped ones.
struct House {
    perception: Perception,
    sql: String,
    events: u64,
}

impl House {
    fn of(sql: &str) -> Self {
        Self {
            perception: perception(sql, 0, 1),
            sql: sql.to_owned(),
            events: 0,
        }
    }

    /// So many people pass a gate of a zone; gives what is told of that.
    fn pass(&mut self, seconds: i64, zone: &str, entered: i64) -> Vec<String> {
        self.hear(seconds, &format!("{zone}/gate/g"), &format!(r#"{{"in":{entered}}}"#))
    }

    /// A device says something.
    fn hear(&mut self, seconds: i64, topic: &str, payload: &str) -> Vec<String> {
        self.events += 1;
        let payload = payload.replacen('{', &format!(r#"{{"id":"e{}","#, self.events), 1);
        let events = events(&[(seconds, topic.to_owned(), payload)]);
        told(&self.perception.take(&events, &|_| Trace::default()))
    }

    /// Nothing comes until then.
    fn wait(&mut self, seconds: i64) -> Vec<String> {
        told(&self.perception.tick(NINE + seconds * SECOND))
    }

    /// Staff acts on the open alert of a rule.
    fn act(&mut self, seconds: i64, rule: &str, deed: Deed) -> Vec<String> {
        let action = Action {
            alert: self.open(rule).id,
            by: "Li".to_owned(),
            at_us: NINE + seconds * SECOND,
            deed,
        };
        let (steps, alert) = self.perception.act(&action);
        assert!(alert.is_some(), "it is open");
        told(&steps)
    }

    fn open(&self, rule: &str) -> Alert {
        let open = self.perception.alerts.open();
        let found: Vec<&&Alert> = open.iter().filter(|alert| &*alert.rule == rule).collect();
        assert_eq!(found.len(), 1, "one alert of {rule} is open: {open:?}");
        (*found[0]).clone()
    }

    /// Ends the process and goes on from its checkpoint.
    fn restart(&mut self) {
        let parts = saved(&mut self.perception);
        self.perception = perception(&self.sql, 0, 1);
        self.perception.restore(&parts, NINE).expect("it can be read");
    }
}

fn perception(sql: &str, delay_us: u64, idle_us: u64) -> Perception {
    let (delay, idle) = (Duration::from_micros(delay_us), Duration::from_micros(idle_us));
    fixture::perception(&fixture::places(SITE), delay, idle, |queries| {
        let statements = parse_statements(sql).expect("they are right");
        assert_eq!(queries.create_all(statements), []);
    })
}

/// Events received when they happened: (seconds, zone/kind/device, payload).
fn events(rows: &[(i64, String, String)]) -> Vec<Event> {
    fixture::events(rows.iter().cloned())
}

/// Each step in a line: rule, subject, what happened, why, the state and the flags behind it.
fn told(steps: &[Step]) -> Vec<String> {
    let turns = steps.iter().filter(|step| step.is_turn);
    turns.map(|step| line(&step.alert)).collect()
}

fn line(alert: &Alert) -> String {
    let step = alert.step.as_ref().expect("each step is told as one");
    let mut line = format!(
        "{}/{} {} by {}: {}",
        alert.rule,
        alert.subject.id,
        word(step.what),
        word(step.why),
        alert.state.as_str()
    );
    for (flag, is_set) in [("snoozed", alert.snoozed), ("suppressed", alert.suppressed)] {
        if is_set {
            line.push(' ');
            line.push_str(flag);
        }
    }
    line
}

#[test]
fn the_manuals_example_can_run() {
    let page = include_str!("../../../docs/ALERTS.md");
    let examples: Vec<&str> = page
        .split("```sql\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(!examples.is_empty());
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("queries")).expect("a folder in it");
    std::fs::write(folder.path().join("queries/mine.sql"), examples.concat()).expect("a file in it");
    let checked = crate::check::check(folder.path()).expect("they are right");
    assert_eq!((checked.own, checked.warnings.as_slice()), (examples.len(), &[][..]));
}

/// What is written in JSON as a word.
fn word(value: impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).expect("it is JSON");
    value.as_str().expect("it is a word").to_owned()
}
