//! What checkpoints must survive, on real files.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn change(name: &str, begins_anew: bool, segments: &[&[u8]]) -> Change {
    Change {
        name: name.to_owned(),
        begins_anew,
        segments: segments.iter().map(|segment| Bytes::copy_from_slice(segment)).collect(),
    }
}

fn update(next_offset: u64, parts: Vec<Change>) -> Update<Vec<Result<Change, String>>> {
    Update {
        next_offset: Offset(next_offset),
        format: 2,
        parts: parts.into_iter().map(Ok).collect(),
    }
}

fn loaded_parts(store: &CheckpointStore) -> Result<BTreeMap<String, Vec<Vec<u8>>>, LogError> {
    let checkpoint = store.load()?.checkpoint;
    let parts = checkpoint.into_iter().flat_map(|checkpoint| checkpoint.parts);
    let segments = |part: Part| part.segments.iter().map(|segment| segment.to_vec()).collect();
    Ok(parts.map(|part| (part.name.clone(), segments(part))).collect())
}

/// Files of checkpoints, the oldest first.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    files.sort();
    files
}

fn damage(path: &Path, at: usize) -> TestResult {
    let mut bytes = fs::read(path)?;
    bytes[at] ^= 0x10;
    Ok(fs::write(path, bytes)?)
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before_and_says_so() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = CheckpointStore::open(folder.path())?;
    store.save(update(10, vec![change("windows", true, &[&[7; 3000]])]))?;
    store.save(update(20, vec![change("windows", false, &[&[8; 50]])]))?;
    assert_eq!(store.keep_from(), Some(Offset(10)));
    damage(&files(folder.path())[1], 2)?;
    let loaded = CheckpointStore::open(folder.path())?.load()?;
    let checkpoint = loaded.checkpoint.expect("the one before is whole");
    assert_eq!((checkpoint.sequence, checkpoint.next_offset), (0, Offset(10)));
    assert_eq!(
        loaded.unreadable,
        ["checkpoint 1: part windows: file 1 does not hold at 0 what was saved"]
    );
    // Where its end is damaged nobody knows what belongs to it.
    let last = files(folder.path())[1].clone();
    let length = fs::read(&last)?.len();
    damage(&last, length - 6)?;
    let loaded = CheckpointStore::open(folder.path())?.load()?;
    assert_eq!(loaded.checkpoint.map(|checkpoint| checkpoint.sequence), Some(0));
    assert_eq!(loaded.unreadable, ["checkpoint 1: its end is not what was written"]);
    Ok(())
}

#[test]
fn a_save_that_was_cut_off_anywhere_never_happened() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = CheckpointStore::open(folder.path())?;
    store.save(update(1, vec![change("a", true, &[b"first"])]))?;
    store.save(update(
        2,
        vec![change("a", false, &[b"second"]), change("b", true, &[b"b"])],
    ))?;
    let last = files(folder.path())[1].clone();
    let whole = fs::read(&last)?;
    for cut in 0..whole.len() {
        fs::write(&last, &whole[..cut])?;
        let store = CheckpointStore::open(folder.path())?;
        let checkpoint = store.load()?.checkpoint.expect("the first is whole");
        assert_eq!(checkpoint.next_offset, Offset(1), "cut off at {cut}");
    }
    // The next one has a name of its own, and the rest goes with it.
    fs::write(folder.path().join("00000000000000000007.unfinished"), b"half")?;
    let store = CheckpointStore::open(folder.path())?;
    for next in [3, 4] {
        store.save(update(next, vec![change("a", true, &[b"again"])]))?;
    }
    assert_eq!(files(folder.path()).len(), 2, "{:?}", files(folder.path()));
    assert_eq!(store.keep_from(), Some(Offset(3)));
    Ok(())
}

#[test]
fn what_is_mostly_zeros_takes_little_room() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = CheckpointStore::open(folder.path())?;
    let mut sketch = vec![0; 1 << 20];
    sketch[77_777] = 9;
    let saved = store.save(update(1, vec![change("sketch", true, &[&sketch, b""])]))?;
    assert!(saved.written_bytes < 8_192, "{saved:?}");
    let again = CheckpointStore::open(folder.path())?;
    assert_eq!(loaded_parts(&again)?["sketch"], [sketch, Vec::new()]);
    Ok(())
}

