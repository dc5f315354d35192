//! The options of `CREATE ALERT`: what raises and clears it, what holds it back, and who else it is told with.

use std::collections::BTreeMap;

use arrow::datatypes::{Field, Schema};

use super::message::{MessageOptions, message_options};
use super::parameters::{Parameter, put_in_condition};
use super::values::{duration, micros, one_of, parts};
use super::{OptionValue, Statement, StatementKind};
use crate::civil_time::{HoursMistake, daily_hours};
use crate::error::{Position, QueryError};

/// What an alert may be about.
pub const SUBJECTS: [&str; 6] = ["zone", "seat", "person", "item", "device", "site"];
/// How grave an alert may be, the least grave first.
pub const SEVERITIES: [&str; 3] = ["info", "warning", "critical"];
/// How long a finding without a clearing condition stands, when the statement does not say: an hour.
const DEFAULT_EXPIRES_US: i64 = 3_600_000_000;
/// How long the members of a group are gathered before it is told, when the statement does not say: ten seconds.
const DEFAULT_GROUP_WAIT_US: i64 = 10_000_000;
/// The words behind a rise that happens although somebody looks after the alert.
const EVEN_ACKNOWLEDGED: &str = " even if acknowledged";

/// The options that only an alert has, beside those of messages.
pub(super) const ALERT_OPTIONS: [&str; 17] = [
    "subject",
    "severity",
    "raise",
    "clear",
    "for",
    "keep",
    "cooldown",
    "escalate",
    "silent",
    "no_data",
    "expires",
    "inhibited_by",
    "quiet",
    "when",
    "group",
    "group_wait",
    "text",
];

/// The options of `CREATE ALERT`; durations in microseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertOptions {
    /// What the rows are about: `zone`, `seat`, `person`, `item`, `device` or `site`; a column of the SELECT holds its
    /// id.
    pub subject: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// The condition on the SELECT's columns that raises; without it every row is a finding.
    pub raise: Option<OptionValue>,
    /// The condition that clears; without it the alert clears when `raise` no longer holds.
    pub clear: Option<OptionValue>,
    /// How long `raise` must hold.
    pub for_us: i64,
    /// How long `clear` must hold before the alert is over.
    pub keep_us: i64,
    /// How long after clearing nothing is raised again for the same subject.
    pub cooldown_us: i64,
    /// How the severity rises while the alert stands, the earliest rise first.
    pub escalate: Vec<Rise>,
    /// Raises when no row has come for the subject for so long, counted while the site is open.
    pub silent_us: Option<i64>,
    /// A finding of its own when no row has come for the subject for so long, counted while the site is open.
    pub no_data_us: Option<i64>,
    /// A finding without a clearing condition clears itself after so long without another.
    pub expires_us: i64,
    /// The alerts that hold this one back while they stand, each with its place.
    pub inhibited_by: Vec<OptionValue>,
    /// The hours of the day in which it is held back: minutes from midnight in the site's zone, in order; an end may lie
    /// on the next day.
    pub quiet: Vec<(u16, u16)>,
    /// By the opening calendar, when it is told.
    pub when: When,
    /// Whether one notice speaks for all alerts of the rule at a place.
    pub group: Option<Group>,
    /// How long a group gathers before it tells.
    pub group_wait_us: i64,
    /// The sentence people read, with `{column}` in it.
    pub text: String,
    /// What goes out to the person that a row is about, where nothing is told to staff.
    pub message: Option<MessageOptions>,
}

/// A severity that an alert takes on when it has stood for so long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rise {
    /// One of [`SEVERITIES`], graver than before.
    pub severity: String,
    /// How long after it was raised, microseconds.
    pub after_us: i64,
    /// Whether it rises although somebody looks after it.
    pub even_acknowledged: bool,
}

/// When an alert is told, by the opening calendar of its site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum When {
    /// At any time.
    #[default]
    Always,
    /// While the site is open.
    Open,
    /// While it is closed.
    Closed,
}

/// What one notice speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// All alerts of the rule in zones with the same parent.
    Parent,
    /// All alerts of the rule at a site.
    Site,
}

