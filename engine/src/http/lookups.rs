//! Who looks people up, over HTTP: what is known of a person is shown once it is recorded who sees it.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::alerts::{BY_MAX, DURABLE_WITHIN};
use super::request::{Path, Query};
use crate::http::paging::{Page, Paging};
use crate::http::{Problem, Shared};
use crate::lookups::{Look, LookView};
use crate::pseudonym::Pseudonym;

/// The header with the name or role of who asks, and that with what for.
const STAFF: &str = "usher-staff";
const REASON: &str = "usher-reason";
/// Bytes of a reason at most.
const REASON_MAX: usize = 200;
/// Persons of one answer that are named in the record of who saw it.
const PERSONS_MAX: usize = 1_000;

/// Who asks and what for, where no header can be sent.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
pub(super) struct Asking {
    /// The name or role of who asks, as staff wants to be known; the header `Usher-Staff` counts before it.
    by: Option<String>,
    /// What for; the header `Usher-Reason` counts before it.
    reason: Option<String>,
}

/// Who asks and what for, as they said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reader {
    /// By the header, which a proxy may set that knows staff.
    staff: Option<String>,
    /// By the query string.
    named: Option<String>,
    reason: Option<String>,
}

impl Reader {
    /// Who does something that can be said in a body too: the header counts before the body, and the body before the query
    /// string. Where nobody is named it is `staff`.
    pub(super) fn doer(&self, in_body: Option<&str>) -> String {
        let in_body = || in_body.and_then(|by| words(by, BY_MAX));
        let told = self.staff.clone().or_else(in_body).or_else(|| self.named.clone());
        told.unwrap_or_else(|| "staff".to_owned())
    }

    /// Who looks: the header counts before the query string. Where nobody is named it is `unknown`.
    fn looker(&self) -> String {
        let told = self.staff.as_ref().or(self.named.as_ref());
        told.map_or_else(|| "unknown".to_owned(), Clone::clone)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(asked) = Query::<Asking>::from_request_parts(parts, state).await?;
        let header = |name: &str| {
            let value = parts.headers.get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Ok(Self {
            staff: header(STAFF).and_then(|by| words(&by, BY_MAX)),
            named: asked.by.and_then(|by| words(&by, BY_MAX)),
            reason: header(REASON)
                .or(asked.reason)
                .and_then(|reason| words(&reason, REASON_MAX)),
        })
    }
}

/// What somebody wrote, of at most so many bytes; `None` where that is nothing.
fn words(text: &str, most: usize) -> Option<String> {
    let text: String = text.trim().chars().filter(|letter| !letter.is_control()).collect();
    let end = text.char_indices().map(|(at, letter)| at + letter.len_utf8());
    let end = end.take_while(|end| *end <= most).last()?;
    Some(text[..end].to_owned())
}

/// Records that what is known of these persons is shown to somebody; comes back when that is on disk. Of a list of more than
/// a thousand the first are named.
pub(super) async fn record(
    shared: &Shared,
    reader: Reader,
    what: &'static str,
    persons: impl IntoIterator<Item = Arc<str>>,
) -> Result<(), Problem> {
    let persons: BTreeSet<Arc<str>> = persons.into_iter().collect();
    let persons: Vec<Arc<str>> = persons.into_iter().take(PERSONS_MAX).collect();
    if persons.is_empty() {
        return Ok(());
    }
    let look = |at_us| Look {
        persons,
        by: reader.looker(),
        at_us,
        what: what.to_owned(),
        reason: reader.reason,
    };
    let noted = shared
        .asker
        .ask(move |pipeline| pipeline.note_look(look(pipeline.wall_us())));
    let Some(durable) = noted.await? else {
        return Ok(());
    };
    match tokio::time::timeout(DURABLE_WITHIN, durable).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "it can't be recorded now who looks a person up",
        )
        .right("once the disk takes it, it is shown")),
    }
}

/// The persons whom rows name.
pub(super) fn persons_in(rows: &[Map<String, Value>]) -> BTreeSet<Arc<str>> {
    let texts = rows.iter().flat_map(Map::values).filter_map(Value::as_str);
    let persons = texts.filter(|text| text.starts_with("p_") && Pseudonym::read(text).is_some());
    persons.map(Arc::from).collect()
}

