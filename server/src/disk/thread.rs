//! The thread that owns the store: commits what has changed, syncs it, makes snapshots in between.
//!
//! It turns round and round: orders, commit, sync, a small step of a snapshot, rest. Nothing on a client's thread waits
//! for it, save replies under `appendfsync always` (see `durability`) and SAVE.
//!
//! When it commits: at once while somebody waits for a sync; else some 10 ms after the first change, and less often when
//! commits take long, so that a counter that changes all the time is written seldom and the thread takes no more than a
//! small share of a core. When the disk refuses, changes stay listed in the keyspace, where each counter stands once; what had
//! been collected is kept and tried again.
//!
//! Without a log (`appendonly no`) the same thread makes snapshots only; it logs while one is walked, because a snapshot is
//! a mixture of times without that, and stops when it is whole.

use super::directory::Directory;
use super::durability::Durability;
use super::files::Files;
use super::seat::{Company, Seat};
use crate::shell::Clock;
use engine::command::SaveOnExit;
use engine::durable::{Journal, SnapshotProgress};
use engine::settings::{AppendFsync, Settings};
use engine::store::{Batch, Options, SnapshotStep, Store, StoreError};
use engine::time::{Micros, Now};
use engine::{LogStatus, Node, SaveStatus};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;
use tokio::sync::oneshot;

/// From the first change to its commit.
const COMMIT_DELAY: Micros = Micros::from_millis(10);

/// A commit that took t is followed by a rest of this many t ...
const COMMIT_REST_FACTOR: u64 = 20;

/// ... but no longer than this: what kill -9 can cost beside what the process holds in its hands.
const MAX_COMMIT_REST: Micros = Micros::from_millis(500);

/// Replies that wait for a sync wait no longer than a sync takes, and no longer than this, for others to join them ...
const MAX_GATHER: Micros = Micros::from_millis(20);

/// ... but this long even if a sync takes less: it takes as much of a core for one reply as for fifty.
const MIN_GATHER: Micros = Micros(500);

/// Under `appendfsync everysec`.
const SYNC_INTERVAL: Micros = Micros::from_secs(1);

/// After the disk has refused, until it is tried again.
const RETRY_DELAY: Micros = Micros::from_millis(250);

/// After a snapshot has failed, until it is tried again.
const SNAPSHOT_RETRY_DELAY: Micros = Micros::from_secs(5);

/// Between two looks at save points and settings.
const LOOK_INTERVAL: Micros = Micros::from_millis(100);

/// Between two lines in the log of the server about the same trouble.
const COMPLAINT_INTERVAL: Micros = Micros::from_secs(10);

/// Bytes of a step of a snapshot: a few milliseconds of work.
const SNAPSHOT_CHUNK_BYTES: usize = 64 << 10;

/// `snapshot-min-log` counts as no less: below it a snapshot costs more than it saves.
const MIN_LOG_BYTES: u64 = 64 << 10;

/// What other threads ask for.
#[derive(Debug)]
pub(crate) enum Order {
    /// SAVE: answered when a snapshot that was finished after the order is on the disk.
    Save(oneshot::Sender<Result<(), String>>),
    /// BGSAVE: answered at once; the error says that one is being made.
    SaveInBackground(oneshot::Sender<Result<(), ()>>),
    /// SHUTDOWN and signals: answered when all is on the disk that has to be; the node goes on meanwhile.
    PrepareEnd(SaveOnExit, oneshot::Sender<Result<(), String>>),
    /// Nobody changes anything any more: write the rest, and end the thread.
    End(SaveOnExit),
}

