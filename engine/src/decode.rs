//! Decoding turns a topic and bytes into events; what can't be read becomes a refusal, and the rest goes on.
//!
//! Persons become pseudonyms here, and nothing behind it knows more. Bad input is data: nothing here fails.

mod fields;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde_json::{Deserializer, Map, Value};
use usher_queries::purpose::Purpose;

use crate::decode::fields::{Fields, Wrong};
use crate::event::{
    Clock, ConsentAction, Event, Gate, IdentifyAction, Kind, Reading, Response, RfidAction, SeatState, Source,
};
use crate::identity::NAMES_MAX;
use crate::pseudonym::{Pseudonym, Secret};
use crate::refused::{ReasonClass, Refusal};
use crate::scrub;
use crate::supervisor::words_of;
use crate::{timestamp, topic};

/// Topics whose source is remembered, so that the events of a device share it. When it is full it begins anew: topics
/// come from outside, and a flood of invented ones must not fill the memory.
const SOURCES_MAX: usize = 100_000;

/// What is read and how.
#[derive(Debug, Clone)]
pub struct DecodeOptions {
    /// A larger payload is refused, bytes.
    pub max_payload_bytes: usize,
    /// Elements of an array at most.
    pub max_elements: usize,
    /// How far a device's clock may be ahead of ours, microseconds.
    pub max_future_skew_us: i64,
    /// A time before this is that of a lost clock, microseconds since 1970.
    pub earliest_us: i64,
    /// Makes pseudonyms.
    pub secret: Secret,
}

impl DecodeOptions {
    /// The defaults.
    pub fn new(secret: Secret) -> Self {
        Self {
            max_payload_bytes: 256 * 1024,
            max_elements: 10_000,
            max_future_skew_us: 5_000_000,
            // 2001-01-01
            earliest_us: 978_307_200_000_000,
            secret,
        }
    }
}

/// What a payload came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decoded {
    /// What was understood, in order.
    pub events: Vec<Event>,
    /// What was not.
    pub refused: Vec<Refusal>,
}

/// Decodes payloads.
#[derive(Debug)]
pub struct Decoder {
    options: DecodeOptions,
    sources: FxHashMap<Box<str>, Arc<Source>>,
}

impl Decoder {
    /// A decoder.
    pub fn new(options: DecodeOptions) -> Self {
        Self {
            options,
            sources: FxHashMap::default(),
        }
    }

    /// Decodes a payload as [`Decoder::decode`] does. One that brings the decoder down is refused like any other that can't be
    /// read: its publisher would send it again and again.
    pub fn decode_or_refuse(&mut self, topic: &str, payload: &[u8], received_us: i64) -> Decoded {
        catch_unwind(AssertUnwindSafe(|| self.decode(topic, payload, received_us))).unwrap_or_else(|panic| {
            let reason = format!("a fault in the engine: {}", words_of(&*panic));
            Decoded {
                events: Vec::new(),
                refused: vec![Refusal::new(topic, received_us, ReasonClass::Fault, reason, payload)],
            }
        })
    }

