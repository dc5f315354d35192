//! A ledger by hand-worked numbers, and against a plain list of all that ever happened.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Deed, Grant, Ledger, PointsDeed, Refused};

const DAY: i64 = 86_400_000_000;

fn grant(cause: &str, points: u32, at_us: i64, expires_us: Option<i64>) -> Grant {
    Grant {
        person: Arc::from("ann"),
        points,
        reason: Arc::from("returned on time"),
        cause: cause.to_owned(),
        at_us,
        expires_us,
    }
}

fn deed(id: &str, deed: Deed) -> PointsDeed {
    PointsDeed {
        person: "ann".to_owned(),
        id: id.to_owned(),
        by: "desk".to_owned(),
        at_us: 0,
        deed,
    }
}

fn spend(id: &str, points: u32) -> PointsDeed {
    let reason = "coffee".to_owned();
    deed(id, Deed::Spend { points, reason })
}

fn reverse(id: &str, entry: &str) -> PointsDeed {
    let entry = entry.to_owned();
    deed(id, Deed::Reverse { entry })
}

fn left(ledger: &Ledger) -> Vec<u32> {
    let view = ledger.get("ann").expect("she has points");
    view.lots.iter().map(|lot| lot.left).collect()
}

#[test]
fn an_act_gives_its_points_once_and_what_expires_first_is_spent_first() {
    let mut ledger = Ledger::new();
    assert!(ledger.grant(&grant("e1", 10, 0, Some(30 * DAY)), 0));
    assert!(ledger.grant(&grant("e2", 5, DAY, Some(10 * DAY)), DAY));
    assert!(ledger.grant(&grant("e3", 7, DAY, None), DAY));
    assert!(!ledger.grant(&grant("e2", 5, DAY, Some(10 * DAY)), DAY), "the same act");
    assert_eq!((ledger.balance("ann"), left(&ledger)), (22, vec![5, 10, 7]));
    // 5 of the lot of ten days, 3 of the one of thirty.
    let spent = ledger.act(&spend("s1", 8), 2 * DAY).expect("there is enough");
    assert_eq!(
        (spent.points, ledger.balance("ann"), left(&ledger)),
        (-8, 14, vec![7, 7])
    );
    let again = ledger.act(&spend("s1", 8), 2 * DAY).expect("it is the same");
    assert_eq!((again, ledger.balance("ann")), (spent, 14));
    assert_eq!(
        ledger.act(&spend("s1", 9), 2 * DAY),
        Err(Refused::OtherDeed("s1".to_owned()))
    );
    assert_eq!(
        ledger.act(&spend("s2", 15), 2 * DAY),
        Err(Refused::TooFew {
            wanted: 15,
            balance: 14
        })
    );
    assert_eq!(ledger.next_due(), Some(10 * DAY));
    ledger.advance(30 * DAY);
    assert_eq!((ledger.balance("ann"), left(&ledger)), (7, vec![7]));
    let view = ledger.get("ann").expect("something was given");
    let kinds: Vec<(&str, i64)> = view.entries.iter().map(|entry| (entry.kind, entry.points)).collect();
    let wanted = [
        ("granted", 10),
        ("granted", 7),
        ("granted", 5),
        ("spent", -8),
        ("expired", -7),
    ];
    assert_eq!(kinds, wanted);
}

#[test]
fn what_is_taken_back_is_as_if_it_had_not_been() {
    let mut ledger = Ledger::new();
    let (short, long) = (grant("e1", 5, 0, Some(10 * DAY)), grant("e2", 10, 0, Some(30 * DAY)));
    ledger.grant(&short, 0);
    ledger.grant(&long, 0);
    ledger.act(&spend("s1", 8), DAY).expect("there is enough");
    assert_eq!(
        ledger.act(&reverse("r1", &short.id()), DAY),
        Err(Refused::Spent {
            entry: short.id(),
            given: 5,
            spent: 5
        })
    );
    let back = ledger.act(&reverse("r2", "s1"), DAY).expect("it was spent");
    assert_eq!((back.points, left(&ledger)), (8, vec![5, 10]));
    assert_eq!(ledger.act(&reverse("r2", "s1"), DAY).expect("it is the same"), back);
    assert_eq!(
        ledger.act(&reverse("r3", "s1"), DAY),
        Err(Refused::Reversed("s1".to_owned()))
    );
    ledger
        .act(&reverse("r4", &short.id()), DAY)
        .expect("nothing of it is spent");
    assert_eq!(left(&ledger), [10]);
    assert!(!ledger.grant(&short, DAY), "it was taken back, and does not come again");
    // Spent before it expires and given back afterwards: it expires at once.
    ledger.act(&spend("s2", 10), 2 * DAY).expect("there is enough");
    ledger.act(&reverse("r5", "s2"), 31 * DAY).expect("it was spent");
    assert_eq!(ledger.balance("ann"), 0);
    let view = ledger.get("ann").expect("something was given");
    let mut last: Vec<&str> = view.entries.iter().rev().take(2).map(|entry| entry.kind).collect();
    // Of the same instant.
    last.sort_unstable();
    assert_eq!(last, ["expired", "reversed"]);
    assert_eq!(
        ledger.act(&reverse("r6", "nothing"), DAY),
        Err(Refused::NoEntry("nothing".to_owned()))
    );
}

