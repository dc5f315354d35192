//! What holds for a log in Fluvio: the contract, and what becomes of it when the cluster is away for a while.
//!
//! `USHER_FLUVIO` names the SC of a cluster, as in `127.0.0.1:9003`; without it the tests are skipped. One that is spoken to
//! by TLS has `USHER_FLUVIO_TLS`, too: its domain, and the PEM files of its CA, of our certificate and of our key, with
//! commas between. Those that restart
//! the cluster need to know how: `USHER_FLUVIO_RESTART` names a program that takes `sc` or `spu` and comes back when that
//! runs again. They may do so at once: a log comes back also when the SPU comes up while the SC is away.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use usher_connectors::embedded_log::LogOptions;
use usher_connectors::fluvio::cluster::{Cluster, FluvioError, FluvioOptions, TlsOptions, TopicOptions};
use usher_connectors::fluvio::log::{self, FluvioLog};
use usher_connectors::fluvio::topic::TopicWriter;
use usher_connectors::log::{Epoch, Log, LogError, Offset};

use crate::TestResult;
use crate::log_contract::{Kind, read_all, record, records};

/// A topic of the test's own, which is removed at the end.
struct Topic {
    cluster: Arc<Cluster>,
    options: TopicOptions,
}

impl Topic {
    fn of(partitions: u32) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        let Ok(endpoint) = std::env::var("USHER_FLUVIO") else {
            eprintln!("skipped: USHER_FLUVIO names no cluster");
            return Ok(None);
        };
        let name = format!("usher-test-{:016x}", fastrand::u64(..));
        let tls = std::env::var("USHER_FLUVIO_TLS").ok();
        let tls = tls.map(|text| match text.split(',').collect::<Vec<_>>()[..] {
            [domain, ca, cert, key] => Ok(TlsOptions {
                domain: domain.to_owned(),
                ca_cert: ca.into(),
                identity: Some((cert.into(), key.into())),
            }),
            _ => Err("USHER_FLUVIO_TLS is a domain and three files"),
        });
        let options = FluvioOptions {
            tls: tls.transpose()?,
            ..FluvioOptions::new(endpoint)
        };
        Ok(Some(Self {
            cluster: Cluster::new(options)?,
            options: TopicOptions::new(name, partitions),
        }))
    }

    fn partition(&self, partition: u32) -> Result<FluvioLog, LogError> {
        log::open(&self.cluster, &self.options, partition, LogOptions::default(), None)
    }

    /// The first partition, with a file that says how far it was read.
    fn noted(&self, file: &Path) -> Result<FluvioLog, LogError> {
        log::open(
            &self.cluster,
            &self.options,
            0,
            LogOptions::default(),
            Some(file.to_owned()),
        )
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let (cluster, name) = (Arc::clone(&self.cluster), self.options.name.clone());
        // A thread of its own, for the test may run in a runtime.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(cluster.remove_topic(&name)))
        });
        // What can't be removed is left to whoever has the cluster.
        let _ = removing.join();
    }
}

impl Kind for Topic {
    type Log = FluvioLog;

    fn fresh() -> Result<Option<Self>, Box<dyn std::error::Error>> {
        Self::of(1)
    }

    fn open(&self, options: LogOptions) -> Result<FluvioLog, LogError> {
        log::open(&self.cluster, &self.options, 0, options, None)
    }
}

// Not `every_log_that_forgets_must!`: it is Fluvio that forgets, by its topic's retention, whole segments every few
// minutes, and whoever writes can't tell it to.
every_log_must!(Topic);

macro_rules! topic {
    ($partitions:expr) => {
        match Topic::of($partitions)? {
            Some(topic) => topic,
            None => return Ok(()),
        }
    };
}

