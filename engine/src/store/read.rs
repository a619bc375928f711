//! Reading one file block by block, and finding the next whole block behind a bad place.
//!
//! Reads forward through a window of a few MiB, so that a file of any size costs the same memory.

use std::sync::Arc;

use super::format::{
    BLOCK_HEADER_BYTES, BLOCK_MAGIC, BadHeader, Block, BlockHeader, FILE_HEADER_BYTES, FOOTER, FileHeader,
    FileKind, Footer, is_block_intact,
};
use super::{Disk, StoreError};

/// Bytes asked of the disk at once.
const READ_BYTES: usize = 4 << 20;
/// How many blocks may be missing between two that are there, beyond what the room between them can hold:
/// damage may have taken room away.
const MAX_LOST_BLOCKS: u64 = 1 << 20;
/// Length of a snapshot's last block.
const FOOTER_BLOCK_BYTES: u64 = BLOCK_HEADER_BYTES as u64 + 16;

/// One file of the store, open for reading.
pub(crate) struct FileReader<'d, D> {
    disk: &'d mut D,
    directory: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) kind: FileKind,
    pub(crate) number: u64,
    pub(crate) len: u64,
    window: Vec<u8>,
    window_start: u64,
}

/// Where a reader is among the blocks of its file.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    /// Of the next block.
    pub(crate) offset: u64,
    /// Where the blocks must end.
    pub(crate) limit: u64,
    /// What the next block must carry.
    pub(crate) next_sequence: u64,
    seed: u32,
    max_lost_blocks: u64,
}

impl Cursor {
    /// Before the first block of a file whose checksums start from `seed` and whose blocks end at `limit`.
    pub(crate) fn new(seed: u32, first_sequence: u64, limit: u64) -> Cursor {
        Cursor {
            offset: FILE_HEADER_BYTES as u64,
            limit,
            next_sequence: first_sequence,
            seed,
            max_lost_blocks: MAX_LOST_BLOCKS,
        }
    }

    /// As `new`, but goes on behind any loss.
    pub(crate) fn salvage(seed: u32, first_sequence: u64, limit: u64) -> Cursor {
        Cursor { max_lost_blocks: u64::MAX, ..Cursor::new(seed, first_sequence, limit) }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.offset == self.limit
    }
}