/// Takes the alert's own options out of those that were written.
pub(super) fn alert_options(
    options: &mut BTreeMap<String, (Position, OptionValue)>,
    name: &str,
    name_at: Position,
    parameters: Option<&[Parameter]>,
) -> Result<AlertOptions, QueryError> {
    if let Some(parameters) = parameters {
        for condition in ["raise", "clear", "eligible"] {
            if let Some((_, value)) = options.get_mut(condition) {
                put_in_condition(value, parameters)?;
            }
        }
    }
    let (message, eligible) = message_options(options)?;
    let mut take = |option: &str| options.remove(option).map(|(_, value)| value);
    let subject = one_of(take("subject"), "subject", &SUBJECTS)?.ok_or_else(|| {
        name_at.mistake(
            "an alert needs to say what it is about",
            format!("WITH (subject = …), one of {}", SUBJECTS.join(", ")),
        )
    })?;
    let severity = one_of(take("severity"), "severity", &SEVERITIES)?.unwrap_or_else(|| "warning".to_owned());
    let (raise, clear, silent) = (take("raise").or(eligible), take("clear"), take("silent"));
    if let (Some(raise), Some(_)) = (&raise, &silent) {
        return Err(raise.at.mistake(
            "'raise' and 'silent' stand together",
            "an alert raises on a condition or on silence, not on both",
        ));
    }
    let (keep, no_data) = (take("keep"), take("no_data"));
    for (option, value) in [("clear", &clear), ("keep", &keep), ("no_data", &no_data)] {
        if let (Some(value), None) = (value, &raise) {
            return Err(value.at.mistake(
                format!("'{option}' stands without 'raise'"),
                format!("add raise = '…', or leave '{option}' out"),
            ));
        }
    }
    let (group, group_wait) = (take("group"), take("group_wait"));
    if let (Some(wait), None) = (&group_wait, &group) {
        return Err(wait.at.mistake(
            "'group_wait' stands without 'group'",
            "add group = 'parent' or group = 'site', or leave 'group_wait' out",
        ));
    }
    let lasting = |value: Option<OptionValue>| value.map(|value| lasting(&value)).transpose();
    let or = |value: Option<OptionValue>, default: i64| match value {
        Some(value) => duration(&value),
        None => Ok(default),
    };
    Ok(AlertOptions {
        escalate: match take("escalate") {
            Some(value) => rises(&value, &severity)?,
            None => Vec::new(),
        },
        subject,
        severity,
        raise,
        clear,
        for_us: or(take("for"), 0)?,
        keep_us: or(keep, 0)?,
        cooldown_us: or(take("cooldown"), 0)?,
        silent_us: lasting(silent)?,
        no_data_us: lasting(no_data)?,
        expires_us: or(take("expires"), DEFAULT_EXPIRES_US)?,
        inhibited_by: match take("inhibited_by") {
            Some(value) => names(&value)?,
            None => Vec::new(),
        },
        quiet: match take("quiet") {
            Some(value) => quiet(&value)?,
            None => Vec::new(),
        },
        when: match one_of(take("when"), "when", &["always", "open", "closed"])?.as_deref() {
            Some("open") => When::Open,
            Some("closed") => When::Closed,
            _ => When::Always,
        },
        group: match one_of(group, "group", &["parent", "site"])?.as_deref() {
            Some("parent") => Some(Group::Parent),
            Some(_) => Some(Group::Site),
            None => None,
        },
        group_wait_us: or(group_wait, DEFAULT_GROUP_WAIT_US)?,
        text: take("text").map_or_else(|| format!("{name}: {{subject}}"), |value| value.value),
        message,
    })
}

/// Refuses an alert whose SELECT lacks a column by which it would be told with others or held back by them.
pub(crate) fn refuse_missing_columns(statement: &Statement, schema: &Schema) -> Result<(), QueryError> {
    let StatementKind::Alert(options) = &statement.kind else {
        return Ok(());
    };
    let needed = [
        (options.group == Some(Group::Parent)).then_some(("zone", "group = 'parent'")),
        options.group.map(|_| ("site", "group")),
        (!options.inhibited_by.is_empty()).then_some(("site", "inhibited_by")),
        options.message.as_ref().map(|_| ("site", "message")),
        options.message.as_ref().map(|_| ("person", "message")),
    ];
    for (column, option) in needed.into_iter().flatten() {
        if schema.index_of(column).is_err() {
            return Err(statement.select_at.mistake(
                format!("the SELECT has no column '{column}', which {option} reads"),
                format!("SELECT {column}, …"),
            ));
        }
    }
    if let Some(prefer) = options.message.as_ref().and_then(|message| message.prefer.as_ref()) {
        let column = &prefer.column;
        let is_number = |field: &Field| field.data_type().is_numeric();
        if !schema.field_with_name(&column.value).is_ok_and(is_number) {
            let numbers = schema.fields().iter().filter(|field| is_number(field));
            let names: Vec<&str> = numbers.map(|field| field.name().as_str()).collect();
            return Err(column.at.mistake(
                format!(
                    "the SELECT has no column '{}' of numbers, which prefer reads",
                    column.value
                ),
                match names.is_empty() {
                    true => "a number that says how good the row is, under a name of its own".to_owned(),
                    false => format!("one of {}", names.join(", ")),
                },
            ));
        }
    }
    Ok(())
}