    /// Reads a payload that came on `topic` at `received_us`, microseconds since 1970.
    ///
    /// One JSON object, an array of them, or several one behind the other. In an array the good elements are kept,
    /// and each bad one is refused with its place.
    pub fn decode(&mut self, topic: &str, payload: &[u8], received_us: i64) -> Decoded {
        let mut decoded = Decoded::default();
        let refusal = |class, reason| Refusal::new(topic, received_us, class, reason, payload);
        let source = match self.source(topic) {
            Ok(source) => source,
            Err(reason) => {
                decoded.refused.push(refusal(ReasonClass::Topic, reason));
                return decoded;
            }
        };
        let text = match self.text(payload) {
            Ok(text) => text,
            Err((class, reason)) => {
                decoded.refused.push(refusal(class, reason));
                return decoded;
            }
        };
        let reader = Reader {
            options: &self.options,
            source: &source,
            received_us,
        };
        let mut number = 0;
        for value in Deserializer::from_str(text).into_iter::<Value>() {
            let elements = match value {
                Ok(Value::Array(elements)) => elements,
                Ok(value) => vec![value],
                Err(error) => {
                    // Behind a mistake nobody knows where the next value begins.
                    decoded.refused.push(refusal(ReasonClass::Json, not_json(&error)));
                    break;
                }
            };
            if number + elements.len() > self.options.max_elements {
                let reason = format!(
                    "there are more than {} elements; smaller arrays would be right",
                    self.options.max_elements
                );
                decoded.refused.push(refusal(ReasonClass::TooLarge, reason));
                break;
            }
            let is_alone = elements.len() == 1 && number == 0;
            for element in &elements {
                number += 1;
                match reader.event(element) {
                    Ok(event) => decoded.events.push(event),
                    Err(Wrong { class, reason }) if is_alone => decoded.refused.push(refusal(class, reason)),
                    Err(Wrong { class, reason }) => {
                        let bytes = serde_json::to_vec(element).unwrap_or_default();
                        let reason = format!("element {number}: {reason}");
                        decoded
                            .refused
                            .push(Refusal::new(topic, received_us, class, reason, &bytes));
                    }
                }
            }
        }
        if number == 0 && decoded.refused.is_empty() {
            let reason = "there is no event in the payload; a JSON object would be right".to_owned();
            decoded.refused.push(refusal(ReasonClass::Empty, reason));
        }
        decoded
    }

    fn source(&mut self, topic: &str) -> Result<Arc<Source>, String> {
        if let Some(source) = self.sources.get(topic) {
            return Ok(Arc::clone(source));
        }
        let source = Arc::new(topic::read(topic)?);
        if self.sources.len() >= SOURCES_MAX {
            self.sources.clear();
        }
        self.sources.insert(topic.into(), Arc::clone(&source));
        Ok(source)
    }

    fn text<'p>(&self, payload: &'p [u8]) -> Result<&'p str, (ReasonClass, String)> {
        let max = self.options.max_payload_bytes;
        if payload.len() > max {
            let reason = format!(
                "the payload has {} bytes; at most {max} are read (decode.max_payload in usher.toml)",
                payload.len()
            );
            return Err((ReasonClass::TooLarge, reason));
        }
        let text = std::str::from_utf8(payload).map_err(|error| {
            let reason = format!(
                "byte {} is no UTF-8; JSON in UTF-8 would be right",
                error.valid_up_to() + 1
            );
            (ReasonClass::Encoding, reason)
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            let reason = "the payload is empty; a JSON object such as {\"in\":1} would be right".to_owned();
            return Err((ReasonClass::Empty, reason));
        }
        Ok(text)
    }
}

fn not_json(error: &serde_json::Error) -> String {
    let whole = error.to_string();
    let what = whole.split(" at line ").next().unwrap_or(&whole);
    format!(
        "line {} column {}: {what}; JSON would be right",
        error.line(),
        error.column()
    )
}

/// Reads the elements of one payload.
struct Reader<'a> {
    options: &'a DecodeOptions,
    source: &'a Arc<Source>,
    received_us: i64,
}