#[test]
fn nothing_new_is_next_to_nothing_written() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = CheckpointStore::open(folder.path())?;
    let mut random = fastrand::Rng::with_seed(3);
    let large: Vec<u8> = (0..1 << 20).map(|_| random.u8(..)).collect();
    let whole = |next| {
        update(
            next,
            vec![change("large", true, &[&large]), change("small", true, &[b"s"])],
        )
    };
    let first = store.save(whole(1))?;
    assert!(first.written_bytes > 1 << 20, "{first:?}");
    // Whether it is handed in again or not: the same bytes are not written twice.
    for next in 2..200 {
        let same = update(next, vec![change("large", false, &[]), change("small", true, &[b"s"])]);
        let saved = store.save(if next % 2 == 0 { same } else { whole(next) })?;
        assert!(saved.written_bytes < 300, "{saved:?}");
        assert_eq!(saved.state_bytes, first.state_bytes);
    }
    assert_eq!(
        files(folder.path()).len(),
        3,
        "the first, which holds the state, and two manifests"
    );
    Ok(())
}

#[test]
fn a_hundred_checkpoints_in_a_chain_are_what_was_saved() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut random = fastrand::Rng::with_seed(11);
    let mut store = CheckpointStore::open(folder.path())?;
    let mut model: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let mut must_begin_anew = true;
    let mut before = model.clone();
    for number in 0..300 {
        let mut parts = Vec::new();
        before.clone_from(&model);
        for part in 0..8 {
            let name = format!("part {part}");
            if part > 3 && random.u8(0..10) == 0 {
                model.remove(&name);
                continue;
            }
            let begins_anew = must_begin_anew || !model.contains_key(&name) || random.u8(0..12) == 0;
            let new = random.usize(0..3);
            let segments: Vec<Vec<u8>> = (0..new).map(|_| vec![random.u8(..); random.usize(0..5000)]).collect();
            let of_model = model.entry(name.clone()).or_default();
            if begins_anew {
                of_model.clear();
            }
            of_model.extend(segments.iter().cloned());
            let segments: Vec<&[u8]> = segments.iter().map(Vec::as_slice).collect();
            parts.push(change(&name, begins_anew, &segments));
        }
        model.retain(|name, _| parts.iter().any(|part| part.name == *name));
        let saved = store.save(update(number, parts))?;
        must_begin_anew = false;
        assert_eq!(loaded_parts(&store)?, model, "checkpoint {number}");
        assert!(saved.files <= FILES_MAX + KEPT, "{saved:?}");
        if random.u8(0..10) == 0 {
            store = CheckpointStore::open(folder.path())?;
            assert_eq!(loaded_parts(&store)?, model, "after a restart at {number}");
            must_begin_anew = true;
        }
    }
    // The one before it is as whole.
    let newest = store.load()?.checkpoint.expect("there is one");
    let older = store.load_before(newest.sequence)?.checkpoint.expect("there are two");
    let older: BTreeMap<String, Vec<Vec<u8>>> = older
        .parts
        .into_iter()
        .map(|part| {
            (
                part.name,
                part.segments.iter().map(|segment| segment.to_vec()).collect(),
            )
        })
        .collect();
    assert_eq!(older, before);
    Ok(())
}

#[test]
fn what_rots_is_found_while_the_one_before_is_still_there() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = CheckpointStore::open(folder.path())?;
    store.save(update(1, vec![change("a", true, &[&[1; 4000]])]))?;
    damage(&files(folder.path())[0], 2)?;
    let failed = store.save(update(2, vec![change("a", false, &[b"more"])]));
    let words = failed.expect_err("the first segment is not what was saved").to_string();
    assert!(
        words.contains("it was written and can't be read back: file 0 does not hold at 0"),
        "{words}"
    );
    let failed = store.save(update(3, vec![change("a", false, &[b"more"])]));
    let words = failed
        .expect_err("what changed is lost with the one that failed")
        .to_string();
    assert!(words.contains("nothing that they change"), "{words}");
    store.save(update(4, vec![change("a", true, &[b"all"])]))?;
    assert_eq!(loaded_parts(&store)?["a"], [b"all"]);
    Ok(())
}

