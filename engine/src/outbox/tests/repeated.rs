//! What was told since a checkpoint comes again behind it, and is known.

use super::*;

/// More than are kept when nothing can come again.
const STEPS: usize = 12_000;

async fn tell_all(house: &mut House, numbers: std::ops::Range<usize>) {
    for number in numbers {
        house.tell(number);
        house.journal.room().await;
    }
}

#[tokio::test]
async fn all_that_was_told_since_a_checkpoint_is_known_however_much_it_is() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let fake = Fake::new(&house.clock, done);
    let receiver = house.receiver("one", &fake)?;
    tell_all(&mut house, 0..100).await;
    house.journal.mark_told_until(1);
    tell_all(&mut house, 100..STEPS).await;
    house.until("all of it", || receiver.waiting() == 0).await;
    drop(receiver);
    house.close().await;

    // The log is gone through again, and there is more behind it.
    let mut house = House::open(folder.path(), u64::MAX)?;
    let receiver = house.receiver("one", &fake)?;
    tell_all(&mut house, 0..STEPS + 10).await;
    assert_eq!(house.journal.next(), STEPS as u64 + 10);
    house.until("the rest", || receiver.waiting() == 0).await;
    assert_eq!((fake.taken().len(), ids(&fake.taken()).len()), (STEPS + 10, STEPS + 10));
    house.close().await;
    Ok(())
}

#[tokio::test]
async fn what_can_not_come_again_is_forgotten_in_memory_and_on_disk() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let marked = |house: &House, number: usize| house.journal.mark_told_until(number as u64);
    tell_all(&mut house, 0..STEPS).await;
    assert_eq!((house.journal.known(), house.journal.oldest()), (STEPS, 0));
    // A checkpoint that is taken may never be there; so one is not enough.
    marked(&house, 1);
    tell_all(&mut house, STEPS..STEPS + 600).await;
    assert_eq!((house.journal.known(), house.journal.oldest()), (STEPS + 600, 0));
    marked(&house, 2);
    tell_all(&mut house, STEPS + 600..STEPS + 1_200).await;
    assert_eq!(house.journal.known(), 10_000 + 1, "and the one that came last");
    house.until("the disk", || house.journal.oldest() > 2_000).await;
    house.close().await;

    // With few kept on disk there are not more in memory for long, however rare checkpoints are.
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), 11_000)?;
    tell_all(&mut house, 0..STEPS).await;
    assert_eq!(house.journal.known(), 11_000 + 1);
    house.close().await;
    Ok(())
}
