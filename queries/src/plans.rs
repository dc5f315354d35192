//! Plans that were made lately: the same SELECT over the same columns is planned once, however often it is created.
//!
//! A start makes all queries to see whether they are right, once more to run them, and a third time where it has to work
//! out from the log what one of them would hold; a change over the API is checked before it is made. A plan is kept with
//! all that it was made from, and nothing else is at hand where it is made: so none is used for what it was not made for.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use rustc_hash::FxHashMap;

use crate::catalog::Catalog;

/// Plans that are kept, several times as many as there are shipped queries.
const PLANS_MAX: usize = 256;
/// Bytes of SQL whose plans are kept: as much as four of the longest statements, far more than the shipped queries have. A
/// plan is as long as its SQL, or what it reads, is, and some dozen times as large.
const TEXT_MAX: usize = 1 << 20;

static PLANS: LazyLock<Mutex<Plans>> = LazyLock::new(|| Mutex::new(Plans::new(PLANS_MAX, TEXT_MAX)));

/// All that a plan depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    text: String,
    relations: BTreeMap<String, SchemaRef>,
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
            .map(|(name, entry)| (name.to_owned(), Arc::clone(&entry.schema)))
            .collect();
        Self { text, relations }
    }

    /// The SELECT, in which places are those of the whole text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The columns of what it may read.
    pub(crate) fn relations(&self) -> &BTreeMap<String, SchemaRef> {
        &self.relations
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
        return Ok(plan);
    }
    // Nobody waits meanwhile: two who ask for the same at the same time both make it.
    let plan = Arc::new(make(&asked)?);
    plans().keep(asked, Arc::clone(&plan));
    Ok(plan)
}

/// Plans by what they were made from.
struct Plans {
    kept: FxHashMap<Asked, Kept>,
    plans_max: usize,
    text_max: usize,
    /// Bytes of SQL of what is kept.
    text: usize,
    /// Counts what was asked for.
    asked: u64,
}

struct Kept {
    plan: Arc<Plan>,
    /// When it was last asked for.
    asked: u64,
}

impl Plans {
    fn new(plans_max: usize, text_max: usize) -> Self {
        Self {
            kept: FxHashMap::default(),
            plans_max,
            text_max,
            text: 0,
            asked: 0,
        }
    }

    fn get(&mut self, asked: &Asked) -> Option<Arc<Plan>> {
        self.asked += 1;
        let kept = self.kept.get_mut(asked)?;
        kept.asked = self.asked;
        Some(Arc::clone(&kept.plan))
    }

    /// Keeps a plan in the place of those that were not asked for the longest.
    fn keep(&mut self, asked: Asked, plan: Arc<Plan>) {
        let text = asked.text.len();
        if text > self.text_max || self.kept.contains_key(&asked) {
            return;
        }
        while self.kept.len() >= self.plans_max || self.text + text > self.text_max {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.asked);
            let Some(oldest) = oldest.map(|(asked, _)| asked.clone()) else {
                break;
            };
            self.kept.remove(&oldest);
            self.text -= oldest.text.len();
        }
        self.text += text;
        self.asked += 1;
        let kept = Kept {
            plan,
            asked: self.asked,
        };
        self.kept.insert(asked, kept);
    }
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

    fn asked(text: &str) -> Asked {
        Asked::of(text.to_owned(), &Catalog::new())
    }

    fn some_plan() -> Arc<Plan> {
        let empty = datafusion::logical_expr::LogicalPlanBuilder::empty(false).build();
        Arc::new(Plan::new(empty.expect("nothing can be planned")))
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
        let elsewhere = Asked {
            text: format!("\n{text}"),
            ..whole.clone()
        };
        assert_ne!(whole, elsewhere, "mistakes would be told at another place");
    }

    #[test]
    fn what_was_asked_for_last_stays() {
        let mut plans = Plans::new(3, 1_000);
        for text in ["SELECT 1", "SELECT 2", "SELECT 3"] {
            plans.keep(asked(text), some_plan());
        }
        assert!(plans.get(&asked("SELECT 1")).is_some());
        plans.keep(asked("SELECT 4"), some_plan());
        let is_there = |plans: &mut Plans, text: &str| plans.get(&asked(text)).is_some();
        assert!(is_there(&mut plans, "SELECT 1"), "it was asked for after the others");
        assert!(!is_there(&mut plans, "SELECT 2"));
        assert!(is_there(&mut plans, "SELECT 3") && is_there(&mut plans, "SELECT 4"));
    }

    #[test]
    fn many_long_texts_do_not_stay() {
        let long = |letter: &str| format!("SELECT '{}'", letter.repeat(90));
        let mut plans = Plans::new(100, 250);
        for letter in ["a", "b", "c", "d"] {
            plans.keep(asked(&long(letter)), some_plan());
        }
        assert_eq!(plans.kept.len(), 2);
        assert!(plans.text <= 250, "{} bytes", plans.text);
        plans.keep(asked(&"x".repeat(251)), some_plan());
        assert_eq!(plans.kept.len(), 2, "what is too long alone takes no other's place");
        for letter in ["c", "d"] {
            assert!(plans.get(&asked(&long(letter))).is_some(), "{letter}");
        }
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
