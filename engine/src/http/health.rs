//! How the engine is: alive, ready, in figures and in one screen.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use usher_queries::cost::Counters;
use usher_queries::query::Query as RunningQuery;
use usher_queries::query_set::QuerySet;
use usher_queries::rows::time_to_text;

use crate::http::{Problem, Shared};
use crate::intake::Waiting;
use crate::latency::Percentiles;
use crate::outbox::ReceiverView;
use crate::pipeline::{Counts, Pipeline, wall_clock_us};
use crate::recovery::Recovery;
use crate::supervisor::PartStatus;

/// A source of messages.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SourceStatus {
    /// What it is.
    pub name: String,
    /// Whether messages can arrive.
    pub connected: bool,
    /// In words.
    pub detail: String,
    /// Messages since the start.
    pub received: u64,
    /// Messages of QoS 0 dropped because the engine was slow.
    pub shed: u64,
    /// Messages of QoS 0 dropped because the engine was starting or stopping.
    pub shed_not_receiving: u64,
    /// Connections after the first.
    pub reconnects: u64,
}

/// A query that stopped.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BrokenQuery {
    /// Its name.
    pub query: String,
    /// Why.
    pub reason: String,
}

/// Percentiles of a stage by its name.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Stage {
    /// `decoded`, `evaluated`, `durable` or `alert`.
    pub stage: &'static str,
    /// Microseconds since the message was received.
    #[serde(flatten)]
    pub percentiles: Percentiles,
}

/// The engine on one screen.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Status {
    /// `ok`, `starting`, or `degraded` with something below to look at.
    pub status: &'static str,
    /// The release.
    pub version: &'static str,
    /// Seconds since the process started.
    pub uptime_s: u64,
    /// The engine's event time, RFC 3339.
    pub now: Option<String>,
    /// The time zone of the first site, IANA.
    pub time_zone: Option<&'static str>,
    /// Our clock, RFC 3339.
    pub wall: String,
    /// Up to which event time everything has been seen, RFC 3339.
    pub watermark: Option<String>,
    /// Whether all has been said that is due by the watermark.
    pub up_to_date: bool,
    /// The device that holds the watermark back.
    pub held_by: Option<String>,
    /// Since the start.
    pub counts: Counts,
    /// Stage times.
    pub latency: Vec<Stage>,
    /// Of each checkpoint the longest time for which events waited, microseconds.
    pub checkpoint_pause: Percentiles,
    /// Each time for which events waited for a checkpoint, microseconds: many of each, with events in between.
    pub checkpoint_turn: Percentiles,
    /// How the state came to be at the start.
    pub recovery: Recovery,
    /// Where messages come from.
    pub sources: Vec<SourceStatus>,
    /// First offset of the log that is kept.
    pub log_oldest: u64,
    /// The offset the next record gets.
    pub log_next: u64,
    /// Records not on disk yet.
    pub log_not_durable: u64,
    /// Their bytes.
    pub log_waiting_bytes: u64,
    /// How long the oldest of them has waited for the disk, seconds.
    pub log_waiting_s: f64,
    /// Writes that failed since the start.
    pub log_failures: u64,
    /// Why nothing is acknowledged, in words; none while the log is written.
    pub log_trouble: Option<String>,
    /// What messages of QoS 0 were dropped in the last minute and why, in words; none when none were.
    pub shedding: Option<String>,
    /// Messages that were received and wait to be taken.
    pub intake_queued: usize,
    /// How long messages wait until they are taken, seconds.
    pub intake_waiting_s: f64,
    /// What messages wait for and since when, in words, where it is more than a moment.
    pub intake_trouble: Option<String>,
    /// Messages that wait for the broker, and steps that are not told yet since what they come of is not on disk.
    pub outbox: usize,
    /// Who is told, and what waits for each.
    pub receivers: Vec<ReceiverView>,
    /// Running queries.
    pub queries: usize,
    /// What each of them does, for metrics.
    #[serde(skip)]
    pub query_figures: Vec<QueryFigures>,
    /// Queries that stopped.
    pub broken_queries: Vec<BrokenQuery>,
    /// The parts that can fail and are started again: sources, queries that have failed, and others.
    pub parts: Vec<PartStatus>,
    /// Devices heard of.
    pub devices: usize,
    /// Devices met since the start that `site.toml` does not name.
    pub devices_unknown: u64,
    /// Zones met since the start that `site.toml` does not name.
    pub zones_unknown: u64,
    /// Devices that an alert calls silent.
    pub devices_silent: usize,
    /// People known by pseudonym.
    pub people: usize,
    /// Links between names of the same person.
    pub links: usize,
    /// Links that were not made, because a person had too many names or there were too many links.
    pub links_refused: u64,
    /// People whose past is being read from the log.
    pub repairs: usize,
    /// Alerts that stand.
    pub alerts_standing: usize,
}

