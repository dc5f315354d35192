//! Random rows: each accumulator answers as DataFusion does, however rows are cut up, merged, kept and taken back.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::common::Result;
use datafusion::common::config::Dialect;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use proptest::prelude::*;

use super::GroupAccumulator;
use super::kind::AggregateKind;
use crate::bounded;
use crate::catalog::empty_table;
use crate::computed::{Computed, columns, values};
use crate::keys::Group;
use crate::picked::Picked;
use crate::planner::{Tables, session};
use crate::streams::time_type;
use crate::value::Value;

/// The calls that are tried, with what SQL says of each.
const CALLS: &[&str] = &[
    "count(f)",
    "count(*)",
    "sum(a)",
    "sum(f) FILTER (WHERE p)",
    "avg(f)",
    // Without NaN, of which DataFusion's group accumulators make whatever came after it.
    "min(f) FILTER (WHERE f <= 1000000.0)",
    "max(s)",
    "max(u) FILTER (WHERE a > 0)",
    "first_value(a)",
    "last_value(s)",
    "last_value(f) FILTER (WHERE p)",
    "first_value(s) IGNORE NULLS",
    "last_value(s) IGNORE NULLS",
    "first_value(a ORDER BY u)",
    "last_value(s ORDER BY u)",
    "first_value(s ORDER BY u DESC)",
    "last_value(p ORDER BY u DESC)",
    "last_value(u ORDER BY u NULLS FIRST)",
    "first_value(f ORDER BY u NULLS FIRST)",
    "last_value(a ORDER BY u) FILTER (WHERE p)",
    "last_value(s ORDER BY a)",
    "first_value(f ORDER BY a DESC NULLS LAST)",
    "bool_and(p)",
    "bool_or(p) FILTER (WHERE a > 0)",
    "var_samp(f)",
    "var_pop(a)",
    "stddev(f) FILTER (WHERE p)",
    "stddev_pop(f)",
    "count(DISTINCT a)",
    "count(DISTINCT s)",
    "count(DISTINCT u) FILTER (WHERE p)",
    "decayed_sum(f, u, INTERVAL '2 microseconds')",
    "decayed_sum(a, u, INTERVAL '1 hour') FILTER (WHERE p)",
    "rate(a, u)",
    "rate(f, u, INTERVAL '1 minute') FILTER (WHERE p)",
    "first_seen(u)",
    "last_seen(u) FILTER (WHERE p)",
    "approx_distinct(s)",
    "approx_distinct(u)",
    "approx_distinct(p)",
    "bit_and(a) FILTER (WHERE p)",
    "max(p)",
    "max(a ORDER BY u)",
    "max(p ORDER BY u)",
    "min(DISTINCT u)",
    "var_pop(DISTINCT a)",
    "percentile_cont(0.3) WITHIN GROUP (ORDER BY a)",
    "regr_slope(f, a)",
    "bit_xor(a)",
    "median(f)",
    "covar_pop(f, a)",
    "corr(f, a)",
    "sum(DISTINCT a)",
    "count(DISTINCT f)",
];
const GROUPS: u32 = 3;

fn schema() -> SchemaRef {
    let nullable = |name: &str, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        Field::new("g", DataType::Int64, false),
        nullable("a", DataType::Int64),
        nullable("f", DataType::Float64),
        nullable("s", DataType::Utf8),
        nullable("u", time_type()),
        nullable("p", DataType::Boolean),
    ]))
}

type Cells = (u32, Option<i64>, Option<f64>, Option<String>, Option<i64>, Option<bool>);

fn rows() -> impl Strategy<Value = Vec<Cells>> {
    let numbers = prop_oneof![
        8 => (-40..40_i64).prop_map(|quarters| quarters as f64 / 4.0),
        1 => Just(1e6),
        1 => Just(f64::NAN),
    ];
    let row = (
        0..GROUPS,
        prop::option::weighted(0.8, -3..4_i64),
        prop::option::weighted(0.8, numbers),
        prop::option::weighted(0.8, "[ab]{0,2}"),
        prop::option::weighted(0.8, 0..9_i64),
        prop::option::weighted(0.8, any::<bool>()),
    );
    prop::collection::vec(row, 1..40)
}

