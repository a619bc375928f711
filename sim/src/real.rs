//! The engine behind the world's door: a `Node` and its `Cluster` as one process, with a shell that knows nothing.
//!
//! Both of the engine's ways in are used as the server uses them: requests through `Node::execute` on a session,
//! frames and time through `Cluster::handle`. What the judge looks at comes from `Cluster::inspect`.

use crate::image;
use crate::process::{Abilities, CounterState, Epoch, Generation, Process, Program, ShardState, Start};
use engine::clients::Peer;
use engine::cluster::inspect::{CounterInspection, ShardInspection};
use engine::cluster::{Cluster, ClusterConfig, ClusterRequest, Effect, Input, LinkId, Planted};
use engine::command::Outcome;
use engine::settings::{Precision, Settings};
use engine::time::{Micros, Now};
use engine::{Node, NodeConfig, NodeId, ProcessInfo, Session, Shell, TaskResult};
use resp::{Reply, ReplyDecoder, ReplyLimits, Request};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The engine as it is, or with a bug that was planted in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Real {
    /// The bug.
    pub planted: Option<Planted>,
    /// Nodes keep their counters on disks, as far as plans say.
    pub has_disk: bool,
}

impl Program for Real {
    fn start(&self, start: Start) -> Box<dyn Process> {
        let settings = Settings {
            port: start.addr.port(),
            cluster_node_timeout_ms: start.node_timeout_ms,
            default_precision: Precision::parse(start.default_precision.as_bytes())
                .expect("plans have precisions that can be read"),
            ..Settings::default()
        };
        let node = Arc::new(Node::new(NodeConfig {
            id: start.id,
            run_id: [0; 20],
            hash_seed: start.seed,
            settings,
            now: start.now,
            shell: Arc::new(NoShell),
        }));
        if let Some(image) = &start.image {
            image::load(&node, start.nodes_file.as_deref(), image, start.now.monotonic);
        }
        let config = ClusterConfig {
            seed: start.seed,
            nodes_file: start.nodes_file,
            incarnation: start.now.unix.secs() as u32,
            planted: self.planted,
            ..ClusterConfig::default()
        };
        let cluster = Cluster::new(Arc::clone(&node), config, start.now)
            .expect("the nodes file is what the engine wrote");
        let peer = Peer::Unix(String::from("simulator"));
        let session = node.connect(peer, 0, start.now, Box::new(|| ()));
        Box::new(Running { node, cluster, session, replies: ReplyDecoder::new(ReplyLimits::default()) })
    }

    fn abilities(&self) -> Abilities {
        Abilities { has_disk: self.has_disk, ..Abilities::ALL }
    }
}

struct NoShell;

impl Shell for NoShell {
    fn process(&self) -> ProcessInfo {
        ProcessInfo::default()
    }

    fn settings_changed(&self, _: &Settings) -> Result<(), String> {
        Ok(())
    }

    fn warn(&self, _: &str) {}

    fn info(&self, _: &str) {}
}

struct Running {
    node: Arc<Node>,
    cluster: Cluster,
    session: Session,
    replies: ReplyDecoder,
}

impl Process for Running {
    fn id(&self) -> NodeId {
        self.node.id()
    }

    fn execute(&mut self, words: &[&[u8]], now: Now) -> Reply {
        let mut out = Vec::new();
        let settings = self.node.settings();
        let request = Request::from_args(words);
        let outcome = self.node.execute(&mut self.session, request, &settings, now, &mut out);
        assert!(
            matches!(outcome, Outcome::Done | Outcome::SettingsChanged),
            "{outcome:?} to a simulated client"
        );
        let decoded = self.replies.decode(&out).expect("the engine writes replies");
        decoded.expect("the engine writes whole replies").0
    }

    fn handle(&mut self, input: Input<'_>, now: Now) {
        if let Input::Timer = input {
            self.node.run_timers(now);
        }
        self.cluster.handle(input, now);
    }

    fn pop_effect(&mut self) -> Option<Effect> {
        self.cluster.pop_effect()
    }

    fn deadline(&self) -> Micros {
        if self.node.is_cluster_dirty() {
            return Micros(0);
        }
        self.cluster.deadline().min(self.node.deadline())
    }

    fn new_link(&mut self) -> LinkId {
        self.cluster.new_link()
    }

    fn request(&mut self, request: ClusterRequest, now: Now) -> Result<(), String> {
        match self.cluster.request(request, now) {
            TaskResult::Error(text) => Err(text),
            TaskResult::Ok | TaskResult::Status(_) | TaskResult::Names(_) => Ok(()),
        }
    }

    fn inspect(&self, name: &[u8], _now: Now) -> CounterState {
        let CounterInspection { generation, set_value, observed, own, peers, slacks } =
            self.cluster.inspect(name);
        let generation = generation_of(generation);
        CounterState {
            generation,
            set_value,
            observed: by_owner(&observed),
            own: own.map(state_of),
            peers: by_owner(&peers),
            slacks: slacks.into_iter().collect(),
        }
    }

    fn members(&self) -> Vec<NodeId> {
        self.cluster.member_ids()
    }

    fn is_acquainted(&self) -> bool {
        self.cluster.is_acquainted()
    }

    fn reset_epoch(&self) -> Epoch {
        let epoch = self.cluster.reset_epoch();
        (epoch.clock, epoch.author.author(0))
    }

    fn image(&self, now: Now) -> Option<Vec<u8>> {
        Some(image::of(&self.node, now.monotonic))
    }

    fn sizes(&self) -> Vec<(&'static str, usize)> {
        self.cluster.sizes()
    }
}

fn generation_of(generation: engine::Generation) -> Generation {
    (!generation.is_zero()).then_some((generation.time, generation.author))
}

fn state_of(shard: ShardInspection) -> ShardState {
    ShardState {
        generation: generation_of(shard.generation),
        seq: (shard.seq.incarnation, shard.seq.n),
        value: shard.value,
    }
}

/// Shards of members that have been forgotten altogether are left out.
fn by_owner(shards: &[ShardInspection]) -> BTreeMap<NodeId, ShardState> {
    shards.iter().filter_map(|shard| Some((shard.owner?, state_of(*shard)))).collect()
}
