//! The engine is everything running in one process: broker or link to one, log, pipeline, API and page.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usher_connectors::checkpoint::CheckpointStore;
use usher_connectors::embedded_broker::{BrokerOptions, EmbeddedBroker};
use usher_connectors::embedded_log::{self, LogOptions};
use usher_connectors::log::Log;
use usher_connectors::publisher::Publisher;
use usher_connectors::remote_broker::{RemoteBroker, RemoteOptions};
use usher_connectors::source::Source;
use usher_queries::query_set::QuerySet;

use crate::added_queries;
use crate::bus::Bus;
use crate::check::load_queries;
use crate::decode::DecodeOptions;
use crate::http::{Shared, router, tell_health};
use crate::latency::Latencies;
use crate::outbox::Outbox;
use crate::perception::{Perception, PerceptionOptions};
use crate::pipeline::{Asker, Parts, Pipeline, asking, wall_clock_us};
use crate::position::Mistake;
use crate::pseudonym::Secret;
use crate::reference::set_references;
use crate::settings::{Mqtt, Settings};
use crate::settler::settling;
use crate::site::Places;

/// How long what is in the outbox may take to go out when the engine stops.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How long open HTTP connections may take to end.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Why the engine does not run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// What is configured can't work; each mistake with its place.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Configuration(Vec<Mistake>),
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
    /// The data folder.
    pub data: PathBuf,
    /// Asks the engine.
    pub asker: Asker,
    /// How long the stages of an event's walk take.
    pub latencies: Arc<Latencies>,
    outbox: Arc<Outbox>,
    bus: Arc<Bus>,
    broker: Option<EmbeddedBroker>,
    intake_stop: CancellationToken,
    outbox_stop: CancellationToken,
    http_stop: CancellationToken,
    pipeline: JoinHandle<Result<(), EngineError>>,
    sources: Vec<JoinHandle<Result<(), EngineError>>>,
    settling: JoinHandle<()>,
    sending: JoinHandle<()>,
    serving: JoinHandle<()>,
}

/// The embedded broker or a link to one's own, with the two ends the engine needs.
struct Link {
    name: String,
    mqtt: String,
    broker: Option<EmbeddedBroker>,
    source: Box<dyn Source>,
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
        let places = Arc::new(places);
        let queries_dir = added_queries::dir(&settings.data);
        let fresh_queries = fresh(Arc::clone(&places), config, queries_dir.clone(), settings.query_memory)?;
        std::fs::create_dir_all(&settings.data).map_err(|error| {
            EngineError::Failed(format!(
                "the data folder {} can't be made: {error}; choose another with --data",
                settings.data.display()
            ))
        })?;
        let secret = Secret::load_or_create(&settings.data).map_err(EngineError::failed)?;
        let (log, checkpoints) = open_log(&settings).await?;
        // Both addresses are taken before the log is gone through, so that a port in use is told at once.
        let listener = TcpListener::bind(settings.http).await.map_err(|error| {
            EngineError::Failed(format!(
                "cannot listen for HTTP on {}: {error}; stop what listens there, or choose another address with --http (port 0 takes a free one)",
                settings.http
            ))
        })?;
        let http = listener.local_addr().map_err(EngineError::failed)?;
        let link = connect(&settings).await?;

        let (asker, asks) = asking();
        let (settler, waiting) = settling();
        let outbox = Arc::new(Outbox::new());
        let bus = Arc::new(Bus::new(u64::try_from(wall_clock_us()).unwrap_or(0)));
        let latencies = Arc::new(Latencies::default());
        let ready = Arc::new(AtomicBool::new(false));
        let (intake_stop, outbox_stop, http_stop) = (
            CancellationToken::new(),
            CancellationToken::new(),
            CancellationToken::new(),
        );

