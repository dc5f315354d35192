//! Retention lets events of a stream go before the rest of the log does: what is older than the settings let it be becomes an
//! empty record of the same offset, in the background and slowly.
//!
//! The state that was made of them stays. What a state that is built from the log anew can't do without stays as well: who is
//! whose, what persons decided, what staff did; and of an event by what it is known when it comes again.

use std::time::Duration;

use bytes::Bytes;
use usher_connectors::log::{Log, LogError, Offset};

use crate::consent::Deciding;
use crate::event::{Kind, dedup_key};
use crate::record::Record;
use crate::settings::RetentionSettings;

/// Records that are looked at in one turn.
const RECORDS: usize = 512;
/// A stream is gone through so often within the time that it is kept.
const PARTS: u32 = 24;
/// And no less often than that.
const SELDOM: Duration = Duration::from_secs(6 * 60 * 60);
/// Nor more often.
const OFTEN: Duration = Duration::from_secs(1);

/// How long each stream is kept, and how far each was gone through.
#[derive(Debug, Clone, Default)]
pub struct Retention {
    streams: Vec<Stream>,
    /// Whether something is to be made unfindable.
    is_to_purge: bool,
}

#[derive(Debug, Clone)]
struct Stream {
    kind: Kind,
    age_us: i64,
    /// All before it was looked at when it was old enough.
    upto: Offset,
}

/// What became of the log in one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// There is more to look at.
    On,
    /// All is done that was due.
    Done,
}

impl Retention {
    /// As the settings say; of streams that are kept as long as the log nothing is to be done.
    pub fn of(settings: &RetentionSettings) -> Self {
        let streams = settings.streams.iter().map(|(kind, age)| Stream {
            kind: *kind,
            age_us: i64::try_from(age.as_micros()).unwrap_or(i64::MAX),
            upto: Offset(0),
        });
        Self {
            // What a process before this one had replaced may not be unfindable yet.
            is_to_purge: !settings.streams.is_empty(),
            streams: streams.collect(),
        }
    }

    /// How often the log is to be gone through; `None` where nothing ever goes.
    pub fn every(&self) -> Option<Duration> {
        let least_us = self.streams.iter().map(|stream| stream.age_us).min()?;
        let least = Duration::from_micros(least_us.unsigned_abs());
        Some((least / PARTS).clamp(OFTEN, SELDOM))
    }

    /// Looks at the next records before `keep_from`, at `now_us` by our clock: what lies behind is not in a state that is saved,
    /// or not copied yet. To be called until it is done. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Log::rewrite`]; the same again later is right.
    pub fn turn(&mut self, log: &dyn Log, keep_from: Offset, now_us: i64) -> Result<Turned, LogError> {
        let until = log.durable().min(keep_from);
        for stream in &mut self.streams {
            let from = stream.upto.max(log.oldest());
            if from >= until {
                continue;
            }
            let before_us = now_us.saturating_sub(stream.age_us);
            // Behind the first record that is not old enough there may be more, of a clock that was set back; those are found
            // when this one is old enough.
            let mut first_young = None;
            let mut gone = 0_u64;
            let turn = log.rewrite(from, until, RECORDS, &mut |offset, bytes| {
                if first_young.is_some() || offset < from {
                    return None;
                }
                let left = match Record::from_bytes(bytes) {
                    Ok(Record::Event(event)) if event.received_us >= before_us => {
                        first_young = Some(offset);
                        None
                    }
                    Ok(record) => expired(&record, stream.kind),
                    Err(_) => None,
                };
                gone += u64::from(left.is_some());
                left.map(|left| Bytes::from(left.to_bytes()))
            })?;
            stream.upto = first_young.unwrap_or_else(|| turn.next.max(Offset(from.0 + 1)));
            if gone > 0 {
                self.is_to_purge = true;
                metrics::counter!("usher_log_expired_total", "stream" => stream.kind.as_str()).increment(gone);
                tracing::debug!(
                    stream = stream.kind.as_str(),
                    gone,
                    "events went as the settings let them"
                );
            }
            if first_young.is_none() {
                return Ok(Turned::On);
            }
        }
        if std::mem::take(&mut self.is_to_purge) {
            log.purge().inspect_err(|_| self.is_to_purge = true)?;
        }
        Ok(Turned::Done)
    }
}

