//! Shelves keep each person in a place of its own that never moves: to make one long list longer would copy all of it, and
//! need twice the memory meanwhile. Whoever is looked for is found by name.

use std::hash::BuildHasher;

use rustc_hash::FxBuildHasher;
use usher_queries::tagged::{Tag, Tagged, tag_of};

/// People on a shelf.
const SHELF: usize = 4_096;

/// Places by number, each empty or taken.
#[derive(Debug)]
pub(super) struct Shelves<T> {
    shelves: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
    len: usize,
    /// Who is where. Names stand on the shelves only, where whoever is found is looked at anyway.
    names: Tagged,
}

impl<T> Default for Shelves<T> {
    fn default() -> Self {
        Self {
            shelves: Vec::new(),
            free: Vec::new(),
            len: 0,
            names: Tagged::default(),
        }
    }
}

fn tag(name: &str) -> Tag {
    tag_of(FxBuildHasher.hash_one(name))
}

impl<T> Shelves<T> {
    /// How many places there are, the empty ones among them.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        self.len - self.free.len()
    }

    /// Who is there.
    pub(super) fn get(&self, place: u32) -> Option<&T> {
        let place = place as usize;
        self.shelves.get(place / SHELF)?.get(place % SHELF)?.as_ref()
    }

    /// Who is there, to be changed.
    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        let place = place as usize;
        self.shelves.get_mut(place / SHELF)?.get_mut(place % SHELF)?.as_mut()
    }

    /// All who are there.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.shelves.iter().flatten().flatten()
    }
}

impl<T: AsRef<str>> Shelves<T> {
    /// Where the one of this name is.
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        let is_it = |place| self.get(place).is_some_and(|held| held.as_ref() == name);
        self.names.find(tag(name), is_it)
    }

    /// Gives a free place to somebody whose name has none.
    pub(super) fn put(&mut self, value: T) -> u32 {
        let tag = tag(value.as_ref());
        let place = self.room_for(value);
        self.names.insert(tag, place);
        place
    }

    fn room_for(&mut self, value: T) -> u32 {
        if let Some(place) = self.free.pop() {
            let at = place as usize;
            self.shelves[at / SHELF][at % SHELF] = Some(value);
            return place;
        }
        if self.len.is_multiple_of(SHELF) {
            self.shelves.push(Vec::with_capacity(SHELF));
        }
        if let Some(shelf) = self.shelves.last_mut() {
            shelf.push(Some(value));
        }
        self.len += 1;
        u32::try_from(self.len - 1).expect("there are fewer people than PEOPLE_MAX")
    }

    /// Empties a place.
    pub(super) fn take(&mut self, place: u32) -> Option<T> {
        let at = place as usize;
        let value = self.shelves.get_mut(at / SHELF)?.get_mut(at % SHELF)?.take()?;
        self.free.push(place);
        self.names.remove(tag(value.as_ref()), place);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_there_is_found_and_a_place_is_given_again() {
        let names = || (0..3 * SHELF).map(|number| format!("p:{number}"));
        let mut shelves: Shelves<String> = Shelves::default();
        for name in names() {
            assert_eq!(shelves.find(&name), None);
            shelves.put(name);
        }
        assert_eq!((shelves.len(), shelves.taken()), (3 * SHELF, 3 * SHELF));
        for (place, name) in (0..).zip(names()) {
            assert_eq!(shelves.find(&name), Some(place));
            assert_eq!(shelves.get(place), Some(&name));
        }
        assert_eq!(shelves.take(7), Some("p:7".to_owned()));
        assert_eq!(shelves.take(7), None, "nobody is there any more");
        assert_eq!(shelves.find("p:7"), None);
        assert_eq!((shelves.len(), shelves.taken()), (3 * SHELF, 3 * SHELF - 1));
        assert_eq!(shelves.iter().count(), 3 * SHELF - 1);
        assert_eq!(shelves.put("somebody else".to_owned()), 7);
        assert_eq!(shelves.find("somebody else"), Some(7));
    }

    #[test]
    fn two_names_with_one_tag_are_two() {
        // The tables are told of places only; who is there says the shelf.
        let mut shelves: Shelves<String> = Shelves::default();
        let (here, other) = (shelves.put("here".to_owned()), shelves.put("other".to_owned()));
        let tag = tag("here");
        assert!(shelves.names.remove(tag, here));
        for place in [other, here] {
            shelves.names.insert(tag, place);
        }
        assert_eq!(shelves.find("here"), Some(here));
    }
}
