//! The durable store: an ordered log of absolute states in checksummed, group-committed segments, and snapshots.
//!
//! A *record* says that the state of a (kind, key) is now this payload, or that there is none any more; the last one
//! wins. What kinds and payloads mean is the caller's matter. All files are reached through [`Disk`]; the
//! store has no thread, clock or random source of its own, and belongs on a thread that may wait for the disk.
//! `docs/disk-format.md` describes the bytes.
//!
//! Invariants:
//! - No byte that was written is ever changed. What must not count any more (a torn tail, a commit that the
//!   disk refused half-way, what a failed sync left in doubt) is cut off by the next segment, whose header says where
//!   the one before ends.
//! - A segment gets its name only when its header, and the blocks that it repeats, are synced. So whatever goes
//!   wrong with writing or syncing, there is one way out, `Store::new_segment`: repeat in a new file what the last
//!   good sync did not cover (it is kept in memory for that, up to [`MAX_UNSYNCED_BYTES`]) and go on there. A failed
//!   sync is never merely repeated: the kernel may have dropped the pages and would then report success.
//! - After a crash the state is exactly that after some commit, not before the last synced one.
//!
//! The idea of a log of states with snapshots beside it is that of Redis' multi-part append-only file; that of
//! a later block telling what was safe when it was written is ours, and is explained at `BlockHeader::unsynced`.

mod batch;
mod check;
mod disk;
mod error;
mod format;
mod load;
mod policy;
mod read;
mod snapshot;

use std::collections::BTreeMap;

pub use batch::Batch;
pub use check::{
    AnyRecord, BadRecord, FileReport, Gap, Inspector, Repaired, Report, Unreadable, check, family, repair,
};
pub use disk::Disk;
pub use error::StoreError;
pub use format::{
    BLOCK_HEADER_BYTES, BLOCK_TARGET_BYTES, Block, FILE_HEADER_BYTES, FORMAT_VERSION, FileKind,
    MAX_BODY_BYTES, MAX_KEY_BYTES, MAX_PAYLOAD_BYTES, Record,
};
pub use load::{Sink, TornTail};
pub use policy::SnapshotPolicy;
pub use snapshot::{SnapshotStep, Source};

use batch::Chunk;
use format::{END_OF_COMMIT, FileHeader, SEGMENT_TEMPORARY, seal};
use load::Pending;

/// A commit syncs first when this much has been written since the last sync, as it is all kept in memory too.
pub const MAX_UNSYNCED_BYTES: u64 = 64 << 20;

/// Number of a commit (that of its last block); 0 is before the first. Later commits have greater ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Commit(pub u64);

/// How a store works.
#[derive(Clone, Debug)]
pub struct Options {
    /// A random number that clients can't guess; it marks the files of a new directory.
    pub seed: u64,
    /// A commit begins a new segment when the last one has this many bytes.
    pub segment_bytes: u64,
    /// Bytes that one snapshot step writes, about.
    pub snapshot_chunk_bytes: usize,
    /// Whether snapshots are compressed.
    pub compress_snapshots: bool,
    /// When a snapshot is due.
    pub policy: SnapshotPolicy,
}

impl Options {
    /// The defaults.
    pub fn new(seed: u64) -> Options {
        Options {
            seed,
            segment_bytes: 256 << 20,
            snapshot_chunk_bytes: 256 << 10,
            compress_snapshots: true,
            policy: SnapshotPolicy::default(),
        }
    }
}

/// What was found when the store was opened.
#[derive(Debug)]
pub struct Opening {
    /// The last commit that was recovered.
    pub recovered: Commit,
    /// Whether there was nothing: a new directory.
    pub is_new: bool,
    /// The end of the log that was cut off.
    pub torn: Option<TornTail>,
    /// Why the store can't be written at present (the disk is full, say); each commit tries anew.
    pub not_writable: Option<StoreError>,
}

