//! Start-up: what is on the disk becomes the node's counters.
//!
//! The store's reading and checking is on the calling thread; several loaders beside it take the blocks apart, each for
//! its own part of the names.

use super::files::Files;
use crate::shell::Clock;
use engine::durable::Loader;
use engine::store::{Block, Opening, Options, Sink, Store, StoreError};
use engine::time::Micros;
use engine::{Loading, Node, NodeId};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

/// Loaders beside the reading thread, at most.
const MAX_LOADERS: usize = 4;

/// Blocks (64 KiB or so) that wait for one loader.
const MAX_WAITING_BLOCKS: usize = 64;

/// How often the log tells how far loading is.
const REPORT_INTERVAL: Micros = Micros::from_secs(5);

/// Opens the store in `files` and loads the node from it. `own`: the node's identity, if a nodes file told it.
///
/// # Errors
/// A text for the operator; the node must not be used then.
pub(crate) fn load(
    node: &Node,
    clock: Clock,
    files: Files,
    options: Options,
    own: Option<NodeId>,
) -> Result<(Store<Files>, Opening), String> {
    let loaders = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_LOADERS);
    std::thread::scope(|scope| {
        let mut sink = LoadingSink::start(scope, node, clock, loaders, own)?;
        let opened = Store::open(files, options, &mut sink);
        // What went wrong in a loader shows in the store as a block that nobody takes.
        sink.finish();
        if let Some(problem) = sink.problem {
            return Err(problem);
        }
        let (store, opening) = opened.map_err(|error| error.to_string())?;
        node.finish_loading();
        Ok((store, opening))
    })
}

/// Hands each block to all loaders.
struct LoadingSink<'scope, 'env> {
    node: &'env Node,
    clock: Clock,
    #[allow(clippy::type_complexity, reason = "a loader is its queue and its thread")]
    loaders: Vec<(SyncSender<Arc<Block>>, ScopedJoinHandle<'scope, Result<(), String>>)>,
    next_report: Micros,
    /// The first loader's reason to refuse.
    problem: Option<String>,
}

impl<'scope, 'env> LoadingSink<'scope, 'env> {
    fn start(
        scope: &'scope Scope<'scope, 'env>,
        node: &'env Node,
        clock: Clock,
        count: usize,
        own: Option<NodeId>,
    ) -> Result<LoadingSink<'scope, 'env>, String> {
        let now = clock.now().monotonic;
        let mut loaders = Vec::new();
        for part in 0..count {
            let (sender, receiver) = sync_channel(MAX_WAITING_BLOCKS);
            let loader = Loader::new(node, (part, count), own, now);
            let thread = std::thread::Builder::new()
                .name(format!("load-{part}"))
                .spawn_scoped(scope, move || run_loader(loader, &receiver))
                .map_err(|error| format!("can't start a thread to load counters: {error}"))?;
            loaders.push((sender, thread));
        }
        Ok(LoadingSink { node, clock, loaders, next_report: now + REPORT_INTERVAL, problem: None })
    }

    /// Waits for the loaders.
    fn finish(&mut self) {
        for (sender, thread) in self.loaders.drain(..) {
            drop(sender);
            let loaded = thread.join().expect("a loader that panics takes the process with it");
            self.problem = self.problem.take().or(loaded.err());
        }
    }
}

/// Stops the store; `LoadingSink::problem` tells why, this is not shown.
fn refused(file: &str) -> StoreError {
    StoreError::Unusable { file: file.to_owned(), offset: 0, reason: String::new() }
}

fn run_loader(mut loader: Loader<'_>, blocks: &Receiver<Arc<Block>>) -> Result<(), String> {
    for block in blocks {
        loader.block(&block).map_err(|error| error.to_string())?;
    }
    loader.finish()
}

impl Sink for LoadingSink<'_, '_> {
    fn begin(&mut self, snapshot_records: u64, bytes: u64) {
        self.node.reserve_counters(snapshot_records.min(bytes));
        let loading = Loading { total_bytes: bytes, ..self.node.loading() };
        self.node.set_loading(loading);
    }

    fn block(&mut self, block: Block) -> Result<(), StoreError> {
        let block = Arc::new(block);
        for (sender, _) in &self.loaders {
            if sender.send(Arc::clone(&block)).is_err() {
                return Err(refused(block.file()));
            }
        }
        Ok(())
    }

    fn progress(&mut self, done: u64, total: u64) {
        let loading = Loading { total_bytes: total, done_bytes: done, ..self.node.loading() };
        self.node.set_loading(loading);
        let now = self.clock.now().monotonic;
        if now >= self.next_report {
            self.next_report = now + REPORT_INTERVAL;
            log::info!("Loading: {:.0}% of {total} bytes", loading.percent());
        }
    }

    /// Before the store writes anything: what is refused is left as it is.
    fn end(&mut self) -> Result<(), StoreError> {
        self.finish();
        if self.problem.is_some() { Err(refused("")) } else { Ok(()) }
    }
}

/// Reads a dump of the original into the node; `None` if there is none.
///
/// # Errors
/// A text for the operator: the dump can't be read, or can't be trusted. Nothing of it has been used.
pub(crate) fn import(
    node: &Node,
    clock: Clock,
    path: &Path,
    own: Option<NodeId>,
) -> Result<Option<u64>, String> {
    let shown = path.display();
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| format!("can't read {shown}: {error}"))?,
    };
    let imported = node.import_dump(&bytes, own, clock.now().monotonic).map_err(|error| {
        format!("{shown} can't be used, {error}; nothing was loaded. Move the file away to start without it")
    })?;
    log::info!("{} counters read from {shown}, a dump of the original", imported.counters);
    if !imported.has_checksum {
        log::warn!("{shown} carries no checksum, so that damage to its numbers would not show");
    }
    if own.is_none() && imported.own_nodes > 1 {
        log::warn!(
            "there is no nodes file, so the parts of all {} nodes in {shown} are counted as this node's own; if other \
             nodes of that cluster read their dumps too, bring the nodes files along, or counts will be doubled",
            imported.own_nodes
        );
    }
    if imported.moving > 0 {
        log::warn!(
            "{} parts in {shown} were moving when it was written: they are estimates",
            imported.moving
        );
    }
    Ok(Some(imported.counters))
}
