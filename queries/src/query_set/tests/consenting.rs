//! Whose rows reach which query: a person who refuses a purpose is left out of what is for it, and of nothing else.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

use super::{SECOND, said, set_of};
use crate::flow::Flow;
use crate::purpose::{Consent, Purpose};
use crate::query_set::QuerySet;
use crate::row::{Row, Rows};
use crate::statement::parse_statement;
use crate::streams::stream_schema;

/// Who refuses what.
#[derive(Default)]
struct Refusals(Mutex<BTreeSet<(Purpose, String)>>);

impl Consent for Refusals {
    fn holds(&self, purpose: Purpose, person: &str) -> bool {
        let refusals = self.0.lock().expect("nobody panics with it");
        !refusals.contains(&(purpose, person.to_owned()))
    }

    fn holds_for_all(&self, purpose: Purpose) -> bool {
        let refusals = self.0.lock().expect("nobody panics with it");
        !refusals.iter().any(|(refused, _)| *refused == purpose)
    }
}

fn refusing(all: &[(Purpose, &str)]) -> Option<Arc<dyn Consent>> {
    let all = all.iter().map(|(purpose, person)| (*purpose, (*person).to_owned()));
    Some(Arc::new(Refusals(Mutex::new(all.collect()))))
}

/// Clicks: (second, person).
fn clicks(events: &[(i64, Option<&str>)]) -> Flow {
    let count = events.len();
    let text =
        |of: &dyn Fn(usize) -> Option<String>| -> ArrayRef { Arc::new((0..count).map(of).collect::<StringArray>()) };
    let times = || -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(
            events.iter().map(|event| event.0 * SECOND),
        ))
    };
    let columns = vec![
        text(&|index| Some(format!("e{}-{index}", events[index].0))),
        times(),
        times(),
        text(&|_| Some("main".to_owned())),
        text(&|_| Some("web".to_owned())),
        text(&|_| Some("d".to_owned())),
        text(&|index| events[index].1.map(str::to_owned)),
        text(&|_| None),
        text(&|_| Some("search".to_owned())),
        text(&|_| None),
        Arc::new(Int64Array::from_value(0, count)),
        text(&|_| None),
        text(&|_| None),
        Arc::new(Int64Array::from_value(1, count)),
    ];
    let batch = RecordBatch::try_new(stream_schema("click").expect("a stream"), columns).expect("its columns");
    Flow::at_watermark(batch, i64::MIN)
}

const DAYS: [&str; 4] = [
    "CREATE QUERY all_of_it AS SELECT window_start, count(*) AS n, count(DISTINCT person) AS persons
     FROM TUMBLE(click, event_time, INTERVAL '1 minute') GROUP BY window_start",
    "CREATE QUERY studied WITH (purpose = 'research') AS SELECT window_start, count(*) AS n, count(DISTINCT person) AS persons
     FROM TUMBLE(click, event_time, INTERVAL '1 minute') GROUP BY window_start",
    "CREATE QUERY each AS SELECT person, window_start, window_end, count(*) AS n
     FROM TUMBLE(click, event_time, INTERVAL '1 minute') GROUP BY person, window_start, window_end",
    // Of what another query says of persons those are left out as well.
    "CREATE QUERY studied_of_each WITH (purpose = 'research') AS SELECT person, n FROM each",
];

/// Ada twice, ben once, nobody once.
const EVENTS: [(i64, Option<&str>); 4] = [(1, Some("ada")), (2, Some("ben")), (3, None), (4, Some("ada"))];

fn run(consent: Option<Arc<dyn Consent>>, singly: bool) -> [Vec<String>; 4] {
    let mut queries = set_of(&DAYS);
    queries.set_consent(consent);
    let (flow, mut out) = (clicks(&EVENTS), Vec::new());
    if singly {
        for row in 0..EVENTS.len() {
            queries.push("click", &Rows::One(Row::of(&flow, row)), &mut out);
        }
    } else {
        queries.push("click", &Rows::Many(flow), &mut out);
    }
    queries.advance(120 * SECOND, &mut out);
    ["all_of_it", "studied", "each", "studied_of_each"].map(|name| {
        let mut said = said(&out, name);
        said.sort();
        said
    })
}

#[test]
fn who_refuses_research_is_left_out_of_what_is_for_it_and_counts_everywhere_else() {
    for singly in [true, false] {
        let open = run(None, singly);
        assert_eq!(open[0], open[1], "where nobody refuses both say the same");
        assert_eq!(open[3].len(), 3);
        let refused = run(refusing(&[(Purpose::Research, "ada")]), singly);
        assert_eq!((&refused[0], &refused[2]), (&open[0], &open[2]));
        assert!(
            open[1][0].contains(r#""n":4"#) && open[1][0].contains(r#""persons":2"#),
            "{open:?}"
        );
        // Ben and nobody.
        assert!(
            refused[1][0].contains(r#""n":2"#) && refused[1][0].contains(r#""persons":1"#),
            "{refused:?}"
        );
        assert!(
            refused[3].len() == 2 && !refused[3].iter().any(|row| row.contains("ada")),
            "{refused:?}"
        );
        // To be written to is something else.
        let other = run(refusing(&[(Purpose::Service, "ada")]), singly);
        assert_eq!(other, open);
    }
}

#[test]
fn windows_are_shared_only_among_queries_that_hear_of_the_same_persons() {
    let queries = {
        let mut queries = QuerySet::new();
        let statements = DAYS.map(|sql| parse_statement(sql).expect("it is right"));
        assert!(queries.create_all(statements.to_vec()).is_empty());
        queries
    };
    for name in ["all_of_it", "studied"] {
        let operators = queries.get(name).expect("it runs").operators();
        assert!(
            !operators.iter().any(|line| line.contains("shares its window")),
            "{operators:?}"
        );
    }
    let prints = ["all_of_it", "studied"].map(|name| queries.get(name).expect("it runs").fingerprint());
    assert_ne!(prints[0], prints[1], "what one has kept is not for the other");
}

#[test]
fn a_purpose_is_one_of_those_there_are() {
    let purpose = |sql: &str| {
        parse_statement(sql)
            .map(|statement| statement.purpose)
            .map_err(|error| error.to_string())
    };
    assert_eq!(purpose("CREATE QUERY q AS SELECT 1"), Ok(Purpose::Recognition));
    assert_eq!(
        purpose("CREATE ALERT a WITH (purpose = 'Service', subject = 'zone') AS SELECT 1"),
        Ok(Purpose::Service)
    );
    assert_eq!(
        purpose("CREATE QUERY q WITH (purpose = 'fun') AS SELECT 1"),
        Err("1:33: purpose = 'fun' is not known, 'service', 'recognition' or 'research'".to_owned())
    );
}
