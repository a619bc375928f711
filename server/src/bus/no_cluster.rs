//! The cluster of a node that has none yet: keeps the id, closes every link, refuses every request.

use super::Door;
use engine::cluster::{ClusterRequest, Effect, Input, LinkId};
use engine::time::{Micros, Now};
use engine::{NodeId, TaskResult};
use std::collections::VecDeque;

/// Stands in the place of `engine::cluster::Cluster`.
pub(crate) struct NoCluster {
    links: u64,
    effects: VecDeque<Effect>,
}

impl NoCluster {
    /// A node of this id.
    pub(crate) fn new(id: NodeId) -> NoCluster {
        let line = format!("{id} :0 myself 0 0 connected\n");
        NoCluster { links: 0, effects: VecDeque::from([Effect::SaveNodes(line.into_bytes())]) }
    }
}

impl Door for NoCluster {
    fn new_link(&mut self) -> LinkId {
        self.links += 1;
        LinkId(self.links)
    }

    fn handle(&mut self, input: Input<'_>, _now: Now) {
        if let Input::Accepted { link, .. } = input {
            self.effects.push_back(Effect::Close { link });
        }
    }

    fn pop_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn deadline(&self) -> Micros {
        Micros::NEVER
    }

    fn request(&mut self, _request: ClusterRequest, _now: Now) -> TaskResult {
        TaskResult::Error("ERR not built yet".into())
    }
}
