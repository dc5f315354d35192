//! An id that is made of what it is the id of, so that it is the same however often the same log is gone through.

/// The id of what these parts say together, with a letter before it that says what kind of thing it is.
pub(crate) fn derived_id<'a>(kind: char, parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        // With its length: "ab" and "c" are not "a" and "bc".
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    format!("{kind}-{}", &hasher.finalize().to_hex()[..24])
}
