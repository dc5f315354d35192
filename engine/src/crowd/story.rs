//! Stories happen early on every day, whatever the crowd does, so that a demo shows every kind of alert.

use crate::crowd::Hours;
use crate::crowd::act::{Acts, Card, Click, MINUTE, SECOND, SeatState, Tag, TagAction, What};
use crate::crowd::house::{House, Purpose};

/// A small story of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Story {
    /// The alert it is there for.
    pub rule: &'static str,
    /// When what it is about begins, in minutes after opening.
    pub begins_min: i64,
    /// When that is over, in minutes after opening.
    pub ends_min: i64,
}

/// A class fills its room beyond 90 %, and half of it leaves 45 minutes later.
const CLASS: Story = Story {
    rule: "zone_crowded",
    begins_min: 40,
    ends_min: 87,
};

/// Belongings hold a seat until the staff clears it.
const LEFT_SEAT: Story = Story {
    rule: "seat_left_behind",
    begins_min: 30,
    ends_min: 80,
};

/// An item goes out without a checkout and is brought back.
const LEFT_ITEM: Story = Story {
    rule: "item_left_unborrowed",
    begins_min: 62,
    ends_min: 100,
};

/// Three searches within four minutes find nothing; then the reader asks for help.
const LOST_SEARCH: Story = Story {
    rule: "search_needs_help",
    begins_min: 25,
    ends_min: 31,
};

/// A gate that reports every five minutes says nothing. It counts on, and its totals catch up afterwards.
const SILENT_GATE: Story = Story {
    rule: "device_silent",
    begins_min: 70,
    ends_min: 112,
};

/// The stories of every day that is long enough for them.
pub const STORIES: [Story; 5] = [LOST_SEARCH, LEFT_SEAT, CLASS, LEFT_ITEM, SILENT_GATE];

/// When the last person of a story has left, in minutes after opening.
const LAST_LEAVES_MIN: i64 = 130;

/// Share of its room's capacity the class fills: above the 90 % at which a zone counts as crowded.
const CLASS_SHARE: f64 = 0.95;

/// How long a class takes to pass a door.
const CLASS_PASSES_MS: i64 = 90 * SECOND;

/// Cards of the persons in stories, apart from everyone else's.
const SEARCHING: Card = Card(2_299_001);
const SEEKING: Card = Card(2_299_002);
/// Where somebody wants to sit, the zone that the shipped offer of a quiet seat is for.
const QUIET: &str = "quiet-study";
/// When somebody asks for a seat there, when one is freed, and when it is taken again, in minutes after opening.
const SEAT_SOUGHT_MIN: i64 = 17;
const SEAT_FREED_MIN: i64 = 21;
const SEAT_TAKEN_MIN: i64 = 27;
/// The item that leaves, apart from every other.
pub(super) const LEFT_TAG: Tag = Tag(0x00ff_0001);
/// Sessions at the catalogue, below every other's.
const SESSION: u32 = 1;
const SEEKING_SESSION: u32 = 2;
/// What is asked for beside the seat: records of the catalogue that nobody else looks at.
const REQUESTED: [u32; 4] = [9_000_001, 9_000_002, 9_000_003, 9_000_004];

/// What the crowd and the devices must know of the stories.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Seats nobody else takes.
    pub(super) seats: Vec<usize>,
    /// A gate and when it says nothing, in epoch milliseconds.
    pub(super) silent: Option<(usize, std::ops::Range<i64>)>,
}

/// Adds the acts of all stories the house has the rooms and devices for.
pub(super) fn tell(house: &House, hours: Hours, acts: &mut Acts) -> Told {
    let mut told = Told::default();
    if hours.closes - hours.opens < (LAST_LEAVES_MIN + 30) * MINUTE {
        return told;
    }
    let mut teller = Teller {
        house,
        opens: hours.opens,
        acts,
    };
    teller.class();
    teller.lost_search();
    teller.left_item();
    told.seats.extend(teller.left_seat());
    told.seats.extend(teller.sought_seat(&told.seats));
    told.silent = house.last_gate().map(|gate| {
        (
            gate,
            hours.opens + SILENT_GATE.begins_min * MINUTE..hours.opens + SILENT_GATE.ends_min * MINUTE,
        )
    });
    told
}

struct Teller<'a> {
    house: &'a House,
    opens: i64,
    acts: &'a mut Acts,
}

