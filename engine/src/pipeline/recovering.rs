//! How the pipeline goes on where a process before it ended: from a checkpoint and the log behind it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;
use usher_connectors::checkpoint::{Checkpoint, CheckpointStore};
use usher_connectors::log::{LogError, Offset};
use usher_queries::query_set::Restored;

use super::read_ahead::ReadAhead;
use super::{Counts, Pipeline};
use crate::alert::Trace;
use crate::capture::Parts;
use crate::consent::{self, Decisions};
use crate::event::Event;
use crate::identity::Identity;
use crate::people::{KnownOfForm3, KnownOfForm5, opted_out_of_form_3, opted_out_of_form_5};
use crate::perception::Perception;
use crate::recent_ids::RecentIds;
use crate::record::Record;
use crate::recovery::{Decision, FORMAT, OfFormat, Recovery, of_format};

impl Pipeline {
    /// Goes on where a process before this one ended: takes its newest checkpoint that can be used, goes through the rest
    /// of the log, and shows what stands. Blocks on the disk.
    ///
    /// # Errors
    /// When the log can't be read or written. What of a checkpoint can't be used is said, and the one before is taken, or
    /// the log gone through from its beginning.
    pub fn recover(&mut self, checkpoints: &CheckpointStore, fresh: impl Fn() -> Perception) -> Result<(), LogError> {
        let mut recovery = Recovery::default();
        let mut from = self.log.oldest();
        if checkpoints.is_of_first_form() {
            let reason = "there is one of form 1, which this Usher does not read: the state is rebuilt from the log";
            recovery.unusable.push(reason.to_owned());
        }
        let mut before = u64::MAX;
        let mut decisions = None;
        loop {
            let loaded = checkpoints.load_before(before)?;
            recovery.unusable.extend(loaded.unreadable);
            let Some(checkpoint) = loaded.checkpoint else { break };
            before = checkpoint.sequence;
            let next_offset = checkpoint.next_offset;
            decisions = decisions.or_else(|| decisions_of(&checkpoint));
            match self.restore(checkpoint, &mut recovery, &fresh) {
                Ok(()) => {
                    // It may have been saved when a look at the clock had moved time on.
                    self.is_ahead = true;
                    if next_offset < from {
                        let gap = format!(
                            "the records {next_offset} to {from}, behind the checkpoint, are no longer in the log"
                        );
                        recovery.unusable.push(gap);
                    }
                    from = next_offset.max(from);
                    break;
                }
                Err(reason) => {
                    recovery.unusable.push(format!("checkpoint {before}: {reason}"));
                    self.perception = fresh();
                }
            }
        }
        if let Some(decisions) = decisions.filter(|_| recovery.checkpoint.is_none()) {
            // The log may not go back to when they said so.
            self.perception.begin_with_decisions(decisions);
        }
        // A process that ended before its first checkpoint may not have told what it found.
        let is_first = recovery.checkpoint.is_none() && recovery.unusable.is_empty() && from == Offset(0);
        let is_continued = recovery.checkpoint.is_some() || is_first;
        if !is_continued && from > Offset(0) {
            recovery.decision = Decision::Reset;
        }
        (recovery.replayed_from, recovery.replayed_to) = (from.0, self.log.next().0);
        self.remember_ids(from)?;
        self.replay(from, is_continued)?;
        // It may have been saved while windows were being said, and nothing has come since.
        self.now_us = self.clock.wall_us();
        let left = self.perception.begin_listening(self.now_us);
        let mut records = Vec::new();
        if left.iter().any(|step| step.waits_for_disk) {
            let at_us = self.perception.now_us();
            records.push(Record::Ticked { at_us }.to_bytes().into());
        }
        records.push(Record::Started { at_us: self.now_us }.to_bytes().into());
        self.log.append(records)?.wait_durable()?;
        for step in left.iter().filter(|step| step.is_turn) {
            self.outbox.tell_alert(&step.alert, None);
        }
        for step in self.perception.take_messages() {
            self.send_message(&step);
        }
        for id in self.perception.messages.open() {
            self.outbox.recall_message(&id);
        }
        let places = Arc::clone(self.perception.places());
        self.perception.zones.touch_all(&places);
        self.put_up();
        for alert in self.perception.alerts.open() {
            if alert.state.is_standing() {
                self.outbox.show_alert(&Arc::new(alert.clone()), None);
            }
        }
        self.counts = Counts::default();
        // From here on what was noted before, maybe of records that the log has lost since, holds no longer.
        self.outbox.mark_told_until(self.log.next().0);
        self.bus.note_steps(self.outbox.told());
        recovery.tell();
        self.recovery = recovery;
        Ok(())
    }

