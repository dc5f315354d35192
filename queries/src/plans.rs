//! Plans that were made lately: the same SELECT over the same columns is planned once, however often it is created.
//!
//! A start makes all queries to see whether they are right, once more to run them, and a third time where it has to work
//! out from the log what one of them would hold; a change over the API is checked before it is made. A plan is kept with
//! all that it was made from, and nothing else is at hand where it is made: so none is used for what it was not made for.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use lru::LruCache;

use crate::catalog::{Catalog, Relation};

/// Plans that are kept, several times as many as there are shipped queries.
const PLANS_MAX: NonZeroUsize = NonZeroUsize::new(256).expect("some are kept");
/// Bytes of SQL whose plan is kept, more than people write: a plan is as long as its SQL, or what it reads, is, and some dozen
/// times as large.
const TEXT_MAX: usize = 16 << 10;

static PLANS: LazyLock<Mutex<LruCache<Asked, Arc<Plan>>>> = LazyLock::new(|| Mutex::new(LruCache::new(PLANS_MAX)));

/// All that a plan depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    text: String,
    relations: BTreeMap<String, Read>,
}

/// What of a relation a plan depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) schema: SchemaRef,
    /// Whether it is a reference table, and no stream.
    is_table: bool,
}

impl Hash for Asked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Few are asked with the same text over other columns.
        self.text.hash(state);
    }
}

impl Asked {
    /// The SELECT `text`, and of `catalog` what it may read.
    pub(crate) fn of(text: String, catalog: &Catalog) -> Self {
        let lower = text.to_ascii_lowercase();
        let relations = catalog
            .iter()
            .filter(|(name, _)| may_mention(&lower, name))
            .map(|(name, entry)| {
                let read = Read {
                    schema: Arc::clone(&entry.schema),
                    is_table: matches!(entry.relation, Relation::Reference),
                };
                (name.to_owned(), read)
            })
            .collect();
        Self { text, relations }
    }

    /// The SELECT, in which places are those of the whole text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What it may read, by name.
    pub(crate) fn relations(&self) -> &BTreeMap<String, Read> {
        &self.relations
    }

    /// Whether a name is of a reference table.
    pub(crate) fn is_table(&self, name: &str) -> bool {
        self.relations.get(name).is_some_and(|read| read.is_table)
    }
}

/// Whether a name stands anywhere in a text of small letters; a name that could be written in another way always may.
fn may_mention(lower: &str, name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.bytes().all(is_plain) || lower.contains(&name.to_ascii_lowercase())
}

/// A plan, and its lines.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) root: LogicalPlan,
    pub(crate) text: Arc<str>,
}

impl Plan {
    pub(crate) fn new(root: LogicalPlan) -> Self {
        let text = root.display_indent().to_string().into();
        Self { root, text }
    }
}

