//! The nodes file: a node's identity and members, in the data directory, for one process at a time.
//!
//! The lock is on a file of its own beside it (`nodes.conf.lock`), since the nodes file is replaced at each write. The
//! system takes the lock off when the process ends, in whatever way.

use crate::config::replace_file;
use std::cell::{Cell, RefCell};
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Longest nodes file.
const MAX_LEN: u64 = 16 << 20;

/// How long a failed write waits for the next attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A nodes file that is ours alone.
#[derive(Debug)]
pub(crate) struct LockedNodesFile {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl LockedNodesFile {
    /// Locks the file and reads it; `None` in place of its bytes if there is none yet.
    ///
    /// # Errors
    /// Another process has it, or the system refuses. A text for the operator.
    pub(crate) fn open(path: &Path) -> Result<(LockedNodesFile, Option<Vec<u8>>), String> {
        let shown = path.display();
        let path = std::path::absolute(path).map_err(|error| format!("can't find {shown}: {error}"))?;
        let mut lock_path = path.clone().into_os_string();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|error| format!("can't open {}: {error}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!(
                    "the nodes file {} is in use by another process: give each node a 'dir' of its own, or stop the other one",
                    path.display()
                ));
            }
            Err(TryLockError::Error(error)) => {
                return Err(format!("can't lock {}: {error}", lock_path.display()));
            }
        }
        let bytes = match File::open(&path) {
            Ok(file) => {
                Some(read_bounded(file).map_err(|error| format!("can't read {}: {error}", path.display()))?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(format!("can't open {}: {error}", path.display())),
        };
        Ok((LockedNodesFile { path, _lock: lock }, bytes))
    }
}

fn read_bounded(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_LEN + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LEN {
        let problem = format!("longer than {MAX_LEN} bytes; is it a nodes file?");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}

/// Writes nodes files in the blocking pool, one after the other; of those that wait, the newest is written.
pub(super) struct Saver {
    /// `None`: nothing is kept.
    file: Option<Arc<LockedNodesFile>>,
    waiting: RefCell<Option<Vec<u8>>>,
    is_writing: Cell<bool>,
    /// How many were asked for.
    asked: Cell<u64>,
    settled: watch::Sender<Settled>,
}

/// The newest attempt that has come to an end: its number, and what went wrong.
#[derive(Clone, Debug, Default)]
struct Settled {
    number: u64,
    error: Option<String>,
}

impl Saver {
    pub(super) fn new(file: Option<LockedNodesFile>) -> Saver {
        Saver {
            file: file.map(Arc::new),
            waiting: RefCell::default(),
            is_writing: Cell::new(false),
            asked: Cell::new(0),
            settled: watch::Sender::new(Settled::default()),
        }
    }

    /// How many writes were asked for until now.
    pub(super) fn asked(&self) -> u64 {
        self.asked.get()
    }

    /// Has the bytes written soon.
    pub(super) fn save(self: &Rc<Saver>, bytes: Vec<u8>) {
        self.asked.set(self.asked.get() + 1);
        *self.waiting.borrow_mut() = Some(bytes);
        if !self.is_writing.replace(true) {
            tokio::task::spawn_local(Rc::clone(self).write_waiting());
        }
    }

    /// Waits until the newest bytes of this moment are on the disk, or newer ones.
    ///
    /// # Errors
    /// They could not be written. It is tried again in the background.
    pub(super) async fn settle(&self) -> Result<(), String> {
        let asked = self.asked.get();
        let mut settled = self.settled.subscribe();
        let settled = settled.wait_for(|settled| settled.number >= asked).await;
        match &settled.expect("the saver holds the sender").error {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    async fn write_waiting(self: Rc<Saver>) {
        while let Some(bytes) = self.waiting.take() {
            let number = self.asked.get();
            let Some(file) = self.file.clone() else {
                self.settled.send_replace(Settled { number, error: None });
                continue;
            };
            let path = file.path.display().to_string();
            let (bytes, written) = tokio::task::spawn_blocking(move || {
                let written = replace_file(&file.path, &bytes);
                (bytes, written)
            })
            .await
            .expect("writing does not panic");
            let error = written.err().map(|error| format!("can't write the nodes file {path}: {error}"));
            self.settled.send_replace(Settled { number, error: error.clone() });
            if let Some(error) = error {
                log::warn!("{error}; trying again");
                tokio::time::sleep(RETRY_PAUSE).await;
                self.waiting.borrow_mut().get_or_insert(bytes);
            }
        }
        self.is_writing.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::tests::Directory;
    use std::fs;

    #[test]
    fn a_second_process_is_refused_while_the_first_has_the_file() {
        let directory = Directory::new("lock");
        let path = directory.path.join("nodes.conf");
        let (first, bytes) = LockedNodesFile::open(&path).unwrap();
        assert_eq!(bytes, None);
        let error = LockedNodesFile::open(&path).unwrap_err();
        assert!(error.contains("nodes.conf is in use by another process"), "{error}");
        replace_file(&first.path, b"abc").unwrap();
        assert!(LockedNodesFile::open(&path).is_err(), "the lock survives a write");
        drop(first);
        assert_eq!(LockedNodesFile::open(&path).unwrap().1, Some(b"abc".to_vec()));
    }

    #[test]
    fn of_many_writes_the_newest_is_on_the_disk_at_the_end() {
        let directory = Directory::new("saver");
        let path = directory.path.join("nodes.conf");
        let (file, _) = LockedNodesFile::open(&path).unwrap();
        crate::bus::tests::block_on(async {
            let saver = Rc::new(Saver::new(Some(file)));
            for number in 0..1_000 {
                saver.save(format!("{number}").into_bytes());
                if number % 100 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            saver.settle().await.unwrap();
        });
        assert_eq!(fs::read(&path).unwrap(), b"999");
    }

    #[test]
    fn a_write_that_fails_is_told_and_made_up_for() {
        let directory = Directory::new("failing");
        let path = directory.path.join("sub/nodes.conf");
        fs::create_dir(path.parent().unwrap()).unwrap();
        let (file, _) = LockedNodesFile::open(&path).unwrap();
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        crate::bus::tests::block_on(async {
            let saver = Rc::new(Saver::new(Some(file)));
            saver.save(b"late".to_vec());
            let error = saver.settle().await.unwrap_err();
            assert!(error.contains("can't write the nodes file"), "{error}");
            fs::create_dir(path.parent().unwrap()).unwrap();
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert_eq!(fs::read(&path).unwrap(), b"late");
    }
}
