//! Orders are what the journal has still to write: steps that were told, marks, and what goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use usher_connectors::spool::Change;

use super::step::Told;

/// Something to be written.
pub(super) enum Order {
    /// A step, over one of its number.
    Step(Arc<Told>),
    /// A mark with its value.
    Mark(String, Bytes),
    /// A mark that goes.
    Unmark(String),
    /// Steps from the first of these numbers to before the second go.
    Trim(u64, u64),
}

/// Orders, in the order in which they were given, as changes that are written at once: of what is written more than once
/// only the last is among them.
pub(super) fn changes_of(orders: &[Order]) -> Vec<Change> {
    let mut entries: BTreeMap<u64, Option<&Told>> = BTreeMap::new();
    let mut marks: BTreeMap<&str, Option<&Bytes>> = BTreeMap::new();
    for order in orders {
        match order {
            Order::Step(step) => {
                entries.insert(step.number, Some(step));
            }
            Order::Trim(from, to) => entries.extend((*from..*to).map(|number| (number, None))),
            Order::Mark(name, bytes) => {
                marks.insert(name, Some(bytes));
            }
            Order::Unmark(name) => {
                marks.insert(name, None);
            }
        }
    }
    let entries = entries.into_iter().map(|(number, step)| match step {
        Some(step) => Change::Put(number, step.to_bytes()),
        None => Change::Drop(number),
    });
    let marks = marks.into_iter().map(|(name, bytes)| match bytes {
        Some(bytes) => Change::Mark(name.to_owned(), bytes.clone()),
        None => Change::Unmark(name.to_owned()),
    });
    entries.chain(marks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::State;
    use crate::outbox::news::News;
    use crate::outbox::step::StepNames;
    use crate::outbox::step::tests::alert;

    #[test]
    fn of_what_is_written_again_the_last_counts() {
        let step = |number, id: &str| {
            let alert = alert(id, "hall", State::Active);
            let id = StepNames::default().name(&alert);
            Arc::new(Told::new(number, id, News::from(&alert), 0, None))
        };
        let mark = |name: &str, value: &'static str| Order::Mark(name.to_owned(), Bytes::from(value));
        let (gone, other, last) = (step(0, "a"), step(1, "b"), step(1, "c"));
        let changes = changes_of(&[
            Order::Step(gone),
            mark("at", "1"),
            Order::Step(other),
            mark("to", "1"),
            Order::Trim(0, 1),
            Order::Step(Arc::clone(&last)),
            Order::Unmark("at".to_owned()),
            mark("to", "2"),
        ]);
        let wanted = [
            Change::Drop(0),
            Change::Put(1, last.to_bytes()),
            Change::Unmark("at".to_owned()),
            Change::Mark("to".to_owned(), Bytes::from("2")),
        ];
        assert_eq!(changes, wanted);
    }
}
