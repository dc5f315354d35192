//! Perception is all that the engine has understood so far: a function of the log and of nothing else.
//!
//! Events go in, steps of alerts come out, and beside them stand the zones, seats, devices and people as they are now.
//! It reads no clock and knows no broker; [`crate::pipeline`] hands it both.

mod at_hand;
mod consenting;
mod erasing;
mod grouping;
mod identifying;
mod kept;
mod past;
mod showing;
#[cfg(test)]
pub(crate) mod tests;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use usher_queries::budget::Budget;
use usher_queries::query::Output;
use usher_queries::query_set::QuerySet;
use usher_queries::row::{Row, Rows};
use usher_queries::streams::{MESSAGE, stream_schema};
use usher_queries::watermark::{WatermarkOptions, Watermarks};

use self::at_hand::AtHand;
use self::consenting::Turned;
pub(crate) use self::identifying::all_resolved;
pub use self::past::PastReader;
use crate::alert::{Alert, Trace};
use crate::alerts::{Action, Alerts, EventAt, Moment, Said, Step};
use crate::balances::Balances;
use crate::columns::{Observed, rows_of};
use crate::consent::{Consents, Deciding, Purposes};
use crate::devices::Devices;
use crate::erasure::{Erasures, without_person};
use crate::event::{Clock, Event, Gate, Kind, Reading, dedup_key};
use crate::gate_totals::GateTotals;
use crate::groups::Groups;
use crate::identity::Identity;
use crate::lookups::Lookups;
use crate::measures::{MEASURES, Measures};
use crate::messages::{MessageStep, Messages};
use crate::people::People;
use crate::points::{self, CHALLENGES, GRANTS, Ledger, PointsDeed};
use crate::public::{Public, PublicOptions};
use crate::record::Record;
use crate::seats::Seats;
use crate::settings::Settings;
use crate::shed::ShedReason;
use crate::site::Places;
use crate::zones::Zones;

/// Rows of people that are told at once; some megabytes.
const SAID_MAX: usize = 8_192;

/// What is kept, and how.
#[derive(Debug, Clone)]
pub struct PerceptionOptions {
    /// How the watermark follows the devices.
    pub watermark: WatermarkOptions,
    /// Cleared alerts kept to show.
    pub keep_cleared: usize,
    /// How engagement is scored.
    pub engagement: crate::settings::EngagementSettings,
    /// How people are written to.
    pub messages: crate::settings::MessageSettings,
    /// What anybody may see.
    pub public: PublicOptions,
    /// What holds of persons who decided nothing.
    pub without_consent: Purposes,
    /// Who is in which group, as the config folder says.
    pub groups: Groups,
}

impl PerceptionOptions {
    /// As the settings say.
    pub fn of(settings: &Settings) -> Self {
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self {
            watermark: WatermarkOptions {
                delay_us: micros(settings.time.delay),
                idle_us: micros(settings.time.idle),
            },
            keep_cleared: settings.keep_cleared_alerts,
            engagement: settings.engagement.clone(),
            messages: settings.messages.clone(),
            public: PublicOptions {
                k: settings.privacy_k,
                step_us: micros(settings.public.step),
                measures: settings.public.measures.clone(),
            },
            without_consent: settings.without_consent,
            groups: Groups::default(),
        }
    }
}

/// What the queries have to be told of an event beside what it says: the watermark it met, the differences of totals, and
/// who was inside before.
#[derive(Debug)]
pub struct Observing {
    options: WatermarkOptions,
    watermarks: Watermarks,
    totals: GateTotals,
    balances: Balances,
    newest_us: Option<i64>,
}

impl Observing {
    /// Nothing observed yet.
    pub fn new(options: WatermarkOptions) -> Self {
        Self {
            options,
            watermarks: Watermarks::new(options),
            totals: GateTotals::default(),
            balances: Balances::default(),
            newest_us: None,
        }
    }

