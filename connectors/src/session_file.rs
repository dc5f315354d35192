//! A session file lets a new process continue the broker's session where the old one left it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{fs, io};

use rumqttc::{MqttOptions, PersistedAckMode, PersistedSession, SessionStore, SessionStoreError, SessionStoreKey};
use tracing::warn;

/// The future of a store's method, as the client library names it.
type StoreFuture<'a, T> = crate::BoxFuture<'a, Result<T, SessionStoreError>>;

/// Keeps one client's MQTT session in one file, replaced as a whole and synced.
///
/// A missing or unreadable file counts as a session with nothing under way. That is always right for a client
/// that only receives at QoS 1, and it spares the broker's queue, which a fresh session would throw away.
#[derive(Debug)]
pub(crate) struct SessionFile {
    path: PathBuf,
    /// What a session with nothing under way looks like; a file that does not fit it is not used.
    empty: PersistedSession,
    /// What the file holds. The client saves after every batch of packets, and mostly the same.
    saved: Mutex<Option<Vec<u8>>>,
}

impl SessionFile {
    /// A file at `path` for the client that `options` describe, which must already be complete.
    pub(crate) fn new(path: PathBuf, options: &MqttOptions) -> Self {
        let empty = PersistedSession {
            format_version: 1,
            client_id: options.client_id(),
            clean_start: options.clean_start(),
            session_expiry_interval: options.session_expiry_interval(),
            outgoing_inflight_upper_limit: options.get_outgoing_inflight_upper_limit(),
            ack_mode: PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Self {
            path,
            empty,
            saved: Mutex::new(None),
        }
    }

    fn load_session(&self) -> io::Result<PersistedSession> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self.empty.clone()),
            Err(error) => return Err(self.named("read", &error)),
        };
        let reason = match PersistedSession::decode(&bytes) {
            Ok(session) if self.fits(&session) => return Ok(session),
            Ok(session) => format!("it belongs to client {:?} or to other settings", session.client_id),
            Err(error) => error.to_string(),
        };
        warn!(path = %self.path.display(), %reason, "MQTT session file is not used; continuing without it");
        Ok(self.empty.clone())
    }

    fn fits(&self, session: &PersistedSession) -> bool {
        session.format_version == self.empty.format_version
            && session.client_id == self.empty.client_id
            && session.clean_start == self.empty.clean_start
            && session.outgoing_inflight_upper_limit == self.empty.outgoing_inflight_upper_limit
            && session.ack_mode == self.empty.ack_mode
    }

    fn save_bytes(&self, bytes: Vec<u8>) -> io::Result<()> {
        let mut saved = self.saved.lock().expect("no holder of this lock panics");
        if saved.as_ref() == Some(&bytes) {
            return Ok(());
        }
        replace(&self.path, &bytes).map_err(|error| self.named("write", &error))?;
        *saved = Some(bytes);
        Ok(())
    }

    fn remove(&self) -> io::Result<()> {
        let mut saved = self.saved.lock().expect("no holder of this lock panics");
        *saved = None;
        match fs::remove_file(&self.path) {
            Ok(()) => sync_folder(&self.path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.named("remove", &error)),
        }
    }

    fn named(&self, verb: &str, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("cannot {verb} {}: {error}", self.path.display()))
    }
}

// The file is a few dozen bytes and changes when a connection is made, so writing it in place of a blocking
// thread costs the connection's own task a sync, and nobody else anything.
impl SessionStore for SessionFile {
    fn load<'a>(&'a self, _key: &'a SessionStoreKey) -> StoreFuture<'a, Option<PersistedSession>> {
        Box::pin(async { Ok(Some(self.load_session()?)) })
    }

    fn save<'a>(&'a self, _key: &'a SessionStoreKey, session: &'a PersistedSession) -> StoreFuture<'a, ()> {
        Box::pin(async { Ok(self.save_bytes(session.encode()?)?) })
    }

    fn clear<'a>(&'a self, _key: &'a SessionStoreKey) -> StoreFuture<'a, ()> {
        Box::pin(async { Ok(self.remove()?) })
    }
}

/// Writes beside the file, syncs, and renames over it: a crash leaves the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_folder(path)
}

/// Makes a rename or removal durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, client_id: &str) -> SessionFile {
        let mut options = MqttOptions::new(client_id, "broker");
        options.set_clean_start(false);
        SessionFile::new(folder.join("deeper").join("session"), &options)
    }

    #[test]
    fn a_session_is_saved_loaded_and_cleared() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = file(folder.path(), "usher");
        assert_eq!(first.load_session().expect("no file is no error"), first.empty);
        let session = PersistedSession {
            last_pkid: 7,
            ..first.empty.clone()
        };
        first.save_bytes(session.encode().expect("it is small")).expect("saved");
        assert_eq!(file(folder.path(), "usher").load_session().expect("loaded"), session);
        first.remove().expect("removed");
        assert_eq!(first.load_session().expect("no file is no error"), first.empty);
        first.remove().expect("removing nothing is no error");
    }

    #[test]
    fn another_clients_session_and_a_torn_file_are_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let other = file(folder.path(), "somebody");
        other
            .save_bytes(other.empty.encode().expect("it is small"))
            .expect("saved");
        let ours = file(folder.path(), "usher");
        assert_eq!(ours.load_session().expect("it does not fit"), ours.empty);
        fs::write(&ours.path, b"RMQSESS\x05torn").expect("written");
        assert_eq!(ours.load_session().expect("it is torn"), ours.empty);
    }
}
