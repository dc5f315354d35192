//! Compiles an optimised plan into a pipeline of operators, or says what in it can't run continuously.

mod absence;
mod grouping;
mod interval_join;
mod reference_join;

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{self, Expr, ExprSchemable, LogicalPlan, lit};
use datafusion::physical_expr::planner::create_physical_expr;

use crate::absent::AbsentNode;
use crate::aggregate::WindowPlan;
use crate::assign_windows::AssignWindows;
use crate::below::{Below, unaliased, window_of};
use crate::catalog::{Catalog, Relation};
use crate::computed::Computed;
use crate::error::{Position, QueryError, find_word, from_datafusion};
use crate::match_recognize::{MatchNode, MatchRecognize, Prepared, refuse_what_cannot_stream};
use crate::operator::{Filter, Project, Relabel};
use crate::pipeline::Pipeline;
use crate::statement::{Emit, Statement, StatementKind};
use crate::window::{AMENDED, Assigner, FINAL, WindowNode};

/// A compiled SELECT.
pub(crate) struct Compiled {
    pub(crate) pipeline: Pipeline,
    pub(crate) schema: SchemaRef,
    /// Which columns tell rows apart that amend each other; `None` where each row stands for itself.
    pub(crate) keys: Option<Vec<usize>>,
    /// How far times of output rows may lie behind the watermark, microseconds: as far as those of the input, and the
    /// what windows and joins wait for beside that.
    pub(crate) lag_us: i64,
    pub(crate) has_state: bool,
    /// Whether a row that was said may be said again with other values.
    pub(crate) amends: bool,
    pub(crate) emit: Emit,
    /// The reference tables it looks up.
    pub(crate) references: Vec<String>,
    /// Those of them that it looks up as they were at some time.
    pub(crate) versions_of: Vec<String>,
    /// Whether it reads what people were sent, or what comes of that.
    pub(crate) follows: bool,
    /// What its author should know before it runs.
    pub(crate) warnings: Vec<QueryError>,
}

/// Compiles the plan of `statement`; `keeps_causes` when an alert reads it.
pub(crate) fn compile(
    plan: &LogicalPlan,
    statement: &Statement,
    catalog: &Catalog,
    keeps_causes: bool,
) -> Result<Compiled, QueryError> {
    let mut compiler = Compiler {
        text: statement.placed_select(),
        statement,
        catalog,
        keeps_causes,
        props: ExecutionProps::new(),
        pipeline: Pipeline::default(),
        source_lag_us: 0,
        has_state: false,
        windowed: false,
        running: false,
        amends: false,
        references: Vec::new(),
        versions_of: Vec::new(),
        warnings: Vec::new(),
    };
    refuse_what_cannot_stream(plan, statement, catalog)?;
    compiler.node(plan)?;
    let follows = compiler.refuse_two_times(plan)?;
    let emit = statement
        .emit
        .unwrap_or(if compiler.windowed { Emit::Close } else { Emit::Update });
    let keys = if compiler.has_state { key_columns(plan) } else { None };
    let waits_us = compiler.pipeline.lag_us();
    Ok(Compiled {
        pipeline: compiler.pipeline,
        schema: Arc::new(plan.schema().as_arrow().clone()),
        keys,
        // A sum and not the greatest: the windows end that much later than the query's own watermark is behind.
        lag_us: compiler.source_lag_us.saturating_add(waits_us),
        has_state: compiler.has_state,
        amends: compiler.amends,
        emit,
        references: compiler.references,
        versions_of: compiler.versions_of,
        follows,
        warnings: compiler.warnings,
    })
}

struct Compiler<'a> {
    /// The SELECT, in which places are those of the whole text.
    text: String,
    statement: &'a Statement,
    catalog: &'a Catalog,
    keeps_causes: bool,
    props: ExecutionProps,
    pipeline: Pipeline,
    /// How far times of the queries it reads may lie behind the watermark.
    source_lag_us: i64,
    has_state: bool,
    windowed: bool,
    running: bool,
    /// Whether what was compiled so far says rows again.
    amends: bool,
    references: Vec<String>,
    versions_of: Vec<String>,
    warnings: Vec<QueryError>,
}

