//! What holds for the embedded log: the contract, and what becomes of its files when something happens to them.

use std::fs::OpenOptions;
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use usher_connectors::embedded_log::{self, EmbeddedLog, LogOptions};
use usher_connectors::log::{Epoch, Log, LogError, Offset};
use usher_connectors::partition::Partition;

use crate::log_contract::{Kind, fill, read_all, record, records, small_segments};
use crate::small_disk::SmallDisk;
use crate::{PATIENCE, TestResult};

/// A folder for one partition.
struct Folder(tempfile::TempDir);

impl Kind for Folder {
    type Log = EmbeddedLog;

    fn fresh() -> Result<Option<Self>, Box<dyn std::error::Error>> {
        Ok(Some(Self(tempfile::tempdir()?)))
    }

    fn open(&self, options: LogOptions) -> Result<EmbeddedLog, LogError> {
        open(self.0.path(), options)
    }
}

every_log_must!(Folder);
every_log_that_forgets_must!(Folder);

/// The same for a partition of several.
mod one_of_three {
    use super::*;

    struct OneOfThree(tempfile::TempDir);

    impl Kind for OneOfThree {
        type Log = EmbeddedLog;

        fn fresh() -> Result<Option<Self>, Box<dyn std::error::Error>> {
            Ok(Some(Self(tempfile::tempdir()?)))
        }

        fn open(&self, options: LogOptions) -> Result<EmbeddedLog, LogError> {
            embedded_log::open_partition(self.0.path(), partition(1, 3), options).map(|(log, _)| log)
        }
    }

    every_log_must!(OneOfThree);
}

fn open(folder: &Path, options: LogOptions) -> Result<EmbeddedLog, LogError> {
    embedded_log::open(folder, options).map(|(log, _)| log)
}

fn partition(index: u32, of: u32) -> Partition {
    let of = NonZeroU32::new(of).expect("not zero");
    Partition::new(index, of).expect("within")
}

#[test]
fn a_folder_in_use_is_refused_in_words() -> TestResult {
    let folder = tempfile::tempdir()?;
    let _log = open(folder.path(), LogOptions::default())?;
    let second = open(folder.path(), LogOptions::default())
        .err()
        .ok_or("it was opened twice")?;
    assert!(matches!(second, LogError::InUse { .. }), "{second}");
    assert!(second.to_string().contains("open in another process"), "{second}");
    Ok(())
}

#[test]
fn partitions_are_logs_of_their_own_and_their_number_stays() -> TestResult {
    let folder = tempfile::tempdir()?;
    let partitions: Result<Vec<_>, _> = (0..3)
        .map(|index| embedded_log::open_partition(folder.path(), partition(index, 3), LogOptions::default()))
        .collect();
    let partitions = partitions?;
    for (index, (log, _)) in partitions.iter().enumerate() {
        log.claim(Epoch(index as u64))?;
        log.append(records(0..index + 1))?.wait_durable()?;
    }
    for (index, (log, _)) in partitions.iter().enumerate() {
        assert_eq!(
            (log.next(), log.epoch()),
            (Offset(index as u64 + 1), Epoch(index as u64))
        );
    }
    drop(partitions);
    let whole_of_three = open(folder.path(), LogOptions::default()).err();
    let of_four = embedded_log::open_partition(folder.path(), partition(3, 4), LogOptions::default()).err();
    for (refused, wanted) in [(whole_of_three, 1), (of_four, 4)] {
        let error = refused.ok_or("it was opened with another number of partitions")?;
        assert!(
            matches!(error, LogError::Partitions { found: 3, wanted: w, .. } if w == wanted),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains(&format!("has 3 partitions and not {wanted}")),
            "{error}"
        );
    }
    // A log of before there were partitions is the only one of one.
    let old = tempfile::tempdir()?;
    open(old.path(), LogOptions::default())?
        .append(records(0..1))?
        .wait_durable()?;
    let refused = embedded_log::open_partition(old.path(), partition(0, 2), LogOptions::default()).err();
    let is_refused = matches!(
        refused,
        Some(LogError::Partitions {
            found: 1,
            wanted: 2,
            ..
        })
    );
    assert!(is_refused, "{refused:?}");
    let (log, _) = embedded_log::open_partition(old.path(), Partition::WHOLE, LogOptions::default())?;
    assert_eq!(read_all(&log)?, [(Offset(0), record(0))]);
    Ok(())
}

/// The folder that a crash leaves behind after so many appends, each of one record and waited for.
fn crashed(appends: usize) -> Result<tempfile::TempDir, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let crashed = tempfile::tempdir()?;
    let log = open(folder.path(), LogOptions::default())?;
    for n in 0..appends {
        log.append(vec![record(n)])?.wait_durable()?;
    }
    // A copy of the open folder is what a crash leaves behind.
    copy(folder.path(), crashed.path())?;
    Ok(crashed)
}

