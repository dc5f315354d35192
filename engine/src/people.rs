//! People keep the engagement of each person, known by a pseudonym only: how recently, how often, by how many ways, and
//! when that changes; docs/ENGAGEMENT.md.
//!
//! What persons do is taken in the order of event time, once the watermark has passed it, so that it makes no difference in
//! which order it came within the delay. What time alone changes happens when it falls due. All times are event times in
//! microseconds, so that a replay finds the same figures.

mod act;
mod clocks;
mod erasing;
mod figures;
mod former;
mod kept;
mod mail;
mod relation;
mod repair;
mod rules;
mod said;
mod shelves;
#[cfg(test)]
mod tests;
mod view;
mod visit;

use std::sync::Arc;

use arrow::array::RecordBatch;
use imbl::OrdMap;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use usher_queries::row::Rows;

use self::act::Act;
use self::clocks::{Clocks, Rings};
use self::figures::{Figures, Happening};
pub use self::former::{KnownOfForm3, KnownOfForm5, opted_out_of_form_3, opted_out_of_form_5};
use self::kept::Taking;
pub use self::kept::{Known, Waiting};
pub use self::mail::OfMessage;
use self::repair::Repairing;
pub use self::repair::{Beginning, Past, Repairs, Wanted};
use self::rules::Rules;
use self::said::Said;
use self::shelves::Shelves;
pub use self::view::{PersonView, Regularity, people_schema};
use crate::columns::pseudonym;
use crate::event::{Event, Source, dedup_key};
use crate::identity::Aliases;
use crate::settings::EngagementSettings;
use crate::site::Places;

/// People remembered at a time; beyond it the one seen longest ago makes room.
const PEOPLE_MAX: usize = 1_000_000;
/// When there are too many, so many go at once, because finding the oldest costs a walk over all.
const PEOPLE_SHED: usize = PEOPLE_MAX / 16;
/// Acts that wait for the watermark; some minutes of a large house behind one device that holds time back. Beyond it the
/// earliest are taken before their time.
const HELD_MAX: usize = 262_144;

#[derive(Debug)]
struct Person {
    name: Arc<str>,
    figures: Figures,
    /// When its own clock rings, and when it is looked at beside that; `i64::MAX` where neither is set. One of both comes no later than
    /// something falls due, and earlier where it was heard of since.
    rings_us: i64,
    looked_us: i64,
}

impl AsRef<str> for Person {
    fn as_ref(&self) -> &str {
        &self.name
    }
}

/// The order in which acts are taken: by event time, then by id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct HeldKey {
    time_us: i64,
    id: Arc<str>,
    source: Arc<Source>,
}

/// The engagement of all people.
#[derive(Debug)]
pub struct People {
    rules: Rules,
    people: Shelves<Person>,
    /// People of whom nothing is worked out, whatever they answer.
    left_out: FxHashSet<Arc<str>>,
    /// Acts whose time the watermark has not passed.
    held: OrdMap<HeldKey, Act>,
    clocks: Clocks,
    /// The watermark up to which everything was taken.
    reached_us: i64,
    said: Vec<Said>,
    happenings: Vec<Happening>,
    /// Which names are whose. Acts that wait have the name under which they were done.
    aliases: Aliases,
    repairing: Repairing,
    /// `None` where the next capture takes everybody.
    taking: Option<Taking>,
}

impl People {
    /// Nobody yet.
    pub fn new(settings: EngagementSettings) -> Self {
        let rules = Rules::new(settings);
        Self {
            clocks: Clocks::new(rules.visit_gap_us),
            rules,
            people: Shelves::default(),
            left_out: FxHashSet::default(),
            held: OrdMap::new(),
            reached_us: i64::MIN,
            said: Vec::new(),
            happenings: Vec::new(),
            aliases: Aliases::default(),
            repairing: Repairing::default(),
            taking: None,
        }
    }

    /// Nobody yet, to work out again what was: of these people nothing, for they do not want to be known by now, and so also not
    /// while they still did.
    pub fn leaving_out(settings: EngagementSettings, left_out: FxHashSet<Arc<str>>) -> Self {
        Self {
            left_out,
            ..Self::new(settings)
        }
    }

