//! The session operator: rows of one key less than a gap apart make a session, however they come.
//!
//! A run is what no gap divides. It is kept in pieces, one for each multiple of the greatest length since 1970, so that
//! a run can be cut there once it turns out to last that long, and two runs can be joined by a row that comes between
//! them, without any row being looked at again. A session is said once, when no row that is not late can change it.

mod capture;
mod kept;
mod shared;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::common::Result;

use self::capture::Noting;
use crate::accumulator::GroupAccumulator;
use crate::aggregate::{AggregatePlan, Calls, GroupColumn};
use crate::capture::CapturedOperator;
use crate::computed::{Computed, columns, values};
use crate::flow::Flow;
use crate::grouped::Grouped;
use crate::keys::{Group, KeyStore};
use crate::operator::{Context, Footprint, LateRow, Operator, Progress, batch_of};
use crate::picked::Picked;
use crate::row::{Row, Rows};
use crate::shared_window::WindowOperator;
use crate::value::Value;
use crate::window::Gap;

/// Why a row is late for every session, also for one that is still open: without the rows before it nobody knows.
const SESSIONS_WERE_SAID: &str = "sessions it could belong to may have been said";

/// The number of a piece among the accumulators.
type PieceId = Group;

/// The part of a run that lies in one cell of the grid on which runs are cut.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// The multiple of the greatest length it lies in.
    cell: i64,
    id: PieceId,
}

/// Rows of one key between which there is no gap, microseconds.
#[derive(Debug, Clone)]
struct Run {
    first: i64,
    last: i64,
    /// In the order of time, without those that were said.
    pieces: Vec<Piece>,
    /// Whether pieces were said: the first that is left does not begin with a row then.
    is_begun: bool,
}

/// A session to be said: its key, its window, the number of its accumulators.
struct Due {
    group: Group,
    start: i64,
    end: i64,
    id: PieceId,
}

/// The operator.
pub(crate) struct Sessions {
    plan: AggregatePlan,
    time: Computed,
    gap: Gap,
    keys: KeyStore,
    /// The runs of each key that are open, in the order of time.
    runs: Grouped<Vec<Run>>,
    accumulators: Vec<Box<dyn GroupAccumulator>>,
    /// The last event of each piece, for queries that alerts read.
    causes: Grouped<Option<Arc<str>>>,
    free: Vec<PieceId>,
    pieces: usize,
    /// When something is to be said: (watermark, key, first row of the run).
    due: BTreeSet<(i64, Group, i64)>,
    watermark: i64,
    /// The watermark that stood before time moved on: sessions that had ended by it are told at it.
    before: i64,
    /// What has changed since the last capture; `None` where nobody captures, or the next capture takes all.
    noting: Option<Noting>,
}

impl Sessions {
    /// Sessions of `time` as `gap` says; the plan's own window is none.
    pub(crate) fn new(plan: AggregatePlan, time: Computed, gap: Gap) -> Result<Self> {
        Ok(Self {
            keys: KeyStore::new(&plan.key_types)?,
            accumulators: plan.aggregates.iter().map(|call| call.kind.create()).collect(),
            plan,
            time,
            gap,
            runs: Grouped::default(),
            causes: Grouped::default(),
            free: Vec::new(),
            pieces: 0,
            due: BTreeSet::new(),
            watermark: i64::MIN,
            before: i64::MIN,
            noting: None,
        })
    }

    fn cell(&self, time: i64) -> i64 {
        time.div_euclid(self.gap.max_us)
    }

    fn cell_end(&self, cell: i64) -> i64 {
        (cell + 1).saturating_mul(self.gap.max_us)
    }

    /// Whether the run lasts so long that it is cut.
    fn is_cut(&self, run: &Run) -> bool {
        run.last - run.first >= self.gap.max_us
    }