/// The process is alive.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String)))]
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// It takes messages: the log has been gone through and is written without delay, and a source is connected.
#[utoipa::path(get, path = "/readyz", responses((status = 200, body = String), (status = 503, body = Problem)))]
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Result<String, Problem> {
    if let Some(trouble) = log_trouble(&shared) {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, trouble)
            .right("once the disk takes it, everything goes on by itself, and publishers that wait are acknowledged"));
    }
    if !shared.is_ready() {
        return Err(
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the log is still being gone through")
                .right("it takes messages once that is done"),
        );
    }
    if let Some((name, health)) = shared.sources.iter().find(|(_, health)| !health.borrow().connected) {
        let detail = health.borrow().detail.clone();
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{name} is not connected: {detail}"),
        ));
    }
    let waiting = shared.intake.waiting();
    if let Some(waiting) = waiting.as_ref().filter(|waiting| waiting.is_stopped) {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, waiting.words.clone()).right(waiting.right));
    }
    // It takes what can wait; who relies on what can't, or on being answered soon, should know.
    let shedding = shared.shedding.words().map(|words| format!("shedding: {words}"));
    let waiting = waiting.map(|Waiting { words, right, .. }| format!("behind: {words}; {right}"));
    let buts: Vec<String> = shedding.into_iter().chain(waiting).collect();
    Ok(match buts.is_empty() {
        true => "ready\n".to_owned(),
        false => format!("ready, but {}\n", buts.join("; and ")),
    })
}

/// What keeps publishers from being acknowledged, in words: a log that can't be written, or a slow disk.
fn log_trouble(shared: &Shared) -> Option<String> {
    let health = shared.log.health();
    if let Some(trouble) = health.trouble {
        let since = time_to_text(trouble.since_us);
        return Some(format!("the log can't be written since {since}: {}", trouble.reason));
    }
    (health.waiting_for >= shared.log_slow_after).then(|| {
        format!(
            "the disk is slow: the oldest of {} records has waited for it for {:.1} s, and acknowledgements wait as long",
            health.waiting_records,
            health.waiting_for.as_secs_f64()
        )
    })
}

/// Everything in figures, for Prometheus.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String)))]
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    if let Ok(status) = status_of(&shared).await {
        publish(&status);
    }
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        (shared.metrics)(),
    )
}

