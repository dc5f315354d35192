//! The manual's examples are tests: each statement plans, and says of the rows it shows what the page says it says.
//!
//! A block of SQL may be followed by blocks of what it is fed (`input`), what its last statement says (`says`: the last
//! row of each key; `says each`: every row), and what it is warned of (`warning`). A block of statements that are
//! refused is followed by their messages (`error`), a line each. A statement may read those that stand before it on its
//! page. `USHER_BLESS` writes what was found into the pages.

mod input;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;

use serde_json::Value;

use self::input::{Event, Input, NineToNine};
use crate::bounded::{self, Recorded};
use crate::catalog::Relation;
use crate::civil_time::OpeningHours;
use crate::flow::Flow;
use crate::query::Output;
use crate::query_set::QuerySet;
use crate::row::Rows;
use crate::rows::row_to_json;
use crate::statement::{Statement, parse_statements};
use crate::streams::{LATE, STREAMS, stream_schema};
use crate::watermark::WatermarkOptions;

/// The defaults of `config/usher.toml`.
const TIME: WatermarkOptions = WatermarkOptions {
    delay_us: 2_000_000,
    idle_us: 10_000_000,
};
/// The query that reads what came too late, beside those of an example.
const TOLD_LATE: &str = "CREATE QUERY told_late AS SELECT * FROM late";

/// A fenced block of a page.
#[derive(Debug)]
struct Block {
    /// What stands behind the fence, as in `sql refused`.
    kind: String,
    /// The line of the fence, from 1.
    line: usize,
    text: String,
}

/// An example: SQL, and what stands below it.
struct Example<'a> {
    sql: &'a Block,
    below: &'a [Block],
}

impl<'a> Example<'a> {
    fn block(&self, kind: &str) -> Option<&'a Block> {
        self.below
            .iter()
            .find(|block| block.kind.split(' ').next() == Some(kind))
    }
}

/// What an example is found to say where the page says something else.
struct Finding {
    line: usize,
    expected: String,
    found: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_open = false;
    for (number, line) in (1..).zip(page.lines()) {
        match line.strip_prefix("```") {
            Some(kind) if !is_open => {
                is_open = true;
                blocks.push(Block {
                    kind: kind.to_owned(),
                    line: number,
                    text: String::new(),
                });
            }
            Some(_) => is_open = false,
            None => {
                if let Some(block) = blocks.last_mut().filter(|_| is_open) {
                    block.text += line;
                    block.text.push('\n');
                }
            }
        }
    }
    blocks
}

fn is_sql(block: &Block) -> bool {
    block.kind.split(' ').next() == Some("sql")
}

fn examples(blocks: &[Block]) -> Vec<Example<'_>> {
    let starts: Vec<usize> = (0..blocks.len()).filter(|index| is_sql(&blocks[*index])).collect();
    let ends = starts.iter().skip(1).copied().chain([blocks.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| Example {
            sql: &blocks[*start],
            below: &blocks[start + 1..end],
        })
        .collect()
}

fn query_set(statements: &[Statement], input: &Input) -> Result<QuerySet, String> {
    let mut queries = QuerySet::new();
    queries.set_opening_hours(Arc::new(NineToNine));
    for (table, versions) in &input.tables {
        for (from, rows) in versions {
            queries.set_reference_from(table, rows.clone(), *from);
        }
    }
    for statement in statements {
        queries.create(statement.clone()).map_err(|error| error.to_string())?;
    }
    Ok(queries)
}

/// Feeds events so many at a time and lets time run out.
fn feed(statements: &[Statement], input: &Input, size: usize) -> Result<(QuerySet, Vec<Output>), String> {
    let mut queries = query_set(statements, input)?;
    let mut outputs = Vec::new();
    for batch in input.events.chunks(size.max(1)) {
        for stream in STREAMS {
            let of_stream: Vec<&Event> = batch.iter().filter(|event| event.stream == stream).collect();
            let Some(first) = of_stream.first() else { continue };
            let rows = concat_batches(&first.row.schema(), of_stream.iter().map(|event| &event.row));
            let rows = rows.map_err(|error| error.to_string())?;
            let flow = Flow {
                causes: Arc::new(rows.column(0).as_string::<i32>().clone()),
                batch: rows,
                watermarks: Arc::new(of_stream.iter().map(|event| event.met).collect::<Int64Array>()),
            };
            queries.push(stream, &Rows::Many(flow), &mut outputs);
        }
        if let Some(last) = batch.last() {
            queries.advance(last.left, &mut outputs);
        }
    }
    queries.advance(i64::MAX / 4, &mut outputs);
    match queries
        .queries()
        .iter()
        .find_map(|query| Some((query.name(), query.broken()?)))
    {
        Some((name, reason)) => Err(format!("{name} has stopped: {reason}")),
        None => Ok((queries, outputs)),
    }
}

