//! Snapshots, made step by step beside the commits: no fork, no pause, no second copy of the data.
//!
//! A snapshot S begins by giving the log a new segment S. Then the source is walked in chunks while commits go on.
//! What the walk meets may be newer than the log, so the file shows a mixture of times and is nothing alone;
//! with segments S and later replayed over it, it is exact, because every state that changed after
//! the walk began is also in those segments. It therefore becomes the snapshot (gets its name) only when the log
//! is synced up to a commit that holds all that was changed when the walk ended: the commit it *leans on*.
//! Only when the name is safe, too, are the older files removed.

use super::batch::{Batch, Chunk};
use super::format::{
    BLOCK_HEADER_BYTES, FILE_HEADER_BYTES, FOOTER, FileHeader, FileKind, Footer, LZ4, SEGMENT_TEMPORARY,
    SNAPSHOT_TEMPORARY, pack, seal,
};
use super::load::Layout;
use super::{Disk, Store, StoreError, create_anew};

/// A snapshot's file is synced each time it has grown by this, so that no single sync keeps the log waiting long.
const SYNC_BYTES: u64 = 8 << 20;

/// The states in memory, as a snapshot walks them.
pub trait Source {
    /// Pushes the states from `cursor` on (0 is the beginning) until `out` has about `max_bytes`, and returns
    /// the cursor to go on with, `None` at the end.
    ///
    /// Every state that is there from the first call to the last must be pushed at least once, as it is at the
    /// time of the call, whatever else comes, goes and moves between calls.
    fn next_chunk(&mut self, cursor: u64, max_bytes: usize, out: &mut Batch) -> Option<u64>;
}

/// How far a snapshot has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotStep {
    /// No snapshot is being made.
    Idle,
    /// Chunks are being written; call again.
    Walking,
    /// All chunks are written. Commit all that has changed up to now or later, then call [`Store::snapshot_covered`].
    NeedsCommit,
    /// It is whole and safe; older files are being removed. Call again.
    Removing,
    /// All done; this call was the last.
    Finished {
        /// Bytes of the snapshot.
        bytes: u64,
        /// Records in it.
        records: u64,
    },
}

/// The file of a snapshot in the making. Also used by repair.
pub(crate) struct SnapshotWriter {
    header: FileHeader,
    compress: bool,
    sequence: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    unsynced_bytes: u64,
}

impl SnapshotWriter {
    /// Makes the temporary file; one that was left there goes.
    pub(crate) fn begin<D: Disk>(
        disk: &mut D,
        family: u64,
        number: u64,
        first_sequence: u64,
        compress: bool,
    ) -> Result<SnapshotWriter, StoreError> {
        let kind = FileKind::Snapshot;
        let header = FileHeader { kind, number, family, first_sequence, previous_len: 0, safe_len: 0 };
        create_anew(disk, SNAPSHOT_TEMPORARY)?;
        let append = disk.append(SNAPSHOT_TEMPORARY, &header.encode());
        append.map_err(StoreError::disk("write", SNAPSHOT_TEMPORARY))?;
        let bytes = FILE_HEADER_BYTES as u64;
        Ok(SnapshotWriter { header, compress, sequence: 0, records: 0, bytes, unsynced_bytes: bytes })
    }

    /// Appends blocks; `records` are in them.
    pub(crate) fn add<D: Disk>(
        &mut self,
        disk: &mut D,
        chunks: Vec<Chunk>,
        records: u64,
    ) -> Result<(), StoreError> {
        self.records += records;
        for mut chunk in chunks {
            let raw_len = chunk.len() - BLOCK_HEADER_BYTES;
            match self.compress.then(|| pack(&chunk)).flatten() {
                Some(mut packed) => self.block(disk, &mut packed, raw_len, LZ4)?,
                None => self.block(disk, &mut chunk, raw_len, 0)?,
            }
        }
        if self.unsynced_bytes >= SYNC_BYTES {
            self.sync(disk)?;
        }
        Ok(())
    }

