//! What can't be read any more, and answers that make no sense.

use bytes::Bytes;
use usher_connectors::spool::{Change, Spool};

use super::*;

#[tokio::test]
async fn steps_that_can_not_be_read_hold_up_nobody_and_are_counted_as_lost() -> Outcome {
    const SPOILT: u64 = 700;
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let fake = Fake::new(&house.clock, done);
    house.receiver("one", &fake)?;
    house.close().await;
    let spool = Spool::open(folder.path())?;
    let spoilt = |number| {
        Change::Put(
            number,
            Bytes::from_static(b"no step, and long enough to hold the head of one"),
        )
    };
    spool.write(&(0..SPOILT).map(spoilt).collect::<Vec<_>>())?;
    spool.sync()?;
    drop(spool);

    let mut house = House::open(folder.path(), u64::MAX)?;
    let receiver = house.receiver("one", &fake)?;
    house.until("the spoilt ones", || receiver.waiting() == 0).await;
    assert_eq!((receiver.view().lost, fake.taken().len()), (SPOILT, 0));
    house.tell(1);
    house.until("one that is well", || fake.taken().len() == 1).await;
    assert_eq!(receiver.view().lost, SPOILT);
    house.close().await;
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_asks_for_no_peace_at_all_is_spared_like_one_that_fails() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let fake = Fake::new(&house.clock, |_| {
        Some(Sent::Later {
            reason: "it answered 429".to_owned(),
            peace: Some(Duration::ZERO),
        })
    });
    let receiver = house.receiver("one", &fake)?;
    for number in 0..20 {
        house.tell(number);
    }
    house.until("the breaker", || receiver.view().state == "open").await;
    house.close().await;
    Ok(())
}
