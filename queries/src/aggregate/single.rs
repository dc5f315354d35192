//! The aggregate's way for a row by itself: no Arrow array is made, and only the windows it lies in are looked at.

use datafusion::common::Result;

use super::plan::Arguments;
use super::running::is_over;
use super::{Aggregate, Noted, WINDOWS_WERE_FINAL};
use crate::aggregate::GroupColumn;
use crate::computed::values;
use crate::keys::{Group, KeyStore};
use crate::operator::{Context, LateRow};
use crate::row::{Row, Rows};
use crate::statement::Emit;
use crate::value::Value;
use crate::window::Span;

impl Aggregate {
    /// Takes one row, as `push_flow` takes a flow of it.
    pub(super) fn push_row(&mut self, row: &Row, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        if !self.plan.lets_through(row)? {
            return Ok(());
        }
        let (mut time, mut site) = (0, Value::Null);
        if let Some(window) = &self.plan.window {
            match window.time.value(&row.values)? {
                Value::Time(at) => time = at,
                // A row without a time lies in no window, as in a bounded run.
                _ => return Ok(()),
            }
            if let Some(of_row) = &window.site {
                site = of_row.value(&row.values)?;
            }
        }
        let mut key: Vec<Value> = values(&self.plan.keys, &row.values)?;
        KeyStore::as_kept(&mut key);
        let arguments = self.plan.arguments(row)?;
        let group = self.keys.intern_one(&key)?;
        if let (Some(ttl_us), Some(touched)) = (self.plan.ttl_us, self.touched(group))
            && is_over(touched, self.watermark.max(row.watermark), ttl_us)
        {
            self.begin_anew(group);
        }
        let mut spans = std::mem::take(&mut self.spans);
        let is_in_window = self.spans_of(time, site.text(), row.watermark, &mut spans);
        if let (Some(hop), Some(pane)) = (self.panes, spans.first().copied())
            && let Some(turn) = self.waits_for(hop, pane, group, row.watermark)
        {
            spans.clear();
            self.spans = spans;
            return self.hold_row((turn, pane), group, row, &arguments);
        }
        for span in &spans {
            self.add_row(*span, group, row, &arguments)?;
        }
        if spans.is_empty() {
            if is_in_window {
                context.late.push(LateRow {
                    event_id: row.cause.as_deref().map(str::to_owned),
                    event_time: time,
                    watermark: self.watermark.max(row.watermark),
                    reason: WINDOWS_WERE_FINAL,
                });
            }
            self.keys.forget_unheld(&[group]);
        }
        let said = match self.plan.emit {
            Emit::Every(_) => Ok(()),
            Emit::Close => self.say_all_changes(row.watermark, out),
            Emit::Update => {
                for span in &spans {
                    self.say_row(*span, group, &key, row, out)?;
                }
                Ok(())
            }
        };
        self.spans = spans;
        said
    }

    fn add_row(&mut self, span: Span, group: Group, row: &Row, arguments: &Arguments) -> Result<()> {
        let watermark = self.watermark.max(row.watermark);
        // What a query says of its own accord at each change is said right after this.
        self.unslide(span);
        let noted = match self.plan.emit {
            Emit::Update => Noted::None,
            _ => self.noted_changes(span),
        };
        if noted != Noted::None {
            self.changed.insert(span);
        }
        let (plan, keys, slot) = self.slot(span);
        if slot.enter(group) {
            keys.hold(group);
        }
        if noted.holds(slot, group) {
            slot.note_change(group);
        }
        slot.note(group);
        if plan.keeps_causes {
            slot.causes[group as usize] = row.cause.clone();
        }
        if plan.ttl_us.is_some() {
            slot.touched[group as usize] = watermark;
        }
        plan.update_one(&mut slot.accumulators, group, arguments)
    }

    /// Says the group that a row has just changed.
    fn say_row(&mut self, span: Span, group: Group, key: &[Value], row: &Row, out: &mut Vec<Rows>) -> Result<()> {
        let watermark = self.told_at(row.watermark, span);
        let (plan, _, slot) = self.slot(span);
        let mut said = Vec::with_capacity(plan.schema.fields().len());
        said.extend(plan.columns.iter().map(|column| match column {
            GroupColumn::Key(index) => key[*index].clone(),
            GroupColumn::WindowStart => Value::Time(span.start),
            GroupColumn::WindowEnd => Value::Time(span.end),
            GroupColumn::Final => Value::Bool(false),
            GroupColumn::Amended => Value::Bool(slot.was_told(group)),
        }));
        slot.note_told(group);
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
