//! The staff page, from inside the binary.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::Embed;

use super::request::Path;
use crate::http::Problem;

/// The files of `dashboard/`.
#[derive(Embed)]
#[folder = "dashboard/"]
struct Dashboard;

pub(super) async fn index() -> Response {
    file("index.html")
}

pub(super) async fn asset(Path(name): Path<String>) -> Response {
    file(&name)
}

fn file(name: &str) -> Response {
    let Some(found) = Dashboard::get(name) else {
        return Problem::new(StatusCode::NOT_FOUND, format!("the page has no file '{name}'")).into_response();
    };
    let kind = match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        _ => "application/octet-stream",
    };
    // A new binary brings a new page, and the files are small.
    (
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")],
        found.data,
    )
        .into_response()
}