/// The thread's state.
pub(crate) struct DiskThread {
    node: Arc<Node>,
    clock: Clock,
    durability: Arc<Durability>,
    orders: Receiver<Order>,
    directory: Directory,
    store: Store<Files>,
    journal: Journal,
    has_log: bool,
    /// Collected and not committed, for the disk has refused it.
    batch: Batch,
    /// When the changes in the batch or in the log had all happened.
    collected_at: Micros,
    next_commit: Micros,
    /// When the first commit was made that is not synced.
    unsynced_since: Option<Micros>,
    next_look: Micros,
    next_complaint: Micros,
    snapshot: Option<Snapshot>,
    next_snapshot_try: Micros,
    waiting_saves: Vec<oneshot::Sender<Result<(), String>>>,
    records_written: u64,
    safe_until: Micros,
    /// Replies that waited for the last collection.
    group: u64,
    /// Replies that are expected to wait sooner or later: those that the last sync released, and those that waited then.
    expected: u64,
    /// Whether clients wait for the disk more than the disk for them, so that all had better share one sync.
    is_slow: bool,
    /// When the last good sync ended, how long syncs take, and how much time there is from one to the next for each reply.
    synced_at: Micros,
    sync_took: Micros,
    nanos_per_reply: u64,
    /// Replies released.
    replies: u64,
    seat: Seat,
}

/// A snapshot in the making.
struct Snapshot {
    progress: SnapshotProgress,
    began: Micros,
    next_step: Micros,
    /// `Stats::changes` as it was when the last commit that belongs to it was collected.
    changes: u64,
    is_background: bool,
}

impl DiskThread {
    pub(crate) fn new(
        (node, clock, durability): (Arc<Node>, Clock, Arc<Durability>),
        orders: Receiver<Order>,
        (directory, store): (Directory, Store<Files>),
        journal: Journal,
    ) -> DiskThread {
        let now = clock.now().monotonic;
        let has_log = node.settings().appendonly;
        DiskThread {
            node,
            clock,
            durability,
            orders,
            directory,
            store,
            journal,
            has_log,
            batch: Batch::new(),
            collected_at: now,
            next_commit: now,
            unsynced_since: None,
            next_look: now,
            next_complaint: Micros(0),
            snapshot: None,
            next_snapshot_try: now,
            waiting_saves: Vec::new(),
            records_written: 0,
            safe_until: now,
            group: 0,
            expected: 0,
            is_slow: false,
            synced_at: now,
            sync_took: Micros(0),
            nanos_per_reply: 0,
            replies: 0,
            seat: Seat::default(),
        }
    }

    /// Runs until the order to end.
    pub(crate) fn run(mut self) {
        loop {
            match self.orders.try_recv() {
                Ok(Order::End(save)) => return self.end(save),
                Ok(order) => self.obey(order),
                Err(TryRecvError::Disconnected) => return self.end(SaveOnExit::AsConfigured),
                Err(TryRecvError::Empty) => {}
            }
            self.commit_if_due();
            self.sync_if_due();
            self.snapshot_if_due();
            self.look();
            self.tell();
            self.rest();
        }
    }

    fn now(&self) -> Micros {
        self.clock.now().monotonic
    }

    fn is_logging(&self) -> bool {
        self.journal.is_started()
    }

    // ---- The log ----

    fn has_changes(&self) -> bool {
        !self.batch.is_empty() || self.is_logging() && self.journal.has_changes()
    }

    fn commit_if_due(&mut self) {
        let now = self.now();
        let is_urgent = self.durability.is_wanted() && !self.store.stats().is_failing;
        if !is_urgent && now < self.next_commit {
            return;
        }
        // Without a log only the commit at the end of a snapshot's walk counts.
        if self.has_log && (self.durability.is_wanted() || self.has_changes()) {
            if is_urgent {
                self.gather();
            }
            self.commit().ok();
        } else if self.store.stats().is_failing {
            // Nobody changes anything, perhaps because nobody may: see whether the disk has come back.
            let synced = self.store.sync().map(|_| ());
            self.next_commit = now + RETRY_DELAY;
            self.judge(synced).ok();
        }
    }

