//! The table of all settings.
//!
//! Its order is the order in which CONFIG GET answers: first what the original shows, in its order, then what is
//! ours, then what CONFIG GET never shows. The shipped `discnt.conf` explains each at length.

use super::given::{Kind, SettingError};
use super::lists::{
    bind_lines, keepalive_secs, keepalive_text, output_limits_text, rename_lines, save_lines, save_text,
    set_bind, set_output_limits, set_rename, set_save,
};
use super::words::{AppendFsync, LogLevel, Named, Supervised, SyslogFacility};
use super::{
    MAX_HISTORY_SIZE_SECS, MAX_IO_THREADS, MAX_PORT, MAX_SECRET_LEN, MAX_TEXT_LEN, MIN_SECRET_LEN, Precision,
    SettingSpec, Shown, When,
};
use std::fmt::Display;
use std::net::IpAddr;

/// Bound of numbers that have no natural one; other servers of the family hold them in 31 bits.
const MAX_NUMBER: u64 = i32::MAX as u64;

const TEXT: Kind = Kind::Text { max_len: MAX_TEXT_LEN };

const fn number(min: u64, max: u64, unit: &'static str) -> Kind {
    Kind::Number { min, max, unit }
}

const fn choice<T: Named>() -> Kind {
    Kind::Choice(|| T::NAMES.iter().map(|(name, _)| *name).collect())
}

