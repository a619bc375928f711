//! What can be said about the files of a directory, and what can be saved when the store refuses to start.
//!
//! Repair makes one new snapshot of every whole block that it finds, in the order in which they were written.
//! That is more than a prefix: a state whose block is gone shows the one before, as if it had not changed, and later
//! blocks still count (for counters that is best: peers may know the later state, and nobody knows an earlier one
//! better). Nothing is thrown away: damaged files are renamed, and what is lost is listed.

use std::fmt;

use super::format::seed;
use super::load::{Layout, Sink, TornTail, load};
use super::read::{Cursor, FileReader, footer_of};
use super::snapshot::SnapshotWriter;
use super::{Batch, Block, Disk, FileKind, Record, StoreError};

/// Missing files that a report names at most.
const MAX_MISSING_NAMED: usize = 100;

/// Bad records of a file that a report names at most.
const MAX_BAD_NAMED: usize = 10;

/// Knows what records mean: the store itself knows only whether bytes are what was written.
pub trait Inspector {
    /// All that was given is forgotten: it comes again from the beginning.
    fn restart(&mut self);

    /// The next record, in the order in which they count.
    ///
    /// # Errors
    /// It means nothing: a start would refuse it. Nothing of it has been taken over.
    fn record(&mut self, record: Record<'_>) -> Result<(), Unreadable>;
}

/// Why a record whose bytes are as they were written means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// A later version of the server has written it.
    Newer(String),
    /// It is not what any version writes.
    Broken(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Newer(what) | Unreadable::Broken(what) => f.write_str(what),
        }
    }
}

/// Takes every record for good.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyRecord;

impl Inspector for AnyRecord {
    fn restart(&mut self) {}

    fn record(&mut self, _: Record<'_>) -> Result<(), Unreadable> {
        Ok(())
    }
}

/// A record that means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Of its block, from the start of the file.
    pub offset: u64,
    /// Which it is, and what is wrong with it.
    pub reason: Unreadable,
}

/// Bytes of a file that are not the blocks that should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// From the start of the file.
    pub offset: u64,
    /// Up to the next whole block, or the end of the file. 0 if blocks were taken out.
    pub bytes: u64,
    /// How many blocks are missing there; `None` at the end of a file, where it can't be known.
    pub blocks: Option<u64>,
}

/// What one file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// Its name in the directory.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Its length.
    pub bytes: u64,
    /// Whole blocks.
    pub blocks: u64,
    /// Records in them.
    pub records: u64,
    /// What is wrong with its header.
    pub bad_header: Option<String>,
    /// What is wrong behind the header.
    pub gaps: Vec<Gap>,
    /// Records that are as they were written and mean nothing; the first ten.
    pub bad_records: Vec<BadRecord>,
    /// How many there are in all.
    pub bad_record_count: u64,
    /// Bytes at its end that the next segment says do not count.
    pub cut_off_bytes: u64,
    /// Zeros at its end: room that was made for more and not used.
    pub room_bytes: u64,
    /// For a snapshot: how many records it says it had, `None` if its end is missing.
    pub footer_records: Option<u64>,
    /// Whether a newer snapshot has all that it holds.
    pub is_obsolete: bool,
}

impl FileReport {
    /// Whether all that was written is there.
    pub fn is_whole(&self) -> bool {
        let has_footer = self.kind == FileKind::Segment || self.footer_records == Some(self.records);
        self.bad_header.is_none() && self.gaps.is_empty() && self.bad_record_count == 0 && has_footer
    }
}

impl fmt::Display for FileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} bytes, {} blocks, {} records", self.name, self.bytes, self.blocks, self.records)?;
        if self.is_obsolete {
            write!(f, ", no longer needed")?;
        }
        if let Some(reason) = &self.bad_header {
            write!(f, "; damaged at offset 0: {reason}")?;
        }
        for gap in &self.gaps {
            write!(f, "; {} bytes at offset {} can't be read", gap.bytes, gap.offset)?;
            if let Some(blocks) = gap.blocks {
                write!(f, " ({blocks} blocks)")?;
            }
        }
        for bad in &self.bad_records {
            write!(f, "; in the block at offset {}: {}", bad.offset, bad.reason)?;
        }
        let more = self.bad_record_count - self.bad_records.len() as u64;
        if more > 0 {
            write!(f, "; {more} more records that can't be used")?;
        }
        if self.cut_off_bytes > 0 {
            write!(f, "; the last {} bytes do not count, the next segment repeats them", self.cut_off_bytes)?;
        }
        if self.room_bytes > 0 {
            write!(f, "; the last {} bytes are zeros, room for more", self.room_bytes)?;
        }
        match (self.kind, self.footer_records) {
            (FileKind::Snapshot, None) => write!(f, "; its end is missing"),
            (FileKind::Snapshot, Some(had)) if had != self.records => write!(f, "; it had {had} records"),
            _ => Ok(()),
        }
    }
}

