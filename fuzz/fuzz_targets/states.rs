//! Any records, under checksums that are right: a node that loads them refuses them or comes up, and can write down what it
//! is then and be loaded from that.
//!
//! Each record of the input: its kind, the length of its key, the length of its payload, key, payload.
#![no_main]

mod memory;

use engine::Node;
use engine::durable::{Journal, Loader};
use engine::store::{Batch, Block, Options, Sink, Store, StoreError};
use libfuzzer_sys::fuzz_target;
use memory::{Memory, moment, node};
use std::sync::Arc;

struct Into<'a>(Option<Loader<'a>>);

impl Sink for Into<'_> {
    fn block(&mut self, block: Block) -> Result<(), StoreError> {
        self.0.as_mut().expect("it is finished after the last block").block(&block)
    }
}

fn write(fill: impl FnOnce(&mut Batch)) -> Memory {
    let (mut store, _) = Store::open(Memory::default(), Options::new(7), &mut Into(None))
        .expect("an empty directory has no blocks");
    let mut batch = Batch::new();
    fill(&mut batch);
    store.commit(&mut batch).expect("memory takes everything");
    store.close().expect("memory takes everything")
}

fn load(disk: Memory) -> Option<Arc<Node>> {
    let node = node(1);
    {
        let mut into = Into(Some(Loader::new(&node, (0, 1), None, moment(0).monotonic)));
        Store::open(disk, Options::new(7), &mut into).ok()?;
        into.0.take()?.finish().ok()?;
    }
    node.finish_loading();
    Some(node)
}

fuzz_target!(|data: &[u8]| {
    let disk = write(|batch| {
        let mut rest = data;
        while let [kind, key_len, payload_len, bytes @ ..] = rest {
            let (key_len, payload_len) = (usize::from(*key_len), usize::from(*payload_len));
            let (Some(key), Some(payload)) =
                (bytes.get(..key_len), bytes.get(key_len..key_len + payload_len))
            else {
                break;
            };
            batch.put(kind % 4, key, payload);
            rest = &bytes[key_len + payload_len..];
        }
    });
    let Some(first) = load(disk) else { return };
    let again = write(|batch| Journal::anew(Arc::clone(&first)).copy_all(batch, moment(1).monotonic));
    let second = load(again).expect("what a node writes can be loaded");
    assert_eq!(first.keyspace.len(), second.keyspace.len());
});
