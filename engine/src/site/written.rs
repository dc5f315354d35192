//! What stands in `site.toml`, before anyone has asked what it means.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::opening::calendar;
use super::{DEVICE_KINDS, Device, LocalName, Places, Seat, Site, Zone, humanised};
use crate::calendar::Calendar;
use crate::position::{Fields, Mistakes, instead, kind};

/// What stands in the file, before anyone has asked what it means.
pub(super) struct PlaceWritten<'a> {
    sites: Vec<SiteWritten<'a>>,
    things: Vec<ThingWritten<'a>>,
}

struct SiteWritten<'a> {
    id: Spanned<&'a str>,
    name: LocalName,
    calendar: Calendar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Thing {
    Zone,
    Seat,
    Device,
}

impl Thing {
    const ALL: [Self; 3] = [Self::Zone, Self::Seat, Self::Device];

    fn word(self) -> &'static str {
        ["zone", "seat", "device"][self as usize]
    }

    fn heading(self) -> &'static str {
        ["[[zone]]", "[[seat]]", "[[device]]"][self as usize]
    }

    fn members(self) -> &'static [&'static str] {
        match self {
            Self::Zone => &["site", "id", "name", "capacity", "parent", "role"],
            Self::Seat => &["site", "zone", "id"],
            Self::Device => &["site", "zone", "id", "kind", "role"],
        }
    }
}

/// A zone, seat or device; what its kind does not have is `None`.
struct ThingWritten<'a> {
    thing: Thing,
    site: Spanned<&'a str>,
    id: Spanned<&'a str>,
    /// The zone it is in, or the parent of a zone.
    within: Option<Spanned<&'a str>>,
    name: LocalName,
    capacity: Option<u32>,
    kind: Option<&'a str>,
    role: Option<&'a str>,
}

impl<'a> PlaceWritten<'a> {
    pub(super) fn read(tree: &'a DeTable<'_>, mistakes: &mut Mistakes<'_>) -> Self {
        let known = ["site", "zone", "seat", "device"];
        let whole = Fields::of("site.toml", tree, 0..0, &known, mistakes);
        let sites = entries(&whole, "site", "[[site]]", mistakes)
            .filter_map(|(table, span)| SiteWritten::read(table, span, mistakes))
            .collect();
        let mut things = Vec::new();
        for thing in Thing::ALL {
            for (table, span) in entries(&whole, thing.word(), thing.heading(), mistakes) {
                things.extend(ThingWritten::read(thing, table, span, mistakes));
            }
        }
        Self { sites, things }
    }

    /// Works out what was written: ids are there once, and what they name exists.
    pub(super) fn mean(self, mistakes: &mut Mistakes<'_>) -> Places {
        let mut places = Places::default();
        let mut first: HashMap<&str, Range<usize>> = HashMap::new();
        for site in self.sites {
            let (id, span) = (*site.id.get_ref(), site.id.span());
            if let Some(before) = first.get(id) {
                twice("site", id, span, before, mistakes);
                continue;
            }
            first.insert(id, span);
            places.site_at.insert(id.to_owned(), places.sites.len());
            places.sites.push(Site {
                id: id.to_owned(),
                name: site.name,
                calendar: site.calendar,
            });
        }
        // A seat is a device by itself, so the two share their ids; a zone may be called like a device.
        let mut taken: HashMap<(bool, &str, &str), (Thing, Range<usize>)> = HashMap::new();
        let mut parents: HashMap<(&str, &str), &Spanned<&str>> = HashMap::new();
        for written in &self.things {
            let (site, id) = (*written.site.get_ref(), *written.id.get_ref());
            if places.site(site).is_none() {
                let wrong = format!("there is no site `{site}`");
                let right = instead(site, places.sites().map(|known| known.id.as_str()));
                mistakes.add(written.site.span(), wrong, right);
            }
            let key = (written.thing == Thing::Zone, site, id);
            if let Some((before, at)) = taken.get(&key) {
                if *before == written.thing {
                    twice(before.word(), id, written.id.span(), at, mistakes);
                } else {
                    let wrong = format!("`{id}` is already the seat of line {}", mistakes.line(at));
                    let right = "a seat is a device by itself and needs no [[device]]";
                    mistakes.add(written.id.span(), wrong, right);
                }
                continue;
            }
            taken.insert(key, (written.thing, written.id.span()));
            if let (Thing::Zone, Some(parent)) = (written.thing, &written.within) {
                parents.insert((site, id), parent);
            }
            places.take(written);
        }
        for written in &self.things {
            check_within(written, &places, mistakes);
        }
        check_circles(&self.things, &parents, mistakes);
        places
    }
}

