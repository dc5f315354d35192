//! How the pipeline saves its state without holding up events: most of it is taken ahead, in turns, and written elsewhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use usher_connectors::log::Offset;

use super::Pipeline;
use crate::clock::since;
use crate::messages::MessageView;
use crate::settler::Captured;

/// How long a turn may hold up events, at first.
const TURN: Duration = Duration::from_micros(300);
/// How long when much comes in between and the end does not come nearer.
const LONGEST_TURN: Duration = Duration::from_millis(1);
/// After so many turns they get longer.
const TURNS_EACH: u32 = 16;
/// After so many turns fewer messages are taken between two of them, and ever fewer after each further so many: where more
/// changes between two turns than one takes there would be no end.
const TURNS_BEFORE_FEWER: u32 = 128;
/// Behind these turns one takes rows even if that lasts longer than it may: where others have the cores, a turn's time is over
/// before much was done in it, the end would never come nearer, and what was taken, much of it again and again, would fill the
/// memory. So many turns behind, it is a row for each so long that it may last; sooner fewer, and later more.
const ROW_IN: Duration = Duration::from_micros(2);
/// See [`ROW_IN`]. Most checkpoints under load end long before, and their turns last no longer than they may.
const TURNS_BEFORE_ROW_IN: u32 = 512;
/// So many messages are taken between two turns all the same.
const MESSAGES_MIN: usize = 16;
/// After so many turns the cut is made though a window is still being said, and what was said of it is part of the cut.
const TURNS_FOR_WORK: u32 = 256;
/// How long taking rows should last between two looks at the clock: some rows are a number, some are a sketch of 16 KiB.
const PART: Duration = Duration::from_micros(40);
/// Rows taken between two looks at the clock, at least.
const ROWS_MIN: usize = 16;
/// Rows taken between two looks at the clock, at most: behind rows that take 30 ns come others that take 8 µs.
const ROWS_MAX: usize = 256;
/// How long a checkpoint waits for a window that is being said: its groups need not be taken once they were said, and what was
/// said of it would be part of the cut.
const WINDOW_FIRST: Duration = Duration::from_secs(1);

/// When the state is saved, and how far that is.
pub(super) struct Saving {
    every: Duration,
    last: Instant,
    last_at: Offset,
    /// Rows taken between two looks at the clock, as the last ones suggest.
    rows: usize,
    gathering: Option<Gathering>,
    /// Whether no messages were taken since the last turn.
    was_turn: bool,
    /// Who waits for a checkpoint beside which no other is left.
    alone: Vec<AloneSender>,
}

/// Who is told how it went.
pub(crate) type AloneSender = oneshot::Sender<Result<u64, String>>;

/// A checkpoint for which state is being taken.
#[derive(Default)]
struct Gathering {
    turns: u32,
    /// The longest turn, and the rows taken in it.
    longest: (Duration, usize),
    /// Whether the last turn took all there was.
    was_all_taken: bool,
    /// Who waits for it to be the only one.
    alone: Vec<AloneSender>,
}

impl Gathering {
    /// Rows that this turn takes at least, which may last so long.
    fn rows_min(&self, turn: Duration) -> usize {
        let behind = self.turns.saturating_sub(TURNS_BEFORE_FEWER);
        let rows = turn.as_micros() / ROW_IN.as_micros() * u128::from(behind) / u128::from(TURNS_BEFORE_ROW_IN);
        usize::try_from(rows).unwrap_or(usize::MAX)
    }
}

impl Saving {
    pub(super) fn every(every: Duration, now: Instant) -> Self {
        Self {
            every,
            last: now,
            last_at: Offset(0),
            rows: ROWS_MIN,
            gathering: None,
            was_turn: false,
            alone: Vec::new(),
        }
    }

    /// How often the state is saved.
    pub(super) fn every_so_long(&self) -> Duration {
        self.every
    }

    /// The next checkpoint is to be the only one.
    pub(super) fn wait_alone(&mut self, sender: AloneSender) {
        self.alone.push(sender);
    }

    pub(super) fn is_gathering(&self) -> bool {
        self.gathering.is_some()
    }

    /// Whether there was a turn and no messages were taken since.
    pub(super) fn was_turn(&self) -> bool {
        self.was_turn
    }

    /// Messages had their turn.
    pub(super) fn messages_taken(&mut self) {
        self.was_turn = false;
    }

    /// How many messages may be taken at once, of `batch` at most: fewer while a checkpoint that is being taken does not
    /// come to its end. So no turn of it, and no cut, has to be long.
    pub(super) fn messages_max(&self, batch: usize) -> usize {
        let turns = self.gathering.as_ref().map_or(0, |gathering| gathering.turns);
        let halved = (turns / TURNS_BEFORE_FEWER).min(usize::BITS - 1);
        (batch >> halved).max(MESSAGES_MIN.min(batch))
    }
}