    /// The watermark now, `i64::MIN` before the first event.
    pub fn watermark(&self) -> i64 {
        self.watermarks.current()
    }

    /// Observes an event of the device with that number.
    pub fn observe<'e>(&mut self, device: u64, event: &'e Event) -> Observed<'e> {
        let watermark = match event.clock {
            // When names were said to be one person's says nothing about how far readers are, and neither does what a person
            // agrees to.
            _ if matches!(event.reading, Reading::Identify { .. } | Reading::Consent { .. }) => {
                self.watermarks.tick(event.received_us)
            }
            Clock::Device | Clock::Missing => {
                self.newest_us = self.newest_us.max(Some(event.time_us));
                self.watermarks.observe(device, event.time_us, event.received_us)
            }
            // The time of such an event is ours; it says nothing about how far the others are.
            Clock::Ahead | Clock::Unset => self.watermarks.tick(event.received_us),
        };
        let passed = match &event.reading {
            Reading::Gate(Gate::Passed { entered, exited }) => (i64::from(*entered), i64::from(*exited)),
            Reading::Gate(Gate::Totals { entered, exited }) => {
                let passage = self.totals.passed(&event.source, event.time_us, *entered, *exited);
                (
                    i64::try_from(passage.entered).unwrap_or(i64::MAX),
                    i64::try_from(passage.exited).unwrap_or(i64::MAX),
                )
            }
            _ => (0, 0),
        };
        let inside = match &event.reading {
            Reading::Gate(_) => self.balances.pass(&event.source, passed),
            _ => 0,
        };
        Observed {
            event,
            watermark,
            passed,
            inside,
        }
    }
}

/// Observes events whose devices nobody has numbered: a trial.
pub fn observe_all<'e>(observing: &mut Observing, events: &'e [Event]) -> Vec<Observed<'e>> {
    events
        .iter()
        .map(|event| observing.observe(number_of(event), event))
        .collect()
}

/// A number for the device of an event, where nobody has given it one.
fn number_of(event: &Event) -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault};
    BuildHasherDefault::<rustc_hash::FxHasher>::default().hash_one(&event.source)
}

/// All that is known.
pub struct Perception {
    places: Arc<Places>,
    /// The continuous queries.
    pub queries: QuerySet,
    observing: Observing,
    /// The devices heard of.
    pub devices: Devices,
    /// The counts of zones.
    pub zones: Zones,
    /// The states of seats.
    pub seats: Seats,
    /// Which names are one person's.
    pub identity: Identity,
    /// Who is in which group.
    pub groups: Groups,
    /// Who agrees to what.
    pub consents: Consents,
    /// Engagement.
    pub people: People,
    /// What queries measured last.
    pub measures: Measures,
    /// What people were given for helpful acts.
    pub points: Ledger,
    /// What people were told, and what they answered.
    pub messages: Messages,
    /// Alerts and their lives.
    pub alerts: Alerts,
    /// What anybody may see.
    pub public: Public,
    /// Who looked people up.
    pub lookups: Lookups,
    /// Who was erased, by hashes, and what that came to.
    pub erasures: Erasures,
    /// Events of which rows wait in queries.
    at_hand: AtHand,
    /// The part at which taking ahead of the next capture goes on; the queries are 0.
    gathering: usize,
    now_us: i64,
    /// Steps that came of restoring, to be told when all is restored.
    unsaid: Vec<Step>,
    options: PerceptionOptions,
    /// What became of messages, where somebody wants to have it.
    message_rows: Option<Vec<Row>>,
    /// How long queries may move time on while events wait; `None` for as long as it takes.
    turn: Option<Duration>,
}

