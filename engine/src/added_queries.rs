//! Added queries are those that came while running; they lie in the data folder, a file each, and hold over restarts.

use std::io::Write;
use std::path::{Path, PathBuf};

use usher_queries::query_set::QuerySet;
use usher_queries::statement::{ParameterValues, parse_statements_with};

/// What stands in the file of a query that was removed.
const REMOVED: &str = "-- removed\n";

/// The folder within the data folder.
pub fn dir(data: &Path) -> PathBuf {
    data.join("queries")
}

/// The text of a file that keeps a query away.
pub fn removed() -> String {
    REMOVED.to_owned()
}

/// Writes a file whole or not at all.
///
/// # Errors
/// What the disk said.
pub fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Brings a query set to what was added and removed while running; `values` are those of parameters. What can't be used is
/// said and left out.
pub fn load(queries: &mut QuerySet, dir: &Path, values: &ParameterValues) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    files.sort();
    let mut statements = Vec::new();
    for file in &files {
        let Some(name) = file.file_stem().and_then(|stem| stem.to_str()) else {
            continue;
        };
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(file = %file.display(), %error, "an added query can't be read");
                continue;
            }
        };
        if queries.get(name).is_some()
            && let Err(reason) = queries.remove(name)
        {
            tracing::error!(query = name, reason, "the change to this query is left out");
            continue;
        }
        if text == REMOVED {
            continue;
        }
        match parse_statements_with(&text, Some(values)) {
            Ok(parsed) => statements.extend(parsed),
            Err(error) => tracing::error!(file = %file.display(), %error, "an added query is left out"),
        }
    }
    for (index, error) in queries.create_all(statements) {
        tracing::error!(statement = index, %error, "an added query is left out");
    }
}
