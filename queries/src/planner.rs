//! Plans a SELECT on stock DataFusion: refuses what can't run continuously with its place, then optimises.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
    SchemaProvider,
};
use datafusion::common::config::Dialect;
use datafusion::common::{DFSchema, Result};
use datafusion::datasource::TableProvider;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::ExecutionProps;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::{ExprSchemable, LogicalPlan};
use datafusion::optimizer::OptimizerRule;
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::eliminate_filter::EliminateFilter;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement as ParsedStatement;
use datafusion::sql::sqlparser::ast::{
    Distinct, Expr as SqlExpr, FunctionArguments, Query, SetExpr, SetOperator, SetQuantifier, Spanned,
    Statement as SqlStatement, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::absent::AbsentPlanner;
use crate::as_of;
use crate::catalog::{Catalog, empty_table};
use crate::computed::Computed;
use crate::error::{Position, QueryError, find_word, from_datafusion, nearest};
use crate::functions::own_functions;
use crate::match_recognize::{PatternPlanner, sql_to_statement};
use crate::misread;
use crate::narrowing::narrowed;
use crate::plans::{Asked, Plan, plan_of};
use crate::statement::{OptionValue, Statement};
use crate::window::WindowPlanner;
use crate::window::planning::argument;

/// Tables by name, as a session sees them.
pub(crate) type Tables = BTreeMap<String, Arc<dyn TableProvider>>;

/// A DataFusion session over `tables` that knows our windows.
pub(crate) fn session(tables: Tables, continuous: bool) -> Result<SessionState> {
    let mut state = bare_session(continuous)?.clone();
    // Names that it makes up are counted from one again: a plan must not depend on what was planned before.
    *state.execution_props_mut() = ExecutionProps::new();
    let tables = Arc::new(tables);
    state.register_relation_planner(Arc::new(AbsentPlanner {
        tables: Arc::clone(&tables),
    }))?;
    state.register_relation_planner(Arc::new(WindowPlanner {
        tables: Arc::clone(&tables),
    }))?;
    let schema = MemorySchemaProvider::new();
    for (name, provider) in tables.iter() {
        schema.register_table(name.clone(), Arc::clone(provider))?;
    }
    let names = state.config_options().catalog.clone();
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(&names.default_schema, Arc::new(schema))?;
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog(names.default_catalog, Arc::new(catalog));
    state.register_catalog_list(Arc::new(catalogs));
    Ok(state)
}

/// A session that has no tables. It is made once, for there are hundreds of functions to register.
fn bare_session(continuous: bool) -> Result<&'static SessionState> {
    static SESSIONS: [OnceLock<SessionState>; 2] = [const { OnceLock::new() }; 2];
    let session = &SESSIONS[usize::from(continuous)];
    if let Some(made) = session.get() {
        return Ok(made);
    }
    let made = make_bare_session(continuous)?;
    Ok(session.get_or_init(|| made))
}

/// One partition, no re-partitioning: what runs is our own loop, and a bounded run shall be comparable with it.
fn make_bare_session(continuous: bool) -> Result<SessionState> {
    let mut config = SessionConfig::new()
        .with_target_partitions(1)
        .with_round_robin_repartition(false)
        .with_repartition_aggregations(false)
        .with_repartition_joins(false)
        .with_repartition_windows(false)
        .with_information_schema(false);
    config.options_mut().sql_parser.collect_spans = true;
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    let mut builder = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_relation_planners(vec![Arc::new(PatternPlanner)]);
    if continuous {
        // Only what makes a plan simpler: projections stay as written, so that what is compiled is what was meant.
        let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
            Arc::new(SimplifyExpressions::new()),
            Arc::new(ReplaceDistinctWithAggregate::new()),
            Arc::new(ExtractEquijoinPredicate::new()),
            Arc::new(EliminateFilter::new()),
            Arc::new(EliminateCrossJoin::new()),
            Arc::new(PushDownFilter::new()),
        ];
        builder = builder.with_optimizer_rules(rules);
    }
    let mut state = builder.build();
    for function in own_functions() {
        state.register_udaf(Arc::new(function))?;
    }
    state.register_udf(Arc::new(as_of::condition()))?;
    #[cfg(test)]
    state.register_udf(Arc::new(crate::faults::unlucky()))?;
    Ok(state)
}

/// What may be called in FROM.
const CALLS: [&str; 6] = ["TUMBLE", "HOP", "SESSION", "DAY", "OPENING", "ABSENT"];