impl Perception {
    /// Knows nothing yet but the place and the queries.
    pub fn new(options: PerceptionOptions, places: Arc<Places>, mut queries: QuerySet) -> Self {
        queries.hold_followers();
        let mut perception = Self {
            observing: Observing::new(options.watermark),
            devices: Devices::new(),
            zones: Zones::new(),
            seats: Seats::new(),
            identity: Identity::new(),
            groups: options.groups.clone(),
            consents: Consents::new(options.without_consent),
            people: People::new(options.engagement.clone()),
            measures: Measures::new(),
            points: Ledger::new(),
            messages: Messages::new(&options.messages, options.watermark.delay_us),
            alerts: Alerts::new(options.keep_cleared),
            public: Public::new(options.public.clone()),
            lookups: Lookups::new(),
            erasures: Erasures::new(),
            places,
            queries,
            at_hand: AtHand::default(),
            gathering: 0,
            now_us: 0,
            unsaid: Vec::new(),
            options,
            message_rows: None,
            turn: None,
        };
        perception.queries.set_consent(perception.consents.for_queries());
        perception.tell_groups();
        perception.learn_rules();
        perception
    }

    /// The place as configured.
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// The event time it is now: that of the newest event, or the watermark where that has gone on. `None` before the
    /// first event.
    pub fn clock_us(&self) -> Option<i64> {
        let watermark = self.observing.watermark();
        self.observing.newest_us.map(|newest| newest.max(watermark))
    }

    /// The watermark, `i64::MIN` before the first event.
    pub fn watermark(&self) -> i64 {
        self.observing.watermark()
    }

    /// What is kept, and how.
    pub fn options(&self) -> &PerceptionOptions {
        &self.options
    }

    /// How the watermark follows the devices.
    pub fn watermark_options(&self) -> WatermarkOptions {
        self.observing.options
    }

    /// The number of the device that holds the watermark back.
    pub fn holder(&self) -> Option<u64> {
        self.observing.watermarks.holder()
    }

    /// From now on events wait so long at most while queries move time on, and [`Perception::work`] does the rest.
    pub fn take_turns_of(&mut self, turn: Duration) {
        self.turn = Some(turn);
    }

    /// Whether time has not been moved on all the way yet, or rows of alerts still wait for their turn.
    pub fn has_work(&self) -> bool {
        self.queries.has_work() || self.alerts.has_waiting()
    }

    /// Goes on with moving time on, for a turn.
    pub fn work(&mut self) -> Vec<Step> {
        let mut outputs = Vec::new();
        let (moving, judging) = self.budgets();
        self.queries.work(moving, &mut outputs);
        self.judge_later(outputs, judging)
    }

    /// What a turn lasts from now on: for moving time on, which leaves half of it, and until what was said has been judged.
    fn budgets(&self) -> (Budget, Budget) {
        let Some(turn) = self.turn else {
            return (Budget::unlimited(), Budget::unlimited());
        };
        (Budget::lasting(turn / 2), Budget::lasting(turn))
    }

    /// Judges what was said when no event has just come; rows of earlier ones that waited may be among it.
    fn judge_later(&mut self, outputs: Vec<Output>, budget: Budget) -> Vec<Step> {
        let (places, at_hand) = (Arc::clone(&self.places), std::mem::take(&mut self.at_hand));
        let now_us = self.now_us;
        let moment = Moment {
            now_us,
            places: &places,
            event_of: &|id| at_hand.event(id),
            trace_of: &|id| at_hand.trace(id, now_us).unwrap_or_default(),
        };
        let steps = self.judge(outputs, budget, &moment);
        self.at_hand = at_hand;
        if !self.queries.holds_rows() {
            self.at_hand.forget();
        }
        steps
    }

