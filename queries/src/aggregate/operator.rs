//! An aggregate as an operator.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Result;

use super::{Aggregate, SHOWN_WINDOWS, Telling};
use crate::capture::CapturedOperator;
use crate::flow::Flow;
use crate::operator::{Context, Footprint, Operator, Progress};
use crate::row::Rows;
use crate::shared_window::WindowOperator;
use crate::statement::Emit;

impl Operator for Aggregate {
    fn push(&mut self, rows: Rows, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        match rows {
            Rows::One(row) => self.push_row(&row, context, out),
            Rows::Many(flow) => self.push_flow(flow, context, out),
        }
    }

    fn advance(
        &mut self,
        watermark: i64,
        part: usize,
        _context: &mut Context<'_>,
        out: &mut Vec<Rows>,
    ) -> Result<Progress> {
        if self.move_watermark(watermark, part, out)? == Progress::Left {
            return Ok(Progress::Left);
        }
        if let Emit::Every(interval) = self.plan.emit
            && self.watermark >= self.next_emit
            && self.watermark > i64::MIN
        {
            let mut room = part;
            if self.say_changes(self.watermark, &mut room, out)? == Progress::Left {
                return Ok(Progress::Left);
            }
            self.next_emit = (self.watermark.div_euclid(interval) + 1).saturating_mul(interval);
        }
        Ok(self.expire(part))
    }

    fn lag_us(&self) -> i64 {
        let window = self.plan.window.as_ref();
        window.map_or(0, |window| {
            window.windows.longest_us().saturating_add(self.plan.lateness_us)
        })
    }

    fn next_due(&self) -> i64 {
        if self.closing.is_left {
            return i64::MIN;
        }
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
        ends.min(emits).min(expires).min(self.waiting.next_due(self.turn))
    }

    fn amended(&self) -> u64 {
        self.amended
    }

    fn peek(&mut self) -> Result<Option<Flow>> {
        let mut out = Vec::new();
        let telling = Telling::now(self.watermark, false);
        if let Some(hop) = self.panes {
            for span in self.open_windows(SHOWN_WINDOWS, hop) {
                self.say_merged(span, None, telling, &mut out)?;
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

    fn gather(&mut self, room: &mut usize) -> Result<()> {
        self.take_noted(room)
    }

    fn capture(&mut self) -> Result<Option<CapturedOperator>> {
        self.take_capture().map(Some)
    }

    fn capture_anew(&mut self) {
        self.end_noting();
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
