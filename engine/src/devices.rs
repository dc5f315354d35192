//! Devices keep when each device was last heard of, how much it said, and whether its clock can be trusted.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use usher_queries::rows::time_to_text;

use crate::capture::{Entries, Since};
use crate::changes::{Changes, Noted};
use crate::event::{Clock, Event, Kind, Source};
use crate::mentions::{Mention, Mentions};
use crate::site::Places;

/// Devices remembered at a time. Names come from outside, so there has to be an end to them.
const DEVICES_MAX: usize = 200_000;

/// A device as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct DeviceView {
    /// The site.
    pub site: String,
    /// The zone.
    pub zone: String,
    /// `gate`, `seat`, `rfid`, `click`, `reply` or `identify`.
    pub kind: String,
    /// The device's id.
    pub device: String,
    /// Whether `site.toml` names it.
    pub known: bool,
    /// Events taken from it.
    pub events: u64,
    /// Event time of the newest event, RFC 3339.
    pub last_event: Option<String>,
    /// Our clock when it was last heard of, RFC 3339.
    pub last_received: Option<String>,
    /// `right`, `none` (it sends no time), `ahead` or `unset`: what its last event showed.
    pub clock: &'static str,
    /// Whether an alert says that it is silent.
    pub silent: bool,
    /// Whether it holds the watermark back, so that windows wait for it.
    pub holds_watermark: bool,
}

/// What is kept of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    source: Arc<Source>,
    events: u64,
    last_event_us: i64,
    last_received_us: i64,
    clock: Clock,
}

/// All devices ever heard of, by number. Numbers are given in the order of first hearing, the same in a replay.
#[derive(Debug, Default)]
pub struct Devices {
    heard: Vec<Heard>,
    /// By address of the interned source, which decoding shares between the events of a device.
    by_source: FxHashMap<Arc<Source>, u32>,
    overflow: u64,
    unknown: Mentions,
    changes: Changes<u32, Heard>,
}

/// All devices beyond the limit share this number.
const OVERFLOW: u64 = u64::MAX;

impl Devices {
    /// No device yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An event of a device came; gives the device's number.
    pub fn hear(&mut self, event: &Event, places: &Places) -> u64 {
        let number = match self.by_source.get(&event.source) {
            Some(number) => *number,
            None if self.heard.len() >= DEVICES_MAX => {
                self.overflow += 1;
                if self.overflow == 1 {
                    tracing::warn!("{DEVICES_MAX} devices are remembered; further ones count as one");
                }
                return OVERFLOW;
            }
            None => self.meet(event, places),
        };
        self.changes.note(&number);
        let heard = &mut self.heard[number as usize];
        heard.events += 1;
        heard.last_event_us = heard.last_event_us.max(event.time_us);
        heard.last_received_us = event.received_us;
        heard.clock = event.clock;
        u64::from(number)
    }

    fn meet(&mut self, event: &Event, places: &Places) -> u32 {
        let source = &event.source;
        if !is_known(source, places) && matches!(source.kind, Kind::Gate | Kind::Seat | Kind::Rfid) {
            match self.unknown.one_more() {
                Mention::ByName => tracing::info!(
                    site = %source.site, zone = %source.zone, kind = source.kind.as_str(), device = %source.device,
                    "a device that site.toml does not name; taken in as unknown"
                ),
                Mention::Count(devices) => tracing::warn!(
                    devices,
                    "devices that site.toml does not name were taken in as unknown; /api/v1/devices lists them"
                ),
                Mention::Silently => {}
            }
        }
        let number = u32::try_from(self.heard.len()).expect("there are fewer devices than DEVICES_MAX");
        self.by_source.insert(Arc::clone(source), number);
        self.heard.push(Heard {
            source: Arc::clone(source),
            events: 0,
            last_event_us: i64::MIN,
            last_received_us: i64::MIN,
            clock: event.clock,
        });
        number
    }

    /// How many were met in this process that `site.toml` does not name.
    pub fn unknown(&self) -> u64 {
        self.unknown.count()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.heard.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.heard.is_empty()
    }

    /// A device's path by its number, `site/zone/kind/device`.
    pub fn path(&self, number: u64) -> Option<String> {
        let heard = self.heard.get(usize::try_from(number).ok()?)?;
        let source = &heard.source;
        Some(format!(
            "{}/{}/{}/{}",
            source.site,
            source.zone,
            source.kind.as_str(),
            source.device
        ))
    }

