//! Consenting is what becomes of everything that is kept of a person when the person decides what it may be used for.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashSet;
use usher_queries::purpose::Purpose;
use usher_queries::query::{Output, Query};
use usher_queries::row::Row;
use usher_queries::statement::StatementKind;
use usher_queries::value::Value;

use super::Perception;
use crate::alerts::PERSON;
use crate::consent::{Change, Consents, Decided, Deciding, Decisions, Purposes};
use crate::event::{Event, Reading};
use crate::messages::Placed;
use crate::points::{CHALLENGES, GRANTS};

/// Who decides something, and what holds before and after it.
#[derive(Debug, Clone)]
pub(super) struct Turned {
    /// How the person is called.
    pub(super) person: Arc<str>,
    change: Change,
    purposes: Purposes,
    holds: bool,
}

impl Turned {
    /// Whether the person is not to be told apart from then on.
    pub(super) fn is_unknown(&self) -> bool {
        !self.change.after.has(Purpose::Recognition)
    }

    /// As messages hear of it: with the watermark that the event met, and its place among those at hand.
    pub(super) fn placed(&self, event: &Event, met_us: i64, index: usize) -> Placed {
        let refuses_research = self.purposes.has(Purpose::Research) && !self.holds;
        Placed::decided(
            Arc::clone(&self.person),
            self.change,
            refuses_research,
            (event.time_us, met_us, index),
        )
    }
}

impl Perception {
    /// Whether these events may change who is told apart from others: then each of them has to be taken before it is known what
    /// may be kept of the next.
    pub fn may_turn(&self, events: &[Event]) -> bool {
        let is_open = self.consents.decided().recognises_all();
        events
            .iter()
            .any(|event| Deciding::of(event).is_some() || !is_open && matches!(event.reading, Reading::Identify { .. }))
    }

    /// Takes persons who may not be told apart out of events, as it stands now.
    pub fn screen(&self, events: &mut [Event]) {
        let decided = self.consents.decided();
        if !decided.recognises_all() {
            events.iter_mut().for_each(|event| decided.screen(event));
        }
    }

    /// The same of some of them, where there is one to take out.
    pub(super) fn screen_part(&self, events: &mut Cow<'_, [Event]>, part: Range<usize>) {
        let decided = self.consents.decided();
        if !decided.recognises_all() && events[part.clone()].iter().any(|event| decided.refuses(event)) {
            self.screen(&mut events.to_mut()[part]);
        }
    }

    /// Who decides something by an event, and what.
    pub(super) fn turned(&self, event: &Event) -> Option<Turned> {
        let deciding = Deciding::of(event)?;
        Some(Turned {
            person: Arc::clone(self.identity.aliases().person(deciding.person)),
            change: self.consents.change(&deciding, event),
            purposes: deciding.purposes,
            holds: deciding.holds,
        })
    }

    /// Does what a person decided when all is said that comes of what was before: what was kept for what does not hold any more
    /// is forgotten.
    pub(super) fn decide(&mut self, turned: &Turned, event: &Event) {
        let Some(deciding) = Deciding::of(event) else { return };
        let (person, change) = (&turned.person, turned.change);
        let had_refused = self.consents.decided().is_refused(person, Purpose::Recognition);
        self.change_consents(|consents| consents.decide(&deciding, event));
        self.forget_in_queries_what_no_longer_holds(person, change);
        if !change.after.has(Purpose::Service) {
            self.points.forget(person);
        }
        if !change.after.has(Purpose::Recognition) {
            self.people.opt_out(person);
            for name in self.identity.names_of(person) {
                self.lookups.forget(&name);
            }
        } else if had_refused {
            // Of who was only not asked yet no event names anybody.
            self.people.opt_in(person, event);
        }
    }

    /// What a person did before a refusal must come to nothing, also where the person agrees again before queries have let go of
    /// it: those forget it that write to people or give them points, where nobody may be told apart those too that raise alerts about
    /// people, and all that these read. What is measured of all people goes on as it would be measured in the log.
    fn forget_in_queries_what_no_longer_holds(&mut self, person: &Arc<str>, change: Change) {
        let ends = |purpose| change.before.has(purpose) && !change.after.has(purpose);
        let is_unknown = ends(Purpose::Recognition);
        if !is_unknown && !ends(Purpose::Service) || !self.people.knows(person) {
            return;
        }
        let is_theirs = |query: &Query| match &query.statement().kind {
            StatementKind::Alert(options) => options.message.is_some() || is_unknown && options.subject == PERSON,
            StatementKind::Query => query.name().starts_with(GRANTS) || query.name().starts_with(CHALLENGES),
        };
        let mut theirs: FxHashSet<Arc<str>> = FxHashSet::default();
        // A query stands behind those that it reads.
        for query in self.queries.queries().iter().rev() {
            if is_theirs(query) || theirs.contains(query.name()) {
                theirs.insert(Arc::clone(query.name()));
                theirs.extend(query.sources().map(Arc::from));
            }
        }
        let names = self.identity.names_of(person);
        let is_named = |text: &str| names.iter().any(|name| **name == *text);
        let forgotten = self
            .queries
            .forget_where_it_can_be(&is_named, &|query| theirs.contains(query.name()));
        if let Err(error) = forgotten {
            tracing::error!(%error, "what queries keep of a person who refuses can't be looked through; it goes when their windows close");
        }
    }

    /// Changes who agrees to what; queries are told.
    pub(super) fn change_consents<T>(&mut self, change: impl FnOnce(&mut Consents) -> T) -> T {
        // They give it back first, so that it need not be copied.
        self.queries.set_consent(None);
        let changed = change(&mut self.consents);
        self.queries.set_consent(self.consents.for_queries());
        changed
    }

    /// Persons are known to have decided this by now, in a question over events that may not have it.
    pub(crate) fn know_decisions(&mut self, decided: &Arc<Decided>) {
        self.change_consents(|consents| consents.know(decided));
    }

    /// Persons are known to have decided so before the log at hand begins.
    pub(crate) fn begin_with_decisions(&mut self, decisions: Vec<(Arc<str>, Decisions)>) {
        self.change_consents(|consents| consents.begin_with(decisions));
    }

    /// Whether a person may be given something.
    pub(super) fn is_served(&self, person: &str) -> bool {
        self.consents.decided().of(person).has(Purpose::Service)
    }

    /// What became of messages, without the names of persons who may not be told apart: their messages were withdrawn.
    pub(super) fn naming_who_is_known(&self, mut rows: Vec<Row>) -> Vec<Row> {
        let decided = self.consents.decided();
        if decided.recognises_all() {
            return rows;
        }
        for row in &mut rows {
            let Ok(column) = row.schema.index_of("person") else {
                continue;
            };
            let values = row.values.iter().enumerate().map(|(index, value)| match value {
                Value::Text(person) if index == column && !decided.recognises(person) => Value::Null,
                value => value.clone(),
            });
            row.values = values.collect();
        }
        rows
    }

    /// Queries may still hold what they were told of somebody before. Nothing is raised by it.
    pub(super) fn raise_of_nobody_who_refuses(&self, outputs: &mut [Output]) {
        let decided = self.consents.decided();
        if decided.recognises_all() {
            return;
        }
        for output in outputs {
            let Some(judgement) = &mut output.judgement else {
                continue;
            };
            let Ok(column) = output.rows.schema().index_of("person") else {
                continue;
            };
            for (row, raise) in judgement.raise.iter_mut().enumerate() {
                let person = output.rows.text(column, row);
                *raise &= person.is_none_or(|person| decided.recognises(person));
            }
        }
    }
}