fn batch_of(rows: &[Cells]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| Some(i64::from(row.0))).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|row| row.3.as_deref()).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.4).collect::<TimestampMicrosecondArray>()),
        Arc::new(rows.iter().map(|row| row.5).collect::<BooleanArray>()),
    ];
    RecordBatch::try_new(schema(), columns).expect("the columns of the schema")
}

/// What a call needs to run, as the compiler makes it.
struct Call {
    kind: AggregateKind,
    args: Vec<Computed>,
    types: Vec<DataType>,
    filter: Option<Computed>,
}

impl Call {
    fn of(sql: &str) -> Result<Self> {
        let tables = Tables::from([("t".to_owned(), empty_table(&schema()) as _)]);
        let state = session(tables, true)?;
        let parsed = state.sql_to_statement(&format!("SELECT g, {sql} FROM t GROUP BY g"), &Dialect::Generic)?;
        let plan = futures::executor::block_on(state.statement_to_plan(parsed))?;
        let mut plan = state.optimize(&plan)?;
        while !matches!(plan, LogicalPlan::Aggregate(_)) {
            plan = plan.inputs()[0].clone();
        }
        let LogicalPlan::Aggregate(aggregate) = plan else {
            unreachable!("the loop looked")
        };
        let (input, props) = (aggregate.input.schema(), ExecutionProps::new());
        let planning = PhysicalPlanningContext::default();
        let lowered = LoweredAggregateBuilder::new(&aggregate.aggr_expr[0], input, input.as_arrow(), &props, &planning)
            .build()?;
        let orders = lowered.order_bys.iter().map(|order| Arc::clone(&order.expr));
        let args = lowered
            .aggregate
            .expressions()
            .into_iter()
            .chain(orders)
            .map(|expression| Computed::new(expression, input.as_arrow()))
            .collect::<Result<Vec<_>>>()?;
        let types = args
            .iter()
            .map(|arg| arg.data_type(input.as_arrow()))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            kind: AggregateKind::of(&lowered.aggregate, &types)?,
            args,
            types,
            filter: lowered
                .filter
                .map(|filter| Computed::new(filter, input.as_arrow()))
                .transpose()?,
        })
    }

    /// Whether panes of it may be merged when they part rows by `u`.
    fn is_mergeable(&self) -> bool {
        self.kind.create().is_mergeable() || matches!(self.kind, AggregateKind::Edge(_)) && self.is_by_time()
    }

    fn is_by_time(&self) -> bool {
        self.args.get(1).is_some_and(|order| order.to_string() == "u@4")
    }

    fn create(&self) -> Box<dyn GroupAccumulator> {
        self.kind.create()
    }

    /// Adds the rows of a batch in columns, or each by itself, to the groups that `group` says.
    fn add(
        &self,
        to: &mut dyn GroupAccumulator,
        batch: &RecordBatch,
        singly: bool,
        group: impl Fn(usize) -> Group,
    ) -> Result<()> {
        let groups: Vec<Group> = (0..batch.num_rows()).map(group).collect();
        if !singly {
            let mask = self.filter.as_ref().map(|filter| filter.mask(batch)).transpose()?;
            let rows = Picked::first(batch.num_rows());
            let rows = mask.map_or(rows.clone(), |mask| rows.filtered(&mask));
            return to.update(&groups, &rows, &columns(&self.args, batch)?);
        }
        for (row, group) in groups.iter().enumerate() {
            let cells: Vec<Value> = batch.columns().iter().map(|column| Value::at(column, row)).collect();
            let is_taken = match &self.filter {
                Some(filter) => filter.holds(&cells)?,
                None => true,
            };
            if is_taken {
                let args: Vec<Value> = values(&self.args, &cells)?;
                to.update_one(*group, &args, &self.types)?;
            }
        }
        Ok(())
    }
}

