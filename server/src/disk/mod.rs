//! The server's disk: real files behind the engine's [`engine::store::Disk`].

mod files;

pub(crate) use files::Files;
