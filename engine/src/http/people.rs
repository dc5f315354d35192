//! One person's engagement and consent over HTTP, by pseudonym.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::lookups::{Asking, Reader, record};
use super::request::Path;
use crate::consent::ConsentView;
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

/// What a person agrees to: what was decided, since when and by which event, and what holds. It is recorded who sees it.
#[utoipa::path(get, path = "/api/v1/people/{pseudonym}/consent",
    params(("pseudonym" = String, Path), Asking, ("Usher-Staff" = Option<String>, Header, description = "Who asks"),
        ("Usher-Reason" = Option<String>, Header, description = "What for")),
    responses((status = 200, body = ConsentView), (status = 404, body = Problem)))]
pub(super) async fn consent(
    State(shared): State<Arc<Shared>>,
    Path(pseudonym): Path<String>,
    reader: Reader,
) -> Result<Json<ConsentView>, Problem> {
    let wanted = pseudonym.clone();
    let consent = shared.asker.ask(move |pipeline| {
        let perception = &pipeline.perception;
        let decided = perception.consents.decided();
        let is_known = decided.decisions(&wanted).is_some() || perception.people.knows(&wanted);
        is_known.then(|| decided.view(&wanted))
    });
    let consent = consent.await?.ok_or_else(|| Problem::not_found("person", &pseudonym))?;
    record(&shared, reader, "consent", [Arc::from(pseudonym)]).await?;
    Ok(Json(consent))
}
