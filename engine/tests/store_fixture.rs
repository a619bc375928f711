//! The files of every released format are read for ever; those of the current one are still written the same.
//!
//! `cargo test -p engine --test store_fixture -- --ignored` writes the files of the current version anew, into
//! `tests/fixtures/store-v<version>`: only before a release, never after.

#![allow(clippy::unwrap_used)] // tests

use std::collections::BTreeMap;
use std::io::{ErrorKind, Result};
use std::path::PathBuf;

use engine::store::{
    AnyRecord, Batch, Block, Disk, FORMAT_VERSION, Options, Sink, SnapshotStep, Source, Store, StoreError,
    TornTail, check,
};

/// A directory in memory, without faults.
#[derive(Clone, Default)]
struct Directory(BTreeMap<String, Vec<u8>>);

impl Directory {
    fn file(&mut self, name: &str) -> Result<&mut Vec<u8>> {
        self.0.get_mut(name).ok_or(ErrorKind::NotFound.into())
    }
}

impl Disk for Directory {
    fn directory(&self) -> &str {
        "memory"
    }
    fn list(&mut self) -> Result<Vec<(String, u64)>> {
        Ok(self.0.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect())
    }
    fn create(&mut self, name: &str) -> Result<()> {
        self.0.insert(name.to_owned(), Vec::new());
        Ok(())
    }
    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.file(name)?.extend_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self, _name: &str) -> Result<()> {
        Ok(())
    }
    fn close(&mut self, _name: &str) {}
    fn read(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let bytes = self.file(name)?.get(offset as usize..).unwrap_or_default();
        let len = buffer.len().min(bytes.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }
    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let bytes = std::mem::take(self.file(from)?);
        self.remove(from)?;
        self.0.insert(to.to_owned(), bytes);
        Ok(())
    }
    fn remove(&mut self, name: &str) -> Result<()> {
        self.0.remove(name).map(|_| ()).ok_or(ErrorKind::NotFound.into())
    }
    fn sync_dir(&mut self) -> Result<()> {
        Ok(())
    }
}

#[derive(Clone, Default, Debug, PartialEq)]
struct States(BTreeMap<(u8, Vec<u8>), Vec<u8>>);

impl Sink for States {
    fn block(&mut self, block: Block) -> std::result::Result<(), StoreError> {
        let records = block.for_each(|record| {
            let key = (record.kind, record.key.to_vec());
            match record.payload {
                Some(payload) => self.0.insert(key, payload.to_vec()),
                None => self.0.remove(&key),
            };
        });
        records.map(|_| ())
    }
}

impl Source for States {
    fn next_chunk(&mut self, _cursor: u64, _max_bytes: usize, out: &mut Batch) -> Option<u64> {
        self.0.iter().for_each(|((kind, key), payload)| out.put(*kind, key, payload));
        None
    }
}

fn commit(store: &mut Store<Directory>, states: &mut States, changes: &[(u8, &str, Option<&str>)]) {
    let mut batch = Batch::new();
    for &(kind, key, payload) in changes {
        let state = (kind, key.as_bytes().to_vec());
        match payload {
            Some(payload) => {
                batch.put(kind, key.as_bytes(), payload.as_bytes());
                states.0.insert(state, payload.as_bytes().to_vec());
            }
            None => {
                batch.remove(kind, key.as_bytes());
                states.0.remove(&state);
            }
        }
    }
    store.commit(&mut batch).unwrap();
}

/// One of each: a compressed snapshot, the segment it leans on with its end cut off by the next, which repeats a
/// commit, and a torn tail.
fn write() -> (Directory, States) {
    let mut states = States::default();
    let options = Options::new(0x0123_4567_89ab_cdef);
    let (mut store, _) = Store::open(Directory::default(), options.clone(), &mut States::default()).unwrap();
    for number in 0..20 {
        let name = format!("page:{number}");
        commit(&mut store, &mut states, &[(1, &name, Some("a state that compresses, compresses"))]);
    }
    store.begin_snapshot().unwrap();
    loop {
        match store.snapshot_step(&mut states.clone()).unwrap() {
            SnapshotStep::NeedsCommit => {
                commit(&mut store, &mut states, &[(1, "page:3", None), (2, "node", Some("me"))]);
                store.snapshot_covered();
            }
            SnapshotStep::Finished { .. } => break,
            SnapshotStep::Idle | SnapshotStep::Walking | SnapshotStep::Removing => {}
        }
    }
    commit(&mut store, &mut states, &[(1, "likes", Some("42"))]);
    let directory = store.disk().clone();
    let (mut store, _) = Store::open(directory, options, &mut States::default()).unwrap();
    store.sync().unwrap();
    commit(&mut store, &mut states, &[(1, "likes", Some("43"))]);
    store.sync().unwrap();
    let mut directory = store.disk().clone();
    directory.append("counters-0000000003.log", b"torn").unwrap();
    (directory, states)
}

fn path(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/store-v{version}"))
}

fn fixture(version: u32) -> Directory {
    let files = std::fs::read_dir(path(version)).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap())
    });
    Directory(files.collect())
}

#[test]
fn files_of_every_version_are_read() {
    let (_, expected) = write();
    for version in 1..=FORMAT_VERSION {
        let mut recovered = States::default();
        let (_, opening) = Store::open(fixture(version), Options::new(1), &mut recovered).unwrap();
        assert_eq!(recovered, expected, "version {version}");
        let len = fixture(version).0["counters-0000000003.log"].len() as u64;
        let file = "counters-0000000003.log".to_owned();
        assert_eq!(opening.torn, Some(TornTail { file, offset: len - 4, bytes: 4, is_blank: false }));
        let report = check(&mut fixture(version), &mut AnyRecord).unwrap();
        assert_eq!(report.files.len(), 3);
        assert_eq!(report.files[0].footer_records, Some(20));
    }
}

#[test]
fn segments_are_written_as_in_the_fixture() {
    let (written, _) = write();
    let fixture = fixture(FORMAT_VERSION);
    assert!(written.0.keys().eq(fixture.0.keys()), "{:?}", written.0.keys());
    // How well a snapshot is compressed may change with the compressor.
    for (name, bytes) in written.0.iter().filter(|(name, _)| name.ends_with(".log")) {
        assert_eq!(bytes, &fixture.0[name], "{name}");
    }
}

#[test]
#[ignore = "writes the fixture of the current version"]
fn write_the_fixture() {
    std::fs::create_dir_all(path(FORMAT_VERSION)).unwrap();
    for (name, bytes) in write().0.0 {
        std::fs::write(path(FORMAT_VERSION).join(name), bytes).unwrap();
    }
}