/// Every row that a query said, as JSON, in the order in which it was said.
fn said(outputs: &[Output], name: &str) -> Vec<String> {
    let of_query = outputs.iter().filter(|output| output.query.as_ref() == name);
    of_query
        .flat_map(|output| {
            let flow = output.rows.flow();
            (0..flow.num_rows())
                .map(move |row| text(&flow.batch, row))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The last row of each key in the order of keys; every row as it was said where rows stand for themselves.
fn last_said(queries: &QuerySet, outputs: &[Output], name: &str) -> Vec<String> {
    let Some(keys) = queries.get(name).and_then(|query| query.keys()) else {
        return said(outputs, name);
    };
    let mut last: BTreeMap<Vec<String>, String> = BTreeMap::new();
    for output in outputs.iter().filter(|output| output.query.as_ref() == name) {
        let flow = output.rows.flow();
        for row in 0..flow.num_rows() {
            let key = keys.iter().map(|key| output.rows.json(*key, row).to_string()).collect();
            last.insert(key, text(&flow.batch, row));
        }
    }
    last.into_values().collect()
}

fn text(batch: &RecordBatch, row: usize) -> String {
    Value::Object(row_to_json(batch, row)).to_string()
}

/// What bounded runs say over the events that were not late; each statement may read those before it.
fn bounded_rows(statements: &[Statement], input: &Input, late: &BTreeSet<String>) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let mut recorded = Recorded::new();
    for stream in STREAMS {
        let schema = stream_schema(stream).ok_or("a stream has columns")?;
        let events = input
            .events
            .iter()
            .filter(|event| event.stream == stream && !late.contains(&event.id));
        recorded.insert(
            stream.to_owned(),
            (schema, events.map(|event| event.row.clone()).collect()),
        );
    }
    for (table, versions) in &input.tables {
        let Some((_, rows)) = versions.last() else { continue };
        recorded.insert((*table).to_owned(), (rows.schema(), vec![rows.clone()]));
    }
    let opening: Arc<dyn OpeningHours> = Arc::new(NineToNine);
    let mut rows = Vec::new();
    for statement in statements {
        let (schema, batches) = runtime
            .block_on(bounded::run_with(&statement.sql, &recorded, &opening))
            .map_err(|error| format!("{}, bounded: {error}", statement.name))?;
        rows = batches
            .iter()
            .flat_map(|batch| (0..batch.num_rows()).map(move |row| text(batch, row)))
            .collect();
        recorded.insert(statement.name.clone(), (schema, batches));
    }
    Ok(rows)
}

/// Whether a bounded run answers for these: not where rows that are said again are read as they come, nor for what was
/// late.
fn has_bounded_form(queries: &QuerySet) -> bool {
    let mut sources = queries.queries().iter().flat_map(|query| query.sources());
    sources.all(
        |source| match queries.catalog().get(source).map(|entry| &entry.relation) {
            Some(Relation::Output { amends, .. }) => !amends,
            _ => source != LATE,
        },
    )
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

/// The statements of `before` that these read, be it through others, in their order; then these.
fn with_what_they_read(before: &[Statement], statements: Vec<Statement>) -> Vec<Statement> {
    let mut taken = statements;
    for earlier in before.iter().rev() {
        let is_read = taken.iter().any(|statement| {
            let mut words = statement.select.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.any(|word| word == earlier.name)
        });
        if is_read {
            taken.insert(0, earlier.clone());
        }
    }
    taken
}

/// The rows that a `says` block should have.
fn says(statements: &[Statement], input: &Input, each: bool) -> Result<Vec<String>, String> {
    let told_late = parse_statements(TOLD_LATE).map_err(|error| error.to_string())?;
    let last = statements.last().ok_or("there is no statement")?.name.as_str();
    let all = [statements, told_late.as_slice()].concat();
    let (queries, outputs) = feed(&all, input, 1)?;
    let late: Vec<String> = said(&outputs, "told_late");
    let rows = last_said(&queries, &outputs, last);
    if has_bounded_form(&query_set(statements, input)?) {
        let late_ids = late
            .iter()
            .filter_map(|row| {
                Some(
                    serde_json::from_str::<Value>(row).ok()?["event_id"]
                        .as_str()?
                        .to_owned(),
                )
            })
            .collect();
        let continuous = sorted(rows.clone());
        // A bounded run reads a table as it is now.
        let has_past = input.tables.values().any(|versions| versions.len() > 1);
        if !has_past {
            let bounded = sorted(bounded_rows(statements, input, &late_ids)?);
            if bounded != continuous {
                return Err(format!(
                    "bounded it says\n{}\nand continuously\n{}",
                    bounded.join("\n"),
                    continuous.join("\n")
                ));
            }
        }
        let (queries, outputs) = feed(&all, input, input.events.len())?;
        let whole = sorted(last_said(&queries, &outputs, last));
        if whole != continuous {
            return Err(format!("fed whole it says\n{}", whole.join("\n")));
        }
    }
    let rows = if each { said(&outputs, last) } else { rows };
    Ok(rows
        .into_iter()
        .chain(late.into_iter().map(|row| format!("late: {row}")))
        .collect())
}

/// Rows as a page has them, with the blanks of JSON taken out.
fn as_rows(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| {
            let (prefix, json) = match line.strip_prefix("late: ") {
                Some(json) => ("late: ", json),
                None => ("", line),
            };
            match serde_json::from_str::<Value>(json) {
                Ok(value) => format!("{prefix}{value}"),
                Err(_) => line.to_owned(),
            }
        })
        .collect()
}

fn compare(block: &Block, found: &[String], findings: &mut Vec<Finding>) {
    let expected = as_rows(&block.text);
    if expected != found {
        findings.push(Finding {
            line: block.line,
            expected: expected.join("\n"),
            found: found.join("\n"),
        });
    }
}

/// Runs one example; its statements are added to `before` for those below it.
fn check(example: &Example<'_>, before: &mut Vec<Statement>) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    let input = Input::read(example.block("input").map_or("", |block| block.text.as_str()))?;
    if example.sql.kind == "sql refused" {
        let block = example
            .block("error")
            .ok_or("what is refused has its message below it")?;
        let found = match parse_statements(&example.sql.text) {
            Err(error) => vec![error.to_string()],
            Ok(statements) => {
                let mut found = Vec::new();
                for statement in statements {
                    let mut read = with_what_they_read(before, vec![statement]);
                    let Some(statement) = read.pop() else { continue };
                    match query_set(&read, &input)?.check(statement) {
                        Ok(query) => return Err(format!("{} is not refused", query.name())),
                        Err(error) => found.push(error.to_string()),
                    }
                }
                found
            }
        };
        compare(block, &found, &mut findings);
        return Ok(findings);
    }
    let statements = parse_statements(&example.sql.text).map_err(|error| error.to_string())?;
    let count = statements.len();
    let all = with_what_they_read(before, statements);
    let queries = query_set(&all, &input)?;
    let warnings: Vec<String> = queries
        .queries()
        .iter()
        .rev()
        .take(count)
        .flat_map(|query| query.warnings().iter().map(ToString::to_string))
        .collect();
    match example.block("warning") {
        Some(block) => compare(block, &warnings, &mut findings),
        None if !warnings.is_empty() => return Err(format!("it is warned of: {}", warnings.join("\n"))),
        None => {}
    }
    match (example.block("input"), example.block("says")) {
        (Some(_), Some(block)) => {
            let found = says(&all, &input, block.kind == "says each")?;
            compare(block, &found, &mut findings);
        }
        (None, None) => {}
        _ => return Err("rows go in and rows come out: `input` and `says` stand together".to_owned()),
    }
    before.extend(all.into_iter().rev().take(count).rev());
    Ok(findings)
}

fn pages() -> Vec<PathBuf> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let chapters = std::fs::read_dir(docs.join("sql")).expect("the manual has chapters");
    let mut pages: Vec<PathBuf> = chapters
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .chain([docs.join("SQL.md")])
        .collect();
    pages.sort();
    pages
}

/// Writes what was found into a page, the last block first so that lines keep their numbers.
fn bless(path: &Path, page: &str, findings: &[Finding]) {
    let mut lines: Vec<&str> = page.lines().collect();
    for finding in findings.iter().rev() {
        let from = finding.line;
        let to = (from..lines.len())
            .find(|line| lines[*line] == "```")
            .unwrap_or(lines.len());
        lines.splice(from..to, finding.found.lines());
    }
    std::fs::write(path, lines.join("\n") + "\n").expect("the page can be written");
}

#[test]
fn each_example_of_the_manual_says_what_stands_below_it() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for path in pages() {
        let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path
            .strip_prefix(env!("CARGO_MANIFEST_DIR"))
            .unwrap_or(&path)
            .display()
            .to_string();
        let name = name.trim_start_matches("../");
        let (blocks, mut before, mut found) = (blocks(&page), Vec::new(), Vec::new());
        let known = ["sql", "input", "says", "warning", "error", "", "sh", "json", "toml"];
        for block in &blocks {
            if !block.kind.split(' ').next().is_some_and(|kind| known.contains(&kind)) {
                wrong.push(format!("{name}:{}: there is no block '{}'", block.line, block.kind));
            }
        }
        for example in examples(&blocks) {
            count += 1;
            match check(&example, &mut before) {
                Ok(findings) => found.extend(findings),
                Err(error) => wrong.push(format!("{name}:{}: {error}", example.sql.line)),
            }
        }
        found.sort_by_key(|finding| finding.line);
        if std::env::var_os("USHER_BLESS").is_some() {
            bless(&path, &page, &found);
            continue;
        }
        wrong.extend(found.iter().map(|finding| {
            let Finding { line, expected, found } = finding;
            format!("{name}:{line}: the page has\n{expected}\nand it is\n{found}")
        }));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(count > 0, "the manual has no examples");
}
