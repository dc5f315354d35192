//! Random queries that share their windows say what each says alone, in the same order, and keep the same.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use rustc_hash::FxBuildHasher;
use serde_json::Value;

use super::draw::{Dice, Event, Question};
use super::{flow_of, last_rows, opening};
use crate::budget::Budget;
use crate::capture::tests::Chain;
use crate::query::Output;
use crate::query_set::{QuerySet, Restored};
use crate::row::Rows;
use crate::rows::row_to_json;
use crate::statement::parse_statement;

const SECOND: i64 = 1_000_000;

/// What happens to a set of queries; some of it to one of them.
#[derive(Debug)]
enum Step {
    Feed(Vec<Event>),
    /// Time moves on so many rows at a time, as often.
    FeedInParts(Vec<Event>, usize, usize),
    Restart,
    /// Put again as it is, or created where it is not there.
    Put(usize),
    Remove(usize),
    Peek,
}

/// All that can be seen of each query, in the order in which it came.
#[derive(Default)]
struct Seen {
    of_query: BTreeMap<String, Vec<String>>,
    outputs: Vec<Output>,
    /// The columns by which a row takes the place of another.
    keys: BTreeMap<String, Vec<usize>>,
    /// How many queries shared a window at a time, at most.
    shared: usize,
}

fn created(statements: &[&String]) -> QuerySet {
    let mut queries = QuerySet::new();
    queries.set_opening_hours(opening());
    let parsed = statements
        .iter()
        .map(|sql| parse_statement(sql).expect("it can be read"));
    let late = parse_statement("CREATE QUERY too_late AS SELECT query, event_id, watermark, reason FROM late");
    let mistakes = queries.create_all(parsed.chain(late).collect());
    assert!(mistakes.is_empty(), "{mistakes:?} of {statements:#?}");
    queries
}

/// What an operator keeps, a line a row, sorted: its keys have other numbers after a restart. Long cells by their hash.
fn kept(number: usize, part: &RecordBatch) -> Vec<String> {
    let schema = part.schema();
    let times: BTreeMap<_, _> = schema.metadata().iter().collect();
    let mut lines = vec![format!("{number} keeps {times:?}")];
    for row in 0..part.num_rows() {
        let cells = schema.fields().iter().zip(part.columns()).map(|(field, column)| {
            let text = array_value_to_string(column, row).expect("it can be shown");
            match text.len() {
                0..100 => format!("{} {text}", field.name()),
                _ => format!("{} {:x}", field.name(), FxBuildHasher.hash_one(&text)),
            }
        });
        lines.push(format!("{number} keeps {}", cells.collect::<Vec<_>>().join(", ")));
    }
    lines.sort();
    lines
}

