//! Noting is how an operator that keeps single rows hands over those alone that came, changed or went.

use std::collections::HashMap;

use arrow::array::{ArrayRef, new_null_array};
use datafusion::common::{Result, internal_err};

use super::{CapturedOperator, Head, Taken, named_batch, placed};
use crate::in_parts::InParts;
use crate::window::Span;

/// Rows that are made into one batch at most.
const PART_MAX: usize = 4_096;

/// What the captures so far know of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mark {
    /// Nothing.
    #[default]
    New,
    /// All.
    Taken,
    /// What it was before.
    Changed,
}

/// What tells one row of an operator from all others, in all of its captures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id {
    /// Numbers of what it is part of; of most there is nothing such.
    pub(crate) of: (i64, i64),
    /// Its own number.
    pub(crate) number: i64,
}

impl Id {
    /// By its number alone.
    pub(crate) fn of_row(number: u64) -> Self {
        Self {
            of: (0, 0),
            // A number a row, each a nanosecond: three hundred years.
            number: i64::try_from(number).unwrap_or(i64::MAX),
        }
    }
}

/// What is noted between two captures. `P` is by what the operator finds a row again.
pub(crate) struct Noting<P> {
    taken: Taken,
    /// All rows behind that place are to be taken; `None` behind the last.
    all_behind: Option<Option<P>>,
    noted: InParts<P>,
    gone: InParts<Id>,
}

impl<P> Noting<P> {
    /// A row came or changed; `mark` is what was known of it.
    pub(crate) fn note(&mut self, mark: &mut Mark, place: P) {
        if *mark == Mark::Taken {
            *mark = Mark::Changed;
            self.noted.push(place);
        }
    }

    /// A row came.
    pub(crate) fn note_new(&mut self, place: P) {
        self.noted.push(place);
    }

    /// A row went of which that much was known.
    pub(crate) fn note_gone(&mut self, mark: Mark, id: Id) {
        if mark != Mark::New {
            self.gone.push(id);
        }
    }
}

/// Rows as named columns, and the id of each.
pub(crate) type Rows = (Vec<Id>, Vec<(String, ArrayRef)>);

/// An operator that keeps single rows.
///
/// Contract, trusted: what comes, changes and goes is noted while there is a noting; a row's id is of no other, not even of
/// one that is gone.
pub(crate) trait KeepsRows {
    /// By what a row is found.
    type Place: Clone;

    /// What is noted; `None` where nobody captures, or the next capture takes all.
    fn noting(&mut self) -> &mut Option<Noting<Self::Place>>;
    /// The places behind `last`, in their order, `most` at most.
    fn behind(&self, last: Option<&Self::Place>, most: usize) -> Vec<Self::Place>;
    /// What is known of the row at a place; `None` where there is none any more.
    fn mark(&mut self, place: &Self::Place) -> Option<&mut Mark>;
    /// The rows at these places as columns, with their ids.
    fn rows_at(&self, places: &[Self::Place]) -> Result<Rows>;
    /// How many rows are kept.
    fn rows_kept(&self) -> usize;
    /// What else is to be remembered.
    fn texts(&self) -> HashMap<String, String> {
        HashMap::new()
    }

    /// Takes what has changed since the last capture, about `room` rows of it; at first all there are.
    fn gather_rows(&mut self, room: &mut usize) -> Result<()> {
        let new = || Noting {
            taken: Taken::new(),
            all_behind: Some(None),
            noted: InParts::default(),
            gone: InParts::default(),
        };
        let mut noting = self.noting().take().unwrap_or_else(new);
        let mut taken = Ok(());
        while taken.is_ok() && *room > 0 {
            let part = (*room).min(PART_MAX);
            let places = if let Some(last) = noting.all_behind.take() {
                let places = self.behind(last.as_ref(), part);
                noting.all_behind = (places.len() == part).then(|| places.last().cloned());
                // Whatever earlier captures knew of them.
                for place in &places {
                    if let Some(mark) = self.mark(place) {
                        *mark = Mark::New;
                    }
                }
                places
            } else if !noting.gone.is_empty() {
                let gone = noting.gone.take(part);
                *room -= gone.len();
                taken = self.take_gone(&gone, &mut noting.taken);
                continue;
            } else if noting.noted.is_empty() {
                break;
            } else {
                noting.noted.take(part)
            };
            *room -= places.len();
            taken = self.take_places(places, &mut noting.taken);
        }
        *self.noting() = Some(noting);
        taken
    }

    /// Takes these rows.
    fn take_places(&mut self, mut places: Vec<Self::Place>, taken: &mut Taken) -> Result<()> {
        // One may be here twice: it came, was gone through with all others, and changed.
        places.retain(|place| {
            let mark = self.mark(place);
            mark.is_some_and(|mark| std::mem::replace(mark, Mark::Taken) != Mark::Taken)
        });
        let (ids, kept) = self.rows_at(&places)?;
        if !ids.is_empty() {
            let mut columns = columns_of(&ids, taken.next_turn(), false);
            columns.extend(kept);
            taken.push(named_batch(columns, ids.len())?)?;
        }
        Ok(())
    }

    /// Takes that these rows are gone.
    fn take_gone(&mut self, gone: &[Id], taken: &mut Taken) -> Result<()> {
        // Of the columns' types, without rows.
        let (_, kept) = self.rows_at(&[])?;
        let mut columns = columns_of(gone, taken.next_turn(), true);
        let nothing = |(name, column): (String, ArrayRef)| (name, new_null_array(column.data_type(), gone.len()));
        columns.extend(kept.into_iter().map(nothing));
        taken.push(named_batch(columns, gone.len())?)?;
        Ok(())
    }

    /// Takes what has changed since the last capture and was not taken yet; all of it is handed over.
    fn capture_rows(&mut self) -> Result<CapturedOperator> {
        let mut room = usize::MAX;
        self.gather_rows(&mut room)?;
        let head = Head {
            windows: Vec::new(),
            said: Vec::new(),
            has_windows: false,
        };
        let (head, kept) = (head.with(self.texts()), self.rows_kept());
        let Some(noting) = self.noting() else {
            return internal_err!("what changes is noted from the first capture on");
        };
        Ok(noting.taken.capture(head, kept))
    }
}

fn columns_of(ids: &[Id], turn: i64, are_gone: bool) -> Vec<(String, ArrayRef)> {
    let span = |id: &Id| Span {
        start: id.of.0,
        end: id.of.1,
    };
    placed(ids.iter().map(|id| (span(id), id.number)), turn, are_gone)
}
