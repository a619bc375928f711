//! The bytes of the store's files: names, file header, block, record. `docs/disk-format.md` has the tables.
//!
//! Both kinds of file (log segment, snapshot) are one header of 64 bytes and then blocks; a block is a header of
//! 32 bytes and a body of records. All numbers are little-endian. A block's checksum also covers which file it
//! belongs to (family, kind, number), so that a block in the wrong file is as good as damage, and a client
//! who counts under names that look like blocks can't forge one: the family is a random number that clients
//! never see.

use std::sync::Arc;

use super::StoreError;

/// The version of the format that this code writes; it reads all from 1 to this.
pub const FORMAT_VERSION: u32 = 1;
/// Length of the header of each file.
pub const FILE_HEADER_BYTES: usize = 64;
/// Length of the header of each block.
pub const BLOCK_HEADER_BYTES: usize = 32;
/// A batch begins a new block when the body of its last one has reached this.
pub const BLOCK_TARGET_BYTES: usize = 1 << 20;
/// Longest key of a record.
pub const MAX_KEY_BYTES: usize = 65_535;
/// Longest payload of a record.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;
/// Longest body of a block: the target, and one record more.
pub const MAX_BODY_BYTES: usize = BLOCK_TARGET_BYTES + MAX_KEY_BYTES + MAX_PAYLOAD_BYTES + 16;

/// File numbers and sequences stay below this; a million blocks a second take 140,000 years to get there.
pub(crate) const MAX_NUMBER: u64 = 1 << 62;

/// Block flag: the last block of a commit.
pub(crate) const END_OF_COMMIT: u32 = 1;
/// Block flag: the body is compressed (LZ4 block format).
pub(crate) const LZ4: u32 = 2;
/// Block flag: the last block of a snapshot; its body is a [`Footer`].
pub(crate) const FOOTER: u32 = 4;

pub(crate) const BLOCK_MAGIC: [u8; 4] = *b"DBLK";

/// The two kinds of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// Every state before those of the segment with the same number.
    Snapshot,
    /// A part of the log.
    Segment,
}

impl FileKind {
    fn magic(self) -> [u8; 8] {
        match self {
            FileKind::Snapshot => *b"DISCNTSN",
            FileKind::Segment => *b"DISCNTLG",
        }
    }

    /// The name of the file of this kind with `number`.
    pub(crate) fn name(self, number: u64) -> String {
        match self {
            FileKind::Snapshot => format!("counters-{number:010}.snapshot"),
            FileKind::Segment => format!("counters-{number:010}.log"),
        }
    }

    /// Kind and number of a file by its name, `None` for files that are not the store's.
    pub(crate) fn parse(name: &str) -> Option<(FileKind, u64)> {
        let (number, extension) = name.strip_prefix("counters-")?.split_once('.')?;
        let kind = match extension {
            "snapshot" => FileKind::Snapshot,
            "log" => FileKind::Segment,
            _ => return None,
        };
        let number: u64 = number.parse().ok()?;
        let is_ours = (1..MAX_NUMBER).contains(&number) && kind.name(number) == name;
        is_ours.then_some((kind, number))
    }
}

/// What a snapshot is called until it is whole.
pub(crate) const SNAPSHOT_TEMPORARY: &str = "counters.snapshot.tmp";
/// What a segment is called until its header, and what it repeats from the one before, are safe.
pub(crate) const SEGMENT_TEMPORARY: &str = "counters.log.tmp";

/// The first 64 bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) kind: FileKind,
    /// As in the file's name. A snapshot goes before the segment of the same number.
    pub(crate) number: u64,
    /// Random, the same in all files of one data directory.
    pub(crate) family: u64,
    /// Sequence of the first block of segment `number`.
    pub(crate) first_sequence: u64,
    /// Where the segment before this one ends: what lies behind that there does not count. 0 in snapshots.
    pub(crate) previous_len: u64,
    /// How much of this file was synced before it got its name. 0 in snapshots, which are all safe by then.
    pub(crate) safe_len: u64,
}

