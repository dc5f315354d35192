//! A spy plays a day into an engine and asks all that anybody may ask; then it looks for what gives somebody away.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use serde_json::{Value, json};
use usher_connectors::client::MqttClient;
use usher_connectors::message::QoS;

use super::day::{Day, GATES, K, MINUTES, MORNING, SITE, STEP};
use crate::usher::Usher;
use crate::{TestResult, soon, until};

type Failure = Box<dyn std::error::Error>;

/// What was answered.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    /// When it was asked, seconds after the morning.
    at: i64,
    path: String,
    status: u16,
    text: String,
}

/// All that a spy has seen of a day.
pub(super) struct Seen {
    answers: Vec<Answer>,
    /// What the stream told, as JSON.
    told: Vec<String>,
    /// Pseudonyms, as only staff sees them.
    persons: Vec<String>,
    day: Vec<BTreeMap<&'static str, i64>>,
}

/// Somebody who asks over the public address.
pub(super) struct Spy {
    usher: Usher,
    public: String,
    paths: Vec<String>,
    client: reqwest::Client,
}

impl Spy {
    async fn start() -> Result<Self, Failure> {
        let usher = Usher::start_public(SITE)?;
        let public = usher.public.clone().ok_or("no public address was printed")?;
        let mut spy = Self {
            usher,
            public,
            paths: Vec::new(),
            client: reqwest::Client::new(),
        };
        spy.paths = spy.public_paths().await?;
        Ok(spy)
    }