/// Plans statements over one catalog.
pub(crate) struct Planner<'a> {
    catalog: &'a Catalog,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(catalog: &'a Catalog) -> Self {
        Self { catalog }
    }

    /// What its statements may read.
    pub(crate) fn catalog(&self) -> &'a Catalog {
        self.catalog
    }

    /// The optimised plan of a statement's SELECT.
    pub(crate) fn plan(&self, statement: &Statement) -> Result<Arc<Plan>, QueryError> {
        let asked = Asked::of(statement.placed_select(), self.catalog);
        plan_of(asked, |asked| plan(asked, statement.at)).map_err(|error| self.named(error))
    }

    /// Says of a relation that is not there which one was meant.
    fn named(&self, error: QueryError) -> QueryError {
        let function = error
            .wrong
            .strip_prefix("table function '")
            .and_then(|rest| rest.split('\'').next());
        if let Some(name) = function {
            let right = match nearest(&name.to_uppercase(), CALLS.into_iter()) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("there are: {}", CALLS.join(", ")),
            };
            return QueryError {
                wrong: format!("there is no window '{name}'"),
                right: Some(right),
                ..error
            };
        }
        let Some(name) = error
            .wrong
            .strip_prefix("table '")
            .and_then(|rest| rest.split('\'').next())
        else {
            return error;
        };
        let name = name.rsplit('.').next().unwrap_or(name);
        let names: Vec<&str> = self.catalog.iter().map(|(name, _)| name).collect();
        let right = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("there are: {}", names.join(", ")),
        };
        QueryError {
            wrong: format!("there is no stream, query or table '{name}'"),
            right: Some(right),
            ..error
        }
    }

    /// A condition in an option, over the columns of a statement's SELECT.
    pub(crate) fn condition(&self, option: &OptionValue, schema: &DFSchema) -> Result<Computed, QueryError> {
        let shift = |error: QueryError| {
            let now = Position {
                line: option.at.line + error.line - 1,
                column: if error.line == 1 {
                    option.at.column + error.column - 1
                } else {
                    error.column
                },
            };
            let Position { line, column } = option.shifts.written(now);
            QueryError { line, column, ..error }
        };
        let start = Position { line: 1, column: 1 };
        let wrap = |error| shift(from_datafusion(&error, start, &option.value));
        let session = bare_session(true).map_err(wrap)?;
        let read = session
            .sql_to_expr_with_alias(&option.value, &Dialect::Generic)
            .map_err(wrap)?;
        misread::refuse(&read.expr).map_err(wrap)?;
        let logical = session.create_logical_expr_from_sql_expr(read, schema).map_err(wrap)?;
        let data_type = logical.get_type(schema).map_err(wrap)?;
        if data_type != arrow::datatypes::DataType::Boolean {
            return Err(option.at.mistake(
                format!("'{}' is {data_type} and no condition", option.value),
                "a condition such as 'share >= 0.9' was expected",
            ));
        }
        let physical = session.create_physical_expr(logical, schema).map_err(wrap)?;
        Computed::new(physical, schema.as_arrow()).map_err(wrap)
    }
}

/// Makes a plan of what is asked, and of nothing else; `at` is where mistakes stand that have no place.
fn plan(asked: &Asked, at: Position) -> Result<Plan, QueryError> {
    let text = asked.text();
    let wrap = |error| from_datafusion(&error, at, text);
    let relations = asked.relations().iter();
    let tables = relations.map(|(name, read)| (name.clone(), empty_table(&read.schema) as Arc<dyn TableProvider>));
    let state = session(tables.collect(), true).map_err(wrap)?;
    let parsed = sql_to_statement(&state, text).map_err(wrap)?;
    if let ParsedStatement::Statement(sql) = &parsed {
        refuse_unsupported(sql, at)?;
    }
    let plan = futures::executor::block_on(state.statement_to_plan(parsed)).map_err(wrap)?;
    refuse_unstable_functions(&plan, text, at)?;
    let versions = as_of::check(&plan).map_err(wrap)?;
    let plan = state.optimize(&plan).map_err(wrap)?;
    let plan = match versions {
        0 => plan,
        _ => as_of::in_joins_alone(plan, versions).map_err(wrap)?,
    };
    narrowed(&plan, |name| asked.is_table(name))
        .map(Plan::new)
        .map_err(wrap)
}

fn at(span: Span, fallback: Position) -> Position {
    if span.start.line == 0 {
        fallback
    } else {
        Position {
            line: span.start.line,
            column: span.start.column,
        }
    }
}

