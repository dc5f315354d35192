//! Places are the sites of `site.toml` with their zones, seats and devices.

mod opening;
#[cfg(test)]
mod tests;
mod written;

use std::collections::HashMap;
use std::path::Path;

use self::written::PlaceWritten;
use crate::calendar::Calendar;
use crate::position::{Mistake, Mistakes, read_file};

/// The kinds of event a device can send, as in the topic `usher/in/{site}/{zone}/{kind}/{device}`.
pub const DEVICE_KINDS: [&str; 7] = ["gate", "seat", "rfid", "click", "reply", "identify", "consent"];

/// A name for people, in the languages of the staff page. A language nobody wrote takes the other's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalName {
    /// English.
    pub en: String,
    /// Chinese.
    pub zh: String,
}

impl LocalName {
    /// The same in every language.
    pub fn same(name: &str) -> Self {
        Self {
            en: name.to_owned(),
            zh: name.to_owned(),
        }
    }

    /// The name in a language such as `zh` or `zh-CN`; English for any that is not known.
    pub fn in_language(&self, language: &str) -> &str {
        match language.split(['-', '_']).next() {
            Some("zh") => &self.zh,
            _ => &self.en,
        }
    }
}

/// An id as a person would say it: `reading-room` is "Reading room".
pub fn humanised(id: &str) -> String {
    let words: Vec<&str> = id.split(['-', '_', ' ']).filter(|word| !word.is_empty()).collect();
    let mut letters = words.join(" ");
    if let Some(first) = letters.chars().next() {
        let upper: String = first.to_uppercase().collect();
        letters.replace_range(..first.len_utf8(), &upper);
    }
    // An id of nothing but separators is still a name.
    if letters.is_empty() { id.to_owned() } else { letters }
}

/// A library or branch.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Its id, one level of an MQTT topic.
    pub id: String,
    /// Its name for people.
    pub name: LocalName,
    /// When it is open. Without opening hours always; without a time zone in UTC.
    pub calendar: Calendar,
}

/// A room, floor or area of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// The site it is in.
    pub site: String,
    /// Its id, unique in its site.
    pub id: String,
    /// Its name for people.
    pub name: LocalName,
    /// How many people it holds, at least 1.
    pub capacity: Option<u32>,
    /// The zone of the same site that it is a part of.
    pub parent: Option<String>,
    /// What it is for, in the site's own word.
    pub role: Option<String>,
}

/// A seat, which is a device by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// The site it is in.
    pub site: String,
    /// The zone it stands in.
    pub zone: String,
    /// Its id, unique among the seats and devices of its site.
    pub id: String,
}

/// A sensor that is not a seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The site it is in.
    pub site: String,
    /// The zone it hangs in.
    pub zone: String,
    /// Its id, unique among the seats and devices of its site.
    pub id: String,
    /// One of [`DEVICE_KINDS`].
    pub kind: Option<String>,
    /// What it is there for: `exit`, `entrance`, `shelf`, `self-check` or the site's own word.
    pub role: Option<String>,
}

type InSite = HashMap<String, HashMap<String, usize>>;

/// The sites with all that is in them. What turns up in events and not here is for others to take in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Places {
    sites: Vec<Site>,
    zones: Vec<Zone>,
    seats: Vec<Seat>,
    devices: Vec<Device>,
    site_at: HashMap<String, usize>,
    zone_at: InSite,
    seat_at: InSite,
    device_at: InSite,
}

impl Places {
    /// Reads `site.toml` of a folder; a folder without one is a place of which nothing is known. Fails with all its
    /// mistakes.
    pub fn load(dir: &Path) -> Result<Self, Vec<Mistake>> {
        let file = dir.join("site.toml");
        match read_file(&file) {
            Ok(Some(text)) => Self::read(&file, &text),
            Ok(None) => Ok(Self::default()),
            Err(mistake) => Err(vec![mistake]),
        }
    }

    /// Reads a text; `file` is its name in mistakes. Fails with all of them, in the order of the text.
    pub fn read(file: &Path, text: &str) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Mistakes::of(file, text);
        let tree = mistakes.toml();
        let written = PlaceWritten::read(&tree, &mut mistakes);
        let places = written.mean(&mut mistakes);
        let mistakes = mistakes.into_sorted();
        if mistakes.is_empty() { Ok(places) } else { Err(mistakes) }
    }

    /// What of it lies in some of the sites.
    pub fn only(self, is_wanted: impl Fn(&str) -> bool) -> Self {
        let mut places = Self::default();
        for site in self.sites.into_iter().filter(|site| is_wanted(&site.id)) {
            places.site_at.insert(site.id.clone(), places.sites.len());
            places.sites.push(site);
        }
        let put = |index: &mut InSite, site: &str, id: &str, at: usize| {
            index.entry(site.to_owned()).or_default().insert(id.to_owned(), at);
        };
        for zone in self.zones.into_iter().filter(|zone| is_wanted(&zone.site)) {
            put(&mut places.zone_at, &zone.site, &zone.id, places.zones.len());
            places.zones.push(zone);
        }
        for seat in self.seats.into_iter().filter(|seat| is_wanted(&seat.site)) {
            put(&mut places.seat_at, &seat.site, &seat.id, places.seats.len());
            places.seats.push(seat);
        }
        for device in self.devices.into_iter().filter(|device| is_wanted(&device.site)) {
            put(&mut places.device_at, &device.site, &device.id, places.devices.len());
            places.devices.push(device);
        }
        places
    }

    /// The sites, in the order of the file.
    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter()
    }

    /// The zones, in the order of the file.
    pub fn zones(&self) -> impl Iterator<Item = &Zone> {
        self.zones.iter()
    }

    /// The seats, in the order of the file.
    pub fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.seats.iter()
    }

    /// The devices, in the order of the file.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter()
    }

    /// The site of this id.
    pub fn site(&self, id: &str) -> Option<&Site> {
        self.site_at.get(id).map(|at| &self.sites[*at])
    }

    /// The zone of this id in a site.
    pub fn zone(&self, site: &str, id: &str) -> Option<&Zone> {
        find(&self.zone_at, site, id).map(|at| &self.zones[at])
    }

    /// The seat of this id in a site.
    pub fn seat(&self, site: &str, id: &str) -> Option<&Seat> {
        find(&self.seat_at, site, id).map(|at| &self.seats[at])
    }

    /// The device of this id in a site; a seat is not one of them.
    pub fn device(&self, site: &str, id: &str) -> Option<&Device> {
        find(&self.device_at, site, id).map(|at| &self.devices[at])
    }
}

fn find(index: &InSite, site: &str, id: &str) -> Option<usize> {
    index.get(site)?.get(id).copied()
}