    /// Waits a little for the clients whose replies left after the last sync: most ask again at once, and one sync serves
    /// many. Whoever is alone never waits.
    ///
    /// On a fast disk for half of them: while one half waits for its sync, clients and I/O threads work on the other, and no
    /// core is idle. On a slow one, where a sync takes longer than all of them take to come back, two halves would take
    /// turns, each waiting for the other's sync: there all are waited for.
    fn gather(&mut self) {
        let limit = if self.is_slow { self.sync_took } else { self.sync_took.max(MIN_GATHER) };
        let until = self.synced_at + limit.min(MAX_GATHER);
        let half = self.half();
        let enough = if self.is_slow { self.expected } else { half };
        while self.durability.expect(enough) < enough {
            let now = self.now();
            if now >= until {
                self.is_slow = false;
                break;
            }
            std::thread::park_timeout(Duration::from_micros(until.since(now).0));
        }
        self.durability.expect(u64::MAX);
    }

    /// Half of those who wait for the disk again and again, if they are so quick that it comes together in `MIN_GATHER`. Else half
    /// of those that the last sync has seen.
    fn half(&self) -> u64 {
        let crowd = self.durability.crowd(self.synced_at) / 2;
        let is_quick = crowd * self.nanos_per_reply <= MIN_GATHER.0 * 1_000;
        if is_quick { crowd.max(self.expected / 2) } else { self.expected / 2 }
    }

    /// Writes all that has changed; under `always`, or for somebody who waits, syncs it as well.
    fn commit(&mut self) -> Result<(), String> {
        let began = self.now();
        if self.batch.is_empty() {
            self.group = self.durability.begin();
            self.collected_at = began;
            if self.has_log {
                self.journal.collect(&mut self.batch, began);
            } else {
                self.journal.collect_counters(&mut self.batch, began);
            }
        }
        let records = self.batch.len();
        let is_urgent = self.durability.is_wanted() || self.fsync() == AppendFsync::Always;
        let mut written = self.store.commit(&mut self.batch).map(|_| ());
        if written.is_ok() {
            self.records_written += records;
            self.unsynced_since.get_or_insert(began);
            if is_urgent {
                written = self.sync();
            } else if self.fsync() == AppendFsync::No {
                self.safe_until = self.collected_at;
            }
        }
        let now = self.now();
        let took = now.since(began);
        let rest = Micros(took.0.saturating_mul(COMMIT_REST_FACTOR)).min(MAX_COMMIT_REST);
        self.next_commit = now + if written.is_ok() { rest.max(COMMIT_DELAY) } else { RETRY_DELAY };
        self.judge(written)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let began = self.now();
        self.store.sync()?;
        let now = self.now();
        let before = std::mem::replace(&mut self.synced_at, now);
        let nanos = self.synced_at.since(before).min(MAX_GATHER).0 * 1_000 / self.group.max(1);
        self.nanos_per_reply = (self.nanos_per_reply * 7 + nanos) / 8;
        let took = self.synced_at.since(began);
        self.sync_took = Micros((self.sync_took.0 * 7 + took.0) / 8);
        let waiting = self.durability.expect(u64::MAX);
        self.expected = self.group + waiting;
        self.replies += self.group;
        // Those who were not in the group have all come meanwhile.
        let half = self.half();
        self.is_slow |= waiting > 0 && waiting >= half;
        self.unsynced_since = None;
        if self.batch.is_empty() {
            self.safe_until = self.collected_at;
            self.durability.note_safe();
        }
        Ok(())
    }

    fn sync_if_due(&mut self) {
        let is_due = self.unsynced_since.is_some_and(|since| self.now().since(since) >= SYNC_INTERVAL);
        if is_due && self.fsync() != AppendFsync::No && !self.store.stats().is_failing {
            let synced = self.sync();
            self.judge(synced).ok();
        }
    }

    fn fsync(&self) -> AppendFsync {
        self.node.settings().appendfsync
    }

    /// Tells the operator when the disk begins to refuse, now and then while it does, and when it has come back.
    fn judge(&mut self, result: Result<(), StoreError>) -> Result<(), String> {
        let now = self.now();
        let was_failing = self.node.log_status().is_failing;
        match result {
            Err(error) => {
                if !was_failing || now >= self.next_complaint {
                    self.next_complaint = now + COMPLAINT_INTERVAL;
                    log::error!(
                        "The disk refuses changes: {error}. They stay in memory and will be tried again"
                    );
                }
                self.tell();
                Err(error.to_string())
            }
            Ok(()) => {
                if was_failing {
                    log::warn!("The disk takes changes again; all that had changed is written");
                    self.tell();
                }
                Ok(())
            }
        }
    }

