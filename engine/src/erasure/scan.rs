//! Going through the log beside the pipeline: for what is kept of a person, and for what is to be erased.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use usher_connectors::log::{Log, LogError, Offset};

use super::who::Who;
use crate::columns::pseudonym;
use crate::event::{Event, Reading};
use crate::record::Record;

/// Records read at once.
const RECORDS: usize = 4_096;
/// Bytes read at once.
const BYTES: usize = 8 << 20;

/// Hands each record before `until` to `each`, the oldest first, until it breaks off. What can't be read is stepped over.
pub(super) fn each_record(
    log: &dyn Log,
    until: Offset,
    mut each: impl FnMut(Offset, Record) -> ControlFlow<()>,
) -> Result<(), LogError> {
    let mut at = log.oldest();
    while at < until {
        let rows = match log.read(at, RECORDS, BYTES) {
            Ok(rows) => rows,
            Err(LogError::Damaged { resume, .. }) => {
                at = resume;
                continue;
            }
            Err(LogError::Expired(oldest)) => {
                at = oldest;
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some((last, _)) = rows.last() else { return Ok(()) };
        let next = Offset(last.0 + 1);
        for (offset, bytes) in rows.into_iter().filter(|(offset, _)| *offset < until) {
            // A record that can't be read says nothing of anybody.
            if let Ok(record) = Record::from_bytes(&bytes)
                && each(offset, record).is_break()
            {
                return Ok(());
            }
        }
        at = next;
    }
    Ok(())
}

/// The sessions in which one person was seen and nobody else.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// By session, whether somebody else was seen in it.
    of_others: BTreeMap<Arc<str>, bool>,
    theirs: Vec<Arc<str>>,
}

impl Sessions {
    /// Takes an event; in which sessions others were seen may be known before it is known which are theirs.
    pub(super) fn take(&mut self, event: &Event, who: &Who) {
        let Reading::Click {
            session: Some(session), ..
        } = &event.reading
        else {
            return;
        };
        let Some(person) = pseudonym(&event.reading) else {
            return;
        };
        let session = session.shared();
        if !who.is(person) {
            self.of_others.insert(Arc::clone(session), true);
        } else if !self.of_others.contains_key(session) {
            self.of_others.insert(Arc::clone(session), false);
        }
        if who.is(person) && self.theirs.last() != Some(session) {
            self.theirs.push(Arc::clone(session));
        }
    }

    /// Those in which nobody else was.
    pub(super) fn theirs(mut self) -> Vec<Arc<str>> {
        self.theirs.sort_unstable();
        self.theirs.dedup();
        self.theirs
            .retain(|session| self.of_others.get(session) == Some(&false));
        self.theirs
    }
}

/// The sessions of somebody before an offset, and where the erasure of that id was asked for, if it is in the log.
pub(super) fn look(
    log: &dyn Log,
    until: Offset,
    who: &Who,
    erasure: Option<&str>,
) -> Result<(Vec<Arc<str>>, Option<Offset>), LogError> {
    let (mut sessions, mut asked) = (Sessions::default(), None);
    each_record(log, until, |offset, record| {
        match &record {
            Record::Event(event) => sessions.take(event, who),
            Record::Erased(found) if erasure == Some(found.id.as_str()) => {
                asked = Some(offset);
                return ControlFlow::Break(());
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    Ok((sessions.theirs(), asked))
}
