//! The engine is everything running in one process: broker or link to one, log, pipeline, API and page.

mod receivers;
mod sharing;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usher_connectors::checkpoint::CheckpointStore;
use usher_connectors::embedded_broker::{BrokerOptions, EmbeddedBroker};
use usher_connectors::embedded_log::{self, LogOptions};
use usher_connectors::fluvio::topic::TopicWriter;
use usher_connectors::log::{Log, LogError, Offset};
use usher_connectors::message::QoS;
use usher_connectors::publisher::Publisher;
use usher_connectors::remote_broker::{RemoteBroker, RemoteOptions};
use usher_connectors::source::Source;
use usher_queries::query_set::QuerySet;
use usher_queries::streams::VISIT;

use self::receivers::webhooks;
use self::sharing::{fluvio_parts, stays, take_up};
use crate::added_queries;
use crate::alert::alerts_of;
use crate::bus::Bus;
use crate::check::load_queries_with;
use crate::clock::SystemClock;
use crate::decode::DecodeOptions;
use crate::erasure::{self, Erasing, KeepFrom};
use crate::fence::Fence;
use crate::forwarding::{Forwarding, SettledUntil};
use crate::groups::Groups;
use crate::http::{Shared, planning_turns, public_router, public_streams, router, tell_health};
use crate::identity::IdentityTable;
use crate::intake::Intake;
use crate::latency::Latencies;
use crate::outbox::{MqttReceiver, Outbox, OutboxOptions, WebhookReceiver};
use crate::oversized;
use crate::perception::{Perception, PerceptionOptions};
use crate::pipeline::{Asker, Parts, Pipeline, asking, wall_clock_us};
use crate::position::Mistake;
use crate::pseudonym::Secret;
use crate::public::Board;
use crate::query_keeper::keep_running;
use crate::recovery::{FORMAT, OfFormat, of_format};
use crate::reference::set_references;
use crate::retention::Retention;
use crate::seats::SEAT_STATE;
use crate::settings::{Mqtt, ParameterSettings, Settings};
use crate::settler::settling;
use crate::shed::{self, Shedding};
use crate::site::Places;
use crate::supervisor::Supervisor;
use crate::zones::OCCUPANCY;

/// How long what is in the outbox may take to go out when the engine stops.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How long a log that can't be written is still tried when the engine stops.
const LAST_WRITES: Duration = Duration::from_secs(3);
/// How long open HTTP connections may take to end.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Why the engine does not run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// What is configured can't work; each mistake with its place.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Configuration(Vec<Mistake>),
    /// What lies in the data folder is not for this version; nothing of it was changed.
    #[error("{0}")]
    OfNewerVersion(String),
    /// The data folder and the settings do not go together; nothing was changed.
    #[error("{0}")]
    Unfit(String),
    /// It can't start, or had to stop.
    #[error("{0}")]
    Failed(String),
}