    // ---- Snapshots ----

    fn obey(&mut self, order: Order) {
        match order {
            Order::Save(answer) => self.save(answer),
            Order::SaveInBackground(answer) => {
                let is_running = self.snapshot.is_some();
                if !is_running {
                    log::info!("Background saving started");
                    self.begin_snapshot(true).ok();
                }
                answer.send(if is_running { Err(()) } else { Ok(()) }).ok();
            }
            Order::PrepareEnd(save, answer) => self.prepare_end(save, answer),
            Order::End(_) => unreachable!("taken by `run`"),
        }
    }

    /// A snapshot that is being made will do: what is committed when it ends belongs to it.
    fn save(&mut self, answer: oneshot::Sender<Result<(), String>>) {
        if self.snapshot.is_none()
            && let Err(error) = self.begin_snapshot(false)
        {
            answer.send(Err(error)).ok();
            return;
        }
        self.waiting_saves.push(answer);
    }

    /// Only the failure of a background one counts as bad afterwards (as users of SAVE know it: they have seen the error).
    fn begin_snapshot(&mut self, is_background: bool) -> Result<(), String> {
        let began = self.move_if_asked().and_then(|()| {
            self.journal.start();
            self.store.begin_snapshot().map_err(|error| error.to_string())
        });
        let now = self.now();
        match &began {
            Ok(()) => {
                let changes = self.node.stats.changes();
                let progress = SnapshotProgress::default();
                self.snapshot =
                    Some(Snapshot { progress, began: now, next_step: now, changes, is_background });
                let status = SaveStatus { running_since: Some(now), ..self.node.save_status() };
                self.node.set_save_status(status);
            }
            Err(error) => self.fail_snapshot(error, is_background),
        }
        began
    }

    fn fail_snapshot(&mut self, error: &str, is_background: bool) {
        log::error!("Saving failed: {error}");
        let is_good = !is_background && self.node.save_status().is_last_good;
        self.end_snapshot(is_good, false);
        self.next_snapshot_try = self.now() + SNAPSHOT_RETRY_DELAY;
        self.waiting_saves.drain(..).for_each(|answer| drop(answer.send(Err(error.to_owned()))));
    }

    fn end_snapshot(&mut self, is_good: bool, is_whole: bool) {
        let now = self.clock.now();
        let snapshot = self.snapshot.take();
        let mut status = self.node.save_status();
        status.running_since = None;
        status.is_last_good = is_good;
        if let Some(snapshot) = snapshot {
            status.last_took = Some(now.monotonic.since(snapshot.began));
            if is_whole {
                status.saved_at_unix = now.unix;
                status.saved_changes = snapshot.changes;
            }
        }
        self.node.set_save_status(status);
        if !self.has_log {
            self.journal.stop();
            self.batch.clear();
        }
        // Whoever is answered that it is saved may write from then on.
        self.tell();
    }

    fn snapshot_if_due(&mut self) {
        let now = self.now();
        let is_hurried = !self.waiting_saves.is_empty() || self.store.is_snapshot_behind();
        let Some(snapshot) = &mut self.snapshot else { return };
        let is_background = snapshot.is_background;
        if now < snapshot.next_step && !is_hurried {
            return;
        }
        let step = self.store.snapshot_step(&mut self.journal.source(&mut snapshot.progress, now));
        // As long a rest as the step took: half the thread's time is left to the log, and half a core to clients.
        let after = self.clock.now().monotonic;
        snapshot.next_step = after + after.since(now);
        match step {
            Ok(SnapshotStep::Walking | SnapshotStep::Removing | SnapshotStep::Idle) => {}
            Ok(SnapshotStep::NeedsCommit) => {
                snapshot.changes = self.node.stats.changes();
                // What an earlier commit could not write must be in as well: then there is a batch, and two commits.
                let committed =
                    if self.batch.is_empty() { Ok(()) } else { self.commit() }.and_then(|()| self.commit());
                match committed {
                    Ok(()) => self.store.snapshot_covered(),
                    Err(error) => {
                        self.store.abandon_snapshot();
                        self.fail_snapshot(&error, is_background);
                    }
                }
            }
            Ok(SnapshotStep::Finished { bytes, records }) => {
                log::info!("Saved: {records} records in {bytes} bytes");
                self.end_snapshot(true, true);
                self.waiting_saves.drain(..).for_each(|answer| drop(answer.send(Ok(()))));
            }
            Err(error) => self.fail_snapshot(&error.to_string(), is_background),
        }
    }

