//! The settings of a node: their types and defaults, and how an operator reads and changes them.
//!
//! Everything about one setting stands in one place: its default in `Settings::default`, all else in its
//! [`SettingSpec`] in the table `SETTINGS` (`table.rs`). Reading files and options (`file.rs`), CONFIG GET and SET
//! (`command.rs`), CONFIG REWRITE (`rewrite.rs`), the checks and remedies in messages and the test of the shipped
//! `discnt.conf` derive from the two.
//!
//! Lacks on purpose: files, environment, clock. Whoever holds a changed `Settings` makes the change happen.

mod command;
mod file;
mod given;
mod lists;
mod rewrite;
mod table;
mod words;

pub use crate::precision::Precision;
pub use command::{ConfigSetError, config_get, config_set};
pub use file::{ConfigReader, Included, LineError, MAX_INCLUDE_DEPTH, OpenIncluded};
pub use given::{Given, Kind, Place, SettingError};
pub use lists::name_of_two_commands;
pub use rewrite::{REWRITE_SIGNATURE, rewrite};
pub use table::SETTINGS;
pub use words::{AppendFsync, LogLevel, Named, Supervised, SyslogFacility};

use crate::value::Value;
use std::fmt;
use std::ops::Deref;

/// What `PORT + BUS_PORT_OFFSET` is: the port of the cluster bus.
pub const BUS_PORT_OFFSET: u16 = 10_000;
/// Highest client port, so that the port of the bus is one too.
pub const MAX_PORT: u16 = u16::MAX - BUS_PORT_OFFSET;
/// Longest `history-size`: an hour of seconds.
pub const MAX_HISTORY_SIZE_SECS: u32 = 3_600;
/// Fewest bytes of a `cluster-secret`.
pub const MIN_SECRET_LEN: usize = 16;
/// Most bytes of a `requirepass` or a `cluster-secret`.
pub const MAX_SECRET_LEN: usize = 512;
/// Most bytes of any other text, so of a path.
pub const MAX_TEXT_LEN: usize = 4_096;
/// Most addresses to listen on.
pub const MAX_BIND_ADDRS: usize = 16;
/// Most save points.
pub const MAX_SAVE_POINTS: usize = 64;
/// Most `rename-command` lines.
pub const MAX_RENAMED_COMMANDS: usize = 256;
/// Most I/O threads.
pub const MAX_IO_THREADS: u16 = 256;
/// Seconds between probes of a silent client with `tcp-keepalive yes`.
pub const KEEPALIVE_YES_SECS: u32 = 300;

/// All settings of a node, checked each for itself.
///
/// Empty texts and lists mean "none"; what zero means stands in the shipped `discnt.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is documented by the setting of the same name in `table.rs`")]
pub struct Settings {
    // Clients.
    pub port: u16,
    pub bind: Vec<String>,
    pub protected_mode: bool,
    pub unixsocket: String,
    /// Permission bits; 0 leaves them to the umask.
    pub unixsocketperm: u32,
    pub tcp_backlog: u32,
    pub tcp_keepalive_secs: u32,
    pub timeout_secs: u32,
    pub maxclients: u32,
    pub io_threads: u16,
    pub client_output_buffer_limit: OutputLimits,
    pub requirepass: Secret,
    pub rename_command: Vec<RenamedCommand>,
    // The process.
    pub daemonize: bool,
    pub supervised: Supervised,
    pub pidfile: String,
    pub dir: String,
    pub loglevel: LogLevel,
    pub logfile: String,
    pub syslog_enabled: bool,
    pub syslog_ident: String,
    pub syslog_facility: SyslogFacility,
    pub latency_monitor_threshold_ms: u64,
    pub maxmemory_bytes: u64,
    pub hz: u32,
    pub watchdog_period_ms: u32,
    pub activerehashing: bool,
    // Counters.
    pub default_precision: Precision,
    pub history_size_secs: u32,
    // The disk.
    pub appendonly: bool,
    pub appendfsync: AppendFsync,
    pub snapshot_min_log_bytes: u64,
    pub appenddirname: String,
    pub dbfilename: String,
    pub save: Vec<SavePoint>,
    pub stop_writes_on_bgsave_error: bool,
    pub ddbchecksum: bool,
    // The cluster.
    pub cluster_node_timeout_ms: u64,
    pub cluster_config_file: String,
    pub cluster_secret: Secret,
    pub cluster_announce_ip: String,
    /// 0 announces `port`.
    pub cluster_announce_port: u16,
    /// 0 announces the announced port + `BUS_PORT_OFFSET`.
    pub cluster_announce_bus_port: u16,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            port: 5262,
            bind: Vec::new(),
            protected_mode: true,
            unixsocket: String::new(),
            unixsocketperm: 0,
            tcp_backlog: 511,
            tcp_keepalive_secs: 0,
            timeout_secs: 0,
            maxclients: 10_000,
            io_threads: 0,
            client_output_buffer_limit: OutputLimits::default(),
            requirepass: Secret::default(),
            rename_command: Vec::new(),
            daemonize: false,
            supervised: Supervised::No,
            pidfile: "/var/run/discnt.pid".to_owned(),
            dir: ".".to_owned(),
            loglevel: LogLevel::Notice,
            logfile: String::new(),
            syslog_enabled: false,
            syslog_ident: "discnt".to_owned(),
            syslog_facility: SyslogFacility::Local0,
            latency_monitor_threshold_ms: 0,
            maxmemory_bytes: 1 << 30,
            hz: 10,
            watchdog_period_ms: 0,
            activerehashing: true,
            default_precision: Precision::Absolute(Value::ONE),
            history_size_secs: 10,
            appendonly: true,
            appendfsync: AppendFsync::Everysec,
            snapshot_min_log_bytes: 64 << 20,
            appenddirname: "appendonlydir".to_owned(),
            dbfilename: "dump.ddb".to_owned(),
            save: vec![SavePoint::new(3_600, 1), SavePoint::new(300, 100), SavePoint::new(60, 10_000)],
            stop_writes_on_bgsave_error: true,
            ddbchecksum: true,
            cluster_node_timeout_ms: 15_000,
            cluster_config_file: "nodes.conf".to_owned(),
            cluster_secret: Secret::default(),
            cluster_announce_ip: String::new(),
            cluster_announce_port: 0,
            cluster_announce_bus_port: 0,
        }
    }
}

