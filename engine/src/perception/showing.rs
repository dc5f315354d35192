//! What of perception is shown as it stands: counts of zones, states of seats, and at steps of time what anybody may see.

use std::sync::Arc;

use usher_queries::query::Output;
use usher_queries::row::Rows;

use super::Perception;
use crate::public::Answers;
use crate::seats::SEAT_STATE;
use crate::zones::OCCUPANCY;

impl Perception {
    /// What the queries said of zones and seats goes to those who keep it.
    pub(super) fn keep(&mut self, outputs: &[Output]) {
        let places = Arc::clone(&self.places);
        for output in outputs {
            match output.query.as_ref() {
                OCCUPANCY => self.count(&output.rows),
                SEAT_STATE => self.seats.take(&output.rows, &places),
                _ => {}
            }
        }
    }

    /// Takes counts of zones. What was known at a step of public answers is what came before it, whatever else comes in the
    /// same batch.
    fn count(&mut self, rows: &Rows) {
        let places = Arc::clone(&self.places);
        let mut from = 0;
        for row in 0..rows.len() {
            if self.public.is_due(rows.watermark(row)) {
                self.zones.take(rows, from..row, &places);
                from = row;
                self.put_up(rows.watermark(row));
            }
        }
        self.zones.take(rows, from..rows.len(), &places);
    }

    /// Puts public answers up, where a watermark has reached the next step.
    fn put_up(&mut self, watermark_us: i64) {
        if self.public.is_due(watermark_us) {
            self.public.put_up(watermark_us, &self.zones, &self.places);
        }
    }

    /// The same behind all that was said, and rows of measures up to where queries have said everything.
    pub(super) fn put_all_up(&mut self) {
        self.put_up(self.observing.watermark());
        let reached_us = self.queries.reached().unwrap_or(i64::MIN);
        self.public.settle(reached_us, &self.measures, &self.queries);
    }

    /// Everything that anybody may see.
    pub fn public_answers(&self) -> Answers {
        self.public.answers(&self.places, &self.queries)
    }
}