    /// Everything that the API's description tags as public, each with all that can stand in its place.
    async fn public_paths(&self) -> Result<Vec<String>, Failure> {
        let api = self.usher.get("/api/openapi.json").await?;
        let (mut paths, mut streams) = (Vec::new(), 0);
        for (path, methods) in api["paths"].as_object().ok_or("no paths")? {
            let Some(get) = methods.get("get").filter(|get| is_public(get)) else {
                continue;
            };
            if get["responses"]["200"]["content"].get("text/event-stream").is_some() {
                assert_eq!(
                    path, "/api/v1/public/stream",
                    "another stream needs somebody to listen to it"
                );
                streams += 1;
                continue;
            }
            let places = |list: &str, key: &'static str| {
                let list = list.to_owned();
                async move {
                    let listed: Value = serde_json::from_str(&self.ask(&list, 0).await?.text)?;
                    let items = listed["items"].as_array().cloned().unwrap_or_default();
                    let names = items.iter().filter_map(|item| item[key].as_str().map(str::to_owned));
                    Ok::<Vec<String>, Failure>(names.collect())
                }
            };
            let (name, all) = match path.split_once('{').and_then(|(_, rest)| rest.split_once('}')) {
                None => (String::new(), vec![String::new()]),
                Some(("zone", _)) => ("{zone}".to_owned(), places("/api/v1/public/zones", "zone").await?),
                Some(("name", _)) => ("{name}".to_owned(), places("/api/v1/public/measures", "name").await?),
                Some((other, _)) => return Err(format!("{path}: the spy does not know what {other} may be").into()),
            };
            assert!(!all.is_empty(), "{path}: nothing can be asked for");
            paths.extend(all.iter().map(|one| path.replace(&name, one)));
        }
        assert_eq!(streams, 1);
        assert!(paths.len() > 10, "{paths:?}");
        Ok(paths)
    }

    async fn ask(&self, path: &str, at: i64) -> Result<Answer, Failure> {
        let response = self.client.get(format!("http://{}{path}", self.public)).send().await?;
        Ok(Answer {
            at,
            path: path.to_owned(),
            status: response.status().as_u16(),
            text: response.text().await?,
        })
    }

    /// Asks everything, once what was known at the last step is put up.
    async fn poll(&self, at: i64, answers: &mut Vec<Answer>) -> TestResult {
        let step = MORNING + at.div_euclid(STEP) * STEP;
        let is_put_up = |answer: &Answer| {
            let zone: Value = serde_json::from_str(&answer.text).unwrap_or_default();
            let as_of = zone["as_of"]
                .as_str()
                .and_then(|at| chrono::DateTime::parse_from_rfc3339(at).ok());
            as_of.is_some_and(|as_of| as_of.timestamp() >= step)
        };
        until("the step", || self.ask("/api/v1/public/zones/house", at), is_put_up).await?;
        for path in &self.paths {
            answers.push(self.ask(path, at).await?);
        }
        Ok(())
    }

    /// Plays a day and asks at every step, and before and after each act that is known.
    pub(super) async fn watch(day: &Day) -> Result<Seen, Failure> {
        let spy = Self::start().await?;
        let mqtt = MqttClient::connect(&spy.usher.mqtt, "the-house").await?;
        let told = tokio::spawn(listen(format!("http://{}/api/v1/public/stream", spy.public)));
        // All that was before a step has come when it is put up, and nothing else.
        let steps = (0..=MINUTES / 5).map(|step| step * STEP);
        let known = Day::known_times().into_iter().flat_map(|at| [at - 1, at + 1]);
        let mut polls: BTreeSet<i64> = steps.chain(known).collect();
        // The day is over at midnight UTC, 23 hours on; what comes late is waited for.
        polls.insert(25 * 3_600);
        let (mut acts, mut answers) = (day.acts.iter().peekable(), Vec::new());
        for at in polls {
            let mut tickets = Vec::new();
            while let Some(act) = acts.next_if(|act| act.at < at) {
                let sent = mqtt.publish(act.topic.as_str(), act.payload.clone(), QoS::AtLeastOnce, false);
                tickets.push(sent.await?);
            }
            // So that it is as late everywhere.
            let ts = (MORNING + at) * 1_000;
            let clock = json!({"id": format!("evt-clock-{at}"), "ts": ts, "in": 0}).to_string();
            let sent = mqtt.publish("usher/in/west/hall/gate/hall-door", clock, QoS::AtLeastOnce, false);
            tickets.push(sent.await?);
            for ticket in tickets {
                soon("the acknowledgement", ticket).await??;
            }
            if at > MINUTES * 60 {
                // Rows come when queries have said everything, which takes them a moment for a whole day.
                let rows = || spy.ask("/api/v1/public/measures/searches", at);
                until("the day's rows", rows, |rows| rows.text.contains("\"site\":\"main\"")).await?;
            }
            spy.poll(at, &mut answers).await?;
        }
        mqtt.disconnect().await;
        let people = spy.usher.query("SELECT person FROM people").await?;
        let steps = 0..=MINUTES / 5;
        let counts = |step: i64| {
            GATES
                .map(|zone| (zone, day.count(zone, step * STEP)))
                .into_iter()
                .collect()
        };
        let seen = Seen {
            answers,
            persons: people
                .iter()
                .filter_map(|row| row["person"].as_str().map(str::to_owned))
                .collect(),
            day: steps.map(counts).collect(),
            told: {
                // The stream ends with the engine.
                assert_eq!(spy.usher.terminate()?, Some(0));
                soon("the end of the stream", told).await???
            },
        };
        Ok(seen)
    }

    /// Asks where anybody can ask for all that is not public.
    pub(super) async fn finds_nothing_else() -> TestResult {
        let spy = Self::start().await?;
        let search = json!({"ts": MORNING * 1_000, "person": "card-0", "action": "search", "query": "q", "results": 1});
        spy.usher
            .publish("usher/in/main/web/click/opac", &search.to_string())
            .await?;
        let people = spy.usher.query("SELECT person FROM people").await?;
        let person = people[0]["person"].as_str().ok_or("nobody is known")?;
        assert_eq!(
            spy.usher.get(&format!("/api/v1/people/{person}")).await?["person"],
            person
        );
        let api = spy.usher.get("/api/openapi.json").await?;
        let mut asked = 0;
        for (path, methods) in api["paths"].as_object().ok_or("no paths")? {
            for (method, described) in methods.as_object().ok_or("no methods")? {
                if is_public(described) || path == "/healthz" {
                    continue;
                }
                let path = path.replace("{pseudonym}", person).replace("{name}", "searches");
                let path = path.replace("{zone}", "house").replace(['{', '}'], "");
                let request = spy
                    .client
                    .request(method.to_uppercase().parse()?, format!("http://{}{path}", spy.public));
                let response = request
                    .json(&json!({"sql": "SELECT person FROM people"}))
                    .send()
                    .await?;
                assert!(
                    matches!(response.status().as_u16(), 404 | 405),
                    "{method} {path}: {}",
                    response.status()
                );
                assert!(!response.text().await?.contains(person), "{method} {path}");
                asked += 1;
            }
        }
        assert!(asked > 30, "{asked} were asked for");
        for path in [
            "/",
            "/assets/app.js",
            "/metrics",
            "/api/openapi.json",
            "/api/v1/public/measures/uplift",
        ] {
            assert_eq!(spy.ask(path, 0).await?.status, 404, "{path}");
        }
        assert_eq!(spy.ask("/healthz", 0).await?.text, "ok\n");
        Ok(())
    }
}