#[test]
fn nobody_is_given_nothing_and_who_is_forgotten_has_nothing() {
    let mut ledger = Ledger::new();
    let hand = |points, expires_us| {
        let reason = "helped".to_owned();
        deed(
            "g1",
            Deed::Grant {
                points,
                reason,
                expires_us,
            },
        )
    };
    assert_eq!(ledger.act(&hand(0, None), 0), Err(Refused::Nothing));
    assert_eq!(ledger.act(&hand(3, Some(DAY)), DAY), Err(Refused::Expired));
    assert!(ledger.get("ann").is_none_or(|view| view.balance == 0));
    let given = ledger.act(&hand(3, None), DAY).expect("it is new");
    assert_eq!(ledger.act(&hand(3, None), DAY).expect("it is the same"), given);
    assert_eq!(
        ledger.act(&hand(4, None), DAY),
        Err(Refused::OtherDeed("g1".to_owned()))
    );
    assert!(ledger.forget("ann") && !ledger.forget("ann"));
    assert_eq!((ledger.get("ann"), ledger.next_due()), (None, None));
    assert_eq!(
        ledger.act(&spend("s1", 1), DAY),
        Err(Refused::TooFew { wanted: 1, balance: 0 })
    );
}

#[test]
fn a_grant_by_hand_has_the_id_that_it_was_asked_under_as_a_spending_has() {
    let mut ledger = Ledger::new();
    let hand = |id: &str, points, reason: &str, expires_us| {
        let reason = reason.to_owned();
        deed(
            id,
            Deed::Grant {
                points,
                reason,
                expires_us,
            },
        )
    };
    let given = ledger.act(&hand("receipt:1", 5, "helped", None), 0).expect("it is new");
    assert_eq!((given.id.as_str(), given.points), ("receipt:1", 5));
    let view = ledger.get("ann").expect("she has points");
    assert_eq!((&*view.entries[0].id, &*view.lots[0].id), ("receipt:1", "receipt:1"));
    // Once, whatever it is asked for again.
    assert_eq!(ledger.act(&hand("receipt:1", 5, "helped a lot", None), DAY), Ok(given));
    let other = Err(Refused::OtherDeed("receipt:1".to_owned()));
    assert_eq!(ledger.act(&spend("receipt:1", 5), DAY), other);
    ledger.act(&spend("s1", 2), DAY).expect("there is enough");
    assert_eq!(
        ledger.act(&hand("s1", 2, "helped", None), DAY),
        Err(Refused::OtherDeed("s1".to_owned()))
    );
    assert_eq!(ledger.balance("ann"), 3);
    ledger.act(&reverse("r1", "s1"), DAY).expect("it was spent");
    ledger
        .act(&reverse("r2", "receipt:1"), DAY)
        .expect("nothing of it is spent");
    assert_eq!(ledger.balance("ann"), 0);
    assert_eq!(
        ledger.act(&reverse("r3", "receipt:1"), DAY),
        Err(Refused::Reversed("receipt:1".to_owned()))
    );
    // What runs out does so under the same id; and what is no longer listed is known all the same.
    ledger
        .act(&hand("g2", 4, "helped", Some(3 * DAY)), 2 * DAY)
        .expect("it is new");
    ledger.act(&hand("g3", 7, "helped", None), 2 * DAY).expect("it is new");
    ledger.advance(3 * DAY);
    let entries = ledger.get("ann").expect("she has points").entries;
    assert!(
        entries
            .iter()
            .any(|entry| entry.id == "g2.expired" && entry.points == -4),
        "{entries:?}"
    );
    for number in 0..150 {
        ledger.act(&spend(&format!("x{number}"), 1), 4 * DAY).ok();
        ledger
            .act(&reverse(&format!("y{number}"), &format!("x{number}")), 4 * DAY)
            .ok();
    }
    let again = ledger
        .act(&hand("g3", 7, "helped", None), 5 * DAY)
        .expect("it was given");
    assert_eq!((&*again.id, again.at_us, ledger.balance("ann")), ("g3", 2 * DAY, 7));
}

/// A ledger as a list of all that happened, gone through anew for every question.
#[derive(Default)]
struct Plain {
    /// Lots by id: points given, when they expire, when they were given (by number).
    lots: BTreeMap<String, (u32, i64, usize)>,
    left: BTreeMap<String, u32>,
    spent: BTreeMap<String, Vec<(String, u32)>>,
}

