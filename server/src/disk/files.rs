//! One directory of real files.
//!
//! Appends go through handles that stay open from `create` to `close`, so that a failed write-back is reported by the
//! next `sync` on the same handle; for the same reason the directory is opened once. `sync` is `fdatasync`, which also
//! writes the length. There is no lock against a second process here.
//!
//! A sync of a file that has grown waits for the file system's journal as well, which takes twice as long, and many times as
//! long while others write much. So segments of the log can be given *room*: zeros written ahead, behind what has been
//! appended. The format knows them as what they are, and `close` cuts them off. It is done only when many small syncs
//! follow each other (`appendfsync always`), as it doubles the bytes written.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use engine::store::Disk;

/// Zeros that are written ahead at once.
const ROOM_BYTES: usize = 512 << 10;

/// Files that may have room: segments of the log that have their names.
const ROOM_SUFFIX: &str = ".log";

/// The files in one directory.
#[derive(Debug)]
pub(crate) struct Files {
    path: PathBuf,
    shown: String,
    directory: File,
    /// Those that can be appended to.
    open: HashMap<String, Appended>,
    makes_room: bool,
    /// The file that was read last, and where its next byte is.
    reading: Option<(String, File, u64)>,
}

/// A file that can be appended to.
#[derive(Debug)]
struct Appended {
    file: File,
    /// Where the next byte goes.
    len: u64,
    /// The file's length: zeros stand from `len` up to here.
    end: u64,
}

impl Appended {
    fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.file.write_at(bytes, self.len) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.len += written as u64;
                    self.end = self.end.max(self.len);
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes zeros ahead if `bytes` more would make the file longer. That there is no room is no error: appending will tell.
    fn make_room(&mut self, bytes: usize) {
        let wanted = self.len + bytes as u64;
        if wanted <= self.end {
            return;
        }
        let zeros = vec![0; ROOM_BYTES + bytes];
        if let Ok(written) = self.file.write_at(&zeros, self.end) {
            self.end += written as u64;
        }
    }

    fn cut_room(&self) {
        if self.end > self.len {
            // If it stays it does no harm.
            self.file.set_len(self.len).ok();
        }
    }
}

impl Files {
    /// The files in `path`, a directory that exists.
    ///
    /// # Errors
    /// What the system says when `path` is opened.
    pub(crate) fn new(path: &Path) -> Result<Files> {
        let directory = File::open(path)?;
        if !directory.metadata()?.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        let shown = path.display().to_string();
        let open = HashMap::new();
        Ok(Files { path: path.to_owned(), shown, directory, open, makes_room: false, reading: None })
    }

    /// Whether segments of the log are given room from now on.
    pub(crate) fn set_makes_room(&mut self, makes_room: bool) {
        self.makes_room = makes_room;
    }

    fn handle(&mut self, name: &str) -> Result<&mut Appended> {
        self.open
            .get_mut(name)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "the file is not open for appending"))
    }

    fn forget_reading(&mut self, name: &str) {
        self.reading.take_if(|(reading, _, _)| reading == name);
    }
}

impl Disk for Files {
    fn directory(&self) -> &str {
        &self.shown
    }

