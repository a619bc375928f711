//! The disk: real files under the engine's store, a thread that writes to them, and the tools for files at rest.

mod directory;
mod durability;
mod files;
mod loading;
mod seat;
mod thread;
pub(crate) mod tools;

use crate::shell::Clock;
pub(crate) use directory::Directory;
pub(crate) use durability::Durability;
use engine::command::SaveOnExit;
use engine::durable::Journal;
use engine::settings::{AppendFsync, Settings};
use engine::store::{Batch, Commit, Opening, Store};
use engine::time::Micros;
use engine::{Loading, Node, NodeId};
use files::Files;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use thread::{DiskThread, Order};
use tokio::sync::oneshot;

/// Behind by more than this, the log of the server says so.
const SLOW_DISK: Micros = Micros::from_secs(3);

/// The disk as the other threads see it.
pub(crate) struct Disk {
    /// Tickets for replies that wait for a sync.
    pub(crate) durability: Arc<Durability>,
    orders: Sender<Order>,
    is_told_slow: std::sync::atomic::AtomicBool,
}

/// The disk and its thread.
pub(crate) struct RunningDisk {
    pub(crate) disk: Arc<Disk>,
    pub(crate) thread: JoinHandle<()>,
    /// Hears when the counters are loaded, or why they can't be.
    pub(crate) loaded: Option<oneshot::Receiver<Result<(), String>>>,
}

/// What becomes of a BGSAVE.
pub(crate) enum Started {
    /// It has begun, or has failed at once: the log of the server tells.
    Yes,
    /// A snapshot is being made already.
    AlreadyRunning,
}

impl Disk {
    /// Starts the disk's thread, which loads the counters first. `own`: the identity from the nodes file.
    ///
    /// # Errors
    /// A text for the operator: the thread can't be started.
    pub(crate) fn start(
        node: &Arc<Node>,
        clock: Clock,
        io_threads: usize,
        directory: Directory,
        own: Option<NodeId>,
    ) -> Result<RunningDisk, String> {
        let durability = Arc::new(Durability::new(io_threads));
        let (orders, receiver) = channel();
        let (loaded, when_loaded) = oneshot::channel();
        let now = clock.now();
        let loading =
            Loading { is_on: true, began_unix: now.unix, began: now.monotonic, ..Loading::default() };
        node.set_loading(loading);
        let (node, shared) = (Arc::clone(node), Arc::clone(&durability));
        let thread = std::thread::Builder::new().name("disk".to_owned()).spawn(move || {
            shared.set_disk_thread(std::thread::current());
            let wake = Arc::clone(&shared);
            node.set_log_wake(Box::new(move || wake.note_change()));
            match prepare(&node, clock, &directory, own) {
                Err(error) => drop(loaded.send(Err(error))),
                Ok((store, journal)) => {
                    let thread =
                        DiskThread::new((node, clock, shared), receiver, (directory, store), journal);
                    loaded.send(Ok(())).ok();
                    thread.run();
                }
            }
        });
        let thread = thread.map_err(|error| format!("can't start the disk's thread: {error}"))?;
        let is_told_slow = std::sync::atomic::AtomicBool::new(false);
        let disk = Arc::new(Disk { durability, orders, is_told_slow });
        Ok(RunningDisk { disk, thread, loaded: Some(when_loaded) })
    }

    /// Whether a reply to something that changed counters must wait for a sync.
    pub(crate) fn must_wait(settings: &Settings) -> bool {
        settings.appendonly && settings.appendfsync == AppendFsync::Always
    }

    /// SAVE.
    ///
    /// # Errors
    /// A text for the log of the server.
    pub(crate) async fn save(&self) -> Result<(), String> {
        self.ask(Order::Save).await.unwrap_or_else(|| Err(GONE.to_owned()))
    }

    /// BGSAVE.
    pub(crate) async fn save_in_background(&self) -> Started {
        match self.ask(Order::SaveInBackground).await {
            Some(Ok(())) | None => Started::Yes,
            Some(Err(())) => Started::AlreadyRunning,
        }
    }

