//! What every log must do, whatever keeps it: a suite that runs over any implementation.
//!
//! A kind of log says how one is made and opened again; `every_log_must!` then makes a test of each sentence here. This
//! file needs nothing else of its test program, so that another crate can take it in by its path.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use usher_connectors::embedded_log::LogOptions;
use usher_connectors::log::{Epoch, Log, LogError, Offset};

type TestResult = Result<(), Box<dyn Error>>;

/// Longer than anything here takes on a busy machine; reaching it is a failure, never a way of waiting.
const PATIENCE: Duration = Duration::from_secs(30);

/// A place where a log of some kind lies. Opening it once more after dropping what was opened before is a restart.
pub(crate) trait Kind: Sized {
    /// The log.
    type Log: Log;

    /// A place without a log; none, with a printed reason, when there can't be one here.
    fn fresh() -> Result<Option<Self>, Box<dyn Error>>;

    /// Opens the log there.
    fn open(&self, options: LogOptions) -> Result<Self::Log, LogError>;
}

/// Makes a test of each sentence of the contract for a kind of log.
macro_rules! every_log_must {
    ($kind:ty) => {
        every_log_must! { $kind:
            give_records_back_in_order_at_consecutive_offsets,
            bound_a_read_by_bytes_but_always_give_one_record,
            continue_at_the_next_offset_after_a_restart,
            keep_appends_of_many_threads_once_and_in_each_threads_order,
            say_that_its_queue_is_full_and_when_there_is_room,
            let_a_reader_follow_without_asking_again_and_again,
            refuse_appends_of_an_earlier_owner,
            end_what_follows_it_when_it_is_closed,
            put_other_records_in_the_place_of_some,
            do_what_a_list_of_records_would_do,
        }
    };
    ($kind:ty: $($sentence:ident,)*) => {
        $(
            #[test]
            fn $sentence() -> Result<(), Box<dyn std::error::Error>> {
                crate::log_contract::$sentence::<$kind>()
            }
        )*
    };
}

/// The same for a log that drops its oldest records itself, when it is told to.
macro_rules! every_log_that_forgets_must {
    ($kind:ty) => {
        every_log_must! { $kind:
            drop_the_oldest_by_size_and_never_what_is_still_needed,
            drop_by_age_even_where_a_site_has_gone_quiet,
        }
    };
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(PATIENCE, future)
        .await
        .map_err(|_| format!("waited {PATIENCE:?} for {what}"))
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    Ok(runtime.block_on(future))
}

/// A log of its own for one test, or the end of it.
macro_rules! fresh {
    () => {
        match K::fresh()? {
            Some(place) => place,
            None => return Ok(()),
        }
    };
}

pub(crate) fn record(n: usize) -> Bytes {
    Bytes::from(format!("record {n}"))
}

pub(crate) fn records(range: std::ops::Range<usize>) -> Vec<Bytes> {
    range.map(record).collect()
}

pub(crate) fn read_all(log: &impl Log) -> Result<Vec<(Offset, Bytes)>, LogError> {
    let mut all = Vec::new();
    let mut from = log.oldest();
    loop {
        let some = log.read(from, 7, 1 << 20)?;
        match some.last() {
            Some((last, _)) => from = Offset(last.0 + 1),
            None => return Ok(all),
        }
        all.extend(some);
    }
}

pub(crate) fn give_records_back_in_order_at_consecutive_offsets<K: Kind>() -> TestResult {
    let place = fresh!();
    let log = place.open(LogOptions::default())?;
    assert_eq!(
        (log.oldest(), log.next(), log.durable()),
        (Offset(0), Offset(0), Offset(0))
    );
    assert_eq!(log.read(Offset(0), 10, 10)?, []);
    let first = log.append(records(0..3))?;
    let second = log.append(records(3..4))?;
    let nothing = log.append(Vec::new())?;
    assert_eq!(
        (first.first, first.next(), second.first, nothing.first),
        (Offset(0), Offset(3), Offset(3), Offset(4))
    );
    nothing.wait_durable()?;
    second.wait_durable()?;
    first.wait_durable()?;
    assert_eq!((log.next(), log.durable()), (Offset(4), Offset(4)));
    let all: Vec<_> = (0..4).map(|n| (Offset(n as u64), record(n))).collect();
    assert_eq!(read_all(&log)?, all);
    assert_eq!(log.read(Offset(1), 2, 1 << 20)?, all[1..3]);
    assert_eq!(log.read(Offset(4), 2, 1 << 20)?, []);
    Ok(())
}

