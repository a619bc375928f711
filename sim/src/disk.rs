//! A disk that does its worst within the rules of POSIX: what was not synced may be lost, torn or reordered.
//!
//! - [`FakeDisk::power_cut`] keeps of each file what was synced and any part of the rest: nothing, a prefix,
//!   some sectors of some writes, or the length without the bytes (zeros). Of the names that `sync_dir` has not
//!   made safe it keeps any subset; a rename is kept whole or not at all.
//! - A failed `sync` keeps any part of the bytes and forgets that the rest was ever to be written: a later sync
//!   succeeds without them, while reading still shows them, as page caches do.
//! - With [`FakeDisk::make_room`], appends to segments of the log go into zeros written ahead, as the server does it
//!   under `appendfsync always`.
//! - Each operation that changes something has a number, and any of them can be told to fail, or to be the
//!   last before a crash. A failing operation may have taken effect, wholly or in part.
//!
//! Deterministic: all chances come from the seed. Clones share one disk, as processes do.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard};

use engine::store::Disk;

/// Bytes that are written or lost together.
const SECTOR_BYTES: usize = 512;

/// What an operation is told to do instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fails as on a full disk.
    NoSpace,
    /// Fails as on a broken disk.
    Io,
    /// Does part of its work, and then nothing works until [`FakeDisk::power_cut`] or [`FakeDisk::kill`].
    Crash,
}

/// A small random source (splitmix64): the same seed gives the same numbers for ever.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that always fall the same for a `seed`.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is above 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A handle to a fake disk with one directory.
#[derive(Clone, Debug)]
pub struct FakeDisk(Arc<Mutex<State>>);