fn publish(status: &Status) {
    let counts = &status.counts;
    let totals = [
        ("usher_messages_total", counts.messages),
        ("usher_events_total", counts.events),
        ("usher_duplicates_total", counts.duplicates),
        ("usher_wrong_clocks_total", counts.wrong_clocks),
        ("usher_messages_elsewhere_total", counts.elsewhere),
        ("usher_unreadable_total", counts.refused),
    ];
    for (name, value) in totals {
        ::metrics::counter!(name).absolute(value);
    }
    ::metrics::counter!("usher_log_failures_total").absolute(status.log_failures);
    let gauges = [
        ("usher_log_next_offset", status.log_next as f64),
        ("usher_log_oldest_offset", status.log_oldest as f64),
        ("usher_log_not_durable_records", status.log_not_durable as f64),
        ("usher_log_waiting_bytes", status.log_waiting_bytes as f64),
        ("usher_log_waiting_seconds", status.log_waiting_s),
        ("usher_log_writable", f64::from(u8::from(status.log_trouble.is_none()))),
        ("usher_intake_queued", status.intake_queued as f64),
        ("usher_intake_waiting_seconds", status.intake_waiting_s),
        ("usher_outbox_waiting", status.outbox as f64),
        ("usher_queries", status.queries as f64),
        ("usher_queries_broken", status.broken_queries.len() as f64),
        ("usher_devices", status.devices as f64),
        ("usher_devices_unknown", status.devices_unknown as f64),
        ("usher_zones_unknown", status.zones_unknown as f64),
        ("usher_devices_silent", status.devices_silent as f64),
        ("usher_people", status.people as f64),
        ("usher_links", status.links as f64),
        ("usher_repairs_waiting", status.repairs as f64),
        ("usher_alerts_standing", status.alerts_standing as f64),
        ("usher_uptime_seconds", status.uptime_s as f64),
    ];
    for (name, value) in gauges {
        ::metrics::gauge!(name).set(value);
    }
    for receiver in &status.receivers {
        let of = || [("receiver", receiver.name.clone())];
        ::metrics::gauge!("usher_receiver_waiting", &of()).set(receiver.waiting as f64);
        ::metrics::gauge!("usher_receiver_dead_letters", &of()).set(receiver.dead as f64);
        let is_closed = u8::from(receiver.state == "closed");
        ::metrics::gauge!("usher_receiver_breaker_closed", &of()).set(f64::from(is_closed));
        ::metrics::counter!("usher_receiver_sent_total", &of()).absolute(receiver.sent);
        ::metrics::counter!("usher_receiver_failed_total", &of()).absolute(receiver.failed);
    }
    for Stage { stage, percentiles } in &status.latency {
        let quantiles = [
            ("0.5", percentiles.p50_us),
            ("0.9", percentiles.p90_us),
            ("0.99", percentiles.p99_us),
            ("0.999", percentiles.p999_us),
            ("1", percentiles.max_us),
        ];
        for (quantile, micros) in quantiles {
            ::metrics::gauge!("usher_stage_seconds", "stage" => *stage, "quantile" => quantile)
                .set(micros as f64 / 1e6);
        }
        ::metrics::counter!("usher_stage_count", "stage" => *stage).absolute(percentiles.count);
    }
    let waits = [
        ("usher_checkpoint_pause_seconds", &status.checkpoint_pause),
        ("usher_checkpoint_turn_seconds", &status.checkpoint_turn),
    ];
    for (name, wait) in waits {
        for (quantile, micros) in [("0.5", wait.p50_us), ("0.99", wait.p99_us), ("1", wait.max_us)] {
            ::metrics::gauge!(name, "quantile" => quantile).set(micros as f64 / 1e6);
        }
    }
    for figures in &status.query_figures {
        figures.publish();
    }
    for part in &status.parts {
        ::metrics::gauge!("usher_part_running", "part" => part.part.clone())
            .set(f64::from(u8::from(part.state == "running")));
    }
    for source in &status.sources {
        let name = source.name.clone();
        ::metrics::counter!("usher_source_received_total", "source" => name.clone()).absolute(source.received);
        let shed = [
            ("intake_full", source.shed),
            ("not_receiving", source.shed_not_receiving),
        ];
        for (reason, count) in shed {
            ::metrics::counter!("usher_source_shed_total", "source" => name.clone(), "reason" => reason)
                .absolute(count);
        }
        ::metrics::gauge!("usher_source_connected", "source" => name).set(f64::from(u8::from(source.connected)));
    }
}

/// The engine on one screen.
#[utoipa::path(get, path = "/api/v1/status", responses((status = 200, body = Status)))]
pub(super) async fn status(State(shared): State<Arc<Shared>>) -> Result<Json<Status>, Problem> {
    Ok(Json(status_of(&shared).await?))
}

/// What one query does and keeps.
#[derive(Debug, Clone)]
pub struct QueryFigures {
    name: String,
    counters: Counters,
    bytes: usize,
    lag_s: Option<f64>,
}

impl QueryFigures {
    fn of(queries: &QuerySet, clock_us: Option<i64>, query: &RunningQuery) -> Self {
        let lag_us = clock_us
            .zip(queries.watermark_of(query.name()))
            .map(|(clock, watermark)| clock.saturating_sub(watermark));
        Self {
            name: query.name().to_string(),
            counters: query.counters(),
            bytes: query.footprint().bytes,
            lag_s: lag_us.map(|lag| lag as f64 / 1e6),
        }
    }