pub(crate) fn bound_a_read_by_bytes_but_always_give_one_record<K: Kind>() -> TestResult {
    let place = fresh!();
    let log = place.open(LogOptions::default())?;
    log.append(vec![
        Bytes::from(vec![1; 100]),
        Bytes::from(vec![2; 100]),
        Bytes::from(vec![3; 100]),
    ])?
    .wait_durable()?;
    assert_eq!(log.read(Offset(0), 10, 250)?.len(), 2);
    assert_eq!(log.read(Offset(0), 10, 200)?.len(), 2);
    assert_eq!(log.read(Offset(0), 10, 1)?.len(), 1);
    assert_eq!(log.read(Offset(0), 0, 1000)?.len(), 0);
    Ok(())
}

pub(crate) fn continue_at_the_next_offset_after_a_restart<K: Kind>() -> TestResult {
    let place = fresh!();
    for round in 0..3 {
        let log = place.open(LogOptions::default())?;
        assert_eq!(log.next(), Offset(round * 10));
        // Not waited for: closing writes what is queued.
        let _ = log.append(records(0..10))?;
    }
    let log = place.open(LogOptions::default())?;
    assert_eq!(log.durable(), Offset(30));
    assert_eq!(read_all(&log)?.len(), 30);
    Ok(())
}