    /// How engagement is worked out.
    pub fn settings(&self) -> &EngagementSettings {
        &self.rules.settings
    }

    /// A person did something. `met_us` is the watermark that stood when the event came: what it has passed is taken first.
    pub fn take(&mut self, event: &Event, met_us: i64, places: &Places) {
        self.advance(met_us);
        let Some(name) = pseudonym(&event.reading).filter(|name| !self.left_out.contains(*name)) else {
            return;
        };
        let act = Act::of(name, event, places);
        if event.time_us < self.reached_us {
            self.act(&act, event.time_us, Some(self.reached_us));
            return;
        }
        let key = HeldKey {
            time_us: event.time_us,
            id: Arc::clone(&event.id),
            source: Arc::clone(&event.source),
        };
        self.held.insert(key, act);
        if self.held.len() > HELD_MAX
            && let Some(first_us) = self.held.get_min().map(|(first, _)| first.time_us)
        {
            // As if the watermark were there already.
            self.advance(first_us.saturating_add(1));
        }
    }

    /// Moves time on to a watermark: what was done before it is taken, and what fell due before it happens, in the order of
    /// event time.
    pub fn advance(&mut self, watermark_us: i64) {
        self.advance_within(watermark_us, usize::MAX);
    }

    /// The same until about `most` rows are to be drained; tells whether it has got there.
    pub fn advance_within(&mut self, watermark_us: i64, most: usize) -> bool {
        if watermark_us <= self.reached_us {
            return true;
        }
        loop {
            if self.said.len() >= most {
                return false;
            }
            let first = self.held.get_min();
            let done = first.map(|(key, _)| key.time_us);
            let done = done.filter(|time_us| *time_us < watermark_us);
            let due = self.clocks.first().filter(|rings_us| *rings_us < watermark_us);
            match (done, due) {
                (None, None) => break,
                // Somebody seen at the very end of a gap is still there.
                (Some(done_us), due) if due.is_none_or(|due_us| done_us <= due_us) => {
                    let first = first.map(|(key, _)| key.clone());
                    if let Some((key, act)) = first.and_then(|key| self.held.remove_with_key(&key)) {
                        self.reached_us = self.reached_us.max(done_us);
                        self.act(&act, key.time_us, None);
                    }
                }
                (_, Some(due_us)) => {
                    self.reached_us = self.reached_us.max(due_us);
                    self.ring(due_us);
                }
                (Some(_), None) => {}
            }
        }
        self.reached_us = watermark_us;
        true
    }

    /// A person did something at `time_us`: now, or before `late_at_us`, the time that had been passed when it came.
    fn act(&mut self, act: &Act, time_us: i64, late_at_us: Option<i64>) {
        let person = self.aliases.person(&act.person);
        self.repairing.note_act(person, act, time_us, late_at_us);
        let place = match self.people.find(person) {
            Some(place) => place,
            None => {
                let person = Arc::clone(person);
                self.make_room();
                let mut figures = Figures::first(time_us, &act.source);
                figures.set_messages(self.repairing.mail.take_unseen(&person));
                self.put(person, figures)
            }
        };
        let Some(person) = self.people.get_mut(place) else {
            return;
        };
        let (figures, rules, happenings) = (&mut person.figures, &self.rules, &mut self.happenings);
        let may_be_earlier = match late_at_us {
            None => figures.take(time_us, act, rules, happenings),
            Some(now_us) => figures.take_late(time_us, now_us, act, rules, happenings),
        };
        if may_be_earlier {
            let due_us = figures.next_due(rules);
            look_at(&mut self.clocks, person, place, self.reached_us, due_us);
        }
        note(&mut self.taking, place);
        tell(&mut self.said, &person.name, &mut self.happenings);
    }