    /// Begins a snapshot when one is due.
    fn look(&mut self) {
        let now = self.clock.now();
        if now.monotonic < self.next_look {
            return;
        }
        self.next_look = now.monotonic + LOOK_INTERVAL;
        let is_always = self.fsync() == AppendFsync::Always;
        self.durability.set_heeds_changes(!is_always);
        self.store.disk().set_makes_room(is_always);
        let company = match is_always && self.snapshot.is_none() {
            true => self.durability.company(now.monotonic),
            false => Company::Unfit,
        };
        self.seat.look(now.monotonic, self.replies, company);
        self.store.set_min_log_bytes(self.node.settings().snapshot_min_log_bytes.max(MIN_LOG_BYTES));
        if self.snapshot.is_some() || now.monotonic < self.next_snapshot_try || self.store.stats().is_failing
        {
            return;
        }
        let settings = self.node.settings();
        let status = self.node.save_status();
        let is_retry = !status.is_last_good && !settings.save.is_empty();
        let is_due = if self.has_log {
            self.store.should_snapshot()
        } else {
            is_save_point_met(&settings, &status, self.node.stats.changes(), now)
        };
        if is_due || is_retry {
            log::info!("Saving in the background");
            self.begin_snapshot(true).ok();
        }
    }

    /// After CONFIG SET dir the next snapshot goes to the new directory, and the log with it.
    fn move_if_asked(&mut self) -> Result<(), String> {
        let settings = self.node.settings();
        let wanted = home(&settings);
        if wanted == self.directory.path() {
            return Ok(());
        }
        let directory = Directory::take(Path::new(&settings.dir), &settings.appenddirname)?;
        let options = options(&directory)?;
        let (mut store, opening) =
            Store::open(directory.files()?, options, &mut NothingThere).map_err(|error| error.to_string())?;
        if let Some(error) = opening.not_writable {
            return Err(error.to_string());
        }
        let mut journal = Journal::anew(Arc::clone(&self.node));
        // All of it in one commit: after a crash the new directory has everything or nothing.
        journal.start();
        let mut batch = Batch::new();
        journal.copy_all(&mut batch, self.now());
        store.commit(&mut batch).and_then(|_| store.sync()).map_err(|error| error.to_string())?;
        log::warn!("The data directory is now {}", directory.path().display());
        (self.store, self.journal, self.directory) = (store, journal, directory);
        // What had been collected for the old log is in the copy.
        self.batch.clear();
        self.unsynced_since = None;
        Ok(())
    }

    // ---- The end ----

    fn prepare_end(&mut self, save: SaveOnExit, answer: oneshot::Sender<Result<(), String>>) {
        let settings = self.node.settings();
        let has_moved = home(&settings) != self.directory.path();
        let is_snapshot_asked = match save {
            SaveOnExit::Yes => true,
            SaveOnExit::No => false,
            SaveOnExit::AsConfigured => !settings.save.is_empty() && (!self.has_log || has_moved),
        };
        if is_snapshot_asked {
            return self.save(answer);
        }
        let written = if self.has_log && save != SaveOnExit::No {
            self.commit().and_then(|()| {
                let synced = self.sync();
                self.judge(synced)
            })
        } else {
            Ok(())
        };
        answer.send(written).ok();
    }