/// What the store has done and where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The last commit that was written.
    pub written: Commit,
    /// The last commit that is safe.
    pub synced: Commit,
    /// Bytes written but not synced.
    pub unsynced_bytes: u64,
    /// Bytes of the log since the last snapshot.
    pub log_bytes: u64,
    /// Segments that they are in.
    pub segments: usize,
    /// Bytes of the last snapshot; 0 if there is none.
    pub last_snapshot_bytes: u64,
    /// Whether a snapshot is being made.
    pub is_snapshotting: bool,
    /// Whether the last attempt to write or sync the log failed.
    pub is_failing: bool,
    /// Since the store was opened.
    pub counts: Counts,
}

/// Sums since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes given to the disk for the log.
    pub log_bytes: u64,
    /// Bytes given to the disk for snapshots.
    pub snapshot_bytes: u64,
    /// Snapshots that became whole.
    pub snapshots: u64,
    /// Good syncs of the log.
    pub syncs: u64,
    /// Times that the disk refused a commit, a sync or a snapshot.
    pub failures: u64,
    /// Old files that could not be removed.
    pub leftovers: u64,
}

/// The last segment.
struct Tail {
    number: u64,
    name: String,
    seed: u32,
    len: u64,
    /// Where its last synced block ends.
    synced_len: u64,
    /// Nothing may be appended: something went wrong, or it is full, or was written by an earlier run.
    is_closed: bool,
}

impl Tail {
    /// Whether a snapshot can begin with this segment.
    fn is_empty(&self) -> bool {
        !self.is_closed && self.len == FILE_HEADER_BYTES as u64
    }
}

/// The log and snapshots of one directory. See the module's page.
pub struct Store<D> {
    disk: D,
    options: Options,
    family: u64,
    tail: Tail,
    written: Commit,
    synced: Commit,
    /// The blocks `synced + 1 ..= written`.
    pending: Vec<Pending>,
    pending_bytes: u64,
    /// Segments since the last snapshot without the tail, with the bytes that count in each.
    segments: BTreeMap<u64, u64>,
    /// Number and bytes of the last snapshot.
    snapshot: Option<(u64, u64)>,
    snapshotting: Option<snapshot::Snapshotting>,
    counts: Counts,
}

impl<D: Disk> Store<D> {
    /// Reads what is in the directory into `sink`, and makes the store ready to go on from there.
    ///
    /// # Errors
    /// `Damaged`, `Missing`, `Newer`: the store can't be trusted as it is; nothing has been changed. `Disk`: it
    /// could not be read. A disk that can be read but not written is no error: see [`Opening::not_writable`].
    pub fn open<S: Sink>(
        mut disk: D,
        options: Options,
        sink: &mut S,
    ) -> Result<(Store<D>, Opening), StoreError> {
        let loaded = load::load(&mut disk, sink)?;
        let recovered = Commit(loaded.synced + loaded.pending.len() as u64);
        let number = loaded.last_number;
        let mut store = Store {
            disk,
            family: loaded.family.unwrap_or(options.seed),
            options,
            tail: Tail {
                number,
                name: FileKind::Segment.name(number),
                seed: 0,
                len: loaded.last_len,
                synced_len: loaded.last_len,
                is_closed: true,
            },
            written: recovered,
            synced: Commit(loaded.synced),
            pending_bytes: loaded.pending.iter().map(|pending| pending.chunk.len() as u64).sum(),
            pending: loaded.pending,
            segments: loaded.segments,
            snapshot: loaded.snapshot,
            snapshotting: None,
            counts: Counts::default(),
        };
        store.segments.remove(&number);
        let ready = store.new_segment().and_then(|()| store.remove_leftovers());
        let is_new = loaded.family.is_none();
        Ok((store, Opening { recovered, is_new, torn: loaded.torn, not_writable: ready.err() }))
    }

