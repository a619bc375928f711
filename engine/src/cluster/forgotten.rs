//! The ids of removed members: who may not come back.
//!
//! Bounded: at `MAX_FORGOTTEN` the one remembered longest makes room. A member that was removed that long ago could
//! then come back by itself, as it could in the original after a minute.

use crate::cluster::gossip::Forgotten;
use crate::ids::NodeId;
use std::collections::BTreeMap;

/// Most ids that are remembered.
pub const MAX_FORGOTTEN: usize = 4096;

/// Removed members, each with the last incarnation that is forgotten.
#[derive(Clone, Debug, Default)]
pub(crate) struct ForgottenIds {
    by_id: BTreeMap<NodeId, (u32, u64)>,
    by_age: BTreeMap<u64, NodeId>,
    next: u64,
}

impl ForgottenIds {
    /// Remembers an id; says whether that was news.
    pub(crate) fn insert(&mut self, forgotten: Forgotten) -> bool {
        if let Some((incarnation, _)) = self.by_id.get_mut(&forgotten.id) {
            let is_news = *incarnation < forgotten.incarnation;
            *incarnation = forgotten.incarnation.max(*incarnation);
            return is_news;
        }
        if self.by_id.len() >= MAX_FORGOTTEN
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.by_id.remove(&oldest);
        }
        self.by_id.insert(forgotten.id, (forgotten.incarnation, self.next));
        self.by_age.insert(self.next, forgotten.id);
        self.next += 1;
        true
    }

    /// Whether an identity that began with nothing in incarnation `joined` is one of them.
    pub(crate) fn holds(&self, id: NodeId, joined: u32) -> bool {
        self.by_id.get(&id).is_some_and(|&(incarnation, _)| joined <= incarnation)
    }

    /// All of them, longest remembered first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Forgotten> {
        self.by_age.values().map(|id| Forgotten { id: *id, incarnation: self.by_id[id].0 })
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
            assert!(ids.insert(Forgotten { id: id(n), incarnation: 3 }));
        }
        assert_eq!(ids.iter().count(), MAX_FORGOTTEN);
        assert!(!ids.holds(id(0), 3));
        assert!(ids.holds(id(1), 3));
    }

    #[test]
    fn an_identity_that_began_anew_later_is_not_held() {
        let mut ids = ForgottenIds::default();
        ids.insert(Forgotten { id: id(1), incarnation: 3 });
        assert!(!ids.insert(Forgotten { id: id(1), incarnation: 2 }), "older news");
        assert!(ids.holds(id(1), 3) && !ids.holds(id(1), 4));
    }
}
