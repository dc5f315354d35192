//! The aggregate's way for a row by itself: no Arrow array is made, and only the windows it lies in are looked at.

use datafusion::common::Result;

use super::{Aggregate, WINDOWS_WERE_FINAL};
use crate::aggregate::GroupColumn;
use crate::computed::values;
use crate::keys::Group;
use crate::operator::{Context, LateRow};
use crate::row::{Row, Rows};
use crate::statement::Emit;
use crate::value::Value;
use crate::window::WindowSpec;

/// The arguments of each aggregate; `None` for one whose FILTER does not let the row through.
type Arguments = Vec<Option<Vec<Value>>>;

impl Aggregate {
    /// Takes one row, as `push_flow` takes a flow of it.
    pub(super) fn push_row(&mut self, row: &Row, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        for predicate in &self.plan.filters {
            if !predicate.holds(&row.values)? {
                return Ok(());
            }
        }
        let time = match &self.plan.window {
            Some((time, spec)) => match time.value(&row.values)? {
                Value::Time(time) => Some((time, *spec)),
                // A row without a time lies in no window, as in a bounded run.
                _ => return Ok(()),
            },
            None => None,
        };
        let key: Vec<Value> = values(&self.plan.keys, &row.values)?;
        let arguments = self.arguments(row)?;
        self.move_watermark(row.watermark, out)?;
        let group = self.keys.intern_one(&key)?;
        let starts = time.map_or_else(|| vec![0], |(time, spec)| self.open_starts(time, spec));
        for start in &starts {
            self.add_row(*start, group, row, &arguments)?;
        }
        if let (Some((time, spec)), true) = (time, starts.is_empty()) {
            if self.paned || spec.starts(time).next().is_some() {
                context.late.push(LateRow {
                    event_id: row.cause.as_deref().map(str::to_owned),
                    event_time: time,
                    watermark: self.watermark,
                    reason: WINDOWS_WERE_FINAL,
                });
            }
            self.keys.forget_unheld(&[group]);
        }
        match self.plan.emit {
            Emit::Every(_) => Ok(()),
            Emit::Close => self.say_changes(out),
            Emit::Update => {
                for start in starts {
                    self.say_row(start, group, &key, row, out)?;
                }
                Ok(())
            }
        }
    }

    fn arguments(&self, row: &Row) -> Result<Arguments> {
        let mut arguments = Vec::with_capacity(self.plan.aggregates.len());
        for call in &self.plan.aggregates {
            // Evaluated before the FILTER is asked, as DataFusion does and as the columns of a flow are.
            let values = values(&call.args, &row.values)?;
            let is_taken = match &call.filter {
                Some(filter) => filter.holds(&row.values)?,
                None => true,
            };
            arguments.push(is_taken.then_some(values));
        }
        Ok(arguments)
    }

    /// Where the windows (or the pane) begin that a row of this time lies in and that still take rows, the earliest
    /// first.
    fn open_starts(&self, time: i64, spec: WindowSpec) -> Vec<i64> {
        let is_open = |start: i64| {
            let end = start.saturating_add(spec.size_us);
            self.watermark < end.saturating_add(self.plan.lateness_us)
        };
        if self.paned {
            let (latest, pane_us) = (time.div_euclid(spec.slide_us) * spec.slide_us, spec.pane_us());
            let pane = time.div_euclid(pane_us) * pane_us;
            return is_open(latest).then_some(pane).into_iter().collect();
        }
        let mut starts: Vec<i64> = spec.starts(time).filter(|start| is_open(*start)).collect();
        starts.reverse();
        starts
    }

    fn add_row(&mut self, start: i64, group: Group, row: &Row, arguments: &Arguments) -> Result<()> {
        let watermark = self.watermark;
        let is_said_later = matches!(self.plan.emit, Emit::Every(_)) || self.paned;
        let (plan, keys, slot) = self.slot(start);
        if slot.enter(group) {
            keys.hold(group);
        }
        if is_said_later || slot.said {
            slot.note_change(group);
        }
        if plan.keeps_causes {
            slot.causes[group as usize] = row.cause.clone();
        }
        if plan.ttl_us.is_some() {
            slot.touched[group as usize] = watermark;
        }
        for ((accumulator, call), arguments) in slot.accumulators.iter_mut().zip(&plan.aggregates).zip(arguments) {
            if let Some(arguments) = arguments {
                accumulator.update_one(group, arguments, &call.arg_types)?;
            }
        }
        Ok(())
    }

    /// Says the group that a row has just changed.
    fn say_row(&mut self, start: i64, group: Group, key: &[Value], row: &Row, out: &mut Vec<Rows>) -> Result<()> {
        let watermark = self.watermark;
        let (plan, _, slot) = self.slot(start);
        let end = start.saturating_add(plan.window.as_ref().map_or(0, |(_, spec)| spec.size_us));
        let mut said = Vec::with_capacity(plan.schema.fields().len());
        said.extend(plan.columns.iter().map(|column| match column {
            GroupColumn::Key(index) => key[*index].clone(),
            GroupColumn::WindowStart => Value::Time(start),
            GroupColumn::WindowEnd => Value::Time(end),
        }));
        for accumulator in &mut slot.accumulators {
            said.push(accumulator.value(group)?);
        }
        out.push(Rows::One(Row {
            schema: plan.schema.clone(),
            values: said.into(),
            watermark,
            cause: row.cause.clone().filter(|_| plan.keeps_causes),
        }));
        Ok(())
    }
}
