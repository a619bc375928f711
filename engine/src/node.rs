//! The node: everything that its threads share, and the way of a command through it.
//!
//! `connect` makes a session, `execute` runs one request of it, `disconnect` ends it; `run_timers` does what is
//! due. All take `&self`; every lock inside is short and never held across a call of the shell, save the one that
//! lets one change of settings follow the other.

use crate::clients::{Client, ClientKind, Clients, MAX_BUFFERED, Peer, Wake};
use crate::cluster::gossip::Announcement;
use crate::cluster::view::ClusterView;
use crate::command::{CommandSpec, Context, Flag, Outcome};
use crate::command_table::{CommandTable, Known};
use crate::commands;
use crate::error::ClientError;
use crate::facts::Kept;
use crate::glob::Glob;
use crate::ids::NodeId;
use crate::keyspace::{Cursor, Fate, Keyspace, Place};
use crate::latency::Latency;
use crate::monitor;
use crate::pubsub::{Pubsub, TICK};
use crate::saves::{Loading, LogStatus, SaveStatus};
use crate::session::{ReplyMode, Session};
use crate::settings::Settings;
use crate::stats::Stats;
use crate::time::{Micros, Now};
use parking_lot::{Mutex, RwLock};
use resp::{LOOK_AHEAD, Protocol, ReplyWriter, Request};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Above this share of `maxmemory` no counter is made.
const MEMORY_HIGH_MARK_PERCENT: u64 = 75;

/// A client that speaks HTTP is told of at most once in this time.
const HTTP_WARNING_INTERVAL: Micros = Micros::from_secs(60);

/// The answer to what changes counters, and to PING, while the disk can't be written.
const MISCONF: &str = "MISCONF Discnt is configured to keep its counters on disk, but is currently not able to. Commands \
    that may change counters are refused. The log of the server tells why; it goes on by itself once the disk can be \
    written again.";

/// What the shell knows and does for the node. No call may block.
pub trait Shell: Send + Sync {
    /// Facts about the process for INFO.
    fn process(&self) -> ProcessInfo;
    /// Tells the shell that settings have changed, so that it can act on those that are its own (log level,
    /// client limits). An error refuses the change.
    fn settings_changed(&self, settings: &Settings) -> Result<(), String>;
    /// Something that the operator must look at; the shell bounds the rate.
    fn warn(&self, _text: &str) {}
    /// The state has changed in a way that the operator may want to know.
    fn info(&self, _text: &str) {}
    /// Replaces what a client gave relative to the process, such as a path, by what it means.
    fn complete_settings(&self, _settings: &mut Settings) {}
}

/// Facts about the process that only the shell knows.
#[derive(Clone, Debug, Default)]
pub struct ProcessInfo {
    /// Process id.
    pub pid: u32,
    /// Path of the running program.
    pub executable: String,
    /// Path of the configuration file; empty if there is none.
    pub config_file: String,
    /// Resident set, bytes.
    pub resident_bytes: u64,
    /// CPU time in the kernel and in the program, seconds.
    pub cpu_system_secs: f64,
    /// See `cpu_system_secs`.
    pub cpu_user_secs: f64,
    /// Bytes that the allocator has given out.
    pub allocated_bytes: u64,
    /// Name and version of the allocator.
    pub allocator: &'static str,
    /// Operating system and machine, as `uname` tells.
    pub os: String,
    /// Threads that serve clients.
    pub io_threads: usize,
}

/// What a node is made from.
pub struct NodeConfig {
    /// Its permanent name.
    pub id: NodeId,
    /// Names this run of the process in INFO.
    pub run_id: [u8; 20],
    /// Seed of the counters' hashes.
    pub hash_seed: u64,
    /// Settings at the start.
    pub settings: Settings,
    /// The moment of the start.
    pub now: Now,
    /// The shell around it.
    pub shell: Arc<dyn Shell>,
}

