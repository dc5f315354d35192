//! A visit is one person's way through the house: in, to a room and perhaps a seat, and out again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use chrono::NaiveDate;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::crowd::Hours;
use crate::crowd::act::{Acts, Card, MINUTE, SECOND, SeatState, Tag, TagAction, What, pick};
use crate::crowd::house::{House, Purpose};
use crate::crowd::story::Told;
use crate::day_figures::DayFigures;

/// Readers of the library. Low numbers come more often than high ones.
const CARDS: u32 = 6_000;
const FIRST_CARD: u32 = 2_210_000;

/// Items on the shelves.
const ITEMS: u32 = 60_000;

/// Nobody comes in the last half-hour, everyone is on the way out five minutes before closing, and the announcement
/// 20 minutes before closing spreads them.
const LAST_ARRIVAL_MS: i64 = 30 * MINUTE;
const LAST_LEAVE_MS: i64 = 5 * MINUTE;
const ANNOUNCED_MS: i64 = 15 * MINUTE;

/// Share of a room's capacity from which people begin to look elsewhere, and from which nobody goes in.
const FULL_FROM: f64 = 0.75;
const FULL: f64 = 0.97;

/// Rooms a person looks into before giving up.
const TRIES: u32 = 5;

/// Who was in the house, and when, in epoch milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visit {
    pub(super) card: Card,
    pub(super) from: i64,
    pub(super) until: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errand {
    Study,
    Borrow,
    Browse,
}

struct Visitor {
    card: Card,
    errand: Errand,
    leaves: i64,
    room: Option<usize>,
    seat: Option<usize>,
    items: Vec<Tag>,
}

/// What a visitor does next. The order breaks ties of time, so it must stay the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    ChooseRoom,
    Settle,
    Break,
    Resume { cafe: usize },
    Leave,
}

/// Adds the acts of a day's visits and tells who was there.
pub(super) fn make(
    house: &House,
    hours: Hours,
    figures: &DayFigures,
    day: NaiveDate,
    told: &Told,
    dice: &mut ChaCha8Rng,
    acts: &mut Acts,
) -> Vec<Visit> {
    let arrivals = arrivals(hours, figures, day, dice);
    let free = |room: &crate::crowd::house::Room| {
        room.seats
            .iter()
            .copied()
            .filter(|seat| !told.seats.contains(seat))
            .collect()
    };
    let mut day = Day {
        house,
        figures,
        last_leave: hours.closes - LAST_LEAVE_MS,
        persons: vec![0; house.rooms.len()],
        free_seats: house.rooms.iter().map(free).collect(),
        taken: HashSet::new(),
        next: BinaryHeap::new(),
        dice,
        acts,
    };
    let mut last_seen: HashMap<Card, i64> = HashMap::new();
    let mut visitors = Vec::with_capacity(arrivals.len());
    let mut visits = Vec::with_capacity(arrivals.len());
    for (number, &arrives) in arrivals.iter().enumerate() {
        let (errand, stay) = day.errand();
        let announced = hours.closes - LAST_LEAVE_MS - day.dice.random_range(0..ANNOUNCED_MS);
        let leaves = (arrives + stay).min(announced);
        // Nobody is here twice at once; a quarter-hour is more than the way out can take.
        let is_here = |card: &Card| last_seen.get(card).is_some_and(|seen| seen + 15 * MINUTE > arrives);
        // Should everyone be here already, someone is twice: a rush beyond the number of cards is not worth more care.
        let mut cards = std::iter::repeat_with(|| day.card()).take(1_000);
        let card = cards.find(|card| !is_here(card)).unwrap_or(Card(FIRST_CARD));
        // Someone who borrows may stay longer than meant, up to the end of the day.
        last_seen.insert(
            card,
            if errand == Errand::Borrow {
                day.last_leave
            } else {
                leaves + 30 * MINUTE
            },
        );
        visitors.push(Visitor {
            card,
            errand,
            leaves,
            room: None,
            seat: None,
            items: Vec::new(),
        });
        visits.push(Visit {
            card,
            from: arrives,
            until: leaves,
        });
        day.acts.come_in(house, arrives);
        let linger = day.ms(20, 90);
        day.next.push(Reverse((arrives + linger, number, Next::ChooseRoom)));
    }
    while let Some(Reverse((now, number, next))) = day.next.pop() {
        if let Some((then, next)) = day.step(now, &mut visitors[number], next) {
            day.next.push(Reverse((then, number, next)));
        }
    }
    visits
}

