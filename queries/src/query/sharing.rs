//! A query that shares its window with others: how it comes to it, what it takes from it, how it leaves it.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use datafusion::common::Result;

use super::{Output, Passed, Query};
use crate::capture::{CapturedOperator, CapturedQuery, Member, Renewal, next_operator};
use crate::operator::Context;
use crate::pipeline::{Pipeline, brought_forward};
use crate::row::Rows;
use crate::shared_window::{Part, Share, SharedWindow, locked};

impl Query {
    /// The window that it shares, if it does.
    pub(crate) fn shared_window(&self) -> Option<&Arc<Mutex<SharedWindow>>> {
        self.share.as_ref().map(|share| &share.window)
    }

    /// Its operators where the window is among them: those of a query that is alone.
    pub(crate) fn pipeline(&self) -> &Pipeline {
        &self.compiled.pipeline
    }

    /// The same to change it.
    pub(crate) fn pipeline_mut(&mut self) -> &mut Pipeline {
        &mut self.compiled.pipeline
    }

    /// Takes its part of what the shared window has said in this step; rows went in that many.
    pub(crate) fn push_shared(&mut self, passed: Passed, lag_us: i64, context: &mut Context<'_>) -> Vec<Output> {
        self.cost.rows_in += passed.rows;
        let outputs = self.guarded(context, |query, context, out| {
            query.take_shared(context, out)?;
            brought_forward(out, lag_us);
            Ok(())
        });
        self.measure(passed, &outputs);
        outputs
    }

    /// So many rows went into the shared window, which has said nothing.
    pub(crate) fn push_silently(&mut self, passed: Passed) {
        self.cost.rows_in += passed.rows;
        self.measure(passed, &[]);
    }

    pub(super) fn take_shared(&mut self, context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        match &self.share {
            Some(share) => locked(&share.window).tell(&share.part, &mut self.compiled.pipeline, context, out),
            None => Ok(()),
        }
    }

    pub(super) fn peek_shared(&mut self, context: &mut Context<'_>) -> Result<Option<Vec<Rows>>> {
        let Some(share) = &self.share else { return Ok(None) };
        let Some(flow) = share.peek()? else { return Ok(None) };
        let mut out = Vec::new();
        if flow.num_rows() > 0 {
            self.compiled.pipeline.take(Rows::Many(flow), context, &mut out)?;
        }
        Ok(Some(out))
    }

    /// What each of its operators must remember, with its number, the shared window among them, and the rows that wait.
    pub(super) fn parts(&mut self) -> Result<Vec<(usize, RecordBatch)>> {
        let mut parts = Vec::new();
        if let (Some(share), Some(number)) = (&self.share, self.compiled.pipeline.taken_out()) {
            parts.extend(share.snapshot()?.map(|part| (number, part)));
        }
        parts.extend(self.compiled.pipeline.snapshot()?);
        parts.extend(self.waiting.parts()?);
        Ok(parts)
    }

    /// Which operators it consists of, and what has changed in these since the last capture. `windows` are the shared
    /// ones that were captured before it; `renewal` says which operators begin anew in the next capture.
    pub(crate) fn capture(
        &mut self,
        renewal: &mut Renewal,
        windows: &mut Vec<(Arc<Mutex<SharedWindow>>, u64)>,
        operators: &mut Vec<CapturedOperator>,
    ) -> Result<CapturedQuery> {
        let mut members = Vec::new();
        if let Some(reason) = self.broken() {
            // What it kept is of no use: it begins anew.
            return Ok(CapturedQuery::new(
                self.name(),
                Self::fingerprint_of_stopped(reason),
                members,
            ));
        }
        if let (Some(share), Some(number)) = (&self.share, self.compiled.pipeline.taken_out()) {
            let known = windows.iter().find(|(window, _)| Arc::ptr_eq(window, &share.window));
            let operator = match known {
                Some((_, operator)) => Some(*operator),
                None => {
                    let captured = locked(&share.window).capture(renewal)?;
                    let operator = captured.as_ref().map(|captured| captured.operator);
                    windows.extend(operator.map(|operator| (Arc::clone(&share.window), operator)));
                    operators.extend(captured);
                    operator
                }
            };
            members.extend(operator.map(|operator| Member {
                number,
                operator,
                part: Some((share.part.keys().to_vec(), share.part.calls().to_vec())),
            }));
        }
        for (number, captured) in self.compiled.pipeline.capture(renewal)? {
            members.push(Member {
                number,
                operator: captured.operator,
                part: None,
            });
            operators.push(captured);
        }
        // All of them each time: they are few, and wait for a moment.
        for (number, rows) in self.waiting.parts()? {
            let captured = CapturedOperator::whole(next_operator(), rows);
            members.push(Member {
                number,
                operator: captured.operator,
                part: None,
            });
            operators.push(captured);
        }
        Ok(CapturedQuery::new(self.name(), self.fingerprint(), members))
    }

    /// Takes what has changed since the last capture, about `room` rows, ahead of the next one.
    pub(crate) fn gather(&mut self, room: &mut usize) -> Result<()> {
        if self.broken().is_some() {
            return Ok(());
        }
        if let Some(share) = &self.share {
            locked(&share.window).pipeline_mut().gather(room)?;
        }
        self.compiled.pipeline.gather(room)
    }

    /// The next capture is to hold everything.
    pub(crate) fn capture_anew(&mut self) {
        if let Some(share) = &self.share {
            locked(&share.window).pipeline_mut().capture_anew();
        }
        self.compiled.pipeline.capture_anew();
    }

    /// Has a part of `window` from now on instead of a window of its own, which is given back.
    pub(crate) fn share(&mut self, window: &Arc<Mutex<SharedWindow>>, part: Part) -> Option<Pipeline> {
        let own = self.compiled.pipeline.take_out()?;
        self.share = Some(Share::new(window, part));
        self.due = self.compiled.pipeline.next_due();
        Some(own)
    }

    /// Has a window of its own again, which holds what its part of the shared one does.
    ///
    /// # Errors
    /// When the state can't be read or written; it still shares the window then.
    pub(crate) fn run_alone(&mut self) -> Result<()> {
        let Some(share) = &self.share else { return Ok(()) };
        let alone = {
            let mut window = locked(&share.window);
            let Some(operator) = window.pipeline_mut().window_mut() else {
                return Ok(());
            };
            let mut own = operator.anew(share.part.plan(operator.plan()))?;
            if !operator.is_untouched() {
                own.restore(&operator.keep_part(share.part.keys(), share.part.calls())?)?;
            }
            window.pipeline().with_window(own)
        };
        if let Some(alone) = alone {
            self.cost.amended_before += share.amended();
            self.compiled.pipeline.put_back(alone);
            self.share = None;
            self.due = i64::MIN;
        }
        Ok(())
    }

    /// Takes over the part of a shared window that the query had in whose place it comes, if it means the same: its own
    /// window holds what that one does, and so need not run beside it.
    pub(crate) fn share_in_place_of(&mut self, before: &Self) {
        let Some(share) = &before.share else { return };
        if before.broken.is_some() || before.fingerprint() != self.fingerprint() {
            return;
        }
        let part = {
            let shared = locked(&share.window);
            let is_same = self.compiled.pipeline.begins_like(shared.pipeline());
            let plans = self.compiled.pipeline.window().zip(shared.pipeline().window());
            plans
                .filter(|_| is_same)
                .and_then(|(own, shared)| Part::of(own.plan(), shared.plan()))
        };
        if let Some(part) = part {
            self.share(&Arc::clone(&share.window), part);
        }
    }
}
