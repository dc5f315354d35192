//! Who is to be erased: a pseudonym while it is known, and a hash of it for as long as the log keeps that it was erased.
//!
//! The hash is keyed with a salt that each erasure has of its own. Whoever has a pseudonym can find out whether it is meant, and
//! whoever has only the hash can't find the pseudonym, for these are 130 bits that nobody can go through.

use std::cell::RefCell;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use crate::pseudonym::Pseudonym;

/// Texts whose hashes are remembered while a log is gone through; the same persons come again and again.
const REMEMBERED_MAX: usize = 1 << 16;

/// What makes hashes of one erasure unlike those of any other.
pub type Salt = [u8; 32];

/// A salted hash of a pseudonym.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mark([u8; 32]);

impl Mark {
    /// The mark of a pseudonym. Statements may have written it in other letters.
    pub fn of(salt: &Salt, name: &str) -> Self {
        Self(*blake3::keyed_hash(salt, name.to_ascii_lowercase().as_bytes()).as_bytes())
    }

    /// As hexadecimal digits.
    pub fn to_text(self) -> String {
        hex(&self.0)
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A person with the sessions that were theirs, recognised wherever a text names one of them.
#[derive(Debug)]
pub struct Who {
    salt: Salt,
    marks: FxHashSet<Mark>,
    /// The names themselves, where they are known.
    names: Vec<Arc<str>>,
    /// The same in lower case, to be looked up: a person may have had thousands of sessions.
    known: FxHashSet<Arc<str>>,
    remembered: RefCell<FxHashMap<String, bool>>,
}

impl Who {
    /// Of whom only the marks are left.
    pub fn marked(salt: Salt, marks: impl IntoIterator<Item = Mark>) -> Self {
        Self {
            salt,
            marks: marks.into_iter().collect(),
            names: Vec::new(),
            known: FxHashSet::default(),
            remembered: RefCell::default(),
        }
    }

    /// Of these names.
    pub fn known(names: &[Arc<str>]) -> Self {
        Self {
            names: names.to_vec(),
            known: names.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
            ..Self::marked(Salt::default(), [])
        }
    }

    /// The names, where they are known: then nobody else has to be looked at.
    pub fn names(&self) -> Option<&[Arc<str>]> {
        (!self.names.is_empty()).then_some(&self.names)
    }

    /// Whether this is the name of one of them.
    pub fn is(&self, name: &str) -> bool {
        if self.known.contains(name) {
            return true;
        }
        let has_capitals = name.bytes().any(|byte| byte.is_ascii_uppercase());
        let could_be = has_capitals || !self.marks.is_empty();
        could_be && self.is_in_lower_case(name.to_ascii_lowercase())
    }

    fn is_in_lower_case(&self, name: String) -> bool {
        if self.known.contains(name.as_str()) {
            return true;
        }
        if self.marks.is_empty() || Pseudonym::read(&name).is_none() {
            return false;
        }
        let mut remembered = self.remembered.borrow_mut();
        if let Some(is_meant) = remembered.get(&name) {
            return *is_meant;
        }
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        let is_meant = self.marks.contains(&Mark::of(&self.salt, &name));
        remembered.insert(name, is_meant);
        is_meant
    }

    /// Whether a text has such a name anywhere in it.
    pub fn is_in(&self, text: &str) -> bool {
        let is_of_a_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        text.split(|letter| !is_of_a_name(letter))
            .any(|word| word.len() > 2 && self.is(word))
    }

    /// The keys of a map that are such names.
    pub fn among<'a>(&self, names: impl Iterator<Item = &'a Arc<str>>) -> Vec<Arc<str>> {
        let mut found: Vec<Arc<str>> = names.filter(|name| self.is(name)).map(Arc::clone).collect();
        found.sort_unstable();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pseudonym::Secret;

    #[test]
    fn a_name_is_found_by_itself_and_by_its_mark_wherever_it_stands() {
        let secret = Secret::from_bytes([7; 32]);
        let (ada, ben) = (secret.person("ada"), secret.person("ben"));
        let salt = [3; 32];
        let known = Who::known(&[Arc::clone(ada.shared())]);
        let marked = Who::marked(salt, [Mark::of(&salt, ada.as_str())]);
        for who in [&known, &marked] {
            assert!(who.is(ada.as_str()));
            assert!(!who.is(ben.as_str()));
            assert!(who.is_in(&format!(r#"{{"values":{{"person":"{}"}}}}"#, ada.as_str())));
            assert!(who.is_in(&format!("main\u{1f}hall\u{1f}{}", ada.as_str().to_ascii_uppercase())));
            assert!(!who.is_in(&format!("{} and {}x", ben.as_str(), ada.as_str())));
            assert!(!who.is_in("p_"));
            assert_eq!(
                who.among([ben.shared(), ada.shared()].into_iter()),
                [Arc::clone(ada.shared())]
            );
        }
        let another = Mark::of(&[4; 32], ada.as_str());
        assert_ne!(
            another,
            Mark::of(&salt, ada.as_str()),
            "another erasure has other marks"
        );
        assert!(!another.to_text().contains(&ada.as_str()[2..]));
    }
}
