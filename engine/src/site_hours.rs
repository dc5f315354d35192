//! The opening hours of all sites, as the windows of queries follow them.

use std::collections::HashMap;
use std::sync::Arc;

use chrono_tz::Tz;
use usher_queries::civil_time::{LONGEST_DAY_US, OpeningHours, day_around};

use crate::calendar::Calendar;
use crate::site::Places;

/// When each site is open. A site that never closes is taken by its civil days, and so is one that stays open over
/// several; one that nobody wrote down too, in UTC.
#[derive(Debug)]
pub struct SiteHours {
    sites: HashMap<String, Calendar>,
}

impl SiteHours {
    /// The hours of a place.
    pub fn of(places: &Places) -> Arc<dyn OpeningHours> {
        let sites = places.sites().map(|site| (site.id.clone(), site.calendar.clone()));
        Arc::new(Self { sites: sites.collect() })
    }
}

fn interval(calendar: &Calendar, at_us: i64) -> Option<(i64, i64)> {
    let (start, end) = calendar.opening_interval(at_us)?;
    if end.saturating_sub(start) <= LONGEST_DAY_US {
        return Some((start, end));
    }
    let (first, last) = day_around(calendar.time_zone(), at_us);
    Some((start.max(first), end.min(last)))
}

/// The first end of an interval behind an instant; the end of time for a site that does not open any more.
fn next_end(calendar: &Calendar, after_us: i64) -> i64 {
    if let Some((_, end)) = interval(calendar, after_us) {
        return end;
    }
    let opening = calendar.next_opening(after_us).and_then(|at| interval(calendar, at));
    opening.map_or(i64::MAX, |(_, end)| end)
}

impl OpeningHours for SiteHours {
    fn interval(&self, site: &str, at_us: i64) -> Option<(i64, i64)> {
        match self.sites.get(site) {
            Some(calendar) => interval(calendar, at_us),
            None => Some(day_around(Tz::UTC, at_us)),
        }
    }

    fn next_end(&self, after_us: i64) -> i64 {
        let unknown = day_around(Tz::UTC, after_us).1;
        let known = self.sites.values().map(|calendar| next_end(calendar, after_us));
        known.fold(unknown, i64::min)
    }

