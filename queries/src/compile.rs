//! Compiles an optimised plan into a pipeline of operators, or says what in it can't run continuously.

mod absence;
mod grouping;
mod interval_join;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, Result};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, ExprSchemable, Join, JoinType, LogicalPlan};
use datafusion::physical_expr::planner::create_physical_expr;

use crate::absent::AbsentNode;
use crate::aggregate::WindowPlan;
use crate::assign_windows::AssignWindows;
use crate::below::{Below, unaliased, window_of};
use crate::catalog::{Catalog, Relation};
use crate::computed::Computed;
use crate::error::{Position, QueryError, find_word, from_datafusion};
use crate::join::{JoinPlan, ReferenceJoin};
use crate::match_recognize::{MatchNode, MatchRecognize, Prepared, refuse_what_cannot_stream};
use crate::operator::{Filter, Project, Relabel};
use crate::pipeline::Pipeline;
use crate::statement::{Emit, Statement};
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
        warnings: Vec::new(),
    };
    refuse_what_cannot_stream(plan, statement, catalog)?;
    compiler.node(plan)?;
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
        warnings: compiler.warnings,
    })
}

struct Compiler<'a> {
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
    warnings: Vec<QueryError>,
}

impl Compiler<'_> {
    fn at(&self, word: &str) -> Position {
        find_word(&self.statement.select, word, self.statement.at).unwrap_or(self.statement.at)
    }

    fn wrap<T>(&self, result: Result<T>) -> Result<T, QueryError> {
        result.map_err(|error| from_datafusion(&error, self.statement.at, &self.statement.select))
    }

    fn physical(&self, expr: &Expr, schema: &DFSchema) -> Result<Computed, QueryError> {
        let physical = create_physical_expr(expr, schema, &self.props, &PhysicalPlanningContext::default());
        self.wrap(physical.and_then(|physical| Computed::new(physical, schema.as_arrow())))
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
                let predicate = self.physical(&filter.predicate, filter.input.schema())?;
                Ok(self.pipeline.add(Box::new(Filter::new(predicate)), &[child]))
            }
            LogicalPlan::Projection(projection) => {
                let child = self.node(&projection.input)?;
                let expressions = projection
                    .expr
                    .iter()
                    .map(|expr| self.physical(expr, projection.input.schema()))
                    .collect::<Result<Vec<_>, _>>()?;
                let schema = Arc::new(projection.schema.as_arrow().clone());
                Ok(self.pipeline.add(Box::new(Project::new(expressions, schema)), &[child]))
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

    fn leaf(&mut self, scan: &datafusion::logical_expr::TableScan) -> Result<usize, QueryError> {
        let name = scan.table_name.table().to_owned();
        if self.is_reference(&name) {
            return Err(self.at(&name).mistake(
                format!("'{name}' is a reference table and never speaks by itself"),
                "join it with a stream or a query",
            ));
        }
        self.scan(scan, &name)
    }

    fn scan(&mut self, scan: &datafusion::logical_expr::TableScan, name: &str) -> Result<usize, QueryError> {
        let schema = Arc::new(scan.projected_schema.as_arrow().clone());
        let relabel = Relabel::new(scan.projection.clone(), schema, format!("Read {name}"));
        let index = self.pipeline.add_leaf(name, Box::new(relabel));
        if let Some(Relation::Output { lag_us, amends }) = self.catalog.get(name).map(|entry| &entry.relation) {
            self.source_lag_us = self.source_lag_us.max(*lag_us);
            self.amends |= *amends;
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

    fn only_references(&self, plan: &LogicalPlan) -> bool {
        match plan {
            LogicalPlan::TableScan(scan) => self.is_reference(scan.table_name.table()),
            LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) | LogicalPlan::Projection(_) => {
                plan.inputs().into_iter().all(|input| self.only_references(input))
            }
            _ => false,
        }
    }

    fn join(&mut self, join: &Join) -> Result<usize, QueryError> {
        let stream_is_left = match (self.only_references(&join.left), self.only_references(&join.right)) {
            (false, true) => true,
            (true, false) => false,
            (false, false) => return self.join_streams(join),
            (true, true) => return self.node(&join.left),
        };
        let keeps_unmatched = match (join.join_type, stream_is_left) {
            (JoinType::Inner, _) => false,
            (JoinType::Left, true) | (JoinType::Right, false) => true,
            (other, _) => {
                return Err(self.at("JOIN").mistake(
                    format!(
                        "{} JOIN would have to say rows of the table that nothing matches",
                        other.to_string().to_uppercase()
                    ),
                    "JOIN, or LEFT JOIN with the stream on the left",
                ));
            }
        };
        let (stream, table) = if stream_is_left {
            (&join.left, &join.right)
        } else {
            (&join.right, &join.left)
        };
        let child = self.node(stream)?;
        let (table_side, references) = self.table_side(table)?;
        self.references.extend(references);
        let mut plan = JoinPlan {
            table_side,
            table_schema: Arc::new(table.schema().as_arrow().clone()),
            stream_keys: Vec::new(),
            table_keys: Vec::new(),
            key_types: Vec::new(),
            filter: None,
            keeps_unmatched,
            stream_is_left,
            schema: Arc::new(join.schema.as_arrow().clone()),
        };
        for (left, right) in &join.on {
            let (of_stream, of_table) = if stream_is_left { (left, right) } else { (right, left) };
            plan.key_types.push(self.wrap(of_table.get_type(table.schema()))?);
            plan.stream_keys.push(self.physical(of_stream, stream.schema())?);
            plan.table_keys.push(self.physical(of_table, table.schema())?);
        }
        if let Some(filter) = &join.filter {
            plan.filter = Some(self.physical(filter, &join.schema)?);
        }
        let operator = self.wrap(ReferenceJoin::new(plan))?;
        Ok(self.pipeline.add(Box::new(operator), &[child]))
    }

    /// Compiles what is done to a reference table before it is joined.
    fn table_side(&mut self, plan: &LogicalPlan) -> Result<(Pipeline, Vec<String>), QueryError> {
        let outer = std::mem::take(&mut self.pipeline);
        let compiled = self.table_node(plan);
        let table_side = std::mem::replace(&mut self.pipeline, outer);
        compiled?;
        let names = table_side.sources().map(str::to_owned).collect();
        Ok((table_side, names))
    }

    fn table_node(&mut self, plan: &LogicalPlan) -> Result<usize, QueryError> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let name = scan.table_name.table().to_owned();
                self.scan(scan, &name)
            }
            LogicalPlan::SubqueryAlias(alias) => self.table_node(&alias.input),
            LogicalPlan::Filter(filter) => {
                let child = self.table_node(&filter.input)?;
                let predicate = self.physical(&filter.predicate, filter.input.schema())?;
                Ok(self.pipeline.add(Box::new(Filter::new(predicate)), &[child]))
            }
            LogicalPlan::Projection(projection) => {
                let child = self.table_node(&projection.input)?;
                let expressions = projection
                    .expr
                    .iter()
                    .map(|expr| self.physical(expr, projection.input.schema()))
                    .collect::<Result<Vec<_>, _>>()?;
                let schema = Arc::new(projection.schema.as_arrow().clone());
                Ok(self.pipeline.add(Box::new(Project::new(expressions, schema)), &[child]))
            }
            other => Err(self
                .statement
                .at
                .wrong(format!("{} can't be done to a reference table", other.display()))),
        }
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
