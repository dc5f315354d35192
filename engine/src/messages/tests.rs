//! The life of messages over real queries, on event time alone.

mod life;
mod names;
mod order;
mod random;
mod replies;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use usher_queries::query_set::QuerySet;
use usher_queries::statement::parse_statements;

use super::{MessageState, MessageStep, MessageView};
use crate::alert::Trace;
use crate::event::Event;
use crate::fixture::{self, NINE, SECOND};
use crate::perception::tests::saved_without;
use crate::perception::{Perception, PerceptionOptions};
use crate::reference::set_references;
use crate::settings::{Flags, MessageSettings, Settings};
use crate::site::Places;

const SITE: &str = r#"
[[site]]
id = "main"
time_zone = "Asia/Shanghai"
[[zone]]
site = "main"
id = "quiet"
name = { en = "Quiet study", zh = "静音区" }
"#;

/// Two rules that find the same: an offer of a seat, and one of help, which is less important.
pub(crate) const RULES: &str = "
CREATE ALERT seat_free WITH (subject = 'person', message = 'seat_offer', priority = 70, per_day = 2, points = 5,
  expires = '10 minutes', eligible = 'query = ''seat''',
  text = 'A seat in {zone}, asked for by {query}', text_zh = '{zone}有空座') AS
SELECT site, 'quiet' AS zone, person, query, event_time FROM click WHERE action = 'search';
CREATE ALERT offer_help WITH (subject = 'person', message = 'help_offer', priority = 30, expires = '10 minutes',
  text = 'May we help?') AS
SELECT site, zone, person, event_time FROM click WHERE action = 'search';
";

/// The settings that the tests change; nobody is held out, and nobody sleeps.
pub(super) fn settings(change: impl FnOnce(&mut MessageSettings)) -> MessageSettings {
    let mut settings = Settings::load_with(None, [], &Flags::default()).expect("the defaults are right");
    (settings.messages.holdout, settings.messages.quiet) = (0.0, Vec::new());
    change(&mut settings.messages);
    settings.messages
}

/// A perception where these rules run, whose watermark is at the newest event.
pub(super) fn perception(site: &str, sql: &str, messages: &MessageSettings) -> Perception {
    perception_behind(Duration::ZERO, site, sql, messages)
}

/// The same with a watermark so far behind the newest event.
fn perception_behind(delay: Duration, site: &str, sql: &str, messages: &MessageSettings) -> Perception {
    let mut settings = Settings::load_with(None, [], &Flags::default()).expect("the defaults are right");
    (settings.time.delay, settings.time.idle) = (delay, Duration::from_micros(1));
    settings.messages = messages.clone();
    let places: Arc<Places> = fixture::places(site);
    let mut queries = QuerySet::new();
    set_references(&mut queries, &places);
    assert_eq!(queries.create_all(parse_statements(sql).expect("they are right")), []);
    Perception::new(PerceptionOptions::of(&settings), places, queries)
}

/// What a person is known by.
pub(super) fn pseudonym(person: &str) -> String {
    fixture::secret().person(person).as_str().to_owned()
}

/// A library where somebody searches and answers.
struct House {
    perception: Perception,
    make: Box<dyn Fn() -> Perception>,
    events: u64,
    /// All that came.
    heard: Vec<Event>,
}

impl House {
    fn of(site: &'static str, messages: MessageSettings) -> Self {
        Self::making(move || perception(site, RULES, &messages))
    }

    fn making(make: impl Fn() -> Perception + 'static) -> Self {
        Self {
            perception: make(),
            make: Box::new(make),
            events: 0,
            heard: Vec::new(),
        }
    }

    fn new() -> Self {
        Self::of(SITE, settings(|_| {}))
    }

    fn hear(&mut self, seconds: i64, topic: &str, payload: &str) -> Vec<String> {
        self.hear_all(&[(seconds, topic, payload.to_owned())])
    }