        let settling = tokio::spawn(waiting.run(
            Arc::clone(&log),
            Arc::clone(&checkpoints),
            Arc::clone(&latencies),
            asker.clone(),
        ));
        let shared = Arc::new(Shared {
            asker: asker.clone(),
            bus: Arc::clone(&bus),
            latencies: Arc::clone(&latencies),
            outbox: Arc::clone(&outbox),
            log: Arc::clone(&log),
            sources: vec![(link.name.clone(), link.source.health())],
            ready: Arc::clone(&ready),
            metrics,
            fresh_queries: Arc::clone(&fresh_queries),
            queries_dir,
            started: Instant::now(),
            stop: http_stop.clone(),
        });
        let serving = serve(listener, shared);

        let parts = {
            let (options, places, fresh_queries) = (
                PerceptionOptions::of(&settings),
                Arc::clone(&places),
                Arc::clone(&fresh_queries),
            );
            let fresh = move || Perception::new(options.clone(), Arc::clone(&places), fresh_queries());
            let parts = Parts {
                perception: fresh(),
                decode: decode_options(&settings, secret),
                recent_ids: settings.intake.recent_ids,
                batch: settings.intake.batch,
                checkpoint_every: settings.checkpoint_every,
                log: Arc::clone(&log),
                settler,
                outbox: Arc::clone(&outbox),
                bus: Arc::clone(&bus),
                latencies: Arc::clone(&latencies),
            };
            (parts, fresh)
        };
        // Messages wait here for the pipeline; beyond it the source waits, which a broker can bear and memory cannot.
        let (deliveries_in, deliveries) = mpsc::channel(settings.intake.queue);
        // Going through the log again is long work without a pause, so not for the runtime's own threads.
        let (parts, fresh) = parts;
        let recovered = tokio::task::spawn_blocking(move || {
            let mut pipeline = Pipeline::new(parts);
            let loaded = checkpoints.load().map_err(EngineError::failed)?;
            pipeline
                .recover(loaded.checkpoint, fresh)
                .map_err(EngineError::failed)?;
            Ok::<_, EngineError>(pipeline)
        });
        let mut pipeline = recovered.await.map_err(EngineError::failed)??;
        // A task and no thread of its own: a message is looked at where it was received, without another thread having to
        // wake up for it, and what is told goes out from there.
        let pipeline = tokio::spawn({
            let stop = intake_stop.clone();
            async move { pipeline.run(deliveries, asks, stop).await.map_err(EngineError::failed) }
        });
        let sending = tokio::spawn({
            let (outbox, latencies, publisher) =
                (Arc::clone(&outbox), Arc::clone(&latencies), Arc::clone(&link.publisher));
            let stop = outbox_stop.clone();
            async move { outbox.send(publisher.as_ref(), &latencies, stop).await }
        });
        let running = link.source.run(deliveries_in, intake_stop.clone());
        let source = tokio::spawn(async move { running.await.map_err(EngineError::failed) });
        let mut broker = link.broker;
        if let Some(broker) = &mut broker {
            broker.ready().await.map_err(EngineError::failed)?;
        }
        ready.store(true, Ordering::Release);
        Ok(Self {
            mqtt: link.mqtt,
            mqtt_address: broker.as_ref().map(EmbeddedBroker::local_addr),
            http,
            data: settings.data,
            asker,
            latencies,
            outbox,
            bus,
            broker,
            intake_stop,
            outbox_stop,
            http_stop,
            pipeline,
            sources: vec![source],
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
        format!(
            "ready mqtt={} http={} data={}",
            self.mqtt,
            self.http,
            self.data.display()
        )
    }

    /// Waits until something ends that should not: a source that can't go on, a log that can't be written.
    ///
    /// # Errors
    /// Always; why.
    pub async fn failed(&mut self) -> EngineError {
        let source = self.sources.first_mut();
        let ended = async {
            match source {
                Some(source) => source.await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = &mut self.pipeline => ended,
            ended = ended => ended,
        };
        match ended {
            Ok(Err(error)) => error,
            Ok(Ok(())) => EngineError::Failed("a part of the engine ended by itself".to_owned()),
            Err(error) => EngineError::Failed(format!("a part of the engine broke: {error}")),
        }
    }

    /// Takes no more messages, finishes those it has, saves the state, sends what waits, and ends.
    ///
    /// # Errors
    /// What went wrong on the way; the log has everything that was acknowledged all the same.
    pub async fn stop(self) -> Result<(), EngineError> {
        self.intake_stop.cancel();
        let mut result = Ok(());
        if !self.pipeline.is_finished() || !self.sources.iter().all(JoinHandle::is_finished) {
            for source in self.sources {
                if let Ok(Err(error)) = source.await {
                    result = Err(error);
                }
            }
            if let Ok(Err(error)) = self.pipeline.await {
                result = Err(error);
            }
        }
        // The pipeline is gone, so the settler sees the end of its work.
        let _ = self.settling.await;
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

/// Makes the configured queries, now to see whether they are right, and later for trials.
#[allow(clippy::type_complexity)] // a factory is what it is
fn fresh(
    places: Arc<Places>,
    config: Option<PathBuf>,
    added: PathBuf,
    memory: usize,
) -> Result<Arc<dyn Fn() -> QuerySet + Send + Sync>, EngineError> {
    let make = move || {
        let mut queries = QuerySet::new();
        queries.set_memory(memory);
        set_references(&mut queries, &places);
        let dir = config.as_deref().unwrap_or(Path::new(""));
        let checked = load_queries(&mut queries, dir);
        added_queries::load(&mut queries, &added);
        (queries, checked)
    };
    make().1.map_err(EngineError::Configuration)?;
    Ok(Arc::new(move || make().0))
}

async fn open_log(settings: &Settings) -> Result<(Arc<dyn Log>, Arc<CheckpointStore>), EngineError> {
    let options = LogOptions {
        retention_age: Some(settings.log.retention_age),
        retention_bytes: Some(settings.log.retention_bytes),
        ..LogOptions::default()
    };
    let dir = settings.data.join("log");
    let opened = tokio::task::spawn_blocking(move || embedded_log::open(&dir, options)).await;
    let (log, checkpoints) = opened.map_err(EngineError::failed)?.map_err(EngineError::failed)?;
    Ok((Arc::new(log), Arc::new(checkpoints)))
}

async fn connect(settings: &Settings) -> Result<Link, EngineError> {
    let packet = usize::try_from(settings.mqtt_client.max_packet_bytes).unwrap_or(usize::MAX);
    match &settings.mqtt {
        Mqtt::Embedded(listen) => {
            let options = BrokerOptions {
                listen: *listen,
                max_packet_bytes: packet,
                max_clients: settings.broker.max_clients,
                client_queue: settings.broker.client_queue,
                ..BrokerOptions::default()
            };
            let (broker, source, publisher) = EmbeddedBroker::bind(options).await.map_err(EngineError::failed)?;
            let address = broker.local_addr();
            Ok(Link {
                name: format!("embedded broker {address}"),
                mqtt: address.to_string(),
                broker: Some(broker),
                source: Box::new(source),
                publisher: Arc::new(publisher),
            })
        }
        Mqtt::Own(url) => {
            let options = RemoteOptions {
                client_id: settings.mqtt_client.client_id.clone(),
                share_group: settings.mqtt_client.share_group.clone(),
                keep_alive: settings.mqtt_client.keep_alive,
                max_packet_bytes: packet,
                ..RemoteOptions::new(url.with_password(), settings.data.join("mqtt-session.json"))
            };
            let (source, publisher) = RemoteBroker::new(options).map_err(EngineError::failed)?;
            Ok(Link {
                name: format!("broker {url}"),
                mqtt: url.to_string(),
                broker: None,
                source: Box::new(source),
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

fn serve(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    let stop = shared.stop.clone();
    tokio::spawn(tell_health(Arc::clone(&shared)));
    tokio::spawn(async move {
        let served =
            axum::serve(listener, router(shared)).with_graceful_shutdown(async move { stop.cancelled().await });
        if let Err(error) = served.await {
            tracing::error!(%error, "the API ended");
        }
    })
}
