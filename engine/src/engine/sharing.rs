//! Sharing the sites with other workers: the ways to Fluvio, and taking up an assignment at the start.

use std::sync::Arc;

use usher_connectors::embedded_log::LogOptions;
use usher_connectors::fluvio;
use usher_connectors::fluvio::cluster::Cluster;
use usher_connectors::fluvio::topic::TopicWriter;
use usher_connectors::log::{Epoch, Log, Offset};

use super::EngineError;
use crate::erasure::Copies;
use crate::fence::Fence;
use crate::forwarding::{Forwarding, OpenPartition, TakeUpError, TakenUp};
use crate::settings::Settings;

/// What there is of Fluvio.
pub(super) struct FluvioParts {
    open: OpenPartition,
    /// Where alerts are told.
    pub(super) alerts: Option<Arc<TopicWriter>>,
}

/// The ways to Fluvio, if it is in the settings. Connects to nothing yet.
pub(super) fn fluvio_parts(settings: &Settings) -> Result<Option<FluvioParts>, EngineError> {
    let Some(fluvio) = &settings.fluvio else {
        return Ok(None);
    };
    let cluster = Cluster::new(fluvio.cluster.clone()).map_err(EngineError::failed)?;
    let alerts = fluvio.alerts.clone();
    let alerts = alerts.map(|topic| Arc::new(TopicWriter::new(Arc::clone(&cluster), topic)));
    let (events, options) = (fluvio.events.clone(), LogOptions::default());
    let data = settings.data.join("fluvio");
    let open: OpenPartition = Arc::new(move |partition| {
        let file = data.join(format!("{partition}.json"));
        let log = fluvio::log::open(&cluster, &events, partition, options.clone(), Some(file))?;
        let (records, labels) = (log.read_to_open(), [("partition", partition.to_string())]);
        metrics::gauge!("usher_fluvio_read_at_start_records", &labels).set(records as f64);
        tracing::info!(partition, records, "read what was new in a partition");
        Ok(Arc::new(log) as Arc<dyn Log>)
    });
    Ok(Some(FluvioParts { open, alerts }))
}

/// Takes up the assignment of this worker: in our own log, and in Fluvio, from where it gets what others had.
pub(super) async fn take_up(
    settings: &Settings,
    log: &Arc<dyn Log>,
    fluvio: Option<&mut FluvioParts>,
    fence: &Fence,
) -> Result<Option<(Arc<Forwarding>, Option<Offset>)>, EngineError> {
    let (log, assignment) = (Arc::clone(log), settings.workers.clone());
    let Some(open) = fluvio.map(|fluvio| Arc::clone(&fluvio.open)) else {
        // A log that never had an epoch stays one that earlier versions can write.
        if assignment.epoch() > 0 {
            let claimed = tokio::task::spawn_blocking(move || log.claim(Epoch(assignment.epoch()))).await;
            claimed.map_err(EngineError::failed)?.map_err(EngineError::failed)?;
        }
        return Ok(None);
    };
    let (data, fence) = (settings.data.clone(), fence.clone());
    let taken = tokio::task::spawn_blocking(move || Forwarding::take_up(log, open, assignment, &data, fence)).await;
    let TakenUp { forwarding, told_until } = taken.map_err(EngineError::failed)?.map_err(|error| match error {
        // Exit code 2: somebody has to change something.
        TakeUpError::Refused(words) => EngineError::Unfit(words),
        error => EngineError::failed(error),
    })?;
    Ok(Some((forwarding, told_until)))
}

/// Where copies of what a person did lie out of which nothing can be taken, and for how long.
pub(super) fn stays(settings: &Settings) -> Vec<Copies> {
    let Some(fluvio) = &settings.fluvio else {
        return Vec::new();
    };
    let topics = [Some(&fluvio.events), fluvio.alerts.as_ref()];
    let copies = topics.into_iter().flatten().map(|topic| Copies {
        place: format!("the topic {} of Fluvio", topic.name),
        kept_for: topic.retention_age,
    });
    copies.collect()
}
