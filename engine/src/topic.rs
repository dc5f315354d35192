//! A topic says where an event comes from: `usher/in/{site}/{zone}/{kind}/{device}`.

use std::sync::Arc;

use crate::event::{Kind, Source};

/// What input topics begin with.
pub const PREFIX: &str = "usher/in/";
/// Longest name of a site, zone or device, bytes.
const NAME_MAX: usize = 128;

/// Reads a topic.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn read(topic: &str) -> Result<Source, String> {
    const RIGHT: &str = "usher/in/{site}/{zone}/{kind}/{device} would be right";
    let rest = topic
        .strip_prefix(PREFIX)
        .ok_or_else(|| format!("the topic does not begin with {PREFIX}; {RIGHT}"))?;
    let levels: Vec<&str> = rest.split('/').collect();
    let [site, zone, kind, device] = levels[..] else {
        return Err(format!(
            "the topic has {} levels behind {PREFIX}, not 4; {RIGHT}",
            levels.len()
        ));
    };
    for (what, name) in [("site", site), ("zone", zone), ("device", device)] {
        if name.trim().is_empty() {
            return Err(format!("the {what} in the topic is empty; {RIGHT}"));
        }
        if name.len() > NAME_MAX {
            return Err(format!(
                "the {what} in the topic has {} bytes; at most {NAME_MAX} would be right",
                name.len()
            ));
        }
        if name.contains(char::is_control) {
            return Err(format!(
                "the {what} in the topic has control characters; letters, digits and dashes would be right"
            ));
        }
    }
    let Some(kind) = Kind::from_name(kind) else {
        let names = Kind::ALL.map(Kind::as_str);
        return Err(format!(
            "there is no kind '{}'{}",
            kind.chars().take(40).collect::<String>(),
            instead(kind, &names)
        ));
    };
    Ok(Source {
        site: Arc::from(site),
        zone: Arc::from(zone),
        kind,
        device: Arc::from(device),
    })
}

/// What would be right instead of `found`: the nearest name, or all of them.
pub(crate) fn instead(found: &str, names: &[&str]) -> String {
    let near = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(found, name), name))
        .filter(|(distance, name)| *distance <= name.len() / 2)
        .min_by_key(|(distance, _)| *distance);
    match near {
        Some((_, name)) => format!("; did you mean '{name}'?"),
        None => format!("; one of {} would be right", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn four_levels_are_read() {
        let source = read("usher/in/main/reading-room/gate/door-1").expect("right");
        assert_eq!(
            (&*source.site, &*source.zone, &*source.device),
            ("main", "reading-room", "door-1")
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_what_would_be_right() {
        let wrong = [
            ("usher/out/a/b/gate/c", "does not begin with usher/in/"),
            ("usher/in/a/b/gate", "3 levels"),
            ("usher/in/a/b/gate/c/d", "5 levels"),
            ("usher/in/a//gate/c", "zone in the topic is empty"),
            ("usher/in/a/b/gaet/c", "did you mean 'gate'?"),
            ("usher/in/a/b/thermometer/c", "one of gate, seat"),
            ("usher/in/a/b\u{7}/gate/c", "control characters"),
        ];
        for (topic, part) in wrong {
            let reason = read(topic).expect_err(topic);
            assert!(reason.contains(part), "{topic}: {reason}");
        }
    }
}
