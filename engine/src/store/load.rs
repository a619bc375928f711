//! Start-up: the newest snapshot, then the log, as blocks in order. Changes nothing on the disk.
//!
//! What is refused and what is cut: a bad place in the last segment that no later block knew to be synced is a
//! torn tail, the end of the log. All other bad places are damage.
//! Blocks reach the sink only when their whole commit has been read.

use std::collections::BTreeMap;

use super::batch::Chunk;
use super::format::{BLOCK_HEADER_BYTES, Block, END_OF_COMMIT, FILE_HEADER_BYTES, FileHeader, FileKind};
use super::read::{Cursor, FileReader, footer_of};
use super::{Commit, Disk, StoreError};

/// Takes what start-up reads.
pub trait Sink {
    /// Called once before all blocks: the snapshot says that it has `snapshot_records` records (the log may add
    /// more), and `bytes` will be read in all.
    fn begin(&mut self, _snapshot_records: u64, _bytes: u64) {}

    /// The next block: its records come after those of all blocks before, and the last state of a key wins.
    ///
    /// # Errors
    /// Stops the start, with this error; what [`Block::for_each`] returned is meant.
    fn block(&mut self, block: Block) -> Result<(), StoreError>;

    /// `done` of `total` bytes have been read.
    fn progress(&mut self, _done: u64, _total: u64) {}

    /// All blocks have been given. Nothing has been written yet.
    ///
    /// # Errors
    /// As for `block`.
    fn end(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What the end of the log lost in a crash: it had been written but not synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The last segment.
    pub file: String,
    /// Where the log now ends.
    pub offset: u64,
    /// How many bytes behind that are cut off.
    pub bytes: u64,
    /// All of them are zeros: room that the writer had made for later, or writes of which only the length was kept.
    pub is_blank: bool,
}

/// A block that is in memory until a sync says that it is safe.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) chunk: Chunk,
    pub(crate) ends_commit: bool,
}

/// The files of the store in a directory, by number, with their lengths.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    pub(crate) snapshots: BTreeMap<u64, u64>,
    pub(crate) segments: BTreeMap<u64, u64>,
}

impl Layout {
    pub(crate) fn read<D: Disk>(disk: &mut D) -> Result<Layout, StoreError> {
        let files = disk.list();
        let files = files.map_err(StoreError::disk("list", disk.directory()))?;
        let mut layout = Layout::default();
        for (name, len) in files {
            match FileKind::parse(&name) {
                Some((FileKind::Snapshot, number)) => layout.snapshots.insert(number, len),
                Some((FileKind::Segment, number)) => layout.segments.insert(number, len),
                None => None,
            };
        }
        Ok(layout)
    }

    /// Number and length of the newest snapshot.
    pub(crate) fn newest_snapshot(&self) -> Option<(u64, u64)> {
        self.snapshots.last_key_value().map(|(&number, &len)| (number, len))
    }

    /// What is no longer needed once the snapshot `number` is safe.
    pub(crate) fn older_than(&self, number: u64) -> Vec<String> {
        let snapshots = self.snapshots.range(..number).map(|(&number, _)| FileKind::Snapshot.name(number));
        let segments = self.segments.range(..number).map(|(&number, _)| FileKind::Segment.name(number));
        snapshots.chain(segments).collect()
    }
}

/// All that the store must know to go on where the log ends.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// `None` in an empty directory.
    pub(crate) family: Option<u64>,
    /// Number and bytes of the snapshot that was read.
    pub(crate) snapshot: Option<(u64, u64)>,
    /// The log's segments, with the bytes that count in each.
    pub(crate) segments: BTreeMap<u64, u64>,
    /// The segment that the next one follows, and where it ends for those who read the next one.
    pub(crate) last_number: u64,
    pub(crate) last_len: u64,
    /// The last block before `pending`.
    pub(crate) synced: u64,
    /// What was read after it: it may be in the page cache only, so the next segment repeats it.
    pub(crate) pending: Vec<Pending>,
    pub(crate) torn: Option<TornTail>,
}

/// A segment whose header has been checked, and where its blocks end.
struct Segment {
    header: FileHeader,
    len: u64,
    /// `None` for the last.
    limit: Option<u64>,
}

