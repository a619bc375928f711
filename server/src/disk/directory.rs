//! The store's directory: made when missing, locked against a second process.

use super::files::Files;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Name of the file that is locked; it stays behind, empty.
const LOCK_NAME: &str = "lock";

/// A directory that this process alone writes to, until it is dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
    /// For files in a directory that has none yet.
    fresh_secret: u64,
}

impl Directory {
    /// Takes the directory `name` in `parent`, made if it is missing.
    ///
    /// # Errors
    /// A text for the operator: it can't be made or locked, or another process has it.
    pub(crate) fn take(parent: &Path, name: &str) -> Result<Directory, String> {
        let path = parent.join(name);
        make(&path, parent)
            .map_err(|error| format!("can't make the directory {}: {error}", path.display()))?;
        Directory::take_existing(path)
    }

    /// Takes a directory that exists.
    ///
    /// # Errors
    /// As `take`.
    pub(crate) fn take_existing(path: PathBuf) -> Result<Directory, String> {
        let shown = path.display();
        let lock = File::options().create(true).truncate(false).write(true).open(path.join(LOCK_NAME));
        let lock = lock.map_err(|error| format!("can't open the lock file in {shown}: {error}"))?;
        match lock.try_lock() {
            Ok(()) => {
                let fresh_secret = u64::from_le_bytes(crate::process::random()?);
                Ok(Directory { path, _lock: lock, fresh_secret })
            }
            Err(TryLockError::WouldBlock) => {
                Err(format!("{shown} is in use by another process; each node needs a directory of its own"))
            }
            Err(TryLockError::Error(error)) => Err(format!("can't lock {shown}: {error}")),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A number that clients can't know and that stays with the directory: it marks the files. Hashing names by it, too, means
    /// that a snapshot, which is written stripe by stripe, is read back stripe by stripe, which is several times as fast as
    /// going to and fro.
    ///
    /// # Errors
    /// A text for the operator: the files can't be read.
    pub(crate) fn secret(&self) -> Result<u64, String> {
        let family = engine::store::family(&mut self.files()?).map_err(|error| error.to_string())?;
        Ok(family.unwrap_or(self.fresh_secret))
    }

    /// Its files.
    ///
    /// # Errors
    /// A text for the operator.
    pub(crate) fn files(&self) -> Result<Files, String> {
        Files::new(&self.path).map_err(|error| format!("can't open {}: {error}", self.path.display()))
    }
}

/// Makes the directory and sees to it that its name survives a power failure.
fn make(path: &Path, parent: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| File::open(parent)?.sync_all()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_taken_once() {
        let parent = tempfile::tempdir().unwrap();
        let first = Directory::take(parent.path(), "data").unwrap();
        let second = Directory::take(parent.path(), "data").unwrap_err();
        assert!(second.contains("in use by another process"), "{second}");
        drop(first);
        Directory::take(parent.path(), "data").unwrap();
    }

    #[test]
    fn a_directory_that_cant_be_made_is_named() {
        let message = Directory::take(Path::new("/proc"), "data").unwrap_err();
        assert!(message.starts_with("can't make the directory /proc/data: "), "{message}");
    }
}