    fn longest_us(&self) -> i64 {
        LONGEST_DAY_US
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use usher_queries::bounded::{Recorded, run_with};
    use usher_queries::flow::Flow;
    use usher_queries::query_set::QuerySet;
    use usher_queries::row::Rows;
    use usher_queries::rows::{batch_from_ndjson, batch_to_json, time_to_text};
    use usher_queries::statement::parse_statement;
    use usher_queries::streams::stream_schema;

    use super::*;

    const PLACES: &str = r#"
        [[site]]
        id = "shanghai"
        time_zone = "Asia/Shanghai"
        opening = { mon-sun = "08:00-22:00" }
        [[site]]
        id = "copenhagen"
        time_zone = "Europe/Copenhagen"
        opening = { mon-sun = "20:00-04:00" }
        [[site]]
        id = "new-york"
        time_zone = "America/New_York"
        opening = { mon-sun = "20:00-04:00" }
    "#;

    fn hours() -> Arc<dyn OpeningHours> {
        SiteHours::of(&Places::read(Path::new("site.toml"), PLACES).expect("it is right"))
    }

    fn us(text: &str) -> i64 {
        chrono::DateTime::parse_from_rfc3339(text)
            .expect("a time")
            .timestamp_micros()
    }

    /// Nights on which clocks change, and one in a country where they don't: (site, an event, opening, closing).
    const NIGHTS: [(&str, &str, &str, &str); 5] = [
        (
            "shanghai",
            "2026-03-29T04:00:00Z",
            "2026-03-29T00:00:00Z",
            "2026-03-29T14:00:00Z",
        ),
        // 20:00+01:00 to 04:00+02:00: seven hours; the last window of a night in autumn has nine.
        (
            "copenhagen",
            "2026-03-29T00:30:00Z",
            "2026-03-28T19:00:00Z",
            "2026-03-29T02:00:00Z",
        ),
        (
            "copenhagen",
            "2026-10-25T00:30:00Z",
            "2026-10-24T18:00:00Z",
            "2026-10-25T03:00:00Z",
        ),
        (
            "new-york",
            "2026-03-08T06:30:00Z",
            "2026-03-08T01:00:00Z",
            "2026-03-08T08:00:00Z",
        ),
        (
            "new-york",
            "2026-11-01T05:30:00Z",
            "2026-11-01T00:00:00Z",
            "2026-11-01T09:00:00Z",
        ),
    ];

    #[test]
    fn an_interval_is_as_long_as_the_clocks_make_the_night() {
        let hours = hours();
        for (site, at, opening, closing) in NIGHTS {
            assert_eq!(
                hours.interval(site, us(at)),
                Some((us(opening), us(closing))),
                "{site} {at}"
            );
        }
        assert_eq!(hours.interval("shanghai", us("2026-03-29T15:00:00Z")), None);
        // A site that nobody wrote down: its day is that of UTC.
        let day = (us("2026-03-29T00:00:00Z"), us("2026-03-30T00:00:00Z"));
        assert_eq!(hours.interval("elsewhere", us("2026-03-29T15:00:00Z")), Some(day));
    }

    /// Open round the clock but for a holiday: an interval is the day, whichever of its instants is asked for.
    #[test]
    fn who_stays_open_over_days_is_taken_by_days() {
        let places = r#"
            [[site]]
            id = "round-the-clock"
            time_zone = "Asia/Shanghai"
            opening = { mon-sun = "24h" }
            closed = ["2026-12-25"]
        "#;
        let hours = SiteHours::of(&Places::read(Path::new("site.toml"), places).expect("it is right"));
        let day = (us("2025-06-01T00:00:00+08:00"), us("2025-06-02T00:00:00+08:00"));
        for at in [
            "2025-06-01T00:00:00+08:00",
            "2025-06-01T10:00:00+08:00",
            "2025-06-01T23:59:59+08:00",
        ] {
            assert_eq!(hours.interval("round-the-clock", us(at)), Some(day), "{at}");
        }
        assert_eq!(hours.interval("round-the-clock", us("2026-12-25T12:00:00+08:00")), None);
        assert_eq!(
            hours.next_end(us("2026-12-24T12:00:00+08:00")),
            us("2026-12-25T00:00:00+08:00").min(us("2026-12-25T00:00:00Z"))
        );
    }

    #[test]
    fn no_end_is_stepped_over() {
        let hours = hours();
        let mut at = us("2026-03-01T00:00:00Z");
        let mut ends = Vec::new();
        while at < us("2026-04-05T00:00:00Z") {
            at = hours.next_end(at);
            ends.push(at);
        }
        for (_, _, _, closing) in &NIGHTS[..2] {
            assert!(ends.contains(&us(closing)), "{closing}");
        }
        assert!(ends.is_sorted());
    }

    /// The window closes at the very instant at which the doors do, with no further event, and says what a bounded run
    /// says.
    #[test]
    fn a_window_of_opening_hours_closes_at_the_right_instant() {
        let sql = "CREATE QUERY visits AS SELECT site, window_start, window_end, sum(entered) AS entered
            FROM OPENING(gate, event_time) GROUP BY site, window_start, window_end";
        for (site, at, opening, closing) in NIGHTS {
            let mut queries = QuerySet::new();
            queries.set_opening_hours(hours());
            queries
                .create(parse_statement(sql).expect("it is right"))
                .expect("it can run");
            let schema = stream_schema("gate").expect("a stream");
            let line = format!(
                r#"{{"event_id":"e","event_time":"{at}","received_at":"{at}","site":"{site}","zone":"z","device":"d","entered":2,"exited":0}}"#
            );
            let batch = batch_from_ndjson(&schema, &line).expect("a row");
            let mut said = Vec::new();
            queries.push(
                "gate",
                &Rows::Many(Flow::at_watermark(batch.clone(), i64::MIN)),
                &mut said,
            );
            queries.advance(us(closing) - 1, &mut said);
            assert!(said.is_empty(), "{site} {at}: a microsecond before the doors close");
            queries.advance(us(closing), &mut said);
            let [said] = said.as_slice() else {
                panic!("{site} {at}: one window closes")
            };
            let rows = batch_to_json(&said.rows.flow().batch);
            assert_eq!(rows[0]["window_start"], time_to_text(us(opening)));
            assert_eq!(rows[0]["window_end"], time_to_text(us(closing)));
            let recorded = Recorded::from([("gate".to_owned(), (schema, vec![batch]))]);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime");
            let (_, bounded) = runtime.block_on(run_with(sql, &recorded, &hours())).expect("it runs");
            assert_eq!(bounded.iter().flat_map(batch_to_json).collect::<Vec<_>>(), rows);
        }
    }
}
