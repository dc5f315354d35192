//! An act is something that happens in the house, whether or not a device notices.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::crowd::house::House;
use crate::day_figures::Rfid;

/// Milliseconds in a second and in a minute.
pub(super) const SECOND: i64 = 1_000;
pub(super) const MINUTE: i64 = 60 * SECOND;

/// A reader's card. Its number goes out raw, as devices send it; the engine makes a pseudonym of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Card(pub(super) u32);

/// An item's tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tag(pub(super) u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeatState {
    Occupied,
    Free,
    Away,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TagAction {
    Read,
    Checkout(Card),
    Checkin,
}

/// One view of a session at a catalogue.
#[derive(Debug, Clone)]
pub(super) struct Click {
    pub(super) card: Option<Card>,
    pub(super) session: u32,
    pub(super) action: &'static str,
    /// What was searched and how much was found.
    pub(super) search: Option<(&'static str, u32)>,
    pub(super) item: Option<u32>,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Entered {
        gate: usize,
    },
    Exited {
        gate: usize,
    },
    Seat {
        seat: usize,
        state: SeatState,
    },
    Tag {
        reader: usize,
        tag: Tag,
        antenna: u8,
        action: TagAction,
    },
    Click {
        terminal: usize,
        click: Click,
    },
    /// A gate says that it lives.
    GateReport {
        gate: usize,
    },
    /// A seat says its state again.
    SeatReport {
        seat: usize,
    },
}

/// Acts of a day with their times in epoch milliseconds, in no order yet.
#[derive(Debug, Default)]
pub(super) struct Acts {
    acts: Vec<(i64, What)>,
}

impl Acts {
    pub(super) fn add(&mut self, at: i64, what: What) {
        self.acts.push((at, what));
    }

    /// In time order; what happens at the same time stays in the order it was added.
    pub(super) fn sorted(mut self) -> Vec<(i64, What)> {
        self.acts.sort_by_key(|(at, _)| *at);
        self.acts
    }

    /// From the street into the hall.
    pub(super) fn come_in(&mut self, house: &House, at: i64) {
        self.add(at, What::Entered { gate: house.street });
    }

    /// From the hall into a room: out of the one now, into the other after `walk` milliseconds.
    pub(super) fn go_to(&mut self, house: &House, room: usize, at: i64, walk: i64) {
        self.add(at, What::Exited { gate: house.inner });
        self.add(
            at + walk,
            What::Entered {
                gate: house.rooms[room].gate,
            },
        );
    }

    /// From a room into the hall.
    pub(super) fn come_back(&mut self, house: &House, room: usize, at: i64, walk: i64) {
        self.add(
            at,
            What::Exited {
                gate: house.rooms[room].gate,
            },
        );
        self.add(at + walk, What::Entered { gate: house.inner });
    }

    /// From one room into another.
    pub(super) fn change(&mut self, house: &House, from: usize, to: usize, at: i64, walk: i64) {
        self.add(
            at,
            What::Exited {
                gate: house.rooms[from].gate,
            },
        );
        self.add(
            at + walk,
            What::Entered {
                gate: house.rooms[to].gate,
            },
        );
    }

    /// From the hall to the street.
    pub(super) fn go_out(&mut self, house: &House, at: i64) {
        self.add(at, What::Exited { gate: house.street });
    }

    /// An item passes a reader, which reads it once or again and again: first by its first antenna, then by its second.
    /// Gives the time of the last read.
    pub(super) fn pass(&mut self, reader: usize, tag: Tag, at: i64, figures: &Rfid, dice: &mut ChaCha8Rng) -> i64 {
        let reads = whole(figures.reads.at(dice.random())).max(1);
        let mut now = at;
        for read in 0..reads {
            if read > 0 {
                now += (figures.gap_seconds.at(dice.random()) * SECOND as f64) as i64;
            }
            let antenna = if read * 2 < reads { 1 } else { 2 };
            self.add(
                now,
                What::Tag {
                    reader,
                    tag,
                    antenna,
                    action: TagAction::Read,
                },
            );
        }
        now
    }
}

/// The nearest whole number of a figure that counts something.
pub(super) fn whole(figure: f64) -> i64 {
    figure.round() as i64
}

/// One of several, or none of none.
pub(super) fn pick(of: &[usize], dice: &mut ChaCha8Rng) -> Option<usize> {
    (!of.is_empty()).then(|| of[dice.random_range(0..of.len())])
}