/// All settings.
pub static SETTINGS: &[SettingSpec] = &[
    SettingSpec {
        name: "dbfilename",
        kind: TEXT,
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Name, in the data directory, of a dump file to read and write.",
        get: |s| text(&s.dbfilename),
        set: |s, given| {
            put(&mut s.dbfilename, given.file_name("dbfilename can't be a path, just a filename"))
        },
        lines: None,
    },
    SettingSpec {
        name: "requirepass",
        kind: Kind::Secret { min_len: 0, max_len: MAX_SECRET_LEN },
        when: When::RunTime,
        shown: Shown::Masked,
        summary: "Password that clients must give with AUTH.",
        get: |s| s.requirepass.0.clone(),
        set: |s, given| put(&mut s.requirepass.0, given.secret()),
        lines: None,
    },
    SettingSpec {
        name: "unixsocket",
        kind: TEXT,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Path of a unix socket to listen on.",
        get: |s| text(&s.unixsocket),
        set: |s, given| put(&mut s.unixsocket, given.text()),
        lines: None,
    },
    SettingSpec {
        name: "logfile",
        kind: TEXT,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "File that the log is appended to; empty for standard output.",
        get: |s| text(&s.logfile),
        set: |s, given| put(&mut s.logfile, given.text()),
        lines: None,
    },
    SettingSpec {
        name: "pidfile",
        kind: TEXT,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "File that holds the process id while the server runs; empty for none.",
        get: |s| text(&s.pidfile),
        set: |s, given| put(&mut s.pidfile, given.text()),
        lines: None,
    },
    SettingSpec {
        name: "maxmemory",
        kind: Kind::Memory,
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Bytes of memory above which commands that may create counters are refused; 0 for no limit.",
        get: |s| text(s.maxmemory_bytes),
        set: |s, given| put(&mut s.maxmemory_bytes, given.memory()),
        lines: None,
    },
    SettingSpec {
        name: "timeout",
        kind: number(0, MAX_NUMBER, "seconds"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Seconds after which an idle client is disconnected; 0 for never.",
        get: |s| text(s.timeout_secs),
        set: |s, given| put(&mut s.timeout_secs, given.number()),
        lines: None,
    },
    SettingSpec {
        name: "latency-monitor-threshold",
        kind: number(0, MAX_NUMBER, "milliseconds"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Milliseconds from which a delay is recorded for LATENCY; 0 records none.",
        get: |s| text(s.latency_monitor_threshold_ms),
        set: |s, given| put(&mut s.latency_monitor_threshold_ms, given.number()),
        lines: None,
    },
    SettingSpec {
        name: "port",
        kind: Kind::Number {
            min: 0,
            max: MAX_PORT as u64,
            unit: "a TCP port; the cluster bus takes it + 10000",
        },
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "TCP port for clients; the cluster bus listens on this port + 10000. 0 opens neither.",
        get: |s| text(s.port),
        set: |s, given| put(&mut s.port, given.number()),
        lines: None,
    },
    SettingSpec {
        name: "tcp-backlog",
        kind: number(1, 65_535, "connections"),
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Connections that may wait to be accepted.",
        get: |s| text(s.tcp_backlog),
        set: |s, given| put(&mut s.tcp_backlog, given.number()),
        lines: None,
    },
    SettingSpec {
        name: "maxclients",
        kind: number(1, 1_000_000, "clients"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Clients that may be connected at once.",
        get: |s| text(s.maxclients),
        set: |s, given| put(&mut s.maxclients, given.number()),
        lines: None,
    },
    SettingSpec {
        name: "watchdog-period",
        kind: number(0, MAX_NUMBER, "milliseconds"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Accepted for old files; has no effect.",
        get: |s| text(s.watchdog_period_ms),
        set: |s, given| put(&mut s.watchdog_period_ms, given.number()),
        lines: None,
    },
    SettingSpec {
        name: "hz",
        kind: number(0, MAX_NUMBER, "ticks per second; taken to the nearest from 1 to 500"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Accepted for old files; has no effect.",
        get: |s| text(s.hz),
        set: |s, given| put(&mut s.hz, given.number().map(|hz: u32| hz.clamp(1, 500))),
        lines: None,
    },
    SettingSpec {
        name: "cluster-node-timeout",
        kind: number(100, 86_400_000, "milliseconds"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Milliseconds of silence after which a member counts as failing.",
        get: |s| text(s.cluster_node_timeout_ms),
        set: |s, given| put(&mut s.cluster_node_timeout_ms, given.number()),
        lines: None,
    },
    SettingSpec {
        name: "history-size",
        kind: number(1, MAX_HISTORY_SIZE_SECS as u64, "seconds"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Seconds over which the movement of a counter is measured to predict it.",
        get: |s| text(s.history_size_secs),
        set: |s, given| put(&mut s.history_size_secs, given.number()),
        lines: None,
    },
    SettingSpec {
        name: "stop-writes-on-bgsave-error",
        kind: Kind::Flag,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Whether a node that can't write its files refuses changes.",
        get: |s| yes_no(s.stop_writes_on_bgsave_error),
        set: |s, given| put(&mut s.stop_writes_on_bgsave_error, given.flag()),
        lines: None,
    },
    SettingSpec {
        name: "tcp-keepalive",
        kind: Kind::Special("a whole number of seconds, or no (0), or yes (300)"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Seconds between probes of a silent client; no or 0 sends none.",
        get: |s| keepalive_text(s.tcp_keepalive_secs),
        set: |s, given| put(&mut s.tcp_keepalive_secs, keepalive_secs(given)),
        lines: None,
    },
    SettingSpec {
        name: "daemonize",
        kind: Kind::Flag,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Whether the server goes to the background.",
        get: |s| yes_no(s.daemonize),
        set: |s, given| put(&mut s.daemonize, given.flag()),
        lines: None,
    },
    SettingSpec {
        name: "ddbchecksum",
        kind: Kind::Flag,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Accepted for old files; has no effect, everything written carries a checksum.",
        get: |s| yes_no(s.ddbchecksum),
        set: |s, given| put(&mut s.ddbchecksum, given.flag()),
        lines: None,
    },
    SettingSpec {
        name: "activerehashing",
        kind: Kind::Flag,
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Accepted for old files; has no effect.",
        get: |s| yes_no(s.activerehashing),
        set: |s, given| put(&mut s.activerehashing, given.flag()),
        lines: None,
    },
    SettingSpec {
        name: "loglevel",
        kind: choice::<LogLevel>(),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "The least weighty lines that the log takes.",
        get: |s| text(s.loglevel.name()),
        set: |s, given| put(&mut s.loglevel, given.choice()),
        lines: None,
    },
    SettingSpec {
        name: "supervised",
        kind: choice::<Supervised>(),
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Who watches over the process and wants to hear when it is ready.",
        get: |s| text(s.supervised.name()),
        set: |s, given| put(&mut s.supervised, given.choice()),
        lines: None,
    },
    SettingSpec {
        name: "syslog-facility",
        kind: choice::<SyslogFacility>(),
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Accepted for old files; has no effect.",
        get: |s| text(s.syslog_facility.name()),
        set: |s, given| put(&mut s.syslog_facility, given.choice()),
        lines: None,
    },
    SettingSpec {
        name: "default-precision",
        kind: Kind::Special("a number from 0 to 100000000000000000000, or a percentage from 0% to 100%"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Precision of a counter that was not given its own.",
        get: |s| s.default_precision.text(),
        set: |s, given| {
            put(&mut s.default_precision, Precision::parse(given.word()?).ok_or(SettingError::Invalid))
        },
        lines: None,
    },
    SettingSpec {
        name: "dir",
        kind: TEXT,
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "The data directory.",
        get: |s| text(&s.dir),
        set: |s, given| {
            put(&mut s.dir, Some(given.text()?).filter(|dir| !dir.is_empty()).ok_or(SettingError::Invalid))
        },
        lines: None,
    },
    SettingSpec {
        name: "save",
        kind: Kind::Special("pairs of seconds (1 or more) and changes (0 or more), or \"\" for none"),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "When to write a snapshot: after so many seconds if there were so many changes.",
        get: save_text,
        set: set_save,
        lines: Some(save_lines),
    },
    SettingSpec {
        name: "client-output-buffer-limit",
        kind: Kind::Special(
            "normal or pubsub, then a hard limit, a soft limit (both bytes) and seconds, once or twice",
        ),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "How much output may wait for a client of a class before it is disconnected.",
        get: |s| output_limits_text(s).join(&b' '),
        set: set_output_limits,
        lines: Some(output_limits_text),
    },
    SettingSpec {
        name: "unixsocketperm",
        kind: Kind::Octal { max: 0o777 },
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Permission bits of the unix socket, octal; 0 leaves them to the umask.",
        get: |s| text(format_args!("{:o}", s.unixsocketperm)),
        set: |s, given| put(&mut s.unixsocketperm, given.octal()),
        lines: None,
    },
    SettingSpec {
        name: "bind",
        kind: Kind::Special("IPv4 or IPv6 addresses or *, at most 16, or \"\" for all of IPv4"),
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Addresses to listen on; none stands for all of IPv4.",
        get: |s| text(s.bind.join(" ")),
        set: set_bind,
        lines: Some(bind_lines),
    },
    // Ours.
    SettingSpec {
        name: "protected-mode",
        kind: Kind::Flag,
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Whether strangers are refused: clients from other machines while there is neither requirepass nor \
                  bind, members from other machines while there is no cluster-secret.",
        get: |s| yes_no(s.protected_mode),
        set: |s, given| put(&mut s.protected_mode, given.flag()),
        lines: None,
    },
    SettingSpec {
        name: "io-threads",
        kind: number(0, MAX_IO_THREADS as u64, "threads"),
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Threads that serve clients; 0 for one per core.",
        get: |s| text(s.io_threads),
        set: |s, given| put(&mut s.io_threads, given.number()),
        lines: None,
    },
    SettingSpec {
        name: "appendonly",
        kind: Kind::Flag,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Whether changes are written to a log on disk.",
        get: |s| yes_no(s.appendonly),
        set: |s, given| put(&mut s.appendonly, given.flag()),
        lines: None,
    },
    SettingSpec {
        name: "appendfsync",
        kind: choice::<AppendFsync>(),
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "When the log of changes is forced to the disk.",
        get: |s| text(s.appendfsync.name()),
        set: |s, given| put(&mut s.appendfsync, given.choice()),
        lines: None,
    },
    SettingSpec {
        name: "snapshot-min-log",
        kind: Kind::Memory,
        when: When::RunTime,
        shown: Shown::Plainly,
        summary: "Bytes that the log has at least before a snapshot replaces it; beyond that, one is made when the log is as \
                  large as the last snapshot.",
        get: |s| text(s.snapshot_min_log_bytes),
        set: |s, given| put(&mut s.snapshot_min_log_bytes, given.memory()),
        lines: None,
    },
    SettingSpec {
        name: "appenddirname",
        kind: TEXT,
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Name, in the data directory, of the directory of the log and its snapshots.",
        get: |s| text(&s.appenddirname),
        set: |s, given| {
            put(
                &mut s.appenddirname,
                given.file_name("appenddirname can't be a path, just a directory's name"),
            )
        },
        lines: None,
    },
    SettingSpec {
        name: "cluster-secret",
        kind: Kind::Secret { min_len: MIN_SECRET_LEN, max_len: MAX_SECRET_LEN },
        when: When::StartUp,
        shown: Shown::Masked,
        summary: "Secret that all members share; with it the cluster bus is encrypted and closed to strangers.",
        get: |s| s.cluster_secret.0.clone(),
        set: |s, given| put(&mut s.cluster_secret.0, given.secret()),
        lines: None,
    },
    SettingSpec {
        name: "cluster-announce-ip",
        kind: Kind::Text { max_len: 255 },
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "IP address under which other members reach this node; empty: as they see it.",
        get: |s| text(&s.cluster_announce_ip),
        set: |s, given| {
            let ip = given.text()?;
            let is_usable = |ip: IpAddr| !ip.is_unspecified() && !ip.is_multicast();
            if !ip.is_empty() && !ip.parse().is_ok_and(is_usable) {
                return Err(SettingError::Refused(
                    "cluster-announce-ip must be the IP address of a machine, or empty",
                ));
            }
            put(&mut s.cluster_announce_ip, Ok(ip))
        },
        lines: None,
    },
    SettingSpec {
        name: "cluster-announce-port",
        kind: number(0, u16::MAX as u64, "a TCP port"),
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Client port to announce to other members; 0 for the port itself.",
        get: |s| text(s.cluster_announce_port),
        set: |s, given| put(&mut s.cluster_announce_port, given.number()),
        lines: None,
    },
    SettingSpec {
        name: "cluster-announce-bus-port",
        kind: number(0, u16::MAX as u64, "a TCP port"),
        when: When::StartUp,
        shown: Shown::Plainly,
        summary: "Port of the cluster bus to announce to other members; 0 for the bus port itself.",
        get: |s| text(s.cluster_announce_bus_port),
        set: |s, given| put(&mut s.cluster_announce_bus_port, given.number()),
        lines: None,
    },
    // In files alone.
    SettingSpec {
        name: "cluster-config-file",
        kind: TEXT,
        when: When::StartUp,
        shown: Shown::Never,
        summary: "Name, in the data directory, of the file in which the node keeps its identity and its members.",
        get: |s| text(&s.cluster_config_file),
        set: |s, given| {
            put(
                &mut s.cluster_config_file,
                given.file_name("cluster-config-file can't be a path, just a filename"),
            )
        },
        lines: None,
    },
    SettingSpec {
        name: "syslog-enabled",
        kind: Kind::Flag,
        when: When::StartUp,
        shown: Shown::Never,
        summary: "Accepted for old files; has no effect.",
        get: |s| yes_no(s.syslog_enabled),
        set: |s, given| put(&mut s.syslog_enabled, given.flag()),
        lines: None,
    },
    SettingSpec {
        name: "syslog-ident",
        kind: TEXT,
        when: When::StartUp,
        shown: Shown::Never,
        summary: "Accepted for old files; has no effect.",
        get: |s| text(&s.syslog_ident),
        set: |s, given| put(&mut s.syslog_ident, given.text()),
        lines: None,
    },
    SettingSpec {
        name: "rename-command",
        kind: Kind::Special("a command and its new name, or \"\" to remove it; at most 256 times"),
        when: When::StartUp,
        shown: Shown::Never,
        summary: "Gives a command another name, or none.",
        get: |s| rename_lines(s).join(&b' '),
        set: set_rename,
        lines: Some(rename_lines),
    },
    SettingSpec {
        name: "include",
        kind: Kind::Special("the path of another configuration file"),
        when: When::StartUp,
        shown: Shown::Never,
        summary: "Reads another configuration file at this place.",
        get: |_| Vec::new(),
        // The reader of files follows includes; they never get here.
        set: |_, _| Err(SettingError::Refused("include works only in a configuration file or as an option")),
        lines: Some(|_| Vec::new()),
    },
];

pub(crate) fn text(value: impl Display) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn yes_no(flag: bool) -> Vec<u8> {
    text(if flag { "yes" } else { "no" })
}

fn put<T>(field: &mut T, value: Result<T, SettingError>) -> Result<(), SettingError> {
    *field = value?;
    Ok(())
}
