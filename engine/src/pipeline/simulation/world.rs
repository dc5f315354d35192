//! The world of one seed: it lets time pass, brings what arrives, and lets things break.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use usher_connectors::delivery::Delivery;

use super::clock::SimClock;
use super::devices::{DAY, Devices};
use super::disk::{QUEUE_APPENDS, Refuses};
use super::judge::{self, Faultless, Kept};
use super::life::{BATCH, Ground, Life, Told};
use super::random::Random;
use super::receivers::{Far, Taken};
use crate::alerts::{Action, Deed};
use crate::clock::Clock;
use crate::fixture::NINE;
use crate::shed::ShedReason;

/// Messages that may wait for the engine.
const INTAKE: usize = 40;
/// Lives of a seed, at most.
const LIVES: usize = 5;
/// Steps after which all has to be calm again.
const CALM_STEPS: usize = 4_000;

/// All there is.
pub(super) struct World {
    random: Random,
    /// By it messages are shed.
    shed: Random,
    runtime: Runtime,
    folder: TempDir,
    ground: Ground,
    devices: Devices,
    begun: Instant,
    life: Option<Life>,
    lives: usize,
    intake: Vec<Delivery>,
    full_until: Option<Instant>,
    shelf_refuses_until: Option<Instant>,
    is_disk_slow: bool,
    /// What staff did and whether they were told that it is kept.
    deeds: Vec<(String, Option<oneshot::Receiver<()>>, bool)>,
    kept: Kept,
    /// Steps told of what a crash took from the log.
    unsure: HashSet<String>,
    wrong: Vec<String>,
    story: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let clock = Arc::new(SimClock::new(NINE, Random::of(seed, 1)));
        let begun = clock.now();
        let memory = PathBuf::from("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        Self {
            random: Random::of(seed, 2),
            shed: Random::of(seed, 6),
            runtime: runtime.expect("there is room for a runtime"),
            folder: folder.expect("there is room for a folder"),
            devices: Devices::draw(Random::of(seed, 3), begun),
            ground: Ground {
                log: Arc::default(),
                shelf: Arc::default(),
                broker: Far::new(&clock, Random::of(seed, 4)),
                hook: Far::new(&clock, Random::of(seed, 5)),
                clock,
            },
            begun,
            life: None,
            lives: 0,
            intake: Vec::new(),
            full_until: None,
            shelf_refuses_until: None,
            is_disk_slow: false,
            deeds: Vec::new(),
            kept: Kept::default(),
            unsure: HashSet::new(),
            wrong: Vec::new(),
            story: Vec::new(),
        }
    }

    fn checkpoints(&self) -> PathBuf {
        self.folder.path().join("checkpoints")
    }

    fn now(&self) -> Instant {
        self.ground.clock.now()
    }

    fn tell(&mut self, what: &str) {
        let at = self.now().saturating_duration_since(self.begun);
        self.story.push(format!("{:8.3} s  {what}", at.as_secs_f64()));
    }

    /// Runs the day and what comes after it; gives what is wrong then, and what happened.
    pub(super) fn run(mut self) -> (Vec<String>, Vec<String>) {
        self.live_on();
        self.judge();
        (self.wrong, self.story)
    }

    /// As [`World::run`]; gives all that happened and was told.
    pub(super) fn told(mut self) -> Vec<String> {
        self.live_on();
        let taken = [&self.ground.broker, &self.ground.hook].map(|far| far.taken());
        let taken = taken
            .iter()
            .flatten()
            .map(|taken| format!("{} {} {}", taken.life, taken.id, taken.alert));
        self.story.iter().cloned().chain(taken).collect()
    }

    fn live_on(&mut self) {
        self.begin();
        while self.now().saturating_duration_since(self.begun) < DAY + Duration::from_secs(20) {
            self.step();
            self.break_something();
        }
        self.calm_down();
    }

    fn begin(&mut self) {
        self.lives += 1;
        self.ground.broker.live(self.lives);
        self.ground.hook.live(self.lives);
        self.life = Some(Life::begin(&self.runtime, &self.ground, &self.checkpoints()));
        let recovered = self.life.as_ref().map(|life| life.pipeline.recovery.text.clone());
        self.tell(&format!(
            "life {} begins: {}",
            self.lives,
            recovered.unwrap_or_default()
        ));
    }

    fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("there is one between two steps")
    }

    /// Lets time pass until then, with all who sleep meanwhile.
    fn pass(&mut self, time: Duration) {
        self.ground.clock.set_look(Duration::ZERO);
        let end = self.now() + time;
        while self.ground.clock.go_on(end) {
            if let Some(life) = &self.life {
                self.runtime.block_on(life.settle_down());
            }
        }
    }

    /// A moment, messages, a look at the clock, the disk.
    fn step(&mut self) {
        let most = [60, 400, 2_500][self.random.index(3)];
        let time = self.random.millis(most);
        self.pass(time);
        let now = self.now();
        if self.full_until.is_some_and(|until| until <= now) {
            self.full_until = None;
            self.ground.log.set_full(false);
        }
        if self.shelf_refuses_until.is_some_and(|until| until <= now) {
            self.shelf_refuses_until = None;
            self.ground.shelf.refuse(Refuses::Nothing);
        }
        let room = INTAKE - self.intake.len();
        let wall_us = self.ground.clock.wall_us();
        self.intake.extend(self.devices.arrived(now, wall_us, room));
        let look = Duration::from_micros(self.random.below(200));
        self.ground.clock.set_look(look);
        if self.random.in_thousand(40) {
            self.act();
        }
        if self.shed.in_thousand(6) {
            let reason = ShedReason::ALL[self.shed.index(ShedReason::ALL.len())];
            let messages = 1 + self.shed.below(100);
            if self.life().pipeline.shed(reason, messages) {
                self.life().note_told();
                self.tell(&format!("{messages} messages are shed: {}", reason.as_str()));
            }
        }
        let mut life = self.life.take().expect("there is one between two steps");
        if life.takes() && !self.intake.is_empty() {
            let batch = (1 + self.random.index(BATCH)).min(self.intake.len());
            let mut batch: Vec<Delivery> = self.intake.drain(..batch).collect();
            self.runtime.block_on(life.walk(&mut batch));
        }
        self.runtime.block_on(life.turn());
        self.ground.clock.set_look(Duration::ZERO);
        let appends = match self.is_disk_slow {
            true => self.random.index(2),
            false => self.random.index(QUEUE_APPENDS + 3),
        };
        self.ground.log.sync(appends);
        if self.random.in_thousand(600) {
            let is_synced = self.random.in_thousand(500);
            life.journal.write_once(is_synced);
        }
        self.runtime.block_on(life.settle_down());
        for (what, found, most) in life.queues() {
            if found > most {
                self.wrong.push(format!("{found} {what}, and {most} are allowed"));
            }
        }
        self.life = Some(life);
        self.hear();
    }

    /// Staff does something to an alert.
    fn act(&mut self) {
        let life = self.life.as_mut().expect("there is one between two steps");
        let open = life.pipeline.perception.alerts.open();
        if open.is_empty() {
            return;
        }
        let alert = open[self.random.index(open.len())].id.clone();
        let at_us = self.ground.clock.wall_us();
        let by = format!("staff {}", self.deeds.len());
        let deed = match self.random.below(4) {
            0 => Deed::Acknowledge,
            1 => Deed::SnoozeUntil(at_us + 20_000_000),
            2 => Deed::Clear,
            _ => Deed::Comment("seen".to_owned()),
        };
        let words = format!("{by}: {deed:?}");
        let action = Action {
            alert,
            by: by.clone(),
            at_us,
            deed,
        };
        if let Some((_, durable)) = life.pipeline.act(action) {
            life.note_told();
            self.deeds.push((by, Some(durable), false));
            self.tell(&words);
        }
    }

    /// Hears what was acknowledged: it has to be durable by then.
    fn hear(&mut self) {
        let now = self.now();
        let acknowledged = self.devices.hear(now);
        let mut acted = Vec::new();
        for (by, durable, is_kept) in &mut self.deeds {
            match durable.as_mut().map(oneshot::Receiver::try_recv) {
                Some(Ok(())) => {
                    (*durable, *is_kept) = (None, true);
                    acted.push(by.clone());
                }
                Some(Err(oneshot::error::TryRecvError::Closed)) => *durable = None,
                Some(Err(oneshot::error::TryRecvError::Empty)) | None => {}
            }
        }
        if acknowledged.is_empty() && acted.is_empty() {
            return;
        }
        self.read_kept();
        for number in acknowledged {
            let letter = &self.devices.letters[number];
            let is_there = match letter.key {
                Some(key) => self.kept.keys.contains_key(&key),
                None => self.kept.refused.contains(&*letter.topic),
            };
            if !is_there {
                let words = format!("{} was acknowledged before it was durable", letter.payload);
                self.wrong.push(words);
            }
        }
        for by in acted.iter().filter(|by| !self.kept.acted.contains(*by)) {
            self.wrong
                .push(format!("{by} was told that it is kept before it was durable"));
        }
    }

    fn read_kept(&mut self) {
        let new = self.ground.log.synced_from(self.kept.records.len());
        self.kept.read(&new);
    }

    /// Faults, each so many times of a thousand steps.
    fn break_something(&mut self) {
        let soon = |random: &mut Random, most: u64| Duration::from_secs(1) + random.millis(most);
        let now = self.now();
        if self.random.in_thousand(8) {
            let until = now + soon(&mut self.random, 20_000);
            self.full_until = Some(until);
            self.ground.log.set_full(true);
            self.tell("the disk is full");
        }
        if self.random.in_thousand(8) {
            self.shelf_refuses_until = Some(now + soon(&mut self.random, 15_000));
            let (refuses, words) = match self.random.below(2) {
                0 => (Refuses::Writes, "the outbox can't be written"),
                _ => (
                    Refuses::Syncs,
                    "what is written of the outbox is lost before it is durable",
                ),
            };
            self.ground.shelf.refuse(refuses);
            self.tell(words);
        }
        if self.random.in_thousand(10) {
            self.is_disk_slow = !self.is_disk_slow;
            self.tell(if self.is_disk_slow {
                "the disk is slow"
            } else {
                "the disk is quick"
            });
        }
        for (far, name) in [
            (Arc::clone(&self.ground.broker), "broker"),
            (Arc::clone(&self.ground.hook), "hook"),
        ] {
            if self.random.in_thousand(10) {
                let time = soon(&mut self.random, 30_000);
                far.go_away(now + time);
                self.tell(&format!("the {name} is away for {time:?}"));
            }
            if self.random.in_thousand(10) {
                let is_slow = self.random.below(2) == 0;
                far.set_slow(is_slow);
                self.tell(&format!("the {name} is {}", if is_slow { "slow" } else { "quick" }));
            }
        }
        if self.random.in_thousand(8) {
            self.devices.reconnect(now);
            self.intake.clear();
            self.tell("the devices connect anew");
        }
        if self.random.in_thousand(5) {
            let seconds = i64::try_from(self.random.below(120)).expect("it is small") - 50;
            self.ground.clock.jump(seconds * 1_000_000);
            self.tell(&format!("the clock jumps by {seconds} s"));
        }
        if self.lives < LIVES && self.random.in_thousand(15) {
            self.restart();
        }
    }

    fn restart(&mut self) {
        let life = self.life.take().expect("there is one between two steps");
        self.intake.clear();
        let told: Told = match self.random.below(4) {
            0 => {
                self.tell("it is stopped");
                self.ground.log.set_full(false);
                self.ground.shelf.refuse(Refuses::Nothing);
                life.stop(&self.runtime, &self.ground)
            }
            number => {
                if self.random.below(2) == 0 {
                    life.journal.write_once(false);
                }
                let told = life.crash(&self.runtime);
                let records = self.ground.log.crash(&mut self.random);
                let mut words = format!("it is killed; {records} records were not on disk");
                if number == 3 {
                    let writes = self.ground.shelf.lose_power(&mut self.random);
                    words = format!("the power goes; {records} records and {writes} writes of the outbox are gone");
                }
                self.tell(&words);
                told
            }
        };
        (self.full_until, self.shelf_refuses_until) = (None, None);
        self.ground.shelf.refuse(Refuses::Nothing);
        self.ground.log.set_full(false);
        let end = self.ground.log.synced() as u64;
        self.unsure.extend(told.beyond(end));
        if self.random.below(5) == 0 {
            self.damage_checkpoint();
        }
        let time = self.random.millis(12_000);
        self.pass(time);
        self.devices.reconnect(self.now());
        self.begin();
    }

    /// The newest checkpoint can't be read, or was not finished.
    fn damage_checkpoint(&mut self) {
        let Ok(files) = std::fs::read_dir(self.checkpoints()) else {
            return;
        };
        let newest = files.filter_map(|file| Some(file.ok()?.path())).max();
        let Some(newest) = newest else { return };
        let bytes = std::fs::read(&newest).expect("it is there");
        let is_cut = self.random.below(2) == 0;
        let done = match is_cut {
            true => std::fs::write(&newest, &bytes[..self.random.index(bytes.len())]),
            false => std::fs::remove_file(&newest),
        };
        done.expect("it can be written");
        self.tell(if is_cut {
            "the newest checkpoint is torn"
        } else {
            "the newest checkpoint is not there"
        });
    }

    /// All faults end; what is left arrives and goes out.
    fn calm_down(&mut self) {
        self.ground.log.set_full(false);
        self.ground.shelf.refuse(Refuses::Nothing);
        (self.full_until, self.shelf_refuses_until, self.is_disk_slow) = (None, None, false);
        self.ground.broker.be_kind();
        self.ground.hook.be_kind();
        self.devices.reconnect(self.now());
        // Turns are as long as they need to be, so that an end comes in which nothing is left to say.
        self.life()
            .pipeline
            .perception
            .take_turns_of(Duration::from_secs(3_600));
        let end = self.now() + Duration::from_secs(120);
        for _ in 0..CALM_STEPS {
            self.step();
            let is_through = self.now() > end && self.devices.are_all_acknowledged();
            let log = &self.ground.log;
            let life = self.life.as_ref().expect("there is one between two steps");
            if is_through && life.has_told_all() && log.is_idle() && life.is_through() {
                return;
            }
        }
        let life = self.life();
        let left = format!(
            "{} wait for receivers, {:?}",
            life.outbox.len(),
            life.outbox.receivers()
        );
        self.wrong.push(format!(
            "it does not come to rest; all acknowledged: {}; {left}",
            self.devices.are_all_acknowledged()
        ));
    }

    fn judge(&mut self) {
        self.read_kept();
        let kept = std::mem::take(&mut self.kept);
        for letter in self.devices.letters.iter().filter(|letter| !letter.is_garbage) {
            let key = letter.key.expect("it is no garbage");
            let times = kept.keys.get(&key).copied().unwrap_or(0);
            if times != 1 {
                self.wrong
                    .push(format!("{} is in the log {times} times", letter.payload));
            }
        }
        let events: usize = kept.keys.values().sum();
        let sent = self.devices.letters.iter().filter(|letter| !letter.is_garbage).count();
        if events != sent {
            self.wrong
                .push(format!("{events} events are in the log, and {sent} were sent"));
        }
        for (by, _, is_kept) in &self.deeds {
            if *is_kept && !kept.acted.contains(by) {
                self.wrong.push(format!("what {by} did is lost"));
            }
        }
        if self.ground.log.queued_most() > QUEUE_APPENDS {
            self.wrong
                .push(format!("{} appends waited", self.ground.log.queued_most()));
        }
        let life = self.life.take().expect("there is one between two steps");
        let perception = &life.pipeline.perception;
        let faultless = Faultless::over(&kept.records, perception.now_us());
        let (found, wanted) = (judge::state(perception), judge::state(&faultless.perception));
        for (what, wanted) in &wanted {
            let found = &found[what];
            self.wrong
                .extend(wanted.difference(found).map(|row| format!("{what} lack     {row}")));
            self.wrong
                .extend(found.difference(wanted).map(|row| format!("{what} have also {row}")));
        }
        for (far, name) in [(&self.ground.broker, "the broker"), (&self.ground.hook, "the hook")] {
            let (messages, alerts): (Vec<Taken>, Vec<Taken>) = far.taken().into_iter().partition(Taken::is_message);
            judge::hold_against(name, &alerts, &faultless.steps, &self.unsure, &mut self.wrong);
            judge::hold_messages_against(name, &messages, &faultless.messages, &mut self.wrong);
        }
        let (found, wanted) = (
            judge::retained(&self.ground.broker.retained()),
            judge::standing(perception),
        );
        if found != wanted {
            self.wrong.push(format!("retained is {found:?}, and {wanted:?} stands"));
        }
        life.crash(&self.runtime);
    }
}