impl Places {
    fn take(&mut self, written: &ThingWritten<'_>) {
        let text = |text: &str| text.to_owned();
        let (site, id) = (text(written.site.get_ref()), text(written.id.get_ref()));
        let within = written.within.as_ref().map(|within| text(within.get_ref()));
        let role = written.role.map(text);
        let (index, at) = match written.thing {
            Thing::Zone => (&mut self.zone_at, self.zones.len()),
            Thing::Seat => (&mut self.seat_at, self.seats.len()),
            Thing::Device => (&mut self.device_at, self.devices.len()),
        };
        index.entry(site.clone()).or_default().insert(id.clone(), at);
        match (written.thing, within) {
            (Thing::Zone, parent) => self.zones.push(Zone {
                site,
                id,
                name: written.name.clone(),
                capacity: written.capacity,
                parent,
                role,
            }),
            (Thing::Seat, zone) => self.seats.push(Seat {
                site,
                zone: zone.unwrap_or_default(),
                id,
            }),
            (Thing::Device, zone) => self.devices.push(Device {
                site,
                zone: zone.unwrap_or_default(),
                id,
                kind: written.kind.map(text),
                role,
            }),
        }
    }
}

fn twice(word: &str, id: &str, span: Range<usize>, before: &Range<usize>, mistakes: &mut Mistakes<'_>) {
    let line = mistakes.line(before);
    let wrong = format!("the {word} `{id}` is already there in line {line}");
    mistakes.add(span, wrong, "an id of its own would be right");
}

fn check_within(written: &ThingWritten<'_>, places: &Places, mistakes: &mut Mistakes<'_>) {
    let site = *written.site.get_ref();
    let Some(within) = &written.within else {
        return;
    };
    // The unknown site has been said, and nothing in it can be known.
    if places.site(site).is_none() || places.zone(site, within.get_ref()).is_some() {
        return;
    }
    let zones = places.zones().filter(|zone| zone.site == site);
    let wrong = format!("there is no zone `{}` in site `{site}`", within.get_ref());
    let right = instead(within.get_ref(), zones.map(|zone| zone.id.as_str()));
    mistakes.add(within.span(), wrong, right);
}

/// Says each circle of parents once, at the zone that comes first.
fn check_circles(
    things: &[ThingWritten<'_>],
    parents: &HashMap<(&str, &str), &Spanned<&str>>,
    mistakes: &mut Mistakes<'_>,
) {
    let mut said: Vec<(&str, &str)> = Vec::new();
    for zone in things.iter().filter(|thing| thing.thing == Thing::Zone) {
        let (site, id) = (*zone.site.get_ref(), *zone.id.get_ref());
        let mut path = vec![id];
        let mut at = id;
        while let Some(parent) = parents.get(&(site, at)) {
            at = parent.get_ref();
            path.push(at);
            if at == id {
                if !said.contains(&(site, id)) {
                    let wrong = format!("the parents go round in a circle: {}", path.join(", "));
                    let right = "a parent that holds the zone and is not inside it would be right";
                    mistakes.add(parents[&(site, id)].span(), wrong, right);
                    said.extend(path.iter().map(|id| (site, *id)));
                }
                break;
            }
            // It runs into a circle it is no part of, which is said at one of those.
            if path[..path.len() - 1].contains(&at) {
                break;
            }
        }
    }
}

fn entries<'a, 't>(
    whole: &Fields<'a, 't>,
    key: &str,
    heading: &str,
    mistakes: &mut Mistakes<'_>,
) -> impl Iterator<Item = (&'a DeTable<'t>, Range<usize>)> + use<'a, 't> {
    let mut found = Vec::new();
    match whole.value(key).map(|value| (value.get_ref(), value.span())) {
        None => {}
        Some((DeValue::Array(list), _)) => {
            for entry in list {
                match entry.get_ref() {
                    DeValue::Table(table) => found.push((table, entry.span())),
                    other => {
                        let wrong = format!("an entry of `{key}` is {}", kind(other));
                        mistakes.add(entry.span(), wrong, format!("{heading} would be right"));
                    }
                }
            }
        }
        Some((other, span)) => {
            let wrong = format!("`{key}` is {}", kind(other));
            mistakes.add(span, wrong, format!("a heading {heading} would be right"));
        }
    }
    found.into_iter()
}

/// An id must be one level of an MQTT topic.
fn id<'a>(fields: &Fields<'a, '_>, example: &str, mistakes: &mut Mistakes<'_>) -> Option<Spanned<&'a str>> {
    let id = fields.needed("id", example, mistakes)?;
    let bad = |letter: char| letter.is_control() || matches!(letter, '/' | '+' | '#');
    if id.get_ref().is_empty() || id.get_ref().contains(bad) {
        let wrong = format!("`{}` cannot be an id", id.get_ref().escape_debug());
        let right = "one level of an MQTT topic, without `/`, `+` and `#`, would be right";
        mistakes.add(id.span(), wrong, right);
    }
    Some(id)
}