impl Teller<'_> {
    /// A time of the day as minutes and seconds after opening.
    fn at(&self, minutes: i64, seconds: i64) -> i64 {
        self.opens + minutes * MINUTE + seconds * SECOND
    }

    /// Someone comes in from the street and is in the room 70 seconds later.
    fn comes(&mut self, room: usize, at: i64) {
        self.acts.come_in(self.house, at);
        self.acts.go_to(self.house, room, at + 40 * SECOND, 30 * SECOND);
    }

    /// Someone leaves the room and is in the street 70 seconds later.
    fn leaves(&mut self, room: usize, at: i64) {
        self.acts.come_back(self.house, room, at, 40 * SECOND);
        self.acts.go_out(self.house, at + 70 * SECOND);
    }

    fn class(&mut self) {
        let Some(room) = self.house.room_for(Purpose::Class) else {
            return;
        };
        let persons = (f64::from(self.house.rooms[room].capacity) * CLASS_SHARE).ceil() as i64;
        let step = CLASS_PASSES_MS / persons.max(1);
        let arrives = self.at(CLASS.begins_min, -70);
        let half_leaves = self.at(CLASS.ends_min - 2, 0);
        let rest_leaves = self.at(LAST_LEAVES_MIN - 5, 0);
        for person in 0..persons {
            self.comes(room, arrives + person * step);
            let leaves = if person <= persons / 2 {
                half_leaves
            } else {
                rest_leaves
            };
            self.leaves(room, leaves + person * step);
        }
    }

    fn left_seat(&mut self) -> Option<usize> {
        let room = self
            .house
            .rooms
            .iter()
            .position(|room| room.purpose == Purpose::Study && !room.seats.is_empty())?;
        let seat = self.house.rooms[room].seats[0];
        self.comes(room, self.at(14, 0));
        self.acts.add(
            self.at(15, 40),
            What::Seat {
                seat,
                state: SeatState::Occupied,
            },
        );
        self.acts.add(
            self.at(LEFT_SEAT.begins_min, 0),
            What::Seat {
                seat,
                state: SeatState::Away,
            },
        );
        self.leaves(room, self.at(LEFT_SEAT.begins_min, 20));
        self.acts.add(
            self.at(LEFT_SEAT.ends_min, 0),
            What::Seat {
                seat,
                state: SeatState::Free,
            },
        );
        Some(seat)
    }

    /// Somebody asks for items and a quiet seat on the web, and one is freed: that is offered, and whoever asked comes.
    fn sought_seat(&mut self, others: &[usize]) -> Option<usize> {
        let terminal = *self.house.terminals.first()?;
        let room = self.house.rooms.iter().position(|room| room.zone == QUIET)?;
        let seat = *self.house.rooms[room].seats.last()?;
        if others.contains(&seat) {
            return None;
        }
        self.comes(room, self.at(8, 0));
        let states = [
            (self.at(9, 30), SeatState::Occupied),
            (self.at(SEAT_FREED_MIN, 0), SeatState::Free),
            (self.at(SEAT_TAKEN_MIN, 0), SeatState::Occupied),
            (self.at(LAST_LEAVES_MIN - 3, 0), SeatState::Free),
        ];
        for (at, state) in states {
            self.acts.add(at, What::Seat { seat, state });
        }
        self.leaves(room, self.at(SEAT_FREED_MIN, 20));
        let looks = [(0, "login", None, None), (20, "search", Some(("quiet seat", 12)), None)];
        // Whoever takes up an offer after these comes regularly by the shipped tiers.
        let requests = (0..)
            .zip(REQUESTED)
            .map(|(number, item)| (30 + 4 * number, "request", None, Some(item)));
        for (seconds, action, search, item) in looks.into_iter().chain(requests) {
            let click = Click {
                card: Some(SEEKING),
                session: SEEKING_SESSION,
                action,
                search,
                item,
            };
            self.acts
                .add(self.at(SEAT_SOUGHT_MIN, seconds), What::Click { terminal, click });
        }
        self.comes(room, self.at(SEAT_TAKEN_MIN - 2, 0));
        self.leaves(room, self.at(LAST_LEAVES_MIN - 3, 20));
        Some(seat)
    }

    fn left_item(&mut self) {
        let shelves = self.house.room_for(Purpose::Shelves);
        let (Some(room), Some(&shelf), Some(&exit)) = (shelves, self.house.shelves.first(), self.house.exits.first())
        else {
            return;
        };
        self.comes(room, self.at(50, 0));
        let read = |antenna| What::Tag {
            reader: exit,
            tag: LEFT_TAG,
            antenna,
            action: TagAction::Read,
        };
        let at_shelf = || What::Tag {
            reader: shelf,
            tag: LEFT_TAG,
            antenna: 1,
            action: TagAction::Read,
        };
        self.acts.add(self.at(55, 0), at_shelf());
        self.acts.add(self.at(LEFT_ITEM.begins_min, 0), read(1));
        self.acts.add(self.at(LEFT_ITEM.begins_min, 4), read(2));
        self.leaves(room, self.at(LEFT_ITEM.begins_min - 1, 0));
        // The antennas of the exit look at those who leave: bringing it back is not read there.
        self.comes(room, self.at(LEFT_ITEM.ends_min - 2, 0));
        if let Some(&reader) = self.house.self_checks.first() {
            let action = TagAction::Checkin;
            self.acts.add(
                self.at(LEFT_ITEM.ends_min, 0),
                What::Tag {
                    reader,
                    tag: LEFT_TAG,
                    antenna: 1,
                    action,
                },
            );
        }
        self.leaves(room, self.at(LEFT_ITEM.ends_min + 1, 0));
        self.acts.add(self.at(LEFT_ITEM.ends_min + 3, 0), at_shelf());
    }

    fn lost_search(&mut self) {
        let room = self
            .house
            .room_for(Purpose::Catalogue)
            .or(self.house.room_for(Purpose::Study));
        let (Some(room), Some(&terminal)) = (room, self.house.terminals.first()) else {
            return;
        };
        self.comes(room, self.at(20, 0));
        let mut click = |at: i64, action, search, item| {
            let click = Click {
                card: Some(SEARCHING),
                session: SESSION,
                action,
                search,
                item,
            };
            self.acts.add(at, What::Click { terminal, click });
        };
        let begins = self.opens + LOST_SEARCH.begins_min * MINUTE;
        click(begins, "login", None, None);
        click(
            begins + 20 * SECOND,
            "search",
            Some(("mesopotamian clay tokens acounting", 0)),
            None,
        );
        click(
            begins + 110 * SECOND,
            "search",
            Some(("clay tokens acounting neolithic", 0)),
            None,
        );
        click(
            begins + 210 * SECOND,
            "search",
            Some(("acounting before writing", 0)),
            None,
        );
        click(begins + 6 * MINUTE, "help", None, None);
        click(
            begins + 8 * MINUTE,
            "search",
            Some(("accounting before writing", 14)),
            None,
        );
        click(begins + 9 * MINUTE, "view", None, Some(104_217));
        self.leaves(room, self.at(45, 0));
    }
}
