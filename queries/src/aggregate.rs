//! The aggregate operator: groups in windows (or in one endless window), closed by the watermark, read at any time.
//!
//! A query that speaks on close and whose windows overlap keeps panes: a row is added once, however many windows it
//! lies in, and a window is the merge of its panes. A query that amends keeps each window by itself, since each
//! change of each window is said.

mod kept;
mod panes;
mod plan;
mod running;
mod single;
mod sliding;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::is_not_null;
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::common::Result;

pub(crate) use self::plan::{AggregateCall, AggregatePlan, Calls, GroupColumn, WindowPlan};
use self::sliding::Sliding;
use crate::computed::columns;
use crate::flow::Flow;
use crate::keys::{Group, KeyStore};
use crate::operator::{Context, Footprint, LateRow, Operator, batch_of};
use crate::row::Rows;
use crate::slot::Slot;
use crate::statement::Emit;
use crate::window::{Hop, Span};

/// Of overlapping windows that are open, so many are shown, those that end first: each is a merge of its panes.
const SHOWN_WINDOWS: usize = 64;
/// Empty slots kept for the next windows: a window that opens every second should not allocate every second.
const SPARE_SLOTS: usize = 4;

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
    spare: Vec<Slot>,
    /// The hopping windows of a query that keeps panes.
    panes: Option<Hop>,
    /// Paned only: whether a window can be moved on pane by pane, and the one that was moved last.
    can_slide: bool,
    sliding: Option<Sliding>,
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
    /// The windows of one row; empty between two rows.
    spans: Vec<Span>,
    /// Rows said in place of ones that were said when their window closed.
    amended: u64,
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
        let tells_final = plan
            .columns
            .iter()
            .any(|column| matches!(column, GroupColumn::Final | GroupColumn::Amended));
        let turn = if plan.window.is_some() { i64::MIN } else { i64::MAX };
        let can_slide = panes.is_some() && Sliding::is_possible(&plan);
        Ok(Self {
            plan,
            keys,
            slots: BTreeMap::new(),
            changed: BTreeSet::new(),
            spare: Vec::new(),
            can_slide,
            sliding: None,
            panes,
            tells_final,
            watermark: i64::MIN,
            turn,
            said_until: i64::MIN,
            final_until: i64::MIN,
            next_emit: i64::MIN,
            next_expiry: i64::MIN,
            spans: Vec::new(),
            amended: 0,
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
    fn take_rows(
        &mut self,
        flow: &Flow,
        columns: &Columns,
        context: &mut Context<'_>,
        out: &mut Vec<Rows>,
    ) -> Result<()> {
        let Some(times) = columns.times.clone() else {
            return self.take_running(flow, columns);
        };
        let sites = columns.sites.clone();
        let mut parts: Vec<(Span, Vec<u32>)> = Vec::new();
        let mut last = 0;
        let mut refused = Vec::new();
        let mut spans = Vec::new();
        for row in 0..flow.num_rows() {
            let (time, met) = (times.value(row), flow.watermarks.value(row));
            let site = sites
                .as_ref()
                .and_then(|sites| sites.is_valid(row).then(|| sites.value(row)));
            let is_in_window = self.spans_of(time, site, met, &mut spans);
            if let Some(hop) = self.panes
                && !spans.is_empty()
                && self.is_late_for_some(hop, time, met)
            {
                for (span, rows) in parts.drain(..) {
                    self.add(span, &rows, flow, columns)?;
                }
                self.say_what_is_final(hop, met, out)?;
                self.add(spans[0], &[row as u32], flow, columns)?;
                self.amend_panes(hop, met, met, out)?;
                continue;
            }
            for span in &spans {
                // Mostly the window of the row before, or where a row lies in several the one that follows.
                let is_it = |at: usize| parts.get(at).is_some_and(|(found, _)| found == span);
                if !is_it(last) {
                    last = if is_it(last + 1) {
                        last + 1
                    } else {
                        parts.iter().position(|(found, _)| found == span).unwrap_or_else(|| {
                            parts.push((*span, Vec::new()));
                            parts.len() - 1
                        })
                    };
                }
                parts[last].1.push(row as u32);
            }
            if spans.is_empty() {
                refused.push(columns.groups[row]);
                if is_in_window {
                    context.late.push(LateRow {
                        event_id: flow.causes.is_valid(row).then(|| flow.causes.value(row).to_owned()),
                        event_time: time,
                        watermark: self.watermark.max(met),
                        reason: WINDOWS_WERE_FINAL,
                    });
                }
            }
        }
        for (span, rows) in &parts {
            self.add(*span, rows, flow, columns)?;
        }
        self.keys.forget_unheld(&refused);
        Ok(())
    }

    /// The slot of a window or pane, with room for all groups; opened when it is not there. Beside it what else of the
    /// operator is needed with it.
    fn slot(&mut self, span: Span) -> (&AggregatePlan, &mut KeyStore, &mut Slot) {
        let (plan, spare) = (&self.plan, &mut self.spare);
        let slot = self
            .slots
            .entry(span)
            .or_insert_with(|| spare.pop().unwrap_or_else(|| Slot::new(plan)));
        slot.resize(self.keys.capacity(), plan);
        (plan, &mut self.keys, slot)
    }

    /// Whether changes of a slot are to be said later: those of a window that was said, and all when the query amends.
    fn notes_changes(&self, span: Span) -> bool {
        match (self.plan.emit, &self.plan.window, self.panes) {
            // The window that ends first of those that hold the pane was said.
            (Emit::Close, Some(window), Some(_)) => window.windows.next_end(span.start) <= self.said_until,
            (Emit::Close, ..) => self.slots.get(&span).is_some_and(|slot| slot.said),
            _ => true,
        }
    }

    fn add(&mut self, span: Span, rows: &[u32], flow: &Flow, columns: &Columns) -> Result<()> {
        let watermark = self.watermark;
        self.unslide(span);
        let notes_changes = self.notes_changes(span);
        if notes_changes {
            self.changed.insert(span);
        }
        let (plan, keys, slot) = self.slot(span);
        for row in rows {
            let group = columns.groups[*row as usize];
            if slot.enter(group) {
                keys.hold(group);
            }
            if notes_changes {
                slot.note_change(group);
            }
        }
        if plan.keeps_causes {
            for row in rows {
                let cause = flow
                    .causes
                    .is_valid(*row as usize)
                    .then(|| Arc::from(flow.causes.value(*row as usize)));
                slot.causes[columns.groups[*row as usize] as usize] = cause;
            }
        }
        if plan.ttl_us.is_some() {
            for row in rows {
                slot.touched[columns.groups[*row as usize] as usize] =
                    watermark.max(flow.watermarks.value(*row as usize));
            }
        }
        columns.calls.update(&mut slot.accumulators, &columns.groups, rows)
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
        self.take_rows(&flow, &columns, context, out)?;
        let met = flow.watermarks.value(flow.num_rows() - 1);
        match self.plan.emit {
            Emit::Every(_) => Ok(()),
            Emit::Close | Emit::Update => self.say_changes(met, out),
        }
    }

    /// Says what changed: in windows that were said already, and in all of them when the query amends.
    fn say_changes(&mut self, watermark: i64, out: &mut Vec<Rows>) -> Result<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        if let Some(hop) = self.panes {
            return self.amend_panes(hop, watermark, self.watermark, out);
        }
        for span in std::mem::take(&mut self.changed) {
            let Some(slot) = self.slots.get_mut(&span) else {
                continue;
            };
            let changed = slot.take_changed();
            let telling = Telling::now(watermark.max(self.watermark), slot.said);
            self.amended += if slot.said { changed.len() as u64 } else { 0 };
            Self::say(&self.plan, &self.keys, span, slot, &changed, telling, out)?;
            for group in changed {
                slot.note_told(group);
            }
        }
        Ok(())
    }

    /// Moves the watermark: says windows that end, drops those that can't change any more.
    fn move_watermark(&mut self, watermark: i64, out: &mut Vec<Rows>) -> Result<()> {
        if watermark <= self.watermark {
            return Ok(());
        }
        if watermark < self.turn {
            self.watermark = watermark;
            return Ok(());
        }
        // What changed before time moved is said before it.
        self.say_changes(self.watermark, out)?;
        let before = self.watermark;
        self.watermark = watermark;
        self.turn = self.turn_after(watermark);
        if let Some(hop) = self.panes {
            return self.close_panes(before, watermark, hop, out);
        }
        for (span, slot) in &mut self.slots {
            if span.end > watermark {
                break;
            }
            if self.plan.emit == Emit::Close && !slot.said {
                slot.said = true;
                let members = slot.members.clone();
                let telling = Telling {
                    is_final: self.plan.lateness_us == 0,
                    ..Telling::now(before.max(span.end), false)
                };
                Self::say(&self.plan, &self.keys, *span, slot, &members, telling, out)?;
            }
        }
        while let Some(first) = self.slots.first_entry() {
            let span = *first.key();
            if span.end.saturating_add(self.plan.lateness_us) > watermark {
                break;
            }
            let mut slot = first.remove();
            self.changed.remove(&span);
            let is_said_final = self.plan.emit == Emit::Close && self.plan.lateness_us == 0;
            if self.tells_final && !is_said_final {
                let members = slot.members.clone();
                let telling = Telling::for_good(before.max(span.end.saturating_add(self.plan.lateness_us)));
                Self::say(&self.plan, &self.keys, span, &mut slot, &members, telling, out)?;
            }
            self.retire(slot);
        }
        Ok(())
    }

    fn retire(&mut self, mut slot: Slot) {
        for group in &slot.members {
            self.keys.release(*group);
        }
        if self.spare.len() < SPARE_SLOTS {
            slot.recycle();
            self.spare.push(slot);
        }
    }
}

