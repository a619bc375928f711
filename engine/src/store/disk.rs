//! The door to a directory of files, as the store needs it: append, sync, replay.
//!
//! The server implements it with real files, the simulator with a disk that loses, tears and reorders what
//! was not synced. All calls are synchronous and may block: the store runs on a thread of its own. There is
//! no truncation and no writing in place, on purpose: the store never changes a byte that it has written. An implementation may
//! keep zeros behind what was appended until `close` (room for more, so that a sync need not note a new length); after a crash
//! they are still there, and start-up takes them for the end of the log.

use std::io;

/// One directory of files.
///
/// Durability is that of POSIX: bytes are safe after `sync` of their file, names (made, renamed, removed) after
/// `sync_dir`, and until then a crash may keep any part of them in any order. After a failed `sync` nothing
/// is known about the bytes since the last good one, and a later `sync` that succeeds says nothing about them.
pub trait Disk {
    /// The directory as messages to the operator should name it.
    fn directory(&self) -> &str;

    /// Name and length in bytes of every file in the directory; others' files too, in any order.
    fn list(&mut self) -> io::Result<Vec<(String, u64)>>;

    /// Makes a new, empty file that can be appended to.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the disk says; the file may then exist or not.
    fn create(&mut self, name: &str) -> io::Result<()>;

    /// Appends all of `bytes` to a file made by `create` on this `Disk`.
    ///
    /// # Errors
    /// What the disk says; any part of `bytes` may then have been appended.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Makes all that was appended to `name` durable; its name only by `sync_dir`.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Says that no more will be appended to `name`, so that what was kept open for it can go.
    fn close(&mut self, name: &str);

    /// Fills `buffer` from `offset` on; returns the bytes read, which are fewer only at the end of the file.
    fn read(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Gives a file another name, in one step, replacing a file that has it.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Makes names durable: all that `create`, `rename` and `remove` did.
    fn sync_dir(&mut self) -> io::Result<()>;
}
