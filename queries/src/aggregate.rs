//! The aggregate operator: groups in windows (or in one endless window), closed by the watermark, read at any time.
//!
//! A query that speaks on close and whose windows overlap keeps panes: a row is added once, however many windows it
//! lies in, and a window is the merge of its panes. A query that amends keeps each window by itself, since each
//! change of each window is said.

mod kept;
mod single;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::is_not_null;
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use datafusion::common::Result;

use crate::accumulator::kind::AggregateKind;
use crate::computed::{Computed, columns};
use crate::flow::Flow;
use crate::keys::{Group, KeyStore};
use crate::operator::{Context, Footprint, LateRow, Operator, batch_of};
use crate::row::Rows;
use crate::slot::Slot;
use crate::statement::Emit;
use crate::window::WindowSpec;

/// One aggregate of the SELECT list.
pub(crate) struct AggregateCall {
    pub(crate) kind: AggregateKind,
    pub(crate) args: Vec<Computed>,
    pub(crate) arg_types: Vec<DataType>,
    pub(crate) filter: Option<Computed>,
    pub(crate) name: String,
}

impl AggregateCall {
    /// Whether panes of windows on `time` may be merged to a window.
    fn is_mergeable(&self, time: &Computed) -> bool {
        // Rows of the same time lie in the same pane, where they are told apart by arrival.
        let is_ordered_by_time = || matches!(&self.args[..], [_, order] if order.to_string() == time.to_string());
        self.kind.create().is_mergeable() || matches!(self.kind, AggregateKind::Edge(_)) && is_ordered_by_time()
    }
}

/// What a GROUP BY column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupColumn {
    Key(usize),
    WindowStart,
    WindowEnd,
}

/// All that is fixed when the query is created.
pub(crate) struct AggregatePlan {
    pub(crate) window: Option<(Computed, WindowSpec)>,
    pub(crate) filters: Vec<Computed>,
    pub(crate) keys: Vec<Computed>,
    pub(crate) key_types: Vec<DataType>,
    pub(crate) aggregates: Vec<AggregateCall>,
    pub(crate) columns: Vec<GroupColumn>,
    pub(crate) schema: SchemaRef,
    pub(crate) emit: Emit,
    pub(crate) lateness_us: i64,
    pub(crate) ttl_us: Option<i64>,
    /// Whether the last event of each group is kept, for queries that alerts read.
    pub(crate) keeps_causes: bool,
}

/// Empty slots kept for the next windows: a window that opens every second should not allocate every second.
const SPARE_SLOTS: usize = 4;

/// Why a row is late for every window.
const WINDOWS_WERE_FINAL: &str = "the windows it belongs to were final";

/// The operator. The endless window of a running aggregate is the slot 0.
pub(crate) struct Aggregate {
    plan: AggregatePlan,
    keys: KeyStore,
    slots: BTreeMap<i64, Slot>,
    spare: Vec<Slot>,
    paned: bool,
    watermark: i64,
    /// Paned only: all windows that end here or before have been said.
    said_until: i64,
    /// With an interval: when changes are said next.
    next_emit: i64,
    next_expiry: i64,
}

/// What stands beside the rows of a push, evaluated once.
struct Columns {
    keys: Vec<ArrayRef>,
    /// The rows' groups, as far as rows have been taken.
    groups: Vec<Group>,
    times: Option<TimestampMicrosecondArray>,
    args: Vec<Vec<ArrayRef>>,
    filters: Vec<Option<BooleanArray>>,
}

impl Aggregate {
    pub(crate) fn new(plan: AggregatePlan) -> Result<Self> {
        let paned = plan.emit == Emit::Close
            && plan.window.as_ref().is_some_and(|(time, spec)| {
                spec.size_us > spec.slide_us && plan.aggregates.iter().all(|call| call.is_mergeable(time))
            });
        let keys = KeyStore::new(&plan.key_types)?;
        Ok(Self {
            plan,
            keys,
            slots: BTreeMap::new(),
            spare: Vec::new(),
            paned,
            watermark: i64::MIN,
            said_until: i64::MIN,
            next_emit: i64::MIN,
            next_expiry: i64::MIN,
        })
    }

    fn spec(&self) -> Option<WindowSpec> {
        self.plan.window.as_ref().map(|(_, spec)| *spec)
    }