/// What the stream tells until it ends.
async fn listen(url: String) -> Result<Vec<String>, String> {
    let response = reqwest::get(url).await.map_err(|error| error.to_string())?;
    let (mut bytes, mut text) = (response.bytes_stream(), String::new());
    while let Some(Ok(some)) = bytes.next().await {
        text += &String::from_utf8_lossy(&some);
    }
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    Ok(data
        .map(|data| data.trim().to_owned())
        .filter(|data| !data.is_empty())
        .collect())
}

fn is_public(described: &Value) -> bool {
    described["tags"]
        .as_array()
        .is_some_and(|tags| tags.contains(&json!("public")))
}

impl Seen {
    fn texts(&self) -> impl Iterator<Item = &String> {
        self.answers.iter().map(|answer| &answer.text).chain(&self.told)
    }

    /// No pseudonym stands anywhere, and no id of an event, card, tag, seat or device.
    pub(super) fn names_nobody(&self) {
        assert!(self.persons.len() > 20, "{}", self.persons.len());
        let ids = ["evt-", "card-", "tag-", "seat-", "-door", "opac", "\"p_", "\"s_"];
        for text in self.texts() {
            for name in self.persons.iter().map(String::as_str).chain(ids) {
                assert!(!text.contains(name), "{name} stands in {text}");
            }
        }
    }

    /// No number of fewer than k stands anywhere, and none that is finer than k, whatever it counts; and no time that is finer
    /// than a step.
    pub(super) fn counts_nobody_few(&self) {
        for text in self.texts() {
            let value: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"));
            numbers(&value, &mut |key, number| match key {
                // What the library was built for.
                "capacity" => {}
                "share" => {}
                _ => {
                    let count = number.as_i64();
                    let is_right = count.is_some_and(|count| count >= K && count % K == 0);
                    assert!(is_right, "{key}: {number} in {text}");
                }
            });
            zones(&value, &mut |zone| {
                let as_of = zone["as_of"].as_str().unwrap_or("2026-03-02T01:00:00Z");
                let as_of = chrono::DateTime::parse_from_rfc3339(as_of).expect("a time");
                assert_eq!(as_of.timestamp_micros() % (STEP * 1_000_000), 0, "{zone}");
                let of_capacity = zone["persons"].as_f64().zip(zone["capacity"].as_f64());
                let share = of_capacity.map(|(persons, capacity)| (persons / capacity * 1e4).round() / 1e4);
                assert_eq!(zone["share"].as_f64(), share, "{zone}");
                assert_eq!(zone["few"], json!(zone["persons"].is_null()), "{zone}");
            });
        }
    }

    /// What is shown at each step, by zone.
    fn steps(&self) -> Vec<(i64, BTreeMap<String, Value>)> {
        let lists = self
            .answers
            .iter()
            .filter(|answer| answer.path == "/api/v1/public/zones");
        let read = |answer: &Answer| {
            let value: Value = serde_json::from_str(&answer.text).expect("it is JSON");
            let mut shown = BTreeMap::new();
            zones(&value, &mut |zone| {
                shown.insert(zone["zone"].as_str().unwrap_or_default().to_owned(), zone.clone());
            });
            (answer.at, shown)
        };
        lists.map(read).collect()
    }