/// The plan of what is asked: one that was made before, or else the one that `make` makes.
///
/// # Errors
/// What `make` says; it is asked again the next time.
pub(crate) fn plan_of<E>(asked: Asked, make: impl FnOnce(&Asked) -> Result<Plan, E>) -> Result<Arc<Plan>, E> {
    let plans = || PLANS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(plan) = plans().get(&asked) {
        return Ok(Arc::clone(plan));
    }
    // Nobody waits meanwhile: two who ask for the same at the same time both make it.
    let plan = Arc::new(make(&asked)?);
    if asked.text.len() <= TEXT_MAX {
        plans().put(asked, Arc::clone(&plan));
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::catalog::{Entry, Relation};
    use crate::query::Query;
    use crate::query_set::QuerySet;
    use crate::statement::parse_statement;

    fn columns(columns: &[(&str, DataType)]) -> SchemaRef {
        let fields = columns.iter().map(|(name, of)| Field::new(*name, of.clone(), false));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    fn catalog(relations: &[(&str, SchemaRef)]) -> Catalog {
        let mut catalog = Catalog::new();
        for (name, schema) in relations {
            let entry = Entry {
                relation: Relation::Reference,
                schema: Arc::clone(schema),
            };
            catalog.insert(name, entry);
        }
        catalog
    }

    #[test]
    fn only_what_a_text_may_mention_is_among_what_it_was_made_from() {
        let of = columns(&[("a", DataType::Int64)]);
        let catalog = catalog(&[
            ("desks", Arc::clone(&of)),
            ("rooms", Arc::clone(&of)),
            ("座位", Arc::clone(&of)),
            ("Halls", of),
        ]);
        let asked = Asked::of(
            "SELECT * FROM click JOIN \"Halls\" JOIN DESKS ON TRUE".to_owned(),
            &catalog,
        );
        let names: Vec<&str> = asked.relations().keys().map(String::as_str).collect();
        assert_eq!(names, ["Halls", "click", "desks", "座位"]);
    }

    #[test]
    fn the_same_text_over_other_columns_asks_for_another_plan() {
        let text = "SELECT a FROM desks";
        let of = |schema| Asked::of(text.to_owned(), &catalog(&[("desks", schema)]));
        let whole = of(columns(&[("a", DataType::Int64)]));
        assert_eq!(whole, of(columns(&[("a", DataType::Int64)])));
        assert_ne!(whole, of(columns(&[("a", DataType::Float64)])));
        assert_ne!(whole, of(columns(&[("a", DataType::Int64), ("b", DataType::Int64)])));
        let mut of_streams = Catalog::new();
        let entry = Entry {
            relation: Relation::Stream { lag_us: 0 },
            schema: columns(&[("a", DataType::Int64)]),
        };
        of_streams.insert("desks", entry);
        assert_ne!(
            whole,
            Asked::of(text.to_owned(), &of_streams),
            "joins keep other columns of a stream"
        );
        let elsewhere = Asked {
            text: format!("\n{text}"),
            ..whole.clone()
        };
        assert_ne!(whole, elsewhere, "mistakes would be told at another place");
    }

    /// A set in which `source` says `column` of clicks.
    fn reading(column: &str) -> QuerySet {
        let mut queries = QuerySet::new();
        let source = format!("CREATE QUERY source AS SELECT event_time, {column} AS said FROM click");
        queries
            .create(parse_statement(&source).expect("it can be read"))
            .expect("it can be planned");
        queries
    }

    fn reader(queries: &QuerySet) -> Query {
        let sql = "CREATE QUERY reader AS SELECT event_time, said AS said_before FROM source";
        queries
            .check(parse_statement(sql).expect("it can be read"))
            .expect("it can be planned")
    }

    #[test]
    fn a_query_is_planned_anew_when_what_it_reads_has_other_columns() {
        let said = |query: &Query| query.schema().field(1).data_type().clone();
        let words = reader(&reading("action"));
        assert_eq!(said(&words), DataType::Utf8);
        assert_eq!(said(&reader(&reading("count"))), DataType::Int64);
        let again = reader(&reading("action"));
        assert_eq!(said(&again), DataType::Utf8);
        assert_eq!(again.fingerprint(), words.fingerprint());
        assert!(
            std::ptr::eq(again.plan_text(), words.plan_text()),
            "the same was planned twice"
        );
    }

    #[test]
    fn a_plan_of_what_nobody_would_write_is_not_kept() {
        let long = format!(
            "CREATE QUERY q AS SELECT event_time, '{}' AS said FROM click",
            "x".repeat(TEXT_MAX)
        );
        let queries = QuerySet::new();
        let planned = || queries.check(parse_statement(&long).expect("it can be read"));
        let [first, second] = [0; 2].map(|_| planned().expect("it can be planned"));
        assert_eq!(first.plan_text(), second.plan_text());
        assert!(!std::ptr::eq(first.plan_text(), second.plan_text()));
    }

    #[test]
    fn a_mistake_is_told_each_time() {
        let queries = QuerySet::new();
        let wrong = |sql: &str| {
            let statement = parse_statement(sql).expect("it can be read");
            let error = queries
                .check(statement)
                .map(|_| ())
                .expect_err("there is no such column");
            (error.line, error.column, error.wrong)
        };
        let first = wrong("CREATE QUERY q AS SELECT event_tme FROM click");
        assert_eq!(first, wrong("CREATE QUERY q AS SELECT event_tme FROM click"));
        let lower = wrong("CREATE QUERY q AS\n SELECT event_tme FROM click");
        assert_eq!((lower.0, &lower.2), (first.0 + 1, &first.2));
    }
}
