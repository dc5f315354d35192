//! A repair makes the figures of a person anew from the log, where names have become one person or have ceased to be one.
//!
//! Until it is done a person has provisional figures, the sums of those that were linked, and what it does is noted. The
//! figures that come out of the log are those of the moment at which the names were said to be one person; what was noted
//! is done once more on top of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::act::Act;
use super::figures::Figures;
use super::mail::{Mail, OfMessage, OfMessages};
use super::{People, note, tell};
use crate::erasure::Who;
use crate::identity::Regrouping;

/// The form of [`Figures`] in the log. Where another Usher wrote another one, the past is made anew once more.
const FORM: u8 = 4;
/// Acts noted at a time, over all whose past is being made anew. Beyond it what was noted is let go, and the log is gone
/// through up to a later record. In tests so few that random ones come to it.
const NOTED_MAX: usize = if cfg!(test) { 8 } else { 65_536 };

/// From where on the past of a name counts: its person wanted to be known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// The event that said so.
    pub event: u128,
    /// When it was received, microseconds since 1970.
    pub received_us: i64,
}

/// Something done by a person whose past is being made anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Done {
    act: Act,
    time_us: i64,
    /// The time that had been passed when it came, where it came too late.
    late_at_us: Option<i64>,
}

/// A past that is being made anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Repair {
    /// The record of the log behind which the past ends.
    since: u128,
    /// The watermark up to which everything had been taken there.
    from_us: i64,
    /// What became of messages to the person.
    messages: OfMessages,
    /// So many events have to be found in the log, or the log does not go back so far. 0 where nobody knows.
    least: u64,
    done: Vec<Done>,
}

/// A person whose past is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub person: Arc<str>,
    /// The names under which it did what it did, and from where on that counts.
    pub names: Vec<(Arc<str>, Option<Beginning>)>,
    /// The record of the log behind which the past ends.
    pub since: u128,
    /// So many events have to be found, or the log does not go back so far.
    pub least: u64,
}

/// What the log says of a person's past.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// Whose.
    pub person: Arc<str>,
    /// The record of the log behind which it ends.
    pub since: u128,
    form: u8,
    told: Told,
}

/// What the log could tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Told {
    /// There is nothing of this person.
    Nothing,
    /// The figures, in the form that stands beside them.
    Figures(Vec<u8>),
    /// It does not go back so far: what is known stays.
    Lost,
}

impl Past {
    /// The log can't tell any more: what is known stays.
    pub fn lost(wanted: &Wanted) -> Self {
        Self {
            person: Arc::clone(&wanted.person),
            since: wanted.since,
            form: FORM,
            told: Told::Lost,
        }
    }

    /// The figures, where they can be read: what is there otherwise has another form, and is to be made once more.
    fn figures(&self) -> Option<Option<Figures>> {
        match &self.told {
            Told::Figures(bytes) if self.form == FORM => postcard::from_bytes(bytes).ok().map(Some),
            Told::Figures(_) => None,
            Told::Nothing | Told::Lost => Some(None),
        }
    }
}

/// Who is being repaired, as a checkpoint has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Repairs {
    repairs: BTreeMap<Arc<str>, Repair>,
    mail: Mail,
    beginnings: BTreeMap<Arc<str>, Beginning>,
}

/// What stands about repairs beside the figures.
#[derive(Debug, Default)]
pub(super) struct Repairing {
    /// By person.
    pub(super) repairs: BTreeMap<Arc<str>, Repair>,
    /// What became of messages, where it is not in figures.
    pub(super) mail: Mail,
    /// Of names whose persons had opted out and wanted to be known again.
    pub(super) beginnings: BTreeMap<Arc<str>, Beginning>,
    /// Acts noted.
    noted: usize,
}

impl Repairing {
    /// Notes an act of somebody whose past is being made anew.
    pub(super) fn note_act(&mut self, person: &Arc<str>, act: &Act, time_us: i64, late_at_us: Option<i64>) {
        if let Some(repair) = self.repairs.get_mut(person) {
            repair.done.push(Done {
                act: act.clone(),
                time_us,
                late_at_us,
            });
            self.noted += 1;
        }
    }

    pub(super) fn note_message(&mut self, person: &str, what: OfMessage) {
        if let Some(repair) = self.repairs.get_mut(person) {
            repair.messages = repair.messages.with(what);
        }
    }

    pub(super) fn forget(&mut self, person: &str) -> Option<Repair> {
        let repair = self.repairs.remove(person)?;
        self.noted -= repair.done.len();
        Some(repair)
    }

    /// Forgets whoever is to be erased: whose past is wanted, and what was noted of it.
    pub(super) fn erase(&mut self, who: &Who) {
        let wanted = self.repairs.keys().filter(|person| who.is(person));
        for person in wanted.cloned().collect::<Vec<Arc<str>>>() {
            self.forget(&person);
        }
        self.mail.erase(who);
        self.beginnings.retain(|name, _| !who.is(name));
    }