    /// Hands what queries said to those who keep it, and to the alerts; these ring by what all queries have reached.
    fn judge(&mut self, mut outputs: Vec<Output>, mut budget: Budget, moment: &Moment<'_>) -> Vec<Step> {
        let is_full = self.alerts.has_no_room();
        if is_full {
            budget = Budget::unlimited();
        }
        if is_full || self.messages.waits_for_all() {
            self.queries.work(Budget::unlimited(), &mut outputs);
        }
        let said = Said {
            reached_us: self.queries.reached().unwrap_or(i64::MIN),
            is_all: !self.queries.has_work(),
        };
        self.messages
            .step(&outputs, said.reached_us, moment, self.consents.decided());
        self.tell_of_messages(said.reached_us, &mut outputs);
        self.keep(&outputs);
        self.give_points(&outputs);
        for output in outputs.iter().filter(|output| output.query.starts_with(MEASURES)) {
            self.measures.take(&output.query, &output.rows);
            self.public.note(&output.query, &output.rows, &self.queries);
        }
        self.put_all_up();
        self.raise_of_nobody_who_refuses(&mut outputs);
        let mut steps = Vec::new();
        self.alerts.take(&outputs, said, budget, moment, &mut steps);
        for noted in self.messages.take_noted() {
            self.people.note_message(&noted.person, &noted.name, noted.what);
        }
        for grant in self.messages.take_grants() {
            if self.is_served(&grant.person) {
                self.points.grant(&grant, grant.at_us);
            }
        }
        steps
    }

    /// Tells those that read the stream `message` what became of messages by the watermark that all others have reached, and
    /// moves them on to it.
    fn tell_of_messages(&mut self, reached_us: i64, outputs: &mut Vec<Output>) {
        let is_wanted = self.queries.reads(MESSAGE) || self.message_rows.is_some();
        let rows = self.messages.take_rows(is_wanted);
        if let Some(all) = &mut self.message_rows {
            all.extend_from_slice(&rows);
        }
        let rows = self.naming_who_is_known(rows);
        let schema = stream_schema(MESSAGE).expect("the stream is built in");
        let rows = (!rows.is_empty()).then(|| Rows::of(&schema, rows).expect("a row has the columns of its stream"));
        self.queries.follow(rows.as_ref(), reached_us, outputs);
    }

    /// Keeps from now on what becomes of messages, for [`Perception::message_rows`].
    pub(crate) fn keep_message_rows(&mut self) {
        self.message_rows = Some(Vec::new());
    }

    /// What became of messages since [`Perception::keep_message_rows`], as rows of the stream `message`.
    pub(crate) fn message_rows(&mut self) -> Vec<Row> {
        self.message_rows.take().unwrap_or_default()
    }

    /// Moves time on to a watermark without an event, as if the clock had.
    pub(crate) fn move_to(&mut self, watermark: i64) -> Vec<Step> {
        let mut outputs = Vec::new();
        self.move_on(watermark, Budget::unlimited(), &mut outputs);
        self.judge_later(outputs, Budget::unlimited())
    }

    /// What is to be told of messages since the last call.
    pub fn take_messages(&mut self) -> Vec<MessageStep> {
        self.messages.drain()
    }

    /// Moves people on to a watermark, and then the queries, which are told first what became of people by then.
    fn move_on(&mut self, watermark: i64, budget: Budget, outputs: &mut Vec<Output>) {
        self.move_people(watermark, outputs);
        self.tell_of_people(outputs);
        self.queries.advance_within(watermark, budget, outputs);
    }

    /// Moves people on to a watermark. Where time goes on by weeks at once, what becomes of all of them is told in parts.
    fn move_people(&mut self, watermark: i64, outputs: &mut Vec<Output>) {
        while !self.people.advance_within(watermark, SAID_MAX) {
            self.tell_of_people(outputs);
        }
    }

    fn tell_of_people(&mut self, outputs: &mut Vec<Output>) {
        for (stream, rows) in self.people.drain() {
            if self.queries.reads(stream) {
                self.queries.push(stream, &rows, outputs);
            }
        }
    }

    /// Takes events in the order of the log. `trace_of` tells how long the stages took for the event at an index.
    pub fn take(&mut self, events: &[Event], trace_of: &dyn Fn(usize) -> Trace) -> Vec<Step> {
        self.take_parts(&mut Cow::Borrowed(events), trace_of)
    }

