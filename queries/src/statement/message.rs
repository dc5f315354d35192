//! The options of `CREATE ALERT` by which a finding about a person goes out to that person, as a message.

use std::collections::BTreeMap;

use super::OptionValue;
use super::values::one_of;
use crate::error::{Position, QueryError};

/// The options that only a message has.
pub(super) const MESSAGE_OPTIONS: [&str; 7] = [
    "message", "text_zh", "priority", "eligible", "per_day", "points", "prefer",
];
/// Options of an alert's life, which a message has not: each row is a finding of its own.
const NOT_OF_MESSAGES: [&str; 12] = [
    "raise",
    "clear",
    "for",
    "keep",
    "cooldown",
    "escalate",
    "silent",
    "no_data",
    "inhibited_by",
    "group",
    "group_wait",
    "severity",
];
/// The gravest and the least priority that can be said.
const PRIORITIES: std::ops::RangeInclusive<i32> = 0..=100;
/// How urgent a message is whose statement does not say.
const DEFAULT_PRIORITY: i32 = 50;
/// The most messages of a kind that a person may be sent in a day; more is no service.
const PER_DAY_MAX: u32 = 20;
/// How often a kind goes out to a person in a day where the statement does not say.
const DEFAULT_PER_DAY: u32 = 1;
/// The most points that an accepted offer can give.
const POINTS_MAX: u32 = 1_000_000;
/// The longest name of a kind.
const KIND_MAX: usize = 64;

/// What goes out to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageOptions {
    /// Of which kind it is, as in `seat_offer`: what a person declines, and what is counted by day.
    pub kind: String,
    /// The sentence in Chinese, with `{column}` in it; without it the one in English goes out twice.
    pub text_zh: Option<String>,
    /// Of several messages to one person in the same moment the one with the highest goes out; 0 to 100.
    pub priority: i32,
    /// How many of the kind a person is sent in a calendar day of the site, at most.
    pub per_day: u32,
    /// Points for accepting it.
    pub points: Option<u32>,
    /// Which row is the message, where the rule finds several for a person in the same moment; without it the first one.
    pub prefer: Option<Prefer>,
}

/// By which column a row is preferred to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefer {
    /// The column, with its place in the text.
    pub column: OptionValue,
    /// Whether the greatest value is preferred, else the least.
    pub greatest: bool,
}

/// Takes the options of a message out of those that were written, where the statement sends one; and its condition.
pub(super) fn message_options(
    options: &mut BTreeMap<String, (Position, OptionValue)>,
) -> Result<(Option<MessageOptions>, Option<OptionValue>), QueryError> {
    let Some((_, kind)) = options.remove("message") else {
        let alone = MESSAGE_OPTIONS
            .iter()
            .find_map(|option| Some((option, options.get(*option)?)));
        return match alone {
            Some((option, (at, _))) => Err(at.mistake(
                format!("'{option}' stands without 'message'"),
                format!("add message = 'seat_offer' or what else it is, or leave '{option}' out"),
            )),
            None => Ok((None, None)),
        };
    };
    let is_kind = |kind: &str| {
        let is_letter = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        !kind.is_empty() && kind.len() <= KIND_MAX && kind.chars().all(is_letter)
    };
    if !is_kind(&kind.value) {
        return Err(kind.at.mistake(
            format!("'{}' is no kind of message", kind.value),
            "letters, digits, _ and - make a kind, such as 'seat_offer'",
        ));
    }
    for option in NOT_OF_MESSAGES {
        if let Some((at, _)) = options.get(option) {
            let right = match option {
                "raise" => "eligible = '…' says which rows become messages".to_owned(),
                _ => format!("a message has no life as an alert; leave '{option}' out"),
            };
            return Err(at.mistake(format!("'{option}' stands with 'message'"), right));
        }
    }
    if let Some((_, subject)) = options.get("subject")
        && subject.value != "person"
    {
        let wrong = format!("a message about a {} has nobody to go to", subject.value);
        return Err(subject.at.mistake(wrong, "subject = 'person' would be right"));
    }
    one_of(
        options.get("when").map(|(_, value)| value.clone()),
        "when",
        &["always", "open"],
    )?;
    let mut take = |option: &str| options.remove(option).map(|(_, value)| value);
    let message = MessageOptions {
        kind: kind.value,
        text_zh: take("text_zh").map(|value| value.value),
        priority: number(take("priority"), PRIORITIES, "priority")?.unwrap_or(DEFAULT_PRIORITY),
        per_day: number(take("per_day"), 1..=PER_DAY_MAX, "per_day")?.unwrap_or(DEFAULT_PER_DAY),
        points: number(take("points"), 1..=POINTS_MAX, "points")?,
        prefer: take("prefer").map(prefer).transpose()?,
    };
    Ok((Some(message), take("eligible")))
}