    /// The watermark at which something of the run is to be said.
    fn due_of(&self, run: &Run) -> i64 {
        let end = match run.pieces.as_slice() {
            [first, _, ..] if self.is_cut(run) => self.cell_end(first.cell),
            _ => run.last.saturating_add(self.gap.gap_us),
        };
        end.saturating_add(self.plan.lateness_us)
    }

    fn new_piece(&mut self) -> PieceId {
        if let Some(id) = self.free.pop() {
            return id;
        }
        let id = self.pieces as PieceId;
        self.pieces += 1;
        id
    }

    fn give_back(&mut self, id: PieceId) {
        for accumulator in &mut self.accumulators {
            accumulator.clear(&[id]);
        }
        self.causes.for_each_there(&[id], |cause| *cause = None);
        self.free.push(id);
    }

    /// The runs of a key that a row of this time belongs to: none, one, or the two that it joins.
    fn joined(&self, group: Group, time: i64) -> std::ops::Range<usize> {
        let runs = &self.runs[group as usize];
        let from = runs.partition_point(|run| run.last.saturating_add(self.gap.gap_us) <= time);
        let to = runs.partition_point(|run| run.first.saturating_sub(self.gap.gap_us) < time);
        from..to.max(from)
    }

    /// Puts a row into its run and piece; gives the number of the piece. What is not updated yet must be, before two
    /// runs are joined.
    fn place(&mut self, group: Group, time: i64, joined: std::ops::Range<usize>) -> Result<PieceId> {
        if let Some(noting) = &mut self.noting {
            noting.note(group);
        }
        let mut taken: Vec<Run> = self.runs[group as usize].drain(joined.clone()).collect();
        for run in &taken {
            self.due.remove(&(self.due_of(run), group, run.first));
        }
        let mut run = if taken.is_empty() {
            self.keys.hold(group);
            Run {
                first: time,
                last: time,
                pieces: Vec::with_capacity(1),
                is_begun: false,
            }
        } else {
            taken.remove(0)
        };
        for later in taken {
            self.keys.release(group);
            run.last = later.last;
            for piece in later.pieces {
                match run.pieces.last() {
                    Some(last) if last.cell == piece.cell => {
                        let into = last.id;
                        self.absorb(into, piece.id)?;
                    }
                    _ => run.pieces.push(piece),
                }
            }
        }
        run.first = run.first.min(time);
        run.last = run.last.max(time);
        let cell = self.cell(time);
        let id = match run.pieces.binary_search_by_key(&cell, |piece| piece.cell) {
            Ok(at) => run.pieces[at].id,
            Err(at) => {
                let id = self.new_piece();
                run.pieces.insert(at, Piece { cell, id });
                id
            }
        };
        self.due.insert((self.due_of(&run), group, run.first));
        let runs = &mut self.runs[group as usize];
        if runs.is_empty() {
            // Most keys have one run: a list makes room for four at once.
            runs.reserve_exact(1);
        }
        runs.insert(joined.start, run);
        Ok(id)
    }

    fn absorb(&mut self, into: PieceId, from: PieceId) -> Result<()> {
        for accumulator in &mut self.accumulators {
            accumulator.absorb(into, from)?;
        }
        if self.plan.keeps_causes {
            self.causes[into as usize] = self.causes[from as usize].take();
        }
        self.give_back(from);
        Ok(())
    }

    /// Moves the watermark: says about `part` of the sessions that no row can change any more. Rows that come before the
    /// rest is said belong to none of them, or are late.
    fn move_watermark(&mut self, watermark: i64, part: usize, out: &mut Vec<Rows>) -> Result<Progress> {
        if watermark > self.watermark {
            self.before = self.watermark;
            self.watermark = watermark;
        }
        let mut due = Vec::new();
        let mut progress = Progress::Done;
        while let Some((at, group, first)) = self.due.first().copied()
            && at <= self.watermark
        {
            if due.len() >= part {
                progress = Progress::Left;
                break;
            }
            self.due.pop_first();
            self.end(group, first, &mut due)?;
        }
        self.say_in_time(&due, self.before, out)?;
        for said in due {
            self.give_back(said.id);
            self.keys.release(said.group);
        }
        Ok(progress)
    }

