//! A directory in memory, and a node that knows nobody: what targets about disks and links stand on.
#![allow(dead_code, reason = "each target uses its part")]

use engine::settings::Settings;
use engine::store::Disk;
use engine::time::{Micros, Now};
use engine::{Node, NodeConfig, NodeId, ProcessInfo, Shell};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Files by name; nothing is ever lost.
#[derive(Clone, Debug, Default)]
pub struct Memory(pub BTreeMap<String, Vec<u8>>);

impl Memory {
    fn file(&mut self, name: &str) -> io::Result<&mut Vec<u8>> {
        self.0.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for Memory {
    fn directory(&self) -> &str {
        "memory"
    }

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.0.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        match self.0.contains_key(name) {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => Ok(drop(self.0.insert(name.to_owned(), Vec::new()))),
        }
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name).map(drop)
    }

    fn close(&mut self, _: &str) {}

    fn read(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = self.file(name)?;
        let rest = file.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let bytes = self.0.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.0.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Quiet;

impl Shell for Quiet {
    fn process(&self) -> ProcessInfo {
        ProcessInfo::default()
    }

    fn settings_changed(&self, _: &Settings) -> Result<(), String> {
        Ok(())
    }
}

/// A moment, so many milliseconds after the first.
pub fn moment(ms: u64) -> Now {
    let monotonic = Micros::from_secs(10) + Micros::from_millis(ms);
    Now { monotonic, unix: monotonic + Micros::from_secs(1_700_000_000) }
}

/// A node.
pub fn node(number: u8) -> Arc<Node> {
    Arc::new(Node::new(NodeConfig {
        id: NodeId([number; 20]),
        run_id: [0; 20],
        hash_seed: 7,
        settings: Settings { port: 7_000 + u16::from(number), ..Settings::default() },
        now: moment(0),
        shell: Arc::new(Quiet),
    }))
}
