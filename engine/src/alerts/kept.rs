//! What a checkpoint keeps of alerts: the watches and the cleared ones that changed, and a head.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Alerts;
use super::cleared::Over;
use super::watch::BELLS;
use super::watches::KeptWatch;
use crate::capture::{Capture, Json, Parts};

/// What the kept alerts mean. 1: neither a number nor histories. 2: all of them in one part. 3: by watch.
const FORM: u32 = 3;

/// The parts of a checkpoint.
const HEAD: &str = "alerts";
const WATCHES: &str = "alerts/watches";
const CLEARED: &str = "alerts/cleared";

#[derive(Serialize, Deserialize)]
struct Head {
    form: u32,
    listening_since_us: i64,
}

/// The part that every form has, or leaves out.
#[derive(Deserialize)]
struct Form {
    #[serde(default = "first_form")]
    form: u32,
}

fn first_form() -> u32 {
    1
}

impl Alerts {
    /// Takes what changed since the last checkpoint, about `room` watches and cleared alerts, ahead of the next one.
    pub fn gather(&mut self, room: &mut usize) {
        self.watches.gather(room);
        self.cleared.gather(room);
    }

    /// For a checkpoint: what changed since the last one, and the rows that wait.
    pub fn capture(&mut self, capture: &mut Capture) {
        let head = Head {
            form: FORM,
            listening_since_us: self.listening_since_us,
        };
        capture.whole(HEAD, move || {
            serde_json::to_vec(&head).map_err(|error| error.to_string())
        });
        capture.rows(WATCHES, self.watches.capture());
        capture.rows(CLEARED, self.cleared.capture());
        self.waiting.capture(capture);
    }

    /// The next capture is to hold everything.
    pub fn capture_anew(&mut self) {
        self.watches.capture_anew();
        self.cleared.capture_anew();
    }

    /// Takes back what was captured. The rules have to be set again after it.
    ///
    /// # Errors
    /// In words, when it is of another form, or can't be read.
    pub fn restore(&mut self, parts: &Parts) -> Result<(), String> {
        let head = parts.whole(HEAD)?;
        let words = |error: serde_json::Error| error.to_string();
        let Form { form } = serde_json::from_slice(head).map_err(words)?;
        if form != FORM {
            return Err(format!("the alerts have form {form}, and this Usher reads form {FORM}"));
        }
        let head: Head = serde_json::from_slice(head).map_err(words)?;
        self.listening_since_us = head.listening_since_us;
        self.cleared.restore(parts.rows::<u64, Json<Over>>(CLEARED)?);
        self.waiting.restore(parts)?;
        for (key, watch) in parts.rows::<Arc<str>, KeptWatch>(WATCHES)? {
            match watch {
                Some(Json(watch)) => self.watches.insert(key, Arc::unwrap_or_clone(watch)),
                None => self.watches.remove(&key),
            }
        }
        for (key, watch) in self.watches.iter() {
            for bell in BELLS {
                if let Some(rings) = watch.rings_us[bell as usize] {
                    self.clocks.insert((rings, Arc::clone(key), bell));
                }
            }
            if let Some(open) = &watch.open {
                self.by_id.insert(open.alert.id.clone(), Arc::clone(key));
            }
        }
        Ok(())
    }
}
