//! Random expressions over random rows: a value by itself is what DataFusion's column has there, and fails where that
//! fails.

use std::cell::Cell;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StringArray};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::DFSchema;
use datafusion::execution::context::SessionContext;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::Computed;
use crate::streams::time_type;
use crate::value::Value;

const FIELDS: [(&str, Kind); 10] = [
    ("a", Kind::Int),
    ("b", Kind::Int),
    ("f", Kind::Float),
    ("g", Kind::Float),
    ("s", Kind::Text),
    ("t", Kind::Text),
    ("u", Kind::Time),
    ("v", Kind::Time),
    ("p", Kind::Bool),
    ("q", Kind::Bool),
];
/// For LIKE: with no special sign, with one at either end or both, and such as stand for something else.
const PATTERNS: [&str; 15] = [
    "'ZONE'", "'%oN%'", "'ä%'", "'a'", "''", "'a%'", "'%b'", "'%a%'", "'%'", "'%%'", "'_b'", "'a%b'", r"'\%a'",
    r"'a\%'", "'%图%'",
];
/// How deep an expression may be nested.
const DEPTH: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Int,
    Float,
    Text,
    Time,
    Bool,
}

/// Turns random bytes into choices; when they are used up, each choice is the first, so that all comes to an end.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn below(&mut self, count: usize) -> usize {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                usize::from(*first) % count
            }
            None => 0,
        }
    }

    fn of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.below(texts.len())]
    }

    fn column(&mut self, kind: Kind) -> String {
        let names: Vec<&str> = FIELDS
            .iter()
            .filter(|(_, of)| *of == kind)
            .map(|(name, _)| *name)
            .collect();
        self.of(&names).to_owned()
    }

    fn expression(&mut self, kind: Kind, depth: usize) -> String {
        if depth == 0 {
            return self.column(kind);
        }
        let depth = depth - 1;
        // Forms that every type has, then those of its own. The form is chosen before its parts, so that the bytes go
        // to the outermost first.
        match self.below(10) {
            0 => self.column(kind),
            1 => {
                let (condition, a) = (self.expression(Kind::Bool, depth), self.expression(kind, depth));
                format!("CASE WHEN {condition} THEN {a} END")
            }
            2 => {
                let (condition, a) = (self.expression(Kind::Bool, depth), self.expression(kind, depth));
                format!(
                    "CASE WHEN {condition} THEN {a} ELSE {} END",
                    self.expression(kind, depth)
                )
            }
            3 => format!(
                "coalesce({}, {})",
                self.expression(kind, depth),
                self.expression(kind, depth)
            ),
            _ => self.own_expression(kind, depth),
        }
    }

    fn own_expression(&mut self, kind: Kind, depth: usize) -> String {
        match (kind, self.below(6)) {
            (Kind::Int, 0) => self.of(&["0", "1", "-1", "9223372036854775807"]).to_owned(),
            (Kind::Int, 1) => format!("char_length({})", self.expression(Kind::Text, depth)),
            (Kind::Int, 2) => format!("CAST({} AS BIGINT)", self.expression(Kind::Float, depth)),
            (Kind::Float, 0) => self.of(&["0.0", "1.5", "-2.5", "1e300"]).to_owned(),
            (Kind::Float, 1) => format!("CAST({} AS DOUBLE)", self.expression(Kind::Int, depth)),
            (Kind::Float, 2) => {
                let function = self.of(&["ceil", "floor", "sqrt", "round", "abs"]);
                format!("{function}({})", self.expression(kind, depth))
            }
            (Kind::Int | Kind::Float | Kind::Time, 3) => {
                let function = self.of(&["greatest", "least"]);
                format!(
                    "{function}({}, {})",
                    self.expression(kind, depth),
                    self.expression(kind, depth)
                )
            }
            (Kind::Int | Kind::Float, _) => {
                let operator = self.of(&["+", "-", "*", "/", "%"]);
                format!(
                    "({} {operator} {})",
                    self.expression(kind, depth),
                    self.expression(kind, depth)
                )
            }
            (Kind::Text, 0) => self.of(&["'a'", "''", "'Zone'"]).to_owned(),
            (Kind::Text, 1 | 2) => {
                let function = self.of(&["upper", "lower", "trim"]);
                format!("{function}({})", self.expression(kind, depth))
            }
            (Kind::Text, _) => format!(
                "concat({}, {})",
                self.expression(kind, depth),
                self.expression(kind, depth)
            ),
            (Kind::Time, 0 | 1) => format!("({} + INTERVAL '90 minutes')", self.expression(kind, depth)),
            (Kind::Time, _) => format!("date_trunc('hour', {})", self.expression(kind, depth)),
            (Kind::Bool, 0) => format!("(NOT {})", self.expression(kind, depth)),
            (Kind::Bool, 1) => {
                let operator = self.of(&["AND", "OR"]);
                format!(
                    "({} {operator} {})",
                    self.expression(kind, depth),
                    self.expression(kind, depth)
                )
            }
            (Kind::Bool, 2) => {
                if self.below(2) == 1 {
                    let (asked, pattern) = (self.of(&["LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"]), self.of(&PATTERNS));
                    return format!("({} {asked} {pattern})", self.expression(Kind::Text, depth));
                }
                let asked = self.of(&["LIKE 'a%'", "IN ('a', 'b', 'c', 'd', 'e')", "IS NULL", "IS NOT NULL"]);
                format!("({} {asked})", self.expression(Kind::Text, depth))
            }
            (Kind::Bool, _) => {
                let kind = [Kind::Int, Kind::Float, Kind::Text, Kind::Time, Kind::Bool][self.below(5)];
                let operators = [
                    "=",
                    "<>",
                    "<",
                    "<=",
                    ">",
                    ">=",
                    "IS DISTINCT FROM",
                    "IS NOT DISTINCT FROM",
                ];
                let operator = self.of(&operators);
                format!(
                    "({} {operator} {})",
                    self.expression(kind, depth),
                    self.expression(kind, depth)
                )
            }
        }
    }

    fn value(&mut self, kind: Kind) -> Value {
        let choice = self.below(8);
        if choice == 7 {
            return Value::Null;
        }
        match kind {
            Kind::Int => Value::Int([0, 1, -1, 2, 7, i64::MAX, i64::MIN][choice]),
            Kind::Float => Value::Float([0.0, -0.0, 1.5, -2.5, f64::NAN, f64::INFINITY, 1e-300][choice]),
            Kind::Text => Value::Text(["", "a", "ab", "b", "Ä 图", " a ", "Zone"][choice].into()),
            Kind::Time => Value::Time(
                [
                    0,
                    1,
                    -1,
                    1_772_413_200_000_000,
                    1_772_413_200_000_001,
                    -86_400_000_000,
                    59_999_999,
                ][choice],
            ),
            Kind::Bool => Value::Bool(choice.is_multiple_of(2)),
        }
    }
}