impl Operator for Aggregate {
    fn push(&mut self, rows: Rows, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        match rows {
            Rows::One(row) => self.push_row(&row, context, out),
            Rows::Many(flow) => self.push_flow(flow, context, out),
        }
    }

    fn advance(&mut self, watermark: i64, _context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        self.move_watermark(watermark, out)?;
        if let Emit::Every(interval) = self.plan.emit
            && self.watermark >= self.next_emit
            && self.watermark > i64::MIN
        {
            self.say_changes(self.watermark, out)?;
            self.next_emit = (self.watermark.div_euclid(interval) + 1).saturating_mul(interval);
        }
        self.expire();
        Ok(())
    }

    fn lag_us(&self) -> i64 {
        let window = self.plan.window.as_ref();
        window.map_or(0, |window| {
            window.windows.longest_us().saturating_add(self.plan.lateness_us)
        })
    }

    fn next_due(&self) -> i64 {
        let emits = match self.plan.emit {
            Emit::Every(_) if !self.changed.is_empty() => self.next_emit,
            _ => i64::MAX,
        };
        let ends = if self.slots.is_empty() { i64::MAX } else { self.turn };
        let expires = if self.plan.ttl_us.is_some() && self.plan.window.is_none() {
            self.next_expiry
        } else {
            i64::MAX
        };
        ends.min(emits).min(expires)
    }