    fn publish(&self) {
        let totals = [
            ("usher_query_rows_in_total", self.counters.rows_in),
            ("usher_query_rows_out_total", self.counters.rows_out),
            ("usher_query_rows_late_total", self.counters.late_rows),
            ("usher_query_rows_amended_total", self.counters.amended_rows),
            ("usher_query_evaluations_total", self.counters.evaluations),
        ];
        for (name, value) in totals {
            ::metrics::counter!(name, "query" => self.name.clone()).absolute(value);
        }
        ::metrics::gauge!("usher_query_state_bytes", "query" => self.name.clone()).set(self.bytes as f64);
        if let Some(lag_s) = self.lag_s {
            ::metrics::gauge!("usher_query_watermark_lag_seconds", "query" => self.name.clone()).set(lag_s);
        }
        for (quantile, micros) in [("0.5", self.counters.p50_us), ("0.99", self.counters.p99_us)] {
            ::metrics::gauge!("usher_query_seconds", "query" => self.name.clone(), "quantile" => quantile)
                .set(micros / 1e6);
        }
    }
}

/// What the pipeline itself knows of how it is.
struct Inner {
    now: Option<i64>,
    time_zone: Option<&'static str>,
    watermark: i64,
    up_to_date: bool,
    untold: usize,
    held_by: Option<String>,
    counts: Counts,
    recovery: Recovery,
    queries: Vec<QueryFigures>,
    broken: Vec<BrokenQuery>,
    devices: usize,
    unknown: (u64, u64),
    silent: usize,
    people: usize,
    links: usize,
    links_refused: u64,
    repairs: usize,
    standing: usize,
}

fn inner(pipeline: &mut Pipeline) -> Inner {
    let perception = &pipeline.perception;
    let open = perception.alerts.open();
    let is_standing = |alert: &&&crate::alert::Alert| alert.state.is_standing();
    let queries = perception.queries.queries();
    Inner {
        now: perception.clock_us(),
        time_zone: perception
            .places()
            .sites()
            .next()
            .map(|site| site.calendar.time_zone().name()),
        watermark: perception.watermark(),
        up_to_date: !perception.has_work(),
        untold: pipeline.untold(),
        held_by: perception.holder().and_then(|holder| perception.devices.path(holder)),
        counts: pipeline.counts,
        recovery: pipeline.recovery.clone(),
        queries: queries
            .iter()
            .map(|query| QueryFigures::of(&perception.queries, perception.clock_us(), query))
            .collect(),
        broken: queries
            .iter()
            .filter_map(|query| {
                Some(BrokenQuery {
                    query: query.name().to_string(),
                    reason: query.broken()?.to_owned(),
                })
            })
            .collect(),
        devices: perception.devices.len(),
        unknown: (perception.devices.unknown(), perception.zones.unknown()),
        silent: open
            .iter()
            .filter(is_standing)
            .filter(|alert| alert.subject.kind == "device")
            .count(),
        people: perception.people.len(),
        links: perception.identity.links(),
        links_refused: perception.identity.refused(),
        repairs: perception.people.repairs(),
        standing: open.iter().filter(is_standing).count(),
    }
}