/// A node. Shared by all threads.
pub struct Node {
    /// All counters.
    pub keyspace: Keyspace,
    /// All connections.
    pub clients: Clients,
    /// What INFO tells.
    pub stats: Stats,
    pub(crate) pubsub: Pubsub,
    pub(crate) latency: Latency,
    pub(crate) shell: Arc<dyn Shell>,
    pub(crate) started: Now,
    pub(crate) run_id: [u8; 20],
    /// Facts about the node that the disk keeps.
    pub(crate) kept: Mutex<Kept>,
    id: RwLock<NodeId>,
    settings: RwLock<Arc<Settings>>,
    cluster_view: RwLock<Arc<ClusterView>>,
    settings_edit: Mutex<()>,
    save_status: Mutex<SaveStatus>,
    log_status: Mutex<LogStatus>,
    loading: Mutex<Loading>,
    /// The disk can't be written and settings say that nothing may change then.
    is_refusing_writes: AtomicBool,
    commands: CommandTable,
    next_tick: Mutex<Micros>,
    used_memory: AtomicU64,
    is_loading: AtomicBool,
    sleeping_until: AtomicU64,
    /// Before this moment no client that speaks HTTP is told of.
    next_http_warning: AtomicU64,
}

impl Node {
    /// A node without counters and without company.
    pub fn new(config: NodeConfig) -> Node {
        Node {
            keyspace: Keyspace::new(config.hash_seed, config.settings.default_precision),
            clients: Clients::default(),
            stats: Stats::new(config.now.monotonic),
            pubsub: Pubsub::default(),
            latency: Latency::default(),
            shell: config.shell,
            started: config.now,
            run_id: config.run_id,
            kept: Mutex::default(),
            id: RwLock::new(config.id),
            cluster_view: RwLock::new(Arc::new(view_alone(config.id, &config.settings))),
            commands: CommandTable::new(&config.settings.rename_command),
            settings: RwLock::new(Arc::new(config.settings)),
            settings_edit: Mutex::default(),
            save_status: Mutex::new(SaveStatus::new(config.now.unix)),
            log_status: Mutex::default(),
            loading: Mutex::default(),
            is_refusing_writes: AtomicBool::new(false),
            next_tick: Mutex::new(config.now.monotonic + TICK),
            used_memory: AtomicU64::new(0),
            is_loading: AtomicBool::new(false),
            sleeping_until: AtomicU64::new(0),
            next_http_warning: AtomicU64::new(0),
        }
    }

    /// The node's permanent name.
    pub fn id(&self) -> NodeId {
        *self.id.read()
    }

    pub(crate) fn set_id(&self, id: NodeId) {
        *self.id.write() = id;
    }

