//! News is what a step tells: something in the life of an alert, or a message to a person.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::step::SubjectKey;
use crate::alert::Alert;
use crate::messages::MessageView;

/// What is told. On disk either is what it is as JSON, and told apart by what it has to have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum News {
    /// An alert as it is after something happened to it.
    Alert(Arc<Alert>),
    /// A message that goes out.
    Message(Arc<MessageView>),
    /// What was about a person who was erased; nobody is sent it.
    Erased(Erased),
}

/// Stands in the place of news about a person who was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Erased {
    erased: bool,
}

impl News {
    /// What stands in the place of others.
    pub(super) const ERASED: Self = Self::Erased(Erased { erased: true });

    /// Whether these were erased.
    pub(super) fn is_erased(&self) -> bool {
        matches!(self, Self::Erased(_))
    }
}

impl News {
    /// What it is about: news of the same subject reach a receiver in their order.
    pub(crate) fn subject(&self) -> SubjectKey {
        match self {
            Self::Alert(alert) => SubjectKey::of(alert),
            Self::Message(message) => SubjectKey::of_person(&message.site, &message.person),
            Self::Erased(_) => SubjectKey::NOBODY,
        }
    }

    /// The alert, where it is one.
    pub(crate) fn alert(&self) -> Option<&Arc<Alert>> {
        match self {
            Self::Alert(alert) => Some(alert),
            Self::Message(_) | Self::Erased(_) => None,
        }
    }

    /// The message, where it is one.
    pub(crate) fn message(&self) -> Option<&Arc<MessageView>> {
        match self {
            Self::Alert(_) | Self::Erased(_) => None,
            Self::Message(message) => Some(message),
        }
    }

    /// The topic of MQTT it goes out on.
    pub(super) fn topic(&self) -> String {
        match self {
            Self::Alert(alert) => alert.event_topic(),
            Self::Message(message) => message.topic(),
            Self::Erased(_) => "usher/out/erased".to_owned(),
        }
    }

    /// What happened, as webhooks are told: `alert.active`, `message.sent`.
    pub(super) fn happening(&self) -> String {
        match self {
            Self::Alert(alert) => format!("alert.{}", alert.state.as_str()),
            Self::Message(message) => format!("message.{}", message.state.as_str()),
            Self::Erased(_) => "erased".to_owned(),
        }
    }

    /// `site/kind/id` of what it is about.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Alert(alert) => format!("{}/{}/{}", alert.site, alert.subject.kind, alert.subject.id),
            Self::Message(message) => format!("{}/person/{}", message.site, message.person),
            Self::Erased(_) => "erased".to_owned(),
        }
    }
}

impl From<&Arc<Alert>> for News {
    fn from(alert: &Arc<Alert>) -> Self {
        Self::Alert(Arc::clone(alert))
    }
}

impl From<&Arc<MessageView>> for News {
    fn from(message: &Arc<MessageView>) -> Self {
        Self::Message(Arc::clone(message))
    }
}

/// The messages that still stand. One that does not is not sent any more: its time is over, it was answered, or its person
/// opted out.
#[derive(Debug, Default)]
pub(super) struct OpenMessages(Mutex<HashSet<String>>);

impl OpenMessages {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    pub(super) fn begin(&self, id: &str) {
        self.lock().insert(id.to_owned());
    }

    pub(super) fn end(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Whether this may still go out.
    pub(super) fn has(&self, news: &News) -> bool {
        match news {
            News::Alert(_) => true,
            News::Message(message) => self.lock().contains(&message.id),
            News::Erased(_) => false,
        }
    }
}