    fn restore(
        &mut self,
        checkpoint: Checkpoint,
        recovery: &mut Recovery,
        fresh: &impl Fn() -> Perception,
    ) -> Result<(), String> {
        if of_format(checkpoint.format) != OfFormat::Read {
            return Err(format!(
                "it has form {}, and this Usher reads form {FORMAT}; the state is rebuilt from the log",
                checkpoint.format
            ));
        }
        let end = self.log.next();
        if checkpoint.next_offset > end {
            return Err(format!(
                "it goes on from offset {}, and the log ends at {end}: a part of the log is gone",
                checkpoint.next_offset
            ));
        }
        let parts = Parts::new(checkpoint.parts);
        // Checkpoints from before there were assignments have none.
        let saved = parts
            .whole("epoch")
            .ok()
            .and_then(|bytes| bytes.as_ref().try_into().ok());
        let (saved, own) = (saved.map_or(0, u64::from_be_bytes), self.assignment.epoch());
        if saved > own {
            return Err(format!(
                "it was saved under the assignment {saved}, and this worker has {own}"
            ));
        }
        let now_us = self.clock.wall_us();
        let restored = self.perception.restore(&parts, now_us);
        let outcomes = restored.map_err(|error| error.to_string())?;
        let outbox = parts.whole("outbox").and_then(|bytes| {
            let restored = self.outbox.restore(bytes);
            restored.map_err(|error| error.to_string())
        });
        outbox.map_err(|cause| format!("the part 'outbox' can't be read: {cause}"))?;
        recovery.continued(checkpoint.sequence, &outcomes, self.log.oldest());
        self.rebuild(checkpoint.next_offset, recovery, fresh, now_us);
        // Alerts of rules that are gone are over.
        let left = self.perception.take_unsaid();
        for step in left.iter().filter(|step| step.is_turn) {
            self.outbox.tell_alert(&step.alert, None);
        }
        Ok(())
    }

    /// Works out from the log what queries would hold that can't go on with what they held. The whole state is worked out
    /// beside this one up to the same record, for queries may read each other; of it only these are taken.
    fn rebuild(&mut self, until: Offset, recovery: &mut Recovery, fresh: &impl Fn() -> Perception, now_us: i64) {
        let wanted = recovery.to_rebuild();
        if wanted.is_empty() {
            return;
        }
        tracing::info!("going through {until} records of the log for {}", wanted.join(", "));
        let mut beside = fresh();
        let rebuilt = self.replay_into(&mut beside, until).map_err(|error| error.to_string());
        let snapshots = rebuilt.and_then(|()| beside.queries.snapshot().map_err(|error| error.to_string()));
        let snapshots = match snapshots {
            Ok(snapshots) => snapshots,
            Err(why) => {
                wanted.iter().for_each(|query| recovery.reset(query, &why));
                return;
            }
        };
        let of_wanted: Vec<_> = snapshots
            .into_iter()
            .filter(|snapshot| wanted.contains(&snapshot.name))
            .collect();
        let watermark = self.perception.queries.watermark();
        let outcomes = self.perception.restore_queries(watermark, &of_wanted, now_us);
        for query in &wanted {
            match outcomes.iter().find(|(name, _)| name == query) {
                Some((_, Restored::Kept)) => {}
                Some((_, Restored::Unreadable(why))) => recovery.reset(query, why),
                Some((_, Restored::Changed)) => recovery.reset(query, "it stops there again"),
                _ => recovery.reset(query, "there is no such query in a run of the log"),
            }
        }
    }

    pub(super) fn replay_into(&self, perception: &mut Perception, until: Offset) -> Result<(), LogError> {
        let mut ids = RecentIds::with_capacity(self.ids.capacity());
        for batch in ReadAhead::new(&self.log, self.log.oldest(), vec![until]) {
            let mut pending: Vec<Event> = Vec::new();
            for (record, key) in batch?.records {
                match record {
                    Record::Event(event) if key.is_some_and(|key| ids.insert(key)) => pending.push(event),
                    Record::Event(_) | Record::Refused(_) => {}
                    // What is not an event has its place between them.
                    other => {
                        perception.take(&pending, &|_| Trace::default());
                        pending.clear();
                        perception.apply(&other);
                        // Nobody is told of it here.
                        perception.take_messages();
                    }
                }
            }
            perception.take(&pending, &|_| Trace::default());
            perception.take_messages();
        }
        Ok(())
    }

    /// Learns the ids of the events before `from`, as many as are remembered.
    fn remember_ids(&mut self, from: Offset) -> Result<(), LogError> {
        let first = from
            .0
            .saturating_sub(self.ids.capacity() as u64)
            .max(self.log.oldest().0);
        for batch in ReadAhead::new(&self.log, Offset(first), vec![from]) {
            for (record, key) in batch?.records {
                if let Some(key) = key {
                    self.ids.insert(key);
                }
                if let Record::Refused(refusal) = record {
                    self.refused.push(refusal);
                }
            }
        }
        Ok(())
    }

