//! Draws queries and events from a seed.

/// A small generator of numbers: the same for the same seed on every machine (splitmix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// One of them.
    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Each with one chance in `of`.
    fn some<T: Copy>(&mut self, choices: &[T], of: usize) -> Vec<T> {
        choices.iter().copied().filter(|_| self.below(of) == 0).collect()
    }
}

/// An event as it is fed; times in microseconds.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) time: i64,
    /// The watermark that stood when it came.
    pub(super) met: i64,
    /// The watermark after it.
    pub(super) watermark: i64,
    pub(super) site: String,
    pub(super) zone: u8,
    pub(super) tag: u8,
    pub(super) antenna: Option<i64>,
}

const SECOND: i64 = 1_000_000;
/// How far the watermark stays behind the newest event.
const DELAY: i64 = 2 * SECOND;

/// A query that was drawn.
#[derive(Debug)]
pub(super) struct Question {
    from: String,
    filter: Option<&'static str>,
    keys: Vec<&'static str>,
    aggregates: Vec<&'static str>,
    having: Option<&'static str>,
    options: Vec<String>,
    is_windowed: bool,
    /// How far apart events lie, seconds at most: for long windows they lie further apart.
    pace: i64,
    lateness: i64,
    /// A query over this one's windows.
    outer: Option<&'static str>,
    /// Whether that reads events beside them.
    meets: bool,
}

/// What the windows of another query are read beside, where they meet events.
const MEETING: &str = "(SELECT site, begins, ends, n FROM inner UNION ALL \
     SELECT site, event_time AS begins, event_time AS ends, 1 AS n FROM rfid)";

/// Windows over the windows of another query, named `inner`.
const OUTER: &[&str] = &[
    "TUMBLE(inner, begins, INTERVAL '40 seconds')",
    "HOP(inner, ends, INTERVAL '15 seconds', INTERVAL '60 seconds')",
    "SESSION(inner, begins, INTERVAL '25 seconds')",
    "DAY(inner, ends, 'Europe/Copenhagen')",
];

const WINDOWS: &[(&str, i64)] = &[
    ("TUMBLE(rfid, event_time, INTERVAL '10 seconds')", 8),
    (
        "TABLE(TUMBLE(rfid, DESCRIPTOR(event_time), INTERVAL '10 seconds', INTERVAL '3 seconds'))",
        8,
    ),
    (
        "TUMBLE(data => rfid, timecol => event_time, size => INTERVAL '7 seconds')",
        8,
    ),
    ("HOP(rfid, event_time, INTERVAL '4 seconds', INTERVAL '10 seconds')", 8),
    (
        "HOP(rfid, event_time, INTERVAL '5 seconds', INTERVAL '20 seconds', INTERVAL '1 second')",
        8,
    ),
    ("HOP(rfid, event_time, INTERVAL '10 seconds', INTERVAL '4 seconds')", 8),
    ("HOP(rfid, event_time, INTERVAL '1 second', INTERVAL '30 seconds')", 8),
    ("SESSION(rfid, event_time, INTERVAL '5 seconds')", 8),
    (
        "SESSION(rfid, event_time, INTERVAL '12 seconds', INTERVAL '20 seconds')",
        8,
    ),
    (
        "SESSION(rfid, event_time, gap => INTERVAL '4 seconds', max => INTERVAL '4 seconds')",
        4,
    ),
    (
        "SESSION(rfid, event_time, INTERVAL '30 seconds', INTERVAL '40 seconds')",
        8,
    ),
    ("DAY(rfid, event_time, 'Europe/Copenhagen')", 30_000),
    ("DAY(rfid, event_time, 'America/New_York')", 30_000),
    ("DAY(rfid, event_time, 'Asia/Shanghai')", 30_000),
    ("OPENING(rfid, event_time)", 200),
];

