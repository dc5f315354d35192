//! A signature tells a receiver that a request is from whoever shares its secret, and that nobody changed it.
//!
//! It follows the Standard Webhooks specification, for which receivers find libraries in most languages: HMAC-SHA256
//! over `id.timestamp.body`, in base64, behind `v1,`.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;

/// Secrets shorter than this are guessed; the specification asks for 24 bytes.
const BYTES_MIN: usize = 24;
/// What a secret in base64 begins with.
const PREFIX: &str = "whsec_";

/// Why a secret can't be used. It never shows the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// It begins as one in base64 does and is none.
    #[error("what stands behind whsec_ is no base64")]
    NoBase64,
    /// It is too short to be safe.
    #[error(
        "it has {0} bytes; {BYTES_MIN} or more would be right, such as whsec_ and the output of `openssl rand -base64 32`"
    )]
    TooShort(usize),
}

/// The secret that Usher and a receiver share.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// Reads a secret as it is written in configuration: `whsec_` and base64, or any other text taken as it is.
    ///
    /// # Errors
    /// [`BadSecret`] in words.
    pub fn read(text: &str) -> Result<Self, BadSecret> {
        let bytes = match text.strip_prefix(PREFIX) {
            Some(encoded) => BASE64_STANDARD.decode(encoded).map_err(|_| BadSecret::NoBase64)?,
            None => text.as_bytes().to_vec(),
        };
        if bytes.len() < BYTES_MIN {
            return Err(BadSecret::TooShort(bytes.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The value of `webhook-signature` for a request; `timestamp_s` is seconds since 1970.
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp_s}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_has_its_signature() {
        let secret = Secret::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("it is right");
        let signature = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_part_of_a_request_is_signed() {
        let secret = Secret::read("a text that is long enough to be one").expect("it is right");
        let other = Secret::read("another text that is long enough too").expect("it is right");
        let right = secret.sign("a", 1, b"body");
        assert_eq!(right, secret.sign("a", 1, b"body"));
        for wrong in [
            secret.sign("b", 1, b"body"),
            secret.sign("a", 2, b"body"),
            secret.sign("a", 1, b"Body"),
            other.sign("a", 1, b"body"),
        ] {
            assert_ne!(right, wrong);
        }
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused_and_none_is_shown() {
        assert_eq!(Secret::read("short").err(), Some(BadSecret::TooShort(5)));
        assert_eq!(Secret::read("whsec_***").err(), Some(BadSecret::NoBase64));
        assert_eq!(Secret::read("whsec_c2hvcnQ=").err(), Some(BadSecret::TooShort(5)));
        let secret = Secret::read("a text that is long enough to be one").expect("it is right");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