    pub(super) fn kept(&self) -> Repairs {
        Repairs {
            repairs: self.repairs.clone(),
            mail: self.mail.clone(),
            beginnings: self.beginnings.clone(),
        }
    }

    pub(super) fn of(kept: Repairs) -> Self {
        Self {
            noted: kept.repairs.values().map(|repair| repair.done.len()).sum(),
            repairs: kept.repairs,
            mail: kept.mail,
            beginnings: kept.beginnings,
        }
    }
}

impl People {
    /// Names are other persons' from now on, as the record `since` of the log says. Where one of them does not want to be known,
    /// `is_out`, nothing is kept of any. Otherwise figures go to their persons, provisional ones where the log has to tell what
    /// they are.
    pub fn regroup(&mut self, since: u128, regrouping: &Regrouping, is_out: bool) {
        if is_out {
            return self.regroup_opted_out(regrouping);
        }
        let own = (self.repairing.mail).by_name(&regrouping.before, |person| {
            let repaired = self.repairing.repairs.get(person);
            repaired.map_or_else(|| self.messages_to(person), |repair| repair.messages)
        });
        let is_link = regrouping.after.len() == 1;
        let mut known: Vec<(Arc<str>, Figures)> = Vec::new();
        let (mut was_repairing, mut least) = (false, 0_u64);
        let mut is_counted = is_link;
        for group in &regrouping.before {
            let repair = self.repairing.forget(&group.person);
            was_repairing |= repair.is_some();
            self.repairing.mail.take_unseen(&group.person);
            // Which of what was done is whose nobody knows of those who were one person.
            is_counted &= repair.is_none_or(|repair| repair.least > 0);
            if let Some(figures) = self.figures(&group.person).cloned() {
                least = least.saturating_add(figures.events);
                known.push((Arc::clone(&group.person), figures));
            }
        }
        self.aliases.apply(regrouping);
        let is_known = was_repairing || !known.is_empty();
        let is_unsure = was_repairing || if is_link { known.len() > 1 } else { is_known };
        for person in regrouping.gone() {
            self.forget(person);
        }
        // The figures of the one person that was go on as those of whoever has its name.
        let heir = regrouping.before.first().map(|group| &group.person);
        for group in &regrouping.after {
            let messages = self.repairing.mail.set(group, &own);
            if !is_known {
                self.keep_unseen(&group.person, messages);
                continue;
            }
            let is_heir = is_link || heir.is_some_and(|heir| group.names.contains(heir));
            let mut provisional = is_heir.then(|| merged(&known, &self.rules)).flatten();
            if let Some(figures) = &mut provisional {
                figures.set_messages(messages);
            }
            let said = known.iter().find(|(person, _)| *person == group.person);
            let said = said.map_or((None, None), |(_, figures)| figures.standing());
            self.set_figures(&group.person, provisional, said);
            self.keep_unseen(&group.person, messages);
            if is_unsure {
                let repair = Repair {
                    since,
                    from_us: self.reached_us,
                    messages,
                    least: if is_counted { least } else { 0 },
                    done: Vec::new(),
                };
                self.repairing.repairs.insert(Arc::clone(&group.person), repair);
            }
        }
    }

    /// Somebody among them does not want to be known, so none of them is.
    fn regroup_opted_out(&mut self, regrouping: &Regrouping) {
        for group in &regrouping.before {
            self.forget(&group.person);
            self.repairing.forget(&group.person);
            for name in &group.names {
                self.repairing.mail.forget(name);
            }
            self.let_go_of_held(|act, aliases| *aliases.person(&act.person) == group.person);
        }
        self.aliases.apply(regrouping);
    }

    /// Whose past has to be made anew from the log.
    pub fn wanted(&self) -> Vec<Wanted> {
        let repairs = self.repairing.repairs.iter();
        let wanted = repairs.map(|(person, repair)| {
            let names = self.aliases.names(person).iter();
            Wanted {
                person: Arc::clone(person),
                names: names
                    .map(|name| (Arc::clone(name), self.repairing.beginnings.get(name).copied()))
                    .collect(),
                since: repair.since,
                least: repair.least,
            }
        });
        wanted.collect()
    }

    /// Whether a past has to be made anew.
    pub fn is_repairing(&self) -> bool {
        !self.repairing.repairs.is_empty()
    }

    /// How many pasts have to be made anew.
    pub fn repairs(&self) -> usize {
        self.repairing.repairs.len()
    }

    /// Whether this past is wanted still.
    pub fn wants(&self, past: &Past) -> bool {
        let repair = self.repairing.repairs.get(&past.person);
        repair.is_some_and(|repair| repair.since == past.since)
    }