    /// The last commit, whatever `save` says, if there is a log; the last snapshot, if one is asked for and something has changed
    /// since `prepare_end`.
    fn end(mut self, save: SaveOnExit) {
        let settings = self.node.settings();
        let is_snapshot_asked = match save {
            SaveOnExit::Yes => true,
            SaveOnExit::No => false,
            SaveOnExit::AsConfigured => !settings.save.is_empty() && !self.has_log,
        };
        let has_changed = self.node.stats.changes() != self.node.save_status().saved_changes;
        if is_snapshot_asked && (has_changed || self.snapshot.is_some()) {
            let (answer, _) = oneshot::channel();
            self.save(answer);
            while self.snapshot.is_some() {
                self.snapshot_if_due();
            }
        }
        if self.has_log && (self.commit().is_err() || self.has_changes() && self.commit().is_err()) {
            log::error!("The last changes could not be written");
        }
        match self.store.close() {
            Ok(_) => {}
            Err(error) => log::error!("The log could not be closed: {error}"),
        }
    }

    // ---- Telling and resting ----

    fn tell(&mut self) {
        let stats = self.store.stats();
        let settings = self.node.settings();
        let is_save_bad = !self.node.save_status().is_last_good && !settings.save.is_empty();
        let is_failing = self.is_logging() && (stats.is_failing || !self.batch.is_empty());
        self.node.set_refusing_writes(
            settings.stop_writes_on_bgsave_error && (is_save_bad || self.has_log && is_failing),
        );
        self.node.set_log_status(LogStatus {
            is_on: self.has_log,
            is_failing: stats.is_failing,
            unsynced_bytes: stats.unsynced_bytes,
            safe_until: self.safe_until,
            log_bytes: stats.log_bytes,
            segments: stats.segments as u64,
            snapshot_bytes: stats.last_snapshot_bytes,
            log_bytes_written: stats.counts.log_bytes,
            snapshot_bytes_written: stats.counts.snapshot_bytes,
            records_written: self.records_written,
            syncs: stats.counts.syncs,
            failures: stats.counts.failures,
        });
    }

    /// Sleeps until something is due or somebody calls.
    fn rest(&self) {
        let now = self.now();
        let is_failing = self.store.stats().is_failing;
        let mut due = self.next_look;
        if self.has_log && self.has_changes() || is_failing {
            due = due.min(self.next_commit);
        }
        self.durability.expect(1);
        if self.durability.is_wanted() && !is_failing {
            due = now;
        }
        if let Some(since) = self.unsynced_since {
            due = due.min(since + SYNC_INTERVAL);
        }
        if let Some(snapshot) = &self.snapshot {
            let is_hurried = !self.waiting_saves.is_empty() || self.store.is_snapshot_behind();
            due = due.min(if is_hurried { now } else { snapshot.next_step });
        }
        if due > now {
            std::thread::park_timeout(Duration::from_micros(due.since(now).0));
        }
    }
}

/// Where the store is to be.
pub(crate) fn home(settings: &Settings) -> PathBuf {
    Path::new(&settings.dir).join(&settings.appenddirname)
}

/// How the store is to work.
///
/// # Errors
/// The directory can't be read.
pub(crate) fn options(directory: &Directory) -> Result<Options, String> {
    let mut options = Options::new(directory.secret()?);
    options.snapshot_chunk_bytes = SNAPSHOT_CHUNK_BYTES;
    Ok(options)
}

fn is_save_point_met(settings: &Settings, status: &SaveStatus, changes: u64, now: Now) -> bool {
    let changes = changes.saturating_sub(status.saved_changes);
    let elapsed = now.unix.since(status.saved_at_unix);
    settings.save.iter().any(|point| {
        changes >= u64::from(point.changes.max(1)) && elapsed >= Micros::from_secs(point.seconds.into())
    })
}

/// A directory to move to must have no counters.
struct NothingThere;

impl engine::store::Sink for NothingThere {
    fn block(&mut self, block: engine::store::Block) -> Result<(), StoreError> {
        let reason = "the directory to save to holds counters already".to_owned();
        Err(StoreError::Unusable { file: block.file().to_owned(), offset: 0, reason })
    }
}