    /// The cluster as its thread last saw it. A node without such a thread is alone.
    pub fn cluster_view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.cluster_view.read())
    }

    /// Replaces the picture of the cluster.
    pub fn set_cluster_view(&self, view: ClusterView) {
        *self.cluster_view.write() = Arc::new(view);
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    /// Sets how the thread of the cluster is woken when a counter has changed; once.
    pub fn set_cluster_wake(&self, wake: Wake) {
        self.keyspace.dirty.set_wake(wake);
    }

    /// Whether the cluster has something to look at.
    pub fn is_cluster_dirty(&self) -> bool {
        self.keyspace.dirty.is_woken()
    }

    /// Replaces settings that are no longer in force.
    pub fn refresh_settings(&self, settings: &mut Arc<Settings>) {
        let current = self.settings.read();
        if !Arc::ptr_eq(&current, settings) {
            *settings = Arc::clone(&current);
        }
    }

    /// Puts other settings in force, once the shell has accepted them.
    pub(crate) fn change_settings(&self, settings: Settings) -> Result<(), String> {
        self.shell.settings_changed(&settings)?;
        if settings.default_precision != self.keyspace.default_precision() {
            self.keyspace
                .set_default_precision(settings.default_precision)
                .map_err(|error| ClientError::from(error).to_string())?;
        }
        *self.settings.write() = Arc::new(settings);
        // A limit holds from the next command on.
        self.note_used_memory(self.used_memory.load(Ordering::Relaxed));
        Ok(())
    }

    /// Puts in force what `edit` makes of the settings, once the shell has accepted it. Edits follow one another, so
    /// that none is lost.
    pub(crate) fn edit_settings(
        &self,
        edit: impl FnOnce(&Settings) -> Result<Settings, String>,
    ) -> Result<(), String> {
        let one_at_a_time = self.settings_edit.lock();
        let mut edited = edit(&self.settings())?;
        self.shell.complete_settings(&mut edited);
        let result = self.change_settings(edited);
        drop(one_at_a_time);
        result
    }

    /// What is known of snapshots.
    pub fn save_status(&self) -> SaveStatus {
        *self.save_status.lock()
    }

    /// Tells the node what has become of snapshots.
    pub fn set_save_status(&self, status: SaveStatus) {
        *self.save_status.lock() = status;
    }

    /// What is known of the log.
    pub fn log_status(&self) -> LogStatus {
        *self.log_status.lock()
    }

    /// Tells the node how the log stands.
    pub fn set_log_status(&self, status: LogStatus) {
        *self.log_status.lock() = status;
    }

    /// Tells the node whether what changes counters is to be refused because the disk can't be written.
    pub fn set_refusing_writes(&self, is_refusing: bool) {
        self.is_refusing_writes.store(is_refusing, Ordering::Relaxed);
    }

    /// Whether the disk can't be written and nothing may change therefore.
    pub fn is_refusing_writes(&self) -> bool {
        self.is_refusing_writes.load(Ordering::Relaxed)
    }

    pub(crate) fn commands(&self) -> &CommandTable {
        &self.commands
    }

    /// Whether everything of every member is known as it was within the node timeout, directly or through others, and all that this
    /// node itself has counted is back: GET BOUND claims something, and nothing older.
    pub fn is_consistent(&self, now: Micros) -> bool {
        let timeout = Micros::from_millis(self.settings.read().cluster_node_timeout_ms);
        self.keyspace.moment_known(now).is_some_and(|moment| now.since(moment) <= timeout)
    }

    /// Whether a further counter may be made under `maxmemory`.
    pub fn has_room(&self) -> bool {
        !self.stats.is_memory_full()
    }

    /// Tells the node how many bytes the allocator has given out; the shell does so many times a second.
    pub fn note_used_memory(&self, bytes: u64) {
        self.used_memory.store(bytes, Ordering::Relaxed);
        let limit = self.settings().maxmemory_bytes;
        let is_full = limit > 0 && bytes > limit / 100 * MEMORY_HIGH_MARK_PERCENT;
        self.stats.set_memory_full(is_full, bytes);
    }

    /// Closes the clients that hold most if requests and replies waiting for all of them are more than may; the shell calls it
    /// many times a second.
    pub fn limit_buffers(&self) {
        for (client, held) in self.clients.close_largest(MAX_BUFFERED) {
            self.shell.warn(&format!(
                "client {} ({}) closed: it holds {held} bytes of requests and replies, and all clients together more than \
                 {MAX_BUFFERED}",
                client.id, client.peer
            ));
        }
    }

    /// Tells the node how far loading has come. While it goes on, only commands marked for it are executed.
    pub fn set_loading(&self, loading: Loading) {
        *self.loading.lock() = loading;
        self.is_loading.store(loading.is_on, Ordering::Release);
    }

    /// Whether counters are still being loaded.
    pub fn is_loading(&self) -> bool {
        self.is_loading.load(Ordering::Acquire)
    }

    /// How far loading has come.
    pub fn loading(&self) -> Loading {
        *self.loading.lock()
    }

    /// Until when nobody is served (DEBUG SLEEP); in the past when everybody is.
    pub fn sleeping_until(&self) -> Micros {
        Micros(self.sleeping_until.load(Ordering::Relaxed))
    }

    /// Serves nobody until `until`.
    pub fn sleep_until(&self, until: Micros) {
        self.sleeping_until.fetch_max(until.0, Ordering::Relaxed);
    }

    /// Begins a conversation.
    pub fn connect(&self, peer: Peer, fd: i32, now: Now, wake: Wake) -> Session {
        self.stats.note_connection();
        Session::new(self.clients.connect(peer, fd, now.monotonic, wake))
    }

    /// Ends a conversation.
    pub fn disconnect(&self, mut session: Session, now: Now) {
        self.stats.settle(&mut session.tally);
        self.pubsub.forget(&session.client, &self.keyspace, &self.clients, now.monotonic);
    }

    /// Has the memory fetched that these requests will need, all of it at once: waiting for one counter after the other
    /// takes longer than all else that is done for them. The first argument is taken for a name; where it is none, no
    /// harm is done.
    #[inline]
    pub fn prefetch<'a>(&self, requests: impl Iterator<Item = Request<'a>>) {
        let (mut places, mut count) = ([Place::default(); LOOK_AHEAD], 0);
        for (place, request) in places.iter_mut().zip(requests.filter(|request| request.len() > 1)) {
            *place = self.keyspace.prefetch_stripe(request.arg(1));
            count += 1;
        }
        places[..count].iter().for_each(|place| self.keyspace.prefetch_entry(*place));
        places[..count].iter().for_each(|place| self.keyspace.prefetch_counter(*place));
    }

    /// Executes one request and writes its reply to the end of `out`.
    #[inline]
    pub fn execute(
        &self,
        session: &mut Session,
        request: Request<'_>,
        settings: &Settings,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Outcome {
        if session.reply_mode == ReplyMode::SkipNext {
            session.reply_mode = ReplyMode::Skip;
        }
        let mut start = out.len();
        let outcome = match self.dispatch(session, request, settings, now, out, &mut start) {
            Ok(outcome) => outcome,
            Err(error) => {
                self.answer_error(session, &error, start, out);
                Outcome::Done
            }
        };
        if session.reply_mode == ReplyMode::On {
            session.is_reply_due = true;
            return outcome;
        }
        if session.reply_mode == ReplyMode::Skip && matches!(outcome, Outcome::Later(_)) {
            session.reply_mode = ReplyMode::SkipNext;
        }
        session.is_reply_due = false;
        if session.reply_mode == ReplyMode::Skip {
            session.reply_mode = ReplyMode::On;
        }
        out.truncate(start);
        outcome
    }

    #[cold]
    fn answer_error(&self, session: &Session, error: &ClientError, start: usize, out: &mut Vec<u8>) {
        out.truncate(start);
        error.write(&mut ReplyWriter::new(out, session.protocol));
        self.stats.note_error(&session.tally);
    }

    /// Does the request if it is one that may be done. `start` is where its reply begins: behind what a monitor is
    /// shown of it.
    #[inline]
    fn dispatch(
        &self,
        session: &mut Session,
        request: Request<'_>,
        settings: &Settings,
        now: Now,
        out: &mut Vec<u8>,
        start: &mut usize,
    ) -> Result<Outcome, ClientError> {
        if request.name().eq_ignore_ascii_case(b"QUIT") {
            ReplyWriter::new(out, session.protocol).status("OK");
            return Ok(Outcome::Close);
        }
        let Some(known) = self.commands.find_near(request.name(), &mut session.command_hint) else {
            return self.refuse_unknown(&session.client, &request, now);
        };
        let (number, command, run) = (known.number, known.spec, resolve(known, &request)?);
        let held_until = self.clients.held_until(run);
        if held_until > now.monotonic {
            return Ok(Outcome::Later(held_until));
        }
        session.client.note_command(now.monotonic, number);
        self.stats.note_call(&mut session.tally, number);
        self.check_allowed(session, run, settings)?;
        if self.clients.has_monitors() && !run.has(Flag::SkipMonitor) {
            self.clients.tell_monitors(&monitor::line(&session.client, command.name, &request, now));
            if session.client.is_monitor() {
                session.client.drain_outbox(out);
                *start = out.len();
            }
        }
        session.has_written |= known.is_plain_write || run.has(Flag::Write);
        let reply = ReplyWriter::new(out, session.protocol);
        let outcome = (run.run)(&mut Context { node: self, session, request, now, reply, settings });
        session.has_written |= session.tally.changes > 0;
        outcome
    }

    /// No such command. Words that every HTTP request has end the connection: a page in somebody's browser may have sent
    /// them, and commands of its choice behind them, to a node that trusts its own machine.
    #[cold]
    fn refuse_unknown(
        &self,
        client: &Client,
        request: &Request<'_>,
        now: Now,
    ) -> Result<Outcome, ClientError> {
        let is_http = [&b"POST"[..], b"Host:"].iter().any(|word| request.name().eq_ignore_ascii_case(word));
        if !is_http {
            return Err(ClientError::quoting("ERR unknown command '", request.name(), "'"));
        }
        if self.next_http_warning.load(Ordering::Relaxed) <= now.monotonic.0 {
            let next = now.monotonic + HTTP_WARNING_INTERVAL;
            self.next_http_warning.store(next.0, Ordering::Relaxed);
            self.shell.warn(&format!(
                "client {} ({}) closed: it speaks HTTP; if a browser was made to send that, it is an attack",
                client.id, client.peer
            ));
        }
        Ok(Outcome::Close)
    }

    /// Ends a batch: the commands that `execute` has run for this session in a row, or a task that one of them left to
    /// the shell. `elapsed_nanos` is how long it took, `now` when it began.
    ///
    /// No clock is read per command, so the whole time is attributed to the last command of the batch: exactly right
    /// for clients that wait for each reply and for pipelines of one command, and near it for others, because a
    /// command that takes long mostly ends its batch.
    pub fn note_time(&self, session: &mut Session, settings: &Settings, elapsed_nanos: u64, now: Now) {
        self.stats.settle(&mut session.tally);
        let Some(number) = session.client.last_command() else { return };
        self.stats.note_time(&session.tally, number, elapsed_nanos);
        let (threshold_ms, elapsed_ms) = (settings.latency_monitor_threshold_ms, elapsed_nanos / 1_000_000);
        if threshold_ms > 0 && elapsed_ms >= threshold_ms {
            let is_fast = commands::all().nth(usize::from(number)).is_some_and(|spec| spec.has(Flag::Fast));
            let event = if is_fast { "fast-command" } else { "command" };
            self.latency.record(event, now.unix.secs(), elapsed_ms);
        }
    }

    /// The checks behind the number of arguments, in the order that clients know.
    #[inline]
    fn check_allowed(
        &self,
        session: &Session,
        command: &CommandSpec,
        settings: &Settings,
    ) -> Result<(), ClientError> {
        if session.is_locked(settings) && !command.has(Flag::NoAuth) {
            return Err(ClientError::NoAuth);
        }
        if self.is_refusing_writes() && (command.has(Flag::Write) || command.name == "ping") {
            return Err(ClientError::text(MISCONF));
        }
        if session.client.subscription_count() > 0
            && session.protocol == Protocol::Resp2
            && !command.has(Flag::WhileSubscribed)
        {
            if command.has(Flag::Denyoom) && !self.has_room() {
                return Err(ClientError::OutOfMemory);
            }
            return Err(ClientError::text(
                "ERR only SUBSCRIBE / ISUBSCRIBE / UNSUBSCRIBE / QUIT allowed in this context",
            ));
        }
        // A container alone answers nothing but what is wrong with the words behind it.
        if self.is_loading() && !command.has(Flag::Loading) && command.subcommands.is_empty() {
            return Err(ClientError::text(format!(
                "LOADING Discnt is loading the dataset in memory: {:.0}% done",
                self.loading().percent()
            )));
        }
        Ok(())
    }

    /// Does a piece of KEYS: looks at a bounded number of counters and adds the names that match. Returns where to go on,
    /// zero at the end.
    pub fn keys_step(&self, glob: &Glob, cursor: Cursor, names: &mut Vec<Box<[u8]>>) -> Cursor {
        /// Counters looked at before other clients of the thread get their turn: about half a millisecond.
        const STEP: u64 = 8_192;
        self.look_for_names(cursor, STEP, Some(glob), names)
    }

    /// Looks at about that many counters from `cursor` on, fewer if their names are long and the pattern is, and adds the
    /// names that match. Returns where to go on, zero at the end.
    pub(crate) fn look_for_names(
        &self,
        mut cursor: Cursor,
        count: u64,
        glob: Option<&Glob>,
        names: &mut Vec<Box<[u8]>>,
    ) -> Cursor {
        /// Counters looked at under one lock, with a pattern of ordinary length.
        const SOME: u64 = 256;
        /// About three milliseconds, in `Glob::max_steps`.
        const MAX_STEPS: usize = 3_000_000;
        let at_once = (SOME / glob.map_or(1, |glob| glob.max_steps(1) as u64)).max(1);
        let (mut left, mut steps) = (count.max(1), 0);
        loop {
            let some = at_once.min(left);
            cursor = self.keyspace.walk(cursor, some, |counter| {
                steps += glob.map_or(0, |glob| glob.max_steps(counter.name().len()));
                if glob.is_none_or(|glob| glob.is_match(counter.name())) {
                    names.push(counter.name().into());
                }
            });
            left -= some;
            if cursor == 0 || left == 0 || steps >= MAX_STEPS {
                return cursor;
            }
        }
    }

    /// Deletes every counter here, and with it every subscription.
    pub(crate) fn flush(&self) {
        self.keyspace.clear();
        self.pubsub.end_all();
    }

    /// The next moment at which `run_timers` has something to do.
    pub fn deadline(&self) -> Micros {
        *self.next_tick.lock()
    }

    /// Does what is due: messages to subscribers, removal of counters at zero, the end of idle connections.
    pub fn run_timers(&self, now: Now) {
        let mut next = self.next_tick.lock();
        if now.monotonic < *next {
            return;
        }
        *next = *next + TICK;
        if *next <= now.monotonic {
            *next = now.monotonic + TICK;
        }
        drop(next);
        self.pubsub.tick(&self.keyspace, now.monotonic);
        if !self.keyspace.dirty.is_on() {
            self.keyspace.collect_zeros(now.monotonic, |_, _| Fate::Removed);
        }
        self.keyspace.sweep_precisions(now.monotonic);
        self.stats.sample_rates(now.monotonic);
        self.close_idle(now.monotonic);
        self.wake_clients_over_soft_limits();
    }

    /// Closes the connections that `timeout` is over for.
    fn close_idle(&self, now: Micros) {
        let limit = Micros::from_secs(self.settings().timeout_secs.into());
        if limit == Micros(0) {
            return;
        }
        for client in self.clients.all() {
            if client.is_idle_beyond(limit, now) {
                client.kill();
            }
        }
    }

    /// Wakes the clients that more waits for than the soft limit of their class. How long that has been so is for their
    /// connections to see, and of one that does not read, and is therefore not read from, they would hear nothing.
    fn wake_clients_over_soft_limits(&self) {
        let limits = self.settings().client_output_buffer_limit;
        if limits.normal.soft_bytes == 0 && limits.pubsub.soft_bytes == 0 {
            return;
        }
        for client in self.clients.all() {
            let limit = match client.kind() {
                ClientKind::Normal => limits.normal,
                ClientKind::Pubsub => limits.pubsub,
            };
            if limit.soft_bytes > 0 && client.waiting_bytes() as u64 > limit.soft_bytes {
                client.wake();
            }
        }
    }

    /// Writes the reply of a task that the shell has finished.
    pub fn finish(&self, session: &Session, result: TaskResult, out: &mut Vec<u8>) {
        if !session.is_reply_due {
            return;
        }
        let mut reply = ReplyWriter::new(out, session.protocol);
        match result {
            TaskResult::Ok => reply.status("OK"),
            TaskResult::Status(text) => reply.status(text),
            TaskResult::Error(text) => reply.error(text),
            TaskResult::Names(names) => {
                reply.array(names.len());
                names.iter().for_each(|name| reply.bulk(name));
            }
        }
    }
}