impl Reader<'_> {
    fn event(&self, element: &Value) -> Result<Event, Wrong> {
        let Value::Object(members) = element else {
            return Err(Wrong::shape(format!(
                "{} was found; a JSON object was expected",
                fields::short(element)
            )));
        };
        let fields = Fields(members);
        let told = timestamp::read(members.get("ts")).map_err(|reason| Wrong {
            class: ReasonClass::Time,
            reason,
        })?;
        let (time_us, clock) = self.time(told);
        let reading = match self.source.kind {
            Kind::Gate => Reading::Gate(gate(&fields)?),
            Kind::Seat => Reading::Seat {
                state: fields.one_of("state", &SeatState::ALL, SeatState::as_str)?,
            },
            Kind::Rfid => self.rfid(&fields)?,
            Kind::Click => self.click(&fields)?,
            Kind::Reply => self.reply(&fields)?,
            Kind::Identify => self.identify(&fields)?,
            Kind::Consent => self.consent(&fields)?,
        };
        let id = match fields.id()? {
            Some(id) => Arc::from(id),
            None => self.derived_id(told, members),
        };
        Ok(Event {
            id,
            time_us,
            received_us: self.received_us,
            clock,
            source: Arc::clone(self.source),
            reading,
        })
    }

    /// The event time and whose it is.
    fn time(&self, told: Option<i64>) -> (i64, Clock) {
        match told {
            None => (self.received_us, Clock::Missing),
            Some(at) if at < self.options.earliest_us => (self.received_us, Clock::Unset),
            Some(at) if at > self.received_us.saturating_add(self.options.max_future_skew_us) => {
                (self.received_us, Clock::Ahead)
            }
            Some(at) => (at, Clock::Device),
        }
    }

    /// The same for the same device, time and content. Without a time the moment of receipt tells two passages from
    /// each other, and nothing tells a repetition from a second passage. Keyed, for the content names the person: whoever
    /// has a list of cards could otherwise try which of them makes the id.
    fn derived_id(&self, told: Option<i64>, members: &Map<String, Value>) -> Arc<str> {
        let mut hasher = self.options.secret.hasher("event id");
        let mut names: Vec<&String> = members.keys().collect();
        names.sort_unstable();
        for name in names.into_iter().filter(|name| *name != "ts") {
            hasher.update(name.as_bytes());
            hasher.update(b"\x1f");
            hasher.update(canonical(&members[name]).as_bytes());
            hasher.update(b"\x1e");
        }
        hasher.update(&told.unwrap_or(self.received_us).to_le_bytes());
        hasher.update(&[u8::from(told.is_some())]);
        format!("x{}", &hasher.finalize().to_hex()[..32]).into()
    }

    fn rfid(&self, fields: &Fields<'_>) -> Result<Reading, Wrong> {
        let tag = fields.needed_text("tag")?;
        let is_hexadecimal = tag.bytes().all(|byte| byte.is_ascii_hexdigit());
        Ok(Reading::Rfid {
            tag: if is_hexadecimal { tag.to_ascii_uppercase() } else { tag }.into(),
            antenna: fields.small_integer("antenna")?,
            #[allow(clippy::cast_possible_truncation)] // a signal strength has two digits
            rssi_dbm: fields.float("rssi_dbm")?.map(|rssi| rssi as f32),
            action: match fields.has("action") {
                true => fields.one_of("action", &RfidAction::ALL, RfidAction::as_str)?,
                false => RfidAction::Read,
            },
            person: fields.text("person")?.map(|raw| self.options.secret.person(&raw)),
        })
    }

    fn click(&self, fields: &Fields<'_>) -> Result<Reading, Wrong> {
        let action = fields.needed_text("action")?.to_lowercase();
        let is_word = action.len() <= 64
            && action.starts_with(|first: char| first.is_ascii_lowercase())
            && action
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'));
        if !is_word {
            return Err(Wrong::value(format!(
                "`action` is {}: a word such as search, view, request, reserve, login or help was expected",
                fields::short(&Value::from(action))
            )));
        }
        let count = match fields.count("count")? {
            None => 1,
            Some(count) => u32::try_from(count)
                .map_err(|_| Wrong::value(format!("`count` is {count}: at most {} was expected", u32::MAX)))?,
        };
        Ok(Reading::Click {
            person: fields.text("person")?.map(|raw| self.options.secret.person(&raw)),
            session: fields.text("session")?.map(|raw| self.options.secret.session(&raw)),
            action: action.into(),
            query: fields.text("query")?.map(|query| scrub::query(&query).into()),
            results: fields.within("results", 0..=i64::MAX, "a whole number, 0 or more,")?,
            item: fields.text("item")?.map(Arc::from),
            page: fields.text("page")?.map(|page| scrub::page(&page).into()),
            count,
        })
    }

    /// Who only took a message off its topic, or looked somebody up, knows the person by the pseudonym, and says so.
    fn named(&self, raw: &str) -> Pseudonym {
        Pseudonym::read(raw).unwrap_or_else(|| self.options.secret.person(raw))
    }

    fn identify(&self, fields: &Fields<'_>) -> Result<Reading, Wrong> {
        let also = fields.texts("also")?;
        if also.is_empty() || also.len() >= NAMES_MAX {
            let count = also.len();
            let reason = format!("`also` has {count} names: 1 to {} were expected", NAMES_MAX - 1);
            return Err(Wrong::value(reason));
        }
        Ok(Reading::Identify {
            person: self.named(&fields.needed_text("person")?),
            also: also.iter().map(|raw| self.named(raw)).collect(),
            action: match fields.has("action") {
                true => fields.one_of("action", &IdentifyAction::ALL, IdentifyAction::as_str)?,
                false => IdentifyAction::Link,
            },
        })
    }

    fn consent(&self, fields: &Fields<'_>) -> Result<Reading, Wrong> {
        let names = fields.texts("purpose")?;
        let right = "`service`, `recognition` or `research`, or an array of them, was expected";
        if names.is_empty() {
            return Err(Wrong::value(format!("`purpose` has no names: {right}")));
        }
        let purpose = |name: &String| {
            Purpose::from_name(&name.to_lowercase()).ok_or_else(|| {
                let name = fields::short(&Value::from(name.clone()));
                Wrong::value(format!("`purpose` is {name}: {right}"))
            })
        };
        Ok(Reading::Consent {
            person: self.named(&fields.needed_text("person")?),
            purposes: names.iter().map(purpose).collect::<Result<_, _>>()?,
            action: fields.one_of("action", &ConsentAction::ALL, ConsentAction::as_str)?,
        })
    }

    fn reply(&self, fields: &Fields<'_>) -> Result<Reading, Wrong> {
        Ok(Reading::Reply {
            person: self.named(&fields.needed_text("person")?),
            message: fields.needed_text("message")?.into(),
            response: fields.one_of("response", &Response::ALL, Response::as_str)?,
            rating: fields
                .within("rating", 1..=5, "a whole number from 1 to 5")?
                .and_then(|rating| i32::try_from(rating).ok()),
        })
    }
}