    /// All devices, heard of or named in `site.toml`, by place and name.
    pub fn all(
        &self,
        holder: Option<u64>,
        is_silent: impl Fn(&str, &str, &str) -> bool,
        places: &Places,
    ) -> Vec<DeviceView> {
        let mut all: Vec<DeviceView> = self
            .heard
            .iter()
            .enumerate()
            .map(|(number, heard)| {
                let source = &heard.source;
                DeviceView {
                    site: source.site.to_string(),
                    zone: source.zone.to_string(),
                    kind: source.kind.as_str().to_owned(),
                    device: source.device.to_string(),
                    known: is_known(source, places),
                    events: heard.events,
                    last_event: Some(time_to_text(heard.last_event_us)),
                    last_received: Some(time_to_text(heard.last_received_us)),
                    clock: match heard.clock {
                        Clock::Device => "right",
                        Clock::Missing => "none",
                        Clock::Ahead => "ahead",
                        Clock::Unset => "unset",
                    },
                    silent: is_silent(&source.site, &source.zone, &source.device),
                    holds_watermark: holder == Some(number as u64),
                }
            })
            .collect();
        let named = places
            .devices()
            .map(|device| {
                (
                    &device.site,
                    &device.zone,
                    &device.id,
                    device.kind.as_deref().unwrap_or(""),
                )
            })
            .chain(places.seats().map(|seat| (&seat.site, &seat.zone, &seat.id, "seat")));
        let unheard: Vec<DeviceView> = named
            .filter(|(site, zone, id, kind)| {
                !all.iter().any(|view| {
                    view.site == **site
                        && view.zone == **zone
                        && view.device == **id
                        && (kind.is_empty() || view.kind == *kind)
                })
            })
            .map(|(site, zone, id, kind)| DeviceView {
                site: site.clone(),
                zone: zone.clone(),
                kind: kind.to_owned(),
                device: id.clone(),
                known: true,
                events: 0,
                last_event: None,
                last_received: None,
                clock: "none",
                silent: false,
                holds_watermark: false,
            })
            .collect();
        all.extend(unheard);
        all.sort_by(|a, b| (&a.site, &a.zone, &a.kind, &a.device).cmp(&(&b.site, &b.zone, &b.kind, &b.device)));
        all
    }

    /// Takes devices that were heard of since the last checkpoint, about `room` of them, ahead of the next one.
    pub fn gather(&mut self, room: &mut usize) {
        self.changes.gather(room, &ByNumber(&self.heard));
    }

    /// For a checkpoint: the devices that were heard of since the last one, by number.
    pub fn capture(&mut self) -> Since<u32, Heard> {
        self.changes.take(&ByNumber(&self.heard))
    }

    /// The next capture is to hold everything.
    pub fn capture_anew(&mut self) {
        self.changes.begin_anew();
    }

    /// Takes back what was captured.
    ///
    /// # Errors
    /// In words, when a device is missing between others.
    pub fn restore(&mut self, rows: Entries<u32, Heard>) -> Result<(), String> {
        let mut by_number = std::collections::BTreeMap::new();
        for (number, heard) in rows {
            match heard {
                Some(heard) => by_number.insert(number, heard),
                None => by_number.remove(&number),
            };
        }
        if let Some(missing) = (0..).zip(by_number.keys()).find(|(place, number)| place != *number) {
            return Err(format!("the device number {} is missing", missing.0));
        }
        self.heard = by_number.into_values().collect();
        self.by_source = (0..)
            .zip(&self.heard)
            .map(|(number, heard)| (Arc::clone(&heard.source), number))
            .collect();
        Ok(())
    }
}

/// The devices as a checkpoint knows them.
struct ByNumber<'a>(&'a [Heard]);

impl Noted for ByNumber<'_> {
    type Key = u32;
    type Value = Heard;

    fn entries(&self) -> usize {
        self.0.len()
    }
    fn entry(&self, number: &u32) -> Option<Heard> {
        self.0.get(*number as usize).cloned()
    }
    fn behind(&self, walked: usize, _last: Option<&u32>, most: usize) -> Vec<(u32, Heard)> {
        let behind = (0..).zip(self.0).skip(walked).take(most);
        behind.map(|(number, heard)| (number, heard.clone())).collect()
    }
}

fn is_known(source: &Source, places: &Places) -> bool {
    let device = match source.kind {
        Kind::Seat => places.seat(&source.site, &source.device).map(|seat| &seat.zone),
        _ => places.device(&source.site, &source.device).map(|device| &device.zone),
    };
    device.is_some_and(|zone| **zone == *source.zone)
}
