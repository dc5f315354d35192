//! A webhook is an address that takes what happened as signed HTTP requests.
//!
//! It follows no redirect, for a signature is for one receiver only, and uses no proxy of the environment.

pub mod signature;

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use self::signature::Secret;

/// How much of an answer is read: enough for a sentence that says what was wrong.
const ANSWER_BYTES: usize = 4 << 10;
/// How much of it is told.
const SAID_CHARS: usize = 200;
/// How long is waited for the rest of an answer whose beginning says that the step is taken.
const REST: Duration = Duration::from_millis(500);
/// Connections nobody used for so long are closed; receivers close them about then.
const IDLE: Duration = Duration::from_secs(20);

/// The address of a receiver. It may hold a password, so what is printed leaves that out.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    uri: Uri,
    authorization: Option<HeaderValue>,
    shown: String,
}

/// Why a text is no address of a receiver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadWebhookUrl {
    /// It is no URL.
    #[error("it is no URL")]
    NoUrl,
    /// It is none of HTTP.
    #[error("it does not begin with http:// or https://")]
    OtherScheme,
}

impl std::str::FromStr for WebhookUrl {
    type Err = BadWebhookUrl;

    fn from_str(text: &str) -> Result<Self, BadWebhookUrl> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or(BadWebhookUrl::OtherScheme)?;
        if scheme != "http" && scheme != "https" {
            return Err(BadWebhookUrl::OtherScheme);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (login, host) = match rest[..end].rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, &rest[..end]),
        };
        let place = format!("{scheme}://{host}{}", &rest[end..]);
        let uri: Uri = place.parse().map_err(|_| BadWebhookUrl::NoUrl)?;
        if uri.host().is_none_or(str::is_empty) {
            return Err(BadWebhookUrl::NoUrl);
        }
        let authorization = match login {
            None => None,
            Some(login) => {
                let mut value =
                    HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(percent_decoded(login))))
                        .map_err(|_| BadWebhookUrl::NoUrl)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        // A query often holds a token.
        let shown = match place.split_once('?') {
            Some((before, _)) => format!("{before}?…"),
            None => place,
        };
        Ok(Self {
            uri,
            authorization,
            shown,
        })
    }
}

/// A part of a URL with each `%` and two digits as the byte that it stands for; what is written otherwise stays.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let digits = behind
            .get(..2)
            .filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let decoded = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &behind[2..] } else { behind };
    }
    bytes
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.shown)
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "WebhookUrl({self})")
    }
}

/// Why a receiver did not take a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// It is unknown whether the request arrived; sending it again is right, under the same id.
    #[error("{0}")]
    NoAnswer(String),
    /// It answered something else than 2xx.
    #[error("it answered {status}{}{said}", if said.is_empty() { "" } else { ": " })]
    Answered {
        /// The HTTP status.
        status: u16,
        /// What `Retry-After` says, unread.
        retry_after: Option<String>,
        /// How the answer begins, or where a redirect leads.
        said: String,
    },
}

/// One request.
#[derive(Debug, Clone)]
pub struct Post {
    /// The same for the same content, however often it is sent. It goes out as `webhook-id` and `idempotency-key`.
    pub id: String,
    /// Seconds since 1970, of this try.
    pub timestamp_s: i64,
    /// JSON.
    pub body: Bytes,
}

/// Sends to one receiver.
pub struct Webhook {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: WebhookUrl,
    secret: Secret,
    timeout: Duration,
}

impl Webhook {
    /// A sender; `timeout` is for one request with its answer. The system's certificates are trusted, or those that
    /// `SSL_CERT_FILE` names.
    ///
    /// # Errors
    /// In words, when the system's certificates can't be read and the URL needs them.
    pub fn new(url: WebhookUrl, secret: Secret, timeout: Duration) -> Result<Self, String> {
        crate::install_crypto_provider();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let is_secure = url.uri.scheme_str() == Some("https");
        let connector = HttpsConnectorBuilder::new();
        let connector = if is_secure {
            connector
                .with_native_roots()
                .map_err(|error| format!("the system's certificates can't be read: {error}"))?
        } else {
            // No certificate is ever asked for.
            let roots = rustls::RootCertStore::empty();
            let config = rustls::ClientConfig::builder().with_root_certificates(roots);
            connector.with_tls_config(config.with_no_client_auth())
        };
        let connector = match is_secure {
            true => connector.https_only(),
            false => connector.https_or_http(),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector.enable_http1().wrap_connector(tcp));
        Ok(Self {
            client,
            url,
            secret,
            timeout,
        })
    }

    /// Where it sends, without password.
    pub fn url(&self) -> &WebhookUrl {
        &self.url
    }

    /// Sends one request; `Ok` is an answer of 2xx, whatever becomes of the rest of it.
    ///
    /// # Errors
    /// [`PostError`] in words.
    pub async fn post(&self, post: Post) -> Result<(), PostError> {
        let request = self.request(post)?;
        let answered = async {
            let answer = self.client.request(request).await.map_err(|error| no_answer(&error))?;
            let status = answer.status();
            let header = |name| {
                let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
                value.map(str::to_owned)
            };
            let (retry_after, location) = (header(RETRY_AFTER), header(LOCATION));
            if status.is_success() {
                return Ok(answer.into_body());
            }
            let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
            let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            Err(PostError::Answered {
                status: status.as_u16(),
                retry_after,
                said: said(status, location, &body),
            })
        };
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(rest)) => {
                // Read to its end the connection can be used again; an answer without an end is none of ours.
                let rest = Limited::new(rest, ANSWER_BYTES).collect();
                let _ = tokio::time::timeout(REST, rest).await;
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(PostError::NoAnswer(format!(
                "no answer within {} ms",
                self.timeout.as_millis()
            ))),
        }
    }

    fn request(&self, post: Post) -> Result<Request<Full<Bytes>>, PostError> {
        let Post { id, timestamp_s, body } = post;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.url.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("usher/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &id)
            .header("idempotency-key", &id)
            .header("webhook-timestamp", timestamp_s)
            .header("webhook-signature", self.secret.sign(&id, timestamp_s, &body));
        if let Some(authorization) = &self.url.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request
            .body(Full::new(body))
            .map_err(|error| PostError::NoAnswer(format!("the request can't be written: {error}")))
    }
}

