//! Workers that share partitions, with logs in folders in the place of Fluvio's.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicUsize;

use usher_connectors::BoxFuture;
use usher_connectors::embedded_log::{self, EmbeddedLog, LogOptions};
use usher_connectors::log::{LogHealth, Retained};

use super::*;
use crate::erasure::{Done, Erasure, OnDisk};
use crate::event::{Clock, Event, Gate, Kind, Reading, Source};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A partition that several may open, each under an epoch of its own.
#[derive(Clone)]
struct Common {
    _folder: Arc<tempfile::TempDir>,
    log: Arc<EmbeddedLog>,
    newest: Arc<AtomicU64>,
    own: Arc<AtomicU64>,
}

impl Common {
    fn fenced(&self, own: u64) -> Option<LogError> {
        let newest = self.newest.load(Ordering::Acquire);
        (own < newest).then(|| LogError::Fenced {
            path: PathBuf::from("common"),
            own: Epoch(own),
            newest: Epoch(newest),
        })
    }
}

impl Log for Common {
    fn append(&self, records: Vec<Bytes>) -> Result<Append, LogError> {
        match self.fenced(self.own.load(Ordering::Acquire)) {
            Some(error) => Err(error),
            None => self.log.append(records),
        }
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        self.log.room()
    }

    fn tail(&self, from: Offset) -> BoxFuture<'_, Result<Offset, LogError>> {
        self.log.tail(from)
    }

    fn read(&self, from: Offset, max_records: usize, max_bytes: usize) -> Result<Vec<(Offset, Bytes)>, LogError> {
        self.log.read(from, max_records, max_bytes)
    }

    fn oldest(&self) -> Offset {
        self.log.oldest()
    }

    fn next(&self) -> Offset {
        self.log.next()
    }

    fn durable(&self) -> Offset {
        self.log.durable()
    }

    fn retain(&self, keep_from: Offset, now_us: i64) -> Result<Retained, LogError> {
        self.log.retain(keep_from, now_us)
    }

    fn claim(&self, epoch: Epoch) -> Result<(), LogError> {
        if let Some(error) = self.fenced(epoch.0) {
            return Err(error);
        }
        self.newest.fetch_max(epoch.0, Ordering::AcqRel);
        self.own.store(epoch.0, Ordering::Release);
        Ok(())
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.own.load(Ordering::Acquire))
    }

    fn health(&self) -> LogHealth {
        self.log.health()
    }

    fn close(&self) {}
}

/// Two partitions that all workers can read.
struct House {
    partitions: Vec<Common>,
    is_away: Arc<std::sync::atomic::AtomicBool>,
    is_slow: Arc<std::sync::atomic::AtomicBool>,
}

impl House {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let folder = Arc::new(tempfile::tempdir()?);
        let open = |number: u32| -> Result<Common, LogError> {
            let dir = folder.path().join(number.to_string());
            let (log, _) = embedded_log::open(&dir, LogOptions::default())?;
            Ok(Common {
                _folder: Arc::clone(&folder),
                log: Arc::new(log),
                newest: Arc::default(),
                own: Arc::default(),
            })
        };
        Ok(Self {
            partitions: vec![open(0)?, open(1)?],
            is_away: Arc::default(),
            is_slow: Arc::default(),
        })
    }

    fn open(&self) -> OpenPartition {
        let (partitions, is_away) = (self.partitions.clone(), Arc::clone(&self.is_away));
        let is_slow = Arc::clone(&self.is_slow);
        Arc::new(move |number| {
            while is_slow.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(10));
            }
            if is_away.load(Ordering::Acquire) {
                return Err(LogError::Unreadable {
                    path: PathBuf::from("common"),
                    cause: "it is away".to_owned(),
                });
            }
            let common = partitions[number as usize].clone();
            Ok(Arc::new(Common {
                own: Arc::default(),
                ..common
            }))
        })
    }

    /// What lies in a partition: of which log, its place there, and the record.
    fn records(&self, number: usize) -> Result<Vec<(u64, u64, Record)>, LogError> {
        let all = self.partitions[number].log.read(Offset(0), 100_000, 64 << 20)?;
        let records = all.iter().filter_map(|(_, bytes)| match Envelope::from_bytes(bytes)? {
            Envelope::Record { log, offset, record } => Some((log, offset.0, Record::from_bytes(&record).ok()?)),
            Envelope::Settled { .. } => None,
        });
        Ok(records.collect())
    }
}

/// A worker's folder and log.
struct Worker {
    data: tempfile::TempDir,
    local: Arc<EmbeddedLog>,
}

