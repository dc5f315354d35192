//! A broker URL says where a broker of one's own is and who we are to it: `mqtt://user:password@host:1883`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use rumqttc::{MqttOptions, NetworkOptions, TlsConfiguration, Transport};

/// Where a broker is. Shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// True for `mqtts://`.
    pub secure: bool,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User name, if one was given.
    pub user: Option<String>,
    /// Password, if one was given.
    pub password: Option<String>,
}

/// What is wrong with a broker URL, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is no broker address: {reason}; write mqtt://host:1883 or mqtts://user:password@host:8883")]
pub struct BadBrokerUrl {
    url: String,
    reason: String,
}

impl FromStr for BrokerUrl {
    type Err = BadBrokerUrl;

    fn from_str(text: &str) -> Result<Self, BadBrokerUrl> {
        let bad = |reason: &str| BadBrokerUrl {
            url: without_password(text),
            reason: reason.to_owned(),
        };
        let (secure, rest) = match text.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            Some(_) => return Err(bad("it begins with neither mqtt:// nor mqtts://")),
            None => return Err(bad("it has no scheme")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(bad("it has a path, which MQTT does not know"));
        }
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, "")) => (
                Some(decoded(user).ok_or_else(|| bad("its user name has a broken %"))?),
                None,
            ),
            Some((user, password)) => (
                Some(decoded(user).ok_or_else(|| bad("its user name has a broken %"))?),
                Some(decoded(password).ok_or_else(|| bad("its password has a broken %"))?),
            ),
            None => (None, None),
        };
        let default_port = if secure { 8883 } else { 1883 };
        let (host, port) = match place.strip_prefix('[') {
            Some(bracketed) => {
                let (host, rest) = bracketed.split_once(']').ok_or_else(|| bad("its [ is never closed"))?;
                (host, rest.strip_prefix(':'))
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        if host.is_empty() {
            return Err(bad("it names no host"));
        }
        let port = match port {
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| bad("its port is no number from 1 to 65535"))?,
            None => default_port,
        };
        Ok(Self {
            secure,
            host: host.to_owned(),
            port,
            user,
            password,
        })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl BrokerUrl {
    /// Options every connection to this broker shares.
    ///
    /// # Errors
    /// In words, when the certificates cannot be read.
    pub(crate) fn options(&self, client_id: &str, ca_file: Option<&Path>) -> Result<MqttOptions, String> {
        let mut options = MqttOptions::new(client_id, (self.host.clone(), self.port));
        match (&self.user, &self.password) {
            (Some(user), Some(password)) => {
                options.set_credentials(user.clone(), password.clone().into_bytes());
            }
            (Some(user), None) => {
                options.set_username(user.clone());
            }
            (None, _) => {}
        }
        if self.secure {
            options.set_transport(transport(ca_file)?);
        }
        let mut network = NetworkOptions::new();
        // Without it a small packet waits for the acknowledgement of the one before.
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        options.set_connect_timeout(CONNECT_TIMEOUT);
        Ok(options)
    }
}

/// A broker that has not answered by then is tried again.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

fn transport(ca_file: Option<&Path>) -> Result<Transport, String> {
    crate::install_crypto_provider();
    match ca_file {
        Some(path) => {
            let ca = std::fs::read(path)
                .map_err(|error| format!("cannot read the certificates in {}: {error}", path.display()))?;
            Ok(Transport::tls_with_config(TlsConfiguration::Simple {
                ca,
                alpn: None,
                client_auth: None,
            }))
        }
        None => Transport::try_tls_with_default_config()
            .map_err(|error| format!("cannot load this system's certificates: {error}; name a ca_file")),
    }
}

/// Undoes %-escapes, as a password with `@` or `:` needs them.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let hex = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

fn without_password(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}…{}", &text[..scheme + 3], &text[at..])
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_people_write_them() {
        let url: BrokerUrl = "mqtts://us%40er:p%3Aw@[::1]:9999/".parse().expect("a good address");
        assert_eq!((url.secure, url.host.as_str(), url.port), (true, "::1", 9999));
        assert_eq!(
            (url.user.as_deref(), url.password.as_deref()),
            (Some("us@er"), Some("p:w"))
        );
        assert_eq!(url.to_string(), "mqtts://[::1]:9999");
        let url: BrokerUrl = "mqtt://broker".parse().expect("a good address");
        assert_eq!((url.host.as_str(), url.port, url.user), ("broker", 1883, None));
        assert_eq!("mqtts://b".parse::<BrokerUrl>().expect("a good address").port, 8883);
    }

    #[test]
    fn bad_urls_say_what_would_be_right_and_never_show_a_password() {
        for bad in [
            "broker:1883",
            "http://b",
            "mqtt://",
            "mqtt://b:0",
            "mqtt://b:x",
            "mqtt://u:secret@b/path",
            "mqtt://[::1",
        ] {
            let error = bad.parse::<BrokerUrl>().expect_err(bad).to_string();
            assert!(error.contains("mqtt://host:1883"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
