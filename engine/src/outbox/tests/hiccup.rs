//! What fails now and then when a receiver is back is not the fault of a step.

use super::*;

/// How often each step was tried before that time.
fn tries_before(fake: &Fake, time: Instant) -> HashMap<u64, usize> {
    let mut tries = HashMap::new();
    for (at, step) in fake.tries() {
        *tries.entry(step.number).or_default() += usize::from(at < time);
    }
    tries
}

#[tokio::test]
async fn a_hiccup_behind_an_hour_away_makes_no_dead_letter() -> Outcome {
    const SUBJECTS: usize = 4;
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let (clock, back) = (Arc::clone(&house.clock), house.clock.now() + HOUR + HOUR / 6);
    // Of those that waited all the time only the first is taken at once.
    let had_hiccup: Mutex<HashSet<u64>> = Mutex::default();
    let is_taken = AtomicBool::new(false);
    let fake = Fake::new(&house.clock, move |step| {
        if clock.now() < back {
            return later();
        }
        let is_first = !is_taken.swap(true, Ordering::Relaxed);
        let waited = step.number < SUBJECTS as u64;
        match waited && !is_first && had_hiccup.lock().expect("nobody panics").insert(step.number) {
            true => later(),
            false => Some(Sent::Done),
        }
    });
    let receiver = house.receiver("away", &fake)?;
    for number in 0..5 * SUBJECTS {
        house.tell_of(number, &format!("zone-{}", number % SUBJECTS));
    }
    house
        .until("all of it", || receiver.waiting() == 0 || receiver.view().dead > 0)
        .await;
    let while_away = tries_before(&fake, back);
    let tried: Vec<usize> = (0..SUBJECTS as u64).map(|number| while_away[&number]).collect();
    assert!(tried.iter().all(|tries| *tries >= 8), "they were tried {tried:?} times");
    assert_eq!(receiver.view().dead, 0, "{:?}", receiver.dead_letters());
    let taken = fake.taken();
    assert_eq!((taken.len(), ids(&taken).len()), (5 * SUBJECTS, 5 * SUBJECTS));
    assert_in_order_for_a_subject(&taken);
    assert_eq!(
        fake.tries().len(),
        taken.len() + (SUBJECTS - 1) + tried.iter().sum::<usize>()
    );
    house.close().await;
    Ok(())
}

#[tokio::test]
async fn neither_do_failures_before_it_and_behind_it_while_the_hour_does_not_count() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut house = House::open(folder.path(), u64::MAX)?;
    let begun = house.clock.now();
    let (away, back) = (begun + HOUR / 6, begun + HOUR / 6 + HOUR);
    let clock = Arc::clone(&house.clock);
    // One step fails for ten minutes before nothing is taken any more, and for ten when others are taken again.
    let fake = Fake::new(&house.clock, move |step| {
        let now = clock.now();
        let is_away = (away..back).contains(&now);
        let fails = step.number == 0 && now < back + HOUR / 6;
        if is_away || fails { later() } else { Some(Sent::Done) }
    });
    let receiver = house.receiver("away", &fake)?;
    house.tell_of(0, "zone-0");
    let mut told = 1;
    while house.clock.now() < back + HOUR / 6 {
        house.tell_of(told, "another");
        told += 1;
        house.pass(Duration::from_secs(20)).await;
    }
    house
        .until("all of it", || receiver.waiting() == 0 || receiver.view().dead > 0)
        .await;
    assert_eq!(receiver.view().dead, 0, "{:?}", receiver.dead_letters());
    assert_eq!(fake.taken().len(), told);
    let of_it = fake.tries().iter().filter(|(_, step)| step.number == 0).count();
    assert!(of_it >= 16, "it was tried {of_it} times");
    house.close().await;
    Ok(())
}