#[test]
fn an_owner_that_was_cut_off_writes_nothing_and_is_told_so() -> TestResult {
    let topic = topic!(1);
    let old = topic.partition(0)?;
    old.claim(Epoch(3))?;
    old.append(records(0..2))?.wait_durable()?;
    let new = topic.partition(0)?;
    new.claim(Epoch(4))?;
    // Whether it has heard of the claim or not, nothing of it counts.
    let late = match old.append(records(7..9)) {
        Ok(append) => append.wait_durable().err(),
        Err(error) => Some(error),
    };
    let is_fenced = matches!(
        late,
        Some(LogError::Fenced {
            own: Epoch(3),
            newest: Epoch(4),
            ..
        })
    );
    assert!(is_fenced, "{late:?}");
    new.append(records(2..4))?.wait_durable()?;
    let read: Vec<Bytes> = read_all(&new)?.into_iter().map(|(_, record)| record).collect();
    assert_eq!(read, records(0..4));
    // The same epoch given to two: the later one has it.
    let twin = topic.partition(0)?;
    twin.claim(Epoch(4))?;
    twin.append(records(4..5))?.wait_durable()?;
    let late = new.append(records(5..6)).and_then(|append| append.wait_durable());
    assert!(matches!(late, Err(LogError::Fenced { .. })), "{late:?}");
    assert_eq!(read_all(&topic.partition(0)?)?.len(), 5);
    Ok(())
}

#[test]
fn claims_at_the_same_moment_leave_one_owner_and_records_once() -> TestResult {
    let topic = topic!(1);
    drop(topic.partition(0)?);
    let writers: Vec<_> = (1..=4_u64)
        .map(|epoch| {
            let log = topic.partition(0);
            std::thread::spawn(move || -> Result<usize, LogError> {
                let log = log?;
                if log.claim(Epoch(epoch)).is_err() {
                    return Ok(0);
                }
                let mut durable = 0;
                for n in 0..50 {
                    let text = Bytes::from(format!("{epoch}/{n}"));
                    match log.append(vec![text]).and_then(|append| append.wait_durable()) {
                        Ok(()) => durable += 1,
                        Err(LogError::Fenced { .. }) => break,
                        Err(error) => return Err(error),
                    }
                }
                Ok(durable)
            })
        })
        .collect();
    let mut durable = 0;
    for writer in writers {
        durable += writer.join().map_err(|_| "a thread failed")??;
    }
    let all = read_all(&topic.partition(0)?)?;
    let mut texts: Vec<&Bytes> = all.iter().map(|(_, record)| record).collect();
    // What was told to be durable is there; what was not may be, when its writer was fenced before it heard of it.
    assert!(
        texts.len() >= durable && texts.len() <= durable + 4,
        "{} of {durable}",
        texts.len()
    );
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), all.len(), "a record is there twice");
    Ok(())
}

