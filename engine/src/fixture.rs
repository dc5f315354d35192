//! The fixture is where tests of what is perceived begin: a Monday at nine, a place, and a perception that knows nothing yet.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use usher_queries::query_set::QuerySet;

use crate::decode::{DecodeOptions, Decoder};
use crate::event::Event;
use crate::perception::{Perception, PerceptionOptions};
use crate::pseudonym::Secret;
use crate::reference::set_references;
use crate::settings::{Flags, Settings};
use crate::site::Places;

/// A second, microseconds.
pub(crate) const SECOND: i64 = 1_000_000;
/// 2026-03-02T09:00:00+08:00, a Monday; microseconds.
pub(crate) const NINE: i64 = 1_772_413_200_000_000;

/// The place that a `site.toml` describes.
pub(crate) fn places(text: &str) -> Arc<Places> {
    Arc::new(Places::read(Path::new("site.toml"), text).expect("it is right"))
}

/// The same secret each time, so that pseudonyms are the same too.
pub(crate) fn secret() -> Secret {
    Secret::from_bytes([3; 32])
}

/// A decoder that has met no device.
pub(crate) fn decoder() -> Decoder {
    Decoder::new(DecodeOptions::new(secret()))
}

/// A perception of that place, with the queries that `create` puts in, whose watermark waits so long.
pub(crate) fn perception(
    places: &Arc<Places>,
    delay: Duration,
    idle: Duration,
    create: impl FnOnce(&mut QuerySet),
) -> Perception {
    let mut settings = Settings::load_with(None, [], &Flags::default()).expect("the defaults are right");
    (settings.time.delay, settings.time.idle) = (delay, idle);
    let mut queries = QuerySet::new();
    set_references(&mut queries, places);
    create(&mut queries);
    Perception::new(PerceptionOptions::of(&settings), Arc::clone(places), queries)
}

/// Events of the site `main`, received when they happened: seconds after nine, `zone/kind/device`, payload.
pub(crate) fn events<T: AsRef<str>, P: AsRef<str>>(rows: impl IntoIterator<Item = (i64, T, P)>) -> Vec<Event> {
    let mut decoder = decoder();
    rows.into_iter()
        .flat_map(|(seconds, topic, payload)| {
            let topic = format!("usher/in/main/{}", topic.as_ref());
            let decoded = decoder.decode(&topic, payload.as_ref().as_bytes(), NINE + seconds * SECOND);
            assert_eq!(decoded.refused, []);
            decoded.events
        })
        .collect()
}
