//! Receivers that fail in every way, on a clock that the tests move.

mod erased;
mod hiccup;
mod repeated;
mod spoilt;
mod unsynced;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use usher_connectors::BoxFuture;

use super::journal::Journal;
use super::news::News;
use super::receiver::{Receiver, ReceiverOptions, Sender, Sent};
use super::step::tests::alert;
use super::step::{StepId, StepNames, Told};
use crate::alert::State;
use crate::clock::Clock;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const HOUR: Duration = Duration::from_secs(3600);
const OPTIONS: ReceiverOptions = ReceiverOptions {
    max_in_flight: 4,
    give_up_after: HOUR,
    dead_letters_max: 3,
    in_memory_max: 2_000,
};

/// A clock that stands still until a test has it go on.
struct Moved {
    state: Mutex<(Instant, Sleepers)>,
    number: AtomicUsize,
}

/// Who sleeps, by until when.
type Sleepers = BTreeMap<(Instant, usize), oneshot::Sender<()>>;

impl Moved {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new((Instant::now(), BTreeMap::new())),
            number: AtomicUsize::new(0),
        })
    }

    /// Goes on to when somebody has to be woken; false when nobody sleeps.
    fn go_on(&self) -> bool {
        let mut state = self.state.lock().expect("nobody panics");
        let (now, sleepers) = &mut *state;
        // Who has lost patience is not waited for.
        sleepers.retain(|_, sleeper| !sleeper.is_closed());
        let Some(((at, _), sleeper)) = sleepers.pop_first() else {
            return false;
        };
        *now = at.max(*now);
        let _ = sleeper.send(());
        true
    }
}

impl Clock for Moved {
    fn now(&self) -> Instant {
        self.state.lock().expect("nobody panics").0
    }

    fn wall_us(&self) -> i64 {
        1_000_000
    }

    fn spread(&self) -> f64 {
        rand::random()
    }

    fn sleep_until(&self, until: Instant) -> BoxFuture<'static, ()> {
        let mut state = self.state.lock().expect("nobody panics");
        if until <= state.0 {
            return Box::pin(std::future::ready(()));
        }
        let (sender, receiver) = oneshot::channel();
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        state.1.insert((until, number), sender);
        Box::pin(async move {
            let _ = receiver.await;
        })
    }
}

/// What the other end answers to a step.
type Script = dyn Fn(&Told) -> Option<Sent> + Send + Sync;

/// A receiver of the test's own: it writes down what it was sent, and answers as it was told to; `None` is no answer.
#[derive(Clone)]
struct Fake {
    clock: Arc<Moved>,
    script: Arc<Script>,
    tries: Arc<Mutex<Vec<(Instant, Told)>>>,
    taken: Arc<Mutex<Vec<Told>>>,
}

impl Fake {
    fn new(clock: &Arc<Moved>, script: impl Fn(&Told) -> Option<Sent> + Send + Sync + 'static) -> Self {
        Self {
            clock: Arc::clone(clock),
            script: Arc::new(script),
            tries: Arc::default(),
            taken: Arc::default(),
        }
    }

    fn taken(&self) -> Vec<Told> {
        self.taken.lock().expect("nobody panics").clone()
    }

    fn tries(&self) -> Vec<(Instant, Told)> {
        self.tries.lock().expect("nobody panics").clone()
    }
}

impl Sender for Fake {
    fn kind(&self) -> &'static str {
        "fake"
    }

    fn address(&self) -> String {
        "here".to_owned()
    }

    fn wants(&self, news: &News) -> bool {
        news.alert().and_then(|alert| alert.zone.as_deref()) != Some("unwanted")
    }

    fn send(&self, step: Arc<Told>) -> BoxFuture<'_, Sent> {
        Box::pin(async move {
            let now = self.clock.now();
            self.tries.lock().expect("nobody panics").push((now, (*step).clone()));
            // As long as a network would take.
            self.clock.sleep_until(now + Duration::from_millis(2)).await;
            let Some(sent) = (self.script)(&step) else {
                return std::future::pending().await;
            };
            if sent == Sent::Done {
                self.taken.lock().expect("nobody panics").push((*step).clone());
            }
            sent
        })
    }
}

fn done(_: &Told) -> Option<Sent> {
    Some(Sent::Done)
}

fn later() -> Option<Sent> {
    Some(Sent::Later {
        reason: "it answered 500".to_owned(),
        peace: None,
    })
}