    /// Writes all records of `batch` as one step, and empties it: after a crash all of them are there, or none.
    /// Safe only after the next [`Store::sync`]. An empty batch writes nothing.
    ///
    /// # Errors
    /// `Disk`: the batch is as it was, and so is the store; commit it again, or collect its keys anew.
    pub fn commit(&mut self, batch: &mut Batch) -> Result<Commit, StoreError> {
        if batch.is_empty() {
            return Ok(self.written);
        }
        self.make_room()?;
        let before = self.written;
        let last = batch.chunks.len() - 1;
        for (at, chunk) in batch.chunks.iter_mut().enumerate() {
            if let Err(error) = self.append(chunk, at == last) {
                self.written = before;
                self.fail_tail();
                return Err(error);
            }
        }
        self.pending_bytes += batch.bytes();
        let chunks = std::mem::take(batch).chunks.into_iter().enumerate();
        self.pending.extend(chunks.map(|(at, chunk)| Pending { chunk, ends_commit: at == last }));
        Ok(self.written)
    }

    /// Makes all commits safe; returns the last one.
    ///
    /// # Errors
    /// `Disk`: which of the commits since the last good sync are safe is not known; the next call (or commit) writes
    /// them anew.
    pub fn sync(&mut self) -> Result<Commit, StoreError> {
        if self.tail.is_closed {
            self.new_segment()?;
        }
        if self.synced < self.written {
            if let Err(error) = self.disk.sync(&self.tail.name) {
                self.fail_tail();
                return Err(StoreError::disk("sync", &self.tail.name)(error));
            }
            self.note_synced();
        }
        Ok(self.synced)
    }

    /// Makes all commits safe and marks the end of the log, so that damage to its last blocks will be known as
    /// such instead of being taken for what a crash left.
    ///
    /// # Errors
    /// `Disk`, as for [`Store::sync`].
    pub fn close(mut self) -> Result<D, StoreError> {
        self.abandon_snapshot();
        self.sync()?;
        self.append(&mut vec![0; BLOCK_HEADER_BYTES], true)?;
        self.disk.sync(&self.tail.name).map_err(StoreError::disk("sync", &self.tail.name))?;
        self.disk.close(&self.tail.name);
        Ok(self.disk)
    }

    /// Changes [`SnapshotPolicy::min_log_bytes`].
    pub fn set_min_log_bytes(&mut self, bytes: u64) {
        self.options.policy.min_log_bytes = bytes;
    }

    /// Whether it is time to [`Store::begin_snapshot`], by the policy in the options.
    pub fn should_snapshot(&self) -> bool {
        let stats = self.stats();
        !stats.is_snapshotting
            && self.options.policy.is_due(stats.log_bytes, stats.segments, stats.last_snapshot_bytes)
    }

    /// Where the store stands.
    pub fn stats(&self) -> Stats {
        Stats {
            written: self.written,
            synced: self.synced,
            unsynced_bytes: self.pending_bytes,
            log_bytes: self.segments.values().sum::<u64>() + self.tail.len,
            segments: self.segments.len() + 1,
            last_snapshot_bytes: self.snapshot.map_or(0, |(_, bytes)| bytes),
            is_snapshotting: self.snapshotting.is_some(),
            is_failing: self.tail.is_closed,
            counts: self.counts,
        }
    }

    /// The disk that the store was opened with.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Sees to it that the tail can be appended to and that the bytes kept in memory stay bounded.
    fn make_room(&mut self) -> Result<(), StoreError> {
        let is_full = self.tail.len >= self.options.segment_bytes;
        if self.tail.is_closed || is_full || self.pending_bytes >= MAX_UNSYNCED_BYTES {
            self.sync()?;
        }
        if is_full && self.tail.len >= self.options.segment_bytes {
            self.new_segment()?;
        }
        Ok(())
    }

