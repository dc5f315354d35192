//! A refusal is a payload that could not be read: counted, kept with its reason, and hidden where it could name a person.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest sample kept, bytes.
const SAMPLE_MAX: usize = 512;
/// Longest topic kept, bytes.
const TOPIC_MAX: usize = 256;
/// Members whose values could name a person; compared in lower case and without `_` and `-`.
const PERSONAL: [&str; 19] = [
    "person",
    "also",
    "session",
    "card",
    "cardnumber",
    "user",
    "userid",
    "username",
    "patron",
    "patronid",
    "email",
    "mail",
    "name",
    "firstname",
    "lastname",
    "barcode",
    "phone",
    "student",
    "studentid",
];

/// What kind of reason; the label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReasonClass {
    /// The topic is not one that events come on.
    Topic,
    /// There is nothing.
    Empty,
    /// There is too much.
    TooLarge,
    /// It is no text.
    Encoding,
    /// It is no JSON.
    Json,
    /// Something is missing or of another type.
    Shape,
    /// A value is none of those that are right.
    Value,
    /// The time can't be read.
    Time,
    /// It brought the decoder down.
    Fault,
}

impl ReasonClass {
    /// As a metric has it.
    pub fn as_str(self) -> &'static str {
        match self {
            ReasonClass::Topic => "topic",
            ReasonClass::Empty => "empty",
            ReasonClass::TooLarge => "too_large",
            ReasonClass::Encoding => "encoding",
            ReasonClass::Json => "json",
            ReasonClass::Shape => "shape",
            ReasonClass::Value => "value",
            ReasonClass::Time => "time",
            ReasonClass::Fault => "fault",
        }
    }
}

/// A payload, or an element of one, that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Where it was published; the first 256 bytes.
    pub topic: Arc<str>,
    /// When, microseconds since 1970.
    pub received_us: i64,
    /// The kind of reason.
    pub class: ReasonClass,
    /// What is wrong and what would be right.
    pub reason: String,
    /// Bytes of the payload.
    pub size: usize,
    /// How it began, with what could name a person hidden.
    pub sample: String,
}

impl Refusal {
    /// A refusal of a payload.
    pub fn new(topic: &str, received_us: i64, class: ReasonClass, reason: String, payload: &[u8]) -> Self {
        Self {
            topic: Arc::from(cut(topic, TOPIC_MAX)),
            received_us,
            class,
            reason,
            size: payload.len(),
            sample: sample(payload),
        }
    }
}

fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// How a payload begins. JSON keeps its form with personal values hidden; anything else keeps only its punctuation.
fn sample(payload: &[u8]) -> String {
    // What is too large to look through keeps only its punctuation as well.
    let parsed = (payload.len() <= 64 * 1024).then(|| serde_json::from_slice::<Value>(payload));
    if let Some(Ok(mut value)) = parsed {
        hide(&mut value);
        return cut(&value.to_string(), SAMPLE_MAX).to_owned();
    }
    let begin = &payload[..payload.len().min(SAMPLE_MAX)];
    String::from_utf8_lossy(begin)
        .chars()
        .map(|c| match c {
            c if c.is_numeric() => '9',
            c if c.is_alphabetic() => 'a',
            c if c.is_control() => ' ',
            c => c,
        })
        .collect()
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let plain: String = name
                    .to_lowercase()
                    .chars()
                    .filter(|c| !matches!(c, '_' | '-'))
                    .collect();
                if PERSONAL.contains(&plain.as_str()) && !value.is_null() {
                    *value = Value::from("(hidden)");
                } else if let ("query" | "page", Value::String(text)) = (plain.as_str(), &mut *value) {
                    *text = crate::scrub::query(&crate::scrub::page(text));
                } else {
                    hide(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        _ => {}
    }
}

/// The newest refusals, to look at.
#[derive(Debug)]
pub struct RefusedList {
    newest: VecDeque<Refusal>,
    capacity: usize,
}

impl RefusedList {
    /// Keeps so many.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            newest: VecDeque::new(),
            capacity: capacity.max(1),
        }
    }

    /// Keeps one more, and lets the oldest go when there are too many.
    pub fn push(&mut self, refusal: Refusal) {
        if self.newest.len() == self.capacity {
            self.newest.pop_back();
        }
        self.newest.push_front(refusal);
    }

    /// Lets those go that `is_gone` says.
    pub fn forget(&mut self, is_gone: impl Fn(&Refusal) -> bool) {
        self.newest.retain(|refusal| !is_gone(refusal));
    }

    /// What is kept, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Refusal> {
        self.newest.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::{ReasonClass, Refusal, RefusedList};

    fn refusal(payload: &[u8]) -> Refusal {
        Refusal::new("usher/in/a", 0, ReasonClass::Json, "why".to_owned(), payload)
    }

    #[test]
    fn a_sample_names_nobody() {
        let json = refusal(br#"{"user_id":"u77","data":[{"Card-Number":123456}],"in":"many","query":"mail a@b.de"}"#);
        assert_eq!(
            json.sample,
            r#"{"user_id":"(hidden)","data":[{"Card-Number":"(hidden)"}],"in":"many","query":"mail …"}"#
        );
        assert_eq!(
            refusal(b"{\"person\":\"Ada 42\xff").sample,
            "{\"aaaaaa\":\"aaa 99\u{fffd}"
        );
        assert!(refusal(&[b'x'; 100_000]).sample.len() <= 512);
    }

    #[test]
    fn the_newest_are_kept() {
        let mut list = RefusedList::with_capacity(2);
        for size in 1..=3 {
            list.push(refusal(&vec![b'{'; size]));
        }
        let sizes: Vec<usize> = list.newest_first().map(|refusal| refusal.size).collect();
        assert_eq!(sizes, [3, 2]);
    }
}
