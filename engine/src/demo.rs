//! `usher demo`: the whole engine in one process and a temporary folder, and a library's day that comes in by MQTT.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use usher_connectors::client::{ConnectError, MqttClient};
use usher_connectors::message::QoS;

use crate::crowd::{Crowd, CrowdError, Place, PlaceDevice, PlaceSeat, PlaceZone};
use crate::day_figures::DayFigures;
use crate::mapping::Mappings;
use crate::messages::{MessageState, MessageView};
use crate::position::Mistake;
use crate::recording::{Recorded, Recording, RowError};
use crate::replay::{Pace, ReplayError, Replayed, Speed, play};
use crate::settings::{Flags, Settings};
use crate::site::Places;

/// The demo's library.
const SITE: &str = include_str!("../../config/demo/site.toml");
/// How many times faster than life: at this the five stories of the morning are told within two minutes.
pub const SPEED: f64 = 120.0;
/// Connections the devices share.
const CONNECTIONS: usize = 4;
/// A night is cut to this.
const NIGHT: Duration = Duration::from_secs(3);
/// A device that says nothing for so long by the engine's clock holds no window back. In the demo time runs faster, and
/// so does patience.
const IDLE_MS: u64 = 500;
/// How long after a message its reader does what, in the demo's time.
const ANSWERS: [(Duration, &str); 2] = [
    (Duration::from_secs(30), "opened"),
    (Duration::from_secs(60), "accepted"),
];
/// Days back at which the first day lies: a year, and the same day of the week.
const DAYS_BACK: u64 = 364;

/// What to show.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// How many times faster than life.
    pub speed: Speed,
    /// A recording instead of the crowd.
    pub recording: Option<PathBuf>,
    /// Makes another crowd.
    pub seed: u64,
}

/// Why the demo can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// What is configured is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Configuration(Vec<Mistake>),
    /// Nobody can come.
    #[error(transparent)]
    Crowd(#[from] CrowdError),
    /// The messages do not go out.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The recording can't be read.
    #[error(transparent)]
    Recording(#[from] crate::recording::RecordingError),
}

/// The demo's library.
///
/// # Errors
/// Never, as long as the shipped file is right, which a test sees to.
pub fn places() -> Result<Places, DemoError> {
    Places::read(Path::new("config/demo/site.toml"), SITE).map_err(DemoError::Configuration)
}

/// The settings of the demo: the defaults, in `data`, on the usual ports or, where others listen there, on free ones.
///
/// # Errors
/// When a flag or variable is wrong.
pub fn settings(mut flags: Flags, data: &Path) -> Result<Settings, DemoError> {
    flags.mqtt = flags.mqtt.or_else(|| Some(usual_or_free(1883).to_string()));
    flags.http = flags.http.or_else(|| Some(usual_or_free(8080).to_string()));
    flags.data = Some(data.display().to_string());
    let mut settings = Settings::load(None, &flags).map_err(DemoError::Configuration)?;
    settings.time.idle = Duration::from_millis(IDLE_MS);
    // Of its one reader who asks for a seat, chance would have to say every tenth time that nothing is sent.
    settings.messages.holdout = 0.0;
    Ok(settings)
}

fn usual_or_free(port: u16) -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpListener::bind(usual) {
        Ok(_) => usual,
        Err(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    }
}

/// Publishes the day, and the next, until `stop`; a recording until its end.
///
/// # Errors
/// [`DemoError`] in words.
pub async fn perform(options: &DemoOptions, broker: String, stop: &CancellationToken) -> Result<Replayed, DemoError> {
    let pace = Pace {
        broker,
        speed: options.speed,
        connections: CONNECTIONS,
        longest_pause: Some(NIGHT),
    };
    let tell = |progress: crate::replay::Progress<'_>| {
        if let crate::replay::Progress::BadRow { line, what } = progress {
            tracing::warn!(line, "a row of the recording can't be read: {what}");
        }
    };
    if let Some(file) = &options.recording {
        let recording = Recording::open(file, &Mappings::shipped(), None)?;
        return Ok(play(recording, &pace, stop, tell).await?);
    }
    let days = DayAfterDay::new(options.seed)?;
    Ok(play(days, &pace, stop, tell).await?)
}

/// Answers messages as their readers would, until `stop`: each is opened and accepted.
///
/// # Errors
/// When the broker can't be reached.
pub async fn answer(
    mut messages: broadcast::Receiver<Arc<MessageView>>,
    broker: &str,
    speed: Speed,
    stop: &CancellationToken,
) -> Result<(), ConnectError> {
    let client = MqttClient::connect(broker, "demo-app").await?;
    let site = places()
        .ok()
        .and_then(|places| places.sites().next().map(|site| site.id.clone()));
    let topic = format!("usher/in/{}/web/reply/demo-app", site.unwrap_or_default());
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            () = stop.cancelled() => break,
        };
        let message = match message {
            Ok(message) if message.state == MessageState::Sent => message,
            Ok(_) | Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => break,
        };
        let Ok(sent) = DateTime::parse_from_rfc3339(&message.at) else {
            continue;
        };
        for (after, response) in ANSWERS {
            let real = match speed {
                Speed::Times(times) => after.div_f64(times.max(0.001)),
                Speed::Max => Duration::ZERO,
            };
            tokio::time::sleep(real).await;
            let reply = serde_json::json!({
                "id": format!("{}-{response}", message.id), "ts": (sent + after).to_rfc3339(),
                "person": message.person, "message": message.id, "response": response,
            });
            // One that is not taken is one that is not answered, as happens.
            let _ = client
                .publish(topic.as_str(), reply.to_string(), QoS::AtLeastOnce, false)
                .await;
        }
    }
    client.disconnect().await;
    Ok(())
}