impl Pipeline {
    /// Begins a checkpoint when it is time, something is new, and the one before is saved.
    pub(super) fn begin_saving(&mut self) {
        let is_new = self.log.next() != self.saving.last_at;
        let first = if self.perception.has_work() {
            WINDOW_FIRST
        } else {
            Duration::ZERO
        };
        let is_due = since(self.clock.as_ref(), self.saving.last) >= self.saving.every + first;
        let is_alone = !self.saving.alone.is_empty();
        let is_wanted = is_new && is_due || is_alone;
        if is_wanted && !self.saving.is_gathering() && !self.settler.is_saving() {
            self.saving.last = self.clock.now();
            if is_alone {
                // It must not go on behind what was saved before.
                self.perception.capture_anew();
            }
            self.saving.gathering = Some(Gathering {
                alone: std::mem::take(&mut self.saving.alone),
                ..Gathering::default()
            });
        }
    }

    /// A turn of taking what has changed; when nothing is left the state of that moment is handed over.
    pub(super) async fn gather(&mut self) {
        let Some(mut gathering) = self.saving.gathering.take() else {
            return;
        };
        self.saving.was_turn = true;
        let clock = Arc::clone(&self.clock);
        let begun = clock.now();
        let turn = (TURN * (1 + gathering.turns / TURNS_EACH)).min(LONGEST_TURN);
        let (mut is_all_taken, mut taken, least) = (false, 0, gathering.rows_min(turn));
        while !is_all_taken && (taken < least || since(clock.as_ref(), begun) < turn) {
            let part = clock.now();
            let wanted = self.saving.rows.max(least.saturating_sub(taken));
            let mut room = wanted;
            if let Err(cause) = self.perception.gather(&mut room) {
                self.could_not_capture(&cause);
                return;
            }
            is_all_taken = room > 0;
            taken += wanted - room;
            let took = since(clock.as_ref(), part);
            if wanted > self.saving.rows {
                // Nothing is learnt of how many fit into a part.
            } else if took > 2 * PART {
                self.saving.rows = (self.saving.rows / 2).max(ROWS_MIN);
            } else if took < PART / 2 && !is_all_taken {
                self.saving.rows = (self.saving.rows * 2).min(ROWS_MAX);
            }
        }
        gathering.turns += 1;
        // The cut takes some time itself: where this turn had much to take, events come first once more. And of a window that
        // is being said, what was said of it would have to be listed.
        let is_early = since(clock.as_ref(), begun) < turn / 2;
        let has_work = self.perception.has_work() && gathering.turns < TURNS_FOR_WORK;
        if is_all_taken && !has_work && (is_early || gathering.was_all_taken) {
            self.save(begun, gathering).await;
        } else {
            gathering.was_all_taken = is_all_taken;
            let took = since(clock.as_ref(), begun);
            self.latencies.checkpoint_turn.record(took);
            gathering.longest = gathering.longest.max((took, taken));
            self.saving.gathering = Some(gathering);
        }
    }

    /// Hands the state of this moment to the settler, which saves it once all of it is durable. Events have waited since
    /// `begun`, and for the turns of `gathering` before. Who waits for it to be the only one is told by whoever saves it.
    async fn save(&mut self, begun: Instant, gathering: Gathering) {
        self.saving.last_at = self.log.next();
        // What queries still have to say of these records is not told yet, and neither is what waits for them to be durable.
        if !self.perception.has_work() && self.untold.is_empty() {
            self.outbox.mark_told_until(self.saving.last_at.0);
        }
        let capture = self.perception.capture().map(|mut capture| {
            let stands = |message: &&Arc<MessageView>| self.perception.messages.is_open(&message.person, &message.id);
            let messages = self.untold.sent().filter(stands).map(Arc::clone).collect();
            let alerts = self.untold.turns().map(Arc::clone).collect();
            capture.whole("outbox", self.outbox.capture(alerts, messages));
            let epoch = self.assignment.epoch();
            capture.whole("epoch", move || Ok(epoch.to_be_bytes().to_vec()));
            capture
        });
        let (last, (longest, rows)) = (since(self.clock.as_ref(), begun), gathering.longest);
        self.latencies.checkpoint_turn.record(last);
        self.latencies.checkpoint_pause.record(last.max(longest));
        tracing::debug!(
            turns = gathering.turns,
            longest_us = longest.as_micros(),
            rows_in_longest = rows,
            last_us = last.as_micros(),
            "the state of a checkpoint was taken"
        );
        match capture {
            Ok(capture) => {
                let captured = Captured {
                    capture,
                    next_offset: self.saving.last_at,
                    now_us: self.now_us,
                    alone: gathering.alone,
                };
                self.settler.save(captured).await;
            }
            Err(cause) => self.could_not_capture(&cause),
        }
    }

    /// Saves the state for the last time.
    pub(super) async fn save_last(&mut self) {
        if self.settler.is_saving() {
            // Whether that comes to something is not known yet; this one must not need it.
            self.perception.capture_anew();
        }
        self.save(self.clock.now(), Gathering::default()).await;
    }

    fn could_not_capture(&mut self, cause: &str) {
        tracing::error!(cause, "the state can't be saved; the log has it all the same");
        self.perception.capture_anew();
    }

    /// A state that was handed over was not saved.
    pub(crate) fn not_saved(&mut self) {
        self.perception.capture_anew();
        // Even where nothing is new since.
        self.saving.last_at = Offset(0);
    }
}
