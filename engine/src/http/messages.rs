//! Messages over HTTP: what people were sent, what was withheld and why, and whether it helps.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::lookups::{Asking, Reader, record};
use super::request::{Path, Query};
use crate::http::paging::{Page, Paging};
use crate::http::{Problem, Shared};
use crate::messages::{MessageState, MessageView, SIDE_MIN, UpliftView};

/// Messages that are looked through for a list over all people, the newest of those wanted.
const NEWEST_MAX: usize = 2_000;

/// Which messages.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
pub(super) struct Which {
    /// `sent`, `opened`, `accepted`, `declined`, `expired` or `withheld`, or `open` for those that may still be answered.
    /// All when left out.
    state: Option<String>,
    /// Only of this rule.
    rule: Option<String>,
    /// Only of this kind.
    kind: Option<String>,
}

impl Which {
    /// The states that are wanted.
    fn states(&self) -> Result<Vec<MessageState>, Problem> {
        let all = MessageState::ALL;
        let Some(wanted) = self.state.as_deref() else {
            return Ok(all.to_vec());
        };
        let is_wanted = |state: &MessageState| state.as_str() == wanted || wanted == "open" && state.is_open();
        let states: Vec<MessageState> = all.into_iter().filter(is_wanted).collect();
        if states.is_empty() {
            let known = all.map(MessageState::as_str).join(", ");
            return Err(
                Problem::new(StatusCode::BAD_REQUEST, format!("'{wanted}' is no state of a message"))
                    .right(&format!("one of open, {known} would be right")),
            );
        }
        Ok(states)
    }
}

/// Messages to all people, the newest first; the last 10000 are looked through. It is recorded who sees them.
#[utoipa::path(get, path = "/api/v1/messages",
    params(Paging, Which, Asking, ("Usher-Staff" = Option<String>, Header, description = "Who asks"),
        ("Usher-Reason" = Option<String>, Header, description = "What for")),
    responses((status = 200, body = Page<MessageView>), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(paging): Query<Paging>,
    Query(which): Query<Which>,
    reader: Reader,
) -> Result<Json<Page<MessageView>>, Problem> {
    let states = which.states()?;
    let newest = shared.asker.ask(move |pipeline| {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let wanted = |state: MessageState, rule: &str, kind: &str| {
            states.contains(&state) && is(&which.rule, rule) && is(&which.kind, kind)
        };
        pipeline.perception.messages.newest(wanted, NEWEST_MAX)
    });
    let page = paging.cut(newest.await?, |message| message.id.clone());
    let persons = page.items.iter().map(|message| Arc::from(message.person.as_str()));
    record(&shared, reader, "messages", persons).await?;
    Ok(Json(page))
}

/// What a person was sent and what was withheld, the newest first; nothing of somebody who opted out. It is recorded who
/// sees it.
#[utoipa::path(get, path = "/api/v1/people/{pseudonym}/messages",
    params(("pseudonym" = String, Path), Paging, Which, Asking, ("Usher-Staff" = Option<String>, Header, description = "Who asks"),
        ("Usher-Reason" = Option<String>, Header, description = "What for")),
    responses((status = 200, body = Page<MessageView>), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn of_person(
    State(shared): State<Arc<Shared>>,
    Path(pseudonym): Path<String>,
    Query(paging): Query<Paging>,
    Query(which): Query<Which>,
    reader: Reader,
) -> Result<Json<Page<MessageView>>, Problem> {
    let states = which.states()?;
    let wanted = pseudonym.clone();
    let all = shared.asker.ask(move |pipeline| {
        let perception = &pipeline.perception;
        let messages = perception.messages.of(&wanted);
        // Of somebody who refused there is nothing to show, and yet the person is known.
        let is_known = !messages.is_empty()
            || perception.people.knows(&wanted)
            || perception.points.get(&wanted).is_some()
            || perception.consents.decided().decisions(&wanted).is_some();
        is_known.then_some(messages)
    });
    let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
    let mut messages = all.await?.ok_or_else(|| Problem::not_found("person", &pseudonym))?;
    messages.retain(|message| {
        states.contains(&message.state) && is(&which.rule, &message.rule) && is(&which.kind, &message.kind)
    });
    let page = paging.cut(messages, |message| message.id.clone());
    let persons = (!page.items.is_empty()).then(|| Arc::from(pseudonym));
    record(&shared, reader, "messages", persons).await?;
    Ok(Json(page))
}

/// How the rules do that write to people.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct Uplift {
    /// Each rule, by name.
    pub items: Vec<UpliftView>,
    /// Always null: rules are few.
    pub next: Option<String>,
    /// Persons that are needed on each side before a difference is told.
    pub persons_min: u64,
}

/// Of those who were sent a rule's message and of those held out, how many came back, and the difference with its interval
/// of 95 %.
#[utoipa::path(get, path = "/api/v1/measures/uplift", responses((status = 200, body = Uplift)))]
pub(super) async fn uplift(State(shared): State<Arc<Shared>>) -> Result<Json<Uplift>, Problem> {
    let k = shared.privacy_k;
    let items = shared.asker.ask(move |pipeline| pipeline.perception.messages.uplift(k));
    Ok(Json(Uplift {
        items: items.await?,
        next: None,
        persons_min: SIDE_MIN,
    }))
}