    /// Ends the file, makes it safe and gives it its name.
    pub(crate) fn finish<D: Disk>(&mut self, disk: &mut D, leans_on: u64) -> Result<(), StoreError> {
        let mut block = vec![0; BLOCK_HEADER_BYTES];
        block.extend_from_slice(&Footer { records: self.records, leans_on }.encode());
        self.block(disk, &mut block, 16, FOOTER)?;
        self.sync(disk)?;
        let name = FileKind::Snapshot.name(self.header.number);
        disk.rename(SNAPSHOT_TEMPORARY, &name)
            .map_err(StoreError::disk("rename a new snapshot to", &name))?;
        disk.close(&name);
        let sync = disk.sync_dir();
        sync.map_err(StoreError::disk("sync the directory", disk.directory()))
    }

    fn block<D: Disk>(
        &mut self,
        disk: &mut D,
        block: &mut [u8],
        raw_len: usize,
        flags: u32,
    ) -> Result<(), StoreError> {
        self.sequence += 1;
        seal(block, self.header.seed(), raw_len, self.sequence, 0, flags);
        disk.append(SNAPSHOT_TEMPORARY, block).map_err(StoreError::disk("write", SNAPSHOT_TEMPORARY))?;
        self.bytes += block.len() as u64;
        self.unsynced_bytes += block.len() as u64;
        Ok(())
    }

    fn sync<D: Disk>(&mut self, disk: &mut D) -> Result<(), StoreError> {
        self.unsynced_bytes = 0;
        disk.sync(SNAPSHOT_TEMPORARY).map_err(StoreError::disk("sync", SNAPSHOT_TEMPORARY))
    }
}

/// A snapshot in the making.
pub(crate) struct Snapshotting {
    writer: SnapshotWriter,
    phase: Phase,
    /// What `Counts::log_bytes` was when it began.
    log_bytes_before: u64,
}

enum Phase {
    Walking { cursor: u64 },
    NeedsCommit,
    Covered { leans_on: u64 },
    Removing { older: Vec<String> },
}

impl<D: Disk> Store<D> {
    /// Begins a snapshot; one that is being made goes on instead.
    ///
    /// # Errors
    /// `Disk`: no snapshot has begun, all else is as it was.
    pub fn begin_snapshot(&mut self) -> Result<(), StoreError> {
        if self.snapshotting.is_some() {
            return Ok(());
        }
        self.sync()?;
        if !self.tail.is_empty() {
            self.new_segment()?;
        }
        let (number, first_sequence) = (self.tail.number, self.written.0 + 1);
        let compress = self.options.compress_snapshots;
        let writer = SnapshotWriter::begin(&mut self.disk, self.family, number, first_sequence, compress)
            .inspect_err(|_| self.drop_temporary())?;
        let log_bytes_before = self.counts.log_bytes;
        self.snapshotting =
            Some(Snapshotting { writer, phase: Phase::Walking { cursor: 0 }, log_bytes_before });
        Ok(())
    }

    /// Whether the snapshot that is being made has written less than the log has since it began. Who takes at least
    /// as many steps as it takes to keep this false bounds the log: it grows by no more than one snapshot meanwhile.
    pub fn is_snapshot_behind(&self) -> bool {
        self.snapshotting.as_ref().is_some_and(|snapshotting| {
            snapshotting.writer.bytes < self.counts.log_bytes - snapshotting.log_bytes_before
        })
    }

    /// Makes the next small part of the snapshot that [`Store::begin_snapshot`] began: one chunk of the source (of
    /// [`super::Options::snapshot_chunk_bytes`]), or the end of the file, or the removal of one old file.
    ///
    /// # Errors
    /// `Disk`: the snapshot is given up, its file removed, all else is as it was.
    pub fn snapshot_step<S: Source>(&mut self, source: &mut S) -> Result<SnapshotStep, StoreError> {
        let Some(mut snapshotting) = self.snapshotting.take() else { return Ok(SnapshotStep::Idle) };
        let before = snapshotting.writer.bytes;
        let step = self.step(&mut snapshotting, source);
        self.counts.snapshot_bytes += snapshotting.writer.bytes - before;
        match step {
            Err(error) => {
                self.counts.failures += 1;
                self.drop_temporary();
                return Err(error);
            }
            Ok(SnapshotStep::Finished { .. }) => {}
            Ok(_) => self.snapshotting = Some(snapshotting),
        }
        step
    }

