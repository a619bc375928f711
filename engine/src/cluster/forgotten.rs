//! The ids of removed members. Nobody comes back under one, not even who has begun with nothing since: those who have seen both lives
//! would count two members, and who comes later one.
//!
//! Bounded: at `MAX_FORGOTTEN` the one remembered longest makes room. A member that was removed that long ago could
//! then come back by itself, as it could in the original after a minute.

use crate::ids::NodeId;
use std::collections::{BTreeSet, VecDeque};

/// Most ids that are remembered.
pub const MAX_FORGOTTEN: usize = 4096;

/// Removed members.
#[derive(Clone, Debug, Default)]
pub(crate) struct ForgottenIds {
    by_age: VecDeque<NodeId>,
    all: BTreeSet<NodeId>,
}

impl ForgottenIds {
    /// Remembers an id; says whether that was news.
    pub(crate) fn insert(&mut self, id: NodeId) -> bool {
        if !self.all.insert(id) {
            return false;
        }
        if self.by_age.len() >= MAX_FORGOTTEN
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.all.remove(&oldest);
        }
        self.by_age.push_back(id);
        true
    }

    pub(crate) fn holds(&self, id: NodeId) -> bool {
        self.all.contains(&id)
    }

    /// All of them, longest remembered first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = NodeId> {
        self.by_age.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> NodeId {
        NodeId(std::array::from_fn(|i| if i < 8 { n.to_be_bytes()[i] } else { 0 }))
    }

    #[test]
    fn the_one_remembered_longest_makes_room() {
        let mut ids = ForgottenIds::default();
        for n in 0..=MAX_FORGOTTEN {
            assert!(ids.insert(id(n)));
            assert!(!ids.insert(id(n)), "it is known");
        }
        assert_eq!(ids.iter().count(), MAX_FORGOTTEN);
        assert!(!ids.holds(id(0)));
        assert!(ids.holds(id(1)));
    }
}