    /// What of a run is over by now. Each session that is due holds its key once more until it is said.
    fn end(&mut self, group: Group, first: i64, due: &mut Vec<Due>) -> Result<()> {
        let Ok(at) = self.runs[group as usize].binary_search_by_key(&first, |run| run.first) else {
            return Ok(());
        };
        let mut run = self.runs[group as usize].remove(at);
        if let Some(noting) = &mut self.noting {
            noting.note(group);
        }
        let settled = self.watermark.saturating_sub(self.plan.lateness_us);
        let is_over = run.last.saturating_add(self.gap.gap_us) <= settled;
        let before = due.len();
        if self.is_cut(&run) {
            while let Some(piece) = run.pieces.first().copied() {
                let is_last = run.pieces.len() == 1;
                if is_last && !is_over || !is_last && self.cell_end(piece.cell) > settled {
                    break;
                }
                run.pieces.remove(0);
                due.push(self.piece_of(group, &run, piece, is_last));
                run.is_begun = true;
            }
        } else if is_over {
            let (start, end) = (run.first, run.last.saturating_add(self.gap.gap_us));
            let mut pieces = std::mem::take(&mut run.pieces).into_iter();
            if let Some(Piece { id, .. }) = pieces.next() {
                for later in pieces {
                    self.absorb(id, later.id)?;
                }
                due.push(Due { group, start, end, id });
            }
        }
        for _ in before..due.len() {
            self.keys.hold(group);
        }
        if run.pieces.is_empty() {
            self.keys.release(group);
        } else {
            self.due.insert((self.due_of(&run), group, run.first));
            self.runs[group as usize].insert(at, run);
        }
        Ok(())
    }

    /// The session that a piece of a run that is cut makes.
    fn piece_of(&self, group: Group, run: &Run, piece: Piece, is_last: bool) -> Due {
        let cell_start = piece.cell.saturating_mul(self.gap.max_us);
        Due {
            group,
            start: if run.is_begun {
                cell_start
            } else {
                run.first.max(cell_start)
            },
            end: if is_last {
                run.last.saturating_add(self.gap.gap_us)
            } else {
                self.cell_end(piece.cell)
            },
            id: piece.id,
        }
    }

    /// Says sessions, each at the earliest watermark at which it could have been said: time may have moved on much
    /// further at once, and whoever reads them must not find them late for that.
    fn say_in_time(&mut self, due: &[Due], before: i64, out: &mut Vec<Rows>) -> Result<()> {
        self.say(due, true, out)?;
        if let Some(Rows::Many(flow)) = out.last_mut()
            && !due.is_empty()
        {
            let said_at = |session: &Due| before.max(session.end.saturating_add(self.plan.lateness_us));
            flow.watermarks = Arc::new(Int64Array::from_iter_values(due.iter().map(said_at)));
        }
        Ok(())
    }