/// A duration that is not nothing.
fn lasting(value: &OptionValue) -> Result<i64, QueryError> {
    match duration(value)? {
        0 => Err(value
            .at
            .mistake("silence needs time to be noticed", "a duration such as '15 minutes'")),
        us => Ok(us),
    }
}

/// The names of other alerts.
fn names(value: &OptionValue) -> Result<Vec<OptionValue>, QueryError> {
    let names: Vec<OptionValue> = parts(value).collect();
    for (index, name) in names.iter().enumerate() {
        let is_name = !name.value.is_empty() && name.value.chars().all(|c| c.is_alphanumeric() || c == '_');
        if !is_name {
            return Err(name.at.mistake(
                format!("'{}' is no name of an alert", name.value),
                "names with commas between them, such as 'device_silent, building_closed'",
            ));
        }
        if names[..index].iter().any(|other| other.value == name.value) {
            return Err(name
                .at
                .mistake(format!("'{}' stands twice", name.value), "once is enough"));
        }
    }
    Ok(names)
}

fn rises(value: &OptionValue, severity: &str) -> Result<Vec<Rise>, QueryError> {
    let rank = |severity: &str| SEVERITIES.iter().position(|known| *known == severity);
    let mut rises: Vec<Rise> = Vec::new();
    for part in parts(value) {
        let (text, even_acknowledged) = match part.value.strip_suffix(EVEN_ACKNOWLEDGED) {
            Some(text) => (text, true),
            None => (part.value.as_str(), false),
        };
        let read = text
            .split_once(" after ")
            .map(|(severity, after)| (severity.trim(), humantime::parse_duration(after.trim()).map(micros)));
        let Some((to, Ok(after_us))) = read else {
            return Err(part.at.mistake(
                format!("'{}' is no rise of the severity", part.value),
                "'critical after 10 minutes', with ' even if acknowledged' where it should rise all the same",
            ));
        };
        let Some(graver) = rank(to) else {
            return Err(part.at.mistake(
                format!("'{to}' is no severity"),
                format!("one of {}", SEVERITIES.join(", ")),
            ));
        };
        let (before, since_us) = rises
            .last()
            .map_or((severity, 0), |rise| (rise.severity.as_str(), rise.after_us));
        if Some(graver) <= rank(before) {
            return Err(part.at.mistake(
                format!("'{to}' is not graver than '{before}'"),
                "a severity only rises; the next step is graver than the one before",
            ));
        }
        if after_us <= since_us {
            return Err(part.at.mistake(
                format!("'{}' does not come later than what is before it", part.value),
                "times count from when the alert was raised, the earliest first",
            ));
        }
        rises.push(Rise {
            severity: to.to_owned(),
            after_us,
            even_acknowledged,
        });
    }
    Ok(rises)
}

