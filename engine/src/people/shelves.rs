//! Shelves keep each person in a place of its own that never moves: to make one long list longer would copy all of it, and
//! need twice the memory meanwhile.

/// People on a shelf.
const SHELF: usize = 4_096;

/// Places by number, each empty or taken.
#[derive(Debug)]
pub(super) struct Shelves<T> {
    shelves: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Shelves<T> {
    fn default() -> Self {
        Self {
            shelves: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Shelves<T> {
    /// How many places there are, the empty ones among them.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes a free place.
    pub(super) fn put(&mut self, value: T) -> u32 {
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
        let value = self.shelves.get_mut(at / SHELF)?.get_mut(at % SHELF)?.take();
        if value.is_some() {
            self.free.push(place);
        }
        value
    }

    /// Who is there.
    pub(super) fn get(&self, place: usize) -> Option<&T> {
        self.shelves.get(place / SHELF)?.get(place % SHELF)?.as_ref()
    }

    /// Who is there, to be changed.
    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.shelves.get_mut(place / SHELF)?.get_mut(place % SHELF)?.as_mut()
    }

    /// All who are there.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.shelves.iter().flatten().flatten()
    }
}
