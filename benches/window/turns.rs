//! Windows that are closed in turns while others come between these: what took longest.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use usher_queries::budget::Budget;
use usher_queries::flow::Flow;
use usher_queries::query_set::QuerySet;
use usher_queries::row::{Row, Rows};

use crate::many::TURN;

/// No more than one in a thousand took longer.
pub(crate) fn of_a_thousand(each: &mut [Duration]) -> Duration {
    each.sort_unstable();
    let at = each.len().saturating_sub(1 + each.len() / 1_000);
    each.get(at).copied().unwrap_or_default()
}

/// How long the machine itself makes others wait, for ten seconds each: a loop that does nothing but look at the clock, and one
/// that does as much as a turn and as such work does, reading memory here and there. No figure below that tells anything of
/// what was measured.
pub(crate) fn machine() {
    const STALL: Duration = Duration::from_micros(300);
    const EACH: Duration = Duration::from_secs(10);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let began = Instant::now();
    let (mut last, mut longest, mut stalls) = (began, Duration::ZERO, 0);
    while last.duration_since(began) < EACH {
        let now = Instant::now();
        let stood = now.duration_since(last);
        longest = longest.max(stood);
        stalls += usize::from(stood > STALL);
        last = now;
    }
    println!(
        "\nan idle loop of ten seconds stood still for {:.2} ms at most, {stalls} times for more than {} µs",
        ms(longest),
        STALL.as_micros()
    );
    let mut walk = Walk::new();
    let began = Instant::now();
    walk.on(STEPS_TRIED);
    let steps = STEPS_TRIED as f64 * TURN.as_secs_f64() / began.elapsed().as_secs_f64();
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < EACH {
        let started = Instant::now();
        walk.on(steps as usize);
        took.push(started.elapsed());
    }
    took.sort_unstable();
    println!(
        "reading here and there in {} MiB, the same each time: {:.2} ms at the median, {:.2} ms at 99.9 %, {:.2} ms at most of {}",
        (PLACES * size_of::<u32>()) >> 20,
        ms(took[took.len() / 2]),
        ms(of_a_thousand(&mut took)),
        ms(took.last().copied().unwrap_or_default()),
        took.len()
    );
}

/// Places that are walked through: more than the caches near a core have room for.
const PLACES: usize = 1 << 23;
/// Steps by which it is found out how many a turn has.
const STEPS_TRIED: usize = 1 << 16;

/// A walk through memory in which no place tells where the next one but one lies.
struct Walk {
    next: Vec<u32>,
    at: usize,
}

impl Walk {
    /// One circle through all places, drawn at random (Sattolo).
    fn new() -> Self {
        let mut next: Vec<u32> = (0..).take(PLACES).collect();
        let mut random = 7u64;
        for place in (1..PLACES).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            next.swap(place, (random >> 33) as usize % place);
        }
        Self { next, at: 0 }
    }

    fn on(&mut self, steps: usize) {
        for _ in 0..steps {
            self.at = self.next[self.at] as usize;
        }
        std::hint::black_box(self.at);
    }
}

/// The longest of each, and how many turns there were.
#[derive(Default)]
pub(crate) struct Longest {
    pub(crate) turn: Duration,
    /// Each turn.
    each: Vec<Duration>,
    /// Taking a single row.
    pub(crate) row: Duration,
    /// Taking a batch.
    pub(crate) batch: Duration,
    /// All turns of a window.
    pub(crate) whole: Duration,
    pub(crate) turns: usize,
}

impl Longest {
    /// No more than one turn in a thousand took longer.
    pub(crate) fn turn_999(&mut self) -> Duration {
        of_a_thousand(&mut self.each)
    }

    /// Moves time on to `end` in turns. After the turn with a number `between` gives what comes then, of which every third time
    /// all rows come at once, and else the first alone; it may look at the queries before.
    pub(crate) fn close(
        &mut self,
        queries: &mut QuerySet,
        end: i64,
        mut between: impl FnMut(usize, &mut QuerySet) -> RecordBatch,
    ) {
        let mut said = Vec::new();
        let began = Instant::now();
        queries.advance_within(end, Budget::lasting(TURN), &mut said);
        let mut turn = began.elapsed();
        // Looking at the queries is not among what is measured.
        let mut whole = turn;
        for number in 0.. {
            self.turn = self.turn.max(turn);
            self.each.push(turn);
            self.turns += 1;
            said.clear();
            if !queries.has_work() {
                break;
            }
            let rows = Flow::at_watermark(between(number, queries), end);
            let (rows, longest) = match number % 3 {
                0 => (Rows::Many(rows), &mut self.batch),
                _ => (Rows::One(Row::of(&rows, 0)), &mut self.row),
            };
            let started = Instant::now();
            queries.push("gate", &rows, &mut said);
            let took = started.elapsed();
            *longest = took.max(*longest);
            said.clear();
            let started = Instant::now();
            queries.work(Budget::lasting(TURN), &mut said);
            turn = started.elapsed();
            whole += took + turn;
        }
        self.whole = self.whole.max(whole);
    }
}