pub(crate) fn keep_appends_of_many_threads_once_and_in_each_threads_order<K: Kind>() -> TestResult {
    const THREADS: usize = 8;
    const APPENDS: usize = 200;
    let place = fresh!();
    let log = Arc::new(place.open(LogOptions::default())?);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || -> Result<(), LogError> {
                for n in 0..APPENDS {
                    let pair = vec![
                        Bytes::from(format!("{thread}/{n}/a")),
                        Bytes::from(format!("{thread}/{n}/b")),
                    ];
                    let append = log.append(pair.clone())?;
                    let first = append.first;
                    append.wait_durable()?;
                    let there = log.read(first, 2, 1 << 20)?;
                    assert_eq!(there.iter().map(|(_, record)| record.clone()).collect::<Vec<_>>(), pair);
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a thread failed")??;
    }
    let all = read_all(&*log)?;
    assert_eq!(all.len(), THREADS * APPENDS * 2);
    for (at, (offset, _)) in all.iter().enumerate() {
        assert_eq!(offset.0, at as u64);
    }
    for thread in 0..THREADS {
        let prefix = format!("{thread}/");
        let own: Vec<_> = all
            .iter()
            .filter(|(_, record)| record.starts_with(prefix.as_bytes()))
            .collect();
        for (at, (_, record)) in own.iter().enumerate() {
            let half = if at % 2 == 0 { "a" } else { "b" };
            assert_eq!(record, format!("{thread}/{}/{half}", at / 2).as_bytes());
        }
    }
    Ok(())
}

pub(crate) fn say_that_its_queue_is_full_and_when_there_is_room<K: Kind>() -> TestResult {
    let place = fresh!();
    let options = LogOptions {
        queue_appends: 4,
        queue_bytes: 4 << 20,
        append_bytes_max: 1 << 20,
        ..LogOptions::default()
    };
    let log = place.open(options)?;
    let too_large = log.append(vec![Bytes::from(vec![0; (1 << 20) + 1])]);
    assert!(matches!(too_large, Err(LogError::TooLarge { .. })), "{too_large:?}");
    let mut busy = 0;
    let mut appends = Vec::new();
    while appends.len() < 200 {
        match log.append(vec![Bytes::from(vec![appends.len() as u8; 100_000])]) {
            Ok(append) => appends.push(append),
            Err(LogError::Busy) => {
                busy += 1;
                block_on(soon("room", log.room()))??;
            }
            Err(error) => return Err(error.into()),
        }
    }
    assert!(busy > 0, "a queue of four never filled up");
    for (at, append) in appends.into_iter().enumerate() {
        assert_eq!(append.first, Offset(at as u64));
        append.wait_durable()?;
    }
    Ok(())
}

/// Segments of a few records each.
pub(crate) fn small_segments() -> LogOptions {
    LogOptions {
        segment_bytes: 1_000,
        retention_age: None,
        retention_bytes: None,
        ..LogOptions::default()
    }
}

pub(crate) fn fill(log: &impl Log, count: usize) -> Result<(), LogError> {
    for _ in 0..count {
        log.append(vec![Bytes::from(vec![5; 200])])?.wait_durable()?;
    }
    Ok(())
}

pub(crate) fn drop_the_oldest_by_size_and_never_what_is_still_needed<K: Kind>() -> TestResult {
    let place = fresh!();
    let options = LogOptions {
        retention_bytes: Some(8_000),
        ..small_segments()
    };
    let log = place.open(options.clone())?;
    fill(&log, 100)?;
    assert_eq!(
        log.retain(Offset(0), 0)?.dropped_records,
        0,
        "all of it is still needed"
    );
    let retained = log.retain(Offset(30), 0)?;
    assert!(
        retained.oldest > Offset(20) && retained.oldest <= Offset(30),
        "{retained:?}"
    );
    assert_eq!(
        (retained.dropped_records, log.oldest()),
        (retained.oldest.0, retained.oldest)
    );
    let retained = log.retain(log.next(), 0)?;
    assert!(
        retained.oldest >= Offset(60) && retained.oldest < Offset(75),
        "{retained:?}"
    );
    assert!(matches!(log.read(Offset(0), 1, 1), Err(LogError::Expired(oldest)) if oldest == retained.oldest));
    assert_eq!(log.read(retained.oldest, 1, 1)?.len(), 1);
    drop(log);
    let log = place.open(options)?;
    assert_eq!((log.oldest(), log.next()), (retained.oldest, Offset(100)));
    assert_eq!(read_all(&log)?.len() as u64, 100 - retained.oldest.0);
    Ok(())
}

pub(crate) fn drop_by_age_even_where_a_site_has_gone_quiet<K: Kind>() -> TestResult {
    let place = fresh!();
    let options = LogOptions {
        retention_age: Some(Duration::from_secs(3600)),
        ..small_segments()
    };
    let log = place.open(options.clone())?;
    fill(&log, 20)?;
    let now_us = i64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_micros(),
    )?;
    assert_eq!(log.retain(log.next(), now_us)?.dropped_records, 0, "all of it is young");
    let later_us = now_us + 2 * 3600 * 1_000_000;
    let oldest = log.retain(Offset(10), later_us)?.oldest;
    assert!(oldest > Offset(0) && oldest <= Offset(10), "{oldest}");
    assert_eq!(log.retain(log.next(), later_us)?.oldest, Offset(20));
    assert_eq!(log.read(Offset(20), 1, 1)?, []);
    assert!(matches!(log.read(Offset(19), 1, 1), Err(LogError::Expired(Offset(20)))));
    drop(log);
    let log = place.open(options)?;
    assert_eq!((log.oldest(), log.next()), (Offset(20), Offset(20)));
    fill(&log, 1)?;
    assert_eq!(log.read(Offset(20), 9, 9)?.len(), 1);
    Ok(())
}