/// A journal, what tells it steps, and the receivers that run on it.
struct House {
    clock: Arc<Moved>,
    journal: Arc<Journal>,
    names: StepNames,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl House {
    fn open(dir: &std::path::Path, keep: u64) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self {
            clock: Moved::new(),
            journal: Journal::open(dir, keep, 10_000)?,
            names: StepNames::default(),
            stop: CancellationToken::new(),
            tasks: Vec::new(),
        })
    }

    fn receiver(&mut self, name: &str, fake: &Fake) -> Result<Arc<Receiver>, Box<dyn std::error::Error>> {
        let fake = Box::new(Fake {
            clock: Arc::clone(&self.clock),
            ..fake.clone()
        });
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<_>;
        let receiver = Arc::new(Receiver::join(name, fake, OPTIONS, &self.journal, clock)?);
        let (running, stop) = (Arc::clone(&receiver), self.stop.clone());
        self.tasks.push(tokio::spawn(async move { running.run(stop).await }));
        Ok(receiver)
    }

    /// The alert of that number, about one of ten zones.
    fn tell(&mut self, number: usize) {
        self.tell_of(number, &format!("zone-{}", number % 10));
    }

    fn tell_of(&mut self, number: usize, zone: &str) {
        let alert = alert(&format!("a{number}"), zone, State::Active);
        let id = self.names.name(&alert);
        self.journal.tell(id, News::from(&alert), 1_000_000, None);
    }

    /// Lets everybody do what there is to do, and then the clock go on, until it is so.
    async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "waited for {what}");
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            if self.journal.is_reading() || !self.clock.go_on() {
                // Somebody waits for the disk, which has a time of its own.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Lets so much time go by.
    async fn pass(&self, time: Duration) {
        let end = self.clock.now() + time;
        let _sleeper = tokio::spawn(self.clock.sleep_until(end));
        self.until("time to go by", || self.clock.now() >= end).await;
    }

    async fn close(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.expect("no receiver panics");
        }
        self.journal.close();
    }
}

fn ids(steps: &[Told]) -> HashSet<StepId> {
    steps.iter().map(|step| step.id).collect()
}

fn assert_in_order_for_a_subject(steps: &[Told]) {
    let mut last = HashMap::new();
    for step in steps {
        let before = last.insert(step.subject, step.number);
        assert!(before < Some(step.number), "{} came after {before:?}", step.number);
    }
}

#[tokio::test]
async fn a_receiver_that_is_away_for_an_hour_gets_everything_once_and_in_order_and_is_hardly_bothered() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let (clock, back) = (Arc::clone(&house.clock), house.clock.now() + HOUR);
    let away = Fake::new(&house.clock, move |_| {
        if clock.now() < back { later() } else { Some(Sent::Done) }
    });
    let there = Fake::new(&house.clock, done);
    let receiver = house.receiver("away", &away)?;
    house.receiver("there", &there)?;
    for number in 0..400 {
        house.tell(number);
    }
    house.until("the other", || there.taken().len() == 400).await;
    assert!(house.clock.now() < back, "the one that is there waits for nobody");
    assert_in_order_for_a_subject(&there.taken());
    house.until("the breaker", || receiver.view().state == "open").await;
    assert!(receiver.view().words.contains("tries in a row failed"));
    assert_eq!((receiver.view().waiting, receiver.view().dead), (400, 0));
    house.until("all of it", || receiver.waiting() == 0).await;
    let taken = away.taken();
    assert_eq!((taken.len(), ids(&taken).len()), (400, 400));
    assert_in_order_for_a_subject(&taken);
    let while_away = away.tries().iter().filter(|(at, _)| *at < back).count();
    assert!(while_away < 150, "{while_away} tries in an hour");
    let view = receiver.view();
    assert_eq!((view.state, view.waiting, view.sent, view.dead), ("closed", 0, 400, 0));
    house.close().await;
    Ok(())
}