/// Times of a day's arrivals, in order, by the figures' half-hours within the opening hours.
fn arrivals(hours: Hours, figures: &DayFigures, day: NaiveDate, dice: &mut ChaCha8Rng) -> Vec<i64> {
    let [fewest, most] = figures.visits_on(day);
    let curve = figures.arrivals_on(day);
    let (first, last) = (hours.opens + MINUTE, hours.closes - LAST_ARRIVAL_MS);
    // Half-hours of the wall clock that touch the opening hours, with the time of their start.
    let local = chrono::DateTime::from_timestamp_millis(hours.opens).map(|opens| opens.with_timezone(&hours.zone));
    let since_midnight = local.map_or(0, |opens| {
        use chrono::Timelike;
        i64::from(opens.num_seconds_from_midnight()) * SECOND
    });
    let midnight = hours.opens - since_midnight;
    let mut sum = 0.0;
    let mut bins = Vec::new();
    for half_hour in 0.. {
        let start = midnight + half_hour * 30 * MINUTE;
        let (from, until) = (start.max(first), (start + 30 * MINUTE).min(last));
        if start >= last {
            break;
        }
        if from < until {
            let share = curve[(half_hour % 48) as usize] * (until - from) as f64 / (30 * MINUTE) as f64;
            sum += share;
            bins.push((sum, from, until));
        }
    }
    if bins.is_empty() || sum <= 0.0 {
        return Vec::new();
    }
    let many = dice.random_range(fewest..=most);
    let mut arrivals: Vec<i64> = (0..many)
        .map(|_| {
            let at = dice.random::<f64>() * sum;
            let bin = bins.partition_point(|(up_to, ..)| *up_to <= at).min(bins.len() - 1);
            dice.random_range(bins[bin].1..bins[bin].2)
        })
        .collect();
    arrivals.sort_unstable();
    arrivals
}

struct Day<'a> {
    house: &'a House,
    figures: &'a DayFigures,
    last_leave: i64,
    /// Persons in each room, those on their way and on a break counted in.
    persons: Vec<u32>,
    free_seats: Vec<Vec<usize>>,
    /// Items that someone holds or took home today.
    taken: HashSet<Tag>,
    next: BinaryHeap<Reverse<(i64, usize, Next)>>,
    dice: &'a mut ChaCha8Rng,
    acts: &'a mut Acts,
}