    /// Writes the next block. On an error the tail must be closed.
    fn append(&mut self, chunk: &mut Chunk, ends_commit: bool) -> Result<(), StoreError> {
        let sequence = self.written.0 + 1;
        let unsynced = self.written.0 - self.synced.0;
        let flags = if ends_commit { END_OF_COMMIT } else { 0 };
        let raw_len = chunk.len() - BLOCK_HEADER_BYTES;
        seal(chunk, self.tail.seed, raw_len, sequence, unsynced, flags);
        self.disk.append(&self.tail.name, chunk).map_err(StoreError::disk("write", &self.tail.name))?;
        self.written = Commit(sequence);
        self.tail.len += chunk.len() as u64;
        self.counts.log_bytes += chunk.len() as u64;
        Ok(())
    }

    fn fail_tail(&mut self) {
        self.tail.is_closed = true;
        self.counts.failures += 1;
    }

    fn note_synced(&mut self) {
        self.counts.syncs += 1;
        self.synced = self.written;
        self.tail.synced_len = self.tail.len;
        self.pending.clear();
        self.pending_bytes = 0;
    }

    /// Goes on in a new segment that begins with what the last good sync did not cover; then all is synced.
    ///
    /// Should it fail, the old tail stays closed, as the new one may have got its name and cut it off.
    fn new_segment(&mut self) -> Result<(), StoreError> {
        self.tail.is_closed = true;
        let made = self.write_segment();
        if made.is_err() {
            self.counts.failures += 1;
            self.disk.close(SEGMENT_TEMPORARY);
            self.remove_leftover(SEGMENT_TEMPORARY);
        }
        let tail = made?;
        let old = std::mem::replace(&mut self.tail, tail);
        self.disk.close(&old.name);
        if old.synced_len > 0 && old.number >= self.snapshot.map_or(0, |(number, _)| number) {
            self.segments.insert(old.number, old.synced_len);
        }
        self.note_synced();
        Ok(())
    }

    fn write_segment(&mut self) -> Result<Tail, StoreError> {
        let number = self.tail.number + 1;
        let header = FileHeader {
            kind: FileKind::Segment,
            number,
            family: self.family,
            first_sequence: self.synced.0 + 1,
            previous_len: self.tail.synced_len,
            safe_len: FILE_HEADER_BYTES as u64 + self.pending_bytes,
        };
        let seed = header.seed();
        create_anew(&mut self.disk, SEGMENT_TEMPORARY)?;
        let mut blocks: Vec<&[u8]> = Vec::with_capacity(self.pending.len() + 1);
        let header_bytes = header.encode();
        blocks.push(&header_bytes);
        for (at, pending) in (0..).zip(&mut self.pending) {
            let flags = if pending.ends_commit { END_OF_COMMIT } else { 0 };
            let raw_len = pending.chunk.len() - BLOCK_HEADER_BYTES;
            seal(&mut pending.chunk, seed, raw_len, header.first_sequence + at, at, flags);
            blocks.push(&pending.chunk);
        }
        for block in blocks {
            self.disk
                .append(SEGMENT_TEMPORARY, block)
                .map_err(StoreError::disk("write", SEGMENT_TEMPORARY))?;
            self.counts.log_bytes += block.len() as u64;
        }
        self.disk.sync(SEGMENT_TEMPORARY).map_err(StoreError::disk("sync", SEGMENT_TEMPORARY))?;
        let name = FileKind::Segment.name(number);
        self.disk
            .rename(SEGMENT_TEMPORARY, &name)
            .map_err(StoreError::disk("rename a new segment to", &name))?;
        let sync = self.disk.sync_dir();
        sync.map_err(StoreError::disk("sync the directory", self.disk.directory()))?;
        let len = header.safe_len;
        Ok(Tail { number, name, seed, len, synced_len: len, is_closed: false })
    }
}

/// Makes an empty file, in place of one that was left behind.
fn create_anew<D: Disk>(disk: &mut D, name: &str) -> Result<(), StoreError> {
    let made = match disk.create(name) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            disk.remove(name).and_then(|()| disk.create(name))
        }
        made => made,
    };
    made.map_err(StoreError::disk("create", name))
}