#[test]
fn a_topic_that_is_another_is_refused_in_words() -> TestResult {
    let topic = topic!(2);
    drop(topic.partition(1)?);
    let other = TopicOptions {
        partitions: 3,
        ..topic.options.clone()
    };
    let refused = log::open(&topic.cluster, &other, 0, LogOptions::default(), None).err();
    let words = refused.ok_or("it was opened")?.to_string();
    assert!(words.contains("has 2 partitions and not 3"), "{words}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_away_is_said_within_its_time() -> TestResult {
    // A port where nothing listens; so this needs no cluster.
    let mut options = FluvioOptions::new("127.0.0.1:9");
    options.connect_timeout = Duration::from_secs(1);
    let cluster = Cluster::new(options)?;
    let begun = Instant::now();
    let error = cluster.ensure_topic(&TopicOptions::new("t", 1)).await.err();
    assert!(matches!(error, Some(FluvioError::Unreachable { .. })), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(3));
    let writer = Arc::new(TopicWriter::new(cluster, TopicOptions::new("t", 1)));
    let error = writer
        .send("main/zone/hall".to_owned(), Bytes::from_static(b"{}"))
        .await;
    let words = error.err().ok_or("it was sent")?.to_string();
    assert!(
        words.starts_with("the Fluvio cluster at 127.0.0.1:9 can't be reached"),
        "{words}"
    );
    Ok(())
}

/// Restarts a part of the cluster, or says why not.
fn restart(part: &str) -> Result<bool, Box<dyn std::error::Error>> {
    let Ok(program) = std::env::var("USHER_FLUVIO_RESTART") else {
        eprintln!("skipped: USHER_FLUVIO_RESTART names no program that restarts a part of the cluster");
        return Ok(false);
    };
    let status = std::process::Command::new(program).arg(part).status()?;
    match status.success() {
        true => Ok(true),
        false => Err(format!("the {part} was not restarted: {status}").into()),
    }
}

/// Appends all the while a part of the cluster is restarted.
fn goes_on_over_a_restart_of(part: &str) -> TestResult {
    let topic = topic!(1);
    let log = Arc::new(topic.partition(0)?);
    log.claim(Epoch(1))?;
    log.append(records(0..100))?.wait_durable()?;
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writing = {
        let log = Arc::clone(&log);
        std::thread::spawn(move || -> Result<usize, LogError> {
            let mut n = 100;
            let mut last = None;
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                match log.append(vec![record(n)]) {
                    Ok(append) => {
                        last = Some(append);
                        n += 1;
                    }
                    Err(LogError::Busy) => {}
                    Err(error) => return Err(error),
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            last.map_or(Ok(()), |last| last.wait_durable())?;
            Ok(n)
        })
    };
    let is_done = restart(part)?;
    if is_done {
        // Some more, after it is back.
        log.append(Vec::new())?.wait_durable()?;
        std::thread::sleep(Duration::from_secs(2));
    }
    // A writer that has failed hears nothing any more, and says why.
    let _ = stop.send(());
    let written = writing.join().map_err(|_| "the writer failed")??;
    let expected: Vec<_> = (0..written).map(|n| (Offset(n as u64), record(n))).collect();
    assert!(read_all(&*log)? == expected, "the writer reads something else");
    drop(log);
    assert!(
        read_all(&topic.partition(0)?)? == expected,
        "another reads something else"
    );
    assert!(!is_done || written > 300, "{written}");
    Ok(())
}

#[test]
fn a_log_goes_on_over_a_restart_of_its_spu() -> TestResult {
    goes_on_over_a_restart_of("spu")
}

#[test]
fn a_log_goes_on_over_a_restart_of_the_sc() -> TestResult {
    goes_on_over_a_restart_of("sc")
}

fn filled(log: &FluvioLog, from: usize, to: usize) -> Result<(), LogError> {
    let mut last = None;
    for from in (from..to).step_by(1_000) {
        let some = records(from..to.min(from + 1_000));
        last = Some(loop {
            match log.append(some.clone()) {
                Err(LogError::Busy) => std::thread::sleep(Duration::from_millis(1)),
                appended => break appended?,
            }
        });
    }
    last.map_or(Ok(()), |last| last.wait_durable())
}

/// The records of a log, and how many of Fluvio's were read to open it.
fn opened(log: &FluvioLog, count: usize) -> Result<u64, Box<dyn std::error::Error>> {
    let found: Vec<Bytes> = read_all(log)?.into_iter().map(|(_, record)| record).collect();
    assert!(found == records(0..count), "{} records, and not {count}", found.len());
    assert_eq!(log.next(), Offset(count as u64));
    Ok(log.read_to_open())
}

#[test]
fn opening_again_reads_what_came_since_and_without_its_file_or_topic_all() -> TestResult {
    let topic = topic!(1);
    let folder = tempfile::tempdir()?;
    let (file, copy) = (
        folder.path().join("kept").join("0.json"),
        folder.path().join("copy.json"),
    );
    let log = topic.noted(&file)?;
    assert!(log.read_to_open() <= 1, "{}", log.read_to_open());
    log.claim(Epoch(1))?;
    filled(&log, 0, 20_000)?;
    // It is noted while the log is open, so that one that is killed reads little again.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        std::thread::sleep(Duration::from_millis(100));
        if std::fs::copy(&file, &copy).is_ok() && opened(&topic.noted(&copy)?, 20_000)? < 100 {
            break;
        }
        assert!(Instant::now() < deadline, "it is not noted");
    }
    drop(log);
    let log = topic.noted(&file)?;
    assert!(opened(&log, 20_000)? <= 1);
    log.claim(Epoch(1))?;
    filled(&log, 20_000, 20_010)?;
    drop(log);
    // Somebody else has it meanwhile, and it is heard of.
    let other = topic.partition(0)?;
    assert!(opened(&other, 20_010)? >= 20_010);
    other.claim(Epoch(2))?;
    filled(&other, 20_010, 20_500)?;
    drop(other);
    let log = topic.noted(&file)?;
    let read = opened(&log, 20_500)?;
    assert!((490..500).contains(&read), "{read}");
    let refused = log.claim(Epoch(1));
    assert!(matches!(refused, Err(LogError::Fenced { .. })), "{refused:?}");
    drop(log);
    for broken in [false, true] {
        std::fs::copy(&file, &copy)?;
        match broken {
            true => std::fs::write(&copy, b"{\"version\":1,")?,
            false => std::fs::remove_file(&copy)?,
        }
        assert!(opened(&topic.noted(&copy)?, 20_500)? >= 20_500, "broken: {broken}");
    }
    // Another topic of the same name, with less in it at first and then more.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(topic.cluster.remove_topic(&topic.options.name))?;
    let mut kept = 0;
    for count in [0, 5_000, 40_000] {
        std::fs::copy(&file, &copy)?;
        let log = loop {
            // Removing takes its time.
            match topic.noted(&copy) {
                Ok(log) => break log,
                Err(error) => assert!(Instant::now() < deadline + Duration::from_secs(60), "{error}"),
            }
        };
        let read = opened(&log, kept)?;
        assert!(read as usize >= kept, "{read} of {kept}");
        log.claim(Epoch(3))?;
        filled(&log, kept, count)?;
        kept = count;
    }
    std::fs::copy(&file, &copy)?;
    assert!(opened(&topic.noted(&copy)?, 40_000)? >= 40_000);
    assert!(opened(&topic.noted(&copy)?, 40_000)? <= 1);
    Ok(())
}

#[test]
fn a_reader_that_catches_up_misses_nothing() -> TestResult {
    const RECORDS: usize = 300_000;
    let topic = topic!(1);
    let log = topic.partition(0)?;
    let filling = |n: usize| Bytes::from(format!("{n:0150}"));
    let begun = Instant::now();
    let mut last = None;
    for from in (0..RECORDS).step_by(1_000) {
        let some: Vec<Bytes> = (from..from + 1_000).map(filling).collect();
        last = Some(loop {
            match log.append(some.clone()) {
                Err(LogError::Busy) => std::thread::sleep(Duration::from_millis(1)),
                appended => break appended?,
            }
        });
    }
    last.ok_or("nothing was appended")?.wait_durable()?;
    let appended = begun.elapsed();
    drop(log);
    let begun = Instant::now();
    let log = topic.partition(0)?;
    let opened = begun.elapsed();
    assert_eq!(log.next(), Offset(RECORDS as u64));
    let begun = Instant::now();
    let mut at = 0;
    while at < RECORDS {
        let some = log.read(Offset(at as u64), 4_096, 8 << 20)?;
        assert!(!some.is_empty(), "nothing at {at}");
        for (offset, record) in some {
            assert_eq!((offset, record), (Offset(at as u64), filling(at)));
            at += 1;
        }
    }
    let rate = |took: Duration| RECORDS as f64 / took.as_secs_f64();
    eprintln!(
        "{RECORDS} records of 150 bytes: appended {:.0}/s, opened {:.0}/s, read {:.0}/s",
        rate(appended),
        rate(opened),
        rate(begun.elapsed())
    );
    let mut waits: Vec<Duration> = (0..500)
        .map(|n| {
            let begun = Instant::now();
            log.append(vec![filling(n)])?.wait_durable()?;
            Ok(begun.elapsed())
        })
        .collect::<Result<_, LogError>>()?;
    waits.sort();
    eprintln!(
        "one record after another, each waited for: median {:?}, 99 % {:?}",
        waits[250], waits[495]
    );
    Ok(())
}