    /// Looks at those whose clocks ring at `rings_us`: somebody heard of meanwhile is looked at again later.
    fn ring(&mut self, rings_us: i64) {
        let mut due: Vec<(Arc<str>, u32)> = Vec::new();
        while let Some((place, rings)) = self.clocks.pop(rings_us) {
            // Whoever was to be looked at may be gone, and another in that place.
            let Some(person) = self.people.get_mut(place) else {
                continue;
            };
            match rings {
                Rings::Own => person.rings_us = i64::MAX,
                Rings::Beside if person.looked_us == rings_us => person.looked_us = i64::MAX,
                // An earlier one took its place.
                Rings::Beside => continue,
            }
            let due_us = person.figures.next_due(&self.rules);
            if due_us > rings_us {
                look_at(&mut self.clocks, person, place, rings_us, due_us);
            } else {
                due.push((Arc::clone(&person.name), place));
            }
        }
        // Places are others after a restart.
        due.sort_unstable();
        due.dedup();
        for (_, place) in due {
            let Some(person) = self.people.get_mut(place) else {
                continue;
            };
            person
                .figures
                .fall_due(self.reached_us, &self.rules, &mut self.happenings);
            let due_us = person.figures.next_due(&self.rules);
            look_at(&mut self.clocks, person, place, self.reached_us, due_us);
            note(&mut self.taking, place);
            tell(&mut self.said, &person.name, &mut self.happenings);
        }
    }

    /// What has been found out since the last call, as rows of `visit` and `engagement`.
    pub fn drain(&mut self) -> Vec<(&'static str, Rows)> {
        let rows = if self.said.is_empty() {
            Vec::new()
        } else {
            said::rows(&self.said, &self.rules)
        };
        self.said.clear();
        rows
    }

    /// Whether anything is known of a person.
    pub fn knows(&self, person: &str) -> bool {
        let person = self.aliases.resolve(person);
        let is_theirs = |act: &Act| self.aliases.resolve(&act.person) == person;
        self.people.find(person).is_some() || self.held.values().any(is_theirs)
    }

    /// A person does not want to be known: nothing is kept.
    pub fn opt_out(&mut self, person: &Arc<str>) {
        self.forget(person);
        self.repairing.forget(person);
        for name in self.aliases.names(person) {
            self.repairing.mail.forget(name);
        }
        self.let_go_of_held(|act, aliases| aliases.person(&act.person) == person);
    }

    /// Forgets acts that wait, by who their persons are.
    fn let_go_of_held(&mut self, mut is_theirs: impl FnMut(&Act, &Aliases) -> bool) {
        let held = self.held.iter();
        let theirs = held.filter(|(_, act)| is_theirs(act, &self.aliases));
        let theirs: Vec<HeldKey> = theirs.map(|(key, _)| key.clone()).collect();
        for key in &theirs {
            self.held.remove(key);
        }
    }

    /// A person wants to be known again. What was done before under any of the person's names stays
    /// forgotten.
    pub fn opt_in(&mut self, person: &Arc<str>, event: &Event) {
        let beginning = Beginning {
            event: dedup_key(event),
            received_us: event.received_us,
        };
        for name in self.aliases.names(person) {
            self.repairing.beginnings.insert(Arc::clone(name), beginning);
        }
    }

    fn put(&mut self, name: Arc<str>, figures: Figures) -> u32 {
        let rings_us = figures.next_due(&self.rules);
        let place = self.people.put(Person {
            name,
            figures,
            rings_us,
            looked_us: i64::MAX,
        });
        self.clocks.set(rings_us, place);
        place
    }

    fn forget(&mut self, person: &str) {
        if let Some(place) = self.people.find(person)
            && let Some(person) = self.people.take(place)
        {
            self.clocks.remove(person.rings_us, place);
            self.note_row(&person.name, None);
        }
    }

    fn note_row(&mut self, person: &Arc<str>, known: Option<Known>) {
        if let Some(taking) = &mut self.taking {
            taking.rows.push((Arc::clone(person), known));
        }
    }

    fn make_room(&mut self) {
        if self.people.taken() < PEOPLE_MAX {
            return;
        }
        for person in self.seen_longest_ago(PEOPLE_SHED) {
            self.forget(&person);
        }
        tracing::warn!("more than {PEOPLE_MAX} people; those seen longest ago are forgotten");
    }

    /// So many people, or all; of those seen at the same time the first by name, for after a restart they stand in another order.
    fn seen_longest_ago(&self, most: usize) -> Vec<Arc<str>> {
        let people = self.people.iter();
        let mut people: Vec<(i64, &Arc<str>)> = people.map(|person| (person.figures.last_us, &person.name)).collect();
        if most < people.len() {
            people.select_nth_unstable(most);
            people.truncate(most);
        }
        people.into_iter().map(|(_, name)| Arc::clone(name)).collect()
    }

