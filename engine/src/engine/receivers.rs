//! Receivers of the settings, with their secrets.

use usher_connectors::webhook::Webhook;
use usher_connectors::webhook::signature;

use super::EngineError;
use crate::outbox::{ReceiverOptions, Wanted, WebhookReceiver};
use crate::position::Mistake;
use crate::settings::{Delivery, Settings, WebhookSecret, WebhookSettings};

/// The ways to the webhooks of the settings.
pub(super) fn webhooks(settings: &Settings) -> Result<Vec<WebhookReceiver>, EngineError> {
    let mut found = Vec::new();
    let mut mistakes = Vec::new();
    for webhook in &settings.webhooks {
        match receiver(webhook, &settings.delivery) {
            Ok(receiver) => found.push(receiver),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    match mistakes.is_empty() {
        true => Ok(found),
        false => Err(EngineError::Configuration(mistakes)),
    }
}

fn receiver(settings: &WebhookSettings, delivery: &Delivery) -> Result<WebhookReceiver, Mistake> {
    let mistake = |place: String, wrong: String, right: String| Mistake {
        file: place.into(),
        line: 1,
        column: 1,
        wrong,
        right,
    };
    let (place, secret) = match &settings.secret {
        WebhookSecret::Read(secret) => ("usher.toml".to_owned(), secret.clone()),
        WebhookSecret::Variable(name) => match std::env::var(name) {
            Ok(secret) => (format!("${name}"), secret),
            Err(_) => {
                let wrong = format!("the secret of the webhook `{}` is not there", settings.name);
                let right = "this environment variable with a secret would be right";
                return Err(mistake(format!("${name}"), wrong, right.to_owned()));
            }
        },
    };
    let secret = signature::Secret::read(secret.trim()).map_err(|error| {
        let wrong = format!("the secret of the webhook `{}` can't be used", settings.name);
        mistake(place.clone(), wrong, error.to_string())
    })?;
    let webhook = Webhook::new(settings.url.clone(), secret, settings.timeout).map_err(|reason| {
        let right = "certificates of the system, or SSL_CERT_FILE, would be right".to_owned();
        mistake(place, reason, right)
    })?;
    Ok(WebhookReceiver {
        name: settings.name.clone(),
        webhook,
        wanted: Wanted {
            rules: settings.rules.clone(),
            states: settings.events.clone(),
        },
        options: ReceiverOptions {
            give_up_after: settings.give_up_after,
            in_memory_max: delivery.in_memory,
            ..ReceiverOptions::new(settings.max_in_flight, delivery.dead_letters)
        },
    })
}
