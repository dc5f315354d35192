//! The aggregate operator: groups in windows (or in one endless window), closed by the watermark, read at any time.
//!
//! A query that speaks on close and whose windows overlap keeps panes: a row is added once, however many windows it
//! lies in, and a window is the merge of its panes. A query that amends keeps each window by itself, since each
//! change of each window is said.

mod amending;
mod capture;
mod closing;
mod counted;
mod kept;
mod operator;
mod panes;
mod parts;
mod plan;
mod running;
mod shared;
mod single;
mod sliding;
mod stacked;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::is_not_null;
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::common::Result;
use rustc_hash::FxHashSet;

use self::capture::Noting;
use self::closing::{Closing, Pool};
use self::parts::Parts;
pub(crate) use self::plan::{AggregateCall, AggregatePlan, Calls, GroupColumn, WindowPlan};
use self::sliding::{Merging, Sliding};
use self::waiting::Waiting;
use crate::computed::columns;
use crate::flow::Flow;
use crate::keys::{Group, KeyStore};
use crate::operator::{Context, LateRow, Progress, batch_of};
use crate::picked::Picked;
use crate::row::Rows;
use crate::slot::Slot;
use crate::statement::Emit;
use crate::window::{Hop, Span};

/// Of overlapping windows that are open, so many are shown, those that end first: each is a merge of its panes.
const SHOWN_WINDOWS: usize = 64;

/// Why a row is late for every window.
const WINDOWS_WERE_FINAL: &str = "the windows it belongs to were final";

/// The operator. A running aggregate has one slot, that of the endless window.
pub(crate) struct Aggregate {
    plan: AggregatePlan,
    keys: KeyStore,
    /// In the order in which windows (or panes) end.
    slots: BTreeMap<Span, Slot>,
    /// Slots that hold changes which were not said yet.
    changed: BTreeSet<Span>,
    pool: Pool,
    /// The hopping windows of a query that keeps panes.
    panes: Option<Hop>,
    /// Paned only: whether panes that leave a window can be taken back; and the window that was said last.
    can_take_back: bool,
    sliding: Option<Sliding>,
    /// Paned only: the window of which a part has been merged or said.
    merging: Option<Merging>,
    /// Paned only: its groups that were said before a restart.
    already_said: FxHashSet<Group>,
    closing: Closing,
    /// Paned only.
    waiting: Waiting,
    /// Whether the rows tell if they are final: then each window is said once more when it is.
    tells_final: bool,
    watermark: i64,
    /// The next watermark at which any window ends or takes rows no more, whether it holds rows or not: rows that meet
    /// earlier ones are all judged alike.
    turn: i64,
    /// Paned only: all windows that end here or before have been said.
    said_until: i64,
    /// Paned only: all windows that end here or before have been said to be final.
    final_until: i64,
    /// With an interval: when changes are said next.
    next_emit: i64,
    next_expiry: i64,
    /// How many members of a running aggregate are still to be looked at for expiry.
    to_expire: Option<usize>,
    /// The windows of one row; empty between two rows.
    spans: Vec<Span>,
    /// Rows said in place of ones that were said when their window closed.
    amended: u64,
    /// What has changed since the last capture; `None` where nobody captures, or the next capture takes all.
    noting: Option<Noting>,
}

/// What is told of rows beside their values.
#[derive(Debug, Clone, Copy)]
struct Telling {
    /// The earliest watermark at which the rows could have been said: time may have moved on much further at once, and
    /// whoever reads them must not find them late for that.
    watermark: i64,
    is_final: bool,
    /// Whether the window was said before, all groups alike; otherwise each group tells for itself.
    is_amended: bool,
}

impl Telling {
    fn now(watermark: i64, is_amended: bool) -> Self {
        Self {
            watermark,
            is_final: false,
            is_amended,
        }
    }

    /// Nothing more will be said of the window.
    fn for_good(watermark: i64) -> Self {
        Self {
            is_final: true,
            ..Self::now(watermark, false)
        }
    }
}

/// Which changes of a window are to be said later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noted {
    None,
    /// Those of groups that were told: the rest of the window is still to be said.
    Told,
    All,
}

impl Noted {
    fn holds(self, slot: &Slot, group: Group) -> bool {
        match self {
            Self::None => false,
            Self::Told => slot.was_told(group),
            Self::All => true,
        }
    }
}

