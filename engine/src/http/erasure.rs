//! Everything that is kept of a person, given and erased, over HTTP.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::mpsc;
use usher_connectors::log::Log;

use super::alerts::DURABLE_WITHIN;
use super::lookups::{Asking, Reader, record};
use super::request::Path;
use crate::background::done_in_background;
use crate::erasure::{Export, ReceiptView, exported};
use crate::http::{Problem, Shared};
use crate::pipeline::wall_clock_us;
use crate::pseudonym::Pseudonym;

/// Pieces of an export that wait for whoever reads it; beyond it the log is read no further.
const PIECES: usize = 64;
/// A piece of an export is about so large, bytes.
const PIECE_BYTES: usize = 32 << 10;

/// A pseudonym as the engine writes it.
fn person_of(pseudonym: &str) -> Result<Arc<str>, Problem> {
    match Pseudonym::read(pseudonym) {
        Some(person) if pseudonym.starts_with("p_") => Ok(Arc::clone(person.shared())),
        _ => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            format!("'{pseudonym}' is no pseudonym of a person"),
        )
        .right("p_ and 26 letters and digits would be right, as events and messages have it")),
    }
}

/// Everything that is kept of a person: figures, points, messages, alerts, queries that keep something, and under `log` what the
/// log has, the oldest first. It is written as the log is read, which may take a while. It is recorded who sees it.
#[utoipa::path(get, path = "/api/v1/people/{pseudonym}/export",
    params(("pseudonym" = String, Path), Asking, ("Usher-Staff" = Option<String>, Header, description = "Who asks"),
        ("Usher-Reason" = Option<String>, Header, description = "What for")),
    responses((status = 200, content_type = "application/json", body = Export), (status = 400, body = Problem),
        (status = 503, body = Problem)))]
pub(super) async fn export(
    State(shared): State<Arc<Shared>>,
    Path(pseudonym): Path<String>,
    reader: Reader,
) -> Result<Response, Problem> {
    let person = person_of(&pseudonym)?;
    let whose = Arc::clone(&person);
    let (known, names) = shared
        .asker
        .ask(move |pipeline| {
            let names = pipeline.perception.identity.names_of(&whose);
            (Export::of(&mut pipeline.perception, &whose, wall_clock_us()), names)
        })
        .await?;
    // Where there is nothing of anybody nobody is to be named by that it was looked for.
    if !known.is_empty() || is_in_log(&shared, &names).await? {
        record(&shared, reader, "export", [person]).await?;
    }
    let known = serde_json::to_string(&known).map_err(|error| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("what is known can't be written: {error}"),
        )
    })?;
    let (pieces, written) = mpsc::channel::<Bytes>(PIECES);
    let log = Arc::clone(&shared.log);
    tokio::task::spawn_blocking(move || {
        done_in_background("export", || write_export(log.as_ref(), &names, known, &pieces))
    });
    let body = futures_util::stream::unfold(written, |mut written| async move {
        let piece = written.recv().await?;
        Some((Ok::<Bytes, Infallible>(piece), written))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Whether the log has anything of a person with these names.
async fn is_in_log(shared: &Shared, names: &[Arc<str>]) -> Result<bool, Problem> {
    let (log, names) = (Arc::clone(&shared.log), names.to_vec());
    let looked = tokio::task::spawn_blocking(move || {
        let mut is_there = false;
        let read = exported(log.as_ref(), &names, log.durable(), |_| {
            is_there = true;
            ControlFlow::Break(())
        });
        // What can't be read now may be when it is written out.
        is_there || read.is_err()
    });
    looked.await.map_err(|error| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the log can't be gone through: {error}"),
        )
    })
}

/// Writes what is known, and behind it what the log has. Where that can't be read the document says so in `log_error`.
fn write_export(log: &dyn Log, names: &[Arc<str>], mut known: String, pieces: &mpsc::Sender<Bytes>) {
    // The object goes on.
    known.pop();
    known.push_str(",\"log\":[");
    let mut piece = known;
    let (mut is_first, mut is_wanted) = (true, true);
    let read = exported(log, names, log.durable(), |record| {
        if !std::mem::take(&mut is_first) {
            piece.push(',');
        }
        piece.push_str(&record.to_string());
        if piece.len() >= PIECE_BYTES {
            is_wanted = pieces.blocking_send(std::mem::take(&mut piece).into()).is_ok();
        }
        match is_wanted {
            true => ControlFlow::Continue(()),
            // Nobody reads it any more.
            false => ControlFlow::Break(()),
        }
    });
    piece.push(']');
    if let Err(error) = read {
        tracing::error!(%error, "an export lacks what the log has");
        piece.push_str(",\"log_error\":");
        piece.push_str(&serde_json::Value::from(error.to_string()).to_string());
    }
    piece.push('}');
    // Whoever reads it no longer does not need the end.
    let _ = pieces.blocking_send(piece.into());
}

/// Erases a person: what is known is forgotten at once, what lies on the disk soon after; the receipt tells when. Who comes again
/// later is somebody new.
#[utoipa::path(delete, path = "/api/v1/people/{pseudonym}",
    params(("pseudonym" = String, Path), Asking, ("Usher-Staff" = Option<String>, Header, description = "Who asks; counts before `by`"),
        ("Usher-Reason" = Option<String>, Header, description = "What for")),
    responses((status = 202, body = ReceiptView), (status = 400, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn erase(
    State(shared): State<Arc<Shared>>,
    Path(pseudonym): Path<String>,
    reader: Reader,
) -> Result<Response, Problem> {
    let person = person_of(&pseudonym)?;
    let by = reader.doer(None);
    // The receipt says how much there was. What is recorded of it names nobody once the erasure is through.
    record(&shared, reader, "erasure", [Arc::clone(&person)]).await?;
    let mut salt = [0; 32];
    getrandom::fill(&mut salt).map_err(|error| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the system gives no randomness: {error}"),
        )
    })?;
    let (receipt, durable) = shared
        .asker
        .ask(move |pipeline| pipeline.erase(&person, by, salt))
        .await?;
    shared.erasing.wake();
    let receipt = receipt
        .ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "it is done, and there is no receipt"))?;
    match tokio::time::timeout(DURABLE_WITHIN, durable).await {
        Ok(Ok(())) => {
            let location = format!("/api/v1/erasures/{}", receipt.id);
            let mut response = (StatusCode::ACCEPTED, Json(receipt)).into_response();
            if let Ok(location) = HeaderValue::from_str(&location) {
                response.headers_mut().insert(header::LOCATION, location);
            }
            Ok(response)
        }
        _ => Err(
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "it is done, and not on disk yet").right(
                "once the disk takes it, it lasts; before that a crash would undo it, and it has to be asked for again",
            ),
        ),
    }
}

/// The receipt of an erasure: what it has reached, and whether it is through. It names nobody.
#[utoipa::path(get, path = "/api/v1/erasures/{id}", params(("id" = String, Path)),
    responses((status = 200, body = ReceiptView), (status = 404, body = Problem)))]
pub(super) async fn receipt(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Json<ReceiptView>, Problem> {
    let wanted = id.clone();
    let receipt = shared
        .asker
        .ask(move |pipeline| pipeline.perception.erasures.get(&wanted))
        .await?;
    let mut receipt = receipt.ok_or_else(|| Problem::not_found("erasure", &id))?;
    receipt.progress = shared.erasing.progress_of(&id);
    Ok(Json(receipt))
}