    /// Says that all that had changed when [`SnapshotStep::NeedsCommit`] was returned has been committed since.
    ///
    /// A batch collected before that will not do, nor one that leaves out what an earlier failed commit held: the
    /// snapshot may show those changes already.
    pub fn snapshot_covered(&mut self) {
        let leans_on = self.written.0;
        if let Some(Snapshotting { phase: phase @ Phase::NeedsCommit, .. }) = &mut self.snapshotting {
            *phase = Phase::Covered { leans_on };
        }
    }

    /// Gives up a snapshot that is being made.
    pub fn abandon_snapshot(&mut self) {
        if self.snapshotting.take().is_some() {
            self.drop_temporary();
        }
    }

    fn step<S: Source>(
        &mut self,
        snapshotting: &mut Snapshotting,
        source: &mut S,
    ) -> Result<SnapshotStep, StoreError> {
        let Snapshotting { writer, phase, .. } = snapshotting;
        match phase {
            Phase::Walking { cursor } => {
                let mut batch = Batch::new();
                let next = source.next_chunk(*cursor, self.options.snapshot_chunk_bytes, &mut batch);
                let records = batch.len();
                writer.add(&mut self.disk, batch.chunks, records)?;
                match next {
                    Some(next) => *cursor = next,
                    None => *phase = Phase::NeedsCommit,
                }
                Ok(SnapshotStep::Walking)
            }
            Phase::NeedsCommit => Ok(SnapshotStep::NeedsCommit),
            Phase::Covered { leans_on } => {
                let leans_on = *leans_on;
                if self.synced.0 < leans_on {
                    self.sync()?;
                }
                writer.finish(&mut self.disk, leans_on)?;
                let number = writer.header.number;
                self.snapshot = Some((number, writer.bytes));
                self.segments = self.segments.split_off(&number);
                self.counts.snapshots += 1;
                // The snapshot is whole: that the directory can't be listed only leaves old files for later.
                let older = Layout::read(&mut self.disk).map(|layout| layout.older_than(number));
                *phase = Phase::Removing { older: older.unwrap_or_default() };
                Ok(SnapshotStep::Removing)
            }
            Phase::Removing { older } => match older.pop() {
                Some(name) => {
                    self.remove_leftover(&name);
                    Ok(SnapshotStep::Removing)
                }
                None => Ok(SnapshotStep::Finished { bytes: writer.bytes, records: writer.records }),
            },
        }
    }

    fn drop_temporary(&mut self) {
        self.disk.close(SNAPSHOT_TEMPORARY);
        self.remove_leftover(SNAPSHOT_TEMPORARY);
    }

    /// Removes what is of no use any more. That it stays does no harm: the next snapshot or start tries again.
    pub(crate) fn remove_leftover(&mut self, name: &str) {
        let is_gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        if self.disk.remove(name).is_err_and(|error| !is_gone(&error)) {
            self.counts.leftovers += 1;
        }
    }

    /// Removes what earlier runs left behind: temporary files, and what is older than the snapshot.
    pub(crate) fn remove_leftovers(&mut self) -> Result<(), StoreError> {
        let files = self.disk.list();
        let files = files.map_err(StoreError::disk("list", self.disk.directory()))?;
        for (name, _) in &files {
            if name == SNAPSHOT_TEMPORARY || name == SEGMENT_TEMPORARY {
                self.remove_leftover(name);
            }
        }
        if let Some((number, _)) = self.snapshot {
            for name in Layout::read(&mut self.disk)?.older_than(number) {
                self.remove_leftover(&name);
            }
        }
        Ok(())
    }
}