    /// Nothing that is hidden is what is left of a total when all else is taken off.
    pub(super) fn hides_none_alone(&self) {
        let mut beside = 0;
        for (at, shown) in self.steps() {
            let persons = |zone: &str| shown[zone]["persons"].as_i64();
            let parts = &GATES[1..];
            let sum: i64 = parts.iter().filter_map(|part| persons(part)).sum();
            let hidden = parts.iter().filter(|part| persons(part).is_none()).count();
            if let Some(all) = persons("house") {
                assert!(sum <= all, "at {at}: {shown:?}");
                assert_ne!(hidden, 1, "at {at}: one is hidden alone: {shown:?}");
                beside += usize::from(hidden == 2);
            }
            let rooms = ["quiet", "group"].map(persons);
            let floor: i64 = rooms.iter().flatten().sum();
            assert_eq!(
                persons("floor-2"),
                rooms.iter().flatten().next().map(|_| floor),
                "at {at}"
            );
        }
        assert!(beside > 5, "another was hidden with a small one {beside} times");
        // Three searched in the north: that is not said, nor are the eight of the west, for all of them may be known.
        let rows = self
            .answers
            .iter()
            .filter(|answer| answer.path.ends_with("/measures/searches"));
        for answer in rows {
            assert!(
                !answer.text.contains("north") && !answer.text.contains("west"),
                "{}",
                answer.text
            );
        }
    }

    /// Behind each change of a number stand at least k persons, and behind each number.
    pub(super) fn moves_by_enough(&self) {
        // What each count was when it last moved by k, seen or not, and what was last seen.
        let (mut moved, mut seen) = (BTreeMap::from(GATES.map(|zone| (zone, 0))), BTreeMap::new());
        let mut changes = 0;
        for (at, shown) in self.steps().into_iter().filter(|(at, _)| *at <= MINUTES * 60) {
            let step = usize::try_from(at / STEP).expect("the day has begun");
            for zone in GATES {
                let (count, then) = (self.day[step][zone], moved[zone]);
                if (count - then).abs() >= K {
                    moved.insert(zone, count);
                }
                let Some(persons) = shown[zone]["persons"].as_i64() else {
                    continue;
                };
                assert!(count >= K, "{count} in {zone} at {at}, where {persons} are shown");
                let expected = moved[zone] - moved[zone] % K;
                assert_eq!(persons, expected, "{zone} at {at}: not by k, from {then} to {count}");
                changes += usize::from(seen.insert(zone, persons).is_some_and(|before| before != persons));
            }
        }
        assert!(changes > 20, "{changes} changes say something");
    }

    /// It is of use: what is shown is near what is there.
    pub(super) fn says_something(&self) {
        let mut shown = 0;
        for (at, zones) in self.steps().into_iter().filter(|(at, _)| *at <= MINUTES * 60) {
            let step = usize::try_from(at / STEP).expect("the day has begun");
            for zone in GATES {
                if let Some(persons) = zones[zone]["persons"].as_i64() {
                    assert!((self.day[step][zone] - persons).abs() < 2 * K, "{zone} at {at}");
                    shown += 1;
                }
            }
        }
        assert!(shown > 100, "{shown} counts were shown");
        assert!(self.told.len() > 30, "the stream told of {} changes", self.told.len());
        let last = self
            .answers
            .iter()
            .rev()
            .find(|answer| answer.path.ends_with("/measures/searches"));
        assert!(
            last.is_some_and(|last| last.text.contains("\"site\":\"main\"")),
            "{last:?}"
        );
    }

    /// Nothing that was ever answered or told is another than in `others`.
    pub(super) fn is_as(&self, others: &Self, why: &str) {
        assert_eq!(self.answers.len(), others.answers.len());
        for (own, other) in self.answers.iter().zip(&others.answers) {
            assert_eq!(own, other, "{why}");
        }
        assert_eq!(self.told, others.told, "{why}");
    }
}

fn numbers(value: &Value, see: &mut impl FnMut(&str, &serde_json::Number)) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match member {
                    Value::Number(number) => see(key, number),
                    member => numbers(member, see),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Number(number) => see("", number),
                    item => numbers(item, see),
                }
            }
        }
        _ => {}
    }
}

fn zones(value: &Value, see: &mut impl FnMut(&Value)) {
    match value {
        Value::Object(members) if members.contains_key("as_of") => see(value),
        Value::Object(members) => members.values().for_each(|member| zones(member, see)),
        Value::Array(items) => items.iter().for_each(|item| zones(item, see)),
        _ => {}
    }
}