/// The first day of the crowd, for whoever wants it without MQTT.
///
/// # Errors
/// When nobody can come to the demo's library.
pub fn day(seed: u64) -> Result<Crowd, DemoError> {
    let place = place(&places()?);
    // A Tuesday of the year of the figures' making, the same on every machine.
    let day = NaiveDate::from_ymd_opt(2026, 3, 3).unwrap_or_default();
    Ok(Crowd::new(seed, &DayFigures::shipped(), &place, day)?)
}

/// One day of the crowd after the other, without an end.
struct DayAfterDay {
    place: Place,
    figures: DayFigures,
    seed: u64,
    day: NaiveDate,
    today: Crowd,
}

impl DayAfterDay {
    fn new(seed: u64) -> Result<Self, DemoError> {
        let places = places()?;
        let place = place(&places);
        let now = chrono::Utc::now().with_timezone(&place.time_zone).date_naive();
        let day = now.checked_sub_days(Days::new(DAYS_BACK)).unwrap_or(now);
        let figures = DayFigures::shipped();
        let today = Crowd::new(seed, &figures, &place, day)?;
        Ok(Self {
            place,
            figures,
            seed,
            day,
            today,
        })
    }
}

impl Iterator for DayAfterDay {
    type Item = Result<Recorded, RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        // A week has a day on which it is open, or `new` would have said that nobody can come.
        for _ in 0..=7 {
            if let Some(message) = self.today.next() {
                return Some(Ok(message));
            }
            self.day = self.day.succ_opt()?;
            self.today = Crowd::new(self.seed, &self.figures, &self.place, self.day).ok()?;
        }
        None
    }
}

/// The first site of `site.toml` as the crowd sees it.
fn place(places: &Places) -> Place {
    let site = places.sites().next();
    let id = site.map(|site| site.id.clone()).unwrap_or_default();
    let is_here = |site: &String| *site == id;
    let time_zone = site.map_or(chrono_tz::UTC, |site| site.calendar.time_zone());
    Place {
        hours: std::array::from_fn(|weekday| {
            let site = site?;
            // Any week will do, for holidays are the year's and not the week's.
            let monday = NaiveDate::from_ymd_opt(2026, 3, 2)?;
            let day = monday.checked_add_days(Days::new(weekday as u64))?;
            let noon = day.and_hms_opt(12, 0, 0)?.and_local_timezone(time_zone).earliest()?;
            debug_assert_eq!(noon.weekday().num_days_from_monday() as usize, weekday);
            let (opens, closes) = site.calendar.opening_interval(noon.timestamp_micros())?;
            Some((local_time(opens, time_zone)?, local_time(closes, time_zone)?))
        }),
        zones: places
            .zones()
            .filter(|zone| is_here(&zone.site))
            .map(|zone| PlaceZone {
                id: zone.id.clone(),
                capacity: zone.capacity.unwrap_or(0),
                parent: zone.parent.clone(),
                role: zone.role.clone(),
            })
            .collect(),
        seats: places
            .seats()
            .filter(|seat| is_here(&seat.site))
            .map(|seat| PlaceSeat {
                zone: seat.zone.clone(),
                id: seat.id.clone(),
            })
            .collect(),
        devices: places
            .devices()
            .filter(|device| is_here(&device.site))
            .map(|device| PlaceDevice {
                zone: device.zone.clone(),
                id: device.id.clone(),
                kind: device.kind.clone().unwrap_or_default(),
                role: device.role.clone(),
            })
            .collect(),
        site: id,
        time_zone,
    }
}

fn local_time(at_us: i64, time_zone: chrono_tz::Tz) -> Option<NaiveTime> {
    Some(DateTime::from_timestamp_micros(at_us)?.with_timezone(&time_zone).time())
}

#[cfg(test)]
mod tests {
    use super::{DayAfterDay, place, places};

    #[test]
    fn the_shipped_library_is_right_and_people_come_every_day() {
        let places = places().expect("the shipped file is right");
        let place = place(&places);
        assert!(
            place.hours.iter().all(Option::is_some),
            "open every day: {:?}",
            place.hours
        );
        let mut days = DayAfterDay::new(1).expect("people come");
        let first = days.day;
        let messages = days.by_ref().take(200_000);
        let last = messages.filter_map(Result::ok).last().expect("there are messages");
        assert!(last.at_us > 0);
        assert!(days.day > first, "one day follows the other");
    }
}
