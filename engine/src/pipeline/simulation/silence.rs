//! A silence on a disk that takes nothing: it waits to be told, and nothing else does.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use usher_connectors::delivery::{Ack, Delivery};
use usher_connectors::message::{Message, QoS};

use super::clock::SimClock;
use super::life::{Ground, Life};
use super::random::Random;
use super::receivers::Far;
use crate::clock::Clock;
use crate::fixture::NINE;

/// A house in which nothing fails by chance.
pub(super) struct House {
    runtime: Runtime,
    folder: TempDir,
    pub(super) ground: Ground,
    life: Option<Life>,
    lives: usize,
}

impl House {
    pub(super) fn open() -> Self {
        let clock = Arc::new(SimClock::new(NINE, Random::of(0, 1)));
        let ground = Ground {
            log: Arc::default(),
            shelf: Arc::default(),
            broker: Far::new(&clock, Random::of(0, 4)),
            hook: Far::new(&clock, Random::of(0, 5)),
            clock,
        };
        ground.broker.be_kind();
        ground.hook.be_kind();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let mut house = Self {
            runtime: runtime.expect("there is room for a runtime"),
            folder: tempfile::tempdir().expect("there is room for a folder"),
            ground,
            life: None,
            lives: 0,
        };
        house.begin();
        house
    }

    fn begin(&mut self) {
        self.ground.broker.live(self.lives);
        self.lives += 1;
        let life = Life::begin(&self.runtime, &self.ground, &self.folder.path().join("checkpoints"));
        self.life = Some(life);
    }