    /// How many people there are whose acts have been taken.
    pub fn len(&self) -> usize {
        self.people.taken()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.people.taken() == 0
    }

    /// One person at the event time `clock_us`, with all that has come by now; `None` for someone never seen, or who does not
    /// want to be known.
    pub fn get(&self, person: &str, clock_us: i64) -> Option<PersonView> {
        let person = self.aliases.resolve(person);
        let is_theirs = |act: &Act| self.aliases.resolve(&act.person) == person;
        let held = self.held.iter().filter(|(_, act)| is_theirs(act));
        let figures = self.seen(person, self.figures(person), held, clock_us)?;
        let mut view = PersonView::of(person, &figures, clock_us, &self.rules);
        view.also = u32::try_from(self.aliases.also(person)).unwrap_or(u32::MAX);
        view.is_provisional = self.repairing.repairs.contains_key(person);
        Some(view)
    }

    /// Which names are whose, to work out again what was.
    pub fn with_aliases(mut self, aliases: Aliases) -> Self {
        self.aliases = aliases;
        self
    }

    fn figures(&self, person: &str) -> Option<&Figures> {
        let place = self.people.find(person)?;
        self.people.get(place).map(|person| &person.figures)
    }

    /// Figures as they will be when the watermark has passed what has come by now, and `clock_us`.
    fn seen<'a>(
        &self,
        person: &str,
        figures: Option<&Figures>,
        held: impl IntoIterator<Item = (&'a HeldKey, &'a Act)>,
        clock_us: i64,
    ) -> Option<Figures> {
        let (mut figures, mut said) = (figures.cloned(), Vec::new());
        for (key, act) in held {
            let figures = figures.get_or_insert_with(|| {
                let mut first = Figures::first(key.time_us, &act.source);
                first.set_messages(self.repairing.mail.of_unseen(person));
                first
            });
            figures.advance(key.time_us, &self.rules, &mut said);
            figures.take(key.time_us, act, &self.rules, &mut said);
        }
        if let Some(figures) = &mut figures {
            figures.advance(clock_us, &self.rules, &mut said);
        }
        figures
    }

    /// Everybody as the table `people`, by pseudonym; columns as [`people_schema`] has them, durations in seconds.
    pub fn table(&self, clock_us: i64) -> RecordBatch {
        let mut held: FxHashMap<&str, Vec<(&HeldKey, &Act)>> = FxHashMap::default();
        for (key, act) in &self.held {
            held.entry(self.aliases.resolve(&act.person))
                .or_default()
                .push((key, act));
        }
        let mut all = Vec::with_capacity(self.len());
        let mut add = |person: &str, figures: Option<&Figures>, held: Vec<(&HeldKey, &Act)>| {
            if let Some(figures) = self.seen(person, figures, held, clock_us) {
                let view = PersonView::of(person, &figures, clock_us, &self.rules);
                all.push((view, figures.first_us, figures.last_us));
            }
        };
        for person in self.people.iter() {
            let held = held.remove(person.name.as_ref()).unwrap_or_default();
            add(&person.name, Some(&person.figures), held);
        }
        // Those of whom nothing has been taken yet.
        for (person, held) in held {
            add(person, None, held);
        }
        all.sort_by(|(a, ..), (b, ..)| a.person.cmp(&b.person));
        view::table(&all)
    }
}

/// By the time `now_us` a person is to be looked at no later than at `due_us`.
fn look_at(clocks: &mut Clocks, person: &mut Person, place: u32, now_us: i64, due_us: i64) {
    if due_us >= person.rings_us.min(person.looked_us) {
        return;
    }
    if clocks.look(now_us, due_us, place) {
        person.looked_us = due_us;
    } else {
        clocks.remove(person.rings_us, place);
        clocks.set(due_us, place);
        person.rings_us = due_us;
    }
}

fn note(taking: &mut Option<Taking>, place: u32) {
    if let Some(taking) = taking {
        taking.note(place);
    }
}

fn tell(said: &mut Vec<Said>, person: &Arc<str>, happenings: &mut Vec<Happening>) {
    said.extend(happenings.drain(..).map(|happening| Said {
        person: Arc::clone(person),
        happening,
    }));
}