    fn say(&mut self, due: &[Due], is_final: bool, out: &mut Vec<Rows>) -> Result<()> {
        if due.is_empty() {
            return Ok(());
        }
        let groups: Vec<Group> = due.iter().map(|session| session.group).collect();
        let ids: Vec<PieceId> = due.iter().map(|session| session.id).collect();
        let keys = self.keys.columns(&groups)?;
        let times = |of: fn(&Due) -> i64| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_iter_values(due.iter().map(of)))
        };
        let mut said: Vec<ArrayRef> = Vec::with_capacity(self.plan.schema.fields().len());
        for column in &self.plan.columns {
            said.push(match column {
                GroupColumn::Key(index) => Arc::clone(&keys[*index]),
                GroupColumn::WindowStart => times(|session| session.start),
                GroupColumn::WindowEnd => times(|session| session.end),
                GroupColumn::Final => Arc::new(BooleanArray::from(vec![is_final; due.len()])),
                GroupColumn::Amended => Arc::new(BooleanArray::from(vec![false; due.len()])),
            });
        }
        for accumulator in &mut self.accumulators {
            said.push(accumulator.evaluate(&ids)?);
        }
        let batch = batch_of(&self.plan.schema, said, due.len())?;
        let mut flow = Flow::at_watermark(batch, self.watermark);
        if self.plan.keeps_causes {
            let causes = ids.iter().map(|id| self.causes[*id as usize].as_deref());
            flow.causes = Arc::new(causes.collect::<StringArray>());
        }
        out.push(Rows::Many(flow));
        Ok(())
    }

    /// Whether a row of this time that met `watermark` comes too late; tells so.
    fn refuses(&self, time: i64, watermark: i64, cause: Option<&str>, context: &mut Context<'_>) -> bool {
        let is_late = time < watermark.saturating_sub(self.plan.lateness_us);
        if is_late {
            context.late.push(LateRow {
                event_id: cause.map(str::to_owned),
                event_time: time,
                watermark,
                reason: SESSIONS_WERE_SAID,
            });
        }
        is_late
    }

    fn push_row(&mut self, row: &Row, context: &mut Context<'_>) -> Result<()> {
        if !self.plan.lets_through(row)? {
            return Ok(());
        }
        let Value::Time(time) = self.time.value(&row.values)? else {
            return Ok(());
        };
        let key: Vec<Value> = values(&self.plan.keys, &row.values)?;
        let arguments = self.plan.arguments(row)?;
        if self.refuses(time, row.watermark, row.cause.as_deref(), context) {
            return Ok(());
        }
        let group = self.keys.intern_one(&key)?;
        let joined = self.joined(group, time);
        let id = self.place(group, time, joined)?;
        self.plan.update_one(&mut self.accumulators, id, &arguments)?;
        if self.plan.keeps_causes {
            self.causes[id as usize] = row.cause.clone();
        }
        Ok(())
    }

    fn push_flow(&mut self, flow: Flow, context: &mut Context<'_>) -> Result<()> {
        let flow = self.plan.let_through(flow)?;
        let rows = flow.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let times = self.time.column(&flow.batch)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let keys = columns(&self.plan.keys, &flow.batch)?;
        let calls = self.plan.calls(&flow.batch)?;
        let mut groups = Vec::new();
        self.keys.intern(&keys, rows, &mut groups)?;
        let mut ids: Vec<PieceId> = vec![0; rows];
        let mut waiting = Picked::none();
        for row in 0..rows {
            let watermark = flow.watermarks.value(row);
            if times.is_null(row) {
                continue;
            }
            let time = times.value(row);
            let cause = flow.causes.is_valid(row).then(|| flow.causes.value(row));
            if self.refuses(time, watermark, cause, context) {
                continue;
            }
            let joined = self.joined(groups[row], time);
            if joined.len() > 1 {
                self.update(&ids, &mut waiting, &calls)?;
            }
            let id = self.place(groups[row], time, joined)?;
            if self.plan.keeps_causes {
                self.causes[id as usize] = cause.map(Arc::from);
            }
            ids[row] = id;
            waiting.extend(row..row + 1);
        }
        self.update(&ids, &mut waiting, &calls)?;
        self.keys.forget_unheld(&groups);
        Ok(())
    }

    /// Adds the rows that wait to their pieces.
    fn update(&mut self, ids: &[PieceId], waiting: &mut Picked, calls: &Calls) -> Result<()> {
        calls.update(&mut self.accumulators, ids, waiting)?;
        *waiting = Picked::none();
        Ok(())
    }

    /// The sessions as they would be if nothing more came; pieces of runs that are not cut are put together in copies,
    /// which the caller gives back.
    fn open_sessions(&mut self) -> Result<(Vec<Due>, Vec<PieceId>)> {
        let (mut open, mut copies) = (Vec::new(), Vec::new());
        for group in 0..self.runs.end() {
            for run in self.runs[group].clone() {
                let group = group as Group;
                if self.is_cut(&run) {
                    let last = run.pieces.len() - 1;
                    let mut rest = run.clone();
                    for (index, piece) in run.pieces.iter().enumerate() {
                        open.push(self.piece_of(group, &rest, *piece, index == last));
                        rest.is_begun = true;
                    }
                    continue;
                }
                let id = match run.pieces.as_slice() {
                    [only] => only.id,
                    pieces => {
                        let into = self.copy(pieces[0].id)?;
                        copies.push(into);
                        for piece in &pieces[1..] {
                            let copy = self.copy(piece.id)?;
                            self.absorb(into, copy)?;
                        }
                        into
                    }
                };
                let end = run.last.saturating_add(self.gap.gap_us);
                open.push(Due {
                    group,
                    start: run.first,
                    end,
                    id,
                });
            }
        }
        Ok((open, copies))
    }

    fn copy(&mut self, of: PieceId) -> Result<PieceId> {
        let id = self.new_piece();
        for accumulator in &mut self.accumulators {
            let state = accumulator.state(&[of])?;
            accumulator.restore(&[id], &state)?;
        }
        if self.plan.keeps_causes {
            self.causes[id as usize] = self.causes[of as usize].clone();
        }
        Ok(id)
    }
}