#[tokio::test]
async fn one_that_is_back_is_told_at_once_of_all_that_waited() -> Outcome {
    const SUBJECTS: usize = 4;
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let (clock, back) = (Arc::clone(&house.clock), house.clock.now() + HOUR);
    let fake = Fake::new(&house.clock, move |_| {
        if clock.now() < back { later() } else { Some(Sent::Done) }
    });
    let receiver = house.receiver("away", &fake)?;
    for number in 0..3 * SUBJECTS {
        house.tell_of(number, &format!("zone-{}", number % SUBJECTS));
    }
    house.until("all of it", || receiver.waiting() == 0).await;
    let tries = fake.tries();
    let taken: Vec<Instant> = tries.iter().map(|(at, _)| *at).filter(|at| *at >= back).collect();
    assert_eq!(taken.len(), 3 * SUBJECTS);
    let took = taken[taken.len() - 1] - taken[0];
    assert!(took < Duration::from_secs(1), "{took:?} from the first to the last");
    assert_in_order_for_a_subject(&fake.taken());
    house.close().await;
    Ok(())
}

#[tokio::test]
async fn so_many_steps_that_always_fail_that_the_breaker_opens_are_put_aside_all_the_same() -> Outcome {
    const BAD: usize = 6;
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let fake = Fake::new(&house.clock, |step| {
        if step.number < BAD as u64 {
            later()
        } else {
            Some(Sent::Done)
        }
    });
    let receiver = house.receiver("picky", &fake)?;
    for number in 0..BAD {
        house.tell_of(number, &format!("zone-{number}"));
    }
    let begun = house.clock.now();
    let mut good = 0;
    while receiver.view().dead < OPTIONS.dead_letters_max {
        assert!(house.clock.now() - begun < 8 * HOUR, "{:?}", receiver.view());
        house.tell_of(BAD + good, "another");
        good += 1;
        house.pass(Duration::from_secs(60)).await;
    }
    let taken = fake.taken().len();
    assert!(taken + 2 >= good, "{taken} of {good} others were taken");
    house.close().await;
    Ok(())
}

#[tokio::test]
async fn one_that_never_answers_holds_up_no_other() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let (silent, there) = (Fake::new(&house.clock, |_| None), Fake::new(&house.clock, done));
    let receiver = house.receiver("silent", &silent)?;
    house.receiver("there", &there)?;
    for number in 0..100 {
        house.tell(number);
    }
    house.until("the other", || there.taken().len() == 100).await;
    assert_eq!(
        silent.tries().len(),
        OPTIONS.max_in_flight,
        "no more are under way than may be"
    );
    assert_eq!(receiver.waiting(), 100);
    house.close().await;
    Ok(())
}

#[tokio::test]
async fn a_step_that_always_fails_holds_up_its_subject_and_is_put_aside_in_the_end() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&is_mended);
    let fake = Fake::new(&house.clock, move |step| {
        let fails = step.number == 13 && !mended.load(Ordering::Relaxed);
        if fails { later() } else { Some(Sent::Done) }
    });
    let receiver = house.receiver("picky", &fake)?;
    for number in 0..100 {
        house.tell(number);
    }
    house.until("the other subjects", || fake.taken().len() == 91).await;
    let begun = house.clock.now();
    assert!(receiver.view().state == "closed", "one step is not the receiver");
    // While nothing else passes, it may be the receiver that fails; so something passes now and then.
    let mut number = 1_000;
    while receiver.view().dead == 0 {
        assert!(house.clock.now() - begun < 3 * HOUR, "it is not put aside");
        house.tell_of(number, "another");
        number += 1;
        house.pass(Duration::from_secs(60)).await;
    }
    let passed = house.clock.now() - begun;
    assert!(passed >= HOUR / 2, "{passed:?} is no hour");
    house.until("those behind it", || receiver.waiting() == 0).await;
    let letters = receiver.dead_letters();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].reason.starts_with("given up after") && letters[0].reason.ends_with("it answered 500"));
    assert!(letters[0].tries >= 8 && !letters[0].resent);

    // It is there after a restart, and goes out when somebody says so.
    let taken = fake.taken().len();
    drop(receiver);
    house.close().await;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let receiver = house.receiver("picky", &fake)?;
    let letters = receiver.dead_letters();
    assert_eq!((letters.len(), receiver.waiting()), (1, 0));
    is_mended.store(true, Ordering::Relaxed);
    assert_eq!(receiver.resend(Some(letters[0].id.parse()?)), 1);
    house.until("the letter", || receiver.view().dead == 0).await;
    assert_eq!(fake.taken().len(), taken + 1, "nothing else came again");
    assert_eq!(
        fake.taken().last().map(|step| step.id.to_string()),
        Some(letters[0].id.clone())
    );
    assert_eq!(receiver.resend(None), 0);
    house.close().await;
    Ok(())
}