    /// Goes through the log from `from` on. Steps that the outbox was told before are not told again. Where it does not
    /// know, only a continued run tells of steps: others would tell old news.
    fn replay(&mut self, from: Offset, is_continued: bool) -> Result<(), LogError> {
        let end = self.log.next();
        // A mark beyond the end is of another log.
        let told_until = self.outbox.told_until().filter(|offset| *offset <= end.0);
        let told_until = told_until.unwrap_or(if is_continued { 0 } else { u64::MAX });
        let mut told = Instant::now();
        let mut pending: Vec<Event> = Vec::new();
        // What was told ends between two batches.
        for batch in ReadAhead::new(&self.log, from, vec![end.min(Offset(told_until)), end]) {
            let batch = batch?;
            let is_told = batch.from.0 < told_until;
            let mut steps = VecDeque::new();
            for (record, key) in batch.records {
                if let Record::Event(event) = record {
                    if key.is_some_and(|key| self.ids.insert(key)) {
                        pending.push(event);
                    }
                    continue;
                }
                // What is not an event has its place between them.
                steps.extend(self.perception.take(&pending, &|_| Trace::default()));
                pending.clear();
                match record {
                    Record::Refused(refusal) => self.refused.push(refusal),
                    other => steps.extend(self.perception.apply(&other)),
                }
            }
            steps.extend(self.perception.take(&pending, &|_| Trace::default()));
            pending.clear();
            for step in steps.iter().filter(|step| step.is_turn) {
                match is_told {
                    true => self.outbox.recall_alert(&step.alert),
                    false => self.outbox.tell_alert(&step.alert, None),
                }
            }
            for step in self.perception.take_messages() {
                if !is_told {
                    self.send_message(&step);
                }
            }
            if told.elapsed() > Duration::from_secs(2) {
                told = Instant::now();
                tracing::info!(
                    "going through the log: {} of {} records",
                    batch.next.0 - from.0,
                    end.0 - from.0
                );
            }
        }
        if end > from {
            tracing::info!("went through {} records of the log", end.0 - from.0);
        }
        Ok(())
    }
}

/// What persons decided, by all their names, by a checkpoint of which nothing else may be of use.
fn decisions_of(checkpoint: &Checkpoint) -> Option<Vec<(Arc<str>, Decisions)>> {
    let parts = Parts::new(checkpoint.parts.clone());
    let opted_out: FxHashSet<Arc<str>> = match checkpoint.format {
        3 => parts.rows::<_, KnownOfForm3>("people").ok().map(opted_out_of_form_3)?,
        4 => parts.rows::<_, KnownOfForm5>("people").ok().map(opted_out_of_form_5)?,
        5 => parts
            .rows::<_, KnownOfForm5>("people")
            .map(opted_out_of_form_5)
            .unwrap_or_default(),
        // By then those who keep what persons decide knew of it, and people no more.
        6 | 7 | FORMAT => FxHashSet::default(),
        _ => return None,
    };
    let mut identity = Identity::new();
    if identity.restore(&parts).is_err() {
        identity = Identity::new();
    }
    let opted_out = opted_out.into_iter().map(|person| (person, Decisions::opted_out()));
    let decided = consent::entries(&parts)
        .unwrap_or_default()
        .into_iter()
        .chain(opted_out);
    let of_names = decided.flat_map(|(person, decisions)| {
        let names = identity.names_of(&person).into_iter();
        names.map(move |name| (name, decisions.clone()))
    });
    Some(of_names.collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use usher_connectors::checkpoint::Part;
    use usher_queries::purpose::Purpose;

    use super::*;
    use crate::fixture;

    #[test]
    fn who_opted_out_is_known_from_checkpoints_of_the_last_two_forms() {
        let places = fixture::places("[[site]]\nid = \"main\"\n");
        let mut perception = fixture::perception(&places, Duration::ZERO, Duration::from_secs(10), |_| {});
        let reply = |id: u32, person: &str, response: &str| {
            let payload = format!(r#"{{"id":"{id}","person":"{person}","message":"m","response":"{response}"}}"#);
            (i64::from(id), "web/reply/app", payload)
        };
        let events = fixture::events([
            reply(0, "ada", "accepted"),
            reply(1, "ben", "opted_out"),
            reply(2, "cleo", "opted_out"),
            reply(3, "cleo", "opted_in"),
        ]);
        perception.take(&events, &|_| Trace::default());
        let changes = perception.capture().expect("it can be captured").written();
        let parts = changes.expect("it can be written").into_iter().map(|change| Part {
            name: change.name,
            segments: change.segments,
        });
        let parts: Vec<Part> = parts.collect();
        // Of forms 6 and 7 people were otherwise, so that theirs can't be read by now.
        let without_people: Vec<Part> = parts.iter().filter(|part| part.name != "people").cloned().collect();
        for (format, parts) in [
            (6, without_people.clone()),
            (7, without_people),
            (FORMAT, parts.clone()),
        ] {
            let checkpoint = Checkpoint {
                sequence: 1,
                next_offset: Offset(4),
                format,
                parts,
            };
            let decisions = decisions_of(&checkpoint).expect("it is a form that is known");
            let has_opted_out = |name: &str| {
                let person = fixture::secret().person(name);
                let own = decisions.iter().find(|(of, _)| **of == *person.as_str());
                own.and_then(|(_, decisions)| decisions.of(Purpose::Recognition))
                    .is_some_and(|decision| !decision.holds)
            };
            assert_eq!(
                ["ada", "ben", "cleo"].map(has_opted_out),
                [false, true, false],
                "form {format}"
            );
        }
    }
}
