//! A receiver is a real HTTP server of the test's own that takes what a webhook sends, and behaves as the test wants it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};
use usher_connectors::webhook::signature::Secret;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a receiver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Takes,
    Fails,
    /// 429 with so many seconds of peace, once, and then it takes.
    AsksForPeace(u64),
    /// After so long, which is not too long.
    Slowly(Duration),
    /// Longer than anybody waits for it.
    Never,
    /// With a pause, and every third time after it took the step an answer that says it did not.
    Forgetful,
    /// It takes everything, but the first confirmation of one step in ten is lost: it answers 503, or the connection breaks.
    /// Which ones is drawn from that seed and the step's id.
    LosesConfirmations(u64),
    /// No step about the zone of that number.
    Refuses(usize),
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    /// The idempotency key.
    pub(crate) id: String,
    pub(crate) at: Instant,
    /// What was answered; nothing where the connection broke.
    pub(crate) status: Option<u16>,
    pub(crate) body: Value,
}

impl Got {
    pub(crate) fn subject(&self) -> String {
        self.body["data"]["subject"]["id"].as_str().unwrap_or("").to_owned()
    }

    /// Whether it was told that the step was taken.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.status == Some(StatusCode::OK.as_u16())
    }
}

struct Inner {
    mood: Mood,
    got: Vec<Got>,
    /// Requests that were not signed as they should be.
    forged: Vec<String>,
}

/// The server. It goes down with the last who holds it.
#[derive(Clone)]
pub(crate) struct Receiver {
    inner: Arc<Mutex<Inner>>,
    address: SocketAddr,
    stop: CancellationToken,
    _until_dropped: Arc<DropGuard>,
}

fn locked(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().expect("no holder of this lock panics")
}

impl Receiver {
    pub(crate) async fn start(mood: Mood) -> Result<Self, Box<dyn std::error::Error>> {
        let inner = Arc::new(Mutex::new(Inner {
            mood,
            got: Vec::new(),
            forged: Vec::new(),
        }));
        Self::serve(inner, ([127, 0, 0, 1], 0).into()).await
    }

    async fn serve(inner: Arc<Mutex<Inner>>, address: SocketAddr) -> Result<Self, Box<dyn std::error::Error>> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let app = Router::new().route("/usher", post(take)).with_state(Arc::clone(&inner));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        // Dropped at once when it goes down: connections break as they do when a machine is switched off.
        tokio::spawn(async move {
            tokio::select! {
                _ = axum::serve(listener, app) => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self {
            inner,
            address,
            _until_dropped: Arc::new(stop.clone().drop_guard()),
            stop,
        })
    }

    /// Nobody listens any more.
    pub(crate) fn go_down(&self) {
        self.stop.cancel();
    }

    /// Somebody listens again at the same place.
    pub(crate) async fn come_back(self) -> Result<Self, Box<dyn std::error::Error>> {
        Self::serve(self.inner, self.address).await
    }

    pub(crate) fn set(&self, mood: Mood) {
        locked(&self.inner).mood = mood;
    }

    /// All requests, as they came.
    pub(crate) fn got(&self) -> Vec<Got> {
        locked(&self.inner).got.clone()
    }

    /// The requests that it confirmed.
    pub(crate) fn taken(&self) -> Vec<Got> {
        self.got().into_iter().filter(Got::is_confirmed).collect()
    }

    /// What it has confirmed, as it came.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.taken().into_iter().map(|got| got.body).collect()
    }

    /// The requests that were not signed as they should be.
    pub(crate) fn forged(&self) -> Vec<String> {
        locked(&self.inner).forged.clone()
    }

    /// How many times it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.got().len()
    }

    /// How many steps it has confirmed, each counted once.
    pub(crate) fn has(&self) -> usize {
        let taken = self.taken();
        taken.iter().map(|got| &got.id).collect::<HashSet<_>>().len()
    }

    pub(crate) fn settings(&self, name: &str, more: &str) -> String {
        format!(
            "[[webhook]]\nname = \"{name}\"\nurl = \"http://{}/usher\"\nsecret = \"{SECRET}\"\n{more}\n",
            self.address
        )
    }
}

async fn take(State(inner): State<Arc<Mutex<Inner>>>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
            .to_owned()
    };
    let (id, timestamp) = (text("webhook-id"), text("webhook-timestamp"));
    let secret = Secret::read(SECRET).expect("it is right");
    let right = secret.sign(&id, timestamp.parse().unwrap_or(0), &body);
    let json: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let is_right = text("webhook-signature") == right && text("idempotency-key") == id && json["id"] == id;
    let (mood, number) = {
        let mut inner = locked(&inner);
        if !is_right {
            inner.forged.push(format!("{headers:?} {json}"));
        }
        let mood = inner.mood;
        if let Mood::AsksForPeace(_) = mood {
            inner.mood = Mood::Takes;
        }
        (mood, inner.got.len())
    };
    if mood == Mood::Never {
        std::future::pending::<()>().await;
    }
    match mood {
        Mood::Slowly(pause) => tokio::time::sleep(pause).await,
        Mood::Forgetful => tokio::time::sleep(Duration::from_millis(5)).await,
        _ => {}
    }
    let zone = json["data"]["subject"]["id"].as_str().unwrap_or("").to_owned();
    let status = {
        let mut inner = locked(&inner);
        let status = match mood {
            Mood::Takes | Mood::Slowly(_) | Mood::Never => Some(StatusCode::OK),
            Mood::Fails => Some(StatusCode::INTERNAL_SERVER_ERROR),
            Mood::AsksForPeace(_) => Some(StatusCode::TOO_MANY_REQUESTS),
            Mood::Forgetful if number % 3 == 0 => Some(StatusCode::BAD_GATEWAY),
            Mood::Forgetful => Some(StatusCode::OK),
            Mood::LosesConfirmations(_) if inner.got.iter().any(|earlier| earlier.id == id) => Some(StatusCode::OK),
            Mood::LosesConfirmations(seed) => match draw(seed, &id) {
                0 => Some(StatusCode::SERVICE_UNAVAILABLE),
                1 => None,
                _ => Some(StatusCode::OK),
            },
            Mood::Refuses(refused) if zone == format!("z{refused}") => Some(StatusCode::UNPROCESSABLE_ENTITY),
            Mood::Refuses(_) => Some(StatusCode::OK),
        };
        inner.got.push(Got {
            id,
            at: Instant::now(),
            status: status.map(|status| status.as_u16()),
            body: json,
        });
        status
    };
    match (status, mood) {
        // The task of a connection takes it along; this says nothing on standard error.
        (None, _) => std::panic::resume_unwind(Box::new("the connection breaks")),
        (Some(status), Mood::AsksForPeace(seconds)) => {
            (status, [(header::RETRY_AFTER, seconds.to_string())]).into_response()
        }
        (Some(status), _) => (status, "as the test wants it").into_response(),
    }
}

/// A number below 20 for a step, the same for the same seed.
fn draw(seed: u64, id: &str) -> u32 {
    // An id is a hash in hexadecimal digits.
    let digits = id.get(2..18).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    ChaCha8Rng::seed_from_u64(seed ^ digits.unwrap_or(0)).random_range(0..20)
}