#[tokio::test]
async fn what_is_refused_is_put_aside_at_once_until_there_are_too_many_and_none_is_lost() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let fake = Fake::new(&house.clock, |_| Some(Sent::Refused("it answered 422".to_owned())));
    let receiver = house.receiver("picky", &fake)?;
    for number in 0..5 {
        house.tell(number);
    }
    house
        .until("the letters", || {
            receiver.view().dead == 3 && receiver.view().failed >= 5
        })
        .await;
    assert_eq!(receiver.waiting(), 2, "there is room for three; the others wait");
    let letters = receiver.dead_letters();
    assert_eq!(letters[0].reason, "it answered 422");
    let first: StepId = letters[0].id.parse()?;
    assert!(receiver.discard(first) && !receiver.discard(first));
    house.until("the next", || receiver.view().dead == 3).await;
    assert_eq!(receiver.waiting(), 1, "one of those that waited has taken the room");
    // Of one that is resent and refused again, nothing is doubled.
    let again: StepId = receiver.dead_letters()[0].id.parse()?;
    assert_eq!(receiver.resend(Some(again)), 1);
    house
        .until("the answer", || {
            receiver.dead_letters().iter().all(|letter| !letter.resent)
        })
        .await;
    let letters = receiver.dead_letters();
    assert_eq!((letters.len(), letters[0].tries), (3, 2), "{letters:?}");
    house.close().await;
    Ok(())
}

#[tokio::test]
async fn after_a_restart_nothing_that_was_confirmed_comes_again_and_nothing_is_missing() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    // Subjects 3 and 7 get stuck, so that much is settled out of turn.
    let stuck = |step: &Told| {
        matches!(
            step.news.alert().and_then(|alert| alert.zone.as_deref()),
            Some("zone-3" | "zone-7")
        )
    };
    let fake = Fake::new(
        &house.clock,
        move |step| if stuck(step) { later() } else { Some(Sent::Done) },
    );
    let first = house.receiver("one", &fake)?;
    house.tell_of(9_999, "unwanted");
    for number in 0..200 {
        house.tell(number);
    }
    house.until("what goes", || fake.taken().len() == 160).await;
    assert_eq!(first.waiting(), 40);
    drop(first);
    house.close().await;

    let mut house = House::open(folder.path(), u64::MAX)?;
    let second = Fake::new(&house.clock, done);
    let receiver = house.receiver("one", &second)?;
    // The log is gone through again, which tells the same, and then something new.
    house.tell_of(9_999, "unwanted");
    for number in 0..210 {
        house.tell(number);
    }
    house.until("the rest", || receiver.waiting() == 0).await;
    let (before, after) = (fake.taken(), second.taken());
    assert_eq!((before.len(), after.len()), (160, 50));
    assert!(ids(&before).is_disjoint(&ids(&after)), "nothing came twice");
    assert_in_order_for_a_subject(&after);
    house.close().await;
    Ok(())
}

#[tokio::test]
async fn what_waits_lies_on_disk_and_not_in_memory() -> Outcome {
    const STEPS: usize = 5_000;
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let is_back = Arc::new(AtomicBool::new(false));
    let back = Arc::clone(&is_back);
    let fake = Fake::new(&house.clock, move |_| {
        let is_back = back.load(Ordering::Relaxed);
        if is_back { Some(Sent::Done) } else { later() }
    });
    let receiver = house.receiver("away", &fake)?;
    for number in 0..STEPS {
        house.tell(number);
        house.journal.room().await;
    }
    house.until("the disk", || house.journal.in_memory() <= 2_000).await;
    assert_eq!(receiver.waiting(), STEPS as u64);
    assert!(receiver.in_memory() <= 2_300, "{} numbers", receiver.in_memory());
    assert_eq!(
        receiver.view().waiting_since.as_deref(),
        Some("1970-01-01T00:00:01Z"),
        "it is known of a step on disk as well"
    );
    is_back.store(true, Ordering::Relaxed);
    house.until("all of it", || receiver.waiting() == 0).await;
    let taken = fake.taken();
    assert_eq!((taken.len(), ids(&taken).len()), (STEPS, STEPS));
    assert_in_order_for_a_subject(&taken);
    house.close().await;
    Ok(())
}