/// Passages, or the standing of a counter. Where a device sends both, the standing counts: it can't be missed.
fn gate(fields: &Fields<'_>) -> Result<Gate, Wrong> {
    let (entered, exited) = (fields.count("total_in")?, fields.count("total_out")?);
    let (passed_in, passed_out) = (fields.count("in")?, fields.count("out")?);
    if entered.is_some() || exited.is_some() {
        return Ok(Gate::Totals { entered, exited });
    }
    if passed_in.is_none() && passed_out.is_none() {
        return Err(Wrong::shape(
            "none of `in`, `out`, `total_in`, `total_out` is there; {\"in\":1} would be right".to_owned(),
        ));
    }
    let people = |name: &str, count: Option<u64>| {
        u32::try_from(count.unwrap_or(0))
            .map_err(|_| Wrong::value(format!("`{name}` is more than {} people", u32::MAX)))
    };
    Ok(Gate::Passed {
        entered: people("in", passed_in)?,
        exited: people("out", passed_out)?,
    })
}

/// JSON with the members of objects in order, so that two ways to write the same are the same.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_unstable();
            let inner: Vec<String> = names
                .into_iter()
                .map(|name| format!("{}:{}", Value::from(name.as_str()), canonical(&members[name])))
                .collect();
            format!("{{{}}}", inner.join(","))
        }
        Value::Array(items) => {
            let inner: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", inner.join(","))
        }
        plain => plain.to_string(),
    }
}