/// Who looked a person up, newest first. To read this is a lookup too, and is recorded, behind what this answer shows.
#[utoipa::path(get, path = "/api/v1/people/{pseudonym}/lookups",
    params(("pseudonym" = String, Path), Paging, Asking, ("Usher-Staff" = Option<String>, Header, description = "Who asks"),
        ("Usher-Reason" = Option<String>, Header, description = "What for")),
    responses((status = 200, body = Page<LookView>), (status = 404, body = Problem)))]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(pseudonym): Path<String>,
    Query(paging): Query<Paging>,
    reader: Reader,
) -> Result<Json<Page<LookView>>, Problem> {
    let wanted = pseudonym.clone();
    let looks = shared.asker.ask(move |pipeline| {
        let perception = &pipeline.perception;
        let looks = perception.lookups.of_all(&perception.identity.names_of(&wanted));
        let is_known = perception.people.knows(&wanted) || !looks.is_empty();
        is_known.then_some(looks)
    });
    let looks = looks.await?.ok_or_else(|| Problem::not_found("person", &pseudonym))?;
    record(&shared, reader, "lookups", [Arc::from(pseudonym)]).await?;
    // The newest has the highest number, and a page's key only ever rises.
    Ok(Json(
        paging.cut(looks, |look| format!("{:020}", u64::MAX - look.number)),
    ))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn reader(uri: &str, headers: &[(&str, &[u8])]) -> Reader {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).expect("it is right").into_parts();
        let read = Reader::from_request_parts(&mut parts, &()).await;
        read.expect("it can be read")
    }

    async fn told(uri: &str, headers: &[(&str, &[u8])]) -> (String, Option<String>) {
        let reader = reader(uri, headers).await;
        (reader.looker(), reader.reason)
    }

    fn said(by: &str, reason: Option<&str>) -> (String, Option<String>) {
        (by.to_owned(), reason.map(str::to_owned))
    }

    #[tokio::test]
    async fn who_asks_says_so_by_header_or_parameter_or_is_unknown() {
        assert_eq!(told("/x", &[]).await, said("unknown", None));
        assert_eq!(
            told("/x?by=Li&reason=a%20lost%20card", &[]).await,
            said("Li", Some("a lost card"))
        );
        let headers: [(&str, &[u8]); 2] = [("Usher-Staff", "李".as_bytes()), ("Usher-Reason", b"fine")];
        assert_eq!(told("/x?by=Li", &headers).await, said("李", Some("fine")));
        assert_eq!(told("/x?by=%20", &[("Usher-Staff", b" ")]).await, said("unknown", None));
        let long = "ö".repeat(80);
        let found = told(&format!("/x?by={}", "%C3%B6".repeat(80)), &[]).await;
        assert_eq!(found.0, long[..100], "no letter is cut in two");
    }

    #[tokio::test]
    async fn who_does_something_is_named_by_the_header_before_the_body_and_the_query_string() {
        let staff: [(&str, &[u8]); 1] = [("Usher-Staff", b"real")];
        let named = reader("/x?by=fake", &staff).await;
        assert_eq!(
            (named.doer(None), named.doer(Some("fake"))),
            ("real".to_owned(), "real".to_owned())
        );
        let named = reader("/x?by=Li", &[]).await;
        assert_eq!(
            (named.doer(None), named.doer(Some("Wu"))),
            ("Li".to_owned(), "Wu".to_owned())
        );
        let nobody = reader("/x", &[("Usher-Staff", b" ")]).await;
        assert_eq!(
            (nobody.doer(None), nobody.doer(Some(" "))),
            ("staff".to_owned(), "staff".to_owned())
        );
    }

    #[test]
    fn persons_are_found_in_rows() {
        let person = format!("p_{}", "a".repeat(26));
        let row = |value: Value| Map::from_iter([("x".to_owned(), value)]);
        let rows = [
            row(person.clone().into()),
            row("p_nobody".into()),
            row(7.into()),
            row(person.clone().into()),
        ];
        assert_eq!(persons_in(&rows), BTreeSet::from([Arc::from(person)]));
    }
}
