//! What the disk lost before it was durable is written once more.

use std::thread::sleep;

use super::*;
use crate::outbox::lane::Settled;
use crate::outbox::shelf::Shelf;
use crate::pipeline::simulation::disk::{Refuses, ShelfDisk, SimShelf};

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited for {what}");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_was_lost_when_it_was_to_be_made_durable_is_written_again() -> Outcome {
    const STEPS: usize = 3_000;
    let disk = Arc::new(ShelfDisk::default());
    let shelf: Arc<dyn Shelf> = Arc::new(SimShelf(Arc::clone(&disk)));
    let journal = Journal::over(Arc::clone(&shelf), u64::MAX, 10_000)?;
    journal.join("one")?;
    journal.begin_writing()?;
    let mut names = StepNames::default();
    let mut tell = |number: usize| {
        let alert = alert(&format!("a{number}"), "hall", State::Active);
        journal.tell(names.name(&alert), News::from(&alert), 1_000_000, None);
    };
    (0..STEPS / 3).for_each(&mut tell);
    wait_until("the disk", || journal.not_durable().1.is_empty());
    disk.refuse(Refuses::Syncs);
    (STEPS / 3..2 * STEPS / 3).for_each(&mut tell);
    let settled = Settled {
        cursor: Some(7),
        ahead: Some(9),
        caught_up: Vec::new(),
    };
    journal.settle("one", &settled, None);
    journal.mark_told_until(42);
    wait_until("two losses", || disk.failed_syncs() >= 2);
    let (_, steps) = journal.not_durable();
    assert_eq!(steps.len(), STEPS / 3, "they are still in memory, for a checkpoint");
    disk.refuse(Refuses::Nothing);
    (2 * STEPS / 3..STEPS).for_each(&mut tell);
    wait_until("the disk", || journal.not_durable().1.is_empty());
    journal.close();

    let journal = Journal::over(shelf, u64::MAX, 10_000)?;
    let kept = journal.read_disk(0, usize::MAX)?;
    assert!((0..).zip(&kept).all(|(wanted, (number, _))| wanted == *number));
    assert_eq!(kept.len(), STEPS);
    let standing = journal.join("one")?;
    assert_eq!((standing.cursor, standing.ahead.contains(&9)), (7, true));
    assert_eq!(journal.told_until()?, Some(42));
    Ok(())
}

#[test]
fn confirmations_alone_are_made_durable_too() -> Outcome {
    let disk = Arc::new(ShelfDisk::default());
    let shelf: Arc<dyn Shelf> = Arc::new(SimShelf(Arc::clone(&disk)));
    let journal = Journal::over(shelf, u64::MAX, 10_000)?;
    journal.begin_writing()?;
    // Nothing follows it that would take it along.
    journal.mark_told_until(42);
    wait_until("the writer", || matches!(journal.told_until(), Ok(Some(42))));
    wait_until("the disk", || disk.is_durable());
    journal.close();
    Ok(())
}

#[test]
fn what_a_killed_process_had_written_is_durable_before_it_counts_as_durable() -> Outcome {
    let disk = Arc::new(ShelfDisk::default());
    let shelf: Arc<dyn Shelf> = Arc::new(SimShelf(Arc::clone(&disk)));
    let journal = Journal::over(Arc::clone(&shelf), u64::MAX, 10_000)?;
    let alert = alert("a", "hall", State::Active);
    let id = StepNames::default().name(&alert);
    journal.tell(id, News::from(&alert), 1_000_000, None);
    journal.write_once(false);
    assert!(!disk.is_durable());
    drop(journal);

    let journal = Journal::over(shelf, u64::MAX, 10_000)?;
    assert!(journal.not_durable().1.is_empty() && disk.is_durable());
    assert_eq!(journal.read_disk(0, usize::MAX)?.len(), 1);
    Ok(())
}