impl<'d, D: Disk> FileReader<'d, D> {
    pub(crate) fn new(disk: &'d mut D, kind: FileKind, number: u64, len: u64) -> FileReader<'d, D> {
        let directory = disk.directory().into();
        let name = kind.name(number).into();
        FileReader { disk, directory, name, kind, number, len, window: Vec::new(), window_start: 0 }
    }

    pub(crate) fn disk(&mut self) -> &mut D {
        self.disk
    }

    /// `Damaged`, at `offset` of this file.
    pub(crate) fn damaged(&self, offset: u64, reason: impl Into<String>) -> StoreError {
        let (directory, file) = (self.directory.to_string(), self.name.to_string());
        StoreError::Damaged { directory, file, offset, reason: reason.into() }
    }

    /// The file's header, checked.
    pub(crate) fn header(&mut self) -> Result<FileHeader, StoreError> {
        let (kind, number) = (self.kind, self.number);
        match FileHeader::decode(self.peek(0, FILE_HEADER_BYTES)?, kind, number) {
            Ok(header) => Ok(header),
            Err(BadHeader::Broken(reason)) => Err(self.damaged(0, reason)),
            Err(BadHeader::Newer(version)) => Err(StoreError::Newer { file: self.name.to_string(), version }),
        }
    }

    /// The file's header as it stands, right or wrong; `None` if the file is too short to have one.
    pub(crate) fn unchecked_header(&mut self) -> Result<Option<FileHeader>, StoreError> {
        let kind = self.kind;
        Ok(self.peek(0, FILE_HEADER_BYTES)?.first_chunk().map(|bytes| FileHeader::fields(bytes, kind)))
    }

    /// The footer that a whole snapshot ends with; `None` if this one does not.
    pub(crate) fn footer(&mut self, seed: u32) -> Result<Option<Footer>, StoreError> {
        let Some(offset) = self.len.checked_sub(FOOTER_BLOCK_BYTES) else { return Ok(None) };
        Ok(self.block_at(offset, self.len, seed)?.and_then(|block| footer_of(&block)))
    }

    /// The next block in order; `None` at the end, or where the next bytes are not that block: the cursor
    /// then stands there.
    pub(crate) fn next(&mut self, cursor: &mut Cursor) -> Result<Option<Block>, StoreError> {
        if cursor.offset >= cursor.limit {
            return Ok(None);
        }
        let Some(block) = self.block_at(cursor.offset, cursor.limit, cursor.seed)? else { return Ok(None) };
        if block.header.sequence != cursor.next_sequence {
            return Ok(None);
        }
        cursor.offset += block.bytes();
        cursor.next_sequence += 1;
        Ok(Some(block))
    }

    /// Moves the cursor over bytes that are no block, to the next whole block that may follow in order (some
    /// before it being lost), or to the limit. Returns whether there is one.
    pub(crate) fn skip_to_block(&mut self, cursor: &mut Cursor) -> Result<bool, StoreError> {
        while cursor.offset < cursor.limit {
            let left = usize::try_from(cursor.limit - cursor.offset).unwrap_or(usize::MAX);
            let bytes = self.peek(cursor.offset, left.min(READ_BYTES))?;
            let Some(at) = bytes.windows(BLOCK_MAGIC.len()).position(|four| four == BLOCK_MAGIC) else {
                // The last three bytes may be the beginning of the magic.
                let step = bytes.len().saturating_sub(BLOCK_MAGIC.len() - 1).max(1);
                cursor.offset = cursor.limit.min(cursor.offset + step as u64);
                continue;
            };
            cursor.offset += at as u64;
            // A block takes at least its header, so a sequence far ahead of the place can't be right; checking
            // that first keeps a hostile torn tail from making us checksum each of its bytes many times.
            let blocks_left = (cursor.limit - cursor.offset) / BLOCK_HEADER_BYTES as u64;
            let ahead = cursor.max_lost_blocks.saturating_add(blocks_left);
            let plausible = cursor.next_sequence..=cursor.next_sequence.saturating_add(ahead);
            let header = BlockHeader::decode(self.peek(cursor.offset, BLOCK_HEADER_BYTES)?);
            if header.is_some_and(|header| plausible.contains(&header.sequence))
                && let Some(block) = self.block_at(cursor.offset, cursor.limit, cursor.seed)?
            {
                cursor.next_sequence = block.header.sequence;
                return Ok(true);
            }
            cursor.offset += 1;
        }
        Ok(false)
    }

    /// Whether the bad place at `cursor` was once whole and safe: some later block knew it to be synced.
    ///
    /// A crash may lose any of the blocks since the last sync and keep others behind them, so a whole block
    /// behind a bad one is not yet a sign of damage.
    pub(crate) fn was_synced(&mut self, cursor: &Cursor) -> Result<bool, StoreError> {
        let mut ahead = cursor.clone();
        while self.skip_to_block(&mut ahead)? {
            while let Some(block) = self.next(&mut ahead)? {
                if block.header.synced_sequence() >= cursor.next_sequence {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Whether there is nothing but zeros from `offset` on: room that was made and not used, or writes of which a crash kept
    /// the length alone.
    pub(crate) fn is_blank_from(&mut self, mut offset: u64) -> Result<bool, StoreError> {
        while offset < self.len {
            let bytes = self.peek(offset, READ_BYTES)?;
            if bytes.is_empty() || bytes.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            offset += bytes.len() as u64;
        }
        Ok(true)
    }

    fn block_at(&mut self, offset: u64, limit: u64, seed: u32) -> Result<Option<Block>, StoreError> {
        let Some(header) = BlockHeader::decode(self.peek(offset, BLOCK_HEADER_BYTES)?) else {
            return Ok(None);
        };
        let len = header.block_len();
        if limit - offset < len as u64 {
            return Ok(None);
        }
        let bytes = self.peek(offset, len)?;
        if bytes.len() < len || !is_block_intact(&header, bytes, seed) {
            return Ok(None);
        }
        let body = bytes[BLOCK_HEADER_BYTES..].to_vec();
        let (directory, file) = (self.directory.clone(), self.name.clone());
        Ok(Some(Block { directory, file, offset, header, body }))
    }

    /// `want` bytes from `offset` on, fewer only at the end of the file.
    fn peek(&mut self, offset: u64, want: usize) -> Result<&[u8], StoreError> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let want = want.min(left);
        let window_end = self.window_start + self.window.len() as u64;
        if offset < self.window_start || offset + want as u64 > window_end {
            if (self.window_start..=window_end).contains(&offset) {
                self.window.drain(..(offset - self.window_start) as usize);
            } else {
                self.window.clear();
            }
            self.window_start = offset;
            let kept = self.window.len();
            self.window.resize(want.max(READ_BYTES.min(left)).max(kept), 0);
            let read = self
                .disk
                .read(&self.name, offset + kept as u64, &mut self.window[kept..])
                .map_err(StoreError::disk("read", &self.name))?;
            self.window.truncate(kept + read);
        }
        let rest = &self.window[(offset - self.window_start) as usize..];
        Ok(&rest[..want.min(rest.len())])
    }
}

/// What the last block of a snapshot says; `None` for all other blocks.
pub(crate) fn footer_of(block: &Block) -> Option<Footer> {
    (block.header.flags == FOOTER).then(|| Footer::decode(&block.body)).flatten()
}
