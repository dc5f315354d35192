//! Zones, seats and devices over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::request::{Path, Query};
use crate::alert::State as AlertState;
use crate::devices::DeviceView;
use crate::http::paging::{Page, Paging};
use crate::http::{Problem, Shared};
use crate::seats::SeatView;
use crate::zones::ZoneView;

/// Which site, where ids could mean several.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
pub(super) struct OfSite {
    /// Only of this site.
    pub(super) site: Option<String>,
}

/// Which seats.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
pub(super) struct OfZone {
    /// Only of this zone.
    zone: Option<String>,
}

/// All zones with their live counts.
#[utoipa::path(get, path = "/api/v1/zones", params(Paging, OfSite), responses((status = 200, body = Page<ZoneView>)))]
pub(super) async fn zones(
    State(shared): State<Arc<Shared>>,
    Query(paging): Query<Paging>,
    Query(of): Query<OfSite>,
) -> Result<Json<Page<ZoneView>>, Problem> {
    let mut zones = shared
        .asker
        .ask(|pipeline| {
            let perception = &pipeline.perception;
            perception.zones.all(perception.clock_us(), perception.places())
        })
        .await?;
    zones.retain(|zone| of.site.as_ref().is_none_or(|site| *site == zone.site));
    Ok(Json(paging.cut(zones, |zone| format!("{}/{}", zone.site, zone.zone))))
}

/// One zone.
#[utoipa::path(get, path = "/api/v1/zones/{zone}", params(("zone" = String, Path), OfSite),
    responses((status = 200, body = ZoneView), (status = 404, body = Problem)))]
pub(super) async fn zone(
    State(shared): State<Arc<Shared>>,
    Path(zone): Path<String>,
    Query(of): Query<OfSite>,
) -> Result<Json<ZoneView>, Problem> {
    let id = zone.clone();
    let found = shared
        .asker
        .ask(move |pipeline| {
            let perception = &pipeline.perception;
            perception
                .zones
                .get(of.site.as_deref(), &id, perception.clock_us(), perception.places())
        })
        .await?;
    found.map(Json).ok_or_else(|| Problem::not_found("zone", &zone))
}

/// All seats, or those of a zone.
#[utoipa::path(get, path = "/api/v1/seats", params(Paging, OfZone), responses((status = 200, body = Page<SeatView>)))]
pub(super) async fn seats(
    State(shared): State<Arc<Shared>>,
    Query(paging): Query<Paging>,
    Query(of): Query<OfZone>,
) -> Result<Json<Page<SeatView>>, Problem> {
    let seats = shared
        .asker
        .ask(move |pipeline| {
            let perception = &pipeline.perception;
            perception.seats.all(of.zone.as_deref(), perception.places())
        })
        .await?;
    Ok(Json(paging.cut(seats, |seat| {
        format!("{}/{}/{}", seat.site, seat.zone, seat.seat)
    })))
}

/// All devices, named or heard of.
#[utoipa::path(get, path = "/api/v1/devices", params(Paging), responses((status = 200, body = Page<DeviceView>)))]
pub(super) async fn devices(
    State(shared): State<Arc<Shared>>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<DeviceView>>, Problem> {
    let devices = shared
        .asker
        .ask(|pipeline| {
            let perception = &pipeline.perception;
            let silent: Vec<(String, String, String)> = perception
                .alerts
                .open()
                .into_iter()
                .filter(|alert| alert.subject.kind == "device" && alert.state != AlertState::Pending)
                .map(|alert| {
                    (
                        alert.site.clone(),
                        alert.zone.clone().unwrap_or_default(),
                        alert.subject.id.clone(),
                    )
                })
                .collect();
            let is_silent =
                |site: &str, zone: &str, id: &str| silent.iter().any(|(s, z, i)| s == site && z == zone && i == id);
            perception
                .devices
                .all(perception.holder(), is_silent, perception.places())
        })
        .await?;
    let key = |device: &DeviceView| format!("{}/{}/{}/{}", device.site, device.zone, device.kind, device.device);
    Ok(Json(paging.cut(devices, key)))
}