fn assignment(partitions: &[u32], epoch: u64) -> Assignment {
    Assignment::new(partitions.to_vec(), NonZeroU32::new(2).expect("not zero"), epoch)
}

impl Worker {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let data = tempfile::tempdir()?;
        let (local, _) = embedded_log::open(&data.path().join("log"), LogOptions::default())?;
        Ok(Self {
            data,
            local: Arc::new(local),
        })
    }

    fn take_up(&self, house: &House, assignment: Assignment) -> Result<TakenUp, TakeUpError> {
        let local: Arc<dyn Log> = Arc::clone(&self.local) as Arc<dyn Log>;
        let take_up = || Forwarding::take_up(local, house.open(), assignment, self.data.path(), Fence::default());
        tokio::task::block_in_place(take_up)
    }

    fn append(&self, records: &[Record]) -> Result<(), LogError> {
        let records = records.iter().map(|record| record.to_bytes().into()).collect();
        tokio::task::block_in_place(|| self.local.append(records)?.wait_durable())
    }

    fn records(&self) -> Result<Vec<Record>, LogError> {
        let all = self.local.read(Offset(0), 100_000, 64 << 20)?;
        Ok(all
            .iter()
            .filter_map(|(_, bytes)| Record::from_bytes(bytes).ok())
            .collect())
    }
}

fn event(site: &str, number: i64) -> Record {
    Record::Event(Event {
        id: format!("{site}-{number}").into(),
        time_us: number,
        received_us: number,
        clock: Clock::Device,
        source: Arc::new(Source {
            site: site.into(),
            zone: "hall".into(),
            kind: Kind::Gate,
            device: "door".into(),
        }),
        reading: Reading::Gate(Gate::Passed { entered: 1, exited: 0 }),
    })
}

/// A site of each partition.
fn sites() -> [String; 2] {
    let of = assignment(&[0, 1], 1);
    [0, 1].map(|wanted| {
        let mut names = (0..).map(|number| format!("branch-{number}"));
        names
            .find(|name| of.partition_of(name) == wanted)
            .expect("there are many")
    })
}