    /// The same, and leaves in `events` what may be kept of them: no persons who may not be told apart.
    pub fn take_screening(&mut self, events: &mut Vec<Event>, trace_of: &dyn Fn(usize) -> Trace) -> Vec<Step> {
        let mut all = Cow::Owned(std::mem::take(events));
        let steps = self.take_parts(&mut all, trace_of);
        *events = all.into_owned();
        steps
    }

    fn take_parts(&mut self, events: &mut Cow<'_, [Event]>, trace_of: &dyn Fn(usize) -> Trace) -> Vec<Step> {
        let ends = self.turning_points(events);
        if ends.is_empty() {
            self.screen_part(events, 0..events.len());
            return self.take_some(events, None, trace_of);
        }
        // Who opts out is forgotten when all is said that comes of what was before, and before anything else is; and so names
        // become others'.
        let (mut steps, mut from) = (Vec::new(), 0);
        for end in ends {
            self.screen_part(events, from..end);
            let some = &events[from..end];
            if some.iter().any(|event| Deciding::of(event).is_some()) {
                steps.extend(self.settle());
            }
            steps.extend(self.take_some(some, some.last(), &|index| trace_of(from + index)));
            from = end;
        }
        if from < events.len() {
            self.screen_part(events, from..events.len());
            steps.extend(self.take_some(&events[from..], None, &|index| trace_of(from + index)));
        }
        steps
    }

    /// Takes events of which none but the last one may be a turning point; `turning` is that one. One that decides something is
    /// alone.
    fn take_some(&mut self, said: &[Event], turning: Option<&Event>, trace_of: &dyn Fn(usize) -> Trace) -> Vec<Step> {
        let mut resolved = identifying::resolved(said, self.identity.aliases());
        let turned = turning.and_then(|event| self.turned(event));
        let is_unknown = turned.as_ref().is_some_and(Turned::is_unknown);
        if is_unknown && let Some(last) = resolved.to_mut().last_mut() {
            // Who it was is for those who keep what was decided, and for nobody else.
            without_person(last);
        }
        let events: &[Event] = &resolved;
        let mut before = Vec::new();
        if self.at_hand.is_full() {
            let mut outputs = Vec::new();
            self.queries.work(Budget::unlimited(), &mut outputs);
            before = self.judge_later(outputs, Budget::unlimited());
        }
        let mut observed = Vec::with_capacity(events.len());
        for event in events {
            self.now_us = self.now_us.max(event.received_us);
            let device = self.devices.hear(event, &self.places);
            observed.push(self.observing.observe(device, event));
        }
        let mut outputs = Vec::new();
        for kind in Kind::ALL {
            if self.queries.reads(kind.as_str())
                && let Some(rows) = rows_of(kind, &observed)
            {
                self.queries.push(kind.as_str(), &rows, &mut outputs);
            }
        }
        let first = self.at_hand.next(events.len());
        for (at, ((event, as_said), observed)) in events.iter().zip(said).zip(&observed).enumerate() {
            self.move_people(observed.watermark, &mut outputs);
            if let Some(turned) = &turned {
                self.decide(turned, as_said);
                let placed = turned.placed(as_said, observed.watermark, first + at);
                self.messages.hear_decision(placed);
            }
            if !is_unknown {
                self.people.take(as_said, observed.watermark, &self.places);
                self.messages.hear(event, observed.watermark, first + at);
            }
            self.people.let_go_of_noted(|| dedup_key(event));
        }
        // Not in turns before somebody is forgotten: alerts must be what they will be in a replay, which knows none.
        let all = (Budget::unlimited(), Budget::unlimited());
        let (moving, judging) = turning.map_or_else(|| self.budgets(), |_| all);
        self.move_on(self.observing.watermark(), moving, &mut outputs);
        // Made when the first alert asks: in most batches none does.
        let indices: OnceCell<FxHashMap<&str, usize>> = OnceCell::new();
        let index_of = |id: &str| {
            // Of two with the same id the first one counts: it comes last here.
            let ids = || {
                events
                    .iter()
                    .enumerate()
                    .rev()
                    .map(|(index, event)| (event.id.as_ref(), index))
            };
            indices.get_or_init(|| ids().collect()).get(id).copied()
        };
        let (places, mut at_hand) = (Arc::clone(&self.places), std::mem::take(&mut self.at_hand));
        let event_at = |index: usize| EventAt {
            index: first + index,
            time_us: events[index].time_us,
            met_us: observed[index].watermark,
        };
        let now_us = self.now_us;
        let moment = Moment {
            now_us,
            places: &places,
            event_of: &|id| at_hand.event(id).or_else(|| index_of(id).map(event_at)),
            trace_of: &|id| {
                let before = at_hand.trace(id, now_us);
                before.unwrap_or_else(|| index_of(id).map(trace_of).unwrap_or_default())
            },
        };
        let mut steps = self.judge(outputs, judging, &moment);
        if let Some(turned) = turned.filter(Turned::is_unknown) {
            let reached = self.queries.reached().unwrap_or(i64::MIN);
            for name in self.identity.names_of(&turned.person) {
                self.alerts.forget_person(&name, reached, &moment, &mut steps);
            }
        }
        if self.queries.holds_rows() {
            at_hand.keep(first, &observed, trace_of, now_us);
        } else {
            at_hand.forget();
        }
        self.at_hand = at_hand;
        before.extend(steps);
        if let Some(event) = turning {
            before.extend(self.identify(event));
        }
        before
    }