impl Operator for Sessions {
    fn push(&mut self, rows: Rows, context: &mut Context<'_>, _out: &mut Vec<Rows>) -> Result<()> {
        // Sessions are said when time moves on, which it does between batches only.
        match rows {
            Rows::One(row) => self.push_row(&row, context),
            Rows::Many(flow) => self.push_flow(flow, context),
        }
    }

    fn advance(
        &mut self,
        watermark: i64,
        part: usize,
        _context: &mut Context<'_>,
        out: &mut Vec<Rows>,
    ) -> Result<Progress> {
        self.move_watermark(watermark, part, out)
    }

    fn lag_us(&self) -> i64 {
        let longest = self.gap.gap_us.saturating_add(self.gap.max_us);
        longest.saturating_add(self.plan.lateness_us)
    }

    fn next_due(&self) -> i64 {
        self.due.first().map_or(i64::MAX, |(at, ..)| *at)
    }

    fn peek(&mut self) -> Result<Option<Flow>> {
        let (open, copies) = self.open_sessions()?;
        let mut out = Vec::new();
        self.say(&open, false, &mut out)?;
        for copy in copies {
            self.give_back(copy);
        }
        Ok(Some(match out.pop() {
            Some(rows) => rows.into_flow(),
            None => Flow::at_watermark(RecordBatch::new_empty(Arc::clone(&self.plan.schema)), self.watermark),
        }))
    }

    fn gather(&mut self, room: &mut usize) -> Result<()> {
        self.take_noted(room)
    }

    fn capture(&mut self) -> Result<Option<CapturedOperator>> {
        self.take_capture().map(Some)
    }

    fn capture_anew(&mut self) {
        self.noting = None;
    }

    fn snapshot(&mut self) -> Result<Option<RecordBatch>> {
        self.keep(&self.plan.all_keys(), &self.plan.all_calls()).map(Some)
    }

    fn restore(&mut self, snapshot: &RecordBatch) -> Result<()> {
        self.take_back(snapshot)
    }

    fn footprint(&self) -> Footprint {
        self.footprint_of(&self.plan.all_calls())
    }

    fn describe(&self) -> String {
        self.describe_part(&self.plan.all_keys(), &self.plan.all_calls())
    }

    fn as_window(&self) -> Option<&dyn WindowOperator> {
        Some(self)
    }

    fn as_window_mut(&mut self) -> Option<&mut dyn WindowOperator> {
        Some(self)
    }
}
