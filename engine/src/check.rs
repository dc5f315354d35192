//! `usher check`: reads a whole config folder, plans every query in it, starts nothing, and tells all mistakes.

use std::path::{Path, PathBuf};

use usher_queries::error::QueryError;
use usher_queries::query_set::QuerySet;
use usher_queries::shipped::SHIPPED;
use usher_queries::statement::{ParameterValues, Statement, parse_statements_with};

use crate::added_queries;
use crate::position::Mistake;
use crate::reference::set_references;
use crate::rule::check_inhibition;
use crate::settings::{Flags, ParameterSettings, Settings, check_dir};
use crate::site::Places;

/// What was found right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Shipped statements planned.
    pub shipped: usize,
    /// Statements of the folder planned.
    pub own: usize,
    /// What is right and yet may surprise: a query that keeps more and more, or may never speak.
    pub warnings: Vec<Mistake>,
}

/// Checks `usher.toml`, `site.toml` and `queries/*.sql` of a folder.
///
/// # Errors
/// All mistakes, in the order of files and lines.
pub fn check(dir: &Path) -> Result<Checked, Vec<Mistake>> {
    let mut mistakes = check_dir(dir);
    let places = Places::load(dir).unwrap_or_default();
    let mut queries = QuerySet::new();
    set_references(&mut queries, &places);
    let settings = Settings::load_with(Some(dir), [], &Flags::default());
    let (parameters, added) = settings.map_or_else(
        |_| (ParameterSettings::default(), None),
        |settings| (settings.parameters, Some(added_queries::dir(&settings.data))),
    );
    match load_queries_with(&mut queries, dir, added.as_deref(), &parameters) {
        Ok(checked) if mistakes.is_empty() => return Ok(checked),
        Ok(_) => {}
        Err(found) => mistakes.extend(found),
    }
    Err(mistakes)
}

/// Creates the shipped statements and those of a folder's `queries/*.sql`; one of the folder may replace a shipped
/// one of the same name.
///
/// # Errors
/// All mistakes; the statements without one run.
pub fn load_queries(queries: &mut QuerySet, dir: &Path) -> Result<Checked, Vec<Mistake>> {
    load_queries_with(queries, dir, None, &ParameterSettings::default())
}

/// The same with the values that the settings give to parameters, also those of queries that were added while running and lie in
/// the folder `added`.
///
/// # Errors
/// All mistakes, also those in the values; the statements without one run.
pub fn load_queries_with(
    queries: &mut QuerySet,
    dir: &Path,
    added: Option<&Path>,
    parameters: &ParameterSettings,
) -> Result<Checked, Vec<Mistake>> {
    let mut mistakes = parameters.mistakes(&declared(dir, added));
    // A value that is wrong was told where it stands, and is then as good as none.
    let right = ParameterValues::default();
    let values = if mistakes.is_empty() {
        &parameters.values
    } else {
        &right
    };
    let mut own: Vec<(PathBuf, Statement)> = Vec::new();
    for file in sql_files(&dir.join("queries")) {
        let parsed = std::fs::read_to_string(&file)
            .map_err(|error| QueryError {
                line: 1,
                column: 1,
                wrong: format!("the file can't be read: {error}"),
                right: Some("a text file with CREATE QUERY and CREATE ALERT statements".to_owned()),
            })
            .and_then(|text| parse_statements_with(&text, Some(values)));
        match parsed {
            Ok(statements) => own.extend(statements.into_iter().map(|statement| (file.clone(), statement))),
            Err(error) => mistakes.push(mistake(&file, error)),
        }
    }
    let mut all: Vec<(PathBuf, Statement)> = Vec::new();
    for file in SHIPPED {
        let statements = parse_statements_with(file.text, Some(values))
            .map_err(|error| vec![mistake(Path::new(file.name), error)])?;
        let replaced = |statement: &Statement| own.iter().any(|(_, other)| other.name == statement.name);
        all.extend(
            statements
                .into_iter()
                .filter(|statement| !replaced(statement))
                .map(|statement| (PathBuf::from(file.name), statement)),
        );
    }
    let mut checked = Checked {
        shipped: all.len(),
        own: own.len(),
        warnings: Vec::new(),
    };
    all.append(&mut own);
    let files: Vec<PathBuf> = all.iter().map(|(file, _)| file.clone()).collect();
    let names: Vec<String> = all.iter().map(|(_, statement)| statement.name.clone()).collect();
    let statements = all.into_iter().map(|(_, statement)| statement).collect();
    mistakes.extend(
        queries
            .create_all(statements)
            .into_iter()
            .map(|(index, error)| mistake(&files[index], error)),
    );
    for (file, name) in files.iter().zip(&names) {
        if let Some(query) = queries.get(name)
            && let Err(error) = check_inhibition(queries, &[], query.statement())
        {
            mistakes.push(mistake(file, error));
        }
        let warnings = queries.get(name).map_or(&[][..], |query| query.warnings());
        let told = warnings.iter().map(|warning| mistake(file, warning.clone()));
        checked.warnings.extend(told);
    }
    if mistakes.is_empty() {
        Ok(checked)
    } else {
        Err(mistakes)
    }
}

/// All statements as written, for what they declare; those that were added first, then those of the folder. A file with a mistake
/// in it is told elsewhere.
fn declared(dir: &Path, added: Option<&Path>) -> Vec<Statement> {
    let added = added.map(sql_files).unwrap_or_default();
    let own = added
        .into_iter()
        .chain(sql_files(&dir.join("queries")))
        .filter_map(|file| std::fs::read_to_string(file).ok());
    let texts = own.chain(SHIPPED.iter().map(|file| file.text.to_owned()));
    let read = texts.filter_map(|text| parse_statements_with(&text, None).ok());
    read.flatten().collect()
}

fn mistake(file: &Path, error: QueryError) -> Mistake {
    Mistake {
        file: file.to_owned(),
        line: usize::try_from(error.line).unwrap_or(usize::MAX),
        column: usize::try_from(error.column).unwrap_or(usize::MAX),
        wrong: error.wrong,
        right: error
            .right
            .unwrap_or_else(|| "see docs/SQL.md for what a query may say".to_owned()),
    }
}

/// A folder's query files in the order of their names.
fn sql_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    files.sort();
    files
}