fn seen(statements: &[(usize, String)], begun: &[usize], steps: &[Step]) -> Seen {
    let mut seen = Seen::default();
    let sql = |number: usize| statements.iter().find(|(of, _)| *of == number).map(|(_, sql)| sql);
    let mut running: Vec<usize> = begun.iter().copied().filter(|number| sql(*number).is_some()).collect();
    let all = |running: &[usize]| created(&running.iter().filter_map(|number| sql(*number)).collect::<Vec<_>>());
    let mut queries = all(&running);
    let mut chain = Chain::default();
    for (number, step) in steps.iter().enumerate() {
        let mut outputs = Vec::new();
        if number % 3 == 0 {
            chain.take(&mut queries);
        }
        match step {
            Step::Feed(events) => {
                queries.push("rfid", &Rows::Many(flow_of(events)), &mut outputs);
                let last = events.last().map_or(i64::MIN, |event| event.watermark);
                queries.advance(last, &mut outputs);
            }
            Step::FeedInParts(events, part, turns) => {
                queries.push("rfid", &Rows::Many(flow_of(events)), &mut outputs);
                let last = events.last().map_or(i64::MIN, |event| event.watermark);
                queries.advance_within(last, Budget::one_part(*part), &mut outputs);
                for _ in 0..*turns {
                    queries.work(Budget::one_part(*part), &mut outputs);
                }
            }
            Step::Restart => {
                let snapshots = queries.snapshot().expect("state can be written");
                for snapshot in &snapshots {
                    let lines = seen.of_query.entry(snapshot.name.clone()).or_default();
                    lines.extend(snapshot.parts.iter().flat_map(|(number, part)| kept(*number, part)));
                }
                // What queries share is captured once.
                chain.take(&mut queries);
                chain.hold_against(&mut queries, "shared");
                let snapshots = std::mem::take(&mut chain).snapshots();
                let watermark = queries.watermark();
                queries = all(&running);
                for (name, outcome) in queries.restore(watermark, &snapshots) {
                    assert_eq!(outcome, Restored::Kept, "{name}");
                }
            }
            Step::Put(number) => {
                let statement = sql(*number).map(|sql| parse_statement(sql).expect("it can be read"));
                let outcomes = statement.map_or_else(|| Ok(Vec::new()), |statement| queries.put(statement));
                for (name, outcome) in outcomes.expect("it can be created") {
                    assert_eq!(outcome, Restored::Kept, "{name}");
                }
                if sql(*number).is_some() && !running.contains(number) {
                    running.push(*number);
                }
            }
            Step::Remove(number) => {
                // It says what was due.
                queries.work(Budget::unlimited(), &mut outputs);
                running.retain(|other| other != number);
                let _ = queries.remove(&format!("s{number}"));
            }
            Step::Peek => {
                for number in &running {
                    let name = format!("s{number}");
                    let (_, rows) = queries.peek(&name).expect("it can be seen").expect("it keeps rows");
                    let shown = |row| format!("stands for {}", Value::Object(row_to_json(&rows, row)));
                    let mut lines: Vec<String> = (0..rows.num_rows()).map(shown).collect();
                    lines.sort();
                    seen.of_query.entry(name).or_default().extend(lines);
                }
            }
        }
        for output in &outputs {
            let flow = output.rows.flow();
            let mut lines = Vec::new();
            for row in 0..flow.num_rows() {
                let line = Value::Object(row_to_json(&flow.batch, row)).to_string();
                if output.query.as_ref() == "too_late" {
                    // What comes too late belongs to the query for which it did.
                    let of = output.rows.text(0, row).unwrap_or_default().to_owned();
                    seen.of_query.entry(of).or_default().push(line);
                    continue;
                }
                let (met, cause) = (output.rows.watermark(row), output.rows.cause(row));
                lines.push(format!("{line} at {met} by {cause:?} of {}", flow.num_rows()));
            }
            // In one batch they stand in the order of their keys' numbers.
            lines.sort();
            let name = output.query.to_string();
            seen.of_query.entry(name).or_default().extend(lines);
        }
        seen.outputs.append(&mut outputs);
        let shared = queries.queries().iter().filter(|query| query.shared_window().is_some());
        seen.shared = seen.shared.max(shared.count());
        for query in queries.queries() {
            let (name, counters) = (query.name().to_string(), query.counters());
            if name == "too_late" {
                continue;
            }
            assert_eq!(query.broken(), None, "{name}");
            seen.keys.extend(query.keys().map(|keys| (name.clone(), keys.to_vec())));
            let footprint = query.footprint();
            seen.of_query.entry(name).or_default().push(format!(
                "took {} said {} refused {} amended {} keeps {} keys in {} windows",
                counters.rows_in,
                counters.rows_out,
                counters.late_rows,
                counters.amended_rows,
                footprint.keys,
                footprint.windows
            ));
        }
    }
    seen
}