    fn amended(&self) -> u64 {
        self.amended
    }

    fn peek(&mut self) -> Result<Option<Flow>> {
        let mut out = Vec::new();
        let telling = Telling::now(self.watermark, false);
        if let Some(hop) = self.panes {
            let open = self.due_starts(self.said_until, i64::MAX, hop);
            for start in open.into_iter().take(SHOWN_WINDOWS) {
                self.say_merged(hop.span(start), None, telling, &mut out)?;
            }
        } else {
            for (span, slot) in &mut self.slots {
                let members = slot.members.clone();
                Self::say(&self.plan, &self.keys, *span, slot, &members, telling, &mut out)?;
            }
        }
        if out.is_empty() {
            return Ok(Some(Flow::at_watermark(
                RecordBatch::new_empty(Arc::clone(&self.plan.schema)),
                self.watermark,
            )));
        }
        let flows: Vec<Flow> = out.into_iter().map(Rows::into_flow).collect();
        let batch = arrow::compute::concat_batches(&self.plan.schema, flows.iter().map(|flow| &flow.batch))?;
        Ok(Some(Flow::at_watermark(batch, self.watermark)))
    }

    fn snapshot(&mut self) -> Result<Option<RecordBatch>> {
        self.keep().map(Some)
    }

    fn restore(&mut self, snapshot: &RecordBatch) -> Result<()> {
        self.take_back(snapshot)
    }

    fn footprint(&self) -> Footprint {
        let slots = self.slots.values().chain(&self.spare);
        Footprint {
            keys: self.keys.len(),
            windows: if self.plan.window.is_some() {
                self.slots.len()
            } else {
                0
            },
            bytes: self.keys.bytes()
                + slots.map(Slot::bytes).sum::<usize>()
                + self.sliding.as_ref().map_or(0, Sliding::bytes),
        }
    }

    fn describe(&self) -> String {
        let window = match (&self.plan.window, self.panes) {
            (Some(window), Some(hop)) => format!(
                "{} on {}, panes of {}",
                window.spec,
                window.time,
                humantime::format_duration(std::time::Duration::from_micros(hop.pane_us().unsigned_abs()))
            ),
            (Some(window), None) => format!("{} on {}", window.spec, window.time),
            (None, _) => "running".to_owned(),
        };
        let keys: Vec<String> = self.plan.keys.iter().map(ToString::to_string).collect();
        let calls: Vec<&str> = self.plan.aggregates.iter().map(|call| call.name.as_str()).collect();
        format!("Aggregate: {window}; by [{}]; {}", keys.join(", "), calls.join(", "))
    }
}