fn quiet(value: &OptionValue) -> Result<Vec<(u16, u16)>, QueryError> {
    let text = &value.value;
    daily_hours(text).map_err(|mistake| match mistake {
        HoursMistake::Unreadable => value.at.mistake(
            format!("'{text}' is no quiet hours"),
            "hours such as '22:00-07:00' or '12:00-13:00, 22:00-07:00'",
        ),
        HoursMistake::Empty => value.at.mistake(
            format!("'{text}' ends when it begins"),
            "hours such as '22:00-07:00'; '00:00-24:00' is the whole day",
        ),
        HoursMistake::Overlapping => value.at.mistake(
            format!("the ranges of '{text}' run into each other"),
            "the earlier first, with a break between them",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::{AlertOptions, Group, Rise, When};
    use crate::statement::{StatementKind, parse_statement};

    fn options(with: &str) -> Result<AlertOptions, String> {
        let sql = format!("CREATE ALERT a WITH (subject = 'zone', raise = 'n > 1', {with}) AS SELECT 1 AS n");
        match parse_statement(&sql).map_err(|error| error.to_string())?.kind {
            StatementKind::Alert(options) => Ok(*options),
            StatementKind::Query => Err("a query".to_owned()),
        }
    }

    #[test]
    fn the_options_of_an_alerts_life_are_read() {
        let read = options(
            "keep = '2 minutes', escalate = 'critical after 10 minutes even if acknowledged', no_data = '15 minutes', \
             inhibited_by = 'device_silent, closed', quiet = '12:00-13:00,22:00-07:00', when = 'open', group = 'parent'",
        )
        .expect("they are right");
        assert_eq!(
            (read.keep_us, read.no_data_us, read.group_wait_us),
            (120_000_000, Some(900_000_000), 10_000_000)
        );
        assert_eq!(
            read.escalate,
            [Rise {
                severity: "critical".to_owned(),
                after_us: 600_000_000,
                even_acknowledged: true
            }]
        );
        let names: Vec<&str> = read.inhibited_by.iter().map(|name| name.value.as_str()).collect();
        assert_eq!(names, ["device_silent", "closed"]);
        assert_eq!(read.quiet, [(720, 780), (1320, 1860)]);
        assert_eq!((read.when, read.group), (When::Open, Some(Group::Parent)));
        let plain = options("for = '1s'").expect("it is right");
        assert_eq!((plain.when, plain.group, plain.no_data_us), (When::Always, None, None));
        assert!(plain.escalate.is_empty() && plain.quiet.is_empty() && plain.inhibited_by.is_empty());
    }

    #[test]
    fn what_is_wrong_with_an_option_is_told_with_its_place() {
        let cases = [
            (
                "keep = 'soon'",
                "1:65: 'soon' is no duration, a duration such as '500ms', '5 seconds' or '2 hours'",
            ),
            (
                "no_data = '0s'",
                "1:68: silence needs time to be noticed, a duration such as '15 minutes'",
            ),
            (
                "escalate = 'critical'",
                "1:69: 'critical' is no rise of the severity, 'critical after 10 minutes', with ' even if acknowledged' \
                 where it should rise all the same",
            ),
            (
                "escalate = 'grave after 1m'",
                "1:69: 'grave' is no severity, one of info, warning, critical",
            ),
            (
                "escalate = 'critical after 1m, critical after 2m'",
                "1:88: 'critical' is not graver than 'critical', a severity only rises; the next step is graver than \
                 the one before",
            ),
            (
                "severity = 'info', escalate = 'warning after 5m, critical after 5m'",
                "1:106: 'critical after 5m' does not come later than what is before it, times count from when the alert \
                 was raised, the earliest first",
            ),
            (
                "inhibited_by = 'b,  c d'",
                "1:77: 'c d' is no name of an alert, names with commas between them, such as 'device_silent, \
                 building_closed'",
            ),
            ("inhibited_by = 'b, b'", "1:76: 'b' stands twice, once is enough"),
            (
                "quiet = '22-7'",
                "1:66: '22-7' is no quiet hours, hours such as '22:00-07:00' or '12:00-13:00, 22:00-07:00'",
            ),
            (
                "quiet = '22:00-22:00'",
                "1:66: '22:00-22:00' ends when it begins, hours such as '22:00-07:00'; '00:00-24:00' is the whole day",
            ),
            (
                "when = 'opened'",
                "1:65: when = 'opened' is not known, one of always, open, closed",
            ),
            (
                "group = 'floor'",
                "1:66: group = 'floor' is not known, one of parent, site",
            ),
            (
                "group_wait = '5s'",
                "1:71: 'group_wait' stands without 'group', add group = 'parent' or group = 'site', or leave \
                 'group_wait' out",
            ),
        ];
        for (with, expected) in cases {
            assert_eq!(options(with).expect_err(with), expected);
        }
        let without = parse_statement("CREATE ALERT a WITH (subject = 'zone', keep = '1m') AS SELECT 1");
        assert_eq!(
            without.expect_err("there is no raise").to_string(),
            "1:48: 'keep' stands without 'raise', add raise = '…', or leave 'keep' out"
        );
    }
}