#[tokio::test]
async fn beyond_what_may_be_kept_the_oldest_are_dropped_and_counted() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), 2_000)?;
    let is_back = Arc::new(AtomicBool::new(false));
    let back = Arc::clone(&is_back);
    let fake = Fake::new(&house.clock, move |_| {
        let is_back = back.load(Ordering::Relaxed);
        if is_back { Some(Sent::Done) } else { later() }
    });
    let receiver = house.receiver("away", &fake)?;
    for number in 0..10_000 {
        house.tell(number);
        house.journal.room().await;
    }
    house.until("the disk", || house.journal.in_memory() <= 2_000).await;
    house.until("the loss", || receiver.view().lost > 7_000).await;
    is_back.store(true, Ordering::Relaxed);
    house.until("what is left", || receiver.waiting() == 0).await;
    let taken = fake.taken();
    assert_eq!(taken.len() as u64 + receiver.view().lost, 10_000);
    assert_eq!(
        taken.iter().map(|step| step.number).max(),
        Some(9_999),
        "the newest are kept"
    );
    assert_in_order_for_a_subject(&taken);
    house.close().await;
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_asks_for_peace_is_left_alone_so_long() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let (clock, begun) = (Arc::clone(&house.clock), house.clock.now());
    let fake = Fake::new(&house.clock, move |_| {
        if clock.now() - begun > Duration::from_secs(60) {
            return Some(Sent::Done);
        }
        Some(Sent::Later {
            reason: "it answered 429".to_owned(),
            peace: Some(Duration::from_secs(90)),
        })
    });
    let receiver = house.receiver("busy", &fake)?;
    for number in 0..20 {
        house.tell(number);
    }
    house.until("all of it", || receiver.waiting() == 0).await;
    let tries = fake.tries();
    assert_eq!(
        tries.len(),
        20 + OPTIONS.max_in_flight,
        "only what was under way had to be sent again"
    );
    let waits = tries.windows(2).map(|pair| pair[1].0 - pair[0].0).max();
    assert!(waits >= Some(Duration::from_secs(89)), "{waits:?}");
    house.close().await;
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_is_new_begins_with_what_comes_and_one_that_is_gone_keeps_nothing() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let silent = Fake::new(&house.clock, |_| None);
    house.receiver("old", &silent)?;
    for number in 0..10 {
        house.tell(number);
    }
    house.close().await;
    let mut house = House::open(folder.path(), u64::MAX)?;
    assert_eq!(house.journal.forget_others(&["new"])?, [("old".to_owned(), 10)]);
    let fake = Fake::new(&house.clock, done);
    let receiver = house.receiver("new", &fake)?;
    house.tell(10);
    house
        .until("the new one", || receiver.view().sent == 1 && receiver.waiting() == 0)
        .await;
    assert_eq!(fake.taken()[0].number, 10);
    house.close().await;
    Ok(())
}

#[tokio::test]
async fn what_a_loss_of_power_takes_from_the_disk_is_in_the_checkpoint() -> Outcome {
    let (whole, torn) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut house = House::open(whole.path(), u64::MAX)?;
    let silent = Fake::new(&house.clock, |_| None);
    house.receiver("one", &silent)?;
    // The writer has had no time to sync these.
    for number in 0..50 {
        house.tell(number);
    }
    let (next, steps) = house.journal.not_durable();
    assert_eq!((next, steps.len()), (50, 50));
    house.close().await;
    // A disk that has forgotten all of it.
    let mut house = House::open(torn.path(), u64::MAX)?;
    let fake = Fake::new(&house.clock, done);
    let receiver = house.receiver("one", &fake)?;
    house
        .journal
        .take_up(next, steps.iter().map(|step| (**step).clone()).collect());
    house
        .journal
        .take_up(next, steps.iter().map(|step| (**step).clone()).collect());
    for number in 0..51 {
        house.tell(number);
    }
    house.until("all of it", || receiver.waiting() == 0).await;
    assert_eq!(fake.taken().len(), 51, "each once, and the one that came after");
    assert_eq!(ids(&fake.taken()).len(), 51);
    house.close().await;
    Ok(())
}

#[tokio::test]
async fn up_to_where_the_log_is_told_is_known_after_a_restart() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    assert_eq!(house.journal.told_until()?, None);
    house.tell(1);
    house.journal.mark_told_until(41);
    house.journal.mark_told_until(42);
    house.close().await;
    let house = House::open(folder.path(), u64::MAX)?;
    assert_eq!(house.journal.told_until()?, Some(42));
    house.close().await;
    Ok(())
}
