//! Where counters stand, and sets of such places.

use super::STRIPES;

/// Where a counter stands. Stays true while the counter lives; may mean another one afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Handle {
    pub(crate) stripe: u16,
    pub(crate) index: u32,
}

/// A set of places for which it does not matter how many there are: a bit for each that there might be.
#[derive(Debug)]
pub(crate) struct HandleSet {
    /// For each stripe the words of its bits, up to the last that is set.
    stripes: Vec<Vec<u64>>,
}

impl HandleSet {
    pub(crate) fn new() -> HandleSet {
        HandleSet { stripes: vec![Vec::new(); STRIPES] }
    }

    pub(crate) fn insert(&mut self, handle: Handle) {
        let (words, word) = (&mut self.stripes[usize::from(handle.stripe)], handle.index as usize / 64);
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= 1 << (handle.index % 64);
    }

    pub(crate) fn contains(&self, handle: Handle) -> bool {
        let word = self.stripes[usize::from(handle.stripe)].get(handle.index as usize / 64);
        word.is_some_and(|word| word & 1 << (handle.index % 64) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_just_what_was_put_in() {
        let mut set = HandleSet::new();
        let places = [(0, 0), (0, 63), (0, 64), (7, 1_000), (1_023, 5)];
        let handle = |(stripe, index)| Handle { stripe, index };
        places.into_iter().for_each(|place| set.insert(handle(place)));
        assert!(places.into_iter().all(|place| set.contains(handle(place))));
        let others = [(0, 1), (0, 62), (0, 65), (1, 0), (7, 999), (7, 1_001), (1_023, 4), (1_023, 500)];
        assert!(others.into_iter().all(|place| !set.contains(handle(place))));
    }
}