    /// All that came in one batch.
    fn hear_all(&mut self, events: &[(i64, &str, String)]) -> Vec<String> {
        let named = events.iter().map(|(seconds, topic, payload)| {
            self.events += 1;
            let payload = payload.replacen('{', &format!(r#"{{"id":"e{}","#, self.events), 1);
            (*seconds, *topic, payload)
        });
        let events: Vec<Event> = fixture::events(named.collect::<Vec<_>>());
        self.perception.take(&events, &|_| Trace::default());
        self.heard.extend(events);
        self.told()
    }

    /// Somebody searches for something; gives what is told.
    fn search(&mut self, seconds: i64, person: &str, query: &str) -> Vec<String> {
        let payload = format!(r#"{{"action":"search","person":"{person}","query":"{query}","results":1}}"#);
        self.hear(seconds, "web/click/opac", &payload)
    }

    /// Somebody answers the newest message that was sent.
    fn reply(&mut self, seconds: i64, person: &str, response: &str) -> Vec<String> {
        let payload = self.answer(person, response);
        self.hear(seconds, "web/reply/app", &payload)
    }

    fn answer(&self, person: &str, response: &str) -> String {
        let sent = self.perception.messages.of(&pseudonym(person));
        let newest = sent.into_iter().find(|message| message.state != MessageState::Withheld);
        let message = newest.map_or_else(|| "none".to_owned(), |message| message.id);
        format!(r#"{{"person":"{person}","message":"{message}","response":"{response}"}}"#)
    }

    /// Nothing comes until then.
    fn wait(&mut self, seconds: i64) -> Vec<String> {
        self.perception.tick(NINE + seconds * SECOND);
        self.told()
    }

    /// Somebody searches for a seat and a second passes.
    fn ask(&mut self, seconds: i64, person: &str) -> Vec<String> {
        let mut told = self.search(seconds, person, "seat");
        told.extend(self.wait(seconds + 1));
        told
    }

    fn told(&mut self) -> Vec<String> {
        self.perception.take_messages().iter().map(line).collect()
    }

    /// Ends the process and goes on from its checkpoint.
    fn restart(&mut self) {
        self.restart_without(&[]);
    }

    /// The same where the checkpoint does not have these parts.
    fn restart_without(&mut self, unknown: &[&str]) {
        let parts = saved_without(&mut self.perception, unknown);
        self.perception = (self.make)();
        self.perception.restore(&parts, NINE).expect("it can be read");
    }

    fn messages(&self, person: &str) -> Vec<MessageView> {
        self.perception.messages.of(&pseudonym(person))
    }
}

#[test]
fn the_manuals_example_can_run() {
    let page = include_str!("../../../docs/MESSAGES.md");
    let examples: Vec<&str> = page
        .split("```sql\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("queries")).expect("a folder in it");
    std::fs::write(folder.path().join("queries/mine.sql"), examples.concat()).expect("a file in it");
    std::fs::write(
        folder.path().join("usher.toml"),
        "[parameters.offer_tour]\nvisits = 5\n",
    )
    .expect("another");
    let checked = crate::check::check(folder.path()).expect("they are right");
    assert_eq!((checked.own, checked.warnings.as_slice()), (1, &[][..]));
}

#[test]
fn values_that_no_statement_takes_are_told_where_they_stand() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "[parameters]\nword = \"seat\"\n[parameters.offer_search_help]\nserches = 4\nwithin = 5\n\
                [parameters.offer_serch_help]\nsearches = 4\n";
    std::fs::write(folder.path().join("usher.toml"), text).expect("a file in it");
    let mistakes = crate::check::check(folder.path()).expect_err("they are wrong");
    let told: Vec<String> = mistakes
        .iter()
        .map(|mistake| {
            mistake
                .to_string()
                .replace(&format!("{}/", folder.path().display()), "")
        })
        .collect();
    assert_eq!(
        told,
        [
            "usher.toml:2:8: no query or alert has a parameter `word`, did you mean `words`?",
            "usher.toml:4:11: `offer_search_help` has no parameter `serches`, did you mean `searches`?",
            "usher.toml:5:10: `5` is no value of `within`, it is an interval: a duration such as 10 minutes would be right",
            "usher.toml:7:12: no query or alert `offer_serch_help` has parameters, did you mean `offer_search_help`?",
        ]
    );
}

#[test]
fn a_query_that_was_added_while_running_may_have_values_in_the_settings() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let sql = "CREATE QUERY busy WITH (parameters = 'least integer = 3') AS SELECT site, count FROM click WHERE count > $least";
    crate::added_queries::write(&crate::added_queries::dir(&data).join("busy.sql"), sql).expect("it can be written");
    let text = |least: &str| format!("data = '{}'\n[parameters.busy]\nleast = {least}\n", data.display());
    let file = folder.path().join("usher.toml");
    std::fs::write(&file, text("5")).expect("a file in it");
    let checked = crate::check::check(folder.path()).expect("it is right");
    assert_eq!(checked.warnings, []);
    std::fs::write(&file, text("'five'")).expect("a file in it");
    let mistakes = crate::check::check(folder.path()).expect_err("it is wrong");
    assert!(
        mistakes[0].to_string().contains("`five` is no value of `least`"),
        "{}",
        mistakes[0]
    );
}

/// A step in a line.
fn line(step: &MessageStep) -> String {
    match step {
        MessageStep::Turned(message) => match message.withheld {
            Some(reason) => format!("{} withheld: {}", message.kind, reason.as_str()),
            None => format!("{} {}", message.kind, message.state.as_str()),
        },
        MessageStep::Withdrawn { open, .. } => format!("withdrawn: {}", open.len()),
        MessageStep::Refused { rule } => format!("{rule} refused"),
    }
}
