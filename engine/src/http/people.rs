//! One person's engagement over HTTP, by pseudonym.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};

use super::lookups::{Asking, Reader, record};
use crate::http::{Problem, Shared};
use crate::people::PersonView;

/// A person's engagement. It is recorded who sees it.
#[utoipa::path(get, path = "/api/v1/people/{pseudonym}",
    params(("pseudonym" = String, Path), Asking, ("Usher-Staff" = Option<String>, Header, description = "Who asks"),
        ("Usher-Reason" = Option<String>, Header, description = "What for")),
    responses((status = 200, body = PersonView), (status = 404, body = Problem)))]
pub(super) async fn person(
    State(shared): State<Arc<Shared>>,
    Path(pseudonym): Path<String>,
    reader: Reader,
) -> Result<Json<PersonView>, Problem> {
    let wanted = pseudonym.clone();
    let person = shared
        .asker
        .ask(move |pipeline| {
            let perception = &pipeline.perception;
            perception.people.get(&wanted, perception.clock_us().unwrap_or(0))
        })
        .await?;
    let person = person.ok_or_else(|| Problem::not_found("person", &pseudonym))?;
    record(&shared, reader, "person", [Arc::from(pseudonym)]).await?;
    Ok(Json(person))
}
