//! A pseudonym is what the engine knows a person by: a keyed hash, without a way back.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::Aliases;

/// The file in the data folder.
const FILE: &str = "secret";
/// RFC 4648 in lower case: 26 characters carry 130 bits.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const LENGTH: usize = 26;

/// A person or a session, `p_…` or `s_…` and 26 letters and digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pseudonym(Arc<str>);

impl Pseudonym {
    /// One that is written as such; `None` for what is none.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let letters = text.strip_prefix("p_").or_else(|| text.strip_prefix("s_"))?;
        let is_pseudonym = letters.len() == LENGTH && letters.bytes().all(|letter| BASE32.contains(&letter));
        is_pseudonym.then(|| Self(text.into()))
    }

    /// Of somebody who was erased, where a person has to be named.
    pub(crate) fn nobody() -> Self {
        Self("".into())
    }

    /// Whether there is somebody.
    pub(crate) fn is_somebody(&self) -> bool {
        !self.0.is_empty()
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// That of the person who has this one.
    pub(crate) fn of_person(&self, aliases: &Aliases) -> Self {
        Self(Arc::clone(aliases.person(&self.0)))
    }

    /// As text that is shared and not copied.
    pub(crate) fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

/// The secret behind pseudonyms: without it nobody can tell whose they are, and with another one everybody is a
/// stranger.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(…)")
    }
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The disk does not do it.
    #[error("the secret behind pseudonyms, {}, can't be {what}: {cause}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        what: &'static str,
        /// What the disk says.
        cause: std::io::Error,
    },
    /// It is not one.
    #[error(
        "{} holds no secret: 64 hexadecimal digits were expected; put the right file back, for with a new secret nobody is recognised",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no randomness.
    #[error("no secret can be made: {0}")]
    Random(String),
}

impl Secret {
    /// A secret that is known: for tests, and for engines that have to agree.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A new one, kept nowhere.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn random() -> Result<Self, SecretError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| SecretError::Random(error.to_string()))?;
        Ok(Self(bytes))
    }

    /// The secret of a data folder; made, and readable by its owner only, when there is none yet.
    ///
    /// # Errors
    /// [`SecretError`]; a secret that can't be read is never replaced.
    pub fn load_or_create(dir: &Path) -> Result<Self, SecretError> {
        let path = dir.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => from_hex(text.trim()).map(Self).ok_or(SecretError::Damaged { path }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let secret = Self::random()?;
                secret.write(&path).map_err(|cause| SecretError::Disk {
                    path,
                    what: "written",
                    cause,
                })?;
                Ok(secret)
            }
            Err(cause) => Err(SecretError::Disk {
                path,
                what: "read",
                cause,
            }),
        }
    }

    fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut text: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push('\n');
        // A temporary file is readable by its owner only, and stays so under its new name.
        let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }

    /// The pseudonym of a person.
    pub fn person(&self, raw: &str) -> Pseudonym {
        self.pseudonym("p_", raw)
    }

    /// The pseudonym of a session.
    pub fn session(&self, raw: &str) -> Pseudonym {
        self.pseudonym("s_", raw)
    }

    /// A hash that nobody can make without the secret; `purpose` keeps what is hashed for one thing from meaning another.
    pub(crate) fn hasher(&self, purpose: &str) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(purpose.as_bytes());
        hasher
    }

    fn pseudonym(&self, prefix: &str, raw: &str) -> Pseudonym {
        let mut hasher = self.hasher(prefix);
        hasher.update(raw.trim().as_bytes());
        let hash = hasher.finalize();
        let mut text = String::with_capacity(prefix.len() + LENGTH);
        text.push_str(prefix);
        for index in 0..LENGTH {
            // Five bits that may lie across two bytes.
            let (byte, bit) = (index * 5 / 8, index * 5 % 8);
            let pair = u16::from_be_bytes([hash.as_bytes()[byte], hash.as_bytes()[byte + 1]]);
            text.push(char::from(BASE32[usize::from((pair >> (11 - bit)) & 31)]));
        }
        Pseudonym(text.into())
    }
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Pseudonym, Secret, SecretError};

    #[test]
    fn a_person_keeps_the_pseudonym_and_others_have_others() {
        let secret = Secret::from_bytes([7; 32]);
        let one = secret.person("4711");
        assert_eq!(one, secret.person(" 4711 "));
        assert_ne!(one, secret.person("4712"));
        assert_ne!(one.as_str(), secret.session("4711").as_str());
        assert_ne!(one, Secret::from_bytes([8; 32]).person("4711"));
        assert_eq!(Pseudonym::read(one.as_str()), Some(one.clone()));
        assert_eq!(Pseudonym::read(&one.as_str()[..27]), None);
        assert_eq!(Pseudonym::read("4711"), None);
        assert_eq!(one.as_str().len(), 28);
        assert!(!one.as_str().contains("4711"));
    }

    #[test]
    fn a_secret_is_made_once_and_never_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = Secret::load_or_create(dir.path()).expect("made");
        assert_eq!(first, Secret::load_or_create(dir.path()).expect("read"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(dir.path().join("secret"))
                .expect("there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o077, 0, "readable by its owner only");
        }
        std::fs::write(dir.path().join("secret"), "short").expect("written");
        assert!(matches!(
            Secret::load_or_create(dir.path()),
            Err(SecretError::Damaged { .. })
        ));
        assert!(!format!("{first:?}").contains(char::is_numeric), "it is never printed");
    }
}