#[derive(Clone, Debug)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    is_crashed: bool,
    capacity: u64,
    room_bytes: usize,
    dice: Dice,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    live: Vec<u8>,
    /// Where the next append goes: the end of `live`, or before it if room was made.
    end: usize,
    /// Where each write since the last sync began, and its bytes.
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link { name: String, inode: usize },
    Unlink { name: String, inode: usize },
    Rename { from: String, to: String, inode: usize },
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        let unlink = |names: &mut BTreeMap<String, usize>, name: &String, inode: usize| {
            if names.get(name) == Some(&inode) {
                names.remove(name);
            }
        };
        match self {
            NameChange::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            NameChange::Unlink { name, inode } => unlink(names, name, *inode),
            NameChange::Rename { from, to, inode } => {
                unlink(names, from, *inode);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

impl Inode {
    /// Makes some part of the unsynced bytes durable, as chance has it.
    fn keep_some(&mut self, dice: &mut Dice) {
        let mode = dice.below(6);
        let pending = std::mem::take(&mut self.pending);
        let writes = pending.len();
        let prefix = dice.below(writes + 1);
        for (at, (offset, bytes)) in pending.into_iter().enumerate() {
            match mode {
                0 => {}
                1 => self.harden(offset, &bytes),
                // A prefix of the writes, the last of them torn.
                2 if at < prefix => self.harden(offset, &bytes),
                2 if at == prefix => self.harden(offset, &bytes[..dice.below(bytes.len() + 1)]),
                2 => {}
                // Any sectors, in any order; any writes.
                3 | 4 => {
                    let mut start = 0;
                    while start < bytes.len() {
                        let boundary = SECTOR_BYTES - (offset + start) % SECTOR_BYTES;
                        let end = bytes.len().min(start + boundary);
                        if dice.chance(if mode == 3 { 50 } else { 85 }) {
                            self.harden(offset + start, &bytes[start..end]);
                        }
                        start = end;
                    }
                }
                // The length got through, the bytes did not.
                _ => {
                    let len = dice.below(bytes.len() + 1);
                    self.harden(offset, &vec![0; len]);
                }
            }
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.pending.push((offset, bytes.to_vec()));
        put(&mut self.live, offset, bytes);
    }

    fn harden(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.durable, offset, bytes);
    }
}

/// Writes `bytes` into `file` from `offset` on, making it longer if need be.
fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

impl FakeDisk {
    /// An empty directory on a large disk.
    pub fn new(seed: u64) -> FakeDisk {
        FakeDisk(Arc::new(Mutex::new(State {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            operations: 0,
            faults: BTreeMap::new(),
            is_crashed: false,
            capacity: u64::MAX,
            room_bytes: 0,
            dice: Dice::new(seed),
        })))
    }

    /// Another disk with the same content and history, whose chances come from another seed.
    pub fn fork(&self, seed: u64) -> FakeDisk {
        let mut state = self.state().clone();
        state.dice = Dice::new(seed);
        FakeDisk(Arc::new(Mutex::new(state)))
    }

    /// How many operations that change something there have been; the next one has this number.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Tells the operation with this number to fail.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.state().faults.insert(operation, fault);
    }

    /// Forgets all faults to come.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Lets the files together have this many bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// From now on segments of the log get this many zeros ahead whenever they grow; 0: none.
    pub fn make_room(&self, bytes: usize) {
        self.state().room_bytes = bytes;
    }

    /// The bytes of all files together.
    pub fn used(&self) -> u64 {
        let state = self.state();
        state.used()
    }

    /// Whether [`Fault::Crash`] has happened.
    pub fn is_crashed(&self) -> bool {
        self.state().is_crashed
    }

    /// The machine goes down and comes up again: see the module's page for what is left.
    pub fn power_cut(&self) {
        let mut state = self.state();
        let state = &mut *state;
        let mode = state.dice.below(4);
        let changes = std::mem::take(&mut state.pending_names);
        let prefix = state.dice.below(changes.len() + 1);
        for (at, change) in changes.iter().enumerate() {
            let is_kept = match mode {
                0 => false,
                1 => true,
                2 => at < prefix,
                _ => state.dice.chance(50),
            };
            if is_kept {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        for inode in &mut state.inodes {
            inode.keep_some(&mut state.dice);
            inode.live = inode.durable.clone();
            inode.end = inode.live.len();
        }
        state.is_crashed = false;
    }

    /// The process ends, the machine goes on: nothing that was written is lost yet.
    pub fn kill(&self) {
        self.state().is_crashed = false;
    }

    /// The names of all files.
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// The bytes of a file, as reading shows them.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).map(|&inode| state.inodes[inode].live.clone())
    }

    /// Puts a file there, durably, replacing what is there: damage, or a file from elsewhere.
    pub fn plant(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let inode = state.inodes.len();
        let (durable, live, end) = (bytes.to_vec(), bytes.to_vec(), bytes.len());
        state.inodes.push(Inode { durable, live, end, pending: Vec::new() });
        state.names.insert(name.to_owned(), inode);
        state.durable_names.insert(name.to_owned(), inode);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test thread panics while it holds the disk")
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names.values().map(|&inode| self.inodes[inode].live.len() as u64).sum()
    }

    /// Counts an operation; its fault, if it has one.
    fn operation(&mut self) -> Result<Option<Fault>> {
        if self.is_crashed {
            return Err(Error::other("the machine is down"));
        }
        let fault = self.faults.remove(&self.operations);
        self.operations += 1;
        self.is_crashed = fault == Some(Fault::Crash);
        Ok(fault)
    }

    fn inode(&self, name: &str) -> Result<usize> {
        self.names.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn change_name(&mut self, change: NameChange) -> Result<()> {
        let fault = self.operation()?;
        if fault.is_none() || self.dice.chance(50) {
            change.apply(&mut self.names);
            self.pending_names.push(change);
        }
        outcome(fault)
    }
}

fn outcome(fault: Option<Fault>) -> Result<()> {
    match fault {
        None => Ok(()),
        Some(Fault::NoSpace) => Err(ErrorKind::StorageFull.into()),
        Some(Fault::Io) => Err(Error::other("input/output error")),
        Some(Fault::Crash) => Err(Error::other("the machine goes down")),
    }
}

impl Disk for FakeDisk {
    fn directory(&self) -> &str {
        "fake"
    }

    fn list(&mut self) -> Result<Vec<(String, u64)>> {
        let state = self.state();
        let len = |&inode: &usize| state.inodes[inode].live.len() as u64;
        Ok(state.names.iter().map(|(name, inode)| (name.clone(), len(inode))).collect())
    }

    fn create(&mut self, name: &str) -> Result<()> {
        let mut state = self.state();
        if state.names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.change_name(NameChange::Link { name: name.to_owned(), inode })
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut state = self.state();
        let inode = state.inode(name)?;
        let mut fault = state.operation()?;
        let mut len = bytes.len();
        if fault.is_some() {
            len = state.dice.below(len + 1);
        }
        let room = usize::try_from(state.capacity.saturating_sub(state.used())).unwrap_or(usize::MAX);
        if len > room {
            len = room;
            fault = fault.or(Some(Fault::NoSpace));
        }
        let room_bytes =
            if name.ends_with(".log") { state.room_bytes.min(room.saturating_sub(len)) } else { 0 };
        let inode = &mut state.inodes[inode];
        let (offset, end) = (inode.end, inode.live.len());
        if offset + len > end {
            inode.write(end, &vec![0; offset + len + room_bytes - end]);
        }
        inode.write(offset, &bytes[..len]);
        inode.end = offset + len;
        outcome(fault)
    }

    fn sync(&mut self, name: &str) -> Result<()> {
        let mut state = self.state();
        let inode = state.inode(name)?;
        let fault = state.operation()?;
        let State { inodes, dice, .. } = &mut *state;
        let inode = &mut inodes[inode];
        match fault {
            None => {
                for (offset, bytes) in std::mem::take(&mut inode.pending) {
                    inode.harden(offset, &bytes);
                }
            }
            Some(Fault::Crash) => {}
            Some(_) => inode.keep_some(dice),
        }
        outcome(fault)
    }

    /// Cuts off the room, as the server does. It is not synced: mostly the zeros come back after a power cut.
    fn close(&mut self, name: &str) {
        let mut state = self.state();
        let Ok(inode) = state.inode(name) else { return };
        let is_kept = state.dice.chance(30);
        let inode = &mut state.inodes[inode];
        inode.live.truncate(inode.end);
        if is_kept && inode.pending.is_empty() {
            inode.durable.truncate(inode.end);
        }
    }

    fn read(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let state = self.state();
        let live = &state.inodes[state.inode(name)?].live;
        let start = live.len().min(offset as usize);
        let len = buffer.len().min(live.len() - start);
        buffer[..len].copy_from_slice(&live[start..start + len]);
        Ok(len)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let mut state = self.state();
        let inode = state.inode(from)?;
        state.change_name(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode })
    }

    fn remove(&mut self, name: &str) -> Result<()> {
        let mut state = self.state();
        let inode = state.inode(name)?;
        state.change_name(NameChange::Unlink { name: name.to_owned(), inode })
    }

    fn sync_dir(&mut self) -> Result<()> {
        let mut state = self.state();
        let fault = state.operation()?;
        if fault.is_none() {
            state.durable_names = state.names.clone();
            state.pending_names.clear();
        }
        outcome(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_bytes_and_names_survive_every_power_cut() {
        for seed in 0..200 {
            let mut disk = FakeDisk::new(seed);
            disk.create("a").unwrap();
            disk.append("a", b"safe").unwrap();
            disk.sync("a").unwrap();
            disk.sync_dir().unwrap();
            disk.append("a", b"doubtful").unwrap();
            disk.power_cut();
            assert!(disk.contents("a").unwrap().starts_with(b"safe"), "seed {seed}");
        }
    }

    #[test]
    fn unsynced_bytes_and_names_are_sometimes_lost() {
        let (mut lost_bytes, mut lost_names) = (0, 0);
        for seed in 0..200 {
            let mut disk = FakeDisk::new(seed);
            disk.create("a").unwrap();
            disk.append("a", b"doubtful").unwrap();
            disk.power_cut();
            match disk.contents("a") {
                None => lost_names += 1,
                Some(bytes) => lost_bytes += u32::from(bytes != b"doubtful"),
            }
        }
        assert!(lost_bytes > 20 && lost_names > 20, "{lost_bytes} {lost_names}");
    }

    #[test]
    fn a_failed_sync_is_not_mended_by_a_later_one() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut disk = FakeDisk::new(seed);
            disk.create("a").unwrap();
            disk.sync_dir().unwrap();
            disk.append("a", b"bytes").unwrap();
            disk.fail_at(disk.operations(), Fault::Io);
            disk.sync("a").unwrap_err();
            disk.sync("a").unwrap();
            assert_eq!(disk.contents("a").unwrap(), b"bytes");
            disk.power_cut();
            lost += u32::from(disk.contents("a").unwrap() != b"bytes");
        }
        assert!(lost > 20, "{lost}");
    }

    #[test]
    fn the_same_seed_keeps_the_same_bytes() {
        let run = |seed| {
            let mut disk = FakeDisk::new(seed);
            disk.create("a").unwrap();
            (0..20).for_each(|n| disk.append("a", &vec![n; 300]).unwrap());
            disk.power_cut();
            disk.contents("a")
        };
        assert!((0..50).all(|seed| run(seed) == run(seed)));
    }
}