pub(crate) fn let_a_reader_follow_without_asking_again_and_again<K: Kind>() -> TestResult {
    let place = fresh!();
    let log = Arc::new(place.open(LogOptions::default())?);
    let writer = {
        let log = Arc::clone(&log);
        move || -> Result<(), LogError> {
            for n in 0..200 {
                log.append(records(n * 3..n * 3 + 3))?.wait_durable()?;
            }
            Ok(())
        }
    };
    block_on(async {
        let writing = tokio::task::spawn_blocking(writer);
        let (mut at, mut waits) = (Offset(0), 0);
        while at < Offset(600) {
            let some = log.read(at, 50, 1 << 20)?;
            let Some((last, _)) = some.last() else {
                waits += 1;
                let end = soon("more records", log.tail(at)).await??;
                assert!(end > at && end <= log.next(), "{end}");
                continue;
            };
            assert_eq!(some[0], (at, record(usize::try_from(at.0)?)));
            at = Offset(last.0 + 1);
        }
        soon("the writer", writing).await???;
        assert!(waits > 0 && waits <= 201, "waited {waits} times for 200 appends");
        // What is there already is not waited for.
        assert_eq!(soon("what is there", log.tail(Offset(0))).await??, Offset(600));
        Ok(())
    })?
}

pub(crate) fn refuse_appends_of_an_earlier_owner<K: Kind>() -> TestResult {
    let place = fresh!();
    let log = place.open(LogOptions::default())?;
    log.append(records(0..1))?.wait_durable()?;
    log.claim(Epoch(3))?;
    assert_eq!(log.epoch(), Epoch(3));
    log.append(records(1..2))?.wait_durable()?;
    drop(log);
    // An owner from before comes back late; so does one that claims nothing.
    let late = place.open(LogOptions::default())?;
    for claimed in [late.claim(Epoch(2)), late.append(records(2..3)).map(|_| ())] {
        let error = claimed.expect_err("the log has a later owner");
        assert!(matches!(error, LogError::Fenced { newest: Epoch(3), .. }), "{error}");
        assert!(error.to_string().contains("taken over under epoch 3"), "{error}");
    }
    assert_eq!(late.next(), Offset(2));
    assert_eq!(read_all(&late)?.len(), 2, "reading is everybody's");
    drop(late);
    // The owner itself goes on after a restart, and so does the next one.
    for epoch in [3, 4] {
        let log = place.open(LogOptions::default())?;
        log.claim(Epoch(epoch))?;
        log.append(records(2..3))?.wait_durable()?;
    }
    assert_eq!(read_all(&place.open(LogOptions::default())?)?.len(), 4);
    Ok(())
}

pub(crate) fn end_what_follows_it_when_it_is_closed<K: Kind>() -> TestResult {
    let place = fresh!();
    let log = place.open(LogOptions::default())?;
    let appends: Result<Vec<_>, _> = (0..50).map(|n| log.append(records(n..n + 1))).collect();
    log.close();
    assert_eq!(log.append(records(50..51)).err(), Some(LogError::Closed));
    for append in appends? {
        append.wait_durable()?;
    }
    block_on(async {
        soon("room in a closed log", log.room()).await?;
        assert_eq!(soon("what was queued", log.tail(Offset(49))).await?, Ok(Offset(50)));
        assert_eq!(soon("the end", log.tail(Offset(50))).await?, Err(LogError::Closed));
        Ok(())
    })?
}

/// Puts what `replace` gives in the place of records, in turns; false where this log can't.
fn rewrite(
    log: &impl Log,
    from: Offset,
    until: Offset,
    replace: &mut dyn FnMut(Offset, &Bytes) -> Option<Bytes>,
) -> Result<bool, LogError> {
    let mut at = from;
    while at < until {
        match log.rewrite(at, until, 3, replace) {
            Err(LogError::Immutable) => return Ok(false),
            rewritten => {
                let next = rewritten?.next;
                assert!(next > at, "a turn comes further");
                at = next;
            }
        }
    }
    Ok(true)
}