/// What is left of an event of a stream that is old enough; `None` where a record stays as it is.
fn expired(record: &Record, kind: Kind) -> Option<Record> {
    match record {
        Record::Event(event) if event.source.kind == kind && Deciding::of(event).is_none() => {
            Some(Record::Expired { key: dedup_key(event) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use usher_connectors::embedded_log::{self, LogOptions};

    use super::*;
    use crate::event::Event;
    use crate::fixture::{self, NINE, SECOND};

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    const DAY: i64 = 24 * 3_600;
    const SITE: &str = "[[site]]\nid = \"main\"\n[[zone]]\nsite = \"main\"\nid = \"web\"\ncapacity = 9\n";

    fn keeping(streams: &[(Kind, i64)]) -> Retention {
        let age = |days: i64| Duration::from_secs((days * DAY).unsigned_abs());
        let streams = streams.iter().map(|(kind, days)| (*kind, age(*days))).collect();
        Retention::of(&RetentionSettings { streams })
    }

    /// Until all is done that is due so many days after the first.
    fn pass(retention: &mut Retention, log: &dyn Log, days: i64) -> Result<(), LogError> {
        while retention.turn(log, log.durable(), NINE + days * DAY * SECOND)? == Turned::On {}
        Ok(())
    }

    fn records_of(log: &dyn Log) -> Result<Vec<Record>, LogError> {
        let rows = log.read(Offset(0), 10_000, 1 << 24)?;
        Ok(rows
            .into_iter()
            .map(|(_, bytes)| Record::from_bytes(&bytes).expect("it was written"))
            .collect())
    }

    /// A click, a read, an answer and a link each day, and on some days a decision.
    fn events(days: i64) -> Vec<Event> {
        let rows = (0..days).flat_map(|day| {
            let at = |second: i64| day * DAY + second;
            let mut rows = vec![
                (
                    at(0),
                    "web/click/c",
                    format!(r#"{{"id":"c{day}","person":"ann","action":"view"}}"#),
                ),
                (
                    at(1),
                    "web/rfid/r",
                    format!(r#"{{"id":"r{day}","tag":"E1","person":"ann","action":"read"}}"#),
                ),
                (
                    at(2),
                    "web/reply/a",
                    format!(r#"{{"id":"a{day}","person":"ann","message":"m","response":"opened"}}"#),
                ),
                (at(3), "web/gate/g", format!(r#"{{"id":"g{day}","in":2,"out":1}}"#)),
            ];
            match day {
                1 => rows.push((
                    at(4),
                    "web/identify/d",
                    r#"{"id":"l","person":"ann","also":"tag"}"#.to_owned(),
                )),
                2 => rows.push((
                    at(5),
                    "web/reply/a",
                    r#"{"id":"o","person":"bob","message":"m","response":"opted_out"}"#.to_owned(),
                )),
                3 => rows.push((
                    at(6),
                    "web/consent/d",
                    r#"{"id":"n","person":"cat","purpose":"research","action":"refuse"}"#.to_owned(),
                )),
                _ => {}
            }
            rows
        });
        fixture::events(rows.collect::<Vec<_>>())
    }

    #[test]
    fn events_go_when_they_are_older_than_their_stream_is_kept_and_the_rest_stays() -> TestResult {
        let folder = tempfile::tempdir()?;
        let (log, _) = embedded_log::open(folder.path(), LogOptions::default())?;
        let events = events(10);
        let written: Vec<Record> = events.iter().cloned().map(Record::Event).collect();
        // In several batches, so that one begins before what was looked at last.
        for some in written.chunks(7) {
            let bytes = some.iter().map(|record| record.to_bytes().into()).collect();
            log.append(bytes)?.wait_durable()?;
        }
        let mut retention = keeping(&[(Kind::Click, 4), (Kind::Reply, 7)]);
        // Nothing that no saved state has.
        while retention.turn(&log, Offset(0), NINE + 30 * DAY * SECOND)? == Turned::On {}
        assert_eq!(records_of(&log)?, written);
        assert_eq!(retention.every(), Some(Duration::from_secs(4 * 3_600)));
        for days in [0, 3, 9, 9, 10] {
            pass(&mut retention, &log, days)?;
            let gone: Vec<String> = records_of(&log)?
                .iter()
                .zip(&events)
                .filter_map(|(record, event)| match record {
                    Record::Expired { key } => {
                        assert_eq!(*key, dedup_key(event), "it is known again");
                        Some(event.id.to_string())
                    }
                    record => {
                        assert_eq!(*record, Record::Event(event.clone()), "the rest is as it was");
                        None
                    }
                })
                .collect();
            // Of a click on day d at nine it is 4 days on day d + 4 at nine; not older yet.
            let clicks = (0..days - 4).map(|day| format!("c{day}"));
            // The answer of a day comes two seconds later; the one that opts out is a decision, and stays.
            let answers = (0..days - 7).map(|day| format!("a{day}"));
            let mut expected: Vec<String> = clicks.chain(answers).collect();
            expected.sort();
            let mut gone = gone;
            gone.sort();
            assert_eq!(gone, expected, "after {days} days");
        }
        // A process that begins anew looks at all once more and finds nothing.
        let before = records_of(&log)?;
        pass(&mut keeping(&[(Kind::Click, 4), (Kind::Reply, 7)]), &log, 10)?;
        assert_eq!(records_of(&log)?, before);
        Ok(())
    }

    #[test]
    fn a_state_that_is_built_from_what_is_left_has_links_decisions_and_all_that_came_later() {
        let places = fixture::places(SITE);
        let fresh = || fixture::perception(&places, Duration::from_secs(2), Duration::from_secs(3_600), |_| {});
        let events = events(10);
        let all: Vec<Record> = events.iter().cloned().map(Record::Event).collect();
        let left: Vec<Record> = all
            .iter()
            .enumerate()
            .map(|(at, record)| {
                let is_old = events[at].time_us < NINE + 6 * DAY * SECOND;
                let kinds = [Kind::Click, Kind::Rfid, Kind::Reply];
                let gone = kinds.into_iter().find_map(|kind| expired(record, kind));
                gone.filter(|_| is_old).unwrap_or_else(|| record.clone())
            })
            .collect();
        let built = |records: &[Record]| {
            let mut perception = fresh();
            for record in records {
                let bytes = record.to_bytes();
                perception.apply(&Record::from_bytes(&bytes).expect("it was written"));
            }
            perception
        };
        let (whole, rest) = (built(&all), built(&left));
        let name = |name: &str| Arc::clone(fixture::secret().person(name).shared());
        for person in ["ann", "bob", "cat", "tag"] {
            assert_eq!(
                rest.consents.decided().view(&name(person)),
                whole.consents.decided().view(&name(person))
            );
        }
        assert!(!rest.consents.decided().recognises(&name("bob")));
        assert_eq!(rest.identity.names_of(&name("tag")).len(), 2);
        // Of ann the acts of four days are left of ten, and gates count as they did.
        let events_of = |perception: &crate::perception::Perception| {
            let clock_us = perception.clock_us().unwrap_or(0);
            perception.people.get(&name("ann"), clock_us).map(|ann| ann.events)
        };
        assert_eq!((events_of(&whole), events_of(&rest)), (Some(30), Some(12)));
        assert_eq!(rest.watermark(), whole.watermark());
    }
}