fn schema() -> Schema {
    let field = |(name, kind): (&str, Kind)| {
        let data_type = match kind {
            Kind::Int => DataType::Int64,
            Kind::Float => DataType::Float64,
            Kind::Text => DataType::Utf8,
            Kind::Time => time_type(),
            Kind::Bool => DataType::Boolean,
        };
        Field::new(name, data_type, true)
    };
    Schema::new(FIELDS.map(field).to_vec())
}

#[test]
fn a_value_by_itself_is_what_the_column_has() {
    const CASES: u32 = 3_000;
    let compared = Cell::new(0);
    let bytes = prop::collection::vec(any::<u8>(), 40..160);
    TestRunner::new(ProptestConfig::with_cases(CASES))
        .run(&bytes, |bytes| {
            compared.set(compared.get() + u32::from(compare(&bytes)?));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(
        compared.get() > CASES / 2,
        "only {} of {CASES} could be compared",
        compared.get()
    );
}

/// One random expression over three random rows; false when there was nothing to compare.
fn compare(bytes: &[u8]) -> Result<bool, TestCaseError> {
    let failed = |error: datafusion::common::DataFusionError| TestCaseError::fail(error.to_string());
    let schema = schema();
    let columns = DFSchema::try_from(schema.clone()).map_err(failed)?;
    let mut choices = Choices(bytes);
    let mut row = || -> Vec<Value> { FIELDS.iter().map(|(_, kind)| choices.value(*kind)).collect() };
    let rows = [row(), row(), row()];
    let kind = [Kind::Bool, Kind::Int, Kind::Float, Kind::Text, Kind::Time][choices.below(5)];
    let sql = choices.expression(kind, DEPTH);

    let context = SessionContext::new();
    let logical = context.parse_sql_expr(&sql, &columns).map_err(failed)?;
    // Some constant parts fail while they are planned.
    let Ok(physical) = context.create_physical_expr(logical, &columns) else {
        return Ok(false);
    };
    let computed = Computed::new(physical, &schema).map_err(failed)?;
    let data_type = computed.data_type(&schema).map_err(failed)?;
    let values: Vec<_> = rows.iter().map(|row| computed.value(row)).collect();
    // Each row alone, then all of them in one batch.
    for of in [0..1, 1..2, 2..3, 0..3] {
        let arrays = schema.fields().iter().enumerate().map(|(index, field)| {
            let cells: Vec<_> = rows[of.clone()]
                .iter()
                .map(|row| row[index].to_array(field.data_type()))
                .collect();
            concat(&cells.iter().map(AsRef::as_ref).collect::<Vec<_>>()).expect("of one type")
        });
        let batch = RecordBatch::try_new(Arc::new(schema.clone()), arrays.collect()).expect("of their types");
        let fails = values[of.clone()].iter().any(Result::is_err);
        let column = match computed.column(&batch) {
            Ok(column) if !fails => column,
            Err(_) if fails => continue,
            column => {
                let values = &values[of];
                return Err(TestCaseError::fail(format!(
                    "{sql} over {rows:?}: column {column:?}, values {values:?}"
                )));
            }
        };
        for (at, value) in values[of.clone()].iter().flatten().enumerate() {
            // As text, since NaN is not equal to itself.
            prop_assert_eq!(
                format!("{:?}", value.to_array(&data_type)),
                format!("{:?}", column.slice(at, 1)),
                "{} over {:?}, row {} of {:?}",
                sql,
                rows,
                at,
                of
            );
        }
    }
    Ok(true)
}

/// What DataFusion makes of `regexp_like(s, 'seat|quiet|座|静', 'i')`, which the shipped rules ask, needs no batch either.
#[test]
fn words_in_letters_of_either_case_need_no_batch() {
    let schema = schema();
    let columns = DFSchema::try_from(schema.clone()).expect("it is one");
    let context = SessionContext::new();
    let asked = "s ILIKE '%seat%' OR s ILIKE '%quiet%' OR s ILIKE '%座%' OR s ILIKE '%静%'";
    let logical = context.parse_sql_expr(asked, &columns).expect("it is right");
    let physical = context.create_physical_expr(logical, &columns).expect("it is right");
    let computed = Computed::new(physical, &schema).expect("it can be computed");
    let written = format!("{:?}", computed.single);
    assert!(written.contains("any_case") && !written.contains("Stock"), "{written}");
    for (text, holds) in [
        ("a Quiet corner", true),
        ("SEATS", true),
        ("座位", true),
        ("silk road", false),
    ] {
        let row: Vec<Value> = FIELDS
            .iter()
            .map(|(name, _)| {
                if *name == "s" {
                    Value::Text(text.into())
                } else {
                    Value::Null
                }
            })
            .collect();
        let value = computed.value(&row).expect("it has one");
        assert_eq!(format!("{value:?}"), format!("{:?}", Value::Bool(holds)), "{text}");
    }
}

/// Patterns that are made ready once find in columns what Arrow's kernel finds.
#[test]
fn patterns_in_letters_of_either_case_find_in_columns_what_the_kernel_does() {
    let schema = Arc::new(Schema::new(vec![Field::new("s", DataType::Utf8, true)]));
    let columns = DFSchema::try_from(Arc::clone(&schema)).expect("it is one");
    let context = SessionContext::new();
    let texts: StringArray = [
        None,
        Some(""),
        Some("Seat"),
        Some("a quiet SEAT"),
        Some("seat\nseat"),
        Some("\u{212a}elvin"),
        Some("Ka\u{17f}e"),
        Some("\u{130}stanbul"),
        Some("静かな座席"),
    ]
    .into_iter()
    .collect();
    let rows = texts.len();
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(texts)]).expect("it is one");
    for pattern in [
        "%seat%", "seat", "seat%", "%seat", "k%", "%kase%", "i%", "%", "", "%座%", "s_at",
    ] {
        for not in ["", "NOT "] {
            let asked = format!("s {not}ILIKE '{pattern}'");
            let logical = context.parse_sql_expr(&asked, &columns).expect("it is right");
            let physical = context.create_physical_expr(logical, &columns).expect("it is right");
            let stock = physical.evaluate(&batch).and_then(|given| given.into_array(rows));
            let ours = Computed::new(physical, &schema).and_then(|computed| computed.column(&batch));
            assert_eq!(&ours.expect("ours"), &stock.expect("the kernel's"), "{asked}");
        }
    }
}