/// What became of a `Task`.
#[derive(Debug)]
pub enum TaskResult {
    /// `OK`
    Ok,
    /// Another status.
    Status(&'static str),
    /// An error, code included.
    Error(String),
    /// Names that matched.
    Names(Vec<Box<[u8]>>),
}

impl TaskResult {
    /// What `Task::Resolve` ends with when the host has no address.
    pub fn unresolved(host: &str, port: u16) -> TaskResult {
        let error = commands::cluster::invalid_node_address(host.as_bytes(), port.to_string().as_bytes());
        TaskResult::Error(error.to_string())
    }
}

/// The picture that a node has of a cluster that it has not met: itself, as it would announce itself.
fn view_alone(id: NodeId, settings: &Settings) -> ClusterView {
    let own = Announcement::from_settings(id, 0, settings);
    ClusterView::alone(id, own.ip, own.port, own.bus_port)
}

/// The command itself or the subcommand that the request names, if the number of words is right for it.
#[inline]
fn resolve(known: &Known, request: &Request<'_>) -> Result<&'static CommandSpec, ClientError> {
    let command = known.spec;
    if !known.accepts(request.len()) {
        return Err(ClientError::Arity(command.name));
    }
    if command.subcommands.is_empty() || request.len() < 2 {
        return Ok(command);
    }
    let asked = request.arg(1);
    match command.subcommands.iter().find(|sub| asked.eq_ignore_ascii_case(sub.name.as_bytes())) {
        None => Ok(command),
        Some(sub) if sub.accepts(request.len() - 1) => Ok(sub),
        // What the container answers is the original's text for a wrong number of arguments too.
        Some(_) => Ok(command),
    }
}

impl Client {
    /// Whether nothing was asked by it for longer than `limit`, and it is one of those that must ask.
    pub fn is_idle_beyond(&self, limit: Micros, now: Micros) -> bool {
        now.since(self.last_active()) > limit && self.subscription_count() == 0 && !self.is_monitor()
    }
}