impl Plain {
    fn expire(&mut self, now_us: i64) {
        for (id, left) in &mut self.left {
            if self.lots[id].1 <= now_us {
                *left = 0;
            }
        }
    }

    fn balance(&self) -> u64 {
        self.left.values().map(|left| u64::from(*left)).sum()
    }

    fn spend(&mut self, id: &str, points: u32) -> bool {
        if points == 0 || u64::from(points) > self.balance() {
            return false;
        }
        let mut order: Vec<String> = self.lots.keys().cloned().collect();
        order.sort_by_key(|id| (self.lots[id].1, self.lots[id].2));
        let (mut wanted, mut taken) = (points, Vec::new());
        for lot in order {
            let left = self.left.get_mut(&lot).expect("each lot has one");
            let part = wanted.min(*left);
            *left -= part;
            wanted -= part;
            taken.push((lot, part));
        }
        self.spent.insert(id.to_owned(), taken);
        true
    }
}

#[test]
fn random_deeds_never_go_below_nothing_and_always_balance() {
    for seed in 0..300 {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let (mut ledger, mut plain, mut now) = (Ledger::new(), Plain::default(), 0);
        for number in 0..120 {
            now += dice.random_range(0..2 * DAY);
            ledger.advance(now);
            plain.expire(now);
            match dice.random_range(0..10) {
                0..4 => {
                    let expires = dice.random_bool(0.7).then(|| now + dice.random_range(1..20 * DAY));
                    let given = grant(
                        &format!("e{}", dice.random_range(0..60)),
                        dice.random_range(1..20),
                        now,
                        expires,
                    );
                    let is_new = !plain.lots.contains_key(&given.id());
                    assert_eq!(ledger.grant(&given, now), is_new, "seed {seed}");
                    if is_new {
                        plain.left.insert(given.id(), given.points);
                        plain
                            .lots
                            .insert(given.id(), (given.points, expires.unwrap_or(i64::MAX), number));
                    }
                }
                4..7 => {
                    let (id, points) = (format!("s{number}"), dice.random_range(1..25));
                    let is_done = ledger.act(&spend(&id, points), now).is_ok();
                    assert_eq!(is_done, plain.spend(&id, points), "seed {seed}");
                }
                7..9 => {
                    let id = format!("s{}", dice.random_range(0..120));
                    let is_done = ledger.act(&reverse(&format!("r{number}"), &id), now).is_ok();
                    let taken = plain.spent.remove(&id);
                    assert_eq!(is_done, taken.is_some(), "seed {seed}");
                    for (lot, points) in taken.into_iter().flatten() {
                        *plain.left.get_mut(&lot).expect("it is one of them") += points;
                    }
                    plain.expire(now);
                }
                _ => {
                    let grants: Vec<String> = plain.lots.keys().cloned().collect();
                    if grants.is_empty() {
                        continue;
                    }
                    let id = &grants[dice.random_range(0..grants.len())];
                    let (given, expires, _) = plain.lots[id];
                    let is_whole = plain.left[id] == given && expires > now;
                    let done = ledger.act(&reverse(&format!("r{number}"), id), now);
                    assert_eq!(done.is_ok(), is_whole, "seed {seed}: {done:?}");
                    if is_whole {
                        plain.left.insert(id.clone(), 0);
                    }
                }
            }
            assert_eq!(ledger.balance("ann"), plain.balance(), "seed {seed}");
            if let Some(view) = ledger.get("ann") {
                let shown: i64 = view.entries.iter().map(|entry| entry.points).sum();
                assert_eq!(u64::try_from(view.carried + shown), Ok(plain.balance()), "seed {seed}");
            }
            if number % 10 == 0 {
                let mut restored = Ledger::new();
                ledger.capture_anew();
                restored.restore(ledger.capture().rows.into_iter().collect());
                assert_eq!(
                    (
                        restored.get("ann"),
                        restored.next_due() <= ledger.next_due().max(restored.next_due())
                    ),
                    (ledger.get("ann"), true)
                );
                ledger = restored;
            }
        }
    }
}

#[test]
fn in_which_order_acts_are_found_makes_no_difference() {
    let grants = [
        grant("e1", 10, DAY, Some(9 * DAY)),
        grant("e2", 5, 0, Some(9 * DAY)),
        grant("e3", 7, 2 * DAY, None),
        grant("e4", 1, 0, Some(4 * DAY)),
    ];
    let ledger_of = |order: [usize; 4]| {
        let mut ledger = Ledger::new();
        for at in order {
            ledger.grant(&grants[at], grants[at].at_us);
        }
        ledger.act(&spend("s1", 8), 3 * DAY).expect("there is enough");
        ledger.advance(5 * DAY);
        ledger.get("ann")
    };
    let wanted = ledger_of([3, 1, 0, 2]);
    for order in [[0, 1, 2, 3], [2, 0, 1, 3], [1, 3, 2, 0]] {
        assert_eq!(ledger_of(order), wanted);
    }
}
