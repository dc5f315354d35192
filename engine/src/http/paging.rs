//! Lists answer `{"items": […], "next": …}`; `next` is handed back as `after` for the page behind.

use serde::{Deserialize, Serialize};

/// Items on a page when nobody says.
const LIMIT: usize = 100;
/// Items on a page at most.
const LIMIT_MAX: usize = 1_000;

/// Which page of a list.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
pub(super) struct Paging {
    /// Items at most, 1 to 1000; 100 when left out.
    pub limit: Option<usize>,
    /// The `next` of the page before.
    pub after: Option<String>,
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// To be handed back as `after`; null at the end.
    pub next: Option<String>,
}

impl Paging {
    /// Cuts the page out of all items; `key` tells them apart and stays the same between two pages.
    pub(super) fn cut<T>(&self, all: Vec<T>, key: impl Fn(&T) -> String) -> Page<T> {
        let limit = self.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
        let start = match &self.after {
            None => 0,
            // An item that has gone meanwhile leaves its place: what would stand behind it comes next.
            Some(after) => match all.iter().position(|item| key(item) == *after) {
                Some(at) => at + 1,
                None => all.iter().take_while(|item| key(item) <= *after).count(),
            },
        };
        let more = all.len() > start + limit;
        let items: Vec<T> = all.into_iter().skip(start).take(limit).collect();
        let next = if more { items.last().map(key) } else { None };
        Page { items, next }
    }
}