pub(crate) async fn status_of(shared: &Shared) -> Result<Status, Problem> {
    let inner = shared.asker.ask(inner).await?;
    let sources: Vec<SourceStatus> = shared
        .sources
        .iter()
        .map(|(name, health)| {
            let health = health.borrow();
            SourceStatus {
                name: name.clone(),
                connected: health.connected,
                detail: health.detail.clone(),
                received: health.received,
                shed: health.shed,
                shed_not_receiving: health.shed_not_receiving,
                reconnects: health.reconnects,
            }
        })
        .collect();
    let (log, log_trouble) = (shared.log.health(), log_trouble(shared));
    let shedding = shared.shedding.words();
    let intake_trouble = shared.intake.waiting().map(|waiting| waiting.words);
    let parts = shared.supervisor.parts();
    let receivers = shared.outbox.receivers();
    let is_stuck = |receiver: &ReceiverView| receiver.state != "closed" || receiver.dead > 0;
    let is_degraded = !inner.broken.is_empty()
        || sources.iter().any(|source| !source.connected)
        || parts.iter().any(|part| part.state == "waiting")
        || receivers.iter().any(is_stuck)
        || shedding.is_some()
        || intake_trouble.is_some()
        || log_trouble.is_some();
    Ok(Status {
        status: match (shared.is_ready(), is_degraded) {
            (false, _) => "starting",
            (true, true) => "degraded",
            (true, false) => "ok",
        },
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: shared.started.elapsed().as_secs(),
        now: inner.now.map(time_to_text),
        time_zone: inner.time_zone,
        wall: time_to_text(wall_clock_us()),
        watermark: (inner.watermark != i64::MIN).then(|| time_to_text(inner.watermark)),
        up_to_date: inner.up_to_date,
        held_by: inner.held_by,
        counts: inner.counts,
        latency: shared
            .latencies
            .stages()
            .into_iter()
            .map(|(stage, percentiles)| Stage { stage, percentiles })
            .collect(),
        checkpoint_pause: shared.latencies.checkpoint_pause.percentiles(),
        checkpoint_turn: shared.latencies.checkpoint_turn.percentiles(),
        recovery: inner.recovery,
        sources,
        log_oldest: shared.log.oldest().0,
        log_next: shared.log.next().0,
        log_not_durable: log.waiting_records,
        log_waiting_bytes: log.waiting_bytes,
        log_waiting_s: log.waiting_for.as_secs_f64(),
        log_failures: log.failures,
        log_trouble,
        shedding,
        intake_queued: shared.intake.queued(),
        intake_waiting_s: shared.intake.waits().as_secs_f64(),
        intake_trouble,
        // In this order: what has been told since is counted twice, and nothing is missed.
        outbox: inner.untold + shared.outbox.len(),
        receivers,
        queries: inner.queries.len(),
        query_figures: inner.queries,
        broken_queries: inner.broken,
        parts,
        devices: inner.devices,
        devices_unknown: inner.unknown.0,
        zones_unknown: inner.unknown.1,
        devices_silent: inner.silent,
        people: inner.people,
        links: inner.links,
        links_refused: inner.links_refused,
        repairs: inner.repairs,
        alerts_standing: inner.standing,
    })
}

/// What the page's header shows, once a second.
#[derive(Debug, Serialize)]
struct HealthEvent<'a> {
    status: &'a str,
    messages_per_second: f64,
    events_per_second: f64,
    alert_latency_ms_p50: Option<f64>,
    alert_latency_ms_p99: Option<f64>,
    sources: &'a [SourceStatus],
    receivers: &'a [ReceiverView],
    /// Those that have failed.
    parts: Vec<&'a PartStatus>,
    now: Option<&'a str>,
    wall: &'a str,
    refused: u64,
    devices_silent: usize,
    /// Seconds since something waits for the log.
    log_waiting_s: f64,
    /// Of the first site, IANA: in it people read times.
    time_zone: Option<&'a str>,
}

/// Tells the page once a second how the engine is, until the streams end.
pub(crate) async fn tell_health(shared: Arc<Shared>) {
    let mut every = tokio::time::interval(std::time::Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before: Option<(std::time::Instant, Counts)> = None;
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = shared.stop.cancelled() => return,
        }
        let Ok(status) = status_of(&shared).await else {
            // Nobody is left to ask: the process is about to end.
            shared.stop.cancelled().await;
            return;
        };
        let now = std::time::Instant::now();
        let rate = |of: fn(&Counts) -> u64| match &before {
            Some((at, counts)) => {
                let rate = of(&status.counts).saturating_sub(of(counts)) as f64 / (now - *at).as_secs_f64();
                (rate * 10.0).round() / 10.0
            }
            None => 0.0,
        };
        let alert = status.latency.iter().find(|stage| stage.stage == "alert");
        let millis = |of: fn(&Percentiles) -> u64| {
            alert
                .filter(|stage| stage.percentiles.count > 0)
                .map(|stage| of(&stage.percentiles) as f64 / 1e3)
        };
        let event = HealthEvent {
            status: status.status,
            messages_per_second: rate(|counts| counts.messages),
            events_per_second: rate(|counts| counts.events),
            alert_latency_ms_p50: millis(|percentiles| percentiles.p50_us),
            alert_latency_ms_p99: millis(|percentiles| percentiles.p99_us),
            sources: &status.sources,
            receivers: &status.receivers,
            parts: status.parts.iter().filter(|part| part.failures > 0).collect(),
            now: status.now.as_deref(),
            wall: &status.wall,
            refused: status.counts.refused,
            devices_silent: status.devices_silent,
            log_waiting_s: status.log_waiting_s,
            time_zone: status.time_zone,
        };
        let data = serde_json::to_string(&event).expect("figures and texts are always JSON");
        before = Some((now, status.counts));
        shared.bus.tell("health", data);
    }
}