/// Walks the statement as written, where places are known, and refuses what has no meaning on a stream without end.
fn refuse_unsupported(sql: &SqlStatement, start: Position) -> Result<(), QueryError> {
    let mut places = Places {
        start,
        inputs: Vec::new(),
    };
    match sql.visit(&mut places) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Visits each SELECT and each expression of a statement, also those in WITH and FROM.
struct Places {
    start: Position,
    /// Where subqueries stand that a call in FROM reads, as in `TUMBLE((SELECT …), …)`: those are no expressions.
    inputs: Vec<usize>,
}

fn address(query: &Query) -> usize {
    std::ptr::from_ref(query).addr()
}

impl Visitor for Places {
    type Break = QueryError;

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<QueryError> {
        let arguments = match factor {
            TableFactor::Table { args: Some(args), .. } => args.args.as_slice(),
            TableFactor::Function { args, .. } => args.as_slice(),
            TableFactor::TableFunction {
                expr: SqlExpr::Function(function),
                ..
            } => match &function.args {
                FunctionArguments::List(list) => list.args.as_slice(),
                _ => &[],
            },
            _ => &[],
        };
        self.inputs
            .extend(arguments.iter().filter_map(argument).filter_map(|input| match input {
                SqlExpr::Subquery(query) => Some(address(query)),
                _ => None,
            }));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &SqlExpr) -> ControlFlow<QueryError> {
        let start = self.start;
        match expr {
            SqlExpr::Function(function) if function.over.is_some() => {
                ControlFlow::Break(at(function.span(), start).mistake(
                    format!("{} OVER (…) ranks rows of a whole table", function.name),
                    "a stream has no last row; group by a window instead: FROM HOP(…) … GROUP BY window_start",
                ))
            }
            SqlExpr::Subquery(query) if self.inputs.contains(&address(query)) => ControlFlow::Continue(()),
            SqlExpr::Subquery(query)
            | SqlExpr::InSubquery { subquery: query, .. }
            | SqlExpr::Exists { subquery: query, .. } => ControlFlow::Break(at(query.span(), start).mistake(
                "a subquery inside an expression would be asked again for every row",
                "join with the table or query in FROM instead",
            )),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<QueryError> {
        match refuse_in_query(query, self.start) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn refuse_in_query(query: &Query, start: Position) -> Result<(), QueryError> {
    if let Some(order_by) = &query.order_by {
        return Err(at(order_by.span(), start).mistake(
            "ORDER BY needs the last row, and a stream has none",
            "leave it out; readers sort what they show",
        ));
    }
    if let Some(limit) = &query.limit_clause {
        return Err(at(limit.span(), start).mistake("LIMIT would end the stream", "leave it out"));
    }
    if let Some(fetch) = &query.fetch {
        return Err(at(fetch.span(), start).mistake("FETCH would end the stream", "leave it out"));
    }
    refuse_in_body(&query.body, start)
}

fn refuse_in_body(body: &SetExpr, start: Position) -> Result<(), QueryError> {
    match body {
        SetExpr::SetOperation {
            op,
            set_quantifier,
            left,
            right,
        } => {
            if *op != SetOperator::Union || !matches!(set_quantifier, SetQuantifier::All) {
                return Err(at(right.span(), start).mistake(
                    format!(
                        "{} compares all rows of two sides",
                        format!("{op} {set_quantifier}").trim_end()
                    ),
                    "UNION ALL puts two streams together",
                ));
            }
            refuse_in_body(left, start)?;
            refuse_in_body(right, start)
        }
        SetExpr::Select(select) => match &select.distinct {
            Some(Distinct::On(exprs)) => {
                let place = exprs.first().map_or(start, |expr| at(expr.span(), start));
                Err(place.mistake(
                    "DISTINCT ON needs an order",
                    "GROUP BY the columns and take first_value or last_value",
                ))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Refuses functions whose answer changes by itself: a query is planned once and runs for ever.
fn refuse_unstable_functions(plan: &LogicalPlan, text: &str, start: Position) -> Result<(), QueryError> {
    use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
    use datafusion::logical_expr::{Expr, Volatility};
    let mut found = None;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|inner| {
                if let Expr::ScalarFunction(function) = inner
                    && function.func.signature().volatility != Volatility::Immutable
                    && ["now", "current_date", "current_time", "random", "uuid"].contains(&function.func.name())
                {
                    found = Some(function.func.name().to_owned());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.map_err(|error| from_datafusion(&error, start, text))?;
    match found {
        Some(name) => Err(find_word(text, &name, start).unwrap_or(start).mistake(
            format!("{name}() would give another answer in a replay"),
            "use event_time, received_at, or the window's own times",
        )),
        None => Ok(()),
    }
}