/// Why a file header can't be used.
pub(crate) enum BadHeader {
    Broken(&'static str),
    Newer(u32),
}

impl FileHeader {
    pub(crate) fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.kind.magic());
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.family.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.previous_len.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.safe_len.to_le_bytes());
        let crc = header_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of the file that by its name is of `kind` and has `number`.
    pub(crate) fn decode(bytes: &[u8], kind: FileKind, number: u64) -> Result<FileHeader, BadHeader> {
        let Some(bytes) = bytes.first_chunk::<FILE_HEADER_BYTES>() else {
            return Err(BadHeader::Broken("the file is shorter than its header"));
        };
        let version = u32_at(bytes, 8);
        if bytes[..8] != kind.magic() {
            return Err(BadHeader::Broken("the file does not begin as its kind must"));
        }
        if header_crc(bytes) != u32_at(bytes, 12) {
            return Err(BadHeader::Broken("the checksum of the file's header is wrong"));
        }
        if version > FORMAT_VERSION {
            return Err(BadHeader::Newer(version));
        }
        let header = FileHeader::fields(bytes, kind);
        if header.number != number {
            return Err(BadHeader::Broken("the file was renamed: its header has another number"));
        }
        if !(1..MAX_NUMBER).contains(&header.first_sequence) {
            return Err(BadHeader::Broken("the header's first sequence is out of range"));
        }
        Ok(header)
    }

    /// The fields as they stand, right or wrong: for salvage.
    pub(crate) fn fields(bytes: &[u8; FILE_HEADER_BYTES], kind: FileKind) -> FileHeader {
        FileHeader {
            kind,
            number: u64_at(bytes, 16),
            family: u64_at(bytes, 24),
            first_sequence: u64_at(bytes, 32),
            previous_len: u64_at(bytes, 40),
            safe_len: u64_at(bytes, 48),
        }
    }

    /// The start value of the checksums of this file's blocks.
    pub(crate) fn seed(&self) -> u32 {
        seed(self.kind, self.family, self.number)
    }
}

/// The start value of block checksums: the checksum of what a block belongs to.
pub(crate) fn seed(kind: FileKind, family: u64, number: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&kind.magic());
    hasher.update(&family.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.finalize()
}

fn header_crc(bytes: &[u8; FILE_HEADER_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    hasher.finalize()
}

/// The first 32 bytes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) crc: u32,
    /// Bytes of the body in the file.
    pub(crate) stored_len: u32,
    /// Bytes of the body when decompressed.
    pub(crate) raw_len: u32,
    /// One more than that of the block before, from segment to segment. In a snapshot from 1.
    pub(crate) sequence: u64,
    /// How many blocks just before this one were not known to be synced when it was written.
    ///
    /// This is what tells a torn tail from damage: a bad block that a later one knew to be synced was once whole.
    pub(crate) unsynced: u32,
    pub(crate) flags: u32,
}

impl BlockHeader {
    /// The fields, if they can be those of a block: magic, lengths and flags are checked, the checksum is not.
    pub(crate) fn decode(bytes: &[u8]) -> Option<BlockHeader> {
        let bytes = bytes.first_chunk::<BLOCK_HEADER_BYTES>()?;
        let header = BlockHeader {
            crc: u32_at(bytes, 4),
            stored_len: u32_at(bytes, 8),
            raw_len: u32_at(bytes, 12),
            sequence: u64_at(bytes, 16),
            unsynced: u32_at(bytes, 24),
            flags: u32_at(bytes, 28),
        };
        let is_sane = bytes[..4] == BLOCK_MAGIC
            && (header.stored_len == header.raw_len || header.flags & LZ4 != 0)
            && header.stored_len <= header.raw_len
            && header.raw_len as usize <= MAX_BODY_BYTES
            && header.flags & !(END_OF_COMMIT | LZ4 | FOOTER) == 0
            && u64::from(header.unsynced) < header.sequence
            && header.sequence < MAX_NUMBER;
        is_sane.then_some(header)
    }

    /// Bytes of the whole block.
    pub(crate) fn block_len(&self) -> usize {
        BLOCK_HEADER_BYTES + self.stored_len as usize
    }

    /// The last block that was known to be synced when this one was written.
    pub(crate) fn synced_sequence(&self) -> u64 {
        self.sequence - 1 - u64::from(self.unsynced)
    }
}

/// Whether the checksum of a whole block (header and body) is right for the file with `seed`.
pub(crate) fn is_block_intact(header: &BlockHeader, block: &[u8], seed: u32) -> bool {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&block[8..]);
    hasher.finalize() == header.crc
}

