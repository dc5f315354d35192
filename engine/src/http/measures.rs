//! Measures of service and relationship over HTTP, as queries say them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::request::{Path, Query};
use crate::http::paging::{Page, Paging};
use crate::http::{Problem, Shared};
use crate::measures::{MEASURES, WINDOW_START, shown_rows};

/// A row of a measure, by column.
type Row = Map<String, Value>;

/// Which rows are wanted. What a measure does not have as a column none of its rows has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, utoipa::IntoParams)]
pub(super) struct Wanted {
    /// Of this measure, without `measure_`.
    pub measure: Option<String>,
    /// Of this site.
    pub site: Option<String>,
    /// Of this zone.
    pub zone: Option<String>,
    /// Of the cohort that began on this day, as 2026-03-16.
    pub cohort: Option<String>,
    /// Of this service.
    pub service: Option<String>,
    /// Of windows that begin then or later, RFC 3339, or a day, UTC.
    pub window_from: Option<String>,
    /// Of windows that begin before then.
    pub window_to: Option<String>,
}

/// What is wanted, read.
#[derive(Debug, PartialEq)]
struct Filter {
    columns: Vec<(&'static str, String)>,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
}

impl Wanted {
    fn filter(&self) -> Result<Filter, Problem> {
        let columns = [
            ("site", &self.site),
            ("zone", &self.zone),
            ("cohort", &self.cohort),
            ("service", &self.service),
        ];
        let wanted = columns
            .into_iter()
            .filter_map(|(column, value)| Some((column, value.clone()?)));
        Ok(Filter {
            columns: wanted.collect(),
            from: instant("window_from", self.window_from.as_deref())?,
            to: instant("window_to", self.window_to.as_deref())?,
        })
    }
}

impl Filter {
    fn takes(&self, row: &Row) -> bool {
        let start = row.get(WINDOW_START).and_then(Value::as_str);
        let start = start.and_then(|start| start.parse::<DateTime<Utc>>().ok());
        self.columns
            .iter()
            .all(|(column, wanted)| row.get(*column).and_then(Value::as_str) == Some(wanted))
            && self.from.is_none_or(|from| start.is_some_and(|start| start >= from))
            && self.to.is_none_or(|to| start.is_some_and(|start| start < to))
    }
}

/// An instant, or the midnight with which a day begins.
fn instant(name: &str, text: Option<&str>) -> Result<Option<DateTime<Utc>>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let day = || {
        text.parse::<NaiveDate>()
            .ok()?
            .and_hms_opt(0, 0, 0)
            .map(|at| at.and_utc())
    };
    let instant = text.parse::<DateTime<Utc>>().ok().or_else(day);
    instant.map(Some).ok_or_else(|| {
        Problem::new(StatusCode::BAD_REQUEST, format!("`{name}` is no time: {text}"))
            .right("2026-03-02 or 2026-03-02T00:00:00Z would be right")
    })
}

/// A measure.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct MeasureView {
    /// Its name, without `measure_`.
    pub name: String,
    /// What it measures and for whom, as its author wrote above it.
    pub comment: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// Rows it has said and that are kept.
    pub rows: usize,
}

/// A measure, or where rows are asked for one of them with the name of its `measure`.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(super) enum MeasureItem {
    /// A measure.
    Measure(MeasureView),
    /// A row of one.
    #[schema(value_type = Object)]
    Row(Row),
}