    /// Takes a record of the log as it was taken when it was written; gives the steps.
    pub fn apply(&mut self, record: &Record) -> Vec<Step> {
        match record {
            Record::Event(event) => return self.take(std::slice::from_ref(event), &|_| Trace::default()),
            Record::Acted(action) | Record::ActedOnPerson { action, .. } => return self.act(action).0,
            Record::Erased(erasure) => return self.erase(erasure, &erasure.who()),
            Record::ErasureDone(done) => self.erasures.complete(done),
            Record::Points(deed) => return self.act_on_points(deed).0,
            Record::Ticked { at_us } => return self.tick(*at_us),
            Record::Identities { at_us, change } => return self.identify_by_table(*at_us, change),
            Record::Repaired { at_us, pasts } => return self.repair(*at_us, pasts),
            Record::Shed {
                at_us,
                reason,
                messages,
            } => return self.shed(*at_us, *reason, *messages),
            Record::Started { at_us } => return self.begin_listening(*at_us),
            Record::QueryRestarted { query } => self.start_again(query),
            Record::Looked(look) => self.lookups.take(look.clone()),
            Record::Refused(_) | Record::Removed | Record::Expired { .. } => {}
        }
        Vec::new()
    }

    /// Time goes on without an event; `now_us` is our clock.
    pub fn tick(&mut self, now_us: i64) -> Vec<Step> {
        self.now_us = self.now_us.max(now_us);
        let watermark = self.observing.watermarks.tick(self.now_us);
        let mut outputs = Vec::new();
        let (moving, judging) = self.budgets();
        self.move_on(watermark, moving, &mut outputs);
        self.judge_later(outputs, judging)
    }

    /// Our clock as it was last looked at, microseconds since 1970.
    pub fn now_us(&self) -> i64 {
        self.now_us
    }

    /// We begin to listen at `now_us`, after a pause in which nothing could be heard; gives the steps of what was due before.
    pub fn begin_listening(&mut self, now_us: i64) -> Vec<Step> {
        // A silence that was due is found, also where time is still being moved on: a replay, which knows no turns, has found it.
        let steps = self.settle();
        if let Some(event_time) = self.observing.watermarks.clock_at(now_us) {
            self.alerts.listen_from(event_time);
        }
        steps
    }