impl Compiler<'_> {
    fn at(&self, word: &str) -> Position {
        find_word(&self.text, word, self.statement.at).unwrap_or(self.statement.at)
    }

    fn wrap<T>(&self, result: Result<T>) -> Result<T, QueryError> {
        result.map_err(|error| from_datafusion(&error, self.statement.at, &self.text))
    }

    fn physical(&self, expr: &Expr, schema: &DFSchema) -> Result<Computed, QueryError> {
        let physical = create_physical_expr(expr, schema, &self.props, &PhysicalPlanningContext::default());
        self.wrap(physical.and_then(|physical| Computed::new(physical, schema.as_arrow())))
    }

    /// What of a row must be equal to find another, as bytes are: minus nothing is nothing.
    fn join_key(&self, expr: &Expr, schema: &DFSchema) -> Result<(Computed, DataType), QueryError> {
        let data_type = self.wrap(expr.get_type(schema))?;
        let key = if data_type.is_floating() {
            // -0.0 + 0.0 is 0.0, and every other number stays what it was.
            let nothing = self.wrap(ScalarValue::new_zero(&data_type))?;
            self.physical(&(expr.clone() + lit(nothing)), schema)?
        } else {
            self.physical(expr, schema)?
        };
        Ok((key, data_type))
    }

    fn filter_over(&mut self, child: usize, filter: &logical_expr::Filter) -> Result<usize, QueryError> {
        let predicate = self.physical(&filter.predicate, filter.input.schema())?;
        Ok(self.pipeline.add(Box::new(Filter::new(predicate)), &[child]))
    }

    fn projection_over(&mut self, child: usize, projection: &logical_expr::Projection) -> Result<usize, QueryError> {
        let expressions = projection
            .expr
            .iter()
            .map(|expr| self.physical(expr, projection.input.schema()))
            .collect::<Result<Vec<_>, _>>()?;
        let schema = Arc::new(projection.schema.as_arrow().clone());
        Ok(self.pipeline.add(Box::new(Project::new(expressions, schema)), &[child]))
    }

    fn node(&mut self, plan: &LogicalPlan) -> Result<usize, QueryError> {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => self.node(&alias.input),
            LogicalPlan::TableScan(scan) => self.leaf(scan),
            LogicalPlan::Filter(filter) => {
                let amends = self.amends;
                let child = self.node(&filter.input)?;
                if takes_final(&filter.predicate) {
                    self.amends = amends;
                }
                self.filter_over(child, filter)
            }
            LogicalPlan::Projection(projection) => {
                let child = self.node(&projection.input)?;
                self.projection_over(child, projection)
            }
            LogicalPlan::Extension(extension) if extension.node.as_any().is::<WindowNode>() => {
                let window = window_of(plan).expect("the guard looked");
                self.assign_windows(window, plan)
            }
            LogicalPlan::Extension(extension) if extension.node.as_any().is::<AbsentNode>() => {
                let node = AbsentNode::of(plan).expect("the guard looked");
                self.absence(node, plan)
            }
            LogicalPlan::Extension(extension) if extension.node.as_any().is::<MatchNode>() => {
                let node = MatchNode::of(plan).expect("the guard looked");
                self.pattern(node)
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => {
                let children = union
                    .inputs
                    .iter()
                    .map(|input| self.node(input))
                    .collect::<Result<Vec<_>, _>>()?;
                let schema = Arc::new(union.schema.as_arrow().clone());
                Ok(self
                    .pipeline
                    .add(Box::new(Relabel::new(None, schema, "Union".to_owned())), &children))
            }
            other => {
                let what = other.display().to_string();
                let word = what.split([':', ' ']).next().unwrap_or_default().to_owned();
                Err(self.at(&word).mistake(
                    format!("{what} can't run on a stream without end"),
                    "filters, projections, GROUP BY with or without a window, UNION ALL, joins and ABSENT can",
                ))
            }
        }
    }

    /// Rows in windows that are not grouped.
    fn assign_windows(&mut self, window: &WindowNode, plan: &LogicalPlan) -> Result<usize, QueryError> {
        let child = self.node(&window.input)?;
        let Some(planned) = self.window_plan(window)? else {
            return Err(self.at("SESSION").mistake(
                "sessions belong to keys, and there is no GROUP BY",
                "GROUP BY the key, window_start and window_end",
            ));
        };
        let schema = Arc::new(plan.schema().as_arrow().clone());
        Ok(self
            .pipeline
            .add(Box::new(AssignWindows::new(planned, schema)), &[child]))
    }

    /// The windows of a node; `None` for sessions, which depend on the rows.
    fn window_plan(&self, window: &WindowNode) -> Result<Option<WindowPlan>, QueryError> {
        let schema = window.input.schema();
        let Some(windows) = Assigner::of(window.spec, self.catalog.opening_hours()) else {
            return Ok(None);
        };
        let site = window
            .keys
            .first()
            .map(|site| self.physical(site, schema))
            .transpose()?;
        Ok(Some(WindowPlan {
            time: self.physical(&window.time, schema)?,
            site,
            windows,
            spec: window.spec,
        }))
    }

    /// What people were sent is known when all else has been said of the same time, and what comes of it goes on by itself.
    /// Tells whether this does. Rows of both may be counted in the same windows: each is judged by the watermark that it met itself,
    /// whichever comes first, and windows close when all is known.
    fn refuse_two_times(&self, plan: &LogicalPlan) -> Result<bool, QueryError> {
        let (follows, others): (Vec<&str>, Vec<&str>) =
            self.pipeline.sources().partition(|name| self.catalog.follows(name));
        let Some(first) = follows.first() else { return Ok(false) };
        let is_counted = self.windowed && self.statement.kind == StatementKind::Query && self.only_counts(plan, false);
        if let Some(other) = others.first().filter(|_| !is_counted) {
            return Err(self.at(first).mistake(
                format!("'{first}' is known later than '{other}' of the same time, and both are read"),
                "read each in a query of its own, or count both with UNION ALL in windows of the same query; a reference table \
                 may be joined with either",
            ));
        }
        if matches!(&self.statement.kind, StatementKind::Alert(alert) if alert.message.is_some()) {
            return Err(self.at(first).mistake(
                format!(
                    "'{}' writes to people and reads what they were written, which would go round for ever",
                    self.statement.name
                ),
                "let it read what people do, such as 'reply', or leave out `message` and tell staff",
            ));
        }
        Ok(true)
    }

    /// Whether rows of built-in streams are counted in windows, and nothing else happens to them.
    fn only_counts(&self, plan: &LogicalPlan, is_counted: bool) -> bool {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => self.only_counts(&alias.input, is_counted),
            LogicalPlan::Projection(projection) => self.only_counts(&projection.input, is_counted),
            LogicalPlan::Filter(filter) => self.only_counts(&filter.input, is_counted),
            LogicalPlan::Aggregate(aggregate) => !is_counted && self.only_counts(&aggregate.input, true),
            LogicalPlan::Union(union) => union.inputs.iter().all(|input| self.only_counts(input, is_counted)),
            LogicalPlan::TableScan(scan) => {
                let entry = self.catalog.get(scan.table_name.table());
                is_counted && entry.is_some_and(|entry| matches!(entry.relation, Relation::Stream { .. }))
            }
            other => window_of(other).is_some_and(|window| {
                let has_ends = Assigner::of(window.spec, self.catalog.opening_hours()).is_some();
                has_ends && self.only_counts(&window.input, is_counted)
            }),
        }
    }

    fn leaf(&mut self, scan: &logical_expr::TableScan) -> Result<usize, QueryError> {
        let name = scan.table_name.table().to_owned();
        if self.is_reference(&name) {
            return Err(self.at(&name).mistake(
                format!("'{name}' is a reference table and never speaks by itself"),
                "join it with a stream or a query",
            ));
        }
        self.scan(scan, &name)
    }

    fn scan(&mut self, scan: &logical_expr::TableScan, name: &str) -> Result<usize, QueryError> {
        let schema = Arc::new(scan.projected_schema.as_arrow().clone());
        let relabel = Relabel::new(scan.projection.clone(), schema, format!("Read {name}"));
        let index = self.pipeline.add_leaf(name, Box::new(relabel));
        match self.catalog.get(name).map(|entry| &entry.relation) {
            Some(Relation::Output { lag_us, amends, .. }) => {
                self.source_lag_us = self.source_lag_us.max(*lag_us);
                self.amends |= *amends;
            }
            Some(Relation::Stream { lag_us }) => self.source_lag_us = self.source_lag_us.max(*lag_us),
            Some(Relation::Reference) | None => {}
        }
        Ok(index)
    }

    fn is_reference(&self, name: &str) -> bool {
        matches!(
            self.catalog.get(name).map(|entry| &entry.relation),
            Some(Relation::Reference)
        )
    }

    fn pattern(&mut self, node: &MatchNode) -> Result<usize, QueryError> {
        let child = self.node(&node.input)?;
        let statement = self.statement;
        let prepared = self.wrap(Prepared::new(node, statement.lateness_us, statement.ttl_us))?;
        // It speaks once of each match, as a window that closes does.
        (self.has_state, self.windowed) = (true, true);
        Ok(self.pipeline.add(Box::new(MatchRecognize::new(prepared)), &[child]))
    }
}