/// What stands beside the rows of a push, evaluated once.
struct Columns {
    /// The rows' groups.
    groups: Vec<Group>,
    times: Option<TimestampMicrosecondArray>,
    sites: Option<StringArray>,
    calls: Calls,
}

impl Aggregate {
    pub(crate) fn new(plan: AggregatePlan) -> Result<Self> {
        let panes = plan.window.as_ref().and_then(|window| {
            let overlaps = |hop: &Hop| hop.size_us > hop.slide_us && plan.emit == Emit::Close;
            let hop = window.windows.hop().filter(overlaps)?;
            plan.aggregates
                .iter()
                .all(|call| call.is_mergeable(&window.time))
                .then_some(hop)
        });
        let keys = KeyStore::new(&plan.key_types)?;
        let tells_final = plan.tells_final();
        let turn = if plan.window.is_some() { i64::MIN } else { i64::MAX };
        let can_take_back = Self::can_take_back(&plan);
        Ok(Self {
            plan,
            keys,
            slots: BTreeMap::new(),
            changed: BTreeSet::new(),
            pool: Pool::default(),
            can_take_back,
            sliding: None,
            merging: None,
            already_said: FxHashSet::default(),
            closing: Closing::default(),
            waiting: Waiting::default(),
            panes,
            tells_final,
            watermark: i64::MIN,
            turn,
            said_until: i64::MIN,
            final_until: i64::MIN,
            next_emit: i64::MIN,
            next_expiry: i64::MIN,
            to_expire: None,
            spans: Vec::new(),
            amended: 0,
            noting: None,
        })
    }

    /// The turn that follows a watermark.
    fn turn_after(&self, watermark: i64) -> i64 {
        let Some(window) = &self.plan.window else {
            return i64::MAX;
        };
        if watermark == i64::MIN {
            return i64::MIN;
        }
        let lateness_us = self.plan.lateness_us;
        let next_end = window.windows.next_end(watermark);
        let next_final = window.windows.next_end(watermark.saturating_sub(lateness_us));
        next_end.min(next_final.saturating_add(lateness_us))
    }

    /// Whether a window of that span takes rows no more at a watermark.
    fn is_final(&self, span: Span, watermark: i64) -> bool {
        watermark >= span.end.saturating_add(self.plan.lateness_us)
    }

    /// Where a row of this time goes: the windows it lies in (or its pane) that still take rows at the watermark it met,
    /// the earliest first. True when it lies in any window at all.
    fn spans_of(&self, time: i64, site: Option<&str>, met: i64, spans: &mut Vec<Span>) -> bool {
        let watermark = self.watermark.max(met);
        spans.clear();
        let Some(window) = &self.plan.window else {
            spans.push(Span::ENDLESS);
            return true;
        };
        if let Some(hop) = self.panes {
            if !self.is_final(hop.span(hop.latest_start(time)), watermark) {
                spans.push(hop.pane(time));
            }
            return true;
        }
        let mut is_in_window = false;
        window.windows.each(time, site, |span| {
            is_in_window = true;
            if !self.is_final(span, watermark) {
                spans.push(span);
            }
        });
        is_in_window
    }

    fn evaluate(&mut self, batch: &RecordBatch) -> Result<Columns> {
        let keys = columns(&self.plan.keys, batch)?;
        let mut groups = Vec::new();
        self.keys.intern(&keys, batch.num_rows(), &mut groups)?;
        let (mut times, mut sites) = (None, None);
        if let Some(window) = &self.plan.window {
            times = Some(
                window
                    .time
                    .column(batch)?
                    .as_primitive::<TimestampMicrosecondType>()
                    .clone(),
            );
            if let Some(site) = &window.site {
                sites = Some(site.column(batch)?.as_string::<i32>().clone());
            }
        }
        let calls = self.plan.calls(batch)?;
        Ok(Columns {
            groups,
            times,
            sites,
            calls,
        })
    }