    fn list(&mut self) -> Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            // Others' names need not be text; the store's are.
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push((name, metadata.len()));
            }
        }
        Ok(files)
    }

    fn create(&mut self, name: &str) -> Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).open(self.path.join(name))?;
        self.open.insert(name.to_owned(), Appended { file, len: 0, end: 0 });
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let makes_room = self.makes_room && name.ends_with(ROOM_SUFFIX);
        let file = self.handle(name)?;
        if makes_room {
            file.make_room(bytes.len());
        }
        file.append(bytes)
    }

    fn sync(&mut self, name: &str) -> Result<()> {
        self.handle(name)?.file.sync_data()
    }

    fn close(&mut self, name: &str) {
        if let Some(file) = self.open.remove(name) {
            file.cut_room();
        }
    }

    fn read(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let (file, at) = match &mut self.reading {
            Some((reading, file, at)) if reading == name => (file, at),
            reading => {
                let file = File::open(self.path.join(name))?;
                let (_, file, at) = reading.insert((name.to_owned(), file, 0));
                (file, at)
            }
        };
        if *at != offset {
            *at = file.seek(SeekFrom::Start(offset))?;
        }
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(len) => filled += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.reading = None;
                    return Err(error);
                }
            }
        }
        *at += filled as u64;
        Ok(filled)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))?;
        self.forget_reading(from);
        self.forget_reading(to);
        if let Some(file) = self.open.remove(from) {
            self.open.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<()> {
        self.open.remove(name);
        self.forget_reading(name);
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&mut self) -> Result<()> {
        self.directory.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use engine::store::{Batch, Block, Options, Sink, SnapshotStep, Source, Store, StoreError};

    use super::*;

    #[derive(Default, PartialEq, Debug)]
    struct States(BTreeMap<Vec<u8>, Vec<u8>>);

    impl Sink for States {
        fn block(&mut self, block: Block) -> std::result::Result<(), StoreError> {
            let records = block.for_each(|record| {
                match record.payload {
                    Some(payload) => self.0.insert(record.key.to_vec(), payload.to_vec()),
                    None => self.0.remove(record.key),
                };
            });
            records.map(|_| ())
        }
    }

    impl Source for States {
        fn next_chunk(&mut self, cursor: u64, max_bytes: usize, out: &mut Batch) -> Option<u64> {
            for (next, (key, payload)) in (cursor..).zip(self.0.iter().skip(cursor as usize)) {
                if out.bytes() >= max_bytes as u64 {
                    return Some(next);
                }
                out.put(0, key, payload);
            }
            None
        }
    }

    fn open(path: &Path) -> (Store<Files>, States) {
        let mut states = States::default();
        let (store, opening) = Store::open(Files::new(path).unwrap(), Options::new(9), &mut states).unwrap();
        assert!(opening.not_writable.is_none());
        (store, states)
    }

    #[test]
    fn states_come_back_from_log_and_snapshot() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, mut states) = open(directory.path());
        for round in 0..3u32 {
            let mut batch = Batch::new();
            for number in 0..5_000u32 {
                let (key, payload) =
                    (number.to_string().into_bytes(), (number * round).to_string().into_bytes());
                batch.put(0, &key, &payload);
                states.0.insert(key, payload);
            }
            store.commit(&mut batch).unwrap();
            store.sync().unwrap();
            if round == 1 {
                store.begin_snapshot().unwrap();
                loop {
                    match store.snapshot_step(&mut states).unwrap() {
                        SnapshotStep::NeedsCommit => store.snapshot_covered(),
                        SnapshotStep::Finished { records, .. } => break assert_eq!(records, 5_000),
                        SnapshotStep::Idle | SnapshotStep::Walking | SnapshotStep::Removing => {}
                    }
                }
            }
        }
        // As after kill -9: neither sync nor close.
        let mut batch = Batch::new();
        batch.remove(0, b"17");
        states.0.remove(&b"17"[..]);
        store.commit(&mut batch).unwrap();
        drop(store);
        let (store, recovered) = open(directory.path());
        assert_eq!(recovered, states);
        store.close().unwrap();
        let (_, recovered) = open(directory.path());
        assert_eq!(recovered, states);
        let names = Files::new(directory.path()).unwrap().list().unwrap();
        assert!(names.iter().all(|(name, _)| !name.ends_with(".tmp")), "{names:?}");
    }

    #[test]
    fn reading_goes_on_where_it_was_or_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Files::new(directory.path()).unwrap();
        files.create("a").unwrap();
        files.append("a", b"0123456789").unwrap();
        let mut read = |offset, len| {
            let mut buffer = vec![0; len];
            let filled = files.read("a", offset, &mut buffer).unwrap();
            buffer.truncate(filled);
            String::from_utf8(buffer).unwrap()
        };
        assert_eq!(
            (read(0, 3), read(3, 3), read(1, 2), read(8, 9)),
            ("012".into(), "345".into(), "12".into(), "89".into())
        );
        assert_eq!(files.create("a").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(files.append("b", b"x").unwrap_err().kind(), ErrorKind::NotFound);
        files.rename("a", "b").unwrap();
        files.append("b", b"x").unwrap();
        files.sync("b").unwrap();
        files.sync_dir().unwrap();
        assert_eq!(files.list().unwrap(), [("b".to_owned(), 11)]);
    }

    #[test]
    fn a_file_is_no_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Files::new(file.path()).is_err());
    }
}
