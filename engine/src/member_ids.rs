//! Which node stands behind each member index: the bridge between the indices that counters hold, which mean nothing
//! after a restart, and the ids that the disk knows.
//!
//! Written by the cluster (an index gets its id before the first shard under it is merged, and loses it after the last
//! is gone) and, while counters are loaded, by the loader; read by the log.

use crate::ids::{MemberIndex, NodeId};
use crate::shard::MAX_MEMBERS;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// All indices of members ever known are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyMembers;

/// The ids behind the indices. Index 0 is the node itself and stands elsewhere (`Node::id`).
#[derive(Debug, Default)]
pub(crate) struct MemberIds {
    ids: RwLock<Vec<Option<NodeId>>>,
    version: AtomicU64,
}

impl MemberIds {
    /// Rises with every change. Who holds the lock of a stripe and sees no rise knows the ids of all shards in it.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The id behind an index.
    pub(crate) fn id(&self, index: MemberIndex) -> Option<NodeId> {
        self.ids.read().get(usize::from(index.0)).copied().flatten()
    }

    /// All indices in use, in order.
    pub(crate) fn all(&self) -> Vec<(MemberIndex, NodeId)> {
        let ids = self.ids.read();
        let used = ids.iter().enumerate().filter_map(|(index, id)| Some((MemberIndex(index as u16), (*id)?)));
        used.collect()
    }

    /// Says who stands behind an index from now on, `None`: nobody.
    pub(crate) fn set(&self, index: MemberIndex, id: Option<NodeId>) {
        let place = usize::from(index.0);
        assert!((1..MAX_MEMBERS).contains(&place), "an index of a member other than the node itself");
        let mut ids = self.ids.write();
        if ids.len() <= place {
            ids.resize(place + 1, None);
        }
        if ids[place] != id {
            ids[place] = id;
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// The index of that id; the lowest free one is given to it if it has none.
    ///
    /// # Errors
    /// `TooManyMembers`; nothing has changed.
    pub(crate) fn index_of(&self, id: NodeId) -> Result<MemberIndex, TooManyMembers> {
        let mut ids = self.ids.write();
        if ids.is_empty() {
            ids.push(None);
        }
        if let Some(place) = ids.iter().position(|known| *known == Some(id)) {
            return Ok(MemberIndex(place as u16));
        }
        let free = ids.iter().skip(1).position(Option::is_none).map_or(ids.len(), |place| place + 1);
        if free >= MAX_MEMBERS {
            return Err(TooManyMembers);
        }
        if free == ids.len() {
            ids.push(None);
        }
        ids[free] = Some(id);
        self.version.fetch_add(1, Ordering::Release);
        Ok(MemberIndex(free as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> NodeId {
        NodeId([byte; 20])
    }

    #[test]
    fn an_id_keeps_its_index_and_new_ones_take_the_lowest_free() {
        let ids = MemberIds::default();
        assert_eq!(ids.index_of(id(1)), Ok(MemberIndex(1)));
        assert_eq!(ids.index_of(id(2)), Ok(MemberIndex(2)));
        assert_eq!(ids.index_of(id(1)), Ok(MemberIndex(1)));
        ids.set(MemberIndex(1), None);
        ids.set(MemberIndex(4), Some(id(4)));
        assert_eq!(ids.index_of(id(3)), Ok(MemberIndex(1)));
        assert_eq!(ids.index_of(id(5)), Ok(MemberIndex(3)));
        let all: Vec<u16> = ids.all().iter().map(|(index, _)| index.0).collect();
        assert_eq!(all, [1, 2, 3, 4]);
        assert_eq!((ids.id(MemberIndex(4)), ids.id(MemberIndex(9))), (Some(id(4)), None));
    }

    #[test]
    fn a_full_table_is_an_error() {
        let ids = MemberIds::default();
        ids.set(MemberIndex(MAX_MEMBERS as u16 - 1), Some(id(9)));
        for place in 1..MAX_MEMBERS - 1 {
            ids.set(MemberIndex(place as u16), Some(id(1)));
        }
        assert_eq!(ids.index_of(id(2)), Err(TooManyMembers));
    }
}