    pub(super) fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("it runs")
    }

    /// The disk loses what it had not taken, and the state has to be worked out from the log alone.
    pub(super) fn kill(&mut self) {
        let life = self.life.take().expect("it runs");
        life.crash(&self.runtime);
        self.ground.log.lose_all();
        let _ = std::fs::remove_dir_all(self.folder.path().join("checkpoints"));
        self.begin();
    }

    pub(super) fn pass(&mut self, zone: &str, entered: u32) {
        self.hear(&format!("{zone}/gate/{zone}-1"), &format!(r#""in":{entered}"#));
    }

    fn hear(&mut self, topic: &str, payload: &str) {
        let mut batch = vec![self.delivery(topic, payload)];
        self.take(&mut batch);
        self.wait(1);
    }

    /// A message that comes now.
    pub(super) fn delivery(&self, topic: &str, payload: &str) -> Delivery {
        let clock = &self.ground.clock;
        let (received_us, received) = (clock.wall_us(), clock.now());
        let (ack, _) = Ack::pair();
        let message = Message {
            topic: format!("usher/in/main/{topic}").into(),
            payload: format!(r#"{{"ts":{},{payload}}}"#, received_us / 1_000).into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            received_us,
            received,
        };
        Delivery { message, ack }
    }

    /// Messages are taken at once.
    pub(super) fn take(&mut self, batch: &mut Vec<Delivery>) {
        let life = self.life.as_mut().expect("it runs");
        self.runtime.block_on(life.walk(batch));
    }

    /// The disk takes all there is, and everybody does what there is to do.
    pub(super) fn turn(&mut self) {
        let life = self.life.as_mut().expect("it runs");
        self.ground.log.sync(usize::MAX);
        self.runtime.block_on(life.settle_down());
        self.runtime.block_on(life.turn());
        self.runtime.block_on(life.settle_down());
    }

    /// The engine runs by itself until it has taken all messages. Gives how many waited, and how often events had waited for a
    /// checkpoint, at each moment at which one of them was another.
    pub(super) fn run(&mut self, messages: Vec<Delivery>) -> Vec<(usize, u64)> {
        let life = self.life.as_mut().expect("it runs");
        let latencies = Arc::clone(&life.pipeline.latencies);
        let (sender, deliveries) = mpsc::channel(messages.len());
        for message in messages {
            sender.try_send(message).expect("there is room for all");
        }
        let mut seen = Vec::new();
        let watching = std::future::poll_fn(|context| {
            let waiting = sender.max_capacity() - sender.capacity();
            let now = (waiting, latencies.checkpoint_turn.percentiles().count);
            if seen.last() != Some(&now) {
                seen.push(now);
            }
            if waiting == 0 {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        });
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = life.run(deliveries) => {}
                () = watching => {}
            }
        });
        seen
    }

    fn look(&mut self, person: &str) {
        self.hear("web/click/opac", &format!(r#""person":"{person}","action":"view""#));
    }

    fn takes(&self) -> bool {
        self.life.as_ref().expect("it runs").takes()
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            let life = self.life.as_mut().expect("it runs");
            let end = self.ground.clock.now() + Duration::from_secs(1);
            while self.ground.clock.go_on(end) {
                self.runtime.block_on(life.settle_down());
            }
            self.turn();
        }
    }

    /// What the broker was told of a rule, each step once by its id: the states.
    fn told(&self, rule: &str) -> Vec<String> {
        let mut ids = HashSet::new();
        let taken = self.ground.broker.taken().into_iter();
        let of_rule = taken.filter(|taken| taken.alert["rule"] == rule && ids.insert(taken.id.clone()));
        of_rule
            .map(|taken| taken.alert["state"].as_str().unwrap_or("").to_owned())
            .collect()
    }

    fn stands(&mut self, rule: &str) -> bool {
        let open = self.life().pipeline.perception.alerts.open();
        open.iter()
            .any(|alert| &*alert.rule == rule && alert.state.is_standing())
    }
}

#[test]
fn a_silence_is_told_when_the_disk_takes_it_and_what_events_raise_at_once() {
    let mut house = House::open();
    house.pass("hall", 1);
    house.ground.log.set_full(true);
    house.wait(60);
    assert!(house.stands("silent"), "time does not stand still");
    house.pass("cafe", 12);
    assert_eq!(
        (house.told("silent"), house.told("crowded")),
        (vec![], vec!["pending".to_owned()])
    );
    house.ground.log.set_full(false);
    house.wait(2);
    assert_eq!(house.told("silent"), ["active"]);
}

#[test]
fn a_silence_that_a_kill_takes_was_told_to_nobody_and_is_found_again() {
    let mut house = House::open();
    house.pass("hall", 1);
    house.ground.log.set_full(true);
    house.wait(60);
    assert!(house.stands("silent"));
    house.kill();
    house.wait(5);
    assert!(!house.stands("silent") && house.told("silent").is_empty());
    house.wait(60);
    assert_eq!(house.told("silent"), ["active"]);
    house.pass("hall", 1);
    house.wait(2);
    assert_eq!(house.told("silent"), ["active", "cleared"]);
}

#[test]
fn who_can_not_be_heard_because_the_disk_takes_nothing_is_not_silent() {
    let mut house = House::open();
    house.pass("hall", 1);
    house.ground.log.set_full(true);
    while house.takes() {
        house.pass("cafe", 1);
    }
    house.wait(300);
    assert!(!house.takes() && !house.stands("silent"));
    house.ground.log.set_full(false);
    house.wait(2);
    assert!(house.takes() && !house.stands("silent"));
    house.pass("hall", 1);
    house.wait(60);
    // Both, once they could be heard for long enough.
    assert_eq!(house.told("silent"), ["active", "active"]);
    let before = house.life().pipeline.perception.now_us();
    house.kill();
    assert!(house.stands("silent"), "a replay finds the same");
    assert!(house.life().pipeline.perception.now_us() <= before);
    house.wait(2);
    assert_eq!(house.told("silent"), ["active", "active"]);
}

#[test]
fn what_ends_a_silence_that_waits_waits_behind_it() {
    let mut house = House::open();
    house.pass("hall", 1);
    house.ground.log.set_full(true);
    house.wait(60);
    house.pass("hall", 1);
    assert!(!house.stands("silent"));
    assert!(house.told("silent").is_empty(), "an end without a beginning");
    house.ground.log.set_full(false);
    house.wait(2);
    assert_eq!(house.told("silent"), ["active", "cleared"]);
}

#[test]
fn what_time_alone_decided_is_sent_when_the_disk_takes_it_and_only_while_it_stands() {
    let mut house = House::open();
    house.look("ann");
    house.ground.log.set_full(true);
    house.wait(15);
    let sent = |house: &mut House| {
        let all = house.life().pipeline.perception.messages.newest(|_, _, _| true, 10);
        all.len()
    };
    assert_eq!(sent(&mut house), 1, "it is decided");
    assert!(house.told("tour").is_empty(), "nobody knows of it");
    house.kill();
    assert!(house.told("tour").is_empty(), "the disk lost that time had passed");
    house.wait(20);
    assert_eq!(house.told("tour"), ["sent"], "it is found again");
    // Its time is over before the disk takes it.
    house.wait(10);
    house.look("bob");
    house.ground.log.set_full(true);
    house.wait(40);
    house.ground.log.set_full(false);
    house.wait(2);
    assert_eq!(house.told("tour"), ["sent"], "it stands no more");
}

#[test]
fn a_log_that_is_gone_through_beside_keeps_no_messages() {
    let mut house = House::open();
    house.look("ann");
    house.wait(20);
    let pipeline = &house.life().pipeline;
    let mut beside = super::fresh();
    pipeline
        .replay_into(&mut beside, pipeline.log.next())
        .expect("it can be read");
    assert_eq!(beside.take_messages(), []);
    assert!(!beside.messages.is_empty());
}