    /// Puts rows into their windows, each judged by the watermark it met itself: time moves on between batches only, so
    /// that what a query says last does not depend on how rows of its streams were put into batches.
    fn take_rows(&mut self, flow: &Flow, columns: &Columns, context: &mut Context<'_>) -> Result<()> {
        let Some(times) = &columns.times else {
            return self.take_running(flow, columns);
        };
        let (times, met) = (times.values(), flow.watermarks.values());
        let mut parts = Parts::default();
        let (mut refused, mut waiting) = (Vec::new(), Vec::new());
        let mut spans = Vec::new();
        let mut row = 0;
        loop {
            row = parts.take_alike(row, times, met, self.watermark);
            if row == times.len() {
                break;
            }
            let (time, met) = (times[row], met[row]);
            let site = columns
                .sites
                .as_ref()
                .and_then(|sites| sites.is_valid(row).then(|| sites.value(row)));
            let is_in_window = self.spans_of(time, site, met, &mut spans);
            if let (Some(hop), Some(pane)) = (self.panes, spans.first().copied())
                && let Some(turn) = self.waits_for(hop, pane, columns.groups[row], met)
            {
                waiting.push((row, turn, pane));
            } else if spans.is_empty() {
                refused.push(columns.groups[row]);
                if is_in_window {
                    context.late.push(LateRow {
                        event_id: flow.causes.is_valid(row).then(|| flow.causes.value(row).to_owned()),
                        event_time: time,
                        watermark: self.watermark.max(met),
                        reason: WINDOWS_WERE_FINAL,
                    });
                }
            } else {
                parts.take(row, &spans, self.stretch(time, self.watermark.max(met)));
            }
            row += 1;
        }
        for (span, rows) in parts.drain() {
            self.add(span, &rows, flow, columns)?;
        }
        self.hold(&waiting, flow, columns)?;
        self.keys.forget_unheld(&refused);
        Ok(())
    }

    /// The slot of a window or pane, with room for all groups; opened when it is not there. Beside it what else of the
    /// operator is needed with it.
    fn slot(&mut self, span: Span) -> (&AggregatePlan, &mut KeyStore, &mut Slot) {
        let (plan, pool) = (&self.plan, &mut self.pool);
        let slot = self.slots.entry(span).or_insert_with(|| pool.take(plan));
        if let Some(noting) = &mut self.noting {
            noting.note_span(span, slot);
        }
        (plan, &mut self.keys, slot)
    }

    /// Which changes of a slot are to be said later: those of a window that was said, and all when the query amends.
    fn noted_changes(&self, span: Span) -> Noted {
        let of_all = |are_noted| if are_noted { Noted::All } else { Noted::None };
        match (self.plan.emit, &self.plan.window, self.panes) {
            // The window that ends first of those that hold the pane was said.
            (Emit::Close, Some(window), Some(_)) => of_all(window.windows.next_end(span.start) <= self.said_until),
            (Emit::Close, ..) => match self.slots.get(&span) {
                Some(slot) if slot.is_partly_said() => Noted::Told,
                slot => of_all(slot.is_some_and(|slot| slot.said)),
            },
            _ => Noted::All,
        }
    }

    fn add(&mut self, span: Span, rows: &Picked, flow: &Flow, columns: &Columns) -> Result<()> {
        let watermark = self.watermark;
        self.unslide(span);
        let noted = self.noted_changes(span);
        if noted != Noted::None {
            self.changed.insert(span);
        }
        let (plan, keys, slot) = self.slot(span);
        let groups = &columns.groups;
        rows.for_each(|row| {
            let group = groups[row];
            if slot.enter(group) {
                keys.hold(group);
            }
            if noted.holds(slot, group) {
                slot.note_change(group);
            }
            slot.note(group);
        });
        if plan.keeps_causes {
            rows.for_each(|row| {
                let cause = flow.causes.is_valid(row).then(|| Arc::from(flow.causes.value(row)));
                slot.causes[groups[row] as usize] = cause;
            });
        }
        if plan.ttl_us.is_some() {
            rows.for_each(|row| slot.touched[groups[row] as usize] = watermark.max(flow.watermarks.value(row)));
        }
        columns.calls.update(&mut slot.accumulators, groups, rows)
    }