pub(crate) fn put_other_records_in_the_place_of_some<K: Kind>() -> TestResult {
    let place = fresh!();
    let log = place.open(small_segments())?;
    for n in 0..100 {
        log.append(records(n..n + 1))?.wait_durable()?;
    }
    let mut seen = Vec::new();
    let is_done = rewrite(&log, Offset(10), Offset(90), &mut |offset, before| {
        seen.push((offset, before.clone()));
        (offset.0 % 10 == 3).then(|| Bytes::from_static(b"another"))
    })?;
    if !is_done {
        assert_eq!(log.purge(), Err(LogError::Immutable));
        return Ok(());
    }
    let looked_at: Vec<_> = (10..90).map(|n| (Offset(n as u64), record(n))).collect();
    assert_eq!(seen, looked_at, "each record once, in order, and none beside");
    let expected: Vec<_> = (0..100)
        .map(|n| match n {
            10..90 if n % 10 == 3 => (Offset(n as u64), Bytes::from_static(b"another")),
            _ => (Offset(n as u64), record(n)),
        })
        .collect();
    assert_eq!(read_all(&log)?, expected);
    log.purge()?;
    assert_eq!(read_all(&log)?, expected);
    // It goes on as if nothing had been.
    log.append(records(100..101))?.wait_durable()?;
    drop(log);
    let log = place.open(small_segments())?;
    assert_eq!(log.next(), Offset(101));
    assert_eq!(read_all(&log)?[..100], expected);
    Ok(())
}

/// Something that is done with a log.
#[derive(Debug, Clone)]
enum Use {
    /// Appends records of these sizes, in one append each, and waits when all are queued.
    Append(Vec<Vec<usize>>),
    /// Reads from a place (in 1/255 of all offsets there were) so many records and bytes.
    Read(u8, usize, usize),
    /// Lets go of what is before a place.
    Retain(u8),
    /// Replaces every third record between two places; then also makes the old ones unfindable.
    Rewrite(u8, u8, bool),
    /// Claims an epoch.
    Claim(u64),
    /// Closes and opens it again.
    Restart,
}

fn any_use() -> impl Strategy<Value = Use> {
    prop_oneof![
        6 => vec(vec(0_usize..300, 0..6), 1..6).prop_map(Use::Append),
        4 => (any::<u8>(), 0_usize..20, 0_usize..2_000).prop_map(|(place, count, bytes)| Use::Read(place, count, bytes)),
        2 => any::<u8>().prop_map(Use::Retain),
        2 => (any::<u8>(), any::<u8>(), any::<bool>()).prop_map(|(from, until, purges)| Use::Rewrite(from, until, purges)),
        1 => (0_u64..4).prop_map(Use::Claim),
        2 => Just(Use::Restart),
    ]
}

/// What a log is without a disk.
#[derive(Default)]
struct Model {
    records: Vec<Bytes>,
    oldest: u64,
    own: u64,
    newest: u64,
}

impl Model {
    fn next(&self) -> u64 {
        self.records.len() as u64
    }

    fn place(&self, part: u8) -> u64 {
        self.next() * u64::from(part) / 255
    }
}

pub(crate) fn do_what_a_list_of_records_would_do<K: Kind>() -> TestResult {
    let config = Config {
        cases: 12,
        failure_persistence: None,
        ..Config::default()
    };
    // A failing case is printed whole, the smallest that fails.
    TestRunner::new(config)
        .run(&vec(any_use(), 1..40), |uses| {
            let place = K::fresh().map_err(|error| TestCaseError::fail(error.to_string()))?;
            place.map_or(Ok(()), |place| run_against_model(&place, &uses))
        })
        .map_err(|error| error.to_string().into())
}

