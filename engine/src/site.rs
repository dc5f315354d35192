//! Places are the sites of `site.toml` with their zones, seats and devices.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use chrono::NaiveDate;
use chrono_tz::Tz;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::calendar::{Calendar, DayHours, WEEKDAYS, weekdays};
use crate::position::{Fields, Mistake, Mistakes, instead, kind, nearest, read_file};

/// The kinds of event a device can send, as in the topic `usher/in/{site}/{zone}/{kind}/{device}`.
pub const DEVICE_KINDS: [&str; 5] = ["gate", "seat", "rfid", "click", "reply"];

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

/// What stands in the file, before anyone has asked what it means.
struct PlaceWritten<'a> {
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
    fn read(tree: &'a DeTable<'_>, mistakes: &mut Mistakes<'_>) -> Self {
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
    fn mean(self, mistakes: &mut Mistakes<'_>) -> Places {
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

fn calendar(fields: &Fields<'_, '_>, mistakes: &mut Mistakes<'_>) -> Calendar {
    let zone = time_zone(fields, mistakes);
    let mut calendar = match week(fields, mistakes) {
        Some(week) => Calendar::weekly(zone, week),
        None => Calendar::always_open(zone),
    };
    let mut said: Vec<NaiveDate> = Vec::new();
    for (date, span, hours) in exceptions(fields, mistakes) {
        if said.contains(&date) {
            let wrong = format!("{date} is said twice");
            mistakes.add(span, wrong, "once in `closed` or `hours` would be right");
            continue;
        }
        said.push(date);
        calendar = calendar.except(date, hours);
    }
    calendar
}

fn time_zone(fields: &Fields<'_, '_>, mistakes: &mut Mistakes<'_>) -> Tz {
    let needs = ["opening", "closed", "hours"];
    if needs.iter().all(|key| fields.value(key).is_none()) && fields.value("time_zone").is_none() {
        return Tz::UTC;
    }
    let Some(written) = fields.needed("time_zone", "Asia/Shanghai", mistakes) else {
        return Tz::UTC;
    };
    written.get_ref().parse().unwrap_or_else(|_| {
        let wrong = format!("`{}` is no time zone", written.get_ref());
        let known = || chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
        // Nobody can be shown six hundred names, but people who write "Shanghai" mean the one that ends so.
        let city = known().find(|name| {
            let city = name.rsplit('/').next().unwrap_or(name);
            city.eq_ignore_ascii_case(&written.get_ref().trim().replace(' ', "_"))
        });
        let right = match city.or_else(|| nearest(written.get_ref(), known())) {
            Some(name) => format!("the nearest is `{name}`"),
            None => "an IANA name such as `Asia/Shanghai` would be right".to_owned(),
        };
        mistakes.add(written.span(), wrong, right);
        Tz::UTC
    })
}

/// The opening hours from Monday; days nobody mentions are closed.
fn week(fields: &Fields<'_, '_>, mistakes: &mut Mistakes<'_>) -> Option<[DayHours; 7]> {
    let value = fields.value("opening")?;
    let form = "{ mon-fri = \"08:00-22:30\", sat = \"09:00-21:00\" } would be right";
    let DeValue::Table(table) = value.get_ref() else {
        let wrong = format!("`opening` is {}", kind(value.get_ref()));
        mistakes.add(value.span(), wrong, form);
        return None;
    };
    let mut week: [DayHours; 7] = Default::default();
    let mut said: [Option<&str>; 7] = [None; 7];
    let mut members: Vec<_> = table.iter().collect();
    members.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in members {
        let days = key.get_ref().as_ref();
        let Some(meant) = weekdays(days) else {
            let wrong = format!("`{days}` is no day of the week");
            let right = match nearest(days, WEEKDAYS) {
                Some(day) if !days.contains('-') => format!("the nearest is `{day}`"),
                _ => "`mon` to `sun` or a range such as `mon-fri` would be right".to_owned(),
            };
            mistakes.add(key.span(), wrong, right);
            continue;
        };
        let hours = day_hours(value, mistakes);
        for day in meant {
            let at = day.num_days_from_monday() as usize;
            if let Some(before) = said[at].filter(|before| *before != days) {
                let wrong = format!("`{days}` says again what `{before}` says: {}", WEEKDAYS[at]);
                mistakes.add(key.span(), wrong, "each day once would be right");
                break;
            }
            said[at] = Some(days);
            week[at] = hours.clone();
        }
    }
    Some(week)
}

fn day_hours(value: &Spanned<DeValue<'_>>, mistakes: &mut Mistakes<'_>) -> DayHours {
    let Some(text) = value.get_ref().as_str() else {
        let wrong = format!("opening hours are {}", kind(value.get_ref()));
        mistakes.add(value.span(), wrong, "a text such as \"08:00-22:30\" would be right");
        return DayHours::closed();
    };
    DayHours::read(text).unwrap_or_else(|(wrong, right)| {
        mistakes.add(value.span(), wrong, right);
        DayHours::closed()
    })
}

/// The dates with hours of their own: `closed = ["2026-12-25"]` and `hours = { "2026-12-24" = "09:00-13:00" }`.
fn exceptions(fields: &Fields<'_, '_>, mistakes: &mut Mistakes<'_>) -> Vec<(NaiveDate, Range<usize>, DayHours)> {
    let mut found = Vec::new();
    match fields.value("closed").map(|value| (value.get_ref(), value.span())) {
        None => {}
        Some((DeValue::Array(dates), _)) => {
            for written in dates {
                let text = match written.get_ref() {
                    DeValue::String(text) => text.to_string(),
                    DeValue::Datetime(date) => date.to_string(),
                    other => kind(other).to_owned(),
                };
                if let Some(date) = date(&text, written.span(), mistakes) {
                    found.push((date, written.span(), DayHours::closed()));
                }
            }
        }
        Some((other, span)) => {
            let wrong = format!("`closed` is {}", kind(other));
            mistakes.add(span, wrong, "a list of dates such as [\"2026-12-25\"] would be right");
        }
    }
    match fields.value("hours").map(|value| (value.get_ref(), value.span())) {
        None => {}
        Some((DeValue::Table(table), _)) => {
            let mut members: Vec<_> = table.iter().collect();
            members.sort_by_key(|(key, _)| key.span().start);
            for (key, value) in members {
                let hours = day_hours(value, mistakes);
                if let Some(date) = date(key.get_ref(), key.span(), mistakes) {
                    found.push((date, key.span(), hours));
                }
            }
        }
        Some((other, span)) => {
            let wrong = format!("`hours` is {}", kind(other));
            mistakes.add(span, wrong, "{ \"2026-12-24\" = \"09:00-13:00\" } would be right");
        }
    }
    found
}

fn date(text: &str, span: Range<usize>, mistakes: &mut Mistakes<'_>) -> Option<NaiveDate> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    if date.is_none() {
        let wrong = format!("`{text}` is no date");
        mistakes.add(span, wrong, "a date such as \"2026-12-25\" would be right");
    }
    date
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../config/site.toml");
    const DEMO: &str = include_str!("../../config/demo/site.toml");

    const SITE: &str = "[[site]]\nid = \"main\"\ntime_zone = \"Asia/Shanghai\"\n";

    fn read(text: &str) -> Result<Places, Vec<Mistake>> {
        Places::read(Path::new("site.toml"), text)
    }

    fn said(text: &str) -> Vec<String> {
        let mistakes = read(text).expect_err("the text has mistakes");
        mistakes.iter().map(Mistake::to_string).collect()
    }

    /// What is said of lines put into a site that is right otherwise; they begin in line 4.
    fn said_of_site(lines: &str) -> Vec<String> {
        said(&format!("{SITE}{lines}\n"))
    }

    #[test]
    fn the_example_says_what_it_says() {
        let places = read(EXAMPLE).expect("the example is right");
        let main = places.site("main").expect("the example has a main site");
        assert_eq!((&*main.name.en, &*main.name.zh), ("Main Library", "总馆"));
        assert_eq!(main.calendar.time_zone(), chrono_tz::Asia::Shanghai);
        let at = |text: &str| {
            let at = chrono::DateTime::parse_from_rfc3339(text).expect("the test writes RFC 3339");
            main.calendar.is_open(at.timestamp_micros())
        };
        assert!(at("2026-11-23T22:00:00+08:00") && !at("2026-11-22T22:00:00+08:00"));
        assert!(at("2026-12-31T16:59:00+08:00") && !at("2026-12-31T17:00:00+08:00"));
        assert!(!at("2027-01-01T12:00:00+08:00"));
        let room = places.zone("main", "reading-room").expect("it has a reading room");
        assert_eq!(room.capacity, Some(50));
        assert_eq!(room.parent.as_deref(), Some("floor-1"));
        let zones: Vec<&str> = places.zones().map(|zone| zone.id.as_str()).collect();
        assert_eq!(zones, ["floor-1", "entrance-hall", "reading-room"], "in file order");
        assert_eq!(places.seats().count(), 3);
        assert_eq!(
            places.seat("main", "rr-002").map(|seat| &*seat.zone),
            Some("reading-room")
        );
        let antenna = places.device("main", "exit-antenna-1").expect("it has an antenna");
        assert_eq!(
            (antenna.kind.as_deref(), antenna.role.as_deref()),
            (Some("rfid"), Some("exit"))
        );
        assert_eq!(places.zone("main", "attic"), None);
        assert_eq!(places.zone("branch", "reading-room"), None);
    }

    #[test]
    fn the_demo_reads_without_a_mistake() {
        let places = read(DEMO).expect("the demo's place is right");
        assert_eq!(places.sites().count(), 1);
        assert!(places.zones().count() > 5 && places.seats().count() > 20);
    }

    #[test]
    fn no_file_is_a_place_of_which_nothing_is_known() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let places = Places::load(dir.path()).expect("no file is no mistake");
        assert_eq!(places, Places::default());
        assert_eq!(places.site("main"), None);
    }

    #[test]
    fn names_fall_back_on_each_other_and_on_the_id() {
        let places = read(
            "[[site]]\nid = 'a'\nname = 'Main'\n[[site]]\nid = 'b'\nname = { zh = '分馆' }\n\
             [[site]]\nid = 'c'\nname = { en = 'Branch' }\n[[site]]\nid = 'old-town_branch'\n",
        )
        .expect("all of it is right");
        let names: Vec<_> = places.sites().map(|site| (&*site.name.en, &*site.name.zh)).collect();
        let old_town = ("Old town branch", "Old town branch");
        assert_eq!(
            names,
            [("Main", "Main"), ("分馆", "分馆"), ("Branch", "Branch"), old_town]
        );
        assert_eq!(
            LocalName {
                en: "A".into(),
                zh: "甲".into()
            }
            .in_language("zh-CN"),
            "甲"
        );
        assert_eq!(humanised("reading-room"), "Reading room");
        assert_eq!(humanised("éclair"), "Éclair");
        assert_eq!(humanised("--"), "--");
        assert!(places.sites().all(|site| site.calendar.is_always_open()));
    }

    #[test]
    fn all_mistakes_are_said_in_the_order_of_the_text() {
        let text = "[[site]]
id = \"main\"
time_zone = \"Asia/Shanghay\"
opening = { mon-fri = \"8-22\" }

[[zone]]
site = \"mian\"
id = \"hall\"
capacity = 0

[[zone]]
site = \"main\"
id = \"reading-room\"
capcity = 50
parent = \"flor-1\"

[[zone]]
site = \"main\"
id = \"floor-1\"
capacity = -3

[[zone]]
site = \"main\"
id = \"reading-room\"

[[seat]]
site = \"main\"
zone = \"readingroom\"
id = \"rr/1\"

[[device]]
zone = \"floor-1\"
kind = \"rfit\"
id = \"exit\"

[[seats]]
id = \"rr-2\"
";
        assert_eq!(
            said(text),
            [
                "site.toml:3:13: `Asia/Shanghay` is no time zone, the nearest is `Asia/Shanghai`",
                "site.toml:4:23: `8-22` is no opening hours, hours such as \"08:00-22:30\", \"20:00-02:00\", \
                 \"closed\" or \"24h\" would be right",
                "site.toml:7:8: there is no site `mian`, the nearest is `main`",
                "site.toml:9:12: `capacity` is 0, a whole number from 1 would be right, or none at all where nobody \
                 counts",
                "site.toml:14:1: [[zone]] has no `capcity`, the nearest is `capacity`",
                "site.toml:15:10: there is no zone `flor-1` in site `main`, the nearest is `floor-1`",
                "site.toml:20:12: `capacity` is -3, a whole number from 1 would be right, or none at all where \
                 nobody counts",
                "site.toml:24:6: the zone `reading-room` is already there in line 13, an id of its own would be right",
                "site.toml:28:8: there is no zone `readingroom` in site `main`, the nearest is `reading-room`",
                "site.toml:29:6: `rr/1` cannot be an id, one level of an MQTT topic, without `/`, `+` and `#`, would \
                 be right",
                "site.toml:31:1: this [[device]] has no `site`, a line such as `site = \"main\"` would be right",
                "site.toml:33:8: `rfit` is no kind of device, the nearest is `rfid`",
                "site.toml:36:3: site.toml has no `seats`, the nearest is `seat`",
            ]
        );
    }

    #[test]
    fn a_circle_of_parents_is_said_once() {
        let zone =
            |id: &str, parent: &str| format!("[[zone]]\nsite = \"main\"\nid = \"{id}\"\nparent = \"{parent}\"\n");
        let text = [
            zone("attic", "a"),
            zone("a", "b"),
            zone("b", "c"),
            zone("c", "a"),
            zone("d", "d"),
        ];
        let right = "a parent that holds the zone and is not inside it would be right";
        assert_eq!(
            said_of_site(&text.concat()),
            [
                format!("site.toml:11:10: the parents go round in a circle: a, b, c, a, {right}"),
                format!("site.toml:23:10: the parents go round in a circle: d, d, {right}"),
            ]
        );
    }

    #[test]
    fn opening_hours_say_each_day_once() {
        assert_eq!(
            said_of_site("opening = { mon-fri = \"08:00-22:30\", fri = \"08:00-18:00\" }"),
            ["site.toml:4:38: `fri` says again what `mon-fri` says: fri, each day once would be right"]
        );
        assert_eq!(
            said_of_site("opening = { monn = \"closed\", mo-fr = \"24h\", sat = 9 }"),
            [
                "site.toml:4:13: `monn` is no day of the week, the nearest is `mon`",
                "site.toml:4:30: `mo-fr` is no day of the week, `mon` to `sun` or a range such as `mon-fri` would be \
                 right",
                "site.toml:4:51: opening hours are a number, a text such as \"08:00-22:30\" would be right",
            ]
        );
        assert_eq!(
            said_of_site("opening = \"08:00-22:30\""),
            [
                "site.toml:4:11: `opening` is a text, { mon-fri = \"08:00-22:30\", sat = \"09:00-21:00\" } would be right"
            ]
        );
        assert_eq!(
            said_of_site("closed = [\"25.12.2026\", 2026-12-26]\nhours = { 2026-12-26 = \"09:00-13:00\" }"),
            [
                "site.toml:4:11: `25.12.2026` is no date, a date such as \"2026-12-25\" would be right",
                "site.toml:5:11: 2026-12-26 is said twice, once in `closed` or `hours` would be right",
            ]
        );
    }

    #[test]
    fn a_time_zone_is_needed_for_hours_and_found_by_its_city() {
        assert_eq!(
            said("[[site]]\nid = \"main\"\nopening = { mon = \"24h\" }\n"),
            [
                "site.toml:1:1: this [[site]] has no `time_zone`, a line such as `time_zone = \"Asia/Shanghai\"` would be right"
            ]
        );
        assert_eq!(
            said("[[site]]\nid = \"main\"\ntime_zone = \"new york\"\n"),
            ["site.toml:3:13: `new york` is no time zone, the nearest is `America/New_York`"]
        );
        assert_eq!(
            said("[[site]]\nid = \"main\"\ntime_zone = \"+08:00\"\n"),
            ["site.toml:3:13: `+08:00` is no time zone, an IANA name such as `Asia/Shanghai` would be right"]
        );
    }

    #[test]
    fn a_seat_needs_no_device_and_other_shapes_are_refused() {
        let zone = "[[zone]]\nsite = \"main\"\nid = \"hall\"\n";
        let thing = |what: &str| format!("[[{what}]]\nsite = \"main\"\nzone = \"hall\"\nid = \"rr-1\"\n");
        assert_eq!(
            said_of_site(&[zone, &thing("seat"), &thing("device")].concat()),
            [
                "site.toml:14:6: `rr-1` is already the seat of line 10, a seat is a device by itself and needs no [[device]]"
            ]
        );
        assert_eq!(
            said("zone = 3\nseat = [1]\n[site]\nid = \"main\"\n"),
            [
                "site.toml:1:8: `zone` is a number, a heading [[zone]] would be right",
                "site.toml:2:9: an entry of `seat` is a number, [[seat]] would be right",
                "site.toml:3:1: `site` is a table, a heading [[site]] would be right",
            ]
        );
        assert_eq!(
            said("[[site]]\nid = 3\nname = 4\n"),
            [
                "site.toml:2:6: `id` is a number, a text in quotes would be right",
                "site.toml:3:8: `name` is a number, \"Main Library\" or { en = \"Main Library\", zh = \"总馆\" } would \
                 be right",
            ]
        );
    }
}