/// Writes the header of a block into the first 32 bytes of `block`, whose rest is the body.
pub(crate) fn seal(block: &mut [u8], seed: u32, raw_len: usize, sequence: u64, unsynced: u64, flags: u32) {
    let stored_len =
        u32::try_from(block.len() - BLOCK_HEADER_BYTES).expect("bodies are below MAX_BODY_BYTES");
    let raw_len = u32::try_from(raw_len).expect("bodies are below MAX_BODY_BYTES");
    let unsynced = u32::try_from(unsynced).expect("MAX_UNSYNCED_BYTES bounds the blocks between two syncs");
    block[..4].copy_from_slice(&BLOCK_MAGIC);
    block[8..12].copy_from_slice(&stored_len.to_le_bytes());
    block[12..16].copy_from_slice(&raw_len.to_le_bytes());
    block[16..24].copy_from_slice(&sequence.to_le_bytes());
    block[24..28].copy_from_slice(&unsynced.to_le_bytes());
    block[28..32].copy_from_slice(&flags.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&block[8..]);
    block[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
}

/// The body of a snapshot's last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// Records in all blocks before.
    pub(crate) records: u64,
    /// The log must reach this block, or the snapshot would show a mixture of times.
    pub(crate) leans_on: u64,
}

impl Footer {
    pub(crate) fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.records.to_le_bytes());
        bytes[8..].copy_from_slice(&self.leans_on.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Footer> {
        let bytes: &[u8; 16] = bytes.try_into().ok()?;
        let footer = Footer { records: u64_at(bytes, 0), leans_on: u64_at(bytes, 8) };
        (footer.leans_on < MAX_NUMBER).then_some(footer)
    }
}

/// One state: the last one of a (kind, key) wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it is about; the store gives it no meaning.
    pub kind: u8,
    /// At most [`MAX_KEY_BYTES`].
    pub key: &'a [u8],
    /// The state, at most [`MAX_PAYLOAD_BYTES`]; `None` says that there is none any more.
    pub payload: Option<&'a [u8]>,
}

impl Record<'_> {
    /// Appends the record's bytes.
    ///
    /// # Panics
    /// If key or payload is over its limit: callers refuse such names long before.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.key.len() <= MAX_KEY_BYTES, "a record's key has at most 65,535 bytes");
        out.push(self.kind);
        encode_varint(out, self.key.len());
        out.extend_from_slice(self.key);
        match self.payload {
            None => out.push(0),
            Some(payload) => {
                assert!(payload.len() <= MAX_PAYLOAD_BYTES, "a record's payload has at most 1 MiB");
                encode_varint(out, payload.len() + 1);
                out.extend_from_slice(payload);
            }
        }
    }
}

/// Takes one record off the front of `bytes`; `None` if they are not a record.
fn decode_record<'a>(bytes: &mut &'a [u8]) -> Option<Record<'a>> {
    let (&kind, rest) = bytes.split_first()?;
    *bytes = rest;
    let key_len = decode_varint(bytes)?;
    let key = take(bytes, key_len, MAX_KEY_BYTES)?;
    let payload = match decode_varint(bytes)? {
        0 => None,
        len => Some(take(bytes, len - 1, MAX_PAYLOAD_BYTES)?),
    };
    Some(Record { kind, key, payload })
}

fn take<'a>(bytes: &mut &'a [u8], len: usize, max: usize) -> Option<&'a [u8]> {
    if len > max {
        return None;
    }
    let (head, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(head)
}

