//! What a request says in its address, its query string and its body; what can't be read of it is told in problem details.

use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{BODY_MAX, Problem};

/// Letters of a value that are repeated in what is said about it.
const SHOWN_MAX: usize = 40;

/// What stands in the address where the route has names.
#[derive(Debug)]
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        read.map(|axum::extract::Path(named)| Self(named)).map_err(|refused| {
            let (status, reason) = (refused.status(), refused.body_text());
            Problem::new(status, format!("the address can't be read: {reason}"))
                .right("UTF-8 with its special signs as %20 and the like would be right")
        })
    }
}

/// The query string. Several may be read of one request, so each leaves names to the others that it does not know.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        read.map(|axum::extract::Query(said)| Self(said)).map_err(|refused| {
            let whole = refused.body_text();
            let reason = whole.split_once("query string: ").map_or(&*whole, |(_, reason)| reason);
            let said = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
            let said = said.map(|axum::extract::Query(said)| said).unwrap_or_default();
            parameter_problem(reason, &said)
        })
    }
}

/// What is wrong with one of the parameters that were `said`, where the reason is serde's.
fn parameter_problem(reason: &str, said: &[(String, String)]) -> Problem {
    let wrong = |what: String| Problem::new(StatusCode::BAD_REQUEST, what);
    if let Some(name) = between(reason, "duplicate field `", "`") {
        return wrong(format!("'{name}' is there twice in the query string")).right("once would be right");
    }
    let at = reason.split_once(": ").and_then(|(name, reason)| {
        let (_, value) = said.iter().find(|(said, _)| said == name)?;
        Some((name, shown(value), reason))
    });
    let Some((name, value, reason)) = at else {
        return wrong(format!("the query string can't be read: {reason}"))
            .right("/api/openapi.json lists what it may say");
    };
    // What the standard library says of a text that is no whole number.
    let right = match reason {
        "invalid digit found in string" | "cannot parse integer from empty string" => "a whole number such as 100",
        "number too large to fit in target type" => "a smaller number",
        "number too small to fit in target type" => "a larger number",
        other => {
            return wrong(format!("'{name}' is '{value}' in the query string: {other}"))
                .right("/api/openapi.json tells what it may be");
        }
    };
    wrong(format!("'{name}' is '{value}' in the query string")).right(&format!("{right} would be right"))
}

/// What a body of JSON says.
pub(super) trait Written: DeserializeOwned {
    /// A body that would be right, for whoever wrote another.
    const RIGHT: &str;
}

/// The body, a JSON object. As an `Option` it may be left out.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: Written> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        check_is_json::<T>(request.headers())?;
        let bytes = whole(request, state).await?;
        read(&bytes).map(Self)
    }
}

impl<S: Send + Sync, T: Written> OptionalFromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        let headers = request.headers().clone();
        let bytes = whole(request, state).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        check_is_json::<T>(&headers)?;
        read(&bytes).map(|body| Some(Self(body)))
    }
}

/// All bytes of a body.
async fn whole<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state)
        .await
        .map_err(|refused| match refused.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")
                .right(&format!("at most {BODY_MAX} bytes would be right")),
            status => Problem::new(status, format!("the body did not come whole: {}", refused.body_text()))
                .right("the same once more may be"),
        })
}

fn check_is_json<T: Written>(headers: &HeaderMap) -> Result<(), Problem> {
    let told = headers
        .get(header::CONTENT_TYPE)
        .map(|kind| String::from_utf8_lossy(kind.as_bytes()));
    let is_json = told.as_deref().is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let of_application = kind.strip_prefix("application/");
        of_application.is_some_and(|kind| kind == "json" || kind.ends_with("+json"))
    });
    if is_json {
        return Ok(());
    }
    let wrong = match told {
        None => "the content type of the body is not told".to_owned(),
        Some(told) => format!("the content type of the body is '{}'", shown(&told)),
    };
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, wrong).right(&format!(
        "application/json with a body such as {} would be right",
        T::RIGHT
    )))
}