impl EngineError {
    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What to run.
pub struct EngineOptions {
    /// Everything an operator can choose.
    pub settings: Settings,
    /// Sites, zones, seats, devices.
    pub places: Places,
    /// The folder whose `queries/*.sql` are added to the shipped ones.
    pub config: Option<PathBuf>,
    /// Renders metrics; made once a process, for the recorder is the process's.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// A running engine.
pub struct Engine {
    /// Where devices publish: the embedded broker's address, or the URL of one's own without its password.
    pub mqtt: String,
    /// Where the embedded broker listens, where there is one.
    pub mqtt_address: Option<SocketAddr>,
    /// Where the page and the API are.
    pub http: SocketAddr,
    /// Where public answers are and nothing else, where there is such an address.
    pub public: Option<SocketAddr>,
    /// The data folder.
    pub data: PathBuf,
    /// Asks the engine.
    pub asker: Asker,
    /// How long the stages of an event's walk take.
    pub latencies: Arc<Latencies>,
    log: Arc<dyn Log>,
    outbox: Arc<Outbox>,
    bus: Arc<Bus>,
    broker: Option<EmbeddedBroker>,
    fence: Fence,
    forwarding: Option<JoinHandle<()>>,
    forwarding_stop: CancellationToken,
    intake_stop: CancellationToken,
    outbox_stop: CancellationToken,
    http_stop: CancellationToken,
    pipeline: JoinHandle<Result<(), EngineError>>,
    sources: Vec<JoinHandle<()>>,
    keeping: JoinHandle<()>,
    settling: JoinHandle<()>,
    sending: JoinHandle<()>,
    serving: JoinHandle<()>,
}

/// The embedded broker or a link to one's own, with the two ends the engine needs.
struct Link {
    name: String,
    mqtt: String,
    broker: Option<EmbeddedBroker>,
    source: Arc<dyn Source>,
    publisher: Arc<dyn Publisher>,
}

impl Engine {
    /// Starts everything and comes back when messages are taken.
    ///
    /// # Errors
    /// [`EngineError`] in words: a port in use, a folder of another process, a query that can't be planned.
    pub async fn start(options: EngineOptions) -> Result<Self, EngineError> {
        let EngineOptions {
            settings,
            places,
            config,
            metrics,
        } = options;
        // What is other workers' is theirs to show.
        let places = match settings.workers.has_all() {
            true => places,
            false => places.only(|site| settings.workers.owns(site)),
        };
        let places = Arc::new(places);
        let queries_dir = added_queries::dir(&settings.data);
        let parameters = Arc::new(settings.parameters.clone());
        let config_dir = config.clone();
        let fresh_queries = fresh(
            Arc::clone(&places),
            config,
            queries_dir.clone(),
            &settings,
            Arc::clone(&parameters),
        )?;
        std::fs::create_dir_all(&settings.data).map_err(|error| {
            EngineError::Failed(format!(
                "the data folder {} can't be made: {error}; choose another with --data",
                settings.data.display()
            ))
        })?;
        let secret = Secret::load_or_create(&settings.data).map_err(EngineError::failed)?;
        // Without a folder there is nobody to say who is who; what was said before stays.
        let identities = config_dir
            .as_deref()
            .map(|dir| IdentityTable::load(dir, &secret))
            .transpose();
        let identities = identities.map_err(EngineError::Configuration)?;
        let groups = config_dir.as_deref().map(|dir| Groups::load(dir, &secret)).transpose();
        let groups = groups.map_err(EngineError::Configuration)?.unwrap_or_default();
        let webhooks = webhooks(&settings)?;
        let (log, checkpoints) = open_log(&settings).await?;
        // Both addresses are taken before the log is gone through, so that a port in use is told at once.
        let (listener, http) = listen(settings.http, "--http").await?;
        let public_listener = match settings.public.http {
            Some(address) => Some(listen(address, "--public").await?),
            None => None,
        };
        let public = public_listener.as_ref().map(|(_, address)| *address);
        let fence = Fence::default();
        let mut fluvio = fluvio_parts(&settings)?;
        let taken_up = take_up(&settings, &log, fluvio.as_mut(), &fence).await?;
        let link = connect(&settings, &places).await?;

        let (asker, asks) = asking();
        let (settler, waiting) = settling();
        let epoch = u64::try_from(wall_clock_us()).unwrap_or(0);
        let (bus, board) = (Arc::new(Bus::new(epoch)), Arc::new(Board::new(epoch)));
        let latencies = Arc::new(Latencies::default());
        let topic = fluvio.and_then(|fluvio| fluvio.alerts);
        let outbox = open_outbox(&settings, &link, webhooks, topic, &fence, &latencies).await?;
        let (forwarding, told_until) = taken_up.unzip();
        if let Some(Offset(until)) = told_until.flatten()
            && outbox.told_until().is_none()
        {
            outbox.mark_told_until(until);
        }
        let ready = Arc::new(AtomicBool::new(false));
        let supervisor = Supervisor::new();
        let shedding = Arc::new(Shedding::default());
        // Messages wait here for the pipeline; beyond it the source waits, which a broker can bear and memory cannot.
        let (deliveries_in, deliveries) = mpsc::channel(settings.intake.queue);
        let intake = Arc::new(Intake::of(deliveries_in.downgrade()));
        let planning = planning_turns();
        let erasing = Arc::new(Erasing::default());
        let (intake_stop, outbox_stop, forwarding_stop, http_stop) = (
            CancellationToken::new(),
            CancellationToken::new(),
            CancellationToken::new(),
            CancellationToken::new(),
        );

        let waiting = waiting.keeping(
            forwarding
                .as_ref()
                .map(|forwarding: &Arc<Forwarding>| forwarding.forwarded()),
        );
        let settling = tokio::spawn(waiting.run(
            Arc::clone(&log),
            Arc::clone(&checkpoints),
            Arc::clone(&latencies),
            asker.clone(),
        ));
        let fresh_perception: Arc<dyn Fn() -> Perception + Send + Sync> = {
            let options = PerceptionOptions {
                groups,
                ..PerceptionOptions::of(&settings)
            };
            let (places, fresh_queries) = (Arc::clone(&places), Arc::clone(&fresh_queries));
            Arc::new(move || Perception::new(options.clone(), Arc::clone(&places), fresh_queries()))
        };
        let shared = Arc::new(Shared {
            asker: asker.clone(),
            bus: Arc::clone(&bus),
            board: Arc::clone(&board),
            public_streams: public_streams(),
            latencies: Arc::clone(&latencies),
            outbox: Arc::clone(&outbox),
            log: Arc::clone(&log),
            log_slow_after: settings.log.slow_after,
            sources: vec![(link.name.clone(), link.source.health())],
            ready: Arc::clone(&ready),
            shedding: Arc::clone(&shedding),
            intake: Arc::clone(&intake),
            metrics,
            fresh_queries,
            fresh_perception: Arc::clone(&fresh_perception),
            planning: Arc::clone(&planning),
            supervisor: supervisor.clone(),
            queries_dir,
            parameters,
            privacy_k: settings.privacy_k,
            erasing: Arc::clone(&erasing),
            started: Instant::now(),
            stop: http_stop.clone(),
        });
        let serving = serve(
            listener,
            public_listener.map(|(listener, _)| listener),
            shared,
            &supervisor,
        );

        let parts = {
            let fresh = move || fresh_perception();
            let parts = Parts {
                perception: fresh(),
                decode: decode_options(&settings, secret),
                assignment: settings.workers.clone(),
                recent_ids: settings.intake.recent_ids,
                batch: settings.intake.batch,
                intake,
                checkpoint_every: settings.checkpoint_every,
                log: Arc::clone(&log),
                settler,
                outbox: Arc::clone(&outbox),
                bus: Arc::clone(&bus),
                board,
                latencies: Arc::clone(&latencies),
                clock: Arc::new(SystemClock),
            };
            (parts, fresh)
        };
        // Going through the log again is long work without a pause, so not for the runtime's own threads.
        let (parts, fresh) = parts;
        let saved = Arc::clone(&checkpoints);
        let recovered = tokio::task::spawn_blocking(move || {
            let mut pipeline = Pipeline::new(parts);
            pipeline.recover(&checkpoints, fresh).map_err(EngineError::failed)?;
            if let Some(identities) = identities {
                pipeline.identify_by_table(&identities).map_err(EngineError::failed)?;
            }
            pipeline.perception.begin_groups();
            Ok::<_, EngineError>(pipeline)
        });
        let mut pipeline = recovered.await.map_err(EngineError::failed)??;
        // A task and no thread of its own: a message is looked at where it was received, without another thread having to
        // wake up for it, and what is told goes out from there.
        let pipeline = tokio::spawn({
            let stop = intake_stop.clone();
            async move { pipeline.run(deliveries, asks, stop).await.map_err(EngineError::failed) }
        });
        let sending = tokio::spawn(Arc::clone(&outbox).send(supervisor.clone(), outbox_stop.clone()));
        let health = vec![link.source.health()];
        let oversized = supervisor.run("oversized", intake_stop.clone(), {
            let (asker, stop) = (asker.clone(), intake_stop.clone());
            move || oversized::watch(asker.clone(), stop.clone())
        });
        let shed = supervisor.run("shed", intake_stop.clone(), {
            let (asker, stop) = (asker.clone(), intake_stop.clone());
            move || shed::watch(asker.clone(), health.clone(), Arc::clone(&shedding), stop.clone())
        });
        let keep_from: KeepFrom = {
            let forwarded = forwarding.as_ref().map(|forwarding| forwarding.forwarded());
            Arc::new(move || {
                let forwarded = forwarded.as_ref().map(|at| Offset(at.load(Ordering::Acquire)));
                let keep_from = saved.keep_from()?;
                Some(forwarded.map_or(keep_from, |forwarded| forwarded.min(keep_from)))
            })
        };
        let eraser = supervisor.run("erasures", intake_stop.clone(), {
            let (parts, stop) = (
                erasure::Parts {
                    asker: asker.clone(),
                    log: Arc::clone(&log),
                    outbox: Arc::clone(&outbox),
                    stays: stays(&settings),
                    retention: Retention::of(&settings.retention),
                    keep_from,
                },
                intake_stop.clone(),
            );
            move || Arc::clone(&erasing).run(parts.clone(), stop.clone())
        });
        let forwarding = forwarding.map(|forwarding| {
            supervisor.run("forwarding to Fluvio", forwarding_stop.clone(), {
                let (outbox, stop) = (Arc::clone(&outbox), forwarding_stop.clone());
                let settled: SettledUntil = Arc::new(move || outbox.settled_until());
                move || Arc::clone(&forwarding).run(Arc::clone(&settled), stop.clone())
            })
        });
        let source = supervisor.run(&format!("source {}", link.name), intake_stop.clone(), {
            let (source, stop) = (link.source, intake_stop.clone());
            move || Arc::clone(&source).run(deliveries_in.clone(), stop.clone())
        });
        let keeping = supervisor.run("query keeper", intake_stop.clone(), {
            let (asker, supervisor, stop) = (asker.clone(), supervisor.clone(), intake_stop.clone());
            move || keep_running(asker.clone(), Arc::clone(&planning), supervisor.clone(), stop.clone())
        });
        let mut broker = link.broker;
        if let Some(broker) = &mut broker {
            broker.ready().await.map_err(EngineError::failed)?;
        }
        ready.store(true, Ordering::Release);
        Ok(Self {
            mqtt: link.mqtt,
            mqtt_address: broker.as_ref().map(EmbeddedBroker::local_addr),
            http,
            public,
            data: settings.data,
            asker,
            latencies,
            log,
            outbox,
            bus,
            broker,
            fence,
            forwarding,
            forwarding_stop,
            intake_stop,
            outbox_stop,
            http_stop,
            pipeline,
            sources: vec![source, oversized, shed, eraser],
            keeping,
            settling,
            sending,
            serving,
        })
    }

