//! Compiles GROUP BY: over a window, over sessions, or running.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate as AggregateNode, Expr, ExprSchemable, LogicalPlan};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;

use super::{Compiler, amending_source, takes_final};
use crate::accumulator::kind::AggregateKind;
use crate::aggregate::{Aggregate, AggregateCall, AggregatePlan, GroupColumn};
use crate::below::{Below, unaliased};
use crate::computed::Computed;
use crate::error::{QueryError, from_datafusion};
use crate::operator::{Filter, Operator};
use crate::session::Sessions;
use crate::statement::Emit;
use crate::streams::LATE;
use crate::window::{FINAL, WINDOW_COLUMNS, WINDOW_END, WINDOW_START, WindowNode, WindowSpec};

impl Compiler<'_> {
    pub(super) fn aggregate(&mut self, node: &AggregateNode) -> Result<usize, QueryError> {
        if let Some(name) = amending_source(self.catalog, &node.input) {
            return Err(self.at(&name).mistake(
                format!("'{name}' says rows again when they change, so that grouping them would count them twice"),
                "read its rows WHERE final, create it WITH (emit = 'close') and without lateness, or group the stream itself",
            ));
        }
        let below = self.wrap(Below::of(&node.input))?;
        let window = below.window.as_ref();
        let input = window.map_or_else(|| Arc::clone(&node.input), |window| Arc::clone(&window.input));
        let child = self.below_grouping(&input)?;
        let schema = input.schema();
        let is_window = |name: &str| WINDOW_COLUMNS.contains(&name);
        let mentions_window = |expr: &Expr| expr.column_refs().iter().any(|column| is_window(&column.name));

        let mut keys = Vec::new();
        let mut key_types = Vec::new();
        let mut columns = Vec::new();
        for expr in &node.group_expr {
            if matches!(expr, Expr::GroupingSet(_)) {
                return Err(self.at("GROUP").mistake(
                    "ROLLUP, CUBE and GROUPING SETS are not there",
                    "write one query for each grouping",
                ));
            }
            let resolved = self.wrap(below.resolve(expr))?;
            match (window, unaliased(&resolved)) {
                (Some(_), Expr::Column(column)) if is_window(&column.name) => {
                    columns.push(match column.name.as_str() {
                        WINDOW_START => GroupColumn::WindowStart,
                        WINDOW_END => GroupColumn::WindowEnd,
                        FINAL => GroupColumn::Final,
                        _ => GroupColumn::Amended,
                    })
                }
                (Some(_), other) if mentions_window(other) => {
                    return Err(self.at(WINDOW_START).mistake(
                        format!("GROUP BY {expr} computes with the window's times"),
                        "group by window_start and window_end themselves, and compute in the SELECT list",
                    ));
                }
                (_, other) => {
                    key_types.push(self.wrap(other.get_type(schema))?);
                    columns.push(GroupColumn::Key(keys.len()));
                    keys.push(self.physical(other, schema)?);
                }
            }
        }
        let tells_window = |column: &GroupColumn| matches!(column, GroupColumn::WindowStart | GroupColumn::WindowEnd);
        let is_opening = window.is_some_and(|window| window.spec == WindowSpec::Opening);
        if is_opening && columns.iter().filter(|column| tells_window(column)).count() < 2 {
            return Err(self.at("GROUP").mistake(
                "sites that open together may close apart",
                "GROUP BY window_start and window_end, both of them",
            ));
        }
        if window.is_some() && !columns.iter().any(tells_window) {
            return Err(self.at("GROUP").mistake(
                "the rows are put into windows, but not grouped by them",
                "add window_start and window_end to GROUP BY",
            ));
        }
        let (mut filters, mut of_windows) = (Vec::new(), Vec::new());
        for predicate in below.filters.iter().flat_map(split_conjunction) {
            if window.is_none() {
                break;
            }
            if !mentions_window(predicate) {
                filters.push(self.physical(predicate, schema)?);
                continue;
            }
            // HAVING comes down here where it asks for columns of GROUP BY. What asks for the window is judged when it
            // is said, and not row by row.
            let Some(said) = self.wrap(over_groups(node, &below, predicate))? else {
                return Err(self.at("WHERE").mistake(
                    format!("WHERE {predicate} asks for the window's own columns before rows are grouped"),
                    "name those columns in GROUP BY and ask in HAVING",
                ));
            };
            of_windows.push(said);
        }
        let mut aggregates = Vec::new();
        for expr in &node.aggr_expr {
            aggregates.push(self.call(expr, &below, window.is_some(), schema)?);
        }
        if let Some(WindowNode {
            spec: WindowSpec::Session(_),
            ..
        }) = window
        {
            self.refuse_other_session_keys(window, &below, node)?;
        }
        let emit = self.emit(window)?;
        if window.is_none() {
            self.warn_of_growth(&node.input, &keys);
        }
        let planned = window.map(|window| self.window_plan(window)).transpose()?.flatten();
        let mut plan = AggregatePlan {
            filters,
            keys,
            key_types,
            aggregates,
            columns,
            schema: Arc::new(node.schema.as_arrow().clone()),
            emit,
            lateness_us: self.statement.lateness_us,
            ttl_us: if window.is_some() { None } else { self.statement.ttl_us },
            keeps_causes: self.keeps_causes,
            window: None,
        };
        self.has_state = true;
        let says_again = match window.map(|window| window.spec) {
            Some(WindowSpec::Session(_)) => false,
            Some(_) => emit != Emit::Close || self.statement.lateness_us > 0,
            None => true,
        };
        let operator: Box<dyn Operator> = match (window.map(|window| (window.spec, &window.time)), planned) {
            (Some((WindowSpec::Session(gap), time)), _) => {
                let time = self.physical(time, schema)?;
                Box::new(self.wrap(Sessions::new(plan, time, gap))?)
            }
            (_, planned) => {
                plan.window = planned;
                Box::new(self.wrap(Aggregate::new(plan))?)
            }
        };
        let mut top = self.pipeline.add(operator, &[child]);
        for predicate in &of_windows {
            let filter = Filter::new(self.physical(predicate, &node.schema)?);
            top = self.pipeline.add(Box::new(filter), &[top]);
        }
        self.amends |= says_again && !of_windows.iter().any(takes_final);
        Ok(top)
    }

    /// What a GROUP BY reads; refused where that says rows again, which would be counted again.
    fn below_grouping(&mut self, input: &LogicalPlan) -> Result<usize, QueryError> {
        // What stands beside it, in a UNION, has nothing to do with it.
        let beside = std::mem::take(&mut self.amends);
        let child = self.node(input)?;
        if std::mem::replace(&mut self.amends, beside) {
            return Err(self.at("GROUP").mistake(
                "a GROUP BY over one that says rows again would count them again",
                "give the inner one a window and no lateness, or create it as a query of its own WITH (emit = 'close')",
            ));
        }
        Ok(child)
    }

    /// `SESSION(stream, time, key, gap)` names keys that GROUP BY must name too: a session is of one key and of no other.
    fn refuse_other_session_keys(
        &self,
        window: Option<&WindowNode>,
        below: &Below,
        node: &AggregateNode,
    ) -> Result<(), QueryError> {
        let Some(window) = window.filter(|window| !window.keys.is_empty()) else {
            return Ok(());
        };
        let mut grouped = Vec::new();
        for expr in &node.group_expr {
            let resolved = self.wrap(below.resolve(expr))?;
            let of_window =
                matches!(unaliased(&resolved), Expr::Column(column) if WINDOW_COLUMNS.contains(&column.name.as_str()));
            if !of_window {
                grouped.push(unaliased(&resolved).clone());
            }
        }
        let same =
            grouped.iter().all(|key| window.keys.contains(key)) && window.keys.iter().all(|key| grouped.contains(key));
        if same {
            return Ok(());
        }
        let shown = |keys: &[Expr]| {
            keys.iter()
                .map(|key| key.schema_name().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        };
        Err(self.at("SESSION").mistake(
            format!(
                "sessions of ({}) are grouped by ({})",
                shown(&window.keys),
                shown(&grouped)
            ),
            "GROUP BY the same keys, or leave them out of SESSION",
        ))
    }

    /// Columns that new things come into all the time: a key of them that is never forgotten grows for ever.
    fn warn_of_growth(&mut self, input: &LogicalPlan, keys: &[Computed]) {
        const GROWING: [&str; 8] = [
            "event_id",
            "event_time",
            "received_at",
            "person",
            "session",
            "tag",
            "item",
            "query",
        ];
        if self.statement.ttl_us.is_some() {
            return;
        }
        // There the query is one of ours, and no words that somebody typed.
        let is_late =
            |plan: &LogicalPlan| matches!(plan, LogicalPlan::TableScan(scan) if scan.table_name.table() == LATE);
        let reads_late = input.exists(|plan| Ok(is_late(plan))).unwrap_or(false);
        let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let growing = names.iter().find_map(|name| {
            GROWING
                .into_iter()
                .filter(|growing| !(reads_late && *growing == "query"))
                .find(|growing| name.split('@').next().is_some_and(|column| column == *growing))
        });
        if let Some(growing) = growing {
            self.warnings.push(self.at("GROUP").mistake(
                format!("a running GROUP BY {growing} keeps each {growing} for ever"),
                "WITH (ttl = '30 days') forgets those unseen for so long",
            ));
        }
    }

    fn emit(&mut self, window: Option<&WindowNode>) -> Result<Emit, QueryError> {
        match (window.map(|window| window.spec), self.statement.emit) {
            (None, Some(Emit::Close)) => Err(self.statement.emit_at.mistake(
                "emit = 'close' waits for the end of a window, and there is none",
                "group by a window, FROM TUMBLE(…) or HOP(…), or emit = 'update'",
            )),
            (None, emit) => {
                self.running = true;
                Ok(emit.unwrap_or(Emit::Update))
            }
            (Some(WindowSpec::Session(_)), Some(Emit::Update | Emit::Every(_))) => Err(self.statement.emit_at.mistake(
                "a session's beginning and end move while rows come, so that there is no row to say again",
                "emit = 'close', which says each session once it is over",
            )),
            (Some(_), emit) => {
                self.windowed = true;
                Ok(emit.unwrap_or(Emit::Close))
            }
        }
    }

    fn call(&self, expr: &Expr, below: &Below, windowed: bool, schema: &DFSchema) -> Result<AggregateCall, QueryError> {
        let name = expr.schema_name().to_string();
        let resolved = if windowed {
            self.wrap(below.resolve(expr))?
        } else {
            expr.clone()
        };
        if windowed
            && resolved
                .column_refs()
                .iter()
                .any(|column| WINDOW_COLUMNS.contains(&column.name.as_str()))
        {
            return Err(self.at(WINDOW_START).mistake(
                format!("{name} aggregates the window's own columns, which are the same for all its rows"),
                "name them in the SELECT list",
            ));
        }
        let input = schema.as_arrow();
        let planning = PhysicalPlanningContext::default();
        let lowered = self.wrap(
            LoweredAggregateBuilder::new(&resolved, schema, input, &self.props, &planning)
                .with_name(name.clone())
                .build(),
        )?;
        let mut args = lowered.aggregate.expressions();
        args.extend(lowered.order_bys.iter().map(|order| Arc::clone(&order.expr)));
        let computed = |expression| Computed::new(expression, input);
        let args = self.wrap(args.into_iter().map(computed).collect::<Result<Vec<_>>>())?;
        let types = self.wrap(
            args.iter()
                .map(|arg| arg.data_type(input))
                .collect::<Result<Vec<DataType>>>(),
        )?;
        let place = self.at(lowered.aggregate.fun().name());
        let kind = AggregateKind::of(&lowered.aggregate, &types)
            .map_err(|error| from_datafusion(&error, place, &self.text))?;
        Ok(AggregateCall {
            kind,
            args,
            arg_types: types,
            filter: self.wrap(lowered.filter.map(computed).transpose())?,
            name,
        })
    }
}

/// A condition on the window's columns over what an aggregate says, where it asks for nothing but its GROUP BY.
fn over_groups(node: &AggregateNode, below: &Below, predicate: &Expr) -> Result<Option<Expr>> {
    let mut groups = Vec::with_capacity(node.group_expr.len());
    for expr in &node.group_expr {
        groups.push(unaliased(&below.resolve(expr)?).clone());
    }
    let mut is_said = true;
    let over = predicate.clone().transform(|inner| {
        if !matches!(inner, Expr::Column(_)) {
            return Ok(Transformed::no(inner));
        }
        match groups.iter().position(|group| *group == inner) {
            Some(at) => Ok(Transformed::yes(Expr::Column(Column::from(
                node.schema.qualified_field(at),
            )))),
            None => {
                is_said = false;
                Ok(Transformed::no(inner))
            }
        }
    })?;
    Ok(is_said.then_some(over.data))
}
