//! A house is a place as people walk it: from the street into the hall, from the hall into a room, and back.

use crate::crowd::{CrowdError, Place, PlaceDevice};

/// What people go to a room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Study,
    Shelves,
    Catalogue,
    Cafe,
    /// Booked: only classes go there.
    Class,
    Other,
}

/// A zone with a gate.
#[derive(Debug)]
pub(super) struct Room {
    /// The zone's id.
    pub(super) zone: String,
    pub(super) gate: usize,
    pub(super) capacity: u32,
    pub(super) purpose: Purpose,
    pub(super) seats: Vec<usize>,
}

/// The place by what is where. Numbers of gates, readers and terminals are places in [`Place::devices`], those of seats
/// in [`Place::seats`].
#[derive(Debug)]
pub(super) struct House {
    /// Between the street and the hall.
    pub(super) street: usize,
    /// Between the hall and all rooms; the street gate where there is no other.
    pub(super) inner: usize,
    pub(super) rooms: Vec<Room>,
    pub(super) shelves: Vec<usize>,
    pub(super) self_checks: Vec<usize>,
    pub(super) exits: Vec<usize>,
    pub(super) terminals: Vec<usize>,
}

impl House {
    pub(super) fn of(place: &Place) -> Result<House, CrowdError> {
        let devices = |kind: &'static str, fits: &dyn Fn(&PlaceDevice) -> bool| -> Vec<usize> {
            let all = place.devices.iter().enumerate();
            all.filter(|(_, device)| device.kind == kind && fits(device))
                .map(|(at, _)| at)
                .collect()
        };
        let with_role = |role: &'static str| move |device: &PlaceDevice| device.role.as_deref() == Some(role);

        let hall = place.zones.iter().find(|zone| zone.role.as_deref() == Some("entrance"));
        let gates_of = |zone: &str| devices("gate", &|device| device.zone == zone);
        let doors = hall.map(|hall| gates_of(&hall.id)).unwrap_or_default();
        let first = *doors.first().ok_or_else(|| CrowdError::NoEntrance {
            site: place.site.clone(),
        })?;
        let door = |role: &str| {
            doors
                .iter()
                .copied()
                .find(|door| place.devices[*door].role.as_deref() == Some(role))
        };
        let street = door("street").unwrap_or(first);
        let inner = door("inner")
            .or_else(|| doors.iter().copied().find(|door| *door != street))
            .unwrap_or(street);

        let is_floor = |id: &str| place.zones.iter().any(|zone| zone.parent.as_deref() == Some(id));
        let mut rooms = Vec::new();
        for zone in &place.zones {
            let is_hall = hall.is_some_and(|hall| hall.id == zone.id);
            let Some(gate) = gates_of(&zone.id)
                .first()
                .copied()
                .filter(|_| !is_hall && !is_floor(&zone.id))
            else {
                continue;
            };
            let seats = place.seats.iter().enumerate().filter(|(_, seat)| seat.zone == zone.id);
            let seats: Vec<usize> = seats.map(|(at, _)| at).collect();
            let purpose = match zone.role.as_deref() {
                Some("study") => Purpose::Study,
                Some("shelves") => Purpose::Shelves,
                Some("catalogue") => Purpose::Catalogue,
                Some("cafe") => Purpose::Cafe,
                Some("class") => Purpose::Class,
                _ if !seats.is_empty() => Purpose::Study,
                _ => Purpose::Other,
            };
            rooms.push(Room {
                zone: zone.id.clone(),
                gate,
                capacity: zone.capacity,
                purpose,
                seats,
            });
        }
        if rooms.iter().all(|room| room.purpose == Purpose::Class) {
            return Err(CrowdError::NoRoom {
                site: place.site.clone(),
            });
        }
        Ok(House {
            street,
            inner,
            rooms,
            shelves: devices("rfid", &with_role("shelf")),
            self_checks: devices("rfid", &with_role("self-check")),
            exits: devices("rfid", &with_role("exit")),
            terminals: devices("click", &|_| true),
        })
    }

    /// The first room people go to for this.
    pub(super) fn room_for(&self, purpose: Purpose) -> Option<usize> {
        self.rooms.iter().position(|room| room.purpose == purpose)
    }

    /// A gate whose silence is told: the last room's that is no class room.
    pub(super) fn last_gate(&self) -> Option<usize> {
        self.rooms
            .iter()
            .rev()
            .find(|room| room.purpose != Purpose::Class)
            .map(|room| room.gate)
    }
}