    /// Writes what must be on the disk before the node may end.
    ///
    /// # Errors
    /// It could not be written: the node must go on. A text for the log of the server.
    pub(crate) async fn prepare_end(&self, save: SaveOnExit) -> Result<(), String> {
        self.ask(|answer| Order::PrepareEnd(save, answer)).await.unwrap_or_else(|| Err(GONE.to_owned()))
    }

    /// Nobody changes anything any more: the disk's thread writes the rest and ends.
    pub(crate) fn end(&self, save: SaveOnExit) {
        self.orders.send(Order::End(save)).ok();
        self.durability.wake_disk();
    }

    /// `None` if the disk's thread is gone.
    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        self.orders.send(order(sender)).ok()?;
        self.durability.wake_disk();
        receiver.await.ok()
    }

    /// Tells the operator when the disk falls behind and when it has caught up. Called now and then from another thread than
    /// the disk's, which may be stuck in it.
    pub(crate) fn watch(&self, node: &Node, now: Micros) {
        use std::sync::atomic::Ordering;
        let status = node.log_status();
        let is_behind = status.is_on
            && !status.is_failing
            && !node.is_loading()
            && node.has_unlogged_changes()
            && now.since(status.safe_until) > SLOW_DISK;
        if self.is_told_slow.swap(is_behind, Ordering::Relaxed) == is_behind {
            return;
        }
        if is_behind {
            log::warn!(
                "The disk is slow: changes of the last {:.1} s are in memory only (INFO persistence tells more)",
                now.since(status.safe_until).secs_f64()
            );
        } else {
            log::info!("The disk has caught up");
        }
    }
}

/// Why an order finds nobody.
const GONE: &str = "the disk's thread has ended";

/// Loads the counters; then the node may serve.
fn prepare(
    node: &Arc<Node>,
    clock: Clock,
    directory: &Directory,
    own: Option<NodeId>,
) -> Result<(Store<Files>, Journal), String> {
    let began = clock.now().monotonic;
    let settings = node.settings();
    let (mut store, opening) =
        loading::load(node, clock, directory.files()?, thread::options(directory)?, own)?;
    tell_opening(&opening);
    let is_empty = opening.recovered == Commit(0) && store.stats().last_snapshot_bytes == 0;
    let dump = Path::new(&settings.dir).join(&settings.dbfilename);
    let mut journal = Journal::new(Arc::clone(node));
    if is_empty {
        if loading::import(node, clock, &dump, own)?.is_some() && settings.appendonly {
            keep_all(&mut store, &mut journal, clock)?;
        }
    } else if dump.exists() {
        log::info!(
            "{} is older than the counters in {} and is not read",
            dump.display(),
            directory.path().display()
        );
    }
    if settings.appendonly {
        journal.start();
    }
    let took = clock.now().monotonic.since(began);
    log::info!("{} counters loaded in {:.3} s", node.keyspace.len(), took.secs_f64());
    node.set_loading(Loading { is_on: false, ..node.loading() });
    Ok((store, journal))
}

/// Writes all counters in one commit: from then on the store is newer than any dump.
fn keep_all(store: &mut Store<Files>, journal: &mut Journal, clock: Clock) -> Result<(), String> {
    let mut batch = Batch::new();
    journal.copy_all(&mut batch, clock.now().monotonic);
    store.commit(&mut batch).and_then(|_| store.sync()).map(|_| ()).map_err(|error| error.to_string())
}

fn tell_opening(opening: &Opening) {
    if let Some(torn) = opening.torn.as_ref().filter(|torn| torn.is_blank) {
        log::info!(
            "The log was not closed, as after a crash: {} ends at offset {}, the {} bytes behind are zeros",
            torn.file,
            torn.offset,
            torn.bytes
        );
    }
    if let Some(torn) = opening.torn.as_ref().filter(|torn| !torn.is_blank) {
        log::warn!(
            "The log ended in the middle of a write, as after a crash: the last {} bytes of {}, from offset {}, were not \
             known to be synced and do not count",
            torn.bytes,
            torn.file,
            torn.offset
        );
    }
    if let Some(error) = &opening.not_writable {
        log::error!("The counters are loaded but the disk refuses changes: {error}");
    }
}