/// Reads everything. `sink` may have been given blocks when an error is returned.
pub(crate) fn load<D: Disk, S: Sink>(disk: &mut D, sink: &mut S) -> Result<Loaded, StoreError> {
    let layout = Layout::read(disk)?;
    let snapshot = layout.newest_snapshot();
    let first = snapshot.map_or(1, |(number, _)| number);
    let segments = read_headers(disk, &layout, first)?;
    let mut load = Load { disk, sink, done: 0, total: 0, family: None };
    load.total = snapshot.map_or(0, |(_, len)| len)
        + segments.iter().map(|s| s.len.min(s.limit.unwrap_or(s.len))).sum::<u64>();

    let mut next_sequence = 1;
    let mut leans_on = 0;
    match snapshot {
        Some((number, len)) => (next_sequence, leans_on) = load.snapshot(number, len)?,
        None => load.sink.begin(0, load.total),
    }
    let mut loaded = Loaded {
        family: None,
        snapshot,
        segments: BTreeMap::new(),
        last_number: first - 1,
        last_len: 0,
        synced: next_sequence - 1,
        pending: Vec::new(),
        torn: None,
    };
    for segment in segments {
        load.segment(&segment, &mut loaded)?;
    }
    let reached = loaded.synced + loaded.pending.len() as u64;
    if reached < leans_on {
        return Err(ends_early(load.disk.directory(), &layout, &loaded, reached, leans_on));
    }
    loaded.family = load.family;
    load.sink.end()?;
    Ok(loaded)
}

/// The error for a log that ends at block `reached`, before block `leans_on`.
fn ends_early(directory: &str, layout: &Layout, loaded: &Loaded, reached: u64, leans_on: u64) -> StoreError {
    let directory = directory.to_owned();
    let Some((&last, &len)) = layout.segments.range(loaded.snapshot.map_or(1, |(number, _)| number)..).last()
    else {
        return StoreError::Missing { directory, file: FileKind::Segment.name(loaded.last_number + 1) };
    };
    let offset = loaded.torn.as_ref().map_or(len, |torn| torn.offset);
    let reason = format!("the log ends here, at block {reached}, but the snapshot leans on block {leans_on}");
    StoreError::Damaged { directory, file: FileKind::Segment.name(last), offset, reason }
}

/// The headers of the segments from `first` on, none missing in between.
fn read_headers<D: Disk>(disk: &mut D, layout: &Layout, first: u64) -> Result<Vec<Segment>, StoreError> {
    let mut segments: Vec<Segment> = Vec::new();
    for (number, (&found, &len)) in (first..).zip(layout.segments.range(first..)) {
        if found != number {
            let directory = disk.directory().to_owned();
            return Err(StoreError::Missing { directory, file: FileKind::Segment.name(number) });
        }
        let header = FileReader::new(disk, FileKind::Segment, number, len).header()?;
        if let Some(previous) = segments.last_mut() {
            previous.limit = Some(header.previous_len);
        }
        segments.push(Segment { header, len, limit: None });
    }
    Ok(segments)
}

struct Load<'a, D, S> {
    disk: &'a mut D,
    sink: &'a mut S,
    done: u64,
    total: u64,
    family: Option<u64>,
}