    /// Says all that time was moved on to and turns have not come to yet.
    fn settle(&mut self) -> Vec<Step> {
        let mut outputs = Vec::new();
        self.queries.work(Budget::unlimited(), &mut outputs);
        self.judge_later(outputs, Budget::unlimited())
    }

    /// Does what staff did, when all is said that is due by then; gives the steps, and the alert as it is then: `None` when
    /// no pending or standing alert has that id.
    pub fn act(&mut self, action: &Action) -> (Vec<Step>, Option<Arc<Alert>>) {
        let (mut steps, reached) = self.catch_up(action.at_us);
        let places = Arc::clone(&self.places);
        let moment = no_events(self.now_us, &places);
        let alert = self.alerts.act(action, reached, &moment, &mut steps);
        (steps, alert)
    }

    /// So many messages were shed by then, microseconds since 1970.
    pub fn shed(&mut self, at_us: i64, reason: ShedReason, messages: u64) -> Vec<Step> {
        let (mut steps, reached) = self.catch_up(at_us);
        let places = Arc::clone(&self.places);
        let moment = no_events(self.now_us, &places);
        self.alerts.shed(reason, messages, reached, &moment, &mut steps);
        steps
    }

    /// Does something to a person's points when all is said that is due by then, so that a replay finds the same points
    /// there; gives the steps of alerts, and the entry or why there is none.
    pub fn act_on_points(&mut self, deed: &PointsDeed) -> (Vec<Step>, Result<points::Entry, points::Refused>) {
        let (steps, _) = self.catch_up(deed.at_us);
        if !self.is_served(&deed.person) {
            return (steps, Err(points::Refused::OptedOut));
        }
        let now_us = self.clock_us().unwrap_or(deed.at_us);
        (steps, self.points.act(deed, now_us))
    }

    /// Gives the points that queries found people to have earned, and takes away those whose time is over.
    fn give_points(&mut self, outputs: &[Output]) {
        // Not by the newest event: how many come at once must not matter.
        self.points.advance(self.observing.watermark());
        for output in outputs {
            let grants = match output.query.as_ref() {
                name if name.starts_with(GRANTS) => points::grants_of(&output.rows),
                name if name.starts_with(CHALLENGES) => points::challenges_of(&output.rows),
                _ => continue,
            };
            for grant in &grants {
                if self.is_served(&grant.person) {
                    self.points.grant(grant, grant.at_us);
                }
            }
        }
    }

    /// Says all that is due by our clock; gives the event time that was reached.
    fn catch_up(&mut self, at_us: i64) -> (Vec<Step>, i64) {
        self.now_us = self.now_us.max(at_us);
        let watermark = self.observing.watermarks.tick(self.now_us);
        let mut outputs = Vec::new();
        // Not in turns: an alert must be what it will be in a replay, which knows none.
        self.move_on(watermark, Budget::unlimited(), &mut outputs);
        let steps = self.judge_later(outputs, Budget::unlimited());
        (steps, self.queries.reached().unwrap_or(i64::MIN))
    }

    /// Begins a query anew where it has stopped; one that has not, since it was mended meanwhile, goes on.
    pub(crate) fn start_again(&mut self, query: &str) {
        let Some(statement) = self.queries.get(query).map(|query| query.statement().clone()) else {
            return;
        };
        if let Err(error) = self.queries.put(statement) {
            tracing::error!(query, %error, "can't be planned again");
        }
    }

    /// To be called when queries came or went; tells of alerts that went with them.
    pub fn learn_rules(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        let moment = no_events(self.now_us, &self.places);
        self.alerts.set_rules(self.queries.queries(), &moment, &mut steps);
        self.alerts.set_mixed(self.queries.mixed());
        self.measures.keep_those_of(self.queries.queries());
        self.public.learn_queries();
        self.messages.set_rules(self.queries.queries());
        steps
    }
}

fn no_events(now_us: i64, places: &Places) -> Moment<'_> {
    Moment {
        now_us,
        places,
        event_of: &|_| None,
        trace_of: &|_| Trace::default(),
    }
}