fn name(fields: &Fields<'_, '_>, id: &str, mistakes: &mut Mistakes<'_>) -> LocalName {
    let Some(value) = fields.value("name") else {
        return LocalName::same(&humanised(id));
    };
    match value.get_ref() {
        DeValue::String(name) => LocalName::same(name),
        DeValue::Table(table) => {
            let names = Fields::of("a name", table, value.span(), &["en", "zh"], mistakes);
            let en = names.text("en", mistakes).map(Spanned::into_inner);
            let zh = names.text("zh", mistakes).map(Spanned::into_inner);
            let either = en.or(zh).map_or_else(|| humanised(id), str::to_owned);
            LocalName {
                zh: zh.map_or_else(|| either.clone(), str::to_owned),
                en: either,
            }
        }
        other => {
            let wrong = format!("`name` is {}", kind(other));
            let right = "\"Main Library\" or { en = \"Main Library\", zh = \"总馆\" } would be right";
            mistakes.add(value.span(), wrong, right);
            LocalName::same(id)
        }
    }
}

impl<'a> ThingWritten<'a> {
    fn read(thing: Thing, table: &'a DeTable<'_>, span: Range<usize>, mistakes: &mut Mistakes<'_>) -> Option<Self> {
        let fields = Fields::of(thing.heading(), table, span, thing.members(), mistakes);
        let site = fields.needed("site", "main", mistakes);
        let (within, id) = match thing {
            Thing::Zone => (fields.text("parent", mistakes), id(&fields, "reading-room", mistakes)),
            Thing::Seat => (
                fields.needed("zone", "reading-room", mistakes),
                id(&fields, "rr-001", mistakes),
            ),
            Thing::Device => (
                fields.needed("zone", "reading-room", mistakes),
                id(&fields, "exit-antenna-1", mistakes),
            ),
        };
        let (name, capacity) = match (thing, &id) {
            (Thing::Zone, Some(id)) => (name(&fields, id.get_ref(), mistakes), capacity(&fields, mistakes)),
            _ => (LocalName::same(""), None),
        };
        let (kind, role) = match thing {
            Thing::Zone => (None, fields.text("role", mistakes)),
            Thing::Seat => (None, None),
            Thing::Device => (device_kind(&fields, mistakes), fields.text("role", mistakes)),
        };
        Some(Self {
            thing,
            site: site?,
            id: id?,
            within,
            name,
            capacity,
            kind,
            role: role.map(Spanned::into_inner),
        })
    }
}

fn capacity(fields: &Fields<'_, '_>, mistakes: &mut Mistakes<'_>) -> Option<u32> {
    let value = fields.value("capacity")?;
    let wrong = match value.get_ref() {
        DeValue::Integer(number) => match u32::from_str_radix(number.as_str(), number.radix()) {
            Ok(capacity) if capacity > 0 => return Some(capacity),
            _ => format!("`capacity` is {number}"),
        },
        DeValue::Float(number) => format!("`capacity` is {number}"),
        other => format!("`capacity` is {}", kind(other)),
    };
    let right = "a whole number from 1 would be right, or none at all where nobody counts";
    mistakes.add(value.span(), wrong, right);
    None
}

fn device_kind<'a>(fields: &Fields<'a, '_>, mistakes: &mut Mistakes<'_>) -> Option<&'a str> {
    let kind = fields.text("kind", mistakes)?;
    if !DEVICE_KINDS.contains(kind.get_ref()) {
        let wrong = format!("`{}` is no kind of device", kind.get_ref());
        mistakes.add(kind.span(), wrong, instead(kind.get_ref(), DEVICE_KINDS));
    }
    Some(kind.into_inner())
}

impl<'a> SiteWritten<'a> {
    fn read(table: &'a DeTable<'_>, span: Range<usize>, mistakes: &mut Mistakes<'_>) -> Option<Self> {
        let known = ["id", "name", "time_zone", "opening", "closed", "hours"];
        let fields = Fields::of("[[site]]", table, span, &known, mistakes);
        let id = id(&fields, "main", mistakes);
        let name = name(&fields, id.as_ref().map_or("", |id| id.get_ref()), mistakes);
        let calendar = calendar(&fields, mistakes);
        Some(Self {
            id: id?,
            name,
            calendar,
        })
    }
}