/// What an answer says, on one line.
fn said(status: StatusCode, location: Option<String>, body: &[u8]) -> String {
    if let Some(location) = location.filter(|_| status.is_redirection()) {
        return format!("a redirect to {}, which is not followed", place_of(&location));
    }
    let text = String::from_utf8_lossy(body);
    let text: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(SAID_CHARS)
        .collect();
    text.trim().to_owned()
}

/// Where a redirect leads, without login and query, which may hold a password or a token.
fn place_of(location: &str) -> String {
    let Ok(uri) = location.parse::<Uri>() else {
        return "what is no URL".to_owned();
    };
    let mut place = String::new();
    if let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) {
        let host = authority.as_str();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        place = format!("{scheme}://{host}");
    }
    place.push_str(uri.path());
    place.chars().take(SAID_CHARS).collect()
}

/// An error of the connection as one would say it.
fn no_answer(error: &hyper_util::client::legacy::Error) -> PostError {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    let reason = match deepest.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(std::io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe) => {
            "the receiver closed the connection".to_owned()
        }
        _ if error.is_connect() => format!("no connection: {deepest}"),
        _ => format!("no answer: {deepest}"),
    };
    PostError::NoAnswer(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_shows_neither_password_nor_token() {
        let url: WebhookUrl = "https://me:secret@hooks.example:8443/usher?token=abc"
            .parse()
            .expect("it is right");
        assert_eq!(url.to_string(), "https://hooks.example:8443/usher?…");
        assert_eq!(url.uri, "https://hooks.example:8443/usher?token=abc");
        let login = url.authorization.expect("it has a login");
        assert_eq!(login, "Basic bWU6c2VjcmV0");
        assert!(!format!("{login:?}").contains("bWU6"), "it is marked as a secret");
    }

    #[test]
    fn a_login_is_sent_as_it_was_before_it_was_written_in_a_url() {
        for (login, meant) in [
            ("me:s%40%2fcret", "me:s@/cret"),
            ("me:100%", "me:100%"),
            ("me:%+1%zz%4", "me:%+1%zz%4"),
            ("%E6%9D%8E:x", "李:x"),
        ] {
            assert_eq!(percent_decoded(login), meant.as_bytes(), "{login}");
            let url: WebhookUrl = format!("https://{login}@hooks.example/").parse().expect("it is right");
            let expected = format!("Basic {}", BASE64_STANDARD.encode(meant));
            assert_eq!(url.authorization.expect("it has a login"), expected);
        }
    }

    #[tokio::test]
    async fn what_is_taken_is_taken_though_the_answer_has_no_end() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let receiver = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a sender");
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await.expect("a request");
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nok";
            stream.write_all(answer).await.expect("it is there");
            std::future::pending::<()>().await;
        });
        let url: WebhookUrl = format!("http://{address}/").parse().expect("it is right");
        let secret: Secret = Secret::read("a secret of at least 24 bytes").expect("it is long enough");
        // Shorter than what is waited for the rest, which is none of the answer's own time.
        let webhook = Webhook::new(url, secret, Duration::from_millis(400)).expect("it needs no certificates");
        let post = Post {
            id: "s-1".to_owned(),
            timestamp_s: 0,
            body: Bytes::from_static(b"{}"),
        };
        assert_eq!(webhook.post(post).await, Ok(()));
        receiver.abort();
    }

    #[test]
    fn what_is_no_address_is_said() {
        for (text, wrong) in [
            ("hooks.example", BadWebhookUrl::OtherScheme),
            ("ftp://hooks.example", BadWebhookUrl::OtherScheme),
            ("https://", BadWebhookUrl::NoUrl),
            ("https:///path", BadWebhookUrl::NoUrl),
            ("https://a b/", BadWebhookUrl::NoUrl),
        ] {
            assert_eq!(text.parse::<WebhookUrl>(), Err(wrong), "{text}");
        }
    }

    #[test]
    fn an_answer_is_told_on_one_line() {
        let long = format!("wrong\n{}", "x".repeat(1_000));
        let told = said(StatusCode::BAD_REQUEST, None, long.as_bytes());
        assert!(told.starts_with("wrong x") && told.len() == SAID_CHARS, "{told}");
        let redirect = said(StatusCode::FOUND, Some("https://elsewhere.example/".to_owned()), b"");
        assert_eq!(
            redirect,
            "a redirect to https://elsewhere.example/, which is not followed"
        );
        for (location, told) in [
            (
                "https://me:secret@elsewhere.example:8443/login?token=abc#x",
                "https://elsewhere.example:8443/login",
            ),
            ("/login?token=abc", "/login"),
            ("a b?token=abc", "what is no URL"),
        ] {
            assert_eq!(place_of(location), told);
        }
    }
}