fn encode_varint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Up to 4 bytes: enough for every length that a record can have.
fn decode_varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in [0, 7, 14, 21] {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// A block that was read and whose checksum was right; it may be sent to another thread to be taken apart.
#[derive(Clone, Debug)]
pub struct Block {
    pub(crate) directory: Arc<str>,
    pub(crate) file: Arc<str>,
    pub(crate) offset: u64,
    pub(crate) header: BlockHeader,
    pub(crate) body: Vec<u8>,
}

impl Block {
    /// Bytes of the block in its file.
    pub fn bytes(&self) -> u64 {
        self.header.block_len() as u64
    }

    /// The file that it is in.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Calls `each` with every record, in order; returns how many there were.
    ///
    /// # Errors
    /// `Damaged` if the body is not made of records although its checksum is right; `each` may have been called.
    pub fn for_each(&self, mut each: impl FnMut(Record<'_>)) -> Result<u64, StoreError> {
        let unpacked;
        let mut rest: &[u8] = &self.body;
        if self.header.flags & LZ4 != 0 {
            unpacked = unpack(&self.body, self.header.raw_len as usize).ok_or_else(|| self.malformed())?;
            rest = &unpacked;
        }
        let mut records = 0;
        while !rest.is_empty() {
            each(decode_record(&mut rest).ok_or_else(|| self.malformed())?);
            records += 1;
        }
        Ok(records)
    }

    /// The error for a block whose records are well formed but mean nothing to their reader.
    pub(crate) fn refused(&self, reason: String) -> StoreError {
        StoreError::Unusable { file: self.file.to_string(), offset: self.offset, reason }
    }

    fn malformed(&self) -> StoreError {
        StoreError::Damaged {
            directory: self.directory.to_string(),
            file: self.file.to_string(),
            offset: self.offset,
            reason: "the checksum is right but the block is not made of records".to_owned(),
        }
    }
}

fn unpack(packed: &[u8], raw_len: usize) -> Option<Vec<u8>> {
    let mut raw = vec![0; raw_len];
    let len = lz4_flex::block::decompress_into(packed, &mut raw).ok()?;
    (len == raw_len).then_some(raw)
}

/// Compresses a block (header room and body) if that makes it smaller; `None` if not.
pub(crate) fn pack(block: &[u8]) -> Option<Vec<u8>> {
    let body = &block[BLOCK_HEADER_BYTES..];
    let room = lz4_flex::block::get_maximum_output_size(body.len());
    let mut packed = vec![0; BLOCK_HEADER_BYTES + room];
    let len = lz4_flex::block::compress_into(body, &mut packed[BLOCK_HEADER_BYTES..])
        .expect("the room is the maximum that the compressor asks for");
    packed.truncate(BLOCK_HEADER_BYTES + len);
    (len < body.len()).then_some(packed)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were asked for"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were asked for"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_of(body: &[u8]) -> Block {
        let header = BlockHeader {
            crc: 0,
            stored_len: body.len() as u32,
            raw_len: body.len() as u32,
            sequence: 1,
            unsynced: 0,
            flags: 0,
        };
        Block { directory: "".into(), file: "".into(), offset: 0, header, body: body.to_vec() }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let long = vec![7; MAX_KEY_BYTES];
        let big = vec![9; MAX_PAYLOAD_BYTES];
        let records = [
            Record { kind: 0, key: b"", payload: None },
            Record { kind: 1, key: b"a", payload: Some(b"") },
            Record { kind: 255, key: &long, payload: Some(&big) },
        ];
        let mut body = Vec::new();
        records.iter().for_each(|record| record.encode(&mut body));
        let mut at = 0;
        let count = block_of(&body).for_each(|record| {
            assert_eq!(record, records[at]);
            at += 1;
        });
        assert_eq!(count.unwrap(), 3);
    }

    #[test]
    fn a_body_cut_short_is_malformed() {
        let mut body = Vec::new();
        Record { kind: 1, key: b"name", payload: Some(b"state") }.encode(&mut body);
        for len in 1..body.len() {
            assert!(block_of(&body[..len]).for_each(|_| ()).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn names_are_parsed_only_as_they_are_written() {
        for kind in [FileKind::Snapshot, FileKind::Segment] {
            for number in [1, 42, 9_999_999_999, 12_345_678_901, MAX_NUMBER - 1] {
                assert_eq!(FileKind::parse(&kind.name(number)), Some((kind, number)));
            }
        }
        for name in [
            "counters-1.log",
            "counters-0000000001.log.damaged",
            "nodes.conf",
            SNAPSHOT_TEMPORARY,
            "dump.ddb",
        ] {
            assert_eq!(FileKind::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_flipped_bit_breaks_a_file_header() {
        let header = FileHeader {
            kind: FileKind::Segment,
            number: 3,
            family: 0xfeed,
            first_sequence: 77,
            previous_len: 4096,
            safe_len: 128,
        };
        let bytes = header.encode();
        assert!(FileHeader::decode(&bytes, FileKind::Segment, 3).is_ok_and(|read| read == header));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(&bytes, FileKind::Segment, 3).is_err(), "bit {bit}");
        }
    }
}
