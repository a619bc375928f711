//! What can go wrong between the store and its disk, in words for the operator.

use std::{fmt, io};

/// Why the store could not start, write or be mended.
#[derive(Debug)]
pub enum StoreError {
    /// The disk refused (full, broken, no permission). A running store stays usable: call again later.
    Disk {
        /// What the store was doing, as in "could not ... FILE".
        action: &'static str,
        /// The file, or the directory.
        file: String,
        /// What the disk said.
        error: io::Error,
    },
    /// Bytes that had been safe are not what was written. The store does not start.
    Damaged {
        /// The data directory.
        directory: String,
        /// The file in it.
        file: String,
        /// Where the damage begins, bytes from the start of the file.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A file that must be there is not. The store does not start.
    Missing {
        /// The data directory.
        directory: String,
        /// The file that is not in it.
        file: String,
    },
    /// A block is as it was written, but its reader can't use a record in it. The store does not start.
    Unusable {
        /// The file.
        file: String,
        /// Where the block begins, bytes from the start of the file.
        offset: u64,
        /// Which record, why, and what to do.
        reason: String,
    },
    /// A file of a later format. The store does not start; repair does not touch it.
    Newer {
        /// The file.
        file: String,
        /// Its format version; this server reads up to [`super::FORMAT_VERSION`].
        version: u32,
    },
}

impl StoreError {
    /// A function for `map_err`: the disk refused `action` on `file`.
    pub(crate) fn disk<'a>(action: &'static str, file: &'a str) -> impl FnOnce(io::Error) -> StoreError + 'a {
        move |error| StoreError::Disk { action, file: file.to_owned(), error }
    }

    /// Whether it is the disk that refused, so that trying again later can help.
    pub fn is_disk(&self) -> bool {
        matches!(self, StoreError::Disk { .. })
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Disk { action, file, error } => write!(f, "could not {action} {file}: {error}"),
            StoreError::Damaged { directory, file, offset, reason } => write!(
                f,
                "{file} is damaged at offset {offset}: {reason}; `discnt-server --check {directory}` tells more, \
                 `discnt-server --repair {directory}` keeps what can be read and sets the damaged file aside"
            ),
            StoreError::Missing { directory, file } => write!(
                f,
                "{file} is missing from {directory}; put it back, or keep what is left with \
                 `discnt-server --repair {directory}`"
            ),
            StoreError::Unusable { file, offset, reason } => {
                write!(f, "{file} can't be used, in the block at offset {offset}: {reason}")
            }
            StoreError::Newer { file, version } => write!(
                f,
                "{file} has format version {version}, this server reads up to {}; use the server that wrote it",
                super::FORMAT_VERSION
            ),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StoreError::Disk { error, .. } => Some(error),
            StoreError::Damaged { .. }
            | StoreError::Missing { .. }
            | StoreError::Unusable { .. }
            | StoreError::Newer { .. } => None,
        }
    }
}
