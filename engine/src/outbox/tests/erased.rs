//! What was about somebody who was erased: nobody is sent it, and the disk has it no more.

use super::*;

/// The files below a folder in which a text stands.
fn files_with(folder: &std::path::Path, text: &str) -> std::io::Result<usize> {
    let mut found = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found += files_with(&path, text)?;
            continue;
        }
        let bytes = std::fs::read(path)?;
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let is_in = bytes[..end].windows(text.len()).any(|window| window == text.as_bytes());
        found += usize::from(is_in);
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erased_steps_keep_their_places_and_tell_nothing() -> Outcome {
    const STEPS: usize = 1_500;
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let is_back = Arc::new(AtomicBool::new(false));
    let back = Arc::clone(&is_back);
    let fake = Fake::new(&house.clock, move |_| {
        if back.load(Ordering::Relaxed) {
            Some(Sent::Done)
        } else {
            later()
        }
    });
    let receiver = house.receiver("away", &fake)?;
    for number in 0..STEPS {
        house.tell(number);
    }
    // A tenth of them, of which the first lie on the disk alone.
    let journal = Arc::clone(&house.journal);
    let is_named = |text: &str| text.contains("\"zone-3\"");
    let erased = tokio::task::spawn_blocking(move || {
        let erased = journal.erase(&is_named)?;
        journal.purge()?;
        Ok::<_, usher_connectors::spool::SpoolError>((erased, journal.erase(&is_named)?))
    });
    assert_eq!(erased.await??, (STEPS as u64 / 10, 0), "and once more there is nothing");
    assert_eq!(files_with(folder.path(), "\"zone-3\"")?, 0);
    is_back.store(true, Ordering::Relaxed);
    house.until("the others", || receiver.waiting() == 0).await;
    let taken = fake.taken();
    // What was on its way at that moment is not called back.
    let under_way = taken.iter().filter(|step| step.names(&is_named)).count();
    assert!(under_way <= OPTIONS.max_in_flight, "{under_way} of them were sent");
    assert_eq!(ids(&taken).len(), STEPS - STEPS / 10 + under_way);
    assert_eq!((receiver.view().lost, receiver.view().dead), (0, 0));
    house.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_about_somebody_go_and_others_stay() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let fake = Fake::new(&house.clock, |_| Some(Sent::Refused("it does not like it".to_owned())));
    let receiver = house.receiver("picky", &fake)?;
    for number in [2, 3, 13] {
        house.tell(number);
    }
    house.until("the letters", || receiver.view().dead == 3).await;
    assert_eq!(receiver.erase(&|text| text.contains("\"zone-3\"")), 2);
    assert_eq!(receiver.view().dead, 1);
    house.close().await;
    Ok(())
}