/// All measures; or, where a filter is given, what those that have its columns said last, by measure, the latest window first.
#[utoipa::path(get, path = "/api/v1/measures", params(Wanted, Paging),
    responses((status = 200, body = Page<MeasureItem>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(wanted): Query<Wanted>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<MeasureItem>>, Problem> {
    let filter = wanted.filter()?;
    let are_rows_wanted = wanted != Wanted::default();
    let measures = shared.asker.ask(move |pipeline| {
        let perception = &pipeline.perception;
        let queries = perception.queries.queries().iter();
        let mut measures: Vec<(MeasureView, Vec<String>)> = queries
            .filter_map(|query| {
                let name = query.name().strip_prefix(MEASURES)?;
                if wanted.measure.as_deref().is_some_and(|wanted| wanted != name) {
                    return None;
                }
                let columns = query.schema().fields().iter().map(|field| field.name().clone());
                let view = MeasureView {
                    name: name.to_owned(),
                    comment: query.statement().comment.clone(),
                    columns: columns.collect(),
                    rows: perception.measures.len(query.name()),
                };
                // Read where no event waits for it.
                let rows = match are_rows_wanted {
                    true => perception.measures.kept(query.name()),
                    false => Vec::new(),
                };
                Some((view, rows))
            })
            .collect();
        measures.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        match wanted.measure {
            Some(unknown) if measures.is_empty() => Err(Problem::not_found("measure", &unknown)),
            _ => Ok(measures),
        }
    });
    let measures = measures.await??;
    let mut items: Vec<(String, MeasureItem)> = Vec::new();
    for (view, rows) in measures {
        if !are_rows_wanted {
            items.push((view.name.clone(), MeasureItem::Measure(view)));
            continue;
        }
        for (place, mut row) in places(shown_rows(&rows, shared.privacy_k), &filter) {
            row.insert("measure".to_owned(), view.name.clone().into());
            items.push((format!("{} {place}", view.name), MeasureItem::Row(row)));
        }
    }
    let page = paging.cut(items, |(place, _)| place.clone());
    Ok(Json(Page {
        items: page.items.into_iter().map(|(_, item)| item).collect(),
        next: page.next,
    }))
}

/// Rows from the last to the first, so that one that comes meanwhile stands before the pages that were read; each with its place.
fn places(rows: Vec<Row>, filter: &Filter) -> Vec<(String, Row)> {
    let rows = rows.into_iter().enumerate().rev().filter(|(_, row)| filter.takes(row));
    rows.map(|(number, row)| (format!("{:08}", 100_000_000 - number), row))
        .collect()
}

/// What a measure said last of each cohort, zone, service or site, the latest window first. Where fewer persons than
/// `privacy.k` stand behind a row its figures are null and `few` is true.
#[utoipa::path(get, path = "/api/v1/measures/{name}", params(("name" = String, Path), Wanted, Paging),
    responses((status = 200, body = Page<Object>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Row>>, Problem> {
    let (filter, query) = (wanted.filter()?, format!("{MEASURES}{name}"));
    let rows = shared.asker.ask(move |pipeline| {
        let perception = &pipeline.perception;
        perception.queries.get(&query)?;
        Some(perception.measures.kept(&query))
    });
    let rows = rows.await?.ok_or_else(|| Problem::not_found("measure", &name))?;
    let rows = places(shown_rows(&rows, shared.privacy_k), &filter);
    let page = paging.cut(rows, |(place, _)| place.clone());
    Ok(Json(Page {
        items: page.items.into_iter().map(|(_, row)| row).collect(),
        next: page.next,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Row, Wanted, places};

    fn row(site: &str, service: &str, day: &str) -> Row {
        let row = json!({"site": site, "service": service, "window_start": format!("{day}T00:00:00Z")});
        row.as_object().expect("it is one").clone()
    }

    #[test]
    fn rows_are_chosen_by_what_they_are_about_and_when_their_window_begins() {
        let rows = || {
            vec![
                row("main", "loan", "2026-03-02"),
                row("main", "search", "2026-03-03"),
                row("north", "loan", "2026-03-04"),
            ]
        };
        let taken = |wanted: Wanted| -> Vec<String> {
            let rows = places(rows(), &wanted.filter().expect("it is right"));
            rows.into_iter()
                .map(|(_, row)| row["window_start"].to_string())
                .collect()
        };
        let text = |text: &str| Some(text.to_owned());
        let days = [
            "\"2026-03-04T00:00:00Z\"",
            "\"2026-03-03T00:00:00Z\"",
            "\"2026-03-02T00:00:00Z\"",
        ];
        assert_eq!(taken(Wanted::default()), days);
        let loans = Wanted {
            service: text("loan"),
            ..Wanted::default()
        };
        assert_eq!(taken(loans.clone()), [days[0], days[2]]);
        assert_eq!(
            taken(Wanted {
                site: text("main"),
                ..loans
            }),
            [days[2]]
        );
        assert_eq!(
            taken(Wanted {
                zone: text("hall"),
                ..Wanted::default()
            }),
            [""; 0]
        );
        let between = Wanted {
            window_from: text("2026-03-03"),
            window_to: text("2026-03-04T08:00:00+08:00"),
            ..Wanted::default()
        };
        assert_eq!(taken(between), [days[1]]);
        let wrong = Wanted {
            window_to: text("tomorrow"),
            ..Wanted::default()
        };
        assert!(wrong.filter().is_err());
    }
}