/// Reads a body.
fn read<T: Written>(bytes: &[u8]) -> Result<T, Problem> {
    let wrong = |what: String| Problem::new(StatusCode::BAD_REQUEST, what);
    let such_as = |what: &str| format!("{what} such as {} would be right", T::RIGHT);
    if bytes.is_empty() {
        return Err(wrong("the body is empty".to_owned()).right(&such_as("a JSON object")));
    }
    let found = match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(_)) => None,
        Ok(Value::Array(_)) => Some("an array".to_owned()),
        Ok(plain) => Some(shown(&plain.to_string())),
        Err(error) => {
            let what = reason_of(&error);
            let wrong = wrong(format!("the body is no JSON: {what} ({})", place(&error)));
            return Err(wrong.right(&such_as("JSON")));
        }
    };
    if let Some(found) = found {
        return Err(wrong(format!("the body is {found}")).right(&such_as("a JSON object")));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut json).map_err(|refused| {
        let path = refused.path().to_string();
        let error = refused.into_inner();
        let (what, right) = in_words(&path, &reason_of(&error));
        let what = wrong(format!("{what} ({})", place(&error)));
        match right {
            Some(right) => what.right(&format!("{right} would be right, as in {}", T::RIGHT)),
            None => what.right(&such_as("a body")),
        }
    })
}

fn place(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

/// What serde says, without the place.
fn reason_of(error: &serde_json::Error) -> String {
    let whole = error.to_string();
    whole
        .rsplit_once(" at line ")
        .map_or(&*whole, |(reason, _)| reason)
        .to_owned()
}

/// What is wrong in words, and what would be right, where the reason is serde's.
fn in_words(path: &str, reason: &str) -> (String, Option<String>) {
    if let Some(name) = between(reason, "missing field `", "`") {
        return (format!("'{name}' is missing in the body"), None);
    }
    if let Some(name) = between(reason, "duplicate field `", "`") {
        return (
            format!("'{name}' is there twice in the body"),
            Some(format!("'{name}' once")),
        );
    }
    if let Some(name) = between(reason, "unknown field `", "`") {
        let known = reason
            .split_once(", expected ")
            .map(|(_, known)| known.replace('`', "'"));
        return (format!("the body has no field '{}'", shown(name)), known);
    }
    let types = reason
        .strip_prefix("invalid type: ")
        .or_else(|| reason.strip_prefix("invalid value: "))
        .and_then(|types| types.rsplit_once(", expected "));
    let Some((found, expected)) = types else {
        return (format!("'{path}' can't be read: {reason}"), None);
    };
    let found = match found {
        "map" => "an object".to_owned(),
        "sequence" => "an array".to_owned(),
        plain => {
            let kinds = ["integer ", "floating point ", "boolean ", "string "];
            let value = kinds.iter().find_map(|kind| plain.strip_prefix(kind)).unwrap_or(plain);
            shown(value.trim_matches('`'))
        }
    };
    let right = match expected {
        "a string" => "a text",
        "a boolean" => "true or false",
        "f32" | "f64" => "a number",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more,",
        other => other,
    };
    (format!("'{path}' is {found}"), Some(right.to_owned()))
}

fn between<'t>(text: &'t str, before: &str, behind: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(behind).map(|(inner, _)| inner)
}

fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request as Asked;
    use serde::Deserialize;

    use super::*;
    use crate::http::alerts::{Assignment, By, Snooze, Words};
    use crate::http::points::{Change, Reversal};
    use crate::http::queries::Sql;

    fn refused<T: Written>(body: &str) -> String {
        let problem = read::<T>(body.as_bytes()).err().expect("it is wrong");
        assert_eq!(problem.status, 400, "{body}");
        problem.detail
    }

    #[test]
    fn each_body_that_is_said_to_be_right_is() {
        fn check<T: Written>() {
            assert!(read::<T>(T::RIGHT.as_bytes()).is_ok(), "{}", T::RIGHT);
        }
        check::<By>();
        check::<Snooze>();
        check::<Assignment>();
        check::<Words>();
        check::<Change>();
        check::<Reversal>();
        check::<Sql>();
    }

    #[test]
    fn a_body_that_cannot_be_read_is_refused_with_what_where_and_what_would_be_right() {
        for (body, wrong) in [
            ("", "the body is empty; a JSON object such as {"),
            (
                "{\"grant\":\n 5,",
                "the body is no JSON: EOF while parsing a value (line 2, column 3); JSON such as {",
            ),
            (
                "grant=5",
                "the body is no JSON: expected value (line 1, column 1); JSON such as {",
            ),
            ("[5]", "the body is an array; a JSON object such as {"),
            ("5", "the body is 5; a JSON object such as {"),
            (
                r#"{"grant":5,"reason":"x"}"#,
                "'id' is missing in the body (line 1, column 24); a body such as {",
            ),
            (
                r#"{"grant":5.5,"reason":"x","id":"a"}"#,
                "'grant' is 5.5 (line 1, column 12); a whole number would be right, as in {",
            ),
            (
                r#"{"grant":5,"reason":["x"],"id":"a"}"#,
                "'reason' is an array (line 1, column 20); a text would be right, as in {",
            ),
            (
                r#"{"grand":5,"reason":"x","id":"a"}"#,
                "the body has no field 'grand' (line 1, column 8); one of 'grant', 'spend', 'reason', 'id', 'expires_at', \
                 'by' would be right, as in {",
            ),
            (
                r#"{"id":"b","grant":5,"reason":"x","id":"a"}"#,
                "'id' is there twice in the body (line 1, column 37); 'id' once would be right, as in {",
            ),
        ] {
            let detail = refused::<Change>(body);
            assert!(detail.starts_with(wrong), "{body}\n{detail}\n{wrong}");
        }
        let detail = refused::<Sql>(r#"{"sql":"SELECT 1","limit":-5}"#);
        assert!(
            detail.starts_with("'limit' is -5 (line 1, column 28); a whole number, 0 or more, would be right"),
            "{detail}"
        );
        let long = format!(r#"{{"to":{{}},"by":"{}"}}"#, "x".repeat(100));
        assert!(refused::<Assignment>(&long).starts_with("'to' is an object"));
    }

    #[derive(Debug, Default, Deserialize)]
    struct Wanted {
        #[serde(rename = "limit")]
        _limit: Option<usize>,
        #[serde(rename = "share")]
        _share: Option<f64>,
    }

    #[tokio::test]
    async fn a_query_string_that_cannot_be_read_is_refused_in_the_same_way() {
        for (asked, wrong) in [
            (
                "limit=abc",
                "'limit' is 'abc' in the query string; a whole number such as 100 would be right",
            ),
            (
                "limit=-5",
                "'limit' is '-5' in the query string; a whole number such as 100 would be right",
            ),
            (
                "limit=",
                "'limit' is '' in the query string; a whole number such as 100 would be right",
            ),
            (
                "limit=99999999999999999999",
                "'limit' is '99999999999999999999' in the query string; a smaller number would be right",
            ),
            (
                "limit=1&limit=2",
                "'limit' is there twice in the query string; once would be right",
            ),
            (
                "share=much",
                "'share' is 'much' in the query string: invalid float literal; /api/openapi.json tells what it may be",
            ),
        ] {
            let request = Asked::builder()
                .uri(format!("/x?{asked}"))
                .body(())
                .expect("it is right");
            let (mut parts, ()) = request.into_parts();
            let read = Query::<Wanted>::from_request_parts(&mut parts, &()).await;
            let problem = read.expect_err("it is wrong");
            assert_eq!((problem.status, problem.detail.as_str()), (400, wrong));
        }
    }
}