fn newest_journal(folder: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let mut journals = files_with(folder, |path| {
        path.extension().is_some_and(|extension| extension == "jnl")
    })?;
    journals.sort();
    journals.pop().ok_or_else(|| "there is no journal".into())
}

fn files_with(folder: &Path, wanted: impl Fn(&Path) -> bool + Copy) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, wanted)?);
        } else if wanted(&path) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Where the batch that holds `text` begins in the newest journal, and where it ends: every batch begins with the same
/// bytes, and ends with the same.
fn batch_with(journal: &[u8], text: &[u8]) -> Option<std::ops::Range<usize>> {
    let at = journal.windows(text.len()).position(|bytes| bytes == text)?;
    let start = journal[..at].windows(5).rposition(|bytes| bytes == [1, 1, 0, 0, 0])?;
    let end = at
        + journal[at..]
            .windows(4)
            .position(|bytes| bytes == [b'F', b'J', b'L', 3])?
        + 4;
    Some(start..end)
}

#[test]
fn what_was_durable_survives_a_crash_and_an_end_torn_or_garbled_anywhere() -> TestResult {
    let crashed = crashed(20)?;
    let journal = std::fs::read(newest_journal(crashed.path())?)?;
    let last = batch_with(&journal, &record(19)).ok_or("the last record is in the journal")?;
    // The write of record 19 is the one that was under way.
    for at in last.clone().step_by(5) {
        for is_cut in [true, false] {
            let torn = tempfile::tempdir()?;
            copy(crashed.path(), torn.path())?;
            let file = OpenOptions::new().write(true).open(newest_journal(torn.path())?)?;
            if is_cut {
                file.set_len(at as u64)?;
            } else {
                file.write_all_at(&[journal[at] ^ 0x55], at as u64)?;
            }
            let log = open(torn.path(), LogOptions::default())?;
            let all = read_all(&log)?;
            let place = format!("byte {} of the last batch, cut: {is_cut}", at - last.start);
            // Its number is in no checksum; with another number it is still whole.
            let is_whole = all.len() == 20 && !is_cut && (5..13).contains(&(at - last.start));
            assert!(all.len() == 19 || is_whole, "{} records after {place}", all.len());
            let next = log.next();
            log.append(vec![record(usize::try_from(next.0)?)])?.wait_durable()?;
            for (at, (offset, found)) in read_all(&log)?.into_iter().enumerate() {
                assert_eq!((offset, found), (Offset(at as u64), record(at)), "{place}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_damaged_middle_of_the_journal_is_reported_with_its_offset_and_all_the_rest_is_there() -> TestResult {
    let crashed = crashed(20)?;
    let journal = std::fs::read(newest_journal(crashed.path())?)?;
    let hit = batch_with(&journal, &record(7)).ok_or("the record is in the journal")?;
    for at in hit.clone().step_by(3).filter(|at| !(5..13).contains(&(at - hit.start))) {
        let damaged = tempfile::tempdir()?;
        copy(crashed.path(), damaged.path())?;
        let file = OpenOptions::new().write(true).open(newest_journal(damaged.path())?)?;
        file.write_all_at(&[journal[at] ^ 0x55], at as u64)?;
        // Twice: damage that was found once is still told at the next start.
        for _ in 0..2 {
            let log = open(damaged.path(), LogOptions::default())?;
            let place = format!("byte {} of batch 7", at - hit.start);
            assert_eq!(log.next(), Offset(20), "{place}");
            assert_eq!(log.read(Offset(0), 100, 1 << 20)?.len(), 7, "{place}");
            match log.read(Offset(7), 100, 1 << 20) {
                Err(LogError::Damaged { offset, resume, .. }) => {
                    assert_eq!((offset, resume), (Offset(7), Offset(8)), "{place}");
                }
                other => return Err(format!("the damage in {place} went unnoticed: {other:?}").into()),
            }
            let rest = log.read(Offset(8), 100, 1 << 20)?;
            assert_eq!((rest.len(), &rest[0]), (12, &(Offset(8), record(8))), "{place}");
        }
        let is_kept = |path: &Path| path.extension().is_some_and(|extension| extension == "damaged");
        assert_eq!(files_with(damaged.path(), is_kept)?.len(), 1, "what was broken is kept");
    }
    Ok(())
}

#[test]
fn damage_in_a_table_is_reported_with_its_offset_and_all_the_rest_is_there() -> TestResult {
    let folder = tempfile::tempdir()?;
    let options = LogOptions {
        segment_bytes: 40_000,
        ..small_segments()
    };
    let log = open(folder.path(), options.clone())?;
    let filling = |n: usize| Bytes::from(format!("{n} {}", fastrand::Rng::with_seed(n as u64).u64(..)).repeat(10));
    for n in 0..1_000 {
        log.append(vec![filling(n)])?.wait_durable()?;
    }
    drop(log);
    // Opened once more, so that what is left of memory is in tables before they are looked for.
    let is_table = |path: &Path| path.parent().is_some_and(|parent| parent.ends_with("tables"));
    let is_large = |path: &Path| is_table(path) && path.metadata().is_ok_and(|meta| meta.len() > 20_000);
    let mut tables = files_with(folder.path(), is_large)?;
    tables.sort();
    let table = tables.first().ok_or("no segment was written to a table")?;
    let file = OpenOptions::new().write(true).open(table)?;
    file.write_all_at(&[0x55; 200], 9_000)?;
    let log = open(folder.path(), options)?;
    assert_eq!(log.next(), Offset(1_000));
    let (mut at, mut lost, mut found) = (Offset(0), 0, 0);
    while at < log.next() {
        match log.read(at, 64, 1 << 20) {
            Ok(some) => {
                assert!(!some.is_empty(), "nothing at {at}, and no word why");
                for (offset, record) in some {
                    assert_eq!((offset, record), (at, filling(usize::try_from(at.0)?)));
                    at = Offset(at.0 + 1);
                    found += 1;
                }
            }
            Err(LogError::Damaged { offset, resume, .. }) => {
                assert!(offset == at && resume > at, "{offset} {resume}");
                lost += resume.0 - at.0;
                at = resume;
            }
            Err(error) => return Err(error.into()),
        }
    }
    assert_eq!(found + lost, 1_000);
    assert!(lost > 0 && lost < 100, "{lost} records were in the block that was hit");
    Ok(())
}

/// Waits for something about a log, and fails when it takes too long.
fn until(what: &str, is_it: impl Fn() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while !is_it() {
        if Instant::now() > deadline {
            return Err(format!("waited {PATIENCE:?} for {what}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[test]
fn a_full_disk_stops_acknowledging_says_so_and_goes_on_once_there_is_room() -> TestResult {
    let Some(disk) = SmallDisk::mount(24)? else {
        return Ok(());
    };
    let dir = disk.path().join("log");
    let log = open(&dir, LogOptions::default())?;
    // Bytes that compression can't make small.
    let filling = |n: usize| {
        let mut random = fastrand::Rng::with_seed(n as u64);
        std::iter::repeat_with(|| random.u8(..)).take(1_000).collect::<Bytes>()
    };
    let mut expected = Vec::new();
    for round in 0..3 {
        for _ in 0..20 {
            log.append(vec![filling(expected.len())])?.wait_durable()?;
            expected.push(filling(expected.len()));
        }
        disk.fill()?;
        let before = log.durable();
        let mut waiting = Vec::new();
        for _ in 0..60 {
            waiting.push(log.append(vec![filling(expected.len())])?);
            expected.push(filling(expected.len()));
        }
        until("the trouble", || log.health().trouble.is_some())?;
        let health = log.health();
        let reason = health.trouble.map(|trouble| trouble.reason).unwrap_or_default();
        assert!(reason.contains("No space left on device"), "{reason}");
        assert!(
            reason.contains("nothing is acknowledged until this works again"),
            "{reason}"
        );
        // It tries again and again. The database may free a little itself, which lets some through.
        until("more tries", || log.health().failures >= health.failures + 2)?;
        assert!(
            log.durable() < Offset(before.0 + 60),
            "the disk was not full in round {round}"
        );
        assert!(log.health().waiting_for > Duration::ZERO && log.health().waiting_records > 0);
        disk.make_room()?;
        for append in waiting {
            append.wait_durable()?;
        }
        assert_eq!(log.health().trouble, None);
    }
    let check = |log: &EmbeddedLog| -> TestResult {
        let all: Vec<Bytes> = read_all(log)?.into_iter().map(|(_, record)| record).collect();
        assert_eq!(all, expected);
        Ok(())
    };
    check(&log)?;
    drop(log);
    check(&open(&dir, LogOptions::default())?)
}

#[test]
fn a_log_closed_on_a_full_disk_keeps_what_it_acknowledged() -> TestResult {
    let Some(disk) = SmallDisk::mount(24)? else {
        return Ok(());
    };
    let dir = disk.path().join("log");
    let log = open(&dir, LogOptions::default())?;
    fill(&log, 30)?;
    disk.fill()?;
    let large = Bytes::from(
        std::iter::repeat_with(|| fastrand::u8(..))
            .take(100_000)
            .collect::<Vec<_>>(),
    );
    let append = log.append(vec![large])?;
    until("the trouble", || log.health().trouble.is_some())?;
    log.close();
    let error = append
        .wait_durable()
        .err()
        .ok_or("it was acknowledged on a full disk")?;
    assert!(matches!(error, LogError::Unwritable { .. }), "{error}");
    drop(log);
    disk.make_room()?;
    let log = open(&dir, LogOptions::default())?;
    assert_eq!(read_all(&log)?.len(), 30);
    fill(&log, 1)?;
    Ok(())
}

#[test]
fn a_read_only_folder_is_refused_in_words_and_opens_again_later() -> TestResult {
    let Some(disk) = SmallDisk::mount(24)? else {
        return Ok(());
    };
    let dir = disk.path().join("log");
    fill(&open(&dir, LogOptions::default())?, 30)?;
    disk.set_read_only(true)?;
    let error = open(&dir, LogOptions::default())
        .err()
        .ok_or("it was opened for writing")?;
    assert!(error.to_string().contains("Read-only file system"), "{error}");
    assert!(error.to_string().contains(&dir.display().to_string()), "{error}");
    disk.set_read_only(false)?;
    assert_eq!(read_all(&open(&dir, LogOptions::default())?)?.len(), 30);
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The files below a folder that have these bytes in them.
fn files_holding(folder: &Path, bytes: &[u8]) -> std::io::Result<Vec<PathBuf>> {
    let holds = |path: &Path| {
        let read = std::fs::read(path).unwrap_or_default();
        read.windows(bytes.len()).any(|window| window == bytes)
    };
    files_with(folder, holds)
}

/// Bytes that nothing makes shorter, so that whoever compresses leaves them as they are.
fn incompressible(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn what_was_replaced_is_in_no_file_after_a_purge() -> TestResult {
    let folder = tempfile::tempdir()?;
    let log = open(folder.path(), small_segments())?;
    let secret = incompressible(7, 40);
    for n in 0..200 {
        let mut record = incompressible(n + 100, 200);
        if n % 20 == 4 {
            record.extend_from_slice(&secret);
        }
        log.append(vec![record.into()])?.wait_durable()?;
    }
    assert!(
        !files_holding(folder.path(), &secret)?.is_empty(),
        "it is there at first"
    );
    let until = log.durable();
    let mut at = Offset(0);
    while at < until {
        let turn = log.rewrite(at, until, 16, &mut |_, record| {
            let is_secret = record.windows(secret.len()).any(|window| window == secret);
            is_secret.then(Bytes::new)
        })?;
        at = turn.next;
    }
    assert!(
        !files_holding(folder.path(), &secret)?.is_empty(),
        "what was overwritten is still there"
    );
    log.purge()?;
    assert_eq!(files_holding(folder.path(), &secret)?, Vec::<PathBuf>::new());
    assert_eq!(
        read_all(&log)?.iter().filter(|(_, record)| record.is_empty()).count(),
        10
    );
    // Also after what opens it next has put it in order.
    log.append(records(0..1))?.wait_durable()?;
    drop(log);
    let log = open(folder.path(), small_segments())?;
    assert_eq!(log.next(), Offset(201));
    assert_eq!(files_holding(folder.path(), &secret)?, Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn a_purge_holds_up_nobody_who_appends_for_long() -> TestResult {
    let folder = tempfile::tempdir()?;
    let log = std::sync::Arc::new(open(folder.path(), small_segments())?);
    for n in 0..500 {
        log.append(records(n..n + 1))?.wait_durable()?;
    }
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let appending = std::thread::spawn({
        let (log, is_over) = (std::sync::Arc::clone(&log), std::sync::Arc::clone(&is_over));
        move || {
            let mut appended = 500;
            while !is_over.load(std::sync::atomic::Ordering::Acquire) {
                log.append(records(appended..appended + 1))?.wait_durable()?;
                appended += 1;
            }
            Ok::<usize, LogError>(appended)
        }
    });
    let mut at = Offset(0);
    while at < Offset(500) {
        let turn = log.rewrite(at, Offset(500), 50, &mut |offset, _| {
            (offset.0 % 2 == 0).then(|| Bytes::from_static(b"even"))
        })?;
        at = turn.next;
    }
    log.purge()?;
    is_over.store(true, std::sync::atomic::Ordering::Release);
    let appended = appending.join().expect("the thread does not panic")?;
    let all = read_all(log.as_ref())?;
    assert_eq!(all.len(), appended, "nothing is lost");
    for (offset, found) in all {
        let n = usize::try_from(offset.0)?;
        let expected = if n < 500 && n % 2 == 0 {
            Bytes::from_static(b"even")
        } else {
            record(n)
        };
        assert_eq!(found, expected);
    }
    Ok(())
}