const AGGREGATES: &[&str] = &[
    "count(*) AS n",
    "count(antenna) AS antennas",
    "sum(antenna) AS total",
    "avg(rssi_dbm) AS average",
    "min(rssi_dbm) AS weakest",
    "max(antenna) AS highest",
    "min(tag) AS first_tag",
    "max(event_time) AS newest",
    "count(DISTINCT tag) AS tags",
    "sum(antenna) FILTER (WHERE action = 'read') AS read_total",
    "stddev(rssi_dbm) AS spread",
    "bool_and(antenna > 1) AS all_high",
    "median(antenna) AS middle",
    "approx_distinct(tag) AS about",
    "first_value(tag ORDER BY event_time, event_id) AS earliest",
    "last_value(tag ORDER BY event_time, event_id) AS latest",
    "array_agg(DISTINCT tag ORDER BY tag) AS all_tags",
    "sum(rssi_dbm) AS power",
];

impl Question {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let is_windowed = dice.below(8) > 0;
        let outer = (is_windowed && dice.below(5) == 0).then(|| dice.one_of(OUTER));
        let (window, pace) = dice.one_of(WINDOWS);
        let is_session = window.contains("SESSION");
        let mut keys = vec!["site"];
        keys.extend(dice.some(&["zone", "person", "antenna % 2", "action"], 3));
        // Those that can be taken back exactly let long windows slide.
        let aggregates = if dice.below(3) == 0 {
            &AGGREGATES[..3]
        } else {
            AGGREGATES
        };
        let mut aggregates = dice.some(aggregates, aggregates.len().min(5));
        if aggregates.is_empty() {
            aggregates.push(dice.one_of(AGGREGATES));
        }
        let mut options = Vec::new();
        // What is said again can't be grouped again, so that windows below others are said once.
        let lateness = if is_windowed && outer.is_none() {
            dice.one_of(&[0, 0, 3, 15])
        } else {
            0
        };
        if lateness > 0 {
            options.push(format!("lateness = '{lateness} seconds'"));
        }
        if is_windowed && !is_session && outer.is_none() {
            options.push(format!(
                "emit = '{}'",
                dice.one_of(&["close", "close", "update", "5 seconds"])
            ));
        }
        if !is_windowed {
            options.push(format!("emit = '{}'", dice.one_of(&["update", "7 seconds"])));
        }
        Self {
            from: if is_windowed { window } else { "rfid" }.to_owned(),
            filter: dice.one_of(&[
                None,
                None,
                Some("antenna > 0"),
                Some("action = 'read' OR person IS NULL"),
                Some("tag <> 't1' AND rssi_dbm * 2 < 5"),
            ]),
            keys,
            aggregates,
            // Counts only grow, so that a row once let through is never taken back.
            having: dice.one_of(&[None, None, None, Some("count(*) > 1")]),
            options,
            is_windowed,
            pace: if is_windowed { pace } else { 8 },
            lateness: lateness * SECOND,
            outer,
            meets: dice.below(2) == 0,
        }
    }

    /// A query with the same rows, windows and keys that asks for something else, in other words.
    pub(super) fn sibling(&self, dice: &mut Dice) -> Self {
        let mut keys = self.keys.clone();
        if dice.below(2) == 0 {
            keys.rotate_left(1);
        }
        let mut aggregates = dice.some(AGGREGATES, 5);
        // What is in both at another place, too.
        aggregates.extend(self.aggregates.iter().copied().filter(|_| dice.below(3) == 0));
        aggregates.dedup();
        aggregates.sort_unstable();
        aggregates.dedup();
        Self {
            from: self.from.clone(),
            filter: self.filter,
            keys,
            aggregates,
            having: dice.one_of(&[None, None, Some("count(*) > 1"), Some("sum(antenna) > 2")]),
            options: self.options.clone(),
            is_windowed: self.is_windowed,
            pace: self.pace,
            lateness: self.lateness,
            outer: None,
            meets: false,
        }
    }

    /// Whether a query over this one's windows was drawn.
    pub(super) fn has_outer(&self) -> bool {
        self.outer.is_some()
    }

    /// The statement as a query or an alert of this name.
    pub(super) fn named(&self, name: &str, is_alert: bool) -> String {
        let created = self.create(name);
        if !is_alert {
            return created;
        }
        let alert = created.replacen("CREATE QUERY", "CREATE ALERT", 1);
        match alert.contains(" WITH (") {
            true => alert.replacen(" WITH (", " WITH (subject = 'zone', ", 1),
            false => alert.replacen(" AS ", " WITH (subject = 'zone') AS ", 1),
        }
    }

    /// The statements, each behind those it reads.
    pub(super) fn statements(&self) -> Vec<String> {
        match self.outer {
            None => vec![self.create("q")],
            Some(window) => vec![self.create("inner"), format!("CREATE QUERY q AS {}", self.over(window))],
        }
    }

    /// The last statement as one SELECT, for a bounded run.
    pub(super) fn bounded(&self) -> String {
        match self.outer {
            None => self.create("q"),
            Some(window) if self.meets => {
                let windows = format!("FROM ({}) AS inner_windows", self.select());
                self.over(window).replacen("FROM inner", &windows, 1)
            }
            Some(window) => self.over(window).replacen("inner", &format!("({})", self.select()), 1),
        }
    }

    fn over(&self, window: &str) -> String {
        let window = match self.meets {
            true => window.replacen("inner", MEETING, 1),
            false => window.to_owned(),
        };
        format!(
            "SELECT site, window_start, window_end, count(*) AS windows, sum(n) AS n, max(ends) AS latest \
             FROM {window} GROUP BY site, window_start, window_end"
        )
    }

    fn create(&self, name: &str) -> String {
        let with = match self.options.as_slice() {
            [] => String::new(),
            options => format!(" WITH ({})", options.join(", ")),
        };
        format!("CREATE QUERY {name}{with} AS {}", self.select())
    }

    fn select(&self) -> String {
        let mut groups: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        let mut columns: Vec<String> = Vec::new();
        for (index, key) in self.keys.iter().enumerate() {
            columns.push(format!("{key} AS key{index}"));
        }
        if self.outer.is_some() {
            groups.extend(["window_start", "window_end"].map(str::to_owned));
            columns[0] = "site".to_owned();
            columns.extend(["window_start AS begins", "window_end AS ends", "count(*) AS n"].map(str::to_owned));
        } else if self.is_windowed {
            for column in ["window_start", "window_end", "final", "amended"] {
                groups.push(column.to_owned());
                columns.push(column.to_owned());
            }
        }
        let is_new = |aggregate: &&&str| self.outer.is_none() || !aggregate.ends_with(" n");
        columns.extend(self.aggregates.iter().filter(is_new).map(ToString::to_string));
        let filter = self.filter.map(|filter| format!(" WHERE {filter}")).unwrap_or_default();
        let having = self
            .having
            .map(|having| format!(" HAVING {having}"))
            .unwrap_or_default();
        format!(
            "SELECT {} FROM {}{filter} GROUP BY {}{having}",
            columns.join(", "),
            self.from,
            groups.join(", ")
        )
    }

    /// A sequence of events of its own site, none later than the query's lateness.
    pub(super) fn events(&self, dice: &mut Dice, sequence: usize) -> Vec<Event> {
        // Around the days on which clocks change in Europe and in America, each sequence after the one before.
        let shift = [1_772_930_000, 1_774_690_000, 1_792_830_000, 1_793_500_000];
        let year = 4 * 365 * 86_400 + 86_400;
        let start = (shift[dice.below(4)] + sequence as i64 * year) * SECOND;
        let (mut newest, mut watermark) = (
            start,
            if sequence == 0 {
                i64::MIN
            } else {
                start - year * SECOND / 4
            },
        );
        let count = 1 + dice.below(40);
        let mut events = Vec::with_capacity(count);
        for index in 0..count {
            // Mostly close together, now and then at the same moment or far apart.
            let pause = match dice.below(6) {
                0 => 0,
                1 => self.pace * 3,
                _ => dice.below(self.pace as usize) as i64,
            };
            newest += pause * SECOND;
            let met = watermark;
            let earliest = if met == i64::MIN {
                newest - DELAY
            } else {
                met - self.lateness
            };
            let back = dice.below(usize::try_from((newest - earliest) / SECOND + 1).unwrap_or(1)) as i64;
            let time = if dice.below(3) == 0 {
                newest - back * SECOND
            } else {
                newest
            };
            watermark = watermark.max(newest - DELAY);
            events.push(Event {
                id: format!("e{sequence}-{index}"),
                time,
                met,
                watermark,
                site: format!("s{sequence}"),
                zone: dice.below(3) as u8,
                tag: dice.below(5) as u8,
                antenna: (dice.below(5) > 0).then(|| dice.below(4) as i64),
            });
        }
        events
    }
}