fn group_at(batch: &RecordBatch, row: usize) -> Group {
    batch.column(0).as_primitive::<Int64Type>().value(row) as Group
}

/// The pane of a row: three times to a pane, those without a time in the first or, as they sort, the last.
fn pane_at(batch: &RecordBatch, row: usize) -> Option<i64> {
    let times = batch.column(4).as_primitive::<TimestampMicrosecondType>();
    batch.column(4).is_valid(row).then(|| times.value(row) / 3)
}

type Answers = BTreeMap<Group, Value>;

/// Answers by group, read in columns and one by one, which must be the same.
fn read(accumulator: &mut dyn GroupAccumulator, groups: &[Group]) -> Result<Answers> {
    let column = accumulator.evaluate(groups)?;
    let mut answers = BTreeMap::new();
    for (row, group) in groups.iter().enumerate() {
        let (single, listed) = (accumulator.value(*group)?, Value::at(&column, row));
        assert!(
            is_near(&single, &listed),
            "{single:?} by itself and {listed:?} in a column"
        );
        answers.insert(*group, single);
    }
    Ok(answers)
}

fn are_near(a: &Answers, b: &Answers) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(ours, theirs)| ours.0 == theirs.0 && is_near(ours.1, theirs.1))
}

/// Whether two values are the same, floats so far that the order of additions does not show.
fn is_near(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => {
            a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
        }
        (a, b) => format!("{a:?}") == format!("{b:?}"),
    }
}

