//! What one commit writes, collected in memory in the form that goes to disk.

use super::Record;
use super::format::{BLOCK_HEADER_BYTES, BLOCK_TARGET_BYTES};

/// A block in the making: 32 bytes of room for its header, then its body.
pub(crate) type Chunk = Vec<u8>;

/// Room that a block begins with: enough for what a group of clients changes between two syncs.
const LEAST_CAPACITY: usize = 4 << 10;

/// The states to commit in one step, in order: the last one of a (kind, key) wins.
///
/// It is as large as its records; blocks of about [`BLOCK_TARGET_BYTES`] are cut while it fills.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) chunks: Vec<Chunk>,
    records: u64,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Says that the state of (`kind`, `key`) is `payload`.
    ///
    /// # Panics
    /// If `key` is over [`super::MAX_KEY_BYTES`] or `payload` over [`super::MAX_PAYLOAD_BYTES`].
    pub fn put(&mut self, kind: u8, key: &[u8], payload: &[u8]) {
        self.push(Record { kind, key, payload: Some(payload) });
    }

    /// Says that (`kind`, `key`) has no state any more.
    ///
    /// # Panics
    /// If `key` is over [`super::MAX_KEY_BYTES`].
    pub fn remove(&mut self, kind: u8, key: &[u8]) {
        self.push(Record { kind, key, payload: None });
    }

    /// Adds a record.
    pub fn push(&mut self, record: Record<'_>) {
        let is_full =
            self.chunks.last().is_none_or(|chunk| chunk.len() >= BLOCK_HEADER_BYTES + BLOCK_TARGET_BYTES);
        if is_full {
            let mut chunk = Chunk::with_capacity(LEAST_CAPACITY);
            chunk.resize(BLOCK_HEADER_BYTES, 0);
            self.chunks.push(chunk);
        }
        let chunk = self.chunks.last_mut().expect("a chunk was pushed if there was none");
        record.encode(chunk);
        self.records += 1;
    }

    /// Records in the batch.
    pub fn len(&self) -> u64 {
        self.records
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes that a commit of the batch writes.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len() as u64).sum()
    }

    /// Forgets all records.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.records = 0;
    }

    /// As a reader of the log gets it.
    #[cfg(test)]
    pub(crate) fn blocks(&self) -> impl Iterator<Item = super::Block> {
        self.chunks.iter().map(|chunk| super::Block {
            directory: "".into(),
            file: "".into(),
            offset: 0,
            header: super::format::BlockHeader {
                crc: 0,
                stored_len: 0,
                raw_len: 0,
                sequence: 1,
                unsynced: 0,
                flags: 0,
            },
            body: chunk[BLOCK_HEADER_BYTES..].to_vec(),
        })
    }
}