    /// The next watermark at which any window ends or takes rows no more, whether it holds rows or not: rows that meet
    /// earlier ones are all judged alike. The endless window of a running aggregate has none.
    fn next_turn(&self) -> i64 {
        let Some(spec) = self.spec() else { return i64::MAX };
        if self.watermark == i64::MIN {
            return i64::MIN;
        }
        let next = |after: i64| {
            let passed = self.watermark.saturating_sub(spec.size_us).saturating_sub(after);
            let start = (passed.div_euclid(spec.slide_us) + 1).saturating_mul(spec.slide_us);
            start.saturating_add(spec.size_us).saturating_add(after)
        };
        next(0).min(next(self.plan.lateness_us))
    }

    /// When a pane is in no window any more that could still be amended.
    fn pane_drop(&self, pane: i64, spec: WindowSpec) -> i64 {
        pane.div_euclid(spec.slide_us) * spec.slide_us + spec.size_us + self.plan.lateness_us
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<Columns> {
        let keys = columns(&self.plan.keys, batch)?;
        let times = match &self.plan.window {
            Some((time, _)) => Some(time.column(batch)?.as_primitive::<TimestampMicrosecondType>().clone()),
            None => None,
        };
        let mut args = Vec::with_capacity(self.plan.aggregates.len());
        let mut filters = Vec::with_capacity(self.plan.aggregates.len());
        for call in &self.plan.aggregates {
            args.push(columns(&call.args, batch)?);
            filters.push(call.filter.as_ref().map(|filter| filter.mask(batch)).transpose()?);
        }
        Ok(Columns {
            keys,
            groups: Vec::with_capacity(batch.num_rows()),
            times,
            args,
            filters,
        })
    }

    /// Takes the rows `from..to`, which all meet the same open windows.
    fn take_rows(
        &mut self,
        flow: &Flow,
        columns: &mut Columns,
        from: usize,
        to: usize,
        context: &mut Context<'_>,
    ) -> Result<()> {
        // Keys get their numbers here and not for the whole batch: a window that closes between two rows may have
        // forgotten a key that the later one brings again.
        let keys: Vec<ArrayRef> = columns.keys.iter().map(|key| key.slice(from, to - from)).collect();
        let mut groups = Vec::new();
        self.keys.intern(&keys, to - from, &mut groups)?;
        columns.groups.append(&mut groups);
        let Some(spec) = self.spec() else {
            let rows: Vec<u32> = (from as u32..to as u32).collect();
            return self.add(0, &rows, flow, columns);
        };
        let times = columns.times.as_ref().expect("a window has a time");
        let pane_us = if self.paned { spec.pane_us() } else { spec.size_us };
        let mut parts: Vec<(i64, Vec<u32>)> = Vec::new();
        let mut last = 0;
        let mut refused = Vec::new();
        for row in from..to {
            let time = times.value(row);
            let watermark = self.watermark;
            let closed =
                |start: i64| watermark >= start.saturating_add(spec.size_us).saturating_add(self.plan.lateness_us);
            let mut in_window = false;
            let mut taken = false;
            let mut put = |start: i64| {
                if parts.get(last).is_none_or(|(found, _)| *found != start) {
                    last = parts.iter().position(|(found, _)| *found == start).unwrap_or_else(|| {
                        parts.push((start, Vec::new()));
                        parts.len() - 1
                    });
                }
                parts[last].1.push(row as u32);
            };
            if self.paned {
                let latest = time.div_euclid(spec.slide_us) * spec.slide_us;
                in_window = true;
                if !closed(latest) {
                    taken = true;
                    put(time.div_euclid(pane_us) * pane_us);
                }
            } else {
                for start in spec.starts(time) {
                    in_window = true;
                    if !closed(start) {
                        taken = true;
                        put(start);
                    }
                }
            }
            if in_window && !taken {
                context.late.push(LateRow {
                    event_id: flow.causes.is_valid(row).then(|| flow.causes.value(row).to_owned()),
                    event_time: time,
                    // Its own: rows of one open set of windows may have met later and later ones.
                    watermark: watermark.max(flow.watermarks.value(row)),
                    reason: WINDOWS_WERE_FINAL,
                });
            }
            if !taken {
                refused.push(columns.groups[row]);
            }
        }
        for (start, rows) in &parts {
            self.add(*start, rows, flow, columns)?;
        }
        self.keys.forget_unheld(&refused);
        Ok(())
    }

    /// The slot of a window or pane, with room for all groups; opened when it is not there. Beside it what else of the
    /// operator is needed with it.
    fn slot(&mut self, start: i64) -> (&AggregatePlan, &mut KeyStore, &mut Slot) {
        let (plan, spare) = (&self.plan, &mut self.spare);
        let slot = self
            .slots
            .entry(start)
            .or_insert_with(|| spare.pop().unwrap_or_else(|| Slot::new(plan)));
        slot.resize(self.keys.capacity(), plan);
        (plan, &mut self.keys, slot)
    }

    fn add(&mut self, start: i64, rows: &[u32], flow: &Flow, columns: &Columns) -> Result<()> {
        let watermark = self.watermark;
        let is_paned = self.paned;
        let (plan, keys, slot) = self.slot(start);
        let tells_changes = plan.emit != Emit::Close || is_paned || slot.said;
        for row in rows {
            let group = columns.groups[*row as usize];
            if slot.enter(group) {
                keys.hold(group);
            }
            if tells_changes {
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
        for ((accumulator, args), mask) in slot.accumulators.iter_mut().zip(&columns.args).zip(&columns.filters) {
            match mask {
                None => accumulator.update(&columns.groups, rows, args)?,
                Some(mask) => {
                    let kept: Vec<u32> = rows.iter().copied().filter(|row| mask.value(*row as usize)).collect();
                    accumulator.update(&columns.groups, &kept, args)?;
                }
            }
        }
        Ok(())
    }

    /// The rows of `groups` in a slot, as this operator says them.
    fn say(
        plan: &AggregatePlan,
        keys: &KeyStore,
        start: i64,
        slot: &mut Slot,
        groups: &[Group],
        watermark: i64,
        out: &mut Vec<Rows>,
    ) -> Result<()> {
        if groups.is_empty() {
            return Ok(());
        }
        let key_columns = keys.columns(groups)?;
        let end = start.saturating_add(plan.window.as_ref().map_or(0, |(_, spec)| spec.size_us));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(plan.schema.fields().len());
        for column in &plan.columns {
            columns.push(match column {
                GroupColumn::Key(index) => Arc::clone(&key_columns[*index]),
                GroupColumn::WindowStart => Arc::new(TimestampMicrosecondArray::from_value(start, groups.len())),
                GroupColumn::WindowEnd => Arc::new(TimestampMicrosecondArray::from_value(end, groups.len())),
            });
        }
        for accumulator in &mut slot.accumulators {
            columns.push(accumulator.evaluate(groups)?);
        }
        let batch = batch_of(&plan.schema, columns, groups.len())?;
        let mut flow = Flow::at_watermark(batch, watermark);
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

    /// Takes many rows: as far as one open set of windows goes at a time.
    fn push_flow(&mut self, mut flow: Flow, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        for predicate in &self.plan.filters {
            let mask = predicate.mask(&flow.batch)?;
            if mask.true_count() < flow.num_rows() {
                flow = flow.filtered(&mask)?;
            }
        }
        if let Some((time, _)) = &self.plan.window {
            let array = time.column(&flow.batch)?;
            if array.null_count() > 0 {
                // A row without a time lies in no window, as in a bounded run.
                flow = flow.filtered(&is_not_null(&array)?)?;
            }
        }
        if flow.num_rows() == 0 {
            return Ok(());
        }
        let mut columns = self.evaluate(&flow.batch)?;
        let watermarks = flow.watermarks.values();
        let mut from = 0;
        while from < flow.num_rows() {
            self.move_watermark(watermarks[from], out)?;
            let deadline = self.next_turn();
            // Up to the first row that meets a watermark at which a window, there or not, ends or takes rows no more.
            let mut to = from + 1;
            while to < flow.num_rows() && (watermarks[to] < deadline || watermarks[to] <= self.watermark) {
                to += 1;
            }
            self.take_rows(&flow, &mut columns, from, to, context)?;
            from = to;
        }
        match self.plan.emit {
            Emit::Every(_) => Ok(()),
            Emit::Close | Emit::Update => self.say_changes(out),
        }
    }

    /// Says what changed: in windows that were said already, and in all of them when the query amends.
    fn say_changes(&mut self, out: &mut Vec<Rows>) -> Result<()> {
        if self.paned {
            return self.amend_panes(out);
        }
        for (start, slot) in &mut self.slots {
            if !slot.changed.is_empty() && (self.plan.emit != Emit::Close || slot.said) {
                let changed = slot.take_changed();
                Self::say(&self.plan, &self.keys, *start, slot, &changed, self.watermark, out)?;
            }
        }
        Ok(())
    }

    /// Says again the windows that were said and whose panes late rows have changed.
    fn amend_panes(&mut self, out: &mut Vec<Rows>) -> Result<()> {
        let Some(spec) = self.spec() else { return Ok(()) };
        let mut amended: BTreeMap<i64, BTreeSet<Group>> = BTreeMap::new();
        for (pane, slot) in &mut self.slots {
            for group in slot.take_changed() {
                for start in spec.starts(*pane) {
                    let end = start + spec.size_us;
                    if end <= self.said_until && self.watermark < end.saturating_add(self.plan.lateness_us) {
                        amended.entry(start).or_default().insert(group);
                    }
                }
            }
        }
        for (start, groups) in amended {
            let groups: Vec<Group> = groups.into_iter().collect();
            self.say_merged(start, Some(&groups), out)?;
        }
        Ok(())
    }

    /// Merges the panes of the window that begins at `start` and says it, for `only` some groups or all.
    fn say_merged(&mut self, start: i64, only: Option<&[Group]>, out: &mut Vec<Rows>) -> Result<()> {
        let Some(spec) = self.spec() else { return Ok(()) };
        let mut merged = self.spare.pop().unwrap_or_else(|| Slot::new(&self.plan));
        merged.resize(self.keys.capacity(), &self.plan);
        for (_, pane) in self.slots.range(start..start + spec.size_us) {
            let filtered: Vec<Group>;
            let groups = match only {
                Some(only) => {
                    filtered = only.iter().copied().filter(|group| pane.has(*group)).collect();
                    &filtered
                }
                None => &pane.members,
            };
            for group in groups {
                merged.enter(*group);
            }
            for (into, from) in merged.accumulators.iter_mut().zip(&pane.accumulators) {
                into.merge(from.as_ref(), groups)?;
            }
            if self.plan.keeps_causes {
                // Panes come in the order of time, so that the newest event stays.
                for group in groups {
                    if let Some(cause) = &pane.causes[*group as usize] {
                        merged.causes[*group as usize] = Some(cause.clone());
                    }
                }
            }
        }
        let members = std::mem::take(&mut merged.members);
        Self::say(
            &self.plan,
            &self.keys,
            start,
            &mut merged,
            &members,
            self.watermark,
            out,
        )?;
        merged.members = members;
        merged.recycle();
        self.spare.push(merged);
        Ok(())
    }

    /// Moves the watermark: says windows that end, drops those that can't change any more.
    fn move_watermark(&mut self, watermark: i64, out: &mut Vec<Rows>) -> Result<()> {
        if watermark <= self.watermark {
            return Ok(());
        }
        let Some(spec) = self.spec() else {
            self.watermark = watermark;
            return Ok(());
        };
        if watermark < self.next_turn() {
            self.watermark = watermark;
            return Ok(());
        }
        // What changed before time moved is said before it.
        self.say_changes(out)?;
        self.watermark = watermark;
        if self.paned {
            return self.close_panes(watermark, spec, out);
        }
        for (start, slot) in &mut self.slots {
            let end = start.saturating_add(spec.size_us);
            if end > watermark {
                break;
            }
            if self.plan.emit == Emit::Close && !slot.said {
                slot.said = true;
                let members = slot.members.clone();
                Self::say(&self.plan, &self.keys, *start, slot, &members, watermark, out)?;
            }
        }
        while let Some(first) = self.slots.first_entry() {
            if first
                .key()
                .saturating_add(spec.size_us)
                .saturating_add(self.plan.lateness_us)
                > watermark
            {
                break;
            }
            let slot = first.remove();
            self.retire(slot);
        }
        Ok(())
    }

    /// Where the windows begin that end by `watermark`, hold rows and were not said yet.
    fn due_starts(&self, watermark: i64, spec: WindowSpec) -> Vec<i64> {
        let (Some((first, _)), Some((last, _))) = (self.slots.first_key_value(), self.slots.last_key_value()) else {
            return Vec::new();
        };
        // The first start whose window ends behind a time.
        let behind = |time: i64| {
            let start = time.saturating_sub(spec.size_us).div_euclid(spec.slide_us) + 1;
            start.saturating_mul(spec.slide_us)
        };
        let from = behind(*first).max(behind(self.said_until));
        let until = watermark.saturating_sub(spec.size_us).min(*last);
        let (mut start, mut due) = (from, Vec::new());
        while start <= until
            && let Some((pane, _)) = self.slots.range(start..).next()
        {
            if *pane < start + spec.size_us {
                due.push(start);
                start += spec.slide_us;
            } else {
                // Over a gap in one step: it may be years long.
                start = behind(*pane);
            }
        }
        due
    }

    fn close_panes(&mut self, watermark: i64, spec: WindowSpec, out: &mut Vec<Rows>) -> Result<()> {
        for start in self.due_starts(watermark, spec) {
            self.say_merged(start, None, out)?;
        }
        self.said_until = watermark;
        while let Some((pane, _)) = self.slots.first_key_value() {
            if self.pane_drop(*pane, spec) > watermark {
                break;
            }
            if let Some((_, slot)) = self.slots.pop_first() {
                self.retire(slot);
            }
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

    /// Forgets the keys of a running aggregate that were unseen for its time to live.
    fn expire(&mut self) {
        let Some(ttl_us) = self.plan.ttl_us else { return };
        if self.spec().is_some() || self.watermark < self.next_expiry || self.watermark == i64::MIN {
            return;
        }
        // A quarter of the time to live: a key stays at most a quarter longer than was asked for.
        self.next_expiry = self.watermark.saturating_add(ttl_us / 4);
        let Some(slot) = self.slots.get_mut(&0) else { return };
        let limit = self.watermark.saturating_sub(ttl_us);
        let mut kept = Vec::with_capacity(slot.members.len());
        for group in std::mem::take(&mut slot.members) {
            let touched = &mut slot.touched[group as usize];
            if *touched == i64::MIN {
                *touched = self.watermark; // seen before any watermark stood
            }
            if *touched > limit {
                kept.push(group);
            } else {
                slot.changed.retain(|changed| *changed != group);
                slot.clear_group(group);
                self.keys.release(group);
            }
        }
        slot.members = kept;
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
            self.say_changes(out)?;
            self.next_emit = (self.watermark.div_euclid(interval) + 1) * interval;
        }
        self.expire();
        Ok(())
    }

    fn peek(&mut self) -> Result<Option<Flow>> {
        let mut out = Vec::new();
        if let (true, Some(spec)) = (self.paned, self.spec()) {
            let starts: BTreeSet<i64> = self.slots.keys().flat_map(|pane| spec.starts(*pane)).collect();
            let said_until = self.said_until;
            for start in starts.into_iter().filter(|start| start + spec.size_us > said_until) {
                self.say_merged(start, None, &mut out)?;
            }
        } else {
            for (start, slot) in &mut self.slots {
                let members = slot.members.clone();
                Self::say(&self.plan, &self.keys, *start, slot, &members, self.watermark, &mut out)?;
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
            bytes: self.keys.bytes() + slots.map(Slot::bytes).sum::<usize>(),
        }
    }

    fn describe(&self) -> String {
        let window = match &self.plan.window {
            Some((time, spec)) if self.paned => {
                format!(
                    "{spec} on {time}, panes of {}",
                    humantime::format_duration(std::time::Duration::from_micros(spec.pane_us().unsigned_abs()))
                )
            }
            Some((time, spec)) => format!("{spec} on {time}"),
            None => "running".to_owned(),
        };
        let keys: Vec<String> = self.plan.keys.iter().map(ToString::to_string).collect();
        let calls: Vec<&str> = self.plan.aggregates.iter().map(|call| call.name.as_str()).collect();
        format!("Aggregate: {window}; by [{}]; {}", keys.join(", "), calls.join(", "))
    }
}