/// What DataFusion says of each group.
fn expected(calls: &[&str], batch: &RecordBatch) -> Vec<Answers> {
    let sql = format!("SELECT g, {} FROM t GROUP BY g", named(calls));
    let recorded = BTreeMap::from([("t".to_owned(), (schema(), vec![batch.clone()]))]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (_, batches) = runtime
        .block_on(bounded::run(&sql, &recorded))
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut answers = vec![BTreeMap::new(); calls.len()];
    for batch in &batches {
        for row in 0..batch.num_rows() {
            for (index, answers) in answers.iter_mut().enumerate() {
                answers.insert(group_at(batch, row), Value::at(batch.column(index + 1), row));
            }
        }
    }
    answers
}

fn named(calls: &[&str]) -> String {
    let named: Vec<String> = calls
        .iter()
        .enumerate()
        .map(|(index, call)| format!("{call} AS c{index}"))
        .collect();
    named.join(", ")
}

/// The rows of a batch at which `is_in` holds.
fn part(batch: &RecordBatch, is_in: impl Fn(usize) -> bool) -> RecordBatch {
    let mask: BooleanArray = (0..batch.num_rows()).map(|row| Some(is_in(row))).collect();
    arrow::compute::filter_record_batch(batch, &mask).expect("a mask of the batch's length")
}

fn check(sql: &str, call: &Call, batch: &RecordBatch, cuts: &[(usize, bool)], want: &Answers) {
    let groups: Vec<Group> = want.keys().copied().collect();
    let compare = |how: &str, got: Result<Answers>| {
        let got = got.unwrap_or_else(|error| panic!("{sql} {how}: {error}"));
        assert!(
            are_near(&got, want),
            "{sql} {how}: {got:?}, where DataFusion has {want:?}, of {batch:?}"
        );
    };
    compare("in parts", in_parts(call, batch, cuts, &groups, false));
    compare("kept and taken back", in_parts(call, batch, cuts, &groups, true));
    compare("after other rows that were cleared", reused(call, batch, &groups));
    if call.is_mergeable() {
        compare("merged from panes", merged(call, batch, &groups));
    }
    compare("absorbed", absorbed(call, batch, &groups));
}

/// Adds parts of these lengths, in columns or singly; kept and taken back after each, when asked for.
fn in_parts(
    call: &Call,
    batch: &RecordBatch,
    cuts: &[(usize, bool)],
    groups: &[Group],
    keeps: bool,
) -> Result<Answers> {
    let mut accumulator = call.create();
    let (mut from, mut cuts) = (0, cuts.iter().cycle());
    while let (true, Some((length, singly))) = (from < batch.num_rows(), cuts.next()) {
        let piece = batch.slice(from, (*length).min(batch.num_rows() - from));
        call.add(accumulator.as_mut(), &piece, *singly, |row| group_at(&piece, row))?;
        from += piece.num_rows();
        read(accumulator.as_mut(), groups)?;
        if keeps {
            let state = accumulator.state(groups)?;
            assert_eq!(state.len(), accumulator.state_width());
            let before = read(accumulator.as_mut(), groups)?;
            accumulator = call.create();
            accumulator.restore(groups, &state)?;
            let after = read(accumulator.as_mut(), groups)?;
            assert!(are_near(&after, &before), "{after:?} is restored, of {before:?}");
        }
    }
    read(accumulator.as_mut(), groups)
}

fn reused(call: &Call, batch: &RecordBatch, groups: &[Group]) -> Result<Answers> {
    let mut accumulator = call.create();
    call.add(accumulator.as_mut(), batch, false, |row| row as Group % GROUPS)?;
    accumulator.clear(&(0..GROUPS).collect::<Vec<_>>());
    call.add(accumulator.as_mut(), batch, true, |row| group_at(batch, row))?;
    let answers = read(accumulator.as_mut(), groups)?;
    let nothing = read(call.create().as_mut(), groups)?;
    assert!(are_near(&answers, &nothing) || accumulator.bytes() > 0);
    Ok(answers)
}

/// Panes by time, later ones first to come, merged in the order of time.
fn merged(call: &Call, batch: &RecordBatch, groups: &[Group]) -> Result<Answers> {
    let mut panes: BTreeMap<Option<i64>, Box<dyn GroupAccumulator>> = BTreeMap::new();
    for pane in [Some(2), Some(0), None, Some(1)] {
        let rows = part(batch, |row| pane_at(batch, row) == pane);
        let mut accumulator = call.create();
        call.add(accumulator.as_mut(), &rows, false, |row| group_at(&rows, row))?;
        panes.insert(pane, accumulator);
    }
    let mut whole = call.create();
    for _ in 0..2 {
        whole = call.create(); // a pane is read again for the next window
        for pane in panes.values() {
            whole.merge(pane.as_ref(), groups)?;
        }
    }
    read(whole.as_mut(), groups)
}

/// Three groups for one, by time, that are bridged afterwards.
fn absorbed(call: &Call, batch: &RecordBatch, groups: &[Group]) -> Result<Answers> {
    let mut accumulator = call.create();
    let third = |row| GROUPS * pane_at(batch, row).unwrap_or(0) as Group;
    call.add(accumulator.as_mut(), batch, false, |row| {
        group_at(batch, row) + third(row)
    })?;
    for group in 0..GROUPS {
        for from in [group + GROUPS, group + 2 * GROUPS] {
            accumulator.absorb(group, from)?;
            accumulator.clear(&[from]);
        }
    }
    read(accumulator.as_mut(), groups)
}

#[test]
fn a_group_takes_over_what_another_holds_in_their_order() {
    let row = |group, number| (group, Some(number), None, None, Some(number), None);
    let batch = batch_of(&[row(0, 1), row(1, 3), row(0, 2), row(1, 4)]);
    for (sql, want) in [
        ("array_agg(a)", "[1, 2, 3, 4]"),
        ("array_agg(a ORDER BY u DESC)", "[4, 3, 2, 1]"),
        ("nth_value(a, 3 ORDER BY u)", "3"),
        ("string_agg(CAST(a AS VARCHAR), ' ' ORDER BY u)", "1 2 3 4"),
        ("first_value(a)", "1"),
        ("last_value(a)", "4"),
    ] {
        let call = Call::of(sql).expect("it can be planned");
        assert!(
            !call.kind.create().is_mergeable(),
            "{sql} hangs on the order of arrival"
        );
        let mut accumulator = call.create();
        call.add(accumulator.as_mut(), &batch, false, |row| group_at(&batch, row))
            .and_then(|()| accumulator.absorb(0, 1))
            .and_then(|()| accumulator.absorb(2, 0)) // the first to come into an empty one
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        let answer = accumulator.evaluate(&[2]).expect("it answers");
        let answer = arrow::util::display::array_value_to_string(&answer, 0).expect("it can be shown");
        assert_eq!(answer, want, "{sql}");
    }
}

#[test]
fn what_comes_after_a_restart_has_come_later() {
    let row = |number| (0, Some(number), None, None, Some(1), None);
    for (sql, want) in [
        ("first_value(a)", 1),
        ("last_value(a)", 3),
        ("first_value(a ORDER BY u)", 1),
        ("last_value(a ORDER BY u)", 1),
    ] {
        // Two calls, as of two processes.
        let [before, after] = [sql, sql].map(|sql| Call::of(sql).expect("it can be planned"));
        let mut accumulator = before.create();
        let batch = batch_of(&[row(1), row(2)]);
        before
            .add(accumulator.as_mut(), &batch, false, |_| 0)
            .expect("it takes rows");
        let state = accumulator.state(&[0]).expect("it can be kept");
        let mut accumulator = after.create();
        accumulator.restore(&[0], &state).expect("it can be taken back");
        // One by itself in each of two groups, which are bridged.
        let batch = batch_of(&[row(3)]);
        after
            .add(accumulator.as_mut(), &batch, true, |_| 1)
            .expect("it takes rows");
        accumulator.absorb(0, 1).expect("it takes over");
        let answer = accumulator.value(0).expect("it answers");
        assert!(is_near(&answer, &Value::Int(want)), "{sql} is {answer:?}");
    }
}

#[test]
fn an_order_by_that_says_nothing_is_passed_over() {
    let row = |number| (0, Some(number), None, None, Some(number), None);
    let batch = batch_of(&[row(1), row(3), row(3)]);
    for (sql, want) in [
        ("sum(DISTINCT a ORDER BY a)", "4"),
        ("count(a ORDER BY s)", "3"),
        ("bit_or(a ORDER BY u)", "3"),
    ] {
        let call = Call::of(sql).expect("it can be planned");
        let mut accumulator = call.create();
        call.add(accumulator.as_mut(), &batch, false, |_| 0)
            .expect("it takes rows");
        let state = accumulator.state(&[0]).expect("it can be kept");
        let mut accumulator = call.create();
        accumulator.restore(&[0], &state).expect("it can be taken back");
        let answer = accumulator.evaluate(&[0]).expect("it answers");
        let answer = arrow::util::display::array_value_to_string(&answer, 0).expect("it can be shown");
        assert_eq!(answer, want, "{sql}");
    }
}

#[test]
fn what_datafusion_has_no_accumulator_for_is_refused_before_a_row_comes() {
    assert!(Call::of("stddev(DISTINCT a)").is_err());
}

#[test]
fn accumulators_answer_as_datafusion_does() {
    let calls: Vec<Call> = CALLS
        .iter()
        .map(|sql| Call::of(sql).unwrap_or_else(|error| panic!("{sql}: {error}")))
        .collect();
    let cuts = prop::collection::vec((1..12_usize, any::<bool>()), 1..5);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(25));
    let outcome = runner.run(&(rows(), cuts), |(rows, cuts)| {
        let batch = batch_of(&rows);
        for ((sql, call), want) in CALLS.iter().zip(&calls).zip(expected(CALLS, &batch)) {
            check(sql, call, &batch, &cuts, &want);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
