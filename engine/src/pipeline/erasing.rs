//! What the pipeline does so that a person is erased: it forgets at once, and has what lies on the disk gone through.

use std::sync::Arc;

use tokio::sync::oneshot;
use usher_connectors::delivery::Ack;
use usher_connectors::log::Offset;

use super::Pipeline;
use super::telling::Durable;
use crate::derived_id::derived_id;
use crate::erasure::{Done, Erasure, Mark, OnDisk, ReceiptView, Salt, Who};
use crate::record::Record;

/// How a checkpoint that was to be the only one went: how many files of earlier ones were removed.
pub type Alone = oneshot::Receiver<Result<u64, String>>;

impl Pipeline {
    /// Forgets the person that has this name at once, by all names, and logs that all that came before is to be erased. `salt` is of this erasure alone. Gives the
    /// receipt, and what resolves once that is durable.
    pub fn erase(&mut self, person: &str, by: String, salt: Salt) -> (Option<ReceiptView>, Durable) {
        // Behind all that is known, so that a replay finds it there.
        let at_us = self.clock.wall_us().max(self.perception.now_us());
        // That asked for first: it is what whoever asked can compare.
        let mut names = self.perception.identity.names_of(person);
        names.sort_by_key(|name| &**name != person);
        let marks: Vec<Mark> = names.iter().map(|name| Mark::of(&salt, name)).collect();
        let erasure = Erasure {
            id: derived_id('e', [marks[0].to_text().as_str(), &at_us.to_string()]),
            at_us,
            by,
            salt,
            marks,
        };
        let id = erasure.id.clone();
        let durable = self.forget(erasure, &Who::known(&names));
        (self.perception.erasures.get(&id), durable)
    }

    /// Forgets sessions that turned out to be those of somebody who is being erased.
    pub(crate) fn erase_sessions(&mut self, erasure: &Erasure, sessions: &[Arc<str>]) -> Durable {
        let marks = sessions.iter().map(|session| Mark::of(&erasure.salt, session));
        let of_sessions = Erasure {
            at_us: self.clock.wall_us().max(self.perception.now_us()),
            marks: marks.collect(),
            ..erasure.clone()
        };
        self.forget(of_sessions, &Who::known(sessions))
    }

    fn forget(&mut self, erasure: Erasure, who: &Who) -> Durable {
        self.log_deafness();
        let steps = self.perception.erase(&erasure, who);
        self.forget_shown(who);
        let (answer, durable) = Ack::pair();
        let (told, is_durable) = Ack::pair();
        self.note(&Record::Erased(erasure), vec![told, answer]);
        self.tell(steps, None, Some(is_durable));
        durable
    }

    /// Forgets what is kept to be looked at: payloads that were refused, and what pages were told.
    pub(crate) fn forget_shown(&mut self, who: &Who) {
        self.refused
            .forget(|refusal| who.is_in(&refusal.sample) || who.is_in(&refusal.topic));
        self.bus.forget(|data| who.is_in(data));
    }

    /// Where the next record will be; none while some wait for room in the log.
    pub(crate) fn log_end(&self) -> Option<Offset> {
        self.held.is_empty().then(|| self.log.next())
    }

    /// Nothing is left on the disk of somebody who was erased.
    pub(crate) fn erasure_done(&mut self, id: String, on_disk: OnDisk) -> Durable {
        let at_us = self.clock.wall_us().max(self.perception.now_us());
        let done = Done { id, at_us, on_disk };
        self.perception.erasures.complete(&done);
        let (answer, durable) = Ack::pair();
        self.note(&Record::ErasureDone(done), vec![answer]);
        durable
    }

    /// Has the state saved anew, so that nothing is left of what was saved before; the answer comes when that is so. It is not
    /// given where the state could not be saved.
    pub(crate) fn save_alone(&mut self) -> Alone {
        let (sender, alone) = oneshot::channel();
        self.saving.wait_alone(sender);
        alone
    }
}