    /// What pages are told, for whoever wants to hear it inside the process.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// The line that says that it runs.
    pub fn ready_line(&self) -> String {
        let public = self
            .public
            .map_or(String::new(), |address| format!(" public={address}"));
        let data = self.data.display();
        format!("ready mqtt={} http={} data={data}{public}", self.mqtt, self.http)
    }

    /// Waits until something ends that can't be started again by itself, as when the log can't be written.
    ///
    /// # Errors
    /// Always; why.
    pub async fn failed(&mut self) -> EngineError {
        // What can be started again is; these two hold what is understood, and what is on its way to the disk.
        let (part, ended) = tokio::select! {
            biased;
            reason = self.fence.shut_at() => return EngineError::Failed(reason),
            ended = &mut self.pipeline => ("the pipeline", ended),
            ended = &mut self.settling => ("the settler", ended.map(Ok)),
        };
        match ended {
            Ok(Err(error)) => error,
            Ok(Ok(())) => EngineError::Failed(format!("{part} ended by itself")),
            Err(error) => EngineError::Failed(format!("{part} broke: {error}; the log has all that was acknowledged")),
        }
    }

    /// Takes no more messages, finishes those it has, saves the state, sends what waits, and ends.
    ///
    /// # Errors
    /// What went wrong on the way; the log has everything that was acknowledged all the same.
    pub async fn stop(self) -> Result<(), EngineError> {
        self.intake_stop.cancel();
        let giving_up = tokio::spawn(give_up_writing(Arc::clone(&self.log)));
        let mut result = Ok(());
        for source in self.sources {
            // Supervised: it has said what there was to say.
            let _ = source.await;
        }
        let _ = self.keeping.await;
        // Whoever has ended was waited for by `failed`, and a task must not be waited for twice.
        if !self.pipeline.is_finished()
            && let Ok(Err(error)) = self.pipeline.await
        {
            result = Err(error);
        }
        if !self.settling.is_finished() {
            // The pipeline is gone, so the settler sees the end of its work.
            let _ = self.settling.await;
        }
        giving_up.abort();
        if let Some(trouble) = self.log.health().trouble {
            result = Err(EngineError::Failed(format!(
                "{}; whoever was not acknowledged sends again",
                trouble.reason
            )));
        }
        let out = async {
            while !self.outbox.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(LAST_WORDS, out).await.is_err() {
            tracing::warn!(
                left = self.outbox.len(),
                "not everything went out; it is kept and goes out after the next start"
            );
        }
        self.outbox_stop.cancel();
        let _ = self.sending.await;
        self.forwarding_stop.cancel();
        if let Some(forwarding) = self.forwarding {
            // Supervised, and it ends within its time.
            let _ = forwarding.await;
        }
        let outbox = Arc::clone(&self.outbox);
        let _ = tokio::task::spawn_blocking(move || outbox.close()).await;
        self.http_stop.cancel();
        let _ = tokio::time::timeout(LAST_ANSWERS, self.serving).await;
        if let Some(broker) = self.broker
            && let Err(error) = broker.shutdown().await
        {
            tracing::warn!(%error, "the broker did not end well");
        }
        result
    }
}

/// Closes the log when it still can't be written after a while, so that nothing waits for it for ever.
async fn give_up_writing(log: Arc<dyn Log>) {
    let mut since: Option<Instant> = None;
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let is_troubled = log.health().trouble.is_some();
        since = is_troubled.then(|| since.unwrap_or_else(Instant::now));
        if since.is_some_and(|since| since.elapsed() >= LAST_WRITES) {
            log.close();
            return;
        }
    }
}

/// Makes the configured queries, now to see whether they are right, and later for trials.
#[allow(clippy::type_complexity)] // a factory is what it is
fn fresh(
    places: Arc<Places>,
    config: Option<PathBuf>,
    added: PathBuf,
    settings: &Settings,
    parameters: Arc<ParameterSettings>,
) -> Result<Arc<dyn Fn() -> QuerySet + Send + Sync>, EngineError> {
    let memory = settings.query_memory;
    let visit_gap_us = i64::try_from(settings.engagement.visit_gap.as_micros()).unwrap_or(i64::MAX);
    let make = move || {
        let mut queries = QuerySet::new();
        queries.set_memory(memory);
        queries.set_lag(VISIT, visit_gap_us);
        // Since when a seat is as it is, and how full a room was meanwhile, must not depend on batches.
        queries.watch(&[OCCUPANCY, SEAT_STATE, "grant_*", "challenge_*"]);
        set_references(&mut queries, &places);
        let dir = config.as_deref().unwrap_or(Path::new(""));
        let checked = load_queries_with(&mut queries, dir, Some(&added), &parameters);
        added_queries::load(&mut queries, &added, &parameters.values);
        (queries, checked)
    };
    make().1.map_err(EngineError::Configuration)?;
    Ok(Arc::new(move || make().0))
}

async fn open_log(settings: &Settings) -> Result<(Arc<dyn Log>, Arc<CheckpointStore>), EngineError> {
    let options = LogOptions {
        retention_age: Some(settings.log.retention_age),
        retention_bytes: Some(settings.log.retention_bytes),
        queue_appends: settings.log.queue_appends,
        queue_bytes: settings.log.queue_bytes,
        ..LogOptions::default()
    };
    let options = LogOptions {
        // A record is a little larger than its payload, never four times.
        append_bytes_max: options
            .append_bytes_max
            .max(settings.decode.max_payload_bytes.saturating_mul(4)),
        ..options
    };
    let dir = settings.data.join("log");
    let opened = tokio::task::spawn_blocking(move || embedded_log::open(&dir, options)).await;
    let (log, checkpoints) = opened.map_err(EngineError::failed)?.map_err(|error| match error {
        LogError::OfNewerVersion { .. } => EngineError::OfNewerVersion(error.to_string()),
        error => EngineError::failed(error),
    })?;
    if let Some(format) = checkpoints.newest_format()
        && of_format(format) == OfFormat::Refused
    {
        return Err(EngineError::OfNewerVersion(format!(
            "the checkpoints in {} were written by a newer Usher: they have form {format}, and this one reads form \
             {FORMAT}; nothing was changed. Run the newer version again, or choose another folder with --data",
            checkpoints.dir().display()
        )));
    }
    Ok((Arc::new(log), Arc::new(checkpoints)))
}

async fn open_outbox(
    settings: &Settings,
    link: &Link,
    webhooks: Vec<WebhookReceiver>,
    topic: Option<Arc<TopicWriter>>,
    fence: &Fence,
    latencies: &Arc<Latencies>,
) -> Result<Arc<Outbox>, EngineError> {
    let options = OutboxOptions {
        keep_steps: settings.delivery.keep_steps,
        unwritten_max: settings.delivery.queue,
        in_memory_max: settings.delivery.in_memory,
        dead_letters_max: settings.delivery.dead_letters,
        mqtt: MqttReceiver {
            publisher: Arc::clone(&link.publisher),
            address: link.mqtt.clone(),
            qos: match settings.delivery.mqtt_qos {
                2 => QoS::ExactlyOnce,
                _ => QoS::AtLeastOnce,
            },
            latencies: Arc::clone(latencies),
        },
        webhooks,
        fluvio: topic,
        fence: fence.clone(),
    };
    let dir = settings.data.join("outbox");
    let opened = tokio::task::spawn_blocking(move || Outbox::open(&dir, options)).await;
    Ok(Arc::new(
        opened.map_err(EngineError::failed)?.map_err(EngineError::failed)?,
    ))
}

async fn connect(settings: &Settings, places: &Places) -> Result<Link, EngineError> {
    let packet = usize::try_from(settings.mqtt_client.max_packet_bytes).unwrap_or(usize::MAX);
    match &settings.mqtt {
        Mqtt::Embedded(listen) => {
            let options = BrokerOptions {
                listen: *listen,
                max_packet_bytes: packet,
                max_clients: settings.broker.max_clients,
                client_queue: settings.broker.client_queue,
                session_queue: settings.broker.session_queue,
                session_queue_bytes: settings.broker.session_queue_bytes,
                intake_bytes: settings.intake.queue_bytes,
                ..BrokerOptions::default()
            };
            let (broker, source, publisher) = EmbeddedBroker::bind(options).await.map_err(EngineError::failed)?;
            let address = broker.local_addr();
            Ok(Link {
                name: format!("embedded broker {address}"),
                mqtt: address.to_string(),
                broker: Some(broker),
                source: Arc::new(source),
                publisher: Arc::new(publisher),
            })
        }
        Mqtt::Own(url) => {
            let options = RemoteOptions {
                client_id: settings.mqtt_client.client_id.clone(),
                share_group: settings.mqtt_client.share_group.clone(),
                keep_alive: settings.mqtt_client.keep_alive,
                receive_maximum: settings.mqtt_client.receive_maximum,
                intake_bytes: settings.intake.queue_bytes,
                max_packet_bytes: packet,
                // Who is told of a part of the messages does not know all that stands.
                retained: match &settings.mqtt_client.share_group {
                    Some(_) => Vec::new(),
                    None => places.sites().map(|site| alerts_of(&site.id)).collect(),
                },
                ..RemoteOptions::new(url.with_password(), settings.data.join("mqtt-session.json"))
            };
            let (source, publisher) = RemoteBroker::new(options).map_err(EngineError::failed)?;
            Ok(Link {
                name: format!("broker {url}"),
                mqtt: url.to_string(),
                broker: None,
                source: Arc::new(source),
                publisher: Arc::new(publisher),
            })
        }
    }
}

fn decode_options(settings: &Settings, secret: Secret) -> DecodeOptions {
    DecodeOptions {
        max_payload_bytes: settings.decode.max_payload_bytes,
        max_future_skew_us: i64::try_from(settings.decode.max_future_skew.as_micros()).unwrap_or(i64::MAX),
        earliest_us: settings.decode.earliest.timestamp_micros(),
        ..DecodeOptions::new(secret)
    }
}

/// Listens for HTTP at an address that `flag` chooses; gives which one it is.
async fn listen(address: SocketAddr, flag: &str) -> Result<(TcpListener, SocketAddr), EngineError> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        EngineError::Failed(format!(
            "cannot listen for HTTP on {address}: {error}; stop what listens there, or choose another address with {flag} (port 0 takes a free one)"
        ))
    })?;
    let address = listener.local_addr().map_err(EngineError::failed)?;
    Ok((listener, address))
}

/// Serves staff, and those who may see public answers only.
fn serve(
    listener: TcpListener,
    public: Option<TcpListener>,
    shared: Arc<Shared>,
    supervisor: &Supervisor,
) -> JoinHandle<()> {
    let stop = shared.stop.clone();
    supervisor.run("health for pages", stop.clone(), {
        let shared = Arc::clone(&shared);
        move || {
            let shared = Arc::clone(&shared);
            async move {
                tell_health(shared).await;
                Ok::<(), Infallible>(())
            }
        }
    });
    let served = move |listener: TcpListener, routes: Router, what: &'static str| {
        let stop = stop.clone();
        async move {
            let served = axum::serve(listener, routes).with_graceful_shutdown(async move { stop.cancelled().await });
            if let Err(error) = served.await {
                tracing::error!(%error, "{what} ended");
            }
        }
    };
    tokio::spawn(async move {
        let to_staff = served(listener, router(Arc::clone(&shared)), "the API");
        let to_all = async {
            if let Some(public) = public {
                served(public, public_router(shared), "the public API").await;
            }
        };
        tokio::join!(to_staff, to_all);
    })
}
