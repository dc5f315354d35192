//! The board is where public answers are put up, for anybody to read without asking the engine.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::bus::Bus;
use crate::zones::Name;

/// A zone as anybody may see it.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct PublicZone {
    /// The site.
    pub site: String,
    /// What people call the site.
    pub site_name: Name,
    /// The zone's id.
    pub zone: String,
    /// What people call it.
    pub name: Name,
    /// The zone it lies in.
    pub parent: Option<String>,
    /// Persons it is made for; null where nobody said.
    pub capacity: Option<u32>,
    /// Persons in it when that last changed by at least `privacy.k`, rounded down to a multiple of it; null where they are
    /// few.
    pub persons: Option<i64>,
    /// Whether fewer persons may be there than are shown, or than would keep others from being found out.
    pub few: bool,
    /// Whether the number is the sum of the zones in it, without those that are few.
    pub partial: bool,
    /// `persons` over capacity.
    pub share: Option<f64>,
    /// `quiet`, `busy`, `very busy`, `few`, or `unknown` where no capacity is.
    pub word: &'static str,
    /// The step at which this was put up, RFC 3339; null before the first.
    pub as_of: Option<String>,
}

impl PublicZone {
    /// Whether it says something else than `before`, apart from the time.
    fn differs_from(&self, before: &Self) -> bool {
        let without_time = |zone: &Self| Self {
            as_of: None,
            ..zone.clone()
        };
        without_time(self) != without_time(before)
    }
}

/// A measure of which anybody may see rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct PublicMeasure {
    /// Its name.
    pub name: String,
    /// What it measures and for whom, as its author wrote above it.
    pub comment: String,
}

/// Rows of a measure, the latest window first.
pub type PublicRows = Arc<Vec<Map<String, Value>>>;

/// Everything that anybody may see, as of one step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers {
    /// The zones that `site.toml` names, in its order.
    pub zones: Vec<PublicZone>,
    /// The measures, by name.
    pub measures: Vec<PublicMeasure>,
    /// Their rows.
    pub rows: BTreeMap<String, PublicRows>,
}

/// What is put up, and who is told of changes.
pub struct Board {
    answers: RwLock<Option<Arc<Answers>>>,
    bus: Bus,
}

impl Board {
    /// Nothing is put up yet. `epoch` tells the ids of this process from those of one before it.
    pub fn new(epoch: u64) -> Self {
        Self {
            answers: RwLock::new(None),
            bus: Bus::new(epoch),
        }
    }

    /// What is put up; `None` while the engine starts.
    pub fn answers(&self) -> Option<Arc<Answers>> {
        self.answers.read().expect("no holder of this lock panics").clone()
    }

    /// Who is told of zones that say something else, as `occupancy`.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Puts answers up in the place of those that were there.
    pub fn put(&self, answers: Answers) {
        let answers = Arc::new(answers);
        let before = {
            let mut put_up = self.answers.write().expect("no holder of this lock panics");
            put_up.replace(Arc::clone(&answers))
        };
        let before = before.unwrap_or_default();
        let before: BTreeMap<(&str, &str), &PublicZone> = before
            .zones
            .iter()
            .map(|zone| ((zone.site.as_str(), zone.zone.as_str()), zone))
            .collect();
        for zone in &answers.zones {
            let is_new = before
                .get(&(zone.site.as_str(), zone.zone.as_str()))
                .is_none_or(|before| zone.differs_from(before));
            if is_new {
                let data = serde_json::to_string(zone).expect("a zone is always JSON");
                self.bus.tell("occupancy", data);
            }
        }
    }
}