/// A column, and which end of it, as in `ORDER BY`.
fn prefer(value: OptionValue) -> Result<Prefer, QueryError> {
    let mut words = value.value.split_whitespace();
    let column = words.next().unwrap_or("").to_owned();
    let greatest = match words.next().map(str::to_ascii_lowercase).as_deref() {
        None | Some("asc") => Some(false),
        Some("desc") => Some(true),
        Some(_) => None,
    };
    let is_name = !column.is_empty() && column.chars().all(|c| c.is_alphanumeric() || c == '_');
    match greatest.filter(|_| is_name && words.next().is_none()) {
        Some(greatest) => Ok(Prefer {
            column: OptionValue { value: column, ..value },
            greatest,
        }),
        None => Err(value.at.mistake(
            format!("prefer = '{}' names no column and which end of it", value.value),
            "a column such as 'minutes' for the least of it, or 'room DESC' for the greatest",
        )),
    }
}

fn number<T>(
    value: Option<OptionValue>,
    limits: std::ops::RangeInclusive<T>,
    option: &str,
) -> Result<Option<T>, QueryError>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let Some(value) = value else { return Ok(None) };
    match value.value.trim().parse().ok().filter(|number| limits.contains(number)) {
        Some(number) => Ok(Some(number)),
        None => Err(value.at.mistake(
            format!("{option} = '{}' is no such number", value.value),
            format!(
                "a whole number from {} to {} would be right",
                limits.start(),
                limits.end()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use crate::statement::{StatementKind, parse_statement};

    fn read(with: &str) -> Result<crate::statement::AlertOptions, String> {
        let sql = format!("CREATE ALERT a WITH (subject = 'person', {with}) AS SELECT 1 AS n");
        match parse_statement(&sql).map_err(|error| error.to_string())?.kind {
            StatementKind::Alert(options) => Ok(*options),
            StatementKind::Query => Err("a query".to_owned()),
        }
    }

    #[test]
    fn the_options_of_a_message_are_read() {
        let options = read(
            "message = 'seat_offer', text = 'A seat', text_zh = '座位', priority = 70, eligible = 'n > 1', \
             per_day = 2, points = 5, expires = '10 minutes', quiet = '22:00-07:00', prefer = 'room desc'",
        )
        .expect("they are right");
        let message = options.message.expect("it is one");
        assert_eq!(
            (message.kind.as_str(), message.priority, message.per_day),
            ("seat_offer", 70, 2)
        );
        assert_eq!((message.text_zh.as_deref(), message.points), (Some("座位"), Some(5)));
        let prefer = message.prefer.expect("a column");
        assert_eq!((prefer.column.value.as_str(), prefer.greatest), ("room", true));
        assert_eq!(options.raise.expect("its condition").value, "n > 1");
        assert_eq!((options.expires_us, options.quiet.len()), (600_000_000, 1));
    }

    #[test]
    fn what_is_wrong_with_a_message_is_told_with_its_place() {
        for (with, expected) in [
            (
                "priority = 3",
                "1:42: 'priority' stands without 'message', add message = 'seat_offer' or what else it is, or leave \
                 'priority' out",
            ),
            (
                "message = 'a seat'",
                "1:53: 'a seat' is no kind of message, letters, digits, _ and - make a kind, such as 'seat_offer'",
            ),
            (
                "message = 'a', raise = 'n > 1'",
                "1:57: 'raise' stands with 'message', eligible = '…' says which rows become messages",
            ),
            (
                "message = 'a', keep = '1m'",
                "1:57: 'keep' stands with 'message', a message has no life as an alert; leave 'keep' out",
            ),
            (
                "message = 'a', per_day = 0",
                "1:67: per_day = '0' is no such number, a whole number from 1 to 20 would be right",
            ),
            (
                "message = 'a', prefer = 'room most'",
                "1:67: prefer = 'room most' names no column and which end of it, a column such as 'minutes' for the least of it, \
                 or 'room DESC' for the greatest",
            ),
            (
                "message = 'a', when = 'closed'",
                "1:65: when = 'closed' is not known, one of always, open",
            ),
        ] {
            assert_eq!(read(with).expect_err(with), expected);
        }
        let zone = parse_statement("CREATE ALERT a WITH (subject = 'zone', message = 'b') AS SELECT 1");
        assert_eq!(
            zone.expect_err("nobody to go to").to_string(),
            "1:33: a message about a zone has nobody to go to, subject = 'person' would be right"
        );
    }
}