/// Events of which some come too late for all that asks of them.
fn events(question: &Question, dice: &mut Dice) -> Vec<Event> {
    let mut events: Vec<Event> = (0..3).flat_map(|sequence| question.events(dice, sequence)).collect();
    for event in &mut events {
        if dice.below(8) == 0 {
            event.time -= dice.below(60) as i64 * SECOND;
        }
    }
    events
}

fn steps(question: &Question, queries: usize, in_parts: bool, dice: &mut Dice) -> Vec<Step> {
    let mut steps = Vec::new();
    let events = events(question, dice);
    let mut rest = events.as_slice();
    while !rest.is_empty() {
        let (taken, behind) = rest.split_at((1 + dice.below(7)).min(rest.len()));
        steps.push(match in_parts {
            true => Step::FeedInParts(taken.to_vec(), 1 + dice.below(3), dice.below(4)),
            false => Step::Feed(taken.to_vec()),
        });
        rest = behind;
        match dice.below(14) {
            0 | 1 => steps.push(Step::Restart),
            2 => steps.push(Step::Put(dice.below(queries))),
            3 => steps.push(Step::Remove(dice.below(queries))),
            4 => steps.push(Step::Peek),
            _ => {}
        }
    }
    let last = events[events.len() - 1].clone();
    let end = Event {
        met: last.watermark,
        watermark: i64::MAX / 4,
        ..last
    };
    steps.push(Step::Feed(vec![end]));
    steps
}

/// Whether any of the queries drawn from this seed shared a window.
fn check(seed: u64) -> bool {
    let mut dice = Dice::new(seed);
    let mut question = Question::draw(&mut dice);
    while question.has_outer() {
        question = Question::draw(&mut dice);
    }
    let is_alert = dice.below(4) == 0;
    let count = 2 + dice.below(4);
    let mut statements = vec![(0, question.named("s0", is_alert))];
    for number in 1..count {
        let sibling = question.sibling(&mut dice);
        statements.push((number, sibling.named(&format!("s{number}"), is_alert)));
    }
    let begun: Vec<usize> = (0..count).filter(|_| dice.below(5) > 0).collect();
    // Which rows are said before which others come depends on the turns: what is said last does not.
    let in_parts = dice.below(3) == 0;
    let steps = steps(&question, count, in_parts, &mut dice);
    let together = seen(&statements, &begun, &steps);
    for statement in &statements {
        let name = format!("s{}", statement.0);
        let alone = seen(std::slice::from_ref(statement), &begun, &steps);
        assert_eq!(alone.shared, 0);
        if in_parts {
            let last = |seen: &Seen| last_rows(&seen.outputs, &name, seen.keys.get(&name).map(Vec::as_slice));
            assert_eq!(
                last(&together),
                last(&alone),
                "USHER_SEED={seed}\n{statements:#?}\nbegun {begun:?} {steps:?}"
            );
            continue;
        }
        let (alone, shared) = (alone.of_query.get(&name), together.of_query.get(&name));
        if alone != shared {
            let (alone, shared) = (alone.cloned().unwrap_or_default(), shared.cloned().unwrap_or_default());
            let at = (0..).find(|at| alone.get(*at) != shared.get(*at)).unwrap_or(0);
            panic!(
                "USHER_SEED={seed}\n{statements:#?}\nbegun {begun:?} {steps:?}\n{name} line {at}\nalone\n{:#?}\nshared\n{:#?}",
                alone.get(at.saturating_sub(1)..(at + 2).min(alone.len())),
                shared.get(at.saturating_sub(1)..(at + 2).min(shared.len()))
            );
        }
    }
    together.shared > 0
}

#[test]
fn random_queries_that_share_their_windows_say_what_they_say_alone() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("USHER_SEED") {
        check(seed);
        return;
    }
    let seeds = number("USHER_CASES").unwrap_or(super::CASES as u64) / 40;
    let shared = (1..=seeds).filter(|seed| check(*seed)).count();
    assert!(shared as u64 > seeds / 2, "{shared} of {seeds} shared a window");
}