/// Runs forwarding until it has everything, and stops it.
async fn forward_all(taken: &TakenUp, settled: Option<u64>) -> Result<(), LogError> {
    let (stop, said) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let settled_until: SettledUntil = Arc::new({
        let said = Arc::clone(&said);
        move || {
            said.fetch_add(1, Ordering::Relaxed);
            settled
        }
    });
    let forwarding = &taken.forwarding;
    let running = tokio::spawn(Arc::clone(forwarding).run(settled_until, stop.clone()));
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let is_all = || forwarding.forwarded.load(Ordering::Acquire) >= forwarding.local.durable().0;
    while (!is_all() || said.load(Ordering::Relaxed) == 0) && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    running.await.map_err(|_| LogError::Closed)?
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_is_in_the_partition_of_its_site_once_however_often_it_begins_anew() -> Outcome {
    let (house, worker, [a, b]) = (House::new()?, Worker::new()?, sites());
    let mut expected: [Vec<u64>; 2] = Default::default();
    let mut number = 0;
    for round in 0..4 {
        let before = std::fs::read(worker.data.path().join("forwarding.json")).ok();
        let taken = worker.take_up(&house, assignment(&[0, 1], 1))?;
        for _ in 0..50 {
            let records = [event(&a, number), event(&b, number), Record::Ticked { at_us: number }];
            let first = worker.local.next().0;
            worker.append(&records)?;
            expected[0].extend([first, first + 2]);
            expected[1].extend([first + 1, first + 2]);
            number += 1;
        }
        forward_all(&taken, None).await?;
        // A crash before how far it had come was written down.
        if let Some(before) = before.filter(|_| round % 2 == 1) {
            std::fs::write(worker.data.path().join("forwarding.json"), before)?;
        }
    }
    for (number, expected) in expected.iter().enumerate() {
        let found: Vec<u64> = house.records(number)?.iter().map(|(_, offset, _)| *offset).collect();
        assert_eq!(&found, expected, "partition {number}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_takes_over_what_was_there_in_its_order_and_the_older_one_is_fenced() -> Outcome {
    let (house, old, [a, b]) = (House::new()?, Worker::new()?, sites());
    let taken = old.take_up(&house, assignment(&[0, 1], 3))?;
    assert_eq!(taken.told_until, None);
    let records: Vec<Record> = (0..100)
        .flat_map(|number| [event(&a, number), event(&b, number), Record::Ticked { at_us: number }])
        .collect();
    old.append(&records)?;
    // Of the last hundred it is not known whether receivers have what they told.
    forward_all(&taken, Some(200)).await?;
    let new = Worker::new()?;
    let taken_over = new.take_up(&house, assignment(&[0, 1], 4))?;
    assert_eq!(new.records()?, records);
    assert_eq!(taken_over.told_until, Some(Offset(200)));
    // What the older one still has is refused, and it ends.
    old.append(&[event(&a, 1_000)])?;
    let fence = Fence::default();
    let local: Arc<dyn Log> = Arc::clone(&old.local) as Arc<dyn Log>;
    let late = Forwarding::take_up(
        local,
        house.open(),
        assignment(&[0, 1], 3),
        old.data.path(),
        fence.clone(),
    );
    assert!(matches!(late, Err(TakeUpError::Fenced(_))), "it came back");
    let (stop, never): (_, SettledUntil) = (CancellationToken::new(), Arc::new(|| None));
    let running = tokio::spawn(Arc::clone(&taken.forwarding).run(never, stop.clone()));
    taken.forwarding.fence.shut_at().await;
    stop.cancel();
    running.await??;
    assert!(house.records(0)?.iter().all(|(.., record)| *record != event(&a, 1_000)));
    // Killed before its outbox had noted it, it says so again; under a later assignment it has told some itself.
    let again = new.take_up(&house, assignment(&[0, 1], 4))?;
    assert_eq!(again.told_until, Some(Offset(200)));
    // The new one copies none of what it took over back.
    forward_all(&taken_over, None).await?;
    assert_eq!(house.records(0)?.len(), 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_erased_elsewhere_is_to_be_erased_where_it_was_taken_over() -> Outcome {
    let (house, old, [a, _]) = (House::new()?, Worker::new()?, sites());
    let taken = old.take_up(&house, assignment(&[0, 1], 1))?;
    let erased = Record::Erased(Erasure {
        id: "e-1".to_owned(),
        at_us: 2,
        by: "desk".to_owned(),
        salt: [7; 32],
        marks: Vec::new(),
    });
    let done = Record::ErasureDone(Done {
        id: "e-1".to_owned(),
        at_us: 3,
        on_disk: OnDisk::default(),
    });
    old.append(&[event(&a, 1), erased.clone(), done, event(&a, 4)])?;
    forward_all(&taken, None).await?;
    let new = Worker::new()?;
    new.take_up(&house, assignment(&[0, 1], 2))?;
    // The partition still has the first event as it was, and so does the log by now.
    assert_eq!(new.records()?, [event(&a, 1), erased, Record::Removed, event(&a, 4)]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_the_partitions_bring_half_of_the_sites_and_what_is_everybodys() -> Outcome {
    let (house, old, [a, b]) = (House::new()?, Worker::new()?, sites());
    let taken = old.take_up(&house, assignment(&[0, 1], 1))?;
    old.append(&[event(&a, 1), event(&b, 2), Record::Ticked { at_us: 3 }, event(&b, 4)])?;
    forward_all(&taken, None).await?;
    let new = Worker::new()?;
    let taken = new.take_up(&house, assignment(&[1], 2))?;
    assert_eq!(
        new.records()?,
        [event(&b, 2), Record::Ticked { at_us: 3 }, event(&b, 4)]
    );
    assert_eq!(taken.told_until, Some(Offset(0)), "nothing is known to be settled");
    // One with all sites in its log is no part of several.
    let whole = Worker::new()?;
    whole.append(&[event(&a, 1)])?;
    let refused = whole
        .take_up(&house, assignment(&[1], 3))
        .err()
        .map(|error| error.to_string());
    assert!(
        refused
            .unwrap_or_default()
            .contains("Start it once with all partitions")
    );
    // A folder is of its partitions.
    let other = new
        .take_up(&house, assignment(&[0, 1], 3))
        .err()
        .map(|error| error.to_string());
    assert!(other.unwrap_or_default().contains("An empty folder would be right"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_over_goes_on_after_a_crash_in_the_middle_and_takes_nothing_twice() -> Outcome {
    let (house, old, [a, b]) = (House::new()?, Worker::new()?, sites());
    let taken = old.take_up(&house, assignment(&[0, 1], 1))?;
    let records: Vec<Record> = (0..2_000)
        .flat_map(|number| [event(&a, number), event(&b, number)])
        .collect();
    old.append(&records)?;
    forward_all(&taken, None).await?;
    for there in [1, 1_023, 1_024, 3_999, 4_000] {
        let new = Worker::new()?;
        let mut progress = Progress::fresh(&assignment(&[0, 1], 2));
        progress.is_complete = false;
        progress.save(new.data.path())?;
        new.append(&records[..there])?;
        new.take_up(&house, assignment(&[0, 1], 2))?;
        assert!(new.records()? == records, "after {there} records");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_takes_what_came_meanwhile_and_keeps_what_it_had() -> Outcome {
    let (house, first, [a, b]) = (House::new()?, Worker::new()?, sites());
    let taken = first.take_up(&house, assignment(&[0, 1], 1))?;
    first.append(&[event(&a, 1), event(&b, 2)])?;
    forward_all(&taken, None).await?;
    // Kept in its own log only, when the machine goes away.
    first.append(&[event(&a, 3)])?;
    let second = Worker::new()?;
    let taken = second.take_up(&house, assignment(&[0, 1], 2))?;
    second.append(&[event(&a, 4), event(&b, 5)])?;
    forward_all(&taken, None).await?;
    let taken = first.take_up(&house, assignment(&[0, 1], 3))?;
    let had = [event(&a, 1), event(&b, 2), event(&a, 3), event(&a, 4), event(&b, 5)];
    assert_eq!(first.records()?, had);
    forward_all(&taken, None).await?;
    let mut all = BTreeMap::new();
    for number in 0..2 {
        for (.., record) in house.records(number)? {
            *all.entry(format!("{record:?}")).or_insert(0) += 1;
        }
    }
    assert_eq!(all.len(), 5, "{all:?}");
    assert!(all.values().all(|count| *count == 1), "{all:?}");
    assert_eq!(
        taken.told_until, None,
        "what it told itself is for its own outbox to know"
    );
    // Started again, under the same assignment or another, it takes nothing once more.
    for epoch in [3, 4, 5] {
        let taken = first.take_up(&house, assignment(&[0, 1], epoch))?;
        forward_all(&taken, None).await?;
        assert_eq!(first.records()?.len(), 5, "epoch {epoch}");
        assert_eq!(house.records(0)?.len() + house.records(1)?.len(), 5, "epoch {epoch}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_has_its_assignment_starts_without_fluvio_and_a_new_one_does_not() -> Outcome {
    let (house, worker, [a, _]) = (House::new()?, Worker::new()?, sites());
    house.is_away.store(true, Ordering::Release);
    let refused = worker.take_up(&house, assignment(&[0, 1], 1)).err();
    let words = refused.ok_or("it took up what it can't know")?.to_string();
    assert!(
        words.contains("it is away") && words.contains("can be tried again"),
        "{words}"
    );
    house.is_away.store(false, Ordering::Release);
    worker.take_up(&house, assignment(&[0, 1], 1))?;
    house.is_away.store(true, Ordering::Release);
    let taken = worker.take_up(&house, assignment(&[0, 1], 1))?;
    worker.append(&[event(&a, 1)])?;
    let (stop, never): (_, SettledUntil) = (CancellationToken::new(), Arc::new(|| None));
    let failed = Arc::clone(&taken.forwarding)
        .run(Arc::clone(&never), stop.clone())
        .await;
    assert!(matches!(failed, Err(LogError::Unreadable { .. })), "{failed:?}");
    house.is_away.store(false, Ordering::Release);
    forward_all(&taken, None).await?;
    assert_eq!(house.records(0)?.len(), 1);
    // One that answers nothing is not waited for; what it says later counts.
    house.is_slow.store(true, Ordering::Release);
    let taken = worker.take_up(&house, assignment(&[0, 1], 1))?;
    worker.append(&[event(&a, 2)])?;
    let running = tokio::spawn(Arc::clone(&taken.forwarding).run(never, stop.clone()));
    house.is_slow.store(false, Ordering::Release);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while taken.forwarding.forwarded().load(Ordering::Acquire) < 2 && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    running.await??;
    assert_eq!(house.records(0)?.len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fluvio_loses_is_copied_again_and_what_it_has_is_not() -> Outcome {
    let (mut house, worker, [a, b]) = (House::new()?, Worker::new()?, sites());
    let taken = worker.take_up(&house, assignment(&[0, 1], 1))?;
    let records: Vec<Record> = (0..200)
        .flat_map(|number| [event(&a, number), event(&b, number)])
        .collect();
    worker.append(&records)?;
    forward_all(&taken, None).await?;
    // An SPU comes back with an empty disk.
    house.partitions[0] = House::new()?.partitions.swap_remove(0);
    worker.append(&[event(&a, 1_000), event(&b, 1_000)])?;
    let taken = worker.take_up(&house, assignment(&[0, 1], 1))?;
    forward_all(&taken, None).await?;
    for number in [0, 1] {
        let found: Vec<u64> = house.records(number)?.iter().map(|(_, offset, _)| *offset).collect();
        let expected: Vec<u64> = (0..402).filter(|offset| offset % 2 == number as u64).collect();
        assert_eq!(found, expected, "partition {number}");
    }
    Ok(())
}
