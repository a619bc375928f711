//! A node as the log keeps it: what a crash leaves of one in the swarm.
//!
//! Written and read by the engine's own store, so that all that a record leaves out is missing after a crash. How a disk fails
//! is a matter for `tests/node_crash.rs`.

use crate::disk::FakeDisk;
use engine::Node;
use engine::durable::{Journal, Loader};
use engine::store::{Batch, Block, Options, Sink, Store, StoreError};
use engine::time::Micros;
use std::sync::Arc;

/// The first segment of a log.
const LOG: &str = "counters-0000000001.log";

/// The log of a node that has been written whole at this moment.
pub(crate) fn of(node: &Arc<Node>, now: Micros) -> Vec<u8> {
    let disk = FakeDisk::new(0);
    let (mut store, _) = Store::open(disk.clone(), Options::new(0), &mut Nothing).expect("the disk is empty");
    let mut batch = Batch::new();
    Journal::anew(Arc::clone(node)).copy_all(&mut batch, now);
    store.commit(&mut batch).and_then(|_| store.sync()).expect("the disk has room");
    disk.contents(LOG).expect("the first segment")
}

/// Has a node start from a log, as the server does.
pub(crate) fn load(node: &Node, nodes_file: Option<&[u8]>, image: &[u8], now: Micros) {
    let disk = FakeDisk::new(0);
    disk.plant(LOG, image);
    let own = nodes_file.map(|bytes| node.recognise(bytes).expect("the nodes file is what the engine wrote"));
    let mut loader = Loader::new(node, (0, 1), own, now);
    Store::open(disk, Options::new(0), &mut loader).expect("the log is what the engine wrote");
    loader.finish().expect("the log is this node's");
    node.finish_loading();
}

struct Nothing;

impl Sink for Nothing {
    fn block(&mut self, _: Block) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::process::{Program, Start};
    use crate::real::Real;
    use engine::NodeId;
    use engine::time::{Micros, Now};
    use resp::Reply;

    #[test]
    fn a_node_starts_with_what_its_image_has() {
        let now = Now { monotonic: Micros::from_secs(9), unix: Micros::from_secs(1_700_000_000) };
        let real = Real { has_disk: true, ..Real::default() };
        let start = Start {
            id: NodeId([7; 20]),
            seed: 1,
            nodes_file: None,
            image: None,
            now,
            addr: ([10, 0, 0, 1], 5262).into(),
            node_timeout_ms: 1_000,
            default_precision: "0",
        };
        let mut first = real.start(start.clone());
        first.execute(&[b"INCRBY", b"a", b"7"], now);
        let image = first.image(now);
        assert!(image.is_some());
        let read = |image| real.start(Start { image, ..start.clone() }).execute(&[b"GET", b"a"], now);
        assert_eq!(read(image), Reply::Bulk(b"7".to_vec()));
        assert_eq!(read(None), Reply::Bulk(b"0".to_vec()));
    }
}