/// Saves when this many changes have happened and this much time has passed since the last save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the type says it")]
pub struct SavePoint {
    pub seconds: u32,
    pub changes: u32,
}

impl SavePoint {
    const fn new(seconds: u32, changes: u32) -> SavePoint {
        SavePoint { seconds, changes }
    }
}

/// A limit on the output that waits for a client; 0 stands for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// More than this closes the connection at once.
    pub hard_bytes: u64,
    /// More than this closes the connection after `soft_secs` in a row.
    pub soft_bytes: u64,
    /// See `soft_bytes`.
    pub soft_secs: u32,
}

/// The limit of each class of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimits {
    /// Clients without subscriptions, monitors among them.
    pub normal: OutputLimit,
    /// Subscribers.
    pub pubsub: OutputLimit,
}

/// A command that has another name, or none, on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenamedCommand {
    /// The name that it has without the setting.
    pub command: String,
    /// Its name here; empty removes the command.
    pub name: String,
}

/// Bytes that no log and no message may show; empty stands for none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "no secret" } else { "a secret" })
    }
}

/// When a setting may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// In files and options; CONFIG SET refuses.
    StartUp,
    /// There, and by CONFIG SET.
    RunTime,
}

/// What CONFIG GET tells of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Its value.
    Plainly,
    /// `SECRET_MASK` if set: answers end up in reports and dashboards.
    Masked,
    /// Nothing, as if it did not exist: a setting of files alone.
    Never,
}

/// What stands for a secret that is set. An empty secret is shown as it is.
pub const SECRET_MASK: &[u8] = b"********";

/// What follows the name of a setting on each of its lines in a file, quoted.
pub type Lines = fn(&Settings) -> Vec<Vec<u8>>;

/// Everything about one setting but its default.
pub struct SettingSpec {
    /// The name in files and commands, lower case.
    pub name: &'static str,
    /// The values that it takes.
    pub kind: Kind,
    /// When it may change.
    pub when: When,
    /// What CONFIG GET tells of it.
    pub shown: Shown,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Its value as CONFIG GET and CONFIG SET have it, secrets included.
    pub get: fn(&Settings) -> Vec<u8>,
    /// Takes over what an operator gave. After an error, discard the settings: a list may hold part of it.
    pub set: fn(&mut Settings, &Given<'_>) -> Result<(), SettingError>,
    /// Its lines in a file; `None`: one line with what `get` answers.
    pub lines: Option<Lines>,
}

impl SettingSpec {
    /// Whether the value must stay out of logs and messages.
    pub fn is_secret(&self) -> bool {
        self.shown == Shown::Masked
    }

    /// The value that a node has without being told, as `get` answers it.
    pub fn default_text(&self) -> Vec<u8> {
        (self.get)(&Settings::default())
    }

    /// The lines that set this setting in a file.
    pub(crate) fn file_lines(&self, settings: &Settings) -> Vec<Vec<u8>> {
        let arguments = match self.lines {
            Some(lines) => lines(settings),
            None => vec![given::quoted(&(self.get)(settings))],
        };
        arguments.iter().map(|argument| [self.name.as_bytes(), b" ", argument].concat()).collect()
    }
}

/// Finds a setting by its name, in any letter case.
pub fn find(name: &[u8]) -> Option<&'static SettingSpec> {
    SETTINGS.iter().find(|spec| spec.name.as_bytes().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_lower_case_and_stands_once() {
        for (index, spec) in SETTINGS.iter().enumerate() {
            assert_eq!(spec.name, spec.name.to_ascii_lowercase());
            assert!(SETTINGS[..index].iter().all(|earlier| earlier.name != spec.name), "{} twice", spec.name);
            assert!(spec.summary.ends_with('.'), "{}: the summary is a sentence", spec.name);
        }
    }

    #[test]
    fn every_default_can_be_given_back_in_a_file() {
        for spec in SETTINGS {
            let lines = spec.file_lines(&Settings::default());
            let mut reader = ConfigReader::new(Settings::default());
            reader.read_text(&lines.join(&b'\n'), "test", &mut file::no_includes).unwrap();
            assert_eq!(*reader.settings(), Settings::default(), "{}", spec.name);
        }
    }

    #[test]
    fn every_setting_that_may_change_takes_its_own_value_back() {
        for spec in SETTINGS.iter().filter(|spec| spec.when == When::RunTime) {
            let value = spec.default_text();
            let changed = config_set(&Settings::default(), &[(spec.name.as_bytes(), &value)]);
            assert_eq!(changed, Ok(Settings::default()), "{}", spec.name);
        }
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let settings = Settings { requirepass: Secret(b"hunter2".to_vec()), ..Settings::default() };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn names_are_found_in_any_letter_case() {
        assert_eq!(find(b"TimeOut").map(|spec| spec.name), Some("timeout"));
        assert!(find(b"timeou").is_none() && find(b"").is_none());
    }
}