/// What [`check`] found.
#[derive(Debug)]
pub struct Report {
    /// The store's files, in the order in which they are read.
    pub files: Vec<FileReport>,
    /// What a start would do: with which torn tail, or why not.
    pub start: Result<Option<TornTail>, StoreError>,
}

/// Reads all files of the store and changes nothing. Records that a start would read are shown to the inspector.
///
/// # Errors
/// `Disk`: a file could not be read. `Newer`: it can't be understood.
pub fn check<D: Disk, I: Inspector>(disk: &mut D, inspector: &mut I) -> Result<Report, StoreError> {
    let layout = Layout::read(disk)?;
    let newest = layout.newest_snapshot().map_or(0, |(number, _)| number);
    let family = known_family(disk, &layout)?;
    inspector.restart();
    let mut files = Vec::new();
    for (number, kind, len) in in_order(&layout, 0) {
        let is_obsolete = number < newest;
        let mut bad = BadRecords::default();
        let mut report = examine(disk, &layout, (kind, number, len), family, |_, block| {
            if is_obsolete { Ok(()) } else { bad.inspect(&block, inspector, |_| ()) }
        })?;
        report.is_obsolete = is_obsolete;
        bad.tell(&mut report);
        files.push(report);
    }
    let start = load(disk, &mut Nowhere).map(|loaded| loaded.torn);
    let start = start.and_then(|torn| first_bad(&files).map_or(Ok(torn), Err));
    Ok(Report { files, start })
}

/// The error with which a start would refuse the first bad record.
fn first_bad(files: &[FileReport]) -> Option<StoreError> {
    let of_file = |file: &FileReport| file.bad_records.first().cloned().map(|bad| (file.name.clone(), bad));
    let (file, bad) = files.iter().find_map(of_file)?;
    Some(StoreError::Unusable { file, offset: bad.offset, reason: bad.reason.to_string() })
}

/// The bad records of one file.
#[derive(Default)]
struct BadRecords {
    named: Vec<BadRecord>,
    count: u64,
    /// The first that a later server has written.
    newer: Option<BadRecord>,
}