impl<D: Disk, S: Sink> Load<'_, D, S> {
    /// Returns the sequence that segment `number` must begin with, and the block that the log must reach.
    fn snapshot(&mut self, number: u64, len: u64) -> Result<(u64, u64), StoreError> {
        let mut reader = FileReader::new(self.disk, FileKind::Snapshot, number, len);
        let header = reader.header()?;
        let Some(footer) = reader.footer(header.seed())? else {
            return Err(reader.damaged(len, "the snapshot does not end as a whole one does"));
        };
        self.family = Some(header.family);
        self.sink.begin(footer.records, self.total);
        let mut cursor = Cursor::new(header.seed(), 1, len);
        while let Some(block) = reader.next(&mut cursor)? {
            if footer_of(&block).is_none() {
                self.sink.block(block)?;
            }
            self.sink.progress(self.done + cursor.offset, self.total);
        }
        if !cursor.is_at_end() {
            return Err(reader.damaged(cursor.offset, "not the block that should follow here"));
        }
        self.done += len;
        Ok((header.first_sequence, footer.leans_on))
    }

    fn segment(&mut self, segment: &Segment, loaded: &mut Loaded) -> Result<(), StoreError> {
        let header = &segment.header;
        let mut reader = FileReader::new(self.disk, FileKind::Segment, header.number, segment.len);
        if *self.family.get_or_insert(header.family) != header.family {
            return Err(reader.damaged(24, "the file belongs to another data directory"));
        }
        let next_sequence = loaded.synced + 1;
        if header.first_sequence != next_sequence {
            let reason = format!("it begins with block {}, not {next_sequence}", header.first_sequence);
            return Err(reader.damaged(32, reason));
        }
        let limit = segment.limit.unwrap_or(segment.len);
        if segment.len < limit {
            return Err(reader.damaged(segment.len, format!("the file ends here but had {limit} bytes")));
        }
        let mut cursor = Cursor::new(header.seed(), header.first_sequence, limit);
        let mut tail = Tail { safe_len: header.safe_len, ..Tail::default() };
        while let Some(block) = reader.next(&mut cursor)? {
            tail.push(block, &cursor, self.sink)?;
            self.sink.progress(self.done + cursor.offset, self.total);
        }
        self.done += limit;
        let was_whole = cursor.is_at_end() && tail.open_commit.is_empty();
        if segment.limit.is_some() {
            if !was_whole {
                return Err(reader.damaged(cursor.offset, "not the block that should follow here"));
            }
            loaded.segments.insert(header.number, limit);
            loaded.synced = cursor.next_sequence - 1;
            return Ok(());
        }
        if cursor.offset < header.safe_len || !cursor.is_at_end() && reader.was_synced(&cursor)? {
            return Err(reader.damaged(cursor.offset, "what had been safe here can't be read"));
        }
        let end = if tail.commit_end == 0 { FILE_HEADER_BYTES as u64 } else { tail.commit_end };
        if !was_whole {
            let is_blank = reader.is_blank_from(end)?;
            let (file, bytes) = (reader.name.to_string(), segment.len - end);
            loaded.torn = Some(TornTail { file, offset: end, bytes, is_blank });
        }
        if tail.synced.0 >= header.first_sequence {
            loaded.last_number = header.number;
            loaded.last_len = tail.synced_end;
            loaded.synced = tail.synced.0;
            loaded.segments.insert(header.number, tail.synced_end);
        } else {
            // Not one block of this file is known to be safe, so neither is its header: it will be replaced.
            loaded.last_number = header.number - 1;
            loaded.last_len = header.previous_len;
        }
        loaded.pending = tail.pending.into_iter().map(|(_, _, pending)| pending).collect();
        Ok(())
    }
}

/// Follows the end of a segment: which blocks of it are known to be synced, and which commits are whole.
#[derive(Default)]
struct Tail {
    /// As in the segment's header.
    safe_len: u64,
    /// The last block that a later one knew to be synced, and where it ends.
    synced: Commit,
    synced_end: u64,
    /// (sequence, where it ends, block) of those behind it, up to the last whole commit.
    pending: std::collections::VecDeque<(u64, u64, Pending)>,
    /// Where the last whole commit ends; 0 before the first.
    commit_end: u64,
    /// The blocks of a commit whose end has not been seen, and where each ends.
    open_commit: Vec<(Block, u64)>,
}

impl Tail {
    fn push<S: Sink>(&mut self, block: Block, cursor: &Cursor, sink: &mut S) -> Result<(), StoreError> {
        self.drop_synced(block.header.synced_sequence());
        let ends_commit = block.header.flags & END_OF_COMMIT != 0;
        self.open_commit.push((block, cursor.offset));
        if !ends_commit {
            return Ok(());
        }
        self.commit_end = cursor.offset;
        let last = self.open_commit.len() - 1;
        let commit = std::mem::take(&mut self.open_commit);
        for (at, (block, end)) in commit.into_iter().enumerate() {
            let mut chunk = vec![0; BLOCK_HEADER_BYTES];
            chunk.extend_from_slice(&block.body);
            let sequence = block.header.sequence;
            self.pending.push_back((sequence, end, Pending { chunk, ends_commit: at == last }));
            sink.block(block)?;
            if end <= self.safe_len {
                self.drop_synced(sequence);
            }
        }
        Ok(())
    }

    /// What is known to be synced need not be repeated.
    fn drop_synced(&mut self, synced: u64) {
        while self.pending.front().is_some_and(|(sequence, _, _)| *sequence <= synced) {
            let (sequence, end, _) = self.pending.pop_front().expect("there is a front");
            self.synced = Commit(sequence);
            self.synced_end = end;
        }
    }
}