/// Which output columns hold the grouping keys, all of them; `None` when one is missing from the SELECT list.
fn key_columns(plan: &LogicalPlan) -> Option<Vec<usize>> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => {
            let is_windowed = Below::of(&aggregate.input).is_ok_and(|below| below.window.is_some());
            // Whether a row is final or amended tells of the saying, not of what it is about.
            let tells_of_saying = |index: &usize| {
                let name = aggregate.schema.field(*index).name();
                is_windowed && [FINAL, AMENDED].contains(&name.as_str())
            };
            let groups = 0..aggregate.group_expr.len();
            Some(groups.filter(|index| !tells_of_saying(index)).collect())
        }
        LogicalPlan::SubqueryAlias(alias) => key_columns(&alias.input),
        LogicalPlan::Filter(filter) => key_columns(&filter.input),
        LogicalPlan::Projection(projection) => {
            let inner = projection.input.schema();
            key_columns(&projection.input)?
                .into_iter()
                .map(|key| {
                    projection.expr.iter().position(|expr| match unaliased(expr) {
                        Expr::Column(column) => inner.maybe_index_of_column(column) == Some(key),
                        _ => false,
                    })
                })
                .collect()
        }
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            key_columns(&join.left)
                .or_else(|| Some(key_columns(&join.right)?.into_iter().map(|key| key + left).collect()))
        }
        _ => None,
    }
}

/// What others read of a compiled query.
pub(crate) fn output_relation(compiled: &Compiled) -> Relation {
    Relation::Output {
        amends: compiled.amends,
        lag_us: compiled.lag_us,
        follows: compiled.follows,
    }
}

/// Whether a condition lets through only rows of windows of which nothing more is said: each once.
fn takes_final(predicate: &Expr) -> bool {
    split_conjunction(predicate)
        .into_iter()
        .any(|condition| matches!(condition, Expr::Column(column) if column.name == FINAL))
}

/// The name of an amending query whose rows come through `plan` each time they are said, if there is one.
pub(crate) fn amending_source(catalog: &Catalog, plan: &LogicalPlan) -> Option<String> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let name = scan.table_name.table();
            match catalog.get(name).map(|entry| &entry.relation) {
                Some(Relation::Output { amends: true, .. }) => Some(name.to_owned()),
                _ => None,
            }
        }
        LogicalPlan::Filter(filter) if takes_final(&filter.predicate) => None,
        other => other
            .inputs()
            .into_iter()
            .find_map(|input| amending_source(catalog, input)),
    }
}