impl BadRecords {
    /// Shows a block to the inspector; `good` gets what it takes.
    fn inspect<I: Inspector>(
        &mut self,
        block: &Block,
        inspector: &mut I,
        mut good: impl FnMut(Record<'_>),
    ) -> Result<(), StoreError> {
        if footer_of(block).is_some() {
            return Ok(());
        }
        let inspected = block.for_each(|record| match inspector.record(record) {
            Ok(()) => good(record),
            Err(reason) => {
                let bad = BadRecord { offset: block.offset, reason };
                self.count += 1;
                if matches!(bad.reason, Unreadable::Newer(_)) {
                    self.newer.get_or_insert_with(|| bad.clone());
                }
                if self.named.len() < MAX_BAD_NAMED {
                    self.named.push(bad);
                }
            }
        });
        inspected.map(|_| ())
    }

    fn tell(self, report: &mut FileReport) {
        report.bad_records = self.named;
        report.bad_record_count = self.count;
    }

    /// What a later server has written must not be dropped.
    fn refuse_newer(&self, file: &str) -> Result<(), StoreError> {
        let Some(bad) = &self.newer else { return Ok(()) };
        Err(StoreError::Unusable {
            file: file.to_owned(),
            offset: bad.offset,
            reason: bad.reason.to_string(),
        })
    }
}

/// What [`repair`] did.
#[derive(Debug)]
pub struct Repaired {
    /// The snapshot that holds all that could be read.
    pub snapshot: String,
    /// Records in it; the same key may be there several times.
    pub records: u64,
    /// The files that were read, with what was lost in them.
    pub files: Vec<FileReport>,
    /// Segments that should have been there (the first hundred).
    pub missing: Vec<String>,
    /// The damaged files, and what they are called now.
    pub set_aside: Vec<(String, String)>,
}

/// Makes a store that refuses to start whole again, as far as that can be done; `None` if it does start. `seed` as in
/// [`super::Options`].
///
/// # Errors
/// `Disk`: as it was, save a temporary file; or repaired, with damaged files not yet renamed (the next start would
/// remove them). `Newer`, or `Unusable` for a record of a later server: as it was.
pub fn repair<D: Disk, I: Inspector>(
    disk: &mut D,
    seed: u64,
    inspector: &mut I,
) -> Result<Option<Repaired>, StoreError> {
    match load(disk, &mut Nowhere) {
        Ok(_) | Err(StoreError::Damaged { .. } | StoreError::Missing { .. }) => {}
        Err(error @ (StoreError::Disk { .. } | StoreError::Newer { .. } | StoreError::Unusable { .. })) => {
            return Err(error);
        }
    }
    if check(disk, inspector)?.start.is_ok() {
        return Ok(None);
    }
    let layout = Layout::read(disk)?;
    let family = known_family(disk, &layout)?;
    let start = salvage_start(disk, &layout, family)?;
    let number = 1 + in_order(&layout, 0).last().map_or(0, |&(number, _, _)| number);
    // The first sequence of the log to come is not known before all is read, so all is read twice.
    let last = look_before_repair(disk, &layout, (start, family), inspector)?;
    let mut writer = SnapshotWriter::begin(disk, family.unwrap_or(seed), number, last + 1, true)?;
    let mut files = Vec::new();
    inspector.restart();
    for (number, kind, len) in in_order(&layout, start) {
        let mut bad = BadRecords::default();
        let mut report = examine(disk, &layout, (kind, number, len), family, |disk, block| {
            let mut batch = Batch::new();
            bad.inspect(&block, inspector, |record| batch.push(record))?;
            let records = batch.len();
            writer.add(disk, batch.chunks, records)
        })?;
        bad.tell(&mut report);
        files.push(report);
    }
    writer.finish(disk, last)?;
    let set_aside = set_aside(disk, &files)?;
    let (snapshot, records) = (FileKind::Snapshot.name(number), writer.records);
    Ok(Some(Repaired { snapshot, records, missing: missing(&layout, start), files, set_aside }))
}

/// The last sequence that the files from number `start` on have or speak of.
fn look_before_repair<D: Disk, I: Inspector>(
    disk: &mut D,
    layout: &Layout,
    (start, family): (u64, Option<u64>),
    inspector: &mut I,
) -> Result<u64, StoreError> {
    let mut last = 0;
    inspector.restart();
    for (number, kind, len) in in_order(layout, start) {
        let mut bad = BadRecords::default();
        let report = examine(disk, layout, (kind, number, len), family, |_, block| {
            last = last.max(match footer_of(&block) {
                Some(footer) => footer.leans_on,
                None if kind == FileKind::Segment => block.header.sequence,
                None => 0,
            });
            bad.inspect(&block, inspector, |_| ())
        })?;
        bad.refuse_newer(&report.name)?;
    }
    Ok(last)
}

/// Where to begin: at the newest whole snapshot, so that what was removed since an older one stays removed; if none
/// is whole, at the newest one, or at the first segment.
fn salvage_start<D: Disk>(disk: &mut D, layout: &Layout, family: Option<u64>) -> Result<u64, StoreError> {
    for (&number, &len) in layout.snapshots.iter().rev() {
        let report = examine(disk, layout, (FileKind::Snapshot, number, len), family, |_, _| Ok(()))?;
        if report.is_whole() {
            return Ok(number);
        }
    }
    Ok(layout.newest_snapshot().map_or(0, |(number, _)| number))
}

fn missing(layout: &Layout, start: u64) -> Vec<String> {
    let Some((&last, _)) = layout.segments.last_key_value() else { return Vec::new() };
    let numbers = (start.max(1)..last).filter(|number| !layout.segments.contains_key(number));
    numbers.take(MAX_MISSING_NAMED).map(|number| FileKind::Segment.name(number)).collect()
}

/// Renames the files that are not whole, so that no start removes them.
fn set_aside<D: Disk>(disk: &mut D, files: &[FileReport]) -> Result<Vec<(String, String)>, StoreError> {
    let taken = disk.list();
    let taken = taken.map_err(StoreError::disk("list", disk.directory()))?;
    let mut renamed = Vec::new();
    for file in files.iter().filter(|file| !file.is_whole()) {
        let names = (1..).map(|n| if n == 1 { String::new() } else { format!("-{n}") });
        let mut names = names.map(|suffix| format!("{}.damaged{suffix}", file.name));
        let is_free = |name: &String| taken.iter().all(|(other, _)| other != name);
        let name = names.find(is_free).expect("there are more names than files");
        disk.rename(&file.name, &name).map_err(StoreError::disk("set aside", &file.name))?;
        renamed.push((file.name.clone(), name));
    }
    let sync = disk.sync_dir();
    sync.map_err(StoreError::disk("sync the directory", disk.directory()))?;
    Ok(renamed)
}

/// The files from number `start` on, in the order in which their records count: a snapshot goes before the segment
/// of its number.
fn in_order(layout: &Layout, start: u64) -> Vec<(u64, FileKind, u64)> {
    let snapshots = layout.snapshots.range(start..).map(|(&number, &len)| (number, FileKind::Snapshot, len));
    let segments = layout.segments.range(start..).map(|(&number, &len)| (number, FileKind::Segment, len));
    let mut files: Vec<_> = snapshots.chain(segments).collect();
    files.sort_unstable();
    files
}

/// The random number that marks all files of the directory; `None` if there are none, or none is readable.
///
/// # Errors
/// `Disk`: a file could not be read. `Newer`: it can't be understood.
pub fn family<D: Disk>(disk: &mut D) -> Result<Option<u64>, StoreError> {
    let layout = Layout::read(disk)?;
    known_family(disk, &layout)
}

/// The family that the first file with a good header has: it takes the place of that in damaged headers.
fn known_family<D: Disk>(disk: &mut D, layout: &Layout) -> Result<Option<u64>, StoreError> {
    for (number, kind, len) in in_order(layout, 0) {
        match FileReader::new(disk, kind, number, len).header() {
            Ok(header) => return Ok(Some(header.family)),
            Err(StoreError::Damaged { .. } | StoreError::Missing { .. }) => {}
            Err(
                error @ (StoreError::Disk { .. } | StoreError::Newer { .. } | StoreError::Unusable { .. }),
            ) => return Err(error),
        }
    }
    Ok(None)
}

/// Where the next segment says that segment `number` ends; its length if it does not say.
fn limit<D: Disk>(disk: &mut D, layout: &Layout, number: u64, len: u64) -> Result<u64, StoreError> {
    let Some(&next_len) = layout.segments.get(&(number + 1)) else { return Ok(len) };
    match FileReader::new(disk, FileKind::Segment, number + 1, next_len).header() {
        Ok(header) => Ok(header.previous_len),
        Err(StoreError::Damaged { .. } | StoreError::Missing { .. }) => Ok(len),
        Err(error @ (StoreError::Disk { .. } | StoreError::Newer { .. } | StoreError::Unusable { .. })) => {
            Err(error)
        }
    }
}

/// Reads every whole block of a file, skipping what is not; `visit` gets each, and the disk.
fn examine<D: Disk>(
    disk: &mut D,
    layout: &Layout,
    (kind, number, len): (FileKind, u64, u64),
    family: Option<u64>,
    mut visit: impl FnMut(&mut D, Block) -> Result<(), StoreError>,
) -> Result<FileReport, StoreError> {
    let limit = if kind == FileKind::Segment { limit(disk, layout, number, len)? } else { len };
    let end = limit.min(len);
    let mut reader = FileReader::new(disk, kind, number, len);
    let mut report = FileReport {
        name: reader.name.to_string(),
        kind,
        bytes: len,
        blocks: 0,
        records: 0,
        bad_header: None,
        gaps: Vec::new(),
        bad_records: Vec::new(),
        bad_record_count: 0,
        cut_off_bytes: len - end,
        room_bytes: 0,
        footer_records: None,
        is_obsolete: false,
    };
    let header = match reader.header() {
        Ok(header) => Some(header),
        Err(StoreError::Damaged { reason, .. }) => {
            report.bad_header = Some(reason);
            None
        }
        Err(error) => return Err(error),
    };
    let Some(fields) = reader.unchecked_header()? else { return Ok(report) };
    let file_seed = seed(kind, family.unwrap_or(fields.family), number);
    let first = header.map_or(1, |header| if kind == FileKind::Segment { header.first_sequence } else { 1 });
    let mut cursor = Cursor::salvage(file_seed, first, end);
    loop {
        while let Some(block) = reader.next(&mut cursor)? {
            report.blocks += 1;
            match footer_of(&block) {
                Some(footer) => report.footer_records = Some(footer.records),
                None => match block.for_each(|_| ()) {
                    Ok(records) => report.records += records,
                    Err(_) => {
                        report.gaps.push(Gap { offset: block.offset, bytes: block.bytes(), blocks: Some(1) });
                        continue;
                    }
                },
            }
            visit(reader.disk(), block)?;
        }
        if cursor.offset >= cursor.limit {
            break;
        }
        let (offset, expected) = (cursor.offset, cursor.next_sequence);
        if kind == FileKind::Segment && end == len && reader.is_blank_from(offset)? {
            report.room_bytes = len - offset;
            break;
        }
        let is_found = reader.skip_to_block(&mut cursor)?;
        let blocks = (is_found && header.is_some()).then(|| cursor.next_sequence - expected);
        if cursor.offset > offset || blocks.is_some() {
            report.gaps.push(Gap { offset, bytes: cursor.offset - offset, blocks });
        }
    }
    if len < limit {
        report.gaps.push(Gap { offset: len, bytes: limit - len, blocks: None });
    }
    Ok(report)
}

/// Wants to know only whether there is an error.
struct Nowhere;

impl Sink for Nowhere {
    fn block(&mut self, block: Block) -> Result<(), StoreError> {
        block.for_each(|_| ()).map(|_| ())
    }
}