    /// Takes what the log says of a person's past, and does on top of it what was done since. False where it is wanted no
    /// longer, or can't be read.
    pub fn repair(&mut self, past: &Past) -> bool {
        let person = &past.person;
        let Some(figures) = past.figures() else {
            return false;
        };
        let is_wanted = self.wants(past);
        let Some(repair) = is_wanted.then(|| self.repairing.forget(person)).flatten() else {
            return false;
        };
        if past.told == Told::Lost {
            return true;
        }
        let mut figures = self.done_again(figures, &repair);
        if let Some(figures) = &mut figures {
            figures.set_messages(repair.messages);
            figures.fit(&self.rules);
        }
        let said = self.figures(person).map_or((None, None), Figures::standing);
        self.set_figures(person, figures, said);
        self.keep_unseen(person, repair.messages);
        true
    }

    /// Figures of the past, with what was done since on top of them.
    fn done_again(&self, mut figures: Option<Figures>, repair: &Repair) -> Option<Figures> {
        // It was said when it was done, as far as it was known then.
        let mut unsaid = Vec::new();
        let mut reached_us = repair.from_us;
        for Done {
            act,
            time_us,
            late_at_us,
        } in &repair.done
        {
            if let (Some(now_us), Some(figures)) = (late_at_us, &mut figures)
                && *now_us > reached_us
            {
                figures.advance(*now_us, &self.rules, &mut unsaid);
            }
            reached_us = reached_us.max(late_at_us.unwrap_or(*time_us));
            let figures = figures.get_or_insert_with(|| Figures::first(*time_us, &act.source));
            match late_at_us {
                Some(now_us) => {
                    figures.take_late(*time_us, *now_us, act, &self.rules, &mut unsaid);
                }
                None => {
                    figures.advance(*time_us, &self.rules, &mut unsaid);
                    figures.take(*time_us, act, &self.rules, &mut unsaid);
                }
            }
            unsaid.clear();
        }
        if let Some(figures) = &mut figures
            && self.reached_us > reached_us
        {
            figures.advance(self.reached_us, &self.rules, &mut unsaid);
        }
        figures
    }

    /// What is known of a person by now, as the past that ends behind the record `since`.
    pub fn past(&self, wanted: &Wanted, is_cut: bool) -> Past {
        let figures = self.figures(&wanted.person);
        let found = figures.map_or(0, |figures| figures.events);
        if is_cut && found < wanted.least {
            return Past::lost(wanted);
        }
        let bytes = |figures: &Figures| {
            postcard::to_stdvec(figures).expect("figures in memory can always be written to memory")
        };
        Past {
            told: figures.map_or(Told::Nothing, |figures| Told::Figures(bytes(figures))),
            ..Past::lost(wanted)
        }
    }

    /// Nobody is told of what was found since the last call.
    pub fn leave_unsaid(&mut self) {
        self.said.clear();
    }

    /// To be called behind each event, with the key by which a repetition of it is known: where too much was noted, the past
    /// will be made anew up to here.
    pub fn let_go_of_noted(&mut self, event: impl FnOnce() -> u128) {
        if self.repairing.noted <= NOTED_MAX {
            return;
        }
        let (since, from_us) = (event(), self.reached_us);
        for repair in self.repairing.repairs.values_mut() {
            repair.done.clear();
            (repair.since, repair.from_us) = (since, from_us);
        }
        self.repairing.noted = 0;
    }

    /// Sets the figures of a person who was last said to stand as `said`, and says where that has changed.
    fn set_figures(
        &mut self,
        person: &Arc<str>,
        figures: Option<Figures>,
        said: (Option<super::rules::LifeCycle>, Option<u8>),
    ) {
        let Some(figures) = figures else {
            return self.forget(person);
        };
        self.happenings
            .extend(figures.stands_elsewhere(self.reached_us, said, &self.rules));
        let place = match self.people.find(person) {
            None => self.put(Arc::clone(person), figures),
            Some(place) => {
                if let Some(known) = self.people.get_mut(place) {
                    self.clocks.remove(known.rings_us, place);
                    known.figures = figures;
                    known.rings_us = known.figures.next_due(&self.rules);
                    self.clocks.set(known.rings_us, place);
                }
                place
            }
        };
        if let Some(known) = self.people.get_mut(place) {
            note(&mut self.taking, place);
            tell(&mut self.said, &known.name, &mut self.happenings);
        }
    }
}

/// Figures of several who turn out to be one person; `None` of nobody.
fn merged(known: &[(Arc<str>, Figures)], rules: &super::rules::Rules) -> Option<Figures> {
    let mut all = known.iter().map(|(_, figures)| figures);
    let first = all.next()?.clone();
    Some(all.fold(first, |sum, figures| sum.merged(figures, rules)))
}