    /// The rows of `groups` in a slot, as this operator says them.
    fn say(
        plan: &AggregatePlan,
        keys: &KeyStore,
        span: Span,
        slot: &mut Slot,
        groups: &[Group],
        telling: Telling,
        out: &mut Vec<Rows>,
    ) -> Result<()> {
        if groups.is_empty() {
            return Ok(());
        }
        let rows = groups.len();
        let key_columns = keys.columns(groups)?;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(plan.schema.fields().len());
        for column in &plan.columns {
            columns.push(match column {
                GroupColumn::Key(index) => Arc::clone(&key_columns[*index]),
                GroupColumn::WindowStart => Arc::new(TimestampMicrosecondArray::from_value(span.start, rows)),
                GroupColumn::WindowEnd => Arc::new(TimestampMicrosecondArray::from_value(span.end, rows)),
                GroupColumn::Final => Arc::new(BooleanArray::from(vec![telling.is_final; rows])),
                GroupColumn::Amended => Arc::new(
                    groups
                        .iter()
                        .map(|group| Some(!telling.is_final && (telling.is_amended || slot.was_told(*group))))
                        .collect::<BooleanArray>(),
                ),
            });
        }
        for accumulator in &mut slot.accumulators {
            columns.push(accumulator.evaluate(groups)?);
        }
        let batch = batch_of(&plan.schema, columns, rows)?;
        let mut flow = Flow::at_watermark(batch, telling.watermark);
        if plan.keeps_causes {
            flow.causes = Arc::new(
                groups
                    .iter()
                    .map(|group| slot.causes[*group as usize].as_deref())
                    .collect::<StringArray>(),
            );
        }
        out.push(Rows::Many(flow));
        Ok(())
    }

    /// Takes many rows.
    fn push_flow(&mut self, flow: Flow, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        let mut flow = self.plan.let_through(flow)?;
        if let Some(window) = &self.plan.window {
            let array = window.time.column(&flow.batch)?;
            if array.null_count() > 0 {
                // A row without a time lies in no window, as in a bounded run.
                flow = flow.filtered(&is_not_null(&array)?)?;
            }
        }
        if flow.num_rows() == 0 {
            return Ok(());
        }
        let columns = self.evaluate(&flow.batch)?;
        self.take_rows(&flow, &columns, context)?;
        let met = flow.watermarks.value(flow.num_rows() - 1);
        match self.plan.emit {
            Emit::Every(_) => Ok(()),
            Emit::Close | Emit::Update => self.say_all_changes(met, out),
        }
    }

    /// Says all that changed with rows of which the last met `met`.
    fn say_all_changes(&mut self, met: i64, out: &mut Vec<Rows>) -> Result<()> {
        let mut room = usize::MAX;
        self.say_changes(met, &mut room, out).map(|_| ())
    }

    /// Says what changed, about as many groups as there is room for: in windows that were said already, and in all of them when the query
    /// amends.
    fn say_changes(&mut self, watermark: i64, room: &mut usize, out: &mut Vec<Rows>) -> Result<Progress> {
        if self.changed.is_empty() {
            return Ok(Progress::Done);
        }
        if let Some(hop) = self.panes {
            self.amend_panes(hop, watermark, self.watermark, out)?;
            return Ok(Progress::Done);
        }
        while let Some(span) = self.changed.first().copied() {
            if *room == 0 {
                return Ok(Progress::Left);
            }
            let told_at = self.told_at(watermark, span);
            let Some(slot) = self.slots.get_mut(&span) else {
                self.changed.remove(&span);
                continue;
            };
            let changed = slot.take_changed(*room);
            if let Some(noting) = &mut self.noting {
                noting.note_span(span, slot);
            }
            *room -= changed.len();
            if slot.changed.is_empty() {
                self.changed.remove(&span);
            }
            let telling = Telling::now(told_at, slot.said);
            // A query that speaks on close says changes of what it said alone.
            self.amended += if self.plan.emit == Emit::Close {
                changed.len() as u64
            } else {
                0
            };
            Self::say(&self.plan, &self.keys, span, slot, &changed, telling, out)?;
            for group in changed {
                slot.note_told(group);
            }
        }
        Ok(Progress::Done)
    }

    /// The watermark at which a change of a window is told. While windows are closing, whoever reads this query has not
    /// been moved on yet and still waits for the rest of them.
    fn told_at(&self, met: i64, span: Span) -> i64 {
        let now = met.max(self.watermark);
        if self.closing.is_left {
            now.min(self.closing.before.max(span.end))
        } else {
            now
        }
    }
}