fn run_against_model<K: Kind>(place: &K, uses: &[Use]) -> Result<(), TestCaseError> {
    let fail = |error: LogError| TestCaseError::fail(error.to_string());
    let options = LogOptions {
        retention_bytes: Some(4_000),
        ..small_segments()
    };
    let mut log = place.open(options.clone()).map_err(fail)?;
    let mut model = Model::default();
    for step in uses {
        match step {
            Use::Append(appends) => {
                let mut queued = Vec::new();
                for sizes in appends {
                    let records: Vec<Bytes> = (model.next()..)
                        .zip(sizes)
                        .map(|(offset, &size)| Bytes::from(format!("{offset:0size$}")))
                        .collect();
                    match log.append(records.clone()) {
                        Err(LogError::Fenced { .. }) => prop_assert!(model.own < model.newest),
                        appended => {
                            prop_assert!(model.own >= model.newest);
                            let append = appended.map_err(fail)?;
                            prop_assert_eq!((append.first.0, append.count), (model.next(), records.len() as u64));
                            model.records.extend(records);
                            queued.push(append);
                        }
                    }
                }
                for append in queued {
                    append.wait_durable().map_err(fail)?;
                }
            }
            Use::Read(part, count, bytes) => {
                let from = model.place(*part);
                match log.read(Offset(from), *count, *bytes) {
                    Err(LogError::Expired(oldest)) => prop_assert!(from < model.oldest && oldest.0 == model.oldest),
                    read => check_read(&model, from, *count, *bytes, &read.map_err(fail)?)?,
                }
            }
            Use::Retain(part) => {
                let keep_from = model.place(*part);
                let retained = log.retain(Offset(keep_from), 0).map_err(fail)?;
                let oldest = log.oldest().0;
                prop_assert_eq!(retained.oldest.0, oldest);
                prop_assert!(oldest == model.oldest || (oldest > model.oldest && oldest <= keep_from));
                prop_assert_eq!(retained.dropped_records, oldest - model.oldest);
                model.oldest = oldest;
            }
            Use::Rewrite(from, until, purges) => {
                let (from, until) = (model.place(*from).max(model.oldest), model.place(*until));
                let mut other = |offset: Offset, before: &Bytes| {
                    offset
                        .0
                        .is_multiple_of(3)
                        .then(|| Bytes::from(vec![b'*'; before.len() / 2]))
                };
                if rewrite(&log, Offset(from), Offset(until), &mut other).map_err(fail)? {
                    for offset in (from..until).filter(|offset| offset.is_multiple_of(3)) {
                        let record = &mut model.records[usize::try_from(offset).expect("a short log")];
                        *record = vec![b'*'; record.len() / 2].into();
                    }
                    if *purges {
                        log.purge().map_err(fail)?;
                    }
                }
            }
            Use::Claim(epoch) => {
                let claimed = log.claim(Epoch(*epoch));
                prop_assert_eq!(claimed.is_ok(), *epoch >= model.newest, "{:?}", claimed);
                if *epoch >= model.newest {
                    (model.own, model.newest) = (*epoch, *epoch);
                }
            }
            Use::Restart => {
                drop(log);
                log = place.open(options.clone()).map_err(fail)?;
                model.own = 0;
            }
        }
        prop_assert_eq!((log.oldest().0, log.next().0), (model.oldest, model.next()));
        prop_assert_eq!(log.durable().0, model.next());
    }
    let all: Vec<Bytes> = read_all(&log)
        .map_err(fail)?
        .into_iter()
        .map(|(_, record)| record)
        .collect();
    prop_assert_eq!(
        &all[..],
        &model.records[usize::try_from(model.oldest).expect("a short log")..]
    );
    Ok(())
}

/// A read gives a stretch of the records from there on, never none where there is one, and keeps to its bounds.
fn check_read(
    model: &Model,
    from: u64,
    count: usize,
    bytes: usize,
    read: &[(Offset, Bytes)],
) -> Result<(), TestCaseError> {
    prop_assert!(from >= model.oldest);
    let expected = model.records[usize::try_from(from).expect("a short log")..].iter();
    for ((offset, record), (at, expected)) in read.iter().zip((from..).zip(expected)) {
        prop_assert_eq!((offset.0, record), (at, expected));
    }
    prop_assert!(read.len() <= count);
    let total: usize = read.iter().map(|(_, record)| record.len()).sum();
    prop_assert!(
        total <= bytes || read.len() == 1,
        "{} bytes in {} records",
        total,
        read.len()
    );
    prop_assert_eq!(read.is_empty(), count == 0 || from == model.next());
    Ok(())
}
