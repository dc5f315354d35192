//! A problem is an error as RFC 9457 writes it: what is wrong, where, and what would be right.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::pipeline::Stopping;

/// A mistake in SQL with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Place {
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub right: Option<String>,
}

/// Problem details.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind it is.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, and what would be right.
    pub detail: String,
    /// Mistakes in SQL with their places.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<Place>,
}

impl Problem {
    /// A problem in words.
    pub fn new(status: StatusCode, wrong: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: wrong.into(),
            mistakes: Vec::new(),
        }
    }

    /// Adds what would be right.
    #[must_use]
    pub fn right(mut self, right: &str) -> Self {
        self.detail = format!("{}; {right}", self.detail);
        self
    }

    pub(super) fn not_found(what: &str, id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no {what} '{id}'"))
    }
}

impl From<Stopping> for Problem {
    fn from(stopping: Stopping) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, stopping.to_string())
    }
}

impl From<usher_queries::error::QueryError> for Problem {
    fn from(error: usher_queries::error::QueryError) -> Self {
        let detail = format!("{}:{}: {}", error.line, error.column, error.wrong);
        Self {
            mistakes: vec![Place {
                line: error.line,
                column: error.column,
                wrong: error.wrong,
                right: error.right,
            }],
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}