impl Day<'_> {
    /// Some milliseconds, between two numbers of seconds.
    fn ms(&mut self, from_s: i64, to_s: i64) -> i64 {
        self.dice.random_range(from_s * SECOND..to_s * SECOND)
    }

    fn minutes(&mut self, range: [u32; 2]) -> i64 {
        self.dice
            .random_range(i64::from(range[0]) * MINUTE..=i64::from(range[1]) * MINUTE)
    }

    fn card(&mut self) -> Card {
        let share: f64 = self.dice.random();
        Card(FIRST_CARD + (share * share * f64::from(CARDS)) as u32)
    }

    /// What someone comes for, and for how long, in milliseconds.
    fn errand(&mut self) -> (Errand, i64) {
        let stay = &self.figures.stay;
        let study_ms = stay.study_minutes.at(self.dice.random()) * MINUTE as f64;
        let what: f64 = self.dice.random();
        let (errand, part) = if what < stay.study_share {
            (Errand::Study, 1.0)
        } else if what < stay.study_share + stay.borrow_share {
            (Errand::Borrow, stay.borrow_stay)
        } else {
            (Errand::Browse, stay.browse_stay)
        };
        (errand, ((study_ms * part) as i64).max(3 * MINUTE))
    }

    fn step(&mut self, now: i64, visitor: &mut Visitor, next: Next) -> Option<(i64, Next)> {
        match next {
            Next::ChooseRoom => Some(self.choose_room(now, visitor)),
            Next::Settle => Some(self.settle(now, visitor)),
            Next::Break => Some(self.take_break(now, visitor)),
            Next::Resume { cafe } => Some(self.resume(now, visitor, cafe)),
            Next::Leave => {
                self.leave(now, visitor);
                None
            }
        }
    }

    fn choose_room(&mut self, now: i64, visitor: &mut Visitor) -> (i64, Next) {
        let wish = |purpose: Purpose| match (visitor.errand, purpose) {
            (_, Purpose::Class) => 0,
            (Errand::Study, Purpose::Study) => 20,
            (Errand::Borrow, Purpose::Shelves) => 100,
            (Errand::Browse, Purpose::Shelves) => 6,
            (Errand::Study | Errand::Browse, Purpose::Catalogue) => 8,
            (Errand::Browse, Purpose::Cafe) => 10,
            _ => 1,
        };
        // A bigger room draws more people.
        let weights: Vec<u32> = self
            .house
            .rooms
            .iter()
            .map(|room| wish(room.purpose) * room.capacity)
            .collect();
        let sum: u32 = weights.iter().sum();
        for _ in 0..TRIES {
            if sum == 0 || now >= visitor.leaves {
                break;
            }
            let mut at = self.dice.random_range(0..sum);
            let room = weights.iter().position(|weight| {
                let here = at < *weight;
                at = at.saturating_sub(*weight);
                here
            });
            let room = room.expect("the draw lies below the sum of the weights");
            let share = f64::from(self.persons[room]) / f64::from(self.house.rooms[room].capacity.max(1));
            if share < FULL_FROM || self.dice.random::<f64>() < (FULL - share) / (FULL - FULL_FROM) {
                let walk = self.ms(10, 60);
                self.acts.go_to(self.house, room, now, walk);
                self.persons[room] += 1;
                visitor.room = Some(room);
                return (now + walk, Next::Settle);
            }
        }
        (now + self.ms(30, 240), Next::Leave)
    }

    fn settle(&mut self, now: i64, visitor: &mut Visitor) -> (i64, Next) {
        let room = visitor.room.expect("one settles after having chosen a room");
        match visitor.errand {
            Errand::Study => {
                let free = &mut self.free_seats[room];
                if !free.is_empty() {
                    let seat = free.swap_remove(self.dice.random_range(0..free.len()));
                    visitor.seat = Some(seat);
                    let sits = now + self.ms(10, 60);
                    self.acts.add(
                        sits,
                        What::Seat {
                            seat,
                            state: SeatState::Occupied,
                        },
                    );
                }
                self.work(now, visitor)
            }
            Errand::Borrow => {
                let done = self.borrow(now, visitor);
                (visitor.leaves.max(done + 20 * SECOND), Next::Leave)
            }
            Errand::Browse => (visitor.leaves.max(now + MINUTE), Next::Leave),
        }
    }

    /// Works on until a break or until the time to leave, whichever comes first.
    fn work(&mut self, now: i64, visitor: &Visitor) -> (i64, Next) {
        let pause = now + self.minutes(self.figures.stay.minutes_before_break);
        let longest_break = i64::from(self.figures.stay.break_minutes[1]) * MINUTE;
        if pause + longest_break + 10 * MINUTE < visitor.leaves {
            (pause, Next::Break)
        } else {
            (visitor.leaves.max(now + 2 * MINUTE), Next::Leave)
        }
    }

    fn take_break(&mut self, now: i64, visitor: &mut Visitor) -> (i64, Next) {
        let room = visitor.room.expect("one takes a break from a room");
        let cafe = self.house.room_for(Purpose::Cafe).filter(|cafe| {
            *cafe != room && f64::from(self.persons[*cafe]) < FULL * f64::from(self.house.rooms[*cafe].capacity) - 1.0
        });
        let Some(cafe) = cafe else {
            return self.work(now, visitor);
        };
        if let Some(seat) = visitor.seat {
            self.acts.add(
                now,
                What::Seat {
                    seat,
                    state: SeatState::Away,
                },
            );
        }
        let (goes, walk) = (now + self.ms(5, 15), self.ms(20, 60));
        self.acts.change(self.house, room, cafe, goes, walk);
        self.persons[cafe] += 1;
        (
            now + 2 * MINUTE + self.minutes(self.figures.stay.break_minutes),
            Next::Resume { cafe },
        )
    }

    fn resume(&mut self, now: i64, visitor: &mut Visitor, cafe: usize) -> (i64, Next) {
        let room = visitor.room.expect("one comes back to the room one left");
        let walk = self.ms(20, 60);
        self.acts.change(self.house, cafe, room, now, walk);
        self.persons[cafe] -= 1;
        if let Some(seat) = visitor.seat {
            self.acts.add(
                now + walk + 10 * SECOND,
                What::Seat {
                    seat,
                    state: SeatState::Occupied,
                },
            );
        }
        self.work(now + walk, visitor)
    }

    /// Brings something back perhaps, takes items from the shelf, puts some back, and checks the rest out. Gives the
    /// time when all is done.
    fn borrow(&mut self, now: i64, visitor: &mut Visitor) -> i64 {
        let figures = &self.figures.rfid;
        let mut now = now;
        let self_check = pick(&self.house.self_checks, self.dice);
        if let (Some(reader), true) = (self_check, self.dice.random_bool(figures.return_share)) {
            now += self.ms(20, 60);
            let tag = self.item();
            self.acts.add(
                now,
                What::Tag {
                    reader,
                    tag,
                    antenna: 1,
                    action: TagAction::Checkin,
                },
            );
        }
        for _ in 0..self.dice.random_range(figures.items[0]..=figures.items[1]) {
            let Some(shelf) = pick(&self.house.shelves, self.dice) else {
                break;
            };
            // Time to look at it, put it back and check the others out must be left.
            if now + 15 * MINUTE > self.last_leave {
                break;
            }
            now += self.ms(60, 300);
            let tag = self.item();
            now = self.acts.pass(shelf, tag, now, figures, self.dice);
            if self_check.is_none() || self.dice.random_bool(figures.put_back_share) {
                now += self.ms(40, 200);
                now = self.acts.pass(shelf, tag, now, figures, self.dice);
            } else {
                visitor.items.push(tag);
            }
        }
        if let Some(reader) = self_check {
            for &tag in &visitor.items {
                now += self.dice.random_range(10 * SECOND..30 * SECOND);
                self.acts.add(
                    now,
                    What::Tag {
                        reader,
                        tag,
                        antenna: 1,
                        action: TagAction::Read,
                    },
                );
                now += 3 * SECOND;
                let action = TagAction::Checkout(visitor.card);
                self.acts.add(
                    now,
                    What::Tag {
                        reader,
                        tag,
                        antenna: 1,
                        action,
                    },
                );
            }
        }
        now
    }

    /// An item nobody has touched today: one that left may not be on a shelf again.
    fn item(&mut self) -> Tag {
        loop {
            let tag = Tag(self.dice.random_range(0..ITEMS));
            if self.taken.insert(tag) {
                return tag;
            }
        }
    }

    fn leave(&mut self, now: i64, visitor: &mut Visitor) {
        let mut now = now;
        if let Some(room) = visitor.room.take() {
            if let Some(seat) = visitor.seat.take() {
                self.acts.add(
                    now,
                    What::Seat {
                        seat,
                        state: SeatState::Free,
                    },
                );
                self.free_seats[room].push(seat);
            }
            let walk = self.ms(10, 60);
            now += self.ms(5, 20);
            self.acts.come_back(self.house, room, now, walk);
            self.persons[room] -= 1;
            now += walk + self.ms(15, 40);
        }
        let exit = pick(&self.house.exits, self.dice);
        let mut last_read = now;
        for (place, &tag) in visitor.items.iter().enumerate() {
            if let Some(exit) = exit {
                let passes = now + place as i64 * 300;
                last_read = last_read.max(self.acts.pass(exit, tag, passes, &self.figures.rfid, self.dice));
            }
        }
        let out = last_read + self.ms(2, 8);
        self.acts.go_out(self.house, out);
    }
}