#[test]
fn what_a_newer_version_wrote_stays_as_it_is() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = CheckpointStore::open(folder.path())?;
    store.save(update(1, vec![change("a", true, &[b"state"])]))?;
    let path = files(folder.path())[0].clone();
    let mut bytes = fs::read(&path)?;
    let trailer = bytes.len() - 40;
    bytes[trailer + 8] = 9;
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[trailer..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&crc);
    fs::write(&path, &bytes)?;
    let refused = CheckpointStore::open(folder.path()).err().expect("it is too new");
    assert!(matches!(refused, LogError::OfNewerVersion { .. }), "{refused}");
    assert!(refused.to_string().contains("its files are of form 9"), "{refused}");
    assert_eq!(fs::read(&path)?, bytes);
    Ok(())
}

#[test]
fn the_last_checkpoint_can_be_the_only_one_and_then_needs_no_file_but_its_own() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = CheckpointStore::open(folder.path())?;
    store.save(update(
        10,
        vec![change("people", true, &[b"ann"]), change("zones", true, &[b"hall"])],
    ))?;
    store.save(update(
        20,
        vec![change("people", false, &[b"bob"]), change("zones", false, &[])],
    ))?;
    assert_eq!(files(folder.path()).len(), 2);
    // Begun anew it refers to nothing before, not even to what has not changed.
    store.begin_anew();
    store.save(update(
        30,
        vec![change("people", true, &[b"bob"]), change("zones", true, &[b"hall"])],
    ))?;
    assert!(
        files(folder.path()).len() > 1,
        "the one before is kept in case that this one rots"
    );
    let gone = store.keep_last()?;
    let left = files(folder.path());
    assert_eq!((left.len(), gone > 0), (1, true));
    assert!(!fs::read(&left[0])?.windows(3).any(|bytes| bytes == b"ann"));
    assert_eq!(store.keep_from(), Some(Offset(30)));
    let parts = loaded_parts(&CheckpointStore::open(folder.path())?)?;
    assert_eq!(parts["people"], [b"bob".to_vec()]);
    assert_eq!(parts["zones"], [b"hall".to_vec()]);
    // It goes on behind that one.
    store.save(update(
        40,
        vec![change("people", false, &[b"cat"]), change("zones", false, &[])],
    ))?;
    assert_eq!(loaded_parts(&store)?["people"], [b"bob".to_vec(), b"cat".to_vec()]);
    Ok(())
}

#[test]
fn a_part_comes_piece_by_piece_each_gone_before_the_next_is_asked_for() -> TestResult {
    /// A segment that is in memory until it is dropped.
    struct Held(Vec<u8>, Arc<AtomicUsize>);

    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::Relaxed);
        }
    }

    let folder = tempfile::tempdir()?;
    let store = CheckpointStore::open(folder.path())?;
    let held = Arc::new(AtomicUsize::new(0));
    let piece = |number: u8| {
        assert_eq!(held.fetch_add(1, Ordering::Relaxed), 0, "those before are still there");
        Ok(Change {
            name: "large".to_owned(),
            begins_anew: number == 0,
            segments: vec![Bytes::from_owner(Held(vec![number; 1 << 16], Arc::clone(&held)))],
        })
    };
    let update = |next_offset: u64, pieces: std::ops::Range<u8>| Update {
        next_offset: Offset(next_offset),
        format: 2,
        parts: pieces.map(piece),
    };
    store.save(update(1, 0..40))?;
    store.save(update(2, 40..60))?;
    let all: Vec<Vec<u8>> = (0..60).map(|number| vec![number; 1 << 16]).collect();
    assert_eq!(loaded_parts(&CheckpointStore::open(folder.path())?)?["large"], all);
    // The same pieces are known again, wherever a part is cut.
    let again = store.save(update(3, 0..60))?;
    assert!(again.written_bytes < 8_192, "{again:?}");
    Ok(())
}

#[test]
fn a_change_that_cannot_be_had_leaves_the_checkpoints_before() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = CheckpointStore::open(folder.path())?;
    store.save(update(1, vec![change("a", true, &[b"first"])]))?;
    let broken = Update {
        next_offset: Offset(2),
        format: 2,
        parts: [Ok(change("a", false, &[b"second"])), Err("no such column".to_owned())],
    };
    let words = store.save(broken).expect_err("half of it is none").to_string();
    assert!(words.contains("no such column"), "{words}");
    assert_eq!(files(folder.path()).len(), 1);
    assert_eq!(loaded_parts(&store)?["a"], [b"first"]);
    let goes_on = store.save(update(3, vec![change("a", false, &[b"third"])]));
    assert!(goes_on.is_err(), "what changed is lost with the one that failed");
    Ok(())
}
